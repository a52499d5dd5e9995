//! The one place that reads a clock for a decision.
//!
//! Everything that decides takes a [`BootTime`] as an argument. Wall clocks are read elsewhere too,
//! but only to print a date for a person.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant on this host's `CLOCK_BOOTTIME`: time since boot, suspend included.
///
/// `std::time::Instant` is `CLOCK_MONOTONIC`, which stops while the host is suspended, and can be
/// neither printed, stored nor built in a test. A value is comparable only with values of the same
/// boot; whoever stores one stores the boot id beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(Duration);

impl BootTime {
    /// The instant of boot.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Reads the clock.
    ///
    /// # Panics
    /// If the kernel has no `CLOCK_BOOTTIME`, which Linux has had since 2.6.39: nothing here could
    /// be decided safely without it.
    #[must_use]
    #[expect(clippy::expect_used, reason = "no safe way on without the clock, see Panics")]
    pub fn now() -> Self {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .expect("CLOCK_BOOTTIME is readable");
        Self(Duration::from(now))
    }

    /// The instant `since_boot` after boot.
    #[must_use]
    pub const fn from_duration(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// Time since boot.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// In files: nanoseconds since boot.
impl Serialize for BootTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Enough for 584 years without a reboot.
        serializer.serialize_u64(u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl<'de> Deserialize<'de> for BootTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|nanos| Self(Duration::from_nanos(nanos)))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for BootTime {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

impl fmt::Debug for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.as_secs(), self.0.subsec_millis())
    }
}
