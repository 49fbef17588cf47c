//! Reading the audit, newest first.

use async_trait::async_trait;

use super::{AuditEntry, AuditOutcome, AuditRecord};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::queue::{MAX_PAGE_ITEMS, Page};
use crate::reader::{Question, Reader};
use crate::tenant::{Realm, TenantName};

/// Which entries; what is `None` does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Of this realm; of all where it is not said.
    pub realm: Option<Realm>,
    /// By whom, exactly.
    pub actor: Option<String>,
    /// What, exactly, or with what it begins where it ends in a dot: `key.`.
    pub action: Option<String>,
    /// With what, exactly.
    pub resource: Option<String>,
    /// How it ended.
    pub outcome: Option<AuditOutcome>,
    /// At that time or later, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Before that time.
    pub until_ms: Option<u64>,
}

impl Reader {
    /// Entries, newest first. `limit` is cut to 1 through [`MAX_PAGE_ITEMS`]; `after` is the [`Page::next`] of the page
    /// before.
    ///
    /// # Errors
    /// `PageToken`: `after` is none. What is wrong with the database. Cancel safe.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Page<AuditRecord>, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        let before_seq = match after {
            None => None,
            Some(token) => Some(token.parse().map_err(|_| StoreError::PageToken { token: token.to_owned() })?),
        };
        self.ask(List { filter: filter.clone(), limit, before_seq }).await
    }
}

struct List {
    filter: AuditFilter,
    limit: usize,
    before_seq: Option<u64>,
}

impl List {
    /// The statement and its values.
    fn statement(&self) -> (String, Vec<Value>) {
        let mut conditions = vec!["1 = 1".to_owned()];
        let mut values: Vec<Value> = Vec::new();
        let mut with = |condition: &str, value: Value| {
            values.push(value);
            conditions.push(condition.replace('?', &format!("${}", values.len())));
        };
        let AuditFilter { realm, actor, action, resource, outcome, since_ms, until_ms } = &self.filter;
        let mut is_operators = false;
        match realm {
            None => {}
            Some(Realm::Operator) => is_operators = true,
            Some(Realm::Tenant(tenant)) => with("tenant = ?", tenant.as_str().into()),
        }
        if let Some(actor) = actor {
            with("actor = ?", actor.into());
        }
        match action {
            Some(action) if action.ends_with('.') => {
                let chars = action.chars().count();
                with(&format!("substr(action, 1, {chars}) = ?"), action.into());
            }
            Some(action) => with("action = ?", action.into()),
            None => {}
        }
        if let Some(resource) = resource {
            with("resource = ?", resource.into());
        }
        if let Some(outcome) = outcome {
            with("outcome = ?", outcome.name().into());
        }
        if let Some(since_ms) = since_ms {
            with("at_ms >= ?", (*since_ms).into());
        }
        if let Some(until_ms) = until_ms {
            with("at_ms < ?", (*until_ms).into());
        }
        if let Some(seq) = self.before_seq {
            with("seq < ?", seq.into());
        }
        if is_operators {
            conditions.push("tenant IS NULL".to_owned());
        }
        values.push((self.limit as u64 + 1).into());
        let sql = format!(
            "SELECT seq, at_ms, actor, tenant, action, resource, before, after, outcome, address, repeats FROM audit \
             WHERE {} ORDER BY seq DESC LIMIT ${}",
            conditions.join(" AND "),
            values.len()
        );
        (sql, values)
    }
}

#[async_trait]
impl Question for List {
    type Output = Page<AuditRecord>;

    fn doing(&self) -> &'static str {
        "read the audit"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let (sql, values) = self.statement();
        let rows = connection.query(&sql, &values).await?;
        let items: Vec<AuditRecord> = rows.iter().take(self.limit).map(record).collect::<Result<_, _>>()?;
        let next = items.last().filter(|_| rows.len() > self.limit).map(|last| last.seq.to_string());
        Ok(Page { items, next })
    }
}

fn record(row: &Row) -> Result<AuditRecord, StoreError> {
    let document = |column| {
        let text = row.optional_text(column)?;
        let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
        parsed.map_err(|error| row.damaged(format!("a document of the audit: {error}")))
    };
    let realm = match row.optional_text(3)? {
        None => Realm::Operator,
        Some(name) => Realm::Tenant(
            TenantName::parse(&name).ok_or_else(|| row.damaged(format!("`{name}` is not the name of a tenant")))?,
        ),
    };
    let outcome = row.text(8)?;
    let entry = AuditEntry {
        at_ms: row.unsigned(1)?,
        actor: row.text(2)?,
        realm,
        action: row.text(4)?,
        resource: row.text(5)?,
        before: document(6)?,
        after: document(7)?,
        outcome: AuditOutcome::parse(&outcome)
            .ok_or_else(|| row.damaged(format!("`{outcome}` is no outcome of the audit")))?,
        address: row.optional_text(9)?.and_then(|address| address.parse().ok()),
        repeats: row.unsigned(10)?,
    };
    Ok(AuditRecord { seq: row.unsigned(0)?, entry })
}
