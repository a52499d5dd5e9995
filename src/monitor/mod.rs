//! The monitoring's core: what a value means, for how long, and what all of them mean together.
//!
//! A neighbour of the failover engine, and as pure: no clock, no I/O, no randomness. It differs in
//! that it computes with floats, and that nothing is ever done because of what it says but telling
//! people.
//!
//! ```text
//! a probe's Measured, or a fault
//!     threshold   is it beyond `warning` or `critical`?        Condition
//!     tracker     for long enough, and not just for a moment?   Tracker -> Change
//!     health      of a check, a group, the node; the score      Health
//! ```
//!
//! [`window`] makes rates and percentiles of the last samples, [`plugin`] and [`exposition`] read
//! what plugins and exporters print, [`number`] reads and writes numbers with units, [`archive`] gathers
//! samples to be kept, and [`baseline`] is what they are compared with.
//!
//! To add a kind of check: a variant of `settings::Probe`, its keys in `config/check.rs`, what
//! measures it in an adapter, and its arm in `runtime/monitor/prober.rs`.

pub mod archive;
pub mod baseline;
pub mod exposition;
pub mod health;
pub mod level;
pub mod measured;
pub mod number;
pub mod plugin;
pub mod threshold;
pub mod tracker;
pub mod window;
