//! Each kind of check, when all is well and when what it asks is down, hangs, floods or lies.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use understudy::time::BootTime;

use super::Bench;
use crate::support::daemon::{now, until};
use crate::support::http::{Answer, Http};
use crate::support::postgres::Postgres;
use crate::support::prometheus::Prometheus;
use crate::support::redis::Redis;

/// What a check of these tests may take at most, with the rest of the program and a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Several checks of a kind as a configuration: name and lines of each.
fn checks(kind: &str, common: &str, each: &[(&str, &str)]) -> String {
    let table = |(name, lines): &(&str, &str)| {
        format!("[check.{name}]\nkind = \"{kind}\"\n{common}\n{lines}\n")
    };
    each.iter().map(table).collect()
}

#[test]
fn postgres_returns_one_number_and_nothing_else() {
    let postgres = now(async {
        let postgres = Postgres::start().await;
        postgres.sql("CREATE TABLE trades (pnl numeric)").await;
        postgres.sql("INSERT INTO trades VALUES (1.5), (-2), (3), (4)").await;
        postgres
    });
    let server = format!(
        "[server.db]\nkind = \"postgres\"\nhosts = [\"{}:{}\"]\ndatabase = \"postgres\"\n\
         user = \"postgres\"\n",
        postgres.socket_directory().display(),
        postgres.port()
    );
    let common = "server = \"db\"\ndeadline = \"2s\"";
    let queries = [
        ("count", "query = \"SELECT count(*) FROM trades\"\nwarning = \"> 3\""),
        (
            "numeric",
            "query = \"SELECT 100.0 * count(*) FILTER (WHERE pnl > 0) / count(*) FROM trades;\"",
        ),
        ("with", "query = \"WITH t AS (SELECT 7 AS n) SELECT n FROM t -- the end\""),
        ("truth", "query = \"SELECT true\""),
        ("text", "query = \"SELECT '42.5'\""),
        ("none", "query = \"SELECT pnl FROM trades WHERE false\""),
        ("many", "query = \"SELECT pnl FROM trades\""),
        ("wide", "query = \"SELECT 1, 2\""),
        ("null", "query = \"SELECT max(pnl) FROM trades WHERE false\""),
        ("word", "query = \"SELECT 'ok'\""),
        ("broken", "query = \"SELEKT 1\""),
        ("writes", "query = \"DELETE FROM trades RETURNING 1\""),
        ("sly", "query = \"SELECT 1) AS x; COMMIT; DELETE FROM trades; SELECT * FROM (SELECT 1\""),
        ("slow", "query = \"SELECT 1 FROM pg_sleep(60)\""),
        ("flood", "query = \"SELECT repeat('x', 100000000)\""),
        ("after", "query = \"SELECT count(*) FROM trades\""),
    ];
    let bench = Bench::new(&(server + &checks("postgres", common, &queries)));
    let found = bench.measure();
    assert_eq!(found.value("count"), 4.0);
    assert_eq!((found.level("count"), found.text("count")), ("yellow", "4 (> 3)"));
    assert_eq!(found.value("numeric"), 75.0);
    assert_eq!(found.value("with"), 7.0);
    assert_eq!(found.value("truth"), 1.0);
    assert_eq!(found.value("text"), 42.5);
    for (name, words) in [
        ("none", "no row"),
        ("many", "more than one row"),
        ("wide", "one column"),
        ("null", "NULL"),
        ("word", "one number"),
        ("broken", "syntax error"),
        ("writes", "syntax error"),
    ] {
        assert!(found.fault(name).contains(words), "{name}: {}", found.fault(name));
        assert_eq!(found.level(name), "red");
    }
    let slow = found.fault("slow");
    assert!(slow.contains("timeout") || slow.contains("within"), "{slow}");
    // A slow server may need more than the deadline to make it.
    let flood = found.fault("flood");
    assert!(
        ["one number", "timeout", "within"].iter().any(|words| flood.contains(words)),
        "{flood}"
    );
    // Whatever those did, the session of the next is a good one.
    let again = bench.measure();
    assert_eq!(again.value("after"), 4.0);
    // A query that breaks out of its frame is the operator's own; but the transaction only reads.
    assert_eq!(now(postgres.value("SELECT count(*) FROM trades")), "4");
}

#[test]
fn postgres_that_is_down_is_red_and_says_why() {
    let bench = Bench::new("[check.x]\nkind = \"postgres\"\nquery = \"SELECT 1\"\n");
    let found = bench.measure();
    assert!(found.fault("x").contains("127.0.0.1:1"), "{}", found.fault("x"));
    assert_eq!(
        (found.level("x"), &found.0["score"], &found.0["band"]),
        ("red", &0.0.into(), &"critical".into())
    );
}

