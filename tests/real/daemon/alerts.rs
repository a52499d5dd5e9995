//! What people hear of a takeover, and that hearing never delays one.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use understudy::time::BootTime;

use super::LONG;
use crate::support::daemon::{Plan, Scene, Standby, TIMEOUT, comes_true, until};
use crate::support::http::{Answer, Http};
use crate::support::redis::free_port;

fn with_pager(plan: Plan<'_>, port: u16) -> Plan<'_> {
    plan.set("alert.pager.kind", "webhook")
        .set("alert.pager.url", format!("http://127.0.0.1:{port}/page"))
}

/// Collects alerts until one is of this event.
fn up_to(pager: &Http, event: &str) -> Vec<Value> {
    let mut alerts = Vec::new();
    loop {
        let alert = pager.next().json();
        let found = alert["event"] == event;
        alerts.push(alert);
        if found {
            return alerts;
        }
    }
}

fn events(alerts: &[Value]) -> Vec<&str> {
    alerts.iter().map(|alert| alert["event"].as_str().unwrap()).collect()
}

#[test]
fn a_takeover_is_told_from_silence_to_completion() {
    let pager = Http::start(&[Answer::Status(200)]);
    let scene = Scene::new();
    let standby = with_pager(scene.standby(), pager.port).watching();
    scene.silence(&standby);
    standby.wait_until_active();
    let alerts = up_to(&pager, "failover_completed");
    let mut told = events(&alerts);
    // The one from the store takes its own way.
    told.sort_unstable();
    assert_eq!(told, ["failover_completed", "group_stale", "lease_acquired"], "{alerts:?}");
    let acquired = alerts.iter().find(|alert| alert["event"] == "lease_acquired").unwrap();
    assert_eq!(acquired["severity"], "critical");
    assert_eq!((&acquired["group"], &acquired["epoch"]), (&"trading".into(), &1.into()));
    assert_eq!(acquired["node"], "bravo");
    until("the store to know that its alert is in safe hands", || {
        scene.value("SELECT count(*) FROM understudy.alert WHERE delivered_at IS NULL") == "0"
    });
    until("nothing to be undelivered", || standby.try_status().unwrap().undelivered_alerts == 0);
}

#[test]
fn a_pager_that_hangs_delays_nothing() {
    let pager = Http::start(&[Answer::Silence]);
    takes_over_as_fast_as_without_a_pager(pager.port);
}

#[test]
fn a_pager_that_is_down_delays_nothing_and_hears_of_it_later() {
    let port = free_port();
    let standby = takes_over_as_fast_as_without_a_pager(port);
    assert!(standby >= 3, "{standby}");
}

/// Returns how many alerts were undelivered then, and sees that they are delivered in the end.
fn takes_over_as_fast_as_without_a_pager(port: u16) -> u64 {
    let scene = Scene::new();
    let mut standby = with_pager(scene.standby(), port).watching();
    scene.silence(&standby);
    let group = standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
    let took: u64 = group.takeover.unwrap().done.iter().map(|done| done.took_ms).sum();
    // Half a second of it is the settling of the units; the rest is the machine's.
    assert!(took < 5_000, "{took} ms");
    let mut undelivered = 0;
    until("undelivered alerts to be shown", || {
        undelivered = standby.try_status().unwrap().undelivered_alerts;
        undelivered >= 3
    });
    standby.run(&["status"]).assert_says("alerts are not delivered yet");
    // Nor does it delay the end; and the next process finds them on disk.
    let asked = BootTime::now();
    standby.terminate();
    assert!(BootTime::now().since(asked) < Duration::from_secs(6));
    let pager = Http::start(&[Answer::Status(200)]);
    standby.configure("alert.pager.url", format!("http://127.0.0.1:{}/page", pager.port));
    standby.start();
    let alerts = up_to(&pager, "failover_completed");
    assert!(events(&alerts).contains(&"lease_acquired"), "{alerts:?}");
    undelivered
}

#[test]
fn the_daemon_is_killed_again_and_again_and_no_alert_is_lost_or_new() {
    let pager = Http::start(&[Answer::Status(503)]);
    let scene = Scene::new();
    let mut standby = with_pager(scene.standby(), pager.port).watching();
    scene.silence(&standby);
    until("the lease", || scene.epoch(&standby) == 1);
    for _ in 0..3 {
        standby.kill9();
        standby.start();
        thread::sleep(Duration::from_millis(700));
    }
    standby.wait_until_active();
    pager.answer(Answer::Status(200));
    let mut alerts = Vec::new();
    let quiet = comes_true(LONG * 3, || {
        while let Some(request) = pager.try_next() {
            alerts.push(request.json());
        }
        events(&alerts).contains(&"failover_completed")
            && standby.try_status().is_some_and(|status| status.undelivered_alerts == 0)
    });
    assert!(quiet, "{:?}", events(&alerts));
    let ids = |event: &str| -> BTreeSet<String> {
        let of = alerts.iter().filter(|alert| alert["event"] == event);
        of.map(|alert| alert["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("lease_acquired").len(), 1, "one acquisition, one identity");
    assert_eq!(ids("failover_completed").len(), 1);
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn a_blind_understudy_calls_a_person_once_and_says_when_it_sees_again() {
    let pager = Http::start(&[Answer::Status(200)]);
    let mut scene = Scene::new();
    let standby = with_pager(scene.standby(), pager.port).watching();
    scene.stop_store();
    standby.stays_quiet_for(TIMEOUT * 2);
    scene.resume_store();
    let alerts = up_to(&pager, "sight_restored");
    assert_eq!(events(&alerts), ["group_blind", "sight_restored"], "{alerts:?}");
    assert_eq!(alerts[0]["severity"], "critical");
    scene.assert_untouched(&standby);
}

// ---- what is over, and what was seen ----

/// Begins to watch with a pager, and never takes over by itself.
fn only_alerting(scene: &Scene, port: u16) -> Standby {
    with_pager(scene.standby().without_redis(), port)
        .set("group.accept_dual_active", false)
        .watching()
}

#[test]
fn what_ends_is_taken_back_by_the_same_key_and_the_status_follows() {
    let pager = Http::start(&[Answer::Status(200)]);
    let scene = Scene::new();
    let standby = only_alerting(&scene, pager.port);
    scene.silence(&standby);
    let began = up_to(&pager, "takeover_blocked");
    assert_eq!(events(&began), ["group_stale", "takeover_blocked"]);
    for alert in &began {
        assert_eq!(alert["dedup_key"], "trading/silent/bravo");
        assert_eq!((&alert["lasting"], &alert["resolves"]), (&true.into(), &Value::Null));
    }
    until("the status to show it", || !standby.try_status().unwrap().open_alerts.is_empty());
    let status = standby.try_status().unwrap();
    let [open] = status.open_alerts.as_slice() else { panic!("{:?}", status.open_alerts) };
    assert_eq!((open.event.as_str(), open.severity.as_str()), ("group_stale", "critical"));
    standby.run(&["status"]).assert_code(0).assert_says(&open.id[..8]);

    scene.revive(&standby);
    let over = up_to(&pager, "group_fresh");
    let [over] = over.as_slice() else { panic!("{over:?}") };
    assert_eq!(over["dedup_key"], "trading/silent/bravo");
    assert_eq!(over["resolves"]["event"], "group_stale");
    assert_eq!(over["resolves"]["severity"], "critical");
    until("the status to show nothing", || standby.try_status().unwrap().open_alerts.is_empty());
    scene.assert_untouched(&standby);
}

#[test]
fn what_ended_while_understudy_was_dead_is_taken_back_by_the_next_one() {
    let pager = Http::start(&[Answer::Status(200)]);
    let scene = Scene::new();
    let mut standby = only_alerting(&scene, pager.port);
    scene.silence(&standby);
    up_to(&pager, "takeover_blocked");
    until("it to be on disk", || !standby.try_status().unwrap().open_alerts.is_empty());
    standby.kill9();
    scene.revive(&standby);
    standby.start();
    let over = up_to(&pager, "group_fresh");
    let over = over.last().unwrap();
    assert_eq!(over["dedup_key"], "trading/silent/bravo");
    assert_eq!(over["resolves"]["event"], "group_stale");
    // And what goes on is not taken back by a process that has not seen a beat yet.
    scene.silence(&standby);
    up_to(&pager, "takeover_blocked");
    standby.kill9();
    standby.start();
    let goes_on = up_to(&pager, "takeover_blocked");
    assert!(!events(&goes_on).contains(&"group_fresh"), "{goes_on:?}");
}

#[test]
fn a_configuration_that_was_refused_is_well_again_by_a_reload_or_a_restart() {
    let pager = Http::start(&[Answer::Status(200)]);
    let scene = Scene::new();
    let mut standby = only_alerting(&scene, pager.port);
    standby.configure("watch.interval", "nonsense");
    standby.signal(nix::sys::signal::Signal::SIGHUP);
    let refused = up_to(&pager, "configuration_refused");
    assert_eq!(refused[0]["dedup_key"], "bravo/configuration");
    until("it to be open", || !standby.try_status().unwrap().open_alerts.is_empty());
    standby.configure("watch.interval", "1s");
    standby.signal(nix::sys::signal::Signal::SIGHUP);
    let well = up_to(&pager, "configuration_reloaded");
    assert_eq!(well[0]["dedup_key"], "bravo/configuration");
    assert_eq!(well[0]["resolves"]["event"], "configuration_refused");
    // A restart mends it too.
    standby.configure("watch.interval", "nonsense");
    standby.signal(nix::sys::signal::Signal::SIGHUP);
    up_to(&pager, "configuration_refused");
    until("it to be open", || !standby.try_status().unwrap().open_alerts.is_empty());
    standby.terminate();
    standby.configure("watch.interval", "1s");
    standby.start();
    up_to(&pager, "configuration_reloaded");
    until("nothing to be open", || {
        standby.try_status().is_some_and(|status| status.open_alerts.is_empty())
    });
}

#[test]
fn a_failover_ends_the_silence_that_led_to_it() {
    let pager = Http::start(&[Answer::Status(200)]);
    let scene = Scene::new();
    let standby = with_pager(scene.standby(), pager.port).watching();
    scene.silence(&standby);
    let alerts = up_to(&pager, "group_fresh");
    let told = events(&alerts);
    let at = |event: &str| told.iter().position(|told| *told == event);
    assert!(at("failover_completed").is_some() && at("failover_completed") < at("group_fresh"));
    let over = alerts.last().unwrap();
    assert_eq!(over["resolves"]["event"], "group_stale");
    // What a person must look at stays until one has.
    until("only these to be open", || {
        let open = standby.try_status().unwrap().open_alerts;
        let events: BTreeSet<_> = open.iter().map(|open| open.event.clone()).collect();
        events == ["failover_completed", "lease_acquired"].map(str::to_owned).into()
    });
    let acknowledged = standby.run(&["ack", "trading"]);
    acknowledged.assert_code(0).assert_says("2 alerts acknowledged");
    until("nothing to be open", || standby.try_status().unwrap().open_alerts.is_empty());
}

#[test]
fn nobody_else_is_called_about_what_somebody_has_seen() {
    let (pager, second) =
        (Http::start(&[Answer::Status(200)]), Http::start(&[Answer::Status(200)]));
    let scene = Scene::new();
    let standby = with_pager(scene.standby().without_redis(), pager.port)
        .set("group.accept_dual_active", false)
        .set("alert.second.kind", "webhook")
        .set("alert.second.url", format!("http://127.0.0.1:{}/", second.port))
        .set("alert.second.escalate_after", "8s")
        .watching();
    // Seen in time.
    scene.silence(&standby);
    up_to(&pager, "takeover_blocked");
    until("it to wait", || standby.try_status().unwrap().channels[1].escalating == 1);
    let id = standby.try_status().unwrap().open_alerts[0].id.clone();
    standby.run(&["ack", &id[..8]]).assert_code(0).assert_says("1 alert acknowledged");
    standby.run(&["ack", &id[..8]]).assert_code(0).assert_says("no alert was waiting for that");
    let status = standby.try_status().unwrap();
    assert_eq!(status.channels[1].escalating, 0);
    let by = status.open_alerts[0].acknowledged_by.clone().unwrap();
    assert!(by.ends_with("@bravo"), "{by}");
    standby.run(&["status"]).assert_says("(seen by ");
    scene.revive(&standby);
    up_to(&pager, "group_fresh");
    // Seen by nobody: across a restart, and in spite of it.
    scene.silence(&standby);
    up_to(&pager, "takeover_blocked");
    let called = second.next().json();
    assert_eq!(called["event"], "takeover_blocked");
    assert!(second.try_next().is_none(), "what was seen in time was told all the same");
    scene.revive(&standby);
    assert_eq!(second.next().json()["event"], "group_fresh");
}

// ---- does it arrive? ----

#[test]
fn a_test_says_of_each_channel_whether_it_arrived() {
    let pager = Http::start(&[Answer::Status(202)]);
    let scene = Scene::new();
    let mut standby = with_pager(scene.standby().without_redis(), pager.port)
        .set("alert.broken.kind", "slack")
        .set("alert.broken.url", format!("http://127.0.0.1:{}/T0K3N-CANARY", free_port()))
        .set("alert.script.kind", "command")
        .set("alert.script.command", vec!["/bin/true"])
        .ready();
    let key = standby.path("key");
    std::fs::write(&key, "T0K3N-CANARY").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let reference = toml::Table::from_iter([("file".to_owned(), key.display().to_string().into())]);
    standby.configure("alert.phone.kind", "pagerduty");
    standby.configure("alert.phone.url", format!("http://127.0.0.1:{}/v2/enqueue", pager.port));
    standby.configure("alert.phone.routing_key", reference);
    // Without the daemon and with it.
    for running in [false, true] {
        if running {
            standby.start();
        }
        let ran = standby.run(&["alert", "test"]);
        ran.assert_code(1)
            .assert_says("broken (slack): NOT delivered: ")
            .assert_says("pager (webhook): delivered")
            .assert_says("phone (pagerduty): delivered")
            .assert_says("script (command): delivered");
        assert!(!format!("{ran:?}").contains("CANARY"), "{ran:?}");
        let mut came: Vec<_> = (0..3).map(|_| pager.next()).collect();
        came.sort_by_key(|request| request.line.contains("enqueue"));
        assert_eq!(came[0].json()["event"], "alert_test");
        assert_eq!(came[1].json()["event_action"], "trigger");
        assert_eq!(came[2].json()["event_action"], "resolve");
        standby.run(&["alert", "test", "pager"]).assert_code(0).assert_says("pager (webhook)");
        assert!(pager.next().json()["summary"].as_str().unwrap().starts_with("TEST from "));
        assert!(pager.try_next().is_none());
    }
    let json = standby.run(&["alert", "test", "script", "--json"]).json();
    let expected = serde_json::json!([
        { "channel": "script", "kind": "command", "delivered": true }
    ]);
    assert_eq!(json, expected);
    standby.run(&["alert", "test", "nobody"]).assert_code(1).assert_says("there are: broken, ");
    let check = standby.run(&["check"]);
    check.assert_says("channel phone (pagerduty) is ready to send");
    standby.configure("alert.script.command", vec!["/no/such/program"]);
    standby.run(&["check"]).assert_says("/no/such/program cannot be run");
    standby.run(&["alert", "test", "script"]).assert_code(1).assert_says("cannot be run");
}

#[test]
fn the_history_and_the_status_say_what_nobody_has_heard_yet() {
    let pager = Http::start(&[Answer::Status(503)]);
    let scene = Scene::new();
    let mut standby = only_alerting(&scene, pager.port);
    scene.silence(&standby);
    until("two alerts to wait", || standby.try_status().unwrap().undelivered_alerts == 2);
    until("the error to be known", || {
        standby.try_status().unwrap().channels[0].last_error.is_some()
    });
    let line = "! pager: 2 not delivered, 1 of them critical, the oldest of 2";
    for command in ["status", "history"] {
        let said = standby.run(&[command]);
        said.assert_says(line).assert_says("last error: the channel answered 503");
    }
    standby.terminate();
    standby.run(&["history"]).assert_code(0).assert_says(line);
}

#[test]
fn the_dead_mans_ping_stops_when_the_daemon_stands_still() {
    let watcher = Http::start(&[Answer::Status(200)]);
    let scene = Scene::new();
    let standby = scene
        .standby()
        .without_redis()
        .set("alerts.dead_man.url", format!("http://127.0.0.1:{}/ping", watcher.port))
        .set("alerts.dead_man.every", "1s")
        .watching();
    for _ in 0..2 {
        assert!(watcher.next().line.starts_with("GET /ping"));
    }
    standby.signal(nix::sys::signal::Signal::SIGSTOP);
    let mut quiet_since = BootTime::now();
    until("the pings to stop", || {
        while watcher.try_next().is_some() {
            quiet_since = BootTime::now();
        }
        BootTime::now().since(quiet_since) > Duration::from_secs(3)
    });
    standby.signal(nix::sys::signal::Signal::SIGCONT);
    watcher.next();
    standby.run(&["check"]).assert_says("the dead-man's ping is ready to be sent");
}
