//! The takeover: one step after the other until every bot beats; and its end when the group goes
//! elsewhere.

use super::edge::{Kind, Why};
use super::event::{Action, Cause, Memory, Outcome, Progress, Recalled};
use super::notice::Notice;
use super::observation::{Epoch, Token};
use super::plan::Step;
use super::policy::{
    ATTEMPTS_BEFORE_DEGRADED, LEASE_DEADLINE, RESUME_MAX, RETRY_DEGRADED, RETRY_FIRST,
    STOP_DEADLINE,
};
use super::{Attempt, Engine, Next, State, Tenure};
use crate::time::BootTime;

impl Engine {
    /// The lease turned out to be ours.
    pub(super) fn take_up(
        &mut self,
        now: BootTime,
        sent: BootTime,
        recalled_at: BootTime,
        recalled: Recalled,
        epoch: Epoch,
        out: &mut Vec<Action>,
    ) {
        self.recalled = None;
        let Recalled { memory, recent, same_boot, units_active } = recalled;
        // It may have taken the store long to say so.
        let recent = recent && now.since(recalled_at) < self.policy.timeout.min(RESUME_MAX);
        let token = Token { epoch, nonce: memory.nonce };
        let tenure = Tenure::found(token, memory.cause, sent);
        match memory.progress {
            Progress::Complete if same_boot || units_active => {
                out.push(Action::Tell(Notice::Adopted { epoch, units_active }));
                self.go(State::Active { tenure }, Why::Adopted, out);
            }
            Progress::At(step) if recent || (step >= Step::Start && units_active) => {
                self.resume(now, tenure, step, Why::Resumed, out);
            }
            Progress::Asked if recent => {
                self.resume(now, tenure, Step::Fence, Why::Resumed, out);
            }
            Progress::Asked
            | Progress::At(_)
            | Progress::Complete
            | Progress::Leaving
            | Progress::Over => {
                self.watch.restart(now);
                self.go(State::Interrupted { tenure }, Why::Old, out);
            }
        }
    }

    /// Goes on with a takeover whose steps before `step` are known to be done.
    pub(super) fn resume(
        &mut self,
        now: BootTime,
        tenure: Tenure,
        step: Step,
        why: Why,
        out: &mut Vec<Action>,
    ) {
        let step = self.policy.at_or_after(step).unwrap_or(Step::Beat);
        out.push(Action::Tell(Notice::Resumed { epoch: tenure.token.epoch, step }));
        self.begin(now, tenure, step, true, why, out);
    }

