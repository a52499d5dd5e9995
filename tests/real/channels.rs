//! Each kind of channel against a server that checks what its vendor has published, and that answers
//! well, badly, slowly or never.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use understudy::adapters::alert::{Alert, Alerts, Pace, Report, Resolves, deliver_now};
use understudy::config::secret::Secret;
use understudy::config::settings::{Channel, ChannelKind, Email, Encryption, Endpoint, Severity};
use understudy::config::template::Template;
use uuid::Uuid;

use crate::support::certificates::Certificates;
use crate::support::http::{Answer, Http};
use crate::support::smtp::{Manner, Smtp};

/// A token that must be in no text.
const CANARY: &str = "T0K3N-CANARY";

/// So fast that tests need not wait.
const FAST: Pace = Pace {
    attempt_deadline: Duration::from_secs(5),
    pause_min: Duration::from_millis(20),
    pause_max: Duration::from_millis(50),
    retry_after_max: Duration::from_secs(2),
};

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        url: secret(&format!("http://127.0.0.1:{port}/services/{CANARY}")),
        token: None,
        ca_file: None,
    }
}

fn channel(name: &str, kind: ChannelKind) -> Channel {
    Channel {
        name: name.to_owned(),
        min_severity: Severity::Info,
        fold_within: Duration::from_secs(600),
        escalate_after: None,
        kind,
    }
}

/// Every kind that is reached by HTTP.
fn http_kinds(endpoint: &Endpoint) -> Vec<ChannelKind> {
    vec![
        ChannelKind::Webhook {
            endpoint: endpoint.clone(),
            body: None,
            secret: Some(secret(CANARY)),
        },
        ChannelKind::Slack(endpoint.clone()),
        ChannelKind::Discord(endpoint.clone()),
        ChannelKind::PagerDuty { endpoint: endpoint.clone(), routing_key: secret(CANARY) },
        ChannelKind::Alertmanager(endpoint.clone()),
    ]
}

fn mail(port: u16, encryption: Encryption, ca_file: Option<PathBuf>) -> Email {
    Email {
        host: "localhost".to_owned(),
        port,
        encryption,
        ca_file,
        login: None,
        from: "Understudy <understudy@example.net>".to_owned(),
        to: vec!["oncall@example.net".to_owned(), "Trading Desk <desk@example.net>".to_owned()],
    }
}

fn alert(severity: Severity) -> Alert {
    let id = Uuid::new_v4();
    Alert {
        id,
        at: UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
        severity,
        event: "active_silent".to_owned(),
        group: Some("equity".to_owned()),
        epoch: Some(7),
        node: "beta".to_owned(),
        summary: "equity: this node has the group, and it is silent".to_owned(),
        detail: "Look at its units.".to_owned(),
        dedup_key: "equity/active_silent/beta".to_owned(),
        fields: BTreeMap::from([("step".to_owned(), "start".to_owned())]),
        lasting: true,
        resolves: None,
        folded: None,
    }
}

/// The alert that says that `began` is over.
fn end_of(began: &Alert) -> Alert {
    Alert {
        id: Uuid::new_v4(),
        at: began.at + Duration::from_secs(60),
        severity: Severity::Info,
        event: "active_beats".to_owned(),
        summary: "equity: the heartbeats are back".to_owned(),
        lasting: false,
        resolves: Some(Resolves {
            event: began.event.clone(),
            severity: began.severity,
            since: began.at,
        }),
        ..began.clone()
    }
}

/// Long, with everything that means something to somebody.
fn monstrous() -> Alert {
    let text = "<!channel> @everyone **&amp; \"quoted\"** \r\n.\r\nBcc: x@y\u{0} 𝔘nicode ";
    let long = text.repeat(300);
    let name = "g".repeat(63);
    Alert {
        summary: long.clone(),
        detail: long.clone(),
        node: "n".repeat(253),
        dedup_key: format!("{name}/active_silent/{}", "n".repeat(253)),
        group: Some(name),
        fields: BTreeMap::from([("output".to_owned(), long)]),
        ..alert(Severity::Critical)
    }
}

async fn next(reports: &mut Receiver<Report>) -> Report {
    let report = tokio::time::timeout(Duration::from_secs(30), reports.recv()).await;
    report.expect("a report within 30 s").expect("deliveries go on")
}

