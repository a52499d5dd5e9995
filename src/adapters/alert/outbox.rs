//! Alerts on disk, until they are delivered.
//!
//! ```text
//! DIR/.lock
//! DIR/CHANNEL/ORDER.SEVERITY.ID.json    to be delivered, in this order
//! DIR/CHANNEL/tmp.ID                    being written; left over by a crash, and then removed
//! DIR/CHANNEL/sent/                     delivered, so that the same id is not sent twice
//! DIR/CHANNEL/dead/                     refused by the channel; for a person to look at
//! DIR/CHANNEL/unreadable/               no alert, who knows why
//! ```
//!
//! A file appears under its name whole or not at all, and is on disk before [`Outbox::push`]
//! returns. Everything here blocks; [`super::Alerts`] gives it a thread.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use thiserror::Error;
use uuid::Uuid;

use super::{Alert, severity};
use crate::config::settings::{Channel, Severity};

/// Alerts that wait on disk for one channel: days of a pager that is down. When there are more, the
/// oldest informational one goes first, then the oldest warning.
pub const PENDING_MAX: usize = 1000;

/// Alerts that wait in memory for one channel, because the disk does not take them or is full of
/// critical ones. Some kilobytes each.
pub const IN_MEMORY_MAX: usize = 100;

/// Delivered alerts that are remembered for one channel. An alert is pushed twice only within
/// moments, when a crash interrupted the first time.
const SENT_MAX: usize = 200;

/// Refused alerts that are kept for one channel. A channel that refuses everything must not fill
/// the disk.
const DEAD_MAX: usize = 200;

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
    /// Alerts that wait.
    pub pending: usize,
    /// Those of them that are critical.
    pub critical: usize,
    /// Those of them that are in memory only, and would not survive a crash.
    pub in_memory: usize,
    /// Since when the oldest of them waits.
    pub oldest: Option<SystemTime>,
    /// Alerts that the channel refused for good and nobody removed yet.
    pub dead: usize,
    /// Alerts that were lost to a full queue since the process was started.
    pub dropped: u64,
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
    /// Its JSON, as it was stored.
    pub body: Vec<u8>,
}

/// Alerts on disk, until they are delivered.
#[derive(Debug)]
pub struct Outbox {
    queues: Vec<Queue>,
    notes: Vec<Note>,
    /// Held as long as this lives.
    _lock: File,
}

/// What waits for one channel.
#[derive(Debug)]
struct Queue {
    channel: String,
    min_severity: Severity,
    dir: PathBuf,
    /// In the order of delivery.
    entries: VecDeque<Entry>,
    /// Names in `sent` and `dead`, oldest first.
    sent: VecDeque<String>,
    dead: VecDeque<String>,
    dropped: u64,
    last_order: u64,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    /// Its JSON, as long as it is not on disk.
    in_memory: Option<Vec<u8>>,
}

/// The name of a file, which says all that is needed to manage it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    /// Milliseconds since 1970 when it was pushed, made greater than the one before: the order of
    /// delivery survives a clock that was set back.
    order: u64,
    severity: Severity,
    id: Uuid,
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
        let mut outbox = Self { queues: vec![], notes: vec![], _lock: lock };
        for channel in channels {
            let path = dir.join(&channel.name);
            let queue = Queue::open(&path, channel, &mut outbox.notes)
                .map_err(|source| OutboxError::Directory { path, source })?;
            outbox.queues.push(queue);
        }
        Ok(outbox)
    }

    /// Stores `alert` for every channel that wants its severity. When this returns `Ok` it survives
    /// a crash. An alert whose id is known already is not stored again.
    ///
    /// # Errors
    /// If a channel's file could not be written. Nothing is lost: the alert is delivered from memory,
    /// and [`Outbox::flush`] tries to write it again.
    pub fn push(&mut self, alert: &Alert) -> Result<(), OutboxError> {
        let body = serde_json::to_vec(alert).unwrap_or_default();
        let mut outcome = Ok(());
        for queue in &mut self.queues {
            if alert.severity < queue.min_severity || queue.knows(alert.id) {
                continue;
            }
            queue.flush();
            if let Err(source) = queue.push(alert, body.clone(), &mut self.notes) {
                outcome = Err(OutboxError::Write { channel: queue.channel.clone(), source });
            }
        }
        outcome
    }

    /// Tries to write to disk what is in memory only. What fails stays in memory, and shows in
    /// [`Outbox::undelivered`].
    pub fn flush(&mut self) {
        self.queues.iter_mut().for_each(Queue::flush);
    }

    /// The next alert to deliver through the channel with this number; the same one until it is
    /// settled.
    pub fn head(&mut self, channel: usize) -> Option<Letter> {
        self.queues.get_mut(channel)?.head(&mut self.notes)
    }

    /// Takes an alert out of the queue of a channel. Harmless if it is not in it.
    pub fn settle(&mut self, channel: usize, id: Uuid, settled: Settled) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.settle(id, settled);
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

