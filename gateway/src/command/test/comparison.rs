//! Compares what came out with what was expected.

use serde_json::{Value, json};
use sluicegate_engine::message::Message;

use super::Trial;
use crate::config::{Expectation, ExpectedDrop, ExpectedMessage};

/// Most differences of one test.
pub const MAX_DIFFERENCES: usize = 50;

/// Something that came out differently.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// What is compared: `targets`, `message 1, body /customer/email`.
    pub what: String,
    /// What was expected; null for nothing.
    pub expected: Value,
    /// What came out; null for nothing.
    pub actual: Value,
}

impl Difference {
    fn new(what: impl Into<String>, expected: Value, actual: Value) -> Self {
        Self { what: what.into(), expected, actual }
    }
}

/// All differences, at most [`MAX_DIFFERENCES`]. A dead letter that is not expected is one, and so is an expectation
/// about messages when there is none.
pub(super) fn compare(expect: &Expectation, trial: &Trial) -> Vec<Difference> {
    let mut differences = Vec::new();
    dead_letters(expect, trial, &mut differences);
    dropped(expect, trial, &mut differences);
    if let Some(why) = &trial.outcome.undecided {
        differences.push(Difference::new("outcome", json!("an end"), json!(why)));
    }
    if let Some(expected) = &expect.targets {
        let mut actual: Vec<&str> = trial.published.iter().map(|(target, _)| &**target).collect();
        actual.sort_unstable();
        if *expected != actual {
            differences.push(Difference::new("targets", json!(expected), json!(actual)));
        }
    }
    if expect.every != ExpectedMessage::default() {
        if trial.published.is_empty() {
            differences.push(Difference::new("messages", json!("at least one"), json!("none")));
        }
        for (index, (target, message)) in trial.published.iter().enumerate() {
            compare_message(&format!("message {}", index + 1), &expect.every, target, message, &mut differences);
        }
    }
    if let Some(expected) = &expect.messages {
        if expected.len() != trial.published.len() {
            let difference = Difference::new("number of messages", json!(expected.len()), json!(trial.published.len()));
            differences.push(difference);
        }
        for (index, (expected, (target, message))) in expected.iter().zip(&trial.published).enumerate() {
            compare_message(&format!("message {}", index + 1), expected, target, message, &mut differences);
        }
    }
    differences.truncate(MAX_DIFFERENCES);
    differences
}

fn dead_letters(expect: &Expectation, trial: &Trial, differences: &mut Vec<Difference>) {
    let classes: Vec<&str> = trial.outcome.dead_letters.iter().map(|letter| letter.class.name()).collect();
    let expected = expect.dead_letter.map(|class| class.name());
    let same = match expected {
        None => classes.is_empty(),
        Some(expected) => !classes.is_empty() && classes.iter().all(|class| *class == expected),
    };
    if !same {
        differences.push(Difference::new("dead letter", json!(expected), json!(classes)));
    }
}

fn dropped(expect: &Expectation, trial: &Trial, differences: &mut Vec<Difference>) {
    let Some(expected) = &expect.dropped else { return };
    let codes: Vec<&str> = trial.outcome.dropped.iter().map(|reason| reason.code.as_str()).collect();
    let (same, expected) = match expected {
        ExpectedDrop::No => (codes.is_empty(), json!(false)),
        ExpectedDrop::ForAnyReason => (!codes.is_empty(), json!(true)),
        ExpectedDrop::Because(code) => (codes.contains(&code.as_str()), json!(code)),
    };
    if !same {
        let actual = if codes.is_empty() { json!(false) } else { json!(codes) };
        differences.push(Difference::new("dropped", expected, actual));
    }
}

fn compare_message(
    what: &str,
    expected: &ExpectedMessage,
    target: &str,
    message: &Message,
    differences: &mut Vec<Difference>,
) {
    let mut text = |name: &str, expected: Option<&str>, actual: Option<&str>| {
        if expected.is_some() && expected != actual {
            differences.push(Difference::new(format!("{what}, {name}"), json!(expected), json!(actual)));
        }
    };
    text("target", expected.target.as_deref(), Some(target));
    text("kind", expected.kind.as_deref(), Some(&message.kind));
    let key = message.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
    text("key", expected.key.as_deref(), key.as_deref());
    for (name, value) in &expected.headers {
        let actual = message.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        text(&format!("header {name}"), Some(value), actual.as_deref());
    }
    if let Some(expected) = &expected.body {
        match message.body.json() {
            Ok(actual) => diff(&format!("{what}, body"), "", expected, actual, differences),
            Err(_) => {
                let actual = json!(String::from_utf8_lossy(message.body.bytes()));
                if *expected != actual {
                    differences.push(Difference::new(format!("{what}, body"), expected.clone(), actual));
                }
            }
        }
    }
}

/// Differences of two JSON values, each at its pointer. Numbers are equal if their values are: `1` and `1.0`.
fn diff(what: &str, pointer: &str, expected: &Value, actual: &Value, differences: &mut Vec<Difference>) {
    if differences.len() > MAX_DIFFERENCES {
        return;
    }
    let mut differ = |pointer: &str, expected: &Value, actual: &Value| {
        let at = if pointer.is_empty() { what.to_owned() } else { format!("{what} {pointer}") };
        differences.push(Difference::new(at, expected.clone(), actual.clone()));
    };
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(found)) => {
            for (key, value) in wanted {
                let below = child(pointer, key);
                match found.get(key) {
                    Some(other) => diff(what, &below, value, other, differences),
                    None => differences.push(Difference::new(format!("{what} {below}"), value.clone(), Value::Null)),
                }
            }
            for (key, value) in found.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
                let at = format!("{what} {}", child(pointer, key));
                differences.push(Difference::new(at, Value::Null, value.clone()));
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (value, other)) in wanted.iter().zip(found).enumerate() {
                diff(what, &child(pointer, &index.to_string()), value, other, differences);
            }
        }
        (Value::Number(wanted), Value::Number(found)) if wanted == found || wanted.as_f64() == found.as_f64() => {}
        _ if expected == actual => {}
        _ => differ(pointer, expected, actual),
    }
}

fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sluicegate_engine::delivery::{Outcome, Settlement};
    use sluicegate_engine::failure::Reason;

    use super::*;

    fn trial(published: &[(&str, &str)]) -> Trial {
        let message = |body: &str| {
            let mut message = Message::new("s", "order.created", body.to_owned());
            message.headers.append("region", "eu");
            Arc::new(message)
        };
        Trial {
            published: published.iter().map(|(target, body)| ((*target).into(), message(body))).collect(),
            outcome: Outcome::default(),
        }
    }

    fn found(expect: &Expectation, trial: &Trial) -> Vec<(String, Value, Value)> {
        compare(expect, trial).into_iter().map(|d| (d.what, d.expected, d.actual)).collect()
    }

    fn body(value: Value) -> Expectation {
        Expectation {
            every: ExpectedMessage { body: Some(value), ..ExpectedMessage::default() },
            ..Expectation::default()
        }
    }

    #[test]
    fn bodies_are_compared_by_value_and_differ_at_pointers() {
        let trial = trial(&[("eu", r#"{"a": 1.0, "b": [1, {"c/d": 2}], "e": 3}"#)]);
        assert_eq!(found(&body(json!({"e": 3, "b": [1, {"c/d": 2}], "a": 1})), &trial), []);
        assert_eq!(
            found(&body(json!({"a": 2, "b": [1, {"c/d": 9}], "f": 4})), &trial),
            [
                ("message 1, body /a".to_owned(), json!(2), json!(1.0)),
                ("message 1, body /b/1/c~1d".to_owned(), json!(9), json!(2)),
                ("message 1, body /f".to_owned(), json!(4), Value::Null),
                ("message 1, body /e".to_owned(), Value::Null, json!(3)),
            ]
        );
    }

    #[test]
    fn a_body_that_is_no_json_is_compared_as_text() {
        assert_eq!(found(&body(json!("plain")), &trial(&[("eu", "plain")])), []);
        assert_eq!(found(&body(json!("plain")), &trial(&[("eu", "other")])).len(), 1);
    }

    #[test]
    fn an_expectation_about_messages_fails_when_none_came_out() {
        let expected = [("messages".to_owned(), json!("at least one"), json!("none"))];
        assert_eq!(found(&body(json!({})), &trial(&[])), expected);
    }

    #[test]
    fn targets_are_compared_in_any_order_and_with_repeats() {
        let expect = |targets: &[&str]| Expectation {
            targets: Some(targets.iter().map(|t| (*t).to_owned()).collect()),
            ..Expectation::default()
        };
        assert_eq!(found(&expect(&["eu", "us"]), &trial(&[("us", ""), ("eu", "")])), []);
        assert_eq!(found(&expect(&["eu"]), &trial(&[("eu", ""), ("eu", "")])).len(), 1);
        assert_eq!(found(&expect(&[]), &trial(&[("eu", "")])).len(), 1);
    }

    #[test]
    fn headers_kind_and_each_message_are_compared() {
        let one = |target: &str, region: &str| ExpectedMessage {
            target: Some(target.to_owned()),
            headers: vec![("region".to_owned(), region.to_owned())],
            kind: Some("order.created".to_owned()),
            ..ExpectedMessage::default()
        };
        let expect = Expectation { messages: Some(vec![one("eu", "eu"), one("us", "us")]), ..Expectation::default() };
        let differences = found(&expect, &trial(&[("eu", ""), ("eu", "")]));
        let places: Vec<&str> = differences.iter().map(|(what, _, _)| what.as_str()).collect();
        assert_eq!(places, ["message 2, target", "message 2, header region"]);
        assert_eq!(found(&expect, &trial(&[("eu", "")]))[0].0, "number of messages");
    }

    #[test]
    fn drops_are_compared_by_code() {
        let mut dropped = trial(&[]);
        dropped.outcome.settlement = Settlement::Dropped;
        dropped.outcome.dropped = vec![Reason::new("test_order", "it is a test")];
        let expect = |dropped| Expectation { dropped: Some(dropped), ..Expectation::default() };
        assert_eq!(found(&expect(ExpectedDrop::ForAnyReason), &dropped), []);
        assert_eq!(found(&expect(ExpectedDrop::Because("test_order".to_owned())), &dropped), []);
        assert_eq!(found(&expect(ExpectedDrop::Because("other".to_owned())), &dropped).len(), 1);
        assert_eq!(found(&expect(ExpectedDrop::No), &dropped).len(), 1);
        assert_eq!(found(&expect(ExpectedDrop::ForAnyReason), &trial(&[("eu", "")])).len(), 1);
    }

    #[test]
    fn a_message_that_is_still_under_way_fails_the_test() {
        let mut stuck = trial(&[("eu", "{}")]);
        stuck.outcome = Outcome::requeued("the store is down");
        assert_eq!(found(&body(json!({})), &stuck)[0].2, json!("the store is down"));
    }
}
