//! How often one thing may be told: a few times at once, then seldom, with what happened meanwhile
//! counted. So a group that flaps all night is one story, and not three hundred calls.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::settings::Severity;
use crate::time::BootTime;

/// So many alerts about one thing are sent as they come: it began, it was over, and both once more.
pub(super) const AT_ONCE: u32 = 4;

/// Things that are remembered. One that is forgotten is told at once.
const KEYS_MAX: usize = 10_000;

/// What was told lately, by the key of what it was about.
#[derive(Debug)]
pub(super) struct Stories {
    /// How long until a thing that was told too often may be told once more.
    within: Duration,
    told: BTreeMap<String, Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    /// Each telling moves it on by `within`, and it never is in the past: how far ahead of now it is
    /// says how much was told lately.
    ahead: BootTime,
    /// The worst that was told since it was last in the past.
    worst: Severity,
}

impl Stories {
    pub(super) const fn new(within: Duration) -> Self {
        Self { within, told: BTreeMap::new() }
    }

    /// Since when something about `key` may be told; it may be in the past.
    pub(super) fn from(&self, now: BootTime, key: &str, severity: Severity) -> BootTime {
        match self.told.get(key) {
            // Never was it as bad, so this is news.
            Some(told) if told.ahead > now && severity <= told.worst => {
                told.ahead - self.within * (AT_ONCE - 1)
            }
            _ => BootTime::ZERO,
        }
    }

    /// How many about `key` may be told at once.
    pub(super) fn left(&self, now: BootTime, key: &str) -> usize {
        if !self.is_on() {
            return usize::MAX;
        }
        let ahead = self.told.get(key).map_or(Duration::ZERO, |told| told.ahead.since(now));
        let told = ahead.as_millis().div_ceil(self.within.as_millis().max(1));
        let left = u128::from(AT_ONCE).saturating_sub(told);
        // Whatever is sent now, one is.
        usize::try_from(left).unwrap_or(usize::MAX).max(1)
    }

    pub(super) const fn is_on(&self) -> bool {
        !self.within.is_zero()
    }

    /// Notes that it was told.
    pub(super) fn note(&mut self, now: BootTime, key: &str, severity: Severity) {
        if !self.is_on() {
            return;
        }
        if self.told.len() >= KEYS_MAX {
            self.told.retain(|_, told| told.ahead > now);
        }
        if self.told.len() >= KEYS_MAX {
            return;
        }
        let told = self.told.entry(key.to_owned()).or_insert(Told { ahead: now, worst: severity });
        if told.ahead <= now {
            *told = Told { ahead: now, worst: severity };
        }
        // No further than a full account and one telling more, or an escalation of severity would
        // silence the thing for longer than it says.
        told.ahead = (told.ahead + self.within).min(now + self.within * AT_ONCE);
        told.worst = told.worst.max(severity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    /// When each of these is told, if they all want to be told as early as possible.
    fn told(stories: &mut Stories, wishes: &[(u64, Severity)]) -> Vec<u64> {
        let mut times = Vec::new();
        let mut now = at(0);
        for (wish, severity) in wishes {
            now = now.max(at(*wish)).max(stories.from(now.max(at(*wish)), "x", *severity));
            stories.note(now, "x", *severity);
            times.push(now.since_boot().as_secs());
        }
        times
    }

    #[test]
    fn four_at_once_then_one_in_so_long() {
        let mut stories = Stories::new(WITHIN);
        let wishes = [(1000, Severity::Warning); 7];
        assert_eq!(told(&mut stories, &wishes), [1000, 1000, 1000, 1000, 1600, 2200, 2800]);
        // After as long a time of quiet it may be told as often again.
        let wishes = [(2800 + 4 * 600, Severity::Warning); 5];
        assert_eq!(told(&mut stories, &wishes), [5200, 5200, 5200, 5200, 5800]);
        assert!(stories.from(at(5200), "another", Severity::Info) <= at(5200));
    }

    #[test]
    fn what_is_worse_than_before_is_told_at_once() {
        let mut stories = Stories::new(WITHIN);
        let mut wishes = [(1000, Severity::Warning); 7];
        wishes[5].1 = Severity::Critical;
        assert_eq!(told(&mut stories, &wishes), [1000, 1000, 1000, 1000, 1600, 1600, 2200]);
    }

    #[test]
    fn zero_tells_everything_and_remembers_nothing() {
        let mut stories = Stories::new(Duration::ZERO);
        assert_eq!(told(&mut stories, &[(5, Severity::Info); 50]), [5; 50]);
        assert!(stories.told.is_empty());
    }
}
