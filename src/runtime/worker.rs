//! The hands of a group: does what its engine says, one thing at a time, and reports how it ended.
//!
//! Everything here has a deadline. Nothing here decides what comes next, with one exception: the
//! order to stop the units ends whatever is under way, as they must not be started any more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::files;
use crate::adapters::hook;
use crate::adapters::postgres::Store;
use crate::adapters::postgres::paired::RequestEnd;
use crate::adapters::postgres::tenure::{self, AcquireKind, AcquireOutcome, NewAlert};
use crate::adapters::redis::{
    GateFault, Link, Persisted, PromoteFault, Redis, RedisError, Role, Sample, gate,
};
use crate::adapters::systemd::{Systemd, SystemdError, UnitFault, UnitState};
use crate::config::settings::{Group, Settings, Severity};
use crate::control::protocol::{RedisFigures, Unit};
use crate::crash::crash_point;
use crate::engine::event::{Acquire, Answer, Cause, Event, GuardReport, Memory, Outcome};
use crate::engine::liveness::seconds;
use crate::engine::observation::{Epoch, Nonce, PendingRequest, Token, Way};
use crate::engine::plan::Step;
use crate::engine::policy::EVIDENCE_MAX_AGE;
use crate::error::chain;
use crate::time::BootTime;

/// Reports and orders that wait. An engine has one thing done at a time, so a handful is many.
pub const QUEUE_MAX: usize = 64;

/// How old a decision to make a step may be when it is carried out. It waits for a note on disk,
/// which takes milliseconds. If it waited longer, the lease may be another node's by now.
const RUN_AGE_MAX: Duration = Duration::from_secs(2);

/// How long the answer is believed that we may manage the units. polkit evaluates its rules for each
/// question, and somebody has to take the right away before the answer changes.
const PERMISSION_GOOD_FOR: Duration = Duration::from_secs(60);

/// polkit reads a rule that was just written within this time.
const RULES_READ_AFTER: Duration = Duration::from_millis(500);

/// How long the store may take for a lease, with a new connection and other calls before it.
const ACQUIRE_MAX: Duration = Duration::from_secs(30);

/// The one connection to the store. Calls take turns: one connection is what the store has to spare
/// for us, and no call is longer than its deadline.
pub type SharedStore = Arc<Mutex<Store>>;

/// An order to a worker.
#[derive(Debug)]
pub enum Order {
    /// Could this node run the group?
    Check {
        /// How long that may take.
        deadline: Duration,
        /// Whether the primary is silent, and is not worth asking.
        primary_silent: bool,
        /// The node that has the group.
        primary: Option<String>,
        /// The epoch of the lease if nobody has it.
        left_with: Option<Epoch>,
    },
    /// How are Redis and the units? For people only.
    Look {
        /// How long that may take.
        deadline: Duration,
    },
    /// Which units failed for good?
    Inspect {
        /// How long that may take.
        deadline: Duration,
    },
    /// Write an order to hand over into the store.
    Announce(PendingRequest),
    /// Write its end into the store.
    EndRequest {
        /// Which.
        id: Nonce,
        /// How it ended.
        end: RequestEnd,
        /// In words.
        text: String,
    },
    /// Give the lease away.
    HandOver {
        /// Of this tenure.
        token: Token,
        /// To this node.
        to: String,
        /// Whether its Redis must have everything first.
        lossless: bool,
        /// How long that may take.
        deadline: Duration,
    },
    /// Make Redis follow that of another node.
    Rejoin {
        /// Which.
        primary: String,
    },
    /// Ask for the lease.
    Acquire {
        /// With this evidence.
        question: Box<Acquire>,
        /// A person who wants it, and why.
        asked_by: Option<(String, String)>,
    },
    /// Put this on disk.
    Remember(Memory),
    /// Make an attempt of a step.
    Run {
        /// In the name of this tenure.
        token: Token,
        /// The step.
        step: Step,
        /// Whether an earlier attempt may have had its effect.
        again: bool,
        /// How long it may take.
        deadline: Duration,
        /// When this was decided, by what was known of the lease then.
        decided: BootTime,
    },
    /// Stop the units, whatever is under way.
    StopUnits {
        /// How long that may take.
        deadline: Duration,
    },
    /// Go on with another configuration.
    Reload(Box<Equipment>),
}

