//! Alerts: the outbox on a real disk, delivery to a real HTTP server.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail in a helper, and on whatever it did not expect"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::Receiver;
use understudy::adapters::alert::{
    Alert, AlertError, Alerts, Backlog, Outbox, OutboxError, Pace, Report, Settled,
};
use understudy::config::secret::Secret;
use understudy::config::settings::{Channel, ChannelKind, Endpoint, Severity};
use uuid::Uuid;

use crate::support::certificates::Certificates;
use crate::support::http::{Answer, Http};
use crate::support::redis::free_port;
use crate::support::wait;

/// A token that must be in no text.
const CANARY: &str = "T0K3N-CANARY";

/// So fast that tests need not wait, and slow enough to be seen.
const FAST: Pace = Pace {
    attempt_deadline: Duration::from_secs(5),
    pause_min: Duration::from_millis(20),
    pause_max: Duration::from_millis(50),
    retry_after_max: Duration::from_secs(2),
};

fn alert(summary: &str, severity: Severity) -> Alert {
    let id = Uuid::new_v4();
    Alert {
        id,
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
        severity,
        event: "failover_completed".to_owned(),
        group: Some("equity".to_owned()),
        epoch: Some(7),
        node: "beta".to_owned(),
        summary: summary.to_owned(),
        detail: "All units are active.".to_owned(),
        // Each about something else, so that none is folded into another.
        dedup_key: format!("equity/{id}"),
        fields: BTreeMap::from([("took_ms".to_owned(), "2140".to_owned())]),
        lasting: false,
        resolves: None,
        folded: None,
    }
}

fn critical(summary: &str) -> Alert {
    alert(summary, Severity::Critical)
}

fn channel(name: &str, port: u16) -> Channel {
    let url = Secret::new(format!("http://127.0.0.1:{port}/hook/{CANARY}?token={CANARY}"));
    Channel {
        name: name.to_owned(),
        min_severity: Severity::Info,
        fold_within: Duration::from_secs(600),
        escalate_after: None,
        kind: webhook(url, None),
    }
}

fn webhook(url: Secret, ca_file: Option<PathBuf>) -> ChannelKind {
    let endpoint = Endpoint { url, token: None, ca_file };
    ChannelKind::Webhook { endpoint, body: None, secret: None }
}

/// A channel for tests that never deliver.
fn shelf(name: &str) -> Channel {
    channel(name, 9)
}

fn open(dir: &Path) -> Outbox {
    Outbox::open(dir, &[shelf("pager")]).unwrap()
}

fn only(backlogs: &[Backlog]) -> &Backlog {
    assert_eq!(backlogs.len(), 1);
    &backlogs[0]
}

/// Takes everything out, in order.
fn drain(outbox: &mut Outbox) -> Vec<String> {
    let mut summaries = Vec::new();
    while let Some(letter) = outbox.head(0) {
        summaries.push(letter.alert.summary);
        outbox.settle(0, letter.id, Settled::Delivered);
    }
    summaries
}

async fn next(reports: &mut Receiver<Report>) -> Report {
    let report = tokio::time::timeout(Duration::from_secs(30), reports.recv()).await;
    report.expect("a report within 30 s").expect("deliveries go on")
}

fn start(dir: &Path, channels: &[Channel]) -> (Alerts, Receiver<Report>) {
    Alerts::start(dir, channels, FAST).expect("the settings are good")
}

/// Waits until so many alerts are left to deliver.
async fn until_pending(alerts: &Alerts, pending: usize) {
    let mut backlog = alerts.backlog();
    let enough = backlog.wait_for(|all| all.iter().map(|b| b.pending).sum::<usize>() == pending);
    tokio::time::timeout(Duration::from_secs(30), enough).await.expect("in 30 s").expect("open");
}

// ---- the outbox

#[test]
fn what_was_pushed_is_there_after_a_crash_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = open(dir.path());
    for number in 0..20 {
        outbox.push(&critical(&number.to_string())).unwrap();
    }
    // Forgotten rather than closed: nothing is written in the end.
    drop(outbox);
    let mut outbox = open(dir.path());
    let expected = (0..20).map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(drain(&mut outbox), expected);
    drop(outbox);
    assert_eq!(only(&open(dir.path()).undelivered()).pending, 0);
}

