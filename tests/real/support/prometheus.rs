//! A Prometheus as it is in Debian, which scrapes itself.

#![allow(clippy::unwrap_used, reason = "a test whose surroundings fail has failed")]

use std::fs;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::client;
use super::daemon::until;
use super::redis::free_port;

/// The server. It ends with this value.
pub struct Prometheus {
    /// Where it listens.
    pub port: u16,
    process: Child,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one, and waits until it answers.
    pub fn start() -> Self {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let config = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: self\n  \
             static_configs:\n    - targets: [\"127.0.0.1:{port}\"]\n"
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { port, process, _dir: dir };
        until("prometheus to be ready", || {
            client::try_get(port, "/-/ready", &[]).is_ok_and(|answer| answer.code == 200)
        });
        this
    }

    /// Waits until an expression, which may have spaces and equals signs, has a result.
    pub fn wait_for(&self, query: &str) {
        let query = query.replace(' ', "%20").replace('=', "%3D");
        until("prometheus to have scraped", || {
            let answer = client::get(self.port, &format!("/api/v1/query?query={query}"));
            !answer.json()["data"]["result"].as_array().unwrap().is_empty()
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