/// What a worker works with. It is made before a configuration is applied, so that one which cannot
/// be used is refused whole.
pub struct Equipment {
    settings: Arc<Settings>,
    group: Group,
    boot: files::Boot,
    store: SharedStore,
    redis: Option<Redis>,
}

impl Equipment {
    /// Does no I/O but to read certificate authorities.
    ///
    /// # Errors
    /// If the group's Redis cannot be used as configured.
    pub fn new(
        settings: Arc<Settings>,
        group: Group,
        boot: files::Boot,
        store: SharedStore,
    ) -> Result<Self, RedisError> {
        let redis = group.redis.as_ref().map(Redis::new).transpose()?;
        Ok(Self { settings, group, boot, store, redis })
    }
}

impl fmt::Debug for Equipment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Equipment").field("group", &self.group.name).finish_non_exhaustive()
    }
}

impl Order {
    /// How long until its answer at the latest, if it has one.
    #[must_use]
    pub const fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Check { deadline, .. }
            | Self::Run { deadline, .. }
            | Self::HandOver { deadline, .. }
            | Self::StopUnits { deadline } => Some(*deadline),
            Self::Acquire { .. } => Some(ACQUIRE_MAX),
            Self::Look { .. }
            | Self::Inspect { .. }
            | Self::Announce(_)
            | Self::EndRequest { .. }
            | Self::Rejoin { .. }
            | Self::Remember(_)
            | Self::Reload(..) => None,
        }
    }
}

/// What a worker reports.
#[derive(Debug)]
pub enum Report {
    /// Something for the engine.
    Event(Box<Event>),
    /// What the last check saw, for `status`.
    Seen {
        /// Redis, in words and in figures.
        redis: Option<(String, RedisFigures)>,
        /// The units.
        units: Vec<Unit>,
    },
    /// All units are active. They still have to stay so.
    UnitsActive {
        /// Since then.
        at: BootTime,
    },
    /// The guard said something, or is gone.
    Guard(GuardReport),
    /// Something that a person reading the journal should see.
    Remark(String),
}

/// The hands of one group.
pub struct Worker {
    pub(super) index: usize,
    pub(super) settings: Arc<Settings>,
    pub(super) group: Group,
    pub(super) boot: files::Boot,
    pub(super) store: SharedStore,
    pub(super) redis: Option<Redis>,
    pub(super) systemd: Systemd,
    /// When systemd last said that we may manage all units that are idle.
    permitted: Option<BootTime>,
    /// Paired mode: the node whose Redis ours should follow, and whether the last check found that it
    /// does not.
    pub(super) follows: Option<String>,
    pub(super) estranged: bool,
    /// Paired mode: whether the last check found a master here that may go on as one.
    pub(super) was_master: bool,
    /// Paired mode: the copying and syncing of Redis, which may take minutes.
    pub(super) rejoining: Option<AbortHandle>,
    /// When the last question for the lease was sent, and for which tenure.
    pub(super) asked: Option<(Nonce, BootTime)>,
    pub(super) reports: mpsc::Sender<(usize, Report)>,
}

impl Worker {
    /// A worker for group number `index`.
    #[must_use]
    pub fn new(
        index: usize,
        equipment: Equipment,
        systemd: Systemd,
        reports: mpsc::Sender<(usize, Report)>,
    ) -> Self {
        let Equipment { settings, group, boot, store, redis } = equipment;
        Self {
            index,
            settings,
            group,
            boot,
            store,
            redis,
            systemd,
            permitted: None,
            follows: None,
            estranged: false,
            was_master: false,
            rejoining: None,
            asked: None,
            reports,
        }
    }

