//! The schema: made once, upgraded, never reset, and no right too many.

use std::process::Command;

use understudy::adapters::postgres::setup::{self, Plan, SCHEMA_VERSION};
use understudy::adapters::postgres::{Store, StoreError};
use understudy::config::settings;

use super::{REPLY_TIMEOUT, look, node, plan, ready, set_up, take};
use crate::support::postgres::{Postgres, group};

#[tokio::test]
async fn setup_can_be_repeated_and_resets_nothing() {
    let postgres = Postgres::start().await;
    let mut groups = vec![group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    take(&mut store, &groups[0], 1).await;
    store.hold("trading", "m", "r", None).await.unwrap();
    let before = look(&mut store).await.lease;
    groups.push(group("new", &["equity"]));
    let done = set_up(&postgres, &groups).await;
    assert_eq!(done.version_before, Some(SCHEMA_VERSION));
    assert_eq!((done.new_groups, done.missing_grants), (vec!["new".to_owned()], vec![]));
    let after = look(&mut store).await.lease;
    assert_eq!(
        (before.epoch, before.nonce, before.holder),
        (after.epoch, after.nonce, after.holder)
    );
    assert_eq!(after.hold.map(|hold| hold.by).as_deref(), Some("m"));
}

#[tokio::test]
async fn two_setups_at_once_are_one() {
    let postgres = Postgres::start().await;
    postgres.create_bot_status().await;
    postgres.create_role("understudy").await;
    let groups = [group("trading", &["equity"])];
    tokio::join!(
        set_up(&postgres, &groups),
        set_up(&postgres, &groups),
        set_up(&postgres, &groups)
    );
    assert_eq!(postgres.value("SELECT count(*) FROM understudy.store_id").await, "1");
}

#[tokio::test]
async fn a_newer_schema_is_not_touched() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    ready(&postgres, &groups).await;
    postgres.sql("UPDATE understudy.store_id SET schema_version = 99").await;
    let groups = [group("trading", &["equity"]), group("new", &["equity"])];
    let error = setup::setup(&postgres.store(), &plan(&groups)).await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaTooNew { found: 99, .. }), "{error}");
    assert_eq!(postgres.value("SELECT count(*) FROM understudy.lease").await, "1");
}

#[tokio::test]
async fn the_existing_table_is_left_as_it_is() {
    let postgres = Postgres::start().await;
    postgres.create_bot_status().await;
    postgres.create_role("understudy").await;
    let dump = || dump(&postgres, "postgres", &["--no-acl", "-t", "public.*"]);
    let before = dump();
    set_up(&postgres, &[group("trading", &["equity"])]).await;
    assert_eq!(dump(), before);
}

#[tokio::test]
async fn a_dba_with_the_printed_script_gets_the_same() {
    let postgres = Postgres::start().await;
    postgres.create_role("understudy").await;
    postgres.create_role("trader").await;
    let groups = [group("trading", &["equity"]), group("it's \\ odd", &["crypto"])];
    let applications = ["trader".to_owned()];
    let plan = Plan { application_roles: &applications, ..plan(&groups) };
    for database in ["by_us", "by_dba"] {
        postgres.create_database(database).await;
        postgres
            .sql_in(
                database,
                "CREATE TABLE bot_status (bot_name text, status text, last_heartbeat timestamptz)",
            )
            .await;
    }
    let login = settings::Store { database: "by_us".to_owned(), ..postgres.store() };
    setup::setup(&login, &plan).await.unwrap();
    let file = postgres.directory().join("setup.sql");
    std::fs::write(&file, setup::script(&plan)).unwrap();
    for _ in 0..2 {
        let psql = Command::new("/usr/lib/postgresql/15/bin/psql")
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "by_dba", "-h"])
            .arg(postgres.socket_directory())
            .args(["-p", &postgres.port().to_string(), "-f"])
            .arg(&file)
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&psql.stderr);
        assert!(psql.status.success() && complaints.is_empty(), "{complaints}");
    }
    let dumped = dump(&postgres, "by_us", &[]);
    assert!(
        dumped.contains("GRANT SELECT(status),UPDATE(status)") && dumped.contains("fence_check")
    );
    assert_eq!(dumped, dump(&postgres, "by_dba", &[]));
    for table in ["lease", "fence", "control", "cooldown"] {
        let query = format!("SELECT * FROM understudy.{table} ORDER BY grp").replace("*", "grp");
        assert_eq!(
            postgres.rows_in("by_us", &query).await,
            postgres.rows_in("by_dba", &query).await
        );
    }
}

