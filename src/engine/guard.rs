//! The core of the guard, the process that renews the lease of one tenure: when it renews, when it
//! feeds the watchdog, when it fences. No clock, no I/O: time is an argument, answers are events.
//!
//! ```text
//!               granted              release asked, slice empty
//!    Starting ──────────► Holding ────────────────────────────► Releasing ──► Released
//!        │                   │                                      │
//!        └───────────────────┴──── deadline, refused, mended ───────┴──► Fencing ──► gone
//! ```
//!
//! Whoever drives it, the process or a simulation, does the same few things:
//!
//! 1. [`Guard::handle`] is called with each event, and with [`Event::Wake`] at
//!    [`Guard::next_deadline`]. The clock is read before the call; a renewal counts from then, so
//!    from *before* it was sent.
//! 2. The actions are done in their order.
//! 3. [`Action::Fence`] makes a [`Fence`]; its strokes are made until [`Stroke::Done`], which is
//!    told to the guard as [`Event::Dead`].
//!
//! The process has a second thread for the last step. It knows [`Guard::deadline`] and begins the
//! fence by itself if this core is not asked in time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::Epoch;
use crate::time::BootTime;

/// A gate that let a unit pass is followed by the unit's first process, but not at once: between the
/// two there is nothing to be seen in the slice. For this long after it nothing is released.
pub const PASS_SETTLES: Duration = Duration::from_secs(2);

/// A fence that begins this late after its deadline does not ask the units any more. The host was
/// suspended, most likely, and somebody else may have acted since.
pub const LATE: Duration = Duration::from_secs(1);

/// How long systemd has to say that it heard that the units are to be stopped, before the guard
/// sends them SIGTERM itself.
pub const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// Pause between two looks at a slice that is to become empty, and between two strokes of
/// `cgroup.kill`.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a guard lives by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// From the sending of a renewal to the sending of the next one.
    pub renew: Duration,
    /// An answer that comes later than this after the sending is none.
    pub answer_within: Duration,
    /// From the sending of the last granted renewal to the fence.
    pub fence_after: Duration,
    /// From the begin of the fence to `cgroup.kill`; until then the units may stop by themselves.
    pub kill_after: Duration,
    /// What to do when the store does not answer for `fence_after`.
    pub store_loss: StoreLoss,
}

/// What to do when nobody knows whether the lease is still ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreLoss {
    /// Stop the units: somebody else may have taken over.
    Fence,
    /// Go on: an operator prefers two copies to none. A refused renewal still fences.
    Hold,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Time passed.
    Wake,
    /// A renewal was answered, or not.
    Renewed {
        /// Which one, as in [`Action::Renew`].
        call: u64,
        /// What the store said.
        renewal: Renewal,
    },
    /// The gate let a unit pass.
    Passed,
    /// Somebody wants the lease released.
    ReleaseAsked {
        /// Number of the question, for [`Action::Answer`].
        request: u64,
        /// The node that it is for, if any.
        to: Option<String>,
        /// Whether the slice is known to be empty, as seen after the last [`Event::Passed`].
        empty: bool,
    },
    /// systemd wants the guard to stop. The units are stopped before, so that this is a release.
    StopAsked {
        /// Whether the slice is known to be empty.
        empty: bool,
    },
    /// The store answered to [`Action::HandOver`], or not.
    HandedOver(HandOver),
    /// The operator broke the glass: units may run without a lease. Or mended it. Repeated as long as
    /// it is so.
    Glass {
        /// Whether it is broken.
        broken: bool,
    },
    /// The thread with the deadline began the fence by itself.
    Struck,
    /// The fence is done: the slice is empty.
    Dead,
}

/// What the store said to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewal {
    /// The lease is ours.
    Granted,
    /// It is not, and never will be again in this tenure.
    Refused,
    /// Nobody knows.
    Failed,
}

/// What the store said to a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandOver {
    /// The lease is free, with this epoch.
    Done(Epoch),
    /// It was not ours.
    Refused,
    /// Nobody knows.
    Failed,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Send a renewal, and drop what is left of an earlier one.
    Renew {
        /// Its number, for [`Event::Renewed`].
        call: u64,
    },
    /// Feed the watchdog.
    Feed,
    /// Tell systemd that units may start.
    Ready,
    /// Begin the fence: tell systemd to stop the units, and make a [`Fence`].
    Fence(Why),
    /// Give the lease back to the store.
    HandOver {
        /// For this node, or for anybody.
        to: Option<String>,
    },
    /// Answer who asked for the release.
    Answer {
        /// Number of the question.
        request: u64,
        /// The epoch of the lease that is free now, or why there is none.
        answer: Result<Epoch, String>,
    },
    /// End the process. systemd stops what is still bound to it.
    Exit(Ending),
}