impl Queue {
    fn open(dir: &Path, channel: &Channel, notes: &mut Vec<Note>) -> io::Result<Self> {
        for directory in ["sent", "dead", "unreadable"] {
            fs::create_dir_all(dir.join(directory))?;
        }
        // The directories themselves must survive a crash, or their files do not.
        if let Some(parent) = dir.parent() {
            sync_directory(parent)?;
        }
        sync_directory(dir)?;
        let mut queue = Self {
            channel: channel.name.clone(),
            min_severity: channel.min_severity,
            dir: dir.to_owned(),
            entries: VecDeque::new(),
            sent: names(&dir.join("sent"))?.into(),
            dead: names(&dir.join("dead"))?.into(),
            dropped: 0,
            last_order: 0,
        };
        for name in names(dir)? {
            if name.starts_with("tmp.") {
                // Its alert was never promised to anybody.
                fs::remove_file(dir.join(&name))?;
            } else if let Some(name) = Name::parse(&name) {
                queue.entries.push_back(Entry { name, in_memory: None });
            } else {
                queue.move_aside(&name, "the name is not one of ours", notes);
            }
        }
        queue.entries.make_contiguous().sort_by_key(|entry| entry.name.order);
        let known = queue.sent.iter().chain(&queue.dead).filter_map(|name| Name::parse(name));
        let orders = known.chain(queue.entries.iter().map(|e| e.name)).map(|name| name.order);
        queue.last_order = orders.max().unwrap_or(0);
        Ok(queue)
    }

    fn knows(&self, id: Uuid) -> bool {
        let is_it = |name: &String| Name::parse(name).is_some_and(|name| name.id == id);
        self.entries.iter().any(|entry| entry.name.id == id)
            || self.sent.iter().any(is_it)
            || self.dead.iter().any(is_it)
    }

    fn push(&mut self, alert: &Alert, body: Vec<u8>, notes: &mut Vec<Note>) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_order = now_ms.max(self.last_order.saturating_add(1));
        let name = Name { order: self.last_order, severity: alert.severity, id: alert.id };

