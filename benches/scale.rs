//! One daemon for one, ten, a hundred and a thousand groups of ten heartbeats each, read every second;
//! and a hundred groups that are taken over at once, as when their host died.
//!
//! The groups have a unit each and no Redis. The bare client of the second part starts as many units
//! over an open connection, which is what systemd needs for them.

#![allow(clippy::unwrap_used, reason = "a measurement whose surroundings fail has failed")]
#![allow(clippy::expect_used, reason = "the same")]
#![allow(clippy::print_stdout, reason = "its result")]
#![allow(clippy::print_stderr, reason = "its progress")]

mod common;
#[allow(dead_code, reason = "made for the tests, which need more of it")]
#[path = "../tests/real/support/mod.rs"]
mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use support::bus::Container;
use support::daemon::{Scene, Standby, comes_true, now};
use support::postgres::Postgres;
use understudy::adapters::systemd::Systemd;
use understudy::time::BootTime;

use common::{Cost, Report, number, number_before};

/// Heartbeats of a group.
const BOTS: usize = 10;

/// Groups that one host's death takes with it.
const AT_ONCE: usize = 100;

/// How long a daemon may take to find all groups fit.
const PATIENCE: Duration = Duration::from_secs(180);

fn main() {
    let span = Duration::from_secs(number("UNDERSTUDY_BENCH_SECONDS", 30));
    let heads = [
        "groups",
        "statement ms",
        "CPU %",
        "CPU % a group",
        "RSS MiB",
        "statements/s",
        "deadline → lease ms",
    ];
    let mut report = Report::new("scale", &heads);
    for groups in [1, 10, 100, 1_000] {
        let row = many(groups, span);
        report.row(&groups.to_string(), row.cells(groups));
        report.json(&groups.to_string(), row.json());
    }
    let (ours, bare) = at_once();
    report.note(format!(
        "{AT_ONCE} groups taken over at once: {ours:.0} ms from the first lease to the last unit active; \
         a bare client needs {bare:.0} ms to start as many units, ratio {:.2}.",
        ours / bare
    ));
    report.note(
        "Targets for 1,000 groups: at most 5 % of one processor, RSS at most 40 MiB, cost of a group \
         flat from 10 on."
            .to_owned(),
    );
    report.json("at_once_ms", json!({ "understudy": ours, "bare": bare }));
    report.finish();
}

struct Row {
    statement_ms: f64,
    load: f64,
    rss_kib: u64,
    statements: f64,
    late_ms: f64,
}

impl Row {
    fn cells(&self, groups: usize) -> Vec<String> {
        vec![
            format!("{:.2}", self.statement_ms),
            format!("{:.2}", self.load * 100.0),
            format!("{:.4}", self.load * 100.0 / groups as f64),
            format!("{:.1}", self.rss_kib as f64 / 1024.0),
            format!("{:.1}", self.statements),
            format!("{:.1}", self.late_ms),
        ]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "statement_ms": self.statement_ms, "load": self.load, "rss_kib": self.rss_kib,
            "statements_per_second": self.statements, "late_ms": self.late_ms,
        })
    }
}

fn many(groups: usize, span: Duration) -> Row {
    eprintln!("scale: {groups} groups, {} s", span.as_secs());
    let town = Town::new(groups);
    let pid = town.standby.pid().as_raw();
    town.wait_until_fit();
    let (before, asked_before) = (Cost::of(pid), town.asked());
    thread::sleep(span);
    let (after, asked) = (Cost::of(pid), town.asked());
    // Its last group dies, as the one that is looked at last.
    town.beats.silence(groups - 1);
    let words = "ms after the silence was long enough";
    assert!(comes_true(PATIENCE, || town.standby.has_logged(&[words])), "no takeover");
    Row {
        statement_ms: (asked.1 - asked_before.1) / (asked.0 - asked_before.0),
        load: after.load(&before),
        rss_kib: after.rss_kib,
        statements: (asked.0 - asked_before.0) / span.as_secs_f64(),
        late_ms: number_before(&town.standby.log(), words),
    }
}

/// Milliseconds until the units of all groups are active, and what a bare client takes for them.
fn at_once() -> (f64, f64) {
    eprintln!("scale: {AT_ONCE} groups at once");
    let town = Town::new(AT_ONCE);
    town.wait_until_fit();
    town.beats.silence_all();
    let words = "all units are active, ";
    let active = || town.standby.log().matches(words).count() == AT_ONCE;
    assert!(comes_true(PATIENCE, active), "not all were taken over");
    let log = town.standby.log();
    let at = |line: &str| humantime::parse_rfc3339(line.split(' ').next().unwrap()).unwrap();
    let first = log.lines().find(|line| line.contains("taking over with epoch")).map(at).unwrap();
    let last = log.lines().rfind(|line| line.contains(words)).map(at).unwrap();
    let ours = last.duration_since(first).unwrap().as_secs_f64() * 1e3;
    let units = town.units.clone();
    drop(town);
    let bus = Container::shared().bus;
    let mut systemd = Systemd::at(bus);
    let bare = now(async {
        systemd.connect().await.unwrap();
        let begun = BootTime::now();
        systemd.start(&units, Duration::from_secs(60)).await.unwrap();
        BootTime::now().since(begun).as_secs_f64() * 1e3
    });
    Container::shared().run(&["systemctl", "stop", "bench-scale@*.service"]);
    (ours, bare)
}

