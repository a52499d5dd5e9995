//! Situations in which there must be no failover, and in which `status` says why.

use std::fs;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use understudy::control::protocol::Group;

use super::{LONG, WINDOW};
use crate::support::daemon::{Scene, Standby, TIMEOUT, now, until};
use crate::support::postgres::{BOT_STATUS, Postgres};
use crate::support::redis::{Redis, free_port};

/// One of the situations was a group that is unknown, for a reason with these words.
#[track_caller]
fn assert_unknown(seen: &[Group], words: &str) {
    let reasons: Vec<_> =
        seen.iter().filter_map(|group| group.unknown_because.as_deref()).collect();
    assert!(reasons.iter().any(|reason| reason.contains(words)), "{words:?} is not in {reasons:?}");
}

/// One of the situations was silence, with these words on why nothing is done about it.
#[track_caller]
fn assert_blocked(seen: &[Group], words: &str) {
    let said: Vec<_> = seen
        .iter()
        .filter(|group| group.verdict == "stale" && group.state == "standby")
        .map(|group| group.summary.as_str())
        .collect();
    assert!(said.iter().any(|said| said.contains(words)), "{words:?} is not in {said:?}");
}

/// The bots live, and the daemon sees it for another window; nothing was done all along.
#[track_caller]
fn assert_watches_on(scene: &Scene, standby: &Standby) {
    standby.wait_until_watching();
    let seen = standby.stays_quiet_for(WINDOW);
    assert!(seen.iter().all(|group| group.verdict == "fresh"), "{seen:?}");
    scene.assert_untouched(standby);
}

// ---- the store ----

#[test]
fn the_database_is_restarted() {
    let mut scene = Scene::new();
    let standby = scene.standby().watching();
    scene.stop_store();
    scene.resume_store();
    let seen = standby.stays_quiet_for(WINDOW);
    assert_eq!(seen.last().unwrap().verdict, "fresh");
    assert_watches_on(&scene, &standby);
}

#[test]
fn the_database_is_away_for_three_timeouts() {
    let mut scene = Scene::new();
    let standby = scene.standby().watching();
    scene.stop_store();
    let seen = standby.stays_quiet_for(LONG);
    assert_unknown(&seen, "refused");
    standby.wait_for_log(&["blind for"]);
    scene.resume_store();
    assert_watches_on(&scene, &standby);
    standby.wait_for_log(&["sees the heartbeats again"]);
}

#[test]
fn the_database_is_killed_and_comes_back_by_crash_recovery() {
    let mut scene = Scene::new();
    let standby = scene.standby().watching();
    scene.postgres.kill();
    let seen = standby.stays_quiet_for(TIMEOUT * 2);
    assert_unknown(&seen, "refused");
    scene.resume_store();
    assert_watches_on(&scene, &standby);
}

#[test]
fn the_database_is_frozen_and_thawed() {
    let mut scene = Scene::new();
    let standby = scene.standby().watching();
    scene.postgres.freeze();
    let seen = standby.stays_quiet_for(LONG);
    // A call that was under way gets no answer; whoever comes later cannot even log in.
    assert_unknown(&seen, &format!("127.0.0.1:{}", scene.postgres.port()));
    scene.postgres.thaw();
    assert_watches_on(&scene, &standby);
}

#[test]
fn the_database_becomes_read_only() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    scene.sql("SELECT pg_reload_conf()");
    let seen = standby.stays_quiet_for(LONG);
    assert_unknown(&seen, "read-only");
    fs::write(scene.postgres.directory().join("data/postgresql.auto.conf"), "").unwrap();
    scene.sql("SELECT pg_reload_conf()");
    assert_watches_on(&scene, &standby);
}

#[test]
fn only_a_database_in_recovery_is_left() {
    let mut scene = Scene::new();
    let replica = now(scene.postgres.standby());
    let hosts = [&scene.postgres, &replica].map(|server| format!("127.0.0.1:{}", server.port()));
    let standby = scene.standby().set("store.hosts", hosts.to_vec()).watching();
    scene.stop_store();
    let seen = standby.stays_quiet_for(LONG);
    assert_unknown(&seen, &format!("127.0.0.1:{}", replica.port()));
    scene.resume_store();
    assert_watches_on(&scene, &standby);
}

#[test]
fn a_migration_has_locked_the_heartbeat_table() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    let migration = scene.session();
    migration.sql("BEGIN; LOCK TABLE bot_status IN ACCESS EXCLUSIVE MODE");
    let seen = standby.stays_quiet_for(LONG);
    assert!(seen.last().unwrap().verdict == "unknown", "{seen:?}");
    migration.sql("COMMIT");
    assert_watches_on(&scene, &standby);
}

