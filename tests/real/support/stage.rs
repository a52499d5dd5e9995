//! What docs/operations.md is about: two hosts with a systemd each, the package for the standby, and
//! between them a Postgres, a Redis with its replica, and somebody who receives alerts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use super::bus::Container;
use super::daemon::{comes_true, now};
use super::http::{Answer, Http};
use super::postgres::Postgres;
use super::redis::Redis;
use super::wait::until;

/// How long something may take that takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bots of the group `trading`, and their units without suffix.
pub const BOTS: [&str; 2] = ["quantshift-equity", "quantshift-crypto"];

/// Secrets that must appear nowhere: the password for the store, the token in the address of the
/// webhook, the password of Redis.
pub const STORE_SECRET: &str = "canary-store-5d1f0c";
/// See [`STORE_SECRET`].
pub const HOOK_SECRET: &str = "canary-hook-b86e2a";
/// See [`STORE_SECRET`].
pub const REDIS_SECRET: &str = "canary-redis-90c4d7";

/// The first version of the package, as packaging/debian/changelog has it.
pub const FIRST: &str = "0.1.0-1";
/// One that it can be upgraded to.
pub const SECOND: &str = "0.1.0-2";

/// The package, built once for each version. Tests do not need what a release build adds to it.
pub fn package(version: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock();
    let mut build = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package"));
    build.args(["--profile", "quick"]);
    if version != FIRST {
        build.args(["--version", version]);
    }
    let built = build.output().unwrap();
    let said = String::from_utf8_lossy(&built.stdout);
    let why = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "no package: {said}{why}");
    PathBuf::from(said.lines().last().unwrap())
}

/// A host without anything on it, that apt asks no questions.
pub fn bare_host(name: &str) -> Container {
    let host = Container::own();
    host.run(&["hostname", name]);
    let apt = "APT::Get::Assume-Yes \"true\";\nAPT::Install-Recommends \"false\";\n\
               Dpkg::Options { \"--force-confold\"; };\n";
    let configuration = host.root.join("etc/apt/apt.conf.d");
    fs::write(configuration.join("99test"), apt).unwrap();
    // Neither looks at all programs nor at all pages after each installation.
    let _no_hook = fs::remove_file(configuration.join("99needrestart"));
    let _no_index = fs::remove_file(host.root.join("var/lib/man-db/auto-update"));
    host
}

/// Runs a line of shell as root, in its home directory.
pub fn shell(host: &Container, line: &str) -> Output {
    let home = ["HOME=/root", "DEBIAN_FRONTEND=noninteractive", "TERM=dumb"];
    host.try_run(&[&["env", "--chdir=/root"], &home[..], &["bash", "-c", line]].concat())
}

/// The same, which must succeed; returns what it printed, on both streams.
pub fn done(host: &Container, line: &str) -> String {
    let output = shell(host, line);
    let said = printed(&output);
    assert!(output.status.success(), "{line}: {}\n{said}\n{}", output.status, journal(host));
    said
}

/// What a command printed.
pub fn printed(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|stream| String::from_utf8_lossy(stream).into_owned()).concat()
}

/// The journal of understudy on a host.
pub fn journal(host: &Container) -> String {
    printed(&shell(host, "journalctl -u understudy --no-pager"))
}

/// Puts a version of the package into root's home directory, and returns its name there.
pub fn bring(host: &Container, version: &str) -> String {
    let package = package(version);
    let name = package.file_name().unwrap().to_str().unwrap().to_owned();
    fs::copy(&package, host.root.join("root").join(&name)).unwrap();
    name
}

/// Installs a version of the package; returns what was said.
pub fn install(host: &Container, version: &str) -> String {
    let name = bring(host, version);
    done(host, &format!("apt-get install ./{name}"))
}

