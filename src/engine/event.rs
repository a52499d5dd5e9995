//! Everything that can happen to a group, and everything that can be done about it. Both are
//! closed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::edge::Edge;
use super::notice::Notice;
use super::observation::{Bot, Epoch, Lease, Nonce, Observation, PendingRequest, Token, Way};
use super::plan::Step;
use crate::time::BootTime;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "made, handled once and gone")]
pub enum Event {
    /// Time passed.
    Wake,
    /// The store was read.
    Observed {
        /// When the read was sent.
        sent: BootTime,
        /// What it said.
        observation: Observation,
    },
    /// The store could not be read, or what it said is not to be trusted.
    ObserveFailed {
        /// Why, for people.
        fault: String,
    },
    /// This node was checked.
    Checked {
        /// Why it could not run the group; empty if it could.
        problems: Vec<String>,
    },
    /// This node's Redis follows another than the primary's, or nobody's.
    Estranged,
    /// The store answered to an acquisition.
    Acquired {
        /// Which one.
        nonce: Nonce,
        /// What it said.
        answer: Answer,
    },
    /// An attempt of a step ended.
    StepEnded {
        /// Of this tenure.
        epoch: Epoch,
        /// The step.
        step: Step,
        /// How.
        outcome: Outcome,
    },
    /// The attempt to stop the units ended.
    UnitsStopped {
        /// Why it did not succeed, if it did not.
        fault: Option<String>,
    },
    /// The guard of a paired group said something, or is gone.
    Guard(GuardReport),
    /// The units were looked at.
    UnitsSeen {
        /// Those that failed and that systemd does not start again.
        failed: Vec<String>,
        /// Those that are neither active nor failed: somebody stopped them.
        stopped: Vec<String>,
    },
    /// The attempt to give the lease to another node ended.
    HandedOver {
        /// Of this tenure.
        epoch: Epoch,
        /// How.
        outcome: Outcome,
    },
    /// The attempt to make this node's Redis follow the primary ended.
    Rejoined {
        /// Why it did not succeed, if it did not.
        fault: Option<String>,
    },
    /// A person asked for something.
    Operator {
        /// Number of the question, for the answer.
        request: u64,
        /// What.
        command: Command,
    },
}

impl Event {
    /// What it is, for a person who reads a recording.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Wake => "time passed".to_owned(),
            Self::Observed { observation, .. } => {
                let holder = observation.lease.holder.as_deref().unwrap_or("nobody");
                let bots: Vec<_> = observation.bots.iter().map(Bot::in_words).collect();
                let epoch = observation.lease.epoch;
                format!("read: {holder} has epoch {epoch}; {}", bots.join(", "))
            }
            Self::ObserveFailed { fault } => format!("the store could not be read: {fault}"),
            Self::Checked { problems } if problems.is_empty() => "this node is fit".to_owned(),
            Self::Checked { problems } => format!("this node is not fit: {}", problems.join("; ")),
            Self::Estranged => "Redis does not follow that of the primary".to_owned(),
            Self::Acquired { answer, .. } => match answer {
                Answer::Granted(epoch) => format!("the lease was granted with epoch {epoch}"),
                Answer::RefusedChanged(why) | Answer::Refused(why) => {
                    format!("the lease was refused: {why}")
                }
                Answer::Unknown(why) => format!("nobody knows whether the lease was had: {why}"),
            },
            Self::StepEnded { step, outcome, .. } => match outcome {
                Outcome::Done => format!("{step} is done"),
                Outcome::DoneBut(text) => format!("{step} is done, but: {text}"),
                Outcome::Failed(text) => format!("{step} failed: {text}"),
                Outcome::NotBegun(text) => format!("{step} could not begin: {text}"),
            },
            Self::UnitsStopped { fault: None } => "the units are stopped".to_owned(),
            Self::UnitsStopped { fault: Some(fault) } => {
                format!("the units could not be stopped: {fault}")
            }
            Self::Guard(GuardReport::Holding { token, .. }) => {
                format!("the guard renewed the lease (epoch {})", token.epoch)
            }
            Self::Guard(GuardReport::Gone { why }) => format!("there is no guard: {why}"),
            Self::UnitsSeen { failed, stopped } => match (failed.as_slice(), stopped.as_slice()) {
                ([], []) => "the units are active".to_owned(),
                (failed, []) => format!("failed: {}", failed.join(", ")),
                (failed, stopped) => {
                    format!("failed: {}; stopped: {}", failed.join(", "), stopped.join(", "))
                }
            },
            Self::HandedOver { outcome, .. } => match outcome {
                Outcome::Done | Outcome::DoneBut(_) => "the lease was given away".to_owned(),
                Outcome::Failed(text) | Outcome::NotBegun(text) => {
                    format!("the lease was not given away: {text}")
                }
            },
            Self::Rejoined { fault: None } => "Redis follows the primary".to_owned(),
            Self::Rejoined { fault: Some(fault) } => {
                format!("Redis does not follow the primary: {fault}")
            }
            Self::Operator { command: Command::Failover { force }, .. } => {
                format!("a person asked for a failover{}", if *force { " by force" } else { "" })
            }
            Self::Operator { command: Command::Switchover { to, .. }, .. } => format!(
                "a person asked for a switchover to {}",
                to.as_deref().unwrap_or("another node")
            ),
        }
    }
}

