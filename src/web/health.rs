//! What "live", "ready" and "started" mean, exactly. `docs/http.md` says it in the same words.

use std::time::Duration;

use serde::Serialize;

use crate::config::settings::Settings;
use crate::control::protocol::{Group, Status};

/// The loop turns at least every second. When it has not for so long, only a restart helps; the
/// watchdog of systemd comes to the same conclusion a little later.
pub const LOOP_AGE_MAX: Duration = Duration::from_secs(15);

/// Whether something is well, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// ok or failing.
    pub status: &'static str,
    /// Why it is failing; empty if it is not, absent for a client that may not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasons: Option<Vec<Reason>>,
}

/// One reason why something is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The group that it is about, if it is about one.
    pub group: Option<String>,
    /// The reason, in words.
    pub text: String,
}

impl Health {
    fn of(reasons: Vec<Reason>) -> Self {
        let status = if reasons.is_empty() { "ok" } else { "failing" };
        Self { status, reasons: Some(reasons) }
    }

    /// Whether it is well.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == "ok"
    }

    /// The same without the reasons.
    #[must_use]
    pub fn without_reasons(self) -> Self {
        Self { reasons: None, ..self }
    }
}

/// Live: the loop that decides turns. Nothing in the world outside makes this fail, as a restart
/// would not mend it.
#[must_use]
pub fn live(loop_age: Duration) -> Health {
    if loop_age <= LOOP_AGE_MAX {
        return Health::of(Vec::new());
    }
    Health::of(about(None, format!("the loop has not turned for {} s", loop_age.as_secs())))
}

/// Started: the first read of the store has ended, well or not. systemd is told READY=1 at the same
/// moment.
#[must_use]
pub fn startup(status: Option<&Status>) -> Health {
    if status.is_some_and(|status| status.started) {
        return Health::of(Vec::new());
    }
    Health::of(about(None, "the store was not read yet".to_owned()))
}

/// Ready: if the primary of any group died this moment, this node would do about it what it is
/// configured to; and what it has taken over already beats.
#[must_use]
pub fn ready(status: Option<&Status>, settings: &Settings, group: Option<&str>) -> Health {
    let Some(status) = status.filter(|status| status.started) else { return startup(status) };
    let asked = status.groups.iter().filter(|one| group.is_none_or(|name| one.name == name));
    let reasons = asked.flat_map(|group| {
        let configured = settings.groups.iter().find(|one| one.name == group.name);
        let automatic = configured.is_some_and(|configured| configured.automatic());
        not_ready(group, automatic)
            .into_iter()
            .map(|text| Reason { group: Some(group.name.clone()), text })
    });
    Health::of(reasons.collect())
}

/// Why a group is not ready on this node; empty if it is.
#[must_use]
pub fn not_ready(group: &Group, automatic: bool) -> Vec<String> {
    if let Some(cause) = &group.unknown_because {
        return vec![format!("the heartbeats cannot be judged: {cause}")];
    }
    match group.state.as_str() {
        "standby" => {
            let mut reasons = match &group.not_ready_because {
                None => vec!["this node was not checked yet".to_owned()],
                Some(problems) => problems.clone(),
            };
            // A group that is configured to alert only does that, whatever keeps it from more.
            reasons.extend(group.blocked_because.clone().filter(|_| automatic));
            reasons
        }
        "active" if group.verdict == "fresh" => Vec::new(),
        "active" => vec!["this node has the group, and it is silent".to_owned()],
        state => vec![format!("{state}: {}", group.summary)],
    }
}

fn about(group: Option<String>, text: String) -> Vec<Reason> {
    vec![Reason { group, text }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_until_the_loop_stands_still_for_too_long() {
        assert!(live(LOOP_AGE_MAX).is_ok());
        assert!(!live(LOOP_AGE_MAX + Duration::from_millis(1)).is_ok());
    }

    #[test]
    fn a_daemon_that_has_not_said_anything_yet_has_not_started() {
        assert!(!startup(None).is_ok());
    }

    /// A group of which some things are different from one that is ready.
    fn group(changes: &serde_json::Value) -> Group {
        let mut group = serde_json::json!({
            "name": "trading", "state": "standby", "summary": "so it is", "verdict": "fresh",
            "bots": [], "latched": false, "not_ready_because": [], "units": [],
        });
        for (key, value) in changes.as_object().unwrap() {
            group[key] = value.clone();
        }
        serde_json::from_value(group).unwrap()
    }

    #[test]
    fn ready_is_who_would_do_what_it_is_configured_to() {
        use serde_json::json;
        for (changes, automatic, reasons) in [
            (json!({}), true, &[][..]),
            (json!({ "verdict": "stale" }), true, &[]),
            (json!({ "not_ready_because": null }), true, &["this node was not checked yet"]),
            (json!({ "not_ready_because": ["redis: lags"] }), true, &["redis: lags"]),
            (json!({ "blocked_because": "held by ann" }), true, &["held by ann"]),
            // It alerts, as it is configured to, whatever keeps it from taking over.
            (json!({ "blocked_because": "it only alerts" }), false, &[]),
            (
                json!({ "verdict": "unknown", "unknown_because": "no store" }),
                true,
                &["the heartbeats cannot be judged: no store"],
            ),
            (json!({ "state": "active", "not_ready_because": null }), true, &[]),
            (
                json!({ "state": "active", "verdict": "stale" }),
                true,
                &["this node has the group, and it is silent"],
            ),
            (json!({ "state": "promoting" }), true, &["promoting: so it is"]),
            (json!({ "state": "degraded" }), true, &["degraded: so it is"]),
        ] {
            assert_eq!(not_ready(&group(&changes), automatic), reasons, "{changes}");
        }
    }
}
