//! One statement that reads everything a decision needs, for all groups at once.
//!
//! What is read is what one snapshot of one server said, with the identity of that server. A server
//! that does not accept writes is an error and not an observation: it may be a standby that shows
//! the past. A group that cannot be read is a fault of that group only.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::connection::Answer;
use super::error::{ErrorKind, Fault, NotWritable, StoreError};
use super::paired::{MemberRow, REQUEST_AGE_MAX, RequestRow};
use super::setup::SCHEMA_VERSION;
use super::{Store, millis};
use crate::config::settings::{Group, Heartbeats};
use crate::engine::observation::{
    Bot, Epoch, Hold, Lease, Member, Nonce, Observation, PendingRequest, StoreIdentity,
};
use crate::time::BootTime;

/// Why nothing can be said about one group, although the store answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupFault {
    /// The group has no lease row.
    #[error("the store has no lease for group {group:?}: run `understudy setup`")]
    NoLease {
        /// The group.
        group: String,
    },
    /// Its heartbeats cannot be read.
    #[error("the heartbeats in {table} cannot be read: {message} (SQLSTATE {sqlstate})")]
    Heartbeats {
        /// The table.
        table: String,
        /// What the server said.
        message: String,
        /// Its SQLSTATE.
        sqlstate: String,
    },
}

/// What one statement read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When the statement was sent.
    pub sent: BootTime,
    /// Which store answered, in a form that outlives restarts of the server and changes only when
    /// the data belong to another one.
    pub store: String,
    /// Each group, in the order of the configuration.
    pub groups: Vec<Result<Observation, GroupFault>>,
}

impl Store {
    /// Reads the leases and heartbeats of all groups.
    ///
    /// # Errors
    /// If no server answered in time, or the one that did accepts no writes, or its schema is not
    /// that of this version.
    pub async fn observe(&mut self) -> Result<Reading, StoreError> {
        let statement = self.sql(OBSERVE);
        let asked = self
            .connection
            .query(
                self.reply_timeout,
                &statement,
                &[
                    (&self.watched.names, Type::TEXT_ARRAY),
                    (&self.watched.cooldowns_ms, Type::INT8_ARRAY),
                    (&self.watched.mappings, Type::JSONB),
                    (&self.watched.paired, Type::TEXT_ARRAY),
                    (&millis(REQUEST_AGE_MAX), Type::INT8),
                ],
            )
            .await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(fault) => return Err(self.explain(StoreError::Observe(fault)).await),
        };
        let [row] = answer.rows.as_slice() else {
            return Err(self.not_set_up(answer.server));
        };
        let read: Read = match serde_json::from_value(row.get(0)) {
            Ok(read) => read,
            Err(error) => {
                let what = error.to_string();
                return Err(StoreError::Observe(Fault::Answer { server: answer.server, what }));
            }
        };
        self.check_version(read.schema_version)?;
        let state = match (read.recovering, read.read_only) {
            (true, _) => Some(NotWritable::Recovering),
            (false, true) => Some(NotWritable::ReadOnly),
            (false, false) => None,
        };
        if let Some(state) = state {
            // Not worth keeping: the next call looks for the server that is writable.
            self.connection.drop_session();
            return Err(StoreError::NotWritable { server: answer.server, state });
        }
        Ok(self.watched.assemble(read, &answer))
    }

    /// What is wrong with the schema, if a statement that names its objects was refused for it.
    pub(super) async fn explain(&mut self, error: StoreError) -> StoreError {
        let refused = matches!(error.fault(), Some(Fault::Query { .. }));
        if !refused || error.kind() != ErrorKind::Misconfigured {
            return error;
        }
        let statement = self.sql("SELECT schema_version FROM @schema@.store_id");
        match self.connection.query(self.reply_timeout, &statement, &[]).await {
            Ok(answer) => match answer.rows.first() {
                Some(row) => self.check_version(row.get(0)).err().unwrap_or(error),
                None => self.not_set_up(answer.server),
            },
            Err(Fault::Query { server, .. }) => self.not_set_up(server),
            Err(Fault::Connect(_) | Fault::Timeout { .. } | Fault::Answer { .. }) => error,
        }
    }

    fn not_set_up(&self, server: String) -> StoreError {
        StoreError::NotSetUp { server, schema: self.schema.clone() }
    }

    fn check_version(&self, found: i32) -> Result<(), StoreError> {
        let schema = self.schema.clone();
        match found {
            _ if found < SCHEMA_VERSION => {
                Err(StoreError::SchemaTooOld { schema, found, needed: SCHEMA_VERSION })
            }
            _ if found > SCHEMA_VERSION => {
                Err(StoreError::SchemaTooNew { schema, found, known: SCHEMA_VERSION })
            }
            _ => Ok(()),
        }
    }
}

