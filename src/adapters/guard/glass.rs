//! Break-glass: an operator says that the units of a group run on this node without a lease.
//!
//! The file is in the runtime directory, so that a reboot mends it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, Name};

/// Who broke the glass, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Where it is noted.
#[must_use]
pub fn path(runtime_dir: &Path, group: &str) -> PathBuf {
    runtime_dir.join(format!("{group}.break-glass"))
}

/// Who broke the glass of a group and why; `None` if nobody did.
///
/// A file that cannot be understood was made by somebody, too, most likely in a hurry: it counts. One
/// that cannot be read does not.
#[must_use]
pub fn broken(runtime_dir: &Path, group: &str) -> Option<Broken> {
    let text = fs::read(path(runtime_dir, group)).ok()?;
    Some(serde_json::from_slice(&text).unwrap_or_else(|_| Broken {
        by: "somebody".to_owned(),
        reason: String::from_utf8_lossy(&text).trim().chars().take(200).collect(),
    }))
}

/// Breaks it.
///
/// # Errors
/// If it cannot be noted.
pub fn break_it(runtime_dir: &Path, group: &str, broken: &Broken) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(broken).map_err(io::Error::other)?;
    files::replace(&path(runtime_dir, group), &text, 0o644, Name::Soon)
}

/// Mends it. Says whether it was broken.
///
/// # Errors
/// If the note cannot be removed.
pub fn mend(runtime_dir: &Path, group: &str) -> io::Result<bool> {
    match fs::remove_file(path(runtime_dir, group)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_glass_stays_so_until_it_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(broken(dir.path(), "trading"), None);
        let note = Broken { by: "anna@a".to_owned(), reason: "the store is gone".to_owned() };
        break_it(dir.path(), "trading", &note).unwrap();
        assert_eq!(broken(dir.path(), "trading"), Some(note));
        assert_eq!(broken(dir.path(), "other"), None);
        assert!(mend(dir.path(), "trading").unwrap());
        assert!(!mend(dir.path(), "trading").unwrap());
        fs::write(path(dir.path(), "trading"), "store on fire\n").unwrap();
        assert_eq!(broken(dir.path(), "trading").unwrap().reason, "store on fire");
    }
}
