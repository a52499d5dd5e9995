//! Examines the store for `understudy check`, without changing anything.
//!
//! The answer is data; what of it is a fault, and how to put it, is for the caller. Unlike
//! `observe`, this may take several statements.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio_postgres::types::Type;

use super::connection::Connection;
use super::error::{Fault, StoreError};
use super::observe::Identity;
use super::{Store, mapping, quote_identifier, setup};
use crate::config::settings::Group;

/// What the store looks like to the role that is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The server that answered.
    pub server: String,
    /// The server itself.
    pub facts: Facts,
    /// Version of understudy's schema; `None` if it was never set up.
    pub schema_version: Option<i32>,
    /// Version that this binary works with.
    pub schema_version_needed: i32,
    /// Identity of the store, if the schema is set up: system identifier, timeline, uuid.
    pub identity: Option<(String, String, String)>,
    /// Rights on understudy's own objects that the role lacks.
    pub missing_rights: Vec<String>,
    /// Each group, in the order of the configuration.
    pub groups: Vec<GroupInspection>,
}

/// The server, as its catalogues say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Facts {
    /// As in `server_version_num`: 150018 is 15.18. At least 130000 is needed.
    pub version: i32,
    /// Role that is logged in.
    pub role: String,
    /// Whether that role may do everything.
    pub superuser: bool,
    /// Whether the server is a standby, or being restored.
    pub recovering: bool,
    /// Whether transactions are read-only.
    pub read_only: bool,
    /// Whether the server sees our connection as encrypted. Behind a pooler that is the pooler's.
    pub encrypted: bool,
    /// Time zone of our session, in which a heartbeat without one is read.
    pub time_zone: String,
    /// `fsync`: if off, a crash may take a lease back.
    pub fsync: bool,
    /// `synchronous_commit`: if off, a crash may take the last commits back.
    pub synchronous_commit: String,
}

/// A group, as the store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInspection {
    /// Its name.
    pub group: String,
    /// Whether it has a lease; if not, `understudy setup` makes one.
    pub known: bool,
    /// Where its heartbeats are.
    pub heartbeats: Heartbeats,
    /// Number of rows for each configured bot; empty if they may not be read.
    pub rows: Vec<(String, u64)>,
    /// Names in the table that no bot of this group has, up to [`OTHER_NAMES_MAX`] of them.
    pub other_names: Vec<String>,
}

/// A heartbeat table, and what the role may do with it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Heartbeats {
    /// What it is: `r` a table, `p` a partitioned one, `v` a view; `None` if it does not exist.
    pub relation_kind: Option<String>,
    /// Whether the role may look into its schema.
    pub schema_usage: bool,
    /// Whether a crash of the server empties it.
    pub unlogged: bool,
    /// Whether row security may hide rows from the role.
    pub row_security: bool,
    /// Column with the name.
    pub name_column: Column,
    /// Column with the heartbeat.
    pub beat_column: Column,
    /// Column with the status.
    pub status_column: Column,
}

impl Heartbeats {
    /// Whether a heartbeat says when it was without saying in which time zone.
    #[must_use]
    pub fn lacks_time_zone(&self) -> bool {
        let no_zone = |data_type: &String| {
            data_type.starts_with("timestamp") && data_type.ends_with("without time zone")
        };
        self.beat_column.data_type.as_ref().is_some_and(no_zone)
    }
}

/// A column, and what the role may do with it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// Its type, as the server writes it; `None` if there is no such column.
    pub data_type: Option<String>,
    /// Whether the role may read it.
    pub select: Option<bool>,
    /// Whether the role may write it.
    pub update: Option<bool>,
}

impl Column {
    /// Whether it is there and the role may read it.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.select == Some(true)
    }

    pub(super) fn writable(&self) -> bool {
        self.update == Some(true)
    }
}

/// Enough to recognise a misspelt name, and no more than fits a screen.
pub const OTHER_NAMES_MAX: i64 = 20;

impl Store {
    /// Examines server, schema, rights and heartbeat tables.
    ///
    /// # Errors
    /// If no server can be logged in to, or it does not answer in time. What it lacks is no error here.
    pub async fn inspect(&mut self, groups: &[Group]) -> Result<Inspection, StoreError> {
        self.examine(groups).await.map_err(StoreError::Inspect)
    }

