use std::path::Path;
use std::sync::Arc;

use sluicegate_engine::dead_letter::{Attempt, DeadLetter, DeadLetters as _};
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::{FailureClass, Reason};
use sluicegate_engine::message::Message;
use sluicegate_engine::receipt::{Event, Receipt, Receipts as _, StepResult};
use sluicegate_store::receipt::StoreReceipts;
use sluicegate_store::{Location, Store};

use super::*;

/// 2025-11-20T16:00:00Z.
pub const START_MS: u64 = 1_763_654_400_000;

pub fn event(after_ms: u64, what: Happening) -> Event {
    Event { at_ms: START_MS + after_ms, what }
}

pub fn message(id: &str) -> Message {
    let mut message = Message::new("/orders", "order.created", &b"{\"secret\":1}"[..]);
    message.id = id.to_owned();
    message.correlation_id = Some("c-1".to_owned());
    message.key = Some("customer/7".into());
    message.trace_parent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned());
    message
}

fn receipt(message: &Arc<Message>, from_ms: u64, until_ms: u64, settlement: Settlement, events: Vec<Event>) -> Receipt {
    Receipt {
        message: Arc::clone(message),
        pipeline: "orders".into(),
        config_version: "0123456789ab".into(),
        received_at_ms: START_MS,
        began_at_ms: START_MS + from_ms,
        ended_at_ms: START_MS + until_ms,
        settlement,
        events,
    }
}

fn step(step: &str, result: StepResult) -> Happening {
    Happening::Step { step: step.into(), plugin_digest: Some("sha256:9f2c64d1b2a30f5e7788".into()), result }
}

fn failed(place: &str, attempt: u32, retry_after: Option<Duration>) -> Happening {
    Happening::Failed { place: place.into(), attempt, error: "connection refused\u{1b}[2J".to_owned(), retry_after }
}

/// Filtered through, routed to two targets; `us` had it, `eu` was tried, parked, tried again and given up.
fn eventful() -> Vec<Receipt> {
    let message = Arc::new(message("m-1"));
    let eu = Waypoint::Target("eu".into());
    vec![
        receipt(
            &message,
            2,
            60,
            Settlement::Parked,
            vec![
                event(10, step("filter known", StepResult::Passed)),
                event(11, step("transform split", StepResult::Made { messages: 2 })),
                event(12, step("route region", StepResult::Routed(vec!["eu".into(), "us".into()]))),
                event(20, Happening::Delivered { target: "us".into() }),
                event(50, failed("eu", 1, Some(Duration::from_secs(5)))),
                event(
                    60,
                    Happening::Parked { waypoint: eu.clone(), until_ms: START_MS + 5_060, why: "refused".to_owned() },
                ),
            ],
        ),
        receipt(
            &message,
            5_060,
            5_100,
            Settlement::DeadLettered,
            vec![
                event(5_060, Happening::Resumed { waypoint: eu, attempt: 2 }),
                event(5_090, failed("eu", 2, None)),
                event(
                    5_100,
                    Happening::DeadLettered {
                        id: "0193-a".to_owned(),
                        class: FailureClass::TargetFailed,
                        error: "connection refused".to_owned(),
                    },
                ),
            ],
        ),
    ]
}

/// One that waits, one that was dropped.
fn others() -> Vec<Receipt> {
    let waiting = Arc::new(message("m-2"));
    let dropped = Arc::new(Message { correlation_id: None, key: None, ..message("m/3") });
    let why = "target `eu` is not connected".to_owned();
    vec![
        receipt(
            &waiting,
            1_000,
            1_010,
            Settlement::Parked,
            vec![event(1_010, Happening::Parked { waypoint: Waypoint::Target("eu".into()), until_ms: 0, why })],
        ),
        receipt(
            &dropped,
            2_000,
            2_010,
            Settlement::Dropped,
            vec![event(2_005, step("filter known", StepResult::Dropped(Reason::new("unknown", "not a customer"))))],
        ),
    ]
}

fn letter() -> DeadLetter {
    let message = Arc::new(message("m-1"));
    DeadLetter {
        id: "0193-a".to_owned(),
        failed_at_ms: START_MS + 5_100,
        pipeline: "orders".into(),
        config_version: "0123456789ab".into(),
        at_failure: Arc::clone(&message),
        original: message,
        step: None,
        target: Some("eu".into()),
        class: FailureClass::TargetFailed,
        error: "connection refused".to_owned(),
        schema_errors: Vec::new(),
        plugin: None,
        plugin_digest: None,
        backtrace: Vec::new(),
        attempts: vec![Attempt { number: 1, at_ms: START_MS + 50, error: "connection refused".to_owned() }],
        trace_id: None,
        redrive_count: 0,
    }
}

