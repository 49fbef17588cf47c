//! What dead letters are grouped by: a fingerprint of where, at what and how a message failed, the same for messages that
//! failed for the same reason.

use sha2::{Digest, Sha256};
use sluicegate_engine::dead_letter::DeadLetter;

/// So much of an error tells causes apart, in characters.
const MAX_ERROR_CHARS: usize = 1_000;
/// Of the sha256.
const FINGERPRINT_BYTES: usize = 12;

/// 24 hexadecimal digits. The same in every version of this program: it is stored.
pub(super) fn fingerprint(letter: &DeadLetter) -> String {
    let mut hash = Sha256::new();
    let place = (letter.step.as_deref(), letter.target.as_deref());
    let error = normalised(&letter.error);
    let parts = [
        Some(&*letter.pipeline),
        place.0,
        place.1,
        Some(letter.class.name()),
        letter.plugin_digest.as_deref(),
        Some(error.as_str()),
    ];
    for part in parts {
        // No part can be taken for another: absent, or its length first.
        match part {
            None => hash.update([0]),
            Some(text) => {
                hash.update([1]);
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text.as_bytes());
            }
        }
    }
    hash.finalize()[..FINGERPRINT_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error without what differs from message to message: every word with a digit in it, and every UUID, is `#`.
fn normalised(error: &str) -> String {
    let text: String = error.chars().take(MAX_ERROR_CHARS).collect();
    let mut normalised = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        if let Some(after) = after_uuid(rest) {
            normalised.push('#');
            rest = after;
        } else if first.is_alphanumeric() {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            normalised.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
            rest = after;
        } else {
            normalised.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    normalised
}

/// What follows a UUID that `text` begins with.
fn after_uuid(text: &str) -> Option<&str> {
    const LENGTH: usize = 36;
    let candidate = text.as_bytes().get(..LENGTH)?;
    let fits = candidate.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then(|| &text[LENGTH..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_message_to_message_does_not_tell_causes_apart() {
        let same = [
            ("order 17 has no customer", "order 99321 has no customer"),
            ("abcdefab-cdef-abcd-efab-cdefabcdefab is gone", "0193e2f4-77aa-7b3c-8d1e-00112233aabb is gone"),
            ("cannot connect to 10.0.0.1:5432", "cannot connect to 192.168.17.20:6379"),
            ("key ab12cd34: no", "key 99ffee00: no"),
        ];
        for (one, other) in same {
            assert_eq!(normalised(one), normalised(other));
        }
        assert_ne!(normalised("no customer"), normalised("no address"));
        assert_eq!(normalised("Größe – ünbekannt"), "Größe – ünbekannt");
    }
}