    async fn examine(&mut self, groups: &[Group]) -> Result<Inspection, Fault> {
        let limit = self.reply_timeout;
        let answer = self.connection.query(limit, FACTS, &[]).await?;
        let server = answer.server;
        let facts: Facts = read(&server, answer.rows.first())?;
        let quoted = self.quoted_schema.clone();

        let usage =
            "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1";
        let answer = self.connection.query(limit, usage, &[(&self.schema, Type::TEXT)]).await?;
        let readable = answer.rows.first().map(|row| row.get::<_, bool>(0));
        let mut missing_rights = match readable {
            Some(false) => vec![format!("USAGE ON SCHEMA {quoted}")],
            Some(true) => self.missing_rights().await?,
            None => Vec::new(),
        };
        missing_rights.sort();
        let may_read = |table: &str| {
            let right = format!("SELECT ON {quoted}.{table}");
            readable == Some(true) && !missing_rights.contains(&right)
        };
        let schema_version = match may_read("store_id") {
            true => setup::version(&mut self.connection, &self.schema).await?,
            false => None,
        };
        let known = match may_read("lease") && schema_version.is_some() {
            true => setup::group_names(&mut self.connection, &self.schema).await?,
            false => Vec::new(),
        };
        let identity = match missing_rights.is_empty() && schema_version.is_some() {
            true => Some(self.identity().await?),
            false => None,
        };

        let mut examined = Vec::with_capacity(groups.len());
        for group in groups {
            let heartbeats = heartbeats(&mut self.connection, limit, group, None).await?;
            let can_read = heartbeats.relation_kind.is_some()
                && heartbeats.schema_usage
                && heartbeats.name_column.readable();
            let (rows, other_names) = match can_read {
                true => self.names(group).await?,
                false => (Vec::new(), Vec::new()),
            };
            examined.push(GroupInspection {
                group: group.name.clone(),
                known: known.contains(&group.name),
                heartbeats,
                rows,
                other_names,
            });
        }
        Ok(Inspection {
            server,
            facts,
            schema_version,
            schema_version_needed: setup::SCHEMA_VERSION,
            identity,
            missing_rights,
            groups: examined,
        })
    }

    async fn missing_rights(&mut self) -> Result<Vec<String>, Fault> {
        let names = setup::DAEMON_FUNCTIONS.map(|function| function.split('(').next());
        let answer = self
            .connection
            .query(
                self.reply_timeout,
                RIGHTS,
                &[
                    (&self.schema, Type::TEXT),
                    (&serde_json::json!(setup::TABLE_RIGHTS), Type::JSONB),
                    (&names.as_slice(), Type::TEXT_ARRAY),
                ],
            )
            .await?;
        let quoted = &self.quoted_schema;
        let right = |row: &tokio_postgres::Row| {
            let (right, object): (String, String) = (row.get(0), row.get(1));
            format!("{right} ON {quoted}.{object}")
        };
        Ok(answer.rows.iter().map(right).collect())
    }

    async fn identity(&mut self) -> Result<(String, String, String), Fault> {
        let statement = self.sql("SELECT @schema@.identity()");
        let answer = self.connection.query(self.reply_timeout, &statement, &[]).await?;
        let found: Identity = read(&answer.server, answer.rows.first())?;
        Ok((found.system, found.timeline, found.uuid.to_string()))
    }

    async fn names(&mut self, group: &Group) -> Result<(Vec<(String, u64)>, Vec<String>), Fault> {
        let heartbeats = &group.heartbeats;
        let statement = format!(
            "SELECT {name}::text, count(*), {name}::text = ANY ($1) FROM {schema}.{table} \
             WHERE {name} IS NOT NULL GROUP BY 1, 3 ORDER BY 3 DESC, 1 LIMIT $2",
            name = quote_identifier(&heartbeats.name_column),
            schema = quote_identifier(&heartbeats.table.schema),
            table = quote_identifier(&heartbeats.table.name),
        );
        let limit =
            i64::try_from(group.bots.len()).unwrap_or(i64::MAX).saturating_add(OTHER_NAMES_MAX);
        let answer = self
            .connection
            .query(
                self.reply_timeout,
                &statement,
                &[(&group.bots, Type::TEXT_ARRAY), (&limit, Type::INT8)],
            )
            .await?;
        let (ours, others): (Vec<_>, Vec<_>) = answer
            .rows
            .iter()
            .map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, bool>(2)))
            .partition(|(_, _, configured)| *configured);
        let rows_of = |bot: &String| {
            let found = ours.iter().find(|(name, ..)| name == bot);
            (bot.clone(), found.map_or(0, |(_, rows, _)| rows.unsigned_abs()))
        };
        let others = others.into_iter().map(|(name, ..)| name);
        let others_max = usize::try_from(OTHER_NAMES_MAX).unwrap_or(usize::MAX);
        Ok((group.bots.iter().map(rows_of).collect(), others.take(others_max).collect()))
    }
}

