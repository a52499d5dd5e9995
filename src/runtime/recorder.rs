//! Keeps what the engines were told and what they said, so that a decision can be looked at
//! afterwards, and made once more by the same code: `understudy replay`, `understudy explain
//! --recorded`.
//!
//! JSON lines in the state directory, of two kinds. A *head* is the whole engine of a group as it
//! was; it begins each file, and comes again after anything was lost. A *turn* is an event, or a new
//! policy, and what the engine said to it. Turns in which nothing happened are left out: a turn says
//! when the one before it was, and those between can be made up.
//!
//! Best effort, and never in the way: one thread writes, lines that come faster than the disk takes
//! them are dropped, and a disk that is nearly full is left to those who need it more.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::files;
use crate::engine::Engine;
use crate::engine::event::{Action, Event};
use crate::engine::policy::Policy;
use crate::time::BootTime;

/// Size of one file; there are two. With one group and the defaults that is about a month.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the recording leaves free on the disk of the state directory. Memories and alerts matter
/// more, and so does the database that may share the disk.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// How often the free space is looked at, in lines.
const LOOK_EVERY: u64 = 64;

/// Lines that wait for the disk. A takeover makes some fifty.
const QUEUE_MAX: usize = 1_024;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// When, for people.
    pub wall: String,
    /// When, by the clock that decides.
    pub at: BootTime,
    /// Name of the group.
    pub group: String,
    /// What it says.
    #[serde(flatten)]
    pub what: What,
}

/// What a line says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "made, written once and gone")]
pub enum What {
    /// The engine as it is before the next turn.
    Head {
        /// Version of understudy.
        version: String,
        /// All of it.
        engine: Engine,
    },
    /// Something happened.
    Turn {
        /// When the engine was asked before that, for whatever reason.
        previous: BootTime,
        /// What.
        event: Event,
        /// What the engine said to it, as JSON.
        actions: Value,
    },
    /// The configuration was loaded again.
    Policy {
        /// When the engine was asked before that.
        previous: BootTime,
        /// The new one.
        policy: Policy,
    },
}

/// Where lines go.
pub struct Recorder {
    lines: mpsc::Sender<String>,
    /// Grows when what was written cannot be gone on with: each group then needs a new head.
    broken: Arc<AtomicU64>,
}

/// How far the recording of a group is.
#[derive(Debug, Default)]
pub struct Track {
    /// [`Recorder::broken`] when its last head was written, plus one; zero if none was.
    head: u64,
    /// When its engine was last asked.
    previous: BootTime,
}

/// The files, the older first.
#[must_use]
pub fn paths(state_dir: &Path) -> [PathBuf; 2] {
    ["record.1.jsonl", "record.jsonl"].map(|name| state_dir.join(name))
}

impl Recorder {
    /// Starts the writer.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub fn start(state_dir: &Path) -> io::Result<Self> {
        let (lines, mut lines_in) = mpsc::channel::<String>(QUEUE_MAX);
        let broken = Arc::new(AtomicU64::new(0));
        let mut writer = Writer::new(state_dir, broken.clone());
        thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            while let Some(line) = lines_in.blocking_recv() {
                writer.write(&line);
            }
        })?;
        Ok(Self { lines, broken })
    }

    /// Before a turn of `engine`: writes its head if the recording needs one.
    pub fn before(&self, track: &mut Track, now: BootTime, group: &str, engine: &Engine) {
        let generation = self.broken.load(Ordering::Relaxed) + 1;
        if track.head == generation {
            return;
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let head = What::Head { version, engine: engine.clone() };
        if self.write(now, group, head) {
            track.head = generation;
        }
    }

    /// After a turn in which something happened.
    pub fn turn(&self, track: &Track, now: BootTime, group: &str, event: Event, said: &[Action]) {
        let actions = serde_json::to_value(said).unwrap_or_default();
        self.write(now, group, What::Turn { previous: track.previous, event, actions });
    }

    /// After the engine was given another policy.
    pub fn policy(&self, track: &Track, now: BootTime, group: &str, policy: Policy) {
        self.write(now, group, What::Policy { previous: track.previous, policy });
    }

    fn write(&self, at: BootTime, group: &str, what: What) -> bool {
        let wall = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let line = Line { wall, at, group: group.to_owned(), what };
        let Ok(text) = serde_json::to_string(&line) else { return false };
        let sent = self.lines.try_send(text + "\n").is_ok();
        if !sent {
            self.broken.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }
}

impl Track {
    /// The engine was asked.
    pub const fn asked(&mut self, now: BootTime) {
        self.previous = now;
    }
}

/// The thread's side.
struct Writer {
    paths: [PathBuf; 2],
    file: Option<(File, u64)>,
    lines: u64,
    broken: Arc<AtomicU64>,
    /// What was said about the trouble that there is, so that it is said once.
    complained: bool,
}

impl Writer {
    fn new(state_dir: &Path, broken: Arc<AtomicU64>) -> Self {
        Self { paths: paths(state_dir), file: None, lines: 0, broken, complained: false }
    }

    fn write(&mut self, line: &str) {
        match self.try_write(line) {
            Ok(()) => self.complained = false,
            Err(error) => {
                self.file = None;
                self.broken.fetch_add(1, Ordering::Relaxed);
                if !self.complained {
                    self.complained = true;
                    tracing::warn!(
                        "decisions are not recorded in {}: {error}; this hurts nothing else",
                        self.paths[1].display()
                    );
                }
            }
        }
    }

    fn try_write(&mut self, line: &str) -> io::Result<()> {
        if self.lines.is_multiple_of(LOOK_EVERY) {
            let directory = self.paths[1].parent().unwrap_or(Path::new("."));
            let free = files::free_bytes(directory)?;
            if free < FREE_BYTES_MIN {
                let text = format!("the disk is nearly full ({free} bytes left)");
                return Err(io::Error::new(io::ErrorKind::StorageFull, text));
            }
        }
        self.lines += 1;
        let (mut file, bytes) = match self.file.take() {
            Some(open) => open,
            None => {
                let file = OpenOptions::new().append(true).create(true).open(&self.paths[1])?;
                let bytes = file.metadata()?.len();
                (file, bytes)
            }
        };
        file.write_all(line.as_bytes())?;
        let bytes = bytes + line.len() as u64;
        if bytes < FILE_BYTES_MAX {
            self.file = Some((file, bytes));
        } else {
            fs::rename(&self.paths[1], &self.paths[0])?;
            self.broken.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_becomes_the_older_one_and_asks_for_a_new_head() {
        let dir = tempfile::tempdir().unwrap();
        let broken = Arc::new(AtomicU64::new(0));
        let mut writer = Writer::new(dir.path(), broken.clone());
        let line = "x".repeat(1024 * 1024);
        for _ in 0..17 {
            writer.write(&line);
        }
        let [older, present] = paths(dir.path()).map(|path| fs::metadata(path).unwrap().len());
        assert_eq!((older, present), (FILE_BYTES_MAX, 1024 * 1024));
        assert_eq!(broken.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_cannot_be_written_asks_for_a_new_head() {
        let broken = Arc::new(AtomicU64::new(0));
        let mut writer = Writer::new(Path::new("/nonexistent"), broken.clone());
        writer.write("{}\n");
        assert_eq!(broken.load(Ordering::Relaxed), 1);
    }
}
