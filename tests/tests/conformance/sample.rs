//! The messages the suite sends and expects.

/// Headers of the suite begin so; all others are the systems' own business.
pub const HEADER_PREFIX: &str = "x-probe-";

/// A message as the suite sends it and as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The message's id.
    pub id: String,
    /// The ordering key.
    pub key: Option<String>,
    /// In order, repeats kept; only those that begin with [`HEADER_PREFIX`].
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Sample {
    /// The `number`th, with a small JSON body.
    pub fn numbered(number: usize) -> Self {
        Self {
            id: format!("m-{number:06}"),
            key: None,
            headers: Vec::new(),
            body: format!(r#"{{"number":{number}}}"#).into_bytes(),
        }
    }

    /// The same with another body.
    pub fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The same with a key.
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }
}

/// That many, numbered from 0.
pub fn numbered(count: usize) -> Vec<Sample> {
    (0..count).map(Sample::numbered).collect()
}

/// The ids, in order.
pub fn ids<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Vec<&'a str> {
    samples.into_iter().map(|sample| sample.id.as_str()).collect()
}
