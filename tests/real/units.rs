//! Units of a real systemd: every way in which a start, a settling and a stop can go wrong.

#![expect(clippy::unwrap_used, reason = "in helpers of tests it means what it means in tests")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use understudy::adapters::systemd::{
    Active, Exit, Fault, Load, Outcome, Started, Systemd, SystemdError, UnitFault,
};
use understudy::time::BootTime;

use tokio::task::JoinHandle;

use crate::support::bus::{Container, Unit, wait_until};

const SOON: Duration = Duration::from_secs(5);
const FOREVER: &str = "ExecStart=/bin/sleep infinity";

/// Starts a unit beside the test, which does something to it meanwhile.
fn start_beside(
    container: &Container,
    units: Vec<String>,
) -> JoinHandle<Result<Started, SystemdError>> {
    let mut systemd = container.systemd();
    tokio::spawn(async move { systemd.start(&units, Duration::from_secs(20)).await })
}

/// The faults of a failed start, settling or stop, by unit.
fn faults<T: std::fmt::Debug>(outcome: Result<T, SystemdError>) -> Vec<(String, Fault)> {
    match outcome.unwrap_err() {
        SystemdError::Start(faults) | SystemdError::Settle(faults) | SystemdError::Stop(faults) => {
            faults.into_iter().map(|UnitFault { unit, fault }| (unit, fault)).collect()
        }
        error @ (SystemdError::Connect(_)
        | SystemdError::Subscribe(_)
        | SystemdError::Listen(_)
        | SystemdError::Reload(_)
        | SystemdError::Read { .. }) => panic!("unexpected error: {error:?}"),
    }
}

/// The one fault of a start that fails.
async fn start_fault(container: &Container, unit: &Unit, deadline: Duration) -> Fault {
    let mut faults = faults(container.systemd().start(&[unit.name()], deadline).await);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (name, fault) = faults.remove(0);
    assert_eq!(name, unit.name());
    fault
}

#[tokio::test]
async fn a_pair_becomes_active_and_stays() {
    let container = Container::shared();
    let (equity, crypto) = (container.service(FOREVER), container.service(FOREVER));
    let mut systemd = container.systemd();
    let started = systemd.start(&[equity.name(), crypto.name()], SOON).await.unwrap();
    systemd.settle(&started, Duration::from_secs(1)).await.unwrap();
    for (running, unit) in started.units.iter().zip([&equity, &crypto]) {
        assert_eq!(running.unit, unit.name());
        assert_eq!(running.main_pid.unwrap().to_string(), unit.main_pid());
        assert_eq!(running.invocation.unwrap().to_string(), unit.property("InvocationID"));
    }
}

#[tokio::test]
async fn a_pair_that_is_active_already_is_let_alone() {
    let container = Container::shared();
    let bot = container.service(FOREVER);
    let mut systemd = container.systemd();
    let first = systemd.start(&[bot.name()], SOON).await.unwrap();
    let again = systemd.start(&[bot.name()], SOON).await.unwrap();
    assert_eq!(first.units, again.units);
}

#[tokio::test]
async fn none_is_started_if_one_is_missing() {
    let container = Container::shared();
    let bot = container.service(FOREVER);
    let missing = "test-missing.service".to_owned();
    let outcome = container.systemd().start(&[bot.name(), missing.clone()], SOON).await;
    assert_eq!(faults(outcome), [(missing, Fault::Missing)]);
    assert_eq!(bot.property("ActiveState"), "inactive");
    assert_eq!(bot.property("Job"), "");
}

/// The bus daemon allows a connection 128 answers that it waits for.
#[tokio::test]
async fn many_units_can_be_looked_at_together() {
    let names: Vec<String> = (0..400).map(|number| format!("none-{number}.service")).collect();
    let states = Container::shared().systemd().inspect(&names).await.unwrap();
    assert_eq!(states.len(), names.len());
    assert!(states.iter().all(|state| state.load == Load::NotFound));
}

#[tokio::test]
async fn a_masked_unit_is_refused() {
    let container = Container::shared();
    let bot = container.service(FOREVER);
    fs::remove_file(bot.path()).unwrap();
    std::os::unix::fs::symlink("/dev/null", bot.path()).unwrap();
    assert_eq!(start_fault(&container, &bot, SOON).await, Fault::Masked);
    let state = &container.systemd().inspect(&[bot.name()]).await.unwrap()[0];
    assert_eq!(state.load, Load::Masked);
}

