//! What is done in the name of a tenure.

use std::time::Duration;

use serde_json::json;
use understudy::adapters::postgres::tenure::{Ending, Step, StepOutcome};
use understudy::adapters::postgres::{ErrorKind, StoreError};
use understudy::engine::observation::{Epoch, Nonce, Token};

use super::{automatic, look, node, ready, set_up, take};
use crate::support::postgres::{Postgres, group};

#[tokio::test]
async fn a_flip_sets_the_status_of_every_bot_and_touches_nothing_else() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity", "crypto"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    postgres.beat("other").await;
    postgres
        .sql(
            "CREATE TABLE audit (old jsonb, new jsonb);
             CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN INSERT INTO audit VALUES (to_jsonb(OLD), to_jsonb(NEW)); RETURN NEW; END $$;
             CREATE TRIGGER audit BEFORE INSERT OR UPDATE OR DELETE ON bot_status
             FOR EACH ROW EXECUTE FUNCTION audit()",
        )
        .await;
    let token = take(&mut store, &group, 1).await;
    store.flip(&group, token).await.unwrap();
    store.flip(&group, token).await.unwrap();
    assert_eq!(postgres.status_of("equity").await, "PRIMARY");
    assert_eq!(postgres.status_of("crypto").await, "PRIMARY");
    assert_eq!(postgres.status_of("other").await, "STANDBY");
    let changed = "SELECT DISTINCT n.key FROM audit, jsonb_each(new) n
                   WHERE old->n.key IS DISTINCT FROM n.value";
    assert_eq!(postgres.rows(changed).await, [["status"]]);
    let written = "SELECT DISTINCT new->>'bot_name' FROM audit ORDER BY 1";
    assert_eq!(postgres.rows(written).await, [["crypto"], ["equity"]]);
}

#[tokio::test]
async fn a_flip_that_does_not_meet_exactly_the_configured_rows_changes_none() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity", "crypto"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let token = take(&mut store, &group, 1).await;
    postgres.sql("DELETE FROM bot_status WHERE bot_name = 'crypto'").await;
    let error = store.flip(&group, token).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::RowCount { counted, .. } if counted.starts_with("1 of 2")),
        "{error}"
    );
    assert_eq!(postgres.status_of("equity").await, "STANDBY");
}

#[tokio::test]
async fn a_flip_that_something_else_undoes_is_not_taken_for_done() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    postgres
        .sql(
            "CREATE FUNCTION stubborn() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN NEW.status := 'STANDBY'; RETURN NEW; END $$;
             CREATE TRIGGER stubborn BEFORE UPDATE ON bot_status
             FOR EACH ROW EXECUTE FUNCTION stubborn()",
        )
        .await;
    let token = take(&mut store, &group, 1).await;
    let error = store.flip(&group, token).await.unwrap_err();
    assert!(matches!(error, StoreError::RowCount { .. }), "{error}");
}

