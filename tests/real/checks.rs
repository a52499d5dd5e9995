//! Checks against what they measure: real servers, units, journals and plugins.

mod archive;
mod daemon;
mod kinds;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::bus::Container;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_understudy");

/// A configuration with checks, and what `understudy health --now` makes of them.
struct Bench {
    container: Container,
    dir: TempDir,
}

impl Bench {
    fn new(checks: &str) -> Self {
        let container = Container::shared();
        let dir = tempfile::Builder::new().prefix("checks-").tempdir_in(&container.shared).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "node = \"bravo\"\nstate_dir = \"{at}/state\"\nruntime_dir = \"{at}/run\"\n\
             [store]\nhosts = [\"127.0.0.1:1\"]\ndatabase = \"postgres\"\n\
             [group.trading]\nbots = [\"equity\"]\nunits = [\"equity.service\"]\n{checks}",
            at = dir.path().display()
        );
        fs::write(dir.path().join("understudy.toml"), text).unwrap();
        Self { container, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program of the test's.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    /// Measures everything once, here, by the systemd of the container.
    fn measure(&self) -> Measured {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.path("understudy.toml"));
        command.args(["--json", "health", "--now"]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.container.bus);
        Measured::of(&command.output().unwrap())
    }

    /// The same inside the container, where its journal and its processes are.
    fn measure_inside(&self) -> Measured {
        self.measure_inside_as(&[])
    }

    fn measure_inside_as(&self, wrapper: &[&str]) -> Measured {
        let config = self.path("understudy.toml").display().to_string();
        let program = [PROGRAM, "--config", &config, "--json", "health", "--now"];
        Measured::of(&self.container.try_run(&[wrapper, &program].concat()))
    }
}

/// What `understudy health` said.
struct Measured(Value);

impl Measured {
    fn of(output: &Output) -> Self {
        let printed = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let health = serde_json::from_str(&printed);
        Self(health.unwrap_or_else(|error| panic!("{error}: {printed}\n{complaint}")))
    }

    fn check(&self, name: &str) -> &Value {
        let checks = self.0["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no check {name} in {:#}", self.0))
    }

    /// The number of a check that could be measured.
    fn value(&self, name: &str) -> f64 {
        let check = self.check(name);
        assert_eq!(check["fault"], false, "{name}: {check:#}");
        check["value"].as_f64().unwrap_or_else(|| panic!("{name} has no value: {check:#}"))
    }

    fn level(&self, name: &str) -> &str {
        self.check(name)["level"].as_str().unwrap()
    }

    fn text(&self, name: &str) -> &str {
        self.check(name)["text"].as_str().unwrap()
    }

    /// Why a check could not be measured.
    fn fault(&self, name: &str) -> &str {
        let check = self.check(name);
        assert_eq!(check["fault"], true, "{name}: {check:#}");
        self.text(name)
    }

    fn details(&self, name: &str) -> Vec<&str> {
        let details = self.check(name)["details"].as_array().unwrap();
        details.iter().map(|line| line.as_str().unwrap()).collect()
    }
}
