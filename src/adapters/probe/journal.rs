//! What units wrote into the journal, read by `journalctl`.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Matches that are counted. Who has more has a flood, and knows enough.
const MATCHES_MAX: u64 = 1_000_000;

/// What is kept of a complaint.
const COMPLAINT_BYTES_MAX: usize = 4 * 1024;

/// What is kept of an entry, whose time is near its beginning.
const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// Where programs are found, whatever our own environment says.
const PATH: &str = "/usr/bin:/bin";

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search<'a> {
    /// The unit, or its present run by the number that systemd gave to it.
    pub of: Of<'a>,
    /// What a message must match.
    pub pattern: &'a str,
    /// How far back.
    pub within: Option<Duration>,
}

/// Whose messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// A unit's.
    Unit(&'a str),
    /// Those of one run of a unit.
    Run(String),
}

/// How many messages match.
///
/// # Errors
/// If the journal cannot be read, in words.
pub async fn count(search: &Search<'_>) -> Result<u64, String> {
    let mut entries = 0;
    read(search, &[], |bytes| {
        // An entry is a line, however long its message.
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
        entries += u64::try_from(ends).unwrap_or(u64::MAX);
        entries < MATCHES_MAX
    })
    .await?;
    Ok(entries)
}

/// When the newest of them was written, or the oldest.
///
/// # Errors
/// If the journal cannot be read, in words.
pub async fn when(search: &Search<'_>, newest: bool) -> Result<Option<SystemTime>, String> {
    let mut line: Vec<u8> = Vec::new();
    let arguments: &[&str] = if newest { &["--lines=1"] } else { &[] };
    read(search, arguments, |bytes| {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        line.extend(bytes.iter().take(end.unwrap_or(bytes.len())));
        end.is_none() && line.len() < ENTRY_BYTES_MAX
    })
    .await?;
    let Ok(entry) = serde_json::from_slice::<serde_json::Value>(&line) else { return Ok(None) };
    let micros = entry.get("__REALTIME_TIMESTAMP").and_then(|at| at.as_str()?.parse().ok());
    Ok(micros.map(|micros| UNIX_EPOCH + Duration::from_micros(micros)))
}

/// Runs `journalctl` and hands over what it prints, piece by piece, until `take` has enough. It dies
/// with this future.
async fn read(
    search: &Search<'_>,
    arguments: &[&str],
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<(), String> {
    let mut command = Command::new("journalctl");
    command.env_clear().env("PATH", PATH).env("SYSTEMD_COLORS", "0").current_dir("/");
    command.args(["--no-pager", "--output=json", "--output-fields=_PID", "--case-sensitive=true"]);
    command.args(arguments).arg(format!("--grep={}", search.pattern));
    if let Some(within) = search.within {
        command.arg(format!("--since=-{}s", within.as_secs().max(1)));
    }
    match &search.of {
        Of::Unit(unit) => command.arg(format!("--unit={unit}")),
        Of::Run(invocation) => command.arg(format!("_SYSTEMD_INVOCATION_ID={invocation}")),
    };
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| format!("journalctl cannot be run: {error}"))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("journalctl has no output".to_owned());
    };
    let (enough, complaint) = tokio::join!(entries(stdout, &mut take), complaint(stderr));
    if enough {
        // Its answer does not matter any more.
        return Ok(());
    }
    let status = child.wait().await.map_err(|error| format!("journalctl: {error}"))?;
    if complaint.contains("insufficient permissions") || complaint.contains("not seeing messages") {
        return Err(
            "the journal may not be read by this user; add it to the group systemd-journal"
                .to_owned(),
        );
    }
    // With a pattern, 1 also means that nothing matches.
    if !status.success() && !complaint.is_empty() {
        return Err(format!("journalctl: {complaint}"));
    }
    Ok(())
}

/// Whether `take` had enough before the end. If so, the rest is not read.
async fn entries(mut pipe: impl AsyncRead + Unpin, take: &mut impl FnMut(&[u8]) -> bool) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    let mut begun = false;
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        // "-- No entries --" is no entry.
        if !begun && bytes.first() != Some(&b'{') {
            return false;
        }
        begun = true;
        if !take(bytes) {
            return true;
        }
    }
    false
}

async fn complaint(mut pipe: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = COMPLAINT_BYTES_MAX - kept.len();
        kept.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
