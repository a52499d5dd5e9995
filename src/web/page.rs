//! The status page. It says the same as `understudy status`, at a glance and from afar.
//!
//! The server renders all of it, so that it works without a script; the script only exchanges the
//! inside for a newer one, and counts seconds in between. No asset comes from anywhere else.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};

use super::history::Seen;
use super::html::Html;
use super::timeline;
use super::{checks, health};
use crate::config::settings::Settings;
use crate::control::protocol::{Bot, Group, Status, Takeover};
use crate::engine::liveness::seconds;
use crate::monitor::health::Health;

/// How old the history may be when the page is loaded.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(2);

/// Groups that are shown; those that need a person come first. A thousand cards help nobody.
const GROUPS_MAX: usize = 50;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What a browser may do with the page: run its one script, use its one style sheet, ask this
/// server for events, and nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// The page's Content-Security-Policy.
pub fn policy() -> &'static str {
    &POLICY
}

/// How much a group needs a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Good,
    Note,
    Warn,
    Bad,
}

impl Level {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }

    /// Not everybody sees colours.
    const fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Note => "i",
            Self::Warn => "!",
            Self::Bad => "✕",
        }
    }
}

/// A group at a glance.
struct Glance {
    level: Level,
    words: &'static str,
}

/// The whole page.
#[must_use]
pub fn whole(
    status: &Status,
    settings: &Settings,
    seen: &Seen,
    health: &Health,
    only: Option<&str>,
) -> String {
    let mut html = Html::new();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    html.text(worst(status).1.words).raw(" · understudy on ").text(&status.node);
    html.raw("</title>\n<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.");
    html.raw("w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='6' cy='8' r='5' fill='%238a94");
    html.raw("a6'/%3E%3Ccircle cx='10' cy='8' r='5' fill='%232f6fde'/%3E%3C/svg%3E\">\n");
    html.raw("<noscript><meta http-equiv=\"refresh\" content=\"15\"></noscript>\n<style>");
    html.raw(STYLE).raw("</style></head>\n<body>\n<a class=\"skip\" href=\"#groups\">");
    html.raw("To the groups</a>\n<div id=\"inside\">");
    html.add(&inner(status, settings, seen, health, only));
    html.raw("</div>\n<footer><p><span id=\"live\" role=\"status\">As of this moment. ");
    html.raw("Without a script this page is loaded again every 15 s.</span></p>\n<nav ");
    html.raw("aria-label=\"For programs\"><a href=\"/metrics\">metrics</a> ");
    html.raw("<a href=\"/api/v1/status\">status</a> <a href=\"/api/v1/history\">history</a> ");
    html.raw("<a href=\"/health/ready\">ready?</a> <a href=\"/api/v1/openapi.json\">API</a>");
    html.raw("</nav></footer>\n<script>").raw(SCRIPT).raw("</script>\n</body></html>\n");
    html.into_string()
}

/// What is exchanged when something changed.
#[must_use]
pub fn inside(
    status: &Status,
    settings: &Settings,
    seen: &Seen,
    health: &Health,
    only: Option<&str>,
) -> String {
    inner(status, settings, seen, health, only).into_string()
}

fn inner(
    status: &Status,
    settings: &Settings,
    seen: &Seen,
    health: &Health,
    only: Option<&str>,
) -> Html {
    let mut html = Html::new();
    html.add(&header(status)).raw("<main>").add(&warnings(status));
    html.raw("<section id=\"groups\" aria-label=\"Groups\">");
    let mut groups: Vec<_> = status.groups.iter().collect();
    groups.retain(|group| only.is_none_or(|name| group.name == name));
    // Stable, so the order of the configuration stays among equals.
    groups.sort_by_key(|group| std::cmp::Reverse(glance(group).level));
    for group in groups.iter().take(GROUPS_MAX) {
        let configured = settings.groups.iter().find(|one| one.name == group.name);
        html.add(&card(group, configured.is_some_and(|one| one.automatic())));
    }
    if groups.len() > GROUPS_MAX {
        html.raw("<p class=\"quiet\">and ").number((groups.len() - GROUPS_MAX) as u64);
        html.raw(" more that need nobody more than these; /?group=NAME shows one</p>");
    }
    html.raw("</section>")
        .add(&checks::section(health))
        .raw("<section id=\"history\" aria-labelledby=\"history-title\">");
    html.raw("<h2 id=\"history-title\">Last failovers</h2>");
    if let Some(fault) = &seen.fault {
        html.raw("<p class=\"banner warn\">The history cannot be read now: ").name(fault);
        html.raw("</p>");
    }
    if seen.age.is_some() {
        html.add(&timeline::recent(&seen.records, only));
    }
    html.raw("</section></main>");
    html
}

