//! What the engine tells people. Data, not text in the code that decides: severity, name and
//! sentence of a notice stand together here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Cause;
use super::liveness::seconds;
use super::observation::Epoch;
use super::plan::Step;
use super::policy::RETRY_DEGRADED;

/// Something a person may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The heartbeats became silent.
    Stale {
        /// Which, and for how long.
        bots: String,
    },
    /// They are back.
    Fresh,
    /// Nothing is known any more.
    Unknown {
        /// Why.
        cause: String,
    },
    /// Something is known again.
    Known,
    /// The window started again although everything is known.
    WindowRestarted {
        /// Why.
        cause: String,
    },
    /// Nothing has been known for so long that a person should look.
    Blind {
        /// For how long.
        since: Duration,
        /// Why.
        cause: String,
    },
    /// Something is known again after [`Notice::Blind`].
    Sighted,
    /// The heartbeats are silent and nothing is done about it.
    Blocked {
        /// Why not.
        why: String,
    },
    /// This node could not take over.
    NotReady {
        /// Why not.
        problems: Vec<String>,
    },
    /// It could again.
    Ready,
    /// The store granted the lease.
    Acquired {
        /// The new epoch.
        epoch: Epoch,
        /// Who wanted it.
        cause: Cause,
    },
    /// It did not.
    Refused {
        /// Why not.
        why: String,
    },
    /// A takeover goes on after a restart.
    Resumed {
        /// Its epoch.
        epoch: Epoch,
        /// From this step on.
        step: Step,
    },
    /// A completed takeover was adopted after a restart.
    Adopted {
        /// Its epoch.
        epoch: Epoch,
        /// Whether the units are active.
        units_active: bool,
    },
    /// The lease is this node's, but somebody else runs the bots.
    Contested {
        /// Epoch of the lease.
        epoch: Epoch,
    },
    /// A step ended well.
    StepDone {
        /// Of this tenure.
        epoch: Epoch,
        /// The step.
        step: Step,
        /// How long it took, with all attempts.
        took: Duration,
    },
    /// A step ended, but not all is well.
    StepWarning {
        /// Of this tenure.
        epoch: Epoch,
        /// The step.
        step: Step,
        /// How long it took, with all attempts.
        took: Duration,
        /// What is not well.
        text: String,
    },
    /// An attempt of a step failed.
    StepFailed {
        /// Of this tenure.
        epoch: Epoch,
        /// The step.
        step: Step,
        /// How many attempts there were.
        attempts: u32,
        /// Why.
        fault: String,
    },
    /// A step failed again and again.
    Degraded {
        /// Of this tenure.
        epoch: Epoch,
        /// The step.
        step: Step,
        /// Why.
        fault: String,
    },
    /// The takeover is complete.
    Completed {
        /// Its epoch.
        epoch: Epoch,
        /// From the decision to the first heartbeat of every bot.
        took: Duration,
        /// How long each step took.
        steps: Vec<(Step, Duration)>,
    },
    /// Another node took the group.
    Superseded {
        /// Our epoch.
        epoch: Epoch,
        /// The later one.
        by_epoch: Epoch,
        /// Who has it.
        by: String,
    },
    /// The units were stopped after that.
    UnitsStopped,
    /// The units could not be stopped after that.
    StopFailed {
        /// Why not.
        fault: String,
    },
    /// This node has the group and its bots are silent.
    ActiveSilent {
        /// Which, and for how long.
        bots: String,
    },
    /// They are back.
    ActiveBeats,
    /// The guard of the lease is gone, and the tenure over.
    GuardGone {
        /// Of this tenure.
        epoch: Epoch,
        /// Why, as far as known.
        why: String,
    },
    /// The units here do not run any more, and there is nobody to hand the group over to.
    NoPeer {
        /// Of this tenure.
        epoch: Epoch,
        /// What does not run.
        what: String,
        /// Why nobody can have it.
        why: String,
    },
    /// The group is being handed over.
    HandingOver {
        /// Of this tenure.
        epoch: Epoch,
        /// The node that gets it.
        to: String,
        /// Why.
        reason: String,
    },
    /// It was given away.
    HandedOver {
        /// Of this tenure.
        epoch: Epoch,
        /// The node that can have it.
        to: String,
    },
    /// It stays here after all.
    HandOverFailed {
        /// Of this tenure.
        epoch: Epoch,
        /// The node that should have had it.
        to: String,
        /// Why not.
        text: String,
    },
    /// Redis here follows that of the primary.
    Rejoined,
    /// It does not.
    RejoinFailed {
        /// Why not.
        fault: String,
    },
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Weight {
    /// For the journal only.
    Log,
    /// For the journal only, and not as it should be.
    LogWarning,
    /// An alert that all is well again.
    Info,
    /// An alert that someone should look at today.
    Warning,
    /// An alert that someone should look at now.
    Critical,
}

impl Weight {
    /// Where it is told, and how loudly.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Log => "journal",
            Self::LogWarning => "journal, warning",
            Self::Info => "alert, info",
            Self::Warning => "alert, WARNING",
            Self::Critical => "alert, CRITICAL",
        }
    }
}

