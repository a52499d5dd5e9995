//! `understudy alert test`: do alerts arrive? Past the outbox, so that it works with the daemon
//! running or not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use serde::Serialize;
use uuid::Uuid;

use super::{Refused, Said, json as print_json, person};
use crate::adapters::alert::{Alert, Resolves, deliver_now};
use crate::config::settings::{Channel, Settings, Severity};
use crate::telemetry::Notable;

/// How long a channel may take, as for a real alert.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Send a test through each channel, or one, and say whether it arrived.
    ///
    /// Works with the daemon running or not. What a test opens at PagerDuty or Alertmanager is resolved
    /// at once. Exits with 1 if a channel did not take it.
    #[command(after_help = "Examples:\n  understudy alert test\n  understudy alert test pager\n  \
                            sudo -u understudy understudy alert test script   # as the daemon would")]
    Test(Arguments),
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the channel; all if left out.
    channel: Option<String>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    channel: String,
    kind: &'static str,
    delivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

pub(super) async fn alert(
    settings: &Settings,
    command: Command,
    json: bool,
) -> anyhow::Result<Said> {
    let Command::Test(arguments) = command;
    let channels = chosen(settings, arguments.channel.as_deref())?;
    let (test, over) = tests(settings);
    let sent = channels.into_iter().map(async |channel| {
        let sent = deliver_now(channel, &test, &over, DEADLINE).await;
        Outcome {
            channel: channel.name.clone(),
            kind: channel.kind.name(),
            delivered: sent.is_ok(),
            fault: sent.err(),
        }
    });
    let outcomes = join_all(sent).await;
    let code = u8::from(outcomes.iter().any(|outcome| !outcome.delivered));
    if json {
        return Ok(Said { text: print_json(&outcomes)?, code });
    }
    let mut text = String::new();
    for Outcome { channel, kind, fault, .. } in &outcomes {
        match fault {
            None => writeln!(text, "{channel} ({kind}): delivered")?,
            Some(fault) => writeln!(text, "{channel} ({kind}): NOT delivered: {fault}")?,
        }
    }
    Ok(Said { text, code })
}

fn chosen<'a>(settings: &'a Settings, name: Option<&str>) -> Result<Vec<&'a Channel>, Refused> {
    let channels: Vec<_> = settings.channels.iter().collect();
    if channels.is_empty() {
        let text = "there are no channels; add [alert.NAME] to the configuration".to_owned();
        return Err(Refused(text));
    }
    let Some(name) = name else { return Ok(channels) };
    match channels.iter().find(|channel| channel.name == name) {
        Some(channel) => Ok(vec![*channel]),
        None => {
            let names: Vec<_> = channels.iter().map(|channel| channel.name.as_str()).collect();
            Err(Refused(format!("there is no channel {name}; there are: {}", names.join(", "))))
        }
    }
}

/// An alert that nobody need worry about, and the one that ends it.
fn tests(settings: &Settings) -> (Alert, Alert) {
    let (event, at) = (Notable::AlertTest, SystemTime::now());
    let id = Uuid::new_v4();
    let test = Alert {
        id,
        at,
        severity: Severity::Info,
        event: event.name().to_owned(),
        group: None,
        epoch: None,
        node: settings.node.clone(),
        summary: format!("TEST from {}: alerts of understudy arrive here", person(settings)),
        detail: event.explanation("the group"),
        // Of its own, so that no test is folded into another one.
        dedup_key: format!("{}/{}/{id}", settings.node, event.name()),
        fields: BTreeMap::new(),
        lasting: true,
        resolves: None,
        folded: None,
    };
    let began = Resolves { event: test.event.clone(), severity: test.severity, since: at };
    let over = Alert { id: Uuid::new_v4(), resolves: Some(began), lasting: false, ..test.clone() };
    (test, over)
}
