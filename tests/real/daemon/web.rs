//! The status page, the metrics and the API, as clients see them, good and bad ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use understudy::telemetry::metrics::{self, Kind, Metric};
use understudy::time::BootTime;
use understudy::web::OPENAPI;

use super::WINDOW;
use crate::support::certificates::Certificates;
use crate::support::client::{Answer, ask, connect, follow, get, try_get};
use crate::support::daemon::{Plan, Scene, Standby, until};
use crate::support::http::{self, Http};
use crate::support::redis::free_port;

impl Plan<'_> {
    /// Is served at this port of the loopback address.
    fn served_at(self, port: u16) -> Self {
        self.set("http.listen", vec![format!("127.0.0.1:{port}")])
    }
}

fn watching(scene: &Scene) -> (Standby, u16) {
    let port = free_port();
    let standby = scene.standby().served_at(port).watching();
    until("an answer", || try_get(port, "/health/startup", &[]).is_ok_and(|a| a.code == 200));
    (standby, port)
}

fn reload(standby: &Standby) {
    let asked = BootTime::now();
    standby.signal(Signal::SIGHUP);
    standby.notified.wait_for_since(asked, "READY=1");
}

// ---- metrics ----

#[test]
fn the_metrics_are_those_of_the_table_with_a_failover_in_them() {
    let pager = Http::start(&[http::Answer::Status(200)]);
    let scene = Scene::new();
    let port = free_port();
    let plan = scene.standby().served_at(port).set("alert.pager.kind", "webhook");
    let standby =
        plan.set("alert.pager.url", format!("http://127.0.0.1:{}/", pager.port)).watching();
    until("it to have started", || {
        try_get(port, "/health/startup", &[]).is_ok_and(|answer| answer.code == 200)
    });
    let ready = "understudy_ready{group=\"trading\"}";
    until("it to be ready", || get(port, "/metrics").sample(ready) == Some(1.0));
    let before = get(port, "/metrics");
    assert_eq!(before.header("content-type"), understudy::web::scrape::CONTENT_TYPE);
    assert!(before.body.ends_with("# EOF\n"));
    for (sample, value) in [
        ("understudy_build_info{version=\"0.1.0\",node=\"bravo\"}", 1.0),
        ("understudy_state{group=\"trading\",state=\"standby\"}", 1.0),
        ("understudy_state{group=\"trading\",state=\"active\"}", 0.0),
        ("understudy_primary{group=\"trading\"}", 0.0),
        ("understudy_verdict{group=\"trading\",verdict=\"fresh\"}", 1.0),
        ("understudy_ready{group=\"trading\"}", 1.0),
        ("understudy_window_seconds{group=\"trading\"}", 3.0),
        ("understudy_lease_epoch{group=\"trading\"}", 0.0),
        ("understudy_redis_link_up{group=\"trading\"}", 1.0),
        ("understudy_redis_lag_bytes{group=\"trading\"}", 0.0),
        ("understudy_failovers_total{group=\"trading\",result=\"completed\"}", 0.0),
        ("understudy_alerts_undelivered", 0.0),
    ] {
        assert_eq!(before.sample(sample), Some(value), "{sample} in\n{}", before.body);
    }
    let age = before.sample("understudy_heartbeat_age_seconds{group=\"trading\",bot=\"equity\"}");
    assert!((0.0..3.0).contains(&age.unwrap()), "{age:?}");
    assert!(before.sample("understudy_store_read_seconds_count").unwrap() >= 1.0);

    scene.silence(&standby);
    standby.wait_until_active();
    until("the failover to be in the metrics, and its alerts delivered", || {
        let answer = get(port, "/metrics");
        let delivered = "understudy_alerts_total{channel=\"pager\",result=\"delivered\"}";
        // Redis is looked at when the takeover is over.
        let master = "understudy_redis_master{group=\"trading\"}";
        answer.sample(delivered) >= Some(3.0)
            && answer.sample(master) == Some(1.0)
            && answer.sample("understudy_lease_epoch{group=\"trading\"}") == Some(1.0)
            && answer.sample("understudy_primary{group=\"trading\"}") == Some(1.0)
    });
    let after = get(port, "/metrics");
    for (sample, value) in [
        ("understudy_failovers_total{group=\"trading\",result=\"begun\"}", 1.0),
        ("understudy_failovers_total{group=\"trading\",result=\"completed\"}", 1.0),
        ("understudy_failover_duration_seconds_count{group=\"trading\"}", 1.0),
        ("understudy_step_duration_seconds_count{group=\"trading\",step=\"start\"}", 1.0),
        ("understudy_redis_master{group=\"trading\"}", 1.0),
    ] {
        assert_eq!(after.sample(sample), Some(value), "{sample} in\n{}", after.body);
    }
    compare_with_the_table(&after.body);
}

