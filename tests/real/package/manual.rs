//! docs/operations.md, typed as it stands there, from the installation to the end.

use std::fs;

use crate::support::daemon::now;
use crate::support::stage::{
    BOTS, FIRST, HOOK_SECRET, SECOND, STORE_SECRET, Stage, bring, done, printed, shell, write,
};
use crate::support::wait::until;

const MANUAL: &str = "docs/operations.md";

/// The chapters whose commands are typed here, in this order.
const CHAPTERS: [&str; 6] =
    ["Install", "Configure", "First start", "First drill", "Upgrade", "Uninstall"];

/// What the hosts of the manual are called here, and what is its password.
const FASTER: &str = "[watch]\ninterval = \"1s\"\ntimeout = \"4s\"\n\
                      [group.trading]\nsettle = \"500ms\"\n\
                      [group.trading.redis]\npassword = { credential = \"redis-password\" }\n";

/// A block of the manual that is typed somewhere, or is a file.
struct Block {
    chapter: String,
    /// A host, or a host and a path.
    place: String,
    text: String,
}

#[test]
fn the_manual_works_as_it_is_written() {
    let stage = Stage::new();
    stage.keep_what_the_manual_takes_for_granted();
    for block in blocks() {
        match block.place.split_once(": ") {
            Some(("trading-b", path)) => {
                write(&stage.standby, path, &stage.here(&block.text));
            }
            _ if block.place == "db1" => {
                // Statement by statement: psql makes no transaction of them either.
                for statement in block.text.split_inclusive(';').map(str::trim) {
                    if !statement.is_empty() {
                        now(stage.postgres.sql(&statement.replace('…', STORE_SECRET)));
                    }
                }
            }
            _ => {
                for line in block.text.lines() {
                    stage.type_in(&block, line);
                }
            }
        }
    }
    assert_eq!(stage.value("SELECT count(*) FROM pg_roles WHERE rolname = 'understudy'"), "0");
}

#[test]
fn every_command_of_these_chapters_is_typed_somewhere() {
    let text = fs::read_to_string(MANUAL).unwrap();
    let mut chapter = "";
    let mut before = "";
    for line in text.lines() {
        chapter = line.strip_prefix("## ").unwrap_or(chapter);
        let fence = line.trim_start().strip_prefix("```").filter(|language| {
            ["sh", "sql", "toml"].contains(language) && CHAPTERS.contains(&chapter)
        });
        let marked = before.trim_start().starts_with("<!-- ");
        assert!(fence.is_none() || marked, "{chapter}: nobody knows where to type what follows");
        before = line;
    }
    let found: Vec<String> = blocks().into_iter().map(|block| block.chapter).collect();
    assert!(CHAPTERS.iter().all(|chapter| found.iter().any(|found| found == chapter)));
}

/// The blocks with a mark that says where they belong, of the chapters above.
fn blocks() -> Vec<Block> {
    let text = fs::read_to_string(MANUAL).unwrap();
    let mut blocks = Vec::new();
    let mut chapter = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut chapter);
        }
        let mark = line.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        let Some(place) = mark.filter(|_| CHAPTERS.contains(&chapter.as_str())) else { continue };
        let indent = line.len() - line.trim_start().len();
        let text: Vec<&str> = lines
            .by_ref()
            .skip_while(|line| !line.trim().starts_with("```"))
            .skip(1)
            .take_while(|line| line.trim() != "```")
            .map(|line| line.get(indent..).unwrap_or_default())
            .collect();
        let (chapter, place) = (chapter.clone(), place.to_owned());
        blocks.push(Block { chapter, place, text: text.join("\n") + "\n" });
    }
    blocks
}

impl Stage {
    /// What an operator brings along: both packages, and a Redis with a password.
    fn keep_what_the_manual_takes_for_granted(&self) {
        for version in [FIRST, SECOND] {
            let name = bring(&self.standby, version);
            let plain = format!("understudy_{version}_amd64.deb");
            if name != plain {
                done(&self.standby, &format!("mv {name} {plain}"));
            }
        }
    }

    /// The manual's names, in the words of this test.
    fn here(&self, text: &str) -> String {
        text.replace("db1.example:5432", &format!("127.0.0.1:{}", self.postgres.port()))
            .replace("database = \"trading\"", "database = \"postgres\"")
            .replace("trading-a:6379", &format!("127.0.0.1:{}", self.primary_redis.port))
            .replace("127.0.0.1:6379", &format!("127.0.0.1:{}", self.redis.port))
    }

    fn type_in(&self, block: &Block, line: &str) {
        let host = if block.place == "trading-a" { &self.primary } else { &self.standby };
        let typed = match line.rsplit_once('/') {
            Some((_, "store-password")) if line.contains("/dev/stdin") => STORE_SECRET.to_owned(),
            Some((_, "ops-webhook")) if line.contains("/dev/stdin") => self.hook(),
            _ => String::new(),
        };
        self.before(&block.chapter, line);
        let output = shell(host, &format!("{line} <<'END'\n{typed}\nEND"));
        let said = printed(&output);
        let warned = line == "understudy check" && output.status.code() == Some(1);
        assert!(output.status.success() || warned, "{}: {line}: {said}", block.chapter);
        self.after(&block.chapter, line, &said);
    }

