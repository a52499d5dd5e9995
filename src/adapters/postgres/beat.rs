//! Writes the heartbeat of an application that has none of its own, as the bots do it: one row for
//! each bot, which is made if it is not there.

use serde_json::Value;
use tokio_postgres::types::Type;

use super::connection::Param;
use super::error::{Fault, StoreError};
use super::{Store, quote_identifier};
use crate::config::settings::Heartbeats;

/// A value for another column of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name of the column.
    pub name: String,
    /// Its value as text, in the form that Postgres reads for its type; `None` is NULL.
    pub value: Option<String>,
}

/// What a heartbeat did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The row has a new heartbeat.
    Written,
    /// There was no row, and now there is.
    Made,
}

/// SQLSTATE of a row that somebody else made in this moment.
const UNIQUE_VIOLATION: &str = "23505";

/// SQLSTATE of a new row that lacks something.
const NOT_NULL_VIOLATION: &str = "23502";

/// From here on a number counts milliseconds: as seconds it would be in the year 5138.
const MILLISECONDS_FROM: &str = "100000000000";

impl Store {
    /// Writes a heartbeat of a bot, and other columns of its row.
    ///
    /// The status of a row that exists stays as it is unless `columns` has it, so that a bot which
    /// was stopped on purpose stays that. A new row has the status of a primary.
    ///
    /// # Errors
    /// If the table is not as configured, or the store did not answer.
    pub async fn beat(
        &mut self,
        heartbeats: &Heartbeats,
        bot: &str,
        columns: &[Column],
    ) -> Result<Beat, StoreError> {
        let row = self.row(heartbeats, bot, columns).await?;
        match self.write(bot, &row.update(), &row.values).await {
            Ok(0) => {}
            Ok(_) => return Ok(Beat::Written),
            Err(source) => return Err(fail(bot, source)),
        }
        match self.write(bot, &row.insert(), &row.values).await {
            Ok(_) => Ok(Beat::Made),
            // Another one was faster; the row is there now.
            Err(fault) if fault.sqlstate().is_some_and(|s| s.code() == UNIQUE_VIOLATION) => self
                .write(bot, &row.update(), &row.values)
                .await
                .map(|_| Beat::Written)
                .map_err(|source| fail(bot, source)),
            Err(fault) if fault.sqlstate().is_some_and(|s| s.code() == NOT_NULL_VIOLATION) => {
                let Heartbeats { table, .. } = heartbeats;
                Err(StoreError::BeatTable {
                    table: format!("{}.{}", table.schema, table.name),
                    what: format!(
                        "{bot} has no row yet, and a new one needs more (--set): {fault}"
                    ),
                })
            }
            Err(source) => Err(fail(bot, source)),
        }
    }

