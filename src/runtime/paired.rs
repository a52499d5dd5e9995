//! What a worker does in paired mode only: the guard, hand-over, and Redis of a node without the
//! group.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::files;
use super::worker::{Report, Worker};
use crate::adapters::guard::tenure::Tenure;
use crate::adapters::guard::{self, GuardError};
use crate::adapters::postgres::paired::{Ask, RequestEnd};
use crate::adapters::redis::{Before, HandOff, Redis, Rejoin};
use crate::adapters::systemd::Active;
use crate::config::settings;
use crate::engine::event::{Event, GuardReport, Outcome};
use crate::engine::guard::Standing;
use crate::engine::liveness::seconds;
use crate::engine::observation::{Epoch, Nonce, PendingRequest, Token};
use crate::error::chain;

/// How long clients of Redis may wait for a replica to catch up before a hand-over.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// Pause between two attempts to reach a guard that is not there, or to have it release the lease.
const GUARD_PACE: Duration = Duration::from_millis(250);

impl Worker {
    /// In what time after its last renewal this node's units are dead.
    pub(super) fn ttl(&self) -> Duration {
        match self.group.paired {
            Some(_) => self.settings.paired.dead_by(),
            None => Duration::ZERO,
        }
    }

    // ---- the guard ----

    /// Hands the tenure to the guard and waits until it has renewed the lease.
    pub(super) async fn guard(&mut self, token: Token) -> Outcome {
        let Some((_, asked_at)) = self.asked.filter(|(nonce, _)| *nonce == token.nonce) else {
            return Outcome::NotBegun("it is not known when the lease was asked for".to_owned());
        };
        let (settings, group) = (&self.settings, &self.group.name);
        let (state_dir, runtime_dir) = (&settings.state_dir, &settings.runtime_dir);
        let tenure = Tenure::new(group, &settings.node, token, &self.boot, asked_at);
        let deadline = settings.paired.fence_after;
        match guard::start(&mut self.systemd, state_dir, runtime_dir, &tenure, deadline).await {
            Ok(_) => Outcome::Done,
            Err(error @ GuardError::Write { .. }) => Outcome::NotBegun(chain(&error)),
            Err(error) => Outcome::Failed(chain(&error)),
        }
    }

    /// What keeps the units from ending with the guard: without that, nobody may take the group by
    /// itself.
    pub(super) async fn unbound(&mut self, deadline: Duration) -> Vec<String> {
        if self.group.paired.is_none() {
            return Vec::new();
        }
        let kill_after = self.settings.paired.kill_after();
        let group = &self.group.name;
        match timeout(deadline, self.systemd.stopping(&self.group.units)).await {
            Ok(Ok(units)) => {
                let unbound: Vec<_> =
                    units.iter().flat_map(|it| guard::unbound(it, group, kill_after)).collect();
                if unbound.is_empty() {
                    return unbound;
                }
                let why = unbound.join("; ");
                vec![format!("not protected: {why}. As root: `understudy protect {group}`")]
            }
            Ok(Err(error)) => vec![format!("systemd: {}", chain(&error))],
            Err(_) => vec!["systemd does not say how the units stop".to_owned()],
        }
    }

    // ---- hand-over ----

    /// Writes an order into the store, if it is not there yet, and that it has begun. If it cannot be
    /// written the other node does not get ready, and nothing happens.
    pub(super) async fn announce(&mut self, order: PendingRequest) {
        let to = order.target.clone().unwrap_or_default();
        let ask = Ask {
            id: order.id,
            group: &self.group.name,
            kind: order.kind,
            from_epoch: order.from_epoch,
            target: order.target.as_deref(),
            by: &order.by,
            reason: &order.reason,
        };
        let mut store = self.store.lock().await;
        let announced = match store.ask(&ask).await {
            Ok(_) => store.announce(&self.group.name, order.id, &to).await,
            Err(error) => Err(error),
        };
        drop(store);
        let why = match announced {
            Ok(true) => return,
            Ok(false) => "it is void".to_owned(),
            Err(error) => chain(&error),
        };
        self.remark(format!("the order to hand over could not be announced: {why}")).await;
    }

