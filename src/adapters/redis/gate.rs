//! Whether a replica is good enough to become the master.
//!
//! `REPLICAOF NO ONE` is answered with OK by an empty Redis, by one that follows someone else and by
//! one that is days behind. So what it says about itself is judged first, here and nowhere else.

use std::fmt;
use std::time::Duration;

use super::sample::{Follows, Link, Primary, Role, Sample, Upstream};
use crate::config::settings;
use crate::time::BootTime;

/// For so long the greatest number of keys is remembered. A primary that restarted empty hands its
/// emptiness to the replica within seconds; someone who deleted keys on purpose hours ago meant it.
const MOST_KEYS_FOR: Duration = Duration::from_secs(600);

/// A tenth of the keys must be left. Applications delete much, but rarely nine keys of ten.
const KEYS_LEFT_MIN_DIVISOR: u64 = 10;

/// Fewer keys than this say nothing when they vanish.
const KEYS_TO_JUDGE_MIN: u64 = 50;

/// Whether the replica described by `sample` may become the master.
///
/// # Errors
/// The first reason why not, the one that explains the others first.
pub fn gate(sample: &Sample, last: &LastLag, settings: &settings::Redis) -> Result<(), GateFault> {
    if sample.server.cluster {
        return Err(GateFault::Cluster);
    }
    // First, as a Redis that is loading has not yet the keys, the link and the history it will
    // have.
    if sample.loading {
        return Err(GateFault::Loading);
    }
    let upstream = match &sample.role {
        Role::Replica(upstream) => upstream,
        Role::Master => return Err(GateFault::AlreadyMaster { promoted_for: None }),
    };
    if upstream.follows == Follows::Other {
        return Err(GateFault::WrongMaster {
            follows: format!("{}:{}", upstream.host, upstream.port),
        });
    }
    if upstream.sync_in_progress {
        return Err(GateFault::SyncInProgress);
    }
    link(upstream, settings.max_link_down)?;
    if let Some((lag_bytes, sampled)) = last.behind(sample, upstream)
        && lag_bytes > settings.max_lag_bytes
    {
        let age = sample.at.since(sampled);
        return Err(GateFault::TooFarBehind { lag_bytes, max_bytes: settings.max_lag_bytes, age });
    }
    if settings.allow_empty {
        return Ok(());
    }
    if sample.keys == 0 {
        return Err(GateFault::Empty);
    }
    match last.most_keys {
        Some((before, at))
            if before >= KEYS_TO_JUDGE_MIN
                && sample.at.since(at) <= MOST_KEYS_FOR
                && sample.keys < before / KEYS_LEFT_MIN_DIVISOR =>
        {
            Err(GateFault::Shrunk { keys: sample.keys, before })
        }
        Some(_) | None => Ok(()),
    }
}

/// Why a replica must not become the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateFault {
    /// It never completed a sync since it was started, so nobody knows how old its data are.
    NeverSynced,
    /// It is reading its data from disk.
    Loading,
    /// It is in the middle of a full copy.
    SyncInProgress,
    /// It heard nothing from its primary for too long.
    LinkDownTooLong {
        /// For how long.
        silent_for: Duration,
        /// How long is allowed.
        max: Duration,
    },
    /// It lacks too much of what the primary had when that could last be asked.
    TooFarBehind {
        /// Bytes it lacks.
        lag_bytes: u64,
        /// Bytes that are allowed.
        max_bytes: u64,
        /// How long ago the primary was asked.
        age: Duration,
    },
    /// It copies another Redis than the configured primary.
    WrongMaster {
        /// Which one.
        follows: String,
    },
    /// It has no keys.
    Empty,
    /// It lost most of its keys a short while ago.
    Shrunk {
        /// Keys now.
        keys: u64,
        /// Keys a short while ago.
        before: u64,
    },
    /// It is a master, but understudy did not make it one in this tenure.
    AlreadyMaster {
        /// Epoch for which understudy made it a master once, if it ever did.
        promoted_for: Option<u64>,
    },
    /// It belongs to a Redis Cluster, which promotes its replicas itself.
    Cluster,
}

