//! What was told and is neither over nor looked at: for `status`, for `understudy ack`, and for
//! channels that are told only if nobody reacts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files;
use super::message::{Alert, date, read_date, severity};
use crate::config::settings::Severity;

/// More than a person could look at. Beyond it the oldest is forgotten, and is delivered all the
/// same.
const OPEN_MAX: usize = 1000;

/// Something that was told and is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub struct Open {
    /// What its alerts have in common.
    pub dedup_key: String,
    /// The last alert about it.
    pub id: Uuid,
    /// Name of the event that began it.
    pub event: String,
    /// Which group it is about.
    pub group: Option<String>,
    /// How bad it was at its worst.
    pub severity: Severity,
    /// Since when.
    pub since: SystemTime,
    /// In one line.
    pub summary: String,
    /// Whether another alert will say when it is over. What does not last is closed by looking at it.
    pub lasting: bool,
    /// Who has looked at it.
    pub acknowledged_by: Option<String>,
}

/// All of them, in a file.
#[derive(Debug)]
pub(super) struct OpenAlerts {
    path: PathBuf,
    by_key: BTreeMap<String, Open>,
    /// Whether the file is older than this.
    unwritten: bool,
}

impl OpenAlerts {
    /// Reads them. A file that makes no sense is as good as none: nothing but a courtesy is lost.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let read = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Vec<Open>>(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let by_key = read.into_iter().map(|open| (open.dedup_key.clone(), open)).collect();
        Ok(Self { path, by_key, unwritten: false })
    }

    pub(super) fn all(&self) -> Vec<Open> {
        self.by_key.values().cloned().collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Open> {
        self.by_key.get(key)
    }

    /// Takes note of an alert: it begins something, goes on with it, or ends it.
    pub(super) fn note(&mut self, alert: &Alert) {
        let key = &alert.dedup_key;
        if alert.resolves.is_some() {
            self.unwritten |= self.by_key.remove(key).is_some();
            return;
        }
        // What is merely good to know needs nobody.
        if alert.severity < Severity::Warning {
            return;
        }
        self.unwritten = true;
        if let Some(open) = self.by_key.get_mut(key) {
            // It got worse, so who looked at it should look again.
            if alert.severity > open.severity {
                open.acknowledged_by = None;
            }
            open.severity = open.severity.max(alert.severity);
            open.id = alert.id;
            open.summary.clone_from(&alert.summary);
            return;
        }
        if self.by_key.len() >= OPEN_MAX
            && let Some(oldest) = self.by_key.values().min_by_key(|open| open.since)
        {
            let oldest = oldest.dedup_key.clone();
            self.by_key.remove(&oldest);
        }
        let open = Open {
            dedup_key: key.clone(),
            id: alert.id,
            event: alert.event.clone(),
            group: alert.group.clone(),
            severity: alert.severity,
            since: alert.at,
            summary: alert.summary.clone(),
            lasting: alert.lasting,
            acknowledged_by: None,
        };
        self.by_key.insert(key.clone(), open);
    }

    /// Somebody looked at these. Returns their keys.
    pub(super) fn acknowledge(&mut self, which: &Which, by: &str) -> Vec<String> {
        let mut keys = Vec::new();
        self.by_key.retain(|key, open| {
            if open.acknowledged_by.is_some() || !which.is(open) {
                return true;
            }
            keys.push(key.clone());
            open.acknowledged_by = Some(by.to_owned());
            open.lasting
        });
        self.unwritten |= !keys.is_empty();
        keys
    }

    /// Writes the file if it is old. What fails is tried again the next time.
    pub(super) fn flush(&mut self) {
        if self.unwritten {
            let body = serde_json::to_vec_pretty(&self.all()).unwrap_or_default();
            self.unwritten = files::write(&self.path, &body).is_err();
        }
    }
}

/// Which alerts somebody looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those about a group.
    Group(String),
    /// Those whose id begins so.
    Id(String),
}

impl Which {
    fn is(&self, open: &Open) -> bool {
        match self {
            Self::Group(group) => open.group.as_ref() == Some(group),
            Self::Id(begin) => !begin.is_empty() && open.id.to_string().starts_with(begin.as_str()),
        }
    }
}

/// The file in the outbox.
pub(super) const FILE: &str = ".open.json";

#[derive(Serialize, Deserialize)]
struct Wire {
    dedup_key: String,
    id: Uuid,
    event: String,
    group: Option<String>,
    severity: String,
    since: String,
    summary: String,
    lasting: bool,
    acknowledged_by: Option<String>,
}

impl From<Open> for Wire {
    fn from(open: Open) -> Self {
        Self {
            dedup_key: open.dedup_key,
            id: open.id,
            event: open.event,
            group: open.group,
            severity: open.severity.as_str().to_owned(),
            since: date(open.since),
            summary: open.summary,
            lasting: open.lasting,
            acknowledged_by: open.acknowledged_by,
        }
    }
}

impl TryFrom<Wire> for Open {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        Ok(Self {
            dedup_key: wire.dedup_key,
            id: wire.id,
            event: wire.event,
            group: wire.group,
            severity: severity(&wire.severity).ok_or("severity")?,
            since: read_date(&wire.since)?,
            summary: wire.summary,
            lasting: wire.lasting,
            acknowledged_by: wire.acknowledged_by,
        })
    }
}
