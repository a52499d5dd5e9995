//! A message by a webhook of Discord: a line, and a coloured box.

use serde_json::{Value, json};

use super::message::{Alert, date, shortened};
use crate::config::settings::Severity;

/// Discord refuses a whole message for a longer title of a box (256), description (4096) or content
/// (2000).
const TITLE_CHARS_MAX: usize = 256;
const DESCRIPTION_CHARS_MAX: usize = 3000;
const CONTENT_CHARS_MAX: usize = 1900;

pub(super) fn payload(alert: &Alert) -> Value {
    let mut fields = vec![
        json!({ "name": "event", "value": shortened(&alert.event, 200), "inline": true }),
        json!({ "name": "node", "value": shortened(&alert.node, 253), "inline": true }),
    ];
    if let Some(epoch) = alert.epoch {
        fields.push(json!({ "name": "epoch", "value": epoch.to_string(), "inline": true }));
    }
    let content = format!("**{}** {}", mark(alert), shortened(&alert.summary, CONTENT_CHARS_MAX));
    json!({
        "content": content,
        // No alert calls @everyone.
        "allowed_mentions": { "parse": [] },
        "embeds": [{
            "title": shortened(&alert.event, TITLE_CHARS_MAX),
            "description": shortened(&alert.detail, DESCRIPTION_CHARS_MAX),
            "color": colour(alert),
            "timestamp": date(alert.at),
            "fields": fields,
        }],
    })
}

fn mark(alert: &Alert) -> &'static str {
    match (alert.resolves.is_some(), alert.severity) {
        (true, _) => "✅ resolved",
        (false, Severity::Info) => "ℹ️ info",
        (false, Severity::Warning) => "⚠️ warning",
        (false, Severity::Critical) => "🚨 CRITICAL",
    }
}

fn colour(alert: &Alert) -> u32 {
    match (alert.resolves.is_some(), alert.severity) {
        (true, _) | (false, Severity::Info) => 0x002e_7d32,
        (false, Severity::Warning) => 0x00f9_a825,
        (false, Severity::Critical) => 0x00c6_2828,
    }
}
