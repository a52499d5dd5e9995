//! The store was read.

use super::*;

#[test]
fn a_read_without_news_does_nothing_in_any_state() {
    for kind in Kind::ALL {
        let mut stage = Stage::in_state(kind);
        if kind == Kind::Checking || kind == Kind::Acquiring {
            // The evidence is as good as before.
            assert_eq!(stage.read(), [], "while {kind}");
        } else {
            stage.read();
            assert_eq!(stage.read(), [], "while {kind}");
        }
        assert_eq!(stage.engine.kind(), kind);
    }
}

#[test]
fn silence_counts_from_the_arrival_of_the_first_read_to_the_sending_of_the_last() {
    for (pause, took, silent) in
        [(9_999, 0, false), (9_999, 1_000, false), (10_000, 0, true), (10_001, 2_000, true)]
    {
        let mut stage = Stage::new();
        stage.read_after(0, 1_500);
        for _ in 0..5 {
            stage.read_after(10_000, 0);
        }
        let actions = stage.read_after(pause, took);
        let edge = moved(Kind::Standby, Kind::Checking, Why::Silent);
        assert_eq!(actions.contains(&edge), silent, "sent {pause} ms later, took {took} ms");
    }
}

#[test]
fn the_store_is_to_be_read_at_the_instant_that_the_window_is_full() {
    let mut stage = Stage::new();
    stage.read_after(0, 700);
    let full = BootTime::from_duration(ms(stage.now + 60_000));
    assert_eq!(stage.engine.wants_read_at(), Some(full));
}

#[test]
fn a_full_window_of_silence_asks_for_a_check_of_this_node() {
    let mut stage = Stage::in_state(Kind::Standby);
    let actions = stage.silence();
    assert_eq!(
        actions,
        [
            Action::Tell(Notice::Stale { bots: "equity for 60 s, crypto for 60 s".to_owned() }),
            moved(Kind::Standby, Kind::Checking, Why::Silent),
            Action::Check { deadline: CHECK_DEADLINE, primary_silent: true },
        ]
    );
}

#[test]
fn a_late_reply_proves_nothing() {
    for (took, late) in [(1_999, false), (2_000, false), (2_001, true)] {
        let mut stage = Stage::in_state(Kind::Standby);
        let actions = stage.read_after(0, took);
        assert_eq!(tells!(actions, Notice::Unknown { .. }), late, "took {took} ms");
    }
}

#[test]
fn a_late_reply_does_not_make_a_lease_ours() {
    let mut stage = Stage::restarted(Progress::At(Step::Flip), true);
    stage.ours();
    stage.read_after(0, 2_001);
    assert_eq!(stage.engine.kind(), Kind::Standby);
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Promoting);
}

#[test]
fn a_pause_of_more_than_the_gap_between_two_reads_starts_the_window_again() {
    for (pause, restarted) in [(24_999, false), (25_000, false), (25_001, true)] {
        let mut stage = Stage::in_state(Kind::Standby);
        // The loop turns meanwhile: only the reads are far apart.
        stage.after(pause / 2, Event::Wake);
        let actions = stage.read_after(pause - pause / 2, 0);
        assert_eq!(tells!(actions, Notice::WindowRestarted { .. }), restarted, "{pause} ms");
    }
}

#[test]
fn another_store_starts_the_window_again() {
    let mut stage = Stage::in_state(Kind::Standby);
    stage.store = "t";
    assert!(tells!(stage.read(), Notice::WindowRestarted { .. }));
}

#[test]
fn an_obstacle_is_told_once_and_nothing_is_done() {
    let obstacles: [fn(&mut Stage); 4] = [
        Stage::hold,
        |stage| stage.lease.latched = true,
        |stage| stage.status = "STOPPED",
        |stage| stage.lease.cooldown_left = Some(ms(1)),
    ];
    for obstacle in obstacles {
        let mut stage = Stage::in_state(Kind::Standby);
        obstacle(&mut stage);
        let actions = stage.silence();
        assert!(tells!(actions, Notice::Blocked { .. }), "{actions:?}");
        assert_eq!(stage.read(), []);
        assert_eq!(stage.engine.kind(), Kind::Standby);
    }
}

