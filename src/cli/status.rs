//! `understudy status`: one screen that says who has what, and what would happen next.

use std::path::Path;
use std::time::Duration;

use super::{Refused, Said, json as print_json, nonsense};
use crate::config::fault::Faults;
use crate::config::load::RUNTIME_DIR;
use crate::config::settings::Settings;
use crate::control::ask;
use crate::control::protocol::{
    Bot, Channel, Group, OpenAlert, OtherNode, Request, Response, Status,
};
use crate::engine::liveness::seconds;

/// A daemon that runs on with an older configuration is asked also if the one on disk has faults: that
/// is when somebody wants to know.
pub(super) async fn status(settings: Result<Settings, Faults>, json: bool) -> anyhow::Result<Said> {
    let asked = match settings {
        Ok(settings) => ask(&settings.runtime_dir, &Request::Status).await?,
        Err(faults) => match ask(Path::new(RUNTIME_DIR), &Request::Status).await {
            Ok(answer) => answer,
            Err(_) => return Err(faults.into()),
        },
    };
    let status = match asked {
        Response::Status(status) => status,
        Response::Refused { text } => return Err(Refused(text).into()),
        Response::Accepted { .. } | Response::Explanation(_) | Response::Health(_) => {
            return Err(nonsense().into());
        }
    };
    if json {
        return Ok(print_json(&status)?.into());
    }
    Ok(text(&status).into())
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "understudy {} on {}, running for {}\n",
        status.daemon,
        status.node,
        seconds(Duration::from_secs(status.uptime_s))
    );
    if let Some(why) = &status.configuration_refused {
        text += &format!("! the configuration on disk is NOT in use: {why}\n");
    }
    if status.undelivered_alerts > 0 {
        text += &format!("! {} alerts are not delivered yet\n", status.undelivered_alerts);
    }
    for listener in &status.http {
        if let Some(fault) = &listener.fault {
            text += &format!(
                "! status page and metrics are not served at {}: {fault}\n",
                listener.address
            );
        }
    }
    for channel in &status.channels {
        text += &undelivered(channel);
    }
    for group in &status.groups {
        text.push('\n');
        text += &one(group);
    }
    if !status.open_alerts.is_empty() {
        text += "\nalerts that are not over (`understudy ack GROUP` or `ack ID` when you have looked):\n";
    }
    for alert in &status.open_alerts {
        text += &open(alert);
    }
    text
}

/// What a channel could not deliver yet, in a line; nothing if all is well.
pub(super) fn undelivered(channel: &Channel) -> String {
    let mut parts = Vec::new();
    if channel.pending > 0 {
        let oldest = channel.oldest.as_deref().unwrap_or("now");
        parts.push(format!(
            "{} not delivered, {} of them critical, the oldest of {oldest}",
            channel.pending, channel.critical
        ));
    }
    if channel.in_memory > 0 {
        parts.push(format!("{} in memory only, as the disk is full", channel.in_memory));
    }
    if channel.refused > 0 {
        parts.push(format!("{} refused by the channel for good", channel.refused));
    }
    if channel.lost > 0 {
        parts.push(format!("{} LOST to a full queue", channel.lost));
    }
    if parts.is_empty() {
        return String::new();
    }
    if let Some(error) = &channel.last_error {
        parts.push(format!("last error: {error}"));
    }
    format!("! {}: {}\n", channel.name, parts.join("; "))
}

fn open(alert: &OpenAlert) -> String {
    let id: String = alert.id.chars().take(8).collect();
    let seen = match &alert.acknowledged_by {
        Some(by) => format!(" (seen by {by})"),
        None => String::new(),
    };
    format!("  {id}  {}  {}  {}{seen}\n", alert.since, alert.severity, alert.summary)
}

