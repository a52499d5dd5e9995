//! An alert as JSON by HTTP POST.
//!
//! The address often carries a token, so it is in no error and in no log. Neither is what the other
//! side answers beside its status: many servers repeat the address there.

use std::path::Path;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, StatusCode, Url, redirect};

use super::chain;
use super::delivery::Verdict;
use super::outbox::Letter;
use crate::config::secret::Secret;

/// A webhook, with its client made once: that reads the system's certificates, which takes a while.
pub(super) struct Webhook {
    client: Client,
    url: Url,
    /// Whether there is anything that the certificate of the other side could be measured against.
    trusts: bool,
}

impl Webhook {
    /// `Err` says what is wrong with the settings.
    pub(super) fn new(url: &Secret, ca_file: Option<&Path>) -> Result<Self, String> {
        // It only fails if there is a default already, which is then as good.
        let _present = rustls::crypto::ring::default_provider().install_default();
        let url = Url::parse(url.expose())
            .map_err(|error| format!("its address cannot be understood ({error})"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("its address does not begin with https:// or http://".to_owned());
        }
        let trusted = match ca_file {
            Some(path) => read_certificates(path)?,
            // Nothing is trusted where nothing is encrypted, and a small machine may have none.
            None if url.scheme() == "http" => Vec::new(),
            None => system_certificates(),
        };
        let trusts = url.scheme() == "http" || !trusted.is_empty();
        let client = Client::builder()
            .user_agent(concat!("understudy/", env!("CARGO_PKG_VERSION")))
            // A redirected POST would become a GET or go to who knows whom.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            // Else a machine without any would have no client, and so no alerts and no daemon.
            .tls_certs_only(trusted)
            .build()
            .map_err(|error| chain(&error.without_url()))?;
        Ok(Self { client, url, trusts })
    }

    /// Why nothing can ever be delivered, as far as can be told without trying.
    pub(super) fn hopeless(&self) -> Option<String> {
        (!self.trusts).then(|| {
            "this machine trusts no certificate authority; install ca-certificates or set ca_file"
                .to_owned()
        })
    }

    pub(super) async fn send(&self, letter: &Letter) -> Verdict {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", letter.id.to_string())
            .body(letter.body.clone());
        match request.send().await {
            Ok(response) => judge(response.status(), response.headers(), SystemTime::now()),
            Err(error) => Verdict::Later { fault: chain(&error.without_url()), after: None },
        }
    }
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    Certificate::from_pem_bundle(&pem).map_err(|error| format!("{shown}: {}", chain(&error)))
}

/// What the system trusts. Certificates that cannot be read are only fewer to trust.
fn system_certificates() -> Vec<Certificate> {
    let found = rustls_native_certs::load_native_certs().certs;
    let mut usable = rustls::RootCertStore::empty();
    let found = found.into_iter().filter(|certificate| usable.add(certificate.clone()).is_ok());
    found.filter_map(|certificate| Certificate::from_der(&certificate).ok()).collect()
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// What a status means for the alert: had, perhaps later, or never.
fn judge(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Verdict {
    let fault = format!("the channel answered {status}");
    let worth_retrying = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    if status.is_success() {
        Verdict::Delivered
    } else if worth_retrying || status.is_server_error() {
        let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Verdict::Later { fault, after: after.and_then(|text| retry_after(text, now)) }
    } else {
        // A redirect too: the address in the configuration is no longer the right one.
        Verdict::Never { fault }
    }
}

/// Reads `Retry-After`: seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // The date is by the other side's clock and only paces us; a past one means now.
    Some(http_date(text)?.duration_since(now).unwrap_or(Duration::ZERO))
}

/// Reads a date such as `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that servers may send.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts = text.split(' ').collect::<Vec<_>>();
    let [_weekday, day, month, year, time, "GMT"] = parts.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        const DATE: u64 = 784_111_777;
        let text = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(http_date(text), Some(at(DATE)));
        assert_eq!(retry_after(text, at(DATE - 30)), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(text, at(DATE + 30)), Some(Duration::ZERO));
        assert_eq!(retry_after(" 120 ", at(0)), Some(Duration::from_secs(120)));
        for nonsense in ["", "-1", "soon", "1.5", "Sun, 06 Foo 1994 08:49:37 GMT", "06 Nov 1994"] {
            assert_eq!(retry_after(nonsense, at(0)), None, "{nonsense:?}");
        }
    }

    #[test]
    fn every_status_is_had_later_or_never() {
        let judge = |status| judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), at(0));
        for status in [200, 201, 202, 204] {
            assert_eq!(judge(status), Verdict::Delivered, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(judge(status), Verdict::Later { .. }), "{status}");
        }
        for status in [300, 301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422] {
            assert!(matches!(judge(status), Verdict::Never { .. }), "{status}");
        }
    }
}
