//! Inboxes at work: several gateways, redrives, repetitions, a whole pipeline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::deduplication::Deduplication;
use sluicegate_engine::delivery::{Outcome, Settled, Settlement};
use sluicegate_engine::failure::{Failure, FailureClass};
use sluicegate_engine::inbox::{Entry, Inbox, Progress, Redrive, Waypoint};
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::memory::{MemoryDeadLetters, MemorySource, MemoryTarget, Reply};
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::pipeline::{Assembly, Blueprint, Order, State, TargetPart};
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::target_driver::TargetSettings;
use sluicegate_store::deduplication::StoreDeduplication;
use sluicegate_store::inbox::StoreInbox;
use sluicegate_store::{Store, testing};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::both::{both, both_places};

const DEADLINE: Duration = Duration::from_secs(30);

fn orders() -> Arc<str> {
    "orders".into()
}

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), ..Message::new("/test", "test", id.to_owned()) }
}

fn redriven(letter: &DeadLetter, count: u32) -> Entry {
    let redrive = Some(Redrive { letter: letter.id.as_str().into(), count });
    let progress = Progress { attempt: 1, received_at_ms: now_ms(), redrive, ..Progress::default() };
    let message = Arc::clone(&letter.original);
    Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered: false }
}

fn letter() -> DeadLetter {
    let message = Arc::new(message("dead"));
    DeadLetter {
        id: uuid::Uuid::now_v7().to_string(),
        failed_at_ms: now_ms(),
        pipeline: orders(),
        config_version: "0123456789ab".into(),
        at_failure: Arc::clone(&message),
        original: message,
        step: None,
        target: None,
        class: FailureClass::TargetFailed,
        error: "test".to_owned(),
        schema_errors: Vec::new(),
        plugin: None,
        plugin_digest: None,
        backtrace: Vec::new(),
        attempts: Vec::new(),
        trace_id: None,
        redrive_count: 0,
    }
}

/// Takes all that is there, settles it so, and returns its ids.
async fn settle_all(store: &Arc<Store>, settlement: Settlement, count: usize) -> Vec<String> {
    let mut source = StoreInbox::new(Arc::clone(store), &orders()).source(Lanes::default());
    let mut connection = source.connect().await.unwrap();
    let mut ids = Vec::new();
    while ids.len() < count {
        let received = timeout(DEADLINE, connection.inlet.receive(7)).await.expect("messages").unwrap();
        ids.extend(received.iter().map(|received| received.message.id.clone()));
        let settled: Vec<_> = received
            .into_iter()
            .map(|r| Settled::new(r.token, Arc::new(r.message), Outcome { settlement, ..Outcome::default() }))
            .collect();
        connection.settler.settle(&settled).await.unwrap();
    }
    ids
}

