//! A Postgres server of a test's own, and the heartbeat table of the original.
//!
//! ```ignore
//! let mut postgres = Postgres::start().await;
//! postgres.create_bot_status().await;
//! postgres.beat("equity").await;
//! postgres.freeze();
//! ```
//!
//! The cluster is copied from a template that is made once per test process, runs as user
//! `postgres` on a free port of the loopback address and a socket of its own, and is gone when
//! dropped.

#![allow(clippy::expect_used, reason = "a test that cannot have its server ends here")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use understudy::config::secret::Secret;
use understudy::config::settings::{
    Group, Heartbeats, Host, OnStoreLoss, Paired, Quorum, Store, Table, Tls,
};
use understudy::time::BootTime;

use super::wait;

/// How long a server may take to start or stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server, or one that was stopped and can be started again.
pub struct Postgres {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
    options: Options,
    frozen: Vec<Pid>,
}

/// How to start a server.
#[derive(Clone, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
    scram: bool,
    clock: bool,
    standby_of: Option<u16>,
}

impl Options {
    /// A line of `postgresql.conf`.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks for passwords over TCP, `secret` for everyone. The socket stays open.
    pub fn scram(mut self) -> Self {
        self.scram = true;
        self
    }

    /// Lets [`Postgres::set_clock`] move the server's clock while it runs.
    pub fn clock(mut self) -> Self {
        self.clock = true;
        self
    }

    pub async fn start(self) -> Postgres {
        Postgres::start_with(self).await
    }
}

impl Postgres {
    pub fn options() -> Options {
        Options::default()
    }

    pub async fn start() -> Self {
        Self::options().start().await
    }

    async fn start_with(options: Options) -> Self {
        let directory = directory();
        copy(template(), &directory.path().join("data"));
        Self::launch(directory, options).await
    }

