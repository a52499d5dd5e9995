//! All checks together: groups, the score and its band. Also the schema of `understudy health --json`
//! and of the files that `understudy check --save` writes.
//!
//! **The score** is the weighted mean of the checks: green counts 100, yellow 50, red 0, each with
//! its `weight` (1 unless configured). A check that was not measured yet, or whose weight is 0,
//! does not count. A score is a figure for the course of days; what needs a person is said by the
//! levels, as one red check among five hundred green ones hardly moves the score.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::level::Level;

/// Version of this schema. Fields are only ever added; it grows if one changes its meaning.
pub const VERSION: u32 = 1;

/// What a score is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Band {
    /// Below 50.
    Critical,
    /// 50 to below 70.
    Degraded,
    /// 70 to below 90.
    Good,
    /// 90 and more.
    Excellent,
}

impl Band {
    /// The band of a score.
    #[must_use]
    pub fn of(score: f64) -> Self {
        match score {
            score if score >= 90.0 => Self::Excellent,
            score if score >= 70.0 => Self::Good,
            score if score >= 50.0 => Self::Degraded,
            _ => Self::Critical,
        }
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Degraded => "degraded",
            Self::Good => "good",
            Self::Excellent => "excellent",
        }
    }
}

/// The node at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Version of this schema.
    pub version: u32,
    /// Name of the node.
    pub node: String,
    /// When (RFC 3339).
    pub at: String,
    /// The worst level of all checks.
    pub level: Level,
    /// 0 to 100; absent while nothing was measured.
    pub score: Option<f64>,
    /// What the score is called.
    pub band: Option<Band>,
    /// The groups, by name.
    pub groups: Vec<Group>,
    /// The checks, in the order of the configuration.
    pub checks: Vec<Check>,
}

/// Checks that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Name.
    pub name: String,
    /// The worst level of its checks.
    pub level: Level,
    /// As that of the node, of its own checks.
    pub score: Option<f64>,
    /// How many checks are at which level.
    pub green: usize,
    /// See `green`.
    pub yellow: usize,
    /// See `green`.
    pub red: usize,
    /// See `green`; not measured yet.
    pub unknown: usize,
}

/// One check at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Name, with the item of its list behind a slash if it has one.
    pub name: String,
    /// Group.
    pub group: String,
    /// Kind, such as `postgres`.
    pub kind: String,
    /// Level.
    pub level: Level,
    /// For how long it has had it, in milliseconds; absent if it was not measured yet.
    pub since_ms: Option<u64>,
    /// The last number.
    pub value: Option<f64>,
    /// What stands behind the number.
    pub suffix: String,
    /// The last sample in one line.
    pub text: String,
    /// Further lines.
    pub details: Vec<String>,
    /// Whether the last attempt to measure it failed.
    pub fault: bool,
    /// Age of the last sample in milliseconds.
    pub age_ms: Option<u64>,
    /// Change for each hour, if it is known.
    pub growth: Option<f64>,
    /// What it will become if the samples stay as they are.
    pub pending: Option<Level>,
    /// In how long, in milliseconds.
    pub pending_ms: Option<u64>,
    /// When it is yellow.
    pub warning: Option<String>,
    /// When it is red.
    pub critical: Option<String>,
    /// Weight in the score.
    pub weight: u32,
    /// What to do about it.
    pub runbook: Option<String>,
}

impl Health {
    /// Sums the checks up.
    #[must_use]
    pub fn of(node: &str, at: String, checks: Vec<Check>) -> Self {
        let mut by_group: BTreeMap<&str, Vec<&Check>> = BTreeMap::new();
        for check in &checks {
            by_group.entry(&check.group).or_default().push(check);
        }
        let groups = by_group.into_iter().map(|(name, checks)| {
            let count = |level| checks.iter().filter(|check| check.level == level).count();
            Group {
                name: name.to_owned(),
                level: worst(checks.iter().copied()),
                score: score(checks.iter().copied()),
                green: count(Level::Green),
                yellow: count(Level::Yellow),
                red: count(Level::Red),
                unknown: count(Level::Unknown),
            }
        });
        let groups = groups.collect();
        let score = score(checks.iter());
        Self {
            version: VERSION,
            node: node.to_owned(),
            at,
            level: worst(checks.iter()),
            score,
            band: score.map(Band::of),
            groups,
            checks,
        }
    }

