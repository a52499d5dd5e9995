//! Secrets that an operator hands over as credentials, and everywhere that they must not be.

use std::process::Command;

use crate::support::stage::{
    FIRST, HOOK_SECRET, REDIS_SECRET, STORE_SECRET, Stage, done, package, printed, shell,
};
use crate::support::wait::until;

/// Everything that can be seen of understudy by somebody who may not read its credentials, and more:
/// each with the command that shows it.
const SEEN: [(&str, &str); 10] = [
    ("journal, all fields", "journalctl --all -o export"),
    ("status", "understudy status; understudy status --json; systemctl status --full understudy"),
    ("history", "understudy history --json; understudy check --json"),
    ("unit", "systemctl show understudy; systemctl cat understudy"),
    ("arguments and environment of all processes", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"),
    ("polkit rule", "cat /etc/polkit-1/rules.d/50-understudy.rules; understudy permit --print"),
    ("configuration", "cat /etc/understudy/understudy.toml /etc/understudy/understudy.toml.d/*"),
    ("state", "find /var/lib/understudy /run/understudy -type f -exec cat {} +"),
    ("schema", "understudy setup --print"),
    ("logs and systemd's own files", "grep -rha canary /var/log /run/systemd /etc/systemd || true"),
];

#[test]
fn a_secret_is_nowhere_but_in_its_credential() {
    let stage = Stage::watching();
    let host = &stage.standby;
    stage.silence();
    stage.wait_until_active();
    until("an alert to have come with the token", || {
        stage.webhook.try_next().is_some_and(|alert| alert.line.contains(HOOK_SECRET))
    });
    assert_nowhere(&stage);

    // Errors are where secrets get out: a password that is refused, an address that answers not.
    stage.sql("ALTER ROLE understudy PASSWORD 'another'");
    stage
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'understudy'");
    let closed = format!("http://127.0.0.1:1/{HOOK_SECRET}");
    stage.keep_secret("ops-webhook", &closed);
    done(host, "systemctl restart understudy");
    until("the password to be refused and an alert to fail", || {
        let log = done(host, "journalctl -u understudy --no-pager -o cat");
        log.contains("password authentication failed") && log.contains("alert")
    });
    assert_nowhere(&stage);
}

fn assert_nowhere(stage: &Stage) {
    for (what, command) in SEEN {
        let said = printed(&shell(&stage.standby, command));
        assert!(!said.is_empty() || what.starts_with("logs"), "{what}: {command} shows nothing");
        for secret in [STORE_SECRET, HOOK_SECRET, REDIS_SECRET] {
            let at = said.find(secret).map(|at| said[..at].lines().last().map(str::to_owned));
            assert!(at.is_none(), "{secret} is in {what}, after {at:?}");
        }
    }
}

#[test]
fn the_service_alone_can_read_its_credentials() {
    let stage = Stage::watching();
    let host = &stage.standby;
    let directory = "/run/credentials/understudy.service";
    for user in ["nobody", "understudy"] {
        let at_rest =
            format!("runuser -u {user} -- cat /etc/understudy/credentials/store-password");
        assert!(!shell(host, &at_rest).status.success(), "{user} can read it at rest");
    }
    let loaded = format!("runuser -u nobody -- cat {directory}/understudy_store-password");
    assert!(!shell(host, &loaded).status.success());
    // The fence command may: it logs in somewhere with a key that is kept there.
    let fence = "#!/bin/sh\nls \"$CREDENTIALS_DIRECTORY\" | tr '\\n' ' '; id -un\n";
    crate::support::stage::write(host, "/usr/local/sbin/power-off", fence);
    stage.silence();
    stage.wait_until_active();
    let log = done(host, "journalctl -u understudy --no-pager -o cat");
    let names = "understudy_ops-webhook understudy_redis-password understudy_store-password";
    assert!(log.contains(&format!("fence: {names} understudy")), "{log}");
}

#[test]
fn the_package_has_nothing_of_the_machine_that_built_it() {
    let unpacked = tempfile::tempdir().unwrap();
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(package(FIRST)).arg(unpacked.path());
    assert!(unpack.status().unwrap().success());
    let here = env!("CARGO_MANIFEST_DIR");
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| {
        format!("{}/.cargo", std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned()))
    });
    for path in [here, &cargo] {
        let grep = Command::new("grep").args(["-rlF", path]).arg(unpacked.path()).output().unwrap();
        assert_eq!(printed(&grep), "", "{path} is in the package");
    }
}
