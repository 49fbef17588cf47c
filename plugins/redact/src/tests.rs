//! The transform, natively.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate_plugin::{Draft, MessageBuilder, Plugin, Reason, Transform};

use crate::{Config, Redact};

fn configured(config: Value) -> Result<Redact, Vec<Reason>> {
    Redact::configure(serde_json::from_value::<Config>(config).expect("of the right shape"))
}

fn redacted(config: Value, message: MessageBuilder) -> Draft {
    let redact = configured(config).unwrap_or_else(|reasons| panic!("{reasons:?}"));
    redact.transform(&message.build()).expect("redacted").pop().expect("one draft")
}

fn body(config: Value, body: Value) -> Value {
    redacted(config, MessageBuilder::new().json(&body)).body_json()
}

#[test]
fn masks_hashes_and_removes() {
    let config = json!({ "mask": ["/email", "/none"], "hash": ["/id"], "remove": ["/card"] });
    assert_eq!(
        body(config, json!({ "id": "abc", "email": "a@b.c", "card": { "no": 1 }, "total": 2 })),
        json!({ "id": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "email": "***", "total": 2 }),
    );
}

#[test]
fn the_mask_and_the_salt_can_be_chosen() {
    assert_eq!(body(json!({ "mask": ["/a"], "mask_with": "–" }), json!({ "a": [1] })), json!({ "a": "–" }));
    // SHA-256 of "abc": two letters of salt, one of value.
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(body(json!({ "hash": ["/a"], "salt": "ab" }), json!({ "a": "c" })), json!({ "a": hash }));
}

#[test]
fn wildcards_reach_every_element() {
    let items = json!({ "items": [{ "card": 1, "n": 1 }, { "n": 2 }, { "card": 3 }] });
    assert_eq!(body(json!({ "mask": ["/items/*/card"] }), items.clone())["items"][2], json!({ "card": "***" }));
    assert_eq!(
        body(json!({ "remove": ["/items/*/card"] }), items.clone()),
        json!({ "items": [{ "n": 1 }, { "n": 2 }, {}] })
    );
    assert_eq!(body(json!({ "remove": ["/items/*"] }), items), json!({ "items": [] }));
}

#[test]
fn removals_do_not_move_what_others_mean() {
    let config = json!({ "remove": ["/a/0", "/a/1", "/a/10"], "mask": ["/a/2"] });
    let given = json!({ "a": (0..12).collect::<Vec<_>>() });
    assert_eq!(body(config, given), json!({ "a": ["***", 3, 4, 5, 6, 7, 8, 9, 11] }));
}

#[test]
fn headers_are_treated_alike() {
    let config = json!({ "headers": { "mask": ["Authorization", "none"], "hash": ["user"], "remove": ["cookie"] } });
    let message = MessageBuilder::new()
        .header("authorization", "Bearer x")
        .header("user", "abc")
        .header("Cookie", "c")
        .body("any");
    let draft = redacted(config, message);
    assert_eq!(draft.header("authorization").as_deref(), Some("***"));
    assert!(draft.header("user").expect("kept").starts_with("ba7816bf"));
    assert_eq!((draft.header("cookie"), draft.header("none")), (None, None));
    assert_eq!(draft.text(), "any", "no pointers, so the body need not be JSON");
}

#[test]
fn what_cannot_be_seen_is_rejected() {
    let redact = configured(json!({ "mask": ["/a"] })).expect("configured");
    let failure = redact.transform(&MessageBuilder::new().body("a=1").build()).expect_err("not JSON");
    assert_eq!(failure.reason().code, "not_json");
    assert!(redact.transform(&MessageBuilder::new().build()).is_ok(), "an empty body holds nothing");
    assert!(redact.transform(&MessageBuilder::new().body("[]").build()).is_ok());
}

#[test]
fn all_mistakes_are_named_at_once() {
    let config = json!({
        "mask": ["email", "/a/*", ""], "hash": ["/a/0/b"], "headers": { "mask": ["A"], "remove": ["a"] },
    });
    let Err(mistakes) = configured(config) else { panic!("accepted") };
    let places: Vec<_> =
        mistakes.iter().filter_map(|reason| reason.text.split_once(": ")).map(|(place, _)| place).collect();
    assert_eq!(places, ["/mask/0", "/mask/2", "/hash/0", "/headers/remove/0"]);
    assert!(configured(json!({})).is_err(), "nothing to do is a mistake");
}

#[test]
fn the_schema_is_precise() {
    let schema: Value = serde_json::from_str(&Redact::config_schema()).expect("JSON");
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["properties"]["mask_with"]["default"], json!("***"));
    assert!(schema["properties"]["hash"]["description"].is_string());
}

proptest! {
    /// Whatever the body, nothing of a masked subtree is left, and the rest is untouched.
    #[test]
    fn a_secret_never_survives(count in 0_usize..8, nested in any::<bool>()) {
        let secret = if nested { json!({ "deep": ["s3cret"] }) } else { json!("s3cret") };
        let items: Vec<_> = (0..count).map(|n| json!({ "n": n, "card": secret })).collect();
        for action in ["mask", "hash", "remove"] {
            let after = body(json!({ action: ["/items/*/card"] }), json!({ "items": items }));
            prop_assert!(!after.to_string().contains("s3cret"), "{}", after);
            let kept: Vec<_> = (0..count).map(|n| after["items"][n]["n"].clone()).collect();
            prop_assert_eq!(kept, (0..count).map(Value::from).collect::<Vec<_>>());
        }
    }
}
