//! The pure core: observations in, actions out. No clock, no I/O, no randomness and no logging;
//! time is an argument, and an error of the outside world is an event like any other.
//!
//! ```text
//!                     silence / operator          nothing found
//!            Standby ──────────────────► Checking ─────────────► Acquiring
//!             ▲ ▲ ▲ ◄────────────────────   │                      │  │
//!             │ │ │    not ready, called off                       │  │ granted
//!             │ │ └────────────────────────────────────────────────┘  ▼
//!   stopped   │ │              refused, no answer                 Promoting ◄──► Degraded
//!             │ │                                                 ▲   │             │
//!        Stopping ◄──────────── a later tenure ───────────────────┼───┴─────────────┤
//!               │                                                 │   │ every bot   │
//!               └── after a restart: Interrupted ─────────────────┘   ▼ beats       │
//!                                                                  Active ◄─────────┘
//! ```
//!
//! One [`Engine`] serves one group on one node. The supervisor reads the store for all groups with
//! one statement, hands each engine its part, and does what the engines say.
//!
//! Not drawn: a tenure that ended while nobody was here leads from Standby to Stopping; and what
//! only paired mode has (`paired.rs`, `leaving.rs`): from a lease that names this node or was offered
//! to it straight to Acquiring, from Active over HandingOver to Standby, and to Stopping when the guard
//! of the lease is gone.
//!
//! To add a state: a variant of `State`, of [`edge::Kind`], its ways in [`edge::EDGES`]; the
//! compiler then asks for the rest.

#![warn(clippy::wildcard_enum_match_arm)]

mod decide;
pub mod edge;
pub mod event;
pub mod explain;
pub mod guard;
mod leaving;
pub mod liveness;
pub mod notice;
pub mod observation;
mod paired;
pub mod plan;
pub mod policy;
pub mod snapshot;
mod takeover;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use edge::{Edge, Kind, Why};
use event::{Action, Cause, Command, Event, GuardReport, Memory, Progress, Recalled};
use liveness::{Verdict, Watch, seconds};
use notice::Notice;
use observation::{Epoch, Nonce, Observation, PendingRequest, RequestKind, Token, Way};
use plan::Step;
use policy::{BEAT_EVERY, HAND_OVER_EVERY, LEASE_DEADLINE, Policy, RESUME_MAX, STOP_DEADLINE};

use crate::time::BootTime;

/// The failover machine of one group on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    policy: Policy,
    state: State,
    watch: Watch,
    /// The last good read, and when it was taken in.
    last: Option<(BootTime, Observation)>,
    /// The turn before this one; a long pause between two turns voids the window.
    last_turn: BootTime,
    /// From before a restart, or of a lease that was asked for without an answer; and since when.
    recalled: Option<(BootTime, Recalled)>,
    /// When the last read ended, well or not.
    read_at: BootTime,
    /// Nonces are this, counted up: the engine has no randomness of its own.
    next_nonce: Nonce,
    /// Highest epoch ever seen; a new one is above it.
    max_epoch: Epoch,
    /// An epoch below this means that the store went back, until a person said who has the group.
    floor: Epoch,
    check: Check,
    told: Told,
    #[serde(default)]
    pair: Pair,
}

/// What is known in paired mode only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pair {
    /// What the guard said last; `None` before it was heard.
    guard: Option<GuardReport>,
    /// The last tenure of this node whose guard ended, and when it was last confirmed.
    ended: Option<(Token, BootTime)>,
    /// The epoch under which the last holder was seen to leave the group to somebody.
    offer: Option<Epoch>,
    /// The order by which this node is about to get the group, or got it.
    order: Option<PendingRequest>,
    /// The group's nodes: name, how often they reported, and when that was seen to grow.
    peers: Vec<(String, u64, Option<BootTime>)>,
    /// When a group whose bots are silent here is looked at again.
    try_at: Option<BootTime>,
    /// Whether Redis is being made to follow the primary's, and when that is tried again.
    rejoining: bool,
    rejoin_at: Option<BootTime>,
}

