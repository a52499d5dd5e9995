//! The store: what it lets happen, and what it says when things are not as they should be.

use std::time::Duration;

use understudy::adapters::postgres::Store;
use understudy::adapters::postgres::setup::{self, Plan};
use understudy::config::settings::{self, Group};
use understudy::engine::observation::Bot;

use crate::support::postgres::{Postgres, group};

const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_fresh_store_shows_the_primary_as_holder_and_every_heartbeat() {
    let postgres = Postgres::start().await;
    let (mut store, _) = ready(&postgres, &[group("trading", &["equity", "crypto"])]).await;
    let seen = store.observe().await.unwrap();
    let seen = seen[0].as_ref().unwrap();
    assert_eq!(seen.lease.holder.as_deref(), Some("alpha"));
    assert_eq!((seen.lease.epoch.0, seen.lease.nonce), (0, None));
    let Bot::Beat { status, age_ms: Some(age_ms), .. } = &seen.bots[0] else {
        panic!("{:?}", seen.bots[0]);
    };
    assert_eq!(status, "STANDBY");
    assert!((0..60_000).contains(age_ms), "{age_ms}");
}

async fn ready(postgres: &Postgres, groups: &[Group]) -> (Store, settings::Store) {
    postgres.create_bot_status().await;
    for bot in groups.iter().flat_map(|group| &group.bots) {
        postgres.beat(bot).await;
    }
    postgres.create_role("understudy").await;
    set_up(postgres, groups).await;
    let settings = postgres.store_as("understudy");
    (Store::new(&settings, "bravo", REPLY_TIMEOUT, groups).unwrap(), settings)
}

async fn set_up(postgres: &Postgres, groups: &[Group]) -> setup::SetUp {
    let plan =
        Plan { schema: "understudy", daemon_role: "understudy", application_roles: &[], groups };
    setup::setup(&postgres.store(), &plan).await.unwrap_or_else(|e| panic!("{e}: {:?}", e.fault()))
}
