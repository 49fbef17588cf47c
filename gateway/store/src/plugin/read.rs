//! Questions about plugins.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value as Json;

use super::{Event, MAX_LISTED, Mode, Rollout, Version, VersionState};
use crate::database::{Connection, Row};
use crate::error::StoreError;
use crate::reader::{Question, Reader};

impl Reader {
    /// Plugins whose full names begin with `prefix`, all without one, by name; [`MAX_LISTED`] at most, after `after`.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn plugins(&self, prefix: Option<&str>, after: Option<&str>) -> Result<Vec<Rollout>, StoreError> {
        let (prefix, after) = (prefix.unwrap_or_default().to_owned(), after.unwrap_or_default().to_owned());
        self.ask(Plugins { prefix, after }).await
    }

    /// Which versions of a plugin run; none if there is no such plugin.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn rollout(&self, plugin: &str) -> Result<Option<Rollout>, StoreError> {
        self.ask(OneRollout(plugin.to_owned())).await
    }

    /// What happened to a rollout, the last first.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn rollout_events(&self, plugin: &str) -> Result<Vec<Event>, StoreError> {
        self.ask(Events(plugin.to_owned())).await
    }

    /// The versions of a plugin, the newest first, [`MAX_LISTED`] at most.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn plugin_versions(&self, plugin: &str) -> Result<Vec<Version>, StoreError> {
        self.ask(Versions(plugin.to_owned())).await
    }

    /// One version.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn plugin_version(&self, plugin: &str, version: u32) -> Result<Option<Version>, StoreError> {
        self.ask(OneVersion(plugin.to_owned(), version)).await
    }

    /// A component; none if no version has it that is not retired.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn plugin_component(&self, digest: &str) -> Result<Option<Bytes>, StoreError> {
        self.ask(Component(digest.to_owned())).await
    }
}

/// Those that [`rollout`] reads.
pub(super) const ROLLOUT_COLUMNS: &str = "name, current, candidate, mode, percent, earlier, revision, changed_at_ms";
/// Those that [`version`] reads.
const VERSION_COLUMNS: &str = "plugin, version, digest, size_bytes, roles, imports, config_schema, report, state, \
    reason, created_at_ms, created_by";

struct Plugins {
    prefix: String,
    after: String,
}

#[async_trait]
impl Question for Plugins {
    type Output = Vec<Rollout>;

    fn doing(&self) -> &'static str {
        "list the plugins"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Rollout>, StoreError> {
        let sql = format!(
            "SELECT {ROLLOUT_COLUMNS} FROM plugins WHERE name > $2 AND substr(name, 1, length($1)) = $1 \
             ORDER BY name LIMIT $3"
        );
        let arguments = [self.prefix.as_str().into(), self.after.as_str().into(), (MAX_LISTED as u64).into()];
        connection.query(&sql, &arguments).await?.iter().map(rollout).collect()
    }
}

struct OneRollout(String);

#[async_trait]
impl Question for OneRollout {
    type Output = Option<Rollout>;

    fn doing(&self) -> &'static str {
        "read a plugin's rollout"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Option<Rollout>, StoreError> {
        let sql = format!("SELECT {ROLLOUT_COLUMNS} FROM plugins WHERE name = $1");
        connection.query_first(&sql, &[self.0.as_str().into()]).await?.as_ref().map(rollout).transpose()
    }
}

struct Events(String);

#[async_trait]
impl Question for Events {
    type Output = Vec<Event>;

    fn doing(&self) -> &'static str {
        "read what happened to a plugin"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Event>, StoreError> {
        let sql = "SELECT revision, at_ms, by_whom, what FROM plugin_events WHERE plugin = $1 ORDER BY revision DESC";
        let rows = connection.query(sql, &[self.0.as_str().into()]).await?;
        let event = |row: &Row| {
            Ok(Event { revision: row.unsigned(0)?, at_ms: row.unsigned(1)?, by: row.text(2)?, what: row.text(3)? })
        };
        rows.iter().map(event).collect()
    }
}

struct Versions(String);

