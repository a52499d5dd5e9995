//! The validated configuration of the monitoring.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use super::settings::{Redis, Store};
use crate::monitor::exposition::Selector;
use crate::monitor::tracker::Rule;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Monitoring {
    /// The checks, templates expanded.
    pub checks: Vec<Check>,
    /// The servers that checks ask, by name: those of `[server.NAME]`, the store as `store`, and the
    /// Redis of each group under the group's name.
    pub servers: BTreeMap<String, Server>,
    /// What becomes of what was measured.
    pub keeping: Keeping,
}

/// What becomes of what was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Whether it is kept in the store at all.
    pub enabled: bool,
    /// How often it is brought there.
    pub flush: Duration,
    /// How long samples are kept.
    pub samples: Duration,
    /// How long sums by the hour are kept.
    pub hours: Duration,
    /// How much is kept on disk while the store is away, in bytes.
    pub spool_bytes: u64,
}

impl Keeping {
    /// How long samples are kept, in whole days.
    #[must_use]
    pub fn days(&self) -> i32 {
        whole_days(self.samples)
    }

    /// How long sums by the hour are kept, in whole days.
    #[must_use]
    pub fn hours_days(&self) -> i32 {
        whole_days(self.hours)
    }
}

/// A day that has begun is kept whole.
fn whole_days(span: Duration) -> i32 {
    i32::try_from(span.as_secs().div_ceil(86_400)).unwrap_or(i32::MAX)
}

/// A server that checks ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// A Postgres. The name of understudy's schema means nothing here.
    Postgres(Store),
    /// A Redis. What is about replicas means nothing here.
    Redis(Redis),
}

/// One check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its name, with the item of its list behind a slash if it has one.
    pub name: String,
    /// What it belongs to.
    pub group: String,
    /// How often it is measured.
    pub interval: Duration,
    /// How long that may take.
    pub deadline: Duration,
    /// What decides about its level.
    pub rule: Rule,
    /// Name of the baseline that its conditions mean.
    pub baseline: String,
    /// How much it counts in the score.
    pub weight: u32,
    /// What to do about it: a link, or where to look.
    pub runbook: Option<String>,
    /// From which level on people are told.
    pub alert: AlertFrom,
    /// What is measured.
    pub probe: Probe,
}

/// From which level on people are told of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertFrom {
    /// Of yellow by a warning, of red by a critical alert.
    Yellow,
    /// Of red only.
    Red,
    /// Never; it is in the journal all the same.
    Never,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A number that a query returns.
    Postgres {
        /// Name of the server.
        server: String,
        /// The query.
        query: String,
    },
    /// Something about a Redis.
    Redis {
        /// Name of the server.
        server: String,
        /// Number of the database.
        database: u64,
        /// What.
        measure: RedisMeasure,
    },
    /// What an HTTP server answers.
    Http(Box<HttpProbe>),
    /// A unit of systemd.
    Unit {
        /// Its name.
        unit: String,
        /// What of it.
        measure: UnitMeasure,
    },
    /// What units write into the journal.
    Journal {
        /// The unit.
        unit: String,
        /// A regular expression that a message must match.
        pattern: String,
        /// What of it.
        measure: JournalMeasure,
    },
    /// This host.
    Host(HostMeasure),
    /// What a monitoring plugin says.
    Command {
        /// Program and arguments; no shell.
        command: Vec<String>,
        /// Label of the figure that is the check's number; the first if absent.
        figure: Option<String>,
    },
    /// A figure of a Prometheus server or of an exporter.
    Prometheus(Box<PrometheusProbe>),
}

impl Probe {
    /// As written in the configuration.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "postgres",
            Self::Redis { .. } => "redis",
            Self::Http(_) => "http",
            Self::Unit { .. } => "unit",
            Self::Journal { .. } => "journal",
            Self::Host(_) => "host",
            Self::Command { .. } => "command",
            Self::Prometheus(_) => "prometheus",
        }
    }
}