/// Delivers these through a channel of that kind, in order.
async fn deliver(kind: ChannelKind, alerts: &[Alert]) {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, mut reports) = Alerts::start(dir.path(), &[channel("x", kind)], FAST).unwrap();
    for alert in alerts {
        outbox.push(alert.clone()).unwrap();
        let report = next(&mut reports).await;
        assert!(matches!(report, Report::Delivered { id, .. } if id == alert.id), "{report:?}");
    }
}

// ---- what is sent ----

/// Sends what begins, what ends and what is hard to say, and returns what came.
async fn received(kind: impl Fn(&Endpoint) -> ChannelKind, status: u16) -> [Value; 3] {
    let server = Http::start(&[Answer::Status(status)]);
    let began = alert(Severity::Critical);
    deliver(kind(&endpoint(server.port)), &[began.clone(), end_of(&began), monstrous()]).await;
    [(), (), ()].map(|()| {
        let request = server.next();
        assert_eq!(request.header["content-type"], "application/json");
        assert!(request.line.starts_with("POST /services/T0K3N-CANARY"), "{}", request.line);
        request.json()
    })
}

fn chars(value: &Value) -> usize {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).chars().count()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect()
}

#[tokio::test]
async fn slack_gets_what_its_incoming_webhooks_take() {
    let all = received(|endpoint| ChannelKind::Slack(endpoint.clone()), 200).await;
    for message in &all {
        assert_eq!(keys(message), BTreeSet::from(["attachments", "text"]));
        // Longer texts are cut by Slack.
        assert!((1..=40_000).contains(&chars(&message["text"])));
        let [attachment] = message["attachments"].as_array().unwrap().as_slice() else { panic!() };
        assert_eq!(keys(attachment), BTreeSet::from(["blocks", "color"]));
        let colour = attachment["color"].as_str().unwrap();
        assert!(colour.len() == 7 && colour.starts_with('#'), "{colour}");
        let [section, context] = attachment["blocks"].as_array().unwrap().as_slice() else {
            panic!("{attachment}")
        };
        assert_eq!(
            (&section["type"], &section["text"]["type"]),
            (&"section".into(), &"mrkdwn".into())
        );
        assert!((1..=3000).contains(&chars(&section["text"]["text"])));
        assert_eq!(context["type"], "context");
        let [element] = context["elements"].as_array().unwrap().as_slice() else { panic!() };
        assert_eq!(element["type"], "mrkdwn");
        assert!((1..=3000).contains(&chars(&element["text"])), "{}", chars(&element["text"]));
        let shown = message.to_string();
        assert!(!shown.contains("<!channel>") && !shown.contains("<!everyone>"), "{shown}");
    }
    let [began, over, monstrous] = &all;
    let text = began["text"].as_str().unwrap();
    assert_eq!(
        text,
        ":rotating_light: CRITICAL: equity: this node has the group, and it is silent"
    );
    let context = began["attachments"][0]["blocks"][1]["elements"][0]["text"].as_str().unwrap();
    let date = "<!date^1800000000^{date_num} {time_secs}|2027-01-15T08:00:00Z>";
    assert_eq!(context, format!("*active_silent* on beta · epoch 7 · {date}"));
    assert!(over["text"].as_str().unwrap().starts_with(":white_check_mark: resolved: equity"));
    let text = monstrous["text"].as_str().unwrap();
    assert!(text.contains("&lt;!channel&gt; @everyone **&amp;amp;"), "{text}");
}

#[tokio::test]
async fn discord_gets_what_its_webhooks_take() {
    let all = received(|endpoint| ChannelKind::Discord(endpoint.clone()), 204).await;
    for message in &all {
        assert_eq!(keys(message), BTreeSet::from(["allowed_mentions", "content", "embeds"]));
        assert!((1..=2000).contains(&chars(&message["content"])));
        // Nobody is called by what an alert says.
        assert_eq!(message["allowed_mentions"], serde_json::json!({ "parse": [] }));
        let [embed] = message["embeds"].as_array().unwrap().as_slice() else { panic!() };
        assert!((1..=256).contains(&chars(&embed["title"])));
        assert!(chars(&embed["description"]) <= 4096);
        assert!(embed["color"].as_u64().unwrap() <= 0xff_ffff);
        humantime::parse_rfc3339(embed["timestamp"].as_str().unwrap()).unwrap();
        let fields = embed["fields"].as_array().unwrap();
        assert!(fields.len() <= 25);
        let mut whole = chars(&embed["title"]) + chars(&embed["description"]);
        for field in fields {
            assert!((1..=256).contains(&chars(&field["name"])));
            assert!((1..=1024).contains(&chars(&field["value"])));
            whole += chars(&field["name"]) + chars(&field["value"]);
        }
        assert!(whole <= 6000, "{whole}");
    }
    let [began, over, _] = &all;
    let content = began["content"].as_str().unwrap();
    assert_eq!(content, "**🚨 CRITICAL** equity: this node has the group, and it is silent");
    assert_eq!(began["embeds"][0]["timestamp"], "2027-01-15T08:00:00.123Z");
    assert!(over["content"].as_str().unwrap().starts_with("**✅ resolved** equity"));
    assert_ne!(began["embeds"][0]["color"], over["embeds"][0]["color"]);
}

