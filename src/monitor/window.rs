//! The last samples of a check: rates, percentiles and growth.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::BootTime;

/// Samples of one window. At an interval of a second that is more than an hour; beyond it the oldest
/// go, and the window is shorter than configured.
const SAMPLES_MAX: usize = 4_096;

/// Points that are kept to tell growth by: one for each hundredth of the span.
const POINTS: u32 = 100;

/// What happened within a span of time, sample by sample.
#[derive(Clone, Debug, Default)]
pub struct Window {
    samples: VecDeque<(BootTime, f32, bool)>,
}

impl Window {
    /// Takes a sample in, and lets those go that are older than `span`.
    pub fn add(&mut self, now: BootTime, span: Duration, value: f64, good: bool) {
        while self.samples.len() >= SAMPLES_MAX
            || self.samples.front().is_some_and(|(at, _, _)| now.since(*at) > span)
        {
            self.samples.pop_front();
        }
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough here")]
        self.samples.push_back((now, value as f32, good));
    }

    /// How many samples it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// How many of them were good, in percent.
    #[must_use]
    pub fn success_percent(&self) -> Option<f64> {
        let good = self.samples.iter().filter(|(_, _, good)| *good).count();
        (!self.is_empty()).then(|| ratio(good, self.len()) * 100.0)
    }

    /// A percentile of the values of the good ones.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<f64> {
        let good = self.samples.iter().filter(|(_, _, good)| *good);
        let mut values: Vec<f64> = good.map(|(_, value, _)| f64::from(*value)).collect();
        values.sort_by(f64::total_cmp);
        percentile(&values, f64::from(percent))
    }
}

/// A percentile of sorted values, by the nearest rank.
#[must_use]
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    if sorted.is_empty() {
        return None;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is at most the length"
    )]
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len()) - 1).copied()
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// How a value changes over a span, at few points so that a day of it costs a kilobyte.
#[derive(Clone, Debug, Default)]
pub struct Course {
    points: VecDeque<(BootTime, f64)>,
}

impl Course {
    /// Takes a value in.
    pub fn add(&mut self, now: BootTime, span: Duration, value: f64) {
        let due = self.points.back().is_none_or(|(at, _)| now.since(*at) >= span / POINTS);
        if due {
            self.points.push_back((now, value));
        }
        // One that is as old as the span, or older, stays: it is what is compared with.
        while self.points.get(1).is_some_and(|(at, _)| now.since(*at) >= span) {
            self.points.pop_front();
        }
    }

    /// The change for each hour, and the same in percent of what it was, once the whole span was
    /// seen.
    #[must_use]
    pub fn growth(&self, now: BootTime, span: Duration, value: f64) -> Option<(f64, Option<f64>)> {
        let (at, then) = *self.points.front()?;
        let seen = now.since(at);
        if seen < span || seen.is_zero() {
            return None;
        }
        let hours = seen.as_secs_f64() / 3_600.0;
        let growth = (value - then) / hours;
        let relative = (then != 0.0).then(|| growth / then.abs() * 100.0);
        Some((growth, relative))
    }

    /// Forgets everything, after a gap.
    pub fn clear(&mut self) {
        self.points.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    const SPAN: Duration = Duration::from_secs(60);

    #[test]
    fn a_window_forgets_what_is_older_than_it() {
        let mut window = Window::default();
        window.add(at(0), SPAN, 1.0, false);
        window.add(at(60), SPAN, 2.0, true);
        assert_eq!(window.success_percent(), Some(50.0));
        window.add(at(61), SPAN, 3.0, true);
        assert_eq!((window.len(), window.success_percent()), (2, Some(100.0)));
        for second in 0..100_000 {
            window.add(at(second), Duration::from_secs(1 << 30), 0.0, true);
        }
        assert_eq!(window.len(), SAMPLES_MAX);
    }

    #[test]
    fn percentiles_are_by_nearest_rank_and_of_good_samples() {
        let mut window = Window::default();
        for value in (1_u32..=100).rev() {
            window.add(at(0), SPAN, f64::from(value), true);
        }
        window.add(at(0), SPAN, 9_999.0, false);
        assert_eq!(window.percentile(95), Some(95.0));
        assert_eq!(window.percentile(50), Some(50.0));
        assert_eq!(percentile(&[7.0], 1.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn growth_is_told_once_the_whole_span_was_seen() {
        let (mut course, hour) = (Course::default(), Duration::from_secs(3_600));
        course.add(at(0), hour, 100.0);
        assert_eq!(course.growth(at(3_599), hour, 110.0), None);
        assert_eq!(course.growth(at(3_600), hour, 110.0), Some((10.0, Some(10.0))));
        for second in 1..20_000 {
            course.add(at(second), hour, 100.0 + f64::from(u32::try_from(second).unwrap()));
        }
        assert!(course.points.len() <= 103, "{}", course.points.len());
        let (growth, _) = course.growth(at(20_000), hour, 20_100.0).unwrap();
        assert!((growth - 3_600.0).abs() < 40.0, "{growth}");
    }
}
