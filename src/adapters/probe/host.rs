//! This host: processors, memory, file systems, load.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::statvfs::statvfs;

use crate::monitor::measured::Measured;

/// Processor time of all processors since boot, in ticks: in use, and altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    /// Reads it.
    ///
    /// # Errors
    /// If the kernel does not say it.
    pub fn read() -> Result<Self, String> {
        let text = read("/proc/stat")?;
        Self::parse(&text).ok_or_else(|| "/proc/stat makes no sense".to_owned())
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal; what guests use is in user already.
        let ticks: Vec<u64> = line.split_whitespace().take(8).flat_map(str::parse).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        let all: u64 = ticks.iter().sum();
        Some(Self { busy: all - idle, all })
    }

    /// How much was in use since `before`, in percent; `None` if no time has passed.
    #[must_use]
    pub fn percent_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some(percent(self.busy.saturating_sub(before.busy), all))
    }
}

/// Memory that is not available, or swap in use, in percent.
///
/// # Errors
/// If the kernel does not say it.
pub fn memory(swap: bool) -> Result<Measured, String> {
    let text = read("/proc/meminfo")?;
    let field = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let (all, free) = if swap { ("SwapTotal", "SwapFree") } else { ("MemTotal", "MemAvailable") };
    let (Some(all), Some(free)) = (field(all), field(free)) else {
        return Err("/proc/meminfo makes no sense".to_owned());
    };
    if all == 0 {
        return Ok(Measured::said(0.0, "there is none"));
    }
    let text = format!("{} MiB of {} MiB left", free / 1024, all / 1024);
    Ok(Measured::said(percent(all.saturating_sub(free), all), text))
}

/// Load over a minute, for each processor.
///
/// # Errors
/// If the kernel does not say it.
pub fn load() -> Result<Measured, String> {
    let text = read("/proc/loadavg")?;
    let load: Option<f64> = text.split(' ').next().and_then(|load| load.parse().ok());
    let load = load.ok_or_else(|| "/proc/loadavg makes no sense".to_owned())?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processors = u32::try_from(processors).unwrap_or(1);
    let text = format!("load {load} on {processors} processors");
    Ok(Measured::said(load / f64::from(processors), text))
}

/// Looks at file systems, of which one on a dead server may never answer. The thread that asked it
/// is then lost until it does, and no other is sent after it.
#[derive(Clone, Debug, Default)]
pub struct FileSystem {
    asked: Arc<AtomicBool>,
}

impl FileSystem {
    /// Space or inodes in use, in percent.
    ///
    /// # Errors
    /// If there is no such path, or an earlier look still hangs.
    pub async fn used(&self, path: &Path, inodes: bool) -> Result<Measured, String> {
        if self.asked.swap(true, Ordering::Relaxed) {
            return Err(format!("{}: an earlier look still hangs", path.display()));
        }
        let (asked, path) = (self.asked.clone(), path.to_owned());
        let look = tokio::task::spawn_blocking(move || {
            let used = used(&path, inodes);
            asked.store(false, Ordering::Relaxed);
            used
        });
        look.await.map_err(|error| error.to_string())?
    }
}

fn used(path: &PathBuf, inodes: bool) -> Result<Measured, String> {
    let found = statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // As df does it: what only root may use is neither used nor free.
    let (all, free, available) = if inodes {
        (found.files(), found.files_free(), found.files_available())
    } else {
        (found.blocks(), found.blocks_free(), found.blocks_available())
    };
    let used = all.saturating_sub(free);
    if used + available == 0 {
        return Ok(Measured::said(0.0, "the file system counts none"));
    }
    let text = if inodes {
        format!("{available} inodes left in {}", path.display())
    } else {
        let mebibytes = available.saturating_mul(found.fragment_size()) >> 20;
        format!("{mebibytes} MiB left in {}", path.display())
    };
    Ok(Measured::said(percent(used, used + available), text))
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

#[expect(clippy::cast_precision_loss, reason = "percents need no more than 53 bits")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_what_was_in_use_between_two_looks() {
        let before = Ticks::parse("cpu  10 0 10 80 0 0 0 0 5 0\ncpu0 1 1 1 1\n").unwrap();
        let after = Ticks::parse("cpu  40 0 10 140 10 0 0 0 9 0\n").unwrap();
        assert_eq!(after.percent_since(before), Some(30.0));
        assert_eq!(after.percent_since(after), None);
        assert_eq!(Ticks::parse("intr 5"), None);
    }
}
