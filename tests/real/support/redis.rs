//! A Redis server of the test's own.
//!
//! ```ignore
//! let primary = Redis::start();
//! let replica = Redis::with().replica_of(&primary).start();
//! replica.wait_until_in_sync();
//! ```

#![allow(clippy::expect_used, reason = "a test that cannot have its server ends here")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, Value};
use tempfile::TempDir;
use understudy::config::secret::Secret;
use understudy::config::settings::{self, Host, Tls};

use super::certificates::Certificates;
use super::wait;

/// A running server. It is killed when this goes out of scope.
pub struct Redis {
    /// Where it listens without encryption.
    pub port: u16,
    dir: TempDir,
    config_file: bool,
    arguments: Vec<String>,
    password: Option<String>,
    certificates: Option<(Certificates, u16)>,
    child: Option<Child>,
}

/// How a server is to be started.
pub struct Options {
    lines: Vec<String>,
    config_file: bool,
    password: Option<String>,
    tls: bool,
    data: Option<PathBuf>,
}

impl Options {
    /// Lets it copy another one.
    pub fn replica_of(mut self, primary: &Redis) -> Self {
        if let Some(password) = &primary.password {
            self.lines.push(format!("masterauth {password}"));
        }
        self.line(&format!("replicaof 127.0.0.1 {}", primary.port))
    }

    /// Adds a line to its configuration.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Starts it without a configuration file.
    pub fn without_config_file(mut self) -> Self {
        self.config_file = false;
        self
    }

    /// Demands a password from the default user.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.line(&format!("requirepass {password}"))
    }

    /// Lets it load a data set that was saved before.
    pub fn data(mut self, file: &Path) -> Self {
        self.data = Some(file.to_owned());
        self
    }

    /// Lets it listen with encryption too, with a certificate of a private authority.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts it and waits until it answers.
    pub fn start(self) -> Redis {
        let server = self.launch();
        server.wait_until_it_answers();
        server
    }

    /// Starts it and does not wait.
    pub fn launch(mut self) -> Redis {
        let dir = tempfile::tempdir().expect("temporary directory");
        let port = free_port();
        let certificates = self.tls.then(|| (Certificates::make(dir.path()), free_port()));
        if let Some((files, tls_port)) = &certificates {
            self.lines.extend([
                format!("tls-port {tls_port}"),
                format!("tls-ca-cert-file {}", files.ca.display()),
                format!("tls-cert-file {}", files.certificate.display()),
                format!("tls-key-file {}", files.key.display()),
                "tls-auth-clients no".to_owned(),
            ]);
        }
        let mut lines = vec![
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.path().display()),
            format!("unixsocket {}", dir.path().join("redis.sock").display()),
            "logfile redis.log".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
            "repl-ping-replica-period 1".to_owned(),
            "save 3600 1".to_owned(),
            "enable-debug-command yes".to_owned(),
        ];
        lines.append(&mut self.lines);
        if let Some(file) = &self.data {
            std::fs::copy(file, dir.path().join("dump.rdb")).expect("copy the data set");
        }
        let arguments = if self.config_file {
            let path = dir.path().join("redis.conf");
            std::fs::write(&path, lines.join("\n") + "\n").expect("write redis.conf");
            vec![path.display().to_string()]
        } else {
            let words = |line: &String| {
                let (name, value) = line.split_once(' ').expect("a name and a value");
                let mut words = vec![format!("--{name}")];
                words.extend(value.split(' ').map(str::to_owned));
                words
            };
            lines.iter().flat_map(words).collect()
        };
        let mut server = Redis {
            port,
            dir,
            config_file: self.config_file,
            arguments,
            password: self.password,
            certificates,
            child: None,
        };
        server.spawn();
        server
    }
}

impl Redis {
    /// Starts one with default settings.
    pub fn start() -> Self {
        Self::with().start()
    }

    /// Starts to say how one is to be started.
    pub fn with() -> Options {
        Options { lines: vec![], config_file: true, password: None, tls: false, data: None }
    }

