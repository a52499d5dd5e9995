//! The Redis (or Valkey) of a group on this node: watch its replica, make it the master.
//!
//! [`Redis::sample`] reads what it says about itself, [`gate()`] judges that, [`Redis::promote`]
//! acts on it and reads the effect back, [`Redis::persist`] makes it last across a restart, and
//! [`Redis::inspect`] tells `understudy check` what would go wrong. The other way round,
//! [`Redis::hand_off`] lets a replica get everything before its master steps down, and
//! [`Redis::rejoin`] makes a former master a replica, after what it alone has was copied;
//! [`Redis::attachable`] is its rehearsal.
//!
//! Every call has a deadline, or ends without progress; whether a failed one is tried again is
//! decided by the caller, for which each error says `retryable()`.

mod attach;
mod connection;
mod copy;
mod gate;
mod hand_off;
mod inspect;
mod pause;
pub mod probe;
mod rejoin;
mod sample;
mod transfer;
mod wire;

use std::fmt;
use std::time::Duration;

use redis::{FromRedisValue, Value, cmd};
use thiserror::Error;
use tokio::time::timeout;

use self::connection::Connection;
use self::pause::Pause;
use crate::config::settings::{self, Host};
use crate::time::BootTime;

pub use self::attach::{Attachable, LinkFault, LinkState};
pub use self::connection::RedisError;
pub use self::copy::{CopyFault, Kept, RESERVE_BYTES};
pub use self::gate::{GateFault, LastLag, gate};
pub use self::hand_off::{HandOff, HandOffFault, HandedOff};
pub use self::inspect::{Inspection, Permission, Permitted, Risk};
pub use self::rejoin::{Before, Progress, Rejoin, RejoinFault, Rejoined};
pub use self::sample::{
    Earlier, Follows, Link, Persistence, Primary, Role, Sample, Server, Upstream,
};
pub use self::transfer::Damage;

/// How long a sample waits for the primary. It is only asked how far its history goes, and when its
/// host is dead, which is when a sample matters most, it does not answer.
const PRIMARY_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the names of two addresses may take to compare, for the same reason.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(300);

/// The Redis of a group on this node, and what is known of its primary.
pub struct Redis {
    settings: settings::Redis,
    local: Connection,
    primary: Option<Connection>,
    last: LastLag,
    /// Epoch for which `REPLICAOF NO ONE` was sent, perhaps without hearing the answer.
    asked: Option<u64>,
    /// Since a hand-off nothing was written on the local master.
    pause: Option<Pause>,
}

/// What a promotion found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// It was our master before the call.
    pub already: bool,
    /// Process that was promoted. If it changes, Redis was restarted and may be a replica again.
    pub run_id: String,
    /// Keys it has.
    pub keys: u64,
    /// Bytes of the primary's history that are lost, as far as known, and when that was last
    /// sampled.
    pub lag: Option<(u64, BootTime)>,
}

/// Whether a promotion outlives a restart of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persisted {
    /// The configuration file says so.
    Yes,
    /// It does not: after a restart Redis would be a replica again and drop what was written since.
    No {
        /// Why not.
        why: NotPersisted,
    },
}

/// Why a promotion would not outlive a restart of Redis.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotPersisted {
    /// It was started without a configuration file.
    #[error("redis runs without a configuration file")]
    NoConfigFile,
    /// It cannot write the file.
    #[error("redis cannot write its configuration file: {text}")]
    Unwritable {
        /// What the server said.
        text: String,
    },
    /// We may not ask for it.
    #[error("redis does not permit CONFIG REWRITE: {text}")]
    NotPermitted {
        /// What the server said.
        text: String,
    },
    /// The server knows no such command.
    #[error("redis has no CONFIG REWRITE: {text}")]
    Disabled {
        /// What the server said.
        text: String,
    },
}

impl NotPersisted {
    /// What an operator can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoConfigFile => {
                "Do not restart this redis before its start line has no `--replicaof` any more; give \
                 it a configuration file that it may write."
            }
            Self::Unwritable { .. } => {
                "Let the user of redis write the file and its directory (also `ReadWritePaths=` in its \
                 unit), then run `redis-cli CONFIG REWRITE`; or remove `replicaof` from it by hand."
            }
            Self::NotPermitted { .. } => {
                "Give the ACL user +config|rewrite, then run `redis-cli CONFIG REWRITE` as an \
                 administrator; or remove `replicaof` from the configuration file by hand."
            }
            Self::Disabled { .. } => {
                "Remove `replicaof` from the configuration of this redis by hand, and take out the \
                 `rename-command` that hides CONFIG."
            }
        }
    }
}

