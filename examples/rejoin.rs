//! What a returning primary does with its Redis, by hand: `rejoin GROUP ADDRESS MASTER COPIES`.
//!
//! The tests kill it at each point, and start it again.

#![expect(clippy::print_stdout, reason = "a person runs it")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use understudy::adapters::redis::{Redis, Rejoin};
use understudy::config::settings::{self, Host, Tls};

/// Makes a Redis a replica of another one, after what it alone has was copied.
#[derive(Parser)]
struct Arguments {
    /// Whose Redis it is, for the names of the copies.
    group: String,
    /// The Redis that has to follow, as HOST:PORT.
    address: String,
    /// The one that it has to follow, as HOST:PORT.
    master: String,
    /// Directory of the copies.
    copies: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let upstream = host(&arguments.master)?;
    let mut redis = Redis::new(&settings::Redis {
        address: host(&arguments.address)?,
        primary: None,
        nodes: BTreeMap::new(),
        user: None,
        password: None,
        tls: Tls::Off,
        max_lag_bytes: 0,
        max_link_down: Duration::ZERO,
        allow_empty: false,
        call_timeout: Duration::from_secs(1),
    })?;
    let request = Rejoin {
        group: &arguments.group,
        upstream: &upstream,
        copies: &arguments.copies,
        stall_max: None,
    };
    let rejoined = redis.rejoin(&request, |progress| println!("{progress}")).await?;
    println!("{rejoined:?}");
    Ok(())
}

fn host(text: &str) -> anyhow::Result<Host> {
    let (host, port) = text.rsplit_once(':').with_context(|| format!("no port in {text}"))?;
    Ok(Host::Tcp(host.to_owned(), port.parse()?))
}
