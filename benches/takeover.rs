//! How long a takeover takes, on real parts, against a bare client that makes the same calls.
//!
//! `scripts/bench takeover` runs it and docs/performance.md has its figures. It measures two things:
//!
//! - from the instant at which the silence is long enough to the lease, with a timeout of 3 s and an
//!   interval of 1 s: one daemon for each sample, each with a Redis and a unit of its own;
//! - from the decision to both units active, in turns with a client that does the least that anybody
//!   must do for the same effect, over connections that are open already.
//!
//! Both sides see the same Postgres, Redis and systemd, at the same time, on the same machine.

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

use futures_util::StreamExt;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_postgres::Client;
use understudy::time::BootTime;
use zbus::MessageStream;

use common::{Figures, Report, number, number_before};
use support::bus::Container;
use support::daemon::{Scene, Standby, until};
use support::redis::Redis;

/// Samples of the detection; each is a daemon.
const DETECTIONS: usize = 24;

/// Runs of each side, unless `UNDERSTUDY_BENCH_RUNS` says otherwise.
const RUNS: u64 = 50;

/// What the lease may take after the deadline.
const LATE_MAX_MS: f64 = 50.0;

/// What a takeover may take, in times of what the bare client takes.
const RATIO_MAX: f64 = 1.5;

fn main() {
    let detection = detection();
    let Compared { daemon, bare, steps } = takeover();
    let ratios = [daemon.median / bare.median, daemon.p99 / bare.p99];
    let mut heads = vec!["milliseconds"];
    heads.extend(Figures::HEADS);
    let mut report = Report::new("takeover", &heads);
    report.row("silence long enough → lease acquired", detection.cells());
    report.row("decision → both units active, understudy", daemon.cells());
    report.row("the same calls by a bare client, in turns with it", bare.cells());
    let [median, p99] = ratios.map(|ratio| format!("{ratio:.2}"));
    report.row("ratio", vec![String::new(), median, p99, String::new(), String::new()]);
    report.note(format!("Steps, median milliseconds after the decision: {}.", steps.join(", ")));
    report.note(format!(
        "Targets: lease within {LATE_MAX_MS} ms at p99: {}; ratio of medians within {RATIO_MAX}: {}.",
        met(detection.p99 <= LATE_MAX_MS),
        met(ratios[0] <= RATIO_MAX)
    ));
    report.json("detection_ms", detection.json());
    report.json("takeover_ms", daemon.json());
    report.json("bare_ms", bare.json());
    report.json("ratio_of_medians", json!(ratios[0]));
    report.json("ratio_of_p99", json!(ratios[1]));
    report.finish();
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

// ---- how soon the lease is had ----

fn detection() -> Figures {
    eprintln!("detection: {DETECTIONS} daemons");
    let scene = Scene::new();
    let standbys: Vec<Standby> = (0..DETECTIONS)
        .map(|number| {
            let bot = format!("bot-{number}");
            let plan = scene.standby().node(&format!("node-{number}"));
            plan.group(&format!("group-{number}"), &[&bot]).watching()
        })
        .collect();
    for standby in &standbys {
        scene.silence(standby);
        // One after the other, and at no fixed phase of the second: a host has one primary to lose.
        thread::sleep(Duration::from_millis(633));
    }
    let late = standbys.iter().map(|standby| {
        let words = "ms after the silence was long enough";
        standby.wait_for_log(&[words]);
        number_before(&standby.log(), words)
    });
    Figures::of(late.collect())
}

// ---- how fast it is then ----

struct Compared {
    daemon: Figures,
    bare: Figures,
    steps: Vec<String>,
}

fn takeover() -> Compared {
    let runs = number("UNDERSTUDY_BENCH_RUNS", RUNS);
    eprintln!("takeover: {runs} runs of each side");
    let scene = Scene::new();
    // Alerts, and leaves the rest to us.
    let mut standby = scene.standby().silent().set("group.accept_dual_active", false).ready();
    // On a tmpfs, as where systemd makes it.
    let outside = Container::shared().root.join("run/understudy-bench");
    std::fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, standby.path("run")).unwrap();
    for unit in &standby.units {
        unit.rewrite(&format!(
            "[Service]\nEnvironmentFile=-/run/understudy-bench/{}.env\nExecStart=/bin/sleep infinity\n",
            standby.group
        ));
    }
    Container::shared().run(&["systemctl", "daemon-reload"]);
    standby.start();
    standby.wait_for_state("standby");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut bare = runtime.block_on(Bare::new(&scene, &standby));
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for run in 0..runs {
        floor.push(bare.run(&runtime));
        bare.stop_units(&runtime);
        back_in_line(&scene, standby.redis());
        ours.push(take_over(&standby, run));
        back_in_line(&scene, standby.redis());
        // Not in step with anything that happens every second.
        thread::sleep(Duration::from_millis(37 * (run % 6)));
    }
    Compared { daemon: Figures::of(ours), bare: Figures::of(floor), steps: steps(&scene) }
}

