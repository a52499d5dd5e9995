//! The guard: the process that renews the lease of one tenure, and stops the units of its group when
//! it cannot. `understudy-lease@GROUP.service` runs it as `understudy lease GROUP`.
//!
//! It is small, so that it can be read in one sitting, and knows nothing of failovers: the supervisor
//! takes a lease, notes it in a file and starts a guard; the units are bound to the guard. Between the
//! two nothing is needed any more, so that the supervisor may crash, hang or be upgraded.
//!
//! What is decided when is in `engine/guard.rs`. Here are its hands:
//!
//! - [`deadline`] is the thread that fences when the time is up, whatever else hangs.
//! - [`mod@slice`] is the control group of the group's processes.
//! - [`renewals`] asks the store, [`serve`] answers the gate and the supervisor, [`notify`] talks to
//!   systemd.
//!
//! *Every process of the group is in the slice, so that one look says whether one is left. Units may
//! start while a renewal is younger than `fence_after`, counted from before it was sent.*

pub mod deadline;
pub mod notify;
pub mod renewals;
pub mod serve;
pub mod slice;
pub mod tell;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::mman::{MlockAllFlags, mlockall};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::adapters::guard::glass;
use crate::adapters::guard::names;
use crate::adapters::guard::protocol::{Released, Report};
use crate::adapters::guard::tenure::Tenure;
use crate::adapters::postgres::{Store, StoreError};
use crate::config::settings::{Group, OnStoreLoss, Settings};
use crate::engine::guard::{Action, Ending, Event, Guard, Standing, StoreLoss, Timers, Why};
use crate::telemetry::Notable;
use crate::time::BootTime;
use deadline::{Deadline, tells};
use notify::Notify;
use renewals::Question;
use serve::{Asked, Ends};
use slice::Slice;
use tell::Teller;

/// Events and questions that wait for a turn. A turn takes microseconds.
const WAITING_MAX: usize = 64;

