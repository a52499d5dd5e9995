//! systemd over D-Bus: can a unit be started, start it and see that it stays, stop it and see that
//! it is gone.
//!
//! A job's result is never believed: systemd calls a job "done" when the program of a `Type=simple`
//! service does not exist, or when a condition was not met. What counts is the unit's own state,
//! read afresh once the job is over, and that it is still the same process some time later.
//!
//! [`state`] has what a unit says of itself, [`figures`] the same in numbers, [`fault`] what can be
//! wrong with it, `bus` the calls.

mod bus;
pub mod fault;
pub mod figures;
pub mod protection;
pub mod state;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use crate::time::BootTime;
pub use bus::CALL_TIMEOUT;
use bus::{Bus, Depth, JobRemoved, JobsRemoved};
pub use fault::{Fault, SystemdError, UnitFault};
pub use state::{
    Active, Enabled, Ending, Exit, Invocation, Job, JobResult, Load, Outcome, UnitState,
};

/// How often a settling unit is looked at. A restart between two looks is not missed, as it changes
/// the invocation.
const SETTLE_PACE: Duration = Duration::from_millis(200);

/// How often jobs are looked at while waiting for the signal of their end, which is lost when the
/// bus daemon restarts.
const JOB_PACE: Duration = Duration::from_millis(500);

/// Time between two attempts to reach a bus that went away while something is waited for.
const RECONNECT_PACE: Duration = Duration::from_millis(100);

/// The part of a stop's deadline that is kept for SIGKILL. The kernel needs milliseconds; the rest
/// is for a busy systemd to notice.
pub const KILL_RESERVE: Duration = Duration::from_secs(2);

/// Time between two SIGKILLs to the same unit, which may start further processes while it stops.
const KILL_PACE: Duration = Duration::from_millis(50);

/// Groups whose units are looked at together by the periodic checks. With a thousand groups they come
/// all at once, and the last would wait longer than it may for what systemd answers one by one.
const LOOKS_MAX: usize = 8;

/// A connection to systemd, made when first needed and again after the bus daemon went away. Clones
/// share it: the bus has few connections to spare for one user.
#[derive(Clone, Debug)]
pub struct Systemd {
    address: Option<String>,
    bus: Arc<Mutex<Option<Bus>>>,
    /// [`LOOKS_MAX`] less the looks under way.
    looks: Arc<Semaphore>,
}

impl Default for Systemd {
    fn default() -> Self {
        Self { address: None, bus: Arc::default(), looks: Arc::new(Semaphore::new(LOOKS_MAX)) }
    }
}

/// Units that became active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// When all of them were seen active.
    pub active_at: BootTime,
    /// Which processes they are, in the order in which they were asked for.
    pub units: Vec<Running>,
}

/// A unit that became active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its name.
    pub unit: String,
    /// Its main process, if it is a service that has one.
    pub main_pid: Option<u32>,
    /// This run of it; a restart is another.
    pub invocation: Option<Invocation>,
}

impl Systemd {
    /// Connects at the first call that needs it, to the system bus or to what
    /// `DBUS_SYSTEM_BUS_ADDRESS` says.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for another bus, at a D-Bus address.
    #[must_use]
    pub fn at(address: String) -> Self {
        Self { address: Some(address), ..Self::default() }
    }

    /// Connects now, unless connected, so that a failover does not begin with it.
    ///
    /// # Errors
    /// If the bus or systemd cannot be reached.
    pub async fn connect(&mut self) -> Result<(), SystemdError> {
        self.bus().await.map(drop)
    }

