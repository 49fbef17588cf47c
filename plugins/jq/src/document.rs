//! Between messages and jq's values.

use jaq_json::{Map, Num, Val};
use serde::de::IgnoredAny;
use sluicegate_plugin::{Failure, Message};

/// The body as a value.
pub fn read(message: &Message) -> Result<Val, Failure> {
    jaq_json::read::parse_single(&message.body())
        .map_err(|error| Failure::reject("invalid_json", format!("the body is not JSON: {error}")))
}

/// A value as JSON text.
pub fn write(value: &Val) -> Result<Vec<u8>, Failure> {
    let text = value.to_string();
    // jaq prints a superset of JSON, so that nothing is lost unseen: NaN, byte strings, keys of any type.
    match serde_json::from_str::<IgnoredAny>(&text) {
        Ok(IgnoredAny) => Ok(text.into_bytes()),
        Err(error) => Err(Failure::reject("not_json", format!("an output has no JSON form: {error}"))),
    }
}

/// True as jq sees it.
pub fn is_true(value: &Val) -> bool {
    !matches!(value, Val::Null | Val::Bool(false))
}

/// A target's name.
pub fn target(value: &Val) -> Result<String, Failure> {
    match value {
        Val::TStr(name) => Ok(String::from_utf8_lossy(name).into_owned()),
        other => Err(Failure::reject("not_a_target", format!("an output is no string, so no target's name: {other}"))),
    }
}

/// What a program sees as `$message`.
pub fn describe(message: &Message) -> Val {
    let mut headers = Map::default();
    for (name, value) in message.headers() {
        // The first value of a name counts.
        headers.entry(text(name)).or_insert_with(|| bytes(value));
    }
    let members = [
        ("id", text(message.id())),
        ("source", text(message.source())),
        ("kind", text(message.kind())),
        ("subject", message.subject().map_or(Val::Null, text)),
        ("time", Val::Num(Num::from_integral(message.time()))),
        ("key", message.key().map_or(Val::Null, bytes)),
        ("content_type", message.content_type().map_or(Val::Null, text)),
        ("attempt", Val::Num(Num::from_integral(message.attempt()))),
        ("headers", Val::obj(headers)),
    ];
    Val::obj(members.into_iter().map(|(name, value)| (text(name.to_owned()), value)).collect())
}

fn text(text: String) -> Val {
    Val::from(text)
}

fn bytes(bytes: Vec<u8>) -> Val {
    String::from_utf8(bytes).map_or(Val::Null, text)
}
