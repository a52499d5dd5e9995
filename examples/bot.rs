//! A small bot, as the ones that understudy fails over: for the demo and for tests.
//!
//! It beats in its row of `bot_status`, and acts: each act is a line `NODE EPOCH NANOSECONDS` in a
//! file, on a clock that all processes of the machine share, and an increment in Redis. It goes on
//! acting while its database is away, as the real ones do.

#![expect(clippy::print_stderr, reason = "it has nothing else to say it to")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

/// How long the database or Redis may take for anything.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// As the real ones do it: whoever beats last writes the whole row, its own status included.
const BEAT: &str = "INSERT INTO bot_status
    (id, bot_name, status, last_heartbeat, account_equity, buying_power, cash, portfolio_value,
     positions_count, total_trades, winning_trades, daily_pnl, total_pnl, win_rate, uptime_seconds,
     cpu_percent, memory_mb, version, error_message, created_at, updated_at)
    VALUES ($1::text, $1::text, $2::text, NOW(), 100000, 200000, 50000, 100000,
     3, 10, 6, 12.5, 250, 0.6, $3::int, 1.5, 64, '1.0', NULL, NOW(), NOW())
    ON CONFLICT (bot_name) DO UPDATE SET
        status = EXCLUDED.status, last_heartbeat = NOW(),
        account_equity = EXCLUDED.account_equity, buying_power = EXCLUDED.buying_power,
        cash = EXCLUDED.cash, portfolio_value = EXCLUDED.portfolio_value,
        positions_count = EXCLUDED.positions_count, total_trades = EXCLUDED.total_trades,
        winning_trades = EXCLUDED.winning_trades, daily_pnl = EXCLUDED.daily_pnl,
        total_pnl = EXCLUDED.total_pnl, win_rate = EXCLUDED.win_rate,
        uptime_seconds = EXCLUDED.uptime_seconds, cpu_percent = EXCLUDED.cpu_percent,
        memory_mb = EXCLUDED.memory_mb, version = EXCLUDED.version,
        error_message = EXCLUDED.error_message, updated_at = NOW()";

/// A bot that beats and acts until SIGTERM.
#[derive(Parser)]
struct Bot {
    /// Its name in the table.
    name: String,
    /// How to reach Postgres, as `host=… dbname=…` or as an address.
    #[arg(env = "BOT_DSN", hide_env_values = true)]
    dsn: String,
    /// What it writes into its status.
    #[arg(long, default_value = "PRIMARY")]
    status: String,
    /// Time between two heartbeats.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Time between two acts.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    act_every: Duration,
    /// File to which it appends a line for each act.
    #[arg(long)]
    activity: Option<PathBuf>,
    /// Address of a Redis in which each act increments a key, as `redis://127.0.0.1`.
    #[arg(long, env = "BOT_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// That key.
    #[arg(long, default_value = "acts")]
    redis_key: String,
    /// The node it runs on. Default: what understudy says, or the name of the host.
    #[arg(long)]
    node: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let bot = Bot::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = act_for_ever(&bot) => outcome,
        () = beat_for_ever(&bot) => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

async fn beat_for_ever(bot: &Bot) {
    let mut uptime = Duration::ZERO;
    loop {
        // A connection for as long as it works.
        if let Err(error) = beat_while_connected(bot, &mut uptime).await {
            eprintln!("{}: no heartbeat: {error:#}", bot.name);
        }
        sleep(bot.interval.min(Duration::from_secs(1))).await;
    }
}

async fn beat_while_connected(bot: &Bot, uptime: &mut Duration) -> anyhow::Result<()> {
    let (client, connection) =
        timeout(CALL_TIMEOUT, tokio_postgres::connect(&bot.dsn, NoTls)).await??;
    tokio::spawn(connection);
    loop {
        let seconds = i32::try_from(uptime.as_secs())?;
        timeout(CALL_TIMEOUT, client.execute(BEAT, &[&bot.name, &bot.status, &seconds])).await??;
        sleep(bot.interval).await;
        *uptime += bot.interval;
    }
}

async fn act_for_ever(bot: &Bot) -> anyhow::Result<()> {
    let variable = |name| std::env::var(name).ok();
    let host = || nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let node = bot.node.clone().or_else(|| variable("UNDERSTUDY_NODE")).unwrap_or_else(host);
    let epoch = variable("UNDERSTUDY_EPOCH").unwrap_or_else(|| "0".to_owned());
    let mut file = match &bot.activity {
        Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    let mut redis = None;
    loop {
        if let Some(file) = &mut file {
            note(file, &node, &epoch)?;
        }
        if let Some(address) = &bot.redis
            && let Err(error) = increment(&mut redis, address, &bot.redis_key).await
        {
            eprintln!("{}: no increment: {error:#}", bot.name);
            redis = None;
        }
        sleep(bot.act_every).await;
    }
}

/// One write each, so that lines of several bots do not mix.
fn note(file: &mut File, node: &str, epoch: &str) -> anyhow::Result<()> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_nanos();
    file.write_all(format!("{node} {epoch} {now}\n").as_bytes())?;
    Ok(())
}

async fn increment(
    connection: &mut Option<redis::aio::MultiplexedConnection>,
    address: &str,
    key: &str,
) -> redis::RedisResult<()> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => redis::Client::open(address)?.get_multiplexed_async_connection().await?,
    };
    redis::cmd("INCR").arg(key).exec_async(&mut open).await?;
    *connection = Some(open);
    Ok(())
}
