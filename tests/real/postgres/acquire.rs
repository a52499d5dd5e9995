//! Who may take a group, and when not.

use std::time::Duration;

use understudy::adapters::postgres::tenure::{Acquire, AcquireOutcome};
use understudy::adapters::postgres::{ErrorKind, Store};
use understudy::engine::observation::{Bot, Epoch, Nonce, Observation, Token};

use super::{automatic, by_operator, look, look_at, node, open, ready, take};
use crate::support::postgres::{PgBouncer, Postgres, eventually, group};

#[tokio::test]
async fn a_silent_primary_is_replaced_and_history_and_alert_are_in_the_same_commit() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity", "crypto"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    let outcome = store.acquire(&automatic(&group, &seen, 7)).await.unwrap();
    assert_eq!(outcome, AcquireOutcome::Acquired(Token { epoch: Epoch(1), nonce: Nonce(7) }));

    let now = look(&mut store).await;
    assert_eq!(now.lease.holder.as_deref(), Some("bravo"));
    assert_eq!((now.lease.epoch, now.lease.nonce), (Epoch(1), Some(Nonce(7))));
    assert!(now.lease.cooldown_left.is_some_and(|left| left > Duration::from_secs(200)));
    // One transaction wrote all of it.
    let writers = "SELECT count(DISTINCT x) FROM (
        SELECT xmin::text x FROM understudy.lease UNION ALL SELECT xmin::text FROM understudy.fence
        UNION ALL SELECT xmin::text FROM understudy.failover UNION ALL SELECT xmin::text FROM understudy.event
        UNION ALL SELECT xmin::text FROM understudy.alert UNION ALL SELECT xmin::text FROM understudy.cooldown) w";
    assert_eq!(postgres.value(writers).await, "1");
}

#[tokio::test]
async fn asking_again_with_the_same_nonce_finds_out_what_became_of_the_first_request() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    let request = automatic(&group, &seen, 7);
    let AcquireOutcome::Acquired(token) = store.acquire(&request).await.unwrap() else { panic!() };
    // Also when everything else would now refuse it.
    postgres.beat("equity").await;
    store.hold("trading", "mallory", "upgrade", None).await.unwrap();
    let again = Acquire { max_age: Duration::ZERO, ..request };
    assert_eq!(store.acquire(&again).await.unwrap(), AcquireOutcome::Already(token));
    assert_eq!(postgres.value("SELECT count(*) FROM understudy.failover").await, "1");
}

#[tokio::test]
async fn a_lease_that_changed_since_it_was_seen_is_left_alone() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let groups = std::slice::from_ref(&group);
    let mut bravo = ready(&postgres, groups).await;
    let mut charlie = node(&postgres, "charlie", groups);
    let seen = look(&mut charlie).await;
    take(&mut bravo, &group, 7).await;
    assert_eq!(
        charlie.acquire(&automatic(&group, &seen, 8)).await.unwrap(),
        AcquireOutcome::Changed { epoch: Epoch(1), holder: Some("bravo".to_owned()) }
    );
    assert_eq!(
        charlie.acquire(&by_operator(&group, &seen, 9)).await.unwrap(),
        AcquireOutcome::Changed { epoch: Epoch(1), holder: Some("bravo".to_owned()) }
    );
}

#[tokio::test]
async fn evidence_that_is_too_old_is_refused() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    for request in [automatic(&group, &seen, 7), by_operator(&group, &seen, 7)] {
        let outcome = store.acquire(&Acquire { max_age: Duration::ZERO, ..request }).await.unwrap();
        assert!(matches!(outcome, AcquireOutcome::StaleRequest { .. }), "{outcome}");
    }
}

