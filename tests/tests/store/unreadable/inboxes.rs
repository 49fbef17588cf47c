//! Inboxes: an entry that cannot be opened holds up neither the others nor its key.

use std::sync::Arc;

use sluicegate_engine::inbox::{Entry, Inbox, Progress, Waypoint};
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_store::inbox::StoreInbox;

use super::{admit, bodies, deliver, encrypted, left, message, nothing_to_take, of_a_lost_key, read, sql, take};
use crate::both::{blob, both_places};

#[tokio::test]
async fn an_entry_that_cannot_be_opened_holds_up_neither_the_inbox_nor_its_key() {
    both_places(async |fresh| {
        let store = encrypted(fresh).await;
        let messages =
            vec![message("a1", Some("a")), message("b", Some("b")), message("a2", Some("a")), message("free", None)];
        admit(&store, messages).await;
        let first = "seq = (SELECT min(seq) FROM inbox)";
        sql(&store, &format!("CREATE TABLE kept AS SELECT seq, body FROM inbox WHERE {first}")).await;
        let lost = blob(&store, &of_a_lost_key());
        sql(&store, &format!("UPDATE inbox SET body = {lost} WHERE {first}")).await;
        let mut reading = read(&store).await;
        let mut received = take(&mut reading, 3).await;
        received.sort_by(|one, other| one.message.id.cmp(&other.message.id));
        assert_eq!(bodies(&received), ["a2", "b", "free"]);
        nothing_to_take(&mut reading).await;
        deliver(&mut reading, received).await;
        assert_eq!(left(&store).await, 1, "it stays");
        // It is no part of the backlog, and no key waits for it.
        let inbox = StoreInbox::new(Arc::clone(&store), &"orders".into());
        assert!(inbox.ordered_keys().await.unwrap().is_empty());
        admit(&store, ["c", "d", "e", "a3"].map(|id| message(id, Some("a"))).into()).await;
        for id in ["c", "d", "e", "a3"] {
            let received = take(&mut reading, 1).await;
            assert_eq!(bodies(&received), [id]);
            deliver(&mut reading, received).await;
        }
        assert_eq!(left(&store).await, 1);
        drop(reading);
        // Another start does not find it any better, until its key is back.
        let mut reading = read(&store).await;
        nothing_to_take(&mut reading).await;
        sql(&store, "UPDATE inbox SET body = (SELECT body FROM kept) WHERE seq = (SELECT seq FROM kept)").await;
        drop(reading);
        let mut reading = read(&store).await;
        let received = take(&mut reading, 1).await;
        assert_eq!((bodies(&received), &received[0].message.body.bytes()[..]), (vec!["a1"], &b"body of a1"[..]));
        deliver(&mut reading, received).await;
        assert_eq!(left(&store).await, 0);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_body_of_an_inbox_moved_to_another_entry_is_refused() {
    both_places(async |fresh| {
        let store = encrypted(fresh).await;
        let inbox = StoreInbox::new(Arc::clone(&store), &"orders".into());
        for id in ["a", "b", "c"] {
            let changed = Arc::new(Message { body: b"changed on its way".to_vec().into(), ..message(id, None) });
            let waypoint = Waypoint::Step("s".into());
            let progress = Progress { waypoint, attempt: 1, received_at_ms: now_ms(), ..Progress::default() };
            let original = Arc::new(message(id, None));
            inbox.park(Entry { original, message: changed, progress, not_before_ms: 0, ordered: false }).await.unwrap();
        }
        sql(
            &store,
            "CREATE TABLE kept AS SELECT body, original_body FROM inbox WHERE seq = (SELECT max(seq) FROM inbox)",
        )
        .await;
        // Another's, and its own as received.
        let least = "(SELECT min(seq) FROM inbox)";
        sql(&store, &format!("UPDATE inbox SET body = (SELECT body FROM kept) WHERE seq = {least}")).await;
        sql(&store, &format!("UPDATE inbox SET body = original_body WHERE seq = {least} + 1")).await;
        let mut reading = read(&store).await;
        assert_eq!(bodies(&take(&mut reading, 1).await), ["c"]);
        nothing_to_take(&mut reading).await;
        assert_eq!(left(&store).await, 3);
        store.close().await;
    })
    .await;
}