    /// Finds out what the columns of the table are.
    async fn row(
        &mut self,
        heartbeats: &Heartbeats,
        bot: &str,
        columns: &[Column],
    ) -> Result<Row, StoreError> {
        let table = &heartbeats.table;
        let names: Vec<&str> = [&heartbeats.name_column, &heartbeats.beat_column]
            .into_iter()
            .chain([&heartbeats.status_column])
            .chain(columns.iter().map(|column| &column.name))
            .map(String::as_str)
            .collect();
        let answer = self
            .connection
            .query(
                self.reply_timeout,
                COLUMNS,
                &[
                    (&table.schema, Type::TEXT),
                    (&table.name, Type::TEXT),
                    (&names, Type::TEXT_ARRAY),
                ],
            )
            .await
            .map_err(|source| fail(bot, source))?;
        let shown = format!("{}.{}", table.schema, table.name);
        let no = |what: String| StoreError::BeatTable { table: shown.clone(), what };
        let Some(found) = answer.rows.first().map(|row| row.get::<_, Value>(0)) else {
            return Err(no("there is no such table, or this role may not see it".to_owned()));
        };
        let kind = |name: &str| {
            let kind = found.get(name).and_then(Value::as_str).map(str::to_owned);
            kind.ok_or_else(|| no(format!("it has no column {name}")))
        };
        let beat_kind = kind(&heartbeats.beat_column)?;
        let mut others = Vec::new();
        for column in columns {
            others.push((column.name.clone(), kind(&column.name)?));
        }
        Ok(Row {
            table: format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.name)),
            name: (heartbeats.name_column.clone(), kind(&heartbeats.name_column)?),
            now: now(&heartbeats.beat_column, &beat_kind).map_err(no)?,
            beat: heartbeats.beat_column.clone(),
            status: (heartbeats.status_column.clone(), heartbeats.primary_status.clone()),
            others,
            values: columns.iter().map(|column| column.value.clone()).collect(),
        })
    }

    async fn write(
        &mut self,
        bot: &str,
        statement: &str,
        values: &[Option<String>],
    ) -> Result<usize, Fault> {
        let mut params: Vec<Param<'_>> = vec![(&bot, Type::TEXT)];
        params.extend(values.iter().map(|value| -> Param<'_> { (value, Type::TEXT) }));
        let answer = self.connection.query(self.reply_timeout, statement, &params).await?;
        Ok(answer.rows.len())
    }
}

fn fail(bot: &str, source: Fault) -> StoreError {
    StoreError::Beat { bot: bot.to_owned(), source }
}

/// A row as it is to be written. Parameter 1 is the bot, the others are `values`.
struct Row {
    table: String,
    /// The column and its type, as Postgres writes it.
    name: (String, String),
    beat: String,
    /// What the heartbeat becomes, in the words of an update and of an insert.
    now: (String, String),
    /// The column, and its value in a new row.
    status: (String, String),
    others: Vec<(String, String)>,
    values: Vec<Option<String>>,
}

impl Row {
    fn update(&self) -> String {
        let (name, kind) = &self.name;
        let mut set = vec![format!("{} = {}", quote_identifier(&self.beat), self.now.0)];
        for (number, (column, kind)) in self.others.iter().enumerate() {
            let number = number + 2;
            set.push(format!("{} = CAST(${number} AS {kind})", quote_identifier(column)));
        }
        format!(
            "UPDATE {} SET {} WHERE {} = CAST($1 AS {kind}) RETURNING 1",
            self.table,
            set.join(", "),
            quote_identifier(name)
        )
    }

    fn insert(&self) -> String {
        let (name, kind) = &self.name;
        let mut columns = vec![quote_identifier(name), quote_identifier(&self.beat)];
        let mut values = vec![format!("CAST($1 AS {kind})"), self.now.1.clone()];
        for (number, (column, kind)) in self.others.iter().enumerate() {
            columns.push(quote_identifier(column));
            values.push(format!("CAST(${} AS {kind})", number + 2));
        }
        let (status, primary) = &self.status;
        if self.others.iter().all(|(column, _)| column != status) {
            columns.push(quote_identifier(status));
            values.push(super::quote_literal(primary));
        }
        format!(
            "INSERT INTO {} ({}) VALUES ({}) RETURNING 1",
            self.table,
            columns.join(", "),
            values.join(", ")
        )
    }
}

/// The present time for a column of a type, in an update and in a new row.
fn now(column: &str, kind: &str) -> Result<(String, String), String> {
    // As `timestamp(3) without time zone`.
    if kind.starts_with("timestamp") {
        return Ok(("clock_timestamp()".to_owned(), "clock_timestamp()".to_owned()));
    }
    let numbers = ["integer", "bigint", "numeric", "double precision", "real"];
    if numbers.iter().any(|number| kind.starts_with(number)) {
        let seconds = "extract(epoch FROM clock_timestamp())";
        let column = quote_identifier(column);
        // As the one who wrote before counts.
        let update = format!(
            "CAST(CASE WHEN {column} >= {MILLISECONDS_FROM} THEN round({seconds} * 1000) \
             ELSE round({seconds}) END AS {kind})"
        );
        return Ok((update, format!("CAST(round({seconds}) AS {kind})")));
    }
    Err(format!(
        "its column {column} is of type {kind}; a heartbeat can be written as a timestamp or a number"
    ))
}

/// The types of some columns, by their names; no row if there is no such table.
const COLUMNS: &str = "
SELECT coalesce(jsonb_object_agg(a.attname, format_type(a.atttypid, a.atttypmod))
    FILTER (WHERE a.attname = ANY ($3)), '{}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'f')
GROUP BY c.oid";
