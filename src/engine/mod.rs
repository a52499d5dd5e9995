//! The pure core: observations in, actions out.

pub mod observation;
