//! With any one layer gone the others are enough.

use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::rig::{Listener, Rig};
use crate::support::stage::{done, write};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_watchdog_the_deadline_is_enough() {
    let mut rig = Rig::protected().await;
    write(
        &rig.host,
        "/etc/systemd/system/understudy-lease@.service.d/99-test.conf",
        "[Service]\nWatchdogSec=0\n",
    );
    done(&rig.host, "systemctl daemon-reload");
    rig.take().await;
    rig.start_bots();
    assert_eq!(rig.property(&rig.guard(), "WatchdogUSec"), "0");
    let listener = Listener::to(&rig).await;
    rig.postgres.freeze();
    rig.assert_dead_in_time(listener.last_granted().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_binds_to_the_guard_ends_them_itself() {
    let mut rig = Rig::protected().await;
    done(
        &rig.host,
        "sed -i /^BindsTo=/d /etc/systemd/system/*.d/50-understudy.conf; \
                     systemctl daemon-reload",
    );
    assert_eq!(rig.property("bot.service", "BindsTo"), "");
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    rig.postgres.freeze();
    rig.assert_dead_in_time(listener.last_granted().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_gate_a_unit_without_a_guard_stays_down() {
    let rig = Rig::protected().await;
    done(
        &rig.host,
        "sed -i /^ExecCondition=/d /etc/systemd/system/*.d/50-understudy.conf; \
                     systemctl daemon-reload",
    );
    rig.shell("systemctl start bot");
    assert_eq!(rig.property("bot.service", "ActiveState"), "inactive");
    assert!(rig.last_beat("bot").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_deadline_the_rest_is_enough() {
    let mut rig = Rig::protected().await;
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    let held = rig.hold_thread("deadline");
    rig.postgres.freeze();
    rig.assert_dead_in_time(listener.last_granted().await);
    drop(held);
}

/// Keeps one thread of a process from running.
struct HeldThread(std::sync::mpsc::Sender<()>);

impl Rig {
    /// Stops the thread of the guard that has this name.
    fn hold_thread(&self, name: &str) -> HeldThread {
        let pid = self.property(&self.guard(), "MainPID");
        let line = format!(
            "for t in /proc/{pid}/task/*; do [ $(cat $t/comm) = {name} ] && grep NSpid $t/status; done"
        );
        // The host counts from one; out here is another count.
        let inner = done(&self.host, &line);
        let inner = inner.split_whitespace().next_back().unwrap().to_owned();
        let outer = outer_thread(&inner, name);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        // Whoever traces a thread must be one thread.
        std::thread::spawn(move || {
            ptrace::seize(outer, ptrace::Options::empty()).unwrap();
            ptrace::interrupt(outer).unwrap();
            waitpid(outer, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
            tell.send(()).unwrap();
            let _until_dropped = held.recv();
        });
        told.recv().unwrap();
        HeldThread(hold)
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        let _gone = self.0.send(());
    }
}

/// The thread out here that is called `inner` in a container.
fn outer_thread(inner: &str, name: &str) -> Pid {
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(threads) = std::fs::read_dir(process.path().join("task")) else { continue };
        for thread in threads.flatten() {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let named = status.lines().any(|line| line == format!("Name:\t{name}"));
            let counted = status.lines().any(|line| {
                line.starts_with("NSpid:") && line.split_whitespace().next_back() == Some(inner)
            });
            if named && counted {
                return Pid::from_raw(thread.file_name().to_string_lossy().parse().unwrap());
            }
        }
    }
    panic!("there is no thread {name} numbered {inner}");
}
