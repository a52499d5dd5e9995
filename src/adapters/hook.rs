//! Runs a command of the operator's, such as the one that fences the old primary.
//!
//! The command is a stranger: it may hang, fork, flood us or leave its children behind with our
//! pipe in their hands. It gets no shell, nothing of our environment but what is listed here, and a
//! process group of its own, which is killed as a whole at the deadline.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout};

/// What is kept of the command's output. Of more, the end is kept, where errors are.
pub const OUTPUT_MAX_BYTES: usize = 16 * 1024;

/// How long the output is waited for after the command ended. What it wrote is there already; only
/// children that it left behind could add to it.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a killed command is waited for. Only a process stuck in the kernel, as on a dead
/// network file system, takes longer than an instant.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Where programs are found, whatever our own environment says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where systemd put the service's credentials, such as the key by which a fence command logs in.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// How a command went.
#[derive(Debug)]
pub struct Ran {
    /// Whether it did what it was for.
    pub outcome: Result<(), HookError>,
    /// What it printed, on either stream, without control characters.
    pub lines: Vec<String>,
}

/// Why a command did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// There is no program.
    #[error("the command is empty")]
    Empty,
    /// It could not be started at all.
    #[error("{program} cannot be run; is it there, and executable for understudy?")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended with a status other than 0.
    #[error("{program} left with status {status}")]
    Status {
        /// The program.
        program: String,
        /// The status.
        status: i32,
    },
    /// Somebody or something else killed it.
    #[error("{program} was killed by signal {signal}")]
    Killed {
        /// The program.
        program: String,
        /// The signal.
        signal: i32,
    },
    /// It was not done in time and was killed.
    #[error("{program} was not done within {deadline:?} and was killed; what it did is not known")]
    Deadline {
        /// The program.
        program: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// It cannot be said how it ended.
    #[error("cannot learn how {program} ended")]
    Wait {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Whether a program could be run, as far as can be told without running it.
///
/// # Errors
/// Why not, in words.
pub fn executable(program: &str) -> Result<(), String> {
    nix::unistd::access(program, nix::unistd::AccessFlags::X_OK)
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    match std::fs::metadata(program) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(format!("{program} is not a file")),
        Err(error) => Err(format!("{program} cannot be run: {error}")),
    }
}

/// Runs a program with its arguments, and with these variables as its environment besides `PATH` and
/// `CREDENTIALS_DIRECTORY`.
/// If this is dropped before it is done, the command is killed.
pub async fn run(command: &[String], variables: &[(&str, &str)], deadline: Duration) -> Ran {
    run_with_input(command, variables, &[], deadline).await
}

/// The same with something on its standard input, which it need not read.
pub async fn run_with_input(
    command: &[String],
    variables: &[(&str, &str)],
    input: &[u8],
    deadline: Duration,
) -> Ran {
    let until = Instant::now() + deadline;
    let Some((program, arguments)) = command.split_first() else {
        return Ran { outcome: Err(HookError::Empty), lines: Vec::new() };
    };
    let program = program.clone();
    let (mut child, mut pipe) = match start(&program, arguments, variables, input) {
        Ok(started) => started,
        Err(source) => {
            return Ran { outcome: Err(HookError::Start { program, source }), lines: Vec::new() };
        }
    };

    let mut group = Group::of(&child);
    let mut output = Tail::default();
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break Some(ended),
            open = output.read(&mut pipe), if !output.closed => output.closed = !open,
            () = sleep_until(until) => break None,
        }
    };
    let outcome = match ended {
        Some(Ok(status)) => judge(program, status),
        Some(Err(source)) => Err(HookError::Wait { program, source }),
        None => {
            group.kill();
            // If it is stuck in the kernel, tokio collects it whenever it comes out.
            let _ = timeout(KILL_TIMEOUT, child.wait()).await;
            Err(HookError::Deadline { program, deadline })
        }
    };
    // From here on its number may be another's.
    group.leader = None;
    let drain = async { while !output.closed && output.read(&mut pipe).await {} };
    // If that takes longer, someone else has the pipe, and is not waited for.
    let _ = timeout(DRAIN_TIMEOUT, drain).await;
    Ran { outcome, lines: output.lines() }
}

fn start(
    program: &str,
    arguments: &[String],
    variables: &[(&str, &str)],
    input: &[u8],
) -> io::Result<(Child, pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::from(in_memory(input)?) };
    // The command holds our ends of the pipe; it is gone at the end of this function, or the pipe
    // would never close.
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(variables.iter().copied())
        .envs(std::env::var_os(CREDENTIALS).map(|directory| (CREDENTIALS, directory)))
        .current_dir("/")
        .stdin(stdin)
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// A file without a name. Unlike a pipe it takes everything at once, so that nobody has to write
/// while the command runs, or notice that it does not read.
fn in_memory(content: &[u8]) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC;
    let mut file = File::from(memfd_create(c"input", flags)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

fn judge(program: String, status: ExitStatus) -> Result<(), HookError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(status), _) => Err(HookError::Status { program, status }),
        (None, signal) => Err(HookError::Killed { program, signal: signal.unwrap_or_default() }),
    }
}

/// The processes of a command that is not known to have ended.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        Self { leader: leader.map(Pid::from_raw) }
    }

    fn kill(&self) {
        if let Some(leader) = self.leader
            && let Err(error) = killpg(leader, Signal::SIGKILL)
        {
            tracing::debug!(%leader, %error, "a command ended while it was being killed");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of what was read.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    dropped: usize,
    closed: bool,
}

impl Tail {
    /// Reads once. False if there will be no more.
    async fn read(&mut self, pipe: &mut pipe::Receiver) -> bool {
        let mut buffer = [0; 4096];
        let Ok(count @ 1..) = pipe.read(&mut buffer).await else { return false };
        self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let surplus = self.bytes.len().saturating_sub(OUTPUT_MAX_BYTES);
        self.bytes.drain(..surplus);
        self.dropped += surplus;
        true
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let note = (self.dropped > 0).then(|| format!("[{} bytes left out]", self.dropped));
        let clean = |line: &str| line.replace(|letter: char| letter.is_control(), " ");
        note.into_iter().chain(text.lines().map(clean)).collect()
    }
}
