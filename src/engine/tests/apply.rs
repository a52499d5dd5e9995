//! The configuration was loaded again.

use super::*;

fn apply(stage: &mut Stage, policy: Policy) {
    stage.engine.apply(BootTime::from_duration(ms(stage.now)), policy);
}

#[test]
fn other_bots_start_a_new_window_and_call_an_operators_check_off() {
    let mut stage = Stage::in_state(Kind::Standby);
    stage.failover(true);
    let bots = vec!["equity".to_owned(), "bonds".to_owned()];
    apply(&mut stage, Policy { bots, ..policy() });
    stage.answer_check();
    assert_eq!(stage.engine.kind(), Kind::Standby, "what was read is of other bots");
}

#[test]
fn a_takeover_that_may_not_be_automatic_any_more_is_called_off() {
    let mut stage = Stage::in_state(Kind::Checking);
    apply(&mut stage, Policy { automatic: false, ..policy() });
    stage.answer_check();
    assert_eq!(stage.engine.kind(), Kind::Standby);
}

#[test]
fn a_failing_step_that_was_taken_out_of_the_plan_is_left_out() {
    let mut stage = Stage::in_state(Kind::Degraded);
    let mut shorter = policy();
    shorter.plan.remove(0);
    apply(&mut stage, shorter);
    stage.after(15_000, Event::Wake);
    assert_eq!(stage.read().last(), Some(&run(Step::Flip, false)));
}
