//! What is kept on disk: the memory of a tenure across crashes, the store that this node belongs
//! to, and the epoch that the units are given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::engine::event::{Cause, Memory, Progress};
use crate::engine::observation::{Epoch, Nonce, Token};
use crate::engine::plan::Step;
use crate::time::BootTime;

pub use crate::files::{Boot, Name, replace};

/// Least free space in the state directory: some hundred memories and alerts.
const STATE_MIN_BYTES: u64 = 1024 * 1024;

/// A file could not be kept or understood.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was read and makes no sense.
    #[error("{} is damaged; move it away, and understudy starts without a memory", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

/// Where the memory of a group is.
#[must_use]
pub fn memory_path(state_dir: &Path, group: &str) -> PathBuf {
    state_dir.join("tenures").join(format!("{group}.json"))
}

/// Where the environment file for the units of a group is.
#[must_use]
pub fn environment_path(runtime_dir: &Path, group: &str) -> PathBuf {
    runtime_dir.join(format!("{group}.env"))
}

/// Where copies of data sets go that a Redis had before it followed another one.
#[must_use]
pub fn copies_path(state_dir: &Path) -> PathBuf {
    state_dir.join("copies")
}

/// A memory as it stands on disk.
#[derive(Debug, Serialize, Deserialize)]
struct StoredMemory {
    node: String,
    boot_id: String,
    boot_time_ms: u64,
    nonce: Uuid,
    cause: StoredCause,
    progress: StoredProgress,
    max_epoch: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredCause {
    Automatic,
    Operator,
    Forced,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredProgress {
    Asked,
    At(String),
    Complete,
    Leaving,
    Over,
}

/// A memory that was read back, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMemory {
    /// What was remembered.
    pub memory: Memory,
    /// Whether it was written in this boot.
    pub same_boot: bool,
    /// How long ago, if it was written in this boot.
    pub age: Option<Duration>,
}

/// Puts a memory on disk, so that it is there after a crash of the process or the host.
///
/// # Errors
/// If it could not be written; the old memory is whole then.
pub fn write_memory(
    state_dir: &Path,
    node: &str,
    group: &str,
    boot: &Boot,
    memory: &Memory,
) -> Result<(), FileError> {
    let stored = StoredMemory {
        node: node.to_owned(),
        boot_id: boot.as_str().to_owned(),
        boot_time_ms: u64::try_from(BootTime::now().since_boot().as_millis()).unwrap_or(u64::MAX),
        nonce: Uuid::from_u128(memory.nonce.0),
        cause: match memory.cause {
            Cause::Automatic => StoredCause::Automatic,
            Cause::Operator => StoredCause::Operator,
            Cause::Forced => StoredCause::Forced,
        },
        progress: match memory.progress {
            Progress::Asked => StoredProgress::Asked,
            Progress::At(step) => StoredProgress::At(step.name().to_owned()),
            Progress::Complete => StoredProgress::Complete,
            Progress::Leaving => StoredProgress::Leaving,
            Progress::Over => StoredProgress::Over,
        },
        max_epoch: memory.max_epoch.0,
    };
    let path = memory_path(state_dir, group);
    let text = serde_json::to_vec_pretty(&stored)
        .map_err(|source| FileError::Damaged { path: path.clone(), source })?;
    // What was asked for, and that all is done, must be found after a crash of the host. Which step is
    // under way may be that of an earlier one then: steps can be repeated, and after a reboot they are
    // from the first on. One wait for the disk less is a good part of a step.
    let name = match memory.progress {
        Progress::Asked | Progress::Complete | Progress::Leaving | Progress::Over => Name::OnDisk,
        Progress::At(_) => Name::Soon,
    };
    replace(&path, &text, 0o600, name).map_err(|source| FileError::Write { path, source })
}

/// Reads a memory back; `None` if there is none, or if it was written under another node's name.
///
/// # Errors
/// If it cannot be read or makes no sense. To go on without it could repeat a takeover, so that is
/// for a person to decide.
pub fn read_memory(
    state_dir: &Path,
    node: &str,
    group: &str,
    boot: &Boot,
) -> Result<Option<ReadMemory>, FileError> {
    let Some(stored) = read_stored(state_dir, node, group)? else { return Ok(None) };
    let same_boot = stored.boot_id == boot.as_str();
    let written = BootTime::from_duration(Duration::from_millis(stored.boot_time_ms));
    let progress = match stored.progress {
        StoredProgress::Asked => Progress::Asked,
        // A step of a later version: from the first one on is always right, as steps can be
        // repeated.
        StoredProgress::At(name) => Progress::At(Step::from_name(&name).unwrap_or(Step::Fence)),
        StoredProgress::Complete => Progress::Complete,
        StoredProgress::Leaving => Progress::Leaving,
        StoredProgress::Over => Progress::Over,
    };
    let memory = Memory {
        nonce: Nonce(stored.nonce.as_u128()),
        cause: match stored.cause {
            StoredCause::Automatic => Cause::Automatic,
            StoredCause::Operator => Cause::Operator,
            StoredCause::Forced => Cause::Forced,
        },
        progress,
        max_epoch: Epoch(stored.max_epoch),
    };
    let age = same_boot.then(|| BootTime::now().since(written));
    Ok(Some(ReadMemory { memory, same_boot, age }))
}

/// The highest epoch in a memory, which is 0 without one.
///
/// # Errors
/// As of [`read_memory`].
pub fn remembered_epoch(state_dir: &Path, node: &str, group: &str) -> Result<Epoch, FileError> {
    let stored = read_stored(state_dir, node, group)?;
    Ok(Epoch(stored.map_or(0, |stored| stored.max_epoch)))
}

fn read_stored(
    state_dir: &Path,
    node: &str,
    group: &str,
) -> Result<Option<StoredMemory>, FileError> {
    let path = memory_path(state_dir, group);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Read { path, source }),
    };
    let stored: StoredMemory =
        serde_json::from_slice(&text).map_err(|source| FileError::Damaged { path, source })?;
    Ok((stored.node == node).then_some(stored))
}

