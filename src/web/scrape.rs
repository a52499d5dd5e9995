//! The metrics as text: what was counted, and what can be read off the last snapshot.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::history::Facts;
use crate::control::protocol::{Bot, Group, Status};
use crate::engine::edge::Kind as State;
use crate::monitor::health::{Check, Health};
use crate::monitor::level::Level;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{self as table, Kind, Labels, Metric, PREFIX, labels};

/// What the text is, to a scraper.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is not counted.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The daemon, unless it has said nothing yet.
    pub status: Option<Status>,
    /// What the checks say.
    pub health: Health,
    /// What the history says about each group.
    pub facts: BTreeMap<String, Facts>,
    /// Time since the loop turned.
    pub loop_age: Duration,
    /// The process.
    pub process: Process,
    /// How often systemd restarted the service, if that is known.
    pub restarts: Option<u32>,
}

/// What the kernel says about this process; what it does not say is absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// When it started, in seconds since 1970.
    pub started: Option<f64>,
    /// Processor time in seconds.
    pub cpu: Option<f64>,
    /// Memory in bytes.
    pub resident: Option<f64>,
}

/// All metrics in OpenMetrics.
#[must_use]
pub fn text(metrics: &Metrics, scene: Scene) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    metrics.register(&mut registry);
    registry.register_collector(Box::new(scene));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _written = encode(&mut text, &registry);
    text
}

/// Label values and value of one sample.
type Sample<'a> = (Vec<&'a str>, f64);

impl Collector for Scene {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        write(encoder, &table::LOOP_AGE, [(vec![], self.loop_age.as_secs_f64())])?;
        let process = self.process;
        write(encoder, &table::START_TIME, process.started.map(|value| (vec![], value)))?;
        write(encoder, &table::CPU, process.cpu.map(|value| (vec![], value)))?;
        write(encoder, &table::RESIDENT_MEMORY, process.resident.map(|value| (vec![], value)))?;
        let restarts = self.restarts.map(|restarts| (vec![], f64::from(restarts)));
        write(encoder, &table::SERVICE_RESTARTS, restarts)?;
        checks(encoder, &self.health)?;
        let Some(status) = &self.status else { return Ok(()) };
        daemon(encoder, status)?;
        group_state(encoder, &status.groups)?;
        group_watch(encoder, &status.groups)?;
        group_lease(encoder, &status.groups, &self.facts)?;
        group_redis(encoder, &status.groups)
    }
}

fn checks(encoder: &mut DescriptorEncoder<'_>, health: &Health) -> fmt::Result {
    write(encoder, &table::HEALTH_SCORE, health.score.map(|score| (vec![], score)))?;
    let counts = Level::ALL.map(|level| (vec![level.name()], float(health.count(level) as u64)));
    write(encoder, &table::CHECKS, counts)?;
    let each = |value: fn(&Check) -> Option<f64>| {
        health.checks.iter().filter_map(move |check| {
            Some((vec![check.name.as_str(), check.group.as_str()], value(check)?))
        })
    };
    let level = each(|check| match check.level {
        Level::Unknown => None,
        Level::Green => Some(0.0),
        Level::Yellow => Some(1.0),
        Level::Red => Some(2.0),
    });
    write(encoder, &table::CHECK_LEVEL, level)?;
    write(encoder, &table::CHECK_VALUE, each(|check| check.value))?;
    write(encoder, &table::CHECK_AGE, each(|check| check.age_ms.map(seconds)))
}

