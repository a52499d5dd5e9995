//! The database goes away, in whole or for one of the hosts. Not to know is not to be dead.

use crate::support::cluster::Cluster;
use crate::support::golden::BOTS;

#[test]
fn db_rebooted() {
    let cluster = Cluster::start("db_rebooted");
    // In good order it may take less than the time between two reads.
    cluster.reboot("db");
    cluster.wait_for_any(&["window_restarted", "group_known"]);
    cluster.wait_until_ready();
    cluster.wait_for_beats(1);
    // Without power for longer than the timeout.
    cluster.kill("db");
    cluster.wait_for("group_blind");
    cluster.boot_again("db");
    cluster.wait_for("sight_restored");
    cluster.wait_until_ready();
    cluster.wait_for_beats(4);
    cluster.assert_untouched();
}

#[test]
fn db_frozen() {
    let cluster = Cluster::start("db_frozen");
    cluster.freeze("db");
    // Longer than the timeout.
    cluster.wait_for("group_blind");
    cluster.thaw("db");
    cluster.wait_for("sight_restored");
    cluster.wait_until_ready();
    cluster.wait_for_beats(4);
    cluster.assert_untouched();
    cluster.wait_for_alerts(&["group_blind", "sight_restored"]);
}

#[test]
fn db_cut_off_from_standby() {
    let cluster = Cluster::start("db_cut_off_from_standby");
    cluster.cut("db", "standby");
    cluster.wait_for("group_blind");
    // The primary has no part in it.
    cluster.wait_for_beats(2);
    cluster.heal();
    cluster.wait_for("sight_restored");
    cluster.wait_until_ready();
    cluster.wait_for_beats(4);
    cluster.assert_untouched();
    cluster.wait_for_alerts(&["group_blind", "sight_restored"]);
}

/// What observed mode promises with a fence: a primary that lives, but cannot write its heartbeats, is
/// off before anything is started.
#[test]
fn db_cut_off_from_primary() {
    let cluster = Cluster::start("db_cut_off_from_primary");
    cluster.cut("db", "primary");
    cluster.wait_for("failover_completed");
    cluster.heal();
    cluster.assert_taken_over();
    assert_eq!(cluster.power.asked(), ["primary"]);
    let steps: Vec<_> = cluster.events_of("step_done").into_iter().filter_map(|e| e.step).collect();
    assert_eq!(steps, ["fence", "promote", "persist", "flip", "publish", "start", "beat"]);
}

/// Without a fence that is required it only alerts, and a person decides.
#[test]
fn db_cut_off_from_primary_without_fence() {
    let cluster = Cluster::start_with(
        "db_cut_off_from_primary_without_fence",
        "[group.trading.fence]\nrequired = false\n",
    );
    cluster.cut("db", "primary");
    let blocked = cluster.wait_for("takeover_blocked");
    assert!(blocked.text.contains("only alerts"), "{}", blocked.text);
    cluster.heal();
    cluster.wait_for("group_fresh");
    cluster.assert_untouched();
    cluster.wait_for_alerts(&["group_stale", "takeover_blocked"]);
}

/// What the README says that it cannot promise: who accepts it has two copies.
#[test]
fn db_cut_off_from_primary_and_two_copies_accepted() {
    let cluster = Cluster::start_with(
        "db_cut_off_from_primary_and_two_copies_accepted",
        "[group.trading]\naccept_dual_active = true\n\
         [group.trading.fence]\nrequired = false\ncommand = [\"/bin/false\"]\n",
    );
    cluster.cut("db", "primary");
    cluster.wait_for("failover_completed");
    for bot in BOTS {
        assert_eq!(cluster.property("primary", bot, "ActiveState"), "active");
    }
    cluster.assert_taken_over_although_primary_acts();
    // The fence failed, and a person was told.
    assert_eq!(cluster.wait_for("step_warning").step.as_deref(), Some("fence"));
    // That of the lease comes by way of the database, and may be overtaken.
    cluster.wait_for_alerts(&["step_warning", "failover_completed"]);
    cluster.wait_for_alerts(&["lease_acquired", "failover_completed"]);
}
