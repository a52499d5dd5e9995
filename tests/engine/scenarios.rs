//! Situations to read. A file says what happens, and below `----` what the engine makes of it;
//! `UPDATE_EXPECT=1` rewrites the second half, to be read before it is committed.
//!
//! What is not said goes well: the store answers at once, a check takes 0.1 s, each step 1 s, and
//! the units beat as soon as they are started. Reads are not listed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use understudy::engine::Engine;
use understudy::engine::edge::Kind;
use understudy::engine::event::{
    Acquire, Action, Answer, Command, Event, Memory, Outcome, Recalled,
};
use understudy::engine::observation::{Bot, Epoch, Hold, Lease, Nonce, Observation, StoreIdentity};
use understudy::engine::plan::Step;
use understudy::engine::policy::Policy;
use understudy::time::BootTime;

use crate::support::{at, lease, ms, policy};

const DIRECTORY: &str = "tests/engine/scenarios";
const INTERVAL: u64 = 10_000;
const BEAT: u64 = 30_000;
/// The host was booted a while before the story begins.
const BOOTED: u64 = 1_000_000;

#[test]
fn each_situation_goes_as_it_is_written() {
    let mut faults = Vec::new();
    let mut files: Vec<_> = fs::read_dir(DIRECTORY)
        .expect("there are scenarios")
        .map(|it| it.expect("a file"))
        .collect();
    files.sort_by_key(fs::DirEntry::path);
    for file in &files {
        let path = file.path();
        let text = fs::read_to_string(&path).expect("a scenario can be read");
        let (story, expected) = text.split_once("----\n").unwrap_or((&text, ""));
        let told = Stage::new().play(story, &path);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, format!("{story}----\n{told}")).expect("a scenario can be written");
        } else if told != expected {
            faults.push(format!("{}\nexpected:\n{expected}\ntold:\n{told}", path.display()));
        }
    }
    assert!(files.len() >= 30, "only {} scenarios", files.len());
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n\n"));
}

/// What the engine's questions are answered with, and when.
struct Due {
    at: u64,
    event: Event,
}

struct Stage {
    now: u64,
    policy: Policy,
    engine: Option<Engine>,
    lives: u128,
    frozen_until: u64,
    boot: u64,
    disk: Option<(Memory, u64, u64)>,
    due: Vec<Due>,
    next_read: u64,
    reads_take: u64,
    store_fault: Option<String>,
    identity: u64,
    lease: Lease,
    cooldown_until: u64,
    rows: [Row; 2],
    ahead_ms: i64,
    problems: Vec<String>,
    verdict: String,
    outcomes: Vec<(Step, Outcome)>,
    stop_fault: Option<String>,
    units_here: bool,
    units_beat: bool,
    told: String,
}

struct Row {
    beats: u64,
    next_beat: Option<u64>,
    by_us: bool,
    status: String,
    fault: Option<Bot>,
}

impl Stage {
    fn new() -> Self {
        let row = || Row {
            beats: 0,
            next_beat: Some(0),
            by_us: false,
            status: "PRIMARY".to_owned(),
            fault: None,
        };
        Self {
            now: 0,
            policy: policy(),
            engine: None,
            lives: 0,
            frozen_until: 0,
            boot: 0,
            disk: None,
            due: Vec::new(),
            next_read: 0,
            reads_take: 0,
            store_fault: None,
            identity: 1,
            lease: lease(1, "alpha"),
            cooldown_until: 0,
            rows: [row(), row()],
            ahead_ms: 0,
            problems: Vec::new(),
            verdict: "granted".to_owned(),
            outcomes: Vec::new(),
            stop_fault: None,
            units_here: false,
            units_beat: true,
            told: String::new(),
        }
    }

    fn play(mut self, story: &str, path: &Path) -> String {
        let lines = story.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        for line in lines {
            let (when, what) = line.split_once(' ').expect("a line says when and what");
            let when = millis(when);
            assert!(when >= self.now, "{}: {line}: is in the past", path.display());
            if self.engine.is_none() && self.lives == 0 && when > 0 {
                self.start();
            }
            self.pass(when);
            if !self.hear(what.trim()) {
                panic!("{}: nobody understands: {line}", path.display());
            }
        }
        self.told
    }

