//! The three roles, natively.

use serde_json::{Value, json};
use sluicegate_plugin::log::captured;
use sluicegate_plugin::{Failure, Filter, Message, MessageBuilder, Plugin, Reason, Router, Transform, Verdict};

use crate::{Config, Jq};

fn configured(program: &str) -> Result<Jq, Vec<Reason>> {
    Jq::configure(Config { program: program.to_owned() })
}

fn jq(program: &str) -> Jq {
    configured(program).unwrap_or_else(|reasons| panic!("{program}: {reasons:?}"))
}

fn message(body: Value) -> Message {
    MessageBuilder::new().kind("order.placed").header("region", "eu").json(&body).build()
}

fn outputs(program: &str, body: Value) -> Result<Vec<String>, Failure> {
    Ok(jq(program).transform(&message(body))?.iter().map(sluicegate_plugin::Draft::text).collect())
}

fn rejection(result: Result<Vec<String>, Failure>) -> (String, String) {
    match result {
        Err(Failure::Reject(reason)) => (reason.code, reason.text),
        other => panic!("not rejected: {other:?}"),
    }
}

#[test]
fn a_filter_keeps_what_is_true_to_jq() {
    let kept =
        |program: &str| jq(program).filter(&message(json!({ "a": [1, 5] }))).map(|verdict| verdict == Verdict::Keep);
    for program in [".a[0] == 1", "0", "\"\"", "[]", ".a[] > 4", ".a[] < 2", "$message.headers.region == \"eu\""] {
        assert_eq!(kept(program), Ok(true), "{program}");
    }
    for program in ["false", "null", ".missing", "empty", ".a[] > 9", "false, null"] {
        assert_eq!(kept(program), Ok(false), "{program}");
    }
}

#[test]
fn a_drop_says_why() {
    let reason = |program: &str| match jq(program).filter(&message(json!({}))) {
        Ok(Verdict::Drop(reason)) => reason.code,
        other => panic!("not dropped: {other:?}"),
    };
    assert_eq!(reason("empty"), "no_output");
    assert_eq!(reason("false"), "not_true");
}

#[test]
fn each_output_becomes_a_message() {
    assert_eq!(
        outputs(".a[] | {b: .}", json!({ "a": [1, 2] })),
        Ok(vec![r#"{"b":1}"#.to_owned(), r#"{"b":2}"#.to_owned()])
    );
    assert_eq!(outputs("empty", json!({})), Ok(vec![]));
}

#[test]
fn a_draft_shares_the_rest_of_the_message() {
    let plain = MessageBuilder::new().header("region", "eu").content_type("text/plain").body("1").build();
    let drafts = jq(".").transform(&plain).expect("identity");
    assert_eq!(drafts[0].header("region").as_deref(), Some("eu"));
    assert_eq!(drafts[0].content_type().as_deref(), Some("application/json"));
    let event = MessageBuilder::new().content_type("application/vnd.acme+json").body("1").build();
    let drafts = jq(".").transform(&event).expect("identity");
    assert_eq!(drafts[0].content_type().as_deref(), Some("application/vnd.acme+json"));
}

#[test]
fn members_keep_their_order_and_numbers_their_digits() {
    let body = r#"{"z":12345678901234567890123,"a":1.10,"m":1e400}"#;
    let drafts = jq(".").transform(&MessageBuilder::new().body(body).build()).expect("identity");
    assert_eq!(drafts[0].text(), body);
}

#[test]
fn a_route_names_targets() {
    let targets = |program: &str| jq(program).route(&message(json!({ "tier": "gold" })));
    let names: Vec<_> = targets(r#"if .tier == "gold" then "eu", "audit" else "us" end"#)
        .expect("strings")
        .into_iter()
        .map(|destination| destination.target)
        .collect();
    assert_eq!(names, ["eu", "audit"]);
    assert_eq!(targets("empty"), Ok(vec![]));
    assert_eq!(targets("1").expect_err("a number").reason().code, "not_a_target");
}

#[test]
fn the_message_is_a_variable() {
    let program = "[$message | .id, .source, .kind, .subject, .time, .key, .attempt, .headers.region, .headers.raw]";
    let given = MessageBuilder::new()
        .subject("o-1")
        .time_ms(1_789_000_000_000)
        .key([0xff])
        .header("region", "eu")
        .header("region", "us")
        .header("raw", [0xff])
        .body("0")
        .build();
    let drafts = jq(program).transform(&given).expect("the variable is there");
    assert_eq!(
        drafts[0].body_json(),
        json!(["m-1", "/test", "test", "o-1", 1_789_000_000_000_u64, null, 1, "eu", null])
    );
}

#[test]
fn an_error_rejects_with_its_text() {
    assert_eq!(rejection(outputs(".a + 1", json!({ "a": {} }))).1, "cannot calculate {} + 1");
    assert_eq!(rejection(outputs("1, error(\"no total\")", json!({}))), ("jq_error".to_owned(), "no total".to_owned()));
    assert_eq!(rejection(outputs("error({code: 1})", json!({}))).1, r#"{"code":1}"#);
    assert_eq!(rejection(outputs("halt", json!({}))).0, "jq_halt");
}

#[test]
fn what_is_not_json_rejects() {
    for program in ["nan", "infinite", "{(1|tostring): nan}"] {
        assert_eq!(rejection(outputs(program, json!({}))).0, "not_json", "{program}");
    }
    let failure = jq(".").transform(&MessageBuilder::new().body("{").build()).expect_err("truncated");
    assert_eq!(failure.reason().code, "invalid_json");
    assert!(jq(".").transform(&MessageBuilder::new().build()).is_err(), "an empty body is not JSON");
}

#[test]
fn mistakes_have_their_place() {
    let mistakes = |program: &str| match configured(program) {
        Err(reasons) => reasons.into_iter().map(|reason| reason.text).collect::<Vec<_>>(),
        Ok(_) => panic!("{program} compiled"),
    };
    assert_eq!(
        mistakes(".a |\n  nope(1), $who"),
        [
            "/program: line 2, column 3, at `nope`: there is no filter of this name with 1 arguments",
            "/program: line 2, column 12, at `$who`: there is no variable of this name",
        ]
    );
    assert!(mistakes(".a | (")[0].starts_with("/program: line 1, column 7"), "{:?}", mistakes(".a | ("));
    assert!(mistakes(".a |")[0].contains("the end of the program"), "{:?}", mistakes(".a |"));
    assert!(mistakes("import \"a\" as a; .")[0].contains("no modules"));
}

#[test]
fn debug_writes_to_the_log() {
    outputs(". | debug", json!({ "seen": true })).expect("identity");
    assert!(captured().iter().any(|(_, text)| text.contains("seen")));
}

#[test]
fn the_schema_is_precise() {
    let schema: Value = serde_json::from_str(&Jq::config_schema()).expect("JSON");
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["required"], json!(["program"]));
    assert!(schema["properties"]["program"]["description"].is_string());
}

#[test]
fn times_are_universal() {
    assert_eq!(
        outputs("0 | todate, (gmtime | mktime), strflocaltime(\"%H %Z\")", json!({})),
        Ok(vec!["\"1970-01-01T00:00:00Z\"".to_owned(), "0".to_owned(), "\"00 UTC\"".to_owned(),])
    );
    assert_eq!(outputs("\"2026-11-20T15:42:00Z\" | fromdate", json!({})), Ok(vec!["1795189320".to_owned()]));
}