    /// Waits for a turn to look at the units of a group that is in no hurry, and has it until the
    /// answer is dropped. A deadline for looking begins after this.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.looks.acquire().await.ok()
    }

    /// Reads what the units are and do, in the order of `units`. A unit that does not exist has a
    /// state too, it says so.
    ///
    /// # Errors
    /// If the bus or systemd cannot be reached.
    pub async fn inspect(&mut self, units: &[String]) -> Result<Vec<UnitState>, SystemdError> {
        let read = async |bus: Bus| bus.read_all(units, Depth::Service).await;
        match read(self.bus().await?).await {
            // Nothing was changed by a call that was lost with the connection.
            Err(error) if error.is_disconnect() => read(self.bus_again().await?).await,
            states => states,
        }
    }

    /// How often systemd restarted the service that a process belongs to, since a person last
    /// started it.
    ///
    /// # Errors
    /// If the bus or systemd cannot be reached, or the process belongs to no service.
    pub async fn restarts_of(&mut self, pid: u32) -> Result<u32, SystemdError> {
        self.bus().await?.restarts(pid).await
    }

    /// Starts the units together and waits until they are active. Those that are already stay as
    /// they are.
    ///
    /// Nothing is queued if one of them is missing, masked or broken. Otherwise none waits for
    /// another, and all are waited for even if one fails early, so that the error tells of each.
    /// Calls that systemd does not answer can overrun the deadline by [`CALL_TIMEOUT`].
    ///
    /// # Errors
    /// [`SystemdError::Start`] with the fault of each unit that is not active at the deadline; other
    /// variants if the bus or systemd cannot be reached.
    pub async fn start(
        &mut self,
        units: &[String],
        deadline: Duration,
    ) -> Result<Started, SystemdError> {
        let until = Instant::now() + deadline;
        let (mut removed, before) = self.prepare(units).await?;
        let broken = faults(before.iter().map(|state| (&*state.unit, state.unstartable())));
        if !broken.is_empty() {
            return Err(SystemdError::Start(broken));
        }

        let bus = self.bus().await?;
        let queued = join_all(before.iter().map(|state| queue_start(&bus, state))).await;
        let mut jobs = pending(units, &queued);
        self.wait(&mut removed, &mut jobs, until).await;

        let after = self.inspect(units).await?;
        let active_at = BootTime::now();
        let mut broken = Vec::new();
        for (state, queued) in after.iter().zip(queued) {
            let fault = match queued {
                _ if state.is_up() => continue,
                Ok(_) => self.why_not_up(state, &jobs).await,
                Err(fault) => fault,
            };
            broken.push(UnitFault { unit: state.unit.clone(), fault });
        }
        if !broken.is_empty() {
            return Err(SystemdError::Start(broken));
        }
        Ok(Started { active_at, units: after.into_iter().map(Running::from).collect() })
    }

    /// Watches units that just became active until they have been so for a while, without a
    /// restart. Most programs that cannot work with what they find say so by leaving, after systemd
    /// has called them active.
    ///
    /// # Errors
    /// [`SystemdError::Settle`] as soon as one of them is no longer the same process; other variants
    /// if it could not be known at the end of the time.
    pub async fn settle(
        &mut self,
        started: &Started,
        duration: Duration,
    ) -> Result<(), SystemdError> {
        let until = Instant::now() + duration;
        let units: Vec<String> = started.units.iter().map(|running| running.unit.clone()).collect();
        loop {
            let last = Instant::now() >= until;
            match self.inspect(&units).await {
                Ok(states) => {
                    let left = started.units.iter().zip(&states);
                    let left = faults(left.map(|(was, is)| (&*was.unit, was.left(is))));
                    if !left.is_empty() {
                        return Err(SystemdError::Settle(left));
                    }
                    if last {
                        return Ok(());
                    }
                }
                Err(error) if last => return Err(error),
                Err(error) => debug!(%error, "cannot look at settling units, will look again"),
            }
            sleep_until(until.min(Instant::now() + SETTLE_PACE)).await;
        }
    }

    /// Stops the units and sees that none of their processes is left, whatever their own timeouts
    /// and whether they listen to SIGTERM or not. A unit that does not run is fine.
    ///
    /// The last [`KILL_RESERVE`] of the deadline is for SIGKILL.
    ///
    /// # Errors
    /// [`SystemdError::Stop`] with each unit of which something is left at the deadline; other
    /// variants if the bus or systemd cannot be reached.
    pub async fn stop(&mut self, units: &[String], deadline: Duration) -> Result<(), SystemdError> {
        let until = Instant::now() + deadline;
        let mut removed = self.jobs_removed().await?;
        let bus = self.bus().await?;
        let queued = join_all(units.iter().map(|unit| queue_stop(&bus, unit))).await;
        let mut jobs = pending(units, &queued);
        self.wait(&mut removed, &mut jobs, until - KILL_RESERVE.min(deadline)).await;

        loop {
            let last = Instant::now() >= until;
            match self.left_of(units, &queued).await {
                Ok(left) if left.is_empty() => return Ok(()),
                Ok(left) if last => return Err(SystemdError::Stop(left)),
                Ok(left) => self.kill(&left).await,
                Err(error) if last => return Err(error),
                Err(error) => debug!(%error, "cannot look at stopping units, will look again"),
            }
            sleep(KILL_PACE).await;
        }
    }

    /// Which of the units systemd would refuse us, found out by calls without effect. Units that run
    /// or failed are left out, as the call would make systemd forget how often and why.
    ///
    /// # Errors
    /// If the bus or systemd cannot be reached.
    pub async fn refused(&mut self, states: &[UnitState]) -> Result<Vec<UnitFault>, SystemdError> {
        let bus = self.bus().await?;
        let idle = states.iter().filter(|state| {
            state.active == Active::Inactive && state.job.is_none() && state.unstartable().is_none()
        });
        let asked = idle.map(async |state| {
            let refused = match ask_permission(&bus, &state.unit).await {
                Err(fault @ Fault::Refused { .. }) => Some(fault),
                // Something else is wrong, which is for those to say who look for it.
                Ok(()) | Err(_) => None,
            };
            (&*state.unit, refused)
        });
        Ok(faults(join_all(asked).await.into_iter()))
    }

    async fn bus(&mut self) -> Result<Bus, SystemdError> {
        let mut bus = self.bus.lock().await;
        match &*bus {
            Some(bus) if !bus.is_closed() => Ok(bus.clone()),
            Some(_) | None => Ok(bus.insert(Bus::open(self.address.as_deref()).await?).clone()),
        }
    }

    async fn bus_again(&mut self) -> Result<Bus, SystemdError> {
        *self.bus.lock().await = None;
        self.bus().await
    }

    /// Listens for the ends of jobs and sees whether the units can be started, at the same time.
    async fn prepare(
        &mut self,
        units: &[String],
    ) -> Result<(JobsRemoved, Vec<UnitState>), SystemdError> {
        let both =
            async |bus: Bus| tokio::try_join!(bus.jobs_removed(), bus.read_all(units, Depth::Unit));
        match both(self.bus().await?).await {
            Err(error) if error.is_disconnect() => both(self.bus_again().await?).await,
            ready => ready,
        }
    }

    async fn jobs_removed(&mut self) -> Result<JobsRemoved, SystemdError> {
        match self.bus().await?.jobs_removed().await {
            Err(error) if error.is_disconnect() => self.bus_again().await?.jobs_removed().await,
            removed => removed,
        }
    }

    /// Waits until the jobs are over, or until it is too late.
    async fn wait(&mut self, removed: &mut JobsRemoved, jobs: &mut [Pending], until: Instant) {
        let mut look_at = Instant::now() + JOB_PACE;
        while jobs.iter().any(|pending| !pending.over) {
            tokio::select! {
                signal = removed.next() => match signal {
                    Some(signal) => jobs.iter_mut().for_each(|pending| pending.note(&signal)),
                    None => match self.jobs_removed().await {
                        Ok(again) => {
                            *removed = again;
                            look_at = Instant::now();
                        }
                        Err(error) => {
                            debug!(%error, "the bus went away, will try again");
                            sleep_until(until.min(Instant::now() + RECONNECT_PACE)).await;
                        }
                    },
                },
                () = sleep_until(look_at) => {
                    self.look_at(jobs).await;
                    look_at = Instant::now() + JOB_PACE;
                }
                () = sleep_until(until) => break,
            }
        }
        // A job that was seen to be over has sent its signal before the answer that said so.
        while let Some(Some(signal)) = removed.next().now_or_never() {
            jobs.iter_mut().for_each(|pending| pending.note(&signal));
        }
    }

    /// Marks the jobs that their units no longer have.
    async fn look_at(&mut self, jobs: &mut [Pending]) {
        let waited_for: Vec<&mut Pending> =
            jobs.iter_mut().filter(|pending| !pending.over).collect();
        let units: Vec<String> = waited_for.iter().map(|pending| pending.unit.clone()).collect();
        match self.inspect(&units).await {
            Ok(states) => {
                for (pending, state) in waited_for.into_iter().zip(states) {
                    pending.over = state.job.is_none_or(|job| job.id != pending.job);
                }
            }
            Err(error) => debug!(%error, "cannot look at jobs, will look again"),
        }
    }

    /// Why a unit that was started is not active, with what only further calls can tell.
    async fn why_not_up(&mut self, state: &UnitState, jobs: &[Pending]) -> Fault {
        let ended = jobs.iter().find(|pending| pending.unit == state.unit);
        let mut fault = Fault::of_start(state, ended.and_then(|pending| pending.result.as_ref()));
        if let Fault::Hanging { job: Some(job), .. } = &mut fault
            && let Ok(bus) = self.bus().await
        {
            *job = bus.describe(job).await;
        }
        if let Fault::Dependency { failed } = &mut fault {
            let required = self.inspect(&state.requires).await.unwrap_or_default();
            failed.extend(required.iter().filter(|unit| !unit.is_up()).map(UnitState::to_string));
        }
        fault
    }

    /// Which units still run, and if so why: because systemd refused to stop them, or because they
    /// did not go.
    async fn left_of(
        &mut self,
        units: &[String],
        queued: &[Queued],
    ) -> Result<Vec<UnitFault>, SystemdError> {
        let states = self.inspect(units).await?;
        let bus = self.bus().await?;
        let mut left = Vec::new();
        for (state, queued) in states.iter().zip(queued) {
            let processes = bus.processes(&state.unit).await?;
            if state.is_down() && processes.is_empty() {
                continue;
            }
            let fault = match queued {
                Err(refused) => refused.clone(),
                Ok(_) => Fault::StillRunning {
                    active: state.active.clone(),
                    sub: state.sub.clone(),
                    processes,
                },
            };
            left.push(UnitFault { unit: state.unit.clone(), fault });
        }
        Ok(left)
    }

    /// Kills what is left of the units. They are also told to stop once more, as something may have
    /// cancelled that, and a unit with Restart= is started again if it is only killed.
    async fn kill(&mut self, left: &[UnitFault]) {
        let Ok(bus) = self.bus().await else { return };
        join_all(left.iter().map(async |left| {
            warn!(unit = left.unit, fault = %left.fault, "killing a unit that did not stop");
            for outcome in [bus.queue_stop(&left.unit).await.map(drop), bus.kill(&left.unit).await]
            {
                if let Err(error) = outcome {
                    debug!(unit = left.unit, %error, "could not kill a unit, will look again");
                }
            }
        }))
        .await;
    }
}

