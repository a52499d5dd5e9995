//! Makes and upgrades understudy's schema, and gives the daemon's role what it needs of it.
//!
//! There is one script, [`script`]: `setup` runs it, `setup --print` shows it to a DBA, so both do
//! the same. It is one transaction under an advisory lock, it can be run any number of times, and
//! it never resets a row. To change the schema: add a file to `migrations/` and to the list in
//! here.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::connection::Connection;
use super::error::{Fault, StoreError};
use super::inspect::{self, Heartbeats};
use super::{quote_identifier, quote_literal};
use crate::config::settings::{self, Group};

/// What to set up.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Understudy's schema.
    pub schema: &'a str,
    /// Role that the daemon logs in as. It must exist.
    pub daemon_role: &'a str,
    /// Roles of applications that call `fence_check()`, or whose tables have the trigger
    /// `fence_by_role()`. They must exist.
    pub application_roles: &'a [String],
    /// The configured groups. Those in the store and not here are left as they are.
    pub groups: &'a [Group],
}

/// What `setup` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUp {
    /// Version of the schema before; `None` if there was none.
    pub version_before: Option<i32>,
    /// Version now.
    pub version: i32,
    /// Groups that were new to the store.
    pub new_groups: Vec<String>,
    /// Rights on heartbeat tables that the daemon's role lacks because the role which ran `setup`
    /// may not grant them, as statements for the owner of the table.
    pub missing_grants: Vec<String>,
}

/// Version of the schema that this binary works with.
pub const SCHEMA_VERSION: i32 = 3;

/// The schema's history: the first makes version 1 of nothing, the second version 2 of version 1.
/// A migration that has been released is never changed again.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize] = [
    include_str!("migrations/0001_observed_mode.sql"),
    include_str!("migrations/0002_paired_mode.sql"),
    include_str!("migrations/0003_monitoring.sql"),
];

/// Waiting for another `setup`, for applications that use the tables, and the work itself.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// SQLSTATE of a script that is older than the schema.
const NEWER_SCHEMA: &str = "UF010";

/// Runs the script of [`script`], logged in as `login` says; that may be another role than the
/// daemon's.
///
/// # Errors
/// If the store does not answer, or is newer than this binary, or refuses. Nothing is changed then.
pub async fn setup(login: &settings::Store, plan: &Plan<'_>) -> Result<SetUp, StoreError> {
    let mut connection = Connection::new(login, "setup")?;
    let fail = |source| StoreError::Setup { schema: plan.schema.to_owned(), source };
    let version_before = version(&mut connection, plan.schema).await.map_err(fail)?;
    let known = match version_before {
        Some(_) => group_names(&mut connection, plan.schema).await.map_err(fail)?,
        None => Vec::new(),
    };
    if let Err(fault) = connection.script(SETUP_TIMEOUT, &script(plan)).await {
        return Err(match fault.sqlstate().map(tokio_postgres::error::SqlState::code) {
            Some(NEWER_SCHEMA) => StoreError::SchemaTooNew {
                schema: plan.schema.to_owned(),
                found: version_before.unwrap_or_default(),
                known: SCHEMA_VERSION,
            },
            _ => fail(fault),
        });
    }
    let mut missing_grants = Vec::new();
    for group in plan.groups {
        let heartbeats =
            inspect::heartbeats(&mut connection, SETUP_TIMEOUT, group, Some(plan.daemon_role))
                .await
                .map_err(fail)?;
        if !is_granted(&heartbeats) {
            missing_grants.extend(heartbeat_grants(group, plan.daemon_role));
        }
    }
    missing_grants.sort();
    missing_grants.dedup();
    let is_new = |name: &String| !known.contains(name);
    Ok(SetUp {
        version_before,
        version: SCHEMA_VERSION,
        new_groups: plan.groups.iter().map(|group| group.name.clone()).filter(is_new).collect(),
        missing_grants,
    })
}

