//! The process, or its whole host, stands still in the middle of a takeover, while the world goes on.
//! What it was about to do was decided on evidence that is old when it goes on.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::WINDOW;
use super::crash::for_each_point;
use crate::support::daemon::{Scene, Standby, TIMEOUT};

/// A standby of a group of its own that will stand still at `point`, and does so there.
fn stands_still_at(scene: &Scene, point: &str) -> Standby {
    let group = point.replace(':', "-");
    let mut standby = scene.standby().group(&group, &[&group]).ready();
    standby.configure("group.fence.command", vec!["/bin/true".to_owned()]);
    standby.environment = vec![("UNDERSTUDY_STOP_AT".to_owned(), point.to_owned())];
    standby.start();
    standby.wait_until_watching();
    scene.silence(&standby);
    standby.wait_until_stopped();
    standby
}

#[test]
fn another_node_takes_the_lease_meanwhile() {
    let points = [
        "acquire:effect",
        "fence:intent",
        "fence:effect",
        "promote:intent",
        "promote:effect",
        "persist:effect",
        "flip:intent",
        "flip:effect",
        "publish:intent",
        "publish:effect",
        "start:intent",
    ];
    for_each_point(&points, |scene, point| {
        let standby = stands_still_at(scene, point);
        scene.delta_takes(&standby);
        scene.revive(&standby);
        thread::sleep(TIMEOUT * 2);
        standby.signal(Signal::SIGCONT);
        standby.wait_for_log(&["ERROR", "delta has the group now (epoch 2)"]);
        standby.wait_for("the other node's bots to be watched", |group| {
            group.state == "standby" && group.verdict == "fresh" && group.epoch == Some(2)
        });
        assert_eq!(standby.starts(&standby.bots[0]), 0, "a second copy was started");
        let promoted = ["promote:effect", "persist", "flip", "publish", "start"];
        let role = if promoted.iter().any(|at| point.starts_with(at)) { "master" } else { "slave" };
        assert_eq!(standby.redis().role(), role);
        standby.stays_quiet_for(Duration::from_secs(1));
        assert_eq!(scene.epoch(&standby), 2);
    });
}

#[test]
fn the_primary_comes_back_just_before_the_lease_is_asked_for() {
    let scene = Scene::new();
    let standby = stands_still_at(&scene, "acquire:intent");
    scene.revive(&standby);
    thread::sleep(Duration::from_secs(1));
    standby.signal(Signal::SIGCONT);
    standby.wait_for_log(&["did not get the lease"]);
    standby.stays_quiet_for(WINDOW);
    scene.assert_untouched(&standby);
}

#[test]
fn a_person_says_hold_just_before_the_lease_is_asked_for() {
    let scene = Scene::new();
    let standby = stands_still_at(&scene, "acquire:intent");
    standby.run(&["hold", "--reason", "not now"]).assert_code(0);
    standby.signal(Signal::SIGCONT);
    standby.wait_for_log(&["did not get the lease", "holds the group (not now)"]);
    standby.stays_quiet_for(WINDOW);
    scene.assert_untouched(&standby);
}

#[test]
fn the_evidence_is_old_when_the_lease_is_asked_for() {
    let scene = Scene::new();
    let standby = stands_still_at(&scene, "acquire:intent");
    thread::sleep(TIMEOUT * 2);
    standby.signal(Signal::SIGCONT);
    standby.wait_for_log(&["did not get the lease", "the evidence was"]);
    standby.stays_quiet_for(TIMEOUT - Duration::from_secs(1));
    // It stood still, so it looks for a whole window before it asks again, and stands still again.
    standby.wait_until_stopped();
    standby.signal(Signal::SIGCONT);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

/// Nobody came, and the lease is confirmed by a read: it goes on where it was.
#[test]
fn nothing_happens_meanwhile() {
    let points =
        ["acquire:effect", "promote:intent", "flip:effect", "start:intent", "start:effect"];
    for_each_point(&points, |scene, point| {
        let standby = stands_still_at(scene, point);
        thread::sleep(TIMEOUT * 2);
        standby.signal(Signal::SIGCONT);
        standby.wait_until_active();
        scene.assert_taken_over(&standby, 1);
    });
}