/// Why the units must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Why {
    /// No renewal was granted in time.
    Deadline,
    /// The store says that the lease is not ours.
    Refused,
    /// The lease was to be released, and nobody knows whether it was.
    Unknown,
    /// systemd ended the guard, and there were processes left.
    Stopped,
    /// The glass was mended, and there is no lease.
    Mended,
}

impl Why {
    /// For people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Deadline => "no renewal of the lease was granted in time",
            Self::Refused => "the lease belongs to somebody else, or to another tenure",
            Self::Unknown => "the lease was to be released, and nobody knows whether it was",
            Self::Stopped => "the guard was stopped while processes of the group were left",
            Self::Mended => "the glass was mended, and there is no lease",
        }
    }
}

/// How a guard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The lease was given back.
    Released,
    /// The units were stopped.
    Fenced(Why),
}

/// What others may know of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// No renewal was granted yet.
    Starting,
    /// The lease is ours. The only one in which the gate lets pass, with `BreakGlass`.
    Holding,
    /// The lease is being given back.
    Releasing,
    /// It was.
    Released,
    /// The units are being stopped, or were.
    Fencing,
    /// Units run without a lease, because an operator said so.
    BreakGlass,
}

impl Standing {
    /// Its name on the socket and for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Holding => "holding",
            Self::Releasing => "releasing",
            Self::Released => "released",
            Self::Fencing => "fencing",
            Self::BreakGlass => "break-glass",
        }
    }
}

/// The guard of one tenure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    timers: Timers,
    state: State,
    /// When the last renewal was sent that was granted, or the lease was asked for; `None` without a
    /// lease, or if it was refused behind broken glass.
    confirmed: Option<BootTime>,
    /// Whether a renewal was granted, or the glass was broken, so that units may run.
    ready: bool,
    /// The renewal under way.
    call: Option<Call>,
    /// Renewals sent so far.
    calls: u64,
    /// When the next one is to be sent.
    renew_at: BootTime,
    /// When the gate last let a unit pass.
    passed: Option<BootTime>,
    glass: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Call {
    number: u64,
    sent: BootTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Holding,
    /// Who asked; `None` for systemd.
    Releasing(Option<u64>),
    Released,
    Fencing(Why),
}

impl Guard {
    /// The guard of a lease that was asked for at `asked`, or of none behind broken glass.
    #[must_use]
    pub fn new(now: BootTime, timers: Timers, asked: Option<BootTime>) -> Self {
        Self {
            timers,
            state: State::Holding,
            confirmed: asked,
            ready: false,
            call: None,
            calls: 0,
            renew_at: now,
            passed: None,
            glass: asked.is_none(),
        }
    }

