//! NOT systemd: a stand-in for machines where not even a container can boot one, for the demo only.
//!
//! It serves the few calls that understudy makes as `org.freedesktop.systemd1`, on a bus of its own,
//! and runs units as plain processes: no control groups, no dependencies, no restarts, no security.
//!
//! ```toml
//! [units."bot.service"]
//! exec_start = ["/path/to/bot", "equity", "host=127.0.0.1 dbname=bots"]
//! environment_file = "/run/understudy/bots.env" # optional, as in systemd without quotes
//! ```

#![expect(clippy::print_stderr, reason = "it has nothing else to say it to")]

use std::collections::{BTreeMap, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Parser;
use futures_util::StreamExt;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    units: BTreeMap<String, Unit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unit {
    exec_start: Vec<String>,
    environment_file: Option<PathBuf>,
    #[serde(skip)]
    pid: u32,
    #[serde(skip)]
    ended: Option<ExitStatus>,
    /// Counts its runs.
    #[serde(skip)]
    run: u128,
    /// The job that waits for its end.
    #[serde(skip)]
    stopping: Option<u32>,
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
    let File { units } = toml::from_str(&text)?;
    let address = format!("unix:path={}", socket.display());
    let _daemon = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--address", &address])
        .kill_on_drop(true)
        .spawn()
        .context("dbus-daemon")?;
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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
        let (header, body) = (call.header(), call.body());
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
        let Some(name) = first_string(call).filter(|name| self.units.contains_key(name)) else {
            return Ok(self.bus.reply_error(&header, NO_SUCH_UNIT, &"no such unit").await?);
        };
        let unit = self.units.get_mut(&name).ok_or_else(|| anyhow!("checked above"))?;
        match &*member {
            "StartUnit" => {
                if unit.pid == 0 {
                    unit.start(&name, self.ends.clone());
                }
                let job = self.accept(call).await?;
                self.end_job(job, &name, "done").await?;
            }
            "StopUnit" => {
                unit.kill(Signal::SIGTERM);
                let running = unit.pid != 0;
                let job = self.accept(call).await?;
                if running {
                    self.units.entry(name).and_modify(|unit| unit.stopping = Some(job));
                } else {
                    self.end_job(job, &name, "done").await?;
                }
            }
            "KillUnit" => {
                let (_, _, signal): (String, String, i32) = body.deserialize()?;
                unit.kill(Signal::try_from(signal)?);
                self.bus.reply(&header, &()).await?;
            }
            "ResetFailedUnit" => {
                unit.ended = None;
                self.bus.reply(&header, &()).await?;
            }
            "RefUnit" => self.bus.reply(&header, &()).await?,
            "GetUnitProcesses" => {
                let main = (unit.pid != 0).then(|| ("/", unit.pid, &*unit.exec_start[0]));
                self.bus.reply(&header, &main.into_iter().collect::<Vec<_>>()).await?;
            }
            _ => {
                let error = "org.freedesktop.DBus.Error.UnknownMethod";
                self.bus.reply_error(&header, error, &"not systemd").await?;
            }
        }
        Ok(())
    }

    async fn note_end(&mut self, name: &str, status: ExitStatus) -> anyhow::Result<()> {
        eprintln!("process-runner: {name} ended: {status}");
        let Some(unit) = self.units.get_mut(name) else { return Ok(()) };
        let asked_for = unit.stopping.is_some() && status.signal() == Some(Signal::SIGTERM as i32);
        unit.pid = 0;
        unit.ended = Some(if asked_for { ExitStatus::default() } else { status });
        match unit.stopping.take() {
            Some(job) => self.end_job(job, name, "done").await,
            None => Ok(()),
        }
    }

    async fn accept(&mut self, call: &Message) -> anyhow::Result<u32> {
        self.last_job += 1;
        self.bus.reply(&call.header(), &job_path(self.last_job)?).await?;
        Ok(self.last_job)
    }

    async fn end_job(&self, job: u32, unit: &str, result: &str) -> anyhow::Result<()> {
        let interface = "org.freedesktop.systemd1.Manager";
        let body = (job, job_path(job)?, unit, result);
        let nobody = None::<&str>;
        Ok(self.bus.emit_signal(nobody, MANAGER, interface, "JobRemoved", &body).await?)
    }

    /// Those of both interfaces; whoever asks picks his own.
    fn properties(&self, name: &str) -> HashMap<&str, Variant<'_>> {
        let unit = self.units.get(name);
        let none: Vec<String> = Vec::new();
        let running = unit.is_some_and(|unit| unit.pid != 0);
        let ended = unit.and_then(|unit| unit.ended).unwrap_or_default();
        let (active, sub) = match (running, ended.success()) {
            (true, _) => ("active", "running"),
            (false, true) => ("inactive", "dead"),
            (false, false) => ("failed", "failed"),
        };
        let (code, status) = match (ended.code(), ended.signal()) {
            (Some(status), _) => (1, status),
            (None, signal) => (2, signal.unwrap_or_default()),
        };
        let job = unit.and_then(|unit| unit.stopping).unwrap_or_default();
        let run = unit.map(|unit| unit.run).unwrap_or_default();
        HashMap::from([
            ("LoadState", if unit.is_some() { "loaded" } else { "not-found" }.into()),
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
            ("Job", (job, job_path(job).unwrap_or_default()).into()),
            ("MainPID", unit.map(|unit| unit.pid).unwrap_or_default().into()),
            ("Result", if ended.success() { "success" } else { "exit-code" }.into()),
            ("ExecMainCode", if running { 0 } else { code }.into()),
            ("ExecMainStatus", status.into()),
        ])
    }
}

impl Unit {
    fn start(&mut self, name: &str, ends: UnboundedSender<(String, ExitStatus)>) {
        let variables = self.environment_file.as_ref().and_then(|file| {
            let text = std::fs::read_to_string(file).ok()?;
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>())
        });
        let child = Command::new(&self.exec_start[0])
            .args(&self.exec_start[1..])
            .envs(variables.unwrap_or_default())
            .process_group(0)
            .spawn();
        self.run += 1;
        match child {
            Ok(mut child) => {
                self.pid = child.id().unwrap_or_default();
                let name = name.to_owned();
                tokio::spawn(async move {
                    let _ = ends.send((name, child.wait().await.unwrap_or_default()));
                });
            }
            Err(error) => {
                eprintln!("process-runner: {name} cannot be run: {error}");
                self.ended = Some(ExitStatus::from_raw(203 << 8));
            }
        }
    }

    fn kill(&self, signal: Signal) {
        if self.pid != 0 {
            let _ = killpg(Pid::from_raw(self.pid as i32), signal);
        }
    }
}

fn first_string(call: &Message) -> Option<String> {
    let body = call.body();
    body.deserialize::<(String,)>()
        .map(|(name,)| name)
        .or_else(|_| body.deserialize::<(String, String)>().map(|(name, _)| name))
        .or_else(|_| body.deserialize::<(String, String, i32)>().map(|(name, _, _)| name))
        .ok()
}

fn job_path(job: u32) -> zbus::Result<ObjectPath<'static>> {
    ObjectPath::try_from(format!("{MANAGER}/job/{job}"))
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
