//! The monitoring at work: measures what is configured and tells when a level changes.
//!
//! It has a thread and a runtime of its own and shares two things with the rest of the daemon: the
//! voice, and a [`Board`] that others may look at. Nothing here is asked or waited for by the loop
//! that decides, so whatever a check does costs no failover anything.
//!
//! Each check is a task that sleeps until it is due, waits for a place among the checks of its kind,
//! measures with a deadline, and hands over what it found. One task takes it all in: it owns what is
//! known of each check and puts it on the board.

mod board;
mod keeper;
mod prober;
mod spool;
mod tell;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::tell::Teller;
use crate::config::settings::{Settings, Severity};
use crate::monitor::health::Health;
use crate::monitor::measured::Measured;
use crate::telemetry::Notable;
use crate::time::BootTime;

pub use board::{Board, Found, shown};
pub use prober::{Prober, Tools, measure_once};

/// What checks have found and nobody has taken in yet.
const FOUND_MAX: usize = 256;

/// Threads for looks that may hang, such as at a file system on another host.
const BLOCKING_THREADS_MAX: usize = 16;

/// The daemon's end of the monitoring.
pub struct Monitor {
    board: Board,
    teller: Teller,
    /// Tells the thread of a new configuration; absent while there is nothing to measure.
    thread: Option<watch::Sender<Arc<Settings>>>,
    /// Closed when the thread has ended.
    ended: Option<mpsc::Receiver<()>>,
}

impl Monitor {
    /// Nothing is measured until [`Monitor::apply`].
    #[must_use]
    pub fn new(teller: Teller) -> Self {
        Self { board: Board::default(), teller, thread: None, ended: None }
    }

    /// Where others may look.
    #[must_use]
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// The same as a function, for those who need not know what it is.
    #[must_use]
    pub fn look(&self) -> Arc<dyn Fn() -> Health + Send + Sync> {
        let board = self.board();
        Arc::new(move || board.health())
    }

    /// Ends it, and waits for at most `limit` until what it knows is on disk.
    pub async fn close(&mut self, limit: Duration) {
        self.thread = None;
        if let Some(mut ended) = self.ended.take() {
            // It is over or not waited for.
            let _late = timeout(limit, ended.recv()).await;
        }
    }

    /// Measures what these settings say, and nothing else. Not to be able to is told, and is no
    /// reason for anything else.
    pub fn apply(&mut self, settings: &Arc<Settings>) {
        if let Some(thread) = &self.thread {
            thread.send_replace(settings.clone());
            return;
        }
        let told_before = tell::told_before(&self.teller.open());
        if settings.monitoring.checks.is_empty() && told_before.is_empty() {
            self.board.node_is(&settings.node);
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build();
        let (thread, plans) = watch::channel(settings.clone());
        let (board, teller) = (self.board.clone(), self.teller.clone());
        let (at_work, ended) = mpsc::channel(1);
        self.ended = Some(ended);
        let spawned = runtime.and_then(|runtime| {
            let name = "monitor".to_owned();
            std::thread::Builder::new().name(name).spawn(move || {
                runtime.block_on(work(plans, board, teller));
                // A look that hangs is not waited for.
                runtime.shutdown_background();
                drop(at_work);
            })
        });
        match spawned {
            Ok(_) => self.thread = Some(thread),
            Err(error) => {
                let text = format!("there can be no monitoring: {error}");
                self.teller.alert(Notable::MonitoringFailed, Severity::Warning, None, &text);
            }
        }
    }
}

/// The life of the thread: measures as configured until the daemon's end is gone.
async fn work(mut plans: watch::Receiver<Arc<Settings>>, board: Board, teller: Teller) {
    let mut voice = tell::Voice::new(teller);
    loop {
        let settings = plans.borrow_and_update().clone();
        board.checks_are(&settings, &voice);
        voice.checks_are(&settings);
        let (found, mut found_in) = mpsc::channel(FOUND_MAX);
        let (tools, faults) = Tools::new(&settings);
        for fault in faults {
            voice.failed(&fault);
        }
        let tools = Arc::new(tools);
        let mut tasks = JoinSet::new();
        for (index, check) in settings.monitoring.checks.iter().enumerate() {
            let prober = Prober::new(tools.clone(), check.clone());
            tasks.spawn(measure(index, prober, found.clone()));
        }
        drop(found);
        let (batches, keeper) = keep(&settings, &board, &mut voice);
        let mut flush = interval(settings.monitoring.keeping.flush);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let gone = loop {
            tokio::select! {
                changed = plans.changed() => break changed.is_err(),
                _ = flush.tick() => hand_over(&board, &batches),
                Some((index, found)) = found_in.recv() => {
                    if let Some(news) = board.take_in(BootTime::now(), index, found) {
                        voice.tell(&news);
                    }
                }
            }
        };
        // What is under way is dropped, with the commands that it runs.
        tasks.shutdown().await;
        hand_over(&board, &batches);
        drop(batches);
        if let Some(keeper) = keeper {
            // It cannot panic; and a panic would end the process.
            let _ended = keeper.await;
        }
        if gone {
            return;
        }
    }
}

/// Begins to keep what is measured, if it is to be kept.
fn keep(
    settings: &Settings,
    board: &Board,
    voice: &mut tell::Voice,
) -> (Option<keeper::Batches>, Option<JoinHandle<()>>) {
    if !settings.monitoring.keeping.enabled || settings.monitoring.checks.is_empty() {
        return (None, None);
    }
    match keeper::Keeper::new(settings, board.clone()) {
        Ok(keeper) => {
            let (batches, batches_in) = keeper::Keeper::channel();
            (Some(batches), Some(tokio::spawn(keeper.work(batches_in))))
        }
        Err(fault) => {
            voice.failed(&format!("what checks measure is not kept: {fault}"));
            (None, None)
        }
    }
}

/// Gives what was gathered to the keeper.
fn hand_over(board: &Board, batches: &Option<keeper::Batches>) {
    let chunks = board.gathered();
    let Some(batches) = batches.as_ref().filter(|_| !chunks.is_empty()) else { return };
    if batches.try_send(chunks).is_err() {
        tracing::warn!("samples of checks are not written fast enough; a batch was dropped");
    }
}

/// The life of a check.
async fn measure(
    index: usize,
    mut prober: Prober,
    found: mpsc::Sender<(usize, Result<Measured, String>)>,
) {
    let interval = prober.check().interval;
    let mut due = Instant::now() + offset(&prober.check().name, interval);
    loop {
        sleep_until(due).await;
        let outcome = prober.measure().await;
        if found.send((index, outcome)).await.is_err() {
            return;
        }
        due += interval;
        let now = Instant::now();
        if due < now {
            // Late, as after a suspend: what was missed is not made up for.
            due = now + interval;
        }
    }
}

/// Checks of one interval are spread over it, and each keeps its place. The first time they come
/// within seconds, as somebody may be waiting.
fn offset(name: &str, interval: Duration) -> Duration {
    const FIRST_WITHIN: Duration = Duration::from_secs(10);
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 1_000).unwrap_or(0);
    interval.min(FIRST_WITHIN) * share / 1_000
}
