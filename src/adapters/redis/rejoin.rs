//! A Redis that was the master, or follows the wrong one, becomes a replica of the present master.
//!
//! `REPLICAOF` drops what the server has. So nothing is asked of it before it is clear that the
//! other server is the master and can be followed, that clients do not write any more, and that
//! everything is either with the new master, provably, or in a copy on our disk ([`copy`]).
//! What has to be done is decided by [`way`] and [`suits`], which are pure.
//!
//! May be called again after any outcome, and after a crash at any point: each call looks afresh.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use redis::{FromRedisValue, Value, cmd};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::attach::{self, LinkFault, LinkState};
use super::connection::{Connection, RedisError, name};
use super::copy::{self, CopyFault, Kept};
use super::pause::{self, Pause};
use super::sample::{Link, Role, Sample, fields, number};
use super::{Persisted, Redis, get, info, marker_key, same_address, text};
use crate::config::settings::Host;
use crate::crash::crash_point;
use crate::error::chain;
use crate::time::BootTime;

/// Between two looks at a replica that copies.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a server may take to notice that the copy has ended. If it takes longer, a next attempt may
/// copy once more, which is no harm.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// How long a replica may show no progress. A master that hangs is given up by its replicas after
/// this time too (`repl-timeout`), and a person should know.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Oldest Redis that can pause writes alone.
const VERSION_MIN: (u32, u32) = (6, 2);

/// What is to be followed, and where the copy goes.
#[derive(Clone, Copy, Debug)]
pub struct Rejoin<'a> {
    /// Group, for the name of the copy and the marker of its epoch.
    pub group: &'a str,
    /// The present master, as this node's Redis reaches it.
    pub upstream: &'a Host,
    /// Directory of the copies.
    pub copies: &'a Path,
    /// How long the replica may show no progress; `None` means a minute.
    pub stall_max: Option<Duration>,
}

/// What a call of [`Redis::rejoin`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejoined {
    /// What became of the data that it had.
    pub before: Before,
    /// Whether it comes back as a replica after a restart.
    pub persisted: Persisted,
    /// Keys that it has now.
    pub keys: u64,
}

