//! What can go wrong between us and the store, in words for people and in kinds for code.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use crate::engine::observation::Token;

/// An operation on the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The configured certificate authorities cannot be read.
    #[error("failed to read the certificate authorities for Postgres in {path}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no certificate authority to trust.
    #[error("no certificate authority for Postgres in {place}: give one with store.tls.ca_file=")]
    NoCertificates {
        /// Where they were looked for.
        place: String,
    },
    /// TLS cannot be set up at all.
    #[error("failed to set up TLS for Postgres")]
    Tls(#[source] rustls::Error),

    /// The server is not one that may be written to, so what it says proves nothing.
    #[error("Postgres at {server} is {state}: it cannot be trusted for a decision")]
    NotWritable {
        /// The server.
        server: String,
        /// Why it does not accept writes.
        state: NotWritable,
    },
    /// `understudy setup` was never run there.
    #[error(
        "schema {schema:?} at {server} is not set up, or not readable: run `understudy setup` there"
    )]
    NotSetUp {
        /// The server.
        server: String,
        /// Name of understudy's schema.
        schema: String,
    },
    /// An older understudy set it up.
    #[error(
        "schema {schema:?} has version {found}, this understudy needs {needed}: run `understudy setup`"
    )]
    SchemaTooOld {
        /// Name of understudy's schema.
        schema: String,
        /// Version found.
        found: i32,
        /// Version of this binary.
        needed: i32,
    },
    /// A newer understudy set it up.
    #[error(
        "schema {schema:?} has version {found}, made by a newer understudy; this one knows {known}: \
         upgrade the package on this node"
    )]
    SchemaTooNew {
        /// Name of understudy's schema.
        schema: String,
        /// Version found.
        found: i32,
        /// Version of this binary.
        known: i32,
    },
    /// The group has no lease row.
    #[error("group {group:?} is unknown to the store: run `understudy setup`")]
    NoSuchGroup {
        /// The group.
        group: String,
    },
    /// The tenure is over: someone else has the group, or it was handed back.
    #[error("the tenure of group {group:?} with epoch {} is over: someone has taken it since", .token.epoch)]
    Superseded {
        /// The group.
        group: String,
        /// The token that was refused.
        token: Token,
    },
    /// Not every bot has exactly one row whose status can be set. Nothing was changed.
    #[error(
        "no status of group {group:?} was changed: {counted}; compare its bots= with the table"
    )]
    RowCount {
        /// The group.
        group: String,
        /// What was counted.
        counted: String,
    },

    /// Reading heartbeats and leases failed.
    #[error("failed to read leases and heartbeats")]
    Observe(#[source] Fault),
    /// Taking a group failed, or its outcome is unknown: ask again with the same nonce.
    #[error("failed to acquire group {group:?}; whether it was granted is not known")]
    Acquire {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Renewing a lease failed. Whether it was renewed is not known, and so it counts as not renewed.
    #[error("failed to renew the lease of group {group:?}")]
    Renew {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Handing a group over failed, or its outcome is unknown: ask again with the same token.
    #[error("failed to hand group {group:?} over; whether it was is not known")]
    HandOver {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Asking the holder of a group for something, or answering that, failed.
    #[error("failed to write a request to the holder of group {group:?}")]
    Request {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Telling the other nodes of a group that this one lives failed.
    #[error("failed to tell the other nodes that this one is here")]
    Members(#[source] Fault),
    /// Setting the status of a group's bots failed.
    #[error("failed to set the status of the bots of group {group:?}")]
    Flip {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Writing the history of a failover failed.
    #[error("failed to record a step of the failover of group {group:?}")]
    Record {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Giving the group back to its primary failed.
    #[error("failed to hand group {group:?} back")]
    HandBack {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Writing a hold failed.
    #[error("failed to hold group {group:?}")]
    Hold {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Ending a hold failed.
    #[error("failed to release group {group:?}")]
    Release {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Clearing the latch failed.
    #[error("failed to acknowledge the failovers of group {group:?}")]
    Acknowledge {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Reading the history failed.
    #[error("failed to read the history")]
    History(#[source] Fault),
    /// Reading or marking the store's alerts failed.
    #[error("failed to read or mark the alerts in the store")]
    Alerts(#[source] Fault),
    /// Setting up the schema failed. Nothing of it was kept.
    #[error("failed to set up schema {schema:?}; nothing was changed")]
    Setup {
        /// Name of understudy's schema.
        schema: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Writing a heartbeat failed.
    #[error("failed to write a heartbeat of {bot}")]
    Beat {
        /// The bot.
        bot: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// A heartbeat cannot be written into the table.
    #[error("no heartbeat can be written into {table}: {what}; see [heartbeats]")]
    BeatTable {
        /// The table.
        table: String,
        /// Why not.
        what: String,
    },
    /// Examining the store failed.
    #[error("failed to examine the store")]
    Inspect(#[source] Fault),
}

/// Why a server does not accept writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWritable {
    /// It is a standby, or recovering from a backup.
    Recovering,
    /// Its transactions are read-only.
    ReadOnly,
}

impl fmt::Display for NotWritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recovering => "in recovery (a standby, or being restored)",
            Self::ReadOnly => "read-only",
        })
    }
}

/// What to expect of a failed operation if it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No server answered in time. It may any moment.
    Unreachable,
    /// Servers answered, and none accepts writes. One may, after its own failover.
    NotWritable,
    /// It stays so until a person changes something: a password, a right, a name, the schema.
    Misconfigured,
    /// The server answered and refused for a reason of its own, such as a lock or a lost race.
    Refused,
}

impl StoreError {
    /// What to expect if it is tried again.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::CaFile { .. }
            | Self::NoCertificates { .. }
            | Self::Tls(_)
            | Self::NotSetUp { .. }
            | Self::SchemaTooOld { .. }
            | Self::SchemaTooNew { .. }
            | Self::BeatTable { .. }
            | Self::NoSuchGroup { .. } => ErrorKind::Misconfigured,
            Self::NotWritable { .. } => ErrorKind::NotWritable,
            Self::Superseded { .. } | Self::RowCount { .. } => ErrorKind::Refused,
            Self::Observe(_)
            | Self::Acquire { .. }
            | Self::Renew { .. }
            | Self::HandOver { .. }
            | Self::Request { .. }
            | Self::Members(_)
            | Self::Flip { .. }
            | Self::Record { .. }
            | Self::HandBack { .. }
            | Self::Hold { .. }
            | Self::Release { .. }
            | Self::Acknowledge { .. }
            | Self::History(_)
            | Self::Alerts(_)
            | Self::Setup { .. }
            | Self::Beat { .. }
            | Self::Inspect(_) => self.fault().map_or(ErrorKind::Refused, Fault::kind),
        }
    }

    /// Whether trying again is pointless until a person has changed something.
    #[must_use]
    pub fn is_misconfiguration(&self) -> bool {
        self.kind() == ErrorKind::Misconfigured
    }

    /// SQLSTATE that the server gave, if it was the server that failed it.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.fault().and_then(Fault::sqlstate).map(SqlState::code)
    }

    /// What happened to the call, if a call was made.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Observe(source)
            | Self::History(source)
            | Self::Alerts(source)
            | Self::Inspect(source)
            | Self::Members(source)
            | Self::Acquire { source, .. }
            | Self::Renew { source, .. }
            | Self::HandOver { source, .. }
            | Self::Request { source, .. }
            | Self::Flip { source, .. }
            | Self::Record { source, .. }
            | Self::HandBack { source, .. }
            | Self::Hold { source, .. }
            | Self::Release { source, .. }
            | Self::Acknowledge { source, .. }
            | Self::Beat { source, .. }
            | Self::Setup { source, .. } => Some(source),
            Self::CaFile { .. }
            | Self::NoCertificates { .. }
            | Self::Tls(_)
            | Self::NotWritable { .. }
            | Self::NotSetUp { .. }
            | Self::SchemaTooOld { .. }
            | Self::SchemaTooNew { .. }
            | Self::BeatTable { .. }
            | Self::NoSuchGroup { .. }
            | Self::Superseded { .. }
            | Self::RowCount { .. } => None,
        }
    }
}

/// What happened to one call. The text says everything there is, so it has no source of its own.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection to any of the configured servers.
    #[error("no connection: {}", join(.0))]
    Connect(Vec<Attempt>),
    /// Connected, but no answer in time.
    #[error("no answer from {server} within {limit:.1?}")]
    Timeout {
        /// The server.
        server: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The server failed the call, or the connection broke.
    #[error("{server}: {}", describe(.cause))]
    Query {
        /// The server.
        server: String,
        /// What it said.
        cause: tokio_postgres::Error,
    },
    /// The server answered something that this version does not understand.
    #[error("{server} gave an answer that makes no sense: {what}")]
    Answer {
        /// The server.
        server: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Fault {
    pub(super) fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Query { cause, .. } => cause.code(),
            Self::Connect(attempts) => attempts.iter().find_map(|attempt| match &attempt.why {
                AttemptFault::Refused(cause) => cause.code(),
                AttemptFault::Resolve(_) | AttemptFault::Timeout(_) | AttemptFault::ReadOnly => {
                    None
                }
            }),
            Self::Timeout { .. } | Self::Answer { .. } => None,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(attempts) => {
                // One wrong password is worth a person's time even if the other servers are down.
                let kinds = || attempts.iter().map(|attempt| attempt.why.kind());
                [ErrorKind::Misconfigured, ErrorKind::NotWritable, ErrorKind::Unreachable]
                    .into_iter()
                    .find(|kind| kinds().any(|other| other == *kind))
                    .unwrap_or(ErrorKind::Refused)
            }
            Self::Timeout { .. } => ErrorKind::Unreachable,
            Self::Query { cause, .. } => kind_of(cause),
            Self::Answer { .. } => ErrorKind::Misconfigured,
        }
    }
}

/// One try to connect to one address.
#[derive(Debug)]
pub struct Attempt {
    /// The server, as configured, with its address where that differs.
    pub server: String,
    /// Why it came to nothing.
    pub why: AttemptFault,
}

/// Why a try to connect came to nothing.
#[derive(Debug)]
pub enum AttemptFault {
    /// The name has no address.
    Resolve(io::Error),
    /// Nothing came of it in time.
    Timeout(Duration),
    /// Connected, but it accepts no writes.
    ReadOnly,
    /// Refused by the network, by TLS or by the server.
    Refused(tokio_postgres::Error),
}

impl AttemptFault {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Resolve(_) | Self::Timeout(_) => ErrorKind::Unreachable,
            Self::ReadOnly => ErrorKind::NotWritable,
            Self::Refused(cause) => kind_of(cause),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.server)?;
        match &self.why {
            AttemptFault::Resolve(cause) => write!(f, "the name does not resolve ({cause})"),
            AttemptFault::Timeout(limit) => write!(f, "no login within {limit:.1?}"),
            AttemptFault::ReadOnly => f.write_str("read-only, or in recovery"),
            AttemptFault::Refused(cause) => f.write_str(&describe(cause)),
        }
    }
}

/// SQLSTATE of a token that is not current.
pub(super) const NOT_CURRENT: &str = "UF001";
/// SQLSTATE of a flip that did not meet exactly the configured rows.
pub(super) const ROW_COUNT: &str = "UF003";

/// Whether the server is one that does not accept writes, by its SQLSTATE.
pub(super) fn says_read_only(cause: &tokio_postgres::Error) -> bool {
    cause.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// Whether the session is over after this error.
pub(super) fn ends_session(cause: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::Severity;
    match cause.as_db_error().map(DbError::parsed_severity) {
        Some(Some(Severity::Error)) => false,
        // Not an answer of the server at all, or its last one.
        None | Some(_) => true,
    }
}

fn kind_of(cause: &tokio_postgres::Error) -> ErrorKind {
    let Some(code) = cause.code() else {
        return if is_local_complaint(cause) {
            ErrorKind::Misconfigured
        } else {
            ErrorKind::Unreachable
        };
    };
    if says_read_only(cause) {
        return ErrorKind::NotWritable;
    }
    match code.code().get(..2) {
        // Login; database; schema; names, types and rights.
        Some("28" | "3D" | "3F" | "42") => ErrorKind::Misconfigured,
        // Connection; operator intervention and starting up; too many connections.
        Some("08" | "57" | "53") => ErrorKind::Unreachable,
        _ => ErrorKind::Refused,
    }
}

/// Whether it was this side that refused: a certificate that proves nothing, a server without TLS,
/// a server that wants a password where none is configured. Trouble of the network is an I/O error.
fn is_local_complaint(cause: &tokio_postgres::Error) -> bool {
    let Some(source) = std::error::Error::source(cause) else {
        return false;
    };
    match source.downcast_ref::<io::Error>() {
        None => true,
        Some(io) => matches!(
            io.get_ref().and_then(|inner| inner.downcast_ref()),
            Some(rustls::Error::InvalidCertificate(_))
        ),
    }
}

/// Everything that an error says, on one line, with its SQLSTATE.
fn describe(cause: &tokio_postgres::Error) -> String {
    if let Some(db) = cause.as_db_error() {
        let detail = db.detail().map(|detail| format!("; {detail}")).unwrap_or_default();
        return format!("{}{detail} (SQLSTATE {})", db.message(), db.code().code());
    }
    let mut text = cause.to_string();
    let mut source = std::error::Error::source(cause);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

fn join(attempts: &[Attempt]) -> String {
    attempts.iter().map(Attempt::to_string).collect::<Vec<_>>().join("; ")
}