impl GateFault {
    /// Whether it passes by itself, so that waiting for it makes sense.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Loading | Self::SyncInProgress => true,
            Self::NeverSynced
            | Self::LinkDownTooLong { .. }
            | Self::TooFarBehind { .. }
            | Self::WrongMaster { .. }
            | Self::Empty
            | Self::Shrunk { .. }
            | Self::AlreadyMaster { .. }
            | Self::Cluster => false,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NeverSynced => {
                "Let it sync with its primary. If the primary is lost, compare the data by hand \
                 before you promote it with `REPLICAOF NO ONE`."
            }
            Self::Loading => "Wait until it has loaded; `INFO persistence` shows the progress.",
            Self::SyncInProgress => {
                "Wait until the copy is complete. If the primary died in the middle of it, the copy \
                 ends by itself after `repl-timeout`, and this check then says what is left."
            }
            Self::LinkDownTooLong { .. } => {
                "Mend the replication link. If the primary is lost and data of this age are good \
                 enough, raise `max_link_down`."
            }
            Self::TooFarBehind { .. } => {
                "Find out why it cannot keep up (network, disk, load). If the loss is acceptable, \
                 raise `max_lag_bytes`."
            }
            Self::WrongMaster { .. } => {
                "Point it at the primary with `REPLICAOF host port` and `CONFIG REWRITE`, or correct \
                 `primary` in the configuration."
            }
            Self::Empty => {
                "Check that the primary has data and that the sync succeeded. If an empty Redis is \
                 normal here, set `allow_empty = true`."
            }
            Self::Shrunk { .. } => {
                "Check whether the primary lost its data (a restart without persistence) and handed \
                 the loss on. If the keys were deleted on purpose, try again in ten minutes."
            }
            Self::AlreadyMaster { .. } => {
                "Two masters mean two histories: compare both, keep one, and make the other a replica \
                 with `REPLICAOF host port` after saving a copy of its RDB file."
            }
            Self::Cluster => "Remove redis from the group: a cluster fails over by itself.",
        }
    }
}

impl fmt::Display for GateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverSynced => {
                f.write_str("the replica has not completed a sync since it was started")
            }
            Self::Loading => f.write_str("the replica is still reading its data from disk"),
            Self::SyncInProgress => f.write_str("the replica is in the middle of a full copy"),
            Self::LinkDownTooLong { silent_for, max } => write!(
                f,
                "the replica has heard nothing from its primary for {}, {} are allowed",
                humantime::format_duration(*silent_for),
                humantime::format_duration(*max)
            ),
            Self::TooFarBehind { lag_bytes, max_bytes, age } => write!(
                f,
                "the replica lacks {lag_bytes} bytes of what the primary had {} ago, {max_bytes} are \
                 allowed",
                humantime::format_duration(Duration::from_secs(age.as_secs()))
            ),
            Self::WrongMaster { follows } => {
                write!(f, "the replica follows {follows}, not the configured primary")
            }
            Self::Empty => f.write_str("the replica has no keys"),
            Self::Shrunk { keys, before } => {
                write!(f, "the replica has {keys} keys left of {before} a short while ago")
            }
            Self::AlreadyMaster { promoted_for: None } => {
                f.write_str("this redis is a master already, and no replica that could be promoted")
            }
            Self::AlreadyMaster { promoted_for: Some(epoch) } => {
                write!(f, "this redis is a master already, made one for the earlier epoch {epoch}")
            }
            Self::Cluster => f.write_str("this redis is part of a redis cluster"),
        }
    }
}

impl std::error::Error for GateFault {}

/// What earlier samples said and a dead primary can no longer say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastLag {
    /// How far the primary's history went when it was last asked.
    primary: Option<Primary>,
    /// The greatest number of keys of the last minutes, and when that was.
    most_keys: Option<(u64, BootTime)>,
    /// Address in the replica's own words that was proven to be the primary's.
    proven: Option<(String, u16)>,
}

