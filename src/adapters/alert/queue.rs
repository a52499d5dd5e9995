//! What waits for one channel, and in which order it goes.
//!
//! Alerts go in the order in which they came, with two exceptions. One about a thing that was told
//! too often lately waits, while others pass it; when its time has come it stands for all that came
//! about that thing meanwhile. And one that is for when nobody reacts waits for as long as that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::files::{self, TEMPORARY, is_exhaustion, names, sync_directory};
use super::fold;
use super::message::{Alert, severity};
use super::outbox::{Backlog, Letter, Note, Settled};
use super::story::Stories;
use crate::config::settings::{Channel, Severity};
use crate::time::BootTime;

/// Alerts that wait on disk for one channel: days of a pager that is down. When there are more, the
/// oldest informational one goes first, then the oldest warning.
const PENDING_MAX: usize = 1000;

/// Alerts that wait in memory for one channel, because the disk does not take them or is full of
/// critical ones. Some kilobytes each.
const IN_MEMORY_MAX: usize = 100;

/// Delivered alerts that are remembered for one channel. An alert is pushed twice only within
/// moments, when a crash interrupted the first time.
const SENT_MAX: usize = 200;

/// Refused alerts that are kept for one channel. A channel that refuses everything must not fill
/// the disk.
const DEAD_MAX: usize = 200;

/// The same event about so many things at once is one message to people.
const STORM: usize = 10;

/// What waits for one channel.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) channel: String,
    min_severity: Severity,
    escalate_after: Option<Duration>,
    is_read_by_people: bool,
    keeps_incidents: bool,
    dir: PathBuf,
    /// In the order in which they came.
    entries: VecDeque<Entry>,
    /// Names in the directories of what is done with, oldest first.
    sent: VecDeque<String>,
    withdrawn: VecDeque<String>,
    dead: VecDeque<String>,
    dropped: u64,
    last_order: u64,
    stories: Stories,
    /// Things that a channel for escalation was told of, and not yet that they are over.
    told: BTreeSet<String>,
    /// The alert that is being sent, and all that it stands for.
    underway: Option<(Uuid, Vec<Uuid>)>,
    last_fault: Option<String>,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    /// Its JSON, as long as it is not on disk.
    in_memory: Option<Vec<u8>>,
    key: String,
    event: String,
    resolves: bool,
    /// Not before then.
    due: BootTime,
}

/// The name of a file, which says what is needed to keep it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    /// Milliseconds since 1970 when it was pushed, made greater than the one before: the order of
    /// delivery survives a clock that was set back.
    order: u64,
    severity: Severity,
    id: Uuid,
}

impl Queue {
    /// The queue as it was left, and the alerts that wait in it.
    pub(super) fn open(
        dir: &Path,
        channel: &Channel,
        notes: &mut Vec<Note>,
    ) -> io::Result<(Self, Vec<Alert>)> {
        for directory in ["sent", "withdrawn", "dead", "unreadable"] {
            fs::create_dir_all(dir.join(directory))?;
        }
        // The directories themselves must survive a crash, or their files do not.
        if let Some(parent) = dir.parent() {
            sync_directory(parent)?;
        }
        sync_directory(dir)?;
        let mut queue = Self::new(dir, channel)?;
        let waiting = queue.read_entries(notes)?;
        queue.read_told();
        let done = queue.sent.iter().chain(&queue.withdrawn).chain(&queue.dead);
        let done = done.filter_map(|name| Name::parse(name));
        let orders = done.chain(queue.entries.iter().map(|e| e.name)).map(|name| name.order);
        queue.last_order = orders.max().unwrap_or(0);
        Ok((queue, waiting))
    }

    fn new(dir: &Path, channel: &Channel) -> io::Result<Self> {
        Ok(Self {
            channel: channel.name.clone(),
            min_severity: channel.min_severity,
            escalate_after: channel.escalate_after,
            is_read_by_people: channel.kind.is_read_by_people(),
            keeps_incidents: channel.kind.keeps_incidents(),
            dir: dir.to_owned(),
            entries: VecDeque::new(),
            sent: names(&dir.join("sent"))?.into(),
            withdrawn: names(&dir.join("withdrawn"))?.into(),
            dead: names(&dir.join("dead"))?.into(),
            dropped: 0,
            last_order: 0,
            stories: Stories::new(channel.fold_within),
            told: BTreeSet::new(),
            underway: None,
            last_fault: None,
        })
    }

