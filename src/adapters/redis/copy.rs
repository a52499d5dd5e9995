//! A copy of a data set, before it is given up: `STATE/copies/GROUP-TIME-RUNID.rdb`.
//!
//! A server that becomes a replica drops what it has. So what it has is asked for over the
//! replication protocol, as a replica would, and is on disk, whole, before anything else happens. It
//! is an ordinary RDB file: `redis-server --dbfilename` loads it. Beside it lies a note that says
//! of which state of which server it is, so that an interrupted rejoin does not copy twice.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use redis::cmd;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncWriteExt;

use super::connection::RedisError;
use super::transfer::{Damage, Ending, Transfer};
use super::wire::Wire;
use crate::config::settings::{self, Host};

/// Copies of a group that are kept however old they are: whoever comes back from a holiday after a
/// bad night still finds what the last three failovers gave up.
pub(super) const KEPT_MIN: usize = 3;

/// No copy is removed that is younger, however many there are: somebody has to find the time to look.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a copy leaves free on the disk, for memories, alerts and records.
pub const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// How long the server may send nothing. It sends an empty line every second while it writes, and
/// itself gives up a replica that is silent for this long (`repl-timeout`).
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Between two reports of progress.
const REPORT_EVERY_BYTES: u64 = 8 * 1024 * 1024;

/// Length of `TIME-RUNID.rdb` in the name of a copy.
const SUFFIX_BYTES: usize = "20260131T235959Z-0123abcd.rdb".len();

/// A copy of a data set on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// An earlier attempt made it, and nothing was written since.
    pub reused: bool,
}

/// Which state of which server a copy is of. Whatever is written changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Process of the server.
    pub(super) run_id: String,
    /// Its history.
    pub(super) replid: String,
    /// How far that goes.
    pub(super) offset: u64,
}

/// The note beside a copy.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    group: String,
    server: String,
    new_master: String,
    keys: u64,
    bytes: u64,
    #[serde(flatten)]
    state: State,
}

/// What a copy is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) group: &'a str,
    /// Directory of the copies.
    pub(super) directory: &'a Path,
    /// Whose data set.
    pub(super) server: &'a Host,
    pub(super) settings: &'a settings::Redis,
    pub(super) run_id: &'a str,
}

/// Why there is no copy. What was begun is removed.
#[derive(Debug, Error)]
pub enum CopyFault {
    /// The directory of the copies cannot be used.
    #[error("the directory for copies {} cannot be used", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is too little room for it.
    #[error(
        "the disk of {} has {} MiB left, a copy of the data set needs up to {} MiB",
        path.display(), mebibytes(*free), mebibytes(*needed)
    )]
    NoRoom {
        /// Where it should go.
        path: PathBuf,
        /// Bytes that it takes, and that have to be left.
        needed: u64,
        /// Bytes that there are.
        free: u64,
    },
    /// It could not be written.
    #[error("cannot write the copy {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server did not send it.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// What it sent is no data set.
    #[error("what redis at {address} sent is not a whole data set: {damage}")]
    Damaged {
        /// Which server.
        address: String,
        /// What is wrong.
        damage: Damage,
    },
}

impl CopyFault {
    /// Whether the same call may well succeed in a moment.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Redis(error) => error.retryable() || matches!(error.code(), Some("NOMASTERLINK")),
            Self::Damaged { .. } => true,
            Self::Directory { .. } | Self::NoRoom { .. } | Self::Write { .. } => false,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "Let the user understudy write this directory.",
            Self::NoRoom { .. } => {
                "Make room on this disk; old copies in this directory that nobody needs may go. \
                 Until then the data set stays as it is, and this redis does not become a replica."
            }
            Self::Write { .. } => {
                "Make room, or mend the disk. Until then the data set stays as it is, and this redis \
                 does not become a replica."
            }
            Self::Redis(error) if error.code() == Some("NOPERM") => {
                "Give the ACL user +psync +replconf."
            }
            Self::Redis(error) => error.remedy(),
            Self::Damaged { .. } => {
                "Look into the log of redis; `redis-cli --rdb FILE` and `redis-check-rdb FILE` show \
                 whether it can hand out its data at all."
            }
        }
    }
}

