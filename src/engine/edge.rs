//! Every way from one state to another, with its reason.
//!
//! The reason is data: the log, `STATUS=`, the history and `docs/failover.md` say the same
//! sentence. A test compares this table with the edges that are really taken, both ways.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The states of a group on this node, without what belongs to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Another node has the group, or nobody; its heartbeats are watched.
    Standby,
    /// About to take over; checking that this node can.
    Checking,
    /// The store was asked for the lease.
    Acquiring,
    /// This node has the lease and goes through the steps.
    Promoting,
    /// This node has the lease, and a step does not succeed. A person was called.
    Degraded,
    /// This node has the group and its bots beat.
    Active,
    /// This node has the lease, but its takeover stopped too long ago to go on without looking.
    Interrupted,
    /// This node is giving the group to another one.
    HandingOver,
    /// This node's tenure is over; the units here are being stopped.
    Stopping,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Standby,
        Self::Checking,
        Self::Acquiring,
        Self::Promoting,
        Self::Degraded,
        Self::Active,
        Self::Interrupted,
        Self::HandingOver,
        Self::Stopping,
    ];

    /// Its name in `status`, in the journal and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Checking => "checking",
            Self::Acquiring => "acquiring",
            Self::Promoting => "promoting",
            Self::Degraded => "degraded",
            Self::Active => "active",
            Self::Interrupted => "interrupted",
            Self::HandingOver => "handing_over",
            Self::Stopping => "stopping",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Standby => "watching the heartbeats of the primary",
            Self::Checking => "checking that this node can take over",
            Self::Acquiring => "asking the store for the lease",
            Self::Promoting => "taking over",
            Self::Degraded => "holds the lease, but a step of the takeover does not succeed",
            Self::Active => "this node has the group",
            Self::Interrupted => {
                "holds the lease of a takeover that was interrupted; watching first"
            }
            Self::HandingOver => "giving the group to another node",
            Self::Stopping => "the tenure of this node is over; stopping the units here",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A way from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// From this state.
    pub from: Kind,
    /// To this one.
    pub to: Kind,
    /// For this reason.
    pub why: Why,
}

/// Reasons to change state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Why {
    /// The window is full of silence.
    Silent,
    /// An operator asked.
    Asked,
    /// The silence ended, or the group was blocked, while this node was checked.
    CalledOff,
    /// The check found something.
    NotReady,
    /// The check found nothing.
    Ready,
    /// The store said no.
    Refused,
    /// The store did not say.
    NoAnswer,
    /// The store granted the lease.
    Granted,
    /// The lease turned out to be ours, and the takeover is young enough to go on.
    Resumed,
    /// The lease turned out to be ours, and the takeover was complete.
    Adopted,
    /// The lease turned out to be ours, and the takeover is too old to go on at once.
    Old,
    /// Nobody else beats.
    NobodyElse,
    /// A step failed again and again.
    StepFailed,
    /// A degraded step succeeded after all.
    Mended,
    /// Every bot beats.
    Complete,
    /// The lease belongs to a later tenure.
    Superseded,
    /// The units are stopped.
    Stopped,
    /// The store forgot our tenure, and an operator says that it goes on.
    Reclaimed,
    /// The guard is gone, and with it the lease.
    GuardGone,
    /// The last holder left the group to this node.
    Offered,
    /// The lease names this node, and its old tenure is over.
    Again,
    /// The units here do not run any more, and another node could run them.
    Failing,
    /// The units here do not run any more, and no other node could run them.
    NoPeer,
    /// The group stays here after all.
    Undone,
    /// The lease was given away.
    Given,
}

impl Why {
    /// The sentence for it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Silent => "the heartbeats were silent for a whole window",
            Self::Asked => "an operator asked for it",
            Self::CalledOff => {
                "the silence ended, or the group was blocked, before the lease was asked for"
            }
            Self::NotReady => "this node could not run the group now",
            Self::Ready => "this node can run the group",
            Self::Refused => "the store refused the lease",
            Self::NoAnswer => {
                "the store did not answer; the lease is read again before anything else"
            }
            Self::Granted => "the store granted the lease",
            Self::Resumed => {
                "the lease is this node's, from a takeover that had just begun; going on with it"
            }
            Self::Adopted => {
                "the lease is this node's, from a completed takeover; adopting what runs"
            }
            Self::Old => {
                "the lease is this node's, but from a takeover that stopped long ago; somebody \
                 else may have started the bots since, so a whole window of silence comes first"
            }
            Self::NobodyElse => "nobody else runs the bots; going on with the takeover",
            Self::StepFailed => "a step does not succeed; a person was called",
            Self::Mended => "the step succeeded after all; going on",
            Self::Complete => "every bot beats; the takeover is complete",
            Self::Superseded => "a later tenure began elsewhere; the units here must not run",
            Self::Stopped => "the units here are stopped; watching the group again",
            Self::Reclaimed => {
                "the store forgot that this node has the group, and an operator says that it has"
            }
            Self::GuardGone => {
                "the guard of the lease is gone; systemd stops the units, and this node sees to it"
            }
            Self::Offered => "the last holder left the group to this node, which is ready",
            Self::Again => {
                "the lease names this node, whose last tenure is over; nobody else can have begun one"
            }
            Self::Failing => "the units here do not recover, and another node is ready for them",
            Self::NoPeer => {
                "the units here do not recover, and no other node is ready; starting them once more"
            }
            Self::Undone => "the group could not be handed over; it goes on here",
            Self::Given => "another node can have the group now",
        }
    }
}