fn daemon(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let build: [Sample<'_>; 1] = [(vec![&status.daemon, &status.node], 1.0)];
    write(encoder, &table::BUILD, build)?;
    let undelivered = float(status.undelivered_alerts);
    write(encoder, &table::ALERTS_UNDELIVERED, [(vec![], undelivered)])?;
    let refused = flag(status.configuration_refused.is_some());
    write(encoder, &table::CONFIGURATION_REFUSED, [(vec![], refused)])?;
    let listening = status
        .http
        .iter()
        .map(|listener| (vec![listener.address.as_str()], flag(listener.fault.is_none())));
    write(encoder, &table::HTTP_LISTENING, listening)
}

fn group_state(encoder: &mut DescriptorEncoder<'_>, groups: &[Group]) -> fmt::Result {
    let states = groups.iter().flat_map(|group| {
        State::ALL.iter().map(move |state| {
            (vec![group.name.as_str(), state.name()], flag(group.state == state.name()))
        })
    });
    write(encoder, &table::STATE, states)?;
    each(encoder, &table::PRIMARY, groups, |group| Some(flag(group.state == "active")))?;
    each(encoder, &table::READY, groups, |group| {
        group.not_ready_because.as_ref().map(|problems| flag(problems.is_empty()))
    })?;
    each(encoder, &table::BLOCKED, groups, |group| Some(flag(group.blocked_because.is_some())))?;
    each(encoder, &table::HELD, groups, |group| Some(flag(group.hold.is_some())))?;
    each(encoder, &table::HOLD_LEFT, groups, |group| {
        group.hold.as_ref().and_then(|hold| hold.left_ms).map(seconds)
    })?;
    each(encoder, &table::LATCHED, groups, |group| Some(flag(group.latched)))?;
    each(encoder, &table::COOLDOWN_LEFT, groups, |group| {
        Some(seconds(group.cooldown_left_ms.unwrap_or(0)))
    })
}

fn group_watch(encoder: &mut DescriptorEncoder<'_>, groups: &[Group]) -> fmt::Result {
    let verdicts = groups.iter().flat_map(|group| {
        ["fresh", "stale", "unknown"].into_iter().map(move |verdict| {
            (vec![group.name.as_str(), verdict], flag(group.verdict == verdict))
        })
    });
    write(encoder, &table::VERDICT, verdicts)?;
    each(encoder, &table::WINDOW, groups, |group| Some(seconds(group.timeout_ms)))?;
    each(encoder, &table::READ_AGE, groups, |group| group.read_ago_ms.map(seconds))?;
    each_bot(encoder, &table::HEARTBEAT_AGE, groups, |_, bot| bot.unchanged_ms.map(seconds))?;
    each_bot(encoder, &table::HEARTBEAT_STALE_IN, groups, |_, bot| bot.stale_in_ms.map(seconds))?;
    each_bot(encoder, &table::HEARTBEAT_DATABASE_AGE, groups, |group, bot| {
        // It was that old when it was read.
        let read_ago = seconds(group.read_ago_ms.unwrap_or(0));
        bot.age_ms.map(|age| signed_seconds(age) + read_ago)
    })
}

fn group_lease(
    encoder: &mut DescriptorEncoder<'_>,
    groups: &[Group],
    facts: &BTreeMap<String, Facts>,
) -> fmt::Result {
    each(encoder, &table::LEASE_EPOCH, groups, |group| group.epoch.map(float))?;
    each(encoder, &table::LEASE_AGE, groups, |group| {
        let (epoch, began) = facts.get(&group.name)?.epoch?;
        let age = SystemTime::now().duration_since(began).unwrap_or_default();
        (Some(epoch) == group.epoch).then_some(age.as_secs_f64())
    })?;
    each(encoder, &table::LAST_FAILOVER, groups, |group| {
        let last = facts.get(&group.name)?.last_failover?;
        Some(last.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
    })
}

fn group_redis(encoder: &mut DescriptorEncoder<'_>, groups: &[Group]) -> fmt::Result {
    let figures = |group: &Group| group.redis_figures.clone();
    each(encoder, &table::REDIS_LAG, groups, |group| figures(group)?.lag_bytes.map(float))?;
    each(encoder, &table::REDIS_LINK_UP, groups, |group| figures(group)?.link_up.map(flag))?;
    each(encoder, &table::REDIS_MASTER, groups, |group| {
        Some(flag(figures(group)?.role == "master"))
    })?;
    each(encoder, &table::REDIS_KEYS, groups, |group| Some(float(figures(group)?.keys)))
}

/// One sample for each group that has a value.
fn each(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    groups: &[Group],
    value: impl Fn(&Group) -> Option<f64>,
) -> fmt::Result {
    let samples =
        groups.iter().filter_map(|group| Some((vec![group.name.as_str()], value(group)?)));
    write(encoder, metric, samples)
}

/// One sample for each bot that has a value.
fn each_bot(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    groups: &[Group],
    value: impl Fn(&Group, &Bot) -> Option<f64> + Copy,
) -> fmt::Result {
    let samples = groups.iter().flat_map(|group| {
        group.bots.iter().filter_map(move |bot| {
            Some((vec![group.name.as_str(), bot.name.as_str()], value(group, bot)?))
        })
    });
    write(encoder, metric, samples)
}

fn write<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    samples: impl IntoIterator<Item = Sample<'a>>,
) -> fmt::Result {
    let (unit, help) = (metric.typed_unit(), format!("{}.", metric.help));
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Info => MetricType::Info,
        Kind::Gauge | Kind::Histogram => MetricType::Gauge,
    };
    let mut family = encoder.encode_descriptor(metric.name, &help, unit.as_ref(), kind)?;
    for (values, value) in samples {
        let labels = labels(metric, &values);
        match metric.kind {
            Kind::Info => family.encode_info(&labels)?,
            Kind::Counter => {
                family.encode_counter::<Labels, _, f64>(&value, None)?;
            }
            Kind::Gauge | Kind::Histogram if labels.is_empty() => family.encode_gauge(&value)?,
            Kind::Gauge | Kind::Histogram => {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
    }
    Ok(())
}

const fn flag(so: bool) -> f64 {
    if so { 1.0 } else { 0.0 }
}

/// Exact up to 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "see above")]
const fn float(count: u64) -> f64 {
    count as f64
}

const fn seconds(millis: u64) -> f64 {
    float(millis) / 1_000.0
}

fn signed_seconds(millis: i64) -> f64 {
    let size = seconds(millis.unsigned_abs());
    if millis < 0 { -size } else { size }
}

impl Process {
    /// Asks the kernel.
    #[must_use]
    pub fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let stat = read("/proc/self/stat");
        let boot = read("/proc/stat");
        let boot = boot.as_deref().and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())
        });
        let statm = read("/proc/self/statm");
        let pages = statm.as_deref().and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
        let sysconf = |variable| {
            nix::unistd::sysconf(variable).ok().flatten().and_then(|v| u32::try_from(v).ok())
        };
        let ticks = sysconf(nix::unistd::SysconfVar::CLK_TCK).map(f64::from);
        let page = sysconf(nix::unistd::SysconfVar::PAGE_SIZE).map(f64::from);
        // After the name, which may have anything in it: state is field 3, utime 14, start 22.
        let fields: Vec<f64> = stat
            .as_deref()
            .and_then(|stat| stat.rsplit_once(')'))
            .map(|(_, rest)| rest.split(' ').map(|f| f.trim().parse().unwrap_or(0.0)).collect())
            .unwrap_or_default();
        let field = |number: usize| fields.get(number - 2).copied();
        let per_tick = |value: f64| ticks.map(|ticks| value / ticks);
        let used = field(14).zip(field(15)).map(|(user, system)| user + system);
        Self {
            started: boot.zip(field(22).and_then(per_tick)).map(|(boot, since)| boot + since),
            cpu: used.and_then(per_tick),
            resident: pages.zip(page).map(|(pages, size)| pages * size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_this_process_uses() {
        let process = Process::read();
        assert!(process.resident.unwrap() > 1e6, "{process:?}");
        assert!(process.cpu.unwrap() >= 0.0, "{process:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - process.started.unwrap()).abs() < 86_400.0, "{process:?}");
    }
}
