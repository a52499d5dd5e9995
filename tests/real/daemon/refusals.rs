//! What cannot work: said in words that help, with the exit code for it, and nothing is done.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{LONG, WINDOW};
use crate::support::daemon::{Ran, Scene, SmallDisk, Standby, TIMEOUT};
use crate::support::http::{Answer, Http};
use crate::support::postgres::Postgres;
use crate::support::redis::{Redis, free_port};
use crate::support::smtp::{Manner, Smtp};

/// Faults of the configuration.
const CONFIG: i32 = 78;
/// The database or the daemon cannot be reached.
const UNREACHABLE: i32 = 69;
/// `check` found a fault.
const FAULT: i32 = 2;

/// Every command that reads the configuration, with one that acts on nothing else first.
const COMMANDS: [&[&str]; 10] = [
    &["run"],
    &["setup"],
    &["status"],
    &["history"],
    &["hold", "--reason", "test"],
    &["release"],
    &["ack"],
    &["failover", "--yes", "--force"],
    &["failback"],
    &["alert", "test"],
];

/// No command works with this configuration, all say these words, and `check` says them too.
fn configuration_is_refused(standby: &Standby, words: &[&str]) {
    let mut runs: Vec<Ran> = Vec::new();
    for command in COMMANDS {
        let ran = standby.run(command);
        ran.assert_code(CONFIG);
        runs.push(ran);
    }
    let check = standby.run(&["check"]);
    check.assert_code(FAULT).assert_says("A failover would NOT work");
    runs.push(check);
    for ran in runs {
        for word in words {
            ran.assert_says(word);
        }
        assert!(ran.err.len() + ran.out.len() < 20_000, "that is no message but a book");
    }
}

// ---- configuration ----

#[test]
fn a_key_is_misspelt() {
    let scene = Scene::new();
    let mut standby = scene.standby().without_setup().without_redis().ready();
    standby.configure("group.cooldwon", "5m");
    configuration_is_refused(
        &standby,
        &["understudy.toml:", "group.trading.cooldwon", "did you mean \"cooldown\"?"],
    );
    scene_has_no_schema(&scene);
}

#[test]
fn the_timeout_is_shorter_than_the_interval() {
    let scene = Scene::new();
    let mut standby = scene.standby().without_setup().without_redis().ready();
    standby.configure("watch.timeout", "500ms");
    configuration_is_refused(&standby, &["watch.timeout", "interval"]);
    scene_has_no_schema(&scene);
}

#[test]
fn the_file_is_empty_or_missing_or_garbage_or_says_things_twice() {
    let scene = Scene::new();
    let standby = scene.standby().without_setup().without_redis().ready();
    let file = standby.config_file();
    let good = fs::read_to_string(&file).unwrap();

    fs::write(&file, "").unwrap();
    configuration_is_refused(&standby, &["says nothing yet"]);

    fs::remove_file(&file).unwrap();
    configuration_is_refused(&standby, &["understudy.toml"]);

    // Reproducible garbage, of all byte values.
    let mut seed = 1_u32;
    let mut byte = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    };
    fs::write(&file, (0..1_000_000).map(|_| byte()).collect::<Vec<_>>()).unwrap();
    configuration_is_refused(&standby, &["understudy.toml"]);

    let lines: Vec<u8> = (0..1_000_000).map(|_| b' ' + byte() % 95).collect();
    let lines: Vec<u8> = lines.chunks(80).flat_map(|line| [line, b"\n"].concat()).collect();
    fs::write(&file, lines).unwrap();
    configuration_is_refused(&standby, &["understudy.toml:1:", "more"]);

    fs::write(&file, format!("{good}\n[group.trading]\nbots = [\"x\"]\n")).unwrap();
    configuration_is_refused(&standby, &["understudy.toml:", "duplicate key"]);

    fs::write(
        &file,
        format!("{good}\n[group.other]\nbots = [\"equity\"]\nunits = [\"x.service\"]\n"),
    )
    .unwrap();
    configuration_is_refused(&standby, &["understudy.toml:", "this bot is also in group.other"]);
    scene_has_no_schema(&scene);
}

fn scene_has_no_schema(scene: &Scene) {
    let query = "SELECT count(*) FROM pg_namespace WHERE nspname = 'understudy'";
    assert_eq!(scene.value(query), "0");
}

// ---- the store ----

