//! What people are told of a thing that comes and goes, that nobody reacts to, or that is seen to; and
//! that nothing is lost on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tokio::sync::mpsc::{self, Receiver};
use understudy::adapters::alert::{
    Alert, Alerts, DeadMan, Outbox, Pace, Report, Resolves, Settled, Which, peek,
};
use understudy::config::secret::Secret;
use understudy::config::settings::{
    Channel, ChannelKind, DeadMan as DeadManSettings, Endpoint, PingMethod, Severity,
};
use understudy::time::BootTime;
use uuid::Uuid;

use crate::support::http::{Answer, Http};
use crate::support::wait;

/// So fast that tests need not wait.
const FAST: Pace = Pace {
    attempt_deadline: Duration::from_secs(5),
    pause_min: Duration::from_millis(20),
    pause_max: Duration::from_millis(50),
    retry_after_max: Duration::from_secs(2),
};

const LONG: Duration = Duration::from_secs(600);

/// Long enough that a test is done with what it does before, on a busy machine.
const WHILE: Duration = Duration::from_secs(5);

fn endpoint(port: u16) -> Endpoint {
    let url = Secret::new(format!("http://127.0.0.1:{port}/"));
    Endpoint { url, token: None, ca_file: None }
}

fn channel(name: &str, port: u16) -> Channel {
    let kind = ChannelKind::Webhook { endpoint: endpoint(port), body: None, secret: None };
    Channel {
        name: name.to_owned(),
        min_severity: Severity::Info,
        fold_within: LONG,
        escalate_after: None,
        kind,
    }
}

/// Something that goes on about a group.
fn begin(group: &str, severity: Severity) -> Alert {
    Alert {
        id: Uuid::new_v4(),
        at: SystemTime::now(),
        severity,
        event: "group_stale".to_owned(),
        group: Some(group.to_owned()),
        epoch: None,
        node: "beta".to_owned(),
        summary: format!("{group}: silent"),
        detail: "Look.".to_owned(),
        dedup_key: format!("{group}/silent/beta"),
        fields: BTreeMap::new(),
        lasting: true,
        resolves: None,
        folded: None,
    }
}

/// It is over.
fn end(began: &Alert) -> Alert {
    Alert {
        id: Uuid::new_v4(),
        severity: Severity::Info,
        event: "group_fresh".to_owned(),
        summary: "the heartbeats are back".to_owned(),
        lasting: false,
        resolves: Some(Resolves {
            event: began.event.clone(),
            severity: began.severity,
            since: began.at,
        }),
        ..began.clone()
    }
}

fn open(dir: &Path, channel: &Channel) -> Outbox {
    Outbox::open(dir, std::slice::from_ref(channel)).unwrap()
}

/// Delivers all that may be delivered now.
fn drain(outbox: &mut Outbox) -> Vec<Alert> {
    let mut alerts = Vec::new();
    while let Some(letter) = outbox.head(0) {
        alerts.push(letter.alert);
        outbox.settle(0, letter.id, Settled::Delivered);
    }
    alerts
}

fn summaries(alerts: &[Alert]) -> Vec<&str> {
    alerts.iter().map(|alert| alert.summary.as_str()).collect()
}

// ---- one story ----

