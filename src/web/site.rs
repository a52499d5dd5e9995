//! What is served, to whom. Everything is read-only: GET and HEAD, no cookies, no other origin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::history::{History, RECORDS_MAX};
use super::{OPENAPI, Shared, View, events, health, page, scrape};
use crate::adapters::postgres::operator::Record;
use crate::config::settings::{Listen, Settings};
use crate::control::protocol::Status;
use crate::monitor::health::Health;
use crate::time::BootTime;

/// What an answer carries.
pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// How old the history may be that a program gets.
const HISTORY_AGE_MAX: Duration = Duration::from_secs(2);

/// How old the history may be from which metrics are made. They change with each failover, which is
/// known without the store.
const FACTS_AGE_MAX: Duration = Duration::from_secs(600);

/// How long a client waits that does not know the token, so that guessing takes time.
const REFUSAL_PAUSE: Duration = Duration::from_millis(300);

/// How long a made text of metrics is served again. Scrapers come every few seconds; who comes more
/// often must not cost processor time.
const METRICS_KEPT: Duration = Duration::from_millis(250);

/// Entries of the history that are returned if nothing is said.
const RECORDS_DEFAULT: usize = 20;

/// The site as configured.
pub(super) struct Site {
    settings: Arc<Settings>,
    shared: Shared,
    /// Names by which it may be called.
    names: Vec<String>,
    /// Digest of the token, as comparing digests takes no less time for a token that is nearly
    /// right.
    token: Option<Vec<u8>>,
    pub(super) history: History,
    /// The last text of metrics and when it was made.
    metrics: Mutex<Option<(BootTime, Bytes)>>,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Page,
    Metrics,
    Live,
    Ready,
    Startup,
    Status,
    History,
    Entry(String),
    Events,
    Checks,
    OpenApi,
    None,
}

impl Route {
    fn of(path: &str) -> Self {
        match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/health/live" => Self::Live,
            "/health/ready" => Self::Ready,
            "/health/startup" => Self::Startup,
            "/api/v1/status" => Self::Status,
            "/api/v1/history" => Self::History,
            "/api/v1/events" => Self::Events,
            "/api/v1/checks" => Self::Checks,
            "/api/v1/openapi.json" => Self::OpenApi,
            path => match path.strip_prefix("/api/v1/history/") {
                Some(id) if !id.is_empty() => Self::Entry(id.to_owned()),
                _ => Self::None,
            },
        }
    }

    /// For the metrics: one of few, whatever a client asks for.
    const fn name(&self) -> &'static str {
        match self {
            Self::Page => "/",
            Self::Metrics => "/metrics",
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::Startup => "/health/startup",
            Self::Status => "/api/v1/status",
            Self::History => "/api/v1/history",
            Self::Entry(_) => "/api/v1/history/{id}",
            Self::Events => "/api/v1/events",
            Self::Checks => "/api/v1/checks",
            Self::OpenApi => "/api/v1/openapi.json",
            Self::None => "other",
        }
    }
}

/// Why there is no better answer, as RFC 9457 has it.
#[derive(Serialize)]
struct Problem {
    status: u16,
    title: &'static str,
    detail: String,
}

/// The history as a program gets it.
#[derive(Serialize)]
struct Entries<'a> {
    read_ago_ms: u64,
    records: Vec<&'a Record>,
}

impl Site {
    pub(super) fn new(settings: Arc<Settings>, shared: Shared) -> Self {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let mut names = settings.http.hosts.clone();
        names.extend([settings.node.clone(), "localhost".to_owned()]);
        names.extend(host);
        for name in &mut names {
            name.make_ascii_lowercase();
        }
        let token = settings.http.token.as_ref();
        let token = token.map(|token| digest(&SHA256, token.expose().as_bytes()).as_ref().to_vec());
        let history = History::new(settings.clone());
        Self { settings, shared, names, token, history, metrics: Mutex::default() }
    }

    pub(super) fn note(&self, listen: &Listen, fault: Option<String>) {
        self.shared.listeners.note(listen, fault);
    }

    pub(super) fn dropped(&self) {
        self.shared.metrics.http_dropped();
    }

