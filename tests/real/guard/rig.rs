//! A host with a group in paired mode, and somebody who takes its lease as the supervisor would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use understudy::adapters::guard::protocol::Report;
use understudy::adapters::guard::tenure::Tenure;
use understudy::adapters::guard::{self, GuardError, names};
use understudy::config::settings::PairedTimers;
use understudy::engine::observation::{Epoch, Nonce, Token};
use understudy::files::Boot;
use understudy::time::BootTime;

use crate::support::bus::Container;
use crate::support::postgres::Postgres;
use crate::support::stage::{FIRST, bare_host, done, install, printed, shell, write};
use crate::support::wait::until;

/// Short timers, so that a test takes seconds.
pub const TIMERS: PairedTimers = PairedTimers {
    renew: Duration::from_millis(250),
    fence_after: Duration::from_millis(1500),
    stop_within: Duration::from_millis(1500),
    pause_max: Duration::ZERO,
};

/// Notes the time every few milliseconds, by the clock that the guard goes by, and where it is told
/// to, that it was asked to end.
const BOT: &str = r#"
use Time::HiRes qw(clock_gettime usleep);
$| = 1;
open(my $beats, '>>', "/beats/$ARGV[0]") or die; select($beats); $| = 1;
$SIG{TERM} = sub { print "TERM\n"; exit 0 unless $ARGV[1] eq 'stubborn' };
while (1) { printf "%.6f\n", clock_gettime(7); usleep(5000); }
"#;

/// A host.
pub struct Rig {
    pub host: Container,
    pub postgres: Postgres,
    pub group: String,
}

impl Rig {
    /// One whose group `trading` has the units `bot.service` and `other.service`, and is protected.
    pub async fn protected() -> Self {
        let rig = Self::of_group("trading").await;
        rig.protect();
        rig
    }

    /// The same without protection, for a group of any name.
    pub async fn of_group(group: &str) -> Self {
        let postgres = Postgres::start().await;
        postgres.create_bot_status().await;
        let host = Container::own();
        let rig = Self { host, postgres, group: group.to_owned() };
        rig.install();
        done(&rig.host, "understudy setup");
        rig
    }

    /// With the package instead of the bare program.
    pub async fn of_package() -> Self {
        let postgres = Postgres::start().await;
        postgres.create_bot_status().await;
        let rig = Self { host: bare_host("a"), postgres, group: "trading".to_owned() };
        install(&rig.host, FIRST);
        rig.furnish();
        done(
            &rig.host,
            "install -d -o understudy -g understudy /run/understudy /var/lib/understudy",
        );
        done(&rig.host, "systemctl daemon-reload; understudy setup");
        rig.protect();
        rig
    }

    /// What the tests need besides the program.
    fn furnish(&self) {
        write(&self.host, "/usr/local/lib/bot.pl", BOT);
        fs::create_dir(self.host.root.join("beats")).unwrap();
        // systemd hands it to the guard, but not to its condition.
        write(&self.host, "/etc/understudy/credentials/store-password", "secret\n");
        done(
            &self.host,
            "chmod 700 /etc/understudy/credentials; chmod 600 /etc/understudy/credentials/*",
        );
        self.bot("bot", "polite", "");
        self.bot("other", "polite", "");
        self.configure("");
    }

