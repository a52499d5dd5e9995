//! The same death, noticed and answered by understudy and by what people use instead: Redis Sentinel,
//! keepalived with a script, and a loop in the shell.
//!
//! The fault: the primary's bots and its Redis are killed in the same instant. Answered means that the
//! replica takes writes and the unit runs. Everybody has a timeout of 3 s and looks every second, as
//! far as they know such a thing. What they do not do is in the last column: none of the others knows
//! whether the bots live, keeps two standbys apart, or refuses an empty replica.

#![allow(clippy::unwrap_used, reason = "a measurement whose surroundings fail has failed")]
#![allow(clippy::expect_used, reason = "the same")]
#![allow(clippy::print_stdout, reason = "its result")]
#![allow(clippy::print_stderr, reason = "its progress")]

mod common;
#[allow(dead_code, reason = "made for the tests, which need more of it")]
#[path = "../tests/real/support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use support::bus::Container;
use support::daemon::{Scene, Standby, comes_true, until};
use support::redis::free_port;
use understudy::time::BootTime;

use common::{Cost, Figures, Report, number};

/// Deaths for each peer.
const RUNS: u64 = 5;

/// How long a peer is left alone to see what it costs.
const IDLE: Duration = Duration::from_secs(10);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Understudy,
    Sentinel,
    Keepalived,
    Loop,
}

impl Peer {
    const ALL: [Self; 4] = [Self::Understudy, Self::Sentinel, Self::Keepalived, Self::Loop];

    const fn name(self) -> &'static str {
        match self {
            Self::Understudy => "understudy, timeout 3 s, interval 1 s",
            Self::Sentinel => "Redis Sentinel × 3, down-after 3 s",
            Self::Keepalived => "keepalived, advert 1 s, with a script",
            Self::Loop => "loop in the shell, every second",
        }
    }

    const fn lacks(self) -> &'static str {
        match self {
            Self::Understudy => "",
            Self::Sentinel => "does not see the bots",
            Self::Keepalived => "sees the host only, no lease",
            Self::Loop => "no window, lease, fence, verification or history",
        }
    }
}

fn main() {
    let runs = number("UNDERSTUDY_BENCH_RUNS", RUNS);
    let heads = ["", "fault → done s", "min", "max", "n", "RSS MiB", "CPU s/h", "lacks"];
    let mut report = Report::new("peers", &heads);
    for peer in Peer::ALL {
        eprintln!("peers: {}, {runs} runs", peer.name());
        let mut costs = None;
        let mut took = Vec::new();
        for run in 0..runs {
            let (seconds, cost) = one(peer, run);
            took.push(seconds);
            costs = costs.or(cost);
        }
        let took = Figures::of(took);
        let (rss, cpu) = costs.unwrap();
        report.row(
            peer.name(),
            vec![
                format!("{:.2}", took.median),
                format!("{:.2}", took.min()),
                format!("{:.2}", took.max()),
                runs.to_string(),
                format!("{rss:.1}"),
                format!("{cpu:.1}"),
                peer.lacks().to_owned(),
            ],
        );
        let key = format!("{peer:?}").to_lowercase();
        report.json(&key, json!({ "seconds": took.json(), "rss_mib": rss, "cpu_s_per_hour": cpu }));
    }
    report.finish();
}

/// One death: seconds until it is answered, and in the first run what the peer costs while idle.
fn one(peer: Peer, run: u64) -> (f64, Option<(f64, f64)>) {
    let mut scene = Scene::new();
    let mut standby = scene.standby().one_bot().ready();
    let at_work = At::work(peer, &scene, &mut standby);
    let cost = (run == 0).then(|| at_work.cost(&standby));
    // At no fixed phase of anybody's second.
    thread::sleep(Duration::from_millis(137 * (run + 1) % 1_000));
    let begun = BootTime::now();
    scene.silence(&standby);
    scene.redis.kill();
    if let Some(primary) = &at_work.primary {
        primary.kill();
    }
    let unit = standby.path(&format!("{}.runs", standby.bots[0]));
    let redis = standby.redis();
    let writable = || redis.try_run::<String>("SET peers 1").is_ok();
    assert!(comes_true(PATIENCE, || unit.exists() && writable()), "{peer:?} did not answer");
    (BootTime::now().since(begun).as_secs_f64(), cost)
}