    /// Its directory, with `redis.conf`, `redis.log` and `dump.rdb`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        assert!(self.config_file, "this one has none");
        self.dir().join("redis.conf")
    }

    /// Where it listens without encryption.
    pub fn host(&self) -> Host {
        Host::Tcp("127.0.0.1".to_owned(), self.port)
    }

    /// Its unix socket.
    pub fn socket(&self) -> Host {
        Host::Unix(self.dir().join("redis.sock"), 0)
    }

    /// Settings of a group whose replica this is.
    pub fn settings(&self) -> settings::Redis {
        settings::Redis {
            address: self.host(),
            primary: None,
            nodes: std::collections::BTreeMap::new(),
            user: None,
            password: self.password.clone().map(Secret::new),
            tls: Tls::Off,
            max_lag_bytes: 1_000_000,
            max_link_down: Duration::from_secs(60),
            allow_empty: false,
            call_timeout: Duration::from_secs(5),
        }
    }

    /// The authority of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.certificates.as_ref().expect("started with tls()").0.ca.clone()
    }

    /// Settings for its encrypted port.
    pub fn tls_settings(&self) -> settings::Redis {
        let (files, port) = self.certificates.as_ref().expect("started with tls()");
        settings::Redis {
            address: Host::Tcp("localhost".to_owned(), *port),
            tls: Tls::Verify { ca_file: Some(files.ca.clone()) },
            ..self.settings()
        }
    }

    /// Runs a command, given as words.
    pub fn run<T: FromRedisValue>(&self, words: &str) -> T {
        self.try_run(words).unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    /// Runs a command whose words may be empty.
    pub fn run_words<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_words(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs a command that may fail.
    pub fn try_run<T: FromRedisValue>(&self, words: &str) -> redis::RedisResult<T> {
        self.try_words(&words.split_whitespace().collect::<Vec<_>>())
    }

    fn try_words<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut login = RedisConnectionInfo::default();
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), self.port);
        let info = address.into_connection_info()?.set_redis_settings(login);
        let client = redis::Client::open(info)?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let (name, arguments) = words.split_first().expect("a command");
        redis::cmd(name).arg(arguments).query(&mut connection)
    }

    /// A client of its own, for what takes its time.
    pub fn client(&self) -> redis::Connection {
        let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), self.port);
        let info = address.into_connection_info().expect("an address");
        let client = redis::Client::open(info).expect("an address");
        client.get_connection_with_timeout(Duration::from_secs(5)).expect("redis answers")
    }

    /// Writes `count` keys.
    pub fn fill(&self, count: u32) {
        self.run::<Value>(&format!("DEBUG POPULATE {count}"));
        // That command writes no replication history; this one does.
        self.run::<Value>("SET filled yes");
    }

    /// A field of its answer to `INFO`.
    pub fn info(&self, field: &str) -> String {
        let info = self.try_run::<String>("INFO").unwrap_or_default();
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }

    /// What it is: `master` or `slave`.
    pub fn role(&self) -> String {
        self.info("role")
    }

    /// Waits until it answers commands.
    pub fn wait_until_it_answers(&self) {
        wait::until(&format!("redis on port {} answers", self.port), || {
            self.try_run::<String>("PING").is_ok()
        });
    }

    /// Waits until its link to the primary is up.
    pub fn wait_until_in_sync(&self) {
        wait::until(&format!("the replica on port {} is in sync", self.port), || {
            self.info("master_link_status") == "up"
        });
    }

    /// Waits until its link to the primary is down.
    pub fn wait_until_link_is_down(&self) {
        wait::until(&format!("the replica on port {} lost its primary", self.port), || {
            self.info("master_link_status") == "down"
        });
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            child.kill().ok();
            child.wait().expect("wait for redis");
        }
    }

    /// Stops its process without ending it.
    pub fn freeze(&self) {
        kill(self.pid(), Signal::SIGSTOP).expect("SIGSTOP");
    }

    /// Lets its process go on.
    pub fn thaw(&self) {
        kill(self.pid(), Signal::SIGCONT).expect("SIGCONT");
    }

    /// Starts it again with the same configuration and data.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        self.wait_until_it_answers();
    }

    /// The same without waiting.
    pub fn restart_and_do_not_wait(&mut self) {
        self.kill();
        self.spawn();
    }

    fn pid(&self) -> Pid {
        let id = self.child.as_ref().expect("it runs").id();
        Pid::from_raw(id.try_into().expect("a process id"))
    }

    fn spawn(&mut self) {
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
    }
}

/// A Sentinel that watches a server.
pub struct Sentinel {
    _dir: TempDir,
    child: Child,
}

impl Sentinel {
    /// Starts one.
    pub fn watch(server: &Redis) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let lines = format!(
            "port {}\nbind 127.0.0.1\nlogfile sentinel.log\ndir {}\n\
             sentinel monitor watched 127.0.0.1 {} 1\n",
            free_port(),
            dir.path().display(),
            server.port
        );
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, lines).expect("write sentinel.conf");
        let child = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self { _dir: dir, child }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().expect("wait for the sentinel");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