/// The whole setup as a script for `psql`.
#[must_use]
pub fn script(plan: &Plan<'_>) -> String {
    let schema = quote_identifier(plan.schema);
    let role = quote_identifier(plan.daemon_role);
    let mut script = format!(
        "-- understudy setup, schema version {SCHEMA_VERSION}. May be run any number of times.\n\
         -- psql -v ON_ERROR_STOP=1 -d DATABASE -f THIS_FILE\n\
         BEGIN;\n\
         SET LOCAL client_min_messages = warning;\n\n"
    );

    script.push_str("-- Two at once wait for each other.\n");
    script.push_str(&block(&format!(
        "BEGIN\n  PERFORM pg_advisory_xact_lock(hashtextextended('understudy setup', 0));\n  \
         IF NOT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = {name}) THEN\n    \
         CREATE SCHEMA {schema};\n  END IF;\nEND",
        name = quote_literal(plan.schema),
    )));
    script.push_str(&format!("SET LOCAL search_path = {schema}, pg_temp;\n\n"));

    let table = quote_literal(&format!("{schema}.store_id"));
    let read_version = format!(
        "  IF to_regclass({table}) IS NOT NULL THEN\n    \
         SELECT schema_version INTO STRICT found FROM store_id;\n  END IF;\n"
    );
    script.push_str(&block(&format!(
        "DECLARE\n  found integer := 0;\nBEGIN\n{read_version}  \
         IF found > {SCHEMA_VERSION} THEN\n    \
         RAISE EXCEPTION 'schema version % is newer than this script, which knows {SCHEMA_VERSION}', \
         found USING ERRCODE = '{NEWER_SCHEMA}';\n  END IF;\nEND",
    )));
    for (number, migration) in (1..).zip(MIGRATIONS) {
        script.push_str(&block(&format!(
            "DECLARE\n  found integer := 0;\nBEGIN\n{read_version}  \
             IF found < {number} THEN\n    EXECUTE {};\n    \
             UPDATE store_id SET schema_version = {number};\n  END IF;\nEND",
            dollar_quote(&migration.replace("@schema@", &schema))
        )));
    }

    rows(&mut script, plan);
    our_rights(&mut script, plan, &schema, &role);
    heartbeat_rights(&mut script, plan);
    script.push_str("COMMIT;\n");
    script
}

fn rows(script: &mut String, plan: &Plan<'_>) {
    script.push_str("-- Rows of the configured groups. Those that exist are left alone.\n");
    for group in plan.groups {
        let name = quote_literal(&group.name);
        // In paired mode nobody has a group before a node takes it.
        let primary = match group.paired {
            Some(_) => "NULL".to_owned(),
            None => quote_literal(&group.primary),
        };
        script.push_str(&format!(
            "INSERT INTO lease (grp, holder) VALUES ({name}, {primary}) ON CONFLICT DO NOTHING;\n\
             INSERT INTO fence (grp, epoch, holder, nonce) \
             SELECT grp, epoch, holder, nonce FROM lease WHERE grp = {name} ON CONFLICT DO NOTHING;\n\
             INSERT INTO control (grp) VALUES ({name}) ON CONFLICT DO NOTHING;\n\
             INSERT INTO cooldown (grp) VALUES ({name}) ON CONFLICT DO NOTHING;\n"
        ));
    }
}

fn our_rights(script: &mut String, plan: &Plan<'_>, schema: &str, role: &str) {
    script.push_str("\n-- What the daemon needs, and nothing else.\n");
    script.push_str(&format!(
        "REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC;\n\
         REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC;\n\
         GRANT USAGE ON SCHEMA {schema} TO {role};\n"
    ));
    for (table, right, columns) in TABLE_RIGHTS {
        let columns = match columns {
            [] => String::new(),
            _ => format!(" ({})", columns.join(", ")),
        };
        script.push_str(&format!("GRANT {right}{columns} ON {schema}.{table} TO {role};\n"));
    }
    for function in DAEMON_FUNCTIONS {
        script.push_str(&format!("GRANT EXECUTE ON FUNCTION {schema}.{function} TO {role};\n"));
    }
    for role in plan.application_roles {
        let role = quote_identifier(role);
        script.push_str(&format!("GRANT USAGE ON SCHEMA {schema} TO {role};\n"));
        for function in APPLICATION_FUNCTIONS {
            script.push_str(&format!("GRANT EXECUTE ON FUNCTION {schema}.{function} TO {role};\n"));
        }
    }
}

fn heartbeat_rights(script: &mut String, plan: &Plan<'_>) {
    script.push_str(
        "\n-- Heartbeats: reading three columns, writing one. If only the table's owner may grant that,\n\
         -- a warning says what is left to do, and the rest is set up all the same.\n",
    );
    let mut grants: Vec<String> =
        plan.groups.iter().flat_map(|group| heartbeat_grants(group, plan.daemon_role)).collect();
    grants.sort();
    grants.dedup();
    for grant in grants {
        script.push_str(&block(&format!(
            "BEGIN\n  EXECUTE {statement};\nEXCEPTION WHEN insufficient_privilege OR undefined_table OR \
             undefined_column OR invalid_schema_name THEN\n  \
             RAISE WARNING 'left to do: %  (%)', {statement}, SQLERRM;\nEND",
            statement = quote_literal(&grant)
        )));
    }
}

