//! Checks as the daemon measures them: told once, taken back, and no concern of the failover's.

use serde_json::Value;
use understudy::time::BootTime;

use nix::sys::signal::Signal;

use crate::support::client::{get, try_get};
use crate::support::daemon::{Plan, Scene, Standby, until};
use crate::support::http::{Answer, Http};
use crate::support::redis::free_port;

/// A standby with a pager and a check of a service, which is measured twice a second. A deadline that
/// is shorter still would be missed by a busy machine now and then.
fn checking<'a>(scene: &'a Scene, service: &Http, pager: &Http) -> Plan<'a> {
    scene
        .standby()
        .without_redis()
        .set("alert.pager.kind", "webhook")
        .set("alert.pager.url", format!("http://127.0.0.1:{}/page", pager.port))
        .set("check.service.kind", "http")
        .set("check.service.url", format!("http://127.0.0.1:{}/health", service.port))
        .set("check.service.interval", "500ms")
        .set("check.service.group", "bots")
        .set("check.service.runbook", "wiki/service")
}

/// The level of a check as the command line says it, and its exit code.
fn level(standby: &Standby, check: &str) -> (String, i32) {
    let ran = standby.run(&["health", "--json", check]);
    let Ok(health) = serde_json::from_str::<Value>(&ran.out) else {
        return (ran.err, ran.code);
    };
    (health["checks"][0]["level"].as_str().unwrap().to_owned(), ran.code)
}

/// The next alert about a check. Others are of no concern here, such as that a busy machine is not
/// ready.
fn next(pager: &Http) -> Value {
    loop {
        let alert = pager.next().json();
        if alert["event"].as_str().is_some_and(|event| event.starts_with("check_")) {
            return alert;
        }
    }
}

pub fn wait_for_level(standby: &Standby, check: &str, wanted: &str) {
    until(&format!("{check} to be {wanted}"), || level(standby, check).0 == wanted);
}

fn reload(standby: &Standby) {
    let asked = BootTime::now();
    standby.signal(Signal::SIGHUP);
    standby.notified.wait_for_since(asked, "READY=1");
}

#[test]
fn a_level_is_told_once_and_taken_back_by_a_later_process() {
    let (service, pager) =
        (Http::start(&[Answer::Status(200)]), Http::start(&[Answer::Status(200)]));
    let scene = Scene::new();
    let mut standby = checking(&scene, &service, &pager).running();
    wait_for_level(&standby, "service", "green");
    assert_eq!(level(&standby, "service").1, 0);
    let told = std::iter::from_fn(|| pager.try_next()).map(|request| request.json());
    let told: Vec<_> = told.filter(|alert| alert["event"] == "check_green").collect();
    assert!(told.is_empty(), "to be green is no news: {told:?}");

    service.answer(Answer::Status(500));
    let alert = next(&pager);
    assert_eq!((&alert["event"], &alert["severity"]), (&"check_red".into(), &"critical".into()));
    assert_eq!((&alert["lasting"], &alert["resolves"]), (&true.into(), &Value::Null));
    assert_eq!(alert["dedup_key"], "check/service/bravo");
    let fields = &alert["fields"];
    assert_eq!((&fields["check"], &fields["check_group"]), (&"service".into(), &"bots".into()));
    let summary = alert["summary"].as_str().unwrap();
    assert_eq!(summary, "service is red: it answered 500");
    assert!(alert["detail"].as_str().unwrap().contains("Runbook: wiki/service"), "{alert}");
    assert_eq!(level(&standby, "service"), ("red".to_owned(), 2));
    standby.wait_for_log(&["service is red"]);

    // Another process knows what was told, and neither tells it again nor forgets to take it back.
    standby.terminate();
    standby.start();
    wait_for_level(&standby, "service", "red");
    service.answer(Answer::Status(200));
    let over = next(&pager);
    assert_eq!((&over["event"], &over["lasting"]), (&"check_green".into(), &false.into()));
    assert_eq!(over["dedup_key"], "check/service/bravo");
    assert_eq!(over["resolves"]["event"], "check_red");
    until("no alert to be open", || standby.try_status().is_some_and(|s| s.open_alerts.is_empty()));
}

#[test]
fn a_reload_measures_what_is_new_and_takes_back_what_is_gone() {
    let (service, pager) =
        (Http::start(&[Answer::Status(500)]), Http::start(&[Answer::Status(200)]));
    let scene = Scene::new();
    let mut standby = checking(&scene, &service, &pager).running();
    assert_eq!(next(&pager)["event"], "check_red");
    standby.config["check"].as_table_mut().unwrap().remove("service");
    standby.configure("check.load.kind", "host");
    standby.configure("check.load.measure", "load");
    standby.configure("check.load.interval", "100ms");
    reload(&standby);
    let over = next(&pager);
    assert_eq!(
        (&over["event"], &over["resolves"]["event"]),
        (&"check_green".into(), &"check_red".into())
    );
    wait_for_level(&standby, "load", "green");
    let gone = level(&standby, "service");
    assert!(gone.0.contains("there is no such check"), "{gone:?}");
}

