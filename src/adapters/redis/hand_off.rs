//! A planned switchover: the replica gets every byte before the master steps down.
//!
//! The clients of the master wait with their writes (`CLIENT PAUSE WRITE`) until the replica has what
//! the master has. From then on there is nothing that only the old master knows, for as long as the
//! pause holds; the caller keeps it up until the other node has promoted its replica, and attaches
//! the old master by [`Redis::rejoin`], which proves once more that nothing came between. If anything
//! goes wrong before, the writes go on where they were.

use std::time::Duration;

use thiserror::Error;
use tokio::time::sleep;

use super::connection::{Connection, RedisError};
use super::pause::{self, Pause};
use super::sample::{Link, Role, Sample};
use super::{Redis, info};
use crate::config::settings::Host;
use crate::crash::crash_point;
use crate::time::BootTime;

/// Between two looks at the replica. Clients wait meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Which replica gets everything, and how long that may take.
#[derive(Clone, Copy, Debug)]
pub struct HandOff<'a> {
    /// The replica that will be promoted.
    pub replica: &'a Host,
    /// How long the clients may be kept waiting for it.
    pub within: Duration,
}

/// The replica has everything, and the master is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOff {
    /// Where the history of both ends. The replica lacks 0 bytes of it.
    pub offset: u64,
    /// Keys of both. The replica lacks 0 of them.
    pub keys: u64,
    /// Bytes that the replica was behind when the pause began.
    pub was_behind_bytes: u64,
    /// How long clients have been waiting.
    pub waited: Duration,
}

/// Why the replica does not have everything. The clients write again.
#[derive(Debug, Error)]
pub enum HandOffFault {
    /// The local Redis cannot be asked, or refused.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The local Redis is no master.
    #[error("this node's redis is not a master")]
    NotMaster,
    /// The replica cannot be asked.
    #[error("the replica cannot be asked")]
    Replica(#[source] RedisError),
    /// It is no replica of this master, or no healthy one.
    #[error("redis at {address} cannot take over: {why}")]
    NotReplica {
        /// Which server.
        address: String,
        /// Why not.
        why: &'static str,
    },
    /// It did not catch up in time.
    #[error(
        "the replica at {address} still lacked {bytes} bytes after {}",
        humantime::format_duration(*within)
    )]
    Behind {
        /// Which server.
        address: String,
        /// Bytes that it lacked when last asked.
        bytes: u64,
        /// How long clients waited.
        within: Duration,
    },
    /// It has every byte and yet other keys.
    #[error("the replica at {address} has every byte, but {theirs} keys, and the master {ours}")]
    Differs {
        /// Which server.
        address: String,
        /// Keys of the replica.
        theirs: u64,
        /// Keys of the master.
        ours: u64,
    },
    /// Clients may have written in between.
    #[error("redis was not paused without a gap")]
    PauseLost,
}

impl HandOffFault {
    /// Whether the same call may well succeed in a moment.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Redis(error) | Self::Replica(error) => error.retryable(),
            Self::Behind { .. } | Self::PauseLost => true,
            Self::NotMaster | Self::NotReplica { .. } | Self::Differs { .. } => false,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Redis(error) | Self::Replica(error) => error.remedy(),
            Self::NotMaster => "See which node has the group: `understudy status`.",
            Self::NotReplica { .. } => {
                "Point it at this master with `REPLICAOF host port` and `CONFIG REWRITE`, and wait until \
                 `master_link_status` is up."
            }
            Self::Behind { .. } => {
                "Find out why it cannot keep up (network, disk, load), and try again when it has."
            }
            Self::Differs { .. } => {
                "Something wrote to the replica (`replica-read-only no`), or it evicts keys by itself \
                 (`replica-ignore-maxmemory no`). Have it copy everything again: `REPLICAOF NO ONE`, \
                 then `REPLICAOF host port`."
            }
            Self::PauseLost => {
                "Try again. If it happens again: this host or its redis stands still for many seconds."
            }
        }
    }
}

/// How far a replica is, as far as the two say that it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Behind(u64),
    Level,
}

/// Compares the master with its replica, which must have been asked after it.
///
/// The master was paused before it was asked, so nothing was written since, and a replica with as
/// many bytes of the same history has everything. It may have more by a ping.
fn standing(master: &Sample, replica: &Sample) -> Result<Standing, &'static str> {
    let Role::Replica(upstream) = &replica.role else { return Err("it is a master itself") };
    if replica.loading {
        return Err("it is still reading its data from disk");
    }
    if upstream.sync_in_progress {
        return Err("it is in the middle of a full copy");
    }
    if !matches!(upstream.link, Link::Up { .. }) {
        return Err("its link to its master is down");
    }
    if replica.replid != master.replid {
        return Err("it follows another master");
    }
    Ok(match master.server.offset.checked_sub(upstream.offset) {
        None | Some(0) => Standing::Level,
        Some(bytes) => Standing::Behind(bytes),
    })
}

