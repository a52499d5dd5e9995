//! What checks measured, in the store and on the way there: summed by the hour, kept on disk while the
//! store is away, forgotten in time, and compared with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use understudy::adapters::postgres::archive::Archive;
use understudy::monitor::archive::Chunk;

use super::daemon::wait_for_level;
use crate::support::daemon::{Plan, Scene, Standby, now, until};

const HOUR_MS: i64 = 3_600_000;

/// A standby that looks at the load ten times a second and brings that to the store three times.
fn measuring(scene: &Scene) -> Plan<'_> {
    scene
        .standby()
        .without_redis()
        .set("check.load.kind", "host")
        .set("check.load.measure", "load")
        .set("check.load.interval", "100ms")
        .set("check.load.group", "host")
        .set("monitor.flush", "300ms")
}

fn samples(scene: &Scene) -> i64 {
    scene
        .value("SELECT coalesce(sum(cardinality(vals)), 0) FROM understudy.check_chunk")
        .parse()
        .unwrap()
}

fn spooled(standby: &Standby) -> usize {
    fs::read_dir(standby.path("state").join("samples")).map_or(0, Iterator::count)
}

#[test]
fn samples_reach_the_store_and_are_summed_up_by_the_hour() {
    let scene = Scene::new();
    let mut standby = measuring(&scene).running();
    until("thirty samples to be in the store", || samples(&scene) >= 30);
    standby.terminate();
    let lost = "SELECT count(*) FROM understudy.check_chunk c, unnest(c.vals) v WHERE v IS NULL";
    assert_eq!(scene.value(lost), "0");
    let sums = "SELECT sum(samples) = (SELECT sum(cardinality(vals)) FROM understudy.check_chunk) \
                AND sum(green) = sum(samples) AND min(least) >= 0 AND bool_and(p50 <= p95) \
                FROM understudy.check_hour";
    assert_eq!(scene.value(sums), "t");
    let series =
        "SELECT node || ' ' || name || ' ' || grp || ' ' || kind FROM understudy.check_series";
    assert_eq!(scene.value(series), "bravo load host host");
}

#[test]
fn what_is_measured_while_the_store_is_away_is_there_afterwards() {
    let mut scene = Scene::new();
    let mut standby = measuring(&scene).running();
    until("samples to be in the store", || samples(&scene) >= 5);
    scene.stop_store();
    until("samples to be on disk", || spooled(&standby) >= 3);
    standby.wait_for_log(&["samples are kept on disk meanwhile"]);
    // Another process goes on where this one ended.
    standby.terminate();
    let left = spooled(&standby);
    assert!(left >= 3, "{left}");
    standby.start();
    until("more samples to be on disk", || spooled(&standby) > left);
    let away = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    scene.resume_store();
    until("all samples to be in the store", || spooled(&standby) == 0);
    let before = format!(
        "SELECT count(*) > 3 FROM understudy.check_chunk, unnest(offsets) o \
         WHERE extract(epoch FROM at) * 1000 + o BETWEEN {} AND {away}",
        away - 2_000
    );
    assert_eq!(scene.value(&before), "t");
}

#[test]
fn the_end_of_the_daemon_loses_nothing() {
    let scene = Scene::new();
    let mut standby = measuring(&scene).set("monitor.flush", "1h").running();
    wait_for_level(&standby, "load", "green");
    assert_eq!(samples(&scene), 0);
    standby.terminate();
    standby.start();
    until("the samples of the process before to be in the store", || samples(&scene) > 0);
}