#[test]
fn the_same_id_twice_is_one_alert_pending_or_delivered_and_across_processes() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = open(dir.path());
    let alert = critical("once");
    for _ in 0..2 {
        outbox.push(&alert).unwrap();
        outbox.push(&alert).unwrap();
        assert_eq!(only(&outbox.undelivered()).pending, 1);
        drop(outbox);
        outbox = open(dir.path());
    }
    outbox.settle(0, alert.id, Settled::Delivered);
    outbox.push(&alert).unwrap();
    drop(outbox);
    let mut outbox = open(dir.path());
    outbox.push(&alert).unwrap();
    assert_eq!(only(&outbox.undelivered()).pending, 0);
}

#[test]
fn every_state_that_a_crash_can_leave_behind_is_recovered_from() {
    let alert = critical("once");
    let body = serde_json::to_vec(&alert).unwrap();
    let temporary = format!("tmp.{}", alert.id);
    let name = format!("{:020}.critical.{}.json", 1_800_000_000_000_u64, alert.id);
    let half = &body[..body.len() / 2];
    // What there is in the channel's directory, and whether the alert was promised to be in it.
    let states: [State<'_>; 8] = [
        ("nothing was written", vec![], 0),
        ("the temporary file was made", vec![(temporary.clone().into(), b"")], 0),
        ("half of it was written", vec![(temporary.clone().into(), half)], 0),
        ("all of it was written", vec![(temporary.into(), &body)], 0),
        ("it was renamed", vec![(name.clone().into(), &body)], 1),
        ("it was delivered", vec![(Path::new("sent").join(&name), &body)], 0),
        ("it was refused", vec![(Path::new("dead").join(&name), &body)], 0),
        ("it was withdrawn", vec![(Path::new("withdrawn").join(&name), &body)], 0),
    ];
    for (state, files, pending) in states {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        for (path, content) in &files {
            fs::write(dir.path().join("pager").join(path), content).unwrap();
        }
        let mut outbox = open(dir.path());
        assert_eq!(only(&outbox.undelivered()).pending, pending, "{state}");
        let left = fs::read_dir(dir.path().join("pager")).unwrap();
        let names = left.map(|file| file.unwrap().file_name().into_string().unwrap());
        let temporaries = names.filter(|name| name.starts_with("tmp.")).count();
        assert_eq!(temporaries, 0, "{state}");
        // Whoever was interrupted pushes again; then it is in it once, unless it was settled.
        outbox.push(&alert).unwrap();
        let settled = ["it was delivered", "it was refused", "it was withdrawn"].contains(&state);
        assert_eq!(drain(&mut outbox).len(), usize::from(!settled), "{state}");
    }
}

#[test]
fn a_crash_between_two_channels_is_completed_by_pushing_again() {
    let dir = tempfile::tempdir().unwrap();
    let alert = critical("both");
    open(dir.path()).push(&alert).unwrap();
    let mut outbox = Outbox::open(dir.path(), &[shelf("pager"), shelf("chat")]).unwrap();
    outbox.push(&alert).unwrap();
    let pending = outbox.undelivered().iter().map(|one| one.pending).collect::<Vec<_>>();
    assert_eq!(pending, [1, 1]);
}

/// What happened, the files that are there with their content, and how many alerts are to be sent.
type State<'a> = (&'a str, Vec<(PathBuf, &'a [u8])>, usize);

/// Nothing by itself: the other process of the next test.
#[test]
fn pushes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("UNDERSTUDY_TEST_OUTBOX") else { return };
    let mut outbox = open(Path::new(&dir));
    // Bounded, should nobody kill it.
    for _ in 0..900 {
        let alert = critical("promised");
        outbox.push(&alert).unwrap();
        println!("\npromised {}", alert.id);
    }
}

