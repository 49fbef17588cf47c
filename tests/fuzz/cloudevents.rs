//! CloudEvents in JSON: one event and batches.

use sluicegate_connectors::cloudevents;

use crate::envelope::assert_same;

/// Parts of events.
pub const WORDS: &[&[u8]] = &[
    b"\"specversion\":\"1.0\"",
    b"\"id\"",
    b"\"source\"",
    b"\"type\"",
    b"\"time\"",
    b"\"data\"",
    b"\"data_base64\"",
    b"\"datacontenttype\"",
    b"\"partitionkey\"",
    b"\"partitionkeybase64\"",
    b"\"expirytime\"",
    b"\"sluicegateheaders\"",
    b"[[\\\"a\\\",\\\"b\\\"]]",
    b"\"traceparent\"",
    b"null",
    b"1e999",
    b"\\u0000",
    b"\\ud800",
    b"application/json",
    b"text/plain; charset=utf-8",
    b"2026-11-20T16:00:00.123456789Z",
    b"[",
    b"]",
    b",",
];

/// Most events of a batch here.
const MAX_EVENTS: usize = 64;

/// What decodes is written and read again as the same message; a batch as the same messages.
pub fn fuzz(data: &[u8]) {
    match cloudevents::decode(data) {
        Ok(message) => {
            let written = cloudevents::encode(&message);
            let again = cloudevents::decode(&written).expect("what was written can be read");
            assert_same(&again, &message, &written);
            assert_eq!(cloudevents::encode(&again), written, "written twice, differently");
        }
        Err(error) => assert!(!error.problems.is_empty(), "a refusal without a reason"),
    }
    match cloudevents::decode_batch(data, MAX_EVENTS) {
        Ok(messages) => {
            assert!(messages.len() <= MAX_EVENTS);
            let written = cloudevents::encode_batch(&messages);
            let again = cloudevents::decode_batch(&written, MAX_EVENTS).expect("what was written can be read");
            assert_eq!(again.len(), messages.len());
            again.iter().zip(&messages).for_each(|(again, message)| assert_same(again, message, &written));
        }
        Err(error) => assert!(!error.problems.is_empty(), "a refusal without a reason"),
    }
}
