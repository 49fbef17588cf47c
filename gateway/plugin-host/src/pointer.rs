//! Setting and removing JSON values by RFC 6901 pointer.

use serde_json::Value;
use sluicegate_engine::message::MAX_JSON_DEPTH;

/// Replaces the value, adds it to the object whose member it names, or to an array at its end (`-` or its length).
///
/// # Errors
/// In words for the guest, and `document` is unchanged, when the pointer is none, its parent is neither object nor array,
/// or the result would be nested deeper than [`MAX_JSON_DEPTH`].
pub(crate) fn set(document: &mut Value, pointer: &str, value: Value) -> Result<(), String> {
    // Without this a guest nests its body a little deeper with every call, until the host's own recursion over it ends
    // the process.
    if pointer.matches('/').count() + depth(&value) > MAX_JSON_DEPTH {
        return Err(format!("the body would be nested deeper than {MAX_JSON_DEPTH} levels"));
    }
    let Some((parent, name)) = split(pointer)? else {
        *document = value;
        return Ok(());
    };
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) => {
            members.insert(name, value);
            Ok(())
        }
        Some(Value::Array(elements)) => {
            let at = index(&name, elements.len())?;
            if at < elements.len() {
                elements[at] = value;
            } else if at == elements.len() {
                elements.push(value);
            } else {
                return Err(format!("index {at} is past the end of the array at `{parent}`"));
            }
            Ok(())
        }
        Some(_) => Err(format!("the value at `{parent}` is neither an object nor an array")),
        None => Err(format!("there is no value at `{parent}`")),
    }
}

/// Removes the value; the elements after it move up, the members that stay keep their order.
///
/// # Errors
/// As [`set`], or when there is no such value.
pub(crate) fn remove(document: &mut Value, pointer: &str) -> Result<(), String> {
    let Some((parent, name)) = split(pointer)? else {
        return Err("the whole body cannot be removed".to_owned());
    };
    let removed = match document.pointer_mut(parent) {
        Some(Value::Object(members)) => members.shift_remove(&name).is_some(),
        Some(Value::Array(elements)) => {
            let at = index(&name, elements.len())?;
            let is_there = at < elements.len();
            if is_there {
                elements.remove(at);
            }
            is_there
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => false,
    };
    if removed { Ok(()) } else { Err(format!("there is no value at `{pointer}`")) }
}

/// Levels of nesting: 0 for a scalar, 1 for `[]`. The value came from the depth-limited parser, so recursion is safe.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Parent pointer and unescaped last name; none for the whole document.
fn split(pointer: &str) -> Result<Option<(&str, String)>, String> {
    if pointer.is_empty() {
        return Ok(None);
    }
    match pointer.rsplit_once('/') {
        Some((parent, name)) if pointer.starts_with('/') => {
            Ok(Some((parent, name.replace("~1", "/").replace("~0", "~"))))
        }
        Some(_) | None => Err(format!("`{pointer}` is not a JSON pointer: it must be empty or start with `/`")),
    }
}

fn index(name: &str, length: usize) -> Result<usize, String> {
    let no_index = || format!("`{name}` is not an array index");
    match name {
        "-" => Ok(length),
        "0" => Ok(0),
        // RFC 6901 allows no leading zero and no sign.
        _ if name.starts_with(|first: char| ('1'..='9').contains(&first)) => name.parse().map_err(|_| no_index()),
        _ => Err(no_index()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn after_set(pointer: &str, value: Value) -> Result<Value, String> {
        let mut document = json!({ "a": [1, 2], "b/c": { "d": true } });
        set(&mut document, pointer, value).map(|()| document)
    }

    #[test]
    fn sets_members_and_elements() {
        assert_eq!(after_set("", json!(1)), Ok(json!(1)));
        assert_eq!(after_set("/a/0", json!(9)), Ok(json!({ "a": [9, 2], "b/c": { "d": true } })));
        assert_eq!(after_set("/a/2", json!(3)), Ok(json!({ "a": [1, 2, 3], "b/c": { "d": true } })));
        assert_eq!(after_set("/a/-", json!(3)), Ok(json!({ "a": [1, 2, 3], "b/c": { "d": true } })));
        assert_eq!(after_set("/b~1c/e", json!(null)), Ok(json!({ "a": [1, 2], "b/c": { "d": true, "e": null } })));
    }

    #[test]
    fn refuses_what_has_no_place() {
        for pointer in ["a", "a/b", "/a/3", "/a/01", "/a/+1", "/a/x", "/none/x", "/b~1c/d/e"] {
            assert!(after_set(pointer, json!(0)).is_err(), "{pointer}");
        }
    }

    #[test]
    fn removes_what_is_there_and_nothing_else() {
        let mut document = json!({ "a": [1, 2], "b": 1, "c": 2, "d": 3 });
        assert_eq!(remove(&mut document, "/a/0"), Ok(()));
        assert_eq!(remove(&mut document, "/b"), Ok(()));
        assert_eq!(document.to_string(), r#"{"a":[2],"c":2,"d":3}"#);
        for pointer in ["", "a", "/a/1", "/a/-", "/b", "/c/d", "/none/x"] {
            assert!(remove(&mut document, pointer).is_err(), "{pointer}");
        }
    }

    #[test]
    fn nesting_cannot_be_built_up_call_by_call() {
        let mut document = json!({});
        let mut pointer = String::new();
        for _ in 0..MAX_JSON_DEPTH - 1 {
            pointer.push_str("/a");
            set(&mut document, &pointer, json!({})).expect("within the limit");
        }
        pointer.push_str("/a");
        assert!(set(&mut document, &pointer, json!({})).is_err());
        set(&mut document, &pointer, json!(1)).expect("a scalar nests no deeper");
    }
}
