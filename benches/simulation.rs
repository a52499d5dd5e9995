//! How many histories of the small world, with the real engine, one minute holds.
//!
//! The same world as in `tests/engine/simulation.rs`: two standby nodes, a store, an operator, faults,
//! and the rules checked at every turn. Each history is some minutes of a cluster's life.

#![allow(clippy::unwrap_used, reason = "a measurement whose surroundings fail has failed")]
#![allow(clippy::expect_used, reason = "the same")]
#![allow(clippy::print_stdout, reason = "its result")]
#![allow(clippy::print_stderr, reason = "its progress")]
#![allow(clippy::manual_is_multiple_of, reason = "as in the tests that it shares")]
#![allow(clippy::wildcard_enum_match_arm, reason = "the same")]
#![allow(dead_code, unused_imports, reason = "made for the tests, which need more of it")]

mod common;
#[path = "../tests/engine/mutants.rs"]
mod mutants;
#[path = "../tests/engine/support.rs"]
mod support;
#[path = "../tests/engine/trace.rs"]
mod trace;
#[path = "../tests/engine/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use understudy::time::BootTime;

use common::{Report, number};

/// As in performance.md of the design: enough to try much in the time of a coffee.
const HISTORIES_A_MINUTE_MIN: f64 = 10_000.0;

fn main() {
    let span = Duration::from_secs(number("UNDERSTUDY_BENCH_SECONDS", 20));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    eprintln!("simulation: {} s on {threads} threads", span.as_secs());
    let (seed, begun) = (AtomicU64::new(1_000_000), BootTime::now());
    let lived = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while BootTime::now().since(begun) < span {
                    let seed = seed.fetch_add(1, Ordering::Relaxed);
                    if let Err(rule) = world::live(seed, None, false) {
                        panic!("UNDERSTUDY_SEED={seed}: {rule}");
                    }
                    lived.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let lived = lived.into_inner();
    let rate = lived as f64 / BootTime::now().since(begun).as_secs_f64() * 60.0;
    let mut report = Report::new("simulation", &["", "histories", "a minute", "target"]);
    let cells = [lived.to_string(), format!("{rate:.0}"), format!("{HISTORIES_A_MINUTE_MIN:.0}")];
    report.row(&format!("small world, {threads} threads"), cells.to_vec());
    report.json("histories", json!(lived));
    report.json("histories_a_minute", json!(rate));
    report.finish();
}
