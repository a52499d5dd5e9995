//! An alert as JSON by HTTP POST: our own form, or one that the operator wrote, signed if there is a
//! key.
//!
//! The signature is that of most webhooks: HMAC-SHA256 over the time in seconds, a dot and the body.
//! The time is in it so that who listened in cannot send an old alert again.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderMap, HeaderValue};
use ring::hmac;
use serde_json::Value;

use super::delivery::Verdict;
use super::http::Poster;
use super::message::{Alert, hexadecimal};
use crate::config::secret::Secret;
use crate::config::settings::Endpoint;
use crate::config::template::Template;

pub(super) struct Webhook {
    poster: Poster,
    body: Option<Template>,
    key: Option<hmac::Key>,
}

impl Webhook {
    /// `Err` says what is wrong with the settings.
    pub(super) fn new(
        endpoint: &Endpoint,
        body: Option<&Template>,
        secret: Option<&Secret>,
    ) -> Result<Self, String> {
        let key =
            secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()));
        Ok(Self { poster: Poster::new(endpoint)?, body: body.cloned(), key })
    }

    pub(super) fn hopeless(&self) -> Option<String> {
        self.poster.hopeless()
    }

    pub(super) async fn send(&self, alert: &Alert) -> Verdict {
        let body = match body(alert, self.body.as_ref()) {
            Ok(body) => body,
            Err(error) => return Verdict::Never { fault: format!("it has no JSON: {error}") },
        };
        let mut headers = HeaderMap::new();
        let mut add = |name, value: String| {
            // An identity, a number and hexadecimal digits are good values.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        add("idempotency-key", alert.id.to_string());
        if let Some(key) = &self.key {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            add("understudy-timestamp", now.to_string());
            add("understudy-signature", signature(key, now, &body));
        }
        self.poster.post(body, headers).await
    }
}

fn body(alert: &Alert, template: Option<&Template>) -> serde_json::Result<Vec<u8>> {
    let Some(template) = template else { return serde_json::to_vec(alert) };
    let Value::Object(mut fields) = serde_json::to_value(alert)? else { return Ok(Vec::new()) };
    fields.insert("status".to_owned(), alert.status().into());
    serde_json::to_vec(&template.fill(&fields))
}

fn signature(key: &hmac::Key, now: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(now.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    format!("v1={}", hexadecimal(context.sign().as_ref()))
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}
