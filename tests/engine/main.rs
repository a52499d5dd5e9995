//! The engine, seen from outside.
//!
//! `edges` compares the table of edges with the ones really taken; `properties` feeds arbitrary
//! events; `simulation` lets engines live in a small world with faults, and `mutants` proves that
//! the simulation would notice a broken engine; `scenarios` are situations to read; `docs` keeps
//! docs/failover.md equal to the code. All of them judge by `trace`, which knows the rules and
//! nothing of how the engine keeps them.

#![allow(
    clippy::expect_used,
    clippy::manual_is_multiple_of,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on says so, and a rule is about a few variants"
)]

mod docs;
mod edges;
mod mutants;
mod properties;
mod scenarios;
mod simulation;
mod support;
mod trace;
mod walk;
mod world;
