//! Inboxes: what is put in comes out, once at a time, in order, at its time, and survives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicegate_engine::delivery::{Outcome, Received, Settled, Settlement};
use sluicegate_engine::failure::FailureKind;
use sluicegate_engine::inbox::{Entry, Inbox, Progress, Redrive, Waypoint};
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::source::{Connection, Source};
use sluicegate_store::idempotency::{Idempotency, Recalled, StoredAnswer};
use sluicegate_store::inbox::{Admission, Admitted, Backlog, StoreInbox};
use sluicegate_store::{Store, testing};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::both::{both, both_places};

const DEADLINE: Duration = Duration::from_secs(20);
/// Long enough for anything that could come to come.
const NOTHING: Duration = Duration::from_millis(300);

fn orders() -> Arc<str> {
    "orders".into()
}

fn message(body: &str) -> Message {
    Message { id: body.to_owned(), ..Message::new("/test", "test", body.to_owned()) }
}

fn keyed(body: &str, key: &'static str) -> Message {
    Message { key: Some(Bytes::from_static(key.as_bytes())), ..message(body) }
}

fn entry(message: Message, waypoint: Waypoint) -> Entry {
    let ordered = message.key.is_some();
    let message = Arc::new(message);
    let progress = Progress { waypoint, attempt: 1, received_at_ms: now_ms(), ..Progress::default() };
    Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered }
}

fn admission(messages: Vec<Message>) -> Admission {
    let backlog = Backlog { max_messages: 1_000, max_bytes: 1 << 20 };
    Admission { pipeline: orders(), messages, ordered: true, idempotency: None, wait: false, backlog }
}

fn idempotency(fingerprint: u8) -> Idempotency {
    let answer = StoredAnswer { status: 202, body: Bytes::from_static(b"{}") };
    Idempotency { key: "k".into(), fingerprint: [fingerprint; 32], answer, ttl: Duration::from_secs(60) }
}

/// A source of the inbox that a test reads by hand.
struct Reading {
    _source: Box<dyn Source>,
    connection: Connection,
}

impl Reading {
    async fn of(store: &Arc<Store>, lanes: Lanes) -> Self {
        let mut source = StoreInbox::new(Arc::clone(store), &orders()).source(lanes);
        let connection = source.connect().await.unwrap();
        Self { _source: source, connection }
    }

    async fn open(store: &Arc<Store>) -> Self {
        Self::of(store, Lanes::default()).await
    }

    async fn receive(&mut self) -> Vec<Received> {
        timeout(DEADLINE, self.connection.inlet.receive(16)).await.expect("a message comes").unwrap()
    }

    /// Messages until there are as many.
    async fn take(&mut self, count: usize) -> Vec<Received> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.extend(self.receive().await);
        }
        taken
    }

    async fn nothing(&mut self) {
        if let Ok(received) = timeout(NOTHING, self.connection.inlet.receive(16)).await {
            panic!("{received:?}");
        }
    }

    async fn settle(&mut self, received: &Received, outcome: Outcome) {
        let settled = Settled::new(received.token, Arc::new(received.message.clone()), outcome);
        self.connection.settler.settle(&[settled]).await.unwrap();
    }

    async fn deliver(&mut self, received: &Received) {
        self.settle(received, Outcome::default()).await;
    }
}

fn bodies(received: &[Received]) -> Vec<String> {
    received.iter().map(|received| received.message.id.clone()).collect()
}

async fn left(store: &Store) -> i64 {
    testing::select(store, "SELECT count(*) FROM inbox").await.unwrap()
}

