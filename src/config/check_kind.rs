//! What each kind of check has of its own: its keys, and what stands behind its number.

use std::time::Duration;

use super::check::{Common, fill};
use super::load::{hours, mins, plain, secs, span};
use super::monitoring::{
    HostMeasure, HttpMeasure, HttpProbe, JournalMeasure, KeySet, Probe, PrometheusAsk,
    PrometheusProbe, RedisMeasure, Reduce, Server, UnitMeasure,
};
use super::secret::Secret;
use super::section::{Count, Section, Setting, Span};
use super::values;
use crate::monitor::exposition::Selector;

/// Kinds as they are written.
pub(super) const KINDS: [(&str, Kind); 8] = [
    ("postgres", Kind::Postgres),
    ("redis", Kind::Redis),
    ("http", Kind::Http),
    ("unit", Kind::Unit),
    ("journal", Kind::Journal),
    ("host", Kind::Host),
    ("command", Kind::Command),
    ("prometheus", Kind::Prometheus),
];

/// Keys of any kind, which are not unknown as long as the kind is.
pub(super) const KEYS_OF_SOME_KIND: [&str; 27] = [
    "actual",
    "body",
    "ca_file",
    "command",
    "contains",
    "database",
    "expect",
    "field",
    "figure",
    "json",
    "key",
    "keys",
    "measure",
    "method",
    "metric",
    "path",
    "pattern",
    "percentile",
    "query",
    "reduce",
    "server",
    "status",
    "token",
    "unit",
    "url",
    "window",
    "value",
];

/// Kinds of check.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Postgres,
    Redis,
    Http,
    Unit,
    Journal,
    Host,
    Command,
    Prometheus,
}

/// Longest query or pattern. What is longer belongs into a view or a script.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Program and arguments. A script is the place for more.
const ARGUMENTS_MAX: usize = 100;

/// Ranges of good statuses.
const STATUSES_MAX: usize = 20;

/// Names on the way through JSON.
const PATH_MAX: usize = 32;

/// Over what rates are made unless something else is written.
const HTTP_WINDOW: Span = span(mins(5), secs(1), hours(24));

/// "Errors less than five a day" is what people count.
const JOURNAL_WINDOW: Span = span(hours(24), secs(1), hours(31 * 24));

/// Databases of one Redis. Its own default is 16; some have more.
const DATABASE: Count = Count { default: 0, least: 0, most: 10_000 };

/// Outside of these a percentile is the least or the greatest.
const PERCENTILE: Count = Count { default: 95, least: 1, most: 99 };

/// Reads the keys of a kind. With the probe comes what usually stands behind its number.
pub(super) fn read(
    kind: Kind,
    section: &mut Section<'_>,
    item: Option<&str>,
    common: &Common<'_>,
) -> (Probe, &'static str) {
    match kind {
        Kind::Postgres => (postgres(section, item, common), ""),
        Kind::Redis => (redis(section, item, common), ""),
        Kind::Http => http(section, item, common),
        Kind::Unit => unit(section, item),
        Kind::Journal => journal(section, item),
        Kind::Host => host(section, item),
        Kind::Command => (command(section, item), ""),
        Kind::Prometheus => (prometheus(section, item, common), ""),
    }
}

fn needed(section: &mut Section<'_>, key: &'static str, what: &str, item: Option<&str>) -> String {
    section.needed_text(key, what, |text| longer(&fill(text, item))).value
}

fn optional(
    section: &mut Section<'_>,
    key: &'static str,
    item: Option<&str>,
) -> Setting<Option<String>> {
    section.text_if_written(key, |text| longer(&fill(text, item)))
}

/// A text of bounded length that may have line breaks.
fn longer(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(format!("must be 1 to {TEXT_BYTES_MAX} bytes of text"));
    }
    Ok(text.to_owned())
}

