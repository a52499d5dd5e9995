//! `understudy setup`: makes the schema, or prints the SQL for whoever may.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Said, json as print_json};
use crate::adapters::postgres::setup::{self, Plan};
use crate::config::secret::Secret;
use crate::config::settings::{Settings, Store};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the SQL for a database administrator instead of running it.
    #[arg(long)]
    print: bool,
    /// Log in as this role, which may create a schema; the daemon's own role need not be allowed
    /// to.
    #[arg(long, value_name = "ROLE")]
    user: Option<String>,
    /// File with that role's password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Role of an application that calls fence_check(). May be repeated.
    #[arg(long = "application", value_name = "ROLE")]
    applications: Vec<String>,
}

pub(super) async fn setup(
    settings: &Settings,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let plan = Plan {
        schema: &settings.store.schema,
        daemon_role: &settings.store.user,
        application_roles: &arguments.applications,
        groups: &settings.groups,
    };
    if arguments.print {
        return Ok(setup::script(&plan).into());
    }
    let login = login(settings, arguments.user.as_deref(), arguments.password_file.as_deref())?;
    let done = setup::setup(&login, &plan).await?;
    if json {
        let said = json!({
            "version_before": done.version_before,
            "version": done.version,
            "new_groups": done.new_groups,
            "missing_grants": done.missing_grants,
        });
        return Ok(print_json(&said)?.into());
    }
    let mut text = match done.version_before {
        None => format!("schema {} made, version {}\n", settings.store.schema, done.version),
        Some(before) if before == done.version => {
            format!("schema {} is up to date, version {before}\n", settings.store.schema)
        }
        Some(before) => format!(
            "schema {} upgraded from version {before} to {}\n",
            settings.store.schema, done.version
        ),
    };
    for group in &done.new_groups {
        text += &format!("group {group} is new to the store\n");
    }
    for grant in &done.missing_grants {
        text += &format!("STILL TO DO, by the owner of the table:\n  {grant}\n");
    }
    text += "next: understudy check\n";
    let code = u8::from(!done.missing_grants.is_empty());
    Ok(Said { text, code })
}

/// How to log in, as another role than the daemon's if one is given.
pub(super) fn login(
    settings: &Settings,
    user: Option<&str>,
    password_file: Option<&Path>,
) -> anyhow::Result<Store> {
    let mut login = settings.store.clone();
    if let Some(user) = user {
        user.clone_into(&mut login.user);
        login.password = match password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
                Some(Secret::new(text.trim_end_matches('\n').to_owned()))
            }
            None => None,
        };
    }
    Ok(login)
}
