//! Is the primary alive? Answers from successive reads: fresh, stale, or not known.
//!
//! Silence is a value that did not change over a whole window of our own clock. No clock of another
//! host and no time zone takes part, so a heartbeat from the future, a naive column or a stepped
//! clock means nothing here. The price is a full window after every start and every interruption,
//! which is also the grace that one wants then. Kubernetes' client-go judges its leases likewise
//! (`observedTime`).
//!
//! A window counts from the **reply** to its first read to the **sending** of its last: the value
//! was certainly there at both instants, so the silence is never overestimated.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::{Bot, Epoch, Nonce, Observation, StoreIdentity, Token};
use super::policy::Policy;
use crate::time::BootTime;

/// What is known about a group's heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// They may be alive: not enough silence yet to say otherwise.
    Fresh,
    /// They are silent.
    Stale,
    /// Nobody can say. Never a reason to act.
    Unknown(Cause),
}

/// Why nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Nothing was read yet.
    NotReadYet,
    /// A read failed.
    ReadFailed(String),
    /// A reply came so late that it may describe the past.
    LateReply(Duration),
    /// Our own process, or the whole host, stood still.
    Stalled(Duration),
    /// Another server answers than before, or the same one after a restart.
    StoreChanged,
    /// The group changed hands.
    TenureChanged(Epoch),
    /// The store forgot a tenure: it was restored from a backup, or failed over with losses.
    StoreWentBack {
        /// The highest epoch that was ever seen.
        seen: Epoch,
        /// The one it has now.
        now: Epoch,
    },
    /// A bot has no row.
    RowMissing(String),
    /// A bot has several rows.
    RowDuplicate(String, usize),
    /// A bot's row has no heartbeat in it.
    HeartbeatNull(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReadYet => f.write_str("the store was not read yet"),
            Self::ReadFailed(fault) => write!(f, "{fault}"),
            Self::LateReply(took) => {
                write!(f, "the store took {}; what it says may be past", seconds(*took))
            }
            Self::Stalled(gap) => {
                write!(f, "this process or host stood still for {}", seconds(*gap))
            }
            Self::StoreChanged => {
                f.write_str("another database server answers, or the same one after a restart")
            }
            Self::TenureChanged(epoch) => write!(f, "the group changed hands (epoch {epoch})"),
            Self::StoreWentBack { seen, now } => write!(
                f,
                "the store went back to epoch {now} after {seen} (restored from a backup?); say \
                 who has the group with `understudy failback` or `understudy failover --force`"
            ),
            Self::RowMissing(bot) => write!(f, "there is no row for bot {bot}"),
            Self::RowDuplicate(bot, rows) => write!(f, "there are {rows} rows for bot {bot}"),
            Self::HeartbeatNull(bot) => write!(f, "the heartbeat of bot {bot} is NULL"),
        }
    }
}

/// A duration as people read it in a sentence.
#[must_use]
pub fn seconds(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..10_000 => {
            let tenths = millis.div_ceil(100);
            if tenths.is_multiple_of(10) {
                format!("{} s", tenths / 10)
            } else {
                format!("{}.{} s", tenths / 10, tenths % 10)
            }
        }
        10_000..120_000 => format!("{} s", millis.div_ceil(1_000)),
        120_000..7_200_000 => {
            format!("{} min {} s", millis / 60_000, millis / 1_000 % 60)
        }
        _ => format!("{} h {} min", millis / 3_600_000, millis / 60_000 % 60),
    }
}

/// The reads that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Why nothing is known, and since when; `None` while something is.
    unknown: Option<(Cause, BootTime)>,
    store: Option<StoreIdentity>,
    tenure: Option<(Epoch, Option<Nonce>, u64)>,
    /// The renewal that was seen last, and when the reply with it came first.
    renewal: (u64, BootTime),
    /// Whether the holder was seen to renew it, in the present window.
    #[serde(default)]
    renewed: bool,
    last_sent: BootTime,
    /// One for each bot; empty until something is known.
    windows: Vec<Window>,
}

/// How long a bot's heartbeat has been the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    value: String,
    /// When the reply with this value came first.
    since: BootTime,
    /// Whether another value was seen before, in the same window: the bot is certainly alive then.
    changed: bool,
}

impl Watch {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(now: BootTime) -> Self {
        Self {
            unknown: Some((Cause::NotReadYet, now)),
            store: None,
            tenure: None,
            renewal: (0, now),
            renewed: false,
            last_sent: now,
            windows: Vec::new(),
        }
    }

    /// What is known.
    #[must_use]
    pub fn verdict(&self, policy: &Policy) -> Verdict {
        if let Some((cause, _)) = &self.unknown {
            return Verdict::Unknown(cause.clone());
        }
        let mut bots = self.windows.iter();
        let silent = |window: &Window| self.last_sent.since(window.since) >= policy.timeout;
        let stale = if policy.all_bots { bots.all(silent) } else { bots.any(silent) };
        if stale && !self.windows.is_empty() { Verdict::Stale } else { Verdict::Fresh }
    }

    /// Whether the lease was seen unchanged, renewals included, for `window`.
    #[must_use]
    pub fn lease_is_silent(&self, window: Duration) -> bool {
        self.unknown.is_none() && self.last_sent.since(self.renewal.1) >= window
    }

    /// Since when the lease has been seen unchanged; `None` while nothing is known.
    #[must_use]
    pub fn lease_since(&self) -> Option<BootTime> {
        self.unknown.is_none().then_some(self.renewal.1)
    }

    /// Whether the lease was seen to be renewed since all of this is known without a gap.
    #[must_use]
    pub const fn saw_renewal(&self) -> bool {
        self.renewed
    }

