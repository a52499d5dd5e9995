//! Keeps what checks measured, and reads it for baselines and reports. It has a connection of its own
//! and is nothing that a failover needs.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::{Connection, Param};
use super::error::{Fault, StoreError};
use super::quote_identifier;
use crate::config::settings;
use crate::monitor::archive::Chunk;
use crate::monitor::baseline::Baseline;

/// How long a batch may take to be stored. It is some hundred rows.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a question over all samples of a week may take. A person waits for it.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// Chunks of one call: a megabyte or so of JSON.
pub const BATCH_MAX: usize = 1_000;

/// The archive could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store cannot be used as it is configured.
    #[error(transparent)]
    Unusable(#[from] StoreError),
    /// It did not take what was measured.
    #[error("what checks measured could not be stored")]
    Write(#[source] Fault),
    /// It did not answer.
    #[error(
        "what checks measured could not be read; was `understudy setup` run since the upgrade?"
    )]
    Read(#[source] Fault),
}

/// The archive.
pub struct Archive {
    connection: Connection,
    schema: String,
    node: String,
}

/// What was saved under a name, without the figures.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Saved {
    /// Name of the baseline.
    pub name: String,
    /// When it was saved (RFC 3339).
    pub at: String,
    /// By whom.
    pub by: String,
    /// Over how many seconds.
    pub over_s: i64,
    /// How many checks are in it.
    pub checks: i64,
}

/// A check's numbers over some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Name of the check.
    pub name: String,
    /// What stands behind its numbers.
    pub suffix: String,
    /// The figures.
    pub baseline: Baseline,
}

impl Archive {
    /// Reads certificate authorities if configured, and does no other I/O.
    ///
    /// # Errors
    /// If there is no certificate authority to trust.
    pub fn new(store: &settings::Store, node: &str) -> Result<Self, ArchiveError> {
        Ok(Self {
            connection: Connection::new(store, node)?,
            schema: quote_identifier(&store.schema),
            node: node.to_owned(),
        })
    }

