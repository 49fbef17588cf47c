//! Where a command finds the store.

use std::path::PathBuf;

use anyhow::bail;
use sluicegate_store::{Location, StoreOptions};

use crate::config::{self, Config, Process};
use crate::store_options::store_options;

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(required = true, multiple = false)]
pub struct LocationArgs {
    /// The gateway's configuration, whose store is read.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The gateway's data folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The PostgreSQL that gateways share: postgres://USER:PASSWORD@HOST:5432/DATABASE.
    #[arg(long, value_name = "URL", env = "SLUICEGATE_STORE", hide_env_values = true)]
    pub store: Option<String>,
}

/// A store's place and keys, and the configuration if it was found by one.
#[derive(Debug, Clone)]
pub struct FoundLocation {
    /// How it is opened.
    pub options: StoreOptions,
    /// The configuration.
    pub config: Option<Config>,
}

/// The store that a configuration names, for commands. `otherwise` says how to name it without one. Reads files; blocks
/// for as long.
///
/// # Errors
/// The configuration's mistakes.
pub fn configured(file: &PathBuf, otherwise: &str) -> anyhow::Result<(StoreOptions, Config)> {
    match config::load(std::slice::from_ref(file), &Process) {
        Ok(loaded) => Ok((store_options(&loaded.config), loaded.config)),
        Err(diagnostics) => {
            bail!("{diagnostics}\ncannot tell the store from this configuration; {otherwise} without one")
        }
    }
}

impl LocationArgs {
    /// As given, or as the configuration says. Reads files; blocks for as long.
    ///
    /// # Errors
    /// The configuration's mistakes.
    pub fn find(&self) -> anyhow::Result<FoundLocation> {
        let without_config = |location: Location| FoundLocation { options: location.into(), config: None };
        match (&self.data_dir, &self.store, &self.config) {
            (Some(data_dir), _, _) => Ok(without_config(Location::embedded(data_dir))),
            (None, Some(url), _) => Ok(without_config(Location::shared(url))),
            (None, None, Some(file)) => {
                let (options, config) = configured(file, "--data-dir DIR or --store URL names it")?;
                Ok(FoundLocation { options, config: Some(config) })
            }
            (None, None, None) => bail!("give --config FILE, --data-dir DIR or --store URL, to say where the store is"),
        }
    }
}