/// What became of the data that a Redis had before it followed the new master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// It followed that master already.
    Attached,
    /// It had none.
    Empty,
    /// The new master has all of it: ours is a beginning of its own history.
    Contained,
    /// It is here.
    Copied(Kept),
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The data set is being copied.
    Copying {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all, if the server knows.
        total: Option<u64>,
    },
    /// The copy is on disk.
    Copied(Kept),
    /// It follows the new master from now on.
    Attached,
    /// It waits for the new master, which connects, or writes its data set to disk first.
    Waiting,
    /// The data set of the new master comes in.
    Receiving {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all, if the new master knows.
        total: Option<u64>,
    },
    /// The data set of the new master is being loaded.
    Loading {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// Why a Redis does not follow the new master. Unless the variant says otherwise, nothing was done and
/// it has what it had; only a replica without its master may be a master of its own now, as
/// [`Copying`](Progress::Copying) takes one.
#[derive(Debug, Error)]
pub enum RejoinFault {
    /// It has to be followed over the network.
    #[error("redis cannot follow a master by its socket {}", name(address))]
    NoNetwork {
        /// The socket.
        address: Host,
    },
    /// The new master cannot be asked.
    #[error("the new master cannot be asked")]
    Upstream(#[source] RedisError),
    /// It is no master.
    #[error("redis at {address} is not a master but a {what}")]
    NotMaster {
        /// Which server.
        address: String,
        /// What it is.
        what: String,
    },
    /// It is this very server.
    #[error("redis at {address} is this node's own redis")]
    Itself {
        /// By this address.
        address: String,
    },
    /// This one was made a master later than that one.
    #[error(
        "redis at {address} was made a master for epoch {theirs}, this node's redis for the later \
         epoch {ours}"
    )]
    Earlier {
        /// Which server.
        address: String,
        /// Its epoch.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// This node's Redis cannot be asked, or refused. After `REPLICAOF` it may be a replica.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It is busy with something that passes.
    #[error("redis {0}")]
    Busy(&'static str),
    /// It belongs to a Redis Cluster.
    #[error("this redis is part of a redis cluster")]
    Cluster,
    /// It cannot keep clients from writing meanwhile.
    #[error("redis {version} cannot pause writes; that takes 6.2 or later")]
    TooOld {
        /// Its version.
        version: String,
    },
    /// It would not get through to the new master.
    #[error("redis would not be let in by the new master")]
    Link(#[source] LinkFault),
    /// There is no copy.
    #[error("the data of redis could not be saved before it follows another master")]
    Copy(#[source] CopyFault),
    /// Clients may have written after the copy was made.
    #[error("redis was not paused without a gap while its data were saved")]
    PauseLost,
    /// It said OK and follows nobody, or somebody else.
    #[error("redis answered OK to REPLICAOF, but its role is {role}")]
    NotReplica {
        /// What it says it is.
        role: String,
    },
    /// It follows the new master and gets nothing from it. What it had is in the copy.
    #[error(
        "redis follows {address} but is not in sync with it, and has shown no progress for {}: {state}",
        humantime::format_duration(*after)
    )]
    Stalled {
        /// The new master.
        address: String,
        /// How long was waited.
        after: Duration,
        /// How far it is.
        state: String,
    },
}

impl RejoinFault {
    /// Whether the same call may well succeed in a moment.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Redis(error) | Self::Upstream(error) => error.retryable(),
            Self::Copy(fault) => fault.retryable(),
            Self::Busy(_)
            | Self::PauseLost
            | Self::NotReplica { .. }
            | Self::Stalled { .. }
            // It may be on its way to become one.
            | Self::NotMaster { .. } => true,
            Self::NoNetwork { .. }
            | Self::Itself { .. }
            | Self::Earlier { .. }
            | Self::Cluster
            | Self::TooOld { .. }
            | Self::Link(_) => false,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoNetwork { .. } => {
                "Give each node's redis an address with a port that the other nodes reach."
            }
            Self::Upstream(error) | Self::Redis(error) => error.remedy(),
            Self::NotMaster { .. } => {
                "Wait until the node that has the group has promoted its redis; if it has, correct \
                 the addresses in the configuration."
            }
            Self::Itself { .. } => {
                "Correct the addresses in the configuration: each node's redis has one of its own."
            }
            Self::Earlier { .. } => {
                "Compare the data of both by hand. If those of the new master are right, `DEL` the key \
                 understudy:epoch:GROUP on this node's redis; a copy is made all the same."
            }
            Self::Busy(_) => "Wait until it is done; `INFO persistence` shows the progress.",
            Self::Cluster => "Remove redis from the group: a cluster fails over by itself.",
            Self::TooOld { .. } => "Upgrade redis to 6.2 or later.",
            Self::Link(fault) => fault.remedy(),
            Self::Copy(fault) => fault.remedy(),
            Self::PauseLost => {
                "It is tried again by itself. If it happens again: this host or its redis stands still \
                 for many seconds, or somebody calls CLIENT UNPAUSE."
            }
            Self::NotReplica { .. } => {
                "Look for another program that manages this redis, such as a Sentinel; only one may."
            }
            Self::Stalled { .. } => {
                "Look into the logs of both redis servers. Can this host connect to that address, are \
                 `masteruser` and `masterauth` right, is there room on the disk of redis?"
            }
        }
    }
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// It follows that master.
    Nothing,
    /// Nothing is lost if it follows it now.
    Attach(Before),
    /// What it has must be copied first.
    CopyFirst {
        /// A replica without its master hands its data to nobody; as a master it does.
        detach: bool,
    },
}

/// Whether `master` can be followed by `local`, by what both say and by the epochs for which
/// understudy made them masters.
fn suits(
    address: &str,
    local: &Sample,
    master: &Sample,
    (ours, theirs): (Option<u64>, Option<u64>),
) -> Result<(), RejoinFault> {
    let address = address.to_owned();
    if master.server.run_id == local.server.run_id {
        return Err(RejoinFault::Itself { address });
    }
    if master.server.cluster || local.server.cluster {
        return Err(RejoinFault::Cluster);
    }
    if let Role::Replica(upstream) = &master.role {
        let what = format!("replica of {}:{}", upstream.host, upstream.port);
        return Err(RejoinFault::NotMaster { address, what });
    }
    if master.loading {
        let what = "server that is still reading its data from disk".to_owned();
        return Err(RejoinFault::NotMaster { address, what });
    }
    if let (Some(ours), Some(theirs)) = (ours, theirs)
        && theirs < ours
    {
        return Err(RejoinFault::Earlier { address, theirs, ours });
    }
    Ok(())
}

