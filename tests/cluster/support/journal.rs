//! What understudy said, as the journal has it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// An entry of understudy that has an `UNDERSTUDY_EVENT`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When, in microseconds since 1970 by the clock that all hosts share.
    pub at_us: u64,
    /// `UNDERSTUDY_EVENT`.
    pub event: String,
    /// `UNDERSTUDY_EPOCH`, if it is about a tenure.
    pub epoch: Option<u64>,
    /// `UNDERSTUDY_STEP`, if it is about a step.
    pub step: Option<String>,
    /// Identity of the boot in which it was written.
    pub boot: String,
    /// Process that wrote it, as numbered on its host.
    pub process: String,
    /// `MESSAGE`.
    pub text: String,
}

/// The notable events in a journal directory, in order.
pub fn entries(directory: &Path) -> Vec<Entry> {
    let matches = ["--output=json", "_SYSTEMD_UNIT=understudy.service", "--all"];
    let lines = journalctl(directory, &matches);
    lines.lines().filter_map(|line| entry(&serde_json::from_str(line).unwrap())).collect()
}

/// Everything in a journal directory, for people.
pub fn whole(directory: &Path) -> String {
    journalctl(directory, &["--output=short-precise"])
}

fn entry(line: &Value) -> Option<Entry> {
    let text = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Entry {
        // When it was sent, rather than when the journal got to it.
        at_us: text("_SOURCE_REALTIME_TIMESTAMP")
            .or_else(|| text("__REALTIME_TIMESTAMP"))?
            .parse()
            .unwrap(),
        event: text("UNDERSTUDY_EVENT")?,
        epoch: text("UNDERSTUDY_EPOCH").map(|epoch| epoch.parse().unwrap()),
        step: text("UNDERSTUDY_STEP"),
        boot: text("_BOOT_ID")?,
        process: text("_PID")?,
        text: text("MESSAGE").unwrap_or_default(),
    })
}

/// Reads from this side, so that it works for a host that is off, too.
fn journalctl(directory: &Path, options: &[&str]) -> String {
    let output = Command::new("journalctl")
        .arg("--directory")
        .arg(directory)
        .args(["--quiet", "--no-pager", "--merge"])
        .args(options)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
