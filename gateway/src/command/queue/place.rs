//! Where the store is, and how it is read.

use crate::command::location::StoreArgs;
use crate::store_options::MasterKeyArgs;

pub use crate::command::location::Place;

/// Where the store is, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(skip)]
pub struct PlaceArgs {
    /// Where it is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Opens encrypted bodies.
    #[command(flatten)]
    pub master_key: MasterKeyArgs,
}

impl PlaceArgs {
    /// As given, or as the configuration says. Reads files; blocks for as long.
    ///
    /// # Errors
    /// The configuration's mistakes, or the key's.
    pub fn find(&self) -> anyhow::Result<Place> {
        self.store.find(Some(&self.master_key))
    }
}
