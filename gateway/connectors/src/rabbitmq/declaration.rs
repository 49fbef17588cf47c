//! Exchanges, queues and bindings as they are written in the configuration.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is done about exchange, queue and bindings at every connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Declare {
    /// `true`: declared, idempotently; created where missing.
    #[default]
    Create,
    /// `passive`: only checked to exist, taken with whatever properties they have; bindings are left alone.
    Passive,
    /// `false`: nothing.
    Never,
}

/// Properties of a declared queue.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueOptions {
    /// Survives a restart of the broker. Default true.
    #[serde(default = "yes")]
    pub durable: bool,
    /// Used by this connection alone and deleted with it. Default false.
    #[serde(default)]
    pub exclusive: bool,
    /// Deleted, with its messages, when the last consumer is gone. Default false.
    #[serde(default)]
    pub auto_delete: bool,
    /// Further arguments, such as `x-queue-type: quorum` or `x-max-length: 100000`.
    #[serde(default)]
    pub arguments: BTreeMap<String, Value>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { durable: true, exclusive: false, auto_delete: false, arguments: BTreeMap::new() }
    }
}

/// An exchange: only its name, if it exists already and shall not be declared, or a name with properties.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeConfig {
    /// Its name.
    pub name: String,
    /// How it is declared; `None` if only the name was given.
    pub properties: Option<ExchangeProperties>,
}

/// Properties of a declared exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeProperties {
    /// `topic`, `direct`, `fanout`, `headers`, or a plugin's kind such as `x-delayed-message`.
    pub kind: String,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Deleted when the last binding is gone.
    pub auto_delete: bool,
    /// Takes messages of other exchanges only.
    pub internal: bool,
    /// Further arguments, such as `x-delayed-type: topic` or `alternate-exchange: …`.
    pub arguments: BTreeMap<String, Value>,
}

impl Default for ExchangeProperties {
    fn default() -> Self {
        Self {
            kind: "topic".to_owned(),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: BTreeMap::new(),
        }
    }
}

/// What makes an exchange pass messages to the queue: only a pattern, or a pattern with arguments.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BindingConfig {
    /// Routing key or pattern: `*` stands for one word, `#` for any number of them.
    pub pattern: String,
    /// Another exchange than the source's own; it must exist.
    pub exchange: Option<String>,
    /// For headers exchanges: `x-match` (all, any) and the headers to match.
    pub arguments: BTreeMap<String, Value>,
}

fn yes() -> bool {
    true
}

/// Arguments of a declaration in AMQP's types. Whole numbers become 64 bit integers: RabbitMQ compares integers by
/// value, whatever their size on the wire.
pub(super) fn arguments(arguments: &BTreeMap<String, Value>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        if let Ok(name) = ShortString::try_new(name.as_str()) {
            table.insert(name, amqp_value(value));
        }
    }
    table
}

fn amqp_value(value: &Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| AMQPValue::Double(number.as_f64().unwrap_or(f64::NAN)), AMQPValue::LongLongInt),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(values) => {
            AMQPValue::FieldArray(FieldArray::from(values.iter().map(amqp_value).collect::<Vec<_>>()))
        }
        Value::Object(fields) => {
            AMQPValue::FieldTable(arguments(&fields.iter().map(|(k, v)| (k.clone(), v.clone())).collect()))
        }
    }
}