/// What is only true in one state is kept in that state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Standby,
    Checking {
        cause: Cause,
    },
    Acquiring {
        nonce: Nonce,
        cause: Cause,
        way: Way,
        since: BootTime,
    },
    /// Also [`Kind::Degraded`], while `fault` says why.
    Promoting {
        tenure: Tenure,
        attempt: Attempt,
        fault: Option<String>,
    },
    Active {
        tenure: Tenure,
    },
    Interrupted {
        tenure: Tenure,
    },
    HandingOver {
        tenure: Tenure,
        order: PendingRequest,
        to: String,
        phase: Phase,
    },
    Stopping {
        retry_at: Option<BootTime>,
        /// To be put on disk when the units are stopped.
        over: Memory,
    },
}

/// How far a hand-over came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// The other node gets ready; the units here run.
    Preparing {
        /// At the latest by then.
        until: BootTime,
    },
    /// The units here are being stopped.
    Stopping,
    /// The lease is being given away.
    Giving,
}

/// A lease of this node, and what was done with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tenure {
    token: Token,
    cause: Cause,
    /// When the lease was asked for, or the tenure was found after a restart.
    since: BootTime,
    /// The lease was ours at this time or later: when the question or the read was sent that said
    /// so.
    confirmed: BootTime,
    /// Heartbeats that were seen by then are no sign of an old primary that lives.
    quiet_from: BootTime,
    /// When the fence succeeded, until a read has shown what the old primary wrote before.
    fenced: Option<BootTime>,
    steps: Vec<(Step, Duration)>,
    /// The heartbeats before the units were started; another value is the new primary's.
    before_start: Vec<String>,
    /// Its steps may have had their effect in an earlier tenure of this node, which the store forgot.
    redone: bool,
}

/// A step under way, or about to be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Attempt {
    step: Step,
    /// When its first attempt began.
    since: BootTime,
    /// Attempts that failed.
    failed: u32,
    /// An earlier attempt may have had its effect.
    again: bool,
    next: Next,
}

/// What ends the present phase of an [`Attempt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Next {
    /// The answer of the executor.
    Answer,
    /// A read that says that the lease is still ours; or this instant, if there is one, after which
    /// a person is called.
    Lease(Option<BootTime>),
    /// This instant: try again.
    RetryAt(BootTime),
    /// Heartbeats; or this instant, if there is one, after which a person is called.
    Beats(Option<BootTime>),
}

/// Whether this node could take over, as last found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Check {
    asked: bool,
    next_at: BootTime,
    found: Option<(BootTime, Vec<String>)>,
}

/// What was said already and is still true, so that it is said once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    stale: bool,
    unknown: bool,
    blind: bool,
    blocked: Option<Obstacle>,
    not_ready: bool,
    active_silent: bool,
    contested: bool,
    /// Somebody said not to act; the end of that starts a new window.
    restrained: bool,
    /// Why the last takeover did not begin.
    refusal: Option<String>,
    /// How often in a row the lease was asked for in vain.
    refusals: u32,
    /// The order in the store that was answered.
    order: Option<Nonce>,
    /// Why Redis does not follow the primary's.
    estranged: Option<String>,
}

/// Kinds of reason not to act on silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Obstacle {
    Held,
    Latched,
    StoppedOnPurpose,
    UnknownTenure,
    AlertOnly,
    Cooldown,
    NotReady,
    Refused,
    /// The holder of a paired group renews its lease.
    Renewed,
    /// The holder of a paired group renews nothing, and never did.
    Unguarded,
    /// The lease was not silent for long enough yet.
    Waiting,
}

/// A reason not to act on silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Blocker {
    obstacle: Obstacle,
    text: String,
}

impl Engine {
    /// A machine that knows nothing but what it was told and what it remembers.
    ///
    /// `first_nonce` must be random: nonces identify tenures among all nodes.
    #[must_use]
    pub fn new(
        now: BootTime,
        policy: Policy,
        first_nonce: Nonce,
        recalled: Option<Recalled>,
    ) -> Self {
        Self {
            policy,
            state: State::Standby,
            watch: Watch::new(now),
            last: None,
            last_turn: now,
            max_epoch: recalled.map_or(Epoch(0), |recalled| recalled.memory.max_epoch),
            floor: recalled.map_or(Epoch(0), |recalled| recalled.memory.max_epoch),
            recalled: recalled
                .filter(|recalled| recalled.memory.progress != Progress::Over)
                .map(|recalled| (now, recalled)),
            read_at: now,
            next_nonce: first_nonce,
            check: Check { asked: false, next_at: now, found: None },
            told: Told::default(),
            pair: Pair::default(),
        }
    }

