//! A real systemd in a container, and units in it.
//!
//! ```ignore
//! let container = Container::shared();
//! let bot = container.service("ExecStart=/bin/sleep infinity");
//! systemd(&container).start(&[bot.name()], Duration::from_secs(5)).await.unwrap();
//! assert_eq!(bot.property("ActiveState"), "active");
//! ```
//!
//! The shared container is the one that `scripts/testbed up` booted, or one that is booted by the
//! first test and goes with the test process.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use understudy::adapters::systemd::Systemd;

/// How long anything in the container may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A container with a systemd of its own.
#[derive(Clone, Debug)]
pub struct Container {
    pid1: String,
    /// Its file system, seen from here.
    pub root: PathBuf,
    /// D-Bus address of its system bus.
    pub bus: String,
    /// A directory that is the same on both sides.
    pub shared: PathBuf,
}

impl Container {
    /// The container of all tests. Nothing may be done in it that other tests would notice.
    pub fn shared() -> Self {
        static SHARED: OnceLock<Container> = OnceLock::new();
        let boot = || if env::var("UNDERSTUDY_TEST_BUS").is_ok() { given() } else { Self::own() };
        SHARED.get_or_init(boot).clone()
    }

    /// A container for one test, which may do to it as it likes. It takes half a second.
    pub fn own() -> Self {
        let testbed = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/testbed");
        let target = Path::new(env!("CARGO_BIN_EXE_understudy")).parent().unwrap();
        let output = Command::new(testbed)
            .arg("up")
            .args(["--follow", &std::process::id().to_string()])
            .args(["--bind-ro".as_ref(), target.as_os_str()])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "no systemd to test with. As root, run\n    eval \"$(scripts/testbed up)\"\n\
             and then the tests again. It said:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let exports = String::from_utf8(output.stdout).unwrap();
        Self::from(|name| {
            let prefix = format!("export {name}=");
            exports.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().to_owned()
        })
    }

    /// Ends it, before the test process does. A kernel has room for some dozen containers only.
    pub fn down(&self) {
        let testbed = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/testbed");
        let directory = self.shared.parent().unwrap();
        let _ended = Command::new(testbed).arg("down").arg(directory).output();
    }

    /// A client of its systemd.
    pub fn systemd(&self) -> Systemd {
        Systemd::at(self.bus.clone())
    }

    /// A new unit of a name that no other test has, made of the lines of its [Service] section.
    pub fn service(&self, lines: &str) -> Unit {
        self.unit("service", &format!("[Service]\n{lines}\n"))
    }

    /// The same for any kind of unit and all sections.
    pub fn unit(&self, kind: &str, text: &str) -> Unit {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unit = Unit {
            container: self.clone(),
            name: format!("test-{}-{count}.{kind}", std::process::id()),
        };
        unit.rewrite(text);
        unit
    }

    /// Runs a command inside, and returns what it printed.
    pub fn run(&self, command: &[&str]) -> String {
        let output = self.try_run(command);
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(
            output.status.success(),
            "{command:?} in the container: {}\n{printed}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        printed
    }

    /// Runs a command inside that may fail.
    pub fn try_run(&self, command: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.pid1, "--mount", "--uts", "--ipc", "--net", "--pid"])
            .args(["--cgroup", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"])
            .args(command)
            .output()
            .unwrap()
    }

    fn from(value: impl Fn(&str) -> String) -> Self {
        Self {
            pid1: value("UNDERSTUDY_TEST_PID1"),
            root: value("UNDERSTUDY_TEST_ROOT").into(),
            bus: value("UNDERSTUDY_TEST_BUS"),
            shared: value("UNDERSTUDY_TEST_SHARED").into(),
        }
    }
}

/// A unit in a container. It is killed and removed at the end of the test.
#[derive(Debug)]
pub struct Unit {
    container: Container,
    name: String,
}

impl Unit {
    /// Its name.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// What systemd says of it, asked without D-Bus.
    pub fn property(&self, name: &str) -> String {
        self.systemctl(&["show", "--value", "--property", name])
    }

    /// Its main process, numbered as inside.
    pub fn main_pid(&self) -> String {
        self.property("MainPID")
    }

    /// Runs systemctl on it.
    pub fn systemctl(&self, command: &[&str]) -> String {
        self.container.run(&[&["systemctl"], command, &[&self.name]].concat())
    }

    /// Waits until a property of it has a value.
    pub fn wait_for(&self, property: &str, value: &str) {
        let seen = || self.property(property);
        wait_until(&format!("{property} of {} to be {value}", self.name), || seen() == value);
    }

    /// Changes its file. systemd notices after a daemon-reload.
    pub fn rewrite(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    /// Its file, seen from here.
    pub fn path(&self) -> PathBuf {
        self.container.root.join("run/systemd/system").join(&self.name)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
        self.container.try_run(&["systemctl", "kill", "--signal=KILL", &self.name]);
        self.container.try_run(&["systemctl", "stop", "--no-block", &self.name]);
        self.container.try_run(&["systemctl", "kill", "--signal=KILL", &self.name]);
    }
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let pace = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / pace.as_millis() {
        if so() {
            return;
        }
        thread::sleep(pace);
    }
    panic!("waited {PATIENCE:?} for {what}");
}

fn given() -> Container {
    Container::from(|name| {
        env::var(name).unwrap_or_else(|_| panic!("UNDERSTUDY_TEST_BUS is set, but not {name}"))
    })
}