impl<'de> Deserialize<'de> for Declare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Declare;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or passive")
            }
            fn visit_bool<E: serde::de::Error>(self, declare: bool) -> Result<Declare, E> {
                Ok(if declare { Declare::Create } else { Declare::Never })
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Declare, E> {
                match word {
                    "true" => Ok(Declare::Create),
                    "passive" => Ok(Declare::Passive),
                    "false" => Ok(Declare::Never),
                    _ => Err(E::custom(format!("`{word}` is none of true, false, passive"))),
                }
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl JsonSchema for Declare {
    fn schema_name() -> Cow<'static, str> {
        "Declare".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "enum": [true, false, "passive"],
            "default": true,
            "description": "true: declared at every connect; passive: only checked to exist; false: neither.",
        })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExchangeFields {
    /// Its name.
    name: String,
    /// topic (default), direct, fanout, headers, or a plugin's kind such as x-delayed-message.
    #[serde(default)]
    kind: Option<String>,
    /// Survives a restart of the broker. Default true.
    #[serde(default = "yes")]
    durable: bool,
    /// Deleted when the last binding is gone. Default false.
    #[serde(default)]
    auto_delete: bool,
    /// Takes messages of other exchanges only. Default false.
    #[serde(default)]
    internal: bool,
    /// Further arguments, such as `x-delayed-type: topic`.
    #[serde(default)]
    arguments: BTreeMap<String, Value>,
}

impl<'de> Deserialize<'de> for ExchangeConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrFields;
        impl<'de> Visitor<'de> for NameOrFields {
            type Value = ExchangeConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an exchange's name, or its name and properties")
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<ExchangeConfig, E> {
                Ok(ExchangeConfig { name: name.to_owned(), properties: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ExchangeConfig, A::Error> {
                let fields = ExchangeFields::deserialize(MapAccessDeserializer::new(map))?;
                let properties = ExchangeProperties {
                    kind: fields.kind.unwrap_or_else(|| "topic".to_owned()),
                    durable: fields.durable,
                    auto_delete: fields.auto_delete,
                    internal: fields.internal,
                    arguments: fields.arguments,
                };
                Ok(ExchangeConfig { name: fields.name, properties: Some(properties) })
            }
        }
        deserializer.deserialize_any(NameOrFields)
    }
}

impl JsonSchema for ExchangeConfig {
    fn schema_name() -> Cow<'static, str> {
        "RabbitmqExchange".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = ExchangeFields::json_schema(generator);
        json_schema!({ "anyOf": [{ "type": "string", "description": "Name of an exchange that exists." }, fields] })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BindingFields {
    /// Routing key or pattern: `*` stands for one word, `#` for any number of them.
    #[serde(default)]
    pattern: String,
    /// Another exchange than the source's own; it must exist.
    #[serde(default)]
    exchange: Option<String>,
    /// For headers exchanges: `x-match` (all, any) and the headers to match.
    #[serde(default)]
    arguments: BTreeMap<String, Value>,
}

impl<'de> Deserialize<'de> for BindingConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PatternOrFields;
        impl<'de> Visitor<'de> for PatternOrFields {
            type Value = BindingConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a routing pattern, or a pattern with arguments")
            }
            fn visit_str<E: serde::de::Error>(self, pattern: &str) -> Result<BindingConfig, E> {
                Ok(BindingConfig { pattern: pattern.to_owned(), ..BindingConfig::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BindingConfig, A::Error> {
                let BindingFields { pattern, exchange, arguments } =
                    BindingFields::deserialize(MapAccessDeserializer::new(map))?;
                if pattern.is_empty() && arguments.is_empty() && exchange.is_none() {
                    return Err(A::Error::custom("a binding needs a `pattern`, `arguments` or an `exchange`"));
                }
                Ok(BindingConfig { pattern, exchange, arguments })
            }
        }
        deserializer.deserialize_any(PatternOrFields)
    }
}

impl JsonSchema for BindingConfig {
    fn schema_name() -> Cow<'static, str> {
        "RabbitmqBinding".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = BindingFields::json_schema(generator);
        json_schema!({ "anyOf": [{ "type": "string", "description": "A routing key or pattern." }, fields] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_alone_means_do_not_declare() {
        let named: ExchangeConfig = read(json!("orders")).expect("a name");
        assert_eq!(named, ExchangeConfig { name: "orders".to_owned(), properties: None });
        let full: ExchangeConfig = read(json!({ "name": "orders", "kind": "headers" })).expect("fields");
        let properties = full.properties.expect("properties");
        assert_eq!((properties.kind.as_str(), properties.durable), ("headers", true));
    }

    #[test]
    fn unknown_keys_and_words_are_refused() {
        let error = read::<ExchangeConfig>(json!({ "name": "orders", "typ": "topic" })).expect_err("a slip");
        assert!(error.contains("typ") && error.contains("kind"), "{error}");
        assert!(read::<BindingConfig>(json!({ "patern": "a.#" })).is_err());
        assert!(read::<BindingConfig>(json!({})).is_err());
        assert!(read::<Declare>(json!("maybe")).is_err());
        assert!(read::<Declare>(json!(1)).is_err());
    }

    #[test]
    fn declare_takes_booleans_and_a_word() {
        assert_eq!(read(json!(true)), Ok(Declare::Create));
        assert_eq!(read(json!(false)), Ok(Declare::Never));
        assert_eq!(read(json!("passive")), Ok(Declare::Passive));
    }

    #[test]
    fn arguments_keep_their_types() {
        let written: BTreeMap<String, Value> = read(
            json!({ "x-max-length": 10, "x-queue-type": "quorum", "flag": true, "list": ["a", null], "half": 0.5 }),
        )
        .expect("arguments");
        let table = arguments(&written);
        assert_eq!(table.inner()["x-max-length"], AMQPValue::LongLongInt(10));
        assert_eq!(table.inner()["x-queue-type"], AMQPValue::LongString("quorum".into()));
        assert_eq!(table.inner()["flag"], AMQPValue::Boolean(true));
        assert_eq!(table.inner()["half"], AMQPValue::Double(0.5));
        let list = FieldArray::from(vec![AMQPValue::LongString("a".into()), AMQPValue::Void]);
        assert_eq!(table.inner()["list"], AMQPValue::FieldArray(list));
    }
}
