//! x

pub mod deadline;
pub mod notify;
pub mod slice;
