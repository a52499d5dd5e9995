//! The attempt to stop the units ended.

use super::*;

#[test]
fn it_matters_only_while_they_are_being_stopped() {
    ignored_but_in(&[Kind::Stopping], &Event::UnitsStopped { fault: None });
}

#[test]
fn stopped_units_end_the_tenure() {
    let mut stage = Stage::in_state(Kind::Stopping);
    let over = Memory { max_epoch: Epoch(3), ..memory(Progress::Over) };
    assert_eq!(
        stage.after(0, Event::UnitsStopped { fault: None })[..3],
        [
            Action::Remember(over),
            Action::Tell(Notice::UnitsStopped),
            moved(Kind::Stopping, Kind::Standby, Why::Stopped),
        ]
    );
}

#[test]
fn units_that_do_not_stop_are_a_critical_alert() {
    let mut stage = Stage::in_state(Kind::Stopping);
    let fault = "hangs".to_owned();
    assert_eq!(
        stage.after(0, Event::UnitsStopped { fault: Some(fault.clone()) }),
        [Action::Tell(Notice::StopFailed { fault })]
    );
    assert_eq!(stage.after(0, Event::UnitsStopped { fault: None }), [], "of an earlier attempt");
    assert_eq!(stage.engine.kind(), Kind::Stopping);
}
