//! Monitoring plugins: any program that says by its exit status how it is.

use std::time::Duration;

use crate::adapters::hook::{self, HookError};
use crate::error::chain;
use crate::monitor::measured::Measured;
use crate::monitor::plugin;

/// Runs a plugin. Its number is the figure of that label, or its first.
///
/// # Errors
/// If it could not be run, could not tell, or has no such figure, in words.
pub async fn run(
    command: &[String],
    figure: Option<&str>,
    deadline: Duration,
) -> Result<Measured, String> {
    let ran = hook::run(command, &[], deadline).await;
    let printed = plugin::read(&ran.lines);
    let status = match &ran.outcome {
        Ok(()) => 0,
        Err(HookError::Status { status, .. }) => *status,
        Err(error) => return Err(chain(error)),
    };
    let Some(level) = plugin::level(status) else {
        return Err(match printed.text.as_str() {
            "" => format!("the plugin left with status {status} and said nothing"),
            text => format!("{text} (status {status})"),
        });
    };
    let found = match figure {
        None => printed.figures.first(),
        Some(label) => {
            let found = printed.figures.iter().find(|(found, _)| found == label);
            if found.is_none() {
                return Err(format!("the plugin prints no figure {label}: {}", printed.text));
            }
            found
        }
    };
    Ok(Measured {
        value: found.map(|(_, value)| *value),
        level: Some(level),
        text: printed.text,
        details: printed.details,
    })
}
