//! What can be wrong with a unit, with its start and with its stop.

use std::fmt;

use super::state::{Active, Ending, Invocation, Job, JobResult, Load, Outcome, UnitState};
use super::{Running, bus};

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// There is no connection to the bus.
    #[error("cannot connect to the system bus; is dbus running?")]
    Connect(#[source] zbus::Error),
    /// Connected, but systemd does not talk to us.
    #[error("systemd does not take our subscription to its signals")]
    Subscribe(#[source] zbus::Error),
    /// The bus does not let us hear of jobs.
    #[error("cannot listen for the end of systemd's jobs")]
    Listen(#[source] zbus::Error),
    /// A unit's state is not known.
    #[error("cannot read the state of {unit}")]
    Read {
        /// The unit.
        unit: String,
        /// Why not.
        #[source]
        source: zbus::Error,
    },
    /// Unit files were not read again.
    #[error("systemd did not read its unit files again")]
    Reload(#[source] zbus::Error),
    /// Some units did not become active.
    #[error("not started: {}", list(.0))]
    Start(Vec<UnitFault>),
    /// Some units became active and did not stay so.
    #[error("started, but did not stay: {}", list(.0))]
    Settle(Vec<UnitFault>),
    /// Something is left of some units.
    #[error("not stopped: {}", list(.0))]
    Stop(Vec<UnitFault>),
}

impl SystemdError {
    /// Whether no unit was told to start: one of them could not, and then none is.
    #[must_use]
    pub fn is_before_any_start(&self) -> bool {
        let before = |fault: &Fault| {
            matches!(fault, Fault::Missing | Fault::Masked | Fault::BadSetting { .. })
        };
        matches!(self, Self::Start(faults) if faults.iter().all(|one| before(&one.fault)))
    }

    /// Whether the connection went away, so that a new one may do better.
    pub(super) fn is_disconnect(&self) -> bool {
        match self {
            Self::Connect(source)
            | Self::Subscribe(source)
            | Self::Listen(source)
            | Self::Reload(source) => bus::is_disconnect(source),
            Self::Read { source, .. } => bus::is_disconnect(source),
            Self::Start(_) | Self::Settle(_) | Self::Stop(_) => false,
        }
    }
}

fn list(faults: &[UnitFault]) -> String {
    faults.iter().map(UnitFault::to_string).collect::<Vec<_>>().join("; ")
}

/// What is wrong with which unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitFault {
    /// The unit.
    pub unit: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for UnitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.unit, self.fault)
    }
}

/// What is wrong with a unit. The text says what to do, where that is not plain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not exist.
    #[error("there is no such unit on this node; install it, or correct its name in `units`")]
    Missing,
    /// It is masked.
    #[error("it is masked, so that nothing can start it; undo that with `systemctl unmask`")]
    Masked,
    /// systemd cannot use its files.
    #[error("systemd cannot use its files ({load}): {error}; see `systemctl status`")]
    BadSetting {
        /// In systemd's word.
        load: Load,
        /// What is wrong with them.
        error: String,
    },
    /// We may not.
    #[error(
        "systemd does not allow it ({answer}); as root, `understudy permit` lets understudy's user manage \
         the configured units; each of them must be configured by its own name, not an alias"
    )]
    Refused {
        /// In systemd's words.
        answer: String,
    },
    /// systemd could not do as asked.
    #[error("systemd did not accept the job: {answer}")]
    NotQueued {
        /// In systemd's words, or why there are none.
        answer: String,
    },
    /// Something that it requires did not start.
    #[error("what it requires did not start: {}", if .failed.is_empty() {
        "systemd does not say what, see its journal".to_owned()
    } else {
        .failed.join(", ")
    })]
    Dependency {
        /// Those that do not run, with their state.
        failed: Vec<String>,
    },
    /// A condition said no.
    #[error("it has a condition that is not met (Condition…=, Assert…= or ExecCondition=)")]
    Skipped,
    /// Another job took the place of ours.
    #[error("its job was cancelled: something else stopped or started it meanwhile")]
    Canceled,
    /// It failed.
    #[error("it failed ({sub}): {ending}; see `journalctl -u`")]
    Failed {
        /// In systemd's word for this kind of unit.
        sub: String,
        /// How it ended.
        ending: Ending,
    },
    /// It ended at once, and well.
    #[error("it ran and ended at once; only units that stay active can be failed over")]
    Ended,
    /// It was not active at the deadline.
    #[error("still {active} ({sub}) at the deadline: {}; last {ending}", match .job {
        Some(job) => job.to_string(),
        None => "it has no job left".to_owned(),
    })]
    Hanging {
        /// What it is instead.
        active: Active,
        /// In systemd's word for this kind of unit.
        sub: String,
        /// What systemd is about.
        job: Option<Job>,
        /// How its last attempt ended, if it made several.
        ending: Ending,
    },
    /// It became active and is no longer.
    #[error("it became active and is now {active} ({sub}): {ending}")]
    Died {
        /// What it is instead.
        active: Active,
        /// In systemd's word for this kind of unit.
        sub: String,
        /// How it ended.
        ending: Ending,
    },
    /// It became active, left, and is active again.
    #[error("it was restarted (invocation {} was {}), last {ending}", name(*.is), name(*.was))]
    Restarted {
        /// The run that became active first.
        was: Option<Invocation>,
        /// The present one. The same if only the main process changed.
        is: Option<Invocation>,
        /// How the last run ended.
        ending: Ending,
    },
    /// It should have stopped.
    #[error("still {active} ({sub}), {}", match .processes.len() {
        0 => "without a process".to_owned(),
        _ => format!("with processes {:?}", .processes),
    })]
    StillRunning {
        /// What it is instead.
        active: Active,
        /// In systemd's word for this kind of unit.
        sub: String,
        /// What runs in its control group.
        processes: Vec<u32>,
    },
}

