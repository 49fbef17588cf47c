//! Dead letters: one that cannot be opened fails alone.

use std::sync::Arc;

use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_store::dead_letter::Filter;
use sluicegate_store::redrive::{
    Advance, Created, Destination, Destinations, From, ItemState, JobState, NewJob, Selection,
};

use super::{deliver, encrypted, of_a_lost_key, read, sql, take};
use crate::both::{blob, both_places};
use crate::dead_letters::sample;

#[tokio::test]
async fn a_letter_that_cannot_be_opened_fails_alone_and_stays() {
    both_places(async |fresh| {
        let store = encrypted(fresh).await;
        let mut letters = Vec::new();
        for number in 0..4 {
            let letter = DeadLetter { failed_at_ms: 1_000 + number, ..sample::letter() };
            store.record(&Arc::new(letter.clone())).await.unwrap();
            letters.push(letter.id);
        }
        let lost = blob(&store, &of_a_lost_key());
        let at = |index: usize| format!("id = '{}'", letters[index]);
        sql(&store, &format!("UPDATE dead_letters SET original_body = {lost} WHERE {}", at(1))).await;
        let moved = format!("(SELECT original_body FROM dead_letters WHERE {})", at(0));
        sql(&store, &format!("UPDATE dead_letters SET original_body = {moved} WHERE {}", at(2))).await;
        let new = NewJob {
            selection: Selection::Filter(Box::default()),
            from: From::Start,
            rate_per_second: 1_000,
            patch: None,
            max_redrives: 3,
            by: "test".to_owned(),
        };
        let Created::Job { id, .. } = store.create_redrive(new).await.unwrap() else { panic!("a job") };
        let [job] = &store.claim_redrives().await.unwrap()[..] else { panic!("one job") };
        let destinations: Destinations = [("orders".into(), Destination { ordered: false })].into();
        assert_eq!(store.advance_redrive(job, &destinations, 10).await.unwrap(), Advance::Sent(4));
        let items = store.reader().redrive_items(&id, None, 10, None).await.unwrap().items;
        let states: Vec<_> = items.iter().map(|item| item.state).collect();
        assert_eq!(states, [ItemState::Sent, ItemState::Failed, ItemState::Failed, ItemState::Sent]);
        let told = |index: usize| items[index].outcome.clone().unwrap_or_default();
        assert!(told(1).contains("cannot be opened") && told(1).contains("key version 99"), "{}", told(1));
        assert!(told(2).contains("cannot be opened") && told(2).contains("another's"), "{}", told(2));
        let mut reading = read(&store).await;
        let received = take(&mut reading, 2).await;
        deliver(&mut reading, received).await;
        assert_eq!(store.advance_redrive(job, &destinations, 10).await.unwrap(), Advance::Done);
        assert_eq!(store.reader().redrive(&id).await.unwrap().state, JobState::Done);
        let left = store.reader().list(&Filter::default(), 10, None).await.unwrap().letters;
        let mut left: Vec<_> = left.iter().map(|letter| &letter.id).collect();
        left.sort();
        let mut unreadable = vec![&letters[1], &letters[2]];
        unreadable.sort();
        assert_eq!(left, unreadable);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_letter_that_fails_again_is_recorded_though_its_first_record_cannot_be_opened() {
    both_places(async |fresh| {
        let store = encrypted(fresh).await;
        let letter = sample::letter();
        store.record(&Arc::new(letter.clone())).await.unwrap();
        let lost = blob(&store, &of_a_lost_key());
        sql(&store, &format!("UPDATE dead_letters SET original_body = {lost}")).await;
        let again = Arc::new(DeadLetter { redrive_count: 1, error: "again".to_owned(), ..letter.clone() });
        store.record(&again).await.unwrap();
        store.record(&again).await.unwrap();
        let shown = store.reader().show_readable(&letter.id).await.unwrap();
        assert_eq!((shown.kept.letter.redrive_count, shown.kept.letter.error.as_str()), (1, "again"));
        assert!(shown.hidden.is_some());
        // Whether the second record is of the same part cannot be told: kept twice, and never lost.
        assert_eq!(store.reader().count(&Filter::default()).await, Ok(2));
        store.close().await;
    })
    .await;
}
