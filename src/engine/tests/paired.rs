//! Paired mode: the lease has a window of its own, the guard's word counts, and a group can be handed
//! over. The other node is `alpha`; the guard renews every 2 s, fences after 10 s, and the window of
//! the lease is 23 s.

use super::*;
use crate::engine::event::GuardReport;
use crate::engine::observation::{RequestKind, Way};
use crate::engine::policy::{HAND_OVER_EVERY, HAND_OVER_MAX, Paired};

const OTHER: Nonce = Nonce(7);
const TOKEN: Token = Token { epoch: Epoch(2), nonce: NONCE };

fn paired() -> Policy {
    let plan = [Step::Guard, Step::Promote, Step::Flip, Step::Start, Step::Beat];
    Policy {
        timeout: ms(30_000),
        max_gap: ms(7_500),
        plan: plan.map(|step| (step, ms(30_000))).to_vec(),
        paired: Some(Paired {
            nodes: vec!["alpha".to_owned(), "beta".to_owned()],
            renew: ms(2_000),
            fence_after: ms(10_000),
            window: ms(23_000),
            again_within: ms(18_800),
        }),
        ..policy()
    }
}

fn member(node: &str, beat: u64) -> Member {
    Member {
        node: node.to_owned(),
        incarnation: Nonce(1),
        beat,
        max_epoch: Epoch(0),
        version: String::new(),
        ready: true,
        problems: Vec::new(),
        prepared_for: None,
        window: ms(23_000),
        age_ms: 0,
    }
}

impl Stage {
    /// `alpha` has the group, renews its lease and beats; `beta`, which is this node, was checked.
    fn standby() -> Self {
        Self::standing_by(None)
    }

    fn standing_by(recalled: Option<Recalled>) -> Self {
        let mut stage = Self::with(paired(), recalled);
        stage.lease.nonce = Some(OTHER);
        stage.lease.ttl = ms(20_500);
        stage.read();
        stage.answer_check();
        stage
    }

    /// Reads every two seconds, for so many seconds; with renewals and beats or without.
    fn pass(&mut self, seconds: u64, renewed: bool, beats: bool) -> Vec<Action> {
        let mut out = Vec::new();
        for turn in 0..seconds / 2 {
            if renewed {
                self.lease.seq += 1;
            }
            if beats {
                self.heartbeat = if self.heartbeat == "x" { "y" } else { "x" };
            }
            for member in &mut self.members {
                member.beat += 1;
            }
            out.extend(self.read_after(2_000, 0));
            if turn % 5 == 0 {
                out.extend(self.answer_check());
            }
        }
        out
    }

    /// Silence of both until this node is about to take over.
    fn until_checking(&mut self) {
        for _ in 0..60 {
            self.read_after(2_000, 0);
            if self.engine.kind() == Kind::Checking {
                return;
            }
        }
        panic!("no takeover begins");
    }

    fn guard(&mut self, token: Token) -> Vec<Action> {
        let confirmed = BootTime::from_duration(ms(self.now));
        self.after(0, Event::Guard(GuardReport::Holding { token, confirmed }))
    }

    fn guard_gone(&mut self) -> Vec<Action> {
        self.after(0, Event::Guard(GuardReport::Gone { why: "killed".to_owned() }))
    }

    /// This node has the group, and its bots beat; `alpha` stands by.
    fn holder() -> Self {
        let mut stage = Self::standby();
        stage.until_checking();
        stage.answer_check();
        stage.granted();
        stage.lease.ttl = ms(20_500);
        stage.lease.seq = 0;
        stage.step(Step::Guard, Outcome::Done);
        stage.guard(TOKEN);
        for step in [Step::Promote, Step::Flip, Step::Start] {
            stage.step(step, Outcome::Done);
        }
        stage.members = vec![member("alpha", 1)];
        stage.heartbeat = "b";
        stage.read();
        stage.pass(4, true, true);
        assert_eq!(stage.engine.kind(), Kind::Active);
        stage
    }

    fn switchover(&mut self, to: Option<&str>) -> Vec<Action> {
        let command = Command::Switchover {
            to: to.map(str::to_owned),
            by: "ann".to_owned(),
            reason: "drill".to_owned(),
        };
        self.after(0, Event::Operator { request: 8, command })
    }

