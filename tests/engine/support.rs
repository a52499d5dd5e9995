//! Builders and a small random source.

use std::time::Duration;

use understudy::engine::observation::{Bot, Epoch, Lease, Observation, StoreIdentity};
use understudy::engine::plan::Step;
use understudy::engine::policy::Policy;
use understudy::time::BootTime;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub const fn s(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub const fn at(millis: u64) -> BootTime {
    BootTime::from_duration(ms(millis))
}

/// The defaults of the product, for a node `beta` that stands by for `alpha`.
pub fn policy() -> Policy {
    Policy {
        node: "beta".to_owned(),
        bots: vec!["equity".to_owned(), "crypto".to_owned()],
        all_bots: false,
        stopped_statuses: vec!["EMERGENCY_STOPPED".to_owned()],
        timeout: s(60),
        reply_timeout: s(2),
        max_gap: s(25),
        blind_after: s(120),
        automatic: true,
        plan: Step::ALL[1..].iter().map(|step| (*step, step_deadline(*step))).collect(),
        paired: None,
    }
}

const fn step_deadline(step: Step) -> Duration {
    match step {
        Step::Fence | Step::Start | Step::Beat => s(60),
        Step::Guard | Step::Promote | Step::Persist | Step::Flip | Step::Publish => s(5),
    }
}

pub fn lease(epoch: u64, holder: &str) -> Lease {
    Lease { epoch: Epoch(epoch), holder: Some(holder.to_owned()), ..Lease::default() }
}

pub fn beat(value: &str) -> Bot {
    Bot::Beat { value: value.to_owned(), status: "PRIMARY".to_owned(), age_ms: Some(0) }
}

pub fn read(lease: &Lease, bots: Vec<Bot>) -> Observation {
    Observation {
        store: StoreIdentity("store 1".to_owned()),
        seen_at: String::new(),
        lease: lease.clone(),
        bots,
        members: Vec::new(),
        request: None,
    }
}

/// SplitMix64: enough randomness for tests, the same on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` to below `high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.range(0, 100) < chance
    }
}