#[tokio::test]
async fn names_that_need_quotes_are_quoted() {
    let postgres = Postgres::start().await;
    postgres.create_role("Under \" study").await;
    postgres
        .sql(
            r#"CREATE SCHEMA "my bots"; CREATE TABLE "my bots"."Status; --" ("the ""name" text, "Up" text, "when" timestamptz);
               INSERT INTO "my bots"."Status; --" VALUES ('it''s', 'STANDBY', now())"#,
        )
        .await;
    let mut group = group("it's $understudy_0$ \\", &["it's"]);
    group.heartbeats.table.schema = "my bots".to_owned();
    group.heartbeats.table.name = "Status; --".to_owned();
    group.heartbeats.name_column = "the \"name".to_owned();
    group.heartbeats.status_column = "Up".to_owned();
    group.heartbeats.beat_column = "when".to_owned();
    group.heartbeats.primary_status = "it's \\ up".to_owned();
    let (schema, role) = ("Our \"own' schema", "Under \" study");
    let groups = std::slice::from_ref(&group);
    let plan = Plan { schema, daemon_role: role, ..plan(groups) };
    let done = setup::setup(&postgres.store(), &plan).await.unwrap();
    assert_eq!(done.missing_grants, Vec::<String>::new());
    let settings = settings::Store { schema: schema.to_owned(), ..postgres.store_as(role) };
    let mut store = Store::new(&settings, "bravo", REPLY_TIMEOUT, groups).unwrap();
    let token = take(&mut store, &group, 1).await;
    store.flip(&group, token).await.unwrap();
    assert_eq!(postgres.value(r#"SELECT "Up" FROM "my bots"."Status; --""#).await, "it's \\ up");
    let inspection = store.inspect(groups).await.unwrap();
    assert_eq!(inspection.missing_rights, Vec::<String>::new());
    assert_eq!(inspection.groups[0].rows, [("it's".to_owned(), 1)]);
}

#[tokio::test]
async fn rights_that_only_the_tables_owner_can_give_are_left_to_the_owner() {
    let postgres = Postgres::start().await;
    postgres.create_bot_status().await;
    postgres.create_role("understudy").await;
    postgres.create_role("deployer").await;
    postgres.sql("GRANT CREATE ON DATABASE postgres TO deployer").await;
    let mut later = group("later", &["equity"]);
    later.heartbeats.table.name = "not_yet".to_owned();
    let groups = [group("trading", &["equity"]), later];
    let done = setup::setup(&postgres.store_as("deployer"), &plan(&groups)).await.unwrap();
    assert_eq!(done.new_groups.len(), 2);
    let left: Vec<&str> = done.missing_grants.iter().map(String::as_str).collect();
    let [table, later, _usage] = left.as_slice() else { panic!("{left:?}") };
    assert!(later.contains("\"not_yet\""), "{later}");
    postgres.sql(table).await;
    postgres.beat("equity").await;
    take(&mut node(&postgres, "bravo", &groups[..1]), &groups[0], 1).await;
}

#[tokio::test]
async fn the_daemons_role_can_do_its_work_and_nothing_else() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    let token = take(&mut store, &groups[0], 1).await;
    store.flip(&groups[0], token).await.unwrap();

    let client = postgres.client_as("understudy").await;
    for forbidden in [
        "UPDATE bot_status SET last_heartbeat = now()",
        "UPDATE bot_status SET bot_name = 'x'",
        "INSERT INTO bot_status (id) VALUES ('x')",
        "DELETE FROM bot_status",
        "SELECT account_equity FROM bot_status",
        "TRUNCATE bot_status",
        "DELETE FROM understudy.lease",
        "INSERT INTO understudy.lease (grp) VALUES ('x')",
        "UPDATE understudy.store_id SET schema_version = 0",
        "UPDATE understudy.event SET by_whom = 'someone else'",
        "DELETE FROM understudy.event",
        "UPDATE understudy.failover SET evidence = '{}'",
        "DELETE FROM understudy.failover",
        "DELETE FROM understudy.alert",
        "DELETE FROM understudy.member",
        "DELETE FROM understudy.request",
        "UPDATE understudy.request SET by_whom = 'someone else'",
        "UPDATE understudy.alert SET body = '{}'",
        "CREATE TABLE understudy.x ()",
        "DROP FUNCTION understudy.fence_check",
        "CREATE SCHEMA x",
    ] {
        let error = client.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{forbidden}");
    }
    let error = client.batch_execute("UPDATE understudy.lease SET epoch = 0").await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("UF005"), "epochs only grow");
}