#[tokio::test]
async fn a_unit_with_a_bad_setting_is_refused_with_its_error() {
    let container = Container::shared();
    let bot = container.service("Type=simple");
    let fault = start_fault(&container, &bot, SOON).await;
    assert!(
        matches!(&fault, Fault::BadSetting { load: Load::BadSetting, error } if !error.is_empty()),
        "{fault:?}"
    );
}

#[tokio::test]
async fn a_program_that_is_missing_is_named_as_the_reason() {
    let container = Container::shared();
    let bot = container.service("Type=exec\nExecStart=/usr/bin/no-such-program");
    let fault = start_fault(&container, &bot, SOON).await;
    let Fault::Failed { sub, ending } = &fault else { panic!("{fault:?}") };
    assert_eq!(sub, "failed");
    assert_eq!((&ending.outcome, ending.exit), (&Outcome::ExitCode, Some(Exit::Status(203))));
    assert!(fault.to_string().contains("its program is missing"), "{fault}");
}

#[tokio::test]
async fn a_simple_service_whose_program_is_missing_does_not_pass_as_started() {
    // systemd calls this job done, and the unit active for an instant.
    let container = Container::shared();
    let bot = container.service("ExecStart=/usr/bin/no-such-program");
    let mut systemd = container.systemd();
    let ending = match systemd.start(&[bot.name()], SOON).await {
        Ok(started) => {
            let faults = faults(systemd.settle(&started, SOON).await);
            let Fault::Died { ending, .. } = &faults[0].1 else { panic!("{faults:?}") };
            ending.clone()
        }
        outcome @ Err(_) => {
            let faults = faults(outcome);
            let Fault::Failed { ending, .. } = &faults[0].1 else { panic!("{faults:?}") };
            ending.clone()
        }
    };
    assert_eq!((ending.outcome, ending.exit), (Outcome::ExitCode, Some(Exit::Status(203))));
}

#[tokio::test]
async fn a_notify_service_that_leaves_before_it_is_ready_fails() {
    let container = Container::shared();
    let bot = container.service("Type=notify\nExecStart=/bin/sh -c 'exit 7'");
    let fault = start_fault(&container, &bot, SOON).await;
    let Fault::Failed { ending, .. } = &fault else { panic!("{fault:?}") };
    assert_eq!(ending.exit, Some(Exit::Status(7)));
}

#[tokio::test]
async fn a_unit_that_restarts_all_the_time_fails_at_the_deadline_at_the_latest() {
    let container = Container::shared();
    let bot = container
        .service("Type=notify\nRestart=always\nRestartSec=100ms\nExecStart=/bin/sh -c 'exit 7'");
    let fault = start_fault(&container, &bot, Duration::from_secs(1)).await;
    let (Fault::Failed { ending, .. } | Fault::Hanging { ending, .. }) = &fault else {
        panic!("{fault:?}")
    };
    assert_eq!(ending.exit, Some(Exit::Status(7)));
}

#[tokio::test]
async fn a_unit_that_dies_after_it_became_active_does_not_settle() {
    let container = Container::shared();
    let healthy = container.service(FOREVER);
    let order = container.shared.join(format!("end-{}", healthy.name()));
    let program = format!("until [ -e {} ]; do sleep 0.1; done; exit 1", order.display());
    let bot = container.service(&format!("ExecStart=/bin/sh -c '{program}'"));
    let mut systemd = container.systemd();
    let started = systemd.start(&[healthy.name(), bot.name()], SOON).await.unwrap();
    std::fs::write(&order, "").unwrap();
    let faults = faults(systemd.settle(&started, SOON).await);
    let [(name, Fault::Died { active, ending, .. })] = &faults[..] else { panic!("{faults:?}") };
    assert_eq!((name, active), (&bot.name(), &Active::Failed));
    assert_eq!(ending.exit, Some(Exit::Status(1)));
}

#[tokio::test]
async fn a_restart_while_settling_is_noticed_although_the_unit_is_active_again() {
    let container = Container::shared();
    let bot = container.service(&format!("{FOREVER}\nRestart=always\nRestartSec=0"));
    let mut systemd = container.systemd();
    let started = systemd.start(&[bot.name()], SOON).await.unwrap();
    bot.systemctl(&["kill", "--signal=KILL"]);
    let before = started.units[0].invocation.unwrap().to_string();
    wait_until("another invocation", || {
        let now = bot.property("InvocationID");
        bot.property("ActiveState") == "active" && now != before
    });
    let faults = faults(systemd.settle(&started, Duration::ZERO).await);
    assert!(matches!(&faults[0].1, Fault::Restarted { was, is, .. } if was != is), "{faults:?}");
}