/// How long after the decision each step began, and what it took.
fn steps(scene: &Scene) -> Vec<String> {
    let query = "SELECT step, percentile_cont(0.5) WITHIN GROUP (ORDER BY after_ms)::text,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY took_ms)::text
        FROM understudy.event WHERE after_ms IS NOT NULL AND step <> 'finish'
        GROUP BY step ORDER BY avg(after_ms)";
    let rows = support::daemon::now(scene.postgres.rows(query));
    rows.iter().map(|row| format!("{} at +{} in {}", row[0], row[1], row[2])).collect()
}

fn take_over(standby: &Standby, run: u64) -> f64 {
    let words = "ms after the decision";
    let seen = standby.log().matches(words).count();
    let begun = BootTime::now();
    let group = standby.group();
    assert_eq!(group.epoch, Some(2 * run), "{}", group.summary);
    let socket = standby.path("run");
    let ask = async {
        let request = understudy::control::protocol::Request::Failover {
            group: standby.group.clone(),
            force: true,
            by: "bench".to_owned(),
            reason: String::new(),
        };
        understudy::control::ask(&socket, &request).await.unwrap()
    };
    support::daemon::now(ask);
    until("the units to be active", || standby.log().matches(words).count() > seen);
    let took = number_before(&standby.log(), words);
    assert!(Duration::from_secs_f64(took / 1e3) <= BootTime::now().since(begun));
    standby.run(&["failback", "--force"]).assert_code(0);
    let epoch = Some(2 * run + 2);
    standby.wait_for("the end of the takeover", |group| {
        group.state == "standby" && group.epoch == epoch
    });
    took
}

/// Makes the promoted Redis a replica again.
fn back_in_line(scene: &Scene, replica: &Redis) {
    replica.run::<String>(&format!("REPLICAOF 127.0.0.1 {}", scene.redis.port));
    replica.wait_until_in_sync();
}

// ---- the floor ----

/// A client with open connections that makes the calls of a takeover and nothing else.
struct Bare {
    store: Client,
    redis: redis::aio::MultiplexedConnection,
    bus: zbus::Connection,
    units: Vec<String>,
    bots: Vec<String>,
    epoch: i64,
}

impl Bare {
    async fn new(scene: &Scene, standby: &Standby) -> Self {
        let store = scene.postgres.client().await;
        store
            .batch_execute(
                "CREATE TABLE bare_lease (grp text PRIMARY KEY, epoch bigint NOT NULL, holder text);
                 INSERT INTO bare_lease VALUES ('bare', 0, 'alpha')",
            )
            .await
            .unwrap();
        let address = format!("redis://127.0.0.1:{}", standby.redis().port);
        let redis = redis::Client::open(address).unwrap();
        let redis = redis.get_multiplexed_async_connection().await.unwrap();
        let address = Container::shared().bus;
        let bus = zbus::connection::Builder::address(&*address).build().await.unwrap();
        manager(&bus, "Subscribe", &()).await;
        let units = standby.units.iter().map(support::bus::Unit::name).collect();
        let bots = standby.bots.clone();
        Self { store, redis, bus, units, bots, epoch: 0 }
    }