#[tokio::test]
async fn an_application_may_check_its_token_and_nothing_else() {
    let postgres = Postgres::start().await;
    postgres.create_role("trader").await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    let applications = ["trader".to_owned()];
    let plan = Plan { application_roles: &applications, ..plan(&groups) };
    setup::setup(&postgres.store(), &plan).await.unwrap();
    let token = take(&mut store, &groups[0], 1).await;

    let client = postgres.client_as("trader").await;
    let check = |epoch: u64| {
        format!("SELECT understudy.fence_check('trading', {epoch}, '{}')", token.nonce)
    };
    client.batch_execute(&check(1)).await.unwrap();
    for (statement, code) in [
        (check(2), "UF001"),
        ("SELECT * FROM understudy.fence".to_owned(), "42501"),
        ("SELECT understudy.acquire('{}')".to_owned(), "42501"),
        ("SELECT understudy.identity()".to_owned(), "42501"),
        ("INSERT INTO understudy.node_role VALUES ('trader', 'bravo')".to_owned(), "42501"),
    ] {
        let error = client.batch_execute(&statement).await.expect_err(&statement);
        assert_eq!(error.code().map(|code| code.code()), Some(code), "{statement}");
    }
}

#[tokio::test]
async fn a_node_without_the_group_cannot_write_through_a_role_of_its_own() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    for node in ["alpha", "bravo"] {
        postgres.create_role(node).await;
        postgres
            .sql(&format!(
                "GRANT SELECT, UPDATE ON bot_status TO {node};
                 INSERT INTO understudy.node_role VALUES ('{node}', '{node}')"
            ))
            .await;
    }
    postgres
        .sql(
            "CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON bot_status
             FOR EACH STATEMENT EXECUTE FUNCTION understudy.fence_by_role('trading')",
        )
        .await;
    let alpha = postgres.client_as("alpha").await;
    let bravo = postgres.client_as("bravo").await;
    let beat = "UPDATE bot_status SET last_heartbeat = now(), status = 'PRIMARY'";
    alpha.batch_execute(beat).await.unwrap();
    let error = bravo.batch_execute(beat).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("UF002"));
    let token = take(&mut store, &groups[0], 1).await;
    store.flip(&groups[0], token).await.unwrap();
    bravo.batch_execute(beat).await.unwrap();
    let error = alpha.batch_execute(beat).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("UF002"));
}