#[tokio::test]
async fn a_unit_that_hangs_is_told_at_the_deadline_with_its_job() {
    let container = Container::shared();
    let bot = container.service(&format!("Type=notify\n{FOREVER}"));
    let begun = BootTime::now();
    let fault = start_fault(&container, &bot, Duration::from_secs(1)).await;
    assert!(
        BootTime::now().since(begun) < Duration::from_secs(2),
        "told after {:?}",
        BootTime::now().since(begun)
    );
    let Fault::Hanging { active, sub, job: Some(job), .. } = fault else { panic!("{fault:?}") };
    assert_eq!((active, &*sub), (Active::Activating, "start"));
    assert_eq!(job.detail, Some(("start".to_owned(), "running".to_owned())));
}

#[tokio::test]
async fn a_start_limit_that_was_hit_before_is_forgotten() {
    let container = Container::shared();
    let limit = "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n";
    let failing = format!("{limit}[Service]\nExecStart=/bin/false\n");
    let bot = container.unit("service", &failing);
    let start = ["systemctl", "start", &bot.name()];
    wait_until("the start limit to be hit", || !container.try_run(&start).status.success());
    bot.rewrite(&format!("{limit}[Service]\n{FOREVER}\n"));
    container.run(&["systemctl", "daemon-reload"]);
    container.systemd().start(&[bot.name()], SOON).await.unwrap();
}

#[tokio::test]
async fn a_dependency_that_fails_is_named() {
    let container = Container::shared();
    let disk = container.service("Type=oneshot\nExecStart=/bin/false");
    let bot = container.unit(
        "service",
        &format!("[Unit]\nRequires={0}\nAfter={0}\n[Service]\n{FOREVER}\n", disk.name()),
    );
    let fault = start_fault(&container, &bot, SOON).await;
    let Fault::Dependency { failed } = &fault else { panic!("{fault:?}") };
    assert_eq!(*failed, [format!("{} is failed (failed)", disk.name())]);
}

#[tokio::test]
async fn a_condition_that_is_not_met_does_not_pass_as_started() {
    // systemd calls both jobs done.
    let container = Container::shared();
    let gated = container.service(&format!("ExecCondition=/bin/false\n{FOREVER}"));
    assert_eq!(start_fault(&container, &gated, SOON).await, Fault::Skipped);
    let unmet = format!("[Unit]\nConditionPathExists=/nowhere\n[Service]\n{FOREVER}\n");
    let unmet = container.unit("service", &unmet);
    assert_eq!(start_fault(&container, &unmet, SOON).await, Fault::Skipped);
}

