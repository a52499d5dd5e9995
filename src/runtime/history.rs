//! Writes the timeline of a takeover into the store, and copies alerts from the store to the
//! outbox.
//!
//! Best effort and never in the way of a takeover: entries wait here while the store is away, and
//! the journal has them anyway.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::tell::Teller;
use super::worker::SharedStore;
use crate::adapters::postgres::StoreError;
use crate::adapters::postgres::tenure::{self, Ending, StepOutcome};
use crate::engine::observation::Token;
use crate::engine::plan::Step;
use crate::error::chain;

/// Entries that wait while the store is away. A takeover makes ten; a store that is away makes
/// none, as there is no takeover without it.
const QUEUE_MAX: usize = 256;

/// Pause before the first entry after a while without any. The steps of a takeover follow each other
/// within milliseconds, and would take turns with their own history at the one connection; a person
/// reads it later. Until then the journal has it, and after a crash the store its alerts.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause between attempts while the store does not answer.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// Attempts for one entry, so that one that the store refuses does not hold up the others for ever.
const ATTEMPTS_MAX: u32 = 30;

/// Something to write down.
#[derive(Debug)]
pub enum Entry {
    /// A step ended.
    Step {
        /// Of this group.
        group: String,
        /// In this tenure.
        token: Token,
        /// The step.
        step: Step,
        /// How it ended.
        outcome: StepOutcome,
        /// From the decision to its begin.
        after: Duration,
        /// How long it took.
        took: Option<Duration>,
        /// Why it failed, or what is not well about it.
        remark: Option<String>,
    },
    /// A takeover is complete.
    Finished {
        /// Of this group.
        group: String,
        /// In this tenure.
        token: Token,
        /// How long it took; `None` if it was found complete after a restart.
        took: Option<Duration>,
    },
    /// The store may have alerts that are not in the outbox yet.
    SpoolAlerts,
}

/// Starts the writer.
#[must_use]
pub fn spawn(store: SharedStore, teller: Teller) -> mpsc::Sender<Entry> {
    let (entries, mut entries_in) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        while let Some(first) = entries_in.recv().await {
            sleep(PAUSE).await;
            let mut next = Some(first);
            while let Some(entry) = next {
                write_at_last(&store, &teller, &entry).await;
                next = entries_in.try_recv().ok();
            }
        }
    });
    entries
}

/// Tries again for as long as there is hope.
async fn write_at_last(store: &SharedStore, teller: &Teller, entry: &Entry) {
    for attempt in 1..=ATTEMPTS_MAX {
        match write(store, teller, entry).await {
            Ok(()) | Err(StoreError::Superseded { .. }) => return,
            Err(error) if attempt == ATTEMPTS_MAX => {
                tracing::warn!("an entry of the history is lost: {}", chain(&error));
            }
            Err(_) => sleep(RETRY_EVERY).await,
        }
    }
}

async fn write(store: &SharedStore, teller: &Teller, entry: &Entry) -> Result<(), StoreError> {
    match entry {
        Entry::Step { group, token, step, outcome, after, took, remark } => {
            let step = tenure::Step {
                name: step.name().to_owned(),
                outcome: *outcome,
                after: *after,
                took: *took,
                detail: remark.as_ref().map_or(json!({}), |remark| json!({ "fault": remark })),
            };
            store.lock().await.record_step(group, *token, &step).await
        }
        Entry::Finished { group, token, took } => {
            store.lock().await.finish(group, *token, Ending::Done, *took, &json!({})).await
        }
        Entry::SpoolAlerts => {
            let alerts = store.lock().await.undelivered_alerts().await?;
            let mut spooled = Vec::new();
            for alert in &alerts {
                if teller.spool(alert).await {
                    spooled.push(alert.id);
                }
            }
            store.lock().await.mark_delivered(&spooled).await
        }
    }
}
