//! What people and programs hear of the daemon, besides alerts.
//!
//! Whatever is logged goes through `tracing`. What an operator may want to search for, count or be
//! called for is a [`Notable`] and goes through [`emit`], with a stable `MESSAGE_ID` that the
//! catalog explains. To add one: a line in `message_id.rs`. What is counted and measured is in
//! `metrics.rs`.

mod journal;
pub mod logging;
pub mod message_id;
pub mod metrics;

pub use logging::{emit, init};
pub use message_id::Notable;
pub use metrics::Metrics;
