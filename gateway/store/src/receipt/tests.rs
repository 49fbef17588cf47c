//! What cannot be seen from outside: a store that does not write.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::memory::{MemoryDeadLetters, MemorySource, MemoryTarget};
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::pipeline::{Assembly, Blueprint, Order, State, TargetPart};
use sluicegate_engine::receipt::{Receipt, Receipts};
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::target_driver::TargetSettings;
use tokio_util::sync::CancellationToken;

use super::{Filter, ReceiptSettings, StoreReceipts};
use crate::change::{Change, Transaction};
use crate::error::StoreError;
use crate::place::Location;
use crate::store::Store;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Holds the writer until the other end is dropped.
struct Blocked {
    began: Option<tokio::sync::oneshot::Sender<()>>,
    until: std::sync::mpsc::Receiver<()>,
}

#[async_trait]
impl Change for Blocked {
    type Output = ();

    fn size_bytes(&self) -> usize {
        1
    }

    async fn apply(&mut self, _: &mut Transaction<'_>) -> Result<(), StoreError> {
        if let Some(began) = self.began.take() {
            began.send(()).unwrap();
        }
        // SQLite's writer has a thread of its own, which may block.
        assert!(self.until.recv().is_err());
        Ok(())
    }
}

/// Blocks the store's writer; dropping the sender lets it go on.
async fn block(store: &Arc<Store>) -> std::sync::mpsc::Sender<()> {
    let (release, until) = std::sync::mpsc::channel();
    let (began, has_begun) = tokio::sync::oneshot::channel();
    let blocked = Arc::clone(store);
    tokio::spawn(async move { blocked.change(Blocked { began: Some(began), until }).await.unwrap() });
    has_begun.await.unwrap();
    release
}

fn numbered(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|n| Message { id: format!("m{n}"), ..Message::new("test", "test", n.to_string()) })
}

fn receipt(message: Message) -> Receipt {
    Receipt {
        message: Arc::new(message),
        pipeline: "orders".into(),
        config_version: "v".into(),
        received_at_ms: now_ms(),
        began_at_ms: now_ms(),
        ended_at_ms: now_ms(),
        settlement: Settlement::Delivered,
        events: Vec::new(),
    }
}

async fn kept(store: &Store) -> u64 {
    let tallies = store.reader().tally_receipts(&Filter::default()).await.unwrap();
    tallies.iter().map(|tally| tally.receipts).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_against_a_blocked_store_loses_receipts_and_delays_no_message() {
    const MESSAGES: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.unwrap());
    let receipts = Arc::new(StoreReceipts::start(Arc::clone(&store), ReceiptSettings { sample: 1.0, keep: WEEK }));
    let release = block(&store).await;

    let (source, target) = (MemorySource::of(numbered(MESSAGES)), MemoryTarget::default());
    let kept_by: Arc<dyn Receipts> = receipts.clone();
    let assembly = Assembly::new(Blueprint {
        name: "orders".into(),
        config_version: "v".into(),
        source_system: "memory",
        source: Box::new(source.clone()),
        steps: Vec::new(),
        targets: vec![TargetPart {
            name: "out".into(),
            system: "memory",
            target: Box::new(target.clone()),
            settings: TargetSettings::default(),
        }],
        retry: RetryPolicy::default(),
        dead_letters: Arc::new(MemoryDeadLetters::default()),
        max_in_flight: 256,
        order: Order::None,
        handler_timeout: None,
        state: State { receipts: Some(kept_by), ..State::default() },
    });
    // All of them arrive while the store writes nothing at all.
    let run = assembly.run(CancellationToken::new(), Duration::from_secs(30));
    let ended = tokio::time::timeout(Duration::from_secs(60), run).await.expect("no message waits for the store");
    assert_eq!((ended.abandoned, source.settled().len(), target.published().len()), (0, MESSAGES, MESSAGES));
    assert_eq!(kept(&store).await, 0, "the store was blocked all the while");
    let lost = receipts.lost();
    // 8,192 wait, and one batch is on its way.
    assert!((MESSAGES - 8_192 - 512..=MESSAGES - 8_192).contains(&(lost as usize)), "{lost} lost");

    drop(release);
    receipts.close().await;
    assert_eq!(kept(&store).await + receipts.lost(), MESSAGES as u64, "every receipt is kept or counted");
    assert_eq!(receipts.lost(), lost, "closing writes what is queued");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recording_never_waits_and_large_receipts_are_limited_by_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.unwrap());
    let receipts = StoreReceipts::start(Arc::clone(&store), ReceiptSettings { sample: 1.0, keep: WEEK });
    let release = block(&store).await;
    let long = "i".repeat(1 << 20);
    let began = Instant::now();
    for _ in 0..100 {
        receipts.record(receipt(Message { id: long.clone(), ..Message::new("test", "test", "") }));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(receipts.lost(), 100 - 31, "32 MiB wait at most");
    drop(release);
    receipts.close().await;
    assert_eq!(kept(&store).await, 31);
    receipts.record(receipt(Message::new("test", "test", "")));
    assert_eq!(receipts.lost(), 100 - 31 + 1, "what comes after closing is counted, too");
    store.close().await;
}

#[tokio::test]
async fn a_store_that_is_closed_first_costs_receipts_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.unwrap());
    let receipts = StoreReceipts::start(Arc::clone(&store), ReceiptSettings { sample: 1.0, keep: WEEK });
    store.close().await;
    receipts.record(receipt(Message::new("test", "test", "")));
    receipts.close().await;
    assert_eq!(receipts.lost(), 1);
}

#[tokio::test]
async fn the_sample_is_by_id_and_about_as_large_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.unwrap());
    let with = |sample| StoreReceipts::start(Arc::clone(&store), ReceiptSettings { sample, keep: WEEK });
    let (none, some, same, all) = (with(0.0), with(0.1), with(0.1), with(1.0));
    let mut sampled = 0;
    for message in numbered(10_000) {
        assert!(!none.samples(&message) && all.samples(&message));
        assert_eq!(some.samples(&message), same.samples(&message), "gateways agree");
        assert_eq!(some.samples(&message), some.samples(&Message { attempt: 2, ..message.clone() }), "and stretches");
        sampled += usize::from(some.samples(&message));
    }
    assert!((900..1_100).contains(&sampled), "{sampled} of 10,000 at a tenth");
    some.set(ReceiptSettings { sample: 1.0, keep: WEEK });
    assert!(numbered(100).all(|message| some.samples(&message)), "new settings count at once");
    for receipts in [none, some, same, all] {
        receipts.close().await;
    }
    store.close().await;
}
