//! The metrics: a table of all of them, and those that are counted while the daemon works.
//!
//! What can be read off the present state, such as the age of a heartbeat, is not kept here: it is
//! made from a snapshot when somebody asks (`web/scrape.rs`). Counting is an addition in memory, so
//! the loop may do it.
//!
//! To add one: a line in the table, and either a field of [`Metrics`] or a line in `web/scrape.rs`.
//! Tests then ask for `docs/metrics.md` to be written again (`UPDATE_EXPECT=1`), and compare the
//! table with what is really served.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric as Measured, Registry, Unit};

use crate::engine::plan::Step;

/// In front of every name.
pub const PREFIX: &str = "understudy";

/// Names and values of labels.
pub type Labels = Vec<(&'static str, String)>;

/// Bounds in seconds for what takes from milliseconds to minutes: steps of a takeover.
const STEP_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// Bounds in seconds for one read of the store.
const READ_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Kinds of metric, as OpenMetrics knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A count since the start of the process. Its samples end in `_total`.
    Counter,
    /// Counts by size. Its samples end in `_bucket`, `_sum` and `_count`.
    Histogram,
    /// Always 1; the labels say it. Its sample ends in `_info`.
    Info,
}

impl Kind {
    /// As in `# TYPE`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name without prefix, unit and ending.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Unit in the name, if it has one.
    pub unit: Option<&'static str>,
    /// Labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

impl Metric {
    /// Name of the family: with prefix and unit.
    #[must_use]
    pub fn family(&self) -> String {
        match self.unit {
            None => format!("{PREFIX}_{}", self.name),
            Some(unit) => format!("{PREFIX}_{}_{unit}", self.name),
        }
    }

    /// Names of its samples, as queries use them.
    #[must_use]
    pub fn samples(&self) -> Vec<String> {
        let endings: &[&str] = match self.kind {
            Kind::Gauge => &[""],
            Kind::Counter => &["_total"],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Info => &["_info"],
        };
        endings.iter().map(|ending| format!("{}{ending}", self.family())).collect()
    }

