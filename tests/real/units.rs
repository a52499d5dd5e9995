//! Units of a real systemd: every way in which a start, a settling and a stop can go wrong.

use std::fs;
use std::time::{Duration, Instant};

use understudy::adapters::systemd::{Active, Exit, Fault, Load, Outcome, SystemdError, UnitFault};

use crate::support::bus::{Container, Unit, wait_until};

const SOON: Duration = Duration::from_secs(5);
const FOREVER: &str = "ExecStart=/bin/sleep infinity";

/// The faults of a failed start, settling or stop, by unit.
fn faults<T: std::fmt::Debug>(outcome: Result<T, SystemdError>) -> Vec<(String, Fault)> {
    match outcome.unwrap_err() {
        SystemdError::Start(faults) | SystemdError::Settle(faults) | SystemdError::Stop(faults) => {
            faults.into_iter().map(|UnitFault { unit, fault }| (unit, fault)).collect()
        }
        error => panic!("unexpected error: {error:?}"),
    }
}

/// The one fault of a start that fails.
async fn start_fault(container: &Container, unit: &Unit, deadline: Duration) -> Fault {
    let mut faults = faults(container.systemd().start(&[unit.name()], deadline).await);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (name, fault) = faults.remove(0);
    assert_eq!(name, unit.name());
    println!("{name}: {fault}");
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
