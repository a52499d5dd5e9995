//! `understudy explain`: why a group would be taken over now, or why not, by the code that decides.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::replay::Recording;
use super::{Refused, Said, group, json as print_json, nonsense};
use crate::config::settings::Settings;
use crate::control::ask;
use crate::control::protocol::{Request, Response};
use crate::engine::explain::Explanation;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  understudy explain\n  understudy explain trading --recorded \
                        /var/lib/understudy/record.jsonl --at 2026-11-24T08:12:00Z")]
pub(super) struct Arguments {
    /// Name of the group; may be left out if there is only one.
    group: Option<String>,
    /// By a recording of the daemon instead of what it knows now.
    #[arg(long, value_name = "FILE")]
    recorded: Option<PathBuf>,
    /// At this time of the recording, such as 2026-11-24T08:12:00Z; otherwise at its end.
    #[arg(long, value_name = "TIME", requires = "recorded",
          value_parser = humantime::parse_rfc3339_weak)]
    at: Option<SystemTime>,
}

pub(super) async fn explain(
    settings: &Settings,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let explanation = match &arguments.recorded {
        Some(path) => {
            let mut recording = Recording::read(std::slice::from_ref(path))?;
            recording.explain(arguments.group.as_deref(), arguments.at)?
        }
        None => {
            let group = group(settings, arguments.group.as_deref())?.name.clone();
            match ask(&settings.runtime_dir, &Request::Explain { group }).await? {
                Response::Explanation(explanation) => explanation,
                Response::Refused { text } => return Err(Refused(text).into()),
                Response::Status(_) | Response::Health(_) | Response::Accepted { .. } => {
                    return Err(nonsense().into());
                }
            }
        }
    };
    if json {
        return Ok(print_json(&explanation)?.into());
    }
    Ok(text(&explanation).into())
}

fn text(explanation: &Explanation) -> String {
    let mut text = format!("{}\n\nA takeover by itself needs all of this:\n", explanation.sentence);
    for condition in &explanation.conditions {
        let mark = if condition.holds { "yes" } else { "no " };
        text += &format!("  {mark}  {}\n", condition.text);
    }
    let plan: Vec<_> = explanation.plan.iter().map(|step| step.name()).collect();
    text + &format!("Then, after the lease: {}.\n", plan.join(", "))
}
