//! NOT systemd: a stand-in for machines where not even a container can boot one, for the demo only.
//!
//! It serves the few calls that understudy makes as `org.freedesktop.systemd1`, on a bus of its
//! own, and runs units as plain processes: no control groups, no dependencies, no restarts, no
//! security.
//!
//! ```toml
//! "bot.service" = ["/bin/sh", "-c", "set -a; . /run/understudy/bots.env; exec bot equity …"]
//! ```

#![expect(clippy::print_stderr, reason = "it has nothing else to say it to")]

use std::collections::{BTreeMap, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use clap::Parser;
use futures_util::StreamExt;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream, ObjectPath, Variant};

const MANAGER: &str = "/org/freedesktop/systemd1";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Runs units as plain processes. This is NOT systemd.
#[derive(Parser)]
struct Arguments {
    /// Where its bus listens; understudy finds it with DBUS_SYSTEM_BUS_ADDRESS=unix:path=SOCKET.
    socket: PathBuf,
    /// What it runs.
    units: PathBuf,
}

#[derive(Default)]
struct Unit {
    exec_start: Vec<String>,
    /// Its process, or 0.
    pid: u32,
    ended: ExitStatus,
    /// Counts its runs.
    run: u128,
    /// The job that waits for its end, or 0.
    stopping: u32,
}

struct Runner {
    bus: Connection,
    units: BTreeMap<String, Unit>,
    last_job: u32,
    ends: UnboundedSender<(String, ExitStatus)>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { socket, units } = Arguments::parse();
    let text = std::fs::read_to_string(&units).with_context(|| units.display().to_string())?;
    let units: BTreeMap<String, Vec<String>> = toml::from_str(&text)?;
    let unit = |exec_start| Unit { exec_start, ..Unit::default() };
    let units = units.into_iter().map(|(name, exec_start)| (name, unit(exec_start))).collect();
    let address = format!("unix:path={}", socket.display());
    let mut daemon = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--print-address", "--address", &address])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("dbus-daemon")?;
    // It says its address once it listens there.
    let said = daemon.stdout.take().context("dbus-daemon has an output")?;
    BufReader::new(said).lines().next_line().await?.context("dbus-daemon does not run")?;
    let bus = zbus::connection::Builder::address(&*address).build().await?;
    let mut calls = MessageStream::from(&bus);
    bus.request_name("org.freedesktop.systemd1").await?;
    eprintln!("process-runner: this is NOT systemd, only a stand-in for the demo; at {address}");

    let (ends, mut ended) = unbounded_channel();
    let mut runner = Runner { bus, units, last_job: 0, ends };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            Some(call) = calls.next() => runner.answer(&call?).await?,
            Some((unit, status)) = ended.recv() => runner.note_end(&unit, status).await?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    runner.units.values().for_each(|unit| unit.kill(Signal::SIGKILL));
    Ok(())
}

impl Runner {
    async fn answer(&mut self, call: &Message) -> anyhow::Result<()> {
        let header = call.header();
        if call.message_type() != Type::MethodCall {
            return Ok(());
        }
        let path = header.path().map(ToString::to_string).unwrap_or_default();
        let member = header.member().map(ToString::to_string).unwrap_or_default();
        if let ("Subscribe", _) | ("GetAll", true) = (&*member, path.contains("/job/")) {
            return Ok(self.bus.reply(&header, &()).await?);
        }
        if member == "GetAll" {
            let unit = unescape(path.rsplit('/').next().unwrap_or_default());
            return Ok(self.bus.reply(&header, &self.properties(&unit)).await?);
        }
        let name = first_argument(call).unwrap_or_default();
        let Some(unit) = self.units.get_mut(&name) else {
            return Ok(self.bus.reply_error(&header, NO_SUCH_UNIT, &"no such unit").await?);
        };
        match &*member {
            "StartUnit" | "StopUnit" => {
                self.last_job += 1;
                let job = self.last_job;
                self.bus.reply(&header, &job_path(job)).await?;
                if member == "StartUnit" && unit.pid == 0 {
                    unit.start(&name, self.ends.clone());
                } else if member == "StopUnit" && unit.pid != 0 {
                    unit.stopping = job;
                    unit.kill(Signal::SIGTERM);
                    return Ok(());
                }
                self.end_job(job, &name).await?;
            }
            "GetUnitProcesses" => {
                let main = (unit.pid != 0).then(|| ("/", unit.pid, &*unit.exec_start[0]));
                self.bus.reply(&header, &main.into_iter().collect::<Vec<_>>()).await?;
            }
            "KillUnit" | "ResetFailedUnit" | "RefUnit" => {
                if member == "KillUnit" {
                    unit.kill(Signal::SIGKILL);
                }
                self.bus.reply(&header, &()).await?;
            }
            _ => {
                let error = "org.freedesktop.DBus.Error.UnknownMethod";
                self.bus.reply_error(&header, error, &"this is not systemd").await?;
            }
        }
        Ok(())
    }

