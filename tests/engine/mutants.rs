//! Planted bugs. Each one edits what the engine sees, does or remembers; each must be noticed by
//! the rules, and the engine as it is must pass the same histories.

use std::collections::BTreeMap;

use understudy::engine::Engine;
use understudy::engine::edge::Kind;
use understudy::engine::event::{Action, Answer, Event, Outcome, Recalled};
use understudy::engine::observation::{Bot, Epoch, Nonce, Observation, StoreIdentity};
use understudy::engine::plan::Step;
use understudy::engine::policy::Policy;
use understudy::time::BootTime;

use crate::support::{ms, s};
use crate::world;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    WindowSurvivesAFailedRead,
    FailedReadCountsAsSilence,
    GapsAreIgnored,
    AnotherStoreIsTheSame,
    LateRepliesCountAsPrompt,
    MissingRowsAreStale,
    AgeByClockDecides,
    ElapsedTimeDecides,
    HoldIsIgnored,
    LatchIsIgnored,
    StoppedStatusIsIgnored,
    CooldownForgotten,
    CheckIsIgnored,
    StepsAreSwapped,
    FailedStepsCountAsDone,
    BeatIsAssumed,
    MemoryIsLost,
    NonceIsNewEachTime,
    InterruptedGoesOnAtOnce,
    LaterTenureIsIgnored,
    FailedStopCountsAsDone,
    SeenEpochsAreForgotten,
    EvidenceIsNotNamed,
}

const ALL: [Mutant; 23] = [
    Mutant::WindowSurvivesAFailedRead,
    Mutant::FailedReadCountsAsSilence,
    Mutant::GapsAreIgnored,
    Mutant::AnotherStoreIsTheSame,
    Mutant::LateRepliesCountAsPrompt,
    Mutant::MissingRowsAreStale,
    Mutant::AgeByClockDecides,
    Mutant::ElapsedTimeDecides,
    Mutant::HoldIsIgnored,
    Mutant::LatchIsIgnored,
    Mutant::StoppedStatusIsIgnored,
    Mutant::CooldownForgotten,
    Mutant::CheckIsIgnored,
    Mutant::StepsAreSwapped,
    Mutant::FailedStepsCountAsDone,
    Mutant::BeatIsAssumed,
    Mutant::MemoryIsLost,
    Mutant::NonceIsNewEachTime,
    Mutant::InterruptedGoesOnAtOnce,
    Mutant::LaterTenureIsIgnored,
    Mutant::FailedStopCountsAsDone,
    Mutant::SeenEpochsAreForgotten,
    Mutant::EvidenceIsNotNamed,
];

/// Histories within which a mutant must be noticed.
const HISTORIES: u64 = 400;

#[test]
fn every_planted_bug_is_noticed() {
    let mut report = String::new();
    let mut survivors = Vec::new();
    for mutant in ALL {
        let found = (0..HISTORIES)
            .find_map(|seed| world::live(seed, Some(mutant), false).err().map(|rule| (seed, rule)));
        match found {
            Some((seed, rule)) => {
                let rule = rule.lines().next().unwrap_or_default();
                report += &format!("{mutant:?}: history {seed}: {rule}\n");
            }
            None => survivors.push(mutant),
        }
    }
    println!("{report}");
    assert!(survivors.is_empty(), "not noticed in {HISTORIES} histories: {survivors:?}\n{report}");
}

/// An engine, with a bug or as it is.
pub struct Subject {
    pub engine: Engine,
    mutant: Option<Mutant>,
    policy: Policy,
    last: Option<Observation>,
    nonces: BTreeMap<u128, u128>,
    asked: u128,
    own: Option<(Epoch, Nonce)>,
}

