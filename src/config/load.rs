//! The keys of the configuration: their defaults, their bounds, and what must hold between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use humantime::format_duration;

use super::document::{Document, Place};
use super::fault::{Faults, Sink};
use super::paired::{self, Roles, Timers};
use super::section::{Count, Item, Section, Setting, Span};
use super::settings::{
    Fence, Group, Heartbeats, Host, Http, Identity, Listen, Quorum, Redis, Settings, Store, Table,
    Tls, Watch,
};
use super::values;
use super::{channel, check};

/// The least that a configuration says.
pub const MINIMAL: &str = r#"[store]
hosts = ["db.example.net:5432"]
database = "trading"

[group.trading]
bots = ["equity"]
units = ["equity.service"]
"#;

/// Where the control socket is unless `runtime_dir` says otherwise; `RuntimeDirectory=` of the unit.
pub const RUNTIME_DIR: &str = "/run/understudy";

/// As long as the monitor that understudy replaces. Faster than 100 ms the reads would be the
/// store's main load; slower than five minutes nobody waits for a failover.
const INTERVAL: Span = span(secs(10), millis(100), mins(5));

/// Half an interval, so that a slow read is over before the next is due, and at most 1.5 s: a store
/// that takes longer for one row is not well, and evidence of that age is of no use.
const REPLY_TIMEOUT: Span = span(millis(1500), millis(10), mins(1));

/// Long enough for a restart of Postgres, short enough that a person hears of it before the users.
const BLIND_AFTER: Span = span(mins(2), secs(1), hours(24));

/// Two beats of a bot that writes every 30 s. The relation to the interval bounds it from below.
const TIMEOUT: Span = span(secs(60), millis(200), hours(24));

/// Several round trips and a login over a bad line. A host that takes longer is as good as down.
const CONNECT_TIMEOUT: Span = span(secs(5), millis(100), mins(1));

/// As the monitor that understudy replaces: time for a person to look before anything moves again.
const COOLDOWN: Span = span(mins(5), secs(1), hours(7 * 24));

/// What three failovers within an hour did not help, a fourth will not help either.
const LATCH_AFTER: Count = Count { default: 3, least: 1, most: 100 };

/// See [`LATCH_AFTER`].
const LATCH_WINDOW: Span = span(hours(1), mins(1), hours(30 * 24));

/// systemd's own default for a start. More than an hour is no start but a migration.
const START_DEADLINE: Span = span(secs(90), secs(1), hours(1));

/// A program that cannot work usually ends within seconds. Zero trusts the first "active".
const SETTLE: Span = span(secs(10), Duration::ZERO, mins(10));

/// Three beats of a bot that writes every 30 s.
const HEARTBEAT_DEADLINE: Span = span(secs(90), secs(1), hours(1));

/// Added to `timeout`: the link breaks when the primary does, and some time passes until then.
const LINK_DOWN_MARGIN: Duration = secs(60);

/// How long the link to a dead primary may be down at most: beyond a day the data are history.
const MAX_LINK_DOWN: Span = span(LINK_DOWN_MARGIN, secs(1), hours(24));

/// A replica that keeps up is some kilobytes behind; a mebibyte is a burst, and more is a fault.
const MAX_LAG_BYTES: Count = Count { default: 1 << 20, least: 0, most: i64::MAX as u64 };

/// Redis answers within a millisecond unless it is busy with one long command.
const CALL_TIMEOUT: Span = span(secs(1), millis(10), secs(1));

/// A management board takes seconds to cut the power. Units wait for it all the while.
const FENCE_DEADLINE: Span = span(secs(30), secs(1), mins(10));

/// Groups. One statement reads them all, so that its size is bounded by this.
const GROUPS_MAX: usize = 10_000;

/// Bots of one group. A group is what fails over together, not a fleet.
const BOTS_MAX: usize = 1_000;

/// Units of one group. They are started all at once, and all have to become active.
const UNITS_MAX: usize = 100;

/// Channels. Each has a directory and a task of its own.
const CHANNELS_MAX: usize = 100;

/// Hosts of Postgres. Each costs a connection attempt before a failure is known.
const HOSTS_MAX: usize = 16;

/// Statuses that mean "stopped on purpose". Each is compared with each bot's at each read.
const STATUSES_MAX: usize = 100;

/// Program and arguments of the fence. A script is the place for more.
const ARGUMENTS_MAX: usize = 100;

/// Addresses to listen on. Each has a task of its own.
const LISTEN_MAX: usize = 16;

/// Names by which the listener may be called. Each request is compared with each.
const HTTP_HOSTS_MAX: usize = 100;

