//! `understudy gate`: whether a unit may start. It is in `ExecCondition=` of each unit of a group, and
//! fails closed: whatever it cannot find out is a no.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Refused, Said, json as print_json, person_at};
use crate::adapters::guard::glass::{self, Broken};
use crate::adapters::guard::protocol::Report;
use crate::adapters::guard::{GuardError, names, pass};
use crate::adapters::postgres::Store;
use crate::config::check_name;
use crate::config::settings::Settings;
use crate::engine::guard::Standing;
use crate::error::chain;
use crate::telemetry::{self, Notable, logging::About};

/// How long the store may take, a connection included. A unit that starts waits for it.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the group.
    group: String,
    /// Let units of the group run on this node without a lease, until mended or rebooted, and say why.
    ///
    /// For a store that is gone for good while you are certain that no other node runs the group:
    /// nothing else makes certain then. Start the units yourself afterwards.
    #[arg(long, value_name = "REASON")]
    break_glass: Option<String>,
    /// Take that back. Units that run without a lease are stopped.
    #[arg(long, conflicts_with = "break_glass")]
    mend: bool,
    /// Ask the store instead of a guard: in observed mode, on the primary, which has none.
    ///
    /// Units may start while the store says that the primary has the group. It needs a copy of the
    /// standby's configuration, with `node` written.
    #[arg(long, conflicts_with_all = ["break_glass", "mend"])]
    pub(super) store: bool,
    /// Where the guard answers.
    #[arg(long, value_name = "DIR", default_value = "/run/understudy")]
    runtime_dir: PathBuf,
}

pub(super) async fn gate(arguments: &Arguments, json: bool) -> anyhow::Result<Said> {
    let Arguments { group, break_glass, mend, runtime_dir, store: _ } = arguments;
    check_name(group).map_err(|fault| Refused(format!("{group:?} is {fault}")))?;
    if let Some(reason) = break_glass {
        return break_it(arguments, reason, json);
    }
    if *mend {
        let mended = glass::mend(runtime_dir, group)?;
        if json {
            return Ok(print_json(&json!({ "group": group, "mended": mended }))?.into());
        }
        let text = match mended {
            true => format!("the glass of {group} is mended: without a lease its units stop\n"),
            false => format!("the glass of {group} was not broken\n"),
        };
        return Ok(text.into());
    }
    let broken = glass::broken(runtime_dir, group);
    let guard = pass(runtime_dir, group).await;
    let refusal = refusal(group, &guard);
    if json {
        let said = json!({
            "group": group,
            "open": refusal.is_none() || broken.is_some(),
            "guard": guard.ok(),
            "break_glass": broken,
            "reason": refusal,
        });
        let code = u8::from(refusal.is_some() && broken.is_none());
        return Ok(Said { text: print_json(&said)?, code });
    }
    Ok(say(group, refusal, broken.as_ref())?)
}

/// As [`gate`], for a primary in observed mode.
pub(super) async fn gate_by_store(
    settings: anyhow::Result<Settings>,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let Arguments { group, runtime_dir, .. } = arguments;
    let broken = glass::broken(runtime_dir, group);
    let holder = async { holder(&settings?, group).await };
    let refusal = match holder.await {
        Ok((primary, Some(holder))) if holder == primary => None,
        Ok((_, Some(holder))) => Some(format!("{holder} has the group")),
        Ok((_, None)) => Some("nobody has the group".to_owned()),
        Err(error) => Some(format!("nobody can tell who has the group: {}", chain(error.as_ref()))),
    };
    if json {
        let code = u8::from(refusal.is_some() && broken.is_none());
        let said = json!({
            "group": group, "open": code == 0, "break_glass": broken, "reason": refusal,
        });
        return Ok(Said { text: print_json(&said)?, code });
    }
    Ok(say(group, refusal, broken.as_ref())?)
}

/// The primary of a group in observed mode, and who has it.
async fn holder(settings: &Settings, name: &str) -> anyhow::Result<(String, Option<String>)> {
    let group = super::group(settings, Some(name))?;
    if group.paired.is_some() {
        let text = format!("{name} is in paired mode, where units ask the guard; omit --store");
        return Err(Refused(text).into());
    }
    let groups = std::slice::from_ref(group);
    let mut store = Store::new(&settings.store, &settings.node, STORE_DEADLINE, groups)?;
    let read = tokio::time::timeout(STORE_DEADLINE, store.observe()).await?;
    let observation = read?.groups.into_iter().next().transpose()?;
    Ok((group.primary.clone(), observation.and_then(|observation| observation.lease.holder)))
}

/// Says in the journal, or to the person, what is worth it. A gate that opens is silent.
fn say(
    group: &str,
    refusal: Option<String>,
    broken: Option<&Broken>,
) -> Result<Said, telemetry::logging::InitError> {
    let (notable, text, code) = match (refusal, broken) {
        (None, _) => return Ok(String::new().into()),
        (Some(refusal), Some(Broken { by, reason })) => {
            let text = format!(
                "BREAK-GLASS: starts although {refusal}, because {by} said so: {reason}; end it with \
                 `understudy gate {group} --mend`"
            );
            (Notable::GlassBroken, text, 0)
        }
        (Some(refusal), None) => (Notable::GateRefused, format!("does not start: {refusal}"), 1),
    };
    telemetry::init()?;
    telemetry::emit(notable, About { group: Some(group), ..About::default() }, &text);
    Ok(Said { text: String::new(), code })
}

/// Why no unit may start; `None` if one may.
fn refusal(group: &str, guard: &Result<Report, GuardError>) -> Option<String> {
    match guard {
        Ok(report) if report.lets_pass() && report.group == group => None,
        Ok(report) => Some(match report.state {
            Standing::Starting => "the lease is not confirmed yet".to_owned(),
            Standing::Holding | Standing::BreakGlass => {
                "the lease was not renewed in time".to_owned()
            }
            Standing::Releasing | Standing::Released => {
                "this node is just giving the lease back".to_owned()
            }
            Standing::Fencing => {
                "this node lost the lease, and its units are being stopped".to_owned()
            }
        }),
        Err(GuardError::NotRunning { .. }) => Some(format!(
            "this node does not hold the lease of {group} ({} is not running)",
            names::guard_unit(group)
        )),
        Err(error) => Some(format!("nobody can tell whether this node holds it: {}", chain(error))),
    }
}

fn break_it(arguments: &Arguments, reason: &str, json: bool) -> anyhow::Result<Said> {
    let Arguments { group, runtime_dir, .. } = arguments;
    if reason.trim().is_empty() {
        return Err(Refused("say why, for those who find it broken".to_owned()).into());
    }
    let node = nix::unistd::gethostname()?;
    let broken = Broken { by: person_at(&node.to_string_lossy()), reason: reason.to_owned() };
    glass::break_it(runtime_dir, group, &broken)?;
    if json {
        return Ok(print_json(&json!({ "group": group, "break_glass": broken }))?.into());
    }
    Ok(format!(
        "{group}: units run on this node without a lease from now on. NOTHING keeps another node from \
         running them, too.\n\
         start them with systemctl; mend it as soon as you can: understudy gate {group} --mend\n"
    )
    .into())
}
