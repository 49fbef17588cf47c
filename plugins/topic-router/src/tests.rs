//! The router, natively.

use serde_json::{Value, json};
use sluicegate_plugin::{MessageBuilder, Plugin, Reason, Router};

use crate::{Config, TopicRouter};

fn configured(config: Value) -> Result<TopicRouter, Vec<Reason>> {
    TopicRouter::configure(serde_json::from_value::<Config>(config).expect("of the right shape"))
}

fn targets(config: Value, message: MessageBuilder) -> Vec<String> {
    let router = configured(config).unwrap_or_else(|reasons| panic!("{reasons:?}"));
    let destinations = router.route(&message.build()).expect("routing never fails");
    destinations.into_iter().map(|destination| destination.target).collect()
}

fn orders() -> Value {
    json!([{ "pattern": "order.*", "to": ["eu", "audit"] }, { "pattern": "order.#", "to": ["audit", "all"] }])
}

#[test]
fn all_patterns_add_each_target_once() {
    let config = json!({ "patterns": orders() });
    assert_eq!(targets(config.clone(), MessageBuilder::new().kind("order.placed")), ["eu", "audit", "all"]);
    assert_eq!(targets(config, MessageBuilder::new().kind("order.placed.eu")), ["audit", "all"]);
}

#[test]
fn the_first_pattern_can_decide() {
    let config = json!({ "patterns": orders(), "match": "first" });
    assert_eq!(targets(config, MessageBuilder::new().kind("order.placed")), ["eu", "audit"]);
}

#[test]
fn otherwise_takes_the_rest() {
    let unmatched = MessageBuilder::new().kind("invoice");
    assert!(targets(json!({ "patterns": orders() }), unmatched.clone()).is_empty());
    assert_eq!(targets(json!({ "patterns": orders(), "otherwise": ["rest"] }), unmatched), ["rest"]);
}

#[test]
fn words_come_from_the_subject_or_a_header() {
    let message = MessageBuilder::new().kind("k").subject("order.a").header("topic", "order.b.c");
    assert_eq!(targets(json!({ "patterns": orders(), "field": "subject" }), message.clone()), ["eu", "audit", "all"]);
    assert_eq!(targets(json!({ "patterns": orders(), "header": "topic" }), message.clone()), ["audit", "all"]);
    // A message without the header matches not even `#`.
    let config = json!({ "patterns": [{ "pattern": "#", "to": ["all"] }], "header": "none", "otherwise": ["rest"] });
    assert_eq!(targets(config, message), ["rest"]);
}

#[test]
fn all_mistakes_are_named_at_once() {
    let config = json!({
        "patterns": [{ "pattern": "a".repeat(300), "to": ["eu"] }, { "pattern": "a", "to": [] }],
        "field": "kind", "header": "topic",
    });
    let Err(mistakes) = configured(config) else { panic!("accepted") };
    let places: Vec<_> =
        mistakes.iter().filter_map(|reason| reason.text.split_once(": ")).map(|(place, _)| place).collect();
    assert_eq!(places, ["/header", "/patterns/0/pattern", "/patterns/1/to"]);
}

#[test]
fn the_schema_is_precise() {
    let schema: Value = serde_json::from_str(&TopicRouter::config_schema()).expect("JSON");
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["required"], json!(["patterns"]));
    assert_eq!(schema["$defs"]["Binding"]["additionalProperties"], json!(false));
    assert!(schema["properties"]["match"]["description"].is_string());
}