/// Loopback, as what is served there is nobody else's business. The port is outside the range that
/// exporters of Prometheus share, and outside the one that the kernel gives out.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 12_847);

impl Settings {
    /// Reads the file at `path` and its drop-ins, `path` with `.d` appended.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them. Nothing of a faulty configuration can be used.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        Self::load_in(path, &Surroundings::of_this_process())
    }

    /// The same without the secrets, each of which is empty, for whoever has no use for them and may
    /// not be able to read them.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_without_secrets(path: &Path) -> Result<Self, Faults> {
        let around = Surroundings { reads_secrets: false, ..Surroundings::of_this_process() };
        Self::load_in(path, &around)
    }

    /// The same in other surroundings.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_in(path: &Path, around: &Surroundings) -> Result<Self, Faults> {
        let sink = Sink::default();
        let document = Document::read(path, &sink);
        if document.root.entries.is_empty() && !sink.is_incomplete() {
            let text = format!("says nothing yet; the least it needs is\n\n{MINIMAL}");
            sink.unreadable(Place::MAIN, text);
        }
        let settings = Section::root(&document.root, &sink, |root| settings(root, around));
        match sink.into_faults(&document) {
            None => Ok(settings),
            Some(faults) => Err(faults),
        }
    }
}

/// What a configuration refers to outside its files.
pub struct Surroundings {
    /// The host's name.
    pub host_name: String,
    /// Where systemd put the credentials of the service; `None` outside of one.
    pub credentials: Option<PathBuf>,
    /// Where systemd takes them from, for a person who runs a command.
    pub credentials_at_rest: PathBuf,
    /// Whether secrets are read. References to them are checked in any case.
    pub reads_secrets: bool,
    /// Looks up an environment variable.
    pub variable: fn(&str) -> Option<String>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let host_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self {
            host_name: host_name.unwrap_or_default(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            credentials_at_rest: PathBuf::from("/etc/understudy/credentials"),
            reads_secrets: true,
            variable: |name| std::env::var(name).ok(),
        }
    }
}

fn settings(root: &mut Section<'_>, around: &Surroundings) -> Settings {
    let node = root.text("node", around.host_name.clone(), values::node);
    if !node.is_written() && values::node(&around.host_name).is_err() {
        root.missing("this host has no usable name; write node = \"NAME\"");
    }
    let state_dir = root.text("state_dir", "/var/lib/understudy", values::absolute_path);
    let runtime_dir = root.text("runtime_dir", RUNTIME_DIR, values::absolute_path);
    root.relation(
        !state_dir.value.starts_with(&runtime_dir.value),
        &[&state_dir.origin, &runtime_dir.origin],
        "state_dir must be outside runtime_dir, which systemd empties at each stop",
    );

    let pace = root.table("watch", pace);
    let timers = root.table("paired", paired::timers);
    let store = root.table("store", |section| store(section, around));
    let heartbeats = root.table("heartbeats", |section| heartbeats(section, &original()));
    let http = root.table("http", |section| http(section, around));
    let channels = root.named_tables("alert", CHANNELS_MAX, |name, section| {
        channel::channel(name, section, around)
    });
    let dead_man = root.table("alerts", |section| channel::alerts(section, around));

    let common = Common { node, pace, timers, heartbeats };
    let mut claims = Claims::default();
    let what = "write a table [group.NAME] with bots = [\"...\"] and units = [\"....service\"]";
    let groups = root.needed_named_tables("group", GROUPS_MAX, what, |name, section| {
        group(name, section, &common, &mut claims, around)
    });

    let monitoring = check::monitoring(root, &store, &groups, around);
    let any_paired = groups.iter().any(|group| group.paired.is_some());
    Settings {
        watch: common.watch(root, any_paired),
        paired: common.timers.value,
        node: common.node.value,
        state_dir: state_dir.value,
        runtime_dir: runtime_dir.value,
        store,
        http,
        channels,
        dead_man,
        groups,
        monitoring,
    }
}

/// What groups take over from the tables above them.
struct Common {
    node: Setting<String>,
    pace: Pace,
    timers: Timers,
    heartbeats: Heartbeats,
}

impl Common {
    fn watch(&self, root: &Section<'_>, any_paired: bool) -> Watch {
        let Pace { interval, reply_timeout, blind_after, .. } = &self.pace;
        let (interval, reply_timeout) = if any_paired {
            self.timers.pace(root, interval.value, reply_timeout)
        } else {
            (interval.value, reply_timeout.value)
        };
        Watch { interval, reply_timeout, blind_after: *blind_after }
    }
}

struct Pace {
    interval: Setting<Duration>,
    reply_timeout: Setting<Duration>,
    timeout: Setting<Duration>,
    blind_after: Duration,
}

