//! What a pipeline has claimed from a queue when its gateway is killed: another gateway, or the same one started again,
//! carries it within the lease's term, and nothing is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::webhook::{Received, Webhook};
use sluicegate_tests::{eventually, servers};

use crate::clients::{ARRIVAL_LIMIT, RECOVERY_LIMIT};
use crate::posting::{Posting, await_all, number};

/// How long a gateway that is not seen keeps what it has claimed.
const LEASE_TERM: Duration = Duration::from_secs(10);
/// Gateways look for dead ones every three seconds; the rest is for a busy machine.
const LEASE_SLACK: Duration = Duration::from_secs(8);
/// Messages that each gateway has under way at most.
const IN_FLIGHT: usize = 48;
/// Which gateway has sent a request.
const SENDER: &str = "x-sender";

/// A queue, carried to a webhook by the gateway of that name.
fn carried(store: Option<&str>, hook: &str, name: &str) -> String {
    let store = store.map(|url| format!("store: '{url}'\n")).unwrap_or_default();
    format!(
        "{store}queues: {{ orders: {{}} }}
pipelines:
  carry:
    source: {{ queue: orders }}
    targets: {{ hook: {{ http: {{ url: '{hook}', headers: {{ {SENDER}: {name} }}, max_concurrent: {IN_FLIGHT}, timeout: 60s }} }} }}
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
    max_in_flight: {IN_FLIGHT}
"
    )
}

/// Publishes numbers to the queue through these gateways in turns.
fn publish(gateways: &[&Gateway]) -> Result<Posting> {
    let urls = gateways.iter().map(|gateway| gateway.url("/api/v1/mq/publish")).collect();
    let compose = |request: reqwest::RequestBuilder, number: usize| {
        request.body(json!({ "queue": "orders", "data": { "number": number } }).to_string())
    };
    Posting::start_with(urls, 8, Arc::new(compose))
}

/// Of the requests from `since` on that the gateway of that name sent, the numbers of those for which `is_wanted`.
fn sent_by(hook: &Webhook, name: &str, since: usize, is_wanted: impl Fn(&Received) -> bool) -> Result<BTreeSet<usize>> {
    let is_from = |request: &Received| request.headers.get(SENDER).is_some_and(|sender| sender == name);
    let requests = hook.received().into_iter().skip(since).filter(|request| is_from(request) && is_wanted(request));
    requests.map(|request| number(&request.body)).collect()
}

/// Lets the webhook hold its answers until each of these gateways has messages in flight; returns from which request on.
async fn hold(hook: &Webhook, names: &[&str]) -> usize {
    hook.hold();
    let since = hook.received().len();
    eventually("each gateway has messages in flight", ARRIVAL_LIMIT, async || {
        for name in names {
            let count = sent_by(hook, name, since, |_| true)?.len();
            ensure!(count >= IN_FLIGHT / 4, "gateway {name} has {count}");
        }
        Ok(())
    })
    .await;
    // Any moment from here on.
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..200))).await;
    since
}

/// Waits until the gateway of that name has carried all of `claimed`, with requests from `since` on.
async fn await_carried(hook: &Webhook, name: &str, since: usize, claimed: &BTreeSet<usize>, limit: Duration) {
    let began = Instant::now();
    eventually("what the killed gateway had claimed is carried", limit, async || {
        let carried = sent_by(hook, name, since, Received::is_delivered)?;
        let missing = claimed.difference(&carried).count();
        ensure!(missing == 0, "{missing} of {} are missing", claimed.len());
        Ok(())
    })
    .await;
    println!("{} claimed messages were carried by {name} after {:?}", claimed.len(), began.elapsed());
}

async fn await_empty(gateway: &Gateway) {
    eventually("the group has settled everything", RECOVERY_LIMIT, async || {
        let answer = http_client()?.get(gateway.url("/api/v1/mq/subscriptions/orders:carry")).send().await?;
        let group: Value = serde_json::from_str(&answer.error_for_status()?.text().await?)?;
        ensure!(group["lag"] == 0 && group["pending"] == 0 && group["lost"] == 0, "{group}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_carries_what_a_killed_one_had_claimed_within_the_lease() -> Result<()> {
    const NAMES: [&str; 2] = ["first", "second"];
    let database = servers::postgres().await?.new_database().await?;
    let hook = Webhook::start().await?;
    let config = |name| carried(Some(&database), &hook.url(), name);
    let (first, second) = (config(NAMES[0]), config(NAMES[1]));
    let (first, second) = tokio::try_join!(Gateway::start(&first), Gateway::start(&second))?;
    let mut gateways = [first, second];
    let posting = publish(&[&gateways[0], &gateways[1]])?;
    posting.await_more(100).await;
    for victim in [0, 1] {
        let since = hold(&hook, &NAMES).await;
        gateways[victim].kill()?;
        let (claimed, after) = (sent_by(&hook, NAMES[victim], since, |_| true)?, hook.received().len());
        hook.release();
        await_carried(&hook, NAMES[1 - victim], after, &claimed, LEASE_TERM + LEASE_SLACK).await;
        gateways[victim].restart().await?;
    }
    let accepted = posting.stop().await;
    await_all(&hook, &accepted, ARRIVAL_LIMIT).await;
    await_empty(&gateways[0]).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_started_again_carries_what_it_had_claimed_at_once() -> Result<()> {
    let hook = Webhook::start().await?;
    let mut gateway = Gateway::start(&carried(None, &hook.url(), "only")).await?;
    let posting = publish(&[&gateway])?;
    posting.await_more(100).await;
    for _ in 0..4 {
        let since = hold(&hook, &["only"]).await;
        gateway.kill()?;
        let (claimed, after) = (sent_by(&hook, "only", since, |_| true)?, hook.received().len());
        hook.release();
        gateway.restart().await?;
        // Nobody else could have them: no lease has to run out.
        await_carried(&hook, "only", after, &claimed, LEASE_TERM).await;
        posting.await_more(50).await;
    }
    let accepted = posting.stop().await;
    await_all(&hook, &accepted, ARRIVAL_LIMIT).await;
    await_empty(&gateway).await;
    Ok(())
}