/// `statement_timestamp()` is when this statement reached the server, even behind a pooler and inside
/// a transaction: not later than the snapshot that follows, so evidence never seems younger than it is.
/// It travels as microseconds, which no `DateStyle` can change. The cooldown of an attempt in the
/// future is not shown: that clock went back, and `acquire` will start the cooldown again from now.
const OBSERVE: &str = "
SELECT jsonb_build_object(
  'schema_version', s.schema_version,
  'identity', @schema@.identity(),
  'recovering', pg_is_in_recovery(),
  'read_only', current_setting('transaction_read_only') = 'on',
  'seen_at', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint::text,
  'leases', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'group', l.grp, 'epoch', l.epoch, 'holder', l.holder, 'nonce', l.nonce, 'seq', l.seq,
      'ttl_ms', l.ttl_ms, 'offered_to', l.offered_to,
      'hold', CASE WHEN c.held_until > statement_timestamp()
                OR c.held_by IS NOT NULL AND c.held_until IS NULL
        THEN jsonb_build_object('by', c.held_by, 'reason', c.held_reason, 'left_ms',
          (extract(epoch FROM c.held_until - statement_timestamp()) * 1000)::bigint) END,
      'latched', c.latched_at IS NOT NULL,
      'cooldown_left_ms', CASE WHEN d.last_at <= statement_timestamp()
          AND statement_timestamp() - d.last_at < w.cooldown_ms * interval '1 millisecond'
        THEN w.cooldown_ms
          - (extract(epoch FROM statement_timestamp() - d.last_at) * 1000)::bigint END)), '[]')
    FROM unnest($1, $2) AS w (grp, cooldown_ms)
    JOIN @schema@.lease l USING (grp)
    JOIN @schema@.control c USING (grp)
    JOIN @schema@.cooldown d USING (grp)),
  'beats', (
    SELECT coalesce(jsonb_agg(@schema@.beats(m.mapping, current_setting('TimeZone')) ORDER BY m.n), '[]')
    FROM jsonb_array_elements($3) WITH ORDINALITY AS m (mapping, n)),
  'members', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'group', m.grp, 'node', m.node, 'incarnation', m.incarnation, 'beat', m.beat,
      'max_epoch', m.max_epoch, 'version', m.version, 'ready', m.ready, 'problems', m.problems,
      'prepared_for', m.prepared_for, 'window_ms', m.window_ms,
      'age_ms', (extract(epoch FROM statement_timestamp() - m.seen_at) * 1000)::bigint)
      ORDER BY m.grp, m.node), '[]')
    FROM @schema@.member m WHERE m.grp = ANY ($4)),
  'requests', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'group', r.grp, 'id', r.id, 'kind', r.kind, 'from_epoch', r.from_epoch, 'target', r.target,
      'by', r.by_whom, 'reason', r.reason, 'announced', r.status = 'announced')), '[]')
    FROM @schema@.request r
    WHERE r.grp = ANY ($4) AND r.ended_at IS NULL
      AND abs(extract(epoch FROM statement_timestamp() - r.created_at)) * 1000 <= $5))
FROM @schema@.store_id s";

/// What to read, made once for a configuration.
pub(super) struct Watched {
    names: Vec<String>,
    cooldowns_ms: Vec<i64>,
    /// One entry for each distinct set of table and columns, with the bots of all groups in it.
    mappings: Value,
    /// Groups that have members.
    paired: Vec<String>,
    groups: Vec<WatchedGroup>,
}

struct WatchedGroup {
    name: String,
    mapping: usize,
    table: String,
    bots: Vec<String>,
}

impl Watched {
    pub(super) fn new(groups: &[Group]) -> Self {
        let mut places: Vec<(&Heartbeats, Vec<&str>)> = Vec::new();
        let mut index: HashMap<[&str; 5], usize> = HashMap::new();
        let mut watched = Vec::new();
        for group in groups {
            let heartbeats = &group.heartbeats;
            let place = [
                heartbeats.table.schema.as_str(),
                heartbeats.table.name.as_str(),
                heartbeats.name_column.as_str(),
                heartbeats.beat_column.as_str(),
                heartbeats.status_column.as_str(),
            ];
            let mapping = *index.entry(place).or_insert_with(|| {
                places.push((heartbeats, Vec::new()));
                places.len() - 1
            });
            places[mapping].1.extend(group.bots.iter().map(String::as_str));
            watched.push(WatchedGroup {
                name: group.name.clone(),
                mapping,
                table: format!("{}.{}", heartbeats.table.schema, heartbeats.table.name),
                bots: group.bots.clone(),
            });
        }
        let mappings = places.iter().map(|(heartbeats, bots)| {
            json!({
                "schema": heartbeats.table.schema,
                "table": heartbeats.table.name,
                "name_column": heartbeats.name_column,
                "beat_column": heartbeats.beat_column,
                "status_column": heartbeats.status_column,
                "bots": bots,
            })
        });
        Self {
            names: groups.iter().map(|group| group.name.clone()).collect(),
            cooldowns_ms: groups.iter().map(|group| millis(group.cooldown)).collect(),
            mappings: mappings.collect(),
            paired: groups.iter().filter(|g| g.paired.is_some()).map(|g| g.name.clone()).collect(),
            groups: watched,
        }
    }

