//! How the daemon behaves towards systemd and towards those who talk to it.

use std::io::Write;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use understudy::time::BootTime;

use super::WINDOW;
use crate::support::daemon::{Scene, Standby, TIMEOUT, control_socket, talk, until};

/// What the end of the process may take: a bound of its own for alerts, and the machine.
const QUICKLY: Duration = Duration::from_secs(5);

// ---- systemd ----

#[test]
fn systemd_hears_that_it_is_ready_how_it_is_and_that_it_ends() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    standby.notified.wait_for("STATUS=trading: ");
    standby.notified.wait_for("WATCHDOG=1");
    standby.notified.wait_for("READY=1");
    assert_eq!(standby.notified.all().iter().filter(|line| *line == "READY=1").count(), 1);
    let asked = BootTime::now();
    assert!(standby.terminate().success());
    assert!(BootTime::now().since(asked) < QUICKLY);
    assert!(standby.notified.has("STOPPING=1"));
    scene.assert_untouched(&standby);
}

#[test]
fn the_watchdog_is_fed_by_a_loop_that_turns_and_by_nothing_else() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    let fed_for = |span: Duration| {
        let start = BootTime::now();
        thread::sleep(span);
        standby.notified.since(start).iter().filter(|line| *line == "WATCHDOG=1").count()
    };
    // A quarter of the two seconds that systemd allows here, or a turn of a second.
    assert!(fed_for(Duration::from_secs(4)) >= 3);
    standby.signal(Signal::SIGSTOP);
    standby.wait_until_stopped();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(fed_for(Duration::from_secs(3)), 0);
    standby.signal(Signal::SIGCONT);
    assert!(fed_for(Duration::from_secs(4)) >= 3);
}

#[test]
fn the_watchdog_is_fed_while_the_store_hangs() {
    let mut scene = Scene::new();
    let standby = scene.standby().set("store.connect_timeout", "30s").watching();
    scene.postgres.freeze();
    let start = BootTime::now();
    thread::sleep(Duration::from_secs(6));
    let fed = standby.notified.since(start).iter().filter(|line| *line == "WATCHDOG=1").count();
    assert!(fed >= 4, "{fed}");
}

#[test]
fn it_ends_quickly_while_the_store_hangs() {
    let mut scene = Scene::new();
    let mut standby = scene.standby().set("store.connect_timeout", "30s").watching();
    scene.postgres.freeze();
    standby.wait_for("it to be noticed", |group| group.verdict == "unknown");
    // The next attempt to read is under way by then, and does not end for half a minute.
    thread::sleep(Duration::from_secs(2));
    let asked = BootTime::now();
    assert!(standby.terminate().success());
    assert!(BootTime::now().since(asked) < QUICKLY);
    assert!(standby.notified.has("STOPPING=1"));
}

#[test]
fn it_ends_quickly_while_units_are_being_started() {
    let scene = Scene::new();
    let lines = "ExecStartPre=/bin/sleep 30\nTimeoutStartSec=60";
    let mut standby =
        scene.standby().unit_lines(lines).set("group.start_deadline", "60s").watching();
    scene.silence(&standby);
    until("the units to be starting", || standby.units[0].property("ActiveState") == "activating");
    let asked = BootTime::now();
    assert!(standby.terminate().success());
    assert!(BootTime::now().since(asked) < QUICKLY);
}

// ---- reload ----

fn reload(standby: &Standby) {
    let asked = BootTime::now();
    standby.signal(Signal::SIGHUP);
    standby.notified.wait_for_since(asked, "READY=1");
    let told = standby.notified.since(asked);
    let position = |words: &str| told.iter().position(|line| line.starts_with(words));
    let (reloading, clock) =
        (position("RELOADING=1").unwrap(), position("MONOTONIC_USEC=").unwrap());
    assert!(reloading < position("READY=1").unwrap(), "{told:?}");
    assert!(clock.abs_diff(reloading) == 1, "in the same message: {told:?}");
}

#[test]
fn a_valid_configuration_is_applied_whole() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    standby.run(&["hold", "--reason", "elsewhere"]).assert_code(0);
    // Another group, and less for the present one.
    standby.split_off("second");
    reload(&standby);
    let status = standby.try_status().unwrap();
    assert_eq!(status.configuration_refused, None);
    let names: Vec<_> = status.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["second", "trading"]);
    // Each does what it was told: the one is held, the other takes over.
    scene.silence(&standby);
    until("the second group to be active", || {
        let status = standby.try_status();
        status.is_some_and(|status| status.groups[0].state == "active")
    });
    assert_eq!(standby.group().state, "standby");
    assert_eq!(standby.group().bots.len(), 1);
}