#[test]
fn redis_is_measured_and_its_sets_are_compared() {
    let redis = Redis::start();
    for words in [
        "SADD active BTCUSDT ETHUSDT SOL*USDT",
        "SET price:BTCUSDT 42000.5",
        "SET price:SOL*USDT 7",
        "SET price:DOGEUSDT 7",
        "ZADD ranked 1 BTCUSDT 2 ETHUSDT",
        "HSET owner BTCUSDT ann ETHUSDT bob",
        "RPUSH queue BTCUSDT ETHUSDT",
    ] {
        let _: redis::Value = redis.run(words);
    }
    redis.fill(5_000);
    let server =
        format!("[server.cache]\nkind = \"redis\"\naddress = \"127.0.0.1:{}\"\n", redis.port);
    let each = [
        ("clients", "field = \"connected_clients\""),
        ("keys-field", "field = \"db0.keys\""),
        ("version", "field = \"redis_version\""),
        ("nothing", "field = \"quite_unheard_of\""),
        ("prices", "keys = \"price:*\""),
        ("all", "keys = \"*\""),
        ("price", "value = \"price:BTCUSDT\""),
        ("gone", "value = \"price:XRPUSDT\""),
        ("audit", "expect = \"active\"\nactual = \"price:*\"\ncritical = \"> 0\""),
        ("ranked", "expect = \"ranked\"\nactual = \"owner\"\ncritical = \"> 0\""),
        ("queue", "expect = \"queue\"\nactual = \"ranked\""),
        ("absent", "expect = \"no_such_set\"\nactual = \"ranked\""),
        ("other-database", "database = 1\nkeys = \"*\""),
        ("each", "each = [\"BTCUSDT\", \"DOGEUSDT\"]\nvalue = \"price:{each}\""),
    ];
    let found = Bench::new(&(server + &checks("redis", "", &each))).measure();
    assert!(found.value("clients") >= 1.0);
    let all = found.value("all");
    assert!(all >= 5_000.0);
    assert_eq!(found.value("keys-field"), all);
    assert_eq!(found.value("prices"), 3.0);
    assert_eq!(found.value("price"), 42_000.5);
    assert_eq!(found.value("other-database"), 0.0);
    assert_eq!(found.value("each/BTCUSDT"), 42_000.5);
    assert_eq!(found.value("each/DOGEUSDT"), 7.0);
    assert!(found.fault("version").contains("no number"));
    assert!(found.fault("nothing").contains("no field"));
    assert!(found.fault("gone").contains("no key price:XRPUSDT"));
    assert_eq!((found.value("audit"), found.level("audit")), (2.0, "red"));
    assert_eq!(found.details("audit"), ["missing ETHUSDT", "extra DOGEUSDT"]);
    let expected = "2 (> 0): 3 expected, 3 there: 1 missing, 1 extra";
    assert_eq!(found.text("audit"), expected);
    assert_eq!((found.value("ranked"), found.value("queue")), (0.0, 0.0));
    assert_eq!(found.value("absent"), 2.0);
}

#[test]
fn redis_that_hangs_is_a_fault_in_time() {
    let redis = Redis::start();
    redis.freeze();
    let server =
        format!("[server.cache]\nkind = \"redis\"\naddress = \"127.0.0.1:{}\"\n", redis.port);
    let each: Vec<_> = ["a", "b", "c", "d"].map(|name| (name, "field = \"used_memory\"")).to_vec();
    let bench = Bench::new(&(server + &checks("redis", "deadline = \"500ms\"", &each)));
    let began = BootTime::now();
    let found = bench.measure();
    redis.thaw();
    for (name, _) in each {
        assert!(found.fault(name).contains("within"), "{}", found.fault(name));
    }
    assert!(BootTime::now().since(began) < SOON);
}

