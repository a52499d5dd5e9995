//! An alert for a program of the operator's: its JSON on standard input, the most needed of it in
//! the environment.

use std::time::Duration;

use super::chain;
use super::delivery::Verdict;
use super::message::Alert;
use crate::adapters::hook;

#[derive(Debug)]
pub(super) struct Command(Vec<String>);

impl Command {
    pub(super) fn new(command: &[String]) -> Self {
        Self(command.to_vec())
    }

    pub(super) fn hopeless(&self) -> Option<String> {
        hook::executable(self.0.first()?).err()
    }

    pub(super) async fn send(&self, alert: &Alert, deadline: Duration) -> Verdict {
        let input = match serde_json::to_vec(alert) {
            Ok(input) => input,
            Err(error) => return Verdict::Never { fault: format!("it has no JSON: {error}") },
        };
        let id = alert.id.to_string();
        let variables = [
            ("UNDERSTUDY_ALERT_ID", id.as_str()),
            ("UNDERSTUDY_DEDUP_KEY", &alert.dedup_key),
            ("UNDERSTUDY_EVENT", &alert.event),
            ("UNDERSTUDY_GROUP", alert.group.as_deref().unwrap_or_default()),
            ("UNDERSTUDY_NODE", &alert.node),
            ("UNDERSTUDY_SEVERITY", alert.severity.as_str()),
            ("UNDERSTUDY_STATUS", alert.status()),
            ("UNDERSTUDY_SUMMARY", &alert.summary),
        ];
        let ran = hook::run_with_input(&self.0, &variables, &input, deadline).await;
        match ran.outcome {
            Ok(()) => Verdict::Delivered,
            Err(error) => {
                let said = ran.lines.last().map(|line| format!(": {line}")).unwrap_or_default();
                Verdict::Later { fault: format!("{}{said}", chain(&error)), after: None }
            }
        }
    }
}