    /// Takes in an event and says what to do.
    pub fn handle(&mut self, now: BootTime, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        // First of all: an answer that is handled too late saves nothing.
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.fence(Why::Deadline, &mut out);
        }
        if self.call.is_some_and(|call| now >= call.sent + self.timers.answer_within) {
            self.unanswered(&mut out);
        }
        match event {
            Event::Wake => {}
            Event::Renewed { call, renewal } => self.renewed(call, renewal, &mut out),
            Event::Passed => self.passed = Some(now),
            Event::ReleaseAsked { request, to, empty } => {
                self.release_asked(now, request, to, empty, &mut out);
            }
            Event::StopAsked { empty } => self.stop_asked(empty, &mut out),
            Event::HandedOver(answer) => self.handed_over(answer, &mut out),
            Event::Glass { broken } => self.glass_is(broken, &mut out),
            Event::Struck => self.fence(Why::Deadline, &mut out),
            Event::Dead => {
                if let State::Fencing(why) = self.state {
                    out.push(Action::Exit(Ending::Fenced(why)));
                }
            }
        }
        self.keep_time(now, &mut out);
        out
    }

    /// When the fence begins if nothing is granted until then. `None` if it began already, or if
    /// time alone does not begin it. Never later than `fence_after` after the sending of the last
    /// granted renewal.
    #[must_use]
    pub fn deadline(&self) -> Option<BootTime> {
        let timed = match (self.state, self.timers.store_loss) {
            (State::Released | State::Fencing(_), _) => false,
            // It must have been the holder once to go on as one.
            (State::Holding | State::Releasing(_), StoreLoss::Hold) => !self.ready,
            (State::Holding | State::Releasing(_), StoreLoss::Fence) => true,
        };
        let at = self.confirmed? + self.timers.fence_after;
        (timed && !self.glass).then_some(at)
    }

    /// When [`Event::Wake`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<BootTime> {
        let turn_at = match (self.state, self.call) {
            (State::Holding, None) => Some(self.renew_at),
            (State::Holding | State::Releasing(_), Some(call)) => {
                Some(call.sent + self.timers.answer_within)
            }
            (State::Releasing(_), None) | (State::Released | State::Fencing(_), _) => None,
        };
        [self.deadline(), turn_at].into_iter().flatten().min()
    }

    /// What others may know.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.state {
            State::Holding if self.glass => Standing::BreakGlass,
            State::Holding if self.ready => Standing::Holding,
            State::Holding => Standing::Starting,
            State::Releasing(_) => Standing::Releasing,
            State::Released => Standing::Released,
            State::Fencing(_) => Standing::Fencing,
        }
    }

    /// When the last granted renewal was sent, or the lease was asked for.
    #[must_use]
    pub fn confirmed(&self) -> Option<BootTime> {
        self.confirmed
    }

    /// How long units may still start: zero unless the lease is held.
    #[must_use]
    pub fn valid(&self, now: BootTime) -> Duration {
        match self.standing() {
            Standing::Holding | Standing::BreakGlass => {
                self.deadline().map_or(self.timers.fence_after, |deadline| deadline.since(now))
            }
            Standing::Starting | Standing::Releasing | Standing::Released | Standing::Fencing => {
                Duration::ZERO
            }
        }
    }

    fn renewed(&mut self, number: u64, renewal: Renewal, out: &mut Vec<Action>) {
        let answered = self.call.filter(|call| call.number == number);
        if answered.is_some() {
            self.call = None;
        }
        match (renewal, answered, self.state) {
            // A late refusal is as true as an early one: this tenure does not come back.
            (Renewal::Refused, _, State::Holding | State::Releasing(_)) if self.glass => {
                self.confirmed = None;
            }
            (Renewal::Refused, _, State::Holding | State::Releasing(_)) => {
                self.fence(Why::Refused, out);
            }
            (Renewal::Granted, Some(call), State::Holding) => {
                self.confirmed = Some(call.sent);
                out.push(Action::Feed);
                self.become_ready(out);
            }
            // The question was there before the hand-over, and the lease will be free in a moment.
            (Renewal::Granted, Some(_), State::Releasing(_)) => {}
            (Renewal::Failed, Some(_), State::Holding | State::Releasing(_)) => {
                self.unanswered(out);
            }
            // A late answer: its call was given up, and it counts from nobody knows when.
            (Renewal::Granted | Renewal::Failed, None, _)
            | (_, _, State::Released | State::Fencing(_)) => {}
        }
    }

    fn unanswered(&mut self, out: &mut Vec<Action>) {
        self.call = None;
        let holds = self.ready && self.timers.store_loss == StoreLoss::Hold;
        if holds && self.state == State::Holding {
            out.push(Action::Feed);
        }
    }

    fn release_asked(
        &mut self,
        now: BootTime,
        request: u64,
        to: Option<String>,
        empty: bool,
        out: &mut Vec<Action>,
    ) {
        let settling = self.passed.is_some_and(|passed| now < passed + PASS_SETTLES);
        let refusal = match self.standing() {
            Standing::Holding if !empty => "units of the group run here; stop them first",
            Standing::Holding if settling => "a unit of the group is just starting; stop it first",
            Standing::Holding => {
                self.state = State::Releasing(Some(request));
                out.push(Action::HandOver { to });
                return;
            }
            Standing::Starting => "no renewal of the lease was granted yet",
            Standing::Releasing => "the lease is being released already",
            Standing::Released => "the lease is released already",
            Standing::Fencing => "the lease is lost, and the units are being stopped",
            Standing::BreakGlass => "the glass is broken; mend it first",
        };
        out.push(Action::Answer { request, answer: Err(refusal.to_owned()) });
    }

    fn stop_asked(&mut self, empty: bool, out: &mut Vec<Action>) {
        match self.standing() {
            Standing::Holding if empty => {
                self.state = State::Releasing(None);
                out.push(Action::HandOver { to: None });
            }
            Standing::Starting | Standing::Holding | Standing::BreakGlass => {
                self.fence(Why::Stopped, out);
            }
            // It ends by itself.
            Standing::Releasing | Standing::Released | Standing::Fencing => {}
        }
    }

    fn handed_over(&mut self, answer: HandOver, out: &mut Vec<Action>) {
        let State::Releasing(request) = self.state else { return };
        let (answer, why) = match answer {
            HandOver::Done(epoch) => (Ok(epoch), None),
            HandOver::Refused => (Err(Why::Refused.in_words().to_owned()), Some(Why::Refused)),
            HandOver::Failed => (Err(Why::Unknown.in_words().to_owned()), Some(Why::Unknown)),
        };
        if let Some(request) = request {
            out.push(Action::Answer { request, answer });
        }
        match why {
            Some(why) => self.fence(why, out),
            None => {
                self.state = State::Released;
                out.push(Action::Exit(Ending::Released));
            }
        }
    }

    fn glass_is(&mut self, broken: bool, out: &mut Vec<Action>) {
        let mended = self.glass && !broken;
        self.glass = broken;
        if mended && self.confirmed.is_none() {
            self.fence(Why::Mended, out);
        }
    }

    fn become_ready(&mut self, out: &mut Vec<Action>) {
        if !self.ready {
            self.ready = true;
            out.push(Action::Ready);
        }
    }

    /// Begins the fence, once. Nothing leads out of it.
    fn fence(&mut self, why: Why, out: &mut Vec<Action>) {
        let request = match self.state {
            State::Released | State::Fencing(_) => return,
            State::Holding => None,
            State::Releasing(request) => request,
        };
        if let (Some(request), Why::Deadline | Why::Refused) = (request, why) {
            // Unless it was answered with the outcome of the hand-over.
            let answered = out.iter().any(|action| matches!(action, Action::Answer { .. }));
            if !answered {
                let answer = Err(why.in_words().to_owned());
                out.push(Action::Answer { request, answer });
            }
        }
        self.state = State::Fencing(why);
        self.call = None;
        // The fence takes its time, in which the watchdog must not take its place.
        out.push(Action::Feed);
        out.push(Action::Fence(why));
    }

    fn keep_time(&mut self, now: BootTime, out: &mut Vec<Action>) {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            // The glass was mended too late.
            self.fence(Why::Deadline, out);
        }
        if self.state != State::Holding || self.call.is_some() || now < self.renew_at {
            return;
        }
        self.renew_at = now + self.timers.renew;
        if self.glass {
            // Nobody renews for it, and the units run because an operator said so.
            out.push(Action::Feed);
            self.become_ready(out);
        }
        if self.confirmed.is_some() {
            self.calls += 1;
            self.call = Some(Call { number: self.calls, sent: now });
            out.push(Action::Renew { call: self.calls });
        }
    }
}

