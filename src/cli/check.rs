//! `understudy check`: would a failover work? Everything short of acting, each line with its remedy.
//!
//! To add a check: a line in the function of its part below.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use humantime::format_duration;
use serde::Serialize;
use tokio::time::timeout;

use super::{Said, health, json as print_json, permit};
use crate::adapters::postgres::Store;
use crate::adapters::postgres::inspect::{GroupInspection, Heartbeats, Inspection};
use crate::adapters::redis::{
    Attachable, LinkState, Permission, Permitted, Redis, RedisError, Role, gate,
};
use crate::adapters::systemd::{Enabled, Systemd};
use crate::adapters::{alert, guard, hook, polkit};
use crate::config::fault::Faults;
use crate::config::settings::{Group, Paired, PairedTimers, Settings};
use crate::control::protocol::{Request, Response};
use crate::control::{ControlError, ask};
use crate::engine::liveness::seconds;
use crate::engine::observation::Member;
use crate::error::chain;
use crate::runtime::files;
use crate::web;

/// How long one server may take to answer all questions.
const PATIENCE: Duration = Duration::from_secs(15);

/// Oldest Postgres whose functions the schema uses.
const POSTGRES_MIN: i32 = 130_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Fault,
}

#[derive(Debug, Serialize)]
struct Line {
    level: Level,
    /// What was looked at: a part, or a group and a part.
    about: String,
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

#[derive(Debug, Default)]
struct Report(Vec<Line>);

impl Report {
    fn ok(&mut self, about: &str, text: impl Into<String>) {
        self.add(Level::Ok, about, text, "");
    }

    fn warning(&mut self, about: &str, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, about, text, remedy);
    }

    fn fault(&mut self, about: &str, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Fault, about, text, remedy);
    }

    fn add(
        &mut self,
        level: Level,
        about: &str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (about, text, remedy) = (about.to_owned(), text.into(), remedy.into());
        self.0.push(Line { level, about, text, remedy });
    }

    fn said(&self, json: bool) -> anyhow::Result<Said> {
        let worst = self.0.iter().map(|line| line.level).max().unwrap_or(Level::Ok);
        let code = worst as u8;
        if json {
            return Ok(Said { text: print_json(&self.0)?, code });
        }
        let mut text = String::new();
        for line in &self.0 {
            let level = match line.level {
                Level::Ok => "ok     ",
                Level::Warning => "warning",
                Level::Fault => "FAULT  ",
            };
            writeln!(text, "{level} {}: {}", line.about, line.text)?;
            if !line.remedy.is_empty() {
                writeln!(text, "        → {}", line.remedy)?;
            }
        }
        text += match worst {
            Level::Ok => "\nA failover would work as far as can be told without one.\n",
            Level::Warning => "\nNothing stands in the way of a failover, but read the warnings.\n",
            Level::Fault => "\nA failover would NOT work.\n",
        };
        Ok(Said { text, code })
    }
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also write what was found, and what the checks of the configuration say, to
    /// DIRECTORY/health_report_YYYYMMDD_HHMMSS.json (UTC).
    #[arg(long, value_name = "DIRECTORY", num_args = 0..=1, default_missing_value = ".")]
    save: Option<PathBuf>,
}

pub(super) async fn check(
    settings: Result<Settings, Faults>,
    path: &Path,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let mut report = Report::default();
    let settings = match settings {
        Ok(settings) => settings,
        Err(faults) => {
            report.fault("configuration", faults.to_string().trim_end(), "");
            return report.said(json);
        }
    };
    let groups = settings.groups.len();
    report.ok("configuration", format!("{} is valid, {groups} group(s)", path.display()));
    let running = node(&mut report, &settings).await;
    http(&mut report, &settings);
    store(&mut report, &settings).await;
    permission(&mut report, &settings, running);
    let mut systemd = Systemd::new();
    for group in &settings.groups {
        takeover(&mut report, group, &settings.paired);
        units(&mut report, group, &mut systemd).await;
        redis(&mut report, group, &settings).await;
        fence(&mut report, group);
        if let Some(paired) = &group.paired {
            bonds(&mut report, &settings, group, &mut systemd).await;
            nodes(&mut report, &settings, group, paired).await;
        }
    }
    let mut said = report.said(json)?;
    if let Some(directory) = &arguments.save {
        let health = health::asked_or_measured(&settings).await?;
        let path = health::save(directory, &health, &report.0)?;
        if !json {
            said.text += &format!("Written to {}.\n", path.display());
        }
    }
    Ok(said)
}