/// Makes room for a copy of a data set, as far as old ones may go, and sees that there is enough.
/// `memory_bytes` is what it takes up in memory; on disk it is smaller.
pub(super) fn prepare(directory: &Path, group: &str, memory_bytes: u64) -> Result<(), CopyFault> {
    make(directory)
        .map_err(|source| CopyFault::Directory { path: directory.to_owned(), source })?;
    remove_unfinished(directory, group);
    tidy(directory, group);
    room(directory, memory_bytes)
}

/// Copies the data set as it is at some moment during the call. It is on disk afterwards, under a
/// name that only whole copies have.
pub(super) async fn save(
    request: &Request<'_>,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<Kept, CopyFault> {
    let directory = request.directory;
    let mut wire = Wire::open(request.server, request.settings).await?;
    let ending = ask(&mut wire).await?;
    if let Some(bytes) = ending.bytes() {
        room(directory, bytes)?;
    }
    let path = directory.join(name(request.group, SystemTime::now(), request.run_id));
    let partial = partial(&path);
    let received = receive(&mut wire, request, ending, &partial, &mut progress).await;
    let placed = match received {
        Ok(bytes) => place(&partial, &path)
            .map(|()| Kept { path: path.clone(), bytes, reused: false })
            .map_err(|source| CopyFault::Write { path: path.clone(), source }),
        Err(fault) => Err(fault),
    };
    if placed.is_err() {
        // It may not have been made; and what is left is removed by the next attempt.
        let _absent = fs::remove_file(&partial);
    }
    let kept = placed?;
    tidy(directory, request.group);
    Ok(kept)
}

/// Notes that nothing was written on the server from the copy to this state.
pub(super) fn note(
    kept: &Kept,
    group: &str,
    server: &str,
    new_master: &str,
    keys: u64,
    state: &State,
) {
    let (group, server) = (group.to_owned(), server.to_owned());
    let (new_master, state) = (new_master.to_owned(), state.clone());
    let note = Note { group, server, new_master, keys, bytes: kept.bytes, state };
    let written = serde_json::to_vec_pretty(&note)
        .map_err(io::Error::other)
        .and_then(|text| write_note(&note_path(&kept.path), &text));
    if let Err(error) = written {
        let path = kept.path.display();
        tracing::warn!(%error, copy = %path, "no note beside the copy; it would be made once more");
    }
}

/// A copy of exactly this state that an earlier attempt made.
pub(super) fn earlier(directory: &Path, group: &str, state: &State) -> Option<Kept> {
    copies(directory, group).into_iter().rev().find_map(|(path, metadata)| {
        let text = fs::read(note_path(&path)).ok()?;
        let note = serde_json::from_slice::<Note>(&text).ok()?;
        let same = note.state == *state && note.bytes == metadata.size();
        same.then(|| Kept { path, bytes: metadata.size(), reused: true })
    })
}

/// Whether a copy could be made now, without making so much as its directory: who asks may be another
/// user, to whom it would belong then.
pub(super) fn would_fit(directory: &Path, memory_bytes: u64) -> Result<(), CopyFault> {
    let place = directory.ancestors().find(|path| path.is_dir()).unwrap_or(directory);
    writable(place)
        .map_err(|source| CopyFault::Directory { path: directory.to_owned(), source })?;
    room(place, memory_bytes)
}

/// Whether a data set that takes `bytes` would fit.
fn room(directory: &Path, bytes: u64) -> Result<(), CopyFault> {
    let fail = |source: io::Error| CopyFault::Directory { path: directory.to_owned(), source };
    let disk = nix::sys::statvfs::statvfs(directory).map_err(|error| fail(error.into()))?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let needed = bytes.saturating_add(RESERVE_BYTES);
    if free < needed {
        return Err(CopyFault::NoRoom { path: directory.to_owned(), needed, free });
    }
    Ok(())
}

/// Makes the directory, for its owner alone: copies are as secret as the data.
fn make(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    writable(directory)
}

fn writable(directory: &Path) -> io::Result<()> {
    nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).map_err(io::Error::from)
}

/// Says that a replica wants everything, and returns how the end will be known.
async fn ask(wire: &mut Wire) -> Result<Ending, CopyFault> {
    // With this the server need not write to its own disk first, which may be full.
    let mark = wire.ask(cmd("REPLCONF").arg("capa").arg("eof"), SILENCE_MAX).await?;
    if mark.starts_with('-') {
        return Err(wire.refused("REPLCONF", mark.trim_start_matches('-')).into());
    }
    // It then closes the connection behind the data set. A server that does not know this goes on
    // with what is written since, which is not read.
    wire.ask(cmd("REPLCONF").arg("rdb-only").arg("1"), SILENCE_MAX).await?;
    let answer = wire.ask(cmd("PSYNC").arg("?").arg("-1"), SILENCE_MAX).await?;
    if let Some(refusal) = answer.strip_prefix('-') {
        return Err(wire.refused("PSYNC", refusal).into());
    }
    if !answer.starts_with("+FULLRESYNC") {
        return Err(wire.senseless(answer.chars().take(80).collect()).into());
    }
    let line = wire.line(SILENCE_MAX).await?;
    Ending::parse(&line).map_err(|what| wire.senseless(what).into())
}