/// A peer at work.
struct At {
    /// Its processes on the standby.
    processes: Vec<Process>,
    /// Its process on the primary, which dies with it.
    primary: Option<Process>,
    _network: Option<Network>,
}

impl At {
    fn work(peer: Peer, scene: &Scene, standby: &mut Standby) -> Self {
        match peer {
            Peer::Understudy => {
                standby.start();
                standby.wait_until_watching();
                Self { processes: Vec::new(), primary: None, _network: None }
            }
            Peer::Sentinel => sentinels(scene, standby),
            Peer::Keepalived => keepalived(standby),
            Peer::Loop => shell_loop(scene, standby),
        }
    }

    /// MiB and processor seconds per hour, of all processes.
    fn cost(&self, standby: &Standby) -> (f64, f64) {
        let pids = || -> Vec<i32> {
            match self.processes.as_slice() {
                [] => vec![standby.pid().as_raw()],
                processes => processes.iter().flat_map(Process::all).collect(),
            }
        };
        thread::sleep(Duration::from_secs(2));
        let known = pids();
        let before: Vec<Cost> = known.iter().map(|pid| Cost::of(*pid)).collect();
        thread::sleep(IDLE);
        let after: Vec<Cost> = known.iter().map(|pid| Cost::of(*pid)).collect();
        let rss: u64 = after.iter().map(|cost| cost.rss_kib).sum();
        let load: f64 = after.iter().zip(&before).map(|(after, before)| after.load(before)).sum();
        (rss as f64 / 1024.0, load * 3600.0)
    }
}

/// A process in a group of its own, which ends with this.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.process_group(0).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    fn kill(&self) {
        let _gone = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
    }

    /// It and its children that stay.
    fn all(&self) -> Vec<i32> {
        let pid = self.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace().map(|child| child.parse().unwrap());
        let lasting = children.filter(|child| {
            // A loop's children come and go.
            thread::sleep(Duration::from_millis(200));
            Path::new(&format!("/proc/{child}")).exists()
        });
        std::iter::once(pid).chain(lasting).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
    }
}

/// A script that makes the standby the primary, from wherever it is called.
fn promotion(standby: &Standby) -> PathBuf {
    let container = Container::shared();
    let pid1 = container.root.components().nth(2).unwrap().as_os_str().to_str().unwrap().to_owned();
    let inside = format!("nsenter --target {pid1} --mount --uts --ipc --net --pid --cgroup");
    script(
        standby,
        "promote",
        &format!(
            "nsenter --net=/proc/{own}/ns/net redis-cli -p {port} REPLICAOF NO ONE\n\
             mkdir -p {run}\ntouch {environment}\n\
             {inside} systemctl start {unit}\n",
            own = std::process::id(),
            port = standby.redis().port,
            run = standby.path("run").display(),
            environment = standby.environment_file().display(),
            unit = standby.units[0].name(),
        ),
    )
}