/// Returns whether the daemon runs.
async fn node(report: &mut Report, settings: &Settings) -> bool {
    match files::state_directory_usable(&settings.state_dir) {
        Ok(()) => report.ok("node", format!("{} can be written", settings.state_dir.display())),
        Err(problem) => report.fault("node", problem, "the daemon's user must be able to write it"),
    }
    if settings.channels.is_empty() {
        report.warning(
            "alerts",
            "go to the journal only",
            "add a channel: [alert.NAME] with a kind and where to",
        );
    }
    for channel in &settings.channels {
        match alert::rehearse(channel) {
            Ok(()) => {
                let kind = channel.kind.name();
                let text = format!("channel {} ({kind}) is ready to send", channel.name);
                report.ok("alerts", text);
            }
            Err(error) => report.fault("alerts", chain(&error), "correct [alert.NAME]"),
        }
    }
    if let Some(dead_man) = &settings.dead_man {
        match alert::rehearse_dead_man(dead_man) {
            Ok(()) => report.ok("alerts", "the dead-man's ping is ready to be sent"),
            Err(error) => report.fault("alerts", chain(&error), "correct [alerts.dead_man]"),
        }
    }
    daemon(report, settings).await
}

/// Returns whether it runs.
async fn daemon(report: &mut Report, settings: &Settings) -> bool {
    let answer = ask(&settings.runtime_dir, &Request::Status).await;
    let running = answer.is_ok();
    match answer {
        Ok(Response::Status(status)) => {
            match status.configuration_refused {
                None => report.ok("daemon", format!("runs with process id {}", status.pid)),
                Some(why) => report.warning(
                    "daemon",
                    format!("runs with an older configuration: {why}"),
                    "mend the configuration, then systemctl reload understudy",
                ),
            }
            for group in status.groups {
                for problem in group.not_ready_because.unwrap_or_default() {
                    let text =
                        format!("says that it could not take {} over: {problem}", group.name);
                    report.fault("daemon", text, "");
                }
            }
        }
        Ok(_) => report.fault("daemon", "answers nonsense", "systemctl restart understudy"),
        Err(error @ ControlError::NotRunning { .. }) => {
            report.warning("daemon", error.to_string(), "nobody watches until it runs");
        }
        Err(error) => report.warning("daemon", chain(&error), "ask as root"),
    }
    running
}

/// Whether polkit will let the daemon's user manage the units. Root, who needs no permission, looks
/// at the rule; another user has systemd ask polkit, in [`units`].
fn permission(report: &mut Report, settings: &Settings, running: bool) {
    let packaged = nix::unistd::User::from_name(polkit::USER).is_ok_and(|user| user.is_some());
    if !nix::unistd::geteuid().is_root() || !packaged {
        return;
    }
    let wanted = polkit::rule(polkit::USER, &permit::configured(settings));
    let written = std::fs::read_to_string(polkit::RULE_PATH).ok();
    if written.as_deref() == Some(&*wanted) {
        let text = format!("{} lets understudy manage its units", polkit::RULE_PATH);
        report.ok("polkit", text);
    } else if running {
        let text = format!("{} is not what the configuration asks for", polkit::RULE_PATH);
        report.fault("polkit", text, "systemctl reload understudy");
    } else {
        let text = format!("{} is written when understudy starts", polkit::RULE_PATH);
        report.ok("polkit", text);
    }
}

