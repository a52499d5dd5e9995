//! `understudy protect`: binds the units of a group to its guard.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Refused, Said, group, json as print_json};
use crate::adapters::guard::dropin::{DropIn, Protection, UNIT_DIR, path};
use crate::adapters::guard::names;
use crate::adapters::systemd::protection::Stopping;
use crate::adapters::systemd::{Active, Load, Systemd};
use crate::config::settings::{Group, Settings};
use crate::error::chain;
use crate::files::{self, Name};

/// Least time for one step of a unit's stop. What needs less can do without the step.
const PHASE_MIN: Duration = Duration::from_millis(200);

/// What the guard may take on top of its timers to become ready, and to end.
const GUARD_RESERVE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the group; may be left out if there is only one.
    group: Option<String>,
    /// Remove what was written.
    #[arg(long)]
    undo: bool,
    /// Show what would be written.
    #[arg(long, conflicts_with = "undo")]
    print: bool,
    /// Write the gate alone, on the primary of a group in observed mode: units do not start there while
    /// another node has the group.
    #[arg(long, conflicts_with = "undo")]
    gate_only: bool,
    /// Do not have systemd read it. It does so at the next reload or boot; units that run are not
    /// looked at.
    #[arg(long)]
    no_reload: bool,
}

pub(super) async fn protect(
    settings: &Settings,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let group = group(settings, arguments.group.as_deref())?;
    let mut systemd = Systemd::new();
    let unit_dir = Path::new(UNIT_DIR);
    if arguments.undo {
        let paths = written(unit_dir, group);
        refuse_while_guarded(&mut systemd, group).await?;
        let removed: Vec<_> = paths.into_iter().filter(|path| path.exists()).collect();
        change(&mut systemd, &gone(&removed), arguments.no_reload, None).await?;
        return said(group, "removed", &removed, json);
    }
    if arguments.gate_only {
        return gate_only(&mut systemd, settings, group, arguments, json).await;
    }
    if group.paired.is_none() {
        let text = format!(
            "group {name} is in observed mode, in which nothing renews a lease; write mode = \"paired\" \
             and nodes into [group.{name}] first",
            name = group.name
        );
        return Err(Refused(text).into());
    }
    let protection = protection(settings, group)?;
    let units = systemd.stopping(&services(group)?).await?;
    refuse_unfit(&protection, &units, arguments.no_reload || arguments.print)?;
    let drop_ins = drop_ins(unit_dir, &protection, &units);
    if arguments.print {
        return Ok(shown(&drop_ins).into());
    }
    let wanted: Vec<_> = drop_ins.iter().map(|it| (it.path.clone(), Some(&*it.text))).collect();
    change(&mut systemd, &wanted, arguments.no_reload, Some(&protection)).await?;
    let paths: Vec<_> = drop_ins.into_iter().map(|it| it.path).collect();
    said(group, "written", &paths, json)
}

/// Writes what a primary in observed mode can have.
async fn gate_only(
    systemd: &mut Systemd,
    settings: &Settings,
    group: &Group,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    if group.paired.is_some() {
        let text = format!("{} is in paired mode: omit --gate-only", group.name);
        return Err(Refused(text).into());
    }
    let protection = protection(settings, group)?;
    let units = services(group)?;
    let drop_ins: Vec<_> =
        units.iter().map(|unit| protection.of_gated_unit(Path::new(UNIT_DIR), unit)).collect();
    if arguments.print {
        return Ok(shown(&drop_ins).into());
    }
    let wanted: Vec<_> = drop_ins.iter().map(|it| (it.path.clone(), Some(&*it.text))).collect();
    change(systemd, &wanted, arguments.no_reload, None).await?;
    let paths: Vec<_> = drop_ins.into_iter().map(|it| it.path).collect();
    said(group, "written", &paths, json)
}

fn shown(drop_ins: &[DropIn]) -> String {
    drop_ins.iter().map(|it| format!("# {}\n{}\n", it.path.display(), it.text)).collect()
}

