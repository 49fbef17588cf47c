//! Changing the message that is to be redriven.

use async_trait::async_trait;
use bytes::Bytes;
use sluicegate_engine::message::Message;

use super::redriven::state;
use super::stored::{self, Part};
use super::{Changed, Edit};
use crate::change::{Change, Transaction};
use crate::database::Value;
use crate::error::StoreError;
use crate::store::Store;
use crate::stored_message;

impl Store {
    /// Changes the message that is to be redriven; the record stays byte for byte. An edit replaces the one before;
    /// `None` takes it back. `by` says who it was.
    ///
    /// # Errors
    /// What is wrong with the store. If the call is dropped, the edit may or may not be made.
    pub async fn edit_letter(&self, id: &str, edit: Option<Edit>, by: &str) -> Result<Changed, StoreError> {
        let edit = edit.filter(|edit| *edit != Edit::default());
        let head = match edit.as_ref().and_then(|edit| edit.headers.as_ref()) {
            None => None,
            Some(headers) => {
                let carrier = Message { headers: headers.clone(), ..Message::new("", "", Bytes::new()) };
                let unwritable = |error: serde_json::Error| StoreError::Unwritable { cause: error.to_string() };
                Some(stored_message::head(&carrier).map_err(unwritable)?)
            }
        };
        let body = edit.as_ref().and_then(|edit| edit.body.as_deref());
        let body = body.map(|body| stored::seal(self.vault(), id, Part::Edited, body)).transpose()?;
        let made = edit.is_some().then(|| (self.now_ms(), by.to_owned()));
        self.change(EditLetter { id: id.to_owned(), made, head, body }).await
    }
}

struct EditLetter {
    id: String,
    made: Option<(u64, String)>,
    head: Option<String>,
    body: Option<Bytes>,
}

#[async_trait]
impl Change for EditLetter {
    type Output = Changed;

    fn size_bytes(&self) -> usize {
        128 + self.head.as_ref().map_or(0, String::len) + self.body.as_ref().map_or(0, Bytes::len)
    }

    fn doing(&self) -> &'static str {
        "edit a dead letter"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Changed, StoreError> {
        let changed = state(transaction, &self.id).await?;
        if changed == Changed::Done {
            let (at_ms, by) = self.made.clone().unzip();
            let arguments: [Value; 5] =
                [self.id.as_str().into(), at_ms.into(), by.into(), self.head.clone().into(), self.body.clone().into()];
            let sql = "UPDATE dead_letters SET edited_at_ms = $2, edited_by = $3, edited_head = $4, edited_body = $5 \
                WHERE id = $1";
            transaction.execute(sql, &arguments).await?;
        }
        Ok(changed)
    }
}
