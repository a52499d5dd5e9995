//! The keys of paired mode: `[paired]`, and what a group says about its nodes.
//!
//! A key of the other mode is a fault and not ignored: who wrote it believes in what it would do.

use std::collections::BTreeMap;
use std::time::Duration;

use humantime::format_duration;

use super::document::Place;
use super::section::{Item, Origin, Section, Setting, Span};
use super::settings::{Host, OnStoreLoss, Paired, PairedTimers};
use super::values;

/// Two seconds are a commit of some milliseconds every other second and group. Faster than 100 ms the
/// renewals would be the store's main load; slower than a minute nobody waits for a failover.
const RENEW: Span = Span {
    default: Duration::from_secs(2),
    least: Duration::from_millis(100),
    most: Duration::from_secs(60),
};

/// Five attempts to renew, which a failover of Postgres itself often takes. The relation to `renew`
/// bounds it from below.
const FENCE_AFTER: Span = Span {
    default: Duration::from_secs(10),
    least: Duration::from_millis(475),
    most: Duration::from_secs(600),
};

/// Most programs end within a second of SIGTERM; who writes a state to disk needs some more.
const STOP_WITHIN: Span = Span {
    default: Duration::from_secs(5),
    least: Duration::from_millis(400),
    most: Duration::from_secs(600),
};

/// A virtual machine that nobody migrates is not paused.
const PAUSE_MAX: Span =
    Span { default: Duration::ZERO, least: Duration::ZERO, most: Duration::from_secs(600) };

/// Nodes of one group. Each reads the store as often as the holder renews.
const NODES_MAX: usize = 8;

/// With one node there is nobody to take over.
const NODES_MIN: usize = 2;

/// The timers, and where they come from.
pub(super) struct Timers {
    pub value: PairedTimers,
    renew: Origin,
    /// All of them, as the window depends on each.
    all: [Origin; 4],
}

/// Reads `[paired]`.
pub(super) fn timers(section: &mut Section<'_>) -> Timers {
    let renew = section.duration("renew", RENEW);
    let fence_after = section.duration("fence_after", FENCE_AFTER);
    let stop_within = section.duration("stop_within", STOP_WITHIN);
    let pause_max = section.duration("pause_max", PAUSE_MAX);
    let timers = PairedTimers {
        renew: renew.value,
        fence_after: fence_after.value,
        stop_within: stop_within.value,
        pause_max: pause_max.value,
    };
    section.relation(
        timers.fence_after >= timers.least_fence_after(),
        &[&fence_after.origin, &renew.origin],
        format!(
            "fence_after must be at least 4.75 x renew ({}): less than four attempts to renew, and \
             one slow answer of Postgres would stop the units",
            format_duration(timers.least_fence_after())
        ),
    );
    section.relation(
        timers.fence_after < timers.least_fence_after() || timers.largest_gap_fits(),
        &[&renew.origin, &fence_after.origin, &stop_within.origin, &pause_max.origin],
        format!(
            "renew is too long: 3.75 x renew ({}) must be less than half of the window that follows \
             from [paired] ({}), so that a window holds several reads; make renew shorter or \
             fence_after longer",
            format_duration(timers.largest_gap()),
            format_duration(timers.window())
        ),
    );
    let all = [&renew.origin, &fence_after.origin, &stop_within.origin, &pause_max.origin];
    Timers { value: timers, renew: renew.origin.clone(), all: all.map(Clone::clone) }
}

impl Timers {
    /// Checks that a group waits for long enough, and rests for long enough afterwards.
    pub fn check_group(
        &self,
        section: &Section<'_>,
        timeout: &Setting<Duration>,
        cooldown: &Setting<Duration>,
    ) {
        let [renew, fence_after, stop_within, pause_max] = &self.all;
        let (window, cooldown_min) = (self.value.window(), self.value.least_cooldown());
        section.relation(
            timeout.value >= window,
            &[&timeout.origin, fence_after, stop_within, renew, pause_max],
            format!(
                "the other node is certain to have stopped after {} only; raise timeout to that, or \
                 shorten [paired]",
                format_duration(window)
            ),
        );
        section.relation(
            cooldown.value >= cooldown_min,
            &[&cooldown.origin, fence_after, stop_within, renew, pause_max],
            format!(
                "cooldown must be at least three windows of [paired] ({}), or a failover could begin \
                 before the last one is over",
                format_duration(cooldown_min)
            ),
        );
    }

    /// With a group in paired mode the store is read at least as often as leases are renewed.
    pub fn pace(
        &self,
        root: &Section<'_>,
        interval: Duration,
        reply_timeout: &Setting<Duration>,
    ) -> (Duration, Duration) {
        let most = self.value.renew_timeout();
        root.relation(
            !reply_timeout.is_written() || reply_timeout.value <= most,
            &[&reply_timeout.origin, &self.renew],
            format!(
                "reply_timeout must be at most 3/4 of paired.renew ({}) if there is a group in paired \
                 mode, or reads would queue up",
                format_duration(most)
            ),
        );
        (interval.min(self.value.renew), reply_timeout.value.min(most))
    }
}

