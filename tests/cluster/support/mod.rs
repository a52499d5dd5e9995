//! Hosts that boot, and what a scenario can do with them.

pub mod cluster;
pub mod golden;
pub mod journal;
pub mod package;
pub mod rack;
pub mod servers;
pub mod wait;
