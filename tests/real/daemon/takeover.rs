//! Situations in which there must be a failover, and exactly one.

use std::time::Duration;

use super::{LONG, WINDOW};
use crate::support::daemon::{Scene, Standby, TIMEOUT, comes_true, now, until};
use crate::support::postgres::Postgres;

#[test]
fn the_bots_are_dead() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    let group = standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
    assert_eq!((group.holder.as_deref(), group.epoch), (Some("bravo"), Some(1)));
    let steps: Vec<_> = group.takeover.unwrap().done.into_iter().map(|done| done.step).collect();
    assert_eq!(steps, ["promote", "persist", "flip", "publish", "start", "beat"]);
    assert_noticed_in_time(&scene);
    timeline_is_complete(&scene, &standby);
    // The primary goes silent once more, as it were, and nothing more happens here.
    let quiet =
        comes_true(LONG, || scene.epoch(&standby) != 1 || standby.group().state != "active");
    assert!(!quiet, "{:?}", standby.group());
    scene.assert_taken_over(&standby, 1);
}

/// Not before the heartbeat was silent for the timeout, by the database's own record, and soon after.
fn assert_noticed_in_time(scene: &Scene) {
    let silent = scene.value("SELECT f.evidence->>'silent_for_ms' FROM understudy.failover f");
    let silent = Duration::from_millis(silent.parse().unwrap());
    assert!(silent >= TIMEOUT, "{silent:?}");
    // The deadline is met by a read of its own, not by the next one of the interval. Everything else
    // is the speed of the machine.
    assert!(silent < TIMEOUT + Duration::from_millis(1500), "{silent:?}");
}

fn timeline_is_complete(scene: &Scene, standby: &Standby) {
    let mut records = Vec::new();
    until("a record that is done", || {
        records = standby.run(&["history", "--json"]).json().as_array().unwrap().clone();
        records.first().is_some_and(|record| record["status"] == "done")
    });
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(record["kind"], "automatic");
    assert_eq!(record["node"], "bravo");
    assert_eq!(record["epoch"], 1);
    let timeline = record["timeline"].as_array().unwrap();
    let steps: Vec<_> = timeline.iter().map(|entry| entry["step"].as_str().unwrap()).collect();
    for step in ["acquire", "promote", "persist", "flip", "publish", "start", "beat"] {
        assert!(steps.contains(&step), "{step} is not in {steps:?}");
    }
    assert!(timeline.iter().all(|entry| entry["outcome"] == "done"), "{timeline:?}");
    let text = standby.run(&["history"]);
    text.assert_code(0).assert_says("bravo");
    assert!(
        scene.value(
            "SELECT last_at > clock_timestamp() - interval '1 minute' \
         FROM understudy.cooldown"
        ) == "t"
    );
}

