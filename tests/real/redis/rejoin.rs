//! A former master becomes a replica, and nothing that only it had is lost.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use understudy::adapters::redis::{
    Before, CopyFault, Damage, Kept, LinkFault, LinkState, Permitted, Persisted, Progress,
    Redis as Adapter, RedisError, Rejoin, RejoinFault, Rejoined, marker_key,
};
use understudy::config::secret::Secret;
use understudy::config::settings::{self, Host, Tls};

use super::{EPOCH, GROUP, acl_user, adapter, pair};
use crate::support::daemon::SmallDisk;
use crate::support::redis::{Options, Redis, free_port};
use crate::support::wait;

/// Where copies go.
struct Copies(tempfile::TempDir);

impl Copies {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// It is made when it is needed.
    fn path(&self) -> PathBuf {
        self.0.path().join("copies")
    }

    /// Names of all files that end like this.
    fn files(&self, end: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path()).into_iter().flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_string_lossy().ends_with(end)).collect()
    }
}

async fn rejoin_by(
    redis: &mut Adapter,
    upstream: &Host,
    copies: &Path,
) -> Result<(Rejoined, Vec<Progress>), RejoinFault> {
    let stall_max = Some(Duration::from_secs(20));
    let request = Rejoin { group: GROUP, upstream, copies, stall_max };
    let mut seen = Vec::new();
    let rejoined = redis.rejoin(&request, |progress| seen.push(progress)).await?;
    Ok((rejoined, seen))
}

async fn rejoin(
    old: &Redis,
    new: &Redis,
    copies: &Copies,
) -> Result<(Rejoined, Vec<Progress>), RejoinFault> {
    rejoin_by(&mut adapter(&old.settings()), &new.host(), &copies.path()).await
}

async fn fault(old: &Redis, new: &Redis, copies: &Copies) -> RejoinFault {
    let fault = rejoin(old, new, copies).await.expect_err("a fault was expected");
    assert!(!fault.to_string().is_empty() && !fault.remedy().is_empty());
    fault
}

/// An old master and the replica that was promoted in its place. Only the old one has `only-here`.
async fn after_a_failover(old: Options) -> (Redis, Redis) {
    let old = old.start();
    old.fill(1000);
    let new = Redis::with().replica_of(&old).start();
    new.wait_until_in_sync();
    adapter(&new.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    old.run::<String>("SET only-here yes");
    new.run::<String>("SET only-there yes");
    (old, new)
}

fn copied(rejoined: &Rejoined) -> &Kept {
    match &rejoined.before {
        Before::Copied(kept) => kept,
        other => panic!("a copy was expected: {other:?}"),
    }
}

/// Loads a copy into a server of its own.
fn load(copy: &Path) -> Redis {
    let checked = Command::new("redis-check-rdb").arg(copy).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && said.contains("RDB looks OK"), "{said}");
    Redis::with().data(copy).start()
}

fn assert_is_untouched(old: &Redis) {
    assert_eq!(old.role(), "master");
    assert_eq!(old.run::<String>("GET only-here"), "yes");
    // The writes are not paused any more.
    assert_eq!(old.run::<String>("SET goes on"), "OK");
}

fn assert_follows(old: &Redis, new: &Redis) {
    assert_eq!(old.role(), "slave");
    assert_eq!(old.info("master_link_status"), "up");
    new.run::<String>("SET after rejoin");
    wait::until("a write on the new master reaches the old one", || {
        old.run::<Option<String>>("GET after").as_deref() == Some("rejoin")
    });
    assert_eq!(old.run::<u64>("DBSIZE"), new.run::<u64>("DBSIZE"));
    assert_eq!(old.run::<Option<String>>("GET only-here"), None);
    assert_eq!(old.run::<String>("GET only-there"), "yes");
}

#[tokio::test]
async fn what_only_the_old_master_had_is_in_the_copy() {
    for diskless in ["repl-diskless-sync no", "repl-diskless-sync yes"] {
        let (mut old, new) = after_a_failover(Redis::with().line(diskless)).await;
        let copies = Copies::new();
        let (rejoined, seen) = rejoin(&old, &new, &copies).await.unwrap();
        assert_eq!(rejoined.persisted, Persisted::Yes);
        assert_eq!(rejoined.keys, new.run::<u64>("DBSIZE"));
        assert_follows(&old, &new);

        let kept = copied(&rejoined);
        let metadata = std::fs::metadata(&kept.path).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (kept.bytes, 0o600));
        let directory = std::fs::metadata(copies.path()).unwrap();
        assert_eq!(directory.permissions().mode() & 0o777, 0o700);
        assert_eq!((copies.files("").len(), copies.files(".json").len()), (2, 1));
        let copy = load(&kept.path);
        assert_eq!(copy.run::<String>("GET only-here"), "yes");
        assert_eq!(copy.run::<u64>("DBSIZE"), 1002);

        // A length is known beforehand only if the server wrote to its disk first.
        let total = (diskless == "repl-diskless-sync no").then_some(kept.bytes);
        assert_eq!(seen[0], Progress::Copying { bytes: 0, total }, "{diskless}");
        let at = |progress: &Progress| seen.iter().position(|seen| seen == progress).unwrap();
        assert!(at(&Progress::Copied(kept.clone())) < at(&Progress::Attached), "{seen:?}");

        old.restart();
        assert_eq!(old.role(), "slave", "it is a replica after a restart");
        assert_eq!(old.info("master_port"), new.port.to_string());
    }
}