    /// Why nothing is known and since when.
    #[must_use]
    pub fn unknown(&self) -> Option<(&Cause, BootTime)> {
        self.unknown.as_ref().map(|(cause, since)| (cause, *since))
    }

    /// When the verdict becomes stale if nothing changes until then.
    #[must_use]
    pub fn stale_at(&self, policy: &Policy) -> Option<BootTime> {
        let ends = self.windows.iter().map(|window| window.since + policy.timeout);
        if policy.all_bots { ends.max() } else { ends.min() }
    }

    /// Whether bot number `bot` was silent for the whole timeout when last read.
    #[must_use]
    pub fn is_silent(&self, bot: usize, policy: &Policy) -> bool {
        self.windows
            .get(bot)
            .is_some_and(|window| self.last_sent.since(window.since) >= policy.timeout)
    }

    /// Whether a heartbeat changed after `instant`, and not so long ago that it became silent
    /// again.
    #[must_use]
    pub fn beat_after(&self, instant: BootTime, policy: &Policy) -> Option<usize> {
        (0..self.windows.len()).find(|bot| {
            self.windows[*bot].changed
                && self.windows[*bot].since > instant
                && !self.is_silent(*bot, policy)
        })
    }

    /// Whether a heartbeat was seen to change less than `span` before the last read.
    #[must_use]
    pub fn beat_within(&self, span: Duration) -> bool {
        let lately = |window: &Window| self.last_sent.since(window.since) < span;
        self.windows.iter().any(|window| window.changed && lately(window))
    }

    /// Since when bot number `bot` has had its present heartbeat, and whether it was seen to
    /// change.
    #[must_use]
    pub fn unchanged_since(&self, bot: usize) -> Option<(BootTime, bool)> {
        self.windows.get(bot).map(|window| (window.since, window.changed))
    }

    /// The heartbeats as last read, in the order of the bots.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.windows.iter().map(|window| window.value.as_str())
    }

    /// Takes in a good read. Says so if the window had to start again with it.
    pub fn observed(
        &mut self,
        now: BootTime,
        sent: BootTime,
        observation: &Observation,
        policy: &Policy,
    ) -> Option<Cause> {
        let took = now.since(sent);
        if took > policy.reply_timeout {
            self.lose(now, Cause::LateReply(took));
            return None;
        }
        if let Some(cause) = fault_in_rows(observation, policy) {
            self.lose(now, cause);
            return None;
        }
        let lease = &observation.lease;
        // Where nobody renews, a renewal is as good as another tenure.
        let seq = if policy.paired.is_some() { 0 } else { lease.seq };
        let tenure = (lease.epoch, lease.nonce, seq);
        let gap = sent.since(self.last_sent);
        let restarted = if self.unknown.is_some() {
            None // Its windows are empty already, and it was said why.
        } else if self.store.as_ref() != Some(&observation.store) {
            Some(Cause::StoreChanged)
        } else if gap > policy.max_gap {
            Some(Cause::Stalled(gap))
        } else if self.tenure != Some(tenure) {
            Some(Cause::TenureChanged(lease.epoch))
        } else {
            None
        };
        if restarted.is_some() {
            self.windows.clear();
        }
        if self.windows.is_empty() || lease.seq != self.renewal.0 {
            self.renewed = !self.windows.is_empty();
            self.renewal = (lease.seq, now);
        }
        self.unknown = None;
        self.store = Some(observation.store.clone());
        self.tenure = Some(tenure);
        self.last_sent = sent;
        let values = observation.bots.iter().map(|bot| match bot {
            Bot::Beat { value, .. } => value.as_str(),
            Bot::Missing | Bot::Duplicate { .. } | Bot::Null { .. } => "",
        });
        if self.windows.is_empty() {
            self.windows = values.map(|value| Window::new(value, now, false)).collect();
        } else {
            for (window, value) in self.windows.iter_mut().zip(values) {
                if window.value != value {
                    *window = Window::new(value, now, true);
                }
            }
        }
        restarted
    }

    /// The group is about to change hands, to us: that is no reason for a new window. What beats
    /// from now on beats in spite of it.
    pub fn expect_tenure(&mut self, now: BootTime, token: Token) {
        self.renewal = (0, now);
        self.renewed = false;
        self.tenure = Some((token.epoch, Some(token.nonce), 0));
    }

    /// Takes in that nothing is known now; the window starts again with the next good read.
    pub fn lose(&mut self, now: BootTime, cause: Cause) {
        let since = self.unknown.as_ref().map_or(now, |(_, since)| *since);
        self.unknown = Some((cause, since));
        self.windows.clear();
    }

    /// Starts the window again although everything is known.
    pub fn restart(&mut self, now: BootTime) {
        for window in &mut self.windows {
            window.since = now;
            window.changed = false;
        }
        self.renewal.1 = now;
    }
}

impl Window {
    fn new(value: &str, since: BootTime, changed: bool) -> Self {
        Self { value: value.to_owned(), since, changed }
    }
}

/// A row that proves nothing makes the whole group unknown, whatever the other rows say: somebody
/// is at work on the table, or the configuration names the wrong rows.
fn fault_in_rows(observation: &Observation, policy: &Policy) -> Option<Cause> {
    observation.bots.iter().zip(&policy.bots).find_map(|(bot, name)| match bot {
        Bot::Missing => Some(Cause::RowMissing(name.clone())),
        Bot::Duplicate { rows } => Some(Cause::RowDuplicate(name.clone(), *rows)),
        Bot::Null { .. } => Some(Cause::HeartbeatNull(name.clone())),
        Bot::Beat { .. } => None,
    })
}
