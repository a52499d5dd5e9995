//! What a person can say about a group: hold, release, ack, failback. All of it is kept in the
//! database, so it works with the daemon down, and every node sees it.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{
    GroupArgument, Refused, Said, group, json as print_json, nonsense, person, store, switchover,
};
use crate::adapters::postgres::operator::HandBack;
use crate::adapters::systemd::Systemd;
use crate::config::settings::{Group, Settings};
use crate::control::ask;
use crate::control::protocol::{Request, Response};
use crate::engine::observation::Epoch;
use crate::runtime::files;

#[derive(Debug, Args)]
pub(super) struct HoldArguments {
    /// Name of the group; may be left out if there is only one.
    group: Option<String>,
    /// For how long, such as 2h or 30m. Without it, until released.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    span: Option<Duration>,
    /// Why; everyone sees it in `status` and in alerts.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
pub(super) struct AckArguments {
    /// A group, or the id of an alert as `status` shows it; may be left out if there is one group.
    #[arg(value_name = "GROUP|ID")]
    what: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct FailbackArguments {
    /// Name of the group; may be left out if there is only one.
    group: Option<String>,
    /// Do not ask systemd whether the units are stopped here.
    #[arg(long)]
    force: bool,
    /// Do not ask, in paired mode.
    #[arg(long)]
    yes: bool,
}

pub(super) async fn hold(
    settings: &Settings,
    arguments: &HoldArguments,
    json: bool,
) -> anyhow::Result<Said> {
    let group = group(settings, arguments.group.as_deref())?;
    let reason = arguments.reason.trim();
    if reason.is_empty() {
        return Err(Refused("say why: whoever is on call will want to know".to_owned()).into());
    }
    let by = person(settings);
    store(settings)?.hold(&group.name, &by, reason, arguments.span).await?;
    let until = arguments.span.map_or_else(
        || format!("until `understudy release {}`", group.name),
        |span| format!("for {}", humantime::format_duration(span)),
    );
    let text = format!("{}: no understudy takes over, {until}\n", group.name);
    said(json, group, "held", text)
}

pub(super) async fn release(
    settings: &Settings,
    argument: &GroupArgument,
    json: bool,
) -> anyhow::Result<Said> {
    let group = group(settings, argument.group.as_deref())?;
    let held = store(settings)?.release(&group.name, &person(settings)).await?;
    let text = if held {
        format!("{}: the hold is over; a full new window of silence comes first\n", group.name)
    } else {
        format!("{}: was not held\n", group.name)
    };
    said(json, group, if held { "released" } else { "not_held" }, text)
}

/// Alerts are the daemon's and the latch is the store's: each is done though the other cannot be.
pub(super) async fn acknowledge(
    settings: &Settings,
    arguments: &AckArguments,
    json: bool,
) -> anyhow::Result<Said> {
    let what = arguments.what.as_deref();
    let by = person(settings);
    if let Some(id) = what.filter(|what| is_id(settings, what)) {
        let text = seen(settings, None, Some(id.to_owned()), &by).await?;
        let json = json.then(|| print_json(&json!({ "id": id, "outcome": text })));
        return Ok(json.unwrap_or(Ok(format!("{text}\n")))?.into());
    }
    let group = group(settings, what)?;
    let alerts = seen(settings, Some(group.name.clone()), None, &by).await;
    let alerts = match alerts {
        Ok(text) => text,
        Err(error) => format!("alerts are not acknowledged: {error:#}"),
    };
    let latched = match store(settings)?.acknowledge(&group.name, &by).await {
        Ok(latched) => latched,
        Err(error) => {
            let error = anyhow::Error::from(error);
            return Err(error.context(format!("{}: {alerts}; the latch stays", group.name)));
        }
    };
    let text = if latched {
        format!("{}: automatic failover is on again; {alerts}\n", group.name)
    } else {
        format!(
            "{}: was not latched; failovers so far are not counted any more; {alerts}\n",
            group.name
        )
    };
    if json {
        let outcome = if latched { "acknowledged" } else { "not_latched" };
        let said = json!({ "group": group.name, "outcome": outcome, "alerts": alerts });
        return Ok(print_json(&said)?.into());
    }
    Ok(text.into())
}

/// Whether this is the beginning of an alert's id, as `status` shows it, and not a group's name.
fn is_id(settings: &Settings, what: &str) -> bool {
    const SHOWN: usize = 8;
    let is_group = settings.groups.iter().any(|group| group.name == what);
    !is_group && what.len() >= SHOWN && what.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

async fn seen(
    settings: &Settings,
    group: Option<String>,
    id: Option<String>,
    by: &str,
) -> anyhow::Result<String> {
    let request = Request::Acknowledge { group, id, by: by.to_owned() };
    match ask(&settings.runtime_dir, &request).await? {
        Response::Accepted { text } => Ok(text),
        Response::Refused { text } => Err(Refused(text).into()),
        Response::Status(_) | Response::Explanation(_) | Response::Health(_) => {
            Err(nonsense().into())
        }
    }
}

pub(super) async fn failback(
    settings: &Settings,
    arguments: &FailbackArguments,
    json: bool,
) -> anyhow::Result<Said> {
    let group = group(settings, arguments.group.as_deref())?;
    if let Some(paired) = &group.paired {
        let arguments = switchover::Arguments::to_preferred(group, paired, arguments.yes);
        return switchover::switchover(settings, arguments, json).await;
    }
    if !arguments.force {
        units_stopped(group).await?;
    }
    let mut store = store(settings)?;
    let index = settings.groups.iter().position(|other| other.name == group.name).unwrap_or(0);
    let expected = match store.observe().await?.groups.into_iter().nth(index) {
        Some(Ok(observation)) => observation.lease.epoch,
        Some(Err(fault)) => return Err(Refused(fault.to_string()).into()),
        None => Epoch(0),
    };
    let max_epoch = max_epoch(settings, group).await?;
    let by = person(settings);
    let (done, text) = match store.hand_back(group, expected, max_epoch, &by).await? {
        HandBack::Done(epoch) => (
            "handed_back",
            format!(
                "{}: {} has the group (epoch {epoch}). Start its bots there if they do not run; \
                 they are watched from now on\n",
                group.name, group.primary
            ),
        ),
        HandBack::Already(epoch) => (
            "already",
            format!("{}: {} has it already (epoch {epoch})\n", group.name, group.primary),
        ),
        HandBack::Changed { epoch, holder } => {
            let holder = holder.unwrap_or_else(|| "nobody".to_owned());
            return Err(Refused(format!(
                "{}: changed hands just now: {holder} has it with epoch {epoch}. Look at \
                 `understudy status`, then ask again",
                group.name
            ))
            .into());
        }
    };
    said(json, group, done, text)
}

/// Highest epoch that this node knows of, from the daemon and from disk. The store may have been
/// restored from a backup and know of fewer.
async fn max_epoch(settings: &Settings, group: &Group) -> anyhow::Result<Epoch> {
    let remembered = files::remembered_epoch(&settings.state_dir, &settings.node, &group.name)?;
    let seen = match ask(&settings.runtime_dir, &Request::Status).await {
        Ok(Response::Status(status)) => {
            let mut groups = status.groups.into_iter();
            groups.find(|other| other.name == group.name).map_or(0, |other| other.max_epoch)
        }
        // It works with the daemon down.
        Ok(_) | Err(_) => 0,
    };
    Ok(remembered.max(Epoch(seen)))
}

/// Two copies would run if the units here were not stopped before the others are started.
async fn units_stopped(group: &Group) -> anyhow::Result<()> {
    let states = Systemd::new().inspect(&group.units).await?;
    let running: Vec<_> = states
        .iter()
        .filter(|state| !state.is_down() || state.job.is_some())
        .map(|state| state.unit.clone())
        .collect();
    if running.is_empty() {
        return Ok(());
    }
    Err(Refused(format!(
        "{}: {} run here, or are about to. Stop them first, or two copies will run:\n  systemctl stop {}",
        group.name,
        running.join(", "),
        running.join(" ")
    ))
    .into())
}

fn said(json: bool, group: &Group, outcome: &str, text: String) -> anyhow::Result<Said> {
    if json {
        return Ok(print_json(&json!({ "group": group.name, "outcome": outcome }))?.into());
    }
    Ok(text.into())
}
