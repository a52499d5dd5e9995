//! docs/fencing.md as it is written, against a real store.

use std::fs;
use std::process::{Command, Output};
use std::slice::from_ref;

use understudy::adapters::postgres::Store;
use understudy::adapters::postgres::setup::{self, Plan};
use understudy::config::settings::Group;
use understudy::engine::observation::{Nonce, Token, Way};

use super::{look, node, plan, ready, take_by};
use crate::support::postgres::{Postgres, paired};

#[expect(dead_code, reason = "its main is for who copies it")]
#[path = "../../../examples/fenced.rs"]
mod fenced;

/// The block of code under a heading of the page.
fn example(heading: &str, language: &str) -> String {
    let page = fs::read_to_string("docs/fencing.md").unwrap();
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let (_, block) = section.split_once(&format!("\n```{language}\n")).expect("it has an example");
    let (block, _) = block.split_once("```").expect("the example ends");
    block.to_owned()
}

/// A store with a table of orders and the role of an application, a holder, and who may replace it.
struct Scene {
    postgres: Postgres,
    group: Group,
    bravo: Store,
    charlie: Store,
    token: Token,
}

impl Scene {
    async fn new() -> Self {
        let postgres = Postgres::start().await;
        let group = paired("trading", &["equity"]);
        let mut bravo = ready(&postgres, from_ref(&group)).await;
        postgres.create_role("trader").await;
        let application_roles = ["trader".to_owned()];
        let plan = Plan { application_roles: &application_roles, ..plan(from_ref(&group)) };
        setup::setup(&postgres.store(), &plan).await.unwrap();
        postgres
            .sql(
                "CREATE TABLE orders (symbol text NOT NULL, quantity integer NOT NULL);
                 GRANT INSERT, SELECT ON orders TO trader",
            )
            .await;
        let charlie = node(&postgres, "charlie", from_ref(&group));
        let token = take_by(Way::Free, &mut bravo, &group, 7).await;
        Self { postgres, group, bravo, charlie, token }
    }

    async fn taken_over(&mut self) {
        look(&mut self.charlie).await;
        take_by(Way::Silent, &mut self.charlie, &self.group, 8).await;
    }

    async fn orders(&self) -> String {
        self.postgres.value("SELECT count(*) FROM orders").await
    }

    fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("UNDERSTUDY_GROUP", "trading".to_owned()),
            ("UNDERSTUDY_EPOCH", self.token.epoch.to_string()),
            ("UNDERSTUDY_NONCE", uuid(self.token.nonce)),
        ]
    }

    fn database(&self) -> String {
        let directory = self.postgres.socket_directory().display();
        format!("host={directory} port={} user=trader dbname=postgres", self.postgres.port())
    }
}