    fn assemble(&self, read: Read, answer: &Answer) -> Reading {
        let store = StoreIdentity(format!(
            "system {}, timeline {}, started {}, schema {}, connection {} to {}",
            read.identity.system,
            read.identity.timeline,
            read.identity.started,
            read.identity.uuid,
            answer.number,
            answer.server,
        ));
        let mut leases: HashMap<String, LeaseRow> =
            read.leases.into_iter().map(|lease| (lease.group.clone(), lease)).collect();
        let mut members: HashMap<String, Vec<Member>> = HashMap::new();
        for row in read.members {
            members.entry(row.group.clone()).or_default().push(row.into());
        }
        let mut requests: HashMap<String, Box<PendingRequest>> = read
            .requests
            .into_iter()
            .map(|row| (row.group.clone(), Box::new(row.into())))
            .collect();
        let beats: Vec<Result<HashMap<String, BeatRow>, BeatsFault>> =
            read.beats.into_iter().map(Beats::by_name).collect();
        let mut one = |group: &WatchedGroup| {
            let no_lease = || GroupFault::NoLease { group: group.name.clone() };
            let lease = leases.remove(&group.name).ok_or_else(no_lease)?;
            let bots = match beats.get(group.mapping) {
                Some(Ok(rows)) => group.bots.iter().map(|name| bot(rows.get(name))).collect(),
                Some(Err(fault)) => {
                    return Err(GroupFault::Heartbeats {
                        table: group.table.clone(),
                        message: fault.message.clone(),
                        sqlstate: fault.code.clone(),
                    });
                }
                None => group.bots.iter().map(|_| Bot::Missing).collect(),
            };
            Ok(Observation {
                store: store.clone(),
                seen_at: read.seen_at.clone(),
                lease: lease.into(),
                bots,
                members: members.remove(&group.name).unwrap_or_default(),
                request: requests.remove(&group.name),
            })
        };
        Reading {
            sent: answer.sent,
            store: format!("system {}, schema {}", read.identity.system, read.identity.uuid),
            groups: self.groups.iter().map(&mut one).collect(),
        }
    }
}

fn bot(row: Option<&BeatRow>) -> Bot {
    let Some(BeatRow(_, rows, value, status, age_ms)) = row else {
        return Bot::Missing;
    };
    let status = status.clone().unwrap_or_default();
    match (rows, value) {
        (2.., _) => Bot::Duplicate { rows: *rows },
        (_, Some(value)) => Bot::Beat { value: value.clone(), status, age_ms: *age_ms },
        (_, None) => Bot::Null { status },
    }
}

#[derive(Deserialize)]
struct Read {
    schema_version: i32,
    identity: Identity,
    recovering: bool,
    read_only: bool,
    seen_at: String,
    leases: Vec<LeaseRow>,
    beats: Vec<Beats>,
    members: Vec<MemberRow>,
    requests: Vec<RequestRow>,
}

#[derive(Deserialize)]
pub(super) struct Identity {
    pub(super) system: String,
    pub(super) timeline: String,
    pub(super) started: String,
    pub(super) uuid: Uuid,
}

#[derive(Deserialize)]
struct LeaseRow {
    group: String,
    epoch: u64,
    holder: Option<String>,
    nonce: Option<Uuid>,
    seq: u64,
    ttl_ms: u64,
    offered_to: Option<String>,
    hold: Option<HoldRow>,
    latched: bool,
    cooldown_left_ms: Option<u64>,
}

#[derive(Deserialize)]
struct HoldRow {
    by: String,
    reason: Option<String>,
    left_ms: Option<u64>,
}

impl From<LeaseRow> for Lease {
    fn from(row: LeaseRow) -> Self {
        Self {
            epoch: Epoch(row.epoch),
            holder: row.holder,
            nonce: row.nonce.map(|nonce| Nonce(nonce.as_u128())),
            seq: row.seq,
            ttl: Duration::from_millis(row.ttl_ms),
            offered_to: row.offered_to,
            hold: row.hold.map(|hold| Hold {
                by: hold.by,
                reason: hold.reason.unwrap_or_default(),
                left: hold.left_ms.map(Duration::from_millis),
            }),
            latched: row.latched,
            cooldown_left: row.cooldown_left_ms.map(Duration::from_millis),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Beats {
    Rows(Vec<BeatRow>),
    Fault(BeatsFault),
}

#[derive(Deserialize)]
struct BeatsFault {
    code: String,
    message: String,
}

/// Name, number of rows, heartbeat, status, age in milliseconds.
#[derive(Deserialize)]
struct BeatRow(String, usize, Option<String>, Option<String>, Option<i64>);

impl Beats {
    fn by_name(self) -> Result<HashMap<String, BeatRow>, BeatsFault> {
        match self {
            Self::Rows(rows) => Ok(rows.into_iter().map(|row| (row.0.clone(), row)).collect()),
            Self::Fault(fault) => Err(fault),
        }
    }
}
