//! The calls to systemd, one function each. All reads are fresh: a cache of properties goes stale
//! without a word as soon as a signal is missed.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use tokio::sync::Semaphore;
use zbus::connection::Builder;
use zbus::{Connection, DBusError, DeserializeDict, MatchRule, MessageStream, OwnedObjectPath};

use super::fault::SystemdError;
use super::protection::Stopping;
use super::state::{Ending, Exit, Invocation, Job, JobResult, Outcome, UnitState};

/// How long systemd may take to answer, a call to polkit and a `daemon-reload` in progress
/// included. Neither takes a second where things are well.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls that wait for their answer at a time. The bus daemon refuses more than 128 on one connection,
/// and systemd answers one after the other anyway.
const CALLS_MAX: usize = 64;

/// Jobs that can end while we are busy with something else. All answers wait behind a queue that is
/// full; a host that boots has some hundred jobs.
const JOBS_REMOVED_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A connection on which systemd sends us its signals.
#[derive(Clone, Debug)]
pub struct Bus {
    connection: Connection,
    /// [`CALLS_MAX`] less the calls under way.
    calls: Arc<Semaphore>,
}

/// How much is read of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What all kinds of units have.
    Unit,
    /// Also its process and how it ended, if it is a service. It costs three times as much.
    Service,
}

/// The end of a job.
#[derive(Debug)]
pub struct JobRemoved {
    /// Its number.
    pub id: u32,
    /// How it ended.
    pub result: JobResult,
}

/// The ends of jobs, from when this was asked for.
#[derive(Debug)]
pub struct JobsRemoved(MessageStream);

impl JobsRemoved {
    /// The next one; `None` if the connection closed and there will be no more.
    pub async fn next(&mut self) -> Option<JobRemoved> {
        loop {
            let message = self.0.next().await?.ok()?;
            let body = message.body();
            if let Ok((id, _, _, result)) =
                body.deserialize::<(u32, OwnedObjectPath, String, String)>()
            {
                return Some(JobRemoved { id, result: result.into() });
            }
        }
    }
}

