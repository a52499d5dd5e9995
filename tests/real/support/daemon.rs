//! The daemon as a process, on a standby host of a test's own.
//!
//! ```ignore
//! let scene = Scene::new();
//! let mut standby = scene.standby().watching();
//! scene.silence(&standby);
//! standby.wait_until_active();
//! scene.assert_taken_over(&standby, 1);
//! ```
//!
//! A [`Scene`] is what the nodes share: Postgres, the primary's Redis, and the bots, which beat where
//! they run. A [`Standby`] is one host: its Redis replica, its units in the container, its directories,
//! and the daemon. A unit's bot beats as long as the unit runs, so a takeover completes by itself.
//!
//! All of it is synchronous, so that a test reads as a list of what happens.

#![allow(clippy::unwrap_used, reason = "a test whose surroundings fail has failed")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};
use understudy::control::protocol::{self, Request, Response, Status};
use understudy::control::{ask, socket_path};
use understudy::time::BootTime;

use super::bus::{Container, Unit};
use super::postgres::{self, Postgres};
use super::redis::Redis;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_understudy");

/// The bots of a group of which nothing else is said.
const BOTS: [&str; 2] = ["equity", "crypto"];

/// How long a heartbeat of these tests must stay unchanged to be stale, the shortest that the
/// product allows for an interval of a second.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// How long anything may take that a test waits for, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at what is waited for.
const PACE: Duration = Duration::from_millis(20);

/// Between two heartbeats of a bot.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// Waits until something is so.
pub fn until(what: &str, so: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, so), "waited {PATIENCE:?} for {what}");
}

/// Waits for at most `span` until something is so, and says whether it is.
pub fn comes_true(span: Duration, mut so: impl FnMut() -> bool) -> bool {
    let deadline = BootTime::now() + span;
    while !so() {
        if BootTime::now() > deadline {
            return false;
        }
        thread::sleep(PACE);
    }
    true
}

/// Runs something asynchronous to its end.
pub fn now<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

// ---- what the nodes share ----

/// A store with the heartbeat table of the original, the primary's Redis, and the bots.
pub struct Scene {
    /// The store. `client`, `sql` and the like are asynchronous there; here they are not.
    pub postgres: Postgres,
    /// The primary's Redis, with some keys in it.
    pub redis: Redis,
    bots: Bots,
}

impl Scene {
    /// With a Postgres of default settings.
    pub fn new() -> Self {
        Self::with(Postgres::options())
    }

    /// With a Postgres of these settings.
    pub fn with(options: postgres::Options) -> Self {
        let postgres = now(async {
            let postgres = options.start().await;
            postgres.create_bot_status().await;
            postgres.create_role("understudy").await;
            postgres
        });
        let redis = Redis::start();
        redis.fill(200);
        let bots = Bots::start(&postgres);
        Self { postgres, redis, bots }
    }

