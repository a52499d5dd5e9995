//! Why a takeover would begin now or not, in words: the conditions of `decide.rs`, each with what
//! is known about it. For `understudy explain`.

use serde::{Deserialize, Serialize};

use super::liveness::{Verdict, seconds};
use super::observation::Bot;
use super::plan::Step;
use super::{Engine, State};
use crate::time::BootTime;

/// What this node would do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// In one sentence.
    pub sentence: String,
    /// Whether a takeover would begin at this instant.
    pub would_act: bool,
    /// Everything that must hold for it, and whether it does.
    pub conditions: Vec<Condition>,
    /// What it would do then, in this order.
    pub plan: Vec<Step>,
}

/// Something that must hold before a takeover begins by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Whether it does.
    pub holds: bool,
    /// What is known about it.
    pub text: String,
}

impl Engine {
    /// Why a takeover would begin now, or not.
    #[must_use]
    pub fn explain(&self, now: BootTime) -> Explanation {
        let (would_act, sentence) = self.verdict_in_words(now);
        let mut conditions = vec![self.explain_sight(now)];
        conditions.extend(self.explain_bots(now));
        conditions.push(self.explain_restraint());
        conditions.push(self.explain_permission());
        conditions.push(self.explain_fitness(now));
        let plan = self.policy.plan.iter().map(|(step, _)| *step).collect();
        Explanation { sentence, would_act, conditions, plan }
    }

    fn verdict_in_words(&self, now: BootTime) -> (bool, String) {
        match &self.state {
            State::Standby => {}
            State::Checking { .. } | State::Acquiring { .. } => {
                return (true, format!("fails over: {}", self.kind().meaning()));
            }
            State::Promoting { .. }
            | State::Active { .. }
            | State::Interrupted { .. }
            | State::HandingOver { .. }
            | State::Stopping { .. } => {
                let sentence = self.snapshot(now).sentence;
                return (false, format!("would not fail over: {sentence}"));
            }
        }
        match self.watch.verdict(&self.policy) {
            Verdict::Unknown(cause) => (
                false,
                format!("would not fail over: nobody can tell whether the primary lives: {cause}"),
            ),
            Verdict::Fresh => (false, format!("would not fail over: {}", self.freshest(now))),
            Verdict::Stale => match self.blocker() {
                Some(blocker) => {
                    let silent = self.silent_bots();
                    (
                        false,
                        format!(
                            "would not fail over, although silent ({silent}): {}",
                            blocker.text
                        ),
                    )
                }
                None => (true, format!("would fail over: silent: {}", self.silent_bots())),
            },
        }
    }

    /// The heartbeat that the decision waits for.
    fn freshest(&self, now: BootTime) -> String {
        let ages = self.policy.bots.iter().enumerate().filter_map(|(index, name)| {
            self.watch.unchanged_since(index).map(|(since, changed)| (since, changed, name))
        });
        // If one silent bot is enough, the oldest one matters, else the youngest.
        let matters = if self.policy.all_bots {
            ages.max_by_key(|(since, ..)| *since)
        } else {
            ages.min_by_key(|(since, ..)| *since)
        };
        let Some((since, changed, name)) = matters else {
            return "no heartbeat was read yet".to_owned();
        };
        let (age, timeout) = (now.since(since), self.policy.timeout);
        let left = seconds(timeout.saturating_sub(age));
        if changed {
            format!("heartbeat of {name} changed {} ago; silent in {left}", seconds(age))
        } else {
            format!(
                "heartbeat of {name} has been watched for {} without a change; silent in {left}",
                seconds(age)
            )
        }
    }

    fn explain_sight(&self, now: BootTime) -> Condition {
        match (self.watch.unknown(), &self.last) {
            (Some((cause, since)), _) => Condition {
                holds: false,
                text: format!(
                    "the store is in sight: not for {}: {cause}",
                    seconds(now.since(since))
                ),
            },
            (None, Some((read_at, _))) => Condition {
                holds: true,
                text: format!("the store is in sight: read {} ago", seconds(now.since(*read_at))),
            },
            (None, None) => {
                Condition { holds: false, text: "the store is in sight: not read yet".to_owned() }
            }
        }
    }

    fn explain_bots(&self, now: BootTime) -> Vec<Condition> {
        let Some((_, observation)) = &self.last else { return Vec::new() };
        let timeout = self.policy.timeout;
        let bots = self.policy.bots.iter().zip(&observation.bots).enumerate();
        bots.map(|(index, (name, bot))| {
            let known = match bot {
                Bot::Missing => "has no row".to_owned(),
                Bot::Duplicate { rows } => format!("has {rows} rows"),
                Bot::Null { .. } => "has no heartbeat in its row".to_owned(),
                Bot::Beat { .. } => match self.watch.unchanged_since(index) {
                    Some((since, _)) => format!(
                        "unchanged for {} of {}",
                        seconds(now.since(since)),
                        seconds(timeout)
                    ),
                    None => "not watched, as nothing is known for certain".to_owned(),
                },
            };
            Condition {
                holds: self.watch.is_silent(index, &self.policy),
                text: format!("{name} is silent: {known}"),
            }
        })
        .collect()
    }

    fn explain_restraint(&self) -> Condition {
        match self.restraint() {
            Some(blocker) => Condition {
                holds: false,
                text: format!("nobody said not to act: {}", blocker.text),
            },
            None => Condition {
                holds: self.last.is_some(),
                text: "nobody said not to act: no hold, no latch, no status of a stop".to_owned(),
            },
        }
    }

    /// The reasons of [`Engine::blocker`] that no person gave.
    fn explain_permission(&self) -> Condition {
        let lease = self.last.as_ref().map(|(_, observation)| &observation.lease);
        let holder = lease.and_then(|lease| lease.holder.as_deref()).unwrap_or("nobody");
        match (self.restraint(), self.blocker()) {
            (None, Some(blocker)) => Condition {
                holds: false,
                text: format!("it may take over by itself: {}", blocker.text),
            },
            (Some(_), _) | (None, None) => Condition {
                holds: lease.is_some(),
                text: format!("it may take over by itself: {holder} has the group"),
            },
        }
    }

    fn explain_fitness(&self, now: BootTime) -> Condition {
        let text = |found: &str| format!("this node could run the group: {found}");
        match &self.check.found {
            None => Condition { holds: false, text: text("not checked yet") },
            Some((at, problems)) if problems.is_empty() => Condition {
                holds: true,
                text: text(&format!("checked {} ago", seconds(now.since(*at)))),
            },
            Some((_, problems)) => {
                Condition { holds: false, text: text(&format!("no: {}", problems.join("; "))) }
            }
        }
    }
}