    fn failed(&mut self) -> Vec<Action> {
        let failed = vec!["equity.service".to_owned()];
        self.after(0, Event::UnitsSeen { failed, stopped: Vec::new() })
    }
}

/// This node has the group and is giving it to `alpha`, which gets ready.
pub fn handing_over() -> Stage {
    let mut stage = Stage::holder();
    stage.switchover(None);
    stage
}

fn asks(actions: &[Action]) -> Option<Way> {
    let mut questions = actions.iter().filter_map(|action| {
        if let Action::Acquire(question) = action { Some(question.way) } else { None }
    });
    questions.next()
}

fn order_of(actions: &[Action]) -> Nonce {
    let mut orders = actions.iter().filter_map(|action| {
        if let Action::Announce(order) = action { Some(order.id) } else { None }
    });
    orders.next().expect("an order is announced")
}

#[test]
fn a_holder_that_renews_its_lease_is_not_taken_over_though_its_bots_are_silent() {
    let mut stage = Stage::standby();
    let actions = stage.pass(300, true, false);
    assert!(asks(&actions).is_none() && stage.engine.kind() == Kind::Standby);
    assert!(tells!(actions, Notice::Blocked { why } if why.contains("renews its lease")));
    let told = actions.iter().filter(|it| matches!(it, Action::Tell(Notice::Blocked { .. })));
    assert_eq!(told.count(), 1, "once is enough");
}

#[test]
fn a_lease_that_is_silent_is_left_alone_while_the_bots_beat() {
    let mut stage = Stage::standby();
    let actions = stage.pass(300, false, true);
    assert!(asks(&actions).is_none());
}

#[test]
fn both_silent_it_takes_over_at_the_later_of_the_two_deadlines() {
    let mut stage = Stage::standby();
    stage.pass(10, true, true);
    let silent_from = stage.now;
    let wants = stage.engine.wants_read_at().unwrap();
    // One node is preferred to this one, but it is the holder: no delay.
    assert_eq!(wants.since_boot(), ms(silent_from + 30_000));
    stage.pass(28, false, false);
    assert_eq!(stage.engine.kind(), Kind::Standby);
    stage.read_after(2_000, 0);
    assert_eq!(stage.engine.kind(), Kind::Checking);
    let actions = stage.answer_check();
    assert_eq!(asks(&actions), Some(Way::Silent));
}

#[test]
fn the_window_is_the_holders_if_that_is_longer_and_a_later_node_waits_longer() {
    let policy = paired();
    let paired = policy.paired.unwrap();
    let mut lease = Stage::standby().lease;
    assert_eq!(paired.window_for("beta", &lease), ms(23_000));
    lease.ttl = ms(100_000);
    assert_eq!(paired.window_for("beta", &lease), ms(110_000));
    lease.holder = None;
    assert_eq!(paired.window_for("beta", &lease), ms(116_000), "alpha may go first");
}

#[test]
fn a_holder_without_a_guard_is_for_a_person() {
    let mut stage = Stage::standby();
    stage.lease.ttl = Duration::ZERO;
    let actions = stage.pass(100, false, false);
    assert!(asks(&actions).is_none());
    assert!(tells!(actions, Notice::Blocked { why } if why.contains("without a guard")));
}

#[test]
fn a_group_that_nobody_has_is_taken_after_a_whole_window() {
    let mut stage = Stage::standby();
    stage.pass(10, true, true);
    stage.lease = Lease { epoch: Epoch(5), holder: None, nonce: None, seq: 0, ..stage.lease };
    // The preferred node goes first: 23 s and three renewals.
    let left = stage.now;
    stage.until_checking();
    assert_eq!(stage.now - left, 30_000 + 2_000, "the bots' window began anew with the change");
    assert_eq!(asks(&stage.answer_check()), Some(Way::Free));
}