    fn before(&self, chapter: &str, line: &str) {
        match (chapter, line) {
            // The drop-in makes the group wait for less, and Redis here has a password.
            ("First start", "understudy check") => {
                self.keep_secret("redis-password", crate::support::stage::REDIS_SECRET);
                write(&self.standby, "/etc/understudy/understudy.toml.d/zz-test.toml", FASTER);
            }
            ("First start" | "First drill", "understudy status") => self.wait_until_ready(),
            ("First drill", "understudy history") => until("the takeover to be done", || {
                // There is none yet at first.
                self.value("SELECT coalesce(max(status), '') FROM understudy.failover") == "done"
            }),
            ("Upgrade", "understudy status") => self.wait_until_active(),
            _ => {}
        }
    }

    /// What the manual promises about a command.
    fn after(&self, chapter: &str, line: &str, said: &str) {
        let has = |words: &[&str]| {
            for words in words {
                assert!(said.contains(words), "{chapter}: {line}: no {words:?} in\n{said}");
            }
        };
        let is_active = || printed(&shell(&self.standby, "systemctl is-active understudy"));
        match (chapter, line) {
            ("Install", _) => {
                assert_eq!(is_active(), "inactive\n");
                has(&["does not run before you configured it"]);
            }
            ("Configure", line) if line.starts_with("understudy setup --user") => {
                has(&["schema understudy made", "group trading is new"]);
            }
            ("First start" | "First drill", "understudy check") => has(&["configuration", "ok"]),
            ("First start", "systemctl enable --now understudy") => {
                assert_eq!(is_active(), "active\n");
            }
            ("First start" | "First drill", "understudy status") => {
                has(&["trading: standby", "ready       yes, this node could take over"]);
            }
            ("First drill", line) if line.ends_with("--dry-run") => {
                has(&["will take over trading", "fence trading-a with", "start quantshift-equity"]);
            }
            ("First drill", "understudy history") => {
                self.alerts_came();
                has(&["trading  failover done on trading-b (epoch 1)"]);
            }
            // The explanation is below the event that it explains.
            ("First drill", "journalctl -u understudy -x") => has(&[
                "failover completed",
                "Subject: Failover of trading completed",
                "Defined-By: understudy",
            ]),
            ("First drill", line) if line.contains("UNDERSTUDY_EVENT=failover_completed") => {
                self.event_has_its_fields(said);
            }
            ("Upgrade", line) if line.starts_with("apt-get") => {
                let version = done(&self.standby, "dpkg-query -W -f '${Version}' understudy");
                assert_eq!(version, SECOND);
            }
            ("Upgrade" | "Uninstall", "understudy status") => has(&["trading: active"]),
            ("Uninstall", "apt-get remove understudy") => {
                for bot in BOTS {
                    assert_eq!(self.property(&format!("{bot}.service"), "ActiveState"), "active");
                }
            }
            ("Uninstall", "apt-get purge understudy") => {
                let left = shell(&self.standby, "ls -d /etc/understudy /var/lib/understudy");
                assert!(!left.status.success());
            }
            _ => {}
        }
    }

    fn alerts_came(&self) {
        let mut events = Vec::new();
        while events.last().is_none_or(|event| event != "failover_completed") {
            let alert = self.webhook.next();
            assert!(alert.line.contains(HOOK_SECRET));
            events.push(alert.json()["event"].as_str().unwrap_or_default().to_owned());
        }
        for event in ["group_stale", "lease_acquired", "failover_completed"] {
            assert!(events.iter().any(|came| came == event), "no alert {event} among {events:?}");
        }
    }

    /// What `journalctl -o json` has for programs.
    fn event_has_its_fields(&self, said: &str) {
        let entry: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        for (field, value) in [
            ("UNDERSTUDY_EVENT", "failover_completed"),
            ("UNDERSTUDY_GROUP", "trading"),
            ("UNDERSTUDY_EPOCH", "1"),
            ("_SYSTEMD_UNIT", "understudy.service"),
            ("SYSLOG_IDENTIFIER", "understudy"),
        ] {
            assert_eq!(entry[field], value, "{entry}");
        }
        assert_eq!(entry["MESSAGE_ID"].as_str().map(str::len), Some(32), "{entry}");
        let message = entry["MESSAGE"].as_str().unwrap();
        assert!(message.contains("failover completed: this node has the group"), "{message}");
        let user = done(&self.standby, "id -u understudy");
        assert_eq!(entry["_UID"].as_str(), Some(user.trim()), "{entry}");
    }
}
