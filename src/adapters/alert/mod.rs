//! Alerts to people: durable on disk first, then delivered until the other side has them.
//!
//! [`Alerts::push`] never waits. A thread of its own writes each alert to the [`Outbox`], one
//! directory for each channel, and one task for each channel delivers from there in order. So a
//! full disk, a dead pager or a slow one delays neither a failover nor another channel. What was on
//! disk when the process was killed is delivered by the next one, with the same id.
//!
//! To add a kind of channel: a variant of `ChannelKind`, a module beside `webhook` and an arm in
//! `Sender`. Each attempt has a deadline and is made by the channel's own task, so that one that
//! hangs holds no other.

mod alertmanager;
mod command;
mod dead_man;
mod delivery;
mod discord;
mod email;
mod files;
mod fold;
mod http;
mod message;
mod open;
mod outbox;
mod pagerduty;
mod queue;
mod sender;
mod slack;
mod story;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::delivery::{Head, Verdict};
use self::outbox::Note;
use self::sender::Sender;
use crate::config::settings::{self, Channel, Severity};
use crate::error::chain;

pub use self::dead_man::DeadMan;
pub use self::delivery::Pace;
pub use self::message::{Alert, Folded, Resolves};
pub use self::open::{Open, Which};
pub use self::outbox::{Backlog, Letter, Outbox, OutboxError, Settled, peek};

/// Alerts and questions that wait for the disk: two about each of ten thousand groups, should the
/// store of all of them go away. When it is full the caller gets its alert back and still has the
/// journal.
const ORDERS_MAX: usize = 20_000;

/// Orders between two looks at the whole, at most.
const PUBLISHED_AFTER: u32 = 64;

/// Reports that wait for the daemon to log them. It is told again by `status`, so what does not fit
/// is dropped.
const REPORTS_MAX: usize = 256;

/// How long the end of the process waits for the disk. A disk that hangs must not make systemd kill
/// what could have ended well.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Finds out, without sending anything, whether a channel could be used as it is configured.
///
/// # Errors
/// If it could not.
pub fn rehearse(channel: &Channel) -> Result<(), AlertError> {
    match Sender::new(channel)?.hopeless() {
        None => Ok(()),
        Some(what) => Err(AlertError::Channel { channel: channel.name.clone(), what }),
    }
}

/// The same for the dead-man's ping.
///
/// # Errors
/// If it could not be sent.
pub fn rehearse_dead_man(settings: &settings::DeadMan) -> Result<(), AlertError> {
    dead_man::rehearse(settings)
}

/// Sends an alert through a channel now, past the outbox, and waits for the outcome. What it begins
/// at a service that keeps incidents is ended at once, if `resolved` says how.
///
/// # Errors
/// Why it was not delivered, in words.
pub async fn deliver_now(
    channel: &Channel,
    alert: &Alert,
    resolved: &Alert,
    deadline: Duration,
) -> Result<(), String> {
    let sender = Sender::new(channel).map_err(|error| chain(&error))?;
    if let Some(what) = sender.hopeless() {
        return Err(what);
    }
    let mut verdict = sender.send(alert, deadline).await;
    if channel.kind.keeps_incidents() && verdict == Verdict::Delivered {
        verdict = sender.send(resolved, deadline).await;
    }
    match verdict {
        Verdict::Delivered => Ok(()),
        Verdict::Later { fault, .. } | Verdict::Never { fault } => Err(fault),
    }
}

/// What became of an alert, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A channel has it.
    Delivered {
        /// Which channel.
        channel: String,
        /// Which alert.
        id: Uuid,
        /// How many attempts it took in this process.
        attempts: u32,
    },
    /// A channel does not have it yet.
    Failed {
        /// Which channel.
        channel: String,
        /// Which alert.
        id: Uuid,
        /// How many attempts there were in this process.
        attempts: u32,
        /// What went wrong.
        fault: String,
        /// When it is tried again.
        again_in: Duration,
    },
    /// A channel refused it for good. It lies in the directory `dead` of the channel.
    Dead {
        /// Which channel.
        channel: String,
        /// Which alert.
        id: Uuid,
        /// What the channel said.
        fault: String,
    },
    /// A full queue lost it.
    Dropped {
        /// Which channel.
        channel: String,
        /// Which alert.
        id: Uuid,
        /// How bad it was.
        severity: Severity,
    },
    /// It could not be written to disk. It is in memory and is delivered from there.
    NotStored {
        /// Which alert.
        id: Uuid,
        /// What went wrong.
        fault: String,
    },
    /// The dead-man's ping failed, or works again. Told at each change only.
    Ping {
        /// What went wrong, if it failed.
        fault: Option<String>,
    },
    /// A file in the outbox is no alert. It was moved aside.
    Unreadable {
        /// Which channel.
        channel: String,
        /// Where it is now.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
}

