//! From one version to the next, away, back, and gone.

use std::collections::BTreeSet;

use crate::support::bus::Container;
use crate::support::stage::{
    BOTS, FIRST, SECOND, Stage, bare_host, done, install, printed, shell, write,
};
use crate::support::wait::until;

/// What every package leaves: who was there, and what apt and systemd remember.
const LEFT_BY_EVERYBODY: [&str; 8] = [
    "/var/lib/dpkg/",
    "/var/lib/apt/",
    "/var/lib/systemd/",
    "/var/cache/",
    "/var/log/",
    "/etc/passwd-",
    "/etc/group-",
    "/root/",
];

const WATCHES: &str = "[store]\nhosts = [\"127.0.0.1:1\"]\ndatabase = \"x\"\n\
                       [group.trading]\nbots = [\"x\"]\nunits = [\"x.service\"]\n";

#[test]
fn an_upgrade_keeps_configuration_state_and_units() {
    let stage = Stage::watching();
    let host = &stage.standby;
    done(host, "echo '# by hand' >> /etc/understudy/understudy.toml");
    stage.silence();
    stage.wait_until_active();
    let pids = || BOTS.map(|bot| stage.property(&format!("{bot}.service"), "MainPID"));
    let daemon = || stage.property("understudy.service", "MainPID");
    let environment = || done(host, "cat /run/understudy/trading.env");
    let memory = || done(host, "cat /var/lib/understudy/tenures/trading.json");
    let before =
        (pids(), environment(), memory(), stage.value("SELECT epoch FROM understudy.lease"));
    let old = daemon();

    install(host, SECOND);
    assert_eq!(done(host, "dpkg-query -W -f '${Version}' understudy"), SECOND);
    assert_ne!(daemon(), old, "the old version still runs");
    stage.wait_until_active();
    let epoch = stage.value("SELECT epoch FROM understudy.lease");
    assert_eq!((pids(), environment(), memory(), epoch), before);
    assert!(done(host, "cat /etc/understudy/understudy.toml").ends_with("# by hand\n"));
    assert_eq!(
        done(host, "stat -c '%a %U %G' /etc/understudy/understudy.toml").trim(),
        "640 root understudy"
    );
    assert_eq!(stage.value("SELECT count(*) FROM understudy.failover"), "1");

    // Removed while it has the group: it goes, the units stay.
    done(host, "apt-get remove understudy");
    assert_eq!(pids(), before.0);
    assert_eq!(environment(), before.1);
    assert!(!shell(host, "pgrep -x understudy").status.success());
    assert!(!shell(host, "ls /etc/polkit-1/rules.d/50-understudy.rules").status.success());
}

#[test]
fn removed_and_installed_again_it_says_that_it_does_not_run() {
    let host = bare_host("trading-b");
    install(&host, FIRST);
    write(&host, "/etc/understudy/understudy.toml.d/x.toml", WATCHES);
    done(&host, "systemctl enable --now understudy");
    done(&host, "apt-get remove understudy");
    assert_eq!(done(&host, "cat /etc/understudy/understudy.toml.d/x.toml"), WATCHES);
    let said = install(&host, FIRST);
    assert!(said.contains("enabled but does not run"), "{said}");
    assert_eq!(printed(&shell(&host, "systemctl is-active understudy")), "inactive\n");
    done(&host, "systemctl start understudy");
    // What runs needs no words.
    let said = install(&host, SECOND);
    assert!(!said.contains("does not run") && !said.contains("setup --user"), "{said}");
    // What was stopped on purpose is not started by an upgrade.
    done(&host, "systemctl stop understudy");
    install(&host, FIRST_AGAIN);
    assert_eq!(printed(&shell(&host, "systemctl is-active understudy")), "inactive\n");
}

/// Another upgrade.
const FIRST_AGAIN: &str = "0.1.0-3";

#[test]
fn a_purge_leaves_nothing() {
    let host = bare_host("trading-b");
    let before = files(&host);
    install(&host, FIRST);
    write(&host, "/etc/understudy/understudy.toml.d/x.toml", WATCHES);
    write(&host, "/etc/understudy/credentials/x", "x");
    done(&host, "systemctl enable --now understudy");
    until("it to have made its directories", || {
        shell(&host, "ls /var/lib/understudy/outbox /run/understudy/control.sock").status.success()
    });
    done(&host, "apt-get purge understudy");
    let left: Vec<String> = files(&host).difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
    let known = shell(&host, "journalctl --list-catalog | grep -c understudy");
    assert_eq!(printed(&known), "0\n");
    assert!(
        done(&host, "find / -xdev -name '*understudy*' -not -path '/proc/*'")
            .lines()
            .all(|path| LEFT_BY_EVERYBODY.iter().any(|prefix| path.starts_with(prefix)))
    );
    // The user is left on purpose.
    done(&host, "id understudy && deluser --system understudy");
}

/// All files of a host, but those that every package leaves.
fn files(host: &Container) -> BTreeSet<String> {
    let all = done(host, "find / /run -xdev -not -path '/proc/*' -not -path '/sys/*'");
    let kept = all.lines().filter(|path| {
        !LEFT_BY_EVERYBODY.iter().any(|prefix| path.starts_with(prefix))
            && !path.starts_with("/run/systemd/")
            && !path.starts_with("/run/log/")
            && !path.starts_with("/run/needrestart")
    });
    kept.map(str::to_owned).collect()
}
