//! A clock that is set an hour forward or back: nothing comes early by more than that, and nothing is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::deduplication::Deduplication;
use sluicegate_engine::delivery::{Outcome, Received, Settled, Settlement};
use sluicegate_engine::inbox::{Entry, Inbox, Progress, Waypoint};
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::source::{Connection, Source};
use sluicegate_store::deduplication::StoreDeduplication;
use sluicegate_store::idempotency::{Idempotency, StoredAnswer};
use sluicegate_store::inbox::{Admission, Admitted, Backlog, StoreInbox};
use sluicegate_store::queue::{
    Claimed, Consumer, Keeper, Kind, Publication, Queues, Retention, Settings, Settle, Start,
};
use sluicegate_store::{Store, testing};
use sluicegate_tests::eventually;
use tokio::time::timeout;

use crate::both::{Fresh, both};
use crate::dead_letters::sample;

const HOUR_MS: i64 = 3_600_000;
const HOUR: Duration = Duration::from_secs(3_600);
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for what must not come: longer than the longest sleep toward a time.
const NOTHING: Duration = Duration::from_millis(1_500);

fn orders() -> Arc<str> {
    "orders".into()
}

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), ..Message::new("/test", "test", id.to_owned()) }
}

struct Reading {
    connection: Connection,
    _source: Box<dyn Source>,
}

impl Reading {
    async fn open(store: &Arc<Store>) -> Self {
        let mut source = StoreInbox::new(Arc::clone(store), &orders()).source(Lanes::default());
        Self { connection: source.connect().await.unwrap(), _source: source }
    }

    async fn take(&mut self, count: usize) -> Vec<Received> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.extend(timeout(LIMIT, self.connection.inlet.receive(16)).await.expect("it comes").unwrap());
        }
        taken
    }

    async fn nothing(&mut self) {
        if let Ok(received) = timeout(NOTHING, self.connection.inlet.receive(16)).await {
            panic!("too early: {received:?}");
        }
    }

    async fn settle(&mut self, received: Received, settlement: Settlement) {
        let outcome = Outcome { settlement, ..Outcome::default() };
        let settled = Settled::new(received.token, Arc::new(received.message), outcome);
        self.connection.settler.settle(&[settled]).await.unwrap();
    }
}

fn parked(id: &str, not_before_ms: u64) -> Entry {
    let message = Arc::new(message(id));
    let progress = Progress { waypoint: Waypoint::Start, attempt: 2, received_at_ms: now_ms(), ..Progress::default() };
    Entry { original: Arc::clone(&message), message, progress, not_before_ms, ordered: false }
}

fn admission(id: &str) -> Admission {
    let backlog = Backlog { max_messages: 1_000, max_bytes: 1 << 20 };
    let messages = vec![message(id)];
    Admission { pipeline: orders(), messages, ordered: false, idempotency: None, wait: false, backlog }
}

fn ids(received: &[Received]) -> Vec<&str> {
    received.iter().map(|received| received.message.id.as_str()).collect()
}

#[tokio::test]
async fn a_parked_message_comes_early_by_what_the_clock_was_set_forward_and_no_more() {
    both(async |store| {
        let (clock, mut reading) = (testing::clock(store), Reading::open(store).await);
        let inbox = StoreInbox::new(Arc::clone(store), &orders());
        inbox.park(parked("in two hours", now_ms() + 2 * HOUR_MS as u64)).await.unwrap();
        reading.nothing().await;
        clock.set_by(HOUR_MS);
        reading.nothing().await;
        clock.set_by(2 * HOUR_MS);
        let received = reading.take(1).await.remove(0);
        // Postponed by an hour of this clock, which is then set right: it waits an hour more, and is there.
        reading.settle(received, Settlement::Postponed { after: HOUR, attempt: 3 }).await;
        clock.set_by(0);
        reading.nothing().await;
        clock.set_by(HOUR_MS * 29 / 10);
        reading.nothing().await;
        clock.set_by(3 * HOUR_MS);
        assert_eq!(ids(&reading.take(1).await), ["in two hours"]);
    })
    .await;
}

#[tokio::test]
async fn a_clock_set_back_keeps_what_waits_and_what_is_ready_goes_on_in_its_order() {
    both(async |store| {
        let (clock, mut reading) = (testing::clock(store), Reading::open(store).await);
        let inbox = StoreInbox::new(Arc::clone(store), &orders());
        inbox.park(parked("soon", now_ms() + 500)).await.unwrap();
        clock.set_by(-HOUR_MS);
        reading.nothing().await;
        // What is ready at once is no matter of the clock.
        store.admit(admission("a")).await.unwrap();
        let a = reading.take(1).await.remove(0);
        clock.set_by(HOUR_MS);
        store.admit(admission("b")).await.unwrap();
        clock.set_by(-HOUR_MS);
        for id in ["c", "d"] {
            store.admit(admission(id)).await.unwrap();
        }
        let mut rest = reading.take(3).await;
        assert_eq!((ids(std::slice::from_ref(&a)), ids(&rest)), (vec!["a"], vec!["b", "c", "d"]));
        rest.push(a);
        for received in rest {
            reading.settle(received, Settlement::Delivered).await;
        }
        clock.set_by(0);
        assert_eq!(ids(&reading.take(1).await), ["soon"]);
    })
    .await;
}

