//! What the nodes of a group tell one another, and what a holder is asked for.

use std::slice::from_ref;
use std::time::Duration;

use understudy::adapters::postgres::Store;
use understudy::adapters::postgres::operator::RecordKind;
use understudy::adapters::postgres::paired::{Ask, Asked, Report, RequestEnd};
use understudy::engine::observation::{Epoch, Nonce, RequestKind, Way};

use super::{look, node, ready, take_by};
use crate::support::postgres::{Postgres, group, paired};

const RUN: Nonce = Nonce(77);

fn fine(group: &str) -> Report<'_> {
    Report {
        group,
        max_epoch: Epoch(0),
        ready: true,
        problems: &[],
        prepared_for: None,
        window: Duration::from_secs(60),
    }
}

fn ask(id: u128) -> Ask<'static> {
    Ask {
        id: Nonce(id),
        group: "trading",
        kind: RequestKind::Switchover,
        from_epoch: Epoch(1),
        target: Some("charlie"),
        by: "mallory",
        reason: "new kernel",
    }
}

/// A group that bravo has, and a session of charlie.
async fn held_by_bravo(postgres: &Postgres) -> (Store, Store) {
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(postgres, from_ref(&group)).await;
    take_by(Way::Free, &mut bravo, &group, 1).await;
    (bravo, node(postgres, "charlie", from_ref(&group)))
}

#[tokio::test]
async fn each_node_says_how_it_is_and_all_of_them_can_read_it() {
    let postgres = Postgres::start().await;
    let groups = [paired("trading", &["equity"]), paired("other", &["crypto"])];
    let mut bravo = ready(&postgres, &groups).await;
    let mut charlie = node(&postgres, "charlie", &groups);
    assert_eq!(look(&mut bravo).await.members, []);

    bravo.report_members(RUN, 1, &[fine("trading"), fine("other")]).await.unwrap();
    let problems = ["redis: it lags".to_owned(), "disk \"full\"".to_owned()];
    let report = Report {
        max_epoch: Epoch(9),
        ready: false,
        problems: &problems,
        prepared_for: Some(Nonce(5)),
        ..fine("trading")
    };
    charlie.report_members(Nonce(78), 3, &[report, fine("unknown")]).await.unwrap();

    let members = look(&mut bravo).await.members;
    let [one, two] = members.as_slice() else { panic!("{members:?}") };
    assert_eq!((one.node.as_str(), one.incarnation, one.beat), ("bravo", RUN, 1));
    assert!(one.ready && one.problems.is_empty() && one.prepared_for.is_none());
    assert_eq!(one.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(one.window, Duration::from_secs(60));
    assert!((0..60_000).contains(&one.age_ms), "{one:?}");
    assert_eq!((two.node.as_str(), two.incarnation, two.beat), ("charlie", Nonce(78), 3));
    assert_eq!((two.ready, &two.problems[..]), (false, &problems[..]));
    assert_eq!((two.prepared_for, two.max_epoch), (Some(Nonce(5)), Epoch(9)));
    assert_eq!(postgres.value("SELECT count(*) FROM understudy.member").await, "3");
}

#[tokio::test]
async fn a_report_that_was_held_up_does_not_undo_a_later_one() {
    let postgres = Postgres::start().await;
    let groups = [paired("trading", &["equity"])];
    let mut bravo = ready(&postgres, &groups).await;
    bravo.report_members(RUN, 5, &[fine("trading")]).await.unwrap();
    let late = Report { ready: false, ..fine("trading") };
    bravo.report_members(RUN, 4, from_ref(&late)).await.unwrap();
    bravo.report_members(RUN, 5, from_ref(&late)).await.unwrap();
    let member = look(&mut bravo).await.members.remove(0);
    assert_eq!((member.beat, member.ready), (5, true));
    // The next run of the daemon begins anew.
    bravo.report_members(Nonce(78), 1, from_ref(&late)).await.unwrap();
    let member = look(&mut bravo).await.members.remove(0);
    assert_eq!((member.beat, member.ready, member.incarnation), (1, false, Nonce(78)));
}

#[tokio::test]
async fn a_new_epoch_is_above_every_one_that_any_node_has_seen() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let report = Report { max_epoch: Epoch(41), ..fine("trading") };
    charlie.report_members(RUN, 1, from_ref(&report)).await.unwrap();
    // What was seen once was seen.
    charlie.report_members(RUN, 2, &[fine("trading")]).await.unwrap();
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    assert_eq!(token.epoch, Epoch(42));
}

