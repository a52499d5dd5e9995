//! From the deadline to the lease at several intervals, and from the last heartbeat to the end of the
//! takeover.
//!
//! The deadline is met by a read of its own, so the interval must not matter. Daemons run side by
//! side, each with a bot of its own that dies at an instant of its own.

#![allow(clippy::unwrap_used, reason = "a measurement whose surroundings fail has failed")]
#![allow(clippy::expect_used, reason = "the same")]
#![allow(clippy::print_stdout, reason = "its result")]
#![allow(clippy::print_stderr, reason = "its progress")]

mod common;
#[allow(dead_code, reason = "made for the tests, which need more of it")]
#[path = "../tests/real/support/mod.rs"]
mod support;

use std::thread;
use std::time::Duration;

use serde_json::json;
use support::daemon::{Scene, Standby, comes_true, now, until};

use common::{Figures, Report, number, number_before};

/// Daemons for each setting.
const SAMPLES: u64 = 12;

/// Between two deaths, so that each deadline is at a phase of its own.
const APART: Duration = Duration::from_millis(733);

/// How long the slowest setting may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Interval and timeout, and what part of the samples it is worth.
const SETTINGS: [(&str, &str, u64); 3] = [("1s", "3s", 1), ("10s", "60s", 2), ("60s", "130s", 2)];

fn main() {
    let samples = number("UNDERSTUDY_BENCH_RUNS", SAMPLES);
    let mut heads = vec!["milliseconds"];
    heads.extend(Figures::HEADS);
    let mut report = Report::new("detection", &heads);
    for (interval, timeout, part) in SETTINGS {
        let samples = samples / part;
        eprintln!("detection: interval {interval}, timeout {timeout}, {samples} daemons");
        let (late, completed) = measure(interval, timeout, samples);
        report.row(&format!("{interval} / {timeout}: deadline → lease"), late.cells());
        report
            .row(&format!("{interval} / {timeout}: last heartbeat → completed"), completed.cells());
        let key = format!("{interval}_{timeout}");
        report.json(&key, json!({ "lease_ms": late.json(), "completed_ms": completed.json() }));
    }
    report.note(
        "Interval / timeout. Completed means that the units were active, settled for 500 ms, and \
         that each bot was seen to beat."
            .to_owned(),
    );
    report.finish();
}

fn measure(interval: &str, timeout: &str, samples: u64) -> (Figures, Figures) {
    let scene = Scene::new();
    let standbys: Vec<Standby> = (0..samples)
        .map(|number| {
            let bot = format!("bot-{number}");
            let plan = scene.standby().node(&format!("node-{number}"));
            let plan = plan.group(&format!("group-{number}"), &[&bot]);
            let plan = plan.set("watch.interval", interval).set("watch.timeout", timeout);
            plan.set("watch.blind_after", "10m").running()
        })
        .collect();
    for standby in &standbys {
        let seen = || standby.try_group().is_some_and(|group| group.verdict == "fresh");
        until("the heartbeats to be seen", seen);
        until("it to be fit", || {
            standby.try_group().is_some_and(|group| group.not_ready_because == Some(Vec::new()))
        });
    }
    for standby in &standbys {
        scene.silence(standby);
        thread::sleep(APART);
    }
    let measured = standbys.iter().map(|standby| {
        let done = || standby.has_logged(&["failover completed: this node has the group"]);
        assert!(comes_true(PATIENCE, done), "waited {PATIENCE:?} for a takeover");
        let late = number_before(&standby.log(), "ms after the silence was long enough");
        (late, completion(&scene, standby))
    });
    let (late, completed): (Vec<f64>, Vec<f64>) = measured.unzip();
    (Figures::of(late), Figures::of(completed))
}

/// Milliseconds from the last heartbeat to the end of the takeover, both by the store's clock.
fn completion(scene: &Scene, standby: &Standby) -> f64 {
    let query = format!(
        "SELECT extract(epoch FROM f.started_at - (f.evidence->'heartbeats'->>0)::timestamp
                AT TIME ZONE current_setting('TimeZone')) * 1000 + e.after_ms
           FROM understudy.failover f JOIN understudy.event e ON e.failover = f.id
          WHERE e.step = 'finish' AND f.grp = '{}'",
        standby.group
    );
    until("the history to be written", || !now(scene.postgres.rows(&query)).is_empty());
    scene.value(&query).parse().unwrap()
}
