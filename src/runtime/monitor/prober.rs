//! Measures one check by whichever adapter knows how, and keeps what it needs from one time to the
//! next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

use crate::adapters::probe::host::{FileSystem, Ticks};
use crate::adapters::probe::http::{self, Clients};
use crate::adapters::probe::journal::{self, Of, Search};
use crate::adapters::probe::{command, host, prometheus};
use crate::adapters::systemd::Systemd;
use crate::adapters::systemd::figures::Figures;
use crate::adapters::{postgres, redis};
use crate::config::monitoring::{
    Check, HostMeasure, HttpMeasure, HttpProbe, JournalMeasure, Probe, Server, UnitMeasure,
};
use crate::config::settings::Settings;
use crate::error::chain;
use crate::monitor::measured::Measured;
use crate::monitor::window::Window;
use crate::time::BootTime;

/// Checks of one kind that are measured at a time, so that those that hang keep no other kind
/// waiting.
const AT_ONCE_MAX: usize = 32;

/// The same for those that start a process. Each costs some megabytes while it lasts.
const PROCESSES_MAX: usize = 8;

/// How long a place among the others of its kind is waited for, in deadlines. They free one at
/// their deadlines at the latest.
const WAIT_DEADLINES: u32 = 4;

/// Between two looks where one alone says nothing.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(1);

/// What all checks share.
pub struct Tools {
    clients: Clients,
    postgres: BTreeMap<String, postgres::probe::Probe>,
    redis: BTreeMap<(String, u64), redis::probe::Probe>,
    systemd: Systemd,
    places: BTreeMap<&'static str, Semaphore>,
}

impl Tools {
    /// What the checks of these settings need, and why some of it is not there.
    #[must_use]
    pub fn new(settings: &Settings) -> (Self, Vec<String>) {
        let monitoring = &settings.monitoring;
        let (mut faults, clients) = (Vec::new(), Clients::default());
        let (mut sql, mut keys, mut places) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for check in &monitoring.checks {
            let at_once = match check.probe {
                Probe::Command { .. } | Probe::Journal { .. } => PROCESSES_MAX,
                _ => AT_ONCE_MAX,
            };
            places.entry(check.probe.kind()).or_insert_with(|| Semaphore::new(at_once));
            match &check.probe {
                Probe::Postgres { server, .. } if !sql.contains_key(server) => {
                    let Some(Server::Postgres(store)) = monitoring.servers.get(server) else {
                        continue;
                    };
                    match postgres::probe::Probe::new(store, &settings.node) {
                        Ok(probe) => drop(sql.insert(server.clone(), probe)),
                        Err(error) => faults.push(format!("server {server}: {}", chain(&error))),
                    }
                }
                Probe::Redis { server, database, .. } => {
                    let key = (server.clone(), *database);
                    let Some(Server::Redis(redis)) = monitoring.servers.get(server) else {
                        continue;
                    };
                    if keys.contains_key(&key) {
                        continue;
                    }
                    match redis::probe::Probe::new(redis, *database) {
                        Ok(probe) => drop(keys.insert(key, probe)),
                        Err(error) => faults.push(format!("server {server}: {}", chain(&error))),
                    }
                }
                Probe::Http(probe) => faults.extend(clients.prepare(probe.ca_file.as_ref()).err()),
                Probe::Prometheus(probe) => {
                    faults.extend(clients.prepare(probe.ca_file.as_ref()).err());
                }
                _ => {}
            }
        }
        // One line for each server, not for each of its checks.
        faults.sort();
        faults.dedup();
        let systemd = Systemd::new();
        (Self { clients, postgres: sql, redis: keys, systemd, places }, faults)
    }
}

impl Tools {
    async fn place(&self, kind: &str) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.places.get(kind)?.acquire().await.ok()
    }

    /// A place at the server that is asked, if it is one that serves few at a time.
    async fn place_at(&self, probe: &Probe) -> Option<SemaphorePermit<'_>> {
        match probe {
            Probe::Postgres { server, .. } => self.postgres.get(server)?.place().await,
            Probe::Redis { server, database, .. } => {
                self.redis.get(&(server.clone(), *database))?.place().await
            }
            _ => None,
        }
    }
}

/// Measures one check.
pub struct Prober {
    tools: Arc<Tools>,
    check: Check,
    window: Window,
    file_system: FileSystem,
    ticks: Option<Ticks>,
    /// Processor time of a unit at an earlier look: of which run, how much, and when.
    used: Option<(Figures, BootTime)>,
}

impl Prober {
    /// Nothing is measured yet.
    #[must_use]
    pub fn new(tools: Arc<Tools>, check: Check) -> Self {
        let (window, file_system) = Default::default();
        Self { tools, check, window, file_system, ticks: None, used: None }
    }

