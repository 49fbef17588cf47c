//! Where a command finds the store.

use std::path::PathBuf;

use anyhow::bail;
use sluicegate_store::Location;

use crate::config::{self, Config, Process};

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

/// A store's place, and the configuration if it was found by one.
#[derive(Debug, Clone)]
pub struct FoundLocation {
    /// The place.
    pub location: Location,
    /// The configuration.
    pub config: Option<Config>,
}

impl LocationArgs {
    /// As given, or as the configuration says. Reads files; blocks for as long.
    ///
    /// # Errors
    /// The configuration's mistakes.
    pub fn find(&self) -> anyhow::Result<FoundLocation> {
        let without_config = |location| FoundLocation { location, config: None };
        match (&self.data_dir, &self.store, &self.config) {
            (Some(data_dir), _, _) => Ok(without_config(Location::embedded(data_dir))),
            (None, Some(url), _) => Ok(without_config(Location::shared(url))),
            (None, None, Some(file)) => match config::load(std::slice::from_ref(file), &Process) {
                Ok(loaded) => {
                    let location = location_of(&loaded.config);
                    Ok(FoundLocation { location, config: Some(loaded.config) })
                }
                Err(diagnostics) => bail!(
                    "{diagnostics}\ncannot tell the store from this configuration; --data-dir DIR or --store URL names it without one"
                ),
            },
            (None, None, None) => bail!("give --config FILE, --data-dir DIR or --store URL, to say where the store is"),
        }
    }
}

/// Where the gateway of this configuration keeps its state.
pub fn location_of(config: &Config) -> Location {
    match &config.store {
        Some(url) => Location::shared(url.expose()),
        None => Location::embedded(&config.data_dir),
    }
}