/// Writes the environment file for the units of a group and reads it back.
///
/// # Errors
/// If it could not be written, or says something else afterwards.
pub fn write_environment(
    runtime_dir: &Path,
    node: &str,
    group: &str,
    token: Token,
) -> Result<(), FileError> {
    let path = environment_path(runtime_dir, group);
    let text = format!(
        "UNDERSTUDY_GROUP={group}\nUNDERSTUDY_NODE={node}\nUNDERSTUDY_EPOCH={}\n\
         UNDERSTUDY_NONCE={}\n",
        token.epoch,
        Uuid::from_u128(token.nonce.0)
    );
    // Readable by the units, whatever user they run as; there is no secret in it.
    replace(&path, text.as_bytes(), 0o644, Name::OnDisk)
        .map_err(|source| FileError::Write { path: path.clone(), source })?;
    let read = fs::read_to_string(&path)
        .map_err(|source| FileError::Read { path: path.clone(), source })?;
    if read == text {
        Ok(())
    } else {
        let source = io::Error::other("it says something else after it was written");
        Err(FileError::Write { path, source })
    }
}

/// The store that this node belongs to, noted at the first read. Another one, such as a copy for
/// tests, must not decide about this node's units.
///
/// # Errors
/// If the note cannot be read or written.
pub fn pinned_store(state_dir: &Path, present: &str) -> Result<String, FileError> {
    let path = state_dir.join("store");
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => pin(path, present),
        Err(error) if error.kind() == io::ErrorKind::NotFound => pin(path, present),
        Err(source) => Err(FileError::Read { path, source }),
    }
}

fn pin(path: PathBuf, present: &str) -> Result<String, FileError> {
    replace(&path, format!("{present}\n").as_bytes(), 0o600, Name::OnDisk)
        .map_err(|source| FileError::Write { path, source })?;
    Ok(present.to_owned())
}