#[test]
fn the_lease_is_kept_by_the_guards_word_and_not_by_a_read() {
    let mut stage = Stage::standby();
    stage.until_checking();
    stage.answer_check();
    let actions = stage.granted();
    assert!(actions.contains(&run(Step::Guard, false)));
    let actions = stage.step(Step::Guard, Outcome::Done);
    assert!(actions.contains(&run(Step::Promote, false)), "confirmed by the question itself");
    stage.lease.seq = 3;
    stage.pass(8, true, false);
    let actions = stage.step(Step::Promote, Outcome::Done);
    assert!(!actions.iter().any(|action| matches!(action, Action::Run { .. })));
    let actions = stage.guard(TOKEN);
    assert!(actions.contains(&run(Step::Flip, false)));
}

#[test]
fn a_guard_that_cannot_be_started_in_time_ends_the_tenure() {
    let mut stage = Stage::standby();
    stage.until_checking();
    stage.answer_check();
    stage.granted();
    stage.lease.seq = 0;
    stage.step(Step::Guard, Outcome::NotBegun("no bus".to_owned()));
    let mut out = Vec::new();
    for _ in 0..20 {
        out.extend(stage.read_after(500, 0));
        if out.contains(&run(Step::Guard, false)) {
            out.extend(stage.step(Step::Guard, Outcome::NotBegun("no bus".to_owned())));
        }
    }
    assert!(tells!(out, Notice::GuardGone { .. }));
    assert_eq!(stage.engine.kind(), Kind::Stopping);
}

#[test]
fn without_its_guard_a_tenure_is_over_and_the_units_are_stopped() {
    let mut stage = Stage::holder();
    let actions = stage.guard_gone();
    assert!(tells!(actions, Notice::GuardGone { epoch: Epoch(2), .. }));
    assert!(actions.contains(&moved(Kind::Active, Kind::Stopping, Why::GuardGone)));
    assert!(actions.contains(&Action::StopUnits { deadline: STOP_DEADLINE }));
    let actions = stage.after(100, Event::UnitsStopped { fault: None });
    assert!(actions.contains(&Action::Remember(memory(Progress::Over))));
    assert_eq!(stage.engine.kind(), Kind::Standby);
}

#[test]
fn soon_after_the_lease_is_asked_for_again_at_once_and_later_after_a_window() {
    for (away, at_once) in [(10_000, true), (18_000, true), (18_800, false), (60_000, false)] {
        let mut stage = Stage::holder();
        stage.guard(TOKEN);
        for _ in 0..away / 2_000 {
            stage.after(2_000, Event::ObserveFailed { fault: "down".to_owned() });
        }
        stage.after(away % 2_000, Event::ObserveFailed { fault: "down".to_owned() });
        stage.guard_gone();
        stage.after(0, Event::UnitsStopped { fault: None });
        let actions = stage.read();
        assert_eq!(asks(&actions), at_once.then_some(Way::Again), "after {away} ms");
        if !at_once {
            let actions = stage.pass(22, false, false);
            assert_eq!(asks(&actions), None);
            let actions = stage.pass(2, false, false);
            assert_eq!(asks(&actions), Some(Way::Again), "after {away} ms and a window");
        }
    }
}

#[test]
fn what_somebody_else_runs_is_not_started_here() {
    let mut stage = Stage::holder();
    stage.guard_gone();
    stage.pass(20, false, false);
    stage.after(0, Event::UnitsStopped { fault: None });
    let actions = stage.pass(120, false, true);
    assert_eq!(asks(&actions), None);
    assert!(tells!(actions, Notice::Contested { epoch: Epoch(2) }));
}

#[test]
fn a_hold_does_not_keep_the_former_holder_from_going_on() {
    let mut stage = Stage::holder();
    stage.guard(TOKEN);
    stage.hold();
    stage.guard_gone();
    stage.after(100, Event::UnitsStopped { fault: None });
    assert_eq!(asks(&stage.read()), Some(Way::Again));
}

#[test]
fn a_restart_of_the_supervisor_goes_by_the_guard() {
    let complete = Recalled {
        memory: memory(Progress::Complete),
        recent: false,
        same_boot: true,
        units_active: true,
    };
    let mut stage = Stage::standing_by(Some(complete));
    stage.ours();
    stage.read_after(2_000, 0);
    assert_eq!(stage.engine.kind(), Kind::Standby, "it was not heard yet");
    let actions = stage.guard(TOKEN);
    assert!(tells!(actions, Notice::Adopted { units_active: true, .. }));
    assert_eq!(stage.engine.kind(), Kind::Active);

    let mut stage = Stage::standing_by(Some(complete));
    stage.ours();
    stage.guard_gone();
    let actions = stage.read_after(2_000, 0);
    assert!(actions.contains(&moved(Kind::Standby, Kind::Stopping, Why::GuardGone)));
}