#[test]
fn the_database_is_not_there_when_the_daemon_starts() {
    let mut scene = Scene::new();
    let mut standby = scene.standby().ready();
    scene.stop_store();
    standby.start();
    standby.notified.wait_for("READY=1");
    // In the same message.
    standby.notified.wait_for("refused");
    let told = standby.notified.all();
    let ready = told.iter().position(|line| line == "READY=1").unwrap();
    assert!(told[ready + 1].starts_with("STATUS=trading: cannot tell"), "{told:?}");
    assert!(told[ready + 1].contains("refused"), "{told:?}");
    let seen = standby.stays_quiet_for(TIMEOUT * 2);
    assert_unknown(&seen, "refused");
    scene.resume_store();
    assert_watches_on(&scene, &standby);
    assert_eq!(standby.notified.all().iter().filter(|line| *line == "READY=1").count(), 1);
}

#[test]
fn the_database_is_another_one_than_before() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    standby.terminate();
    now(async {
        scene.postgres.create_database("copy").await;
        let rows = "INSERT INTO bot_status (id, bot_name, status, last_heartbeat, updated_at)
             VALUES (1, 'equity', 'STANDBY', NOW(), NOW()), (2, 'crypto', 'STANDBY', NOW(), NOW())";
        scene.postgres.sql_in("copy", BOT_STATUS).await;
        scene.postgres.sql_in("copy", rows).await;
    });
    standby.configure("store.database", "copy");
    standby.run(&["setup", "--user", "postgres"]).assert_code(0);
    standby.start();
    let seen = standby.stays_quiet_for(LONG);
    assert_unknown(&seen, "not the database that node bravo belongs to");
    let epochs = now(scene.postgres.rows_in("copy", "SELECT epoch FROM understudy.lease"));
    assert_eq!(epochs, [["0"]]);
    scene.assert_untouched(&standby);
    standby.terminate();
    standby.configure("store.database", "postgres");
    standby.start();
    assert_watches_on(&scene, &standby);
}

// ---- the rows ----

#[test]
fn a_row_is_missing() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.sql("DELETE FROM bot_status WHERE bot_name = 'crypto'");
    let seen = standby.stays_quiet_for(LONG);
    assert_unknown(&seen, "there is no row for bot crypto");
    scene.assert_untouched(&standby);
}

#[test]
fn a_row_is_there_twice() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    scene.sql("ALTER TABLE bot_status DROP CONSTRAINT bot_status_bot_name_key");
    scene.sql(
        "INSERT INTO bot_status (id, bot_name, status, last_heartbeat, updated_at)
         VALUES ('again', 'crypto', 'STANDBY', NOW(), NOW())",
    );
    let seen = standby.stays_quiet_for(LONG);
    assert_unknown(&seen, "there are 2 rows for bot crypto");
    scene.assert_untouched(&standby);
}

#[test]
fn a_heartbeat_is_null() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    scene.sql("ALTER TABLE bot_status ALTER last_heartbeat DROP NOT NULL");
    scene.sql("UPDATE bot_status SET last_heartbeat = NULL WHERE bot_name = 'crypto'");
    let seen = standby.stays_quiet_for(LONG);
    assert_unknown(&seen, "the heartbeat of bot crypto is NULL");
    scene.assert_untouched(&standby);
}

#[test]
fn the_table_may_not_be_read_any_more() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    scene.sql("REVOKE ALL ON bot_status FROM understudy");
    let seen = standby.stays_quiet_for(LONG);
    assert_unknown(&seen, "cannot be read");
    scene.assert_untouched(&standby);
}

#[test]
fn a_bot_was_stopped_on_purpose() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.sql("UPDATE bot_status SET status = 'EMERGENCY_STOPPED' WHERE bot_name = 'equity'");
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(LONG);
    assert_blocked(&seen, "equity was stopped on purpose (its status is EMERGENCY_STOPPED)");
    scene.assert_untouched(&standby);
}

// ---- clocks ----

#[test]
fn the_heartbeats_are_an_hour_in_the_future_and_move() {
    let scene = Scene::new();
    scene.beats_are("NOW() + interval '1 hour'");
    let standby = scene.standby().watching();
    let seen = standby.stays_quiet_for(WINDOW);
    assert!(seen.iter().all(|group| group.verdict == "fresh"));
    let ages: Vec<_> =
        seen.last().unwrap().bots.iter().map(|bot| bot.age_ms.unwrap() / 60_000).collect();
    assert_eq!(ages, [-59, -59]);
    scene.assert_untouched(&standby);
}

#[test]
fn the_bots_write_their_local_time_west_of_the_database() {
    heartbeats_of_a_time_zone("America/New_York", 4 * 60 - 1..=5 * 60 + 1);
}

#[test]
fn the_bots_write_their_local_time_east_of_the_database() {
    heartbeats_of_a_time_zone("Asia/Tokyo", -9 * 60 - 1..=-9 * 60 + 1);
}

