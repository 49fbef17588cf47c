//! Reading tenants.

use async_trait::async_trait;

use super::realm::TenantName;
use super::record::Tenant;
use super::{MAX_TENANTS, TENANTS};
use crate::database::{Backend, Connection, Row};
use crate::error::StoreError;
use crate::queue::{MAX_PAGE_ITEMS, Page};
use crate::reader::{Question, Reader};
use crate::store::Store;

const COLUMNS: &str = "name, display, is_suspended, revision, quotas, grants, created_at_ms, updated_at_ms";

/// Different after every change of a tenant or a key: whoever keeps a copy of them looks whether it is the same still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityVersion([i64; 6]);

impl Reader {
    /// One tenant.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn tenant(&self, name: &TenantName) -> Result<Option<Tenant>, StoreError> {
        self.ask(Find(name.clone())).await
    }

    /// Tenants by name. `limit` is cut to 1 through [`MAX_PAGE_ITEMS`]; `after` is the [`Page::next`] of the page before.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn tenants(&self, limit: usize, after: Option<&str>) -> Result<Page<Tenant>, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        self.ask(List { limit, after: after.unwrap_or_default().to_owned() }).await
    }

    /// All tenants; [`MAX_TENANTS`] at most.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn all_tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        Ok(self.ask(List { limit: MAX_TENANTS as usize, after: String::new() }).await?.items)
    }

    /// See [`IdentityVersion`].
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn identity_version(&self) -> Result<IdentityVersion, StoreError> {
        self.ask(AskVersion).await
    }
}

impl Store {
    /// Changes when tenants may have changed, here or at another gateway on the same store.
    pub fn tenant_news(&self) -> tokio::sync::watch::Receiver<u64> {
        self.signals().subscribe(TENANTS)
    }
}

/// `to_change` keeps others from changing it to the end of the transaction.
pub(super) async fn find(
    connection: &mut Connection,
    name: &TenantName,
    to_change: bool,
) -> Result<Option<Tenant>, StoreError> {
    let lock = if to_change && connection.backend() == Backend::Postgres { " FOR UPDATE" } else { "" };
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE name = $1{lock}");
    connection.query_first(&sql, &[name.as_str().into()]).await?.as_ref().map(tenant).transpose()
}

fn tenant(row: &Row) -> Result<Tenant, StoreError> {
    let name = row.text(0)?;
    let damaged = |what: &str, error: serde_json::Error| row.damaged(format!("the {what} of a tenant: {error}"));
    let (quotas, grants) = (row.text(4)?, row.text(5)?);
    Ok(Tenant {
        name: TenantName::parse(&name).ok_or_else(|| row.damaged(format!("`{name}` is not the name of a tenant")))?,
        display: row.text(1)?,
        suspended: row.integer(2)? != 0,
        revision: row.unsigned(3)?,
        quotas: serde_json::from_str(&quotas).map_err(|error| damaged("quotas", error))?,
        grants: serde_json::from_str(&grants).map_err(|error| damaged("grants", error))?,
        created_at_ms: row.unsigned(6)?,
        updated_at_ms: row.unsigned(7)?,
    })
}

struct Find(TenantName);

#[async_trait]
impl Question for Find {
    type Output = Option<Tenant>;

    fn doing(&self) -> &'static str {
        "find a tenant"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        find(connection, &self.0, false).await
    }
}

struct List {
    limit: usize,
    after: String,
}

#[async_trait]
impl Question for List {
    type Output = Page<Tenant>;

    fn doing(&self) -> &'static str {
        "list the tenants"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tenants WHERE name > $1 ORDER BY name LIMIT $2");
        let rows = connection.query(&sql, &[self.after.as_str().into(), (self.limit as u64 + 1).into()]).await?;
        let items: Vec<Tenant> = rows.iter().take(self.limit).map(tenant).collect::<Result<_, _>>()?;
        let next = items.last().filter(|_| rows.len() > self.limit).map(|last| last.name.to_string());
        Ok(Page { items, next })
    }
}

struct AskVersion;

#[async_trait]
impl Question for AskVersion {
    type Output = IdentityVersion;

    fn doing(&self) -> &'static str {
        "look for changes of tenants and keys"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let mut version = [0; 6];
        for (table, numbers) in ["tenants", "api_keys"].into_iter().zip(version.chunks_mut(3)) {
            let sql = format!(
                "SELECT count(*), CAST(coalesce(sum(revision), 0) AS BIGINT), coalesce(max(updated_at_ms), 0) FROM {table}"
            );
            let Some(row) = connection.query_first(&sql, &[]).await? else { return Err(connection.failed("no row")) };
            for (column, number) in numbers.iter_mut().enumerate() {
                *number = row.integer(column)?;
            }
        }
        Ok(IdentityVersion(version))
    }
}
