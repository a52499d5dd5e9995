//! One task for each channel: takes the next alert from the outbox and tries until it is settled.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use super::outbox::{Letter, Settled};
use super::sender::Sender;
use super::{Order, Report};
use crate::time::BootTime;

/// How often a task without work looks for some: an alert that is in memory only is then tried on
/// disk again.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Pace of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long one attempt may take, connection and answer included.
    pub attempt_deadline: Duration,
    /// Least pause after a failed attempt; doubled with each further one.
    pub pause_min: Duration,
    /// Greatest pause. An alert is delivered within this after the channel recovered.
    pub pause_max: Duration,
    /// What a channel may ask for at most with `Retry-After`.
    pub retry_after_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            attempt_deadline: Duration::from_secs(10),
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
            retry_after_max: Duration::from_secs(600),
        }
    }
}

impl Pace {
    /// Pause after `attempts` failures in a row. Half of it is chance, so that many nodes do not
    /// all call a recovering service in the same moment.
    fn pause(&self, attempts: u32, chance: u64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        let full = self.pause_min.saturating_mul(1 << doublings).min(self.pause_max);
        let part = u32::try_from(chance % 1000).unwrap_or(0);
        (full / 2 + full * part / 2000).max(self.pause_min)
    }
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The channel has it.
    Delivered,
    /// It may have it later; `after` is what it asked for.
    Later { fault: String, after: Option<Duration> },
    /// It will never take it.
    Never { fault: String },
}

/// Where a delivery gets its work from and where it tells of it.
pub(super) struct Desk {
    pub(super) channel: usize,
    pub(super) name: String,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) waker: Arc<Notify>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) pace: Pace,
}

pub(super) async fn run(desk: Desk, sender: Sender) {
    // Of the channel, not of one alert: what the next one stands for may grow while it is down.
    let mut failures = 0;
    let mut attempts = 0;
    let mut current = None;
    loop {
        let Ok(Head { letter, next_at }) = desk.head().await else { return };
        let Some(letter) = letter else {
            let idle = next_at.map_or(IDLE_MAX, |at| at.since(BootTime::now()).min(IDLE_MAX));
            // Woken or not, the next question tells whether there is work.
            let _woken = tokio::time::timeout(idle, desk.waker.notified()).await;
            continue;
        };
        // The head changes without being settled if a full queue dropped it, or more was folded.
        if current.replace(letter.id) != Some(letter.id) {
            attempts = 0;
        }
        attempts += 1;
        match sender.send(&letter.alert, desk.pace.attempt_deadline).await {
            Verdict::Delivered => {
                failures = 0;
                desk.settle(letter.id, Settled::Delivered).await;
                desk.report(|channel| Report::Delivered { channel, id: letter.id, attempts });
            }
            Verdict::Never { fault } => {
                failures = 0;
                desk.settle(letter.id, Settled::Dead).await;
                desk.failed(&fault).await;
                desk.report(|channel| Report::Dead { channel, id: letter.id, fault });
            }
            Verdict::Later { fault, after } => {
                failures += 1;
                desk.failed(&fault).await;
                let chance = Uuid::new_v4().as_u64_pair().1;
                let pause = desk.pace.pause(failures, chance);
                let again_in = after.map_or(pause, |after| {
                    after.min(desk.pace.retry_after_max).max(desk.pace.pause_min)
                });
                let id = letter.id;
                desk.report(|channel| Report::Failed { channel, id, attempts, fault, again_in });
                tokio::time::sleep(again_in).await;
            }
        }
    }
}

/// What a channel is to do next.
pub(super) struct Head {
    pub(super) letter: Option<Letter>,
    /// When there will be something, if there is nothing now.
    pub(super) next_at: Option<BootTime>,
}

impl Desk {
    /// `Err` once the outbox is gone.
    async fn head(&self) -> Result<Head, ()> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Head { channel: self.channel, reply };
        self.orders.send(order).await.map_err(|_closed| ())?;
        answer.await.map_err(|_closed| ())
    }

    async fn settle(&self, id: Uuid, settled: Settled) {
        // If the outbox is gone the next question says so.
        let _closed = self.orders.send(Order::Settle { channel: self.channel, id, settled }).await;
    }

    async fn failed(&self, fault: &str) {
        let order = Order::Failed { channel: self.channel, fault: fault.to_owned() };
        let _closed = self.orders.send(order).await;
    }

    fn report(&self, report: impl FnOnce(String) -> Report) {
        // See REPORTS_MAX.
        let _full = self.reports.try_send(report(self.name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_second_to_a_minute_and_stay_there() {
        let pace = Pace::default();
        let longest = |attempts| pace.pause(attempts, 999).as_secs_f64().round();
        let grown = (1..=8).map(longest).collect::<Vec<_>>();
        assert_eq!(grown, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        for attempts in [1, 2, 7, 1000, u32::MAX] {
            for chance in [0, 500, 999, u64::MAX] {
                let pause = pace.pause(attempts, chance);
                assert!(pause >= pace.pause_min && pause <= pace.pause_max, "{pause:?}");
            }
        }
    }
}
