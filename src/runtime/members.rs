//! What the nodes of a paired group tell one another through the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::adapters::postgres::Store;
use crate::adapters::postgres::paired::Report;
use crate::engine::Engine;
use crate::engine::observation::{Epoch, Nonce};
use crate::error::chain;
use crate::time::BootTime;

/// How this node is, about one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    group: String,
    max_epoch: Epoch,
    ready: bool,
    problems: Vec<String>,
    prepared_for: Option<Nonce>,
    window: Duration,
}

/// How this node is; `None` for a group in observed mode, in which nobody asks.
#[must_use]
pub fn report(now: BootTime, group: &str, engine: &Engine) -> Option<Own> {
    let window = engine.paired_window()?;
    let snapshot = engine.snapshot(now);
    Some(Own {
        group: group.to_owned(),
        max_epoch: snapshot.max_epoch,
        ready: snapshot.problems.as_ref().is_some_and(Vec::is_empty),
        problems: snapshot.problems.unwrap_or_default(),
        prepared_for: engine.prepared_for(now),
        window,
    })
}

/// The reports of this run of the daemon.
#[derive(Clone, Debug)]
pub struct Members {
    incarnation: Nonce,
    beat: Arc<AtomicU64>,
    last: Arc<Mutex<(BootTime, Vec<Own>)>>,
}

impl Members {
    /// Nothing was reported yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            incarnation: Nonce(Uuid::new_v4().as_u128()),
            beat: Arc::default(),
            last: Arc::new(Mutex::new((BootTime::ZERO, Vec::new()))),
        }
    }

    /// Whether a report is due, and takes note of it.
    #[must_use]
    pub fn is_due(&self, now: BootTime, reports: &[Own], pace: Duration) -> bool {
        // Nothing that holds the lock can panic; and a panic would end the process.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = !reports.is_empty() && (now.since(last.0) >= pace || last.1 != reports);
        if due {
            *last = (now, reports.to_vec());
        }
        due
    }

    /// Reports. The next report makes up for one that fails, and reads say that the store is away.
    pub async fn tell(&self, store: &mut Store, reports: Vec<Own>) {
        let beat = self.beat.fetch_add(1, Ordering::Relaxed) + 1;
        let rows: Vec<_> = reports
            .iter()
            .map(|own| Report {
                group: &own.group,
                max_epoch: own.max_epoch,
                ready: own.ready,
                problems: &own.problems,
                prepared_for: own.prepared_for,
                window: own.window,
            })
            .collect();
        if let Err(error) = store.report_members(self.incarnation, beat, &rows).await {
            tracing::debug!("the other nodes were not told how this one is: {}", chain(&error));
        }
    }
}