impl Notice {
    /// How much it matters.
    #[must_use]
    pub const fn weight(&self) -> Weight {
        match self {
            Self::Fresh
            | Self::Known
            | Self::StepDone { .. }
            | Self::Adopted { units_active: true, .. }
            // The store writes this alert in the commit that grants the lease, so that it cannot
            // be lost between the two.
            | Self::Acquired { .. } => Weight::Log,
            Self::Unknown { .. }
            | Self::WindowRestarted { .. }
            | Self::Refused { .. }
            | Self::StepFailed { .. } => Weight::LogWarning,
            Self::Sighted
            | Self::Ready
            | Self::ActiveBeats
            | Self::UnitsStopped
            | Self::Rejoined => Weight::Info,
            Self::Stale { .. }
            | Self::NotReady { .. }
            | Self::Resumed { .. }
            | Self::HandingOver { .. }
            | Self::HandedOver { .. }
            | Self::RejoinFailed { .. }
            | Self::Completed { .. } => Weight::Warning,
            Self::Blind { .. }
            | Self::Blocked { .. }
            | Self::Adopted { units_active: false, .. }
            | Self::Contested { .. }
            | Self::StepWarning { .. }
            | Self::Degraded { .. }
            | Self::Superseded { .. }
            | Self::StopFailed { .. }
            | Self::GuardGone { .. }
            | Self::NoPeer { .. }
            | Self::HandOverFailed { .. }
            | Self::ActiveSilent { .. } => Weight::Critical,
        }
    }

    /// The tenure that it is about.
    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Acquired { epoch, .. }
            | Self::Resumed { epoch, .. }
            | Self::Adopted { epoch, .. }
            | Self::Contested { epoch }
            | Self::StepDone { epoch, .. }
            | Self::StepWarning { epoch, .. }
            | Self::StepFailed { epoch, .. }
            | Self::Degraded { epoch, .. }
            | Self::Completed { epoch, .. }
            | Self::GuardGone { epoch, .. }
            | Self::NoPeer { epoch, .. }
            | Self::HandingOver { epoch, .. }
            | Self::HandedOver { epoch, .. }
            | Self::HandOverFailed { epoch, .. }
            | Self::Superseded { epoch, .. } => Some(*epoch),
            Self::Stale { .. }
            | Self::Fresh
            | Self::Unknown { .. }
            | Self::Known
            | Self::WindowRestarted { .. }
            | Self::Blind { .. }
            | Self::Sighted
            | Self::Blocked { .. }
            | Self::NotReady { .. }
            | Self::Ready
            | Self::Refused { .. }
            | Self::UnitsStopped
            | Self::StopFailed { .. }
            | Self::ActiveSilent { .. }
            | Self::Rejoined
            | Self::RejoinFailed { .. }
            | Self::ActiveBeats => None,
        }
    }

    /// The step that it is about.
    #[must_use]
    pub const fn step(&self) -> Option<Step> {
        match self {
            Self::Resumed { step, .. }
            | Self::StepDone { step, .. }
            | Self::StepWarning { step, .. }
            | Self::StepFailed { step, .. }
            | Self::Degraded { step, .. } => Some(*step),
            Self::Stale { .. }
            | Self::Fresh
            | Self::Unknown { .. }
            | Self::Known
            | Self::WindowRestarted { .. }
            | Self::Blind { .. }
            | Self::Sighted
            | Self::Blocked { .. }
            | Self::NotReady { .. }
            | Self::Ready
            | Self::Acquired { .. }
            | Self::Refused { .. }
            | Self::Adopted { .. }
            | Self::Contested { .. }
            | Self::Completed { .. }
            | Self::Superseded { .. }
            | Self::UnitsStopped
            | Self::StopFailed { .. }
            | Self::ActiveSilent { .. }
            | Self::GuardGone { .. }
            | Self::NoPeer { .. }
            | Self::HandingOver { .. }
            | Self::HandedOver { .. }
            | Self::HandOverFailed { .. }
            | Self::Rejoined
            | Self::RejoinFailed { .. }
            | Self::ActiveBeats => None,
        }
    }

    /// What happened, in a sentence without the group's name.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Stale { bots } => format!("silent: {bots}"),
            Self::Fresh => "the heartbeats are back".to_owned(),
            Self::Unknown { cause } => format!(
                "cannot tell whether the primary is alive: {cause}; no failover until a whole new \
                 window of silence"
            ),
            Self::Known => "the heartbeats can be read again; a new window begins".to_owned(),
            Self::WindowRestarted { cause } => format!("a new window begins: {cause}"),
            Self::Blind { since, cause } => format!(
                "understudy has been blind for {}: {cause}. No automatic failover while this lasts",
                seconds(*since)
            ),
            Self::Sighted => "understudy sees the heartbeats again".to_owned(),
            Self::Blocked { why } => {
                format!("the heartbeats are silent, and understudy does NOT take over: {why}")
            }
            Self::NotReady { problems } => {
                format!("this node could NOT take over: {}", problems.join("; "))
            }
            Self::Ready => "this node could take over again".to_owned(),
            Self::Acquired { epoch, cause } => match cause {
                Cause::Automatic => format!("taking over with epoch {epoch}: heartbeats silent"),
                Cause::Operator | Cause::Forced => {
                    format!("taking over with epoch {epoch}: an operator asked for it")
                }
            },
            Self::Refused { why } => format!("did not get the lease: {why}"),
            Self::Resumed { epoch, step } => {
                format!("going on with the takeover of epoch {epoch} at: {}", step.doing())
            }
            Self::Adopted { epoch, units_active: true } => {
                format!("this node has the group since epoch {epoch}; its units run")
            }
            Self::Adopted { epoch, units_active: false } => adopted_without_units(*epoch),
            Self::Contested { epoch } => contested(*epoch),
            Self::StepDone { step, took, .. } => {
                format!("{} done in {}: {}", step, seconds(*took), step.promise())
            }
            Self::StepWarning { step, text, .. } => format!("{step}: {text}"),
            Self::StepFailed { step, attempts, fault, .. } => {
                format!("{step} failed (attempt {attempts}): {fault}")
            }
            Self::Degraded { epoch, step, fault } => degraded(*epoch, *step, fault),
            Self::Completed { epoch, took, steps } => completed(*epoch, *took, steps),
            Self::Superseded { epoch, by_epoch, by } => format!(
                "{by} has the group now (epoch {by_epoch}); our tenure (epoch {epoch}) is over and \
                 the units here are being stopped"
            ),
            Self::UnitsStopped => "the units here are stopped".to_owned(),
            Self::StopFailed { fault } => format!(
                "the units here could NOT be stopped although another node has the group: {fault}. \
                 It is tried again; two copies may be running"
            ),
            Self::ActiveSilent { bots } => {
                format!("this node has the group, and it is silent: {bots}. Look at the units here")
            }
            Self::ActiveBeats => "the heartbeats from this node are back".to_owned(),
            Self::GuardGone { epoch, why } => guard_gone(*epoch, why),
            Self::NoPeer { what, why, .. } => format!(
                "this node has the group, and it does not run ({what}). It is started once more, \
                 as it cannot be handed over: {why}"
            ),
            Self::HandingOver { to, reason, .. } => format!("handing over to {to}: {reason}"),
            Self::HandedOver { epoch, to } => {
                format!(
                    "the units here are stopped and {to} can have the group (epoch {epoch} ends)"
                )
            }
            Self::HandOverFailed { to, text, .. } => {
                format!("the group could NOT be handed over to {to} and goes on here: {text}")
            }
            Self::Rejoined => "Redis here follows that of the primary".to_owned(),
            Self::RejoinFailed { fault } => rejoin_failed(fault),
        }
    }
}