    /// What is to be delivered, without touching anything: the directory may be another process's.
    pub(super) fn peek(dir: &Path, channel: &Channel) -> io::Result<Backlog> {
        let mut queue = Self::new(dir, channel)?;
        let wall = milliseconds(SystemTime::now());
        let patience = queue.escalate_after.unwrap_or_default();
        for name in names(dir)?.iter().filter_map(|name| Name::parse(name)) {
            let waited = Duration::from_millis(wall.saturating_sub(name.order));
            queue.entries.push_back(Entry {
                name,
                in_memory: None,
                key: String::new(),
                event: String::new(),
                resolves: false,
                due: BootTime::now() + patience.saturating_sub(waited),
            });
        }
        Ok(queue.backlog())
    }

    fn read_entries(&mut self, notes: &mut Vec<Note>) -> io::Result<Vec<Alert>> {
        let (now, wall) = (BootTime::now(), milliseconds(SystemTime::now()));
        let mut waiting = Vec::new();
        // In their order, as all begin with it in the same length.
        for file in names(&self.dir)? {
            if file.starts_with(TEMPORARY) {
                // Its alert was never promised to anybody.
                fs::remove_file(self.dir.join(&file))?;
                continue;
            }
            let Some(name) = Name::parse(&file) else {
                self.move_aside(&file, "the name is not one of ours", notes);
                continue;
            };
            match self.read(name) {
                Ok(alert) => {
                    // By a clock that may have been set: it waits once more for as long, at most.
                    let waited = Duration::from_millis(wall.saturating_sub(name.order));
                    let left = self.escalate_after.unwrap_or_default().saturating_sub(waited);
                    self.entries.push_back(Entry::new(name, &alert, None, now + left));
                    waiting.push(alert);
                }
                Err(Unread::Later(error)) => return Err(error),
                Err(Unread::Never(fault)) => self.move_aside(&file, &fault, notes),
            }
        }
        Ok(waiting)
    }

    fn read_told(&mut self) {
        if self.escalate_after.is_none() {
            return;
        }
        for name in self.sent.clone() {
            let body = fs::read(self.dir.join("sent").join(name)).unwrap_or_default();
            let Ok(alert) = serde_json::from_slice::<Alert>(&body) else { continue };
            self.note_told(&alert.dedup_key, alert.resolves.is_some());
        }
    }

    fn note_told(&mut self, key: &str, resolves: bool) {
        if self.escalate_after.is_some() {
            if resolves {
                self.told.remove(key)
            } else {
                self.told.insert(key.to_owned())
            };
        }
    }

    /// Whether the channel is to be told; `seen` if somebody has looked at it already.
    pub(super) fn wants(&mut self, alert: &Alert, seen: bool) -> bool {
        let Some(resolves) = &alert.resolves else {
            return match self.escalate_after {
                None => alert.severity >= self.min_severity,
                Some(_) => alert.severity == Severity::Critical && !seen,
            };
        };
        if self.escalate_after.is_some() {
            self.seen_to(&alert.dedup_key);
            let underway = self.underway.as_ref().map(|(id, _)| *id);
            return self.told.contains(&alert.dedup_key)
                || self
                    .entries
                    .iter()
                    .any(|entry| entry.key == alert.dedup_key && Some(entry.name.id) == underway);
        }
        // Who was told that it began is told that it is over.
        alert.severity.max(resolves.severity) >= self.min_severity
    }

    /// Somebody reacted to what has this key, so nobody is to be called any more.
    pub(super) fn seen_to(&mut self, key: &str) {
        if self.escalate_after.is_none() {
            return;
        }
        let underway: Vec<Uuid> = self.underway.iter().flat_map(|(_, ids)| ids.clone()).collect();
        let ids: Vec<Uuid> = self
            .entries
            .iter()
            .filter(|entry| entry.key == key && !entry.resolves)
            .map(|entry| entry.name.id)
            .filter(|id| !underway.contains(id))
            .collect();
        ids.into_iter().for_each(|id| self.put_away(id, Away::Withdrawn));
    }

    pub(super) fn knows(&self, id: Uuid) -> bool {
        let is_it = |name: &String| Name::parse(name).is_some_and(|name| name.id == id);
        self.entries.iter().any(|entry| entry.name.id == id)
            || [&self.sent, &self.withdrawn, &self.dead].into_iter().flatten().any(is_it)
    }

    pub(super) fn push(
        &mut self,
        now: BootTime,
        alert: &Alert,
        body: Vec<u8>,
        notes: &mut Vec<Note>,
    ) -> io::Result<()> {
        let wall = milliseconds(SystemTime::now());
        self.last_order = wall.max(self.last_order.saturating_add(1));
        let name = Name { order: self.last_order, severity: alert.severity, id: alert.id };

        let mut written = Ok(());
        let mut in_memory = None;
        if self.make_room(notes) {
            written = files::write(&self.path(name), &body);
            if written.is_err() {
                in_memory = Some(body);
            }
        } else {
            in_memory = Some(body);
        }
        let waits = if alert.resolves.is_some() { None } else { self.escalate_after };
        let due = now + waits.unwrap_or_default();
        self.entries.push_back(Entry::new(name, alert, in_memory, due));
        self.bound_memory(notes);
        written
    }