/// What has to be done with `local` so that it follows `master`, which suits. `attached`: it has
/// that master already.
///
/// The samples must have been taken under a pause, unless `local` is a replica.
fn way(local: &Sample, master: &Sample, attached: bool) -> Result<Way, RejoinFault> {
    if attached {
        return Ok(Way::Nothing);
    }
    // It has not yet the keys and the history that it will have.
    if local.loading {
        return Err(RejoinFault::Busy("is still reading its data from disk"));
    }
    let detach = match &local.role {
        Role::Replica(upstream) if upstream.sync_in_progress => {
            return Err(RejoinFault::Busy("is in the middle of a full copy of another master"));
        }
        Role::Replica(upstream) => !matches!(upstream.link, Link::Up { .. }),
        Role::Master => false,
    };
    Ok(if local.keys == 0 {
        Way::Attach(Before::Empty)
    } else if contained(local, master) {
        Way::Attach(Before::Contained)
    } else {
        Way::CopyFirst { detach }
    })
}

/// Whether `master` provably has everything that `local` has.
///
/// A history is a sequence of writes, and its identity and a number of bytes name a beginning of it.
/// Redis gives a master a new identity whenever it may have written something that does not count:
/// when it is started, when it is promoted, and when it has had no replica for so long that it keeps
/// no history (`repl-backlog-ttl`). So if ours is the history that the new master copied until it
/// was promoted, and is no longer than what it copied, then ours is a beginning of the other, whatever
/// happened in between. After a hand-off this is the rule. Otherwise something may be missing there,
/// be it only a ping; then a copy is made.
fn contained(local: &Sample, master: &Sample) -> bool {
    if local.replid.is_empty() {
        return false;
    }
    let (ours, is_master) = match &local.role {
        Role::Master => (local.server.offset, true),
        // What clients wrote into a replica counts nowhere.
        Role::Replica(upstream) if !upstream.read_only => return false,
        Role::Replica(upstream) => (upstream.offset.max(local.server.offset), false),
    };
    let copied = master
        .earlier
        .as_ref()
        .is_some_and(|earlier| earlier.replid == local.replid && ours <= earlier.offset);
    // A replica of its replica. Two masters cannot have one history, so there it proves nothing.
    let same = !is_master && master.replid == local.replid && ours <= master.server.offset;
    copied || same
}

/// Whether `CLIENT PAUSE` knows of writes, by a version such as `7.0.15`.
pub(super) fn pauses_writes(sample: &Sample) -> bool {
    let mut numbers = sample.server.version.split('.').map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    match version {
        (Some(Ok(major)), Some(Ok(minor))) => sample.server.valkey || (major, minor) >= VERSION_MIN,
        // Not knowing it is no reason: the server refuses what it does not know.
        _ => true,
    }
}

