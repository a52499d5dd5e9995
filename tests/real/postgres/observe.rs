//! What can be said about a group, and what not.

use std::time::Duration;

use understudy::adapters::postgres::observe::GroupFault;
use understudy::adapters::postgres::tenure::AcquireOutcome;
use understudy::adapters::postgres::{ErrorKind, NotWritable, Store, StoreError};
use understudy::config::settings::Group;
use understudy::engine::observation::Bot;
use understudy::time::BootTime;

use super::{automatic, look, node, ready, set_up, take};
use crate::support::postgres::{Postgres, eventually, group};

#[tokio::test]
async fn a_fresh_store_shows_the_primary_as_holder_and_every_heartbeat() {
    let postgres = Postgres::start().await;
    let mut store = ready(&postgres, &[group("trading", &["equity", "crypto"])]).await;
    let seen = look(&mut store).await;
    assert_eq!(seen.lease.holder.as_deref(), Some("alpha"));
    assert_eq!((seen.lease.epoch.0, seen.lease.seq, seen.lease.nonce), (0, 0, None));
    assert_eq!(
        (seen.lease.hold, seen.lease.latched, seen.lease.cooldown_left),
        (None, false, None)
    );
    let stored =
        postgres.value("SELECT last_heartbeat::text FROM bot_status WHERE bot_name = 'equity'");
    let Bot::Beat { value, status, age_ms: Some(age_ms) } = &seen.bots[0] else {
        panic!("{:?}", seen.bots[0]);
    };
    assert_eq!((value, status.as_str()), (&stored.await, "STANDBY"));
    assert!((0..60_000).contains(age_ms), "{age_ms}");
}

#[tokio::test]
async fn rows_that_are_not_one_heartbeat_are_told_apart() {
    let postgres = Postgres::start().await;
    postgres.create_loose_bot_status().await;
    postgres
        .sql(
            "INSERT INTO bot_status (bot_name, status, last_heartbeat) VALUES
             ('twice', 'STANDBY', now()), ('twice', 'STANDBY', now()), ('never', 'STANDBY', NULL),
             ('blank', NULL, NULL), ('forever', 'STANDBY', 'infinity')",
        )
        .await;
    postgres.create_role("understudy").await;
    let groups = [group("trading", &["twice", "missing", "never", "blank", "forever"])];
    set_up(&postgres, &groups).await;
    let seen = look(&mut node(&postgres, "bravo", &groups)).await;
    let status = String::new;
    assert_eq!(
        seen.bots,
        [
            Bot::Duplicate { rows: 2 },
            Bot::Missing,
            Bot::Null { status: "STANDBY".to_owned() },
            Bot::Null { status: status() },
            Bot::Beat { value: "infinity".to_owned(), status: "STANDBY".to_owned(), age_ms: None },
        ]
    );
}

#[tokio::test]
async fn a_session_time_zone_changes_the_age_and_nothing_else() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    let before = beat(&look(&mut store).await.bots[0]);
    let hours = Duration::from_secs(3600).as_millis() as i64;
    for (zone, ahead) in [("America/New_York", [-4, -5]), ("Asia/Tokyo", [9, 9])] {
        postgres.sql(&format!("ALTER ROLE understudy SET timezone = '{zone}'")).await;
        postgres.sql("ALTER ROLE understudy SET datestyle = 'SQL, DMY'").await;
        let mut store = node(&postgres, "bravo", &groups);
        let seen = look(&mut store).await;
        let after = beat(&seen.bots[0]);
        assert_eq!(after.0, before.0);
        let apart = after.1 / hours;
        assert!(ahead.contains(&apart) || ahead.contains(&(apart - 1)), "{zone}: {apart} h");
        let request = automatic(&groups[0], &seen, 1);
        let outcome = store.acquire(&request).await.unwrap();
        assert!(!matches!(outcome, AcquireOutcome::Alive { .. }), "{zone}: {outcome}");
    }
}