#[tokio::test]
async fn a_dead_letter_goes_with_the_last_part_of_its_redrive_unless_it_failed_again() {
    both(async |store| {
        let inbox = StoreInbox::new(Arc::clone(store), &orders());
        let letters = async || testing::select(store, "SELECT count(*) FROM dead_letters").await.unwrap();
        let letter = letter();
        store.record(&Arc::new(letter.clone())).await.unwrap();
        // It failed again: its record has the new count by now.
        inbox.park(redriven(&letter, 1)).await.unwrap();
        testing::execute(store, "UPDATE dead_letters SET redrive_count = 1").await.unwrap();
        settle_all(store, Settlement::DeadLettered, 1).await;
        assert_eq!(letters().await, 1);
        // In two parts, of which one waits elsewhere.
        inbox.park(redriven(&letter, 2)).await.unwrap();
        let mut later = redriven(&letter, 2);
        later.not_before_ms = now_ms() + 1_000;
        inbox.park(later).await.unwrap();
        settle_all(store, Settlement::Delivered, 1).await;
        assert_eq!(letters().await, 1);
        settle_all(store, Settlement::Delivered, 1).await;
        assert_eq!(letters().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_copy_waits_for_the_first_and_is_judged_by_its_end() {
    both(async |store| {
        let window = Duration::from_secs(60);
        let deduplication = Arc::new(StoreDeduplication::new(Arc::clone(store), &orders(), window));
        let first = message("a");
        assert!(!deduplication.was_delivered(&first).await.unwrap());
        assert!(!deduplication.was_delivered(&message("other")).await.unwrap());
        let copy = |deduplication: &Arc<StoreDeduplication>| {
            let (deduplication, copy) = (Arc::clone(deduplication), first.clone());
            tokio::spawn(async move { deduplication.was_delivered(&copy).await.unwrap() })
        };
        let mut second = copy(&deduplication);
        assert!(timeout(Duration::from_millis(200), &mut second).await.is_err(), "it waits");
        // The first came to nothing.
        deduplication.ended(&first);
        assert!(!timeout(DEADLINE, second).await.unwrap().unwrap());
        let third = copy(&deduplication);
        deduplication.remember(&first).await.unwrap();
        deduplication.ended(&first);
        assert!(timeout(DEADLINE, third).await.unwrap().unwrap());
        assert!(deduplication.was_delivered(&first).await.unwrap());
        testing::execute(store, "UPDATE delivered SET expires_at_ms = 1").await.unwrap();
        assert!(!deduplication.was_delivered(&first).await.unwrap(), "after the window it is new");
    })
    .await;
}

#[tokio::test]
async fn two_gateways_share_the_work_and_double_nothing() {
    both_places(async |fresh| {
        let one = Arc::new(fresh.open().await);
        // A data folder has one gateway: there both are the same.
        let other = if fresh.name == "SQLite" { Arc::clone(&one) } else { Arc::new(fresh.open().await) };
        let inbox = StoreInbox::new(Arc::clone(&one), &orders());
        for number in 0..200 {
            let message = Arc::new(message(&number.to_string()));
            let progress = Progress { waypoint: Waypoint::Start, attempt: 1, ..Progress::default() };
            let original = Arc::clone(&message);
            inbox.park(Entry { original, message, progress, not_before_ms: 0, ordered: false }).await.unwrap();
        }
        let (a, b) =
            tokio::join!(settle_all(&one, Settlement::Delivered, 80), settle_all(&other, Settlement::Delivered, 80));
        let rest = settle_all(&one, Settlement::Delivered, 200 - a.len() - b.len()).await;
        let all: BTreeSet<_> = a.iter().chain(&b).chain(&rest).collect();
        assert_eq!((all.len(), a.len() + b.len() + rest.len()), (200, 200));
        one.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_parks_what_its_target_fails_and_delivers_it_in_the_end() {
    both(async |store| {
        let target = MemoryTarget::default();
        target.script((0..6).map(|_| Reply::Fail(Failure::retry_after(Duration::from_millis(1_200), "not now"))));
        let source = MemorySource::of((0..20).map(|number| message(&number.to_string())));
        let retry = RetryPolicy { max_attempts: 10, ..RetryPolicy::default() };
        let inbox: Arc<dyn Inbox> = Arc::new(StoreInbox::new(Arc::clone(store), &orders()));
        let part = TargetPart {
            name: "eu".into(),
            system: "memory",
            target: Box::new(target.clone()),
            settings: TargetSettings::default(),
        };
        let assembly = Assembly::new(Blueprint {
            name: orders(),
            config_version: "0123456789ab".into(),
            source_system: "memory",
            source: Box::new(source.clone()),
            steps: Vec::new(),
            targets: vec![part],
            retry,
            dead_letters: Arc::new(MemoryDeadLetters::default()),
            max_in_flight: 8,
            order: Order::None,
            handler_timeout: None,
            state: State { inbox: Some(inbox), ..State::default() },
        });
        let ended = timeout(DEADLINE, assembly.run(CancellationToken::new(), Duration::from_secs(5))).await;
        assert!(!ended.expect("it ends").failed);
        let ids: BTreeSet<_> = target.published().into_iter().map(|message| message.id).collect();
        assert_eq!((ids.len(), target.published().len()), (20, 20));
        assert!(source.settled().iter().any(|(_, outcome)| outcome.settlement == Settlement::Parked));
        assert_eq!(testing::select(store, "SELECT count(*) FROM inbox").await, Ok(0));
    })
    .await;
}
