//! From the JSON text of `configure` to the author's type.

use serde::de::DeserializeOwned;

use crate::Reason;

/// JSON Schema of a configuration type that derives `schemars::JsonSchema`.
#[cfg(feature = "schemars")]
#[must_use]
pub fn schema_of<Config: schemars::JsonSchema>() -> String {
    // "Not given" is `None` to Rust, but null is no value that a form or an editor should fill in.
    let no_null_default = |schema: &mut schemars::Schema| {
        if schema.get("default").is_some_and(serde_json::Value::is_null) {
            schema.remove("default");
        }
    };
    let settings = schemars::generate::SchemaSettings::draft2020_12()
        .with_transform(schemars::transform::RecursiveTransform(no_null_default));
    settings.into_generator().into_root_schema_for::<Config>().to_value().to_string()
}

/// Reads a configuration; the mistake names the place as a JSON pointer.
///
/// An empty text and `null` both mean "no configuration given", and are read as `{}` for a type that has no use for null.
pub(crate) fn parse<Config: DeserializeOwned>(text: &str) -> Result<Config, Reason> {
    let text = if matches!(text.trim(), "" | "null") { "{}" } else { text };
    let mut json = serde_json::Deserializer::from_str(text);
    let config = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = pointer(error.path());
        Reason::new("invalid_config", format!("{place}: {}", error.inner()))
    })?;
    json.end().map_err(|error| Reason::new("invalid_config", error.to_string()))?;
    Ok(config)
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            // A variant is no level of its own in JSON unless serde says so, and an unknown segment names nothing.
            Segment::Enum { variant } => pointer.push_str(&format!("/{variant}")),
            Segment::Unknown => {}
        }
    }
    if pointer.is_empty() { "config".to_owned() } else { pointer }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Rules {
        #[serde(default)]
        limits: Vec<u8>,
    }

    #[cfg(feature = "schemars")]
    #[test]
    fn a_schema_fills_in_no_nulls() {
        #[derive(schemars::JsonSchema, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[derive(Default)]
        #[allow(dead_code, reason = "only its schema is of interest")]
        struct Optional {
            name: Option<String>,
            count: u8,
        }
        let schema: serde_json::Value = serde_json::from_str(&super::schema_of::<Optional>()).expect("JSON");
        assert_eq!(schema["properties"]["name"].get("default"), None);
        assert_eq!(schema["properties"]["count"]["default"], 0);
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn nothing_given_is_an_empty_object() {
        assert_eq!(parse::<Rules>("").expect("empty"), Rules { limits: vec![] });
        assert_eq!(parse::<Rules>(" null ").expect("null"), Rules { limits: vec![] });
    }

    #[test]
    fn a_mistake_names_its_place() {
        let reason = parse::<Rules>(r#"{"limits":[1,"x"]}"#).expect_err("a string is no number");
        assert_eq!(reason.code, "invalid_config");
        assert!(reason.text.starts_with("/limits/1: invalid type: string \"x\""), "{}", reason.text);
    }

    #[test]
    fn unknown_keys_and_trailing_text_are_mistakes() {
        assert!(parse::<Rules>(r#"{"limit":[]}"#).is_err());
        assert!(parse::<Rules>("{} {}").is_err());
    }
}
