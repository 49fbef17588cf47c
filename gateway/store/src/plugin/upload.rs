//! New versions, what is found out about them, and their end.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use sluicegate_engine::message::now_ms;

use super::read::{find_version, version_of_digest};
use super::rollout::{lock, write_event};
use super::{MAX_VERSIONS, TOPIC, Version, VersionState};
use crate::change::{Change, Transaction};
use crate::database::Value;
use crate::error::StoreError;
use crate::store::Store;

/// A component that was inspected and compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVersion {
    /// Full name of the plugin; made if there is none.
    pub plugin: String,
    /// SHA-256 of `component`, `sha256:9f2c…`.
    pub digest: String,
    /// Its bytes.
    pub component: Bytes,
    /// What it can do.
    pub roles: Vec<String>,
    /// Everything it imports.
    pub imports: Vec<String>,
    /// JSON Schema of its configuration.
    pub config_schema: Json,
    /// Who uploads it.
    pub by: String,
}

/// What came of an upload.
#[derive(Debug, Clone, PartialEq)]
pub enum Uploaded {
    /// A new version.
    New(Version),
    /// The plugin has a version of this very component that is not retired: nothing was changed.
    Known(Version),
    /// It has [`MAX_VERSIONS`] already.
    TooMany,
}

/// What came of retiring a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// It is retired, or was before.
    Done,
    /// It is the current version or the candidate.
    InUse,
    /// There is no such version.
    NotFound,
}

impl Store {
    /// Adds a version to a plugin.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn add_plugin_version(&self, new: NewVersion) -> Result<Uploaded, StoreError> {
        self.change(AddVersion(new)).await
    }

    /// Keeps what certification said of a version that may run or was refused before. `false`: there is none, or it is
    /// retired or quarantined.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn certify_plugin_version(
        &self,
        plugin: &str,
        version: u32,
        report: Json,
        refused: Option<String>,
    ) -> Result<bool, StoreError> {
        self.change(Certify { plugin: plugin.to_owned(), version, report, refused }).await
    }

    /// Takes a version out of use for good. Its component is forgotten when no other version has it.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn retire_plugin_version(&self, plugin: &str, version: u32, by: &str) -> Result<Retired, StoreError> {
        self.change(Retire { plugin: plugin.to_owned(), version, by: by.to_owned() }).await
    }
}

struct AddVersion(NewVersion);

#[async_trait]
impl Change for AddVersion {
    type Output = Uploaded;

    fn size_bytes(&self) -> usize {
        self.0.component.len() + self.0.config_schema.to_string().len() + 1_024
    }

    fn doing(&self) -> &'static str {
        "keep a plugin's version"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Uploaded, StoreError> {
        let new = &self.0;
        let now = now_ms();
        // Makes the plugin or locks it, so that two uploads at once get two numbers.
        let sql = "INSERT INTO plugins (name, last_version, mode, percent, earlier, revision, changed_at_ms) \
            VALUES ($1, 1, 'all', 0, '[]', 0, $2) \
            ON CONFLICT (name) DO UPDATE SET last_version = plugins.last_version + 1 RETURNING last_version";
        let row = transaction.query_first(sql, &[new.plugin.as_str().into(), now.into()]).await?;
        let version = row.map(|row| row.integer(0)).transpose()?.unwrap_or(1);
        if let Some(known) = version_of_digest(transaction, &new.plugin, &new.digest).await? {
            give_back(transaction, &new.plugin).await?;
            return Ok(Uploaded::Known(known));
        }
        let sql = "SELECT count(*) FROM plugin_versions WHERE plugin = $1 AND state <> 'retired'";
        let row = transaction.query_first(sql, &[new.plugin.as_str().into()]).await?;
        if row.map(|row| row.unsigned(0)).transpose()?.unwrap_or(0) >= MAX_VERSIONS {
            give_back(transaction, &new.plugin).await?;
            return Ok(Uploaded::TooMany);
        }
        let sql = "INSERT INTO plugin_components (digest, bytes, created_at_ms) VALUES ($1, $2, $3) \
            ON CONFLICT (digest) DO NOTHING";
        let component = [new.digest.as_str().into(), new.component.clone().into(), now.into()];
        transaction.execute(sql, &component).await?;
        let sql = "INSERT INTO plugin_versions (plugin, version, digest, size_bytes, roles, imports, config_schema, \
            state, created_at_ms, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, 'uploaded', $8, $9)";
        let arguments: [Value; 9] = [
            new.plugin.as_str().into(),
            version.into(),
            new.digest.as_str().into(),
            (new.component.len() as u64).into(),
            json!(new.roles).to_string().into(),
            json!(new.imports).to_string().into(),
            new.config_schema.to_string().into(),
            now.into(),
            new.by.as_str().into(),
        ];
        transaction.execute(sql, &arguments).await?;
        transaction.announce(TOPIC);
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        match find_version(transaction, &new.plugin, version).await? {
            Some(version) => Ok(Uploaded::New(version)),
            None => Err(transaction.failed("the version that was just written is not there")),
        }
    }
}