    /// Takes in an event and says what to do. The actions are to be done in their order; those that
    /// have an answer are answered by an event.
    pub fn handle(&mut self, now: BootTime, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        let gap = now.since(self.last_turn);
        self.last_turn = now;
        if gap > self.policy.max_gap {
            self.lose(now, liveness::Cause::Stalled(gap), &mut out);
        }
        match event {
            Event::Wake => {}
            Event::Observed { sent, observation } => {
                self.read_at = now;
                self.observed(now, sent, observation, &mut out);
            }
            Event::ObserveFailed { fault } => {
                self.read_at = now;
                self.lose(now, liveness::Cause::ReadFailed(fault), &mut out);
                self.call_off(&mut out);
            }
            Event::Checked { problems } => self.checked(now, problems, &mut out),
            Event::Acquired { nonce, answer } => self.acquired(now, nonce, answer, &mut out),
            Event::StepEnded { epoch, step, outcome } => {
                self.step_ended(now, epoch, step, outcome, &mut out);
            }
            Event::UnitsStopped { fault } => self.units_stopped(now, fault, &mut out),
            Event::Guard(report) => self.guard_said(now, report, &mut out),
            Event::UnitsSeen { failed, stopped } => {
                self.units_seen(now, &failed, &stopped, &mut out);
            }
            Event::HandedOver { epoch, outcome } => {
                if self.tenure().is_some_and(|tenure| tenure.token.epoch == epoch) {
                    self.handed_over(now, outcome, &mut out);
                }
            }
            Event::Estranged => self.estranged(now, &mut out),
            Event::Rejoined { fault } => self.rejoined(now, fault, &mut out),
            Event::Operator { request, command: Command::Failover { force } } => {
                let (accepted, text) = self.failover_asked(now, force, &mut out);
                out.push(Action::Answer { request, accepted, text });
            }
            Event::Operator { request, command: Command::Switchover { to, by, reason } } => {
                let order = self.order_of_a_person(to, by, reason);
                let (accepted, text) = self.switchover_asked(now, order, &mut out);
                out.push(Action::Answer { request, accepted, text });
            }
        }
        self.keep_time(now, &mut out);
        out
    }

    /// Goes on under another policy, after the configuration was loaded again.
    pub fn apply(&mut self, now: BootTime, policy: Policy) {
        if policy.bots != self.policy.bots {
            self.watch = Watch::new(now);
            self.last = None;
        }
        self.policy = policy;
    }

