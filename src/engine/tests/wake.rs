//! Time passed.

use super::*;

#[test]
fn nothing_is_done_before_its_time_in_any_state() {
    ignored_but_in(&[], &Event::Wake);
}

#[test]
fn a_standby_is_checked_every_ten_seconds() {
    let mut stage = Stage::in_state(Kind::Standby);
    assert_eq!(stage.after(9_999, Event::Wake), []);
    assert_eq!(
        stage.after(1, Event::Wake),
        [Action::Check { deadline: CHECK_DEADLINE, primary_silent: false }]
    );
    assert_eq!(stage.after(10_001, Event::Wake), [], "one check at a time");
}

#[test]
fn a_standstill_of_just_the_gap_is_none() {
    for (pause, lost) in [(24_999, false), (25_000, false), (25_001, true)] {
        let mut stage = Stage::in_state(Kind::Active);
        let actions = stage.after(pause, Event::Wake);
        assert_eq!(tells!(actions, Notice::Unknown { .. }), lost, "after {pause} ms");
    }
}

#[test]
fn a_person_is_called_at_the_instant_that_blindness_is_too_long() {
    for (pause, told) in [(19_999, false), (20_000, true), (20_001, true)] {
        let mut stage = Stage::in_state(Kind::Standby);
        stage.fail();
        for _ in 0..5 {
            stage.after(20_000, Event::Wake);
        }
        let actions = stage.after(pause, Event::Wake);
        assert_eq!(tells!(actions, Notice::Blind { .. }), told, "after 100 s and {pause} ms");
        assert!(!tells!(stage.after(1_000, Event::Wake), Notice::Blind { .. }) || !told, "twice");
    }
}

#[test]
fn a_failed_step_is_tried_again_when_its_pause_is_over() {
    let mut stage = Stage::in_state(Kind::Promoting);
    stage.step(Step::Promote, Outcome::Failed("no".to_owned()));
    assert_eq!(stage.after(499, Event::Wake), []);
    assert_eq!(stage.after(1, Event::Wake), [run(Step::Promote, true)]);
    stage.step(Step::Promote, Outcome::Failed("no".to_owned()));
    assert_eq!(stage.after(499, Event::Wake), []);
    stage.read();
    assert_eq!(stage.after(500, Event::Wake), []);
    assert_eq!(stage.after(1, Event::Wake), [run(Step::Promote, true)]);
}

#[test]
fn a_degraded_step_is_tried_again_every_fifteen_seconds() {
    let mut stage = Stage::in_state(Kind::Degraded);
    assert_eq!(stage.after(14_999, Event::Wake), []);
    assert_eq!(stage.after(1, Event::Wake), [], "not by a lease that was seen 15 s ago");
    assert_eq!(stage.read().last(), Some(&run(Step::Promote, true)));
}

#[test]
fn a_step_waits_for_a_read_when_the_lease_was_not_seen_for_a_window() {
    let mut stage = Stage::in_state(Kind::Promoting);
    stage.after(59_999, Event::Wake);
    let in_time = stage.step(Step::Promote, Outcome::Done);
    assert_eq!(in_time.last(), Some(&run(Step::Flip, false)));

    let mut stage = Stage::in_state(Kind::Promoting);
    stage.after(60_000, Event::Wake);
    let actions = stage.step(Step::Promote, Outcome::Done);
    assert_eq!(actions.last(), Some(&Action::Remember(memory(Progress::At(Step::Flip)))));
    let soon = stage.engine.wants_read_at().expect("it wants to know");
    assert!(soon <= stage.engine.next_deadline());
    assert_eq!(stage.read().last(), Some(&run(Step::Flip, false)), "still ours");
}

#[test]
fn a_person_is_called_when_no_bot_beats_within_the_deadline() {
    for (pause, degraded) in [(9_999, false), (10_000, true), (10_001, true)] {
        let mut stage = Stage::in_state(Kind::Promoting);
        for step in [Step::Promote, Step::Flip, Step::Start] {
            stage.step(step, Outcome::Done);
        }
        stage.after(20_000, Event::Wake);
        let actions = stage.after(pause, Event::Wake);
        let edge = moved(Kind::Promoting, Kind::Degraded, Why::StepFailed);
        assert_eq!(actions.contains(&edge), degraded, "after 20 s and {pause} ms");
        assert_eq!(tells!(actions, Notice::Degraded { .. }), degraded);
    }
}

#[test]
fn units_that_did_not_stop_are_stopped_again() {
    let mut stage = Stage::in_state(Kind::Stopping);
    stage.after(0, Event::UnitsStopped { fault: Some("hangs".to_owned()) });
    assert_eq!(stage.after(14_999, Event::Wake), []);
    assert_eq!(stage.after(1, Event::Wake), [Action::StopUnits { deadline: STOP_DEADLINE }]);
}

#[test]
fn the_next_deadline_is_never_so_late_that_it_would_look_like_a_standstill() {
    for kind in Kind::ALL {
        let stage = Stage::in_state(kind);
        let latest = BootTime::from_duration(ms(stage.now + 25_000));
        assert!(stage.engine.next_deadline() <= latest, "while {kind}");
    }
}