/// The server that is asked: the one that is named, or the only one that it can be.
fn server(
    section: &mut Section<'_>,
    common: &Common<'_>,
    default: Option<&str>,
    fits: fn(&Server) -> bool,
    kind: &str,
) -> String {
    let server = section.text_if_written("server", values::label);
    let name = server.value.as_deref().or(default);
    let known = name.is_some_and(|name| common.servers.get(name).is_some_and(fits));
    let names: Vec<_> = common.servers.iter().filter(|(_, server)| fits(server)).collect();
    let names: Vec<_> = names.into_iter().map(|(name, _)| name.as_str()).collect();
    section.relation(
        known,
        &[&server.origin],
        match names.as_slice() {
            [] => format!("there is no {kind} to ask; write a table [server.NAME] with one"),
            names => format!(
                "say which {kind} to ask, by server = \"NAME\"; there are: {}",
                names.join(", ")
            ),
        },
    );
    name.unwrap_or_default().to_owned()
}

fn postgres(section: &mut Section<'_>, item: Option<&str>, common: &Common<'_>) -> Probe {
    let fits = |server: &Server| matches!(server, Server::Postgres(_));
    let server = server(section, common, Some("store"), fits, "Postgres");
    let what = "write a query that returns one number";
    Probe::Postgres { server, query: needed(section, "query", what, item) }
}

fn redis(section: &mut Section<'_>, item: Option<&str>, common: &Common<'_>) -> Probe {
    let fits = |server: &Server| matches!(server, Server::Redis(_));
    let mut only = common.servers.iter().filter(|(_, server)| fits(server));
    let default = match (only.next(), only.next()) {
        (Some((name, _)), None) => Some(name.as_str()),
        _ => None,
    };
    let server = server(section, common, default, fits, "Redis");
    let database = section.count("database", DATABASE).value;
    let field = optional(section, "field", item);
    let keys = optional(section, "keys", item);
    let value = optional(section, "value", item);
    let set = |text: &str| key_set(&longer(&fill(text, item))?);
    let expect = section.text_if_written("expect", set);
    let actual = section.text_if_written("actual", set);
    let audits = expect.is_written() || actual.is_written();
    let written = [field.is_written(), keys.is_written(), value.is_written(), audits];
    section.relation(
        written.into_iter().filter(|written| *written).count() == 1,
        &[&field.origin, &keys.origin, &value.origin, &expect.origin, &actual.origin],
        "say one thing to measure: field (of INFO), keys (a pattern), value (a key with a number), or \
         expect and actual (two sets of names)",
    );
    section.relation(
        expect.is_written() == actual.is_written(),
        &[&expect.origin, &actual.origin],
        "expect and actual belong together; write both",
    );
    let measure = match (field.value, keys.value, value.value, expect.value, actual.value) {
        (Some(field), ..) => RedisMeasure::Field(field),
        (_, Some(keys), ..) => RedisMeasure::Keys(keys),
        (_, _, Some(value), ..) => RedisMeasure::Value(value),
        (.., Some(expect), Some(actual)) => RedisMeasure::Audit { expect, actual },
        _ => RedisMeasure::Field(String::new()),
    };
    Probe::Redis { server, database, measure }
}

