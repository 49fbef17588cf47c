//! What the tests against real servers share: private servers that may be killed and restarted, the real gateway
//! binary as a process, and waiting for a condition instead of for a while.
//!
//! ```no_run
//! use std::time::Duration;
//! use sluicegate_tests::{eventually, gateway::Gateway, servers, unique};
//!
//! # async fn example() -> anyhow::Result<()> {
//! let stream = unique("orders");
//! let redis = servers::redis().await?; // shared: only unique names, never killed
//! let gateway = Gateway::start(&format!(
//!     "pipelines:
//!        orders:
//!          source: {{ http: {{ path: /ingest/orders }} }}
//!          targets: {{ out: {{ redis: {{ url: '{}', stream: {stream} }} }} }}
//! ",
//!     redis.url()
//! ))
//! .await?;
//! let answer = reqwest::Client::new().post(gateway.url("/ingest/orders")).body("{}").send().await?;
//! assert_eq!(answer.status(), 200);
//! let mut client = redis.connect().await?;
//! eventually("the order is in the stream", Duration::from_secs(10), async || {
//!     let length: u64 = redis::cmd("XLEN").arg(&stream).query_async(&mut client).await?;
//!     anyhow::ensure!(length == 1, "XLEN is {length}");
//!     Ok(())
//! })
//! .await;
//! # Ok(())
//! # }
//! ```

pub mod disk;
pub mod gateway;
pub mod port;
pub mod process;
pub mod servers;
pub mod webhook;

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

/// Milliseconds between two looks at a condition.
const POLL_INTERVAL_MS: u64 = 25;
/// Longest single look at a condition.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// Looks at `condition` again and again until it is `Ok`, and returns its value. An `Err` says why it does not hold
/// yet.
///
/// # Panics
/// When it does not hold within `deadline`, with `what` and the last error. A look that takes longer than 15 s is
/// dropped, as if it had failed: what it asks may sit on a connection that broke unnoticed.
pub async fn eventually<T>(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
    let end = Instant::now() + deadline;
    let mut ticks = tokio::time::interval(Duration::from_millis(POLL_INTERVAL_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = "the condition was never looked at".to_owned();
    loop {
        ticks.tick().await;
        match tokio::time::timeout_at(end.min(Instant::now() + LOOK_LIMIT), condition()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(not_yet)) => last = format!("{not_yet:#}"),
            Err(_) => last = format!("a look did not end; before it: {last}"),
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}; last: {last}");
    }
}

/// A name no other test uses: `prefix` and 32 hex digits.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::now_v7().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_looked_at_until_it_holds() {
        let mut looks = 0;
        let value = eventually("three looks", Duration::from_secs(1), async || {
            looks += 1;
            anyhow::ensure!(looks == 3, "look {looks}");
            Ok(looks)
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 1s: pigs fly; last: no wings")]
    async fn a_condition_that_never_holds_fails_with_its_last_reason() {
        eventually("pigs fly", Duration::from_secs(1), async || anyhow::bail!("no wings")).await
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 1s: an answer; last: a look did not end")]
    async fn a_look_that_hangs_fails_too() {
        eventually("an answer", Duration::from_secs(1), async || std::future::pending::<anyhow::Result<()>>().await)
            .await;
    }
}
