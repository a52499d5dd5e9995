//! Whether the local Redis could follow another one: what `understudy check` says before it matters,
//! and what a rejoin makes sure of before it gives anything up.

use std::collections::BTreeMap;
use std::path::Path;

use redis::{Value, cmd};
use thiserror::Error;

use super::connection::{Connection, RedisError, name};
use super::copy::{self, CopyFault};
use super::inspect::{Permission, Permitted, permissions};
use super::{Redis, info, rejoin};
use crate::config::secret::Secret;
use crate::config::settings::{self, Host, Tls};

/// How the replication of the local Redis would log in at its master.
const SETTINGS: [&str; 3] = ["masteruser", "masterauth", "tls-replication"];

/// What a replica's user needs at its master.
const REPLICA_COMMANDS: [&[&str]; 3] =
    [&["PING"], &["REPLCONF", "capa", "eof"], &["PSYNC", "?", "-1"]];

/// What `understudy check` wants to know of a Redis that may have to follow another node's.
#[derive(Debug)]
pub struct Attachable {
    /// User that we are logged in as.
    pub user: String,
    /// Every command of a rejoin and a hand-off that a promotion does not need, and whether we may
    /// use it.
    pub permissions: Vec<Permission>,
    /// Whether the data set could be saved now.
    pub copy: Result<(), CopyFault>,
    /// Its version, if that cannot pause writes.
    pub too_old: Option<String>,
    /// For each other node's Redis whether this one would be let in.
    pub links: Vec<(String, LinkState)>,
}

/// Whether the local Redis would be let in by another one.
#[derive(Debug)]
pub enum LinkState {
    /// It would.
    Open,
    /// It would not.
    Closed(LinkFault),
    /// We may not see how it would log in.
    Hidden,
    /// That one cannot be asked.
    Unknown(RedisError),
}

/// Why the local Redis could not follow another one, although we can talk to both.
#[derive(Debug, Error)]
pub enum LinkFault {
    /// `masteruser` and `masterauth` do not open it.
    #[error(
        "redis at {address} does not let in the user {user} of `masteruser` and `masterauth`: {text}"
    )]
    Login {
        /// The one to follow.
        address: String,
        /// As whom.
        user: String,
        /// What it said.
        text: String,
    },
    /// The user may not copy.
    #[error(
        "redis at {address} does not permit {command} to the user {user} of `masteruser`: {text}"
    )]
    NotPermitted {
        /// The one to follow.
        address: String,
        /// As whom.
        user: String,
        /// What it may not do.
        command: String,
        /// What it said.
        text: String,
    },
    /// One speaks TLS and the other does not.
    #[error("{address} is configured {}, but `tls-replication` of this node's redis is {}",
        if *.encrypted { "with tls" } else { "without tls" }, if *.encrypted { "no" } else { "yes" })]
    Encryption {
        /// The one to follow.
        address: String,
        /// Whether it is reached by TLS.
        encrypted: bool,
    },
}

impl LinkFault {
    /// What an operator can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Login { .. } => {
                "Set `masterauth` (and `masteruser`, if it is not the default user) on each node's \
                 redis to what the other one accepts, and `CONFIG REWRITE`."
            }
            Self::NotPermitted { .. } => {
                "Give that user +psync +replconf +ping on each node's redis."
            }
            Self::Encryption { .. } => {
                "Set `tls-replication` on each node's redis to what its address in the configuration \
                 is, and `CONFIG REWRITE`."
            }
        }
    }
}

impl Redis {
    /// Tells whether this Redis could follow each of `others` after its data were saved in `copies`;
    /// changes nothing.
    ///
    /// # Errors
    /// If the local Redis does not answer.
    pub async fn attachable(
        &mut self,
        others: &[Host],
        copies: &Path,
    ) -> Result<Attachable, RedisError> {
        let sample = info(&mut self.local).await?;
        let commands: [&[&str]; 5] = [
            &["REPLCONF", "rdb-only", "1"],
            &["PSYNC", "?", "-1"],
            &["CLIENT", "PAUSE", "1", "WRITE"],
            &["CLIENT", "UNPAUSE"],
            &["REPLICAOF", "127.0.0.1", "6379"],
        ];
        let permissions = permissions(&mut self.local, &sample, &commands).await?;
        let mut links = Vec::with_capacity(others.len());
        for other in others {
            links.push((name(other), self.link(other).await?));
        }
        Ok(Attachable {
            user: self.local.user().to_owned(),
            permissions,
            copy: copy::would_fit(copies, sample.server.memory_bytes),
            too_old: (!rejoin::pauses_writes(&sample)).then_some(sample.server.version),
            links,
        })
    }

