//! What people said about a group, and what happened to it.
//!
//! Every order writes an event with its author in the same commit. `by` is whoever the caller knows
//! gave the order; nothing here checks it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::connection::Param;
use super::error::{Fault, StoreError};
use super::tenure::{epoch, uuid};
use super::{Store, millis};
use crate::config::settings::Group;
use crate::engine::observation::{Epoch, Nonce};

/// What became of an order to give a group back to its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandBack {
    /// The primary has it, with this epoch.
    Done(Epoch),
    /// The primary had it already.
    Already(Epoch),
    /// The lease is not what the operator saw.
    Changed {
        /// Its epoch now.
        epoch: Epoch,
        /// Who has it now.
        holder: Option<String>,
    },
}

/// Something that happened to a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Identity for `understudy history ID`: a tenure's nonce, or the number of an event.
    pub id: String,
    /// The group.
    pub group: String,
    /// What it was.
    pub kind: RecordKind,
    /// When, in UTC by the store's clock.
    pub at: String,
    /// When it ended, for a failover that has.
    pub ended_at: Option<String>,
    /// Fencing number that came of it, or that was current.
    pub epoch: u64,
    /// Node that did it.
    pub node: String,
    /// Who ordered it; `None` for understudy itself.
    pub by: Option<String>,
    /// And why.
    pub reason: Option<String>,
    /// How a failover is doing, or how it ended.
    pub status: Option<RecordStatus>,
    /// Evidence of a failover, or particulars of an order.
    pub detail: Value,
    /// Steps of a failover, first to last.
    pub timeline: Vec<Entry>,
}

/// Kinds of [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A failover that understudy decided on.
    Automatic,
    /// A failover that a person ordered.
    Operator,
    /// A group was given back to its primary.
    HandBack,
    /// A person said: do not act.
    Hold,
    /// And that it is over.
    Release,
    /// A person has looked at the last failovers.
    Acknowledge,
    /// A holder was asked to let another node have the group.
    Request,
    /// And that was done, or came to nothing.
    RequestEnded,
    /// A holder let go of the group.
    HandOver,
}

/// How a failover is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordStatus {
    /// Not finished, or its node died.
    Running,
    /// Every step was done.
    Done,
    /// A step failed.
    Failed,
    /// Someone took the group before it was finished.
    Superseded,
}

/// One step in the timeline of a failover.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was recorded, in UTC by the store's clock.
    pub at: String,
    /// Its name.
    pub step: String,
    /// How it ended, or that it began.
    pub outcome: String,
    /// From the start of the failover to the start of the step, in milliseconds.
    pub after_ms: Option<u64>,
    /// How long it took, in milliseconds; `None` while it runs.
    pub took_ms: Option<u64>,
    /// Anything else.
    pub detail: Value,
}

/// An alert in the store that this node has not yet copied to its own outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAlert {
    /// Stable identity.
    pub id: Uuid,
    /// The group.
    pub group: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The alert as it was given to `acquire`, with its `epoch`.
    pub body: Value,
    /// When it was written, in UTC by the store's clock.
    pub at: String,
}

/// Most alerts that one call reads, so that a long absence does not make a long answer.
const ALERTS_MAX: i64 = 100;

impl Store {
    /// Says that nobody may take the group, for a time by the store's clock or until released.
    ///
    /// # Errors
    /// If the group is unknown, or the store did not answer.
    pub async fn hold(
        &mut self,
        group: &str,
        by: &str,
        reason: &str,
        span: Option<Duration>,
    ) -> Result<(), StoreError> {
        let fail = |source| StoreError::Hold { group: group.to_owned(), source };
        let span = span.map(millis);
        let params: [Param<'_>; 5] = [
            (&group, Type::TEXT),
            (&by, Type::TEXT),
            (&reason, Type::TEXT),
            (&span, Type::INT8),
            (&self.node.clone(), Type::TEXT),
        ];
        self.order(group, HOLD, &params, fail).await.map(|_| ())
    }