#[tokio::test]
async fn pagerduty_gets_a_trigger_and_a_resolve_with_the_same_key() {
    let kind = |endpoint: &Endpoint| ChannelKind::PagerDuty {
        endpoint: endpoint.clone(),
        routing_key: secret("0123456789abcdef0123456789abcdef"),
    };
    let all = received(kind, 202).await;
    for event in &all {
        let top = ["client", "dedup_key", "event_action", "payload", "routing_key"];
        assert_eq!(keys(event), BTreeSet::from(top));
        assert_eq!(event["routing_key"], "0123456789abcdef0123456789abcdef");
        assert!((1..=255).contains(&event["dedup_key"].as_str().unwrap().len()));
        let payload = &event["payload"];
        assert!((1..=1024).contains(&chars(&payload["summary"])));
        assert!(chars(&payload["source"]) >= 1);
        let severity = payload["severity"].as_str().unwrap();
        assert!(["critical", "error", "warning", "info"].contains(&severity), "{severity}");
        humantime::parse_rfc3339(payload["timestamp"].as_str().unwrap()).unwrap();
        assert!(chars(&payload["class"]) + chars(&payload["group"]) > 0);
        assert!(payload["custom_details"].is_object());
        // The whole event may be 512 KB.
        assert!(event.to_string().len() < 512 * 1024);
    }
    let [began, over, monstrous] = &all;
    assert_eq!(began["event_action"], "trigger");
    assert_eq!(began["payload"]["severity"], "critical");
    assert_eq!(began["dedup_key"], "equity/active_silent/beta");
    assert_eq!(over["event_action"], "resolve");
    assert_eq!(over["dedup_key"], began["dedup_key"]);
    assert_ne!(monstrous["dedup_key"], began["dedup_key"]);
}

#[tokio::test]
async fn alertmanager_gets_alerts_whose_labels_stay_the_same_until_they_end() {
    let all = received(|endpoint| ChannelKind::Alertmanager(endpoint.clone()), 200).await;
    for posted in &all {
        let [alert] = posted.as_array().unwrap().as_slice() else { panic!("{posted}") };
        let known = BTreeSet::from(["annotations", "endsAt", "labels", "startsAt"]);
        assert_eq!(keys(alert), known);
        for set in [&alert["labels"], &alert["annotations"]] {
            for (name, value) in set.as_object().unwrap() {
                let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                assert!(letters && !name.starts_with(|c: char| c.is_ascii_digit()), "{name}");
                assert!(value.is_string(), "{name}: {value}");
            }
        }
        assert!(chars(&alert["labels"]["alertname"]) > 0);
        let date = |name: &str| humantime::parse_rfc3339(alert[name].as_str().unwrap()).unwrap();
        assert!(date("startsAt") < date("endsAt"));
    }
    let [began, over, _] = &all;
    assert_eq!(began[0]["labels"]["alertname"], "active_silent");
    assert_eq!(began[0]["labels"]["severity"], "critical");
    assert_eq!(began[0]["startsAt"], "2027-01-15T08:00:00.123Z");
    assert_eq!(began[0]["endsAt"], "2027-01-16T08:00:00.123Z");
    assert_eq!(over[0]["labels"], began[0]["labels"]);
    assert_eq!(over[0]["startsAt"], began[0]["startsAt"]);
    assert_eq!(over[0]["endsAt"], "2027-01-15T08:01:00.123Z");
}

