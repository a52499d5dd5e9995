//! The daemon as a user who may start and stop the configured units, and nothing else.

use crate::support::stage::{BOTS, FIRST, Stage, bare_host, done, install, printed, shell, write};
use crate::support::wait::until;

const RULE: &str = "/etc/polkit-1/rules.d/50-understudy.rules";
const SLEEPS: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// Has systemd do something, as the user of the daemon.
fn as_user(stage: &Stage, call: &str) -> Result<(), String> {
    let line = format!(
        "runuser -u understudy -- busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
         org.freedesktop.systemd1.Manager {call}"
    );
    let output = shell(&stage.standby, &line);
    if output.status.success() { Ok(()) } else { Err(printed(&output)) }
}

fn assert_refused(stage: &Stage, call: &str) {
    let refused = as_user(stage, call).unwrap_err();
    let words = ["Access denied", "nteractive authentication required", "Permission denied"];
    assert!(words.iter().any(|words| refused.contains(words)), "{call}: {refused}");
}

#[test]
fn it_takes_over_and_gives_back_as_a_user_without_rights() {
    let stage = Stage::watching();
    let user = stage.standby.run(&["ps", "-o", "user:20=,cmd=", "-C", "understudy"]);
    assert_eq!(user.split_whitespace().next(), Some("understudy"), "{user}");
    stage.silence();
    stage.wait_until_active();
    for bot in BOTS {
        assert_eq!(stage.property(&format!("{bot}.service"), "ActiveState"), "active");
    }
    assert_eq!(stage.redis.role(), "master");

    // Another node takes the group; the units here must be stopped.
    stage.sql(
        "BEGIN;
         UPDATE understudy.lease SET epoch = epoch + 1, holder = 'trading-c', seq = 0,
           nonce = gen_random_uuid(), changed_at = clock_timestamp();
         UPDATE understudy.fence f SET epoch = l.epoch, holder = l.holder, nonce = l.nonce
           FROM understudy.lease l WHERE l.grp = f.grp;
         COMMIT",
    );
    for bot in BOTS {
        until(&format!("{bot} to be stopped"), || {
            stage.property(&format!("{bot}.service"), "ActiveState") == "inactive"
        });
    }
}

#[test]
fn its_user_may_manage_the_configured_units_and_no_others() {
    let stage = Stage::watching();
    let host = &stage.standby;
    for name in ["other", "quantshift-equity2", "quantshift-equity@1"] {
        write(host, &format!("/etc/systemd/system/{name}.service"), SLEEPS);
    }
    done(host, "systemctl daemon-reload; systemctl start other");
    for bot in BOTS {
        let unit = format!("{bot}.service");
        for call in [
            format!("StartUnit ss {unit} replace"),
            format!("RefUnit s {unit}"),
            format!("KillUnit ssi {unit} all 15"),
            format!("StopUnit ss {unit} replace"),
            format!("ResetFailedUnit s {unit}"),
        ] {
            as_user(&stage, &call).unwrap();
        }
        for call in [
            format!("RestartUnit ss {unit} replace"),
            format!("ReloadUnit ss {unit} replace"),
            format!("SetUnitProperties 'sba(sv)' {unit} true 0"),
            format!("FreezeUnit s {unit}"),
            format!("EnableUnitFiles asbb 1 {unit} false false"),
            format!("MaskUnitFiles asbb 1 {unit} true false"),
        ] {
            assert_refused(&stage, &call);
        }
    }
    for unit in ["other.service", "quantshift-equity2.service", "quantshift-equity@1.service"] {
        assert_refused(&stage, &format!("StartUnit ss {unit} replace"));
        assert_refused(&stage, &format!("StopUnit ss {unit} replace"));
    }
    for call in ["Reload", "StopUnit ss understudy.service replace", "Reexecute", "PowerOff"] {
        assert_refused(&stage, call);
    }
    assert_eq!(stage.property("other.service", "ActiveState"), "active");
    // And nobody else gained anything.
    let nobody = shell(host, "runuser -u nobody -- systemctl start quantshift-equity.service");
    assert!(!nobody.status.success());
}

