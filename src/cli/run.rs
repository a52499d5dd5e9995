//! `understudy run`: the daemon.

use std::path::PathBuf;

use super::Said;
use crate::config::settings::Settings;
use crate::runtime::supervisor::Supervisor;
use crate::telemetry;

pub(super) async fn run(settings: Settings, path: PathBuf) -> anyhow::Result<Said> {
    telemetry::init()?;
    let (supervisor, inbox) = Supervisor::new(settings, path).await?;
    supervisor.run(inbox).await?;
    Ok(String::new().into())
}
