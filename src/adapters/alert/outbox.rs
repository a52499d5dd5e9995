//! Alerts on disk, until they are delivered.
//!
//! ```text
//! DIR/.lock
//! DIR/.open.json                        what was told and is neither over nor looked at
//! DIR/CHANNEL/ORDER.SEVERITY.ID.json    to be delivered, in this order
//! DIR/CHANNEL/tmp.NAME                  being written; left over by a crash, and then removed
//! DIR/CHANNEL/sent/                     delivered, so that the same id is not sent twice
//! DIR/CHANNEL/withdrawn/                no longer needed, as somebody reacted in time
//! DIR/CHANNEL/dead/                     refused by the channel; for a person to look at
//! DIR/CHANNEL/unreadable/               no alert, who knows why
//! ```
//!
//! A file appears under its name whole or not at all, and is on disk before [`Outbox::push`]
//! returns. Everything here blocks; [`super::Alerts`] gives it a thread.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use uuid::Uuid;

use super::message::Alert;
use super::open::{self, Open, OpenAlerts, Which};
use super::queue::Queue;
use crate::config::settings::{Channel, Severity};
use crate::time::BootTime;

/// Attempts to lock the outbox. A lock that was given up is held a moment longer by a program that
/// is just being started, such as a fence command: until it is loaded, it has all that we have open.
const LOCK_ATTEMPTS: u32 = 20;

/// Pause between two of them.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why the outbox cannot be used.
#[derive(Debug, Error)]
pub enum OutboxError {
    /// A directory cannot be made or read.
    #[error("cannot use the outbox for alerts in {path}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the outbox for alerts in {path} is in use by another process")]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// An alert could not be written. It is in memory meanwhile.
    #[error("cannot write an alert for the channel {channel}; it is kept in memory meanwhile")]
    Write {
        /// For which channel.
        channel: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What becomes of an alert in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The channel has it.
    Delivered,
    /// The channel refused it for good.
    Dead,
}

/// What a channel still has to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Which channel.
    pub channel: String,
    /// Alerts that are to be delivered.
    pub pending: usize,
    /// Those of them that are critical.
    pub critical: usize,
    /// Those of them that are in memory only, and would not survive a crash.
    pub in_memory: usize,
    /// Since when the oldest of them waits.
    pub oldest: Option<SystemTime>,
    /// Alerts that are sent only if nobody reacts in time.
    pub escalating: usize,
    /// Alerts that the channel refused for good and nobody removed yet.
    pub dead: usize,
    /// Alerts that were lost to a full queue since the process was started.
    pub dropped: u64,
    /// Why the last attempt failed, if it did.
    pub last_fault: Option<String>,
}

/// What happened in passing and has to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    Dropped { channel: String, id: Uuid, severity: Severity },
    Unreadable { channel: String, path: PathBuf, fault: String },
}

/// The next alert of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Which one.
    pub id: Uuid,
    /// What to send. It may stand for more alerts than that one; then it says so.
    pub alert: Alert,
}

/// Alerts on disk, until they are delivered.
#[derive(Debug)]
pub struct Outbox {
    queues: Vec<Queue>,
    open: OpenAlerts,
    notes: Vec<Note>,
    /// Held as long as this lives.
    _lock: File,
}