    /// The unit, as the library wants it.
    #[must_use]
    pub fn typed_unit(&self) -> Option<Unit> {
        self.unit.map(|unit| match unit {
            "seconds" => Unit::Seconds,
            "bytes" => Unit::Bytes,
            other => Unit::Other(other.to_owned()),
        })
    }
}

macro_rules! metrics {
    ($($id:ident, $name:literal, $kind:ident, $unit:expr, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// All of them, in the order of the manual.
        pub const ALL: &[&Metric] = &[$(&$id,)+];
    };
}

const SECONDS: Option<&str> = Some("seconds");
const BYTES: Option<&str> = Some("bytes");

metrics! {
    BUILD, "build", Info, None, ["version", "node"],
        "Version of the daemon and name of its node";
    STATE, "state", Gauge, None, ["group", "state"],
        "1 for the state that the group is in on this node, 0 for the others";
    PRIMARY, "primary", Gauge, None, ["group"],
        "1 while this node has the group and its takeover is complete";
    VERDICT, "verdict", Gauge, None, ["group", "verdict"],
        "1 for what is known of the heartbeats (fresh, stale or unknown), 0 for the others";
    HEARTBEAT_AGE, "heartbeat_age", Gauge, SECONDS, ["group", "bot"],
        "For how long this node has seen the heartbeat unchanged, by its own clock; absent while \
         unknown";
    HEARTBEAT_STALE_IN, "heartbeat_stale_in", Gauge, SECONDS, ["group", "bot"],
        "Time until the heartbeat is stale if it does not change; 0 if it is; absent while unknown";
    HEARTBEAT_DATABASE_AGE, "heartbeat_database_age", Gauge, SECONDS, ["group", "bot"],
        "Age of the heartbeat by the clock of the database; negative if in the future. Decides \
         nothing";
    WINDOW, "window", Gauge, SECONDS, ["group"],
        "How long a heartbeat must stay unchanged to be stale (timeout)";
    WINDOW_RESTARTS, "window_restarts", Counter, None, ["group"],
        "How often what was known of the heartbeats became void and a new window began";
    READ_AGE, "read_age", Gauge, SECONDS, ["group"],
        "Age of the last good read of the store; absent before the first";
    READY, "ready", Gauge, None, ["group"],
        "1 if this node could take over when last checked, else 0; absent where it has the group \
         or was not checked";
    BLOCKED, "blocked", Gauge, None, ["group"],
        "1 while something keeps this node from taking over if the heartbeats fell silent now: \
         hold, latch, cooldown, stopped on purpose, alerts only";
    HELD, "held", Gauge, None, ["group"],
        "1 while a person ordered not to act";
    HOLD_LEFT, "hold_left", Gauge, SECONDS, ["group"],
        "What is left of the hold; absent without one, or if it has no end";
    LATCHED, "latched", Gauge, None, ["group"],
        "1 while too many failovers keep the group until understudy ack";
    COOLDOWN_LEFT, "cooldown_left", Gauge, SECONDS, ["group"],
        "What is left of the cooldown; 0 without one";
    LEASE_EPOCH, "lease_epoch", Gauge, None, ["group"],
        "Fencing number of the lease, as last read";
    LEASE_AGE, "lease_age", Gauge, SECONDS, ["group"],
        "Time since the present epoch began, by the history; absent if it is not in the last \
         entries";
    LAST_FAILOVER, "last_failover_timestamp", Gauge, SECONDS, ["group"],
        "When a takeover of the group was last completed, as Unix time; absent if it is not in \
         the last entries of the history";
    REDIS_LAG, "redis_lag", Gauge, BYTES, ["group"],
        "What the replica on this node lacks; absent where it is not known";
    REDIS_LINK_UP, "redis_link_up", Gauge, None, ["group"],
        "1 while the replica on this node is connected to its master; absent on a master";
    REDIS_MASTER, "redis_master", Gauge, None, ["group"],
        "1 if Redis on this node is a master";
    REDIS_KEYS, "redis_keys", Gauge, None, ["group"],
        "Keys of Redis on this node";
    FAILOVERS, "failovers", Counter, None, ["group", "result"],
        "Takeovers by this process: begun, completed, degraded (stuck, a person was called), \
         refused (no lease), superseded (the group went elsewhere)";
    FAILOVER_SECONDS, "failover_duration", Histogram, SECONDS, ["group"],
        "From the lease to the heartbeats of the new primary";
    STEP_DURATION, "step_duration", Histogram, SECONDS, ["group", "step"],
        "How long the steps of takeovers took";
    STEP_FAILURES, "step_failures", Counter, None, ["group", "step"],
        "Attempts of steps that failed";
    SPLIT_BRAIN, "split_brain_signs", Counter, None, ["group", "sign"],
        "Signs that two copies may act: contested (this node holds the lease, somebody else runs \
         the bots), stop_failed (units here outlive the tenure)";
    STORE_READ, "store_read", Histogram, SECONDS, [],
        "How long good reads of the store took";
    STORE_ERRORS, "store_errors", Counter, None, ["kind"],
        "Reads of the store that failed: unreachable, not_writable, misconfigured, refused";
    HEALTH_SCORE, "health_score", Gauge, None, [],
        "Weighted mean of the checks, 0 to 100; absent while nothing was measured";
    CHECKS, "checks", Gauge, None, ["level"],
        "How many checks are green, yellow, red, or unknown (not measured yet)";
    CHECK_LEVEL, "check_level", Gauge, None, ["check", "check_group"],
        "0 if the check is green, 1 if yellow, 2 if red; absent if it was not measured yet";
    CHECK_VALUE, "check_value", Gauge, None, ["check", "check_group"],
        "Last number of the check, in its own unit; absent if it has none";
    CHECK_AGE, "check_age", Gauge, SECONDS, ["check", "check_group"],
        "Time since the check was last measured, or could not be";
    ALERTS, "alerts", Counter, None, ["channel", "result"],
        "What became of attempts to deliver alerts: delivered, failed (tried again), refused \
         (put aside), dropped (queue full)";
    ALERTS_UNDELIVERED, "alerts_undelivered", Gauge, None, [],
        "Alerts that are not delivered yet, refused ones included";
    WATCHDOG, "watchdog_notifications", Counter, None, [],
        "How often the watchdog of systemd was fed";
    SERVICE_RESTARTS, "service_restarts", Gauge, None, [],
        "How often systemd restarted the service by itself since it was last started by hand; \
         absent outside of systemd";
    LOOP_AGE, "loop_age", Gauge, SECONDS, [],
        "Time since the deciding loop last turned; it turns at least every second";
    CONFIGURATION_REFUSED, "configuration_refused", Gauge, None, [],
        "1 while the configuration on disk is not the one in use, because it has faults";
    START_TIME, "process_start_time", Gauge, SECONDS, [],
        "When the process started, as Unix time";
    RESIDENT_MEMORY, "process_resident_memory", Gauge, BYTES, [],
        "Memory of the process";
    CPU, "process_cpu", Counter, SECONDS, [],
        "Processor time of the process";
    HTTP_REQUESTS, "http_requests", Counter, None, ["route", "status"],
        "Requests that were answered here";
    HTTP_DROPPED, "http_connections_dropped", Counter, None, [],
        "Connections that were closed because newer ones needed the place";
    HTTP_LISTENING, "http_listening", Gauge, None, ["address"],
        "1 if the address is listened on, 0 if it cannot be";
}

/// Results of a takeover, for [`FAILOVERS`].
pub const RESULTS: [&str; 5] = ["begun", "completed", "degraded", "refused", "superseded"];

/// Signs of a split brain, for [`SPLIT_BRAIN`].
pub const SIGNS: [&str; 2] = ["contested", "stop_failed"];

/// Outcomes of an attempt to deliver an alert, for [`ALERTS`].
pub const DELIVERIES: [&str; 4] = ["delivered", "failed", "refused", "dropped"];

/// Kinds of errors of the store, for [`STORE_ERRORS`].
pub const ERRORS: [&str; 4] = ["unreachable", "not_writable", "misconfigured", "refused"];

type Counters = Family<Labels, Counter>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// What is counted. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    failovers: Counters,
    failover_seconds: Histograms,
    steps: Histograms,
    step_failures: Counters,
    split_brain: Counters,
    window_restarts: Counters,
    store_reads: Histogram,
    store_errors: Counters,
    alerts: Counters,
    watchdog: Counter,
    service_restarts: Arc<OnceLock<u32>>,
    http_requests: Counters,
    http_dropped: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let steps: fn() -> Histogram = || Histogram::new(STEP_SECONDS);
        let metrics = Self {
            failovers: Family::default(),
            failover_seconds: Family::new_with_constructor(steps),
            steps: Family::new_with_constructor(steps),
            step_failures: Family::default(),
            split_brain: Family::default(),
            window_restarts: Family::default(),
            store_reads: Histogram::new(READ_SECONDS),
            store_errors: Family::default(),
            alerts: Family::default(),
            watchdog: Counter::default(),
            service_restarts: Arc::default(),
            http_requests: Family::default(),
            http_dropped: Counter::default(),
        };
        for kind in ERRORS {
            drop(metrics.store_errors.get_or_create(&labels(&STORE_ERRORS, &[kind])));
        }
        metrics
    }
}

