//! The standby itself has trouble, before, in or after a failover.

use std::fs;

use crate::support::cluster::Cluster;
use crate::support::golden::BOTS;
use crate::support::wait::until;

/// The timeout of all scenarios, in microseconds.
const TIMEOUT_US: u64 = 3_000_000;

/// The power goes while the units settle. After the boot a window of silence passes, since somebody
/// may have started the bots elsewhere meanwhile; then it goes on with the same tenure.
#[test]
fn standby_rebooted_in_mid_failover() {
    let cluster = Cluster::start_with(
        "standby_rebooted_in_mid_failover",
        "[group.trading]\nsettle = \"10s\"\n",
    );
    cluster.kill("primary");
    let before = cluster.wait_for("units_active");
    cluster.kill("standby");
    assert!(cluster.events_of("failover_completed").is_empty(), "the power went too late");
    cluster.boot_again("standby");
    let resumed = cluster.wait_for("failover_resumed");
    assert_ne!(resumed.boot, before.boot);
    let started = cluster.wait_for_nth("daemon_started", 2);
    let watched = resumed.at_us - started.at_us;
    assert!(watched >= TIMEOUT_US, "it went on {watched} us after its start");
    assert_eq!(resumed.epoch, Some(1));
    cluster.wait_for("failover_completed");
    cluster.assert_taken_over();
    cluster.wait_for_alerts(&["lease_acquired", "failover_resumed", "failover_completed"]);
}

/// It is known before it matters, and nothing is half done: no promotion without units to start.
#[test]
fn unit_masked() {
    let cluster = Cluster::start("unit_masked");
    let [_, one] = BOTS;
    // A unit with a file of its own below /etc cannot be masked there.
    cluster.run("standby", &format!("systemctl mask --runtime --quiet {one}"));
    cluster.run("standby", &format!("mv /etc/systemd/system/{one}.service /root"));
    cluster.run("standby", "systemctl daemon-reload");
    cluster.step("a unit of the standby is masked");
    assert_eq!(cluster.property("standby", one, "LoadState"), "masked");
    let not_ready = cluster.wait_for("standby_not_ready");
    assert!(not_ready.text.contains("masked"), "{}", not_ready.text);
    cluster.kill("primary");
    let blocked = cluster.wait_for("takeover_blocked");
    assert!(blocked.text.contains("masked"), "{}", blocked.text);
    assert_eq!(cluster.history(), [""; 0]);
    assert_eq!(cluster.redis_role("standby"), "slave");
    assert_eq!(cluster.power.asked(), [""; 0]);
    // Mended, it goes on by itself.
    cluster.run("standby", &format!("mv /root/{one}.service /etc/systemd/system"));
    cluster.run("standby", &format!("systemctl unmask --runtime --quiet {one}"));
    cluster.run("standby", "systemctl daemon-reload");
    cluster.step("it is unmasked");
    cluster.wait_for("failover_completed");
    cluster.assert_taken_over();
    cluster.wait_for_alerts(&["standby_not_ready", "takeover_blocked", "failover_completed"]);
}

/// Promoted is promoted: also after its server was stopped, or died.
#[test]
fn promoted_redis_restarted() {
    let cluster = Cluster::start("promoted_redis_restarted");
    cluster.kill("primary");
    cluster.wait_for("failover_completed");
    cluster.redis("standby", "SET position 43");
    let role = || {
        let answers = || cluster.redis("standby", "PING") == "PONG";
        let active = || cluster.property("standby", "redis-server", "ActiveState") == "active";
        until("Redis to answer", || active() && answers());
        cluster.redis_role("standby")
    };
    cluster.run("standby", "systemctl restart redis-server.service");
    assert_eq!(role(), "master");
    let before = cluster.property("standby", "redis-server", "MainPID");
    cluster.run("standby", "systemctl kill --signal=KILL redis-server.service");
    until("systemd to start it again", || {
        let process = cluster.property("standby", "redis-server", "MainPID");
        process != before && process != "0"
    });
    assert_eq!(role(), "master");
    assert_eq!(cluster.redis("standby", "GET position"), "43");
    cluster.assert_taken_over();
}

/// The group goes back as docs/operations.md says, the standby reboots, and the primary dies again
/// too soon: a person has to look, as it was when the standby had not been rebooted.
#[test]
fn cooldown_across_a_reboot() {
    let cluster = Cluster::start("cooldown_across_a_reboot");
    cluster.kill("primary");
    cluster.wait_for("failover_completed");
    cluster.assert_taken_over();
    go_back(&cluster);
    let before = cluster.run("standby", "cat /proc/sys/kernel/random/boot_id");
    cluster.reboot("standby");
    assert_ne!(cluster.run("standby", "cat /proc/sys/kernel/random/boot_id"), before);
    cluster.wait_until_ready();
    cluster.kill("primary");
    let blocked = cluster.wait_for("takeover_blocked");
    assert!(blocked.text.contains("cooldown"), "{}", blocked.text);
    assert_eq!(cluster.history(), ["1 automatic done standby"]);
    assert_eq!(cluster.lease(), (2, "primary".to_owned()));
    for bot in BOTS {
        assert_eq!(cluster.property("standby", bot, "ActiveState"), "inactive");
    }
    assert_eq!(cluster.redis_role("standby"), "slave");
    cluster.wait_for_alerts(&["failover_completed", "superseded", "takeover_blocked"]);
}

/// "Going back" of docs/operations.md, after the primary was repaired with its bots kept off.
fn go_back(cluster: &Cluster) {
    for bot in BOTS {
        let wanted = "/etc/systemd/system/multi-user.target.wants";
        fs::remove_file(cluster.path("primary", &format!("{wanted}/{bot}.service"))).unwrap();
    }
    cluster.boot_again("primary");
    let in_sync = |host| {
        until(&format!("Redis of {host} to follow"), || {
            cluster.redis(host, "INFO replication").contains("master_link_status:up")
        });
    };
    let replica_of = |host, master| {
        cluster.redis(host, &format!("REPLICAOF {master}"));
        cluster.redis(host, "CONFIG REWRITE");
    };
    replica_of("primary", "standby 6379");
    in_sync("primary");
    let units = BOTS.map(|bot| format!("{bot}.service")).join(" ");
    cluster.run("standby", "understudy hold trading --for 1h --reason going-back");
    cluster.run("standby", &format!("systemctl stop {units}"));
    cluster.redis("standby", "WAIT 1 10000");
    replica_of("primary", "NO ONE");
    replica_of("standby", "primary 6379");
    in_sync("standby");
    cluster.run("standby", "understudy failback trading");
    cluster.run("primary", &format!("systemctl enable --now --quiet {units}"));
    cluster.wait_for_beats(2);
    cluster.run("standby", "understudy release trading");
    cluster.wait_until_ready();
    cluster.step("the group is back on the primary");
}
