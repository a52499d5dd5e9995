//! The voice of the daemon: what the engines have to tell goes to the journal and, if it matters,
//! to the alerts' outbox. Neither is ever waited for by the loop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::adapters::alert::{Alert, Alerts, Pace, Report};
use crate::adapters::postgres::operator::StoredAlert;
use crate::config::settings::{Channel, Settings, Severity};
use crate::engine::notice::{Notice, Weight};
use crate::telemetry::logging::About;
use crate::telemetry::{Metrics, Notable, emit};

/// How long deliveries may take when the process ends. What is left is delivered by the next one.
const LAST_DELIVERIES: Duration = Duration::from_secs(2);

/// The voice. Clones speak through the same channels.
#[derive(Clone)]
pub struct Teller {
    node: String,
    outbox: PathBuf,
    /// Absent only while the channels are exchanged. Locked for no longer than a hand-over.
    alerts: Arc<Mutex<Option<Alerts>>>,
    metrics: Metrics,
}

impl Teller {
    /// Opens the outbox and begins to deliver what is in it.
    ///
    /// # Errors
    /// If the outbox or a channel cannot be used.
    pub fn new(settings: &Settings, metrics: Metrics) -> anyhow::Result<Self> {
        let outbox = settings.state_dir.join("outbox");
        let alerts = start(&outbox, &settings.channels, &metrics)?;
        let alerts = Arc::new(Mutex::new(Some(alerts)));
        Ok(Self { node: settings.node.clone(), outbox, alerts, metrics })
    }

    /// Says what an engine has to tell about a group.
    pub fn tell(&self, group: &str, notice: &Notice) {
        let (event, text) = (notable(notice), notice.text());
        let about = About {
            group: Some(group),
            epoch: notice.epoch().map(|epoch| epoch.0),
            step: notice.step().map(|step| step.name()),
        };
        emit(event, about, &format!("{group}: {text}"));
        let severity = match notice.weight() {
            Weight::Log | Weight::LogWarning => return,
            Weight::Info => Severity::Info,
            Weight::Warning => Severity::Warning,
            Weight::Critical => Severity::Critical,
        };
        let mut fields = BTreeMap::new();
        if let Some(step) = about.step {
            fields.insert("step".to_owned(), step.to_owned());
        }
        self.push(Alert {
            id: Uuid::new_v4(),
            at: SystemTime::now(),
            severity,
            event: event.name().to_owned(),
            group: Some(group.to_owned()),
            epoch: about.epoch,
            node: self.node.clone(),
            summary: format!("{group}: {text}"),
            detail: event.explanation(group),
            dedup_key: dedup_key(group, about.epoch, event),
            fields,
        });
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

    /// Logs an event that is not an engine's, and alerts.
    pub fn alert(&self, notable: Notable, severity: Severity, group: Option<&str>, text: &str) {
        self.log(notable, group, text);
        let prefix = group.map(|group| format!("{group}: ")).unwrap_or_default();
        self.push(Alert {
            id: Uuid::new_v4(),
            at: SystemTime::now(),
            severity,
            event: notable.name().to_owned(),
            group: group.map(str::to_owned),
            epoch: None,
            node: self.node.clone(),
            summary: format!("{prefix}{text}"),
            detail: notable.explanation(group.unwrap_or("the group")),
            dedup_key: dedup_key(group.unwrap_or(&self.node), None, notable),
            fields: BTreeMap::new(),
        });
    }

    /// Copies an alert of the store, written in the commit that granted a lease, to the outbox.
    /// Says whether it is on disk now.
    pub async fn spool(&self, stored: &StoredAlert) -> bool {
        let text = |key: &str| stored.body.get(key).and_then(|value| value.as_str());
        let epoch = stored.body.get("epoch").and_then(serde_json::Value::as_u64);
        let alert = Alert {
            id: stored.id,
            at: humantime::parse_rfc3339_weak(&stored.at).unwrap_or_else(|_| SystemTime::now()),
            severity: Severity::Critical,
            event: Notable::LeaseAcquired.name().to_owned(),
            group: Some(stored.group.clone()),
            epoch,
            node: self.node.clone(),
            summary: text("summary").unwrap_or("the lease was acquired").to_owned(),
            detail: Notable::LeaseAcquired.explanation(&stored.group),
            dedup_key: dedup_key(&stored.group, epoch, Notable::LeaseAcquired),
            fields: BTreeMap::new(),
        };
        self.push(alert);
        let on_disk = match &*self.alerts() {
            Some(alerts) => alerts.stored(),
            None => return false,
        };
        on_disk.await.unwrap_or(false)
    }

    /// Alerts that are not delivered yet, refused ones included.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        let alerts = self.alerts();
        let backlog = alerts.as_ref().map(|alerts| alerts.backlog().borrow().clone());
        let waiting: usize =
            backlog.iter().flatten().map(|channel| channel.pending + channel.dead).sum();
        u64::try_from(waiting).unwrap_or(u64::MAX)
    }