#[tokio::test]
async fn a_heartbeat_with_a_time_zone_reads_the_same_in_every_session() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "CREATE TABLE bot_status (bot_name text PRIMARY KEY, status text, last_heartbeat timestamptz);
             INSERT INTO bot_status VALUES ('equity', 'STANDBY', now())",
        )
        .await;
    postgres.create_role("understudy").await;
    let groups = [group("trading", &["equity"])];
    set_up(&postgres, &groups).await;
    let in_utc = beat(&look(&mut node(&postgres, "bravo", &groups)).await.bots[0]);
    postgres.sql("ALTER ROLE understudy SET timezone = 'Asia/Tokyo'").await;
    let mut store = node(&postgres, "bravo", &groups);
    let in_tokyo = beat(&look(&mut store).await.bots[0]);
    assert_eq!(in_utc.0, in_tokyo.0);
    assert!((0..60_000).contains(&in_tokyo.1), "{}", in_tokyo.1);
    take(&mut store, &groups[0], 1).await;
}

#[tokio::test]
async fn heartbeats_may_be_numbers_of_seconds_or_milliseconds_or_anything_that_changes() {
    let postgres = Postgres::start().await;
    postgres.create_role("understudy").await;
    let mut groups = Vec::new();
    let kinds = [
        ("bigint", "extract(epoch FROM now())::bigint", true),
        ("bigint", "(extract(epoch FROM now()) * 1000)::bigint", true),
        ("double precision", "extract(epoch FROM now())", true),
        ("numeric", "extract(epoch FROM now())", true),
        ("integer", "42", false),
        ("double precision", "'NaN'", false),
        ("double precision", "'Infinity'", false),
        ("numeric", "1e300", false),
        ("text", "'tick'", false),
        ("uuid", "gen_random_uuid()", false),
    ];
    for (number, (data_type, value, _)) in kinds.iter().enumerate() {
        let table = format!("Beats {number}");
        postgres
            .sql(&format!(
                "CREATE TABLE \"{table}\" (bot_name text, status text, \"the beat\" {data_type});
                 INSERT INTO \"{table}\" VALUES ('equity', 'STANDBY', {value})"
            ))
            .await;
        let mut group = group(&format!("group{number}"), &["equity"]);
        group.heartbeats.table.name = table;
        group.heartbeats.beat_column = "the beat".to_owned();
        groups.push(group);
    }
    set_up(&postgres, &groups).await;
    let mut store = node(&postgres, "bravo", &groups);
    let all = store.observe().await.unwrap().groups;
    let mut nonce = 0;
    for ((seen, group), (data_type, value, dated)) in all.iter().zip(&groups).zip(kinds) {
        let seen = seen.as_ref().unwrap();
        let Bot::Beat { age_ms, .. } = &seen.bots[0] else { panic!("{data_type} {value}") };
        let fits = age_ms.is_some_and(|age_ms| (-1000..60_000).contains(&age_ms));
        assert_eq!((fits, age_ms.is_some()), (dated, dated), "{data_type} {value}: {age_ms:?}");
        nonce += 1;
        let granted = store.acquire(&automatic(group, seen, nonce)).await.unwrap();
        assert!(matches!(granted, AcquireOutcome::Acquired(_)), "{data_type} {value}: {granted}");
    }
}

#[tokio::test]
async fn a_group_that_cannot_be_read_does_not_blind_the_others() {
    let postgres = Postgres::start().await;
    let well = group("well", &["equity"]);
    let mut no_table = group("no-table", &["equity"]);
    no_table.heartbeats.table.name = "nowhere".to_owned();
    let mut no_column = group("no-column", &["equity"]);
    no_column.heartbeats.beat_column = "nothing".to_owned();
    let mut forbidden = group("forbidden", &["equity"]);
    forbidden.heartbeats.table.schema = "pg_catalog".to_owned();
    forbidden.heartbeats.table.name = "pg_authid".to_owned();
    forbidden.heartbeats.name_column = "rolname".to_owned();
    forbidden.heartbeats.beat_column = "rolpassword".to_owned();
    forbidden.heartbeats.status_column = "rolname".to_owned();
    let groups = [no_table, well, no_column, forbidden];
    let mut store = ready(&postgres, &groups).await;
    postgres.sql("REVOKE ALL (rolname, rolpassword) ON pg_authid FROM understudy").await;
    let seen = store.observe().await.unwrap().groups;
    let fault = |seen: &Result<_, GroupFault>| match seen {
        Err(GroupFault::Heartbeats { sqlstate, .. }) => sqlstate.clone(),
        Err(GroupFault::NoLease { .. }) | Ok(_) => panic!("should not be readable"),
    };
    assert_eq!(fault(&seen[0]), "42P01");
    assert!(seen[1].is_ok());
    assert_eq!(fault(&seen[2]), "42703");
    assert_eq!(fault(&seen[3]), "42501");
}