    pub(super) async fn end_request(&mut self, id: Nonce, end: RequestEnd, text: &str) {
        let ended = self.store.lock().await.end_request(&self.group.name, id, end, text).await;
        if let Err(error) = ended {
            let text = format!("the end of an order is not in the store: {}", chain(&error));
            self.remark(text).await;
        }
    }

    /// Gives the lease to another node. The units were stopped; the guard looks whether a process of
    /// them is left.
    pub(super) async fn hand_over(&mut self, token: Token, to: &str, lossless: bool) -> Outcome {
        let paused = match self.catch_up(to, lossless).await {
            Ok(paused) => paused,
            Err(why) => return Outcome::NotBegun(why),
        };
        let (runtime_dir, group) = (self.settings.runtime_dir.clone(), self.group.name.clone());
        let deadline = self.settings.paired.fence_after;
        let released = loop {
            match guard::release(&runtime_dir, &group, Some(to), deadline).await {
                // A unit that was let through a moment ago may be about to start, and a process may
                // need another moment to end. The order's own deadline ends this.
                Err(GuardError::Refused(why)) => {
                    tracing::debug!(group, why, "the guard does not release the lease yet");
                    sleep(GUARD_PACE).await;
                }
                other => break other,
            }
        };
        match released {
            Ok(epoch) => {
                let ended = token.epoch;
                self.remark(format!("{to} can have the lease (epoch {ended} ended, now {epoch})"))
                    .await;
                Outcome::Done
            }
            Err(error) => {
                if paused && let Some(redis) = &mut self.redis {
                    // The pause ends by itself if this does not reach it.
                    let _ends = redis.resume_writes().await;
                }
                Outcome::Failed(chain(&error))
            }
        }
    }

    /// Waits until the other Redis has every byte, with writes to ours paused. Whether they are.
    async fn catch_up(&mut self, to: &str, lossless: bool) -> Result<bool, String> {
        let Some(settings) = &self.group.redis else { return Ok(false) };
        let Some(replica) = settings.nodes.get(to).cloned() else {
            return Err(format!("redis.nodes has no address for {to}"));
        };
        let Some(redis) = &mut self.redis else { return Ok(false) };
        let request = HandOff { replica: &replica, within: CATCH_UP_MAX };
        match redis.hand_off(&request, |_| {}).await {
            Ok(done) => {
                self.remark(format!(
                    "redis of {to} has every byte: {} keys, {} bytes were missing, clients waited {}",
                    done.keys,
                    done.was_behind_bytes,
                    seconds(done.waited)
                ))
                .await;
                Ok(true)
            }
            Err(error) if lossless => Err(format!("{}. {}", chain(&error), error.remedy())),
            Err(error) => {
                self.remark(format!(
                    "redis of {to} may not have everything; the group is handed over all the same, \
                     as it does not run here: {}",
                    chain(&error)
                ))
                .await;
                Ok(false)
            }
        }
    }

