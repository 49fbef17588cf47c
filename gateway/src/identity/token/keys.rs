//! The public keys that tokens are checked with: a JWKS, from a file or a URL, cached.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use sluicegate_connectors::http::fetch;
use sluicegate_connectors::http::reach::Reach;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Largest document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 256 << 10;
/// Most keys of it; the rest is left out.
const MAX_KEYS: usize = 100;
/// Longest wait for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A key that is not known makes the document be read again, not more often than this: anybody can name unknown keys.
const AGAIN: Duration = Duration::from_secs(10);

/// Where the document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksPlace {
    /// In a file.
    File(PathBuf),
    /// At a URL.
    Url(String),
}

/// See the module.
pub(super) struct Jwks {
    place: JwksPlace,
    /// How long it is used before it is read again.
    refresh: Duration,
    keys: RwLock<Arc<Vec<Jwk>>>,
    /// Held while it is read.
    read: Mutex<Read>,
}

/// When it was read, or tried to be.
#[derive(Default)]
struct Read {
    tried_at: Option<Instant>,
    done_at: Option<Instant>,
}

/// Why there is no key.
pub(super) enum NoKey {
    /// The document has none that fits.
    Unknown,
    /// The document could not be read, ever.
    Unavailable,
}

impl Jwks {
    pub(super) fn new(place: JwksPlace, refresh: Duration) -> Self {
        Self { place, refresh, keys: RwLock::default(), read: Mutex::default() }
    }

    /// The key of that id, for that algorithm. Without an id, the only one that fits. Reads the document where it is old or
    /// does not have the key.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, NoKey> {
        let found = self.known(id, algorithm);
        // Whoever has a key does not wait while somebody else reads.
        if found.is_some() {
            if let Ok(mut read) = self.read.try_lock() {
                let is_old = read.done_at.is_none_or(|at| at.elapsed() >= self.refresh);
                if is_old
                    && read.tried_at.is_none_or(|at| at.elapsed() >= AGAIN)
                    && let Err(error) = self.read(&mut read).await
                {
                    tracing::warn!(error, "cannot read the keys of tokens again; those known before count on");
                }
            }
            return self.known(id, algorithm).ok_or(NoKey::Unknown);
        }
        let mut read = self.read.lock().await;
        if let Some(found) = self.known(id, algorithm) {
            return Ok(found);
        }
        if read.tried_at.is_none_or(|at| at.elapsed() >= AGAIN)
            && let Err(error) = self.read(&mut read).await
        {
            tracing::warn!(error, "cannot read the keys of tokens");
            if read.done_at.is_none() {
                return Err(NoKey::Unavailable);
            }
        }
        match self.known(id, algorithm) {
            Some(found) => Ok(found),
            None if read.done_at.is_none() => Err(NoKey::Unavailable),
            None => Err(NoKey::Unknown),
        }
    }

    /// Reads the document.
    ///
    /// # Errors
    /// Why it cannot be read; the keys of before stay.
    pub(super) async fn load(&self) -> Result<(), String> {
        self.read(&mut *self.read.lock().await).await
    }

    async fn read(&self, read: &mut Read) -> Result<(), String> {
        read.tried_at = Some(Instant::now());
        let document = match &self.place {
            JwksPlace::Url(url) => fetch(url, Reach::Anywhere, MAX_DOCUMENT_BYTES, FETCH_TIMEOUT).await?,
            JwksPlace::File(path) => {
                let mut document = Vec::new();
                let failed = |error: std::io::Error| format!("reading {}: {error}", path.display());
                let file = tokio::fs::File::open(path).await.map_err(failed)?;
                file.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut document).await.map_err(failed)?;
                if document.len() > MAX_DOCUMENT_BYTES {
                    return Err(format!("{} has more than {MAX_DOCUMENT_BYTES} bytes", path.display()));
                }
                document
            }
        };
        let keys = parse(&document)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        read.done_at = Some(Instant::now());
        Ok(())
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let mut fitting = keys.iter().filter(|key| fits(key, algorithm));
        let key = match id {
            Some(id) => fitting.find(|key| key.common.key_id.as_deref() == Some(id))?,
            None => {
                let only = fitting.next()?;
                if fitting.next().is_some() {
                    return None;
                }
                only
            }
        };
        DecodingKey::from_jwk(key).ok()
    }
}

/// The keys of a document that can be understood.
fn parse(document: &[u8]) -> Result<Vec<Jwk>, String> {
    let document: Value = serde_json::from_slice(document).map_err(|_| "the document is not JSON".to_owned())?;
    let Some(keys) = document["keys"].as_array() else { return Err("the document has no list `keys`".to_owned()) };
    Ok(keys.iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value(key.clone()).ok()).collect())
}

/// Whether a key is for signatures of that algorithm. A shared secret never is: the document is public.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let is_for_signatures = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let said = match (key.common.key_algorithm, algorithm) {
        (None, _) | (Some(KeyAlgorithm::RS256), Algorithm::RS256) | (Some(KeyAlgorithm::ES256), Algorithm::ES256) => {
            true
        }
        (Some(_), _) => false,
    };
    let can = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), Algorithm::RS256) => true,
        (AlgorithmParameters::EllipticCurve(point), Algorithm::ES256) => point.curve == EllipticCurve::P256,
        _ => false,
    };
    is_for_signatures && said && can
}