#[async_trait]
impl Question for Versions {
    type Output = Vec<Version>;

    fn doing(&self) -> &'static str {
        "list a plugin's versions"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Version>, StoreError> {
        let sql = format!(
            "SELECT {VERSION_COLUMNS} FROM plugin_versions WHERE plugin = $1 ORDER BY version DESC LIMIT {MAX_LISTED}"
        );
        connection.query(&sql, &[self.0.as_str().into()]).await?.iter().map(version).collect()
    }
}

struct OneVersion(String, u32);

#[async_trait]
impl Question for OneVersion {
    type Output = Option<Version>;

    fn doing(&self) -> &'static str {
        "read a plugin's version"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Option<Version>, StoreError> {
        find_version(connection, &self.0, self.1).await
    }
}

struct Component(String);

#[async_trait]
impl Question for Component {
    type Output = Option<Bytes>;

    fn doing(&self) -> &'static str {
        "read a component"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT bytes FROM plugin_components WHERE digest = $1";
        connection.query_first(sql, &[self.0.as_str().into()]).await?.map(|row| row.bytes(0)).transpose()
    }
}

pub(super) async fn find_version(
    connection: &mut Connection,
    plugin: &str,
    number: u32,
) -> Result<Option<Version>, StoreError> {
    let sql = format!("SELECT {VERSION_COLUMNS} FROM plugin_versions WHERE plugin = $1 AND version = $2");
    connection.query_first(&sql, &[plugin.into(), number.into()]).await?.as_ref().map(version).transpose()
}

/// The newest of the plugin's versions with this component that is not retired.
pub(super) async fn version_of_digest(
    connection: &mut Connection,
    plugin: &str,
    digest: &str,
) -> Result<Option<Version>, StoreError> {
    let sql = format!(
        "SELECT {VERSION_COLUMNS} FROM plugin_versions WHERE plugin = $1 AND digest = $2 AND state <> 'retired' \
         ORDER BY version DESC LIMIT 1"
    );
    connection.query_first(&sql, &[plugin.into(), digest.into()]).await?.as_ref().map(version).transpose()
}

pub(super) fn rollout(row: &Row) -> Result<Rollout, StoreError> {
    let mode = row.text(3)?;
    let percent = u8::try_from(row.integer(4)?).map_err(|_| row.damaged("column 4 is no percentage"))?;
    let optional = |column| row.optional_integer(column)?.map(|number| small(row, column, number)).transpose();
    Ok(Rollout {
        plugin: row.text(0)?,
        current: optional(1)?,
        candidate: optional(2)?,
        mode: match mode.as_str() {
            "all" => Mode::All,
            "percent" => Mode::Percent(percent),
            "shadow" => Mode::Shadow,
            other => return Err(row.damaged(format!("`{other}` is no mode of a rollout"))),
        },
        earlier: json(row, 5)?,
        revision: row.unsigned(6)?,
        changed_at_ms: row.unsigned(7)?,
    })
}

fn version(row: &Row) -> Result<Version, StoreError> {
    let state = row.text(8)?;
    Ok(Version {
        plugin: row.text(0)?,
        version: small(row, 1, row.integer(1)?)?,
        digest: row.text(2)?,
        size_bytes: row.unsigned(3)?,
        roles: json(row, 4)?,
        imports: json(row, 5)?,
        config_schema: json(row, 6)?,
        report: row.optional_text(7)?.map(|_| json::<Json>(row, 7)).transpose()?,
        state: VersionState::from_name(&state)
            .ok_or_else(|| row.damaged(format!("`{state}` is no state of a version")))?,
        reason: row.optional_text(9)?,
        created_at_ms: row.unsigned(10)?,
        created_by: row.text(11)?,
    })
}

fn small(row: &Row, column: usize, number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| row.damaged(format!("column {column} is out of bounds")))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row, column: usize) -> Result<T, StoreError> {
    let text = row.text(column)?;
    serde_json::from_str(&text).map_err(|error| row.damaged(format!("column {column} does not fit: {error}")))
}
