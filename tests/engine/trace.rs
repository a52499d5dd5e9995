//! What one life of an engine did, and the rules that it must have kept.
//!
//! The rules are written from the product's promises, over the events and actions only: nothing
//! here looks into the engine or shares code with it.

use std::collections::HashSet;
use std::time::Duration;

use understudy::engine::edge::{EDGES, Kind, Why};
use understudy::engine::event::{
    Acquire, Action, Answer, Cause, Command, Event, Memory, Outcome, Progress, Recalled,
};
use understudy::engine::notice::{Notice, Weight};
use understudy::engine::observation::{Bot, Epoch, Nonce, Observation, Token};
use understudy::engine::plan::Step;
use understudy::engine::policy::Policy;
use understudy::time::BootTime;

/// Watches one life of an engine, turn by turn.
pub struct Trace {
    policy: Policy,
    kind: Kind,
    turn: BootTime,
    /// The good reads since the evidence was last void.
    reads: Vec<(BootTime, BootTime, Observation)>,
    /// The last read of any kind that said something about the lease.
    last: Option<Observation>,
    max_epoch: Epoch,
    floor: Epoch,
    restrained: bool,
    acquiring: Option<(Nonce, BootTime)>,
    checking: bool,
    /// A tenure that this node may take up, asked for or remembered; the next question carries its
    /// nonce.
    mine: Option<Mine>,
    used: HashSet<u128>,
    token: Option<Token>,
    /// Local time at which the lease was last certainly ours.
    confirmed: BootTime,
    running: Option<Step>,
    done: Vec<Step>,
    superseded: bool,
    stopping: bool,
    pub critical: u32,
}

#[derive(Clone, Copy)]
struct Mine {
    memory: Memory,
    recent_until: Option<BootTime>,
    units_active: bool,
    same_boot: bool,
}

type Judgement = Result<(), String>;

