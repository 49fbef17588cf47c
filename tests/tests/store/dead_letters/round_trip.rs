use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sluicegate_engine::dead_letter::{Attempt, DeadLetter, DeadLetters};
use sluicegate_engine::failure::{FailureClass, SchemaError};
use sluicegate_engine::message::{Body, Headers, Message};
use sluicegate_store::{Location, Store};

use super::sample;
use crate::both::{both, both_blocking};

/// Any text at all, line ends, quotes and NUL with it.
fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn octets() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 0..40).prop_map(Bytes::from), text().prop_map(Bytes::from)]
}

fn message() -> impl Strategy<Value = Message> {
    // Few names, so that repeats are common.
    let headers = vec((prop_oneof!["a", "b", "X-Ü", ""], octets()), 0..6).prop_map(Headers::from_iter);
    let texts = (text(), text(), text(), option::of(text()), option::of(text()));
    let numbers = (any::<u64>(), any::<u32>(), option::of(any::<u64>()), option::of(any::<u64>()));
    let traces = (option::of(text()), option::of(text()), option::of(text()));
    (texts, numbers, traces, option::of(octets()), headers, octets()).prop_map(
        |(texts, numbers, traces, key, headers, body)| Message {
            id: texts.0,
            source: texts.1,
            kind: texts.2,
            subject: texts.3,
            content_type: texts.4,
            time_ms: numbers.0,
            attempt: numbers.1,
            expires_at_ms: numbers.2,
            deliver_at_ms: numbers.3,
            trace_parent: traces.0,
            trace_state: traces.1,
            correlation_id: traces.2,
            key,
            headers,
            body: Body::from(body),
        },
    )
}

/// What a step made of a message: nothing, another body, other attributes, or all anew.
fn changed() -> impl Strategy<Value = (Message, Message)> {
    (message(), message(), 0..4).prop_map(|(original, other, kind)| {
        let failing = match kind {
            0 => original.clone(),
            1 => Message { body: other.body, ..original.clone() },
            2 => Message { body: original.body.clone(), ..other },
            _ => other,
        };
        (original, failing)
    })
}

fn letter() -> impl Strategy<Value = DeadLetter> {
    let names = (text(), text(), option::of(text()), option::of(text()));
    let plugin = (option::of(text()), option::of(text()), vec(text(), 0..4), option::of(text()));
    let errors = vec((text(), text()), 0..4)
        .prop_map(|errors| errors.into_iter().map(|(pointer, text)| SchemaError { pointer, text }).collect());
    let attempts = vec((any::<u32>(), any::<u64>(), text()), 0..4).prop_map(|attempts| {
        attempts.into_iter().map(|(number, at_ms, error)| Attempt { number, at_ms, error }).collect()
    });
    let rest = (any::<u64>(), prop::sample::select(&FailureClass::ALL[..]), text(), any::<u32>());
    (changed(), names, plugin, errors, attempts, rest).prop_map(
        |((original, failing), names, plugin, schema_errors, attempts, rest)| DeadLetter {
            id: uuid::Uuid::now_v7().to_string(),
            failed_at_ms: rest.0,
            pipeline: names.0.into(),
            config_version: names.1.into(),
            original: Arc::new(original),
            at_failure: Arc::new(failing),
            step: names.2.map(Arc::from),
            target: names.3.map(Arc::from),
            class: rest.1,
            error: rest.2,
            schema_errors,
            plugin: plugin.0,
            plugin_digest: plugin.1,
            backtrace: plugin.2,
            attempts,
            trace_id: plugin.3,
            redrive_count: rest.3,
        },
    )
}

#[test]
fn whatever_is_recorded_comes_back_as_it_was() {
    both_blocking(|runtime, store| {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(256) });
        runner
            .run(&letter(), |letter| {
                let letter = Arc::new(letter);
                let found = runtime.block_on(async {
                    store.record(&letter).await.unwrap();
                    store.reader().show(&letter.id).await.unwrap()
                });
                prop_assert_eq!(&found, &*letter);
                Ok(())
            })
            .unwrap();
    });
}

#[tokio::test]
async fn an_unchanged_message_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&Location::embedded(folder.path())).await.unwrap();
    let mut unchanged = sample::letter();
    unchanged.original = Arc::new(Message::new("/s", "k", vec![7_u8; 1 << 20]));
    // Equal without being the same, as after a transform that changed nothing.
    unchanged.at_failure = Arc::new((*unchanged.original).clone());
    store.record(&Arc::new(unchanged.clone())).await.unwrap();
    let found = store.reader().show(&unchanged.id).await.unwrap();
    assert!(Arc::ptr_eq(&found.original, &found.at_failure), "one message, shared");
    assert_eq!(found, unchanged);
    store.close().await;
    let size_bytes = std::fs::metadata(folder.path().join(sluicegate_store::STORE_FILE)).unwrap().len();
    assert!(size_bytes < 1_500_000, "a body of 1 MiB was kept in {size_bytes} bytes");
}

#[tokio::test]
async fn recording_twice_is_recording_once() {
    both(async |store| {
        let letter = Arc::new(sample::letter());
        let again = Arc::new(DeadLetter { error: "other words".to_owned(), ..(*letter).clone() });
        store.record(&letter).await.unwrap();
        store.record(&again).await.unwrap();
        assert_eq!(store.reader().count(&Default::default()).await, Ok(1));
        assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter), "the first one stays");
    })
    .await;
}
