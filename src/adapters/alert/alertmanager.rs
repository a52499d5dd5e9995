//! An alert for Alertmanager (API v2). Its labels are its identity, so they are those of what began,
//! also when it ends.

use std::time::Duration;

use serde_json::{Value, json};

use super::message::{Alert, date};

/// Where alerts are posted.
pub(super) const PATH: &str = "/api/v2/alerts";

/// How long Alertmanager keeps an alert of which it hears nothing more. Without this it would take it
/// for resolved after five minutes, as it expects to be told again and again.
const KEPT: Duration = Duration::from_secs(24 * 3600);

pub(super) fn payload(alert: &Alert) -> Value {
    let (event, severity, starts_at, ends_at) = match &alert.resolves {
        Some(began) => (&began.event, began.severity, began.since, alert.at),
        None => (&alert.event, alert.severity, alert.at, alert.at + KEPT),
    };
    let mut labels = json!({
        "alertname": event,
        "severity": severity.as_str(),
        "node": alert.node,
        "source": "understudy",
        "dedup_key": alert.dedup_key,
    });
    if let Some(group) = &alert.group {
        labels["group"] = group.as_str().into();
    }
    let mut annotations = json!({
        "summary": alert.summary,
        "description": alert.detail,
        "id": alert.id,
    });
    if let Some(epoch) = alert.epoch {
        annotations["epoch"] = epoch.to_string().into();
    }
    json!([{
        "labels": labels,
        "annotations": annotations,
        "startsAt": date(starts_at),
        "endsAt": date(ends_at),
    }])
}
