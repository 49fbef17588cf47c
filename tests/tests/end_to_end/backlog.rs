//! A long backlog for a dead target costs neither memory nor the rate at which messages are accepted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::webhook::Webhook;
use tokio::task::JoinSet;

use crate::clients::in_inbox;

const MESSAGES: usize = 100_000;
/// Messages of one request: what is measured is the gateway, not the client.
const BATCH: usize = 250;
const CLIENTS: usize = 4;
const BODY_BYTES: usize = 256;
/// Accepted before anything is measured: caches fill, files grow.
const WARM_UP: usize = 10_000;
/// Messages of which the rate is measured at once.
const WINDOW: usize = 5_000;
/// Windows at the beginning and at the end that are compared.
const WINDOWS: usize = 5;
/// Growth of the process that is no sign of a backlog in memory: the bodies alone have 25 MiB.
const GROWTH_LIMIT_BYTES: u64 = 64 << 20;
/// The least share of its rate at the beginning that the gateway must have at the end.
const LEAST_SHARE: f64 = 0.8;
/// The second measurement judges: neighbours on a small machine may spoil one.
const TRIES: usize = 2;
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

struct Measured {
    first_per_second: f64,
    last_per_second: f64,
    grown_bytes: u64,
}

fn batch(first: usize) -> String {
    let event = |number: usize| {
        json!({
            "specversion": "1.0", "id": format!("m-{number}"), "source": "/test", "type": "t",
            "data": { "number": number, "padding": "x".repeat(BODY_BYTES) },
        })
    };
    serde_json::Value::from((first..first + BATCH).map(event).collect::<Vec<_>>()).to_string()
}

/// Posts `first..last`, from several connections; returns when each batch was accepted.
async fn post(gateway: &Gateway, first: usize, last: usize) -> Result<Vec<Instant>> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (url, http) = (gateway.url("/ingest/orders"), http_client()?);
        clients.spawn(async move {
            let mut accepted = Vec::new();
            for first in (first..last).step_by(BATCH).skip(client).step_by(CLIENTS) {
                let request = http.post(&url).header("content-type", "application/cloudevents-batch+json");
                let answer = request.body(batch(first)).timeout(REQUEST_LIMIT).send().await?;
                ensure!(answer.status() == 202, "the batch at {first}: {}", answer.status());
                accepted.push(Instant::now());
            }
            Ok(accepted)
        });
    }
    let mut accepted = Vec::new();
    while let Some(ended) = clients.join_next().await {
        accepted.extend(ended??);
    }
    accepted.sort_unstable();
    Ok(accepted)
}

/// Messages a second in each window.
fn rates(began: Instant, accepted: &[Instant]) -> Vec<f64> {
    let ends: Vec<Instant> =
        accepted.chunks_exact(WINDOW / BATCH).filter_map(|window| window.last().copied()).collect();
    let starts = std::iter::once(began).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| WINDOW as f64 / end.duration_since(start).as_secs_f64()).collect()
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

async fn measure() -> Result<Measured> {
    let mut hook = Webhook::start().await?;
    hook.kill().await;
    let config = format!(
        "pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders, respond: accepted }} }}
    targets: {{ hook: {{ http: {{ url: '{}' }} }} }}
    retry: {{ max_attempts: 1000 }}
",
        hook.url()
    );
    let gateway = Gateway::start_unready(&config).await?;
    post(&gateway, 0, WARM_UP).await?;
    let (before, began) = (gateway.resident_bytes()?, Instant::now());
    let accepted = post(&gateway, WARM_UP, MESSAGES).await?;
    let after = gateway.resident_bytes()?;
    let rates = rates(began, &accepted);
    println!("messages a second: {rates:.0?}; resident: {before} bytes, then {after}");
    let waiting = in_inbox(&gateway, None).await?;
    ensure!(waiting == MESSAGES as u64 && hook.received().is_empty(), "{waiting} wait");
    Ok(Measured {
        first_per_second: median(&rates[..WINDOWS]),
        last_per_second: median(&rates[rates.len() - WINDOWS..]),
        grown_bytes: after.saturating_sub(before),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_grows_no_memory_and_slows_no_admission() -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let Measured { first_per_second, last_per_second, grown_bytes } = measure().await?;
        let is_flat = grown_bytes < GROWTH_LIMIT_BYTES;
        let keeps_up = last_per_second >= first_per_second * LEAST_SHARE;
        if is_flat && keeps_up {
            return Ok(());
        }
        ensure!(
            tries < TRIES,
            "{first_per_second:.0} messages a second at first, {last_per_second:.0} at last; {grown_bytes} bytes grown"
        );
    }
}