#[test]
fn the_store_cannot_be_reached() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let nowhere = format!("127.0.0.1:{}", free_port());
    standby.configure("store.hosts", vec![nowhere.clone()]);
    let commands: [&[&str]; 6] = [
        &["setup"],
        &["history"],
        &["hold", "--reason", "test"],
        &["release"],
        &["ack"],
        &["failback"],
    ];
    for command in commands {
        standby.run(command).assert_code(UNREACHABLE).assert_says(&nowhere);
    }
    let check = standby.run(&["check"]);
    check.assert_code(FAULT).assert_says(&nowhere).assert_says("see that the database runs");
    standby.run(&["status"]).assert_code(UNREACHABLE).assert_says("systemctl start understudy");
    standby.run(&["failover", "--yes"]).assert_code(UNREACHABLE);
    standby.start();
    standby.notified.wait_for("READY=1");
    standby.stays_quiet_for(TIMEOUT);
    let status = standby.run(&["status"]);
    status.assert_code(0).assert_says(&nowhere);
    standby
        .run(&["failover", "--yes", "--force"])
        .assert_code(1)
        .assert_says("no lease can be had");
    assert!(standby.runs());
    scene.assert_untouched(&standby);
}

#[test]
fn the_password_is_wrong() {
    let scene = Scene::with(Postgres::options().scram());
    let mut standby = scene.standby().without_setup().ready();
    set_up_with_password(&standby, &[]);
    let wrong = secret(&standby.path("wrong"), "not-the-password");
    let good = secret(&standby.path("good"), "secret");
    standby.configure("store.password", reference("file", &wrong));
    for command in [&["history"][..], &["hold", "--reason", "test"], &["setup"]] {
        let ran = standby.run(command);
        ran.assert_code(UNREACHABLE).assert_says("password authentication failed");
        assert!(!format!("{ran:?}").contains("not-the-password"));
    }
    let check = standby.run(&["check"]);
    check.assert_code(FAULT).assert_says("password authentication failed");
    check.assert_says("correct [store]");
    standby.start();
    standby.notified.wait_for("READY=1");
    standby.notified.wait_for("password authentication failed");
    let seen = standby.stays_quiet_for(LONG);
    assert!(seen.iter().all(|group| group.verdict == "unknown"));
    // Mended, it is loaded again without a restart.
    standby.configure("store.password", reference("file", &good));
    standby.signal(nix::sys::signal::Signal::SIGHUP);
    standby.wait_until_watching();
    scene.assert_untouched(&standby);
}

fn set_up_with_password(standby: &Standby, environment: &[(&str, &str)]) {
    let file = secret(&standby.path("superuser"), "secret");
    let arguments = ["setup", "--user", "postgres", "--password-file", &file];
    standby.run_with(&arguments, environment).assert_code(0);
}

/// How a configuration refers to a secret.
fn reference(kind: &str, at: &str) -> toml::Table {
    [(kind.to_owned(), at.into())].into_iter().collect()
}

/// Writes a secret into a file and returns its path.
fn secret(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn the_schema_is_not_set_up() {
    let scene = Scene::new();
    let standby = scene.standby().without_setup().running();
    standby.run(&["check"]).assert_code(FAULT).assert_says("run `understudy setup`");
    standby.run(&["history"]).assert_code(UNREACHABLE).assert_says("run `understudy setup`");
    let seen = standby.stays_quiet_for(TIMEOUT);
    let told = "run `understudy setup`";
    assert!(seen.iter().any(|group| group.unknown_because.as_ref().unwrap().contains(told)));
    standby.run(&["setup", "--user", "postgres"]).assert_code(0);
    standby.wait_until_watching();
    scene.assert_untouched(&standby);
}

#[test]
fn the_role_may_not_use_the_schema() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.sql("REVOKE ALL ON SCHEMA understudy FROM understudy");
    scene.silence(&standby);
    let seen = standby.stays_quiet_for(LONG);
    assert_eq!(seen.last().unwrap().verdict, "unknown");
    standby.run(&["check"]).assert_code(FAULT);
    standby.run(&["setup", "--user", "postgres"]).assert_code(0);
    scene.revive(&standby);
    standby.wait_until_watching();
    scene.assert_untouched(&standby);
}

#[test]
fn the_role_may_not_set_the_rows() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.sql("REVOKE UPDATE ON bot_status FROM understudy; REVOKE UPDATE (status) ON bot_status FROM understudy");
    let check = standby.run(&["check"]);
    check.assert_code(FAULT).assert_says("status of public.bot_status may not be updated");
}

#[test]
fn a_group_is_new_to_the_store() {
    let scene = Scene::new();
    let mut standby = scene.standby().without_redis().ready();
    let old = standby.config_file();
    let text = fs::read_to_string(&old).unwrap().replace("group.trading", "group.other");
    fs::write(&old, text).unwrap();
    standby.group = "other".to_owned();
    standby.run(&["check"]).assert_code(FAULT).assert_says("no lease");
    standby.start();
    standby.notified.wait_for("READY=1");
    standby.notified.wait_for("understudy setup");
    standby.run(&["setup", "--user", "postgres"]).assert_code(0).assert_says("other");
    standby.wait_until_watching();
}

