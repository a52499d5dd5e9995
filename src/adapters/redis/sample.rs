//! What a Redis says about itself, read from its answer to `INFO`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::time::BootTime;

/// What the local Redis said at one moment, and its primary if that could be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the answer came.
    pub at: BootTime,
    /// The process that answered.
    pub server: Server,
    /// What it is at present.
    pub role: Role,
    /// Identity of its replication history.
    pub replid: String,
    /// The history that it goes on from, if it began its own when it was promoted.
    pub earlier: Option<Earlier>,
    /// It reads its data from disk and serves nothing.
    pub loading: bool,
    /// Keys in all databases.
    pub keys: u64,
    /// What survives a restart.
    pub persistence: Persistence,
    /// The primary at about the same time, while it lives and is configured.
    pub primary: Option<Primary>,
}

/// The process that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Version, of Valkey if it is one.
    pub version: String,
    /// Whether it is Valkey.
    pub valkey: bool,
    /// Changes with every start of the process.
    pub run_id: String,
    /// Its configuration file; without one a promotion cannot be made to last.
    pub config_file: Option<PathBuf>,
    /// Part of a Redis Cluster, which promotes its own replicas and refuses `REPLICAOF`.
    pub cluster: bool,
    /// Replicas that are connected to it.
    pub connected_replicas: u64,
    /// Bytes of replication history at its end.
    pub offset: u64,
    /// Bytes of memory that it uses.
    pub memory_bytes: u64,
}

/// The history that a promoted replica copied before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Identity of that history.
    pub replid: String,
    /// It has this many bytes of it, and none behind them.
    pub offset: u64,
}

/// What a Redis is at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Master,
    /// It copies another one.
    Replica(Upstream),
}

/// What a replica says about what it copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Name or address, as the replica was told.
    pub host: String,
    /// Port.
    pub port: u16,
    /// State of the connection.
    pub link: Link,
    /// A full copy is under way; the data are not to be used.
    pub sync_in_progress: bool,
    /// How far it has copied.
    pub offset: u64,
    /// Clients may write to the replica, and such writes are lost.
    pub read_only: bool,
    /// Whether that is the configured primary.
    pub follows: Follows,
}

/// Connection of a replica to what it copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Connected.
    Up {
        /// Since the last byte came. An idle primary still pings every ten seconds.
        silent_for: Duration,
    },
    /// Was connected once.
    Down {
        /// For how long it is not.
        since: Duration,
    },
    /// Never connected since the replica was started.
    Never,
}

/// Whether a replica copies the configured primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It does: same address, or same replication history.
    Primary,
    /// It copies another one.
    Other,
    /// No primary is configured.
    NotConfigured,
}

/// What survives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Every write is logged.
    pub aof: bool,
    /// The last snapshot succeeded, or none was tried.
    pub last_snapshot_ok: bool,
}

/// The configured primary, as far as lag is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Identity of its replication history.
    pub replid: String,
    /// How far its history goes.
    pub offset: u64,
    /// When it said so.
    pub at: BootTime,
}

impl Sample {
    /// Reads an answer to `INFO`. `Err` says what is missing.
    pub(super) fn parse(info: &str, at: BootTime) -> Result<Self, String> {
        let fields = fields(info);
        let text = |name: &str| fields.get(name).copied().ok_or_else(|| format!("no {name}"));
        let number = |name: &str| number(&fields, name);
        let flag = |name: &str| fields.get(name).is_some_and(|value| *value != "0");

        let role = match text("role")? {
            "master" => Role::Master,
            "slave" | "replica" => Role::Replica(upstream(&fields)?),
            other => return Err(format!("role {other}")),
        };
        let valkey = fields.get("valkey_version").copied();
        Ok(Self {
            at,
            server: Server {
                version: valkey.or(fields.get("redis_version").copied()).unwrap_or("?").to_owned(),
                valkey: valkey.is_some(),
                run_id: text("run_id")?.to_owned(),
                config_file: fields.get("config_file").filter(|f| !f.is_empty()).map(PathBuf::from),
                cluster: flag("cluster_enabled"),
                connected_replicas: number("connected_slaves").unwrap_or(0),
                offset: number("master_repl_offset")?,
                memory_bytes: number("used_memory").unwrap_or(0),
            },
            role,
            // Unknown before Redis 4; then no lag is known either.
            replid: fields.get("master_replid").copied().unwrap_or_default().to_owned(),
            earlier: earlier(&fields),
            loading: flag("loading") || flag("async_loading"),
            keys: keys(&fields),
            persistence: Persistence {
                aof: flag("aof_enabled"),
                last_snapshot_ok: fields.get("rdb_last_bgsave_status").is_none_or(|s| *s == "ok"),
            },
            primary: None,
        })
    }

