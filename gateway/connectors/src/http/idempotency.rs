//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the header, what two requests must share to be the
//! same, and which keys are in progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use sha2::{Digest, Sha256};

use super::problem::{PointedError, ProblemCode, ProblemDetails};
use super::spool::Fingerprint;

/// Longest key, without its quotes.
pub const MAX_KEY_BYTES: usize = 255;

/// The header that names a request.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What a client is asked to wait before it repeats a request that is still in progress, in seconds.
const RETRY_AFTER_IN_PROGRESS_SECS: u64 = 1;

/// The key of a request, if it has one: a string of RFC 8941 (`"8e03…"`), or the same without quotes, as many clients
/// send it.
///
/// # Errors
/// 400 when it comes more than once, is empty, too long, or not printable ASCII.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<Arc<str>>, ProblemDetails> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("comes more than once"));
    }
    let text = value.to_str().map_err(|_| malformed("is not printable ASCII"))?.trim();
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted).ok_or_else(|| malformed("begins with a quote and is not a quoted string"))?,
        None if text.bytes().all(is_bare) => text.to_owned(),
        None => return Err(malformed("has characters that need quotes around the key")),
    };
    match key.len() {
        0 => Err(malformed("is empty")),
        1..=MAX_KEY_BYTES => Ok(Some(key.into())),
        longer => Err(malformed(&format!("has {longer} bytes; at most {MAX_KEY_BYTES} are taken"))),
    }
}

fn malformed(text: &str) -> ProblemDetails {
    let detail = format!(
        "the header `{IDEMPOTENCY_KEY}` {text}; send one key of printable ASCII, for example a UUID in double quotes"
    );
    ProblemDetails::new(ProblemCode::InvalidHeader, detail)
        .with_errors([PointedError::in_header(IDEMPOTENCY_KEY, text)])
}

/// Without quotes: all that is visible but what delimits strings, lists and parameters.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"\\,;".contains(&byte)
}

/// What stands in a string of RFC 8941 (4.2.5), from behind its first quote; `None` unless it ends with its last.
fn unquote(quoted: &str) -> Option<String> {
    let mut key = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(key),
            '\\' => key.push(chars.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            plain @ ' '..='~' => key.push(plain),
            _ => return None,
        }
    }
}

/// Of a request to `path` with this decompressed body. May take milliseconds for bodies of megabytes.
pub(super) fn fingerprint(path: &str, headers: &HeaderMap, body: &[u8]) -> Fingerprint {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let mut sha256 = Sha256::new();
    // With their lengths, so that nothing moves from one part to the next unseen.
    for part in [path.as_bytes(), content_type] {
        sha256.update((part.len() as u64).to_be_bytes());
        sha256.update(part);
    }
    sha256.update(body);
    Fingerprint(sha256.finalize().into())
}

/// A request that named itself.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) key: Arc<str>,
    pub(super) fingerprint: Fingerprint,
}

/// The keys of requests that this gateway has not answered yet, of a limited number.
#[derive(Debug, Clone)]
pub(super) struct KeysInProgress {
    keys: Arc<Mutex<HashMap<ScopedKey, Fingerprint>>>,
    max_keys: usize,
}

/// Pipeline and key.
type ScopedKey = (Arc<str>, Arc<str>);

impl KeysInProgress {
    pub(super) fn new(max_keys: usize) -> Self {
        Self { keys: Arc::default(), max_keys }
    }

    /// Marks a key as in progress until the mark is dropped.
    ///
    /// # Errors
    /// 409 when it is already, 422 when it is for another request, 503 when there are too many.
    pub(super) fn begin(&self, pipeline: &Arc<str>, named: &Named) -> Result<InProgress, ProblemDetails> {
        let scoped = (Arc::clone(pipeline), Arc::clone(&named.key));
        let mut keys = lock(&self.keys);
        match keys.get(&scoped) {
            Some(fingerprint) if *fingerprint == named.fingerprint => Err(in_progress()),
            Some(_) => Err(reused()),
            None if keys.len() >= self.max_keys => Err(too_many_keys()),
            None => {
                keys.insert(scoped.clone(), named.fingerprint);
                Ok(InProgress { keys: Arc::clone(&self.keys), scoped })
            }
        }
    }
}

/// A key in progress.
#[derive(Debug)]
pub(super) struct InProgress {
    keys: Arc<Mutex<HashMap<ScopedKey, Fingerprint>>>,
    scoped: ScopedKey,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        lock(&self.keys).remove(&self.scoped);
    }
}

