//! Where the store is and which keys open it: from the configuration, or from a command's arguments.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluicegate_store::StoreOptions;
use sluicegate_store::vault::{Encryption, MasterKey};

use crate::config::{self, Config};

/// As the configuration says.
pub fn store_options(config: &Config) -> StoreOptions {
    let key = |key: &config::MasterKey| MasterKey::new(key.0);
    let encryption = config.encryption.as_ref().map(|encryption| Encryption {
        master_key: key(&encryption.master_key),
        previous: encryption.previous.iter().map(key).collect(),
    });
    StoreOptions { location: config.location(), encryption }
}

/// What opens encrypted bodies where there is no configuration to say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct MasterKeyArgs {
    /// Without --config: the file with the master key of encrypted bodies, 32 bytes as base64.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub master_key_file: Option<PathBuf>,
}

impl MasterKeyArgs {
    /// Reads the file; blocks for as long.
    ///
    /// # Errors
    /// It cannot be read or is no key; its content is not shown.
    pub fn read(&self) -> anyhow::Result<Option<Encryption>> {
        let Some(file) = &self.master_key_file else { return Ok(None) };
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the master key's file {}", file.display()))?;
        let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let bytes = bytes.with_context(|| {
            format!("{} is not a key of 32 bytes as base64, as `openssl rand -base64 32` makes one", file.display())
        })?;
        Ok(Some(Encryption { master_key: MasterKey::new(bytes), previous: Vec::new() }))
    }
}