#[tokio::test]
async fn a_request_that_its_client_gave_up_on_does_not_take_over_later() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let groups = std::slice::from_ref(&group);
    ready(&postgres, groups).await;
    let hasty = Duration::from_millis(200);
    let settings = postgres.store_as("understudy");
    let mut store = Store::new(&settings, "bravo", hasty, groups).unwrap();
    let seen = look(&mut store).await;

    // The request waits for the lease, longer than its client, and then longer than its evidence.
    let locker = postgres.client().await;
    locker.batch_execute("BEGIN; SELECT * FROM understudy.lease FOR UPDATE").await.unwrap();
    let request = Acquire { max_age: hasty, ..automatic(&group, &seen, 7) };
    let error = store.acquire(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    locker.batch_execute("COMMIT").await.unwrap();

    let running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'understudy'";
    eventually("the abandoned request to end", async || postgres.value(running).await == "0").await;
    assert_eq!(postgres.value("SELECT holder FROM understudy.lease").await, "alpha");
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_found_by_its_nonce() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let groups = std::slice::from_ref(&group);
    ready(&postgres, groups).await;
    let settings = postgres.store_as("understudy");
    let mut store = Store::new(&settings, "bravo", Duration::from_millis(200), groups).unwrap();
    let seen = look(&mut store).await;
    let locker = postgres.client().await;
    locker.batch_execute("BEGIN; SELECT * FROM understudy.lease FOR UPDATE").await.unwrap();
    let request = automatic(&group, &seen, 7);
    store.acquire(&request).await.unwrap_err();
    locker.batch_execute("COMMIT").await.unwrap();
    let holder = "SELECT holder FROM understudy.lease";
    eventually("the request to be executed", async || postgres.value(holder).await == "bravo")
        .await;
    let outcome = open(&settings, "bravo", groups).acquire(&request).await.unwrap();
    assert_eq!(outcome, AcquireOutcome::Already(Token { epoch: Epoch(1), nonce: Nonce(7) }));
}

#[tokio::test]
async fn a_hold_refuses_everyone_until_it_ends() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    store.hold("trading", "mallory", "kernel upgrade", None).await.unwrap();
    let seen = look(&mut store).await;
    let held =
        AcquireOutcome::Held { by: "mallory".to_owned(), reason: "kernel upgrade".to_owned() };
    assert_eq!(store.acquire(&automatic(&group, &seen, 7)).await.unwrap(), held);
    assert_eq!(store.acquire(&by_operator(&group, &seen, 7)).await.unwrap(), held);

    assert!(store.release("trading", "mallory").await.unwrap());
    assert!(!store.release("trading", "mallory").await.unwrap());
    take(&mut store, &group, 7).await;
}

#[tokio::test]
async fn a_hold_ends_by_itself_when_its_time_is_over() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    store.hold("trading", "m", "short", Some(Duration::from_secs(3600))).await.unwrap();
    let hold = look(&mut store).await.lease.hold.unwrap();
    assert!(hold.left.is_some_and(|left| left <= Duration::from_secs(3600)));
    store.hold("trading", "m", "shorter", Some(Duration::from_millis(1))).await.unwrap();
    eventually("the hold to expire", async || look(&mut store).await.lease.hold.is_none()).await;
    take(&mut store, &group, 7).await;
}

#[tokio::test]
async fn attempts_within_the_window_latch_the_group_until_a_person_has_looked() {
    let postgres = Postgres::start().await;
    let mut group = group("trading", &["equity"]);
    (group.cooldown, group.latch_after) = (Duration::ZERO, 2);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    take(&mut store, &group, 1).await;
    assert!(!look(&mut store).await.lease.latched);
    take(&mut store, &group, 2).await;
    let seen = look(&mut store).await;
    assert!(seen.lease.latched);
    let refused = store.acquire(&automatic(&group, &seen, 3)).await.unwrap();
    assert_eq!(refused, AcquireOutcome::Latched);

    let granted = store.acquire(&by_operator(&group, &seen, 4)).await.unwrap();
    assert!(matches!(granted, AcquireOutcome::Acquired(_)), "{granted}");
    assert!(store.acknowledge("trading", "mallory").await.unwrap());
    assert!(!store.acknowledge("trading", "mallory").await.unwrap());
    // The count starts again, too.
    take(&mut store, &group, 5).await;
    assert!(!look(&mut store).await.lease.latched);
}

#[tokio::test]
async fn an_attempt_starts_the_cooldown_for_every_node_but_not_for_a_person() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let groups = std::slice::from_ref(&group);
    let mut bravo = ready(&postgres, groups).await;
    take(&mut bravo, &group, 1).await;
    let mut charlie = node(&postgres, "charlie", groups);
    let seen = look(&mut charlie).await;
    let refused = charlie.acquire(&automatic(&group, &seen, 2)).await.unwrap();
    assert!(
        matches!(refused, AcquireOutcome::Cooldown { left } if left > Duration::from_secs(200))
    );
    let granted = charlie.acquire(&by_operator(&group, &seen, 3)).await.unwrap();
    assert!(matches!(granted, AcquireOutcome::Acquired(_)), "{granted}");
}

