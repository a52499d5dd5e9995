//! Whatever is lost, the units are dead in time.

use std::time::Duration;

use super::rig::{FrozenSystemd, Listener, Rig, TIMERS};
use crate::support::stage::{done, write};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn with_the_lease_units_run_for_as_long_as_it_is_renewed() {
    let rig = Rig::protected().await;
    let token = rig.take().await;
    rig.start_bots();
    let state = rig.state().await.unwrap();
    assert!(state.lets_pass(), "{state:?}");
    assert_eq!(state.token(), Some(token));
    assert!(u128::from(state.valid_ms) <= TIMERS.fence_after.as_millis());
    let renewals = "SELECT seq FROM understudy.lease";
    let before: i64 = rig.postgres.value(renewals).await.parse().unwrap();
    crate::support::wait::until_async("twenty renewals", async || {
        rig.postgres.value(renewals).await.parse::<i64>().unwrap() >= before + 20
    })
    .await;
    assert_eq!(rig.property("bot.service", "NRestarts"), "0");
    assert_eq!(rig.property("bot.service", "ActiveState"), "active");
    assert_eq!(rig.events("fence_begun"), 0);
    let locked = rig.shell(&format!(
        "grep VmLck /proc/$(systemctl show --value -p MainPID '{}')/status",
        rig.guard()
    ));
    let locked = String::from_utf8_lossy(&locked.stdout).into_owned();
    let kilobytes = locked.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    assert!(kilobytes > Some(1000), "it is locked in memory: {locked}\n{}", rig.journal());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_freezes_ends_them() {
    let mut rig = Rig::protected().await;
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    rig.postgres.freeze();
    let granted = listener.last_granted().await;
    rig.assert_dead_in_time(granted);
    for bot in ["bot", "other"] {
        assert_eq!(rig.asked(bot), 1, "systemd asked it, and nobody else");
    }
    assert_eq!(rig.events("renewal_failed"), 1);
    assert_eq!(rig.events("fence_begun"), 1, "{}", rig.journal());
    assert_eq!(rig.events("fence_done"), 1);
    until("systemd to see the end", || {
        rig.property(&rig.guard(), "ActiveState") == "failed"
            && rig.property("bot.service", "ActiveState") == "inactive"
    });
    assert_eq!(rig.property(&rig.guard(), "ExecMainStatus"), "3");
    assert_eq!(rig.property(&rig.guard(), "Result"), "exit-code", "not its watchdog");
    rig.postgres.thaw();
    let started = rig.shell("systemctl start bot");
    assert_eq!(rig.property("bot.service", "ActiveState"), "inactive", "{started:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_back_in_time_ends_nothing() {
    let mut rig = Rig::protected().await;
    rig.take().await;
    rig.start_bots();
    for _ in 0..3 {
        rig.postgres.freeze();
        until("a renewal to be missed", || rig.events("renewal_failed") > 0);
        rig.postgres.thaw();
        until("renewals to be granted", || {
            rig.events("renewal_answered") >= rig.events("renewal_failed")
        });
    }
    assert_eq!(rig.property("bot.service", "NRestarts"), "0");
    assert_eq!(rig.events("fence_begun"), 0, "{}", rig.journal());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_renewal_ends_them_at_once() {
    let rig = Rig::protected().await;
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    rig.lease("b").await;
    let granted = listener.last_granted().await;
    let took = rig.assert_dead_in_time(granted);
    assert!(took < TIMERS.fence_after, "{took:?}: it did not wait for the deadline");
    until("the reason to be told", || {
        let said = rig.shell("journalctl -o cat UNDERSTUDY_EVENT=fence_begun");
        String::from_utf8_lossy(&said.stdout).contains("belongs to somebody else")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_may_be_borne() {
    let mut rig = Rig::protected().await;
    rig.configure("on_store_loss = \"hold\"");
    rig.take().await;
    rig.start_bots();
    rig.postgres.freeze();
    let lost = rig.state().await.unwrap().confirmed_ns.unwrap();
    until("the bots to outlive the budget", || {
        rig.last_beat("bot").unwrap().since(lost) > TIMERS.dead_by() + TIMERS.watchdog()
    });
    assert_eq!(rig.property(&rig.guard(), "ActiveState"), "active");
    rig.postgres.thaw();
    until("renewals to be granted again", || rig.events("renewal_answered") > 0);
    let listener = Listener::to(&rig).await;
    rig.lease("b").await;
    let granted = listener.last_granted().await;
    rig.assert_dead_in_time(granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_is_killed_takes_them_along() {
    let rig = Rig::protected().await;
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    rig.signal_guard("KILL");
    let granted = listener.last_granted().await;
    rig.assert_dead_in_time(granted);
    assert_eq!(rig.asked("bot"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_freezes_is_killed_by_its_watchdog() {
    let rig = Rig::protected().await;
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    rig.signal_guard("STOP");
    let granted = listener.last_granted().await;
    rig.assert_dead_in_time(granted);
    assert_eq!(rig.property(&rig.guard(), "Result"), "watchdog");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ignores_sigterm_is_killed_in_time() {
    let mut rig = Rig::protected().await;
    rig.bot("bot", "stubborn", "");
    done(&rig.host, "systemctl daemon-reload");
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    rig.postgres.freeze();
    let granted = listener.last_granted().await;
    let took = rig.assert_dead_in_time(granted);
    assert!(took > TIMERS.fence_after + TIMERS.kill_after() / 2, "{took:?}: it was asked first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_freezes_in_its_fence_leaves_the_rest_to_systemd() {
    let mut rig = Rig::protected().await;
    rig.bot("bot", "stubborn", "");
    done(&rig.host, "systemctl daemon-reload");
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    rig.postgres.freeze();
    until("the bot to be asked", || rig.asked("bot") > 0);
    rig.signal_guard("STOP");
    let granted = listener.last_granted().await;
    rig.assert_dead_in_time(granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_systemd_that_hangs_does_not_save_them() {
    let mut rig = Rig::protected().await;
    rig.bot("other", "stubborn", "");
    done(&rig.host, "systemctl daemon-reload");
    rig.take().await;
    rig.start_bots();
    let listener = Listener::to(&rig).await;
    let frozen = FrozenSystemd::of(&rig.host);
    rig.postgres.freeze();
    let granted = listener.last_granted().await;
    rig.assert_dead_in_time(granted);
    assert_eq!(rig.asked("bot"), 1, "the guard asked in the place of systemd");
    drop(frozen);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_may_end_and_come_back() {
    let rig = Rig::protected().await;
    // Nothing of it is needed: neither the socket nor the file of a guard goes with it.
    write(&rig.host, "/etc/systemd/system/understudy.service.d/quiet.conf", QUIET);
    done(&rig.host, "systemctl daemon-reload; systemctl start understudy");
    rig.take().await;
    rig.start_bots();
    let before = rig.property("bot.service", "InvocationID");
    for what in [
        "systemctl restart understudy",
        "systemctl kill -s KILL understudy",
        "systemctl stop understudy",
    ] {
        done(&rig.host, what);
        let state = rig.state().await.unwrap();
        assert!(state.lets_pass(), "after {what}: {state:?}");
        let seen = rig.last_beat("bot").unwrap();
        until("the bot to beat", || {
            rig.last_beat("bot").unwrap() > seen + Duration::from_millis(500)
        });
    }
    assert_eq!(rig.property("bot.service", "InvocationID"), before);
    assert_eq!(rig.property(&rig.guard(), "ActiveState"), "active");
}

/// A supervisor that only shares the runtime directory: what it decides is not tested here.
const QUIET: &str = "[Service]\nType=exec\nExecStartPre=\nExecStart=\nExecStart=/bin/sleep infinity\n\
                     WatchdogSec=0\n";
