//! When a value is too high, too low, too far from its baseline, or growing too fast.
//!
//! ```text
//! condition = test { " or " test }
//! test      = [ "growth" ] compare bound
//! compare   = ">" | ">=" | "<" | "<=" | "==" | "!="
//! bound     = number [ "%" ] | ( "baseline" | "start" ) [ "." figure ] [ shift ]
//! shift     = ( "+" | "-" ) number [ "%" | "sd" ]
//! figure    = "mean" | "min" | "max" | "p1" … "p99"
//! ```
//!
//! `growth` is the change over an hour; with a percent sign, in percent of what it was. `baseline`
//! is what was saved of the check by `understudy baseline save`, its mean unless a figure is named;
//! `start` is what it was when the watch began. `sd` are standard deviations of the same.

use std::fmt;

use super::number;

/// Tests joined by "or". Nobody can tell a longer one at three in the morning.
const TESTS_MAX: usize = 8;

/// A level's condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    tests: Vec<Test>,
}

#[derive(Clone, Debug, PartialEq)]
struct Test {
    subject: Subject,
    compare: Compare,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Value,
    Growth,
    /// In percent of what it was.
    RelativeGrowth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Number(f64),
    Reference { of: Reference, figure: Figure, shift: Shift },
}

/// How far from a figure of a reference.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shift {
    By(f64),
    Percent(f64),
    Deviations(f64),
}

/// What a value is compared with besides a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// What was saved.
    Baseline,
    /// What it was when a watch began.
    Start,
}

/// Which figure of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The mean.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The standard deviation.
    Deviation,
    /// A percentile, 1 to 99.
    Percentile(u8),
}

/// A value and what is known besides it.
pub struct Facts<'a> {
    /// The value.
    pub value: f64,
    /// Its change over an hour, and the same in percent; absent until enough of it was seen.
    pub growth: Option<(f64, Option<f64>)>,
    /// Looks up a figure of a baseline or of the start of a watch.
    pub figure: &'a dyn Fn(Reference, Figure) -> Option<f64>,
}

/// What a condition says to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// It cannot be told, as something that it compares with is not known.
    Unknown,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(" or ").collect();
        if parts.len() > TESTS_MAX {
            return Err(format!("at most {TESTS_MAX} tests can be joined by \"or\""));
        }
        let tests = parts.into_iter().map(Test::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.split_whitespace().collect::<Vec<_>>().join(" "), tests })
    }

    /// Judges a value. `margin` is how far, in percent of a bound, the value must be on the good
    /// side of it to be let go; zero where the condition does not hold already.
    #[must_use]
    pub fn judge(&self, facts: &Facts<'_>, margin: f64) -> Verdict {
        let mut verdict = Verdict::Fails;
        for test in &self.tests {
            match test.judge(facts, margin) {
                Verdict::Holds => return Verdict::Holds,
                Verdict::Unknown => verdict = Verdict::Unknown,
                Verdict::Fails => {}
            }
        }
        verdict
    }

    /// Whether it compares with that.
    #[must_use]
    pub fn refers_to(&self, reference: Reference) -> bool {
        self.tests.iter().any(|test| match test.bound {
            Bound::Reference { of, .. } => of == reference,
            Bound::Number(_) => false,
        })
    }

    /// Whether it looks at growth.
    #[must_use]
    pub fn needs_growth(&self) -> bool {
        self.tests.iter().any(|test| test.subject != Subject::Value)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Test {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (growth, text) = match text.strip_prefix("growth") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        // Longer ones first, as one begins like another.
        let compares = [
            (">=", Compare::AtLeast),
            ("<=", Compare::AtMost),
            ("==", Compare::Equal),
            ("!=", Compare::Unequal),
            (">", Compare::Above),
            ("<", Compare::Below),
        ];
        let (compare, rest) = compares
            .into_iter()
            .find_map(|(sign, compare)| Some((compare, text.strip_prefix(sign)?)))
            .ok_or_else(|| wrong().to_owned())?;
        let rest = rest.trim();
        let bound = Bound::parse(rest)?;
        let subject = match growth {
            false => Subject::Value,
            true if rest.ends_with('%') => Subject::RelativeGrowth,
            true => Subject::Growth,
        };
        if growth && !matches!(bound, Bound::Number(_)) {
            return Err("growth is compared with a number, like \"growth > 5%\"".to_owned());
        }
        Ok(Self { subject, compare, bound })
    }

    fn judge(&self, facts: &Facts<'_>, margin: f64) -> Verdict {
        let value = match self.subject {
            Subject::Value => Some(facts.value),
            Subject::Growth => facts.growth.map(|(absolute, _)| absolute),
            Subject::RelativeGrowth => facts.growth.and_then(|(_, relative)| relative),
        };
        let bound = match self.bound {
            Bound::Number(number) => Some(number),
            Bound::Reference { of, figure, shift } => {
                let base = (facts.figure)(of, figure);
                let shift = base.and_then(|base| match shift {
                    Shift::By(size) => Some(size),
                    Shift::Percent(percent) => Some(base.abs() * percent / 100.0),
                    Shift::Deviations(count) => {
                        Some((facts.figure)(of, Figure::Deviation)? * count)
                    }
                });
                base.zip(shift).map(|(base, shift)| base + shift)
            }
        };
        let (Some(value), Some(bound)) = (value, bound) else { return Verdict::Unknown };
        let slack = bound.abs() * margin / 100.0;
        let holds = match self.compare {
            Compare::Above => value > bound - slack,
            Compare::AtLeast => value >= bound - slack,
            Compare::Below => value < bound + slack,
            Compare::AtMost => value <= bound + slack,
            Compare::Equal => same(value, bound),
            Compare::Unequal => !same(value, bound),
        };
        if holds { Verdict::Holds } else { Verdict::Fails }
    }
}