/// Who could read along. Whether an address can be listened on is known to who listens there.
fn http(report: &mut Report, settings: &Settings) {
    let http = &settings.http;
    if let Some(identity) = &http.tls
        && let Err(fault) = web::rehearse(identity)
    {
        report.warning("http", chain(&fault), "correct certificate_file or key_file of [http]");
    }
    let beyond: Vec<_> = http.listen.iter().filter(|listen| !listen.is_local()).collect();
    for listen in beyond {
        let text = match (&http.token, &http.tls) {
            (None, _) => format!("{listen}: everybody who can connect may look"),
            (Some(_), None) => format!("{listen}: the token crosses the network in the clear"),
            (Some(_), Some(_)) => continue,
        };
        report.warning(
            "http",
            text,
            "see [http] in docs/configuration.md: token, certificate_file",
        );
    }
    if http.listen.is_empty() {
        report.ok("http", "no status page and no metrics, as configured");
    } else {
        let listen: Vec<_> = http.listen.iter().map(ToString::to_string).collect();
        report.ok("http", format!("status page and metrics at {}", listen.join(", ")));
    }
}

async fn store(report: &mut Report, settings: &Settings) {
    let inspected = async {
        let patience = Duration::from_secs(5);
        Store::new(&settings.store, &settings.node, patience, &settings.groups)?
            .inspect(&settings.groups)
            .await
    };
    let inspection = match timeout(PATIENCE, inspected).await {
        Ok(Ok(inspection)) => inspection,
        Ok(Err(error)) => {
            let remedy = if error.is_misconfiguration() {
                "correct [store] in the configuration, or what it names in the database"
            } else {
                "see that the database runs and is reachable from here"
            };
            return report.fault("store", chain(&error), remedy);
        }
        Err(_) => {
            let text = format!("did not answer within {} s", PATIENCE.as_secs());
            return report.fault("store", text, "see that the database is not overloaded");
        }
    };
    server(report, &inspection);
    let set_up = inspection.schema_version == Some(inspection.schema_version_needed);
    match inspection.schema_version {
        Some(_) if set_up => report.ok("store", "understudy's schema is up to date"),
        Some(version) => report.fault(
            "store",
            format!(
                "understudy's schema has version {version}, this program needs {}",
                inspection.schema_version_needed
            ),
            "run `understudy setup` of the newer version",
        ),
        None => {
            report.fault("store", "understudy's schema is not set up", "run `understudy setup`");
        }
    }
    for right in inspection.missing_rights.iter().filter(|_| set_up) {
        let remedy = format!("GRANT {right} TO {}", inspection.facts.role);
        report.fault("store", format!("role {} may not {right}", inspection.facts.role), remedy);
    }
    for (group, inspected) in settings.groups.iter().zip(&inspection.groups) {
        if set_up && !inspected.known {
            let remedy = "run `understudy setup` again after adding a group";
            report.fault(&group.name, "the store has no lease for it", remedy);
        }
        heartbeats(report, group, inspected);
    }
}

fn server(report: &mut Report, inspection: &Inspection) {
    let facts = &inspection.facts;
    let (major, minor) = (facts.version / 10_000, facts.version % 10_000);
    let text = format!("PostgreSQL {major}.{minor} at {}, as {}", inspection.server, facts.role);
    if facts.version < POSTGRES_MIN {
        report.fault("store", text, "understudy needs PostgreSQL 13 or later");
    } else {
        report.ok("store", text);
    }
    if facts.recovering || facts.read_only {
        report.fault("store", "accepts no writes", "list the hosts of the writable server too");
    }
    if facts.superuser {
        report.warning(
            "store",
            format!("role {} is a superuser", facts.role),
            "give understudy a role of its own; `understudy setup` grants it what it needs",
        );
    }
    if !facts.fsync || facts.synchronous_commit == "off" {
        report.warning(
            "store",
            "a crash of the server may take back a lease that was granted (fsync or \
             synchronous_commit is off)",
            "set both to on",
        );
    }
}