fn uuid(nonce: Nonce) -> String {
    uuid::Uuid::from_u128(nonce.0).to_string()
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[tokio::test]
async fn the_example_in_sql() {
    let mut scene = Scene::new().await;
    let run = |scene: &Scene| {
        let file = scene.postgres.directory().join("example.sql");
        fs::write(&file, example("SQL", "sql")).unwrap();
        Command::new("/usr/lib/postgresql/15/bin/psql")
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"])
            .args(["-v", &format!("epoch={}", scene.token.epoch)])
            .args(["-v", &format!("nonce={}", uuid(scene.token.nonce))])
            .args(["-d", &scene.database(), "-f"])
            .arg(&file)
            .output()
            .unwrap()
    };
    let before = run(&scene);
    assert!(before.status.success(), "{}", said(&before));
    assert_eq!(scene.orders().await, "1");
    scene.taken_over().await;
    let after = run(&scene);
    assert!(!after.status.success() && said(&after).contains("UF001"), "{}", said(&after));
    assert_eq!(scene.orders().await, "1");
}

#[tokio::test]
async fn the_example_in_python() {
    let mut scene = Scene::new().await;
    let run = |scene: &Scene| {
        let file = scene.postgres.directory().join("example.py");
        fs::write(&file, example("Python", "python")).unwrap();
        // Debian's own, which has Debian's psycopg.
        Command::new("/usr/bin/python3")
            .arg(&file)
            .envs(scene.environment())
            .env("DATABASE", scene.database())
            .output()
            .unwrap()
    };
    let before = run(&scene);
    assert!(before.status.success(), "{}", said(&before));
    assert_eq!(said(&before), "trading-1-1\n");
    assert_eq!(scene.orders().await, "1");
    scene.taken_over().await;
    let after = run(&scene);
    assert_eq!(after.status.code(), Some(1), "{}", said(&after));
    assert_eq!(said(&after), "epoch 1 of trading is over: another node has it\n");
    assert_eq!(scene.orders().await, "1");
}

#[tokio::test]
async fn the_example_in_rust() {
    assert_eq!(
        example("Rust", "rust"),
        fs::read_to_string("examples/fenced.rs").unwrap(),
        "docs/fencing.md shows another program than examples/fenced.rs"
    );
    let mut scene = Scene::new().await;
    let tenure = fenced::Tenure {
        group: "trading".to_owned(),
        epoch: i64::try_from(scene.token.epoch.0).unwrap(),
        nonce: uuid(scene.token.nonce),
    };
    let mut client = scene.postgres.client_as("trader").await;
    fenced::place_order(&mut client, &tenure, "ACME", 100).await.unwrap();
    assert_eq!(scene.orders().await, "1");
    scene.taken_over().await;
    let error = fenced::place_order(&mut client, &tenure, "ACME", 100).await.unwrap_err();
    assert!(fenced::is_superseded(&error), "{error:?}");
    assert_eq!(scene.orders().await, "1");
}

#[tokio::test]
async fn the_example_of_a_role_for_each_node() {
    let postgres = Postgres::start().await;
    let group = paired("trading", &["equity"]);
    ready(&postgres, from_ref(&group)).await;
    let mut a = node(&postgres, "a", from_ref(&group));
    let mut b = node(&postgres, "b", from_ref(&group));
    postgres.sql("CREATE TABLE orders (symbol text NOT NULL, quantity integer NOT NULL)").await;
    postgres.sql(&example("A role for each node", "sql")).await;
    let one = postgres.client_as("trader_a").await;
    let two = postgres.client_as("trader_b").await;
    let write = "INSERT INTO orders VALUES ('ACME', 100)";
    let refused = async |client: &tokio_postgres::Client, statement: &str| {
        let error = client.batch_execute(statement).await.expect_err(statement);
        error.code().map(|code| code.code().to_owned()).as_deref() == Some("UF002")
    };
    // Nobody has it, and then a, b, nobody.
    assert!(refused(&one, write).await && refused(&two, write).await);
    let token = take_by(Way::Free, &mut a, &group, 1).await;
    one.batch_execute(write).await.unwrap();
    assert!(refused(&two, write).await);
    a.hand_over("trading", token, Some("b")).await.unwrap();
    assert!(refused(&one, write).await && refused(&two, write).await);
    take_by(Way::Offer, &mut b, &group, 2).await;
    two.batch_execute(write).await.unwrap();
    for statement in [
        write,
        "UPDATE orders SET quantity = 0",
        "DELETE FROM orders",
        "INSERT INTO orders SELECT * FROM orders",
    ] {
        assert!(refused(&one, statement).await, "{statement}");
    }
    // Nor does pretending to replicate, or to be somebody else, for who is allowed to.
    postgres.sql("ALTER ROLE trader_a SUPERUSER").await;
    let mighty = postgres.client_as("trader_a").await;
    mighty
        .batch_execute("SET session_replication_role = replica; SET ROLE trader_b")
        .await
        .unwrap();
    assert!(refused(&mighty, write).await);
    // Who is of no node is not asked.
    postgres.sql(write).await;
    assert_eq!(postgres.value("SELECT count(*) FROM orders").await, "3");
}

#[tokio::test]
async fn a_snapshot_from_before_the_takeover_does_not_let_a_token_pass() {
    let mut scene = Scene::new().await;
    let check = format!(
        "SELECT understudy.fence_check('trading', {}, '{}')",
        scene.token.epoch,
        uuid(scene.token.nonce)
    );
    let mut sessions = Vec::new();
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let client = scene.postgres.client_as("trader").await;
        let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM orders");
        client.batch_execute(&begin).await.unwrap();
        sessions.push((isolation, client));
    }
    scene.taken_over().await;
    for (isolation, client) in sessions {
        let error = client.batch_execute(&check).await.expect_err(isolation);
        let code = error.code().map(|code| code.code().to_owned());
        assert!(matches!(code.as_deref(), Some("UF001" | "40001")), "{isolation}: {code:?}");
    }
    let renewed = scene.bravo.renew("trading", scene.token).await.unwrap();
    assert_eq!(renewed, understudy::adapters::postgres::paired::Renewal::Refused);
}
