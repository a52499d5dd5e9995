//! The table of edges is the truth, both ways: no engine leaves it, and all of it can happen.

use std::collections::BTreeSet;

use understudy::engine::Engine;
use understudy::engine::edge::{EDGES, Edge, Kind, Why};
use understudy::engine::event::{
    Action, Cause, Command, Event, Memory, Outcome, Progress, Recalled,
};
use understudy::engine::observation::{Epoch, Lease, Nonce, Observation};
use understudy::engine::plan::Step;

use crate::support::{Rng, at, beat, lease, policy, read};
use crate::walk::{PLAIN, Walk};

#[test]
fn the_edges_taken_by_long_random_walks_are_the_edges_of_the_table() {
    let table: BTreeSet<Edge> = EDGES.into_iter().filter(|edge| !is_paired(edge)).collect();
    let mut seen = BTreeSet::new();
    for seed in 0..600 {
        let mut rng = Rng::new(seed);
        let mut walk = Walk::new(PLAIN);
        for _ in 0..200 {
            let choice = (rng.next() as u8, rng.next() as u8, rng.next() as u8);
            if let Err(rule) = walk.choose(choice) {
                panic!("walk {seed}: {rule}");
            }
        }
        seen.extend(walk.edges);
    }
    for (progress, recent) in [(Progress::Complete, false), (Progress::At(Step::Flip), true)] {
        seen.insert(taken_up_while_an_operator_was_at_work(progress, recent));
    }
    for progress in [Progress::Complete, Progress::At(Step::Flip)] {
        seen.insert(reclaimed(progress));
    }
    let never: Vec<_> = table.difference(&seen).map(ToString::to_string).collect();
    let unlisted: Vec<_> = seen.difference(&table).map(ToString::to_string).collect();
    assert!(never.is_empty(), "in the table, but never taken: {never:#?}");
    assert!(unlisted.is_empty(), "taken, but not in the table: {unlisted:#?}");
    let all: BTreeSet<Edge> = EDGES.into_iter().collect();
    assert_eq!(EDGES.len(), all.len(), "an edge stands in the table twice");
}

/// Whether it is taken in paired mode only.
fn is_paired(edge: &Edge) -> bool {
    let kinds = [edge.from, edge.to];
    kinds.contains(&Kind::HandingOver)
        || matches!(edge.why, Why::GuardGone | Why::Again | Why::Offered | Why::NoPeer)
}

/// Too rare for chance: after a restart the store shows a tenure of another node of this name at
/// first, an operator forces a failover, and before this node is checked the store shows ours.
fn taken_up_while_an_operator_was_at_work(progress: Progress, recent: bool) -> Edge {
    let mut engine = recalling(progress, recent);
    let events = [
        Event::Observed { sent: at(0), observation: seen(&lease(5, "beta")) },
        Event::Operator { request: 1, command: Command::Failover { force: true } },
        Event::Observed { sent: at(0), observation: seen(&ours()) },
    ];
    last_edge(&mut engine, events)
}

/// Too rare for chance as well: the store is restored to before a tenure that goes on here, and an
/// operator says so between two attempts of a step, or when all is done.
fn reclaimed(progress: Progress) -> Edge {
    let mut engine = recalling(progress, true);
    let outcome = Outcome::Failed("no".to_owned());
    let events = [
        Event::Observed { sent: at(0), observation: seen(&ours()) },
        Event::StepEnded { epoch: Epoch(5), step: Step::Flip, outcome },
        Event::Observed { sent: at(0), observation: seen(&lease(4, "alpha")) },
        Event::Operator { request: 1, command: Command::Failover { force: true } },
    ];
    last_edge(&mut engine, events)
}

/// An engine that remembers the tenure of [`ours`].
fn recalling(progress: Progress, recent: bool) -> Engine {
    let memory = Memory { nonce: NONCE, cause: Cause::Automatic, progress, max_epoch: Epoch(5) };
    let recalled = Recalled { memory, recent, same_boot: true, units_active: true };
    Engine::new(at(0), policy(), Nonce(1), Some(recalled))
}

const NONCE: Nonce = Nonce(7);

fn ours() -> Lease {
    Lease { nonce: Some(NONCE), ..lease(5, "beta") }
}

fn seen(lease: &Lease) -> Observation {
    read(lease, vec![beat("a"), beat("a")])
}

fn last_edge<const N: usize>(engine: &mut Engine, events: [Event; N]) -> Edge {
    let actions = events.into_iter().flat_map(|event| engine.handle(at(0), event));
    let moved = actions.filter_map(|action| match action {
        Action::Moved(edge) => Some(edge),
        _ => None,
    });
    moved.last().expect("the engine moved")
}
