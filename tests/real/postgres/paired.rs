//! Who may have a lease in paired mode: renewing it, letting go of it, and the four ways to take it.

use std::slice::from_ref;
use std::time::Duration;

use understudy::adapters::postgres::operator::RecordKind;
use understudy::adapters::postgres::paired::Renewal;
use understudy::adapters::postgres::tenure::{Acquire, AcquireKind, AcquireOutcome};
use understudy::adapters::postgres::{ErrorKind, Store, StoreError};
use understudy::engine::observation::{Epoch, Nonce, Token, Way};

use super::{TTL, by, look, look_at, node, open, ready, take_by};
use crate::support::postgres::{PgBouncer, Postgres, eventually, paired};

fn is_acquired(outcome: &AcquireOutcome) -> bool {
    matches!(outcome, AcquireOutcome::Acquired(_))
}

fn by_person(acquire: Acquire<'_>) -> Acquire<'_> {
    let kind = AcquireKind::Operator { by: "mallory".to_owned(), reason: "dead".to_owned() };
    Acquire { kind, ..acquire }
}

fn without(request: Acquire<'_>) -> Acquire<'_> {
    Acquire { heartbeats: Vec::new(), ..request }
}

fn stale(request: Acquire<'_>) -> Acquire<'_> {
    Acquire { max_age: Duration::ZERO, ..request }
}

async fn fence_check(postgres: &Postgres, token: Token) -> Result<(), String> {
    let check =
        format!("SELECT understudy.fence_check('trading', {}, '{}')", token.epoch, token.nonce);
    let checked = postgres.client().await.batch_execute(&check).await;
    checked.map_err(|error| error.code().expect("an answer").code().to_owned())
}

#[tokio::test]
async fn a_group_that_nobody_ever_had_is_free() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let lease = look(&mut bravo).await.lease;
    assert_eq!((lease.holder, lease.epoch, lease.ttl), (None, Epoch(0), Duration::ZERO));

    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    let lease = look(&mut bravo).await.lease;
    assert_eq!((lease.holder.as_deref(), lease.ttl, lease.seq), (Some("bravo"), TTL, 0));
    assert_eq!(Token { epoch: lease.epoch, nonce: lease.nonce.unwrap() }, token);
    let written = "SELECT (evidence->>'way') || ' ' || kind FROM understudy.failover";
    assert_eq!(postgres.value(written).await, "free automatic");
}

#[tokio::test]
async fn a_renewal_is_counted_and_is_for_one_node_and_one_token_only() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    assert_eq!(bravo.renew("trading", token).await.unwrap(), Renewal::Granted { seq: 1 });
    assert_eq!(bravo.renew("trading", token).await.unwrap(), Renewal::Granted { seq: 2 });
    assert_eq!(look(&mut bravo).await.lease.seq, 2);

    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let other_nonce = Token { nonce: Nonce(2), ..token };
    let other_epoch = Token { epoch: Epoch(2), ..token };
    assert_eq!(charlie.renew("trading", token).await.unwrap(), Renewal::Refused);
    assert_eq!(bravo.renew("trading", other_nonce).await.unwrap(), Renewal::Refused);
    assert_eq!(bravo.renew("trading", other_epoch).await.unwrap(), Renewal::Refused);
    assert_eq!(bravo.renew("unknown", token).await.unwrap(), Renewal::Refused);
    assert_eq!(look(&mut bravo).await.lease.seq, 2);
}

#[tokio::test]
async fn many_renewals_at_once_are_each_counted_once() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    let stale = Token { nonce: Nonce(9), ..token };
    let mut sessions = Vec::new();
    for number in 0..8 {
        let mut store = node(&postgres, "bravo", from_ref(&group));
        sessions.push(tokio::spawn(async move {
            let mut granted = Vec::new();
            for _ in 0..25 {
                let token = if number == 7 { stale } else { token };
                match store.renew("trading", token).await.unwrap() {
                    Renewal::Granted { seq } => granted.push(seq),
                    Renewal::Refused => assert_eq!(number, 7, "only the stale token is refused"),
                }
            }
            granted
        }));
    }
    let mut granted = Vec::new();
    for session in sessions {
        granted.extend(session.await.unwrap());
    }
    granted.sort_unstable();
    assert_eq!(granted, (1..=175).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_renewal_and_a_takeover_at_the_same_time_have_one_winner() {
    let postgres = Postgres::start().await;
    let names: Vec<String> = (0..20).map(|n| format!("group{n}")).collect();
    let groups: Vec<_> = names.iter().map(|name| paired(name, &["equity"])).collect();
    let mut bravo = ready(&postgres, &groups).await;
    let mut charlie = node(&postgres, "charlie", &groups);
    for (number, group) in groups.iter().enumerate() {
        let seen = look_at(&mut bravo, number).await;
        let free = by(Way::Free, group, &seen, number as u128);
        let AcquireOutcome::Acquired(token) = bravo.acquire(&free).await.unwrap() else { panic!() };
        let seen = look_at(&mut charlie, number).await;
        let silent = by(Way::Silent, group, &seen, number as u128 + 1000);
        let (renewed, taken) =
            tokio::join!(bravo.renew(&group.name, token), charlie.acquire(&silent));
        let (renewed, taken) = (renewed.unwrap(), taken.unwrap());
        assert!(is_acquired(&taken) == (renewed == Renewal::Refused), "{renewed:?} and {taken}");
        assert!(
            is_acquired(&taken) || matches!(taken, AcquireOutcome::Changed { .. }),
            "what was renewed is not what was seen: {taken}"
        );
    }
}

#[tokio::test]
async fn a_renewal_waits_for_no_transaction_of_an_application() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    let fence = "SELECT xmin::text || ' ' || ctid::text FROM understudy.fence";
    let before = postgres.value(fence).await;
    let application = postgres.client().await;
    let check =
        format!("SELECT understudy.fence_check('trading', {}, '{}')", token.epoch, token.nonce);
    application.batch_execute(&format!("BEGIN; {check}")).await.unwrap();

    // With a deadline far below that of the lock which it would wait for.
    let settings = postgres.store_as("understudy");
    let mut hasty =
        Store::new(&settings, "bravo", Duration::from_secs(1), from_ref(&group)).unwrap();
    for seq in 1..=5 {
        let renewed = hasty.renew("trading", token).await.unwrap();
        assert_eq!(renewed, Renewal::Granted { seq });
    }
    application.batch_execute(&format!("{check}; COMMIT")).await.unwrap();
    assert_eq!(postgres.value(fence).await, before, "nobody wrote to it");
}

#[tokio::test]
async fn a_renewal_that_is_executed_after_the_tenure_does_nothing() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;

    // The holder gives its renewal up while it waits behind the transaction of another node.
    let other = postgres.client().await;
    other.batch_execute("BEGIN; SELECT * FROM understudy.lease FOR UPDATE").await.unwrap();
    let settings = postgres.store_as("understudy");
    let mut hasty =
        Store::new(&settings, "bravo", Duration::from_millis(100), from_ref(&group)).unwrap();
    let error = hasty.renew("trading", token).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    other
        .batch_execute(
            "UPDATE understudy.lease SET epoch = 2, holder = 'charlie', nonce = gen_random_uuid(), seq = 5;
             COMMIT",
        )
        .await
        .unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%renew(%' AND state = 'active'
                   AND usename = 'understudy'";
    eventually("the abandoned renewal to end", async || postgres.value(waiting).await == "0").await;
    let lease = look(&mut bravo).await.lease;
    assert_eq!((lease.holder.as_deref(), lease.seq), (Some("charlie"), 5));
}

#[tokio::test]
async fn who_lets_go_has_nothing_any_more() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    fence_check(&postgres, token).await.unwrap();
    assert_eq!(bravo.hand_over("trading", token, None).await.unwrap(), Some(Epoch(2)));

    let lease = look(&mut bravo).await.lease;
    assert_eq!((lease.holder, lease.epoch, lease.nonce), (None, Epoch(2), None));
    assert_eq!((lease.offered_to, lease.ttl), (None, TTL));
    assert_eq!(bravo.renew("trading", token).await.unwrap(), Renewal::Refused);
    assert_eq!(fence_check(&postgres, token).await, Err("UF001".to_owned()));
    assert!(matches!(bravo.flip(&group, token).await, Err(StoreError::Superseded { .. })));
    let fence = "SELECT epoch, holder, nonce FROM understudy.fence";
    assert_eq!(postgres.rows(fence).await, [["2", "NULL", "NULL"]]);
    assert_eq!(postgres.value("SELECT status FROM understudy.failover").await, "superseded");
}

