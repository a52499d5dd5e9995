//! The voice of the daemon: what the engines have to tell goes to the journal and, if it matters,
//! to the alerts' outbox. Neither is ever waited for by the loop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::condition::Condition;
use crate::adapters::alert::{
    Alert, Alerts, Backlog, DeadMan, Open, Pace, Report, Resolves, Which,
};
use crate::adapters::postgres::operator::StoredAlert;
use crate::config::settings::{self, Channel, Settings, Severity};
use crate::engine::edge::Kind;
use crate::engine::notice::{Notice, Weight};
use crate::engine::snapshot::Outlook;
use crate::telemetry::logging::About;
use crate::telemetry::{Metrics, Notable, emit};
use crate::time::BootTime;

/// How long deliveries may take when the process ends. What is left is delivered by the next one.
const LAST_DELIVERIES: Duration = Duration::from_secs(2);

/// The voice. Clones speak through the same channels.
#[derive(Clone)]
pub struct Teller {
    node: String,
    outbox: PathBuf,
    /// Locked for no longer than a hand-over.
    voice: Arc<Mutex<Voice>>,
    metrics: Metrics,
}

/// What the clones share.
struct Voice {
    /// Absent only while the channels are exchanged.
    alerts: Option<Alerts>,
    dead_man: Option<DeadMan>,
    /// What was told about each group and lasts, and how it began. No group without any.
    lasting: BTreeMap<String, BTreeMap<Condition, Resolves>>,
}

/// Something that lasts, or is over, and is no group's.
pub struct Matter<'a> {
    /// As what it is in the journal.
    pub event: Notable,
    /// How bad.
    pub severity: Severity,
    /// Equal for all news of it.
    pub key: String,
    /// In one line.
    pub text: String,
    /// What to say before what the event's explanation says.
    pub preface: &'a str,
    /// Further facts.
    pub fields: BTreeMap<String, String>,
    /// What is over, if it is.
    pub resolves: Option<Resolves>,
}

/// What the process before this one told.
fn told_before(open: &[Open]) -> BTreeMap<String, BTreeMap<Condition, Resolves>> {
    let mut lasting: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for open in open {
        let Some(group) = &open.group else { continue };
        let is_it = |condition: &Condition| open.dedup_key.starts_with(&condition.key(group, ""));
        if let Some(condition) = Condition::ALL.into_iter().find(is_it) {
            lasting.entry(group.clone()).or_default().insert(condition, began(open));
        }
    }
    lasting
}

fn began(open: &Open) -> Resolves {
    Resolves { event: open.event.clone(), severity: open.severity, since: open.since }
}

impl Teller {
    /// Opens the outbox and begins to deliver what is in it.
    ///
    /// # Errors
    /// If the outbox or a channel cannot be used.
    pub fn new(settings: &Settings, metrics: Metrics) -> anyhow::Result<Self> {
        let outbox = settings.state_dir.join("outbox");
        let alerts = start(&outbox, &settings.channels, &metrics)?;
        let dead_man = start_dead_man(settings.dead_man.as_ref(), &metrics)?;
        let lasting = told_before(&alerts.open().borrow());
        let voice = Voice { alerts: Some(alerts), dead_man, lasting };
        let voice = Arc::new(Mutex::new(voice));
        Ok(Self { node: settings.node.clone(), outbox, voice, metrics })
    }

    /// Says what an engine has to tell about a group, which is in that state.
    pub fn tell(&self, group: &str, kind: Kind, notice: &Notice) {
        let (event, text) = (notable(notice), notice.text());
        let about = About {
            group: Some(group),
            epoch: notice.epoch().map(|epoch| epoch.0),
            step: notice.step().map(|step| step.name()),
            check: None,
        };
        emit(event, about, &format!("{group}: {text}"));
        if let Some(condition) = Condition::ended_by(notice, kind)
            && self.end(group, condition, event, &text)
        {
            return;
        }
        let severity = match notice.weight() {
            Weight::Log | Weight::LogWarning => return,
            Weight::Info => Severity::Info,
            Weight::Warning => Severity::Warning,
            Weight::Critical => Severity::Critical,
        };
        let mut alert = self.alert_of(event, severity, Some(group), &text);
        alert.epoch = about.epoch;
        if let Some(step) = about.step {
            alert.fields.insert("step".to_owned(), step.to_owned());
        }
        match Condition::begun_by(notice) {
            Some(condition) => self.begin(group, condition, &mut alert),
            None => alert.dedup_key = dedup_key(group, about.epoch, event),
        }
        self.push(alert);
    }

    /// Takes note that something begins that lasts.
    fn begin(&self, group: &str, condition: Condition, alert: &mut Alert) {
        alert.dedup_key = condition.key(group, &self.node);
        alert.lasting = true;
        alert.fields.insert("condition".to_owned(), condition.name().to_owned());
        let mut voice = self.voice();
        let lasting = voice.lasting.entry(group.to_owned()).or_default();
        let began = lasting.entry(condition).or_insert_with(|| Resolves {
            event: alert.event.clone(),
            severity: alert.severity,
            since: alert.at,
        });
        began.severity = began.severity.max(alert.severity);
    }

