//! The guard: each event in each state, and what holds for any sequence of events.

#![allow(clippy::wildcard_enum_match_arm, reason = "the ledger looks at a few of them only")]

use proptest::prelude::*;

use super::ms;
use crate::engine::guard::{
    Action, Ending, Event, Fence, Guard, HEARD_WITHIN, HandOver, LOOK_EVERY, PASS_SETTLES, Renewal,
    Standing, StoreLoss, Stroke, Timers, Why,
};
use crate::engine::observation::Epoch;
use crate::time::BootTime;

const TIMERS: Timers = Timers {
    renew: ms(2_000),
    answer_within: ms(1_500),
    fence_after: ms(10_000),
    kill_after: ms(4_000),
    store_loss: StoreLoss::Fence,
};

fn at(millis: u64) -> BootTime {
    BootTime::from_duration(ms(millis))
}

fn guard(timers: Timers) -> Guard {
    Guard::new(at(1_000), timers, Some(at(900)))
}

/// One whose first renewal was sent at 1 s and granted at once.
fn holding(timers: Timers) -> Guard {
    let mut guard = guard(timers);
    assert_eq!(guard.handle(at(1_000), Event::Wake), [Action::Renew { call: 1 }]);
    let actions = guard.handle(at(1_010), renewed(1, Renewal::Granted));
    assert_eq!(actions, [Action::Feed, Action::Ready]);
    guard
}

fn renewed(call: u64, renewal: Renewal) -> Event {
    Event::Renewed { call, renewal }
}

fn release(empty: bool) -> Event {
    Event::ReleaseAsked { request: 7, to: Some("beta".to_owned()), empty }
}

