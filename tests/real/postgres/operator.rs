//! What people say, and what can be read about it later.

use understudy::adapters::postgres::StoreError;
use understudy::adapters::postgres::operator::{HandBack, RecordKind, RecordStatus};
use understudy::engine::observation::Epoch;

use super::{look, ready, take};
use crate::support::postgres::{Postgres, group};

#[tokio::test]
async fn a_group_is_handed_back_only_by_who_knows_its_present_epoch() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    assert_eq!(
        store.hand_back(&group, Epoch(0), Epoch(0), "mallory").await.unwrap(),
        HandBack::Already(Epoch(0))
    );
    // This node knows of epochs that the store forgot.
    assert_eq!(
        store.hand_back(&group, Epoch(0), Epoch(4), "mallory").await.unwrap(),
        HandBack::Done(Epoch(5))
    );
    assert_eq!(
        store.hand_back(&group, Epoch(5), Epoch(5), "mallory").await.unwrap(),
        HandBack::Already(Epoch(5))
    );
    let token = take(&mut store, &group, 1).await;
    assert_eq!(
        store.hand_back(&group, Epoch(0), Epoch(0), "mallory").await.unwrap(),
        HandBack::Changed { epoch: Epoch(6), holder: Some("bravo".to_owned()) }
    );
    assert_eq!(
        store.hand_back(&group, Epoch(6), Epoch(0), "mallory").await.unwrap(),
        HandBack::Done(Epoch(7))
    );
    let lease = look(&mut store).await.lease;
    assert_eq!(
        (lease.holder.as_deref(), lease.nonce, lease.epoch),
        (Some("alpha"), None, Epoch(7))
    );
    assert!(matches!(store.flip(&group, token).await, Err(StoreError::Superseded { .. })));
}

#[tokio::test]
async fn history_tells_who_did_what_newest_first() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"]), group("other", &["crypto"])];
    let mut store = ready(&postgres, &groups).await;
    store.hold("trading", "mallory", "upgrade", None).await.unwrap();
    store.release("trading", "trent").await.unwrap();
    take(&mut store, &groups[0], 1).await;
    store.hand_back(&groups[0], Epoch(1), Epoch(0), "mallory").await.unwrap();
    store.acknowledge("trading", "mallory").await.unwrap();
    store.hold("other", "mallory", "upgrade", None).await.unwrap();

    let records = store.history(Some("trading"), 10).await.unwrap();
    let told: Vec<_> = records.iter().map(|r| (r.kind, r.by.as_deref())).collect();
    assert_eq!(
        told,
        [
            (RecordKind::Acknowledge, Some("mallory")),
            (RecordKind::HandBack, Some("mallory")),
            (RecordKind::Automatic, None),
            (RecordKind::Release, Some("trent")),
            (RecordKind::Hold, Some("mallory")),
        ]
    );
    assert_eq!(records[2].status, Some(RecordStatus::Superseded));
    assert_eq!(records[4].reason.as_deref(), Some("upgrade"));
    assert!(records[0].at.ends_with('Z') && records[0].at.contains('T'), "{}", records[0].at);

    assert_eq!(store.history(None, 10).await.unwrap().len(), 6);
    assert_eq!(store.history(None, 1).await.unwrap()[0].group, "other");
    let one = store.history_one(&records[4].id).await.unwrap();
    assert_eq!(one.as_ref(), Some(&records[4]));
}

#[tokio::test]
async fn an_order_for_a_group_that_does_not_exist_says_so() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    let unknown = group("typo", &["equity"]);
    let errors = [
        store.hold("typo", "m", "r", None).await.unwrap_err(),
        store.release("typo", "m").await.unwrap_err(),
        store.acknowledge("typo", "m").await.unwrap_err(),
        store.hand_back(&unknown, Epoch(0), Epoch(0), "m").await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, StoreError::NoSuchGroup { group } if group == "typo"), "{error}");
    }
}
