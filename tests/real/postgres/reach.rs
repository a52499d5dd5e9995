//! Reaching a server, and noticing that it cannot be reached.

use std::time::Duration;

use understudy::adapters::postgres::{ErrorKind, Fault, Store, StoreError};
use understudy::config::secret::Secret;
use understudy::config::settings::{self, Host, Tls};
use understudy::time::BootTime;

use super::{automatic, look, open, ready};
use crate::support::postgres::{PgBouncer, Postgres, eventually, group};

/// How much longer than its deadline a call may take on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_frozen_server_is_given_up_on_in_time() {
    let mut postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    ready(&postgres, &groups).await;
    let limit = Duration::from_millis(500);
    let settings = settings::Store { connect_timeout: limit, ..postgres.store_as("understudy") };
    let mut store = Store::new(&settings, "bravo", limit, &groups).unwrap();
    eventually("a first look", async || store.observe().await.is_ok()).await;
    let seen = look(&mut store).await;
    postgres.freeze();

    // With the connection that is open, and then with a new one.
    for expected in ["no answer", "no login"] {
        let began = BootTime::now();
        let error = store.observe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let said = error.fault().map(ToString::to_string).unwrap_or_default();
        assert!(said.contains(expected), "{said}");
        assert!(BootTime::now().since(began) < limit * 2 + SLACK);
    }
    let error = store.acquire(&automatic(&groups[0], &seen, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);

    postgres.thaw();
    eventually("the server again", async || store.observe().await.is_ok()).await;
    assert_ne!(look(&mut store).await.store, seen.store);
}

#[tokio::test]
async fn a_pooler_whose_server_is_gone_is_given_up_on_in_time() {
    let mut postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    ready(&postgres, &groups).await;
    let pooler = PgBouncer::start(&postgres, &["understudy"]).await;
    let limit = Duration::from_millis(500);
    let settings = settings::Store {
        hosts: vec![pooler.host()],
        connect_timeout: limit,
        ..postgres.store_as("understudy")
    };
    let mut store = Store::new(&settings, "bravo", limit, &groups).unwrap();
    eventually("a first look", async || store.observe().await.is_ok()).await;
    postgres.kill();
    for _ in 0..3 {
        let began = BootTime::now();
        let error = store.observe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}: {:?}", error.fault());
        assert!(BootTime::now().since(began) < limit * 2 + SLACK);
    }
    postgres.resume().await;
    eventually("the server again", async || store.observe().await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_is_down_or_gone_is_unreachable_and_not_misconfigured() {
    let mut postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    look(&mut store).await;
    postgres.kill();
    for _ in 0..2 {
        let error = store.observe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}: {:?}", error.fault());
    }
    postgres.resume().await;
    look(&mut store).await;
}

#[tokio::test]
async fn a_session_that_an_administrator_ends_is_replaced() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    let before = look(&mut store).await.store;
    postgres
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'understudy'")
        .await;
    let _ = store.observe().await;
    assert_ne!(look(&mut store).await.store, before);
}

