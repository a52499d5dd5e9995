//! A rack: three hosts and their switch, in namespaces of their own. What `tests/cluster/rack` does
//! is said there; here are its ends.
//!
//! Process ids are those of this side. A host is entered through that of its systemd.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::Mutex;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::until;

/// The address of the switch itself, where the tests' own servers listen.
pub const SWITCH: &str = "10.77.0.254";

/// What nspawn exits with to say that the host wants to be booted again.
const REBOOT: i32 = 133;

/// A switch, and the hosts that run.
pub struct Rack {
    /// Its files; the hosts' are below, in its own mount namespace.
    dir: PathBuf,
    holder: Option<(Child, ChildStdin)>,
    /// The first process of its namespaces.
    init: Pid,
    hosts: Mutex<BTreeMap<String, Powered>>,
}

/// A host that was booted.
struct Powered {
    nspawn: Child,
    systemd: Pid,
}

impl Rack {
    /// An empty one. It sees the layers of `beside`.
    pub fn new(beside: Option<&Self>) -> Self {
        let dir = tempfile::Builder::new().prefix("understudy-rack.").tempdir().unwrap().keep();
        let mut command = Command::new(script());
        command.arg("up").arg(&dir);
        if let Some(beside) = beside {
            command.arg(beside.init.to_string());
        }
        // In a process group of its own: it ends when its input is closed, not by Ctrl-C.
        let mut holder =
            command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "ready", "the rack could not be made, see above");
        let unshare = only_child(pid(&holder)).unwrap();
        let init = only_child(unshare).unwrap();
        let stdin = holder.stdin.take().unwrap();
        Self { dir, holder: Some((holder, stdin)), init, hosts: Mutex::default() }
    }

    /// Boots a host over layers, the topmost first, or again as it was, and waits for it.
    pub fn boot(&self, host: &str, layers: &[PathBuf]) {
        let layers: Vec<_> = layers.iter().map(|layer| layer.to_str().unwrap()).collect();
        let log = File::create(self.dir.join(format!("{host}.console"))).unwrap();
        let mut nspawn = self
            .enter()
            .arg(script())
            .arg("boot")
            .arg(&self.dir)
            .args([host, &layers.join(":")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut systemd = None;
        until(&format!("{host} to have a systemd"), || {
            assert_eq!(nspawn.try_wait().unwrap(), None, "{}", self.console(host));
            systemd = self.systemd_of(pid(&nspawn));
            systemd.is_some()
        });
        let powered = Powered { nspawn, systemd: systemd.unwrap() };
        self.hosts.lock().unwrap().insert(host.to_owned(), powered);
        self.wait_until_up(host);
    }

    /// Waits until every unit that starts at boot has been started.
    pub fn wait_until_up(&self, host: &str) {
        let mut said = String::new();
        until(&format!("{host} to be up"), || {
            let output = self.exec(host, &["systemctl", "is-system-running", "--wait"]);
            said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            said == "running" || said == "degraded"
        });
        if said == "degraded" {
            let failed = self.run(host, &["systemctl", "--failed", "--plain", "--no-legend"]);
            panic!("{host} booted, but some units failed:\n{failed}");
        }
    }

    /// Runs a command on a host.
    pub fn exec(&self, host: &str, command: &[&str]) -> Output {
        self.command(host, command).output().unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn run(&self, host: &str, command: &[&str]) -> String {
        let output = self.exec(host, command);
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(
            output.status.success(),
            "{command:?} on {host}: {}\n{printed}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        printed
    }

    /// A command on a host, to be run with more than arguments.
    pub fn command(&self, host: &str, command: &[&str]) -> Command {
        let systemd = self.hosts.lock().unwrap().get(host).map(|powered| powered.systemd);
        let systemd = systemd.unwrap_or_else(|| panic!("{host} is off"));
        let mut enter = Command::new("nsenter");
        enter
            .args(["--target", &systemd.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "env", "-i"])
            .args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"])
            .args(command);
        enter
    }

    /// A host's file, whether it is on or off. Not of `/run` or `/tmp`, which are its own.
    pub fn path(&self, host: &str, path: &str) -> PathBuf {
        let root = self.layer(host, "root");
        PathBuf::from(format!("/proc/{}/root{}{path}", self.init, root.display()))
    }

    /// What was written on a host since it has been in this rack, as a layer for another rack.
    pub fn written(&self, host: &str) -> PathBuf {
        self.layer(host, "upper")
    }

    /// Whether a host is on.
    pub fn is_on(&self, host: &str) -> bool {
        self.hosts.lock().unwrap().contains_key(host)
    }

    /// Takes the power from a host.
    pub fn kill(&self, host: &str) {
        let powered = self.hosts.lock().unwrap().remove(host);
        let Some(mut powered) = powered else { return };
        // With its first process end all others of a container.
        kill(powered.systemd, Signal::SIGKILL).unwrap();
        powered.nspawn.wait().unwrap();
    }

    /// Shuts a host down in good order.
    pub fn shut_down(&self, host: &str) {
        self.run(host, &["systemctl", "poweroff"]);
        let powered = self.hosts.lock().unwrap().remove(host);
        let status = powered.unwrap().nspawn.wait().unwrap();
        assert!(status.success(), "{host} ended: {status}\n{}", self.console(host));
    }

    /// Reboots a host in good order, and waits until it is up again.
    pub fn reboot(&self, host: &str) {
        self.run(host, &["systemctl", "reboot"]);
        let powered = self.hosts.lock().unwrap().remove(host);
        let status = powered.unwrap().nspawn.wait().unwrap();
        assert_eq!(status.code(), Some(REBOOT), "{host} ended: {status}\n{}", self.console(host));
        self.boot(host, &[]);
    }

    /// Stops every process of a host at once, or lets all go on.
    pub fn freeze(&self, host: &str, frozen: bool) {
        let group = self.layer(host, "cgroup");
        let group = fs::read_to_string(format!("/proc/{}/root{}", self.init, group.display()));
        let group = PathBuf::from(group.unwrap().trim());
        let value = if frozen { "1" } else { "0" };
        fs::write(group.join("cgroup.freeze"), value).unwrap();
        until(&format!("frozen of {host} to be {value}"), || {
            let events = fs::read_to_string(group.join("cgroup.events")).unwrap();
            events.lines().any(|line| line == format!("frozen {value}"))
        });
    }

    /// Lets nothing through between two addresses, or everything between all.
    pub fn cut(&self, between: Option<(&str, &str)>) {
        let mut rules = "flush chain bridge partition forward\n".to_owned();
        if let Some((one, other)) = between {
            for (from, to) in [(one, other), (other, one)] {
                let rule = format!("ip saddr {from} ip daddr {to} drop");
                rules += &format!("add rule bridge partition forward {rule}\n");
            }
        }
        let output = self.enter().args(["nft", &rules]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Moves the present thread to the network of this rack, for good.
    pub fn join_network(&self) {
        let network = File::open(format!("/proc/{}/ns/net", self.init)).unwrap();
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Makes the layers of hosts that are off ready to be layered over.
    pub fn detach(&self, host: &str) {
        let root = self.layer(host, "root");
        let output = self.enter().arg("umount").arg(root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn console(&self, host: &str) -> String {
        fs::read_to_string(self.dir.join(format!("{host}.console"))).unwrap_or_default()
    }

    fn layer(&self, host: &str, name: &str) -> PathBuf {
        self.dir.join("layers").join(host).join(name)
    }

    /// A command in the namespaces, beside the hosts.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--net", "--pid"]);
        command
    }

    /// The systemd of a host whose nspawn is the only child of `enter`.
    fn systemd_of(&self, enter: Pid) -> Option<Pid> {
        let nspawn = only_child(enter)?;
        // The first process of a namespace within that of the rack.
        children(nspawn).into_iter().find(|child| numbers(*child).as_slice().ends_with(&[1]))
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        let Some((mut holder, stdin)) = self.holder.take() else { return };
        drop(stdin);
        holder.wait().unwrap();
        for powered in self.hosts.lock().unwrap().values_mut() {
            powered.nspawn.wait().unwrap();
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/rack")
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

fn only_child(process: Pid) -> Option<Pid> {
    children(process).first().copied()
}

fn children(process: Pid) -> Vec<Pid> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

/// The numbers that a process has in the namespaces that it is in, from here to its own.
fn numbers(process: Pid) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<u32> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    // The rack's namespace, and the container's own.
    if numbers.len() < 3 { Vec::new() } else { numbers }
}
