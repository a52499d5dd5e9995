//! The Debian packages that the hosts get.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::rack::Rack;

/// Version of the older package. The program in it is the same.
const OLDER: &str = "0.0.9";

/// A package file.
pub struct Package {
    path: PathBuf,
}

impl Package {
    /// What is under test.
    pub fn current() -> &'static Self {
        static CURRENT: LazyLock<Package> = LazyLock::new(|| Package::build(&[]));
        &CURRENT
    }

    /// The same program as an older version.
    pub fn older() -> &'static Self {
        static OLD: LazyLock<Package> = LazyLock::new(|| Package::build(&["--version", OLDER]));
        &OLD
    }

    /// Installs it on a host, or changes to it, as an operator does who has the file.
    pub fn install(&self, rack: &Rack, host: &str) {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let there = format!("/var/cache/apt/archives/{name}");
        fs::copy(&self.path, rack.path(host, &there)).unwrap();
        let options = ["--yes", "--quiet", "--allow-downgrades", "--no-download"];
        rack.run(host, &[&["apt-get", "install"], &options[..], &[&there]].concat());
    }

    /// In a profile that compiles quickly: tests do not need what a release build adds to it.
    fn build(options: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package");
        let output = Command::new(script)
            .args(["--profile", "quick"])
            .args(options)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "no package, see above");
        let path = String::from_utf8(output.stdout).unwrap();
        Self { path: PathBuf::from(path.lines().last().unwrap()) }
    }
}
