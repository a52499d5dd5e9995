//! Many histories of the small world. Each must keep every rule and end well.
//!
//! `UNDERSTUDY_SEED=n` lives one history and prints it; `UNDERSTUDY_SECONDS=n` goes on for so long.

use std::time::{Duration, SystemTime};

use crate::world::{self, Report};

/// Enough for every kind of trouble to meet every state, and quick enough to be run each time.
const HISTORIES: u64 = 600;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_history_keeps_the_rules_and_ends_well() {
    if let Some(seed) = number("UNDERSTUDY_SEED") {
        if let Err(rule) = world::live(seed, None, true) {
            panic!("{rule}");
        }
        return;
    }
    let until = number("UNDERSTUDY_SECONDS").map(Duration::from_secs);
    let began = SystemTime::now();
    let mut total = Report::default();
    let mut seed = 0;
    let mut failures = Vec::new();
    while match until {
        Some(until) => began.elapsed().expect("the clock goes on") < until,
        None => seed < HISTORIES,
    } {
        match world::live(seed, None, false) {
            Ok(report) => {
                total.takeovers += report.takeovers;
                total.completed += report.completed;
                total.resumed += report.resumed;
                total.superseded += report.superseded;
                total.interrupted += report.interrupted;
            }
            Err(rule) => failures.push(format!(
                "REPRODUCE: UNDERSTUDY_SEED={seed} cargo test --test engine every_history -- \
                 --nocapture\n{rule}"
            )),
        }
        seed += 1;
    }
    let few: Vec<_> = failures.iter().take(8).map(String::as_str).collect();
    assert!(few.is_empty(), "{} of {seed} histories:\n{}", failures.len(), few.join("\n\n"));
    println!("{seed} histories of {:?}: {total:?}", world::HISTORY);
    // A world in which nothing happens would keep all rules.
    let Report { takeovers, completed, resumed, superseded, interrupted, .. } = total;
    for (what, count) in [
        ("takeovers", takeovers),
        ("completed ones", completed),
        ("resumed ones", resumed),
        ("tenures that ended", superseded),
        ("interrupted ones", interrupted),
    ] {
        assert!(count > 10, "only {count} {what} in {seed} histories");
    }
}

#[test]
fn the_same_seed_lives_the_same_history() {
    for seed in 0..20 {
        let once = world::live(seed, None, false);
        assert_eq!(once, world::live(seed, None, false), "history {seed}");
    }
}