fn refusal(actions: &[Action]) -> &str {
    match actions {
        [Action::Answer { request: 7, answer: Err(text) }] => text,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[test]
fn units_may_start_after_the_first_granted_renewal_only() {
    let mut guard = guard(TIMERS);
    assert_eq!(guard.standing(), Standing::Starting);
    assert_eq!(guard.handle(at(1_000), Event::Wake), [Action::Renew { call: 1 }]);
    assert_eq!(guard.handle(at(1_100), renewed(1, Renewal::Failed)), []);
    assert_eq!((guard.standing(), guard.valid(at(1_100))), (Standing::Starting, ms(0)));
    assert_eq!(guard.handle(at(3_000), Event::Wake), [Action::Renew { call: 2 }]);
    let actions = guard.handle(at(3_100), renewed(2, Renewal::Granted));
    assert_eq!(actions, [Action::Feed, Action::Ready]);
    assert_eq!((guard.standing(), guard.valid(at(3_100))), (Standing::Holding, ms(9_900)));
}

#[test]
fn a_renewal_counts_from_before_it_was_sent() {
    let mut guard = holding(TIMERS);
    assert_eq!(guard.deadline(), Some(at(11_000)));
    assert_eq!(guard.handle(at(3_000), Event::Wake), [Action::Renew { call: 2 }]);
    assert_eq!(guard.handle(at(4_499), renewed(2, Renewal::Granted)), [Action::Feed]);
    assert_eq!(guard.deadline(), Some(at(13_000)));
}

#[test]
fn a_late_answer_is_none() {
    let mut guard = holding(TIMERS);
    guard.handle(at(3_000), Event::Wake);
    assert_eq!(guard.handle(at(4_500), renewed(2, Renewal::Granted)), []);
    assert_eq!(guard.deadline(), Some(at(11_000)));
    assert_eq!(guard.handle(at(5_000), Event::Wake), [Action::Renew { call: 3 }]);
    assert_eq!(guard.handle(at(5_100), renewed(2, Renewal::Granted)), [], "of an earlier call");
    assert_eq!(guard.handle(at(5_200), renewed(3, Renewal::Granted)), [Action::Feed]);
}

#[test]
fn a_refusal_fences_however_late() {
    let mut guard = holding(TIMERS);
    guard.handle(at(3_000), Event::Wake);
    guard.handle(at(4_500), Event::Wake);
    let actions = guard.handle(at(4_600), renewed(2, Renewal::Refused));
    assert_eq!(actions, [Action::Feed, Action::Fence(Why::Refused)]);
    assert_eq!((guard.standing(), guard.valid(at(4_600))), (Standing::Fencing, ms(0)));
}

#[test]
fn the_deadline_is_an_instant() {
    let mut guard = holding(TIMERS);
    guard.handle(at(9_000), Event::Wake);
    assert_eq!(guard.handle(at(10_999), Event::Passed), []);
    assert_eq!(guard.next_deadline(), Some(at(11_000)));
    let actions = guard.handle(at(11_000), renewed(2, Renewal::Granted));
    assert_eq!(actions, [Action::Feed, Action::Fence(Why::Deadline)]);
    assert_eq!(guard.handle(at(11_001), renewed(2, Renewal::Granted)), []);
    assert_eq!((guard.deadline(), guard.next_deadline()), (None, None));
    let ending = [Action::Exit(Ending::Fenced(Why::Deadline))];
    assert_eq!(guard.handle(at(11_100), Event::Dead), ending);
}

#[test]
fn a_release_wants_an_empty_slice_and_no_unit_that_just_passed() {
    let mut guard = holding(TIMERS);
    guard.handle(at(1_500), Event::Passed);
    assert!(refusal(&guard.handle(at(1_600), release(false))).contains("stop them first"));
    let settled = at(1_500) + PASS_SETTLES;
    assert!(refusal(&guard.handle(at(1_600), release(true))).contains("just starting"));
    assert_eq!(guard.standing(), Standing::Holding);
    guard.handle(at(3_000), Event::Wake);
    guard.handle(at(3_100), renewed(2, Renewal::Granted));
    let actions = guard.handle(settled, release(true));
    assert_eq!(actions, [Action::HandOver { to: Some("beta".to_owned()) }]);
    assert_eq!((guard.standing(), guard.valid(settled)), (Standing::Releasing, ms(0)));
    assert!(refusal(&guard.handle(settled, release(true))).contains("already"));
    let actions = guard.handle(at(4_000), Event::HandedOver(HandOver::Done(Epoch(8))));
    let answer = Action::Answer { request: 7, answer: Ok(Epoch(8)) };
    assert_eq!(actions, [answer, Action::Exit(Ending::Released)]);
    assert_eq!(guard.standing(), Standing::Released);
}

#[test]
fn a_release_of_unknown_outcome_fences() {
    for (answer, why) in [(HandOver::Failed, Why::Unknown), (HandOver::Refused, Why::Refused)] {
        let mut guard = holding(TIMERS);
        guard.handle(at(1_600), release(true));
        let actions = guard.handle(at(1_700), Event::HandedOver(answer));
        assert!(matches!(actions[0], Action::Answer { request: 7, answer: Err(_) }));
        assert_eq!(actions[1..], [Action::Feed, Action::Fence(why)]);
    }
}

#[test]
fn a_release_without_answer_ends_at_the_deadline_and_says_so() {
    let mut guard = holding(TIMERS);
    guard.handle(at(1_600), release(true));
    assert_eq!(guard.next_deadline(), Some(at(11_000)));
    let actions = guard.handle(at(11_000), Event::Wake);
    assert!(matches!(actions[0], Action::Answer { request: 7, answer: Err(_) }));
    assert_eq!(actions[1..], [Action::Feed, Action::Fence(Why::Deadline)]);
    assert_eq!(guard.handle(at(11_001), Event::HandedOver(HandOver::Done(Epoch(8)))), []);
}

#[test]
fn a_stop_releases_what_is_empty_and_fences_what_is_not() {
    let mut guard = holding(TIMERS);
    let stopped = guard.clone().handle(at(1_600), Event::StopAsked { empty: true });
    assert_eq!(stopped, [Action::HandOver { to: None }]);
    let stopped = guard.handle(at(1_600), Event::StopAsked { empty: false });
    assert_eq!(stopped, [Action::Feed, Action::Fence(Why::Stopped)]);
}

#[test]
fn a_store_that_is_lost_may_be_borne_but_a_refusal_not() {
    let mut guard = holding(Timers { store_loss: StoreLoss::Hold, ..TIMERS });
    for turn in 1..100 {
        let sent = 1_000 + turn * 2_000;
        let call = turn + 1;
        assert_eq!(guard.handle(at(sent), Event::Wake), [Action::Renew { call }]);
        assert_eq!(guard.handle(at(sent + 9), renewed(call, Renewal::Failed)), [Action::Feed]);
        assert_eq!(guard.valid(at(sent + 9)), TIMERS.fence_after);
    }
    guard.handle(at(201_000), Event::Wake);
    let actions = guard.handle(at(201_010), renewed(101, Renewal::Refused));
    assert_eq!(actions, [Action::Feed, Action::Fence(Why::Refused)]);
}

#[test]
fn a_lease_that_was_never_renewed_is_not_held_through_the_loss_of_the_store() {
    let mut guard = guard(Timers { store_loss: StoreLoss::Hold, ..TIMERS });
    assert_eq!(guard.deadline(), Some(at(10_900)));
    guard.handle(at(9_500), Event::Wake);
    let actions = guard.handle(at(10_900), Event::Wake);
    assert_eq!(actions, [Action::Feed, Action::Fence(Why::Deadline)]);
}

#[test]
fn behind_broken_glass_units_run_without_a_lease_until_it_is_mended() {
    let mut guard = Guard::new(at(1_000), TIMERS, None);
    assert_eq!(guard.handle(at(1_000), Event::Wake), [Action::Feed, Action::Ready]);
    assert_eq!(guard.standing(), Standing::BreakGlass);
    assert!(refusal(&guard.handle(at(1_500), release(true))).contains("mend"));
    assert_eq!(guard.handle(at(3_000), Event::Glass { broken: true }), [Action::Feed]);
    let actions = guard.handle(at(3_500), Event::Glass { broken: false });
    assert_eq!(actions, [Action::Feed, Action::Fence(Why::Mended)]);
}

#[test]
fn broken_glass_keeps_a_holder_running_and_mended_in_time_it_holds() {
    let mut guard = holding(TIMERS);
    guard.handle(at(2_000), Event::Glass { broken: true });
    assert_eq!(guard.deadline(), None);
    let actions = guard.handle(at(30_000), Event::Wake);
    assert_eq!(actions, [Action::Feed, Action::Renew { call: 2 }]);
    assert_eq!(guard.handle(at(30_100), renewed(2, Renewal::Granted)), [Action::Feed]);
    let mut late = guard.clone();
    assert_eq!(guard.handle(at(31_000), Event::Glass { broken: false }), []);
    assert_eq!(guard.deadline(), Some(at(40_000)));
    let actions = late.handle(at(40_000), Event::Glass { broken: false });
    assert_eq!(actions, [Action::Feed, Action::Fence(Why::Deadline)]);
}

#[test]
fn a_refusal_behind_broken_glass_fences_when_it_is_mended() {
    let mut guard = holding(TIMERS);
    guard.handle(at(2_000), Event::Glass { broken: true });
    guard.handle(at(3_000), Event::Wake);
    assert_eq!(guard.handle(at(3_100), renewed(2, Renewal::Refused)), []);
    assert_eq!(guard.handle(at(5_000), Event::Wake), [Action::Feed], "and asks no more");
    let actions = guard.handle(at(5_500), Event::Glass { broken: false });
    assert_eq!(actions, [Action::Feed, Action::Fence(Why::Mended)]);
}

#[test]
fn a_fence_asks_once_unless_systemd_does_and_kills_until_all_are_dead() {
    let mut fence = Fence::begin(at(0), ms(5), ms(4_000));
    let soon = |now: BootTime| Stroke::Wait(now + LOOK_EVERY);
    assert_eq!(fence.stroke(at(0), false, false), soon(at(0)));
    let heard_by = at(0) + HEARD_WITHIN;
    assert_eq!(fence.clone().stroke(heard_by, false, true), soon(heard_by));
    assert_eq!(fence.stroke(heard_by, false, false), Stroke::Term);
    assert_eq!(fence.stroke(heard_by, false, false), soon(heard_by));
    assert_eq!(fence.stroke(at(3_999), false, false), Stroke::Wait(at(4_000)));
    assert_eq!(fence.stroke(at(4_000), false, true), Stroke::Kill);
    assert_eq!(fence.stroke(at(4_001), false, true), Stroke::Wait(at(4_020)));
    assert_eq!(fence.stroke(at(4_020), false, true), Stroke::Kill);
    assert_eq!(fence.stroke(at(4_021), true, true), Stroke::Done);
}

#[test]
fn a_fence_that_is_late_asks_nobody() {
    let mut fence = Fence::begin(at(50_000), ms(1_000), ms(4_000));
    assert_eq!(fence.stroke(at(50_000), false, false), Stroke::Kill);
    let mut fence = Fence::begin(at(50_000), ms(999), ms(4_000));
    assert_eq!(fence.stroke(at(50_000), false, false), Stroke::Wait(at(50_020)));
}

/// What happens next, after `pause` milliseconds.
#[derive(Clone, Debug)]
enum Choice {
    Wake,
    /// The newest call that was sent, or the one so many before it.
    Answer(u64, Renewal),
    Passed,
    Release(bool),
    Stop(bool),
    HandedOver(HandOver),
    Struck,
    Dead,
}

fn choice() -> impl Strategy<Value = (u64, Choice)> {
    let renewal = prop_oneof![
        12 => Just(Renewal::Granted), 1 => Just(Renewal::Refused), 4 => Just(Renewal::Failed)
    ];
    let answer = prop_oneof![
        2 => Just(HandOver::Done(Epoch(8))), 1 => Just(HandOver::Refused), 1 => Just(HandOver::Failed)
    ];
    let choice = prop_oneof![
        8 => Just(Choice::Wake),
        12 => (prop_oneof![9 => Just(0_u64), 1 => 0_u64..4], renewal)
            .prop_map(|(back, renewal)| Choice::Answer(back, renewal)),
        2 => Just(Choice::Passed),
        1 => any::<bool>().prop_map(Choice::Release),
        1 => any::<bool>().prop_map(Choice::Stop),
        2 => answer.prop_map(Choice::HandedOver),
        1 => Just(Choice::Struck),
        1 => Just(Choice::Dead),
    ];
    (prop_oneof![4 => 0_u64..700, 4 => 700_u64..2_100, 1 => 0_u64..15_000], choice)
}

/// What a second account of the same events, kept by simpler means, knows.
struct Ledger {
    timers: Timers,
    /// When each call was sent.
    sent: Vec<BootTime>,
    /// When the last one was sent that was granted in time, or the lease asked for.
    granted: BootTime,
    passed: Option<BootTime>,
    over: bool,
    readied: bool,
}

impl Ledger {
    fn event(&self, choice: &Choice) -> Event {
        match choice {
            Choice::Wake => Event::Wake,
            Choice::Answer(back, renewal) => {
                let call = (self.sent.len() as u64).saturating_sub(*back);
                renewed(call, *renewal)
            }
            Choice::Passed => Event::Passed,
            Choice::Release(empty) => release(*empty),
            Choice::Stop(empty) => Event::StopAsked { empty: *empty },
            Choice::HandedOver(answer) => Event::HandedOver(*answer),
            Choice::Struck => Event::Struck,
            Choice::Dead => Event::Dead,
        }
    }

    /// Whether the event is a grant that counts.
    fn grants(&self, now: BootTime, event: &Event) -> bool {
        let Event::Renewed { call, renewal: Renewal::Granted } = event else { return false };
        let newest = *call == self.sent.len() as u64;
        let sent = newest.then(|| self.sent.last()).flatten();
        sent.is_some_and(|sent| now.since(*sent) < self.timers.answer_within)
            && now < self.granted + self.timers.fence_after
    }

    fn check(&mut self, now: BootTime, event: &Event, actions: &[Action]) -> Result<(), String> {
        let due = now >= self.granted + self.timers.fence_after;
        let fences = actions.iter().any(|action| matches!(action, Action::Fence(_)));
        let timed = self.timers.store_loss == StoreLoss::Fence || !self.readied;
        if due && timed && !self.over && !fences {
            return Err("S2: the deadline passed without a fence".to_owned());
        }
        for action in actions {
            match action {
                Action::Renew { .. } | Action::HandOver { .. } | Action::Ready if self.over => {
                    return Err(format!("{action:?} of a tenure that was fenced or released"));
                }
                Action::Renew { .. } if fences => return Err("renewed while fencing".to_owned()),
                Action::Feed if !fences && !self.may_feed(now, event) => {
                    return Err(format!("S25: fed by {event:?}"));
                }
                Action::Ready if !self.grants(now, event) || self.readied => {
                    return Err(format!("ready by {event:?}"));
                }
                Action::HandOver { .. } if !self.may_release(now, event) => {
                    return Err(format!("released by {event:?}"));
                }
                _ => {}
            }
        }
        if !self.over && self.grants(now, event) {
            self.granted = *self.sent.last().unwrap();
        }
        for action in actions {
            match action {
                Action::Renew { .. } => self.sent.push(now),
                Action::Ready => self.readied = true,
                Action::Fence(_) | Action::Exit(_) => self.over = true,
                _ => {}
            }
        }
        if matches!(event, Event::Passed) {
            self.passed = Some(now);
        }
        Ok(())
    }

    fn may_feed(&self, now: BootTime, event: &Event) -> bool {
        let holds = self.timers.store_loss == StoreLoss::Hold && self.readied;
        !self.over && (holds || self.grants(now, event))
    }

    fn may_release(&self, now: BootTime, event: &Event) -> bool {
        match event {
            Event::ReleaseAsked { empty, .. } => {
                *empty && self.passed.is_none_or(|passed| now >= passed + PASS_SETTLES)
            }
            Event::StopAsked { empty } => *empty,
            _ => false,
        }
    }

    fn agrees(&self, now: BootTime, guard: &Guard) -> Result<(), String> {
        let until = self.granted + self.timers.fence_after;
        if guard.deadline().is_some_and(|deadline| deadline > until) {
            return Err(format!("S2: a deadline of {:?} after {until}", guard.deadline()));
        }
        let timed = self.timers.store_loss == StoreLoss::Fence;
        if timed && guard.valid(now) > until.since(now) {
            return Err(format!("S3: valid for {:?} at {now}", guard.valid(now)));
        }
        if self.over && (guard.deadline().is_some() || !guard.valid(now).is_zero()) {
            return Err("a tenure that is over is valid".to_owned());
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_rule_is_broken_whatever_happens(
        holds in any::<bool>(),
        choices in prop::collection::vec(choice(), 1..80),
    ) {
        let store_loss = if holds { StoreLoss::Hold } else { StoreLoss::Fence };
        let timers = Timers { store_loss, ..TIMERS };
        let mut guard = guard(timers);
        let mut ledger = Ledger {
            timers, sent: Vec::new(), granted: at(900), passed: None, over: false, readied: false,
        };
        let mut now = at(1_000);
        for (pause, choice) in choices {
            now = now + ms(pause);
            let event = ledger.event(&choice);
            let actions = guard.handle(now, event.clone());
            let kept = ledger.check(now, &event, &actions).and(ledger.agrees(now, &guard));
            prop_assert!(kept.is_ok(), "{} at {now} after {event:?}", kept.unwrap_err());
        }
    }
}