#[test]
fn a_group_that_flaps_is_told_four_times_and_then_as_one_story() {
    let dir = tempfile::tempdir().unwrap();
    let channel = Channel { fold_within: WHILE, ..channel("pager", 9) };
    let mut outbox = open(dir.path(), &channel);
    let mut told = Vec::new();
    let mut pushed = Vec::new();
    for number in 0..19 {
        let flapping = begin("flapping", Severity::Critical);
        let alert = if number % 2 == 0 { flapping } else { end(&flapping) };
        outbox.push(&alert).unwrap();
        pushed.push(alert.id);
        told.extend(drain(&mut outbox));
    }
    assert_eq!(told.iter().map(|alert| alert.id).collect::<Vec<_>>(), pushed[..4]);
    // Another group is not held up by it.
    outbox.push(&begin("calm", Severity::Warning)).unwrap();
    assert_eq!(summaries(&drain(&mut outbox)), ["calm: silent"]);
    assert!(outbox.next_at(0).is_some_and(|at| at > BootTime::now()));
    assert_eq!(outbox.undelivered()[0].pending, 15);

    let mut story = Vec::new();
    wait::until("the story is told", || {
        story = drain(&mut outbox);
        !story.is_empty()
    });
    let [story] = story.as_slice() else { panic!("{story:?}") };
    // As it is now, with what happened.
    let summary = &story.summary;
    assert!(summary.starts_with("flapping: silent (and 14 more in "), "{summary}");
    assert!(summary.ends_with(", 7 of them critical)"), "{summary}");
    assert_eq!((story.id, story.severity), (pushed[18], Severity::Critical));
    let folded = story.folded.as_ref().unwrap();
    assert_eq!((folded.critical, folded.ids.as_slice()), (7, &pushed[4..18]));
    assert!(story.detail.contains("(4 more)"), "{}", story.detail);
    // All of it is settled, for the next process too.
    drop(outbox);
    let mut outbox = open(dir.path(), &channel);
    assert_eq!(drain(&mut outbox), []);
}

#[test]
fn a_service_that_keeps_incidents_hears_that_there_was_one_and_that_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let kind =
        ChannelKind::PagerDuty { endpoint: endpoint(9), routing_key: Secret::new("k".to_owned()) };
    let mut outbox = open(dir.path(), &Channel { kind, ..channel("x", 9) });
    // While it was away.
    for _ in 0..4 {
        let flapping = begin("flapping", Severity::Critical);
        outbox.push(&flapping).unwrap();
        outbox.push(&end(&flapping)).unwrap();
    }
    let told = drain(&mut outbox);
    let [began, over] = told.as_slice() else { panic!("{told:?}") };
    assert!(began.summary.starts_with("flapping: silent (and 6 more"), "{}", began.summary);
    assert_eq!((began.severity, &began.resolves), (Severity::Critical, &None));
    assert!(over.resolves.is_some() && over.folded.is_none());
}

#[test]
fn what_is_refused_for_good_is_put_aside_with_all_that_it_stood_for() {
    let server = Http::start(&[Answer::Status(400)]);
    let dir = tempfile::tempdir().unwrap();
    let channels = [channel("pager", server.port)];
    let mut outbox = open(dir.path(), &channels[0]);
    for _ in 0..6 {
        outbox.push(&begin("flapping", Severity::Critical)).unwrap();
    }
    drop(outbox);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (alerts, mut reports) = Alerts::start(dir.path(), &channels, FAST).unwrap();
        assert!(matches!(next(&mut reports).await, Report::Dead { .. }));
        let mut backlog = alerts.backlog();
        let aside = backlog.wait_for(|all| all[0].dead == 6 && all[0].last_fault.is_some());
        tokio::time::timeout(Duration::from_secs(30), aside).await.unwrap().unwrap();
    });
    assert!(server.try_next().is_some() && server.try_next().is_none());
}

#[test]
fn what_got_worse_is_told_at_once_though_the_group_flaps() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = open(dir.path(), &channel("pager", 9));
    for _ in 0..10 {
        outbox.push(&begin("flapping", Severity::Warning)).unwrap();
    }
    assert_eq!(drain(&mut outbox).len(), 1, "the ten are more than four at once");
    for number in 0..10 {
        outbox.push(&begin("flapping", Severity::Warning)).unwrap();
        let told = drain(&mut outbox).len();
        assert_eq!(told, usize::from(number < 3), "{number}");
    }
    outbox.push(&begin("flapping", Severity::Critical)).unwrap();
    let [critical] = drain(&mut outbox).try_into().unwrap();
    assert_eq!(critical.severity, Severity::Critical);
    assert!(critical.summary.contains("(and 7 more in "), "{}", critical.summary);
}

#[test]
fn with_zero_each_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let channel = Channel { fold_within: Duration::ZERO, ..channel("pager", 9) };
    let mut outbox = open(dir.path(), &channel);
    for _ in 0..30 {
        outbox.push(&begin("flapping", Severity::Warning)).unwrap();
    }
    assert_eq!(drain(&mut outbox).len(), 30);
}

