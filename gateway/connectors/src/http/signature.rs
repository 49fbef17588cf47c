//! Signatures of Standard Webhooks (<https://www.standardwebhooks.com>, version 1, symmetric): HMAC-SHA256 over
//! `id.timestamp.body`, sent as `webhook-signature: v1,<base64>`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use sluicegate_engine::message::Message;

/// How far a webhook's timestamp may be from the receiver's clock before it is taken for a replay, as the
/// specification recommends.
pub const DEFAULT_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Prefix of a secret that is written as base64.
const BASE64_PREFIX: &str = "whsec_";

/// Longest message id that is used as `webhook-id` as it is.
const MAX_PLAIN_ID_BYTES: usize = 128;

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The secret begins with `whsec_` but the rest is not base64, or it is empty.
    #[error("the signing secret is neither `whsec_` with base64 after it nor a plain text; copy it anew")]
    Secret,
    /// The timestamp is not a number of seconds.
    #[error("`webhook-timestamp` is not a number of seconds since the Unix epoch")]
    Timestamp,
    /// The timestamp is too far from now.
    #[error("`webhook-timestamp` is further from now than allowed: an old request was sent again, or a clock is wrong")]
    Replayed,
    /// None of the signatures fits.
    #[error("no signature in `webhook-signature` fits: the body was changed or another secret was used")]
    Mismatch,
}

/// The key of a secret: the base64 after `whsec_`, or else the text's own bytes.
///
/// # Errors
/// [`SignatureError::Secret`].
pub fn signing_key(secret: &str) -> Result<Vec<u8>, SignatureError> {
    let key = match secret.strip_prefix(BASE64_PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| SignatureError::Secret)?,
        None => secret.as_bytes().to_vec(),
    };
    if key.is_empty() { Err(SignatureError::Secret) } else { Ok(key) }
}

/// The value of `webhook-signature` for a body sent at `timestamp_secs` (seconds since the Unix epoch).
pub fn sign(key: &[u8], id: &str, timestamp_secs: u64, body: &[u8]) -> String {
    let code = mac(key, id, &timestamp_secs.to_string(), body).finalize().into_bytes();
    format!("v1,{}", STANDARD.encode(code))
}

/// Checks what a receiver got. `signature` is the header's value: one or more `v1,<base64>` apart by spaces, of which
/// one must fit; compared in constant time. `now_secs` is in seconds since the Unix epoch.
///
/// # Errors
/// Why it is not to be trusted.
///
/// # Example
/// ```
/// use sluicegate_connectors::http::signature::{DEFAULT_TOLERANCE, sign, signing_key, verify};
/// let key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
/// let signature = sign(&key, "msg_1", 1_700_000_000, b"{}");
/// let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// assert!(verify(secret, "msg_1", "1700000000", b"{}", &signature, 1_700_000_010, DEFAULT_TOLERANCE).is_ok());
/// ```
#[expect(clippy::too_many_arguments, reason = "the parts of a signed request, each from another place")]
pub fn verify(
    secret: &str,
    id: &str,
    timestamp: &str,
    body: &[u8],
    signature: &str,
    now_secs: u64,
    tolerance: Duration,
) -> Result<(), SignatureError> {
    let key = signing_key(secret)?;
    let sent_secs: u64 = timestamp.parse().map_err(|_| SignatureError::Timestamp)?;
    if now_secs.abs_diff(sent_secs) > tolerance.as_secs() {
        return Err(SignatureError::Replayed);
    }
    let mac = mac(&key, id, timestamp, body);
    let fits = signature.split(' ').any(|one| {
        let Some(code) = one.strip_prefix("v1,").and_then(|encoded| STANDARD.decode(encoded).ok()) else {
            return false;
        };
        mac.clone().verify_slice(&code).is_ok()
    });
    if fits { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// The `webhook-id` of a message: the same on every attempt, so that receivers can tell a repeat. The message's own id
/// where it is short and plain; else `msg_` and a digest of source and id, since the specification forbids full stops
/// and header values have an alphabet of their own.
pub fn webhook_id(message: &Message) -> String {
    let id = &message.id;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !id.is_empty() && id.len() <= MAX_PLAIN_ID_BYTES && id.bytes().all(plain) {
        return id.clone();
    }
    let mut digest = Sha256::new();
    digest.update(message.source.as_bytes());
    digest.update([0]);
    digest.update(id.as_bytes());
    let mut text = String::with_capacity(36);
    text.push_str("msg_");
    for byte in &digest.finalize()[..16] {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn mac(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes keys of any length (RFC 2104)");
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The published example of the Standard Webhooks libraries.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let body = br#"{"test": 2432232314}"#;
        let key = signing_key(SECRET).unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_changed_part_breaks_the_signature() {
        let key = signing_key(SECRET).unwrap();
        let good = sign(&key, "m1", 1_000, b"body");
        let check = |secret: &str, id: &str, at: &str, body: &[u8], signature: &str| {
            verify(secret, id, at, body, signature, 1_000, DEFAULT_TOLERANCE)
        };
        assert_eq!(check(SECRET, "m1", "1000", b"body", &good), Ok(()));
        assert_eq!(check(SECRET, "m1", "1000", b"body", &format!("v1a,xx v1,AAAA {good}")), Ok(()));
        for refused in [
            check(SECRET, "m2", "1000", b"body", &good),
            check(SECRET, "m1", "1001", b"body", &good),
            check(SECRET, "m1", "1000", b"Body", &good),
            check("whsec_AAAA", "m1", "1000", b"body", &good),
            check(SECRET, "m1", "1000", b"body", ""),
            check(SECRET, "m1", "1000", b"body", good.trim_start_matches("v1,")),
        ] {
            assert_eq!(refused, Err(SignatureError::Mismatch));
        }
    }

    #[test]
    fn an_old_or_early_timestamp_is_a_replay() {
        let key = signing_key("plain").unwrap();
        let good = sign(&key, "m1", 1_000, b"");
        let at = |now| verify("plain", "m1", "1000", b"", &good, now, Duration::from_secs(300));
        assert_eq!(at(1_300), Ok(()));
        assert_eq!(at(1_301), Err(SignatureError::Replayed));
        assert_eq!(at(699), Err(SignatureError::Replayed));
        assert_eq!(verify("plain", "m1", "soon", b"", &good, 1_000, DEFAULT_TOLERANCE), Err(SignatureError::Timestamp));
    }

    #[test]
    fn bad_secrets_are_refused() {
        for secret in ["", "whsec_", "whsec_???"] {
            assert_eq!(signing_key(secret), Err(SignatureError::Secret), "{secret}");
        }
    }

    #[test]
    fn a_webhook_id_is_plain_and_stable() {
        let mut message = Message::new("shop", "order.created", "");
        message.id = "o-1_A".to_owned();
        assert_eq!(webhook_id(&message), "o-1_A");
        message.id = "a.b\nc".to_owned();
        let derived = webhook_id(&message);
        assert!(derived.starts_with("msg_") && derived.len() == 36, "{derived}");
        assert_eq!(webhook_id(&message.clone()), derived);
        message.source = "other".to_owned();
        assert_ne!(webhook_id(&message), derived);
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies(secret in "[ -~]{1,40}", id in "[a-z0-9]{1,20}", at in 0_u64..1 << 40, body: Vec<u8>) {
            prop_assume!(signing_key(&secret).is_ok());
            let signature = sign(&signing_key(&secret).unwrap(), &id, at, &body);
            prop_assert_eq!(verify(&secret, &id, &at.to_string(), &body, &signature, at, DEFAULT_TOLERANCE), Ok(()));
        }
    }
}
