//! Where log messages go: to the journal under systemd, to people otherwise.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use nix::sys::stat::fstat;
use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::journal::{self, Journal};
use super::message_id::{Loudness, Notable};

/// Where log messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// To the journal, with fields.
    Journal,
    /// To standard error, which is the journal's, whose socket cannot be reached: lines with a
    /// priority in front.
    JournalLines,
    /// To standard error, which someone looks at.
    Terminal,
    /// To standard error, which is a file or a pipe: lines with the time in front.
    Lines,
}

/// Why nothing can be logged.
#[derive(Debug, Error)]
pub enum InitError {
    /// It was called before.
    #[error("logging has been set up already")]
    Again(#[source] tracing_subscriber::util::TryInitError),
}

/// What belongs to an event besides its text. What is `None` does not appear in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// The group.
    pub group: Option<&'a str>,
    /// The epoch of its tenure.
    pub epoch: Option<u64>,
    /// The step of a takeover.
    pub step: Option<&'a str>,
    /// The check.
    pub check: Option<&'a str>,
}

/// Starts logging: to the journal if standard error leads there, as text if not.
///
/// `UNDERSTUDY_LOG` is the level from which understudy's own messages are logged: `error`, `warn`,
/// `info` (the default), `debug` or `trace`. Libraries are heard from warnings on whatever it says: at
/// a lower level some of them show addresses with tokens in them.
///
/// # Errors
/// If it was started before.
pub fn init() -> Result<Sink, InitError> {
    let wanted = std::env::var("UNDERSTUDY_LOG").ok().and_then(|level| level.parse().ok());
    let filter = Targets::new()
        .with_default(Level::WARN)
        .with_target("understudy", wanted.unwrap_or(Level::INFO));
    let (sink, layer) = choose();
    let subscriber = Registry::default().with(layer.with_filter(filter));
    subscriber.try_init().map_err(InitError::Again)?;
    Ok(sink)
}

/// Logs a notable event.
pub fn emit(notable: Notable, about: About<'_>, text: &str) {
    // The level is part of the place in the code, so there is one place for each.
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(
                Level::$level,
                MESSAGE_ID = notable.message_id(),
                UNDERSTUDY_EVENT = notable.name(),
                UNDERSTUDY_GROUP = about.group,
                UNDERSTUDY_EPOCH = about.epoch,
                UNDERSTUDY_STEP = about.step,
                UNDERSTUDY_CHECK = about.check,
                message = text
            )
        };
    }
    match notable.loudness() {
        Loudness::Info => event!(INFO),
        Loudness::Warning => event!(WARN),
        Loudness::Error => event!(ERROR),
    }
}

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn choose() -> (Sink, AnyLayer) {
    let lines = |sink| -> (Sink, AnyLayer) { (sink, Box::new(Lines(sink))) };
    if stderr_is_the_journal() {
        match Journal::connect(journal::SOCKET) {
            Ok(journal) => (Sink::Journal, Box::new(journal)),
            Err(_unreachable) => lines(Sink::JournalLines),
        }
    } else if io::stderr().is_terminal() {
        lines(Sink::Terminal)
    } else {
        lines(Sink::Lines)
    }
}

/// systemd says in `JOURNAL_STREAM` which file is its own, as someone may have redirected ours.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Lines on standard error.
struct Lines(Sink);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let text = Record::of(event).text();
        let line = match self.0 {
            Sink::JournalLines | Sink::Journal => {
                format!("<{}>{}\n", journal::priority(level), text.replace('\n', " "))
            }
            Sink::Terminal => format!("{} {text}\n", colored(level)),
            Sink::Lines => {
                let now = humantime::format_rfc3339_millis(SystemTime::now());
                format!("{now} {level:<5} {text}\n")
            }
        };
        // There is nobody left to tell.
        let _lost = io::stderr().lock().write_all(line.as_bytes());
    }
}

fn colored(level: Level) -> String {
    let color = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG | Level::TRACE => 90,
    };
    format!("\u{1b}[{color}m{level:<5}\u{1b}[0m")
}

/// One event, read out of its macro.
#[derive(Debug, Default)]
pub(super) struct Record {
    message: String,
    /// Fields for machines, with names as in the journal. They are not in the text.
    pub(super) journal: Vec<(&'static str, String)>,
    /// Fields for people, in lower case as one writes them in a macro.
    pub(super) plain: Vec<(&'static str, String)>,
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut record = Self::default();
        event.record(&mut record);
        if !event.metadata().target().starts_with("understudy") {
            // A library must not be able to set a field like `MESSAGE_ID`.
            record.plain.append(&mut record.journal);
        }
        record
    }

    /// The line that people read.
    pub(super) fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.plain {
            let space = if text.is_empty() { "" } else { " " };
            text.push_str(&format!("{space}{name}={value}"));
        }
        text
    }

    fn put(&mut self, field: &Field, value: String) {
        let name = field.name();
        if name == "message" {
            self.message = value;
        } else if name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
            self.journal.push((name, value));
        } else {
            self.plain.push((name, value));
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        self.put(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
