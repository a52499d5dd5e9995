//! The validated configuration. Whoever holds a [`Settings`] need not check anything again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::monitoring::Monitoring;
use super::secret::Secret;
use super::template::Template;

pub use super::timers::PairedTimers;

/// Everything that the process was told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this node in the lease, in alerts and in the history. Default: the host's name.
    pub node: String,
    /// Where tenures and undelivered alerts are kept across restarts.
    pub state_dir: PathBuf,
    /// Where the control socket and the units' environment files are.
    pub runtime_dir: PathBuf,
    /// Pace of watching, common to all groups because one statement reads them all.
    pub watch: Watch,
    /// Timers of all groups in paired mode.
    pub paired: PairedTimers,
    /// Postgres.
    pub store: Store,
    /// Where the status page, the metrics and the API are served.
    pub http: Http,
    /// Where alerts go besides the journal, by name.
    pub channels: Vec<Channel>,
    /// Who is to notice when this node falls silent, if anybody.
    pub dead_man: Option<DeadMan>,
    /// What fails over, by name.
    pub groups: Vec<Group>,
    /// What is measured besides.
    pub monitoring: Monitoring,
}

/// Pace of watching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Time between two reads of the store. A read is made earlier when a heartbeat would become
    /// stale earlier. With a group in paired mode at most `renew`.
    pub interval: Duration,
    /// How long one read may take before it counts as failed.
    pub reply_timeout: Duration,
    /// How long a group may be unknown before a person is called.
    pub blind_after: Duration,
}

/// How to reach Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Tried in order until one is writable.
    pub hosts: Vec<Host>,
    /// Name of the database.
    pub database: String,
    /// Role that the daemon logs in as.
    pub user: String,
    /// Its password, if it has one.
    pub password: Option<Secret>,
    /// Whether the connection is encrypted, and whom it trusts.
    pub tls: Tls,
    /// Schema for understudy's own tables.
    pub schema: String,
    /// How long a new connection may take, login included.
    pub connect_timeout: Duration,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// For Postgres the directory of the socket and the port in its name; for Redis the socket.
    Unix(PathBuf, u16),
}

/// Whether a connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not encrypted.
    Off,
    /// Encrypted, and the server's certificate is checked against its name.
    Verify {
        /// Certificate authorities in PEM; `None` means those of the system.
        ca_file: Option<PathBuf>,
    },
}

/// How the status page, the metrics and the API are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where to listen; nowhere if empty.
    pub listen: Vec<Listen>,
    /// Names in addition to the host's own by which browsers and scrapers may call it.
    pub hosts: Vec<String>,
    /// What a client must know, if anything.
    pub token: Option<Secret>,
    /// Certificate and key, if TCP connections are encrypted.
    pub tls: Option<Identity>,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listen {
    /// An address of this host.
    Tcp(SocketAddr),
    /// A socket in the file system, for the daemon's user and group.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this host can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a server proves who it is with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Certificates in PEM, the server's own first.
    pub certificate_file: PathBuf,
    /// Its private key in PEM.
    pub key_file: PathBuf,
}

/// A call at an interval that says "understudy is at work here". Its absence is the alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadMan {
    /// Where to. Secret, as such addresses often carry a token.
    pub url: Secret,
    /// How often.
    pub every: Duration,
    /// How.
    pub method: PingMethod,
    /// Certificate authorities in PEM; `None` means those of the system.
    pub ca_file: Option<PathBuf>,
}

/// How a dead-man's ping is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingMethod {
    /// HTTP GET.
    Get,
    /// HTTP POST without a body.
    Post,
}

/// Where alerts go besides the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Name in messages, and of its directory in the outbox.
    pub name: String,
    /// Alerts below this are not sent there.
    pub min_severity: Severity,
    /// A thing that comes and goes is told a few times; then it is told once in so long, with what
    /// happened meanwhile counted. Zero tells everything.
    pub fold_within: Duration,
    /// If set, only critical alerts go there, and only those that were neither acknowledged nor
    /// resolved for so long.
    pub escalate_after: Option<Duration>,
    /// What it is.
    pub kind: ChannelKind,
}

/// Kinds of channel. Addresses are secret, as they often carry a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// JSON by HTTP POST.
    Webhook {
        /// Where to, and how.
        endpoint: Endpoint,
        /// What to send instead of the alert's own JSON.
        body: Option<Template>,
        /// Key of the signature, if it is signed.
        secret: Option<Secret>,
    },
    /// An incoming webhook of Slack.
    Slack(Endpoint),
    /// A webhook of Discord.
    Discord(Endpoint),
    /// Events API v2 of PagerDuty.
    PagerDuty {
        /// Where to, and how.
        endpoint: Endpoint,
        /// Integration key of the service.
        routing_key: Secret,
    },
    /// API v2 of Alertmanager.
    Alertmanager(Endpoint),
    /// E-mail by SMTP.
    Email(Email),
    /// A program that gets the alert on its standard input.
    Command {
        /// Program and arguments; no shell.
        command: Vec<String>,
    },
}

impl ChannelKind {
    /// As written in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack(_) => "slack",
            Self::Discord(_) => "discord",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Alertmanager(_) => "alertmanager",
            Self::Email(_) => "email",
            Self::Command { .. } => "command",
        }
    }

    /// Whether the other side keeps what it is told until it is told that it is over.
    #[must_use]
    pub const fn keeps_incidents(&self) -> bool {
        matches!(self, Self::PagerDuty { .. } | Self::Alertmanager(_))
    }

    /// Whether people read every message there, so that the same news of many groups is one.
    #[must_use]
    pub const fn is_read_by_people(&self) -> bool {
        matches!(self, Self::Slack(_) | Self::Discord(_) | Self::Email(_))
    }
}