/// Why a replica is not our master after a call of [`Redis::promote`].
#[derive(Debug, Error)]
pub enum PromoteFault {
    /// Its data are not good enough; nothing was done.
    #[error("the gate is closed: {0}")]
    Gate(GateFault),
    /// It could not be asked, or refused.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It said OK and is no master.
    #[error("redis at {address} answered OK to the promotion, but its role is {role}")]
    NotMaster {
        /// Which server.
        address: String,
        /// What it says it is.
        role: String,
    },
    /// It is the master and takes no writes.
    #[error("redis at {address} is the master now but takes no writes")]
    NotWritable {
        /// Which server.
        address: String,
        /// What it said to the probe.
        #[source]
        source: RedisError,
    },
    /// The probe was written and something else was read.
    #[error("redis at {address} is the master now, but {key} reads {found:?} instead of {epoch}")]
    ProbeDiffers {
        /// Which server.
        address: String,
        /// Key of the probe.
        key: String,
        /// What was written.
        epoch: u64,
        /// What was read.
        found: Option<String>,
    },
}

impl PromoteFault {
    /// Whether the same call may well succeed in a moment.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Gate(fault) => fault.retryable(),
            Self::Redis(error) | Self::NotWritable { source: error, .. } => error.retryable(),
            Self::NotMaster { .. } => true,
            Self::ProbeDiffers { .. } => false,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Gate(fault) => fault.remedy(),
            Self::Redis(error) => error.remedy(),
            Self::NotMaster { .. } => {
                "Look for another program that manages this redis, such as a Sentinel; only one may."
            }
            Self::NotWritable { source, .. } => match source.code() {
                Some("NOREPLICAS") => {
                    "This redis demands replicas that it does not have: \
                     `CONFIG SET min-replicas-to-write 0`."
                }
                Some("MISCONF") => "This redis cannot save to disk: make room or mend the disk.",
                Some("OOM") => {
                    "This redis is full: raise `maxmemory` or choose a `maxmemory-policy`."
                }
                Some(_) | None => source.remedy(),
            },
            Self::ProbeDiffers { .. } => {
                "Something else writes understudy's keys: find out which program does."
            }
        }
    }
}

/// Key that says for which epoch understudy made a Redis the master of `group`.
#[must_use]
pub fn marker_key(group: &str) -> String {
    format!("understudy:epoch:{group}")
}

impl Redis {
    /// Checks the settings; the first call connects.
    ///
    /// # Errors
    /// If the certificate authorities cannot be read, or the address cannot be one.
    pub fn new(settings: &settings::Redis) -> Result<Self, RedisError> {
        let primary = settings.primary.as_ref().map(|host| Connection::new(host, settings));
        Ok(Self {
            settings: settings.clone(),
            local: Connection::new(&settings.address, settings)?,
            primary: primary.transpose()?,
            last: LastLag::default(),
            asked: None,
            pause: None,
        })
    }

    /// Where it listens, for people.
    #[must_use]
    pub fn address(&self) -> &str {
        self.local.address()
    }

    /// What earlier samples said, for [`gate()`].
    #[must_use]
    pub fn last_lag(&self) -> &LastLag {
        &self.last
    }

    /// Asks the local Redis what it is, and its primary how far its history goes.
    ///
    /// Both are asked at the same time. A primary that does not answer is no error: the sample then
    /// lacks it, and [`Redis::last_lag`] keeps what it said last.
    ///
    /// # Errors
    /// If the local Redis does not answer.
    pub async fn sample(&mut self) -> Result<Sample, RedisError> {
        let primary = async {
            let asked = timeout(PRIMARY_TIMEOUT, info(self.primary.as_mut()?)).await;
            let sample = asked.ok()?.ok()?;
            Some(Primary { replid: sample.replid, offset: sample.server.offset, at: sample.at })
        };
        let (local, primary) = tokio::join!(info(&mut self.local), primary);
        Ok(self.sampled(local?, primary).await)
    }

    /// The same without the primary, for when it is silent: a host that is dead does not even say
    /// that nobody listens, and a takeover would wait for it.
    ///
    /// # Errors
    /// If the local Redis does not answer.
    pub async fn sample_local(&mut self) -> Result<Sample, RedisError> {
        let local = info(&mut self.local).await?;
        Ok(self.sampled(local, None).await)
    }