#[test]
fn http_is_measured_however_it_answers() {
    let prometheus = Prometheus::start();
    let bad = |answer| Http::start(&[answer]);
    let (failing, silent) = (bad(Answer::Status(500)), bad(Answer::Silence));
    let (garbage, drip) = (bad(Answer::Garbage), bad(Answer::Drip));
    let url = |port: u16, path: &str| format!("url = \"http://127.0.0.1:{port}{path}\"");
    let real = |path: &str| url(prometheus.port, path);
    let build = real("/api/v1/status/buildinfo");
    let flood = flood();
    let each = [
        ("latency", format!("{}\ncritical = \"> 10s\"", real("/-/healthy"))),
        ("words", format!("{}\ncontains = \"Healthy\"", real("/-/healthy"))),
        ("other-words", format!("{}\ncontains = \"Sick\"", real("/-/healthy"))),
        ("status", format!("{}\nmeasure = \"status\"", real("/nowhere"))),
        ("nowhere", real("/nowhere")),
        ("allowed", format!("{}\nstatus = [\"404\"]", real("/nowhere"))),
        ("json", format!("{build}\njson = \"$.status\"\nexpect = \"success\"\ncritical = \"< 1\"")),
        ("no-json", format!("{build}\njson = \"$.data.nothing\"")),
        ("failing", url(failing.port, "/")),
        (
            "success",
            format!("{}\nmeasure = \"success\"\ncritical = \"< 95\"", url(failing.port, "/")),
        ),
        ("silent", url(silent.port, "/")),
        ("garbage", url(garbage.port, "/")),
        ("drip", url(drip.port, "/")),
        ("flood", url(flood, "/")),
        ("refused", url(1, "/")),
    ];
    let each: Vec<_> = each.iter().map(|(name, lines)| (*name, lines.as_str())).collect();
    let bench = Bench::new(&checks("http", "deadline = \"2s\"", &each));
    let began = BootTime::now();
    let found = bench.measure();
    assert!(BootTime::now().since(began) < SOON);
    assert!((0.0..10.0).contains(&found.value("latency")), "{}", found.text("latency"));
    assert_eq!(found.level("words"), "green");
    assert!(found.fault("other-words").contains("not with the words"));
    assert_eq!(found.value("status"), 404.0);
    assert!(found.fault("nowhere").contains("404"));
    assert_eq!(found.level("allowed"), "green");
    assert_eq!((found.value("json"), found.level("json")), (1.0, "green"));
    assert!(found.fault("no-json").contains("nothing at nothing"));
    assert!(found.fault("failing").contains("it answered 500"));
    assert_eq!((found.value("success"), found.level("success")), (0.0, "red"));
    assert_eq!(found.fault("silent"), "no answer within 2s");
    let flooded = found.fault("flood");
    assert!(flooded.contains("longer than 4 MiB"), "{flooded}");
    for broken in ["garbage", "refused", "drip"] {
        assert!(!found.fault(broken).is_empty());
        assert!(!found.fault(broken).contains("http://"), "{}", found.fault(broken));
    }
}

/// A server whose answer has no end.
fn flood() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
            // Who answers before it was asked is refused for that alone.
            let asked = stream.read(&mut [0; 4096]).is_ok();
            let mut alive = asked && stream.write_all(head.as_bytes()).is_ok();
            while alive {
                alive = stream.write_all(&[b'x'; 64 * 1024]).is_ok();
            }
        }
    });
    port
}

#[test]
fn units_are_measured_in_numbers() {
    let bench = Bench::new("");
    let busy =
        bench.container.service("ExecStart=/bin/sh -c 'while :; do :; done'\nCPUAccounting=yes");
    let broken = bench.container.service("ExecStart=/bin/false\nRestart=always\nRestartSec=10ms");
    let idle = bench.container.service("ExecStart=/bin/sleep infinity");
    for unit in [busy.name(), broken.name()] {
        // The broken one fails, which is what it is for.
        drop(bench.container.try_run(&["systemctl", "start", &unit]));
    }
    until("the start limit to be hit", || {
        broken.property("NRestarts").parse::<u32>().unwrap_or(0) >= 4
    });
    let unit = |unit: &str, measure: &str| format!("unit = \"{unit}\"\nmeasure = \"{measure}\"\n");
    let each = [
        ("active", unit(&busy.name(), "active") + "critical = \"< 1\""),
        ("inactive", unit(&idle.name(), "active") + "critical = \"< 1\""),
        ("uptime", unit(&busy.name(), "uptime")),
        ("cpu", unit(&busy.name(), "cpu")),
        ("memory", unit(&busy.name(), "memory")),
        ("restarts", unit(&broken.name(), "restarts") + "warning = \"> 2\""),
        ("missing", unit("no-such-thing.service", "active")),
    ];
    let each: Vec<_> = each.iter().map(|(name, lines)| (*name, lines.as_str())).collect();
    let bench = Bench::new(&checks("unit", "", &each));
    let found = bench.measure_inside();
    assert_eq!((found.value("active"), found.level("active")), (1.0, "green"));
    assert_eq!((found.value("inactive"), found.level("inactive")), (0.0, "red"));
    assert!((0.0..600.0).contains(&found.value("uptime")), "{}", found.text("uptime"));
    assert!(found.value("cpu") > 1.0, "{}", found.text("cpu"));
    assert!((100_000.0..1e9).contains(&found.value("memory")), "{}", found.text("memory"));
    assert_eq!(found.level("restarts"), "yellow", "{}", found.text("restarts"));
    assert!(found.fault("missing").contains("no unit no-such-thing.service"));
}