#[test]
fn a_check_is_compared_with_what_it_was_like() {
    let scene = Scene::new();
    let mut standby = measuring(&scene).ready();
    let (plugin, value) = (standby.path("plugin"), standby.path("value"));
    let script = format!("#!/bin/sh\necho \"OK | x=$(cat {})\"\n", value.display());
    fs::write(&plugin, script).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&value, "100").unwrap();
    standby.configure("check.pool.kind", "command");
    standby.configure("check.pool.command", vec![plugin.display().to_string()]);
    standby.configure("check.pool.interval", "200ms");
    standby.configure("check.pool.critical", "> baseline + 30%");
    standby.configure("check.pool.warning", "> baseline.p95 + 10");
    standby.start();
    standby.notified.wait_for("READY=1");
    wait_for_level(&standby, "pool", "green");
    let unknown = standby.run(&["health", "pool"]);
    assert!(unknown.out.contains("is not known yet"), "{}", unknown.out);

    let none = standby.run(&["baseline", "compare", "default"]);
    assert!(none.err.contains("no baseline default"), "{}", none.err);
    until("twenty samples to be in the store", || samples(&scene) >= 20);
    let saved = standby.run(&["baseline", "save", "default", "--over", "1h"]);
    assert!(saved.out.contains("saved as default: 2 checks over 1h"), "{}{}", saved.out, saved.err);
    fs::write(&value, "140").unwrap();
    wait_for_level(&standby, "pool", "red");
    fs::write(&value, "120").unwrap();
    wait_for_level(&standby, "pool", "yellow");
    fs::write(&value, "100").unwrap();
    wait_for_level(&standby, "pool", "green");

    let listed = standby.run(&["baseline", "list"]);
    assert!(listed.out.contains("default") && listed.out.contains("2 checks over 1h"));
    let compared = standby.run(&["--json", "baseline", "compare", "default", "--over", "1h"]);
    let compared: serde_json::Value = serde_json::from_str(&compared.out).unwrap();
    let pool = compared.as_array().unwrap().iter().find(|line| line["check"] == "pool").unwrap();
    assert_eq!(pool["baseline"], 100.0);
    assert!(pool["now"].as_f64().unwrap() > 100.0, "{pool}");
    let too_long = standby.run(&["baseline", "save", "x", "--over", "300d"]);
    assert!(too_long.err.contains("monitor.keep"), "{}", too_long.err);
    standby.run(&["baseline", "remove", "default"]).assert_code(0);
    assert!(standby.run(&["baseline", "list"]).out.contains("nothing is saved"));
}

fn chunk(name: &str, at_ms: i64, vals: &[f32]) -> Chunk {
    Chunk {
        name: name.to_owned(),
        grp: "g".to_owned(),
        kind: "host".to_owned(),
        suffix: "%".to_owned(),
        at_ms,
        offsets: (0..).map(|n| n * 1_000).take(vals.len()).collect(),
        vals: vals.iter().copied().map(Some).collect(),
        levels: "gyr".chars().cycle().take(vals.len()).collect(),
    }
}

#[test]
fn the_archive_takes_chunks_once_and_forgets_them_in_time() {
    let scene = Scene::new();
    // Its setup is what is needed.
    let _standby = measuring(&scene).ready();
    let mut archive = Archive::new(&scene.postgres.store_as("understudy"), "bravo").unwrap();
    let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let hour = i64::try_from(today).unwrap() / HOUR_MS * HOUR_MS - HOUR_MS;
    let days = |count: i64| hour - count * 24 * HOUR_MS;
    let batch = [
        chunk("a", hour, &[1.0, 2.0, 6.0]),
        chunk("a", hour + 60_000, &[3.0]),
        chunk("b;DROP TABLE x", hour, &[1.0]),
        chunk("a", days(3), &[5.0]),
        chunk("a", days(100), &[5.0]),
        chunk("a", hour + 90 * 24 * HOUR_MS, &[5.0]),
    ];
    now(async {
        for _ in 0..2 {
            archive.store(&batch, 14).await.unwrap();
        }
    });
    assert_eq!(samples(&scene), 6);
    let sums = "SELECT samples || ' ' || total || ' ' || squares || ' ' || least || ' ' || greatest || \
                ' ' || p50 || ' ' || green || ' ' || yellow || ' ' || red FROM understudy.check_hour h \
                JOIN understudy.check_series s ON s.id = h.series WHERE s.name = 'a' \
                ORDER BY hour DESC LIMIT 1";
    assert_eq!(scene.value(sums), "4 12 50 1 6 2.5 2 1 1");
    let figures = now(archive.figures(Duration::from_secs(7 * 86_400))).unwrap();
    let a = &figures.iter().find(|figures| figures.name == "a").unwrap().baseline;
    assert_eq!((a.samples, a.mean, a.least, a.greatest), (5, 3.4, 1.0, 6.0));
    assert_eq!(a.percentiles.len(), 99);

    let parts =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'understudy.check_chunk'::regclass";
    assert_eq!(scene.value(parts), "2");
    now(archive.forget(2, 400)).unwrap();
    assert_eq!(scene.value(parts), "1");
    assert_eq!(samples(&scene), 5);
    let hours = "SELECT count(DISTINCT hour) FROM understudy.check_hour";
    assert_eq!(scene.value(hours), "2");
    now(archive.forget(2, 2)).unwrap();
    assert_eq!(scene.value(hours), "1");
}
