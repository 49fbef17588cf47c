//! Where a command finds the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use sluicegate_store::{Location, StoreOptions};

use crate::config::{self, Config, Process};
use crate::store_options::{MasterKeyArgs, store_options};

/// Names the store where no option does, so that its password need not stand in a command line that others can read.
const STORE_VARIABLE: &str = "SLUICEGATE_STORE";

/// Where the store is: one of them, or the environment's SLUICEGATE_STORE, which is a --store.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[group(multiple = false)]
pub struct StoreArgs {
    /// The gateway's configuration, whose store is used.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The gateway's data folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The PostgreSQL that gateways share: postgres://USER:PASSWORD@HOST:5432/DATABASE. Others on this machine can read
    /// it; --config and the environment's SLUICEGATE_STORE hide it.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// A store, and the configuration it was found by.
#[derive(Debug, Clone)]
pub struct Place {
    /// How the store is opened.
    pub options: StoreOptions,
    /// The configuration, if the store was named by one.
    pub config: Option<Arc<Config>>,
}

impl StoreArgs {
    /// The store and its keys: as given, or as the configuration says. `key` is asked where there is no configuration.
    /// Reads files; blocks for as long.
    ///
    /// # Errors
    /// Nothing names a store; the configuration's mistakes, or the key's.
    pub fn find(&self, key: Option<&MasterKeyArgs>) -> anyhow::Result<Place> {
        self.find_with(key, std::env::var(STORE_VARIABLE).ok().filter(|url| !url.is_empty()))
    }

    fn find_with(&self, key: Option<&MasterKeyArgs>, variable: Option<String>) -> anyhow::Result<Place> {
        let given = |location: Location| -> anyhow::Result<Place> {
            let encryption = key.map_or(Ok(None), MasterKeyArgs::read)?;
            Ok(Place { options: StoreOptions { location, encryption }, config: None })
        };
        match (&self.data_dir, &self.store, &self.config, variable) {
            (Some(data_dir), _, _, _) => given(Location::embedded(data_dir)),
            (None, Some(url), _, _) => given(Location::shared(url)),
            (None, None, Some(file), _) => configured(file),
            (None, None, None, Some(url)) => given(Location::shared(&url)),
            (None, None, None, None) => bail!(
                "give --config FILE, --data-dir DIR or --store URL (or {STORE_VARIABLE} in the environment), to say where \
                 the store is"
            ),
        }
    }
}

/// The store that a configuration names.
fn configured(file: &Path) -> anyhow::Result<Place> {
    match config::load(&[file.to_owned()], &Process) {
        Ok(loaded) => Ok(Place { options: store_options(&loaded.config), config: Some(Arc::new(loaded.config)) }),
        Err(diagnostics) => bail!(
            "{diagnostics}\ncannot tell the store from this configuration; --data-dir DIR or --store URL names it without \
             one"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "postgres://h/d";

    fn location(args: &StoreArgs, variable: Option<&str>) -> anyhow::Result<Location> {
        Ok(args.find_with(None, variable.map(str::to_owned))?.options.location)
    }

    #[test]
    fn what_is_given_comes_before_the_environment() {
        let none = StoreArgs::default();
        let folder = StoreArgs { data_dir: Some("data".into()), ..StoreArgs::default() };
        let url = StoreArgs { store: Some(URL.to_owned()), ..StoreArgs::default() };
        assert_eq!(location(&folder, Some("postgres://other/d")).expect("a store"), Location::embedded("data"));
        assert_eq!(location(&url, Some("postgres://other/d")).expect("a store"), Location::shared(URL));
        assert_eq!(location(&none, Some(URL)).expect("a store"), Location::shared(URL));
        let nowhere = location(&none, None).expect_err("nothing names a store").to_string();
        assert!(nowhere.contains("--data-dir") && nowhere.contains(STORE_VARIABLE), "{nowhere}");
    }

    #[test]
    fn a_configuration_that_cannot_be_read_says_what_to_give_instead() {
        let args = StoreArgs { config: Some("/nowhere.yaml".into()), ..StoreArgs::default() };
        let refused = args.find_with(None, None).expect_err("no such file").to_string();
        assert!(refused.contains("--store URL"), "{refused}");
    }
}
