//! What receipts promise on both databases.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::{FailureClass, Reason};
use sluicegate_engine::inbox::Waypoint;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::receipt::{Event, Happening, Receipt, Receipts as _, StepResult};
use sluicegate_store::receipt::{Ending, Filter, MAX_EVENTS, MAX_TEXT_CHARS, ReceiptSettings, StoreReceipts};
use sluicegate_store::{Store, StoreError};

use crate::both::both;

const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(store: &Arc<Store>, keep: Duration) -> StoreReceipts {
    StoreReceipts::start(Arc::clone(store), ReceiptSettings { sample: 1.0, keep })
}

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), ..Message::new("/orders", "order.created", &b"body"[..]) }
}

/// Began `after_ms` after the tests' own beginning of time.
fn receipt(message: &Message, after_ms: u64, settlement: Settlement, events: Vec<Event>) -> Receipt {
    let at = 1_000_000_000_000 + after_ms;
    Receipt {
        message: Arc::new(message.clone()),
        pipeline: "orders".into(),
        config_version: "v".into(),
        received_at_ms: at,
        began_at_ms: at,
        ended_at_ms: at + 1,
        settlement,
        events,
    }
}

fn every_happening() -> Vec<Event> {
    let step = |result| Happening::Step { step: "filter".into(), plugin_digest: Some("sha256:1".into()), result };
    let happenings = vec![
        Happening::Resumed { waypoint: Waypoint::Start, attempt: 1 },
        Happening::Resumed { waypoint: Waypoint::Step("s".into()), attempt: u32::MAX },
        step(StepResult::Passed),
        step(StepResult::Made { messages: 3 }),
        step(StepResult::Dropped(Reason::new("code", "text with \0, \u{10} and Grüße"))),
        step(StepResult::Routed(vec!["eu".into(), "us".into()])),
        Happening::Step { step: "validate".into(), plugin_digest: None, result: StepResult::Passed },
        Happening::Failed {
            place: "eu".into(),
            attempt: 2,
            error: "e".to_owned(),
            retry_after: Some(Duration::from_millis(1_500)),
        },
        Happening::Failed { place: "eu".into(), attempt: 3, error: "e".to_owned(), retry_after: None },
        Happening::Parked { waypoint: Waypoint::Target("eu".into()), until_ms: 7, why: "w".to_owned() },
        Happening::Delivered { target: "us".into() },
        Happening::DeadLettered { id: "d".to_owned(), class: FailureClass::Trap, error: "e".to_owned() },
    ];
    happenings.into_iter().enumerate().map(|(index, what)| Event { at_ms: index as u64, what }).collect()
}

#[tokio::test]
async fn every_event_comes_back_and_stretches_in_their_order() {
    both(async |store| {
        let receipts = start(store, WEEK * 10_000);
        let message = Message {
            correlation_id: Some("c".to_owned()),
            key: Some(vec![0xff, 0x00].into()),
            trace_parent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            ..message("id with \0 and \u{10}")
        };
        receipts.record(receipt(&message, 9, Settlement::Delivered, Vec::new()));
        receipts.record(receipt(&message, 5, Settlement::Parked, every_happening()));
        receipts.close().await;
        let trail = store.reader().trail(&message.id).await.unwrap();
        let [first, last] = &trail.stretches[..] else { panic!("two stretches: {trail:?}") };
        assert_eq!((&first.events, first.events_left_out), (&every_happening(), 0));
        assert_eq!((first.summary.ending, first.summary.failures), (Ending::Parked, 2));
        assert_eq!((last.summary.ending, last.events.len()), (Ending::Delivered, 0));
        assert_eq!((&first.summary.key, first.summary.body_bytes), (&message.key, 4));
        assert_eq!(first.summary.trace_id.as_deref(), message.trace_id());
        assert!(store.reader().trail("id").await.unwrap().stretches.is_empty(), "an id is whole");
    })
    .await;
}

