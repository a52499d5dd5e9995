//! A planned switchover: the replica has every byte before the master steps down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use understudy::adapters::redis::{Before, HandOff, HandOffFault, RedisError, Rejoin};

use super::{EPOCH, GROUP, adapter, pair};
use crate::support::redis::Redis;
use crate::support::wait;

/// Numbers its writes, each of which it tries until it is acknowledged, wherever the master is.
struct Writer {
    thread: JoinHandle<u64>,
    stop: Arc<AtomicBool>,
    master: Arc<AtomicU16>,
}

impl Writer {
    fn start(master: &Redis) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let port = Arc::new(AtomicU16::new(master.port));
        let (stopped, at) = (stop.clone(), port.clone());
        let thread = std::thread::spawn(move || {
            let mut acknowledged = 0;
            let mut open: Option<(u16, redis::Connection)> = None;
            while !stopped.load(Ordering::SeqCst) {
                let port = at.load(Ordering::SeqCst);
                let mut connection = match open.take() {
                    Some((same, connection)) if same == port => connection,
                    _ => connect(port),
                };
                let next = acknowledged + 1;
                let pushed = redis::cmd("RPUSH").arg("log").arg(next).query(&mut connection);
                match pushed {
                    Ok(()) => acknowledged = next,
                    // It is told that this is a replica now, and looks for the master.
                    Err(error) if error.code() == Some("READONLY") => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
                open = Some((port, connection));
            }
            acknowledged
        });
        Self { thread, stop, master: port }
    }

    fn goes_to(&self, master: &Redis) {
        self.master.store(master.port, Ordering::SeqCst);
    }

    /// How many writes were acknowledged.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn connect(port: u16) -> redis::Connection {
    let client = redis::Client::open(("127.0.0.1", port)).unwrap();
    let connection = client.get_connection_with_timeout(Duration::from_secs(5)).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    connection
}

fn within() -> Duration {
    Duration::from_secs(20)
}

fn written(redis: &Redis) -> u64 {
    redis.run("LLEN log")
}

