//! The tables of the monitoring: `[monitor]`, `[list.NAME]`, `[server.NAME]` and `[check.NAME]`.
//! What the kinds of check have of their own is in `check_kind`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check_kind::{self, KEYS_OF_SOME_KIND, KINDS};
use super::load::{self, Surroundings, hours, millis, mins, plain, secs, span};
use super::monitoring::{AlertFrom, Check, HostMeasure, Keeping, Monitoring, Probe, Server};
use super::section::{Count, Section, Setting, Span};
use super::settings::{Group, Host, Redis, Store};
use super::values;
use crate::monitor::level::Level;
use crate::monitor::threshold::Condition;
use crate::monitor::tracker::Rule;

/// Checks after templates are expanded. More than twice what one node is meant for; each costs a
/// task and some kilobytes.
const CHECKS_MAX: usize = 5_000;

/// Tables of checks.
const CHECK_TABLES_MAX: usize = 5_000;

/// Servers. Each has connections of its own.
const SERVERS_MAX: usize = 100;

/// Lists of items, and items of one.
const LISTS_MAX: usize = 100;
const ITEMS_MAX: usize = 2_000;

/// As often as most people scrape. Faster than 100 ms the checks would be the load.
const INTERVAL: Span = span(secs(30), millis(100), hours(24));

/// What takes longer is as good as down. The relation to the interval bounds it as well.
const DEADLINE: Span = span(secs(5), millis(10), mins(5));

/// How long something must be bad. Zero calls it at the first sample.
const SUSTAIN: Span = span(Duration::ZERO, Duration::ZERO, hours(7 * 24));

/// Over which time growth is told. A week of a slow leak is long enough.
const GROWTH_OVER: Span = span(hours(1), secs(1), hours(7 * 24));

/// In percent of a bound. With more than half of it a check would never recover.
const MARGIN: Count = Count { default: 0, least: 0, most: 50 };

/// One check counts as much as any other unless a person says more.
const WEIGHT: Count = Count { default: 1, least: 0, most: 1_000 };

/// What is between two samples that follow one another, in intervals: one may be lost.
const GAP_INTERVALS: u32 = 3;

/// Redis answers at once, or is not well.
const REDIS_CALL: Duration = secs(5);

/// Often enough for a report; a kill -9 loses as much.
const FLUSH: Span = span(mins(5), millis(100), hours(1));

/// Two weeks: a baseline over one of them, and the one before to compare with.
const KEEP: Span = span(hours(14 * 24), hours(24), hours(400 * 24));

/// A year and a month, so that a month can be compared with the same one of last year.
const KEEP_HOURS: Span = span(hours(400 * 24), hours(24), hours(3_650 * 24));

/// A weekend of five hundred checks at 30 s.
const SPOOL_BYTES: Count = Count { default: 64 << 20, least: 1 << 10, most: 1 << 36 };

/// What checks take over from `[monitor]`.
struct Defaults {
    interval: Setting<Duration>,
    deadline: Setting<Duration>,
    recover: Setting<Duration>,
    baseline: Setting<String>,
}

/// Reads everything about the monitoring.
pub(super) fn monitoring(
    root: &mut Section<'_>,
    store: &Store,
    groups: &[Group],
    around: &Surroundings,
) -> Monitoring {
    let (defaults, keeping) = root.table("monitor", |section| {
        let defaults = Defaults {
            interval: section.duration("interval", INTERVAL),
            deadline: section.duration("deadline", DEADLINE),
            recover: section.duration("recover_for", SUSTAIN),
            baseline: section.text("baseline", "default", values::label),
        };
        (defaults, keeping(section))
    });
    let lists = root.named_tables("list", LISTS_MAX, |name, section| {
        let what = "list the items, like [\"BTCUSDT\", \"ETHUSDT\"]";
        let items = section.needed_list("items", ITEMS_MAX, what, values::label);
        (name.to_owned(), plain(items))
    });
    let lists: BTreeMap<String, Vec<String>> = lists.into_iter().collect();
    let servers = servers(root, store, groups, around);
    let common = Common { defaults, lists, servers: &servers, around };
    let checks = root
        .named_tables("check", CHECK_TABLES_MAX, |name, section| template(name, section, &common));
    let checks: Vec<Check> = checks.into_iter().flatten().collect();
    if checks.len() > CHECKS_MAX {
        root.missing(&format!(
            "there are {} checks with all items of their lists, but at most {CHECKS_MAX} are allowed",
            checks.len()
        ));
        return Monitoring { checks: Vec::new(), servers, keeping };
    }
    Monitoring { checks, servers, keeping }
}