#[test]
fn a_supervisor_that_died_in_a_hand_over_starts_the_units_again() {
    let leaving = Recalled {
        memory: memory(Progress::Leaving),
        recent: false,
        same_boot: true,
        units_active: false,
    };
    let mut stage = Stage::standing_by(Some(leaving));
    stage.ours();
    stage.read_after(2_000, 0);
    let actions = stage.guard(TOKEN);
    assert!(actions.contains(&run(Step::Start, true)));
}

#[test]
fn a_switchover_waits_for_the_other_node_and_for_the_end_of_the_units() {
    let mut stage = Stage::holder();
    let actions = stage.switchover(Some("alpha"));
    let id = order_of(&actions);
    assert!(actions.contains(&moved(Kind::Active, Kind::HandingOver, Why::Asked)));
    let soon = BootTime::from_duration(ms(stage.now - 2_000)) + HAND_OVER_EVERY;
    assert!(stage.engine.wants_read_at().is_some_and(|at| at >= soon));
    let actions = stage.pass(2, true, true);
    assert!(!actions.contains(&Action::StopUnits { deadline: STOP_DEADLINE }));
    stage.members[0].prepared_for = Some(id);
    let actions = stage.pass(2, true, true);
    assert!(actions.contains(&Action::Remember(memory(Progress::Leaving))));
    assert!(actions.contains(&Action::StopUnits { deadline: STOP_DEADLINE }));
    let actions = stage.after(300, Event::UnitsStopped { fault: None });
    let give = Action::HandOver {
        token: TOKEN,
        to: "alpha".to_owned(),
        lossless: true,
        deadline: HAND_OVER_MAX,
    };
    assert_eq!(actions, [give]);
    assert_eq!(stage.guard_gone(), [], "it was told to end");
    let actions = stage.after(300, Event::HandedOver { epoch: Epoch(2), outcome: Outcome::Done });
    assert!(actions.contains(&Action::Remember(memory(Progress::Over))));
    assert!(actions.contains(&moved(Kind::HandingOver, Kind::Standby, Why::Given)));
    assert!(
        matches!(&actions[1], Action::EndRequest { id: ended, done: true, .. } if *ended == id)
    );
}

#[test]
fn a_hand_over_that_fails_puts_the_units_back_to_work() {
    let mut stage = Stage::holder();
    let id = order_of(&stage.switchover(None));
    let actions = stage.pass(10, true, true);
    assert!(tells!(actions, Notice::HandOverFailed { text, .. } if text.contains("get ready")));
    assert_eq!(stage.engine.kind(), Kind::Active, "nothing was touched");
    assert!(actions.iter().any(
        |action| matches!(action, Action::EndRequest { id: ended, done: false, .. } if *ended == id)
    ));

    let id = order_of(&stage.switchover(None));
    stage.members[0].prepared_for = Some(id);
    stage.pass(2, true, true);
    stage.guard(TOKEN);
    stage.after(100, Event::UnitsStopped { fault: None });
    let outcome = Outcome::Failed("the replica is behind".to_owned());
    let actions = stage.after(100, Event::HandedOver { epoch: Epoch(2), outcome });
    assert!(actions.contains(&moved(Kind::HandingOver, Kind::Promoting, Why::Undone)));
    assert!(actions.contains(&run(Step::Start, true)));
}

