//! `understudy beat`: the heartbeat of an application that has none.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::daemon::WINDOW;
use crate::support::daemon::{Scene, until};
use crate::support::postgres::Postgres;

const PROGRAM: &str = env!("CARGO_BIN_EXE_understudy");

/// A host with an application on it, and the database.
struct Host {
    postgres: Postgres,
    dir: TempDir,
}

impl Host {
    async fn new(heartbeats: &str) -> Self {
        let postgres = Postgres::start().await;
        postgres.create_bot_status().await;
        let dir = TempDir::new().unwrap();
        let port = postgres.port();
        let config = format!(
            "[store]\nhosts = [\"127.0.0.1:{port}\"]\ndatabase = \"postgres\"\nuser = \"postgres\"\n\
             connect_timeout = \"1s\"\n\
             [heartbeats]\n{heartbeats}\n\
             [group.trading]\nbots = [\"equity\", \"crypto\"]\nunits = [\"equity.service\"]\n"
        );
        fs::write(dir.path().join("understudy.toml"), config).unwrap();
        Self { postgres, dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.dir.path().join("understudy.toml")).arg("beat");
        command.args(arguments).stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        (status.code().unwrap(), said)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        Running(self.command(arguments).stderr(log).spawn().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    async fn row(&self, columns: &str) -> Vec<String> {
        let query = format!("SELECT {columns} FROM bot_status WHERE bot_name = 'equity'");
        self.postgres.rows(&query).await.pop().unwrap_or_default()
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_made_and_then_kept_alive_as_the_bots_do_it() {
    let host = Host::new("").await;
    let (code, said) = host.run(&["--bot", "equity"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("has no row yet, and a new one needs more (--set)"), "{said}");
    assert!(said.contains("\"id\""), "{said}");
    let new = ["--bot", "equity", "--set", "id=equity-1", "--set", "updated_at=now"];
    let (code, said) = host.run(&new);
    assert_eq!((code, said.as_str()), (0, "equity: a new row with a heartbeat is written\n"));
    let before = host.row("id, status, last_heartbeat::text").await;
    assert_eq!(before[..2], ["equity-1", "PRIMARY"]);
    let (code, said) = host.run(&["--bot", "equity", "--set", "positions_count=3", "--json"]);
    assert_eq!(code, 0, "{said}");
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer, serde_json::json!({ "bot": "equity", "made": false }));
    let after = host.row("positions_count, error_message IS NULL, last_heartbeat::text").await;
    assert_eq!(after[0], "3");
    assert_ne!(after[2], before[2], "the heartbeat is another");
    // A person's word stays, unless somebody says otherwise.
    host.postgres.sql("UPDATE bot_status SET status = 'EMERGENCY_STOPPED'").await;
    assert_eq!(host.run(&["--bot", "equity"]).0, 0);
    assert_eq!(host.row("status").await, ["EMERGENCY_STOPPED"]);
    let hostile = "x'; DROP TABLE bot_status; --";
    let set = format!("error_message={hostile}");
    assert_eq!(host.run(&["--bot", "equity", "--set", "status=STANDBY", "--set", &set]).0, 0);
    assert_eq!(host.row("status, error_message").await, ["STANDBY", hostile]);
    assert_eq!(host.run(&["--bot", "equity", "--set", "error_message"]).0, 0);
    assert_eq!(host.row("error_message IS NULL").await, ["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_may_be_of_several_types() {
    for (kind, old, new) in [
        ("timestamptz", "'2020-01-01'", "beat > now() - interval '1 minute'"),
        ("bigint", "1577836800", "beat BETWEEN 1577836801 AND 99999999999"),
        ("bigint", "1577836800000", "beat > 1577836800001"),
        ("double precision", "1577836800", "beat BETWEEN 1577836801 AND 99999999999"),
    ] {
        let host =
            Host::new("table = \"Beats\"\nname_column = \"Bot Name\"\nbeat_column = \"beat\"")
                .await;
        host.postgres
            .sql(&format!(
                "CREATE TABLE \"Beats\" (\"Bot Name\" varchar(40), beat {kind}, status text);
                 INSERT INTO \"Beats\" VALUES ('equity', {old}, 'x'), ('other', {old}, 'x')"
            ))
            .await;
        let (code, said) = host.run(&["--bot", "equity"]);
        assert_eq!(code, 0, "{kind}: {said}");
        assert_eq!(host.run(&["--bot", "crypto"]).0, 0);
        let query = format!("SELECT \"Bot Name\" FROM \"Beats\" WHERE {new} ORDER BY 1");
        let mut beating = host.postgres.rows(&query).await.concat();
        // A new row has nobody before it who counted in milliseconds.
        if old != "1577836800000" {
            beating.retain(|bot| bot != "crypto");
        }
        assert_eq!(beating, ["equity"], "{kind}");
        let rows = host.postgres.value("SELECT count(*)::text FROM \"Beats\"").await;
        assert_eq!(rows, "3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_in_words() {
    let host = Host::new("").await;
    host.postgres.beat("equity").await;
    for (arguments, code, words) in [
        (&["--bot", "equty"][..], 1, "no group has a bot equty"),
        (&["--bot", "equity", "--set", "last_heartbeat=now"], 1, "written by the heartbeat itself"),
        (&["--bot", "equity", "--set", "colour=red"], 69, "it has no column colour"),
        (&["--bot", "equity", "--set", "positions_count=many"], 69, "invalid input syntax"),
        (&["--bot", "equity", "--set", "=x"], 2, "write it like COLUMN=VALUE"),
        (&["--bot", "equity", "--every", "1ms"], 1, "must be 100ms or more"),
        (&["--bot", "equity", "--check", "/bin/false"], 1, "left with status 1"),
        (&["--bot", "equity", "--check", "/no/such"], 1, "cannot be run"),
        (
            &["--bot", "equity", "--check-timeout", "200ms", "--check", "sleep", "60"],
            1,
            "was not done within",
        ),
    ] {
        let before = host.row("last_heartbeat::text").await;
        let (found, said) = host.run(arguments);
        assert_eq!(found, code, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert_eq!(host.row("last_heartbeat::text").await, before, "{arguments:?}");
    }
    host.postgres.sql("ALTER TABLE bot_status RENAME TO elsewhere").await;
    let (code, said) = host.run(&["--bot", "equity"]);
    assert_eq!(code, 69);
    assert!(said.contains("there is no such table"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_beats_while_there_is_progress_whatever_happens_to_the_database() {
    let mut host = Host::new("").await;
    host.postgres.beat("equity").await;
    let progress = host.dir.path().join("progress");
    fs::write(&progress, "").unwrap();
    let path = progress.display().to_string();
    let beating =
        host.start(&["--bot", "equity", "--every", "100ms", "--check", "test", "-e", &path]);
    beats(&host, true).await;
    fs::remove_file(&progress).unwrap();
    until("the loop to say why it is silent", || host.log().contains("gets no heartbeat"));
    beats(&host, false).await;
    fs::write(&progress, "").unwrap();
    beats(&host, true).await;
    until("the loop to say that it beats", || host.log().contains("equity beats again"));
    host.postgres.stop();
    until("the loop to miss the database", || host.log().contains("failed to write a heartbeat"));
    host.postgres.resume().await;
    beats(&host, true).await;
    drop(beating);
}

/// Whether the heartbeat changes.
async fn beats(host: &Host, so: bool) {
    let before = host.row("last_heartbeat::text").await;
    if so {
        crate::support::wait::until_async("a new heartbeat", async || {
            host.row("last_heartbeat::text").await != before
        })
        .await;
    } else {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(host.row("last_heartbeat::text").await, before);
    }
}

#[test]
fn an_application_that_hangs_is_taken_over() {
    let scene = Scene::new();
    let mut standby = scene.standby().one_bot().silent().ready();
    let progress = standby.path("progress");
    fs::write(&progress, "").unwrap();
    let application = Application::start(standby.config_file(), &progress);
    standby.start();
    standby.wait_until_watching();
    standby.stays_quiet_for(WINDOW);
    fs::remove_file(&progress).unwrap();
    standby.wait_until_active();
    drop(application);
    scene.assert_taken_over(&standby, 1);
}

struct Application;

impl Application {
    fn start(config: impl AsRef<Path>, progress: &Path) -> Running {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(config.as_ref());
        command.args(["beat", "--bot", "equity", "--user", "postgres", "--every", "300ms"]);
        command.args(["--check", "/usr/bin/test", "-e"]).arg(progress);
        Running(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}