    /// The check.
    #[must_use]
    pub fn check(&self) -> &Check {
        &self.check
    }

    /// Measures once, with a deadline.
    ///
    /// # Errors
    /// Why there is nothing, in words.
    pub async fn measure(&mut self) -> Result<Measured, String> {
        let (deadline, kind) = (self.check.deadline, self.check.probe.kind());
        let tools = self.tools.clone();
        // What waits for a server that hangs keeps no place among its kind.
        let places = async { (tools.place_at(&self.check.probe).await, tools.place(kind).await) };
        let Ok(places) = timeout(deadline * WAIT_DEADLINES, places).await else {
            return Err("not measured: too many checks like it hang".to_owned());
        };
        let found = match timeout(deadline, self.probe()).await {
            Ok(found) => found,
            Err(_) => Err(format!("no answer within {}", humantime::format_duration(deadline))),
        };
        drop(places);
        match &self.check.probe {
            Probe::Http(probe) => http_outcome(&mut self.window, probe, found),
            _ => found,
        }
    }

    async fn probe(&mut self) -> Result<Measured, String> {
        let tools = self.tools.clone();
        match &self.check.probe {
            Probe::Postgres { server, query } => {
                let server = tools.postgres.get(server).ok_or_else(|| unusable(server))?;
                server.number(query, self.check.deadline).await.map(Measured::number)
            }
            Probe::Redis { server, database, measure } => {
                let found = tools.redis.get(&(server.clone(), *database));
                let server = found.ok_or_else(|| unusable(server))?;
                server.measure(measure).await.map_err(|error| chain(&error))
            }
            Probe::Http(probe) => http_sample(&tools.clients, probe).await,
            Probe::Unit { unit, measure } => {
                let (unit, measure) = (unit.clone(), *measure);
                self.unit(&unit, measure).await
            }
            Probe::Journal { unit, pattern, measure } => {
                journal_of(&tools.systemd, unit, pattern, *measure).await
            }
            Probe::Host(HostMeasure::Cpu) => self.processors(),
            Probe::Host(HostMeasure::Memory) => host::memory(false),
            Probe::Host(HostMeasure::Swap) => host::memory(true),
            Probe::Host(HostMeasure::Load) => host::load(),
            Probe::Host(HostMeasure::Disk(path)) => self.file_system.used(path, false).await,
            Probe::Host(HostMeasure::Inodes(path)) => self.file_system.used(path, true).await,
            Probe::Command { command, figure } => {
                command::run(command, figure.as_deref(), self.check.deadline).await
            }
            Probe::Prometheus(probe) => prometheus::ask(&tools.clients, probe).await,
        }
    }

    fn processors(&mut self) -> Result<Measured, String> {
        let now = Ticks::read()?;
        let before = self.ticks.replace(now);
        let percent = before.and_then(|before| now.percent_since(before));
        Ok(percent.map_or_else(second_look, Measured::number))
    }

    async fn unit(&mut self, unit: &str, measure: UnitMeasure) -> Result<Measured, String> {
        let mut systemd = self.tools.systemd.clone();
        let figures = systemd.figures(unit).await.map_err(|error| chain(&error))?;
        if !figures.is_loaded {
            return Err(format!("there is no unit {unit} on this node"));
        }
        let now = BootTime::now();
        let value = match measure {
            UnitMeasure::Active => Some(f64::from(u8::from(figures.is_active))),
            UnitMeasure::Restarts => Some(f64::from(figures.restarts)),
            // What does not run has no memory and uses nothing.
            _ if !figures.is_active => Some(0.0),
            UnitMeasure::Uptime => Some(uptime(&figures)),
            UnitMeasure::Memory => match figures.memory {
                Some(memory) => Some(float(memory)),
                None => Some(float(systemd.resident(unit).await.map_err(|e| chain(&e))?)),
            },
            UnitMeasure::Cpu => {
                let used = figures.cpu_ns.ok_or("systemd does not count its processor time")?;
                let before = self.used.replace((figures.clone(), now));
                before.and_then(|(before, at)| {
                    let used = used.checked_sub(before.cpu_ns?)?;
                    let span = now.since(at).as_secs_f64();
                    let same_run = before.invocation == figures.invocation;
                    (same_run && span > 0.0).then(|| float(used) / 1e9 / span * 100.0)
                })
            }
        };
        let measured = value.map_or_else(second_look, Measured::number);
        Ok(Measured { text: figures.state, ..measured })
    }
}

