//! How a store is opened.

use crate::place::Location;
use crate::vault::Encryption;

/// What [`Store::open`](crate::Store::open) and its kin take; a [`Location`] alone will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Where.
    pub location: Location,
    /// With which keys bodies are encrypted, if they are.
    pub encryption: Option<Encryption>,
}

impl From<Location> for StoreOptions {
    fn from(location: Location) -> Self {
        Self { location, encryption: None }
    }
}

impl From<&Location> for StoreOptions {
    fn from(location: &Location) -> Self {
        location.clone().into()
    }
}

impl From<&StoreOptions> for StoreOptions {
    fn from(options: &StoreOptions) -> Self {
        options.clone()
    }
}