/// What the store answered to an acquisition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The lease is this node's.
    Granted(Epoch),
    /// It is not, and the evidence is void: a heartbeat or the lease changed.
    RefusedChanged(String),
    /// It is not, for a reason that leaves the evidence as it is.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// How an attempt of a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Its promise is true.
    Done,
    /// Its promise is not true, but the failover goes on; a person must know.
    DoneBut(String),
    /// Its promise is not true.
    Failed(String),
    /// Its promise is not true, and nothing was tried for it.
    NotBegun(String),
}

/// What a person can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Take the group over now.
    Failover {
        /// Although the heartbeats are not silent, or a bot was stopped on purpose.
        force: bool,
    },
    /// Give the group to another node, with nothing lost.
    Switchover {
        /// To this one; `None` for the first of the others that is ready.
        to: Option<String>,
        /// Who asked.
        by: String,
        /// And why.
        reason: String,
    },
}

/// What the guard of a paired group says of itself. Only its word counts for whether the lease is
/// this node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardReport {
    /// It renews the lease of this tenure.
    Holding {
        /// The tenure.
        token: Token,
        /// When the last renewal that was granted had been sent.
        confirmed: BootTime,
    },
    /// There is none, or it has stopped renewing: nothing of the group may run here.
    Gone {
        /// Why, as far as known.
        why: String,
    },
}

/// Who wants a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The heartbeats were silent.
    Automatic,
    /// A person, for a primary that is silent.
    Operator,
    /// A person who knows better than the heartbeats.
    Forced,
}

impl Cause {
    /// Its name in the store and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Operator => "operator",
            Self::Forced => "forced",
        }
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "made, handled once and gone")]
pub enum Action {
    /// Find out whether this node could run the group.
    Check {
        /// How long it may take.
        deadline: Duration,
        /// The primary is silent and a takeover waits for the answer: nothing on the primary's host
        /// is worth waiting for.
        primary_silent: bool,
    },
    /// See whether the units are active.
    Look,
    /// Ask the store for the lease. The memory is on disk before the question is sent.
    Acquire(Acquire),
    /// Put this on disk before the next action.
    Remember(Memory),
    /// Make one attempt of a step.
    Run {
        /// In the name of this tenure.
        token: Token,
        /// The step.
        step: Step,
        /// Whether an earlier attempt, also one before a restart, may have had its effect.
        again: bool,
        /// How long it may take.
        deadline: Duration,
    },
    /// Stop the group's units.
    StopUnits {
        /// How long it may take.
        deadline: Duration,
    },
    /// Write into the store that the group is about to be handed over, so that the other node gets
    /// ready.
    Announce(PendingRequest),
    /// Write into the store how an order to hand over ended.
    EndRequest {
        /// Which.
        id: Nonce,
        /// Whether it was carried out.
        done: bool,
        /// In words.
        text: String,
    },
    /// Give the lease to another node. The units are stopped; whether they are dead is looked at
    /// once more.
    HandOver {
        /// The tenure that ends.
        token: Token,
        /// Who gets it.
        to: String,
        /// Whether the other node's Redis must have everything first.
        lossless: bool,
        /// How long it may take.
        deadline: Duration,
    },
    /// Make this node's Redis a replica of the primary's, after a copy of what it has.
    Rejoin {
        /// The node that has the group.
        primary: String,
    },
    /// Tell people.
    Tell(Notice),
    /// Log that the state changed.
    Moved(Edge),
    /// Answer a person's question.
    Answer {
        /// Number of the question.
        request: u64,
        /// Whether it is being done.
        accepted: bool,
        /// In words.
        text: String,
    },
}