impl LastLag {
    /// Remembers what `sample` says.
    pub fn observe(&mut self, sample: &Sample) {
        if let Some(primary) = &sample.primary {
            self.primary = Some(primary.clone());
        }
        let outdone = self
            .most_keys
            .is_none_or(|(keys, at)| sample.keys >= keys || sample.at.since(at) > MOST_KEYS_FOR);
        if outdone && !sample.loading {
            self.most_keys = Some((sample.keys, sample.at));
        }
        if let Role::Replica(upstream) = &sample.role
            && upstream.follows == Follows::Primary
        {
            self.proven = Some((upstream.host.clone(), upstream.port));
        }
    }

    /// Bytes that the replica of `sample` lacks of what the primary had when last asked, and when
    /// that was. `None` if the primary was never asked or began a new history since.
    #[must_use]
    pub fn lag_bytes(&self, sample: &Sample) -> Option<(u64, BootTime)> {
        match &sample.role {
            Role::Replica(upstream) => self.behind(sample, upstream),
            Role::Master => None,
        }
    }

    /// Whether `upstream` goes by an address that was proven to be the primary's.
    pub(super) fn proves(&self, upstream: &Upstream) -> bool {
        self.proven.as_ref().is_some_and(|(h, p)| *h == upstream.host && *p == upstream.port)
    }

    fn behind(&self, sample: &Sample, upstream: &Upstream) -> Option<(u64, BootTime)> {
        let primary = self.primary.as_ref().filter(|primary| primary.replid == sample.replid)?;
        Some((primary.offset.saturating_sub(upstream.offset), primary.at))
    }
}