#[test]
fn the_primarys_host_is_dead() {
    let mut scene = Scene::new();
    let standby = scene.standby().watching();
    scene.redis.kill();
    scene.silence(&standby);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn one_of_two_bots_is_dead_and_one_is_enough() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.set_primary(&standby.bots[1..], false);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn one_of_two_bots_is_dead_and_both_must_be() {
    let scene = Scene::new();
    let standby = scene.standby().set("group.stale", "all").watching();
    scene.set_primary(&standby.bots[1..], false);
    let seen = standby.stays_quiet_for(LONG);
    assert!(seen.iter().all(|group| group.verdict == "fresh"));
    scene.assert_untouched(&standby);
    scene.set_primary(&standby.bots[..1], false);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_bots_were_dead_before_the_daemon_was_started() {
    let scene = Scene::new();
    let mut standby = scene.standby().silent().ready();
    standby.start();
    standby.stays_quiet_for(TIMEOUT - Duration::from_millis(500));
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
    assert_noticed_in_time(&scene);
}

#[test]
fn the_last_heartbeat_is_from_the_future() {
    let scene = Scene::new();
    scene.beats_are("NOW() + interval '1 hour'");
    let standby = scene.standby().watching();
    scene.silence(&standby);
    // The units' bots have a clock that is right.
    until("the silence to be seen", || standby.group().state != "standby");
    scene.beats_are("NOW()");
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_bots_die_while_the_database_is_away() {
    let mut scene = Scene::new();
    let standby = scene.standby().watching();
    scene.stop_store();
    scene.silence(&standby);
    standby.stays_quiet_for(TIMEOUT * 2);
    scene.resume_store();
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
    // A whole window of the new server's own, however long the old one was away.
    let after = scene.value(
        "SELECT extract(epoch FROM started_at - pg_postmaster_start_time()) FROM understudy.failover",
    );
    assert!(after.parse::<f64>().unwrap() >= TIMEOUT.as_secs_f64(), "{after}");
    assert_noticed_in_time(&scene);
}

#[test]
fn the_database_fails_over_to_its_standby_while_the_bots_are_dead() {
    let mut scene = Scene::new();
    let replica = now(scene.postgres.standby());
    let hosts = [&scene.postgres, &replica].map(|server| format!("127.0.0.1:{}", server.port()));
    let standby = scene.standby().set("store.hosts", hosts.to_vec()).watching();
    scene.silence(&standby);
    scene.postgres.kill();
    now(replica.promote());
    scene.store_is(replica);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn the_bots_go_silent_again_within_the_cooldown() {
    let scene = Scene::new();
    let mut standby = scene.standby().set("group.cooldown", "1h").watching();
    scene.silence(&standby);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
    // A person brings the group home, and it dies there again.
    for unit in &standby.units {
        unit.systemctl(&["stop"]);
    }
    scene.revive(&standby);
    standby.run(&["failback"]).assert_code(0);
    standby.wait_for("the daemon to watch again", |group| {
        group.state == "standby" && group.verdict == "fresh" && group.epoch == Some(2)
    });
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(LONG);
    let blocked = "the last automatic failover is too recent";
    assert!(seen.iter().any(|group| group.summary.contains(blocked)), "{seen:?}");
    // Nor does a restart shorten it.
    standby.kill9();
    standby.start();
    standby.stays_quiet_for(WINDOW);
    assert_eq!((scene.epoch(&standby), scene.failovers(&standby)), (2, 1));
}

#[test]
fn the_third_failover_in_an_hour_latches_the_group() {
    let scene = Scene::new();
    let standby = scene
        .standby()
        .one_bot()
        .without_redis()
        .set("group.cooldown", "3s")
        .set("group.latch_after", 2)
        .watching();
    for tenure in 0..2 {
        scene.silence(&standby);
        standby.wait_until_active();
        for unit in &standby.units {
            unit.systemctl(&["stop"]);
        }
        scene.revive(&standby);
        standby.run(&["failback"]).assert_code(0);
        standby.wait_for("the daemon to watch again", |group| {
            group.state == "standby"
                && group.verdict == "fresh"
                && group.epoch == Some(2 * tenure + 2)
                && group.cooldown_left_ms.is_none()
        });
    }
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(LONG);
    assert!(seen.iter().any(|group| group.summary.contains("understudy ack")), "{seen:?}");
    assert_eq!((scene.epoch(&standby), scene.failovers(&standby)), (4, 2));
}

#[test]
fn the_clock_of_the_database_was_set_back_before_the_bots_died() {
    let scene = Scene::with(Postgres::options().clock());
    let standby = scene.standby().watching();
    scene.postgres.set_clock("-2h");
    scene.silence(&standby);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn two_standbys_see_the_same_silence_and_one_takes_over() {
    let scene = Scene::new();
    let bravo = scene.standby().watching();
    let charlie = scene.standby().node("charlie").watching();
    scene.silence(&bravo);
    until("one of them to have it", || {
        [&bravo, &charlie].iter().any(|standby| standby.group().state == "active")
    });
    let (winner, loser) = match bravo.group().state.as_str() {
        "active" => (&bravo, &charlie),
        _ => (&charlie, &bravo),
    };
    scene.assert_taken_over(winner, 1);
    // The other one sees who has it, and watches that one.
    let group = loser.wait_for("the other one to see the heartbeats", |group| {
        group.state == "standby" && group.verdict == "fresh" && group.epoch == Some(1)
    });
    assert_eq!(group.holder.as_deref(), Some(winner.node.as_str()));
    loser.stays_quiet_for(WINDOW);
    assert!(loser.bots.iter().all(|bot| loser.starts(bot) == 0));
    assert_eq!(loser.redis().role(), "slave");
    scene.assert_taken_over(winner, 1);
}

#[test]
fn the_second_standby_takes_over_when_the_first_dies() {
    let scene = Scene::new();
    let mut bravo = scene.standby().set("group.cooldown", "4s").watching();
    scene.silence(&bravo);
    bravo.wait_until_active();
    let charlie = scene.standby().node("charlie").set("group.cooldown", "4s").ready();
    let mut charlie = charlie;
    // It follows the new master, as a person would have arranged.
    charlie.redis().run::<String>(&format!("REPLICAOF 127.0.0.1 {}", bravo.redis().port));
    charlie.redis().wait_until_in_sync();
    charlie.configure("group.redis.primary", format!("127.0.0.1:{}", bravo.redis().port));
    charlie.start();
    charlie.wait_until_watching();
    // The whole host of the first one dies.
    bravo.kill9();
    for unit in &bravo.units {
        unit.systemctl(&["kill", "--signal=KILL"]);
    }
    scene.silence(&bravo);
    bravo.redis.as_mut().unwrap().kill();
    charlie.wait_until_active();
    scene.assert_taken_over(&charlie, 2);
}

#[test]
fn a_person_orders_it_and_heartbeats_are_in_the_way() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    let failover = |more: &[&str]| standby.run(&[&["failover", "trading"], more].concat());
    failover(&[]).assert_code(1).assert_says("there is no terminal to ask on; add --yes");
    failover(&["--dry-run"]).assert_code(0).assert_says("Nothing was done (--dry-run)");
    failover(&["--yes"]).assert_code(1).assert_says("the primary does not look dead");
    standby.stays_quiet_for(Duration::from_secs(1));
    scene.assert_untouched(&standby);
    failover(&["--yes", "--force", "--reason", "the host burns"]).assert_code(0);
    // The primary's bots beat still: nobody could stop them, which is what --force means.
    scene.silence(&standby);
    assert_eq!(standby.group().state, "active");
    scene.assert_taken_over(&standby, 1);
    let records = standby.run(&["history", "--json"]).json();
    assert_eq!(records[0]["kind"], "operator");
    assert_eq!(records[0]["reason"], "the host burns");
    failover(&["--yes"]).assert_code(1).assert_says("this node has the group already");
}

#[test]
fn a_person_orders_it_where_understudy_only_alerts() {
    let scene = Scene::new();
    let standby = scene.standby().set("group.accept_dual_active", false).watching();
    scene.silence(&standby);
    standby.wait_for("silence", |group| group.verdict == "stale");
    standby.run(&["failover", "--yes"]).assert_code(0);
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn a_person_orders_it_during_a_hold() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    standby.run(&["hold", "--reason", "moving racks"]).assert_code(0);
    scene.silence(&standby);
    standby
        .wait_for("silence and the hold", |group| group.verdict == "stale" && group.hold.is_some());
    standby.run(&["failover", "--yes"]).assert_code(1).assert_says("moving racks");
    standby.run(&["failover", "--yes", "--force"]).assert_code(1).assert_says("release");
    scene.assert_untouched(&standby);
}

#[test]
fn the_group_is_given_back_and_watched_again() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    standby.run(&["failback"]).assert_code(1).assert_says("systemctl stop");
    assert_eq!(scene.epoch(&standby), 1);
    for unit in &standby.units {
        unit.systemctl(&["stop"]);
    }
    scene.revive(&standby);
    standby.run(&["failback"]).assert_code(0).assert_says("alpha has the group (epoch 2)");
    standby.wait_for("the daemon to watch again", |group| {
        group.state == "standby" && group.verdict == "fresh" && group.epoch == Some(2)
    });
    let group = standby.group();
    assert_eq!(group.holder.as_deref(), Some("alpha"));
    standby.run(&["failback"]).assert_code(0).assert_says("has it already");
    assert_eq!(scene.epoch(&standby), 2);
    assert!(standby.bots.iter().all(|bot| standby.starts(bot) == 1));
}

#[test]
fn two_groups_die_at_once() {
    let scene = Scene::new();
    let mut standby = scene.standby().without_redis().ready();
    standby.split_off("second");
    standby.start();
    standby.wait_until_watching();
    scene.silence(&standby);
    until("both to be active", || {
        let status = standby.try_status();
        status.is_some_and(|status| status.groups.iter().all(|group| group.state == "active"))
    });
    let leases = scene
        .value("SELECT string_agg(grp || ' ' || epoch, ', ' ORDER BY grp) FROM understudy.lease");
    assert_eq!(leases, "second 1, trading 1");
    assert!(["equity", "crypto"].iter().all(|bot| standby.starts(bot) == 1));
}

#[test]
fn one_group_dies_while_nothing_is_known_of_the_other() {
    let scene = Scene::new();
    let mut standby = scene.standby().without_redis().ready();
    standby.split_off("second");
    standby.start();
    standby.wait_until_watching();
    scene.sql("DELETE FROM bot_status WHERE bot_name = 'crypto'");
    scene.silence(&standby);
    standby.wait_until_active();
    let status = standby.try_status().unwrap();
    let second = status.groups.iter().find(|group| group.name == "second").unwrap();
    assert_eq!((second.state.as_str(), second.verdict.as_str()), ("standby", "unknown"));
    assert_eq!((standby.starts("equity"), standby.starts("crypto")), (1, 0));
}
