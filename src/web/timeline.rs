//! A failover as a picture: its steps on a line of time, to scale.

use super::html::Html;
use crate::adapters::postgres::operator::{Entry, Record, RecordKind, RecordStatus};
use crate::engine::plan::Step;

/// Width of the picture in its own units.
const WIDTH: u64 = 1_000;

/// Narrowest step that can be seen; what is shorter is drawn like this.
const LEAST_WIDTH: u64 = 5;

/// Failovers that are shown.
const FAILOVERS_MAX: usize = 5;

/// Other things that are shown.
const ORDERS_MAX: usize = 6;

/// Attempts of one failover that are drawn; a step that fails is tried every few seconds, for hours.
const ATTEMPTS_MAX: usize = 100;

/// The last failovers, and what people did.
#[must_use]
pub fn recent(records: &[Record], group: Option<&str>) -> Html {
    let mut html = Html::new();
    let wanted = |record: &&Record| group.is_none_or(|name| record.group == name);
    let failovers = records.iter().filter(wanted).filter(|record| is_failover(record));
    let failovers: Vec<_> = failovers.take(FAILOVERS_MAX).collect();
    if failovers.is_empty() {
        html.raw("<p class=\"quiet\">There was no failover yet.</p>");
    }
    for record in failovers {
        html.add(&failover(record));
    }
    let orders = records.iter().filter(wanted).filter(|record| !is_failover(record));
    let orders: Vec<_> = orders.take(ORDERS_MAX).collect();
    if !orders.is_empty() {
        html.raw("<h3>What people said</h3><ul class=\"orders\">");
        for record in orders {
            html.add(&order(record));
        }
        html.raw("</ul>");
    }
    html
}

fn is_failover(record: &Record) -> bool {
    match record.kind {
        RecordKind::Automatic | RecordKind::Operator => true,
        RecordKind::HandBack
        | RecordKind::Hold
        | RecordKind::Release
        | RecordKind::Acknowledge
        | RecordKind::Request
        | RecordKind::RequestEnded
        | RecordKind::HandOver => false,
    }
}

fn failover(record: &Record) -> Html {
    let mut html = Html::new();
    let entries: Vec<_> = record.timeline.iter().filter(is_drawn).take(ATTEMPTS_MAX).collect();
    let total = entries.iter().map(|entry| end(entry)).max().unwrap_or(0);
    html.raw("<article class=\"failover\"><h3>").name(&record.group).raw(" ");
    let (class, word) = outcome(record.status);
    html.raw("<span class=\"tag ").raw(class).raw("\">").raw(word).raw("</span></h3><p>");
    html.raw(match record.kind {
        RecordKind::Operator => "Ordered",
        _ => "Automatic",
    });
    html.raw(", <time datetime=\"").text(&record.at).raw("\">").text(&short_time(&record.at));
    html.raw("</time>, to ").name(&record.node).raw(", epoch ").number(record.epoch);
    if total > 0 {
        html.raw(", ").text(&span(total));
    }
    if let Some(by) = record.by.as_deref().filter(|by| !by.is_empty()) {
        html.raw("; by ").name(by);
    }
    if let Some(reason) = record.reason.as_deref().filter(|reason| !reason.is_empty()) {
        html.raw(": ").name(reason);
    }
    html.raw("</p>");
    if total > 0 {
        html.add(&picture(&entries, total)).add(&axis(total)).add(&steps(&entries));
    }
    html.raw("</article>");
    html
}

/// The picture alone: one rectangle for each step that is done, one mark for each that failed.
fn picture(entries: &[&Entry], total: u64) -> Html {
    let mut html = Html::new();
    html.raw("<svg class=\"timeline\" viewBox=\"0 0 1000 28\" preserveAspectRatio=\"none\" ");
    html.raw("role=\"img\" aria-label=\"Steps on a line of time, listed below\">");
    html.raw("<rect class=\"ground\" width=\"1000\" height=\"28\"/>");
    let scaled = |ms: u64| ms.min(total) * WIDTH / total;
    for entry in entries {
        let (begin, took) = (entry.after_ms.unwrap_or(0), entry.took_ms.unwrap_or(0));
        let failed = entry.outcome != "done";
        let width = if failed { LEAST_WIDTH } else { scaled(took).max(LEAST_WIDTH) };
        let x = scaled(begin).min(WIDTH - width.min(WIDTH));
        html.raw("<rect class=\"").raw(if failed { "s-failed" } else { class(&entry.step) });
        html.raw("\" x=\"").number(x).raw("\" width=\"").number(width).raw("\" height=\"28\">");
        html.raw("<title>").text(&entry.step).raw(" ").text(&entry.outcome);
        if let Some(took) = entry.took_ms {
            html.raw(", ").text(&span(took));
        }
        html.raw("</title></rect>");
    }
    html.raw("</svg>");
    html
}

