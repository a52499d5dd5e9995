//! A real browser without a screen: Debian's chromium, spoken to over a pair of pipes in its
//! DevTools protocol.

#![allow(clippy::unwrap_used, reason = "a test whose surroundings fail has failed")]

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::daemon::until;

/// How a page is shown.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Width in pixels.
    pub width: u32,
    /// Whether it is a phone.
    pub phone: bool,
    /// Whether the person prefers dark colours.
    pub dark: bool,
}

/// A browser with one page open.
pub struct Browser {
    process: Child,
    questions: File,
    answers: BufReader<File>,
    session: String,
    asked: u64,
    /// What the browser held against the page, such as a violation of its policy.
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Self {
        let profile = TempDir::new().unwrap();
        let pipe = |name: &str| {
            let path = profile.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            path
        };
        let (questions, answers) = (pipe("questions"), pipe("answers"));
        let log = File::create(profile.path().join("log")).unwrap();
        // A shell, as the pipes must be descriptors 3 and 4.
        let process = Command::new("/bin/sh")
            .args(["-c", "exec 3<\"$1\" 4>\"$2\"; shift 2; exec chromium \"$@\"", "sh"])
            .args([&questions, &answers])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let questions = OpenOptions::new().write(true).open(questions).unwrap();
        let answers = BufReader::new(File::open(answers).unwrap());
        let mut browser = Self {
            process,
            questions,
            answers,
            session: String::new(),
            asked: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let page = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", target);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page.enable", "Log.enable", "Runtime.enable"] {
            browser.ask(domain, json!({}));
        }
        browser
    }

    /// Shows a page like this.
    pub fn open(&mut self, address: &str, screen: Screen) {
        let scheme = if screen.dark { "dark" } else { "light" };
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": scheme }));
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": screen.width, "height": 800, "deviceScaleFactor": 1,
                    "mobile": screen.phone }),
        );
        let answer = self.ask("Page.navigate", json!({ "url": address }));
        assert_eq!(answer["errorText"], Value::Null, "{answer}");
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        self.ask("Runtime.evaluate", parameters)["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait_until(&mut self, expression: &str) {
        until(expression, || self.value(expression) == true);
    }

    /// A picture of the whole page, kept for people to look at.
    pub fn picture(&mut self, name: &str) -> PathBuf {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.ask("Page.captureScreenshot", parameters);
        let png =
            base64::engine::general_purpose::STANDARD.decode(answer["data"].as_str().unwrap());
        let gallery = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&gallery).unwrap();
        let path = gallery.join(name);
        std::fs::write(&path, png.unwrap()).unwrap();
        path
    }

    /// What the browser held against the page.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut question = json!({ "id": self.asked, "method": method, "params": parameters });
        if !self.session.is_empty() && !method.starts_with("Target.") {
            question["sessionId"] = json!(self.session);
        }
        self.questions.write_all(format!("{question}\0").as_bytes()).unwrap();
        loop {
            let mut raw = Vec::new();
            self.answers.read_until(0, &mut raw).unwrap();
            assert_eq!(raw.pop(), Some(0), "chromium has ended");
            let said: Value = serde_json::from_slice(&raw).unwrap();
            if said["method"] == "Log.entryAdded" && said["params"]["entry"]["level"] == "error" {
                self.complaints.push(said["params"]["entry"].to_string());
            } else if said["method"] == "Runtime.exceptionThrown" {
                self.complaints.push(said["params"].to_string());
            }
            if said["id"] == self.asked {
                assert_eq!(said["error"], Value::Null, "{method}");
                return said["result"].clone();
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
