//! The way to the store: one question at a time, each with a deadline, each answered by an event.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::tell::Teller;
use crate::adapters::postgres::Store;
use crate::adapters::postgres::paired::Renewal as Said;
use crate::engine::guard::{Event, HandOver, Renewal};
use crate::engine::observation::Token;
use crate::error::chain;
use crate::telemetry::Notable;

/// Attempts to give the lease back. What fails so often leaves it to lapse.
const HAND_OVER_ATTEMPTS: usize = 3;

/// Questions that wait: a hand-over behind a renewal.
const QUESTIONS_MAX: usize = 4;

/// What the store is asked.
#[derive(Debug)]
pub enum Question {
    /// To renew the lease; with the number of the call.
    Renew(u64),
    /// To give it back, to a node or to anybody.
    HandOver(Option<String>),
}

/// Asks the store in a task of its own, for the events that come of it.
pub fn spawn(
    store: Store,
    token: Token,
    answer_within: Duration,
    events: mpsc::Sender<Event>,
    teller: Teller,
) -> mpsc::Sender<Question> {
    let (ask, mut asked) = mpsc::channel(QUESTIONS_MAX);
    let mut way = Way { store, token, answer_within, teller, failing: false };
    tokio::spawn(async move {
        while let Some(question) = asked.recv().await {
            let event = match question {
                Question::Renew(call) => Event::Renewed { call, renewal: way.renew().await },
                Question::HandOver(to) => Event::HandedOver(way.hand_over(to.as_deref()).await),
            };
            if events.send(event).await.is_err() {
                return;
            }
        }
    });
    ask
}

struct Way {
    store: Store,
    token: Token,
    answer_within: Duration,
    teller: Teller,
    /// Whether the last renewal failed, which is said once.
    failing: bool,
}

impl Way {
    async fn renew(&mut self) -> Renewal {
        let group = &self.teller.group;
        let asked = timeout(self.answer_within, self.store.renew(group, self.token)).await;
        let (renewal, fault) = match asked {
            Ok(Ok(Said::Granted { .. })) => (Renewal::Granted, None),
            Ok(Ok(Said::Refused)) => (Renewal::Refused, None),
            Ok(Err(error)) => (Renewal::Failed, Some(chain(&error))),
            Err(_) => (Renewal::Failed, Some(format!("no answer in {:?}", self.answer_within))),
        };
        match fault {
            Some(fault) if !self.failing => {
                self.failing = true;
                let text = format!("the lease of {group} could not be renewed: {fault}");
                self.teller.say(Notable::RenewalFailed, &text);
            }
            None if self.failing => {
                self.failing = false;
                let text = format!("the store answers again about the lease of {group}");
                self.teller.say(Notable::RenewalAnswered, &text);
            }
            Some(_) | None => {}
        }
        renewal
    }

    async fn hand_over(&mut self, to: Option<&str>) -> HandOver {
        for _ in 0..HAND_OVER_ATTEMPTS {
            let group = &self.teller.group;
            let asked =
                timeout(self.answer_within, self.store.hand_over(group, self.token, to)).await;
            match asked {
                Ok(Ok(Some(epoch))) => return HandOver::Done(epoch),
                Ok(Ok(None)) => return HandOver::Refused,
                // The store answers the same to the same question, so it may be asked again.
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "the lease could not be given back");
                }
                Err(_) => tracing::warn!("the lease could not be given back: no answer in time"),
            }
        }
        HandOver::Failed
    }
}