/// Families, kinds, units and labels are those of the table, and all of them are there.
fn compare_with_the_table(text: &str) {
    let table: BTreeMap<String, &Metric> =
        metrics::ALL.iter().map(|metric| (metric.family(), *metric)).collect();
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').unwrap();
            let metric =
                table.get(family).unwrap_or_else(|| panic!("{family} is not in the table"));
            assert_eq!(metric.kind.name(), kind, "{family}");
            assert!(families.insert(family.to_owned()), "{family} twice");
        } else if !line.starts_with('#') {
            let (name, labels) = sample(line);
            let metric = table.values().find(|metric| metric.samples().contains(&name));
            let metric = metric.unwrap_or_else(|| panic!("{line} is not in the table"));
            let labels: Vec<_> = labels.into_iter().filter(|label| label != "le").collect();
            assert_eq!(labels, metric.labels, "{line}");
        }
    }
    assert_eq!(families, table.keys().cloned().collect());
}

/// Name of a sample and names of its labels.
fn sample(line: &str) -> (String, Vec<String>) {
    let (name, rest) = line.split_once(['{', ' ']).unwrap();
    let labels = rest.split_once("} ").map_or("", |(labels, _)| labels);
    let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
    (name.to_owned(), labels.map(|(name, _)| name.to_owned()).collect())
}

#[test]
fn every_metric_has_a_kind_that_the_exposition_knows() {
    for metric in metrics::ALL {
        let ending = match metric.kind {
            Kind::Gauge => "",
            Kind::Counter => "_total",
            Kind::Histogram => "_bucket",
            Kind::Info => "_info",
        };
        assert_eq!(metric.samples()[0], format!("{}{ending}", metric.family()));
    }
}

