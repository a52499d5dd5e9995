//! A rehearsal: what would be refused, and what would make a promotion a loss.
//!
//! To add a risk: a variant of [`Risk`] with its sentence and remedy, and a line in [`risks`].

use std::collections::BTreeMap;
use std::fmt;

use redis::{Cmd, Value, cmd};

use super::connection::{Connection, RedisError};
use super::sample::{Role, Sample};

/// What `understudy check` wants to know of a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What it said about itself; [`super::gate()`] judges it.
    pub sample: Sample,
    /// User that we are logged in as.
    pub user: String,
    /// Every command of a failover, and whether we may use it.
    pub permissions: Vec<Permission>,
    /// Settings that make a promotion risky.
    pub risks: Vec<Risk>,
}

/// Whether one command may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The command, as one would type it.
    pub command: String,
    /// Whether it may be used.
    pub permitted: Permitted,
}

/// Whether a command may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permitted {
    /// It may.
    Yes,
    /// It may not.
    No {
        /// What the server said.
        text: String,
    },
    /// It cannot be found out without doing it. `+acl|dryrun` for our user would help.
    Unknown,
}

/// A setting that makes a promotion risky.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Its settings could not be read, so that most risks are unknown.
    SettingsUnreadable {
        /// What the server said.
        text: String,
    },
    /// `repl-diskless-load on-empty-db`: a primary that dies during a sync leaves an empty replica.
    DisklessLoadOnEmptyDb,
    /// Neither log nor snapshots: a restart after the promotion loses everything.
    NoPersistence,
    /// The same on the primary: it restarts empty, and the replica copies the emptiness.
    PrimaryWithoutPersistence,
    /// No configuration file: a promotion does not outlive a restart.
    NoConfigFile,
    /// The configuration file is on a file system that is mounted read-only.
    ConfigFileReadOnly,
    /// It would refuse all writes after the promotion, for want of replicas of its own.
    MinReplicasUnmet {
        /// Replicas it demands.
        demanded: u64,
        /// Replicas it has.
        connected: u64,
    },
    /// The primary goes on taking writes when it is cut off, which are lost later.
    PrimaryTakesWritesAlone,
    /// A Sentinel manages it too.
    Sentinel,
    /// It takes writes from clients while it is a replica; the next sync drops them.
    WritableReplica,
    /// The last snapshot failed; it may refuse writes (`stop-writes-on-bgsave-error`).
    LastSnapshotFailed,
    /// It belongs to a Redis Cluster.
    Cluster,
}

impl Risk {
    /// What an operator can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::SettingsUnreadable { .. } => "Give the ACL user +config|get.",
            Self::DisklessLoadOnEmptyDb => {
                "Set `repl-diskless-load` to `disabled` or `swapdb` on the replica."
            }
            Self::NoPersistence => "Set `appendonly yes` or `save` points on the replica.",
            Self::PrimaryWithoutPersistence => {
                "Set `appendonly yes` or `save` points on the primary, or keep it from restarting by \
                 itself."
            }
            Self::NoConfigFile => "Start redis with a configuration file that it may write.",
            Self::ConfigFileReadOnly => "Move the configuration file to where redis can write it.",
            Self::MinReplicasUnmet { .. } => {
                "Set `min-replicas-to-write 0` on the replica; the setting belongs on the primary."
            }
            Self::PrimaryTakesWritesAlone => {
                "Set `min-replicas-to-write 1` and `min-replicas-max-lag 10` on the primary."
            }
            Self::Sentinel => "Let either Sentinel or understudy fail this redis over, not both.",
            Self::WritableReplica => "Set `replica-read-only yes` on the replica.",
            Self::LastSnapshotFailed => "Look into the log of redis: disk full or not writable?",
            Self::Cluster => "Remove redis from the group: a cluster fails over by itself.",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SettingsUnreadable { text } => {
                return write!(f, "the settings of redis cannot be read: {text}");
            }
            Self::MinReplicasUnmet { demanded, connected } => {
                return write!(
                    f,
                    "after a promotion redis would refuse every write: it demands {demanded} \
                     replicas and has {connected}"
                );
            }
            Self::DisklessLoadOnEmptyDb => {
                "a primary that dies during a sync would leave the replica empty \
                 (repl-diskless-load on-empty-db)"
            }
            Self::NoPersistence => "the replica saves nothing to disk: a restart loses all data",
            Self::PrimaryWithoutPersistence => {
                "the primary saves nothing to disk: if it restarts, the replica copies its emptiness"
            }
            Self::NoConfigFile => {
                "redis runs without a configuration file: a promotion would not outlive a restart"
            }
            Self::ConfigFileReadOnly => {
                "the configuration file of redis is on a read-only file system: a promotion would \
                 not outlive a restart"
            }
            Self::PrimaryTakesWritesAlone => {
                "the primary takes writes while it is cut off from its replica; a failover loses them"
            }
            Self::Sentinel => "a Sentinel manages this redis too",
            Self::WritableReplica => "clients can write to the replica; the next sync drops that",
            Self::LastSnapshotFailed => "the last snapshot of redis failed",
            Self::Cluster => "this redis is part of a redis cluster",
        })
    }
}