fn keeping(section: &mut Section<'_>) -> Keeping {
    let enabled = section.boolean("store", true);
    let flush = section.duration("flush", FLUSH);
    let samples = section.duration("keep", KEEP);
    let hours = section.duration("keep_hours", KEEP_HOURS);
    let spool_bytes = section.count("spool_max_bytes", SPOOL_BYTES);
    section.relation(
        hours.value >= samples.value,
        &[&hours.origin, &samples.origin],
        "keep_hours must be at least keep: the sums by the hour are what is left of samples",
    );
    Keeping {
        enabled: enabled.value,
        flush: flush.value,
        samples: samples.value,
        hours: hours.value,
        spool_bytes: spool_bytes.value,
    }
}

/// What all checks may refer to.
pub(super) struct Common<'a> {
    defaults: Defaults,
    lists: BTreeMap<String, Vec<String>>,
    pub(super) servers: &'a BTreeMap<String, Server>,
    pub(super) around: &'a Surroundings,
}

fn servers(
    root: &mut Section<'_>,
    store: &Store,
    groups: &[Group],
    around: &Surroundings,
) -> BTreeMap<String, Server> {
    let mut servers = BTreeMap::new();
    servers.insert("store".to_owned(), Server::Postgres(store.clone()));
    for group in groups {
        if let Some(redis) = &group.redis {
            servers.insert(group.name.clone(), Server::Redis(redis.clone()));
        }
    }
    let taken: Vec<String> = servers.keys().cloned().collect();
    let written = root.named_tables("server", SERVERS_MAX, |name, section| {
        let server = server(section, around);
        if taken.iter().any(|one| one == name) {
            section.missing("this name is that of the store or of a group's Redis; take another");
        }
        (name.to_owned(), server)
    });
    servers.extend(written);
    servers
}

#[derive(Clone, Copy)]
enum ServerKind {
    Postgres,
    Redis,
}

fn server(section: &mut Section<'_>, around: &Surroundings) -> Server {
    let kinds = [("postgres", ServerKind::Postgres), ("redis", ServerKind::Redis)];
    let kind = section.needed_choice("kind", ServerKind::Postgres, &kinds);
    if !kind.origin.is_sound() {
        section.let_pass(&[
            "hosts",
            "database",
            "user",
            "password",
            "tls",
            "ca_file",
            "connect_timeout",
            "address",
        ]);
        return Server::Redis(redis_at(Host::Tcp(String::new(), 0)));
    }
    match kind.value {
        ServerKind::Postgres => Server::Postgres(load::database(section, around)),
        ServerKind::Redis => {
            let default = Host::Tcp("127.0.0.1".to_owned(), 6379);
            let address = section.text("address", default, values::redis_host);
            Server::Redis(Redis {
                user: section.text_if_written("user", values::label).value,
                password: section.secret("password", around).value,
                tls: load::tls(section, false),
                ..redis_at(address.value)
            })
        }
    }
}

fn redis_at(address: Host) -> Redis {
    Redis {
        address,
        nodes: BTreeMap::new(),
        primary: None,
        user: None,
        password: None,
        tls: super::settings::Tls::Off,
        max_lag_bytes: 0,
        max_link_down: Duration::ZERO,
        allow_empty: false,
        call_timeout: REDIS_CALL,
    }
}

