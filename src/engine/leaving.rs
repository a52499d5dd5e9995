//! Handing a group over, in paired mode: to a node that said it is ready, with the units here stopped
//! and seen to be dead before the lease is given away.
//!
//! The order is written into the store first. The other node reads it, checks itself, and reads often
//! from then on, so that the group is without a primary for as short a time as possible. Whatever goes
//! wrong before the lease is given away puts the units here back to work.

use super::edge::{Kind, Why};
use super::event::{Action, Memory, Outcome, Progress};
use super::liveness::Verdict;
use super::notice::Notice;
use super::observation::{Nonce, PendingRequest, RequestKind};
use super::plan::Step;
use super::policy::{HAND_OVER_MAX, PREPARE_MAX, PREPARED_FOR, STOP_DEADLINE, TRY_AGAIN_EVERY};
use super::{Engine, Next, Phase, State, Tenure};
use crate::time::BootTime;

impl Engine {
    // ---- on the node that has the group ----

    /// Follows an order in the store, and looks at the units if their bots are silent.
    pub(super) fn consider_leaving(&mut self, now: BootTime, out: &mut Vec<Action>) {
        if self.policy.paired.is_none() {
            return;
        }
        self.follow_order(now, out);
        self.see_prepared(out);
        if self.may_be_dead().is_some()
            && self.restraint().is_none()
            && self.pair.try_at.is_none_or(|at| now >= at)
        {
            self.pair.try_at = Some(now + TRY_AGAIN_EVERY);
            out.push(Action::Look);
        }
    }

    /// The tenure, if its units may have failed for good: the bots of a complete takeover are silent, or
    /// one is stuck at its last two steps. And the step, if it is stuck.
    fn may_be_dead(&self) -> Option<(&Tenure, Option<Step>)> {
        match &self.state {
            State::Active { tenure } if self.watch.verdict(&self.policy) == Verdict::Stale => {
                Some((tenure, None))
            }
            State::Promoting { tenure, attempt, fault: Some(_) }
                if matches!(attempt.step, Step::Start | Step::Beat)
                    && matches!(attempt.next, Next::RetryAt(_) | Next::Beats(_)) =>
            {
                Some((tenure, Some(attempt.step)))
            }
            State::Active { .. }
            | State::Promoting { .. }
            | State::Standby
            | State::Checking { .. }
            | State::Acquiring { .. }
            | State::Interrupted { .. }
            | State::HandingOver { .. }
            | State::Stopping { .. } => None,
        }
    }

    /// The bots here are silent, or never beat, and this is what their units are. systemd has restarted
    /// them as often as it was told to.
    pub(super) fn units_seen(
        &mut self,
        now: BootTime,
        failed: &[String],
        stopped: &[String],
        out: &mut Vec<Action>,
    ) {
        let Some((tenure, stuck)) = self.may_be_dead() else { return };
        let tenure = tenure.clone();
        // Units that are neither active nor failed were stopped by a person, who knows why; or they were
        // never started.
        let by_a_person = !stopped.is_empty() && stuck != Some(Step::Start);
        if self.policy.paired.is_none() || by_a_person || self.restraint().is_some() {
            return;
        }
        let Some((_, observation)) = &self.last else { return };
        let cooling = observation.lease.cooldown_left.is_some();
        let ready = |node: &&str| self.peer(now, node).is_some_and(|peer| peer.ready);
        let to = self.others().find(ready).map(str::to_owned).filter(|_| !cooling);
        let what = match failed {
            [] if stuck == Some(Step::Start) => "its units cannot be started".to_owned(),
            [] => "its units run, but no bot beats".to_owned(),
            failed => format!("failed: {}", failed.join(", ")),
        };
        match to {
            Some(to) => {
                let order = PendingRequest {
                    id: self.new_nonce(),
                    kind: RequestKind::HandOver,
                    from_epoch: tenure.token.epoch,
                    target: Some(to.clone()),
                    by: "understudy".to_owned(),
                    reason: what,
                    announced: true,
                };
                self.leave(now, order, to, out);
            }
            // A start is tried again all the same.
            None if failed.is_empty() || stuck == Some(Step::Start) => {}
            None => {
                let why = if cooling { "the cooldown is not over" } else { "no other is ready" };
                let epoch = tenure.token.epoch;
                out.push(Action::Tell(Notice::NoPeer { epoch, what, why: why.to_owned() }));
                self.begin(now, tenure, Step::Start, true, Why::NoPeer, out);
            }
        }
    }