/// Settings that matter, by the names that Redis 5 and later and Valkey know.
const SETTINGS: [&str; 4] = ["repl-diskless-load", "save", "appendonly", "min-replicas-to-write"];

pub(super) async fn inspect(
    local: &mut Connection,
    primary: Option<&mut Connection>,
    sample: Sample,
    marker_key: &str,
) -> Result<Inspection, RedisError> {
    let commands: [&[&str]; 6] = [
        &["INFO"],
        &["ROLE"],
        &["REPLICAOF", "NO", "ONE"],
        &["CONFIG", "REWRITE"],
        &["SET", marker_key, "0"],
        &["GET", marker_key],
    ];
    let permissions = permissions(local, &sample, &commands).await?;
    let mut risks = risks(local, &sample).await?;
    if let Some(primary) = primary {
        // A primary that cannot be asked has no settings to warn of; the sample shows that it is
        // out of reach.
        risks.extend(risks_of_primary(primary).await.unwrap_or_default());
    }
    Ok(Inspection { sample, user: local.user().to_owned(), permissions, risks })
}

/// Which of the commands we may use.
pub(super) async fn permissions(
    local: &mut Connection,
    sample: &Sample,
    commands: &[&[&str]],
) -> Result<Vec<Permission>, RedisError> {
    let user = local.user().to_owned();
    let rehearse = |words: &&[&str]| cmd("ACL").arg("DRYRUN").arg(&user).arg(*words).to_owned();
    let rehearsals = commands.iter().map(rehearse).collect::<Vec<Cmd>>();
    let verdicts = local.ask(&rehearsals).await?;
    let mut permissions = Vec::with_capacity(commands.len());
    for (words, verdict) in commands.iter().zip(verdicts) {
        let permitted = match dry_run(verdict) {
            Permitted::Unknown => try_harmless(local, sample, words).await?,
            known @ (Permitted::Yes | Permitted::No { .. }) => known,
        };
        permissions.push(Permission { command: words.join(" "), permitted });
    }
    Ok(permissions)
}

/// Reads the answer to `ACL DRYRUN`: OK, or a sentence that is not an error.
pub(super) fn dry_run(verdict: Value) -> Permitted {
    // An error comes from a Redis before 7, or for a user that may not ask.
    match verdict.extract_error().and_then(|v| Ok(redis::from_redis_value::<String>(v)?)) {
        Ok(text) if text == "OK" => Permitted::Yes,
        Ok(text) => Permitted::No { text },
        Err(_error) => Permitted::Unknown,
    }
}

/// Calls that do nothing, but are refused with `NOPERM` if the real one would be: rights are
/// checked before arguments and before the role.
async fn try_harmless(
    local: &mut Connection,
    sample: &Sample,
    words: &[&str],
) -> Result<Permitted, RedisError> {
    let read_only = matches!(&sample.role, Role::Replica(upstream) if upstream.read_only);
    let harmless: Vec<&str> = match words {
        ["INFO" | "ROLE"] | ["GET", ..] => words.to_vec(),
        // The port is no number, so the call fails before it changes anything.
        ["REPLICAOF", ..] => vec!["REPLICAOF", "understudy.invalid", "no-port"],
        // Refused by a replica, but later than for want of rights.
        ["SET", ..] if read_only => words.to_vec(),
        _ => return Ok(Permitted::Unknown),
    };
    let (name, arguments) = harmless.split_first().unwrap_or((&"PING", &[]));
    let mut answers = local.ask(&[cmd(name).arg(arguments).to_owned()]).await?;
    Ok(match answers.pop() {
        Some(Value::ServerError(error)) if error.code() == "NOPERM" => {
            Permitted::No { text: error.details().unwrap_or_default().to_owned() }
        }
        Some(_) | None => Permitted::Yes,
    })
}