macro_rules! rule {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

impl Trace {
    pub fn new(now: BootTime, policy: Policy, recalled: Option<Recalled>) -> Self {
        let over = |recalled: &Recalled| recalled.memory.progress == Progress::Over;
        let mine = recalled.filter(|recalled| !over(recalled)).map(|recalled| Mine {
            memory: recalled.memory,
            recent_until: recalled.recent.then_some(now + policy.timeout),
            units_active: recalled.units_active,
            same_boot: recalled.same_boot,
        });
        Self {
            policy,
            kind: Kind::Standby,
            turn: now,
            reads: Vec::new(),
            last: None,
            max_epoch: recalled.map_or(Epoch(0), |recalled| recalled.memory.max_epoch),
            floor: recalled.map_or(Epoch(0), |recalled| recalled.memory.max_epoch),
            restrained: false,
            acquiring: None,
            checking: false,
            mine,
            used: HashSet::new(),
            token: None,
            confirmed: now,
            running: None,
            done: Vec::new(),
            superseded: false,
            stopping: false,
            critical: 0,
        }
    }

    /// The configuration was loaded again.
    pub fn policy_changed(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Judges one turn.
    pub fn turn(&mut self, now: BootTime, event: &Event, actions: &[Action]) -> Judgement {
        if now.since(self.turn) > self.policy.max_gap {
            self.reads.clear();
        }
        self.turn = now;
        self.take_in(now, event);
        let mut answers = 0;
        for (index, action) in actions.iter().enumerate() {
            match action {
                Action::Answer { .. } => answers += 1,
                Action::Check { .. } => {
                    rule!(!self.checking, "two checks at a time");
                    self.checking = true;
                }
                Action::Acquire(question) => self.acquire(now, event, question)?,
                Action::Remember(memory) => self.remember(memory)?,
                Action::Run { token, step, deadline, .. } => {
                    let before = index.checked_sub(1).and_then(|index| actions.get(index));
                    self.run(now, *token, *step, *deadline, before)?;
                }
                Action::StopUnits { .. } => {
                    rule!(self.superseded, "StopUnits although no later tenure was seen");
                    rule!(!self.stopping, "StopUnits twice at a time");
                    self.stopping = true;
                }
                Action::Look
                | Action::Announce(_)
                | Action::EndRequest { .. }
                | Action::HandOver { .. }
                | Action::Rejoin { .. } => {
                    return Err(format!("only in paired mode: {}", action.in_words()));
                }
                Action::Tell(notice) => {
                    self.critical += u32::from(notice.weight() == Weight::Critical);
                    self.told(notice)?;
                }
                Action::Moved(edge) => {
                    rule!(EDGES.contains(edge), "{edge} is not in the table");
                    rule!(edge.from == self.kind, "{edge}, but the state was {}", self.kind);
                    self.kind = edge.to;
                    self.moved(now, edge.why, edge.to)?;
                }
            }
        }
        let asked = u32::from(matches!(event, Event::Operator { .. }));
        rule!(answers == asked, "{answers} answers to {asked} questions");
        if self.superseded && matches!(event, Event::Observed { .. }) {
            rule!(self.kind == Kind::Stopping, "goes on although another tenure was seen");
        }
        Ok(())
    }

    fn take_in(&mut self, now: BootTime, event: &Event) {
        match event {
            Event::Wake | Event::Operator { .. } => {}
            // Only in paired mode.
            Event::Guard(_)
            | Event::UnitsSeen { .. }
            | Event::HandedOver { .. }
            | Event::Estranged
            | Event::Rejoined { .. } => {}
            Event::ObserveFailed { .. } => self.reads.clear(),
            Event::Observed { sent, observation } => self.observed(now, *sent, observation),
            Event::Checked { .. } => self.checking = false,
            Event::Acquired { nonce, answer } => self.acquired(*nonce, answer),
            Event::StepEnded { epoch, step, outcome } => {
                let current = self.token.is_some_and(|token| token.epoch == *epoch);
                if current && self.running == Some(*step) {
                    self.running = None;
                    match outcome {
                        Outcome::Done | Outcome::DoneBut(_) => self.done.push(*step),
                        Outcome::Failed(_) | Outcome::NotBegun(_) => {}
                    }
                }
            }
            Event::UnitsStopped { fault } => {
                if self.stopping && fault.is_none() {
                    self.superseded = false;
                    // The end of our own tenure starts a new window.
                    self.restart(now);
                }
                self.stopping = false;
            }
        }
    }

    fn observed(&mut self, now: BootTime, sent: BootTime, observation: &Observation) {
        let late = now.since(sent) > self.policy.reply_timeout;
        let lease = &observation.lease;
        let restrained = lease.hold.is_some()
            || lease.latched
            || observation.bots.iter().any(|bot| match bot {
                Bot::Beat { status, .. } | Bot::Null { status } => {
                    self.policy.stopped_statuses.contains(status)
                }
                Bot::Missing | Bot::Duplicate { .. } => false,
            });
        let ended = self.restrained && !restrained;
        let before = self.last.replace(observation.clone()).map(|last| last.lease.epoch);
        // The store went back; a new tenure after that is somebody's word on who has the group.
        let settled = before.is_some_and(|before| before < self.floor && before < lease.epoch);
        if lease.epoch < self.floor && !settled {
            self.reads.clear();
            return;
        }
        self.restrained = restrained;
        self.floor = lease.epoch;
        self.max_epoch = self.max_epoch.max(lease.epoch);
        if let Some(token) = self.token {
            let ours = lease.nonce == Some(token.nonce) && lease.epoch == token.epoch;
            if ours && !late {
                self.confirmed = sent.max(self.confirmed);
            }
            self.superseded |= !ours;
        } else if let Some(mine) = self.mine
            && mine.memory.progress != Progress::Asked
            && lease.holder.as_deref() != Some(&self.policy.node)
            && !late
            && self.kind == Kind::Standby
        {
            self.superseded = true;
        }
        let whole = observation.bots.iter().all(|bot| matches!(bot, Bot::Beat { .. }));
        if late || !whole {
            self.reads.clear();
            return;
        }
        if let Some((_, last_sent, last)) = self.reads.last() {
            let same = last.store == observation.store
                && (last.lease.epoch, last.lease.nonce, last.lease.seq)
                    == (lease.epoch, lease.nonce, lease.seq);
            if !same || sent.since(*last_sent) > self.policy.max_gap {
                self.reads.clear();
            }
        }
        self.reads.push((now, sent, observation.clone()));
        if ended {
            self.restart(now);
        }
    }

    /// The evidence before now does not count, although the reads were good.
    fn restart(&mut self, now: BootTime) {
        for (received, ..) in &mut self.reads {
            *received = now.max(*received);
        }
    }

    /// Whether the reads since the evidence was last void prove a whole window of silence.
    fn silent(&self) -> bool {
        let mut bots = 0..self.policy.bots.len();
        let silent = |bot: usize| self.is_silent(bot);
        if self.policy.all_bots { bots.all(silent) } else { bots.any(silent) }
    }

    /// The same for one bot.
    fn is_silent(&self, bot: usize) -> bool {
        let Some((_, last_sent, last)) = self.reads.last() else { return false };
        let unchanged = self
            .reads
            .iter()
            .rev()
            .take_while(|(.., observation)| value(observation, bot) == value(last, bot));
        unchanged
            .last()
            .is_some_and(|(received, ..)| last_sent.since(*received) >= self.policy.timeout)
    }

    fn acquire(&mut self, now: BootTime, event: &Event, question: &Acquire) -> Judgement {
        rule!(self.acquiring.is_none(), "two questions for the lease at a time");
        let fit = matches!(event, Event::Checked { problems } if problems.is_empty());
        rule!(
            fit || self.reclaims(event, question),
            "asked for the lease although this node was not found fit just now"
        );
        if !fit && let Some(token) = self.token.take() {
            rule!(token.nonce == question.nonce, "reclaims another tenure than its own");
            rule!(self.running.is_none(), "reclaims the lease in the middle of a step");
            self.mine = Some(Mine {
                memory: question.memory,
                recent_until: Some(now + self.policy.timeout),
                units_active: question.memory.progress == Progress::Complete,
                same_boot: true,
            });
        }
        let Some(last) = &self.last else { return Err("asked for the lease blindly".to_owned()) };
        rule!(question.expected == last.lease, "expects another lease than was last read");
        rule!(question.seen_at == last.seen_at, "dates the evidence wrongly");
        rule!(question.min_epoch >= self.max_epoch, "asks for an epoch that was used already");
        let evidence = (0..last.bots.len())
            .map(|bot| if self.is_silent(bot) { value(last, bot) } else { None })
            .collect::<Vec<_>>();
        let named: Vec<_> = question.heartbeats.iter().map(Option::as_deref).collect();
        rule!(named == evidence, "the heartbeats of the question are not the evidence");
        rule!(last.lease.hold.is_none(), "asked for the lease under a hold");
        rule!(
            question.memory.nonce == question.nonce
                && (question.memory.progress == Progress::Asked || self.mine.is_some())
                && question.memory.max_epoch == self.max_epoch,
            "remembers something else than it asks"
        );
        match self.mine {
            Some(mine) => {
                rule!(mine.memory.nonce == question.nonce, "a new nonce while the last is open");
                rule!(
                    mine.memory.progress == question.memory.progress,
                    "forgets how far the last tenure came"
                );
            }
            None => rule!(!self.used.contains(&question.nonce.0), "a nonce was used twice"),
        }
        if question.cause == Cause::Automatic {
            rule!(self.policy.automatic, "automatic, although not allowed");
            rule!(!self.restrained, "automatic, although restrained");
            rule!(!last.lease.latched, "automatic, although latched");
            rule!(last.lease.cooldown_left.is_none(), "automatic, in the cooldown");
            rule!(
                last.lease.holder.as_deref() != Some(&self.policy.node),
                "automatic, although the lease is this node's"
            );
            rule!(self.silent(), "automatic, without a whole window of silence");
        }
        self.used.insert(question.nonce.0);
        self.acquiring = Some((question.nonce, now));
        let recent = question.memory.progress == Progress::Asked;
        let mine = self.mine.unwrap_or(Mine {
            memory: question.memory,
            recent_until: None,
            units_active: false,
            same_boot: true,
        });
        let recent_until = if recent { Some(now + self.policy.timeout) } else { mine.recent_until };
        self.mine = Some(Mine { memory: question.memory, recent_until, ..mine });
        Ok(())
    }

    /// The store forgot a tenure that this node lived by, and a person says that it goes on. Such a
    /// node is past being checked: its Redis is a master, for one thing.
    fn reclaims(&self, event: &Event, question: &Acquire) -> bool {
        let forced = Command::Failover { force: true };
        let asked = matches!(event, Event::Operator { command, .. } if *command == forced);
        let forgotten = self.last.as_ref().is_some_and(|last| last.lease.epoch < self.floor);
        asked && forgotten && question.memory.progress != Progress::Asked
    }

    fn acquired(&mut self, nonce: Nonce, answer: &Answer) {
        let Some((asked, since)) = self.acquiring else { return };
        if asked != nonce || self.kind != Kind::Acquiring {
            return;
        }
        self.acquiring = None;
        match answer {
            Answer::Granted(epoch) => {
                self.token = Some(Token { epoch: *epoch, nonce });
                self.max_epoch = self.max_epoch.max(*epoch);
                self.floor = *epoch;
                self.confirmed = since;
                self.mine = None;
                self.done.clear();
            }
            Answer::Refused(_) | Answer::RefusedChanged(_) => {
                self.mine.take_if(|mine| mine.memory.progress == Progress::Asked);
                if matches!(answer, Answer::RefusedChanged(_)) {
                    self.restart(self.turn);
                }
            }
            // Whether it was granted, a read will say.
            Answer::Unknown(_) => {}
        }
    }

    fn remember(&self, memory: &Memory) -> Judgement {
        if memory.progress == Progress::Over {
            return Ok(());
        }
        let ours = self.token.is_some_and(|token| token.nonce == memory.nonce);
        rule!(
            ours || self.mine.is_some_and(|mine| mine.memory.nonce == memory.nonce),
            "remembers a tenure that is not this node's"
        );
        rule!(memory.max_epoch >= self.max_epoch, "remembers too low an epoch");
        Ok(())
    }

    fn run(
        &mut self,
        now: BootTime,
        token: Token,
        step: Step,
        deadline: Duration,
        before: Option<&Action>,
    ) -> Judgement {
        rule!(
            self.kind == Kind::Promoting || self.kind == Kind::Degraded,
            "{step} while {}",
            self.kind
        );
        rule!(Some(token) == self.token, "{step} under a token that is not this node's");
        rule!(!self.superseded, "{step} although a later tenure was seen");
        rule!(self.running.is_none(), "{step} while another step runs");
        rule!(step != Step::Beat, "nothing is to be run for a heartbeat");
        rule!(self.policy.plan.contains(&(step, deadline)), "{step} is not planned so");
        rule!(
            now.since(self.confirmed) < self.policy.timeout,
            "{step} although the lease was last known to be ours {:?} ago",
            now.since(self.confirmed)
        );
        let planned = self.policy.plan.iter().map(|(planned, _)| *planned);
        let missing: Vec<_> =
            planned.filter(|planned| *planned < step && !self.done.contains(planned)).collect();
        rule!(missing.is_empty(), "{step} before {missing:?}");
        rule!(!self.done.contains(&step), "{step} again although it is done");
        if let Some(Action::Remember(memory)) = before {
            rule!(memory.progress == Progress::At(step), "{step} is remembered as another");
        }
        self.running = Some(step);
        Ok(())
    }

    fn told(&mut self, notice: &Notice) -> Judgement {
        match notice {
            Notice::Resumed { step, .. } => {
                // What was done before a restart is believed if it is recent, as the memory says.
                self.running = None;
                self.done = Step::ALL.into_iter().filter(|done| done < step).collect();
            }
            Notice::StepDone { step, .. } if *step != Step::Beat => {
                rule!(self.done.contains(step), "{step} is called done and is not");
            }
            _ => {}
        }
        Ok(())
    }

    fn moved(&mut self, now: BootTime, why: Why, to: Kind) -> Judgement {
        match why {
            Why::Resumed | Why::Adopted | Why::Old => {
                let (Some(mine), Some(last)) = (self.mine.take(), &self.last) else {
                    return Err("takes up a tenure that it never asked for".to_owned());
                };
                let nonce = mine.memory.nonce;
                rule!(last.lease.nonce == Some(nonce), "takes up a tenure that is not the lease's");
                self.token = Some(Token { epoch: last.lease.epoch, nonce });
                self.superseded = false;
                self.confirmed = self.turn;
                let recent = mine.recent_until.is_some_and(|until| now < until);
                let beating = mine.units_active
                    && matches!(mine.memory.progress, Progress::At(step) if step >= Step::Start);
                let complete = mine.memory.progress == Progress::Complete;
                match why {
                    Why::Resumed => {
                        rule!(!complete && (recent || beating), "goes on with an old takeover");
                    }
                    Why::Adopted => rule!(
                        complete && (mine.same_boot || mine.units_active),
                        "adopts what was not complete, or is not of this boot"
                    ),
                    _ => self.restart(now),
                }
            }
            Why::NobodyElse => {
                rule!(self.silent(), "goes on although it did not see a whole window of silence");
                rule!(!self.restrained, "goes on although restrained");
            }
            Why::Superseded => {
                rule!(self.superseded, "stops although no later tenure was seen");
                self.token = None;
                self.mine = None;
                self.running = None;
            }
            _ => {}
        }
        if to == Kind::Active || to == Kind::Promoting {
            rule!(self.token.is_some(), "{to} without a lease");
        }
        Ok(())
    }
}

fn value(observation: &Observation, bot: usize) -> Option<&str> {
    match observation.bots.get(bot) {
        Some(Bot::Beat { value, .. }) => Some(value),
        _ => None,
    }
}
