//! A message by an incoming webhook of Slack: a line that notifications show, and a coloured box.

use serde_json::{Value, json};

use super::message::{Alert, shortened};
use crate::config::settings::Severity;

/// Slack refuses a whole message for a longer text in a section (3000), and escaping makes it longer.
const DETAIL_CHARS_MAX: usize = 1500;

/// A line.
const SUMMARY_CHARS_MAX: usize = 1000;

pub(super) fn payload(alert: &Alert) -> Value {
    let line = format!("{} {}", mark(alert), escaped(&alert.summary, SUMMARY_CHARS_MAX));
    let mut about =
        vec![format!("*{}* on {}", escaped(&alert.event, 200), escaped(&alert.node, 253))];
    if let Some(epoch) = alert.epoch {
        about.push(format!("epoch {epoch}"));
    }
    let date = alert.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let utc = humantime::format_rfc3339_seconds(alert.at.max(std::time::UNIX_EPOCH));
    // Slack shows it in the reader's own time zone.
    about.push(format!("<!date^{date}^{{date_num}} {{time_secs}}|{utc}>"));
    json!({
        "text": line,
        "attachments": [{
            "color": colour(alert),
            "blocks": [
                section(&escaped(&alert.detail, DETAIL_CHARS_MAX)),
                { "type": "context", "elements": [{ "type": "mrkdwn", "text": about.join(" · ") }] },
            ],
        }],
    })
}

fn section(text: &str) -> Value {
    // An empty one is refused.
    let text = if text.is_empty() { " " } else { text };
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } })
}

/// The three characters that have a meaning, so that no alert calls `<!channel>`.
fn escaped(text: &str, chars_max: usize) -> String {
    let text = shortened(text, chars_max);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn mark(alert: &Alert) -> &'static str {
    match (alert.resolves.is_some(), alert.severity) {
        (true, _) => ":white_check_mark: resolved:",
        (false, Severity::Info) => ":information_source:",
        (false, Severity::Warning) => ":warning:",
        (false, Severity::Critical) => ":rotating_light: CRITICAL:",
    }
}

fn colour(alert: &Alert) -> &'static str {
    match (alert.resolves.is_some(), alert.severity) {
        (true, _) | (false, Severity::Info) => "#2e7d32",
        (false, Severity::Warning) => "#f9a825",
        (false, Severity::Critical) => "#c62828",
    }
}
