//! Taking a group, and what is done in the name of the tenure that follows.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::error::{Fault, NOT_CURRENT, ROW_COUNT, StoreError};
use super::{Store, mapping, millis};
use crate::config::settings::{Group, Severity};
use crate::engine::observation::{Epoch, Lease, Nonce, Token, Way};

/// A request to take a group, and the evidence that it rests on.
#[derive(Clone, Debug)]
pub struct Acquire<'a> {
    /// The group.
    pub group: &'a Group,
    /// Identity of the new tenure. If the outcome of a request is not known, the same request with
    /// the same nonce finds out.
    pub nonce: Nonce,
    /// Who wants it.
    pub kind: AcquireKind,
    /// On what ground.
    pub way: Way,
    /// In paired mode, within what time after its last renewal this node's units are dead. Zero in
    /// observed mode, in which nobody renews.
    pub ttl: Duration,
    /// The lease as last observed. It must not have changed since.
    pub expected: Expected,
    /// Highest epoch that this node has ever seen of the group. The new one is above it, also after
    /// the store was restored from a backup.
    pub min_epoch: Epoch,
    /// `seen_at` of the newest observation in the evidence.
    pub seen_at: String,
    /// How old that may be when the store executes the request. A request which was held up
    /// somewhere must not take over later, when everything is different.
    pub max_age: Duration,
    /// Bots that the decision rests on, with the heartbeat as observed: they must not have changed
    /// since, and nobody may be changing them. An operator may give none, and so may a node that takes
    /// the group on another ground than silence.
    pub heartbeats: Vec<(String, String)>,
    /// What was observed, for the history.
    pub evidence: Value,
    /// Written in the same commit, so that it outlives this node.
    pub alert: NewAlert,
}

/// The lease that a request expects to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Fencing number.
    pub epoch: Epoch,
    /// Identity of the tenure.
    pub nonce: Option<Nonce>,
    /// Count of its renewals.
    pub seq: u64,
}

impl From<&Lease> for Expected {
    fn from(lease: &Lease) -> Self {
        Self { epoch: lease.epoch, nonce: lease.nonce, seq: lease.seq }
    }
}