#[tokio::test]
async fn a_table_that_a_migration_has_locked_does_not_blind_the_others() {
    let postgres = Postgres::start().await;
    let mut locked = group("locked", &["equity"]);
    locked.heartbeats.table.name = "other".to_owned();
    postgres
        .sql("CREATE TABLE other (bot_name text, status text, last_heartbeat timestamptz)")
        .await;
    let mut store = ready(&postgres, &[locked, group("free", &["equity"])]).await;
    let migration = postgres.client().await;
    migration.batch_execute("BEGIN; LOCK TABLE other").await.unwrap();
    let seen = store.observe().await.unwrap().groups;
    let fault = seen[0].as_ref().unwrap_err();
    assert!(
        matches!(fault, GroupFault::Heartbeats { sqlstate, .. } if sqlstate == "55P03"),
        "{fault}"
    );
    assert!(seen[1].is_ok());
}

#[tokio::test]
async fn a_group_without_a_lease_asks_for_setup() {
    let postgres = Postgres::start().await;
    let known = group("known", &["equity"]);
    ready(&postgres, std::slice::from_ref(&known)).await;
    let mut store = node(&postgres, "bravo", &[group("new", &["equity"]), known]);
    let seen = store.observe().await.unwrap().groups;
    let fault = seen[0].as_ref().unwrap_err();
    assert_eq!(*fault, GroupFault::NoLease { group: "new".to_owned() });
    assert!(fault.to_string().contains("understudy setup"));
    assert!(seen[1].is_ok());
}

#[tokio::test]
async fn a_reload_changes_the_groups_and_keeps_the_connection() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"]), group("other", &["crypto"])];
    let mut store = ready(&postgres, &groups).await;
    let before = look(&mut store).await;
    store.watch(&groups[1..]);
    let after = store.observe().await.unwrap();
    assert_eq!(after.groups.len(), 1);
    assert_eq!(after.groups[0].as_ref().unwrap().store, before.store);
}

#[tokio::test]
async fn a_store_that_was_never_set_up_asks_for_setup() {
    let postgres = Postgres::start().await;
    postgres.create_bot_status().await;
    postgres.create_role("understudy").await;
    let groups = [group("trading", &["equity"])];
    let error = node(&postgres, "bravo", &groups).observe().await.unwrap_err();
    assert!(matches!(error, StoreError::NotSetUp { .. }), "{error}");
    assert!(error.to_string().contains("understudy setup") && error.is_misconfiguration());
}

