//! Deleting values whose time is over, and what is locked for a change.

use super::StateSpace;
use crate::change::Transaction;
use crate::database::{Backend, Value};
use crate::error::StoreError;
use crate::tenant::{Realm, TenantName};
use sluicegate_engine::message::now_ms;

/// Most values of a space deleted in one go.
const MAX_ROWS: u32 = 500;
/// Most spaces looked at in one transaction.
const MAX_SPACES: u32 = 8;
/// "SLGS": under which PostgreSQL lets one gateway at a time change state.
const STATE_LOCK: i64 = 0x534c_4753;

/// Keeps others from changing the space until the transaction ends, and says what it holds.
///
/// On PostgreSQL one gateway at a time changes any state: transactions of several gateways that change many spaces, each in
/// its own order, would wait for each other in a circle otherwise. What they share is a transaction for all that waits.
pub(super) async fn lock(transaction: &mut Transaction<'_>, space: &StateSpace) -> Result<u64, StoreError> {
    if transaction.backend() == Backend::Postgres {
        transaction.query("SELECT pg_advisory_xact_lock($1)", &[STATE_LOCK.into()]).await?;
    }
    let sql = "INSERT INTO plugin_state_spaces (realm, plugin, size_bytes) VALUES ($1, $2, 0) \
        ON CONFLICT (realm, plugin) DO UPDATE SET size_bytes = plugin_state_spaces.size_bytes RETURNING size_bytes";
    match transaction.query_first(sql, &space.columns()).await? {
        Some(row) => row.unsigned(0),
        None => Err(transaction.failed("a plugin's space is not there")),
    }
}

/// Deletes values of a locked space whose time is over, oldest first; says what they came to. The space's own count is the
/// caller's to change.
pub(super) async fn sweep_space(
    transaction: &mut Transaction<'_>,
    space: &StateSpace,
    now: u64,
) -> Result<u64, StoreError> {
    let sql = format!(
        "DELETE FROM plugin_state WHERE realm = $1 AND plugin = $2 AND key IN (SELECT key FROM plugin_state \
         WHERE realm = $1 AND plugin = $2 AND expires_at_ms <= $3 ORDER BY expires_at_ms LIMIT {MAX_ROWS}) \
         RETURNING size_bytes"
    );
    let [realm, plugin] = space.columns();
    let rows = transaction.query(&sql, &[realm, plugin, now.into()]).await?;
    rows.iter().map(|row| row.unsigned(0)).sum()
}

/// Deletes values whose time is over, of a few spaces; says whether there may be more.
pub(crate) async fn sweep(transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
    let now = now_ms();
    for _ in 0..MAX_SPACES {
        let sql = "SELECT realm, plugin FROM plugin_state WHERE expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT 1";
        let Some(oldest) = transaction.query_first(sql, &[now.into()]).await? else { return Ok(false) };
        let realm = oldest.text(0)?;
        let realm = TenantName::parse(&realm).map_or(Realm::Operator, Realm::Tenant);
        let space = StateSpace::new(realm, oldest.text(1)?);
        let used = lock(transaction, &space).await?;
        let swept = sweep_space(transaction, &space, now).await?;
        let [realm, plugin] = space.columns();
        let left: Value = used.saturating_sub(swept).into();
        let sql = "UPDATE plugin_state_spaces SET size_bytes = $3 WHERE realm = $1 AND plugin = $2";
        transaction.execute(sql, &[realm, plugin, left]).await?;
    }
    Ok(true)
}