    /// What the units are; `None` if systemd does not say.
    pub(super) async fn inspect(&mut self, deadline: Duration) -> Option<Event> {
        let fault = match timeout(deadline, self.systemd.inspect(&self.group.units)).await {
            Ok(Ok(states)) => {
                let named = |wanted: Active| {
                    let found = states.iter().filter(|state| state.active == wanted);
                    found.map(|state| state.unit.clone()).collect()
                };
                let (failed, stopped) = (named(Active::Failed), named(Active::Inactive));
                return Some(Event::UnitsSeen { failed, stopped });
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer".to_owned(),
        };
        self.remark(format!("systemd does not say how the units are: {fault}")).await;
        None
    }

    // ---- Redis of a node without the group ----

    /// Whether Redis here, a master, is the one that the group had last, before its lease was left free
    /// with `epoch`: nobody ever had the group, or the tenure that ended was this node's. Another node may
    /// have been promoted since any older one.
    pub(super) async fn is_the_last_master(&mut self, epoch: Epoch) -> bool {
        let Some(redis) = &mut self.redis else { return false };
        match redis.promoted_for(&self.group.name).await {
            Ok(None) => epoch == Epoch(0),
            Ok(Some(promoted_for)) => promoted_for + 1 == epoch.0,
            // The next check says why.
            Err(_) => false,
        }
    }

    /// From now on Redis here should follow that of `primary`.
    pub(super) fn expect_primary(&mut self, primary: Option<String>) {
        let Some(settings) = &self.group.redis else { return };
        let elsewhere = primary.filter(|primary| *primary != self.settings.node);
        let Some(primary) = elsewhere else { return };
        if self.group.paired.is_none() || self.follows.as_ref() == Some(&primary) {
            return;
        }
        let Some(address) = settings.nodes.get(&primary).cloned() else { return };
        let settings = settings::Redis { primary: Some(address), ..settings.clone() };
        // The certificates were readable when the configuration was loaded; if they are not any more,
        // the present one goes on.
        if let Ok(redis) = Redis::new(&settings) {
            self.redis = Some(redis);
            self.follows = Some(primary);
        }
    }

    /// Begins to make Redis here follow that of `primary`. It may take minutes, and does not keep the
    /// worker from anything else.
    pub(super) async fn begin_rejoin(&mut self, primary: &str) {
        let settings = self.group.redis.clone();
        let upstream = settings.as_ref().and_then(|redis| redis.nodes.get(primary)).cloned();
        let (Some(settings), Some(upstream)) = (settings, upstream) else {
            let fault = Some(format!("redis.nodes has no address for {primary}"));
            self.event(Event::Rejoined { fault }).await;
            return;
        };
        let group = self.group.name.clone();
        let copies = files::copies_path(&self.settings.state_dir);
        let (index, reports) = (self.index, self.reports.clone());
        let task = tokio::spawn(async move {
            let request =
                Rejoin { group: &group, upstream: &upstream, copies: &copies, stall_max: None };
            let fault = match rejoin(&settings, &request).await {
                Ok(text) => {
                    // Nobody listens any more when the process is ending.
                    let _ending = reports.send((index, Report::Remark(text))).await;
                    None
                }
                Err(fault) => Some(fault),
            };
            let event = Box::new(Event::Rejoined { fault });
            let _ending = reports.send((index, Report::Event(event))).await;
        });
        self.rejoining = Some(task.abort_handle());
    }
}

async fn rejoin(settings: &settings::Redis, request: &Rejoin<'_>) -> Result<String, String> {
    let mut redis = Redis::new(settings).map_err(|error| chain(&error))?;
    let done = redis.rejoin(request, |progress| tracing::debug!("redis: {progress}")).await;
    let done = done.map_err(|error| format!("{}. {}", chain(&error), error.remedy()))?;
    Ok(match done.before {
        Before::Attached => "redis follows the primary, as it did".to_owned(),
        Before::Empty => "redis follows the primary; it had no data of its own".to_owned(),
        Before::Contained => "redis follows the primary, which has all that it had".to_owned(),
        Before::Copied(kept) => {
            format!("redis follows the primary; what it had is kept in {}", kept.path.display())
        }
    })
}

/// Tells the engine what the guard of a group says, for as long as the supervisor is there.
pub async fn listen_to_guard(
    index: usize,
    group: String,
    runtime_dir: PathBuf,
    reports: mpsc::Sender<(usize, Report)>,
) {
    let mut told_gone = false;
    loop {
        let why = match guard::watch(&runtime_dir, &group).await {
            Ok(mut lines) => {
                let mut last = "nothing";
                while let Some(line) = lines.next().await {
                    last = line.state.name();
                    let Some(report) = meaning(&line) else { continue };
                    told_gone = matches!(report, GuardReport::Gone { .. });
                    if reports.send((index, Report::Guard(report))).await.is_err() {
                        return;
                    }
                }
                format!("it ended; the last that it said was: {last}")
            }
            Err(error) => chain(&error),
        };
        if !told_gone {
            told_gone = true;
            let report = Report::Guard(GuardReport::Gone { why });
            if reports.send((index, report)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep(GUARD_PACE) => {}
            () = reports.closed() => return,
        }
    }
}

/// What a line of the guard means to the engine; `None` while it has not begun, and at its end.
fn meaning(line: &guard::protocol::Report) -> Option<GuardReport> {
    let gone = |why: &str| Some(GuardReport::Gone { why: why.to_owned() });
    match line.state {
        Standing::Holding => {
            Some(GuardReport::Holding { token: line.token()?, confirmed: line.confirmed_ns? })
        }
        Standing::Starting | Standing::Releasing | Standing::Released => None,
        Standing::Fencing => gone("it stops the units"),
        Standing::BreakGlass => gone("the glass is broken: units run without a lease"),
    }
}
