//! `understudy history`: what happened, newest first, and the timeline of one failover.

use clap::Args;

use super::{Refused, Said, group, json as print_json, store};
use crate::adapters::alert;
use crate::adapters::postgres::operator::{Record, RecordKind, RecordStatus};
use crate::config::settings::Settings;
use crate::control::ask;
use crate::control::protocol::{Request, Response};
use crate::runtime::status;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show one entry with its timeline; the beginning of its id is enough.
    id: Option<String>,
    /// Only this group.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// How many entries.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = limit())]
    limit: u32,
}

/// More than anybody reads, and no more than the database gives without trouble.
fn limit() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=10_000)
}

pub(super) async fn history(
    settings: &Settings,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let mut store = store(settings)?;
    if let Some(id) = &arguments.id {
        let Some(record) = store.history_one(id).await? else {
            return Err(Refused(format!("there is no entry {id}, or more than one")).into());
        };
        return Ok(if json { print_json(&record)? } else { one(&record) }.into());
    }
    let name = match &arguments.group {
        Some(name) => Some(group(settings, Some(name))?.name.as_str()),
        None => None,
    };
    let records = store.history(name, arguments.limit).await?;
    if json {
        return Ok(print_json(&records)?.into());
    }
    let undelivered = undelivered(settings).await;
    if records.is_empty() {
        return Ok(format!("{undelivered}nothing has happened yet\n").into());
    }
    Ok((undelivered + &records.iter().map(line).collect::<String>()).into())
}

/// What people have not heard of yet, by the daemon's word or, if it does not run, by what is on disk.
async fn undelivered(settings: &Settings) -> String {
    let channels = match ask(&settings.runtime_dir, &Request::Status).await {
        Ok(Response::Status(status)) => status.channels,
        Ok(_) | Err(_) => {
            let outbox = settings.state_dir.join("outbox");
            // Who may not look there is not told.
            let found = alert::peek(&outbox, &settings.channels).unwrap_or_default();
            found.into_iter().map(status::channel).collect()
        }
    };
    channels.iter().map(super::status::undelivered).collect()
}

fn line(record: &Record) -> String {
    let id: String = record.id.chars().take(8).collect();
    let status =
        record.status.map(|status| format!(" {}", status_text(status))).unwrap_or_default();
    let by = record.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let reason = match record.reason.as_deref() {
        None | Some("") => String::new(),
        Some(reason) => format!(": {reason}"),
    };
    format!(
        "{}  {id:8}  {}  {}{status} on {} (epoch {}){by}{reason}\n",
        record.at,
        record.group,
        kind_text(record.kind),
        record.node,
        record.epoch
    )
}

fn one(record: &Record) -> String {
    let mut text = line(record);
    if let Some(ended_at) = &record.ended_at {
        text += &format!("  ended {ended_at}\n");
    }
    for entry in &record.timeline {
        let after = entry.after_ms.map(|ms| format!("+{ms} ms")).unwrap_or_default();
        let took = entry.took_ms.map(|ms| format!(" in {ms} ms")).unwrap_or_default();
        let fault = entry.detail.get("fault").and_then(|fault| fault.as_str());
        let fault = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
        text += &format!("  {after:>10}  {} {}{took}{fault}\n", entry.step, entry.outcome);
    }
    text
}

const fn kind_text(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Automatic => "failover",
        RecordKind::Operator => "failover by order",
        RecordKind::HandBack => "given back",
        RecordKind::Hold => "hold",
        RecordKind::Release => "release",
        RecordKind::Acknowledge => "ack",
        RecordKind::Request => "request",
        RecordKind::RequestEnded => "end of the request",
        RecordKind::HandOver => "handed over",
    }
}

const fn status_text(status: RecordStatus) -> &'static str {
    match status {
        RecordStatus::Running => "NOT FINISHED",
        RecordStatus::Done => "done",
        RecordStatus::Failed => "FAILED",
        RecordStatus::Superseded => "superseded",
    }
}