fn protection(settings: &Settings, group: &Group) -> io::Result<Protection> {
    let timers = &settings.paired;
    Ok(Protection {
        group: group.name.clone(),
        program: std::env::current_exe()?,
        runtime_dir: settings.runtime_dir.clone(),
        stop_within: timers.kill_after(),
        watchdog: timers.watchdog(),
        guard_within: timers.fence_after + timers.stop_within + GUARD_RESERVE,
    })
}

/// The units, if all of them are services.
fn services(group: &Group) -> Result<Vec<String>, Refused> {
    match group.units.iter().find(|unit| !unit.ends_with(".service")) {
        None => Ok(group.units.clone()),
        Some(unit) => Err(Refused(format!(
            "{unit} is no service, and has no processes that could be stopped in time; write the \
             service that it starts into `units` of [group.{}]",
            group.name
        ))),
    }
}

fn drop_ins(unit_dir: &Path, protection: &Protection, units: &[Stopping]) -> Vec<DropIn> {
    let of_units = units.iter().map(|it| protection.of_unit(unit_dir, &it.unit, it.phases()));
    std::iter::once(protection.of_guard(unit_dir)).chain(of_units).collect()
}

fn written(unit_dir: &Path, group: &Group) -> Vec<PathBuf> {
    let guard = names::guard_unit(&group.name);
    std::iter::once(&guard).chain(&group.units).map(|unit| path(unit_dir, unit)).collect()
}

/// While the guard runs, units may, too, and would go on without it.
async fn refuse_while_guarded(systemd: &mut Systemd, group: &Group) -> anyhow::Result<()> {
    let guard = names::guard_unit(&group.name);
    let state = systemd.inspect(std::slice::from_ref(&guard)).await?;
    if state.iter().any(|state| state.active != Active::Inactive && state.active != Active::Failed)
    {
        let text = format!(
            "{guard} is running, so the group is active on this node and would lose its guard; stop it \
             first (`systemctl stop {guard}` stops its units as well)"
        );
        return Err(Refused(text).into());
    }
    Ok(())
}

/// What keeps a unit from being stopped in time, of all units at once.
fn refuse_unfit(
    protection: &Protection,
    units: &[Stopping],
    running_is_fine: bool,
) -> Result<(), Refused> {
    let slice = names::slice_path(&protection.group);
    let mut faults = Vec::new();
    for unit in units {
        let mut fault = |text: String| faults.push(format!("{}: {text}", unit.unit));
        if unit.load != Load::Loaded {
            fault("it cannot be loaded on this node; `systemctl status` says why".to_owned());
            continue;
        }
        if !matches!(&*unit.kill_mode, "control-group" | "mixed") {
            fault(format!(
                "KillMode={} leaves processes behind; write control-group or mixed",
                unit.kill_mode
            ));
        }
        let each = protection.each_of(unit.phases());
        if each < PHASE_MIN {
            fault(format!(
                "it stops in {} steps, for each of which there are {} only; raise \
                 paired.stop_within, or shorten ExecStop= and ExecStopPost=",
                unit.phases(),
                humantime::format_duration(each)
            ));
        }
        let outside = unit.control_group_path().is_some_and(|path| !path.starts_with(&slice));
        if outside && !running_is_fine {
            fault("it runs now, and outside of the slice of the group; stop it first".to_owned());
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Refused(format!("nothing was changed: {}", faults.join("; ")))),
    }
}

/// A file, and what is to be in it; `None` removes it.
type Wanted<'a> = (PathBuf, Option<&'a str>);

fn gone(paths: &[PathBuf]) -> Vec<Wanted<'_>> {
    paths.iter().map(|path| (path.clone(), None)).collect()
}