/// Who the nodes of a group are.
pub(super) struct Roles {
    pub primary: String,
    pub accept_dual_active: bool,
    pub paired: Option<Paired>,
    mode: Origin,
    nodes: Setting<Vec<Item<String>>>,
}

/// Reads what a group says about its mode and its nodes.
pub(super) fn roles(section: &mut Section<'_>, node: &Setting<String>) -> Roles {
    let mode = section.choice("mode", false, &[("observed", false), ("paired", true)]);
    let primary = section.text("primary", "primary", values::node);
    let accept_dual_active = section.boolean("accept_dual_active", false);
    let nodes = if mode.value {
        section.needed_list(
            "nodes",
            NODES_MAX,
            "list every node of the group in order of preference, like [\"a\", \"b\"]",
            values::node,
        )
    } else {
        section.list("nodes", NODES_MAX, values::node)
    };
    let on_store_loss = section.choice(
        "on_store_loss",
        OnStoreLoss::Fence,
        &[("fence", OnStoreLoss::Fence), ("hold", OnStoreLoss::Hold)],
    );
    let mut roles = Roles {
        primary: primary.value.clone(),
        accept_dual_active: accept_dual_active.value,
        paired: None,
        mode: mode.origin.clone(),
        nodes,
    };
    if !mode.value {
        let only_paired = "belongs to mode = \"paired\", and this group is in observed mode; write \
                           the mode, or remove it";
        roles.out_of_place(section, &roles.nodes, only_paired);
        roles.out_of_place(section, &on_store_loss, only_paired);
        section.relation(
            primary.value != node.value,
            &[&primary.origin, &node.origin, &mode.origin],
            "primary and node have the same name, but this node stands by for another",
        );
        return roles;
    }
    roles.out_of_place(
        section,
        &primary,
        "does not belong into a group in paired mode, where any of nodes may be primary; remove it",
    );
    roles.out_of_place(
        section,
        &accept_dual_active,
        "does not belong into a group in paired mode, where two are never active; remove it",
    );
    roles.check_nodes(section, node);
    let nodes: Vec<String> = roles.nodes.value.iter().map(|item| item.value.clone()).collect();
    roles.primary = nodes.first().cloned().unwrap_or_default();
    roles.accept_dual_active = false;
    roles.paired = Some(Paired { nodes, on_store_loss: on_store_loss.value });
    roles
}

impl Roles {
    /// Reads where each node's Redis is for the other ones, and checks that it fits the mode.
    pub fn redis_nodes(
        &self,
        section: &mut Section<'_>,
        primary: &Setting<Option<Host>>,
    ) -> BTreeMap<String, Host> {
        let what = "say where each node's Redis is for the other ones, like \
                    { a = \"10.0.0.1:6379\", b = \"10.0.0.2:6379\" }";
        if self.paired.is_none() {
            let nodes = section.map("nodes", NODES_MAX, values::redis_host_elsewhere);
            self.out_of_place(
                section,
                &nodes,
                "belongs to mode = \"paired\"; in observed mode write primary",
            );
            return BTreeMap::new();
        }
        let nodes = section.needed_map("nodes", NODES_MAX, what, values::redis_host_elsewhere);
        self.out_of_place(
            section,
            primary,
            "does not belong into a group in paired mode, where any of nodes may be primary; write \
             redis.nodes",
        );
        if self.nodes.origin.is_sound() && nodes.origin.is_sound() {
            for (index, node) in self.nodes.value.iter().enumerate() {
                section.relation(
                    nodes.value.contains_key(&node.value),
                    &[&nodes.origin],
                    format!("lacks the one that is nodes[{index}] of the group; {what}"),
                );
            }
            for (name, host) in &nodes.value {
                if !self.nodes.value.iter().any(|node| node.value == *name) {
                    section.wrong(host, "not one of the group's nodes; correct or remove it");
                }
            }
        }
        nodes.value.into_iter().map(|(name, host)| (name, host.value)).collect()
    }

    /// Notes a fault if `setting` is written, unless the mode made no sense.
    fn out_of_place<T>(&self, section: &Section<'_>, setting: &Setting<T>, text: &str) {
        let written = setting.is_written();
        section.relation(!written, &[&setting.origin, &self.mode], text);
    }

    fn check_nodes(&self, section: &Section<'_>, node: &Setting<String>) {
        let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
        for item in &self.nodes.value {
            match seen.get(item.value.as_str()) {
                Some(&at) => section.clash(item, "the same node twice; keep one".to_owned(), at),
                None => {
                    seen.insert(&item.value, item.at);
                }
            }
        }
        section.relation(
            self.nodes.value.len() >= NODES_MIN,
            &[&self.nodes.origin],
            "one node alone has nobody to take over; list the others, too",
        );
        section.relation(
            seen.contains_key(node.value.as_str()),
            &[&self.nodes.origin, &node.origin],
            "this node is not among nodes: add it, or correct node, which is the host's name unless \
             it is written",
        );
    }
}
