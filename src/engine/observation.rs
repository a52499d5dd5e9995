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

/// Random identity of a tenure. An epoch can be granted twice after the store was restored from a
/// backup; the pair (epoch, nonce) cannot, and is compared for equality only.
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
    /// The nodes of a paired group, as they last said of themselves; none in observed mode.
    #[serde(default)]
    pub members: Vec<Member>,
    /// The newest order to hand the group over that is not carried out yet.
    #[serde(default)]
    pub request: Option<Request>,
}

/// A node of a paired group, by its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub node: String,
    /// Counts its reports. A node whose count moves is there; what clocks say of it means nothing.
    pub beat: u64,
    /// Whether it could run the group.
    pub ready: bool,
    /// Why not.
    pub problems: Vec<String>,
    /// The order that it is prepared for: it waits for nothing but the lease.
    pub prepared_for: Option<Nonce>,
}

/// An order to hand a group over to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its identity.
    pub id: Nonce,
    /// Why there is one.
    pub kind: RequestKind,
    /// It is about this tenure and no later one.
    pub from_epoch: Epoch,
    /// The node that is to have the group; `None` if the holder may choose.
    pub target: Option<String>,
    /// Who asked, and why.
    pub by: String,
    /// The reason that was given.
    pub reason: String,
    /// Whether the holder is at it: the target gets ready.
    pub announced: bool,
}

/// Why a group is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RequestKind {
    /// A person wants it elsewhere; nothing may be lost.
    Switchover,
    /// The holder cannot run it any more.
    HandOver,
}

impl RequestKind {
    /// Its name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::HandOver => "hand_over",
        }
    }
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Fencing number of the present tenure.
    pub epoch: Epoch,
    /// Node that has the group; `None` if nobody has.
    pub holder: Option<String>,
    /// Identity of the present tenure; `None` for a primary without an understudy of its own.
    pub nonce: Option<Nonce>,
    /// Counts the renewals of the present tenure.
    pub seq: u64,
    /// The holder's units are dead this long after its last renewal, whatever happens to it; zero if
    /// nobody renews, as in observed mode.
    #[serde(default)]
    pub ttl: Duration,
    /// Whom the last holder left the group to; only while nobody has it.
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
