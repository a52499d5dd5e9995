//! What decides how a unit stops, and where it runs: needed to bind it to a guard.

use std::path::PathBuf;
use std::time::Duration;

use super::state::{Active, Load};
use super::{Systemd, SystemdError};

/// How a service would stop, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// The unit.
    pub unit: String,
    /// Whether its file was found.
    pub load: Load,
    /// Whether it runs.
    pub active: Active,
    /// Units that it is bound to.
    pub binds_to: Vec<String>,
    /// Units that it starts after.
    pub after: Vec<String>,
    /// `KillMode=`.
    pub kill_mode: String,
    /// `SendSIGKILL=`.
    pub sends_sigkill: bool,
    /// `TimeoutStopSec=`; `None` if it may take for ever.
    pub timeout_stop: Option<Duration>,
    /// Commands of `ExecStop=`.
    pub stop_commands: usize,
    /// Commands of `ExecStopPost=`.
    pub post_commands: usize,
    /// Commands of `ExecCondition=`, each with its program and arguments.
    pub conditions: Vec<Vec<String>>,
    /// `Slice=`.
    pub slice: String,
    /// Where its processes are, below the root of control groups; empty if it has none.
    pub control_group: String,
}

impl Stopping {
    /// Steps that each may take `TimeoutStopSec=` until SIGKILL: a command of `ExecStop=`, SIGTERM,
    /// and with `ExecStopPost=` its commands and a SIGTERM for what they leave.
    #[must_use]
    pub fn phases(&self) -> u32 {
        let post = if self.post_commands == 0 { 0 } else { self.post_commands + 1 };
        u32::try_from(self.stop_commands + 1 + post).unwrap_or(u32::MAX)
    }

    /// Its control group as a path.
    #[must_use]
    pub fn control_group_path(&self) -> Option<PathBuf> {
        let inside = self.control_group.strip_prefix('/').filter(|inside| !inside.is_empty())?;
        Some(PathBuf::from("/sys/fs/cgroup").join(inside))
    }
}

impl Systemd {
    /// How these services would stop.
    ///
    /// # Errors
    /// If the bus or systemd cannot be reached, or one of them is not a service.
    pub async fn stopping(&mut self, units: &[String]) -> Result<Vec<Stopping>, SystemdError> {
        let mut all = Vec::with_capacity(units.len());
        let bus = self.bus().await?;
        for unit in units {
            all.push(bus.stopping(unit).await?);
        }
        Ok(all)
    }

    /// Has systemd read all unit files again. For root.
    ///
    /// # Errors
    /// If it cannot be reached, or does not.
    pub async fn reload(&mut self) -> Result<(), SystemdError> {
        self.bus().await?.reload().await.map_err(SystemdError::Reload)
    }
}
