//! Bodies are encrypted wherever the store keeps them: in inboxes, in queues, in edits and parts of dead letters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::delivery::Received;
use sluicegate_engine::inbox::{Entry, Inbox, Progress, Waypoint};
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_store::dead_letter::{Changed, Edit, Filter};
use sluicegate_store::inbox::{Admission, Admitted, Backlog, StoreInbox};
use sluicegate_store::queue::{Compression, Publication, QueueError, Queues, Settings, Start, Which};
use sluicegate_store::redrive::{Created, Destination, Destinations, From, NewJob, Selection};
use sluicegate_store::vault::DEFAULT_TENANT;
use sluicegate_store::{Location, STORE_FILE, Store, StoreError};

use super::encryption::{folder, shows_the_secret};
use super::{SECRET, letter, with};
use crate::both::{Fresh, both_places};

const LIMIT: Duration = Duration::from_secs(20);

/// A secret body that is worth compressing.
fn secret(part: &str) -> Bytes {
    format!("{{\"{part}\":\"{SECRET}\",\"padding\":\"{}\"}}", "0".repeat(600)).into()
}

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), ..Message::new("/test", "test", secret(id)) }
}

fn admission(messages: Vec<Message>) -> Admission {
    let backlog = Backlog { max_messages: 1_000, max_bytes: 1 << 20 };
    Admission { pipeline: "orders".into(), messages, ordered: false, idempotency: None, wait: false, backlog }
}

/// One whose body was changed on its way.
fn changed(id: &str) -> Entry {
    let message = Arc::new(Message { body: secret("changed").into(), ..message(id) });
    let waypoint = Waypoint::Step("price".into());
    let progress = Progress { waypoint, attempt: 1, received_at_ms: now_ms(), ..Progress::default() };
    Entry { original: Arc::new(self::message(id)), message, progress, not_before_ms: 0, ordered: false }
}

async fn receive(store: &Arc<Store>, count: usize) -> Vec<Received> {
    let lanes = Lanes::default();
    let inbox = StoreInbox::new(Arc::clone(store), &"orders".into());
    let mut connection = inbox.source(lanes).connect().await.unwrap();
    let mut received = Vec::new();
    while received.len() < count {
        let more = tokio::time::timeout(LIMIT, connection.inlet.receive(16)).await;
        received.extend(more.expect("a message comes").unwrap());
    }
    received.sort_by(|one, other| one.message.id.cmp(&other.message.id));
    received
}

async fn admit(store: &Store, messages: Vec<Message>) {
    assert!(matches!(store.admit(admission(messages)).await.unwrap(), Admitted::Taken { .. }));
}

fn compressed(compression: Compression) -> Settings {
    Settings { compression, ..Settings::default() }
}

/// A body in each place there is.
async fn fill(store: &Arc<Store>) -> Arc<DeadLetter> {
    admit(store, vec![message("admitted")]).await;
    StoreInbox::new(Arc::clone(store), &"orders".into()).park(changed("parked")).await.unwrap();
    let queues = Queues::new(Arc::clone(store));
    for (name, compression) in [("plain", Compression::None), ("small", Compression::Zstd)] {
        queues.create(name, &compressed(compression)).await.unwrap();
        let later = Message { deliver_at_ms: Some(now_ms() + 3_600_000), ..message("later") };
        let publications = vec![Publication::new(message("now")), Publication::new(later)];
        for published in queues.publish(name, publications).await.unwrap() {
            published.unwrap();
        }
    }
    let letter = letter();
    store.record(&letter).await.unwrap();
    let edit = Edit { body: Some(secret("edited")), headers: None };
    assert_eq!(store.edit_letter(&letter.id, Some(edit), "test").await, Ok(Changed::Done));
    letter
}

#[tokio::test]
async fn no_place_of_the_file_shows_a_body() {
    let fresh = Fresh::sqlite();
    let store = Arc::new(Store::open(with(&fresh.location, 1, &[])).await.unwrap());
    fill(&store).await;
    assert_eq!(shows_the_secret(folder(&fresh)), [""; 0], "while the gateway runs");
    store.close().await;
    assert_eq!(shows_the_secret(folder(&fresh)), [""; 0], "after it");
    // What does not show because it is compressed would not count.
    let connection = rusqlite::Connection::open(folder(&fresh).join(STORE_FILE)).unwrap();
    let sql = "SELECT body FROM inbox UNION ALL SELECT original_body FROM inbox WHERE original_body IS NOT NULL \
        UNION ALL SELECT body FROM queue_messages UNION ALL SELECT body FROM queue_scheduled \
        UNION ALL SELECT edited_body FROM dead_letters UNION ALL SELECT original_body FROM dead_letters \
        UNION ALL SELECT failing_body FROM dead_letters";
    let mut statement = connection.prepare(sql).unwrap();
    let bodies: Vec<Vec<u8>> = statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(bodies.len(), 10);
    for body in bodies {
        assert_eq!((body[0], &body[2..2 + DEFAULT_TENANT.len()]), (0xe5, DEFAULT_TENANT.as_bytes()), "{body:?}");
    }
}

