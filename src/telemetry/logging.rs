//! To the journal with fields of its own, or to standard error as text.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::message_id::{Loudness, Notable};

/// Fields that belong to the journal and would only be noise on a screen.
const JOURNAL_FIELDS: [&str; 5] =
    ["MESSAGE_ID", "UNDERSTUDY_EVENT", "UNDERSTUDY_GROUP", "UNDERSTUDY_EPOCH", "UNDERSTUDY_STEP"];

/// What belongs to an event besides its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The group.
    pub group: Option<&'a str>,
    /// The epoch of its tenure.
    pub epoch: Option<u64>,
    /// The step of a takeover.
    pub step: Option<&'a str>,
}

/// Starts logging: to the journal if standard error leads there, as text if not. `UNDERSTUDY_LOG`
/// changes what is logged, such as `debug` or `info,understudy::engine=trace`.
///
/// # Errors
/// If it was started before.
pub fn init() -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("UNDERSTUDY_LOG")
        .from_env_lossy();
    let journal = if stderr_is_the_journal() { tracing_journald::layer().ok() } else { None };
    let registry = tracing_subscriber::registry();
    if let Some(journal) = journal {
        // Without a prefix, so that MESSAGE_ID is one.
        let journal = journal
            .with_field_prefix(None)
            .with_syslog_identifier("understudy".to_owned())
            .with_priority_mappings(PriorityMappings {
                error: Priority::Error,
                warn: Priority::Warning,
                info: Priority::Informational,
                debug: Priority::Debug,
                trace: Priority::Debug,
            });
        registry.with(journal.with_filter(filter)).try_init()?;
    } else {
        let fields = debug_fn(|writer: &mut Writer<'_>, field, value| {
            if field.name() == "message" {
                write!(writer, "{value:?}")
            } else if JOURNAL_FIELDS.contains(&field.name()) {
                Ok(())
            } else {
                write!(writer, " {field}={value:?}")
            }
        });
        let text = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(fields);
        registry.with(text.with_filter(filter)).try_init()?;
    }
    Ok(())
}

/// Logs a notable event.
pub fn emit(notable: Notable, about: About<'_>, text: &str) {
    macro_rules! event {
        ($level:expr) => {
            tracing::event!(
                $level,
                MESSAGE_ID = notable.message_id(),
                UNDERSTUDY_EVENT = notable.name(),
                UNDERSTUDY_GROUP = about.group,
                UNDERSTUDY_EPOCH = about.epoch,
                UNDERSTUDY_STEP = about.step,
                "{text}"
            )
        };
    }
    match notable.loudness() {
        Loudness::Info => event!(Level::INFO),
        Loudness::Warning => event!(Level::WARN),
        Loudness::Error => event!(Level::ERROR),
    }
}

/// Whether standard error is connected to the journal: systemd says which file that would be.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::io::stderr();
    nix::sys::stat::fstat(stderr.as_fd())
        .is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}