    fn install(&self) {
        let host = &self.host;
        let program = host.root.join("usr/bin/understudy");
        fs::copy(env!("CARGO_BIN_EXE_understudy"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        for unit in ["understudy.service", "understudy-lease@.service"] {
            let text = fs::read_to_string(here.join(unit)).unwrap();
            write(host, &format!("/lib/systemd/system/{unit}"), &text);
        }
        self.furnish();
        done(host, "useradd --system understudy; chgrp -R understudy /etc/understudy");
        done(host, "install -d -o understudy -g understudy /run/understudy /var/lib/understudy");
        done(host, "mkdir -p /etc/understudy/credentials; systemctl daemon-reload");
    }

    /// Writes a unit of a bot with more lines in its section.
    pub fn bot(&self, name: &str, manner: &str, lines: &str) {
        let text = format!(
            "[Service]\nExecStart=/usr/bin/perl /usr/local/lib/bot.pl {name} {manner}\n\
             Restart=always\nRestartSec=100ms\nTimeoutStopSec=90s\n{lines}\n"
        );
        write(&self.host, &format!("/etc/systemd/system/{name}.service"), &text);
    }

    /// Writes the configuration, with more lines in the table of the group.
    pub fn configure(&self, lines: &str) {
        let text = format!(
            "node = \"a\"\n\
             [store]\nhosts = [\"127.0.0.1:{port}\"]\ndatabase = \"postgres\"\nuser = \"postgres\"\n\
             tls = \"off\"\npassword = {{ credential = \"store-password\" }}\n\
             [http]\nlisten = []\n\
             [paired]\nrenew = \"250ms\"\nfence_after = \"1500ms\"\nstop_within = \"1500ms\"\n\
             [group.{group}]\nmode = \"paired\"\nnodes = [\"a\", \"b\"]\n\
             bots = [\"equity\"]\nunits = [\"bot.service\", \"other.service\"]\n{lines}\n",
            port = self.postgres.port(),
            group = self.group,
        );
        write(&self.host, "/etc/understudy/understudy.toml", &text);
    }

    /// Binds the units to the guard.
    pub fn protect(&self) {
        done(&self.host, &format!("understudy protect {}", self.group));
    }

    /// Takes the lease for this node, as the store grants it, and hands it to a guard.
    pub async fn take(&self) -> Token {
        let token = self.lease("a").await;
        self.hand_to_guard(token);
        token
    }

    /// Starts a guard for a tenure, and waits until it holds the lease.
    pub fn hand_to_guard(&self, token: Token) {
        self.note(token, BootTime::now());
        self.succeeds(&format!("systemctl start '{}'", self.guard()));
        assert_eq!(self.property(&self.guard(), "ActiveState"), "active", "{}", self.journal());
    }

    fn succeeds(&self, line: &str) {
        let output = self.shell(line);
        assert!(output.status.success(), "{line}: {}\n{}", printed(&output), self.journal());
    }

    /// Writes down a tenure that was asked for at `asked`, as the supervisor does.
    pub fn note(&self, token: Token, asked: BootTime) {
        let tenure = Tenure::new(&self.group, "a", token, &self.boot(), asked);
        tenure.write(&self.host.root.join("var/lib/understudy")).unwrap();
        done(&self.host, "chown -R understudy: /var/lib/understudy");
    }

    /// As it is to the processes of the host.
    fn boot(&self) -> Boot {
        let mark = self.runtime_dir().join("boot");
        if !mark.exists() {
            fs::write(&mark, "this").unwrap();
            done(&self.host, "chown understudy: /run/understudy/boot");
        }
        // Services have a /proc of their own, in which a container's boot is that of the machine.
        let kernel = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        Boot::of(&format!("{} {}", kernel.trim(), fs::read_to_string(&mark).unwrap()))
    }

    /// Has the store grant the lease to a node, in a new tenure.
    pub async fn lease(&self, node: &str) -> Token {
        let ttl = TIMERS.dead_by().as_millis();
        let sql = format!(
            "WITH l AS (
               UPDATE understudy.lease SET epoch = epoch + 1, holder = '{node}', seq = 0,
                 nonce = gen_random_uuid(), ttl_ms = {ttl}, offered_to = NULL,
                 changed_at = clock_timestamp()
               WHERE grp = '{group}' RETURNING *),
             f AS (
               UPDATE understudy.fence f SET epoch = l.epoch, holder = l.holder, nonce = l.nonce
                 FROM l WHERE l.grp = f.grp)
             SELECT epoch, nonce FROM l",
            group = self.group
        );
        let rows = self.postgres.rows(&sql).await;
        let nonce = rows[0][1].replace('-', "");
        Token {
            epoch: Epoch(rows[0][0].parse().unwrap()),
            nonce: Nonce(u128::from_str_radix(&nonce, 16).unwrap()),
        }
    }

    /// Where the guard answers, seen from here.
    pub fn runtime_dir(&self) -> PathBuf {
        self.host.root.join("run/understudy")
    }

    /// What the guard says of itself.
    pub async fn state(&self) -> Result<Report, GuardError> {
        guard::state(&self.runtime_dir(), &self.group).await
    }

    /// The unit of the guard.
    pub fn guard(&self) -> String {
        names::guard_unit(&self.group)
    }

    /// Starts the bots and waits until both beat.
    pub fn start_bots(&self) {
        self.succeeds("systemctl start bot other");
        for bot in ["bot", "other"] {
            until(&format!("{bot} to beat"), || self.last_beat(bot).is_some());
        }
    }

    /// When a bot last gave a sign of life.
    pub fn last_beat(&self, bot: &str) -> Option<BootTime> {
        let text = fs::read_to_string(self.host.root.join("beats").join(bot)).ok()?;
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let seconds = complete.lines().rev().find_map(|line| line.parse::<f64>().ok())?;
        Some(BootTime::from_duration(Duration::from_secs_f64(seconds)))
    }

    /// How often a bot was asked to end.
    pub fn asked(&self, bot: &str) -> usize {
        let text = fs::read_to_string(self.host.root.join("beats").join(bot)).unwrap_or_default();
        text.lines().filter(|line| *line == "TERM").count()
    }

    /// Whether a process is left in the slice of the group.
    pub fn anything_runs(&self) -> bool {
        let path = names::slice_path(&self.group).join("cgroup.events");
        let inside = self.host.root.join(path.strip_prefix("/").unwrap());
        fs::read_to_string(inside).is_ok_and(|text| text.contains("populated 1"))
    }

    /// Waits until no process of the group is left, and asserts that the last sign of life came within
    /// the budget of the last renewal. Says how long after it that was.
    pub fn assert_dead_in_time(&self, granted: BootTime) -> Duration {
        until("the bots to be dead", || !self.anything_runs());
        let last = ["bot", "other"].iter().filter_map(|bot| self.last_beat(bot)).max().unwrap();
        let took = last.since(granted);
        eprintln!(
            "last sign of life {took:?} after the last renewal; budget {:?}",
            TIMERS.dead_by()
        );
        assert!(took <= TIMERS.dead_by(), "{took:?} after the last renewal\n{}", self.journal());
        took
    }

    /// What the guard, the bots and the gate said.
    pub fn journal(&self) -> String {
        printed(&shell(
            &self.host,
            "journalctl --no-pager -o short-precise | grep -A999 'Startup finished'",
        ))
    }

    /// Whether the journal has an event, in so many entries.
    pub fn events(&self, name: &str) -> usize {
        let line = format!("journalctl --no-pager -o cat UNDERSTUDY_EVENT={name}");
        printed(&shell(&self.host, &line)).lines().count()
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.host.run(&["systemctl", "show", "--value", "--property", name, unit])
    }

    /// Sends a signal to the guard.
    pub fn signal_guard(&self, signal: &str) {
        let pid = self.property(&self.guard(), "MainPID");
        self.host.run(&["kill", &format!("-{signal}"), &pid]);
    }

    /// Runs a line of shell that may fail.
    pub fn shell(&self, line: &str) -> Output {
        shell(&self.host, line)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.host.down();
    }
}

/// The systemd of a host, which stands still until this is dropped.
pub struct FrozenSystemd(Pid);

impl FrozenSystemd {
    pub fn of(host: &Container) -> Self {
        let root = host.root.to_string_lossy().into_owned();
        let pid = root.trim_start_matches("/proc/").split('/').next().unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        let stat = format!("/proc/{pid}/stat");
        until("systemd to stand still", || fs::read_to_string(&stat).unwrap().contains(") T "));
        Self(Pid::from_raw(pid))
    }
}

impl Drop for FrozenSystemd {
    fn drop(&mut self) {
        let _ended = kill(self.0, Signal::SIGCONT);
    }
}

/// Listens to a guard, so that the last renewal is known when it is gone.
pub struct Listener(tokio::task::JoinHandle<Vec<Report>>);

impl Listener {
    pub async fn to(rig: &Rig) -> Self {
        let mut reports = guard::watch(&rig.runtime_dir(), &rig.group).await.unwrap();
        let first = reports.next().await.expect("it says at once how it is");
        Self(tokio::spawn(async move {
            let mut seen = vec![first];
            while let Some(report) = reports.next().await {
                seen.push(report);
            }
            seen
        }))
    }

    /// All that it said, after it is gone.
    pub async fn heard(self) -> Vec<Report> {
        tokio::time::timeout(Duration::from_secs(30), self.0)
            .await
            .expect("the guard is gone")
            .expect("the listener listens")
    }

    /// When the last granted renewal was sent.
    pub async fn last_granted(self) -> BootTime {
        let heard = self.heard().await;
        heard.iter().filter_map(|report| report.confirmed_ns).max().expect("it was granted once")
    }
}
