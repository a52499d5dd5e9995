//! The status page in a real browser. The pictures are in `target/tmp/screenshots`.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::browser::{Browser, Screen};
use crate::support::client::{get, try_get};
use crate::support::daemon::{Plan, Scene, Standby, until};
use crate::support::redis::free_port;

const DESKTOP: Screen = Screen { width: 1280, phone: false, dark: false };
const PHONE: Screen = Screen { width: 390, phone: true, dark: false };

/// A name that a person with access to the table could give a bot.
const HOSTILE_BOT: &str = "<img src=x onerror=document.title='owned'>";

/// And a reason of somebody with the right to hold.
const HOSTILE_REASON: &str = "\"'</bdi></script><script>document.title='owned'</script>&amp;";

fn served(plan: Plan<'_>) -> (Plan<'_>, String, u16) {
    let port = free_port();
    let plan = plan.set("http.listen", vec![format!("127.0.0.1:{port}")]);
    (plan, format!("http://127.0.0.1:{port}/"), port)
}

fn wait_for_page(port: u16) {
    until("the page", || try_get(port, "/", &[]).is_ok_and(|answer| answer.code == 200));
}

#[test]
fn a_browser_shows_it_live_and_runs_nothing_of_others() {
    let scene = Scene::new();
    let (plan, address, port) = served(scene.standby());
    let mut standby = plan.ready();
    // The table takes any name, and so does the configuration.
    let quoted = HOSTILE_BOT.replace('\'', "''");
    scene.sql(&format!("UPDATE bot_status SET bot_name = '{quoted}' WHERE bot_name = 'crypto'"));
    standby.configure("group.bots", vec!["equity".to_owned(), HOSTILE_BOT.to_owned()]);
    standby.configure("group.stale", "all");
    standby.write_config();
    standby.start();
    wait_for_page(port);
    standby.run(&["hold", "--for", "2h", "--reason", HOSTILE_REASON]).assert_code(0);
    until("the hold to be read", || get(port, "/").body.contains("&lt;script&gt;document.title"));

    let mut browser = Browser::start();
    browser.open(&address, DESKTOP);
    live(&mut browser);
    assert_eq!(browser.value("document.title"), "Held · understudy on bravo");
    assert_eq!(browser.value("document.images.length"), 0);
    assert_eq!(browser.value("document.scripts.length"), 1);
    let text = browser.value("document.body.innerText");
    assert!(text.as_str().unwrap().contains(HOSTILE_BOT), "{text}");
    assert!(text.as_str().unwrap().contains(HOSTILE_REASON), "{text}");
    browser.picture("hostile.png");
    // What comes by events is no less harmless than what came with the page.
    standby.run(&["release"]).assert_code(0);
    browser.wait_until("document.querySelector('h1').textContent.includes('Standing by')");
    assert_eq!(browser.value("document.images.length"), 0);
    // The page says that it is old when nobody tells it news any more.
    standby.kill9();
    browser.wait_until("document.getElementById('live').className == 'off'");
    let complaints = browser.complaints();
    // That the connection is gone is the one thing to complain of.
    assert!(complaints.iter().all(|text| text.contains("net::ERR_")), "{complaints:?}");
}

#[test]
fn pictures_on_a_desk_and_on_a_phone_by_day_and_by_night() {
    let scene = Scene::new();
    let (plan, address, port) = served(scene.standby());
    let standby = plan.set("group.settle", "2s").watching();
    wait_for_page(port);
    let mut browser = Browser::start();
    look_at(&mut browser, &address, "standby");
    standby.run(&["hold", "--for", "1h", "--reason", "database upgrade"]).assert_code(0);
    browser.wait_until("document.querySelector('h1').textContent.includes('Held')");
    standby.run(&["release"]).assert_code(0);
    scene.silence(&standby);
    // Without being loaded again.
    browser.wait_until("document.querySelector('h1').textContent.includes('Primary on this node')");
    browser.wait_until("document.querySelector('.failover .good') != null");
    look_at(&mut browser, &address, "failover");
    trouble(&standby);
    browser.wait_until("document.querySelector('h1').textContent.includes('Silent')");
    look_at(&mut browser, &address, "trouble");
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

/// The bots that were taken over fall silent, and the configuration on disk has a fault.
fn trouble(standby: &Standby) {
    fs::write(standby.config_file(), "[store]\nhost = \"x\"\n").unwrap();
    standby.signal(Signal::SIGHUP);
    for bot in &standby.bots {
        fs::remove_file(standby.path(&format!("{bot}.runs"))).unwrap();
    }
}

fn look_at(browser: &mut Browser, address: &str, name: &str) {
    for (screen, device) in [(DESKTOP, "desktop"), (PHONE, "phone")] {
        for (dark, light) in [(false, "light"), (true, "dark")] {
            let screen = Screen { dark, ..screen };
            browser.open(address, screen);
            live(browser);
            // Nothing sticks out to the side.
            let width = browser.value("document.documentElement.scrollWidth");
            assert_eq!(width, screen.width, "{name} on a {device}");
            contrast(browser);
            assert_shows_something(&browser.picture(&format!("{name}-{device}-{light}.png")));
        }
    }
}

fn live(browser: &mut Browser) {
    browser.wait_until("document.getElementById('live')?.textContent == 'Live'");
}

/// Text can be told from its ground by people who see less well: a ratio of 4.5 (WCAG 2.1, AA).
fn contrast(browser: &mut Browser) {
    const POOR: &str = "(() => {
        const parse = (c) => c.match(/[\\d.]+/g).map(Number);
        const luminance = ([r, g, b]) => {
            const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
        };
        const ground = (e) => {
            for (; e; e = e.parentElement) {
                const c = parse(getComputedStyle(e).backgroundColor);
                if (c.length < 4 || c[3] > 0) return c;
            }
            return [255, 255, 255];
        };
        const poor = [];
        for (const e of document.querySelectorAll('body *')) {
            const own = [...e.childNodes].some((n) => n.nodeType == 3 && n.textContent.trim());
            if (!own || e.closest('svg, script, style') || !e.offsetParent) continue;
            const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) poor.push(e.className + ' ' + e.textContent + ' ' + ratio);
        }
        return poor.join('; ');
    })()";
    assert_eq!(browser.value(POOR), "");
}

fn assert_shows_something(path: &Path) {
    let png = fs::read(path).unwrap();
    assert_eq!(&png[1..4], b"PNG");
    // A page that shows nothing compresses to a few kilobytes.
    assert!(png.len() > 15_000, "{}: {} bytes", path.display(), png.len());
}