    /// A streaming standby of this server.
    pub async fn standby(&self) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        run(as_postgres("pg_basebackup")
            .args([
                "--checkpoint=fast",
                "--write-recovery-conf",
                "--no-sync",
                "-U",
                "postgres",
                "-h",
            ])
            .arg(self.socket_directory())
            .args(["-p", &self.port.to_string(), "-D"])
            .arg(&data));
        let options = Options { standby_of: Some(self.port), ..Options::default() };
        Self::launch(directory, options).await
    }

    async fn launch(directory: TempDir, options: Options) -> Self {
        let data = directory.path().join("data");
        let method = if options.scram { "scram-sha-256" } else { "trust" };
        write_owned(
            &data.join("pg_hba.conf"),
            &format!(
                "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 {method}\n"
            ),
        );
        if options.clock {
            write_owned(&directory.path().join("clock"), "+0\n");
        }
        let port = free_port();
        let scram = options.scram;
        let mut postgres = Self { directory, port, child: None, options, frozen: Vec::new() };
        postgres.resume().await;
        if scram {
            postgres.sql("ALTER ROLE postgres PASSWORD 'secret'").await;
        }
        postgres
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where files for the server can be put, readable to it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// A connection as superuser, over the socket.
    pub async fn client(&self) -> Client {
        self.client_of("postgres").await
    }

    /// A connection as `role`, over the socket.
    pub async fn client_as(&self, role: &str) -> Client {
        connect(self.login("postgres").user(role)).await
    }

    /// A connection as superuser to another database.
    pub async fn client_of(&self, database: &str) -> Client {
        connect(&self.login(database)).await
    }

    /// Runs statements as superuser.
    pub async fn sql(&self, statements: &str) {
        self.sql_in("postgres", statements).await;
    }

    pub async fn sql_in(&self, database: &str, statements: &str) {
        let client = self.client_of(database).await;
        client.batch_execute(statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    }

    /// First column of the first row, as superuser. NULL is "NULL".
    pub async fn value(&self, query: &str) -> String {
        let rows = self.rows(query).await;
        rows.first().unwrap_or_else(|| panic!("no row: {query}"))[0].clone()
    }

    /// All rows as text, as superuser. NULL is "NULL".
    pub async fn rows(&self, query: &str) -> Vec<Vec<String>> {
        self.rows_in("postgres", query).await
    }

    pub async fn rows_in(&self, database: &str, query: &str) -> Vec<Vec<String>> {
        let client = self.client_of(database).await;
        let answer = client.simple_query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
        let mut rows = Vec::new();
        for message in answer {
            if let SimpleQueryMessage::Row(row) = message {
                let cell = |column| row.get(column).unwrap_or("NULL").to_owned();
                rows.push((0..row.len()).map(cell).collect());
            }
        }
        rows
    }

    pub async fn create_database(&self, name: &str) {
        self.sql(&format!("CREATE DATABASE \"{name}\"")).await;
    }

    /// A role that may log in, with password `secret`, and nothing else.
    pub async fn create_role(&self, name: &str) {
        let name = name.replace('"', "\"\"");
        self.sql(&format!("CREATE ROLE \"{name}\" LOGIN PASSWORD 'secret'")).await;
    }

    /// The heartbeat table as the original has it.
    pub async fn create_bot_status(&self) {
        self.sql(BOT_STATUS).await;
    }

    /// The same table without any constraint, for rows that should not be there.
    pub async fn create_loose_bot_status(&self) {
        let loose = BOT_STATUS
            .replace(" PRIMARY KEY", "")
            .replace(" UNIQUE", "")
            .replace(" NOT NULL", "")
            .replace(" DEFAULT CURRENT_TIMESTAMP", "");
        self.sql(&loose).await;
    }

    /// A heartbeat, written as the bots do.
    pub async fn beat(&self, bot: &str) {
        self.sql(&format!(
            "INSERT INTO bot_status (id, bot_name, status, last_heartbeat, updated_at)
             VALUES ('{bot}-id', '{bot}', 'STANDBY', NOW(), NOW())
             ON CONFLICT (bot_name) DO UPDATE SET last_heartbeat = NOW(), updated_at = NOW()"
        ))
        .await;
    }

    pub async fn status_of(&self, bot: &str) -> String {
        self.value(&format!("SELECT status FROM bot_status WHERE bot_name = '{bot}'")).await
    }

    /// Settings to reach this server with, as a superuser over TCP.
    pub fn store(&self) -> Store {
        self.store_as("postgres")
    }

    /// Settings to reach this server with as `role`, whose password is `secret`.
    pub fn store_as(&self, role: &str) -> Store {
        Store {
            hosts: vec![self.host()],
            database: "postgres".to_owned(),
            user: role.to_owned(),
            password: self.options.scram.then(|| Secret::new("secret".to_owned())),
            tls: Tls::Off,
            schema: "understudy".to_owned(),
            connect_timeout: Duration::from_secs(20),
        }
    }

    pub fn host(&self) -> Host {
        Host::Tcp("127.0.0.1".to_owned(), self.port)
    }

    /// Stops in order: sessions are ended, nothing is lost.
    pub fn stop(&mut self) {
        self.end(Signal::SIGINT);
    }

    /// As `kill -9`, of the whole server.
    pub fn kill(&mut self) {
        let mut left = Vec::new();
        if let Some(child) = &self.child {
            // One that stands still starts no others meanwhile.
            let _ = kill(pid(child), Signal::SIGSTOP);
            wait::until("the postmaster to stand still", || state(pid(child)) == Some('T'));
            left = descendants(pid(child));
            for process in &left {
                let _ = kill(*process, Signal::SIGKILL);
            }
        }
        self.end(Signal::SIGKILL);
        wait::until("its processes to be gone", || {
            left.iter().all(|process| matches!(state(*process), None | Some('Z' | 'X')))
        });
    }

    /// Starts it again after [`Postgres::stop`] or [`Postgres::kill`], on the same port.
    pub async fn resume(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .expect("log opens");
        let mut command = as_postgres("postgres");
        command
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut set = |name: &str, value: &str| {
            command.args(["-c", &format!("{name}={value}")]);
        };
        set("port", &self.port.to_string());
        set("listen_addresses", "127.0.0.1");
        set("unix_socket_directories", &self.directory.path().display().to_string());
        set("fsync", "off");
        set("full_page_writes", "off");
        set("shared_buffers", "16MB");
        set("max_connections", "60");
        set("max_wal_senders", "4");
        set("autovacuum", "off");
        set("timezone", "UTC");
        if let Some(port) = self.options.standby_of {
            set("cluster_name", &format!("standby of {port}"));
        }
        for (name, value) in &self.options.settings {
            set(name, value);
        }
        if self.options.clock {
            command
                .env("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
                .env("FAKETIME_TIMESTAMP_FILE", self.directory.path().join("clock"))
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        self.child = Some(command.spawn().expect("postgres starts"));
        let deadline = BootTime::now() + PATIENCE;
        loop {
            let refused = match self.login("postgres").connect(NoTls).await {
                Ok(_) => return,
                Err(error) => error,
            };
            let child = self.child.as_mut().expect("was just started");
            if let Some(status) = child.try_wait().expect("child can be waited for") {
                panic!("postgres ended with {status}: {}", self.log());
            }
            assert!(
                BootTime::now() < deadline,
                "postgres accepts no login: {refused:?}: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn restart(&mut self) {
        self.stop();
        self.resume().await;
    }

    /// Makes a standby the primary, and waits until it accepts writes.
    pub async fn promote(&self) {
        assert_eq!(self.value("SELECT pg_promote()").await, "t");
    }

    /// Stops every process of the server with SIGSTOP: the kernel goes on acknowledging for it.
    pub fn freeze(&mut self) {
        let postmaster = pid(self.child.as_ref().expect("it is running"));
        kill(postmaster, Signal::SIGSTOP).expect("postmaster can be stopped");
        self.frozen = descendants(postmaster);
        self.frozen.retain(|process| kill(*process, Signal::SIGSTOP).is_ok());
        self.frozen.push(postmaster);
    }

    pub fn thaw(&mut self) {
        for process in self.frozen.drain(..) {
            let _ = kill(process, Signal::SIGCONT);
        }
    }

    /// Moves the server's wall clock, as `faketime` writes it: `"+1h"`, `"-7200"`. At once, for
    /// running sessions too.
    pub fn set_clock(&self, offset: &str) {
        assert!(self.options.clock, "started without a clock to set");
        write_owned(&self.directory.path().join("clock"), &format!("{offset}\n"));
    }

    /// A certificate authority, and TLS for the server under `name`. Returns the authority's file.
    pub async fn enable_tls(&self, name: &str) -> PathBuf {
        let directory = self.directory.path();
        let authority = certify(directory, name);
        self.sql(&format!(
            "ALTER SYSTEM SET ssl_cert_file = '{}'",
            directory.join("server.crt").display()
        ))
        .await;
        self.sql(&format!(
            "ALTER SYSTEM SET ssl_key_file = '{}'",
            directory.join("server.key").display()
        ))
        .await;
        self.sql("ALTER SYSTEM SET ssl = on").await;
        self.sql("SELECT pg_reload_conf()").await;
        eventually("the server to use TLS", async || self.value("SHOW ssl").await == "on").await;
        authority
    }

    fn login(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_directory()).port(self.port).user("postgres").dbname(database);
        config
    }

    fn end(&mut self, signal: Signal) {
        self.thaw();
        let Some(mut child) = self.child.take() else { return };
        let _ = kill(pid(&child), signal);
        let deadline = BootTime::now() + PATIENCE;
        loop {
            match child.try_wait() {
                Ok(Some(_)) | Err(_) => return,
                Ok(None) if BootTime::now() > deadline => {
                    let _ = child.kill();
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::SIGQUIT);
        // One that was killed has left its segment of shared memory, of which there are 4096.
        let pid_file = fs::read_to_string(self.directory.path().join("data/postmaster.pid"));
        if let Some(segment) = pid_file.iter().flat_map(|text| text.lines().nth(6)).next()
            && let Some(id) = segment.split_whitespace().nth(1)
        {
            let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
        }
    }
}

/// A pooler in transaction mode in front of a server.
pub struct PgBouncer {
    _directory: TempDir,
    child: Child,
    port: u16,
}

impl PgBouncer {
    /// Lets any of `roles` in without a password, over at most two server connections each.
    pub async fn start(server: &Postgres, roles: &[&str]) -> Self {
        let directory = directory();
        let port = free_port();
        let mut users = String::new();
        for role in roles {
            writeln!(users, "\"{role}\" \"\"").expect("writes to a string");
        }
        write_owned(&directory.path().join("users"), &users);
        let ini = directory.path().join("pgbouncer.ini");
        write_owned(
            &ini,
            &format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
                 pool_mode = transaction\ndefault_pool_size = 2\nserver_reset_query_always = 0\n",
                server.port,
                directory.path().join("users").display(),
            ),
        );
        let child = as_user(Command::new("/usr/sbin/pgbouncer"))
            .arg("--quiet")
            .arg(&ini)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer starts");
        let bouncer = Self { _directory: directory, child, port };
        eventually("pgbouncer to listen", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        bouncer
    }

    pub fn host(&self) -> Host {
        Host::Tcp("127.0.0.1".to_owned(), self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A group whose bots are in `bot_status`, with the defaults of the original.
pub fn group(name: &str, bots: &[&str]) -> Group {
    Group {
        name: name.to_owned(),
        paired: None,
        primary: "alpha".to_owned(),
        heartbeats: Heartbeats {
            table: Table { schema: "public".to_owned(), name: "bot_status".to_owned() },
            name_column: "bot_name".to_owned(),
            beat_column: "last_heartbeat".to_owned(),
            status_column: "status".to_owned(),
            primary_status: "PRIMARY".to_owned(),
            stopped_statuses: vec!["EMERGENCY_STOPPED".to_owned()],
        },
        bots: bots.iter().map(|bot| (*bot).to_owned()).collect(),
        stale: Quorum::Any,
        timeout: Duration::from_secs(60),
        units: Vec::new(),
        cooldown: Duration::from_secs(300),
        latch_after: 3,
        latch_window: Duration::from_secs(3600),
        accept_dual_active: true,
        redis: None,
        fence: None,
        start_deadline: Duration::from_secs(30),
        settle: Duration::from_secs(10),
        heartbeat_deadline: Duration::from_secs(60),
    }
}

/// The same in paired mode, on bravo and charlie.
pub fn paired(name: &str, bots: &[&str]) -> Group {
    let nodes = vec!["bravo".to_owned(), "charlie".to_owned()];
    Group {
        paired: Some(Paired { nodes, on_store_loss: OnStoreLoss::Fence }),
        primary: "bravo".to_owned(),
        accept_dual_active: false,
        ..group(name, bots)
    }
}

impl Postgres {
    /// Waits until a session of `role` waits for a lock.
    pub async fn blocked(&self, role: &str) {
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}' AND wait_event_type = 'Lock'"
        );
        eventually("a session to wait for a lock", async || self.value(&waiting).await != "0")
            .await;
    }
}

/// Waits for a condition, and says what it was if it does not come true.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = BootTime::now() + PATIENCE;
    while !holds().await {
        assert!(BootTime::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes the heartbeat table as the original has it.
pub const BOT_STATUS: &str = "
CREATE TABLE bot_status (
  id text PRIMARY KEY,
  bot_name text UNIQUE NOT NULL,
  status text NOT NULL,
  last_heartbeat timestamp(3) NOT NULL,
  account_equity double precision,
  buying_power double precision,
  cash double precision,
  portfolio_value double precision,
  unrealized_pl double precision,
  realized_pl double precision,
  daily_pnl double precision,
  total_pnl double precision,
  positions_count integer,
  total_trades integer,
  winning_trades integer,
  win_rate double precision,
  uptime_seconds integer,
  cpu_percent double precision,
  memory_mb double precision,
  version text,
  error_message text,
  created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at timestamp(3) NOT NULL
);";

/// Name of every directory made here, with the process that made it, so that a later run can remove
/// what a killed one left behind.
const PREFIX: &str = "understudy-postgres-";

async fn connect(config: &tokio_postgres::Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.expect("logs in");
    tokio::spawn(connection);
    client
}

/// In memory where there is such a place: a hundred clusters are no load for a disk then.
fn room() -> &'static Path {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory } else { Path::new("/tmp") }
}

fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir_in(room())
        .expect("temporary directory");
    give_to_postgres(directory.path());
    directory
}

/// Lives as long as the process; the next one sweeps it away.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        sweep();
        let directory = directory().keep();
        let data = directory.join("data");
        run(as_postgres("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C", "--wal-segsize=1", "-D"])
            .arg(&data));
        data
    })
}

/// Removes what test processes left that are gone. A server that lost its directory ends by itself.
fn sweep() {
    for entry in fs::read_dir(room()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next());
        if let Some(maker) = maker.and_then(|maker| maker.parse::<u32>().ok())
            && !Path::new(&format!("/proc/{maker}")).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to));
}

fn certify(directory: &Path, name: &str) -> PathBuf {
    let file = |name: &str| directory.join(name).display().to_string();
    let openssl = |arguments: &[&str]| {
        run(Command::new("openssl").args(arguments).stderr(Stdio::null()));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let mut authority = vec!["req", "-x509", "-days", "2", "-subj", "/CN=test authority"];
    let (ca_key, ca_crt) = (file("ca.key"), file("ca.crt"));
    authority.extend(key);
    authority.extend(["-keyout", &ca_key, "-out", &ca_crt]);
    openssl(&authority);
    let (request, server_key, server_crt) =
        (file("server.csr"), file("server.key"), file("server.crt"));
    let subject = format!("/CN={name}");
    let mut server = vec!["req", "-subj", &subject, "-keyout", &server_key, "-out", &request];
    server.extend(key);
    openssl(&server);
    let extensions = file("extensions");
    fs::write(&extensions, format!("subjectAltName=DNS:{name}\n")).expect("writes");
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &request,
        "-CA",
        &ca_crt,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-extfile",
        &extensions,
        "-out",
        &server_crt,
    ]);
    for file in [&server_key, &server_crt] {
        give_to_postgres(Path::new(file));
    }
    fs::set_permissions(&server_key, fs::Permissions::from_mode(0o600)).expect("chmod");
    PathBuf::from(ca_crt)
}

