//! Private servers: real RabbitMQ, Redis and PostgreSQL as processes of the test, each on a free port and in a
//! temporary folder.
//!
//! [`rabbitmq`], [`redis`] and [`postgres`] give the one shared by all tests: never kill it, use unique names. It is the
//! one `tests/run` started ([`AMQP_URL`] and its siblings in the environment), or else one of this test process.
//! [`RabbitMq::start`], [`Redis::start`] and [`Postgres::start`] give one of the test's own, to be killed, restarted and
//! paused at will.

mod postgres_server;
mod rabbitmq_server;
mod redis_server;
mod server;

use tokio::sync::OnceCell;

pub use postgres_server::{Certificate, Postgres};
pub use rabbitmq_server::{RabbitMq, connect as connect_to_rabbitmq};
pub use redis_server::Redis;

use anyhow::Result;

/// Environment variable with the URL of the shared RabbitMQ.
pub const AMQP_URL: &str = "SLUICEGATE_TEST_AMQP_URL";
/// Environment variable with the URL of the shared Redis.
pub const REDIS_URL: &str = "SLUICEGATE_TEST_REDIS_URL";
/// Environment variable with the URL of the shared PostgreSQL.
pub const POSTGRES_URL: &str = "SLUICEGATE_TEST_POSTGRES_URL";

/// The shared RabbitMQ.
///
/// # Errors
/// When it does not start, with its log.
pub async fn rabbitmq() -> Result<&'static RabbitMq> {
    static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
    SHARED
        .get_or_try_init(async || match std::env::var(AMQP_URL) {
            Ok(url) => Ok(RabbitMq::running_elsewhere(url)),
            Err(_) => RabbitMq::start().await,
        })
        .await
}

/// The shared Redis; it appends to disk before it answers.
///
/// # Errors
/// When it does not start, with its log.
pub async fn redis() -> Result<&'static Redis> {
    static SHARED: OnceCell<Redis> = OnceCell::const_new();
    SHARED
        .get_or_try_init(async || match std::env::var(REDIS_URL) {
            Ok(url) => Ok(Redis::running_elsewhere(url)),
            Err(_) => Redis::start().await,
        })
        .await
}

/// The shared PostgreSQL.
///
/// # Errors
/// When it does not start, with its log.
pub async fn postgres() -> Result<&'static Postgres> {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED
        .get_or_try_init(async || match std::env::var(POSTGRES_URL) {
            Ok(url) => Ok(Postgres::running_elsewhere(url)),
            Err(_) => Postgres::start().await,
        })
        .await
}