#[tokio::test]
async fn every_body_comes_back_after_a_restart_and_a_rotation() {
    both_places(async |fresh| {
        let store = Arc::new(Store::open(with(&fresh.location, 1, &[])).await.unwrap());
        let letter = fill(&store).await;
        store.rotate_key(DEFAULT_TENANT).await.unwrap();
        store.close().await;

        let store = Arc::new(Store::open(with(&fresh.location, 1, &[])).await.unwrap());
        let received = receive(&store, 2).await;
        assert_eq!(received[0].message.body.bytes(), &secret("admitted"));
        assert_eq!(received[1].message.body.bytes(), &secret("changed"));
        let original = received[1].resumption.as_ref().and_then(|resumption| resumption.original.clone());
        assert_eq!(original.expect("it was another").body.bytes(), &secret("parked"));
        let kept = store.reader().find(&letter.id).await.unwrap();
        assert_eq!(kept.letter, *letter);
        assert_eq!(kept.edit.expect("it was edited").edit.body, Some(secret("edited")));
        let queues = Queues::new(Arc::clone(&store));
        for name in ["plain", "small"] {
            let consumer = queues.join(name, "g", Start::Earliest).await.unwrap();
            let claimed = consumer.claim(9, u64::MAX).await.unwrap();
            assert_eq!(claimed.len(), 1, "{name}");
            assert_eq!(claimed[0].message.body.bytes(), &secret("now"), "{name}");
            let (_, later) = queues.message(name, Which::Id("later")).await.unwrap();
            assert_eq!(later.body.bytes(), &secret("later"), "{name}");
        }
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_edited_letter_is_redriven_with_the_body_of_its_edit() {
    both_places(async |fresh| {
        let store = Arc::new(Store::open(with(&fresh.location, 1, &[])).await.unwrap());
        let letter = letter();
        store.record(&letter).await.unwrap();
        let edit = Edit { body: Some(secret("edited")), headers: None };
        assert_eq!(store.edit_letter(&letter.id, Some(edit), "test").await, Ok(Changed::Done));
        let new = NewJob {
            selection: Selection::Filter(Box::default()),
            from: From::Start,
            rate_per_second: 1_000,
            patch: None,
            max_redrives: 3,
            by: "test".to_owned(),
        };
        assert!(matches!(store.create_redrive(new).await.unwrap(), Created::Job { .. }));
        let destinations: Destinations =
            HashMap::from([(Arc::clone(&letter.pipeline), Destination { ordered: false })]);
        for job in store.claim_redrives().await.unwrap() {
            store.advance_redrive(&job, &destinations, 10).await.unwrap();
        }
        let received = receive(&store, 1).await;
        assert_eq!(received[0].message.body.bytes(), &secret("edited"));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_letter_that_fails_again_and_its_parts_are_readable_in_their_own_places() {
    both_places(async |fresh| {
        let plain = fresh.open().await;
        let old = letter();
        plain.record(&old).await.unwrap();
        plain.close().await;

        let store = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
        let new = letter();
        for first in [&old, &new] {
            store.record(first).await.unwrap();
            let failed_at = |target: &str, body: &str| {
                let at_failure = Arc::new(Message { body: secret(body).into(), ..(*first.at_failure).clone() });
                let target = Some(Arc::from(target));
                Arc::new(DeadLetter { at_failure, step: None, target, redrive_count: 1, ..(**first).clone() })
            };
            let (again, part) = (failed_at("eu", "again"), failed_at("us", "part"));
            store.record(&again).await.unwrap();
            store.record(&part).await.unwrap();
            store.record(&part).await.unwrap();
            let found = store.reader().show(&first.id).await.unwrap();
            assert_eq!((&found.original, &found.at_failure.body), (&first.original, &again.at_failure.body));
            assert_eq!(found.target, again.target);
            let of_message = Filter { message_id: Some(first.original.id.clone()), ..Filter::default() };
            let letters = store.reader().letters(&of_message, 10, None).await.unwrap().letters;
            let parts: Vec<_> = letters.iter().filter(|kept| kept.letter.id != first.id).collect();
            assert_eq!(parts.len(), 1, "recorded twice, kept once");
            let kept = &parts[0].letter;
            assert_eq!((&kept.original.body, &kept.at_failure.body), (&part.original.body, &part.at_failure.body));
            assert_eq!(kept.target, part.target);
        }
        // One whose body did not change in the redrive, after one whose body did.
        let third = letter();
        store.record(&third).await.unwrap();
        let edited = Arc::new(Message { body: secret("edited").into(), ..(*third.original).clone() });
        let again =
            DeadLetter { original: Arc::clone(&edited), at_failure: edited, redrive_count: 1, ..(*third).clone() };
        store.record(&Arc::new(again.clone())).await.unwrap();
        let found = store.reader().show(&third.id).await.unwrap();
        assert_eq!((&found.original, &found.at_failure.body), (&third.original, &again.at_failure.body));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn without_the_key_nothing_is_put_anywhere() {
    both_places(async |fresh| {
        let gateway = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
        let letter = letter();
        gateway.record(&letter).await.unwrap();
        let beside = Arc::new(Store::open_beside(&fresh.location).await.unwrap());
        let admitted = beside.admit(admission(vec![message("a")])).await.err();
        assert!(matches!(admitted, Some(StoreError::Encrypted { .. })), "{admitted:?}");
        let parked = StoreInbox::new(Arc::clone(&beside), &"orders".into()).park(changed("b")).await;
        assert!(parked.as_ref().is_err_and(|failure| failure.text.contains("no master key")), "{parked:?}");
        let queues = Queues::new(Arc::clone(&beside));
        queues.create("q", &Settings::default()).await.unwrap();
        let published = queues.publish("q", vec![Publication::new(message("c"))]).await;
        let refused = |error: &QueueError| matches!(error, QueueError::Store(StoreError::Encrypted { .. }));
        let is_refused = match &published {
            Err(error) => refused(error),
            Ok(each) => each.iter().all(|one| one.as_ref().is_err_and(refused)),
        };
        assert!(is_refused, "{published:?}");
        assert_eq!(queues.get("q").await.unwrap().messages, 0);
        let edit = Edit { body: Some(secret("edited")), headers: None };
        let edited = beside.edit_letter(&letter.id, Some(edit), "test").await;
        assert!(matches!(edited, Err(StoreError::Encrypted { .. })), "{edited:?}");
        beside.close().await;
        gateway.close().await;
    })
    .await;
}

/// Another gateway's newest key may come later than what it sealed with it.
#[tokio::test]
async fn what_is_sealed_with_a_key_made_elsewhere_is_carried_and_not_left_behind() {
    let fresh = Fresh::postgres().await;
    assert!(matches!(fresh.location, Location::Shared { .. }));
    let one = Arc::new(Store::open(with(&fresh.location, 1, &[])).await.unwrap());
    let other = Arc::new(Store::open(with(&fresh.location, 1, &[])).await.unwrap());
    let queues = Queues::new(Arc::clone(&one));
    queues.create("q", &Settings::default()).await.unwrap();
    let lanes = Lanes::default();
    let mut inbox = StoreInbox::new(Arc::clone(&other), &"orders".into()).source(lanes);
    let mut connection = inbox.connect().await.unwrap();
    for round in 0..10 {
        one.rotate_key(DEFAULT_TENANT).await.unwrap();
        StoreInbox::new(Arc::clone(&one), &"orders".into()).park(started(&format!("m{round}"))).await.unwrap();
        let mut received = Vec::new();
        while received.is_empty() {
            let more = tokio::time::timeout(LIMIT, connection.inlet.receive(16)).await;
            // A source that meets a failure is asked again, as the engine does.
            received = more.expect("a message comes").unwrap_or_default();
        }
        assert_eq!(received[0].message.body.bytes(), &secret(&format!("m{round}")));
    }
    one.close().await;
    other.close().await;
}

fn started(id: &str) -> Entry {
    let message = Arc::new(message(id));
    let progress = Progress { attempt: 1, received_at_ms: now_ms(), ..Progress::default() };
    Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered: false }
}