const fn edge(from: Kind, to: Kind, why: Why) -> Edge {
    Edge { from, to, why }
}

/// Every way there is.
pub const EDGES: [Edge; 50] = [
    edge(Kind::Standby, Kind::Checking, Why::Silent),
    edge(Kind::Standby, Kind::Checking, Why::Asked),
    edge(Kind::Standby, Kind::Promoting, Why::Resumed),
    edge(Kind::Standby, Kind::Active, Why::Adopted),
    edge(Kind::Standby, Kind::Interrupted, Why::Old),
    edge(Kind::Checking, Kind::Standby, Why::CalledOff),
    edge(Kind::Checking, Kind::Standby, Why::NotReady),
    edge(Kind::Checking, Kind::Acquiring, Why::Ready),
    edge(Kind::Acquiring, Kind::Standby, Why::Refused),
    edge(Kind::Acquiring, Kind::Standby, Why::NoAnswer),
    edge(Kind::Acquiring, Kind::Promoting, Why::Granted),
    edge(Kind::Interrupted, Kind::Promoting, Why::NobodyElse),
    edge(Kind::Interrupted, Kind::Promoting, Why::Asked),
    edge(Kind::Promoting, Kind::Degraded, Why::StepFailed),
    edge(Kind::Promoting, Kind::Active, Why::Complete),
    edge(Kind::Degraded, Kind::Promoting, Why::Mended),
    edge(Kind::Degraded, Kind::Active, Why::Complete),
    edge(Kind::Promoting, Kind::Stopping, Why::Superseded),
    edge(Kind::Degraded, Kind::Stopping, Why::Superseded),
    edge(Kind::Active, Kind::Stopping, Why::Superseded),
    edge(Kind::Interrupted, Kind::Stopping, Why::Superseded),
    edge(Kind::Standby, Kind::Stopping, Why::Superseded),
    edge(Kind::Stopping, Kind::Standby, Why::Stopped),
    edge(Kind::Checking, Kind::Promoting, Why::Resumed),
    edge(Kind::Checking, Kind::Active, Why::Adopted),
    edge(Kind::Checking, Kind::Interrupted, Why::Old),
    edge(Kind::Standby, Kind::Acquiring, Why::Reclaimed),
    edge(Kind::Promoting, Kind::Acquiring, Why::Reclaimed),
    edge(Kind::Degraded, Kind::Acquiring, Why::Reclaimed),
    edge(Kind::Active, Kind::Acquiring, Why::Reclaimed),
    edge(Kind::Interrupted, Kind::Acquiring, Why::Reclaimed),
    edge(Kind::Standby, Kind::Acquiring, Why::Again),
    edge(Kind::Standby, Kind::Acquiring, Why::Offered),
    edge(Kind::Standby, Kind::Checking, Why::Offered),
    edge(Kind::Standby, Kind::Stopping, Why::GuardGone),
    edge(Kind::Checking, Kind::Stopping, Why::GuardGone),
    edge(Kind::Promoting, Kind::Stopping, Why::GuardGone),
    edge(Kind::Degraded, Kind::Stopping, Why::GuardGone),
    edge(Kind::Active, Kind::Stopping, Why::GuardGone),
    edge(Kind::HandingOver, Kind::Stopping, Why::GuardGone),
    edge(Kind::HandingOver, Kind::Stopping, Why::Superseded),
    edge(Kind::Active, Kind::HandingOver, Why::Asked),
    edge(Kind::Active, Kind::HandingOver, Why::Failing),
    edge(Kind::Degraded, Kind::HandingOver, Why::Asked),
    edge(Kind::Degraded, Kind::HandingOver, Why::Failing),
    edge(Kind::Active, Kind::Promoting, Why::NoPeer),
    edge(Kind::Degraded, Kind::Promoting, Why::NoPeer),
    edge(Kind::HandingOver, Kind::Active, Why::Undone),
    edge(Kind::HandingOver, Kind::Promoting, Why::Undone),
    edge(Kind::HandingOver, Kind::Standby, Why::Given),
];

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}: {}", self.from, self.to, self.why.text())
    }
}