/// Measures a check that nothing is known of. Where one look says nothing, a second follows.
///
/// # Errors
/// As [`Prober::measure`].
pub async fn measure_once(prober: &mut Prober) -> Result<Measured, String> {
    let first = prober.measure().await?;
    let needs_two = matches!(
        prober.check().probe,
        Probe::Host(HostMeasure::Cpu) | Probe::Unit { measure: UnitMeasure::Cpu, .. }
    );
    if first.value.is_some() || !needs_two {
        return Ok(first);
    }
    sleep(SECOND_LOOK_AFTER).await;
    prober.measure().await
}

fn second_look() -> Measured {
    Measured::not_yet("known from the second look on")
}

fn unusable(server: &str) -> String {
    format!("server {server} cannot be used as it is configured; see the journal")
}

#[expect(clippy::cast_precision_loss, reason = "figures need no more than 53 bits")]
const fn float(count: u64) -> f64 {
    count as f64
}

/// In seconds. systemd counts it by a clock that stops while the host is suspended.
fn uptime(figures: &Figures) -> f64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = now.map_or(Duration::ZERO, Duration::from);
    now.saturating_sub(Duration::from_micros(figures.active_since_us)).as_secs_f64()
}

/// An answer, or what is wrong with it.
async fn http_sample(clients: &Clients, probe: &HttpProbe) -> Result<Measured, String> {
    let answer = clients.ask(probe).await?;
    let status = answer.status;
    if probe.measure == HttpMeasure::Status {
        return Ok(Measured::number(f64::from(status)));
    }
    if !probe.status.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
        return Err(format!("it answered {status}"));
    }
    if let Some(words) = &probe.contains {
        let found = answer.body.windows(words.len()).any(|window| window == words.as_bytes());
        if !found {
            return Err(format!("it answered {status}, but not with the words that it should"));
        }
    }
    let text = format!("status {status}");
    let value = match &probe.measure {
        HttpMeasure::Json { path, expect } => {
            http::number_at(&answer.body, path, expect.as_deref())?
        }
        _ => answer.took.as_secs_f64(),
    };
    Ok(Measured::said(value, text))
}

/// What a sample and those before it mean. For a rate a bad answer is a sample like any other.
fn http_outcome(
    window: &mut Window,
    probe: &HttpProbe,
    found: Result<Measured, String>,
) -> Result<Measured, String> {
    let rate = probe.measure == HttpMeasure::Success;
    let percent = match probe.measure {
        HttpMeasure::Percentile(percent) => Some(percent),
        _ => None,
    };
    if !rate && percent.is_none() {
        return found;
    }
    let took = found.as_ref().ok().and_then(|found| found.value);
    window.add(BootTime::now(), probe.window, took.unwrap_or(0.0), took.is_some());
    let count = window.len();
    if let Some(percent) = percent {
        found?;
        let value = window.percentile(percent).unwrap_or(0.0);
        return Ok(Measured::said(value, format!("p{percent} of {count} answers")));
    }
    let last = match found {
        Ok(found) => found.text,
        Err(fault) => fault,
    };
    let value = window.success_percent().unwrap_or(0.0);
    Ok(Measured::said(value, format!("of {count} answers; the last: {last}")))
}

async fn journal_of(
    systemd: &Systemd,
    unit: &str,
    pattern: &str,
    measure: JournalMeasure,
) -> Result<Measured, String> {
    let search = |of, within| Search { of, pattern, within };
    match measure {
        JournalMeasure::Count(within) => {
            let found = journal::count(&search(Of::Unit(unit), Some(within))).await?;
            let text = format!("in {}", humantime::format_duration(within));
            Ok(Measured::said(float(found), text))
        }
        JournalMeasure::Age(within) => {
            let newest = journal::when(&search(Of::Unit(unit), Some(within)), true).await?;
            let newest = newest.ok_or_else(|| {
                format!("nothing like it in the last {}", humantime::format_duration(within))
            })?;
            let age = SystemTime::now().duration_since(newest).unwrap_or(Duration::ZERO);
            Ok(Measured::number(age.as_secs_f64()))
        }
        JournalMeasure::AfterStart => {
            let figures = systemd.clone().figures(unit).await.map_err(|error| chain(&error))?;
            let run = figures.invocation.filter(|_| figures.started_us > 0);
            let run = run.ok_or_else(|| format!("{unit} was not started yet"))?;
            let started = UNIX_EPOCH + Duration::from_micros(figures.started_us);
            let first = journal::when(&search(Of::Run(run.to_string()), None), false).await?;
            let after = |at: SystemTime| at.duration_since(started).unwrap_or(Duration::ZERO);
            Ok(match first {
                Some(at) => Measured::said(after(at).as_secs_f64(), "after its start"),
                None => Measured::said(
                    after(SystemTime::now()).as_secs_f64(),
                    "since its start, and it has not come yet",
                ),
            })
        }
    }
}
