//! The tables about alerts: `[alert.NAME]` and `[alerts]`. Each kind of channel has keys of its own.

use std::path::PathBuf;
use std::time::Duration;

use super::load::Surroundings;
use super::secret::Secret;
use super::section::{Count, Section, Setting, Span};
use super::settings::{
    Channel, ChannelKind, DeadMan, Email, Encryption, Endpoint, PingMethod, Severity,
};
use super::template::Template;
use super::values;

/// A group that flaps tells of itself as often as a person looks at the telephone.
const FOLD_WITHIN: Span = Span {
    default: Duration::from_secs(10 * 60),
    least: Duration::ZERO,
    most: Duration::from_secs(24 * 3600),
};

/// Only written ones count, so the default does not matter. Less than a few seconds is no chance to
/// acknowledge; after a day the next shift has come anyway.
const ESCALATE_AFTER: Span = Span {
    default: Duration::from_secs(15 * 60),
    least: Duration::from_secs(1),
    most: Duration::from_secs(24 * 3600),
};

/// As often as most services that wait for such a ping expect it at least.
const PING_EVERY: Span = Span {
    default: Duration::from_secs(60),
    least: Duration::from_secs(1),
    most: Duration::from_secs(24 * 3600),
};

/// What the service calls its one address for events.
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// A list of people is kept at the mail server.
const RECIPIENTS_MAX: usize = 100;

/// Program and arguments. A script is the place for more.
const ARGUMENTS_MAX: usize = 100;

/// Kinds as they are written, with the keys that only they have.
const KINDS: [(&str, Kind); 7] = [
    ("webhook", Kind::Webhook),
    ("slack", Kind::Slack),
    ("discord", Kind::Discord),
    ("pagerduty", Kind::PagerDuty),
    ("alertmanager", Kind::Alertmanager),
    ("email", Kind::Email),
    ("command", Kind::Command),
];

#[derive(Clone, Copy)]
enum Kind {
    Webhook,
    Slack,
    Discord,
    PagerDuty,
    Alertmanager,
    Email,
    Command,
}

/// Keys of any kind, which are not unknown as long as the kind is.
const KEYS_OF_SOME_KIND: [&str; 14] = [
    "body",
    "ca_file",
    "command",
    "encryption",
    "from",
    "host",
    "password",
    "port",
    "routing_key",
    "secret",
    "to",
    "token",
    "url",
    "user",
];

/// Reads `[alert.NAME]`.
pub(super) fn channel(name: &str, section: &mut Section<'_>, around: &Surroundings) -> Channel {
    let kind = section.needed_choice("kind", Kind::Webhook, &KINDS);
    let severities = [Severity::Info, Severity::Warning, Severity::Critical];
    let severities = severities.map(|severity| (severity.as_str(), severity));
    let min_severity = section.choice("min_severity", Severity::Info, &severities);
    let fold_within = section.duration("fold_within", FOLD_WITHIN);
    let escalate = section.duration("escalate_after", ESCALATE_AFTER);
    let escalate_after = escalate.is_written().then_some(escalate.value);
    section.relation(
        escalate_after.is_none() || !min_severity.is_written(),
        &[&min_severity.origin, &escalate.origin],
        "min_severity is of no use with escalate_after, which is about critical alerts only; \
         remove one of them",
    );
    let kind = if kind.origin.is_sound() {
        read_kind(kind.value, section, around)
    } else {
        section.let_pass(&KEYS_OF_SOME_KIND);
        ChannelKind::Command { command: Vec::new() }
    };
    Channel {
        name: name.to_owned(),
        min_severity: min_severity.value,
        fold_within: fold_within.value,
        escalate_after,
        kind,
    }
}

fn read_kind(kind: Kind, section: &mut Section<'_>, around: &Surroundings) -> ChannelKind {
    match kind {
        Kind::Webhook => ChannelKind::Webhook {
            endpoint: endpoint(section, around, "https://hooks.example.com/x", true),
            body: section.text_if_written("body", Template::parse).value,
            secret: section.secret("secret", around).value,
        },
        Kind::Slack => ChannelKind::Slack(endpoint(
            section,
            around,
            "https://hooks.slack.com/services/…",
            false,
        )),
        Kind::Discord => ChannelKind::Discord(endpoint(
            section,
            around,
            "https://discord.com/api/webhooks/…",
            false,
        )),
        Kind::PagerDuty => {
            let url = section.secret_or_plain("url", PAGERDUTY_URL, around, values::check_url);
            let endpoint = Endpoint { url: url.value, token: None, ca_file: ca_file(section) };
            let what = "give the integration key of the service (Events API v2) as a secret, like \
                        { credential = \"pagerduty\" }";
            let routing_key = section.needed_secret("routing_key", what, around).value;
            ChannelKind::PagerDuty { endpoint, routing_key }
        }
        Kind::Alertmanager => ChannelKind::Alertmanager(endpoint(
            section,
            around,
            "http://alertmanager.example.com:9093",
            true,
        )),
        Kind::Email => ChannelKind::Email(email(section, around)),
        Kind::Command => ChannelKind::Command { command: command(section) },
    }
}