#[tokio::test]
async fn a_restart_on_a_clock_set_back_finds_all_that_was_put_in_before() {
    crate::both::both_places(async |fresh| {
        let store = Arc::new(fresh.open().await);
        testing::clock(&store).set_by(HOUR_MS);
        for id in ["a", "b"] {
            store.admit(admission(id)).await.unwrap();
        }
        store.close().await;
        drop(store);
        let store = Arc::new(fresh.open().await);
        let mut reading = Reading::open(&store).await;
        store.admit(admission("c")).await.unwrap();
        let mut received = reading.take(3).await;
        received.sort_by(|one, other| one.message.id.cmp(&other.message.id));
        assert_eq!(ids(&received), ["a", "b", "c"]);
        store.close().await;
    })
    .await;
}

fn publication(id: &str, deliver_at_ms: Option<u64>, ttl: Option<Duration>) -> Publication {
    Publication { ttl, ..Publication::new(Message { deliver_at_ms, ..message(id) }) }
}

async fn publish(queues: &Queues, publications: Vec<Publication>) {
    for published in queues.publish("q", publications).await.unwrap() {
        published.unwrap();
    }
}

async fn claim(consumer: &Consumer) -> Vec<Claimed> {
    timeout(LIMIT, consumer.claim(9, u64::MAX)).await.expect("it comes").unwrap()
}

async fn nothing_to_claim(consumer: &Consumer) {
    if let Ok(claimed) = timeout(NOTHING, consumer.claim(9, u64::MAX)).await {
        panic!("too early: {claimed:?}");
    }
}

fn claimed_ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|one| one.message.id.as_str()).collect()
}

#[tokio::test]
async fn delayed_and_scheduled_messages_and_those_given_back_keep_to_the_clock() {
    both(async |store| {
        let (clock, queues) = (testing::clock(store), Queues::new(Arc::clone(store)));
        let settings = Settings { kind: Kind::Delay, delay: Some(2 * HOUR), ..Settings::default() };
        queues.create("q", &settings).await.unwrap();
        let keeper = tokio::spawn(Keeper::new(&queues).run());
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        let in_two_hours = now_ms() + 2 * HOUR_MS as u64;
        publish(&queues, vec![publication("scheduled", Some(in_two_hours), None), publication("delayed", None, None)])
            .await;
        clock.set_by(-HOUR_MS);
        nothing_to_claim(&consumer).await;
        clock.set_by(HOUR_MS);
        nothing_to_claim(&consumer).await;
        let set = Instant::now();
        clock.set_by(2 * HOUR_MS + 1_000);
        let mut claimed = claim(&consumer).await;
        while claimed.len() < 2 {
            claimed.extend(claim(&consumer).await);
        }
        assert!(set.elapsed() < Duration::from_secs(3), "after {:?}", set.elapsed());
        assert_eq!(claimed_ids(&claimed), ["scheduled", "delayed"]);
        // Given back for an hour, then the clock is set right: it waits for the three hours, and comes.
        consumer.settle(&[Settle::release(claimed[0].token, HOUR), Settle::done(claimed[1].token)]).await.unwrap();
        clock.set_by(0);
        nothing_to_claim(&consumer).await;
        clock.set_by(3 * HOUR_MS + 1_000);
        assert_eq!(claimed_ids(&claim(&consumer).await), ["scheduled"]);
        keeper.abort();
    })
    .await;
}

#[tokio::test]
async fn retention_and_expiry_of_queues_are_early_by_what_the_clock_was_set_and_no_more() {
    both(async |store| {
        let (clock, queues) = (testing::clock(store), Queues::new(Arc::clone(store)));
        let retention = Retention { max_age: 4 * HOUR, ..Retention::default() };
        queues.create("q", &Settings { retention, ..Settings::default() }).await.unwrap();
        // Published on a clock that is ahead: places and times of a queue never go back.
        publish(&queues, vec![publication("old", None, None), publication("short", None, Some(2 * HOUR))]).await;
        let messages = async || queues.get("q").await.unwrap().messages;
        for (set_by_ms, left) in [(-HOUR_MS, 2), (HOUR_MS, 2), (2 * HOUR_MS + 1_000, 1), (3 * HOUR_MS, 1)] {
            clock.set_by(set_by_ms);
            // The first thing that a keeper does.
            let keeper = tokio::spawn(Keeper::new(&queues).run());
            eventually(&format!("{left} are left at {set_by_ms} ms"), LIMIT, async || {
                anyhow::ensure!(messages().await == left, "{}", messages().await);
                Ok(())
            })
            .await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(messages().await, left, "at {set_by_ms} ms");
            keeper.abort();
        }
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        assert_eq!(claimed_ids(&claim(&consumer).await), ["old"]);
        clock.set_by(4 * HOUR_MS + 1_000);
        let keeper = tokio::spawn(Keeper::new(&queues).run());
        eventually("the old one goes", LIMIT, async || {
            anyhow::ensure!(messages().await == 0, "it is there");
            Ok(())
        })
        .await;
        keeper.abort();
    })
    .await;
}