    pub(super) fn views(&self) -> tokio::sync::watch::Receiver<Option<Arc<View>>> {
        self.shared.views.clone()
    }

    /// The daemon as it is now, unless it has said nothing yet.
    pub(super) fn status(&self) -> Option<Status> {
        let view = self.shared.views.borrow().clone();
        view.map(|view| view.now(BootTime::now()))
    }

    /// What the checks say.
    pub(super) fn checks(&self) -> Health {
        (self.shared.health)()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Answers a request. `named` says whether its host name means anything, which it does not on a
    /// socket in the file system.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        named: bool,
    ) -> Response<Body> {
        let route = Route::of(request.uri().path());
        let name = route.name();
        let metrics = self.shared.metrics.clone();
        let response = if named && !self.is_called(&request) {
            misdirected()
        } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "Only reading is possible here",
                "use GET; orders are given by the command line".to_owned(),
            );
            set(&mut response, header::ALLOW, "GET, HEAD");
            response
        } else {
            let knows = self.knows_token(&request);
            let open = matches!(route, Route::Live | Route::Ready | Route::Startup);
            if knows || open { self.serve(route, &request, knows).await } else { stranger().await }
        };
        metrics.http_request(name, response.status().as_u16());
        guarded(response)
    }

    async fn serve(
        self: &Arc<Self>,
        route: Route,
        request: &Request<Incoming>,
        knows: bool,
    ) -> Response<Body> {
        let parameters = match parameters(request.uri().query().unwrap_or_default()) {
            Ok(parameters) => parameters,
            Err(detail) => return bad_request(detail),
        };
        match route {
            Route::Page => self.page(&parameters).await,
            Route::Metrics => self.metrics(request).await,
            Route::Live | Route::Ready | Route::Startup => self.health(&route, &parameters, knows),
            Route::Status => match self.status() {
                Some(status) => json(StatusCode::OK, &status),
                None => not_yet(),
            },
            Route::History => self.entries(&parameters).await,
            Route::Entry(id) => self.entry(&id).await,
            Route::Events if request.method() == Method::HEAD => {
                text(StatusCode::OK, "text/event-stream", Bytes::new())
            }
            Route::Events => {
                let (wanted, group) = (parameters.get("as"), parameters.get("group"));
                events::stream(self.clone(), wanted.copied(), group.copied())
            }
            Route::Checks => json(StatusCode::OK, &self.checks()),
            Route::OpenApi => {
                text(StatusCode::OK, "application/json", Bytes::from_static(OPENAPI.as_bytes()))
            }
            Route::None => problem(
                StatusCode::NOT_FOUND,
                "There is nothing here",
                "see / and /api/v1/openapi.json for what there is".to_owned(),
            ),
        }
    }

    fn health(
        &self,
        route: &Route,
        parameters: &BTreeMap<&str, &str>,
        knows: bool,
    ) -> Response<Body> {
        let status = self.status();
        let health = match route {
            Route::Live => health::live(self.loop_age()),
            Route::Startup => health::startup(status.as_ref()),
            _ => {
                let group = parameters.get("group").copied();
                let unknown = group.filter(|name| {
                    self.settings.groups.iter().all(|group| group.name.as_str() != *name)
                });
                if unknown.is_some() {
                    return no_such_group();
                }
                health::ready(status.as_ref(), &self.settings, group)
            }
        };
        let code = if health.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(code, &if knows { health } else { health.without_reasons() })
    }

    pub(super) fn loop_age(&self) -> Duration {
        self.shared.pulse.age(BootTime::now())
    }

    async fn metrics(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Body> {
        let mut kept = self.metrics.lock().await;
        let now = BootTime::now();
        let fresh = kept.as_ref().filter(|(made, _)| now.since(*made) <= METRICS_KEPT);
        let made = match fresh {
            Some((_, made)) => made.clone(),
            None => {
                let seen = self.history.known();
                if seen.age.is_none_or(|age| age > FACTS_AGE_MAX) {
                    // For the next time; nobody waits for the store here.
                    let site = self.clone();
                    tokio::spawn(async move { site.history.recent(FACTS_AGE_MAX).await });
                }
                let made = Bytes::from(scrape::text(
                    &self.shared.metrics,
                    scrape::Scene {
                        status: self.status(),
                        health: self.checks(),
                        facts: super::history::facts(&seen.records),
                        loop_age: self.loop_age(),
                        process: scrape::Process::read(),
                        restarts: self.shared.metrics.service_restarts(),
                    },
                ));
                *kept = Some((now, made.clone()));
                made
            }
        };
        // A browser would save it as a file otherwise.
        let person = accepts(request, "text/html");
        let kind = if person { "text/plain; charset=utf-8" } else { scrape::CONTENT_TYPE };
        text(StatusCode::OK, kind, made)
    }

    async fn entries(&self, parameters: &BTreeMap<&str, &str>) -> Response<Body> {
        let limit = match parameters.get("limit").map(|limit| limit.parse::<usize>()) {
            None => RECORDS_DEFAULT,
            Some(Ok(limit)) if (1..=RECORDS_MAX as usize).contains(&limit) => limit,
            Some(_) => return bad_request(format!("limit= is a number from 1 to {RECORDS_MAX}")),
        };
        let group = parameters.get("group").copied();
        let seen = self.history.recent(HISTORY_AGE_MAX).await;
        let Some(age) = seen.age.filter(|_| seen.fault.is_none()) else {
            return unreadable(seen.fault);
        };
        let records = seen.records.iter();
        let records = records.filter(|record| group.is_none_or(|name| record.group == name));
        let read_ago_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        json(StatusCode::OK, &Entries { read_ago_ms, records: records.take(limit).collect() })
    }

    async fn entry(&self, id: &str) -> Response<Body> {
        let seen = self.history.recent(HISTORY_AGE_MAX).await;
        let id = id.to_ascii_lowercase();
        let mut found = seen.records.iter().filter(|record| record.id.starts_with(&id));
        match (found.next(), found.next()) {
            (Some(record), None) => json(StatusCode::OK, record),
            (Some(_), Some(_)) => bad_request("several entries begin like that".to_owned()),
            (None, _) if seen.fault.is_some() => unreadable(seen.fault),
            (None, _) => problem(
                StatusCode::NOT_FOUND,
                "There is no such entry",
                format!("among the last {RECORDS_MAX}; `understudy history ID` finds older ones"),
            ),
        }
    }

    async fn page(&self, parameters: &BTreeMap<&str, &str>) -> Response<Body> {
        let Some(status) = self.status() else { return not_yet() };
        let seen = self.history.recent(page::HISTORY_AGE_MAX).await;
        let (health, only) = (self.checks(), parameters.get("group").copied());
        let whole = page::whole(&status, &self.settings, &seen, &health, only);
        let mut response = text(StatusCode::OK, "text/html; charset=utf-8", Bytes::from(whole));
        set(&mut response, header::CONTENT_SECURITY_POLICY, page::policy());
        response
    }

    /// Whether the client calls this host by a name of its own. A page from elsewhere could
    /// otherwise read along, by letting its own name mean an address of this host.
    fn is_called(&self, request: &Request<Incoming>) -> bool {
        let by_header = request.headers().get(header::HOST).map(|host| host.to_str());
        let authority = match by_header {
            None => match request.uri().authority() {
                // Only programs leave it out, and no program is fooled by a name.
                None => return true,
                Some(authority) => authority.as_str(),
            },
            Some(Ok(host)) => host,
            Some(Err(_)) => return false,
        };
        let Ok(authority) = authority.parse::<hyper::http::uri::Authority>() else { return false };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>().is_ok() || self.names.contains(&host)
    }

    fn knows_token(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let Some((scheme, rest)) = given.and_then(|given| given.split_once(' ')) else {
            return false;
        };
        let given = if scheme.eq_ignore_ascii_case("bearer") {
            Some(rest.trim().as_bytes().to_vec())
        } else if scheme.eq_ignore_ascii_case("basic") {
            let decoded = BASE64.decode(rest.trim()).ok();
            // Any user; the password is the token.
            decoded.and_then(|pair| {
                let colon = pair.iter().position(|byte| *byte == b':')?;
                Some(pair[colon + 1..].to_vec())
            })
        } else {
            None
        };
        given.is_some_and(|given| digest(&SHA256, &given).as_ref() == token.as_slice())
    }
}