fn endpoint(
    section: &mut Section<'_>,
    around: &Surroundings,
    example: &str,
    has_token: bool,
) -> Endpoint {
    let what = format!("write where to send alerts, like \"{example}\"");
    let url = section.needed_secret_or_plain("url", &what, around, values::check_url);
    let token = if has_token { section.secret("token", around).value } else { None };
    Endpoint { url: url.value, token, ca_file: ca_file(section) }
}

fn ca_file(section: &mut Section<'_>) -> Option<PathBuf> {
    section.text_if_written("ca_file", values::absolute_path).value
}

fn email(section: &mut Section<'_>, around: &Surroundings) -> Email {
    let what = "name the mail server, like \"mail.example.net\"";
    let host = section.needed_text("host", what, values::server_name);
    let choices =
        [("starttls", Encryption::StartTls), ("tls", Encryption::Tls), ("off", Encryption::Off)];
    // What leaves the host is encrypted unless a person says otherwise.
    let usual = match host.value.as_str() {
        "localhost" | "127.0.0.1" | "::1" => Encryption::Off,
        _ => Encryption::StartTls,
    };
    let encryption = section.choice("encryption", usual, &choices);
    let port = match encryption.value {
        Encryption::StartTls => 587,
        Encryption::Tls => 465,
        Encryption::Off => 25,
    };
    let port = section.count("port", Count { default: port, least: 1, most: u64::from(u16::MAX) });
    let ca_file = section.text_if_written("ca_file", values::absolute_path);
    section.relation(
        ca_file.value.is_none() || encryption.value != Encryption::Off,
        &[&ca_file.origin, &encryption.origin],
        "ca_file is of no use with encryption = \"off\"; remove one of them",
    );
    let user = section.text_if_written("user", values::label);
    let password = section.secret("password", around);
    section.relation(
        user.value.is_some() == password.value.is_some(),
        &[&user.origin, &password.origin],
        "user and password belong together; write both or none",
    );
    let from = section.needed_text("from", "write who the mail is from", values::mailbox);
    let what = "list who gets the mail, like [\"oncall@example.net\"]";
    let to = section.needed_list("to", RECIPIENTS_MAX, what, values::mailbox);
    Email {
        host: host.value,
        port: u16::try_from(port.value).unwrap_or_default(),
        encryption: encryption.value,
        ca_file: ca_file.value,
        login: user.value.zip(password.value),
        from: from.value,
        to: to.value.into_iter().map(|item| item.value).collect(),
    }
}

fn command(section: &mut Section<'_>) -> Vec<String> {
    let what = "write the program and its arguments, like [\"/usr/local/bin/tell\", \"ops\"]";
    let command = section.needed_list("command", ARGUMENTS_MAX, what, values::argument);
    let program = command.value.first().map(|program| program.value.clone());
    section.relation(
        program.is_none_or(|program| values::absolute_path(&program).is_ok()),
        &[&command.origin],
        "the program must be an absolute path; no shell looks for it",
    );
    command.value.into_iter().map(|item| item.value).collect()
}

/// Reads `[alerts]`: what is about no channel.
pub(super) fn alerts(section: &mut Section<'_>, around: &Surroundings) -> Option<DeadMan> {
    section.table_if_written("dead_man", |section| {
        let what = "write where to ping, like \"https://hc.example.com/ping/x\"";
        let url: Setting<Secret> =
            section.needed_secret_or_plain("url", what, around, values::check_url);
        let every = section.duration("every", PING_EVERY);
        let methods = [("get", PingMethod::Get), ("post", PingMethod::Post)];
        let method = section.choice("method", PingMethod::Get, &methods);
        DeadMan {
            url: url.value,
            every: every.value,
            method: method.value,
            ca_file: ca_file(section),
        }
    })
}
