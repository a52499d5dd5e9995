//! What binds units to their guard: drop-ins for the units, and one for the guard.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::names;

/// Where drop-ins of this host are.
pub const UNIT_DIR: &str = "/etc/systemd/system";

/// After those of packages, before those of a person who knows better. What such a person changes is
/// found out when systemd has read them.
const FILE: &str = "50-understudy.conf";

/// What the drop-ins of a group say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// The group.
    pub group: String,
    /// The program, as the gate of a unit runs it.
    pub program: PathBuf,
    /// Where the guard answers.
    pub runtime_dir: PathBuf,
    /// How long the units may take to end after SIGTERM.
    pub stop_within: Duration,
    /// `WatchdogSec=` of the guard.
    pub watchdog: Duration,
    /// How long the guard may take to become ready, and to end.
    pub guard_within: Duration,
}

/// A file that is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    /// Where.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Where the drop-in of a unit is.
#[must_use]
pub fn path(unit_dir: &Path, unit: &str) -> PathBuf {
    unit_dir.join(format!("{unit}.d")).join(FILE)
}

impl Protection {
    /// The drop-in of the guard.
    #[must_use]
    pub fn of_guard(&self, unit_dir: &Path) -> DropIn {
        let text = format!(
            "{}[Service]\n\
             # Fed by each granted renewal; longer than the guard's own deadline.\n\
             WatchdogSec={}\n\
             TimeoutStartSec={within}\n\
             TimeoutStopSec={within}\n",
            self.head(),
            span(self.watchdog),
            within = span(self.guard_within),
        );
        DropIn { path: path(unit_dir, &names::guard_unit(&self.group)), text }
    }

    /// How long each of the `phases` steps may take in which a unit stops.
    #[must_use]
    pub fn each_of(&self, phases: u32) -> Duration {
        let each = self.stop_within / phases.max(1);
        // As systemd is told: a unit must not have more time than there is.
        Duration::from_millis(u64::try_from(each.as_millis()).unwrap_or(u64::MAX))
    }

    /// The drop-in of a unit that stops in `phases` steps.
    #[must_use]
    pub fn of_unit(&self, unit_dir: &Path, unit: &str, phases: u32) -> DropIn {
        let (guard, group) = (names::guard_unit(&self.group), &self.group);
        let program = specifierless(&self.program);
        let runtime_dir = specifierless(&self.runtime_dir);
        let elsewhere = if self.runtime_dir == Path::new("/run/understudy") {
            String::new()
        } else {
            format!(" --runtime-dir {runtime_dir}")
        };
        let text = format!(
            "{}[Unit]\n\
             # Without the guard it cannot run, and ends with it.\n\
             BindsTo={guard}\n\
             After={guard}\n\
             \n\
             [Service]\n\
             # No lease, no start, whoever asks.\n\
             ExecCondition=+{program} gate{elsewhere} {group}\n\
             # One look at this control group shows whether a process is left, one write ends all.\n\
             Slice={}\n\
             TimeoutStopSec={}\n\
             TimeoutStopFailureMode=terminate\n\
             SendSIGKILL=yes\n\
             # The token for what it writes elsewhere.\n\
             EnvironmentFile=-{runtime_dir}/{group}.env\n",
            self.head(),
            names::slice_unit(group),
            span(self.each_of(phases)),
        );
        DropIn { path: path(unit_dir, unit), text }
    }

    /// The drop-in of a unit on a primary in observed mode, which only asks who has the group.
    #[must_use]
    pub fn of_gated_unit(&self, unit_dir: &Path, unit: &str) -> DropIn {
        let text = format!(
            "{}[Service]\n\
             # While another node has the group it does not start.\n\
             ExecCondition=+{} gate --store {}\n",
            self.head(),
            specifierless(&self.program),
            self.group,
        );
        DropIn { path: path(unit_dir, unit), text }
    }

    fn head(&self) -> String {
        format!(
            "# Made by `understudy protect {group}`: do not edit.\n\
             # `understudy protect {group} --undo` removes it.\n",
            group = self.group
        )
    }
}

/// A path in a unit file, in which `%` means something.
fn specifierless(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

fn span(span: Duration) -> String {
    format!("{}ms", span.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protection() -> Protection {
        Protection {
            group: "eu-1".to_owned(),
            program: PathBuf::from("/usr/bin/understudy"),
            runtime_dir: PathBuf::from("/run/understudy"),
            stop_within: Duration::from_secs(4),
            watchdog: Duration::from_millis(11_500),
            guard_within: Duration::from_secs(17),
        }
    }

    #[test]
    fn a_unit_is_bound_gated_and_in_the_slice() {
        let dir = Path::new(UNIT_DIR);
        let drop_in = protection().of_unit(dir, "bot@a.service", 1);
        let path = "/etc/systemd/system/bot@a.service.d/50-understudy.conf";
        assert_eq!(drop_in.path, Path::new(path));
        for line in [
            "BindsTo=understudy-lease@eu\\x2d1.service",
            "After=understudy-lease@eu\\x2d1.service",
            "ExecCondition=+/usr/bin/understudy gate eu-1",
            "Slice=understudy-eu\\x2d1.slice",
            "TimeoutStopSec=4000ms",
            "EnvironmentFile=-/run/understudy/eu-1.env",
        ] {
            assert!(drop_in.text.lines().any(|l| l == line), "{line}\n{}", drop_in.text);
        }
    }

    #[test]
    fn what_stops_in_steps_has_a_part_of_the_time_for_each() {
        for (phases, expected) in [(0, 4000), (1, 4000), (2, 2000), (3, 1333)] {
            let text = protection().of_unit(Path::new(UNIT_DIR), "a.service", phases).text;
            assert!(text.contains(&format!("TimeoutStopSec={expected}ms\n")), "{text}");
        }
    }

    #[test]
    fn the_gate_is_told_of_another_directory() {
        let other = PathBuf::from("/run/50%");
        let text = Protection { runtime_dir: other, ..protection() }
            .of_unit(Path::new(UNIT_DIR), "a.service", 1)
            .text;
        assert!(text.contains("gate --runtime-dir /run/50%% eu-1\n"), "{text}");
        assert!(text.contains("EnvironmentFile=-/run/50%%/eu-1.env\n"), "{text}");
    }
}
