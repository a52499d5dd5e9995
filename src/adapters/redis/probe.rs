//! Asks what checks want to know of a Redis. Nothing is written, and no command is used that keeps
//! the server busy for long: keys are scanned, never listed by `KEYS`.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};

use redis::{Cmd, FromRedisValue, Value, cmd};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::connection::{Connection, RedisError};
use crate::config::monitoring::{KeySet, RedisMeasure};
use crate::config::settings;
use crate::monitor::measured::{DETAILS_MAX, Measured};

/// Keys that are counted. More of them take longer to scan than a check should.
const KEYS_MAX: usize = 1_000_000;

/// Names of one set that are compared.
const NAMES_MAX: usize = 100_000;

/// What one step of a scan looks at: some milliseconds of the server's time.
const SCAN_COUNT: u32 = 1_000;

/// A database of a server that checks ask.
pub struct Probe {
    connection: Mutex<Connection>,
    /// One check at a time.
    places: Semaphore,
    database: u64,
}

/// Why there is no number.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFault {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It has an answer, but not one that a check can use.
    #[error("{0}")]
    Unusable(String),
}

fn unusable(text: impl Into<String>) -> ProbeFault {
    ProbeFault::Unusable(text.into())
}

impl Probe {
    /// Checks the settings; connects later.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub fn new(settings: &settings::Redis, database: u64) -> Result<Self, RedisError> {
        let connection = Connection::new(&settings.address, settings)?;
        Ok(Self { connection: Mutex::new(connection), places: Semaphore::new(1), database })
    }

    /// Waits until nobody else asks it, and has it until the answer is dropped.
    pub async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.places.acquire().await.ok()
    }

    /// Measures, for whoever has a place.
    ///
    /// # Errors
    /// If there is nothing to measure, or the server could not be asked.
    pub async fn measure(&self, measure: &RedisMeasure) -> Result<Measured, ProbeFault> {
        match measure {
            RedisMeasure::Field(field) => self.field(field).await,
            RedisMeasure::Keys(pattern) => self.count(pattern).await,
            RedisMeasure::Value(key) => self.value(key).await,
            RedisMeasure::Audit { expect, actual } => self.audit(expect, actual).await,
        }
    }

    async fn field(&self, field: &str) -> Result<Measured, ProbeFault> {
        let info: String = self.ask("INFO", cmd("INFO")).await?;
        // `db0.keys` is a field of a field.
        let (outer, inner) = field.split_once('.').unwrap_or((field, ""));
        let found = info.lines().find_map(|line| line.strip_prefix(outer)?.strip_prefix(':'));
        let found = found.map(str::trim).and_then(|found| match inner {
            "" => Some(found),
            inner => found.split(',').find_map(|part| part.strip_prefix(inner)?.strip_prefix('=')),
        });
        let found =
            found.ok_or_else(|| unusable(format!("INFO of this redis has no field {field}")))?;
        let number = match found {
            "up" | "ok" | "yes" | "on" => Some(1.0),
            "down" | "err" | "no" | "off" => Some(0.0),
            found => found.trim_end_matches('%').parse().ok(),
        };
        let number =
            number.ok_or_else(|| unusable(format!("{field} is \"{found}\", no number")))?;
        Ok(Measured::said(number, field))
    }

    async fn value(&self, key: &str) -> Result<Measured, ProbeFault> {
        let found: Option<String> = self.ask("GET", cmd("GET").arg(key).clone()).await?;
        let found = found.ok_or_else(|| unusable(format!("there is no key {key}")))?;
        let number = found.trim().parse().ok();
        let number = number.ok_or_else(|| unusable(format!("what is in {key} is no number")))?;
        Ok(Measured::said(number, key))
    }

    async fn count(&self, pattern: &str) -> Result<Measured, ProbeFault> {
        // A scan may return a key twice. Of each only a hash is kept.
        let (hasher, mut seen) = (RandomState::new(), HashSet::new());
        let mut too_many = false;
        self.scan(None, pattern, |key| {
            seen.insert(hasher.hash_one(key));
            too_many = seen.len() > KEYS_MAX;
            !too_many
        })
        .await?;
        if too_many {
            return Err(unusable(format!("more than {KEYS_MAX} keys match {pattern}")));
        }
        let count = u32::try_from(seen.len()).unwrap_or(u32::MAX);
        Ok(Measured::said(f64::from(count), format!("keys match {pattern}")))
    }

    async fn audit(&self, expect: &KeySet, actual: &KeySet) -> Result<Measured, ProbeFault> {
        let (expected, found) = (self.names(expect).await?, self.names(actual).await?);
        let missing: Vec<_> = expected.difference(&found).collect();
        let extra: Vec<_> = found.difference(&expected).collect();
        let text = format!(
            "{} expected, {} there: {} missing, {} extra",
            expected.len(),
            found.len(),
            missing.len(),
            extra.len()
        );
        // Half of the lines for each, if both have so many.
        let shown = |names: &[&String], word: &str| -> Vec<String> {
            names.iter().take(DETAILS_MAX / 2).map(|name| format!("{word} {name}")).collect()
        };
        let count = u32::try_from(missing.len() + extra.len()).unwrap_or(u32::MAX);
        Ok(Measured {
            value: Some(f64::from(count)),
            level: None,
            text,
            details: [shown(&missing, "missing"), shown(&extra, "extra")].concat(),
        })
    }

    async fn names(&self, set: &KeySet) -> Result<BTreeSet<String>, ProbeFault> {
        let mut names = BTreeSet::new();
        let mut take = |name: &str| {
            names.insert(name.to_owned());
            names.len() <= NAMES_MAX
        };
        match set {
            KeySet::Keys { prefix, suffix } => {
                let pattern = format!("{}*{}", literal(prefix), literal(suffix));
                let bare = |key: &str| -> Option<String> {
                    Some(
                        key.strip_prefix(prefix.as_str())?
                            .strip_suffix(suffix.as_str())?
                            .to_owned(),
                    )
                };
                self.scan(None, &pattern, |key| bare(key).is_none_or(|name| take(&name))).await?;
            }
            KeySet::Members(key) => self.members(key, take).await?,
        }
        if names.len() > NAMES_MAX {
            return Err(unusable(format!("a set has more than {NAMES_MAX} names")));
        }
        Ok(names)
    }

    async fn members(
        &self,
        key: &str,
        mut take: impl FnMut(&str) -> bool,
    ) -> Result<(), ProbeFault> {
        let kind: String = self.ask("TYPE", cmd("TYPE").arg(key).clone()).await?;
        let (scan, step) = match kind.as_str() {
            // Nothing is in what is not there.
            "none" => return Ok(()),
            "set" => ("SSCAN", 1),
            // Names and scores, or fields and values, by turns.
            "zset" => ("ZSCAN", 2),
            "hash" => ("HSCAN", 2),
            "list" => {
                let range = cmd("LRANGE").arg(key).arg(0).arg(NAMES_MAX).clone();
                let found: Vec<String> = self.ask("LRANGE", range).await?;
                found.iter().all(|name| take(name));
                return Ok(());
            }
            other => return Err(unusable(format!("{key} is a {other}, which has no members"))),
        };
        let mut turn = 0;
        let only_names = |name: &str| {
            turn += 1;
            (turn - 1) % step != 0 || take(name)
        };
        self.scan(Some((scan, key)), "*", only_names).await
    }

    /// Scans keys, or what is in one, until all were seen or `take` has enough.
    async fn scan(
        &self,
        of: Option<(&'static str, &str)>,
        pattern: &str,
        mut take: impl FnMut(&str) -> bool,
    ) -> Result<(), ProbeFault> {
        let name = of.map_or("SCAN", |(name, _)| name);
        let mut cursor = "0".to_owned();
        loop {
            let mut command = cmd(name);
            if let Some((_, key)) = of {
                command.arg(key);
            }
            command.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, found): (String, Vec<Vec<u8>>) = self.ask(name, command).await?;
            let mut names = found.iter().map(|name| String::from_utf8_lossy(name));
            if !names.all(|name| take(&name)) || next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn ask<T: FromRedisValue>(
        &self,
        name: &'static str,
        command: Cmd,
    ) -> Result<T, ProbeFault> {
        let mut connection = self.connection.lock().await;
        // The connection may be another than that of the call before.
        let select = cmd("SELECT").arg(self.database).clone();
        let commands = if self.database == 0 { vec![command] } else { vec![select, command] };
        let mut answers = connection.ask(&commands).await?;
        let answer = answers.pop().unwrap_or(Value::Nil);
        if let Some(selected) = answers.pop() {
            connection.accepted("SELECT", selected)?;
        }
        let answer = connection.accepted(name, answer)?;
        T::from_redis_value(answer)
            .map_err(|error| connection.senseless(name, error.to_string()).into())
    }
}

/// A text as a pattern that matches nothing else.
fn literal(text: &str) -> String {
    let mut pattern = String::new();
    for char in text.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}
