//! Where the store is.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use sluicegate_store::{Location, StoreOptions};

use crate::command::location::configured;
use crate::config::Config;
use crate::store_options::MasterKeyArgs;

/// Where the store is, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(skip)]
pub struct PlaceArgs {
    /// Where it is.
    #[command(flatten)]
    pub named: NamedPlace,
    /// Opens encrypted bodies.
    #[command(flatten)]
    pub master_key: MasterKeyArgs,
}

/// Where the store is: exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(required = true, multiple = false)]
pub struct NamedPlace {
    /// The gateway's configuration, whose store is used.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The gateway's data folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The store's URL, when gateways share a PostgreSQL. Others on this machine can read it; --config hides it.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// The store, and what is known of the gateway's configuration.
#[derive(Debug, Clone)]
pub struct Place {
    /// How the store is opened.
    pub options: StoreOptions,
    /// The configuration, if that was how the store was named.
    pub config: Option<Arc<Config>>,
}

impl PlaceArgs {
    /// As given, or as the configuration says. Reads files; blocks for as long.
    ///
    /// # Errors
    /// The configuration's mistakes, or the key's.
    pub fn find(&self) -> anyhow::Result<Place> {
        let given = |location: Location| -> anyhow::Result<Place> {
            let options = StoreOptions { location, encryption: self.master_key.read()? };
            Ok(Place { options, config: None })
        };
        let NamedPlace { config, data_dir, store } = &self.named;
        match (data_dir, store, config) {
            (Some(data_dir), _, _) => given(Location::embedded(data_dir)),
            (None, Some(url), _) => given(Location::shared(url)),
            (None, None, Some(file)) => {
                let (options, config) = configured(file, "--data-dir DIR or --store URL names it")?;
                Ok(Place { options, config: Some(Arc::new(config)) })
            }
            (None, None, None) => bail!("give --config FILE, --data-dir DIR or --store URL, to say where the store is"),
        }
    }
}
