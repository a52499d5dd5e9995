//! What the engine shows of itself: for `status`, `STATUS=`, metrics. Nothing decides by it.

use std::time::Duration;

use super::edge::Kind;
use super::event::Cause;
use super::liveness::{Verdict, seconds};
use super::observation::{Bot, Epoch, Hold};
use super::plan::Step;
use super::{Engine, Next, Phase, State};
use crate::time::BootTime;

/// A group on this node at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// State.
    pub kind: Kind,
    /// The whole situation in one sentence.
    pub sentence: String,
    /// What is known of the heartbeats.
    pub verdict: Verdict,
    /// How long a heartbeat must stay unchanged to be stale.
    pub timeout: Duration,
    /// The bots, in the order of the configuration; empty before the first read.
    pub bots: Vec<BotView>,
    /// How old the last good read is.
    pub read_ago: Option<Duration>,
    /// Who has the group, as last read.
    pub holder: Option<String>,
    /// Epoch of the lease, as last read.
    pub epoch: Option<Epoch>,
    /// Highest epoch that this node knows of. The store forgot a tenure if its own is lower.
    pub max_epoch: Epoch,
    /// A person's order not to act.
    pub hold: Option<Hold>,
    /// Whether the group is latched.
    pub latched: bool,
    /// What is left of the cooldown.
    pub cooldown_left: Option<Duration>,
    /// Why this node would not take over if the heartbeats became silent now.
    pub blocker: Option<String>,
    /// Why this node could not take over when it was last checked; `None` before the first check,
    /// and on a node that has the group.
    pub problems: Option<Vec<String>>,
    /// The takeover under way, or the last one.
    pub takeover: Option<Takeover>,
    /// Why the last takeover did not begin.
    pub refusal: Option<String>,
    /// The other nodes of a paired group, the preferred ones first.
    pub others: Vec<OtherView>,
    /// How long ago the lease was seen to change, renewals included; `None` in observed mode, and
    /// while nothing is known.
    pub renewed_ago: Option<Duration>,
}

/// Another node of a paired group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherView {
    /// Its name.
    pub name: String,
    /// How long ago it was last heard of; `None` if it was not, since this process was started.
    pub heard_ago: Option<Duration>,
    /// Why it could not run the group, by its own words; empty if it could.
    pub problems: Vec<String>,
    /// Whether it could.
    pub ready: bool,
}

/// The little of a group by which it is known whether something is over. Asked for often, so it costs
/// next to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// State.
    pub kind: Kind,
    /// Whether the store was read since the process was started.
    pub read: bool,
    /// What is known of the heartbeats.
    pub verdict: Verdict,
    /// Whether one of them was seen to change in the present window.
    pub beat_seen: bool,
    /// Whether this node could take over when it was last checked.
    pub ready: bool,
}

/// A bot at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotView {
    /// Name.
    pub name: String,
    /// Status column, as last read.
    pub status: Option<String>,
    /// Age by the store's clock when last read, in milliseconds.
    pub age_ms: Option<i64>,
    /// For how long this node has seen no change.
    pub unchanged_for: Option<Duration>,
    /// When it becomes stale if nothing changes; zero if it is.
    pub stale_in: Option<Duration>,
}

/// A takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// Its epoch.
    pub epoch: Epoch,
    /// Who wanted it.
    pub cause: Cause,
    /// The step under way.
    pub step: Option<Step>,
    /// Why it is stuck, if it is.
    pub fault: Option<String>,
    /// Whether an attempt of the step is under way, rather than waited for.
    pub trying: bool,
    /// The steps that are done and how long they took.
    pub done: Vec<(Step, Duration)>,
}

impl Engine {
    /// Who has the group, as last read.
    #[must_use]
    pub fn holder(&self) -> Option<String> {
        self.last.as_ref().and_then(|(_, observation)| observation.lease.holder.clone())
    }

    /// The epoch of the lease if nobody has it, as last read; `None` in observed mode, in which nobody lets
    /// go of it.
    #[must_use]
    pub fn left_with(&self) -> Option<Epoch> {
        let lease = &self.last.as_ref()?.1.lease;
        (self.policy.paired.is_some() && lease.holder.is_none()).then_some(lease.epoch)
    }