/// Writes a file on a host.
pub fn write(host: &Container, path: &str, text: &str) {
    let path = host.root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Two hosts and what is between them. The bots beat on the primary.
pub struct Stage {
    pub primary: Container,
    pub standby: Container,
    pub postgres: Postgres,
    pub primary_redis: Redis,
    pub redis: Redis,
    pub webhook: Http,
}

impl Stage {
    /// understudy is not installed yet.
    pub fn new() -> Self {
        let (primary, standby) = (bare_host("trading-a"), bare_host("trading-b"));
        let postgres = now(async {
            let postgres = Postgres::options().scram().start().await;
            postgres.create_bot_status().await;
            postgres
        });
        let primary_redis = Redis::with().password(REDIS_SECRET).start();
        primary_redis.fill(200);
        let redis = Redis::with().password(REDIS_SECRET).replica_of(&primary_redis).start();
        redis.wait_until_in_sync();
        let webhook = Http::start(&[Answer::Status(204)]);
        let stage = Self { primary, standby, postgres, primary_redis, redis, webhook };
        for bot in BOTS {
            stage.write_bot(bot);
        }
        write(&stage.standby, "/root/postgres-password", "secret\n");
        let fence = "/usr/local/sbin/power-off";
        write(&stage.standby, fence, "#!/bin/sh\necho \"$1 is off\"\n");
        let fence = stage.standby.root.join(fence.trim_start_matches('/'));
        fs::set_permissions(fence, fs::Permissions::from_mode(0o755)).unwrap();
        done(&stage.primary, &format!("systemctl start {}", BOTS.join(" ")));
        until("the bots of the primary to beat", || {
            stage.value("SELECT count(*) FROM bot_status") == "2"
        });
        stage
    }

    /// The unit of a bot, on both hosts.
    fn write_bot(&self, bot: &str) {
        let programs = Path::new(env!("CARGO_BIN_EXE_understudy")).parent().unwrap();
        let text = format!(
            "[Service]\nEnvironmentFile=-/run/understudy/trading.env\n\
             ExecStart={}/examples/bot {bot} \
             'host=127.0.0.1 port={} dbname=postgres user=postgres password=secret' --interval 1s\n",
            programs.display(),
            self.postgres.port()
        );
        for host in [&self.primary, &self.standby] {
            write(host, &format!("/etc/systemd/system/{bot}.service"), &text);
            done(host, "systemctl daemon-reload");
        }
    }

    /// With the package installed and configured, and the daemon watching.
    pub fn watching() -> Self {
        let stage = Self::new();
        let host = &stage.standby;
        install(host, FIRST);
        stage.keep_secret("store-password", STORE_SECRET);
        stage.keep_secret("ops-webhook", &stage.hook());
        stage.keep_secret("redis-password", REDIS_SECRET);
        write(host, "/etc/understudy/understudy.toml.d/trading.toml", &stage.configuration());
        stage.sql(&format!("CREATE ROLE understudy LOGIN PASSWORD '{STORE_SECRET}'"));
        done(host, "understudy setup --user postgres --password-file /root/postgres-password");
        done(host, "systemctl enable --now understudy");
        stage.wait_until_ready();
        stage
    }

    fn configuration(&self) -> String {
        format!(
            "[watch]\ninterval = \"1s\"\ntimeout = \"4s\"\n\
             [store]\nhosts = [\"127.0.0.1:{}\"]\ndatabase = \"postgres\"\n\
             password = {{ credential = \"store-password\" }}\n\
             [group.trading]\nbots = [\"{}\", \"{}\"]\n\
             units = [\"{}.service\", \"{}.service\"]\nprimary = \"trading-a\"\nsettle = \"500ms\"\n\
             [group.trading.fence]\ncommand = [\"/usr/local/sbin/power-off\", \"trading-a\"]\n\
             [group.trading.redis]\naddress = \"127.0.0.1:{}\"\nprimary = \"127.0.0.1:{}\"\n\
             password = {{ credential = \"redis-password\" }}\n\
             [alert.ops]\nkind = \"webhook\"\nurl = {{ credential = \"ops-webhook\" }}\n",
            self.postgres.port(),
            BOTS[0],
            BOTS[1],
            BOTS[0],
            BOTS[1],
            self.redis.port,
            self.primary_redis.port,
        )
    }

    /// Where alerts go, with a token.
    pub fn hook(&self) -> String {
        format!("http://127.0.0.1:{}/{HOOK_SECRET}", self.webhook.port)
    }

    /// Puts a credential where the package wants it.
    pub fn keep_secret(&self, name: &str, secret: &str) {
        let line = format!("install -m 600 /dev/stdin /etc/understudy/credentials/{name}");
        done(&self.standby, &format!("{line} <<'END'\n{secret}\nEND"));
    }

    /// The bots of the primary fall silent.
    pub fn silence(&self) {
        done(&self.primary, &format!("systemctl stop {}", BOTS.join(" ")));
    }

    /// The status of the daemon on the standby, if it answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&shell(&self.standby, "understudy status --json").stdout).ok()
    }

    /// Waits until the standby could take over.
    pub fn wait_until_ready(&self) {
        self.wait_for("the standby to be ready", |group| {
            group["verdict"] == "fresh" && group["not_ready_because"] == serde_json::json!([])
        });
    }

    /// Waits until the group is active on the standby.
    pub fn wait_until_active(&self) {
        self.wait_for("the standby to have the group", |group| group["state"] == "active");
    }

    /// Waits until the daemon on the standby says something about the group.
    pub fn wait_for(&self, what: &str, so: impl Fn(&serde_json::Value) -> bool) {
        let came = comes_true(PATIENCE, || {
            let status = self.status();
            status.is_some_and(|status| so(&status["groups"][0]))
        });
        let (status, host) = (self.status().unwrap_or_default(), &self.standby);
        assert!(came, "waited {PATIENCE:?} for {what}: {status:#}\n{}", journal(host));
    }

    /// What systemd on the standby says about a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.standby.run(&["systemctl", "show", "--value", "--property", name, unit])
    }

    /// Runs statements as superuser.
    pub fn sql(&self, statements: &str) {
        now(self.postgres.sql(statements));
    }

    /// First column of the first row, as superuser.
    pub fn value(&self, query: &str) -> String {
        now(self.postgres.value(query))
    }
}