#[test]
fn the_journal_is_searched_for_what_a_unit_wrote() {
    let bench = Bench::new("");
    let bot = bench.container.service(
        "ExecStart=/bin/sh -c 'echo started; sleep 1; echo warm-up completed; \
         for i in 1 2 3; do echo \"ERROR number $i\"; done; echo error in lower case; exec sleep infinity'",
    );
    let quiet = bench.container.service("ExecStart=/bin/sleep infinity");
    bench.container.run(&["systemctl", "start", &bot.name(), &quiet.name()]);
    let written = || {
        let unit = format!("--unit={}", bot.name());
        bench.container.run(&["journalctl", "--no-pager", &unit]).contains("lower case")
    };
    until("the bot to have written", written);
    let of = |unit: &str, lines: &str| format!("unit = \"{unit}\"\n{lines}");
    let bot = bot.name();
    let each = [
        ("errors", of(&bot, "pattern = \"ERROR|CRITICAL\"\ncritical = \">= 3\"\nwindow = \"1h\"")),
        ("any-case", of(&bot, "pattern = \"(?i)error\"")),
        ("none", of(&bot, "pattern = \"quite unheard of\"\nwarning = \"> 0\"")),
        ("age", of(&bot, "pattern = \"warm-up\"\nmeasure = \"age\"")),
        ("never", of(&bot, "pattern = \"quite unheard of\"\nmeasure = \"age\"")),
        (
            "warm-up",
            of(
                &bot,
                "pattern = \"warm-up completed\"\nmeasure = \"after_start\"\ncritical = \"> 60s\"",
            ),
        ),
        ("cold", of(&quiet.name(), "pattern = \"warm-up completed\"\nmeasure = \"after_start\"")),
        ("not-started", of("no-such-thing.service", "pattern = \"x\"\nmeasure = \"after_start\"")),
        ("nonsense", of(&bot, "pattern = \"(\"")),
    ];
    let each: Vec<_> = each.iter().map(|(name, lines)| (*name, lines.as_str())).collect();
    let bench = Bench::new(&checks("journal", "deadline = \"20s\"", &each));
    let found = bench.measure_inside();
    assert_eq!((found.value("errors"), found.level("errors")), (3.0, "red"));
    assert_eq!(found.value("any-case"), 4.0);
    assert_eq!((found.value("none"), found.level("none")), (0.0, "green"));
    assert!((0.0..600.0).contains(&found.value("age")), "{}", found.text("age"));
    assert!(found.fault("never").contains("nothing like it"));
    assert!((0.9..60.0).contains(&found.value("warm-up")), "{}", found.text("warm-up"));
    assert_eq!(found.level("warm-up"), "green");
    assert!(found.text("cold").contains("has not come yet"), "{}", found.text("cold"));
    assert!(found.fault("not-started").contains("not started yet"));
    assert!(found.fault("nonsense").contains("journalctl"), "{}", found.fault("nonsense"));
    // Not to be allowed to look is not to find nothing.
    let stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let found = bench.measure_inside_as(&stranger);
    assert!(found.fault("errors").contains("systemd-journal"), "{}", found.fault("errors"));
}

#[test]
fn this_host_is_measured() {
    let each = [
        ("cpu", "measure = \"cpu\""),
        ("memory", "measure = \"memory\""),
        ("swap", "measure = \"swap\""),
        ("disk", "measure = \"disk\"\npath = \"/\""),
        ("inodes", "measure = \"inodes\"\npath = \"/\""),
        ("nowhere", "measure = \"disk\"\npath = \"/no/such/place\""),
        ("load", "measure = \"load\""),
    ];
    let found = Bench::new(&checks("host", "", &each)).measure();
    for percent in ["cpu", "memory", "swap", "disk", "inodes"] {
        assert!((0.0..=100.0).contains(&found.value(percent)), "{}", found.text(percent));
    }
    assert!(found.value("memory") > 0.0 && found.value("disk") > 0.0);
    assert!((0.0..1_000.0).contains(&found.value("load")));
    assert!(found.fault("nowhere").contains("/no/such/place"));
}

