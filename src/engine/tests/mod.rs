//! Each event on each state: the state after it, and exactly the actions. One file for an event.
//!
//! The group has the bots `equity` and `crypto`, this node is `beta`, the primary is `alpha` with
//! epoch 1. The window is 60 s.

mod acquired;
mod apply;
mod checked;
mod explain;
mod guard;
mod observe_failed;
mod observed;
mod operator;
mod paired;
mod step_ended;
mod units_stopped;
mod wake;

use std::time::Duration;

use super::Engine;
use super::edge::{Edge, Kind, Why};
use super::event::{Action, Answer, Cause, Command, Event, Memory, Outcome, Progress, Recalled};
use super::notice::Notice;
use super::observation::{
    Bot, Epoch, Hold, Lease, Member, Nonce, Observation, PendingRequest, StoreIdentity, Token,
};
use super::plan::Step;
use super::policy::{CHECK_DEADLINE, Policy, STOP_DEADLINE};
use crate::time::BootTime;

const NONCE: Nonce = Nonce(100);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn policy() -> Policy {
    Policy {
        node: "beta".to_owned(),
        bots: vec!["equity".to_owned(), "crypto".to_owned()],
        all_bots: false,
        stopped_statuses: vec!["STOPPED".to_owned()],
        timeout: ms(60_000),
        reply_timeout: ms(2_000),
        max_gap: ms(25_000),
        blind_after: ms(120_000),
        automatic: true,
        plan: [Step::Promote, Step::Flip, Step::Start, Step::Beat]
            .map(|step| (step, ms(30_000)))
            .to_vec(),
        paired: None,
    }
}

fn moved(from: Kind, to: Kind, why: Why) -> Action {
    Action::Moved(Edge { from, to, why })
}

fn memory(progress: Progress) -> Memory {
    Memory { nonce: NONCE, cause: Cause::Automatic, progress, max_epoch: Epoch(2) }
}

fn run(step: Step, again: bool) -> Action {
    let token = Token { epoch: Epoch(2), nonce: NONCE };
    Action::Run { token, step, again, deadline: ms(30_000) }
}

/// Whether something was said that matches.
macro_rules! tells {
    ($actions:expr, $notice:pat $(if $guard:expr)?) => {
        $actions.iter().any(|action| matches!(action, Action::Tell($notice) $(if $guard)?))
    };
}
use tells;

/// An engine, its clock, and what the store says when it is read next.
struct Stage {
    engine: Engine,
    now: u64,
    heartbeat: &'static str,
    status: &'static str,
    store: &'static str,
    lease: Lease,
    members: Vec<Member>,
    request: Option<Box<PendingRequest>>,
}

impl Stage {
    fn with(policy: Policy, recalled: Option<Recalled>) -> Self {
        let now = 1_000_000;
        let lease = Lease { epoch: Epoch(1), holder: Some("alpha".to_owned()), ..Lease::default() };
        let engine = Engine::new(BootTime::from_duration(ms(now)), policy, NONCE, recalled);
        Self {
            engine,
            now,
            heartbeat: "a",
            status: "PRIMARY",
            store: "s",
            lease,
            members: Vec::new(),
            request: None,
        }
    }

    fn new() -> Self {
        Self::with(policy(), None)
    }

    /// In that state, on the way on which an engine comes there.
    fn in_state(kind: Kind) -> Self {
        if kind == Kind::Interrupted {
            let mut stage = Self::restarted(Progress::At(Step::Promote), false);
            stage.ours();
            stage.read();
            return stage;
        }
        if kind == Kind::HandingOver {
            return paired::handing_over();
        }
        let mut stage = Self::new();
        stage.read();
        stage.answer_check();
        if kind == Kind::Standby {
            return stage;
        }
        stage.silence();
        if kind == Kind::Checking {
            return stage;
        }
        stage.answer_check();
        if kind == Kind::Acquiring {
            return stage;
        }
        stage.granted();
        if kind == Kind::Promoting {
            return stage;
        }
        if kind == Kind::Degraded {
            for pause in [0, 500, 1_000] {
                stage.after(pause, Event::Wake);
                stage.read();
                stage.step(Step::Promote, Outcome::Failed("no".to_owned()));
            }
            return stage;
        }
        for step in [Step::Promote, Step::Flip, Step::Start] {
            stage.step(step, Outcome::Done);
        }
        stage.heartbeat = "b";
        stage.read();
        if kind == Kind::Stopping {
            stage.lease.epoch = Epoch(3);
            stage.lease.nonce = None;
            stage.lease.holder = Some("alpha".to_owned());
            stage.read();
        }
        stage
    }

