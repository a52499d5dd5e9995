//! What is known of each check, for whoever wants to look. It is locked for as long as a sample takes
//! to be judged, or the board to be read, and never while anything is waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::tell::Voice;
use crate::adapters::postgres::archive::Figures;
use crate::config::monitoring::Check;
use crate::config::settings::Settings;
use crate::control::protocol::Response;
use crate::monitor::archive::{Chunk, Collector, Whose};
use crate::monitor::baseline::Baseline;
use crate::monitor::health::{self, Health};
use crate::monitor::measured::Measured;
use crate::monitor::threshold::{Figure, Reference};
use crate::monitor::tracker::{Change, Tracker};
use crate::time::BootTime;

/// What a probe found, or why it found nothing.
pub type Found = Result<Measured, String>;

/// The board. Clones are of the same one.
#[derive(Clone, Default)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    node: String,
    lines: Vec<Line>,
    /// By name of the baseline and of the check.
    baselines: BTreeMap<(String, String), Baseline>,
    gathered: Collector,
}

/// A check and what is known of it.
struct Line {
    check: Arc<Check>,
    tracker: Tracker,
}

/// A check whose level changed.
pub struct News {
    /// The check.
    pub check: Arc<Check>,
    /// How.
    pub change: Change,
    /// Further lines of the sample.
    pub details: Vec<String>,
}

impl Board {
    /// For a node that measures nothing.
    pub(super) fn node_is(&self, node: &str) {
        node.clone_into(&mut self.lock().node);
    }

    /// From now on has these checks. What is known of one that stays as it was is kept.
    pub(super) fn checks_are(&self, settings: &Settings, voice: &Voice) {
        let now = BootTime::now();
        let mut inner = self.lock();
        settings.node.clone_into(&mut inner.node);
        let mut before: BTreeMap<String, Line> =
            inner.lines.drain(..).map(|line| (line.check.name.clone(), line)).collect();
        let lines =
            settings.monitoring.checks.iter().map(|check| match before.remove(&check.name) {
                Some(line) if *line.check == *check => line,
                _ => {
                    let tracker = match voice.told(&check.name) {
                        Some(level) => Tracker::told(level, now),
                        None => Tracker::default(),
                    };
                    Line { check: Arc::new(check.clone()), tracker }
                }
            });
        inner.lines = lines.collect();
    }

    /// Takes in what a check found, and says whether its level changed.
    pub(super) fn take_in(&self, now: BootTime, index: usize, found: Found) -> Option<News> {
        let mut inner = self.lock();
        let Inner { lines, baselines, gathered, .. } = &mut *inner;
        let Line { check, tracker } = lines.get_mut(index)?;
        let compares = [&check.rule.warning, &check.rule.critical].into_iter().flatten();
        let compares = compares.into_iter().any(|one| one.refers_to(Reference::Baseline));
        let baseline = compares
            .then(|| baselines.get(&(check.baseline.clone(), check.name.clone())))
            .flatten();
        let figures = |reference: Reference, figure: Figure| match reference {
            Reference::Baseline => baseline?.figure(figure),
            Reference::Start => None,
        };
        let change = tracker.observe(now, found, &check.rule, &figures);
        let whose = Whose {
            index,
            name: &check.name,
            group: &check.group,
            kind: check.probe.kind(),
            suffix: &check.rule.suffix,
        };
        let value = tracker.last().and_then(|last| last.value);
        gathered.add(&whose, unix_millis(SystemTime::now()), value, tracker.level());
        let change = change?;
        let details = tracker.last().map(|last| last.details.clone()).unwrap_or_default();
        Some(News { check: check.clone(), change, details })
    }

    /// What was measured since this was last asked.
    pub(super) fn gathered(&self) -> Vec<Chunk> {
        self.lock().gathered.take()
    }

    /// From now on compares with these.
    pub(super) fn baselines_are(&self, baselines: Vec<(String, Figures)>) {
        let by_name = baselines
            .into_iter()
            .map(|(name, figures)| ((name, figures.name), figures.baseline))
            .collect();
        self.lock().baselines = by_name;
    }

    /// How everything is.
    #[must_use]
    pub fn health(&self) -> Health {
        let now = BootTime::now();
        let inner = self.lock();
        let checks = inner.lines.iter().map(|line| shown(now, &line.check, &line.tracker));
        Health::of(&inner.node, date(SystemTime::now()), checks.collect())
    }

    /// Answers how everything is, without keeping whoever asks here waiting.
    pub fn answer(&self, answer: oneshot::Sender<Response>) {
        let board = self.clone();
        tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone.
            let _gone = answer.send(Response::Health(board.health()));
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds the lock can panic; and a panic would end the process.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A check as it is shown.
#[must_use]
pub fn shown(now: BootTime, check: &Check, tracker: &Tracker) -> health::Check {
    let last = tracker.last();
    let pending = tracker.pending(&check.rule);
    let condition = |condition: &Option<crate::monitor::threshold::Condition>| {
        condition.as_ref().map(ToString::to_string)
    };
    health::Check {
        name: check.name.clone(),
        group: check.group.clone(),
        kind: check.probe.kind().to_owned(),
        level: tracker.level(),
        since_ms: last.map(|_| millis(now.since(tracker.since()))),
        value: last.and_then(|last| last.value),
        suffix: check.rule.suffix.clone(),
        text: last.map(|last| last.text.clone()).unwrap_or_default(),
        details: last.map(|last| last.details.clone()).unwrap_or_default(),
        fault: last.is_some_and(|last| last.fault),
        age_ms: last.map(|last| millis(now.since(last.at))),
        growth: last.and_then(|last| last.growth).map(|(growth, _)| growth),
        pending: pending.map(|(level, _)| level),
        pending_ms: pending.map(|(_, at)| millis(at.since(now))),
        warning: condition(&check.rule.warning),
        critical: condition(&check.rule.critical),
        weight: check.weight,
        runbook: check.runbook.clone(),
    }
}

fn unix_millis(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time for people.
pub(super) fn date(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at.max(SystemTime::UNIX_EPOCH)).to_string()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
