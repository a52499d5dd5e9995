//! The level of one check over time: not at the first bad sample, and not back at the first good one.
//!
//! ```text
//!            bad for `for`                      as good for `recover_for`
//!   Green ----------------> Yellow or Red ------------------------------> a better level
//! ```
//!
//! Every sample is judged by itself first, its *raw* level. The level becomes worse when all samples
//! of the span `for` were at least so bad, and better when all of the span `recover_for` were at
//! least so good. Samples that are too far apart prove nothing about the time between them: after a
//! gap the spans begin again.

use std::time::Duration;

use super::level::Level;
use super::measured::Measured;
use super::number;
use super::threshold::{Condition, Facts, Figure, Reference, Verdict};
use super::window::Course;
use crate::time::BootTime;

/// What decides about a check's level.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// When it is yellow.
    pub warning: Option<Condition>,
    /// When it is red.
    pub critical: Option<Condition>,
    /// How long it must be bad before it is called so.
    pub sustain: Duration,
    /// How long it must be better before it is called so.
    pub recover: Duration,
    /// How far on the good side of a bound it must be for that, in percent of the bound.
    pub margin: f64,
    /// What it is if it cannot be measured; `None` leaves it as it was.
    pub on_fault: Option<Level>,
    /// Over what span growth is told.
    pub growth_over: Duration,
    /// Two samples that are further apart say nothing about the time between them.
    pub gap: Duration,
    /// What stands behind the number.
    pub suffix: String,
}

/// A check's level became another.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What it was.
    pub from: Level,
    /// What it is.
    pub to: Level,
    /// Why, in one line.
    pub text: String,
}

/// The last sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    /// When it was taken.
    pub at: BootTime,
    /// Its number, if it has one.
    pub value: Option<f64>,
    /// How it was judged by itself.
    pub raw: Level,
    /// In one line.
    pub text: String,
    /// Further lines.
    pub details: Vec<String>,
    /// Whether it could not be measured.
    pub fault: bool,
    /// Change for each hour, and in percent, if that is known.
    pub growth: Option<(f64, Option<f64>)>,
}

/// One check over time.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    level: Level,
    since: BootTime,
    /// Since when all samples were at least yellow, and at least red.
    worse: [Option<BootTime>; 2],
    /// Since when all samples were at most green, and at most yellow.
    better: [Option<BootTime>; 2],
    course: Course,
    last: Option<Last>,
}

/// Looks up a figure of the baseline or of the start of a watch.
pub type Figures<'a> = &'a dyn Fn(Reference, Figure) -> Option<f64>;

impl Tracker {
    /// One that was at this level when an earlier process told people of it.
    #[must_use]
    pub fn told(level: Level, now: BootTime) -> Self {
        Self { level, since: now, ..Self::default() }
    }