    /// Lets time pass, with all that happens until then.
    fn pass(&mut self, until: u64) {
        loop {
            let mut next = until;
            for row in &self.rows {
                next = next.min(row.next_beat.unwrap_or(next));
            }
            if let Some(engine) = &self.engine {
                let mut turn = self.due.iter().map(|due| due.at).min().unwrap_or(next);
                turn = turn.min(self.read_at(engine)).min(story_time(engine.next_deadline()));
                next = next.min(turn.max(self.frozen_until));
            }
            self.now = self.now.max(next);
            self.beat();
            let acted = self.act();
            if !acted && self.now >= until {
                return;
            }
        }
    }

    fn beat(&mut self) {
        let up = self.store_fault.is_none();
        for row in &mut self.rows {
            if row.next_beat.is_some_and(|at| at <= self.now) {
                row.beats += u64::from(up);
                row.next_beat = Some(self.now + BEAT);
            }
        }
    }

    fn read_at(&self, engine: &Engine) -> u64 {
        if self.due.iter().any(|due| is_read(&due.event)) {
            return u64::MAX;
        }
        engine.wants_read_at().map_or(self.next_read, |at| story_time(at).min(self.next_read))
    }

    /// One turn of the engine, if one is due.
    fn act(&mut self) -> bool {
        let Some(engine) = &self.engine else { return false };
        if self.now < self.frozen_until {
            return false;
        }
        if let Some(index) = self.due.iter().position(|due| due.at <= self.now) {
            let event = self.due.remove(index).event;
            self.turn(event);
            return true;
        }
        if self.read_at(engine) <= self.now {
            self.next_read = self.now + INTERVAL;
            let event = self.read();
            let took = self.reads_take.min(2_000);
            self.due.push(Due { at: self.now + took, event });
            return true;
        }
        if story_time(engine.next_deadline()) <= self.now {
            self.turn(Event::Wake);
            return true;
        }
        false
    }

    fn read(&self) -> Event {
        if let Some(fault) = &self.store_fault {
            return Event::ObserveFailed { fault: fault.clone() };
        }
        if self.reads_take > 2_000 {
            return Event::ObserveFailed { fault: "no answer within 2 s".to_owned() };
        }
        let bots = self.rows.iter().map(|row| match &row.fault {
            Some(fault) => fault.clone(),
            None => Bot::Beat {
                value: format!("beat {}", row.beats),
                status: row.status.clone(),
                age_ms: Some(-self.ahead_ms),
            },
        });
        let mut lease = self.lease.clone();
        let left = self.cooldown_until.saturating_sub(self.now);
        lease.cooldown_left = (left > 0).then(|| ms(left));
        let observation = Observation {
            store: StoreIdentity(self.identity.to_string()),
            seen_at: String::new(),
            lease,
            bots: bots.collect(),
            members: Vec::new(),
            request: None,
        };
        Event::Observed { sent: boot_time(self.now), observation }
    }

    fn turn(&mut self, event: Event) {
        let Some(engine) = &mut self.engine else { return };
        let actions = engine.handle(boot_time(self.now), event);
        for action in actions {
            self.perform(action);
        }
    }

    fn say(&mut self, text: &str) {
        let (secs, millis) = (self.now / 1_000, self.now % 1_000);
        let _ = match millis {
            0 => writeln!(self.told, "{secs:>5}s      {text}"),
            _ => writeln!(self.told, "{secs:>5}.{millis:03}s  {text}"),
        };
    }

    fn answer_in(&mut self, millis: u64, event: Event) {
        self.due.push(Due { at: self.now + millis, event });
    }