#[tokio::test]
async fn a_hand_over_is_in_the_history_with_who_asked_for_it() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    let newest = &bravo.history(Some("trading"), 10).await.unwrap()[0];
    assert_eq!(
        (newest.kind, newest.epoch, newest.node.as_str()),
        (RecordKind::HandOver, 2, "bravo")
    );
    assert_eq!(newest.detail["to"], "charlie");
    assert_eq!(newest.detail["from_epoch"], 1);
}

#[tokio::test]
async fn only_the_holder_can_let_go_and_asking_again_gives_the_same_answer() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    let before = postgres.rows("SELECT * FROM understudy.lease, understudy.fence").await;
    let wrong = [Token { nonce: Nonce(2), ..token }, Token { epoch: Epoch(0), ..token }];
    for token in wrong {
        assert_eq!(bravo.hand_over("trading", token, None).await.unwrap(), None);
    }
    assert_eq!(charlie.hand_over("trading", token, None).await.unwrap(), None);
    assert_eq!(bravo.hand_over("unknown", token, None).await.unwrap(), None);
    assert_eq!(postgres.rows("SELECT * FROM understudy.lease, understudy.fence").await, before);

    for _ in 0..2 {
        let begun = bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
        assert_eq!(begun, Some(Epoch(2)));
    }
    let told = "SELECT count(*) FROM understudy.event WHERE kind = 'hand_over'";
    assert_eq!(postgres.value(told).await, "1");
    assert_eq!(charlie.hand_over("trading", token, None).await.unwrap(), None);
    // Once somebody has it, it is over for good.
    take_by(Way::Offer, &mut charlie, &group, 3).await;
    assert_eq!(bravo.hand_over("trading", token, None).await.unwrap(), None);
}