    /// How long this node waits for a lease that is renewed no more; `None` in observed mode.
    #[must_use]
    pub fn paired_window(&self) -> Option<Duration> {
        let paired = self.policy.paired.as_ref()?;
        let lease = self.last.as_ref().map(|(_, observation)| observation.lease.clone());
        Some(paired.window_for(&self.policy.node, &lease.unwrap_or_default()))
    }

    /// What is known of the group, without words.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        Outlook {
            kind: self.kind(),
            read: self.last.is_some(),
            verdict: self.watch.verdict(&self.policy),
            beat_seen: self.beat_seen(),
            ready: self.check.found.as_ref().is_some_and(|(_, problems)| problems.is_empty()),
        }
    }

    /// The group as it is now.
    #[must_use]
    pub fn snapshot(&self, now: BootTime) -> Snapshot {
        let lease = self.last.as_ref().map(|(_, observation)| &observation.lease);
        let read_ago = self.last.as_ref().map(|(at, _)| now.since(*at));
        let less = |left: Duration| left.saturating_sub(read_ago.unwrap_or_default());
        Snapshot {
            kind: self.kind(),
            sentence: self.sentence(now),
            verdict: self.watch.verdict(&self.policy),
            timeout: self.policy.timeout,
            bots: self.bots(now),
            read_ago,
            holder: lease.and_then(|lease| lease.holder.clone()),
            epoch: lease.map(|lease| lease.epoch),
            max_epoch: self.max_epoch,
            hold: lease.and_then(|lease| lease.hold.clone()),
            latched: lease.is_some_and(|lease| lease.latched),
            cooldown_left: lease
                .and_then(|lease| lease.cooldown_left)
                .map(less)
                .filter(|left| !left.is_zero()),
            blocker: match self.state {
                State::Standby => self.blocker().map(|blocker| blocker.text),
                State::Interrupted { .. } => self.restraint().map(|blocker| blocker.text),
                State::Checking { .. }
                | State::Acquiring { .. }
                | State::Promoting { .. }
                | State::Active { .. }
                | State::HandingOver { .. }
                | State::Stopping { .. } => None,
            },
            problems: match self.state {
                State::Standby | State::Checking { .. } | State::Acquiring { .. } => {
                    self.check.found.as_ref().map(|(_, problems)| problems.clone())
                }
                // Found before the takeover, and true of a node that was yet to take over.
                State::Promoting { .. }
                | State::Active { .. }
                | State::Interrupted { .. }
                | State::HandingOver { .. }
                | State::Stopping { .. } => None,
            },
            takeover: self.takeover(),
            refusal: self.told.refusal.clone(),
            others: self.others().map(|node| self.other(now, node)).collect(),
            renewed_ago: self
                .policy
                .paired
                .as_ref()
                .and_then(|_| self.watch.lease_since())
                .map(|since| now.since(since)),
        }
    }

    fn other(&self, now: BootTime, node: &str) -> OtherView {
        let heard = self.pair.peers.iter().find(|peer| peer.0 == node).and_then(|peer| peer.2);
        let member = self.last.as_ref().and_then(|(_, observation)| {
            observation.members.iter().find(|member| member.node == node)
        });
        OtherView {
            name: node.to_owned(),
            heard_ago: heard.map(|at| now.since(at)),
            problems: member.map(|member| member.problems.clone()).unwrap_or_default(),
            ready: member.is_some_and(|member| member.ready),
        }
    }

    fn takeover(&self) -> Option<Takeover> {
        let (tenure, step, fault, trying) = match &self.state {
            State::Promoting { tenure, attempt, fault } => {
                let trying = matches!(attempt.next, Next::Answer | Next::Lease(Some(_)));
                (tenure, Some(attempt.step), fault.clone(), trying)
            }
            State::Active { tenure }
            | State::HandingOver { tenure, .. }
            | State::Interrupted { tenure } => (tenure, None, None, false),
            State::Standby
            | State::Checking { .. }
            | State::Acquiring { .. }
            | State::Stopping { .. } => return None,
        };
        let done = tenure.steps.clone();
        let (epoch, cause) = (tenure.token.epoch, tenure.cause);
        Some(Takeover { epoch, cause, step, fault, trying, done })
    }

    fn bots(&self, now: BootTime) -> Vec<BotView> {
        let Some((_, observation)) = &self.last else { return Vec::new() };
        let views = self.policy.bots.iter().zip(&observation.bots).enumerate();
        views
            .map(|(index, (name, bot))| {
                let (status, age_ms) = match bot {
                    Bot::Missing | Bot::Duplicate { .. } => (None, None),
                    Bot::Null { status } => (Some(status.clone()), None),
                    Bot::Beat { status, age_ms, .. } => (Some(status.clone()), *age_ms),
                };
                let since = self.watch.unchanged_since(index).map(|(since, _)| since);
                let unchanged_for = since.map(|since| now.since(since));
                let stale_in = since.map(|since| (since + self.policy.timeout).since(now));
                BotView { name: name.clone(), status, age_ms, unchanged_for, stale_in }
            })
            .collect()
    }

    fn sentence(&self, now: BootTime) -> String {
        match &self.state {
            State::Standby => match self.watch.verdict(&self.policy) {
                Verdict::Unknown(cause) => format!("cannot tell: {cause}"),
                Verdict::Fresh => self.heartbeat_sentence(now),
                Verdict::Stale => {
                    let why = self.blocker().map(|b| b.text).or_else(|| self.told.refusal.clone());
                    let why = why.map_or(String::new(), |why| format!("; no takeover: {why}"));
                    format!("silent: {}{why}", self.silent_bots())
                }
            },
            State::Promoting { attempt, fault, .. } => match (fault, attempt.next) {
                (None, Next::RetryAt(_)) => {
                    format!("taking over: {} failed, trying again", attempt.step)
                }
                (None, Next::Lease(_)) => format!(
                    "taking over: the store must say that the lease is still this node's before {}",
                    attempt.step.doing()
                ),
                (None, Next::Answer | Next::Beats(_)) => {
                    format!("taking over: {}", attempt.step.doing())
                }
                (Some(fault), _) => format!("DEGRADED: stuck at {}: {fault}", attempt.step.doing()),
            },
            State::Active { tenure } => {
                let epoch = tenure.token.epoch;
                match self.watch.verdict(&self.policy) {
                    Verdict::Fresh => format!("this node has the group (epoch {epoch})"),
                    Verdict::Stale => format!(
                        "this node has the group (epoch {epoch}), and it is SILENT: {}",
                        self.silent_bots()
                    ),
                    Verdict::Unknown(cause) => {
                        format!("this node has the group (epoch {epoch}); cannot see it: {cause}")
                    }
                }
            }
            State::Interrupted { tenure } => format!(
                "holds the lease (epoch {}) of an interrupted takeover; watching whether somebody \
                 else runs the bots: {}",
                tenure.token.epoch,
                self.heartbeat_sentence(now)
            ),
            State::HandingOver { to, phase, .. } => match phase {
                Phase::Preparing { .. } => format!("handing over: {to} is getting ready"),
                Phase::Stopping => format!("handing over to {to}: stopping the units here"),
                Phase::Giving => format!("handing over to {to}: giving it the lease"),
            },
            State::Checking { .. } | State::Acquiring { .. } | State::Stopping { .. } => {
                self.kind().meaning().to_owned()
            }
        }
    }

    /// The bot that becomes stale next.
    pub(super) fn heartbeat_sentence(&self, now: BootTime) -> String {
        let next = self.policy.bots.iter().enumerate().filter_map(|(index, name)| {
            self.watch.unchanged_since(index).map(|(since, changed)| (since, changed, name))
        });
        let next = if self.policy.all_bots {
            next.max_by_key(|(since, ..)| *since)
        } else {
            next.min_by_key(|(since, ..)| *since)
        };
        let Some((since, changed, name)) = next else { return "nothing was read yet".to_owned() };
        let seen = if changed { "last beat seen" } else { "watched" };
        let left = (since + self.policy.timeout).since(now);
        format!("{name} {seen} {} ago, stale in {}", seconds(now.since(since)), seconds(left))
    }

    /// The bots that are silent, and for how long.
    pub(super) fn silent_bots(&self) -> String {
        let bots = self.policy.bots.iter().enumerate().filter_map(|(index, name)| {
            let (since, _) = self.watch.unchanged_since(index)?;
            let silent_for = self.last_turn.since(since);
            (silent_for >= self.policy.timeout)
                .then(|| format!("{name} for {}", seconds(silent_for)))
        });
        bots.collect::<Vec<_>>().join(", ")
    }
}