#[test]
fn a_storm_is_one_message_to_people_and_each_to_a_service() {
    let people = ChannelKind::Slack(endpoint(9));
    let service =
        ChannelKind::PagerDuty { endpoint: endpoint(9), routing_key: Secret::new("k".to_owned()) };
    for (kind, messages) in [(people, 1), (service, 25)] {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = open(dir.path(), &Channel { kind, ..channel("x", 9) });
        for number in 0..25 {
            outbox.push(&begin(&format!("g{number:02}"), Severity::Critical)).unwrap();
        }
        let told = drain(&mut outbox);
        assert_eq!(told.len(), messages);
        if messages == 1 {
            let summary = &told[0].summary;
            assert!(summary.starts_with("g00: silent (and 24 more in "), "{summary}");
            assert!(summary.ends_with(": g01, g02, g03, g04, g05, …)"), "{summary}");
            assert_eq!(told[0].folded.as_ref().unwrap().ids.len(), 24);
        }
    }
}

// ---- who is told ----

#[test]
fn who_was_told_that_it_began_is_told_that_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let pager = Channel { min_severity: Severity::Critical, ..channel("pager", 9) };
    let mut outbox = open(dir.path(), &pager);
    let (critical, warning) = (begin("a", Severity::Critical), begin("b", Severity::Warning));
    for alert in [&critical, &end(&critical), &warning, &end(&warning)] {
        outbox.push(alert).unwrap();
    }
    let told = drain(&mut outbox);
    assert_eq!(summaries(&told), ["a: silent", "the heartbeats are back"]);
    assert_eq!(told[0].dedup_key, told[1].dedup_key);
}

fn second(dir: &Path, after: Duration) -> (Outbox, Channel) {
    let channel = Channel { escalate_after: Some(after), ..channel("second", 9) };
    (open(dir, &channel), channel)
}

#[test]
fn the_second_in_line_is_called_only_if_nobody_reacts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = second(dir.path(), WHILE);
    let names = ["ignored", "acknowledged", "resolved"];
    let [ignored, acknowledged, resolved] = names.map(|name| begin(name, Severity::Critical));
    let started = BootTime::now();
    for alert in [&ignored, &acknowledged, &resolved, &begin("lesser", Severity::Warning)] {
        outbox.push(alert).unwrap();
    }
    assert_eq!(drain(&mut outbox), []);
    let backlog = outbox.undelivered();
    assert_eq!((backlog[0].pending, backlog[0].escalating), (0, 3));
    assert_eq!(outbox.acknowledge(&Which::Group("acknowledged".to_owned()), "ann@alfa"), 1);
    outbox.push(&end(&resolved)).unwrap();
    assert_eq!(outbox.undelivered()[0].escalating, 1);
    let mut told = Vec::new();
    wait::until("the second in line is called", || {
        told = drain(&mut outbox);
        !told.is_empty()
    });
    assert_eq!(summaries(&told), ["ignored: silent"]);
    assert!(BootTime::now().since(started) >= WHILE);
    // Who was called is told that it is over, and of nothing else.
    outbox.push(&end(&acknowledged)).unwrap();
    outbox.push(&end(&ignored)).unwrap();
    let told = drain(&mut outbox);
    assert_eq!(summaries(&told), ["the heartbeats are back"]);
    assert_eq!(told[0].dedup_key, ignored.dedup_key);
    assert_eq!(outbox.open_alerts().len(), 1, "the lesser one");
}