fn key_set(text: &str) -> Result<KeySet, String> {
    match text.split_once('*') {
        None => Ok(KeySet::Members(text.to_owned())),
        Some((prefix, suffix)) if !suffix.contains('*') => {
            Ok(KeySet::Keys { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
        }
        Some(_) => Err("a pattern has one \"*\", which stands for the name".to_owned()),
    }
}

/// An address that may be secret. In a template it is filled in where it is written plainly.
fn url(section: &mut Section<'_>, item: Option<&str>, common: &Common<'_>) -> Secret {
    let what = "write where to ask, like \"http://127.0.0.1:8080/health\"";
    let url = section.needed_secret_or_plain("url", what, common.around, |text| {
        values::check_url(&fill(text, item))
    });
    Secret::new(fill(url.value.expose(), item))
}

#[derive(Clone, Copy)]
enum Measure {
    Latency,
    Success,
    Status,
    Json,
}

fn http(
    section: &mut Section<'_>,
    item: Option<&str>,
    common: &Common<'_>,
) -> (Probe, &'static str) {
    let url = url(section, item, common);
    let post = section.choice("method", false, &[("get", false), ("post", true)]);
    let body = optional(section, "body", item);
    section.relation(
        body.value.is_none() || post.value,
        &[&body.origin, &post.origin],
        "a body is sent with method = \"post\" only",
    );
    let token = section.secret("token", common.around).value;
    let ca_file = section.text_if_written("ca_file", values::absolute_path).value;
    let status = section.list("status", STATUSES_MAX, statuses);
    let status = if status.is_written() { plain(status) } else { vec![(200, 299)] };
    let contains = optional(section, "contains", item).value;
    let json = section.text_if_written("json", |text| json_path(&fill(text, item)));
    let expect = optional(section, "expect", item);
    let usual = if json.is_written() { Measure::Json } else { Measure::Latency };
    let measures = [
        ("latency", Measure::Latency),
        ("success", Measure::Success),
        ("status", Measure::Status),
        ("json", Measure::Json),
    ];
    let measure = section.choice("measure", usual, &measures);
    let is_json = matches!(measure.value, Measure::Json);
    section.relation(
        is_json == json.is_written(),
        &[&json.origin, &measure.origin],
        "json = \"$.place.of.the[0].number\" belongs to measure = \"json\", and the other way round",
    );
    section.relation(
        !expect.is_written() || is_json,
        &[&expect.origin, &measure.origin],
        "expect is what is at the place that json names; write json too",
    );
    let percentile = section.count("percentile", PERCENTILE);
    let window = section.duration("window", HTTP_WINDOW);
    let (measure, suffix) = match measure.value {
        Measure::Latency if percentile.is_written() => {
            (HttpMeasure::Percentile(u8::try_from(percentile.value).unwrap_or(99)), "s")
        }
        Measure::Latency => (HttpMeasure::Latency, "s"),
        Measure::Success => (HttpMeasure::Success, "%"),
        Measure::Status => (HttpMeasure::Status, ""),
        Measure::Json => {
            (HttpMeasure::Json { path: json.value.unwrap_or_default(), expect: expect.value }, "")
        }
    };
    let (post, body, window) = (post.value, body.value, window.value);
    let probe = HttpProbe { url, post, body, token, ca_file, status, contains, measure, window };
    (Probe::Http(Box::new(probe)), suffix)
}

/// `200` or `200-299`.
fn statuses(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|s| (100..600).contains(s));
    let range = status(from).zip(status(to)).filter(|(from, to)| from <= to);
    range.ok_or_else(|| "not a status; write \"200\" or \"200-299\"".to_owned())
}

/// `$.data.pools[0].used`, with or without `$.`, as names and numbers.
fn json_path(text: &str) -> Result<Vec<String>, String> {
    let wrong = || "not a place in JSON; write it like \"$.data.pools[0].used\"".to_owned();
    let bare = text.trim().strip_prefix('$').unwrap_or(text.trim());
    let mut path = Vec::new();
    for part in bare.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        let name = pieces.next().unwrap_or_default();
        if !name.is_empty() {
            path.push(name.to_owned());
        }
        for index in pieces {
            let index = index.strip_suffix(']').ok_or_else(wrong)?;
            path.push(index.parse::<usize>().map_err(|_| wrong())?.to_string());
        }
    }
    if path.is_empty() || path.len() > PATH_MAX { Err(wrong()) } else { Ok(path) }
}

fn unit_name(section: &mut Section<'_>, item: Option<&str>) -> String {
    let what = "name the unit, like \"equity.service\"";
    section.needed_text("unit", what, |text| values::unit(&fill(text, item))).value
}

fn unit(section: &mut Section<'_>, item: Option<&str>) -> (Probe, &'static str) {
    let unit = unit_name(section, item);
    let measures = [
        ("active", UnitMeasure::Active),
        ("restarts", UnitMeasure::Restarts),
        ("uptime", UnitMeasure::Uptime),
        ("memory", UnitMeasure::Memory),
        ("cpu", UnitMeasure::Cpu),
    ];
    let measure = section.choice("measure", UnitMeasure::Active, &measures).value;
    let suffix = match measure {
        UnitMeasure::Active | UnitMeasure::Restarts => "",
        UnitMeasure::Uptime => "s",
        UnitMeasure::Memory => "B",
        UnitMeasure::Cpu => "%",
    };
    (Probe::Unit { unit, measure }, suffix)
}

