//! A person asked for a failover.

use super::*;

/// Whether it was accepted, and what else was done.
fn ask(stage: &mut Stage, force: bool) -> (bool, Vec<Action>) {
    let mut actions = stage.failover(force);
    let place = actions.iter().position(|action| matches!(action, Action::Answer { .. }));
    let Some(Action::Answer { request: 7, accepted, .. }) =
        place.map(|place| actions.remove(place))
    else {
        panic!("no answer in {actions:?}");
    };
    (accepted, actions)
}

#[test]
fn a_takeover_under_way_or_over_is_refused_in_words_and_left_alone() {
    for kind in [Kind::Checking, Kind::Acquiring, Kind::Promoting, Kind::Active, Kind::Stopping] {
        let mut stage = Stage::in_state(kind);
        assert_eq!(ask(&mut stage, true), (false, vec![]), "while {kind}");
    }
}

#[test]
fn a_living_primary_is_taken_over_by_force_only() {
    let mut stage = Stage::in_state(Kind::Standby);
    assert_eq!(ask(&mut stage, false), (false, vec![]));
    let check = Action::Check { deadline: CHECK_DEADLINE, primary_silent: false };
    let moved = moved(Kind::Standby, Kind::Checking, Why::Asked);
    assert_eq!(ask(&mut stage, true), (true, vec![moved, check]));
}

#[test]
fn a_silent_primary_is_taken_over_in_spite_of_cooldown_and_latch() {
    let mut stage = Stage::in_state(Kind::Standby);
    stage.lease.latched = true;
    stage.lease.cooldown_left = Some(ms(1));
    stage.silence();
    assert!(ask(&mut stage, false).0);
}

#[test]
fn a_bot_stopped_on_purpose_is_started_by_force_only() {
    let mut stage = Stage::in_state(Kind::Standby);
    stage.status = "STOPPED";
    stage.silence();
    assert!(!ask(&mut stage, false).0);
    assert!(ask(&mut stage, true).0);
}

#[test]
fn a_hold_is_stronger_than_force() {
    for kind in [Kind::Standby, Kind::Interrupted] {
        let mut stage = Stage::in_state(kind);
        stage.hold();
        stage.read();
        assert_eq!(ask(&mut stage, true), (false, vec![]), "while {kind}");
    }
}

#[test]
fn a_hold_calls_off_what_an_operator_began() {
    let mut stage = Stage::in_state(Kind::Standby);
    ask(&mut stage, true);
    stage.hold();
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Standby);
}

#[test]
fn nothing_is_begun_while_the_store_is_away() {
    let mut stage = Stage::in_state(Kind::Standby);
    stage.fail();
    assert_eq!(ask(&mut stage, true), (false, vec![]));
    assert!(!ask(&mut Stage::new(), true).0, "before the first read");
}

#[test]
fn a_degraded_step_is_tried_at_once() {
    let mut stage = Stage::in_state(Kind::Degraded);
    assert_eq!(ask(&mut stage, false), (true, vec![run(Step::Promote, true)]));
}

#[test]
fn an_interrupted_takeover_goes_on_at_once_unless_the_bots_beat() {
    let mut stage = Stage::in_state(Kind::Interrupted);
    let (accepted, actions) = ask(&mut stage, false);
    assert!(accepted);
    assert_eq!(actions.last(), Some(&run(Step::Promote, true)));

    let mut stage = Stage::in_state(Kind::Interrupted);
    stage.heartbeat = "b";
    stage.read();
    assert_eq!(ask(&mut stage, false), (false, vec![]));
    assert!(ask(&mut stage, true).0);
}

#[test]
fn a_forced_failover_that_is_refused_does_not_forget_the_units_of_an_earlier_tenure() {
    let mut stage = Stage::restarted(Progress::Complete, false);
    stage.read(); // The store went back to epoch 1.
    assert!(ask(&mut stage, true).0);
    stage.answer_check();
    stage.answer(Answer::Refused("the evidence is old".to_owned()));
    stage.lease.epoch = Epoch(3);
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Stopping);
}

/// The store is restored to before our tenure.
fn forget(stage: &mut Stage) {
    stage.lease.epoch = Epoch(1);
    stage.lease.nonce = None;
    stage.lease.holder = Some("alpha".to_owned());
    stage.read();
}

#[test]
fn a_tenure_that_the_store_forgot_is_asked_for_again_without_a_check() {
    let ways = [
        (Kind::Active, Progress::Complete),
        (Kind::Degraded, Progress::At(Step::Promote)),
        (Kind::Interrupted, Progress::At(Step::Fence)),
    ];
    for (kind, progress) in ways {
        let mut stage = Stage::in_state(kind);
        forget(&mut stage);
        assert_eq!(ask(&mut stage, false), (false, vec![]), "{kind}");
        let (accepted, actions) = ask(&mut stage, true);
        assert!(accepted, "{kind}");
        let Some(Action::Acquire(question)) = actions.last() else { panic!("{actions:?}") };
        assert_eq!((question.nonce, question.min_epoch), (NONCE, Epoch(2)));
        assert_eq!(question.memory.progress, progress, "a crash must not forget the units");
        let actions = stage.answer(Answer::Granted(Epoch(3)));
        let token = Token { epoch: Epoch(3), nonce: NONCE };
        let run = Action::Run { token, step: Step::Promote, again: true, deadline: ms(30_000) };
        assert_eq!(actions.last(), Some(&run), "its Redis is a master already");
    }
}

#[test]
fn a_tenure_that_the_store_forgot_is_not_asked_for_in_the_middle_of_a_step_or_under_a_hold() {
    let mut stage = Stage::in_state(Kind::Promoting);
    forget(&mut stage);
    assert_eq!(ask(&mut stage, true), (false, vec![]));
    let mut stage = Stage::in_state(Kind::Active);
    stage.hold();
    forget(&mut stage);
    assert_eq!(ask(&mut stage, true), (false, vec![]));
}

#[test]
fn a_tenure_that_the_store_forgot_and_refuses_is_still_remembered() {
    let mut stage = Stage::in_state(Kind::Active);
    forget(&mut stage);
    assert!(ask(&mut stage, true).0);
    stage.answer(Answer::Refused("the evidence is old".to_owned()));
    assert_eq!(stage.engine.kind(), Kind::Standby);
    // The server that has it is back.
    stage.ours();
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Active);
}