#[test]
fn the_end_of_a_hold_starts_a_new_window_and_that_of_the_cooldown_does_not() {
    let mut held = Stage::in_state(Kind::Standby);
    held.hold();
    held.silence();
    held.lease.hold = None;
    assert!(tells!(held.read(), Notice::WindowRestarted { .. }));
    assert_eq!(held.engine.kind(), Kind::Standby);

    let mut cooling = Stage::in_state(Kind::Standby);
    cooling.lease.cooldown_left = Some(ms(1));
    cooling.silence();
    cooling.lease.cooldown_left = None;
    cooling.read();
    assert_eq!(cooling.engine.kind(), Kind::Checking);
}

#[test]
fn a_beat_calls_a_check_off() {
    let mut stage = Stage::in_state(Kind::Checking);
    stage.heartbeat = "b";
    assert_eq!(
        stage.read(),
        [Action::Tell(Notice::Fresh), moved(Kind::Checking, Kind::Standby, Why::CalledOff)]
    );
}

#[test]
fn a_lower_epoch_is_a_store_that_went_back() {
    let mut stage = Stage::in_state(Kind::Active);
    stage.lease.epoch = Epoch(1);
    stage.lease.nonce = None;
    let actions = stage.read();
    assert!(tells!(actions, Notice::Unknown { .. }));
    assert_eq!(stage.engine.kind(), Kind::Active, "nobody is known to have the group instead");
}

#[test]
fn a_later_tenure_stops_the_units_here() {
    for kind in [Kind::Promoting, Kind::Degraded, Kind::Active, Kind::Interrupted] {
        let mut stage = Stage::in_state(kind);
        stage.read();
        stage.lease.epoch = Epoch(3);
        stage.lease.nonce = None;
        stage.lease.holder = Some("gamma".to_owned());
        let actions = stage.read();
        let superseded =
            Notice::Superseded { epoch: Epoch(2), by_epoch: Epoch(3), by: "gamma".to_owned() };
        let expected = [
            Action::Tell(superseded),
            moved(kind, Kind::Stopping, Why::Superseded),
            Action::StopUnits { deadline: STOP_DEADLINE },
        ];
        assert!(actions.ends_with(&expected), "while {kind}: {actions:?}");
    }
}

#[test]
fn the_same_epoch_with_another_nonce_is_another_tenure() {
    let mut stage = Stage::in_state(Kind::Active);
    stage.lease.nonce = Some(Nonce(9));
    stage.lease.holder = Some("gamma".to_owned());
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Stopping);
}

#[test]
fn a_read_that_was_on_its_way_when_the_lease_was_asked_for_is_not_a_store_that_went_back() {
    let mut stage = Stage::in_state(Kind::Acquiring);
    let sent = BootTime::from_duration(ms(stage.now - 1));
    let observation = stage.observation();
    stage.granted();
    assert_eq!(stage.after(10, Event::Observed { sent, observation }), []);
}

#[test]
fn a_recent_takeover_goes_on_where_it_was() {
    let mut stage = Stage::restarted(Progress::At(Step::Flip), true);
    stage.ours();
    let actions = stage.read();
    let expected = [
        Action::Tell(Notice::Resumed { epoch: Epoch(2), step: Step::Flip }),
        Action::Remember(memory(Progress::At(Step::Flip))),
        moved(Kind::Standby, Kind::Promoting, Why::Resumed),
        run(Step::Flip, true),
    ];
    assert_eq!(actions[..4], expected);
}

#[test]
fn a_takeover_is_not_recent_any_more_when_the_store_comes_back_late() {
    for (blind, kind) in [(4_999, Kind::Promoting), (5_000, Kind::Interrupted)] {
        let mut stage = Stage::restarted(Progress::At(Step::Flip), true);
        stage.ours();
        for _ in 0..5 {
            stage.after(500, Event::ObserveFailed { fault: "down".to_owned() });
        }
        stage.read_after(blind - 2_500, 0);
        assert_eq!(stage.engine.kind(), kind, "after {blind} ms");
    }
}

#[test]
fn a_complete_takeover_is_adopted_as_it_is() {
    let mut stage = Stage::restarted(Progress::Complete, false);
    stage.ours();
    let actions = stage.read();
    assert_eq!(
        actions[..2],
        [
            Action::Tell(Notice::Adopted { epoch: Epoch(2), units_active: true }),
            moved(Kind::Standby, Kind::Active, Why::Adopted),
        ]
    );
}