    /// A person wants the group elsewhere.
    pub(super) fn switchover_asked(
        &mut self,
        now: BootTime,
        order: PendingRequest,
        out: &mut Vec<Action>,
    ) -> (bool, String) {
        match self.may_leave(now, order.target.as_deref()) {
            Err(why) => (false, why),
            Ok(to) => {
                let text = format!("handing the group over to {to}");
                self.leave(now, order, to, out);
                (true, text)
            }
        }
    }

    /// To which node the group can go.
    fn may_leave(&self, now: BootTime, to: Option<&str>) -> Result<String, String> {
        if self.policy.paired.is_none() {
            return Err(
                "understudy moves a group by itself only in paired mode, as it must run on \
                        both nodes for that. Stop the bots on the primary, then `understudy \
                        failover` here"
                    .to_owned(),
            );
        }
        let waits = matches!(&self.state, State::Promoting { fault: Some(_), attempt, .. }
            if matches!(attempt.next, Next::RetryAt(_) | Next::Beats(_)));
        if !waits && !matches!(self.state, State::Active { .. }) {
            return Err(format!(
                "this node cannot give the group away: it is {} ({})",
                self.kind(),
                self.kind().meaning()
            ));
        }
        if let Some(restraint) = self.restraint() {
            return Err(restraint.text);
        }
        let fit = |node: &str| match self.peer(now, node) {
            None => Err(format!("{node} was not heard of lately; is understudy running there?")),
            Some(peer) if !peer.ready => {
                Err(format!("{node} could not run the group: {}", peer.problems.join("; ")))
            }
            Some(_) => Ok(node.to_owned()),
        };
        match to {
            Some(to) if to == self.policy.node => Err("the group is here already".to_owned()),
            Some(to) if self.others().all(|other| other != to) => {
                let nodes = self.others().collect::<Vec<_>>().join(", ");
                Err(format!("{to} is no node of this group; the others are: {nodes}"))
            }
            Some(to) => fit(to),
            None => {
                let tried: Vec<_> = self.others().map(fit).collect();
                let why: Vec<_> = tried.iter().filter_map(|one| one.clone().err()).collect();
                tried.into_iter().find_map(Result::ok).ok_or_else(|| why.join(". "))
            }
        }
    }

    fn leave(&mut self, now: BootTime, order: PendingRequest, to: String, out: &mut Vec<Action>) {
        let Some(tenure) = self.tenure().cloned() else { return };
        let why = match order.kind {
            RequestKind::Switchover => Why::Asked,
            RequestKind::HandOver => Why::Failing,
        };
        let (epoch, reason) = (tenure.token.epoch, order.reason.clone());
        out.push(Action::Tell(Notice::HandingOver { epoch, to: to.clone(), reason }));
        let order = PendingRequest { target: Some(to.clone()), announced: true, ..order };
        out.push(Action::Announce(order.clone()));
        let phase = Phase::Preparing { until: now + PREPARE_MAX };
        self.go(State::HandingOver { tenure, order, to, phase }, why, out);
    }

    /// Carries out an order that stands in the store, or says why not.
    fn follow_order(&mut self, now: BootTime, out: &mut Vec<Action>) {
        let Some((_, observation)) = &self.last else { return };
        let Some(order) = observation.request.clone() else {
            self.told.order = None;
            return;
        };
        let ours = match &self.state {
            State::Active { tenure } | State::Promoting { tenure, .. } => tenure.token.epoch,
            State::HandingOver { .. }
            | State::Standby
            | State::Checking { .. }
            | State::Acquiring { .. }
            | State::Interrupted { .. }
            | State::Stopping { .. } => return,
        };
        if self.told.order == Some(order.id) {
            return;
        }
        let id = order.id;
        let (done, text) = if order.from_epoch != ours {
            (order.from_epoch < ours, "the group has changed hands since".to_owned())
        } else if order.announced {
            (false, "it was interrupted".to_owned())
        } else {
            match self.switchover_asked(now, *order, out) {
                (true, _) => return,
                (false, why) => (false, why),
            }
        };
        self.told.order = Some(id);
        out.push(Action::EndRequest { id, done, text });
    }