    async fn sampled(&mut self, mut sample: Sample, primary: Option<Primary>) -> Sample {
        sample.primary = primary;
        self.recognise(&mut sample).await;
        self.last.observe(&sample);
        sample
    }

    /// Makes the local replica the master of `group` for `epoch`, unless [`gate()`] says no.
    ///
    /// May be called again after any outcome. A Redis that is a master already counts as ours if
    /// our marker in it names this epoch, if we asked it in this process, or if `resuming`: the
    /// caller knows that an earlier process began this step for this epoch.
    ///
    /// # Errors
    /// See [`PromoteFault`]. After `NotWritable` and `ProbeDiffers` it is a master all the same, and
    /// after `Redis` it may be.
    pub async fn promote(
        &mut self,
        group: &str,
        epoch: u64,
        resuming: bool,
    ) -> Result<Promoted, PromoteFault> {
        let key = marker_key(group);
        let [info, marker] = self.ask([cmd("INFO"), get(&key)]).await?;
        let mut sample = parse(&self.local, info)?;
        self.recognise(&mut sample).await;
        let already = match &sample.role {
            Role::Master if !sample.loading && !sample.server.cluster => {
                let marker = text(&self.local, "GET", self.local.accepted("GET", marker)?)?;
                let promoted_for = marker.and_then(|marker| marker.parse().ok());
                if !resuming && self.asked != Some(epoch) && promoted_for != Some(epoch) {
                    return Err(PromoteFault::Gate(GateFault::AlreadyMaster { promoted_for }));
                }
                true
            }
            // The marker is of no interest, and a replica without its primary may refuse to read
            // it.
            Role::Master | Role::Replica(_) => {
                gate(&sample, &self.last, &self.settings).map_err(PromoteFault::Gate)?;
                self.asked = Some(epoch);
                self.make_master().await?;
                false
            }
        };
        self.probe(&key, epoch).await?;
        Ok(Promoted {
            already,
            run_id: sample.server.run_id.clone(),
            keys: sample.keys,
            lag: self.last.lag_bytes(&sample),
        })
    }