#[tokio::test]
async fn spans_may_be_for_ever() {
    let postgres = Postgres::start().await;
    let mut group = group("trading", &["equity"]);
    (group.cooldown, group.latch_window) = (Duration::MAX, Duration::MAX);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    store.hold("trading", "m", "r", Some(Duration::MAX)).await.unwrap();
    store.release("trading", "m").await.unwrap();
    let seen = look(&mut store).await;
    let request = Acquire { max_age: Duration::MAX, ..automatic(&group, &seen, 1) };
    let granted = store.acquire(&request).await.unwrap();
    assert!(matches!(granted, AcquireOutcome::Acquired(_)), "{granted}");
    assert!(look(&mut store).await.lease.cooldown_left.is_some());
}

#[tokio::test]
async fn a_clock_that_goes_back_starts_the_cooldown_again_and_does_not_end_it() {
    let postgres = Postgres::options().clock().start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    postgres.set_clock("+2h");
    take(&mut store, &group, 1).await;
    postgres.set_clock("+0");

    let seen = look(&mut store).await;
    let refused = store.acquire(&automatic(&group, &seen, 2)).await.unwrap();
    assert!(matches!(refused, AcquireOutcome::Cooldown { .. }), "{refused}");
    let left = look(&mut store).await.lease.cooldown_left.unwrap();
    assert!(left <= group.cooldown, "two hours are not added: {left:?}");

    postgres.set_clock("+301");
    assert_eq!(look(&mut store).await.lease.cooldown_left, None);
    take(&mut store, &group, 3).await;
}

#[tokio::test]
async fn a_clock_that_goes_back_between_look_and_request_makes_the_evidence_worthless() {
    let postgres = Postgres::options().clock().start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    postgres.set_clock("-1h");
    let refused = store.acquire(&automatic(&group, &seen, 1)).await.unwrap();
    assert!(matches!(refused, AcquireOutcome::StaleRequest { age_ms } if age_ms < 0), "{refused}");
    let after = look(&mut store).await;
    assert_eq!(bots_without_age(&seen), bots_without_age(&after), "a clock is no sign of life");
}

#[tokio::test]
async fn a_heartbeat_after_the_last_look_keeps_the_primary() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["crypto", "equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    postgres.sql("UPDATE bot_status SET last_heartbeat = last_heartbeat + '1 ms' WHERE bot_name = 'equity'").await;
    let alive = AcquireOutcome::Alive { bot: Some("equity".to_owned()), locked: false };
    assert_eq!(store.acquire(&automatic(&group, &seen, 1)).await.unwrap(), alive);
    // A person who gave no heartbeats has looked elsewhere.
    let granted = store.acquire(&by_operator(&group, &seen, 2)).await.unwrap();
    assert!(matches!(granted, AcquireOutcome::Acquired(_)), "{granted}");
}

#[tokio::test]
async fn a_heartbeat_that_is_being_written_keeps_the_primary() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    let bot = postgres.client().await;
    bot.batch_execute("BEGIN; UPDATE bot_status SET last_heartbeat = NOW()").await.unwrap();
    let alive = AcquireOutcome::Alive { bot: None, locked: true };
    assert_eq!(store.acquire(&automatic(&group, &seen, 1)).await.unwrap(), alive);
    bot.batch_execute("ROLLBACK").await.unwrap();
    take(&mut store, &group, 1).await;
}

#[tokio::test]
async fn a_foreign_key_that_points_at_the_row_is_no_sign_of_life() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    postgres.sql("CREATE TABLE trade (bot text REFERENCES bot_status (bot_name))").await;
    let report = postgres.client().await;
    report.batch_execute("BEGIN; INSERT INTO trade VALUES ('equity')").await.unwrap();
    take(&mut store, &group, 1).await;
}

#[tokio::test]
async fn a_request_without_any_evidence_is_not_automatic() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    let request = Acquire { heartbeats: Vec::new(), ..automatic(&group, &seen, 1) };
    let alive = AcquireOutcome::Alive { bot: None, locked: false };
    assert_eq!(store.acquire(&request).await.unwrap(), alive);
}

#[tokio::test]
async fn only_the_silent_bots_of_a_group_are_looked_at_once_more() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["crypto", "equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    let mut request = automatic(&group, &seen, 1);
    request.heartbeats.retain(|(bot, _)| bot == "equity");
    let other = postgres.client().await;
    other
        .batch_execute("BEGIN; UPDATE bot_status SET cash = 1 WHERE bot_name = 'crypto'")
        .await
        .unwrap();
    let granted = store.acquire(&request).await.unwrap();
    assert!(matches!(granted, AcquireOutcome::Acquired(_)), "{granted}");
}

