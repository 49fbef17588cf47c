//! A dead letter leaves when its redelivery is confirmed.

use super::Changed;
use crate::database::{Backend, Connection};
use crate::error::StoreError;

/// Makes other gateways that settle parts of the same dead letter wait until this transaction has ended: each must see
/// what the other has left.
pub(crate) async fn hold_redriven(connection: &mut Connection, id: &str) -> Result<(), StoreError> {
    match connection.backend() {
        Backend::Sqlite => Ok(()),
        Backend::Postgres => {
            connection.query("SELECT 1 FROM dead_letters WHERE id = $1 FOR UPDATE", &[id.into()]).await.map(drop)
        }
    }
}

/// Deletes a dead letter whose redrive number `count` is over, unless it failed again: then its record has that count.
pub(crate) async fn delete_redriven(connection: &mut Connection, id: &str, count: u32) -> Result<(), StoreError> {
    let sql = "DELETE FROM dead_letters WHERE id = $1 AND redrive_count < $2";
    connection.execute(sql, &[id.into(), count.into()]).await.map(drop)
}

/// Whether a letter may be changed. It stays so while the transaction lasts.
pub(crate) async fn state(connection: &mut Connection, id: &str) -> Result<Changed, StoreError> {
    let sql = match connection.backend() {
        Backend::Sqlite => "SELECT 1 FROM dead_letters WHERE id = $1",
        Backend::Postgres => "SELECT 1 FROM dead_letters WHERE id = $1 FOR UPDATE",
    };
    if connection.query_first(sql, &[id.into()]).await?.is_none() {
        return Ok(Changed::NotFound);
    }
    Ok(if is_being_redriven(connection, id).await? { Changed::BeingRedriven } else { Changed::Done })
}

/// Whether an entry of an inbox comes from it.
pub(crate) async fn is_being_redriven(connection: &mut Connection, id: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM inbox WHERE redrive_letter = $1 LIMIT 1";
    Ok(connection.query_first(sql, &[id.into()]).await?.is_some())
}
