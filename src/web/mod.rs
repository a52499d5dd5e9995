//! The status page, the metrics and the API, over HTTP.
//!
//! It has a thread and a runtime of its own, and shares nothing with the rest but a snapshot that
//! the loop leaves for it: whatever is asked of it, and however often, the loop neither waits for it
//! nor is asked anything. It reads the history over a connection of its own, made when somebody
//! looks.
//!
//! An address that cannot be listened on is reported and tried again. It never keeps the daemon from
//! running: an operator would rather have failover without metrics.
//!
//! `site` says what is served to whom, `connection` holds the limits, [`health`] what "ready" means,
//! [`scrape`] makes the metrics, [`page`] and `checks` the page. To add a route: `site`, `openapi.json`, and
//! `docs/http.md`.

mod checks;
mod connection;
mod events;
pub mod health;
pub mod history;
pub mod html;
pub mod page;
pub mod scrape;
mod site;
pub mod timeline;
mod tls;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::settings::{Identity, Listen, Settings};
use crate::control::protocol::{HttpListener, Status};
use crate::monitor::health::Health;
use crate::telemetry::Metrics;
use crate::time::BootTime;
use site::Site;

pub use tls::TlsFault;

/// Reports that wait to be logged. There is one when an address begins or ceases to be listened on.
const REPORTS_MAX: usize = 64;

/// To leave a snapshot may take this part of the loop's time: with ten thousand groups it takes
/// milliseconds, and is then left less often.
const PUBLISH_SHARE: u32 = 100;

/// The document that describes the API.
pub const OPENAPI: &str = include_str!("openapi.json");

/// The daemon at one instant, as the loop left it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// When.
    pub at: BootTime,
    /// How it was.
    pub status: Status,
}

impl View {
    /// How it is `now`, if nothing has happened since.
    #[must_use]
    pub fn now(&self, now: BootTime) -> Status {
        self.status.clone().aged(now.since(self.at))
    }
}

/// What the operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// An address is listened on.
    Listening {
        /// Which.
        address: String,
    },
    /// It cannot be.
    NotListening {
        /// Which.
        address: String,
        /// Why not.
        fault: String,
    },
    /// A new certificate cannot be used; the old one is.
    OldCertificate {
        /// Why not.
        fault: String,
    },
}

/// Says what the checks say.
pub type Look = Arc<dyn Fn() -> Health + Send + Sync>;

/// What the loop and the listener share.
#[derive(Clone)]
struct Shared {
    health: Look,
    views: watch::Receiver<Option<Arc<View>>>,
    pulse: Arc<Pulse>,
    listeners: Arc<Listeners>,
    metrics: Metrics,
}

/// When the loop last turned.
#[derive(Debug, Default)]
struct Pulse(AtomicU64);

impl Pulse {
    fn beat(&self, now: BootTime) {
        let millis = u64::try_from(now.since_boot().as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }

    fn age(&self, now: BootTime) -> Duration {
        now.since(BootTime::from_duration(Duration::from_millis(self.0.load(Ordering::Relaxed))))
    }
}

/// Which addresses are listened on, and why the others are not.
struct Listeners {
    faults: Mutex<BTreeMap<String, Option<String>>>,
    reports: mpsc::Sender<Report>,
}

impl Listeners {
    /// Notes how an address is doing, and reports it if that is news.
    fn note(&self, listen: &Listen, fault: Option<String>) {
        let address = listen.to_string();
        let before = self.lock().insert(address.clone(), fault.clone());
        let report = match (before, fault) {
            (Some(before), now) if before == now => return,
            (_, None) => Report::Listening { address },
            (_, Some(fault)) => Report::NotListening { address, fault },
        };
        self.report(report);
    }

    fn report(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
            tracing::warn!("too many news of the HTTP listener at once; one was dropped");
        }
    }

    /// Forgets those that are not configured any more.
    fn retain(&self, configured: &[Listen]) {
        let configured: Vec<_> = configured.iter().map(Listen::to_string).collect();
        self.lock().retain(|address, _| configured.contains(address));
    }