/// What the ends and the middle of the picture are.
fn axis(total: u64) -> Html {
    let mut html = Html::new();
    html.raw("<p class=\"axis\" aria-hidden=\"true\"><span>lease</span><span>");
    html.text(&span(total / 2)).raw("</span><span>").text(&span(total)).raw("</span></p>");
    html
}

/// The same as a list, which says how long each took.
fn steps(entries: &[&Entry]) -> Html {
    let mut html = Html::new();
    html.raw("<ol class=\"steps\">");
    for entry in entries {
        let failed = entry.outcome != "done";
        html.raw("<li><span class=\"key ").raw(if failed {
            "s-failed"
        } else {
            class(&entry.step)
        });
        html.raw("\"></span>").text(&entry.step);
        if failed {
            html.raw(" <strong>").text(&entry.outcome).raw("</strong>");
        }
        if let Some(took) = entry.took_ms {
            html.raw(" <span class=\"took\">").text(&span(took)).raw("</span>");
        }
        if let Some(fault) = entry.detail.get("fault").and_then(|fault| fault.as_str()) {
            html.raw(" <span class=\"fault\">").name(fault).raw("</span>");
        }
        html.raw("</li>");
    }
    html.raw("</ol>");
    html
}

fn order(record: &Record) -> Html {
    let mut html = Html::new();
    html.raw("<li><time datetime=\"").text(&record.at).raw("\">").text(&short_time(&record.at));
    html.raw("</time> ").name(&record.group).raw(": ").raw(match record.kind {
        RecordKind::HandBack => "given back",
        RecordKind::Hold => "hold",
        RecordKind::Release => "release",
        RecordKind::Acknowledge => "ack",
        RecordKind::Request => "asked to let another node have it",
        RecordKind::RequestEnded => "end of what was asked",
        RecordKind::HandOver => "handed over",
        RecordKind::Automatic | RecordKind::Operator => "failover",
    });
    if let Some(by) = record.by.as_deref().filter(|by| !by.is_empty()) {
        html.raw(" by ").name(by);
    }
    if let Some(reason) = record.reason.as_deref().filter(|reason| !reason.is_empty()) {
        html.raw(": ").name(reason);
    }
    html.raw("</li>");
    html
}

/// Steps, well or not. That the lease was acquired and that all is done are instants, at the ends.
fn is_drawn(entry: &&Entry) -> bool {
    Step::from_name(&entry.step).is_some() || entry.outcome != "done"
}

fn end(entry: &Entry) -> u64 {
    entry.after_ms.unwrap_or(0).saturating_add(entry.took_ms.unwrap_or(0))
}

/// Colour of a step.
fn class(step: &str) -> &'static str {
    match Step::from_name(step) {
        Some(Step::Guard | Step::Fence) => "s-fence",
        Some(Step::Promote) => "s-promote",
        Some(Step::Persist) => "s-persist",
        Some(Step::Flip) => "s-flip",
        Some(Step::Publish) => "s-publish",
        Some(Step::Start) => "s-start",
        Some(Step::Beat) => "s-beat",
        None => "s-other",
    }
}

const fn outcome(status: Option<RecordStatus>) -> (&'static str, &'static str) {
    match status {
        Some(RecordStatus::Done) => ("good", "done"),
        Some(RecordStatus::Running) => ("warn", "not finished"),
        Some(RecordStatus::Failed) => ("bad", "failed"),
        Some(RecordStatus::Superseded) => ("warn", "superseded"),
        None => ("note", "no outcome"),
    }
}

/// A time of the store without what nobody needs at a glance.
fn short_time(at: &str) -> String {
    let at = at.replace('T', " ");
    let at = at.split('.').next().unwrap_or_default().trim_end_matches('Z');
    format!("{at} UTC")
}

/// A span as people read it, with the precision that steps need.
fn span(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{} min {} s", millis / 60_000, millis / 1_000 % 60),
    }
}
