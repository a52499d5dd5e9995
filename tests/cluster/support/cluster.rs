//! Three hosts for one scenario, and what can be asked of them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::golden::{self, BOTS, Golden, HOSTS, SECRETS};
use super::journal::{self, Entry};
use super::package::Package;
use super::rack::Rack;
use super::servers::{Pager, Power};
use super::wait::{get, until};

/// So many clusters at once: one waits for clocks most of the time, so another may work meanwhile.
const CLUSTERS_MAX: usize = 3;

/// Three hosts of which the bots of one beat, and the standby's understudy could take over.
pub struct Cluster {
    name: &'static str,
    rack: Arc<Rack>,
    /// Takes the alerts.
    pub pager: Pager,
    /// The power switch of the hosts.
    pub power: Power,
    /// What the scenario did, with times.
    steps: Mutex<Vec<(u64, String)>>,
    _permit: Permit,
}

impl Cluster {
    /// Boots the hosts.
    pub fn start(name: &'static str) -> Self {
        Self::start_with(name, "")
    }

    /// Boots the hosts, with a drop-in for the configuration of understudy.
    pub fn start_with(name: &'static str, configuration: &str) -> Self {
        let cluster = Self::boot(name);
        if !configuration.is_empty() {
            let path = "/etc/understudy/understudy.toml.d/scenario.toml";
            golden::write(&cluster.rack, "standby", path, 0o644, configuration);
        }
        cluster.first_start();
        cluster
    }

    /// Boots the hosts, and does not start understudy yet.
    pub fn boot(name: &'static str) -> Self {
        let golden = Golden::get();
        let permit = Permit::get();
        let rack = Arc::new(Rack::new(Some(&golden.rack)));
        let pager = Pager::start(&rack);
        let power = Power::start(&rack);
        let steps = Mutex::default();
        let cluster = Self { name, rack, pager, power, steps, _permit: permit };
        std::thread::scope(|scope| {
            for (host, _) in HOSTS {
                let rack = &cluster.rack;
                scope.spawn(move || rack.boot(host, &golden.layers(host)));
            }
        });
        cluster.step("the hosts are booted");
        cluster
    }

    /// What an operator does once the bots beat.
    pub fn first_start(&self) {
        let start = self.beats();
        until("the bots of the primary to beat", || moved(&start, &self.beats(), 2));
        self.run("standby", "systemctl enable --now --quiet understudy.service");
        self.wait_until_ready();
        self.step("understudy is ready");
    }

    // ---- what happens ----

    /// Notes something for the timeline.
    pub fn step(&self, what: &str) {
        self.steps.lock().unwrap().push((now_us(), what.to_owned()));
    }

    /// Runs a command line of plain words, which must succeed.
    pub fn run(&self, host: &str, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        self.rack.run(host, &words)
    }

    /// Installs a package on a host.
    pub fn install(&self, package: &Package, host: &str) {
        package.install(&self.rack, host);
    }

    /// Takes the power from a host.
    pub fn kill(&self, host: &str) {
        self.step(&format!("the power of {host} goes"));
        self.rack.kill(host);
    }

    /// Boots a host again that is off.
    pub fn boot_again(&self, host: &str) {
        self.step(&format!("{host} boots again"));
        self.rack.boot(host, &[]);
    }

    /// Reboots a host in good order.
    pub fn reboot(&self, host: &str) {
        self.step(&format!("{host} reboots"));
        self.rack.reboot(host);
    }

    /// Stops all processes of a host where they are.
    pub fn freeze(&self, host: &str) {
        self.step(&format!("{host} freezes"));
        self.rack.freeze(host, true);
    }

    /// Lets them go on.
    pub fn thaw(&self, host: &str) {
        self.step(&format!("{host} thaws"));
        self.rack.freeze(host, false);
    }

    /// No packet gets through between two hosts any more.
    pub fn cut(&self, one: &str, other: &str) {
        self.step(&format!("nothing gets through between {one} and {other}"));
        let address = |host| HOSTS.iter().find(|(name, _)| *name == host).unwrap().1;
        self.rack.cut(Some((address(one), address(other))));
    }

