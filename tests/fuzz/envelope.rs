//! The JSON envelope of requirement A2.

use sluicegate_connectors::envelope;
use sluicegate_engine::message::Message;

/// Parts of envelopes.
pub const WORDS: &[&[u8]] = &[
    b"\"id\"",
    b"\"type\"",
    b"\"timestamp\"",
    b"\"source\"",
    b"\"correlationId\"",
    b"\"data\"",
    b"\"metadata\"",
    b"\"$headers\"",
    b"\"$key\"",
    b"\"$keyBase64\"",
    b"\"$dataEncoding\"",
    b"\"base64\"",
    b"\"text\"",
    b"\"$contentType\"",
    b"null",
    b"1e999",
    b"-0.0",
    b"\\ud800",
    b"9999-12-31T23:59:60Z",
    b"1969-07-20T20:17:40+99:99",
    b"{\"data\":",
];

/// What decodes is written and read again as the same message.
pub fn fuzz(data: &[u8]) {
    match envelope::decode(data, "fuzz") {
        Ok(message) => {
            let written = envelope::encode(&message);
            let again = envelope::decode(&written, "fuzz").expect("what was written can be read");
            assert_same(&again, &message, &written);
            assert_eq!(envelope::encode(&again), written, "written twice, differently");
        }
        Err(error) => assert!(!error.problems.is_empty(), "a refusal without a reason"),
    }
}

/// The same but for blanks between the tokens of a JSON body, which writing leaves out.
pub fn assert_same(again: &Message, message: &Message, written: &[u8]) {
    let written = String::from_utf8_lossy(written);
    let expected = Message { body: again.body.clone(), ..message.clone() };
    assert_eq!(*again, expected, "{written}");
    if again.body != message.body {
        let values = [&again.body, &message.body].map(|body| body.json().expect("a body that changed is JSON").clone());
        assert_eq!(values[0], values[1], "{written}");
        assert!(again.body.len() < message.body.len(), "{written}");
    }
}
