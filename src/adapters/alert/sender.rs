//! The client of a channel, whatever its kind.

use std::time::Duration;

use reqwest::header::HeaderMap;

use super::command::Command;
use super::delivery::Verdict;
use super::email::Email;
use super::http::Poster;
use super::message::Alert;
use super::webhook::Webhook;
use super::{AlertError, alertmanager, discord, pagerduty, slack};
use crate::config::secret::Secret;
use crate::config::settings::{Channel, ChannelKind};

/// How long a command may take to die after its deadline, and its output to be read.
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// The client of a channel.
#[derive(Debug)]
pub(super) enum Sender {
    Webhook(Webhook),
    Slack(Poster),
    Discord(Poster),
    PagerDuty(Poster, Secret),
    Alertmanager(Poster),
    Email(Box<Email>),
    Command(Command),
}

impl Sender {
    pub(super) fn new(channel: &Channel) -> Result<Self, AlertError> {
        let made = match &channel.kind {
            ChannelKind::Webhook { endpoint, body, secret } => {
                Webhook::new(endpoint, body.as_ref(), secret.as_ref()).map(Self::Webhook)
            }
            ChannelKind::Slack(endpoint) => Poster::new(endpoint).map(Self::Slack),
            ChannelKind::Discord(endpoint) => Poster::new(endpoint).map(Self::Discord),
            ChannelKind::PagerDuty { endpoint, routing_key } => {
                Poster::new(endpoint).map(|poster| Self::PagerDuty(poster, routing_key.clone()))
            }
            ChannelKind::Alertmanager(endpoint) => Poster::new(endpoint)
                .map(|poster| Self::Alertmanager(poster.at(alertmanager::PATH))),
            ChannelKind::Email(email) => {
                Email::new(email).map(|email| Self::Email(Box::new(email)))
            }
            ChannelKind::Command { command } => Ok(Self::Command(Command::new(command))),
        };
        made.map_err(|what| AlertError::Channel { channel: channel.name.clone(), what })
    }

    /// Why nothing can ever be delivered, as far as can be told without trying.
    pub(super) fn hopeless(&self) -> Option<String> {
        match self {
            Self::Webhook(webhook) => webhook.hopeless(),
            Self::Slack(poster)
            | Self::Discord(poster)
            | Self::PagerDuty(poster, _)
            | Self::Alertmanager(poster) => poster.hopeless(),
            Self::Email(email) => email.hopeless(),
            Self::Command(command) => command.hopeless(),
        }
    }

    /// Makes one attempt, which takes no longer than `deadline`.
    pub(super) async fn send(&self, alert: &Alert, deadline: Duration) -> Verdict {
        let patience = match self {
            // It is killed at its deadline, and then it is known what it had to say.
            Self::Command(_) => deadline + KILLED_WITHIN,
            _ => deadline,
        };
        let attempt = self.attempt(alert, deadline);
        tokio::time::timeout(patience, attempt).await.unwrap_or_else(|_elapsed| Verdict::Later {
            fault: format!("no answer within {}", humantime::format_duration(deadline)),
            after: None,
        })
    }

    async fn attempt(&self, alert: &Alert, deadline: Duration) -> Verdict {
        let (poster, payload) = match self {
            Self::Webhook(webhook) => return webhook.send(alert).await,
            Self::Email(email) => return email.send(alert).await,
            Self::Command(command) => return command.send(alert, deadline).await,
            Self::Slack(poster) => (poster, slack::payload(alert)),
            Self::Discord(poster) => (poster, discord::payload(alert)),
            Self::PagerDuty(poster, key) => (poster, pagerduty::payload(alert, key)),
            Self::Alertmanager(poster) => (poster, alertmanager::payload(alert)),
        };
        poster.post(payload.to_string().into_bytes(), HeaderMap::new()).await
    }
}