#[tokio::test]
async fn what_is_parked_comes_out_whole_and_goes_when_it_is_delivered() {
    both(async |store| {
        let inbox = StoreInbox::new(Arc::clone(store), &orders());
        let mut parked = entry(keyed("a", "key"), Waypoint::Target("eu".into()));
        parked.original = Arc::new(Message { correlation_id: Some("c".to_owned()), ..message("original") });
        parked.progress.attempt = 3;
        parked.progress.redrive = Some(Redrive { letter: "letter".into(), count: 2 });
        inbox.park(parked.clone()).await.unwrap();
        assert_eq!(inbox.ordered_keys().await.unwrap(), [("eu".to_owned(), Bytes::from_static(b"key"))]);
        let mut reading = Reading::open(store).await;
        let received = reading.take(1).await.remove(0);
        assert_eq!(received.message, *parked.message);
        let resumption = received.resumption.as_ref().unwrap();
        assert_eq!(resumption.original.as_ref(), Some(&parked.original));
        assert_eq!(resumption.progress, parked.progress);
        reading.nothing().await;
        reading.deliver(&received).await;
        reading.deliver(&received).await;
        assert_eq!(left(store).await, 0, "settled twice is settled once");
    })
    .await;
}

#[tokio::test]
async fn of_a_key_one_is_out_at_a_time_in_order() {
    both(async |store| {
        let messages = vec![keyed("a1", "a"), keyed("a2", "a"), keyed("b1", "b"), keyed("a3", "a"), message("free")];
        store.admit(admission(messages)).await.unwrap();
        let mut reading = Reading::open(store).await;
        let first = reading.take(3).await;
        assert_eq!(bodies(&first), ["a1", "b1", "free"]);
        reading.nothing().await;
        // Given back, it is still the first of its key.
        reading.settle(&first[0], Outcome::requeued("test")).await;
        let again = reading.take(1).await;
        assert_eq!(bodies(&again), ["a1"]);
        // Parked for its target, it makes room in its own lane and comes first in the other.
        let parked = entry(again[0].message.clone(), Waypoint::Target("eu".into()));
        let settlement = Settlement::Postponed { after: Duration::ZERO, attempt: 2 };
        let outcome = Outcome { settlement, parked: Some(Box::new(parked)), ..Outcome::default() };
        reading.settle(&again[0], outcome).await;
        let mut both_lanes = reading.take(2).await;
        both_lanes.sort_by_key(|received| received.message.id.clone());
        assert_eq!(bodies(&both_lanes), ["a1", "a2"]);
        assert_eq!(both_lanes[0].token, again[0].token, "it was replaced in place");
        for received in &both_lanes {
            reading.deliver(received).await;
        }
        assert_eq!(bodies(&reading.take(1).await), ["a3"]);
    })
    .await;
}

#[tokio::test]
async fn a_delayed_message_comes_at_its_time_and_not_before() {
    both(async |store| {
        let mut reading = Reading::open(store).await;
        let due = now_ms() + 1_500;
        let inbox = StoreInbox::new(Arc::clone(store), &orders());
        inbox.park(Entry { not_before_ms: due, ..entry(message("later"), Waypoint::Start) }).await.unwrap();
        let received = reading.take(1).await;
        let late_ms = now_ms().checked_sub(due).expect("not before its time");
        assert!(late_ms < 1_000, "{late_ms} ms late");
        // Without a new entry, it waits again.
        let settlement = Settlement::Postponed { after: Duration::from_millis(700), attempt: 4 };
        reading.settle(&received[0], Outcome { settlement, ..Outcome::default() }).await;
        reading.nothing().await;
        let again = reading.take(1).await;
        assert_eq!(again[0].resumption.as_ref().unwrap().progress.attempt, 4);
    })
    .await;
}

#[tokio::test]
async fn the_end_comes_when_the_other_source_has_ended_and_all_is_settled() {
    both(async |store| {
        store.admit(admission(vec![message("a")])).await.unwrap();
        let last = CancellationToken::new();
        let mut reading = Reading::of(store, Lanes::new([], last.clone())).await;
        let received = reading.take(1).await;
        last.cancel();
        reading.nothing().await;
        reading.deliver(&received[0]).await;
        let ended = timeout(DEADLINE, reading.connection.inlet.receive(1)).await.expect("an end").unwrap_err();
        assert_eq!(ended.kind, FailureKind::EndOfInput);
    })
    .await;
}

