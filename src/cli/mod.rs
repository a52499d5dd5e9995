//! The command line: one file for each command that is more than a few lines.
//!
//! A command returns what it has to say, or an error; printing and exit codes are here and in
//! `main`. To add one: a variant of `Command` with its help, a file, and its line in
//! `docs/operations.md`.

mod alert;
mod baseline;
mod beat;
mod check;
mod explain;
mod failover;
mod gate;
mod health;
mod history;
mod lease;
mod orders;
mod permit;
mod protect;
mod replay;
mod run;
mod setup;
mod status;
mod switchover;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::adapters::postgres::archive::ArchiveError;
use crate::adapters::postgres::{Store, StoreError};
use crate::config::fault::Faults;
use crate::config::settings::{Group, Settings};
use crate::control::ControlError;

/// Active-standby failover supervisor for stateful singletons.
///
/// Runs on the standby, watches the primary's heartbeats in Postgres, and takes over when they fall
/// silent: promotes Redis, marks the bots as primary, starts their systemd units, and alerts.
#[derive(Debug, Parser)]
#[command(
    name = "understudy",
    version,
    after_help = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 69 the database or the \
                  daemon cannot be reached; 78 faults in the configuration. `check` and \
                  `health` exit with 0 (ok), 1 (warnings) or 2 (faults), as monitoring plugins do."
)]
pub struct Options {
    /// Configuration file; `FILE.d/*.toml` beside it are read too.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/understudy/understudy.toml",
        env = "UNDERSTUDY_CONFIG"
    )]
    config: PathBuf,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon. systemd does this; see `systemctl status understudy`.
    Run,
    /// Make or upgrade understudy's schema in the database, and its rows for the configured groups.
    ///
    /// Safe to repeat. Existing leases and holds are never reset.
    Setup(setup::Arguments),
    /// Find out whether a failover would work: configuration, database, heartbeats, Redis, units.
    ///
    /// Changes nothing. Each line is ok, warning or FAULT, with what to do about it.
    Check(check::Arguments),
    /// Show what the checks of [check.NAME] say: score, groups, and what is not green.
    ///
    /// Checks are measured by the daemon, which tells people when a level changes. They never cause
    /// or delay a failover.
    Health(health::Arguments),
    /// Show who has each group, the heartbeats and what would happen next.
    Status,
    /// Say why a group would be taken over now, or why not: the daemon's own decision, in words.
    Explain(explain::Arguments),
    /// Make the recorded decisions of this node once more, and see that they come out the same.
    ///
    /// The daemon records what it saw and decided in its state directory. Changes nothing, and needs
    /// neither the daemon nor the database. Exits with 1 if a decision comes out differently.
    Replay(replay::Arguments),
    /// Save what checks are like when all is well, and compare with it later.
    #[command(subcommand)]
    Baseline(baseline::Command),
    /// Take a group over now, because its primary is known to be dead.
    ///
    /// Refuses while the heartbeats move, unless forced. For a primary that is alive, stop its bots
    /// first: nothing here can stop them on the other node.
    Failover(failover::Arguments),
    /// Move a group to another node on purpose, with nothing lost. Paired mode only.
    ///
    /// The other node gets ready, the units are stopped and seen to be dead, Redis there gets every
    /// byte, and only then the lease is given away. Whatever goes wrong before that leaves the group
    /// where it is, at work. Runs on any node.
    Switchover(switchover::Arguments),
    /// Write the heartbeat of an application that has none of its own.
    ///
    /// Once, or as a loop with --every, beside the application. With --check a command says whether
    /// it makes progress; while it does not, no heartbeat is written, so that an application that
    /// hangs falls silent.
    Beat(beat::Arguments),
    /// Say that the primary's node has a group again, after its bots were stopped here.
    ///
    /// In paired mode: move the group to its preferred node, as `switchover` does.
    Failback(orders::FailbackArguments),
    /// Say that no understudy may take a group over, for a while or until released.
    Hold(orders::HoldArguments),
    /// End a hold.
    Release(GroupArgument),
    /// Say that you have looked: at the alerts of a group, or at one, and at the last failovers.
    ///
    /// Nobody else is called about these alerts, and the latch that many failovers set is cleared.
    Ack(orders::AckArguments),
    /// Try whether alerts arrive.
    #[command(subcommand)]
    Alert(alert::Command),
    /// Let the daemon's user manage the configured units, by a rule for polkit.
    ///
    /// Run as root. `understudy.service` does this at each start and reload, so that the rule follows
    /// the configuration. It lets the user start, stop and kill those units and no others.
    Permit(permit::Arguments),
    /// Bind the units of a group in paired mode to its guard, by drop-ins for systemd.
    ///
    /// Run as root, on each node, while the units do not run. Without the lease no unit of the group
    /// starts then, whoever asks, and with the lease all of them end. All or nothing: if it cannot be
    /// done for one of them, nothing is changed.
    Protect(protect::Arguments),
    /// Say whether units of a group may start on this node, and exit with 0 if so. Units ask this.
    ///
    /// Asks the guard and nobody else, and answers within a second. Whatever it cannot find out is a
    /// no. Reads no configuration, unless --store is said.
    Gate(gate::Arguments),
    /// Renew the lease of a group, and stop its units when that fails. systemd runs this.
    ///
    /// See `systemctl status understudy-lease@GROUP`. Ends with 0 when the lease was given back, with 3
    /// when the units were stopped.
    Lease(lease::Arguments),
    /// Show what happened: failovers with their timeline, holds, orders.
    History(history::Arguments),
}