async fn receive(
    wire: &mut Wire,
    request: &Request<'_>,
    ending: Ending,
    partial: &Path,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<u64, CopyFault> {
    let fail = |source| CopyFault::Write { path: partial.to_owned(), source };
    let mut options = tokio::fs::File::options();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(partial).await.map_err(fail)?;
    let total = ending.bytes();
    let mut transfer = Transfer::new(ending);
    let mut buffer = Wire::buffer();
    let mut reported = 0;
    progress(0, total);
    loop {
        wire.bytes(&mut buffer, SILENCE_MAX).await?;
        let (data, complete) = transfer.take(&buffer).map_err(|damage| CopyFault::Damaged {
            address: super::connection::name(request.server),
            damage,
        })?;
        file.write_all(&data).await.map_err(fail)?;
        if complete || transfer.bytes() - reported >= REPORT_EVERY_BYTES {
            reported = transfer.bytes();
            progress(reported, total);
        }
        if complete {
            break;
        }
    }
    // Data that were handed over to be written may fail to be only now.
    file.flush().await.map_err(fail)?;
    file.sync_all().await.map_err(fail)?;
    Ok(transfer.bytes())
}

/// Gives a whole copy its name.
fn place(partial: &Path, path: &Path) -> io::Result<()> {
    fs::rename(partial, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn write_note(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("json.new");
    fs::write(&new, text)?;
    fs::File::open(&new)?.sync_all()?;
    place(&new, path)
}

/// `GROUP-20260131T235959Z-0123abcd.rdb`: by name they are in the order of time.
fn name(group: &str, now: SystemTime, run_id: &str) -> String {
    let time = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
    // A server that says nonsense does not choose where the copy goes.
    let run_id: String = run_id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("{group}-{time}-{run_id:0<8}.rdb")
}

fn partial(path: &Path) -> PathBuf {
    path.with_extension("rdb.unfinished")
}

fn note_path(path: &Path) -> PathBuf {
    path.with_extension("json")
}

/// Whether a file of this name is a copy of this group.
fn is_copy(name: &str, group: &str) -> bool {
    let suffix = name.strip_prefix(group).and_then(|rest| rest.strip_prefix('-'));
    suffix.is_some_and(|suffix| {
        suffix.len() == SUFFIX_BYTES
            && suffix.ends_with(".rdb")
            && suffix.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
    })
}

/// Whole copies of a group, the oldest first.
fn copies(directory: &Path, group: &str) -> Vec<(PathBuf, fs::Metadata)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut copies: Vec<_> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| is_copy(name, group)))
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .collect();
    copies.sort_by(|a, b| a.0.cmp(&b.0));
    copies
}

/// Removes copies that are old and not among the last. One that cannot be removed is only in the way.
fn tidy(directory: &Path, group: &str) {
    let age = |metadata: &fs::Metadata| {
        // A time in the future is that of a clock that was set back: young, as far as one knows.
        let written = metadata.modified().ok()?;
        Some(SystemTime::now().duration_since(written).unwrap_or(Duration::ZERO))
    };
    let copies = copies(directory, group);
    let ages: Vec<_> = copies.iter().map(|(_, metadata)| age(metadata)).collect();
    for index in surplus(&ages) {
        let path = &copies[index].0;
        let removed = fs::remove_file(path).and_then(|()| match fs::remove_file(note_path(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
        match removed {
            Ok(()) => tracing::info!(copy = %path.display(), "removed an old copy of a data set"),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, copy = %path, "an old copy of a data set cannot be removed");
            }
        }
    }
}

/// Which of the copies, given by their ages with the oldest first, nobody needs any more.
fn surplus(ages: &[Option<Duration>]) -> Vec<usize> {
    let old = |age: &Option<Duration>| age.is_some_and(|age| age >= KEPT_FOR);
    let last = ages.len().saturating_sub(KEPT_MIN);
    (0..last).filter(|&index| old(&ages[index])).collect()
}

/// What an attempt left that was killed.
fn remove_unfinished(directory: &Path, group: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let copy = name.to_str().and_then(|name| name.strip_suffix(".unfinished"));
        if copy.is_some_and(|name| is_copy(name, group))
            && let Err(error) = fs::remove_file(entry.path())
        {
            let path = entry.path();
            tracing::warn!(%error, path = %path.display(), "an unfinished copy cannot be removed");
        }
    }
}

