//! What the process was told.

pub mod secret;
pub mod settings;
