//! The file by which the supervisor hands a tenure to the guard: `STATE/tenures/GROUP.lease`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::observation::{Epoch, Nonce, Token};
use crate::files::{self, Boot, Name};
use crate::time::BootTime;

/// A lease that a guard is to renew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// The group.
    pub group: String,
    /// The node that it was granted to.
    pub node: String,
    /// Its fencing number.
    pub epoch: Epoch,
    /// Its identity.
    pub nonce: Nonce,
    /// The boot in which it was granted.
    boot: String,
    /// When it was asked for, in nanoseconds since that boot.
    confirmed_ns: BootTime,
}

/// Why there is no tenure to renew.
#[derive(Debug, thiserror::Error)]
pub enum TenureError {
    /// Nobody took the group here.
    #[error("this node does not hold the lease of the group ({} is not there)", path.display())]
    None {
        /// Where it would be.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It makes no sense.
    #[error("{} is damaged; understudy writes it anew when it takes the group", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It was for somebody else.
    #[error("the lease in {} was granted to {node}, not to this node", path.display())]
    OtherNode {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        node: String,
    },
    /// Its time means nothing any more.
    #[error("this node held the lease of the group before it was booted, and does not now")]
    OtherBoot,
    /// Nobody renewed it in time.
    #[error("this node held the lease of the group until {} ago, and does not now", age(*for_))]
    Old {
        /// How long ago it was asked for.
        for_: Duration,
    },
}

fn age(span: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(span.as_secs()))
}

impl Tenure {
    /// A lease of this node, asked for at `asked`.
    #[must_use]
    pub fn new(group: &str, node: &str, token: Token, boot: &Boot, asked: BootTime) -> Self {
        Self {
            group: group.to_owned(),
            node: node.to_owned(),
            epoch: token.epoch,
            nonce: token.nonce,
            boot: boot.as_str().to_owned(),
            confirmed_ns: asked,
        }
    }

    /// What proves it.
    #[must_use]
    pub fn token(&self) -> Token {
        Token { epoch: self.epoch, nonce: self.nonce }
    }

    /// When it was asked for.
    #[must_use]
    pub fn asked(&self) -> BootTime {
        self.confirmed_ns
    }

    /// Writes it. After a crash of the host it is of no use, so that nothing waits for the disk.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        files::replace(&path(state_dir, &self.group), &text, 0o600, Name::Soon)
    }

    /// Reads the tenure of a group, if it is this node's, from this boot, and was asked for less than
    /// `fence_after` ago.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(
        state_dir: &Path,
        group: &str,
        node: &str,
        boot: &Boot,
        now: BootTime,
        fence_after: Duration,
    ) -> Result<Self, TenureError> {
        let path = path(state_dir, group);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(TenureError::None { path });
            }
            Err(source) => return Err(TenureError::Read { path, source }),
        };
        let tenure: Self = match serde_json::from_slice(&text) {
            Ok(tenure) => tenure,
            Err(source) => return Err(TenureError::Damaged { path, source }),
        };
        if tenure.node != node || tenure.group != group {
            return Err(TenureError::OtherNode { path, node: tenure.node });
        }
        if tenure.boot != boot.as_str() || tenure.confirmed_ns > now {
            return Err(TenureError::OtherBoot);
        }
        let age = now.since(tenure.confirmed_ns);
        if age >= fence_after {
            return Err(TenureError::Old { for_: age });
        }
        Ok(tenure)
    }
}

fn path(state_dir: &Path, group: &str) -> PathBuf {
    state_dir.join("tenures").join(format!("{group}.lease"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenure_is_good_in_its_boot_on_its_node_and_in_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let at = |secs| BootTime::from_duration(Duration::from_secs(secs));
        let boot = Boot::of("this");
        let token = Token { epoch: Epoch(3), nonce: Nonce(9) };
        let fence_after = Duration::from_secs(10);
        let read = |node: &str, boot: &str, now| {
            Tenure::read(dir.path(), "trading", node, &Boot::of(boot), at(now), fence_after)
        };
        assert!(matches!(read("a", "this", 100), Err(TenureError::None { .. })));
        let tenure = Tenure::new("trading", "a", token, &boot, at(100));
        tenure.write(dir.path()).unwrap();
        assert_eq!(read("a", "this", 109).unwrap(), tenure);
        assert!(matches!(read("a", "this", 110), Err(TenureError::Old { .. })));
        assert!(matches!(read("a", "other", 101), Err(TenureError::OtherBoot)));
        assert!(matches!(read("a", "this", 99), Err(TenureError::OtherBoot)), "a clock went back");
        assert!(matches!(read("b", "this", 101), Err(TenureError::OtherNode { .. })));
        fs::write(path(dir.path(), "trading"), "{").unwrap();
        let error = read("a", "this", 101).unwrap_err().to_string();
        assert!(error.contains("trading.lease is damaged"), "{error}");
    }
}