/// Equal but for what computing in floats makes of it.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= f64::EPSILON * a.abs().max(b.abs()).max(1.0)
}

impl Bound {
    fn parse(text: &str) -> Result<Self, String> {
        let references = [("baseline", Reference::Baseline), ("start", Reference::Start)];
        let found = references
            .into_iter()
            .find_map(|(word, reference)| Some((reference, text.strip_prefix(word)?)));
        let Some((of, rest)) = found else {
            return number::parse(text).map(Self::Number).ok_or_else(|| wrong().to_owned());
        };
        let (figure, rest) = match rest.strip_prefix('.') {
            None => (Figure::Mean, rest),
            Some(rest) => {
                let end = rest.find(|char: char| !char.is_ascii_alphanumeric());
                let (word, rest) = rest.split_at(end.unwrap_or(rest.len()));
                (Figure::parse(word)?, rest)
            }
        };
        let rest = rest.trim();
        let mut shift = Shift::By(0.0);
        if !rest.is_empty() {
            let (sign, amount) = match (rest.strip_prefix('+'), rest.strip_prefix('-')) {
                (Some(amount), _) => (1.0, amount),
                (_, Some(amount)) => (-1.0, amount),
                (None, None) => return Err(wrong().to_owned()),
            };
            let amount = amount.trim();
            let (amount, shift_by): (&str, fn(f64) -> Shift) = match amount.strip_suffix("sd") {
                Some(count) => (count, Shift::Deviations),
                None if amount.ends_with('%') => (amount, Shift::Percent),
                None => (amount, Shift::By),
            };
            shift = shift_by(number::parse(amount).ok_or_else(|| wrong().to_owned())? * sign);
        }
        Ok(Self::Reference { of, figure, shift })
    }
}

impl Figure {
    fn parse(word: &str) -> Result<Self, String> {
        let percentile = || {
            let number: u8 = word.strip_prefix('p')?.parse().ok()?;
            (1..=99).contains(&number).then_some(Self::Percentile(number))
        };
        match word {
            "mean" => Ok(Self::Mean),
            "min" => Ok(Self::Min),
            "max" => Ok(Self::Max),
            _ => percentile().ok_or_else(|| {
                "after the dot write mean, min, max or a percentile from p1 to p99".to_owned()
            }),
        }
    }
}

