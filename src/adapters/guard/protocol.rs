//! What is said on the guard's socket: a line in, lines of JSON out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::guard::Standing;
use crate::engine::observation::{Epoch, Nonce, Token};
use crate::time::BootTime;

/// What a guard can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// How it is.
    State,
    /// How it is, and a unit starts if it holds the lease.
    Gate,
    /// How it is, now and at each change, until it ends.
    Watch,
    /// Give the lease back, for a node or for anybody.
    Release(Option<String>),
}

impl Question {
    /// The line for it, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::State => "state".to_owned(),
            Self::Gate => "gate".to_owned(),
            Self::Watch => "watch".to_owned(),
            Self::Release(None) => "release".to_owned(),
            Self::Release(Some(node)) => format!("release {node}"),
        }
    }

    /// The question of a line; `None` if it is none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["state"] => Some(Self::State),
            ["gate"] => Some(Self::Gate),
            ["watch"] => Some(Self::Watch),
            ["release"] => Some(Self::Release(None)),
            ["release", node] => Some(Self::Release(Some((*node).to_owned()))),
            _ => None,
        }
    }
}

/// How a guard is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The group.
    pub group: String,
    /// The epoch of the tenure; `None` for a guard without a lease, behind broken glass.
    pub epoch: Option<Epoch>,
    /// Its identity.
    pub nonce: Option<Nonce>,
    /// How it is.
    pub state: Standing,
    /// When the last granted renewal was sent, in nanoseconds since boot.
    pub confirmed_ns: Option<BootTime>,
    /// How long units may still start; zero unless `state` is holding or break-glass.
    pub valid_ms: u64,
    /// The process.
    pub pid: u32,
}

impl Report {
    /// The tenure, if it has one.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        Some(Token { epoch: self.epoch?, nonce: self.nonce? })
    }

    /// Whether the gate is open.
    #[must_use]
    pub fn lets_pass(&self) -> bool {
        let open = match self.state {
            Standing::Holding | Standing::BreakGlass => true,
            Standing::Starting | Standing::Releasing | Standing::Released | Standing::Fencing => {
                false
            }
        };
        open && self.valid_ms > 0
    }

    /// In whole milliseconds, rounded down: what is left must not look like more.
    #[must_use]
    pub fn millis(valid: Duration) -> u64 {
        u64::try_from(valid.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The answer to [`Question::Release`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Released {
    /// The lease is free, with this epoch.
    Released(Epoch),
    /// It is not, or nobody knows.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_its_line() {
        let release = Question::Release(Some("beta".to_owned()));
        for question in
            [Question::State, Question::Gate, Question::Watch, Question::Release(None), release]
        {
            assert_eq!(Question::parse(&question.line()), Some(question));
        }
        for line in ["", "States", "state now", "release a b", "release\u{0}"] {
            assert_eq!(Question::parse(line), None, "{line}");
        }
    }

    #[test]
    fn answers_are_what_scripts_read() {
        let report = Report {
            group: "trading".to_owned(),
            epoch: Some(Epoch(7)),
            nonce: Some(Nonce(1)),
            state: Standing::BreakGlass,
            confirmed_ns: Some(BootTime::from_duration(Duration::from_nanos(5))),
            valid_ms: 9,
            pid: 3,
        };
        let text = "{\"group\":\"trading\",\"epoch\":7,\
             \"nonce\":\"00000000000000000000000000000001\",\"state\":\"break-glass\",\
             \"confirmed_ns\":5,\"valid_ms\":9,\"pid\":3}";
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
        let released = serde_json::to_string(&Released::Released(Epoch(8))).unwrap();
        assert_eq!(released, "{\"released\":8}");
        let error = serde_json::to_string(&Released::Error("no".to_owned())).unwrap();
        assert_eq!(error, "{\"error\":\"no\"}");
    }

    #[test]
    fn the_gate_is_open_while_the_lease_is_valid() {
        let mut report = Report {
            group: "g".to_owned(),
            epoch: None,
            nonce: None,
            state: Standing::Holding,
            confirmed_ns: None,
            valid_ms: 1,
            pid: 1,
        };
        assert!(report.lets_pass());
        report.valid_ms = 0;
        assert!(!report.lets_pass());
        report.valid_ms = 1;
        for state in
            [Standing::Starting, Standing::Releasing, Standing::Released, Standing::Fencing]
        {
            report.state = state;
            assert!(!report.lets_pass(), "{state:?}");
        }
    }
}