fn adopted_without_units(epoch: Epoch) -> String {
    format!(
        "this node has the group since epoch {epoch}, but not all of its units are active. \
                 They were running when understudy was last here, so somebody stopped them or they \
                 failed; understudy leaves them. Start them with systemctl, or give the group back \
                 with `understudy failback`"
    )
}

fn contested(epoch: Epoch) -> String {
    format!(
        "this node holds the lease (epoch {epoch}) of a takeover that was interrupted, but \
                 the bots beat and not all of their units run here: somebody started them \
                 elsewhere. Understudy does nothing. If they should run there, say so with \
                 `understudy failback`; if here, stop them there and then `understudy failover`"
    )
}

fn guard_gone(epoch: Epoch, why: &str) -> String {
    format!(
        "the guard of the lease is gone (epoch {epoch}): {why}. The units here are stopped, so that \
         another node may have the group; this node takes it again if the lease is still its own"
    )
}

fn rejoin_failed(fault: &str) -> String {
    format!(
        "Redis here does NOT follow that of the primary, so this node could not take over without \
         loss: {fault}. It is tried again"
    )
}

fn degraded(epoch: Epoch, step: Step, fault: &str) -> String {
    let then = match step {
        Step::Beat => "Understudy goes on waiting".to_owned(),
        Step::Guard
        | Step::Fence
        | Step::Promote
        | Step::Persist
        | Step::Flip
        | Step::Publish
        | Step::Start => {
            format!("It is tried again every {}", seconds(RETRY_DEGRADED))
        }
    };
    format!(
        "the takeover (epoch {epoch}) is stuck at {}: {fault}. {then}; the lease is kept and \
         nothing is rolled back",
        step.doing()
    )
}

fn completed(epoch: Epoch, took: Duration, steps: &[(Step, Duration)]) -> String {
    let steps: Vec<_> =
        steps.iter().map(|(step, took)| format!("{step} {}", seconds(*took))).collect();
    format!(
        "failover completed: this node has the group (epoch {epoch}), {} from the decision to the \
         first heartbeats ({})",
        seconds(took),
        steps.join(", ")
    )
}