fn heartbeats(report: &mut Report, group: &Group, inspected: &GroupInspection) {
    let about = format!("{} heartbeats", group.name);
    let found = &inspected.heartbeats;
    let table = format!("{}.{}", group.heartbeats.table.schema, group.heartbeats.table.name);
    if found.relation_kind.is_none() {
        return report.fault(&about, format!("there is no table {table}"), "correct `table`");
    }
    columns(report, group, found, &about, &table);
    for (bot, rows) in &inspected.rows {
        match rows {
            1 => report.ok(&about, format!("{bot} has a row")),
            0 => {
                let others = match inspected.other_names.as_slice() {
                    [] => String::new(),
                    names => format!(" (names in the table: {})", names.join(", ")),
                };
                let remedy = "correct the name, or start the bot once so that it makes its row";
                report.fault(&about, format!("{bot} has no row in {table}{others}"), remedy);
            }
            rows => report.fault(
                &about,
                format!("{bot} has {rows} rows in {table}"),
                "one bot, one row: remove the others and add a unique constraint",
            ),
        }
    }
    if found.row_security {
        let remedy = "see that a policy lets understudy's role see and update the rows";
        report.warning(&about, format!("{table} has row security"), remedy);
    }
}

fn columns(report: &mut Report, group: &Group, found: &Heartbeats, about: &str, table: &str) {
    let names = &group.heartbeats;
    let columns = [
        (&names.name_column, &found.name_column, false),
        (&names.beat_column, &found.beat_column, false),
        (&names.status_column, &found.status_column, true),
    ];
    for (name, column, writes) in columns {
        if column.data_type.is_none() {
            let text = format!("{table} has no column {name}");
            report.fault(about, text, "correct the names under [heartbeats]");
        } else if !column.readable() {
            let text = format!("column {name} of {table} may not be read");
            report.fault(about, text, "run `understudy setup` as the owner of the table");
        } else if writes && column.update != Some(true) {
            let text = format!("column {name} of {table} may not be updated");
            report.fault(about, text, "run `understudy setup` as the owner of the table");
        }
    }
    if found.lacks_time_zone() {
        report.ok(
            about,
            "the heartbeat has no time zone; nothing is decided by it, but shown ages may be off",
        );
    }
}

fn takeover(report: &mut Report, group: &Group, timers: &PairedTimers) {
    if group.paired.is_some() {
        let (dead_by, window) = (timers.dead_by(), timers.window());
        return report.ok(
            &group.name,
            format!(
                "paired mode: its units are dead {} after the last renewal of the lease at the latest; \
                 another node takes over after {} of silence (timeout), and never before {}",
                format_duration(dead_by),
                format_duration(group.timeout),
                format_duration(window),
            ),
        );
    }
    let fenced = group.fence.as_ref().is_some_and(|fence| fence.required);
    if fenced {
        report.ok(&group.name, "takes over automatically, after the fence succeeded");
    } else if group.accept_dual_active {
        report.warning(
            &group.name,
            "takes over automatically without a required fence: a primary that is alive but cut off \
             goes on running, and two copies act",
            "configure [group.NAME.fence] with required = true; set min-replicas-to-write 1 on the \
             primary's Redis; give each node a database role of its own",
        );
    } else {
        report.warning(
            &group.name,
            "only alerts and never takes over by itself",
            "configure a required fence, or accept the risk with accept_dual_active = true",
        );
    }
}

async fn units(report: &mut Report, group: &Group, systemd: &mut Systemd) {
    let about = format!("{} units", group.name);
    let states = match timeout(PATIENCE, systemd.inspect(&group.units)).await {
        Ok(Ok(states)) => states,
        Ok(Err(error)) => return report.fault(&about, chain(&error), "is systemd running here?"),
        Err(_) => return report.fault(&about, "systemd does not answer", "look at PID 1"),
    };
    if !nix::unistd::geteuid().is_root() {
        match timeout(PATIENCE, systemd.refused(&states)).await {
            Ok(Ok(refused)) => refused.iter().for_each(|refused| {
                report.fault(&about, refused.to_string(), "");
            }),
            Ok(Err(error)) => report.fault(&about, chain(&error), "is systemd running here?"),
            Err(_) => report.fault(&about, "polkit does not answer", "systemctl status polkit"),
        }
    }
    for state in states {
        let unit = &state.unit;
        if let Some(fault) = state.unstartable() {
            report.fault(&about, format!("{unit}: {fault}"), "");
            continue;
        }
        report.ok(&about, state.to_string());
        let at_boot = matches!(state.enabled, Enabled::Enabled | Enabled::EnabledRuntime);
        // In paired mode its gate refuses that.
        if at_boot && group.paired.is_none() {
            report.warning(
                &about,
                format!("{unit} starts at boot: a standby that reboots would run a second copy"),
                format!("systemctl disable {unit}"),
            );
        }
        if state.needs_reload {
            let text = format!("{unit} was changed on disk, systemd knows the old version");
            report.warning(&about, text, "systemctl daemon-reload");
        }
    }
}

