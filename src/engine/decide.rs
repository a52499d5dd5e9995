//! The decision to take over: by silence, or because an operator asked; and every reason not to.

use super::edge::{Kind, Why};
use super::event::{Acquire, Action, Answer, Cause, Memory, Progress, Recalled};
use super::liveness::{self, Verdict, seconds};
use super::notice::Notice;
use super::observation::{Bot, Nonce, Observation, RequestKind, Token, Way};
use super::plan::Step;
use super::policy::{CHECK_DEADLINE, CHECK_EVERY};
use super::{Attempt, Blocker, Engine, Next, Obstacle, State, Tenure};
use crate::time::BootTime;

impl Engine {
    /// Begins a takeover if there is every reason to, says why not if there is only almost.
    pub(super) fn consider(&mut self, now: BootTime, out: &mut Vec<Action>) {
        let stale = self.watch.verdict(&self.policy) == Verdict::Stale;
        match &self.state {
            State::Standby => self.consider_taking(now, stale, out),
            State::Checking { .. } => self.call_off(out),
            State::Interrupted { tenure } if stale => match self.restraint() {
                None => {
                    let tenure = tenure.clone();
                    self.resume(now, tenure, Step::Fence, Why::NobodyElse, out);
                }
                Some(why) => self.tell_blocked(why, out),
            },
            State::Interrupted { tenure } => {
                let epoch = tenure.token.epoch;
                if self.beat_seen() && !self.told.contested {
                    self.told.contested = true;
                    out.push(Action::Tell(Notice::Contested { epoch }));
                }
            }
            State::Active { .. } => {
                if stale && !self.told.active_silent {
                    self.told.active_silent = true;
                    let bots = self.silent_bots();
                    out.push(Action::Tell(Notice::ActiveSilent { bots }));
                } else if self.told.active_silent
                    && self.watch.verdict(&self.policy) == Verdict::Fresh
                {
                    self.told.active_silent = false;
                    out.push(Action::Tell(Notice::ActiveBeats));
                }
            }
            // Under way, or none of our business.
            State::Acquiring { .. }
            | State::Promoting { .. }
            | State::HandingOver { .. }
            | State::Stopping { .. } => {}
        }
        self.consider_leaving(now, out);
    }

    fn consider_taking(&mut self, now: BootTime, stale: bool, out: &mut Vec<Action>) {
        let ground = self.ground();
        if let Some(epoch) = self.contested()
            && !self.told.contested
        {
            self.told.contested = true;
            out.push(Action::Tell(Notice::Contested { epoch }));
        }
        if !stale && ground.is_none() {
            return;
        }
        match (self.blocker(), ground) {
            (Some(why), _) if why.obstacle == Obstacle::Waiting => {}
            (Some(why), _) => self.tell_blocked(why, out),
            // This node had the group a moment ago.
            (None, Some(Way::Again)) => {
                self.acquire(now, Cause::Automatic, Why::Again, out);
            }
            (None, Some(Way::Offer)) => {
                let cause = match self.pair.order.as_ref().map(|order| order.kind) {
                    Some(RequestKind::Switchover) => Cause::Operator,
                    Some(RequestKind::HandOver) | None => Cause::Automatic,
                };
                // It was checked for this very purpose; but something may have come up since.
                if self.is_prepared(now) {
                    self.acquire(now, cause, Why::Offered, out);
                } else {
                    self.ask_check(now, cause, Why::Offered, out);
                }
            }
            (None, Some(Way::Silent | Way::Free)) => {
                self.ask_check(now, Cause::Automatic, Why::Silent, out);
            }
            (None, None) => {}
        }
    }