    /// The checks that are not green, the worst first.
    #[must_use]
    pub fn troubles(&self) -> Vec<&Check> {
        let is_trouble = |check: &&Check| check.level > Level::Green;
        let mut troubles: Vec<_> = self.checks.iter().filter(is_trouble).collect();
        // Stable, so the order of the configuration stays among equals.
        troubles.sort_by_key(|check| std::cmp::Reverse(check.level));
        troubles
    }

    /// How many checks are at a level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.checks.iter().filter(|check| check.level == level).count()
    }
}

fn worst<'a>(checks: impl Iterator<Item = &'a Check>) -> Level {
    checks.map(|check| check.level).max().unwrap_or_default()
}

fn score<'a>(checks: impl Iterator<Item = &'a Check>) -> Option<f64> {
    let (mut points, mut weights) = (0.0, 0.0);
    for check in checks {
        let worth = match check.level {
            Level::Unknown => continue,
            Level::Green => 100.0,
            Level::Yellow => 50.0,
            Level::Red => 0.0,
        };
        points += worth * f64::from(check.weight);
        weights += f64::from(check.weight);
    }
    // To a tenth, as nobody can tell more from it.
    (weights > 0.0).then(|| (points / weights * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(group: &str, level: Level, weight: u32) -> Check {
        Check {
            name: "x".to_owned(),
            group: group.to_owned(),
            kind: "host".to_owned(),
            level,
            since_ms: None,
            value: None,
            suffix: String::new(),
            text: String::new(),
            details: Vec::new(),
            fault: false,
            age_ms: None,
            growth: None,
            pending: None,
            pending_ms: None,
            warning: None,
            critical: None,
            weight,
            runbook: None,
        }
    }

    #[test]
    fn the_score_is_a_weighted_mean_of_what_was_measured() {
        let of = |checks: Vec<Check>| {
            let health = Health::of("n", String::new(), checks);
            (health.score, health.level)
        };
        assert_eq!(of(vec![]), (None, Level::Unknown));
        assert_eq!(of(vec![check("a", Level::Unknown, 1)]), (None, Level::Unknown));
        let mixed = || vec![check("a", Level::Green, 3), check("b", Level::Red, 1)];
        assert_eq!(of(mixed()), (Some(75.0), Level::Red));
        let with_yellow = [mixed(), vec![check("b", Level::Yellow, 4)]].concat();
        assert_eq!(of(with_yellow), (Some(62.5), Level::Red));
        let weightless = vec![check("a", Level::Red, 0), check("a", Level::Green, 1)];
        assert_eq!(of(weightless), (Some(100.0), Level::Red));
    }

    #[test]
    fn bands_begin_where_they_are_said_to() {
        for (score, band) in [
            (100.0, Band::Excellent),
            (90.0, Band::Excellent),
            (89.9, Band::Good),
            (70.0, Band::Good),
            (69.9, Band::Degraded),
            (50.0, Band::Degraded),
            (49.9, Band::Critical),
            (0.0, Band::Critical),
        ] {
            assert_eq!(Band::of(score), band, "{score}");
        }
    }

    #[test]
    fn groups_have_levels_and_scores_of_their_own() {
        let checks = vec![
            check("b", Level::Red, 1),
            check("a", Level::Green, 1),
            check("b", Level::Green, 1),
            check("a", Level::Unknown, 1),
        ];
        let health = Health::of("n", String::new(), checks);
        let groups: Vec<_> = health.groups.iter().map(|g| (&*g.name, g.level, g.score)).collect();
        assert_eq!(groups, [("a", Level::Green, Some(100.0)), ("b", Level::Red, Some(50.0))]);
        assert_eq!(health.groups[0].unknown, 1);
        assert_eq!(health.troubles().len(), 1);
    }
}
