//! What [`Message`] and [`Draft`] can do beyond the contract's functions, alike in a guest and natively.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Draft, Failure, Message};

impl Message {
    /// The value at an RFC 6901 pointer as a Rust type; none if the body is not JSON or has no such value.
    ///
    /// # Errors
    /// Rejects the message (`invalid_value`) if the value does not fit the type.
    pub fn value<T: DeserializeOwned>(&self, pointer: &str) -> Result<Option<T>, Failure> {
        match self.json(pointer) {
            None => Ok(None),
            Some(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| Failure::reject("invalid_value", format!("{pointer}: {error}"))),
        }
    }

    /// The whole body as a Rust type. Prefer [`value`](Self::value) for a few values of a large body.
    ///
    /// # Errors
    /// Rejects the message (`invalid_json`) if the body is not JSON or does not fit the type.
    pub fn body_as<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body()).map_err(|error| Failure::reject("invalid_json", error.to_string()))
    }

    /// A message made from this one; costs nothing until something is set.
    #[must_use]
    pub fn draft(&self) -> Draft {
        Draft::new(self)
    }
}

impl Draft {
    /// Sets the value at an RFC 6901 pointer.
    ///
    /// # Errors
    /// Rejects the message (`invalid_value`) if the value has no JSON form, the body is not JSON or the pointer's
    /// parent does not exist.
    pub fn set_value<T: Serialize + ?Sized>(&self, pointer: &str, value: &T) -> Result<(), Failure> {
        self.set_json(pointer, &json_text(value)?)
            .map_err(|error| Failure::reject("invalid_value", format!("{pointer}: {error}")))
    }

    /// Replaces the body with a value's JSON text and the content type with `application/json`.
    ///
    /// # Errors
    /// Rejects the message (`invalid_value`) if the value has no JSON form.
    pub fn set_body_value<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        self.set_body(json_text(value)?.as_bytes());
        self.set_content_type(Some("application/json"));
        Ok(())
    }
}

fn json_text<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::reject("invalid_value", error.to_string()))
}