#[tokio::test]
async fn one_that_follows_already_is_only_made_to_last() {
    let (mut old, new) = after_a_failover(Redis::with()).await;
    old.run::<String>(&format!("REPLICAOF 127.0.0.1 {}", new.port));
    old.wait_until_in_sync();
    let copies = Copies::new();
    for upstream in [new.host(), Host::Tcp("localhost".to_owned(), new.port)] {
        let mut redis = adapter(&old.settings());
        let (rejoined, seen) = rejoin_by(&mut redis, &upstream, &copies.path()).await.unwrap();
        assert_eq!(rejoined.before, Before::Attached);
        assert_eq!(seen, []);
    }
    assert_eq!(copies.files(""), [] as [PathBuf; 0]);
    old.restart();
    assert_eq!(old.role(), "slave");
}

#[tokio::test]
async fn nothing_is_copied_of_an_empty_one_or_of_what_the_new_master_has() {
    let (_gone, new) = after_a_failover(Redis::with()).await;
    let copies = Copies::new();
    let empty = Redis::start();
    let (rejoined, _) = rejoin(&empty, &new, &copies).await.unwrap();
    assert_eq!(rejoined.before, Before::Empty);
    assert_follows(&empty, &new);

    let (old, replica) = pair();
    wait::until("the replica has everything", || {
        replica.info("slave_repl_offset") == old.info("master_repl_offset")
    });
    adapter(&replica.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    replica.run::<String>("SET only-there yes");
    let (rejoined, _) = rejoin(&old, &replica, &copies).await.unwrap();
    assert_eq!(rejoined.before, Before::Contained);
    assert_follows(&old, &replica);
    assert_eq!(replica.info("sync_partial_ok"), "1", "and not even the data set was sent");
    assert_eq!(copies.files(""), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_client_that_writes_meanwhile_waits_and_is_then_refused() {
    // Slow to save, so that the writes begin in the middle of it.
    let slow = Redis::with().line("rdb-key-save-delay 1000");
    let (old, new) = after_a_failover(slow).await;
    let copies = Copies::new();
    let mut writer = old.client();
    let (writes, begin) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        begin.recv().unwrap();
        redis::cmd("SET").arg("late").arg(1).query::<String>(&mut writer)
    });
    let upstream = new.host();
    let request =
        Rejoin { group: GROUP, upstream: &upstream, copies: &copies.path(), stall_max: None };
    let mut redis = adapter(&old.settings());
    let progress = |progress: Progress| {
        if let Progress::Copying { bytes: 0, .. } = progress {
            writes.send(()).unwrap();
        }
    };
    let rejoined = redis.rejoin(&request, progress).await.unwrap();
    let refused = writer.join().unwrap().expect_err("it is a replica now");
    assert_eq!(refused.code(), Some("READONLY"), "{refused}");
    let copy = load(&copied(&rejoined).path);
    assert_eq!(copy.run::<Option<String>>("GET late"), None, "it was never told otherwise");
    assert_eq!(new.run::<Option<String>>("GET late"), None);
    assert_follows(&old, &new);
}

/// A replica that was promoted, and another one of the same dead master that had more: `only-here`.
async fn after_a_failover_to_one_that_was_behind() -> (Redis, Redis) {
    let mut dead = Redis::start();
    dead.fill(100);
    dead.run::<String>("ACL SETUSER copier on >secret +psync +replconf +ping");
    let new =
        Redis::with().replica_of(&dead).line("masteruser copier").line("masterauth secret").start();
    let ahead = Redis::with().replica_of(&dead).start();
    new.wait_until_in_sync();
    ahead.wait_until_in_sync();
    dead.run::<String>("ACL SETUSER copier off");
    dead.run::<u64>("CLIENT KILL USER copier");
    dead.run::<String>("SET only-here yes");
    wait::until("it is ahead", || {
        ahead.run::<Option<String>>("GET only-here").as_deref() == Some("yes")
    });
    dead.kill();
    ahead.wait_until_link_is_down();
    adapter(&new.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    new.run::<String>("SET only-there yes");
    (ahead, new)
}

#[tokio::test]
async fn another_replica_that_was_ahead_of_the_promoted_one_is_copied_although_its_master_is_dead()
{
    let (ahead, new) = after_a_failover_to_one_that_was_behind().await;
    let copies = Copies::new();
    let (rejoined, _) = rejoin(&ahead, &new, &copies).await.unwrap();
    let copy = load(&copied(&rejoined).path);
    assert_eq!(copy.run::<String>("GET only-here"), "yes");
    assert_follows(&ahead, &new);

    // One that is not ahead has nothing of its own.
    let mut level = Redis::with().replica_of(&new).start();
    level.wait_until_in_sync();
    wait::until("it has everything", || {
        level.info("slave_repl_offset") == new.info("master_repl_offset")
    });
    adapter(&ahead.settings()).promote(GROUP, EPOCH + 1, false).await.unwrap();
    let (rejoined, _) = rejoin(&level, &ahead, &copies).await.unwrap();
    assert_eq!(rejoined.before, Before::Contained);
    level.kill();
}

#[tokio::test]
async fn killed_when_a_replica_was_detached_for_its_copy_it_goes_on() {
    let (ahead, new) = after_a_failover_to_one_that_was_behind().await;
    let copies = Copies::new();
    killed_at("rejoin:detach:effect", &ahead, &new, &copies);
    assert_eq!(ahead.run::<String>("GET only-here"), "yes");
    let (rejoined, _) = rejoin(&ahead, &new, &copies).await.unwrap();
    assert_eq!(load(&copied(&rejoined).path).run::<String>("GET only-here"), "yes");
    assert_follows(&ahead, &new);
}

#[tokio::test]
async fn without_room_for_a_copy_nothing_is_given_up() {
    let (old, new) = after_a_failover(Redis::with()).await;
    let copies = Copies::new();
    let _disk = SmallDisk::mount(&copies.path(), "size=8m");
    let fault = fault(&old, &new, &copies).await;
    assert!(matches!(&fault, RejoinFault::Copy(CopyFault::NoRoom { .. })), "{fault:?}");
    assert!(!fault.retryable());
    assert!(understudy::error::chain(&fault).contains("8 MiB left"), "{fault:?}");
    assert_is_untouched(&old);
}

#[tokio::test]
async fn a_disk_that_is_full_in_the_middle_of_the_copy_costs_nothing() {
    let (old, new) = after_a_failover(Redis::with()).await;
    old.run::<String>("CONFIG SET rdbcompression no");
    old.run::<String>("DEBUG POPULATE 1000 big 10000");
    let copies = Copies::new();
    let _disk = SmallDisk::mount(&copies.path(), "size=48m");
    let ballast = copies.path().join("ballast");
    let upstream = new.host();
    let request =
        Rejoin { group: GROUP, upstream: &upstream, copies: &copies.path(), stall_max: None };
    let mut redis = adapter(&old.settings());
    // There was room when it began, and then somebody else took it.
    let fill = |progress| {
        if matches!(progress, Progress::Copying { bytes: 0, .. }) {
            std::fs::write(&ballast, vec![0; 64 << 20]).expect_err("the disk is small");
        }
    };
    let fault = redis.rejoin(&request, fill).await.expect_err("the disk is full");
    assert!(matches!(&fault, RejoinFault::Copy(CopyFault::Write { .. })), "{fault:?}");
    assert!(understudy::error::chain(&fault).contains("No space left"), "{fault:?}");
    assert_eq!(copies.files(""), std::slice::from_ref(&ballast), "what was begun is removed");
    assert_is_untouched(&old);

    std::fs::remove_file(&ballast).unwrap();
    let (rejoined, _) = rejoin(&old, &new, &copies).await.unwrap();
    assert_eq!(load(&copied(&rejoined).path).run::<String>("GET only-here"), "yes");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_a_fault() {
    let (old, new) = after_a_failover(Redis::with()).await;
    let copies = Copies::new();
    std::fs::write(copies.path(), "a file").unwrap();
    let fault = fault(&old, &new, &copies).await;
    assert!(matches!(&fault, RejoinFault::Copy(CopyFault::Directory { .. })), "{fault:?}");
    assert_is_untouched(&old);
}

#[tokio::test]
async fn a_wrong_password_at_the_new_master_is_found_before_anything_is_given_up() {
    // It is wrong for us.
    let old = Redis::with().password("ours-canary").start();
    let new = Redis::with().password("theirs-canary").start();
    old.run::<String>("SET only-here yes");
    new.run::<String>("SET only-there yes");
    let copies = Copies::new();
    let ours = fault(&old, &new, &copies).await;
    assert!(matches!(&ours, RejoinFault::Upstream(RedisError::Login { .. })), "{ours:?}");
    assert_is_untouched(&old);

    // It is wrong for the replication of redis, once with and once without one.
    new.run::<String>("ACL SETUSER default >ours-canary");
    for masterauth in ["stale-canary", "\"\""] {
        let arguments = format!("CONFIG SET masterauth {masterauth}").replace("\"\"", "");
        old.run_words::<String>(&arguments.split(' ').collect::<Vec<_>>());
        let theirs = fault(&old, &new, &copies).await;
        assert!(matches!(&theirs, RejoinFault::Link(LinkFault::Login { .. })), "{theirs:?}");
        assert!(!theirs.retryable());
        let shown = format!("{theirs} {theirs:?} {}", understudy::error::chain(&theirs));
        assert!(!shown.contains("canary"), "{shown}");
        assert_is_untouched(&old);
    }
    assert_eq!(copies.files(""), [] as [PathBuf; 0]);

    old.run::<String>("CONFIG SET masterauth ours-canary");
    rejoin(&old, &new, &copies).await.unwrap();
    assert_follows(&old, &new);
}

#[tokio::test]
async fn a_user_of_the_replication_that_may_not_copy_is_found_too() {
    let (old, new) = after_a_failover(Redis::with()).await;
    new.run::<String>("ACL SETUSER copier on >secret +replconf +ping");
    old.run::<String>("CONFIG SET masteruser copier");
    old.run::<String>("CONFIG SET masterauth secret");
    let fault = fault(&old, &new, &Copies::new()).await;
    let RejoinFault::Link(LinkFault::NotPermitted { user, command, .. }) = &fault else {
        panic!("{fault:?}")
    };
    assert_eq!((user.as_str(), command.as_str()), ("copier", "PSYNC"));
    assert_is_untouched(&old);
}

#[tokio::test]
async fn what_is_no_master_is_not_followed() {
    let (old, new) = after_a_failover(Redis::with()).await;
    let copies = Copies::new();
    let replica = Redis::with().replica_of(&new).start();
    replica.wait_until_in_sync();
    let not_master = fault(&old, &replica, &copies).await;
    assert!(matches!(&not_master, RejoinFault::NotMaster { .. }), "{not_master:?}");
    assert!(not_master.retryable(), "it may be about to be promoted");

    let mut redis = adapter(&old.settings());
    for itself in [old.host(), Host::Tcp("localhost".to_owned(), old.port)] {
        let fault = rejoin_by(&mut redis, &itself, &copies.path()).await.unwrap_err();
        assert!(matches!(&fault, RejoinFault::Itself { .. }), "{fault:?}");
    }
    let fault = rejoin_by(&mut redis, &new.socket(), &copies.path()).await.unwrap_err();
    assert!(matches!(&fault, RejoinFault::NoNetwork { .. }), "{fault:?}");
    assert_is_untouched(&old);
}

#[tokio::test]
async fn a_master_of_an_earlier_epoch_is_not_followed() {
    let (old, new) = after_a_failover(Redis::with()).await;
    old.run::<String>(&format!("SET {} {}", marker_key(GROUP), EPOCH + 1));
    let fault = fault(&old, &new, &Copies::new()).await;
    let RejoinFault::Earlier { ours, theirs, .. } = &fault else { panic!("{fault:?}") };
    assert_eq!((*ours, *theirs), (EPOCH + 1, EPOCH));
    assert_is_untouched(&old);
}

#[tokio::test]
async fn while_the_new_master_is_down_everything_stays_as_it_is() {
    let (old, mut new) = after_a_failover(Redis::with()).await;
    new.kill();
    let fault = fault(&old, &new, &Copies::new()).await;
    assert!(matches!(&fault, RejoinFault::Upstream(RedisError::Connect { .. })), "{fault:?}");
    assert!(fault.retryable());
    assert_is_untouched(&old);
}

#[tokio::test]
async fn a_new_master_that_dies_during_the_copy_is_not_followed() {
    let (old, new) = after_a_failover(Redis::with()).await;
    let copies = Copies::new();
    let upstream = new.host();
    let request =
        Rejoin { group: GROUP, upstream: &upstream, copies: &copies.path(), stall_max: None };
    let mut new = Some(new);
    let mut redis = adapter(&old.settings());
    let kill = |progress| {
        if matches!(progress, Progress::Copying { .. }) {
            drop(new.take());
        }
    };
    let fault = redis.rejoin(&request, kill).await.expect_err("it is dead");
    assert!(matches!(&fault, RejoinFault::Upstream(RedisError::Connect { .. })), "{fault:?}");
    assert_is_untouched(&old);
}

#[tokio::test]
async fn one_that_is_loading_is_waited_for() {
    let (mut old, new) = after_a_failover(Redis::with()).await;
    old.run::<String>("DEBUG POPULATE 5000");
    wait::until("it is saved", || old.try_run::<String>("SAVE").is_ok());
    let mut lines = std::fs::read_to_string(old.config_file()).unwrap();
    lines.push_str("\nkey-load-delay 1000\nloading-process-events-interval-bytes 1024\n");
    std::fs::write(old.config_file(), lines).unwrap();
    old.restart_and_do_not_wait();
    wait::until("it answers that it is loading", || old.info("loading") == "1");
    let fault = fault(&old, &new, &Copies::new()).await;
    assert!(matches!(&fault, RejoinFault::Busy(_)) && fault.retryable(), "{fault:?}");
    wait::until("it has loaded", || old.info("loading") == "0");
    assert_is_untouched(&old);
}

// ---- kill -9 ----

/// Begins the rejoin in a process of its own, which dies at `point`.
fn killed_at(point: &str, old: &Redis, new: &Redis, copies: &Copies) {
    let program = Path::new(env!("CARGO_BIN_EXE_understudy"));
    let ended = Command::new(program.with_file_name("examples").join("rejoin"))
        .arg(GROUP)
        .args([format!("127.0.0.1:{}", old.port), format!("127.0.0.1:{}", new.port)])
        .arg(copies.path())
        .env("UNDERSTUDY_CRASH_AT", point)
        .stdin(Stdio::null())
        .output()
        .expect("the examples are built");
    assert_eq!(ended.status.signal(), Some(9), "{point}: {ended:?}");
}

#[tokio::test]
async fn killed_at_any_point_and_started_again_it_ends_the_same() {
    let points = ["pause", "copy", "attach", "unpause", "persist"];
    for point in points.map(|point| format!("rejoin:{point}:effect")) {
        let (old, new) = after_a_failover(Redis::with()).await;
        let copies = Copies::new();
        killed_at(&point, &old, &new, &copies);
        if matches!(point.as_str(), "rejoin:pause:effect" | "rejoin:copy:effect") {
            assert_eq!(old.role(), "master", "{point}");
            assert_eq!(old.run::<String>("GET only-here"), "yes", "{point}");
        }
        let (rejoined, _) = rejoin(&old, &new, &copies).await.unwrap();
        assert_follows(&old, &new);
        let copy = match &rejoined.before {
            Before::Copied(kept) => {
                assert_eq!(kept.reused, point == "rejoin:copy:effect", "{point}");
                kept.path.clone()
            }
            Before::Attached => copies.files(".rdb")[0].clone(),
            other => panic!("{point}: {other:?}"),
        };
        assert_eq!(load(&copy).run::<String>("GET only-here"), "yes", "{point}");
        assert_eq!(copies.files(".rdb").len(), 1, "{point}: once is enough");
    }
}

#[tokio::test]
async fn a_redis_that_restarts_before_its_role_was_written_down_rejoins_once_more() {
    let (mut old, new) = after_a_failover(Redis::with()).await;
    let copies = Copies::new();
    killed_at("rejoin:attach:effect", &old, &new, &copies);
    old.restart();
    assert_eq!(old.role(), "master", "its configuration file knows nothing yet");
    rejoin(&old, &new, &copies).await.unwrap();
    assert_follows(&old, &new);
    let held = |path: &PathBuf| load(path).run::<Option<String>>("GET only-here").is_some();
    assert!(copies.files(".rdb").iter().any(held), "the copy is still there");
    old.restart();
    assert_eq!(old.role(), "slave");
}

#[tokio::test]
async fn clients_do_not_wait_for_one_that_was_killed() {
    let (old, new) = after_a_failover(Redis::with()).await;
    let mut client = old.client();
    client.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    killed_at("rejoin:pause:effect", &old, &new, &Copies::new());
    let written = redis::cmd("SET").arg("patient").arg(1).query::<String>(&mut client);
    assert_eq!(written.unwrap(), "OK", "the pause ended by itself");
    assert_eq!(old.role(), "master");
}

// ---- rights, encryption, sockets ----

/// Makes the user that docs/redis.md describes.
fn make_user(redis: &Redis) {
    let manual = include_str!("../../../docs/redis.md").lines();
    let commands: Vec<_> =
        manual.filter_map(|line| line.strip_prefix("    ACL SETUSER understudy")).collect();
    assert_eq!(commands.len(), 2, "one for each mode");
    for rights in commands {
        let rights = rights.replace("PASSWORD", "secret");
        redis.run::<String>(&format!("ACL SETUSER understudy{rights}"));
    }
}

#[tokio::test]
async fn a_user_with_just_the_rights_that_we_ask_for_can_rejoin_over_a_socket() {
    let (old, new) = after_a_failover(Redis::with()).await;
    for redis in [&old, &new] {
        make_user(redis);
    }
    let copies = Copies::new();
    let settings = settings::Redis { address: old.socket(), ..acl_user(&old) };
    let mut redis = adapter(&settings);
    let attachable = redis.attachable(&[new.host()], &copies.path()).await.unwrap();
    let denied = attachable.permissions.iter().filter(|p| p.permitted != Permitted::Yes);
    assert_eq!(denied.count(), 0, "{attachable:?}");
    assert!(matches!(attachable.links[..], [(_, LinkState::Open)]), "{attachable:?}");
    assert!(attachable.copy.is_ok() && attachable.too_old.is_none(), "{attachable:?}");
    let (rejoined, _) = rejoin_by(&mut redis, &new.host(), &copies.path()).await.unwrap();
    assert_eq!(load(&copied(&rejoined).path).run::<String>("GET only-here"), "yes");
    assert_follows(&old, &new);
}

#[tokio::test]
async fn each_missing_right_is_foreseen_and_gives_nothing_up() {
    let (old, new) = after_a_failover(Redis::with()).await;
    make_user(&new);
    let rights = ["psync", "replconf", "client|pause", "replicaof"];
    for right in rights {
        old.run::<String>("ACL SETUSER understudy reset");
        make_user(&old);
        old.run::<String>(&format!("ACL SETUSER understudy -{right}"));
        let copies = Copies::new();
        let mut redis = adapter(&acl_user(&old));
        let attachable = redis.attachable(&[], &copies.path()).await.unwrap();
        let no = attachable.permissions.iter().filter(|p| p.permitted != Permitted::Yes);
        let no: Vec<_> = no.map(|p| p.command.to_lowercase().replace(' ', "|")).collect();
        assert!(!no.is_empty() && no.iter().all(|no| no.starts_with(right)), "{right}: {no:?}");
        let fault = rejoin_by(&mut redis, &new.host(), &copies.path()).await.unwrap_err();
        let text = understudy::error::chain(&fault);
        assert!(text.contains("NOPERM") && !fault.retryable(), "{right}: {text}");
        assert!(fault.remedy().contains(right), "{right}: {}", fault.remedy());
        assert_is_untouched(&old);
    }
}

#[tokio::test]
async fn an_encrypted_redis_is_copied_and_must_replicate_encrypted() {
    let tls = "tls-replication yes";
    let old = Redis::with().tls().start();
    let new = Redis::with().tls().start();
    old.run::<String>("SET only-here yes");
    new.run::<String>("SET only-there yes");
    // Each trusts its own authority, and so do we here: one file with both.
    let both = tempfile::NamedTempFile::new().unwrap();
    let mut pem = std::fs::read(old.ca_file()).unwrap();
    pem.extend(std::fs::read(new.ca_file()).unwrap());
    std::fs::write(both.path(), pem).unwrap();
    let ca_file = Some(both.path().to_owned());
    let settings = settings::Redis { tls: Tls::Verify { ca_file }, ..old.tls_settings() };
    let copies = Copies::new();
    let upstream = new.tls_settings().address;
    let mut redis = adapter(&settings);
    let fault = rejoin_by(&mut redis, &upstream, &copies.path()).await.unwrap_err();
    let RejoinFault::Link(LinkFault::Encryption { encrypted, .. }) = fault else {
        panic!("{fault:?}")
    };
    assert!(encrypted);
    assert_is_untouched(&old);

    old.run::<String>(&format!("CONFIG SET {tls}"));
    old.run::<String>(&format!("CONFIG SET tls-ca-cert-file {}", both.path().display()));
    let (rejoined, _) = rejoin_by(&mut redis, &upstream, &copies.path()).await.unwrap();
    assert_eq!(load(&copied(&rejoined).path).run::<String>("GET only-here"), "yes");
    assert_follows_encrypted(&old, &new);
}

fn assert_follows_encrypted(old: &Redis, new: &Redis) {
    assert_eq!(old.role(), "slave");
    new.run::<String>("SET after rejoin");
    wait::until("a write reaches it", || old.run::<Option<String>>("GET after").is_some());
}

#[tokio::test]
async fn what_a_rejoin_would_stumble_over_is_foreseen() {
    let (old, new) = after_a_failover(Redis::with()).await;
    let copies = Copies::new();
    let fits = adapter(&old.settings()).attachable(&[], &copies.path()).await.unwrap();
    assert!(fits.copy.is_ok(), "{fits:?}");
    assert!(!copies.path().exists(), "who asks may be another user");
    let _disk = SmallDisk::mount(&copies.path(), "size=8m");
    let silent = Host::Tcp("127.0.0.1".to_owned(), free_port());
    let locked = Redis::with().password("other").start();
    old.run::<String>("CONFIG SET masterauth stale");
    new.run::<String>("CONFIG SET requirepass fresh");
    let mut redis = adapter(&settings::Redis {
        password: Some(Secret::new("fresh".to_owned())),
        ..old.settings()
    });
    old.run::<String>("CONFIG SET requirepass fresh");
    let others = [new.host(), silent, locked.host()];
    let attachable = redis.attachable(&others, &copies.path()).await.unwrap();
    assert!(matches!(attachable.copy, Err(CopyFault::NoRoom { .. })), "{attachable:?}");
    let [new, silent, locked] = &attachable.links[..] else { panic!("{attachable:?}") };
    assert!(matches!(new.1, LinkState::Closed(LinkFault::Login { .. })), "{new:?}");
    assert!(matches!(silent.1, LinkState::Unknown(RedisError::Connect { .. })), "{silent:?}");
    assert!(matches!(locked.1, LinkState::Unknown(RedisError::Login { .. })), "{locked:?}");
}

/// What `understudy check` says about the Redis of a group in paired mode on node `a`, as a level and a
/// text each.
fn check(state_dir: &Path, a: &Redis, b: &Redis) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("understudy.toml");
    let text = format!(
        "node = \"a\"\nstate_dir = {state_dir:?}\nruntime_dir = {:?}\n\
         [store]\nhosts = [\"127.0.0.1:{}\"]\ndatabase = \"none\"\n\
         [group.trading]\nbots = [\"bot\"]\nunits = [\"bot.service\"]\n\
         mode = \"paired\"\nnodes = [\"a\", \"b\"]\n\
         [group.trading.redis]\naddress = \"127.0.0.1:{}\"\n\
         nodes = {{ a = \"127.0.0.1:{}\", b = \"127.0.0.1:{}\" }}\n",
        dir.path(),
        free_port(),
        a.port,
        a.port,
        b.port
    );
    std::fs::write(&file, text).unwrap();
    let said = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["check", "--json", "--config"])
        .arg(&file)
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
        .output()
        .unwrap();
    let lines: serde_json::Value = serde_json::from_slice(&said.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&said.stderr)));
    let lines = lines.as_array().unwrap().iter();
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or("").to_owned();
    lines
        .filter(|line| line["about"] == "trading redis")
        .map(|line| (text(line, "level"), text(line, "text") + " → " + &text(line, "remedy")))
        .collect()
}