impl Outbox {
    /// Opens the outbox in `dir`, makes it if necessary, and cleans up after a crash.
    ///
    /// # Errors
    /// If a directory cannot be used, or another process uses it.
    pub fn open(dir: &Path, channels: &[Channel]) -> Result<Self, OutboxError> {
        let unusable = |source| OutboxError::Directory { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(unusable)?;
        let lock = File::create(dir.join(".lock")).map_err(unusable)?;
        let mut attempts = LOCK_ATTEMPTS;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempts > 1 => {
                    attempts -= 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(OutboxError::InUse { path: dir.to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(unusable(source)),
            }
        }
        let open = OpenAlerts::open(dir.join(open::FILE)).map_err(unusable)?;
        let mut outbox = Self { queues: vec![], open, notes: vec![], _lock: lock };
        for channel in channels {
            let path = dir.join(&channel.name);
            let (queue, waiting) = Queue::open(&path, channel, &mut outbox.notes)
                .map_err(|source| OutboxError::Directory { path, source })?;
            waiting.iter().for_each(|alert| outbox.open.note(alert));
            outbox.queues.push(queue);
        }
        Ok(outbox)
    }

    /// Stores `alert` for every channel that wants it. When this returns `Ok` it survives a crash. An
    /// alert whose id is known already is not stored again.
    ///
    /// # Errors
    /// If a channel's file could not be written. Nothing is lost: the alert is delivered from memory,
    /// and [`Outbox::flush`] tries to write it again.
    pub fn push(&mut self, alert: &Alert) -> Result<(), OutboxError> {
        let now = BootTime::now();
        let body = serde_json::to_vec(alert).unwrap_or_default();
        let seen = self
            .open
            .get(&alert.dedup_key)
            .is_some_and(|open| open.acknowledged_by.is_some() && alert.severity <= open.severity);
        self.open.note(alert);
        let mut outcome = Ok(());
        for queue in &mut self.queues {
            if !queue.wants(alert, seen) || queue.knows(alert.id) {
                continue;
            }
            queue.flush();
            if let Err(source) = queue.push(now, alert, body.clone(), &mut self.notes) {
                outcome = Err(OutboxError::Write { channel: queue.channel.clone(), source });
            }
        }
        outcome
    }

    /// Somebody looked at these, so nobody else need be called. Returns how many they are.
    pub fn acknowledge(&mut self, which: &Which, by: &str) -> usize {
        let keys = self.open.acknowledge(which, by);
        self.open.flush();
        for queue in &mut self.queues {
            keys.iter().for_each(|key| queue.seen_to(key));
        }
        keys.len()
    }

    /// What was told and is not over.
    #[must_use]
    pub fn open_alerts(&self) -> Vec<Open> {
        self.open.all()
    }

    /// Tries to write to disk what is in memory only. What fails stays in memory, and shows in
    /// [`Outbox::undelivered`].
    pub fn flush(&mut self) {
        self.queues.iter_mut().for_each(Queue::flush);
        self.open.flush();
    }

    /// Writes what is open, if the file is old. It need not be as new as the queues: what waits in
    /// them is put in again when they are opened.
    pub fn flush_open(&mut self) {
        self.open.flush();
    }

    /// The next alert to deliver through the channel with this number; it stays the next one until it
    /// is settled, but may come to stand for more of them.
    pub fn head(&mut self, channel: usize) -> Option<Letter> {
        self.queues.get_mut(channel)?.head(BootTime::now(), &mut self.notes)
    }

    /// When there will be one, if there is none now but some wait for their time.
    #[must_use]
    pub fn next_at(&self, channel: usize) -> Option<BootTime> {
        self.queues.get(channel)?.next_at(BootTime::now())
    }

    /// Takes an alert out of the queue of a channel, with those that it stood for. Harmless if it is
    /// not in it.
    pub fn settle(&mut self, channel: usize, id: Uuid, settled: Settled) {
        // What leaves the queue must be there.
        self.open.flush();
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.settle(BootTime::now(), id, settled);
        }
    }

    /// Notes why an attempt failed.
    pub fn failed(&mut self, channel: usize, fault: String) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.failed(fault);
        }
    }

    /// What every channel still has to deliver.
    #[must_use]
    pub fn undelivered(&self) -> Vec<Backlog> {
        self.queues.iter().map(Queue::backlog).collect()
    }

    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

/// What every channel has to deliver, of an outbox that no process uses just now. Nothing is changed.
///
/// # Errors
/// If a directory cannot be read.
pub fn peek(dir: &Path, channels: &[Channel]) -> io::Result<Vec<Backlog>> {
    channels.iter().map(|channel| Queue::peek(&dir.join(&channel.name), channel)).collect()
}
