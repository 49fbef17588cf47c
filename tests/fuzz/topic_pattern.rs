//! AMQP topic patterns, in the bundled topic-router: patterns come from configurations, topics from messages.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde_json::json;
use sluicegate_engine::message::Message;
use sluicegate_engine::step::Destination;
use sluicegate_plugin_host::{Isolation, Plugin, Settings};

use crate::plugin::{HOST, RUNTIME};

/// Parts of patterns and topics.
pub const WORDS: &[&[u8]] =
    &[b"*", b"#", b".", b"..", b"#.#", b"*.#", b"#.*", b"a", b"b", b"\n", b"\xc3\xa9", b"**", b"#a"];

/// AMQP's limit for a pattern, in bytes.
const PATTERN_LIMIT_BYTES: usize = 255;

static ROUTER: LazyLock<Plugin> = LazyLock::new(|| {
    let component = include_bytes!("../../plugins/components/topic-router.wasm");
    RUNTIME.block_on(HOST.load("topic-router", Bytes::from_static(component))).expect("the bundled plugin")
});

/// The first line is the pattern, the rest the topic: it matches as AMQP defines.
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, topic) = text.split_once('\n').unwrap_or((&text, ""));
    let config = json!({ "patterns": [{ "pattern": pattern, "to": ["there"] }] });
    let settings = Settings { isolation: Isolation::Reuse, ..Settings::default() };
    let router = &*ROUTER; // loaded outside of block_on, which does not nest
    RUNTIME.block_on(async {
        let configured = router.configure(&config, settings).await;
        if pattern.len() > PATTERN_LIMIT_BYTES {
            assert!(configured.is_err(), "a pattern of {} bytes was accepted", pattern.len());
            return;
        }
        let configured = configured.unwrap_or_else(|error| panic!("{pattern:?} was refused: {error}"));
        let route = configured.route().expect("it is a router");
        let message = Arc::new(Message::new("fuzz", topic, Bytes::new()));
        let destinations =
            route.route(&message).await.unwrap_or_else(|error| panic!("{pattern:?} on {topic:?}: {error}"));
        let expected = if matches(pattern, topic) { vec![Destination::to("there")] } else { Vec::new() };
        assert_eq!(destinations, expected, "{pattern:?} on {topic:?}");
    });
}

/// AMQP's definition, word by word: `reached[n]` says whether the pattern so far matches the first n words.
fn matches(pattern: &str, topic: &str) -> bool {
    let topic = words(topic);
    let mut reached = vec![false; topic.len() + 1];
    reached[0] = true;
    for word in words(pattern) {
        let mut next = vec![false; topic.len() + 1];
        for taken in 0..=topic.len() {
            next[taken] = match word {
                "#" => reached[taken] || (taken > 0 && next[taken - 1]),
                "*" => taken > 0 && reached[taken - 1],
                word => taken > 0 && reached[taken - 1] && topic[taken - 1] == word,
            };
        }
        reached = next;
    }
    reached[topic.len()]
}

/// As in RabbitMQ, the empty text has no words.
fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}
