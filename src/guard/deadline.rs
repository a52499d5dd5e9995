//! The dead man's switch: a thread that stops the units unless the deadline is moved in time.
//!
//! It is a thread of the operating system, with a timer on `CLOCK_BOOTTIME`, which counts while the
//! host is suspended. It takes no lock, allocates nothing, and touches nothing but the timer, the
//! control group of the slice, and sockets that it does not wait for. So it does its work while
//! everything else in the process hangs, or the host has no memory left. The rest of the guard may
//! move the deadline, which is one word, and nothing more.
//!
//! To ask the units politely can take longer, so a second thread does that. Nothing waits for it.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::notify::{self, Notify};
use super::slice::Slice;
use crate::engine::guard::{Fence, HEARD_WITHIN, LOOK_EVERY, Stroke};
use crate::time::BootTime;

/// The fence began. Nothing leads back.
const STRUCK: u64 = 0;

/// Time alone does not begin the fence.
const NEVER: u64 = u64::MAX;

/// What the thread tells the rest of the guard, a byte each.
pub mod tells {
    /// The fence began.
    pub const STRUCK: u8 = b's';
    /// No process is left.
    pub const DEAD: u8 = b'd';
}

/// What the second thread is told.
mod asks {
    pub const IS_SYSTEMD_THERE: u8 = b'?';
    pub const TERMINATE: u8 = b't';
}

/// The deadline, as the rest of the guard has it in hand.
#[derive(Debug)]
pub struct Deadline {
    shared: Arc<Shared>,
    /// Wakes the thread.
    line: UnixStream,
}

#[derive(Debug)]
struct Shared {
    /// Nanoseconds since boot, or one of the constants above.
    at: AtomicU64,
    /// Whether systemd is known to have heard that the units are to stop.
    heard: AtomicBool,
}

/// What the thread needs.
#[derive(Debug)]
pub struct Switch {
    shared: Arc<Shared>,
    /// To and from the rest of the guard.
    line: UnixStream,
    timer: TimerFd,
    slice: Slice,
    notify: Notify,
    /// To the second thread.
    courtesy: UnixStream,
    kill_after: Duration,
}

/// Starts both threads. The other end of what the thread tells (see [`tells`]) comes with the
/// deadline.
///
/// # Errors
/// If there is no timer, socket or thread to be had.
pub fn start(
    at: Option<BootTime>,
    slice: Slice,
    notify: Notify,
    kill_after: Duration,
) -> io::Result<(Deadline, UnixStream)> {
    let (deadline, told, switch) = prepare(at, slice, notify, kill_after)?;
    thread::Builder::new().name("deadline".to_owned()).spawn(move || switch.run())?;
    Ok((deadline, told))
}

/// As [`start`], but leaves the running of the first thread to the caller.
///
/// # Errors
/// As of [`start`].
pub fn prepare(
    at: Option<BootTime>,
    slice: Slice,
    notify: Notify,
    kill_after: Duration,
) -> io::Result<(Deadline, UnixStream, Switch)> {
    let shared = Arc::new(Shared { at: AtomicU64::new(word(at)), heard: AtomicBool::new(false) });
    let (ours, line) = UnixStream::pair()?;
    line.set_nonblocking(true)?;
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
    let courtesy = start_courtesy(shared.clone(), slice.clone(), notify.try_clone()?)?;
    let deadline = Deadline { shared: shared.clone(), line: ours.try_clone()? };
    ours.set_nonblocking(true)?;
    Ok((deadline, ours, Switch { shared, line, timer, slice, notify, courtesy, kill_after }))
}

impl Deadline {
    /// Moves the deadline; `None` means that time alone does not begin the fence. Says whether there
    /// still is one: not if the fence began.
    pub fn set(&self, at: Option<BootTime>) -> bool {
        let new = word(at);
        let set = self
            .shared
            .at
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| (old != STRUCK).then_some(new));
        if set.is_ok_and(|old| new < old) {
            self.wake();
        }
        set.is_ok()
    }

    /// Begins the fence now. A deadline that passed is left as it is: the thread finds it, and knows
    /// how late it is.
    pub fn strike(&self, now: BootTime) {
        let due = self.shared.at.load(Ordering::SeqCst) <= word(Some(now));
        if !due {
            self.shared.at.store(STRUCK, Ordering::SeqCst);
        }
        self.wake();
    }

    /// Whether the fence began.
    #[must_use]
    pub fn is_struck(&self) -> bool {
        self.shared.at.load(Ordering::SeqCst) == STRUCK
    }

    fn wake(&self) {
        // A line that is full wakes it as well.
        let _full = (&self.line).write(b"w");
    }
}