fn name(invocation: Option<Invocation>) -> String {
    invocation.map_or_else(|| "none".to_owned(), |invocation| invocation.to_string())
}

impl Fault {
    /// Why a unit is not active although it was started, given how its job ended if that is known.
    pub(super) fn of_start(state: &UnitState, result: Option<&JobResult>) -> Self {
        let hanging = || Self::Hanging {
            active: state.active.clone(),
            sub: state.sub.clone(),
            job: state.job.clone(),
            ending: state.ending.clone(),
        };
        let failed = || Self::Failed { sub: state.sub.clone(), ending: state.ending.clone() };
        match result {
            Some(JobResult::Dependency) => return Self::Dependency { failed: Vec::new() },
            Some(JobResult::Canceled) => return Self::Canceled,
            Some(JobResult::Assert) => return Self::Skipped,
            Some(
                JobResult::Done
                | JobResult::Timeout
                | JobResult::Failed
                | JobResult::Skipped
                | JobResult::Other(_),
            )
            | None => {}
        }
        match (&state.active, &state.ending.outcome) {
            _ if state.job.is_some() => hanging(),
            (Active::Inactive, _) if !state.conditions_met => Self::Skipped,
            (Active::Inactive, Outcome::ExecCondition | Outcome::Condition) => Self::Skipped,
            (Active::Inactive, Outcome::Success) => Self::Ended,
            // It waits for its next attempt, so it had one that failed.
            (Active::Activating, _) if state.sub == "auto-restart" => failed(),
            (Active::Activating, _) => hanging(),
            _ => failed(),
        }
    }
}

impl UnitState {
    /// Why the unit cannot be started, if so.
    #[must_use]
    pub fn unstartable(&self) -> Option<Fault> {
        match &self.load {
            Load::Loaded => None,
            Load::NotFound => Some(Fault::Missing),
            Load::Masked => Some(Fault::Masked),
            Load::BadSetting | Load::Error | Load::Stub | Load::Merged | Load::Other(_) => {
                Some(Fault::BadSetting { load: self.load.clone(), error: self.load_error.clone() })
            }
        }
    }
}

impl Running {
    /// Why a unit that became active is no longer what it was, if so.
    pub(super) fn left(&self, is: &UnitState) -> Option<Fault> {
        let ending = is.ending.clone();
        if !is.is_up() {
            Some(Fault::Died { active: is.active.clone(), sub: is.sub.clone(), ending })
        } else if (self.invocation, self.main_pid) != (is.invocation, is.main_pid) {
            Some(Fault::Restarted { was: self.invocation, is: is.invocation, ending })
        } else {
            None
        }
    }
}

impl From<UnitState> for Running {
    fn from(state: UnitState) -> Self {
        Self { unit: state.unit, main_pid: state.main_pid, invocation: state.invocation }
    }
}

/// What an answer that is an error says about the unit it was about.
impl From<zbus::Error> for Fault {
    fn from(error: zbus::Error) -> Self {
        let answer = error.to_string();
        match bus::error_name(&error).as_deref() {
            Some("org.freedesktop.systemd1.NoSuchUnit") => Self::Missing,
            Some("org.freedesktop.systemd1.UnitMasked") => Self::Masked,
            Some("org.freedesktop.systemd1.BadUnitSetting") => {
                Self::BadSetting { load: Load::BadSetting, error: answer }
            }
            Some("org.freedesktop.systemd1.LoadFailed") => {
                Self::BadSetting { load: Load::Error, error: answer }
            }
            Some(
                "org.freedesktop.DBus.Error.AccessDenied"
                | "org.freedesktop.DBus.Error.AuthFailed"
                | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
            ) => Self::Refused { answer },
            _ => Self::NotQueued { answer },
        }
    }
}
