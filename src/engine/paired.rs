//! Paired mode: on what ground a lease that is renewed may be asked for, what the word of the guard
//! means, and how a group is handed over.
//!
//! The guard renews the lease and is the only one that knows whether it is this node's. Without its
//! word nothing is done in the name of a tenure; when it is gone, the tenure is over, and a new one
//! needs a new epoch.

use std::time::Duration;

use super::edge::Why;
use super::event::{Action, GuardReport, Memory, Progress, Recalled};
use super::liveness::{Verdict, seconds};
use super::notice::Notice;
use super::observation::{Epoch, Lease, Member, Observation, Token, Way};
use super::plan::Step;
use super::policy::{Paired, STOP_DEADLINE};
use super::{Blocker, Engine, Next, Obstacle, Phase, State, Tenure};
use crate::time::BootTime;

impl Engine {
    // ---- when to ask for the lease ----

    /// On what ground this node may ask for the lease by itself, if on any. What people said against
    /// it is another question.
    pub(super) fn ground(&self) -> Option<Way> {
        let silent = self.watch.verdict(&self.policy) == Verdict::Stale;
        let Some(paired) = &self.policy.paired else { return silent.then_some(Way::Silent) };
        let (_, observation) = self.last.as_ref()?;
        let lease = &observation.lease;
        if self.watch.unknown().is_some() {
            return None;
        }
        let window = self.lease_window(paired, lease);
        let unchanged = self.watch.lease_is_silent(window);
        let way = self.way(lease);
        let given = match way {
            Way::Offer => true,
            Way::Free => unchanged && silent,
            // A holder without a guard renews nothing, so that its silence means nothing.
            Way::Silent => unchanged && silent && !lease.ttl.is_zero(),
            Way::Again => {
                (unchanged && !self.watch.beat_within(window)) || self.just_had(paired, lease)
            }
        };
        given.then_some(way)
    }

    /// How long this node waits for the lease as it is.
    fn lease_window(&self, paired: &Paired, lease: &Lease) -> Duration {
        let window = paired.window_for(&self.policy.node, lease);
        match self.way(lease) {
            // Nobody is preferred to the node that goes on.
            Way::Again => paired.least_window(lease),
            Way::Silent if !self.watch.saw_renewal() => window + paired.patience(lease),
            Way::Silent | Way::Free | Way::Offer => window,
        }
    }

    /// What is still missing to a ground for asking, though the bots are silent.
    pub(super) fn missing_ground(&self, lease: &Lease) -> Option<Blocker> {
        let paired = self.policy.paired.as_ref()?;
        if self.ground().is_some() {
            return None;
        }
        let holder = lease.holder.as_deref().unwrap_or("nobody");
        let (obstacle, text) = if self.way(lease) == Way::Silent && lease.ttl.is_zero() {
            let text = format!(
                "{holder} has the group without a guard that renews the lease, so nobody can tell \
                 whether it lives. If it is certainly dead: `understudy failover --force`"
            );
            (Obstacle::Unguarded, text)
        } else if self.way(lease) == Way::Silent && self.is_renewed() {
            let text = format!(
                "{holder} renews its lease, so it lives; it hands the group over by itself if its \
                 units do not recover and another node is ready. To move it now: `understudy \
                 switchover`"
            );
            (Obstacle::Renewed, text)
        } else {
            let window = self.lease_window(paired, lease);
            let since = self.watch.lease_since().unwrap_or(self.last_turn);
            let left = seconds((since + window).since(self.last_turn));
            (Obstacle::Waiting, format!("the lease must stay unchanged for another {left}"))
        };
        Some(Blocker { obstacle, text })
    }

    /// Whether the holder's units may run still, by its own timers, so that not even a person may have
    /// the group: a takeover now would be a second copy for as long as the first takes to stop.
    pub(super) fn may_be_alive(&self, lease: &Lease) -> Option<String> {
        let paired = self.policy.paired.as_ref()?;
        let holder = lease.holder.as_deref().filter(|_| self.way(lease) == Way::Silent)?;
        let window = paired.least_window(lease);
        let since = self.watch.lease_since().filter(|_| !lease.ttl.is_zero())?;
        (!self.watch.lease_is_silent(window)).then(|| {
            format!(
                "{holder} was seen to renew its lease {} ago, so its units may run. `understudy \
                 switchover` moves the group while it lives; if it is dead, ask again in {}",
                seconds(self.last_turn.since(since)),
                seconds((since + window).since(self.last_turn))
            )
        })
    }

