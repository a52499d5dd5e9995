//! What the process was told: files in, a [`Settings`](settings::Settings) or a list of faults out.
//!
//! ```text
//! understudy.toml, understudy.toml.d/*.toml
//!     document   one tree of values, each with its place in a file
//!     section    takes keys from the tree; what nobody took is an unknown key
//!     values     texts into durations, hosts, names
//!     secret     passwords from credentials, files, variables
//!     load       the keys themselves: defaults, bounds, relations (paired, channel: some tables of them)
//!     settings   the outcome, which nobody need check again
//!     timers     what follows from the timers of paired mode
//!     fault      or everything that is wrong, at once
//! ```
//!
//! Reading never stops at a fault: the reader notes it, goes on with the default, and only a
//! reading without a fault becomes a `Settings`. So nothing is ever half applied.
//!
//! A fault names file, line, column and key, says what is wrong and what to do, and never repeats a
//! text: passwords get written into the wrong key, and faults end up in the journal.
//!
//! # To add a key
//!
//! 1. Give it a field in `settings`, documented.
//! 2. Read it in `load`, next to its neighbours: one line, with its default and bounds as a constant
//!    that says why. Check its relations to other keys there, each with a sentence of its own.
//! 3. Describe it in `docs/configuration.md` and `config/understudy.toml`. A test fails until both
//!    know it, and until the default in the file is the true one.

mod channel;
mod check;
mod check_kind;
mod document;
pub mod fault;
pub mod load;
pub mod monitoring;
mod paired;
pub mod secret;
mod section;
pub mod settings;
pub mod template;
pub mod timers;
mod values;

pub(crate) use values::name as check_name;
