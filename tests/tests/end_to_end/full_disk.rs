//! The disk of the data folder fills up while clients post: nobody is told 202 for what is not kept, what only reads goes
//! on, and once there is room again everything goes on by itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sluicegate_tests::disk::SmallDisk;
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::{Gateway, http_client, new_folder};
use sluicegate_tests::webhook::Webhook;

use crate::clients::{ARRIVAL_LIMIT, RECOVERY_LIMIT};
use crate::posting::{Posting, await_all, number};

const DISK_MEBIBYTES: u32 = 24;
/// Left for clients to fill.
const LEFT_BYTES: u64 = 1 << 20;
const BODY_BYTES: usize = 4 << 10;
/// Every so many messages are refused by their target for good.
const REFUSED_EVERY: usize = 10;
/// Refusals to see before the disk counts as full.
const REFUSALS: usize = 50;

fn config(hook: &str) -> String {
    format!(
        "receipts: {{ sample: 1 }}
queues: {{ spare: {{}} }}
pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders, respond: accepted }} }}
    targets: {{ hook: {{ http: {{ url: '{hook}', timeout: 60s }} }} }}
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
    max_in_flight: 32
"
    )
}

fn compose(request: RequestBuilder, number: usize) -> RequestBuilder {
    request.body(json!({ "number": number, "padding": "x".repeat(BODY_BYTES) }).to_string())
}

/// Everything that only reads the store is answered.
async fn ensure_reads(gateway: &Gateway, letter: &str, message: &str) -> Result<()> {
    for path in ["/health", "/metrics", "/api/v1/dead-letters", "/api/v1/messages"] {
        ensure!(gateway.status(path).await? == 200, "{path} is answered {}", gateway.status(path).await?);
    }
    gateway.text(&format!("/api/v1/dead-letters/{letter}")).await?;
    gateway.text(&format!("/api/v1/messages/{message}")).await?;
    let list = gateway.command(&["dlq", "list", "--config", "sluicegate.yaml", "--json"]).await?;
    ensure!(list.contains(letter), "{list}");
    let trace = gateway.command(&["trace", message, "--config", "sluicegate.yaml", "--json"]).await?;
    ensure!(trace.contains(message), "{trace}");
    Ok(())
}

/// Publishes to a queue until that is refused, as ingestion is.
async fn await_publication_refused(gateway: &Gateway) {
    let form = json!({ "queue": "spare", "data": "x".repeat(BODY_BYTES) }).to_string();
    eventually("publications are refused", ARRIVAL_LIMIT, async || {
        let answer = http_client()?.post(gateway.url("/api/v1/mq/publish")).body(form.clone()).send().await?;
        let (status, has_retry_after) = (answer.status(), answer.headers().contains_key("retry-after"));
        let text = answer.text().await?;
        ensure!(status == 503 && has_retry_after && text.contains("MQ_PUBLISH_FAILED"), "{status}: {text}");
        Ok(())
    })
    .await;
}

/// A dead letter's id, and its message's.
async fn a_dead_letter(gateway: &Gateway) -> (String, String) {
    eventually("there is a dead letter", ARRIVAL_LIMIT, async || {
        let page: Value = serde_json::from_str(&gateway.text("/api/v1/dead-letters?limit=1").await?)?;
        let letter = &page["deadLetters"][0];
        let text = |name: &str| letter[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {page}"));
        let (letter, message) = (text("id")?, text("messageId")?);
        // Receipts are written a moment later.
        gateway.text(&format!("/api/v1/messages/{message}")).await?;
        Ok((letter, message))
    })
    .await
}

async fn dead_letters(gateway: &Gateway) -> Result<BTreeSet<usize>> {
    let answer = http_client()?.get(gateway.url("/api/v1/dead-letters/export")).send().await?.error_for_status()?;
    let number = |line: &str| {
        let letter: Value = serde_json::from_str(line)?;
        number(letter["original"]["body"]["json"].to_string().as_bytes())
    };
    answer.text().await?.lines().map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_reads_and_recovers() -> Result<()> {
    let folder = new_folder()?;
    let Some(mounted) = SmallDisk::mount(&folder.path().join("data"), DISK_MEBIBYTES)? else { return Ok(()) };
    let hook = Webhook::start().await?;
    hook.answer_by(|body, _| (number(body).ok()? % REFUSED_EVERY == 0).then_some((400, None)));
    let mut gateway = Gateway::start_in(folder, &config(&hook.url())).await?;
    // Dropped before the gateway, so that its folder can be removed.
    let disk = mounted;
    let posting = Posting::start_with(vec![gateway.url("/ingest/orders")], 8, Arc::new(compose))?;
    posting.await_more(200).await;
    let (letter, message) = a_dead_letter(&gateway).await;

    // Nothing leaves the store any more, and there is hardly room for more in it.
    hook.hold();
    disk.fill_but(LEFT_BYTES)?;
    let refused = || posting.refused().values().sum::<usize>();
    eventually("admissions are refused", ARRIVAL_LIMIT, async || {
        ensure!(refused() >= REFUSALS, "{} refused, {} accepted", refused(), posting.accepted());
        Ok(())
    })
    .await;
    ensure_reads(&gateway, &letter, &message).await?;
    await_publication_refused(&gateway).await;
    // What was held is delivered now, and cannot be settled: there is no room to write that down.
    hook.release();
    let before = refused();
    eventually("it goes on refusing", ARRIVAL_LIMIT, async || {
        disk.fill_but(0)?;
        ensure!(refused() >= before + REFUSALS, "{} more refused", refused() - before);
        Ok(())
    })
    .await;
    ensure_reads(&gateway, &letter, &message).await?;
    let odd: Vec<_> = posting.refused().into_keys().filter(|refusal| *refusal != (503, true)).collect();
    ensure!(odd.is_empty(), "refused otherwise than by 503 with Retry-After: {odd:?}");

    disk.free()?;
    let freed = posting.accepted();
    eventually("it accepts again", RECOVERY_LIMIT, async || {
        ensure!(posting.accepted() > freed + 100, "{} since there is room", posting.accepted() - freed);
        Ok(())
    })
    .await;
    let accepted = posting.stop().await;
    let (refusable, deliverable): (BTreeSet<usize>, BTreeSet<usize>) =
        accepted.iter().copied().partition(|number| number % REFUSED_EVERY == 0);
    await_all(&hook, &deliverable, ARRIVAL_LIMIT).await;
    eventually("what was refused for good is in the dead letters", ARRIVAL_LIMIT, async || {
        let missing = refusable.difference(&dead_letters(&gateway).await?).count();
        ensure!(missing == 0, "{missing} of {} are missing", refusable.len());
        Ok(())
    })
    .await;
    // Nothing of it was only in memory.
    gateway.kill()?;
    gateway.restart().await?;
    ensure!(dead_letters(&gateway).await?.is_superset(&refusable), "dead letters are gone after a restart");
    gateway.stop().await?;
    Ok(())
}
