//! What people hear of a takeover, and that hearing never delays one.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use understudy::time::BootTime;

use super::LONG;
use crate::support::daemon::{Plan, Scene, TIMEOUT, comes_true, until};
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