    async fn note_end(&mut self, name: &str, status: ExitStatus) -> anyhow::Result<()> {
        eprintln!("process-runner: {name} ended: {status}");
        let Some(unit) = self.units.get_mut(name) else { return Ok(()) };
        let job = std::mem::take(&mut unit.stopping);
        let well = job != 0 && status.signal() == Some(Signal::SIGTERM as i32);
        unit.pid = 0;
        unit.ended = if well { ExitStatus::default() } else { status };
        if job == 0 { Ok(()) } else { self.end_job(job, name).await }
    }

    async fn end_job(&self, job: u32, unit: &str) -> anyhow::Result<()> {
        let interface = "org.freedesktop.systemd1.Manager";
        let body = (job, job_path(job), unit, "done");
        Ok(self.bus.emit_signal(None::<&str>, MANAGER, interface, "JobRemoved", &body).await?)
    }

    /// Those of both interfaces; whoever asks picks his own.
    fn properties(&self, name: &str) -> HashMap<&str, Variant<'_>> {
        let (unknown, none) = (Unit::default(), Vec::<String>::new());
        let known = self.units.get(name);
        let Unit { pid, ended, run, stopping: job, .. } = *known.unwrap_or(&unknown);
        let running = pid != 0;
        let (active, sub) = match (running, ended.success()) {
            (true, _) => ("active", "running"),
            (false, true) => ("inactive", "dead"),
            (false, false) => ("failed", "failed"),
        };
        let (code, status) = match (ended.code(), ended.signal()) {
            (Some(status), _) => (1, status),
            (None, signal) => (2, signal.unwrap_or_default()),
        };
        HashMap::from([
            ("LoadState", if known.is_some() { "loaded" } else { "not-found" }.into()),
            ("LoadError", ("", "").into()),
            ("NeedDaemonReload", false.into()),
            ("UnitFileState", "static".into()),
            ("Requires", none.clone().into()),
            ("Requisite", none.clone().into()),
            ("BindsTo", none.into()),
            ("ActiveState", active.into()),
            ("SubState", sub.into()),
            ("ConditionResult", true.into()),
            ("ConditionTimestamp", 0_u64.into()),
            ("InvocationID", run.to_be_bytes().to_vec().into()),
            ("Job", (job, job_path(job)).into()),
            ("MainPID", pid.into()),
            ("Result", if ended.success() { "success" } else { "exit-code" }.into()),
            ("ExecMainCode", if running { 0 } else { code }.into()),
            ("ExecMainStatus", status.into()),
        ])
    }
}

impl Unit {
    fn start(&mut self, name: &str, ends: UnboundedSender<(String, ExitStatus)>) {
        self.run += 1;
        let child =
            Command::new(&self.exec_start[0]).args(&self.exec_start[1..]).process_group(0).spawn();
        let Ok(mut child) = child else {
            self.ended = ExitStatus::from_raw(203 << 8);
            return;
        };
        self.pid = child.id().unwrap_or_default();
        let name = name.to_owned();
        tokio::spawn(async move {
            let _ = ends.send((name, child.wait().await.unwrap_or_default()));
        });
    }

    fn kill(&self, signal: Signal) {
        if self.pid != 0 {
            let _ = killpg(Pid::from_raw(self.pid as i32), signal);
        }
    }
}

fn first_argument(call: &Message) -> Option<String> {
    let body = call.body();
    let arguments: zbus::Structure<'_> = body.deserialize().ok()?;
    arguments.fields().first()?.try_into().ok()
}

fn job_path(job: u32) -> ObjectPath<'static> {
    ObjectPath::try_from(format!("{MANAGER}/job/{job}")).unwrap_or_default()
}

/// The unit's name from the last part of its object path.
fn unescape(part: &str) -> String {
    let mut pieces = part.split('_');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at(piece.len().min(2));
        name.push(u8::from_str_radix(code, 16).unwrap_or(b'_').into());
        name.push_str(rest);
    }
    name
}
