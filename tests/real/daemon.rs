//! The daemon as a process, against real servers: when it acts, when it does not, and what is left
//! when it dies in between.
//!
//! The shortest timers that the product allows are used, an interval of a second and a timeout of
//! three, so that an outage of ten seconds is to them what three minutes are to the defaults.

mod alerts;
#[cfg(feature = "crash-points")]
mod crash;
mod faults;
mod manners;
mod page;
mod quiet;
mod recorded;
mod refusals;
#[cfg(feature = "crash-points")]
mod standstill;
mod takeover;
mod web;

use std::time::Duration;

use crate::support::daemon::TIMEOUT;

/// Longer than a wrong implementation would need to fail over, three times over.
const LONG: Duration = Duration::from_secs(3 * TIMEOUT.as_secs() + 1);

/// A window, and what may come on top of it: the phase of the reads, a check, the acquisition.
pub const WINDOW: Duration = Duration::from_secs(TIMEOUT.as_secs() + 2);