    /// Begins to say what a standby is like. Without more it has two bots and their units, a replica,
    /// and may take over by itself.
    pub fn standby(&self) -> Plan<'_> {
        Plan::new(self)
    }

    /// The primary's bots die: no heartbeat comes from there any more.
    pub fn silence(&self, standby: &Standby) {
        self.set_primary(&standby.bots, false);
    }

    /// The primary's bots live, again.
    pub fn revive(&self, standby: &Standby) {
        self.set_primary(&standby.bots, true);
    }

    /// Only one bot of the primary dies, or comes back.
    pub fn set_primary(&self, bots: &[String], lives: bool) {
        let mut all = self.bots.shared.bots.lock().unwrap();
        for bot in bots {
            all.entry(bot.clone()).or_default().primary = lives;
        }
    }

    /// What the bots write as their heartbeat, instead of `NOW()`.
    pub fn beats_are(&self, expression: &str) {
        *self.bots.shared.expression.lock().unwrap() = expression.to_owned();
    }

    /// Runs statements as superuser.
    pub fn sql(&self, statements: &str) {
        now(self.postgres.sql(statements));
    }

    /// First column of the first row, as superuser.
    pub fn value(&self, query: &str) -> String {
        now(self.postgres.value(query))
    }

    /// A session that stays open, for transactions.
    pub fn session(&self) -> Session {
        let runtime = runtime();
        let client = runtime.block_on(self.postgres.client());
        Session { runtime, client }
    }

    /// Stops the store, which is not there until [`Scene::resume_store`].
    pub fn stop_store(&mut self) {
        self.postgres.stop();
    }

    /// Starts it again.
    pub fn resume_store(&mut self) {
        now(self.postgres.resume());
    }

    /// From now on another server is the store. The old one is gone.
    pub fn store_is(&mut self, postgres: Postgres) {
        *self.bots.shared.server.lock().unwrap() = address(&postgres);
        self.postgres = postgres;
    }

    /// Another node, `delta`, acquires the lease of a standby's group.
    pub fn delta_takes(&self, standby: &Standby) {
        let group = &standby.group;
        self.sql(&format!(
            "BEGIN;
             UPDATE understudy.lease SET epoch = epoch + 1, holder = 'delta', seq = 0,
               nonce = gen_random_uuid(), changed_at = clock_timestamp() WHERE grp = '{group}';
             UPDATE understudy.fence f SET epoch = l.epoch, holder = l.holder, nonce = l.nonce
               FROM understudy.lease l WHERE l.grp = f.grp AND f.grp = '{group}';
             COMMIT"
        ));
    }

    /// The store is restored from a backup of before every takeover.
    pub fn forget_takeovers(&self) {
        self.sql(
            "BEGIN;
             -- A restore knows no triggers.
             SET LOCAL session_replication_role = replica;
             UPDATE understudy.lease SET epoch = 0, holder = 'alpha', nonce = NULL, seq = 0;
             UPDATE understudy.fence SET epoch = 0, holder = 'alpha', nonce = NULL;
             DELETE FROM understudy.event; DELETE FROM understudy.failover;
             COMMIT",
        );
    }

    /// The epoch of a standby's group.
    pub fn epoch(&self, standby: &Standby) -> u64 {
        let group = &standby.group;
        let query = format!("SELECT epoch FROM understudy.lease WHERE grp = '{group}'");
        self.value(&query).parse().unwrap()
    }

    /// How often the group was taken over, by the history.
    pub fn failovers(&self, standby: &Standby) -> u64 {
        let group = &standby.group;
        let query = format!("SELECT count(*) FROM understudy.failover WHERE grp = '{group}'");
        self.value(&query).parse().unwrap()
    }

    /// Nothing whatever was done about the group on that node: no lease, no promotion, no unit.
    pub fn assert_untouched(&self, standby: &Standby) {
        assert_eq!(self.epoch(standby), 0, "somebody has acquired the lease");
        assert_eq!(self.failovers(standby), 0, "the history has a failover");
        for bot in &standby.bots {
            assert_eq!(standby.starts(bot), 0, "the unit of {bot} was started");
            let status = now(self.postgres.rows(&format!(
                "SELECT 1 FROM bot_status WHERE bot_name = '{bot}' AND status = 'PRIMARY'"
            )));
            assert!(status.is_empty(), "the row of {bot} was set to PRIMARY");
        }
        assert!(!standby.environment_file().exists(), "there is an environment file");
        if let Some(redis) = &standby.redis {
            until("the replica to answer", || !redis.role().is_empty());
            assert_eq!(redis.role(), "slave", "the replica was promoted");
        }
    }

    /// The group was taken over by that node, once, and everything that this promises is so.
    pub fn assert_taken_over(&self, standby: &Standby, epoch: u64) {
        let group = &standby.group;
        let lease = now(self.postgres.rows(&format!(
            "SELECT epoch, holder, nonce FROM understudy.lease WHERE grp = '{group}'"
        )));
        let [lease] = lease.as_slice() else { panic!("{lease:?}") };
        let nonce = &lease[2];
        assert_eq!(lease[..2], [epoch.to_string(), standby.node.clone()]);
        for bot in &standby.bots {
            assert_eq!(now(self.postgres.status_of(bot)), "PRIMARY");
            assert_eq!(standby.starts(bot), 1, "starts of the unit of {bot}");
            let token = fs::read_to_string(standby.started(bot)).unwrap();
            assert_eq!(token.trim(), format!("{epoch} {nonce}"), "what the unit was given");
        }
        for unit in &standby.units {
            assert_eq!(unit.property("ActiveState"), "active");
        }
        let environment = fs::read_to_string(standby.environment_file()).unwrap();
        for line in [format!("UNDERSTUDY_EPOCH={epoch}"), format!("UNDERSTUDY_NONCE={nonce}")] {
            assert!(environment.lines().any(|found| found == line), "{environment}");
        }
        if let Some(redis) = &standby.redis {
            assert_eq!(redis.role(), "master");
            let file = fs::read_to_string(redis.config_file()).unwrap();
            assert!(!file.lines().any(|line| line.starts_with("replicaof")), "{file}");
        }
        assert_eq!(self.failovers(standby), epoch, "failovers in the history");
        until("the history to say that the failover is done", || {
            let query = format!("SELECT status FROM understudy.failover WHERE id = '{nonce}'");
            self.value(&query) == "done"
        });
    }
}

