//! What belongs to a group's guard is called so.

use std::path::{Path, PathBuf};

/// Where systemd keeps the slices of all groups.
pub const SLICES: &str = "/sys/fs/cgroup/understudy.slice";

/// `group` as part of a unit's name. A group's name has no other letters that mean something there.
#[must_use]
pub fn escaped(group: &str) -> String {
    group.replace('-', "\\x2d")
}

/// The unit of the guard.
#[must_use]
pub fn guard_unit(group: &str) -> String {
    format!("understudy-lease@{}.service", escaped(group))
}

/// The slice that every unit of the group runs in, and nothing else.
#[must_use]
pub fn slice_unit(group: &str) -> String {
    format!("understudy-{}.slice", escaped(group))
}

/// The control group of that slice.
#[must_use]
pub fn slice_path(group: &str) -> PathBuf {
    Path::new(SLICES).join(slice_unit(group))
}

/// Where the guard answers.
#[must_use]
pub fn socket(runtime_dir: &Path, group: &str) -> PathBuf {
    runtime_dir.join(format!("{group}.lease.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_does_not_make_a_slice_in_a_slice() {
        assert_eq!(guard_unit("eu-1_a"), "understudy-lease@eu\\x2d1_a.service");
        let path = "/sys/fs/cgroup/understudy.slice/understudy-eu\\x2d1_a.slice";
        assert_eq!(slice_path("eu-1_a"), Path::new(path));
    }
}
