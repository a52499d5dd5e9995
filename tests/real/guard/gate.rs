//! No lease, no start, whoever asks.

use std::time::Duration;

use understudy::engine::guard::Standing;
use understudy::time::BootTime;

use super::rig::{Rig, TIMERS};
use crate::support::stage::{done, printed, write};
use crate::support::wait::until;

fn said_no(rig: &Rig, what: &str) {
    assert_eq!(rig.property("bot.service", "ActiveState"), "inactive", "{what}");
    assert!(rig.last_beat("bot").is_none(), "{what}: it ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_nothing_starts_whoever_wants_it() {
    let rig = Rig::protected().await;
    // A person: systemd pulls the guard in, finds that there is none, and leaves it.
    rig.shell("systemctl start bot");
    said_no(&rig, "a start by hand");
    let journal = rig.journal();
    assert!(
        journal.contains("no guard for trading: this node does not hold the lease"),
        "{journal}"
    );
    assert_eq!(rig.property(&rig.guard(), "ActiveState"), "inactive", "no failure, no noise");

    // A timer, and another unit that wants it.
    write(
        &rig.host,
        "/etc/systemd/system/bot.timer",
        "[Timer]\nOnActiveSec=1ms\nAccuracySec=1ms\n",
    );
    write(
        &rig.host,
        "/etc/systemd/system/wants.service",
        "[Unit]\nWants=bot.service\n[Service]\nExecStart=/bin/sleep infinity\n",
    );
    done(&rig.host, "systemctl daemon-reload; systemctl start bot.timer wants");
    until("the timer to have fired", || {
        !rig.property("bot.timer", "LastTriggerUSec").is_empty()
            && rig.property("bot.timer", "ActiveState") != "failed"
    });
    until("jobs to be over", || {
        rig.host.run(&["systemctl", "list-jobs", "--no-legend"]).is_empty()
    });
    said_no(&rig, "a timer and a dependency");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_starts_nothing_and_calls_nobody() {
    let rig = Rig::protected().await;
    write(
        &rig.host,
        "/etc/systemd/system/bot.service.d/boot.conf",
        "[Install]\nWantedBy=multi-user.target\n",
    );
    done(&rig.host, "systemctl enable bot");
    rig.take().await;
    rig.start_bots();
    done(&rig.host, "systemctl stop bot other; rm /beats/bot");
    // The boot is another one, and the lease is that of the one before.
    done(
        &rig.host,
        &format!("systemctl kill -s KILL '{}'; echo other > /run/understudy/boot", rig.guard()),
    );
    done(
        &rig.host,
        "systemctl isolate basic.target; systemctl reset-failed; systemctl isolate multi-user.target",
    );
    said_no(&rig, "a boot");
    let failed = rig.host.run(&["systemctl", "--failed", "--no-legend"]);
    assert!(failed.is_empty(), "{failed}");
    assert!(rig.journal().contains("before it was booted"), "{}", rig.journal());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_or_damaged_lease_is_none() {
    let rig = Rig::protected().await;
    let token = rig.lease("a").await;
    rig.note(token, BootTime::now() - TIMERS.fence_after);
    rig.shell("systemctl start bot");
    said_no(&rig, "an old lease");
    assert!(rig.journal().contains("and does not now"), "{}", rig.journal());
    write(&rig.host, "/var/lib/understudy/tenures/trading.lease", "{");
    rig.shell("systemctl start bot");
    said_no(&rig, "a damaged lease");
    assert!(rig.journal().contains("trading.lease is damaged"), "{}", rig.journal());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_the_store_does_not_know_starts_nothing() {
    let rig = Rig::protected().await;
    let token = rig.lease("a").await;
    rig.lease("b").await;
    rig.note(token, BootTime::now());
    rig.shell("systemctl start bot");
    said_no(&rig, "a lease of somebody else");
    assert_eq!(rig.property(&rig.guard(), "ActiveState"), "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_a_lease_starts_nothing() {
    let rig = Rig::protected().await;
    rig.take().await;
    rig.start_bots();
    rig.lease("b").await;
    until("the bots to be dead", || !rig.anything_runs());
    until("the units to be down", || rig.property("bot.service", "ActiveState") == "inactive");
    let last = rig.last_beat("bot");
    // Restart=always had its chance.
    until("some time to pass", || BootTime::now() > last.unwrap() + Duration::from_secs(2));
    assert_eq!(rig.last_beat("bot"), last);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_fails_closed_and_says_why_at_once() {
    let rig = Rig::protected().await;
    let gate = |group: &str| rig.shell(&format!("understudy gate {group}"));
    let closed = gate("trading");
    assert_eq!(closed.status.code(), Some(1));
    let said = printed(&closed);
    assert!(said.contains("this node does not hold the lease of trading"), "{said}");
    for name in ["../trading", "Trading", "", "a/b"] {
        let refused = rig.shell(&format!("understudy gate '{name}'"));
        assert_eq!(refused.status.code(), Some(1), "{name}");
        assert!(printed(&refused).contains("not a name"), "{}", printed(&refused));
    }
    rig.take().await;
    let open = gate("trading");
    assert_eq!((open.status.code(), printed(&open)), (Some(0), String::new()), "silent if open");
    // A configuration with a fault in it is nothing to the gate.
    write(&rig.host, "/etc/understudy/understudy.toml", "nonsense");
    assert_eq!(gate("trading").status.code(), Some(0));

    rig.signal_guard("STOP");
    let start = BootTime::now();
    let closed = gate("trading");
    let took = BootTime::now().since(start);
    assert_eq!(closed.status.code(), Some(1), "{}", printed(&closed));
    assert!(printed(&closed).contains("nobody can tell"), "{}", printed(&closed));
    assert!(took < Duration::from_secs(10), "it has a deadline: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_broken_glass_units_run_without_a_lease_loudly_until_mended() {
    let mut rig = Rig::protected().await;
    rig.postgres.freeze();
    done(&rig.host, "understudy gate trading --break-glass 'the store burns'");
    rig.start_bots();
    let state = rig.state().await.unwrap();
    assert_eq!((state.state, state.epoch), (Standing::BreakGlass, None));
    let journal = rig.journal();
    assert!(journal.contains("BREAK-GLASS: units of trading run here"), "{journal}");
    assert!(journal.contains("the store burns"), "{journal}");
    assert!(rig.events("glass_broken") >= 1);
    let seen = rig.last_beat("bot").unwrap();
    until("it to outlive a watchdog", || {
        rig.last_beat("bot").unwrap() > seen + TIMERS.watchdog() + Duration::from_secs(1)
    });
    done(&rig.host, "understudy gate trading --mend");
    until("the bots to be dead", || !rig.anything_runs());
    rig.shell("systemctl start bot");
    until("the unit to be down", || rig.property("bot.service", "ActiveState") == "inactive");
    assert_eq!(rig.events("glass_mended"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_behind_broken_glass_outlives_the_store() {
    let mut rig = Rig::protected().await;
    rig.take().await;
    rig.start_bots();
    done(&rig.host, "understudy gate trading --break-glass 'the store moves'");
    until("the guard to know", || rig.events("glass_broken") > 0);
    rig.postgres.freeze();
    let seen = rig.last_beat("bot").unwrap();
    until("the bots to outlive the budget", || {
        rig.last_beat("bot").unwrap() > seen + TIMERS.dead_by() + Duration::from_secs(1)
    });
    rig.postgres.thaw();
    until("renewals to be granted again", || rig.events("renewal_answered") > 0);
    done(&rig.host, "understudy gate trading --mend");
    until("the guard to know", || rig.events("glass_mended") > 0);
    assert!(rig.state().await.unwrap().lets_pass());
    assert_eq!(rig.events("fence_begun"), 0, "{}", rig.journal());
}
