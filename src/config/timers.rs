//! How long what takes in paired mode, and what follows from it.
//!
//! A holder renews its lease. From the moment at which it *sent* the last renewal that was granted,
//! it has a budget: [`PairedTimers::dead_by`] later its units are dead, whether its guard acts in
//! time, hangs or dies. Who wants the group watches the lease without a change for
//! [`PairedTimers::window`], which is longer than that budget by any clock that is allowed here.
//!
//! Clocks of hosts need not agree on the time, but on how long a second is, to a tenth: chrony may
//! slew a clock by 8.3 %, the kernel by 10 %. So what is measured by a local clock is divided by 0.9
//! or multiplied by 1.1 wherever it meets another host.

use std::time::Duration;

/// Between the deadline of the guard and the instant at which its thread does run: real time on a
/// host that is busy, not one that is out of order.
const LATENESS: Duration = Duration::from_millis(500);

/// From the death of the guard to systemd's first signal to the units.
const NOTICE: Duration = Duration::from_millis(500);

/// What the watchdog leaves the guard to fence by itself.
const WATCHDOG_MARGIN: Duration = Duration::from_secs(1);

/// The last part of a stop is for `cgroup.kill`, which takes some 25 ms for what ignored SIGTERM; the
/// rest is a busy host.
const KILL_PART_MAX: Duration = Duration::from_secs(1);

/// The timers of paired mode, valid as they are: see [`PairedTimers::least_fence_after`] and
/// [`PairedTimers::largest_gap_fits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairedTimers {
    /// R: time between two renewals, and the longest between two reads of the store.
    pub renew: Duration,
    /// F: the holder begins to fence itself so long after it sent the last renewal that was granted.
    pub fence_after: Duration,
    /// S: from the begin of fencing until the units are verified dead.
    pub stop_within: Duration,
    /// `P_max`: the longest pause of a virtual machine that its own clocks do not see.
    pub pause_max: Duration,
}

impl Default for PairedTimers {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(2),
            fence_after: Duration::from_secs(10),
            stop_within: Duration::from_secs(5),
            pause_max: Duration::ZERO,
        }
    }
}

impl PairedTimers {
    /// Q: how long one renewal may take before it counts as failed. Three quarters of `renew`.
    #[must_use]
    pub fn renew_timeout(&self) -> Duration {
        self.renew * 3 / 4
    }

    /// `W_d`: `WatchdogSec=` of the guard. It is fed when a renewal was granted, which is no earlier
    /// than the renewal was sent, so that a guard that works fences before its watchdog does:
    /// `watchdog > fence_after + lateness`. The fence feeds it once more.
    #[must_use]
    pub fn watchdog(&self) -> Duration {
        self.fence_after + LATENESS + WATCHDOG_MARGIN
    }

    /// From the begin of fencing until what did not obey SIGTERM is killed. The rest of
    /// `stop_within`, a quarter of it or a second, is for that.
    #[must_use]
    pub fn kill_after(&self) -> Duration {
        self.stop_within - (self.stop_within / 4).min(KILL_PART_MAX)
    }

    /// E: so long after the store granted a renewal, in real time, no unit of the holder is alive, if
    /// that was the last one. Whichever is later of the guard's own fence,
    /// `fence_after / 0.9 + lateness + stop_within`, and that of the watchdog over a guard that hangs,
    /// `(renew_timeout + watchdog) / 0.9 + notice + stop_within`: what is granted within
    /// `renew_timeout` feeds it. Whole milliseconds.
    ///
    /// A guard that hangs in the middle of its fence adds nothing: systemd was told at its begin, and
    /// stops the units within `notice + stop_within` by itself.
    #[must_use]
    pub fn dead_by(&self) -> Duration {
        let guard = by_the_slowest_clock(self.fence_after) + LATENESS + self.stop_within;
        let watchdog = by_the_slowest_clock(self.renew_timeout() + self.watchdog())
            + NOTICE
            + self.stop_within;
        up_to(guard.max(watchdog) + self.pause_max, Duration::from_millis(1))
    }

    /// W: how long the lease and the heartbeats must be silent before another node may take the group:
    /// at least `1.1 x dead_by`, in tenths of a second.
    #[must_use]
    pub fn window(&self) -> Duration {
        window_for(self.dead_by())
    }

    /// G: the longest gap between two good reads within one window. After a longer one it starts
    /// again.
    #[must_use]
    pub fn largest_gap(&self) -> Duration {
        self.renew * 3 + self.renew_timeout()
    }