const fn wrong() -> &'static str {
    "not a condition; write it like \"> 80\", \"< 50 or > 65\", \"> 1.5GiB\", \"> baseline + 3sd\", \
     \"> baseline.p95\" or \"growth > 5%\" (for each hour)"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(condition: &str, value: f64) -> Verdict {
        let facts = Facts {
            value,
            growth: Some((10.0, Some(4.0))),
            figure: &|of, figure| match (of, figure) {
                (Reference::Baseline, Figure::Mean) => Some(100.0),
                (Reference::Baseline, Figure::Percentile(95)) => Some(150.0),
                (Reference::Baseline, Figure::Deviation) => Some(5.0),
                _ => None,
            },
        };
        Condition::parse(condition).unwrap().judge(&facts, 0.0)
    }

    #[test]
    fn each_side_of_each_bound() {
        for (condition, below, at, above) in [
            ("> 50", false, false, true),
            (">= 50", false, true, true),
            ("< 50", true, false, false),
            ("<= 50", true, true, false),
            ("== 50", false, true, false),
            ("!= 50", true, false, true),
            ("< 49.5 or > 50", true, false, true),
            ("> baseline - 50%", false, false, true),
            ("<baseline-50", true, false, false),
            ("> baseline.p95 - 100", false, false, true),
            ("< baseline - 10sd or > baseline + 2 sd", true, false, false),
        ] {
            for (value, holds) in [(49.0, below), (50.0, at), (51.0, above)] {
                let expected = if holds { Verdict::Holds } else { Verdict::Fails };
                assert_eq!(judge(condition, value), expected, "{value} {condition}");
            }
        }
    }

    #[test]
    fn growth_is_absolute_or_in_percent() {
        assert_eq!(judge("growth > 9", 0.0), Verdict::Holds);
        assert_eq!(judge("growth > 11", 0.0), Verdict::Fails);
        assert_eq!(judge("growth > 3%", 0.0), Verdict::Holds);
        assert_eq!(judge("growth > 5%", 0.0), Verdict::Fails);
    }

    #[test]
    fn what_is_not_known_does_not_hold_and_does_not_fail() {
        assert_eq!(judge("> start + 30%", 0.0), Verdict::Unknown);
        assert_eq!(judge("> start or > 5", 6.0), Verdict::Holds);
        assert_eq!(judge("> baseline.p50 or > 5", 4.0), Verdict::Unknown);
    }

    #[test]
    fn a_margin_holds_on_to_what_was_let_in() {
        let condition = Condition::parse("> 90 or < 10").unwrap();
        let facts = |value| Facts { value, growth: None, figure: &|_, _| None };
        assert_eq!(condition.judge(&facts(86.0), 0.0), Verdict::Fails);
        assert_eq!(condition.judge(&facts(86.0), 5.0), Verdict::Holds);
        assert_eq!(condition.judge(&facts(85.0), 5.0), Verdict::Fails);
        assert_eq!(condition.judge(&facts(10.4), 5.0), Verdict::Holds);
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in [
            "",
            "80",
            ">",
            "> x",
            "=> 5",
            "> 5 or",
            "or > 5",
            "> 5 and < 3",
            "> baseline * 2",
            "> baseline.p0",
            "> baseline.p100",
            "> baseline.median",
            "> baseline +",
            "growth 5%",
            "growth > baseline",
            "> 1 or > 1 or > 1 or > 1 or > 1 or > 1 or > 1 or > 1 or > 1",
        ] {
            assert!(Condition::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_condition_or_a_fault(text in ".*") {
            if let Ok(condition) = Condition::parse(&text) {
                prop_assert_eq!(Condition::parse(&condition.to_string()), Ok(condition));
            }
        }
    }
}