#[test]
fn kill_9_at_any_moment_loses_nothing_that_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    let mut promised = Vec::new();
    for round in 1..=15 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "alerts::pushes_until_it_is_killed", "--nocapture"])
            .env("UNDERSTUDY_TEST_OUTBOX", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut ids = lines.filter_map(|line| line.strip_prefix("promised ")?.parse::<Uuid>().ok());
        // A different moment in each round: wherever it is after so many promises.
        promised.extend(ids.by_ref().take(round));
        child.kill().unwrap();
        child.wait().unwrap();
        promised.extend(ids);
    }
    assert!(promised.len() >= 15 * 8, "{}", promised.len());
    let mut outbox = open(dir.path());
    let mut found = Vec::new();
    while let Some(letter) = outbox.head(0) {
        found.push(letter.id);
        outbox.settle(0, letter.id, Settled::Delivered);
    }
    let lost = promised.iter().filter(|id: &&Uuid| !found.contains(id)).count();
    assert_eq!(lost, 0, "of {} promised alerts", promised.len());
}

#[test]
fn a_file_that_is_no_alert_is_moved_aside_and_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pager = dir.path().join("pager");
    drop(open(dir.path()));
    let name = |order: u64| format!("{order:020}.critical.{}.json", Uuid::new_v4());
    fs::write(pager.join(name(1)), b"").unwrap();
    fs::write(pager.join(name(2)), b"{\"version\": 1").unwrap();
    let newer = r#"{"version":99,"id":"8f14e45f-ceea-4f63-9d1c-2f0b7f1a9c11"}"#;
    fs::write(pager.join(name(3)), newer).unwrap();
    fs::write(pager.join("notes.txt"), b"what is this?").unwrap();
    let mut outbox = open(dir.path());
    outbox.push(&critical("behind them")).unwrap();
    assert_eq!(drain(&mut outbox), ["behind them"]);
    assert_eq!(fs::read_dir(pager.join("unreadable")).unwrap().count(), 4);
}

#[test]
fn a_full_queue_drops_the_oldest_informational_alert_and_never_a_critical_one() {
    let dir = tempfile::tempdir().unwrap();
    let pager = dir.path().join("pager");
    drop(open(dir.path()));
    // As many as fit: written directly, as a thousand times fsync takes a while.
    for order in 1..=1000_u64 {
        let severity = if order <= 2 { Severity::Info } else { Severity::Critical };
        let alert = alert(&order.to_string(), severity);
        let name = format!("{order:020}.{}.{}.json", severity.as_str(), alert.id);
        fs::write(pager.join(name), serde_json::to_vec(&alert).unwrap()).unwrap();
    }
    let mut outbox = open(dir.path());
    for _ in 0..2 {
        outbox.push(&critical("new")).unwrap();
    }
    let backlog = outbox.undelivered();
    assert_eq!((only(&backlog).pending, only(&backlog).dropped), (1000, 2));
    assert_eq!(only(&backlog).critical, 1000);

    // Now only critical ones are left: the next ones stay in memory, are seen there, and go to disk
    // once there is room.
    outbox.push(&critical("in memory")).unwrap();
    let backlog = outbox.undelivered();
    assert_eq!((only(&backlog).pending, only(&backlog).in_memory), (1001, 1));
    let letter = outbox.head(0).unwrap();
    outbox.settle(0, letter.id, Settled::Delivered);
    outbox.flush();
    let backlog = outbox.undelivered();
    assert_eq!((only(&backlog).pending, only(&backlog).in_memory), (1000, 0));
    drop(outbox);
    assert_eq!(drain(&mut open(dir.path())).last().map(String::as_str), Some("in memory"));
}

#[test]
fn a_full_disk_is_an_error_and_the_alert_is_delivered_from_memory_or_written_later() {
    let disk = SmallDisk::mount();
    let mut outbox = open(disk.path());
    outbox.push(&critical("before")).unwrap();
    let ballast = disk.fill();
    let refused = outbox.push(&critical("during"));
    assert!(matches!(refused, Err(OutboxError::Write { .. })), "{refused:?}");
    let backlog = outbox.undelivered();
    assert_eq!((only(&backlog).pending, only(&backlog).in_memory), (2, 1));
    let letter = outbox.head(0).unwrap();
    outbox.settle(0, letter.id, Settled::Delivered);
    let from_memory = outbox.head(0).expect("it can be delivered without the disk");
    assert_eq!(from_memory.alert.summary, "during");

    fs::remove_file(ballast).unwrap();
    outbox.flush();
    assert_eq!(only(&outbox.undelivered()).in_memory, 0);
    drop(outbox);
    assert_eq!(drain(&mut open(disk.path())), ["during"]);
}