    /// After a restart of the process, long ago or not, on the same boot, with the units running.
    fn restarted(progress: Progress, recent: bool) -> Self {
        let recalled = Recalled {
            memory: memory(progress),
            recent,
            same_boot: true,
            units_active: progress == Progress::Complete,
        };
        Self::with(policy(), Some(recalled))
    }

    /// The store says that the lease is ours.
    fn ours(&mut self) {
        self.lease.epoch = Epoch(2);
        self.lease.nonce = Some(NONCE);
        self.lease.holder = Some("beta".to_owned());
    }

    fn observation(&self) -> Observation {
        let bot = Bot::Beat {
            value: self.heartbeat.to_owned(),
            status: self.status.to_owned(),
            age_ms: None,
        };
        Observation {
            store: StoreIdentity(self.store.to_owned()),
            seen_at: self.now.to_string(),
            lease: self.lease.clone(),
            bots: vec![bot.clone(), bot],
            members: self.members.clone(),
            request: self.request.clone(),
        }
    }

    fn after(&mut self, millis: u64, event: Event) -> Vec<Action> {
        self.now += millis;
        self.engine.handle(BootTime::from_duration(ms(self.now)), event)
    }

    fn read(&mut self) -> Vec<Action> {
        self.read_after(0, 0)
    }

    /// A read that is sent after a pause and takes its time.
    fn read_after(&mut self, pause: u64, took: u64) -> Vec<Action> {
        self.now += pause;
        let sent = BootTime::from_duration(ms(self.now));
        let observation = self.observation();
        self.after(took, Event::Observed { sent, observation })
    }

    fn fail(&mut self) -> Vec<Action> {
        self.after(0, Event::ObserveFailed { fault: "down".to_owned() })
    }

    /// Good reads without a change, up to one at the end of the window.
    fn silence(&mut self) -> Vec<Action> {
        for _ in 0..5 {
            self.read_after(10_000, 0);
            self.answer_check();
        }
        self.read_after(10_000, 0)
    }

    fn answer_check(&mut self) -> Vec<Action> {
        self.after(0, Event::Checked { problems: Vec::new() })
    }

    fn answer(&mut self, answer: Answer) -> Vec<Action> {
        self.after(0, Event::Acquired { nonce: NONCE, answer })
    }

    fn granted(&mut self) -> Vec<Action> {
        self.ours();
        self.answer(Answer::Granted(Epoch(2)))
    }

    fn step(&mut self, step: Step, outcome: Outcome) -> Vec<Action> {
        self.after(0, Event::StepEnded { epoch: Epoch(2), step, outcome })
    }

    fn failover(&mut self, force: bool) -> Vec<Action> {
        self.after(0, Event::Operator { request: 7, command: Command::Failover { force } })
    }

    fn hold(&mut self) {
        self.lease.hold =
            Some(Hold { by: "ann".to_owned(), reason: "work".to_owned(), left: None });
    }
}

/// In each state but these, the event changes nothing and nothing is done.
fn ignored_but_in(states: &[Kind], event: &Event) {
    for kind in Kind::ALL.into_iter().filter(|kind| !states.contains(kind)) {
        let mut stage = Stage::in_state(kind);
        assert_eq!(stage.engine.kind(), kind, "the way into the state");
        assert_eq!(stage.after(0, event.clone()), [], "{event:?} while {kind}");
        assert_eq!(stage.engine.kind(), kind, "{event:?} while {kind}");
    }
}

#[test]
fn every_state_is_reached_on_its_way() {
    for kind in Kind::ALL {
        assert_eq!(Stage::in_state(kind).engine.kind(), kind);
    }
}
