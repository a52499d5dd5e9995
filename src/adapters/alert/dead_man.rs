//! The ping whose absence is the alert: it says that this daemon's loop makes progress, and is sent
//! only while that is so. Whoever waits for it calls a person when it stops, whatever the reason: a
//! dead host, a lost network, a loop that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::delivery::Verdict;
use super::http::{Poster, parse};
use super::{AlertError, Report};
use crate::config::settings::{DeadMan as Settings, PingMethod};
use crate::time::BootTime;

/// How old the last turn of the loop may be. It makes one at least every second.
const PROGRESS_MAX_AGE: Duration = Duration::from_secs(10);

/// How long a ping may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pause after a ping that failed, at most; the next one comes earlier than that if it is due.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How often it is looked whether a loop that stood still goes on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Named in reports as if it were a channel.
const NAME: &str = "dead_man";

/// Checks that pings could be sent as configured, without sending one.
///
/// # Errors
/// If they could not.
pub(super) fn rehearse(settings: &Settings) -> Result<(), AlertError> {
    let unusable = |what| AlertError::Channel { channel: NAME.to_owned(), what };
    match poster(settings).map_err(unusable)?.hopeless() {
        None => Ok(()),
        Some(what) => Err(unusable(what)),
    }
}

fn poster(settings: &Settings) -> Result<Poster, String> {
    Poster::with(parse(&settings.url)?, settings.ca_file.as_deref(), HeaderMap::new())
}

/// Pings until it is dropped.
#[derive(Debug)]
pub struct DeadMan {
    /// Milliseconds since boot at the last turn of the loop.
    turned: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl DeadMan {
    /// Begins to ping. Must be called in a tokio runtime; failures are told through `reports`.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn start(settings: &Settings, reports: mpsc::Sender<Report>) -> Result<Self, AlertError> {
        let poster = poster(settings)
            .map_err(|what| AlertError::Channel { channel: NAME.to_owned(), what })?;
        let turned = Arc::new(AtomicU64::new(0));
        let method = match settings.method {
            PingMethod::Get => Method::GET,
            PingMethod::Post => Method::POST,
        };
        let task = tokio::spawn(run(poster, method, settings.every, turned.clone(), reports));
        Ok(Self { turned, task })
    }

    /// The loop made a turn.
    pub fn turned(&self, now: BootTime) {
        let now = u64::try_from(now.since_boot().as_millis()).unwrap_or(u64::MAX);
        self.turned.store(now, Ordering::Relaxed);
    }
}

impl Drop for DeadMan {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    poster: Poster,
    method: Method,
    every: Duration,
    turned: Arc<AtomicU64>,
    reports: mpsc::Sender<Report>,
) {
    let mut failed = false;
    loop {
        let turned = Duration::from_millis(turned.load(Ordering::Relaxed));
        let age = BootTime::now().since(BootTime::from_duration(turned));
        if age > PROGRESS_MAX_AGE.min(every.max(LOOK_EVERY) * 2) {
            sleep(LOOK_EVERY.min(every)).await;
            continue;
        }
        let sent = timeout(DEADLINE, poster.send(method.clone(), None, HeaderMap::new())).await;
        let fault = match sent {
            Ok(Verdict::Delivered) => None,
            Ok(Verdict::Later { fault, .. } | Verdict::Never { fault }) => Some(fault),
            Err(_elapsed) => Some(format!("no answer within {} s", DEADLINE.as_secs())),
        };
        // Once for each time that it stops to work, and once when it works again.
        if failed != fault.is_some() {
            failed = fault.is_some();
            let _full = reports.try_send(Report::Ping { fault });
        }
        sleep(if failed { RETRY_AFTER.min(every) } else { every }).await;
    }
}
