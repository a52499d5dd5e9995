//! An attempt of a step ended.

use super::*;

#[test]
fn an_answer_of_another_step_or_tenure_changes_nothing() {
    let promoted =
        Event::StepEnded { epoch: Epoch(2), step: Step::Promote, outcome: Outcome::Done };
    ignored_but_in(&[Kind::Promoting], &promoted);
    let mut stage = Stage::in_state(Kind::Promoting);
    let other = Event::StepEnded { epoch: Epoch(1), step: Step::Promote, outcome: Outcome::Done };
    assert_eq!(stage.after(0, other), []);
    assert_eq!(stage.step(Step::Flip, Outcome::Done), []);
}

#[test]
fn a_step_that_is_done_is_followed_by_the_next() {
    let mut stage = Stage::in_state(Kind::Promoting);
    let done = Notice::StepDone { epoch: Epoch(2), step: Step::Promote, took: ms(0) };
    assert_eq!(
        stage.step(Step::Promote, Outcome::Done),
        [
            Action::Tell(done),
            Action::Remember(memory(Progress::At(Step::Flip))),
            run(Step::Flip, false),
        ]
    );
}

#[test]
fn a_step_that_is_done_but_not_well_is_told_and_followed() {
    let mut stage = Stage::in_state(Kind::Promoting);
    let actions = stage.step(Step::Promote, Outcome::DoneBut("hm".to_owned()));
    assert!(tells!(actions, Notice::StepWarning { .. }));
    assert_eq!(actions.last(), Some(&run(Step::Flip, false)));
}

#[test]
fn the_third_failure_calls_a_person() {
    let mut stage = Stage::in_state(Kind::Promoting);
    let fault = "no".to_owned();
    for attempts in 1..=2 {
        let failed = Notice::StepFailed {
            epoch: Epoch(2),
            step: Step::Promote,
            attempts,
            fault: fault.clone(),
        };
        let actions = stage.step(Step::Promote, Outcome::Failed(fault.clone()));
        assert_eq!(actions, [Action::Tell(failed)]);
        stage.after(1_000, Event::Wake);
        stage.read();
    }
    let actions = stage.step(Step::Promote, Outcome::Failed(fault.clone()));
    assert_eq!(
        actions[1..],
        [
            moved(Kind::Promoting, Kind::Degraded, Why::StepFailed),
            Action::Tell(Notice::Degraded { epoch: Epoch(2), step: Step::Promote, fault }),
        ]
    );
}

#[test]
fn a_degraded_takeover_goes_on_when_its_step_succeeds() {
    let mut stage = Stage::in_state(Kind::Degraded);
    stage.after(15_000, Event::Wake);
    stage.read();
    let actions = stage.step(Step::Promote, Outcome::Done);
    assert_eq!(
        actions[1..],
        [
            Action::Remember(memory(Progress::At(Step::Flip))),
            moved(Kind::Degraded, Kind::Promoting, Why::Mended),
            run(Step::Flip, false),
        ]
    );
}
