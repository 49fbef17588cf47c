//! What clients send.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sluicegate_engine::failure::FailureClass;
use sluicegate_engine::message::Headers;
use sluicegate_store::dead_letter::{Edit, Filter};

use crate::api::{ApiCode, ApiError};

/// Who made a change, when he does not say.
pub(super) const DEFAULT_BY: &str = "api";
/// Longest name of who made a change, in characters.
const MAX_BY_CHARS: usize = 200;

/// Which letters: those that match everything that is given.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct FilterForm {
    pub pipeline: Option<String>,
    pub class: Option<String>,
    pub step: Option<String>,
    pub target: Option<String>,
    pub plugin_digest: Option<String>,
    pub message_id: Option<String>,
    pub cause: Option<String>,
    /// RFC 3339.
    pub since: Option<String>,
    /// RFC 3339.
    pub until: Option<String>,
    pub text: Option<String>,
}

impl FilterForm {
    pub fn filter(self) -> Result<Filter, ApiError> {
        let class = self.class.map(|name| {
            let known = || FailureClass::ALL.map(FailureClass::name).join(", ");
            FailureClass::from_name(&name)
                .ok_or_else(|| invalid(format!("`{name}` is not a class of failures; there are {}", known())))
        });
        let time = |name: &str, text: Option<String>| {
            let time = text.map(|text| {
                text.parse::<Timestamp>()
                    .map_err(|error| invalid(format!("`{name}` is no RFC 3339 time: {error}")))
                    // Nothing fails before 1970.
                    .map(|time| u64::try_from(time.as_millisecond()).unwrap_or(0))
            });
            time.transpose()
        };
        Ok(Filter {
            pipeline: self.pipeline,
            class: class.transpose()?,
            step: self.step,
            target: self.target,
            plugin_digest: self.plugin_digest,
            message_id: self.message_id,
            cause: self.cause,
            since_ms: time("since", self.since)?,
            until_ms: time("until", self.until)?,
            text: self.text,
        })
    }
}

/// How a message is to be changed: one of the three bodies, headers, or both; `undo` takes an edit back.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct EditForm {
    body: Option<Value>,
    body_text: Option<String>,
    body_base64: Option<String>,
    headers: Option<Vec<HeaderForm>>,
    undo: bool,
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderForm {
    name: String,
    value: String,
}

impl EditForm {
    pub fn read(self) -> Result<(Option<Edit>, String), ApiError> {
        let by = by(self.by)?;
        let decoded = self.body_base64.map(|text| {
            BASE64.decode(text).map(Bytes::from).map_err(|error| invalid(format!("`bodyBase64` is no base64: {error}")))
        });
        let bodies = [
            self.body.map(|body| Bytes::from(body.to_string())),
            self.body_text.map(Bytes::from),
            decoded.transpose()?,
        ];
        let mut bodies = bodies.into_iter().flatten();
        let (body, second) = (bodies.next(), bodies.next());
        if second.is_some() {
            return Err(invalid("give one of `body`, `bodyText` and `bodyBase64`".to_owned()));
        }
        let headers = self
            .headers
            .map(|headers| headers.into_iter().map(|header| (header.name, header.value)).collect::<Headers>());
        let edit = Edit { body, headers };
        match (self.undo, edit == Edit::default()) {
            (true, true) => Ok((None, by)),
            (false, false) => Ok((Some(edit), by)),
            (true, false) => Err(invalid("`undo` takes the edit back: give nothing else with it".to_owned())),
            (false, true) => {
                Err(invalid("give a `body` (or `bodyText`, `bodyBase64`), `headers`, or `\"undo\": true`".to_owned()))
            }
        }
    }
}

/// Who it is, as they say.
pub(super) fn by(name: Option<String>) -> Result<String, ApiError> {
    let name = name.unwrap_or_else(|| DEFAULT_BY.to_owned());
    if name.chars().count() > MAX_BY_CHARS {
        return Err(invalid(format!("`by` is longer than {MAX_BY_CHARS} characters")));
    }
    Ok(name)
}

pub(super) fn invalid(text: String) -> ApiError {
    ApiError::new(ApiCode::InvalidRequest, text)
}