/// What `role`, or else the role that is logged in, may do with a group's heartbeats.
pub(super) async fn heartbeats(
    connection: &mut Connection,
    limit: Duration,
    group: &Group,
    role: Option<&str>,
) -> Result<Heartbeats, Fault> {
    let answer = connection
        .query(limit, HEARTBEATS, &[(&mapping(group), Type::JSONB), (&role, Type::TEXT)])
        .await?;
    read(&answer.server, answer.rows.first())
}

fn read<T: serde::de::DeserializeOwned>(
    server: &str,
    row: Option<&tokio_postgres::Row>,
) -> Result<T, Fault> {
    let value = row.map_or(Value::Null, |row| row.get(0));
    serde_json::from_value(value)
        .map_err(|error| Fault::Answer { server: server.to_owned(), what: error.to_string() })
}

const FACTS: &str = "
SELECT jsonb_build_object(
  'version', current_setting('server_version_num')::int,
  'role', current_user,
  'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'recovering', pg_is_in_recovery(),
  'read_only', current_setting('transaction_read_only') = 'on',
  'encrypted', coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
  'time_zone', current_setting('TimeZone'),
  'fsync', current_setting('fsync') = 'on',
  'synchronous_commit', current_setting('synchronous_commit'))";

/// Which of the rights in $2, as (table, right, columns), and of the functions in $3 this role
/// lacks.
const RIGHTS: &str = "
SELECT n->>1, n->>0 FROM jsonb_array_elements($2) AS needed (n)
  JOIN pg_namespace s ON s.nspname = $1
  JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = n->>0
 WHERE NOT CASE jsonb_array_length(n->2) WHEN 0 THEN has_table_privilege(c.oid, n->>1)
   ELSE (SELECT bool_and(has_column_privilege(c.oid, x, n->>1)) FROM jsonb_array_elements_text(n->2) x) END
UNION ALL
SELECT 'EXECUTE', p.proname || '()' FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace
 WHERE s.nspname = $1 AND p.proname = ANY ($3) AND NOT has_function_privilege(p.oid, 'EXECUTE')";

/// From the catalogues, so that a missing table, column or right is an answer and not an error.
const HEARTBEATS: &str = "
WITH asked AS (
  SELECT $1 AS m, coalesce($2, current_user)::name AS role
), place AS (
  SELECT n.oid AS schema_id, c.oid AS id, c.relkind, c.relpersistence, c.relrowsecurity
    FROM asked JOIN pg_namespace n ON n.nspname = m->>'schema'
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = m->>'table'
         AND c.relkind IN ('r', 'p', 'v', 'f')
), columns AS (
  SELECT jsonb_object_agg(w.part, jsonb_build_object(
      'data_type', format_type(a.atttypid, a.atttypmod),
      'select', CASE WHEN a.attnum IS NOT NULL
        THEN has_column_privilege(asked.role, p.id, a.attnum, 'SELECT') END,
      'update', CASE WHEN a.attnum IS NOT NULL
        THEN has_column_privilege(asked.role, p.id, a.attnum, 'UPDATE') END)) AS found
    FROM asked CROSS JOIN unnest(ARRAY['name_column', 'beat_column', 'status_column']) AS w (part)
    LEFT JOIN place p ON true
    LEFT JOIN pg_attribute a ON a.attrelid = p.id AND a.attname = m->>w.part AND NOT a.attisdropped
)
SELECT columns.found || jsonb_build_object(
  'relation_kind', p.relkind::text,
  'schema_usage', coalesce(has_schema_privilege(asked.role, p.schema_id, 'USAGE'), false),
  'unlogged', coalesce(p.relpersistence = 'u', false),
  'row_security', coalesce(p.relrowsecurity, false))
FROM asked CROSS JOIN columns LEFT JOIN place p ON true";
