//! An engine driven by arbitrary choices. The answers fit the questions mostly, so that every state
//! is reached, and sometimes not.

use std::collections::BTreeSet;

use understudy::engine::Engine;
use understudy::engine::edge::{Edge, Kind};
use understudy::engine::event::{
    Acquire, Action, Answer, Command, Event, Memory, Outcome, Progress, Recalled,
};
use understudy::engine::observation::{
    Bot, Epoch, Hold, Lease, Nonce, Observation, StoreIdentity, Token,
};
use understudy::engine::plan::Step;
use understudy::engine::policy::Policy;
use understudy::time::BootTime;

use crate::support::{lease, ms, policy, s};
use crate::trace::Trace;

/// What to do next: a kind and two numbers that mean something to it.
pub type Choice = (u8, u8, u8);

/// How the walk shows the world to the engine; nothing may be decided by it.
#[derive(Clone, Copy)]
pub struct Guise {
    pub boot_at: u64,
    pub heartbeat: fn(u64) -> String,
    pub age_ms: Option<i64>,
    pub seen_at: &'static str,
}

pub const PLAIN: Guise =
    Guise { boot_at: 1_000_000, heartbeat: |beat| beat.to_string(), age_ms: Some(0), seen_at: "" };

pub struct Walk {
    guise: Guise,
    policy: Policy,
    pub engine: Engine,
    trace: Trace,
    now: BootTime,
    store: u8,
    lease: Lease,
    cooling: bool,
    beats: [u64; 2],
    status: &'static str,
    fault: Option<Bot>,
    acquire: Option<Acquire>,
    zombie: Option<Acquire>,
    lost: Option<Lease>,
    check: bool,
    run: Option<(Token, Step)>,
    stop: bool,
    memory: Option<Memory>,
    lives: u128,
    requests: u64,
    pub edges: BTreeSet<Edge>,
    pub actions: Vec<Action>,
}

/// In ms: nothing, a little, and both sides of every deadline of the policy.
const SPANS: [u64; 16] = [
    0, 1, 500, 999, 1_000, 1_500, 2_000, 2_001, 5_000, 10_000, 15_000, 24_999, 25_000, 25_001,
    60_000, 130_000,
];

