//! Points at which a test makes the process die, to prove that every crash converges.

/// Dies here by SIGKILL, or stands still here by SIGSTOP, if a test said so. Only with the feature
/// `crash-points`, which no release has.
#[cfg(feature = "crash-points")]
pub fn crash_point(name: &str) {
    use nix::sys::signal::{Signal, raise};
    let asked = [("UNDERSTUDY_CRASH_AT", Signal::SIGKILL), ("UNDERSTUDY_STOP_AT", Signal::SIGSTOP)];
    for (variable, signal) in asked {
        if std::env::var(variable).is_ok_and(|at| at == name) {
            // To this thread, so that not even this one goes on for a moment.
            let _sent = raise(signal);
        }
    }
}

/// Does nothing without the feature `crash-points`.
#[cfg(not(feature = "crash-points"))]
pub const fn crash_point(_name: &str) {}