/// A column without time zone, as the original has, into which the bots write their local time.
fn heartbeats_of_a_time_zone(zone: &str, minutes: std::ops::RangeInclusive<i64>) {
    let scene = Scene::new();
    scene.beats_are(&format!("NOW() AT TIME ZONE '{zone}'"));
    let standby = scene.standby().watching();
    let seen = standby.stays_quiet_for(WINDOW);
    assert!(seen.iter().all(|group| group.verdict == "fresh"));
    let age = seen.last().unwrap().bots[0].age_ms.unwrap() / 60_000;
    assert!(minutes.contains(&age), "{age} minutes");
    scene.assert_untouched(&standby);
}

#[test]
fn the_daemon_has_the_time_zone_of_new_york() {
    sessions_of_a_time_zone("America/New_York");
}

#[test]
fn the_daemon_has_the_time_zone_of_tokyo() {
    sessions_of_a_time_zone("Asia/Tokyo");
}

/// The daemon's own session thinks to be elsewhere.
fn sessions_of_a_time_zone(zone: &str) {
    let scene = Scene::new();
    scene.sql(&format!("ALTER ROLE understudy SET timezone = '{zone}'"));
    let standby = scene.standby().watching();
    let seen = standby.stays_quiet_for(WINDOW);
    assert!(seen.iter().all(|group| group.verdict == "fresh"));
    let age = seen.last().unwrap().bots[0].age_ms.unwrap() / 60_000;
    assert_ne!(age, 0, "the shown age is by the session's time zone");
    scene.assert_untouched(&standby);
}

#[test]
fn the_clock_of_the_database_is_set_forward_by_two_hours() {
    a_step_of_the_clock("+2h");
}

#[test]
fn the_clock_of_the_database_is_set_back_by_two_hours() {
    a_step_of_the_clock("-2h");
}

fn a_step_of_the_clock(step: &str) {
    let scene = Scene::with(Postgres::options().clock());
    let standby = scene.standby().watching();
    scene.postgres.set_clock(step);
    standby.stays_quiet_for(WINDOW);
    scene.postgres.set_clock("+0");
    standby.stays_quiet_for(WINDOW);
    assert_watches_on(&scene, &standby);
}

// ---- our own process ----

#[test]
fn the_daemon_stands_still_while_the_bots_beat() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    standby.signal(Signal::SIGSTOP);
    thread::sleep(LONG);
    standby.signal(Signal::SIGCONT);
    standby.stays_quiet_for(WINDOW);
    standby.wait_for_log(&["stood still for"]);
    assert_watches_on(&scene, &standby);
}

#[test]
fn the_daemon_stands_still_while_the_bots_die_and_looks_for_a_whole_window_before_it_acts() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    standby.signal(Signal::SIGSTOP);
    scene.silence(&standby);
    thread::sleep(TIMEOUT * 2);
    let resumed = scene.value("SELECT clock_timestamp()");
    standby.signal(Signal::SIGCONT);
    standby.stays_quiet_for(TIMEOUT - Duration::from_millis(500));
    standby.wait_until_active();
    let after = scene.value(&format!(
        "SELECT extract(epoch FROM started_at - '{resumed}') FROM understudy.failover"
    ));
    let after: f64 = after.parse().unwrap();
    assert!(after >= TIMEOUT.as_secs_f64(), "it acted {after} s after it went on");
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_daemon_is_restarted_again_and_again_while_the_bots_beat() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    for _ in 0..5 {
        standby.kill9();
        standby.start();
        standby.stays_quiet_for(Duration::from_secs(1));
    }
    assert_watches_on(&scene, &standby);
}

// ---- people ----

#[test]
fn a_person_holds_the_group() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    standby.run(&["hold", "--reason", "moving racks", "--for", "1h"]).assert_code(0);
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(LONG);
    assert_blocked(&seen, "moving racks");
    assert_eq!(seen.last().unwrap().hold.as_ref().unwrap().reason, "moving racks");
    scene.assert_untouched(&standby);
    // Nor does what piled up during the hold count when it ends.
    standby.run(&["release"]).assert_code(0);
    standby.stays_quiet_for(TIMEOUT - Duration::from_secs(1));
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn a_hold_of_a_few_seconds_ends_by_itself() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    standby.run(&["hold", "--reason", "a moment", "--for", "6s"]).assert_code(0);
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(Duration::from_secs(6));
    assert_blocked(&seen, "a moment");
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn nobody_has_accepted_that_two_copies_may_run() {
    let scene = Scene::new();
    let standby = scene.standby().set("group.accept_dual_active", false).watching();
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(LONG);
    assert_blocked(&seen, "it only alerts");
    assert!(standby.has_logged(&["does NOT take over", "it only alerts"]));
    scene.assert_untouched(&standby);
}