impl Walk {
    pub fn new(guise: Guise) -> Self {
        let now = BootTime::from_duration(ms(guise.boot_at));
        let policy = policy();
        Self {
            guise,
            engine: Engine::new(now, policy.clone(), Nonce(1 << 32), None),
            trace: Trace::new(now, policy.clone(), None),
            policy,
            now,
            store: 0,
            lease: lease(1, "alpha"),
            cooling: false,
            beats: [0, 0],
            status: "PRIMARY",
            fault: None,
            acquire: None,
            zombie: None,
            lost: None,
            check: false,
            run: None,
            stop: false,
            memory: None,
            lives: 1,
            requests: 0,
            edges: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// Makes one choice true, and says which rule was broken by what followed.
    pub fn choose(&mut self, (kind, a, b): Choice) -> Result<(), String> {
        self.now = self.now + ms(SPANS[usize::from(a % 16)] / if b % 4 == 0 { 1 } else { 4 });
        match kind % 32 {
            0 => self.turn(Event::Wake),
            1 => {
                self.now = self.now.max(self.engine.next_deadline());
                self.turn(Event::Wake)
            }
            2..=4 => self.observe(u64::from(b) * 10),
            5 | 6 => {
                self.beats[usize::from(b % 2)] += 1;
                self.observe(u64::from(a))
            }
            7..=10 => self.watch_silence(1 + u64::from(b % 8)),
            11 => self.turn(Event::ObserveFailed { fault: "no answer".to_owned() }),
            12..=15 => self.answer_check(b),
            16..=18 => self.answer_acquire(b),
            19..=23 => self.end_step(b),
            24 => self.end_stop(b),
            25 => {
                self.requests += 1;
                let command = Command::Failover { force: b % 2 == 0 };
                self.turn(Event::Operator { request: self.requests, command })
            }
            26 | 27 => {
                self.change_world(a, b);
                self.observe(0)
            }
            28 => {
                self.restart(a, b);
                Ok(())
            }
            29 => self.surprise(a, b),
            30 => {
                self.policy.automatic = b % 4 != 0;
                self.engine.apply(self.now, self.policy.clone());
                self.trace.policy_changed(self.policy.clone());
                self.turn(Event::Wake)
            }
            _ => {
                // What seemed lost turns up: a request, or what a restore had taken away.
                if let Some(question) = self.zombie.take() {
                    self.grant(&question);
                } else if let Some(lease) = self.lost.take() {
                    self.lease = lease;
                }
                self.observe(0)
            }
        }
    }

    fn observation(&self) -> Observation {
        let bots = self.beats.iter().map(|beat| Bot::Beat {
            value: (self.guise.heartbeat)(*beat),
            status: self.status.to_owned(),
            age_ms: self.guise.age_ms,
        });
        let mut bots: Vec<_> = bots.collect();
        if let Some(fault) = &self.fault {
            bots[1] = fault.clone();
        }
        let mut lease = self.lease.clone();
        lease.cooldown_left = self.cooling.then_some(s(100));
        Observation {
            store: StoreIdentity(format!("store {}", self.store)),
            seen_at: self.guise.seen_at.to_owned(),
            lease,
            bots,
            members: Vec::new(),
            request: None,
        }
    }

    fn observe(&mut self, took: u64) -> Result<(), String> {
        let observation = self.observation();
        let sent = self.now;
        self.now = self.now + ms(took);
        self.turn(Event::Observed { sent, observation })
    }

    fn watch_silence(&mut self, reads: u64) -> Result<(), String> {
        for _ in 0..reads {
            let due = self.engine.wants_read_at().unwrap_or(self.now + s(10));
            self.now = (self.now + s(10)).min(due.max(self.now));
            self.observe(0)?;
        }
        Ok(())
    }

    fn answer_check(&mut self, b: u8) -> Result<(), String> {
        if !std::mem::take(&mut self.check) {
            return Ok(());
        }
        let problems = if b % 4 == 0 { vec!["no disk".to_owned()] } else { Vec::new() };
        self.turn(Event::Checked { problems })
    }

    fn answer_acquire(&mut self, b: u8) -> Result<(), String> {
        let Some(question) = self.acquire.take() else { return Ok(()) };
        let answer = match b % 8 {
            0 => Answer::Refused("held".to_owned()),
            1 => Answer::RefusedChanged("alive".to_owned()),
            2 => {
                self.zombie = Some(question.clone());
                Answer::Unknown("no answer".to_owned())
            }
            3 => {
                self.grant(&question);
                Answer::Unknown("no answer".to_owned())
            }
            _ => Answer::Granted(self.grant(&question)),
        };
        self.turn(Event::Acquired { nonce: question.nonce, answer })
    }

    fn grant(&mut self, question: &Acquire) -> Epoch {
        let epoch = Epoch(self.lease.epoch.max(question.min_epoch).0 + 1);
        self.lease = Lease { nonce: Some(question.nonce), ..lease(epoch.0, "beta") };
        epoch
    }

    fn end_step(&mut self, b: u8) -> Result<(), String> {
        let Some((token, step)) = self.run.take() else { return self.observe(0) };
        let outcome = match b % 8 {
            0..=2 => Outcome::Failed("it broke".to_owned()),
            3 => Outcome::DoneBut("it is not pretty".to_owned()),
            _ => Outcome::Done,
        };
        self.turn(Event::StepEnded { epoch: token.epoch, step, outcome })
    }

    fn end_stop(&mut self, b: u8) -> Result<(), String> {
        if !std::mem::take(&mut self.stop) {
            return Ok(());
        }
        self.turn(Event::UnitsStopped { fault: (b % 2 == 0).then(|| "it hangs".to_owned()) })
    }

    fn change_world(&mut self, a: u8, b: u8) {
        let other = Nonce(u128::from(a) << 64);
        match b % 16 {
            1 => self.store = self.store.wrapping_add(1),
            2 | 3 => {
                let hold =
                    Hold { by: "ann".to_owned(), reason: "maintenance".to_owned(), left: None };
                self.lease.hold = Some(hold);
            }
            4 => self.lease.latched = true,
            5 => self.cooling = true,
            6 => self.status = "EMERGENCY_STOPPED",
            7 => self.fault = Some(Bot::Missing),
            8 => self.fault = Some(Bot::Null { status: "PRIMARY".to_owned() }),
            9 => self.fault = Some(Bot::Duplicate { rows: 2 }),
            10 => self.lease = lease(self.lease.epoch.0 + 1, "alpha"),
            11 => {
                let epoch = self.lease.epoch.0 + 1;
                self.lease = Lease { nonce: Some(other), ..lease(epoch, "gamma") };
            }
            12 => {
                self.lost = Some(self.lease.clone());
                self.lease = lease(self.lease.epoch.0.saturating_sub(1), "alpha");
            }
            13 => {
                let epoch = self.lease.epoch.0;
                self.lease = Lease { nonce: Some(other), ..lease(epoch, "gamma") };
            }
            14 => self.lease.seq += 1,
            // All is well again.
            _ => {
                self.lease.hold = None;
                self.lease.latched = false;
                self.cooling = false;
                self.status = "PRIMARY";
                self.fault = None;
            }
        }
    }

    fn restart(&mut self, a: u8, b: u8) {
        let same_boot = b % 4 != 0;
        let recalled = self.memory.map(|memory| Recalled {
            memory,
            recent: same_boot && a % 2 == 0,
            same_boot,
            units_active: b % 8 > 3,
        });
        self.lives += 1;
        let first = Nonce(self.lives << 32);
        self.engine = Engine::new(self.now, self.policy.clone(), first, recalled);
        self.trace = Trace::new(self.now, self.policy.clone(), recalled);
        self.acquire = None;
        self.check = false;
        self.run = None;
        self.stop = false;
    }

    /// Events that answer no question.
    fn surprise(&mut self, a: u8, b: u8) -> Result<(), String> {
        let nonce = Nonce(u128::from(a));
        let epoch = Epoch(u64::from(a % 4));
        let text = "of another life".to_owned();
        self.turn(match b % 6 {
            0 => Event::Acquired { nonce, answer: Answer::Granted(epoch) },
            1 => Event::Acquired { nonce, answer: Answer::Unknown(text) },
            2 => Event::StepEnded { epoch, step: Step::Start, outcome: Outcome::Done },
            3 => Event::StepEnded { epoch, step: Step::Fence, outcome: Outcome::Failed(text) },
            4 if !self.stop => Event::UnitsStopped { fault: None },
            _ => Event::Wake,
        })
    }

    fn turn(&mut self, event: Event) -> Result<(), String> {
        let now = self.now;
        let actions = self.engine.handle(now, event.clone());
        let described = format!("{now} {event:?}\n    → {actions:?}");
        self.trace.turn(now, &event, &actions).map_err(|rule| format!("{rule}\nat {described}"))?;
        let next = self.engine.next_deadline();
        if next <= now {
            return Err(format!("the next deadline {next} is not after {described}"));
        }
        let _ = self.engine.snapshot(now);
        let explained = self.engine.explain(now);
        let seen = matches!(event, Event::Observed { .. });
        if seen && self.engine.kind() == Kind::Standby && explained.would_act {
            return Err(format!("says that it would act, and does not\nat {described}"));
        }
        if !explained.would_act
            && actions.iter().any(|action| matches!(action, Action::Acquire(_)))
            && self.engine.kind() == Kind::Acquiring
        {
            return Err(format!("acts, and says that it would not\nat {described}"));
        }
        for action in &actions {
            match action {
                Action::Check { .. } => self.check = true,
                Action::Acquire(question) => {
                    self.memory = Some(question.memory);
                    self.acquire = Some(question.clone());
                }
                Action::Remember(memory) => self.memory = Some(*memory),
                Action::Run { token, step, .. } => self.run = Some((*token, *step)),
                Action::StopUnits { .. } => {
                    self.run = None;
                    self.stop = true;
                }
                Action::Moved(edge) => {
                    self.edges.insert(*edge);
                }
                Action::Look
                | Action::Announce(_)
                | Action::EndRequest { .. }
                | Action::HandOver { .. }
                | Action::Rejoin { .. } => {
                    return Err(format!("only in paired mode: {}", action.in_words()));
                }
                Action::Tell(_) | Action::Answer { .. } => {}
            }
        }
        if self.memory.is_some_and(|memory| memory.progress == Progress::Over) && self.stop {
            return Err(format!("remembers the end before the units are stopped\nat {described}"));
        }
        self.actions.extend(actions);
        Ok(())
    }
}
