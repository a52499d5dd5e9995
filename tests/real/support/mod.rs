//! Real servers, each test its own: started on free ports under a temporary directory, stopped by
//! their own process id.

pub mod browser;
pub mod bus;
pub mod certificates;
pub mod client;
pub mod daemon;
pub mod http;
pub mod postgres;
pub mod prometheus;
pub mod redis;
pub mod smtp;
pub mod stage;
pub mod wait;
