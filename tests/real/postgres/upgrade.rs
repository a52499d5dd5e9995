//! A store that an understudy of version 1 made, and that is in use.

use std::slice::from_ref;

use understudy::adapters::postgres::setup::{self, SCHEMA_VERSION};
use understudy::adapters::postgres::{ErrorKind, StoreError};
use understudy::config::settings::Group;
use understudy::engine::observation::{Epoch, Nonce, Token};

use super::{automatic, look, node, plan, set_up};
use crate::support::postgres::{Postgres, group};

const VERSION_1: &str =
    include_str!("../../../src/adapters/postgres/migrations/0001_observed_mode.sql");

/// What was in use with version 1: each table has a row.
const IN_USE: &str = "
INSERT INTO lease VALUES ('trading', 3, 'bravo', '00000000-0000-0000-0000-000000000007', 0, '2026-01-01Z');
INSERT INTO fence SELECT grp, epoch, holder, nonce FROM lease;
INSERT INTO control VALUES ('trading', 'mallory', 'upgrade', NULL, '2026-01-02Z');
INSERT INTO cooldown VALUES ('trading', '2026-01-01Z', ARRAY['2026-01-01Z'::timestamptz]);
INSERT INTO failover VALUES ('00000000-0000-0000-0000-000000000007', 'trading', 3, 'automatic', 'bravo',
  NULL, NULL, 'finish', 'done', '{\"silent_for_ms\": 60000}', '2026-01-01Z', '2026-01-01 00:01Z');
INSERT INTO node_role VALUES ('trader', 'bravo');
INSERT INTO event (grp, epoch, kind, node, failover, step, outcome)
  VALUES ('trading', 3, 'acquired', 'bravo', '00000000-0000-0000-0000-000000000007', 'acquire', 'done');
INSERT INTO alert VALUES (gen_random_uuid(), 'trading', 3, 'bravo', 'critical', '{\"a\": 1}');
GRANT USAGE ON SCHEMA understudy TO understudy;
GRANT SELECT, UPDATE ON lease, fence, control, cooldown TO understudy;
GRANT SELECT ON store_id TO understudy;
GRANT SELECT, INSERT, UPDATE ON failover, event, alert TO understudy;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA understudy TO understudy;
";

const TABLES: [&str; 9] = [
    "store_id",
    "lease",
    "fence",
    "control",
    "cooldown",
    "failover",
    "node_role",
    "event",
    "alert",
];

async fn version_1(postgres: &Postgres) -> Group {
    postgres.create_bot_status().await;
    postgres.beat("equity").await;
    for role in ["understudy", "trader"] {
        postgres.create_role(role).await;
    }
    let migration = VERSION_1.replace("@schema@", "understudy");
    let script = format!(
        "CREATE SCHEMA understudy; SET search_path = understudy, pg_temp; {migration}; {IN_USE}"
    );
    postgres.sql(&script).await;
    group("trading", &["equity"])
}

/// Every row, without the columns that version 2 added and without the version itself.
async fn rows(postgres: &Postgres) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let query = format!(
            "SELECT to_jsonb(t) - 'ttl_ms' - 'offered_to' - 'renewed_at' - 'schema_version'
               FROM understudy.{table} t"
        );
        let rows = postgres.rows(&query).await;
        assert_eq!(rows.len(), 1, "{table}");
        all.extend(rows.into_iter().flatten().map(|row| format!("{table}: {row}")));
    }
    all
}

#[tokio::test]
async fn setup_makes_a_store_in_use_the_present_version_and_loses_nothing() {
    let postgres = Postgres::start().await;
    let group = version_1(&postgres).await;
    let before = rows(&postgres).await;
    let done = set_up(&postgres, from_ref(&group)).await;
    assert_eq!((done.version_before, done.version), (Some(1), SCHEMA_VERSION));
    assert_eq!((done.new_groups, done.missing_grants), (vec![], vec![]));
    assert_eq!(rows(&postgres).await, before);

    // The tenure goes on, and so does everything after it.
    let mut bravo = node(&postgres, "bravo", from_ref(&group));
    let seen = look(&mut bravo).await;
    assert_eq!((seen.lease.epoch, seen.lease.nonce), (Epoch(3), Some(Nonce(7))));
    assert!(seen.lease.latched);
    assert_eq!(seen.lease.hold.map(|hold| hold.by).as_deref(), Some("mallory"));
    let token = Token { epoch: Epoch(3), nonce: Nonce(7) };
    bravo.flip(&group, token).await.unwrap();
    bravo.acknowledge("trading", "mallory").await.unwrap();
    bravo.release("trading", "mallory").await.unwrap();
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let seen = look(&mut charlie).await;
    let outcome = charlie.acquire(&automatic(&group, &seen, 8)).await.unwrap();
    assert_eq!(outcome.to_string(), "acquired with epoch 4");
}