    /// When [`Event::Wake`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> BootTime {
        let blind_at = match self.watch.unknown() {
            Some((_, since)) if !self.told.blind => Some(since + self.policy.blind_after),
            Some(_) | None => None,
        };
        let state_at = match &self.state {
            State::Promoting { attempt, .. } => match attempt.next {
                Next::RetryAt(at) => Some(at),
                Next::Beats(at) | Next::Lease(at) => at,
                Next::Answer => None,
            },
            State::Stopping { retry_at, .. } => *retry_at,
            State::HandingOver { phase: Phase::Preparing { until }, .. } => Some(*until),
            State::HandingOver { phase: Phase::Stopping | Phase::Giving, .. } => None,
            State::Standby => self.check_at(),
            State::Checking { .. }
            | State::Acquiring { .. }
            | State::Active { .. }
            | State::Interrupted { .. } => None,
        };
        // A longer sleep would look like a standstill.
        let awake_at = self.last_turn + self.policy.max_gap;
        [blind_at, state_at, self.guard_due()].into_iter().flatten().fold(awake_at, BootTime::min)
    }

    /// When this group wants the store read, if before the next read by the interval: at the very
    /// instant at which the heartbeats would become stale, and often while a takeover waits for a
    /// read.
    #[must_use]
    pub fn wants_read_at(&self) -> Option<BootTime> {
        match &self.state {
            State::Standby if self.awaits_the_lease() => Some(self.read_at + HAND_OVER_EVERY),
            State::HandingOver { phase: Phase::Preparing { .. }, .. } => {
                Some(self.read_at + HAND_OVER_EVERY)
            }
            State::Standby | State::Interrupted { .. } => {
                let stale_at = match self.watch.verdict(&self.policy) {
                    Verdict::Fresh | Verdict::Stale => self.silent_at(),
                    Verdict::Unknown(_) => None,
                };
                // A lease may be ours that the store did not answer for: know it while it is recent.
                let soon = self.read_at + BEAT_EVERY;
                let unanswered = self.recalled.filter(|(at, _)| soon <= *at + RESUME_MAX);
                [stale_at, unanswered.map(|_| soon)].into_iter().flatten().min()
            }
            State::Promoting { tenure: Tenure { fenced: Some(at), .. }, .. }
                if self.read_at <= *at =>
            {
                Some(*at)
            }
            State::Promoting { tenure: Tenure { fenced: Some(_), .. }, .. }
            | State::Promoting {
                attempt: Attempt { next: Next::Beats(_) | Next::Lease(_), .. },
                ..
            } => Some(self.read_at + BEAT_EVERY),
            State::Checking { .. }
            | State::Acquiring { .. }
            | State::Promoting { .. }
            | State::Active { .. }
            | State::HandingOver { phase: Phase::Stopping | Phase::Giving, .. }
            | State::Stopping { .. } => None,
        }
    }

    /// When the heartbeats became stale, or will if none comes; `None` while nothing is known.
    #[must_use]
    pub fn stale_at(&self) -> Option<BootTime> {
        match self.watch.unknown() {
            Some(_) => None,
            None => self.watch.stale_at(&self.policy),
        }
    }

    /// The state, without what belongs to it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.state {
            State::Standby => Kind::Standby,
            State::Checking { .. } => Kind::Checking,
            State::Acquiring { .. } => Kind::Acquiring,
            State::Promoting { fault: None, .. } => Kind::Promoting,
            State::Promoting { fault: Some(_), .. } => Kind::Degraded,
            State::Active { .. } => Kind::Active,
            State::Interrupted { .. } => Kind::Interrupted,
            State::HandingOver { .. } => Kind::HandingOver,
            State::Stopping { .. } => Kind::Stopping,
        }
    }

    fn observed(
        &mut self,
        now: BootTime,
        sent: BootTime,
        observation: Observation,
        out: &mut Vec<Action>,
    ) {
        if self.tenure().is_some_and(|tenure| sent < tenure.since) {
            // It was on its way when the lease was asked for, and knows nothing of it.
            return;
        }
        if observation.bots.len() != self.policy.bots.len() {
            let fault = "what was read is for another list of bots".to_owned();
            self.lose(now, liveness::Cause::ReadFailed(fault), out);
            self.call_off(out);
            return;
        }
        let epoch = observation.lease.epoch;
        let before = self.last.as_ref().map(|(_, last)| last.lease.epoch);
        // A new tenure after the store went back is a person's word on who has the group.
        let settled = before.is_some_and(|before| before < self.floor && before < epoch);
        if epoch < self.floor && !settled {
            let seen = self.floor;
            let cause = liveness::Cause::StoreWentBack { seen, now: epoch };
            self.lose(now, cause, out);
            self.last = Some((now, observation));
            self.call_off(out);
            return;
        }
        self.floor = epoch;
        self.max_epoch = self.max_epoch.max(epoch);
        let ours = self.tenure().is_some_and(|tenure| tenure.token.epoch == epoch);
        if let Some(cause) = self.watch.observed(now, sent, &observation, &self.policy)
            && !(ours && matches!(cause, liveness::Cause::TenureChanged(_)))
        {
            out.push(Action::Tell(Notice::WindowRestarted { cause: cause.to_string() }));
        }
        let restrained = observation.lease.hold.is_some()
            || observation.lease.latched
            || self.stopped_on_purpose(&observation).is_some();
        if self.told.restrained && !restrained {
            // What piled up meanwhile must not fire the moment that the last restraint ends.
            self.watch.restart(now);
            let cause = "nothing holds understudy back any more".to_owned();
            out.push(Action::Tell(Notice::WindowRestarted { cause }));
        }
        self.told.restrained = restrained;
        if self.policy.paired.is_some() {
            self.see_others(now, &observation);
        }
        self.last = Some((now, observation));
        self.tell_sight(out);
        self.see_last_beats(now, sent);
        self.follow_lease(now, sent, out);
        self.prepare(now, out);
        self.consider(now, out);
        self.see_beats(now, out);
    }

    /// Whether a bot beat within the present window.
    fn beat_seen(&self) -> bool {
        (0..self.policy.bots.len())
            .any(|bot| self.watch.unchanged_since(bot).is_some_and(|(_, changed)| changed))
    }

    /// When this standby checks next whether it could take over. Not before it knows whether it has:
    /// a node that remembers a tenure may well be the one that has the group.
    fn check_at(&self) -> Option<BootTime> {
        let perhaps_ours = self.recalled.is_some() && self.last.is_none();
        (!self.check.asked && !perhaps_ours).then_some(self.check.next_at)
    }

    /// The lease that this node acts by, and since when: for the history.
    #[must_use]
    pub fn lease(&self) -> Option<(Token, BootTime)> {
        self.tenure().map(|tenure| (tenure.token, tenure.since))
    }

    fn tenure(&self) -> Option<&Tenure> {
        match &self.state {
            State::Promoting { tenure, .. }
            | State::Active { tenure }
            | State::HandingOver { tenure, .. }
            | State::Interrupted { tenure } => Some(tenure),
            State::Standby
            | State::Checking { .. }
            | State::Acquiring { .. }
            | State::Stopping { .. } => None,
        }
    }

    /// Nothing is known any more.
    fn lose(&mut self, now: BootTime, cause: liveness::Cause, out: &mut Vec<Action>) {
        self.watch.lose(now, cause);
        self.tell_sight(out);
    }

    /// Says once that sight was lost or came back, and that silence began or ended.
    fn tell_sight(&mut self, out: &mut Vec<Action>) {
        match self.watch.verdict(&self.policy) {
            Verdict::Unknown(cause) => {
                // Before the first read nothing was lost.
                let first = cause == liveness::Cause::NotReadYet;
                if !self.told.unknown && !first {
                    self.told.unknown = true;
                    out.push(Action::Tell(Notice::Unknown { cause: cause.to_string() }));
                }
                self.told.stale = false;
                return;
            }
            Verdict::Fresh => {
                // After a window that only started again nothing is back.
                if self.told.stale && self.beat_seen() {
                    out.push(Action::Tell(Notice::Fresh));
                }
                self.told.stale = false;
                self.told.blocked = None;
                self.told.refusals = 0;
            }
            Verdict::Stale => {
                if !self.told.stale && matches!(self.state, State::Standby) {
                    self.told.stale = true;
                    out.push(Action::Tell(Notice::Stale { bots: self.silent_bots() }));
                }
            }
        }
        if self.told.unknown {
            self.told.unknown = false;
            out.push(Action::Tell(Notice::Known));
        }
        if self.told.blind {
            self.told.blind = false;
            out.push(Action::Tell(Notice::Sighted));
        }
    }

    /// Whose lease is it? A lease of ours that we do not live by is taken up; one that we lived by
    /// and that went elsewhere ends our tenure, also if it went while this process was away.
    fn follow_lease(&mut self, now: BootTime, sent: BootTime, out: &mut Vec<Action>) {
        let Some((_, observation)) = &self.last else { return };
        let lease = &observation.lease;
        let (epoch, nonce) = (lease.epoch, lease.nonce);
        let held_here = lease.holder.as_deref() == Some(self.policy.node.as_str());
        let by = lease.holder.clone().unwrap_or_else(|| "nobody".to_owned());
        // A late reply may show a lease of ours that is gone already, but never a later tenure.
        let late = now.since(sent) > self.policy.reply_timeout;
        match &mut self.state {
            State::Standby | State::Checking { .. } if !late => {
                let Some((at, recalled)) = self.recalled else { return };
                let memory = recalled.memory;
                if held_here && nonce == Some(memory.nonce) {
                    if self.policy.paired.is_some() {
                        self.take_up_guarded(now, at, recalled, epoch, out);
                    } else {
                        self.take_up(now, sent, at, recalled, epoch, out);
                    }
                } else if !held_here
                    && memory.progress != Progress::Asked
                    && self.kind() == Kind::Standby
                {
                    let memory = Memory { progress: Progress::Over, ..memory };
                    self.give_up(memory.max_epoch, (epoch, by), memory, out);
                }
            }
            State::Promoting { tenure, .. }
            | State::Active { tenure }
            | State::HandingOver { tenure, .. }
            | State::Interrupted { tenure } => {
                // Not only a later epoch: after a restore, ours may have been granted once more.
                if nonce != Some(tenure.token.nonce) || epoch != tenure.token.epoch {
                    let ours = tenure.token.epoch;
                    let tenure = tenure.clone();
                    let memory = self.memory(&tenure, Progress::Over);
                    self.give_up(ours, (epoch, by), memory, out);
                } else if !late && self.policy.paired.is_none() {
                    tenure.confirmed = tenure.confirmed.max(sent);
                    self.try_again(now, out);
                }
            }
            State::Standby | State::Checking { .. } => {}
            // The answer of the store is on its way.
            State::Acquiring { .. } => {}
            // Nothing here is in the name of a lease.
            State::Stopping { .. } => {}
        }
    }

    fn keep_time(&mut self, now: BootTime, out: &mut Vec<Action>) {
        if let Some((cause, since)) = self.watch.unknown()
            && !self.told.blind
            && now >= since + self.policy.blind_after
        {
            let notice = Notice::Blind { since: now.since(since), cause: cause.to_string() };
            self.told.blind = true;
            out.push(Action::Tell(notice));
        }
        if self.guard_due().is_some_and(|at| now >= at) {
            self.end_tenure("it could not be started in time".to_owned(), out);
        }
        let check_due = self.check_at().is_some_and(|at| now >= at);
        match &mut self.state {
            State::Standby if check_due => self.start_check(now, false, out),
            State::Promoting { attempt, .. } => match attempt.next {
                Next::RetryAt(at) if now >= at => {
                    attempt.next = Next::Lease(Some(now + LEASE_DEADLINE));
                    self.try_again(now, out);
                }
                Next::Lease(Some(at)) if now >= at => {
                    attempt.next = Next::Lease(None);
                    self.degrade(
                        format!(
                            "the store has not said for {} that the lease is still this node's; it \
                             goes on as soon as the store does",
                            seconds(LEASE_DEADLINE)
                        ),
                        out,
                    );
                }
                Next::Beats(Some(at)) if now >= at => {
                    // There is nothing to try again: it goes on waiting.
                    attempt.next = Next::Beats(None);
                    let waited = seconds(now.since(attempt.since));
                    let missing = self.missing_beats();
                    self.degrade(
                        format!(
                            "no heartbeat of {missing} within {waited} although the units run; \
                             look at their logs"
                        ),
                        out,
                    );
                }
                Next::RetryAt(_) | Next::Beats(_) | Next::Answer | Next::Lease(_) => {}
            },
            State::Stopping { retry_at, .. } if retry_at.is_some_and(|at| now >= at) => {
                *retry_at = None;
                out.push(Action::StopUnits { deadline: STOP_DEADLINE });
            }
            State::HandingOver { .. } => self.keep_waiting(now, out),
            State::Standby
            | State::Checking { .. }
            | State::Acquiring { .. }
            | State::Active { .. }
            | State::Interrupted { .. }
            | State::Stopping { .. } => {}
        }
    }

    fn go(&mut self, state: State, why: Why, out: &mut Vec<Action>) {
        let from = self.kind();
        self.state = state;
        let edge = Edge { from, to: self.kind(), why };
        debug_assert!(edge::EDGES.contains(&edge), "{edge} is not in the table");
        match edge.to {
            Kind::Active => self.told.active_silent = false,
            Kind::Interrupted => self.told.contested = false,
            Kind::Standby
            | Kind::Checking
            | Kind::Acquiring
            | Kind::Promoting
            | Kind::Degraded
            | Kind::HandingOver
            | Kind::Stopping => {}
        }
        out.push(Action::Moved(edge));
    }

    fn new_nonce(&mut self) -> Nonce {
        let nonce = self.next_nonce;
        self.next_nonce = Nonce(nonce.0.wrapping_add(1));
        nonce
    }

    /// A person's wish, as an order about the present tenure.
    fn order_of_a_person(
        &mut self,
        target: Option<String>,
        by: String,
        reason: String,
    ) -> PendingRequest {
        PendingRequest {
            id: self.new_nonce(),
            kind: RequestKind::Switchover,
            from_epoch: self.tenure().map_or(Epoch(0), |tenure| tenure.token.epoch),
            target,
            by,
            reason,
            announced: false,
        }
    }

    fn memory(&self, tenure: &Tenure, progress: Progress) -> Memory {
        Memory {
            nonce: tenure.token.nonce,
            cause: tenure.cause,
            progress,
            max_epoch: self.max_epoch.max(tenure.token.epoch),
        }
    }
}