#[tokio::test]
async fn a_unit_that_is_done_at_once_does_not_pass_as_started() {
    let container = Container::shared();
    let bot = container.service("Type=oneshot\nExecStart=/bin/true");
    assert_eq!(start_fault(&container, &bot, SOON).await, Fault::Ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_someone_stops_is_told_as_cancelled() {
    let container = Container::shared();
    let bot = container.service(&format!("Type=notify\n{FOREVER}"));
    let start = start_beside(&container, vec![bot.name()]);
    bot.wait_for("SubState", "start");
    bot.systemctl(&["stop"]);
    assert_eq!(faults(start.await.unwrap()), [(bot.name(), Fault::Canceled)]);
}

#[tokio::test]
async fn a_target_can_be_started_and_stopped_like_a_service() {
    let container = Container::shared();
    let bot = container.service(FOREVER);
    let bots = container.unit("target", &format!("[Unit]\nRequires={}\n", bot.name()));
    let mut systemd = container.systemd();
    let started = systemd.start(&[bots.name()], SOON).await.unwrap();
    assert_eq!(started.units[0].main_pid, None);
    systemd.stop(&[bots.name()], SOON).await.unwrap();
}

#[tokio::test]
async fn a_unit_enabled_at_boot_says_so() {
    let container = Container::shared();
    let install = format!("[Service]\n{FOREVER}\n[Install]\nWantedBy=multi-user.target\n");
    let bot = container.unit("service", &install);
    let mut systemd = container.systemd();
    let before = systemd.inspect(&[bot.name()]).await.unwrap();
    bot.systemctl(&["enable", "--runtime", "--quiet"]);
    let after = systemd.inspect(&[bot.name()]).await.unwrap();
    bot.systemctl(&["disable", "--runtime", "--quiet"]);
    assert_eq!(before[0].enabled.as_str(), "disabled");
    assert_eq!(after[0].enabled.as_str(), "enabled-runtime");
}

#[tokio::test]
async fn units_stop_and_stopping_them_again_is_fine() {
    let container = Container::shared();
    let (equity, crypto) = (container.service(FOREVER), container.service(FOREVER));
    let units = [equity.name(), crypto.name(), "test-missing.service".to_owned()];
    let mut systemd = container.systemd();
    systemd.start(&units[..2], SOON).await.unwrap();
    systemd.stop(&units, SOON).await.unwrap();
    assert_eq!(equity.property("ActiveState"), "inactive");
    assert_eq!(crypto.property("ActiveState"), "inactive");
    systemd.stop(&units, SOON).await.unwrap();
}

#[tokio::test]
async fn a_unit_that_ignores_sigterm_is_killed_within_the_deadline() {
    let container = Container::shared();
    let stubborn = "TimeoutStopSec=infinity\nRestart=always\nExecStopPost=/bin/sleep infinity\n\
        ExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'";
    let bot = container.service(stubborn);
    let mut systemd = container.systemd();
    systemd.start(&[bot.name()], SOON).await.unwrap();
    let begun = BootTime::now();
    systemd.stop(&[bot.name()], Duration::from_secs(3)).await.unwrap();
    assert!(
        BootTime::now().since(begun) < Duration::from_secs(3),
        "stopped after {:?}",
        BootTime::now().since(begun)
    );
    assert_eq!(bot.main_pid(), "0");
}

#[tokio::test]
async fn a_frozen_process_is_stopped() {
    let container = Container::shared();
    let bot = container
        .service("TimeoutStopSec=infinity\nExecStart=/bin/sh -c 'while :; do sleep 1; done'");
    let mut systemd = container.systemd();
    systemd.start(&[bot.name()], SOON).await.unwrap();
    bot.systemctl(&["kill", "--signal=STOP"]);
    systemd.stop(&[bot.name()], SOON).await.unwrap();
    assert_eq!(bot.main_pid(), "0");
}

#[tokio::test]
async fn processes_that_outlive_their_unit_are_killed_too() {
    let container = Container::shared();
    let bot = container.service("KillMode=process\nExecStart=/bin/sh -c 'sleep 1000 & wait'");
    let mut systemd = container.systemd();
    systemd.start(&[bot.name()], SOON).await.unwrap();
    let group = container.root.join("sys/fs/cgroup/").join(&bot.property("ControlGroup")[1..]);
    let processes = || fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    wait_until("two processes", || processes().lines().count() == 2);
    systemd.stop(&[bot.name()], Duration::from_secs(3)).await.unwrap();
    assert_eq!(processes(), "");
}

#[tokio::test]
async fn a_bus_daemon_that_was_killed_is_connected_to_again() {
    let container = Container::own();
    let (before, after) = (container.service(FOREVER), container.service(FOREVER));
    let mut systemd = container.systemd();
    systemd.start(&[before.name()], SOON).await.unwrap();
    kill_bus_daemon(&container);
    systemd.start(&[after.name()], SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_daemon_that_is_killed_during_a_start_does_not_lose_the_start() {
    let container = Container::own();
    let go = container.shared.join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    let bot = container.service(&format!("ExecStartPre=/bin/sh -c '{wait}'\n{FOREVER}"));
    let start = start_beside(&container, vec![bot.name()]);
    bot.wait_for("SubState", "start-pre");
    kill_bus_daemon(&container);
    // Whoever connects starts it again, and that is only the client under test.
    wait_until("the client to connect again", || bus_daemon_is(&container, "active"));
    fs::write(go, "").unwrap();
    start.await.unwrap().unwrap();
}

fn kill_bus_daemon(container: &Container) {
    let show = ["systemctl", "show", "--value", "--property=MainPID", "dbus.service"];
    let before = container.run(&show);
    container.run(&["systemctl", "kill", "--signal=KILL", "dbus.service"]);
    wait_until("the bus daemon to be dead", || container.run(&show) != before);
}

fn bus_daemon_is(container: &Container, state: &str) -> bool {
    container.run(&["systemctl", "show", "--value", "--property=ActiveState", "dbus.service"])
        == state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_reload_during_a_start_does_not_disturb_it() {
    let container = Container::own();
    let bots: Vec<Unit> = (0..8)
        .map(|_| container.service(&format!("ExecStartPre=/bin/sleep 0.5\n{FOREVER}")))
        .collect();
    let start = start_beside(&container, bots.iter().map(Unit::name).collect());
    for _ in 0..5 {
        container.run(&["systemctl", "daemon-reload"]);
    }
    let started = start.await.unwrap().unwrap();
    container.systemd().settle(&started, Duration::from_millis(500)).await.unwrap();
}

#[tokio::test]
async fn a_start_that_is_not_allowed_is_told_so() {
    let container = Container::own();
    let bot = container.service(FOREVER);
    let policy = r#"<busconfig><policy context="mandatory">
        <deny send_interface="org.freedesktop.systemd1.Manager" send_member="StartUnit"/>
        </policy></busconfig>"#;
    fs::write(container.root.join("etc/dbus-1/system.d/deny.conf"), policy).unwrap();
    container.run(&["systemctl", "reload", "dbus.service"]);
    let fault = start_fault(&container, &bot, SOON).await;
    assert!(matches!(fault, Fault::Refused { .. }), "{fault:?}");
}

#[tokio::test]
async fn a_bus_that_is_not_there_is_named() {
    let mut systemd = Systemd::at("unix:path=/nowhere".to_owned());
    let error = systemd.connect().await.unwrap_err();
    assert!(matches!(error, SystemdError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn the_stand_in_of_the_demo_starts_and_stops_units_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let units = r#"
        "bot.service" = ["sleep", "infinity"]
        "stubborn.service" = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
        "broken.service" = ["/no/such/program"]
    "#;
    fs::write(path("units.toml"), units).unwrap();
    let target = Path::new(env!("CARGO_BIN_EXE_understudy")).parent().unwrap();
    let runner = target.join("examples/process-runner");
    let mut runner = tokio::process::Command::new(runner)
        .args([path("bus"), path("units.toml")])
        .kill_on_drop(true)
        .spawn()
        .expect("run `cargo build --examples` before; `cargo test` alone does");
    let mut systemd = Systemd::at(format!("unix:path={}", path("bus")));
    let pair = ["bot.service", "stubborn.service"].map(str::to_owned);
    let mut started = systemd.start(&pair, SOON).await;
    for _ in 0..200 {
        // It is not on the bus yet.
        if !matches!(started, Err(SystemdError::Connect(_) | SystemdError::Subscribe(_))) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        started = systemd.start(&pair, SOON).await;
    }
    let started = started.unwrap();
    systemd.settle(&started, Duration::from_millis(300)).await.unwrap();
    systemd.stop(&pair, Duration::from_secs(3)).await.unwrap();

    let outcome = systemd.start(&["broken.service".to_owned()], SOON).await;
    assert!(matches!(&faults(outcome)[0].1, Fault::Failed { .. }));
    let outcome = systemd.start(&["missing.service".to_owned()], SOON).await;
    assert_eq!(faults(outcome)[0].1, Fault::Missing);

    let pid = nix::unistd::Pid::from_raw(runner.id().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(runner.wait().await.unwrap().success());
}

#[tokio::test]
async fn restarts_of_a_service_are_counted_by_systemd() {
    let container = Container::shared();
    let lines = format!("{FOREVER}\nRestart=always\nRestartSec=10ms");
    let bot = container.service(&lines);
    let mut systemd = container.systemd();
    systemd.start(&[bot.name()], SOON).await.unwrap();
    let pid = bot.main_pid().parse().unwrap();
    assert_eq!(systemd.restarts_of(pid).await.unwrap(), 0);
    bot.systemctl(&["kill", "--signal=KILL"]);
    bot.wait_for("NRestarts", "1");
    bot.wait_for("ActiveState", "active");
    let pid = bot.main_pid().parse().unwrap();
    assert_eq!(systemd.restarts_of(pid).await.unwrap(), 1);
    // Of no service.
    assert!(systemd.restarts_of(4_000_000).await.is_err());
}
