//! What the daemon costs while nothing happens, with one group of two bots, Redis and two units.
//!
//! `UNDERSTUDY_BENCH_SECONDS=3600` makes it a soak: the memory of the last quarter is compared with
//! that of the second, which shows a leak.

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
use support::daemon::Scene;
use support::postgres::Postgres;
use understudy::time::BootTime;

use common::{Cost, Report, number};

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the daemon settles in: connections, buffers, the first checks.
const SETTLE: Duration = Duration::from_secs(10);

fn main() {
    let span = Duration::from_secs(number("UNDERSTUDY_BENCH_SECONDS", 60));
    let heads = [
        "interval",
        "RSS MiB",
        "own MiB",
        "threads",
        "files",
        "CPU s/h",
        "wake-ups/s",
        "statements/min",
        "growth KiB/h",
    ];
    let mut report = Report::new("footprint", &heads);
    for (interval, timeout) in [("10s", "60s"), ("1s", "3s")] {
        idle(&mut report, span, interval, timeout);
    }
    report
        .note("Targets at an interval of 10 s: RSS at most 12 MiB, at most 2 CPU s/h.".to_owned());
    report.finish();
}

fn idle(report: &mut Report, span: Duration, interval: &str, timeout: &str) {
    eprintln!("footprint: interval {interval}, {} s", span.as_secs());
    let options = Postgres::options().set("shared_preload_libraries", "pg_stat_statements");
    let scene = Scene::with(options);
    scene.sql("CREATE EXTENSION pg_stat_statements");
    let plan = scene.standby().set("watch.interval", interval).set("watch.timeout", timeout);
    let standby = plan.set("watch.blind_after", "2m").running();
    let pid = standby.pid().as_raw();
    let statements = || -> f64 {
        let query = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s
            JOIN pg_roles r ON r.oid = s.userid WHERE rolname = 'understudy'";
        scene.value(query).parse().unwrap()
    };
    thread::sleep(SETTLE);
    let (before, asked_before, begun) = (Cost::of(pid), statements(), BootTime::now());
    let mut memory = Vec::new();
    while BootTime::now().since(begun) < span {
        memory.push(Cost::of(pid).rss_kib as f64);
        thread::sleep(LOOK_EVERY);
    }
    let (after, asked) = (Cost::of(pid), statements() - asked_before);
    let minutes = BootTime::now().since(begun).as_secs_f64() / 60.0;
    let quarter = memory.len() / 4;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let grown = mean(&memory[memory.len() - quarter..]) - mean(&memory[quarter..2 * quarter]);
    let growth = grown / (minutes / 60.0 / 2.0);
    let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
    let cpu = after.load(&before) * 3600.0;
    let wakeups = after.wakeups_a_second(&before);
    report.row(
        &format!("{interval}, timeout {timeout}"),
        vec![
            mib(after.rss_kib),
            mib(after.anonymous_kib),
            after.threads.to_string(),
            after.files.to_string(),
            format!("{cpu:.1}"),
            format!("{wakeups:.1}"),
            format!("{:.0}", asked / minutes),
            format!("{growth:.0}"),
        ],
    );
    report.json(interval, json!({
        "rss_kib": after.rss_kib, "anonymous_kib": after.anonymous_kib, "threads": after.threads,
        "files": after.files, "cpu_s_per_hour": cpu, "wakeups_per_second": wakeups,
        "statements_per_minute": asked / minutes, "growth_kib_per_hour": growth,
    }));
}
