//! **redact** – masks, hashes or removes values of a JSON body, and headers:
//! `{ plugin: redact, config: { mask: [/customer/email], hash: [/customer/id], remove: ['/items/*/card'] } }`.
//!
//! Pointers are RFC 6901; a name `*` stands for every element of an array or every member of an object. What a pointer
//! does not find is left alone. `mask` puts `mask_with` (default `***`) in the value's place; `hash` the SHA-256, in
//! hexadecimal, of the `salt` and the value – a text as its UTF-8 bytes, anything else as its JSON text – so that equal
//! values stay equal; `remove` takes the value away. `headers` has the same three lists of header names.
//!
//! A message with a body that is not JSON is rejected, since what it holds cannot be seen; an empty body passes.

mod digest;
mod place;

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Draft, Failure, Message, Plugin, Reason, Transform, schema_of};

use digest::Salted;
use place::Place;

/// Masks, hashes or removes values of a JSON body, and headers.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "redact")]
pub struct Config {
    /// Values to replace by `mask_with`: RFC 6901 pointers, `*` for every element or member.
    #[schemars(inner(regex(pattern = "^(/([^~]|~[01])*)?$")))]
    mask: Vec<String>,
    /// Values to replace by their SHA-256, in hexadecimal.
    #[schemars(inner(regex(pattern = "^(/([^~]|~[01])*)?$")))]
    hash: Vec<String>,
    /// Values to remove.
    #[schemars(inner(regex(pattern = "^(/([^~]|~[01])*)?$")))]
    remove: Vec<String>,
    /// Headers to treat alike.
    headers: Headers,
    /// What a masked value becomes.
    #[schemars(extend("default" = "***"))]
    mask_with: Option<String>,
    /// Goes before the value into every hash, so that a list of likely values is of no use without it.
    salt: String,
}

/// Names of headers, compared without regard to ASCII case.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// Headers to replace by `mask_with`.
    mask: Vec<String>,
    /// Headers to replace by the SHA-256 of their first value, in hexadecimal.
    hash: Vec<String>,
    /// Headers to remove.
    remove: Vec<String>,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Mask,
    Hash,
    Remove,
}

/// The configured plugin.
pub struct Redact {
    body: Vec<(Place, Action)>,
    headers: Vec<(String, Action)>,
    mask_with: String,
    salted: Salted,
}

impl Plugin for Redact {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        let mut mistakes = Vec::new();
        let mut mistake = |text: String| mistakes.push(Reason::new("invalid_config", text));

        let mut body: Vec<(Place, Action)> = Vec::new();
        let written = [
            ("mask", Action::Mask, config.mask),
            ("hash", Action::Hash, config.hash),
            ("remove", Action::Remove, config.remove),
        ];
        for (list, action, pointers) in written {
            for (at, pointer) in pointers.iter().enumerate() {
                match Place::parse(pointer) {
                    Err(text) => mistake(format!("/{list}/{at}: {text}")),
                    Ok(place) => {
                        // One of the two would be lost, or would find what the other left.
                        if let Some((other, _)) = body.iter().find(|(other, _)| other.overlaps(&place)) {
                            mistake(format!(
                                "/{list}/{at}: `{place}` and `{other}` can mean the same value, or one within the other"
                            ));
                        }
                        body.push((place, action));
                    }
                }
            }
        }

        let mut headers: Vec<(String, Action)> = Vec::new();
        let Headers { mask, hash, remove } = config.headers;
        for (list, action, names) in
            [("mask", Action::Mask, mask), ("hash", Action::Hash, hash), ("remove", Action::Remove, remove)]
        {
            for (at, name) in names.into_iter().enumerate() {
                if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name)) {
                    mistake(format!("/headers/{list}/{at}: `{name}` is given twice"));
                }
                headers.push((name, action));
            }
        }
        if body.is_empty() && headers.is_empty() && mistakes.is_empty() {
            mistakes.push(Reason::new(
                "invalid_config",
                "config: nothing to redact: give `mask`, `hash`, `remove` or `headers`",
            ));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            body,
            headers,
            mask_with: config.mask_with.unwrap_or_else(|| "***".to_owned()),
            salted: Salted::new(&config.salt),
        })
    }
}

impl Transform for Redact {
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> {
        let draft = message.draft();
        if message.size() > 0 {
            self.redact_body(message, &draft)?;
        }
        self.redact_headers(message, &draft);
        Ok(vec![draft])
    }
}

impl Redact {
    fn redact_body(&self, message: &Message, draft: &Draft) -> Result<(), Failure> {
        let mut removed = Vec::new();
        let mut found_any = false;
        for (place, action) in &self.body {
            for pointer in place.find(message) {
                found_any = true;
                match action {
                    Action::Mask => draft.set_value(&pointer, &self.mask_with)?,
                    Action::Hash => draft.set_value(&pointer, &self.salted.hash_json(message, &pointer)?)?,
                    Action::Remove => removed.push(pointer),
                }
            }
        }
        // Nothing found may mean that nothing can be found; asking is dearer than finding, so it comes last.
        if !found_any && !self.body.is_empty() && message.json("").is_none() {
            return Err(Failure::reject("not_json", "the body is not JSON, so what it holds cannot be redacted"));
        }
        // Last, and from the end: an element's removal moves those behind it.
        removed.sort_by(|one, other| place::order(other, one));
        for pointer in removed {
            draft.remove_json(&pointer).map_err(|text| Failure::reject("not_removed", text))?;
        }
        Ok(())
    }

    fn redact_headers(&self, message: &Message, draft: &Draft) {
        if self.headers.is_empty() {
            return;
        }
        let there = message.headers();
        for (name, action) in &self.headers {
            let Some((_, value)) = there.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)) else { continue };
            match action {
                Action::Mask => draft.set_header(name, self.mask_with.as_bytes()),
                Action::Hash => draft.set_header(name, self.salted.hash(value).as_bytes()),
                Action::Remove => draft.remove_header(name),
            }
        }
    }
}

sluicegate_plugin::export!(Redact: Transform);

#[cfg(test)]
mod tests;
