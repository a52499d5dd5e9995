//! Commands of the operator's: what they may do to us, and what we learn of them.

use std::fs;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use understudy::adapters::hook::{HookError, OUTPUT_MAX_BYTES, Ran, run, run_with_input};
use understudy::time::BootTime;

use crate::support::bus::wait_until;

const PLENTY: Duration = Duration::from_secs(20);

/// Runs a script, by a shell of its own.
async fn script(text: &str, deadline: Duration) -> Ran {
    run(&["/bin/sh", "-c", text].map(str::to_owned), &[("UNDERSTUDY_GROUP", "bots")], deadline)
        .await
}

#[tokio::test]
async fn a_command_that_succeeds_is_heard_on_both_streams() {
    let ran = script("echo out; echo err >&2; echo $UNDERSTUDY_GROUP", PLENTY).await;
    ran.outcome.unwrap();
    assert_eq!(ran.lines, ["out", "err", "bots"]);
}

#[tokio::test]
async fn a_command_gets_nothing_of_our_environment_and_no_shell() {
    let ran = run(&["env".to_owned()], &[("UNDERSTUDY_NODE", "$(id)")], PLENTY).await;
    ran.outcome.unwrap();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut lines = ran.lines;
    lines.sort();
    assert_eq!(lines, [path, "UNDERSTUDY_NODE=$(id)"]);
    let ran = run(&["echo", "$(id); `id`"].map(str::to_owned), &[], PLENTY).await;
    assert_eq!(ran.lines, ["$(id); `id`"]);
}

#[tokio::test]
async fn a_status_a_signal_and_a_missing_program_are_told_apart() {
    let ran = script("echo no such host; exit 3", PLENTY).await;
    assert!(matches!(ran.outcome, Err(HookError::Status { status: 3, .. })), "{ran:?}");
    assert_eq!(ran.lines, ["no such host"]);

    let ran = script("kill -KILL $$", PLENTY).await;
    assert!(matches!(ran.outcome, Err(HookError::Killed { signal: 9, .. })), "{ran:?}");

    for program in ["/no/such/program", "/etc/passwd", "/"] {
        let ran = run(&[program.to_owned()], &[], PLENTY).await;
        assert!(matches!(ran.outcome, Err(HookError::Start { .. })), "{program}: {ran:?}");
    }
    assert!(matches!(run(&[], &[], PLENTY).await.outcome, Err(HookError::Empty)));
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_at_the_deadline_with_its_children() {
    let begun = BootTime::now();
    let ran =
        script("sleep 1000 & echo $!; trap '' TERM; wait; wait", Duration::from_millis(500)).await;
    assert!(BootTime::now().since(begun) < Duration::from_secs(5));
    assert!(matches!(ran.outcome, Err(HookError::Deadline { .. })), "{ran:?}");
    let child = Pid::from_raw(ran.lines[0].parse().unwrap());
    wait_until("the child to be dead", || !is_running(child));
}

#[tokio::test]
async fn a_child_that_keeps_the_pipe_is_not_waited_for() {
    let begun = BootTime::now();
    let ran = script("setsid sleep 30 & echo $!", PLENTY).await;
    assert!(BootTime::now().since(begun) < Duration::from_secs(5));
    ran.outcome.unwrap();
    let child = Pid::from_raw(ran.lines[0].parse().unwrap());
    assert!(is_running(child), "it was not ours to kill");
    kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn of_a_flood_the_end_is_kept() {
    let ran = script("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the reason", PLENTY).await;
    ran.outcome.unwrap();
    assert_eq!(ran.lines.last().unwrap(), "the reason");
    assert!(ran.lines[0].ends_with(" bytes left out]"), "{}", ran.lines[0]);
    let kept: usize = ran.lines[1..].iter().map(|line| line.len() + 1).sum();
    assert_eq!(kept, OUTPUT_MAX_BYTES);
}

#[tokio::test]
async fn a_command_that_is_given_up_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let text = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000", file.display());
    let running = tokio::spawn(async move { script(&text, PLENTY).await });
    while !file.exists() {
        tokio::task::yield_now().await;
    }
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let leader = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    wait_until("the command to be dead", || !is_running(Pid::from_raw(leader)));
}

/// A zombie runs no more; whoever inherited it may not have looked yet.
fn is_running(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_command_gets_its_input_whole_and_need_not_read_it() {
    let input = "0123456789abcdef".repeat(64 * 1024);
    let command = ["/bin/sh", "-c", "wc -c"].map(str::to_owned);
    let ran = run_with_input(&command, &[], input.as_bytes(), PLENTY).await;
    ran.outcome.unwrap();
    assert_eq!(ran.lines, ["1048576"]);
    let command = ["/bin/sh", "-c", "exec 0<&-; echo well"].map(str::to_owned);
    let ran = run_with_input(&command, &[], input.as_bytes(), PLENTY).await;
    ran.outcome.unwrap();
    assert_eq!(ran.lines, ["well"]);
}