    /// The least that `fence_after` may be: four attempts to renew, `4 x renew + renew_timeout`, so
    /// that one lost packet or one slow commit stops nobody.
    #[must_use]
    pub fn least_fence_after(&self) -> Duration {
        self.renew * 4 + self.renew_timeout()
    }

    /// Whether a window holds at least two gaps, without which it would prove little:
    /// `largest_gap < window / 2`.
    #[must_use]
    pub fn largest_gap_fits(&self) -> bool {
        self.largest_gap() < self.window() / 2
    }

    /// The least cooldown: three windows, as between two failovers there is one, and a failover.
    #[must_use]
    pub fn least_cooldown(&self) -> Duration {
        self.window() * 3
    }
}

/// How long an observer must see silence of a holder that is dead by `dead_by` after its last
/// renewal. The holder's budget is in the lease, as it may have other timers.
#[must_use]
pub fn window_for(dead_by: Duration) -> Duration {
    up_to(dead_by * 11 / 10, Duration::from_millis(100))
}

/// How long it may be, in real time, until a clock that is a tenth slow has counted `local`.
fn by_the_slowest_clock(local: Duration) -> Duration {
    up_to(local * 10, Duration::from_nanos(9)) / 9
}

/// `span`, rounded up to a multiple of `unit`.
fn up_to(span: Duration, unit: Duration) -> Duration {
    let whole = span.as_nanos().div_ceil(unit.as_nanos()) * unit.as_nanos();
    Duration::from_nanos(u64::try_from(whole).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_defaults_are_those_of_the_proof() {
        let timers = PairedTimers::default();
        assert_eq!(timers.renew_timeout(), 1500 * MS);
        assert_eq!(timers.watchdog(), 11_500 * MS);
        assert_eq!(timers.kill_after(), 4000 * MS);
        assert_eq!(timers.dead_by(), 19_945 * MS);
        assert_eq!(timers.window(), 22_000 * MS);
        assert_eq!(timers.largest_gap(), 7500 * MS);
        assert_eq!(timers.least_fence_after(), 9500 * MS);
        assert_eq!(timers.least_cooldown(), 66_000 * MS);
        assert!(timers.largest_gap_fits());
    }

    #[test]
    fn a_pause_of_the_machine_is_added_to_the_budget() {
        let timers = PairedTimers { pause_max: 3000 * MS, ..PairedTimers::default() };
        assert_eq!(timers.dead_by(), 22_945 * MS);
        assert_eq!(timers.window(), 25_300 * MS);
    }

    #[test]
    fn a_short_stop_keeps_most_of_it_for_the_polite_part() {
        let timers = PairedTimers { stop_within: 2000 * MS, ..PairedTimers::default() };
        assert_eq!(timers.kill_after(), 1500 * MS);
    }

    /// Whatever the configuration lets through, the inequalities of the proof hold.
    #[test]
    fn what_the_proof_needs_follows_from_the_definitions() {
        let spans = [1, 100, 333, 1999, 2000, 7777, 60_000, 600_000];
        for (renew, fence, stop, pause) in every_four(&spans) {
            let timers = PairedTimers {
                renew: renew * MS,
                fence_after: fence * MS,
                stop_within: stop * MS,
                pause_max: pause * MS,
            };
            assert!(timers.watchdog() > timers.fence_after + LATENESS, "{timers:?}");
            let fenced_by_watchdog = timers.renew_timeout() + timers.watchdog();
            assert!(timers.window() * 10 >= timers.dead_by() * 11, "{timers:?}");
            let guard = timers.dead_by() - timers.stop_within - timers.pause_max - LATENESS;
            assert!(guard * 9 >= timers.fence_after * 10, "{timers:?}");
            let watchdog = timers.dead_by() - timers.stop_within - timers.pause_max - NOTICE;
            assert!(watchdog * 9 >= fenced_by_watchdog * 10, "{timers:?}");
            assert!(timers.kill_after() < timers.stop_within, "{timers:?}");
        }
    }

    /// Every combination of four.
    fn every_four(spans: &[u32]) -> impl Iterator<Item = (u32, u32, u32, u32)> {
        let each = move || spans.iter().copied();
        each().flat_map(move |a| {
            each().flat_map(move |b| each().flat_map(move |c| each().map(move |d| (a, b, c, d))))
        })
    }
}