#[test]
fn memory_is_bounded_too_and_critical_alerts_go_last() {
    let disk = SmallDisk::mount();
    let mut outbox = open(disk.path());
    disk.fill();
    for number in 0..60 {
        let informational = alert(&format!("info {number}"), Severity::Info);
        assert!(outbox.push(&informational).is_err());
        assert!(outbox.push(&critical(&format!("critical {number}"))).is_err());
    }
    let backlog = outbox.undelivered();
    assert_eq!((only(&backlog).in_memory, only(&backlog).dropped), (100, 20));
    assert_eq!(only(&backlog).critical, 60);
    assert_eq!(drain(&mut outbox)[0], "critical 0", "twenty of the informational ones are gone");
}

#[test]
fn each_channel_gets_what_is_bad_enough_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let pager = Channel { min_severity: Severity::Critical, ..shelf("pager") };
    let mut outbox = Outbox::open(dir.path(), &[pager, shelf("chat")]).unwrap();
    for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
        outbox.push(&alert("x", severity)).unwrap();
    }
    let pending = outbox.undelivered().iter().map(|one| one.pending).collect::<Vec<_>>();
    assert_eq!(pending, [1, 3]);
}

#[test]
fn two_processes_cannot_have_the_same_outbox() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = Outbox::open(dir.path(), &[shelf("pager")]);
    assert!(matches!(second, Err(OutboxError::InUse { .. })), "{second:?}");
}

// ---- delivery

#[tokio::test]
async fn what_is_sent_is_what_is_documented() {
    let server = Http::start(&[Answer::Status(200)]);
    let dir = tempfile::tempdir().unwrap();
    let (alerts, mut reports) = start(dir.path(), &[channel("pager", server.port)]);
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.md")).unwrap();
    let example = text.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let documented = serde_json::from_str::<serde_json::Value>(example).unwrap();
    let sent = serde_json::from_str::<Alert>(example).unwrap();
    let id = sent.id;
    alerts.push(sent).unwrap();
    let report = next(&mut reports).await;
    assert_eq!(report, Report::Delivered { channel: "pager".to_owned(), id, attempts: 1 });

    let request = server.next();
    assert_eq!(request.json(), documented);
    assert!(request.line.starts_with("POST /hook/"), "{}", request.line);
    assert_eq!(request.header["content-type"], "application/json");
    assert_eq!(request.header["idempotency-key"], "8f14e45f-ceea-4f63-9d1c-2f0b7f1a9c11");
    assert!(request.header["user-agent"].starts_with("understudy/"));
    for name in documented.as_object().unwrap().keys() {
        assert!(text.contains(&format!("| `{name}` |")), "{name} is not in the table");
    }
}