/// A session of a superuser.
pub struct Session {
    runtime: Runtime,
    client: Client,
}

impl Session {
    /// Runs statements in it.
    pub fn sql(&self, statements: &str) {
        let done = self.runtime.block_on(self.client.batch_execute(statements));
        done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }
}

/// The bots of all nodes: one thread that writes the heartbeats of those that live.
struct Bots {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ended: AtomicBool,
    /// Where the server's socket is.
    server: Mutex<(PathBuf, u16)>,
    expression: Mutex<String>,
    bots: Mutex<BTreeMap<String, Bot>>,
}

#[derive(Default)]
struct Bot {
    /// The one on the primary lives.
    primary: bool,
    /// Each of these is there while a unit of it runs.
    units: Vec<PathBuf>,
}

impl Bots {
    fn start(postgres: &Postgres) -> Self {
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            server: Mutex::new(address(postgres)),
            expression: Mutex::new("NOW()".to_owned()),
            bots: Mutex::default(),
        });
        let at_work = shared.clone();
        let thread = thread::spawn(move || now(at_work.beat()));
        Self { shared, thread: Some(thread) }
    }
}

fn address(postgres: &Postgres) -> (PathBuf, u16) {
    (postgres.socket_directory().to_owned(), postgres.port())
}

impl Drop for Bots {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    async fn beat(&self) {
        let mut client = None;
        while !self.ended.load(Ordering::Relaxed) {
            // A store that is away or hangs is the daemon's subject and no concern of the bots.
            let beat = self.beat_once(&mut client);
            if !matches!(tokio::time::timeout(Duration::from_millis(700), beat).await, Ok(Ok(()))) {
                client = None;
            }
            tokio::time::sleep(BEAT_EVERY).await;
        }
    }

    async fn beat_once(&self, client: &mut Option<Client>) -> Result<(), tokio_postgres::Error> {
        let living: Vec<String> = {
            let bots = self.bots.lock().unwrap();
            let lives = |bot: &Bot| bot.primary || bot.units.iter().any(|unit| unit.exists());
            bots.iter().filter(|(_, bot)| lives(bot)).map(|(name, _)| name.clone()).collect()
        };
        if living.is_empty() {
            return Ok(());
        }
        let client = match client {
            Some(client) => client,
            None => {
                let (socket, port) = self.server.lock().unwrap().clone();
                let mut login = tokio_postgres::Config::new();
                login.host_path(socket).port(port).user("postgres").dbname("postgres");
                let (fresh, connection) = login.connect(NoTls).await?;
                tokio::spawn(connection);
                client.insert(fresh)
            }
        };
        let expression = self.expression.lock().unwrap().clone();
        let statement = format!(
            "UPDATE bot_status SET last_heartbeat = {expression}, updated_at = NOW()
             WHERE bot_name = ANY ($1)"
        );
        client.execute(&statement, &[&living]).await.map(drop)
    }
}

// ---- a standby ----

/// What a standby is to be like.
pub struct Plan<'a> {
    scene: &'a Scene,
    container: Container,
    node: String,
    group: String,
    bots: Vec<String>,
    redis: bool,
    unit_lines: String,
    settings: toml::Table,
    environment: Vec<(String, String)>,
    beating: bool,
    set_up: bool,
}