/// A group, for commands about one.
#[derive(Debug, Args)]
struct GroupArgument {
    /// Name of the group; may be left out if there is only one.
    group: Option<String>,
}

/// What a command has to say, and the exit code with it.
pub struct Said {
    /// For standard output.
    pub text: String,
    /// 0 unless there is a reason.
    pub code: u8,
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// A command could not do what it was asked for, in words that need no cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Runs a command.
///
/// # Errors
/// If it cannot do what it was asked for; [`exit_code`] knows the code for it.
pub async fn run(options: Options) -> anyhow::Result<Said> {
    let Options { config, json, command } = options;
    if let Command::Gate(arguments) = &command
        && !arguments.store
    {
        // Whether a unit starts must not depend on a file that is being edited.
        return gate::gate(arguments, json).await;
    }
    let settings = match command {
        // While a reload runs, systemd does not let anybody see the credentials; and those who may
        // only look have no right to them.
        Command::Permit(_)
        | Command::Status
        | Command::Explain(_)
        | Command::Replay(_)
        | Command::Protect(_) => Settings::load_without_secrets(&config),
        // systemd has no credentials for a condition, and a look at a file needs none.
        Command::Lease(ref arguments) if arguments.check => Settings::load_without_secrets(&config),
        _ => Settings::load(&config),
    };
    match command {
        Command::Check(arguments) => check::check(settings, &config, &arguments, json).await,
        Command::Baseline(command) => baseline::baseline(&settings?, command, json).await,
        Command::Health(arguments) => health::health(&settings?, &arguments, json).await,
        Command::Permit(arguments) => permit::permit(settings, &arguments, json).await,
        Command::Run => run::run(settings?, config).await,
        Command::Setup(arguments) => setup::setup(&settings?, &arguments, json).await,
        Command::Status => status::status(settings, json).await,
        Command::Explain(arguments) => explain::explain(&settings?, &arguments, json).await,
        Command::Replay(arguments) => replay::replay(&settings?, &arguments, json),
        Command::Failover(arguments) => failover::failover(&settings?, arguments, json).await,
        Command::Switchover(arguments) => switchover::switchover(&settings?, arguments, json).await,
        Command::Beat(arguments) => beat::beat(&settings?, arguments, json).await,
        Command::Failback(arguments) => orders::failback(&settings?, &arguments, json).await,
        Command::Hold(arguments) => orders::hold(&settings?, &arguments, json).await,
        Command::Release(argument) => orders::release(&settings?, &argument, json).await,
        Command::Ack(arguments) => orders::acknowledge(&settings?, &arguments, json).await,
        Command::Alert(command) => alert::alert(&settings?, command, json).await,
        Command::History(arguments) => history::history(&settings?, &arguments, json).await,
        Command::Protect(arguments) => protect::protect(&settings?, &arguments, json).await,
        Command::Lease(arguments) => lease::lease(&settings?, &arguments).await,
        Command::Gate(arguments) => {
            gate::gate_by_store(settings.map_err(Into::into), &arguments, json).await
        }
    }
}

/// The exit code for an error, as the help says.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Faults>() || error.is::<permit::Unconfigured>() {
        78
    } else if error.is::<StoreError>() || error.is::<ControlError>() || error.is::<ArchiveError>() {
        69
    } else {
        1
    }
}

/// Prints to standard output. A reader who has seen enough, such as `head`, is no error.
///
/// # Errors
/// If it cannot be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// The group that a command is about.
fn group<'a>(settings: &'a Settings, name: Option<&str>) -> Result<&'a Group, Refused> {
    let names =
        || settings.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, settings.groups.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Refused(format!("which group? There are: {}", names()))),
        (Some(name), groups) => groups
            .iter()
            .find(|group| group.name == name)
            .ok_or_else(|| Refused(format!("there is no group {name}; there are: {}", names()))),
    }
}

/// How old a node's report may be, by the store's clock, before a command calls it silent. The nodes
/// themselves go by whether it changes.
const REPORT_AGE_MAX: Duration = Duration::from_secs(15);

/// A connection to the store for one command. A person can wait longer than the daemon's loop.
fn store(settings: &Settings) -> Result<Store, StoreError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    Store::new(&settings.store, &settings.node, PATIENCE, &settings.groups)
}

/// Who gives an order: the person behind `sudo`, if there is one, at this host.
fn person(settings: &Settings) -> String {
    person_at(&settings.node)
}

fn person_at(node: &str) -> String {
    let user = std::env::var("SUDO_USER").ok().filter(|user| !user.is_empty()).or_else(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        user.map(|user| user.name)
    });
    format!("{}@{}", user.unwrap_or_else(|| nix::unistd::getuid().to_string()), node)
}

/// The daemon and this program are of different versions, most likely.
fn nonsense() -> Refused {
    let text = "the daemon answered something else than was asked; is it of another version? \
                `systemctl restart understudy`";
    Refused(text.to_owned())
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