    /// Ends a hold. Says whether there was one.
    ///
    /// # Errors
    /// As [`Store::hold`].
    pub async fn release(&mut self, group: &str, by: &str) -> Result<bool, StoreError> {
        let fail = |source| StoreError::Release { group: group.to_owned(), source };
        let params: [Param<'_>; 3] =
            [(&group, Type::TEXT), (&by, Type::TEXT), (&self.node.clone(), Type::TEXT)];
        self.order(group, RELEASE, &params, fail).await
    }

    /// Says that a person has looked at the last failovers: clears the latch and its count. Says
    /// whether the group was latched. The cooldown goes on.
    ///
    /// # Errors
    /// As [`Store::hold`].
    pub async fn acknowledge(&mut self, group: &str, by: &str) -> Result<bool, StoreError> {
        let fail = |source| StoreError::Acknowledge { group: group.to_owned(), source };
        let params: [Param<'_>; 3] =
            [(&group, Type::TEXT), (&by, Type::TEXT), (&self.node.clone(), Type::TEXT)];
        self.order(group, ACKNOWLEDGE, &params, fail).await
    }

    /// Says that the primary's node has the group again, which only a person can know in observed
    /// mode. Every token so far is over, also those of epochs up to `max_epoch` that the store forgot.
    ///
    /// # Errors
    /// As [`Store::hold`].
    pub async fn hand_back(
        &mut self,
        group: &Group,
        expected: Epoch,
        max_epoch: Epoch,
        by: &str,
    ) -> Result<HandBack, StoreError> {
        let fail = |source| StoreError::HandBack { group: group.name.clone(), source };
        let statement = self.sql(HAND_BACK);
        let answer = self
            .connection
            .query(
                self.reply_timeout,
                &statement,
                &[
                    (&group.name, Type::TEXT),
                    (&epoch(expected), Type::INT8),
                    (&group.primary, Type::TEXT),
                    (&by, Type::TEXT),
                    (&self.node, Type::TEXT),
                    (&epoch(max_epoch), Type::INT8),
                ],
            )
            .await
            .map_err(fail)?;
        let row = answer
            .rows
            .first()
            .ok_or_else(|| StoreError::NoSuchGroup { group: group.name.clone() })?;
        let number = |column| Epoch(row.get::<_, i64>(column).unsigned_abs());
        let (granted, holder): (Option<i64>, Option<String>) = (row.get(0), row.get(2));
        Ok(match granted {
            Some(granted) => HandBack::Done(Epoch(granted.unsigned_abs())),
            None if row.get(3) => HandBack::Already(number(1)),
            None => HandBack::Changed { epoch: number(1), holder },
        })
    }

    /// The last `limit` things that happened, newest first, of one group or of all.
    ///
    /// # Errors
    /// If the store did not answer.
    pub async fn history(
        &mut self,
        group: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        self.records(&[
            (&group, Type::TEXT),
            (&Option::<&str>::None, Type::TEXT),
            (&i64::from(limit), Type::INT8),
        ])
        .await
    }

    /// One thing that happened, by its [`Record::id`] or by the beginning of one if only one fits.
    ///
    /// # Errors
    /// If the store did not answer.
    pub async fn history_one(&mut self, id: &str) -> Result<Option<Record>, StoreError> {
        let id = id.to_ascii_lowercase();
        let mut found = self
            .records(&[
                (&Option::<&str>::None, Type::TEXT),
                (&id, Type::TEXT),
                (&2_i64, Type::INT8),
            ])
            .await?;
        match found.iter().position(|record| record.id == id) {
            Some(exact) => Ok(Some(found.swap_remove(exact))),
            None if found.len() == 1 => Ok(found.pop()),
            None => Ok(None),
        }
    }

    /// Alerts that were written for this node together with a tenure, oldest first, and that it has
    /// not yet marked.
    ///
    /// # Errors
    /// If the store did not answer.
    pub async fn undelivered_alerts(&mut self) -> Result<Vec<StoredAlert>, StoreError> {
        let statement = self.sql(UNDELIVERED).replace("@utc@", UTC);
        let answer = self
            .connection
            .query(
                self.reply_timeout,
                &statement,
                &[(&self.node, Type::TEXT), (&ALERTS_MAX, Type::INT8)],
            )
            .await
            .map_err(StoreError::Alerts)?;
        let alert = |row: &tokio_postgres::Row| StoredAlert {
            id: row.get(0),
            group: row.get(1),
            severity: row.get(2),
            body: row.get(3),
            at: row.get(4),
        };
        Ok(answer.rows.iter().map(alert).collect())
    }

    /// Notes that alerts are in safe hands, so that [`Store::undelivered_alerts`] omits them.
    ///
    /// # Errors
    /// If the store did not answer.
    pub async fn mark_delivered(&mut self, ids: &[Uuid]) -> Result<(), StoreError> {
        let statement = self.sql(
            "UPDATE @schema@.alert SET delivered_at = clock_timestamp() \
             WHERE id = ANY ($1) AND delivered_at IS NULL",
        );
        self.connection
            .query(self.reply_timeout, &statement, &[(&ids, Type::UUID_ARRAY)])
            .await
            .map(|_| ())
            .map_err(StoreError::Alerts)
    }

    /// Runs a statement that answers with one boolean if the group exists, and with nothing if not.
    async fn order(
        &mut self,
        group: &str,
        template: &str,
        params: &[Param<'_>],
        fail: impl FnOnce(Fault) -> StoreError,
    ) -> Result<bool, StoreError> {
        let statement = self.sql(template);
        let asked = self.connection.query(self.reply_timeout, &statement, params).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(fault) => return Err(self.explain(fail(fault)).await),
        };
        match answer.rows.first() {
            Some(row) => Ok(row.get(0)),
            None => Err(StoreError::NoSuchGroup { group: group.to_owned() }),
        }
    }

    async fn records(&mut self, params: &[Param<'_>]) -> Result<Vec<Record>, StoreError> {
        let statement = self.sql(HISTORY).replace("@utc@", UTC);
        let asked = self.connection.query(self.reply_timeout, &statement, params).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(fault) => return Err(self.explain(StoreError::History(fault)).await),
        };
        let record = |row: &tokio_postgres::Row| {
            serde_json::from_value(row.get(0)).map_err(|error| {
                let (server, what) = (answer.server.clone(), error.to_string());
                StoreError::History(Fault::Answer { server, what })
            })
        };
        answer.rows.iter().map(record).collect()
    }
}

/// The nonce of a tenure as [`Record::id`].
#[must_use]
pub fn record_id(nonce: Nonce) -> String {
    uuid(nonce).to_string()
}

const HOLD: &str = "
WITH told AS (
  UPDATE @schema@.control SET held_by = $2, held_reason = $3,
    held_until = clock_timestamp() + $4 * interval '1 millisecond'
   WHERE grp = $1 RETURNING grp, held_until
)
INSERT INTO @schema@.event (grp, epoch, kind, node, by_whom, reason, detail)
SELECT l.grp, l.epoch, 'hold', $5, $2, $3, jsonb_build_object('for_ms', $4)
  FROM told JOIN @schema@.lease l USING (grp) RETURNING true";

const RELEASE: &str = "
WITH before AS (
  SELECT grp, held_by IS NOT NULL AS held FROM @schema@.control WHERE grp = $1 FOR NO KEY UPDATE
), told AS (
  UPDATE @schema@.control c SET held_by = NULL, held_reason = NULL, held_until = NULL
    FROM before WHERE c.grp = before.grp
)
INSERT INTO @schema@.event (grp, epoch, kind, node, by_whom, detail)
SELECT l.grp, l.epoch, 'release', $3, $2, jsonb_build_object('was_held', b.held)
  FROM before b JOIN @schema@.lease l USING (grp) RETURNING (detail->>'was_held')::boolean";

/// An attempt in the future would keep the cooldown on for as long as the clock had been ahead.
const ACKNOWLEDGE: &str = "
WITH before AS (
  SELECT grp, latched_at IS NOT NULL AS latched FROM @schema@.control WHERE grp = $1 FOR NO KEY UPDATE
), told AS (
  UPDATE @schema@.control c SET latched_at = NULL FROM before WHERE c.grp = before.grp
), counted AS (
  UPDATE @schema@.cooldown d SET recent = '{}',
    last_at = CASE WHEN d.last_at > clock_timestamp() THEN clock_timestamp() ELSE d.last_at END
    FROM before WHERE d.grp = before.grp
)
INSERT INTO @schema@.event (grp, epoch, kind, node, by_whom, detail)
SELECT l.grp, l.epoch, 'acknowledge', $3, $2, jsonb_build_object('was_latched', b.latched)
  FROM before b JOIN @schema@.lease l USING (grp) RETURNING (detail->>'was_latched')::boolean";

/// Locks in the same order and mode as `acquire`.
const HAND_BACK: &str = "
WITH before AS (
  SELECT grp, epoch, holder, holder = $3 AND nonce IS NULL AND epoch >= $6 AS already
    FROM @schema@.lease WHERE grp = $1 FOR NO KEY UPDATE
), granted AS (
  UPDATE @schema@.lease l SET epoch = greatest(l.epoch, $6) + 1, holder = $3, nonce = NULL,
    seq = 0, ttl_ms = 0, offered_to = NULL, changed_at = clock_timestamp()
    FROM before b WHERE l.grp = b.grp AND b.epoch = $2 AND NOT b.already RETURNING l.grp, l.epoch
), fenced AS (
  UPDATE @schema@.fence f SET epoch = g.epoch, holder = $3, nonce = NULL
    FROM granted g WHERE f.grp = g.grp
), ended AS (
  UPDATE @schema@.failover f SET status = 'superseded', ended_at = clock_timestamp()
    FROM granted g WHERE f.grp = g.grp AND f.status = 'running'
), told AS (
  INSERT INTO @schema@.event (grp, epoch, kind, node, by_whom, detail)
  SELECT g.grp, g.epoch, 'hand_back', $5, $4,
         jsonb_build_object('from_epoch', b.epoch, 'from_holder', b.holder, 'to', $3)
    FROM granted g JOIN before b USING (grp)
)
SELECT g.epoch, b.epoch, b.holder, b.already IS TRUE FROM before b LEFT JOIN granted g USING (grp)";

/// A time for people and for JSON.
const UTC: &str = r#"AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'"#;

const HISTORY: &str = "
SELECT jsonb_build_object('id', r.id, 'group', r.grp, 'kind', r.kind, 'at', to_char(r.at @utc@),
    'ended_at', to_char(r.ended_at @utc@), 'epoch', r.epoch, 'node', r.node, 'by', r.by_whom,
    'reason', r.reason, 'status', r.status, 'detail', r.detail, 'timeline', (
      SELECT coalesce(jsonb_agg(jsonb_build_object('at', to_char(e.at @utc@), 'step', e.step,
        'outcome', e.outcome, 'after_ms', e.after_ms, 'took_ms', e.took_ms, 'detail', e.detail)
        ORDER BY e.id), '[]')
      FROM @schema@.event e WHERE e.failover = r.failover AND e.step IS NOT NULL))
FROM (
  SELECT id::text AS id, grp, kind, started_at AS at, ended_at, epoch, node, by_whom, reason, status,
         evidence AS detail, id AS failover
    FROM @schema@.failover
  UNION ALL
  SELECT id::text, grp, kind, at, NULL, epoch, node, by_whom, reason, NULL, detail, NULL
    FROM @schema@.event WHERE failover IS NULL
) r
WHERE ($1 IS NULL OR r.grp = $1) AND ($2 IS NULL OR starts_with(r.id, $2))
ORDER BY r.id = $2 DESC, r.at DESC, r.epoch DESC LIMIT $3";

const UNDELIVERED: &str = "
SELECT id, grp, severity, body, to_char(created_at @utc@) FROM @schema@.alert
WHERE node = $1 AND delivered_at IS NULL ORDER BY created_at, id LIMIT $2";
