//! `understudy lease`: the guard of a group. systemd runs it.

use clap::Args;

use super::{Refused, Said, group};
use crate::adapters::guard::glass;
use crate::adapters::guard::tenure::{Tenure, TenureError};
use crate::config::settings::{Group, Settings};
use crate::engine::guard::Ending;
use crate::files::Boot;
use crate::telemetry;
use crate::time::BootTime;

/// The units were stopped because the lease was lost.
const FENCED: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the group.
    group: String,
    /// Only say whether there is a lease to renew: exits with 0 if so, with 1 if not.
    #[arg(long)]
    pub(super) check: bool,
}

pub(super) async fn lease(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Said> {
    telemetry::init()?;
    let group = group(settings, Some(&arguments.group))?;
    if group.paired.is_none() {
        let text = format!("group {} is in observed mode, which has no guard", group.name);
        return Err(Refused(text).into());
    }
    let tenure = match tenure(settings, group) {
        Ok(tenure) => tenure,
        Err(error) if arguments.check => {
            // A unit that wants a guard at boot is not worth a warning: nobody may have the group yet.
            tracing::info!("no guard for {}: {error}", group.name);
            return Ok(Said { text: String::new(), code: 1 });
        }
        Err(error) => return Err(error.into()),
    };
    if arguments.check {
        return Ok(String::new().into());
    }
    match crate::guard::run(settings, group, tenure.as_ref()).await? {
        Ending::Released => Ok(String::new().into()),
        Ending::Fenced(_) => Ok(Said { text: String::new(), code: FENCED }),
    }
}

/// The lease to renew; `None` if there is none and the glass is broken.
fn tenure(settings: &Settings, group: &Group) -> Result<Option<Tenure>, TenureError> {
    let Settings { state_dir, runtime_dir, node, .. } = settings;
    let boot = Boot::identify(runtime_dir);
    let fence_after = settings.paired.fence_after;
    let now = BootTime::now();
    match Tenure::read(state_dir, &group.name, node, &boot, now, fence_after) {
        Ok(tenure) => Ok(Some(tenure)),
        Err(_) if glass::broken(runtime_dir, &group.name).is_some() => Ok(None),
        Err(error) => Err(error),
    }
}