    /// Why nothing is done about the silence, if nothing is.
    pub(super) fn blocker(&self) -> Option<Blocker> {
        let (_, observation) = self.last.as_ref()?;
        let lease = &observation.lease;
        let way = self.way(lease);
        if let Some(restraint) = self.restraint()
            && restraint.obstacle.forbids(way)
        {
            return Some(restraint);
        }
        let here = lease.holder.as_deref() == Some(self.policy.node.as_str());
        let (obstacle, text) = if let Some(missing) = self.missing_ground(lease) {
            return Some(missing);
        } else if here && self.policy.paired.is_none() {
            let text = format!(
                "the lease (epoch {}) names this node, {}, but its state directory knows nothing \
                 of it: the directory was lost, or two nodes have the same name. After making sure \
                 which, `understudy failover` takes the group with a new epoch",
                lease.epoch, self.policy.node
            );
            (Obstacle::UnknownTenure, text)
        } else if !self.policy.automatic {
            let text = "it only alerts, as neither accept_dual_active = true nor a required fence \
                        command is configured. If the primary is certainly dead: `understudy \
                        failover`";
            (Obstacle::AlertOnly, text.to_owned())
        } else {
            // What is no failover does not wait for the end of one.
            let left = lease.cooldown_left.filter(|_| way == Way::Silent)?;
            let text = format!(
                "the last automatic failover is too recent; {} of the cooldown are left",
                seconds(left)
            );
            (Obstacle::Cooldown, text)
        };
        Some(Blocker { obstacle, text })
    }

    /// What people said against acting on this group.
    pub(super) fn restraint(&self) -> Option<Blocker> {
        let (_, observation) = self.last.as_ref()?;
        let (obstacle, text) = if let Some(hold) = &observation.lease.hold {
            let until = hold
                .left
                .map_or("until released".to_owned(), |left| format!("for {}", seconds(left)));
            (Obstacle::Held, format!("held by {} {until}: {}", hold.by, hold.reason))
        } else if observation.lease.latched {
            let text = "too many automatic failovers in a short time; find out why, then \
                        `understudy ack`";
            (Obstacle::Latched, text.to_owned())
        } else {
            let (bot, status) = self.stopped_on_purpose(observation)?;
            let text = format!("bot {bot} was stopped on purpose (its status is {status})");
            (Obstacle::StoppedOnPurpose, text)
        };
        Some(Blocker { obstacle, text })
    }