#[test]
fn a_switchover_is_refused_with_the_reason() {
    let answer = |actions: Vec<Action>| match actions.as_slice() {
        [Action::Answer { accepted: false, text, .. }, ..] => text.clone(),
        other => panic!("not refused: {other:?}"),
    };
    let mut stage = Stage::holder();
    assert!(answer(stage.switchover(Some("gamma"))).contains("no node of this group"));
    assert!(answer(stage.switchover(Some("beta"))).contains("here already"));
    stage.members[0].ready = false;
    stage.members[0].problems = vec!["redis: no link".to_owned()];
    stage.pass(2, true, true);
    assert!(answer(stage.switchover(None)).contains("redis: no link"));
    stage.members[0].ready = true;
    for _ in 0..5 {
        stage.lease.seq += 1;
        stage.read_after(2_000, 0);
    }
    assert!(answer(stage.switchover(None)).contains("not heard of"));
    assert!(answer(Stage::standby().switchover(None)).contains("it is standby"));
    assert!(answer(Stage::new().switchover(None)).contains("only in paired mode"));
}

#[test]
fn units_that_do_not_recover_are_a_reason_to_hand_over() {
    let mut stage = Stage::holder();
    let actions = stage.pass(34, true, false);
    assert!(actions.contains(&Action::Look));
    let stopped = vec!["equity.service".to_owned()];
    assert_eq!(stage.after(0, Event::UnitsSeen { failed: Vec::new(), stopped }), []);
    let actions = stage.failed();
    assert!(actions.contains(&moved(Kind::Active, Kind::HandingOver, Why::Failing)));
    assert_eq!(stage.engine.kind(), Kind::HandingOver);
}

#[test]
fn with_nobody_to_hand_over_to_they_are_started_once_more() {
    let mut stage = Stage::holder();
    stage.members[0].ready = false;
    stage.guard(TOKEN);
    stage.pass(34, true, false);
    stage.guard(TOKEN);
    let actions = stage.failed();
    assert!(tells!(actions, Notice::NoPeer { .. }));
    assert!(actions.contains(&run(Step::Start, true)));
}

#[test]
fn an_order_from_another_node_is_carried_out_or_refused() {
    let order = PendingRequest {
        id: Nonce(55),
        kind: RequestKind::Switchover,
        from_epoch: Epoch(2),
        target: Some("alpha".to_owned()),
        by: "ann on alpha".to_owned(),
        reason: "drill".to_owned(),
        announced: false,
    };
    let mut stage = Stage::holder();
    stage.request = Some(Box::new(order.clone()));
    assert_eq!(order_of(&stage.pass(2, true, true)), Nonce(55));

    let mut stage = Stage::holder();
    stage.request = Some(Box::new(PendingRequest { from_epoch: Epoch(1), ..order.clone() }));
    let actions = stage.pass(4, true, true);
    let ended: Vec<_> =
        actions.iter().filter(|action| matches!(action, Action::EndRequest { .. })).collect();
    assert_eq!(ended.len(), 1, "once: {ended:?}");

    let mut stage = Stage::holder();
    stage.members[0].ready = false;
    stage.request = Some(Box::new(order));
    let actions = stage.pass(2, true, true);
    assert!(
        actions.iter().any(|action| matches!(action, Action::EndRequest { done: false, text, .. }
            if text.contains("could not run")))
    );
}

#[test]
fn the_node_that_gets_the_group_reads_often_and_takes_an_offer_at_once() {
    let mut stage = Stage::standby();
    stage.pass(10, true, true);
    stage.request = Some(Box::new(PendingRequest {
        id: Nonce(55),
        kind: RequestKind::Switchover,
        from_epoch: Epoch(1),
        target: Some("beta".to_owned()),
        by: "ann".to_owned(),
        reason: "drill".to_owned(),
        announced: true,
    }));
    stage.pass(2, true, true);
    stage.answer_check();
    let now = BootTime::from_duration(ms(stage.now));
    assert_eq!(stage.engine.prepared_for(now), Some(Nonce(55)));
    assert_eq!(stage.engine.wants_read_at(), Some(now + HAND_OVER_EVERY));
    stage.lease = Lease {
        epoch: Epoch(2),
        holder: None,
        nonce: None,
        seq: 0,
        offered_to: Some("beta".to_owned()),
        ..stage.lease
    };
    let actions = stage.read_after(100, 0);
    assert_eq!(asks(&actions), Some(Way::Offer));
    let Some(Action::Acquire(question)) =
        actions.into_iter().find(|action| matches!(action, Action::Acquire(_)))
    else {
        unreachable!()
    };
    assert_eq!(question.cause, Cause::Operator);
    assert_eq!(question.asked_by, Some(("ann".to_owned(), "drill".to_owned())));
}