#[tokio::test]
async fn a_bot_that_was_stopped_on_purpose_stays_stopped() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["crypto", "equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    postgres
        .sql("UPDATE bot_status SET status = 'EMERGENCY_STOPPED' WHERE bot_name = 'crypto'")
        .await;
    let mut request = automatic(&group, &seen, 1);
    request.heartbeats.retain(|(bot, _)| bot == "equity");
    assert_eq!(
        store.acquire(&request).await.unwrap(),
        AcquireOutcome::StoppedOnPurpose {
            bot: "crypto".to_owned(),
            status: "EMERGENCY_STOPPED".to_owned()
        }
    );
}

#[tokio::test]
async fn a_group_that_the_store_does_not_know_is_not_made_up() {
    let postgres = Postgres::start().await;
    let known = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&known)).await;
    let seen = look(&mut store).await;
    let unknown = group("typo", &["equity"]);
    let outcome = store.acquire(&automatic(&unknown, &seen, 1)).await.unwrap();
    assert_eq!(outcome, AcquireOutcome::NoSuchGroup);
}

#[tokio::test]
async fn a_takeover_waits_for_transactions_under_the_old_token() {
    let postgres = Postgres::start().await;
    let mut group = group("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let old = take(&mut store, &group, 1).await;

    let application = postgres.client().await;
    let check = format!("SELECT understudy.fence_check('trading', {}, '{}')", old.epoch, old.nonce);
    application.batch_execute(&format!("BEGIN; {check}")).await.unwrap();
    let seen = look(&mut store).await;
    let outcome = store.acquire(&automatic(&group, &seen, 2)).await.unwrap();
    assert_eq!(outcome, AcquireOutcome::Busy);
    application.batch_execute("COMMIT").await.unwrap();
    take(&mut store, &group, 2).await;
    let refused = application.batch_execute(&check).await.unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("UF001"));
}

#[tokio::test]
async fn epochs_go_on_above_those_that_a_restored_store_has_forgotten() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    let request = Acquire { min_epoch: Epoch(41), ..automatic(&group, &seen, 1) };
    let outcome = store.acquire(&request).await.unwrap();
    assert_eq!(outcome, AcquireOutcome::Acquired(Token { epoch: Epoch(42), nonce: Nonce(1) }));
}

#[tokio::test]
async fn of_two_standbys_exactly_one_takes_each_group() {
    let postgres = Postgres::start().await;
    let names: Vec<String> = (0..20).map(|n| format!("group{n}")).collect();
    let groups: Vec<_> = names.iter().map(|name| group(name, &["equity"])).collect();
    let mut bravo = ready(&postgres, &groups).await;
    let mut charlie = node(&postgres, "charlie", &groups);
    for (number, group) in groups.iter().enumerate() {
        let nonce = number as u128;
        let seen = look_at(&mut bravo, number).await;
        look(&mut charlie).await;
        let (one, two) = (automatic(group, &seen, nonce), automatic(group, &seen, nonce + 1000));
        let (one, two) = tokio::join!(bravo.acquire(&one), charlie.acquire(&two));
        let won = |outcome: &AcquireOutcome| matches!(outcome, AcquireOutcome::Acquired(_));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(won(&one) != won(&two), "{one} and {two}");
    }
}

