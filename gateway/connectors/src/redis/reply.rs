//! Entries as Redis answers them. The library's own types put fields into a map, which loses their order and repeats,
//! so the raw answer is read here.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use redis::Value;
use sluicegate_engine::delivery::Token;

/// The id of a stream entry: milliseconds and a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// When the entry was added, milliseconds since the Unix epoch, unless its producer chose the id.
    pub millis: u64,
    /// Tells entries of the same millisecond apart.
    pub sequence: u64,
}

/// Name and value of each field, in order, repeats kept.
pub type Fields = Vec<(Bytes, Bytes)>;

/// One entry; without fields if it was deleted from the stream while pending.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) fields: Option<Fields>,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (millis, sequence) = text.split_once('-').ok_or(())?;
        Ok(Self { millis: millis.parse().map_err(drop)?, sequence: sequence.parse().map_err(drop)? })
    }
}

impl From<EntryId> for Token {
    fn from(id: EntryId) -> Self {
        Self(u128::from(id.millis) << 64 | u128::from(id.sequence))
    }
}

impl From<Token> for EntryId {
    fn from(token: Token) -> Self {
        Self { millis: (token.0 >> 64) as u64, sequence: token.0 as u64 }
    }
}

/// The entries of an answer to XREADGROUP on one stream: none if it waited in vain. `None` if the answer is nothing known.
pub(super) fn read(answer: Value) -> Option<Vec<Entry>> {
    let stream = match answer {
        Value::Nil => return Some(Vec::new()),
        Value::Array(streams) => match streams.into_iter().next() {
            Some(Value::Array(name_and_entries)) => name_and_entries.into_iter().nth(1)?,
            _ => return None,
        },
        // RESP3
        Value::Map(streams) => streams.into_iter().next()?.1,
        _ => return None,
    };
    entries(stream)
}

/// The next cursor and the entries of an answer to XAUTOCLAIM.
pub(super) fn autoclaimed(answer: Value) -> Option<(EntryId, Vec<Entry>)> {
    let Value::Array(parts) = answer else { return None };
    let mut parts = parts.into_iter();
    let cursor = id(&parts.next()?)?;
    Some((cursor, entries(parts.next()?)?))
}

/// The entries of an answer to XCLAIM or XRANGE. Servers before version 7 answer nil for one that was deleted, without
/// its id; it is left out.
pub(super) fn entries(answer: Value) -> Option<Vec<Entry>> {
    let Value::Array(entries) = answer else { return None };
    entries.into_iter().filter(|entry| *entry != Value::Nil).map(entry).collect()
}

/// Ids and delivery counts of an answer to the long form of XPENDING.
pub(super) fn pending(answer: Value) -> Option<Vec<(EntryId, u32)>> {
    let Value::Array(rows) = answer else { return None };
    rows.into_iter()
        .map(|row| {
            let Value::Array(row) = row else { return None };
            let count = match row.get(3)? {
                Value::Int(count) => u32::try_from(*count).unwrap_or(u32::MAX),
                _ => return None,
            };
            Some((id(row.first()?)?, count))
        })
        .collect()
}

fn entry(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let id = id(&parts.next()?)?;
    let fields = match parts.next()? {
        Value::Nil => None,
        Value::Array(fields) => Some(pairs(fields)?),
        _ => return None,
    };
    Some(Entry { id, fields })
}

fn pairs(values: Vec<Value>) -> Option<Fields> {
    let mut values = values.into_iter();
    let mut pairs = Vec::with_capacity(values.len() / 2);
    while let Some(name) = values.next() {
        pairs.push((bytes(name)?, bytes(values.next()?)?));
    }
    Some(pairs)
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        _ => None,
    }
}

fn id(value: &Value) -> Option<EntryId> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        Value::SimpleString(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn an_answer_keeps_order_and_repeats_of_fields() {
        let fields = Value::Array(vec![bulk("b"), bulk("1"), bulk("a"), bulk("2"), bulk("b"), bulk("3")]);
        let stream = Value::Array(vec![bulk("s"), Value::Array(vec![Value::Array(vec![bulk("5-1"), fields])])]);
        let entries = read(Value::Array(vec![stream])).expect("an answer");
        assert_eq!(entries[0].id, EntryId { millis: 5, sequence: 1 });
        let names: Vec<_> = entries[0].fields.iter().flatten().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, ["b", "a", "b"]);
        assert_eq!(read(Value::Nil), Some(Vec::new()));
    }

    #[test]
    fn deleted_entries_are_told_apart() {
        let deleted = Value::Array(vec![bulk("5-1"), Value::Nil]);
        assert_eq!(
            entries(Value::Array(vec![Value::Nil, deleted])),
            Some(vec![Entry { id: EntryId { millis: 5, sequence: 1 }, fields: None }])
        );
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        for answer in [Value::Okay, Value::Int(1), Value::Array(vec![Value::Int(1)]), Value::Array(vec![])] {
            assert_eq!(read(answer.clone()), None, "{answer:?}");
            assert_eq!(autoclaimed(answer), None);
        }
        assert_eq!(entries(Value::Array(vec![Value::Array(vec![bulk("x"), Value::Array(vec![])])])), None);
        assert_eq!(pending(Value::Array(vec![Value::Array(vec![bulk("1-1")])])), None);
    }

    proptest! {
        #[test]
        fn ids_come_back_from_tokens_and_texts(millis: u64, sequence: u64) {
            let id = EntryId { millis, sequence };
            prop_assert_eq!(EntryId::from(Token::from(id)), id);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
