//! The hosts as an operator would have set them up, once for all scenarios: servers configured, bots
//! installed, understudy installed by apt, configured and checked. Shut down in good order; each
//! scenario boots copies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::package::Package;
use super::rack::{Rack, SWITCH};
use super::servers::{PAGER_PORT, POWER_PORT};
use super::wait::get;

/// The hosts and their addresses.
pub const HOSTS: [(&str, &str); 3] =
    [("db", "10.77.0.1"), ("primary", "10.77.0.2"), ("standby", "10.77.0.3")];

/// The bots, which are also the names of their units.
pub const BOTS: [&str; 2] = ["quantshift-equity", "quantshift-crypto"];

/// Secrets, none of which may be seen anywhere. They are in this order: the store's, the bots', that
/// of both Redis, and the one in the address of the pager.
pub const SECRETS: [&str; 4] =
    ["canary-store-61b7", "canary-bots-90ce", "canary-redis-3fa2", "canary-pager-d845"];

/// Layers to boot hosts from.
pub struct Golden {
    /// Whose mounts a rack of a scenario has to see.
    pub rack: Rack,
    base: PathBuf,
}

impl Golden {
    /// Made by the first scenario that asks.
    pub fn get() -> &'static Self {
        // If it cannot be made, the other scenarios do not try again.
        static GOLDEN: LazyLock<Golden> = LazyLock::new(Golden::make);
        &GOLDEN
    }

    /// Layers of a host, the topmost first.
    pub fn layers(&self, host: &str) -> Vec<PathBuf> {
        vec![self.rack.written(host), self.base.clone()]
    }

    fn make() -> Self {
        let golden = Self { rack: Rack::new(None), base: base() };
        let rack = &golden.rack;
        std::thread::scope(|scope| {
            for (host, address) in HOSTS {
                let base = golden.base.clone();
                scope.spawn(move || {
                    rack.boot(host, &[base]);
                    join_network(rack, host, address);
                });
            }
        });
        set_up_db(rack);
        // As docs/operations.md says; the standby has to take writes without a replica.
        set_up_redis(rack, "primary", "min-replicas-to-write 1\nmin-replicas-max-lag 10\n");
        set_up_redis(rack, "standby", "replicaof primary 6379\n");
        for host in ["primary", "standby"] {
            install_bots(rack, host);
        }
        for bot in BOTS {
            rack.run("primary", &["systemctl", "enable", "--now", "--quiet", bot]);
        }
        Package::current().install(rack, "standby");
        configure_understudy(rack);
        // It does not run yet, and that is a warning.
        get("a check without faults", || {
            let output = rack.exec("standby", &["understudy", "check"]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if said.contains("FAULT") || said.is_empty() { Err(said) } else { Ok(()) }
        });
        for host in ["standby", "primary", "db"] {
            rack.shut_down(host);
            forget(rack, host);
            rack.detach(host);
        }
        golden
    }
}

/// The root of all hosts.
fn base() -> PathBuf {
    let testbed = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/testbed");
    let output =
        Command::new(testbed).args(["base", "host"]).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "no root for the hosts, see above");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn join_network(rack: &Rack, host: &str, address: &str) {
    let mut names = "127.0.0.1 localhost\n".to_owned();
    for (name, address) in HOSTS {
        names += &format!("{address} {name}\n");
    }
    write(rack, host, "/etc/hosts", 0o644, &names);
    // Without IPv6, whose search for duplicate addresses takes longer than all the rest of a boot.
    let network = format!(
        "[Match]\nName=host0\n\
         [Network]\nAddress={address}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    );
    write(rack, host, "/etc/systemd/network/10-host0.network", 0o644, &network);
    rack.run(host, &["networkctl", "reload"]);
    rack.run(host, &["networkctl", "reconfigure", "host0"]);
    rack.run(host, &["/lib/systemd/systemd-networkd-wait-online", "--timeout=60"]);
}

fn set_up_db(rack: &Rack) {
    let [store, bots, ..] = SECRETS;
    rack.run("db", &["pg_createcluster", "15", "main", "--start-conf=auto"]);
    let settings = "/etc/postgresql/15/main/conf.d/cluster.conf";
    write(rack, "db", settings, 0o644, "listen_addresses = '*'\n");
    let access = fs::read_to_string(rack.path("db", "/etc/postgresql/15/main/pg_hba.conf"));
    let access = access.unwrap() + "host all all 10.77.0.0/24 scram-sha-256\n";
    fs::write(rack.path("db", "/etc/postgresql/15/main/pg_hba.conf"), access).unwrap();
    rack.run("db", &["systemctl", "enable", "--now", "--quiet", "postgresql.service"]);
    for statement in [
        "CREATE DATABASE trading".to_owned(),
        format!("CREATE ROLE bots LOGIN PASSWORD '{bots}'"),
        format!("CREATE ROLE understudy LOGIN PASSWORD '{store}'"),
    ] {
        psql(rack, "postgres", &statement);
    }
    psql(
        rack,
        "trading",
        "CREATE TABLE bot_status (
           id text PRIMARY KEY, bot_name text UNIQUE NOT NULL, status text NOT NULL,
           last_heartbeat timestamp(3) NOT NULL, account_equity double precision,
           buying_power double precision, cash double precision, portfolio_value double precision,
           positions_count integer, total_trades integer, winning_trades integer,
           daily_pnl double precision, total_pnl double precision, win_rate double precision,
           uptime_seconds integer, cpu_percent double precision, memory_mb double precision,
           version text, error_message text, created_at timestamp(3), updated_at timestamp(3));
         GRANT SELECT, INSERT, UPDATE ON bot_status TO bots",
    );
}

