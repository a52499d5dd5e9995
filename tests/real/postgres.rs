//! The store: what it lets happen, and what it says when things are not as they should be.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "whatever is not as expected ends a test"
)]

mod acquire;
mod fencing;
mod members;
mod observe;
mod operator;
mod paired;
mod reach;
mod restore;
mod setup;
mod tenure;
mod upgrade;

use std::time::Duration;

use serde_json::json;
use understudy::adapters::postgres::Store;
use understudy::adapters::postgres::setup::{Plan, SetUp};
use understudy::adapters::postgres::tenure::{
    Acquire, AcquireKind, AcquireOutcome, Expected, NewAlert,
};
use understudy::config::settings::{self, Group, Severity};
use understudy::engine::observation::{Bot, Epoch, Nonce, Observation, Token, Way};
use uuid::Uuid;

use crate::support::postgres::Postgres;

/// Long, because the machine may be busy; tests of the deadline use their own.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Budget of a holder in paired mode.
const TTL: Duration = Duration::from_millis(20_500);

/// The original's table with a fresh heartbeat for each bot, our schema beside it, and a store as
/// the daemon's own role sees it.
async fn ready(postgres: &Postgres, groups: &[Group]) -> Store {
    postgres.create_bot_status().await;
    for bot in groups.iter().flat_map(|group| &group.bots) {
        postgres.beat(bot).await;
    }
    postgres.create_role("understudy").await;
    set_up(postgres, groups).await;
    node(postgres, "bravo", groups)
}

async fn set_up(postgres: &Postgres, groups: &[Group]) -> SetUp {
    understudy::adapters::postgres::setup::setup(&postgres.store(), &plan(groups))
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}", error.fault()))
}

fn plan(groups: &[Group]) -> Plan<'_> {
    Plan { schema: "understudy", daemon_role: "understudy", application_roles: &[], groups }
}

fn node(postgres: &Postgres, name: &str, groups: &[Group]) -> Store {
    open(&postgres.store_as("understudy"), name, groups)
}

fn open(settings: &settings::Store, name: &str, groups: &[Group]) -> Store {
    Store::new(settings, name, REPLY_TIMEOUT, groups).expect("nothing to read")
}

/// Observation of the first group.
async fn look(store: &mut Store) -> Observation {
    look_at(store, 0).await
}

async fn look_at(store: &mut Store, group: usize) -> Observation {
    let seen = store.observe().await.unwrap_or_else(|error| panic!("{error}: {:?}", error.fault()));
    seen.groups.into_iter().nth(group).expect("it is configured").expect("it can be read")
}

/// What the daemon asks for after a silence, with every heartbeat seen as evidence.
fn automatic<'a>(group: &'a Group, seen: &Observation, nonce: u128) -> Acquire<'a> {
    let beat = |(name, bot): (&String, &Bot)| match bot {
        Bot::Beat { value, .. } => Some((name.clone(), value.clone())),
        Bot::Missing | Bot::Duplicate { .. } | Bot::Null { .. } => None,
    };
    Acquire {
        group,
        nonce: Nonce(nonce),
        kind: AcquireKind::Automatic,
        way: Way::Silent,
        ttl: Duration::ZERO,
        expected: Expected::from(&seen.lease),
        min_epoch: Epoch(0),
        seen_at: seen.seen_at.clone(),
        max_age: Duration::from_secs(60),
        heartbeats: group.bots.iter().zip(&seen.bots).filter_map(beat).collect(),
        evidence: json!({ "silent_for_ms": 60_000 }),
        alert: NewAlert {
            id: Uuid::new_v4(),
            severity: Severity::Critical,
            body: json!({ "title": "taking over" }),
        },
    }
}

fn by_operator<'a>(group: &'a Group, seen: &Observation, nonce: u128) -> Acquire<'a> {
    Acquire {
        kind: AcquireKind::Operator { by: "mallory".to_owned(), reason: "dead".to_owned() },
        heartbeats: Vec::new(),
        ..automatic(group, seen, nonce)
    }
}

/// What a node in paired mode asks for, with every heartbeat seen as evidence.
fn by<'a>(way: Way, group: &'a Group, seen: &Observation, nonce: u128) -> Acquire<'a> {
    Acquire { way, ttl: TTL, ..automatic(group, seen, nonce) }
}

/// Looks, takes the group in paired mode, and returns the token.
async fn take_by(way: Way, store: &mut Store, group: &Group, nonce: u128) -> Token {
    let seen = look(store).await;
    match store.acquire(&by(way, group, &seen, nonce)).await.unwrap() {
        AcquireOutcome::Acquired(token) => token,
        refused => panic!("{refused}"),
    }
}

/// Looks, takes the group, and returns the token.
async fn take(store: &mut Store, group: &Group, nonce: u128) -> Token {
    let seen = look(store).await;
    match store.acquire(&automatic(group, &seen, nonce)).await.unwrap() {
        AcquireOutcome::Acquired(token) => token,
        refused => panic!("{refused}"),
    }
}
