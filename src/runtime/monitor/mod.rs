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
mod prober;
mod tell;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

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
}

impl Monitor {
    /// Nothing is measured until [`Monitor::apply`].
    #[must_use]
    pub fn new(teller: Teller) -> Self {
        Self { board: Board::default(), teller, thread: None }
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
        let spawned = runtime.and_then(|runtime| {
            let name = "monitor".to_owned();
            std::thread::Builder::new()
                .name(name)
                .spawn(move || runtime.block_on(work(plans, board, teller)))
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
        let gone = loop {
            tokio::select! {
                changed = plans.changed() => break changed.is_err(),
                Some((index, found)) = found_in.recv() => {
                    if let Some(news) = board.take_in(BootTime::now(), index, found) {
                        voice.tell(&news);
                    }
                }
            }
        };
        // What is under way is dropped, with the commands that it runs.
        tasks.shutdown().await;
        if gone {
            return;
        }
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