#[tokio::test]
async fn no_write_is_lost_and_none_is_made_twice_with_200_megabytes_and_a_writer() {
    let old = Redis::start();
    old.run::<String>("DEBUG POPULATE 20000 big 10000");
    let new = Redis::with().replica_of(&old).start();
    new.wait_until_in_sync();
    let writer = Writer::start(&old);
    wait::until("there are writes", || written(&old) > 1000);

    let mut old_side = adapter(&old.settings());
    let replica = new.host();
    let request = HandOff { replica: &replica, within: within() };
    let handed_off = old_side.hand_off(&request, |_| {}).await.unwrap();
    assert_eq!(handed_off.keys, 20_001);
    assert_eq!(handed_off.offset.to_string(), old.info("master_repl_offset"), "it is paused");
    let at_the_pause = written(&old);
    old_side.keep_paused().await.unwrap();
    adapter(&new.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    assert_eq!(written(&new), at_the_pause, "the new one has everything, the old one got nothing");
    writer.goes_to(&new);

    let copies = tempfile::tempdir().unwrap();
    let request =
        Rejoin { group: GROUP, upstream: &replica, copies: copies.path(), stall_max: None };
    let rejoined = old_side.rejoin(&request, |_| {}).await.unwrap();
    assert_eq!(rejoined.before, Before::Contained, "so no copy is needed");
    wait::until("the writer goes on at the new master", || written(&new) > at_the_pause + 1000);
    let acknowledged = writer.stop();

    let log: Vec<u64> = new.run("LRANGE log 0 -1");
    assert_eq!(log, (1..=acknowledged).collect::<Vec<_>>(), "each number once, in order");
    wait::until("the old one has the same", || written(&old) == acknowledged);
    assert_eq!(new.info("sync_partial_ok"), "1", "200 megabytes were not sent again");
    for (redis, role) in [(&old, "slave"), (&new, "master")] {
        assert_eq!(redis.role(), role);
    }
}

#[tokio::test]
async fn a_replica_that_does_not_catch_up_stops_no_writer_for_longer_than_was_said() {
    let (old, new) = pair();
    let writer = Writer::start(&old);
    wait::until("there are writes", || written(&old) > 100);
    // It answers, but reads nothing of what its master sends.
    new.run::<String>("CLIENT PAUSE 600000 WRITE");
    wait::until("it is behind", || old.info("master_repl_offset") != new.info("slave_repl_offset"));
    let request = HandOff { replica: &new.host(), within: Duration::from_millis(300) };
    let fault = adapter(&old.settings()).hand_off(&request, |_| {}).await.unwrap_err();
    assert!(matches!(&fault, HandOffFault::Behind { bytes: 1.., .. }), "{fault:?}");
    assert!(fault.retryable() && !fault.remedy().is_empty());
    let after = written(&old);
    wait::until("the writer goes on where it was", || written(&old) > after + 100);
    let acknowledged = writer.stop();
    assert_eq!(written(&old), acknowledged);

    new.run::<String>("CLIENT UNPAUSE");
    let request = HandOff { replica: &new.host(), within: within() };
    let mut lacked = Vec::new();
    let mut redis = adapter(&old.settings());
    redis.hand_off(&request, |bytes| lacked.push(bytes)).await.unwrap();
    assert_eq!(lacked.last(), Some(&0));
}

#[tokio::test]
async fn a_switchover_that_is_given_up_lets_the_writers_go_on() {
    let (old, new) = pair();
    let writer = Writer::start(&old);
    let mut redis = adapter(&old.settings());
    let request = HandOff { replica: &new.host(), within: within() };
    redis.hand_off(&request, |_| {}).await.unwrap();
    let paused_at = written(&old);
    redis.resume_writes().await.unwrap();
    wait::until("the writer goes on", || written(&old) > paused_at + 100);
    let lost = redis.keep_paused().await.unwrap_err();
    assert!(matches!(lost, HandOffFault::PauseLost), "nobody may go on with it: {lost:?}");
    let acknowledged = writer.stop();
    wait::until("the replica has everything", || written(&new) == acknowledged);
}

#[tokio::test]
async fn what_was_written_after_a_pause_that_ended_is_copied() {
    let (old, new) = pair();
    let mut redis = adapter(&old.settings());
    let request = HandOff { replica: &new.host(), within: within() };
    redis.hand_off(&request, |_| {}).await.unwrap();
    adapter(&new.settings()).promote(GROUP, EPOCH, false).await.unwrap();
    // Somebody ends the pause, and a client writes to the old master.
    old.run::<String>("CLIENT UNPAUSE");
    old.run::<String>("SET only-here yes");
    let copies = tempfile::tempdir().unwrap();
    let upstream = new.host();
    let request =
        Rejoin { group: GROUP, upstream: &upstream, copies: copies.path(), stall_max: None };
    let rejoined = redis.rejoin(&request, |_| {}).await.unwrap();
    let Before::Copied(kept) = &rejoined.before else { panic!("{rejoined:?}") };
    let copy = Redis::with().data(&kept.path).start();
    assert_eq!(copy.run::<String>("GET only-here"), "yes");
}

#[tokio::test]
async fn nothing_is_paused_for_a_replica_that_cannot_take_over() {
    let (old, mut new) = pair();
    let mut redis = adapter(&old.settings());
    let stranger = Redis::start();
    let copier = Redis::with().replica_of(&stranger).start();
    copier.wait_until_in_sync();
    for other in [&stranger, &copier] {
        let request = HandOff { replica: &other.host(), within: within() };
        let fault = redis.hand_off(&request, |_| {}).await.unwrap_err();
        assert!(matches!(&fault, HandOffFault::NotReplica { .. }), "{fault:?}");
    }
    let from_a_replica = adapter(&new.settings());
    let request = HandOff { replica: &old.host(), within: within() };
    let mut redis_of_the_replica = from_a_replica;
    let fault = redis_of_the_replica.hand_off(&request, |_| {}).await.unwrap_err();
    assert!(matches!(&fault, HandOffFault::NotMaster), "{fault:?}");

    new.kill();
    let request = HandOff { replica: &new.host(), within: within() };
    let fault = redis.hand_off(&request, |_| {}).await.unwrap_err();
    assert!(matches!(&fault, HandOffFault::Replica(RedisError::Connect { .. })), "{fault:?}");
    assert_eq!(old.run::<String>("SET goes on"), "OK");
}

#[tokio::test]
async fn a_replica_that_dies_in_the_middle_lets_the_writers_go_on() {
    let (old, new) = pair();
    new.run::<String>("CLIENT PAUSE 600000 WRITE");
    old.run::<String>("SET not-there yet");
    let host = new.host();
    let mut new = Some(new);
    let request = HandOff { replica: &host, within: within() };
    let mut redis = adapter(&old.settings());
    let fault = redis.hand_off(&request, |_| drop(new.take())).await.unwrap_err();
    assert!(matches!(&fault, HandOffFault::Replica(_)), "{fault:?}");
    assert_eq!(old.run::<String>("SET goes on"), "OK");
}

#[tokio::test]
async fn a_replica_with_other_keys_is_refused_although_it_has_every_byte() {
    let old = Redis::start();
    old.fill(100);
    let new = Redis::with().replica_of(&old).line("replica-read-only no").start();
    new.wait_until_in_sync();
    new.run::<String>("SET stray yes");
    let request = HandOff { replica: &new.host(), within: within() };
    let fault = adapter(&old.settings()).hand_off(&request, |_| {}).await.unwrap_err();
    assert!(matches!(fault, HandOffFault::Differs { theirs: 102, ours: 101, .. }), "{fault:?}");
    assert_eq!(old.run::<String>("SET goes on"), "OK");
}
