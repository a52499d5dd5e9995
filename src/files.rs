//! Files that are replaced whole, and the mark of this boot that tells what is in them from what an
//! earlier boot left.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use uuid::Uuid;

/// Which boot of the host this is.
///
/// What the kernel says is not enough: in a container it may be that of the host, which stays the
/// same when the container boots again. So a mark in the runtime directory, which every boot empties,
/// has to be the same too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot(String);

impl Boot {
    /// The one that is called so in a file.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Its name, for a file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This one. A boot whose identity cannot be read is like no other, so that nothing from before
    /// it counts as recent.
    #[must_use]
    pub fn identify(runtime_dir: &Path) -> Self {
        let unknown = || Uuid::new_v4().to_string();
        let kernel = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let kernel = kernel.map_or_else(|_| unknown(), |id| id.trim().to_owned());
        let path = runtime_dir.join("boot");
        let mark = match fs::read_to_string(&path) {
            Ok(mark) if !mark.is_empty() => mark,
            Ok(_) | Err(_) => {
                let mark = unknown();
                if let Err(error) = replace(&path, mark.as_bytes(), 0o600, Name::Soon) {
                    let path = path.display();
                    tracing::warn!(%error, %path, "cannot mark this boot; a restart looks like one");
                }
                mark
            }
        };
        Self(format!("{kernel} {mark}"))
    }
}

/// When a replaced file has its new content after a crash of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// From now on.
    OnDisk,
    /// Within seconds, as the file system likes; until then it has the old one.
    Soon,
}

/// Replaces a file whole: after a crash it has the old content or the new one.
///
/// # Errors
/// If it could not be written; the old file is whole then.
pub fn replace(path: &Path, content: &[u8], mode: u32, name: Name) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let new = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&new)?;
    // The mode above is cut by the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match name {
        Name::OnDisk => File::open(directory)?.sync_all(),
        Name::Soon => Ok(()),
    }
}
