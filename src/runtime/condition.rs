//! What lasts: which notice begins it, which one ends it, and whether it still is so.
//!
//! Most ends are told by the engine. But a person may mend things while the daemon is down, and the
//! next engine knows nothing of what its predecessor told. So what was told and not taken back is
//! also compared with how things are ([`Condition::is_over`]).

use crate::engine::edge::Kind;
use crate::engine::liveness::Verdict;
use crate::engine::notice::Notice;
use crate::engine::snapshot::Outlook;
use crate::telemetry::Notable;

/// Something about a group that lasts for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The heartbeats are silent.
    Silent,
    /// Nobody can read them.
    Blind,
    /// This node could not take over.
    NotReady,
    /// A takeover is stuck.
    Stuck,
    /// The lease is here and the bots are elsewhere.
    Contested,
    /// The group is here and not all of its units run.
    UnitsDown,
    /// The units could not be stopped.
    StopFailed,
    /// The group is here and silent.
    ActiveSilent,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Silent,
        Self::Blind,
        Self::NotReady,
        Self::Stuck,
        Self::Contested,
        Self::UnitsDown,
        Self::StopFailed,
        Self::ActiveSilent,
    ];

    /// As it stands in `dedup_key`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Blind => "blind",
            Self::NotReady => "not_ready",
            Self::Stuck => "stuck",
            Self::Contested => "contested",
            Self::UnitsDown => "units_down",
            Self::StopFailed => "stop_failed",
            Self::ActiveSilent => "active_silent",
        }
    }

    /// What its alerts have in common. Two nodes may stand by for one group, and each sees for itself.
    #[must_use]
    pub fn key(self, group: &str, node: &str) -> String {
        format!("{group}/{}/{node}", self.name())
    }

    /// What a notice begins.
    #[must_use]
    pub const fn begun_by(notice: &Notice) -> Option<Self> {
        match notice {
            Notice::Stale { .. } | Notice::Blocked { .. } => Some(Self::Silent),
            Notice::Blind { .. } => Some(Self::Blind),
            Notice::NotReady { .. } => Some(Self::NotReady),
            Notice::Degraded { .. } => Some(Self::Stuck),
            Notice::Contested { .. } => Some(Self::Contested),
            Notice::Adopted { units_active: false, .. } => Some(Self::UnitsDown),
            Notice::StopFailed { .. } => Some(Self::StopFailed),
            Notice::ActiveSilent { .. } => Some(Self::ActiveSilent),
            _ => None,
        }
    }

    /// What a notice ends, and says no more than that, about a group in that state.
    #[must_use]
    pub const fn ended_by(notice: &Notice, kind: Kind) -> Option<Self> {
        match notice {
            // In a takeover these are the new primary's, and its completion is told first.
            Notice::Fresh => match kind {
                Kind::Standby | Kind::Interrupted => Some(Self::Silent),
                _ => None,
            },
            Notice::Sighted => Some(Self::Blind),
            Notice::Ready => Some(Self::NotReady),
            Notice::UnitsStopped => Some(Self::StopFailed),
            Notice::ActiveBeats => Some(Self::ActiveSilent),
            _ => None,
        }
    }

    /// The event by which its end is told, where the engine did not tell it.
    #[must_use]
    pub const fn end(self, kind: Kind) -> (Notable, &'static str) {
        match self {
            Self::Silent => match kind {
                Kind::Active => (Notable::GroupFresh, "the heartbeats are back, from this node"),
                _ => (Notable::GroupFresh, "the heartbeats are back"),
            },
            Self::Blind => (Notable::SightRestored, "understudy sees the heartbeats again"),
            Self::NotReady => (Notable::StandbyReady, "this node could take over again"),
            Self::Stuck => (Notable::AlertResolved, "the takeover is no longer stuck"),
            Self::Contested => (Notable::AlertResolved, "it is clear again who has the group"),
            Self::UnitsDown => (Notable::AlertResolved, "the bots beat, or the group is elsewhere"),
            Self::StopFailed => (Notable::UnitsStopped, "the units here are stopped"),
            Self::ActiveSilent => {
                (Notable::ActiveBeats, "the heartbeats are back, or the group is elsewhere")
            }
        }
    }

    /// Whether it is over, as far as the engine knows by now.
    #[must_use]
    pub fn is_over(self, group: &Outlook) -> bool {
        // A new process knows nothing yet.
        if !group.read {
            return false;
        }
        let beats = group.verdict == Verdict::Fresh && group.beat_seen;
        let here = matches!(group.kind, Kind::Active);
        match self {
            Self::Silent => {
                beats && matches!(group.kind, Kind::Standby | Kind::Interrupted | Kind::Active)
            }
            Self::Blind => !matches!(group.verdict, Verdict::Unknown(_)),
            Self::NotReady => here || group.ready,
            Self::Stuck => matches!(group.kind, Kind::Active | Kind::Standby | Kind::Stopping),
            Self::Contested => group.kind != Kind::Interrupted,
            Self::UnitsDown | Self::ActiveSilent => !here || beats,
            Self::StopFailed => group.kind != Kind::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = Condition::ALL.iter().map(|one| one.name()).collect();
        assert_eq!(names.len(), Condition::ALL.len());
    }
}