/// The checks that a table stands for: one, or one for each item of its list.
fn template(name: &str, section: &mut Section<'_>, common: &Common<'_>) -> Vec<Check> {
    let each = section.list("each", ITEMS_MAX, values::label);
    let each_of =
        section.text_if_written("each_of", |text| values::name(text).map(|()| text.to_owned()));
    section.relation(
        !each.is_written() || !each_of.is_written(),
        &[&each.origin, &each_of.origin],
        "each and each_of are both lists; keep one of them",
    );
    let items = match each_of.value.as_ref() {
        None if each.is_written() => plain(each),
        None => return vec![check(name, section, None, common)],
        Some(list) => {
            let found = common.lists.get(list);
            section.relation(
                found.is_some(),
                &[&each_of.origin],
                "there is no [list.NAME] of that name",
            );
            found.cloned().unwrap_or_default()
        }
    };
    if items.is_empty() {
        // Its keys are read all the same, so that their faults are told.
        drop(check(name, section, Some(""), common));
    }
    items.iter().map(|item| check(name, section, Some(item), common)).collect()
}

fn check(name: &str, section: &mut Section<'_>, item: Option<&str>, common: &Common<'_>) -> Check {
    let base = &common.defaults;
    let kind = section.needed_choice("kind", check_kind::Kind::Host, &KINDS);
    let group = section.text("group", "general", |text| values::label(&fill(text, item)));
    let interval = section.duration("interval", INTERVAL).or_inherit(&base.interval);
    let deadline = section.duration("deadline", DEADLINE).or_inherit(&base.deadline);
    let short = Setting { value: deadline.value.min(interval.value), ..deadline.clone() };
    section.relation(
        !deadline.is_written() || deadline.value <= interval.value,
        &[&deadline.origin, &interval.origin],
        "deadline must not be longer than interval, or attempts would overlap",
    );
    let sustain = section.duration("for", SUSTAIN);
    let recover = section.duration("recover_for", SUSTAIN);
    let recover = match (recover.is_written(), base.recover.is_written()) {
        (true, _) => recover.value,
        (false, true) => base.recover.value,
        // As long as it takes to be called bad: neither is news for a moment.
        (false, false) => sustain.value,
    };
    let conditions = [
        section.text_if_written("warning", |text| Condition::parse(&fill(text, item))),
        section.text_if_written("critical", |text| Condition::parse(&fill(text, item))),
    ];
    let margin = section.count("margin", MARGIN);
    let growth_over = section.duration("growth_over", GROWTH_OVER);
    let faults = [("red", Some(Level::Red)), ("yellow", Some(Level::Yellow)), ("keep", None)];
    let on_fault = section.choice("on_fault", Some(Level::Red), &faults);
    let weight = section.count("weight", WEIGHT);
    let runbook = section.text_if_written("runbook", |text| values::label(&fill(text, item)));
    let baseline = section.text("baseline", base.baseline.value.clone(), values::label);
    let alerts =
        [("yellow", AlertFrom::Yellow), ("red", AlertFrom::Red), ("never", AlertFrom::Never)];
    let alert = section.choice("alert", AlertFrom::Yellow, &alerts);
    let (probe, suffix) = if kind.origin.is_sound() {
        check_kind::read(kind.value, section, item, common)
    } else {
        section.let_pass(&KEYS_OF_SOME_KIND);
        (Probe::Host(HostMeasure::Load), "")
    };
    let suffix = section.text("suffix", suffix, |text| values::label(&fill(text, item)));
    let [warning, critical] = conditions.map(|condition| condition.value);
    Check {
        name: item.map_or_else(|| name.to_owned(), |item| format!("{name}/{item}")),
        group: group.value,
        interval: interval.value,
        deadline: short.value,
        rule: Rule {
            warning,
            critical,
            sustain: sustain.value,
            recover,
            margin: f64::from(u32::try_from(margin.value).unwrap_or(0)),
            on_fault: on_fault.value,
            growth_over: growth_over.value,
            gap: interval.value * GAP_INTERVALS + short.value,
            suffix: suffix.value,
        },
        baseline: baseline.value,
        weight: u32::try_from(weight.value).unwrap_or(u32::MAX),
        runbook: runbook.value,
        alert: alert.value,
        probe,
    }
}

/// The text for one item of a list.
pub(super) fn fill(text: &str, item: Option<&str>) -> String {
    match item {
        Some(item) => text.replace("{each}", item),
        None => text.to_owned(),
    }
}
