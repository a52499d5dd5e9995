//! docs/fencing.md in Rust: a transaction that cannot commit once another node has the group.

use std::env;
use std::error::Error;

use tokio_postgres::{Client, NoTls, Transaction};

/// What this process was started with: its token.
pub struct Tenure {
    /// Whose bots it runs.
    pub group: String,
    /// Number of the tenure.
    pub epoch: i64,
    /// Its identity.
    pub nonce: String,
}

impl Tenure {
    /// Read once, at the start.
    pub fn from_environment() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            group: env::var("UNDERSTUDY_GROUP")?,
            epoch: env::var("UNDERSTUDY_EPOCH")?.parse()?,
            nonce: env::var("UNDERSTUDY_NONCE")?,
        })
    }

    /// Begins a transaction, and checks the token before anything else is done in it.
    pub async fn begin<'a>(
        &self,
        client: &'a mut Client,
    ) -> Result<Transaction<'a>, tokio_postgres::Error> {
        let transaction = client.transaction().await?;
        let check = "SELECT understudy.fence_check($1, $2, $3::text::uuid)";
        transaction.execute(check, &[&self.group, &self.epoch, &self.nonce]).await?;
        Ok(transaction)
    }
}

/// Whether this process is over: end it, as every further attempt ends the same.
pub fn is_superseded(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == "UF001")
}

/// An order that only the copy with the current token can place.
pub async fn place_order(
    client: &mut Client,
    tenure: &Tenure,
    symbol: &str,
    quantity: i32,
) -> Result<(), tokio_postgres::Error> {
    let transaction = tenure.begin(client).await?;
    let insert = "INSERT INTO orders (symbol, quantity) VALUES ($1, $2)";
    transaction.execute(insert, &[&symbol, &quantity]).await?;
    transaction.commit().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tenure = Tenure::from_environment()?;
    let (mut client, connection) = tokio_postgres::connect(&env::var("DATABASE")?, NoTls).await?;
    tokio::spawn(connection);
    match place_order(&mut client, &tenure, "ACME", 100).await {
        Err(error) if is_superseded(&error) => Err("another node has the group".into()),
        outcome => Ok(outcome?),
    }
}
