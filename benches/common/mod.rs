//! What the benchmarks share: figures of samples, tables, and what a process costs.

#![allow(dead_code, reason = "each benchmark needs a part of it")]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use understudy::time::BootTime;

/// Samples, in order.
pub struct Figures {
    sorted: Vec<f64>,
    pub median: f64,
    pub p99: f64,
}

impl Figures {
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| samples[((samples.len() - 1) as f64 * part).round() as usize];
        Self { median: at(0.5), p99: at(0.99), sorted: samples }
    }

    pub fn min(&self) -> f64 {
        self.sorted[0]
    }

    pub fn max(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }

    /// The heads of the columns that [`Figures::cells`] fills.
    pub const HEADS: [&'static str; 5] = ["min", "median", "p99", "max", "n"];

    pub fn cells(&self) -> Vec<String> {
        let mut cells: Vec<_> = [self.min(), self.median, self.p99, self.max()]
            .iter()
            .map(|sample| format!("{sample:.1}"))
            .collect();
        cells.push(self.sorted.len().to_string());
        cells
    }

    pub fn json(&self) -> Value {
        json!({
            "n": self.sorted.len(), "min": self.min(), "median": self.median,
            "p99": self.p99, "max": self.max(),
        })
    }
}

/// What a benchmark has to say, for people, for docs/performance.md and for programs.
pub struct Report {
    name: &'static str,
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
    json: Value,
}

impl Report {
    pub fn new(name: &'static str, heads: &[&str]) -> Self {
        let heads = heads.iter().map(|head| (*head).to_owned()).collect();
        Self { name, heads, rows: Vec::new(), notes: Vec::new(), json: json!({ "bench": name }) }
    }

    pub fn row(&mut self, what: &str, cells: Vec<String>) {
        let mut row = vec![what.to_owned()];
        row.extend(cells);
        self.rows.push(row);
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub fn json(&mut self, key: &str, value: Value) {
        self.json[key] = value;
    }

    /// Prints it, and leaves it where `scripts/bench` says.
    pub fn finish(self) {
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].chars().count());
                cells.chain([self.heads[column].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let mut markdown =
            format!("| {} |\n|{}\n", self.heads.join(" | "), { "---|".repeat(self.heads.len()) });
        for row in std::iter::once(&self.heads).chain(&self.rows) {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(text, "{cell:width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        for row in &self.rows {
            let _ = writeln!(markdown, "| {} |", row.join(" | "));
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
            let _ = write!(markdown, "\n{note}\n");
        }
        println!("\n{text}{}", self.json);
        if let Some(out) = std::env::var_os("UNDERSTUDY_BENCH_OUT").map(PathBuf::from) {
            fs::write(out.join(format!("{}.md", self.name)), markdown).expect("it can be written");
            fs::write(out.join(format!("{}.json", self.name)), self.json.to_string())
                .expect("it can be written");
        }
    }
}

/// A number from the environment, to run more or less than is usual.
pub fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// The number in front of these words where they came last.
pub fn number_before(log: &str, words: &str) -> f64 {
    let line = log.lines().rfind(|line| line.contains(words)).expect("the log has it");
    let before = line.split(words).next().expect("the log has it");
    // The log has whole milliseconds, cut off.
    before
        .split_whitespace()
        .next_back()
        .expect("the log has it")
        .parse::<f64>()
        .expect("the log has it")
        + 0.5
}

/// What a process has cost so far, and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    at: BootTime,
    /// Processor time of all its threads.
    pub cpu: Duration,
    /// Memory in KiB, and the part of it that is its own.
    pub rss_kib: u64,
    pub anonymous_kib: u64,
    pub threads: u64,
    pub files: usize,
    /// How often a thread of it had waited and was woken.
    pub wakeups: u64,
}

impl Cost {
    pub fn of(pid: i32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        // The name of the program may have spaces in it.
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
        let ticks: u64 = [12, 13].iter().map(|at| fields[*at].parse::<u64>().expect("ticks")).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let wakeups = fs::read_dir(format!("/proc/{pid}/task"))
            .expect("it runs")
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .map(|status| field(&status, "voluntary_ctxt_switches:"))
            .sum();
        Self {
            at: BootTime::now(),
            // The kernel counts in hundredths for programs.
            cpu: Duration::from_millis(ticks * 10),
            rss_kib: field(&status, "VmRSS:"),
            anonymous_kib: field(&status, "RssAnon:"),
            threads: field(&status, "Threads:"),
            files: fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count(),
            wakeups,
        }
    }

    /// Seconds between two looks.
    fn span(&self, before: &Self) -> f64 {
        self.at.since(before.at).as_secs_f64()
    }

    /// The part of one processor that it took since then.
    pub fn load(&self, before: &Self) -> f64 {
        (self.cpu - before.cpu).as_secs_f64() / self.span(before)
    }

    pub fn wakeups_a_second(&self, before: &Self) -> f64 {
        (self.wakeups - before.wakeups) as f64 / self.span(before)
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
