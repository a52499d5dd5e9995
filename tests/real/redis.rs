//! The Redis adapter against real Redis servers.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail in a helper, and on whatever it did not expect"
)]

mod hand_off;
mod rejoin;

use std::time::Duration;

use understudy::adapters::redis::{
    GateFault, Link, NotPersisted, Permitted, Persisted, PromoteFault, Redis as Adapter,
    RedisError, Risk, Role, Sample, gate, marker_key,
};
use understudy::config::secret::Secret;
use understudy::config::settings::{self, Host, Tls};

use crate::support::redis::{Redis, Sentinel, free_port};
use crate::support::wait;

const GROUP: &str = "equity";
const EPOCH: u64 = 7;

/// A primary with some keys and a replica that has them too.
fn pair() -> (Redis, Redis) {
    let primary = Redis::start();
    primary.fill(100);
    let replica = Redis::with().replica_of(&primary).start();
    replica.wait_until_in_sync();
    (primary, replica)
}

fn adapter(settings: &settings::Redis) -> Adapter {
    Adapter::new(settings).expect("the settings are good")
}

async fn gate_fault(settings: &settings::Redis) -> GateFault {
    match adapter(settings).promote(GROUP, EPOCH, false).await {
        Err(PromoteFault::Gate(fault)) => fault,
        other => panic!("the gate was expected to be closed: {other:?}"),
    }
}

async fn error(settings: &settings::Redis) -> RedisError {
    adapter(settings).sample().await.expect_err("no sample was expected")
}

fn link(sample: &Sample) -> Link {
    match &sample.role {
        Role::Replica(upstream) => upstream.link,
        Role::Master => panic!("a replica was expected: {sample:?}"),
    }
}

#[tokio::test]
async fn a_healthy_replica_becomes_master_when_the_primary_is_dead() {
    let (mut primary, replica) = pair();
    let settings = settings::Redis { primary: Some(primary.host()), ..replica.settings() };
    let mut redis = adapter(&settings);
    let sample = redis.sample().await.unwrap();
    assert!(sample.lag_bytes().is_some(), "{sample:?}");
    primary.kill();
    replica.wait_until_link_is_down();

    let promoted = redis.promote(GROUP, EPOCH, false).await.unwrap();
    assert!(!promoted.already && promoted.keys >= 100, "{promoted:?}");
    assert!(promoted.lag.is_some(), "the lag was sampled while the primary lived");
    assert_eq!(replica.role(), "master");
    assert_eq!(replica.run::<u64>(&format!("GET {}", marker_key(GROUP))), EPOCH);

    let again = redis.promote(GROUP, EPOCH, false).await.unwrap();
    assert!(again.already);
}

