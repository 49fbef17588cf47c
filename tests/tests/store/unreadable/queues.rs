//! Queues: a message that cannot be opened stops no group.

use std::sync::Arc;

use sluicegate_store::queue::{
    Claimed, Consumer, Keeper, Kind, Progress, Publication, QueueError, Queues, Settings, Settle, Start, Which,
};
use sluicegate_store::{Store, StoreError, testing};
use tokio::time::timeout;

use super::{LIMIT, NOTHING, admit, encrypted, message, of_a_lost_key, read, sql, take};
use crate::both::{Fresh, blob, both_places};

async fn with_queue(store: &Arc<Store>, kind: Kind, messages: &[(&str, Option<&'static str>)]) -> Queues {
    let queues = Queues::new(Arc::clone(store));
    queues.create("q", &Settings { kind, ..Settings::default() }).await.unwrap();
    let publications = messages.iter().map(|(id, key)| Publication::new(message(id, *key))).collect();
    for published in queues.publish("q", publications).await.unwrap() {
        published.unwrap();
    }
    queues
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|one| one.message.id.as_str()).collect()
}

async fn claim(consumer: &Consumer) -> Vec<Claimed> {
    timeout(LIMIT, consumer.claim(9, u64::MAX)).await.expect("a message comes").unwrap()
}

async fn nothing_to_claim(consumer: &Consumer) {
    if let Ok(claimed) = timeout(NOTHING, consumer.claim(9, u64::MAX)).await {
        panic!("{claimed:?}");
    }
}

async fn done(consumer: &Consumer, claimed: &[Claimed]) {
    consumer.settle(&claimed.iter().map(|one| Settle::done(one.token)).collect::<Vec<_>>()).await.unwrap();
}

#[tokio::test]
async fn a_message_without_its_key_stops_no_group_and_comes_when_the_key_is_back() {
    both_places(async |fresh| {
        let store = encrypted(fresh).await;
        let queues = with_queue(&store, Kind::Normal, &[("m1", None), ("m2", None), ("m3", None)]).await;
        sql(&store, "CREATE TABLE kept AS SELECT body FROM queue_messages WHERE msg_offset = 2").await;
        let lost = blob(&store, &of_a_lost_key());
        sql(&store, &format!("UPDATE queue_messages SET body = {lost} WHERE msg_offset = 2")).await;
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        let claimed = claim(&consumer).await;
        assert_eq!(ids(&claimed), ["m1", "m3"]);
        done(&consumer, &claimed).await;
        nothing_to_claim(&consumer).await;
        let group = queues.group("q", "g").await.unwrap();
        assert_eq!((group.lag, group.pending, group.set_aside, group.lost), (0, 1, 1, 0));
        let progress = queues.progress("q", Which::Id("m2")).await.unwrap();
        assert!(matches!(progress[0].1, Progress::Retrying { attempt: 1, .. }), "{progress:?}");
        assert_eq!(queues.get("q").await.unwrap().messages, 3, "it stays");
        // What it looks like does not matter to who is new.
        let other = queues.join("q", "h", Start::Earliest).await.unwrap();
        assert_eq!(ids(&claim(&other).await), ["m1", "m3"]);

        sql(&store, "UPDATE queue_messages SET body = (SELECT body FROM kept) WHERE msg_offset = 2").await;
        nothing_to_claim(&consumer).await;
        let keeper = tokio::spawn(Keeper::new(&queues).run());
        testing::clock(&store).set_by(601_000);
        let back = claim(&consumer).await;
        assert_eq!((ids(&back), &back[0].message.body.bytes()[..]), (vec!["m2"], &b"body of m2"[..]));
        done(&consumer, &back).await;
        let group = queues.group("q", "g").await.unwrap();
        assert_eq!((group.lag, group.pending, group.set_aside), (0, 0, 0));
        keeper.abort();
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_changed_message_of_an_ordered_queue_lets_the_next_of_its_key_go_and_is_tried_by_who_joins() {
    both_places(async |fresh| {
        let store = encrypted(fresh).await;
        let of_a = [("a1", Some("a")), ("a2", Some("a")), ("b1", Some("b")), ("a3", Some("a"))];
        let queues = with_queue(&store, Kind::Ordered, &of_a).await;
        sql(&store, "CREATE TABLE kept AS SELECT head FROM queue_messages WHERE msg_offset = 1").await;
        let changed = "UPDATE queue_messages SET head = replace(head, '\"test\"', '\"tent\"') WHERE msg_offset = 1";
        assert_eq!(sql(&store, changed).await, 1);
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        let first = claim(&consumer).await;
        assert_eq!(ids(&first), ["b1"]);
        let second = claim(&consumer).await;
        assert_eq!(ids(&second), ["a2"]);
        nothing_to_claim(&consumer).await;
        done(&consumer, &second).await;
        assert_eq!(ids(&claim(&consumer).await), ["a3"]);
        // Still changed: it is set aside again.
        let other = queues.join("q", "g", Start::Earliest).await.unwrap();
        nothing_to_claim(&other).await;
        assert_eq!(queues.group("q", "g").await.unwrap().set_aside, 1);
        sql(&store, "UPDATE queue_messages SET head = (SELECT head FROM kept) WHERE msg_offset = 1").await;
        let third = queues.join("q", "g", Start::Earliest).await.unwrap();
        assert_eq!(ids(&claim(&third).await), ["a1"]);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_at_all_and_many_at_once_are_set_aside_too() {
    both_places(async |fresh| {
        let store = Arc::new(fresh.open().await);
        let names: Vec<String> = (0..40).map(|number| format!("m{number}")).collect();
        let messages: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
        let queues = with_queue(&store, Kind::Normal, &messages).await;
        // Not encrypted: a form nobody knows, none, a head that is no JSON.
        let (unknown, empty) = (blob(&store, &[77, 1]), blob(&store, &[]));
        sql(&store, &format!("UPDATE queue_messages SET body = {unknown} WHERE msg_offset <= 20")).await;
        sql(&store, &format!("UPDATE queue_messages SET body = {empty} WHERE msg_offset = 21")).await;
        sql(&store, "UPDATE queue_messages SET head = '{' WHERE msg_offset = 22").await;
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        let mut claimed = Vec::new();
        while claimed.len() < 18 {
            claimed.extend(claim(&consumer).await);
        }
        assert_eq!(claimed[0].message.id, "m22");
        nothing_to_claim(&consumer).await;
        assert_eq!(queues.group("q", "g").await.unwrap().set_aside, 22);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_body_of_a_queue_moved_to_another_message_is_refused() {
    both_places(async |fresh| {
        let store = encrypted(fresh).await;
        let queues = with_queue(&store, Kind::Normal, &[("m1", None), ("m2", None)]).await;
        let moved = "UPDATE queue_messages SET body = (SELECT body FROM queue_messages WHERE msg_offset = 2)";
        assert_eq!(sql(&store, moved).await, 2);
        let refused = queues.message("q", Which::Id("m1")).await.unwrap_err();
        let is_anothers =
            matches!(&refused, QueueError::Store(StoreError::Damaged { cause, .. }) if cause.contains("another's"));
        assert!(is_anothers, "{refused:?}");
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        assert_eq!(ids(&claim(&consumer).await), ["m2"]);
        // Nor is it another queue's.
        queues.create("r", &Settings::default()).await.unwrap();
        queues.publish("r", vec![Publication::new(message("m1", None))]).await.unwrap().remove(0).unwrap();
        let row = "SELECT queue_id FROM queues WHERE name = 'r'";
        let copied = format!(
            "UPDATE queue_messages SET head = (SELECT head FROM queue_messages WHERE message_id = 'm2'), \
             body = (SELECT body FROM queue_messages WHERE message_id = 'm2') WHERE queue_id = ({row})"
        );
        assert_eq!(sql(&store, &copied).await, 1);
        assert!(queues.message("r", Which::Id("m1")).await.is_err());
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_gateway_without_the_key_claims_another_one_gets() {
    let fresh = Fresh::postgres().await;
    let keyless = Arc::new(fresh.open().await);
    let store = encrypted(&fresh).await;
    let queues = with_queue(&store, Kind::Normal, &[("m1", None)]).await;
    admit(&store, vec![message("a", None)]).await;
    let consumer = Queues::new(Arc::clone(&keyless)).join("q", "g", Start::Earliest).await.unwrap();
    let refused = timeout(LIMIT, consumer.claim(9, u64::MAX)).await.expect("an answer").unwrap_err();
    assert!(matches!(refused, QueueError::Store(StoreError::Encrypted { .. })), "{refused:?}");
    let mut reading = read(&keyless).await;
    let refused = timeout(LIMIT, reading.inlet.receive(9)).await.expect("an answer").unwrap_err();
    assert!(refused.text.contains("no master key"), "{refused}");
    // While that one is still there, and asks no more.
    let other = queues.join("q", "g", Start::Earliest).await.unwrap();
    let claimed = claim(&other).await;
    assert_eq!((ids(&claimed), claimed[0].message.attempt), (vec!["m1"], 1), "that was no attempt");
    assert_eq!(super::bodies(&take(&mut read(&store).await, 1).await), ["a"]);
    keyless.close().await;
    store.close().await;
}

#[tokio::test]
async fn bodies_that_were_sealed_for_no_place_stay_readable() {
    both_places(async |fresh| {
        let store = encrypted(fresh).await;
        let queues = with_queue(&store, Kind::Normal, &[("m1", None)]).await;
        admit(&store, vec![message("a", None)]).await;
        let before = blob(&store, &testing::seal_unbound(&store, b"as before").unwrap());
        sql(&store, &format!("UPDATE queue_messages SET body = {before}")).await;
        sql(&store, &format!("UPDATE inbox SET body = {before}, original_body = {before}")).await;
        let consumer = queues.join("q", "g", Start::Earliest).await.unwrap();
        assert_eq!(claim(&consumer).await[0].message.body.bytes(), &b"as before"[..]);
        let received = take(&mut read(&store).await, 1).await.remove(0);
        assert_eq!(received.message.body.bytes(), &b"as before"[..]);
        let original = received.resumption.and_then(|resumption| resumption.original).expect("another one");
        assert_eq!(original.body.bytes(), &b"as before"[..]);
        store.close().await;
    })
    .await;
}