fn header(status: &Status) -> Html {
    let mut html = Html::new();
    let (group, glance) = worst(status);
    html.raw("<header class=\"").raw(glance.level.class()).raw("\"><p class=\"brand\">");
    html.raw("<strong>understudy</strong> on ").name(&status.node).raw("</p><h1>");
    html.raw("<span class=\"sign\" aria-hidden=\"true\">").raw(glance.level.sign());
    html.raw("</span> ").raw(glance.words);
    if let Some(group) = group.filter(|_| status.groups.len() > 1 && glance.level > Level::Good) {
        html.raw(": ").name(&group.name);
    }
    html.raw("</h1><p class=\"quiet\">version ").text(&status.daemon).raw(", running for ");
    html.text(&seconds(Duration::from_secs(status.uptime_s))).raw("</p></header>");
    html
}

/// What concerns the daemon and not a group.
fn warnings(status: &Status) -> Html {
    let mut html = Html::new();
    if status.undelivered_alerts > 0 {
        html.raw("<p class=\"banner bad\" role=\"alert\"><strong>");
        html.number(status.undelivered_alerts);
        html.raw(" alerts are not delivered.</strong> People may not know what is shown here. ");
        html.raw("The journal says why: <code>journalctl UNDERSTUDY_EVENT=alert_failed</code></p>");
    }
    if let Some(why) = &status.configuration_refused {
        html.raw(
            "<p class=\"banner warn\"><strong>The configuration on disk is not in use</strong>, ",
        );
        html.raw("as it has faults: ").name(why).raw("</p>");
    }
    for listener in &status.http {
        if let Some(fault) = &listener.fault {
            html.raw("<p class=\"banner warn\">").name(&listener.address);
            html.raw(" cannot be listened on: ").name(fault).raw("</p>");
        }
    }
    html
}

fn card(group: &Group, automatic: bool) -> Html {
    let mut html = Html::new();
    let glance = glance(group);
    html.raw("<article class=\"card ").raw(glance.level.class()).raw("\"><h2>");
    html.name(&group.name).raw(" <span class=\"tag ").raw(glance.level.class()).raw("\">");
    html.raw("<span aria-hidden=\"true\">").raw(glance.level.sign()).raw("</span> ");
    html.raw(glance.words).raw("</span></h2>");
    if glance.level > Level::Note {
        html.raw("<p class=\"summary\">").name(&group.summary).raw("</p>");
    }
    html.raw("<div class=\"columns\"><div><h3>Heartbeats</h3>");
    if group.bots.is_empty() {
        html.raw("<p class=\"quiet\">Nothing was read yet.</p>");
    }
    html.raw("<ul class=\"bots\">");
    for one in &group.bots {
        html.add(&bot(one, group.timeout_ms));
    }
    html.raw("</ul>");
    if let Some(takeover) = &group.takeover {
        html.add(&steps(takeover));
    }
    html.raw("</div><dl>")
        .add(&lease(group))
        .add(&restraints(group))
        .add(&readiness(group, automatic));
    if let Some(redis) = &group.redis {
        html.raw("<div><dt>Redis</dt><dd>").name(redis).raw("</dd></div>");
    }
    for unit in &group.units {
        html.raw("<div><dt>Unit</dt><dd>").name(&unit.name).raw(" <span class=\"quiet\">");
        html.name(&unit.state).raw("</span></dd></div>");
    }
    html.raw("</dl></div></article>");
    html
}

fn bot(bot: &Bot, timeout_ms: u64) -> Html {
    let mut html = Html::new();
    html.raw("<li><p class=\"bot\"><strong>").name(&bot.name).raw("</strong> ");
    match &bot.status {
        Some(status) => html.raw("<span class=\"quiet\">").name(status).raw("</span>"),
        None => html.raw("<span class=\"tag bad\">no row</span>"),
    };
    html.raw("</p>");
    let (Some(unchanged), Some(left)) = (bot.unchanged_ms, bot.stale_in_ms) else {
        html.raw("<p class=\"count\">It cannot be told how long it has been silent.</p></li>");
        return html;
    };
    let of = timeout_ms.max(1);
    let percent = unchanged.min(of) * 100 / of;
    html.raw("<svg class=\"bar\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" ");
    html.raw("aria-hidden=\"true\"><rect class=\"ground\" width=\"100\" height=\"6\"/>");
    html.raw("<rect class=\"fill ").raw(pressure(percent)).raw("\" height=\"6\" width=\"");
    html.number(percent).raw("\" data-age=\"").number(unchanged).raw("\" data-of=\"").number(of);
    html.raw("\"/></svg><p class=\"count\">silent for <span data-age=\"").number(unchanged);
    html.raw("\">").text(&seconds(Duration::from_millis(unchanged))).raw("</span>");
    if left == 0 {
        html.raw(", <strong class=\"bad\">stale</strong>");
    } else {
        html.raw(", stale in <span data-left=\"").number(left).raw("\">");
        html.text(&seconds(Duration::from_millis(left))).raw("</span>");
    }
    html.raw("</p></li>");
    html
}

/// How near a heartbeat is to its deadline. The script knows the same bounds.
const fn pressure(percent: u64) -> &'static str {
    match percent {
        0..60 => "good",
        60..85 => "warn",
        _ => "bad",
    }
}