#[tokio::test]
async fn alertmanager_is_found_by_its_own_address_and_told_who_we_are() {
    for (path, expected) in [
        ("", "POST /api/v2/alerts HTTP/1.1"),
        ("/prefix/", "POST /prefix/api/v2/alerts HTTP/1.1"),
        ("/api/v2/alerts", "POST /api/v2/alerts HTTP/1.1"),
    ] {
        let server = Http::start(&[Answer::Status(200)]);
        let url = secret(&format!("http://127.0.0.1:{}{path}", server.port));
        let token = Some(secret(CANARY));
        let endpoint = Endpoint { url, token, ca_file: None };
        deliver(ChannelKind::Alertmanager(endpoint), &[alert(Severity::Info)]).await;
        let request = server.next();
        assert_eq!(request.line, expected);
        assert_eq!(request.header["authorization"], format!("Bearer {CANARY}"));
    }
}

#[tokio::test]
async fn a_webhook_is_signed_so_that_others_can_check_it() {
    let server = Http::start(&[Answer::Status(200)]);
    let kind = ChannelKind::Webhook {
        endpoint: endpoint(server.port),
        body: None,
        secret: Some(secret("a key of some length")),
    };
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    deliver(kind, &[alert(Severity::Info)]).await;
    let request = server.next();
    let time = &request.header["understudy-timestamp"];
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((before..=after).contains(&time.parse().unwrap()), "{time}");
    // By another program than ours, as a receiver would.
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", "a key of some length", "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = openssl.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, format!("{time}.").as_bytes()).unwrap();
    std::io::Write::write_all(&mut input, &request.body).unwrap();
    drop(input);
    let output = openssl.wait_with_output().unwrap();
    let expected = String::from_utf8(output.stdout).unwrap();
    let expected = expected.split_whitespace().next().unwrap();
    assert_eq!(request.header["understudy-signature"], format!("v1={expected}"));
}

#[tokio::test]
async fn a_webhook_has_the_form_that_the_operator_wrote() {
    let body = r#"{"text": "{{severity}} ({{status}}): {{summary}}", "n": "{{epoch}}", "f": "{{fields}}"}"#;
    let kind = |endpoint: &Endpoint| ChannelKind::Webhook {
        endpoint: endpoint.clone(),
        body: Some(Template::parse(body).unwrap()),
        secret: None,
    };
    let [began, over, monstrous] = received(kind, 200).await;
    let expected = serde_json::json!({
        "text": "critical (firing): equity: this node has the group, and it is silent",
        "n": 7,
        "f": { "step": "start" },
    });
    assert_eq!(began, expected);
    assert!(over["text"].as_str().unwrap().starts_with("info (resolved): "), "{over}");
    assert!(monstrous["text"].as_str().unwrap().contains("\"quoted\""));
}

// ---- mail ----

#[tokio::test]
async fn a_mail_is_one_that_people_and_programs_can_read() {
    let server = Smtp::start(Manner::Well);
    let began = alert(Severity::Critical);
    let (over, monstrous) = (end_of(&began), monstrous());
    let kind = ChannelKind::Email(mail(server.port, Encryption::Off, None));
    deliver(kind, &[began.clone(), over.clone(), monstrous]).await;
    let first = server.next();
    assert_eq!(first.from, "understudy@example.net");
    assert_eq!(first.to, ["oncall@example.net", "desk@example.net"]);
    let header = |name: &str| first.header(name).unwrap_or_else(|| panic!("{name}: {first:?}"));
    assert_eq!(header("From"), "Understudy <understudy@example.net>");
    assert_eq!(header("To"), "oncall@example.net, \"Trading Desk\" <desk@example.net>");
    let subject = "[critical] equity: this node has the group, and it is silent";
    assert_eq!(header("Subject"), subject);
    assert_eq!(header("Date"), "Fri, 15 Jan 2027 08:00:00 +0000");
    assert_eq!(header("Message-ID"), format!("<{}@understudy>", began.id));
    assert_eq!(header("Auto-Submitted"), "auto-generated");
    assert_eq!(header("Content-Type"), "text/plain; charset=utf-8");
    let body = first.body();
    for line in ["Look at its units.", "event     active_silent", "status    firing", "epoch     7"]
    {
        assert!(body.contains(line), "{line}: {body}");
    }
    let second = server.next();
    assert!(second.header("Subject").unwrap().starts_with("[resolved] equity"), "{second:?}");
    // One conversation.
    assert_eq!(second.header("References"), first.header("References"));
    assert_eq!(second.header("In-Reply-To").unwrap(), second.header("References").unwrap());
    // What an alert says becomes neither a header, an end nor an address.
    let third = server.next();
    assert_eq!(third.to, ["oncall@example.net", "desk@example.net"]);
    assert_eq!(third.header("Bcc"), None);
    assert!(third.text.lines().all(|line| line.len() <= 998), "a line is too long for SMTP");
    assert!(third.body().contains("𝔘nicode"));
}

