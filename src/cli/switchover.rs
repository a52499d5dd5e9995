//! `understudy switchover`: asks the node that has a group to hand it over, and shows how it goes.
//!
//! The order and everything that is shown stand in the database, so that it does not matter on which
//! node this runs.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use super::{REPORT_AGE_MAX, Refused, Said, group, json as print_json, person, print, store};
use crate::adapters::postgres::Store;
use crate::adapters::postgres::paired::{Ask, Asked, RequestState};
use crate::config::settings::{Group, Paired, Settings};
use crate::engine::liveness::seconds;
use crate::engine::observation::{Bot, Member, Nonce, Observation, RequestKind};
use crate::error::chain;
use crate::time::BootTime;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long all of it may take before this command stops watching. The order stands on.
const WATCH_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the group; may be left out if there is only one.
    group: Option<String>,
    /// The node that gets the group; without it the first of `nodes` that is ready.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", default_value = "switchover")]
    reason: String,
}

impl Arguments {
    /// Those of a failback: to the preferred node.
    pub(super) fn to_preferred(group: &Group, paired: &Paired, yes: bool) -> Self {
        Self {
            group: Some(group.name.clone()),
            to: paired.nodes.first().cloned(),
            yes,
            dry_run: false,
            reason: "failback".to_owned(),
        }
    }
}

pub(super) async fn switchover(
    settings: &Settings,
    arguments: Arguments,
    json: bool,
) -> anyhow::Result<Said> {
    let group = group(settings, arguments.group.as_deref())?;
    let Some(paired) = &group.paired else {
        let text = format!(
            "{} is in observed mode, in which understudy cannot stop the bots on the primary. Stop \
             them there, then `understudy failover {}` on the standby",
            group.name, group.name
        );
        return Err(Refused(text).into());
    };
    let mut store = store(settings)?;
    let before = look(&mut store, settings, group).await?;
    let Some(holder) = before.lease.holder.clone() else {
        return Err(Refused("nobody has the group; the nodes take it by themselves".into()).into());
    };
    let to = target(paired, &before, &holder, arguments.to.as_deref())?;
    let plan = plan(group, &before, &holder, &to);
    if arguments.dry_run {
        return Ok(format!("{plan}Nothing was done (--dry-run).\n").into());
    }
    if !arguments.yes && !confirmed(&plan, &group.name)? {
        return Err(Refused("nothing was done".to_owned()).into());
    }
    let id = Nonce(Uuid::new_v4().as_u128());
    let by = person(settings);
    let ask = Ask {
        id,
        group: &group.name,
        kind: RequestKind::Switchover,
        from_epoch: before.lease.epoch,
        target: Some(&to),
        by: &by,
        reason: &arguments.reason,
    };
    asked(store.ask(&ask).await?)?;
    let follower = Follower { settings, group, id, to, before, json, start: BootTime::now() };
    follower.follow(&mut store).await
}

/// Which node gets the group.
fn target(
    paired: &Paired,
    now: &Observation,
    holder: &str,
    to: Option<&str>,
) -> Result<String, Refused> {
    let fit = |node: &str| match now.members.iter().find(|member| member.node == node) {
        Some(member) if is_there(member) && member.ready => Ok(node.to_owned()),
        Some(member) if is_there(member) => {
            Err(format!("{node} could not run the group: {}", member.problems.join("; ")))
        }
        Some(_) | None => {
            Err(format!("understudy does not run on {node}, or cannot reach the store"))
        }
    };
    match to {
        Some(to) if to == holder => Err(Refused(format!("{to} has the group already"))),
        Some(to) if !paired.nodes.iter().any(|node| node == to) => {
            let nodes = paired.nodes.join(", ");
            Err(Refused(format!("{to} is no node of this group; they are: {nodes}")))
        }
        Some(to) => fit(to).map_err(Refused),
        None => {
            let others = paired.nodes.iter().filter(|node| *node != holder);
            let tried: Vec<_> = others.map(|node| fit(node)).collect();
            let why: Vec<_> = tried.iter().filter_map(|one| one.clone().err()).collect();
            let why = format!("no other node is ready: {}", why.join(". "));
            tried.into_iter().find_map(Result::ok).ok_or(Refused(why))
        }
    }
}

fn is_there(member: &Member) -> bool {
    Duration::from_millis(member.age_ms.unsigned_abs()) <= REPORT_AGE_MAX
}

fn plan(group: &Group, now: &Observation, holder: &str, to: &str) -> String {
    let mut plan = format!(
        "{} goes from {holder} (epoch {}) to {to}:\n  {to} gets ready\n  stop on {holder}: {}\n",
        group.name,
        now.lease.epoch,
        group.units.join(", ")
    );
    if group.redis.is_some() {
        plan += &format!(
            "  pause writes to Redis on {holder} until that of {to} has every byte\n  promote Redis \
             on {to}, and make that of {holder} its replica\n"
        );
    }
    plan += &format!("  start on {to}: {}\n", group.units.join(", "));
    if let Some(hold) = &now.lease.hold {
        plan += &format!("  PROBLEM: held by {}: {}\n", hold.by, hold.reason);
    }
    plan
}

/// Has the name of the group typed back, so that the right command on the wrong group is noticed.
fn confirmed(plan: &str, name: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(
            Refused("there is no terminal to ask on; add --yes if you are sure".into()).into()
        );
    }
    print(&format!("{plan}\nType the name of the group to go on: "))?;
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == name)
}

