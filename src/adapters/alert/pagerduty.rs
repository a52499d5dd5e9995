//! An event for PagerDuty (Events API v2): `trigger`, or `resolve` with the same key.

use serde_json::{Value, json};

use super::message::{Alert, date, digest, shortened};
use crate::config::secret::Secret;

/// PagerDuty refuses an event with a longer summary or key.
const SUMMARY_CHARS_MAX: usize = 1024;
const KEY_BYTES_MAX: usize = 255;

pub(super) fn payload(alert: &Alert, routing_key: &Secret) -> Value {
    let mut event = json!({
        "routing_key": routing_key.expose(),
        "dedup_key": key(&alert.dedup_key),
        "event_action": if alert.resolves.is_some() { "resolve" } else { "trigger" },
        "client": "understudy",
        "payload": {
            "summary": shortened(&alert.summary, SUMMARY_CHARS_MAX),
            "source": alert.node,
            // The words are the same.
            "severity": alert.severity.as_str(),
            "timestamp": date(alert.at),
            "class": alert.event,
            "custom_details": {
                "detail": alert.detail,
                "id": alert.id,
                "epoch": alert.epoch,
                "fields": alert.fields,
            },
        },
    });
    if let Some(group) = &alert.group {
        event["payload"]["group"] = group.as_str().into();
    }
    event
}

/// A key that is not too long, equal for equal keys only.
fn key(key: &str) -> String {
    if key.len() <= KEY_BYTES_MAX {
        return key.to_owned();
    }
    digest(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_stay_different_and_get_short() {
        let long = |end: &str| format!("{}{end}", "x".repeat(300));
        assert_eq!(key("trading/silent/b"), "trading/silent/b");
        assert_eq!(key(&long("a")).len(), 64);
        assert_ne!(key(&long("a")), key(&long("b")));
        assert_eq!(key(&long("a")), key(&long("a")));
    }
}