        let mut written = Ok(());
        let mut in_memory = None;
        if self.make_room(notes) {
            written = write(&self.dir, name, &body);
            if written.is_err() {
                in_memory = Some(body);
            }
        } else {
            in_memory = Some(body);
        }
        self.entries.push_back(Entry { name, in_memory });
        self.bound_memory(notes);
        written
    }

    /// Whether there is room on disk for one more.
    fn make_room(&mut self, notes: &mut Vec<Note>) -> bool {
        let on_disk = self.entries.iter().filter(|entry| entry.in_memory.is_none()).count();
        on_disk < PENDING_MAX || self.drop_oldest(Severity::Warning, Place::Disk, notes)
    }

    fn bound_memory(&mut self, notes: &mut Vec<Note>) {
        let in_memory = self.entries.iter().filter(|entry| entry.in_memory.is_some()).count();
        if in_memory > IN_MEMORY_MAX {
            // The last resort; the note tells of it.
            self.drop_oldest(Severity::Critical, Place::Memory, notes);
        }
    }

    /// Drops the oldest alert of the least severity, up to `max`. Returns whether there was one.
    fn drop_oldest(&mut self, max: Severity, place: Place, notes: &mut Vec<Note>) -> bool {
        let there = |entry: &&(usize, &Entry)| match place {
            Place::Disk => entry.1.in_memory.is_none(),
            Place::Memory => entry.1.in_memory.is_some(),
        };
        let victim = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.name.severity <= max)
            .filter(|entry| there(&entry))
            .min_by_key(|(index, entry)| (entry.name.severity, *index))
            .map(|(index, _)| index);
        let Some(entry) = victim.and_then(|index| self.entries.remove(index)) else { return false };
        let Name { id, severity, .. } = entry.name;
        if entry.in_memory.is_none() {
            // A file that stays is delivered by the next process, which does no harm.
            let _left = fs::remove_file(self.dir.join(entry.name.to_string()));
        }
        self.dropped += 1;
        notes.push(Note::Dropped { channel: self.channel.clone(), id, severity });
        true
    }

    fn flush(&mut self) {
        let mut room = PENDING_MAX
            .saturating_sub(self.entries.iter().filter(|entry| entry.in_memory.is_none()).count());
        for entry in &mut self.entries {
            let Some(body) = &entry.in_memory else { continue };
            if room == 0 || write(&self.dir, entry.name, body).is_err() {
                return;
            }
            entry.in_memory = None;
            room -= 1;
        }
    }

    fn head(&mut self, notes: &mut Vec<Note>) -> Option<Letter> {
        loop {
            let entry = self.entries.front()?;
            let id = entry.name.id;
            if let Some(body) = &entry.in_memory {
                return Some(Letter { id, body: body.clone() });
            }
            let name = entry.name.to_string();
            let fault = match fs::read(self.dir.join(&name)) {
                Ok(body) => match serde_json::from_slice::<Alert>(&body) {
                    Ok(alert) if alert.id == id => return Some(Letter { id, body }),
                    Ok(alert) => format!("it contains the alert {}", alert.id),
                    Err(error) => error.to_string(),
                },
                // It is not the file's fault; the next question may fare better.
                Err(error) if is_exhaustion(&error) => return None,
                Err(error) => error.to_string(),
            };
            self.entries.pop_front();
            self.move_aside(&name, &fault, notes);
        }
    }

    fn settle(&mut self, id: Uuid, settled: Settled) {
        let Some(index) = self.entries.iter().position(|entry| entry.name.id == id) else { return };
        let Some(entry) = self.entries.remove(index) else { return };
        let (directory, list, max) = match settled {
            Settled::Delivered => ("sent", &mut self.sent, SENT_MAX),
            Settled::Dead => ("dead", &mut self.dead, DEAD_MAX),
        };
        let directory = self.dir.join(directory);
        let name = entry.name.to_string();
        // If the disk takes neither, the alert may be delivered once more by the next process.
        let _at_least_once = match &entry.in_memory {
            None => fs::rename(self.dir.join(&name), directory.join(&name)),
            Some(body) => write(&directory, entry.name, body),
        };
        list.push_back(name);
        while list.len() > max
            && let Some(oldest) = list.pop_front()
        {
            // Counted again by the next process, which tries again.
            let _left = fs::remove_file(directory.join(oldest));
        }
    }

    fn backlog(&self) -> Backlog {
        let is_critical = |entry: &&Entry| entry.name.severity == Severity::Critical;
        Backlog {
            channel: self.channel.clone(),
            pending: self.entries.len(),
            critical: self.entries.iter().filter(is_critical).count(),
            in_memory: self.entries.iter().filter(|entry| entry.in_memory.is_some()).count(),
            oldest: self
                .entries
                .front()
                .map(|entry| UNIX_EPOCH + Duration::from_millis(entry.name.order)),
            dead: self.dead.len(),
            dropped: self.dropped,
        }
    }

    /// Takes a file out of the way that would otherwise block all behind it.
    fn move_aside(&self, name: &str, fault: &str, notes: &mut Vec<Note>) {
        let path = self.dir.join("unreadable").join(name);
        // A file that cannot be moved is met again by the next process, and blocks nothing here.
        let _left = fs::rename(self.dir.join(name), &path);
        notes.push(Note::Unreadable {
            channel: self.channel.clone(),
            path,
            fault: fault.to_owned(),
        });
    }
}

#[derive(Clone, Copy)]
enum Place {
    Disk,
    Memory,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".json")?.splitn(3, '.');
        let order = parts.next()?;
        // All of the same length, so that a listing is in order for people too.
        if order.len() != ORDER_DIGITS {
            return None;
        }
        Some(Self {
            order: order.parse().ok()?,
            severity: severity(parts.next()?)?,
            id: parts.next()?.parse().ok()?,
        })
    }
}

/// Of the greatest `u64`.
const ORDER_DIGITS: usize = 20;

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:0ORDER_DIGITS$}.{}.{}.json", self.order, self.severity.as_str(), self.id)
    }
}

/// Makes a file appear whole, and stay.
fn write(dir: &Path, name: Name, body: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("tmp.{}", name.id));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(name.to_string()))?;
        sync_directory(dir)
    })();
    if written.is_err() {
        // It may not even exist; if it does it is removed when the outbox is opened next.
        let _left = fs::remove_file(&temporary);
    }
    written
}

/// Whether this process or the system ran out of something for a moment.
fn is_exhaustion(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Names of the files in a directory, in order; directories left out.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
