//! understudy: an active-standby failover supervisor with systemd integration.
//!
//! See `ARCHITECTURE.md` for the map. In reading order: [`time`] reads the clock, [`engine`]
//! decides and does nothing else, [`monitor`] judges what was measured, [`config`] says what it was
//! told, [`adapters`] talk to the world, [`telemetry`] to people, [`control`] to the command line,
//! [`web`] to browsers and scrapers, [`runtime`] ties them together, [`guard`] is the process that
//! holds a lease, and [`cli`] is the front door.

pub mod adapters;
pub mod cli;
pub mod config;
pub mod control;
pub mod crash;
pub mod engine;
pub mod error;
pub mod files;
pub mod guard;
pub mod monitor;
pub mod runtime;
pub mod telemetry;
pub mod time;
pub mod web;