/// The job that systemd queued for a unit, if there was anything to do, or why it did not.
type Queued = Result<Option<Job>, Fault>;

async fn queue_start(bus: &Bus, state: &UnitState) -> Queued {
    let unit = &*state.unit;
    // A unit that nobody holds is forgotten as soon as it is inactive, with the reason why it is.
    let hold = bus.hold(unit);
    // Earlier failures and starts count towards the start limit.
    let reset = bus.reset_failed(unit);
    let prepare = async {
        let (held, reset) = tokio::join!(hold, reset);
        for error in [held.err(), reset.err()].into_iter().flatten() {
            debug!(unit, %error, "could not prepare a unit, starting it as it is");
        }
    };
    let start = async { Ok(bus.queue_start(unit).await.map(Some)?) };
    if state.active == Active::Failed {
        prepare.await;
        start.await
    } else {
        // systemd takes calls in their order, unless it has to ask polkit about them. It matters
        // little then, and one round trip less is time.
        let ((), queued) = tokio::join!(prepare, start);
        queued
    }
}

/// Has systemd ask polkit about a unit that is idle.
async fn ask_permission(bus: &Bus, unit: &str) -> Result<(), Fault> {
    match bus.reset_failed(unit).await {
        // It is not loaded, so that systemd knew its answer without asking.
        Err(error) if bus::is_missing(&error) => {
            bus.hold(unit).await?;
            Ok(bus.reset_failed(unit).await?)
        }
        asked => Ok(asked?),
    }
}

