//! The operator's first key: without one, nobody could make another.

use anyhow::Context as _;
use sluicegate_store::Store;
use sluicegate_store::api_key::{Bootstrap, KeyText};

use super::caller::Scope;

/// The environment variable with the first key, where the operator chooses it.
pub const BOOTSTRAP_VARIABLE: &str = "SLUICEGATE_BOOTSTRAP_KEY";

/// Makes the first key of the operator, all scopes, unless there is one: `given` (the variable's value), or else a new one.
/// Returns what to tell the operator once, and nobody else.
///
/// # Errors
/// `given` is no key, or has another key's prefix; the store cannot take it.
pub async fn first_key(store: &Store, given: Option<&str>) -> anyhow::Result<Option<String>> {
    let text = match given {
        Some(given) => KeyText::parse(given.trim())
            .with_context(|| format!("{BOOTSTRAP_VARIABLE} is not a key; make one with `sluicegate key generate`"))?,
        None => KeyText::random()?,
    };
    let scopes = Scope::ALL.map(Scope::name);
    let made = store.bootstrap_api_key(&text, given.is_some(), &scopes).await;
    match made.with_context(|| format!("cannot make the first key; look at {BOOTSTRAP_VARIABLE}"))? {
        Bootstrap::NotNeeded => Ok(None),
        Bootstrap::Made(key) if given.is_some() => {
            tracing::info!(prefix = key.prefix, "the first key is the one of {BOOTSTRAP_VARIABLE}");
            Ok(None)
        }
        Bootstrap::Made(_) => Ok(Some(format!(
            "The first key of the operator, shown this once; keep it, it can do everything:\n\n    {}\n\n\
             Make others with `sluicegate key create`, or POST /api/v1/keys.",
            text.expose()
        ))),
    }
}
