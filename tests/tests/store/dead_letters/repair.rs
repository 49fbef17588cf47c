//! Records that are written again, causes, edits, deletion.

use std::sync::Arc;

use bytes::Bytes;
use sluicegate_engine::dead_letter::{Attempt, DeadLetter, DeadLetters};
use sluicegate_engine::message::{Headers, Message};
use sluicegate_store::dead_letter::{Changed, Edit, Filter, MAX_ATTEMPTS};
use sluicegate_store::{Store, StoreError};

use super::sample;
use crate::both::both;

async fn record(store: &Store, letter: &DeadLetter) {
    store.record(&Arc::new(letter.clone())).await.unwrap();
}

fn attempts(numbers: std::ops::Range<u32>) -> Vec<Attempt> {
    numbers.map(|number| Attempt { number, at_ms: u64::from(number), error: format!("try {number}") }).collect()
}

#[tokio::test]
async fn a_letter_that_fails_again_keeps_its_message_its_edit_and_its_newest_attempts() {
    both(async |store| {
        let first = DeadLetter { attempts: attempts(0..60), ..sample::letter() };
        record(store, &first).await;
        let edit = Edit { body: Some(Bytes::from_static(b"edited")), headers: None };
        assert_eq!(store.edit_letter(&first.id, Some(edit.clone()), "me").await.unwrap(), Changed::Done);
        let sent = Arc::new(Message { body: b"edited".to_vec().into(), ..Message::clone(&first.original) });
        let again = DeadLetter {
            original: Arc::clone(&sent),
            at_failure: sent,
            error: "another reason".to_owned(),
            attempts: attempts(60..120),
            redrive_count: 1,
            ..first.clone()
        };
        for _ in 0..2 {
            record(store, &again).await;
            // An older record, come late, changes nothing.
            record(store, &first).await;
        }
        let kept = store.reader().find(&first.id).await.unwrap();
        assert_eq!((kept.letter.original.body.bytes(), kept.letter.redrive_count), (first.original.body.bytes(), 1));
        assert_eq!(&kept.letter.at_failure.body.bytes()[..], b"edited");
        assert_eq!(kept.letter.error, "another reason");
        assert_eq!(kept.letter.attempts, attempts(20..120));
        assert_eq!(kept.letter.attempts.len(), MAX_ATTEMPTS);
        assert_eq!(kept.edit.map(|kept| (kept.edit, kept.by)), Some((edit, "me".to_owned())));
        assert_eq!(store.reader().count(&Filter::default()).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn two_parts_that_fail_in_the_same_redrive_are_both_kept() {
    both(async |store| {
        let first = sample::letter();
        record(store, &first).await;
        let eu = DeadLetter { redrive_count: 1, ..first.clone() };
        let us = DeadLetter { target: Some("us".into()), ..eu.clone() };
        for _ in 0..2 {
            record(store, &eu).await;
            record(store, &us).await;
        }
        let all = store.reader().list(&Filter::default(), 10, None).await.unwrap().letters;
        let mut targets: Vec<&str> = all.iter().filter_map(|letter| letter.target.as_deref()).collect();
        targets.sort_unstable();
        assert_eq!(targets, ["eu", "us"]);
        assert!(all.iter().all(|letter| letter.redrive_count == 1));
    })
    .await;
}

#[tokio::test]
async fn letters_are_grouped_by_cause_the_most_frequent_first() {
    both(async |store| {
        for index in 0..30_u64 {
            let mut letter = DeadLetter { failed_at_ms: 1_000 + index, ..sample::letter() };
            match index % 6 {
                0 => letter.error = "customer has no address".to_owned(),
                1 | 2 => letter.target = Some("us".into()),
                _ => letter.error = format!("order {index} of {} was refused", uuid::Uuid::now_v7()),
            }
            record(store, &letter).await;
        }
        let reader = store.reader();
        let mut groups = Vec::new();
        let mut after = None;
        loop {
            let page = reader.groups(&Filter::default(), 1, after.as_deref()).await.unwrap();
            assert_eq!(page.groups.len(), 1);
            groups.extend(page.groups);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(groups.iter().map(|group| group.count).collect::<Vec<_>>(), [15, 10, 5]);
        assert_eq!((groups[0].first_at_ms, groups[0].last_at_ms), (1_003, 1_029));
        assert_eq!(groups[1].target.as_deref(), Some("us"));
        assert_eq!(groups[2].error, "customer has no address");
        for group in &groups {
            let filter = Filter { cause: Some(group.cause.clone()), ..Filter::default() };
            assert_eq!(reader.count(&filter).await.unwrap(), group.count);
            assert_eq!(reader.find(&group.sample).await.unwrap().cause, group.cause);
        }
        let us = Filter { target: Some("us".to_owned()), ..Filter::default() };
        assert_eq!(reader.groups(&us, 10, None).await.unwrap().groups.len(), 1);
        let refused = reader.groups(&us, 10, Some("no token")).await;
        assert!(matches!(refused, Err(StoreError::PageToken { .. })), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn filters_find_by_step_digest_and_message() {
    both(async |store| {
        let message = Arc::new(Message::new("s", "k", "b"));
        let digest = Some("sha256:9f".to_owned());
        let step = Some(Arc::from("filter jq"));
        let wanted = DeadLetter {
            original: Arc::clone(&message),
            at_failure: Arc::clone(&message),
            step,
            target: None,
            plugin_digest: digest.clone(),
            ..sample::letter()
        };
        record(store, &wanted).await;
        record(store, &sample::letter()).await;
        let filters = [
            Filter { step: Some("filter jq".to_owned()), ..Filter::default() },
            Filter { plugin_digest: digest, ..Filter::default() },
            Filter { message_id: Some(message.id.clone()), ..Filter::default() },
        ];
        for filter in filters {
            let found = store.reader().list(&filter, 10, None).await.unwrap().letters;
            assert_eq!(found.iter().map(|letter| &letter.id).collect::<Vec<_>>(), [&wanted.id], "{filter:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn edits_are_kept_beside_the_record_and_can_be_taken_back() {
    both(async |store| {
        let letter = sample::letter();
        record(store, &letter).await;
        let headers: Headers = [("x-a", "1"), ("x-a", "2")].into_iter().collect();
        for edit in [
            Edit { body: Some(Bytes::from_static(&[0xff, 0])), headers: None },
            Edit { body: None, headers: Some(headers.clone()) },
            Edit { body: Some(Bytes::new()), headers: Some(headers) },
        ] {
            assert_eq!(store.edit_letter(&letter.id, Some(edit.clone()), "me").await.unwrap(), Changed::Done);
            let kept = store.reader().find(&letter.id).await.unwrap();
            assert_eq!((kept.edit.map(|kept| kept.edit), &kept.letter), (Some(edit), &letter));
        }
        assert_eq!(store.edit_letter(&letter.id, None, "me").await.unwrap(), Changed::Done);
        assert_eq!(store.reader().find(&letter.id).await.unwrap().edit, None);
        assert_eq!(store.edit_letter("nobody", None, "me").await.unwrap(), Changed::NotFound);
    })
    .await;
}

#[tokio::test]
async fn letters_are_deleted_one_by_one_by_filter_and_by_age_and_count() {
    both(async |store| {
        let mut ids = Vec::new();
        for index in 0..600_u64 {
            let letter = DeadLetter { failed_at_ms: 1_000 + index, ..sample::letter() };
            record(store, &letter).await;
            ids.push(letter.id);
        }
        let recent = DeadLetter { failed_at_ms: sluicegate_engine::message::now_ms(), ..sample::letter() };
        record(store, &recent).await;
        assert_eq!(store.delete_letter(&ids[0]).await.unwrap(), Changed::Done);
        assert_eq!(store.delete_letter(&ids[0]).await.unwrap(), Changed::NotFound);
        let old = Filter { until_ms: Some(1_300), ..Filter::default() };
        assert_eq!(store.purge_letters(&old).await.unwrap(), 299);
        assert_eq!(store.trim_letters(None, Some(11)).await.unwrap(), 290);
        let left = store.reader().list(&Filter::default(), 100, None).await.unwrap().letters;
        let expected: Vec<&String> = std::iter::once(&recent.id).chain(ids[590..].iter().rev()).collect();
        assert_eq!(left.iter().map(|letter| &letter.id).collect::<Vec<_>>(), expected, "the oldest went");
        assert_eq!(store.trim_letters(Some(3_600_000), None).await.unwrap(), 10);
        assert_eq!(store.reader().count(&Filter::default()).await.unwrap(), 1);
        assert_eq!(store.trim_letters(None, None).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn whole_letters_come_in_pages_of_limited_bytes() {
    both(async |store| {
        for index in 0..5_u64 {
            let message = Arc::new(Message::new("s", "k", vec![b'x'; 3 << 20]));
            let letter = DeadLetter {
                failed_at_ms: index,
                original: Arc::clone(&message),
                at_failure: message,
                ..sample::letter()
            };
            record(store, &letter).await;
        }
        let (mut pages, mut after, mut times) = (0, None, Vec::new());
        loop {
            let page = store.reader().letters(&Filter::default(), 100, after.as_deref()).await.unwrap();
            assert!(page.letters.len() <= 3);
            times.extend(page.letters.iter().map(|kept| kept.letter.failed_at_ms));
            (pages, after) = (pages + 1, page.next);
            if after.is_none() {
                break;
            }
        }
        assert_eq!((pages, times), (2, vec![4, 3, 2, 1, 0]));
    })
    .await;
}
