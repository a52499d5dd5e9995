//! The loop of the daemon: sleep until something is due, ask the engines, do what they say.
//!
//! It owns the engines and waits for nobody. What takes time is done by others: one [`Worker`] for
//! each group, one task that reads the store, one that writes the history, and the alerts' own. The
//! watchdog of systemd is fed at the end of a turn in which every engine was asked, and nowhere
//! else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::condition::Condition;
use super::files;
use super::history::{self, Entry};
use super::members::{self, Members};
use super::monitor::Monitor;
use super::notify::Notify;
use super::paired::listen_to_guard;
use super::policy::policy;
use super::reads::Reads;
use super::recorder::{Recorder, Track};
use super::status;
use super::tell::Teller;
use super::worker::{Equipment, Order, QUEUE_MAX, Report, SharedStore, Worker};
use super::{count, serving};
use crate::adapters::alert::Which;
use crate::adapters::postgres::Store;
use crate::adapters::postgres::observe::Reading;
use crate::adapters::postgres::paired::RequestEnd;
use crate::adapters::postgres::tenure::StepOutcome;
use crate::adapters::systemd::Systemd;
use crate::config::settings::{Group, Settings, Severity};
use crate::control::protocol::{self, Request, Response, Status};
use crate::control::{self, Exchange};
use crate::engine::Engine;
use crate::engine::edge::Kind;
use crate::engine::event::{Action, Cause, Command, Event, Recalled};
use crate::engine::notice::Notice;
use crate::engine::observation::Nonce;
use crate::engine::policy::RESUME_MAX;
use crate::error::chain;
use crate::telemetry::{Metrics, Notable};
use crate::time::BootTime;
use crate::web::Web;

/// Longest sleep of the loop, so that a host that was suspended is noticed at once when it resumes,
/// and the watchdog is fed.
const TURN_MAX: Duration = Duration::from_secs(1);

/// How long the end of the process may take: writing out alerts that are still in memory.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// How long the monitoring may take to put on disk what it knows, when the process ends.
const MONITOR_END_MAX: Duration = Duration::from_secs(2);

/// How long the units may take to say whether they are active when the process starts.
const RECALL_MAX: Duration = Duration::from_secs(3);

/// How often Redis and the units of a group that this node has are looked at, for people.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long after its deadline an answer is missed. The deadlines themselves end what can be ended;
/// a write to a disk that hangs cannot.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// How long such a look may take.
const LOOK_MAX: Duration = Duration::from_millis(1_500);

/// The daemon.
pub struct Supervisor {
    settings: Arc<Settings>,
    settings_path: PathBuf,
    /// Why the settings on disk are not the ones in use.
    settings_refused: Option<String>,
    boot: files::Boot,
    started: BootTime,
    store: SharedStore,
    systemd: Systemd,
    groups: Vec<Watched>,
    /// Groups get numbers that are never used again, so that a late report reaches nobody else.
    next_id: usize,
    reads: Reads,
    /// Answers of reads that began under other settings are dropped.
    generation: u64,
    teller: Teller,
    history: mpsc::Sender<Entry>,
    recorder: Recorder,
    notify: Notify,
    metrics: Metrics,
    web: Web,
    monitor: Monitor,
    reports: mpsc::Sender<(usize, Report)>,
    answers: mpsc::Sender<Answered>,
    next_request: u64,
    /// Whether the store answered to the last read.
    sighted: bool,
    pinned: Option<String>,
    members: Members,
}

/// A group that is watched.
struct Watched {
    id: usize,
    name: String,
    engine: Engine,
    track: Track,
    orders: mpsc::Sender<Order>,
    redis: Option<(String, protocol::RedisFigures)>,
    units: Vec<protocol::Unit>,
    asked_by: Option<(String, String)>,
    /// When the worker should have answered at the very latest, while it is asked something.
    answer_by: Option<BootTime>,
    /// When the next look is due while this node has the group.
    look_at: BootTime,
}

/// The answer to a read of the store.
struct Answered {
    generation: u64,
    result: Result<Reading, String>,
}

/// The other ends of the supervisor's channels.
pub struct Inbox {
    reports: mpsc::Receiver<(usize, Report)>,
    answers: mpsc::Receiver<Answered>,
    exchanges: mpsc::Receiver<Exchange>,
}

