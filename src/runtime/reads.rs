//! When to read the store. One read serves all groups, one is under way at a time.

use std::time::Duration;

use crate::time::BootTime;

/// Pause after a read that failed, if the interval is longer: sight that was lost should come back
/// soon after the store does, without hammering a store in trouble.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Least time between two reads, whatever the groups ask for. A group asks again only when its
/// situation changed, so this is a bound on a mistake and not a pace.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// The schedule of reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    interval: Duration,
    last: Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Never,
    UnderWay,
    Good { sent: BootTime },
    Failed { ended: BootTime },
}

impl Reads {
    /// Nothing was read yet, so the first read is due now.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, last: Last::Never }
    }

    /// Goes on with another interval.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// When the next read is due, if the groups want one at `wanted`; `None` while one is under
    /// way.
    #[must_use]
    pub fn next(&self, wanted: Option<BootTime>) -> Option<BootTime> {
        match self.last {
            Last::Never => Some(BootTime::ZERO),
            Last::UnderWay => None,
            Last::Good { sent } => {
                let by_interval = sent + self.interval;
                let at = wanted.map_or(by_interval, |wanted| wanted.min(by_interval));
                Some(at.max(sent + LEAST_PAUSE))
            }
            Last::Failed { ended } => Some(ended + self.interval.min(RETRY_AFTER)),
        }
    }

    /// A read begins.
    pub fn begin(&mut self) {
        self.last = Last::UnderWay;
    }

    /// It was good.
    pub fn good(&mut self, sent: BootTime) {
        self.last = Last::Good { sent };
    }

    /// It was not.
    pub fn failed(&mut self, ended: BootTime) {
        self.last = Last::Failed { ended };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_duration(Duration::from_millis(millis))
    }

    #[test]
    fn a_read_is_made_by_the_interval_or_when_a_group_wants_one() {
        let mut reads = Reads::new(Duration::from_secs(10));
        assert_eq!(reads.next(None), Some(BootTime::ZERO));
        reads.begin();
        assert_eq!(reads.next(Some(at(5))), None, "one at a time");
        reads.good(at(1_000));
        assert_eq!(reads.next(None), Some(at(11_000)));
        assert_eq!(reads.next(Some(at(4_321))), Some(at(4_321)));
        assert_eq!(reads.next(Some(at(12_000))), Some(at(11_000)));
    }

    #[test]
    fn a_wish_in_the_past_does_not_spin() {
        let mut reads = Reads::new(Duration::from_secs(10));
        reads.good(at(1_000));
        assert_eq!(reads.next(Some(at(10))), Some(at(1_005)));
    }

    #[test]
    fn after_a_failure_it_is_tried_again_soon_but_not_at_once() {
        let mut reads = Reads::new(Duration::from_secs(10));
        reads.failed(at(1_000));
        assert_eq!(reads.next(Some(at(1_000))), Some(at(3_000)));
        reads.set_interval(Duration::from_secs(1));
        assert_eq!(reads.next(None), Some(at(2_000)));
    }
}