/// Makes the files what they are to be, and sees that systemd takes them so. If anything fails, they
/// are what they were.
async fn change(
    systemd: &mut Systemd,
    wanted: &[Wanted<'_>],
    no_reload: bool,
    protection: Option<&Protection>,
) -> anyhow::Result<()> {
    let before: Vec<_> =
        wanted.iter().map(|(path, _)| (path.clone(), fs::read_to_string(path).ok())).collect();
    let outcome = async {
        for (path, text) in wanted {
            put(path, *text)?;
        }
        if no_reload {
            return Ok(());
        }
        systemd.reload().await?;
        match protection {
            Some(protection) => verify(systemd, protection, wanted).await,
            None => Ok(()),
        }
    };
    let outcome: anyhow::Result<()> = outcome.await;
    if outcome.is_err() {
        for (path, text) in &before {
            if let Err(error) = put(path, text.as_deref()) {
                tracing::error!("{error:#}; it is half changed");
            }
        }
        if !no_reload && let Err(error) = systemd.reload().await {
            tracing::error!("{}; run `systemctl daemon-reload`", chain(&error));
        }
    }
    outcome
}

fn put(path: &Path, text: Option<&str>) -> anyhow::Result<()> {
    let put = match text {
        Some(text) => files::replace(path, text.as_bytes(), 0o644, Name::OnDisk),
        None => match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
    };
    if text.is_none() {
        // Somebody else may have drop-ins there.
        let _kept = path.parent().map(fs::remove_dir);
    }
    put.map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "; run this as root",
            _ => "",
        };
        anyhow::anyhow!("nothing was changed: cannot write {}: {error}{remedy}", path.display())
    })
}

/// What systemd made of it: another drop-in may say otherwise.
async fn verify(
    systemd: &mut Systemd,
    protection: &Protection,
    wanted: &[Wanted<'_>],
) -> anyhow::Result<()> {
    let guard = names::guard_unit(&protection.group);
    let unit = |path: &Path| {
        let directory = path.parent()?.file_name()?.to_str()?;
        directory.strip_suffix(".d").filter(|unit| *unit != guard).map(str::to_owned)
    };
    let units: Vec<String> = wanted.iter().filter_map(|(path, _)| unit(path)).collect();
    let mut faults = Vec::new();
    for unit in systemd.stopping(&units).await? {
        let gated = unit.conditions.iter().any(|command| {
            command.iter().any(|word| word == "gate") && command.last() == Some(&protection.group)
        });
        let as_wanted = [
            ("BindsTo", unit.binds_to.contains(&guard)),
            ("After", unit.after.contains(&guard)),
            ("ExecCondition", gated),
            ("Slice", unit.slice == names::slice_unit(&protection.group)),
            ("TimeoutStopSec", unit.timeout_stop == Some(protection.each_of(unit.phases()))),
            ("SendSIGKILL", unit.sends_sigkill),
        ];
        for (what, _) in as_wanted.iter().filter(|(_, as_wanted)| !as_wanted) {
            faults.push(format!("{}: {what}= is something else", unit.unit));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let text = format!(
        "nothing was changed: systemd read it and says otherwise: {}; another drop-in comes later, \
         `systemctl cat` shows it",
        faults.join("; ")
    );
    Err(Refused(text).into())
}

fn said(group: &Group, what: &str, paths: &[PathBuf], json: bool) -> anyhow::Result<Said> {
    if json {
        return Ok(print_json(&json!({ "group": group.name, what: paths }))?.into());
    }
    let lines = paths.iter().map(|path| format!("{what}: {}\n", path.display()));
    let rest = match (what, paths.is_empty()) {
        ("removed", true) => format!("{}: nothing was there\n", group.name),
        ("removed", false) => {
            format!("{}: units start on this node without a lease from now on\n", group.name)
        }
        _ if group.paired.is_none() => {
            format!(
                "{0}: units start on this node while {1} has the group\n",
                group.name, group.primary
            )
        }
        _ => format!("{}: units start on this node with the lease only\n", group.name),
    };
    Ok((lines.collect::<String>() + &rest).into())
}
