//! understudy itself is stopped, replaced, or cannot tell anybody.

use std::collections::BTreeSet;

use crate::support::cluster::Cluster;
use crate::support::golden::{BOTS, HOSTS};
use crate::support::package::Package;
use crate::support::wait::until;

/// The timeout of all scenarios, in microseconds.
const TIMEOUT_US: u64 = 3_000_000;

/// systemd's watchdog kills it and starts it again. What the new one saw itself is all that counts:
/// the primary died meanwhile, and yet a whole window of silence passes first.
#[test]
fn supervisor_stopped() {
    let cluster = Cluster::start("supervisor_stopped");
    let before = cluster.property("standby", "understudy", "MainPID");
    cluster.run("standby", "systemctl kill --kill-whom=main --signal=STOP understudy.service");
    cluster.step("understudy is stopped with SIGSTOP");
    cluster.kill("primary");
    until("the watchdog to fire, and systemd to start another process", || {
        let after = cluster.property("standby", "understudy", "MainPID");
        after != before && after != "0"
    });
    let started = cluster.wait_for_nth("daemon_started", 2);
    let completed = cluster.wait_for("failover_completed");
    assert_eq!(completed.process, started.process);
    let acquired = cluster.wait_for("lease_acquired");
    let waited = acquired.at_us - started.at_us;
    assert!(waited >= TIMEOUT_US, "it took over {waited} us after its start");
    cluster.assert_taken_over();
    let log = cluster.run("standby", "journalctl --no-pager -o cat -u understudy");
    assert!(log.contains("Watchdog timeout"), "{log}");
}

/// Units that run go on running, and the tenure is adopted.
#[test]
fn upgraded_while_it_has_the_group() {
    let cluster = Cluster::boot("upgraded_while_it_has_the_group");
    cluster.install(Package::older(), "standby");
    let version =
        |cluster: &Cluster| cluster.run("standby", "dpkg-query -W -f ${Version} understudy");
    let older = version(&cluster);
    cluster.first_start();
    cluster.kill("primary");
    cluster.wait_for("failover_completed");
    cluster.assert_taken_over();
    let units = |cluster: &Cluster| {
        BOTS.map(|bot| {
            let name = "ActiveState,MainPID,InvocationID,NRestarts,ActiveEnterTimestampMonotonic";
            cluster.property("standby", bot, name)
        })
    };
    let (process, running) =
        (cluster.property("standby", "understudy", "MainPID"), units(&cluster));
    let nonce = "SELECT nonce, changed_at FROM understudy.lease";
    let lease = cluster.sql(nonce);
    cluster.step("the package is upgraded");
    cluster.install(Package::current(), "standby");
    assert_ne!(version(&cluster), older);
    until("the new daemon to run", || {
        let after = cluster.property("standby", "understudy", "MainPID");
        after != process && after != "0"
    });
    let adopted = cluster.wait_for("tenure_adopted");
    assert_eq!(adopted.epoch, Some(1));
    cluster.wait_for_state("active");
    cluster.wait_for_beats(4);
    assert_eq!(units(&cluster), running);
    assert_eq!(cluster.sql(nonce), lease);
    cluster.assert_taken_over();
}

/// An alert is late then, and not lost; the failover does not wait for it.
#[test]
fn webhook_down_through_the_failover() {
    let mut cluster = Cluster::start("webhook_down_through_the_failover");
    cluster.pager.go_away();
    cluster.kill("primary");
    cluster.wait_for("failover_completed");
    cluster.wait_for("alert_failed");
    cluster.assert_taken_over();
    assert_eq!(cluster.pager.events(), [""; 0]);
    assert!(cluster.events_of("alert_delivered").is_empty());
    // Nor with the power of the standby.
    cluster.kill("standby");
    cluster.boot_again("standby");
    cluster.wait_for_state("active");
    cluster.pager.come_back();
    cluster.step("the pager listens again");
    cluster.wait_for_alerts(&["group_stale", "lease_acquired", "failover_completed"]);
    let alerts = cluster.pager.alerts();
    let ids: BTreeSet<_> = alerts.iter().map(|alert| alert["id"].to_string()).collect();
    assert_eq!(ids.len(), alerts.len(), "an alert came twice: {alerts:#?}");
    cluster.wait_for("alert_delivered");
}

/// The package is on all hosts, and runs nowhere but where it was configured.
#[test]
fn installed_and_not_configured() {
    let cluster = Cluster::boot("installed_and_not_configured");
    for (host, _) in HOSTS {
        if host != "standby" {
            cluster.install(Package::current(), host);
        }
        assert_eq!(cluster.property(host, "understudy", "ActiveState"), "inactive");
        assert_eq!(cluster.property(host, "understudy", "UnitFileState"), "disabled");
    }
}
