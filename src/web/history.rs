//! What happened, as the store tells it. Read over a connection of its own, which lives for one
//! question: the connection of the daemon has better things to do, and nobody looks most of the
//! time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use crate::adapters::postgres::Store;
use crate::adapters::postgres::operator::{Record, RecordKind, RecordStatus};
use crate::config::settings::Settings;
use crate::error::chain;
use crate::time::BootTime;

/// Entries that are read and kept.
pub const RECORDS_MAX: u32 = 200;

/// How long the store may take for them, login included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Least time between two questions, whoever asks.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// The reader.
pub struct History {
    settings: Arc<Settings>,
    /// When the store was last asked. Locked while it is, so that one asks for all.
    asked: tokio::sync::Mutex<Option<BootTime>>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// When the store last answered.
    answered: Option<BootTime>,
    records: Arc<Vec<Record>>,
    fault: Option<String>,
}

/// What is known of the history.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Newest first.
    pub records: Arc<Vec<Record>>,
    /// How old that is; `None` if nothing was read yet.
    pub age: Option<Duration>,
    /// Why it could not be read just now.
    pub fault: Option<String>,
}

impl History {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, asked: tokio::sync::Mutex::default(), kept: Mutex::default() }
    }

    /// The last entries, at most so old if the store answers.
    pub async fn recent(&self, max_age: Duration) -> Seen {
        let mut asked = self.asked.lock().await;
        let now = BootTime::now();
        let old = |at: Option<BootTime>, than| at.is_none_or(|at| now.since(at) > than);
        let answered = self.lock().answered;
        if old(answered, max_age) && old(*asked, LEAST_PAUSE) {
            *asked = Some(now);
            let read = timeout(PATIENCE, self.read()).await;
            let mut kept = self.lock();
            match read {
                Ok(Ok(records)) => {
                    kept.records = Arc::new(records);
                    kept.answered = Some(BootTime::now());
                    kept.fault = None;
                }
                Ok(Err(fault)) => kept.fault = Some(fault),
                Err(_) => {
                    kept.fault = Some(format!("no answer within {} s", PATIENCE.as_secs()));
                }
            }
        }
        self.known()
    }

    /// What is known already, without asking.
    pub fn known(&self) -> Seen {
        let kept = self.lock();
        Seen {
            records: kept.records.clone(),
            age: kept.answered.map(|at| BootTime::now().since(at)),
            fault: kept.fault.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> Result<Vec<Record>, String> {
        let settings = &self.settings;
        let mut store = Store::new(&settings.store, &settings.node, PATIENCE, &settings.groups)
            .map_err(|error| chain(&error))?;
        store.history(None, RECORDS_MAX).await.map_err(|error| chain(&error))
    }
}

/// What the entries say about one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its newest epoch in them and when that began.
    pub epoch: Option<(u64, SystemTime)>,
    /// When a takeover was last completed.
    pub last_failover: Option<SystemTime>,
}

/// What the entries say about each group.
#[must_use]
pub fn facts(records: &[Record]) -> BTreeMap<String, Facts> {
    let mut all = BTreeMap::<String, Facts>::new();
    for record in records {
        let facts = all.entry(record.group.clone()).or_default();
        let takes_over = matches!(record.kind, RecordKind::Automatic | RecordKind::Operator);
        let begins_epoch =
            takes_over || matches!(record.kind, RecordKind::HandBack | RecordKind::HandOver);
        if let (true, Some(at)) = (begins_epoch, instant(&record.at))
            && facts.epoch.is_none_or(|(epoch, _)| epoch < record.epoch)
        {
            facts.epoch = Some((record.epoch, at));
        }
        let ended = record.ended_at.as_deref().and_then(instant);
        if let (true, Some(RecordStatus::Done), Some(ended)) = (takes_over, record.status, ended) {
            facts.last_failover = facts.last_failover.max(Some(ended));
        }
    }
    all
}

/// A time of the store as an instant.
#[must_use]
pub fn instant(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text).ok()
}
