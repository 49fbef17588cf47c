//! Conditions: as written, and as built.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sluicegate_plugin::{Message, Reason, pointer};

use crate::comparison::Comparison;

/// One value (`pointer`, `header` or `field`) with at least one comparison, or other conditions joined by `all`, `any` or
/// `not`.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Condition", extend("oneOf" = [
    { "required": ["all"], "maxProperties": 1 }, { "required": ["any"], "maxProperties": 1 },
    { "required": ["not"], "maxProperties": 1 },
    { "required": ["pointer"], "minProperties": 2 }, { "required": ["header"], "minProperties": 2 },
    { "required": ["field"], "minProperties": 2 },
]))]
pub struct Config {
    /// All of these must hold.
    #[schemars(length(min = 1), with = "Vec<Config>")]
    all: Option<Vec<Config>>,
    /// At least one of these must hold.
    #[schemars(length(min = 1), with = "Vec<Config>")]
    any: Option<Vec<Config>>,
    /// This must not hold.
    #[schemars(with = "Box<Config>")]
    not: Option<Box<Config>>,

    /// RFC 6901 pointer into a JSON body, such as `/customer/tier`.
    #[schemars(with = "String", regex(pattern = "^(/([^~]|~[01])*)?$"))]
    pointer: Option<String>,
    /// A header's first value, as text.
    #[schemars(with = "String", length(min = 1))]
    header: Option<String>,
    /// A field of the message.
    #[schemars(with = "Field")]
    field: Option<Field>,

    /// The value is this one.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Value")]
    equals: Option<Value>,
    /// The value is not this one, or is not there.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Value")]
    not_equals: Option<Value>,
    /// The value is one of these.
    #[schemars(with = "Vec<Value>", length(min = 1))]
    one_of: Option<Vec<Value>>,
    /// Whether the value is there; a JSON null is.
    #[schemars(with = "bool")]
    exists: Option<bool>,
    /// The value is a text that starts so.
    #[schemars(with = "String")]
    starts_with: Option<String>,
    /// The value is a text that ends so.
    #[schemars(with = "String")]
    ends_with: Option<String>,
    /// The value is an array with this element, or a text with this part.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Value")]
    contains: Option<Value>,
    /// The value is greater than this number, or than this text in alphabetical order.
    #[schemars(extend("type" = ["number", "string"]), with = "Value")]
    gt: Option<Value>,
    /// The value is greater than or equal to this number or text.
    #[schemars(extend("type" = ["number", "string"]), with = "Value")]
    gte: Option<Value>,
    /// The value is less than this number or text.
    #[schemars(extend("type" = ["number", "string"]), with = "Value")]
    lt: Option<Value>,
    /// The value is less than or equal to this number or text.
    #[schemars(extend("type" = ["number", "string"]), with = "Value")]
    lte: Option<Value>,
}

/// A field of the message.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Its identity.
    Id,
    /// Where it was made.
    Source,
    /// What happened: the CloudEvents `type`.
    Kind,
    /// What it happened to.
    Subject,
    /// Ordering key, where it is UTF-8.
    Key,
    /// Media type of the body.
    ContentType,
}

/// Tells `equals: null` from no `equals`.
fn given<'a, D: Deserializer<'a>>(input: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(input).map(Some)
}

/// A condition that can be asked.
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// A value for which every comparison must hold.
    Value(Place, Vec<Comparison>),
}

/// Where a value is.
pub enum Place {
    Pointer(String),
    Header(String),
    Field(Field),
}

impl Place {
    /// The value; fields and headers as JSON strings.
    fn value(&self, message: &Message) -> Option<Value> {
        let text = match self {
            Self::Pointer(pointer) => return message.json(pointer).and_then(|text| serde_json::from_str(&text).ok()),
            Self::Header(name) => message.header(name),
            Self::Field(Field::Id) => Some(message.id()),
            Self::Field(Field::Source) => Some(message.source()),
            Self::Field(Field::Kind) => Some(message.kind()),
            Self::Field(Field::Subject) => message.subject(),
            Self::Field(Field::Key) => message.key().and_then(|key| String::from_utf8(key).ok()),
            Self::Field(Field::ContentType) => message.content_type(),
        };
        text.map(Value::String)
    }

