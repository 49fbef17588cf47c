//! Batches that are published whole, keys that publish once, and how far groups are with a message.

use super::*;

fn once(key: &str, fingerprint: u8) -> Option<Once> {
    Some(Once { key: key.into(), fingerprint: [fingerprint; 32], ttl: Duration::from_secs(60) })
}

fn batch(count: usize) -> Vec<Publication> {
    (0..count).map(|number| numbered(None, number)).collect()
}

#[tokio::test]
async fn a_batch_without_room_for_all_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    for at_limit in [AtLimit::Refuse, AtLimit::DropOldest] {
        let name = at_limit.name();
        let retention = Retention { max_messages: Some(3), at_limit, ..Retention::default() };
        queues.create(name, &Settings { retention, ..Settings::default() }).await.expect("a queue");
        publish(&queues, name, batch(2)).await;
        match queues.publish_all(name, batch(4), None).await {
            Err(QueueError::InBatch { index: 3, error }) => assert!(matches!(*error, QueueError::Full { .. })),
            other => panic!("{other:?}"),
        }
        assert_eq!(queues.get(name).await.expect("a queue").messages, 2, "nothing makes room for what cannot have it");
    }
    match queues.publish_all("refuse", batch(2), None).await {
        Err(QueueError::InBatch { index: 1, error }) => assert!(matches!(*error, QueueError::Full { .. })),
        other => panic!("{other:?}"),
    }
    assert_eq!(queues.get("refuse").await.expect("a queue").messages, 2);
    let done = queues.publish_all("drop_oldest", batch(2), None).await.expect("published");
    assert_eq!(done.published.iter().map(|one| one.offset).collect::<Vec<_>>(), [Some(3), Some(4)]);
    assert_eq!(queues.get("drop_oldest").await.expect("a queue").messages, 3);
    for count in [0, MAX_BATCH_MESSAGES + 1] {
        let refused = queues.publish_all("refuse", batch(count), None).await.expect_err("too few or many");
        assert!(matches!(refused, QueueError::Invalid { .. }), "{refused:?}");
    }
}

#[tokio::test]
async fn a_message_that_is_not_taken_takes_its_batch_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    let settings = Settings { max_message_bytes: 1_000, ..Settings::default() };
    queues.create("q", &settings).await.expect("a queue");
    let large = Publication::new(Message::new("test", "large", "x".repeat(2_000)));
    let mixed = vec![numbered(None, 1), large.clone()];
    match queues.publish_all("q", mixed, once("k", 1)).await {
        Err(QueueError::InBatch { index: 1, error }) => assert!(matches!(*error, QueueError::TooLarge { .. })),
        other => panic!("{other:?}"),
    }
    // Another gateway lets it take more: what was known of it here is looked up again.
    let elsewhere = Queues::new(Arc::clone(&queues.store));
    let more = Settings { max_message_bytes: 10_000, ..settings };
    elsewhere.update("q", 1, &more).await.expect("updated");
    let done = queues.publish_all("q", vec![large], once("k", 1)).await.expect("published");
    assert!(!done.repeated, "what was refused has left no key behind");
}