impl Redis {
    /// Makes the local Redis a replica of `request.upstream` and waits until it is in sync, after
    /// whatever it alone has was copied. Calls `progress` now and then.
    ///
    /// Copying and syncing take as long as they take, but not without progress: see
    /// [`RejoinFault::Stalled`]. Dropped half-way, it leaves clients waiting for half a minute at
    /// most, and the next call goes on from whatever it finds.
    ///
    /// # Errors
    /// See [`RejoinFault`].
    pub async fn rejoin(
        &mut self,
        request: &Rejoin<'_>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Rejoined, RejoinFault> {
        let Host::Tcp(host, port) = request.upstream else {
            return Err(RejoinFault::NoNetwork { address: request.upstream.clone() });
        };
        let mut upstream =
            Connection::new(request.upstream, &self.settings).map_err(RejoinFault::Upstream)?;
        let (local, master) = self.both(&mut upstream, request.group).await?;
        let attached = follows(&local, host, *port).await;
        let way = way(&local, &master, attached)?;
        if !in_sync(&local, attached) {
            // Found out now, as afterwards its data would be gone and nothing would come instead.
            let (ours, at) = (&mut self.local, request.upstream);
            let link = attach::link_state(ours, &mut upstream, at, &self.settings).await?;
            if let LinkState::Closed(fault) = link {
                return Err(RejoinFault::Link(fault));
            }
        }
        if way == Way::Nothing {
            // An earlier call may have died with the writes paused, and then nothing comes in from the
            // master either.
            self.end_pause().await;
            let before = Before::Attached;
            return self.settle(request, &mut upstream, before, &mut progress).await;
        }
        if !pauses_writes(&local) {
            return Err(RejoinFault::TooOld { version: local.server.version });
        }
        self.pause = None;
        let mut pause = Pause::begin(&mut self.local).await?;
        crash_point("rejoin:pause:effect");
        let attached = self.attach(request, &mut upstream, &mut pause, &mut progress).await;
        // A replica refuses writes by itself, and a pause would also stop what its master sends.
        self.end_pause().await;
        let before = attached?;
        crash_point("rejoin:unpause:effect");
        self.settle(request, &mut upstream, before, &mut progress).await
    }

    /// Lets writes go on; if that fails, the pause ends by itself.
    pub(super) async fn end_pause(&mut self) {
        if let Err(error) = pause::end(&mut self.local).await {
            let (error, redis) = (chain(&error), self.address());
            tracing::warn!(
                error,
                redis,
                "writes stay paused on this redis for half a minute at most"
            );
        }
    }

    /// Samples both, and refuses a master that cannot be followed.
    async fn both(
        &mut self,
        upstream: &mut Connection,
        group: &str,
    ) -> Result<(Sample, Sample), RejoinFault> {
        let local = info(&mut self.local).await?;
        let master = info(upstream).await.map_err(RejoinFault::Upstream)?;
        let epochs = (epoch(&mut self.local, group).await, epoch(upstream, group).await);
        suits(upstream.address(), &local, &master, epochs)?;
        Ok((local, master))
    }