    /// How it is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> BootTime {
        self.since
    }

    /// The last sample.
    #[must_use]
    pub fn last(&self) -> Option<&Last> {
        self.last.as_ref()
    }

    /// What it will become if the samples stay as they are, and when.
    #[must_use]
    pub fn pending(&self, rule: &Rule) -> Option<(Level, BootTime)> {
        let [yellow, red] = self.worse;
        let worse = [(Level::Red, red), (Level::Yellow, yellow)];
        let worse = worse.into_iter().find_map(|(level, since)| {
            Some((level, since? + rule.sustain)).filter(|(level, _)| *level > self.level)
        });
        let [green, yellow] = self.better;
        let better = [(Level::Green, green), (Level::Yellow, yellow)];
        let better = better.into_iter().find_map(|(level, since)| {
            Some((level, since? + rule.recover)).filter(|(level, _)| *level < self.level)
        });
        worse.or(better)
    }

    /// Takes in what a probe found, or why it found nothing.
    pub fn observe(
        &mut self,
        now: BootTime,
        found: Result<Measured, String>,
        rule: &Rule,
        figures: Figures<'_>,
    ) -> Option<Change> {
        if self.last.as_ref().is_some_and(|last| now.since(last.at) > rule.gap) {
            self.worse = [None; 2];
            self.better = [None; 2];
            self.course.clear();
        }
        let last = self.judge(now, found, rule, figures);
        let raw = last.raw;
        self.last = Some(last);
        if raw == Level::Unknown {
            // It neither proves that it is bad nor that it is good.
            return None;
        }
        self.count(now, raw);
        let to = self.due(now, rule);
        if to == self.level {
            return None;
        }
        let from = std::mem::replace(&mut self.level, to);
        self.since = now;
        let text = self.last.as_ref().map(|last| last.text.clone()).unwrap_or_default();
        Some(Change { from, to, text })
    }

    fn judge(
        &mut self,
        now: BootTime,
        found: Result<Measured, String>,
        rule: &Rule,
        figures: Figures<'_>,
    ) -> Last {
        let measured = match found {
            Ok(measured) => measured.bounded(),
            Err(text) => {
                return Last {
                    at: now,
                    value: None,
                    raw: rule.on_fault.unwrap_or(Level::Unknown),
                    text: super::measured::one_line(&text),
                    details: Vec::new(),
                    fault: true,
                    growth: None,
                };
            }
        };
        let Measured { value, level, text, details } = measured;
        let mut last =
            Last { at: now, value, raw: Level::Unknown, text, details, fault: false, growth: None };
        let by_value = value.map(|value| {
            self.course.add(now, rule.growth_over, value);
            last.growth = self.course.growth(now, rule.growth_over, value);
            let facts = Facts { value, growth: last.growth, figure: figures };
            let (raw, why) = self.compare(&facts, rule);
            let shown = number::show(value, &rule.suffix);
            let apart = if last.text.is_empty() { "" } else { ": " };
            last.text = format!("{shown}{why}{apart}{}", last.text);
            raw
        });
        // What a plugin says by itself counts as well as what its number is.
        last.raw = by_value.max(level).unwrap_or(Level::Unknown);
        last
    }

    /// The raw level of a value, and which condition made it so.
    fn compare(&self, facts: &Facts<'_>, rule: &Rule) -> (Level, String) {
        let mut unknown = false;
        for (level, condition) in [(Level::Red, &rule.critical), (Level::Yellow, &rule.warning)] {
            let Some(condition) = condition else { continue };
            let margin = if self.level >= level { rule.margin } else { 0.0 };
            match condition.judge(facts, margin) {
                Verdict::Holds => return (level, format!(" ({condition})")),
                Verdict::Unknown => unknown = true,
                Verdict::Fails => {}
            }
        }
        let why = if unknown { " (what it is compared with is not known yet)" } else { "" };
        (Level::Green, why.to_owned())
    }

    fn count(&mut self, now: BootTime, raw: Level) {
        for (since, level) in self.worse.iter_mut().zip([Level::Yellow, Level::Red]) {
            *since = (raw >= level).then(|| since.unwrap_or(now));
        }
        for (since, level) in self.better.iter_mut().zip([Level::Green, Level::Yellow]) {
            *since = (raw <= level).then(|| since.unwrap_or(now));
        }
    }

    fn due(&self, now: BootTime, rule: &Rule) -> Level {
        let past = |since: Option<BootTime>, span| since.is_some_and(|at| now.since(at) >= span);
        let [yellow, red] = self.worse;
        let worst = match () {
            () if past(red, rule.sustain) => Level::Red,
            () if past(yellow, rule.sustain) => Level::Yellow,
            () => Level::Green,
        };
        if worst > self.level {
            return worst;
        }
        let [green, yellow] = self.better;
        let best = match () {
            () if past(green, rule.recover) => Level::Green,
            () if past(yellow, rule.recover) => Level::Yellow,
            () => Level::Red,
        };
        best.min(self.level)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    fn rule(sustain: u64, recover: u64) -> Rule {
        Rule {
            warning: Some(Condition::parse("> 80").unwrap()),
            critical: Some(Condition::parse("> 90").unwrap()),
            sustain: Duration::from_secs(sustain),
            recover: Duration::from_secs(recover),
            margin: 0.0,
            on_fault: Some(Level::Red),
            growth_over: Duration::from_secs(3_600),
            gap: Duration::from_secs(25),
            suffix: "%".to_owned(),
        }
    }

    /// Feeds a value every 10 s and says the levels.
    fn levels(rule: &Rule, values: &[f64]) -> Vec<Level> {
        let mut tracker = Tracker::default();
        let feed = |(index, value): (u64, &f64)| {
            let found = Ok(Measured::number(*value));
            tracker.observe(at(index * 10), found, rule, &|_, _| None);
            tracker.level()
        };
        (0..).zip(values).map(feed).collect()
    }

    #[test]
    fn a_level_begins_when_it_has_lasted_and_not_a_sample_before() {
        use Level::{Green, Red, Yellow};
        let found = levels(&rule(20, 0), &[50.0, 95.0, 95.0, 95.0, 85.0, 50.0]);
        assert_eq!(found, [Green, Green, Green, Red, Yellow, Green]);
        // Yellow first, as it lasts longer than red.
        let found = levels(&rule(20, 0), &[85.0, 95.0, 95.0, 95.0]);
        assert_eq!(found, [Green, Green, Yellow, Red]);
        // One good sample begins the span again.
        let found = levels(&rule(20, 0), &[95.0, 95.0, 50.0, 95.0, 95.0]);
        assert_eq!(found, [Green; 5]);
    }

    #[test]
    fn a_level_ends_when_it_is_better_for_long_enough() {
        use Level::{Green, Red, Yellow};
        let found = levels(&rule(0, 20), &[95.0, 50.0, 95.0, 50.0, 50.0, 50.0]);
        assert_eq!(found, [Red, Red, Red, Red, Red, Green]);
        let found = levels(&rule(0, 20), &[95.0, 85.0, 50.0, 50.0, 50.0]);
        assert_eq!(found, [Red, Red, Red, Yellow, Green]);
    }

    #[test]
    fn a_margin_keeps_a_value_at_the_bound_from_flapping() {
        use Level::{Red, Yellow};
        let mut with_margin = rule(0, 0);
        with_margin.margin = 5.0;
        assert_eq!(levels(&with_margin, &[91.0, 89.0, 91.0, 85.0]), [Red, Red, Red, Yellow]);
    }

    #[test]
    fn what_happened_in_a_gap_is_not_made_up() {
        let rule = rule(20, 0);
        let mut tracker = Tracker::default();
        for second in [0, 10, 40] {
            let found = Ok(Measured::number(95.0));
            assert_eq!(
                tracker.observe(at(second), found, &rule, &|_, _| None).is_some(),
                second == 0
            );
        }
        assert_eq!(tracker.level(), Level::Green);
        assert_eq!(tracker.pending(&rule), Some((Level::Red, at(60))));
    }

    #[test]
    fn what_cannot_be_measured_is_as_configured() {
        let fault = || Err("connection refused".to_owned());
        let mut tracker = Tracker::default();
        let change = tracker.observe(at(0), fault(), &rule(0, 0), &|_, _| None).unwrap();
        assert_eq!((change.from, change.to), (Level::Unknown, Level::Red));
        assert_eq!(change.text, "connection refused");
        let keep = Rule { on_fault: None, ..rule(0, 0) };
        let mut tracker = Tracker::default();
        assert_eq!(tracker.observe(at(0), fault(), &keep, &|_, _| None), None);
        assert_eq!(tracker.level(), Level::Unknown);
        assert!(tracker.last().unwrap().fault);
    }

    #[test]
    fn a_plugin_and_its_number_both_count() {
        let found = |value, level| {
            let mut tracker = Tracker::default();
            let measured = Measured { value, level, text: "load".to_owned(), details: Vec::new() };
            tracker.observe(at(0), Ok(measured), &rule(0, 0), &|_, _| None);
            (tracker.level(), tracker.last().unwrap().text.clone())
        };
        assert_eq!(found(Some(50.0), Some(Level::Red)), (Level::Red, "50 %: load".to_owned()));
        let text = "95 % (> 90): load".to_owned();
        assert_eq!(found(Some(95.0), Some(Level::Green)), (Level::Red, text));
        assert_eq!(found(None, None).0, Level::Unknown);
    }

    proptest! {
        /// However it comes and goes: with nothing sustained, nothing is called; the level is never
        /// worse than the worst nor better than the best of what was seen.
        #[test]
        fn a_level_is_always_one_that_was_seen(
            values in proptest::collection::vec(0.0..100.0_f64, 1..60),
            sustain in 0_u64..40, recover in 0_u64..40,
        ) {
            let raw = |value: &f64| match value {
                v if *v > 90.0 => Level::Red,
                v if *v > 80.0 => Level::Yellow,
                _ => Level::Green,
            };
            let found = levels(&rule(sustain, recover), &values);
            let worst = values.iter().map(raw).max().unwrap();
            prop_assert!(found.iter().all(|level| *level <= worst && *level != Level::Unknown));
            if sustain == 0 && recover == 0 {
                let raws: Vec<_> = values.iter().map(raw).collect();
                prop_assert_eq!(found, raws);
            }
        }
    }
}
