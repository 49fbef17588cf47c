//! Setting and removing JSON values by RFC 6901 pointer, as the gateway does it for a component.

use serde_json::Value;

use crate::pointer;

/// Replaces the value, adds it to the object whose member it names, or to an array at its end.
pub(super) fn set(document: &mut Value, pointer: &str, value: Value) -> Result<(), String> {
    let Some((parent, name)) = split(pointer)? else {
        *document = value;
        return Ok(());
    };
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) => {
            members.insert(name, value);
            Ok(())
        }
        Some(Value::Array(elements)) => match index(&name, elements.len())? {
            at if at < elements.len() => {
                elements[at] = value;
                Ok(())
            }
            at if at == elements.len() => {
                elements.push(value);
                Ok(())
            }
            at => Err(format!("index {at} is past the end of the array at `{parent}`")),
        },
        Some(_) => Err(format!("the value at `{parent}` is neither an object nor an array")),
        None => Err(format!("there is no value at `{parent}`")),
    }
}

/// Removes the value; the elements after it move up.
pub(super) fn remove(document: &mut Value, pointer: &str) -> Result<(), String> {
    let Some((parent, name)) = split(pointer)? else {
        return Err("the whole body cannot be removed".to_owned());
    };
    let removed = match document.pointer_mut(parent) {
        // Keeps the order of the members that stay.
        Some(Value::Object(members)) => members.shift_remove(&name).is_some(),
        Some(Value::Array(elements)) => match index(&name, elements.len())? {
            at if at < elements.len() => {
                elements.remove(at);
                true
            }
            _ => false,
        },
        _ => false,
    };
    if removed { Ok(()) } else { Err(format!("there is no value at `{pointer}`")) }
}

/// Parent pointer and unescaped last name; none for the whole document.
fn split(pointer: &str) -> Result<Option<(&str, String)>, String> {
    let name = pointer::parse(pointer)?.pop();
    Ok(name.and_then(|name| Some((pointer.rsplit_once('/')?.0, name))))
}

fn index(name: &str, length: usize) -> Result<usize, String> {
    match name {
        "-" => Ok(length),
        "0" => Ok(0),
        _ if name.starts_with(|first: char| first.is_ascii_digit() && first != '0') => {
            name.parse().map_err(|_| format!("`{name}` is not an array index"))
        }
        _ => Err(format!("`{name}` is not an array index")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{remove, set};

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
        for pointer in ["a", "/a/3", "/a/01", "/a/x", "/none/x", "/b~1c/d/e"] {
            assert!(after_set(pointer, json!(0)).is_err(), "{pointer}");
        }
    }

    #[test]
    fn removes_what_is_there_and_nothing_else() {
        let mut document = json!({ "a": [1, 2], "b": 1, "c": 2 });
        assert_eq!(remove(&mut document, "/a/0"), Ok(()));
        assert_eq!(remove(&mut document, "/b"), Ok(()));
        assert_eq!(document, json!({ "a": [2], "c": 2 }));
        for pointer in ["", "/a/1", "/a/-", "/b", "/c/d"] {
            assert!(remove(&mut document, pointer).is_err(), "{pointer}");
        }
    }
}