    fn perform(&mut self, action: Action) {
        let words = action.in_words();
        match action {
            Action::Check { .. } => {
                if self.engine.as_ref().is_some_and(|engine| engine.kind() == Kind::Checking) {
                    self.say(&words);
                }
                let problems = self.problems.clone();
                self.answer_in(100, Event::Checked { problems });
            }
            Action::Acquire(question) => {
                self.say(&words);
                self.disk = Some((question.memory, self.now, self.boot));
                self.decide(&question);
            }
            Action::Look
            | Action::Announce(_)
            | Action::EndRequest { .. }
            | Action::HandOver { .. }
            | Action::Rejoin { .. } => panic!("only in paired mode: {words}"),
            Action::Remember(memory) => self.disk = Some((memory, self.now, self.boot)),
            Action::Run { step, token, .. } => {
                self.say(&words);
                let outcome = self.outcome(step);
                if step == Step::Start && !matches!(outcome, Outcome::Failed(_)) {
                    self.start_units();
                }
                self.answer_in(1_000, Event::StepEnded { epoch: token.epoch, step, outcome });
            }
            Action::StopUnits { .. } => {
                self.say(&words);
                let fault = self.stop_fault.clone();
                if fault.is_none() {
                    self.stop_units();
                }
                // What was under way is cancelled.
                self.due.retain(|due| !matches!(due.event, Event::StepEnded { .. }));
                self.answer_in(1_000, Event::UnitsStopped { fault });
            }
            Action::Tell(_) | Action::Moved(_) | Action::Answer { .. } => self.say(&words),
        }
    }

    fn outcome(&self, step: Step) -> Outcome {
        let said = self.outcomes.iter().rev().find(|(said, _)| *said == step);
        said.map_or(Outcome::Done, |(_, outcome)| outcome.clone())
    }

    fn decide(&mut self, question: &Acquire) {
        let verdict = self.verdict.clone();
        let answer = match verdict.split_once(": ").unwrap_or((&verdict, "")) {
            ("granted", _) => Answer::Granted(self.grant(question)),
            ("granted without an answer", why) => {
                self.grant(question);
                Answer::Unknown(why.to_owned())
            }
            ("not answered", why) => Answer::Unknown(why.to_owned()),
            ("refused", why) => Answer::Refused(why.to_owned()),
            _ => Answer::RefusedChanged("a heartbeat changed".to_owned()),
        };
        self.answer_in(20, Event::Acquired { nonce: question.nonce, answer });
    }

    fn grant(&mut self, question: &Acquire) -> Epoch {
        let epoch = Epoch(self.lease.epoch.max(question.min_epoch).0 + 1);
        self.lease = Lease { nonce: Some(question.nonce), ..lease(epoch.0, "beta") };
        self.cooldown_until = self.now + 300_000;
        epoch
    }

    fn start_units(&mut self) {
        self.units_here = true;
        for row in &mut self.rows {
            if self.units_beat {
                row.by_us = true;
                row.next_beat = Some(self.now + 1_500);
            }
        }
    }

    fn stop_units(&mut self) {
        self.units_here = false;
        for row in self.rows.iter_mut().filter(|row| row.by_us) {
            row.by_us = false;
            row.next_beat = None;
        }
    }

    fn start(&mut self) {
        let recalled = self.disk.map(|(memory, at, boot)| {
            let same_boot = boot == self.boot;
            Recalled {
                memory,
                recent: same_boot && ms(self.now - at) < self.policy.timeout,
                same_boot,
                units_active: self.units_here,
            }
        });
        self.lives += 1;
        let first = Nonce(self.lives << 64);
        let engine = Engine::new(boot_time(self.now), self.policy.clone(), first, recalled);
        self.engine = Some(engine);
        self.due.clear();
        self.next_read = self.now;
    }

    /// Makes a line of the story true.
    fn hear(&mut self, what: &str) -> bool {
        let (head, tail) = what.split_once(": ").unwrap_or((what, ""));
        match head {
            "end" => {}
            "status" => {
                let engine = self.engine.as_ref().expect("understudy runs");
                let sentence = engine.snapshot(boot_time(self.now)).sentence;
                self.say(&format!("status: {sentence}"));
            }
            "understudy only alerts" => self.policy.automatic = false,
            "both bots must be silent" => self.policy.all_bots = true,
            "understudy is killed" => self.engine = None,
            "understudy starts" => self.start(),
            "the host reboots" => {
                self.engine = None;
                self.boot += 1;
                self.stop_units();
            }
            "operator" => {
                let command = Command::Failover { force: tail == "failover --force" };
                self.turn(Event::Operator { request: 1, command });
            }
            "released" => self.lease.hold = None,
            "latched" => self.lease.latched = true,
            "acknowledged" => self.lease.latched = false,
            "this node is unfit" => self.problems = vec![tail.to_owned()],
            "this node is fit" => self.problems.clear(),
            "the units do not beat" => self.units_beat = false,
            "the units beat" => {
                self.units_beat = true;
                self.start_units();
            }
            "stopping fails" => self.stop_fault = Some(tail.to_owned()),
            "stopping works" => self.stop_fault = None,
            _ => {
                return self.hear_of_store(head, tail)
                    || self.hear_of_bots(head)
                    || self.hear_of_steps(head, tail);
            }
        }
        true
    }