fn script(standby: &Standby, name: &str, text: &str) -> PathBuf {
    let path = standby.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What people write: ask for the age, and act when it is too great.
fn shell_loop(scene: &Scene, standby: &Standby) -> At {
    let promote = promotion(standby);
    let (socket, port) = (scene.postgres.socket_directory().display(), scene.postgres.port());
    let path = script(
        standby,
        "loop",
        &format!(
            "while :; do\n\
             age=$(psql -h {socket} -p {port} -U postgres -d postgres -At -c \"SELECT \
             floor(extract(epoch FROM NOW() - min(last_heartbeat))) FROM bot_status\")\n\
             [ \"$age\" -ge 3 ] && {promote} && exit 0\n\
             sleep 1\ndone\n",
            promote = promote.display()
        ),
    );
    At { processes: vec![Process::start(&mut Command::new(path))], primary: None, _network: None }
}

fn sentinels(scene: &Scene, standby: &Standby) -> At {
    let promote = promotion(standby);
    let processes: Vec<Process> = (0..3)
        .map(|number| {
            let path = standby.path(&format!("sentinel-{number}.conf"));
            let text = format!(
                "port {}\nbind 127.0.0.1\nprotected-mode no\n\
                 sentinel deny-scripts-reconfig yes\n\
                 sentinel monitor pair 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds pair 3000\n\
                 sentinel failover-timeout pair 10000\n\
                 sentinel client-reconfig-script pair {}\n",
                free_port(),
                scene.redis.port,
                promote.display()
            );
            fs::write(&path, text).unwrap();
            Process::start(Command::new("redis-server").arg(path).arg("--sentinel"))
        })
        .collect();
    until("the sentinels to know one another and the replica", || {
        (0..3).all(|number| {
            let path = standby.path(&format!("sentinel-{number}.conf"));
            let text = fs::read_to_string(path).unwrap();
            text.matches("sentinel known-sentinel").count() == 2
                && text.contains("sentinel known-replica")
        })
    });
    At { processes, primary: None, _network: None }
}

/// Two network namespaces with a wire between them.
struct Network {
    names: [String; 2],
}

impl Network {
    fn new() -> Self {
        let names = ["a", "b"].map(|side| format!("bench-{}-{side}", std::process::id()));
        for name in &names {
            ip(&["netns", "add", name]);
        }
        let [a, b] = &names;
        ip(&["-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b]);
        for (name, address) in names.iter().zip(["10.99.0.1/24", "10.99.0.2/24"]) {
            ip(&["-n", name, "address", "add", address, "dev", "wire"]);
            ip(&["-n", name, "link", "set", "wire", "up"]);
        }
        Self { names }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).status().unwrap();
    assert!(done.success(), "ip {arguments:?}");
}

fn keepalived(standby: &Standby) -> At {
    let network = Network::new();
    let promote = promotion(standby);
    let nothing = script(standby, "nothing", "exit 0\n");
    let [primary, standby_side] = [0, 1].map(|side| {
        let (own, other) = (side + 1, 2 - side);
        let path = standby.path(&format!("keepalived-{side}.conf"));
        let notify = if side == 0 { &nothing } else { &promote };
        let text = format!(
            "global_defs {{\n  router_id n{side}\n  script_user root\n}}\n\
             vrrp_instance pair {{\n  state BACKUP\n  interface wire\n  virtual_router_id 51\n  \
             priority {}\n  advert_int 1\n  unicast_src_ip 10.99.0.{own}\n  \
             unicast_peer {{ 10.99.0.{other} }}\n  virtual_ipaddress {{ 10.99.0.9/24 }}\n  \
             notify_master \"{}\"\n}}\n",
            254 - side,
            notify.display()
        );
        fs::write(&path, text).unwrap();
        let pids = ["main", "vrrp"].map(|kind| standby.path(&format!("{kind}-{side}.pid")));
        let process = Process::start(
            Command::new("ip")
                .args(["netns", "exec", &network.names[side], "keepalived", "--dont-fork"])
                .arg("--vrrp")
                .arg("--use-file")
                .arg(path)
                .arg("--pid")
                .arg(&pids[0])
                .arg("--vrrp_pid")
                .arg(&pids[1]),
        );
        if side == 0 {
            until("the first keepalived to be master", || {
                let shown = Command::new("ip")
                    .args(["-n", &network.names[0], "address", "show", "dev", "wire"])
                    .output()
                    .unwrap();
                String::from_utf8_lossy(&shown.stdout).contains("10.99.0.9")
            });
        }
        process
    });
    // It hears the first adverts, so that it is a backup for certain.
    thread::sleep(Duration::from_secs(5));
    At { processes: vec![standby_side], primary: Some(primary), _network: Some(network) }
}