#[tokio::test]
async fn reports_of_many_nodes_and_groups_at_once_do_not_get_in_each_others_way() {
    let postgres = Postgres::start().await;
    let names: Vec<String> = (0..30).map(|n| format!("group{n:02}")).collect();
    let groups: Vec<_> = names.iter().map(|name| paired(name, &["equity"])).collect();
    ready(&postgres, &groups).await;
    let mut nodes = Vec::new();
    for number in 0..6_u128 {
        let mut store = node(&postgres, &format!("node{}", number / 2), &groups);
        let mut names = names.clone();
        if number % 2 == 1 {
            names.reverse();
        }
        nodes.push(tokio::spawn(async move {
            for beat in 1..=20 {
                let reports: Vec<_> = names.iter().map(|name| fine(name)).collect();
                store.report_members(Nonce(number), beat, &reports).await.unwrap();
            }
        }));
    }
    for node in nodes {
        node.await.unwrap();
    }
    assert_eq!(postgres.value("SELECT count(*) FROM understudy.member").await, "90");
}

#[tokio::test]
async fn a_group_in_observed_mode_has_no_members_and_no_requests() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    bravo.report_members(RUN, 1, &[fine("trading")]).await.unwrap();
    let request = Ask { from_epoch: Epoch(0), ..ask(1) };
    assert_eq!(bravo.ask(&request).await.unwrap(), Asked::Asked);
    let seen = look(&mut bravo).await;
    assert_eq!((seen.members, seen.request), (vec![], None));
}

#[tokio::test]
async fn a_request_goes_from_who_asks_over_the_holder_to_the_target() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let (mut bravo, mut charlie) = held_by_bravo(&postgres).await;
    for _ in 0..2 {
        assert_eq!(charlie.ask(&ask(5)).await.unwrap(), Asked::Asked);
    }
    let request = look(&mut bravo).await.request.unwrap();
    assert_eq!(
        (request.id, request.kind, request.from_epoch),
        (Nonce(5), RequestKind::Switchover, Epoch(1))
    );
    assert_eq!(request.target.as_deref(), Some("charlie"));
    assert_eq!((request.by.as_str(), request.reason.as_str()), ("mallory", "new kernel"));
    assert!(!request.announced);

    assert!(!charlie.announce("trading", Nonce(5), "charlie").await.unwrap(), "not the holder");
    assert!(!bravo.announce("trading", Nonce(5), "delta").await.unwrap(), "not what was asked");
    assert!(!bravo.announce("trading", Nonce(6), "charlie").await.unwrap(), "no such request");
    for _ in 0..2 {
        assert!(bravo.announce("trading", Nonce(5), "charlie").await.unwrap());
    }
    assert!(look(&mut charlie).await.request.unwrap().announced);

    let lease = look(&mut bravo).await.lease;
    let token = understudy::engine::observation::Token { epoch: lease.epoch, nonce: Nonce(1) };
    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    assert!(look(&mut charlie).await.request.is_some(), "it goes on");
    take_by(Way::Offer, &mut charlie, &group, 2).await;
    assert!(look(&mut charlie).await.request.is_some(), "until its units run");
    let begun = charlie.announce("trading", Nonce(5), "charlie").await.unwrap();
    assert!(!begun, "the new holder was not asked");
    assert!(charlie.end_request("trading", Nonce(5), RequestEnd::Done, "active").await.unwrap());
    assert!(!charlie.end_request("trading", Nonce(5), RequestEnd::Expired, "").await.unwrap());
    assert_eq!(look(&mut charlie).await.request, None);

    let records = charlie.history(Some("trading"), 10).await.unwrap();
    let told: Vec<_> = records.iter().map(|record| record.kind).collect();
    let (done, handed_over) =
        (&records[0], records.iter().find(|r| r.kind == RecordKind::HandOver));
    assert_eq!(told.iter().filter(|kind| **kind == RecordKind::Request).count(), 1, "{told:?}");
    assert_eq!((done.kind, done.node.as_str()), (RecordKind::RequestEnded, "charlie"));
    assert_eq!(done.detail["text"], "active");
    let handed_over = handed_over.unwrap();
    assert_eq!(handed_over.by.as_deref(), Some("mallory"));
    assert_eq!(handed_over.reason.as_deref(), Some("new kernel"));
    let row = "SELECT status, text, ended_at IS NOT NULL FROM understudy.request";
    assert_eq!(postgres.rows(row).await, [["done", "active", "t"]]);
}