/// Why alerts cannot be sent at all.
#[derive(Debug, Error)]
pub enum AlertError {
    /// The directory on disk cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// A channel cannot be used as configured. The address is secret and not shown.
    #[error("the alert channel {channel} cannot be used: {what}")]
    Channel {
        /// Which channel.
        channel: String,
        /// What is wrong with it.
        what: String,
    },
    /// The thread that writes alerts cannot be started.
    #[error("cannot start the thread that writes alerts")]
    Thread(#[source] std::io::Error),
}

/// The way of alerts out of the process.
#[derive(Debug)]
pub struct Alerts {
    orders: mpsc::Sender<Order>,
    backlog: watch::Receiver<Vec<Backlog>>,
    open: watch::Receiver<Vec<Open>>,
    deliveries: Vec<JoinHandle<()>>,
    keeper: Option<std::thread::JoinHandle<()>>,
}

/// What the thread that owns the outbox is asked to do.
enum Order {
    Store(Box<Alert>),
    Head {
        channel: usize,
        reply: oneshot::Sender<Head>,
    },
    Failed {
        channel: usize,
        fault: String,
    },
    Acknowledge {
        which: Which,
        by: String,
        done: oneshot::Sender<usize>,
    },
    Settle {
        channel: usize,
        id: Uuid,
        settled: Settled,
    },
    /// Answered with whether everything before it is on disk.
    Sync {
        stored: oneshot::Sender<bool>,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

impl Alerts {
    /// Opens the outbox in `dir` and begins to deliver what is in it. Must be called in a tokio
    /// runtime; what becomes of each alert is told through the receiver.
    ///
    /// # Errors
    /// If the outbox or a channel cannot be used.
    pub fn start(
        dir: &std::path::Path,
        channels: &[Channel],
        pace: Pace,
    ) -> Result<(Self, mpsc::Receiver<Report>), AlertError> {
        let senders = channels.iter().map(Sender::new).collect::<Result<Vec<_>, _>>()?;
        let outbox = Outbox::open(dir, channels)?;
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        let (backlog_sender, backlog) = watch::channel(outbox.undelivered());
        let (open_sender, open) = watch::channel(outbox.open_alerts());
        let wakers = channels.iter().map(|_| Arc::new(Notify::new())).collect::<Vec<_>>();

        let keeper = Keeper {
            outbox,
            wakers: wakers.clone(),
            reports: reports.clone(),
            backlog: backlog_sender,
            open: open_sender,
        };
        let keeper = std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || keeper.run(inbox))
            .map_err(AlertError::Thread)?;

        let deliveries =
            senders.into_iter().zip(wakers).enumerate().map(|(channel, (sender, waker))| {
                let desk = delivery::Desk {
                    channel,
                    name: channels.get(channel).map(|c| c.name.clone()).unwrap_or_default(),
                    orders: orders.clone(),
                    waker,
                    reports: reports.clone(),
                    pace,
                };
                tokio::spawn(delivery::run(desk, sender))
            });
        let deliveries = deliveries.collect();
        Ok((Self { orders, backlog, open, deliveries, keeper: Some(keeper) }, receiver))
    }

    /// Hands over an alert without waiting for anything.
    ///
    /// # Errors
    /// Gives the alert back if the disk is so slow that the queue to it is full.
    pub fn push(&self, alert: Alert) -> Result<(), Box<Alert>> {
        match self.orders.try_send(Order::Store(Box::new(alert))) {
            Ok(()) => Ok(()),
            Err(error) => match error.into_inner() {
                Order::Store(alert) => Err(alert),
                // What comes back is what was sent.
                Order::Head { .. }
                | Order::Settle { .. }
                | Order::Failed { .. }
                | Order::Acknowledge { .. }
                | Order::Sync { .. }
                | Order::Close { .. } => Ok(()),
            },
        }
    }

    /// Answers, when everything that was pushed before was tried, with whether it is on disk. No
    /// answer means no.
    #[must_use]
    pub fn stored(&self) -> oneshot::Receiver<bool> {
        let (stored, answer) = oneshot::channel();
        // If the queue is full, the sender is dropped, which is an answer too.
        let _full = self.orders.try_send(Order::Sync { stored });
        answer
    }

    /// What every channel still has to deliver, for `status`. Follows each change.
    #[must_use]
    pub fn backlog(&self) -> watch::Receiver<Vec<Backlog>> {
        self.backlog.clone()
    }

    /// What was told and is neither over nor looked at. Follows each change.
    #[must_use]
    pub fn open(&self) -> watch::Receiver<Vec<Open>> {
        self.open.clone()
    }

    /// Somebody looked at these: nobody else is called about them. Answers with how many they were;
    /// no answer means that the disk is too slow for it just now.
    #[must_use]
    pub fn acknowledge(&self, which: Which, by: String) -> oneshot::Receiver<usize> {
        let (done, answer) = oneshot::channel();
        // If the queue is full, the sender is dropped, which is an answer too.
        let _full = self.orders.try_send(Order::Acknowledge { which, by, done });
        answer
    }

    /// Waits until everything that was pushed is on disk, and up to `grace` for it to be delivered.
    /// What is left is delivered by the next process.
    pub async fn close(mut self, grace: Duration) {
        let (done, stored) = oneshot::channel();
        let store = async {
            // The order comes after everything that was pushed. If the thread is gone, so is its
            // work.
            self.orders.send(Order::Close { done }).await.ok()?;
            stored.await.ok()
        };
        if let Ok(Some(())) = tokio::time::timeout(CLOSE_MAX, store).await {
            let empty = self.backlog.wait_for(|all| all.iter().all(|one| one.pending == 0));
            // Whether it became empty or not, there is no time left.
            let _empty = tokio::time::timeout(grace, empty).await.is_ok();
        }
        let deliveries = std::mem::take(&mut self.deliveries);
        for delivery in &deliveries {
            delivery.abort();
        }
        for delivery in deliveries {
            // How it ended does not matter any more, only that it did.
            let _ended = delivery.await;
        }
        let keeper = self.keeper.take();
        // With the last of those that could order something the thread ends, and lets go of the
        // outbox, so that the next one can have it.
        drop(self);
        if let Some(keeper) = keeper {
            let ended = tokio::task::spawn_blocking(move || keeper.join());
            // A disk that hangs holds the thread, and nothing can be done about that here.
            let _hanging = tokio::time::timeout(CLOSE_MAX, ended).await.is_err();
        }
    }
}

impl Drop for Alerts {
    fn drop(&mut self) {
        // The tasks hold the queue to the thread open; without them it ends.
        for delivery in &self.deliveries {
            delivery.abort();
        }
    }
}

/// The thread that owns the outbox, so that no `fsync` is ever waited for in the loop.
struct Keeper {
    outbox: Outbox,
    wakers: Vec<Arc<Notify>>,
    reports: mpsc::Sender<Report>,
    backlog: watch::Sender<Vec<Backlog>>,
    open: watch::Sender<Vec<Open>>,
}

impl Keeper {
    fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut unpublished = 0;
        while let Some(order) = inbox.blocking_recv() {
            self.carry_out(order);
            unpublished += 1;
            // A storm of alerts is written one by one, and told of in heaps.
            if inbox.is_empty() || unpublished >= PUBLISHED_AFTER {
                unpublished = 0;
                self.publish();
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Store(alert) => {
                if let Err(error) = self.outbox.push(&alert) {
                    self.report(Report::NotStored { id: alert.id, fault: chain(&error) });
                }
                self.wakers.iter().for_each(|waker| waker.notify_one());
            }
            Order::Head { channel, reply } => {
                self.outbox.flush();
                let letter = self.outbox.head(channel);
                let next_at = if letter.is_none() { self.outbox.next_at(channel) } else { None };
                // A delivery that stopped asking was aborted.
                let _gone = reply.send(Head { letter, next_at });
            }
            Order::Settle { channel, id, settled } => self.outbox.settle(channel, id, settled),
            Order::Failed { channel, fault } => self.outbox.failed(channel, fault),
            Order::Acknowledge { which, by, done } => {
                let seen = self.outbox.acknowledge(&which, &by);
                // Who is told looks at the status next.
                self.publish();
                let _gone = done.send(seen);
            }
            Order::Sync { stored } => {
                self.outbox.flush();
                let in_memory = self.outbox.undelivered().iter().any(|one| one.in_memory > 0);
                let _gone = stored.send(!in_memory);
            }
            Order::Close { done } => {
                self.outbox.flush();
                self.publish();
                let _gone = done.send(());
            }
        }
    }

    fn publish(&mut self) {
        self.outbox.flush_open();
        for note in self.outbox.take_notes() {
            self.report(match note {
                Note::Dropped { channel, id, severity } => {
                    Report::Dropped { channel, id, severity }
                }
                Note::Unreadable { channel, path, fault } => {
                    Report::Unreadable { channel, path, fault }
                }
            });
        }
        replace(&self.backlog, self.outbox.undelivered());
        replace(&self.open, self.outbox.open_alerts());
    }

    fn report(&self, report: Report) {
        // See REPORTS_MAX.
        let _full = self.reports.try_send(report);
    }
}

/// Tells those who watch only of a change.
fn replace<T: PartialEq>(watched: &watch::Sender<T>, new: T) {
    watched.send_if_modified(|old| {
        let changed = *old != new;
        *old = new;
        changed
    });
}