    /// Whether the lease names this node, which does not run the group, and somebody runs it all the
    /// same: not by this lease.
    pub(super) fn contested(&self) -> Option<Epoch> {
        let paired = self.policy.paired.as_ref()?;
        let lease = &self.last.as_ref()?.1.lease;
        let window = self.lease_window(paired, lease);
        (self.way(lease) == Way::Again
            && self.watch.lease_is_silent(window)
            && self.watch.beat_within(window))
        .then_some(lease.epoch)
    }

    /// What a question for the lease would be called now.
    pub(super) fn way(&self, lease: &Lease) -> Way {
        let me = self.policy.node.as_str();
        match lease.holder.as_deref() {
            _ if self.policy.paired.is_none() => Way::Silent,
            None if lease.offered_to.as_deref() == Some(me)
                && self.pair.offer == Some(lease.epoch) =>
            {
                Way::Offer
            }
            None => Way::Free,
            Some(holder) if holder == me => Way::Again,
            Some(_) => Way::Silent,
        }
    }

    /// Whether the lease is still the one of this node's last tenure, whose guard ended so short a
    /// time ago that nobody can have waited a whole window since its last renewal.
    fn just_had(&self, paired: &Paired, lease: &Lease) -> bool {
        self.pair.ended.is_some_and(|(token, confirmed)| {
            lease.epoch == token.epoch
                && lease.nonce == Some(token.nonce)
                && self.last_turn.since(confirmed) < paired.again_within
        })
    }

    /// When the last of what must be silent will have been so for long enough, if nothing changes.
    pub(super) fn silent_at(&self) -> Option<BootTime> {
        let fresh = self.watch.verdict(&self.policy) == Verdict::Fresh;
        let beats_at = self.watch.stale_at(&self.policy).filter(|_| fresh);
        let Some(paired) = &self.policy.paired else { return beats_at };
        let (_, observation) = self.last.as_ref()?;
        let lease = &observation.lease;
        let window = self.lease_window(paired, lease);
        let waits = !self.watch.lease_is_silent(window);
        let lease_at = self.watch.lease_since().filter(|_| waits).map(|since| since + window);
        match self.way(lease) {
            Way::Again => lease_at,
            Way::Silent | Way::Free | Way::Offer => beats_at.max(lease_at),
        }
    }

    /// Whether the holder was seen to renew its lease a moment ago, or is not known to be silent.
    pub(super) fn is_renewed(&self) -> bool {
        let lately = self.policy.paired.as_ref().map(|paired| paired.renew * 4);
        lately.is_some_and(|lately| !self.watch.lease_is_silent(lately))
    }

    /// Takes in what a read says of the other nodes, and whether the last holder let go of the lease
    /// before our eyes: an offer in a store that was restored from a backup is no offer.
    pub(super) fn see_others(&mut self, now: BootTime, observation: &Observation) {
        let lease = &observation.lease;
        let offered = self.last.as_ref().is_some_and(|(at, last)| {
            last.store == observation.store
                && last.lease.holder.is_some()
                && last.lease.epoch.0 + 1 == lease.epoch.0
                && now.since(*at) <= self.policy.max_gap
        });
        if lease.holder.is_some() {
            self.pair.offer = None;
        } else if offered {
            self.pair.offer = Some(lease.epoch);
        }
        self.pair.peers.retain(|peer| observation.members.iter().any(|one| one.node == peer.0));
        for member in &observation.members {
            match self.pair.peers.iter_mut().find(|peer| peer.0 == member.node) {
                Some(peer) if peer.1 == member.beat => {}
                Some(peer) => *peer = (member.node.clone(), member.beat, Some(now)),
                None => self.pair.peers.push((member.node.clone(), member.beat, None)),
            }
        }
    }

    /// A node that was just heard of, as it last said of itself.
    pub(super) fn peer(&self, now: BootTime, node: &str) -> Option<&Member> {
        let heard = self.pair.peers.iter().find(|peer| peer.0 == node)?.2?;
        let (_, observation) = self.last.as_ref()?;
        (now.since(heard) <= self.policy.max_gap)
            .then(|| observation.members.iter().find(|member| member.node == node))?
    }