fn journal(section: &mut Section<'_>, item: Option<&str>) -> (Probe, &'static str) {
    let unit = unit_name(section, item);
    let what = "write the regular expression that a message must match, like \"ERROR|CRITICAL\"";
    let pattern = needed(section, "pattern", what, item);
    let window = section.duration("window", JOURNAL_WINDOW);
    let within = window.value;
    type Of = fn(Duration) -> JournalMeasure;
    let measures: [(&str, Of); 3] = [
        ("count", JournalMeasure::Count),
        ("age", JournalMeasure::Age),
        ("after_start", |_| JournalMeasure::AfterStart),
    ];
    let measure = section.choice("measure", measures[0].1, &measures);
    let measure = (measure.value)(within);
    section.relation(
        !window.is_written() || measure != JournalMeasure::AfterStart,
        &[&window.origin],
        "window is of no use with measure = \"after_start\", which is about the unit's present run",
    );
    let suffix = if matches!(measure, JournalMeasure::Count(_)) { "" } else { "s" };
    (Probe::Journal { unit, pattern, measure }, suffix)
}

fn host(section: &mut Section<'_>, item: Option<&str>) -> (Probe, &'static str) {
    #[derive(Clone, Copy, PartialEq)]
    enum What {
        Cpu,
        Memory,
        Swap,
        Disk,
        Inodes,
        Load,
    }
    let measures = [
        ("cpu", What::Cpu),
        ("memory", What::Memory),
        ("swap", What::Swap),
        ("disk", What::Disk),
        ("inodes", What::Inodes),
        ("load", What::Load),
    ];
    let measure = section.needed_choice("measure", What::Load, &measures);
    let path = section.text("path", "/", |text| values::absolute_path(&fill(text, item)));
    section.relation(
        !path.is_written() || matches!(measure.value, What::Disk | What::Inodes),
        &[&path.origin, &measure.origin],
        "path is for measure = \"disk\" and \"inodes\" only",
    );
    let measure = match measure.value {
        What::Cpu => HostMeasure::Cpu,
        What::Memory => HostMeasure::Memory,
        What::Swap => HostMeasure::Swap,
        What::Disk => HostMeasure::Disk(path.value),
        What::Inodes => HostMeasure::Inodes(path.value),
        What::Load => HostMeasure::Load,
    };
    let suffix = if measure == HostMeasure::Load { "" } else { "%" };
    (Probe::Host(measure), suffix)
}

fn command(section: &mut Section<'_>, item: Option<&str>) -> Probe {
    let what = "write the plugin and its arguments, like [\"/usr/lib/nagios/plugins/check_load\"]";
    let command = section
        .needed_list("command", ARGUMENTS_MAX, what, |text| values::argument(&fill(text, item)));
    let program = command.value.first().map(|program| program.value.clone());
    section.relation(
        program.is_none_or(|program| values::absolute_path(&program).is_ok()),
        &[&command.origin],
        "the program must be an absolute path; no shell looks for it",
    );
    Probe::Command { command: plain(command), figure: optional(section, "figure", item).value }
}

fn prometheus(section: &mut Section<'_>, item: Option<&str>, common: &Common<'_>) -> Probe {
    let url = url(section, item, common);
    let token = section.secret("token", common.around).value;
    let ca_file = section.text_if_written("ca_file", values::absolute_path).value;
    let query = optional(section, "query", item);
    let metric =
        section.text_if_written("metric", |text| Selector::parse(&longer(&fill(text, item))?));
    section.relation(
        query.is_written() != metric.is_written(),
        &[&query.origin, &metric.origin],
        "write query for an expression that a Prometheus server computes, or metric for what an \
         exporter serves",
    );
    let reduces = [
        ("max", Reduce::Max),
        ("min", Reduce::Min),
        ("sum", Reduce::Sum),
        ("mean", Reduce::Mean),
        ("count", Reduce::Count),
    ];
    let reduce = section.choice("reduce", Reduce::Max, &reduces).value;
    let ask = match metric.value {
        Some(metric) => PrometheusAsk::Metric(metric),
        None => PrometheusAsk::Query(query.value.unwrap_or_default()),
    };
    Probe::Prometheus(Box::new(PrometheusProbe { url, token, ca_file, ask, reduce }))
}
