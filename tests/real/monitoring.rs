//! What is shipped for Prometheus and Grafana: it is valid, does what it should, and asks for nothing
//! that does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;
use understudy::telemetry::metrics::{self, Metric};

const RULES: &str = "packaging/prometheus/understudy.rules.yml";
const DASHBOARDS: [&str; 2] =
    ["packaging/grafana/system-health.json", "packaging/grafana/failover.json"];

fn promtool(arguments: &[&str]) {
    let ran = Command::new("promtool").args(arguments).output().expect("promtool is installed");
    let text = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "promtool {arguments:?}:\n{text}");
}

#[test]
fn prometheus_takes_the_rules_and_the_example() {
    promtool(&["check", "rules", RULES]);
    promtool(&["check", "config", "packaging/prometheus/prometheus.yml"]);
}

#[test]
fn the_rules_fire_when_they_should_and_not_before() {
    promtool(&["test", "rules", "packaging/prometheus/understudy.rules.test.yml"]);
    promtool(&["test", "rules", "packaging/prometheus/understudy.drill.test.yml"]);
}

#[test]
fn rules_and_dashboards_ask_for_what_there_is() {
    let samples: BTreeMap<String, &Metric> = metrics::ALL
        .iter()
        .flat_map(|metric| metric.samples().into_iter().map(|sample| (sample, *metric)))
        .collect();
    let mut asked = BTreeSet::new();
    for path in DASHBOARDS.into_iter().chain([RULES]) {
        let text = fs::read_to_string(path).unwrap();
        for expression in expressions(path, &text) {
            for (name, labels) in selectors(&expression) {
                let metric = samples.get(&name);
                let metric = metric.unwrap_or_else(|| panic!("{path}: there is no {name}"));
                for label in labels {
                    let known = metric.labels.contains(&label.as_str())
                        || ["job", "instance", "le"].contains(&label.as_str());
                    assert!(known, "{path}: {name} has no label {label}");
                }
                asked.insert(name);
            }
        }
    }
    assert!(asked.len() > 25, "{asked:?}");
}

/// The queries in a file.
fn expressions(path: &str, text: &str) -> Vec<String> {
    if path == RULES {
        // Everything that is not prose.
        let prose = ["summary:", "description:", "#"];
        let code = |line: &&str| !prose.iter().any(|word| line.trim_start().starts_with(word));
        return text.lines().filter(code).map(str::to_owned).collect();
    }
    let mut found = Vec::new();
    gather(&serde_json::from_str(text).unwrap(), &mut found);
    assert!(found.len() > 5, "{path}: {found:?}");
    found
}

fn gather(value: &Value, found: &mut Vec<String>) {
    if let Value::Object(map) = value {
        for (key, value) in map {
            match value {
                Value::String(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                    found.push(text.clone());
                }
                other => gather(other, found),
            }
        }
    } else if let Value::Array(items) = value {
        items.iter().for_each(|item| gather(item, found));
    }
}

/// The metrics in a query, with the labels that they are selected by.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find("understudy_") {
        rest = &rest[start..];
        let end = rest.find(|char| !word(char)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let inside = after.strip_prefix('{').and_then(|inside| inside.split('}').next());
        let labels = inside.unwrap_or_default().split(',').filter_map(|matcher| {
            let label = matcher.split(['=', '!']).next()?.trim();
            (!label.is_empty()).then(|| label.to_owned())
        });
        found.push((name.to_owned(), labels.collect()));
        rest = after;
    }
    found
}

#[test]
fn the_dashboards_are_whole() {
    for path in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert!(dashboard["title"].as_str().unwrap().starts_with("understudy"), "{path}");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{path}: {title}: id twice");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{path}: {title} sticks out");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{path}: {title} overlaps another panel");
                }
            }
            if panel["type"] != "row" {
                assert!(!panel["targets"].as_array().unwrap().is_empty(), "{path}: {title}");
                let description = panel["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{path}: {title} says not what it shows");
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{path}: {title}");
            }
        }
    }
}
