//! What systemd is told, without ever waiting for it: a systemd that hangs must not hold up a guard.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;

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
    to: Option<(UnixDatagram, SocketAddr)>,
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
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { to: Some((socket, address)) })
    }

    /// Says something. Neither waits nor allocates.
    ///
    /// # Errors
    /// If systemd does not take it, such as because its queue is full.
    pub fn say(&self, message: &[u8]) -> io::Result<()> {
        match &self.to {
            Some((socket, address)) => socket.send_to_addr(message, address).map(drop),
            None => Ok(()),
        }
    }
}

/// Whether systemd worked off everything that was said to it until now, within `limit`.
#[must_use]
pub fn is_heard(limit: Duration) -> bool {
    // systemd closes what it was sent with this message once it comes to it.
    let heard = || {
        let (read, write) = io::pipe().ok()?;
        let barrier = [NotifyState::Custom("BARRIER=1")];
        sd_notify::notify_with_fds(&barrier, &[std::os::fd::AsFd::as_fd(&write)]).ok()?;
        drop(write);
        let mut closed = [PollFd::new(std::os::fd::AsFd::as_fd(&read), PollFlags::POLLIN)];
        poll(&mut closed, PollTimeout::try_from(limit).ok()?).ok()
    };
    heard().is_some_and(|closed| closed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_to_sockets_with_and_without_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let file = UnixDatagram::bind(&path).unwrap();
        let name = format!("understudy-test-{}", uuid::Uuid::new_v4());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstr = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, name) in [(file, path.into()), (abstr, format!("@{name}").into())] {
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
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