#[tokio::test]
async fn letting_go_waits_for_transactions_under_the_token() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    let application = postgres.client().await;
    let check =
        format!("SELECT understudy.fence_check('trading', {}, '{}')", token.epoch, token.nonce);
    application.batch_execute(&format!("BEGIN; {check}")).await.unwrap();
    let error = bravo.hand_over("trading", token, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(matches!(bravo.renew("trading", token).await.unwrap(), Renewal::Granted { .. }));

    let (handed_over, ()) = tokio::join!(bravo.hand_over("trading", token, None), async {
        postgres.blocked("understudy").await;
        application.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(handed_over.unwrap(), Some(Epoch(2)));
}

#[tokio::test]
async fn each_way_needs_the_lease_to_be_what_it_says() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let mut delta = node(&postgres, "delta", from_ref(&group));
    let all = [Way::Silent, Way::Free, Way::Again, Way::Offer];
    let refused = async |store: &mut Store, ways: &[Way]| {
        for way in all.iter().filter(|way| !ways.contains(way)) {
            let seen = look(store).await;
            for request in [by(*way, &group, &seen, 99), by_person(by(*way, &group, &seen, 99))] {
                let outcome = store.acquire(&request).await.unwrap();
                assert!(matches!(outcome, AcquireOutcome::Changed { .. }), "{way:?}: {outcome}");
            }
        }
    };

    // Nobody has it.
    refused(&mut bravo, &[Way::Free]).await;
    // Bravo has it.
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    refused(&mut bravo, &[Way::Again, Way::Silent]).await;
    refused(&mut charlie, &[Way::Silent]).await;
    // It was offered to charlie.
    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    assert_eq!(look(&mut bravo).await.lease.offered_to.as_deref(), Some("charlie"));
    refused(&mut bravo, &[Way::Free]).await;
    refused(&mut delta, &[Way::Free]).await;
    refused(&mut charlie, &[Way::Free, Way::Offer]).await;
    take_by(Way::Offer, &mut charlie, &group, 2).await;
    let lease = look(&mut charlie).await.lease;
    assert_eq!((lease.epoch, lease.offered_to), (Epoch(3), None));
    refused(&mut charlie, &[Way::Again, Way::Silent]).await;
}

#[tokio::test]
async fn an_offer_that_is_not_taken_is_free_for_everyone() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    let token = take_by(Way::Free, &mut bravo, &group, 2).await;
    assert_eq!(token.epoch, Epoch(3));
    assert_eq!(look(&mut bravo).await.lease.offered_to, None);
}

