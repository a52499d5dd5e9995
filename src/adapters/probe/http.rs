//! Asks HTTP servers. Addresses and tokens are in no error, as for alerts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response, Url, redirect};
use serde_json::Value;

use crate::adapters::trust;
use crate::config::monitoring::HttpProbe;
use crate::config::secret::Secret;
use crate::error::chain;
use crate::time::BootTime;

/// What is read of an answer. A health page has some kilobytes, an exporter some hundred.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// Connections to one host that are kept for the next time.
const IDLE_MAX: usize = 4;

/// The clients, one for each file of authorities: to make one takes a while.
#[derive(Debug, Default)]
pub struct Clients {
    made: Mutex<BTreeMap<Option<PathBuf>, Client>>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
    /// How long it took, the body included.
    pub took: Duration,
}

impl Clients {
    /// Makes the client that trusts these authorities, so that no check's deadline has to pay for it.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn prepare(&self, ca_file: Option<&PathBuf>) -> Result<(), String> {
        self.client(ca_file).map(drop)
    }

    /// The client that trusts these authorities.
    ///
    /// # Errors
    /// If the file cannot be used.
    fn client(&self, ca_file: Option<&PathBuf>) -> Result<Client, String> {
        let mut made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = made.get(&ca_file.cloned()) {
            return Ok(client.clone());
        }
        trust::install_crypto();
        let trusted = match ca_file {
            Some(path) => trust::read(path)?,
            None => trust::of_the_system(),
        };
        let client = Client::builder()
            .user_agent(concat!("understudy/", env!("CARGO_PKG_VERSION")))
            // What is asked is this address and no other.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(IDLE_MAX)
            .tls_certs_only(trusted)
            .build()
            .map_err(|error| chain(&error.without_url()))?;
        made.insert(ca_file.cloned(), client.clone());
        Ok(client)
    }

    /// Asks what a check asks.
    ///
    /// # Errors
    /// If there is no whole answer, in words.
    pub async fn ask(&self, probe: &HttpProbe) -> Result<Answer, String> {
        let client = self.client(probe.ca_file.as_ref())?;
        let url = parse(&probe.url)?;
        let mut request = if probe.post { client.post(url) } else { client.get(url) };
        if let Some(token) = &probe.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = &probe.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        send(request).await
    }

    /// Asks for a page, with parameters.
    ///
    /// # Errors
    /// If there is no whole answer, in words.
    pub async fn get(
        &self,
        url: Url,
        token: Option<&Secret>,
        ca_file: Option<&PathBuf>,
    ) -> Result<Answer, String> {
        let mut request = self.client(ca_file)?.get(url).header(ACCEPT, "*/*");
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        send(request).await
    }
}

/// Understands an address.
///
/// # Errors
/// If it cannot be understood.
pub fn parse(url: &Secret) -> Result<Url, String> {
    Url::parse(url.expose()).map_err(|error| format!("its address cannot be understood ({error})"))
}

async fn send(request: reqwest::RequestBuilder) -> Result<Answer, String> {
    let began = BootTime::now();
    let told = |error: reqwest::Error| chain(&error.without_url());
    let response = request.send().await.map_err(told)?;
    let status = response.status().as_u16();
    let body = body(response).await?;
    Ok(Answer { status, body, took: BootTime::now().since(began) })
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error.without_url()))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("the answer is longer than {} MiB", BODY_BYTES_MAX >> 20));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What is at a place in JSON, as a number. A text must be `expect`, which makes it 1 or 0.
///
/// # Errors
/// If nothing is there, or no number.
pub fn number_at(body: &[u8], path: &[String], expect: Option<&str>) -> Result<f64, String> {
    let whole: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is no JSON (line {})", error.line()))?;
    let mut place = &whole;
    for step in path {
        let next = match place {
            Value::Object(entries) => entries.get(step),
            Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        place = next.ok_or_else(|| format!("the answer has nothing at {step}"))?;
    }
    let number = match (place, expect) {
        (Value::String(text), Some(expect)) => Some(f64::from(u8::from(text == expect))),
        (other, Some(expect)) => {
            let shown = other.to_string();
            Some(f64::from(u8::from(shown == expect)))
        }
        (Value::Number(number), None) => number.as_f64(),
        (Value::Bool(truth), None) => Some(f64::from(u8::from(*truth))),
        (Value::String(text), None) => text.trim().parse().ok(),
        (Value::Array(items), None) => u32::try_from(items.len()).ok().map(f64::from),
        (Value::Null | Value::Object(_), None) => None,
    };
    number.ok_or_else(|| "what is there is no number; say by expect what it must be".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_on_its_way() {
        let body = br#"{"data":{"pools":[{"used":7},{"used":"8.5"}]},"ok":true,"status":"UP"}"#;
        let at = |path: &str, expect| {
            let path: Vec<_> = path.split('.').map(str::to_owned).collect();
            number_at(body, &path, expect)
        };
        assert_eq!(at("data.pools.0.used", None), Ok(7.0));
        assert_eq!(at("data.pools.1.used", None), Ok(8.5));
        assert_eq!(at("data.pools", None), Ok(2.0));
        assert_eq!(at("ok", None), Ok(1.0));
        assert_eq!(at("status", Some("UP")), Ok(1.0));
        assert_eq!(at("status", Some("DOWN")), Ok(0.0));
        for nowhere in ["data.pools.2.used", "data.none", "ok.x", "status", "data"] {
            assert!(at(nowhere, None).is_err(), "{nowhere}");
        }
        assert!(number_at(b"<html>", &["x".to_owned()], None).is_err());
    }
}