/// The parameters of a query. None of ours needs an escape.
fn parameters(query: &str) -> Result<BTreeMap<&str, &str>, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key @ ("group" | "limit" | "as"), value)) => Ok((key, value)),
            _ => Err("known parameters are group=, limit= and as=".to_owned()),
        })
        .collect()
}

fn accepts(request: &Request<Incoming>, kind: &str) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains(kind))
}

async fn stranger() -> Response<Body> {
    sleep(REFUSAL_PAUSE).await;
    let mut response = problem(
        StatusCode::UNAUTHORIZED,
        "A token is needed",
        "send it as \"Authorization: Bearer TOKEN\", or as the password of any user".to_owned(),
    );
    set(&mut response, header::WWW_AUTHENTICATE, "Basic realm=\"understudy\", charset=\"UTF-8\"");
    let bearer = HeaderValue::from_static("Bearer realm=\"understudy\"");
    response.headers_mut().append(header::WWW_AUTHENTICATE, bearer);
    response
}

fn misdirected() -> Response<Body> {
    problem(
        StatusCode::MISDIRECTED_REQUEST,
        "This host is not known by that name",
        "call it by its address, or write the name into hosts of [http]".to_owned(),
    )
}

fn bad_request(detail: String) -> Response<Body> {
    problem(StatusCode::BAD_REQUEST, "That makes no sense", detail)
}