impl Subject {
    pub fn new(
        mutant: Option<Mutant>,
        now: BootTime,
        policy: Policy,
        first: Nonce,
        mut recalled: Option<Recalled>,
    ) -> Self {
        let mut believed = policy.clone();
        match mutant {
            Some(Mutant::GapsAreIgnored) => believed.max_gap = s(1_000_000),
            Some(Mutant::StoppedStatusIsIgnored) => believed.stopped_statuses.clear(),
            Some(Mutant::MemoryIsLost) => recalled = None,
            Some(Mutant::InterruptedGoesOnAtOnce) => {
                if let Some(recalled) = &mut recalled {
                    recalled.recent = true;
                }
            }
            Some(Mutant::SeenEpochsAreForgotten) => {
                if let Some(recalled) = &mut recalled {
                    recalled.memory.max_epoch = Epoch(0);
                }
            }
            _ => {}
        }
        Self {
            engine: Engine::new(now, believed, first, recalled),
            mutant,
            policy,
            last: None,
            nonces: BTreeMap::new(),
            asked: 0,
            own: None,
        }
    }

    pub fn handle(&mut self, now: BootTime, event: &Event) -> Vec<Action> {
        let Some(mutant) = self.mutant else { return self.engine.handle(now, event.clone()) };
        if mutant == Mutant::AgeByClockDecides && self.engine.kind() == Kind::Acquiring {
            self.engine.apply(now, self.policy.clone());
        }
        let seen = self.see(mutant, now, event.clone());
        let mut actions = self.engine.handle(now, seen);
        for action in &mut actions {
            self.act(mutant, action);
        }
        if let Event::Observed { observation, .. } = event {
            // What a row said last, while it was one.
            let mut seen = observation.clone();
            if let Some(last) = &self.last {
                for (bot, last) in seen.bots.iter_mut().zip(&last.bots) {
                    if !matches!(bot, Bot::Beat { .. }) {
                        bot.clone_from(last);
                    }
                }
            }
            self.last = Some(seen);
        }
        actions
    }

    fn see(&mut self, mutant: Mutant, now: BootTime, event: Event) -> Event {
        match event {
            Event::Observed { sent, observation } => self.see_read(mutant, now, sent, observation),
            Event::ObserveFailed { fault } => match (mutant, self.last.clone()) {
                (Mutant::WindowSurvivesAFailedRead, _) => Event::Wake,
                (Mutant::FailedReadCountsAsSilence, Some(observation)) => {
                    Event::Observed { sent: now, observation }
                }
                _ => Event::ObserveFailed { fault },
            },
            Event::Wake if mutant == Mutant::ElapsedTimeDecides => match self.last.clone() {
                Some(observation) if self.engine.kind() == Kind::Standby => {
                    Event::Observed { sent: now, observation }
                }
                _ => Event::Wake,
            },
            Event::Checked { .. } if mutant == Mutant::CheckIsIgnored => {
                Event::Checked { problems: Vec::new() }
            }
            Event::Acquired { nonce, answer } => self.see_answer(mutant, nonce, answer),
            Event::StepEnded { epoch, step, outcome } => {
                let step = if mutant == Mutant::StepsAreSwapped { swapped(step) } else { step };
                let outcome = match mutant {
                    Mutant::FailedStepsCountAsDone => Outcome::Done,
                    _ => outcome,
                };
                Event::StepEnded { epoch, step, outcome }
            }
            Event::UnitsStopped { .. } if mutant == Mutant::FailedStopCountsAsDone => {
                Event::UnitsStopped { fault: None }
            }
            event => event,
        }
    }

    fn see_answer(&mut self, mutant: Mutant, nonce: Nonce, answer: Answer) -> Event {
        let asked = match mutant {
            Mutant::NonceIsNewEachTime => {
                Nonce(self.nonces.get(&nonce.0).copied().unwrap_or(nonce.0))
            }
            _ => nonce,
        };
        if let Answer::Granted(epoch) = answer {
            self.own = Some((epoch, asked));
        }
        Event::Acquired { nonce: asked, answer }
    }

