//! Values and rows as both databases have them.

use std::sync::Arc;

use bytes::Bytes;

use super::Connection;
use crate::error::StoreError;
use crate::place::Place;
use crate::vault::{self, Identity, Vault};

/// A value of a column or of a statement's `$n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    /// BIGINT or INTEGER.
    Integer(i64),
    /// TEXT.
    Text(String),
    /// BYTEA or BLOB.
    Bytes(Bytes),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(i64::from(number))
    }
}

/// Saturating: what is above `i64::MAX` becomes `i64::MAX`.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// 1 or 0.
impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Integer(i64::from(yes))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text((*text).to_owned())
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, T::into)
    }
}

impl Value {
    fn name(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Integer(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
        }
    }
}

/// A row of an answer. Columns are counted from 0.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(super) values: Vec<Value>,
    pub(super) place: Place,
    pub(super) doing: &'static str,
    /// Opens bodies.
    pub(super) vault: Arc<Vault>,
}

/// What a column may be is here as a whole, whether or not a module reads such a one already.
///
/// Each is `Damaged` where the column has another type, or is not there.
impl Row {
    /// A number.
    pub fn integer(&self, column: usize) -> Result<i64, StoreError> {
        match self.value(column)? {
            Value::Integer(number) => Ok(*number),
            other => Err(self.wrong(column, "a number", other)),
        }
    }

    /// A number or NULL.
    pub fn optional_integer(&self, column: usize) -> Result<Option<i64>, StoreError> {
        self.optional(column, Self::integer)
    }

    /// A number that is not negative.
    pub fn unsigned(&self, column: usize) -> Result<u64, StoreError> {
        let number = self.integer(column)?;
        u64::try_from(number).map_err(|_| self.damaged(format!("column {column} is {number}, below 0")))
    }

    /// A number that is not negative, or NULL.
    pub fn optional_unsigned(&self, column: usize) -> Result<Option<u64>, StoreError> {
        self.optional(column, Self::unsigned)
    }

    /// Text.
    pub fn text(&self, column: usize) -> Result<String, StoreError> {
        match self.value(column)? {
            Value::Text(text) => Ok(text.clone()),
            other => Err(self.wrong(column, "text", other)),
        }
    }

    /// Text or NULL.
    pub fn optional_text(&self, column: usize) -> Result<Option<String>, StoreError> {
        self.optional(column, Self::text)
    }

    /// Bytes, shared with the row.
    pub fn bytes(&self, column: usize) -> Result<Bytes, StoreError> {
        match self.value(column)? {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            other => Err(self.wrong(column, "bytes", other)),
        }
    }

    /// Bytes or NULL.
    pub fn optional_bytes(&self, column: usize) -> Result<Option<Bytes>, StoreError> {
        self.optional(column, Self::bytes)
    }

    /// A body that was sealed for the record of this identity.
    ///
    /// # Errors
    /// As [`Vault::open`] besides.
    pub fn body_of(&self, column: usize, identity: Identity<'_>) -> Result<Bytes, StoreError> {
        self.vault.open(self.bytes(column)?, identity, self.doing)
    }

    /// The same, or one that was sealed without an identity, as those of inboxes and queues once were.
    ///
    /// # Errors
    /// As [`Vault::open`] besides.
    pub fn once_unbound_body_of(&self, column: usize, identity: Identity<'_>) -> Result<Bytes, StoreError> {
        self.vault.open_once_unbound(self.bytes(column)?, identity, self.doing)
    }

    /// Reads anew the keys that bodies are opened with.
    ///
    /// # Errors
    /// `MasterKey`; what is wrong with the database.
    pub async fn renew_keys(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let renewed = vault::reload(connection, &self.vault).await;
        connection.set_doing(self.doing);
        renewed.map(drop)
    }

    /// Of its texts and bytes.
    pub fn size_bytes(&self) -> usize {
        let size = |value: &Value| match value {
            Value::Null | Value::Integer(_) => 0,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        };
        self.values.iter().map(size).sum()
    }

    /// A stored value makes no sense.
    pub fn damaged(&self, cause: impl Into<String>) -> StoreError {
        StoreError::Damaged { place: self.place.clone(), doing: self.doing, cause: cause.into() }
    }

    fn optional<T>(
        &self,
        column: usize,
        read: impl FnOnce(&Self, usize) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Integer(_) | Value::Text(_) | Value::Bytes(_) => read(self, column).map(Some),
        }
    }

    fn value(&self, column: usize) -> Result<&Value, StoreError> {
        self.values.get(column).ok_or_else(|| self.damaged(format!("there is no column {column}")))
    }

    fn wrong(&self, column: usize, wanted: &str, found: &Value) -> StoreError {
        self.damaged(format!("column {column} is {}, not {wanted}", found.name()))
    }
}
