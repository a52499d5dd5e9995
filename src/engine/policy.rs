//! What the engine was told about a group.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::Lease;
use super::plan::Step;

/// Age of the evidence, by the store's clock, above which the store refuses an acquisition. It
/// leaves room for one check of this node between the read and the acquisition, and keeps a request
/// that was delayed on the way from taking over a primary that has recovered since.
pub const EVIDENCE_MAX_AGE: Duration = Duration::from_millis(2_500);

/// How long a check of this node may take. Well below [`EVIDENCE_MAX_AGE`], so that the evidence is
/// still good after it.
pub const CHECK_DEADLINE: Duration = Duration::from_millis(1_500);

/// How often a standby checks that it could take over, and samples the lag of its data: often
/// enough that the last sample before a primary's death says something about the data at its death.
pub const CHECK_EVERY: Duration = Duration::from_secs(10);

/// How often the store is read while the first heartbeat of a new primary is awaited.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);

/// How long a takeover waits for a read that says that the lease is still this node's before a
/// person is called: three reads that take as long as they may.
pub const LEASE_DEADLINE: Duration = Duration::from_secs(5);

/// How old a takeover may be that is gone on with at once after a restart. systemd starts a killed
/// process again within a second or two; in a longer absence the old primary may have come back
/// without being seen, so a whole window of silence comes first.
pub const RESUME_MAX: Duration = Duration::from_secs(5);

/// Attempts of a step before a person is called. What fails three times in a few seconds is not a
/// hiccup.
pub const ATTEMPTS_BEFORE_DEGRADED: u32 = 3;

/// Pause before the second attempt of a step; it doubles with each one.
pub const RETRY_FIRST: Duration = Duration::from_millis(500);

/// Pause between the attempts of a degraded failover: a person has been called and may be at work,
/// so not too often; the remedy may be quick, so not too seldom.
pub const RETRY_DEGRADED: Duration = Duration::from_secs(15);

/// How often the store is read while a hand-over waits for the other node, on both.
pub const HAND_OVER_EVERY: Duration = Duration::from_millis(100);

/// How long the other node may take to get ready for a hand-over: a read, a check, a report.
pub const PREPARE_MAX: Duration = Duration::from_secs(8);

/// How long giving the lease away may take, with everything that the other Redis must get first.
pub const HAND_OVER_MAX: Duration = Duration::from_secs(20);

/// How old a check may be that a node calls itself prepared by.
pub const PREPARED_FOR: Duration = Duration::from_secs(5);

/// Time between two attempts to hand over a group that does not run, or to make Redis follow the
/// primary's: what hindered the last one takes a while to pass.
pub const TRY_AGAIN_EVERY: Duration = Duration::from_secs(15);

/// How long units may take to stop when another node has taken the group.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// What the engine was told about a group. Built from validated settings only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Name of this node.
    pub node: String,
    /// Names of the bots, in the order of the observations.
    pub bots: Vec<String>,
    /// Whether every bot must be stale, or one is enough.
    pub all_bots: bool,
    /// Statuses that mean "stopped on purpose".
    pub stopped_statuses: Vec<String>,
    /// How long a heartbeat must stay unchanged to be stale.
    pub timeout: Duration,
    /// How long a read may take.
    pub reply_timeout: Duration,
    /// Longest pause between two good reads, or between two turns of the loop, that still belong to
    /// one window.
    pub max_gap: Duration,
    /// How long the group may be unknown before a person is called.
    pub blind_after: Duration,
    /// Whether to take over without being asked.
    pub automatic: bool,
    /// Steps of a takeover, with what each attempt may take.
    pub plan: Vec<(Step, Duration)>,
    /// What is different if every node of the group runs understudy; `None` in observed mode.
    #[serde(default)]
    pub paired: Option<Paired>,
}

/// What the engine is told about a group whose holder renews its lease. The figures are worked out
/// from the configured timers, whose relations are checked there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// The group's nodes, in the order in which they are preferred.
    pub nodes: Vec<String>,
    /// Time between two renewals.
    pub renew: Duration,
    /// Age of the last granted renewal at which the guard begins to fence.
    pub fence_after: Duration,
    /// How long a lease must stay unchanged to be silent: longer than it can take until the units of
    /// a holder that renews no more are dead, whatever its clock does.
    pub window: Duration,
    /// How long the former holder may ask again without a window: nobody else can have had one.
    pub again_within: Duration,
}

impl Paired {
    /// How long this node waits for the lease: as long as it must be silent, and a little more for each
    /// node that is preferred to it, so that they need not race.
    #[must_use]
    pub fn window_for(&self, node: &str, lease: &Lease) -> Duration {
        let before = self
            .nodes
            .iter()
            .take_while(|other| other.as_str() != node)
            .filter(|other| lease.holder.as_ref() != Some(*other));
        let rank = u32::try_from(before.count()).unwrap_or(u32::MAX);
        self.least_window(lease) + (self.renew * 3).saturating_mul(rank)
    }

    /// How long the lease must be unchanged until no unit of its holder can be alive.
    #[must_use]
    pub fn least_window(&self, lease: &Lease) -> Duration {
        // A tenth more: the holder's clock may be that much slower than ours.
        self.window.max(lease.ttl + lease.ttl / 10)
    }

    /// How much longer the others wait for a lease that they never saw renewed. The store may have been
    /// away for all, and its holder have stopped the units for that and nothing else: it waits for a
    /// window as well, and goes first, though its clock may be slow and ours fast.
    #[must_use]
    pub fn patience(&self, lease: &Lease) -> Duration {
        self.least_window(lease) * 2 / 9 + self.renew * 4
    }
}

impl Policy {
    /// How old the last word that the lease is this node's may be when `step` begins. What cannot be
    /// taken back needs a younger one where a read says it; a guard that says it stops the units
    /// itself, and a step that is under way then must be able to end.
    #[must_use]
    pub fn confirmed_for(&self, step: Step) -> Duration {
        if let Some(paired) = &self.paired {
            return paired.fence_after * 3 / 4;
        }
        let limit = match step {
            Step::Promote | Step::Persist | Step::Start => BEAT_EVERY,
            Step::Guard | Step::Fence | Step::Flip | Step::Publish | Step::Beat => self.timeout,
        };
        limit.min(self.timeout)
    }

    /// What one attempt of `step` may take.
    #[must_use]
    pub fn deadline(&self, step: Step) -> Duration {
        self.plan
            .iter()
            .find(|(planned, _)| *planned == step)
            .map_or(Duration::ZERO, |(_, deadline)| *deadline)
    }

    /// The step after `step`; `None` if it is the last.
    #[must_use]
    pub fn after(&self, step: Step) -> Option<Step> {
        self.plan.iter().map(|(planned, _)| *planned).find(|planned| *planned > step)
    }

    /// The first step that is not before `step`. A plan may have lost steps since one was noted.
    #[must_use]
    pub fn at_or_after(&self, step: Step) -> Option<Step> {
        self.plan.iter().map(|(planned, _)| *planned).find(|planned| *planned >= step)
    }
}