/// The fence itself, once begun: what to do to the slice, and when. Neither asks nor allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    begun: BootTime,
    kill_at: BootTime,
    asked: bool,
}

/// What to do to the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stroke {
    /// Look again at this time.
    Wait(BootTime),
    /// Send SIGTERM to every process, and go on.
    Term,
    /// Write to `cgroup.kill`, and go on.
    Kill,
    /// Nothing: it is empty.
    Done,
}

impl Fence {
    /// A fence that begins now, `late` after it was due.
    #[must_use]
    pub fn begin(now: BootTime, late: Duration, kill_after: Duration) -> Self {
        let kill_at = if late >= LATE { now } else { now + kill_after };
        Self { begun: now, kill_at, asked: false }
    }

    /// The next stroke. `empty` says whether the slice is known to be empty, `heard` whether systemd
    /// is known to be stopping the units, so that they are not asked twice.
    pub fn stroke(&mut self, now: BootTime, empty: bool, heard: bool) -> Stroke {
        if empty {
            return Stroke::Done;
        }
        if now >= self.kill_at {
            self.kill_at = now + LOOK_EVERY;
            return Stroke::Kill;
        }
        if !self.asked && !heard && now >= self.begun + HEARD_WITHIN {
            self.asked = true;
            return Stroke::Term;
        }
        Stroke::Wait((now + LOOK_EVERY).min(self.kill_at))
    }
}