#[tokio::test]
async fn mail_is_encrypted_and_logged_in_before_anything_is_said() {
    let files = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(files.path());
    for encryption in [Encryption::StartTls, Encryption::Tls] {
        let server = match encryption {
            Encryption::Tls => Smtp::start_tls(&certificates, Manner::Well),
            _ => Smtp::start_starttls(&certificates, Manner::Well),
        };
        let mut settings = mail(server.port, encryption, Some(certificates.ca.clone()));
        settings.login = Some(("us".to_owned(), secret("er")));
        deliver(ChannelKind::Email(settings), &[alert(Severity::Info)]).await;
        let mail = server.next();
        assert!(mail.encrypted, "{encryption:?}");
        // \0us\0er
        assert_eq!(mail.login.as_deref(), Some("AHVzAGVy"));
        assert!(!mail.hello.is_empty());

        // Whom the system trusts, it is not.
        let strict = mail_channel(server.port, encryption, None);
        let fault = deliver_now(&strict, &alert(Severity::Info), &alert(Severity::Info), TEN).await;
        let fault = fault.unwrap_err();
        assert!(fault.contains("certificate"), "{encryption:?}: {fault}");
    }
}

const TEN: Duration = Duration::from_secs(10);

fn mail_channel(port: u16, encryption: Encryption, ca_file: Option<PathBuf>) -> Channel {
    channel("mail", ChannelKind::Email(mail(port, encryption, ca_file)))
}

#[tokio::test]
async fn a_mail_server_without_starttls_gets_neither_password_nor_mail() {
    let files = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(files.path());
    let server = Smtp::start(Manner::Well);
    let mut settings = mail(server.port, Encryption::StartTls, Some(certificates.ca.clone()));
    settings.login = Some(("us".to_owned(), secret(CANARY)));
    let strict = channel("mail", ChannelKind::Email(settings));
    let fault = deliver_now(&strict, &alert(Severity::Info), &alert(Severity::Info), TEN).await;
    assert!(fault.is_err());
    server.behave(Manner::Well);
}

#[tokio::test]
async fn each_answer_of_a_mail_server_is_had_later_or_never() {
    let refusing = |begin, answer| Manner::Refusing(begin, answer);
    for (manner, expected) in [
        (
            refusing("MAIL", "451 greylisted, try T0K3N-CANARY again"),
            "the mail server answered 451",
        ),
        (refusing("RCPT", "452 mailbox full"), "the mail server answered 452"),
        (refusing(".", "421 shutting down"), "the mail server answered 421"),
        (refusing("AUTH", "535 T0K3N-CANARY is wrong"), "the mail server answered 535"),
        (Manner::Silent, "no answer within 700ms"),
        (Manner::Drip, "no answer within 700ms"),
        (Manner::Garbage, ""),
    ] {
        let server = Smtp::start(manner.clone());
        let mut settings = mail(server.port, Encryption::Off, None);
        settings.login = Some(("us".to_owned(), secret(CANARY)));
        let dir = tempfile::tempdir().unwrap();
        let channels = [channel("mail", ChannelKind::Email(settings))];
        let pace = Pace { attempt_deadline: Duration::from_millis(700), ..FAST };
        let (outbox, mut reports) = Alerts::start(dir.path(), &channels, pace).unwrap();
        outbox.push(alert(Severity::Info)).unwrap();
        match next(&mut reports).await {
            Report::Failed { fault, .. } => {
                assert!(fault.contains(expected), "{manner:?}: {fault}");
                assert!(!fault.contains(CANARY), "{manner:?}: {fault}");
            }
            other => panic!("{manner:?}: {other:?}"),
        }
        server.behave(Manner::Well);
        loop {
            match next(&mut reports).await {
                Report::Delivered { .. } => break,
                // It may have come once more before it behaved.
                Report::Failed { .. } => {}
                other => panic!("{manner:?}: {other:?}"),
            }
        }
        server.next();
    }
    for (begin, answer) in [("RCPT", "550 no such T0K3N-CANARY"), (".", "554 refused as spam")] {
        let server = Smtp::start(refusing(begin, answer));
        let dir = tempfile::tempdir().unwrap();
        let channels = [mail_channel(server.port, Encryption::Off, None)];
        let (outbox, mut reports) = Alerts::start(dir.path(), &channels, FAST).unwrap();
        outbox.push(alert(Severity::Info)).unwrap();
        match next(&mut reports).await {
            Report::Dead { fault, .. } => assert!(!fault.contains(CANARY), "{fault}"),
            other => panic!("{begin}: {other:?}"),
        }
    }
}

