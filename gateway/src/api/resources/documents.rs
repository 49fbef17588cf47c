//! Documents on their way in and out: secrets come in and never go out.

use serde_json::Value;
use sluicegate_store::resource::MAX_DOCUMENT_BYTES;

use crate::api::{ApiCode, ApiError};
use crate::config::{self, join};

/// What stands in the place of a secret.
const CONCEALED: &str = "***";

/// A document as it is kept: a text as it came, anything else as JSON. Where it says `***` instead of a secret, as it is
/// shown, the one of `before` stays.
///
/// # Errors
/// It is too large, neither an object nor a text, or has `***` where there was no secret before.
pub(super) fn written(document: &Value, before: Option<&str>) -> Result<String, ApiError> {
    let invalid = |text: String| ApiError::new(ApiCode::InvalidRequest, text);
    let text = match document {
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Bool(_) => format!("{document:#}"),
        Value::Null | Value::Number(_) | Value::Array(_) => {
            return Err(invalid("`document` is neither an object nor a text of YAML or JSON".to_owned()));
        }
    };
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(ApiError::new(
            ApiCode::MessageTooLarge,
            format!("the document has {} bytes; at most {MAX_DOCUMENT_BYTES}", text.len()),
        ));
    }
    if !text.contains(CONCEALED) {
        return Ok(text);
    }
    let Some(mut value) = config::document_json(&text) else { return Ok(text) };
    let before = before.and_then(config::document_json);
    let mut missing = Vec::new();
    let has_changed = restore(&mut value, before.as_ref(), "", &mut missing);
    if let [first, ..] = missing.as_slice() {
        let text = format!(
            "`{first}` is `{CONCEALED}`, which stands for a secret that is kept; there is none to keep, so write the secret itself"
        );
        return Err(invalid(text));
    }
    Ok(if has_changed { format!("{value:#}") } else { text })
}

/// A document as it is shown.
pub(super) fn shown(text: &str) -> Value {
    match config::document_json(text) {
        Some(mut value) => {
            conceal(&mut value);
            value
        }
        // What cannot be read was never accepted; it may still have secrets in it.
        None => Value::Null,
    }
}

fn conceal(value: &mut Value) {
    each_secret(value, "", &mut |_, secret| *secret = concealed(secret));
}

/// An address keeps what says where it leads.
fn concealed(secret: &Value) -> Value {
    match secret.as_str().and_then(|text| text.split_once("://")) {
        Some((scheme, rest)) => {
            let (place, query) = rest.split_once('?').map_or((rest, ""), |(place, _)| (place, "?***"));
            let place =
                place.split_once('@').map_or_else(|| place.to_owned(), |(_, host)| format!("{CONCEALED}@{host}"));
            Value::String(format!("{scheme}://{place}{query}"))
        }
        None => Value::String(CONCEALED.to_owned()),
    }
}

/// Puts the secrets of `before` where `value` has what they are shown as. Returns whether there was any.
fn restore(value: &mut Value, before: Option<&Value>, at: &str, missing: &mut Vec<String>) -> bool {
    let mut has_changed = false;
    each_secret(value, at, &mut |pointer, secret| {
        if !secret.as_str().is_some_and(|text| text.contains(CONCEALED)) {
            return;
        }
        match before.and_then(|before| before.pointer(pointer)).filter(|old| concealed(old) == *secret) {
            Some(old) => {
                *secret = old.clone();
                has_changed = true;
            }
            None => missing.push(pointer.to_owned()),
        }
    });
    has_changed
}

/// Visits every value under a key that holds secrets, with its pointer.
fn each_secret(value: &mut Value, at: &str, visit: &mut dyn FnMut(&str, &mut Value)) {
    fn leaves(value: &mut Value, at: &str, visit: &mut dyn FnMut(&str, &mut Value)) {
        match value {
            Value::Object(members) => members.iter_mut().for_each(|(key, value)| leaves(value, &join(at, key), visit)),
            Value::Array(items) => {
                items
                    .iter_mut()
                    .enumerate()
                    .for_each(|(index, value)| leaves(value, &join(at, &index.to_string()), visit));
            }
            leaf => visit(at, leaf),
        }
    }
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let here = join(at, key);
                let is_secret = config::secret_keys().iter().any(|secret| secret == key) || key == "signingSecret";
                if is_secret { leaves(value, &here, visit) } else { each_secret(value, &here, visit) }
            }
        }
        Value::Array(items) => {
            items
                .iter_mut()
                .enumerate()
                .for_each(|(index, value)| each_secret(value, &join(at, &index.to_string()), visit));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DOCUMENT: &str = "
targets:
  hook: { http: { url: 'https://me:hunter22@example.org/hook?token=hunter22', signing_secret: hunter22, headers: { x-key: hunter22 } } }
";

    #[test]
    fn secrets_are_never_shown_and_stay_when_they_come_back_as_they_were_shown() {
        let mut shown = shown(DOCUMENT);
        assert!(!shown.to_string().contains("hunter22"), "{shown}");
        assert_eq!(shown.pointer("/targets/hook/http/url"), Some(&json!("https://***@example.org/hook?***")));
        shown["targets"]["hook"]["http"]["timeout"] = json!("3s");
        let kept: Value = serde_json::from_str(&written(&shown, Some(DOCUMENT)).expect("restored")).expect("JSON");
        assert_eq!(kept.pointer("/targets/hook/http/signing_secret"), Some(&json!("hunter22")));
        assert_eq!(
            kept.pointer("/targets/hook/http/url"),
            Some(&json!("https://me:hunter22@example.org/hook?token=hunter22"))
        );
        assert_eq!(kept.pointer("/targets/hook/http/timeout"), Some(&json!("3s")));
    }

    #[test]
    fn three_asterisks_without_a_secret_before_are_refused() {
        let refused = written(&shown(DOCUMENT), None).expect_err("refused");
        assert_eq!(refused.code(), ApiCode::InvalidRequest);
        let elsewhere = json!({ "targets": { "hook": { "http": { "url": "https://***@evil.example/hook?***" } } } });
        assert!(written(&elsewhere, Some(DOCUMENT)).is_err(), "a secret never goes to another address");
    }

    #[test]
    fn a_text_stays_as_it_came() {
        assert_eq!(written(&json!(DOCUMENT), None).expect("kept"), DOCUMENT);
        assert!(written(&json!([1]), None).is_err());
        assert!(written(&json!("x".repeat(MAX_DOCUMENT_BYTES + 1)), None).is_err());
    }
}
