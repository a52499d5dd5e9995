//! What keeps the code as it was meant: layers, sizes, and nothing left lying about. All faults at
//! once, each with its place.

#![allow(clippy::expect_used, reason = "a test that cannot go on must say so")]

use std::fs;
use std::path::{Path, PathBuf};

/// Which parts of the crate each part may use; the longest matching prefix counts. No arrow goes
/// up.
const LAYERS: [(&str, &[&str]); 14] = [
    ("src/time.rs", &[]),
    ("src/crash.rs", &[]),
    ("src/error.rs", &[]),
    ("src/files.rs", &["time"]),
    ("src/engine/", &["engine", "time"]),
    ("src/monitor/", &["monitor", "time"]),
    ("src/config/", &["config", "monitor", "engine", "error", "time"]),
    (
        "src/adapters/",
        &["adapters", "config", "crash", "monitor", "engine", "error", "files", "time"],
    ),
    ("src/control/", &["control", "config", "monitor", "engine", "error", "time"]),
    ("src/telemetry/", &["telemetry", "config", "engine", "error", "time"]),
    (
        "src/web/",
        &[
            "web",
            "adapters",
            "control",
            "telemetry",
            "config",
            "monitor",
            "engine",
            "error",
            "time",
        ],
    ),
    (
        "src/guard/",
        &["guard", "adapters", "telemetry", "config", "engine", "error", "files", "time"],
    ),
    (
        "src/runtime/",
        &[
            "runtime",
            "files",
            "web",
            "adapters",
            "control",
            "telemetry",
            "config",
            "monitor",
            "crash",
            "engine",
            "error",
            "time",
        ],
    ),
    (
        "src/cli/",
        &[
            "cli",
            "runtime",
            "guard",
            "files",
            "web",
            "adapters",
            "control",
            "telemetry",
            "config",
            "monitor",
            "engine",
            "error",
            "time",
        ],
    ),
];

/// A pure core has no use for them.
const NOT_IN_THE_ENGINE: [&str; 12] = [
    "tokio",
    "Instant",
    "SystemTime",
    "BootTime::now",
    "HashMap",
    "HashSet",
    "rand::",
    "tracing",
    "f32",
    "f64",
    "async ",
    "unwrap(",
];

/// Things that somebody meant to come back to. Written so that this file does not find itself.
const UNFINISHED: [&str; 4] =
    [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X"), "dbg!("];

/// rustfmt holds code to 100; a sentence in a string may stick out a little.
const LINE_CHARS_MAX: usize = 110;

/// What fits on a screen can be judged at once.
const FUNCTION_LINES_MAX: usize = 80;

#[test]
fn the_sources_are_as_they_were_meant() {
    let mut faults = Vec::new();
    for path in sources(&["src", "tests"]) {
        let text = fs::read_to_string(&path).expect("a source can be read");
        let path = path.to_string_lossy().into_owned();
        for (number, line) in text.lines().enumerate() {
            let mut fault = |what: String| faults.push(format!("{path}:{}: {what}", number + 1));
            if path.starts_with("src/") && line.chars().count() > LINE_CHARS_MAX {
                fault(format!("longer than {LINE_CHARS_MAX} characters"));
            }
            for word in UNFINISHED {
                if line.contains(word) && path != "tests/tidy.rs" {
                    fault(format!("{word} is unfinished business"));
                }
            }
            let code = line.split("//").next().unwrap_or_default();
            check_line(&path, code, &mut fault);
        }
        if path.starts_with("src/") {
            long_functions(&path, &text, &mut faults);
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn check_line(path: &str, code: &str, fault: &mut impl FnMut(String)) {
    let prints = ["println!", "print!(", "eprintln!", "eprint!("];
    let may_print = path.starts_with("src/cli") || path == "src/main.rs";
    if path.starts_with("src/") && !may_print && prints.iter().any(|print| code.contains(print)) {
        fault("only the command line prints".to_owned());
    }
    if path.starts_with("src/engine/") && !path.contains("/tests/") {
        for word in NOT_IN_THE_ENGINE.iter().filter(|word| code.contains(*word)) {
            fault(format!("{word} in the engine"));
        }
    }
    if path.starts_with("src/monitor/") {
        // As pure, but it computes with floats and counts names.
        let may = ["HashMap", "HashSet", "f32", "f64", "unwrap("];
        for word in NOT_IN_THE_ENGINE.iter().filter(|word| code.contains(*word)) {
            if !may.contains(word) {
                fault(format!("{word} in the core of the monitoring"));
            }
        }
    }
    let Some((layer, allowed)) = LAYERS.iter().find(|(layer, _)| path.starts_with(layer)) else {
        return;
    };
    for used in code.split("crate::").skip(1) {
        let part =
            used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        if !part.is_empty() && !allowed.contains(&part) {
            fault(format!("{layer} may not use {part}"));
        }
    }
    if let Some(own) = path.strip_prefix("src/adapters/") {
        let own = own.split(['/', '.']).next().unwrap_or_default();
        for used in code.split("adapters::").skip(1) {
            // What runs a command, and what knows whom to trust, are tools for the others. A guard is a
            // unit.
            let tool = used.starts_with("hook")
                || used.starts_with("trust")
                || (own == "guard" && used.starts_with("systemd"));
            if own != "mod" && !used.starts_with(own) && !tool {
                fault("adapters do not use one another".to_owned());
            }
        }
    }
}

/// As rustfmt lays them out: a function ends with a brace under its first letter.
fn long_functions(path: &str, text: &str, faults: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn "]
            .iter()
            .any(|head| code.starts_with(head))
            || (code.starts_with("pub") && code.contains(" fn "));
        if !is_function || code.ends_with('}') || code.ends_with(';') {
            continue;
        }
        let end = format!("{indent}}}");
        let size = lines[start..].iter().position(|line| *line == end).map_or(0, |size| size + 1);
        if size > FUNCTION_LINES_MAX {
            let number = start + 1;
            faults.push(format!("{path}:{number}: a function of {size} lines"));
        }
    }
}

fn sources(roots: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory can be read");
            left.extend(entries.map(|entry| entry.expect("an entry can be read").path()));
        } else if path.extension() == Some(Path::new("rs").as_os_str()) {
            found.push(path);
        }
    }
    found.sort();
    assert!(found.len() > 20, "the sources were not found: run from the root of the package");
    found
}