    /// Everything between the beginning of the pause and `REPLICAOF`.
    async fn attach(
        &mut self,
        request: &Rejoin<'_>,
        upstream: &mut Connection,
        pause: &mut Pause,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Before, RejoinFault> {
        let (local, master) = self.both(upstream, request.group).await?;
        let before = match way(&local, &master, false)? {
            Way::Nothing => Before::Attached,
            Way::Attach(before) => before,
            Way::CopyFirst { detach } => {
                copy::prepare(request.copies, request.group, local.server.memory_bytes)
                    .map_err(RejoinFault::Copy)?;
                if detach {
                    // It hands out its data only as a master. Nobody can write to it, and if we die
                    // now it is a replica again after a restart.
                    replica_of(&mut self.local, "NO", "ONE").await?;
                    crash_point("rejoin:detach:effect");
                }
                let kept = self.copy(request, pause, progress).await?;
                crash_point("rejoin:copy:effect");
                progress(Progress::Copied(kept.clone()));
                // That took a while, in which the new master may have died or been superseded.
                self.both(upstream, request.group).await?;
                Before::Copied(kept)
            }
        };
        if !pause.holds(BootTime::now()) {
            return Err(RejoinFault::PauseLost);
        }
        let Host::Tcp(host, port) = request.upstream else {
            return Err(RejoinFault::NoNetwork { address: request.upstream.clone() });
        };
        let role = replica_of(&mut self.local, host, &port.to_string()).await?;
        crash_point("rejoin:attach:effect");
        if !role.follows(host, *port) {
            return Err(RejoinFault::NotReplica { role: role.to_string() });
        }
        progress(Progress::Attached);
        Ok(before)
    }

    /// Saves the data set, and goes on pausing meanwhile.
    async fn copy(
        &mut self,
        request: &Rejoin<'_>,
        pause: &mut Pause,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Kept, RejoinFault> {
        let local = info(&mut self.local).await?;
        if let Some(kept) = copy::earlier(request.copies, request.group, &state(&local)) {
            return Ok(kept);
        }
        let settings = self.settings.clone();
        let wanted = copy::Request {
            group: request.group,
            directory: request.copies,
            server: &settings.address,
            settings: &settings,
            run_id: &local.server.run_id,
        };
        let saved =
            copy::save(&wanted, |bytes, total| progress(Progress::Copying { bytes, total }));
        let mut saved = std::pin::pin!(saved);
        let mut ticks = interval(pause::RENEW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let kept = loop {
            tokio::select! {
                kept = &mut saved => break kept.map_err(RejoinFault::Copy)?,
                _ = ticks.tick() => {
                    // It lasts for some renewals more, and whether it held is asked in the end.
                    if let Err(error) = pause.renew(&mut self.local).await {
                        tracing::debug!(error = %chain(&error), "the pause was not renewed");
                    }
                }
            }
        };
        pause.renew(&mut self.local).await?;
        if !pause.holds(BootTime::now()) {
            return Err(RejoinFault::PauseLost);
        }
        let after = self.without_the_copier(&local).await?;
        if after.server.run_id != local.server.run_id {
            return Err(RejoinFault::Busy("was restarted while its data were saved"));
        }
        let (server, new_master) = (self.address(), name(request.upstream));
        copy::note(&kept, request.group, server, &new_master, after.keys, &state(&after));
        Ok(kept)
    }

    /// A sample of when the server has noticed that the copy has ended. Until then it sends pings to
    /// it, and they count as writes.
    async fn without_the_copier(&mut self, before: &Sample) -> Result<Sample, RedisError> {
        let replicas = before.server.connected_replicas;
        let began = BootTime::now();
        loop {
            let sample = info(&mut self.local).await?;
            let waited = BootTime::now().since(began);
            if sample.server.connected_replicas <= replicas || waited >= LEAVES_WITHIN {
                return Ok(sample);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Makes it last, and waits until the replica has what its master has.
    async fn settle(
        &mut self,
        request: &Rejoin<'_>,
        upstream: &mut Connection,
        before: Before,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Rejoined, RejoinFault> {
        // At once: a restart must not bring back a master while the data are on their way.
        let persisted = self.persist().await?;
        crash_point("rejoin:persist:effect");
        self.wait_until_in_sync(request, upstream, progress).await?;
        // ROLE has the last word.
        let (Host::Tcp(host, port), answer) =
            (request.upstream, self.local.ask_one("ROLE", cmd("ROLE")).await?)
        else {
            return Err(RejoinFault::NoNetwork { address: request.upstream.clone() });
        };
        let role = RoleAnswer::read(&self.local, answer)?;
        if !follows_by_role(&role, host, *port).await {
            return Err(RejoinFault::NotReplica { role: role.to_string() });
        }
        let keys = info(&mut self.local).await?.keys;
        Ok(Rejoined { before, persisted, keys })
    }

    async fn wait_until_in_sync(
        &mut self,
        request: &Rejoin<'_>,
        upstream: &mut Connection,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), RejoinFault> {
        let stall_max = request.stall_max.unwrap_or(STALL_MAX);
        let mut last_seen = (Progress::Attached, 0);
        let mut last_change = BootTime::now();
        loop {
            let state = match raw_info(&mut self.local).await {
                Ok(text) => match sync_state(&text) {
                    Sync::Done => return Ok(()),
                    Sync::NoReplica => {
                        return Err(RejoinFault::NotReplica { role: "master".to_owned() });
                    }
                    Sync::Under(seen) => {
                        let state = seen.to_string();
                        if last_seen.0 != seen {
                            progress(seen.clone());
                        }
                        // What it waits for may be the disk of the new master.
                        let now = (seen, saved_keys(upstream).await);
                        if last_seen != now {
                            last_change = BootTime::now();
                            last_seen = now;
                        }
                        state
                    }
                },
                // It is restarted, or blocked for a moment by what it loads.
                Err(error) if error.retryable() => chain(&error),
                Err(error) => return Err(error.into()),
            };
            if BootTime::now().since(last_change) >= stall_max {
                let address = name(request.upstream);
                return Err(RejoinFault::Stalled { address, after: stall_max, state });
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn in_sync(local: &Sample, attached: bool) -> bool {
    match &local.role {
        Role::Replica(upstream) => attached && matches!(upstream.link, Link::Up { .. }),
        Role::Master => false,
    }
}

/// Which state a copy is of that was made a moment ago.
fn state(sample: &Sample) -> copy::State {
    copy::State {
        run_id: sample.server.run_id.clone(),
        replid: sample.replid.clone(),
        offset: sample.server.offset,
    }
}

/// How far a replica is.
enum Sync {
    Done,
    Under(Progress),
    NoReplica,
}

fn sync_state(info: &str) -> Sync {
    let fields = fields(info);
    let is = |name: &str, value: &str| fields.get(name).is_some_and(|found| *found == value);
    let count = |name: &str| number(&fields, name).ok();
    if is("role", "master") {
        return Sync::NoReplica;
    }
    let bytes = |name: &str| count(name).unwrap_or(0);
    if is("loading", "1") || is("async_loading", "1") {
        let (bytes, total) = (bytes("loading_loaded_bytes"), bytes("loading_total_bytes"));
        return Sync::Under(Progress::Loading { bytes, total });
    }
    if is("master_sync_in_progress", "1") {
        // It is 0 while the master has not sent the length, and -1 or 0 if it never will.
        let total = count("master_sync_total_bytes").filter(|total| *total > 0);
        return match bytes("master_sync_read_bytes") {
            0 => Sync::Under(Progress::Waiting),
            bytes => Sync::Under(Progress::Receiving { bytes, total }),
        };
    }
    if is("master_link_status", "up") { Sync::Done } else { Sync::Under(Progress::Waiting) }
}

/// How far the new master is with a data set that it writes to its disk; 0 if it does not or cannot
/// be asked.
async fn saved_keys(upstream: &mut Connection) -> u64 {
    let Ok(text) = raw_info(upstream).await else { return 0 };
    number(&fields(&text), "current_save_keys_processed").unwrap_or(0)
}

async fn raw_info(connection: &mut Connection) -> Result<String, RedisError> {
    let answer = connection.ask_one("INFO", cmd("INFO")).await?;
    Ok(text(connection, "INFO", answer)?.unwrap_or_default())
}

/// For which epoch understudy made this a master, as far as it can be read.
async fn epoch(connection: &mut Connection, group: &str) -> Option<u64> {
    let answer = connection.ask_one("GET", get(&marker_key(group))).await.ok()?;
    text(connection, "GET", answer).ok()??.parse().ok()
}

async fn follows(sample: &Sample, host: &str, port: u16) -> bool {
    match &sample.role {
        Role::Replica(upstream) => same_server(&upstream.host, upstream.port, host, port).await,
        Role::Master => false,
    }
}

async fn follows_by_role(role: &RoleAnswer, host: &str, port: u16) -> bool {
    let Some((at, at_port)) = &role.upstream else { return false };
    role.connected && same_server(at, *at_port, host, port).await
}

async fn same_server(a: &str, a_port: u16, b: &str, b_port: u16) -> bool {
    if a_port != b_port {
        return false;
    }
    a.eq_ignore_ascii_case(b) || same_address(a, b, b_port).await
}

/// Sends `REPLICAOF` and reads the role back.
async fn replica_of(
    server: &mut Connection,
    host: &str,
    port: &str,
) -> Result<RoleAnswer, RedisError> {
    let command = cmd("REPLICAOF").arg(host).arg(port).to_owned();
    let mut answers = server.ask(&[command, cmd("ROLE")]).await?.into_iter();
    let (answer, role) = (answers.next(), answers.next());
    server.accepted("REPLICAOF", answer.unwrap_or(Value::Nil))?;
    let role = server.accepted("ROLE", role.unwrap_or(Value::Nil))?;
    RoleAnswer::read(server, role)
}

/// What `ROLE` says.
#[derive(Debug)]
struct RoleAnswer {
    role: String,
    upstream: Option<(String, u16)>,
    connected: bool,
}

impl RoleAnswer {
    fn read(server: &Connection, answer: Value) -> Result<Self, RedisError> {
        let parts = <Vec<Value>>::from_redis_value(answer)
            .map_err(|error| server.senseless("ROLE", error.to_string()))?;
        let text = |index: usize| {
            let part = parts.get(index).cloned().unwrap_or(Value::Nil);
            redis::from_redis_value::<String>(part).unwrap_or_default()
        };
        let role = text(0);
        let replica = role == "slave" || role == "replica";
        let upstream = replica.then(|| text(2).parse().ok().map(|port| (text(1), port))).flatten();
        Ok(Self { role, upstream, connected: replica && text(3) == "connected" })
    }

    fn follows(&self, host: &str, port: u16) -> bool {
        self.upstream.as_ref().is_some_and(|(h, p)| h.eq_ignore_ascii_case(host) && *p == port)
    }
}

impl fmt::Display for RoleAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.upstream {
            Some((host, port)) => write!(f, "replica of {host}:{port}")?,
            None => f.write_str(&self.role)?,
        }
        if self.upstream.is_some() && !self.connected {
            f.write_str(", not connected")?;
        }
        Ok(())
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |f: &mut fmt::Formatter<'_>, bytes: u64, total: Option<u64>| match total {
            Some(total) => write!(f, "{bytes} of {total} bytes"),
            None => write!(f, "{bytes} bytes"),
        };
        match self {
            Self::Copying { bytes, total } => {
                f.write_str("saving the data of redis: ")?;
                share(f, *bytes, *total)
            }
            Self::Copied(kept) => {
                let again = if kept.reused { ", by an earlier attempt" } else { "" };
                write!(f, "the data of redis are saved in {}{again}", kept.path.display())
            }
            Self::Attached => f.write_str("redis follows the new master"),
            Self::Waiting => f.write_str("redis waits for the new master"),
            Self::Receiving { bytes, total } => {
                f.write_str("redis receives the data of the new master: ")?;
                share(f, *bytes, *total)
            }
            Self::Loading { bytes, total } => {
                f.write_str("redis loads the data of the new master: ")?;
                share(f, *bytes, Some(*total))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Follows;
    use super::super::sample::{Earlier, Persistence, Server, Upstream};
    use super::*;

    fn master(replid: &str, offset: u64) -> Sample {
        Sample {
            at: BootTime::ZERO,
            server: Server {
                version: "7.0.15".to_owned(),
                valkey: false,
                run_id: format!("run of {replid}"),
                config_file: None,
                cluster: false,
                connected_replicas: 0,
                offset,
                memory_bytes: 0,
            },
            role: Role::Master,
            replid: replid.to_owned(),
            earlier: None,
            loading: false,
            keys: 100,
            persistence: Persistence { aof: true, last_snapshot_ok: true },
            primary: None,
        }
    }

    fn promoted(earlier: &str, at: u64) -> Sample {
        let earlier = Earlier { replid: earlier.to_owned(), offset: at };
        Sample { earlier: Some(earlier), ..master("new", at + 500) }
    }

    fn replica(replid: &str, offset: u64, link: Link) -> Sample {
        let upstream = Upstream {
            host: "gamma".to_owned(),
            port: 6379,
            link,
            sync_in_progress: false,
            offset,
            read_only: true,
            follows: Follows::NotConfigured,
        };
        Sample { role: Role::Replica(upstream), ..master(replid, offset) }
    }

    const UP: Link = Link::Up { silent_for: Duration::ZERO };

    fn decide(local: &Sample, master: &Sample) -> Way {
        way(local, master, false).expect("there is a way")
    }

    #[test]
    fn a_master_that_handed_off_is_attached_and_one_byte_more_is_copied() {
        let new = promoted("old", 1000);
        assert_eq!(decide(&master("old", 999), &new), Way::Attach(Before::Contained));
        assert_eq!(decide(&master("old", 1000), &new), Way::Attach(Before::Contained));
        assert_eq!(decide(&master("old", 1001), &new), Way::CopyFirst { detach: false });
    }

    #[test]
    fn whatever_is_not_a_beginning_of_the_other_history_is_copied() {
        let copy = Way::CopyFirst { detach: false };
        assert_eq!(decide(&master("another", 10), &promoted("old", 1000)), copy);
        assert_eq!(decide(&master("old", 10), &master("new", 1000)), copy, "restarted since");
        assert_eq!(decide(&master("new", 10), &promoted("old", 1000)), copy, "two masters");
        assert_eq!(decide(&master("", 10), &promoted("", 1000)), copy, "a server without one");
        let mut written_to = replica("old", 10, UP);
        let Role::Replica(upstream) = &mut written_to.role else { unreachable!() };
        upstream.read_only = false;
        assert_eq!(decide(&written_to, &promoted("old", 1000)), copy);
    }

    #[test]
    fn another_replica_of_the_dead_master_is_attached_unless_it_is_ahead() {
        let new = promoted("old", 1000);
        let down = Link::Down { since: Duration::from_secs(9) };
        assert_eq!(decide(&replica("old", 1000, down), &new), Way::Attach(Before::Contained));
        assert_eq!(decide(&replica("old", 1001, down), &new), Way::CopyFirst { detach: true });
        assert_eq!(
            decide(&replica("old", 1001, Link::Never), &new),
            Way::CopyFirst { detach: true }
        );
        assert_eq!(decide(&replica("old", 1001, UP), &new), Way::CopyFirst { detach: false });
        // A replica says what it got in two places, and after a restart one of them is empty.
        let mut restarted = replica("old", 1, Link::Never);
        restarted.server.offset = 1001;
        assert_eq!(decide(&restarted, &new), Way::CopyFirst { detach: true });
        let of_the_new = replica("new", 1500, UP);
        assert_eq!(
            decide(&of_the_new, &new),
            Way::Attach(Before::Contained),
            "a replica of a replica"
        );
    }

    #[test]
    fn nothing_is_copied_of_an_empty_one_and_nothing_done_with_an_attached_one() {
        let new = promoted("old", 1000);
        let empty = Sample { keys: 0, ..master("another", 5) };
        assert_eq!(decide(&empty, &new), Way::Attach(Before::Empty));
        let syncing = Sample { loading: true, ..replica("another", 5, Link::Never) };
        assert_eq!(way(&syncing, &new, true).unwrap(), Way::Nothing);
    }

    #[test]
    fn one_that_is_loading_or_syncing_is_waited_for() {
        let loading = Sample { loading: true, keys: 0, ..master("old", 0) };
        let mut syncing = replica("old", 10, Link::Never);
        let Role::Replica(upstream) = &mut syncing.role else { unreachable!() };
        upstream.sync_in_progress = true;
        for sample in [loading, syncing] {
            let fault = way(&sample, &promoted("old", 1000), false).unwrap_err();
            assert!(matches!(fault, RejoinFault::Busy(_)) && fault.retryable(), "{fault:?}");
        }
    }

    #[test]
    fn only_another_server_that_is_a_master_of_no_earlier_epoch_suits() {
        let (local, new) = (master("old", 1), promoted("old", 1));
        let judge = |master: &Sample, epochs| suits("b:6379", &local, master, epochs);
        for epochs in [(None, None), (Some(4), None), (None, Some(3)), (Some(4), Some(4))] {
            assert!(judge(&new, epochs).is_ok(), "{epochs:?}");
        }
        let earlier = judge(&new, (Some(5), Some(4)));
        assert!(matches!(earlier, Err(RejoinFault::Earlier { theirs: 4, ours: 5, .. })));
        assert!(matches!(judge(&local, (None, None)), Err(RejoinFault::Itself { .. })));
        let replica = replica("x", 1, UP);
        assert!(matches!(judge(&replica, (None, None)), Err(RejoinFault::NotMaster { .. })));
        let loading = Sample { loading: true, ..new.clone() };
        assert!(matches!(judge(&loading, (None, None)), Err(RejoinFault::NotMaster { .. })));
        let mut cluster = new;
        cluster.server.cluster = true;
        assert!(matches!(judge(&cluster, (None, None)), Err(RejoinFault::Cluster)));
    }

    #[test]
    fn versions_that_can_pause_writes() {
        let mut sample = master("x", 0);
        for (version, can) in
            [("6.0.16", false), ("6.2.0", true), ("7.0.15", true), ("5.0", false), ("new", true)]
        {
            version.clone_into(&mut sample.server.version);
            assert_eq!(pauses_writes(&sample), can, "{version}");
        }
    }
}