    /// Works until the supervisor is gone.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut queue = VecDeque::new();
        loop {
            let order = match queue.pop_front() {
                Some(order) => order,
                None => match orders.recv().await {
                    Some(order) => order,
                    None => return,
                },
            };
            if !matches!(order, Order::Run { .. }) {
                self.carry_out(order).await;
                continue;
            }
            tokio::select! {
                biased;
                stop = stop_order(&mut orders, &mut queue) => {
                    queue.retain(|order| !matches!(order, Order::Run { .. }));
                    queue.push_front(stop);
                }
                () = self.carry_out(order) => {}
            }
        }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Check { deadline, primary_silent, primary, left_with } => {
                self.expect_primary(primary);
                let problems = self.check(deadline, primary_silent, left_with).await;
                self.event(Event::Checked { problems }).await;
                if std::mem::take(&mut self.estranged) {
                    self.event(Event::Estranged).await;
                }
            }
            Order::Inspect { deadline } => {
                if let Some(seen) = self.inspect(deadline).await {
                    self.event(seen).await;
                }
            }
            Order::Announce(order) => self.announce(order).await,
            Order::EndRequest { id, end, text } => self.end_request(id, end, &text).await,
            Order::HandOver { token, to, lossless, deadline } => {
                let giving = timeout(deadline, self.hand_over(token, &to, lossless));
                let outcome = giving.await.unwrap_or_else(|_| {
                    Outcome::Failed(format!("it took longer than {} s", deadline.as_secs()))
                });
                self.event(Event::HandedOver { epoch: token.epoch, outcome }).await;
            }
            Order::Rejoin { primary } => self.begin_rejoin(&primary).await,
            Order::Look { deadline } => {
                // What keeps a standby from taking over says nothing about a node that has.
                let _problems = self.check(deadline, false, None).await;
            }
            Order::Acquire { question, asked_by } => {
                if let Some(rejoining) = self.rejoining.take() {
                    rejoining.abort();
                }
                let nonce = question.nonce;
                let answer = self.acquire(*question, asked_by).await;
                self.event(Event::Acquired { nonce, answer }).await;
            }
            Order::Remember(memory) => {
                // A step may be repeated if this is lost, which every step allows. Not going on
                // because of a full disk would be worse.
                if let Err(error) = self.remember(&memory) {
                    self.remark(format!("{}; going on, as steps can be repeated", chain(&error)))
                        .await;
                }
                crash_point(&format!("{}:intent", progress_name(&memory)));
            }
            Order::Run { token, step, again, deadline, decided } => {
                let age = BootTime::now().since(decided);
                let outcome = if age > RUN_AGE_MAX {
                    Outcome::Failed(format!(
                        "this process or host stood still for {} before it; the lease is confirmed \
                         first",
                        seconds(age)
                    ))
                } else {
                    timeout(deadline, self.attempt(token, step, again)).await.unwrap_or_else(|_| {
                        Outcome::Failed(format!("it took longer than {} s", deadline.as_secs()))
                    })
                };
                crash_point(&format!("{step}:effect"));
                let event = Event::StepEnded { epoch: token.epoch, step, outcome };
                self.event(event).await;
            }
            Order::StopUnits { deadline } => {
                let stopped = self.systemd.stop(&self.group.units, deadline).await;
                let fault = stopped.err().map(|error| chain(&error));
                self.event(Event::UnitsStopped { fault }).await;
            }
            Order::Reload(equipment) => self.reload(*equipment),
        }
    }

    fn reload(&mut self, equipment: Equipment) {
        let Equipment { settings, group, boot, store, redis } = equipment;
        // The present one knows the last lag, which a dead primary cannot tell any more.
        if group.redis != self.group.redis {
            self.redis = redis;
            self.follows = None;
        }
        self.permitted = None;
        self.settings = settings;
        self.group = group;
        self.boot = boot;
        self.store = store;
    }

    // ---- can this node run the group? ----

    async fn check(
        &mut self,
        deadline: Duration,
        primary_silent: bool,
        left_with: Option<Epoch>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(problem) = files::state_directory_usable(&self.settings.state_dir) {
            problems.push(problem);
        }
        if let Some(program) = self.group.fence.as_ref().and_then(|fence| fence.command.first())
            && let Err(problem) = hook::executable(program)
        {
            problems.push(format!("fence: {problem}"));
        }
        let looks = self.systemd.clone();
        let units = async {
            let _turn = looks.turn().await;
            timeout(deadline, units(&mut self.systemd, &self.group, &mut self.permitted)).await
        };
        let redis = async {
            match &mut self.redis {
                Some(redis) if primary_silent => {
                    Some(timeout(deadline, redis.sample_local()).await)
                }
                Some(redis) => Some(timeout(deadline, redis.sample()).await),
                None => None,
            }
        };
        let (units, redis) = tokio::join!(units, redis);
        let mut seen_units = Vec::new();
        match units {
            Ok(Ok((states, refused))) => {
                problems.extend(refused.iter().map(|refused| format!("unit {refused}")));
                for state in states {
                    if let Some(fault) = state.unstartable() {
                        problems.push(format!("unit {}: {fault}", state.unit));
                    }
                    let name = state.unit.clone();
                    seen_units.push(Unit { name, state: state.in_words() });
                }
            }
            Ok(Err(error)) => problems.push(format!("systemd: {}", chain(&error))),
            Err(_) => problems.push(no_answer("systemd", deadline)),
        }
        problems.extend(self.unbound(deadline).await);
        let seen_redis = match redis {
            Some(Ok(Ok(sample))) => {
                problems.extend(self.judge(&sample, left_with).await);
                Some((sample.to_string(), figures(&sample)))
            }
            Some(Ok(Err(error))) => {
                problems.push(format!("redis: {}", chain(&error)));
                None
            }
            Some(Err(_)) => {
                problems.push(no_answer("redis", deadline));
                None
            }
            None => None,
        };
        self.report(Report::Seen { redis: seen_redis, units: seen_units }).await;
        problems
    }

    /// What keeps Redis from becoming the primary's.
    async fn judge(&mut self, sample: &Sample, left_with: Option<Epoch>) -> Option<String> {
        self.estranged = self.follows.is_some() && sample.is_estranged();
        self.was_master = false;
        let (Some(redis), Some(settings)) = (&self.redis, &self.group.redis) else { return None };
        let fault = gate(sample, redis.last_lag(), settings).err()?;
        if let (GateFault::AlreadyMaster { .. }, Some(epoch)) = (&fault, left_with) {
            self.was_master = self.is_the_last_master(epoch).await;
        }
        (!self.was_master).then(|| format!("redis: {fault}. {}", fault.remedy()))
    }

    // ---- the lease ----

    async fn acquire(&mut self, question: Acquire, asked_by: Option<(String, String)>) -> Answer {
        if let Err(error) = self.remember(&question.memory) {
            return Answer::Refused(format!(
                "{}; without it a crash could repeat the takeover",
                chain(&error)
            ));
        }
        crash_point("acquire:intent");
        let kind = kind_of(question.cause, question.asked_by.clone().or(asked_by));
        let heartbeats = match (question.cause, question.way) {
            // Nobody is accused of being silent.
            (_, Way::Again | Way::Offer) | (Cause::Forced, _) => Vec::new(),
            (Cause::Automatic | Cause::Operator, Way::Silent | Way::Free) => self
                .group
                .bots
                .iter()
                .zip(&question.heartbeats)
                .filter_map(|(bot, value)| Some((bot.clone(), value.clone()?)))
                .collect(),
        };
        let silent_for_ms = u64::try_from(question.silent_for.as_millis()).unwrap_or(u64::MAX);
        let summary = self.summary(&question);
        let request = tenure::Acquire {
            group: &self.group,
            nonce: question.nonce,
            kind,
            way: question.way,
            ttl: self.ttl(),
            expected: (&question.expected).into(),
            min_epoch: question.min_epoch,
            seen_at: question.seen_at,
            max_age: EVIDENCE_MAX_AGE,
            heartbeats,
            evidence: json!({
                "silent_for_ms": silent_for_ms,
                "bots": self.group.bots,
                "heartbeats": question.heartbeats,
                "holder_before": question.expected.holder,
            }),
            alert: NewAlert {
                id: Uuid::new_v4(),
                severity: Severity::Critical,
                body: json!({ "summary": summary }),
            },
        };
        let mut store = self.store.lock().await;
        self.asked = Some((question.nonce, BootTime::now()));
        let outcome = store.acquire(&request).await;
        drop(store);
        crash_point("acquire:effect");
        match outcome {
            Ok(AcquireOutcome::Acquired(token) | AcquireOutcome::Already(token)) => {
                Answer::Granted(token.epoch)
            }
            Ok(refused @ (AcquireOutcome::Changed { .. } | AcquireOutcome::Alive { .. })) => {
                Answer::RefusedChanged(refused.to_string())
            }
            Ok(
                refused @ (AcquireOutcome::StaleRequest { .. }
                | AcquireOutcome::Held { .. }
                | AcquireOutcome::Latched
                | AcquireOutcome::Cooldown { .. }
                | AcquireOutcome::StoppedOnPurpose { .. }
                | AcquireOutcome::Busy
                | AcquireOutcome::NoSuchGroup),
            ) => Answer::Refused(refused.to_string()),
            Err(error) => Answer::Unknown(chain(&error)),
        }
    }

    /// What the store says in its alert about a new tenure.
    fn summary(&self, question: &Acquire) -> String {
        let (group, node) = (&self.group.name, &self.settings.node);
        let holder = question.expected.holder.as_deref().unwrap_or("nobody");
        match (question.way, question.cause) {
            (Way::Again, _) => format!("{group}: {node} goes on with the group that it had"),
            (Way::Offer, _) => format!("{group}: {node} takes what was handed over to it"),
            (_, Cause::Operator | Cause::Forced) => {
                format!("{group}: {node} is taking over by order")
            }
            (Way::Free, Cause::Automatic) => {
                format!("{group}: nobody has the group, {node} takes it")
            }
            (Way::Silent, Cause::Automatic) if self.group.paired.is_some() => {
                format!("{group}: {holder} and its bots are silent, {node} is taking over")
            }
            (Way::Silent, Cause::Automatic) => format!(
                "{group}: the heartbeats of {} are silent, {node} is taking over",
                self.group.primary
            ),
        }
    }

    fn remember(&self, memory: &Memory) -> Result<(), files::FileError> {
        let settings = &self.settings;
        let (node, group) = (&settings.node, &self.group.name);
        files::write_memory(&settings.state_dir, node, group, &self.boot, memory)
    }

    // ---- the steps ----

    async fn attempt(&mut self, token: Token, step: Step, again: bool) -> Outcome {
        match step {
            Step::Guard => self.guard(token).await,
            Step::Fence => self.fence(token).await,
            Step::Promote => self.promote(token, again).await,
            Step::Persist => self.persist(token).await,
            Step::Flip => match self.store.lock().await.flip(&self.group, token).await {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(chain(&error)),
            },
            Step::Publish => {
                let settings = &self.settings;
                let written = files::write_environment(
                    &settings.runtime_dir,
                    &settings.node,
                    &self.group.name,
                    token,
                );
                written.map_or_else(|error| Outcome::Failed(chain(&error)), |()| Outcome::Done)
            }
            Step::Start => self.start().await,
            // The engine sees the heartbeats itself.
            Step::Beat => Outcome::Done,
        }
    }

    async fn fence(&mut self, token: Token) -> Outcome {
        let Some(fence) = &self.group.fence else { return Outcome::Done };
        let epoch = token.epoch.to_string();
        let variables = [
            ("UNDERSTUDY_GROUP", self.group.name.as_str()),
            ("UNDERSTUDY_NODE", self.settings.node.as_str()),
            ("UNDERSTUDY_PRIMARY", self.group.primary.as_str()),
            ("UNDERSTUDY_EPOCH", epoch.as_str()),
        ];
        let required = fence.required;
        let ran = hook::run(&fence.command, &variables, fence.deadline).await;
        for line in &ran.lines {
            self.remark(format!("fence: {line}")).await;
        }
        match ran.outcome {
            Ok(()) => Outcome::Done,
            Err(error) if required => Outcome::Failed(format!(
                "the old primary may be alive, so nothing else is done: {}",
                chain(&error)
            )),
            Err(error) => Outcome::DoneBut(format!(
                "the old primary may be alive and running a second copy: {}. Going on, as the fence \
                 is not required",
                chain(&error)
            )),
        }
    }

    async fn promote(&mut self, token: Token, again: bool) -> Outcome {
        let Some(redis) = &mut self.redis else { return Outcome::Done };
        let again = again || self.was_master;
        match redis.promote(&self.group.name, token.epoch.0, again).await {
            Ok(_) => Outcome::Done,
            Err(error) => {
                let text = format!("{}. {}", chain(&error), error.remedy());
                match error {
                    PromoteFault::Gate(_) => Outcome::NotBegun(text),
                    PromoteFault::Redis(_)
                    | PromoteFault::NotMaster { .. }
                    | PromoteFault::NotWritable { .. }
                    | PromoteFault::ProbeDiffers { .. } => Outcome::Failed(text),
                }
            }
        }
    }

    async fn persist(&mut self, token: Token) -> Outcome {
        // It may have been restarted since it was promoted, and be a replica again.
        let promoted = self.promote(token, true).await;
        if promoted != Outcome::Done {
            return promoted;
        }
        let Some(redis) = &mut self.redis else { return Outcome::Done };
        let persisted = match redis.persist().await {
            Ok(persisted) => persisted,
            Err(error) => return Outcome::Failed(chain(&error)),
        };
        match (redis.is_master().await, persisted) {
            (Ok(true), Persisted::Yes) => Outcome::Done,
            (Ok(true), Persisted::No { why }) => Outcome::DoneBut(format!(
                "persisted=false: {why}. When this Redis restarts, it becomes a replica of the old \
                 primary again and loses what was written since. {}",
                why.remedy()
            )),
            (Ok(false), _) => Outcome::Failed(
                "redis was restarted in this moment and is a replica again".to_owned(),
            ),
            (Err(error), _) => Outcome::Failed(chain(&error)),
        }
    }

    async fn start(&mut self) -> Outcome {
        let started = match self.systemd.start(&self.group.units, self.group.start_deadline).await {
            Ok(started) => started,
            Err(error) if error.is_before_any_start() => return Outcome::NotBegun(chain(&error)),
            Err(error) => return Outcome::Failed(chain(&error)),
        };
        self.report(Report::UnitsActive { at: started.active_at }).await;
        match self.systemd.settle(&started, self.group.settle).await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(chain(&error)),
        }
    }

    pub(super) async fn remark(&self, text: String) {
        self.report(Report::Remark(text)).await;
    }

    pub(super) async fn event(&self, event: Event) {
        self.report(Report::Event(Box::new(event))).await;
    }

    pub(super) async fn report(&self, report: Report) {
        // Nobody listens any more when the process is ending.
        let _ending = self.reports.send((self.index, report)).await;
    }
}