impl Bus {
    /// Connects to the bus at an address, or to the system bus.
    pub async fn open(address: Option<&str>) -> Result<Self, SystemdError> {
        let builder = address.map_or_else(Builder::system, Builder::address);
        let connect = builder.method_timeout(CALL_TIMEOUT).build();
        // The builder's timeout begins with the first call, after the handshake.
        let connection = tokio::time::timeout(CALL_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(SystemdError::Connect)?;
        let bus = Self { connection, calls: Arc::new(Semaphore::new(CALLS_MAX)) };
        // Without it, systemd sends no signals unless someone else subscribed.
        bus.manage("Subscribe", &()).await.map_err(SystemdError::Subscribe)?;
        Ok(bus)
    }

    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    pub async fn read_all(
        &self,
        units: &[String],
        depth: Depth,
    ) -> Result<Vec<UnitState>, SystemdError> {
        try_join_all(units.iter().map(async |unit| {
            self.read(unit, depth)
                .await
                .map_err(|source| SystemdError::Read { unit: unit.clone(), source })
        }))
        .await
    }

    pub async fn queue_start(&self, unit: &str) -> zbus::Result<Job> {
        job(&self.manage("StartUnit", &(unit, "replace")).await?)
    }

    pub async fn queue_stop(&self, unit: &str) -> zbus::Result<Job> {
        job(&self.manage("StopUnit", &(unit, "replace")).await?)
    }

    pub async fn reset_failed(&self, unit: &str) -> zbus::Result<()> {
        self.manage("ResetFailedUnit", &(unit,)).await.map(drop)
    }

    /// Keeps the unit loaded, with what its last run left behind, until the connection closes.
    pub async fn hold(&self, unit: &str) -> zbus::Result<()> {
        self.manage("RefUnit", &(unit,)).await.map(drop)
    }

    pub async fn kill(&self, unit: &str) -> zbus::Result<()> {
        self.manage("KillUnit", &(unit, "all", Signal::SIGKILL as i32)).await.map(drop)
    }

    /// The processes in the control groups of the unit, which can outlive it with some KillMode=.
    pub async fn processes(&self, unit: &str) -> Result<Vec<u32>, SystemdError> {
        match self.manage("GetUnitProcesses", &(unit,)).await {
            Ok(answer) => answer.body().deserialize::<Vec<(String, u32, String)>>(),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
        .map(|found| found.into_iter().map(|(_, pid, _)| pid).collect())
        .map_err(|source| SystemdError::Read { unit: unit.to_owned(), source })
    }

    /// Has all unit files read again.
    pub async fn reload(&self) -> zbus::Result<()> {
        self.manage("Reload", &()).await.map(drop)
    }

    /// How a service would stop.
    pub async fn stopping(&self, unit: &str) -> Result<Stopping, SystemdError> {
        let path = unit_path(unit);
        let read = async {
            let general: UnitOrder =
                self.properties(&path, "org.freedesktop.systemd1.Unit").await?;
            let service: StopProperties =
                self.properties(&path, "org.freedesktop.systemd1.Service").await?;
            Ok(stopping(unit, general, service))
        };
        read.await.map_err(|source| SystemdError::Read { unit: unit.to_owned(), source })
    }

    /// The unit in numbers. What does not exist has some too; its load state says so.
    pub async fn figures(&self, unit: &str) -> zbus::Result<(GeneralFigures, ServiceFigures)> {
        let path = unit_path(unit);
        let general = self.properties(&path, "org.freedesktop.systemd1.Unit").await?;
        let service = match unit.ends_with(".service") {
            true => self.properties(&path, "org.freedesktop.systemd1.Service").await?,
            false => ServiceFigures::default(),
        };
        Ok((general, service))
    }

    /// How often the service of a process was restarted by systemd.
    pub async fn restarts(&self, pid: u32) -> Result<u32, SystemdError> {
        let read = async {
            let answer = self.manage("GetUnitByPID", &(pid,)).await?;
            let path: OwnedObjectPath = answer.body().deserialize()?;
            let read: RestartProperties =
                self.properties(path.as_str(), "org.freedesktop.systemd1.Service").await?;
            Ok(read.restarts)
        };
        let unit = format!("of process {pid}");
        read.await.map_err(|source| SystemdError::Read { unit, source })
    }

    /// The same job, with what it is. One that is over meanwhile stays as it was.
    pub async fn describe(&self, job: &Job) -> Job {
        let path = format!("{MANAGER_PATH}/job/{}", job.id);
        let read: zbus::Result<JobProperties> =
            self.properties(&path, "org.freedesktop.systemd1.Job").await;
        Job { id: job.id, detail: read.ok().map(|read| (read.job_type, read.state)) }
    }

    pub async fn jobs_removed(&self) -> Result<JobsRemoved, SystemdError> {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SERVICE)
            .interface(MANAGER)
            .member("JobRemoved")
            .build();
        let listen = async {
            MessageStream::for_match_rule(rule?, &self.connection, Some(JOBS_REMOVED_MAX)).await
        };
        listen.await.map(JobsRemoved).map_err(SystemdError::Listen)
    }

    async fn read(&self, unit: &str, depth: Depth) -> zbus::Result<UnitState> {
        let path = unit_path(unit);
        let general = self.properties(&path, "org.freedesktop.systemd1.Unit");
        let service = async {
            if depth == Depth::Service && unit.ends_with(".service") {
                self.properties(&path, "org.freedesktop.systemd1.Service").await
            } else {
                Ok(ServiceProperties::default())
            }
        };
        let (general, service) = tokio::try_join!(general, service)?;
        Ok(state(unit, general, service))
    }

    async fn properties<P>(&self, path: &str, interface: &str) -> zbus::Result<P>
    where
        P: serde::de::DeserializeOwned + zbus::Type,
    {
        self.call(path, PROPERTIES, "GetAll", &(interface,)).await?.body().deserialize()
    }

    async fn manage<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.call(MANAGER_PATH, MANAGER, method, body).await
    }

    async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        // Nobody closes it; without a place the call is made all the same.
        let _place = self.calls.acquire().await;
        self.connection.call_method(Some(SERVICE), path, Some(interface), method, body).await
    }
}

/// The name of a D-Bus error, if the error is an answer.
pub fn error_name(error: &zbus::Error) -> Option<String> {
    if let zbus::Error::MethodError(name, _, _) = error {
        Some(name.to_string())
    } else if let zbus::Error::FDO(error) = error {
        Some(error.name().to_string())
    } else {
        None
    }
}

/// Whether systemd answered that there is no such unit, or none loaded.
pub fn is_missing(error: &zbus::Error) -> bool {
    error_name(error).as_deref() == Some("org.freedesktop.systemd1.NoSuchUnit")
}

/// Whether the connection went away. Whoever writes can learn of it before [`Bus::is_closed`] does,
/// which waits for the reader.
pub fn is_disconnect(error: &zbus::Error) -> bool {
    if let zbus::Error::InputOutput(error) = error {
        error.kind() != io::ErrorKind::TimedOut
    } else {
        false
    }
}

#[derive(DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct UnitProperties {
    load_state: String,
    load_error: (String, String),
    need_daemon_reload: bool,
    unit_file_state: String,
    requires: Vec<String>,
    requisite: Vec<String>,
    binds_to: Vec<String>,
    active_state: String,
    sub_state: String,
    condition_result: bool,
    condition_timestamp: u64,
    #[zbus(rename = "InvocationID")]
    invocation_id: Vec<u8>,
    job: (u32, OwnedObjectPath),
}