impl<'a> Plan<'a> {
    fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            container: Container::shared(),
            node: "bravo".to_owned(),
            group: "trading".to_owned(),
            bots: BOTS.map(str::to_owned).to_vec(),
            redis: true,
            unit_lines: String::new(),
            settings: toml::Table::new(),
            environment: Vec::new(),
            beating: true,
            set_up: true,
        }
    }

    /// The node's name, instead of `bravo`.
    pub fn node(mut self, name: &str) -> Self {
        self.node = name.to_owned();
        self
    }

    /// The group's name, instead of `trading`, and its bots.
    pub fn group(mut self, name: &str, bots: &[&str]) -> Self {
        self.group = name.to_owned();
        self.bots = bots.iter().map(|bot| (*bot).to_owned()).collect();
        self
    }

    /// The group has one bot only.
    pub fn one_bot(mut self) -> Self {
        self.bots.truncate(1);
        self
    }

    /// The group has no Redis.
    pub fn without_redis(mut self) -> Self {
        self.redis = false;
        self
    }

    /// Lines that the [Service] section of its units has as well.
    pub fn unit_lines(mut self, lines: &str) -> Self {
        self.unit_lines = lines.to_owned();
        self
    }

    /// A setting, such as `watch.timeout`. `group.` stands for the group's own table.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let key = match key.strip_prefix("group.") {
            Some(rest) => format!("group.{}.{rest}", self.group),
            None => key.to_owned(),
        };
        set(&mut self.settings, &key, value.into());
        self
    }

    /// The primary's bots never lived.
    pub fn silent(mut self) -> Self {
        self.beating = false;
        self
    }

    /// The schema is not set up.
    pub fn without_setup(mut self) -> Self {
        self.set_up = false;
        self
    }

    /// Everything is there; the daemon does not run yet.
    pub fn ready(self) -> Standby {
        let container = self.container;
        let dir = tempfile::Builder::new().prefix("host-").tempdir_in(&container.shared).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let redis = self.redis.then(|| {
            let replica = Redis::with().replica_of(&self.scene.redis).start();
            replica.wait_until_in_sync();
            replica
        });
        let unit = |bot: &String| {
            let at = dir.path().display();
            container.service(&format!(
                "EnvironmentFile={at}/run/{group}.env\n\
                 ExecStartPre=/bin/sh -c 'test ! -e {at}/{bot}.broken'\n\
                 ExecStart=/bin/sh -c 'echo \"$UNDERSTUDY_EPOCH $UNDERSTUDY_NONCE\" \
                 >> {at}/{bot}.started && touch {at}/{bot}.runs && exec sleep infinity'\n\
                 ExecStopPost=/bin/rm -f {at}/{bot}.runs\n\
                 TimeoutStopSec=2\n{lines}",
                group = self.group,
                lines = self.unit_lines,
            ))
        };
        let units: Vec<Unit> = self.bots.iter().map(unit).collect();
        for bot in &self.bots {
            self.scene.sql(&format!(
                "INSERT INTO bot_status (id, bot_name, status, last_heartbeat, updated_at)
                 VALUES ('{bot}-id', '{bot}', 'STANDBY', NOW(), NOW()) ON CONFLICT DO NOTHING"
            ));
            let mut bots = self.scene.bots.shared.bots.lock().unwrap();
            let entry = bots.entry(bot.clone()).or_default();
            entry.primary = self.beating;
            entry.units.push(dir.path().join(format!("{bot}.runs")));
        }
        let mut config = toml::Table::new();
        let mut group = |key: &str, value: toml::Value| {
            set(&mut config, &format!("group.{}.{key}", self.group), value);
        };
        let names: Vec<String> = units.iter().map(Unit::name).collect();
        group("bots", self.bots.clone().into());
        group("units", names.into());
        group("primary", "alpha".into());
        group("accept_dual_active", true.into());
        group("start_deadline", "10s".into());
        group("settle", "500ms".into());
        group("heartbeat_deadline", "20s".into());
        if let Some(redis) = &redis {
            group("redis.address", format!("127.0.0.1:{}", redis.port).into());
            group("redis.primary", format!("127.0.0.1:{}", self.scene.redis.port).into());
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        for (key, value) in [
            ("node", self.node.clone()),
            ("state_dir", path("state")),
            ("runtime_dir", path("run")),
            ("watch.interval", "1s".to_owned()),
            ("watch.timeout", format!("{}s", TIMEOUT.as_secs())),
            ("watch.blind_after", "2s".to_owned()),
            ("store.database", "postgres".to_owned()),
            ("store.user", "understudy".to_owned()),
            ("store.connect_timeout", "1s".to_owned()),
        ] {
            set(&mut config, key, value.into());
        }
        // A test that looks at it chooses a free port.
        set(&mut config, "http.listen", toml::Value::Array(Vec::new()));
        let host = format!("127.0.0.1:{}", self.scene.postgres.port());
        set(&mut config, "store.hosts", vec![host].into());
        merge(&mut config, self.settings);
        let notified = Notified::listen(&dir.path().join("notify.sock"));
        let standby = Standby {
            node: self.node,
            group: self.group,
            bots: self.bots,
            redis,
            units,
            config,
            bus: container.bus.clone(),
            environment: self.environment,
            notified,
            child: None,
            dir,
        };
        standby.write_config();
        if self.set_up {
            standby.run(&["setup", "--user", "postgres"]).assert_code(0);
        }
        standby
    }

    /// The daemon runs, sees the heartbeats, and could take over.
    pub fn watching(self) -> Standby {
        let mut standby = self.ready();
        standby.start();
        standby.wait_until_watching();
        standby
    }

    /// The daemon runs and has told systemd that it is ready.
    pub fn running(self) -> Standby {
        let mut standby = self.ready();
        standby.start();
        standby.notified.wait_for("READY=1");
        standby
    }
}

