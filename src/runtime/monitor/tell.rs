//! Tells people of levels that change: in the journal always, by alert as each check says.
//!
//! What was told lasts until it is taken back, also when the process is another meanwhile: what an
//! earlier one told is read off the open alerts.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::board::News;
use crate::adapters::alert::{Open, Resolves};
use crate::config::monitoring::AlertFrom;
use crate::config::settings::{Settings, Severity};
use crate::monitor::level::Level;
use crate::runtime::tell::{Matter, Teller};
use crate::telemetry::logging::About;
use crate::telemetry::{Notable, emit};

/// In front of the key of every alert about a check.
const KEY: &str = "check/";

/// The voice of the monitoring.
pub(super) struct Voice {
    teller: Teller,
    node: String,
    /// What was told of each check and not taken back.
    told: BTreeMap<String, Resolves>,
}

/// What an earlier process told of checks, by name.
pub(super) fn told_before(open: &[Open]) -> BTreeMap<String, Resolves> {
    let name = |open: &Open| -> Option<String> {
        // The node's name is behind the last slash, as a check's may have one.
        let (name, _node) = open.dedup_key.strip_prefix(KEY)?.rsplit_once('/')?;
        Some(name.to_owned())
    };
    let told = open.iter().filter_map(|open| {
        let event = open.event.clone();
        Some((name(open)?, Resolves { event, severity: open.severity, since: open.since }))
    });
    told.collect()
}

impl Voice {
    pub(super) fn new(teller: Teller) -> Self {
        let told = told_before(&teller.open());
        Self { teller, node: String::new(), told }
    }

    /// The level that people were told of and believe in.
    pub(super) fn told(&self, check: &str) -> Option<Level> {
        let told = self.told.get(check)?;
        Some(if told.event == Notable::CheckRed.name() { Level::Red } else { Level::Yellow })
    }

    /// Takes back what was told of checks that there are no more.
    pub(super) fn checks_are(&mut self, settings: &Settings) {
        settings.node.clone_into(&mut self.node);
        let names: std::collections::BTreeSet<_> =
            settings.monitoring.checks.iter().map(|check| check.name.as_str()).collect();
        let gone: Vec<_> =
            self.told.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.take_back(&name, &format!("check {name} is not configured here any more"), "");
        }
    }

    /// Something about the monitoring itself is wrong.
    pub(super) fn failed(&self, text: &str) {
        self.teller.alert(Notable::MonitoringFailed, Severity::Warning, None, text);
    }

    /// A level changed.
    pub(super) fn tell(&mut self, news: &News) {
        let News { check, change, details } = news;
        let event = match change.to {
            Level::Red => Notable::CheckRed,
            Level::Yellow => Notable::CheckYellow,
            Level::Green | Level::Unknown => Notable::CheckGreen,
        };
        let text = format!("{} is {}: {}", check.name, change.to, change.text);
        // To be green from the beginning is no news.
        if change.from != Level::Unknown || change.to > Level::Green {
            let about = About { check: Some(&check.name), ..About::default() };
            emit(event, about, &text);
        }
        let least = match check.alert {
            AlertFrom::Yellow => Some(Level::Yellow),
            AlertFrom::Red => Some(Level::Red),
            AlertFrom::Never => None,
        };
        if least.is_none_or(|least| change.to < least) {
            let runbook = check.runbook.as_deref().unwrap_or_default();
            self.take_back(&check.name, &text, runbook);
            return;
        }
        let severity = if change.to == Level::Red { Severity::Critical } else { Severity::Warning };
        let mut preface: String = details.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        if let Some(runbook) = &check.runbook {
            preface += &format!("Runbook: {runbook}\n");
        }
        if !preface.is_empty() {
            preface.push('\n');
        }
        let mut fields = BTreeMap::new();
        let mut field = |name: &str, value: &str| fields.insert(name.to_owned(), value.to_owned());
        field("check", &check.name);
        field("check_group", &check.group);
        field("level", change.to.name());
        if let Some(runbook) = &check.runbook {
            field("runbook", runbook);
        }
        let key = self.key(&check.name);
        let told = self.told.entry(check.name.clone()).or_insert_with(|| Resolves {
            event: String::new(),
            severity,
            since: SystemTime::now(),
        });
        event.name().clone_into(&mut told.event);
        told.severity = told.severity.max(severity);
        let preface = preface.as_str();
        self.teller.matter(Matter { event, severity, key, text, preface, fields, resolves: None });
    }

    /// Says that it is over, if it was told.
    fn take_back(&mut self, check: &str, text: &str, runbook: &str) {
        let Some(told) = self.told.remove(check) else { return };
        let mut fields = BTreeMap::from([("check".to_owned(), check.to_owned())]);
        if !runbook.is_empty() {
            fields.insert("runbook".to_owned(), runbook.to_owned());
        }
        self.teller.matter(Matter {
            event: Notable::CheckGreen,
            severity: Severity::Info,
            key: self.key(check),
            text: text.to_owned(),
            preface: "",
            fields,
            resolves: Some(told),
        });
    }

    fn key(&self, check: &str) -> String {
        format!("{KEY}{check}/{}", self.node)
    }
}
