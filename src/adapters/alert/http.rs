//! A POST to a service, and what its answer means.
//!
//! The address often carries a token, so it is in no error and in no log. Neither is what the other
//! side answers beside its status: many servers repeat the address there.

use std::path::Path;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url, redirect};

use super::chain;
use super::delivery::Verdict;
use crate::adapters::trust;
use crate::config::secret::Secret;
use crate::config::settings::Endpoint;

/// An address with its client, made once: that reads the system's certificates, which takes a while.
pub(super) struct Poster {
    client: Client,
    url: Url,
    /// Whether there is anything that the certificate of the other side could be measured against.
    trusts: bool,
}

impl Poster {
    /// `Err` says what is wrong with the settings.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &endpoint.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_error| "its token has characters that HTTP does not allow".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let url = parse(&endpoint.url)?;
        Self::with(url, endpoint.ca_file.as_deref(), headers)
    }

    /// For an address that is understood already.
    pub(super) fn with(
        url: Url,
        ca_file: Option<&Path>,
        headers: HeaderMap,
    ) -> Result<Self, String> {
        // It only fails if there is a default already, which is then as good.
        let _present = rustls::crypto::ring::default_provider().install_default();
        let trusted = match ca_file {
            Some(path) => trust::read(path)?,
            // Nothing is trusted where nothing is encrypted, and a small machine may have none.
            None if url.scheme() == "http" => Vec::new(),
            None => trust::of_the_system(),
        };
        let trusts = url.scheme() == "http" || !trusted.is_empty();
        let client = Client::builder()
            .user_agent(concat!("understudy/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            // A redirected POST would become a GET or go to who knows whom.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            // Else a machine without any would have no client, and so no alerts and no daemon.
            .tls_certs_only(trusted)
            .build()
            .map_err(|error| chain(&error.without_url()))?;
        Ok(Self { client, url, trusts })
    }

    /// The same with another path, for services of which only the host is configured.
    pub(super) fn at(mut self, path: &str) -> Self {
        if !self.url.path().ends_with(path) {
            let whole = format!("{}{path}", self.url.path().trim_end_matches('/'));
            self.url.set_path(&whole);
        }
        self
    }

    /// Why nothing can ever be delivered, as far as can be told without trying.
    pub(super) fn hopeless(&self) -> Option<String> {
        (!self.trusts).then(|| NOBODY_TRUSTED.to_owned())
    }

    /// Posts JSON.
    pub(super) async fn post(&self, body: Vec<u8>, headers: HeaderMap) -> Verdict {
        self.send(Method::POST, Some(body), headers).await
    }

    /// Makes a request, with JSON in it if there is a body.
    pub(super) async fn send(
        &self,
        method: Method,
        body: Option<Vec<u8>>,
        headers: HeaderMap,
    ) -> Verdict {
        let mut request = self.client.request(method, self.url.clone()).headers(headers);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        match request.send().await {
            Ok(response) => judge(response.status(), response.headers(), SystemTime::now()),
            Err(error) => Verdict::Later { fault: chain(&error.without_url()), after: None },
        }
    }
}

/// The remedy is the same for each way of sending.
pub(super) const NOBODY_TRUSTED: &str =
    "this machine trusts no certificate authority; install ca-certificates or set ca_file";

/// Understands an address.
pub(super) fn parse(url: &Secret) -> Result<Url, String> {
    let url = Url::parse(url.expose())
        .map_err(|error| format!("its address cannot be understood ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("its address does not begin with https:// or http://".to_owned());
    }
    Ok(url)
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poster").finish_non_exhaustive()
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

/// Reads `Retry-After`: seconds, or a date. Discord sends fractions of a second.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if text.starts_with(|first: char| first.is_ascii_digit())
        && let Ok(seconds) = text.parse()
    {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    // The date is by the other side's clock and only paces us; a past one means now.
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
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
        assert_eq!(retry_after(text, at(DATE - 30)), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(text, at(DATE + 30)), Some(Duration::ZERO));
        assert_eq!(retry_after(" 120 ", at(0)), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("0.25", at(0)), Some(Duration::from_millis(250)));
        for nonsense in ["", "-1", "soon", "1e400", "Sun, 06 Foo 1994 08:49:37 GMT", "06 Nov 1994"]
        {
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