#[tokio::test]
async fn the_holder_is_asked_for_one_thing_at_a_time() {
    let postgres = Postgres::start().await;
    let (mut bravo, mut charlie) = held_by_bravo(&postgres).await;
    bravo.ask(&ask(5)).await.unwrap();
    let pending = Asked::Pending {
        kind: RequestKind::Switchover,
        by: "mallory".to_owned(),
        reason: Some("new kernel".to_owned()),
    };
    assert_eq!(charlie.ask(&ask(6)).await.unwrap(), pending);
    bravo
        .end_request("trading", Nonce(5), RequestEnd::Refused, "charlie is not ready")
        .await
        .unwrap();
    assert_eq!(charlie.ask(&ask(6)).await.unwrap(), Asked::Asked);
    // Of two at once exactly one is asked.
    bravo.end_request("trading", Nonce(6), RequestEnd::Expired, "").await.unwrap();
    let (first, second) = (ask(7), ask(8));
    let (one, two) = tokio::join!(bravo.ask(&first), charlie.ask(&second));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!((one == Asked::Asked) != (two == Asked::Asked), "{one:?} and {two:?}");
}

#[tokio::test]
async fn a_request_for_another_tenure_or_under_a_hold_is_refused_with_the_reason() {
    let postgres = Postgres::start().await;
    let (mut bravo, _) = held_by_bravo(&postgres).await;
    let changed = Asked::Changed { epoch: 1, holder: Some("bravo".to_owned()) };
    assert_eq!(bravo.ask(&Ask { from_epoch: Epoch(0), ..ask(5) }).await.unwrap(), changed);
    let unknown = Ask { group: "unknown", ..ask(5) };
    assert_eq!(bravo.ask(&unknown).await.unwrap(), Asked::NoSuchGroup);
    bravo.hold("trading", "trent", "audit", None).await.unwrap();
    let held = Asked::Held { by: "trent".to_owned(), reason: Some("audit".to_owned()) };
    assert_eq!(bravo.ask(&ask(5)).await.unwrap(), held);
    bravo.release("trading", "trent").await.unwrap();
    let token = understudy::engine::observation::Token { epoch: Epoch(1), nonce: Nonce(1) };
    bravo.hand_over("trading", token, None).await.unwrap();
    let nobody = Asked::Changed { epoch: 2, holder: None };
    assert_eq!(bravo.ask(&Ask { from_epoch: Epoch(2), ..ask(5) }).await.unwrap(), nobody);
}

#[tokio::test]
async fn a_takeover_ends_what_the_old_holder_was_asked_for() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let (mut bravo, mut charlie) = held_by_bravo(&postgres).await;
    bravo.ask(&ask(5)).await.unwrap();
    bravo.announce("trading", Nonce(5), "charlie").await.unwrap();
    take_by(Way::Silent, &mut charlie, &group, 2).await;
    assert_eq!(look(&mut charlie).await.request, None);
    let row = "SELECT status, text FROM understudy.request";
    assert_eq!(postgres.rows(row).await, [["expired", "epoch 2 began before it was done"]]);
    assert!(!bravo.announce("trading", Nonce(5), "charlie").await.unwrap());
    assert!(!bravo.end_request("trading", Nonce(5), RequestEnd::Done, "late").await.unwrap());
}

#[tokio::test]
async fn a_request_that_nobody_carried_out_in_time_is_void() {
    let postgres = Postgres::start().await;
    let (mut bravo, _) = held_by_bravo(&postgres).await;
    bravo.ask(&ask(5)).await.unwrap();
    postgres
        .sql("UPDATE understudy.request SET created_at = created_at - interval '11 minutes'")
        .await;
    assert_eq!(look(&mut bravo).await.request, None);
    assert_eq!(bravo.ask(&ask(6)).await.unwrap(), Asked::Asked);
    assert_eq!(look(&mut bravo).await.request.unwrap().id, Nonce(6));
    let rows = "SELECT status FROM understudy.request ORDER BY created_at";
    assert_eq!(postgres.rows(rows).await, [["expired"], ["open"]]);
}
