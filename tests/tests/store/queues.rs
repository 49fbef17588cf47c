//! Queues in either database: publishing, limits, groups, order, several gateways.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::message::{Message, now_ms};
use sluicegate_store::Store;
use sluicegate_store::queue::{
    AtLimit, Claimed, Compression, Consumer, Keeper, Kind, Position, Publication, QueueError, Queues, Retention,
    Settings, Settle, Start, Which,
};
use sluicegate_tests::eventually;

use crate::both::{Fresh, both_places};

fn numbered(number: usize) -> Publication {
    let mut message = Message::new("test", "numbered", format!("{{\"number\":{number}}}"));
    message.id = format!("m{number}");
    Publication::new(message)
}

fn keyed(number: usize, key: &'static str) -> Publication {
    let mut one = numbered(number);
    Arc::get_mut(&mut one.message).unwrap().key = Some(key.into());
    one
}

async fn publish(queues: &Queues, publications: Vec<Publication>) {
    for one in queues.publish("q", publications).await.unwrap() {
        one.unwrap();
    }
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|one| one.message.id.as_str()).collect()
}

async fn done(consumer: &Consumer, claimed: &[Claimed]) {
    consumer.settle(&claimed.iter().map(|one| Settle::done(one.token)).collect::<Vec<_>>()).await.unwrap();
}

/// A store, and a queue `q` in it.
async fn with_queue(fresh: &Fresh, settings: Settings) -> (Arc<Store>, Queues) {
    let store = Arc::new(fresh.open().await);
    let queues = Queues::new(Arc::clone(&store));
    queues.create("q", &settings).await.unwrap();
    (store, queues)
}

#[tokio::test]
async fn a_queue_is_made_once_changed_by_its_revision_and_gone_when_deleted() {
    both_places(async |fresh| {
        let (_store, queues) = with_queue(fresh, Settings::default()).await;
        let made = queues.create("q", &Settings::default()).await.unwrap();
        assert_eq!((made.revision, made.messages, made.groups), (1, 0, 0));
        let zstd = Settings { compression: Compression::Zstd, ..Settings::default() };
        assert_eq!(queues.create("q", &zstd).await, Err(QueueError::Exists { queue: "q".to_owned() }));
        assert_eq!(queues.update("q", 1, &zstd).await.unwrap().revision, 2);
        let conflict = QueueError::Conflict { queue: "q".to_owned(), revision: 2 };
        assert_eq!(queues.update("q", 1, &zstd).await, Err(conflict));
        let other = Settings { kind: Kind::Ordered, ..zstd };
        assert!(matches!(queues.update("q", 2, &other).await, Err(QueueError::Invalid { .. })));
        assert!(matches!(queues.create("a b", &other).await, Err(QueueError::Invalid { .. })));
        queues.create("r", &other).await.unwrap();
        let first = queues.list(1, None).await.unwrap();
        let second = queues.list(1, first.next.as_deref()).await.unwrap();
        assert_eq!((&*first.items[0].name, &*second.items[0].name, second.next), ("q", "r", None));
        queues.delete("q").await.unwrap();
        assert_eq!(queues.get("q").await, Err(QueueError::NotFound { queue: "q".to_owned() }));
    })
    .await;
}

#[tokio::test]
async fn the_highest_priority_comes_first_then_the_oldest_and_what_failed_comes_again() {
    both_places(async |fresh| {
        let (_store, queues) =
            with_queue(fresh, Settings { compression: Compression::Zstd, ..Settings::default() }).await;
        let with = |number, priority| Publication { priority: Some(priority), ..numbered(number) };
        publish(&queues, vec![numbered(1), with(2, 9), with(3, 0), numbered(4), with(5, 9)]).await;
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        let claimed = consumer.claim(3, u64::MAX).await.unwrap();
        assert_eq!(ids(&claimed), ["m2", "m5", "m1"]);
        assert_eq!(claimed[0].message.body.bytes(), &b"{\"number\":2}"[..]);
        consumer.settle(&[Settle::release(claimed[1].token, Duration::ZERO)]).await.unwrap();
        let again = consumer.claim(9, u64::MAX).await.unwrap();
        assert_eq!(ids(&again), ["m5", "m4", "m3"]);
        assert_eq!((again[0].message.attempt, again[1].message.attempt), (2, 1));
        // A consumer that leaves gives back what it has.
        done(&consumer, &again).await;
        consumer.leave().await.unwrap();
        let other = queues.join("q", "g", Start::Earliest).await.unwrap();
        assert_eq!(ids(&other.claim(9, u64::MAX).await.unwrap()), ["m2", "m1"]);
        let group = queues.group("q", "g").await.unwrap();
        assert_eq!((group.lag, group.pending, group.consumers), (0, 2, 1));
    })
    .await;
}