    /// For which epoch understudy made the local Redis the master of `group`, if it ever did.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn promoted_for(&mut self, group: &str) -> Result<Option<u64>, RedisError> {
        let [marker] = self.ask([get(&marker_key(group))]).await?;
        let marker = text(&self.local, "GET", self.local.accepted("GET", marker)?)?;
        Ok(marker.and_then(|marker| marker.parse().ok()))
    }

    /// Has Redis write its present role into its configuration file.
    ///
    /// # Errors
    /// If it does not answer. That it cannot is an answer.
    pub async fn persist(&mut self) -> Result<Persisted, RedisError> {
        let rewrite = cmd("CONFIG").arg("REWRITE").to_owned();
        let [answer] = self.ask([rewrite]).await?;
        let (code, text) = match self.local.accepted("CONFIG REWRITE", answer) {
            Ok(_) => return Ok(Persisted::Yes),
            Err(RedisError::Refused { code, text, .. }) => (code, text),
            Err(other) => return Err(other),
        };
        let why = if code == "NOPERM" {
            NotPersisted::NotPermitted { text }
        } else if text.contains("without a config file") {
            NotPersisted::NoConfigFile
        } else if text.to_ascii_lowercase().contains("unknown") {
            NotPersisted::Disabled { text }
        } else {
            NotPersisted::Unwritable { text }
        };
        Ok(Persisted::No { why })
    }

    /// Whether it is a master now. One that was restarted may not be any more.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn is_master(&mut self) -> Result<bool, RedisError> {
        Ok(info(&mut self.local).await?.role == Role::Master)
    }

    /// Tells what would go wrong in a failover of `group`; changes nothing.
    ///
    /// # Errors
    /// If the local Redis does not answer.
    pub async fn inspect(&mut self, group: &str) -> Result<Inspection, RedisError> {
        let sample = self.sample().await?;
        inspect::inspect(&mut self.local, self.primary.as_mut(), sample, &marker_key(group)).await
    }

    /// Sends `REPLICAOF NO ONE` and reads the role back.
    async fn make_master(&mut self) -> Result<(), PromoteFault> {
        let no_one = |name| cmd(name).arg("NO").arg("ONE").to_owned();
        let [mut answer, mut role] = self.ask([no_one("REPLICAOF"), cmd("ROLE")]).await?;
        // Redis before 5 knows only the other word.
        let unknown = matches!(&answer, Value::ServerError(error)
            if error.details().is_some_and(|text| text.starts_with("unknown command")));
        if unknown {
            [answer, role] = self.ask([no_one("SLAVEOF"), cmd("ROLE")]).await?;
        }
        self.local.accepted("REPLICAOF NO ONE", answer)?;
        let role = self.local.accepted("ROLE", role)?;
        // An array, whose first entry says it.
        let role = match <Vec<Value>>::from_redis_value(role) {
            Ok(parts) => parts.into_iter().next().unwrap_or(Value::Nil),
            Err(error) => return Err(self.local.senseless("ROLE", error.to_string()).into()),
        };
        match text(&self.local, "ROLE", role)? {
            Some(role) if role == "master" => Ok(()),
            other => Err(PromoteFault::NotMaster {
                address: self.local.address().to_owned(),
                role: other.unwrap_or_default(),
            }),
        }
    }

    /// Proves that it takes writes, and leaves the marker of this epoch.
    async fn probe(&mut self, key: &str, epoch: u64) -> Result<(), PromoteFault> {
        let set = cmd("SET").arg(key).arg(epoch).to_owned();
        let [answer, found] = self.ask([set, get(key)]).await?;
        let address = self.local.address().to_owned();
        if let Err(source) = self.local.accepted("SET", answer) {
            return Err(PromoteFault::NotWritable { address, source });
        }
        let found = text(&self.local, "GET", self.local.accepted("GET", found)?)?;
        if found.as_deref() == Some(epoch.to_string().as_str()) {
            return Ok(());
        }
        Err(PromoteFault::ProbeDiffers { address, key: key.to_owned(), epoch, found })
    }

    async fn ask<const N: usize>(
        &mut self,
        commands: [redis::Cmd; N],
    ) -> Result<[Value; N], RedisError> {
        let answers = self.local.ask(&commands).await?;
        <[Value; N]>::try_from(answers)
            .map_err(|answers| self.local.senseless("a pipeline", format!("{answers:?}")))
    }

    /// Fills in whether the replica follows the configured primary.
    ///
    /// A replica names its primary in its own words: an address where we have a name, or the far
    /// side of a tunnel. The same history proves it whatever the words are, and the proof is
    /// remembered for when the primary is dead.
    async fn recognise(&self, sample: &mut Sample) {
        let Some(Host::Tcp(name, port)) = &self.settings.primary else { return };
        let Role::Replica(upstream) = &mut sample.role else { return };
        let same_words = upstream.host.eq_ignore_ascii_case(name) && upstream.port == *port;
        let same_history = matches!(upstream.link, Link::Up { .. })
            && sample.primary.as_ref().is_some_and(|primary| primary.replid == sample.replid);
        let follows = same_words
            || same_history
            || self.last.proves(upstream)
            || upstream.port == *port && same_address(&upstream.host, name, *port).await;
        upstream.follows = if follows { Follows::Primary } else { Follows::Other };
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// Whether two names lead to the same address.
async fn same_address(a: &str, b: &str, port: u16) -> bool {
    let lookup = async {
        let ours = tokio::net::lookup_host((a, port)).await.ok()?.collect::<Vec<_>>();
        let mut theirs = tokio::net::lookup_host((b, port)).await.ok()?;
        Some(theirs.any(|address| ours.contains(&address)))
    };
    timeout(LOOKUP_TIMEOUT, lookup).await.ok().flatten().unwrap_or(false)
}

fn get(key: &str) -> redis::Cmd {
    cmd("GET").arg(key).to_owned()
}

async fn info(connection: &mut Connection) -> Result<Sample, RedisError> {
    let answer = connection.ask_one("INFO", cmd("INFO")).await?;
    parse(connection, answer)
}

fn parse(connection: &Connection, answer: Value) -> Result<Sample, RedisError> {
    let answer = connection.accepted("INFO", answer)?;
    let info = text(connection, "INFO", answer)?.unwrap_or_default();
    Sample::parse(&info, BootTime::now()).map_err(|what| connection.senseless("INFO", what))
}

fn text(
    connection: &Connection,
    command: &'static str,
    answer: Value,
) -> Result<Option<String>, RedisError> {
    redis::from_redis_value(answer)
        .map_err(|error| connection.senseless(command, error.to_string()))
}
