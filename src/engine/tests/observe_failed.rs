//! The store could not be read.

use super::*;

#[test]
fn not_knowing_is_told_once_and_changes_no_state_but_a_check() {
    for kind in Kind::ALL {
        let mut stage = Stage::in_state(kind);
        let mut expected = vec![Action::Tell(Notice::Unknown { cause: "down".to_owned() })];
        if kind == Kind::Checking {
            expected.push(moved(Kind::Checking, Kind::Standby, Why::CalledOff));
        }
        assert_eq!(stage.fail(), expected, "while {kind}");
        assert_eq!(stage.fail(), [], "while {kind}, again");
    }
}

#[test]
fn the_window_starts_again_with_the_next_good_read() {
    let mut stage = Stage::in_state(Kind::Standby);
    for _ in 0..5 {
        stage.read_after(10_000, 0);
    }
    stage.fail();
    stage.read_after(10_000, 0);
    assert_eq!(stage.engine.kind(), Kind::Standby);
    stage.silence();
    assert_eq!(stage.engine.kind(), Kind::Checking);
}

#[test]
fn a_failing_store_is_not_read_in_a_busy_loop_while_beats_are_awaited() {
    let mut stage = Stage::in_state(Kind::Promoting);
    for step in [Step::Promote, Step::Flip, Step::Start] {
        stage.step(step, Outcome::Done);
    }
    stage.after(5_000, Event::ObserveFailed { fault: "down".to_owned() });
    let next = stage.engine.wants_read_at().expect("it waits for beats");
    assert_eq!(next, BootTime::from_duration(ms(stage.now + 1_000)));
}
