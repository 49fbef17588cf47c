//! The dead letters of one message.

use async_trait::async_trait;

use super::read::{SUMMARY_COLUMNS, summary};
use super::{MAX_PAGE_LETTERS, MAX_SUMMARY_ERROR_CHARS, Summary};
use crate::database::Connection;
use crate::error::StoreError;
use crate::reader::{Question, Reader};

impl Reader {
    /// The dead letters of the messages with this id, the newest [`MAX_PAGE_LETTERS`], in the order they failed.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn letters_of(&self, message_id: &str) -> Result<Vec<Summary>, StoreError> {
        self.ask(OfMessage(message_id.to_owned())).await
    }
}

struct OfMessage(String);

#[async_trait]
impl Question for OfMessage {
    type Output = Vec<Summary>;

    fn doing(&self) -> &'static str {
        "read the dead letters of a message"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Summary>, StoreError> {
        // PostgreSQL's index has the ids' beginnings, SQLite's has all of them.
        let sql = format!(
            "SELECT {SUMMARY_COLUMNS}, substr(error, 1, {MAX_SUMMARY_ERROR_CHARS}) FROM dead_letters \
             WHERE substr(message_id, 1, 200) = substr(CAST($1 AS TEXT), 1, 200) AND message_id = $1 \
             ORDER BY failed_at_ms DESC, id DESC LIMIT $2"
        );
        let rows = connection.query(&sql, &[self.0.as_str().into(), (MAX_PAGE_LETTERS as u64).into()]).await?;
        rows.iter().rev().map(summary).collect()
    }
}
