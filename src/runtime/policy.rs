//! From the configuration to what the engine is told.

use std::time::Duration;

use crate::config::settings::{Group, Quorum, Settings};
use crate::engine::plan::Step;
use crate::engine::policy::{Paired, Policy};

/// What a step may take beyond the calls that it makes, on a host that is busy with a failover.
const SLACK: Duration = Duration::from_secs(2);

/// Calls to Redis in a promotion, each with a deadline of its own: connect, look, promote, look,
/// write, read.
const REDIS_CALLS: u32 = 6;

/// The policy of one group.
#[must_use]
pub fn policy(settings: &Settings, group: &Group) -> Policy {
    let watch = &settings.watch;
    let store_call = settings.store.connect_timeout + 2 * watch.reply_timeout + SLACK;
    let timers = &settings.paired;
    let mut plan = Vec::new();
    if group.paired.is_some() {
        plan.push((Step::Guard, timers.fence_after));
    }
    if let Some(fence) = &group.fence {
        plan.push((Step::Fence, fence.deadline + SLACK));
    }
    if let Some(redis) = &group.redis {
        plan.push((Step::Promote, redis.call_timeout * REDIS_CALLS + SLACK));
        plan.push((Step::Persist, redis.call_timeout * REDIS_CALLS + SLACK));
    }
    plan.push((Step::Flip, store_call));
    plan.push((Step::Publish, SLACK));
    plan.push((Step::Start, group.start_deadline + group.settle + SLACK));
    plan.push((Step::Beat, group.heartbeat_deadline));
    Policy {
        node: settings.node.clone(),
        bots: group.bots.clone(),
        all_bots: group.stale == Quorum::All,
        stopped_statuses: group.heartbeats.stopped_statuses.clone(),
        timeout: group.timeout,
        reply_timeout: watch.reply_timeout,
        max_gap: match group.paired {
            Some(_) => timers.largest_gap().max(watch.interval + watch.reply_timeout),
            None => watch.interval + watch.reply_timeout,
        },
        blind_after: watch.blind_after,
        automatic: group.automatic(),
        plan,
        paired: group.paired.as_ref().map(|paired| Paired {
            nodes: paired.nodes.clone(),
            renew: timers.renew,
            fence_after: timers.fence_after,
            window: timers.window(),
            // (1 - rho) / (1 + rho): by the slowest clock of ours and the fastest of another node's.
            again_within: timers.window() * 9 / 11,
        }),
    }
}