#[tokio::test]
async fn a_hold_and_a_takeover_at_the_same_time_come_one_after_the_other() {
    let postgres = Postgres::start().await;
    let names: Vec<String> = (0..20).map(|n| format!("group{n}")).collect();
    let groups: Vec<_> = names.iter().map(|name| group(name, &["equity"])).collect();
    let mut store = ready(&postgres, &groups).await;
    let mut person = node(&postgres, "laptop", &groups);
    look(&mut person).await;
    for (number, group) in groups.iter().enumerate() {
        let seen = look_at(&mut store, number).await;
        let request = automatic(group, &seen, number as u128);
        let (taken, held) =
            tokio::join!(store.acquire(&request), person.hold(&group.name, "m", "stop", None));
        held.unwrap();
        let order = postgres
            .value(&format!(
                "SELECT string_agg(kind, ' ' ORDER BY id) FROM understudy.event WHERE grp = '{}'",
                group.name
            ))
            .await;
        match taken.unwrap() {
            // Their locks decide the order; the events may be numbered the other way round.
            AcquireOutcome::Acquired(_) => assert!(order.contains("acquired"), "{order}"),
            AcquireOutcome::Held { .. } => assert_eq!(order, "hold"),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_hold_that_came_first_is_waited_for_without_a_deadlock() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let seen = look(&mut store).await;
    let person = postgres.client().await;
    person.batch_execute("BEGIN; UPDATE understudy.control SET held_by = 'm'").await.unwrap();
    let request = automatic(&group, &seen, 1);
    let (outcome, ()) = tokio::join!(store.acquire(&request), async {
        postgres.blocked("understudy").await;
        let told = "INSERT INTO understudy.event (grp, epoch, kind, node)
                    VALUES ('trading', 0, 'hold', 'laptop'); COMMIT";
        person.batch_execute(told).await.unwrap();
    });
    assert!(matches!(outcome, Ok(AcquireOutcome::Held { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_flip_under_the_old_token_and_a_takeover_do_not_deadlock() {
    let postgres = Postgres::start().await;
    let mut group = group("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let old = take(&mut store, &group, 1).await;
    let seen = look(&mut store).await;
    // The flip has checked its token and is about to write the row.
    let flip = postgres.client().await;
    let check = format!("SELECT understudy.fence_check('trading', {}, '{}')", old.epoch, old.nonce);
    flip.batch_execute(&format!("BEGIN; {check}")).await.unwrap();
    let request = automatic(&group, &seen, 2);
    let (outcome, ()) = tokio::join!(store.acquire(&request), async {
        postgres.blocked("understudy").await;
        let write = "UPDATE bot_status SET status = 'PRIMARY'; COMMIT";
        flip.batch_execute(write).await.unwrap();
    });
    assert!(matches!(outcome, Ok(AcquireOutcome::Acquired(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_takeover_goes_through_a_transaction_pooler() {
    let postgres = Postgres::start().await;
    let mut group = group("trading", &["equity", "crypto"]);
    group.cooldown = Duration::ZERO;
    let groups = std::slice::from_ref(&group);
    ready(&postgres, groups).await;
    let pooler = PgBouncer::start(&postgres, &["understudy", "postgres"]).await;
    let mut settings = postgres.store_as("understudy");
    settings.hosts = vec![pooler.host()];
    let (mut bravo, mut charlie) =
        (open(&settings, "bravo", groups), open(&settings, "charlie", groups));
    for round in 1..10 {
        let (one, two) = tokio::join!(bravo.observe(), charlie.observe());
        let (one, two) =
            (one.unwrap().groups.remove(0).unwrap(), two.unwrap().groups.remove(0).unwrap());
        let requests = (automatic(&group, &one, round), automatic(&group, &two, round + 100));
        let (one, two) = tokio::join!(bravo.acquire(&requests.0), charlie.acquire(&requests.1));
        let (store, token) = match (one.unwrap(), two.unwrap()) {
            (AcquireOutcome::Acquired(token), _) => (&mut bravo, token),
            (_, AcquireOutcome::Acquired(token)) => (&mut charlie, token),
            (one, two) => panic!("{one} and {two}"),
        };
        store.flip(&group, token).await.unwrap();
        store.acknowledge("trading", "test").await.unwrap();
    }
    let identity = look(&mut bravo).await.store;
    assert_eq!(look(&mut bravo).await.store, identity, "whichever session of the pool answers");

    let as_admin = understudy::config::settings::Store { user: "postgres".to_owned(), ..settings };
    understudy::adapters::postgres::setup::setup(&as_admin, &super::plan(groups)).await.unwrap();
}

#[tokio::test]
async fn a_call_that_was_cancelled_leaves_nothing_behind() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let before = look(&mut store).await;
    let locker = postgres.client().await;
    locker.batch_execute("BEGIN; LOCK TABLE understudy.control").await.unwrap();
    let cancelled = tokio::time::timeout(Duration::from_millis(50), store.observe()).await;
    assert!(cancelled.is_err());
    locker.batch_execute("COMMIT").await.unwrap();
    let after = look(&mut store).await;
    assert_ne!(before.store, after.store, "a new connection, so a new window");
}

fn bots_without_age(seen: &Observation) -> Vec<String> {
    let text = |bot: &Bot| match bot {
        Bot::Beat { value, status, .. } => format!("{value} {status}"),
        Bot::Missing | Bot::Duplicate { .. } | Bot::Null { .. } => format!("{bot:?}"),
    };
    seen.bots.iter().map(text).collect()
}
