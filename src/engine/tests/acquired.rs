//! The store answered to an acquisition.

use super::*;

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let granted = Event::Acquired { nonce: NONCE, answer: Answer::Granted(Epoch(2)) };
    ignored_but_in(&[Kind::Acquiring], &granted);
    let mut stage = Stage::in_state(Kind::Acquiring);
    let other = Event::Acquired { nonce: Nonce(9), answer: Answer::Granted(Epoch(2)) };
    assert_eq!(stage.after(0, other), []);
}

#[test]
fn a_grant_begins_the_first_step() {
    let mut stage = Stage::in_state(Kind::Acquiring);
    assert_eq!(
        stage.granted(),
        [
            Action::Tell(Notice::Acquired { epoch: Epoch(2), cause: Cause::Automatic }),
            Action::Remember(memory(Progress::At(Step::Promote))),
            moved(Kind::Acquiring, Kind::Promoting, Why::Granted),
            run(Step::Promote, false),
        ]
    );
}

#[test]
fn a_refusal_is_tried_again_at_the_next_read_and_told_when_that_does_not_help() {
    let mut stage = Stage::in_state(Kind::Acquiring);
    let why = "denied".to_owned();
    assert_eq!(
        stage.answer(Answer::Refused(why.clone())),
        [
            Action::Tell(Notice::Refused { why: why.clone() }),
            moved(Kind::Acquiring, Kind::Standby, Why::Refused),
        ]
    );
    stage.read();
    stage.answer_check();
    let nonce = Nonce(NONCE.0 + 1);
    let actions = stage.after(0, Event::Acquired { nonce, answer: Answer::Refused(why) });
    assert!(tells!(actions, Notice::Blocked { .. }), "{actions:?}");
}

#[test]
fn a_refusal_because_something_changed_starts_the_window_again() {
    let mut stage = Stage::in_state(Kind::Acquiring);
    stage.answer(Answer::RefusedChanged("a bot beats".to_owned()));
    stage.read_after(10_000, 0);
    assert_eq!(stage.engine.kind(), Kind::Standby);
}

#[test]
fn an_unknown_answer_keeps_its_nonce() {
    let mut stage = Stage::in_state(Kind::Acquiring);
    let unknown = Answer::Unknown("reset".to_owned());
    let actions = stage.answer(unknown);
    assert_eq!(actions[1], moved(Kind::Acquiring, Kind::Standby, Why::NoAnswer));
    stage.read();
    let again = stage.answer_check();
    assert!(matches!(&again[1], Action::Acquire(question) if question.nonce == NONCE), "{again:?}");
}

#[test]
fn an_unknown_answer_that_was_a_grant_goes_on() {
    let mut stage = Stage::in_state(Kind::Acquiring);
    stage.answer(Answer::Unknown("reset".to_owned()));
    stage.ours();
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Promoting);
}
