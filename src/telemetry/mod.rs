// WRITTEN BY THE LEAD ON main; do not rewrite. Only the alerts part remains for you. Leave src/telemetry alone (do not commit it).
//! What people and programs hear of the daemon, besides alerts.

pub mod logging;
pub mod message_id;

pub use logging::{emit, init};
pub use message_id::Notable;