/// A standby host.
pub struct Standby {
    /// Its name.
    pub node: String,
    /// The group that it is standby of.
    pub group: String,
    /// The group's bots.
    pub bots: Vec<String>,
    /// The replica, if the group has a Redis.
    pub redis: Option<Redis>,
    /// The units, in the order of the bots.
    pub units: Vec<Unit>,
    /// The configuration; [`Standby::write_config`] puts it on disk.
    pub config: toml::Table,
    /// Environment variables of the daemon, the next time that it is started.
    pub environment: Vec<(String, String)>,
    /// What the daemon has told systemd.
    pub notified: Notified,
    bus: String,
    child: Option<Child>,
    // Last, as the others may still write into it.
    dir: TempDir,
}

impl Standby {
    /// A file or directory of this host: `state`, `run`, `log`, `understudy.toml`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its replica.
    pub fn redis(&self) -> &Redis {
        self.redis.as_ref().unwrap()
    }

    /// The file with the epoch for the units.
    pub fn environment_file(&self) -> PathBuf {
        self.path("run").join(format!("{}.env", self.group))
    }

    /// Where a unit notes that it was started, and with which token.
    pub fn started(&self, bot: &str) -> PathBuf {
        self.path(&format!("{bot}.started"))
    }

    /// How often the unit of a bot was started.
    pub fn starts(&self, bot: &str) -> usize {
        fs::read_to_string(self.started(bot)).map_or(0, |text| text.lines().count())
    }

    /// Lets the units fail when they are started, or no longer.
    pub fn break_unit(&self, bot: &str, broken: bool) {
        let path = self.path(&format!("{bot}.broken"));
        if broken { fs::write(path, "").unwrap() } else { fs::remove_file(path).unwrap() }
    }

    // ---- configuration and commands ----

    /// Changes a setting on disk. `group.` stands for the group's own table.
    pub fn configure(&mut self, key: &str, value: impl Into<toml::Value>) {
        let key = match key.strip_prefix("group.") {
            Some(rest) => format!("group.{}.{rest}", self.group),
            None => key.to_owned(),
        };
        set(&mut self.config, &key, value.into());
        self.write_config();
    }

    /// Makes the second bot and its unit a group of its own, and sets that up in the store.
    pub fn split_off(&mut self, name: &str) {
        let mut second = self.config["group"][&self.group].as_table().unwrap().clone();
        let units: Vec<String> = self.units.iter().map(Unit::name).collect();
        for (group, index) in [(&mut second, 1), (self.group_table(), 0)] {
            group.insert("bots".to_owned(), vec![BOTS[index]].into());
            group.insert("units".to_owned(), vec![units[index].clone()].into());
        }
        self.config["group"].as_table_mut().unwrap().insert(name.to_owned(), second.into());
        self.write_config();
        let path = self.units[1].path();
        let text = fs::read_to_string(path).unwrap();
        self.units[1]
            .rewrite(&text.replace(&format!("{}.env", self.group), &format!("{name}.env")));
        // understudy keeps the unit loaded, and with it what the file said before.
        Container::shared().run(&["systemctl", "daemon-reload"]);
        self.run(&["setup", "--user", "postgres"]).assert_code(0);
    }

    fn group_table(&mut self) -> &mut toml::Table {
        let group = self.group.clone();
        self.config["group"][&group].as_table_mut().unwrap()
    }

    /// Puts the configuration on disk.
    pub fn write_config(&self) {
        fs::write(self.config_file(), toml::to_string(&self.config).unwrap()).unwrap();
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.path("understudy.toml")
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    /// The same with environment variables.
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = self.command();
        command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
        Ran::new(arguments, command.output().unwrap())
    }