#[tokio::test]
async fn of_two_nodes_exactly_one_gets_it_in_each_way() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    (group.cooldown, group.latch_after) = (Duration::ZERO, 100);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    for round in 0..20_u128 {
        for way in [Way::Free, Way::Silent] {
            let seen = look(&mut bravo).await;
            look(&mut charlie).await;
            let nonce = round * 10 + way as u128;
            let requests = (by(way, &group, &seen, nonce), by(way, &group, &seen, nonce + 1000));
            let (one, two) = tokio::join!(bravo.acquire(&requests.0), charlie.acquire(&requests.1));
            let (one, two) = (one.unwrap(), two.unwrap());
            assert!(is_acquired(&one) != is_acquired(&two), "{way:?}: {one} and {two}");
        }
        let lease = look(&mut bravo).await.lease;
        let token = Token { epoch: lease.epoch, nonce: lease.nonce.unwrap() };
        let (holder, other) = match lease.holder.as_deref() {
            Some("bravo") => (&mut bravo, &mut charlie),
            _ => (&mut charlie, &mut bravo),
        };
        // The offer against one who saw that nobody has it, and waited.
        let to = if lease.holder.as_deref() == Some("bravo") { "charlie" } else { "bravo" };
        holder.hand_over("trading", token, Some(to)).await.unwrap();
        let seen = look(other).await;
        let offer = by(Way::Offer, &group, &seen, round * 10 + 5);
        let free = by(Way::Free, &group, &seen, round * 10 + 1005);
        let (one, two) = tokio::join!(other.acquire(&offer), holder.acquire(&free));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(is_acquired(&one) != is_acquired(&two), "{one} and {two}");
        let (winner, token) = match (one, two) {
            (AcquireOutcome::Acquired(token), _) => (other, token),
            (_, AcquireOutcome::Acquired(token)) => (holder, token),
            (one, two) => panic!("{one} and {two}"),
        };
        winner.hand_over("trading", token, None).await.unwrap();
    }
}

#[tokio::test]
async fn a_hold_lets_the_holder_go_on_and_nobody_else() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    take_by(Way::Free, &mut bravo, &group, 1).await;
    bravo.hold("trading", "mallory", "upgrade", None).await.unwrap();
    let token = take_by(Way::Again, &mut bravo, &group, 2).await;
    assert_eq!(token.epoch, Epoch(2));
    let held = |outcome| matches!(outcome, AcquireOutcome::Held { .. });
    let seen = look(&mut charlie).await;
    assert!(held(charlie.acquire(&by(Way::Silent, &group, &seen, 3)).await.unwrap()));

    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    let seen = look(&mut charlie).await;
    for way in [Way::Offer, Way::Free] {
        assert!(held(charlie.acquire(&by(way, &group, &seen, 3)).await.unwrap()), "{way:?}");
        let ordered = by_person(by(way, &group, &seen, 3));
        assert!(held(charlie.acquire(&ordered).await.unwrap()), "{way:?} by order");
    }
    bravo.release("trading", "mallory").await.unwrap();
    take_by(Way::Offer, &mut charlie, &group, 3).await;
}