    /// Milliseconds from the decision to both units active.
    fn run(&mut self, runtime: &Runtime) -> f64 {
        runtime.block_on(async {
            let mut removed = self.jobs_removed().await;
            let begun = BootTime::now();
            self.acquire().await;
            self.promote().await;
            self.flip().await;
            self.manage_units("StartUnit", &mut removed).await;
            for unit in &self.units {
                assert_eq!(active_state(&self.bus, unit).await, "active");
            }
            BootTime::now().since(begun).as_secs_f64() * 1e3
        })
    }

    fn stop_units(&mut self, runtime: &Runtime) {
        runtime.block_on(async {
            let mut removed = self.jobs_removed().await;
            self.manage_units("StopUnit", &mut removed).await;
        });
    }

    /// The ends of jobs from now on.
    async fn jobs_removed(&self) -> MessageStream {
        let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
        MessageStream::for_match_rule(rule, &self.bus, None).await.unwrap()
    }

    async fn acquire(&mut self) {
        let statement = "UPDATE bare_lease SET epoch = epoch + 1, holder = 'bravo'
            WHERE grp = 'bare' AND epoch = $1 RETURNING epoch";
        self.epoch = self.store.query_one(statement, &[&self.epoch]).await.unwrap().get(0);
    }

    async fn promote(&mut self) {
        let mut call = redis::cmd("REPLICAOF");
        call.arg("NO").arg("ONE").exec_async(&mut self.redis).await.unwrap();
        let role: redis::Value = redis::cmd("ROLE").query_async(&mut self.redis).await.unwrap();
        assert!(format!("{role:?}").contains("master"));
        let mut call = redis::cmd("SET");
        call.arg("bare").arg(self.epoch).exec_async(&mut self.redis).await.unwrap();
        let mut call = redis::cmd("GET");
        let found: i64 = call.arg("bare").query_async(&mut self.redis).await.unwrap();
        assert_eq!(found, self.epoch);
        let mut call = redis::cmd("CONFIG");
        call.arg("REWRITE").exec_async(&mut self.redis).await.unwrap();
    }

    async fn flip(&self) {
        let statement = "UPDATE bot_status SET status = 'PRIMARY' WHERE bot_name = ANY ($1)";
        let flipped = self.store.execute(statement, &[&self.bots]).await.unwrap();
        assert_eq!(flipped, 2);
    }

    /// Queues a job for each unit, and waits until all have ended.
    async fn manage_units(&self, method: &str, removed: &mut MessageStream) {
        let mut jobs = Vec::new();
        for unit in &self.units {
            let answer = manager(&self.bus, method, &(unit, "replace")).await;
            let job: zbus::OwnedObjectPath = answer.body().deserialize().unwrap();
            jobs.push(job);
        }
        while !jobs.is_empty() {
            let message = removed.next().await.unwrap().unwrap();
            let body = message.body();
            let (_, ended, _, result): (u32, zbus::OwnedObjectPath, String, String) =
                body.deserialize().unwrap();
            assert_eq!(result, "done");
            jobs.retain(|job| *job != ended);
        }
    }
}

async fn manager<B>(bus: &zbus::Connection, method: &str, body: &B) -> zbus::Message
where
    B: serde::Serialize + zbus::DynamicType,
{
    let (systemd, path) = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1");
    let interface = "org.freedesktop.systemd1.Manager";
    bus.call_method(Some(systemd), path, Some(interface), method, body).await.unwrap()
}

async fn active_state(bus: &zbus::Connection, unit: &str) -> String {
    let answer = manager(bus, "GetUnit", &unit).await;
    let path: zbus::OwnedObjectPath = answer.body().deserialize().unwrap();
    let (systemd, interface) = ("org.freedesktop.systemd1", "org.freedesktop.DBus.Properties");
    let wanted = ("org.freedesktop.systemd1.Unit", "ActiveState");
    let answer =
        bus.call_method(Some(systemd), &path, Some(interface), "Get", &wanted).await.unwrap();
    let body = answer.body();
    let state: zbus::Variant<'_> = body.deserialize().unwrap();
    String::try_from(state).unwrap()
}
