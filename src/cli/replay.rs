//! `understudy replay`: the recorded decisions once more, by the engine of this program.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use super::{Refused, Said, json as print_json};
use crate::config::settings::Settings;
use crate::engine::Engine;
use crate::engine::event::Event;
use crate::engine::explain::Explanation;
use crate::engine::policy::Policy;
use crate::runtime::recorder::{Line, What, paths};
use crate::time::BootTime;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  understudy replay\n  understudy replay --group trading \
                        --all incident/record.jsonl")]
pub(super) struct Arguments {
    /// Recordings, the oldest first; otherwise those of this node's state directory.
    files: Vec<PathBuf>,
    /// Only this group.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Also what led to nothing, such as each read of the database.
    #[arg(long)]
    all: bool,
}

pub(super) fn replay(
    settings: &Settings,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let files = if arguments.files.is_empty() {
        paths(&settings.state_dir).into_iter().filter(|path| path.exists()).collect()
    } else {
        arguments.files.clone()
    };
    let mut recording = Recording::read(&files)?;
    let (mut text, mut turns) = (String::new(), Vec::new());
    while let Some(turn) = recording.next() {
        let wanted = arguments.group.as_ref().is_none_or(|group| *group == turn.group);
        if !wanted || (!arguments.all && turn.words.is_empty() && turn.differs.is_none()) {
            continue;
        }
        text += &turn.text();
        if json {
            turns.push(json!({
                "at": turn.wall, "group": turn.group, "event": turn.event,
                "actions": turn.words, "differs": turn.differs,
            }));
        }
    }
    let code = u8::from(recording.differences > 0);
    if json {
        let said = json!({
            "turns": turns, "made_again": recording.made,
            "differences": recording.differences, "skipped_lines": recording.skipped,
        });
        return Ok(Said { text: print_json(&said)?, code });
    }
    text += &recording.summary();
    Ok(Said { text, code })
}

/// Recorded lines, and the engines that live through them again.
pub(super) struct Recording {
    lines: std::vec::IntoIter<Line>,
    engines: BTreeMap<String, (Engine, BootTime)>,
    /// Turns that were made once more.
    made: u64,
    /// Those among them that came out differently.
    differences: u64,
    /// Lines that are damaged, or lack what came before them.
    skipped: u64,
}

/// A turn that was made once more.
struct Turn {
    wall: String,
    group: String,
    event: String,
    /// What the engine says to it.
    words: Vec<String>,
    /// What the recording has instead, if that is something else.
    differs: Option<serde_json::Value>,
}

impl Recording {
    /// Reads files, the oldest first.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, Refused> {
        let (mut lines, mut skipped) = (Vec::new(), 0);
        for path in files {
            let text = fs::read(path)
                .map_err(|error| Refused(format!("cannot read {}: {error}", path.display())))?;
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match serde_json::from_slice(line) {
                    Ok(line) => lines.push(line),
                    // One that was cut off by a crash, or written by another version.
                    Err(_) => skipped += 1,
                }
            }
        }
        if lines.is_empty() {
            let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
            return Err(Refused(match files.as_slice() {
                [] => {
                    "nothing was recorded here yet; the daemon does that while it runs".to_owned()
                }
                files => format!("{} has no recorded line that can be read", files.join(", ")),
            }));
        }
        let lines = lines.into_iter();
        Ok(Self { lines, engines: BTreeMap::new(), made: 0, differences: 0, skipped })
    }

    /// Why a group would have been taken over, at a time or at the end.
    pub(super) fn explain(
        &mut self,
        group: Option<&str>,
        until: Option<SystemTime>,
    ) -> Result<Explanation, Refused> {
        while let Some(line) = self.lines.as_slice().first() {
            let at = humantime::parse_rfc3339(&line.wall).ok();
            if until.is_some_and(|until| at.is_some_and(|at| at > until)) {
                break;
            }
            self.step();
        }
        let names = || self.engines.keys().cloned().collect::<Vec<_>>().join(", ");
        let found = match group {
            Some(group) => self.engines.get(group),
            None if self.engines.len() > 1 => {
                return Err(Refused(format!("say which group: {}", names())));
            }
            None => self.engines.values().next(),
        };
        match found {
            Some((engine, at)) => Ok(engine.explain(*at)),
            None => Err(Refused(format!(
                "the recording has nothing of that group until then; it has: {}",
                names()
            ))),
        }
    }

    fn next(&mut self) -> Option<Turn> {
        while !self.lines.as_slice().is_empty() {
            if let Some(turn) = self.step() {
                return Some(turn);
            }
        }
        None
    }

    /// Takes in one line. A turn comes of those that are one.
    fn step(&mut self) -> Option<Turn> {
        let Line { wall, at, group, what } = self.lines.next()?;
        match what {
            What::Head { engine, .. } => {
                self.engines.insert(group, (engine, at));
                None
            }
            What::Policy { previous, policy } => {
                let (engine, last) = self.engines.get_mut(&group)?;
                pass_time(engine, &mut *last, previous);
                let event = changed(&policy);
                engine.apply(at, policy);
                Some(Turn { wall, group, event, words: Vec::new(), differs: None })
            }
            What::Turn { previous, event, actions } => {
                let Some((engine, last)) = self.engines.get_mut(&group) else {
                    self.skipped += 1;
                    return None;
                };
                pass_time(engine, last, previous);
                *last = at;
                let words = event.in_words();
                let said = engine.handle(at, event);
                let same = serde_json::to_value(&said).is_ok_and(|said| said == actions);
                self.made += 1;
                self.differences += u64::from(!same);
                let said = said.iter().map(|action| action.in_words()).collect();
                let differs = (!same).then_some(actions);
                Some(Turn { wall, group, event: words, words: said, differs })
            }
        }
    }

    fn summary(&self) -> String {
        let mut text = format!("\n{} turns made once more, ", self.made);
        text += &match self.differences {
            0 => "all with the same outcome\n".to_owned(),
            1 => "1 with another outcome\n".to_owned(),
            more => format!("{more} with another outcome\n"),
        };
        if self.skipped > 0 {
            text += &format!(
                "{} lines were left out: damaged, of another version, or without their beginning\n",
                self.skipped
            );
        }
        text
    }
}

/// The turns in which nothing happened are not recorded; how long they were apart does not matter
/// as long as it is too short for a standstill.
fn pass_time(engine: &mut Engine, last: &mut BootTime, until: BootTime) {
    while *last < until {
        let next = engine.next_deadline();
        let half = *last + next.since(*last) / 2;
        *last = if half > *last { half.min(until) } else { until };
        let _nothing = engine.handle(*last, Event::Wake);
    }
}

fn changed(policy: &Policy) -> String {
    format!("the configuration was loaded again (timeout {} s)", policy.timeout.as_secs_f64())
}

impl Turn {
    fn text(&self) -> String {
        let mut text = format!("{} {}: {}\n", self.wall, self.group, self.event);
        for words in &self.words {
            text += &format!("    → {words}\n");
        }
        if let Some(recorded) = &self.differs {
            text += &format!("    ! DIFFERS from what was decided then: {recorded}\n");
        }
        text
    }
}