#[test]
fn an_offer_that_was_not_seen_to_be_made_is_none() {
    let offered = |stage: &mut Stage| {
        stage.lease.holder = None;
        stage.lease.nonce = None;
        stage.lease.offered_to = Some("beta".to_owned());
    };
    // Found so: it may come from a backup.
    let mut stage = Stage::with(paired(), None);
    stage.lease.epoch = Epoch(4);
    offered(&mut stage);
    stage.read();
    stage.answer_check();
    assert_eq!(asks(&stage.pass(20, false, false)), None);
    // Another server than a moment ago.
    let mut stage = Stage::standby();
    stage.pass(4, true, true);
    stage.lease.epoch = Epoch(2);
    stage.store = "another";
    offered(&mut stage);
    assert_eq!(asks(&stage.read_after(100, 0)), None);
    // A tenure in between was missed.
    let mut stage = Stage::standby();
    stage.pass(4, true, true);
    stage.lease.epoch = Epoch(3);
    offered(&mut stage);
    assert_eq!(asks(&stage.read_after(100, 0)), None);
}

#[test]
fn redis_is_made_to_follow_a_primary_that_is_there() {
    let mut stage = Stage::standby();
    stage.pass(4, true, true);
    let rejoin = Action::Rejoin { primary: "alpha".to_owned() };
    assert_eq!(stage.after(0, Event::Estranged), std::slice::from_ref(&rejoin));
    assert_eq!(stage.after(0, Event::Estranged), [], "one at a time");
    let fault = Some("no answer".to_owned());
    assert!(tells!(stage.after(0, Event::Rejoined { fault }), Notice::RejoinFailed { .. }));
    assert_eq!(stage.after(0, Event::Estranged), [], "not at once again");
    stage.pass(16, true, true);
    assert_eq!(stage.after(0, Event::Estranged), [rejoin]);
    assert!(tells!(stage.after(0, Event::Rejoined { fault: None }), Notice::Rejoined));
    // Whoever does not renew may be dead, and this node its successor.
    let mut stage = Stage::standby();
    stage.pass(10, false, true);
    assert_eq!(stage.after(0, Event::Estranged), []);
}

#[test]
fn not_even_by_force_is_a_holder_taken_over_that_may_be_alive() {
    let mut stage = Stage::standby();
    stage.pass(60, true, false);
    for force in [false, true] {
        let refused = stage.failover(force);
        assert!(matches!(&refused[..], [Action::Answer { accepted: false, text, .. }]
            if text.contains("switchover")));
    }
    stage.pass(22, false, true);
    assert!(matches!(&stage.failover(true)[..], [Action::Answer { accepted: false, .. }]));
    stage.pass(2, false, true);
    let refused = stage.failover(false);
    assert!(matches!(&refused[..], [Action::Answer { accepted: false, text, .. }]
        if text.contains("does not look dead")));
    stage.failover(true);
    assert_eq!(asks(&stage.answer_check()), Some(Way::Silent));
}

#[test]
fn a_holder_that_was_never_seen_to_renew_is_left_time_to_go_on() {
    // Silent from the first read, as after an outage of the store that hit the holder as well.
    let mut stage = Stage::standby();
    let from = stage.now;
    stage.until_checking();
    // 23 s, two ninths of it, and four renewals.
    assert_eq!(stage.now - from, 36_112_u64.next_multiple_of(2_000));
    // With a renewal before its eyes it does not wait for that.
    let mut stage = Stage::standby();
    stage.pass(2, true, true);
    let from = stage.now;
    stage.until_checking();
    assert_eq!(stage.now - from, 30_000);
}

#[test]
fn nobody_is_preferred_to_the_node_whose_lease_it_is() {
    let mut stage = Stage::standby();
    stage.lease = Lease {
        epoch: Epoch(4),
        holder: Some("beta".to_owned()),
        nonce: Some(Nonce(9)),
        ..stage.lease
    };
    stage.read_after(2_000, 0);
    assert_eq!(asks(&stage.pass(22, false, false)), None);
    assert_eq!(asks(&stage.pass(2, false, false)), Some(Way::Again));
}