    /// Whether it copies another Redis than the configured primary, or none. A Redis that is loading has
    /// not said yet.
    #[must_use]
    pub fn is_estranged(&self) -> bool {
        match &self.role {
            _ if self.loading => false,
            Role::Master => true,
            Role::Replica(upstream) => upstream.follows == Follows::Other,
        }
    }

    /// Bytes that the replica lacked at this moment, if the primary could be asked.
    #[must_use]
    pub fn lag_bytes(&self) -> Option<u64> {
        match (&self.role, &self.primary) {
            (Role::Replica(upstream), Some(primary)) if primary.replid == self.replid => {
                Some(primary.offset.saturating_sub(upstream.offset))
            }
            (Role::Replica(_) | Role::Master, _) => None,
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Master => f.write_str("master")?,
            Role::Replica(upstream) => {
                write!(f, "replica of {}:{}, ", upstream.host, upstream.port)?;
                match upstream.link {
                    Link::Up { .. } => f.write_str("link up")?,
                    Link::Down { since } => write!(f, "link DOWN for {} s", since.as_secs())?,
                    Link::Never => f.write_str("link NEVER up")?,
                }
            }
        }
        if let Some(lag) = self.lag_bytes() {
            write!(f, ", {lag} bytes behind")?;
        }
        if self.loading {
            f.write_str(", LOADING")?;
        }
        write!(f, ", {} keys", self.keys)
    }
}

pub(super) fn fields(info: &str) -> BTreeMap<&str, &str> {
    info.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect()
}

pub(super) fn number(fields: &BTreeMap<&str, &str>, name: &str) -> Result<u64, String> {
    let value = fields.get(name).ok_or_else(|| format!("no {name}"))?;
    value.parse().map_err(|_not_a_number| format!("{name} is {value}"))
}

/// What `second_repl_offset` names is the first byte that it has not; it is -1 without such a history.
fn earlier(fields: &BTreeMap<&str, &str>) -> Option<Earlier> {
    let offset = number(fields, "second_repl_offset").ok()?.checked_sub(1)?;
    Some(Earlier { replid: (*fields.get("master_replid2")?).to_owned(), offset })
}

fn upstream(fields: &BTreeMap<&str, &str>) -> Result<Upstream, String> {
    let port = number(fields, "master_port")?;
    // Negative while unknown, which is as good as "for ever" below.
    let seconds = |name| number(fields, name).map(Duration::from_secs);
    let link = match fields.get("master_link_status").copied() {
        Some("up") => {
            Link::Up { silent_for: seconds("master_last_io_seconds_ago").unwrap_or(Duration::ZERO) }
        }
        Some("down") => match seconds("master_link_down_since_seconds") {
            Ok(since) => Link::Down { since },
            Err(_unknown) => Link::Never,
        },
        other => return Err(format!("master_link_status {other:?}")),
    };
    Ok(Upstream {
        host: fields.get("master_host").copied().unwrap_or_default().to_owned(),
        port: u16::try_from(port).map_err(|_too_big| format!("master_port is {port}"))?,
        link,
        sync_in_progress: fields.get("master_sync_in_progress").is_some_and(|v| *v != "0"),
        offset: number(fields, "slave_repl_offset")?,
        read_only: fields.get("slave_read_only").is_none_or(|v| *v != "0"),
        follows: Follows::NotConfigured,
    })
}