    /// Everything gets through again.
    pub fn heal(&self) {
        self.step("everything gets through again");
        self.rack.cut(None);
    }

    /// A host's disk, whether it is on or off.
    pub fn path(&self, host: &str, path: &str) -> PathBuf {
        self.rack.path(host, path)
    }

    // ---- what is so ----

    /// Whether a host is on.
    pub fn is_on(&self, host: &str) -> bool {
        self.rack.is_on(host)
    }

    /// What SQL says, as a superuser on the database's own host.
    pub fn sql(&self, sql: &str) -> String {
        golden::psql(&self.rack, "trading", sql)
    }

    /// `status --json` of the group on the standby, if its daemon runs.
    pub fn status(&self) -> Option<Value> {
        let output = self.rack.exec("standby", &["understudy", "status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["groups"].get(0).cloned()
    }

    /// Waits until the group is in a state on the standby.
    pub fn wait_for_state(&self, state: &str) {
        self.wait_for_status(state, |group| group["state"] == state);
    }

    /// Waits until the standby watches, and could take over.
    pub fn wait_until_ready(&self) {
        self.wait_for_status("a standby that is ready", |group| {
            group["state"] == "standby"
                && group["verdict"] == "fresh"
                && group["not_ready_because"].as_array().is_some_and(Vec::is_empty)
        });
    }

    /// Waits until the status of the group on the standby is like this.
    pub fn wait_for_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        get(what, || match self.status() {
            Some(group) if is_so(&group) => Ok(()),
            _ => Err(self.told()),
        });
    }

    fn told(&self) -> String {
        let output = self.rack.exec("standby", &["understudy", "status"]);
        let (said, fault) = (output.stdout, output.stderr);
        String::from_utf8_lossy(&[said, fault].concat()).into_owned()
    }

    /// The heartbeats, in the order of the bots.
    pub fn beats(&self) -> Vec<String> {
        let query = "SELECT bot_name || ' ' || last_heartbeat || ' ' || coalesce(uptime_seconds, 0)
                     FROM bot_status ORDER BY bot_name DESC";
        self.sql(query).lines().map(str::to_owned).collect()
    }

    /// Waits until every bot has written some more heartbeats.
    pub fn wait_for_beats(&self, count: usize) {
        for beat in 0..count {
            let before = self.beats();
            until(&format!("heartbeat {beat} of {count}"), || moved(&before, &self.beats(), 2));
        }
    }

    /// `(epoch, holder)` of the lease.
    pub fn lease(&self) -> (u64, String) {
        let said = self.sql("SELECT epoch, coalesce(holder, '-') FROM understudy.lease");
        let (epoch, holder) = said.split_once('|').unwrap();
        (epoch.parse().unwrap(), holder.to_owned())
    }

    /// `epoch kind status node` of each takeover in the history, by epoch.
    pub fn history(&self) -> Vec<String> {
        let query = "SELECT epoch || ' ' || kind || ' ' || status || ' ' || node
                     FROM understudy.failover ORDER BY epoch";
        self.sql(query).lines().map(str::to_owned).collect()
    }

    /// A property of a unit.
    pub fn property(&self, host: &str, unit: &str, name: &str) -> String {
        self.run(host, &format!("systemctl show --value --property {name} {unit}"))
    }

    /// What a host's Redis answers.
    pub fn redis(&self, host: &str, command: &str) -> String {
        let [_, _, password, _] = SECRETS;
        self.run(host, &format!("env REDISCLI_AUTH={password} redis-cli {command}"))
    }

    /// `master` or `slave`.
    pub fn redis_role(&self, host: &str) -> String {
        self.redis(host, "ROLE").lines().next().unwrap_or_default().to_owned()
    }

    /// The notable events of the standby's understudy, whether the standby is on or off.
    pub fn events(&self) -> Vec<Entry> {
        journal::entries(&self.path("standby", "/var/log/journal"))
    }

    /// Those of one kind.
    pub fn events_of(&self, event: &str) -> Vec<Entry> {
        self.events().into_iter().filter(|entry| entry.event == event).collect()
    }

    /// Waits for an event of one of these kinds.
    pub fn wait_for_any(&self, events: &[&str]) {
        get(&format!("one of {events:?}"), || {
            let came = self.events();
            let one = came.iter().any(|entry| events.contains(&entry.event.as_str()));
            if one { Ok(()) } else { Err(format!("{came:#?}")) }
        });
    }

    /// Waits for the first event of a kind.
    pub fn wait_for(&self, event: &str) -> Entry {
        self.wait_for_nth(event, 1)
    }

    /// Waits for the `count`th event of a kind.
    pub fn wait_for_nth(&self, event: &str, count: usize) -> Entry {
        get(&format!("{event} number {count}"), || {
            let nth = self.events_of(event).into_iter().nth(count - 1);
            nth.ok_or_else(|| format!("{:#?}", self.events()))
        })
    }

    /// Waits until the pager got alerts of these events, in this order, whatever came in between.
    pub fn wait_for_alerts(&self, events: &[&str]) {
        get(&format!("alerts {events:?}"), || {
            let came = self.pager.events();
            let mut left = came.iter();
            let all = events.iter().all(|event| left.any(|other| other == event));
            if all { Ok(()) } else { Err(format!("{came:?}")) }
        });
    }

    /// What the bots did on a host: when, in nanoseconds of a clock that all hosts share, and in which
    /// tenure.
    pub fn acts(&self, host: &str) -> Vec<(u64, u64)> {
        let text = fs::read_to_string(self.path(host, "/var/lib/trading/acts")).unwrap_or_default();
        let act = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            // The last line may be cut where the power went.
            let [_, epoch, at] = words.as_slice() else { return None };
            Some((at.parse().ok()?, epoch.parse().ok()?))
        };
        text.lines().filter_map(act).collect()
    }