#[tokio::test]
async fn keys_are_known_for_their_time_give_or_take_what_the_clock_was_set() {
    both(async |store| {
        let clock = testing::clock(store);
        let admit = async || {
            let answer = StoredAnswer { status: 202, body: Bytes::from_static(b"{}") };
            let idempotency = Idempotency { key: "k".into(), fingerprint: [1; 32], answer, ttl: 2 * HOUR };
            store.admit(Admission { idempotency: Some(idempotency), ..admission("a") }).await.unwrap()
        };
        let deduplication = StoreDeduplication::new(Arc::clone(store), &orders(), 2 * HOUR);
        let delivered = message("delivered");
        let knows = async || {
            let was_delivered = deduplication.was_delivered(&delivered).await.unwrap();
            deduplication.ended(&delivered);
            was_delivered
        };
        assert!(!knows().await);
        assert!(matches!(admit().await, Admitted::Taken { .. }));
        deduplication.remember(&delivered).await.unwrap();
        for set_by_ms in [0, -HOUR_MS, HOUR_MS] {
            clock.set_by(set_by_ms);
            assert!(matches!(admit().await, Admitted::Repeated(_)), "at {set_by_ms} ms");
            assert!(knows().await, "at {set_by_ms} ms");
        }
        clock.set_by(2 * HOUR_MS + 1_000);
        assert!(!knows().await);
        assert!(matches!(admit().await, Admitted::Taken { .. }));
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_kept_for_their_time_give_or_take_what_the_clock_was_set() {
    both(async |store| {
        let clock = testing::clock(store);
        store.record(&Arc::new(DeadLetter { failed_at_ms: now_ms(), ..sample::letter() })).await.unwrap();
        let keep_ms = Some(2 * HOUR_MS as u64);
        for (set_by_ms, goes) in [(-HOUR_MS, 0), (HOUR_MS, 0), (2 * HOUR_MS + 1_000, 1)] {
            clock.set_by(set_by_ms);
            assert_eq!(store.trim_letters(keep_ms, None).await, Ok(goes), "at {set_by_ms} ms");
        }
    })
    .await;
}

#[tokio::test]
async fn no_gateway_is_swept_because_a_clock_was_set_and_a_dead_one_is_whatever_it_says() {
    let fresh = Fresh::postgres().await;
    let (one, other) = (Arc::new(fresh.open().await), Arc::new(fresh.open().await));
    let queues = Queues::new(Arc::clone(&one));
    queues.create("q", &Settings::default()).await.unwrap();
    publish(&queues, vec![publication("held", None, None)]).await;
    let held = queues.join("q", "g", Start::Earliest).await.unwrap();
    assert_eq!(claimed_ids(&claim(&held).await), ["held"]);
    let both_live = async || {
        let mut alive = vec![testing::owner(&one), testing::owner(&other)];
        alive.sort();
        assert_eq!(testing::gateways(&one).await, Ok(alive));
    };
    // As a gateway would leave it that died on a clock two hours ahead.
    let ahead = now_ms() + 2 * HOUR_MS as u64;
    let died = Instant::now();
    testing::execute(&one, &format!("INSERT INTO gateways (id, seen_at_ms) VALUES ('dead', {ahead})")).await.unwrap();
    testing::clock(&one).set_by(HOUR_MS);
    testing::clock(&other).set_by(-HOUR_MS);
    eventually("the dead one is swept", testing::TERM + Duration::from_secs(8), async || {
        let gateways = testing::gateways(&other).await?;
        anyhow::ensure!(!gateways.contains(&"dead".to_owned()), "{gateways:?}");
        Ok(())
    })
    .await;
    assert!(died.elapsed() >= testing::TERM, "after {:?}", died.elapsed());
    both_live().await;
    // Set again, the other way round, and by a beat or two.
    testing::clock(&one).set_by(-HOUR_MS);
    testing::clock(&other).set_by(HOUR_MS);
    tokio::time::sleep(Duration::from_secs(7)).await;
    both_live().await;
    let others = Queues::new(Arc::clone(&other)).join("q", "g", Start::Earliest).await.unwrap();
    nothing_to_claim(&others).await;
    one.close().await;
    other.close().await;
}