// ---- commands ----

fn script(dir: &Path, text: &str) -> ChannelKind {
    let path = dir.join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    ChannelKind::Command { command: vec![path.display().to_string(), "an argument".to_owned()] }
}

#[tokio::test]
async fn a_command_gets_the_alert_on_its_input_and_in_its_environment() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let shown = out.display();
    let text = format!("cat >{shown}.json; env >{shown}.env; echo \"$1\" >{shown}.argument");
    for sent in [alert(Severity::Critical), monstrous()] {
        let mut sent = sent;
        // No environment can hold a NUL; such an alert is one that no program can be given.
        sent.summary = sent.summary.replace('\0', "");
        deliver(script(dir.path(), &text), std::slice::from_ref(&sent)).await;
        let json = fs::read(dir.path().join("out.json")).unwrap();
        let read = serde_json::from_slice::<Alert>(&json).unwrap();
        assert_eq!((read.id, &read.summary), (sent.id, &sent.summary));
    }
    deliver(script(dir.path(), &text), &[alert(Severity::Critical)]).await;
    let environment = fs::read_to_string(dir.path().join("out.env")).unwrap();
    for line in [
        "UNDERSTUDY_EVENT=active_silent",
        "UNDERSTUDY_SEVERITY=critical",
        "UNDERSTUDY_STATUS=firing",
        "UNDERSTUDY_GROUP=equity",
        "UNDERSTUDY_NODE=beta",
        "UNDERSTUDY_DEDUP_KEY=equity/active_silent/beta",
        "UNDERSTUDY_SUMMARY=equity: this node has the group, and it is silent",
    ] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    assert!(!environment.contains("CARGO"), "{environment}");
    let argument = fs::read_to_string(dir.path().join("out.argument")).unwrap();
    assert_eq!(argument, "an argument\n");
}

#[tokio::test]
async fn a_command_that_fails_hangs_or_reads_nothing_is_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    for (text, expected) in [
        ("exec 0<&-; echo could not tell; exit 3", "left with status 3: could not tell"),
        ("sleep 100", "was not done within 700ms"),
        ("kill -9 $$", "was killed by signal 9"),
    ] {
        // It works at its second attempt, without having read a byte.
        let text = format!("test -e {at}/again && exit 0; touch {at}/again\n{text}");
        let channels = [channel("x", script(dir.path(), &text))];
        let outbox_dir = tempfile::tempdir().unwrap();
        let pace = Pace { attempt_deadline: Duration::from_millis(700), ..FAST };
        let (outbox, mut reports) = Alerts::start(outbox_dir.path(), &channels, pace).unwrap();
        outbox.push(monstrous_without_nul()).unwrap();
        match next(&mut reports).await {
            Report::Failed { fault, .. } => assert!(fault.contains(expected), "{fault}"),
            other => panic!("{other:?}"),
        }
        let report = next(&mut reports).await;
        assert!(matches!(report, Report::Delivered { attempts: 2, .. }), "{report:?}");
        fs::remove_file(dir.path().join("again")).unwrap();
    }
}

fn monstrous_without_nul() -> Alert {
    let monstrous = monstrous();
    Alert { summary: monstrous.summary.replace('\0', ""), ..monstrous }
}

// ---- answers ----

