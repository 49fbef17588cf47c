//! What the suite asks of a system: settings for both ends of a pipeline, and a way to put in and to look.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::Gateway;

use crate::sample::Sample;

/// How long the slowest step of the suite may take on a busy machine of two cores.
pub const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);

/// A system that a pipeline reads from and writes to.
pub trait System: Sized {
    /// On the shared servers, with names of its own.
    async fn shared() -> Result<Self>;

    /// On servers of its own, which [`disturb`](Self::disturb) kills.
    async fn own() -> Result<Self>;

    /// Settings of the pipeline's source, as YAML on one line.
    fn source(&self) -> String;

    /// Settings of the pipeline's target, as YAML on one line.
    fn target(&self) -> String;

    /// Headers whose values are all that this system can carry.
    fn telling_headers() -> Vec<(String, Vec<u8>)>;

    /// Puts messages in, those of one key in order, and returns when the system has taken each. While the system is
    /// down it waits and tries again, so that some may then be put in twice. `ingest` is the URL of the gateway's
    /// `/ingest/conformance`.
    async fn produce(&self, ingest: &str, samples: &[Sample]) -> Result<()>;

    /// Everything that has arrived so far, in order, repeats kept.
    async fn arrived(&self) -> Result<Vec<Sample>>;

    /// Interrupts what connects the gateway with the system, and mends it.
    async fn disturb(&self, gateway: &mut Gateway) -> Result<()>;
}

/// Waits until at least `count` different messages have arrived; returns everything.
pub async fn await_arrived<S: System>(system: &S, count: usize) -> Vec<Sample> {
    eventually(&format!("{count} messages arrive"), ARRIVAL_LIMIT, async || {
        let arrived = system.arrived().await?;
        let different: std::collections::HashSet<_> = arrived.iter().map(|sample| &sample.id).collect();
        ensure!(different.len() >= count, "{} different messages of {} arrived", different.len(), arrived.len());
        Ok(arrived)
    })
    .await
}