/// A Prometheus that scrapes it, as it is in Debian.
struct Prometheus {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl Prometheus {
    fn scraping(target: u16) -> Self {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let rules = fs::canonicalize("packaging/prometheus/understudy.rules.yml").unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n- job_name: understudy\n  static_configs:\n\
             \x20   - targets: [\"127.0.0.1:{target}\"]\n",
            rules.display()
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed");
        Self { process, port, _dir: dir }
    }

    /// The values of a query; nothing while it cannot be asked.
    fn ask(&self, query: &str) -> Vec<String> {
        let path = format!("/api/v1/query?query={query}");
        let Ok(answer) = try_get(self.port, &path, &[]) else { return Vec::new() };
        let text = &answer.body[answer.body.find('{').unwrap_or(0)..];
        // It may come in chunks, with their sizes between lines.
        let text = text.trim_end_matches(|char| char != '}');
        let Ok(answer) = serde_json::from_str::<Value>(text) else { return Vec::new() };
        let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        results.iter().filter_map(|one| Some(one["value"][1].as_str()?.to_owned())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

#[test]
fn prometheus_itself_understands_them() {
    let scene = Scene::new();
    let (standby, port) = watching(&scene);
    let prometheus = Prometheus::scraping(port);
    until("a scrape", || prometheus.ask("up") == ["1"]);
    // Every family that has a sample, with its unit and its kind, in the strict parser.
    until("a sample", || prometheus.ask("understudy_build_info") == ["1"]);
    assert_eq!(prometheus.ask("understudy_window_seconds"), ["3"]);
    scene.silence(&standby);
    standby.wait_until_active();
    until("a failover", || prometheus.ask("understudy_primary") == ["1"]);
    let steps = "sum(understudy_step_duration_seconds_count)";
    until("its steps", || prometheus.ask(steps) == ["6"]);
    // The rules notice it, too.
    until("a rule", || {
        let firing = "count(ALERTS%7Balertname=%22UnderstudyFailedOver%22%7D)";
        prometheus.ask(firing) == ["1"]
    });
}

// ---- health ----

#[test]
fn health_says_what_kubernetes_means_by_it() {
    let mut scene = Scene::new();
    let port = free_port();
    let mut standby = scene.standby().served_at(port).ready();
    scene.stop_store();
    standby.start();
    until("an answer", || try_get(port, "/health/live", &[]).is_ok());
    standby.notified.wait_for("READY=1");
    // The first read has failed: it has started, lives, and is of no use yet.
    until("it to have started", || get(port, "/health/startup").code == 200);
    assert_eq!(get(port, "/health/live").code, 200);
    let answer = get(port, "/health/ready");
    assert_eq!(answer.code, 503);
    assert_eq!(answer.json()["status"], "failing");
    assert_eq!(answer.json()["reasons"][0]["group"], "trading");

    scene.resume_store();
    until("it to be ready", || get(port, "/health/ready").code == 200);
    assert_eq!(get(port, "/health/ready").json(), json!({ "status": "ok", "reasons": [] }));
    standby.run(&["hold", "--reason", "upgrade"]).assert_code(0);
    until("the hold to be read", || get(port, "/health/ready").code == 503);
    let reason = get(port, "/health/ready?group=trading").json()["reasons"][0]["text"].clone();
    assert!(reason.as_str().unwrap().contains("upgrade"), "{reason}");
    assert_eq!(get(port, "/health/live").code, 200);
    assert_eq!(get(port, "/health/ready?group=other").code, 404);

    standby.run(&["release"]).assert_code(0);
    until("the hold to be over", || get(port, "/health/ready").code == 200);
    scene.silence(&standby);
    standby.wait_until_active();
    // It has the group and beats: that is what it is for.
    until("it to be ready again", || get(port, "/health/ready").code == 200);
}

// ---- the API ----

#[test]
fn the_answers_are_those_of_the_document() {
    let scene = Scene::new();
    let (standby, port) = watching(&scene);
    let document: Value = get(port, "/api/v1/openapi.json").json();
    assert_eq!(document, serde_json::from_str::<Value>(OPENAPI).unwrap());
    assert_eq!(document["openapi"], "3.1.0");
    let conforms = |answer: &Answer, schema: &str| conforms(answer, schema);

    let answer = get(port, "/api/v1/status");
    conforms(&answer, "Status");
    assert_eq!(answer.json()["groups"][0]["name"], "trading");
    assert_eq!(answer.json()["http"][0]["fault"], Value::Null);
    for path in ["live", "ready", "startup"] {
        conforms(&get(port, &format!("/health/{path}")), "Health");
    }

    standby.run(&["hold", "--reason", "<b>why</b>", "--for", "1h"]).assert_code(0);
    until("the hold to be read", || {
        !get(port, "/api/v1/status").json()["groups"][0]["hold"].is_null()
    });
    conforms(&get(port, "/api/v1/status"), "Status");
    standby.run(&["release"]).assert_code(0);
    scene.silence(&standby);
    standby.wait_for("a takeover", |group| group.takeover.is_some());
    conforms(&get(port, "/api/v1/status"), "Status");
    standby.wait_until_active();
    until("the failover to be in the history", || {
        get(port, "/api/v1/history").json()["records"][0]["status"] == "done"
    });
    conforms(&get(port, "/api/v1/status"), "Status");
    let history = get(port, "/api/v1/history");
    conforms(&history, "History");
    let records = history.json()["records"].as_array().unwrap().clone();
    let kinds: Vec<_> = records.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["automatic", "release", "hold"]);
    assert!(!records[0]["timeline"].as_array().unwrap().is_empty());
    let one = get(port, "/api/v1/history?limit=1&group=trading").json();
    assert_eq!(one["records"].as_array().unwrap().len(), 1);
    assert_eq!(get(port, "/api/v1/history?group=other").json()["records"], json!([]));
    let id = records[0]["id"].as_str().unwrap();
    let entry = get(port, &format!("/api/v1/history/{}", &id[..8]));
    conforms(&entry, "Record");
    assert_eq!(entry.json(), records[0]);

    for (path, code) in [
        ("/api/v1/history?limit=0", 400),
        ("/api/v1/history?limit=201", 400),
        ("/api/v1/history?what=ever", 400),
        ("/api/v1/history/ffffffff", 404),
        ("/nothing", 404),
        ("/api/v1/status/", 404),
        ("/../etc/passwd", 404),
    ] {
        let answer = get(port, path);
        assert_eq!(answer.code, code, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        conforms(&answer, "Problem");
    }
    let answer = ask(connect(port).unwrap(), "POST", "/api/v1/status", &[]).unwrap();
    assert_eq!((answer.code, answer.header("allow")), (405, "GET, HEAD"));
    let answer = ask(connect(port).unwrap(), "HEAD", "/metrics", &[]).unwrap();
    assert_eq!((answer.code, answer.body.as_str()), (200, ""));
}

/// Validates an answer, and that the document knows each of its fields.
fn conforms(answer: &Answer, schema: &str) {
    let mut document: Value = serde_json::from_str(OPENAPI).unwrap();
    forbid_unknown(&mut document["components"]["schemas"]);
    document["$ref"] = json!(format!("#/components/schemas/{schema}"));
    let validator = jsonschema::validator_for(&document).unwrap();
    let faults: Vec<_> = validator
        .iter_errors(&answer.json())
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{schema}: {faults:#?}\n{}", answer.body);
}

fn forbid_unknown(schema: &mut Value) {
    if let Value::Object(map) = schema {
        if map.get("properties").is_some_and(Value::is_object) {
            map.insert("additionalProperties".to_owned(), json!(false));
        }
        map.values_mut().for_each(forbid_unknown);
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(forbid_unknown);
    }
}

#[test]
fn without_the_store_the_last_status_is_served_and_the_history_says_why_not() {
    let mut scene = Scene::new();
    let (standby, port) = watching(&scene);
    scene.stop_store();
    standby.wait_for("it to be noticed", |group| group.verdict == "unknown");
    until("it to be served", || {
        get(port, "/api/v1/status").json()["groups"][0]["verdict"] == "unknown"
    });
    let answer = get(port, "/api/v1/history");
    assert_eq!(answer.code, 503);
    conforms(&answer, "Problem");
    assert_eq!(get(port, "/").code, 200);
}

// ---- events ----

#[test]
fn events_tell_of_each_change() {
    let scene = Scene::new();
    let (standby, port) = watching(&scene);
    let mut events = follow(port, "/api/v1/events");
    let (name, data) = events.next().unwrap();
    assert_eq!(name, "status");
    let status: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(status["groups"][0]["state"], "standby");
    // The bots beat, so another comes soon.
    assert_eq!(events.next().unwrap().0, "status");
    let mut pages = follow(port, "/api/v1/events?as=html");
    let (name, data) = pages.next().unwrap();
    assert_eq!(name, "page");
    assert!(data.contains("<h2><bdi>trading</bdi>"), "{data}");
    scene.silence(&standby);
    let becomes_active = |(_, data): (String, String)| {
        serde_json::from_str::<Value>(&data)
            .is_ok_and(|status| status["groups"][0]["state"] == "active")
    };
    assert!(events.any(becomes_active));
    assert!(pages.any(|(_, data)| data.contains("class=\"timeline\"")));
}

// ---- who may look ----

#[test]
fn a_token_is_asked_for_where_one_is_configured() {
    let scene = Scene::new();
    let port = free_port();
    let mut standby = scene.standby().served_at(port).ready();
    let secret = standby.path("token");
    fs::write(&secret, "s3cret:with colon\n").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut token = toml::Table::new();
    token.insert("file".to_owned(), secret.display().to_string().into());
    standby.configure("http.token", token);
    standby.write_config();
    standby.start();
    standby.wait_until_watching();
    until("it to have started", || {
        try_get(port, "/health/startup", &[]).is_ok_and(|answer| answer.code == 200)
    });
    for path in ["/", "/metrics", "/api/v1/status", "/api/v1/history", "/api/v1/events", "/x"] {
        let answer = get(port, path);
        assert_eq!(answer.code, 401, "{path}");
        assert!(!answer.body.contains("trading"), "{answer:?}");
    }
    // A probe needs none, and is told nothing but the outcome.
    let answer = get(port, "/health/ready");
    assert_eq!(answer.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["status"]);
    let with = |value: &str| try_get(port, "/metrics", &[("Authorization", value)]).unwrap().code;
    assert_eq!(with("Bearer s3cret:with colon"), 200);
    assert_eq!(with("bearer s3cret:with colon"), 200);
    // understudy:s3cret:with colon
    assert_eq!(with("Basic dW5kZXJzdHVkeTpzM2NyZXQ6d2l0aCBjb2xvbg=="), 200);
    for wrong in
        ["Bearer s3cret", "Bearer ", "Bearer", "Basic !", "Basic eDp4", "x s3cret:with colon"]
    {
        assert_eq!(with(wrong), 401, "{wrong}");
    }
    assert!(!standby.log().contains("s3cret"));
}

#[test]
fn a_page_from_elsewhere_cannot_read_along() {
    let scene = Scene::new();
    let port = free_port();
    let standby =
        scene.standby().served_at(port).set("http.hosts", vec!["Mon.example.net"]).watching();
    until("an answer", || try_get(port, "/", &[]).is_ok_and(|answer| answer.code == 200));
    let called = |host: &str| try_get(port, "/api/v1/status", &[("Host", host)]).unwrap();
    for host in
        ["127.0.0.1", "localhost:80", "[::1]:1", "10.1.2.3", "bravo", "BRAVO.", "mon.example.net"]
    {
        assert_eq!(called(host).code, 200, "{host}");
    }
    for host in
        ["evil.example", "localhost.evil.example", "bravo.example.net", "", "a b", "127.0.0.1.x"]
    {
        let answer = called(host);
        assert!(matches!(answer.code, 400 | 421), "{host}: {answer:?}");
        assert!(!answer.body.contains("trading"));
    }
    let answer = try_get(port, "/", &[("Origin", "http://evil.example")]).unwrap();
    assert_eq!(answer.header("access-control-allow-origin"), "");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), value);
    }
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    drop(standby);
}

// ---- where ----

#[test]
fn a_port_that_is_taken_keeps_nothing_from_failing_over() {
    let scene = Scene::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut standby = scene.standby().served_at(port).watching();
    standby.wait_for_log(&["cannot be served at", "another program listens there"]);
    let status = standby.try_status().unwrap();
    assert_eq!(status.http[0].fault.as_deref(), Some("another program listens there"));
    standby.run(&["status"]).assert_says("are not served at");
    standby.run(&["check"]).assert_says(&format!("status page and metrics at 127.0.0.1:{port}"));
    scene.silence(&standby);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
    // A reload tries at once, and listens to what is new.
    drop(taken);
    let socket = standby.path("http.sock");
    let both = vec![format!("127.0.0.1:{port}"), format!("unix:{}", socket.display())];
    standby.configure("http.listen", both);
    standby.write_config();
    reload(&standby);
    until("an answer", || try_get(port, "/metrics", &[]).is_ok_and(|answer| answer.code == 200));
    until("the socket", || UnixStream::connect(&socket).is_ok());
    let stream = UnixStream::connect(&socket).unwrap();
    // A name means nothing on a socket.
    assert_eq!(ask(stream, "GET", "/metrics", &[("Host", "what.ever")]).unwrap().code, 200);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let none: Vec<String> = Vec::new();
    standby.configure("http.listen", none);
    standby.write_config();
    reload(&standby);
    until("nobody to listen", || connect(port).is_err());
    assert!(standby.try_status().unwrap().http.is_empty());
}

use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_new_certificate_is_read_by_a_reload_and_a_bad_one_is_not_used() {
    let scene = Scene::new();
    let port = free_port();
    let mut standby = scene.standby().served_at(port).ready();
    let make = |name: &str| {
        let dir = standby.path(name);
        fs::create_dir(&dir).unwrap();
        Certificates::make(&dir)
    };
    let (first, second) = (make("first"), make("second"));
    let (certificate, key) = (standby.path("http.pem"), standby.path("http.key"));
    let install = |from: &Certificates| {
        fs::copy(&from.certificate, &certificate).unwrap();
        fs::copy(&from.key, &key).unwrap();
    };
    install(&first);
    standby.configure("http.certificate_file", certificate.display().to_string());
    standby.configure("http.key_file", key.display().to_string());
    standby.write_config();
    standby.start();
    standby.wait_until_watching();
    until("an encrypted answer", || encrypted(port, &first.ca).is_some());
    assert_eq!(encrypted(port, &first.ca).unwrap().code, 200);
    assert!(encrypted(port, &second.ca).is_none(), "signed by another authority");
    assert!(try_get(port, "/health/live", &[]).is_err(), "answered in the clear");
    standby.configure("http.listen", vec![format!("0.0.0.0:{port}")]);
    standby.write_config();
    standby.run(&["check"]).assert_code(1).assert_says("everybody who can connect may look");
    install(&second);
    reload(&standby);
    until("the new certificate", || encrypted(port, &second.ca).is_some());
    fs::write(&certificate, "nonsense").unwrap();
    reload(&standby);
    standby.wait_for_log(&["the new certificate cannot be used, the old one stays"]);
    until("the old certificate", || encrypted(port, &second.ca).is_some());
}

/// Asks over TLS, trusting one authority.
fn encrypted(port: u16, ca: &Path) -> Option<Answer> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = rustls::StreamOwned::new(client, connect(port).ok()?);
    ask(Lenient(stream), "GET", "/metrics", &[]).ok()
}

/// The end of a connection is its end, whether it was announced or not.
struct Lenient<S>(S);

impl<S: std::io::Read> std::io::Read for Lenient<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }
}

