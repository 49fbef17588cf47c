//! `dropped: true` or `dropped: some_code`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Visitor};

/// Whether a message is to be dropped, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DroppedSection {
    /// Dropped or not.
    Whether(bool),
    /// Dropped for the reason with this code.
    Because(String),
}

impl<'de> Deserialize<'de> for DroppedSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = DroppedSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or the code of a reason")
            }

            fn visit_bool<E>(self, whether: bool) -> Result<Self::Value, E> {
                Ok(DroppedSection::Whether(whether))
            }

            fn visit_str<E>(self, code: &str) -> Result<Self::Value, E> {
                Ok(DroppedSection::Because(code.to_owned()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for DroppedSection {
    fn schema_name() -> Cow<'static, str> {
        "Dropped".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["boolean", "string"],
            "description": "true, false, or the code of the reason for which it is dropped.",
        })
    }
}