#[test]
fn a_guard_that_outlived_the_supervisor_need_not_be_started() {
    for progress in [Progress::Asked, Progress::At(Step::Guard)] {
        let recalled = Recalled {
            memory: memory(progress),
            recent: false,
            same_boot: true,
            units_active: false,
        };
        let mut stage = Stage::standing_by(Some(recalled));
        stage.ours();
        stage.read_after(2_000, 0);
        let actions = stage.guard(TOKEN);
        assert!(actions.contains(&run(Step::Promote, true)), "{progress:?}: {actions:?}");
    }
}

#[test]
fn an_offer_is_not_taken_by_a_node_that_was_found_unfit_since() {
    let mut stage = Stage::standby();
    stage.pass(10, true, true);
    let problems = vec!["no disk".to_owned()];
    stage.after(0, Event::Checked { problems: problems.clone() });
    stage.lease = Lease {
        epoch: Epoch(2),
        holder: None,
        nonce: None,
        seq: 0,
        offered_to: Some("beta".to_owned()),
        ..stage.lease
    };
    let actions = stage.read_after(100, 0);
    assert!(actions.contains(&moved(Kind::Standby, Kind::Checking, Why::Offered)));
    let actions = stage.after(0, Event::Checked { problems });
    assert!(asks(&actions).is_none() && stage.engine.kind() == Kind::Standby);
    // The offer stands.
    stage.read_after(100, 0);
    assert_eq!(asks(&stage.answer_check()), Some(Way::Offer));
}

impl Stage {
    /// This node has the group, but a step before the last one, or the last, does not succeed.
    fn stuck_at(step: Step) -> Self {
        let mut stage = Self::standby();
        stage.until_checking();
        stage.answer_check();
        stage.granted();
        stage.lease.ttl = ms(20_500);
        stage.lease.seq = 0;
        stage.step(Step::Guard, Outcome::Done);
        stage.guard(TOKEN);
        stage.step(Step::Promote, Outcome::Done);
        stage.step(Step::Flip, Outcome::Done);
        stage.members = vec![member("alpha", 1)];
        if step == Step::Beat {
            stage.step(Step::Start, Outcome::Done);
        }
        let mut actions = Vec::new();
        for _ in 0..40 {
            stage.guard(TOKEN);
            actions.extend(stage.pass(2, true, false));
            stage.step(Step::Start, Outcome::Failed("no".to_owned()));
        }
        assert_eq!(stage.engine.kind(), Kind::Degraded);
        assert!(actions.contains(&Action::Look), "it does not look at the units");
        stage
    }
}

#[test]
fn a_takeover_that_is_stuck_at_the_units_is_handed_over() {
    for step in [Step::Start, Step::Beat] {
        let mut stage = Stage::stuck_at(step);
        let actions = stage.failed();
        assert!(
            actions.contains(&moved(Kind::Degraded, Kind::HandingOver, Why::Failing)),
            "{step}: {actions:?}"
        );
    }
    // Not if a person stopped them, unless they were never started.
    let stopped = vec!["equity.service".to_owned()];
    let seen = Event::UnitsSeen { failed: Vec::new(), stopped };
    let mut stage = Stage::stuck_at(Step::Beat);
    assert_eq!(stage.after(0, seen.clone()), []);
    let mut stage = Stage::stuck_at(Step::Start);
    stage.after(0, seen);
    assert_eq!(stage.engine.kind(), Kind::HandingOver);
}

#[test]
fn a_takeover_that_is_stuck_at_the_beats_starts_the_units_again_if_there_is_no_peer() {
    let mut stage = Stage::stuck_at(Step::Beat);
    stage.members[0].ready = false;
    stage.guard(TOKEN);
    stage.pass(2, true, false);
    stage.guard(TOKEN);
    let actions = stage.failed();
    assert!(actions.contains(&moved(Kind::Degraded, Kind::Promoting, Why::NoPeer)));
    assert!(actions.contains(&run(Step::Start, true)));
    // A start that fails is tried again by itself.
    let mut stage = Stage::stuck_at(Step::Start);
    stage.members[0].ready = false;
    stage.pass(2, true, false);
    assert_eq!(stage.failed(), []);
}