#[tokio::test]
async fn what_is_too_much_is_cut_in_the_middle() {
    both(async |store| {
        let receipts = start(store, WEEK * 10_000);
        let error = "ü".repeat(MAX_TEXT_CHARS + 1);
        let failed =
            |attempt| Happening::Failed { place: "eu".into(), attempt, error: error.clone(), retry_after: None };
        let events = (1..=300).map(|attempt| Event { at_ms: 1, what: failed(attempt) }).collect();
        receipts.record(receipt(&message("m"), 0, Settlement::Delivered, events));
        receipts.close().await;
        let trail = store.reader().trail("m").await.unwrap();
        let stretch = &trail.stretches[0];
        assert_eq!((stretch.events.len(), stretch.events_left_out, stretch.summary.failures), (MAX_EVENTS, 100, 300));
        let attempts: Vec<u32> = stretch
            .events
            .iter()
            .map(|event| match &event.what {
                Happening::Failed { attempt, error, .. } => {
                    assert_eq!(error.chars().count(), MAX_TEXT_CHARS);
                    *attempt
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(attempts, (1..=100).chain(201..=300).collect::<Vec<u32>>());
    })
    .await;
}

#[tokio::test]
async fn a_search_finds_what_matches_page_by_page() {
    both(async |store| {
        let receipts = start(store, WEEK * 10_000);
        let long = "k".repeat(5_000);
        for index in 0..700_u64 {
            let message = Message {
                correlation_id: (index % 2 == 0).then(|| format!("c{}", index % 10)),
                key: (index % 3 == 0).then(|| format!("{long}{}", index % 9).into()),
                ..message(&format!("m{index}"))
            };
            let settlement = if index % 7 == 0 { Settlement::DeadLettered } else { Settlement::Delivered };
            receipts.record(receipt(&message, index / 4, settlement, Vec::new()));
        }
        receipts.close().await;
        assert_eq!(receipts.lost(), 0);
        let all = async |filter: &Filter, limit: usize| {
            let (mut ids, mut after) = (Vec::new(), None);
            loop {
                let page = store.reader().receipts(filter, limit, after.as_deref()).await.unwrap();
                assert!(page.receipts.len() <= limit);
                ids.extend(page.receipts.into_iter().map(|receipt| receipt.message_id));
                after = page.next;
                if after.is_none() {
                    return ids;
                }
            }
        };
        let expected = |matching: &dyn Fn(u64) -> bool| -> Vec<String> {
            (0..700).rev().filter(|index| matching(*index)).map(|index| format!("m{index}")).collect()
        };
        let filter = Filter::default();
        assert_eq!(all(&filter, 97).await, expected(&|_| true));
        let filter = Filter { correlation_id: Some("c4".to_owned()), ..Filter::default() };
        assert_eq!(all(&filter, 7).await, expected(&|index| index % 10 == 4));
        let filter = Filter { key: Some(format!("{long}6").into()), ..Filter::default() };
        assert_eq!(all(&filter, 1_000).await, expected(&|index| index % 9 == 6));
        let filter = Filter { failed: true, since_ms: Some(1_000_000_000_100), ..Filter::default() };
        assert_eq!(all(&filter, 10).await, expected(&|index| index % 7 == 0 && index / 4 >= 100));
        let filter = Filter {
            ending: Some(Ending::Delivered),
            until_ms: Some(1_000_000_000_010),
            pipeline: Some("orders".to_owned()),
            ..Filter::default()
        };
        assert_eq!(all(&filter, 10).await, expected(&|index| index % 7 != 0 && index / 4 < 10));
        let refused = store.reader().receipts(&Filter::default(), 1, Some("x")).await.unwrap_err();
        assert!(matches!(refused, StoreError::PageToken { .. }), "{refused}");

        let tallies = store.reader().tally_receipts(&Filter::default()).await.unwrap();
        let counts: Vec<(&str, u64)> = tallies.iter().map(|tally| (tally.ending.name(), tally.receipts)).collect();
        assert_eq!(counts, [("dead_lettered", 100), ("delivered", 600)]);
    })
    .await;
}

#[tokio::test]
async fn old_receipts_go_and_young_ones_stay() {
    both(async |store| {
        // Looked for every twentieth of that.
        let receipts = start(store, Duration::from_secs(60));
        for index in 0..2_500 {
            receipts.record(receipt(&message(&format!("old{index}")), index, Settlement::Delivered, Vec::new()));
        }
        let young =
            Receipt { began_at_ms: now_ms(), ..receipt(&message("young"), 0, Settlement::Delivered, Vec::new()) };
        receipts.record(young);
        let only_young = async {
            loop {
                let page = store.reader().receipts(&Filter::default(), 10, None).await.unwrap();
                if page.receipts.len() == 1 && page.receipts[0].message_id == "young" {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, only_young).await.expect("old receipts are deleted");
        receipts.close().await;
    })
    .await;
}