    pub(super) fn stopped_on_purpose<'a>(
        &'a self,
        observation: &'a Observation,
    ) -> Option<(&'a str, &'a str)> {
        observation.bots.iter().zip(&self.policy.bots).find_map(|(bot, name)| match bot {
            Bot::Beat { status, .. } | Bot::Null { status }
                if self.policy.stopped_statuses.iter().any(|stop| stop == status) =>
            {
                Some((name.as_str(), status.as_str()))
            }
            Bot::Beat { .. } | Bot::Null { .. } | Bot::Missing | Bot::Duplicate { .. } => None,
        })
    }

    pub(super) fn tell_blocked(&mut self, blocker: Blocker, out: &mut Vec<Action>) {
        if self.told.blocked != Some(blocker.obstacle) {
            self.told.blocked = Some(blocker.obstacle);
            out.push(Action::Tell(Notice::Blocked { why: blocker.text }));
        }
    }

    pub(super) fn ask_check(
        &mut self,
        now: BootTime,
        cause: Cause,
        why: Why,
        out: &mut Vec<Action>,
    ) {
        self.go(State::Checking { cause }, why, out);
        // A primary that is taken over by force may well be alive.
        self.start_check(now, cause != Cause::Forced, out);
    }

    pub(super) fn start_check(
        &mut self,
        now: BootTime,
        primary_silent: bool,
        out: &mut Vec<Action>,
    ) {
        self.check.next_at = now + CHECK_EVERY;
        // One check at a time: an answer on its way is as good as one to a new question.
        if !self.check.asked {
            self.check.asked = true;
            out.push(Action::Check { deadline: CHECK_DEADLINE, primary_silent });
        }
    }

    /// Ends a check whose reason is gone.
    pub(super) fn call_off(&mut self, out: &mut Vec<Action>) {
        if let State::Checking { cause } = self.state {
            let still = match cause {
                Cause::Automatic => self.ground().is_some() && self.blocker().is_none(),
                Cause::Operator => {
                    self.ground().is_some()
                        && self.last.as_ref().is_some_and(|(_, observation)| {
                            observation.lease.hold.is_none()
                                && self.stopped_on_purpose(observation).is_none()
                        })
                }
                Cause::Forced => self
                    .last
                    .as_ref()
                    .is_some_and(|(_, observation)| observation.lease.hold.is_none()),
            };
            if !still {
                self.go(State::Standby, Why::CalledOff, out);
            }
        }
    }

    pub(super) fn checked(&mut self, now: BootTime, problems: Vec<String>, out: &mut Vec<Action>) {
        self.check.asked = false;
        self.check.found = Some((now, problems.clone()));
        match self.state {
            State::Standby | State::Checking { .. } | State::Acquiring { .. } => {}
            // A node that has the lease is past that: its Redis is a master, for one thing.
            State::Promoting { .. }
            | State::Active { .. }
            | State::Interrupted { .. }
            | State::HandingOver { .. }
            | State::Stopping { .. } => return,
        }
        if problems.is_empty() == self.told.not_ready {
            self.told.not_ready = !problems.is_empty();
            let notice = match self.told.not_ready {
                true => Notice::NotReady { problems: problems.clone() },
                false => Notice::Ready,
            };
            out.push(Action::Tell(notice));
        }
        let State::Checking { cause } = self.state else { return };
        self.call_off(out);
        if self.kind() != Kind::Checking {
            return;
        }
        if !problems.is_empty() {
            let why = format!("this node could not run the group: {}", problems.join("; "));
            self.told.refusal = Some(why.clone());
            self.go(State::Standby, Why::NotReady, out);
            self.tell_blocked(Blocker { obstacle: Obstacle::NotReady, text: why }, out);
            return;
        }
        self.acquire(now, cause, Why::Ready, out);
    }

    pub(super) fn acquire(&mut self, now: BootTime, cause: Cause, why: Why, out: &mut Vec<Action>) {
        let fresh_nonce = match self.recalled {
            Some(_) => Nonce(0),
            None => self.new_nonce(),
        };
        // Checking is only entered, and only stays, with an observation at hand.
        let Some((_, observation)) = &self.last else { return };
        let way = self.way(&observation.lease);
        let (nonce, progress) = match self.recalled {
            // An earlier question may still be granted: the same nonce makes both the same tenure.
            // So it does with a tenure that the store forgot, whose units may still run here: that
            // must not be forgotten if the answer is no.
            Some((_, Recalled { memory, .. })) => (memory.nonce, memory.progress),
            None => (fresh_nonce, Progress::Asked),
        };
        let memory = Memory { nonce, cause, progress, max_epoch: self.max_epoch };
        let silent_for = (0..self.policy.bots.len())
            .filter_map(|bot| self.watch.unchanged_since(bot))
            .map(|(since, _)| now.since(since))
            .max()
            .unwrap_or_default();
        let heartbeats = observation
            .bots
            .iter()
            .enumerate()
            .map(|(index, bot)| match bot {
                // A bot that beats is no evidence: it may beat again before the store looks.
                Bot::Beat { value, .. } if self.watch.is_silent(index, &self.policy) => {
                    Some(value.clone())
                }
                Bot::Beat { .. } | Bot::Missing | Bot::Duplicate { .. } | Bot::Null { .. } => None,
            })
            .collect();
        let asked_by = match way {
            Way::Offer => {
                self.pair.order.as_ref().map(|order| (order.by.clone(), order.reason.clone()))
            }
            Way::Silent | Way::Free | Way::Again => None,
        };
        let question = Acquire {
            cause,
            way,
            nonce,
            expected: observation.lease.clone(),
            min_epoch: self.max_epoch,
            seen_at: observation.seen_at.clone(),
            heartbeats,
            silent_for,
            asked_by,
            memory,
        };
        let recalled = match self.recalled {
            Some((_, recalled)) => Recalled { memory, ..recalled },
            None => Recalled { memory, recent: true, same_boot: true, units_active: false },
        };
        let recent = recalled.recent || progress == Progress::Asked;
        self.recalled = Some((now, Recalled { recent, ..recalled }));
        self.go(State::Acquiring { nonce, cause, way, since: now }, why, out);
        out.push(Action::Acquire(question));
    }

    pub(super) fn acquired(
        &mut self,
        now: BootTime,
        asked: Nonce,
        answer: Answer,
        out: &mut Vec<Action>,
    ) {
        let State::Acquiring { nonce, cause, way, since } = self.state else { return };
        if nonce != asked {
            return;
        }
        match answer {
            Answer::Granted(epoch) => {
                let before = self.recalled.take();
                self.max_epoch = self.max_epoch.max(epoch);
                self.floor = epoch;
                self.told.refusal = None;
                self.told.refusals = 0;
                out.push(Action::Tell(Notice::Acquired { epoch, cause }));
                let token = Token { epoch, nonce };
                self.watch.expect_tenure(now, token);
                let tenure = Tenure {
                    token,
                    cause,
                    since,
                    confirmed: since,
                    quiet_from: since,
                    fenced: None,
                    steps: Vec::new(),
                    before_start: Vec::new(),
                    redone: way == Way::Again
                        || before.is_some_and(|(_, recalled)| recalled.acted()),
                };
                let first = self.policy.at_or_after(Step::Guard).unwrap_or(Step::Beat);
                self.begin(now, tenure, first, false, Why::Granted, out);
            }
            Answer::RefusedChanged(why) => {
                self.forget_question();
                self.watch.restart(now);
                self.refuse(why, Why::Refused, out);
            }
            Answer::Refused(why) => {
                self.forget_question();
                self.refuse(why, Why::Refused, out);
            }
            // What was asked for stays recalled: if it was granted, a read will say so.
            Answer::Unknown(why) => self.refuse(why, Why::NoAnswer, out),
        }
    }

    /// What was asked for and refused is nothing to come back to.
    fn forget_question(&mut self) {
        self.recalled.take_if(|(_, recalled)| recalled.memory.progress == Progress::Asked);
    }

    pub(super) fn refuse(&mut self, why: String, reason: Why, out: &mut Vec<Action>) {
        self.told.refusal = Some(why.clone());
        out.push(Action::Tell(Notice::Refused { why: why.clone() }));
        self.go(State::Standby, reason, out);
        // Once happens, as when a read and a check took long together; it is tried again. A person
        // must know if that does not help.
        self.told.refusals += 1;
        if self.told.refusals > 1 && self.watch.verdict(&self.policy) == Verdict::Stale {
            let text = format!("it does not get the lease: {why}. It goes on trying");
            self.tell_blocked(Blocker { obstacle: Obstacle::Refused, text }, out);
        }
    }

    pub(super) fn failover_asked(
        &mut self,
        now: BootTime,
        force: bool,
        out: &mut Vec<Action>,
    ) -> (bool, String) {
        let refused = |text: &str| (false, text.to_owned());
        if let Some(answer) = self.reclaim(now, force, out) {
            return answer;
        }
        match &mut self.state {
            State::Standby => {}
            State::Interrupted { tenure } => {
                let tenure = tenure.clone();
                return self.resume_asked(now, tenure, force, out);
            }
            State::Promoting {
                tenure,
                attempt: Attempt { next: next @ Next::RetryAt(_), again, .. },
                ..
            } => {
                *next = Next::RetryAt(now);
                if force {
                    // From here on a person answers for it.
                    tenure.cause = Cause::Forced;
                    *again = true;
                }
                return (true, "trying the failed step again now".to_owned());
            }
            State::Checking { .. } | State::Acquiring { .. } | State::Promoting { .. } => {
                return refused("a takeover by this node is under way already");
            }
            State::Active { .. } => return refused("this node has the group already"),
            State::HandingOver { .. } => {
                return refused("this node is handing the group over");
            }
            State::Stopping { .. } => {
                return refused(
                    "the tenure of this node is over; the units here are being stopped",
                );
            }
        }
        if let Some((cause, _)) = self.watch.unknown() {
            let rows = matches!(
                cause,
                liveness::Cause::RowMissing(_)
                    | liveness::Cause::RowDuplicate(..)
                    | liveness::Cause::HeartbeatNull(_)
                    | liveness::Cause::StoreWentBack { .. }
            );
            if !rows {
                return (false, format!("no lease can be had now: {cause}"));
            }
            if !force {
                return (false, format!("{cause}. If you know better, add --force"));
            }
        }
        let Some((_, observation)) = &self.last else {
            return refused("the store was not read yet; try again in a moment");
        };
        if let Some(text) = self.held() {
            return (false, text);
        }
        if let Some(why) = self.may_be_alive(&observation.lease) {
            return (false, why);
        }
        if !force && let Some(why) = self.speaks_against(now, observation) {
            return (false, why);
        }
        self.told.refusal = None;
        let cause = if force { Cause::Forced } else { Cause::Operator };
        self.ask_check(now, cause, Why::Asked, out);
        (true, "taking over".to_owned())
    }

    /// What a person must know better to have a failover all the same.
    fn speaks_against(&self, now: BootTime, observation: &Observation) -> Option<String> {
        if let Some((bot, status)) = self.stopped_on_purpose(observation) {
            return Some(format!(
                "bot {bot} was stopped on purpose (its status is {status}); starting it here may \
                 be what nobody wants. If it is, add --force"
            ));
        }
        if self.watch.verdict(&self.policy) != Verdict::Stale {
            return Some(format!(
                "the primary does not look dead: {}. If it certainly is, add --force; if it lives, \
                 stop its bots first",
                self.heartbeat_sentence(now)
            ));
        }
        let missing = self.missing_ground(&observation.lease)?.text;
        Some(format!("{missing}. If nobody else can be running the group any more, add --force"))
    }

    /// The store forgot the tenure that this node lived by, and a person says that it goes on here:
    /// asks for the lease anew, with a higher epoch, and goes through the steps once more. Nothing is
    /// checked first, as a node that had the group is past that: its Redis is a master, for one thing.
    fn reclaim(
        &mut self,
        now: BootTime,
        force: bool,
        out: &mut Vec<Action>,
    ) -> Option<(bool, String)> {
        let Some((liveness::Cause::StoreWentBack { .. }, _)) = self.watch.unknown() else {
            return None;
        };
        let forgotten = |tenure, progress| Recalled {
            memory: self.memory(tenure, progress),
            recent: true,
            same_boot: true,
            units_active: progress == Progress::Complete,
        };
        let recalled = match &self.state {
            State::Promoting { attempt: Attempt { next: Next::Answer, .. }, .. } => {
                let text = "a step is under way; ask again when it has ended";
                return Some((false, text.to_owned()));
            }
            State::Promoting { tenure, attempt, .. } => {
                forgotten(tenure, Progress::At(attempt.step))
            }
            State::Interrupted { tenure } => forgotten(tenure, Progress::At(Step::Fence)),
            State::Active { tenure } => forgotten(tenure, Progress::Complete),
            State::Standby => self.recalled.filter(|(_, recalled)| recalled.acted())?.1,
            State::Checking { .. }
            | State::Acquiring { .. }
            | State::HandingOver { .. }
            | State::Stopping { .. } => return None,
        };
        if let Some(text) = self.held() {
            return Some((false, text));
        }
        if !force {
            let text = "the store forgot that this node has the group. If nobody else has it by \
                        now, add --force";
            return Some((false, text.to_owned()));
        }
        self.recalled = Some((now, recalled));
        self.acquire(now, Cause::Forced, Why::Reclaimed, out);
        let text = "the store forgot that this node has the group; asking for it again, with a \
                    higher epoch. Units that run go on running: restart those that check their \
                    epoch";
        Some((true, text.to_owned()))
    }

    /// Goes on with an interrupted takeover before its window is over.
    fn resume_asked(
        &mut self,
        now: BootTime,
        tenure: Tenure,
        force: bool,
        out: &mut Vec<Action>,
    ) -> (bool, String) {
        if let Some(text) = self.held() {
            return (false, text);
        }
        if self.told.contested && !force && self.watch.verdict(&self.policy) != Verdict::Stale {
            let text = format!(
                "the bots beat although not all of their units run here: {}. Stop them where they \
                 run first; if that is done, add --force",
                self.heartbeat_sentence(now)
            );
            return (false, text);
        }
        let cause = if force { Cause::Forced } else { Cause::Operator };
        let tenure = Tenure { cause, ..tenure };
        self.resume(now, tenure, Step::Fence, Why::Asked, out);
        (true, "going on with the interrupted takeover".to_owned())
    }

    /// Why not even an operator may act now: another one said so.
    fn held(&self) -> Option<String> {
        let (_, observation) = self.last.as_ref()?;
        observation.lease.hold.as_ref()?;
        let hold = self.restraint()?.text;
        Some(format!("{hold}; `understudy release` ends the hold"))
    }
}

impl Obstacle {
    /// Whether what a person said keeps this node from asking on that ground. A node that goes on with
    /// the group it had fails nothing over, and one that was left the group is expected to take it.
    const fn forbids(self, way: Way) -> bool {
        match (self, way) {
            (Self::Held | Self::Latched, Way::Again) | (Self::Latched, Way::Offer) => false,
            (_, Way::Silent | Way::Free | Way::Again | Way::Offer) => true,
        }
    }
}