fn set_up_redis(rack: &Rack, host: &str, replication: &str) {
    let [_, _, password, _] = SECRETS;
    let path = rack.path(host, "/etc/redis/redis.conf");
    let packaged = fs::read_to_string(&path).unwrap();
    let own = format!(
        "bind 0.0.0.0\nrequirepass {password}\nmasterauth {password}\nappendonly yes\n\
         repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n{replication}"
    );
    fs::write(path, packaged + "\n" + &own).unwrap();
    rack.run(host, &["systemctl", "enable", "--now", "--quiet", "redis-server.service"]);
}

fn install_bots(rack: &Rack, host: &str) {
    let [_, bots, redis, _] = SECRETS;
    let bot = Path::new(env!("CARGO_BIN_EXE_understudy")).with_file_name("examples").join("bot");
    fs::copy(&bot, rack.path(host, "/usr/local/bin/bot"))
        .unwrap_or_else(|error| panic!("{}: {error}: cargo build --examples", bot.display()));
    rack.run(host, &["useradd", "--system", "trading"]);
    let environment = format!(
        "BOT_DSN=host=db dbname=trading user=bots password={bots}\n\
         BOT_REDIS=redis://:{redis}@127.0.0.1\n"
    );
    write(rack, host, "/etc/trading/bot.env", 0o600, &environment);
    for bot in BOTS {
        let unit = format!(
            "[Unit]\n\
             Description=Trading bot {bot}\n\
             Wants=network-online.target\n\
             After=network-online.target redis-server.service\n\
             [Service]\n\
             User=trading\n\
             StateDirectory=trading\n\
             EnvironmentFile=/etc/trading/bot.env\n\
             EnvironmentFile=-/run/understudy/trading.env\n\
             ExecStart=/usr/local/bin/bot {bot} --interval 1s --activity /var/lib/trading/acts\n\
             [Install]\n\
             WantedBy=multi-user.target\n"
        );
        write(rack, host, &format!("/etc/systemd/system/{bot}.service"), 0o644, &unit);
    }
    rack.run(host, &["systemctl", "daemon-reload"]);
}

fn configure_understudy(rack: &Rack) {
    let [store, _, redis, pager] = SECRETS;
    let pager = format!("http://{SWITCH}:{PAGER_PORT}/{pager}");
    for (name, secret) in
        [("store-password", store), ("redis-password", redis), ("pager-url", pager.as_str())]
    {
        let path = format!("/etc/understudy/credentials/{name}");
        write(rack, "standby", &path, 0o600, secret);
    }
    let units = BOTS.map(|bot| format!("{bot}.service"));
    let configuration = format!(
        "[watch]\ninterval = \"1s\"\ntimeout = \"3s\"\nblind_after = \"5s\"\n\
         [store]\nhosts = [\"db:5432\"]\ndatabase = \"trading\"\ntls = \"off\"\n\
         password = {{ credential = \"store-password\" }}\n\
         [group.trading]\nbots = {BOTS:?}\nunits = {units:?}\nprimary = \"primary\"\n\
         settle = \"2s\"\n\
         [group.trading.fence]\ncommand = [\"/usr/local/sbin/power-off\", \"primary\"]\n\
         [group.trading.redis]\nprimary = \"primary:6379\"\n\
         password = {{ credential = \"redis-password\" }}\n\
         [alert.pager]\nkind = \"webhook\"\nurl = {{ credential = \"pager-url\" }}\n"
    );
    write(rack, "standby", "/etc/understudy/understudy.toml.d/cluster.toml", 0o644, &configuration);
    // As a fence command does it that asks a power switch, without a client program for HTTP.
    let power_off = format!(
        "#!/bin/bash\nset -e\nexec 3<>/dev/tcp/{SWITCH}/{POWER_PORT}\n\
         printf 'POST /%s HTTP/1.1\\r\\n\\r\\n' \"$1\" >&3\n\
         read -r _ code _ <&3\n[[ $code == 204 ]]\n"
    );
    write(rack, "standby", "/usr/local/sbin/power-off", 0o755, &power_off);
    // As is done where another person has the database.
    let sql = rack.run("standby", &["understudy", "setup", "--print"]);
    psql(rack, "trading", &sql);
}

/// Takes away what a host remembers of its setting up, so that each scenario sees only its own.
fn forget(rack: &Rack, host: &str) {
    for directory in ["/var/log/journal", "/var/lib/trading"] {
        let Ok(entries) = fs::read_dir(rack.path(host, directory)) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
    }
}

/// Runs SQL as the superuser of the database, stopping at the first error.
pub fn psql(rack: &Rack, database: &str, sql: &str) -> String {
    use std::io::Write as _;
    let command = ["runuser", "-u", "postgres", "--", "psql", "-X", "-q", "-A", "-t"];
    let more = ["-v", "ON_ERROR_STOP=1", "-d", database];
    let mut psql = rack
        .command("db", &[&command[..], &more[..]].concat())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = psql.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Writes a file on a host, with the directories above it.
pub fn write(rack: &Rack, host: &str, path: &str, mode: u32, text: &str) {
    let path = rack.path(host, path);
    let directory = path.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}
