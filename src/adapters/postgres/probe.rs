//! Asks what checks want to know: one number by a query that only reads.
//!
//! A check's query is a stranger. It runs in a transaction that may only read, for no longer than
//! its deadline on either side, and of what it returns at most two short rows come here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::SimpleQueryMessage;

use super::StoreError;
use super::connection::Connection;
use crate::config::settings;
use crate::error::chain;

/// Connections to one server. Checks are short; with two, one that is slow does not stop the rest.
const CONNECTIONS_MAX: usize = 2;

/// How much of a row is sent to us. A number is shorter.
const ROW_CHARS_MAX: usize = 2_000;

/// A server that checks ask.
pub struct Probe {
    store: settings::Store,
    node: String,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Probe {
    /// Reads certificate authorities if configured, and does no other I/O.
    ///
    /// # Errors
    /// If there is no certificate authority to trust.
    pub fn new(store: &settings::Store, node: &str) -> Result<Self, StoreError> {
        let first = Connection::new(store, node)?.for_checks();
        Ok(Self {
            store: store.clone(),
            node: node.to_owned(),
            idle: Mutex::new(vec![first]),
            places: Semaphore::new(CONNECTIONS_MAX),
        })
    }

    /// Waits for one of its connections to be free, and has it until the answer is dropped.
    pub async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.places.acquire().await.ok()
    }

    /// The number that a query returns, for whoever has a place.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn number(&self, query: &str, limit: Duration) -> Result<f64, String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::new(&self.store, &self.node)
                .map_err(|error| chain(&error))?
                .for_checks(),
        };
        let found = connection.texts(limit, &script(query, limit)).await;
        if found.is_err() {
            // Its transaction would stay open, and failed.
            connection.drop_session();
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        number(&found.map_err(|fault| chain(&fault))?)
    }
}

/// The query as a table of which at most two rows are fetched, each as JSON.
fn script(query: &str, limit: Duration) -> String {
    let bare = query.trim().trim_end_matches(';');
    let millis = limit.as_millis().max(1);
    format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {millis};\n\
         SELECT left(to_json(understudy_check)::text, {ROW_CHARS_MAX}) FROM (\n{bare}\n) \
         AS understudy_check(value) LIMIT 2;\nCOMMIT"
    )
}

fn number(messages: &[SimpleQueryMessage]) -> Result<f64, String> {
    let mut rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0)),
        _ => None,
    });
    let row = match (rows.next(), rows.next()) {
        (None, _) => return Err("the query returned no row".to_owned()),
        (Some(_), Some(_)) => {
            return Err("the query returned more than one row; sum them up, or take one".to_owned());
        }
        (Some(row), None) => row.unwrap_or("null"),
    };
    let not_one = || "the query must return one column with one number".to_owned();
    let value: serde_json::Value = serde_json::from_str(row).map_err(|_| not_one())?;
    let columns = value.as_object().ok_or_else(not_one)?;
    let mut values = columns.values();
    let (Some(only), None) = (values.next(), values.next()) else { return Err(not_one()) };
    match only {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        serde_json::Value::Null => return Err("the query returned NULL".to_owned()),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => None,
    }
    .filter(|number: &f64| number.is_finite())
    .ok_or_else(not_one)
}
