//! What is said over the control socket: one line of JSON each way. Also the schema of
//! `understudy status --json`.
//!
//! Fields are only ever added; `version` grows if one changes its meaning.

use serde::{Deserialize, Serialize};

use crate::engine::explain::Explanation;
use crate::engine::liveness::Verdict;
use crate::engine::snapshot::{BotView, Snapshot};
use crate::monitor::health::Health;

/// Version of what is said.
pub const VERSION: u32 = 1;

/// A question to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Request {
    /// How is it?
    Status,
    /// Why would a group be taken over now, or not?
    Explain {
        /// Its name.
        group: String,
    },
    /// Take a group over.
    Failover {
        /// Its name.
        group: String,
        /// Although its heartbeats are not silent.
        force: bool,
        /// Who asks, as the command line found out; for the history.
        by: String,
        /// And why.
        reason: String,
    },
    /// What do the checks say?
    Health,
    /// Somebody has seen alerts.
    Acknowledge {
        /// Those about this group.
        group: Option<String>,
        /// Those whose id begins so.
        id: Option<String>,
        /// Who, as the command line found out.
        by: String,
    },
}

/// An answer of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Response {
    /// How it is.
    Status(Status),
    /// Why, or why not.
    Explanation(Explanation),
    /// What the checks say.
    Health(Health),
    /// It is being done.
    Accepted {
        /// In words.
        text: String,
    },
    /// It is not.
    Refused {
        /// Why, and what to do.
        text: String,
    },
}

/// The daemon at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this schema.
    pub version: u32,
    /// Version of the daemon.
    pub daemon: String,
    /// Its process id.
    pub pid: u32,
    /// Name of this node.
    pub node: String,
    /// Where the configuration came from.
    pub configuration: String,
    /// Why the configuration on disk is not the one in use, if it was refused.
    pub configuration_refused: Option<String>,
    /// How the daemon has been running, in seconds.
    pub uptime_s: u64,
    /// Whether the first read of the store has ended, well or not.
    #[serde(default)]
    pub started: bool,
    /// Alerts that were not delivered yet, refused ones included.
    pub undelivered_alerts: u64,
    /// Where alerts go, in the order of the configuration.
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// Alerts about what is neither over nor looked at.
    #[serde(default)]
    pub open_alerts: Vec<OpenAlert>,
    /// Where the status page, the metrics and the API are served.
    #[serde(default)]
    pub http: Vec<HttpListener>,
    /// The groups, in the order of the configuration.
    pub groups: Vec<Group>,
}

/// An address that HTTP is to be served at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpListener {
    /// Address, or path of a socket.
    pub address: String,
    /// Why it is not, if it is not.
    pub fault: Option<String>,
}

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Alerts that are to be delivered.
    pub pending: u64,
    /// Those of them that are critical.
    pub critical: u64,
    /// Alerts that are in memory only, as the disk does not take them.
    pub in_memory: u64,
    /// Since when the oldest of them waits (RFC 3339).
    pub oldest: Option<String>,
    /// Alerts that are sent only if nobody reacts in time.
    pub escalating: u64,
    /// Alerts that the channel refused for good.
    pub refused: u64,
    /// Alerts that a full queue has lost since the daemon was started.
    pub lost: u64,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
}

/// An alert about something that is not over, or that nobody has looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAlert {
    /// Identity of the last alert about it.
    pub id: String,
    /// Its event.
    pub event: String,
    /// Its group, if it is about one.
    pub group: Option<String>,
    /// warning or critical.
    pub severity: String,
    /// Since when (RFC 3339).
    pub since: String,
    /// In one line.
    pub summary: String,
    /// Who has looked at it.
    pub acknowledged_by: Option<String>,
}

/// A group on this node at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Name.
    pub name: String,
    /// State of the failover machine: standby, checking, acquiring, promoting, degraded, active,
    /// interrupted or stopping.
    pub state: String,
    /// The situation in one sentence.
    pub summary: String,
    /// fresh, stale or unknown.
    pub verdict: String,
    /// Why it is unknown.
    pub unknown_because: Option<String>,
    /// Node that has the group, as last read.
    pub holder: Option<String>,
    /// Epoch of the lease, as last read.
    pub epoch: Option<u64>,
    /// Highest epoch that this node knows of. The store forgot a tenure if its own is lower.
    #[serde(default)]
    pub max_epoch: u64,
    /// Age of the last good read, in milliseconds.
    pub read_ago_ms: Option<u64>,
    /// How long a heartbeat must stay unchanged to be stale, in milliseconds.
    #[serde(default)]
    pub timeout_ms: u64,
    /// The bots.
    pub bots: Vec<Bot>,
    /// A person's order not to act.
    pub hold: Option<Hold>,
    /// Whether too many automatic failovers latched the group.
    pub latched: bool,
    /// What is left of the cooldown, in milliseconds.
    pub cooldown_left_ms: Option<u64>,
    /// Why a takeover would not happen if the heartbeats became silent now.
    pub blocked_because: Option<String>,
    /// Why this node could not take over when last checked; empty if it could, absent if it was not
    /// checked yet or has the group.
    pub not_ready_because: Option<Vec<String>>,
    /// The takeover under way, or the one that made this node active.
    pub takeover: Option<Takeover>,
    /// Why the last takeover did not begin.
    pub last_refusal: Option<String>,
    /// Redis on this node, in words, if the group has one.
    pub redis: Option<String>,
    /// The same in figures.
    #[serde(default)]
    pub redis_figures: Option<RedisFigures>,
    /// The units and their states.
    pub units: Vec<Unit>,
    /// The other nodes of a group in paired mode, the preferred ones first.
    #[serde(default)]
    pub other_nodes: Vec<OtherNode>,
    /// In paired mode, how long ago the lease was seen to change, renewals included, in milliseconds.
    #[serde(default)]
    pub renewed_ago_ms: Option<u64>,
}