/// Whether the units end with the guard and start with it only.
async fn bonds(report: &mut Report, settings: &Settings, group: &Group, systemd: &mut Systemd) {
    let about = format!("{} guard", group.name);
    let units = timeout(PATIENCE, systemd.stopping(&group.units)).await;
    let kill_after = settings.paired.kill_after();
    match units {
        Ok(Ok(units)) => {
            let unbound: Vec<_> =
                units.iter().flat_map(|it| guard::unbound(it, &group.name, kill_after)).collect();
            if unbound.is_empty() {
                report.ok(&about, "the units start and end with the guard of the lease");
            }
            for why in unbound {
                let remedy = format!("as root: understudy protect {}", group.name);
                report.fault(&about, why, remedy);
            }
        }
        Ok(Err(error)) => report.fault(&about, chain(&error), "is systemd running here?"),
        Err(_) => report.fault(&about, "systemd does not answer", "look at PID 1"),
    }
    if let Some(broken) = guard::glass::broken(&settings.runtime_dir, &group.name) {
        let text = format!("{} broke the glass: {}", broken.by, broken.reason);
        let remedy = format!("understudy gate {} --mend", group.name);
        report.warning(&about, text + "; units start without a lease", remedy);
    }
    match guard::state(&settings.runtime_dir, &group.name).await {
        Ok(guard) => {
            let epoch = guard.epoch.map_or("none".to_owned(), |epoch| epoch.to_string());
            report.ok(&about, format!("it is {} here, epoch {epoch}", guard.state.name()));
        }
        Err(guard::GuardError::NotRunning { .. }) => {
            report.ok(&about, "none runs here: this node does not have the group");
        }
        Err(error) => {
            let remedy = format!("systemctl status {}", guard::names::guard_unit(&group.name));
            report.fault(&about, chain(&error), remedy);
        }
    }
}

/// Whether the other nodes are there, and could run the group.
async fn nodes(report: &mut Report, settings: &Settings, group: &Group, paired: &Paired) {
    let about = format!("{} nodes", group.name);
    let read = async {
        let mut store = super::store(settings)?;
        store.observe().await
    };
    // What is wrong with the store is said where the store is looked at.
    let Ok(Ok(reading)) = timeout(PATIENCE, read).await else { return };
    let place = settings.groups.iter().position(|other| other.name == group.name);
    let Some(Ok(now)) = place.and_then(|place| reading.groups.into_iter().nth(place)) else {
        return;
    };
    for node in paired.nodes.iter().filter(|node| **node != settings.node) {
        let age = |member: &Member| Duration::from_millis(member.age_ms.unsigned_abs());
        match now.members.iter().find(|member| member.node == *node) {
            None => report.warning(
                &about,
                format!("{node} was never heard of"),
                "install understudy there, with this configuration",
            ),
            Some(member) if age(member) > super::REPORT_AGE_MAX => report.warning(
                &about,
                format!("{node} was last heard of {} ago", seconds(age(member))),
                format!("on {node}: systemctl status understudy"),
            ),
            Some(_) if now.lease.holder.as_ref() == Some(node) => {
                report.ok(&about, format!("{node} has the group"));
            }
            Some(member) if member.ready => report.ok(&about, format!("{node} is ready")),
            Some(member) => report.warning(
                &about,
                format!("{node} could not run the group: {}", member.problems.join("; ")),
                format!("on {node}: understudy check"),
            ),
        }
    }
}