async fn risks(local: &mut Connection, sample: &Sample) -> Result<Vec<Risk>, RedisError> {
    let mut risks = Vec::new();
    match settings(local).await? {
        Ok(settings) => {
            let is = |name: &str, value: &str| settings.get(name).is_some_and(|v| v == value);
            if is("repl-diskless-load", "on-empty-db") {
                risks.push(Risk::DisklessLoadOnEmptyDb);
            }
            if is("save", "") && is("appendonly", "no") {
                risks.push(Risk::NoPersistence);
            }
            let demanded = number(&settings, "min-replicas-to-write");
            let connected = sample.server.connected_replicas;
            if demanded > connected {
                risks.push(Risk::MinReplicasUnmet { demanded, connected });
            }
        }
        Err(text) => risks.push(Risk::SettingsUnreadable { text }),
    }
    match &sample.server.config_file {
        None => risks.push(Risk::NoConfigFile),
        // The file is looked for on this host, as redis is meant to run here. Whether redis may
        // write it is known for certain only when it does.
        Some(path) => {
            let mount = nix::sys::statvfs::statvfs(path);
            if mount.is_ok_and(|m| m.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY)) {
                risks.push(Risk::ConfigFileReadOnly);
            }
        }
    }
    if matches!(&sample.role, Role::Replica(upstream) if !upstream.read_only) {
        risks.push(Risk::WritableReplica);
    }
    if !sample.persistence.last_snapshot_ok {
        risks.push(Risk::LastSnapshotFailed);
    }
    if sample.server.cluster {
        risks.push(Risk::Cluster);
    }
    if watched_by_sentinel(local).await? {
        risks.push(Risk::Sentinel);
    }
    Ok(risks)
}

async fn risks_of_primary(primary: &mut Connection) -> Result<Vec<Risk>, RedisError> {
    let mut risks = Vec::new();
    let Ok(settings) = settings(primary).await? else { return Ok(risks) };
    let is = |name: &str, value: &str| settings.get(name).is_some_and(|v| v == value);
    if is("save", "") && is("appendonly", "no") {
        risks.push(Risk::PrimaryWithoutPersistence);
    }
    if number(&settings, "min-replicas-to-write") == 0 {
        risks.push(Risk::PrimaryTakesWritesAlone);
    }
    Ok(risks)
}

/// The inner error is the server's refusal, in its words.
async fn settings(
    connection: &mut Connection,
) -> Result<Result<BTreeMap<String, String>, String>, RedisError> {
    // One call for each: several names in one call are an error before Redis 7.
    let calls =
        SETTINGS.iter().map(|n| cmd("CONFIG").arg("GET").arg(n).to_owned()).collect::<Vec<_>>();
    let mut found = BTreeMap::new();
    for answer in connection.ask(&calls).await? {
        if let Value::ServerError(error) = answer {
            return Ok(Err(format!("{} {}", error.code(), error.details().unwrap_or_default())));
        }
        let pairs = redis::from_redis_value::<BTreeMap<String, String>>(answer)
            .map_err(|error| connection.senseless("CONFIG GET", error.to_string()))?;
        found.extend(pairs);
    }
    Ok(Ok(found))
}

fn number(settings: &BTreeMap<String, String>, name: &str) -> u64 {
    settings.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Every Sentinel subscribes to this channel on each Redis that it watches. A user that may not ask
/// cannot know; that is no reason to fail.
async fn watched_by_sentinel(local: &mut Connection) -> Result<bool, RedisError> {
    let call = cmd("PUBSUB").arg("NUMSUB").arg("__sentinel__:hello").to_owned();
    let answer = local.ask(&[call]).await?.pop().unwrap_or(Value::Nil);
    let counts = redis::from_redis_value::<Vec<(String, u64)>>(answer).unwrap_or_default();
    Ok(counts.iter().any(|(_, subscribers)| *subscribers > 0))
}
