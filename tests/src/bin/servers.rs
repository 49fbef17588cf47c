//! Starts a private RabbitMQ, Redis and PostgreSQL, prints their URLs as `NAME=VALUE` lines and then `ready`, and stops
//! them at the end of its standard input.
//!
//!     sleep infinity | cargo run -p sluicegate-tests --bin servers

use std::io::{Read, Write};

use anyhow::Result;
use sluicegate_tests::servers::{AMQP_URL, POSTGRES_URL, Postgres, REDIS_URL, RabbitMq, Redis};

#[tokio::main]
async fn main() -> Result<()> {
    let (rabbitmq, redis, postgres) = tokio::try_join!(RabbitMq::start(), Redis::start(), Postgres::start())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{AMQP_URL}={}", rabbitmq.url())?;
    writeln!(out, "{REDIS_URL}={}", redis.url())?;
    writeln!(out, "{POSTGRES_URL}={}", postgres.url())?;
    writeln!(out, "ready")?;
    out.flush()?;
    drop(out);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
