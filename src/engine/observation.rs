//! What one successful read of the store said.
//!
//! A read that failed, or that reached a store which cannot be trusted (read-only, in recovery,
//! another server than before) is not an observation; it is an event of its own and proves nothing.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Fencing number of a tenure: grows by one each time the group changes hands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random identity, of a tenure before all. An epoch can be granted twice after the store was restored
/// from a backup; the pair (epoch, nonce) cannot, and is compared for equality only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Nonce(pub u128);

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.to_string()
    }
}

impl TryFrom<String> for Nonce {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Proof of a tenure, for everything that is done in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// Fencing number.
    pub epoch: Epoch,
    /// Identity.
    pub nonce: Nonce,
}

/// Which store answered. Two observations can belong to one window only if these are equal.
///
/// The adapter puts into it whatever changes when the server is another one or started again:
/// system identifier, timeline, start of the postmaster, uuid of our schema, and the number of our
/// own connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreIdentity(pub String);

/// One read of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Which store answered.
    pub store: StoreIdentity,
    /// When it answered, by the store's own clock, as opaque text. Only the store compares it: it
    /// refuses an acquisition whose evidence is too old.
    pub seen_at: String,
    /// The group's lease.
    pub lease: Lease,
    /// One entry for each configured bot, in the order of the configuration.
    pub bots: Vec<Bot>,
    /// The nodes of the group as they say of themselves, by name; none in observed mode.
    #[serde(default)]
    pub members: Vec<Member>,
    /// What the holder was asked to do and nobody has finished yet.
    #[serde(default)]
    pub request: Option<Box<PendingRequest>>,
}

/// The row of a bot in the heartbeat table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bot {
    /// There is no row of that name.
    Missing,
    /// There are several.
    Duplicate {
        /// How many.
        rows: usize,
    },
    /// There is one, with no heartbeat in it.
    Null {
        /// What its status column says.
        status: String,
    },
    /// There is one with a heartbeat.
    Beat {
        /// The heartbeat as text. It is compared for equality and never interpreted.
        value: String,
        /// What its status column says.
        status: String,
        /// Its age in milliseconds by the store's clock, negative if in the future. For people;
        /// nothing is decided by it.
        age_ms: Option<i64>,
    },
}

impl Bot {
    /// What its row says, for a person who reads a recording.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Missing => "no row".to_owned(),
            Self::Duplicate { rows } => format!("{rows} rows"),
            Self::Null { status } => format!("no heartbeat ({status})"),
            Self::Beat { value, status, .. } => format!("{value} ({status})"),
        }
    }
}

/// The group's lease, and what operators have said about the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Fencing number of the present tenure.
    pub epoch: Epoch,
    /// Node that has the group; `None` if nobody has.
    pub holder: Option<String>,
    /// Identity of the present tenure; `None` for a primary without an understudy of its own.
    pub nonce: Option<Nonce>,
    /// Counts the renewals of the present tenure.
    pub seq: u64,
    /// The holder's units are dead so long after its last renewal, in real time. Zero: it does not
    /// renew, as in observed mode. What the last holder had, if nobody has the group.
    #[serde(default)]
    pub ttl: Duration,
    /// Node that the last holder handed the group over to, which has not taken it yet.
    #[serde(default)]
    pub offered_to: Option<String>,
    /// A person said: do not act.
    pub hold: Option<Hold>,
    /// Too many automatic failovers; a person has to look first.
    pub latched: bool,
    /// What is left of the cooldown, by the store's clock, when this was read.
    pub cooldown_left: Option<Duration>,
}

/// A person's order not to act on a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who said so.
    pub by: String,
    /// And why.
    pub reason: String,
    /// What is left of it when this was read; `None` if it has no end.
    pub left: Option<Duration>,
}

/// On what ground a node asks for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Its holder is silent. The only one in observed mode.
    #[default]
    Silent,
    /// Nobody has it.
    Free,
    /// This node has it, and goes on with a new tenure.
    Again,
    /// It was handed over to this node.
    Offer,
}

impl Way {
    /// As in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Free => "free",
            Self::Again => "again",
            Self::Offer => "offer",
        }
    }
}

/// A node of a group, as it says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub node: String,
    /// Identity of one run of its daemon. Two that take turns are two hosts with one name.
    pub incarnation: Nonce,
    /// Grows with each report of one incarnation. A node is alive if it changes.
    pub beat: u64,
    /// Highest epoch that it has ever seen of the group.
    pub max_epoch: Epoch,
    /// Its version of understudy.
    pub version: String,
    /// Whether it could run the group now.
    pub ready: bool,
    /// Why not.
    pub problems: Vec<String>,
    /// Request that it is prepared to be the target of.
    pub prepared_for: Option<Nonce>,
    /// How long it watches silence before it takes over.
    pub window: Duration,
    /// How old the report is, in milliseconds by the store's clock. For people; nothing is decided by
    /// it.
    pub age_ms: i64,
}

/// Something that a holder was asked to do, and that nobody has finished yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRequest {
    /// Identity.
    pub id: Nonce,
    /// What.
    pub kind: RequestKind,
    /// The holder of this epoch was asked. If another one has begun, the request is void.
    pub from_epoch: Epoch,
    /// To which node; `None` for whichever is best.
    pub target: Option<String>,
    /// Who asked.
    pub by: String,
    /// And why.
    pub reason: String,
    /// Whether the holder said that it has begun.
    pub announced: bool,
}

/// What a holder can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A person wants another node to have the group.
    Switchover,
    /// The holder cannot run the group any more and wants another node to.
    HandOver,
}

impl RequestKind {
    /// As in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::HandOver => "hand_over",
        }
    }
}