#[test]
fn an_invalid_configuration_is_refused_and_the_old_one_stays() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    for (key, wrong, words) in [
        ("watch.timeout", "1s", "watch.timeout"),
        ("group.cooldown", "five minutes", "cooldown"),
        ("node", "charlie", "only with a restart"),
        ("group.redis.ca_file", "/nonexistent.pem", "nonexistent"),
    ] {
        let good = standby.config.clone();
        standby.configure(key, wrong);
        reload(&standby);
        let refused = standby.try_status().unwrap().configuration_refused.unwrap();
        assert!(refused.contains(words), "{refused}");
        standby.run(&["status"]);
        assert!(standby.has_logged(&["the configuration was refused", "old one stays"]));
        standby.config = good;
        standby.write_config();
        reload(&standby);
        assert_eq!(standby.try_status().unwrap().configuration_refused, None);
    }
    standby.configure("watch.timeout", "1s");
    reload(&standby);
    // Only `status` of a good configuration can ask, so it is mended before a person looks.
    scene.silence(&standby);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn a_group_that_is_active_cannot_be_removed() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    scene.silence(&standby);
    standby.wait_until_active();
    let text = toml::to_string(&standby.config).unwrap().replace("group.trading", "group.other");
    std::fs::write(standby.config_file(), text).unwrap();
    reload(&standby);
    let status = standby.try_status().unwrap();
    let refused = status.configuration_refused.unwrap();
    assert!(refused.contains("group trading is missing from it"), "{refused}");
    assert!(refused.contains("understudy failback trading"), "{refused}");
    assert_eq!(status.groups[0].name, "trading");
    // Nor by a restart, with its units running and nobody to watch them.
    standby.write_config();
    reload(&standby);
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn it_is_loaded_again_while_the_store_hangs_and_the_loop_goes_on() {
    let mut scene = Scene::new();
    let mut standby = scene.standby().set("store.connect_timeout", "30s").watching();
    scene.postgres.freeze();
    standby.wait_for("it to be noticed", |group| group.verdict == "unknown");
    // The next attempt to read is under way by then, and does not end for half a minute.
    thread::sleep(Duration::from_secs(2));
    standby.configure("group.cooldown", "6m");
    let asked = BootTime::now();
    reload(&standby);
    assert!(BootTime::now().since(asked) < QUICKLY);
    thread::sleep(Duration::from_secs(3));
    let fed = standby.notified.since(asked).iter().filter(|line| *line == "WATCHDOG=1").count();
    assert!(fed >= 2, "{fed}");
    scene.postgres.thaw();
    standby.wait_until_watching();
    scene.assert_untouched(&standby);
}

#[test]
fn a_reload_does_not_shorten_or_forget_a_window() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    scene.silence(&standby);
    let start = BootTime::now();
    let mut cooldown = 300;
    until("the takeover", || {
        if scene.epoch(&standby) == 1 {
            return true;
        }
        cooldown += 1;
        standby.configure("group.cooldown", format!("{cooldown}s"));
        standby.signal(Signal::SIGHUP);
        thread::sleep(Duration::from_millis(300));
        false
    });
    assert!(BootTime::now().since(start) >= TIMEOUT);
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

// ---- the control socket ----

#[test]
fn clients_talk_nonsense() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    for line in [
        &b"\n"[..],
        b"status\n",
        b"{}\n",
        b"{\"ask\":\"status\"\n",
        b"{\"ask\":\"obliterate\"}\n",
        b"{\"ask\":\"failover\",\"group\":\"trading\"}\n",
        b"\x00\x01\x02\x03\n",
    ] {
        // Not everything that is not text can even be answered.
        let answer = talk(&standby, line).unwrap();
        assert!(answer.is_empty() || answer.contains("\"refused\""), "{answer}");
    }
    let long = vec![b'x'; 2_000_000];
    let _closed_on = talk(&standby, &long);
    let deep = ["[".repeat(60_000), "\n".to_owned()].concat();
    talk(&standby, deep.as_bytes()).unwrap();
    drop(control_socket(&standby).unwrap());
    let group = "{\"ask\":\"failover\",\"group\":\"../../etc\",\"force\":true,\"by\":\"x\",\"reason\":\"\"}\n";
    assert!(talk(&standby, group.as_bytes()).unwrap().contains("there is no group"));
    assert_eq!(standby.group().state, "standby");
    scene.assert_untouched(&standby);
}

#[test]
fn a_hundred_clients_hang_and_a_takeover_goes_on_all_the_same() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    let start = BootTime::now();
    let mut clients: Vec<_> = (0..100).map(|_| control_socket(&standby).unwrap()).collect();
    for client in clients.iter_mut().take(50) {
        // Half a question.
        client.write_all(b"{\"ask\":").unwrap();
    }
    scene.silence(&standby);
    until("the takeover", || scene.epoch(&standby) == 1);
    let fed = standby.notified.since(start).iter().filter(|line| *line == "WATCHDOG=1").count();
    assert!(fed >= 2, "{fed}");
    standby.wait_until_active();
    scene.assert_taken_over(&standby, 1);
}

#[test]
fn a_hundred_clients_ask_at_once_and_all_are_answered() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let answer = talk(&standby, b"{\"ask\":\"status\"}\n").unwrap();
                assert!(answer.contains("\"trading\""), "{answer}");
            });
        }
    });
    standby.stays_quiet_for(WINDOW);
    scene.assert_untouched(&standby);
}

#[test]
fn a_client_does_not_read_its_answer() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    let mut clients: Vec<_> = (0..20).map(|_| control_socket(&standby).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"{\"ask\":\"status\"}\n").unwrap();
    }
    for _ in 0..20 {
        assert_eq!(standby.group().state, "standby");
    }
}

#[test]
fn a_stranger_on_this_host_is_not_answered() {
    let scene = Scene::new();
    let standby = scene.standby().watching();
    for command in [&["status"][..], &["failover", "--yes", "--force"]] {
        let ran = standby.run_as_nobody(command);
        ran.assert_code(69).assert_says("only root and the group of understudy");
    }
    scene.assert_untouched(&standby);
}