#[tokio::test]
async fn of_a_key_one_message_at_a_time_is_given_out_in_order() {
    both_places(async |fresh| {
        let (_store, queues) = with_queue(fresh, Settings { kind: Kind::Ordered, ..Settings::default() }).await;
        publish(&queues, vec![keyed(1, "a"), keyed(2, "a"), keyed(3, "b"), keyed(4, "a"), numbered(5)]).await;
        let (one, two) = (
            queues.join("q", "g", Start::Earliest).await.unwrap(),
            queues.join("q", "g", Start::Earliest).await.unwrap(),
        );
        let first = one.claim(9, u64::MAX).await.unwrap();
        assert_eq!(ids(&first), ["m1", "m3", "m5"]);
        // Given back, it comes before the others of its key.
        one.settle(&[Settle::release(first[0].token, Duration::ZERO)]).await.unwrap();
        let again = two.claim(9, u64::MAX).await.unwrap();
        assert_eq!(ids(&again), ["m1"]);
        done(&two, &again).await;
        let next = two.claim(9, u64::MAX).await.unwrap();
        assert_eq!(ids(&next), ["m2"]);
        queues.delete_message("q", Which::Offset(2)).await.unwrap();
        assert_eq!(ids(&two.claim(9, u64::MAX).await.unwrap()), ["m4"]);
        let refused = queues.publish("q", vec![Publication { priority: Some(1), ..numbered(6) }]).await.unwrap();
        assert!(matches!(refused[0], Err(QueueError::Invalid { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_refuses_until_its_groups_have_settled_or_drops_the_oldest() {
    both_places(async |fresh| {
        let retention = Retention { max_messages: Some(3), ..Retention::default() };
        let settings = Settings { retention, max_message_bytes: 1_000, ..Settings::default() };
        let (_store, queues) = with_queue(fresh, settings.clone()).await;
        let results = queues.publish("q", (0..4).map(numbered).collect()).await.unwrap();
        assert!(results[..3].iter().all(Result::is_ok) && matches!(results[3], Err(QueueError::Full { .. })));
        let large = Publication::new(Message::new("test", "large", vec![7; 1_001]));
        let refused = queues.publish("q", vec![large]).await.unwrap();
        assert!(matches!(refused[0], Err(QueueError::TooLarge { limit_bytes: 1_000, .. })));
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        done(&consumer, &consumer.claim(1, 1).await.unwrap()).await;
        let results = queues.publish("q", vec![numbered(5), numbered(6)]).await.unwrap();
        assert!(results[0].is_ok() && matches!(results[1], Err(QueueError::Full { .. })));
        let drop_oldest = Retention { at_limit: AtLimit::DropOldest, ..retention };
        queues.update("q", 1, &Settings { retention: drop_oldest, ..settings }).await.unwrap();
        publish(&queues, vec![numbered(7), numbered(8)]).await;
        let kept = queues.messages("q", 10, None).await.unwrap();
        assert_eq!(kept.items.iter().map(|one| &*one.id).collect::<Vec<_>>(), ["m5", "m7", "m8"]);
        assert_eq!(queues.group("q", "g").await.unwrap().lost, 2);
    })
    .await;
}

#[tokio::test]
async fn groups_read_on_their_own_pause_and_go_back() {
    both_places(async |fresh| {
        let (_store, queues) = with_queue(fresh, Settings::default()).await;
        publish(&queues, (0..5).map(numbered).collect()).await;
        queues.create_group("q", "late", Start::Latest).await.unwrap();
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        done(&consumer, &consumer.claim(9, u64::MAX).await.unwrap()).await;
        assert_eq!(queues.groups("q").await.unwrap().iter().map(|group| group.lag).collect::<Vec<_>>(), [0, 0]);
        queues.pause("q", "g").await.unwrap();
        queues.reset("q", "g", Position::Offset(4)).await.unwrap();
        let waiting = tokio::spawn(async move { (consumer.claim(9, u64::MAX).await.unwrap(), consumer) });
        assert!(queues.group("q", "g").await.unwrap().paused);
        queues.resume("q", "g").await.unwrap();
        let (claimed, consumer) = waiting.await.unwrap();
        assert_eq!(ids(&claimed), ["m3", "m4"]);
        // What was given out before a reset settles nothing of after it.
        queues.reset("q", "g", Position::Time(0)).await.unwrap();
        done(&consumer, &claimed).await;
        assert_eq!(ids(&consumer.claim(9, u64::MAX).await.unwrap()), ["m0", "m1", "m2", "m3", "m4"]);
        assert_eq!(queues.purge("q").await, Ok(5));
        assert_eq!(queues.group("q", "g").await.unwrap().pending, 0);
        queues.delete_group("q", "late").await.unwrap();
        assert!(matches!(queues.group("q", "late").await, Err(QueueError::GroupNotFound { .. })));
    })
    .await;
}

#[tokio::test]
async fn scheduled_messages_come_at_their_time_unless_they_are_cancelled() {
    both_places(async |fresh| {
        let (store, queues) = with_queue(fresh, Settings { kind: Kind::Delay, ..Settings::default() }).await;
        let keeper = tokio::spawn(Keeper::new(&queues).run());
        let at = |number, at_ms| {
            let mut one = numbered(number);
            Arc::get_mut(&mut one.message).unwrap().deliver_at_ms = Some(at_ms);
            one
        };
        let due = now_ms() + 700;
        publish(&queues, vec![at(1, due), at(2, due), at(3, due + 86_400_000)]).await;
        queues.cancel("q", "m2").await.unwrap();
        assert_eq!(queues.scheduled("q", 10, None).await.unwrap().items.len(), 2);
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        let claimed = consumer.claim(9, u64::MAX).await.unwrap();
        let late = now_ms().saturating_sub(due);
        assert!(now_ms() >= due && late < 1_000, "{late} ms late");
        assert_eq!(ids(&claimed), ["m1"]);
        assert!(matches!(queues.cancel("q", "m1").await, Err(QueueError::Claimed { .. })));
        let far = queues.publish("q", vec![at(4, now_ms() + 31 * 86_400_000)]).await.unwrap();
        assert!(matches!(far[0], Err(QueueError::Invalid { .. })));
        keeper.abort();
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn two_gateways_share_a_group_and_what_one_had_claimed_comes_again() {
    let fresh = Fresh::postgres().await;
    let (one, queues) = with_queue(&fresh, Settings::default()).await;
    let two = Arc::new(fresh.open().await);
    let others = Queues::new(Arc::clone(&two));
    let (a, b) =
        (queues.join("q", "g", Start::Earliest).await.unwrap(), others.join("q", "g", Start::Earliest).await.unwrap());
    // Waiting for what another gateway publishes.
    let waiting = tokio::spawn(async move { (b.claim(1, u64::MAX).await.unwrap(), b) });
    publish(&queues, vec![numbered(1)]).await;
    let (first, b) = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    publish(&queues, (2..100).map(numbered).collect()).await;
    let (ours, theirs) = tokio::join!(a.claim(40, u64::MAX), b.claim(40, u64::MAX));
    let mut all: Vec<u64> = ours.unwrap().iter().chain(&theirs.unwrap()).chain(&first).map(|one| one.offset).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!((count, all.len()), (81, 81), "each message goes to one of them");
    // Ends without settling: its claims are free at once.
    one.close().await;
    eventually("the other gets all of it", Duration::from_secs(20), async || {
        let claimed = tokio::time::timeout(Duration::from_secs(1), b.claim(500, u64::MAX)).await;
        match claimed {
            Ok(_) if others.group("q", "g").await?.lag == 0 => Ok(()),
            _ => anyhow::bail!("not yet"),
        }
    })
    .await;
    assert_eq!(others.group("q", "g").await.unwrap().pending, 99);
}