// ---- this host ----

#[test]
fn a_unit_does_not_exist() {
    let scene = Scene::new();
    let standby = scene.standby().ready();
    let name = standby.units[0].name();
    standby.run(&["check"]).assert_code(1).assert_says(&format!("{name} is inactive"));
    fs::remove_file(standby.units[0].path()).unwrap();
    let check = standby.run(&["check"]);
    check.assert_code(FAULT).assert_says(&name).assert_says("NOT work");
    let lines = standby.run(&["check", "--json"]);
    let lines = lines.json();
    let faults: Vec<_> =
        lines.as_array().unwrap().iter().filter(|line| line["level"] == "fault").collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
}

#[test]
fn the_state_directory_is_read_only() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    standby.start();
    standby.wait_until_watching();
    // Files that are open stay so; whatever is opened from now on is on this one.
    let disk = SmallDisk::mount(&standby.path("state"), "size=4m,ro");
    standby.run(&["check"]).assert_code(FAULT).assert_says("cannot be written");
    let mut disk = Some(disk);
    not_ready_and_then(&scene, &standby, "cannot be written", || drop(disk.take()));
}

#[test]
fn the_state_directory_is_read_only_from_the_beginning() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let disk = SmallDisk::mount(&standby.path("state"), "size=4m,ro");
    standby.start();
    assert_eq!(standby.wait_for_end().code(), Some(1));
    assert!(standby.has_logged(&["state/outbox", "Read-only file system"]));
    drop(disk);
    standby.start();
    standby.wait_until_watching();
    scene.assert_untouched(&standby);
}

#[test]
fn the_disk_of_the_state_directory_is_full() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let _disk = SmallDisk::mount(&standby.path("state"), "size=4m");
    standby.start();
    standby.wait_until_watching();
    let filler = standby.path("state/filler");
    fs::write(&filler, vec![0; 4 << 20]).unwrap_err();
    standby.run(&["check"]).assert_code(FAULT).assert_says("full");
    not_ready_and_then(&scene, &standby, "is full", || fs::remove_file(&filler).unwrap());
}

/// The daemon started with a disk that is full from the beginning.
#[test]
fn the_disk_of_the_state_directory_is_much_too_small() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let _disk = SmallDisk::mount(&standby.path("state"), "size=64k");
    standby.start();
    standby.notified.wait_for("READY=1");
    scene.silence(&standby);
    standby.stays_quiet_for(WINDOW + TIMEOUT);
    scene.assert_untouched(&standby);
    assert!(standby.group().not_ready_because.unwrap()[0].contains("is full"));
}

/// A node that could not remember its tenure does not take over, until it can.
fn not_ready_and_then(scene: &Scene, standby: &Standby, words: &str, mend: impl FnOnce()) {
    scene.silence(standby);
    standby.stays_quiet_for(LONG);
    scene.assert_untouched(standby);
    let problems = standby.group().not_ready_because.unwrap();
    assert!(problems.iter().any(|problem| problem.contains(words)), "{problems:?}");
    mend();
    standby.wait_until_active();
    scene.assert_taken_over(standby, 1);
}

#[test]
fn the_memory_is_damaged() {
    let scene = Scene::new();
    let mut standby = scene.standby().ready();
    let memory = standby.path("state/tenures/trading.json");
    fs::create_dir_all(memory.parent().unwrap()).unwrap();
    for damage in ["", "{\"node\":", "null", "\u{0}\u{0}\u{0}"] {
        fs::write(&memory, damage).unwrap();
        standby.start();
        assert_eq!(standby.wait_for_end().code(), Some(1));
        assert!(standby.has_logged(&["trading.json is damaged; move it away"]));
    }
    fs::remove_file(&memory).unwrap();
    standby.start();
    standby.wait_until_watching();
    scene.assert_untouched(&standby);
}

#[test]
fn another_daemon_runs_already() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    let second = standby.run(&["run"]);
    assert_ne!(second.code, 0);
    second.assert_says("another understudy is running");
    assert!(standby.runs());
    let check = standby.run(&["check"]);
    check.assert_code(1).assert_says(&format!("runs with process id {}", standby.pid()));
    standby.stays_quiet_for(Duration::from_secs(1));
    scene.assert_untouched(&standby);
}

#[test]
fn a_group_is_not_there() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    for command in ["failover", "failback", "release", "ack"] {
        let ran = standby.run(&[command, "tradign"]);
        ran.assert_code(1).assert_says("there is no group tradign; there are: trading");
    }
    standby.run(&["hold"]).assert_code(2).assert_says("--reason");
    standby.run(&["hold", "--reason", " "]).assert_code(1).assert_says("say why");
    standby.run(&["frobnicate"]).assert_code(2);
    scene.assert_untouched(&standby);
}

