//! One module for each thing outside the process. An adapter translates: it knows one protocol and
//! no states, decides nothing, retries nothing and knows no other adapter.
//!
//! To add one: a module here, the crate it needs, and a call in `runtime/worker.rs`.

pub mod alert;
pub mod guard;
pub mod hook;
pub mod polkit;
pub mod postgres;
pub mod probe;
pub mod redis;
pub mod systemd;
pub mod trust;