async fn redis(report: &mut Report, group: &Group, node: &Settings) {
    let Some(settings) = &group.redis else { return };
    let about = format!("{} redis", group.name);
    let inspected = async {
        let mut redis = Redis::new(settings)?;
        let inspection = redis.inspect(&group.name).await?;
        Ok::<_, RedisError>((inspection, redis))
    };
    let (inspection, mut redis) = match timeout(PATIENCE, inspected).await {
        Ok(Ok(inspected)) => inspected,
        Ok(Err(error)) => return report.fault(&about, chain(&error), error.remedy()),
        Err(_) => return report.fault(&about, "does not answer", "is it overloaded?"),
    };
    match gate(&inspection.sample, redis.last_lag(), settings) {
        Ok(()) => report.ok(&about, inspection.sample.to_string()),
        // In paired mode that is what it is on the node that has the group.
        Err(_) if group.paired.is_some() && inspection.sample.role == Role::Master => {
            report.ok(&about, inspection.sample.to_string());
        }
        Err(fault) => report.fault(&about, fault.to_string(), fault.remedy()),
    }
    permissions(report, &about, &inspection.user, &inspection.permissions);
    for risk in &inspection.risks {
        report.warning(&about, risk.to_string(), risk.remedy());
    }
    if group.paired.is_some() {
        let others = settings.nodes.iter().filter(|(name, _)| **name != node.node);
        let others: Vec<_> = others.map(|(_, host)| host.clone()).collect();
        let copies = files::copies_path(&node.state_dir);
        match timeout(PATIENCE, redis.attachable(&others, &copies)).await {
            Ok(Ok(attachable)) => rejoin(report, &about, &attachable),
            Ok(Err(error)) => report.fault(&about, chain(&error), error.remedy()),
            Err(_) => report.fault(&about, "does not answer", "is it overloaded?"),
        }
    } else if settings.primary.is_none() {
        report.warning(
            &about,
            "its lag is not known, as `primary` is not configured",
            "set primary = \"HOST:PORT\" so that the lag is sampled while the primary lives",
        );
    }
}

fn permissions(report: &mut Report, about: &str, user: &str, permissions: &[Permission]) {
    for permission in permissions {
        let command = &permission.command;
        match &permission.permitted {
            Permitted::Yes => {}
            Permitted::No { text } => report.fault(
                about,
                format!("{user} may not use {command}: {text}"),
                "give the ACL user that command",
            ),
            Permitted::Unknown => report.warning(
                about,
                format!("cannot tell whether {user} may use {command}"),
                "give the ACL user +acl|dryrun",
            ),
        }
    }
}

/// Whether it could follow the Redis of another node, should that become the primary.
fn rejoin(report: &mut Report, about: &str, attachable: &Attachable) {
    permissions(report, about, &attachable.user, &attachable.permissions);
    if let Some(version) = &attachable.too_old {
        let text =
            format!("redis {version} cannot pause writes, so it can never follow another node");
        report.fault(about, text, "upgrade redis to 6.2 or later");
    }
    match &attachable.copy {
        Ok(()) => report.ok(about, "its data could be saved before it follows another node"),
        Err(fault) => report.fault(about, chain(fault), fault.remedy()),
    }
    for (address, link) in &attachable.links {
        match link {
            LinkState::Open => {
                report.ok(about, format!("would be let in as a replica by {address}"))
            }
            LinkState::Closed(fault) => report.fault(about, chain(fault), fault.remedy()),
            LinkState::Hidden => report.warning(
                about,
                format!("cannot tell whether it would be let in as a replica by {address}"),
                "give the ACL user +config|get",
            ),
            LinkState::Unknown(error) => report.warning(
                about,
                format!("cannot tell whether it could follow {address}: {}", chain(error)),
                error.remedy(),
            ),
        }
    }
}

fn fence(report: &mut Report, group: &Group) {
    let Some(fence) = &group.fence else { return };
    let about = format!("{} fence", group.name);
    let Some(program) = fence.command.first() else { return };
    match hook::executable(program) {
        Ok(()) => report.ok(&about, format!("{program} can be run")),
        Err(problem) => report.fault(&about, problem, "correct `command`, or make it executable"),
    }
}