impl Metrics {
    /// A group is watched from now on. What never happens is shown as 0, so that its first time is a
    /// rise.
    pub fn watch(&self, group: &str) {
        for result in RESULTS {
            drop(self.failovers.get_or_create(&labels(&FAILOVERS, &[group, result])));
        }
        for sign in SIGNS {
            drop(self.split_brain.get_or_create(&labels(&SPLIT_BRAIN, &[group, sign])));
        }
        for step in Step::ALL {
            drop(self.step_failures.get_or_create(&labels(&STEP_FAILURES, &[group, step.name()])));
        }
        drop(self.window_restarts.get_or_create(&labels(&WINDOW_RESTARTS, &[group])));
    }

    /// Alerts are sent to a channel from now on.
    pub fn watch_channel(&self, channel: &str) {
        for result in DELIVERIES {
            drop(self.alerts.get_or_create(&labels(&ALERTS, &[channel, result])));
        }
    }

    /// A takeover began, or ended like this.
    pub fn failover(&self, group: &str, result: &'static str) {
        self.failovers.get_or_create(&labels(&FAILOVERS, &[group, result])).inc();
    }

    /// A takeover took so long.
    pub fn failover_took(&self, group: &str, took: Duration) {
        let labels = labels(&FAILOVER_SECONDS, &[group]);
        self.failover_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A step took so long.
    pub fn step(&self, group: &str, step: &str, took: Duration) {
        let labels = labels(&STEP_DURATION, &[group, step]);
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// An attempt of a step failed.
    pub fn step_failed(&self, group: &str, step: &str) {
        self.step_failures.get_or_create(&labels(&STEP_FAILURES, &[group, step])).inc();
    }

    /// Two copies may act.
    pub fn split_brain(&self, group: &str, sign: &'static str) {
        self.split_brain.get_or_create(&labels(&SPLIT_BRAIN, &[group, sign])).inc();
    }

    /// A window began again.
    pub fn window_restarted(&self, group: &str) {
        self.window_restarts.get_or_create(&labels(&WINDOW_RESTARTS, &[group])).inc();
    }

    /// A read of the store was good.
    pub fn store_read(&self, took: Duration) {
        self.store_reads.observe(took.as_secs_f64());
    }

    /// A read of the store failed.
    pub fn store_failed(&self, kind: &'static str) {
        self.store_errors.get_or_create(&labels(&STORE_ERRORS, &[kind])).inc();
    }

    /// An attempt to deliver an alert ended like this.
    pub fn alert(&self, channel: &str, result: &'static str) {
        self.alerts.get_or_create(&labels(&ALERTS, &[channel, result])).inc();
    }

    /// The watchdog was fed.
    pub fn watchdog_fed(&self) {
        self.watchdog.inc();
    }

    /// systemd restarted the service so often before this process.
    pub fn set_service_restarts(&self, restarts: u32) {
        // It is told once, and stays so.
        let _told_before = self.service_restarts.set(restarts);
    }

    /// How often that was, if it is known.
    #[must_use]
    pub fn service_restarts(&self) -> Option<u32> {
        self.service_restarts.get().copied()
    }

    /// A request was answered. Both labels are among few.
    pub fn http_request(&self, route: &'static str, status: u16) {
        let labels = labels(&HTTP_REQUESTS, &[route, &status.to_string()]);
        self.http_requests.get_or_create(&labels).inc();
    }

    /// A connection had to go.
    pub fn http_dropped(&self) {
        self.http_dropped.inc();
    }

    /// Puts all of them into a registry, which has [`PREFIX`].
    pub fn register(&self, registry: &mut Registry) {
        register(registry, &FAILOVERS, self.failovers.clone());
        register(registry, &FAILOVER_SECONDS, self.failover_seconds.clone());
        register(registry, &STEP_DURATION, self.steps.clone());
        register(registry, &STEP_FAILURES, self.step_failures.clone());
        register(registry, &SPLIT_BRAIN, self.split_brain.clone());
        register(registry, &WINDOW_RESTARTS, self.window_restarts.clone());
        register(registry, &STORE_READ, self.store_reads.clone());
        register(registry, &STORE_ERRORS, self.store_errors.clone());
        register(registry, &ALERTS, self.alerts.clone());
        register(registry, &WATCHDOG, self.watchdog.clone());
        register(registry, &HTTP_REQUESTS, self.http_requests.clone());
        register(registry, &HTTP_DROPPED, self.http_dropped.clone());
    }
}

fn register(registry: &mut Registry, metric: &Metric, measured: impl Measured) {
    match metric.typed_unit() {
        Some(unit) => registry.register_with_unit(metric.name, metric.help, unit, measured),
        None => registry.register(metric.name, metric.help, measured),
    }
}

/// The labels of a metric with their values, in the order of the table.
#[must_use]
pub fn labels(metric: &Metric, values: &[&str]) -> Labels {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let pairs = metric.labels.iter().zip(values);
    pairs.map(|(label, value)| (*label, (*value).to_owned())).collect()
}

/// The table for people, as `docs/metrics.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\nMade from `src/telemetry/metrics.rs`. Do not edit.\n\n\
         Served at `/metrics` in OpenMetrics; [http.md](http.md) says where and to whom. Units are \
         seconds and bytes.\nA metric without a value is left out rather than shown as 0. Counters \
         begin at 0 with each start of the\nprocess. Histograms have the samples `_bucket`, `_sum` \
         and `_count`.\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in ALL {
        let name = match metric.kind {
            Kind::Histogram => metric.family(),
            Kind::Gauge | Kind::Counter | Kind::Info => metric.samples().concat(),
        };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a string does not fail.
        let _written = writeln!(
            text,
            "| `{name}` | {} | {} | {}. |",
            metric.kind.name(),
            labels.join(", "),
            metric.help
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_manual_is_that_of_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, document(), "{} is old; run again with UPDATE_EXPECT=1", path.display());
    }

    #[test]
    fn names_are_unique_and_as_prometheus_wants_them() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.family()).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let name = metric.family();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            // The endings belong to the kinds and units, which add them.
            for ending in ["_total", "_info", "_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(ending), "{name}");
            }
            assert!(!metric.help.contains(['\n', '|', '\\']) && !metric.help.ends_with('.'));
        }
    }
}
