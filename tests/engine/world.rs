//! A small world, in one thread and without a clock: a store, a primary that knows nothing of us,
//! two standby nodes with their executors, an operator, and faults. A seed decides everything.
//!
//! The world judges by itself what no engine can know: whether the primary was alive, what order
//! the effects had, how it all ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use understudy::engine::edge::Kind;
use understudy::engine::event::{
    Acquire, Action, Answer, Cause, Command, Event, Memory, Outcome, Recalled,
};
use understudy::engine::notice::{Notice, Weight};
use understudy::engine::observation::{
    Bot, Epoch, Hold, Lease, Nonce, Observation, StoreIdentity, Token,
};
use understudy::engine::plan::Step;
use understudy::engine::policy::{EVIDENCE_MAX_AGE, Policy};
use understudy::time::BootTime;

use crate::mutants::{Mutant, Subject};
use crate::support::{Rng, lease, ms, policy, s};
use crate::trace::Trace;

const HOSTS: [&str; 3] = ["alpha", "beta", "gamma"];
const INTERVAL: u64 = 5_000;
const READ_DEADLINE: u64 = 1_500;
const BEAT: u64 = 5_000;
const COOLDOWN: u64 = 90_000;
const LATCH_AFTER: usize = 2;
const LATCH_WINDOW: u64 = 400_000;
/// Faults happen until here; then everything works, and it must end well.
const TROUBLE: u64 = 420_000;
const CALM: u64 = 340_000;

/// What came of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub log: String,
    pub takeovers: u32,
    pub completed: u32,
    pub resumed: u32,
    pub superseded: u32,
    pub interrupted: u32,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "most messages are reads")]
enum Message {
    Read { id: u64, answer: Result<Observation, String> },
    Checked(Vec<String>),
    Acquired { nonce: Nonce, answer: Answer },
    StepEnded { epoch: Epoch, step: Step, outcome: Outcome },
    UnitsStopped(Option<String>),
    Failover { force: bool },
}

#[derive(Clone, Debug)]
enum Happening {
    Beat { host: usize, bot: usize, run: u64 },
    Tick { node: usize, alarm: u64 },
    Read { node: usize, life: u64, id: u64 },
    Ask { node: usize, life: u64, question: Acquire },
    Message { node: usize, life: u64, message: Message },
    Effect { node: usize, work: u64, token: Token, step: Step, fails: bool },
    Stop { node: usize, work: u64, fails: bool },
    Continue { node: usize },
    Start { node: usize },
    Heal { what: usize, run: u64 },
    Trouble,
    Calm,
}

#[derive(Clone, Debug)]
struct Row {
    beat: u64,
    changed: u64,
    status: &'static str,
    fault: Option<Bot>,
}

#[derive(Clone, Debug)]
struct Store {
    up: bool,
    slow: bool,
    /// A frozen server does not even refuse.
    hangs: bool,
    identity: u64,
    clock_ahead: i64,
    rows: [Row; 2],
    lease: Lease,
    last_auto: Option<i64>,
    recent: Vec<i64>,
}

#[derive(Clone, Debug)]
struct Host {
    /// The units run; a number of their own for each start.
    units: Option<u64>,
    dead: [bool; 2],
    cut_off: bool,
    /// Since when each bot lives and reaches the store, as far as it depends on this host.
    well_since: [Option<u64>; 2],
}

struct Node {
    life: u64,
    subject: Option<Subject>,
    trace: Trace,
    frozen: bool,
    mailbox: Vec<Message>,
    reading: Option<(u64, u64)>,
    next_read: u64,
    acquiring: Option<(Nonce, u64)>,
    work: u64,
    alarm: u64,
    disk: Option<(Memory, u64, u64)>,
    boot: u64,
    boot_at: u64,
    unfit: bool,
    critical: u32,
    seen: Epoch,
    started: u64,
}

pub struct World {
    rng: Rng,
    now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    policies: [Policy; 2],
    mutant: Option<Mutant>,
    store: Store,
    backup: Store,
    hosts: [Host; 3],
    nodes: Vec<Node>,
    troubled: bool,
    faults: u64,
    tokens: BTreeSet<(u64, u128)>,
    effects: BTreeMap<(u64, u128), Vec<Step>>,
    highest: u64,
    last_auto_at: Option<u64>,
    runs: u64,
    verbose: bool,
    pub report: Report,
    violation: Option<String>,
}