    fn see_read(
        &mut self,
        mutant: Mutant,
        now: BootTime,
        sent: BootTime,
        mut observation: Observation,
    ) -> Event {
        let mut sent = sent;
        match mutant {
            Mutant::AnotherStoreIsTheSame => {
                observation.store = StoreIdentity("the store".to_owned());
            }
            Mutant::LateRepliesCountAsPrompt => sent = now,
            Mutant::MissingRowsAreStale => {
                if let Some(last) = &self.last {
                    for (bot, last) in observation.bots.iter_mut().zip(&last.bots) {
                        if !matches!(bot, Bot::Beat { .. }) {
                            bot.clone_from(last);
                        }
                    }
                }
            }
            Mutant::AgeByClockDecides => self.believe_ages(now, &observation),
            Mutant::HoldIsIgnored => observation.lease.hold = None,
            Mutant::LatchIsIgnored => observation.lease.latched = false,
            Mutant::CooldownForgotten => observation.lease.cooldown_left = None,
            Mutant::BeatIsAssumed if self.engine.kind() == Kind::Promoting => {
                for bot in &mut observation.bots {
                    if let Bot::Beat { value, .. } = bot {
                        value.push('!');
                    }
                }
            }
            Mutant::LaterTenureIsIgnored => {
                let has = matches!(
                    self.engine.kind(),
                    Kind::Promoting | Kind::Degraded | Kind::Active | Kind::Interrupted
                );
                if let (true, Some((epoch, nonce))) = (has, self.own) {
                    observation.lease.epoch = epoch;
                    observation.lease.nonce = Some(nonce);
                    observation.lease.holder = Some(self.policy.node.clone());
                }
            }
            _ => {}
        }
        Event::Observed { sent, observation }
    }

    /// As the original did it: a heartbeat that is old by the clock is a dead primary, at once.
    fn believe_ages(&mut self, now: BootTime, observation: &Observation) {
        let limit = self.policy.timeout.as_millis();
        let old = observation.bots.iter().any(|bot| match bot {
            Bot::Beat { age_ms: Some(age), .. } => i128::from(*age) >= limit.cast_signed(),
            _ => false,
        });
        let timeout = if old { ms(0) } else { self.policy.timeout };
        self.engine.apply(now, Policy { timeout, ..self.policy.clone() });
    }

    fn act(&mut self, mutant: Mutant, action: &mut Action) {
        match action {
            Action::Run { step, deadline, .. } if mutant == Mutant::StepsAreSwapped => {
                *step = swapped(*step);
                *deadline = self.policy.deadline(*step);
            }
            Action::Remember(memory) if mutant == Mutant::NonceIsNewEachTime => {
                let renamed = self.nonces.iter().find(|(_, nonce)| **nonce == memory.nonce.0);
                memory.nonce = renamed.map_or(memory.nonce, |(renamed, _)| Nonce(*renamed));
            }
            Action::Acquire(question) => match mutant {
                Mutant::NonceIsNewEachTime => {
                    self.asked += 1;
                    let renamed = question.nonce.0 ^ (self.asked << 100);
                    self.nonces.insert(renamed, question.nonce.0);
                    question.nonce = Nonce(renamed);
                    question.memory.nonce = Nonce(renamed);
                }
                Mutant::SeenEpochsAreForgotten => question.min_epoch = Epoch(0),
                Mutant::HoldIsIgnored | Mutant::LatchIsIgnored | Mutant::CooldownForgotten => {
                    if let Some(last) = &self.last {
                        question.expected = last.lease.clone();
                    }
                }
                Mutant::EvidenceIsNotNamed => question.heartbeats.clear(),
                _ => {}
            },
            _ => {}
        }
    }
}

const fn swapped(step: Step) -> Step {
    match step {
        Step::Promote => Step::Start,
        Step::Start => Step::Promote,
        Step::Guard | Step::Fence | Step::Persist | Step::Flip | Step::Publish | Step::Beat => step,
    }
}
