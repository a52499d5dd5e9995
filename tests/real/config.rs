//! Files on disk into settings, or into faults that a person can mend.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail in a helper, too")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use understudy::config::fault::{Faults, SHOWN_MAX};
use understudy::config::load::{MINIMAL, Surroundings};
use understudy::config::settings::{ChannelKind, Host, OnStoreLoss, Settings, Severity, Tls};

/// A secret that must not turn up anywhere.
const CANARY: &str = "hunter2-canary";

/// A configuration on disk.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new(main: impl AsRef<[u8]>) -> Self {
        let files = Self { directory: TempDir::new().unwrap() };
        files.write("understudy.toml", main);
        for name in [
            "store-password",
            "redis-password",
            "http-token",
            "ops-webhook-key",
            "ops-webhook-token",
            "slack-webhook",
            "pagerduty-key",
            "mail-password",
            "reports-password",
            "cache-password",
            "api-token",
        ] {
            // An address where one is needed, with the secret in it.
            let text = if name == "slack-webhook" { "https://h.example.com/" } else { "" };
            let path = files.write(&format!("credentials/{name}"), format!("{text}{CANARY}"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        files
    }

    fn and(self, drop_in: &str, text: &str) -> Self {
        self.write(&format!("understudy.toml.d/{drop_in}"), text);
        self
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn main(&self) -> PathBuf {
        self.directory.path().join("understudy.toml")
    }

    fn around(&self) -> Surroundings {
        Surroundings {
            host_name: "standby-1".to_owned(),
            credentials: None,
            credentials_at_rest: self.directory.path().join("credentials"),
            reads_secrets: true,
            variable: |name| match name {
                "PASSWORD" => Some(CANARY.to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            },
        }
    }

    fn load(&self) -> Result<Settings, Faults> {
        Settings::load_in(&self.main(), &self.around())
    }

    /// The faults as printed, with the directory left out.
    fn faults(&self) -> String {
        let directory = format!("{}/", self.directory.path().display());
        self.load().expect_err("a fault").to_string().replace(&directory, "")
    }
}

fn faults(text: &str) -> String {
    Files::new(text).faults()
}

fn settings(text: &str) -> Settings {
    match Files::new(text).load() {
        Ok(settings) => settings,
        Err(faults) => panic!("{faults}\nin\n{text}"),
    }
}

/// The shipped file with every key in force.
fn shipped_in_force() -> String {
    let shipped = fs::read_to_string("config/understudy.toml").unwrap();
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    shipped.lines().map(|line| bare(line) + "\n").collect()
}

/// The shipped file with only those keys in force that have no default.
fn shipped_without_defaults() -> String {
    let mut text = String::new();
    let mut comment = String::new();
    for line in shipped_in_force().lines() {
        if line.starts_with('#') {
            comment += line;
        } else if line.starts_with('[') || comment.contains("No default") {
            text += line;
            text += "\n";
        }
        if line.is_empty() || line.starts_with('[') {
            comment.clear();
        }
    }
    text
}

/// Keys of a text in the layout of the shipped file, with the names of tables as `NAME`.
fn keys_in(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix('[') {
            table = format!("{}.", header.trim_end_matches(']'));
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert(generic(&format!("{table}{key}")));
        }
    }
    keys
}

fn generic(key: &str) -> String {
    let key = key.replace("group.trading", "group.NAME").replace("group.execution", "group.NAME");
    for table in ["alert", "list", "server", "check"] {
        let rest = key.strip_prefix(table).and_then(|rest| rest.strip_prefix('.'));
        if let Some((_name, rest)) = rest.and_then(|rest| rest.split_once('.')) {
            return format!("{table}.NAME.{rest}");
        }
    }
    key
}

/// Keys that the reader knows, from what it says about one that it does not know.
fn keys_of_the_reader() -> BTreeSet<String> {
    const STRANGE: &str = "quite_unheard_of";
    let mut text = format!("{STRANGE} = 1\n");
    for line in shipped_in_force().lines() {
        text += line;
        text += "\n";
        if line.starts_with('[') {
            text += &format!("{STRANGE} = 1\n");
        }
    }
    let faults = Files::new(&text).load().unwrap_err();
    let mut keys = BTreeSet::new();
    let mut tables = BTreeSet::new();
    for fault in faults.shown() {
        let table = generic(fault.key.strip_suffix(STRANGE).unwrap());
        let known = fault.text.strip_prefix("unknown key; known here are ").unwrap();
        keys.extend(known.split(", ").map(|key| format!("{table}{key}")));
        tables.insert(table);
    }
    keys.retain(|key| {
        let within = format!("{key}.");
        !tables.iter().any(|table| table.starts_with(&within))
    });
    keys
}

#[test]
fn the_shipped_file_has_every_key_and_no_other() {
    assert_eq!(keys_in(&shipped_in_force()), keys_of_the_reader());
}

#[test]
fn the_manual_has_every_key_and_no_other() {
    let manual = fs::read_to_string("docs/configuration.md").unwrap();
    let headings = manual.lines().filter_map(|line| line.strip_prefix("### `"));
    let described: BTreeSet<_> = headings.map(|key| key.trim_end_matches('`').to_owned()).collect();
    assert_eq!(described, keys_of_the_reader());
    assert!(manual.contains(MINIMAL));
}

#[test]
fn the_manual_and_the_shipped_file_state_the_same_defaults() {
    let manual = fs::read_to_string("docs/configuration.md").unwrap();
    let mut shipped = BTreeSet::new();
    let mut table = String::new();
    for line in shipped_in_force().lines() {
        if let Some(header) = line.strip_prefix('[') {
            table = format!("{}.", header.trim_end_matches(']'));
        } else {
            shipped.insert(generic(&format!("{table}{line}")));
        }
    }
    let mut compared = 0;
    for paragraph in manual.split("\n### `").skip(1) {
        let (key, text) = paragraph.split_once("`\n").unwrap();
        if let Some((_, default)) = text.split_once(", default `") {
            let (default, _) = default.split_once('`').unwrap();
            let line = format!("{key} = {default}");
            assert!(shipped.contains(&line), "{line} is not in config/understudy.toml");
            compared += 1;
        }
    }
    assert!(compared > 25, "{compared}");
}

#[test]
fn the_shipped_file_shows_the_true_defaults() {
    let with = Files::new(shipped_in_force()).load();
    let without = Files::new(shipped_without_defaults()).load();
    assert_eq!(format!("{with:#?}"), format!("{without:#?}"));
    assert!(with.is_ok(), "{}", with.unwrap_err());
}

#[test]
fn the_shipped_file_as_it_is_says_what_is_needed() {
    let shipped = fs::read_to_string("config/understudy.toml").unwrap();
    let expected = format!("understudy.toml: says nothing yet; the least it needs is\n\n{MINIMAL}");
    assert_eq!(faults(&shipped), expected);
    assert_eq!(faults(""), expected);
}

#[test]
fn the_minimum_has_the_defaults_of_the_original() {
    let settings = settings(MINIMAL);
    assert_eq!(settings.node, "standby-1");
    assert_eq!(settings.watch.interval, Duration::from_secs(10));
    assert_eq!(settings.watch.reply_timeout, Duration::from_millis(1500));
    assert_eq!(settings.store.tls, Tls::Verify { ca_file: None });
    let [group] = &settings.groups[..] else { panic!("{:?}", settings.groups) };
    assert_eq!(group.timeout, Duration::from_secs(60));
    assert_eq!(group.cooldown, Duration::from_secs(300));
    assert_eq!(group.heartbeats.table.name, "bot_status");
    assert!(!group.automatic());
}

#[test]
fn everything_that_can_be_said() {
    let settings = settings(
        r#"
        node = "b.example.net"
        [watch]
        interval = "1s"
        [store]
        hosts = ["localhost:6000", "[::1]", "/run/postgresql:5433"]
        database = "trading"
        password = { env = "PASSWORD" }
        [http]
        listen = ["0.0.0.0:9000", "unix:/run/x.sock"]
        hosts = ["Standby.example.net"]
        token = { env = "PASSWORD" }
        certificate_file = "/etc/x.pem"
        key_file = "/etc/x.key"
        [alert.ops]
        kind = "webhook"
        url = "https://hooks.example.com/x"
        min_severity = "critical"
        [group.trading]
        bots = ["a", "b"]
        units = ["a.service", "bot@b.service"]
        stale = "all"
        timeout = "30s"
        heartbeats = { table = "app.Beats", stopped_statuses = [] }
        redis = { address = "unix:/run/redis.sock", primary = "10.0.0.1" }
        fence.command = ["/bin/true", "", "x y"]
        "#,
    );
    assert_eq!(settings.watch.reply_timeout, Duration::from_millis(500));
    assert_eq!(settings.store.hosts[1], Host::Tcp("::1".to_owned(), 5432));
    assert_eq!(settings.store.tls, Tls::Off);
    assert_eq!(settings.store.password.as_ref().unwrap().expose(), CANARY);
    let listen: Vec<_> = settings.http.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:9000", "unix:/run/x.sock"]);
    assert!(!settings.http.listen[0].is_local() && settings.http.listen[1].is_local());
    assert_eq!(settings.http.hosts, ["standby.example.net"]);
    assert_eq!(settings.http.token.as_ref().unwrap().expose(), CANARY);
    assert_eq!(settings.http.tls.unwrap().key_file, Path::new("/etc/x.key"));
    assert_eq!(settings.channels[0].min_severity, Severity::Critical);
    let ChannelKind::Webhook { endpoint, .. } = &settings.channels[0].kind else { panic!() };
    assert_eq!(endpoint.url.expose(), "https://hooks.example.com/x");
    let group = &settings.groups[0];
    assert!(group.automatic());
    assert_eq!(group.heartbeats.table.schema, "app");
    assert!(group.heartbeats.stopped_statuses.is_empty());
    let redis = group.redis.as_ref().unwrap();
    assert_eq!(redis.max_link_down, Duration::from_secs(90));
    assert_eq!(redis.address, Host::Unix("/run/redis.sock".into(), 0));
    assert_eq!(group.fence.as_ref().unwrap().command, ["/bin/true", "", "x y"]);
}

#[test]
fn all_faults_of_all_files_at_once() {
    let files = Files::new(
        r#"nod = "x"
[watch]
interval = 10
blind_after = "soon"
[store]
hosts = ["db1:5432", "me:pass@db2", 3]
password = "hunter2"
[group.Trading]
[group.trading]
timeot = "30s"
bots = []
units = ["équity", "a.service"]
accept_dual_active = "yes"
stale = "some"
latch_after = 0
"#,
    )
    .and(
        "10-alerts.toml",
        r#"[alert.ops]
kind = "pigeon"
url = "hooks.example.com"
min_severity = 1
to = 3
zzz = 1
[alert.two]
kind = "webhook"
url = "hooks.example.com"
body = '{ "text": "{{sumary}}" }'
"#,
    );
    let expected = r#"understudy.toml:1:1: nod: unknown key; did you mean "node"?
understudy.toml:3:12: watch.interval: a duration needs a unit; write "10s" for seconds
understudy.toml:4:15: watch.blind_after: not a duration; write it like "60s", "1m 30s" or "500ms"
understudy.toml:5:1: store.database: missing; name the database that the heartbeats are in
understudy.toml:6:22: store.hosts[1]: not a host; write "host:port", "[::1]:port", or a socket's path like "/run/postgresql"
understudy.toml:6:37: store.hosts[2]: must be a text in quotes, but is a number
understudy.toml:7:12: store.password: a secret does not belong into this file; keep it elsewhere and write { credential = "NAME" }, { file = "/path" } or { env = "NAME" }
understudy.toml:8:8: group.Trading: not a name; use a to z, 0 to 9, "-" and "_", at most 63 of them, beginning with a letter or a digit
understudy.toml:10:1: group.trading.timeot: unknown key; did you mean "timeout"?
understudy.toml:11:8: group.trading.bots: empty; list the bots by their names in the heartbeat table
understudy.toml:12:10: group.trading.units[0]: not the full name of a unit that can be started; end it in ".service" (or socket, target, timer, path, mount, automount, swap)
understudy.toml:13:22: group.trading.accept_dual_active: must be true or false, but is a text
understudy.toml:14:9: group.trading.stale: must be "any" or "all"
understudy.toml:15:15: group.trading.latch_after: 0 is out of range; write 1 to 100
understudy.toml.d/10-alerts.toml:2:8: alert.ops.kind: must be "webhook" or "slack" or "discord" or "pagerduty" or "alertmanager" or "email" or "command"
understudy.toml.d/10-alerts.toml:4:16: alert.ops.min_severity: must be a text in quotes, but is a number
understudy.toml.d/10-alerts.toml:6:1: alert.ops.zzz: unknown key; known here are body, ca_file, command, encryption, escalate_after, fold_within, from, host, kind, min_severity, password, port, routing_key, secret, to, token, url, user
understudy.toml.d/10-alerts.toml:9:7: alert.two.url: not an address; it must look like "https://hooks.example.com/x"
understudy.toml.d/10-alerts.toml:10:8: alert.two.body: has a gap of an unknown name; known are at, dedup_key, detail, epoch, event, fields, folded, group, id, lasting, node, resolves, severity, status, summary"#;
    assert_eq!(files.faults(), expected);
}

#[test]
fn later_files_win_and_tables_merge() {
    let files = Files::new(format!("{MINIMAL}cooldown = \"10m\"\ntimeout = \"90s\"\n"))
        .and("20-b.toml", "group.trading.timeout = \"40s\"\n")
        .and("10-a.toml", "[group.trading]\ntimeout = \"50s\"\nunits = [\"other.service\"]\n")
        .and("30-c.toml", "[store]\npassword = { env = \"PASSWORD\" }\n")
        .and("25-c.toml", "[store]\npassword = { credential = \"store-password\" }\n")
        .and("40-d.toml.dpkg-dist", "nonsense")
        .and(".50-e.toml", "nonsense");
    let settings = files.load().unwrap();
    assert_eq!(settings.groups[0].timeout, Duration::from_secs(40));
    assert_eq!(settings.groups[0].cooldown, Duration::from_secs(600));
    assert_eq!(settings.groups[0].units, ["other.service"]);
    assert!(settings.store.password.is_some());
}

#[test]
fn what_must_hold_between_settings() {
    // What is added to the minimum, where the fault is, and the nearest value without one.
    for (added, expected, mended) in [
        (
            "[watch]\nreply_timeout = \"10s\"",
            "watch.reply_timeout: reply_timeout must be shorter than interval",
            "[watch]\nreply_timeout = \"9999ms\"",
        ),
        (
            "timeout = \"22999ms\"",
            "group.trading.timeout: timeout must be at least 2 x (interval + reply_timeout), here 23s",
            "timeout = \"23s\"",
        ),
        (
            "[watch]\ninterval = \"28501ms\"",
            "watch.interval: timeout must be at least 2 x (interval + reply_timeout), here 1m 2ms",
            "[watch]\ninterval = \"28500ms\"",
        ),
        (
            "[watch]\nblind_after = \"11499ms\"",
            "watch.blind_after: blind_after must be at least interval + reply_timeout (11s 500ms)",
            "[watch]\nblind_after = \"11500ms\"",
        ),
        (
            "cooldown = \"59s\"",
            "group.trading.cooldown: cooldown must be at least timeout (1m)",
            "cooldown = \"60s\"",
        ),
        (
            "[watch]\ntimeout = \"6m\"",
            "watch.timeout: cooldown must be at least timeout (6m)",
            "[watch]\ntimeout = \"5m\"",
        ),
        (
            "latch_window = \"9m\"",
            "group.trading.latch_window: latch_window must be at least (latch_after - 1) x cooldown (10m)",
            "latch_window = \"10m\"",
        ),
        (
            "redis.max_link_down = \"59s\"",
            "group.trading.redis.max_link_down: max_link_down must be at least timeout (1m)",
            "redis.max_link_down = \"60s\"",
        ),
        (
            "redis = { address = \"r\", primary = \"r:6379\" }",
            "group.trading.redis.primary: primary and address are the same",
            "redis = { address = \"r\", primary = \"s\" }",
        ),
        (
            "redis = { tls = \"off\", ca_file = \"/x\" }",
            "group.trading.redis.ca_file: ca_file is of no use with tls = \"off\"",
            "redis = { ca_file = \"/x\" }",
        ),
        (
            "fence.command = [\"fence\"]",
            "group.trading.fence.command: the program must be an absolute path",
            "fence.command = [\"/fence\"]",
        ),
        (
            "[alert.a]\nkind = \"command\"\ncommand = [\"tell\"]",
            "alert.a.command: the program must be an absolute path",
            "[alert.a]\nkind = \"command\"\ncommand = [\"/tell\"]",
        ),
        (
            "[alert.a]\nkind = \"command\"\ncommand = [\"/tell\"]\nescalate_after = \"5m\"\n\
             min_severity = \"warning\"",
            "alert.a.min_severity: min_severity is of no use with escalate_after",
            "[alert.a]\nkind = \"command\"\ncommand = [\"/tell\"]\nescalate_after = \"5m\"",
        ),
        (
            "[alert]\na = { kind = \"email\", host = \"m\", from = \"a@b\", to = [\"c@d\"], user = \"u\" }",
            "alert.a.user: user and password belong together",
            "[alert]\na = { kind = \"email\", host = \"m\", from = \"a@b\", to = [\"c@d\"] }",
        ),
        (
            "[alert]\na = { kind = \"email\", host = \"::1\", from = \"a@b\", to = [\"c@d\"], \
             ca_file = \"/x\" }",
            "alert.a.ca_file: ca_file is of no use with encryption = \"off\"",
            "[alert]\na = { kind = \"email\", host = \"m\", from = \"a@b\", to = [\"c@d\"], \
             ca_file = \"/x\" }",
        ),
        (
            "primary = \"standby-1\"",
            "group.trading.primary: primary and node have the same name",
            "primary = \"standby-2\"",
        ),
        (
            "[heartbeats]\nprimary_status = \"EMERGENCY_STOPPED\"",
            "heartbeats.primary_status: primary_status is one of stopped_statuses",
            "[heartbeats]\nprimary_status = \"EMERGENCY_STOPPED\"\nstopped_statuses = []",
        ),
        (
            "[heartbeats]\ntable = \"a.b.c\"",
            "heartbeats.table: not a table",
            "[heartbeats]\ntable = \"b.c\"",
        ),
        (
            "[http]\nkey_file = \"/x\"",
            "http.key_file: certificate_file and key_file belong together",
            "[http]\nkey_file = \"/x\"\ncertificate_file = \"/y\"",
        ),
        (
            "[http]\nlisten = [\"standby-1:80\"]",
            "http.listen[0]: not an address to listen on",
            "[http]\nlisten = [\"192.0.2.1:80\"]",
        ),
        (
            "bots = [\"b\", \"c\", \"b\"]",
            "group.trading.bots[2]: the same bot twice; keep one",
            "bots = [\"b\", \"c\"]",
        ),
    ] {
        let on = |added: &str| {
            let own = added.contains("bots");
            let minimal =
                if own { MINIMAL.replace("bots = [\"equity\"]\n", "") } else { MINIMAL.to_owned() };
            format!("{minimal}{added}\n")
        };
        let found = faults(&on(added));
        assert!(found.contains(expected), "{added}\n{found}");
        assert!(!found.contains('\n'), "one fault only: {found}");
        settings(&on(mended));
    }
}

/// A group in paired mode on this node and another.
const PAIRED: &str = r#"[group.execution]
bots = ["options"]
units = ["options.service"]
mode = "paired"
nodes = ["standby-1", "standby-2"]
"#;

#[test]
fn a_group_in_paired_mode_has_nodes_instead_of_a_primary() {
    let settings = settings(&format!(
        "{MINIMAL}{PAIRED}on_store_loss = \"hold\"\n\
         redis.nodes = {{ standby-1 = \"10.0.0.1\", standby-2 = \"db2:7000\" }}\n"
    ));
    let [group, observed] = &settings.groups[..] else { panic!("{:?}", settings.groups) };
    let paired = group.paired.as_ref().unwrap();
    assert_eq!(paired.nodes, ["standby-1", "standby-2"]);
    assert_eq!(paired.on_store_loss, OnStoreLoss::Hold);
    assert_eq!(group.primary, "standby-1");
    assert!(group.automatic() && !group.accept_dual_active);
    let redis = group.redis.as_ref().unwrap();
    assert_eq!(redis.primary, None);
    assert_eq!(redis.nodes["standby-1"], Host::Tcp("10.0.0.1".to_owned(), 6379));
    assert_eq!(redis.nodes["standby-2"], Host::Tcp("db2".to_owned(), 7000));
    assert_eq!(observed.paired, None);
    // One statement reads all groups, as often as the leases are renewed.
    assert_eq!(settings.watch.interval, Duration::from_secs(2));
    assert_eq!(settings.watch.reply_timeout, Duration::from_millis(1500));
    assert_eq!(settings.paired.window(), Duration::from_secs(22));
}

#[test]
fn fast_timers_read_the_store_fast() {
    let settings = settings(&format!(
        "{MINIMAL}{PAIRED}timeout = \"5s\"\n[paired]\nrenew = \"200ms\"\nfence_after = \"1s\"\n\
         stop_within = \"1s\"\n"
    ));
    assert_eq!(settings.watch.interval, Duration::from_millis(200));
    assert_eq!(settings.watch.reply_timeout, Duration::from_millis(150));
    assert_eq!(settings.paired.kill_after(), Duration::from_millis(750));
}

#[test]
fn what_must_hold_in_paired_mode() {
    // What is added to a group in paired mode, where the fault is, and the nearest value without one.
    for (added, expected, mended) in [
        (
            "primary = \"standby-2\"",
            "group.execution.primary: does not belong into a group in paired mode",
            "",
        ),
        (
            "accept_dual_active = true",
            "group.execution.accept_dual_active: does not belong into a group in paired mode",
            "",
        ),
        (
            "timeout = \"21999ms\"",
            "group.execution.timeout: the other node is certain to have stopped after 22s only",
            "timeout = \"22s\"",
        ),
        (
            "timeout = \"60s\"\ncooldown = \"65999ms\"",
            "group.execution.cooldown: cooldown must be at least three windows of [paired] (1m 6s)",
            "timeout = \"60s\"\ncooldown = \"66s\"",
        ),
        (
            "[paired]\nfence_after = \"9499ms\"",
            "paired.fence_after: fence_after must be at least 4.75 x renew (9s 500ms)",
            "[paired]\nfence_after = \"9500ms\"",
        ),
        (
            "[paired]\nrenew = \"2106ms\"",
            "paired.renew: fence_after must be at least 4.75 x renew (10s 3ms 500us)",
            "[paired]\nrenew = \"2105ms\"",
        ),
        (
            "[paired]\nrenew = \"99ms\"",
            "paired.renew: too short; it must be \"100ms\" or more",
            "[paired]\nrenew = \"100ms\"",
        ),
        (
            "cooldown = \"1h\"\ntimeout = \"10m\"\n[paired]\nrenew = \"30s\"\nfence_after = \"2m 23s\"",
            "paired.renew: renew is too long: 3.75 x renew (1m 52s 500ms) must be less than half of the \
             window that follows from [paired] (3m 30s 200ms)",
            "cooldown = \"1h\"\ntimeout = \"10m\"\n[paired]\nrenew = \"30s\"\nfence_after = \"2m 40s\"",
        ),
        (
            "[paired]\npause_max = \"40s\"",
            "paired.pause_max: the other node is certain to have stopped after 1m 6s only; raise \
             timeout to that, or shorten [paired]",
            "[paired]\npause_max = \"34s\"",
        ),
        (
            "[watch]\nreply_timeout = \"1501ms\"",
            "watch.reply_timeout: reply_timeout must be at most 3/4 of paired.renew (1s 500ms)",
            "[watch]\nreply_timeout = \"1500ms\"",
        ),
        (
            "[group.execution.redis]",
            "group.execution.redis.nodes: missing; say where each node's Redis is for the other ones",
            "[group.execution.redis]\nnodes = { standby-1 = \"a\", standby-2 = \"b\" }",
        ),
        (
            "redis.nodes = { standby-1 = \"a\" }",
            "group.execution.redis.nodes: lacks the one that is nodes[1] of the group",
            "redis.nodes = { standby-1 = \"a\", standby-2 = \"b\" }",
        ),
        (
            "redis.nodes = { standby-1 = \"a\", standby-2 = \"b\", standby-3 = \"c\" }",
            "group.execution.redis.nodes.standby-3: not one of the group's nodes",
            "redis.nodes = { standby-1 = \"a\", standby-2 = \"b\" }",
        ),
        (
            "redis.nodes = { standby-1 = \"a\", standby-2 = \"/run/redis.sock\" }",
            "group.execution.redis.nodes.standby-2: the other nodes cannot reach a socket",
            "redis.nodes = { standby-1 = \"a\", standby-2 = \"b\" }",
        ),
        (
            "redis = { primary = \"c\", nodes = { standby-1 = \"a\", standby-2 = \"b\" } }",
            "group.execution.redis.primary: does not belong into a group in paired mode",
            "redis = { nodes = { standby-1 = \"a\", standby-2 = \"b\" } }",
        ),
    ] {
        let found = faults(&format!("{MINIMAL}{PAIRED}{added}\n"));
        assert!(found.contains(expected), "{added}\n{found}");
        assert!(!found.contains('\n'), "one fault only: {found}");
        settings(&format!("{MINIMAL}{PAIRED}{mended}\n"));
    }
}

#[test]
fn the_nodes_of_a_group_are_a_few_different_ones_with_this_one_among_them() {
    for (nodes, expected) in [
        ("", "group.execution.nodes: missing; list every node of the group in order of preference"),
        ("nodes = []", "group.execution.nodes: empty; list every node of the group"),
        (
            "nodes = [\"standby-1\"]",
            "group.execution.nodes: one node alone has nobody to take over",
        ),
        ("nodes = [\"b\", \"a\"]", "group.execution.nodes: this node is not among nodes"),
        (
            "nodes = [\"a\", \"standby-1\", \"a\"]",
            "group.execution.nodes[2]: the same node twice; keep one",
        ),
        ("nodes = [\"a b\", \"standby-1\"]", "group.execution.nodes[0]: not a node's name"),
        (
            "nodes = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"9\"]",
            "group.execution.nodes: lists 9, but at most 8 are allowed",
        ),
    ] {
        let group = PAIRED.replace("nodes = [\"standby-1\", \"standby-2\"]", nodes);
        let found = faults(&format!("{MINIMAL}{group}"));
        assert!(found.contains(expected), "{nodes}\n{found}");
        assert!(!found.contains('\n'), "one fault only: {found}");
    }
}

#[test]
fn keys_of_paired_mode_do_not_belong_into_an_observed_group() {
    for (added, key) in [
        ("nodes = [\"standby-1\", \"standby-2\"]", "nodes"),
        ("on_store_loss = \"fence\"", "on_store_loss"),
        ("redis.nodes = { standby-1 = \"a\" }", "redis.nodes"),
    ] {
        let found = faults(&format!("{MINIMAL}{added}\n"));
        let expected = format!("group.trading.{key}: belongs to mode = \"paired\"");
        assert!(found.contains(&expected), "{found}");
        assert!(!found.contains('\n'), "one fault only: {found}");
        // Where the mode makes no sense nobody knows what belongs there.
        let found = faults(&format!("{MINIMAL}mode = \"pared\"\n{added}\n"));
        assert!(
            found.ends_with("group.trading.mode: must be \"observed\" or \"paired\""),
            "{found}"
        );
    }
}

#[test]
fn what_is_wrong_with_checks_is_told_in_their_own_words() {
    for (check, fault) in [
        ("kind = \"hots\"\nurl = \"x\"", "kind: must be \"postgres\" or"),
        (
            "kind = \"host\"\nmeasure = \"cpu\"\nwarning = \"80\"",
            "warning: not a condition; write it like",
        ),
        ("kind = \"host\"\nmeasure = \"cpu\"\nqurey = \"x\"", "qurey: unknown key"),
        ("kind = \"host\"\nmeasure = \"cpu\"\npath = \"/\"", "path: path is for measure"),
        (
            "kind = \"host\"\nmeasure = \"cpu\"\ninterval = \"1s\"\ndeadline = \"2s\"",
            "deadline must not be longer",
        ),
        ("kind = \"redis\"\nfield = \"x\"", "there is no Redis to ask"),
        (
            "kind = \"postgres\"\nserver = \"x\"\nquery = \"SELECT 1\"",
            "server: say which Postgres to ask, by server = \"NAME\"; there are: store",
        ),
        ("kind = \"postgres\"", "query: missing; write a query that returns one number"),
        (
            "kind = \"http\"\nurl = \"http://x\"\nexpect = \"y\"",
            "expect: expect is what is at the place",
        ),
        ("kind = \"http\"\nurl = \"http://x\"\njson = \"a[b]\"", "json: not a place in JSON"),
        ("kind = \"http\"\nurl = \"http://x\"\nbody = \"{}\"", "body: a body is sent with method"),
        ("kind = \"command\"\ncommand = [\"check_load\"]", "the program must be an absolute path"),
        ("kind = \"prometheus\"\nurl = \"http://x\"", "write query for an expression"),
        (
            "kind = \"host\"\nmeasure = \"cpu\"\neach_of = \"x\"",
            "there is no [list.NAME] of that name",
        ),
        (
            "kind = \"journal\"\nunit = \"x.service\"\npattern = \"y\"\nmeasure = \"after_start\"\nwindow = \"1h\"",
            "window is of no use",
        ),
    ] {
        let told = faults(&format!("{MINIMAL}[check.a]\n{check}\n"));
        assert!(told.contains(fault), "{check}\n{told}");
    }
    let each = "[list.l]\nitems = [\"a\", \"b\"]\n[check.c]\neach_of = \"l\"\nkind = \"http\"\n\
                url = \"http://{each}.example.net/\"\ngroup = \"bots {each}\"\nwarning = \"> 1s\"";
    let checks = settings(&format!("{MINIMAL}{each}")).monitoring.checks;
    let named: Vec<_> = checks.iter().map(|c| (c.name.as_str(), c.group.as_str())).collect();
    assert_eq!(named, [("c/a", "bots a"), ("c/b", "bots b")]);
    let many: String = (0..2_001).map(|n| format!("\"{n}\",")).collect();
    let many = format!("[check.c]\nkind = \"host\"\nmeasure = \"load\"\neach = [{many}]\n");
    assert!(faults(&format!("{MINIMAL}{many}")).contains("at most 2000 are allowed"));
}

#[test]
fn a_configuration_without_a_group_watches_nothing() {
    for text in ["node = \"a\"", "[group]"] {
        assert!(faults(text).contains(": group: missing; write a table"), "{}", faults(text));
    }
    // There is one, if only it had a name.
    assert!(!faults("[group.Trading]").contains("group: missing"));
    assert!(faults("[[group]]").contains("group: must be a table, but is a list"));
    let many = (0..10_001).map(|i| format!("[group.g{i}]\n")).collect::<String>();
    assert!(faults(&many).contains("group: 10001 of them, but at most 10000 are allowed"));
}

#[test]
fn a_host_with_the_name_of_the_primary_must_be_told_apart() {
    let files = Files::new(MINIMAL);
    let around = Surroundings { host_name: "primary".to_owned(), ..files.around() };
    let found = Settings::load_in(&files.main(), &around).unwrap_err().to_string();
    assert!(found.contains("group.trading: primary and node have the same name"), "{found}");
    let around = Surroundings { host_name: String::new(), ..files.around() };
    let found = Settings::load_in(&files.main(), &around).unwrap_err().to_string();
    assert!(found.contains("this host has no usable name; write node = \"NAME\""), "{found}");
}

#[test]
fn two_groups_cannot_share_a_unit_or_a_bot() {
    let text =
        format!("{MINIMAL}\n[group.other]\nbots = [\"equity\"]\nunits = [\"equity.service\"]\n");
    assert_eq!(
        faults(&text),
        "understudy.toml:6:9: group.trading.bots[0]: this bot is also in group.other; it can be in one only (see understudy.toml:10:9)\n\
         understudy.toml:7:10: group.trading.units[0]: this unit is also in group.other; it can be in one only (see understudy.toml:11:10)"
    );
    let apart = text.replacen("equity.service", "first.service", 1);
    settings(&format!("{apart}heartbeats.table = \"other_bots\"\n"));
}

#[test]
fn broken_toml_is_told_line_by_line_without_echoes() {
    // What follows from a broken line is not told: neither the missing database nor the timeout,
    // which the parser guesses right.
    let found = faults(
        "[store]\nhosts = [\"db1\"]\ndatabase \"trading\"\n[group.trading]\nbots = [\"a\"]\n\
         units = [\"a.service\"]\ntimeout = 5s\ncooldown = \"50s\"\ncooldown = \"6m\"\nstal = \"any\"\n\
         [group.trading]\n",
    );
    assert_eq!(
        found,
        "understudy.toml:3:10: not TOML: key with no value, expected `=`\n\
         understudy.toml:7:11: not TOML: string values must be quoted, expected literal string\n\
         understudy.toml:9:1: not TOML: duplicate key\n\
         understudy.toml:10:1: group.trading.stal: unknown key; did you mean \"stale\"?\n\
         understudy.toml:11:8: not TOML: duplicate key"
    );
}

#[test]
fn a_file_that_is_none() {
    let files = Files::new(MINIMAL);
    let missing = Settings::load_in(Path::new("/nonexistent/u.toml"), &files.around());
    assert_eq!(missing.unwrap_err().to_string(), "/nonexistent/u.toml: there is no such file");
    let directory = Settings::load_in(files.directory.path(), &files.around());
    assert!(directory.unwrap_err().to_string().ends_with(": is a directory, not a file"));

    assert_eq!(
        faults(&" ".repeat((1 << 20) + 1)),
        "understudy.toml: is larger than 1 MiB, so it is hardly a configuration"
    );
    settings(&format!("{MINIMAL}{}", " ".repeat((1 << 20) - MINIMAL.len())));
    assert_eq!(
        Files::new(b"# fine\na = \"\xff\"\n").faults(),
        "understudy.toml:2:6: not UTF-8; save the file in that encoding, if it is the right file"
    );

    let pipe = files.directory.path().join("understudy.toml.d/10-pipe.toml");
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(files.faults(), "understudy.toml.d/10-pipe.toml: is not a regular file");
}

#[test]
fn a_file_where_the_drop_ins_should_be() {
    let files = Files::new(MINIMAL);
    files.write("understudy.toml.d", "");
    let found = files.faults();
    assert!(found.starts_with("understudy.toml.d: cannot be listed: "), "{found}");
    let files = (0..101).fold(Files::new(MINIMAL), |files, i| files.and(&format!("{i}.toml"), ""));
    assert_eq!(
        files.faults(),
        "understudy.toml.d: holds 101 files ending in .toml, more than the 100 that are read"
    );
}

#[test]
fn secrets_that_cannot_be_had() {
    let with = |reference: &str| {
        let text = MINIMAL.replace("[group", &format!("password = {reference}\n\n[group"));
        Files::new(text)
    };
    let fault = |reference: &str| {
        let found = with(reference).faults();
        let text = found.strip_prefix("understudy.toml:5:12: store.password: ").expect(&found);
        text.to_owned()
    };
    for (reference, expected) in [
        ("42", "not a reference to a secret"),
        ("{}", "not a reference to a secret"),
        ("{ env = 1 }", "not a reference to a secret"),
        ("{ hunter2 = \"x\" }", "not a reference to a secret"),
        ("{ env = \"A\", file = \"/b\" }", "not a reference to a secret"),
        ("{ env = \"NOT_SET\" }", "the environment variable is not set"),
        ("{ env = \"EMPTY\" }", "the secret is empty"),
        ("{ file = \"hunter2\" }", "must be an absolute path"),
        ("{ file = \"/nonexistent/hunter2\" }", "there is no such file"),
        ("{ file = \"/dev/null\" }", "not a regular file"),
        ("{ credential = \"../hunter2\" }", "a credential's name is that of a file"),
        ("{ credential = \"hunter2\" }", "there is no such credential in "),
    ] {
        let found = fault(reference);
        assert!(found.starts_with(expected), "{reference}: {found}");
        assert!(!found.contains("hunter2"), "{reference}: {found}");
    }

    for (content, expected) in [
        (&b""[..], "the secret is empty"),
        (b"\n", "the secret is empty"),
        (b"hunter2\n\n", "the secret has a line break"),
        (b"hunter2\r\n", "the secret has a line break"),
        (b"hunter2\xff", "the secret is not text"),
        (&[b'x'; 16 * 1024 + 1], "longer than 16384 bytes"),
    ] {
        let files = with("{ credential = \"given\" }");
        let path = files.write("credentials/given", content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let found = files.faults();
        assert!(found.contains(expected) && !found.contains("hunter2"), "{found}");
    }

    let files = with("{ credential = \"given\" }");
    let path = files.write("credentials/given", "hunter2");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    assert!(files.faults().ends_with("type: chmod 0600 'credentials/given'"), "{}", files.faults());
    // systemd sees to who can read its own directory.
    let around = || Surroundings {
        credentials: Some(files.directory.path().join("credentials")),
        credentials_at_rest: PathBuf::from("/nonexistent"),
        ..files.around()
    };
    let settings = Settings::load_in(&files.main(), &around()).unwrap();
    assert_eq!(settings.store.password.unwrap().expose(), "hunter2");
    // As it is called when systemd loads the whole directory; the shorter name comes first.
    let longer = path.with_file_name("understudy_given");
    fs::write(&longer, "of the directory").unwrap();
    let settings = Settings::load_in(&files.main(), &around()).unwrap();
    assert_eq!(settings.store.password.unwrap().expose(), "hunter2");
    fs::remove_file(&path).unwrap();
    let settings = Settings::load_in(&files.main(), &around()).unwrap();
    assert_eq!(settings.store.password.unwrap().expose(), "of the directory");
    fs::remove_file(&longer).unwrap();
    let found = Settings::load_in(&files.main(), &around()).unwrap_err().to_string();
    assert!(found.contains("put it into a file of this name in /nonexistent"), "{found}");
    let around = Surroundings { reads_secrets: false, ..around() };
    let settings = Settings::load_in(&files.main(), &around).unwrap();
    assert_eq!(settings.store.password.unwrap().expose(), "");
}

#[test]
fn a_password_in_any_wrong_place_is_not_repeated() {
    let shipped = shipped_in_force();
    let texts = shipped.match_indices('"').map(|(at, _)| at).collect::<Vec<_>>();
    let mut refused = 0;
    for pair in texts.chunks(2) {
        let [from, to] = *pair else { panic!("quotes come in pairs") };
        for (open, close) in [("\"", "\""), ("\"", ""), ("", "")] {
            let text = format!("{}{open}{CANARY}{close}{}", &shipped[..from], &shipped[to + 1..]);
            if let Err(faults) = Files::new(&text).load() {
                refused += 1;
                assert!(!format!("{faults}{faults:?}").contains(CANARY), "{faults}\n{text}");
            }
        }
    }
    assert!(refused > 50, "{refused}");
    let shown = format!("{:?}", settings(&shipped));
    assert!(shown.contains("password: Some([secret])"), "{shown}");
    assert!(!shown.contains(CANARY) && !shown.contains("hooks.example.com/"), "{shown}");
}

#[test]
fn a_megabyte_of_garbage_is_refused_fast_and_briefly() {
    const SIZE: usize = 1 << 20;
    for unit in [
        "a\n",
        "[",
        "{",
        "\"",
        "a=1\n",
        "a.",
        "[a.a]\n",
        "[[group]]\n",
        "x='\u{1}\n",
        "a=[[1,",
        "=",
        "\u{e9}",
    ] {
        judge(&unit.repeat(SIZE / unit.len()));
    }
    let numbered = |line: fn(usize) -> String| {
        (0..).map(line).scan(0, |size, line| {
            *size += line.len();
            (*size <= SIZE).then_some(line)
        })
    };
    judge(&numbered(|i| format!("k{i}=1\n")).collect::<String>());
    judge(&numbered(|i| format!("k{i}=1,")).collect::<String>());
    judge(&numbered(|i| format!("[group.g{i}]\n")).collect::<String>());
    judge(
        &numbered(|i| format!("[group.g{i}]\nbots=[\"b\"]\nunits=[\"u.service\"]\n"))
            .collect::<String>(),
    );
    judge(&format!("{MINIMAL}\n[watch]\n{}=1", "k".repeat(SIZE / 2)));
    judge(&format!("[group.g]\nunits=[{}]", "\"é\",".repeat(SIZE / 6)));
    judge(&format!("group.g.bots=[{}]\n", "\"b\",".repeat(900)));
}

fn judge(text: &str) {
    let files = Files::new(text);
    let faults = files.load().unwrap_err();
    let printed = faults.to_string();
    let start: String = text.chars().take(20).collect();
    assert!(faults.shown().len() <= SHOWN_MAX);
    assert!(printed.len() < 32 * 1024, "{start:?} printed {} bytes", printed.len());
    assert_eq!(printed.contains(" more"), faults.omitted() > 0, "{start:?}: {printed}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Files::new(bytes).load();
    }

    #[test]
    fn no_text_makes_it_panic(text in "([a-z.\\[\\]{}=\"', \n#0-9_-]|\\PC){0,200}") {
        let _ = Files::new(text).load();
    }

    #[test]
    fn no_mutation_of_a_good_file_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, ".{0,6}"), 1..6),
    ) {
        let mut text: Vec<char> = shipped_in_force().chars().collect();
        for (at, length, replacement) in changes {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, replacement.chars());
        }
        if let Err(faults) = Files::new(text.into_iter().collect::<String>()).load() {
            prop_assert!(!faults.shown().is_empty());
            prop_assert!(!faults.to_string().contains(CANARY));
        }
    }

    #[test]
    fn no_shuffle_of_lines_makes_it_panic(
        lines in Just(shipped_in_force().lines().map(str::to_owned).collect::<Vec<_>>()).prop_shuffle(),
        keep in 0..400_usize,
    ) {
        let _ = Files::new(lines.into_iter().take(keep).collect::<Vec<_>>().join("\n")).load();
    }
}