    /// The other node is ready: the units here are stopped.
    fn see_prepared(&mut self, out: &mut Vec<Action>) {
        let State::HandingOver { tenure, order, to, phase: phase @ Phase::Preparing { .. } } =
            &mut self.state
        else {
            return;
        };
        let Some((_, observation)) = &self.last else { return };
        let prepared = |node: &str| {
            let member = observation.members.iter().find(|member| member.node == node);
            member.is_some_and(|member| member.prepared_for == Some(order.id))
        };
        if prepared(to) {
            *phase = Phase::Stopping;
            let tenure = tenure.clone();
            out.push(Action::Remember(self.memory(&tenure, Progress::Leaving)));
            out.push(Action::StopUnits { deadline: STOP_DEADLINE });
        }
    }

    /// The units here are stopped, or not, on the way to another node.
    pub(super) fn stopped_to_leave(
        &mut self,
        now: BootTime,
        fault: Option<String>,
        out: &mut Vec<Action>,
    ) {
        let State::HandingOver { tenure, order, to, phase } = &mut self.state else { return };
        if *phase != Phase::Stopping {
            return;
        }
        if let Some(fault) = fault {
            self.undo(now, &format!("the units here could not be stopped: {fault}"), out);
            return;
        }
        *phase = Phase::Giving;
        out.push(Action::HandOver {
            token: tenure.token,
            to: to.clone(),
            lossless: order.kind == RequestKind::Switchover,
            deadline: HAND_OVER_MAX,
        });
    }

    /// The lease was given away, or not.
    pub(super) fn handed_over(&mut self, now: BootTime, outcome: Outcome, out: &mut Vec<Action>) {
        let State::HandingOver { tenure, order, to, phase: Phase::Giving } = &self.state else {
            return;
        };
        let (tenure, id, to) = (tenure.clone(), order.id, to.clone());
        match outcome {
            Outcome::Done | Outcome::DoneBut(_) => {
                out.push(Action::Remember(self.memory(&tenure, Progress::Over)));
                let text = format!("{to} can have the group");
                out.push(Action::EndRequest { id, done: true, text });
                out.push(Action::Tell(Notice::HandedOver { epoch: tenure.token.epoch, to }));
                self.watch.restart(now);
                self.go(State::Standby, Why::Given, out);
            }
            Outcome::Failed(why) | Outcome::NotBegun(why) => {
                // If the guard is gone, so is the lease, whoever has it now.
                match &self.pair.guard {
                    Some(super::event::GuardReport::Gone { why: gone }) => {
                        let why = format!("{why}; {gone}");
                        out.push(Action::EndRequest { id, done: false, text: why.clone() });
                        self.end_tenure(why, out);
                    }
                    Some(super::event::GuardReport::Holding { .. }) | None => {
                        self.undo(now, &why, out);
                    }
                }
            }
        }
    }

    /// The other node did not get ready in time.
    pub(super) fn keep_waiting(&mut self, now: BootTime, out: &mut Vec<Action>) {
        if let State::HandingOver { phase: Phase::Preparing { until }, to, .. } = &self.state
            && now >= *until
        {
            let text = format!("{to} did not get ready in time");
            self.undo(now, &text, out);
        }
    }

    /// The group stays here after all.
    fn undo(&mut self, now: BootTime, why: &str, out: &mut Vec<Action>) {
        let State::HandingOver { tenure, order, to, phase } = &self.state else { return };
        let (tenure, id, to) = (tenure.clone(), order.id, to.clone());
        let touched = !matches!(phase, Phase::Preparing { .. });
        let text = why.to_owned();
        out.push(Action::EndRequest { id, done: false, text: text.clone() });
        out.push(Action::Tell(Notice::HandOverFailed { epoch: tenure.token.epoch, to, text }));
        if touched {
            self.begin(now, tenure, Step::Start, true, Why::Undone, out);
        } else {
            self.go(State::Active { tenure }, Why::Undone, out);
        }
    }

