//! The router, natively.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate_plugin::{Message, MessageBuilder, Plugin, Reason, Router};

use crate::condition::{Condition, Mistakes};
use crate::{Config, ContentRouter};

fn configured(config: Value) -> Result<ContentRouter, Vec<Reason>> {
    ContentRouter::configure(serde_json::from_value::<Config>(config).expect("of the right shape"))
}

fn targets(config: Value, message: &Message) -> Vec<String> {
    let router = configured(config).unwrap_or_else(|reasons| panic!("{reasons:?}"));
    let destinations = router.route(message).expect("routing never fails");
    destinations.into_iter().map(|destination| destination.target).collect()
}

fn gold() -> Message {
    MessageBuilder::new()
        .kind("order.placed")
        .header("region", "eu")
        .key("k-1")
        .json(&json!({ "customer": { "tier": "gold" }, "total": 120, "none": null }))
        .build()
}

fn holds(condition: Value) -> bool {
    let mut mistakes = Mistakes::default();
    let config = serde_json::from_value(condition).expect("of the right shape");
    let condition = Condition::build(config, "", &mut mistakes);
    mistakes.none().unwrap_or_else(|reasons| panic!("{reasons:?}"));
    condition.expect("no mistakes").holds(&gold())
}

#[test]
fn the_first_rule_or_all_decide() {
    let rules = json!([
        { "when": { "pointer": "/total", "gt": 1_000 }, "to": ["big"] },
        { "when": { "pointer": "/customer/tier", "equals": "gold" }, "to": ["eu", "audit"] },
        { "when": { "field": "kind", "starts_with": "order." }, "to": ["audit", "orders"] },
    ]);
    assert_eq!(targets(json!({ "rules": rules }), &gold()), ["eu", "audit"]);
    assert_eq!(targets(json!({ "rules": rules, "match": "all" }), &gold()), ["eu", "audit", "orders"]);
}

#[test]
fn otherwise_takes_the_rest() {
    let rules = json!([{ "when": { "pointer": "/total", "gt": 1_000 }, "to": ["big"] }]);
    assert!(targets(json!({ "rules": rules }), &gold()).is_empty());
    assert_eq!(targets(json!({ "rules": rules, "otherwise": ["rest"] }), &gold()), ["rest"]);
    let text = MessageBuilder::new().body("no json").build();
    assert_eq!(targets(json!({ "rules": rules, "otherwise": ["rest"] }), &text), ["rest"]);
}

#[test]
fn values_come_from_body_headers_and_fields() {
    assert!(holds(json!({ "pointer": "/none", "exists": true })));
    assert!(holds(json!({ "pointer": "/none", "equals": null })));
    assert!(!holds(json!({ "pointer": "/missing", "equals": null })));
    assert!(holds(json!({ "header": "Region", "one_of": ["eu", "us"] })));
    assert!(holds(json!({ "field": "key", "ends_with": "-1" })));
    assert!(holds(json!({ "field": "subject", "exists": false })));
    assert!(holds(json!({ "pointer": "/total", "gte": 100, "lt": 200 })));
    assert!(!holds(json!({ "pointer": "/total", "gte": 100, "lt": 120 })));
}

#[test]
fn conditions_join() {
    let eu = json!({ "header": "region", "equals": "eu" });
    let big = json!({ "pointer": "/total", "gt": 1_000 });
    assert!(holds(json!({ "any": [eu, big] })) && !holds(json!({ "all": [eu, big] })) && holds(json!({ "not": big })));
}

#[test]
fn all_mistakes_are_named_at_once() {
    let config = json!({ "rules": [
        { "when": {}, "to": [] },
        { "when": { "pointer": "total", "gt": 1 }, "to": ["a"] },
        { "when": { "pointer": "/total" }, "to": ["a"] },
        { "when": { "all": [{ "field": "kind", "header": "x", "exists": true }, { "any": [] }] }, "to": ["a"] },
        { "when": { "not": { "field": "kind", "exists": true }, "equals": 1 }, "to": ["a"] },
    ] });
    let Err(mistakes) = configured(config) else { panic!("accepted") };
    let places: Vec<_> =
        mistakes.iter().filter_map(|reason| reason.text.split_once(": ")).map(|(place, _)| place).collect();
    assert_eq!(
        places,
        [
            "/rules/0/to",
            "/rules/0/when",
            "/rules/1/when/pointer",
            "/rules/2/when",
            "/rules/3/when/all/0",
            "/rules/3/when/all/1/any",
            "/rules/4/when"
        ]
    );
}

#[test]
fn the_schema_is_precise() {
    let schema: Value = serde_json::from_str(&ContentRouter::config_schema()).expect("JSON");
    assert_eq!(schema["additionalProperties"], json!(false));
    let condition = &schema["$defs"]["Condition"];
    assert_eq!(condition["additionalProperties"], json!(false));
    assert_eq!(condition["oneOf"].as_array().map(Vec::len), Some(6));
    assert!(condition["properties"]["gt"]["description"].is_string(), "{condition:#}");
}

fn conditions() -> impl Strategy<Value = Value> {
    let comparison = prop_oneof![
        Just(json!({ "pointer": "/total", "gt": 100 })),
        Just(json!({ "pointer": "/total", "lt": 100 })),
        Just(json!({ "header": "region", "equals": "eu" })),
        Just(json!({ "field": "subject", "exists": true })),
        Just(json!({ "pointer": "/missing", "not_equals": 1 })),
    ];
    comparison.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|several| json!({ "all": several })),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|several| json!({ "any": several })),
            inner.prop_map(|one| json!({ "not": one })),
        ]
    })
}

proptest! {
    #[test]
    fn conditions_obey_de_morgan(several in prop::collection::vec(conditions(), 1..5)) {
        let none: Vec<_> = several.iter().map(|one| json!({ "not": one })).collect();
        prop_assert_eq!(holds(json!({ "not": { "all": several } })), holds(json!({ "any": none })));
        prop_assert_eq!(holds(json!({ "not": { "any": several } })), holds(json!({ "all": none })));
    }

    #[test]
    fn a_double_negation_is_none(one in conditions()) {
        prop_assert_eq!(holds(json!({ "not": { "not": one } })), holds(one));
    }
}
