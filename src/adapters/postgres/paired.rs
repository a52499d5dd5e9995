//! What a holder does with its lease in paired mode, and what the nodes of a group tell one another.
//!
//! Each call is one statement, and harmless when the store executes it late, after its caller has given
//! up: a renewal or a hand-over fits one tenure, a report one run of a daemon, a request one epoch.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

use super::connection::Param;
use super::error::{Fault, StoreError};
use super::tenure::{epoch, uuid};
use super::{Store, millis};
use crate::engine::observation::{Epoch, Member, Nonce, PendingRequest, RequestKind, Token};

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The tenure goes on.
    Granted {
        /// How often it was renewed.
        seq: u64,
    },
    /// The tenure is over: stop the units.
    Refused,
}

/// How a node is, in the eyes of the others.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The group.
    pub group: &'a str,
    /// Highest epoch that this node has ever seen of it.
    pub max_epoch: Epoch,
    /// Whether this node could run it now.
    pub ready: bool,
    /// Why not.
    pub problems: &'a [String],
    /// Request that this node is prepared to be the target of.
    pub prepared_for: Option<Nonce>,
    /// How long this node watches silence before it takes over.
    pub window: Duration,
}

/// What a holder is asked for.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Identity. Asking again with the same one changes nothing.
    pub id: Nonce,
    /// The group.
    pub group: &'a str,
    /// What.
    pub kind: RequestKind,
    /// The epoch whose holder is asked, as the one who asks has seen it.
    pub from_epoch: Epoch,
    /// To which node; `None` for whichever is best.
    pub target: Option<&'a str>,
    /// Who asks.
    pub by: &'a str,
    /// And why.
    pub reason: &'a str,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Asked {
    /// The holder will see it at its next read.
    Asked,
    /// The holder was asked for something else, which is not finished.
    Pending {
        /// For what.
        kind: RequestKind,
        /// By whom.
        by: String,
        /// And why.
        reason: Option<String>,
    },
    /// Another tenure has begun, or nobody has the group.
    Changed {
        /// Its epoch now.
        epoch: u64,
        /// Who has it now.
        holder: Option<String>,
    },
    /// A person said: do not act.
    Held {
        /// Who.
        by: String,
        /// And why.
        reason: Option<String>,
    },
    /// Someone else has locked the group's rows.
    Busy,
    /// The store does not know the group.
    NoSuchGroup,
}

/// How a request is doing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RequestState {
    /// How it ended, if it has.
    pub end: Option<RequestEnd>,
    /// Why so, in words.
    pub text: Option<String>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestEnd {
    /// As it was asked.
    Done,
    /// The holder would not.
    Refused,
    /// Something else happened first.
    Expired,
}

impl RequestEnd {
    /// Whether it was carried out.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

/// A request that nobody finished within this is void: it must not be carried out when its node comes
/// back the next day. A switchover takes seconds, or the minutes that units need to stop and start.
pub const REQUEST_AGE_MAX: Duration = Duration::from_secs(600);

impl Store {
    /// Renews the lease of a tenure of this node.
    ///
    /// The caller notes the time before the call, and counts from there: the store may have granted it
    /// at once and answered late. Opening a connection, if there is none, may take
    /// `store.connect_timeout` on top of the deadline for the answer.
    ///
    /// # Errors
    /// If the store did not answer. It may have renewed the lease, or may do so later: that is harmless,
    /// and the caller counts it as nothing.
    pub async fn renew(&mut self, group: &str, token: Token) -> Result<Renewal, StoreError> {
        let fail = |source| StoreError::Renew { group: group.to_owned(), source };
        let params: [Param<'_>; 4] = [
            (&group, Type::TEXT),
            (&self.node.clone(), Type::TEXT),
            (&epoch(token.epoch), Type::INT8),
            (&uuid(token.nonce), Type::UUID),
        ];
        let seq: Option<i64> =
            self.call("SELECT @schema@.renew($1, $2, $3, $4)", &params, fail).await?;
        Ok(seq.map_or(Renewal::Refused, |seq| Renewal::Granted { seq: seq.unsigned_abs() }))
    }

