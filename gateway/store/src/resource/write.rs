//! Changing resources.

use async_trait::async_trait;
use sluicegate_engine::message::now_ms;

use super::read::{COLUMNS, resource};
use super::{Edit, Edited, MAX_HISTORY, MAX_RESOURCES, Resource, ResourceId, TOPIC};
use crate::change::{Change, Transaction};
use crate::database::{Backend, Value};
use crate::error::StoreError;
use crate::store::Store;

impl Store {
    /// Makes, changes or removes a resource. `revision` is the one that the change is based on; without it the change is
    /// made whatever the resource is now. `by` says who it is, for the history. If the call is dropped, the change may or
    /// may not be made.
    ///
    /// # Errors
    /// What is wrong with the store. What speaks against the change is an [`Edited`].
    pub async fn edit_resource(
        &self,
        id: &ResourceId,
        edit: Edit,
        revision: Option<u64>,
        by: &str,
    ) -> Result<Edited, StoreError> {
        self.change(EditResource { id: id.clone(), edit, revision, by: by.to_owned() }).await
    }
}

struct EditResource {
    id: ResourceId,
    edit: Edit,
    revision: Option<u64>,
    by: String,
}

#[async_trait]
impl Change for EditResource {
    type Output = Edited;

    fn size_bytes(&self) -> usize {
        let document = match &self.edit {
            Edit::Create { document, .. } | Edit::Update { document } => document.len(),
            Edit::Pause | Edit::Resume | Edit::Delete => 0,
        };
        256 + 2 * document
    }

    fn doing(&self) -> &'static str {
        "change a resource"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Edited, StoreError> {
        let before = self.current(transaction).await?;
        let after = match self.after(transaction, before).await? {
            Ok(after) => after,
            Err(refused) => return Ok(refused),
        };
        if !self.write(transaction, &after).await? {
            return Ok(Edited::Exists);
        }
        self.remember(transaction, &after).await?;
        transaction.announce(TOPIC);
        Ok(Edited::Done(after))
    }
}

impl EditResource {
    fn place(&self) -> [Value; 3] {
        [self.id.tenant.as_str().into(), self.id.kind.name().into(), self.id.name.as_str().into()]
    }

    async fn current(&self, transaction: &mut Transaction<'_>) -> Result<Option<Resource>, StoreError> {
        let lock = match transaction.backend() {
            Backend::Sqlite => "",
            Backend::Postgres => " FOR UPDATE",
        };
        let sql = format!("SELECT {COLUMNS} FROM resources WHERE tenant = $1 AND kind = $2 AND name = $3{lock}");
        transaction.query_first(&sql, &self.place()).await?.map(|row| resource(&row)).transpose()
    }

    /// The resource as the change leaves it, or what speaks against it.
    async fn after(
        &self,
        transaction: &mut Transaction<'_>,
        before: Option<Resource>,
    ) -> Result<Result<Resource, Edited>, StoreError> {
        let now = now_ms();
        let mut after = match (before, &self.edit) {
            (Some(_), Edit::Create { .. }) => return Ok(Err(Edited::Exists)),
            (None, Edit::Create { document, is_paused }) => {
                let sql = "SELECT count(*) FROM resources WHERE tenant = $1 AND kind = $2";
                let count = transaction.query_first(sql, &self.place()[..2]).await?;
                if count.map_or(Ok(0), |row| row.unsigned(0))? >= MAX_RESOURCES as u64 {
                    return Ok(Err(Edited::Full));
                }
                let (document, is_paused) = (document.clone(), *is_paused);
                let id = self.id.clone();
                return Ok(Ok(Resource {
                    id,
                    revision: self.first_revision(transaction).await?,
                    is_paused,
                    document,
                    created_at_ms: now,
                    updated_at_ms: now,
                }));
            }
            (None, _) => return Ok(Err(Edited::NotFound)),
            (Some(before), _) => before,
        };
        if self.revision.is_some_and(|based_on| based_on != after.revision) {
            return Ok(Err(Edited::Conflict(after.revision)));
        }
        match &self.edit {
            Edit::Update { document } => after.document.clone_from(document),
            Edit::Pause => after.is_paused = true,
            Edit::Resume => after.is_paused = false,
            Edit::Delete | Edit::Create { .. } => {}
        }
        after.revision += 1;
        after.updated_at_ms = now;
        Ok(Ok(after))
    }

    /// One that was deleted and is made again goes on counting: a revision never means two documents.
    async fn first_revision(&self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        let sql = "SELECT max(revision) FROM resource_history WHERE tenant = $1 AND kind = $2 AND name = $3";
        let last = transaction.query_first(sql, &self.place()).await?;
        Ok(last.map_or(Ok(None), |row| row.optional_unsigned(0))?.unwrap_or(0) + 1)
    }

    /// Whether it could be written: another gateway may have made a resource of that name at the same moment.
    async fn write(&self, transaction: &mut Transaction<'_>, after: &Resource) -> Result<bool, StoreError> {
        let [tenant, kind, name] = self.place();
        if self.edit == Edit::Delete {
            let sql = "DELETE FROM resources WHERE tenant = $1 AND kind = $2 AND name = $3";
            return Ok(transaction.execute(sql, &[tenant, kind, name]).await? == 1);
        }
        let sql = match &self.edit {
            Edit::Create { .. } => {
                "INSERT INTO resources (tenant, kind, name, revision, is_paused, document, updated_at_ms, created_at_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant, kind, name) DO NOTHING"
            }
            Edit::Update { .. } | Edit::Pause | Edit::Resume | Edit::Delete => {
                "UPDATE resources SET revision = $4, is_paused = $5, document = $6, updated_at_ms = $7 \
                 WHERE tenant = $1 AND kind = $2 AND name = $3 AND created_at_ms = $8"
            }
        };
        let arguments = [
            tenant,
            kind,
            name,
            after.revision.into(),
            after.is_paused.into(),
            after.document.clone().into(),
            after.updated_at_ms.into(),
            after.created_at_ms.into(),
        ];
        Ok(transaction.execute(sql, &arguments).await? == 1)
    }

    async fn remember(&self, transaction: &mut Transaction<'_>, after: &Resource) -> Result<(), StoreError> {
        let [tenant, kind, name] = self.place();
        let sql = "INSERT INTO resource_history (tenant, kind, name, revision, change, document, at_ms, by_whom) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let arguments = [
            tenant,
            kind,
            name,
            after.revision.into(),
            self.edit.name().into(),
            after.document.clone().into(),
            after.updated_at_ms.into(),
            self.by.clone().into(),
        ];
        transaction.execute(sql, &arguments).await?;
        let [tenant, kind, name] = self.place();
        let sql = "DELETE FROM resource_history WHERE tenant = $1 AND kind = $2 AND name = $3 AND revision <= $4";
        let oldest = after.revision.saturating_sub(MAX_HISTORY as u64);
        transaction.execute(sql, &[tenant, kind, name, oldest.into()]).await.map(drop)
    }
}