fn asked(asked: Asked) -> Result<(), Refused> {
    let why = match asked {
        Asked::Asked => return Ok(()),
        Asked::Pending { kind, by, .. } => {
            format!("there is an order already: {} by {by}", kind.as_str())
        }
        Asked::Changed { epoch, holder } => format!(
            "the group changed hands in this moment: {} has it (epoch {epoch})",
            holder.as_deref().unwrap_or("nobody")
        ),
        Asked::Held { by, reason } => format!(
            "held by {by}: {}; `understudy release` ends the hold",
            reason.as_deref().unwrap_or("no reason was given")
        ),
        Asked::Busy => "the group is busy; ask again in a moment".to_owned(),
        Asked::NoSuchGroup => "the store does not know the group; `understudy setup`".to_owned(),
    };
    Err(Refused(why))
}

async fn look(
    store: &mut Store,
    settings: &Settings,
    group: &Group,
) -> anyhow::Result<Observation> {
    let reading = store.observe().await?;
    let place = settings.groups.iter().position(|other| other.name == group.name);
    let found = place.and_then(|place| reading.groups.into_iter().nth(place));
    match found {
        Some(Ok(observation)) => Ok(observation),
        Some(Err(fault)) => Err(Refused(fault.to_string()).into()),
        None => Err(Refused(format!("there is no group {}", group.name)).into()),
    }
}

/// Shows how an order is carried out.
struct Follower<'a> {
    settings: &'a Settings,
    group: &'a Group,
    id: Nonce,
    to: String,
    before: Observation,
    json: bool,
    start: BootTime,
}

/// What of it was seen.
#[derive(Default)]
struct Seen {
    announced: bool,
    prepared: bool,
    given: bool,
    /// The epoch of the new tenure, and the heartbeats before its units can have begun to beat.
    taken: Option<(u64, Vec<String>)>,
}

impl Follower<'_> {
    async fn follow(&self, store: &mut Store) -> anyhow::Result<Said> {
        let mut seen = Seen::default();
        loop {
            if let Some(said) = self.turn(store, &mut seen).await? {
                return Ok(said);
            }
            if BootTime::now().since(self.start) > WATCH_MAX {
                let text = format!(
                    "it is not done after {}, and this command stops watching; see `understudy \
                     status` and `understudy history`",
                    seconds(WATCH_MAX)
                );
                return Err(Refused(text).into());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn turn(&self, store: &mut Store, seen: &mut Seen) -> anyhow::Result<Option<Said>> {
        let (now, order) = match (
            look(store, self.settings, self.group).await,
            store.request(&self.group.name, self.id).await,
        ) {
            (Ok(now), Ok(order)) => (now, order),
            (Err(error), _) => return self.blind(&format!("{error:#}")),
            (_, Err(error)) => return self.blind(&chain(&error)),
        };
        if let Some(RequestState { end: Some(end), text }) = &order
            && !end.is_done()
            && now.lease.epoch == self.before.lease.epoch
        {
            let why = text.as_deref().unwrap_or("no reason was given");
            return Err(Refused(format!("the group stays where it is: {why}")).into());
        }
        let announced = now.request.as_ref().is_some_and(|it| it.id == self.id && it.announced);
        self.once(&mut seen.announced, announced, "the order is being carried out")?;
        let prepared = now
            .members
            .iter()
            .any(|member| member.node == self.to && member.prepared_for == Some(self.id));
        self.once(&mut seen.prepared, prepared, &format!("{} is ready; stopping", self.to))?;
        let given = now.lease.epoch > self.before.lease.epoch;
        self.once(&mut seen.given, given, "the units are stopped and the lease was given away")?;
        let taken = given && now.lease.holder.as_ref() == Some(&self.to);
        if taken && seen.taken.is_none() {
            let epoch = now.lease.epoch;
            self.say(&format!("{} has the group (epoch {epoch})", self.to))?;
            seen.taken = Some((epoch.0, beats(&now)));
        }
        if given && !taken && now.lease.holder.is_some() {
            let holder = now.lease.holder.as_deref().unwrap_or_default();
            return Err(Refused(format!("{holder} has the group, and not {}", self.to)).into());
        }
        let Some((epoch, old)) = &seen.taken else { return Ok(None) };
        if beats(&now).iter().zip(old).any(|(now, old)| now == old) {
            return Ok(None);
        }
        let took = BootTime::now().since(self.start);
        let text = if self.json {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            print_json(&json!({
                "group": self.group.name,
                "from": self.before.lease.holder,
                "to": self.to,
                "epoch": epoch,
                "took_ms": millis,
            }))?
        } else {
            format!(
                "done: every bot of {} beats on {}, {} after the order\n",
                self.group.name,
                self.to,
                seconds(took)
            )
        };
        Ok(Some(text.into()))
    }

    fn blind(&self, why: &str) -> anyhow::Result<Option<Said>> {
        self.say(&format!("the database does not answer ({why}); looking again"))?;
        Ok(None)
    }

    fn once(&self, said: &mut bool, is_so: bool, text: &str) -> io::Result<()> {
        if is_so && !*said {
            *said = true;
            self.say(text)?;
        }
        Ok(())
    }

    fn say(&self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let after = BootTime::now().since(self.start).as_secs_f64();
        print(&format!("{after:7.2} s  {text}\n"))
    }
}

fn beats(now: &Observation) -> Vec<String> {
    let value = |bot: &Bot| match bot {
        Bot::Beat { value, .. } => value.clone(),
        Bot::Missing | Bot::Duplicate { .. } | Bot::Null { .. } => String::new(),
    };
    now.bots.iter().map(value).collect()
}