/// Below the range that the kernel hands out for outgoing connections, and not tried twice by this
/// process.
fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let spread = u16::try_from(std::process::id() % 180).expect("is below 180");
        AtomicU16::new(10_000 + spread * 100)
    });
    loop {
        let port = next.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn as_postgres(program: &str) -> Command {
    as_user(Command::new(format!("/usr/lib/postgresql/15/bin/{program}")))
}

fn as_user(mut command: Command) -> Command {
    let user = postgres_user();
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
    command
}

fn postgres_user() -> User {
    User::from_name("postgres").expect("users can be read").expect("there is a user postgres")
}

fn give_to_postgres(path: &Path) {
    let user = postgres_user();
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("chown");
}

fn write_owned(path: &Path, text: &str) {
    // In place: a server may be reading it, and keeps its owner.
    fs::write(path, text).expect("writes");
    give_to_postgres(path);
}

fn run(command: &mut Command) {
    let output =
        command.stdout(Stdio::piped()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"))
}

/// What a process does: `T` if it stands still, `None` if there is none.
fn state(process: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Children of the postmaster; they have no children of their own.
fn descendants(parent: Pid) -> Vec<Pid> {
    let parent_of = |process: &Path| -> io::Result<i32> {
        let stat = fs::read_to_string(process.join("stat"))?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .ok_or(io::ErrorKind::InvalidData.into())
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is readable").flatten() {
        let process = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some(process) = process
            && parent_of(&entry.path()).is_ok_and(|found| found == parent.as_raw())
        {
            found.push(Pid::from_raw(process));
        }
    }
    found
}
