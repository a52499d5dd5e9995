//! The outbox in the words of the control socket.

use crate::adapters::alert::{Backlog, Open};
use crate::control::protocol::{Channel, OpenAlert};

/// What a channel has to deliver.
#[must_use]
pub fn channel(backlog: Backlog) -> Channel {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Channel {
        name: backlog.channel,
        pending: count(backlog.pending),
        critical: count(backlog.critical),
        in_memory: count(backlog.in_memory),
        oldest: backlog.oldest.map(date),
        escalating: count(backlog.escalating),
        refused: count(backlog.dead),
        lost: backlog.dropped,
        last_error: backlog.last_fault,
    }
}

/// What was told and is neither over nor looked at.
#[must_use]
pub fn open_alert(open: Open) -> OpenAlert {
    OpenAlert {
        id: open.id.to_string(),
        event: open.event,
        group: open.group,
        severity: open.severity.as_str().to_owned(),
        since: date(open.since),
        summary: open.summary,
        acknowledged_by: open.acknowledged_by,
    }
}

fn date(at: std::time::SystemTime) -> String {
    humantime::format_rfc3339_seconds(at.max(std::time::UNIX_EPOCH)).to_string()
}
