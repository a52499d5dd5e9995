//! The guard as others see it: start it, ask it, watch it, have it release the lease.
//!
//! The guard is the process of `understudy-lease@GROUP.service` (`guard/`). It renews one tenure, and
//! the units of the group are bound to it. What is here needs neither it nor the store to be well:
//! every question has a deadline, and an end of file means that it is gone.

pub mod dropin;
pub mod glass;
pub mod names;
pub mod protocol;
pub mod tenure;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::time::timeout;

use crate::adapters::systemd::protection::Stopping;
use crate::adapters::systemd::{Systemd, SystemdError};
use crate::engine::observation::Token;
use protocol::{Question, Released, Report};
use tenure::Tenure;

/// How long the guard may take to say how it is. It does nothing else that takes time.
pub const STATE_DEADLINE: Duration = Duration::from_secs(1);

/// Longest answer.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// Why a guard could not be asked or started.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// There is none.
    #[error("no guard is running (nobody answers on {})", path.display())]
    NotRunning {
        /// Where it would answer.
        path: PathBuf,
    },
    /// It did not answer in time, or not in our language.
    #[error("the guard is running but did not answer on {}", path.display())]
    NoAnswer {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tenure could not be handed to it.
    #[error("cannot write the lease for the guard into {}", path.display())]
    Write {
        /// The state directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// systemd could not start it.
    #[error("the guard did not start")]
    Start(#[source] SystemdError),
    /// It runs for another tenure, or does not hold it any more.
    #[error("the guard runs, but does not hold this lease: {0}")]
    Other(String),
    /// It goes on holding the lease, or nobody knows.
    #[error("the guard did not release the lease: {0}")]
    Refused(String),
}

/// Hands a tenure to the guard, starts it, and waits until it holds the lease: its first renewal was
/// granted. A guard that holds this tenure already is fine.
///
/// # Errors
/// If it does not hold the lease at the deadline. It may still come to do so; no unit of the group
/// may be started on the strength of this call then.
pub async fn start(
    systemd: &mut Systemd,
    state_dir: &Path,
    runtime_dir: &Path,
    tenure: &Tenure,
    deadline: Duration,
) -> Result<Report, GuardError> {
    let fail = |source| GuardError::Write { path: state_dir.to_owned(), source };
    tenure.write(state_dir).map_err(fail)?;
    let unit = names::guard_unit(&tenure.group);
    systemd.start(&[unit], deadline).await.map_err(GuardError::Start)?;
    let report = state(runtime_dir, &tenure.group).await?;
    if holds(&report, tenure.token()) {
        Ok(report)
    } else {
        let state = report.state.name();
        let epoch = report.epoch.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
        Err(GuardError::Other(format!("it is {state} with epoch {epoch}")))
    }
}

fn holds(report: &Report, token: Token) -> bool {
    report.token() == Some(token) && report.lets_pass()
}

/// How the guard is.
///
/// # Errors
/// If it does not say so within [`STATE_DEADLINE`].
pub async fn state(runtime_dir: &Path, group: &str) -> Result<Report, GuardError> {
    ask(runtime_dir, group, &Question::State, STATE_DEADLINE).await
}

/// As [`state`], from the gate of a unit that is about to start.
///
/// # Errors
/// If it does not say so within [`STATE_DEADLINE`].
pub async fn pass(runtime_dir: &Path, group: &str) -> Result<Report, GuardError> {
    ask(runtime_dir, group, &Question::Gate, STATE_DEADLINE).await
}

/// Has the guard give the lease back, to `to` or to anybody, and end. It does so only if no process
/// of the group is left.
///
/// # Errors
/// [`GuardError::Refused`] if it did not, and says why; other variants if nobody knows.
pub async fn release(
    runtime_dir: &Path,
    group: &str,
    to: Option<&str>,
    deadline: Duration,
) -> Result<crate::engine::observation::Epoch, GuardError> {
    let question = Question::Release(to.map(str::to_owned));
    match ask(runtime_dir, group, &question, deadline).await? {
        Released::Released(epoch) => Ok(epoch),
        Released::Error(text) => Err(GuardError::Refused(text)),
    }
}

/// Why a unit would not end with the guard, or could start without it; empty if it is bound as it must
/// be. `kill_after` is how long a fence waits before it kills.
#[must_use]
pub fn unbound(unit: &Stopping, group: &str, kill_after: Duration) -> Vec<String> {
    let guard = names::guard_unit(group);
    let gated = unit.conditions.iter().any(|command| {
        command.iter().any(|word| word == "gate") && command.last().is_some_and(|it| it == group)
    });
    let in_time = unit.timeout_stop.is_some_and(|each| each * unit.phases() <= kill_after);
    let bonds = [
        (unit.binds_to.contains(&guard), format!("BindsTo={guard} is missing")),
        (unit.after.contains(&guard), format!("After={guard} is missing")),
        (gated, format!("ExecCondition= does not ask `understudy gate {group}`")),
        (unit.slice == names::slice_unit(group), format!("it is in {}", unit.slice)),
        (in_time, "it may take longer to stop than a fence waits".to_owned()),
        (unit.sends_sigkill, "SendSIGKILL= is no".to_owned()),
    ];
    let missing = bonds.into_iter().filter(|(is, _)| !is);
    missing.map(|(_, why)| format!("{}: {why}", unit.unit)).collect()
}

/// Listens to how the guard is: at once, after each granted renewal and at each change.
///
/// # Errors
/// If there is none.
pub async fn watch(runtime_dir: &Path, group: &str) -> Result<Reports, GuardError> {
    let path = names::socket(runtime_dir, group);
    let read = timeout(STATE_DEADLINE, send(&path, &Question::Watch))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match read {
        Ok(read) => Ok(Reports { lines: BufReader::new(read).lines() }),
        Err(source) => Err(unasked(path, source)),
    }
}

/// What a guard says of itself, from when it was asked.
#[derive(Debug)]
pub struct Reports {
    lines: Lines<BufReader<OwnedReadHalf>>,
}

impl Reports {
    /// The next report; `None` if the guard is gone.
    pub async fn next(&mut self) -> Option<Report> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }
}

async fn ask<T: DeserializeOwned>(
    runtime_dir: &Path,
    group: &str,
    question: &Question,
    deadline: Duration,
) -> Result<T, GuardError> {
    let path = names::socket(runtime_dir, group);
    let exchange = async {
        let read = send(&path, question).await?;
        let mut line = String::new();
        BufReader::new(read.take(ANSWER_MAX_BYTES)).read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    };
    timeout(deadline, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| unasked(path.clone(), source))
}

async fn send(path: &Path, question: &Question) -> io::Result<OwnedReadHalf> {
    let (read, mut write) = UnixStream::connect(path).await?.into_split();
    write.write_all(format!("{}\n", question.line()).as_bytes()).await?;
    // Its end closes half of the connection only, which the guard does not mind.
    Ok(read)
}

fn unasked(path: PathBuf, source: io::Error) -> GuardError {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            GuardError::NotRunning { path }
        }
        _ => GuardError::NoAnswer { path, source },
    }
}