    // ---- what must be so ----

    /// Nobody did anything: the group is where it was, and beats there.
    pub fn assert_untouched(&self) {
        self.wait_for_beats(1);
        assert_eq!(self.lease().0, 0, "somebody has acquired the lease");
        assert_eq!(self.history(), [""; 0], "the history");
        let acted = ["lease_acquired", "step_done", "units_active", "failover_completed"];
        let acted: Vec<_> =
            self.events().into_iter().filter(|e| acted.contains(&&*e.event)).collect();
        assert!(acted.is_empty(), "{acted:?}");
        assert_eq!(self.power.asked(), [""; 0], "the power switch was asked");
        assert!(self.acts("standby").is_empty(), "bots acted on the standby");
        for bot in BOTS {
            assert_eq!(self.property("standby", bot, "ActiveState"), "inactive");
            assert_eq!(self.property("primary", bot, "ActiveState"), "active");
        }
        assert_eq!(self.redis_role("standby"), "slave");
        assert_eq!(self.redis_role("primary"), "master");
        self.assert_no_secrets();
    }

    /// The group was taken over by the standby, once, everything that this promises is so, and the
    /// primary was off before.
    pub fn assert_taken_over(&self) {
        self.assert_taken_over_although_primary_acts();
        assert!(!self.is_on("primary"), "the primary is on");
        let last = self.acts("primary").into_iter().max().expect("the primary acted");
        let first = self.acts("standby").into_iter().min().expect("the standby acts");
        assert!(last.0 < first.0, "two copies acted at once: {last:?} on the primary, {first:?}");
    }