#[tokio::test]
async fn every_kind_bears_every_answer() {
    for kind in 0..http_kinds(&endpoint(1)).len() {
        for answer in [
            Answer::With(429, "Retry-After: 1".to_owned()),
            Answer::Status(500),
            Answer::Garbage,
            Answer::Drip,
            Answer::Silence,
        ] {
            let server = Http::start(&[answer.clone(), Answer::Status(200)]);
            let kind = http_kinds(&endpoint(server.port)).remove(kind);
            let name = kind.name();
            let dir = tempfile::tempdir().unwrap();
            let pace = Pace { attempt_deadline: Duration::from_millis(700), ..FAST };
            let channels = [channel("x", kind)];
            let (outbox, mut reports) = Alerts::start(dir.path(), &channels, pace).unwrap();
            outbox.push(alert(Severity::Critical)).unwrap();
            match next(&mut reports).await {
                Report::Failed { fault, again_in, .. } => {
                    assert!(!fault.contains(CANARY), "{name}: {fault}");
                    let asked = matches!(answer, Answer::With(..));
                    let second = Duration::from_secs(1);
                    assert_eq!(again_in == second, asked, "{name}: {answer:?}: {again_in:?}");
                }
                other => panic!("{name}: {answer:?}: {other:?}"),
            }
            let report = next(&mut reports).await;
            assert!(matches!(report, Report::Delivered { attempts: 2, .. }), "{name}: {report:?}");
            let (first, second) = (server.next(), server.next());
            assert_eq!(first.body, second.body, "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn every_kind_over_tls_trusts_a_private_authority_only_if_it_is_told_to() {
    let files = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(files.path());
    let server = Http::start_tls(&certificates, &[Answer::Status(200)]);
    let at = |ca_file| Endpoint {
        url: secret(&format!("https://localhost:{}/{CANARY}", server.port)),
        token: None,
        ca_file,
    };
    for kind in http_kinds(&at(Some(certificates.ca.clone()))) {
        deliver(kind, &[alert(Severity::Critical)]).await;
    }
    for kind in http_kinds(&at(None)) {
        let name = kind.name();
        let (test, over) = (alert(Severity::Info), alert(Severity::Info));
        let fault = deliver_now(&channel("x", kind), &test, &over, TEN).await.unwrap_err();
        let about_trust = fault.contains("certificate");
        assert!(about_trust && !fault.contains(CANARY), "{name}: {fault}");
    }
}

#[tokio::test]
async fn channels_that_hang_hold_no_other() {
    let silent = Http::start(&[Answer::Silence]);
    let mute = Smtp::start(Manner::Silent);
    let well = Http::start(&[Answer::Status(200)]);
    let dir = tempfile::tempdir().unwrap();
    let mut kinds = http_kinds(&endpoint(silent.port));
    kinds.push(ChannelKind::Email(mail(mute.port, Encryption::Off, None)));
    kinds.push(script(dir.path(), "sleep 100"));
    let mut channels: Vec<_> = kinds.into_iter().map(|kind| channel(kind.name(), kind)).collect();
    channels.push(channel("well", ChannelKind::Slack(endpoint(well.port))));
    let outbox_dir = tempfile::tempdir().unwrap();
    let pace = Pace { attempt_deadline: Duration::from_secs(60), ..FAST };
    let (outbox, mut reports) = Alerts::start(outbox_dir.path(), &channels, pace).unwrap();
    for _ in 0..3 {
        let alert = alert(Severity::Critical);
        outbox.push(alert.clone()).unwrap();
        let report = next(&mut reports).await;
        let expected = Report::Delivered { channel: "well".to_owned(), id: alert.id, attempts: 1 };
        assert_eq!(report, expected);
    }
    let debug = format!("{channels:?} {outbox:?}");
    assert!(!debug.contains(CANARY), "{debug}");
}

#[tokio::test]
async fn a_test_goes_past_the_outbox_and_ends_what_it_began() {
    let server = Http::start(&[Answer::Status(202)]);
    let kinds = http_kinds(&endpoint(server.port));
    let (test, over) = (alert(Severity::Info), end_of(&alert(Severity::Info)));
    for kind in kinds {
        let name = kind.name();
        deliver_now(&channel("x", kind), &test, &over, TEN).await.unwrap();
        let first = server.next().json();
        match name {
            "pagerduty" => {
                assert_eq!(first["event_action"], "trigger");
                assert_eq!(server.next().json()["event_action"], "resolve");
            }
            "alertmanager" => assert_eq!(server.next().json()[0]["labels"], first[0]["labels"]),
            _ => {}
        }
        assert!(server.try_next().is_none(), "{name}");
    }
    server.answer(Answer::Status(403));
    let slack = channel("x", ChannelKind::Slack(endpoint(server.port)));
    let fault = deliver_now(&slack, &test, &over, TEN).await.unwrap_err();
    assert_eq!(fault, "the channel answered 403 Forbidden");
}