    /// Lets go of a group, for the node `to` or for anyone. The caller has verified that its units are
    /// dead. The epoch from which on nobody has the group; `None` if this tenure was over already.
    ///
    /// # Errors
    /// If the store did not answer, or a transaction of an application that checked the token has not
    /// ended yet. Ask again with the same token: if it was handed over, the answer is the same as long
    /// as nobody has taken it.
    pub async fn hand_over(
        &mut self,
        group: &str,
        token: Token,
        to: Option<&str>,
    ) -> Result<Option<Epoch>, StoreError> {
        let fail = |source| StoreError::HandOver { group: group.to_owned(), source };
        let params: [Param<'_>; 5] = [
            (&group, Type::TEXT),
            (&self.node.clone(), Type::TEXT),
            (&epoch(token.epoch), Type::INT8),
            (&uuid(token.nonce), Type::UUID),
            (&to, Type::TEXT),
        ];
        let begun: Option<i64> =
            self.call("SELECT @schema@.hand_over($1, $2, $3, $4, $5)", &params, fail).await?;
        Ok(begun.map(|epoch| Epoch(epoch.unsigned_abs())))
    }

    /// Tells the other nodes how this one is: `incarnation` is this run of the daemon, and `beat` grows
    /// with each report of it. Groups that the store does not know are left out.
    ///
    /// # Errors
    /// If the store did not answer. The next report makes up for it.
    pub async fn report_members(
        &mut self,
        incarnation: Nonce,
        beat: u64,
        reports: &[Report<'_>],
    ) -> Result<(), StoreError> {
        let rows = reports.iter().map(|report| {
            json!({
                "group": report.group,
                "max_epoch": epoch(report.max_epoch),
                "ready": report.ready,
                "problems": report.problems,
                "prepared_for": report.prepared_for.map(uuid),
                "window_ms": millis(report.window),
            })
        });
        let rows: serde_json::Value = rows.collect();
        let params: [Param<'_>; 5] = [
            (&self.node.clone(), Type::TEXT),
            (&uuid(incarnation), Type::UUID),
            (&env!("CARGO_PKG_VERSION"), Type::TEXT),
            (&i64::try_from(beat).unwrap_or(i64::MAX), Type::INT8),
            (&rows, Type::JSONB),
        ];
        let statement = "SELECT @schema@.report_members($1, $2, $3, $4, $5)";
        self.call(statement, &params, StoreError::Members).await.map(|_: i64| ())
    }

    /// Asks the holder of a group for something.
    ///
    /// # Errors
    /// If the store did not answer. Ask again with the same identity.
    pub async fn ask(&mut self, ask: &Ask<'_>) -> Result<Asked, StoreError> {
        let request = json!({
            "id": uuid(ask.id),
            "group": ask.group,
            "node": self.node,
            "kind": ask.kind.as_str(),
            "from_epoch": epoch(ask.from_epoch),
            "target": ask.target,
            "by": ask.by,
            "reason": ask.reason,
            "max_age_ms": millis(REQUEST_AGE_MAX),
        });
        let fail = |source| StoreError::Request { group: ask.group.to_owned(), source };
        let said: serde_json::Value =
            self.call("SELECT @schema@.ask($1)", &[(&request, Type::JSONB)], fail).await?;
        serde_json::from_value(said).map_err(|error| {
            fail(Fault::Answer { server: "the store".to_owned(), what: error.to_string() })
        })
    }

    /// Says that this node, which has the group, has begun with a request, and for which node. `false`
    /// if it has ended, is for another node, or the tenure that was asked is over.
    ///
    /// # Errors
    /// If the store did not answer. Saying it again is safe.
    pub async fn announce(
        &mut self,
        group: &str,
        request: Nonce,
        to: &str,
    ) -> Result<bool, StoreError> {
        let fail = |source| StoreError::Request { group: group.to_owned(), source };
        let params: [Param<'_>; 3] =
            [(&uuid(request), Type::UUID), (&self.node.clone(), Type::TEXT), (&to, Type::TEXT)];
        self.call("SELECT @schema@.announce($1, $2, $3)", &params, fail).await
    }

    /// Ends a request, with words for whoever asked. `false` if it had ended before.
    ///
    /// # Errors
    /// If the store did not answer. Ending it again is safe.
    pub async fn end_request(
        &mut self,
        group: &str,
        request: Nonce,
        end: RequestEnd,
        words: &str,
    ) -> Result<bool, StoreError> {
        let fail = |source| StoreError::Request { group: group.to_owned(), source };
        let params: [Param<'_>; 4] = [
            (&uuid(request), Type::UUID),
            (&self.node.clone(), Type::TEXT),
            (&end.as_str(), Type::TEXT),
            (&words, Type::TEXT),
        ];
        self.call("SELECT @schema@.end_request($1, $2, $3, $4)", &params, fail).await
    }

    /// How a request is doing; `None` if the store does not know it.
    ///
    /// # Errors
    /// If the store did not answer.
    pub async fn request(
        &mut self,
        group: &str,
        request: Nonce,
    ) -> Result<Option<RequestState>, StoreError> {
        let fail = |source| StoreError::Request { group: group.to_owned(), source };
        let statement = "SELECT (SELECT jsonb_build_object('end', CASE WHEN ended_at IS NULL THEN \
                         NULL ELSE status END, 'text', text) FROM @schema@.request WHERE id = $1)";
        let said: Option<serde_json::Value> =
            self.call(statement, &[(&uuid(request), Type::UUID)], fail).await?;
        said.map(serde_json::from_value).transpose().map_err(|error| {
            fail(Fault::Answer { server: "the store".to_owned(), what: error.to_string() })
        })
    }

    /// Runs a statement that answers with one value.
    async fn call<T: for<'a> FromSql<'a>>(
        &mut self,
        template: &str,
        params: &[Param<'_>],
        fail: impl Fn(Fault) -> StoreError,
    ) -> Result<T, StoreError> {
        let statement = self.sql(template);
        let answer = match self.connection.query(self.reply_timeout, &statement, params).await {
            Ok(answer) => answer,
            Err(fault) => return Err(self.explain(fail(fault)).await),
        };
        let value = answer.rows.first().map(|row| row.try_get(0));
        value.and_then(Result::ok).ok_or_else(|| {
            fail(Fault::Answer { server: answer.server, what: "no value".to_owned() })
        })
    }
}

/// A member as [`Store::observe`] reads it.
#[derive(Deserialize)]
pub(super) struct MemberRow {
    pub(super) group: String,
    node: String,
    incarnation: Uuid,
    beat: u64,
    max_epoch: u64,
    version: String,
    ready: bool,
    problems: Vec<String>,
    prepared_for: Option<Uuid>,
    window_ms: u64,
    age_ms: i64,
}

impl From<MemberRow> for Member {
    fn from(row: MemberRow) -> Self {
        Self {
            node: row.node,
            incarnation: nonce(row.incarnation),
            beat: row.beat,
            max_epoch: Epoch(row.max_epoch),
            version: row.version,
            ready: row.ready,
            problems: row.problems,
            prepared_for: row.prepared_for.map(nonce),
            window: Duration::from_millis(row.window_ms),
            age_ms: row.age_ms,
        }
    }
}

/// A request as [`Store::observe`] reads it.
#[derive(Deserialize)]
pub(super) struct RequestRow {
    pub(super) group: String,
    id: Uuid,
    kind: RequestKind,
    from_epoch: u64,
    target: Option<String>,
    by: String,
    reason: Option<String>,
    announced: bool,
}

impl From<RequestRow> for PendingRequest {
    fn from(row: RequestRow) -> Self {
        Self {
            id: nonce(row.id),
            kind: row.kind,
            from_epoch: Epoch(row.from_epoch),
            target: row.target,
            by: row.by,
            reason: row.reason.unwrap_or_default(),
            announced: row.announced,
        }
    }
}

fn nonce(uuid: Uuid) -> Nonce {
    Nonce(uuid.as_u128())
}