    /// The group was taken over by the standby, once, and everything that this promises is so there.
    pub fn assert_taken_over_although_primary_acts(&self) {
        let completed = self.events_of("failover_completed");
        assert_eq!(completed.len(), 1, "{completed:?}");
        assert_eq!(self.events_of("lease_acquired").len(), 1);
        assert_eq!(completed[0].epoch, Some(1));
        assert_eq!(self.lease(), (1, "standby".to_owned()));
        until("the history to say that it is done", || {
            self.history() == ["1 automatic done standby"]
        });
        for bot in BOTS {
            assert_eq!(self.property("standby", bot, "ActiveState"), "active");
        }
        assert_eq!(self.redis_role("standby"), "master");
        let file = fs::read_to_string(self.path("standby", "/etc/redis/redis.conf")).unwrap();
        assert!(!file.lines().any(|line| line.starts_with("replicaof")), "{file}");
        let environment = self.run("standby", "cat /run/understudy/trading.env");
        assert!(environment.lines().any(|line| line == "UNDERSTUDY_EPOCH=1"), "{environment}");
        self.wait_for_beats(1);
        let said = self.sql("SELECT DISTINCT status FROM bot_status");
        assert_eq!(said, "PRIMARY");
        let acts = self.acts("standby");
        assert!(!acts.is_empty(), "no bot acts on the standby");
        assert!(acts.iter().all(|(_, epoch)| *epoch == 1), "an act without the epoch");
        self.assert_no_secrets();
    }

    /// No secret is in a journal, or in what the standby's understudy says.
    pub fn assert_no_secrets(&self) {
        let mut said = vec![("status".to_owned(), self.told())];
        for (host, _) in HOSTS {
            said.push((format!("journal of {host}"), self.journal(host)));
        }
        for (place, text) in said {
            for secret in SECRETS {
                // The database's own superuser sets passwords; understudy has no part in it.
                assert!(!text.contains(secret), "a secret is in the {place}");
            }
        }
    }

    fn journal(&self, host: &str) -> String {
        journal::whole(&self.path(host, "/var/log/journal"))
    }

    // ---- artefacts ----

    /// Keeps what explains a failure, and says where.
    fn keep_artefacts(&self) -> std::io::Result<()> {
        let target = Path::new(env!("CARGO_BIN_EXE_understudy")).ancestors().nth(2);
        let directory = target.unwrap_or(Path::new("target")).join("cluster").join(self.name);
        fs::create_dir_all(&directory)?;
        for (host, _) in HOSTS {
            fs::write(directory.join(format!("{host}.journal")), self.journal(host))?;
        }
        let mut lines: Vec<_> = self.steps.lock().unwrap().clone();
        let events = self.events().into_iter();
        lines.extend(events.map(|e| (e.at_us, format!("    {}: {}", e.event, e.text))));
        lines.sort();
        let start = lines.first().map_or(0, |(at, _)| *at);
        let mut timeline = fs::File::create(directory.join("timeline"))?;
        for (at, text) in lines {
            let after_ms = (at - start) / 1000;
            writeln!(timeline, "{:>5}.{:03} s  {text}", after_ms / 1000, after_ms % 1000)?;
        }
        let alerts = serde_json::to_string_pretty(&self.pager.alerts())?;
        fs::write(directory.join("alerts.json"), alerts)?;
        if self.is_on("standby") {
            fs::write(directory.join("status"), self.told())?;
        }
        // Past the capture of the test harness, which shows it only at the very end.
        writeln!(
            std::io::stderr(),
            "cluster {}: failed; journals and timeline are in {}",
            self.name,
            directory.display()
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Err(error) = self.keep_artefacts()
        {
            drop(writeln!(std::io::stderr(), "cluster {}: no artefacts: {error}", self.name));
        }
    }
}

/// Whether all rows of `beats` changed, if there are as many as they should be.
fn moved(before: &[String], after: &[String], count: usize) -> bool {
    after.len() == count && after.iter().all(|row| !before.contains(row))
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// The right to run a cluster.
struct Permit;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Permit {
    fn get() -> Self {
        let free = |running: &mut usize| *running >= CLUSTERS_MAX;
        let mut running = RUNNING.1.wait_while(RUNNING.0.lock().unwrap(), free).unwrap();
        *running += 1;
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap() -= 1;
        RUNNING.1.notify_one();
    }
}
