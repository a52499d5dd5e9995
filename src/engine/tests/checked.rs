//! This node was checked.

use super::*;

#[test]
fn a_clean_check_changes_nothing_but_in_checking() {
    ignored_but_in(&[Kind::Checking], &Event::Checked { problems: Vec::new() });
}

#[test]
fn a_clean_check_asks_for_the_lease_with_the_evidence() {
    let mut stage = Stage::in_state(Kind::Checking);
    let actions = stage.answer_check();
    assert_eq!(actions[0], moved(Kind::Checking, Kind::Acquiring, Why::Ready));
    let [_, Action::Acquire(question)] = &actions[..] else { panic!("{actions:?}") };
    let remembered = Memory { max_epoch: Epoch(1), ..memory(Progress::Asked) };
    assert_eq!(question.cause, Cause::Automatic);
    assert_eq!(question.nonce, NONCE);
    assert_eq!(question.expected, stage.lease);
    assert_eq!(question.min_epoch, Epoch(1));
    assert_eq!(question.seen_at, stage.now.to_string());
    assert_eq!(question.heartbeats, [Some("a".to_owned()), Some("a".to_owned())]);
    assert_eq!(question.silent_for, ms(60_000));
    assert_eq!(question.memory, remembered);
}

#[test]
fn a_problem_ends_the_takeover_before_it_begins_and_is_told_once() {
    let problems = vec!["no disk".to_owned()];
    let mut stage = Stage::in_state(Kind::Checking);
    let actions = stage.after(0, Event::Checked { problems: problems.clone() });
    assert_eq!(
        actions,
        [
            Action::Tell(Notice::NotReady { problems: problems.clone() }),
            moved(Kind::Checking, Kind::Standby, Why::NotReady),
            Action::Tell(Notice::Blocked {
                why: "this node could not run the group: no disk".to_owned()
            }),
        ]
    );
    stage.read_after(5_000, 0);
    assert_eq!(stage.engine.kind(), Kind::Checking, "it is tried again");
    let again = stage.after(0, Event::Checked { problems });
    assert_eq!(again, [moved(Kind::Checking, Kind::Standby, Why::NotReady)]);
}

#[test]
fn a_standstill_during_the_check_voids_the_evidence() {
    let mut stage = Stage::in_state(Kind::Checking);
    stage.after(25_001, Event::Checked { problems: Vec::new() });
    assert_eq!(stage.engine.kind(), Kind::Standby);
}
