//! Making, changing and deleting tenants.

use async_trait::async_trait;
use serde::Serialize;
use sluicegate_engine::message::now_ms;

use super::error::TenantError;
use super::read::find;
use super::realm::TenantName;
use super::record::{Grants, Quotas, RESERVED_NAMES, Tenant, check_display};
use super::{MAX_TENANTS, TENANTS};
use crate::api_key::API_KEYS;
use crate::change::{Change, Transaction};
use crate::database::Connection;
use crate::error::StoreError;
use crate::store::Store;

/// What is to be different of a tenant; `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantUpdate {
    /// Its name for people.
    pub display: Option<String>,
    /// Whether its credentials are refused.
    pub suspended: Option<bool>,
    /// How much it may use.
    pub quotas: Option<Quotas>,
    /// What of the operator's it may use.
    pub grants: Option<Grants>,
}

impl Store {
    /// Makes a tenant. Nobody can call in its name until it has a key, or a token names it.
    ///
    /// # Errors
    /// `Exists`, `Invalid` (also a [reserved name](RESERVED_NAMES)), `TooMany`.
    pub async fn create_tenant(
        &self,
        name: &TenantName,
        display: &str,
        quotas: Quotas,
        grants: Grants,
    ) -> Result<Tenant, TenantError> {
        if RESERVED_NAMES.contains(&name.as_str()) {
            return Err(TenantError::Invalid {
                what: "name",
                text: format!("`{name}` is reserved; choose another one"),
            });
        }
        check_display(display)?;
        quotas.check()?;
        grants.check()?;
        let now_ms = now_ms();
        let tenant = Tenant {
            name: name.clone(),
            display: display.to_owned(),
            suspended: false,
            revision: 1,
            quotas,
            grants,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
        };
        self.change(Create(tenant)).await?
    }

    /// Changes a tenant, if it still has the `revision` that was read, where one is given. Gateways that run take it up
    /// within a second.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Invalid`.
    pub async fn update_tenant(
        &self,
        name: &TenantName,
        revision: Option<u64>,
        update: TenantUpdate,
    ) -> Result<Tenant, TenantError> {
        update.display.as_deref().map_or(Ok(()), check_display)?;
        update.quotas.as_ref().map_or(Ok(()), Quotas::check)?;
        update.grants.as_ref().map_or(Ok(()), Grants::check)?;
        self.change(Update { name: name.clone(), revision, update }).await?
    }

    /// Deletes a tenant and its keys. It must be suspended, and own nothing any more: whoever gets its name later must
    /// not find what it has left.
    ///
    /// # Errors
    /// `NotFound`, `InUse`.
    pub async fn delete_tenant(&self, name: &TenantName) -> Result<Tenant, TenantError> {
        self.change(Delete(name.clone())).await?
    }
}

fn json(value: &impl Serialize, connection: &Connection) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| connection.failed(format!("a tenant's record: {error}")))
}

struct Create(Tenant);

#[async_trait]
impl Change for Create {
    type Output = Result<Tenant, TenantError>;

    fn size_bytes(&self) -> usize {
        4_096
    }

    fn doing(&self) -> &'static str {
        "create a tenant"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let tenant = &self.0;
        let count = transaction.query_first("SELECT count(*) FROM tenants", &[]).await?;
        if count.map(|row| row.unsigned(0)).transpose()?.is_some_and(|count| count >= MAX_TENANTS) {
            return Ok(Err(TenantError::TooMany { limit: MAX_TENANTS }));
        }
        let sql = "INSERT INTO tenants (name, display, is_suspended, revision, quotas, grants, created_at_ms, updated_at_ms) \
                   VALUES ($1, $2, 0, 1, $3, $4, $5, $5) ON CONFLICT (name) DO NOTHING";
        let values = [
            tenant.name.as_str().into(),
            tenant.display.as_str().into(),
            json(&tenant.quotas, transaction)?.into(),
            json(&tenant.grants, transaction)?.into(),
            tenant.created_at_ms.into(),
        ];
        if transaction.execute(sql, &values).await? == 0 {
            return Ok(Err(TenantError::Exists { tenant: tenant.name.to_string() }));
        }
        transaction.announce(TENANTS);
        Ok(Ok(tenant.clone()))
    }
}

struct Update {
    name: TenantName,
    revision: Option<u64>,
    update: TenantUpdate,
}

#[async_trait]
impl Change for Update {
    type Output = Result<Tenant, TenantError>;

    fn size_bytes(&self) -> usize {
        4_096
    }

    fn doing(&self) -> &'static str {
        "change a tenant"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let Some(mut tenant) = find(transaction, &self.name, true).await? else {
            return Ok(Err(TenantError::NotFound { tenant: self.name.to_string() }));
        };
        if self.revision.is_some_and(|revision| revision != tenant.revision) {
            return Ok(Err(TenantError::Conflict { tenant: self.name.to_string(), revision: tenant.revision }));
        }
        let TenantUpdate { display, suspended, quotas, grants } = self.update.clone();
        tenant.display = display.unwrap_or(tenant.display);
        tenant.suspended = suspended.unwrap_or(tenant.suspended);
        tenant.quotas = quotas.unwrap_or(tenant.quotas);
        tenant.grants = grants.unwrap_or(tenant.grants);
        tenant.revision += 1;
        tenant.updated_at_ms = now_ms();
        let sql = "UPDATE tenants SET display = $2, is_suspended = $3, revision = $4, quotas = $5, grants = $6, \
                   updated_at_ms = $7 WHERE name = $1";
        let values = [
            tenant.name.as_str().into(),
            tenant.display.as_str().into(),
            tenant.suspended.into(),
            tenant.revision.into(),
            json(&tenant.quotas, transaction)?.into(),
            json(&tenant.grants, transaction)?.into(),
            tenant.updated_at_ms.into(),
        ];
        transaction.execute(sql, &values).await?;
        transaction.announce(TENANTS);
        Ok(Ok(tenant))
    }
}

/// Where a tenant's things are, and what they are called there.
const OWNED: [(&str, &str, &str); 2] = [("queues", "name", "queues"), ("dead_letters", "pipeline", "dead letters")];

struct Delete(TenantName);

#[async_trait]
impl Change for Delete {
    type Output = Result<Tenant, TenantError>;

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "delete a tenant"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let in_use = |cause: String| Ok(Err(TenantError::InUse { tenant: self.0.to_string(), cause }));
        let Some(tenant) = find(transaction, &self.0, true).await? else {
            return Ok(Err(TenantError::NotFound { tenant: self.0.to_string() }));
        };
        if !tenant.suspended {
            return in_use("suspend it first, so that nobody calls in its name meanwhile".to_owned());
        }
        let prefix = format!("{}/", self.0);
        for (table, column, what) in OWNED {
            let sql = format!("SELECT 1 FROM {table} WHERE substr({column}, 1, $1) = $2 LIMIT 1");
            let values = [(prefix.len() as u64).into(), prefix.as_str().into()];
            if transaction.query_first(&sql, &values).await?.is_some() {
                return in_use(format!("it still has {what}; delete them first"));
            }
        }
        transaction.execute("DELETE FROM api_keys WHERE tenant = $1", &[self.0.as_str().into()]).await?;
        transaction.execute("DELETE FROM tenants WHERE name = $1", &[self.0.as_str().into()]).await?;
        transaction.announce(TENANTS);
        transaction.announce(API_KEYS);
        Ok(Ok(tenant))
    }
}
