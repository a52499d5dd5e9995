//! The control group in which all processes of a group are, and no others: whether any is left, and
//! their end. Looking and killing allocate nothing, and need neither systemd nor the bus.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, read, write};

/// `cgroup.events` has two lines of a word and a digit.
const EVENTS_MAX_BYTES: usize = 256;

/// The control group of a slice.
#[derive(Clone, Debug)]
pub struct Slice {
    path: PathBuf,
    events: CString,
    kill: CString,
}

impl Slice {
    /// The one at `path`.
    ///
    /// # Errors
    /// If the kernel has no such control group, or none that can be killed as a whole, or it may not
    /// be killed by us.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = |name: &str| {
            CString::new(path.join(name).as_os_str().as_bytes())
                .map_err(|_| format!("{} is no path", path.display()))
        };
        let slice = Self {
            path: path.to_owned(),
            events: file("cgroup.events")?,
            kill: file("cgroup.kill")?,
        };
        // To open it is the only true test: access(2) knows nothing of capabilities.
        slice.file(&slice.kill, OFlag::O_WRONLY).map_err(|error| {
            format!(
                "cannot kill what is in {}: {error}; a guard needs control groups of version 2, \
                 Linux 5.14 or later, and CAP_DAC_OVERRIDE, as understudy-lease@.service gives it",
                path.display()
            )
        })?;
        Ok(slice)
    }

    /// Whether no process is left in it. Not to know is not to be empty; not to exist is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut text = [0_u8; EVENTS_MAX_BYTES];
        let look = |text: &mut [u8]| -> Result<usize, Errno> {
            read(self.file(&self.events, OFlag::O_RDONLY)?, text)
        };
        match look(&mut text) {
            Ok(length) => text[..length].split(|byte| *byte == b'\n').any(|l| l == b"populated 0"),
            Err(error) => is_gone(error),
        }
    }

    /// Kills every process in it, also those that are just being made.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn kill(&self) -> Result<(), Errno> {
        let kill = || write(self.file(&self.kill, OFlag::O_WRONLY)?, b"1").map(drop);
        kill().or_else(|error| if is_gone(error) { Ok(()) } else { Err(error) })
    }

    /// Asks every process in it to end, once. Those that are made meanwhile may not hear it.
    ///
    /// # Errors
    /// If it is not known who they are.
    pub fn terminate(&self) -> io::Result<usize> {
        let mut asked = 0;
        let mut left = vec![self.path.clone()];
        while let Some(group) = left.pop() {
            let Ok(processes) = fs::read_to_string(group.join("cgroup.procs")) else { continue };
            for pid in processes.lines().filter_map(|pid| pid.parse().ok()) {
                asked += usize::from(kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok());
            }
            for entry in fs::read_dir(&group)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    left.push(entry.path());
                }
            }
        }
        Ok(asked)
    }

    fn file(&self, path: &CString, how: OFlag) -> Result<OwnedFd, Errno> {
        open(path.as_c_str(), how | OFlag::O_CLOEXEC, Mode::empty())
    }
}

/// The control group was removed, which the kernel allows only if nothing is in it.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::ENODEV)
}