/// Waits for the order to stop the units; keeps the others for later.
async fn stop_order(orders: &mut mpsc::Receiver<Order>, queue: &mut VecDeque<Order>) -> Order {
    loop {
        match orders.recv().await {
            Some(stop @ Order::StopUnits { .. }) => return stop,
            Some(order) => queue.push_back(order),
            // The supervisor is gone; what is under way may end.
            None => std::future::pending().await,
        }
    }
}

/// What the units are, and which of them we may not manage.
async fn units(
    systemd: &mut Systemd,
    group: &Group,
    permitted: &mut Option<BootTime>,
) -> Result<(Vec<UnitState>, Vec<UnitFault>), SystemdError> {
    let states = systemd.inspect(&group.units).await?;
    let now = BootTime::now();
    if permitted.is_some_and(|at| now.since(at) < PERMISSION_GOOD_FOR) {
        return Ok((states, Vec::new()));
    }
    let mut refused = systemd.refused(&states).await?;
    if !refused.is_empty() {
        sleep(RULES_READ_AFTER).await;
        refused = systemd.refused(&states).await?;
    }
    *permitted = refused.is_empty().then_some(now);
    Ok((states, refused))
}

fn figures(sample: &Sample) -> RedisFigures {
    let (role, link_up) = match &sample.role {
        Role::Master => ("master", None),
        Role::Replica(upstream) => ("replica", Some(matches!(upstream.link, Link::Up { .. }))),
    };
    RedisFigures {
        role: role.to_owned(),
        link_up,
        lag_bytes: sample.lag_bytes(),
        keys: sample.keys,
    }
}

/// Who wants the group, for the history.
fn kind_of(cause: Cause, asked_by: Option<(String, String)>) -> AcquireKind {
    match (cause, asked_by) {
        (Cause::Automatic, _) => AcquireKind::Automatic,
        (Cause::Operator | Cause::Forced, Some((by, reason))) => {
            AcquireKind::Operator { by, reason }
        }
        (Cause::Operator | Cause::Forced, None) => {
            AcquireKind::Operator { by: "an operator".to_owned(), reason: String::new() }
        }
    }
}

fn no_answer(whom: &str, deadline: Duration) -> String {
    format!("{whom} did not answer within {} ms", deadline.as_millis())
}

fn progress_name(memory: &Memory) -> &'static str {
    use crate::engine::event::Progress;
    match memory.progress {
        Progress::Asked => "acquire",
        Progress::At(step) => step.name(),
        Progress::Complete => "complete",
        Progress::Leaving => "leaving",
        Progress::Over => "over",
    }
}
