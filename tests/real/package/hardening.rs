//! What can be said about the package without a group to watch.

use std::process::Command;

use crate::support::bus::Container;
use crate::support::stage::{
    FIRST, bare_host, done, install, journal, package, printed, shell, write,
};
use crate::support::wait::until;

/// What systemd may find exposed, from 0 to 10. It calls up to 2 well protected.
const EXPOSURE_MAX: f64 = 2.0;

#[test]
fn lintian_has_nothing_to_say_about_it() {
    let lintian = Command::new("lintian")
        .args(["--fail-on", "error,warning", "--tag-display-limit", "0", "--allow-root"])
        .arg(package(FIRST))
        .output()
        .unwrap();
    let said = printed(&lintian);
    assert!(lintian.status.success() && said.is_empty(), "{said}");
}

#[test]
fn its_unit_is_sound_and_exposes_little() {
    let host = bare_host("trading-b");
    install(&host, FIRST);
    assert_eq!(done(&host, "systemd-analyze verify understudy.service"), "");
    let report = done(&host, "systemd-analyze security --no-pager understudy.service");
    let overall = report.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let level = overall.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap();
    assert!(level <= EXPOSURE_MAX, "{report}");
}

#[test]
fn it_is_not_started_before_it_is_configured_and_says_what_to_do() {
    let host = bare_host("trading-b");
    let said = install(&host, FIRST);
    assert_eq!(printed(&shell(&host, "systemctl is-enabled understudy")), "disabled\n");
    assert_eq!(printed(&shell(&host, "systemctl is-active understudy")), "inactive\n");
    let next = ["understudy.toml", "understudy setup", "understudy check", "systemctl enable"];
    assert!(next.iter().all(|words| said.contains(words)), "{said}");

    // Somebody starts it all the same.
    assert!(!shell(&host, "systemctl start understudy").status.success());
    let state = ["ActiveState", "ExecMainStatus", "NRestarts"].map(|property| {
        host.run(&["systemctl", "show", "--value", "--property", property, "understudy"])
    });
    assert_eq!(state, ["failed", "78", "0"], "it must not be tried again and again");
    let log = journal(&host);
    assert!(log.contains("says nothing yet; the least it needs is"), "{log}");
    assert!(log.contains("so the polkit rule stays as it is"), "{log}");
    assert!(!rule(&host).exists());
}

#[test]
fn manual_pages_and_completions_are_found() {
    let host = bare_host("trading-b");
    install(&host, FIRST);
    for page in ["8 understudy", "8 understudy-permit", "8 understudy-run", "5 understudy.toml"] {
        let text = done(&host, &format!("man --warnings {page} 2>&1 | cat"));
        assert!(text.contains("understudy") && !text.contains("warning:"), "{page}: {text}");
    }
    let words = done(
        &host,
        "source /usr/share/bash-completion/completions/understudy; COMP_WORDS=(understudy per); \
         COMP_CWORD=1; _understudy understudy per understudy; echo \"${COMPREPLY[@]}\"",
    );
    assert_eq!(words.trim(), "permit");
}

#[test]
fn needrestart_lets_it_run_after_the_upgrade_of_a_library() {
    let host = bare_host("trading-b");
    install(&host, FIRST);
    let watches = "[store]\nhosts = [\"127.0.0.1:1\"]\ndatabase = \"x\"\n\
                   [group.trading]\nbots = [\"x\"]\nunits = [\"x.service\"]\n";
    write(&host, "/etc/understudy/understudy.toml.d/x.toml", watches);
    write(&host, "/etc/systemd/system/other.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    done(&host, "systemctl daemon-reload; systemctl start understudy other");
    let pid = |unit| host.run(&["systemctl", "show", "--value", "--property", "MainPID", unit]);
    let (ours, others) = (pid("understudy"), pid("other"));
    // The library is another file of the same name from now on, as after an upgrade.
    done(
        &host,
        "cd /lib/x86_64-linux-gnu 2>/dev/null || cd /lib/*-linux-gnu; \
                 cp libc.so.6 new && mv new libc.so.6",
    );
    let said = done(&host, "NEEDRESTART_MODE=a needrestart -r a -l 2>&1");
    until(&format!("another service to be restarted: {said}"), || pid("other") != others);
    assert_eq!(pid("understudy"), ours, "{said}");
}

fn rule(host: &Container) -> std::path::PathBuf {
    host.root.join("etc/polkit-1/rules.d/50-understudy.rules")
}
