//! What the engine says of its own decision.

use super::*;

fn explained(stage: &Stage) -> (bool, String) {
    let explanation = stage.engine.explain(BootTime::from_duration(ms(stage.now)));
    (explanation.would_act, explanation.sentence)
}

/// The conditions that do not hold.
fn missing(stage: &Stage) -> Vec<String> {
    let explanation = stage.engine.explain(BootTime::from_duration(ms(stage.now)));
    let missing = explanation.conditions.into_iter().filter(|condition| !condition.holds);
    missing.map(|condition| condition.text).collect()
}

#[test]
fn a_primary_that_lives_is_named_with_its_last_heartbeat() {
    let mut stage = Stage::in_state(Kind::Standby);
    stage.read_after(2_000, 0);
    stage.heartbeat = "b";
    stage.read_after(2_000, 0);
    stage.now += 4_000;
    let answer = "would not fail over: heartbeat of equity changed 4 s ago; silent in 56 s";
    assert_eq!(explained(&stage), (false, answer.to_owned()));
    assert_eq!(
        missing(&stage),
        [
            "equity is silent: unchanged for 4 s of 60 s",
            "crypto is silent: unchanged for 4 s of 60 s"
        ]
    );
}

#[test]
fn what_is_not_known_is_no_silence() {
    let stage = Stage::new();
    let (acts, answer) = explained(&stage);
    assert!(!acts && answer.contains("nobody can tell whether the primary lives"), "{answer}");
    let mut stage = Stage::in_state(Kind::Standby);
    stage.fail();
    let (acts, answer) = explained(&stage);
    assert!(!acts && answer.ends_with("lives: down"), "{answer}");
    assert_eq!(missing(&stage)[0], "the store is in sight: not for 0 ms: down");
}

#[test]
fn silence_that_is_not_acted_upon_says_why() {
    let mut stage = Stage::in_state(Kind::Standby);
    stage.hold();
    stage.silence();
    let (acts, answer) = explained(&stage);
    assert!(!acts && answer.contains("although silent"), "{answer}");
    assert!(answer.ends_with("held by ann until released: work"), "{answer}");
    assert_eq!(missing(&stage), ["nobody said not to act: held by ann until released: work"]);
    let mut stage = Stage::with(Policy { automatic: false, ..policy() }, None);
    stage.read();
    stage.answer_check();
    stage.silence();
    let [permission] = missing(&stage).try_into().unwrap();
    assert!(permission.starts_with("it may take over by itself: it only alerts"), "{permission}");
}

#[test]
fn an_unfit_node_says_what_it_lacks() {
    let mut stage = Stage::in_state(Kind::Standby);
    stage.after(10_000, Event::Wake);
    stage.after(0, Event::Checked { problems: vec!["redis: no link".to_owned()] });
    assert_eq!(
        missing(&stage).last().unwrap(),
        "this node could run the group: no: redis: no link"
    );
}

#[test]
fn a_takeover_under_way_says_so() {
    for kind in [Kind::Checking, Kind::Acquiring] {
        assert!(explained(&Stage::in_state(kind)).0, "{kind}");
    }
    for kind in [Kind::Promoting, Kind::Active, Kind::Interrupted, Kind::Stopping] {
        let (acts, answer) = explained(&Stage::in_state(kind));
        assert!(!acts && answer.starts_with("would not fail over: "), "{kind}: {answer}");
    }
}
