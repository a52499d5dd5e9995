//! Postgres: the store of leases and history, and the place of the heartbeats.
//!
//! Intuition first: whatever must be true *together* is one statement and one commit, and what
//! decides runs inside the server, after its locks are held. Out here is only translation:
//! [`observe`] reads everything in one statement, [`tenure`] takes a group and acts in its name,
//! [`paired`] renews the lease, lets go of it, and is what nodes tell one another, [`operator`] writes
//! what people said and reads what happened, [`setup`] makes the schema, [`inspect`] examines it,
//! [`beat`] writes the heartbeat of an application that has none, [`probe`] asks what checks want to
//! know, and [`archive`] keeps what they measured.
//!
//! Nothing is remembered between calls but the connection. To add a call: a statement in one of
//! these modules, a variant of [`StoreError`], a deadline, and a situation in
//! `tests/real/postgres.rs`. To change the schema: a new file in `migrations/`, added to the list
//! in [`setup`].

pub mod archive;
pub mod beat;
mod connection;
mod error;
pub mod inspect;
pub mod observe;
pub mod operator;
pub mod paired;
pub mod probe;
pub mod setup;
pub mod tenure;

use std::time::Duration;

use serde_json::{Value, json};

use self::connection::Connection;
use self::observe::Watched;
use crate::config::settings::{self, Group};

pub use self::error::{Attempt, AttemptFault, ErrorKind, Fault, NotWritable, StoreError};

/// The store, as one node of understudy sees it.
pub struct Store {
    connection: Connection,
    node: String,
    /// Understudy's schema as configured, and quoted for use in a statement.
    schema: String,
    quoted_schema: String,
    reply_timeout: Duration,
    watched: Watched,
}

impl Store {
    /// Prepares to talk to the store about `groups`. Reads certificate authorities if configured,
    /// and does no other I/O: the connection is opened by the first call.
    ///
    /// # Errors
    /// If there is no certificate authority to trust.
    pub fn new(
        store: &settings::Store,
        node: &str,
        reply_timeout: Duration,
        groups: &[Group],
    ) -> Result<Self, StoreError> {
        Ok(Self {
            connection: Connection::new(store, node)?,
            node: node.to_owned(),
            schema: store.schema.clone(),
            quoted_schema: quote_identifier(&store.schema),
            reply_timeout,
            watched: Watched::new(groups),
        })
    }

    /// From now on reads `groups`. The connection stays, so a reload of the configuration costs no
    /// window of observation.
    pub fn watch(&mut self, groups: &[Group]) {
        self.watched = Watched::new(groups);
    }

    /// Puts the name of understudy's schema into a statement.
    fn sql(&self, template: &str) -> String {
        template.replace("@schema@", &self.quoted_schema)
    }
}

/// Where a group's heartbeats are, as the functions of the schema want it.
fn mapping(group: &Group) -> Value {
    let heartbeats = &group.heartbeats;
    json!({
        "schema": heartbeats.table.schema,
        "table": heartbeats.table.name,
        "name_column": heartbeats.name_column,
        "beat_column": heartbeats.beat_column,
        "status_column": heartbeats.status_column,
        "primary_status": heartbeats.primary_status,
        "stopped_statuses": heartbeats.stopped_statuses,
        "bots": group.bots,
    })
}

/// `name` as an identifier of SQL.
fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a literal of SQL, whatever `standard_conforming_strings` says.
fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Longest span that the store is asked to add to a time: a hundred years, which is for ever, and
/// which its own types can still hold.
const SPAN_MAX_MS: i64 = 100 * 365 * 24 * 3600 * 1000;

/// A span as the milliseconds of a `bigint`.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(SPAN_MAX_MS).min(SPAN_MAX_MS)
}
