//! `understudy failover`: asks the daemon to take a group over, and shows how it goes.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::{Refused, Said, group, json as print_json, nonsense, person, print};
use crate::config::settings::{Group, Settings};
use crate::control::ask;
use crate::control::protocol::{self, Request, Response};
use crate::time::BootTime;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the group; may be left out if there is only one.
    group: Option<String>,
    /// Although the heartbeats move, or a bot was stopped on purpose. Two copies may run.
    #[arg(long)]
    force: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

pub(super) async fn failover(
    settings: &Settings,
    arguments: Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let group = group(settings, arguments.group.as_deref())?;
    let before = look(settings, group).await?;
    let plan = plan(settings, group, &before);
    if arguments.dry_run {
        return Ok(format!("{plan}Nothing was done (--dry-run).\n").into());
    }
    if !arguments.yes && !confirmed(&plan, &group.name)? {
        return Err(Refused("nothing was done".to_owned()).into());
    }
    let request = Request::Failover {
        group: group.name.clone(),
        force: arguments.force,
        by: person(settings),
        reason: arguments.reason,
    };
    match ask(&settings.runtime_dir, &request).await? {
        Response::Accepted { .. } => {}
        Response::Refused { text } => return Err(Refused(text).into()),
        Response::Status(_) | Response::Explanation(_) | Response::Health(_) => {
            return Err(nonsense().into());
        }
    }
    let end = follow(settings, group, json).await?;
    let code = u8::from(end.state != "active");
    let text = if json { print_json(&end)? } else { format!("{}\n", end.summary) };
    Ok(Said { text, code })
}

fn plan(settings: &Settings, group: &Group, now: &protocol::Group) -> String {
    let mut plan = format!(
        "{} will take over {} (now with {}, epoch {}):\n  {}\n",
        settings.node,
        group.name,
        now.holder.as_deref().unwrap_or("nobody"),
        now.epoch.map_or("unknown".to_owned(), |epoch| epoch.to_string()),
        now.summary,
    );
    if let Some(program) = group.fence.as_ref().and_then(|fence| fence.command.first()) {
        plan += &format!("  fence {} with {program}\n", group.primary);
    }
    if group.redis.is_some() {
        plan += "  promote Redis here\n";
    }
    plan += &format!("  mark as primary: {}\n", group.bots.join(", "));
    plan += &format!("  start {}\n", group.units.join(", "));
    for problem in now.not_ready_because.iter().flatten() {
        plan += &format!("  PROBLEM: {problem}\n");
    }
    plan
}

/// Has the name of the group typed back, so that the right command on the wrong host is noticed.
fn confirmed(plan: &str, name: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(
            Refused("there is no terminal to ask on; add --yes if you are sure".into()).into()
        );
    }
    print(&format!("{plan}\nType the name of the group to go on: "))?;
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == name)
}

/// Prints each step as it ends, until the group is active, stuck or back where it was.
async fn follow(settings: &Settings, group: &Group, json: bool) -> anyhow::Result<protocol::Group> {
    let start = BootTime::now();
    let mut shown = BTreeSet::new();
    loop {
        let now = look(settings, group).await?;
        for done in now.takeover.iter().flat_map(|takeover| &takeover.done) {
            if shown.insert(done.step.clone()) && !json {
                let after = BootTime::now().since(start).as_secs_f64();
                print(&format!("{after:7.2} s  {} done in {} ms\n", done.step, done.took_ms))?;
            }
        }
        match now.state.as_str() {
            "active" => return Ok(now),
            // An order to try a stuck step again is answered by what becomes of that attempt.
            "degraded" if !now.takeover.as_ref().is_some_and(|takeover| takeover.trying) => {
                return Ok(now);
            }
            "standby" => {
                let why = now.last_refusal.clone().unwrap_or_else(|| now.summary.clone());
                return Err(Refused(format!("{}: not taken over: {why}", group.name)).into());
            }
            _ => sleep(LOOK_EVERY).await,
        }
    }
}

async fn look(settings: &Settings, group: &Group) -> anyhow::Result<protocol::Group> {
    let status = match ask(&settings.runtime_dir, &Request::Status).await {
        Ok(Response::Status(status)) => status,
        Ok(_) => return Err(Refused("the daemon answered nonsense".into()).into()),
        Err(error) => return Err(error.into()),
    };
    let found = status.groups.into_iter().find(|other| other.name == group.name);
    found.ok_or_else(|| {
        let text = format!(
            "the daemon does not know group {}; `systemctl reload understudy` makes it read the \
             configuration again",
            group.name
        );
        Refused(text).into()
    })
}