fn lock(keys: &Mutex<HashMap<ScopedKey, Fingerprint>>) -> MutexGuard<'_, HashMap<ScopedKey, Fingerprint>> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_progress() -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::IdempotencyInProgress,
        "a request with this idempotency key is still being answered; repeat this one in a moment to get the same answer",
    )
    .with_retry_after(RETRY_AFTER_IN_PROGRESS_SECS)
}

/// Another request under a key that is known.
pub(super) fn reused() -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::IdempotencyKeyReused,
        "this idempotency key was used for a request with another body or content type; nothing was accepted: give each \
         request a key of its own",
    )
}

fn too_many_keys() -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::Overloaded,
        "as many requests with idempotency keys are in progress as may be; nothing was accepted, so try again in a moment",
    )
    .with_retry_after(RETRY_AFTER_IN_PROGRESS_SECS)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn key_of(values: &[&[u8]]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).expect("a value"));
        }
        key(&headers).map(|key| key.map(|key| key.to_string())).map_err(|problem| {
            assert_eq!(problem.code(), ProblemCode::InvalidHeader);
            assert_eq!(problem.errors().len(), 1);
            problem.status().as_u16()
        })
    }

    #[test]
    fn quoted_and_bare_keys_are_the_same() {
        assert_eq!(key_of(&[]), Ok(None));
        for (value, key) in [
            ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (" a+b/c== ", "a+b/c=="),
            (r#""a \"b\" \\, c; d""#, r#"a "b" \, c; d"#),
        ] {
            assert_eq!(key_of(&[value.as_bytes()]), Ok(Some(key.to_owned())), "{value}");
        }
        let longest = "k".repeat(MAX_KEY_BYTES);
        assert_eq!(key_of(&[longest.as_bytes()]), Ok(Some(longest.clone())));
        assert_eq!(key_of(&[format!("\"{longest}\"").as_bytes()]), Ok(Some(longest)));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let too_long = "k".repeat(MAX_KEY_BYTES + 1);
        for bad in
            ["", "\"\"", "\"a", "a\"", "\"a\"b", "\"a\\b\"", "a b", "a,b", "a;b=c", "\"a\";b", "\"a\tb\"", &too_long]
        {
            assert_eq!(key_of(&[bad.as_bytes()]), Err(400), "{bad}");
        }
        assert_eq!(key_of(&["ä".as_bytes()]), Err(400));
        assert_eq!(key_of(&[b"a", b"a"]), Err(400), "twice");
    }

    #[test]
    fn a_fingerprint_tells_path_content_type_and_body_apart() {
        let of = |path: &str, content_type: &'static str, body: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            fingerprint(path, &headers, body.as_bytes())
        };
        let first = of("/a", "text/plain", "body");
        assert_eq!(first, of("/a", "text/plain", "body"));
        for other in [
            of("/b", "text/plain", "body"),
            of("/a", "text/html", "body"),
            of("/a", "text/plain", "Body"),
            of("/a", "text/plainb", "ody"),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_key_is_in_progress_until_its_mark_is_dropped() {
        let keys = KeysInProgress::new(2);
        let (orders, other): (Arc<str>, Arc<str>) = ("orders".into(), "other".into());
        let named = |key: &str, byte| Named { key: key.into(), fingerprint: Fingerprint([byte; 32]) };
        let status = |pipeline: &Arc<str>, named: &Named| {
            keys.begin(pipeline, named).map(drop).map_err(|problem| (problem.code(), problem.status().as_u16()))
        };
        let mark = keys.begin(&orders, &named("k", 1)).expect("free");
        assert_eq!(status(&orders, &named("k", 1)), Err((ProblemCode::IdempotencyInProgress, 409)));
        assert_eq!(status(&orders, &named("k", 2)), Err((ProblemCode::IdempotencyKeyReused, 422)));
        assert_eq!(status(&other, &named("k", 2)), Ok(()), "another pipeline's");
        let second = keys.begin(&orders, &named("l", 1)).expect("room");
        assert_eq!(status(&orders, &named("m", 1)), Err((ProblemCode::Overloaded, 503)));
        drop(mark);
        assert_eq!(status(&orders, &named("k", 2)), Ok(()));
        drop(second);
        assert!(lock(&keys.keys).is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_taken_is_within_limits(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, value);
            if let Ok(key) = key(&headers) {
                let key = key.expect("there is a header");
                prop_assert!((1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|b| matches!(b, b' '..=b'~')));
            }
        }

        #[test]
        fn every_printable_key_can_be_quoted(key in "[ -~]{1,255}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(key_of(&[quoted.as_bytes()]), Ok(Some(key)));
        }
    }
}