/// What is measured of a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisMeasure {
    /// A field of `INFO`.
    Field(String),
    /// How many keys match a pattern.
    Keys(String),
    /// The number in a key.
    Value(String),
    /// How many names are in one set and not in the other.
    Audit {
        /// The names that should be there.
        expect: KeySet,
        /// The names that are.
        actual: KeySet,
    },
}

/// A set of names in a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySet {
    /// The members of a key: of a set, a sorted set, a list, or the fields of a hash.
    Members(String),
    /// What stands for the `*` in the keys that match this pattern.
    Keys {
        /// What they begin with.
        prefix: String,
        /// What they end with.
        suffix: String,
    },
}

/// What an HTTP server is asked, and what of the answer counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Where. Secret, as it may hold a token.
    pub url: Secret,
    /// Whether it is a POST rather than a GET.
    pub post: bool,
    /// What is posted, as JSON.
    pub body: Option<String>,
    /// Sent as `Authorization: Bearer`, if there is one.
    pub token: Option<Secret>,
    /// Certificate authorities in PEM; `None` means those of the system.
    pub ca_file: Option<PathBuf>,
    /// Statuses, from and to, that are good.
    pub status: Vec<(u16, u16)>,
    /// What the body must contain.
    pub contains: Option<String>,
    /// What of it is the number.
    pub measure: HttpMeasure,
    /// Over what time rates and percentiles are made.
    pub window: Duration,
}

/// What of an HTTP server's answer is the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpMeasure {
    /// How long it took, in seconds.
    Latency,
    /// A percentile of that over the window.
    Percentile(u8),
    /// How many answers in the window were good, in percent.
    Success,
    /// Its status.
    Status,
    /// What is at a place in its JSON.
    Json {
        /// Names and numbers on the way there.
        path: Vec<String>,
        /// The text that it must be, if it is no number.
        expect: Option<String>,
    },
}

/// What is measured of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitMeasure {
    /// 1 if it is active, else 0.
    Active,
    /// How often systemd restarted it.
    Restarts,
    /// For how long it has been active, in seconds.
    Uptime,
    /// Memory of its processes, in bytes.
    Memory,
    /// Processor time of its processes, in percent of one processor.
    Cpu,
}

/// What is measured of messages in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalMeasure {
    /// How many there were within a span.
    Count(Duration),
    /// How old the newest is, in seconds, if there is one within a span.
    Age(Duration),
    /// How long after its start the unit wrote the first; while it has not, how long ago that was.
    AfterStart,
}

/// What is measured of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMeasure {
    /// Processor time in use, in percent of all processors.
    Cpu,
    /// Memory that is not available, in percent.
    Memory,
    /// Swap in use, in percent.
    Swap,
    /// Space in use in the file system of a path, in percent.
    Disk(PathBuf),
    /// Inodes in use there, in percent.
    Inodes(PathBuf),
    /// Load over a minute, for each processor.
    Load,
}

/// A figure of a Prometheus server, or of an exporter.
#[derive(Clone, Debug, PartialEq)]
pub struct PrometheusProbe {
    /// Where.
    pub url: Secret,
    /// Sent as `Authorization: Bearer`, if there is one.
    pub token: Option<Secret>,
    /// Certificate authorities in PEM; `None` means those of the system.
    pub ca_file: Option<PathBuf>,
    /// What is asked.
    pub ask: PrometheusAsk,
    /// What becomes of several samples.
    pub reduce: Reduce,
}

/// What is asked of a Prometheus server or an exporter.
#[derive(Clone, Debug, PartialEq)]
pub enum PrometheusAsk {
    /// An expression, of a server.
    Query(String),
    /// A metric, of an exporter.
    Metric(Selector),
}

/// What becomes of several samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The greatest.
    Max,
    /// The least.
    Min,
    /// All together.
    Sum,
    /// The mean.
    Mean,
    /// How many there are, which may be none.
    Count,
}