    /// Tells that something is over, if it was told before.
    fn end(&self, group: &str, condition: Condition, event: Notable, text: &str) -> bool {
        let began = {
            let mut voice = self.voice();
            let Some(lasting) = voice.lasting.get_mut(group) else { return false };
            let began = lasting.remove(&condition);
            if lasting.is_empty() {
                voice.lasting.remove(group);
            }
            began
        };
        let Some(began) = began else { return false };
        let mut alert = self.alert_of(event, Severity::Info, Some(group), text);
        alert.dedup_key = condition.key(group, &self.node);
        alert.resolves = Some(began);
        alert.fields.insert("condition".to_owned(), condition.name().to_owned());
        self.push(alert);
        true
    }

    /// Takes back what was told about the group and is not so any more. The engine tells most of it
    /// itself; this is for what a process before this one told, and for what ends with something
    /// else. `now` is asked for only if there is any.
    pub fn take_back(&self, group: &str, now: impl FnOnce() -> Outlook) {
        let told: Vec<Condition> = {
            let voice = self.voice();
            let Some(lasting) = voice.lasting.get(group) else { return };
            lasting.keys().copied().collect()
        };
        let now = now();
        for condition in told.into_iter().filter(|condition| condition.is_over(&now)) {
            let (event, text) = condition.end(now.kind);
            self.log(event, Some(group), text);
            self.end(group, condition, event, text);
        }
    }

    fn alert_of(
        &self,
        event: Notable,
        severity: Severity,
        group: Option<&str>,
        text: &str,
    ) -> Alert {
        let prefix = group.map(|group| format!("{group}: ")).unwrap_or_default();
        Alert {
            id: Uuid::new_v4(),
            at: SystemTime::now(),
            severity,
            event: event.name().to_owned(),
            group: group.map(str::to_owned),
            epoch: None,
            node: self.node.clone(),
            summary: format!("{prefix}{text}"),
            detail: event.explanation(group.unwrap_or("the group")),
            dedup_key: dedup_key(group.unwrap_or(&self.node), None, event),
            fields: BTreeMap::new(),
            lasting: false,
            resolves: None,
            folded: None,
        }
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
        self.push(self.alert_of(notable, severity, group, text));
    }

    /// The same about something that lasts.
    pub fn alert_lasting(
        &self,
        notable: Notable,
        severity: Severity,
        group: &str,
        condition: Condition,
        text: &str,
    ) {
        self.log(notable, Some(group), text);
        let mut alert = self.alert_of(notable, severity, Some(group), text);
        self.begin(group, condition, &mut alert);
        self.push(alert);
    }

    /// Tells of something that lasts and is no group's, or, with `resolves`, that it is over.
    pub fn matter(&self, matter: Matter<'_>) {
        let mut alert = self.alert_of(matter.event, matter.severity, None, &matter.text);
        alert.detail = format!("{}{}", matter.preface, alert.detail);
        alert.dedup_key = matter.key;
        alert.fields = matter.fields;
        alert.lasting = matter.resolves.is_none();
        alert.resolves = matter.resolves;
        self.push(alert);
    }

    /// The configuration on disk cannot be used.
    pub fn configuration_refused(&self, text: &str) {
        self.log(Notable::ConfigurationRefused, None, text);
        let event = Notable::ConfigurationRefused;
        let mut alert = self.alert_of(event, Severity::Warning, None, text);
        alert.dedup_key = self.configuration_key();
        alert.lasting = true;
        self.push(alert);
    }

    /// The configuration on disk is the one in use, since a reload or the start of the process.
    pub fn configuration_used(&self, text: &str) {
        let key = self.configuration_key();
        let Some(refused) = self.open().into_iter().find(|open| open.dedup_key == key) else {
            return;
        };
        let event = Notable::ConfigurationReloaded;
        let mut alert = self.alert_of(event, Severity::Info, None, text);
        alert.dedup_key = key;
        alert.resolves = Some(began(&refused));
        self.push(alert);
    }

    fn configuration_key(&self) -> String {
        format!("{}/configuration", self.node)
    }

