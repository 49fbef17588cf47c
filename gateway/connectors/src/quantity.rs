//! Quantities and secrets as they are written in the configuration: `500ms`, `16MiB`, a password nobody may print.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// A length of time: a number and `ms`, `s`, `m`, `h` or `d`, for example `500ms` or `1.5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: a number and `B`, `KB`, `MB`, `GB` (powers of 1,000) or `KiB`, `MiB`, `GiB` (powers of 1,024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// How often: a number and `/s`, `/m` or `/h`, for example `50/s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Never 0.
    pub per_second: f64,
}

/// A value that is used but never shown: its `Debug` and `Display` are `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Span {
    /// That many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// That many seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Reads `text`; `None` if it is no span of time.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let seconds_per_unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(number * seconds_per_unit).ok().map(Self)
    }
}

impl Size {
    /// Reads `text`; `None` if it is no size.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let bytes_per_unit: u64 = match unit {
            "B" => 1,
            "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        let bytes = number * bytes_per_unit as f64;
        (bytes <= u64::MAX as f64).then_some(Self(bytes as u64))
    }
}

impl Rate {
    /// Reads `text`; `None` if it is no rate.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_once('/')?;
        let number: u32 = number.trim().parse().ok().filter(|number| *number > 0)?;
        let seconds = match unit.trim() {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        Some(Self { per_second: f64::from(number) / seconds })
    }
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..split].parse().ok()?;
    Some((number, text[split..].trim_start()))
}

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, to be used and not kept.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is not a length of time such as 500ms, 2s, 5m, 1h or 7d"))
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is not a size such as 512B, 64KiB, 16MiB or 1GB"))
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a rate such as 50/s, 600/m or 1000/h")))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "span",
            "description": "A length of time: a number and ms, s, m, h or d, for example 500ms.",
            "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)$",
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "size",
            "description": "A number of bytes: a number and B, KB, MB, GB, KiB, MiB or GiB, for example 16MiB.",
            "pattern": r"^[0-9]+(\.[0-9]+)?\s*(B|KB|MB|GB|KiB|MiB|GiB)$",
        })
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "rate",
            "description": "How often: a number and /s, /m or /h, for example 50/s.",
            "pattern": r"^[1-9][0-9]{0,8}/(s|m|h)$",
        })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        assert_eq!(Span::parse("500ms"), Some(Span::millis(500)));
        assert_eq!(Span::parse("1.5s"), Some(Span::millis(1500)));
        assert_eq!(Span::parse("7d"), Some(Span::secs(7 * 86_400)));
        assert_eq!(Size::parse("16MiB"), Some(Size(16 << 20)));
        assert_eq!(Size::parse("2 KB"), Some(Size(2_000)));
    }

    #[test]
    fn quantities_without_unit_or_number_are_refused() {
        for text in ["", "5", "s", "5 parsecs", "-1s", "1e300d"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
        for text in ["", "5", "MiB", "16mb", "-1B"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn rates_have_a_number_and_a_unit() {
        assert_eq!(Rate::parse("50/s"), Some(Rate { per_second: 50.0 }));
        assert_eq!(Rate::parse("30/m"), Some(Rate { per_second: 0.5 }));
        for text in ["", "50", "0/s", "/s", "5/d", "-1/s", "1.5/s"] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }
}
