//! `understudy health`: what the checks say, from the daemon, or measured here and now.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream;

use super::{Refused, Said, json as print_json, nonsense};
use crate::config::monitoring::Check;
use crate::config::settings::Settings;
use crate::control::protocol::{Request, Response};
use crate::control::{ControlError, ask};
use crate::engine::liveness::seconds;
use crate::files;
use crate::monitor::health::{self, Health};
use crate::monitor::level::Level;
use crate::monitor::tracker::{Rule, Tracker};
use crate::runtime::monitor::{Prober, Tools, measure_once, shown};
use crate::time::BootTime;

/// Reports name hosts and keys, which are nobody else's business.
const REPORT_MODE: u32 = 0o640;

/// Checks that are measured at a time, as somebody waits for all of them.
const AT_ONCE: usize = 64;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    understudy health\n  \
    understudy health --now redis-keys 'price/*'\n  \
    understudy health --all --json\n\n\
    Exit codes: 0 all green; 1 the worst is yellow; 2 red; 3 nothing was measured yet; 69 the daemon \
    cannot be asked.")]
pub(super) struct Arguments {
    /// Only these checks; a `*` at the end stands for anything.
    checks: Vec<String>,
    /// Measure here and now instead of asking the daemon. Without what came before, `for` means
    /// nothing, and rates are of one sample.
    #[arg(long)]
    now: bool,
    /// Show the green ones, too.
    #[arg(long)]
    all: bool,
}

pub(super) async fn health(
    settings: &Settings,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let named = |name: &str| is_named(name, &arguments.checks);
    let mut health =
        if arguments.now { measured(settings, named).await } else { asked(settings).await? };
    if !arguments.checks.is_empty() {
        let checks = health.checks.into_iter().filter(|check| named(&check.name)).collect();
        health = Health::of(&health.node, health.at, checks);
        if health.checks.is_empty() {
            return Err(
                Refused("there is no such check; see understudy health --all".to_owned()).into()
            );
        }
    }
    let code = if health.checks.is_empty() { 0 } else { health.level.exit_code() };
    let all = arguments.all || !arguments.checks.is_empty();
    let text = if json { print_json(&health)? } else { text(&health, all)? };
    Ok(Said { text, code })
}

/// What the daemon says, or what is measured here if it does not run.
pub(super) async fn asked_or_measured(settings: &Settings) -> anyhow::Result<Health> {
    match asked(settings).await {
        Err(error) if matches!(error.downcast_ref(), Some(ControlError::NotRunning { .. })) => {
            Ok(measured(settings, |_| true).await)
        }
        asked => asked,
    }
}

async fn asked(settings: &Settings) -> anyhow::Result<Health> {
    match ask(&settings.runtime_dir, &Request::Health).await? {
        Response::Health(health) => Ok(health),
        Response::Refused { text } => Err(Refused(text).into()),
        Response::Status(_) | Response::Explanation(_) | Response::Accepted { .. } => {
            Err(nonsense().into())
        }
    }
}

async fn measured(settings: &Settings, wanted: impl Fn(&str) -> bool) -> Health {
    let (tools, _faults) = Tools::new(settings);
    let tools = Arc::new(tools);
    let checks = settings.monitoring.checks.iter().filter(|check| wanted(&check.name));
    let measured = stream::iter(checks.map(|check| once(tools.clone(), check)));
    let checks = measured.buffered(AT_ONCE).collect().await;
    Health::of(&settings.node, date(), checks)
}

async fn once(tools: Arc<Tools>, check: &Check) -> health::Check {
    let mut prober = Prober::new(tools, check.clone());
    let found = measure_once(&mut prober).await;
    let now = BootTime::now();
    let mut tracker = Tracker::default();
    let rule = Rule { sustain: Duration::ZERO, recover: Duration::ZERO, ..check.rule.clone() };
    tracker.observe(now, found, &rule, &|_, _| None);
    shown(now, check, &tracker)
}

/// Writes a report beside what a failover would need, and says where.
pub(super) fn save(
    directory: &Path,
    health: &Health,
    failover: &impl serde::Serialize,
) -> anyhow::Result<PathBuf> {
    let report = serde_json::json!({
        "version": health::VERSION,
        "node": health.node,
        "at": health.at,
        "score": health.score,
        "band": health.band,
        "failover": failover,
        "health": health,
    });
    // 2026-11-24T03:04:05Z
    let stamp: String = health.at.chars().filter(char::is_ascii_digit).collect();
    let (day, time) = stamp.split_at_checked(8).unwrap_or((&stamp, ""));
    let path = directory.join(format!("health_report_{day}_{time}.json"));
    files::replace(&path, print_json(&report)?.as_bytes(), REPORT_MODE, files::Name::OnDisk)
        .map_err(|error| Refused(format!("{} cannot be written: {error}", path.display())))?;
    Ok(path)
}

fn date() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

fn is_named(name: &str, wanted: &[String]) -> bool {
    wanted.is_empty()
        || wanted.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == wanted,
        })
}

fn text(health: &Health, all: bool) -> anyhow::Result<String> {
    let mut text = String::new();
    if health.checks.is_empty() {
        text += "nothing is checked; write a table [check.NAME], or begin with the examples in \
                 /usr/share/doc/understudy/monitoring.md\n";
        return Ok(text);
    }
    match (health.score, health.band) {
        (Some(score), Some(band)) => {
            write!(text, "{}: {score} of 100, {}", health.node, band.name())?
        }
        _ => write!(text, "{}: nothing was measured yet", health.node)?,
    }
    writeln!(
        text,
        " ({} red, {} yellow, {} green, {} not measured)",
        health.count(Level::Red),
        health.count(Level::Yellow),
        health.count(Level::Green),
        health.count(Level::Unknown),
    )?;
    for group in &health.groups {
        let score = group.score.map_or("-".to_owned(), |score| score.to_string());
        let (red, yellow) = (group.red, group.yellow);
        let all = red + yellow + group.green + group.unknown;
        let green = group.green;
        writeln!(
            text,
            "  {:<7} {:<20} {score:>5}  {green} of {all} green",
            group.level, group.name
        )?;
    }
    let mut shown: Vec<_> = health.troubles();
    if all {
        shown.extend(health.checks.iter().filter(|check| check.level <= Level::Green));
    }
    if !shown.is_empty() {
        text.push('\n');
    }
    for check in shown {
        line(&mut text, check)?;
    }
    Ok(text)
}

fn line(text: &mut String, check: &health::Check) -> anyhow::Result<()> {
    let name = &check.name;
    write!(text, "{:<7} {name}: {}", check.level, check.text)?;
    if let Some(since) = check.since_ms.filter(|_| check.level > Level::Green) {
        write!(text, ", for {}", seconds(Duration::from_millis(since)))?;
    }
    if let (Some(level), Some(left)) = (check.pending, check.pending_ms) {
        let left = seconds(Duration::from_millis(left));
        write!(text, " (will be {level} in {left} if it stays so)")?;
    }
    text.push('\n');
    for detail in &check.details {
        writeln!(text, "          {detail}")?;
    }
    if let Some(runbook) = check.runbook.as_ref().filter(|_| check.level > Level::Green) {
        writeln!(text, "        → {runbook}")?;
    }
    Ok(())
}