impl Redis {
    /// Pauses the writes on the local master and waits until the replica has everything. Calls
    /// `progress` with the bytes that it lacks.
    ///
    /// Afterwards the pause lasts for 24 s, in which [`Redis::keep_paused`] must be called again, or
    /// [`Redis::resume_writes`] if the switchover is given up. Dropped half-way, or killed, it leaves
    /// clients waiting for half a minute at most.
    ///
    /// # Errors
    /// See [`HandOffFault`]; the writes go on then.
    pub async fn hand_off(
        &mut self,
        request: &HandOff<'_>,
        mut progress: impl FnMut(u64),
    ) -> Result<HandedOff, HandOffFault> {
        let mut replica =
            Connection::new(request.replica, &self.settings).map_err(HandOffFault::Replica)?;
        // What cannot work makes no client wait.
        self.compare(&mut replica).await?;
        let began = BootTime::now();
        let mut pause = Pause::begin(&mut self.local).await?;
        crash_point("hand_off:pause:effect");
        let handed_off =
            self.wait_until_level(request, &mut replica, &mut pause, began, &mut progress).await;
        match &handed_off {
            Ok(_) => self.pause = Some(pause),
            Err(_) => self.end_pause().await,
        }
        handed_off
    }

    /// Goes on with the pause of [`Redis::hand_off`], in which nothing was written since.
    ///
    /// # Errors
    /// If it cannot be renewed; it lasts for as long as it did, so this may be tried again. After
    /// [`HandOffFault::PauseLost`] something may have been written, and the switchover must not go
    /// on.
    pub async fn keep_paused(&mut self) -> Result<(), HandOffFault> {
        let Some(mut pause) = self.pause else { return Err(HandOffFault::PauseLost) };
        pause.renew(&mut self.local).await?;
        self.pause = Some(pause);
        if pause.holds(BootTime::now()) { Ok(()) } else { Err(HandOffFault::PauseLost) }
    }

    /// Lets the clients of the local Redis write again, also those that waited.
    ///
    /// # Errors
    /// If it does not answer; the pause then ends by itself.
    pub async fn resume_writes(&mut self) -> Result<(), RedisError> {
        self.pause = None;
        pause::end(&mut self.local).await
    }

    async fn wait_until_level(
        &mut self,
        request: &HandOff<'_>,
        replica: &mut Connection,
        pause: &mut Pause,
        began: BootTime,
        progress: &mut impl FnMut(u64),
    ) -> Result<HandedOff, HandOffFault> {
        let mut was_behind_bytes = None;
        loop {
            let (standing, master, theirs) = self.compare(replica).await?;
            let bytes = match standing {
                Standing::Level => 0,
                Standing::Behind(bytes) => bytes,
            };
            let was_behind_bytes = *was_behind_bytes.get_or_insert(bytes);
            progress(bytes);
            let waited = BootTime::now().since(began);
            if standing == Standing::Level {
                let (ours, offset) = (master.keys, master.server.offset);
                if theirs != ours {
                    let address = replica.address().to_owned();
                    return Err(HandOffFault::Differs { address, theirs, ours });
                }
                pause.renew(&mut self.local).await?;
                if !pause.holds(BootTime::now()) {
                    return Err(HandOffFault::PauseLost);
                }
                return Ok(HandedOff { offset, keys: ours, was_behind_bytes, waited });
            }
            if waited >= request.within {
                let address = replica.address().to_owned();
                return Err(HandOffFault::Behind { address, bytes, within: request.within });
            }
            if pause.wants_renewal(BootTime::now()) {
                pause.renew(&mut self.local).await?;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks the master, and then the replica.
    async fn compare(
        &mut self,
        replica: &mut Connection,
    ) -> Result<(Standing, Sample, u64), HandOffFault> {
        let master = info(&mut self.local).await?;
        if master.role != Role::Master {
            return Err(HandOffFault::NotMaster);
        }
        let sample = info(replica).await.map_err(HandOffFault::Replica)?;
        let standing = standing(&master, &sample).map_err(|why| HandOffFault::NotReplica {
            address: replica.address().to_owned(),
            why,
        })?;
        Ok((standing, master, sample.keys))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Upstream;
    use super::*;

    fn info(role: &str, offset: u64, more: &str) -> Sample {
        let text = format!(
            "run_id:{role}\r\nrole:{role}\r\nmaster_replid:history\r\nmaster_repl_offset:{offset}\r\n\
             master_host:a\r\nmaster_port:1\r\nmaster_link_status:up\r\n\
             slave_repl_offset:{offset}\r\n{more}\r\n"
        );
        Sample::parse(&text, BootTime::ZERO).unwrap()
    }

    fn against(replica: &Sample) -> Result<Standing, &'static str> {
        standing(&info("master", 100, ""), replica)
    }

    #[test]
    fn a_replica_is_level_with_as_many_bytes_and_not_with_one_less() {
        assert_eq!(against(&info("slave", 99, "")), Ok(Standing::Behind(1)));
        assert_eq!(against(&info("slave", 100, "")), Ok(Standing::Level));
        assert_eq!(against(&info("slave", 114, "")), Ok(Standing::Level), "a ping came between");
    }

    #[test]
    fn offsets_of_what_is_no_healthy_replica_of_this_master_are_not_compared() {
        let replica = info("slave", 100, "");
        let mut down = replica.clone();
        let Role::Replica(upstream) = &mut down.role else { unreachable!() };
        *upstream = Upstream { link: Link::Never, ..upstream.clone() };
        for bad in [
            info("master", 100, ""),
            info("slave", 100, "loading:1"),
            Sample { replid: "another".to_owned(), ..replica },
            down,
            info("slave", 100, "master_sync_in_progress:1"),
        ] {
            assert!(against(&bad).is_err(), "{bad:?}");
        }
    }
}