#[test]
fn what_was_seen_stays_seen_and_the_time_runs_on_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, channel) = second(dir.path(), WHILE);
    let names = ["ignored", "acknowledged", "resolved"];
    let [ignored, acknowledged, resolved] = names.map(|name| begin(name, Severity::Critical));
    let started = BootTime::now();
    for alert in [&ignored, &acknowledged, &resolved] {
        outbox.push(alert).unwrap();
    }
    let id = acknowledged.id.to_string();
    assert_eq!(outbox.acknowledge(&Which::Id(id[..8].to_owned()), "ann@alfa"), 1);
    assert_eq!(outbox.acknowledge(&Which::Id(id[..8].to_owned()), "bob@alfa"), 0);
    drop(outbox);
    let mut outbox = open(dir.path(), &channel);
    outbox.push(&end(&resolved)).unwrap();
    // It goes on, and somebody has seen it already; once it is worse, or over and back, nobody has.
    outbox.push(&begin("acknowledged", Severity::Critical)).unwrap();
    let open_alerts = outbox.open_alerts();
    let keys: Vec<_> = open_alerts.iter().map(|open| open.dedup_key.as_str()).collect();
    assert_eq!(keys, ["acknowledged/silent/beta", "ignored/silent/beta"]);
    assert_eq!(open_alerts[0].acknowledged_by.as_deref(), Some("ann@alfa"));
    let mut told = Vec::new();
    wait::until("the second in line is called", || {
        told = drain(&mut outbox);
        !told.is_empty()
    });
    assert_eq!(summaries(&told), ["ignored: silent"]);
    assert!(BootTime::now().since(started) < WHILE * 2, "the time began anew at the restart");
    // The next process knows whom it told.
    drop(outbox);
    let mut outbox = open(dir.path(), &channel);
    outbox.push(&end(&ignored)).unwrap();
    assert_eq!(drain(&mut outbox).len(), 1);
}

#[test]
fn what_waits_is_open_though_the_process_was_killed_before_that_was_noted() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = open(dir.path(), &channel("pager", 9));
    let (goes_on, over) = (begin("a", Severity::Critical), begin("b", Severity::Critical));
    for alert in [&goes_on, &over, &end(&over)] {
        outbox.push(alert).unwrap();
    }
    drop(outbox);
    assert!(!dir.path().join(".open.json").exists(), "it was noted already");
    let mut outbox = open(dir.path(), &channel("pager", 9));
    let keys: Vec<_> = outbox.open_alerts().into_iter().map(|open| open.dedup_key).collect();
    assert_eq!(keys, ["a/silent/beta"]);
    // What is no longer in the queue is in the file.
    assert_eq!(drain(&mut outbox).len(), 3);
    drop(outbox);
    assert_eq!(open(dir.path(), &channel("pager", 9)).open_alerts().len(), 1);
    // Nonsense in it is no reason not to alert.
    fs::write(dir.path().join(".open.json"), "{").unwrap();
    assert_eq!(open(dir.path(), &channel("pager", 9)).open_alerts(), []);
}

#[test]
fn another_process_may_look_without_touching_anything() {
    let dir = tempfile::tempdir().unwrap();
    let channels = [channel("pager", 9), channel("chat", 9)];
    let mut outbox = Outbox::open(dir.path(), &channels).unwrap();
    outbox.push(&begin("a", Severity::Critical)).unwrap();
    let files = |path: &Path| fs::read_dir(path).unwrap().count();
    let before = files(&dir.path().join("pager"));
    let seen = peek(dir.path(), &channels).unwrap();
    assert_eq!(seen.iter().map(|one| one.pending).collect::<Vec<_>>(), [1, 1]);
    assert!(seen[0].oldest.is_some());
    assert_eq!(files(&dir.path().join("pager")), before);
    assert!(peek(&dir.path().join("nowhere"), &channels).is_err());
}

async fn next(reports: &mut Receiver<Report>) -> Report {
    let report = tokio::time::timeout(Duration::from_secs(30), reports.recv()).await;
    report.expect("a report within 30 s").expect("deliveries go on")
}