/// Who wants to take a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcquireKind {
    /// Understudy itself: refused by hold, latch, cooldown, a stop on purpose, and a last look, as far
    /// as they concern the [`Way`].
    Automatic,
    /// A person, who has looked: refused by hold, and by a last look if heartbeats are given.
    Operator {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// An alert to write into the store.
#[derive(Clone, Debug)]
pub struct NewAlert {
    /// Stable identity, by which receivers recognise a repetition.
    pub id: Uuid,
    /// How bad it is.
    pub severity: Severity,
    /// The alert, an object. `epoch` is added to it.
    pub body: Value,
}

/// What became of a request to take a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcquireOutcome {
    /// Taken.
    Acquired(Token),
    /// Taken by an earlier request with the same nonce.
    Already(Token),
    /// The lease is not what it was when it was observed.
    Changed {
        /// Its epoch now.
        epoch: Epoch,
        /// Who has it now.
        holder: Option<String>,
    },
    /// The evidence is too old, or from the future.
    StaleRequest {
        /// Its age by the store's clock, in milliseconds.
        age_ms: i64,
    },
    /// A person said: do not act.
    Held {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Too many automatic failovers; a person has to look first.
    Latched,
    /// The last automatic failover is not long enough ago.
    Cooldown {
        /// What is left.
        left: Duration,
    },
    /// A heartbeat has changed since, or is being written.
    Alive {
        /// Whose, if known.
        bot: Option<String>,
        /// Whether someone is writing to it right now.
        locked: bool,
    },
    /// A bot's status says that it was stopped on purpose.
    StoppedOnPurpose {
        /// Which.
        bot: String,
        /// What it says.
        status: String,
    },
    /// Someone else has locked the group's rows: another node, or an application's fenced
    /// transaction.
    Busy,
    /// The store does not know the group.
    NoSuchGroup,
}

impl fmt::Display for AcquireOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquired(token) => write!(f, "acquired with epoch {}", token.epoch),
            Self::Already(token) => {
                write!(f, "acquired with epoch {} by an earlier request", token.epoch)
            }
            Self::Changed { epoch, holder } => match holder {
                Some(holder) => write!(f, "refused: {holder} has the group now, epoch {epoch}"),
                None => write!(f, "refused: the lease has changed, nobody has it, epoch {epoch}"),
            },
            Self::StaleRequest { age_ms } if *age_ms < 0 => {
                f.write_str("refused: the store's clock went back since the heartbeats were read")
            }
            Self::StaleRequest { age_ms } => {
                write!(f, "refused: the evidence was {age_ms} ms old when the request arrived")
            }
            Self::Held { by, reason } => {
                write!(f, "refused: {by} holds the group ({reason}); `understudy release` ends it")
            }
            Self::Latched => f.write_str(
                "refused: too many automatic failovers in a row; look why, then `understudy ack`",
            ),
            Self::Cooldown { left } => {
                write!(f, "refused: cooldown after the last failover, {} s left", left.as_secs())
            }
            Self::Alive { locked: true, .. } => {
                f.write_str("refused: a transaction is writing to a heartbeat row right now")
            }
            Self::Alive { bot: Some(bot), locked: false } => {
                write!(f, "refused: {bot} has sent a heartbeat in the last moment")
            }
            Self::Alive { bot: None, locked: false } => {
                f.write_str("refused: the heartbeat rows are not those that were observed")
            }
            Self::StoppedOnPurpose { bot, status } => {
                write!(f, "refused: {bot} was stopped on purpose, its status is {status}")
            }
            Self::Busy => f.write_str(
                "refused: another transaction has the group's rows locked; it will be tried again",
            ),
            Self::NoSuchGroup => {
                f.write_str("refused: the store does not know the group; run `understudy setup`")
            }
        }
    }
}

/// One step of a failover, for its timeline.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// How it ended, or that it began.
    pub outcome: StepOutcome,
    /// From the start of the failover to the start of the step.
    pub after: Duration,
    /// How long it took; `None` while it runs.
    pub took: Option<Duration>,
    /// Anything else worth keeping.
    pub detail: Value,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It has begun.
    Started,
    /// Its effect was read back.
    Done,
    /// There was nothing to do.
    Skipped,
    /// It failed.
    Failed,
}

impl StepOutcome {
    /// As written into the history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// How a failover ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every step was done.
    Done,
    /// A step failed, and a person has to look.
    Failed,
}

impl Ending {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl Store {
    /// Takes a group for this node, or says why not.
    ///
    /// # Errors
    /// If the store did not answer. The request may have been granted, or may be executed later: ask
    /// again with the same nonce.
    pub async fn acquire(&mut self, acquire: &Acquire<'_>) -> Result<AcquireOutcome, StoreError> {
        let group = acquire.group;
        let (kind, by, reason) = match &acquire.kind {
            AcquireKind::Automatic => ("automatic", None, None),
            AcquireKind::Operator { by, reason } => ("operator", Some(by), Some(reason)),
        };
        let heartbeats: Value = acquire
            .heartbeats
            .iter()
            .map(|(bot, value)| (bot.clone(), Value::from(value.as_str())))
            .collect();
        let request = json!({
            "group": group.name,
            "node": self.node,
            "nonce": uuid(acquire.nonce),
            "kind": kind,
            "way": acquire.way.as_str(),
            "ttl_ms": i32::try_from(acquire.ttl.as_millis()).unwrap_or(i32::MAX),
            "by": by,
            "reason": reason,
            "expected_epoch": acquire.expected.epoch.0,
            "expected_nonce": acquire.expected.nonce.map(uuid),
            "expected_seq": acquire.expected.seq,
            "min_epoch": acquire.min_epoch.0,
            "seen_at": acquire.seen_at,
            "max_age_ms": millis(acquire.max_age),
            "mapping": mapping(group),
            "heartbeats": heartbeats,
            "cooldown_ms": millis(group.cooldown),
            "latch_after": group.latch_after,
            "latch_window_ms": millis(group.latch_window),
            "evidence": acquire.evidence,
            "alert_id": acquire.alert.id,
            "alert_severity": acquire.alert.severity.as_str(),
            "alert_body": acquire.alert.body,
        });
        let fail = |source| StoreError::Acquire { group: group.name.clone(), source };
        let statement = self.sql("SELECT @schema@.acquire($1)");
        let answer = self
            .connection
            .query(self.reply_timeout, &statement, &[(&request, Type::JSONB)])
            .await
            .map_err(fail)?;
        let nonsense = |what| fail(Fault::Answer { server: answer.server.clone(), what });
        let row = answer.rows.first().ok_or_else(|| nonsense("no row".to_owned()))?;
        let said: Said = serde_json::from_value(row.get(0)).map_err(|e| nonsense(e.to_string()))?;
        Ok(said.outcome(acquire.nonce))
    }