#[tokio::test]
async fn a_key_publishes_once_even_at_the_same_time_and_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    for name in ["q", "r"] {
        queues.create(name, &Settings::default()).await.expect("a queue");
    }
    let later = |number: usize| {
        let mut one = numbered(None, number);
        Arc::get_mut(&mut one.message).expect("not shared").deliver_at_ms = Some(now_ms() + 3_600_000);
        one
    };
    let publish = async |number: usize| {
        let batch = vec![numbered(None, number), later(number + 1)];
        queues.publish_all("q", batch, once("k", 1)).await.expect("published")
    };
    let (a, b) = tokio::join!(publish(1), publish(10));
    assert_ne!(a.repeated, b.repeated, "one of them published");
    assert_eq!(a.published, b.published, "and both are told the same");
    let reused = queues.publish_all("q", batch(1), once("k", 2)).await.expect_err("another request");
    assert_eq!(reused, QueueError::KeyReused { queue: "q".to_owned() });
    assert!(!queues.publish_all("r", batch(1), once("k", 2)).await.expect("another queue").repeated);
    queues.store.close().await;
    drop(queues);

    let queues = open(&folder).await;
    let again = queues.publish_all("q", batch(1), once("k", 1)).await.expect("answered");
    assert_eq!((again.repeated, again.published), (true, a.published));
    let queue = queues.get("q").await.expect("a queue");
    assert_eq!((queue.messages, queue.scheduled), (1, 1));
    // A queue made anew knows nothing of its predecessor's keys.
    queues.delete("q").await.expect("deleted");
    queues.create("q", &Settings::default()).await.expect("a queue");
    assert!(!queues.publish_all("q", batch(1), once("k", 1)).await.expect("published").repeated);
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    queues.create("q", &Settings::default()).await.expect("a queue");
    let brief = |fingerprint| Some(Once { ttl: Duration::ZERO, ..once("k", fingerprint).expect("a key") });
    assert!(!queues.publish_all("q", batch(1), brief(1)).await.expect("published").repeated);
    assert!(!queues.publish_all("q", batch(1), brief(2)).await.expect("published").repeated);
}

#[tokio::test]
async fn progress_follows_a_message_from_waiting_to_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    queues.create("q", &Settings { kind: Kind::Ordered, ..Settings::default() }).await.expect("a queue");
    publish(&queues, "q", vec![numbered(Some("k"), 1), numbered(Some("k"), 2), numbered(Some("l"), 3)]).await;
    let consumer = queues.join("q", "g", Start::Earliest).await.expect("joined");
    queues.create_group("q", "idle", Start::Earliest).await.expect("a group");
    queues.create_group("q", "late", Start::Latest).await.expect("a group");
    let progress = async |id: &str| {
        let all = queues.progress("q", Which::Id(id)).await.expect("progress");
        assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["g", "idle", "late"]);
        assert_eq!((all[1].1, all[2].1), (Progress::Waiting, Progress::Done));
        all[0].1
    };
    assert_eq!(progress("m1").await, Progress::Waiting);
    let claimed = try_claim(&consumer, 10).await;
    assert_eq!(ids(&claimed), ["m1", "m3"]);
    assert_eq!(progress("m1").await, Progress::Claimed { attempt: 1 });
    assert_eq!(progress("m2").await, Progress::Waiting, "it waits for the other of its key");
    consumer.settle(&[Settle::done(claimed[0].token)]).await.expect("settled");
    consumer.settle(&[Settle::release(claimed[1].token, Duration::from_secs(60))]).await.expect("released");
    assert_eq!(progress("m1").await, Progress::Done);
    let Progress::Retrying { attempt: 1, not_before_ms } = progress("m3").await else { panic!("it is to come again") };
    assert!(not_before_ms > now_ms() + 30_000);
    let claimed = try_claim(&consumer, 10).await;
    assert_eq!(ids(&claimed), ["m2"]);

    let page = queues.pending("q", 1, None).await.expect("a page");
    assert_eq!((page.items[0].message.id.as_str(), page.items[0].group.as_str()), ("m2", "g"));
    let page = queues.pending("q", 1, page.next.as_deref()).await.expect("a page");
    assert_eq!((page.items[0].message.id.as_str(), page.next), ("m3", None));
    for wrong in ["x", "1", "1.x"] {
        let refused = queues.pending("q", 1, Some(wrong)).await.expect_err(wrong);
        assert!(matches!(refused, QueueError::Invalid { .. }), "{refused:?}");
    }
    let missing = queues.progress("q", Which::Offset(9)).await.expect_err("no such message");
    assert!(matches!(missing, QueueError::MessageNotFound { .. }), "{missing:?}");
    let unknown = queues.progress("nobody", Which::Offset(1)).await.expect_err("no such queue");
    assert!(matches!(unknown, QueueError::NotFound { .. }), "{unknown:?}");
}