#[test]
fn plugins_say_how_it_is_and_may_do_as_they_like() {
    let bench = Bench::new("");
    let script = |name: &str, text: &str| format!("command = [\"{}\"]\n", bench.script(name, text));
    let two = script("two", "echo 'POOL WARNING - 85 of 100 | used=85;80;90 idle=15'\nexit 1");
    let each = [
        ("load", "command = [\"/usr/lib/nagios/plugins/check_load\", \"-w\", \"9999\", \"-c\", \"9999\"]".to_owned()),
        ("yellow", two.clone()),
        ("idle", two.clone() + "figure = \"idle\"\ncritical = \"< 20\""),
        ("no-figure", two + "figure = \"quite_unheard_of\""),
        ("red", script("red", "echo 'CRITICAL - down'\nexit 2")),
        ("unknown", script("unknown", "echo 'UNKNOWN - no route'\nexit 3")),
        ("keeps", script("keeps", "exit 3") + "on_fault = \"keep\""),
        ("hangs", script("hangs", "echo OK; sleep 60 & sleep 60")),
        ("floods", script("floods", "yes 'OK | x=1' | head -c 100000000")),
        ("ansi", script("ansi", "printf 'OK \\033[31mred\\033[0m \\000\\n'")),
        ("missing", "command = [\"/no/such/plugin\"]".to_owned()),
    ];
    let each: Vec<_> = each.iter().map(|(name, lines)| (*name, lines.as_str())).collect();
    let measured = Bench::new(&checks("command", "deadline = \"3s\"", &each));
    let found = measured.measure();
    assert_eq!(found.level("load"), "green", "{}", found.text("load"));
    assert!(found.value("load") >= 0.0);
    assert_eq!((found.level("yellow"), found.value("yellow")), ("yellow", 85.0));
    assert_eq!(found.text("yellow"), "85: POOL WARNING - 85 of 100");
    assert_eq!((found.level("idle"), found.value("idle")), ("red", 15.0));
    assert!(found.fault("no-figure").contains("no figure quite_unheard_of"));
    assert_eq!((found.level("red"), found.text("red")), ("red", "CRITICAL - down"));
    assert!(found.fault("unknown").contains("UNKNOWN - no route"));
    assert_eq!(found.level("keeps"), "unknown");
    assert!(found.fault("hangs").contains("within"), "{}", found.fault("hangs"));
    assert_eq!(found.level("floods"), "green", "{}", found.text("floods"));
    assert_eq!(found.text("ansi"), "OK  [31mred [0m");
    assert!(found.fault("missing").contains("cannot be run"));
}

#[test]
fn a_prometheus_is_asked_and_an_exporter_scraped() {
    let prometheus = Prometheus::start();
    prometheus.wait_for("up == 1");
    let server = format!("url = \"http://127.0.0.1:{}\"\n", prometheus.port);
    let exporter = format!("url = \"http://127.0.0.1:{}/metrics\"\n", prometheus.port);
    let each = [
        ("up", server.clone() + "query = \"up\"\ncritical = \"< 1\""),
        ("scalar", server.clone() + "query = \"scalar(up) + 1\""),
        ("many", server.clone() + "query = 'prometheus_http_requests_total'\nreduce = \"count\""),
        ("nothing", server.clone() + "query = \"quite_unheard_of\""),
        ("none", server.clone() + "query = \"quite_unheard_of\"\nreduce = \"count\""),
        ("broken", server + "query = \"sum(\""),
        ("metric", exporter.clone() + "metric = \"prometheus_ready\""),
        (
            "label",
            exporter.clone()
                + "metric = 'prometheus_http_requests_total{code=\"200\"}'\nreduce = \"sum\"",
        ),
        ("absent", exporter + "metric = \"quite_unheard_of\""),
        ("no-server", "url = \"http://127.0.0.1:1\"\nquery = \"up\"".to_owned()),
    ];
    let each: Vec<_> = each.iter().map(|(name, lines)| (*name, lines.as_str())).collect();
    let found = Bench::new(&checks("prometheus", "", &each)).measure();
    assert_eq!((found.value("up"), found.level("up")), (1.0, "green"));
    assert_eq!(found.value("scalar"), 2.0);
    assert!(found.value("many") > 1.0);
    assert_eq!(found.value("none"), 0.0);
    assert!(found.fault("nothing").contains("no sample"));
    assert!(found.fault("broken").contains("parse error"), "{}", found.fault("broken"));
    assert_eq!(found.value("metric"), 1.0);
    assert!(found.value("label") >= 1.0);
    assert!(found.fault("absent").contains("no sample"));
    assert!(!found.fault("no-server").is_empty());
}
