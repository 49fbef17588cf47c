//! Adding to the audit, and removing what is old.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{AuditEntry, MAX_DOCUMENT_BYTES, MAX_TEXT_CHARS};
use crate::change::{Change, Transaction};
use crate::error::StoreError;
use crate::store::Store;

/// Most entries removed in one transaction.
const MAX_ROWS: u64 = 500;

impl Store {
    /// Adds entries; durable when it returns.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn append_audit(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        self.change(Append(entries)).await
    }

    /// Hands an entry in without waiting for it; `false` if there is no room for it now.
    pub fn submit_audit(&self, entry: AuditEntry) -> bool {
        self.submit(Append(vec![entry]))
    }

    /// Removes some entries of before `before_ms`; whether there may be more of them.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn trim_audit(&self, before_ms: u64) -> Result<bool, StoreError> {
        self.change(Trim { before_ms }).await
    }
}

struct Append(Vec<AuditEntry>);

fn document(value: Option<&Value>) -> Option<String> {
    let text = value?.to_string();
    if text.len() <= MAX_DOCUMENT_BYTES {
        return Some(text);
    }
    Some(json!({ "leftOut": true, "bytes": text.len() }).to_string())
}

/// One line without NUL, which PostgreSQL does not keep.
fn line(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[async_trait]
impl Change for Append {
    type Output = ();

    fn size_bytes(&self) -> usize {
        // Documents are cut, so this is an upper bound.
        self.0.len() * (2 * MAX_DOCUMENT_BYTES + 1_024)
    }

    fn doing(&self) -> &'static str {
        "write the audit"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit (at_ms, actor, tenant, action, resource, before, after, outcome, address, repeats) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        for entry in &self.0 {
            let values = [
                entry.at_ms.into(),
                line(&entry.actor).into(),
                entry.realm.tenant().map(|tenant| tenant.as_str()).into(),
                line(&entry.action).into(),
                line(&entry.resource).into(),
                document(entry.before.as_ref()).into(),
                document(entry.after.as_ref()).into(),
                entry.outcome.name().into(),
                entry.address.map(|address| address.to_string()).into(),
                entry.repeats.into(),
            ];
            transaction.execute(sql, &values).await?;
        }
        Ok(())
    }
}

struct Trim {
    before_ms: u64,
}

#[async_trait]
impl Change for Trim {
    type Output = bool;

    fn size_bytes(&self) -> usize {
        64
    }

    fn doing(&self) -> &'static str {
        "remove old entries of the audit"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let sql = "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)";
        Ok(transaction.execute(sql, &[self.before_ms.into(), MAX_ROWS.into()]).await? >= MAX_ROWS)
    }
}
