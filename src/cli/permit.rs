//! `understudy permit`: the polkit rule, made from the configuration.

use std::fs;
use std::io;
use std::path::Path;

use clap::Args;
use serde_json::json;

use super::{Said, json as print_json};
use crate::adapters::guard::names;
use crate::adapters::polkit::{self, RULE_PATH};
use crate::config::fault::Faults;
use crate::config::settings::Settings;
use crate::control::ask;
use crate::control::protocol::{Request, Response};
use crate::engine::edge::Kind;
use crate::runtime::files;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show the rule instead of writing it.
    #[arg(long)]
    print: bool,
    /// Remove the rule, so that the daemon may manage no unit.
    #[arg(long, conflicts_with = "print")]
    remove: bool,
    /// User that the daemon runs as.
    #[arg(long, value_name = "USER", default_value = polkit::USER)]
    user: String,
}

/// The rule cannot follow a configuration that has faults. systemd runs this before the daemon,
/// which lists them all; once is enough.
#[derive(Debug, thiserror::Error)]
#[error(
    "the configuration has faults, so the polkit rule stays as it is; `understudy check` lists them"
)]
pub(super) struct Unconfigured;

pub(super) async fn permit(
    settings: Result<Settings, Faults>,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let path = Path::new(RULE_PATH);
    if arguments.remove {
        let removed = remove(path)?;
        if json {
            return Ok(print_json(&json!({ "path": path, "removed": removed }))?.into());
        }
        let text = if removed { "is removed" } else { "was not there" };
        return Ok(format!("{} {text}\n", path.display()).into());
    }
    let settings = settings.map_err(|_| Unconfigured)?;
    let present = fs::read_to_string(path).unwrap_or_default();
    let mut units = configured(&settings);
    units.extend(in_hand(&settings, &present).await);
    let rule = polkit::rule(&arguments.user, &units);
    if arguments.print {
        return Ok(rule.into());
    }
    let changed = present != rule;
    if changed {
        write(path, &rule)?;
    }
    if json {
        let said = json!({
            "path": path, "changed": changed, "user": arguments.user, "units": units,
        });
        return Ok(print_json(&said)?.into());
    }
    let user = &arguments.user;
    let (path, count) = (path.display(), units.len());
    Ok(match changed {
        true => format!("{path} is written: user {user} may manage {count} unit(s)\n"),
        // Said at every start and reload, it would be noise.
        false => String::new(),
    }
    .into())
}

/// The units of all groups, and the guards of those that have one.
pub(super) fn configured(settings: &Settings) -> Vec<String> {
    let guards = settings.groups.iter().filter(|group| group.paired.is_some());
    let guards = guards.map(|group| names::guard_unit(&group.name));
    settings.groups.iter().flat_map(|group| group.units.iter().cloned()).chain(guards).collect()
}

/// The units of the groups that the running daemon has in hand. It refuses a configuration that
/// would take them away, and must be able to stop them until then.
///
/// The daemon is not root and cannot be given a right because it says so: only what the present rule
/// allows can stay allowed.
async fn in_hand(settings: &Settings, present: &str) -> Vec<String> {
    let Ok(Response::Status(status)) = ask(&settings.runtime_dir, &Request::Status).await else {
        return Vec::new();
    };
    let known = configured(settings);
    let in_hand = status.groups.into_iter().filter(|group| group.state != Kind::Standby.name());
    let units = in_hand.flat_map(|group| {
        let guard = names::guard_unit(&group.name);
        group.units.into_iter().map(|unit| unit.name).chain([guard])
    });
    units.filter(|unit| !known.contains(unit) && polkit::allows(present, unit)).collect()
}

fn write(path: &Path, rule: &str) -> anyhow::Result<()> {
    files::replace(path, rule.as_bytes(), 0o644, files::Name::OnDisk).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "run this as root",
            _ => "without it only root can start the units",
        };
        anyhow::anyhow!("cannot write {}: {error}; {remedy}", path.display())
    })
}

/// Whether there was something to remove.
fn remove(path: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(anyhow::anyhow!("cannot remove {}: {error}", path.display())),
    }
}