    /// Begins a step, and with it the state in which steps are made.
    pub(super) fn begin(
        &mut self,
        now: BootTime,
        tenure: Tenure,
        step: Step,
        again: bool,
        why: Why,
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Remember(self.memory(&tenure, Progress::At(step))));
        let again = again || tenure.redone;
        let next = match step {
            Step::Beat => Next::Beats(Some(now + self.policy.deadline(step))),
            Step::Guard
            | Step::Fence
            | Step::Promote
            | Step::Persist
            | Step::Flip
            | Step::Publish
            | Step::Start => Next::Lease(Some(now + LEASE_DEADLINE)),
        };
        let attempt = Attempt { step, since: now, failed: 0, again, next };
        let state = State::Promoting { tenure, attempt, fault: None };
        if self.kind() == Kind::Promoting {
            self.state = state;
        } else {
            self.go(state, why, out);
        }
        self.try_again(now, out);
    }

    /// Makes the attempt that waits for the lease, if the lease is certainly ours. If that was not
    /// seen for a whole window, as after a suspend, another node may have taken it meanwhile, and
    /// the next read decides. What cannot be taken back needs a younger read: before Redis is promoted
    /// and the units are started, a person may have given the group back, or the old primary may beat.
    pub(super) fn try_again(&mut self, now: BootTime, out: &mut Vec<Action>) {
        let State::Promoting { tenure, attempt, .. } = &mut self.state else { return };
        if !matches!(attempt.next, Next::Lease(_)) {
            return;
        }
        if now.since(tenure.confirmed) >= self.policy.confirmed_for(attempt.step) {
            return;
        }
        let planned = self.policy.at_or_after(attempt.step).unwrap_or(Step::Beat);
        if planned != attempt.step {
            // The plan lost this step when the configuration was loaded again.
            let tenure = tenure.clone();
            self.begin(now, tenure, planned, false, Why::Mended, out);
            return;
        }
        // Once the units were told to start here, their own heartbeats are among those that are
        // seen.
        if attempt.step == Step::Start
            && !attempt.again
            && tenure.cause != Cause::Forced
            && tenure.fenced.is_none()
            && let Some(bot) = self.watch.beat_after(tenure.quiet_from, &self.policy)
        {
            attempt.next = Next::RetryAt(now + RETRY_DEGRADED);
            self.old_primary_beats(bot, out);
            return;
        }
        attempt.next = Next::Answer;
        if attempt.step == Step::Start {
            tenure.before_start = self.watch.values().map(str::to_owned).collect();
        }
        let (token, step, again) = (tenure.token, attempt.step, attempt.again);
        let deadline = self.policy.deadline(step);
        out.push(Action::Run { token, step, again, deadline });
    }

    /// What the old primary wrote until it was fenced is in the first read after that. Where one of
    /// several bots was silent, the others beat to the last, and are dead all the same.
    pub(super) fn see_last_beats(&mut self, now: BootTime, sent: BootTime) {
        if let State::Promoting { tenure, .. } = &mut self.state
            && tenure.fenced.is_some_and(|fenced| sent >= fenced)
        {
            tenure.fenced = None;
            tenure.quiet_from = now;
        }
    }

    /// The old primary came back before the units were started here. A second copy is not started
    /// knowingly; a person decides who goes on.
    fn old_primary_beats(&mut self, bot: usize, out: &mut Vec<Action>) {
        let name = self.policy.bots.get(bot).map_or("a bot", String::as_str);
        self.degrade(
            format!(
                "{name} beats again, and not from here, so its units are not started here. If the \
                 primary lives, let it have the group: `understudy failback`. If those are its last \
                 beats, the takeover goes on after a full window of silence, or at once with \
                 `understudy failover --force`"
            ),
            out,
        );
    }

    /// Our tenure is over: nothing of it may run any more.
    pub(super) fn give_up(
        &mut self,
        epoch: Epoch,
        (by_epoch, by): (Epoch, String),
        over: Memory,
        out: &mut Vec<Action>,
    ) {
        self.recalled = None;
        out.push(Action::Tell(Notice::Superseded { epoch, by_epoch, by }));
        self.go(State::Stopping { retry_at: None, over }, Why::Superseded, out);
        out.push(Action::StopUnits { deadline: STOP_DEADLINE });
    }

    pub(super) fn step_ended(
        &mut self,
        now: BootTime,
        epoch: Epoch,
        ended: Step,
        outcome: Outcome,
        out: &mut Vec<Action>,
    ) {
        let began = !matches!(outcome, Outcome::NotBegun(_));
        let State::Promoting { tenure, attempt, fault } = &mut self.state else { return };
        if tenure.token.epoch != epoch || attempt.step != ended || attempt.next != Next::Answer {
            return;
        }
        match outcome {
            Outcome::Failed(text) | Outcome::NotBegun(text) => {
                attempt.failed += 1;
                attempt.again |= began;
                let attempts = attempt.failed;
                let pause = if fault.is_some() || attempts >= ATTEMPTS_BEFORE_DEGRADED {
                    RETRY_DEGRADED
                } else {
                    RETRY_FIRST * (1 << (attempts - 1))
                };
                attempt.next = Next::RetryAt(now + pause);
                let notice =
                    Notice::StepFailed { epoch, step: ended, attempts, fault: text.clone() };
                out.push(Action::Tell(notice));
                if fault.is_some() {
                    *fault = Some(text);
                } else if attempts >= ATTEMPTS_BEFORE_DEGRADED {
                    self.degrade(text, out);
                }
            }
            Outcome::DoneBut(text) => self.step_done(now, Some(text), out),
            Outcome::Done => self.step_done(now, None, out),
        }
    }

    pub(super) fn degrade(&mut self, text: String, out: &mut Vec<Action>) {
        let State::Promoting { tenure, attempt, fault: None } = &self.state else { return };
        let notice =
            Notice::Degraded { epoch: tenure.token.epoch, step: attempt.step, fault: text.clone() };
        let state = State::Promoting {
            tenure: tenure.clone(),
            attempt: attempt.clone(),
            fault: Some(text),
        };
        self.go(state, Why::StepFailed, out);
        out.push(Action::Tell(notice));
    }

    /// A step has ended, well or with a `warning` instead of its promise.
    pub(super) fn step_done(
        &mut self,
        now: BootTime,
        warning: Option<String>,
        out: &mut Vec<Action>,
    ) {
        let State::Promoting { tenure, attempt, .. } = &self.state else { return };
        let (mut tenure, step, took) = (tenure.clone(), attempt.step, now.since(attempt.since));
        tenure.steps.push((step, took));
        if step == Step::Fence && warning.is_none() {
            tenure.fenced = Some(now);
        }
        let epoch = tenure.token.epoch;
        out.push(Action::Tell(match warning {
            None => Notice::StepDone { epoch, step, took },
            Some(text) => Notice::StepWarning { epoch, step, took, text },
        }));
        if let Some(next) = self.policy.after(step) {
            self.begin(now, tenure, next, false, Why::Mended, out);
        } else {
            out.push(Action::Remember(self.memory(&tenure, Progress::Complete)));
            let notice = Notice::Completed {
                epoch,
                took: now.since(tenure.since),
                steps: tenure.steps.clone(),
            };
            self.go(State::Active { tenure }, Why::Complete, out);
            out.push(Action::Tell(notice));
        }
    }

    /// In the last step: does every bot beat?
    pub(super) fn see_beats(&mut self, now: BootTime, out: &mut Vec<Action>) {
        let State::Promoting { tenure, attempt: Attempt { next: Next::Beats(_), .. }, .. } =
            &self.state
        else {
            return;
        };
        let known = self.watch.values().next().is_some();
        if known && (0..self.policy.bots.len()).all(|bot| self.beats_here(tenure, bot)) {
            self.step_done(now, None, out);
        }
    }

    /// Whether a bot beat since the units were started; after a restart, since it is watched.
    fn beats_here(&self, tenure: &Tenure, bot: usize) -> bool {
        match tenure.before_start.get(bot) {
            Some(before) => self.watch.values().nth(bot).is_some_and(|value| value != before),
            None => self.watch.unchanged_since(bot).is_some_and(|(_, changed)| changed),
        }
    }

    pub(super) fn units_stopped(
        &mut self,
        now: BootTime,
        fault: Option<String>,
        out: &mut Vec<Action>,
    ) {
        let State::Stopping { retry_at: retry_at @ None, over } = &mut self.state else {
            self.stopped_to_leave(now, fault, out);
            return;
        };
        match fault {
            None => {
                out.push(Action::Remember(*over));
                out.push(Action::Tell(Notice::UnitsStopped));
                self.watch.restart(now);
                self.go(State::Standby, Why::Stopped, out);
            }
            Some(fault) => {
                *retry_at = Some(now + RETRY_DEGRADED);
                out.push(Action::Tell(Notice::StopFailed { fault }));
            }
        }
    }

    pub(super) fn missing_beats(&self) -> String {
        let State::Promoting { tenure, .. } = &self.state else { return String::new() };
        let bots = self.policy.bots.iter().enumerate();
        let missing = bots.filter(|(bot, _)| !self.beats_here(tenure, *bot));
        missing.map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}