async fn queue_stop(bus: &Bus, unit: &str) -> Queued {
    match bus.queue_stop(unit).await {
        // Not even loaded, so nothing of it runs.
        Err(error) if bus::is_missing(&error) => Ok(None),
        queued => Ok(queued.map(Some)?),
    }
}

/// A job that is waited for.
struct Pending {
    unit: String,
    job: u32,
    over: bool,
    /// How it ended, if the signal that said so was not lost.
    result: Option<JobResult>,
}

impl Pending {
    fn note(&mut self, removed: &JobRemoved) {
        if self.job == removed.id {
            self.over = true;
            self.result = Some(removed.result.clone());
        }
    }
}

fn pending(units: &[String], queued: &[Queued]) -> Vec<Pending> {
    let jobs = units.iter().zip(queued).filter_map(|(unit, queued)| {
        let job = queued.as_ref().ok()?.as_ref()?;
        Some(Pending { unit: unit.clone(), job: job.id, over: false, result: None })
    });
    jobs.collect()
}

/// Those that have a fault.
fn faults<'a>(units: impl Iterator<Item = (&'a str, Option<Fault>)>) -> Vec<UnitFault> {
    units
        .filter_map(|(unit, fault)| Some(UnitFault { unit: unit.to_owned(), fault: fault? }))
        .collect()
}
