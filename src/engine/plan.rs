//! The steps of a takeover.
//!
//! To add one: a variant here in its place, its text and its promise below, and a call in
//! `runtime/worker.rs`. Each step can be repeated: an attempt that finds its promise already true
//! changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A step of a takeover, after the lease was acquired. The order of the variants is the order of
/// the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Start the process that renews the lease, in paired mode.
    Guard,
    /// Make sure that the old primary is dead.
    Fence,
    /// Make this node's copy of the data the one that is written to.
    Promote,
    /// Make it stay so when its server restarts.
    Persist,
    /// Say in the bots' rows that they are primary here.
    Flip,
    /// Give the units the epoch of this tenure.
    Publish,
    /// Start the units.
    Start,
    /// See a heartbeat of each bot.
    Beat,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Guard,
        Self::Fence,
        Self::Promote,
        Self::Persist,
        Self::Flip,
        Self::Publish,
        Self::Start,
        Self::Beat,
    ];

    /// Its name in the journal, in the history and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Fence => "fence",
            Self::Promote => "promote",
            Self::Persist => "persist",
            Self::Flip => "flip",
            Self::Publish => "publish",
            Self::Start => "start",
            Self::Beat => "beat",
        }
    }

    /// The step of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    /// What it does, for people.
    #[must_use]
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Guard => "starting the guard of the lease",
            Self::Fence => "fencing the old primary",
            Self::Promote => "promoting Redis",
            Self::Persist => "making Redis stay master across its restarts",
            Self::Flip => "marking the bots as primary",
            Self::Publish => "writing the epoch for the units",
            Self::Start => "starting the units",
            Self::Beat => "waiting for the first heartbeats",
        }
    }

    /// What is true, and was read back, once it is done.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::Guard => "the guard renewed the lease and watches over the units",
            Self::Fence => "the fence command exited with 0",
            Self::Promote => "ROLE says master, and a probe write was read back",
            Self::Persist => "the configuration file of Redis no longer says replicaof",
            Self::Flip => "every row of the group's bots has the status of a primary",
            Self::Publish => "the environment file of the group has this tenure's epoch and nonce",
            Self::Start => {
                "every unit is active, and stayed so with the same main process through the settle \
                 time"
            }
            Self::Beat => "every bot wrote a heartbeat after its unit was started",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