fn small_policy(node: &str, rng: &mut Rng) -> Policy {
    let mut small = Policy {
        node: node.to_owned(),
        timeout: s(20),
        reply_timeout: ms(READ_DEADLINE),
        max_gap: s(9),
        blind_after: s(40),
        ..policy()
    };
    small.all_bots = rng.percent(30);
    if rng.percent(50) {
        small.plan.retain(|(step, _)| *step != Step::Fence);
    }
    small
}

/// Lives one history; an error says which rule was broken.
pub fn live(seed: u64, mutant: Option<Mutant>, verbose: bool) -> Result<Report, String> {
    let mut world = World::new(seed, mutant, verbose);
    while let Some(((at, _), happening)) = world.queue.pop_first() {
        if at > TROUBLE + CALM {
            break;
        }
        world.now = at;
        world.happen(happening);
        if let Some(violation) = world.violation.take() {
            return Err(format!("{violation}, at {} s", at / 1_000));
        }
    }
    world.ending()?;
    Ok(world.report)
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut policies = [small_policy("beta", &mut rng), small_policy("gamma", &mut rng)];
        policies[1].all_bots = policies[0].all_bots;
        let row = Row { beat: 0, changed: 0, status: "PRIMARY", fault: None };
        let store = Store {
            up: true,
            slow: false,
            hangs: false,
            identity: 1,
            clock_ahead: 0,
            rows: [row.clone(), row],
            lease: lease(1, "alpha"),
            last_auto: None,
            recent: Vec::new(),
        };
        let host = Host { units: None, dead: [false; 2], cut_off: false, well_since: [None, None] };
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            nodes: Vec::new(),
            mutant,
            backup: store.clone(),
            store,
            hosts: [host.clone(), host.clone(), host],
            troubled: true,
            faults: 0,
            tokens: BTreeSet::new(),
            effects: BTreeMap::new(),
            highest: 1,
            last_auto_at: None,
            runs: 0,
            verbose,
            report: Report::default(),
            violation: None,
            policies,
            rng,
        };
        world.start_units(0);
        for node in 0..2 {
            let trace = Trace::new(BootTime::ZERO, world.policies[node].clone(), None);
            world.nodes.push(Node {
                life: 0,
                subject: None,
                trace,
                frozen: false,
                mailbox: Vec::new(),
                reading: None,
                next_read: 0,
                acquiring: None,
                work: 0,
                alarm: 0,
                disk: None,
                boot: 1,
                boot_at: 0,
                unfit: false,
                critical: 0,
                seen: Epoch(0),
                started: 0,
            });
            // With one standby most histories are easier to follow.
            if node == 0 || world.rng.percent(50) {
                let delay = world.rng.range(0, 3_000);
                world.after(delay, Happening::Start { node });
            }
        }
        let first = world.rng.range(5_000, 60_000);
        world.after(first, Happening::Trouble);
        world.queue.insert((TROUBLE, 0), Happening::Calm);
        world
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), happening);
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        let start = self.report.log.len();
        let _ = writeln!(self.report.log, "{:>7}.{:03} {text}", self.now / 1_000, self.now % 1_000);
        if self.verbose {
            eprint!("{}", &self.report.log[start..]);
        }
    }

    fn violated(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Beat { host, bot, run } => self.beat(host, bot, run),
            Happening::Tick { node, alarm } if self.nodes[node].alarm == alarm => self.tick(node),
            Happening::Tick { .. } => {}
            Happening::Read { node, life, id } => self.read(node, life, id),
            Happening::Ask { node, life, question } => self.ask(node, life, &question),
            Happening::Message { node, life, message } => self.deliver(node, life, message),
            Happening::Effect { node, work, token, step, fails } => {
                self.effect(node, work, token, step, fails);
            }
            Happening::Stop { node, work, fails } => self.stop(node, work, fails),
            Happening::Continue { node } => self.go_on(node),
            Happening::Start { node } => self.start(node),
            Happening::Heal { what, run } => self.heal(what, run),
            Happening::Trouble => self.trouble(),
            Happening::Calm => self.calm(),
        }
    }

    // The store.

    fn store_now(&self) -> i64 {
        self.now.cast_signed() + 10_000_000 + self.store.clock_ahead
    }

    fn latency(&mut self) -> u64 {
        if self.store.slow { self.rng.range(200, 2_500) } else { self.rng.range(1, 40) }
    }

    fn reachable(&self, host: usize) -> bool {
        self.store.up && !self.store.hangs && !self.hosts[host].cut_off
    }

    fn observation(&self) -> Observation {
        let bots = self.store.rows.iter().map(|row| match &row.fault {
            Some(fault) => fault.clone(),
            None => Bot::Beat {
                value: row.beat.to_string(),
                status: row.status.to_owned(),
                age_ms: Some((self.now - row.changed).cast_signed() + self.store.clock_ahead),
            },
        });
        let mut lease = self.store.lease.clone();
        let left = self.cooldown_left();
        lease.cooldown_left = (left > 0).then(|| ms(left.cast_unsigned()));
        Observation {
            store: StoreIdentity(format!("store {}", self.store.identity)),
            seen_at: self.store_now().to_string(),
            lease,
            bots: bots.collect(),
            members: Vec::new(),
            request: None,
        }
    }

    fn cooldown_left(&self) -> i64 {
        let cooldown = COOLDOWN.cast_signed();
        self.store.last_auto.map_or(0, |last| cooldown - (self.store_now() - last))
    }

    fn read(&mut self, node: usize, life: u64, id: u64) {
        if self.store.hangs || self.hosts[node + 1].cut_off {
            return;
        }
        let answer = if self.store.up { Ok(self.observation()) } else { Err("refused".to_owned()) };
        let delay = self.latency();
        self.after(delay, Happening::Message { node, life, message: Message::Read { id, answer } });
    }

    fn ask(&mut self, node: usize, life: u64, question: &Acquire) {
        if !self.reachable(node + 1) {
            return;
        }
        let answer = self.decide(node, question);
        self.note(format_args!("store answers {}: {answer:?}", HOSTS[node + 1]));
        let delay = if self.troubled && self.rng.percent(10) { 4_000 } else { self.latency() };
        let message = Message::Acquired { nonce: question.nonce, answer };
        self.after(delay, Happening::Message { node, life, message });
    }

    fn decide(&mut self, node: usize, question: &Acquire) -> Answer {
        let held = &self.store.lease;
        let me = HOSTS[node + 1];
        if held.nonce == Some(question.nonce) && held.holder.as_deref() == Some(me) {
            return Answer::Granted(held.epoch);
        }
        let expected = &question.expected;
        if (held.epoch, held.nonce, held.seq) != (expected.epoch, expected.nonce, expected.seq) {
            return Answer::RefusedChanged("the lease changed".to_owned());
        }
        let seen: i64 = question.seen_at.parse().expect("the engine does not change it");
        let age = self.store_now() - seen;
        if age < 0 || ms(age.cast_unsigned()) > EVIDENCE_MAX_AGE {
            return Answer::Refused("the evidence is old".to_owned());
        }
        if held.hold.is_some() {
            return Answer::Refused("held".to_owned());
        }
        let automatic = question.cause == Cause::Automatic;
        if automatic {
            let stopped = self.store.rows.iter().any(|row| row.status == "EMERGENCY_STOPPED");
            let beats = self.store.rows.iter().map(|row| row.beat.to_string());
            let moved = question.heartbeats.iter().zip(beats).any(|(expected, beat)| {
                expected.as_ref().is_some_and(|expected| *expected != beat)
            });
            let named = question.heartbeats.iter().flatten().count();
            if held.latched || stopped {
                return Answer::Refused("latched or stopped".to_owned());
            }
            if self.cooldown_left() > 0 && self.mutant != Some(Mutant::CooldownForgotten) {
                return Answer::Refused("cooldown".to_owned());
            }
            if moved || named == 0 {
                return Answer::RefusedChanged("a bot beats".to_owned());
            }
        }
        self.grant(node, question, automatic)
    }

    fn grant(&mut self, node: usize, question: &Acquire, automatic: bool) -> Answer {
        let epoch = self.store.lease.epoch.max(question.min_epoch).0 + 1;
        self.report.takeovers += 1;
        if automatic {
            self.judge_automatic(node);
            let now = self.store_now();
            self.store.last_auto = Some(now);
            self.store.recent.retain(|at| now - at < LATCH_WINDOW.cast_signed());
            self.store.recent.push(now);
            self.store.lease.latched |= self.store.recent.len() >= LATCH_AFTER;
            self.last_auto_at = Some(self.now);
        }
        // A tenure that nobody knew of when the store forgot it does not count.
        let known = self.effects.contains_key(&(epoch, question.nonce.0));
        if !self.tokens.insert((epoch, question.nonce.0)) && known {
            self.violated(format!("epoch {epoch} is granted twice with the same nonce"));
        }
        if epoch <= self.nodes[node].seen.0 {
            self.violated(format!("epoch {epoch} is granted to a node that saw a later one"));
        }
        self.highest = self.highest.max(epoch);
        let latched = self.store.lease.latched;
        self.store.lease =
            Lease { nonce: Some(question.nonce), latched, ..lease(epoch, HOSTS[node + 1]) };
        Answer::Granted(Epoch(epoch))
    }

    /// The black-box rules: no takeover from the living, none in the cooldown.
    fn judge_automatic(&mut self, node: usize) {
        let policy = &self.policies[node];
        let holder = self.store.lease.holder.clone();
        let host = HOSTS.iter().position(|host| holder.as_deref() == Some(host));
        let well = |bot: usize| {
            let since = host.and_then(|host| self.hosts[host].well_since[bot]);
            since.is_some_and(|since| ms(self.now - since) >= policy.timeout)
        };
        let alive = if policy.all_bots { well(0) || well(1) } else { well(0) && well(1) };
        if alive {
            self.violated("an automatic takeover from a living primary".to_owned());
        }
        if let Some(last) = self.last_auto_at
            && self.now - last < COOLDOWN
        {
            let ago = (self.now - last) / 1_000;
            self.violated(format!("an automatic takeover {ago} s after the last one"));
        }
    }

    // Hosts and their bots.

    fn start_units(&mut self, host: usize) {
        if self.hosts[host].units.is_some() {
            return;
        }
        self.runs += 1;
        let run = self.runs;
        self.hosts[host].units = Some(run);
        self.hosts[host].dead = [false; 2];
        self.refresh(host);
        for bot in 0..2 {
            let delay = self.rng.range(100, 1_500);
            self.after(delay, Happening::Beat { host, bot, run });
        }
    }

    fn stop_units(&mut self, host: usize) {
        self.hosts[host].units = None;
        self.refresh(host);
    }

    fn refresh(&mut self, host: usize) {
        let now = self.now;
        let host = &mut self.hosts[host];
        for bot in 0..2 {
            let well = host.units.is_some() && !host.cut_off && !host.dead[bot];
            host.well_since[bot] = well.then(|| host.well_since[bot].unwrap_or(now));
        }
    }

    fn beat(&mut self, host: usize, bot: usize, run: u64) {
        if self.hosts[host].units != Some(run) {
            return;
        }
        let mut pause = BEAT + self.rng.range(0, 500);
        if !self.hosts[host].dead[bot] {
            if self.reachable(host) {
                self.store.rows[bot].beat = self.order;
                self.store.rows[bot].changed = self.now;
            } else {
                pause = 2_000;
            }
        }
        self.after(pause, Happening::Beat { host, bot, run });
    }

    // The nodes.

    fn boottime(&self, node: usize) -> BootTime {
        BootTime::from_duration(ms(self.now - self.nodes[node].boot_at + 1_000))
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].subject.is_some() {
            return;
        }
        let now = self.boottime(node);
        let policy = self.policies[node].clone();
        let units_active = self.hosts[node + 1].units.is_some();
        let recalled = self.nodes[node].disk.map(|(memory, at, boot)| {
            let same_boot = boot == self.nodes[node].boot;
            let recent = same_boot && ms(self.now - at) < policy.timeout;
            Recalled { memory, recent, same_boot, units_active }
        });
        let first = Nonce(u128::from(self.rng.next()) << 64);
        self.note(format_args!("{} starts: {recalled:?}", HOSTS[node + 1]));
        let it = &mut self.nodes[node];
        it.trace = Trace::new(now, policy.clone(), recalled);
        it.subject = Some(Subject::new(self.mutant, now, policy, first, recalled));
        it.life += 1;
        it.reading = None;
        it.acquiring = None;
        it.next_read = self.now;
        it.critical = 0;
        // A node that only watched forgets which epochs it saw.
        it.seen = it.disk.map_or(Epoch(0), |(memory, ..)| memory.max_epoch);
        self.tick(node);
    }

    fn kill(&mut self, node: usize) {
        let orphans = self.rng.percent(50);
        let it = &mut self.nodes[node];
        it.subject = None;
        it.frozen = false;
        it.mailbox.clear();
        it.life += 1;
        // What it had begun over D-Bus or the network may still happen.
        if !orphans {
            it.work += 1;
        }
        self.note(format_args!("{} is killed", HOSTS[node + 1]));
    }

    fn deliver(&mut self, node: usize, life: u64, message: Message) {
        let it = &mut self.nodes[node];
        if it.life != life {
            return;
        }
        if it.frozen {
            it.mailbox.push(message);
            return;
        }
        let event = match message {
            Message::Read { id, answer } => {
                let Some((reading, sent)) = it.reading else { return };
                if reading != id {
                    return;
                }
                it.reading = None;
                let sent = BootTime::from_duration(ms(sent - it.boot_at + 1_000));
                match answer {
                    Ok(observation) => {
                        it.seen = it.seen.max(observation.lease.epoch);
                        Event::Observed { sent, observation }
                    }
                    Err(fault) => Event::ObserveFailed { fault },
                }
            }
            Message::Checked(problems) => Event::Checked { problems },
            Message::Acquired { nonce, answer } => {
                if it.acquiring.is_none_or(|(asked, _)| asked != nonce) {
                    return;
                }
                it.acquiring = None;
                Event::Acquired { nonce, answer }
            }
            Message::StepEnded { epoch, step, outcome } => {
                Event::StepEnded { epoch, step, outcome }
            }
            Message::UnitsStopped(fault) => Event::UnitsStopped { fault },
            Message::Failover { force } => {
                Event::Operator { request: 1, command: Command::Failover { force } }
            }
        };
        self.turn(node, event);
        self.tick(node);
    }

    fn go_on(&mut self, node: usize) {
        if !self.nodes[node].frozen {
            return;
        }
        self.note(format_args!("{} goes on", HOSTS[node + 1]));
        self.nodes[node].frozen = false;
        let life = self.nodes[node].life;
        // Either the timers are served first or what came in meanwhile.
        if self.rng.percent(50) {
            self.tick(node);
        }
        for message in std::mem::take(&mut self.nodes[node].mailbox) {
            self.deliver(node, life, message);
        }
        self.tick(node);
    }

    /// One turn of the loop of the supervisor: whatever is due.
    fn tick(&mut self, node: usize) {
        let now = self.boottime(node);
        let it = &mut self.nodes[node];
        if it.frozen || it.subject.is_none() {
            return;
        }
        if it.reading.is_some_and(|(_, sent)| self.now >= sent + READ_DEADLINE) {
            it.reading = None;
            self.turn(node, Event::ObserveFailed { fault: "no answer".to_owned() });
        }
        if let Some((nonce, deadline)) = self.nodes[node].acquiring
            && self.now >= deadline
        {
            self.nodes[node].acquiring = None;
            let answer = Answer::Unknown("no answer".to_owned());
            self.turn(node, Event::Acquired { nonce, answer });
        }
        if self.nodes[node].subject.as_ref().is_some_and(|it| it.engine.next_deadline() <= now) {
            self.turn(node, Event::Wake);
        }
        let it = &mut self.nodes[node];
        let Some(subject) = &it.subject else { return };
        let wanted = subject.engine.wants_read_at();
        let wanted = wanted.map_or(it.next_read, |at| {
            let at = at.since_boot().as_millis() as u64 + it.boot_at - 1_000;
            at.min(it.next_read)
        });
        if it.reading.is_none() && self.now >= wanted {
            let id = self.order;
            it.reading = Some((id, self.now));
            it.next_read = self.now + INTERVAL;
            let life = it.life;
            let delay = self.latency();
            self.after(delay, Happening::Read { node, life, id });
        }
        let it = &self.nodes[node];
        let Some(subject) = &it.subject else { return };
        let deadline = subject.engine.next_deadline().since_boot().as_millis() as u64;
        let mut due = deadline + it.boot_at - 1_000;
        due = due.min(it.reading.map_or(wanted.max(self.now), |(_, sent)| sent + READ_DEADLINE));
        due = due.min(it.acquiring.map_or(due, |(_, deadline)| deadline));
        // Only the alarm that was set last rings.
        let alarm = it.alarm + 1;
        self.nodes[node].alarm = alarm;
        self.after(due.saturating_sub(self.now).max(1), Happening::Tick { node, alarm });
    }

    fn turn(&mut self, node: usize, event: Event) {
        let now = self.boottime(node);
        let it = &mut self.nodes[node];
        let Some(subject) = &mut it.subject else { return };
        let actions = subject.handle(now, &event);
        if let Err(rule) = it.trace.turn(now, &event, &actions) {
            let name = HOSTS[node + 1];
            self.violated(format!("{name}: {rule}\nafter {event:?}\ndoing {actions:?}"));
            return;
        }
        for action in actions {
            self.perform(node, action);
        }
    }

    fn perform(&mut self, node: usize, action: Action) {
        let life = self.nodes[node].life;
        let name = HOSTS[node + 1];
        match action {
            Action::Check { .. } => {
                let unfit = self.nodes[node].unfit;
                let problems = if unfit { vec!["no disk".to_owned()] } else { Vec::new() };
                let delay = self.rng.range(5, 1_400);
                let message = Message::Checked(problems);
                self.after(delay, Happening::Message { node, life, message });
            }
            Action::Acquire(question) => {
                self.note(format_args!("{name} asks for the lease ({})", question.cause.name()));
                self.nodes[node].acquiring = Some((question.nonce, self.now + READ_DEADLINE));
                self.remember(node, question.memory);
                let late = self.troubled && self.rng.percent(6);
                let delay = if late { self.rng.range(1_000, 60_000) } else { self.latency() };
                self.after(delay, Happening::Ask { node, life, question });
            }
            Action::Look
            | Action::Announce(_)
            | Action::EndRequest { .. }
            | Action::HandOver { .. }
            | Action::Rejoin { .. } => {
                self.violated(format!("only in paired mode: {}", action.in_words()));
            }
            Action::Remember(memory) => self.remember(node, memory),
            Action::Run { token, step, .. } => {
                self.note(format_args!("{name} begins {step} of epoch {}", token.epoch));
                self.nodes[node].work += 1;
                let work = self.nodes[node].work;
                let fails = self.troubled && self.rng.percent(12);
                let delay = self.rng.range(5, 2_500);
                self.after(delay, Happening::Effect { node, work, token, step, fails });
            }
            Action::StopUnits { .. } => {
                self.nodes[node].work += 1;
                let work = self.nodes[node].work;
                let fails = self.troubled && self.rng.percent(25);
                let delay = self.rng.range(50, 2_000);
                self.after(delay, Happening::Stop { node, work, fails });
            }
            Action::Tell(notice) => self.told(node, &notice),
            Action::Moved(edge) => {
                self.note(format_args!("{name} {edge}"));
                self.report.superseded += u32::from(edge.to == Kind::Stopping);
                self.report.interrupted += u32::from(edge.to == Kind::Interrupted);
            }
            Action::Answer { text, .. } => self.note(format_args!("{name} answers: {text}")),
        }
    }

    fn remember(&mut self, node: usize, memory: Memory) {
        self.nodes[node].disk = Some((memory, self.now, self.nodes[node].boot));
    }

    fn told(&mut self, node: usize, notice: &Notice) {
        self.note(format_args!("{} says: {}", HOSTS[node + 1], notice.text()));
        self.nodes[node].critical += u32::from(notice.weight() == Weight::Critical);
        match notice {
            Notice::Completed { .. } => {
                self.report.completed += 1;
                // The engine compares with its last read before the start; a beat of an old primary
                // between the two cannot be told from one of the new.
                let read = self.nodes[node].started.saturating_sub(INTERVAL + 2 * READ_DEADLINE);
                if self.store.rows.iter().any(|row| row.changed <= read) {
                    self.violated("completed before every bot beat".to_owned());
                }
            }
            Notice::Resumed { .. } => self.report.resumed += 1,
            _ => {}
        }
    }

    // The executor.

    fn effect(&mut self, node: usize, work: u64, token: Token, step: Step, fails: bool) {
        if self.nodes[node].work != work {
            return;
        }
        let lease = &self.store.lease;
        let ours = lease.epoch == token.epoch && lease.nonce == Some(token.nonce);
        let halfway = fails && self.rng.percent(50);
        let outcome = if fails {
            Outcome::Failed("it broke".to_owned())
        } else if step == Step::Flip && !(ours && self.reachable(node + 1)) {
            Outcome::Failed("the rows could not be written in the name of this lease".to_owned())
        } else {
            Outcome::Done
        };
        if outcome == Outcome::Done || halfway && step != Step::Flip {
            self.judge_order(node, token, step);
            match step {
                Step::Fence => self.stop_units(0),
                Step::Start => {
                    if self.hosts[node + 1].units.is_none() {
                        self.nodes[node].started = self.now;
                    }
                    self.start_units(node + 1);
                }
                Step::Guard
                | Step::Promote
                | Step::Persist
                | Step::Flip
                | Step::Publish
                | Step::Beat => {}
            }
        }
        let life = self.nodes[node].life;
        let message = Message::StepEnded { epoch: token.epoch, step, outcome };
        self.after(1, Happening::Message { node, life, message });
    }

    fn judge_order(&mut self, node: usize, token: Token, step: Step) {
        let done = self.effects.entry((token.epoch.0, token.nonce.0)).or_default();
        let planned = self.policies[node].plan.iter().map(|(planned, _)| *planned);
        let missing: Vec<_> =
            planned.filter(|planned| *planned < step && !done.contains(planned)).collect();
        done.push(step);
        if !missing.is_empty() {
            self.violated(format!("{step} took effect before {missing:?}"));
        }
    }

    fn stop(&mut self, node: usize, work: u64, fails: bool) {
        if self.nodes[node].work != work {
            return;
        }
        if !fails {
            self.stop_units(node + 1);
        }
        let life = self.nodes[node].life;
        let message = Message::UnitsStopped(fails.then(|| "it hangs".to_owned()));
        self.after(1, Happening::Message { node, life, message });
    }

    // Trouble.

    fn trouble(&mut self) {
        if !self.troubled {
            return;
        }
        let next = self.rng.range(2_000, 50_000);
        self.after(next, Happening::Trouble);
        let what = self.rng.range(0, 22) as usize;
        let node = self.rng.range(0, 2) as usize;
        let long = match self.rng.range(0, 3) {
            0 => self.rng.range(100, 3_000),
            1 => self.rng.range(3_000, 25_000),
            _ => self.rng.range(25_000, 120_000),
        };
        self.faults += 1;
        let run = self.faults;
        self.note(format_args!("trouble {what} on {} for {long} ms", HOSTS[node + 1]));
        self.strike(what, node, long);
        self.after(long, Happening::Heal { what, run });
    }

    fn strike(&mut self, what: usize, node: usize, long: u64) {
        match what {
            0 => self.store.up = false,
            1 => self.store.hangs = true,
            2 => self.store.slow = true,
            3 => self.store.identity += 1,
            4 => self.hosts[0].cut_off = true,
            5 => self.hosts[node + 1].cut_off = true,
            6 | 7 => self.stop_units(0),
            8 => {
                let bot = self.rng.range(0, 2) as usize;
                self.hosts[self.rng.range(0, 3) as usize].dead[bot] = true;
            }
            9 => self.stop_units(node + 1),
            10 | 11 if self.nodes[node].subject.is_some() => {
                self.kill(node);
                if self.rng.percent(30) {
                    self.reboot(node);
                }
                self.after(long, Happening::Start { node });
            }
            12 | 13 if self.nodes[node].subject.is_some() => {
                self.nodes[node].frozen = true;
                self.after(long, Happening::Continue { node });
            }
            14 => self.nodes[node].unfit = true,
            15 => {
                let hold =
                    Hold { by: "ann".to_owned(), reason: "maintenance".to_owned(), left: None };
                self.store.lease.hold = Some(hold);
            }
            16 => {
                self.store.rows[0].status = "EMERGENCY_STOPPED";
                for host in 0..3 {
                    self.hosts[host].dead[0] = true;
                }
            }
            17 => {
                let fault = match self.rng.range(0, 3) {
                    0 => Bot::Missing,
                    1 => Bot::Duplicate { rows: 2 },
                    _ => Bot::Null { status: "PRIMARY".to_owned() },
                };
                self.store.rows[1].fault = Some(fault);
            }
            18 => self.step_clock(),
            19 => self.operator(node),
            20 => self.fail_back(),
            21 => self.restore(),
            _ => {}
        }
        for host in 0..3 {
            self.refresh(host);
        }
    }

    fn heal(&mut self, what: usize, run: u64) {
        let _ = run;
        match what {
            0 => self.store.up = true,
            1 => self.store.hangs = false,
            2 => self.store.slow = false,
            4 => {
                self.hosts[0].cut_off = false;
                self.stop_what_was_replaced();
            }
            5 => {
                self.hosts[1].cut_off = false;
                self.hosts[2].cut_off = false;
            }
            6 if self.store.lease.holder.as_deref() == Some("alpha") => self.start_units(0),
            8 => {
                for host in &mut self.hosts {
                    host.dead = [false; 2];
                }
            }
            9 => self.start_what_should_run(),
            14 => {
                self.nodes[0].unfit = false;
                self.nodes[1].unfit = false;
            }
            15 => self.store.lease.hold = None,
            16 => {
                self.store.rows[0].status = "PRIMARY";
                for host in &mut self.hosts {
                    host.dead = [false; 2];
                }
            }
            17 => self.store.rows[1].fault = None,
            _ => {}
        }
        for host in 0..3 {
            self.refresh(host);
        }
    }

    /// An old primary that comes back is stopped by a person: in observed mode nobody else does.
    fn stop_what_was_replaced(&mut self) {
        if self.store.lease.holder.as_deref() != Some("alpha") {
            self.stop_units(0);
        }
    }

    /// A person starts the units again where they belong and stopped.
    fn start_what_should_run(&mut self) {
        for node in 0..2 {
            let active = self.nodes[node]
                .subject
                .as_ref()
                .is_some_and(|it| it.engine.kind() == Kind::Active);
            if active && self.store.lease.holder.as_deref() == Some(HOSTS[node + 1]) {
                self.start_units(node + 1);
            }
        }
    }

    fn reboot(&mut self, node: usize) {
        self.note(format_args!("{} reboots", HOSTS[node + 1]));
        self.stop_units(node + 1);
        self.nodes[node].boot += 1;
        self.nodes[node].boot_at = self.now;
        self.nodes[node].work += 1;
    }

    fn step_clock(&mut self) {
        let step = self.rng.range(0, 14_400_000).cast_signed() - 7_200_000;
        self.store.clock_ahead += step;
        if step > 0 {
            // The cooldown is kept by the store's clock.
            self.last_auto_at = None;
        }
    }

    fn operator(&mut self, node: usize) {
        if self.rng.percent(30) {
            self.store.lease.latched = false;
            return;
        }
        let force = self.rng.percent(40);
        if force {
            // Whoever says so has made sure of it.
            self.stop_units(0);
            self.stop_units(2 - node);
        }
        let life = self.nodes[node].life;
        self.deliver(node, life, Message::Failover { force });
    }

    /// The lease goes to the primary by hand; its bots are started when nobody else's run.
    fn fail_back(&mut self) {
        if !self.store.up {
            return;
        }
        self.highest += 1;
        let latched = self.store.lease.latched;
        self.store.lease = Lease { latched, ..lease(self.highest, "alpha") };
        self.start_units(0);
    }

    fn restore(&mut self) {
        if self.rng.percent(60) {
            self.backup = self.store.clone();
            return;
        }
        let old = self.backup.clone();
        self.store.rows = old.rows.map(|row| Row { changed: self.now, ..row });
        self.store.lease = old.lease;
        self.store.last_auto = old.last_auto;
        self.store.recent = old.recent;
        self.store.identity += 1;
        self.last_auto_at = None;
    }

    fn calm(&mut self) {
        self.note(format_args!("calm"));
        self.troubled = false;
        for what in 0..22 {
            // Some holds and latches stay on.
            if what != 15 || self.rng.percent(80) {
                self.heal(what, 0);
            }
        }
        if self.rng.percent(80) {
            self.store.lease.latched = false;
        }
        if self.store.lease.epoch.0 < self.highest
            || self.nodes.iter().any(|node| node.seen > self.store.lease.epoch)
        {
            self.fail_back();
        }
        self.stop_what_was_replaced();
        for node in 0..2 {
            self.go_on(node);
            if self.nodes[node].life > 0 {
                self.after(1, Happening::Start { node });
            }
        }
        if self.rng.percent(50) {
            self.stop_units(0);
        }
    }

    /// After a long calm exactly one node has the group, or a person was told why not.
    fn ending(&mut self) -> Result<(), String> {
        let holder = self.store.lease.holder.clone();
        let lease = &self.store.lease;
        let restrained = lease.hold.is_some() || lease.latched || self.cooldown_left() > -30_000;
        let mut told = false;
        for node in 0..2 {
            let Some(subject) = &self.nodes[node].subject else { continue };
            let kind = subject.engine.kind();
            let name = HOSTS[node + 1];
            let units = self.hosts[node + 1].units.is_some();
            told |= self.nodes[node].critical > 0;
            let excused = restrained && self.nodes[node].critical > 0;
            let stuck = kind == Kind::Degraded && self.nodes[node].critical > 0;
            let fine = if holder.as_deref() == Some(name) {
                kind == Kind::Active || stuck || kind == Kind::Interrupted && excused
            } else {
                kind == Kind::Standby && !units
            };
            if !fine {
                return Err(format!(
                    "in the end {name} is {kind} (units: {units}), {holder:?} has the lease"
                ));
            }
        }
        let dead = self.hosts[0].units.is_none();
        if holder.as_deref() == Some("alpha") && dead && !(restrained && told) {
            return Err("in the end the primary is dead, and nobody took over or told".to_owned());
        }
        Ok(())
    }
}

/// How long a history takes in its own time.
pub const HISTORY: Duration = ms(TROUBLE + CALM);
