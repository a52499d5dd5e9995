//! Something breaks in the middle of a takeover. Never silence, never a second copy, and once the
//! cause is gone it completes by itself.

use std::fs;
use std::time::Duration;

use super::{LONG, WINDOW};
use crate::support::daemon::{Gate, Scene, Standby, comes_true, now, until};

/// A standby whose takeover has the lease and waits at the gate.
fn at_the_gate(scene: &Scene, gate: &Gate) -> Standby {
    let standby = gate.in_plan(scene.standby()).watching();
    scene.silence(&standby);
    gate.wait_until_reached();
    assert_eq!(scene.epoch(&standby), 1);
    standby
}

/// Degraded at a step, with a critical notice that names it.
fn is_stuck_at(standby: &Standby, step: &str, words: &str) {
    let group = standby.wait_for_state("degraded");
    let takeover = group.takeover.unwrap();
    assert_eq!(takeover.step.as_deref(), Some(step), "{takeover:?}");
    assert!(takeover.fault.unwrap().contains(words), "{}", group.summary);
    assert!(standby.has_logged(&["ERROR", "is stuck at", words]));
    standby.notified.wait_for("STATUS=trading: DEGRADED");
}

#[test]
fn the_store_freezes_right_after_the_lease_was_acquired() {
    let mut scene = Scene::new();
    let gate = Gate::closed();
    let standby = at_the_gate(&scene, &gate);
    scene.postgres.freeze();
    gate.open();
    // What does not come is an answer to the step, or a word that the lease is still ours.
    is_stuck_at(&standby, "flip", "");
    assert!(standby.bots.iter().all(|bot| standby.starts(bot) == 0), "before the rows are set");
    scene.postgres.thaw();
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_store_is_restarted_right_after_the_lease_was_acquired() {
    let mut scene = Scene::new();
    let gate = Gate::closed();
    let standby = at_the_gate(&scene, &gate);
    scene.postgres.kill();
    gate.open();
    scene.resume_store();
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_replica_freezes_right_before_it_is_promoted() {
    let scene = Scene::new();
    let gate = Gate::closed();
    let standby = at_the_gate(&scene, &gate);
    standby.redis().freeze();
    gate.open();
    is_stuck_at(&standby, "promote", "did not answer");
    assert!(standby.bots.iter().all(|bot| standby.starts(bot) == 0), "before Redis is promoted");
    standby.redis().thaw();
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_fence_fails_and_nothing_else_is_done() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let flag = standby.path("power-is-off").display().to_string();
    let fence = ["/usr/bin/test".to_owned(), "-e".to_owned(), flag.clone()];
    standby.configure("group.fence.command", fence.to_vec());
    standby.start();
    standby.wait_until_watching();
    scene.silence(&standby);
    is_stuck_at(&standby, "fence", "the old primary may be alive");
    assert_eq!(standby.redis().role(), "slave");
    assert!(standby.bots.iter().all(|bot| standby.starts(bot) == 0));
    fs::write(flag, "").unwrap();
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn a_unit_fails_when_it_is_started() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    standby.break_unit("crypto", true);
    scene.silence(&standby);
    is_stuck_at(&standby, "start", &standby.units[1].name());
    assert_eq!(standby.starts("equity"), 1, "the other one runs");
    standby.break_unit("crypto", false);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn a_person_does_not_want_to_wait_for_the_next_attempt() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    standby.break_unit("crypto", true);
    scene.silence(&standby);
    is_stuck_at(&standby, "start", &standby.units[1].name());
    standby.break_unit("crypto", false);
    standby.run(&["failover", "--yes"]).assert_code(0);
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_units_run_and_no_heartbeat_comes() {
    let scene = Scene::new();
    let standby = scene.standby().set("group.heartbeat_deadline", "2s").watching();
    // The one bot's heartbeats go nowhere.
    scene.sql(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN NEW.last_heartbeat := OLD.last_heartbeat; RETURN NEW; END';
         CREATE TRIGGER swallow BEFORE UPDATE ON bot_status FOR EACH ROW
           WHEN (NEW.bot_name = 'crypto') EXECUTE FUNCTION swallow()",
    );
    is_stuck_at(&standby, "beat", "crypto");
    scene.sql("DROP TRIGGER swallow ON bot_status");
    standby.wait_until_active();
    assert_eq!(scene.failovers(&standby), 1);
}

#[test]
fn redis_cannot_write_its_configuration() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    // A directory where the file should be, which not even root can write.
    let file = standby.redis().config_file();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    scene.silence(&standby);
    standby.wait_until_active();
    standby.wait_for_log(&["ERROR", "persisted=false"]);
    assert!(!standby.has_logged(&["no longer says replicaof"]), "that would not be true");
    let record = standby.run(&["history", "--json"]).json();
    let timeline = record[0]["timeline"].as_array().unwrap();
    let persist = timeline.iter().find(|entry| entry["step"] == "persist").unwrap();
    assert!(persist["detail"]["fault"].as_str().unwrap().contains("persisted=false"));
    assert_eq!(standby.redis().role(), "master");
    assert_eq!((scene.epoch(&standby), scene.failovers(&standby)), (1, 1));
}

fn has_let_go(scene: &Scene, standby: &Standby) {
    standby.wait_for_log(&["ERROR", " has the group now (epoch 2)"]);
    standby.wait_for_state("standby");
    for unit in &standby.units {
        let state = unit.property("ActiveState");
        assert!(matches!(state.as_str(), "inactive" | "failed"), "{state}");
    }
    // It watches the other node's bots from now on.
    scene.revive(standby);
    standby.wait_for("the heartbeats of the other node to be seen", |group| {
        group.state == "standby" && group.verdict == "fresh" && group.epoch == Some(2)
    });
    standby.stays_quiet_for(WINDOW);
    assert_eq!(scene.epoch(standby), 2);
}

#[test]
fn another_node_takes_the_lease_while_this_one_is_active() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    scene.delta_takes(&standby);
    has_let_go(&scene, &standby);
}

#[test]
fn another_node_takes_the_lease_while_this_one_takes_over() {
    let scene = Scene::new();
    let gate = Gate::closed();
    let standby = at_the_gate(&scene, &gate);
    scene.delta_takes(&standby);
    standby.wait_for_log(&["ERROR", "delta has the group now (epoch 2)"]);
    gate.open();
    has_let_go(&scene, &standby);
    assert!(standby.bots.iter().all(|bot| standby.starts(bot) == 0));
    assert_eq!(standby.redis().role(), "slave");
}

#[test]
fn another_node_takes_the_lease_and_a_unit_does_not_want_to_stop() {
    let scene = Scene::new();
    let lines = "KillSignal=SIGWINCH\nTimeoutStopSec=infinity\nSendSIGKILL=no";
    let standby = scene.standby().unit_lines(lines).watching();
    scene.silence(&standby);
    standby.wait_until_active();
    scene.delta_takes(&standby);
    has_let_go(&scene, &standby);
}

#[test]
fn the_store_was_restored_from_a_backup_of_before_the_takeover() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    scene.forget_takeovers();
    let group = standby.wait_for("it to be seen", |group| {
        group.unknown_because.as_deref().is_some_and(|why| why.contains("the store went back"))
    });
    assert_eq!(group.state, "active");
    let moved = comes_true(LONG, || standby.group().state != "active");
    assert!(!moved, "{:?}", standby.group());
    assert!(standby.bots.iter().all(|bot| standby.starts(bot) == 1));
    assert_eq!(scene.epoch(&standby), 0);

    // A person says that the group stays here.
    standby.run(&["failover", "--force", "--yes"]).assert_code(0);
    standby.wait_for("a new tenure", |group| group.state == "active" && group.epoch == Some(2));
    assert!(standby.bots.iter().all(|bot| standby.starts(bot) == 1), "they ran on");
    assert_eq!(scene.failovers(&standby), 1);
}