#[tokio::test]
async fn a_server_that_recovers_gets_every_alert_once_and_in_order() {
    let answers = [Answer::Status(500), Answer::Garbage, Answer::Status(503), Answer::Status(204)];
    let server = Http::start(&answers);
    let dir = tempfile::tempdir().unwrap();
    let (alerts, mut reports) = start(dir.path(), &[channel("pager", server.port)]);
    let sent = (0..5).map(|n| critical(&n.to_string())).collect::<Vec<_>>();
    for alert in &sent {
        alerts.push(alert.clone()).unwrap();
    }
    let mut delivered = Vec::new();
    while delivered.len() < 5 {
        match next(&mut reports).await {
            Report::Delivered { id, .. } => delivered.push(id),
            Report::Failed { fault, again_in, .. } => {
                assert!(!fault.contains(CANARY), "{fault}");
                assert!(again_in <= FAST.pause_max);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delivered, sent.iter().map(|alert| alert.id).collect::<Vec<_>>());
    let mut ids = Vec::new();
    while let Some(request) = server.try_next() {
        ids.push(request.header["idempotency-key"].clone());
    }
    assert_eq!(ids.len(), 8, "three failures and five successes");
    assert!(ids[..4].iter().all(|id| *id == ids[0]), "a retry has the same id: {ids:?}");
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_its_limit() {
    let limit = FAST.retry_after_max;
    for (line, expected) in [
        ("Retry-After: 1", Duration::from_secs(1)),
        ("Retry-After: 86400", limit),
        ("Retry-After: Fri, 31 Dec 2100 23:59:59 GMT", limit),
        ("Retry-After: Thu, 01 Jan 1970 00:00:00 GMT", FAST.pause_min),
    ] {
        let server = Http::start(&[Answer::With(429, line.to_owned()), Answer::Status(200)]);
        let dir = tempfile::tempdir().unwrap();
        let (alerts, mut reports) = start(dir.path(), &[channel("pager", server.port)]);
        alerts.push(critical("wait")).unwrap();
        let report = next(&mut reports).await;
        assert!(
            matches!(&report, Report::Failed { again_in, .. } if *again_in == expected),
            "{line}: {report:?}"
        );
        if expected < limit {
            let report = next(&mut reports).await;
            assert!(matches!(report, Report::Delivered { attempts: 2, .. }), "{report:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_for_good_is_put_aside_and_the_next_alert_goes_on() {
    for status in [400, 404, 301] {
        let location = format!("Location: http://127.0.0.1:1/{CANARY}");
        let server = Http::start(&[Answer::With(status, location), Answer::Status(200)]);
        let dir = tempfile::tempdir().unwrap();
        let (alerts, mut reports) = start(dir.path(), &[channel("pager", server.port)]);
        let (refused, accepted) = (critical("refused"), critical("accepted"));
        alerts.push(refused.clone()).unwrap();
        alerts.push(accepted.clone()).unwrap();
        match next(&mut reports).await {
            Report::Dead { id, fault, .. } => {
                assert_eq!(id, refused.id);
                assert!(fault.contains(&status.to_string()) && !fault.contains(CANARY), "{fault}");
            }
            other => panic!("{status}: {other:?}"),
        }
        let report = next(&mut reports).await;
        assert!(matches!(report, Report::Delivered { id, .. } if id == accepted.id), "{report:?}");
        let dead = fs::read_dir(dir.path().join("pager/dead")).unwrap();
        let names = dead.map(|file| file.unwrap().file_name().into_string().unwrap());
        assert!(names.collect::<String>().contains(&refused.id.to_string()));
        until_pending(&alerts, 0).await;
        assert_eq!(only(&alerts.backlog().borrow()).dead, 1);
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_one_deadline_and_delays_no_other_channel() {
    let silent = Http::start(&[Answer::Silence]);
    let well = Http::start(&[Answer::Status(200)]);
    let dir = tempfile::tempdir().unwrap();
    let channels = [channel("silent", silent.port), channel("well", well.port)];
    let pace = Pace { attempt_deadline: Duration::from_millis(700), ..FAST };
    let (alerts, mut reports) = Alerts::start(dir.path(), &channels, pace).unwrap();
    for number in 0..5 {
        alerts.push(critical(&number.to_string())).unwrap();
    }
    let mut delivered = 0;
    loop {
        match next(&mut reports).await {
            Report::Delivered { channel, .. } => {
                assert_eq!(channel, "well");
                delivered += 1;
            }
            Report::Failed { channel, fault, .. } => {
                assert_eq!(channel, "silent");
                assert!(fault.contains("no answer within"), "{fault}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delivered, 5, "all of them before the silent one ran into its first deadline");
    // It recovers, and gets all of them.
    silent.answer(Answer::Status(200));
    until_pending(&alerts, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_and_comes_up_gets_the_alert() {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let (alerts, mut reports) = start(dir.path(), &[channel("pager", port)]);
    alerts.push(critical("patience")).unwrap();
    match next(&mut reports).await {
        Report::Failed { fault, .. } => assert!(!fault.contains(CANARY), "{fault}"),
        other => panic!("{other:?}"),
    }
    let server = Http::start_on(port, &[Answer::Status(200)]);
    assert_eq!(server.next().json()["summary"], "patience");
    until_pending(&alerts, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_did_not_deliver_the_next_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let (alerts, _reports) = start(dir.path(), &[channel("pager", port)]);
    for number in 0..3 {
        alerts.push(critical(&number.to_string())).unwrap();
    }
    alerts.close(Duration::from_millis(50)).await;
    let server = Http::start_on(port, &[Answer::Status(200)]);
    // The thread of the first one may still be closing its files.
    let channels = [channel("pager", port)];
    let mut started = None;
    wait::until_async("the first process let go of the outbox", async || {
        started = Alerts::start(dir.path(), &channels, FAST).ok();
        started.is_some()
    })
    .await;
    for number in 0..3 {
        assert_eq!(server.next().json()["summary"], number.to_string());
    }
}

#[tokio::test]
async fn closing_waits_for_what_was_pushed_to_be_stored_and_delivered() {
    let server = Http::start(&[Answer::Status(200)]);
    let dir = tempfile::tempdir().unwrap();
    let (alerts, _reports) = start(dir.path(), &[channel("pager", server.port)]);
    for number in 0..10 {
        alerts.push(critical(&number.to_string())).unwrap();
    }
    alerts.close(Duration::from_secs(30)).await;
    let received = std::iter::from_fn(|| server.try_next()).count();
    assert_eq!(received, 10);
}

#[tokio::test]
async fn a_full_disk_delays_no_delivery() {
    let disk = SmallDisk::mount();
    let server = Http::start(&[Answer::Status(200)]);
    let (alerts, mut reports) = start(disk.path(), &[channel("pager", server.port)]);
    disk.fill();
    alerts.push(critical("all the same")).unwrap();
    assert!(matches!(next(&mut reports).await, Report::NotStored { .. }));
    assert!(matches!(next(&mut reports).await, Report::Delivered { .. }));
    assert_eq!(server.next().json()["summary"], "all the same");
}

#[tokio::test]
async fn tls_with_a_private_authority_works_and_without_it_is_retried() {
    let files = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(files.path());
    let server = Http::start_tls(&certificates, &[Answer::Status(200)]);
    let url = || Secret::new(format!("https://localhost:{}/{CANARY}", server.port));
    let tls = |name: &str, ca_file| Channel { kind: webhook(url(), ca_file), ..shelf(name) };
    let channels = [tls("trusting", Some(certificates.ca.clone())), tls("strict", None)];
    let dir = tempfile::tempdir().unwrap();
    let (alerts, mut reports) = start(dir.path(), &channels);
    alerts.push(critical("secret")).unwrap();
    let (mut delivered, mut failed) = (false, false);
    while !(delivered && failed) {
        match next(&mut reports).await {
            Report::Delivered { channel, .. } => delivered = channel == "trusting",
            Report::Failed { channel, fault, .. } => {
                assert_eq!(channel, "strict");
                assert!(fault.contains("certificate") && !fault.contains(CANARY), "{fault}");
                failed = true;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_channel_that_cannot_work_is_refused_without_showing_its_address() {
    let missing = Some(PathBuf::from("/nonexistent/ca.pem"));
    for (url, ca_file) in [
        (CANARY.to_owned(), None),
        (format!("ftp://example.com/{CANARY}"), None),
        (format!("http://[{CANARY}/"), None),
        (format!("https://example.com/{CANARY}"), missing),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let kind = webhook(Secret::new(url), ca_file);
        let error = Alerts::start(dir.path(), &[Channel { kind, ..shelf("pager") }], FAST);
        let error = error.expect_err("such a channel cannot work");
        assert!(matches!(error, AlertError::Channel { .. }), "{error:?}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("pager") && !shown.contains(CANARY), "{shown}");
    }
}

/// A file system that is full soon. Needs root, as all of these tests do.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mounted.expect("mount is installed").success(), "mounting needs root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room for anything.
    fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let full = fs::write(&ballast, vec![0; 1024 * 1024]).expect_err("it is small");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as the outbox may still have its lock open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.expect("umount is installed").success());
    }
}
