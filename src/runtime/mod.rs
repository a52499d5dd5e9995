//! The daemon at work: [`supervisor`] is the loop, [`worker`] the hands of a group, [`tell`] its
//! voice, [`history`] its pen. [`monitor`] measures beside them. Decisions are the engine's; SQL and
//! unit names belong to the adapters.

mod condition;
pub mod count;
pub mod files;
pub mod history;
mod members;
pub mod monitor;
pub mod notify;
mod paired;
pub mod policy;
pub mod reads;
pub mod recorder;
pub mod serving;
pub mod status;
pub mod supervisor;
pub mod tell;
pub mod worker;