/// Where a channel is reached by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to.
    pub url: Secret,
    /// Sent as `Authorization: Bearer`, if there is one.
    pub token: Option<Secret>,
    /// Certificate authorities in PEM; `None` means those of the system.
    pub ca_file: Option<PathBuf>,
}

/// How e-mail is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub encryption: Encryption,
    /// Certificate authorities in PEM; `None` means those of the system.
    pub ca_file: Option<PathBuf>,
    /// User and password to log in with, if the server wants that.
    pub login: Option<(String, Secret)>,
    /// Sender.
    pub from: String,
    /// Who gets it.
    pub to: Vec<String>,
}

/// How a connection for e-mail is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Begun in the clear, and encrypted before anything is said. Without it nothing is sent.
    StartTls,
    /// From the first byte on.
    Tls,
    /// Not at all.
    Off,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Someone should look today.
    Warning,
    /// Someone should look now.
    Critical,
}

impl Severity {
    /// As written in the configuration and in alerts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What fails over together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Name in the lease, in messages and in commands.
    pub name: String,
    /// Set if understudy runs on all nodes of the group and fences them; `None` is observed mode, in
    /// which it runs on the standby only.
    pub paired: Option<Paired>,
    /// What to call the primary's node as long as understudy has not acted. In paired mode the first
    /// of the nodes.
    pub primary: String,
    /// Where its heartbeats are.
    pub heartbeats: Heartbeats,
    /// Names of its bots in the heartbeat table.
    pub bots: Vec<String>,
    /// How many of the bots must be stale for the group to be.
    pub stale: Quorum,
    /// How long a heartbeat must stay unchanged to be stale.
    pub timeout: Duration,
    /// systemd units to start, all at once.
    pub units: Vec<String>,
    /// Least time between two automatic failovers, counted from attempts.
    pub cooldown: Duration,
    /// So many automatic failovers within `latch_window` latch the group until `understudy ack`.
    pub latch_after: u32,
    /// See `latch_after`.
    pub latch_window: Duration,
    /// The operator accepts that, in observed mode without a required fence, a primary which is
    /// alive but cut off goes on running. Without it or such a fence, understudy only alerts.
    pub accept_dual_active: bool,
    /// Redis of the group on this node, if it has one.
    pub redis: Option<Redis>,
    /// Command that makes sure the old primary is dead, if there is one.
    pub fence: Option<Fence>,
    /// How long the units may take to become active.
    pub start_deadline: Duration,
    /// How long they must then stay active, with the same main process.
    pub settle: Duration,
    /// How long the first heartbeat of the new primary may take.
    pub heartbeat_deadline: Duration,
}

impl Group {
    /// Whether understudy may take over by itself. In paired mode the other node fences itself.
    #[must_use]
    pub fn automatic(&self) -> bool {
        let fenced = self.fence.as_ref().is_some_and(|fence| fence.required);
        self.paired.is_some() || self.accept_dual_active || fenced
    }
}

/// What only a group in paired mode has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paired {
    /// Every node of the group, this one among them, in order of preference.
    pub nodes: Vec<String>,
    /// What the holder does when the store does not answer any more.
    pub on_store_loss: OnStoreLoss,
}

/// What the holder of a group does when its lease cannot be renewed, as the store does not answer. A
/// renewal that is refused always fences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnStoreLoss {
    /// Stops its units in time, so that another node may start them.
    Fence,
    /// Goes on. If another node still reaches the store it takes over, and two are active.
    Hold,
}

/// How many bots of a group must be stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quorum {
    /// One is enough.
    Any,
    /// Every one.
    All,
}

/// Table and columns of the heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeats {
    /// Table, with its schema.
    pub table: Table,
    /// Column with the bot's name.
    pub name_column: String,
    /// Column that changes with each heartbeat.
    pub beat_column: String,
    /// Column with the bot's status.
    pub status_column: String,
    /// What the status becomes when this node takes over.
    pub primary_status: String,
    /// A status that means "stopped on purpose": no automatic failover.
    pub stopped_statuses: Vec<String>,
}

/// A table's qualified name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// Schema.
    pub schema: String,
    /// Table.
    pub name: String,
}

/// How to reach a group's Redis, and when its data are good enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// The replica on this node.
    pub address: Host,
    /// What it must be a replica of. Its lag is sampled there while it lives.
    pub primary: Option<Host>,
    /// In paired mode, where each node's Redis is for the other nodes; else empty.
    pub nodes: BTreeMap<String, Host>,
    /// ACL user; `None` means the default user.
    pub user: Option<String>,
    /// Password, if it has one.
    pub password: Option<Secret>,
    /// Whether the connection is encrypted, and whom it trusts.
    pub tls: Tls,
    /// How far the replica may have been behind when last sampled, in bytes.
    pub max_lag_bytes: u64,
    /// How long its link to the primary may have been down.
    pub max_link_down: Duration,
    /// Whether an empty data set may be promoted.
    pub allow_empty: bool,
    /// How long one call may take.
    pub call_timeout: Duration,
}

/// Command that makes sure the old primary is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// Whether the failover stops if it does not succeed.
    pub required: bool,
    /// How long it may take.
    pub deadline: Duration,
}