    async fn link(&mut self, other: &Host) -> Result<LinkState, RedisError> {
        let mut upstream = match Connection::new(other, &self.settings) {
            Ok(upstream) => upstream,
            Err(error) => return Ok(LinkState::Unknown(error)),
        };
        // Who cannot be asked by us may still let a replica in; that is not known then.
        if let Err(error) = info(&mut upstream).await {
            return Ok(LinkState::Unknown(error));
        }
        link_state(&mut self.local, &mut upstream, other, &self.settings).await
    }
}

/// Whether `local` would get through to `upstream`, which is known to answer us.
pub(super) async fn link_state(
    local: &mut Connection,
    upstream: &mut Connection,
    at: &Host,
    settings: &settings::Redis,
) -> Result<LinkState, RedisError> {
    let Some(login) = login(local).await? else { return Ok(LinkState::Hidden) };
    let address = upstream.address().to_owned();
    let encrypted = matches!((at, &settings.tls), (Host::Tcp(..), Tls::Verify { .. }));
    // A server without TLS does not know the setting.
    if login.tls.is_some_and(|tls| tls != encrypted) || (login.tls.is_none() && encrypted) {
        return Ok(LinkState::Closed(LinkFault::Encryption { address, encrypted }));
    }
    let user = login.user.clone().unwrap_or_else(|| "default".to_owned());
    let as_replica = settings::Redis {
        user: login.user.clone(),
        password: login.password.clone(),
        ..settings.clone()
    };
    let refusal = match Connection::new(at, &as_replica)?.ask_one("PING", cmd("PING")).await {
        Ok(_) => None,
        Err(RedisError::Login { text, .. }) => Some(text),
        Err(RedisError::Refused { code, text, .. }) => Some(format!("{code} {text}")),
        Err(error) => return Ok(LinkState::Unknown(error)),
    };
    if let Some(text) = refusal {
        return Ok(LinkState::Closed(LinkFault::Login { address, user, text }));
    }
    let fault = not_permitted(upstream, address, user).await;
    Ok(fault.map_or(LinkState::Open, LinkState::Closed))
}

/// Which command of a replica its user may not use, as far as we may ask.
async fn not_permitted(
    upstream: &mut Connection,
    address: String,
    user: String,
) -> Option<LinkFault> {
    let rehearse = |words: &&[&str]| cmd("ACL").arg("DRYRUN").arg(&user).arg(*words).to_owned();
    let rehearsals = REPLICA_COMMANDS.iter().map(rehearse).collect::<Vec<_>>();
    let verdicts = upstream.ask(&rehearsals).await.ok()?;
    for (words, verdict) in REPLICA_COMMANDS.iter().zip(verdicts) {
        if let Permitted::No { text } = super::inspect::dry_run(verdict) {
            let command = words[0].to_owned();
            return Some(LinkFault::NotPermitted { address, user, command, text });
        }
    }
    None
}

/// How a replica logs in.
struct Login {
    user: Option<String>,
    password: Option<Secret>,
    tls: Option<bool>,
}

/// `None` if we may not know.
async fn login(local: &mut Connection) -> Result<Option<Login>, RedisError> {
    let calls = SETTINGS.map(|name| cmd("CONFIG").arg("GET").arg(name).to_owned());
    let mut found = BTreeMap::new();
    for answer in local.ask(&calls).await? {
        if matches!(answer, Value::ServerError(_)) {
            return Ok(None);
        }
        // The answer has a password in it, so what is wrong with it is not shown.
        let pairs = redis::from_redis_value::<BTreeMap<String, String>>(answer)
            .map_err(|_| local.senseless("CONFIG GET", "no pairs of texts".to_owned()))?;
        found.extend(pairs);
    }
    let mut text = |name: &str| found.remove(name).filter(|value| !value.is_empty());
    Ok(Some(Login {
        user: text("masteruser"),
        password: text("masterauth").map(Secret::new),
        tls: text("tls-replication").map(|value| value == "yes"),
    }))
}
