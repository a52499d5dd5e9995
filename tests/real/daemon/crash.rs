//! The daemon dies by SIGKILL at every point of a takeover, and is started again.
//!
//! A point is before a step is made (`intent`) or after its effect and before anything was noted of
//! it (`effect`). They are all tried at once, each on a group and a standby of its own.

use std::fs;
use std::path::Path;
use std::thread;

use crate::support::daemon::{Scene, Standby, TIMEOUT, comes_true, until};

/// Every point at which the daemon can be made to die.
const POINTS: [&str; 16] = [
    "acquire:intent",
    "acquire:effect",
    "fence:intent",
    "fence:effect",
    "promote:intent",
    "promote:effect",
    "persist:intent",
    "persist:effect",
    "flip:intent",
    "flip:effect",
    "publish:intent",
    "publish:effect",
    "start:intent",
    "start:effect",
    "beat:intent",
    "complete:intent",
];

/// So many at once: each is a dozen processes.
const AT_ONCE: usize = 6;

/// Runs a case for each point, some at once, and says which failed.
pub(super) fn for_each_point(points: &[&'static str], case: impl Fn(&Scene, &'static str) + Sync) {
    let scene = Scene::new();
    let mut failed = Vec::new();
    for points in points.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let cases: Vec<_> =
                points.iter().map(|&point| (point, scope.spawn(|| case(&scene, point)))).collect();
            for (point, case) in cases {
                if case.join().is_err() {
                    failed.push(point);
                }
            }
        });
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// A standby of a group of its own that will die at `point`, and dies there.
fn dies_at(scene: &Scene, point: &str) -> Standby {
    let group = point.replace(':', "-");
    let mut standby = scene.standby().group(&group, &[&group]).ready();
    let fenced = standby.path("fenced").display().to_string();
    let fence = ["/bin/sh", "-c", &format!("echo $UNDERSTUDY_EPOCH >> {fenced}")];
    standby.configure("group.fence.command", fence.map(str::to_owned).to_vec());
    standby.environment = vec![("UNDERSTUDY_CRASH_AT".to_owned(), point.to_owned())];
    standby.start();
    standby.wait_until_watching();
    scene.silence(&standby);
    standby.wait_for_crash();
    standby.environment.clear();
    standby
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn it_is_started_again_at_once_and_completes_the_same_takeover() {
    for_each_point(&POINTS, |scene, point| {
        let mut standby = dies_at(scene, point);
        standby.start();
        standby.wait_until_active();
        scene.assert_taken_over(&standby, 1);
        // What cannot be known to have been done is done again, and nothing else.
        let fenced = lines(&standby.path("fenced"));
        let twice = point == "fence:effect";
        assert_eq!(fenced, 1 + usize::from(twice), "the fence command ran");
        // And it stays so over one more restart.
        standby.kill9();
        standby.start();
        standby.wait_until_active();
        scene.assert_taken_over(&standby, 1);
    });
}

/// The primary comes back before the daemon does. Before the units were started, nothing says that
/// the group runs here, so it must not be started here a second time.
#[test]
fn the_primary_comes_back_before_it_is_started_again() {
    let points = [
        "acquire:intent",
        "acquire:effect",
        "fence:effect",
        "promote:intent",
        "promote:effect",
        "flip:effect",
        "publish:effect",
        "start:intent",
    ];
    for_each_point(&points, |scene, point| {
        let mut standby = dies_at(scene, point);
        scene.revive(&standby);
        thread::sleep(TIMEOUT * 2);
        standby.start();
        let asked_only = point == "acquire:intent";
        let (state, epoch) = if asked_only { ("standby", 0) } else { ("interrupted", 1) };
        let group = standby.wait_for(&format!("{point}: {state}"), |group| {
            group.state == state && group.verdict == "fresh"
        });
        assert_eq!(group.epoch, Some(epoch));
        if !asked_only {
            standby.wait_for_log(&["ERROR", "somebody started them elsewhere"]);
        }
        let moved = comes_true(TIMEOUT * 2, || standby.group().state != state);
        assert!(!moved, "{:?}", standby.group());
        assert_eq!(standby.starts(&standby.bots[0]), 0);
        assert_eq!(scene.epoch(&standby), epoch);
        if asked_only {
            return;
        }
        // A person decides for the primary, and the group is watched again.
        standby.run(&["failback", &standby.group]).assert_code(0);
        standby.wait_for("the daemon to watch again", |group| {
            group.state == "standby" && group.verdict == "fresh" && group.epoch == Some(2)
        });
        assert_eq!(standby.starts(&standby.bots[0]), 0);
    });
}

/// Nobody came back, but so much time has passed that somebody might have: a whole window first.
#[test]
fn it_is_started_again_much_later_and_looks_first() {
    for_each_point(&["acquire:effect", "promote:effect", "start:intent"], |scene, point| {
        let mut standby = dies_at(scene, point);
        thread::sleep(TIMEOUT * 2);
        standby.start();
        standby.wait_for_state("interrupted");
        let early = comes_true(TIMEOUT / 2, || standby.group().state != "interrupted");
        assert!(!early, "{:?}", standby.group());
        standby.wait_until_active();
        scene.assert_taken_over(&standby, 1);
    });
}

/// The units ran when it died, and run still: they are its own, however long that was ago.
#[test]
fn it_is_started_again_much_later_while_its_units_run() {
    for_each_point(&["start:effect", "beat:intent", "complete:intent"], |scene, point| {
        let mut standby = dies_at(scene, point);
        until("the unit to run", || standby.starts(&standby.bots[0]) == 1);
        thread::sleep(TIMEOUT * 2);
        standby.start();
        standby.wait_until_active();
        scene.assert_taken_over(&standby, 1);
        assert!(!standby.has_logged(&["somebody started them elsewhere"]));
    });
}

/// The whole host died and came back: its units do not run, and its memory is from another boot.
#[test]
fn the_host_was_rebooted_in_the_middle_of_a_takeover() {
    for_each_point(&["acquire:effect", "flip:effect", "complete:intent"], |scene, point| {
        let mut standby = dies_at(scene, point);
        for unit in &standby.units {
            unit.systemctl(&["stop"]);
        }
        let memory = standby.path("state/tenures").join(format!("{}.json", standby.group));
        let text = fs::read_to_string(&memory).unwrap();
        let here = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(text.contains(here.trim()));
        let elsewhere = "11111111-2222-3333-4444-555555555555";
        fs::write(&memory, text.replace(here.trim(), elsewhere)).unwrap();
        let _ = fs::remove_dir_all(standby.path("run"));
        standby.start();
        standby.wait_for_state("interrupted");
        standby.wait_until_active();
        assert_eq!(scene.epoch(&standby), 1);
        assert_eq!(scene.failovers(&standby), 1);
        assert!(standby.environment_file().exists());
        assert_eq!(standby.units[0].property("ActiveState"), "active");
    });
}