#[test]
fn the_store_was_restored_and_the_group_goes_back_to_the_primary() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    scene.forget_takeovers();
    standby.wait_for("it to be seen", |group| {
        group.unknown_because.as_deref().is_some_and(|why| why.contains("the store went back"))
    });
    let said = standby.run(&["failback", "--force"]);
    said.assert_code(0).assert_says("alpha has the group (epoch 2)");
    standby.wait_for("the units to be stopped", |group| group.state == "standby");
    has_let_go(&scene, &standby);
}

#[test]
fn the_active_node_goes_silent() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    standby.units[0].systemctl(&["stop"]);
    standby.wait_for_log(&["this node has the group, and it is silent", "equity"]);
    assert!(standby.group().summary.contains("SILENT"));
    let moved = comes_true(WINDOW, || standby.group().state != "active");
    assert!(!moved, "{:?}", standby.group());
    standby.units[0].systemctl(&["start"]);
    standby.wait_for_log(&["the heartbeats from this node are back"]);
    assert_eq!((scene.epoch(&standby), scene.failovers(&standby)), (1, 1));
}

#[test]
fn the_daemon_is_asked_to_end_in_the_middle_of_a_takeover() {
    let scene = Scene::new();
    let gate = Gate::closed();
    let mut standby = at_the_gate(&scene, &gate);
    assert!(standby.terminate().success());
    gate.open();
    assert!(standby.has_logged(&["understudy was stopped in the middle of a takeover"]));
    standby.start();
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_daemon_is_killed_while_it_is_active_and_its_units_run_on() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    let pids: Vec<_> = standby.units.iter().map(|unit| unit.main_pid()).collect();
    standby.kill9();
    until("the units to have beaten without it", || {
        scene.value("SELECT max(last_heartbeat) > NOW() - interval '1 second' FROM bot_status")
            == "t"
    });
    standby.start();
    standby.wait_until_active();
    standby.wait_for_log(&["this node has the group since epoch 1; its units run"]);
    assert!(!standby.has_logged(&["could NOT take over"]), "it has it already");
    assert_eq!(pids, standby.units.iter().map(|unit| unit.main_pid()).collect::<Vec<_>>());
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_units_were_stopped_while_the_daemon_was_away() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    let memory = standby.path("state/tenures/trading.json");
    until("it to be on disk that this is complete", || {
        fs::read_to_string(&memory).unwrap().contains("complete")
    });
    standby.kill9();
    standby.units[0].systemctl(&["stop"]);
    standby.start();
    standby.wait_until_active();
    standby.wait_for_log(&["not all of its units are active"]);
    let moved = comes_true(Duration::from_secs(2), || standby.starts("equity") != 1);
    assert!(!moved, "a unit that a person has stopped was started");
}

