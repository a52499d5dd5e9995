//! The alert itself, and its JSON form, which is what is stored and what a webhook gets.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::settings::Severity;

/// Version of the JSON that is stored and sent; see `docs/alerts.md`.
const VERSION: u32 = 1;

/// Text beyond this is cut off: an alert is read on a telephone, and many services refuse long
/// ones.
const DETAIL_BYTES_MAX: usize = 8 * 1024;

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub struct Alert {
    /// The same at every delivery; a second alert with the same id is not sent.
    pub id: Uuid,
    /// When it happened, for people.
    pub at: SystemTime,
    /// How bad it is.
    pub severity: Severity,
    /// Stable name for machines, such as `failover_completed`.
    pub event: String,
    /// Which group it is about.
    pub group: Option<String>,
    /// In which tenure.
    pub epoch: Option<u64>,
    /// Which node says so.
    pub node: String,
    /// One line.
    pub summary: String,
    /// What happened, and what to do.
    pub detail: String,
    /// Equal for alerts about the same thing, so that a receiver can fold them.
    pub dedup_key: String,
    /// Further facts, by name.
    pub fields: BTreeMap<String, String>,
    /// Whether it tells of something that lasts, so that another alert will say when it is over.
    pub lasting: bool,
    /// What it ends, if it says that something is over.
    pub resolves: Option<Resolves>,
    /// What else it stands for, if it stands for more than itself.
    pub folded: Option<Folded>,
}

impl Alert {
    /// `resolved` if it says that something is over, else `firing`.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        if self.resolves.is_some() { "resolved" } else { "firing" }
    }
}

/// What an alert says is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolves {
    /// Name of the event that began it.
    pub event: String,
    /// How bad it was at its worst.
    pub severity: Severity,
    /// When it began.
    pub since: SystemTime,
}

/// Alerts that are not sent one by one, because the one that they are folded into stands for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// When the first of them happened.
    pub since: SystemTime,
    /// How many of them are critical.
    pub critical: u64,
    /// Which they are, in the order in which they happened.
    pub ids: Vec<Uuid>,
}

/// The JSON form of an alert.
#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    id: Uuid,
    at: String,
    severity: String,
    event: String,
    group: Option<String>,
    epoch: Option<u64>,
    node: String,
    summary: String,
    detail: String,
    dedup_key: String,
    fields: BTreeMap<String, String>,
    // Files of an earlier version have none of these.
    #[serde(default)]
    lasting: bool,
    #[serde(default)]
    resolves: Option<WireResolves>,
    #[serde(default)]
    folded: Option<WireFolded>,
}

#[derive(Serialize, Deserialize)]
struct WireResolves {
    event: String,
    severity: String,
    since: String,
}

#[derive(Serialize, Deserialize)]
struct WireFolded {
    since: String,
    critical: u64,
    ids: Vec<Uuid>,
}

impl From<Alert> for Wire {
    fn from(alert: Alert) -> Self {
        let mut detail = alert.detail;
        if detail.len() > DETAIL_BYTES_MAX {
            cut(&mut detail, DETAIL_BYTES_MAX);
            detail.push_str(" [cut]");
        }
        Self {
            version: VERSION,
            id: alert.id,
            at: date(alert.at),
            severity: alert.severity.as_str().to_owned(),
            event: alert.event,
            group: alert.group,
            epoch: alert.epoch,
            node: alert.node,
            summary: alert.summary,
            detail,
            dedup_key: alert.dedup_key,
            fields: alert.fields,
            lasting: alert.lasting,
            resolves: alert.resolves.map(|resolves| WireResolves {
                event: resolves.event,
                severity: resolves.severity.as_str().to_owned(),
                since: date(resolves.since),
            }),
            folded: alert.folded.map(|folded| WireFolded {
                since: date(folded.since),
                critical: folded.critical,
                ids: folded.ids,
            }),
        }
    }
}

impl TryFrom<Wire> for Alert {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        if wire.version != VERSION {
            return Err(format!("version {} is not {VERSION}", wire.version));
        }
        let resolves = wire.resolves.map(|resolves| {
            let severity = read_severity(&resolves.severity)?;
            let since = read_date(&resolves.since)?;
            Ok::<_, String>(Resolves { event: resolves.event, severity, since })
        });
        let folded = wire.folded.map(|folded| {
            let since = read_date(&folded.since)?;
            Ok::<_, String>(Folded { since, critical: folded.critical, ids: folded.ids })
        });
        Ok(Self {
            id: wire.id,
            at: read_date(&wire.at)?,
            severity: read_severity(&wire.severity)?,
            event: wire.event,
            group: wire.group,
            epoch: wire.epoch,
            node: wire.node,
            summary: wire.summary,
            detail: wire.detail,
            dedup_key: wire.dedup_key,
            fields: wire.fields,
            lasting: wire.lasting,
            resolves: resolves.transpose()?,
            folded: folded.transpose()?,
        })
    }
}

/// A date as all of our JSON has it.
pub(super) fn date(at: SystemTime) -> String {
    // The format knows no earlier date, and a clock that says so is not worth a panic.
    humantime::format_rfc3339_millis(at.max(UNIX_EPOCH)).to_string()
}

pub(super) fn read_date(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339(text).map_err(|error| error.to_string())
}

fn read_severity(text: &str) -> Result<Severity, String> {
    severity(text).ok_or_else(|| format!("severity {text:?}"))
}

pub(super) fn severity(text: &str) -> Option<Severity> {
    [Severity::Info, Severity::Warning, Severity::Critical]
        .into_iter()
        .find(|severity| severity.as_str() == text)
}

/// Cuts a text to so many bytes at most, between two characters.
pub(super) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let boundary = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(boundary.unwrap_or(0));
    }
}

/// A text of so many characters at most, with a sign if something is missing.
pub(super) fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

/// A short text that is equal for equal texts only.
pub(super) fn digest(text: &str) -> String {
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