impl Action {
    /// What it is, for a person who reads a recording.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Check { .. } => "check this node".to_owned(),
            Self::Acquire(question) => format!("ask for the lease ({})", question.cause.name()),
            Self::Remember(memory) => match memory.progress {
                Progress::Asked => "remember that the lease is asked for".to_owned(),
                Progress::At(step) => format!("remember that {step} begins"),
                Progress::Complete => "remember that the takeover is complete".to_owned(),
                Progress::Leaving => "remember that the group is being handed over".to_owned(),
                Progress::Over => "remember that the tenure is over".to_owned(),
            },
            Self::Run { step, again, .. } => {
                format!("run {step}{}", if *again { " again" } else { "" })
            }
            Self::StopUnits { .. } => "stop the units".to_owned(),
            Self::Look => "look at the units".to_owned(),
            Self::Announce(request) => format!(
                "announce that {} gets the group",
                request.target.as_deref().unwrap_or("another node")
            ),
            Self::EndRequest { done, text, .. } => {
                format!("the order was {}: {text}", if *done { "carried out" } else { "refused" })
            }
            Self::HandOver { to, .. } => format!("give the lease to {to}"),
            Self::Rejoin { primary } => format!("make Redis follow that of {primary}"),
            Self::Tell(notice) => format!("{}: {}", notice.weight().in_words(), notice.text()),
            Self::Moved(edge) => edge.to_string(),
            Self::Answer { accepted, text, .. } => {
                format!("answer: {}: {text}", if *accepted { "yes" } else { "no" })
            }
        }
    }
}

/// A question for the lease, with the evidence that it is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// Who wants it.
    pub cause: Cause,
    /// On what ground.
    #[serde(default)]
    pub way: Way,
    /// Identity of the new tenure.
    pub nonce: Nonce,
    /// The lease must still be this one.
    pub expected: Lease,
    /// The new epoch is above this, whatever the store says.
    pub min_epoch: Epoch,
    /// When the store was read, by its own clock.
    pub seen_at: String,
    /// The heartbeats that were silent and must still be these, in the order of the bots; `None`
    /// for a bot that the decision does not rest on.
    pub heartbeats: Vec<Option<String>>,
    /// How long they were silent, for the history.
    pub silent_for: Duration,
    /// Who ordered it, and why, if it was ordered on another node.
    #[serde(default)]
    pub asked_by: Option<(String, String)>,
    /// What to put on disk first.
    pub memory: Memory,
}

/// What must survive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Identity of the tenure that was asked for.
    pub nonce: Nonce,
    /// Who wanted it.
    pub cause: Cause,
    /// How far it came.
    pub progress: Progress,
    /// Highest epoch ever seen.
    pub max_epoch: Epoch,
}

/// How far a takeover came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// The lease was asked for.
    Asked,
    /// This step was about to begin.
    At(Step),
    /// It is complete.
    Complete,
    /// The group was about to be handed over; the units may be stopped.
    Leaving,
    /// Another tenure followed, and the units here are stopped.
    Over,
}

/// A memory from before a restart, and what can still be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalled {
    /// What was put on disk.
    pub memory: Memory,
    /// Whether it is younger than a window, and from this boot: nobody else can have acted since.
    pub recent: bool,
    /// Whether it is from this boot.
    pub same_boot: bool,
    /// Whether all units of the group are active here.
    pub units_active: bool,
}

impl Recalled {
    /// Whether the lease was had, so that something may have been done in its name.
    #[must_use]
    pub fn acted(&self) -> bool {
        match self.memory.progress {
            Progress::At(_) | Progress::Complete | Progress::Leaving => true,
            Progress::Asked | Progress::Over => false,
        }
    }
}