impl Supervisor {
    /// Gets everything ready, without acting.
    ///
    /// # Errors
    /// If another daemon runs here, a memory is damaged, or something that the configuration names
    /// cannot be used.
    pub async fn new(settings: Settings, path: PathBuf) -> anyhow::Result<(Self, Inbox)> {
        let settings = Arc::new(settings);
        let (reports, reports_in) = mpsc::channel(QUEUE_MAX * (settings.groups.len() + 1));
        let (answers, answers_in) = mpsc::channel(1);
        let (exchanges, exchanges_in) = mpsc::channel(QUEUE_MAX);
        control::listen(&settings.runtime_dir, exchanges).await?;
        let metrics = Metrics::default();
        let teller = Teller::new(&settings, metrics.clone())?;
        let monitor = Monitor::new(teller.clone());
        let (web, web_reports) = Web::new(metrics.clone(), monitor.look());
        serving::spawn(web_reports, teller.clone());
        let store = Arc::new(Mutex::new(new_store(&settings)?));
        let history = history::spawn(store.clone(), teller.clone());
        let now = BootTime::now();
        let mut this = Self {
            settings_path: path,
            settings_refused: None,
            boot: files::Boot::identify(&settings.runtime_dir),
            started: now,
            store,
            systemd: Systemd::new(),
            groups: Vec::new(),
            next_id: 0,
            reads: Reads::new(settings.watch.interval),
            generation: 0,
            teller,
            history,
            recorder: Recorder::start(&settings.state_dir)?,
            notify: Notify::from_environment(),
            metrics,
            web,
            monitor,
            reports,
            answers,
            next_request: 0,
            sighted: false,
            pinned: None,
            members: Members::new(),
            settings: settings.clone(),
        };
        for group in &settings.groups {
            let (boot, store) = (this.boot.clone(), this.store.clone());
            let equipment = Equipment::new(settings.clone(), group.clone(), boot, store)?;
            let watched = this.watch(&settings, group, equipment).await?;
            this.groups.push(watched);
        }
        this.serve(&settings);
        this.count_restarts();
        Ok((this, Inbox { reports: reports_in, answers: answers_in, exchanges: exchanges_in }))
    }

    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub async fn run(mut self, mut inbox: Inbox) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        self.teller.log(
            Notable::DaemonStarted,
            None,
            &format!(
                "understudy {} watches {} on node {}",
                env!("CARGO_PKG_VERSION"),
                self.names(),
                self.settings.node
            ),
        );
        self.teller.configuration_used("understudy was started with a configuration that is valid");
        self.watches_only_these();
        loop {
            let now = BootTime::now();
            self.wake(now);
            // Well below the gap between two turns that would count as a standstill.
            let turn_max = TURN_MAX.min(self.settings.watch.interval / 2);
            let wait = self.wake_at(now).since(now).min(turn_max);
            if self.web.turn(now) {
                self.web.publish(now, self.status());
            }
            if self.notify.turn(now, &self.status_line(now)) {
                self.metrics.watchdog_fed();
            }
            self.teller.turned(now);
            tokio::select! {
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(()) = hangup.recv() => self.reload().await,
                Some(answered) = inbox.answers.recv() => self.answered(answered),
                Some((id, report)) = inbox.reports.recv() => self.reported(id, report),
                Some((request, answer)) = inbox.exchanges.recv() => self.asked(request, answer),
                () = sleep(wait) => {}
            }
        }
        self.end().await;
        Ok(())
    }

    /// What an earlier process, or this one with another configuration, told of others is past.
    fn watches_only_these(&self) {
        let names: Vec<_> = self.groups.iter().map(|group| group.name.as_str()).collect();
        self.teller.watches_only(&names);
    }

    // ---- turns of the loop ----

    /// Asks every engine what is due, and begins a read if one is.
    fn wake(&mut self, now: BootTime) {
        for index in 0..self.groups.len() {
            self.feed(now, index, Event::Wake);
            self.see_hanging(now, index);
            self.take_back(index);
            let group = &mut self.groups[index];
            // In the states in which no engine asks for a check, and no step is under way.
            let unasked = matches!(group.engine.kind(), Kind::Active | Kind::Interrupted);
            if unasked && group.look_at <= now {
                group.look_at = now + LOOK_EVERY;
                self.order(index, Order::Look { deadline: LOOK_MAX });
            }
        }
        let due = self.reads.next(self.wanted()).is_some_and(|at| at <= now);
        if due {
            self.reads.begin();
            let (store, answers) = (self.store.clone(), self.answers.clone());
            let (generation, metrics) = (self.generation, self.metrics.clone());
            tokio::spawn(async move {
                let result = store.lock().await.observe().await;
                match &result {
                    Ok(reading) => metrics.store_read(BootTime::now().since(reading.sent)),
                    Err(error) => metrics.store_failed(count::store_error(error)),
                }
                let result = result.map_err(|error| chain(&error));
                // Nobody waits for it when the process is ending.
                let _ending = answers.send(Answered { generation, result }).await;
            });
        }
    }

    /// Tells that it is over what was told and is not so any more.
    fn take_back(&self, index: usize) {
        let group = &self.groups[index];
        self.teller.take_back(&group.name, || group.engine.outlook());
    }

    fn wanted(&self) -> Option<BootTime> {
        self.groups.iter().filter_map(|group| group.engine.wants_read_at()).min()
    }

    fn wake_at(&self, now: BootTime) -> BootTime {
        let engines = self.groups.iter().map(|group| group.engine.next_deadline());
        engines.chain(self.reads.next(self.wanted())).min().unwrap_or(now + TURN_MAX)
    }

    /// The store answered, or did not.
    fn answered(&mut self, answered: Answered) {
        let now = BootTime::now();
        if answered.generation != self.generation {
            self.reads.failed(now);
            return;
        }
        match answered.result.and_then(|reading| self.same_store(reading)) {
            Ok(reading) => {
                self.reads.good(reading.sent);
                if !self.sighted {
                    self.sighted = true;
                    self.record(Entry::SpoolAlerts);
                }
                for (index, group) in reading.groups.into_iter().enumerate() {
                    let event = match group {
                        Ok(observation) => Event::Observed { sent: reading.sent, observation },
                        Err(fault) => Event::ObserveFailed { fault: fault.to_string() },
                    };
                    self.feed(now, index, event);
                }
            }
            Err(fault) => {
                self.reads.failed(now);
                self.sighted = false;
                for index in 0..self.groups.len() {
                    self.feed(now, index, Event::ObserveFailed { fault: fault.clone() });
                }
            }
        }
        self.notify.ready(now, &self.status_line(now));
        self.tell_the_others(now);
    }

    /// Tells the other nodes of paired groups how this one is: after each read that brought something
    /// new, and often enough that they know it is there.
    fn tell_the_others(&mut self, now: BootTime) {
        let reports: Vec<_> = self
            .groups
            .iter()
            .filter_map(|group| members::report(now, &group.name, &group.engine))
            .collect();
        let pace = self.settings.paired.renew;
        if !self.sighted || !self.members.is_due(now, &reports, pace) {
            return;
        }
        let (store, members) = (self.store.clone(), self.members.clone());
        tokio::spawn(async move { members.tell(&mut *store.lock().await, reports).await });
    }

    /// A copy of the store, such as one for tests, must not decide about this node's units.
    fn same_store(&mut self, reading: Reading) -> Result<Reading, String> {
        if self.pinned.as_deref() == Some(reading.store.as_str()) {
            return Ok(reading);
        }
        let pinned = files::pinned_store(&self.settings.state_dir, &reading.store)
            .map_err(|error| chain(&error))?;
        if pinned == reading.store {
            self.pinned = Some(pinned);
            return Ok(reading);
        }
        Err(format!(
            "this is not the database that node {} belongs to (it is {}, expected {pinned}). If it \
             was replaced on purpose, remove {} and restart understudy",
            self.settings.node,
            reading.store,
            self.settings.state_dir.join("store").display()
        ))
    }

    fn reported(&mut self, id: usize, report: Report) {
        let now = BootTime::now();
        let Some(index) = self.groups.iter().position(|group| group.id == id) else { return };
        let name = self.groups[index].name.clone();
        match report {
            Report::Event(event) => {
                self.groups[index].answer_by = None;
                self.feed(now, index, *event);
            }
            Report::Seen { redis, units } => {
                self.groups[index].redis = redis;
                self.groups[index].units = units;
            }
            Report::UnitsActive { at } => {
                let text = match self.groups[index].engine.lease() {
                    Some((_, since)) => format!(
                        "all units are active, {} ms after the decision; they must stay so",
                        at.since(since).as_millis()
                    ),
                    None => "all units are active; they must stay so".to_owned(),
                };
                self.teller.log(Notable::UnitsActive, Some(&name), &text);
            }
            Report::Guard(report) => self.feed(now, index, Event::Guard(report)),
            Report::Remark(text) => self.teller.remark(&name, &text),
        }
    }

    // ---- engines ----

    fn feed(&mut self, now: BootTime, index: usize, event: Event) {
        for action in self.turn(now, index, event) {
            self.act(now, index, action);
        }
    }

    /// Asks an engine, and records what is said.
    fn turn(&mut self, now: BootTime, index: usize, event: Event) -> Vec<Action> {
        let Watched { name, engine, track, .. } = &mut self.groups[index];
        self.recorder.before(track, now, name, engine);
        let eventful = event != Event::Wake || engine.next_deadline() <= now;
        let record = eventful.then(|| event.clone());
        let actions = engine.handle(now, event);
        if let Some(event) = record {
            self.recorder.turn(track, now, name, event, &actions);
        }
        track.asked(now);
        actions
    }

    fn act(&mut self, now: BootTime, index: usize, action: Action) {
        match action {
            Action::Check { deadline, primary_silent } => {
                let engine = &self.groups[index].engine;
                let (primary, left_with) = (engine.holder(), engine.left_with());
                self.order(index, Order::Check { deadline, primary_silent, primary, left_with });
            }
            Action::Look => self.order(index, Order::Inspect { deadline: LOOK_MAX }),
            Action::Announce(order) => self.order(index, Order::Announce(order)),
            Action::EndRequest { id, done, text } => {
                let end = if done { RequestEnd::Done } else { RequestEnd::Refused };
                self.order(index, Order::EndRequest { id, end, text });
            }
            Action::HandOver { token, to, lossless, deadline } => {
                self.order(index, Order::HandOver { token, to, lossless, deadline });
            }
            Action::Rejoin { primary } => self.order(index, Order::Rejoin { primary }),
            Action::Acquire(question) => {
                let asked_by = self.groups[index].asked_by.clone();
                self.order(index, Order::Acquire { question: Box::new(question), asked_by });
            }
            Action::Remember(memory) => self.order(index, Order::Remember(memory)),
            Action::Run { token, step, again, deadline } => {
                let decided = now;
                self.order(index, Order::Run { token, step, again, deadline, decided });
            }
            Action::StopUnits { deadline } => self.order(index, Order::StopUnits { deadline }),
            Action::Tell(notice) => self.tell(now, index, &notice),
            Action::Moved(edge) => {
                // What was seen of Redis and the units before is past.
                self.groups[index].look_at = BootTime::ZERO;
                tracing::debug!(group = self.groups[index].name, "{edge}");
            }
            // Only a person asks, and takes its answer from the actions itself.
            Action::Answer { .. } => {}
        }
    }

    fn order(&mut self, index: usize, order: Order) {
        let group = &mut self.groups[index];
        if let Some(deadline) = order.deadline() {
            let until = BootTime::now() + deadline + HANGS_AFTER;
            group.answer_by = Some(group.answer_by.map_or(until, |other| other.max(until)));
        }
        if let Err(error) = group.orders.try_send(order) {
            // The engine has one thing done at a time; a full queue is a mistake of ours.
            self.teller.remark(&group.name, &format!("an order was lost: {error}"));
        }
    }

    /// Calls a person if a worker has not answered long after it should have, whatever it does.
    fn see_hanging(&mut self, now: BootTime, index: usize) {
        let group = &mut self.groups[index];
        if group.answer_by.is_some_and(|until| until <= now) {
            group.answer_by = None;
            self.teller.alert(
                Notable::FailoverDegraded,
                Severity::Critical,
                Some(&group.name),
                "understudy hangs while it works on this group, most likely in a write to its state \
                 directory; nothing more is done until that ends. Look at the disk, then restart \
                 understudy",
            );
        }
    }

    fn tell(&mut self, now: BootTime, index: usize, notice: &Notice) {
        let watched = &self.groups[index];
        self.teller.tell(&watched.name, watched.engine.kind(), notice);
        count::notice(&self.metrics, &watched.name, notice);
        if matches!(notice, Notice::Completed { .. } | Notice::Superseded { .. }) {
            // Told right behind it, and not in the next turn.
            self.take_back(index);
        }
        if let Notice::Acquired { cause, .. } = notice {
            self.record(Entry::SpoolAlerts);
            if let (Cause::Automatic, Some(stale_at)) = (cause, watched.engine.stale_at()) {
                let late = now.since(stale_at).as_millis();
                let text =
                    format!("the lease was granted {late} ms after the silence was long enough");
                self.teller.remark(&watched.name, &text);
            }
        }
        let Some((token, since)) = watched.engine.lease() else { return };
        let group = watched.name.clone();
        let after = |took: Duration| now.since(since).saturating_sub(took);
        let entry = match notice {
            Notice::StepDone { step, took, .. } => Entry::Step {
                group,
                token,
                step: *step,
                outcome: StepOutcome::Done,
                after: after(*took),
                took: Some(*took),
                remark: None,
            },
            Notice::StepWarning { step, took, text, .. } => Entry::Step {
                group,
                token,
                step: *step,
                outcome: StepOutcome::Done,
                after: after(*took),
                took: Some(*took),
                remark: Some(text.clone()),
            },
            Notice::StepFailed { step, fault, .. } => Entry::Step {
                group,
                token,
                step: *step,
                outcome: StepOutcome::Failed,
                after: after(Duration::ZERO),
                took: None,
                remark: Some(fault.clone()),
            },
            Notice::Completed { took, .. } => Entry::Finished { group, token, took: Some(*took) },
            // It may have been killed between the last step and the note that it was the last.
            Notice::Adopted { .. } => Entry::Finished { group, token, took: None },
            _ => return,
        };
        self.record(entry);
    }

    fn record(&self, entry: Entry) {
        if self.history.try_send(entry).is_err() {
            tracing::warn!("the history is not written fast enough; an entry was dropped");
        }
    }

    // ---- people ----

    fn asked(&mut self, request: Request, answer: oneshot::Sender<Response>) {
        let response = match request {
            Request::Status => Response::Status(self.status()),
            Request::Explain { group } => self.explain(&group),
            // The board is not the loop's, so the loop does not wait for it either.
            Request::Health => return self.monitor.board().answer(answer),
            Request::Failover { group, force, by, reason } => {
                self.failover(&group, force, by, reason)
            }
            Request::Acknowledge { group, id, by } => {
                return self.acknowledge(group, id, by, answer);
            }
        };
        // Whoever asked may be gone.
        let _gone = answer.send(response);
    }

    fn explain(&self, group: &str) -> Response {
        match self.groups.iter().find(|watched| watched.name == group) {
            Some(watched) => Response::Explanation(watched.engine.explain(BootTime::now())),
            None => self.no_such_group(group),
        }
    }

    fn no_such_group(&self, group: &str) -> Response {
        let text = format!("there is no group {group}; there are: {}", self.names());
        Response::Refused { text }
    }

    /// Answers when it is on disk, for which the loop does not wait.
    fn acknowledge(
        &self,
        group: Option<String>,
        id: Option<String>,
        by: String,
        answer: oneshot::Sender<Response>,
    ) {
        let which = id.map(Which::Id).or_else(|| group.clone().map(Which::Group));
        let done = which.and_then(|which| self.teller.acknowledge(which, &by));
        let teller = self.teller.clone();
        tokio::spawn(async move {
            let seen = match done {
                Some(done) => done.await.ok(),
                None => None,
            };
            let response = match seen {
                None => {
                    let text = "the alerts are busy; ask once more".to_owned();
                    Response::Refused { text }
                }
                Some(seen) => {
                    let text = match seen {
                        0 => "no alert was waiting for that".to_owned(),
                        1 => "1 alert acknowledged".to_owned(),
                        seen => format!("{seen} alerts acknowledged"),
                    };
                    if seen > 0 {
                        let said = format!("{text} by {by}");
                        teller.log(Notable::AlertAcknowledged, group.as_deref(), &said);
                    }
                    Response::Accepted { text }
                }
            };
            // Whoever asked may be gone.
            let _gone = answer.send(response);
        });
    }

    fn failover(&mut self, group: &str, force: bool, by: String, reason: String) -> Response {
        let Some(index) = self.groups.iter().position(|watched| watched.name == group) else {
            return self.no_such_group(group);
        };
        let now = BootTime::now();
        let name = self.groups[index].name.clone();
        self.teller.remark(&name, &format!("failover asked for by {by}: {reason}"));
        self.groups[index].asked_by = Some((by, reason));
        self.command(now, index, Command::Failover { force })
    }

    /// Has an engine decide about a person's wish.
    fn command(&mut self, now: BootTime, index: usize, command: Command) -> Response {
        self.next_request += 1;
        let asked = self.next_request;
        let event = Event::Operator { request: asked, command };
        let actions = self.turn(now, index, event);
        let mut response = Response::Refused { text: "understudy did not decide".to_owned() };
        for action in actions {
            match action {
                Action::Answer { request, accepted, text } if request == asked => {
                    response = if accepted {
                        Response::Accepted { text }
                    } else {
                        Response::Refused { text }
                    };
                }
                action => self.act(now, index, action),
            }
        }
        response
    }

    fn status(&self) -> Status {
        let now = BootTime::now();
        let groups = self.groups.iter().map(|watched| {
            let mut group = protocol::Group::new(&watched.name, watched.engine.snapshot(now));
            (group.redis, group.redis_figures) = watched.redis.clone().unzip();
            group.units.clone_from(&watched.units);
            group
        });
        let channels: Vec<_> = self.teller.backlog().into_iter().map(status::channel).collect();
        Status {
            version: protocol::VERSION,
            daemon: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.settings.node.clone(),
            configuration: self.settings_path.display().to_string(),
            configuration_refused: self.settings_refused.clone(),
            uptime_s: now.since(self.started).as_secs(),
            started: self.notify.is_ready(),
            undelivered_alerts: channels.iter().map(|one| one.pending + one.refused).sum(),
            channels,
            open_alerts: self.teller.open().into_iter().map(status::open_alert).collect(),
            http: self.web.listeners(),
            groups: groups.collect(),
        }
    }

    /// What `systemctl status` shows: the group that most needs a person, in words.
    fn status_line(&self, now: BootTime) -> String {
        let worst = self.groups.iter().max_by_key(|group| match group.engine.kind() {
            Kind::Degraded => 7,
            Kind::Interrupted => 6,
            Kind::Stopping | Kind::HandingOver => 5,
            Kind::Promoting => 4,
            Kind::Acquiring => 3,
            Kind::Checking => 2,
            Kind::Standby => 1,
            Kind::Active => 0,
        });
        let Some(worst) = worst else { return String::new() };
        let text = format!("{}: {}", worst.name, worst.engine.snapshot(now).sentence);
        match self.groups.len() {
            1 => text,
            groups => format!("{groups} groups; {text}"),
        }
    }

    fn names(&self) -> String {
        self.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    // ---- configuration ----

    /// Makes an engine and a worker for a group.
    async fn watch(
        &mut self,
        settings: &Settings,
        group: &Group,
        equipment: Equipment,
    ) -> anyhow::Result<Watched> {
        let recalled = self.recall(settings, group).await?;
        let id = self.next_id;
        self.next_id += 1;
        let first_nonce = Nonce(Uuid::new_v4().as_u128());
        let engine = Engine::new(BootTime::now(), policy(settings, group), first_nonce, recalled);
        let (orders, orders_in) = mpsc::channel(QUEUE_MAX);
        let worker = Worker::new(id, equipment, self.systemd.clone(), self.reports.clone());
        tokio::spawn(worker.run(orders_in));
        let name = group.name.clone();
        if group.paired.is_some() {
            let (dir, reports) = (settings.runtime_dir.clone(), self.reports.clone());
            tokio::spawn(listen_to_guard(id, name.clone(), dir, reports));
        }
        self.metrics.watch(&name);
        Ok(Watched {
            id,
            name,
            engine,
            track: Track::default(),
            orders,
            redis: None,
            units: Vec::new(),
            asked_by: None,
            answer_by: None,
            look_at: BootTime::ZERO,
        })
    }

    /// Serves the status page and the metrics, and measures, as configured. Not to be able to is no
    /// reason to end.
    fn serve(&mut self, settings: &Arc<Settings>) {
        if let Err(error) = self.web.apply(settings) {
            serving::failed(&self.teller, &format!("there can be no HTTP listener: {error}"));
        }
        self.monitor.apply(settings);
    }

    /// Asks systemd, if this is a service of it, how often it had to restart it.
    fn count_restarts(&self) {
        if std::env::var_os("INVOCATION_ID").is_none() {
            return;
        }
        let (mut systemd, metrics) = (self.systemd.clone(), self.metrics.clone());
        tokio::spawn(async move {
            match systemd.restarts_of(std::process::id()).await {
                Ok(restarts) => metrics.set_service_restarts(restarts),
                Err(error) => tracing::debug!("restarts are not known: {}", chain(&error)),
            }
        });
    }

    async fn recall(
        &mut self,
        settings: &Settings,
        group: &Group,
    ) -> anyhow::Result<Option<Recalled>> {
        let read =
            files::read_memory(&settings.state_dir, &settings.node, &group.name, &self.boot)?;
        let Some(read) = read else { return Ok(None) };
        let units = timeout(RECALL_MAX, self.systemd.inspect(&group.units)).await;
        // Not to know is not to be active: it costs a window of watching.
        let units_active = match units {
            Ok(Ok(states)) => states.iter().all(|state| state.is_up()),
            Ok(Err(_)) | Err(_) => false,
        };
        // In paired mode the guard knows whether the lease is still ours.
        let recent = group.paired.is_none()
            && read.age.is_some_and(|age| age <= group.timeout.min(RESUME_MAX));
        Ok(Some(Recalled { memory: read.memory, recent, same_boot: read.same_boot, units_active }))
    }

    /// Applies the configuration on disk whole, or says why not and goes on with the present one.
    async fn reload(&mut self) {
        self.notify.reloading();
        let applied = match Settings::load(&self.settings_path) {
            Ok(settings) => self.apply(settings).await,
            Err(faults) => Err(faults.to_string()),
        };
        match applied {
            Ok(()) => {
                self.settings_refused = None;
                let text = format!("the configuration was loaded again; watching {}", self.names());
                self.teller.log(Notable::ConfigurationReloaded, None, &text);
                self.teller.configuration_used(&text);
                self.watches_only_these();
            }
            Err(why) => {
                let text = format!("the configuration was refused, the old one stays: {why}");
                self.teller.configuration_refused(&text);
                self.settings_refused = Some(why);
            }
        }
        self.notify.ready_again();
    }

    /// A group that this node has, or is about to have, must stay what it is.
    fn may_become(&self, settings: &Settings) -> Result<(), String> {
        let old = &self.settings;
        for watched in &self.groups {
            let gone = settings.groups.iter().all(|group| group.name != watched.name);
            let kind = watched.engine.kind();
            if gone && kind != Kind::Standby {
                return Err(format!(
                    "group {} is missing from it, but is {kind} on this node; give it back first \
                     (`understudy failback {}`)",
                    watched.name, watched.name
                ));
            }
        }
        for (before, after) in old.groups.iter().flat_map(|before| {
            let after = settings.groups.iter().find(|group| group.name == before.name);
            after.map(|after| (before, after))
        }) {
            let same = (&before.bots, &before.units, &before.heartbeats, &before.paired)
                == (&after.bots, &after.units, &after.heartbeats, &after.paired);
            if before.paired.is_some() != after.paired.is_some() {
                return Err(format!(
                    "the mode of group {} is another in it; it changes only with a restart",
                    before.name
                ));
            }
            let watched = self.groups.iter().find(|watched| watched.name == before.name);
            let kind = watched.map_or(Kind::Standby, |watched| watched.engine.kind());
            if !same && kind != Kind::Standby {
                return Err(format!(
                    "bots, units, nodes or heartbeats of group {} are others in it, but the group is \
                     {kind} on this node; change them while another node has it",
                    before.name
                ));
            }
        }
        Ok(())
    }

    async fn apply(&mut self, settings: Settings) -> Result<(), String> {
        let old = self.settings.clone();
        if settings.node != old.node
            || settings.state_dir != old.state_dir
            || settings.runtime_dir != old.runtime_dir
        {
            return Err("node, state_dir and runtime_dir change only with a restart".to_owned());
        }
        self.may_become(&settings)?;
        let settings = Arc::new(settings);
        let kept = self.keep_store(&settings).await;
        let store = match &kept {
            Some(_) => self.store.clone(),
            None => {
                let store = new_store(&settings).map_err(|error| format!("{error:#}"))?;
                Arc::new(Mutex::new(store))
            }
        };
        let mut present = Vec::new();
        let mut fresh = Vec::new();
        for group in &settings.groups {
            let boot = self.boot.clone();
            let equipment = Equipment::new(settings.clone(), group.clone(), boot, store.clone())
                .map_err(|error| format!("group {}: {}", group.name, chain(&error)))?;
            if self.groups.iter().any(|watched| watched.name == group.name) {
                present.push((group, equipment));
            } else {
                let watched = self.watch(&settings, group, equipment).await;
                fresh.push(watched.map_err(|error| format!("{error:#}"))?);
            }
        }
        self.teller.apply(&old, &settings).await.map_err(|error| format!("{error:#}"))?;
        // From here on nothing can fail.
        let now = BootTime::now();
        match kept {
            Some(mut store) => store.watch(&settings.groups),
            None => {
                self.history = history::spawn(store.clone(), self.teller.clone());
                self.store = store;
            }
        }
        self.generation += 1;
        self.reads.set_interval(settings.watch.interval);
        for (group, equipment) in present {
            let found = self.groups.iter().position(|watched| watched.name == group.name);
            let Some(index) = found else { continue };
            let mut watched = self.groups.swap_remove(index);
            let policy = policy(&settings, group);
            self.recorder.before(&mut watched.track, now, &watched.name, &watched.engine);
            watched.engine.apply(now, policy.clone());
            self.recorder.policy(&watched.track, now, &watched.name, policy);
            if watched.orders.try_send(Order::Reload(Box::new(equipment))).is_err() {
                self.teller.remark(&watched.name, "the worker did not take the configuration");
            }
            fresh.push(watched);
        }
        let place = |name: &str| settings.groups.iter().position(|group| group.name == name);
        fresh.sort_by_key(|watched| place(&watched.name));
        self.groups = fresh;
        self.serve(&settings);
        self.settings = settings;
        Ok(())
    }

    /// The present store, if it is still the configured one: a connection that is kept saves every
    /// group a new window. Not if it is busy with a call that hangs, for which nobody waits here.
    async fn keep_store(&self, settings: &Settings) -> Option<OwnedMutexGuard<Store>> {
        let (old, patience) = (&self.settings, settings.watch.reply_timeout);
        if settings.store != old.store || patience != old.watch.reply_timeout {
            return None;
        }
        timeout(patience, self.store.clone().lock_owned()).await.ok()
    }

    // ---- the end ----

    async fn end(&mut self) {
        self.notify.stopping();
        for group in &self.groups {
            let kind = group.engine.kind();
            if matches!(
                kind,
                Kind::Acquiring | Kind::Promoting | Kind::Degraded | Kind::Interrupted
            ) {
                self.teller.alert_lasting(
                    Notable::FailoverDegraded,
                    Severity::Critical,
                    &group.name,
                    Condition::Stuck,
                    "understudy was stopped in the middle of a takeover; start it again, and it \
                     goes on where it was",
                );
            }
        }
        self.teller.log(
            Notable::DaemonStopping,
            None,
            "understudy ends; units that run go on running, and nobody watches from this node",
        );
        self.monitor.close(MONITOR_END_MAX).await;
        if timeout(SHUTDOWN_MAX, self.teller.close()).await.is_err() {
            tracing::warn!("not all alerts could be written to disk in time");
        }
    }
}

fn new_store(settings: &Settings) -> anyhow::Result<Store> {
    Ok(Store::new(&settings.store, &settings.node, settings.watch.reply_timeout, &settings.groups)?)
}