const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn only_old_copies_go_and_never_the_last_three() {
        let days = |ages: &[u32]| ages.iter().map(|days| Some(DAY * *days)).collect::<Vec<_>>();
        assert_eq!(surplus(&days(&[90, 80, 70])), Vec::<usize>::new());
        assert_eq!(surplus(&days(&[90, 80, 70, 60, 50])), [0, 1]);
        assert_eq!(surplus(&days(&[90, 8, 6, 3, 2, 1])), [0, 1], "younger than a week stay");
        let limit = [Some(KEPT_FOR), Some(KEPT_FOR - Duration::from_secs(1)), None, None, None];
        assert_eq!(surplus(&limit), [0], "an age that is not known is no great age");
        assert_eq!(surplus(&[]), Vec::<usize>::new());
    }

    #[test]
    fn a_copy_has_a_name_that_sorts_by_time_and_belongs_to_one_group() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000);
        let copy = name("trading", time, "0123abcdef");
        assert_eq!(copy, "trading-20261130T005320Z-0123abcd.rdb");
        assert!(is_copy(&copy, "trading"));
        for group in ["trad", "trading-2", "trading-20261130T005320Z"] {
            assert!(!is_copy(&copy, group), "{group}");
        }
        assert!(!is_copy(&name("trading-eu", time, "0123abcdef"), "trading"));
        for other in ["trading.json", "trading-20261130T005320Z-0123abcd.rdb.unfinished", ""] {
            assert!(!is_copy(other, "trading"), "{other}");
        }
        assert_eq!(name("g", time, "../../x"), "g-20261130T005320Z-00000000.rdb");
    }

    #[test]
    fn old_copies_of_this_group_are_removed_with_their_notes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, age: Duration| {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        for day in 1..=5 {
            write(&format!("trading-2026010{day}T000000Z-0123abcd.rdb"), DAY * 30);
            write(&format!("trading-2026010{day}T000000Z-0123abcd.json"), DAY * 30);
        }
        write("trading-20260101T000000Z-89abcdef.rdb", DAY * 6);
        write("trading-2-20260101T000000Z-0123abcd.rdb", DAY * 30);
        write("trading-20260106T000000Z-0123abcd.rdb.unfinished", DAY);
        write("mine.rdb", DAY * 30);
        prepare(dir.path(), "trading", 0).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let kept = (3..=5).flat_map(|day| {
            ["json", "rdb"].map(|kind| format!("trading-2026010{day}T000000Z-0123abcd.{kind}"))
        });
        let mut expected: Vec<_> = kept.collect();
        expected.extend(
            [
                "trading-20260101T000000Z-89abcdef.rdb",
                "trading-2-20260101T000000Z-0123abcd.rdb",
                "mine.rdb",
            ]
            .map(str::to_owned),
        );
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn an_earlier_copy_counts_only_for_the_very_same_state() {
        let dir = tempfile::tempdir().unwrap();
        let state = State { run_id: "r".to_owned(), replid: "h".to_owned(), offset: 7 };
        let path = dir.path().join("trading-20260101T000000Z-0123abcd.rdb");
        fs::write(&path, "twelve bytes").unwrap();
        let kept = Kept { path: path.clone(), bytes: 12, reused: false };
        note(&kept, "trading", "a:1", "b:1", 3, &state);
        let found = earlier(dir.path(), "trading", &state).unwrap();
        assert_eq!(found, Kept { reused: true, ..kept });
        for other in [
            State { run_id: "s".to_owned(), ..state.clone() },
            State { replid: "i".to_owned(), ..state.clone() },
            State { offset: 8, ..state.clone() },
        ] {
            assert_eq!(earlier(dir.path(), "trading", &other), None);
        }
        assert_eq!(earlier(dir.path(), "other", &state), None);
        fs::write(&path, "less").unwrap();
        assert_eq!(earlier(dir.path(), "trading", &state), None, "not whole any more");
    }
}