#[test]
fn check_says_whether_the_redis_of_a_node_could_follow_another() {
    let b = Redis::start();
    b.fill(100);
    let a = Redis::with().replica_of(&b).start();
    a.wait_until_in_sync();
    let state = tempfile::tempdir().unwrap();
    let says = |level: &str, words: &str| {
        let lines = check(state.path(), &a, &b);
        let found = lines.iter().any(|(l, text)| l == level && text.contains(words));
        assert!(found, "no {level} with {words:?} in {lines:#?}");
        lines
    };
    says("ok", "its data could be saved");
    let lines = says("ok", &format!("would be let in as a replica by 127.0.0.1:{}", b.port));
    assert!(lines.iter().all(|(level, _)| level != "fault"), "{lines:#?}");
    assert!(!state.path().join("copies").exists(), "a check changes nothing");
    // On the node that has the group the same lines matter: it may be the next to come back.
    let lines = check(state.path(), &b, &a);
    assert!(lines.iter().all(|(level, _)| level != "fault"), "{lines:#?}");

    a.run::<String>("CONFIG SET masterauth stale");
    // A server that asks for no password refuses one.
    says("fault", "does not let in the user default");
    b.run::<String>("ACL SETUSER copier on >right +psync +replconf +ping");
    a.run::<String>("CONFIG SET masteruser copier");
    says("fault", "does not let in the user copier");
    a.run::<String>("CONFIG SET masterauth right");
    says("ok", "would be let in");
    a.run::<String>("ACL SETUSER default -psync");
    says("fault", "default may not use PSYNC");
    a.run::<String>("ACL SETUSER default +psync");
    let _disk = SmallDisk::mount(&state.path().join("copies"), "size=4m");
    says("fault", "4 MiB left");
}

