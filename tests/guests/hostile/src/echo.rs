//! All that a guest can read of a message, as JSON; bytes in hexadecimal, so that a test compares them exactly.

use serde_json::{Map, Value, json};
use sluicegate_plugin::Message;

use crate::behaviour::Config;

pub fn describe(message: &Message, config: &Config) -> Value {
    let asked: Map<_, _> = config.headers.iter().map(|name| (name.clone(), message.header(name).into())).collect();
    let values: Map<_, _> =
        config.pointers.iter().map(|pointer| (pointer.clone(), message.json(pointer).into())).collect();
    let headers: Vec<_> = message.headers().into_iter().map(|(name, value)| json!([name, hex(&value)])).collect();
    json!({
        "id": message.id(),
        "source": message.source(),
        "kind": message.kind(),
        "subject": message.subject(),
        "time": message.time(),
        "key": message.key().map(|key| hex(&key)),
        "content_type": message.content_type(),
        "attempt": message.attempt(),
        "header": asked,
        "headers": headers,
        "size": message.size(),
        "body": hex(&message.body()),
        "json": values,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