    fn path(&self, name: Name) -> PathBuf {
        self.dir.join(name.to_string())
    }

    fn on_disk(&self) -> usize {
        self.entries.iter().filter(|entry| entry.in_memory.is_none()).count()
    }

    /// Whether there is room on disk for one more.
    fn make_room(&mut self, notes: &mut Vec<Note>) -> bool {
        self.on_disk() < PENDING_MAX || self.drop_oldest(Severity::Warning, Place::Disk, notes)
    }

    fn bound_memory(&mut self, notes: &mut Vec<Note>) {
        if self.entries.len() - self.on_disk() > IN_MEMORY_MAX {
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
            let _left = fs::remove_file(self.path(entry.name));
        }
        self.dropped += 1;
        notes.push(Note::Dropped { channel: self.channel.clone(), id, severity });
        true
    }

    pub(super) fn flush(&mut self) {
        let mut room = PENDING_MAX.saturating_sub(self.on_disk());
        for entry in &mut self.entries {
            let Some(body) = &entry.in_memory else { continue };
            let path = self.dir.join(entry.name.to_string());
            if room == 0 || files::write(&path, body).is_err() {
                return;
            }
            entry.in_memory = None;
            room -= 1;
        }
    }

    // ---- what is next ----

    pub(super) fn head(&mut self, now: BootTime, notes: &mut Vec<Note>) -> Option<Letter> {
        self.underway = None;
        loop {
            let (_, index) = self.firsts(now).into_iter().find(|(at, _)| *at <= now)?;
            let members = self.members(now, index);
            let mut alerts = Vec::new();
            for entry in members.iter().filter_map(|index| self.entries.get(*index)) {
                let read = match &entry.in_memory {
                    Some(body) => parse(body, entry.name.id),
                    None => self.read(entry.name),
                };
                match read {
                    Ok(alert) => alerts.push(alert),
                    // It is not the file's fault; the next question may fare better.
                    Err(Unread::Later(_)) => return None,
                    Err(Unread::Never(fault)) => {
                        let name = entry.name;
                        self.entries.retain(|entry| entry.name.id != name.id);
                        self.move_aside(&name.to_string(), &fault, notes);
                        alerts.clear();
                        break;
                    }
                }
            }
            let ids = alerts.iter().map(|alert| alert.id).collect();
            // None if one was no alert; then the question is another one.
            let Some(alert) = fold::fold(alerts) else { continue };
            self.underway = Some((alert.id, ids));
            return Some(Letter { id: alert.id, alert });
        }
    }

    /// When the next alert may be sent, if that is not now.
    pub(super) fn next_at(&self, now: BootTime) -> Option<BootTime> {
        self.firsts(now).into_iter().map(|(at, _)| at).min()
    }