#[tokio::test]
async fn what_a_source_leaves_unsettled_comes_again_at_once_and_after_reopening() {
    both_places(async |fresh| {
        let store = Arc::new(fresh.open().await);
        store.admit(admission(vec![message("a")])).await.unwrap();
        let mut reading = Reading::open(&store).await;
        assert_eq!(bodies(&reading.take(1).await), ["a"]);
        let mut successor = Reading::open(&store).await;
        successor.nothing().await;
        drop(reading);
        assert_eq!(bodies(&successor.take(1).await), ["a"]);
        drop(successor);
        store.close().await;
        drop(store);
        let store = Arc::new(fresh.open().await);
        assert_eq!(bodies(&Reading::open(&store).await.take(1).await), ["a"]);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_repeated_request_is_answered_and_puts_nothing_in() {
    both(async |store| {
        let admit = async |fingerprint| {
            let named = Admission { idempotency: Some(idempotency(fingerprint)), ..admission(vec![message("a")]) };
            store.admit(named).await.unwrap()
        };
        let (one, other) = tokio::join!(admit(1), admit(1));
        let taken = [&one, &other].into_iter().filter(|admitted| matches!(admitted, Admitted::Taken { .. })).count();
        let repeated = [&one, &other].into_iter().filter(|admitted| matches!(admitted, Admitted::Repeated(_))).count();
        assert_eq!((taken, repeated), (1, 1));
        assert!(matches!(admit(2).await, Admitted::KeyReused));
        assert_eq!(left(store).await, 1);
        let answer = StoredAnswer { status: 200, body: Bytes::from_static(b"done") };
        let conclusion = Idempotency { answer: answer.clone(), ..idempotency(1) };
        assert!(store.conclude(&orders(), conclusion).await.unwrap());
        assert!(!store.conclude(&orders(), idempotency(2)).await.unwrap());
        let recalled = store.recall(&orders(), &"k".into(), &[1; 32]).await.unwrap();
        assert_eq!(recalled, Recalled::Answered(answer));
        assert_eq!(store.recall(&orders(), &"x".into(), &[1; 32]).await.unwrap(), Recalled::Unknown);
        // Once expired, the key is free, and soon gone.
        testing::execute(store, "UPDATE idempotency SET expires_at_ms = 1").await.unwrap();
        assert!(matches!(admit(2).await, Admitted::Taken { .. }));
        testing::execute(store, "UPDATE idempotency SET expires_at_ms = 1").await.unwrap();
        let end = Instant::now() + DEADLINE;
        while testing::select(store, "SELECT count(*) FROM idempotency").await.unwrap() > 0 {
            assert!(Instant::now() < end, "expired keys stay");
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_backlog_takes_all_of_a_request_or_none() {
    both(async |store| {
        let admit = async |count: usize| {
            let backlog = Backlog { max_messages: 3, max_bytes: 1 << 20 };
            let messages = (0..count).map(|n| message(&n.to_string())).collect();
            store.admit(Admission { backlog, ..admission(messages) }).await.unwrap()
        };
        assert!(matches!(admit(2).await, Admitted::Taken { .. }));
        assert!(matches!(admit(2).await, Admitted::BacklogFull));
        assert!(matches!(admit(1).await, Admitted::Taken { .. }));
        assert!(matches!(admit(1).await, Admitted::BacklogFull));
        let mut reading = Reading::open(store).await;
        let received = reading.take(3).await;
        reading.deliver(&received[0]).await;
        assert!(matches!(admit(1).await, Admitted::Taken { .. }));
        assert_eq!(left(store).await, 3);
    })
    .await;
}

#[tokio::test]
async fn who_waits_learns_how_it_ended() {
    both(async |store| {
        let waiting = Admission { wait: true, ..admission(vec![message("a"), message("b")]) };
        let Admitted::Taken { outcomes } = store.admit(waiting).await.unwrap() else { panic!("not taken") };
        let mut reading = Reading::open(store).await;
        let received = reading.take(2).await;
        reading.deliver(&received[0]).await;
        let settlement = Settlement::Postponed { after: Duration::from_secs(9), attempt: 2 };
        reading.settle(&received[1], Outcome { settlement, ..Outcome::default() }).await;
        let mut settlements = Vec::new();
        for outcome in outcomes {
            settlements.push(timeout(DEADLINE, outcome).await.unwrap().unwrap().settlement);
        }
        assert_eq!(settlements, [Settlement::Delivered, Settlement::Parked]);
    })
    .await;
}
