//! Files that appear whole or not at all, and stay.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;

/// What the names of files begin with that are being written. One that is left over is of a crash,
/// and nobody was promised what is in it.
pub(super) const TEMPORARY: &str = "tmp.";

/// Makes a file appear whole, and be there after a crash of the host.
pub(super) fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let temporary = directory.join(format!("{TEMPORARY}{}", name.to_string_lossy()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory(directory)
    })();
    if written.is_err() {
        // It may not even exist; if it does it is removed when the outbox is opened next.
        let _left = fs::remove_file(&temporary);
    }
    written
}

/// Makes what happened to the names in a directory survive a crash of the host.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Names of the files in a directory, in order; directories left out.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether this process or the system ran out of something for a moment.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}
