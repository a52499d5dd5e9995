//! The guard on a booted host with a real Postgres: units run with the lease only, and are dead in
//! time whatever is killed, frozen or cut off.
//!
//! The bot of these tests notes the time every few milliseconds. What is measured is the time from the
//! sending of the last renewal that was granted to the last sign of life, both by `CLOCK_BOOTTIME`;
//! the store granted it after it was sent, so that this is longer than what is promised to be at most
//! [`PairedTimers::dead_by`].

mod gate;
mod layers;
mod loss;
mod package;
mod protect;
mod release;
mod rig;
mod switch;
