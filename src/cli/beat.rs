//! `understudy beat`: the heartbeat of an application that has none.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::sleep;

use super::setup::login;
use super::{Refused, Said, json as print_json};
use crate::adapters::hook;
use crate::adapters::postgres::Store;
use crate::adapters::postgres::beat::{Beat, Column};
use crate::config::settings::{Group, Settings};
use crate::error::chain;
use crate::time::BootTime;

/// How long the store may take for a heartbeat.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shortest time between two heartbeats. understudy reads them every 10 s, and at the fastest ten
/// times a second.
const EVERY_MIN: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    understudy beat --bot equity\n  \
    understudy beat --bot equity --every 30s --set version=1.4 --check /usr/bin/equity-probe\n  \
    understudy beat --bot equity --every 30s --check curl -fsS http://127.0.0.1:8000/live\n\n\
    Exit codes, without --every: 0 written; 1 the check said no; 69 the database cannot be reached. \
    With --every it goes on until it is stopped, whatever happens.")]
pub(super) struct Arguments {
    /// Whose heartbeat; one of the bots of a group.
    #[arg(long, value_name = "NAME")]
    bot: String,
    /// Go on, with so much time between two heartbeats.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    every: Option<Duration>,
    /// Write another column of the row, too; without "=" it becomes NULL. May be repeated. The
    /// status stays as it is unless it is among them.
    #[arg(long = "set", value_name = "COLUMN=VALUE", value_parser = column)]
    columns: Vec<Column>,
    /// Log in as this role instead of the daemon's; it must be allowed to write the table.
    #[arg(long, value_name = "ROLE")]
    user: Option<String>,
    /// File with that role's password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// How long the check may take.
    #[arg(long, value_name = "DURATION", default_value = "10s",
          value_parser = humantime::parse_duration)]
    check_timeout: Duration,
    /// Beat only if this program leaves with status 0. Everything after it is its arguments. No
    /// shell is involved; its environment is PATH and UNDERSTUDY_BOT.
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    check: Vec<String>,
}

fn column(text: &str) -> Result<Column, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("write it like COLUMN=VALUE".to_owned());
    }
    Ok(Column { name: name.to_owned(), value })
}

pub(super) async fn beat(
    settings: &Settings,
    arguments: Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let group = group_of(settings, &arguments.bot)?;
    let heartbeats = &group.heartbeats;
    for name in [&heartbeats.name_column, &heartbeats.beat_column] {
        if arguments.columns.iter().any(|column| column.name == *name) {
            let text = format!("{name} is written by the heartbeat itself; leave it out of --set");
            return Err(Refused(text).into());
        }
    }
    let login = login(settings, arguments.user.as_deref(), arguments.password_file.as_deref())?;
    let mut heart = Heart {
        store: Store::new(&login, &settings.node, PATIENCE, &[])?,
        group,
        arguments: &arguments,
    };
    match arguments.every {
        None => {
            let done = heart.beat().await?;
            let made = done == Beat::Made;
            if json {
                return Ok(print_json(&json!({ "bot": arguments.bot, "made": made }))?.into());
            }
            let what = if made { "a new row with a heartbeat" } else { "a heartbeat" };
            Ok(format!("{}: {what} is written\n", arguments.bot).into())
        }
        Some(every) if every < EVERY_MIN => {
            let least = humantime::format_duration(EVERY_MIN);
            Err(Refused(format!("--every must be {least} or more")).into())
        }
        Some(every) => heart.beat_for_ever(every).await,
    }
}

fn group_of<'a>(settings: &'a Settings, bot: &str) -> Result<&'a Group, Refused> {
    let has = |group: &&Group| group.bots.iter().any(|one| one == bot);
    settings.groups.iter().find(has).ok_or_else(|| {
        let bots: Vec<_> = settings.groups.iter().flat_map(|group| &group.bots).collect();
        let bots = bots.iter().map(|bot| bot.as_str()).collect::<Vec<_>>().join(", ");
        Refused(format!("no group has a bot {bot}, so nobody would look at it; there are: {bots}"))
    })
}

struct Heart<'a> {
    store: Store,
    group: &'a Group,
    arguments: &'a Arguments,
}

impl Heart<'_> {
    /// One heartbeat, if the application makes progress.
    async fn beat(&mut self) -> anyhow::Result<Beat> {
        let Arguments { bot, columns, check, check_timeout, .. } = self.arguments;
        if !check.is_empty() {
            let ran = hook::run(check, &[("UNDERSTUDY_BOT", bot)], *check_timeout).await;
            if let Err(error) = ran.outcome {
                let said = ran.lines.last().map(|line| format!(" ({line})")).unwrap_or_default();
                let text = format!("{bot} gets no heartbeat: {}{said}", chain(&error));
                return Err(Refused(text).into());
            }
        }
        Ok(self.store.beat(&self.group.heartbeats, bot, columns).await?)
    }

    /// Heartbeats at an even pace. What fails is said when it begins and when it is over, and tried
    /// again with the next one.
    async fn beat_for_ever(&mut self, every: Duration) -> anyhow::Result<Said> {
        let bot = &self.arguments.bot;
        let mut fault: Option<String> = None;
        let mut ready = false;
        loop {
            let begun = BootTime::now();
            let failed = self.beat().await.err().map(|error| chain(error.as_ref()));
            if failed != fault {
                say(&match &failed {
                    Some(failed) => failed.clone(),
                    None => format!("{bot} beats again"),
                });
                fault = failed;
            }
            // This process turns, whatever the application does; it is the row that says the rest.
            notify(&mut ready, bot, fault.as_deref());
            sleep(every.saturating_sub(BootTime::now().since(begun))).await;
        }
    }
}

fn notify(ready: &mut bool, bot: &str, fault: Option<&str>) {
    use sd_notify::NotifyState::{Ready, Status, Watchdog};
    let status = match fault {
        None => format!("{bot} beats"),
        Some(fault) => fault.to_owned(),
    };
    let first = !std::mem::replace(ready, true);
    let mut states = vec![Watchdog, Status(&status)];
    if first {
        states.push(Ready);
    }
    // Without systemd there is nobody to tell.
    let _untold = sd_notify::notify(&states);
}

fn say(text: &str) {
    // With standard error gone too, the row has to do.
    let _unheard = writeln!(std::io::stderr(), "understudy: {text}");
}