// ---- secrets ----

#[test]
fn no_password_is_ever_shown() {
    const CANARY: &str = "canary-bird-7b1f";
    let scene = Scene::with(Postgres::options().scram());
    scene.sql(&format!("ALTER ROLE understudy PASSWORD '{CANARY}'"));
    let mut standby = scene.standby().without_setup().ready();
    let locked = Redis::with().replica_of(&scene.redis).password(CANARY).start();
    locked.wait_until_in_sync();
    standby.redis = Some(locked);
    let file = secret(&standby.path("canary"), CANARY);
    standby.configure("store.password", reference("file", &file));
    standby.configure("group.redis.password", reference("env", "BIRD"));
    standby.configure("group.redis.address", format!("127.0.0.1:{}", standby.redis().port));
    // Channels whose other side hangs up, refuses and repeats the secret, or is not there.
    let chatty = Http::start(&[Answer::With(500, format!("X-Repeated: {CANARY}"))]);
    let mute = Smtp::start(Manner::Refusing("AUTH", "535 canary-bird-7b1f is wrong"));
    let url = format!("http://127.0.0.1:{}/{CANARY}", chatty.port);
    let url = reference("file", &secret(&standby.path("url"), &url));
    for (name, kind) in [
        ("a", "webhook"),
        ("b", "slack"),
        ("c", "discord"),
        ("d", "alertmanager"),
        ("e", "pagerduty"),
    ] {
        standby.configure(&format!("alert.{name}.kind"), kind);
        standby.configure(&format!("alert.{name}.url"), url.clone());
    }
    standby.configure("alert.a.secret", reference("file", &file));
    standby.configure("alert.a.token", reference("file", &file));
    standby.configure("alert.e.routing_key", reference("file", &file));
    standby.configure("alerts.dead_man.url", url);
    for (key, value) in [
        ("kind", "email"),
        ("host", "127.0.0.1"),
        ("from", "a@example.net"),
        ("user", "understudy"),
    ] {
        standby.configure(&format!("alert.f.{key}"), value);
    }
    standby.configure("alert.f.port", i64::from(mute.port));
    standby.configure("alert.f.to", vec!["b@example.net"]);
    standby.configure("alert.f.password", reference("file", &file));
    standby.environment.push(("BIRD".to_owned(), CANARY.to_owned()));
    standby.environment.push(("UNDERSTUDY_LOG".to_owned(), "trace".to_owned()));
    set_up_with_password(&standby, &[("BIRD", CANARY)]);
    let mut said = String::new();
    let mut say = |standby: &Standby| {
        for command in COMMANDS.iter().skip(2).chain(&[
            &["check"][..],
            &["check", "--json"],
            &["status", "--json"],
            &["history", "--json"],
            &["failover", "--dry-run"],
            &["alert", "test"],
            &["alert", "test", "--json"],
        ]) {
            said += &format!("{:?}\n", standby.run_with(command, &[("BIRD", CANARY)]));
        }
    };
    // Before, during and after a takeover, and with everything broken.
    standby.start();
    standby.wait_until_watching();
    let cmdline = fs::read(format!("/proc/{}/cmdline", standby.pid())).unwrap();
    scene.silence(&standby);
    standby.wait_until_active();
    say(&standby);
    scene.sql("ALTER ROLE understudy PASSWORD 'changed'");
    scene
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'understudy'");
    standby.redis().run::<String>("CONFIG SET requirepass changed");
    standby.wait_for_log(&["password authentication failed"]);
    say(&standby);
    standby.configure("store.password", CANARY);
    standby.signal(nix::sys::signal::Signal::SIGHUP);
    standby.wait_for_log(&["the configuration was refused"]);
    say(&standby);
    standby.terminate();
    said += &standby.log();
    said += &standby.notified.all().join("\n");
    said += &String::from_utf8_lossy(&cmdline);
    for directory in ["state", "run"] {
        for file in files_in(&standby.path(directory)) {
            said += &String::from_utf8_lossy(&fs::read(file).unwrap_or_default());
        }
    }
    for table in ["failover", "event", "alert", "lease", "control"] {
        let rows =
            format!("SELECT coalesce(string_agg(t::text, ''), '') FROM understudy.{table} t");
        said += &scene.value(&rows);
    }
    assert!(said.len() > 10_000, "that was not everything");
    let at = said.find(CANARY);
    assert!(at.is_none(), "…{}", &said[at.unwrap().saturating_sub(300)..][..400]);
}

fn files_in(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files
}