fn link(upstream: &Upstream, max: Duration) -> Result<(), GateFault> {
    let silent_for = match upstream.link {
        Link::Never => return Err(GateFault::NeverSynced),
        Link::Up { silent_for } => silent_for,
        Link::Down { since } => since,
    };
    if silent_for > max {
        return Err(GateFault::LinkDownTooLong { silent_for, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Persistence, Server};
    use super::*;
    use crate::config::settings::{Host, Tls};

    const MAX_DOWN: Duration = Duration::from_secs(60);

    fn settings() -> settings::Redis {
        settings::Redis {
            address: Host::Tcp("127.0.0.1".to_owned(), 6379),
            primary: None,
            nodes: std::collections::BTreeMap::new(),
            user: None,
            password: None,
            tls: Tls::Off,
            max_lag_bytes: 100,
            max_link_down: MAX_DOWN,
            allow_empty: false,
            call_timeout: Duration::from_secs(1),
        }
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    fn upstream() -> Upstream {
        Upstream {
            host: "alpha".to_owned(),
            port: 6379,
            link: Link::Up { silent_for: Duration::from_secs(1) },
            sync_in_progress: false,
            offset: 1000,
            read_only: true,
            follows: Follows::Primary,
        }
    }

    fn replica(upstream: Upstream) -> Sample {
        Sample {
            at: at(1000),
            server: Server {
                version: "7.0.15".to_owned(),
                valkey: false,
                run_id: "r".to_owned(),
                config_file: None,
                cluster: false,
                connected_replicas: 0,
                offset: 1000,
                memory_bytes: 0,
            },
            role: Role::Replica(upstream),
            replid: "history".to_owned(),
            earlier: None,
            loading: false,
            keys: 100,
            persistence: Persistence { aof: true, last_snapshot_ok: true },
            primary: None,
        }
    }

    fn judge(upstream: Upstream) -> Result<(), GateFault> {
        gate(&replica(upstream), &LastLag::default(), &settings())
    }

    fn seen(offset: u64, replid: &str) -> LastLag {
        let primary = Primary { replid: replid.to_owned(), offset, at: at(990) };
        LastLag { primary: Some(primary), ..LastLag::default() }
    }

    #[test]
    fn a_healthy_replica_passes() {
        assert_eq!(judge(upstream()), Ok(()));
    }

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_not() {
        for link in [|silent_for| Link::Up { silent_for }, |since| Link::Down { since }] {
            assert_eq!(judge(Upstream { link: link(MAX_DOWN), ..upstream() }), Ok(()));
            let silent_for = MAX_DOWN + Duration::from_secs(1);
            assert_eq!(
                judge(Upstream { link: link(silent_for), ..upstream() }),
                Err(GateFault::LinkDownTooLong { silent_for, max: MAX_DOWN })
            );
        }
    }

    #[test]
    fn lag_at_the_limit_is_allowed_and_one_byte_more_is_not() {
        let sample = replica(upstream());
        assert_eq!(gate(&sample, &seen(1100, "history"), &settings()), Ok(()));
        assert_eq!(
            gate(&sample, &seen(1101, "history"), &settings()),
            Err(GateFault::TooFarBehind {
                lag_bytes: 101,
                max_bytes: 100,
                age: Duration::from_secs(10)
            })
        );
    }

    #[test]
    fn a_replica_that_caught_up_since_the_primary_was_asked_is_not_behind() {
        let caught_up = replica(Upstream { offset: 5000, ..upstream() });
        assert_eq!(gate(&caught_up, &seen(5000, "history"), &settings()), Ok(()));
    }

    #[test]
    fn offsets_of_different_histories_are_not_compared() {
        assert_eq!(gate(&replica(upstream()), &seen(9_999_999, "another"), &settings()), Ok(()));
    }

    #[test]
    fn each_state_has_its_own_reason() {
        let never = Upstream { link: Link::Never, ..upstream() };
        assert_eq!(judge(never), Err(GateFault::NeverSynced));
        let syncing = Upstream { sync_in_progress: true, link: Link::Never, ..upstream() };
        assert_eq!(judge(syncing), Err(GateFault::SyncInProgress));
        let other = Upstream { follows: Follows::Other, ..upstream() };
        assert_eq!(judge(other), Err(GateFault::WrongMaster { follows: "alpha:6379".to_owned() }));
        let loading = Sample { loading: true, keys: 0, ..replica(upstream()) };
        assert_eq!(gate(&loading, &LastLag::default(), &settings()), Err(GateFault::Loading));
        let master = Sample { role: Role::Master, ..replica(upstream()) };
        assert_eq!(
            gate(&master, &LastLag::default(), &settings()),
            Err(GateFault::AlreadyMaster { promoted_for: None })
        );
    }

    #[test]
    fn an_empty_replica_passes_only_if_that_is_normal() {
        let empty = Sample { keys: 0, ..replica(upstream()) };
        assert_eq!(gate(&empty, &LastLag::default(), &settings()), Err(GateFault::Empty));
        let normal = settings::Redis { allow_empty: true, ..settings() };
        assert_eq!(gate(&empty, &LastLag::default(), &normal), Ok(()));
    }

    #[test]
    fn a_replica_that_just_lost_nine_keys_of_ten_does_not_pass() {
        let mut last = LastLag::default();
        last.observe(&Sample { at: at(900), keys: 1000, ..replica(upstream()) });
        let few = |seconds| Sample { at: at(seconds), keys: 99, ..replica(upstream()) };
        last.observe(&few(901));
        let fault = GateFault::Shrunk { keys: 99, before: 1000 };
        assert_eq!(gate(&few(902), &last, &settings()), Err(fault));
        let tenth = Sample { keys: 100, ..few(902) };
        assert_eq!(gate(&tenth, &last, &settings()), Ok(()));
        assert_eq!(gate(&few(900 + 601), &last, &settings()), Ok(()), "it was long ago");
    }

    #[test]
    fn waiting_helps_only_what_passes_by_itself() {
        assert!(GateFault::Loading.retryable() && GateFault::SyncInProgress.retryable());
        assert!(!GateFault::Empty.retryable() && !GateFault::NeverSynced.retryable());
    }
}