#[tokio::test]
async fn latch_and_cooldown_stop_what_may_be_a_flapping_and_not_the_rest() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    group.latch_after = 1;
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    take_by(Way::Free, &mut bravo, &group, 1).await;
    // The one automatic failover, which starts the cooldown and latches.
    let mut token = take_by(Way::Silent, &mut charlie, &group, 2).await;
    let lease = look(&mut charlie).await.lease;
    assert!(lease.latched && lease.cooldown_left.is_some());

    for latched in [true, false] {
        let seen = look(&mut bravo).await;
        let refused = bravo.acquire(&by(Way::Silent, &group, &seen, 3)).await.unwrap();
        let expected = |outcome: &AcquireOutcome| match outcome {
            AcquireOutcome::Latched => latched,
            AcquireOutcome::Cooldown { .. } => !latched,
            _ => false,
        };
        assert!(expected(&refused), "{refused}");
        // The holder goes on.
        let nonce = if latched { 4 } else { 5 };
        token = take_by(Way::Again, &mut charlie, &group, nonce).await;
        charlie.acknowledge("trading", "mallory").await.unwrap();
    }
    // Who let go looked at them; what is merely free is refused.
    charlie.hand_over("trading", token, Some("bravo")).await.unwrap();
    let seen = look(&mut charlie).await;
    let refused = charlie.acquire(&by(Way::Free, &group, &seen, 6)).await.unwrap();
    assert!(matches!(refused, AcquireOutcome::Cooldown { .. }), "{refused}");
    take_by(Way::Offer, &mut bravo, &group, 6).await;
}

#[tokio::test]
async fn what_fails_over_by_itself_is_counted_and_nothing_else() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    group.latch_after = 3;
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let counted = async || {
        let count = "SELECT cardinality(recent) FROM understudy.cooldown";
        postgres.value(count).await.parse::<u32>().unwrap()
    };
    take_by(Way::Free, &mut bravo, &group, 1).await;
    let token = take_by(Way::Again, &mut bravo, &group, 2).await;
    assert_eq!(counted().await, 0);
    assert_eq!(postgres.value("SELECT last_at FROM understudy.cooldown").await, "NULL");

    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    let token = take_by(Way::Offer, &mut charlie, &group, 3).await;
    assert_eq!(counted().await, 1);
    take_by(Way::Silent, &mut bravo, &group, 4).await;
    assert_eq!(counted().await, 2);

    // What a person ordered is not.
    let seen = look(&mut charlie).await;
    let ordered = by_person(by(Way::Silent, &group, &seen, 5));
    assert!(is_acquired(&charlie.acquire(&ordered).await.unwrap()));
    let lease = look(&mut charlie).await.lease;
    let current = Token { epoch: lease.epoch, nonce: lease.nonce.unwrap() };
    assert_eq!(charlie.hand_over("trading", token, Some("bravo")).await.unwrap(), None);
    charlie.hand_over("trading", current, Some("bravo")).await.unwrap();
    let seen = look(&mut bravo).await;
    let ordered = by_person(by(Way::Offer, &group, &seen, 6));
    assert!(is_acquired(&bravo.acquire(&ordered).await.unwrap()));
    assert_eq!(counted().await, 2);

    // The third one latches.
    assert!(!look(&mut bravo).await.lease.latched);
    take_by(Way::Silent, &mut charlie, &group, 7).await;
    assert!(look(&mut bravo).await.lease.latched);
}

#[tokio::test]
async fn heartbeats_count_where_silence_is_the_ground_or_where_some_are_given() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let alive = |outcome: AcquireOutcome| matches!(outcome, AcquireOutcome::Alive { .. });

    // Free: what was seen must still be so, but nothing needs to have been seen.
    let seen = look(&mut bravo).await;
    postgres.sql("UPDATE bot_status SET last_heartbeat = last_heartbeat + '1 ms'").await;
    assert!(alive(bravo.acquire(&by(Way::Free, &group, &seen, 1)).await.unwrap()));
    let mut request = by(Way::Free, &group, &seen, 1);
    request.heartbeats.clear();
    assert!(is_acquired(&bravo.acquire(&request).await.unwrap()));

    let seen = look(&mut bravo).await;
    postgres.sql("UPDATE bot_status SET last_heartbeat = last_heartbeat + '1 ms'").await;
    assert!(alive(bravo.acquire(&by(Way::Again, &group, &seen, 2)).await.unwrap()));
    assert!(is_acquired(&bravo.acquire(&without(by(Way::Again, &group, &seen, 2))).await.unwrap()));

    let seen = look(&mut bravo).await;
    assert!(alive(bravo.acquire(&without(by(Way::Silent, &group, &seen, 3))).await.unwrap()));
}