impl<S: std::io::Write> std::io::Write for Lenient<S> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

// ---- bad clients ----

#[test]
fn bad_clients_exhaust_nothing_and_delay_no_failover() {
    let scene = Scene::new();
    let (standby, port) = watching(&scene);
    let before = resident_kib(&standby);
    // Slow ones, which say half of a head and then nothing.
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = connect(port).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: local").unwrap();
            stream
        })
        .collect();
    // They lock nobody out.
    assert_eq!(get(port, "/health/live").code, 200);
    // A head of a megabyte, and one of a thousand lines, are cut off.
    for line in [format!("X: {}\r\n", "x".repeat(1 << 20)), "X: y\r\n".repeat(1_000)] {
        let mut stream = connect(port).unwrap();
        let _cut =
            stream.write_all(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{line}").as_bytes());
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    for nonsense in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"\r\n\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
    {
        let mut stream = connect(port).unwrap();
        let _ = stream.write_all(nonsense);
    }
    // Many at once, while the primary dies.
    scene.silence(&standby);
    let died = BootTime::now();
    let flood: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut answered = 0;
                for number in 0..2_500 {
                    let path = if number % 2 == 0 { "/metrics" } else { "/" };
                    answered += u32::from(try_get(port, path, &[]).is_ok_and(|a| a.code == 200));
                }
                answered
            })
        })
        .collect();
    standby.wait_for("the takeover to begin", |group| group.epoch == Some(1));
    let took = BootTime::now().since(died);
    assert!(took < WINDOW * 2, "{took:?}");
    standby.wait_until_active();
    let answered: u32 = flood.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(answered > 9_000, "{answered} of 10000 were answered");
    scene.assert_taken_over(&standby, 1);
    let after = resident_kib(&standby);
    assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB after");
    let dropped = get(port, "/metrics").sample("understudy_http_connections_dropped_total");
    assert!(dropped.unwrap() >= 136.0, "{dropped:?}");
    drop(slow);
}

fn resident_kib(standby: &Standby) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", standby.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