/// An asynchronous standby of Postgres becomes the store, and never heard of the acquisition.
#[test]
fn the_store_fails_over_and_forgets_the_lease_in_the_middle_of_a_takeover() {
    let mut scene = Scene::new();
    let replica = now(scene.postgres.standby());
    let hosts = [&scene.postgres, &replica].map(|server| format!("127.0.0.1:{}", server.port()));
    let gate = Gate::closed();
    let standby = gate.in_plan(scene.standby()).set("store.hosts", hosts.to_vec()).watching();
    now(replica.sql("ALTER SYSTEM SET primary_conninfo = ''"));
    now(replica.sql("SELECT pg_reload_conf()"));
    until("replication to have ended", || {
        scene.value("SELECT count(*) FROM pg_stat_replication") == "0"
    });
    scene.silence(&standby);
    gate.wait_until_reached();
    assert_eq!(scene.epoch(&standby), 1);
    scene.postgres.kill();
    now(replica.promote());
    scene.store_is(replica);
    assert_eq!(scene.epoch(&standby), 0);
    gate.open();
    standby.wait_for_state("degraded");
    standby.wait_for_log(&["the store went back to epoch 0 after 1", "understudy failback"]);
    let moved = comes_true(LONG, || standby.starts("equity") + standby.starts("crypto") > 0);
    assert!(!moved, "nobody knows who has the group");
    assert_eq!(scene.epoch(&standby), 0);
}