fn pace(section: &mut Section<'_>) -> Pace {
    let interval = section.duration("interval", INTERVAL);
    let reply_timeout = REPLY_TIMEOUT.default.min(interval.value / 2);
    let reply_timeout = section.duration("reply_timeout", REPLY_TIMEOUT.or(reply_timeout));
    let timeout = section.duration("timeout", TIMEOUT);
    let blind_after = section.duration("blind_after", BLIND_AFTER);
    section.relation(
        reply_timeout.value < interval.value,
        &[&reply_timeout.origin, &interval.origin],
        "reply_timeout must be shorter than interval, or reads would queue up",
    );
    section.relation(
        blind_after.value >= interval.value + reply_timeout.value,
        &[&blind_after.origin, &interval.origin, &reply_timeout.origin],
        format!(
            "blind_after must be at least interval + reply_timeout ({}), or one slow read would \
             call a person",
            format_duration(interval.value + reply_timeout.value)
        ),
    );
    Pace { interval, reply_timeout, timeout, blind_after: blind_after.value }
}

fn store(section: &mut Section<'_>, around: &Surroundings) -> Store {
    let schema = section.text("schema", "understudy", values::own_schema);
    Store { schema: schema.value, ..database(section, around) }
}

/// How to reach a Postgres, be it the store or one that only checks ask.
pub(super) fn database(section: &mut Section<'_>, around: &Surroundings) -> Store {
    let hosts = section.needed_list(
        "hosts",
        HOSTS_MAX,
        "list where Postgres listens, like [\"db1:5432\", \"db2:5432\"]",
        values::postgres_host,
    );
    let database = section.needed_text(
        "database",
        "name the database that the heartbeats are in",
        values::identifier,
    );
    let user = section.text("user", "understudy", values::identifier);
    let password = section.secret("password", around);
    let hosts = plain(hosts);
    // What leaves the host is encrypted unless a person says otherwise.
    let tls = tls(section, !hosts.iter().all(values::is_local));
    let connect_timeout = section.duration("connect_timeout", CONNECT_TIMEOUT);
    Store {
        hosts,
        database: database.value,
        user: user.value,
        password: password.value,
        tls,
        schema: "understudy".to_owned(),
        connect_timeout: connect_timeout.value,
    }
}

pub(super) fn tls(section: &mut Section<'_>, verify: bool) -> Tls {
    let ca_file = section.text_if_written("ca_file", values::absolute_path);
    // Who names an authority wants it asked.
    let verify = verify || ca_file.is_written();
    let verify = section.choice("tls", verify, &[("verify", true), ("off", false)]);
    section.relation(
        verify.value || ca_file.value.is_none(),
        &[&ca_file.origin, &verify.origin],
        "ca_file is of no use with tls = \"off\"; remove one of them",
    );
    if verify.value { Tls::Verify { ca_file: ca_file.value } } else { Tls::Off }
}

/// The table that the monitor which understudy replaces has read.
fn original() -> Heartbeats {
    Heartbeats {
        table: Table { schema: "public".to_owned(), name: "bot_status".to_owned() },
        name_column: "bot_name".to_owned(),
        beat_column: "last_heartbeat".to_owned(),
        status_column: "status".to_owned(),
        primary_status: "PRIMARY".to_owned(),
        stopped_statuses: vec!["EMERGENCY_STOPPED".to_owned()],
    }
}

fn heartbeats(section: &mut Section<'_>, base: &Heartbeats) -> Heartbeats {
    let table = section.text("table", base.table.clone(), values::table);
    let mut column = |key, base: &str| section.text(key, base, values::identifier).value;
    let name_column = column("name_column", &base.name_column);
    let beat_column = column("beat_column", &base.beat_column);
    let status_column = column("status_column", &base.status_column);
    let primary_status = section.text("primary_status", &*base.primary_status, values::label);
    let stopped = section.list("stopped_statuses", STATUSES_MAX, values::label);
    let inherited = !primary_status.is_written() && !stopped.is_written();
    let stopped_origin = stopped.origin.clone();
    let stopped_statuses =
        if stopped.is_written() { plain(stopped) } else { base.stopped_statuses.clone() };
    section.relation(
        inherited || !stopped_statuses.contains(&primary_status.value),
        &[&primary_status.origin, &stopped_origin],
        "primary_status is one of stopped_statuses, so understudy's own failover would forbid \
         the next one",
    );
    Heartbeats {
        table: table.value,
        name_column,
        beat_column,
        status_column,
        primary_status: primary_status.value,
        stopped_statuses,
    }
}

