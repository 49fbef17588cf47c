use std::sync::Arc;

use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::failure::FailureClass;
use sluicegate_store::dead_letter::{Filter, MAX_SUMMARY_ERROR_CHARS, Page};
use sluicegate_store::{Store, StoreError};

use super::sample;
use crate::both::{both, both_blocking};

const PIPELINES: [&str; 2] = ["orders", "events"];
const TARGETS: [Option<&str>; 3] = [None, Some("eu"), Some("us")];
const CLASSES: [FailureClass; 3] = [FailureClass::Schema, FailureClass::Trap, FailureClass::TargetFailed];
const ERRORS: [&str; 4] = ["plain", "100% of it", "a_b", r"C:\Temp"];
const FIRST_MS: u64 = 1_000;

/// Every combination once, several at the same time of failure.
async fn corpus(store: &Store) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    for index in 0..72_usize {
        let mut letter = sample::letter();
        letter.failed_at_ms = FIRST_MS + (index as u64 / 5);
        letter.pipeline = PIPELINES[index % 2].into();
        letter.target = TARGETS[index / 2 % 3].map(Arc::from);
        letter.class = CLASSES[index / 6 % 3];
        letter.error = ERRORS[index / 18].to_owned();
        letters.push(letter);
    }
    for letter in &letters {
        store.record(&Arc::new(letter.clone())).await.unwrap();
    }
    letters.sort_by(|a, b| (b.failed_at_ms, &b.id).cmp(&(a.failed_at_ms, &a.id)));
    letters
}

fn matches(filter: &Filter, letter: &DeadLetter) -> bool {
    filter.pipeline.as_deref().is_none_or(|wanted| wanted == &*letter.pipeline)
        && filter.class.is_none_or(|wanted| wanted == letter.class)
        && filter.target.as_deref().is_none_or(|wanted| Some(wanted) == letter.target.as_deref())
        && filter.since_ms.is_none_or(|since| letter.failed_at_ms >= since)
        && filter.until_ms.is_none_or(|until| letter.failed_at_ms < until)
        && filter.text.as_deref().is_none_or(|text| letter.error.to_lowercase().contains(&text.to_lowercase()))
}

fn filters() -> impl Strategy<Value = Filter> {
    let name = |names: &'static [&'static str]| option::of(prop::sample::select(names).prop_map(str::to_owned));
    let time = || option::of(prop_oneof![FIRST_MS - 1..FIRST_MS + 17, Just(u64::MAX)]);
    let class = option::of(prop::sample::select(&CLASSES[..]));
    let text = name(&["%", "_", "\\", "PLAIN", "p", "100% of", "'", "nowhere"]);
    (name(&["orders", "events", "none"]), class, name(&["eu", "us"]), time(), time(), text).prop_map(
        |(pipeline, class, target, since_ms, until_ms, text)| Filter {
            pipeline,
            class,
            target,
            since_ms,
            until_ms,
            text,
            ..Filter::default()
        },
    )
}

#[test]
fn every_filter_finds_what_it_says_in_pages_of_any_size() {
    both_blocking(|runtime, store| {
        let corpus = runtime.block_on(corpus(store));
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(200) });
        runner
            .run(&(filters(), 1..30_usize), |(filter, limit)| {
                let expected: Vec<&str> =
                    corpus.iter().filter(|letter| matches(&filter, letter)).map(|letter| letter.id.as_str()).collect();
                let mut found = Vec::new();
                let mut after: Option<String> = None;
                loop {
                    let page = runtime.block_on(store.reader().list(&filter, limit, after.as_deref())).unwrap();
                    prop_assert!(page.letters.len() <= limit);
                    found.extend(page.letters.into_iter().map(|letter| letter.id));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(found, expected.clone());
                let count = runtime.block_on(store.reader().count(&filter)).unwrap();
                prop_assert_eq!(count, expected.len() as u64);
                Ok(())
            })
            .unwrap();
    });
}

#[tokio::test]
async fn letters_that_come_in_meanwhile_do_not_shift_the_next_page() {
    both(async |store| {
        let corpus = corpus(store).await;
        let Page { letters, next } = store.reader().list(&Filter::default(), 40, None).await.unwrap();
        let mut newer = sample::letter();
        newer.failed_at_ms = FIRST_MS + 1_000;
        store.record(&Arc::new(newer)).await.unwrap();
        let second = store.reader().list(&Filter::default(), 40, next.as_deref()).await.unwrap();
        assert_eq!(second.next, None);
        let found: Vec<String> = letters.into_iter().chain(second.letters).map(|letter| letter.id).collect();
        assert_eq!(found, corpus.into_iter().map(|letter| letter.id).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_summary_has_what_a_list_shows_and_a_short_error() {
    both(async |store| {
        let mut letter = sample::letter();
        letter.error = "ä".repeat(MAX_SUMMARY_ERROR_CHARS + 1);
        letter.redrive_count = 3;
        letter.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
        store.record(&Arc::new(letter.clone())).await.unwrap();
        let page = store.reader().list(&Filter::default(), 1, None).await.unwrap();
        let [summary] = &page.letters[..] else { panic!("one letter, not {page:?}") };
        assert_eq!(summary.error, "ä".repeat(MAX_SUMMARY_ERROR_CHARS));
        assert_eq!((summary.attempts, summary.redrive_count, summary.body_bytes), (1, 3, 8));
        assert_eq!((&*summary.message_id, &*summary.message_kind), (&*letter.original.id, "order.created"));
        assert_eq!(summary.trace_id, letter.trace_id);
    })
    .await;
}

#[tokio::test]
async fn a_letter_is_shown_by_a_beginning_of_its_id_that_only_it_has() {
    both(async |store| {
        for id in ["abc", "abcd", "abce", "xyz"] {
            store.record(&Arc::new(DeadLetter { id: id.to_owned(), ..sample::letter() })).await.unwrap();
        }
        let reader = store.reader();
        assert_eq!(reader.show("x").await.unwrap().id, "xyz");
        assert_eq!(reader.show("abc").await.unwrap().id, "abc", "a complete id is never ambiguous");
        let candidates = ["abc", "abcd", "abce"].map(str::to_owned).to_vec();
        assert_eq!(
            reader.show("ab").await,
            Err(StoreError::Ambiguous { id: "ab".to_owned(), candidates, more: false })
        );
        for id in ["b", "abc%", "XYZ", "xyz0"] {
            assert_eq!(reader.show(id).await, Err(StoreError::NotFound { id: id.to_owned() }));
        }
    })
    .await;
}

#[tokio::test]
async fn a_made_up_page_token_is_refused() {
    both(async |store| {
        for token in ["", "17", "x.y", "99999999999999999999.id"] {
            let refused = store.reader().list(&Filter::default(), 1, Some(token)).await;
            assert_eq!(refused, Err(StoreError::PageToken { token: token.to_owned() }));
        }
    })
    .await;
}