/// Those of a service; a target or a timer has none of them.
#[derive(Default, DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct ServiceProperties {
    #[zbus(rename = "MainPID")]
    main_pid: u32,
    result: String,
    exec_main_code: i32,
    exec_main_status: i32,
}

/// Figures that all kinds of units have.
#[derive(DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub struct GeneralFigures {
    pub load_state: String,
    pub active_state: String,
    pub sub_state: String,
    pub active_enter_timestamp_monotonic: u64,
    #[zbus(rename = "InvocationID")]
    pub invocation_id: Vec<u8>,
}

/// Figures of a service.
#[derive(Default, DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub struct ServiceFigures {
    #[zbus(rename = "NRestarts")]
    pub restarts: u32,
    pub memory_current: u64,
    #[zbus(rename = "CPUUsageNSec")]
    pub cpu_usage: u64,
    /// When its main process was started, in microseconds since 1970.
    pub exec_main_start_timestamp: u64,
}

#[derive(DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct UnitOrder {
    load_state: String,
    active_state: String,
    binds_to: Vec<String>,
    after: Vec<String>,
}

/// A command: its program, its arguments, and what became of it when it last ran.
type Command = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

#[derive(DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct StopProperties {
    kill_mode: String,
    #[zbus(rename = "SendSIGKILL")]
    send_sigkill: bool,
    #[zbus(rename = "TimeoutStopUSec")]
    timeout_stop_usec: u64,
    exec_stop: Vec<Command>,
    exec_stop_post: Vec<Command>,
    exec_condition: Vec<Command>,
    slice: String,
    control_group: String,
}

#[derive(DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}")]
struct RestartProperties {
    #[zbus(rename = "NRestarts")]
    restarts: u32,
}

#[derive(DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct JobProperties {
    job_type: String,
    state: String,
}

fn state(unit: &str, general: UnitProperties, service: ServiceProperties) -> UnitState {
    let (_, load_error) = general.load_error;
    let (job, _) = general.job;
    let invocation = <[u8; 16]>::try_from(general.invocation_id).ok();
    // In the words of waitid(2).
    let exit = match service.exec_main_code {
        1 => Some(Exit::Status(service.exec_main_status)),
        2 | 3 => Some(Exit::Signal(service.exec_main_status)),
        _ => None,
    };
    UnitState {
        unit: unit.to_owned(),
        load: general.load_state.into(),
        load_error,
        needs_reload: general.need_daemon_reload,
        enabled: general.unit_file_state.into(),
        requires: [general.requires, general.requisite, general.binds_to].concat(),
        active: general.active_state.into(),
        sub: general.sub_state,
        conditions_met: general.condition_result || general.condition_timestamp == 0,
        invocation: invocation.map(|bytes| Invocation(u128::from_be_bytes(bytes))),
        main_pid: (service.main_pid != 0).then_some(service.main_pid),
        ending: Ending { outcome: outcome(service.result), exit },
        job: (job != 0).then_some(Job { id: job, detail: None }),
    }
}

fn stopping(unit: &str, general: UnitOrder, service: StopProperties) -> Stopping {
    let timeout_stop = service.timeout_stop_usec;
    Stopping {
        unit: unit.to_owned(),
        load: general.load_state.into(),
        active: general.active_state.into(),
        binds_to: general.binds_to,
        after: general.after,
        kill_mode: service.kill_mode,
        sends_sigkill: service.send_sigkill,
        timeout_stop: (timeout_stop != u64::MAX).then(|| Duration::from_micros(timeout_stop)),
        stop_commands: service.exec_stop.len(),
        post_commands: service.exec_stop_post.len(),
        conditions: service.exec_condition.into_iter().map(|command| command.1).collect(),
        slice: service.slice,
        control_group: service.control_group,
    }
}

/// Units that are no services do not say how they ended.
fn outcome(result: String) -> Outcome {
    if result.is_empty() { Outcome::Success } else { result.into() }
}

/// A unit's object, which exists for every name: systemd loads the unit when it is asked for it.
fn unit_path(unit: &str) -> String {
    let mut path = format!("{MANAGER_PATH}/unit/");
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && at > 0) {
            path.push(byte.into());
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// The job that systemd answered with. Its path ends in its number.
fn job(answer: &zbus::Message) -> zbus::Result<Job> {
    let path: OwnedObjectPath = answer.body().deserialize()?;
    let id = path.rsplit('/').next().and_then(|id| id.parse().ok());
    Ok(Job { id: id.ok_or(zbus::Error::InvalidReply)?, detail: None })
}

#[cfg(test)]
mod tests {
    use super::unit_path;

    #[test]
    fn a_path_escapes_what_systemd_escapes() {
        let path = "/org/freedesktop/systemd1/unit/bot_40eu_2d1_2eservice";
        assert_eq!(unit_path("bot@eu-1.service"), path);
        assert_eq!(unit_path("1.target"), "/org/freedesktop/systemd1/unit/_31_2etarget");
    }
}
