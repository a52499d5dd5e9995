//! understudy as it is installed: three booted hosts, the package on them, bots as units, and a fault
//! in each scenario.
//!
//! `db` has Postgres. `primary` has the bots, which beat every second, and a Redis; `standby` has the
//! same bots, not running, a replica of that Redis, and understudy, which watches. Between them is a
//! switch of their own. The standby's fence command asks the power switch of the hosts.
//!
//! The hosts are set up once, then each scenario boots copies of them and is independent of the
//! others. What a failed one leaves is in `target/cluster/NAME`. Needs root and a Debian machine, but
//! no systemd on the outside. `scripts/test` gets everything ready; after that `cargo test --test
//! cluster` runs them alone.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on must say so")]

mod host;
mod store;
mod supervisor;
mod support;
mod takeover;