    /// Runs a command as a user who is nobody in particular.
    pub fn run_as_nobody(&self, arguments: &[&str]) -> Ran {
        // Not even a path to the program is certain for everyone.
        let program = self.path("understudy");
        fs::copy(PROGRAM, &program).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(self.config_file()).args(arguments).uid(65534).gid(65534);
        Ran::new(arguments, command.stdin(Stdio::null()).output().unwrap())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .arg("--config")
            .arg(self.config_file())
            .env_remove("NOTIFY_SOCKET")
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus);
        command
    }

    // ---- the process ----

    /// Starts the daemon as systemd would.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        // Only a shell knows the process id before the program runs.
        let child = Command::new("/bin/sh")
            .args(["-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh", PROGRAM, "--config"])
            .arg(self.config_file())
            .arg("run")
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus)
            .env("NOTIFY_SOCKET", self.path("notify.sock"))
            .env("WATCHDOG_USEC", "2000000")
            .env("UNDERSTUDY_LOG", "info,understudy=debug")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("it runs").id().try_into().unwrap())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Ends it at once.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_for_end();
    }

    /// Asks it to end, and says how it did.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_for_end()
    }

    /// Waits until it has ended, and says how.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let mut status = None;
        until("the daemon to end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        self.child = None;
        status.unwrap()
    }

    /// Waits until it was killed by itself, at the crash point that it was given.
    pub fn wait_for_crash(&mut self) {
        let status = self.wait_for_end();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
    }

    /// Waits until it stands still, as after SIGSTOP.
    pub fn wait_until_stopped(&self) {
        until("the daemon to stand still", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
        });
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    // ---- what it says ----

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until a line of the log has all of these in it.
    pub fn wait_for_log(&self, words: &[&str]) {
        until(&format!("a line with {words:?} in the log"), || self.has_logged(words));
    }

    /// Whether a line of the log has all of these in it.
    pub fn has_logged(&self, words: &[&str]) -> bool {
        self.log().lines().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Its answer over the control socket.
    pub fn try_status(&self) -> Option<Status> {
        let runtime_dir = self.path("run");
        let answer = ask(&runtime_dir, &Request::Status);
        match now(async { tokio::time::timeout(Duration::from_millis(500), answer).await }) {
            Ok(Ok(Response::Status(status))) => Some(status),
            _ => None,
        }
    }

    /// The group, as it says now, if it answers.
    pub fn try_group(&self) -> Option<protocol::Group> {
        self.try_status()?.groups.into_iter().find(|group| group.name == self.group)
    }

    /// The group, as it says now.
    pub fn group(&self) -> protocol::Group {
        let mut found = None;
        until("the daemon to answer", || {
            found = self.try_group();
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until the group is as wanted.
    pub fn wait_for(
        &self,
        what: &str,
        mut so: impl FnMut(&protocol::Group) -> bool,
    ) -> protocol::Group {
        let mut found = None;
        until(what, || {
            found = self.try_group();
            found.as_ref().is_some_and(&mut so)
        });
        found.unwrap()
    }

    /// Waits for a state.
    pub fn wait_for_state(&self, state: &str) -> protocol::Group {
        self.wait_for(&format!("the state {state}"), |group| group.state == state)
    }

    /// Waits until it has the group.
    pub fn wait_until_active(&self) -> protocol::Group {
        self.wait_for_state("active")
    }

    /// Waits until it sees the heartbeats and could take over.
    pub fn wait_until_watching(&self) {
        self.wait_for("the daemon to watch and to be ready", |group| {
            group.state == "standby"
                && group.verdict == "fresh"
                && group.not_ready_because.as_ref().is_some_and(Vec::is_empty)
        });
    }

    /// Looks on for a while in which it must not act, and returns every situation that it was in.
    pub fn stays_quiet_for(&self, span: Duration) -> Vec<protocol::Group> {
        let end = BootTime::now() + span;
        let mut seen: Vec<protocol::Group> = Vec::new();
        while BootTime::now() < end {
            if let Some(group) = self.try_group() {
                // A check is a look at one's own shoes.
                let quiet = matches!(group.state.as_str(), "standby" | "checking");
                assert!(quiet, "{}: {}", group.state, group.summary);
                seen.push(group);
            }
            thread::sleep(PACE * 5);
        }
        seen
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(80)..].join("\n");
            let status = self.child.is_some().then(|| self.run(&["status"]));
            eprintln!("---- {} {}: end of the log\n{last}", self.node, self.group);
            eprintln!("---- status: {status:?}");
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    what: String,
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

impl Ran {
    fn new(arguments: &[&str], output: Output) -> Self {
        Self {
            what: arguments.join(" "),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It ended like this.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "understudy {}:\n{}{}", self.what, self.out, self.err);
        self
    }

    /// It said this, wherever.
    #[track_caller]
    pub fn assert_says(&self, words: &str) -> &Self {
        let said = format!("{}{}", self.out, self.err);
        assert!(said.contains(words), "understudy {} does not say {words:?}:\n{said}", self.what);
        self
    }

    /// What it printed, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

// ---- systemd's side of the notification socket ----

/// What the daemon has told systemd, line by line.
pub struct Notified {
    told: Arc<Mutex<Vec<(BootTime, String)>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Notified {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = {
            let (told, ended) = (told.clone(), ended.clone());
            thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while !ended.load(Ordering::Relaxed) {
                    let Ok(length) = socket.recv(&mut buffer) else { continue };
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let lines = text.lines().map(|line| (BootTime::now(), line.to_owned()));
                    told.lock().unwrap().extend(lines);
                }
            })
        };
        Self { told, ended, thread: Some(thread) }
    }

    /// Every line since `since`.
    pub fn since(&self, since: BootTime) -> Vec<String> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|(at, _)| *at >= since).map(|(_, line)| line.clone()).collect()
    }

    /// Every line so far.
    pub fn all(&self) -> Vec<String> {
        self.since(BootTime::ZERO)
    }

    /// Whether a line with this in it has come.
    pub fn has(&self, words: &str) -> bool {
        self.all().iter().any(|line| line.contains(words))
    }

    /// Waits for a line with this in it.
    pub fn wait_for(&self, words: &str) {
        until(&format!("systemd to be told {words:?}"), || self.has(words));
    }

    /// Waits for a line with this in it, after `since`.
    pub fn wait_for_since(&self, since: BootTime, words: &str) {
        until(&format!("systemd to be told {words:?}"), || {
            self.since(since).iter().any(|line| line.contains(words))
        });
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// ---- a takeover that waits ----

/// A fence command that waits until the test lets it end: what happens meanwhile happens after the
/// lease was acquired and before anything else was done.
pub struct Gate {
    dir: TempDir,
}

impl Gate {
    /// A gate that is closed.
    pub fn closed() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("closed"), "").unwrap();
        Self { dir }
    }

    /// Puts it into a plan.
    pub fn in_plan<'a>(&self, plan: Plan<'a>) -> Plan<'a> {
        let at = self.dir.path().display();
        let script =
            format!("echo >> {at}/reached; while test -e {at}/closed; do sleep 0.05; done");
        let command: Vec<toml::Value> =
            ["/bin/sh", "-c", &script].iter().map(|&word| word.into()).collect();
        plan.set("group.fence.command", command).set("group.fence.deadline", "60s")
    }

    /// Waits until a takeover has come to it.
    pub fn wait_until_reached(&self) {
        until("a takeover to reach the fence", || self.dir.path().join("reached").exists());
    }

    /// Lets the takeover go on.
    pub fn open(&self) {
        fs::remove_file(self.dir.path().join("closed")).unwrap();
    }
}

// ---- small things ----

/// A file system of its own, in memory and of a size, mounted on a directory.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one with these options.
    pub fn mount(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        command("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &path.display().to_string()]);
        Self { path: path.to_owned() }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// Sets a dotted key.
fn set(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| toml::Table::new().into());
            set(inner.as_table_mut().unwrap(), rest, value);
        }
    }
}

/// Adds the settings of `more`, which win.
fn merge(table: &mut toml::Table, more: toml::Table) {
    for (key, value) in more {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

/// Whatever is asked of the control socket, byte by byte.
pub fn control_socket(standby: &Standby) -> io::Result<std::os::unix::net::UnixStream> {
    std::os::unix::net::UnixStream::connect(socket_path(&standby.path("run")))
}

/// Sends a line over the control socket and returns the one that comes back.
pub fn talk(standby: &Standby, line: &[u8]) -> io::Result<String> {
    let mut stream = control_socket(standby)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(line)?;
    io::read_to_string(stream)
}
