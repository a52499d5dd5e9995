//! The checks on the status page: the score, the groups, and what is not green.

use std::time::Duration;

use super::html::Html;
use crate::engine::liveness::seconds;
use crate::monitor::health::{Check, Group, Health};
use crate::monitor::level::Level;

/// Checks that are shown in full. Who has more troubles knows where to begin, and the command line
/// has them all.
const TROUBLES_MAX: usize = 50;

/// Groups that are shown.
const GROUPS_MAX: usize = 100;

/// Nothing where nothing is checked.
pub(super) fn section(health: &Health) -> Html {
    let mut html = Html::new();
    if health.checks.is_empty() {
        return html;
    }
    html.raw("<section id=\"checks\" aria-labelledby=\"checks-title\"><article class=\"card ");
    html.raw(class(health.level)).raw("\"><h2 id=\"checks-title\">Checks ");
    html.raw("<span class=\"tag ").raw(class(health.level)).raw("\">");
    if let (Some(score), Some(band)) = (health.score, health.band) {
        html.raw("score ").text(&format!("{score}")).raw(", ").raw(band.name());
    } else {
        html.raw("not measured yet");
    }
    html.raw("</span></h2><p class=\"summary\">");
    let counts = [(Level::Red, "red"), (Level::Yellow, "yellow"), (Level::Green, "green")];
    for (level, word) in counts {
        html.number(health.count(level) as u64).raw(" ").raw(word).raw(", ");
    }
    html.number(health.count(Level::Unknown) as u64).raw(" not measured yet</p>");
    let troubles = health.troubles();
    if !troubles.is_empty() {
        html.raw("<h3>Not green</h3><dl>");
        for check in troubles.iter().take(TROUBLES_MAX) {
            html.add(&trouble(check));
        }
        html.raw("</dl>");
    }
    if troubles.len() > TROUBLES_MAX {
        html.raw("<p class=\"quiet\">and ").number((troubles.len() - TROUBLES_MAX) as u64);
        html.raw(" more; <code>understudy health</code> shows all</p>");
    }
    html.raw("<h3>Groups</h3><dl>");
    for group in health.groups.iter().take(GROUPS_MAX) {
        html.add(&line(group));
    }
    html.raw("</dl></article></section>");
    html
}

fn trouble(check: &Check) -> Html {
    let mut html = Html::new();
    html.raw("<div class=\"").raw(class(check.level)).raw("\"><dt>").raw(check.level.name());
    html.raw("</dt><dd><strong>").name(&check.name).raw("</strong> ").name(&check.text);
    if let Some(since) = check.since_ms {
        html.raw(" <span class=\"quiet\">for ");
        html.text(&seconds(Duration::from_millis(since))).raw("</span>");
    }
    if let Some(runbook) = &check.runbook {
        // Shown, and not linked: what is written in a configuration is no address of ours.
        html.raw(" <span class=\"quiet\">Runbook: ").name(runbook).raw("</span>");
    }
    html.raw("</dd></div>");
    html
}

fn line(group: &Group) -> Html {
    let mut html = Html::new();
    html.raw("<div class=\"").raw(class(group.level)).raw("\"><dt>").name(&group.name);
    html.raw("</dt><dd>").raw(group.level.name());
    if let Some(score) = group.score {
        html.raw(", score ").text(&format!("{score}"));
    }
    let all = group.green + group.yellow + group.red + group.unknown;
    html.raw(" <span class=\"quiet\">").number(group.green as u64).raw(" of ");
    html.number(all as u64).raw(" green</span></dd></div>");
    html
}

const fn class(level: Level) -> &'static str {
    match level {
        Level::Unknown => "note",
        Level::Green => "good",
        Level::Yellow => "warn",
        Level::Red => "bad",
    }
}
