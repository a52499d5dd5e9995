//! The guard as it is packaged.

use super::rig::Rig;
use crate::support::stage::{SECOND, done, install, printed};
use crate::support::wait::until;

/// What systemd may find exposed, from 0 to 10. It calls up to 2 well protected.
const EXPOSURE_MAX: f64 = 2.0;

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_leaves_it_alone_and_a_removal_is_refused() {
    let rig = Rig::of_package().await;
    let guard = rig.guard();
    assert_eq!(done(&rig.host, &format!("systemd-analyze verify '{guard}'")), "");
    let report = done(&rig.host, &format!("systemd-analyze security --no-pager '{guard}'"));
    let overall = report.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let level = overall.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap();
    assert!(level <= EXPOSURE_MAX, "{report}");

    rig.take().await;
    rig.start_bots();
    let run = |unit: &str| rig.property(unit, "InvocationID");
    let before = (run(&guard), run("bot.service"));
    install(&rig.host, SECOND);
    assert_eq!((run(&guard), run("bot.service")), before);
    assert!(rig.state().await.unwrap().lets_pass());

    let refused = rig.shell("apt-get remove understudy");
    let said = printed(&refused);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains(&guard) && said.contains("this node holds the lease"), "{said}");
    assert_eq!((run(&guard), run("bot.service")), before);

    done(&rig.host, "systemctl stop 'understudy-lease@*.service'");
    until("the units to be down", || !rig.anything_runs());
    let said = done(&rig.host, "apt-get remove understudy");
    assert!(said.contains("do not start without understudy"), "{said}");
    rig.shell("systemctl daemon-reload; systemctl start bot");
    assert_eq!(rig.property("bot.service", "ActiveState"), "inactive", "closed without a gate");
}