fn steps(takeover: &Takeover) -> Html {
    let mut html = Html::new();
    html.raw("<h3>Takeover, epoch ").number(takeover.epoch).raw("</h3><ol class=\"steps\">");
    for done in &takeover.done {
        html.raw("<li><span aria-hidden=\"true\">✓</span> ").text(&done.step);
        html.raw(" <span class=\"took\">").text(&seconds(Duration::from_millis(done.took_ms)));
        html.raw("</span></li>");
    }
    if let Some(step) = &takeover.step {
        html.raw("<li class=\"now\"><span aria-hidden=\"true\">…</span> <strong>").text(step);
        html.raw("</strong>").raw(if takeover.trying { ", under way" } else { ", waited for" });
        if let Some(fault) = &takeover.fault {
            html.raw(" <span class=\"fault\">").name(fault).raw("</span>");
        }
        html.raw("</li>");
    }
    html.raw("</ol>");
    html
}

fn lease(group: &Group) -> Html {
    let mut html = Html::new();
    html.raw("<div><dt>Primary</dt><dd>");
    match &group.holder {
        Some(holder) => html.name(holder),
        None => html.raw("nobody has taken it over yet"),
    };
    if let Some(epoch) = group.epoch {
        html.raw(" <span class=\"quiet\">epoch ").number(epoch).raw("</span>");
    }
    html.raw("</dd></div><div><dt>Last read</dt><dd>");
    match group.read_ago_ms {
        Some(ago) => html
            .raw("<span data-age=\"")
            .number(ago)
            .raw("\">")
            .text(&seconds(Duration::from_millis(ago)))
            .raw("</span> ago"),
        None => html.raw("never"),
    };
    html.raw("</dd></div>");
    html
}

fn restraints(group: &Group) -> Html {
    let mut html = Html::new();
    if let Some(hold) = &group.hold {
        html.raw("<div class=\"note\"><dt>Held</dt><dd>by ").name(&hold.by);
        match hold.left_ms {
            Some(left) => {
                let left = seconds(Duration::from_millis(left));
                html.raw(" for another ").text(&left)
            }
            None => html.raw(" until released"),
        };
        html.raw(": ").name(&hold.reason).raw("</dd></div>");
    }
    if group.latched {
        html.raw("<div class=\"bad\"><dt>Latched</dt><dd>too many failovers; find out why, then ");
        html.raw("<code>understudy ack</code></dd></div>");
    }
    if let Some(left) = group.cooldown_left_ms {
        html.raw("<div class=\"note\"><dt>Cooldown</dt><dd>another <span data-left=\"");
        html.number(left).raw("\">").text(&seconds(Duration::from_millis(left)));
        html.raw("</span></dd></div>");
    }
    html
}

fn readiness(group: &Group, automatic: bool) -> Html {
    let mut html = Html::new();
    let reasons = health::not_ready(group, automatic);
    if reasons.is_empty() {
        html.raw("<div class=\"good\"><dt>Ready</dt><dd>");
        html.raw(match (group.state.as_str(), automatic) {
            ("active", _) => "yes, its bots beat from here",
            (_, true) => "yes, this node would take over",
            (_, false) => "yes; it only alerts, as configured",
        });
        html.raw("</dd></div>");
    } else {
        html.raw("<div class=\"warn\"><dt>Not ready</dt><dd><ul>");
        for reason in &reasons {
            html.raw("<li>").name(reason).raw("</li>");
        }
        html.raw("</ul></dd></div>");
    }
    if let Some(why) = &group.last_refusal {
        html.raw("<div class=\"note\"><dt>Last try</dt><dd>").name(why).raw("</dd></div>");
    }
    html
}