// ---- hostile servers ----

/// Something that says that it is a Redis master, and sends what it likes instead of a data set.
struct Impostor {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Impostor {
    fn start(answer_to_psync: &[u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (answer, noted) = (answer_to_psync.to_vec(), heard.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (answer, noted) = (answer.clone(), noted.clone());
                std::thread::spawn(move || serve(client, &answer, &noted));
            }
        });
        Self { port, heard }
    }

    fn settings(&self) -> settings::Redis {
        settings::Redis { address: self.host(), ..Redis::start().settings() }
    }

    fn host(&self) -> Host {
        Host::Tcp("127.0.0.1".to_owned(), self.port)
    }

    fn heard(&self, command: &str) -> bool {
        self.heard.lock().unwrap().iter().any(|heard| heard.starts_with(command))
    }
}

fn serve(client: TcpStream, answer_to_psync: &[u8], heard: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut writer = client;
    while let Some(words) = command(&mut reader) {
        heard.lock().unwrap().push(words.join(" ").to_uppercase());
        let info = "run_id:00ff\r\nrole:master\r\nmaster_replid:0f\r\nmaster_repl_offset:9\r\n\
                    redis_version:7.0.15\r\nused_memory:1000\r\ndb0:keys=5,expires=0\r\n";
        let answer = match words[0].to_uppercase().as_str() {
            "INFO" => format!("${}\r\n{info}\r\n", info.len()).into_bytes(),
            "PING" => b"+PONG\r\n".to_vec(),
            "GET" => b"$-1\r\n".to_vec(),
            "CLIENT" | "REPLCONF" => b"+OK\r\n".to_vec(),
            "PSYNC" => answer_to_psync.to_vec(),
            _ => b"-ERR no\r\n".to_vec(),
        };
        let closes = words[0].eq_ignore_ascii_case("PSYNC");
        if writer.write_all(&answer).is_err() || closes {
            return;
        }
    }
}