    /// The other nodes, the preferred ones first.
    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        let nodes = self.policy.paired.iter().flat_map(|paired| &paired.nodes);
        nodes.map(String::as_str).filter(|node| *node != self.policy.node)
    }

    // ---- the guard ----

    pub(super) fn guard_said(&mut self, now: BootTime, report: GuardReport, out: &mut Vec<Action>) {
        self.pair.guard = Some(report.clone());
        let starting = matches!(&self.state, State::Promoting { attempt, .. }
            if attempt.step == Step::Guard);
        let leaving = matches!(&self.state, State::HandingOver { phase: Phase::Giving, .. });
        match report {
            GuardReport::Holding { token, confirmed } => match &mut self.state {
                State::Promoting { tenure, .. }
                | State::Active { tenure }
                | State::HandingOver { tenure, .. }
                    if tenure.token == token =>
                {
                    tenure.confirmed = tenure.confirmed.max(confirmed);
                    self.try_again(now, out);
                }
                State::Standby | State::Checking { .. } => {
                    if let Some((at, recalled)) = self.recalled
                        && recalled.memory.nonce == token.nonce
                    {
                        self.take_up_guarded(now, at, recalled, token.epoch, out);
                    }
                }
                State::Promoting { .. }
                | State::Active { .. }
                | State::HandingOver { .. }
                | State::Acquiring { .. }
                | State::Interrupted { .. }
                | State::Stopping { .. } => {}
            },
            // It has not started yet, or ends because it was told to; the answer to that counts.
            GuardReport::Gone { .. } if starting || leaving => {}
            GuardReport::Gone { why } => self.end_tenure(why, out),
        }
    }

    /// By when a guard must have been started, while it is tried again and again.
    pub(super) fn guard_due(&self) -> Option<BootTime> {
        match &self.state {
            State::Promoting { tenure, attempt, .. }
                if attempt.step == Step::Guard && attempt.next != Next::Answer =>
            {
                Some(tenure.confirmed + self.policy.confirmed_for(Step::Guard))
            }
            State::Promoting { .. }
            | State::Standby
            | State::Checking { .. }
            | State::Acquiring { .. }
            | State::Active { .. }
            | State::Interrupted { .. }
            | State::HandingOver { .. }
            | State::Stopping { .. } => None,
        }
    }

    /// The lease is not this node's any more, as nobody renews it: what runs here must end before
    /// another node may act, and systemd and the guard see to that. It is looked at once more.
    pub(super) fn end_tenure(&mut self, why: String, out: &mut Vec<Action>) {
        let Some(tenure) = self.tenure().cloned() else { return };
        let over = self.memory(&tenure, Progress::Over);
        self.recalled = None;
        self.pair.ended = Some((tenure.token, tenure.confirmed));
        out.push(Action::Tell(Notice::GuardGone { epoch: tenure.token.epoch, why }));
        self.go(State::Stopping { retry_at: None, over }, Why::GuardGone, out);
        out.push(Action::StopUnits { deadline: STOP_DEADLINE });
    }

    /// The lease turned out to be ours. What follows depends on whether it has a guard.
    pub(super) fn take_up_guarded(
        &mut self,
        now: BootTime,
        asked_at: BootTime,
        recalled: Recalled,
        epoch: Epoch,
        out: &mut Vec<Action>,
    ) {
        let Recalled { memory, recent, units_active, .. } = recalled;
        let token = Token { epoch, nonce: memory.nonce };
        let renewed = match &self.pair.guard {
            // It says so in a moment.
            None => return,
            Some(GuardReport::Holding { token: held, confirmed }) if *held == token => {
                Some(*confirmed)
            }
            Some(GuardReport::Holding { .. } | GuardReport::Gone { .. }) => None,
        };
        self.recalled = None;
        let tenure = Tenure::found(token, memory.cause, renewed.unwrap_or(asked_at));
        let old = now.since(tenure.confirmed) >= self.policy.confirmed_for(Step::Guard);
        match (renewed, memory.progress) {
            (Some(_), Progress::Complete) => {
                out.push(Action::Tell(Notice::Adopted { epoch, units_active }));
                self.go(State::Active { tenure }, Why::Adopted, out);
            }
            // The guard is there: that step is done.
            (Some(_), Progress::Asked | Progress::At(Step::Guard)) => {
                let next = self.policy.after(Step::Guard).unwrap_or(Step::Beat);
                self.resume(now, tenure, next, Why::Resumed, out);
            }
            (Some(_), Progress::At(step)) => self.resume(now, tenure, step, Why::Resumed, out),
            (Some(_), Progress::Leaving) => {
                self.resume(now, tenure, Step::Start, Why::Resumed, out);
            }
            (None, Progress::Asked | Progress::At(Step::Guard)) if recent && !old => {
                self.resume(now, tenure, Step::Guard, Why::Resumed, out);
            }
            (Some(_) | None, _) => {
                let over = Memory { progress: Progress::Over, ..memory };
                let why = "it did not outlive understudy or the host".to_owned();
                out.push(Action::Tell(Notice::GuardGone { epoch, why }));
                self.go(State::Stopping { retry_at: None, over }, Why::GuardGone, out);
                out.push(Action::StopUnits { deadline: STOP_DEADLINE });
            }
        }
    }
}