#[test]
fn the_rule_follows_the_configuration() {
    let stage = Stage::watching();
    let host = &stage.standby;
    write(host, "/etc/systemd/system/third.service", SLEEPS);
    done(host, "systemctl daemon-reload");
    assert_refused(&stage, "StartUnit ss third.service replace");
    let drop_in = "/etc/understudy/understudy.toml.d/units.toml";
    write(host, drop_in, "[group.trading]\nunits = [\"third.service\"]\n");
    let check = printed(&shell(host, "understudy check"));
    assert!(check.contains("is not what the configuration asks for"), "{check}");
    done(host, "systemctl reload understudy");
    until("the new unit to be permitted", || {
        as_user(&stage, "StartUnit ss third.service replace").is_ok()
    });
    assert_refused(&stage, "StartUnit ss quantshift-equity.service replace");
    let check = printed(&shell(host, "understudy check"));
    assert!(check.contains(&format!("{RULE} lets understudy manage its units")), "{check}");

    // A faulty configuration changes nothing, and says so.
    let rule = done(host, &format!("cat {RULE}"));
    write(host, drop_in, "[group.trading]\nunits = [\"other.service\"]\nwrong = 1\n");
    let permit = shell(host, "understudy permit");
    assert_eq!(permit.status.code(), Some(78), "{}", printed(&permit));
    let _refused = shell(host, "systemctl reload understudy");
    until("the daemon to refuse it", || {
        let told =
            printed(&shell(host, "journalctl -o cat UNDERSTUDY_EVENT=configuration_refused"));
        told.contains("unknown key") || told.contains("group.trading.wrong")
    });
    assert_eq!(done(host, &format!("cat {RULE}")), rule);
    // Whoever is called to it can see how it is, without a right to the secrets.
    for who in ["", "runuser -u understudy -- "] {
        let status = done(host, &format!("{who}understudy status"));
        assert!(status.contains("is NOT in use"), "{status}");
    }
}

#[test]
fn a_node_keeps_the_right_to_stop_what_it_has() {
    let stage = Stage::watching();
    let host = &stage.standby;
    stage.silence();
    stage.wait_until_active();
    let seen = |group: &serde_json::Value| group["units"].as_array().is_some_and(|u| u.len() == 2);
    stage.wait_for("the units to be seen", seen);
    write(host, "/etc/systemd/system/third.service", SLEEPS);
    let drop_in = "/etc/understudy/understudy.toml.d/units.toml";
    write(host, drop_in, "[group.trading]\nunits = [\"third.service\"]\n");
    done(host, "systemctl daemon-reload; systemctl reload understudy");
    until("the reload to be refused", || {
        stage.status().is_some_and(|status| status["configuration_refused"].is_string())
    });
    let rule = done(host, &format!("cat {RULE}"));
    for unit in ["third", BOTS[0], BOTS[1]] {
        assert!(rule.contains(&format!("\"{unit}.service\"")), "{rule}");
    }
}

#[test]
fn a_refusal_is_foreseen() {
    let stage = Stage::watching();
    let host = &stage.standby;
    done(host, "understudy permit --remove");
    done(host, "systemctl kill -s HUP understudy");
    stage.wait_for("the daemon to see that it may not start the units", |group| {
        group["not_ready_because"].to_string().contains("`understudy permit`")
    });
    let check = shell(host, "understudy check");
    let said = printed(&check);
    assert_eq!(check.status.code(), Some(2), "{said}");
    assert!(said.contains("systemd does not allow it"), "{said}");
    done(host, "systemctl reload understudy");
    stage.wait_until_ready();
}

#[test]
fn permit_shows_and_removes_its_rule() {
    let host = bare_host("trading-b");
    install(&host, FIRST);
    let text = "[store]\nhosts = [\"127.0.0.1:1\"]\ndatabase = \"x\"\n[group.trading]\n\
                bots = [\"x\"]\nunits = ['a\\x2db.service', \"a@b.service\"]\n";
    write(&host, "/etc/understudy/understudy.toml.d/x.toml", text);
    let rule = done(&host, "understudy permit --print");
    assert!(rule.contains(r#""a\\x2db.service""#) && rule.contains("\"a@b.service\""), "{rule}");
    assert!(!shell(&host, &format!("test -e {RULE}")).status.success());
    assert!(done(&host, "understudy permit").contains("is written"));
    assert_eq!(done(&host, "understudy permit"), "", "nothing changed");
    assert_eq!(done(&host, &format!("cat {RULE}")), rule);
    let denied = shell(&host, "runuser -u nobody -- understudy permit --remove");
    assert_eq!(denied.status.code(), Some(1));
    assert!(done(&host, "understudy permit --remove").contains("is removed"));
    assert!(!shell(&host, &format!("test -e {RULE}")).status.success());
}