#[test]
fn the_last_failover_is_too_recent() {
    let scene = Scene::new();
    let standby = scene.standby().ready();
    scene.sql("UPDATE understudy.cooldown SET last_at = clock_timestamp()");
    let mut standby = standby;
    standby.start();
    standby.wait_until_watching();
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(LONG);
    assert_blocked(&seen, "the last automatic failover is too recent");
    assert!(seen.last().unwrap().cooldown_left_ms.unwrap() > 200_000);
    scene.assert_untouched(&standby);
}

#[test]
fn too_many_failovers_have_latched_the_group() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.sql("UPDATE understudy.control SET latched_at = clock_timestamp()");
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(LONG);
    assert_blocked(&seen, "understudy ack");
    assert!(seen.last().unwrap().latched);
    scene.assert_untouched(&standby);
    standby.run(&["ack"]).assert_code(0);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

// ---- this node could not run the group ----

#[test]
fn a_unit_is_masked() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let path = standby.units[1].path();
    fs::remove_file(&path).unwrap();
    symlink("/dev/null", &path).unwrap();
    standby.start();
    cannot_take_over(&scene, &standby, "masked");
    scene.assert_untouched(&standby);
}

#[test]
fn a_unit_does_not_exist() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    fs::remove_file(standby.units[1].path()).unwrap();
    standby.start();
    cannot_take_over(&scene, &standby, &standby.units[1].name());
    scene.assert_untouched(&standby);
}

#[test]
fn the_replica_has_never_had_the_data() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let nowhere = free_port();
    let replica = Redis::with().line(&format!("replicaof 127.0.0.1 {nowhere}")).start();
    standby.configure("group.redis.address", format!("127.0.0.1:{}", replica.port));
    standby.configure("group.redis.primary", format!("127.0.0.1:{nowhere}"));
    standby.redis = Some(replica);
    standby.start();
    cannot_take_over(&scene, &standby, "redis: ");
    scene.assert_untouched(&standby);
}

#[test]
fn the_replica_does_not_answer() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    standby.redis().freeze();
    cannot_take_over(&scene, &standby, "redis");
    standby.redis().thaw();
    // The silence goes on; now that it can, it does.
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

fn cannot_take_over(scene: &Scene, standby: &Standby, words: &str) {
    standby.notified.wait_for("READY=1");
    standby.wait_for("the heartbeats to be seen", |group| group.verdict == "fresh");
    scene.silence(standby);
    let seen = standby.stays_quiet_for(LONG);
    assert_blocked(&seen, words);
    let problems = standby.group().not_ready_because.unwrap();
    assert!(problems.iter().any(|problem| problem.contains(words)), "{problems:?}");
    until("an alert that nothing can be done", || {
        standby.has_logged(&["does NOT take over", words])
    });
    assert_eq!(scene.epoch(standby), 0);
    assert_eq!(scene.failovers(standby), 0);
}

#[test]
fn systemd_cannot_be_reached() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let nowhere = "unix:path=/nonexistent/bus".to_owned();
    standby.environment.push(("DBUS_SYSTEM_BUS_ADDRESS".to_owned(), nowhere));
    standby.start();
    cannot_take_over(&scene, &standby, "systemd");
    scene.assert_untouched(&standby);
}

// ---- whose lease is it? ----

#[test]
fn the_state_directory_of_the_active_node_was_lost() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    standby.kill9();
    fs::remove_dir_all(standby.path("state")).unwrap();
    standby.start();
    standby.wait_for("the heartbeats to be seen", |group| group.verdict == "fresh");
    for unit in &standby.units {
        unit.systemctl(&["stop"]);
    }
    let seen = standby.stays_quiet_for(LONG);
    assert_blocked(&seen, "its state directory knows nothing of it");
    assert_eq!((scene.epoch(&standby), scene.failovers(&standby)), (1, 1));
    assert!(standby.bots.iter().all(|bot| standby.starts(bot) == 1));
}

#[test]
fn two_hosts_have_the_same_name() {
    let scene = Scene::new();
    let one = scene.standby().watching();
    let two = scene.standby().watching();
    scene.silence(&one);
    until("one of them to have it", || {
        [&one, &two].iter().any(|standby| standby.group().state == "active")
    });
    let (winner, loser) = if one.group().state == "active" { (&one, &two) } else { (&two, &one) };
    scene.assert_taken_over(winner, 1);
    for unit in &winner.units {
        unit.systemctl(&["stop"]);
    }
    let seen = loser.stays_quiet_for(LONG);
    assert_blocked(&seen, "two nodes have the same name");
    assert!(loser.bots.iter().all(|bot| loser.starts(bot) == 0));
    assert_eq!((scene.epoch(loser), loser.redis().role().as_str()), (1, "slave"));
}
