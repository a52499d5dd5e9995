//! Tests against real servers: Postgres, Redis, systemd. `scripts/test` starts what they need.

mod alerts;
mod config;
mod daemon;
mod hook;
mod postgres;
mod redis;
mod support;
mod units;