    fn hear_of_store(&mut self, head: &str, tail: &str) -> bool {
        let after = |prefix: &str| head.strip_prefix(prefix);
        if head == "the store is down" {
            self.store_fault = Some(tail.to_owned());
        } else if head == "the store is up" {
            self.store_fault = None;
        } else if head == "the store restarts" {
            self.identity += 1;
        } else if let Some(took) = after("reads take ") {
            self.reads_take = millis(took);
        } else if let Some(ahead) = after("the clock of the store is ahead by ") {
            self.ahead_ms = -millis(ahead).cast_signed();
        } else if let Some(epoch) = after("the store is restored to epoch ") {
            self.identity += 1;
            self.lease = lease(epoch.parse().expect("a number"), "alpha");
        } else if let Some(node) = after("the group goes to ") {
            self.lease = lease(self.lease.epoch.0 + 1, node);
        } else if let Some(by) = after("held by ") {
            let hold = Hold { by: by.to_owned(), reason: tail.to_owned(), left: None };
            self.lease.hold = Some(hold);
        } else if let Some(span) = after("cooldown for ") {
            self.cooldown_until = self.now + millis(span);
        } else if let Some(verdict) = after("the lease will be ") {
            self.verdict = format!("{verdict}: {tail}");
        } else if let Some(span) = after("understudy stands still for ") {
            self.frozen_until = self.now + millis(span);
        } else {
            return false;
        }
        true
    }

    fn hear_of_bots(&mut self, head: &str) -> bool {
        if let Some(span) = head.strip_prefix("the heartbeats are ahead by ") {
            self.ahead_ms = millis(span).cast_signed();
            return true;
        }
        let now = self.now;
        for (index, bot) in ["equity", "crypto"].into_iter().enumerate() {
            let row = &mut self.rows[index];
            let what = head.strip_prefix(bot).or_else(|| head.strip_prefix("the primary"));
            let Some(what) = what else { continue };
            match what.trim_start() {
                "dies" => row.next_beat = None,
                "beats" => row.next_beat = Some(now),
                "has no row" => row.fault = Some(Bot::Missing),
                "has two rows" => row.fault = Some(Bot::Duplicate { rows: 2 }),
                "has no heartbeat" => row.fault = Some(Bot::Null { status: row.status.clone() }),
                "has its row again" => row.fault = None,
                other => match other.strip_prefix("has status ") {
                    Some(status) => status.clone_into(&mut row.status),
                    None => return false,
                },
            }
            if head.starts_with(bot) {
                return true;
            }
        }
        head.starts_with("the primary")
    }

    fn hear_of_steps(&mut self, head: &str, tail: &str) -> bool {
        let Some((name, what)) = head.split_once(' ') else { return false };
        let Some(step) = Step::from_name(name) else { return false };
        let outcome = match what {
            "fails" => Outcome::Failed(tail.to_owned()),
            "warns" => Outcome::DoneBut(tail.to_owned()),
            "works" => Outcome::Done,
            _ => return false,
        };
        self.outcomes.push((step, outcome));
        true
    }
}

const fn is_read(event: &Event) -> bool {
    matches!(event, Event::Observed { .. } | Event::ObserveFailed { .. })
}

fn boot_time(story: u64) -> BootTime {
    at(BOOTED + story)
}

fn story_time(at: BootTime) -> u64 {
    let millis = u64::try_from(at.since_boot().as_millis()).expect("no story is that long");
    millis.saturating_sub(BOOTED)
}

fn millis(text: &str) -> u64 {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => match text.strip_suffix('m') {
            Some(number) => (number, 60_000),
            None => match text.strip_suffix('h') {
                Some(number) => (number, 3_600_000),
                None => (text.trim_end_matches('s'), 1_000),
            },
        },
    };
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let parse =
        |digits: &str| digits.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no time"));
    parse(whole) * unit + parse(tenths) * unit / 10
}
