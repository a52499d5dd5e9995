//! What measures for checks, where no other adapter knows the protocol: HTTP, exporters, the
//! journal, this host, and monitoring plugins.
//!
//! Whatever is asked is a stranger: it may hang, flood or lie. Each call has a deadline, what it may
//! return has a bound, and what it leaves running is ended.

pub mod command;
pub mod host;
pub mod http;
pub mod journal;
pub mod prometheus;
