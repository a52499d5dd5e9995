//! The thread with the deadline, without the rest of the guard.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use understudy::guard::deadline::{prepare, tells};
use understudy::guard::notify::{FENCE, Notify};
use understudy::guard::slice::Slice;
use understudy::time::BootTime;

/// A directory that looks like a control group without anything in it.
fn empty_slice(directory: &Path) -> Slice {
    fs::write(directory.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    fs::write(directory.join("cgroup.kill"), "").unwrap();
    Slice::open(directory).unwrap()
}

#[test]
fn nothing_is_allocated_from_the_deadline_to_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let slice = empty_slice(directory.path());
    // Something is left until the kill: the file says so until then.
    fs::write(directory.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    let systemd = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    let notify = Notify::at(Some(directory.path().join("notify").into())).unwrap();
    let at = BootTime::now() + Duration::from_millis(50);
    let (deadline, mut told, switch) =
        prepare(Some(at), slice, notify, Duration::from_millis(700)).unwrap();
    let path = directory.path().to_owned();
    let dies = std::thread::spawn(move || {
        while fs::read_to_string(path.join("cgroup.kill")).unwrap() != "1" {
            std::thread::sleep(Duration::from_millis(1));
        }
        fs::write(path.join("cgroup.events.new"), "populated 0\nfrozen 0\n").unwrap();
        fs::rename(path.join("cgroup.events.new"), path.join("cgroup.events")).unwrap();
    });
    let count = allocation_counter::measure(|| switch.run());
    dies.join().unwrap();
    assert_eq!(count.count_total, 0, "{count:?}");
    assert!(BootTime::now() >= at + Duration::from_millis(700), "it asked before it killed");
    assert!(deadline.is_struck());
    told.set_nonblocking(false).unwrap();
    let mut said = [0; 2];
    told.read_exact(&mut said).unwrap();
    assert_eq!(said, [tells::STRUCK, tells::DEAD]);
    let mut message = [0; 200];
    let length = systemd.recv(&mut message).unwrap();
    assert_eq!(&message[..length], FENCE);
}

#[test]
fn a_deadline_moves_until_it_passed_and_then_never() {
    let directory = tempfile::tempdir().unwrap();
    let slice = empty_slice(directory.path());
    let notify = Notify::at(None).unwrap();
    let at = |millis| Some(BootTime::now() + Duration::from_millis(millis));
    let (deadline, mut told, switch) =
        prepare(at(100), slice, notify, Duration::from_millis(100)).unwrap();
    let thread = std::thread::spawn(move || switch.run());
    assert!(deadline.set(at(100_000)) && deadline.set(None) && deadline.set(at(100_000)));
    assert!(!deadline.is_struck());
    // Sooner again, which wakes the thread.
    let soon = at(20).unwrap();
    assert!(deadline.set(Some(soon)));
    thread.join().unwrap();
    assert!(BootTime::now() >= soon);
    assert!(!deadline.set(at(100_000)) && !deadline.set(None), "it is over");
    told.set_nonblocking(false).unwrap();
    let mut said = [0; 1];
    told.read_exact(&mut said).unwrap();
    assert_eq!(said, [tells::STRUCK]);
}

#[test]
fn a_fence_can_begin_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let notify = Notify::at(None).unwrap();
    let (deadline, _told, switch) =
        prepare(None, empty_slice(directory.path()), notify, Duration::from_secs(100)).unwrap();
    let thread = std::thread::spawn(move || switch.run());
    deadline.strike(BootTime::now());
    thread.join().unwrap();
}

#[test]
fn a_slice_that_cannot_be_known_is_not_empty_and_one_that_is_gone_is() {
    let directory = tempfile::tempdir().unwrap();
    let slice = empty_slice(directory.path());
    assert!(slice.is_empty());
    let events = directory.path().join("cgroup.events");
    for text in ["", "populated 1\nfrozen 0\n", "populated 01\n", "frozen 0\n", "populated 0 "] {
        fs::write(&events, text).unwrap();
        assert!(!slice.is_empty(), "{text:?}");
    }
    fs::remove_file(&events).unwrap();
    assert!(slice.is_empty());
    fs::create_dir(&events).unwrap();
    assert!(!slice.is_empty(), "it is there and says nothing");
    let fault = Slice::open(&directory.path().join("none")).unwrap_err();
    assert!(fault.contains("control groups of version 2"), "{fault}");
}