fn command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut words = Vec::new();
    for _ in 0..number(reader, '*')? {
        let mut word = vec![0; number(reader, '$')? + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

fn number(reader: &mut impl BufRead, sign: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}

#[tokio::test]
async fn garbage_instead_of_a_data_set_is_no_copy_and_nothing_is_given_up() {
    let (_gone, new) = after_a_failover(Redis::with()).await;
    let full = "+FULLRESYNC 0f 9\r\n";
    let mark = "x".repeat(40);
    let cases = [
        String::new(),
        "-ERR not today\r\n".to_owned(),
        "+CONTINUE\r\n".to_owned(),
        "x".repeat(10_000),
        full.to_owned(),
        format!("{full}$-1\r\n"),
        format!("{full}$EOF:short\r\n"),
        format!("{full}$100\r\n{}", "no".repeat(50)),
        format!("{full}$100\r\nREDIS0010 and then nothing"),
        format!("{full}$30\r\nREDIS0010{}", "\u{7f}".repeat(21)),
        format!("{full}$EOF:{mark}\r\nREDIS0010{}{mark}", "\u{7f}".repeat(50)),
        format!("{full}$EOF:{mark}\r\n{mark}"),
        format!("{full}$18446744073709551615\r\nREDIS0010"),
    ];
    for case in cases {
        let impostor = Impostor::start(case.as_bytes());
        let copies = Copies::new();
        let mut redis = adapter(&impostor.settings());
        let fault = rejoin_by(&mut redis, &new.host(), &copies.path()).await.unwrap_err();
        assert!(matches!(&fault, RejoinFault::Copy(_)), "{case:?}: {fault:?}");
        assert!(impostor.heard("PSYNC") && !impostor.heard("REPLICAOF"), "{case:?}");
        assert!(impostor.heard("CLIENT UNPAUSE"), "{case:?}");
        assert_eq!(copies.files(""), [] as [PathBuf; 0], "{case:?}");
    }
}

#[tokio::test]
async fn a_data_set_that_was_changed_on_the_way_is_no_copy() {
    let source = Redis::start();
    source.fill(100);
    source.run::<String>("SAVE");
    let mut data = std::fs::read(source.dir().join("dump.rdb")).unwrap();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    let answer = [format!("+FULLRESYNC 0f 9\r\n${}\r\n", data.len()).as_bytes(), &data].concat();
    let impostor = Impostor::start(&answer);
    let new = Redis::start();
    let copies = Copies::new();
    let mut redis = adapter(&impostor.settings());
    let fault = rejoin_by(&mut redis, &new.host(), &copies.path()).await.unwrap_err();
    let RejoinFault::Copy(CopyFault::Damaged { damage, .. }) = &fault else { panic!("{fault:?}") };
    assert_eq!(*damage, Damage::Checksum);
    assert!(!impostor.heard("REPLICAOF"));
}

#[tokio::test]
async fn a_new_master_that_sends_garbage_is_told_and_what_was_there_is_in_the_copy() {
    let mark = "x".repeat(40);
    let garbage = format!("+FULLRESYNC {mark} 9\r\n$100\r\n{}", "no".repeat(50));
    let impostor = Impostor::start(garbage.as_bytes());
    let old = Redis::start();
    old.run::<String>("SET only-here yes");
    let copies = Copies::new();
    let request = Rejoin {
        group: GROUP,
        upstream: &impostor.host(),
        copies: &copies.path(),
        stall_max: Some(Duration::from_secs(2)),
    };
    let fault = adapter(&old.settings()).rejoin(&request, |_| {}).await.unwrap_err();
    assert!(matches!(&fault, RejoinFault::Stalled { .. } | RejoinFault::Redis(_)), "{fault:?}");
    assert!(!fault.remedy().is_empty());
    let copies = copies.files(".rdb");
    assert_eq!(load(&copies[0]).run::<String>("GET only-here"), "yes");
}