fn http(section: &mut Section<'_>, around: &Surroundings) -> Http {
    let listen = section.list("listen", LISTEN_MAX, values::listen);
    let listen =
        if listen.is_written() { plain(listen) } else { vec![Listen::Tcp(LISTEN_DEFAULT)] };
    let hosts = plain(section.list("hosts", HTTP_HOSTS_MAX, values::host_name));
    let token = section.secret("token", around);
    let certificate_file = section.text_if_written("certificate_file", values::absolute_path);
    let key_file = section.text_if_written("key_file", values::absolute_path);
    section.relation(
        certificate_file.value.is_some() == key_file.value.is_some(),
        &[&certificate_file.origin, &key_file.origin],
        "certificate_file and key_file belong together; write both, or neither",
    );
    let tls = certificate_file.value.zip(key_file.value);
    Http {
        listen,
        hosts,
        token: token.value,
        tls: tls.map(|(certificate_file, key_file)| Identity { certificate_file, key_file }),
    }
}

fn group(
    name: &str,
    section: &mut Section<'_>,
    common: &Common,
    claims: &mut Claims,
    around: &Surroundings,
) -> Group {
    let bots = section.needed_list(
        "bots",
        BOTS_MAX,
        "list the bots by their names in the heartbeat table",
        values::label,
    );
    let units = section.needed_list(
        "units",
        UNITS_MAX,
        "list the systemd units to start, like [\"equity.service\"]",
        values::unit,
    );
    let roles = paired::roles(section, &common.node);
    let stale = section.choice("stale", Quorum::Any, &[("any", Quorum::Any), ("all", Quorum::All)]);
    let timeout = section.duration("timeout", TIMEOUT).or_inherit(&common.pace.timeout);
    let restraint = restraint(section, &timeout);
    let start_deadline = section.duration("start_deadline", START_DEADLINE);
    let settle = section.duration("settle", SETTLE);
    let heartbeat_deadline = section.duration("heartbeat_deadline", HEARTBEAT_DEADLINE);
    let heartbeats = section.table("heartbeats", |inner| heartbeats(inner, &common.heartbeats));
    let redis = section.table_if_written("redis", |inner| redis(inner, &timeout, &roles, around));
    let fence = section.table_if_written("fence", fence);

    claims.units(section, name, &units.value);
    claims.bots(section, name, &bots.value, &heartbeats.table);
    match roles.paired {
        Some(_) => common.timers.check_group(section, &timeout, &restraint.cooldown),
        None => check_window(section, &timeout, &common.pace),
    }

    Group {
        name: name.to_owned(),
        paired: roles.paired,
        primary: roles.primary,
        heartbeats,
        bots: plain(bots),
        stale: stale.value,
        timeout: timeout.value,
        units: plain(units),
        cooldown: restraint.cooldown.value,
        latch_after: restraint.latch_after,
        latch_window: restraint.latch_window,
        accept_dual_active: roles.accept_dual_active,
        redis,
        fence,
        start_deadline: start_deadline.value,
        settle: settle.value,
        heartbeat_deadline: heartbeat_deadline.value,
    }
}

fn check_window(section: &Section<'_>, timeout: &Setting<Duration>, pace: &Pace) {
    let Pace { interval, reply_timeout, .. } = pace;
    let least = (interval.value + reply_timeout.value) * 2;
    section.relation(
        timeout.value >= least,
        &[&timeout.origin, &interval.origin, &reply_timeout.origin],
        format!(
            "timeout must be at least 2 x (interval + reply_timeout), here {}: a window must hold \
             at least two reads, or a slow store would look like a silent bot",
            format_duration(least)
        ),
    );
}

/// When a group may fail over again.
struct Restraint {
    cooldown: Setting<Duration>,
    latch_after: u32,
    latch_window: Duration,
}

fn restraint(section: &mut Section<'_>, timeout: &Setting<Duration>) -> Restraint {
    let cooldown = section.duration("cooldown", COOLDOWN);
    let latch_after = section.count("latch_after", LATCH_AFTER);
    let failovers = u32::try_from(latch_after.value).unwrap_or(u32::MAX);
    // As fast as the cooldown allows so many.
    let fastest = cooldown.value.saturating_mul(failovers - 1);
    let latch_window = LATCH_WINDOW.or(LATCH_WINDOW.default.max(fastest));
    let latch_window = section.duration("latch_window", latch_window);
    section.relation(
        cooldown.value >= timeout.value,
        &[&cooldown.origin, &timeout.origin],
        format!(
            "cooldown must be at least timeout ({}), or the silence that led to a failover could \
             lead to the next one",
            format_duration(timeout.value)
        ),
    );
    section.relation(
        latch_window.value >= fastest,
        &[&latch_window.origin, &latch_after.origin, &cooldown.origin],
        format!(
            "latch_window must be at least (latch_after - 1) x cooldown ({}), or so many failovers \
             would never fall into it",
            format_duration(fastest)
        ),
    );
    Restraint { cooldown, latch_after: failovers, latch_window: latch_window.value }
}

