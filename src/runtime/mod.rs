//! The loop.

pub mod files;
pub mod reads;
