//! Tests against real servers: Postgres, Redis, systemd. `scripts/test` starts what they need.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on must say so"
)]

mod alerts;
mod beat;
mod channels;
mod checks;
mod config;
mod daemon;
mod guard;
mod hook;
mod monitoring;
mod package;
mod postgres;
mod redis;
mod stories;
mod support;
mod units;