    /// Takes back what was told about groups that are not watched any more.
    pub fn watches_only(&self, groups: &[&str]) {
        let gone: Vec<(String, Condition)> = {
            let voice = self.voice();
            let gone = voice.lasting.iter().filter(|(group, _)| !groups.contains(&group.as_str()));
            gone.flat_map(|(group, told)| told.keys().map(|one| (group.clone(), *one))).collect()
        };
        for (group, condition) in gone {
            let text = "the group is not watched here any more";
            self.log(Notable::AlertResolved, Some(&group), text);
            self.end(&group, condition, Notable::AlertResolved, text);
        }
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
            lasting: false,
            resolves: None,
            folded: None,
        };
        self.push(alert);
        let on_disk = match &self.voice().alerts {
            Some(alerts) => alerts.stored(),
            None => return false,
        };
        on_disk.await.unwrap_or(false)
    }

    /// What each channel still has to deliver.
    #[must_use]
    pub fn backlog(&self) -> Vec<Backlog> {
        let backlog = self.voice().alerts.as_ref().map(Alerts::backlog);
        backlog.map(|backlog| backlog.borrow().clone()).unwrap_or_default()
    }

    /// What was told and is neither over nor looked at.
    #[must_use]
    pub fn open(&self) -> Vec<Open> {
        let open = self.voice().alerts.as_ref().map(Alerts::open);
        open.map(|open| open.borrow().clone()).unwrap_or_default()
    }

    /// Somebody looked at these alerts. The answer says how many they were, and comes when that is on
    /// disk; `None` while the channels are exchanged.
    #[must_use]
    pub fn acknowledge(&self, which: Which, by: &str) -> Option<oneshot::Receiver<usize>> {
        let voice = self.voice();
        Some(voice.alerts.as_ref()?.acknowledge(which, by.to_owned()))
    }

    /// The loop made a turn.
    pub fn turned(&self, now: BootTime) {
        if let Some(dead_man) = &self.voice().dead_man {
            dead_man.turned(now);
        }
    }

    /// Goes on with other channels, or with the old ones if the new ones cannot be used.
    ///
    /// # Errors
    /// If a channel cannot be used.
    pub async fn apply(&self, old: &Settings, new: &Settings) -> anyhow::Result<()> {
        // It does not ping before it hears of a turn of the loop.
        let dead_man = start_dead_man(new.dead_man.as_ref(), &self.metrics)?;
        self.apply_channels(&old.channels, &new.channels).await?;
        if old.dead_man != new.dead_man {
            self.voice().dead_man = dead_man;
        }
        Ok(())
    }

    async fn apply_channels(&self, old: &[Channel], new: &[Channel]) -> anyhow::Result<()> {
        if old == new && self.voice().alerts.is_some() {
            return Ok(());
        }
        let before = self.voice().alerts.take();
        if let Some(before) = before {
            // One process, one outbox: the old deliveries end before the new ones begin.
            before.close(Duration::ZERO).await;
        }
        match start(&self.outbox, new, &self.metrics) {
            Ok(alerts) => {
                self.voice().alerts = Some(alerts);
                Ok(())
            }
            Err(error) => {
                let alerts = start(&self.outbox, old, &self.metrics)?;
                self.voice().alerts = Some(alerts);
                Err(error)
            }
        }
    }

    /// Waits until everything that was said is on disk, and a little for it to be delivered.
    pub async fn close(&self) {
        let alerts = {
            let mut voice = self.voice();
            voice.dead_man = None;
            voice.alerts.take()
        };
        if let Some(alerts) = alerts {
            alerts.close(LAST_DELIVERIES).await;
        }
    }

    fn push(&self, alert: Alert) {
        let refused = match &self.voice().alerts {
            Some(alerts) => alerts.push(alert).err(),
            None => Some(Box::new(alert)),
        };
        if let Some(alert) = refused {
            let text = format!("an alert is in the journal only: {}", alert.summary);
            emit(Notable::AlertFailed, About::default(), &text);
        }
    }

    fn voice(&self) -> std::sync::MutexGuard<'_, Voice> {
        // Nothing that holds the lock can panic; and a panic would end the process.
        self.voice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_dead_man(
    settings: Option<&settings::DeadMan>,
    metrics: &Metrics,
) -> anyhow::Result<Option<DeadMan>> {
    let Some(settings) = settings else { return Ok(None) };
    // It tells of each change only.
    let (sender, reports) = mpsc::channel(4);
    let dead_man = DeadMan::start(settings, sender)?;
    tokio::spawn(log_reports(reports, metrics.clone()));
    Ok(Some(dead_man))
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
            Report::Ping { fault: Some(fault) } => {
                (Notable::DeadManFailed, format!("the dead-man's ping fails: {fault}"))
            }
            Report::Ping { fault: None } => {
                (Notable::DeadManWorks, "the dead-man's ping works again".to_owned())
            }
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
        Report::NotStored { .. } | Report::Unreadable { .. } | Report::Ping { .. } => {}
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
        Notice::GuardGone { .. } => Notable::GuardGone,
        Notice::NoPeer { .. } => Notable::NoPeer,
        Notice::HandingOver { .. } => Notable::HandingOver,
        Notice::HandedOver { .. } => Notable::HandedOver,
        Notice::HandOverFailed { .. } => Notable::HandOverFailed,
        Notice::Rejoined => Notable::RedisRejoined,
        Notice::RejoinFailed { .. } => Notable::RedisRejoinFailed,
    }
}