#[tokio::test]
async fn the_time_of_a_story_and_of_an_escalation_comes_without_a_further_alert() {
    let server = Http::start(&[Answer::Status(200)]);
    let dir = tempfile::tempdir().unwrap();
    let channels = [
        Channel { fold_within: WHILE, ..channel("pager", server.port) },
        Channel { escalate_after: Some(WHILE), ..channel("second", server.port) },
    ];
    let (alerts, mut reports) = Alerts::start(dir.path(), &channels, FAST).unwrap();
    // What the second in line hears, and how often, depends on how fast this machine is.
    let (mut pager, mut second) = (0, 0);
    let mut hear = async |enough: fn(usize, usize, usize) -> bool, number| {
        while !enough(pager, second, number) {
            match next(&mut reports).await {
                Report::Delivered { channel, .. } if channel == "pager" => pager += 1,
                Report::Delivered { .. } => second += 1,
                report => panic!("{report:?}"),
            }
        }
    };
    for number in 0..7 {
        alerts.push(begin("flapping", Severity::Critical)).unwrap();
        if number < 4 {
            hear(|pager, _, number| pager > number, number).await;
        }
    }
    hear(|pager, second, _| pager > 4 && second > 0, 0).await;
    let bodies = std::iter::from_fn(|| server.try_next()).map(|request| request.json());
    let folded: Vec<_> =
        bodies.filter_map(|body| body["folded"]["ids"].as_array().map(Vec::len)).collect();
    assert!(folded.contains(&2), "{folded:?}");
}

