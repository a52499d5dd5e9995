//! `understudy protect`: all or nothing, and back.

use super::rig::Rig;
use crate::support::stage::{done, printed, write};

fn drop_ins(rig: &Rig) -> Vec<String> {
    let found = rig.host.run(&["find", "/etc/systemd/system", "-name", "50-understudy.conf"]);
    let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
    found.sort();
    found
}

fn refused(rig: &Rig, line: &str) -> String {
    let output = rig.shell(line);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    printed(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_written_read_and_undone() {
    let rig = Rig::of_group("eu-1_x").await;
    let shown = done(&rig.host, "understudy protect --print");
    assert!(shown.contains("Slice=understudy-eu\\x2d1_x.slice"), "{shown}");
    assert!(drop_ins(&rig).is_empty(), "it only shows");
    rig.protect();
    let written = drop_ins(&rig);
    assert_eq!(written.len(), 3, "{written:?}");
    assert_eq!(rig.property("bot.service", "Slice"), "understudy-eu\\x2d1_x.slice");
    let bound = rig.property("bot.service", "BindsTo");
    assert!(bound.contains("understudy-lease@eu\\"), "{bound}");
    assert!(rig.property("bot.service", "TimeoutStopUSec").starts_with("1.125"));
    rig.protect();
    assert_eq!(drop_ins(&rig), written, "it can be repeated");

    rig.take().await;
    assert_eq!(rig.property(&rig.guard(), "WatchdogUSec"), "3s");
    rig.start_bots();
    assert!(rig.anything_runs(), "the slice has the name that the kernel knows");
    let said = refused(&rig, "understudy protect --undo");
    assert!(said.contains("would lose its guard"), "{said}");
    done(&rig.host, &format!("systemctl stop '{}'", rig.guard()));
    done(&rig.host, "understudy protect --undo");
    assert!(drop_ins(&rig).is_empty());
    assert_eq!(rig.property("bot.service", "BindsTo"), "");
    let again = done(&rig.host, "understudy protect --undo");
    assert!(again.contains("nothing was there"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unit_that_does_not_fit_is_told_of_and_none_is_changed() {
    let rig = Rig::of_group("trading").await;
    let unfit = [
        ("KillMode=process", "KillMode=process leaves processes behind"),
        (
            "ExecStop=/bin/true\nExecStop=/bin/true\nExecStop=/bin/true\nExecStop=/bin/true\n\
          ExecStop=/bin/true\nExecStopPost=/bin/true",
            "stops in 8 steps",
        ),
    ];
    for (lines, expected) in unfit {
        rig.bot("other", "polite", lines);
        done(&rig.host, "systemctl daemon-reload");
        let said = refused(&rig, "understudy protect");
        assert!(said.contains("nothing was changed") && said.contains(expected), "{said}");
        assert!(drop_ins(&rig).is_empty(), "{lines}");
    }
    rig.bot("other", "polite", "");
    done(&rig.host, "systemctl daemon-reload; systemctl start bot");
    let said = refused(&rig, "understudy protect");
    assert!(said.contains("bot.service: it runs now"), "{said}");
    assert!(drop_ins(&rig).is_empty());
    done(&rig.host, "understudy protect --no-reload");
    assert_eq!(drop_ins(&rig).len(), 3, "for the next boot");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_in_that_says_otherwise_is_found_and_nothing_stays() {
    let rig = Rig::of_group("trading").await;
    write(
        &rig.host,
        "/etc/systemd/system/other.service.d/90-mine.conf",
        "[Service]\nTimeoutStopSec=1h\n",
    );
    done(&rig.host, "systemctl daemon-reload");
    let said = refused(&rig, "understudy protect");
    assert!(said.contains("other.service: TimeoutStopSec= is something else"), "{said}");
    assert!(drop_ins(&rig).is_empty());
    assert_eq!(rig.property("bot.service", "BindsTo"), "", "and systemd knows");
    let kept = rig.host.run(&["ls", "/etc/systemd/system/other.service.d"]);
    assert_eq!(kept, "90-mine.conf");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_root_and_a_disk_with_room() {
    let rig = Rig::of_group("trading").await;
    let said = refused(&rig, "runuser -u understudy -- understudy protect");
    assert!(said.contains("run this as root"), "{said}");
    assert!(drop_ins(&rig).is_empty());
    // A directory that cannot be made, after one that could.
    write(&rig.host, "/etc/systemd/system/other.service.d", "in the way");
    let said = refused(&rig, "understudy protect");
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(drop_ins(&rig).is_empty(), "what was written before it is gone again");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_paired_mode_only() {
    let rig = Rig::of_group("trading").await;
    let text = format!(
        "node = \"a\"\n[store]\nhosts = [\"127.0.0.1:{}\"]\ndatabase = \"postgres\"\n\
         user = \"postgres\"\ntls = \"off\"\n[group.trading]\nbots = [\"equity\"]\n\
         units = [\"bot.service\"]\nprimary = \"b\"\naccept_dual_active = true\n",
        rig.postgres.port()
    );
    write(&rig.host, "/etc/understudy/understudy.toml", &text);
    let said = refused(&rig, "understudy protect");
    assert!(said.contains("observed mode"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_in_observed_mode_can_have_the_gate_alone() {
    let mut rig = Rig::of_group("trading").await;
    let text = format!(
        "node = \"b\"\n[store]\nhosts = [\"127.0.0.1:{}\"]\ndatabase = \"postgres\"\n\
         user = \"postgres\"\ntls = \"off\"\n[group.trading]\nbots = [\"equity\"]\n\
         units = [\"bot.service\"]\nprimary = \"a\"\naccept_dual_active = true\n",
        rig.postgres.port()
    );
    write(&rig.host, "/etc/understudy/understudy.toml", &text);
    rig.lease("a").await;
    done(&rig.host, "understudy protect --gate-only");
    done(&rig.host, "systemctl start bot");
    assert_eq!(rig.property("bot.service", "ActiveState"), "active", "{}", rig.journal());
    done(&rig.host, "systemctl stop bot");
    rig.lease("b").await;
    rig.shell("systemctl start bot");
    assert_eq!(rig.property("bot.service", "ActiveState"), "inactive");
    assert!(rig.journal().contains("does not start: b has the group"), "{}", rig.journal());
    rig.lease("a").await;
    rig.postgres.freeze();
    rig.shell("systemctl start bot");
    assert_eq!(rig.property("bot.service", "ActiveState"), "inactive");
    assert!(rig.journal().contains("nobody can tell who has the group"), "{}", rig.journal());
    rig.postgres.thaw();
    done(&rig.host, "understudy protect --undo");
    assert!(drop_ins(&rig).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn units_hard_to_name_are_guarded() {
    let rig = Rig::of_group("1-a_b--c").await;
    rig.protect();
    rig.take().await;
    rig.start_bots();
    let guard = rig.guard();
    assert_eq!(guard, "understudy-lease@1\\x2da_b\\x2d\\x2dc.service");
    let granted = super::rig::Listener::to(&rig).await;
    rig.signal_guard("KILL");
    rig.assert_dead_in_time(granted.last_granted().await);
}