/// The number that was not used.
async fn give_back(transaction: &mut Transaction<'_>, plugin: &str) -> Result<(), StoreError> {
    let sql = "UPDATE plugins SET last_version = last_version - 1 WHERE name = $1";
    transaction.execute(sql, &[plugin.into()]).await.map(drop)
}

struct Certify {
    plugin: String,
    version: u32,
    report: Json,
    refused: Option<String>,
}

#[async_trait]
impl Change for Certify {
    type Output = bool;

    fn size_bytes(&self) -> usize {
        self.report.to_string().len() + 256
    }

    fn doing(&self) -> &'static str {
        "keep a plugin's certification"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let state = if self.refused.is_some() { VersionState::Refused } else { VersionState::Certified };
        let sql = "UPDATE plugin_versions SET report = $3, state = $4, reason = $5 WHERE plugin = $1 AND version = $2 \
            AND state IN ('uploaded', 'certified', 'refused')";
        let arguments: [Value; 5] = [
            self.plugin.as_str().into(),
            self.version.into(),
            self.report.to_string().into(),
            state.name().into(),
            self.refused.as_deref().into(),
        ];
        let changed = transaction.execute(sql, &arguments).await?;
        transaction.announce(TOPIC);
        Ok(changed == 1)
    }
}

struct Retire {
    plugin: String,
    version: u32,
    by: String,
}

#[async_trait]
impl Change for Retire {
    type Output = Retired;

    fn size_bytes(&self) -> usize {
        512
    }

    fn doing(&self) -> &'static str {
        "retire a plugin's version"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Retired, StoreError> {
        let Some(rollout) = lock(transaction, &self.plugin).await? else { return Ok(Retired::NotFound) };
        let Some(version) = find_version(transaction, &self.plugin, self.version).await? else {
            return Ok(Retired::NotFound);
        };
        if [rollout.current, rollout.candidate].contains(&Some(self.version)) {
            return Ok(Retired::InUse);
        }
        if version.state == VersionState::Retired {
            return Ok(Retired::Done);
        }
        let sql = "UPDATE plugin_versions SET state = 'retired', reason = NULL WHERE plugin = $1 AND version = $2";
        transaction.execute(sql, &[self.plugin.as_str().into(), self.version.into()]).await?;
        let sql = "DELETE FROM plugin_components WHERE digest = $1 AND NOT EXISTS \
            (SELECT 1 FROM plugin_versions WHERE digest = $1 AND state <> 'retired')";
        transaction.execute(sql, &[version.digest.as_str().into()]).await?;
        write_event(transaction, &rollout, &self.by, &format!("version {} retired", self.version)).await?;
        transaction.announce(TOPIC);
        Ok(Retired::Done)
    }
}