#[tokio::test]
async fn an_upgraded_schema_is_the_same_as_a_new_one() {
    let postgres = Postgres::start().await;
    let group = version_1(&postgres).await;
    set_up(&postgres, from_ref(&group)).await;
    let columns = "SELECT table_name, column_name, data_type, is_nullable, column_default, grantee, privilege_type
        FROM information_schema.columns LEFT JOIN information_schema.column_privileges
          USING (table_schema, table_name, column_name)
       WHERE table_schema = 'understudy' AND grantee IS DISTINCT FROM 'postgres' ORDER BY 1, 2, 6, 7";
    let functions = "SELECT p.oid::regprocedure, p.prosrc, p.proconfig, has_function_privilege('understudy', p.oid, 'EXECUTE')
        FROM pg_proc p WHERE p.pronamespace = 'understudy'::regnamespace
         AND p.proname NOT IN ('fence_check', 'fence_by_role', 'epoch_only_grows', 'identity', 'beats', 'flip') ORDER BY 1";
    let (upgraded_columns, upgraded_functions) =
        (postgres.rows(columns).await, postgres.rows(functions).await);
    postgres.sql("DROP SCHEMA understudy CASCADE").await;
    set_up(&postgres, from_ref(&group)).await;
    assert_eq!(upgraded_functions, postgres.rows(functions).await);
    let new: Vec<_> = postgres.rows(columns).await;
    // Version 1 had granted these by hand, and setup takes no right away.
    let upgraded: Vec<_> = upgraded_columns.into_iter().filter(|row| new.contains(row)).collect();
    assert_eq!(upgraded, new);
}

#[tokio::test]
async fn a_store_of_version_1_is_not_used_and_says_what_to_do() {
    let postgres = Postgres::start().await;
    let group = version_1(&postgres).await;
    let mut bravo = node(&postgres, "bravo", from_ref(&group));
    let token = Token { epoch: Epoch(3), nonce: Nonce(7) };
    let errors = [
        bravo.observe().await.map(|_| ()).unwrap_err(),
        bravo.renew("trading", token).await.map(|_| ()).unwrap_err(),
        bravo.hand_over("trading", token, None).await.map(|_| ()).unwrap_err(),
        bravo.report_members(Nonce(1), 1, &[]).await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(error, StoreError::SchemaTooOld { found: 1, needed: SCHEMA_VERSION, .. }),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().ends_with("run `understudy setup`"), "{error}");
    }
    let lease = "SELECT holder, epoch, seq FROM understudy.lease";
    assert_eq!(postgres.rows(lease).await, [["bravo", "3", "0"]]);
}

#[tokio::test]
async fn the_printed_script_upgrades_too_and_a_later_one_is_refused_by_the_earlier() {
    let postgres = Postgres::start().await;
    let group = version_1(&postgres).await;
    let script = setup::script(&plan(from_ref(&group)));
    assert!(script.contains("found < 1") && script.contains("found < 2"));
    for _ in 0..2 {
        postgres.sql(&script).await;
    }
    let found = postgres.value("SELECT schema_version FROM understudy.store_id").await;
    assert_eq!(found, SCHEMA_VERSION.to_string());
    let newer = format!("found > {SCHEMA_VERSION} THEN");
    assert!(script.contains(&newer));
    let version_1_script = script.replace(&newer, "found > 1 THEN");
    let client = postgres.client().await;
    let error = client.batch_execute(&version_1_script).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("UF010"));
}
