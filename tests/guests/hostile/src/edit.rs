//! Every function of a draft, by configuration: `{"edits": [{"set_kind": "b"}, {"set_json": ["/a", "1"]}]}`.

use serde::Deserialize;
use sluicegate_plugin::Draft;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    SetKind(String),
    SetSubject(Option<String>),
    SetKey(Option<Vec<u8>>),
    SetContentType(Option<String>),
    SetHeader(String, Vec<u8>),
    RemoveHeader(String),
    SetBody(Vec<u8>),
    SetJson(String, String),
    RemoveJson(String),
}

pub fn apply(draft: &Draft, edits: &[Edit]) -> Result<(), String> {
    for edit in edits {
        match edit {
            Edit::SetKind(kind) => draft.set_kind(kind),
            Edit::SetSubject(subject) => draft.set_subject(subject.as_deref()),
            Edit::SetKey(key) => draft.set_key(key.as_deref()),
            Edit::SetContentType(content_type) => draft.set_content_type(content_type.as_deref()),
            Edit::SetHeader(name, value) => draft.set_header(name, value),
            Edit::RemoveHeader(name) => draft.remove_header(name),
            Edit::SetBody(body) => draft.set_body(body),
            Edit::SetJson(pointer, value) => draft.set_json(pointer, value)?,
            Edit::RemoveJson(pointer) => draft.remove_json(pointer)?,
        }
    }
    Ok(())
}