/// Sum over the lines `dbN:keys=5,expires=0,…`.
fn keys(fields: &BTreeMap<&str, &str>) -> u64 {
    fields
        .iter()
        .filter(|(name, _)| {
            name.strip_prefix("db").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
        })
        .filter_map(|(_, value)| {
            value.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:ab\r\n\
        config_file:/etc/redis/redis.conf\r\n# Persistence\r\nloading:0\r\naof_enabled:1\r\n\
        rdb_last_bgsave_status:ok\r\n# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\n\
        master_port:6379\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\n\
        master_sync_in_progress:0\r\nslave_repl_offset:70\r\nslave_read_only:1\r\n\
        connected_slaves:0\r\nmaster_replid:cd\r\nmaster_repl_offset:70\r\n# Cluster\r\n\
        cluster_enabled:0\r\n# Keyspace\r\ndb0:keys=5,expires=0,avg_ttl=0\r\ndb3:keys=2,expires=1\r\n";

    fn parse(text: &str) -> Sample {
        Sample::parse(text, BootTime::ZERO).unwrap()
    }

    fn link(text: &str) -> Link {
        match parse(text).role {
            Role::Replica(upstream) => upstream.link,
            Role::Master => panic!("a replica was expected"),
        }
    }

    #[test]
    fn healthy_replica() {
        let sample = parse(REPLICA);
        assert_eq!((sample.keys, sample.replid.as_str()), (7, "cd"));
        assert_eq!(link(REPLICA), Link::Up { silent_for: Duration::from_secs(3) });
        assert!(!sample.loading && sample.persistence.aof && !sample.server.cluster);
    }

    #[test]
    fn link_down_for_a_while_and_never_up_are_different() {
        let down = REPLICA.replace("link_status:up", "link_status:down");
        let since = format!("{down}master_link_down_since_seconds:40\r\n");
        assert_eq!(link(&since), Link::Down { since: Duration::from_secs(40) });
        let never = format!("{down}master_link_down_since_seconds:-1\r\n");
        assert_eq!(link(&never), Link::Never);
        assert_eq!(link(&down), Link::Never, "a missing figure must not read as a short outage");
    }

    #[test]
    fn valkey_says_its_own_version() {
        let text = format!("{REPLICA}server_name:valkey\r\nvalkey_version:8.1.1\r\n");
        let server = parse(&text).server;
        assert!(server.valkey);
        assert_eq!(server.version, "8.1.1");
    }

    #[test]
    fn nonsense_is_an_error_and_not_a_healthy_replica() {
        for bad in ["", "role:slave\r\n", "role:sentinel\r\nrun_id:a\r\nmaster_repl_offset:0\r\n"] {
            assert!(Sample::parse(bad, BootTime::ZERO).is_err(), "{bad:?}");
        }
        let no_port = REPLICA.replace("master_port:6379", "master_port:none");
        assert!(Sample::parse(&no_port, BootTime::ZERO).is_err());
    }

    #[test]
    fn the_history_before_a_promotion_ends_before_its_second_offset() {
        let parse = |second: &str| {
            parse(&format!("{REPLICA}master_replid2:ef\r\nsecond_repl_offset:{second}\r\n")).earlier
        };
        assert_eq!(parse("2914"), Some(Earlier { replid: "ef".to_owned(), offset: 2913 }));
        assert_eq!(parse("-1"), None);
        assert_eq!(parse("0"), None);
    }

    #[test]
    fn lag_needs_the_same_history() {
        let mut sample = parse(REPLICA);
        let primary = |replid: &str| {
            Some(Primary { replid: replid.to_owned(), offset: 100, at: BootTime::ZERO })
        };
        assert_eq!(sample.lag_bytes(), None);
        sample.primary = primary("cd");
        assert_eq!(sample.lag_bytes(), Some(30));
        sample.primary = primary("ef");
        assert_eq!(sample.lag_bytes(), None);
    }
}