/// What can be in one group only, and where each is.
#[derive(Default)]
struct Claims {
    units: BTreeMap<String, Claim>,
    bots: BTreeMap<(Table, String), Claim>,
}

struct Claim {
    group: String,
    at: Place,
}

impl Claims {
    fn units(&mut self, section: &Section<'_>, group: &str, units: &[Item<String>]) {
        for unit in units {
            claim(section, unit, &mut self.units, unit.value.clone(), group, "unit");
        }
    }

    fn bots(&mut self, section: &Section<'_>, group: &str, bots: &[Item<String>], table: &Table) {
        for bot in bots {
            let key = (table.clone(), bot.value.clone());
            claim(section, bot, &mut self.bots, key, group, "bot");
        }
    }
}

/// Notes `item` for `group`, or the fault that it was noted before.
fn claim<K: Ord>(
    section: &Section<'_>,
    item: &Item<String>,
    claims: &mut BTreeMap<K, Claim>,
    key: K,
    group: &str,
    what: &str,
) {
    let Some(earlier) = claims.get(&key) else {
        claims.insert(key, Claim { group: group.to_owned(), at: item.at });
        return;
    };
    let text = if earlier.group == group {
        format!("the same {what} twice; keep one")
    } else {
        format!("this {what} is also in group.{}; it can be in one only", earlier.group)
    };
    section.clash(item, text, earlier.at);
}

fn redis(
    section: &mut Section<'_>,
    timeout: &Setting<Duration>,
    roles: &Roles,
    around: &Surroundings,
) -> Redis {
    let address = Host::Tcp("127.0.0.1".to_owned(), 6379);
    let address = section.text("address", address, values::redis_host);
    let primary = section.text_if_written("primary", values::redis_host);
    let nodes = roles.redis_nodes(section, &primary);
    let user = section.text_if_written("user", values::label);
    let password = section.secret("password", around);
    let tls = tls(section, false);
    let max_lag_bytes = section.count("max_lag_bytes", MAX_LAG_BYTES);
    let max_link_down = MAX_LINK_DOWN.or(LINK_DOWN_MARGIN + timeout.value);
    let max_link_down = section.duration("max_link_down", max_link_down);
    let allow_empty = section.boolean("allow_empty", false);
    let call_timeout = section.duration("call_timeout", CALL_TIMEOUT);
    section.relation(
        max_link_down.value >= timeout.value,
        &[&max_link_down.origin, &timeout.origin],
        format!(
            "max_link_down must be at least timeout ({}): the link is down for as long as \
                 the primary is, so every failover would be refused",
            format_duration(timeout.value)
        ),
    );
    section.relation(
        primary.value.as_ref() != Some(&address.value),
        &[&primary.origin, &address.origin],
        "primary and address are the same, but a replica follows another Redis",
    );
    Redis {
        address: address.value,
        primary: primary.value,
        nodes,
        user: user.value,
        password: password.value,
        tls,
        max_lag_bytes: max_lag_bytes.value,
        max_link_down: max_link_down.value,
        allow_empty: allow_empty.value,
        call_timeout: call_timeout.value,
    }
}

fn fence(section: &mut Section<'_>) -> Fence {
    let command = section.needed_list(
        "command",
        ARGUMENTS_MAX,
        "write the program and its arguments, like [\"/usr/local/bin/fence\", \"db1\"]",
        values::argument,
    );
    let program = command.value.first().map(|program| program.value.clone());
    section.relation(
        program.is_none_or(|program| values::absolute_path(&program).is_ok()),
        &[&command.origin],
        "the program must be an absolute path; no shell looks for it",
    );
    let required = section.boolean("required", true);
    let deadline = section.duration("deadline", FENCE_DEADLINE);
    Fence { command: plain(command), required: required.value, deadline: deadline.value }
}

pub(super) fn plain<T>(list: Setting<Vec<Item<T>>>) -> Vec<T> {
    list.value.into_iter().map(|item| item.value).collect()
}

pub(super) const fn span(default: Duration, least: Duration, most: Duration) -> Span {
    Span { default, least, most }
}

pub(super) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) const fn mins(count: u64) -> Duration {
    secs(60 * count)
}

pub(super) const fn hours(count: u64) -> Duration {
    mins(60 * count)
}