#[tokio::test]
async fn a_wrong_password_is_a_misconfiguration_and_stays_secret() {
    let postgres = Postgres::options().scram().start().await;
    let groups = [group("trading", &["equity"])];
    postgres.create_role("understudy").await;
    let settings = settings::Store {
        password: Some(Secret::new("hunter2".to_owned())),
        ..postgres.store_as("understudy")
    };
    let error = open(&settings, "bravo", &groups).observe().await.unwrap_err();
    assert!(error.is_misconfiguration(), "{error}");
    assert_eq!(error.sqlstate(), Some("28P01"));
    let everything = format!("{error} {error:?} {}", error.fault().unwrap());
    assert!(!everything.contains("hunter2"), "{everything}");
    assert!(everything.contains("password authentication failed"), "{everything}");

    let none = settings::Store { password: None, ..settings };
    let error = open(&none, "bravo", &groups).observe().await.unwrap_err();
    assert!(error.is_misconfiguration(), "{error}: {:?}", error.fault());

    let mut right = open(&postgres.store_as("understudy"), "bravo", &groups);
    assert!(matches!(right.observe().await, Err(StoreError::NotSetUp { .. })));
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_a_misconfiguration() {
    let postgres = Postgres::start().await;
    let settings = settings::Store { database: "typo".to_owned(), ..postgres.store() };
    let error = open(&settings, "bravo", &[]).observe().await.unwrap_err();
    assert_eq!((error.sqlstate(), error.kind()), (Some("3D000"), ErrorKind::Misconfigured));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_so() {
    let postgres = Postgres::start().await;
    let hosts = vec![Host::Tcp("db.invalid".to_owned(), 5432)];
    let settings = settings::Store { hosts, ..postgres.store() };
    let error = open(&settings, "bravo", &[]).observe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let said = error.fault().unwrap().to_string();
    assert!(said.contains("db.invalid:5432: the name does not resolve"), "{said}");
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    ready(&postgres, &groups).await;
    let socket = Host::Unix(postgres.socket_directory().to_owned(), postgres.port());
    let tls = Tls::Verify { ca_file: None };
    for tls in [Tls::Off, tls] {
        let hosts = vec![socket.clone()];
        let settings = settings::Store { hosts, tls, ..postgres.store_as("understudy") };
        match Store::new(&settings, "bravo", super::REPLY_TIMEOUT, &groups) {
            Ok(mut store) => drop(look(&mut store).await),
            // A machine without certificates of its own.
            Err(StoreError::NoCertificates { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn of_several_servers_the_writable_one_is_used() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    ready(&postgres, &groups).await;
    let standby = postgres.standby().await;
    // One that accepts connections and never says a word, one where nobody listens.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Host::Tcp("127.0.0.1".to_owned(), silent.local_addr().unwrap().port());
    let closed = Host::Tcp("127.0.0.1".to_owned(), 1);
    let settings = settings::Store {
        hosts: vec![silent, closed, standby.host(), postgres.host()],
        connect_timeout: Duration::from_secs(8),
        ..postgres.store_as("understudy")
    };
    let mut store = open(&settings, "bravo", &groups);
    let seen = look(&mut store).await;
    assert!(seen.store.0.ends_with(&format!("127.0.0.1:{}", postgres.port())), "{}", seen.store.0);

    // When the roles change, so does the server, without a restart of anything of ours.
    drop(postgres);
    standby.promote().await;
    eventually("the promoted server", async || store.observe().await.is_ok()).await;
    assert!(look(&mut store).await.store.0.ends_with(&standby.port().to_string()));
}

#[tokio::test]
async fn a_certificate_must_be_signed_by_the_authority_and_bear_the_name() {
    let postgres = Postgres::options().scram().start().await;
    let groups = [group("trading", &["equity"])];
    ready(&postgres, &groups).await;
    let authority = postgres.enable_tls("localhost").await;
    let with = |host: &str, ca_file: Option<std::path::PathBuf>| settings::Store {
        hosts: vec![Host::Tcp(host.to_owned(), postgres.port())],
        tls: Tls::Verify { ca_file },
        ..postgres.store_as("understudy")
    };
    let mut store = open(&with("localhost", Some(authority.clone())), "bravo", &groups);
    look(&mut store).await;
    let encrypted = "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                     WHERE a.usename = 'understudy'";
    assert_eq!(postgres.value(encrypted).await, "t");

    let wrong_name = open(&with("127.0.0.1", Some(authority)), "bravo", &groups).observe().await;
    let error = wrong_name.unwrap_err();
    assert!(error.is_misconfiguration(), "{error}: {:?}", error.fault());

    let other = Postgres::start().await;
    let other_authority = other.enable_tls("localhost").await;
    let error = open(&with("localhost", Some(other_authority)), "bravo", &groups)
        .observe()
        .await
        .unwrap_err();
    assert!(error.is_misconfiguration(), "{error}: {:?}", error.fault());
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let (postgres, other) = (Postgres::start().await, Postgres::start().await);
    let authority = other.enable_tls("localhost").await;
    let settings = settings::Store {
        hosts: vec![Host::Tcp("localhost".to_owned(), postgres.port())],
        tls: Tls::Verify { ca_file: Some(authority) },
        ..postgres.store()
    };
    let error = open(&settings, "bravo", &[]).observe().await.unwrap_err();
    let said = error.fault().map(ToString::to_string).unwrap_or_default();
    assert!(said.contains("does not support TLS"), "{said}");
    assert!(error.is_misconfiguration(), "{said}");
}

#[test]
fn a_file_without_certificates_is_no_authority() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (file, expected) in
        [(empty, "no certificate authority"), (directory.path().join("no"), "failed to read")]
    {
        let settings = settings::Store {
            hosts: Vec::new(),
            database: String::new(),
            user: String::new(),
            password: None,
            tls: Tls::Verify { ca_file: Some(file) },
            schema: "understudy".to_owned(),
            connect_timeout: Duration::from_secs(1),
        };
        let error = Store::new(&settings, "bravo", Duration::from_secs(1), &[]).err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn rights_that_were_taken_away_are_a_misconfiguration() {
    let postgres = Postgres::start().await;
    let groups = [group("trading", &["equity"])];
    let mut store = ready(&postgres, &groups).await;
    let seen = look(&mut store).await;
    postgres.sql("REVOKE UPDATE ON understudy.lease FROM understudy").await;
    let error = store.acquire(&automatic(&groups[0], &seen, 1)).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.kind()), (Some("42501"), ErrorKind::Misconfigured));
    assert!(matches!(error.fault(), Some(Fault::Query { .. })));
    // The session survives a refusal.
    assert_eq!(look(&mut store).await.store, seen.store);
}