#[tokio::test]
async fn the_last_error_of_a_channel_is_known_until_it_works() {
    let server = Http::start(&[Answer::Status(500)]);
    let dir = tempfile::tempdir().unwrap();
    let channels = [channel("pager", server.port)];
    let (alerts, mut reports) = Alerts::start(dir.path(), &channels, FAST).unwrap();
    alerts.push(begin("a", Severity::Critical)).unwrap();
    assert!(matches!(next(&mut reports).await, Report::Failed { .. }));
    let mut backlog = alerts.backlog();
    let known = backlog.wait_for(|all| all[0].last_fault.is_some());
    let known =
        tokio::time::timeout(Duration::from_secs(30), known).await.unwrap().unwrap()[0].clone();
    assert!(known.last_fault.unwrap().contains("500"));
    server.answer(Answer::Status(200));
    let well = backlog.wait_for(|all| all[0].last_fault.is_none() && all[0].pending == 0);
    tokio::time::timeout(Duration::from_secs(30), well).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_storm_is_taken_whole_at_once_and_what_does_not_fit_is_counted() {
    const GROUPS: usize = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let (alerts, _reports) = Alerts::start(dir.path(), &[channel("x", 9)], FAST).unwrap();
    for number in 0..GROUPS {
        let alert = begin(&format!("g{number:04}"), Severity::Critical);
        assert!(alerts.push(alert).is_ok(), "number {number} was not taken");
    }
    let mut backlog = alerts.backlog();
    let counted = backlog.wait_for(|all| {
        all[0].pending + usize::try_from(all[0].dropped).unwrap() == GROUPS && all[0].dropped > 0
    });
    tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap().unwrap();
}

// ---- the dead-man's ping ----

fn dead_man(port: u16, method: PingMethod) -> DeadManSettings {
    DeadManSettings {
        url: Secret::new(format!("http://127.0.0.1:{port}/ping/T0K3N-CANARY")),
        every: Duration::from_millis(50),
        method,
        ca_file: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ping_goes_out_only_while_the_loop_makes_progress() {
    for (method, line) in [(PingMethod::Get, "GET /ping/"), (PingMethod::Post, "POST /ping/")] {
        let server = Http::start(&[Answer::Status(200)]);
        let (sender, _reports) = mpsc::channel(4);
        let ping = DeadMan::start(&dead_man(server.port, method), sender).unwrap();
        for _ in 0..5 {
            ping.turned(BootTime::now());
            assert!(server.next().line.starts_with(line));
        }
        // The loop stands still.
        let mut quiet_since = BootTime::now();
        wait::until("the pings to stop", || {
            while server.try_next().is_some() {
                quiet_since = BootTime::now();
            }
            BootTime::now().since(quiet_since) > Duration::from_secs(2)
        });
        ping.turned(BootTime::now());
        server.next();
    }
}

#[tokio::test]
async fn a_ping_that_fails_is_told_once_and_so_is_its_return() {
    let server = Http::start(&[Answer::Status(500), Answer::Garbage, Answer::Status(404)]);
    let (sender, mut reports) = mpsc::channel(4);
    let ping = DeadMan::start(&dead_man(server.port, PingMethod::Get), sender).unwrap();
    ping.turned(BootTime::now());
    match next(&mut reports).await {
        Report::Ping { fault: Some(fault) } => assert!(!fault.contains("CANARY"), "{fault}"),
        other => panic!("{other:?}"),
    }
    for _ in 0..4 {
        ping.turned(BootTime::now());
        // Each answer is another failure.
        wait::until_async("another ping", async || server.try_next().is_some()).await;
    }
    assert!(reports.try_recv().is_err(), "once is enough");
    server.answer(Answer::Status(200));
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    let well = async {
        loop {
            tokio::select! {
                report = next(&mut reports) => return report,
                _ = turns.tick() => ping.turned(BootTime::now()),
            }
        }
    };
    assert!(matches!(well.await, Report::Ping { fault: None }));
}

// ---- nothing is lost, whatever happens ----

/// What may happen to an outbox.
#[derive(Clone, Debug)]
enum Happens {
    /// Something begins (0), goes on (1) or is over (2) about one of a few groups.
    Push(u8, u8),
    /// Kill -9, and a new process.
    Crash,
    /// The disk is full from now on.
    DiskFull,
    /// There is room again.
    DiskWell,
    /// The channel takes the next alert.
    Deliver,
    /// The channel takes all that it is given.
    DeliverAll,
    /// The channel takes the next alert, and the process is killed before that is noted.
    DeliverAndCrash,
    /// The channel is down, and is asked for nothing but its first.
    Fail,
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        8 => (0..3_u8, 0..3_u8).prop_map(|(group, what)| Happens::Push(group, what)),
        1 => Just(Happens::Crash),
        1 => Just(Happens::DiskFull),
        1 => Just(Happens::DiskWell),
        3 => Just(Happens::Deliver),
        1 => Just(Happens::DeliverAll),
        1 => Just(Happens::DeliverAndCrash),
        1 => Just(Happens::Fail),
    ];
    prop::collection::vec(one, 1..60)
}

/// An outbox on a small disk, and what was promised and heard.
struct World {
    disk: SmallDisk,
    channel: Channel,
    outbox: Option<Outbox>,
    /// All that is known to be on disk or in the memory of the present process, in order.
    promised: Vec<Alert>,
    heard: Vec<Alert>,
}

impl World {
    fn new(fold_within: Duration, keeps_incidents: bool) -> Self {
        let mut channel = Channel { fold_within, ..channel("pager", 9) };
        if keeps_incidents {
            channel.kind = ChannelKind::Alertmanager(endpoint(9));
        }
        let disk = SmallDisk::mount();
        let outbox = Some(open(disk.path(), &channel));
        Self { disk, channel, outbox, promised: Vec::new(), heard: Vec::new() }
    }

    fn outbox(&mut self) -> &mut Outbox {
        self.outbox.as_mut().unwrap()
    }

    fn happens(&mut self, what: &Happens) {
        match what {
            Happens::Push(group, what) => {
                let began = begin(&format!("g{group}"), Severity::Critical);
                let alert = if *what == 2 { end(&began) } else { began };
                // Not written is in memory, and shown to be.
                let _in_memory = self.outbox().push(&alert).is_err();
                self.promised.push(alert);
            }
            Happens::Crash => self.crash(),
            Happens::DiskFull => self.disk.fill(),
            Happens::DiskWell => {
                self.disk.empty();
                self.outbox().flush();
            }
            Happens::Deliver => {
                self.deliver();
            }
            Happens::DeliverAll => while self.deliver() {},
            Happens::DeliverAndCrash => {
                if let Some(letter) = self.outbox().head(0) {
                    self.heard.push(letter.alert);
                    self.crash();
                }
            }
            Happens::Fail => {
                let _refused = self.outbox().head(0).is_some();
                self.outbox().failed(0, "down".to_owned());
            }
        }
    }

    fn deliver(&mut self) -> bool {
        let Some(letter) = self.outbox().head(0) else { return false };
        self.outbox().settle(0, letter.id, Settled::Delivered);
        self.heard.push(letter.alert);
        true
    }

    /// What was in memory only was shown to be, and is lost.
    fn crash(&mut self) {
        let in_memory = self.outbox().undelivered()[0].in_memory;
        self.outbox = None;
        let on_disk = self.files();
        let heard = self.heard_ids();
        let lost = |alert: &Alert| !on_disk.contains(&alert.id) && !heard.contains(&alert.id);
        let before = self.promised.len();
        self.promised.retain(|alert| !lost(alert));
        let lost = before - self.promised.len();
        assert!(lost <= in_memory, "{lost} lost, but {in_memory} were shown as in memory only");
        // A host whose disk is full cannot make directories either, but those are there.
        self.outbox = Some(open(self.disk.path(), &self.channel));
    }

    fn files(&self) -> BTreeSet<Uuid> {
        let mut ids = BTreeSet::new();
        for directory in ["pager", "pager/sent"] {
            for file in fs::read_dir(self.disk.path().join(directory)).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let id = name.trim_end_matches(".json").rsplit('.').next();
                ids.extend(id.and_then(|id| id.parse::<Uuid>().ok()));
            }
        }
        ids
    }

    /// Everything that somebody was told of, by itself or by what stood for it.
    fn heard_ids(&self) -> BTreeSet<Uuid> {
        let folded =
            |alert: &Alert| alert.folded.iter().flat_map(|f| f.ids.clone()).collect::<Vec<_>>();
        self.heard.iter().flat_map(|alert| folded(alert).into_iter().chain([alert.id])).collect()
    }

    /// The order about one thing in which it was first heard of.
    fn first_heard(&self, key: &str) -> Vec<Uuid> {
        let mut order = Vec::new();
        for alert in self.heard.iter().filter(|alert| alert.dedup_key == key) {
            let folded = alert.folded.iter().flat_map(|folded| folded.ids.clone());
            for id in folded.chain([alert.id]) {
                if !order.contains(&id) {
                    order.push(id);
                }
            }
        }
        order
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn each_alert_is_heard_at_least_once_and_in_order_or_shown_as_undelivered(
        happenings in happenings(),
        folds in any::<bool>(),
        keeps_incidents in any::<bool>(),
    ) {
        let fold_within = if folds { LONG } else { Duration::ZERO };
        let mut world = World::new(fold_within, keeps_incidents);
        for what in &happenings {
            world.happens(what);
            let heard = world.heard_ids();
            let missing = world.promised.iter().filter(|alert| !heard.contains(&alert.id)).count();
            let shown = world.outbox().undelivered()[0].pending;
            prop_assert!(shown >= missing, "{missing} are not heard, {shown} shown: {what:?}");
        }
        // In the end all is well, and what a story holds back is told by the next process.
        world.happens(&Happens::DiskWell);
        for _ in 0..3 {
            world.happens(&Happens::DeliverAll);
            world.happens(&Happens::Crash);
        }
        world.happens(&Happens::DeliverAll);
        let heard = world.heard_ids();
        let missing: Vec<_> =
            world.promised.iter().filter(|alert| !heard.contains(&alert.id)).collect();
        prop_assert!(missing.is_empty(), "{missing:?}");
        for group in 0..3 {
            let key = format!("g{group}/silent/beta");
            let promised: Vec<_> = world.promised.iter().filter(|a| a.dedup_key == key).map(|a| a.id).collect();
            let first: Vec<_> = world.first_heard(&key).into_iter().filter(|id| promised.contains(id)).collect();
            prop_assert_eq!(first, promised, "out of order about {}", key);
        }
        if !folds {
            let order: Vec<_> = world.promised.iter().map(|alert| alert.id).collect();
            let mut first = Vec::new();
            for alert in &world.heard {
                if order.contains(&alert.id) && !first.contains(&alert.id) {
                    first.push(alert.id);
                }
            }
            prop_assert_eq!(first, order);
        }
    }
}

/// A file system that is full soon. Needs root, as all of these tests do.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mounted.expect("mount is installed").success(), "mounting needs root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no room for anything.
    fn fill(&self) {
        let full = fs::write(self.ballast(), vec![0; 1024 * 1024]);
        assert!(full.is_err(), "it is small");
    }

    fn empty(&self) {
        // It may not have been full.
        let _absent = fs::remove_file(self.ballast()).is_err();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as the outbox may still have its lock open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.expect("umount is installed").success());
    }
}
