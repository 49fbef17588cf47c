//! A key as text: making one, and reading what a caller presents.

use std::fmt;

use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::KeyError;

/// What every key begins with, so that scanners for leaked secrets know one.
const MARK: &str = "sgk_";
/// 60 random bits: enough that two keys never meet.
const PREFIX_CHARS: usize = 12;
/// Of the secret.
const SECRET_BYTES: usize = 32;
/// 256 bits, five in a character.
const SECRET_CHARS: usize = (SECRET_BYTES * 8).div_ceil(5);
/// Nothing that has to be escaped anywhere, and nothing that looks like another.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A whole key, to be shown once. Its `Debug` shows nothing of it, and its memory is cleared.
#[derive(Clone)]
pub struct KeyText(Zeroizing<String>);

impl KeyText {
    /// A new one.
    ///
    /// # Errors
    /// `NoRandomness`.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0_u8; 8 + SECRET_BYTES]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| KeyError::NoRandomness)?;
        let (prefix, secret) = bytes.split_at(8);
        let mut text = Zeroizing::new(String::with_capacity(MARK.len() + PREFIX_CHARS + 1 + SECRET_CHARS));
        text.push_str(MARK);
        encode(prefix, PREFIX_CHARS, &mut text);
        text.push('_');
        encode(secret, SECRET_CHARS, &mut text);
        Ok(Self(text))
    }

    /// A given one, if it [is one](PresentedKey::parse).
    pub fn parse(text: &str) -> Option<Self> {
        PresentedKey::parse(text).map(|_| Self(Zeroizing::new(text.to_owned())))
    }

    /// The key, to be shown and not kept.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub(super) fn presented(&self) -> Option<PresentedKey> {
        PresentedKey::parse(&self.0)
    }

    /// The same secret's worth under the prefix of another key.
    pub(super) fn with_prefix(&self, prefix: &str) -> Self {
        let secret = self.0.rsplit('_').next().unwrap_or_default();
        Self(Zeroizing::new(format!("{MARK}{prefix}_{secret}")))
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(***)")
    }
}

/// What a caller presents: the public prefix, and the digest of all of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedKey {
    /// Finds the key.
    pub prefix: String,
    pub(super) digest: [u8; 32],
}

impl PresentedKey {
    /// Reads a key; `None` if it has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let (prefix, secret) = text.strip_prefix(MARK)?.split_once('_')?;
        let is_plain = |text: &str| text.bytes().all(|byte| ALPHABET.contains(&byte));
        let fits = prefix.len() == PREFIX_CHARS && secret.len() == SECRET_CHARS;
        (fits && is_plain(prefix) && is_plain(secret))
            .then(|| Self { prefix: prefix.to_owned(), digest: Sha256::digest(text).into() })
    }
}

impl fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedKey").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Base 32, cut to `chars`.
fn encode(bytes: &[u8], chars: usize, into: &mut String) {
    let (mut bits, mut held, mut written) = (0_u32, 0_u32, 0);
    for byte in bytes.iter().copied().chain(std::iter::once(0)) {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 5 && written < chars {
            held -= 5;
            into.push(char::from(ALPHABET[((bits >> held) & 31) as usize]));
            written += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_have_their_form_and_never_meet() {
        let keys: Vec<KeyText> = (0..1_000).map(|_| KeyText::random().expect("random bytes")).collect();
        let prefixes: HashSet<String> =
            keys.iter().map(|key| key.presented().expect("of the form of a key").prefix).collect();
        assert_eq!(prefixes.len(), keys.len());
        assert_eq!(keys[0].expose().len(), 4 + 12 + 1 + 52);
        // 32 bytes of ones: every bit of the secret is in its text.
        let mut text = String::new();
        encode(&[0xff; 32], SECRET_CHARS, &mut text);
        assert_eq!(text, format!("{}q", "7".repeat(51)));
    }

    #[test]
    fn what_has_not_the_form_of_a_key_is_none() {
        let key = KeyText::random().expect("random bytes");
        let text = key.expose();
        assert!(PresentedKey::parse(text).is_some());
        let wrong = [
            "",
            "sgk_",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}a"),
            &text.to_uppercase(),
            &text.replacen('_', "-", 1),
            &format!(" {text}"),
        ];
        for text in wrong {
            assert!(PresentedKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = KeyText::random().expect("random bytes");
        let secret = key.expose().rsplit('_').next().expect("a secret").to_owned();
        let presented = key.presented().expect("a key");
        let shown = format!("{key:?} {presented:?}");
        let digest = presented.digest.map(|byte| format!("{byte:02x}")).concat();
        assert!(!shown.contains(&secret) && !shown.contains(&digest[..8]), "{shown}");
        assert!(shown.contains(&presented.prefix), "the prefix is for logs: {shown}");
    }
}