    // ---- on the node that gets it ----

    /// The order by which this node is about to get the group.
    fn order_for_us(&self) -> Option<&PendingRequest> {
        let (_, observation) = self.last.as_ref()?;
        observation.request.as_deref().filter(|order| {
            order.announced
                && order.target.as_deref() == Some(self.policy.node.as_str())
                && order.from_epoch == observation.lease.epoch
                && observation.lease.holder.is_some()
        })
    }

    /// Whether a hand-over to this node is under way.
    pub(super) fn awaits_the_lease(&self) -> bool {
        self.policy.paired.is_some() && self.order_for_us().is_some()
    }

    /// Gets ready for the group.
    pub(super) fn prepare(&mut self, now: BootTime, out: &mut Vec<Action>) {
        if self.kind() != Kind::Standby || !self.awaits_the_lease() {
            return;
        }
        self.pair.order = self.order_for_us().cloned();
        let recent = |at: BootTime| now.since(at) <= PREPARED_FOR / 2;
        if !self.check.found.as_ref().is_some_and(|(at, _)| recent(*at)) {
            self.start_check(now, false, out);
        }
    }

    /// The order that this node is ready for.
    #[must_use]
    pub fn prepared_for(&self, now: BootTime) -> Option<Nonce> {
        let order = self.order_for_us()?;
        let waits = self.kind() == Kind::Standby && self.watch.unknown().is_none();
        (waits && self.is_prepared(now)).then_some(order.id)
    }

    /// Whether this node was found fit a moment ago.
    pub(super) fn is_prepared(&self, now: BootTime) -> bool {
        let fit = |(at, problems): &(BootTime, Vec<String>)| {
            problems.is_empty() && now.since(*at) <= PREPARED_FOR
        };
        self.check.found.as_ref().is_some_and(fit)
    }

    // ---- its Redis, on a node that does not have it ----

    /// Redis here follows another than the primary's: it is made to, if there is a primary.
    pub(super) fn estranged(&mut self, now: BootTime, out: &mut Vec<Action>) {
        let Some((_, observation)) = &self.last else { return };
        let Some(primary) = observation.lease.holder.clone() else { return };
        let elsewhere = primary != self.policy.node;
        if self.kind() == Kind::Standby
            && elsewhere
            && self.is_renewed()
            && !self.pair.rejoining
            && self.pair.rejoin_at.is_none_or(|at| now >= at)
        {
            self.pair.rejoining = true;
            self.pair.rejoin_at = Some(now + TRY_AGAIN_EVERY);
            out.push(Action::Rejoin { primary });
        }
    }

    pub(super) fn rejoined(&mut self, now: BootTime, fault: Option<String>, out: &mut Vec<Action>) {
        self.pair.rejoining = false;
        match fault {
            None => {
                self.told.estranged = None;
                out.push(Action::Tell(Notice::Rejoined));
                if self.kind() == Kind::Standby {
                    self.start_check(now, false, out);
                }
            }
            Some(fault) if self.told.estranged.as_ref() != Some(&fault) => {
                self.told.estranged = Some(fault.clone());
                out.push(Action::Tell(Notice::RejoinFailed { fault }));
            }
            Some(_) => {}
        }
    }
}

impl Tenure {
    /// A tenure that was found to be ours.
    pub(super) const fn found(
        token: super::observation::Token,
        cause: super::event::Cause,
        confirmed: BootTime,
    ) -> Self {
        Self {
            token,
            cause,
            since: confirmed,
            confirmed,
            quiet_from: confirmed,
            fenced: None,
            steps: Vec::new(),
            before_start: Vec::new(),
            redone: false,
        }
    }
}

impl Memory {
    /// The same tenure, ended.
    #[must_use]
    pub const fn over(self) -> Self {
        Self { progress: Progress::Over, ..self }
    }
}
