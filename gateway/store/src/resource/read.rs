//! Reading resources.

use async_trait::async_trait;

use super::{Resource, ResourceId, ResourceKind, Revision};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::reader::{Question, Reader};
use crate::tenant::TenantName;

/// What [`resource`] reads.
pub(super) const COLUMNS: &str = "tenant, kind, name, revision, is_paused, document, created_at_ms, updated_at_ms";

/// Most items of a page.
pub const MAX_PAGE_ITEMS: usize = 1_000;

impl Reader {
    /// One resource.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn resource(&self, id: &ResourceId) -> Result<Option<Resource>, StoreError> {
        self.ask(One(id.clone())).await
    }

    /// Resources of a kind by name, at most `limit`, after the name `after`.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn resources(
        &self,
        tenant: &TenantName,
        kind: ResourceKind,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Vec<Resource>, StoreError> {
        let after = after.unwrap_or_default().to_owned();
        self.ask(Page { tenant: tenant.clone(), kind, limit: limit.min(MAX_PAGE_ITEMS), after }).await
    }

    /// Everything of one tenant, or of all: what a gateway runs.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn all_resources(&self, tenant: Option<&TenantName>) -> Result<Vec<Resource>, StoreError> {
        self.ask(All(tenant.cloned())).await
    }

    /// What a resource was before, the newest revision first; also of one that was deleted.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn resource_history(&self, id: &ResourceId) -> Result<Vec<Revision>, StoreError> {
        self.ask(History(id.clone())).await
    }
}

pub(super) fn resource(row: &Row) -> Result<Resource, StoreError> {
    let tenant = row.text(0)?;
    let tenant = TenantName::parse(&tenant).ok_or_else(|| row.damaged(format!("`{tenant}` is no tenant's name")))?;
    let kind = row.text(1)?;
    let kind = ResourceKind::parse(&kind).ok_or_else(|| row.damaged(format!("`{kind}` is no kind of resource")))?;
    Ok(Resource {
        id: ResourceId { tenant, kind, name: row.text(2)? },
        revision: row.unsigned(3)?,
        is_paused: row.integer(4)? != 0,
        document: row.text(5)?,
        created_at_ms: row.unsigned(6)?,
        updated_at_ms: row.unsigned(7)?,
    })
}

fn place(id: &ResourceId) -> [Value; 3] {
    [id.tenant.as_str().into(), id.kind.name().into(), id.name.as_str().into()]
}

struct One(ResourceId);

#[async_trait]
impl Question for One {
    type Output = Option<Resource>;

    fn doing(&self) -> &'static str {
        "read a resource"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Option<Resource>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM resources WHERE tenant = $1 AND kind = $2 AND name = $3");
        connection.query_first(&sql, &place(&self.0)).await?.map(|row| resource(&row)).transpose()
    }
}

struct Page {
    tenant: TenantName,
    kind: ResourceKind,
    limit: usize,
    after: String,
}

#[async_trait]
impl Question for Page {
    type Output = Vec<Resource>;

    fn doing(&self) -> &'static str {
        "list resources"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Resource>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM resources WHERE tenant = $1 AND kind = $2 AND name > $3 ORDER BY name LIMIT $4"
        );
        let arguments = [
            self.tenant.as_str().into(),
            self.kind.name().into(),
            self.after.as_str().into(),
            (self.limit as u64).into(),
        ];
        connection.query(&sql, &arguments).await?.iter().map(resource).collect()
    }
}

struct All(Option<TenantName>);

#[async_trait]
impl Question for All {
    type Output = Vec<Resource>;

    fn doing(&self) -> &'static str {
        "read the tenants' resources"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Resource>, StoreError> {
        let rows = match &self.0 {
            Some(tenant) => {
                let sql = format!("SELECT {COLUMNS} FROM resources WHERE tenant = $1 ORDER BY kind, name");
                connection.query(&sql, &[tenant.as_str().into()]).await?
            }
            None => {
                let sql = format!("SELECT {COLUMNS} FROM resources ORDER BY tenant, kind, name");
                connection.query(&sql, &[]).await?
            }
        };
        rows.iter().map(resource).collect()
    }
}

struct History(ResourceId);

#[async_trait]
impl Question for History {
    type Output = Vec<Revision>;

    fn doing(&self) -> &'static str {
        "read a resource's history"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Revision>, StoreError> {
        let sql = "SELECT revision, change, document, at_ms, by_whom FROM resource_history \
            WHERE tenant = $1 AND kind = $2 AND name = $3 ORDER BY seq DESC";
        let rows = connection.query(sql, &place(&self.0)).await?;
        let revision = |row: &Row| {
            Ok(Revision {
                revision: row.unsigned(0)?,
                change: row.text(1)?,
                document: row.text(2)?,
                at_ms: row.unsigned(3)?,
                by: row.text(4)?,
            })
        };
        rows.iter().map(revision).collect()
    }
}
