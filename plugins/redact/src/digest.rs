//! Salted SHA-256.

use sha2::{Digest, Sha256};
use sluicegate_plugin::{Failure, Message};

/// A hash that has taken the salt.
pub struct Salted(Sha256);

impl Salted {
    pub fn new(salt: &str) -> Self {
        Self(Sha256::new_with_prefix(salt))
    }

    /// SHA-256 of salt and bytes, in hexadecimal.
    pub fn hash(&self, bytes: &[u8]) -> String {
        let digest = self.0.clone().chain_update(bytes).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Hash of the value at a pointer: a text as its bytes, anything else as its JSON text.
    pub fn hash_json(&self, message: &Message, pointer: &str) -> Result<String, Failure> {
        let json = message.json(pointer).unwrap_or_default();
        if json.starts_with('"') {
            let text: String =
                serde_json::from_str(&json).map_err(|error| Failure::reject("not_json", error.to_string()))?;
            return Ok(self.hash(text.as_bytes()));
        }
        Ok(self.hash(json.as_bytes()))
    }
}
