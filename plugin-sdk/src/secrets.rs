//! Secrets that the operator gives the plugin by name: `grants: { secrets: { api: '${file:/run/secrets/api}' } }`.
//!
//! They are no part of the configuration. Ask for them when a message needs them: in `configure` there are none.
//!
//! ```
//! use sluicegate_plugin::secrets;
//!
//! # #[cfg(not(target_family = "wasm"))] {
//! secrets::double::grant("api", "s3cret");
//! assert_eq!(secrets::get("api")?, "s3cret");
//! assert_eq!(secrets::get("other"), Err(secrets::Error::Unknown));
//! # }
//! # Ok::<(), secrets::Error>(())
//! ```

use crate::Failure;
pub use crate::contract::secrets::Error;

/// The secret of that name.
///
/// # Errors
/// None of that name is granted, or the message has used up its calls.
pub fn get(name: &str) -> Result<String, Error> {
    #[cfg(target_family = "wasm")]
    return crate::contract::secrets::get(name);
    #[cfg(not(target_family = "wasm"))]
    return double::get(name);
}

/// The grant's or the plugin's mistake.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unknown => Self::reject("secret_unknown", "the plugin is not granted a secret of this name"),
            Error::Limit => Self::reject("secret_limit", "this message has used up its host calls"),
            Error::TooEarly => Self::reject("secret_too_early", "there are no secrets in `configure`"),
        }
    }
}

/// Secrets for tests: each thread has its own.
#[cfg(not(target_family = "wasm"))]
pub mod double {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::Error;

    thread_local! {
        static SECRETS: RefCell<BTreeMap<String, String>> = RefCell::default();
    }

    /// Grants a secret.
    pub fn grant(name: impl Into<String>, value: impl Into<String>) {
        SECRETS.with_borrow_mut(|secrets| secrets.insert(name.into(), value.into()));
    }

    pub(super) fn get(name: &str) -> Result<String, Error> {
        SECRETS.with_borrow(|secrets| secrets.get(name).cloned().ok_or(Error::Unknown))
    }
}
