//! A store that was restored from a backup: it has forgotten tenures, and grants their epochs again.

use std::process::Command;
use std::slice::from_ref;
use std::time::Duration;

use understudy::adapters::postgres::paired::{Renewal, Report};
use understudy::adapters::postgres::tenure::AcquireOutcome;
use understudy::engine::observation::{Epoch, Nonce, Way};

use super::{by, look, node, ready, take_by};
use crate::support::postgres::{Postgres, paired};

/// A backup of everything, and the way back to it.
struct Backup(std::path::PathBuf);

impl Backup {
    fn take(postgres: &Postgres) -> Self {
        let file = postgres.directory().join("backup.sql");
        tool(postgres, "pg_dump", &["--clean", "--if-exists", "-f", &file.display().to_string()]);
        Self(file)
    }

    fn restore(&self, postgres: &Postgres) {
        let file = self.0.display().to_string();
        tool(postgres, "psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-f", &file]);
    }
}

fn tool(postgres: &Postgres, program: &str, arguments: &[&str]) {
    let output = Command::new(format!("/usr/lib/postgresql/15/bin/{program}"))
        .args(["-U", "postgres", "-d", "postgres", "-p", &postgres.port().to_string(), "-h"])
        .arg(postgres.socket_directory())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn is_current(postgres: &Postgres, epoch: Epoch, nonce: Nonce) -> bool {
    let check = format!("SELECT understudy.fence_check('trading', {epoch}, '{nonce}')");
    postgres.client().await.batch_execute(&check).await.is_ok()
}

#[tokio::test]
async fn a_tenure_that_the_store_forgot_is_over_even_if_its_epoch_is_granted_again() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let old = take_by(Way::Free, &mut bravo, &group, 1).await;
    let backup = Backup::take(&postgres);
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let forgotten = take_by(Way::Silent, &mut charlie, &group, 2).await;
    assert!(is_current(&postgres, forgotten.epoch, forgotten.nonce).await);

    backup.restore(&postgres);
    assert_eq!(charlie.renew("trading", forgotten).await.unwrap(), Renewal::Refused);
    assert_eq!(charlie.hand_over("trading", forgotten, None).await.unwrap(), None);
    assert!(!is_current(&postgres, forgotten.epoch, forgotten.nonce).await);
    // The store has gone back to the tenure before; that one is what it says.
    assert!(matches!(bravo.renew("trading", old).await.unwrap(), Renewal::Granted { .. }));

    // A node that knows of nothing is granted the same epoch, with another nonce.
    let mut delta = node(&postgres, "delta", from_ref(&group));
    let again = take_by(Way::Silent, &mut delta, &group, 3).await;
    assert_eq!(again.epoch, forgotten.epoch);
    assert_eq!(charlie.renew("trading", forgotten).await.unwrap(), Renewal::Refused);
    assert_eq!(delta.renew("trading", again).await.unwrap(), Renewal::Granted { seq: 1 });
    assert!(!is_current(&postgres, forgotten.epoch, forgotten.nonce).await);
    assert!(is_current(&postgres, again.epoch, again.nonce).await);
}

#[tokio::test]
async fn nodes_that_remember_lift_the_epochs_above_what_was_forgotten() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    take_by(Way::Free, &mut bravo, &group, 1).await;
    let backup = Backup::take(&postgres);
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let forgotten = take_by(Way::Silent, &mut charlie, &group, 2).await;
    backup.restore(&postgres);
    let report = Report {
        group: "trading",
        max_epoch: forgotten.epoch,
        ready: true,
        problems: &[],
        prepared_for: None,
        window: Duration::from_secs(60),
    };
    charlie.report_members(Nonce(7), 1, from_ref(&report)).await.unwrap();
    let mut delta = node(&postgres, "delta", from_ref(&group));
    let again = take_by(Way::Silent, &mut delta, &group, 3).await;
    assert!(again.epoch > forgotten.epoch, "{again:?}");
}

#[tokio::test]
async fn an_offer_and_a_renewal_from_before_the_restore_find_nothing() {
    let postgres = Postgres::start().await;
    let mut group = paired("trading", &["equity"]);
    group.cooldown = Duration::ZERO;
    let mut bravo = ready(&postgres, from_ref(&group)).await;
    let backup = Backup::take(&postgres);
    let token = take_by(Way::Free, &mut bravo, &group, 1).await;
    bravo.hand_over("trading", token, Some("charlie")).await.unwrap();
    let mut charlie = node(&postgres, "charlie", from_ref(&group));
    let seen = look(&mut charlie).await;
    backup.restore(&postgres);
    let offer = charlie.acquire(&by(Way::Offer, &group, &seen, 2)).await.unwrap();
    assert!(matches!(offer, AcquireOutcome::Changed { .. }), "{offer}");
    assert_eq!(bravo.renew("trading", token).await.unwrap(), Renewal::Refused);
}