    /// The first alert about each thing, in the order in which they came, and when it may be sent.
    fn firsts(&self, now: BootTime) -> Vec<(BootTime, usize)> {
        // A thing that got worse than all that was told of it does not wait behind the lesser.
        let mut worst: BTreeMap<&str, Severity> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| !entry.resolves) {
            let worst = worst.entry(&entry.key).or_insert(Severity::Info);
            *worst = entry.name.severity.max(*worst);
        }
        let mut seen = BTreeSet::new();
        let firsts = self.entries.iter().enumerate().filter(|(_, e)| seen.insert(e.key.as_str()));
        firsts
            .map(|(index, entry)| {
                let worst = worst.get(entry.key.as_str()).copied().unwrap_or(Severity::Info);
                let from = match entry.resolves && self.keeps_incidents {
                    // An incident that is over calls nobody any more, and must not.
                    true => entry.due,
                    false => self.stories.from(now, &entry.key, worst).max(entry.due),
                };
                (from, index)
            })
            .collect()
    }

    /// All that go with the alert at `index`, which is the first about its thing.
    fn members(&self, now: BootTime, index: usize) -> Vec<usize> {
        let Some(first) = self.entries.get(index) else { return Vec::new() };
        let same = |(index, entry): (usize, &Entry)| {
            (entry.key == first.key && entry.due <= now).then_some(index)
        };
        let mut about_it: Vec<usize> = self.entries.iter().enumerate().filter_map(same).collect();
        if about_it.len() > self.stories.left(now, &first.key) {
            // A service that is told only that it is over would never show that it was.
            let is_end = |index: &usize| self.entries.get(*index).is_some_and(|e| e.resolves);
            if self.keeps_incidents && !first.resolves && about_it.last().is_some_and(is_end) {
                about_it.pop();
            }
            return about_it;
        }
        if self.is_read_by_people && self.stories.is_on() {
            let alike = |(at, index): (BootTime, usize)| {
                let entry = self.entries.get(index)?;
                let alike = entry.event == first.event && entry.resolves == first.resolves;
                (alike && at <= now).then_some(index)
            };
            let storm: Vec<usize> = self.firsts(now).into_iter().filter_map(alike).collect();
            if storm.len() >= STORM {
                return storm;
            }
        }
        vec![index]
    }

    fn read(&self, name: Name) -> Result<Alert, Unread> {
        match fs::read(self.path(name)) {
            Ok(body) => parse(&body, name.id),
            Err(error) if is_exhaustion(&error) => Err(Unread::Later(error)),
            Err(error) => Err(Unread::Never(error.to_string())),
        }
    }

    // ---- what is done with ----

    pub(super) fn settle(&mut self, now: BootTime, id: Uuid, settled: Settled) {
        let ids = match self.underway.take_if(|(head, _)| *head == id) {
            Some((_, ids)) => ids,
            None => vec![id],
        };
        let mut told: BTreeMap<String, (Severity, bool)> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| ids.contains(&entry.name.id)) {
            let told = told.entry(entry.key.clone()).or_insert((entry.name.severity, false));
            *told = (told.0.max(entry.name.severity), entry.resolves);
        }
        let away = match settled {
            Settled::Delivered => {
                self.last_fault = None;
                for (key, (severity, resolves)) in told {
                    self.stories.note(now, &key, severity);
                    self.note_told(&key, resolves);
                }
                Away::Sent
            }
            Settled::Dead => Away::Dead,
        };
        ids.into_iter().for_each(|id| self.put_away(id, away));
    }

    pub(super) fn failed(&mut self, fault: String) {
        // Until the next attempt somebody may react to it.
        self.underway = None;
        self.last_fault = Some(fault);
    }

    fn put_away(&mut self, id: Uuid, away: Away) {
        let Some(index) = self.entries.iter().position(|entry| entry.name.id == id) else { return };
        let Some(entry) = self.entries.remove(index) else { return };
        let (directory, list, max) = match away {
            Away::Sent => ("sent", &mut self.sent, SENT_MAX),
            Away::Withdrawn => ("withdrawn", &mut self.withdrawn, SENT_MAX),
            Away::Dead => ("dead", &mut self.dead, DEAD_MAX),
        };
        let directory = self.dir.join(directory);
        let name = entry.name.to_string();
        // If the disk takes neither, the alert may be delivered once more by the next process.
        let _at_least_once = match &entry.in_memory {
            None => fs::rename(self.dir.join(&name), directory.join(&name)),
            Some(body) => files::write(&directory.join(&name), body),
        };
        list.push_back(name);
        while list.len() > max
            && let Some(oldest) = list.pop_front()
        {
            // Counted again by the next process, which tries again.
            let _left = fs::remove_file(directory.join(oldest));
        }
    }

    pub(super) fn backlog(&self) -> Backlog {
        let now = BootTime::now();
        let due = || self.entries.iter().filter(|entry| entry.due <= now);
        let is_critical = |entry: &&Entry| entry.name.severity == Severity::Critical;
        let since = |entry: &Entry| UNIX_EPOCH + Duration::from_millis(entry.name.order);
        Backlog {
            channel: self.channel.clone(),
            pending: due().count(),
            critical: due().filter(is_critical).count(),
            in_memory: self.entries.len() - self.on_disk(),
            oldest: due().next().map(since),
            escalating: self.entries.len() - due().count(),
            dead: self.dead.len(),
            dropped: self.dropped,
            last_fault: self.last_fault.clone(),
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

/// Why a file is no alert, for now or for good.
enum Unread {
    Later(io::Error),
    Never(String),
}

fn parse(body: &[u8], id: Uuid) -> Result<Alert, Unread> {
    match serde_json::from_slice::<Alert>(body) {
        Ok(alert) if alert.id == id => Ok(alert),
        Ok(alert) => Err(Unread::Never(format!("it contains the alert {}", alert.id))),
        Err(error) => Err(Unread::Never(error.to_string())),
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy)]
enum Place {
    Disk,
    Memory,
}

#[derive(Clone, Copy)]
enum Away {
    Sent,
    Withdrawn,
    Dead,
}

impl Entry {
    fn new(name: Name, alert: &Alert, in_memory: Option<Vec<u8>>, due: BootTime) -> Self {
        Self {
            name,
            in_memory,
            key: alert.dedup_key.clone(),
            event: alert.event.clone(),
            resolves: alert.resolves.is_some(),
            due,
        }
    }
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