/// Why a guard could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It could not fence.
    #[error("{0}")]
    Slice(String),
    /// It could not answer.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store cannot be asked at all.
    #[error("the store cannot be used")]
    Store(#[source] StoreError),
    /// Something that every process has was not to be had.
    #[error("cannot start the deadline")]
    Threads(#[source] io::Error),
}

/// Runs the guard of a tenure, or of none behind broken glass, until it ends.
///
/// # Errors
/// If it could not begin. No unit of the group can have started then.
pub async fn run(
    settings: &Settings,
    group: &Group,
    tenure: Option<&Tenure>,
) -> Result<Ending, StartError> {
    let timers = timers(settings, group);
    let core = Guard::new(BootTime::now(), timers, tenure.map(Tenure::asked));
    let slice = Slice::open(&names::slice_path(&group.name)).map_err(StartError::Slice)?;
    let notify = Notify::from_environment().map_err(StartError::Threads)?;
    let switch = notify.try_clone().map_err(StartError::Threads)?;
    let (deadline, told) =
        deadline::start(core.deadline(), slice.clone(), switch, timers.kill_after)
            .map_err(StartError::Threads)?;
    let token = tenure.map(Tenure::token);
    let teller = Teller { group: group.name.clone(), token };
    let (events, happens) = mpsc::channel(WAITING_MAX);
    let store = match token {
        Some(token) => {
            let store = store(settings, timers.answer_within).map_err(StartError::Store)?;
            let within = timers.answer_within;
            Some(renewals::spawn(store, token, within, events.clone(), teller.clone()))
        }
        None => None,
    };
    let (ask, asked) = mpsc::channel(WAITING_MAX);
    let now = BootTime::now();
    let (reports, shown) = watch::channel(report(&core, &teller, core.valid(now)));
    let path = names::socket(&settings.runtime_dir, &group.name);
    serve::listen(&path, Ends { ask, reports: shown })
        .await
        .map_err(|source| StartError::Listen { path: path.clone(), source })?;
    let process = Process {
        core,
        deadline,
        slice,
        notify,
        teller,
        store,
        reports,
        runtime_dir: settings.runtime_dir.clone(),
        stop_within: settings.paired.stop_within,
        renew: timers.renew,
        glass: false,
        fence: None,
        releases: BTreeMap::new(),
        requests: 0,
    };
    lock_memory();
    let inbox = Inbox {
        told: UnixStream::from_std(told).map_err(StartError::Threads)?,
        happens,
        asked,
        stop: signal(SignalKind::terminate()).map_err(StartError::Threads)?,
        _events: events,
    };
    let ending = process.run(inbox).await;
    // A gate that finds no socket need not wait for one that nobody answers on.
    let _gone = std::fs::remove_file(path);
    Ok(ending)
}

fn timers(settings: &Settings, group: &Group) -> Timers {
    let paired = &settings.paired;
    let on_store_loss = group.paired.as_ref().map_or(OnStoreLoss::Fence, |it| it.on_store_loss);
    Timers {
        renew: paired.renew,
        answer_within: paired.renew_timeout(),
        fence_after: paired.fence_after,
        kill_after: paired.kill_after(),
        store_loss: match on_store_loss {
            OnStoreLoss::Fence => StoreLoss::Fence,
            OnStoreLoss::Hold => StoreLoss::Hold,
        },
    }
}

/// A connection of the guard's own. To look for a server that answers takes part of the time for an
/// answer.
fn store(settings: &Settings, answer_within: Duration) -> Result<Store, StoreError> {
    let mut store = settings.store.clone();
    store.connect_timeout = store.connect_timeout.min(answer_within);
    Store::new(&store, &settings.node, answer_within, &[])
}

/// A host that has no memory left must not have to find some for the fence.
fn lock_memory() {
    let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    if let Err(error) = mlockall(all) {
        tracing::warn!(
            %error,
            "cannot lock the guard in memory, so that a host that swaps may delay it; \
             LimitMEMLOCK=infinity is in understudy-lease@.service"
        );
    }
}

fn report(core: &Guard, teller: &Teller, valid: Duration) -> Report {
    Report {
        group: teller.group.clone(),
        epoch: teller.token.map(|token| token.epoch),
        nonce: teller.token.map(|token| token.nonce),
        state: core.standing(),
        confirmed_ns: core.confirmed(),
        valid_ms: Report::millis(valid),
        pid: std::process::id(),
    }
}

/// What can happen to the process.
struct Inbox {
    told: UnixStream,
    happens: mpsc::Receiver<Event>,
    asked: mpsc::Receiver<Asked>,
    stop: Signal,
    /// Keeps `happens` open for a guard that has no store to ask.
    _events: mpsc::Sender<Event>,
}

/// A thing that happened to the process.
enum Happened {
    Event(Event),
    Asked(Asked),
    Stop,
}

impl Inbox {
    async fn next(&mut self, at_most: Duration) -> Happened {
        tokio::select! {
            biased;
            told = self.told.read_u8() => match told {
                Ok(tells::DEAD) => Happened::Event(Event::Dead),
                Ok(_) | Err(_) => Happened::Event(Event::Struck),
            },
            Some(event) = self.happens.recv() => Happened::Event(event),
            Some(asked) = self.asked.recv() => Happened::Asked(asked),
            _ = self.stop.recv() => Happened::Stop,
            () = sleep(at_most) => Happened::Event(Event::Wake),
        }
    }
}

/// The hands of one [`Guard`].
struct Process {
    core: Guard,
    deadline: Deadline,
    slice: Slice,
    notify: Notify,
    teller: Teller,
    store: Option<mpsc::Sender<Question>>,
    reports: watch::Sender<Report>,
    runtime_dir: PathBuf,
    stop_within: Duration,
    renew: Duration,
    glass: bool,
    /// When the fence began, until it was said that it takes too long.
    fence: Option<BootTime>,
    /// Who waits for the outcome of a release.
    releases: BTreeMap<u64, oneshot::Sender<Released>>,
    requests: u64,
}

impl Process {
    async fn run(mut self, mut inbox: Inbox) -> Ending {
        loop {
            let broken = glass::broken(&self.runtime_dir, &self.teller.group);
            self.tell_of_glass(broken.as_ref());
            if let Some(ending) = self.handle(Event::Glass { broken: broken.is_some() }) {
                return ending;
            }
            let ending = match inbox.next(self.pause()).await {
                Happened::Event(event) => self.handle(event),
                Happened::Stop => self.handle(Event::StopAsked { empty: self.slice.is_empty() }),
                Happened::Asked(Asked::State(gate, answer)) => self.state_asked(gate, answer),
                Happened::Asked(Asked::Release(to, answer)) => self.release_asked(to, answer),
            };
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    /// Until the core is due, or the glass is to be looked at again.
    fn pause(&self) -> Duration {
        let now = BootTime::now();
        let due = self.core.next_deadline().map_or(self.renew, |at| at.since(now));
        due.min(self.renew)
    }

    fn handle(&mut self, event: Event) -> Option<Ending> {
        let now = BootTime::now();
        let mut actions = self.core.handle(now, event);
        // Once it fences the deadline stays where it was, to say how late the fence is.
        let moves = self.core.standing() != Standing::Fencing;
        if moves && !self.deadline.set(self.core.deadline()) {
            actions.extend(self.core.handle(now, Event::Struck));
        }
        let ending = actions.into_iter().fold(None, |ending, action| self.act(action).or(ending));
        self.show(now);
        self.tell_of_a_long_fence(now);
        ending
    }

    fn act(&mut self, action: Action) -> Option<Ending> {
        match action {
            Action::Renew { call } => self.ask(Question::Renew(call)),
            Action::HandOver { to } => self.ask(Question::HandOver(to)),
            Action::Feed => self.say(notify::FEED),
            Action::Ready => self.ready(),
            Action::Fence(why) => self.fence(why),
            Action::Answer { request, answer } => {
                if let Some(waits) = self.releases.remove(&request) {
                    let answer = answer.map_or_else(Released::Error, Released::Released);
                    // Who asked may be gone.
                    let _gone = waits.send(answer);
                }
            }
            Action::Exit(ending) => {
                self.tell_of_the_end(ending);
                return Some(ending);
            }
        }
        None
    }

    fn ask(&self, question: Question) {
        // A queue that is full has questions that are not answered either.
        let asked = self.store.as_ref().map(|store| store.try_send(question));
        if !matches!(asked, Some(Ok(()))) {
            tracing::warn!("the store is not asked: earlier questions still wait");
        }
    }

    fn say(&self, message: &[u8]) {
        if let Err(error) = self.notify.say(message) {
            tracing::warn!(%error, "cannot notify systemd");
        }
    }

    fn ready(&self) {
        let Teller { group, token } = &self.teller;
        match token {
            Some(token) => {
                let text = format!("holds the lease of {group} with epoch {}", token.epoch);
                self.teller.say(Notable::GuardHolds, &text);
                self.say(notify::READY);
            }
            None => self.say(notify::READY_WITHOUT_LEASE),
        }
    }

    fn fence(&mut self, why: Why) {
        let now = BootTime::now();
        self.deadline.strike(now);
        // The thread says so as well. It is the one that must; this is for a thread that hangs.
        self.say(notify::FENCE);
        self.fence = Some(now);
        let group = &self.teller.group;
        let text = format!("stops the units of {group}: {}", why.in_words());
        self.teller.say(Notable::FenceBegun, &text);
    }

    /// Tells watchers how the guard is, if that changed. That less time is left is no change.
    fn show(&self, now: BootTime) {
        let report = report(&self.core, &self.teller, self.core.valid(now));
        self.reports.send_if_modified(|shown| {
            let same = shown.state == report.state && shown.confirmed_ns == report.confirmed_ns;
            *shown = report;
            !same
        });
    }

    fn state_asked(&mut self, gate: bool, answer: oneshot::Sender<Report>) -> Option<Ending> {
        // First what is due, and then the answer.
        let ending = self.handle(Event::Wake);
        let report = report(&self.core, &self.teller, self.core.valid(BootTime::now()));
        let passes = gate && report.lets_pass();
        // Who asked may be gone.
        let _gone = answer.send(report);
        ending.or_else(|| passes.then(|| self.handle(Event::Passed)).flatten())
    }

    fn release_asked(
        &mut self,
        to: Option<String>,
        answer: oneshot::Sender<Released>,
    ) -> Option<Ending> {
        self.requests += 1;
        let request = self.requests;
        self.releases.insert(request, answer);
        self.handle(Event::ReleaseAsked { request, to, empty: self.slice.is_empty() })
    }

    fn tell_of_glass(&mut self, broken: Option<&glass::Broken>) {
        let group = &self.teller.group;
        match broken {
            Some(glass::Broken { by, reason }) if !self.glass => {
                let text = format!(
                    "BREAK-GLASS: units of {group} run here whether this node holds the lease or not, \
                     because {by} said so: {reason}; end it with `understudy gate {group} --mend`"
                );
                self.teller.say(Notable::GlassBroken, &text);
            }
            None if self.glass => {
                let text = format!("the glass of {group} is mended: the lease counts again");
                self.teller.say(Notable::GlassMended, &text);
            }
            Some(_) | None => {}
        }
        self.glass = broken.is_some();
    }

    fn tell_of_a_long_fence(&mut self, now: BootTime) {
        if self.fence.is_some_and(|begun| now >= begun + self.stop_within) {
            self.fence = None;
            let group = &self.teller.group;
            let text = format!(
                "processes of {group} are left {} after they were to stop, although they were killed: \
                 look for one in state D with `systemd-cgls`; if there is none in it, reset this host",
                humantime::format_duration(self.stop_within)
            );
            self.teller.say(Notable::FenceIncomplete, &text);
        }
    }

    fn tell_of_the_end(&self, ending: Ending) {
        let group = &self.teller.group;
        match ending {
            Ending::Released => {
                let text = format!("gave back the lease of {group}");
                self.teller.say(Notable::LeaseReleased, &text);
            }
            Ending::Fenced(_) => {
                let text = format!("no process of {group} is left");
                self.teller.say(Notable::FenceDone, &text);
            }
        }
    }
}