#[tokio::test]
async fn a_role_that_does_not_exist_is_a_misconfiguration_and_leaves_nothing_behind() {
    let postgres = Postgres::start().await;
    postgres.create_bot_status().await;
    let groups = [group("trading", &["equity"])];
    let error = setup::setup(&postgres.store(), &plan(&groups)).await.unwrap_err();
    assert!(error.is_misconfiguration(), "{error}");
    assert!(error.fault().unwrap().to_string().contains("role \"understudy\" does not exist"));
    assert_eq!(
        postgres.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'understudy'").await,
        "0"
    );
}

#[tokio::test]
async fn a_check_finds_what_a_failover_would_stumble_over() {
    let postgres = Postgres::start().await;
    let mut odd = group("odd", &["equity"]);
    odd.heartbeats.table.name = "nowhere".to_owned();
    let groups = [group("trading", &["equity", "missing"]), odd];
    let mut store = ready(&postgres, &groups).await;
    postgres.sql("DELETE FROM bot_status WHERE bot_name = 'missing'").await;
    postgres.beat("equty").await;
    let found = store.inspect(&groups).await.unwrap();
    assert_eq!(found.schema_version, Some(SCHEMA_VERSION));
    assert_eq!(found.missing_rights, Vec::<String>::new());
    assert!(found.identity.is_some() && found.facts.version >= 130_000);
    assert_eq!((found.facts.role.as_str(), found.facts.superuser), ("understudy", false));
    assert!(!found.facts.fsync && !found.facts.encrypted && !found.facts.read_only);
    let trading = &found.groups[0];
    assert!(trading.known && trading.heartbeats.lacks_time_zone());
    assert_eq!(trading.heartbeats.relation_kind.as_deref(), Some("r"));
    assert_eq!(trading.rows, [("equity".to_owned(), 1), ("missing".to_owned(), 0)]);
    assert_eq!(trading.other_names, ["equty"]);
    let status = &trading.heartbeats.status_column;
    assert_eq!((status.select, status.update), (Some(true), Some(true)));
    let beat = &trading.heartbeats.beat_column;
    assert_eq!(beat.data_type.as_deref(), Some("timestamp(3) without time zone"));
    assert_eq!((beat.select, beat.update), (Some(true), Some(false)));
    assert_eq!(found.groups[1].heartbeats.relation_kind, None);
    assert_eq!(found.groups[1].heartbeats.beat_column.data_type, None);

    postgres
        .sql(
            "REVOKE UPDATE (status) ON bot_status FROM understudy; REVOKE INSERT ON understudy.event FROM understudy;
             REVOKE UPDATE (step) ON understudy.failover FROM understudy;
             REVOKE EXECUTE ON FUNCTION understudy.acquire FROM understudy",
        )
        .await;
    let found = store.inspect(&groups).await.unwrap();
    assert_eq!(found.groups[0].heartbeats.status_column.update, Some(false));
    assert_eq!(
        found.missing_rights,
        [
            "EXECUTE ON \"understudy\".acquire()",
            "INSERT ON \"understudy\".event",
            "UPDATE ON \"understudy\".failover",
        ]
    );
}

#[tokio::test]
async fn a_check_works_before_anything_is_set_up() {
    let postgres = Postgres::start().await;
    postgres.create_role("understudy").await;
    let groups = [group("trading", &["equity"])];
    let found = node(&postgres, "bravo", &groups).inspect(&groups).await.unwrap();
    assert_eq!((found.schema_version, found.identity), (None, None));
    assert!(!found.groups[0].known);
    assert_eq!(found.groups[0].heartbeats.relation_kind, None);
}

fn dump(postgres: &Postgres, database: &str, arguments: &[&str]) -> String {
    let output = Command::new("/usr/lib/postgresql/15/bin/pg_dump")
        .args(["--schema-only", "-U", "postgres", "-d", database, "-h"])
        .arg(postgres.socket_directory())
        .args(["-p", &postgres.port().to_string()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Newer minor versions guard a dump with a random word.
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}
