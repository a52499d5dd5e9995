//! Giving the lease back.

use std::time::Duration;

use understudy::adapters::guard::{GuardError, release};
use understudy::engine::guard::PASS_SETTLES;
use understudy::engine::observation::Epoch;
use understudy::time::BootTime;

use super::rig::{Listener, Rig};
use crate::support::stage::done;
use crate::support::wait::until;

const SOON: Duration = Duration::from_secs(10);

async fn ask(rig: &Rig, to: Option<&str>) -> Result<Epoch, GuardError> {
    release(&rig.runtime_dir(), &rig.group, to, SOON).await
}

async fn lease(rig: &Rig) -> Vec<String> {
    rig.postgres.rows("SELECT epoch, holder, offered_to FROM understudy.lease").await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_empty_slice_is_released_and_then_nothing_starts() {
    let rig = Rig::protected().await;
    let token = rig.take().await;
    rig.start_bots();
    let refused = ask(&rig, Some("b")).await.unwrap_err().to_string();
    assert!(refused.contains("units of the group run here; stop them first"), "{refused}");
    assert!(rig.state().await.unwrap().lets_pass(), "it goes on");
    assert_eq!(rig.asked("bot"), 0, "nothing was stopped");

    done(&rig.host, "systemctl stop bot other");
    let stopped = BootTime::now();
    until("what passed the gate to be settled", || BootTime::now() > stopped + PASS_SETTLES);
    let listener = Listener::to(&rig).await;
    let epoch = ask(&rig, Some("b")).await.unwrap();
    assert_eq!(epoch.0, token.epoch.0 + 1);
    assert_eq!(lease(&rig).await, [epoch.to_string(), "NULL".to_owned(), "b".to_owned()]);
    listener.heard().await;
    until("the guard to be gone in peace", || {
        rig.property(&rig.guard(), "ActiveState") == "inactive"
    });
    assert_eq!(rig.property(&rig.guard(), "ExecMainStatus"), "0");
    rig.shell("systemctl start bot");
    assert_eq!(rig.property("bot.service", "ActiveState"), "inactive");
    assert_eq!(rig.events("lease_released"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_just_passed_the_gate_keeps_the_lease() {
    let rig = Rig::protected().await;
    rig.take().await;
    done(&rig.host, "understudy gate trading");
    let refused = ask(&rig, None).await.unwrap_err().to_string();
    assert!(refused.contains("just starting"), "{refused}");
    assert!(rig.state().await.unwrap().lets_pass());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_the_store_does_not_answer_ends_the_tenure() {
    let mut rig = Rig::protected().await;
    rig.take().await;
    rig.postgres.freeze();
    let refused = ask(&rig, None).await.unwrap_err().to_string();
    assert!(refused.contains("did not release"), "{refused}");
    until("the guard to be gone", || rig.property(&rig.guard(), "ActiveState") == "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_what_somebody_else_has_is_an_error() {
    let rig = Rig::protected().await;
    rig.take().await;
    // Too quick for a renewal to find out.
    rig.lease("b").await;
    assert!(ask(&rig, None).await.is_err());
    let holder = lease(&rig).await.remove(1);
    assert_eq!(holder, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_is_stopped_gives_the_lease_back_after_its_units() {
    let rig = Rig::protected().await;
    let token = rig.take().await;
    rig.start_bots();
    let started = BootTime::now();
    until("what passed the gate to be settled", || BootTime::now() > started + PASS_SETTLES);
    done(&rig.host, &format!("systemctl stop '{}'", rig.guard()));
    assert!(!rig.anything_runs());
    assert_eq!(rig.property("bot.service", "ActiveState"), "inactive");
    let epoch = (token.epoch.0 + 1).to_string();
    assert_eq!(lease(&rig).await, [epoch, "NULL".to_owned(), "NULL".to_owned()]);
}
