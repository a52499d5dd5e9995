//! `CLIENT PAUSE WRITE`: clients of a master wait with their writes until it is clear where their
//! data go.
//!
//! A pause ends by itself, so that a crash of ours stops nobody for long; so it has to be renewed,
//! and whoever relies on it has to know that it never ended in between.

use std::time::Duration;

use redis::cmd;

use super::connection::{Connection, RedisError};
use crate::time::BootTime;

/// How long a pause lasts if it is not renewed. It must outlive some lost renewals, and clients
/// should not wait for much longer than it takes to start us again.
const PAUSE: Duration = Duration::from_secs(30);

/// Between two renewals.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(5);

/// What a pause is counted for. The clocks of two processes may differ by a tenth each.
const COUNTED: Duration = Duration::from_secs(24);

/// A pause of all writes on one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// It is certain to last until then.
    until: BootTime,
    /// It may have ended before it was renewed.
    broken: bool,
}

impl Pause {
    /// Begins one.
    pub(super) async fn begin(server: &mut Connection) -> Result<Self, RedisError> {
        let sent = BootTime::now();
        ask(server).await?;
        Ok(Self { until: sent + COUNTED, broken: false })
    }

    /// Goes on with it. After an error it lasts for as long as it did.
    pub(super) async fn renew(&mut self, server: &mut Connection) -> Result<(), RedisError> {
        let sent = BootTime::now();
        ask(server).await?;
        *self = self.renewed(sent, BootTime::now());
        Ok(())
    }

    /// Whether nothing was written since it began.
    pub(super) fn holds(&self, now: BootTime) -> bool {
        !self.broken && now < self.until
    }

    /// Whether it is time to renew it.
    pub(super) fn wants_renewal(&self, now: BootTime) -> bool {
        now + (COUNTED - RENEW_EVERY) >= self.until
    }

    /// Somewhere between `sent` and `answered` the server renewed it.
    fn renewed(self, sent: BootTime, answered: BootTime) -> Self {
        Self { until: sent + COUNTED, broken: self.broken || answered >= self.until }
    }
}

/// Lets the writes go on, also those that waited.
pub(super) async fn end(server: &mut Connection) -> Result<(), RedisError> {
    server.ask_one("CLIENT UNPAUSE", cmd("CLIENT").arg("UNPAUSE").to_owned()).await.map(drop)
}

async fn ask(server: &mut Connection) -> Result<(), RedisError> {
    let pause =
        cmd("CLIENT").arg("PAUSE").arg(PAUSE.as_millis().to_string()).arg("WRITE").to_owned();
    server.ask_one("CLIENT PAUSE", pause).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn a_pause_that_was_renewed_in_time_is_one_pause() {
        let pause = Pause { until: at(24), broken: false };
        assert!(pause.holds(at(23)) && !pause.holds(at(24)));
        let renewed = pause.renewed(at(22), at(23));
        assert!(renewed.holds(at(45)) && !renewed.holds(at(46)));
    }

    #[test]
    fn a_pause_that_may_have_ended_in_between_never_holds_again() {
        let pause = Pause { until: at(24), broken: false };
        let late = pause.renewed(at(23), at(24));
        assert!(!late.holds(at(25)));
        assert!(!late.renewed(at(30), at(31)).holds(at(31)), "a later renewal does not mend it");
    }
}