#[tokio::test]
async fn a_new_process_recognises_its_own_promotion_by_the_marker() {
    let (_primary, replica) = pair();
    adapter(&replica.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    let again = adapter(&replica.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    assert!(again.already);
}

#[tokio::test]
async fn a_crash_between_promotion_and_marker_is_resumed() {
    let (_primary, replica) = pair();
    replica.run::<String>("REPLICAOF NO ONE");
    assert_eq!(
        gate_fault(&replica.settings()).await,
        GateFault::AlreadyMaster { promoted_for: None }
    );
    let resumed = adapter(&replica.settings()).promote(GROUP, EPOCH, true).await.unwrap();
    assert!(resumed.already);
    assert_eq!(replica.run::<u64>(&format!("GET {}", marker_key(GROUP))), EPOCH);
}

#[tokio::test]
async fn a_master_of_an_earlier_tenure_is_not_ours() {
    let (_primary, replica) = pair();
    adapter(&replica.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    let fault = adapter(&replica.settings()).promote(GROUP, EPOCH + 1, false).await.unwrap_err();
    assert!(
        matches!(
            &fault,
            PromoteFault::Gate(GateFault::AlreadyMaster { promoted_for: Some(EPOCH) })
        ),
        "{fault:?}"
    );
}

#[tokio::test]
async fn a_promotion_outlives_kill_9_once_it_is_persisted() {
    let (_primary, mut replica) = pair();
    let mut redis = adapter(&replica.settings());
    redis.promote(GROUP, EPOCH, false).await.unwrap();
    assert_eq!(redis.persist().await.unwrap(), Persisted::Yes);
    replica.restart();
    assert_eq!(replica.role(), "master");
    // The adapter's connection died with the server; that is no failure of the new one.
    assert_eq!(redis.sample().await.unwrap().role, Role::Master);
}

#[tokio::test]
async fn without_a_config_file_the_promotion_holds_but_is_not_persisted() {
    let primary = Redis::start();
    primary.fill(100);
    let replica = Redis::with().replica_of(&primary).without_config_file().start();
    replica.wait_until_in_sync();
    let mut redis = adapter(&replica.settings());
    redis.promote(GROUP, EPOCH, false).await.unwrap();
    let why = NotPersisted::NoConfigFile;
    assert_eq!(redis.persist().await.unwrap(), Persisted::No { why });
    let inspection = redis.inspect(GROUP).await.unwrap();
    assert!(inspection.risks.contains(&Risk::NoConfigFile), "{inspection:?}");
}

#[tokio::test]
async fn a_config_file_that_cannot_be_written_is_reported() {
    let (_primary, replica) = pair();
    let mut redis = adapter(&replica.settings());
    redis.promote(GROUP, EPOCH, false).await.unwrap();
    // Root may write anything, except where there is no directory to write to.
    let hidden = replica.dir().join("hidden.conf");
    std::fs::rename(replica.config_file(), &hidden).unwrap();
    std::fs::create_dir(replica.config_file()).unwrap();
    match redis.persist().await.unwrap() {
        Persisted::No { why: NotPersisted::Unwritable { text } } => {
            assert!(!text.is_empty());
        }
        other => panic!("unexpected: {other:?}"),
    }
    assert_eq!(replica.role(), "master");
}

#[tokio::test]
async fn a_replica_that_never_synced_is_not_promoted() {
    let absent = free_port();
    let replica = Redis::with().line(&format!("replicaof 127.0.0.1 {absent}")).start();
    assert_eq!(gate_fault(&replica.settings()).await, GateFault::NeverSynced);
    assert_eq!(replica.role(), "slave", "nothing was done");
}

#[tokio::test]
async fn a_replica_restarted_after_its_primary_died_is_not_promoted_though_it_has_data() {
    let (mut primary, mut replica) = pair();
    primary.kill();
    replica.run::<String>("SAVE");
    replica.restart();
    assert_eq!(gate_fault(&replica.settings()).await, GateFault::NeverSynced);
}

#[tokio::test]
async fn a_primary_that_dies_in_the_middle_of_a_diskless_sync_leaves_nothing_to_promote() {
    // Slow to send, so that it can be killed in the middle.
    let mut primary =
        Redis::with().line("rdb-key-save-delay 2000").line("repl-diskless-sync yes").start();
    primary.fill(5000);
    let replica = Redis::with()
        .line("repl-diskless-load on-empty-db")
        .line("loading-process-events-interval-bytes 1024")
        .replica_of(&primary)
        .start();
    wait::until("the sync is under way", || replica.info("master_sync_in_progress") == "1");
    let early = gate_fault(&replica.settings()).await;
    assert!(early.retryable(), "while it copies or loads, waiting makes sense: {early:?}");
    let inspection = adapter(&replica.settings()).inspect(GROUP).await.unwrap();
    assert!(inspection.risks.contains(&Risk::DisklessLoadOnEmptyDb), "{inspection:?}");

    primary.kill();
    wait::until("the sync is given up", || {
        replica.info("master_sync_in_progress") == "0" && replica.info("loading") == "0"
    });
    assert_eq!(gate_fault(&replica.settings()).await, GateFault::NeverSynced);
    assert_eq!(replica.run::<u64>("DBSIZE"), 0);
    assert_eq!(replica.role(), "slave");
}

#[tokio::test]
async fn an_empty_replica_is_promoted_only_if_that_is_normal() {
    let primary = Redis::start();
    let replica = Redis::with().replica_of(&primary).start();
    replica.wait_until_in_sync();
    assert_eq!(gate_fault(&replica.settings()).await, GateFault::Empty);
    let normal = settings::Redis { allow_empty: true, ..replica.settings() };
    adapter(&normal).promote(GROUP, EPOCH, false).await.unwrap();
}

#[tokio::test]
async fn a_primary_that_restarted_empty_does_not_make_its_replica_look_good() {
    let primary = Redis::start();
    primary.fill(1000);
    let replica = Redis::with().replica_of(&primary).start();
    replica.wait_until_in_sync();
    let mut redis = adapter(&replica.settings());
    redis.sample().await.unwrap();
    primary.run::<String>("FLUSHALL");
    primary.run::<String>("SET first yes");
    wait::until("the replica copied the loss", || replica.run::<u64>("DBSIZE") == 1);
    let fault = redis.promote(GROUP, EPOCH, false).await.unwrap_err();
    assert!(matches!(&fault, PromoteFault::Gate(GateFault::Shrunk { keys: 1, .. })), "{fault:?}");
}

#[tokio::test]
async fn a_replica_of_another_master_is_not_promoted() {
    let (_other, replica) = pair();
    let configured = Redis::start();
    let settings = settings::Redis { primary: Some(configured.host()), ..replica.settings() };
    let fault = gate_fault(&settings).await;
    assert!(matches!(fault, GateFault::WrongMaster { .. }), "{fault:?}");
}

#[tokio::test]
async fn a_primary_by_another_name_is_recognised_even_after_its_death() {
    let (mut primary, replica) = pair();
    let by_name = Host::Tcp("localhost".to_owned(), primary.port);
    let settings = settings::Redis { primary: Some(by_name), ..replica.settings() };
    let mut redis = adapter(&settings);
    redis.sample().await.unwrap();
    primary.kill();
    replica.wait_until_link_is_down();
    redis.promote(GROUP, EPOCH, false).await.unwrap();
}

#[tokio::test]
async fn a_link_that_was_down_too_long_closes_the_gate() {
    let (mut primary, replica) = pair();
    primary.kill();
    let max_link_down = Duration::from_secs(1);
    let settings = settings::Redis { max_link_down, ..replica.settings() };
    let mut redis = adapter(&settings);
    wait::until_async("the link is down for more than a second", async || {
        let sample = redis.sample().await.unwrap();
        matches!(link(&sample), Link::Down { since } if since > max_link_down)
    })
    .await;
    let fault = gate_fault(&settings).await;
    assert!(matches!(fault, GateFault::LinkDownTooLong { .. }), "{fault:?}");
}

#[tokio::test]
async fn a_replica_that_lacks_too_much_is_not_promoted() {
    let mut primary = Redis::start();
    primary.fill(100);
    primary.run::<String>("ACL SETUSER copier on >secret +psync +replconf +ping");
    let replica = Redis::with()
        .replica_of(&primary)
        .line("masteruser copier")
        .line("masterauth secret")
        .start();
    replica.wait_until_in_sync();
    let settings = settings::Redis {
        primary: Some(primary.host()),
        max_lag_bytes: 1000,
        ..replica.settings()
    };
    let mut redis = adapter(&settings);
    redis.sample().await.unwrap();
    // The link is cut while the primary lives and takes a write that the replica will never see.
    primary.run::<String>("ACL SETUSER copier off");
    primary.run::<u64>("CLIENT KILL TYPE replica");
    replica.wait_until_link_is_down();
    primary.run::<String>(&format!("SET big {}", "x".repeat(5000)));
    let sample = redis.sample().await.unwrap();
    assert!(sample.lag_bytes().is_some_and(|lag| lag > 5000), "{sample:?}");
    primary.kill();

    let sample = redis.sample().await.unwrap();
    let judged = gate(&sample, redis.last_lag(), &settings);
    assert!(matches!(judged, Err(GateFault::TooFarBehind { .. })), "{judged:?}");
    let fault = redis.promote(GROUP, EPOCH, false).await.unwrap_err();
    assert!(matches!(&fault, PromoteFault::Gate(GateFault::TooFarBehind { .. })), "{fault:?}");
}

#[tokio::test]
async fn a_replica_that_is_loading_is_worth_waiting_for() {
    let (mut primary, mut replica) = pair();
    primary.run::<String>("DEBUG POPULATE 5000");
    replica.run::<String>("DEBUG POPULATE 5000");
    replica.run::<String>("SAVE");
    primary.kill();
    // Five seconds to load, and it answers questions in between.
    let mut lines = std::fs::read_to_string(replica.config_file()).unwrap();
    lines.push_str("\nkey-load-delay 1000\nloading-process-events-interval-bytes 1024\n");
    std::fs::write(replica.config_file(), lines).unwrap();
    replica.restart_and_do_not_wait();
    wait::until("it answers that it is loading", || replica.info("loading") == "1");
    let fault = adapter(&replica.settings()).promote(GROUP, EPOCH, false).await.unwrap_err();
    assert!(matches!(&fault, PromoteFault::Gate(GateFault::Loading)), "{fault:?}");
    assert!(fault.retryable());
}

#[tokio::test]
async fn a_frozen_replica_costs_one_deadline_and_recovers() {
    let (_primary, replica) = pair();
    let call_timeout = Duration::from_millis(300);
    let settings = settings::Redis { call_timeout, ..replica.settings() };
    let mut redis = adapter(&settings);
    redis.sample().await.unwrap();
    replica.freeze();
    for kept_connection in [true, false] {
        let before = understudy::time::BootTime::now();
        let fault = redis.promote(GROUP, EPOCH, false).await.unwrap_err();
        let took = understudy::time::BootTime::now().since(before);
        assert!(
            matches!(&fault, PromoteFault::Redis(RedisError::Deadline { .. })),
            "kept connection: {kept_connection}: {fault:?}"
        );
        assert!(fault.retryable());
        assert!(took >= call_timeout && took < 10 * call_timeout, "{took:?}");
    }
    replica.thaw();
    redis.promote(GROUP, EPOCH, false).await.unwrap();
}

#[tokio::test]
async fn a_frozen_primary_delays_a_sample_by_one_deadline_only() {
    let (primary, replica) = pair();
    let settings = settings::Redis {
        primary: Some(primary.host()),
        call_timeout: Duration::from_millis(300),
        ..replica.settings()
    };
    let mut redis = adapter(&settings);
    primary.freeze();
    let sample = redis.sample().await.unwrap();
    assert_eq!(sample.primary, None);
    primary.thaw();
    assert!(redis.sample().await.unwrap().primary.is_some());
    // Before a takeover nothing is asked of it, although it would answer.
    assert_eq!(redis.sample_local().await.unwrap().primary, None);
}

#[tokio::test]
async fn nobody_listens() {
    let (_primary, replica) = pair();
    let address = Host::Tcp("127.0.0.1".to_owned(), free_port());
    let error = error(&settings::Redis { address, ..replica.settings() }).await;
    assert!(matches!(error, RedisError::Connect { .. }), "{error:?}");
    assert!(error.retryable());
}

#[tokio::test]
async fn the_password_works_and_a_wrong_one_is_not_shown() {
    let replica = Redis::with().password("correct-canary").start();
    adapter(&replica.settings()).sample().await.unwrap();
    let password = Some(Secret::new("wrong-canary".to_owned()));
    for settings in [
        settings::Redis { password, ..replica.settings() },
        settings::Redis { password: None, ..replica.settings() },
    ] {
        let error = error(&settings).await;
        assert!(!error.retryable(), "{error:?}");
        let shown = format!("{error} {error:?} {:?} {settings:?}", adapter(&settings));
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[tokio::test]
async fn an_acl_user_with_just_the_rights_that_we_ask_for_can_do_everything() {
    let (_primary, replica) = pair();
    replica.run::<String>(
        "ACL SETUSER understudy on >secret resetkeys ~understudy:* -@all +ping +info +role \
         +replicaof +slaveof +config|rewrite +config|get +acl|dryrun +set +get +pubsub|numsub",
    );
    let mut redis = adapter(&acl_user(&replica));
    let inspection = redis.inspect(GROUP).await.unwrap();
    let denied =
        inspection.permissions.iter().filter(|p| p.permitted != Permitted::Yes).collect::<Vec<_>>();
    assert!(denied.is_empty(), "{denied:?}");
    redis.promote(GROUP, EPOCH, false).await.unwrap();
    assert_eq!(redis.persist().await.unwrap(), Persisted::Yes);
}

#[tokio::test]
async fn missing_rights_are_found_by_the_rehearsal_and_named_by_the_promotion() {
    let (primary, replica) = pair();
    // Once with the means to ask for rights, once without.
    for dry_run in ["+acl|dryrun", ""] {
        replica.run::<String>(&format!(
            "ACL SETUSER understudy reset on >secret ~other:* +info +role +set +get {dry_run}"
        ));
        let mut redis = adapter(&acl_user(&replica));
        let inspection = redis.inspect(GROUP).await.unwrap();
        for permission in &inspection.permissions {
            let word = permission.command.split(' ').next().unwrap();
            let permitted = &permission.permitted;
            match word {
                "INFO" | "ROLE" => assert_eq!(*permitted, Permitted::Yes, "{word}"),
                "CONFIG" if dry_run.is_empty() => assert_eq!(*permitted, Permitted::Unknown),
                _ => assert!(matches!(permitted, Permitted::No { .. }), "{permission:?}"),
            }
        }
        let unreadable = |risk: &Risk| matches!(risk, Risk::SettingsUnreadable { .. });
        assert!(inspection.risks.iter().any(unreadable), "{inspection:?}");

        let fault = redis.promote(GROUP, EPOCH, false).await.unwrap_err();
        assert!(
            matches!(&fault, PromoteFault::Redis(RedisError::Refused { command, .. })
                if *command == "REPLICAOF NO ONE"),
            "{fault:?}"
        );
        assert!(!fault.retryable());
        assert_eq!(replica.role(), "slave", "the rehearsal changed nothing");
        assert_eq!(replica.info("master_port"), primary.port.to_string());
    }
}

fn acl_user(replica: &Redis) -> settings::Redis {
    settings::Redis {
        user: Some("understudy".to_owned()),
        password: Some(Secret::new("secret".to_owned())),
        ..replica.settings()
    }
}

#[tokio::test]
async fn config_rewrite_that_is_not_permitted_or_hidden_is_reported() {
    let (_primary, replica) = pair();
    replica.run::<String>("ACL SETUSER understudy on >secret ~* +@all -config");
    let persisted = adapter(&acl_user(&replica)).persist().await.unwrap();
    assert!(
        matches!(&persisted, Persisted::No { why: NotPersisted::NotPermitted { .. } }),
        "{persisted:?}"
    );
    let hidden = Redis::with().line("rename-command CONFIG hidden").start();
    let persisted = adapter(&hidden.settings()).persist().await.unwrap();
    assert!(
        matches!(&persisted, Persisted::No { why: NotPersisted::Disabled { .. } }),
        "{persisted:?}"
    );
}

#[tokio::test]
async fn an_old_server_that_knows_only_slaveof_is_promoted() {
    let primary = Redis::start();
    primary.fill(100);
    let replica =
        Redis::with().replica_of(&primary).line("rename-command REPLICAOF hidden").start();
    replica.wait_until_in_sync();
    adapter(&replica.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    assert_eq!(replica.role(), "master");
}

#[tokio::test]
async fn a_master_that_takes_no_writes_is_a_failed_promotion() {
    let (_primary, replica) = pair();
    replica.run::<String>("CONFIG SET min-replicas-to-write 1");
    let mut redis = adapter(&replica.settings());
    let inspection = redis.inspect(GROUP).await.unwrap();
    let risk = Risk::MinReplicasUnmet { demanded: 1, connected: 0 };
    assert!(inspection.risks.contains(&risk), "{inspection:?}");
    let fault = redis.promote(GROUP, EPOCH, false).await.unwrap_err();
    assert!(matches!(fault, PromoteFault::NotWritable { .. }), "{fault:?}");
    assert!(fault.remedy().contains("min-replicas-to-write"));
    replica.run::<String>("CONFIG SET min-replicas-to-write 0");
    assert!(redis.promote(GROUP, EPOCH, false).await.unwrap().already);
}

#[tokio::test]
async fn settings_that_make_a_promotion_risky_are_named() {
    let primary = Redis::with().line("save \"\"").start();
    primary.fill(10);
    let replica =
        Redis::with().replica_of(&primary).line("save \"\"").line("replica-read-only no").start();
    replica.wait_until_in_sync();
    let settings = settings::Redis { primary: Some(primary.host()), ..replica.settings() };
    let inspection = adapter(&settings).inspect(GROUP).await.unwrap();
    for risk in [
        Risk::NoPersistence,
        Risk::PrimaryWithoutPersistence,
        Risk::PrimaryTakesWritesAlone,
        Risk::WritableReplica,
    ] {
        assert!(inspection.risks.contains(&risk), "{risk:?} in {inspection:?}");
        assert!(!risk.to_string().is_empty() && !risk.remedy().is_empty());
    }
}

#[tokio::test]
async fn a_unix_socket_works() {
    let (_primary, replica) = pair();
    let settings = settings::Redis { address: replica.socket(), ..replica.settings() };
    adapter(&settings).promote(GROUP, EPOCH, false).await.unwrap();
}

#[tokio::test]
async fn tls_with_a_private_authority_works_and_another_authority_does_not() {
    let primary = Redis::start();
    primary.fill(10);
    let replica = Redis::with().tls().replica_of(&primary).start();
    replica.wait_until_in_sync();
    let good = replica.tls_settings();
    adapter(&good).promote(GROUP, EPOCH, false).await.unwrap();

    let others = tempfile::tempdir().unwrap();
    let other = crate::support::certificates::Certificates::make(others.path()).ca;
    for ca_file in [Some(other), None] {
        let untrusted = settings::Redis { tls: Tls::Verify { ca_file }, ..good.clone() };
        let error = error(&untrusted).await;
        assert!(matches!(error, RedisError::Connect { .. }), "{error:?}");
    }
    let missing = Tls::Verify { ca_file: Some("/nonexistent/ca.pem".into()) };
    let error = Adapter::new(&settings::Redis { tls: missing, ..good }).unwrap_err();
    assert!(matches!(error, RedisError::CaFile { .. }), "{error:?}");
}

#[tokio::test]
async fn a_redis_cluster_is_left_alone() {
    let node = Redis::with().line("cluster-enabled yes").start();
    assert_eq!(gate_fault(&node.settings()).await, GateFault::Cluster);
}

#[tokio::test]
async fn a_sentinel_that_manages_it_too_is_found_out() {
    let server = Redis::start();
    let mut redis = adapter(&server.settings());
    let inspection = redis.inspect(GROUP).await.unwrap();
    assert!(!inspection.risks.contains(&Risk::Sentinel), "{inspection:?}");
    let _sentinel = Sentinel::watch(&server);
    wait::until_async("the sentinel is seen", async || {
        redis.inspect(GROUP).await.unwrap().risks.contains(&Risk::Sentinel)
    })
    .await;
}