#[test]
fn checks_are_on_the_page_in_the_metrics_and_in_the_api() {
    let (service, pager) =
        (Http::start(&[Answer::Status(500)]), Http::start(&[Answer::Status(200)]));
    let (scene, port) = (Scene::new(), free_port());
    let standby = checking(&scene, &service, &pager)
        .set("http.listen", vec![format!("127.0.0.1:{port}")])
        .set("check.load.kind", "host")
        .set("check.load.measure", "load")
        .set("check.load.interval", "200ms")
        .set("check.load.weight", 3)
        .running();
    wait_for_level(&standby, "service", "red");
    wait_for_level(&standby, "load", "green");
    until("an answer", || try_get(port, "/health/startup", &[]).is_ok_and(|a| a.code == 200));
    let api = get(port, "/api/v1/checks").json();
    assert_eq!(
        (&api["score"], &api["band"], &api["level"]),
        (&75.0.into(), &"good".into(), &"red".into())
    );
    let mut schema: Value = serde_json::from_str(understudy::web::OPENAPI).unwrap();
    for kind in ["Checks", "Check"] {
        schema["components"]["schemas"][kind]["additionalProperties"] = false.into();
    }
    schema["$ref"] = "#/components/schemas/Checks".into();
    jsonschema::validate(&schema, &api).unwrap();
    until("the metrics to have it", || {
        let metrics = get(port, "/metrics");
        let level = |check, group| {
            let labels = format!("{{check=\"{check}\",check_group=\"{group}\"}}");
            metrics.sample(&format!("understudy_check_level{labels}"))
        };
        level("service", "bots") == Some(2.0)
            && level("load", "general") == Some(0.0)
            && metrics.sample("understudy_health_score") == Some(75.0)
            && metrics.sample("understudy_checks{level=\"red\"}") == Some(1.0)
    });
    let page = get(port, "/").body;
    for words in ["score 75, good", "<bdi>service</bdi>", "it answered 500", "wiki/service"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    let report = standby.path("reports");
    std::fs::create_dir(&report).unwrap();
    let ran = standby.run(&["check", "--save", report.to_str().unwrap()]);
    let saved = std::fs::read_dir(&report).unwrap().next().unwrap().unwrap().path();
    let name = saved.file_name().unwrap().to_str().unwrap();
    assert!(ran.out.contains(name), "{}", ran.out);
    let digits = name.strip_prefix("health_report_").unwrap().strip_suffix(".json").unwrap();
    let (day, time) = digits.split_once('_').unwrap();
    assert_eq!((day.len(), time.len()), (8, 6), "{name}");
    let saved: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    assert_eq!(saved["health"]["checks"].as_array().unwrap().len(), 2);
    assert_eq!(saved["score"], 75.0);
    assert!(saved["failover"].as_array().unwrap().len() > 5, "{saved:#}");
}

#[test]
fn checks_that_hang_flood_and_fail_keep_no_failover_from_being_made() {
    let silent = Http::start(&[Answer::Silence]);
    let items: Vec<String> = (0..300).map(|number| format!("item-{number}")).collect();
    let scene = Scene::new();
    let mut plan = scene.standby();
    for (name, kind, key, value) in [
        ("silent", "http", "url", format!("http://127.0.0.1:{}/{{each}}", silent.port)),
        ("slow", "postgres", "query", "SELECT 1 FROM pg_sleep(3600)".to_owned()),
        ("down", "http", "url", "http://127.0.0.1:1/{each}".to_owned()),
    ] {
        plan = plan
            .set(&format!("check.{name}.kind"), kind)
            .set(&format!("check.{name}.{key}"), value)
            .set(&format!("check.{name}.each"), items.clone())
            .set(&format!("check.{name}.interval"), "1s")
            .set(&format!("check.{name}.alert"), "never");
    }
    let hanging = ["/bin/sh", "-c", "sleep 3600 & sleep 3600"].map(str::to_owned).to_vec();
    let flooding = ["/bin/sh", "-c", "exec yes"].map(str::to_owned).to_vec();
    for (name, command) in [("hangs", hanging), ("floods", flooding)] {
        plan = plan
            .set(&format!("check.{name}.kind"), "command")
            .set(&format!("check.{name}.command"), command)
            .set(&format!("check.{name}.each"), items[..20].to_vec())
            .set(&format!("check.{name}.interval"), "1s")
            .set(&format!("check.{name}.alert"), "never");
    }
    let mut standby = plan.watching();
    wait_for_level(&standby, "down/item-0", "red");
    wait_for_level(&standby, "silent/item-7", "red");
    wait_for_level(&standby, "hangs/item-3", "red");
    scene.silence(&standby);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
    // And the end of the daemon does not wait for them either.
    assert!(standby.terminate().success());
}
