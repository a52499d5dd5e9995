//! What systemd is told about the daemon: ready, alive, how it is.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::time::BootTime;

/// The `STATUS=` line is sent at most this often; it counts seconds.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The notification socket, if there is one.
pub struct Notify {
    ready: bool,
    /// A quarter of what systemd allows; absent if it does not watch.
    watchdog_every: Option<Duration>,
    fed: BootTime,
    status: String,
    status_at: BootTime,
}

impl Notify {
    /// Finds out what systemd expects.
    #[must_use]
    pub fn from_environment() -> Self {
        Self {
            ready: false,
            watchdog_every: sd_notify::watchdog_enabled().map(|allowed| allowed / 4),
            fed: BootTime::ZERO,
            status: String::new(),
            status_at: BootTime::ZERO,
        }
    }

    /// A turn of the loop was made: every engine was asked what is due. Nothing else feeds the
    /// watchdog. Says whether it was fed.
    pub fn turn(&mut self, now: BootTime, status: &str) -> bool {
        let feed = self.watchdog_every.is_some_and(|every| now.since(self.fed) >= every);
        if feed {
            self.fed = now;
            send(&[NotifyState::Watchdog]);
        }
        if status != self.status && now.since(self.status_at) >= STATUS_EVERY {
            status.clone_into(&mut self.status);
            self.status_at = now;
            send(&[NotifyState::Status(status)]);
        }
        feed
    }

    /// Whether the first read of the store ended.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The first read of the store ended, well or not; `status` says which.
    pub fn ready(&mut self, now: BootTime, status: &str) {
        if !self.ready {
            self.ready = true;
            status.clone_into(&mut self.status);
            self.status_at = now;
            send(&[NotifyState::Ready, NotifyState::Status(status)]);
        }
    }

    /// The configuration is being loaded again.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot tell systemd that a reload begins"),
        }
    }

    /// And was, or was refused.
    pub fn ready_again(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The end begins.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

fn send(states: &[NotifyState]) {
    // Without systemd there is no socket and nothing to say.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