    fn is_text(&self) -> bool {
        !matches!(self, Self::Pointer(_))
    }
}

impl Condition {
    /// Whether it holds for a message.
    pub fn holds(&self, message: &Message) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(message)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(message)),
            Self::Not(condition) => !condition.holds(message),
            Self::Value(place, comparisons) => {
                let value = place.value(message);
                comparisons.iter().all(|comparison| comparison.holds(value.as_ref(), place.is_text()))
            }
        }
    }

    /// Builds what is written at a place of the configuration; none if there are mistakes in it.
    pub fn build(mut config: Config, at: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let mut forms = Vec::new();
        let (all, any, not) = (config.all.take(), config.any.take(), config.not.take());
        if let Some(conditions) = all {
            forms.push(Self::join(conditions, &format!("{at}/all"), mistakes).map(Self::All));
        }
        if let Some(conditions) = any {
            forms.push(Self::join(conditions, &format!("{at}/any"), mistakes).map(Self::Any));
        }
        if let Some(condition) = not {
            forms.push(Self::build(*condition, &format!("{at}/not"), mistakes).map(|built| Self::Not(Box::new(built))));
        }
        for place in [
            config.pointer.take().map(Place::Pointer),
            config.header.take().map(Place::Header),
            config.field.take().map(Place::Field),
        ] {
            forms.extend(place.map(|place| Some(Self::Value(place, Vec::new()))));
        }
        let comparisons = config.comparisons();
        let form = match (forms.pop(), forms.is_empty()) {
            (Some(form), true) => form,
            _ => {
                mistakes.add(at, "give exactly one of `pointer`, `header`, `field`, `all`, `any`, `not`");
                return None;
            }
        };
        match form {
            Some(Self::Value(place, _)) => {
                if let Place::Pointer(text) = &place {
                    pointer::parse(text).map_err(|text| mistakes.add(&format!("{at}/pointer"), &text)).ok()?;
                }
                if comparisons.is_empty() {
                    mistakes.add(at, "give a comparison, such as `equals` or `exists: true`");
                    return None;
                }
                Some(Self::Value(place, comparisons))
            }
            joined if comparisons.is_empty() => joined,
            _ => {
                mistakes.add(at, "a comparison needs a `pointer`, `header` or `field` beside it");
                None
            }
        }
    }

    fn join(conditions: Vec<Config>, at: &str, mistakes: &mut Mistakes) -> Option<Vec<Self>> {
        if conditions.is_empty() {
            mistakes.add(at, "there must be at least one condition");
            return None;
        }
        // Every one is built before any mistake ends it, so that all mistakes are seen.
        let built: Vec<_> = conditions
            .into_iter()
            .enumerate()
            .map(|(nth, config)| Self::build(config, &format!("{at}/{nth}"), mistakes))
            .collect();
        built.into_iter().collect()
    }
}

impl Config {
    fn comparisons(self) -> Vec<Comparison> {
        let comparisons = [
            self.equals.map(Comparison::Equals),
            self.not_equals.map(Comparison::NotEquals),
            self.one_of.map(Comparison::OneOf),
            self.exists.map(Comparison::Exists),
            self.starts_with.map(Comparison::StartsWith),
            self.ends_with.map(Comparison::EndsWith),
            self.contains.map(Comparison::Contains),
            self.gt.map(Comparison::Greater),
            self.gte.map(Comparison::GreaterOrEqual),
            self.lt.map(Comparison::Less),
            self.lte.map(Comparison::LessOrEqual),
        ];
        comparisons.into_iter().flatten().collect()
    }
}

/// Mistakes of a configuration, each with its place.
#[derive(Default)]
pub struct Mistakes(Vec<Reason>);

impl Mistakes {
    /// Adds one.
    pub fn add(&mut self, at: &str, text: &str) {
        self.0.push(Reason::new("invalid_config", format!("{at}: {text}")));
    }

    /// # Errors
    /// All of them, if there are any.
    pub fn none(self) -> Result<(), Vec<Reason>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}
