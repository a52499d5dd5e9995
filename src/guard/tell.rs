//! What the guard says in the journal.

use crate::engine::observation::Token;
use crate::telemetry::logging::About;
use crate::telemetry::{Notable, emit};

/// Says what concerns one tenure.
#[derive(Clone, Debug)]
pub struct Teller {
    /// The group.
    pub group: String,
    /// The tenure, if there is a lease.
    pub token: Option<Token>,
}

impl Teller {
    /// Says it.
    pub fn say(&self, notable: Notable, text: &str) {
        let epoch = self.token.map(|token| token.epoch.0);
        let about = About { group: Some(&self.group), epoch, ..About::default() };
        emit(notable, about, text);
    }
}