/// Rights on our own tables: table, right, and the columns if it is not for all. History can be
/// added to and read, but not rewritten.
pub(super) const TABLE_RIGHTS: [(&str, &str, &[&str]); 30] = [
    ("store_id", "SELECT", &[]),
    ("lease", "SELECT", &[]),
    ("lease", "UPDATE", &[]),
    ("fence", "SELECT", &[]),
    ("fence", "UPDATE", &[]),
    ("control", "SELECT", &[]),
    ("control", "UPDATE", &[]),
    ("cooldown", "SELECT", &[]),
    ("cooldown", "UPDATE", &[]),
    ("failover", "SELECT", &[]),
    ("failover", "INSERT", &[]),
    ("failover", "UPDATE", &["step", "status", "ended_at"]),
    ("event", "SELECT", &[]),
    ("event", "INSERT", &[]),
    ("alert", "SELECT", &[]),
    ("alert", "INSERT", &[]),
    ("alert", "UPDATE", &["delivered_at"]),
    ("member", "SELECT", &[]),
    ("member", "INSERT", &[]),
    ("member", "UPDATE", &[]),
    ("request", "SELECT", &[]),
    ("request", "INSERT", &[]),
    ("request", "UPDATE", &["status", "target", "text", "ended_at"]),
    ("check_series", "SELECT", &[]),
    ("check_chunk", "SELECT", &[]),
    ("check_hour", "SELECT", &[]),
    ("check_baseline", "SELECT", &[]),
    ("check_baseline", "INSERT", &[]),
    ("check_baseline", "UPDATE", &[]),
    ("check_baseline", "DELETE", &[]),
];

/// Functions that the daemon calls.
pub(super) const DAEMON_FUNCTIONS: [&str; 14] = [
    "identity()",
    "beats(jsonb, text)",
    "last_look(jsonb, jsonb, boolean, boolean)",
    "acquire(jsonb)",
    "flip(text, bigint, uuid, jsonb)",
    "renew(text, text, bigint, uuid)",
    "hand_over(text, text, bigint, uuid, text)",
    "ask(jsonb)",
    "announce(uuid, text, text)",
    "end_request(uuid, text, text, text)",
    "end_requests(uuid[], text, text, text)",
    "report_members(text, uuid, text, bigint, jsonb)",
    "store_checks(text, jsonb, integer)",
    "forget_checks(integer, integer)",
];

/// Functions for applications.
const APPLICATION_FUNCTIONS: [&str; 2] = ["fence_check(text, bigint, uuid)", "fence_by_role()"];

/// Version of the schema, if it is there.
pub(super) async fn version(
    connection: &mut Connection,
    schema: &str,
) -> Result<Option<i32>, Fault> {
    let exists = "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE n.nspname = $1 AND c.relname = 'store_id'";
    let answer = connection.query(SETUP_TIMEOUT, exists, &[(&schema, Type::TEXT)]).await?;
    if answer.rows.is_empty() {
        return Ok(None);
    }
    let sql = format!("SELECT schema_version FROM {}.store_id", quote_identifier(schema));
    let answer = connection.query(SETUP_TIMEOUT, &sql, &[]).await?;
    Ok(answer.rows.first().map(|row| row.get(0)))
}

/// Groups that the store knows.
pub(super) async fn group_names(
    connection: &mut Connection,
    schema: &str,
) -> Result<Vec<String>, Fault> {
    let sql = format!("SELECT grp FROM {}.lease ORDER BY grp", quote_identifier(schema));
    let answer = connection.query(SETUP_TIMEOUT, &sql, &[]).await?;
    Ok(answer.rows.iter().map(|row| row.get(0)).collect())
}

fn heartbeat_grants(group: &Group, role: &str) -> [String; 2] {
    let heartbeats = &group.heartbeats;
    let schema = quote_identifier(&heartbeats.table.schema);
    let table = quote_identifier(&heartbeats.table.name);
    let status = quote_identifier(&heartbeats.status_column);
    let role = quote_identifier(role);
    [
        format!("GRANT USAGE ON SCHEMA {schema} TO {role}"),
        format!(
            "GRANT SELECT ({name}, {beat}, {status}), UPDATE ({status}) ON {schema}.{table} TO {role}",
            name = quote_identifier(&heartbeats.name_column),
            beat = quote_identifier(&heartbeats.beat_column),
        ),
    ]
}

fn is_granted(heartbeats: &Heartbeats) -> bool {
    heartbeats.schema_usage
        && heartbeats.name_column.readable()
        && heartbeats.beat_column.readable()
        && heartbeats.status_column.readable()
        && heartbeats.status_column.writable()
}

fn block(body: &str) -> String {
    format!("DO {};\n\n", dollar_quote(body))
}

/// `text` in dollar quotes with a tag that is not in it.
fn dollar_quote(text: &str) -> String {
    let tag = (0..)
        .map(|number| format!("$understudy_{number}$"))
        .find(|tag| !text.contains(tag.as_str()))
        .unwrap_or_default();
    format!("{tag}\n{text}\n{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_cannot_end_its_own_quote() {
        let inner = dollar_quote("RAISE NOTICE '$understudy_1$'");
        let outer = dollar_quote(&inner);
        assert!(inner.starts_with("$understudy_0$\n"));
        assert!(outer.starts_with("$understudy_2$\n") && outer.ends_with("\n$understudy_2$"));
    }

    #[test]
    fn names_from_the_configuration_cannot_end_their_quotes() {
        assert_eq!(quote_identifier(r#"a"; DROP"#), r#""a""; DROP""#);
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"\'"), r"E'\\'''");
    }
}