/// The group that most needs a person; none in a daemon without groups.
fn worst(status: &Status) -> (Option<&Group>, Glance) {
    let worst = status.groups.iter().max_by_key(|group| glance(group).level);
    match worst {
        Some(group) => (Some(group), glance(group)),
        None => (None, Glance { level: Level::Note, words: "Nothing is watched" }),
    }
}

fn glance(group: &Group) -> Glance {
    let is = |level, words| Glance { level, words };
    match group.state.as_str() {
        "degraded" => return is(Level::Bad, "Failover is stuck"),
        "interrupted" => return is(Level::Bad, "Interrupted takeover"),
        "stopping" => return is(Level::Bad, "Stopping units here"),
        "promoting" | "acquiring" | "checking" => return is(Level::Warn, "Taking over"),
        _ => {}
    }
    let active = group.state == "active";
    let ready = group.not_ready_because.as_ref();
    match group.verdict.as_str() {
        "unknown" => is(Level::Warn, "Cannot see the heartbeats"),
        "stale" if active => is(Level::Bad, "Silent on this node"),
        "stale" => is(Level::Bad, "Primary is silent"),
        _ if active => is(Level::Good, "Primary on this node"),
        _ if group.latched => is(Level::Bad, "Latched"),
        _ if ready.is_some_and(|problems| !problems.is_empty()) => is(Level::Warn, "Not ready"),
        _ if group.hold.is_some() => is(Level::Note, "Held"),
        _ if group.blocked_because.is_some() => is(Level::Note, "Would not take over"),
        _ if ready.is_none() => is(Level::Note, "Not checked yet"),
        _ => is(Level::Good, "Standing by"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::adapters::postgres::operator::Record;
    use crate::web::settings_for_tests as settings;

    /// A status in which everything is there that can be.
    fn full() -> Value {
        json!({
            "version": 1, "daemon": "1.2.3", "pid": 7, "node": "bravo",
            "configuration": "/etc/understudy/understudy.toml",
            "configuration_refused": "a fault", "uptime_s": 90_000, "started": true,
            "undelivered_alerts": 3,
            "http": [{ "address": "127.0.0.1:1", "fault": "taken" }],
            "groups": [{
                "name": "trading", "state": "degraded", "summary": "stuck", "verdict": "unknown",
                "unknown_because": "no store", "holder": "alpha", "epoch": 4, "read_ago_ms": 900,
                "timeout_ms": 60_000,
                "bots": [
                    { "name": "equity", "status": "PRIMARY", "age_ms": 5, "unchanged_ms": 1_000,
                      "stale_in_ms": 59_000 },
                    { "name": "crypto", "status": null, "age_ms": null, "unchanged_ms": null,
                      "stale_in_ms": null },
                ],
                "hold": { "by": "ann@bravo", "reason": "upgrade", "left_ms": 5_000 },
                "latched": true, "cooldown_left_ms": 1_000, "blocked_because": "held",
                "not_ready_because": ["redis: lags"],
                "takeover": { "epoch": 4, "cause": "automatic", "step": "start",
                    "fault": "unit failed", "trying": true,
                    "done": [{ "step": "promote", "took_ms": 12 }] },
                "last_refusal": "refused", "redis": "replica", "redis_figures": null,
                "units": [{ "name": "equity.service", "state": "inactive" }],
            }],
        })
    }

    fn records() -> Value {
        json!([
            { "id": "a", "group": "trading", "kind": "automatic", "at": "2026-11-24T03:04:05.678Z",
              "ended_at": null, "epoch": 4, "node": "bravo", "by": "ann", "reason": "why",
              "status": "failed", "detail": {}, "timeline": [
                { "at": "2026-11-24T03:04:05.678Z", "step": "promote", "outcome": "done",
                  "after_ms": 0, "took_ms": 12, "detail": {} },
                { "at": "2026-11-24T03:04:06.678Z", "step": "start", "outcome": "failed",
                  "after_ms": 12, "took_ms": null, "detail": { "fault": "unit failed" } },
            ]},
            { "id": "1", "group": "trading", "kind": "hold", "at": "2026-11-24T03:00:00Z",
              "ended_at": null, "epoch": 3, "node": "bravo", "by": "ann", "reason": "upgrade",
              "status": null, "detail": {}, "timeline": [] },
        ])
    }

    /// Checks of each level, with all that can be said of one.
    fn checks() -> Value {
        let check = |name: &str, level: &str| {
            json!({
                "name": name, "group": "pool", "kind": "http", "level": level, "since_ms": 5_000,
                "value": 91.0, "suffix": "%", "text": "91 % (> 90)", "details": ["a line"],
                "fault": false, "age_ms": 100, "growth": 1.0, "pending": null, "pending_ms": null,
                "warning": "> 80", "critical": "> 90", "weight": 1, "runbook": "wiki/pool",
            })
        };
        json!({
            "version": 1, "node": "bravo", "at": "2026-11-24T03:04:05Z", "level": "red",
            "score": 50.0, "band": "degraded",
            "groups": [{ "name": "pool", "level": "red", "score": 50.0, "green": 1, "yellow": 1,
                         "red": 1, "unknown": 0 }],
            "checks": [check("used", "red"), check("idle", "yellow"), check("size", "green")],
        })
    }

    fn render(status: Value, records: Value) -> String {
        render_with(status, records, checks())
    }

    fn render_with(status: Value, records: Value, checks: Value) -> String {
        let status = serde_json::from_value(status).unwrap();
        let records: Vec<Record> = serde_json::from_value(records).unwrap();
        let seen = Seen {
            records: Arc::new(records),
            age: Some(Duration::ZERO),
            fault: Some("hiccup".to_owned()),
        };
        whole(&status, &settings(), &seen, &serde_json::from_value(checks).unwrap(), None)
    }

    const HOSTILE: &str = "\"'><script>evil()</script><img src=x onerror=evil()>&lt;\u{202e}";

    /// Each text in turn becomes a hostile one, where the page does not know the words.
    fn each_hostile(value: &Value, found: &mut Vec<Value>) {
        fn paths(value: &Value, at: String, found: &mut Vec<String>) {
            match value {
                Value::String(_) => found.push(at),
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        paths(item, format!("{at}/{index}"), found);
                    }
                }
                Value::Object(map) => {
                    for (key, item) in map {
                        paths(item, format!("{at}/{key}"), found);
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut all = Vec::new();
        paths(value, String::new(), &mut all);
        for path in all {
            let mut changed = value.clone();
            *changed.pointer_mut(&path).unwrap() = json!(HOSTILE);
            found.push(changed);
        }
    }

    #[test]
    fn no_value_can_break_out_of_its_place() {
        let mut statuses = Vec::new();
        each_hostile(&full(), &mut statuses);
        assert!(statuses.len() > 20);
        let mut histories = Vec::new();
        each_hostile(&records(), &mut histories);
        // Kinds and outcomes are words of the program and nothing else.
        histories.retain(|records| serde_json::from_value::<Vec<Record>>(records.clone()).is_ok());
        assert!(histories.len() > 10);
        let pages = statuses.into_iter().map(|status| render(status, records()));
        let pages = pages.chain(histories.into_iter().map(|records| render(full(), records)));
        let mut healths = Vec::new();
        each_hostile(&checks(), &mut healths);
        // Levels and bands are words of the program and nothing else.
        healths.retain(|checks| serde_json::from_value::<Health>(checks.clone()).is_ok());
        assert!(healths.len() > 15);
        let pages =
            pages.chain(healths.into_iter().map(|checks| render_with(full(), records(), checks)));
        let mut shown = 0;
        for page in pages {
            assert!(!page.contains("<script>evil"), "{page}");
            assert!(!page.contains("<img"), "{page}");
            assert!(!page.contains("\"'>"), "{page}");
            assert_eq!(page.matches("<script>").count(), 1);
            shown += usize::from(page.contains("&lt;script&gt;evil()"));
        }
        assert!(shown > 25, "{shown} of them are shown at all");
    }

    #[test]
    fn everything_that_a_person_needs_is_on_the_page_without_a_script() {
        let page = render(full(), records());
        for words in [
            "Failover is stuck",
            "3 alerts are not delivered",
            "not in use",
            "cannot be listened on",
            "trading",
            "equity",
            "silent for",
            "stale in",
            "no row",
            "upgrade",
            "Latched",
            "Cooldown",
            "unit failed",
            "equity.service",
            "cannot be judged",
            "class=\"timeline\"",
            "http-equiv=\"refresh\"",
            "hiccup",
            "epoch 4",
            "score 50, degraded",
            "1 red, 1 yellow, 1 green",
            "91 % (&gt; 90)",
            "wiki/pool",
        ] {
            // Numbers and words are in elements of their own here and there.
            let text = page.replace("<strong>", "").replace("</strong>", "");
            assert!(text.contains(words), "{words} in {page}");
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        let page = render(full(), records());
        for attribute in ["src=", "href=\"http", "url(", "@import", "style=\"", "onclick"] {
            assert!(!page.contains(attribute), "{attribute}");
        }
        assert!(page.len() < 64 * 1024, "{} bytes", page.len());
    }
}