/// Many groups, their heartbeats, and one daemon.
struct Town {
    scene: Scene,
    standby: Standby,
    units: Vec<String>,
    beats: Beats,
}

impl Town {
    fn new(groups: usize) -> Self {
        let options = Postgres::options().set("shared_preload_libraries", "pg_stat_statements");
        let scene = Scene::with(options);
        scene.sql("CREATE EXTENSION pg_stat_statements");
        scene.sql(&format!(
            "INSERT INTO bot_status (id, bot_name, status, last_heartbeat, updated_at)
             SELECT n::text, format('bot-%s-%s', n / {BOTS}, n % {BOTS}), 'PRIMARY', NOW(), NOW()
               FROM generate_series(0, {} - 1) n; ANALYZE bot_status",
            groups * BOTS
        ));
        let container = Container::shared();
        let template = container.root.join("run/systemd/system/bench-scale@.service");
        fs::write(template, "[Service]\nExecStart=/bin/sleep infinity\n").unwrap();
        container.run(&["systemctl", "daemon-reload"]);
        let units: Vec<String> = (0..groups).map(|n| format!("bench-scale@{n}.service")).collect();
        let plan = scene.standby().without_redis().silent().one_bot();
        let mut standby = plan.set("watch.blind_after", "5m").ready();
        scene.sql("DELETE FROM bot_status WHERE bot_name = 'equity'");
        let model = standby.config["group"]["trading"].as_table().unwrap().clone();
        let mut tables = toml::Table::new();
        for (n, unit) in units.iter().enumerate() {
            let mut group = model.clone();
            let bots: Vec<String> = (0..BOTS).map(|bot| format!("bot-{n}-{bot}")).collect();
            group.insert("bots".to_owned(), bots.into());
            group.insert("units".to_owned(), vec![unit.clone()].into());
            tables.insert(format!("group-{n:04}"), group.into());
        }
        standby.config["group"] = tables.into();
        standby.write_config();
        standby.run(&["setup", "--user", "postgres"]).assert_code(0);
        standby.environment.push(("UNDERSTUDY_LOG".to_owned(), "info".to_owned()));
        let beats = Beats::start(&scene, groups);
        standby.start();
        Self { scene, standby, units, beats }
    }

    fn wait_until_fit(&self) {
        let fit = || {
            let status = self.standby.try_status();
            status.is_some_and(|status| {
                status.groups.iter().all(|group| {
                    group.verdict == "fresh" && group.not_ready_because == Some(Vec::new())
                })
            })
        };
        assert!(comes_true(PATIENCE, fit), "{:?}", self.standby.try_group());
    }

    /// Statements of the daemon so far, and the milliseconds that the server took for them.
    fn asked(&self) -> (f64, f64) {
        let query = "SELECT coalesce(sum(calls), 0), coalesce(sum(total_exec_time), 0)
            FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
            WHERE rolname = 'understudy' AND toplevel";
        let rows = now(self.scene.postgres.rows(query));
        (rows[0][0].parse().unwrap(), rows[0][1].parse().unwrap())
    }
}

/// Writes the heartbeats of all groups that live, twice a second.
struct Beats {
    shared: Arc<(Mutex<Vec<usize>>, AtomicBool)>,
    thread: Option<JoinHandle<()>>,
}

impl Beats {
    fn start(scene: &Scene, groups: usize) -> Self {
        let shared =
            Arc::new((Mutex::new((0..groups).collect::<Vec<_>>()), AtomicBool::new(false)));
        let session = scene.session();
        let at_work = shared.clone();
        let thread = thread::spawn(move || {
            while !at_work.1.load(Ordering::Relaxed) {
                let living = at_work.0.lock().unwrap().clone();
                if !living.is_empty() {
                    session.sql(&statement(&living));
                }
                thread::sleep(Duration::from_millis(500));
            }
        });
        Self { shared, thread: Some(thread) }
    }

    fn silence(&self, group: usize) {
        self.shared.0.lock().unwrap().retain(|living| *living != group);
    }

    fn silence_all(&self) {
        self.shared.0.lock().unwrap().clear();
    }
}

fn statement(living: &[usize]) -> String {
    let groups: Vec<_> = living.iter().map(usize::to_string).collect();
    format!(
        "UPDATE bot_status SET last_heartbeat = NOW() WHERE id::int / {BOTS} = ANY ('{{{}}}')",
        groups.join(",")
    )
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.shared.1.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