    /// Sets the status of every bot of the group to that of a primary, and reads it back, all in
    /// one commit. Other columns are not touched.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if `token` is not current, [`StoreError::RowCount`] if the rows are
    /// not exactly one for each bot; nothing was changed then. Others if the store did not answer;
    /// asking again is safe.
    pub async fn flip(&mut self, group: &Group, token: Token) -> Result<(), StoreError> {
        let statement = self.sql("SELECT @schema@.flip($1, $2, $3, $4)");
        let asked = self
            .connection
            .query(
                self.reply_timeout,
                &statement,
                &[
                    (&group.name, Type::TEXT),
                    (&epoch(token.epoch), Type::INT8),
                    (&uuid(token.nonce), Type::UUID),
                    (&mapping(group), Type::JSONB),
                ],
            )
            .await;
        let source = match asked {
            Ok(_) => return Ok(()),
            Err(source) => source,
        };
        let name = group.name.clone();
        if let Fault::Query { cause, .. } = &source
            && let Some(said) = cause.as_db_error()
        {
            match said.code().code() {
                NOT_CURRENT => return Err(StoreError::Superseded { group: name, token }),
                ROW_COUNT => {
                    let counted = said.message().to_owned();
                    return Err(StoreError::RowCount { group: name, counted });
                }
                _ => {}
            }
        }
        Err(StoreError::Flip { group: name, source })
    }

    /// Appends a step to the timeline of the failover that `token` stands for, also if that is over
    /// by now: it happened.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if the store knows of no such failover, as after a restore. A
    /// failover goes on whatever this says: a history with a gap is better than a group without a
    /// primary.
    pub async fn record_step(
        &mut self,
        group: &str,
        token: Token,
        step: &Step,
    ) -> Result<(), StoreError> {
        let statement = self.sql(RECORD_STEP);
        self.record(
            group,
            token,
            &statement,
            &[
                (&group, Type::TEXT),
                (&epoch(token.epoch), Type::INT8),
                (&uuid(token.nonce), Type::UUID),
                (&self.node.clone(), Type::TEXT),
                (&step.name, Type::TEXT),
                (&step.outcome.as_str(), Type::TEXT),
                (&millis(step.after), Type::INT8),
                (&step.took.map(millis), Type::INT8),
                (&step.detail, Type::JSONB),
            ],
        )
        .await
    }

    /// Ends the history of the failover that `token` stands for, if it has not ended so already.
    /// `took` is `None` if nobody saw how long it took.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if `token` is not current.
    pub async fn finish(
        &mut self,
        group: &str,
        token: Token,
        ending: Ending,
        took: Option<Duration>,
        detail: &Value,
    ) -> Result<(), StoreError> {
        let statement = self.sql(FINISH);
        self.record(
            group,
            token,
            &statement,
            &[
                (&group, Type::TEXT),
                (&epoch(token.epoch), Type::INT8),
                (&uuid(token.nonce), Type::UUID),
                (&self.node.clone(), Type::TEXT),
                (&ending.as_str(), Type::TEXT),
                (&took.map(millis), Type::INT8),
                (detail, Type::JSONB),
            ],
        )
        .await
    }