    fn all(&self) -> Vec<HttpListener> {
        let faults = self.lock();
        let listener = |(address, fault): (&String, &Option<String>)| HttpListener {
            address: address.clone(),
            fault: fault.clone(),
        };
        faults.iter().map(listener).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's end of it.
pub struct Web {
    views: watch::Sender<Option<Arc<View>>>,
    shared: Shared,
    /// Tells the thread of a new configuration; absent while nothing is listened on.
    thread: Option<watch::Sender<Arc<Settings>>>,
    /// When the next snapshot may be left.
    publish_at: BootTime,
}

impl Web {
    /// Nothing is listened on until [`Web::apply`]. What comes out of the receiver is for the
    /// journal.
    #[must_use]
    pub fn new(metrics: Metrics, health: Look) -> (Self, mpsc::Receiver<Report>) {
        let (views, views_out) = watch::channel(None);
        let (reports, reports_out) = mpsc::channel(REPORTS_MAX);
        let listeners = Arc::new(Listeners { faults: Mutex::default(), reports });
        let pulse = Arc::default();
        let shared = Shared { health, views: views_out, pulse, listeners, metrics };
        (Self { views, shared, thread: None, publish_at: BootTime::ZERO }, reports_out)
    }

    /// Listens where these settings say, and nowhere else.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn apply(&mut self, settings: &Arc<Settings>) -> io::Result<()> {
        self.shared.listeners.retain(&settings.http.listen);
        if settings.http.listen.is_empty() {
            self.thread = None;
            return Ok(());
        }
        if let Some(thread) = &self.thread {
            thread.send_replace(settings.clone());
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (thread, plans) = watch::channel(settings.clone());
        let shared = self.shared.clone();
        std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(serve(plans, shared)))?;
        self.thread = Some(thread);
        Ok(())
    }

    /// A turn of the loop was made. Says whether it should leave a snapshot.
    pub fn turn(&mut self, now: BootTime) -> bool {
        self.shared.pulse.beat(now);
        self.thread.is_some() && now >= self.publish_at
    }

    /// Leaves a snapshot, begun at `now`.
    pub fn publish(&mut self, now: BootTime, status: Status) {
        self.views.send_replace(Some(Arc::new(View { at: now, status })));
        let done = BootTime::now();
        self.publish_at = done + done.since(now) * PUBLISH_SHARE;
    }

    /// How each configured address is doing.
    #[must_use]
    pub fn listeners(&self) -> Vec<HttpListener> {
        self.shared.listeners.all()
    }
}

/// Tries whether a certificate and its key can be used.
///
/// # Errors
/// If they cannot.
pub fn rehearse(identity: &Identity) -> Result<(), TlsFault> {
    tls::load(identity).map(drop)
}

/// The life of the thread: listens as configured until the loop's end is gone.
async fn serve(mut plans: watch::Receiver<Arc<Settings>>, shared: Shared) {
    let mut identity = tls::Kept::default();
    loop {
        let settings = plans.borrow_and_update().clone();
        let mut listeners = JoinSet::new();
        let (tls, fault) = identity.load(settings.http.tls.as_ref());
        if let Some(fault) = fault.filter(|_| matches!(tls, Ok(Some(_)))) {
            shared.listeners.report(Report::OldCertificate { fault });
        }
        let site = Arc::new(Site::new(settings.clone(), shared.clone()));
        for listen in &settings.http.listen {
            let (listen, site, tls) = (listen.clone(), site.clone(), tls.clone());
            let identity = settings.http.tls.clone();
            listeners.spawn(connection::listen(listen, tls, identity, site));
        }
        let gone = plans.changed().await.is_err();
        // Waits until the sockets are closed, so that they can be opened again.
        listeners.shutdown().await;
        if gone {
            return;
        }
    }
}

#[cfg(test)]
impl Web {
    /// A site as this one would serve it, with a store that nobody answers at.
    fn site_for_tests(&self, token: bool) -> Site {
        let mut settings = settings_for_tests();
        if token {
            settings.http.token = Some(crate::config::secret::Secret::new("t".to_owned()));
        }
        self.shared.pulse.beat(BootTime::now());
        Site::new(Arc::new(settings), self.shared.clone())
    }
}

/// What a node without checks has to say about them.
#[cfg(test)]
fn no_checks() -> Health {
    Health::of("bravo", String::new(), Vec::new())
}

/// The least settings.
#[cfg(test)]
fn settings_for_tests() -> Settings {
    use crate::config::load::{MINIMAL, Surroundings};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("understudy.toml");
    std::fs::write(&path, MINIMAL.replace("db.example.net:5432", "127.0.0.1:1")).unwrap();
    let around = Surroundings {
        host_name: "bravo".to_owned(),
        credentials: None,
        credentials_at_rest: "/nowhere".into(),
        reads_secrets: true,
        variable: |_| None,
    };
    Settings::load_in(&path, &around).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_reported_when_it_changes_and_not_each_time() {
        let (reports, mut out) = mpsc::channel(REPORTS_MAX);
        let listeners = Listeners { faults: Mutex::default(), reports };
        let listen = Listen::Unix("/x".into());
        listeners.note(&listen, Some("no".to_owned()));
        listeners.note(&listen, Some("no".to_owned()));
        listeners.note(&listen, None);
        let address = "unix:/x".to_owned();
        let fault = "no".to_owned();
        let not = Report::NotListening { address: address.clone(), fault };
        assert_eq!(out.try_recv(), Ok(not));
        assert_eq!(out.try_recv(), Ok(Report::Listening { address }));
        assert!(out.try_recv().is_err());
        listeners.retain(&[]);
        assert!(listeners.all().is_empty());
    }
}
