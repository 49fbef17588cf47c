//! What a pipeline would do with a message: its steps run, its targets only remember.

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_engine::message::Message;
use sluicegate_store::resource::ResourceKind;

use super::{check, documents};
use crate::api::message_form::{MessageForm, shown_content};
use crate::api::{Answer, Api, ApiCode, ApiError, Segments, TextInput};
use crate::identity::{Caller, Scope};
use crate::trial::Bench;

/// A message, and another document than the one that is kept.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DryRunForm {
    message: MessageForm,
    #[serde(alias = "pipeline")]
    document: Option<Value>,
}

pub(super) async fn dry_run(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
    TextInput { form, text }: TextInput<DryRunForm>,
) -> Result<Answer<Value>, ApiError> {
    let tenant = super::tenant(&caller, Scope::Read)?;
    let id = super::id(&tenant, ResourceKind::Pipeline, &name);
    let kept = api.store.reader().resource(&id).await?;
    let document = match (&form.document, &kept) {
        (Some(document), kept) => documents::written(document, kept.as_ref().map(|kept| kept.document.as_str()))?,
        (None, Some(kept)) => kept.document.clone(),
        (None, None) => return Err(super::not_found(&id)),
    };
    let loaded = match check::resolve(&api, &tenant, ResourceKind::Pipeline, &name, &document).await? {
        Ok(loaded) => loaded,
        Err(diagnostics) => return Err(check::refusal(ResourceKind::Pipeline, &diagnostics)),
    };
    let message = Message::clone(&form.message.publication(&name, &text)?.message);
    let full = format!("{tenant}/{name}");
    let Some(pipeline) = loaded.config.pipeline(&full) else { return Err(super::not_found(&id)) };
    let trial = Bench::new(api.host.clone()).run(&loaded.config, pipeline, message).await;
    let trial =
        trial.map_err(|error| ApiError::new(ApiCode::Conflict, format!("the pipeline cannot be tried: {error:#}")))?;
    let published = trial
        .published
        .iter()
        .map(|(target, message)| json!({ "target": **target, "message": shown_content(message) }));
    let failed = trial.outcome.dead_letters.iter().map(|letter| {
        json!({ "class": letter.class.name(), "error": letter.error, "step": letter.step.as_deref(), "backtrace": letter.backtrace })
    });
    Ok(Answer(json!({
        "published": published.collect::<Vec<_>>(),
        "dropped": trial.outcome.dropped.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "deadLetters": failed.collect::<Vec<_>>(),
        "undecided": trial.outcome.undecided,
    })))
}
