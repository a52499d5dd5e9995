//! Many alerts into one that stands for them, so that nothing is left out in silence.

use std::fmt::Write as _;
use std::time::Duration;

use super::message::{Alert, Folded, date};
use crate::config::settings::Severity;

/// Lines about what was folded; the count tells of the rest.
const LINES_MAX: usize = 10;

/// Groups that are named.
const NAMES_MAX: usize = 5;

/// The alert that stands for these, which came in this order. If they are about one thing it is the
/// last, as that is how it is now; else the first.
pub(super) fn fold(mut alerts: Vec<Alert>) -> Option<Alert> {
    let about_one = alerts.windows(2).all(|two| match two {
        [one, other] => one.dedup_key == other.dedup_key,
        _ => true,
    });
    if alerts.len() < 2 {
        return alerts.pop();
    }
    let mut alert = if about_one { alerts.pop()? } else { alerts.remove(0) };
    let others = alerts;
    let since = others.iter().map(|other| other.at).fold(alert.at, std::cmp::min);
    let until = others.iter().map(|other| other.at).fold(alert.at, std::cmp::max);
    let span = until.duration_since(since).unwrap_or_default();
    let critical = others.iter().filter(|other| other.severity == Severity::Critical).count();
    alert.summary += &more(&alert, &others, span, critical, about_one);
    alert.detail += &lines(&others, about_one);
    if alert.resolves.is_none() {
        let worst = others.iter().map(|other| other.severity).max();
        alert.severity = worst.map_or(alert.severity, |worst| worst.max(alert.severity));
    }
    if let (Some(resolves), Some(worst)) = (
        &mut alert.resolves,
        others.iter().filter_map(|other| Some(other.resolves.as_ref()?.severity)).max(),
    ) {
        resolves.severity = resolves.severity.max(worst);
    }
    alert.folded = Some(Folded {
        since,
        critical: u64::try_from(critical).unwrap_or(u64::MAX),
        ids: others.iter().map(|other| other.id).collect(),
    });
    Some(alert)
}

fn more(
    alert: &Alert,
    others: &[Alert],
    span: Duration,
    critical: usize,
    about_one: bool,
) -> String {
    let span = humantime::format_duration(Duration::from_secs(span.as_secs()));
    let mut text = format!(" (and {} more in {span}", others.len());
    // If it is critical itself, most of the others are.
    if critical > 0 && (about_one || alert.severity != Severity::Critical) {
        let _written = write!(text, ", {critical} of them critical");
    }
    if !about_one {
        let mut names: Vec<_> = others.iter().filter_map(|other| other.group.clone()).collect();
        let rest = if names.len() > NAMES_MAX { ", …" } else { "" };
        names.truncate(NAMES_MAX);
        let _written = write!(text, ": {}{rest}", names.join(", "));
    }
    text + ")"
}

fn lines(others: &[Alert], about_one: bool) -> String {
    let mut text = if about_one { "\n\nBefore it:\n" } else { "\n\nThe others:\n" }.to_owned();
    let left_out = others.len().saturating_sub(LINES_MAX);
    if left_out > 0 {
        let _written = writeln!(text, "({left_out} more)");
    }
    for other in others.iter().skip(left_out) {
        let _written = writeln!(text, "{} {}", date(other.at), other.summary);
    }
    text
}
