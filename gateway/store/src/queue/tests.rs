//! The queues on SQLite, and what only the inside can show: plans of queries, the keeper's steps.

mod batch;
mod plans;
mod property;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::message::{Message, now_ms};

use super::*;
use crate::change::{Change, Transaction};
use crate::error::StoreError;
use crate::{Location, Store};

/// A message with a key; the body is its number.
fn numbered(key: Option<&str>, number: usize) -> Publication {
    let mut message = Message::new("test", "numbered", number.to_string());
    message.id = format!("m{number}");
    message.key = key.map(|key| bytes::Bytes::from(key.to_owned()));
    Publication::new(message)
}

async fn open(folder: &tempfile::TempDir) -> Queues {
    Queues::new(Arc::new(Store::open(&Location::embedded(folder.path())).await.expect("a store")))
}

async fn publish(queues: &Queues, queue: &str, publications: Vec<Publication>) -> Vec<Published> {
    let results = queues.publish(queue, publications).await.expect("published");
    results.into_iter().map(|one| one.expect("published")).collect()
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|one| one.message.id.as_str()).collect()
}

/// What can be had at once.
async fn try_claim(consumer: &Consumer, max: usize) -> Vec<Claimed> {
    consumer.claim_now(max).await.expect("claimed")
}

/// As if so much more time had passed since all messages were published.
async fn pass(queues: &Queues, time: Duration) {
    queues.store.change(Pass(time.as_millis() as u64)).await.expect("time has passed");
}

struct Pass(u64);

#[async_trait]
impl Change for Pass {
    type Output = ();

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "let time pass"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        for (table, column) in [
            ("queue_messages", "published_at_ms"),
            ("queue_messages", "expires_at_ms"),
            ("queue_scheduled", "deliver_at_ms"),
            ("queue_scheduled", "expires_at_ms"),
        ] {
            transaction.execute(&format!("UPDATE {table} SET {column} = {column} - $1"), &[self.0.into()]).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_keeper_moves_what_is_due_once_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    queues.create("q", &Settings::default()).await.expect("a queue");
    let soon = now_ms() + 60_000;
    let at = |number: usize, at: u64| {
        let mut one = numbered(None, number);
        Arc::get_mut(&mut one.message).expect("not shared").deliver_at_ms = Some(at);
        one
    };
    let published = publish(&queues, "q", vec![at(1, soon + 1), at(2, soon), at(3, 1), at(4, soon + 3_600_000)]).await;
    assert_eq!(published[2].offset, Some(1), "a time that has passed is at once");
    assert_eq!((published[0].offset, published[0].deliver_at_ms), (None, Some(soon + 1)));
    let (a, b) = (Keeper::new(&queues), Keeper::new(&queues));
    assert_eq!(a.move_due().await, Ok(Some(soon)));
    pass(&queues, Duration::from_millis(60_001)).await;
    let (first, second) = tokio::join!(a.move_due(), b.move_due());
    first.and(second).expect("moved");
    let page = queues.messages("q", 10, None).await.expect("a page");
    assert_eq!(page.items.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["m3", "m2", "m1"]);
    let queue = queues.get("q").await.expect("the queue");
    assert_eq!((queue.messages, queue.scheduled, queue.last_offset), (3, 1, 3));
}

#[tokio::test]
async fn retention_removes_the_old_and_a_group_behind_counts_them_as_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    let retention = Retention { max_age: Duration::from_secs(1), ..Retention::default() };
    queues.create("q", &Settings { retention, ..Settings::default() }).await.expect("a queue");
    let consumer = queues.join("q", "g", Start::Earliest).await.expect("a consumer");
    publish(&queues, "q", (0..1_200).map(|number| numbered(None, number)).take(1_000).collect()).await;
    let claimed = consumer.claim(10, u64::MAX).await.expect("claimed");
    pass(&queues, Duration::from_secs(2)).await;
    publish(&queues, "q", vec![numbered(None, 5_000)]).await;
    Keeper::new(&queues).retain().await.expect("retained");
    let queue = queues.get("q").await.expect("the queue");
    let group = queues.group("q", "g").await.expect("the group");
    assert_eq!((queue.messages, group.lost, group.lag, group.pending), (1, 990, 1, 10));
    // What it has it may settle or give back; given back it is lost.
    consumer.settle(&[Settle::done(claimed[0].token)]).await.expect("settled");
    let back: Vec<Settle> = claimed[1..].iter().map(|one| Settle::release(one.token, Duration::ZERO)).collect();
    consumer.settle(&back).await.expect("settled");
    assert_eq!(ids(&consumer.claim(20, u64::MAX).await.expect("claimed")), ["m5000"]);
    let group = queues.group("q", "g").await.expect("the group");
    assert_eq!((group.lost, group.lag, group.pending), (999, 0, 1));
}

#[tokio::test]
async fn what_expires_is_not_given_out_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    queues.create("q", &Settings::default()).await.expect("a queue");
    for group in ["g", "h"] {
        queues.create_group("q", group, Start::Earliest).await.expect("a group");
    }
    let short = |number| Publication { ttl: Some(Duration::from_secs(60)), ..numbered(None, number) };
    publish(&queues, "q", vec![numbered(None, 1), short(2), numbered(None, 3), short(4)]).await;
    pass(&queues, Duration::from_secs(61)).await;
    let consumer = queues.join("q", "g", Start::Earliest).await.expect("a consumer");
    assert_eq!(ids(&try_claim(&consumer, 10).await), ["m1", "m3"]);
    assert!(try_claim(&consumer, 10).await.is_empty());
    Keeper::new(&queues).retain().await.expect("retained");
    for group in ["g", "h"] {
        assert_eq!(queues.group("q", group).await.expect("the group").expired, 2, "{group}");
    }
    assert_eq!(queues.get("q").await.expect("the queue").messages, 2);
}

#[tokio::test]
async fn what_is_left_of_a_deleted_queue_goes_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    queues.create("q", &Settings::default()).await.expect("a queue");
    publish(&queues, "q", (0..1_000).map(|number| numbered(None, number)).collect()).await;
    let consumer = queues.join("q", "g", Start::Earliest).await.expect("a consumer");
    queues.delete("q").await.expect("deleted");
    assert!(matches!(consumer.claim(1, 1).await, Err(QueueError::GroupNotFound { .. })));
    assert!(matches!(queues.get("q").await, Err(QueueError::NotFound { .. })));
    assert!(matches!(queues.publish("q", vec![numbered(None, 1)]).await, Err(QueueError::NotFound { .. })));
    queues.create("q", &Settings::default()).await.expect("a new queue");
    assert_eq!(queues.messages("q", 10, None).await.expect("a page").items, []);
}