    /// Stores chunks. To store the same ones again changes nothing.
    ///
    /// # Errors
    /// If they may not be there.
    pub async fn store(&mut self, chunks: &[Chunk], keep_days: i32) -> Result<(), ArchiveError> {
        for part in chunks.chunks(BATCH_MAX) {
            let sql = format!("SELECT {}.store_checks($1, $2, $3)", self.schema);
            let batch = json!(part);
            let node = self.node.clone();
            let parameters: [Param<'_>; 3] =
                [(&node, Type::TEXT), (&batch, Type::JSONB), (&keep_days, Type::INT4)];
            let stored = self.connection.query(STORE_TIMEOUT, &sql, &parameters).await;
            stored.map_err(ArchiveError::Write)?;
        }
        Ok(())
    }

    /// Drops what is older than it should be kept.
    ///
    /// # Errors
    /// If that could not be done.
    pub async fn forget(&mut self, keep_days: i32, hours_days: i32) -> Result<(), ArchiveError> {
        let sql = format!("SELECT {}.forget_checks($1, $2)", self.schema);
        let parameters: [Param<'_>; 2] = [(&keep_days, Type::INT4), (&hours_days, Type::INT4)];
        let forgotten = self.connection.query(STORE_TIMEOUT, &sql, &parameters).await;
        forgotten.map(drop).map_err(ArchiveError::Write)
    }

    /// All baselines of this node's checks: name of the baseline, name of the check, figures.
    ///
    /// # Errors
    /// If they could not be read.
    pub async fn baselines(&mut self) -> Result<Vec<(String, Figures)>, ArchiveError> {
        let sql = format!(
            "SELECT s.name, s.suffix, b.samples, b.mean, b.deviation, b.least, b.greatest, b.percentiles, \
             b.name FROM {schema}.check_baseline b JOIN {schema}.check_series s ON s.id = b.series \
             WHERE s.node = $1 ORDER BY b.name, s.name",
            schema = self.schema
        );
        let rows = self.read(&sql, None, None).await?;
        Ok(rows.iter().map(|row| (row.get(8), figures(row))).collect())
    }

    /// Saves the last span of this node's checks under a name, in place of what had it. Says how many
    /// checks that are.
    ///
    /// # Errors
    /// If it could not be saved.
    pub async fn save(
        &mut self,
        name: &str,
        over: Duration,
        by: &str,
    ) -> Result<usize, ArchiveError> {
        let sql = format!(
            "INSERT INTO {schema}.check_baseline AS b (name, series, saved_by, over_s, samples, mean, \
             deviation, least, greatest, percentiles) \
             SELECT $3, f.id, $4, $2, f.samples, f.mean, f.deviation, f.least, f.greatest, f.percentiles \
             FROM ({figures}) f ON CONFLICT (name, series) DO UPDATE SET saved_at = clock_timestamp(), \
             saved_by = excluded.saved_by, over_s = excluded.over_s, samples = excluded.samples, \
             mean = excluded.mean, deviation = excluded.deviation, least = excluded.least, \
             greatest = excluded.greatest, percentiles = excluded.percentiles RETURNING 1",
            schema = self.schema,
            figures = self.figures_sql()
        );
        let (node, seconds) = (self.node.clone(), seconds(over));
        let parameters: [Param<'_>; 4] =
            [(&node, Type::TEXT), (&seconds, Type::INT8), (&name, Type::TEXT), (&by, Type::TEXT)];
        let answer = self.connection.query(READ_TIMEOUT, &sql, &parameters).await;
        answer.map(|answer| answer.rows.len()).map_err(ArchiveError::Write)
    }

    /// What this node's checks measured in the last span.
    ///
    /// # Errors
    /// If it could not be read.
    pub async fn figures(&mut self, over: Duration) -> Result<Vec<Figures>, ArchiveError> {
        let sql = format!(
            "SELECT name, suffix, samples, mean, deviation, least, greatest, percentiles FROM ({}) f \
             ORDER BY name",
            self.figures_sql()
        );
        let rows = self.read(&sql, Some(over), None).await?;
        Ok(rows.iter().map(figures).collect())
    }

    /// What is saved.
    ///
    /// # Errors
    /// If it could not be read.
    pub async fn saved(&mut self) -> Result<Vec<Saved>, ArchiveError> {
        let sql = format!(
            "SELECT b.name, to_char(max(b.saved_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
             max(b.saved_by), max(b.over_s), count(*) FROM {schema}.check_baseline b \
             JOIN {schema}.check_series s ON s.id = b.series WHERE s.node = $1 \
             GROUP BY b.name ORDER BY b.name",
            schema = self.schema
        );
        let rows = self.read(&sql, None, None).await?;
        let saved = |row: &Row| Saved {
            name: row.get(0),
            at: row.get(1),
            by: row.get(2),
            over_s: row.get(3),
            checks: row.get(4),
        };
        Ok(rows.iter().map(saved).collect())
    }

    /// Forgets a baseline of this node. Says how many checks were in it.
    ///
    /// # Errors
    /// If that could not be done.
    pub async fn remove(&mut self, name: &str) -> Result<usize, ArchiveError> {
        let sql = format!(
            "DELETE FROM {schema}.check_baseline b USING {schema}.check_series s \
             WHERE s.id = b.series AND s.node = $1 AND b.name = $2 RETURNING 1",
            schema = self.schema
        );
        Ok(self.read(&sql, None, Some(name)).await?.len())
    }

    async fn read(
        &mut self,
        sql: &str,
        over: Option<Duration>,
        name: Option<&str>,
    ) -> Result<Vec<Row>, ArchiveError> {
        let (node, over) = (self.node.clone(), over.map(seconds));
        let mut parameters: Vec<Param<'_>> = vec![(&node, Type::TEXT)];
        if let Some(over) = &over {
            parameters.push((over, Type::INT8));
        }
        if let Some(name) = &name {
            parameters.push((name, Type::TEXT));
        }
        let answer = self.connection.query(READ_TIMEOUT, sql, &parameters).await;
        answer.map(|answer| answer.rows).map_err(ArchiveError::Read)
    }

    /// Figures of each check of node $1 over the last $2 seconds.
    fn figures_sql(&self) -> String {
        format!(
            "SELECT s.id, s.name, s.suffix, count(v) AS samples, avg(v::float8) AS mean, \
             coalesce(stddev_samp(v::float8), 0) AS deviation, min(v)::float8 AS least, \
             max(v)::float8 AS greatest, percentile_cont(ARRAY(SELECT n / 100.0::float8 \
             FROM generate_series(1, 99) n)) WITHIN GROUP (ORDER BY v::float8) AS percentiles \
             FROM {schema}.check_series s JOIN {schema}.check_chunk c ON c.series = s.id \
             AND c.at >= now() - make_interval(secs => $2) \
             CROSS JOIN LATERAL unnest(c.vals) v \
             WHERE s.node = $1 AND v IS NOT NULL GROUP BY s.id",
            schema = self.schema
        )
    }
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

/// The columns that both queries begin with.
fn figures(row: &Row) -> Figures {
    let samples: i64 = row.get(2);
    Figures {
        name: row.get(0),
        suffix: row.get(1),
        baseline: Baseline {
            samples: u64::try_from(samples).unwrap_or_default(),
            mean: row.get(3),
            deviation: row.get(4),
            least: row.get(5),
            greatest: row.get(6),
            percentiles: row.get(7),
        },
    }
}
