//! What is encrypted with what: master keys wrap data keys, data keys encrypt bodies. AES-256-GCM throughout, nothing of
//! it made here: the primitives are `ring`'s.
//!
//! A data key encrypts millions of bodies a day, and random nonces of 12 bytes are safe for 2^32 messages of one key
//! alone. So each body has a key of its own, HMAC-SHA256 of the data key and 12 random bytes, and 12 more random bytes
//! are its nonce: no number of bodies that fits a disk comes near a repetition (the construction of XAES-256-GCM, with
//! HMAC for CMAC).

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};
use zeroize::Zeroizing;

/// Bytes of every key.
pub(super) const KEY_BYTES: usize = 32;
/// Random bytes before what is encrypted: half choose the key, half are the nonce.
pub(super) const SALT_BYTES: usize = 2 * NONCE_LEN;
/// Bytes that encryption adds after what is encrypted.
pub(super) const TAG_BYTES: usize = 16;

/// Told apart from all else that is wrapped.
const PROOF: &[u8] = b"sluicegate master key";

/// What is authenticated beside what is encrypted, in parts that follow each other.
pub(crate) type Identity<'a> = &'a [&'a [u8]];

/// It was not encrypted with this key, or has been changed since.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotOurs;

/// The system gave no random bytes.
#[derive(Debug)]
pub(super) struct NoRandomness;

/// A key. Zeroed when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Key {
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub fn random() -> Result<Self, NoRandomness> {
        let mut key = Self::new([0; KEY_BYTES]);
        fill(&mut key.0[..])?;
        Ok(key)
    }

    /// Tells keys apart without telling the key: keys are random, so nobody can search for one that has it.
    pub fn fingerprint(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"sluicegate fingerprint");
        context.update(&self.0[..]);
        context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Encrypts what follows the first `clear` bytes of `buffer`, which must end with [`SALT_BYTES`] to be filled in, and
    /// appends the tag. The clear bytes and `identity` are authenticated.
    pub fn encrypt(&self, buffer: &mut Vec<u8>, clear: usize, identity: Identity<'_>) -> Result<(), NoRandomness> {
        let Some(head) = clear.checked_sub(SALT_BYTES).filter(|_| clear <= buffer.len()) else {
            unreachable!("callers leave room for the salt");
        };
        fill(&mut buffer[head..clear])?;
        let (key, nonce) = self.derived(&buffer[head..clear]);
        let aad = associated(&buffer[..clear], identity);
        // `ring` refuses only what is larger than 64 GiB.
        let tag =
            key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut buffer[clear..]).map_err(|_| NoRandomness)?;
        buffer.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// What [`encrypt`](Self::encrypt) was given after its `clear` bytes.
    pub fn decrypt(&self, stored: &[u8], clear: usize, identity: Identity<'_>) -> Result<Vec<u8>, NotOurs> {
        let head = clear.checked_sub(SALT_BYTES).ok_or(NotOurs)?;
        let (salt, content) = (stored.get(head..clear).ok_or(NotOurs)?, stored.get(clear..).ok_or(NotOurs)?);
        let (key, nonce) = self.derived(salt);
        let mut content = content.to_vec();
        let aad = associated(&stored[..clear], identity);
        let length = key.open_in_place(nonce, Aad::from(aad), &mut content).map_err(|_| NotOurs)?.len();
        content.truncate(length);
        Ok(content)
    }

    /// This key, a data key, encrypted with a master key.
    pub fn wrapped(&self, master: &Self, tenant: &str, version: u32) -> Result<Vec<u8>, NoRandomness> {
        master.enclosed(&self.0[..], &[&wrapping(tenant, version)])
    }

    /// A data key that was wrapped with this one, a master key.
    pub fn unwrap(&self, wrapped: &[u8], tenant: &str, version: u32) -> Result<Self, NotOurs> {
        let bytes = Zeroizing::new(self.decrypt(wrapped, SALT_BYTES, &[&wrapping(tenant, version)])?);
        <[u8; KEY_BYTES]>::try_from(&bytes[..]).map(Self::new).map_err(|_| NotOurs)
    }

    /// What shows later whether a master key is this one.
    pub fn proof(&self) -> Result<Vec<u8>, NoRandomness> {
        self.enclosed(PROOF, &[PROOF])
    }

    pub fn proves(&self, proof: &[u8]) -> bool {
        self.decrypt(proof, SALT_BYTES, &[PROOF]).is_ok_and(|constant| constant == PROOF)
    }

    fn enclosed(&self, content: &[u8], identity: Identity<'_>) -> Result<Vec<u8>, NoRandomness> {
        let mut buffer = Vec::with_capacity(SALT_BYTES + content.len() + TAG_BYTES);
        buffer.resize(SALT_BYTES, 0);
        buffer.extend_from_slice(content);
        self.encrypt(&mut buffer, SALT_BYTES, identity)?;
        Ok(buffer)
    }

    fn derived(&self, salt: &[u8]) -> (LessSafeKey, Nonce) {
        let (choice, nonce) = salt.split_at(NONCE_LEN);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0[..]), choice);
        let key = UnboundKey::new(&AES_256_GCM, tag.as_ref()).expect("SHA-256 has as many bytes as the key");
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("the second half of the salt is as long as a nonce");
        (LessSafeKey::new(key), nonce)
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
}

fn wrapping(tenant: &str, version: u32) -> Vec<u8> {
    [b"data key ", &version.to_be_bytes()[..], tenant.as_bytes()].concat()
}

/// The clear bytes come with their length, so that they and the identity cannot be cut differently.
fn associated(clear: &[u8], identity: Identity<'_>) -> Vec<u8> {
    let length = u32::try_from(clear.len()).unwrap_or(u32::MAX).to_be_bytes();
    let bytes = length.len() + clear.len() + identity.iter().map(|part| part.len()).sum::<usize>();
    let mut associated = Vec::with_capacity(bytes);
    for part in [&length[..], clear].iter().chain(identity) {
        associated.extend_from_slice(part);
    }
    associated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_is_bound_to_its_master_its_tenant_and_its_version() {
        let (master, other) = (Key::new([1; 32]), Key::new([2; 32]));
        let key = Key::random().expect("random bytes");
        let wrapped = key.wrapped(&master, "acme", 3).expect("random bytes");
        assert_eq!(master.unwrap(&wrapped, "acme", 3), Ok(key.clone()));
        assert_eq!(other.unwrap(&wrapped, "acme", 3), Err(NotOurs));
        assert_eq!(master.unwrap(&wrapped, "acme", 4), Err(NotOurs));
        assert_eq!(master.unwrap(&wrapped, "acm", 3), Err(NotOurs));
        assert!(!wrapped.windows(8).any(|window| key.0.windows(8).any(|part| part == window)), "not in the clear");
        let shown = format!("{key:?} {:?}", Key::new([65; 32]));
        assert_eq!(shown, "Key(***) Key(***)");
    }

    #[test]
    fn a_proof_tells_the_right_master_key_and_no_wrapped_key_is_one() {
        let master = Key::new([1; 32]);
        let proof = master.proof().expect("random bytes");
        assert!(master.proves(&proof) && !Key::new([2; 32]).proves(&proof) && !master.proves(b""));
        let wrapped = Key::new([3; 32]).wrapped(&master, "acme", 1).expect("random bytes");
        assert!(!master.proves(&wrapped));
        assert_ne!(master.proof().expect("random bytes"), proof, "never the same twice");
        assert_ne!(master.fingerprint(), Key::new([2; 32]).fingerprint());
    }
}