#[test]
fn an_old_takeover_waits_for_a_window_of_silence() {
    let mut stage = Stage::in_state(Kind::Interrupted);
    stage.silence();
    assert_eq!(stage.engine.kind(), Kind::Promoting);
}

#[test]
fn an_old_takeover_is_left_alone_while_the_bots_beat() {
    let mut stage = Stage::in_state(Kind::Interrupted);
    stage.heartbeat = "b";
    assert_eq!(stage.read(), [Action::Tell(Notice::Contested { epoch: Epoch(2) })]);
}

#[test]
fn units_of_a_tenure_that_ended_while_nobody_was_here_are_stopped() {
    let mut stage = Stage::restarted(Progress::Complete, false);
    stage.lease.epoch = Epoch(3);
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Stopping);

    let mut stage = Stage::restarted(Progress::Over, false);
    stage.lease.epoch = Epoch(3);
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Standby, "they were stopped before");
}

#[test]
fn a_read_for_another_list_of_bots_says_nothing() {
    let mut stage = Stage::in_state(Kind::Standby);
    let mut observation = stage.observation();
    observation.bots.pop();
    let sent = BootTime::from_duration(ms(stage.now));
    let actions = stage.after(0, Event::Observed { sent, observation });
    assert!(tells!(actions, Notice::Unknown { .. }));
}

#[test]
fn beats_of_every_bot_complete_the_takeover() {
    let mut stage = Stage::in_state(Kind::Promoting);
    for step in [Step::Promote, Step::Flip, Step::Start] {
        stage.step(step, Outcome::Done);
    }
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Promoting, "the old value is no beat");
    stage.heartbeat = "b";
    let actions = stage.read_after(1_000, 0);
    let steps = vec![
        (Step::Promote, ms(0)),
        (Step::Flip, ms(0)),
        (Step::Start, ms(0)),
        (Step::Beat, ms(1_000)),
    ];
    assert_eq!(
        actions,
        [
            Action::Tell(Notice::Fresh),
            Action::Tell(Notice::StepDone { epoch: Epoch(2), step: Step::Beat, took: ms(1_000) }),
            Action::Remember(memory(Progress::Complete)),
            moved(Kind::Promoting, Kind::Active, Why::Complete),
            Action::Tell(Notice::Completed { epoch: Epoch(2), took: ms(1_000), steps }),
        ]
    );
}

#[test]
fn silence_of_our_own_bots_is_told_and_nothing_is_done() {
    let mut stage = Stage::in_state(Kind::Active);
    let actions = stage.silence();
    assert!(tells!(actions, Notice::ActiveSilent { .. }), "{actions:?}");
    stage.heartbeat = "c";
    assert_eq!(stage.read(), [Action::Tell(Notice::ActiveBeats)]);
}

#[test]
fn a_start_that_was_interrupted_long_ago_goes_on_if_all_units_run_here() {
    let recalled = Recalled {
        memory: memory(Progress::At(Step::Start)),
        recent: false,
        same_boot: true,
        units_active: true,
    };
    let mut stage = Stage::with(policy(), Some(recalled));
    stage.ours();
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Promoting, "the bots that beat are our own");
}

#[test]
fn silence_in_one_tenure_does_not_hide_silence_in_the_next() {
    let mut stage = Stage::in_state(Kind::Active);
    assert!(tells!(stage.silence(), Notice::ActiveSilent { .. }));
    stage.lease.epoch = Epoch(3);
    stage.lease.holder = Some("alpha".to_owned());
    stage.lease.nonce = None;
    stage.read();
    stage.after(0, Event::UnitsStopped { fault: None });
    stage.silence();
    stage.answer_check();
    stage.lease.epoch = Epoch(4);
    stage.lease.holder = Some("beta".to_owned());
    let nonce = Nonce(NONCE.0 + 1);
    stage.lease.nonce = Some(nonce);
    stage.after(0, Event::Acquired { nonce, answer: Answer::Granted(Epoch(4)) });
    for step in [Step::Promote, Step::Flip, Step::Start] {
        stage.after(0, Event::StepEnded { epoch: Epoch(4), step, outcome: Outcome::Done });
    }
    stage.heartbeat = "c";
    stage.read();
    assert_eq!(stage.engine.kind(), Kind::Active);
    assert!(tells!(stage.silence(), Notice::ActiveSilent { .. }));
}