#[tokio::test]
async fn a_flip_under_a_token_that_is_over_is_refused() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let token = take(&mut store, &group, 1).await;
    let same_epoch = Token { nonce: Nonce(2), ..token };
    let earlier = Token { epoch: Epoch(0), ..token };
    for stale in [same_epoch, earlier] {
        let error = store.flip(&group, stale).await.unwrap_err();
        assert!(matches!(error, StoreError::Superseded { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
    assert_eq!(postgres.status_of("equity").await, "STANDBY");
}

#[tokio::test]
async fn a_status_column_may_be_an_enumeration() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "CREATE TYPE state AS ENUM ('PRIMARY', 'STANDBY', 'EMERGENCY_STOPPED');
             CREATE TABLE bot_status (bot_name varchar(40) PRIMARY KEY, status state, last_heartbeat timestamptz);
             INSERT INTO bot_status VALUES ('equity', 'STANDBY', now())",
        )
        .await;
    postgres.create_role("understudy").await;
    let groups = [group("trading", &["equity"])];
    set_up(&postgres, &groups).await;
    let mut store = node(&postgres, "bravo", &groups);
    let token = take(&mut store, &groups[0], 1).await;
    store.flip(&groups[0], token).await.unwrap();
    assert_eq!(postgres.status_of("equity").await, "PRIMARY");
}

#[tokio::test]
async fn a_failover_leaves_a_timeline() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let token = take(&mut store, &group, 0xabc).await;
    let step = Step {
        name: "promote".to_owned(),
        outcome: StepOutcome::Done,
        after: Duration::from_millis(12),
        took: Some(Duration::from_millis(34)),
        detail: json!({ "role": "master" }),
    };
    store.record_step("trading", token, &step).await.unwrap();
    let running =
        Step { outcome: StepOutcome::Started, took: None, name: "start".to_owned(), ..step };
    store.record_step("trading", token, &running).await.unwrap();
    store
        .finish("trading", token, Ending::Failed, Some(Duration::from_secs(9)), &json!({}))
        .await
        .unwrap();

    let record = store.history(Some("trading"), 10).await.unwrap().remove(0);
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(
        (&json["kind"], &json["status"], &json["epoch"]),
        (&json!("automatic"), &json!("failed"), &json!(1))
    );
    assert_eq!(json["detail"], json!({ "silent_for_ms": 60_000 }));
    let steps: Vec<_> =
        record.timeline.iter().map(|e| (e.step.as_str(), e.outcome.as_str(), e.took_ms)).collect();
    assert_eq!(
        steps,
        [
            ("acquire", "done", None),
            ("promote", "done", Some(34)),
            ("start", "started", None),
            ("finish", "failed", Some(0)),
        ]
    );
    let found = store.history_one(&record.id[..32]).await.unwrap();
    assert_eq!(found.as_ref(), Some(&record));
    assert_eq!(store.history_one("nonsense").await.unwrap(), None);
}

#[tokio::test]
async fn a_tenure_that_is_over_ends_no_more_but_its_steps_are_still_recorded() {
    let postgres = Postgres::start().await;
    let mut group = group("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let mut store = ready(&postgres, std::slice::from_ref(&group)).await;
    let old = take(&mut store, &group, 1).await;
    let new = take(&mut store, &group, 2).await;
    let error = store.finish("trading", old, Ending::Done, None, &json!({})).await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded { token, .. } if token == old), "{error}");
    let step = Step {
        name: "promote".to_owned(),
        outcome: StepOutcome::Done,
        after: Duration::ZERO,
        took: None,
        detail: json!({}),
    };
    store.record_step("trading", old, &step).await.unwrap();
    let nobody = Token { nonce: Nonce(3), ..old };
    let error = store.record_step("trading", nobody, &step).await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded { .. }), "{error}");
    let steps = "SELECT epoch::text, step FROM understudy.event WHERE kind = 'step'";
    assert_eq!(postgres.rows(steps).await, [["1", "promote"]]);
    store.finish("trading", new, Ending::Done, None, &json!({})).await.unwrap();
    let status = "SELECT status FROM understudy.failover ORDER BY epoch";
    assert_eq!(postgres.rows(status).await, [["superseded"], ["done"]]);
}

#[tokio::test]
async fn an_alert_of_a_takeover_waits_in_the_store_for_its_node() {
    let postgres = Postgres::start().await;
    let group = group("trading", &["equity"]);
    let groups = std::slice::from_ref(&group);
    let mut bravo = ready(&postgres, groups).await;
    let seen = look(&mut bravo).await;
    let request = automatic(&group, &seen, 1);
    bravo.acquire(&request).await.unwrap();
    let waiting = bravo.undelivered_alerts().await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].id, request.alert.id);
    assert_eq!(waiting[0].severity, "critical");
    assert_eq!(waiting[0].body, json!({ "title": "taking over", "epoch": 1 }));
    assert_eq!(node(&postgres, "charlie", groups).undelivered_alerts().await.unwrap(), []);
    bravo.mark_delivered(&[request.alert.id]).await.unwrap();
    assert_eq!(bravo.undelivered_alerts().await.unwrap(), []);
}
