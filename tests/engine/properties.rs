//! What holds for any sequence of events at any times.

use proptest::prelude::*;
use understudy::engine::event::{Acquire, Action};

use crate::walk::{Choice, Guise, PLAIN, Walk};

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    prop::collection::vec(any::<Choice>(), 1..120)
}

/// What the engine did, without what a person or another machine called the same things.
fn decisions(guise: Guise, choices: &[Choice]) -> Vec<Action> {
    let mut walk = Walk::new(guise);
    for choice in choices {
        walk.choose(*choice).expect("the rules are kept");
    }
    for action in &mut walk.actions {
        if let Action::Acquire(Acquire { seen_at, heartbeats, .. }) = action {
            seen_at.clear();
            heartbeats.clear();
        }
    }
    walk.actions
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::Direct(
                "tests/engine/properties.regressions",
            ),
        )),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_rule_is_broken_whatever_happens(choices in choices()) {
        let mut walk = Walk::new(PLAIN);
        for choice in choices {
            if let Err(rule) = walk.choose(choice) {
                prop_assert!(false, "{rule}");
            }
        }
    }

    #[test]
    fn no_clock_and_no_spelling_decides_anything(choices in choices()) {
        let plain = decisions(PLAIN, &choices);
        let later = Guise { boot_at: 987_654_321, ..PLAIN };
        let spelt = Guise {
            heartbeat: |beat| format!("2031-02-01 00:00:00.{:03}+13", 999 - beat),
            ..PLAIN
        };
        let aged = Guise { age_ms: Some(-3_600_000), seen_at: "yesterday", ..PLAIN };
        let ageless = Guise { age_ms: None, ..PLAIN };
        for guise in [later, spelt, aged, ageless] {
            prop_assert_eq!(&plain, &decisions(guise, &choices));
        }
    }
}
