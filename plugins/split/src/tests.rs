//! The transform, natively.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate_plugin::{Draft, Failure, MessageBuilder, Plugin, Reason, Transform};

use crate::{Config, Split};

fn configured(config: Value) -> Result<Split, Vec<Reason>> {
    Split::configure(serde_json::from_value::<Config>(config).expect("of the right shape"))
}

fn parts(config: Value, message: MessageBuilder) -> Result<Vec<Draft>, Failure> {
    configured(config).unwrap_or_else(|reasons| panic!("{reasons:?}")).transform(&message.build())
}

fn texts(config: Value, body: &str) -> Vec<String> {
    let parts = parts(config, MessageBuilder::new().body(body)).expect("split");
    parts.iter().map(Draft::text).collect()
}

fn code(config: Value, body: &str) -> String {
    match parts(config, MessageBuilder::new().body(body)) {
        Err(failure) => failure.reason().code.clone(),
        Ok(drafts) => panic!("split into {drafts:?}"),
    }
}

#[test]
fn elements_become_bodies() {
    assert_eq!(
        texts(json!({ "pointer": "/a" }), r#"{"a":[{"z":1,"b":2},3,"x"],"c":0}"#),
        [r#"{"z":1,"b":2}"#, "3", "\"x\""]
    );
    assert_eq!(texts(json!({ "pointer": "" }), "[1,[2]]"), ["1", "[2]"]);
}

#[test]
fn parts_can_keep_the_rest_of_the_body() {
    let body = r#"{"id":7,"order":{"items":[1,2],"item":0,"to":"x"}}"#;
    assert_eq!(
        texts(json!({ "pointer": "/order/items", "into": "item" }), body),
        [r#"{"id":7,"order":{"item":1,"to":"x"}}"#, r#"{"id":7,"order":{"item":2,"to":"x"}}"#]
    );
    assert_eq!(texts(json!({ "pointer": "/a", "into": "a" }), r#"{"a":[1],"b":2}"#), [r#"{"a":1,"b":2}"#]);
    assert_eq!(texts(json!({ "pointer": "/a~1b", "into": "~" }), r#"{"a/b":[1]}"#), [r#"{"~":1}"#]);
    assert_eq!(code(json!({ "pointer": "/0", "into": "a" }), "[[1]]"), "no_object");
}

#[test]
fn headers_number_the_parts() {
    let config = json!({ "pointer": "", "index_header": "index", "count_header": "count" });
    let drafts = parts(config, MessageBuilder::new().header("region", "eu").body("[5,6]")).expect("split");
    let headers: Vec<_> =
        drafts.iter().map(|draft| (draft.header("index"), draft.header("count"), draft.header("region"))).collect();
    let expected = |index: &str| (Some(index.to_owned()), Some("2".to_owned()), Some("eu".to_owned()));
    assert_eq!(headers, [expected("0"), expected("1")]);
}

#[test]
fn an_empty_array_drops() {
    assert!(texts(json!({ "pointer": "" }), "[]").is_empty());
}

#[test]
fn without_an_array_the_configuration_decides() {
    for body in [r#"{"b":1}"#, r#"{"a":1}"#, "no json", ""] {
        assert_eq!(code(json!({ "pointer": "/a" }), body), "no_array");
        assert_eq!(texts(json!({ "pointer": "/a", "if_missing": "keep" }), body), [body]);
        assert!(texts(json!({ "pointer": "/a", "if_missing": "drop" }), body).is_empty());
    }
}

#[test]
fn too_many_parts_are_rejected() {
    assert_eq!(code(json!({ "pointer": "", "max_parts": 2 }), "[1,2,3]"), "too_many_parts");
    assert_eq!(texts(json!({ "pointer": "", "max_parts": 2 }), "[1,2]").len(), 2);
}

#[test]
fn all_mistakes_are_named_at_once() {
    let config = json!({ "pointer": "a", "max_parts": 0, "index_header": "n", "count_header": "N" });
    let Err(mistakes) = configured(config) else { panic!("accepted") };
    let places: Vec<_> =
        mistakes.iter().filter_map(|reason| reason.text.split_once(": ")).map(|(place, _)| place).collect();
    assert_eq!(places, ["/pointer", "/max_parts", "/count_header"]);
    assert!(configured(json!({ "pointer": "", "into": "item" })).is_err());
}

#[test]
fn the_schema_is_precise() {
    let schema: Value = serde_json::from_str(&Split::config_schema()).expect("JSON");
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["required"], json!(["pointer"]));
    assert_eq!(schema["properties"]["max_parts"]["default"], json!(1_000));
}

proptest! {
    #[test]
    fn parts_joined_are_the_array(elements in prop::collection::vec(prop_oneof![
        any::<i64>().prop_map(Value::from), ".*".prop_map(Value::from), Just(json!([[], {}])), Just(Value::Null),
    ], 0..20)) {
        let array = Value::from(elements);
        for (config, body, into) in [
            (json!({ "pointer": "" }), array.clone(), ""),
            (json!({ "pointer": "/a", "into": "b" }), json!({ "a": array, "c": 1 }), "/b"),
        ] {
            let parts = texts(config, &body.to_string());
            let joined: Vec<_> = parts.iter().map(|text| {
                let part: Value = serde_json::from_str(text).expect("JSON");
                part.pointer(into).expect("the element").clone()
            }).collect();
            prop_assert_eq!(Value::from(joined), array.clone());
        }
    }
}
