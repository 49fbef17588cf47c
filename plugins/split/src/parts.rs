//! Bodies of the parts, as JSON texts.

use serde_json::Value;
use serde_json::value::RawValue;
use sluicegate_plugin::{Failure, Message, pointer};

/// One body for each element; none if there is no array at the pointer.
pub fn bodies(
    message: &Message,
    pointer: &str,
    into: Option<&str>,
    max_parts: usize,
) -> Result<Option<Vec<String>>, Failure> {
    let Some(array) = message.json(pointer).filter(|text| text.starts_with('[')) else {
        return Ok(None);
    };
    // Elements are copied as text: neither parsed into values nor printed again.
    let elements: Vec<&RawValue> =
        serde_json::from_str(&array).map_err(|error| Failure::reject("invalid_json", error.to_string()))?;
    if elements.len() > max_parts {
        return Err(Failure::reject(
            "too_many_parts",
            format!("{} elements, at most {max_parts} are allowed", elements.len()),
        ));
    }
    match into {
        None => Ok(Some(elements.into_iter().map(|element| element.get().to_owned()).collect())),
        Some(name) => within_parent(message, pointer, name, elements).map(Some),
    }
}

/// The body once for each element, which takes the array's place under another name.
fn within_parent(
    message: &Message,
    pointer: &str,
    name: &str,
    elements: Vec<&RawValue>,
) -> Result<Vec<String>, Failure> {
    let mut body: Value = message.body_as()?;
    let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    let array = pointer::parse(pointer).ok().and_then(|mut names| names.pop()).unwrap_or_default();
    let Some(Value::Object(siblings)) = body.pointer_mut(parent) else {
        return Err(Failure::reject(
            "no_object",
            format!("the array at `{pointer}` is in no object, so `into` has no place"),
        ));
    };
    // The array's place is kept, and another member of the name gives way: the element was asked for under it.
    *siblings = std::mem::take(siblings)
        .into_iter()
        .filter(|(member, _)| *member == array || member != name)
        .map(|(member, value)| if member == array { (name.to_owned(), Value::Null) } else { (member, value) })
        .collect();

    let place = format!("{parent}{}", pointer::join(&[name]));
    let mut bodies = Vec::with_capacity(elements.len());
    for element in elements {
        let element =
            serde_json::from_str(element.get()).map_err(|error| Failure::reject("invalid_json", error.to_string()))?;
        if let Some(slot) = body.pointer_mut(&place) {
            *slot = element;
        }
        bodies.push(body.to_string());
    }
    Ok(bodies)
}
