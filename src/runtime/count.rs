//! What is counted of the engines' notices and of the store. Counting is an addition in memory, so
//! the loop does it itself.

use crate::adapters::postgres::{ErrorKind, StoreError};
use crate::engine::notice::Notice;
use crate::telemetry::Metrics;

/// Counts what an engine has to tell about a group.
pub fn notice(metrics: &Metrics, group: &str, notice: &Notice) {
    match notice {
        Notice::Unknown { .. } | Notice::WindowRestarted { .. } => metrics.window_restarted(group),
        Notice::Acquired { .. } => metrics.failover(group, "begun"),
        Notice::Refused { .. } => metrics.failover(group, "refused"),
        Notice::StepDone { step, took, .. } | Notice::StepWarning { step, took, .. } => {
            metrics.step(group, step.name(), *took);
        }
        Notice::StepFailed { step, .. } => metrics.step_failed(group, step.name()),
        Notice::Degraded { .. } => metrics.failover(group, "degraded"),
        Notice::Completed { took, .. } => {
            metrics.failover(group, "completed");
            metrics.failover_took(group, *took);
        }
        Notice::Superseded { .. } => metrics.failover(group, "superseded"),
        Notice::Contested { .. } => metrics.split_brain(group, "contested"),
        Notice::StopFailed { .. } => metrics.split_brain(group, "stop_failed"),
        Notice::Stale { .. }
        | Notice::Fresh
        | Notice::Known
        | Notice::Blind { .. }
        | Notice::Sighted
        | Notice::Blocked { .. }
        | Notice::NotReady { .. }
        | Notice::Ready
        | Notice::Resumed { .. }
        | Notice::Adopted { .. }
        | Notice::UnitsStopped
        | Notice::GuardGone { .. }
        | Notice::NoPeer { .. }
        | Notice::HandingOver { .. }
        | Notice::HandedOver { .. }
        | Notice::HandOverFailed { .. }
        | Notice::Rejoined
        | Notice::RejoinFailed { .. }
        | Notice::ActiveSilent { .. }
        | Notice::ActiveBeats => {}
    }
}

/// Name of a kind of error of the store, as a label.
#[must_use]
pub fn store_error(error: &StoreError) -> &'static str {
    match error.kind() {
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::NotWritable => "not_writable",
        ErrorKind::Misconfigured => "misconfigured",
        ErrorKind::Refused => "refused",
    }
}