#[tokio::test]
async fn a_schema_of_another_version_is_not_used() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    postgres.sql("UPDATE understudy.store_id SET schema_version = 99").await;
    let error = store.observe().await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaTooNew { found: 99, .. }), "{error}");
    postgres.sql("UPDATE understudy.store_id SET schema_version = 0").await;
    let error = store.observe().await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaTooOld { found: 0, .. }), "{error}");
    // Also when the statement itself no longer fits.
    postgres.sql("ALTER TABLE understudy.lease RENAME holder TO owner").await;
    let error = store.observe().await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaTooOld { found: 0, .. }), "{error}");
    postgres.sql("DELETE FROM understudy.store_id").await;
    let error = store.observe().await.unwrap_err();
    assert!(matches!(error, StoreError::NotSetUp { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_started_again_is_another_store() {
    let mut postgres = Postgres::start().await;
    let mut store = ready(&postgres, &[group("trading", &["equity"])]).await;
    let first = look(&mut store).await.store;
    assert_eq!(look(&mut store).await.store, first);
    postgres.restart().await;
    let second = after_outage(&mut store).await;
    assert_ne!(second, first);
    postgres.kill();
    postgres.resume().await;
    let third = after_outage(&mut store).await;
    assert_ne!(third, second);
    // Not only because the connection is another one.
    let without_connection = |s: &str| s.split(", connection").next().map(str::to_owned);
    assert_ne!(without_connection(&third.0), without_connection(&second.0));
}

#[tokio::test]
async fn a_promoted_standby_is_another_store() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    let before = look(&mut store).await.store;
    let standby = postgres.standby().await;
    standby.promote().await;
    let mut store = node(&standby, "bravo", &groups);
    eventually("the new primary", async || store.observe().await.is_ok()).await;
    let after = look(&mut store).await.store;
    let part = |s: &str, part: usize| s.split(", ").nth(part).map(str::to_owned);
    assert_eq!(part(&before.0, 0), part(&after.0, 0), "same system");
    assert_ne!(part(&before.0, 1), part(&after.0, 1), "another timeline");
}

#[tokio::test]
async fn a_standby_is_no_witness() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    ready(&postgres, &groups).await;
    let standby = postgres.standby().await;
    let error = node(&standby, "bravo", &groups).observe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotWritable, "{error}");
}

#[tokio::test]
async fn a_server_that_becomes_read_only_is_no_witness_any_more() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    let seen = look(&mut store).await;
    postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on").await;
    postgres.sql("SELECT pg_reload_conf()").await;
    eventually("the session to become read-only", async || match store.observe().await {
        Ok(_) => false,
        Err(StoreError::NotWritable { state: NotWritable::ReadOnly, .. }) => true,
        Err(error) => panic!("{error}"),
    })
    .await;
    let error = store.observe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotWritable, "{error}");
    let error = store.acquire(&automatic(&groups[0], &seen, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotWritable, "{error}");
}

#[tokio::test]
async fn a_thousand_groups_are_one_statement() {
    let postgres = Postgres::options().set("log_statement", "all").start().await;
    let groups: Vec<Group> = (0..1000)
        .map(|g| {
            let bots: Vec<String> = (0..10).map(|b| format!("bot-{g}-{b}")).collect();
            let bots: Vec<&str> = bots.iter().map(String::as_str).collect();
            let mut group = group(&format!("group-{g}"), &bots);
            if g % 2 == 1 {
                group.heartbeats.table.name = "other_status".to_owned();
            }
            group
        })
        .collect();
    postgres.create_bot_status().await;
    postgres
        .sql(
            "INSERT INTO bot_status (id, bot_name, status, last_heartbeat, updated_at)
             SELECT b, b, 'STANDBY', now(), now()
             FROM (SELECT 'bot-' || g || '-' || n AS b FROM generate_series(0, 999) g, generate_series(0, 9) n) x;
             CREATE TABLE other_status (LIKE bot_status INCLUDING ALL);
             INSERT INTO other_status SELECT * FROM bot_status",
        )
        .await;
    postgres.create_role("understudy").await;
    set_up(&postgres, &groups).await;
    let mut store = node(&postgres, "bravo", &groups);
    store.observe().await.unwrap();
    let statements = || postgres.log().matches("execute <unnamed>").count();
    let before = statements();
    let began = BootTime::now();
    let seen = store.observe().await.unwrap().groups;
    let took = BootTime::now().since(began);
    eventually("the log", async || statements() > before).await;
    assert_eq!(statements() - before, 1);
    assert_eq!(seen.len(), 1000);
    for seen in &seen {
        let bots = &seen.as_ref().unwrap().bots;
        assert!(bots.iter().all(|bot| matches!(bot, Bot::Beat { .. })) && bots.len() == 10);
    }
    println!("1,000 groups with 10,000 bots: {took:?}");
}

async fn after_outage(store: &mut Store) -> understudy::engine::observation::StoreIdentity {
    // The first call may still meet the connection that broke.
    let _ = store.observe().await;
    look(store).await.store
}

fn beat(bot: &Bot) -> (String, i64) {
    match bot {
        Bot::Beat { value, age_ms: Some(age_ms), .. } => (value.clone(), *age_ms),
        other => panic!("{other:?}"),
    }
}