    async fn record(
        &mut self,
        group: &str,
        token: Token,
        statement: &str,
        params: &[super::connection::Param<'_>],
    ) -> Result<(), StoreError> {
        let answer = self
            .connection
            .query(self.reply_timeout, statement, params)
            .await
            .map_err(|source| StoreError::Record { group: group.to_owned(), source })?;
        if answer.rows.is_empty() {
            return Err(StoreError::Superseded { group: group.to_owned(), token });
        }
        Ok(())
    }
}

const RECORD_STEP: &str = "
WITH tenure AS (
  UPDATE @schema@.failover SET step = $5 WHERE grp = $1 AND epoch = $2 AND id = $3
  RETURNING grp, epoch, id
)
INSERT INTO @schema@.event (grp, epoch, kind, node, failover, step, outcome, after_ms, took_ms, detail)
SELECT grp, epoch, 'step', $4, id, $5, $6, $7, $8, $9 FROM tenure RETURNING id";

const FINISH: &str = "
WITH current AS (
  SELECT grp, epoch, nonce FROM @schema@.fence WHERE grp = $1 AND epoch = $2 AND nonce = $3 FOR SHARE
), told AS (
  UPDATE @schema@.failover SET status = $5, ended_at = clock_timestamp()
   WHERE id IN (SELECT nonce FROM current) AND status <> $5 RETURNING id
), noted AS (
  INSERT INTO @schema@.event
    (grp, epoch, kind, node, failover, step, outcome, after_ms, took_ms, detail)
  SELECT grp, epoch, 'finished', $4, nonce, 'finish', $5, $6, 0, $7
    FROM current JOIN told ON told.id = current.nonce
)
SELECT epoch FROM current";

/// What the function `acquire` answers.
#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Said {
    Acquired { epoch: u64 },
    Already { epoch: u64 },
    Changed { epoch: u64, holder: Option<String> },
    StaleRequest { age_ms: i64 },
    Held { by: String, reason: Option<String> },
    Latched,
    Cooldown { left_ms: u64 },
    Alive { bot: Option<String>, locked: bool },
    StoppedOnPurpose { bot: String, status: String },
    Busy,
    NoSuchGroup,
}

impl Said {
    fn outcome(self, nonce: Nonce) -> AcquireOutcome {
        let token = |epoch| Token { epoch: Epoch(epoch), nonce };
        match self {
            Self::Acquired { epoch } => AcquireOutcome::Acquired(token(epoch)),
            Self::Already { epoch } => AcquireOutcome::Already(token(epoch)),
            Self::Changed { epoch, holder } => {
                AcquireOutcome::Changed { epoch: Epoch(epoch), holder }
            }
            Self::StaleRequest { age_ms } => AcquireOutcome::StaleRequest { age_ms },
            Self::Held { by, reason } => {
                AcquireOutcome::Held { by, reason: reason.unwrap_or_default() }
            }
            Self::Latched => AcquireOutcome::Latched,
            Self::Cooldown { left_ms } => {
                AcquireOutcome::Cooldown { left: Duration::from_millis(left_ms) }
            }
            Self::Alive { bot, locked } => AcquireOutcome::Alive { bot, locked },
            Self::StoppedOnPurpose { bot, status } => {
                AcquireOutcome::StoppedOnPurpose { bot, status }
            }
            Self::Busy => AcquireOutcome::Busy,
            Self::NoSuchGroup => AcquireOutcome::NoSuchGroup,
        }
    }
}

/// A nonce as the store keeps it.
pub(super) fn uuid(nonce: Nonce) -> Uuid {
    Uuid::from_u128(nonce.0)
}

/// An epoch as the store keeps it. One beyond its range is current nowhere.
pub(super) fn epoch(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}