/// Another node, in a line.
fn node(group: &Group, other: &OtherNode) -> String {
    let heard = other.heard_ago_ms.map(|ago| seconds(Duration::from_millis(ago)));
    let how = match (&heard, &other.not_ready_because) {
        (None, _) => "NOT HEARD OF; is understudy running there?".to_owned(),
        (Some(_), _) if group.holder.as_ref() == Some(&other.name) => "has the group".to_owned(),
        (Some(_), None) => "ready".to_owned(),
        (Some(_), Some(problems)) if problems.is_empty() => "not checked yet".to_owned(),
        (Some(_), Some(problems)) => format!("NOT READY: {}", problems.join("; ")),
    };
    let heard = heard.map_or(String::new(), |ago| format!(", heard of {ago} ago"));
    format!("{}: {how}{heard}", other.name)
}

fn one(group: &Group) -> String {
    let mut text = format!("{}: {}\n  {}\n", group.name, group.state, group.summary);
    let mut row = |label: &str, value: String| text += &format!("  {label:<12}{value}\n");
    let epoch = group.epoch.map_or("-".to_owned(), |epoch| epoch.to_string());
    let holder = group.holder.as_deref().unwrap_or("nobody");
    let renewed = group.renewed_ago_ms.map_or(String::new(), |ago| {
        format!(", renewed {} ago", seconds(Duration::from_millis(ago)))
    });
    row("lease", format!("{holder}, epoch {epoch}{renewed}{}", read_ago(group)));
    for other in &group.other_nodes {
        row("node", node(group, other));
    }
    for bot in &group.bots {
        row("heartbeat", heartbeat(bot));
    }
    for unit in &group.units {
        row("unit", format!("{} {}", unit.name, unit.state));
    }
    if let Some(redis) = &group.redis {
        row("redis", redis.clone());
    }
    if let Some(takeover) = &group.takeover {
        let done: Vec<_> = takeover
            .done
            .iter()
            .map(|done| format!("{} {}", done.step, seconds(Duration::from_millis(done.took_ms))))
            .collect();
        if !done.is_empty() {
            row("takeover", format!("{}, {}", takeover.cause, done.join(", ")));
        }
    }
    if let Some(hold) = &group.hold {
        let left = hold.left_ms.map_or("until released".to_owned(), |left| {
            format!("another {}", seconds(Duration::from_millis(left)))
        });
        row("HELD", format!("by {}, {left}: {}", hold.by, hold.reason));
    }
    if group.latched {
        row("LATCHED", "too many failovers; `understudy ack` after looking why".to_owned());
    }
    if let Some(left) = group.cooldown_left_ms {
        row("cooldown", format!("another {}", seconds(Duration::from_millis(left))));
    }
    match &group.not_ready_because {
        None if group.state == "standby" => row("ready", "not checked yet".to_owned()),
        None => {}
        Some(problems) if problems.is_empty() => {
            row("ready", "yes, this node could take over".to_owned());
        }
        Some(problems) => {
            for problem in problems {
                row("NOT READY", problem.clone());
            }
        }
    }
    if let Some(why) = &group.blocked_because {
        row("if silent", format!("would NOT take over: {why}"));
    }
    if let Some(why) = &group.last_refusal {
        row("last try", why.clone());
    }
    text
}

fn read_ago(group: &Group) -> String {
    match group.read_ago_ms {
        None => ", never read".to_owned(),
        Some(ago) => format!(", read {} ago", seconds(Duration::from_millis(ago))),
    }
}

fn heartbeat(bot: &Bot) -> String {
    let status = bot.status.as_deref().unwrap_or("no row");
    let unchanged = bot.unchanged_ms.map_or("not known".to_owned(), |unchanged| {
        format!("unchanged for {}", seconds(Duration::from_millis(unchanged)))
    });
    let stale = match bot.stale_in_ms {
        None => String::new(),
        Some(0) => ", STALE".to_owned(),
        Some(left) => format!(", stale in {}", seconds(Duration::from_millis(left))),
    };
    let age = match bot.age_ms {
        None => String::new(),
        Some(age) if age < 0 => {
            format!(
                " (database says {} in the future)",
                seconds(Duration::from_millis(age.unsigned_abs()))
            )
        }
        Some(age) => {
            format!(" (database says {} old)", seconds(Duration::from_millis(age.unsigned_abs())))
        }
    };
    format!("{} {status}, {unchanged}{stale}{age}", bot.name)
}
