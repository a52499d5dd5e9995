//! Waiting for a condition, never for a while.

use std::time::Duration;

use understudy::time::BootTime;

/// How long anything may take that a test waits for, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at what is waited for.
const PACE: Duration = Duration::from_millis(50);

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    get(what, || if so() { Ok(()) } else { Err("it is not so") });
}

/// Waits until there is something, and takes it. What there is instead is told if that is in vain.
pub fn get<T, E: std::fmt::Display>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = BootTime::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => {
                let late = BootTime::now() >= deadline;
                assert!(!late, "waited {PATIENCE:?} for {what}; instead:\n{instead}");
            }
        }
        std::thread::sleep(PACE);
    }
}