/// Whether memories can be written. A node that cannot remember must not take over.
///
/// # Errors
/// Why not, in words.
pub fn state_directory_usable(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| {
        format!("the state directory {} cannot be made: {error}", path.display())
    })?;
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).map_err(|error| {
        format!("the state directory {} cannot be written to: {error}", path.display())
    })?;
    let bytes = free_bytes(path)
        .map_err(|error| format!("the state directory {}: {error}", path.display()))?;
    if bytes < STATE_MIN_BYTES {
        return Err(format!(
            "the disk of the state directory {} is full ({bytes} bytes left)",
            path.display()
        ));
    }
    Ok(())
}

/// What is left on the disk that `path` is on, for a user who is not root.
///
/// # Errors
/// If there is no such path.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let free = nix::sys::statvfs::statvfs(path)?;
    Ok(free.blocks_available().saturating_mul(free.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(progress: Progress) -> Memory {
        Memory { nonce: Nonce(7), cause: Cause::Automatic, progress, max_epoch: Epoch(3) }
    }

    #[test]
    fn a_memory_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        for progress in
            [Progress::Asked, Progress::At(Step::Flip), Progress::Complete, Progress::Over]
        {
            let boot = Boot::identify(&dir.path().join("run"));
            write_memory(dir.path(), "b", "trading", &boot, &memory(progress)).unwrap();
            let boot = Boot::identify(&dir.path().join("run"));
            let read = read_memory(dir.path(), "b", "trading", &boot).unwrap().unwrap();
            assert_eq!(read.memory, memory(progress));
            assert!(read.same_boot && read.age.unwrap() < Duration::from_secs(60));
        }
    }

    #[test]
    fn a_runtime_directory_that_was_emptied_means_another_boot() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::identify(&dir.path().join("run"));
        write_memory(dir.path(), "b", "trading", &boot, &memory(Progress::Complete)).unwrap();
        fs::remove_dir_all(dir.path().join("run")).unwrap();
        let boot = Boot::identify(&dir.path().join("run"));
        let read = read_memory(dir.path(), "b", "trading", &boot).unwrap().unwrap();
        assert_eq!((read.same_boot, read.age), (false, None));
    }

    #[test]
    fn no_memory_is_no_error_and_another_nodes_memory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::of("this");
        assert_eq!(read_memory(dir.path(), "b", "trading", &boot).unwrap(), None);
        write_memory(dir.path(), "b", "trading", &boot, &memory(Progress::Asked)).unwrap();
        assert_eq!(read_memory(dir.path(), "c", "trading", &boot).unwrap(), None);
    }

    #[test]
    fn a_damaged_memory_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::of("this");
        write_memory(dir.path(), "b", "trading", &boot, &memory(Progress::Asked)).unwrap();
        for damage in ["", "{", "null", "\0\0\0"] {
            fs::write(memory_path(dir.path(), "trading"), damage).unwrap();
            let error = read_memory(dir.path(), "b", "trading", &boot).unwrap_err().to_string();
            assert!(error.contains("trading.json is damaged"), "{error}");
        }
    }

    #[test]
    fn the_store_is_pinned_by_its_first_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(pinned_store(dir.path(), "one").unwrap(), "one");
        assert_eq!(pinned_store(dir.path(), "two").unwrap(), "one");
    }

    #[test]
    fn the_environment_file_has_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token { epoch: Epoch(4), nonce: Nonce(1) };
        write_environment(dir.path(), "b", "trading", token).unwrap();
        let text = fs::read_to_string(environment_path(dir.path(), "trading")).unwrap();
        assert_eq!(
            text,
            "UNDERSTUDY_GROUP=trading\nUNDERSTUDY_NODE=b\nUNDERSTUDY_EPOCH=4\n\
             UNDERSTUDY_NONCE=00000000-0000-0000-0000-000000000001\n"
        );
    }
}