    /// Goes on with other channels, or with the old ones if the new ones cannot be used.
    ///
    /// # Errors
    /// If a channel cannot be used.
    pub async fn apply(&self, old: &[Channel], new: &[Channel]) -> anyhow::Result<()> {
        if old == new && self.alerts().is_some() {
            return Ok(());
        }
        let before = self.alerts().take();
        if let Some(before) = before {
            // One process, one outbox: the old deliveries end before the new ones begin.
            before.close(Duration::ZERO).await;
        }
        match start(&self.outbox, new, &self.metrics) {
            Ok(alerts) => {
                *self.alerts() = Some(alerts);
                Ok(())
            }
            Err(error) => {
                *self.alerts() = Some(start(&self.outbox, old, &self.metrics)?);
                Err(error)
            }
        }
    }

    /// Waits until everything that was said is on disk, and a little for it to be delivered.
    pub async fn close(&self) {
        let alerts = self.alerts().take();
        if let Some(alerts) = alerts {
            alerts.close(LAST_DELIVERIES).await;
        }
    }

    fn push(&self, alert: Alert) {
        let refused = match &*self.alerts() {
            Some(alerts) => alerts.push(alert).err(),
            None => Some(Box::new(alert)),
        };
        if let Some(alert) = refused {
            let text = format!("an alert is in the journal only: {}", alert.summary);
            emit(Notable::AlertFailed, About::default(), &text);
        }
    }

    fn alerts(&self) -> std::sync::MutexGuard<'_, Option<Alerts>> {
        // Nothing that holds the lock can panic; and a panic would end the process.
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(
    outbox: &std::path::Path,
    channels: &[Channel],
    metrics: &Metrics,
) -> anyhow::Result<Alerts> {
    let (alerts, reports) = Alerts::start(outbox, channels, Pace::default())?;
    for channel in channels {
        metrics.watch_channel(&channel.name);
    }
    tokio::spawn(log_reports(reports, metrics.clone()));
    Ok(alerts)
}

/// Says in the journal what becomes of the alerts. Only there: an alert about an alert would follow
/// the same broken way.
async fn log_reports(mut reports: mpsc::Receiver<Report>, metrics: Metrics) {
    while let Some(report) = reports.recv().await {
        count(&report, &metrics);
        let (event, text) = match report {
            Report::Delivered { channel, id, attempts: 1 } => {
                (Notable::AlertDelivered, format!("alert {id} delivered to {channel}"))
            }
            Report::Delivered { channel, id, attempts } => (
                Notable::AlertDelivered,
                format!("alert {id} delivered to {channel} at attempt {attempts}"),
            ),
            Report::Failed { channel, id, attempts, fault, again_in } => (
                Notable::AlertFailed,
                format!(
                    "alert {id} not delivered to {channel} (attempt {attempts}): {fault}; again in \
                     {} s",
                    again_in.as_secs()
                ),
            ),
            Report::Dead { channel, id, fault } => (
                Notable::AlertDead,
                format!("{channel} refuses alert {id}: {fault}; it was put aside in dead/"),
            ),
            Report::Dropped { channel, id, severity } => (
                Notable::AlertDead,
                format!("the queue to {channel} is full: {} alert {id} lost", severity.as_str()),
            ),
            Report::NotStored { id, fault } => (
                Notable::AlertFailed,
                format!("alert {id} is in memory only, as the disk does not take it: {fault}"),
            ),
            Report::Unreadable { channel, path, fault } => (
                Notable::AlertFailed,
                format!("{channel}: no alert, moved aside: {}: {fault}", path.display()),
            ),
        };
        emit(event, About::default(), &text);
    }
}

fn count(report: &Report, metrics: &Metrics) {
    match report {
        Report::Delivered { channel, .. } => metrics.alert(channel, "delivered"),
        Report::Failed { channel, .. } => metrics.alert(channel, "failed"),
        Report::Dead { channel, .. } => metrics.alert(channel, "refused"),
        Report::Dropped { channel, .. } => metrics.alert(channel, "dropped"),
        Report::NotStored { .. } | Report::Unreadable { .. } => {}
    }
}

/// Equal for alerts about the same thing.
fn dedup_key(about: &str, epoch: Option<u64>, event: Notable) -> String {
    match epoch {
        Some(epoch) => format!("{about}/{epoch}/{}", event.name()),
        None => format!("{about}/{}", event.name()),
    }
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
