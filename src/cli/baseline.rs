//! `understudy baseline`: what checks are like when all is well, to compare with.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Refused, Said, json as print_json, person};
use crate::adapters::postgres::archive::{Archive, Figures};
use crate::config::settings::Settings;
use crate::monitor::number;

/// Name of a baseline. It stands in conditions and on command lines.
const NAME_BYTES_MAX: usize = 63;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Save what all checks of this node measured in the last span, under a name.
    ///
    /// What had the name before is replaced. Conditions like "> baseline + 30%" compare with it.
    Save(SaveArguments),
    /// Compare what was measured lately with a baseline.
    Compare(CompareArguments),
    /// Show what is saved.
    List,
    /// Forget a baseline.
    Remove(NameArgument),
}

#[derive(Debug, Args)]
pub(super) struct NameArgument {
    /// Name of the baseline.
    #[arg(value_parser = name)]
    name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    understudy baseline save default --over 7d\n  \
    understudy baseline save before-2.4 --over 2h")]
pub(super) struct SaveArguments {
    /// Name of the baseline; checks compare with `default` unless they say otherwise.
    #[arg(value_parser = name)]
    name: String,
    /// How far back. Not further than samples are kept (monitor.keep).
    #[arg(long, value_name = "DURATION", default_value = "7d",
          value_parser = humantime::parse_duration)]
    over: Duration,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 no check is further than LIMIT standard deviations from its \
    baseline; 1 some are."
)]
pub(super) struct CompareArguments {
    /// Name of the baseline.
    #[arg(value_parser = name)]
    name: String,
    /// What is compared with it: the mean of so long.
    #[arg(long, value_name = "DURATION", default_value = "1h",
          value_parser = humantime::parse_duration)]
    over: Duration,
    /// How many standard deviations from the mean are far.
    #[arg(long, value_name = "LIMIT", default_value_t = 3.0)]
    limit: f64,
}

pub(super) async fn baseline(
    settings: &Settings,
    command: Command,
    json: bool,
) -> anyhow::Result<Said> {
    let mut archive = Archive::new(&settings.store, &settings.node)?;
    match command {
        Command::Save(arguments) => save(settings, &mut archive, &arguments, json).await,
        Command::Compare(arguments) => compare(&mut archive, &arguments, json).await,
        Command::List => {
            let saved = archive.saved().await?;
            if json {
                return Ok(print_json(&saved)?.into());
            }
            let mut text = String::new();
            for one in &saved {
                let over = humantime::format_duration(seconds(one.over_s));
                writeln!(
                    text,
                    "{:<20} {} checks over {over}, saved {} by {}",
                    one.name, one.checks, one.at, one.by
                )?;
            }
            if saved.is_empty() {
                text += "nothing is saved; understudy baseline save default\n";
            }
            Ok(text.into())
        }
        Command::Remove(NameArgument { name }) => match archive.remove(&name).await? {
            0 => Err(none(&name).into()),
            checks => Ok(format!("{name} is forgotten; {checks} checks were in it\n").into()),
        },
    }
}

async fn save(
    settings: &Settings,
    archive: &mut Archive,
    arguments: &SaveArguments,
    json: bool,
) -> anyhow::Result<Said> {
    let SaveArguments { name, over } = arguments;
    let keep = settings.monitoring.keeping.samples;
    if *over > keep {
        let text = format!(
            "samples are kept for {} only (monitor.keep); a baseline cannot be over more",
            humantime::format_duration(keep)
        );
        return Err(Refused(text).into());
    }
    match archive.save(name, *over, &person(settings)).await? {
        0 => Err(Refused(
            "nothing was measured in that time, or it is not in the store yet; samples get there every \
             few minutes (monitor.flush)"
                .to_owned(),
        )
        .into()),
        checks if json => Ok(print_json(&json!({ "name": name, "checks": checks }))?.into()),
        checks => Ok(format!(
            "saved as {name}: {checks} checks over {}\n",
            humantime::format_duration(*over)
        )
        .into()),
    }
}

async fn compare(
    archive: &mut Archive,
    arguments: &CompareArguments,
    json: bool,
) -> anyhow::Result<Said> {
    let saved = archive.baselines().await?;
    let saved: Vec<Figures> = saved
        .into_iter()
        .filter(|(name, _)| *name == arguments.name)
        .map(|(_, figures)| figures)
        .collect();
    if saved.is_empty() {
        return Err(none(&arguments.name).into());
    }
    let present = archive.figures(arguments.over).await?;
    let (mut lines, mut far) = (Vec::new(), 0);
    let mut text =
        format!("{:<32} {:>12} {:>12} {:>9} {:>7}\n", "check", "baseline", "now", "apart", "sd");
    for was in &saved {
        let is = present.iter().find(|is| is.name == was.name).map(|is| is.baseline.mean);
        let (percent, deviations) = is.map_or((None, None), |is| was.baseline.distance(is));
        let is_far = deviations.is_some_and(|count| count.abs() > arguments.limit);
        far += usize::from(is_far);
        let shown = |value| number::show(value, &was.suffix);
        writeln!(
            text,
            "{:<32} {:>12} {:>12} {:>9} {:>7}{}",
            was.name,
            shown(was.baseline.mean),
            is.map_or("-".to_owned(), shown),
            percent.map_or("-".to_owned(), |percent| format!("{percent:+.1} %")),
            deviations.map_or("-".to_owned(), |count| format!("{count:+.1}")),
            if is_far { "  FAR" } else { "" },
        )?;
        lines.push(json!({
            "check": was.name, "baseline": was.baseline.mean, "deviation": was.baseline.deviation,
            "now": is, "percent": percent, "deviations": deviations, "far": is_far,
        }));
    }
    let code = u8::from(far > 0);
    let text = if json { print_json(&lines)? } else { text };
    Ok(Said { text, code })
}

fn none(name: &str) -> Refused {
    Refused(format!("there is no baseline {name} of this node; see understudy baseline list"))
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default())
}

fn name(text: &str) -> Result<String, String> {
    let valid = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if valid { Ok(text.to_owned()) } else { Err("use letters, digits and -_.".to_owned()) }
}