#[tokio::test]
async fn a_group_that_was_stopped_on_purpose_is_not_started_because_nobody_has_it() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    postgres.sql("UPDATE bot_status SET status = 'EMERGENCY_STOPPED'").await;
    let seen = look(&mut bravo).await;
    let mut request = by(Way::Free, &group, &seen, 1);
    request.heartbeats.clear();
    let outcome = bravo.acquire(&request).await.unwrap();
    assert!(matches!(outcome, AcquireOutcome::StoppedOnPurpose { .. }), "{outcome}");
    let outcome = bravo.acquire(&by_person(request)).await.unwrap();
    assert!(is_acquired(&outcome), "{outcome}");
    // The holder goes on: it may have been understudy itself that stopped its units, which say so.
    let seen = look(&mut bravo).await;
    let again = without(by(Way::Again, &group, &seen, 2));
    assert!(is_acquired(&bravo.acquire(&again).await.unwrap()));
}

#[tokio::test]
async fn a_request_that_was_held_up_is_refused_in_every_way() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let refused = |outcome: AcquireOutcome| matches!(outcome, AcquireOutcome::StaleRequest { .. });

    let seen = look(&mut bravo).await;
    assert!(refused(bravo.acquire(&stale(by(Way::Free, &group, &seen, 1))).await.unwrap()));
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    let seen = look(&mut bravo).await;
    assert!(refused(bravo.acquire(&stale(by(Way::Again, &group, &seen, 2))).await.unwrap()));
    let seen = look(&mut charlie).await;
    assert!(refused(charlie.acquire(&stale(by(Way::Silent, &group, &seen, 2))).await.unwrap()));
    // One that was executed after a renewal is not what was seen either.
    bravo.renew("trading", token).await.unwrap();
    let late = charlie.acquire(&by(Way::Silent, &group, &seen, 2)).await.unwrap();
    assert!(matches!(late, AcquireOutcome::Changed { .. }), "{late}");
    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    let seen = look(&mut charlie).await;
    assert!(refused(charlie.acquire(&stale(by(Way::Offer, &group, &seen, 2))).await.unwrap()));
}

#[tokio::test]
async fn a_transaction_pooler_changes_nothing() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let groups = from_ref(&group);
    ready(&postgres, groups).await;
    let pooler = PgBouncer::start(&postgres, &["understudy"]).await;
    let mut settings = postgres.store_as("understudy");
    settings.hosts = vec![pooler.host()];
    let mut bravo = open(&settings, "bravo", groups);
    let mut charlie = open(&settings, "charlie", groups);
    let mut token = take_by(Way::Free, &mut bravo, &group, 1).await;
    for round in 1..=20 {
        let (renewed, refused) =
            tokio::join!(bravo.renew("trading", token), charlie.renew("trading", token));
        assert_eq!(renewed.unwrap(), Renewal::Granted { seq: round });
        assert_eq!(refused.unwrap(), Renewal::Refused);
    }
    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    token = take_by(Way::Offer, &mut charlie, &group, 2).await;
    assert_eq!(charlie.renew("trading", token).await.unwrap(), Renewal::Granted { seq: 1 });
}

#[tokio::test]
async fn a_stricter_isolation_by_default_costs_an_attempt_and_no_safety() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let strict = "ALTER ROLE understudy SET default_transaction_isolation = 'serializable'";
    postgres.sql(strict).await;
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    let mut strict = node(&postgres, "bravo", from_ref(&group));
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    for round in 0..20 {
        let seen = look(&mut charlie).await;
        let silent = by(Way::Silent, &group, &seen, 100 + round);
        let silent = Acquire { min_epoch: Epoch(50), ..silent };
        let (renewed, taken) =
            tokio::join!(strict.renew("trading", token), charlie.acquire(&silent));
        let granted = matches!(renewed, Ok(Renewal::Granted { .. }));
        let taken = taken.unwrap();
        assert!(!(granted && is_acquired(&taken)), "{renewed:?} and {taken}");
        if is_acquired(&taken) {
            assert_eq!(strict.renew("trading", token).await.unwrap(), Renewal::Refused);
            return;
        }
    }
}