/// Another node of a group in paired mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherNode {
    /// Name.
    pub name: String,
    /// How long ago it was last heard of, in milliseconds; absent if it was not.
    pub heard_ago_ms: Option<u64>,
    /// Why it could not run the group, by its own words; absent if it could, or has the group.
    pub not_ready_because: Option<Vec<String>>,
}

/// Redis on this node in figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedisFigures {
    /// master or replica.
    pub role: String,
    /// Whether a replica is connected to its master; absent on a master.
    pub link_up: Option<bool>,
    /// What a replica lacks, in bytes; absent if it is not known.
    pub lag_bytes: Option<u64>,
    /// Keys in all databases.
    pub keys: u64,
}

/// A bot at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bot {
    /// Name.
    pub name: String,
    /// Status column.
    pub status: Option<String>,
    /// Age of the heartbeat by the database's clock, in milliseconds; negative if in the future.
    /// Nothing is decided by it.
    pub age_ms: Option<i64>,
    /// For how long this node has seen no change, in milliseconds.
    pub unchanged_ms: Option<u64>,
    /// When it becomes stale if nothing changes, in milliseconds.
    pub stale_in_ms: Option<u64>,
}

/// A person's order not to act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What was left of it when last read, in milliseconds; absent if it has no end.
    pub left_ms: Option<u64>,
}

/// A takeover.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Takeover {
    /// Epoch.
    pub epoch: u64,
    /// automatic or operator.
    pub cause: String,
    /// Step under way.
    pub step: Option<String>,
    /// Why it is stuck.
    pub fault: Option<String>,
    /// Whether an attempt of the step is under way, rather than waited for.
    #[serde(default)]
    pub trying: bool,
    /// Steps that are done.
    pub done: Vec<DoneStep>,
}

/// A step that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoneStep {
    /// Name.
    pub step: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Name.
    pub name: String,
    /// State, in words.
    pub state: String,
}

impl Status {
    /// What becomes of it in a while without any news: what has an age is older, what is left of
    /// something is less.
    #[must_use]
    pub fn aged(mut self, by: std::time::Duration) -> Self {
        let by = millis(by);
        let older = |age: &mut Option<u64>| {
            if let Some(age) = age {
                *age = age.saturating_add(by);
            }
        };
        let less = |left: &mut Option<u64>| {
            if let Some(left) = left {
                *left = left.saturating_sub(by);
            }
        };
        self.uptime_s += by / 1_000;
        for group in &mut self.groups {
            older(&mut group.read_ago_ms);
            older(&mut group.renewed_ago_ms);
            for other in &mut group.other_nodes {
                older(&mut other.heard_ago_ms);
            }
            less(&mut group.cooldown_left_ms);
            for bot in &mut group.bots {
                older(&mut bot.unchanged_ms);
                less(&mut bot.stale_in_ms);
            }
        }
        self
    }
}

impl Group {
    /// The group as the engine sees it; the rest is filled in by the daemon.
    #[must_use]
    pub fn new(name: &str, snapshot: Snapshot) -> Self {
        let (verdict, unknown_because) = match snapshot.verdict {
            Verdict::Fresh => ("fresh", None),
            Verdict::Stale => ("stale", None),
            Verdict::Unknown(cause) => ("unknown", Some(cause.to_string())),
        };
        Self {
            name: name.to_owned(),
            state: snapshot.kind.name().to_owned(),
            summary: snapshot.sentence,
            verdict: verdict.to_owned(),
            unknown_because,
            holder: snapshot.holder,
            epoch: snapshot.epoch.map(|epoch| epoch.0),
            max_epoch: snapshot.max_epoch.0,
            read_ago_ms: snapshot.read_ago.map(millis),
            bots: snapshot.bots.into_iter().map(Bot::new).collect(),
            hold: snapshot.hold.map(|hold| Hold {
                by: hold.by,
                reason: hold.reason,
                left_ms: hold.left.map(millis),
            }),
            latched: snapshot.latched,
            cooldown_left_ms: snapshot.cooldown_left.map(millis),
            blocked_because: snapshot.blocker,
            not_ready_because: snapshot.problems,
            takeover: snapshot.takeover.map(|takeover| Takeover {
                epoch: takeover.epoch.0,
                cause: takeover.cause.name().to_owned(),
                step: takeover.step.map(|step| step.name().to_owned()),
                fault: takeover.fault,
                trying: takeover.trying,
                done: takeover
                    .done
                    .into_iter()
                    .map(|(step, took)| DoneStep {
                        step: step.name().to_owned(),
                        took_ms: millis(took),
                    })
                    .collect(),
            }),
            last_refusal: snapshot.refusal,
            timeout_ms: millis(snapshot.timeout),
            redis: None,
            redis_figures: None,
            units: Vec::new(),
            renewed_ago_ms: snapshot.renewed_ago.map(millis),
            other_nodes: snapshot
                .others
                .into_iter()
                .map(|other| OtherNode {
                    name: other.name,
                    heard_ago_ms: other.heard_ago.map(millis),
                    not_ready_because: (!other.ready).then_some(other.problems),
                })
                .collect(),
        }
    }
}

impl Bot {
    fn new(view: BotView) -> Self {
        Self {
            name: view.name,
            status: view.status,
            age_ms: view.age_ms,
            unchanged_ms: view.unchanged_for.map(millis),
            stale_in_ms: view.stale_in.map(millis),
        }
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
