//! Brings what was measured into the archive, by way of the spool when the store is away, and brings
//! baselines back.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::board::Board;
use super::spool::Spool;
use crate::adapters::postgres::archive::{Archive, ArchiveError};
use crate::config::monitoring::Keeping;
use crate::config::settings::Settings;
use crate::error::chain;
use crate::monitor::archive::Chunk;
use crate::telemetry::logging::About;
use crate::telemetry::{Notable, emit};

/// Batches that wait to be written. One comes every few minutes.
const BATCHES_MAX: usize = 16;

/// How often baselines are read: a person who saved one waits for it.
const BASELINES_EVERY: Duration = Duration::from_secs(10);

/// How often what is too old is dropped.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// How long the store is left alone after it did not take a batch.
const RETRY_AFTER: Duration = Duration::from_secs(20);

/// How long the last batch may take when the process ends, before it goes to the spool.
const LAST_BATCH: Duration = Duration::from_secs(1);

/// Gives batches to the keeper.
pub(super) type Batches = mpsc::Sender<Vec<Chunk>>;

/// Keeps what was measured.
pub(super) struct Keeper {
    archive: Archive,
    spool: Spool,
    keeping: Keeping,
    board: Board,
    /// Whether the store took the last batch, or is not known not to.
    well: bool,
    baselines_at: Instant,
    forget_at: Instant,
}

impl Keeper {
    /// Gets ready.
    ///
    /// # Errors
    /// If the store or the spool cannot be used, in words.
    pub(super) fn new(settings: &Settings, board: Board) -> Result<Self, String> {
        let archive =
            Archive::new(&settings.store, &settings.node).map_err(|error| chain(&error))?;
        let keeping = settings.monitoring.keeping.clone();
        let state_dir: &PathBuf = &settings.state_dir;
        let spool = Spool::open(state_dir, keeping.spool_bytes)
            .map_err(|error| format!("{}: {error}", state_dir.join("samples").display()))?;
        let now = Instant::now();
        Ok(Self {
            archive,
            spool,
            keeping,
            board,
            well: true,
            baselines_at: now,
            forget_at: now + RETRY_AFTER,
        })
    }

    /// A way to give it batches, and the other end.
    pub(super) fn channel() -> (Batches, mpsc::Receiver<Vec<Chunk>>) {
        mpsc::channel(BATCHES_MAX)
    }

    /// Works until the other end of the batches is gone, and leaves nothing behind in memory.
    pub(super) async fn work(mut self, mut batches: mpsc::Receiver<Vec<Chunk>>) {
        let mut again_at = Instant::now();
        loop {
            let due = self.baselines_at.min(self.forget_at).min(again_at.max(Instant::now()));
            let idle = self.spool_is_empty();
            let due = if idle { self.baselines_at.min(self.forget_at) } else { due.max(again_at) };
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => self.keep(batch).await,
                    None => break,
                },
                () = sleep_until(due) => {}
            }
            let now = Instant::now();
            if now >= again_at && !self.drain(now + RETRY_AFTER).await {
                again_at = now + RETRY_AFTER;
            }
            if now >= self.baselines_at {
                self.baselines_at = now + BASELINES_EVERY;
                self.read_baselines().await;
            }
            if now >= self.forget_at {
                self.forget_at = now + FORGET_EVERY;
                let keeping = &self.keeping;
                let forgotten = self.archive.forget(keeping.days(), keeping.hours_days()).await;
                self.note(forgotten);
            }
        }
    }

    fn spool_is_empty(&self) -> bool {
        matches!(self.spool.oldest(), Ok(None))
    }

    /// Writes a batch to the store, or to the spool.
    async fn keep(&mut self, batch: Vec<Chunk>) {
        // Order does not matter to the store, but what waits longest goes first.
        if self.well && self.spool_is_empty() {
            let stored = timeout(LAST_BATCH * 15, self.archive.store(&batch, self.keeping.days()));
            if let Ok(stored) = stored.await {
                let is_stored = stored.is_ok();
                self.note(stored);
                if is_stored {
                    return;
                }
            }
        }
        match self.spool.push(&batch) {
            Ok(0) => {}
            Ok(gone) => {
                say(&format!("the spool of samples is full: {gone} of the oldest batches are lost"))
            }
            Err(error) => {
                say(&format!("samples are lost, as the spool does not take them: {error}"))
            }
        }
    }

    /// Writes what is in the spool to the store, for a while. False if the store does not take it.
    async fn drain(&mut self, until: Instant) -> bool {
        while Instant::now() < until {
            let (path, batch) = match self.spool.oldest() {
                Ok(Some(oldest)) => oldest,
                Ok(None) => return true,
                Err(error) => {
                    say(&format!("the spool of samples cannot be read: {error}"));
                    return false;
                }
            };
            let stored = self.archive.store(&batch, self.keeping.days()).await;
            let is_stored = stored.is_ok();
            self.note(stored);
            if !is_stored {
                return false;
            }
            if let Err(error) = self.spool.done(&path) {
                say(&format!("a batch of samples cannot be removed: {error}"));
                return false;
            }
        }
        true
    }

    async fn read_baselines(&mut self) {
        match self.archive.baselines().await {
            Ok(baselines) => self.board.baselines_are(baselines),
            // Those that are known go on to be used.
            Err(error) => self.note(Err(error)),
        }
    }

    /// Says so when the store ceases to take what was measured, and when it takes it again.
    fn note(&mut self, result: Result<(), ArchiveError>) {
        match result {
            Ok(()) if !self.well => {
                self.well = true;
                let text = "the store takes samples of checks again";
                emit(Notable::Remark, About::default(), text);
            }
            Ok(()) => {}
            Err(error) if self.well => {
                self.well = false;
                say(&format!("{}; samples are kept on disk meanwhile", chain(&error)));
            }
            Err(_) => {}
        }
    }
}

fn say(text: &str) {
    emit(Notable::MonitoringFailed, About::default(), text);
}
