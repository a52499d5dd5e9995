//! What systemd is told, without ever waiting for it: a systemd that hangs must not hold up a guard.

use std::env;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg, sendto};

/// Units may start.
pub const READY: &[u8] = b"READY=1\nWATCHDOG=1\nSTATUS=holds the lease";

/// As [`READY`], behind broken glass.
pub const READY_WITHOUT_LEASE: &[u8] =
    b"READY=1\nWATCHDOG=1\nSTATUS=BREAK-GLASS: units run without a lease";

/// A renewal was granted.
pub const FEED: &[u8] = b"WATCHDOG=1";

/// The units are to stop. To systemd a unit that stops takes along what is bound to it, so that it
/// begins to stop the units as their files say; this is the whole point of the message.
pub const FENCE: &[u8] = b"WATCHDOG=1\nSTOPPING=1\nSTATUS=stops the units";

/// The socket on which systemd listens, if there is one.
#[derive(Debug)]
pub struct Notify {
    to: Option<(UnixDatagram, UnixAddr)>,
}

impl Notify {
    /// Finds it in `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// If there is one and it has no valid name.
    pub fn from_environment() -> io::Result<Self> {
        Self::at(env::var_os("NOTIFY_SOCKET"))
    }

    /// Sends to a socket of this name; `@` stands for a name outside of any file system.
    ///
    /// # Errors
    /// If it is no valid name.
    pub fn at(name: Option<OsString>) -> io::Result<Self> {
        let Some(name) = name else { return Ok(Self { to: None }) };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name)?,
            None => UnixAddr::new(name.as_os_str())?,
        };
        Ok(Self { to: Some((UnixDatagram::unbound()?, address)) })
    }

    /// Another one of the same.
    ///
    /// # Errors
    /// If there is no socket to be had.
    pub fn try_clone(&self) -> io::Result<Self> {
        let to = match &self.to {
            Some((socket, address)) => Some((socket.try_clone()?, *address)),
            None => None,
        };
        Ok(Self { to })
    }

    /// Says something. Neither waits nor allocates.
    ///
    /// # Errors
    /// If systemd does not take it, such as because its queue is full.
    pub fn say(&self, message: &[u8]) -> Result<(), Errno> {
        let Some((socket, address)) = &self.to else { return Ok(()) };
        sendto(socket.as_raw_fd(), message, address, MsgFlags::MSG_DONTWAIT).map(drop)
    }

    /// Whether systemd worked off everything that was said to it until now, within `limit`.
    #[must_use]
    pub fn is_heard(&self, limit: Duration) -> bool {
        self.wait_until_heard(limit).unwrap_or(false)
    }

    /// systemd closes what comes with this message as soon as it gets to it.
    fn wait_until_heard(&self, limit: Duration) -> io::Result<bool> {
        let Some((socket, address)) = &self.to else { return Ok(false) };
        let (read, write) = io::pipe()?;
        let with = [write.as_raw_fd()];
        sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(b"BARRIER=1")],
            &[ControlMessage::ScmRights(&with)],
            MsgFlags::MSG_DONTWAIT,
            Some(address),
        )?;
        drop(write);
        let limit = PollTimeout::try_from(limit).map_err(io::Error::other)?;
        Ok(poll(&mut [PollFd::new(read.as_fd(), PollFlags::POLLIN)], limit)? > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    use super::*;

    #[test]
    fn it_is_said_to_sockets_with_and_without_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let file = UnixDatagram::bind(&path).unwrap();
        let name = format!("understudy-test-{}", uuid::Uuid::new_v4());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let nameless = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, name) in [(file, path.into()), (nameless, format!("@{name}").into())] {
            Notify::at(Some(name)).unwrap().say(FEED).unwrap();
            let mut text = [0; 100];
            let length = socket.recv(&mut text).unwrap();
            assert_eq!(text[..length], *FEED);
        }
        Notify::at(None).unwrap().say(FEED).unwrap();
    }

    #[test]
    fn nothing_waits_for_a_systemd_that_does_not_listen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::at(Some(path.into())).unwrap();
        let full = (0..1_000_000).find_map(|_| notify.say(FEED).err());
        assert_eq!(full, Some(Errno::EAGAIN));
    }
}
