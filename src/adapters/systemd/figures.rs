//! A unit in numbers, for checks.

use std::fs;

use super::Systemd;
use super::bus::Bus;
use super::fault::SystemdError;
use super::state::Invocation;

/// What systemd says where it does not count.
const NOT_COUNTED: u64 = u64::MAX;

/// A unit in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Whether systemd knows it.
    pub is_loaded: bool,
    /// As `systemctl status` says it, such as `active (running)`.
    pub state: String,
    /// Whether it is active.
    pub is_active: bool,
    /// How often systemd restarted it.
    pub restarts: u32,
    /// When it became active, in microseconds since boot by a clock that stops while the host is
    /// suspended; 0 if it never did.
    pub active_since_us: u64,
    /// When its main process was started, in microseconds since 1970; 0 if it never was.
    pub started_us: u64,
    /// This run of it, or its last one.
    pub invocation: Option<Invocation>,
    /// Memory of its control group in bytes, if it is counted.
    pub memory: Option<u64>,
    /// Processor time of its control group so far, in nanoseconds, if it is counted.
    pub cpu_ns: Option<u64>,
}

impl Systemd {
    /// Reads a unit's figures.
    ///
    /// # Errors
    /// If the bus or systemd cannot be reached.
    pub async fn figures(&mut self, unit: &str) -> Result<Figures, SystemdError> {
        let read = async |bus: Bus| {
            let read = bus.figures(unit).await;
            read.map_err(|source| SystemdError::Read { unit: unit.to_owned(), source })
        };
        let (general, service) = match read(self.bus().await?).await {
            Err(error) if error.is_disconnect() => read(self.bus_again().await?).await?,
            read => read?,
        };
        let counted = |count: u64| (count != NOT_COUNTED).then_some(count);
        let invocation = <[u8; 16]>::try_from(general.invocation_id).ok();
        Ok(Figures {
            is_loaded: general.load_state != "not-found",
            is_active: general.active_state == "active",
            state: format!("{} ({})", general.active_state, general.sub_state),
            restarts: service.restarts,
            active_since_us: general.active_enter_timestamp_monotonic,
            started_us: service.exec_main_start_timestamp,
            invocation: invocation.map(|bytes| Invocation(u128::from_be_bytes(bytes))),
            memory: counted(service.memory_current),
            cpu_ns: counted(service.cpu_usage),
        })
    }

    /// Memory of a unit's processes in bytes, for where the kernel does not count it for control
    /// groups. What several of them share counts for each.
    ///
    /// # Errors
    /// If the bus or systemd cannot be reached.
    pub async fn resident(&mut self, unit: &str) -> Result<u64, SystemdError> {
        let processes = self.bus().await?.processes(unit).await?;
        Ok(processes.into_iter().filter_map(resident_of).sum())
    }
}

/// Memory of one process in bytes, unless it is gone.
fn resident_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