impl Switch {
    /// Waits for the deadline, and fences. Returns when no process is left.
    pub fn run(mut self) {
        let late = self.wait();
        self.fence(late);
    }

    /// Waits until the deadline passed or somebody began the fence, and says how long after the
    /// deadline that is.
    fn wait(&mut self) -> Duration {
        loop {
            let at = self.shared.at.load(Ordering::SeqCst);
            if at == STRUCK {
                return Duration::ZERO;
            }
            let deadline = BootTime::from_duration(Duration::from_nanos(at));
            let now = BootTime::now();
            if at != NEVER && now >= deadline {
                // Whoever moved it meanwhile was in time.
                let taken =
                    self.shared.at.compare_exchange(at, STRUCK, Ordering::SeqCst, Ordering::SeqCst);
                if taken.is_ok() {
                    return now.since(deadline);
                }
                continue;
            }
            self.sleep(at);
        }
    }

    fn sleep(&mut self, at: u64) {
        let armed = if at == NEVER {
            self.timer.unset()
        } else {
            let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(at)));
            self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
        };
        // Without the timer it looks again and again, which is late by no more than that.
        let limit = if armed.is_ok() { PollTimeout::NONE } else { look_every() };
        let mut ready = [
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.line.as_fd(), PollFlags::POLLIN),
        ];
        let _interrupted = poll(&mut ready, limit);
        let woken = ready[1].any().unwrap_or(false);
        if woken && !matches!(self.line.read(&mut [0; 64]), Ok(1..)) {
            // The rest of the guard is gone, and the process with it in a moment.
            thread::sleep(LOOK_EVERY);
        }
    }

    fn fence(&mut self, late: Duration) {
        let mut fence = Fence::begin(BootTime::now(), late, self.kill_after);
        // Not to be heard is what the strokes are for.
        let _unheard = self.notify.say(notify::FENCE);
        let _full = self.courtesy.write(&[asks::IS_SYSTEMD_THERE]);
        let _full = self.line.write(&[tells::STRUCK]);
        loop {
            let now = BootTime::now();
            let heard = self.shared.heard.load(Ordering::SeqCst);
            match fence.stroke(now, self.slice.is_empty(), heard) {
                Stroke::Wait(until) => thread::sleep(until.since(now)),
                Stroke::Term => {
                    let _full = self.courtesy.write(&[asks::TERMINATE]);
                }
                // It is tried again until nothing is left.
                Stroke::Kill => {
                    let _again = self.slice.kill();
                }
                Stroke::Done => break,
            }
        }
        let _full = self.line.write(&[tells::DEAD]);
    }
}

/// [`LOOK_EVERY`] for `poll`.
fn look_every() -> PollTimeout {
    PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::ZERO)
}

fn word(at: Option<BootTime>) -> u64 {
    at.map_or(NEVER, |at| {
        u64::try_from(at.since_boot().as_nanos()).unwrap_or(NEVER).clamp(STRUCK + 1, NEVER - 1)
    })
}

/// Starts the thread that finds out whether systemd stops the units, and asks them itself if not.
fn start_courtesy(shared: Arc<Shared>, slice: Slice, notify: Notify) -> io::Result<UnixStream> {
    let (asking, mut asked) = UnixStream::pair()?;
    asking.set_nonblocking(true)?;
    thread::Builder::new().name("courtesy".to_owned()).spawn(move || {
        let mut question = [0];
        while matches!(asked.read(&mut question), Ok(1)) {
            match question[0] {
                asks::IS_SYSTEMD_THERE => {
                    shared.heard.store(notify.is_heard(HEARD_WITHIN), Ordering::SeqCst);
                }
                _ => match slice.terminate() {
                    Ok(asked) => tracing::warn!(asked, "systemd does not stop the units; SIGTERM"),
                    Err(error) => tracing::warn!(%error, "cannot send SIGTERM to the units"),
                },
            }
        }
    })?;
    Ok(asking)
}
