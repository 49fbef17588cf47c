//! API keys: what callers show. A key is `sgk_PREFIX_SECRET`; the prefix is public and finds it, the secret is 256 random
//! bits that are shown once.
//!
//! Of a key the store has its SHA-256. A slow hash, as for passwords, would add nothing: nobody finds 256 random bits by
//! trying, however fast each try is; and each request would cost the gateway what the slow hash costs, for its own callers
//! and for whoever sends it wrong keys.

mod change;
mod error;
mod read;
mod record;
mod text;

pub use change::{Bootstrap, MAX_KEYS_OF_A_REALM, NewKey};
pub use error::KeyError;
pub use record::{ApiKey, Refused, StoredKey};
pub use text::{KeyText, PresentedKey};

/// Longest name of a key, in characters.
pub const MAX_KEY_NAME_CHARS: usize = 200;

/// Announced when a key was made, rotated or revoked.
pub(crate) const API_KEYS: &str = "api_keys";