/// A store with four receipts of three messages and a dead letter; it stays open.
pub async fn filled(data_dir: &Path) -> Arc<Store> {
    let store = Arc::new(Store::open(&Location::embedded(data_dir)).await.expect("a store"));
    // A century: the receipts are of 2025.
    let keep = Duration::from_secs(100 * 365 * 86_400);
    let receipts = StoreReceipts::start(Arc::clone(&store), ReceiptSettings { sample: 1.0, keep });
    for receipt in eventful().into_iter().chain(others()) {
        receipts.record(receipt);
    }
    receipts.close().await;
    assert_eq!(receipts.lost(), 0);
    store.record(&Arc::new(letter())).await.expect("recorded");
    store
}

#[tokio::test]
async fn a_trace_is_in_order_and_begins_with_acceptance() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let trace = Trace::find(store.reader(), "m-1").await.expect("an answer").expect("known");
    let moments = trace.moments();
    assert_eq!((moments[0].at_ms, moments[0].what), (START_MS, What::Accepted));
    assert_eq!(
        moments.iter().filter(|moment| moment.what == What::Accepted).count(),
        1,
        "one acceptance, two stretches"
    );
    assert_eq!(moments.len(), 10);
    assert!(moments.is_sorted_by_key(|moment| moment.at_ms));
    assert_eq!((trace.status(), trace.waiting()), (Ending::DeadLettered, Vec::new()));
    assert_eq!(trace.letters.iter().map(|letter| &*letter.id).collect::<Vec<_>>(), ["0193-a"]);

    let trace = Trace::find(store.reader(), "m-2").await.expect("an answer").expect("known");
    assert_eq!(trace.status(), Ending::Parked);
    let [part] = trace.waiting()[..] else { panic!("one part waits: {trace:?}") };
    assert_eq!((part.waypoint, part.until_ms), (&Waypoint::Target("eu".into()), 0));
    assert_eq!(Trace::find(store.reader(), "m").await.expect("an answer"), None);
    store.close().await;
}

fn traced(receipts: Vec<Receipt>) -> Trace {
    let stretch = |receipt: Receipt| Stretch {
        summary: sluicegate_store::receipt::Summary {
            message_id: receipt.message.id.clone(),
            source: receipt.message.source.clone(),
            kind: receipt.message.kind.clone(),
            correlation_id: None,
            key: None,
            trace_id: None,
            body_bytes: 0,
            pipeline: receipt.pipeline.to_string(),
            config_version: receipt.config_version.to_string(),
            ending: receipt.settlement.into(),
            failures: 0,
            received_at_ms: receipt.received_at_ms,
            began_at_ms: receipt.began_at_ms,
            ended_at_ms: receipt.ended_at_ms,
        },
        events: receipt.events,
        events_left_out: 0,
    };
    let trail = Trail { stretches: receipts.into_iter().map(stretch).collect(), is_cut: false };
    Trace { id: "m".to_owned(), trail, letters: Vec::new() }
}

#[test]
fn a_part_that_waits_is_not_forgotten_when_another_is_delivered() {
    let message = Arc::new(message("m"));
    let at = |name: &str| Waypoint::Target(name.into());
    let parked = |name: &str| Happening::Parked { waypoint: at(name), until_ms: 7, why: "down".to_owned() };
    let both = receipt(&message, 0, 1, Settlement::Parked, vec![event(1, parked("eu")), event(1, parked("us"))]);
    let resumed = |name: &str| event(2, Happening::Resumed { waypoint: at(name), attempt: 1 });
    let delivered = receipt(&message, 2, 3, Settlement::Delivered, vec![resumed("eu")]);
    let trace = traced(vec![both.clone(), delivered.clone()]);
    assert_eq!(trace.status(), Ending::Parked);
    assert_eq!(trace.waiting().iter().map(|part| part.waypoint.clone()).collect::<Vec<_>>(), [at("us")]);

    let last = receipt(&message, 4, 5, Settlement::Delivered, vec![resumed("us")]);
    assert_eq!(traced(vec![both.clone(), delivered.clone(), last]).status(), Ending::Delivered);

    // The gateway stopped while it was on its way: the inbox still has it.
    let stopped = receipt(&message, 4, 5, Settlement::Requeued, vec![resumed("us")]);
    let trace = traced(vec![both, delivered, stopped]);
    assert_eq!((trace.status(), trace.waiting().len()), (Ending::Parked, 1));
    assert_eq!(trace.moments().last().map(|moment| moment.what), Some(What::GivenBack));
}

#[test]
fn an_unknown_id_is_explained_with_the_settings() {
    let config = ReceiptsConfig { sample: 0.25, keep: Duration::from_secs(3 * 86_400) };
    let text = explain_unknown("m\u{1b}x", Some(&config));
    for part in ["`m\\u{1b}x`", "not complete and exactly as sent", "25 % of them", "`receipts.keep` is 3d"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(explain_unknown("m", None).contains("1 % unless configured"));
}