fn no_such_group() -> Response<Body> {
    problem(StatusCode::NOT_FOUND, "There is no such group", "see /api/v1/status".to_owned())
}

fn not_yet() -> Response<Body> {
    let detail = "understudy has just been started; try again in a second".to_owned();
    problem(StatusCode::SERVICE_UNAVAILABLE, "Not yet", detail)
}

fn unreadable(fault: Option<String>) -> Response<Body> {
    let detail = fault.unwrap_or_else(|| "it was not read yet".to_owned());
    problem(StatusCode::SERVICE_UNAVAILABLE, "The history cannot be read", detail)
}

fn problem(status: StatusCode, title: &'static str, detail: String) -> Response<Body> {
    let mut response = json(status, &Problem { status: status.as_u16(), title, detail });
    set(&mut response, header::CONTENT_TYPE, "application/problem+json");
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => text(status, "application/json", Bytes::from(body)),
        // None of our types can fail to be written.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", Bytes::new()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, kind);
    response
}

/// Sets a header to a value that is one of ours.
pub(super) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What every answer says to a browser: no other site may use it, and nothing may keep it.
fn guarded(mut response: Response<Body>) -> Response<Body> {
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut response, header::X_FRAME_OPTIONS, "DENY");
    set(&mut response, header::REFERRER_POLICY, "no-referrer");
    let resource = HeaderName::from_static("cross-origin-resource-policy");
    set(&mut response, resource, "same-origin");
    if !response.headers().contains_key(header::CONTENT_SECURITY_POLICY) {
        let none = "default-src 'none'; frame-ancestors 'none'";
        set(&mut response, header::CONTENT_SECURITY_POLICY, none);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_document_exists_and_the_other_way_round() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let known = [
            Route::Page,
            Route::Metrics,
            Route::Live,
            Route::Ready,
            Route::Startup,
            Route::Status,
            Route::History,
            Route::Entry("x".to_owned()),
            Route::Events,
            Route::Checks,
            Route::OpenApi,
        ];
        for path in paths.keys() {
            let route = Route::of(&path.replace("{id}", "x"));
            assert!(known.contains(&route), "{path}");
            assert_eq!(route.name(), path);
        }
        assert_eq!(paths.len(), known.len());
    }

    #[test]
    fn parameters_that_are_not_known_are_refused() {
        assert_eq!(parameters("limit=5&group=a").unwrap().len(), 2);
        assert!(parameters("").unwrap().is_empty());
        for strange in ["limits=5", "limit", "=", "group=a&x=y"] {
            assert!(parameters(strange).is_err(), "{strange}");
        }
    }
}
