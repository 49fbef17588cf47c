//! The three roles: how each is asked, and its answer brought into the engine's terms.

use std::sync::Arc;

use sluicegate_engine::message::Message;
use sluicegate_engine::step::{Destination, Verdict};
use wasmtime::component::Resource;

use crate::bindings::sluicegate::plugin::outcomes;
use crate::component::Role;
use crate::draft::Draft;
use crate::failure;
use crate::instance::Instance;
use crate::limits::{MAX_DESTINATIONS, MAX_DRAFTS};
use crate::message::CurrentMessage;
use crate::meter::Stop;
use crate::plugin::Code;
use crate::state::State;

/// One role. The outer error is what stopped the guest, the inner one what it answered instead.
pub(crate) trait Ask {
    type Answer: Send;
    const ROLE: Role;

    fn ask(
        instance: &mut Instance,
        code: &Code,
    ) -> impl Future<Output = wasmtime::Result<Result<Self::Answer, outcomes::Failure>>> + Send;
}

pub(crate) struct Filtering;
pub(crate) struct Transforming;
pub(crate) struct Routing;

/// The message of the call; see [`CurrentMessage`] for why its number does not matter.
fn current_message() -> Resource<CurrentMessage> {
    Resource::new_borrow(0)
}

fn lacks(role: Role) -> wasmtime::Error {
    Stop::Breach(format!("has no role `{role}`")).into()
}

/// The role's functions in this instance, looked up on its first call and kept for further ones.
macro_rules! guest {
    ($instance:ident, $code:ident, $interface:ident, $role:expr) => {{
        if $instance.$interface.is_none() {
            let indices = $code.exports.$interface.as_ref().ok_or_else(|| lacks($role))?;
            $instance.$interface = Some(indices.load(&mut $instance.store, &$instance.instance)?);
        }
        $instance.$interface.as_ref().ok_or_else(|| lacks($role))?
    }};
}

impl Ask for Filtering {
    type Answer = Verdict;
    const ROLE: Role = Role::Filter;

    async fn ask(instance: &mut Instance, code: &Code) -> wasmtime::Result<Result<Verdict, outcomes::Failure>> {
        let guest = guest!(instance, code, filtering, Self::ROLE);
        let answer = guest.call_filter(&mut instance.store, current_message()).await?;
        Ok(answer.map(|verdict| match verdict {
            outcomes::Verdict::Keep => Verdict::Keep,
            outcomes::Verdict::Drop(reason) => Verdict::Drop(failure::reason(reason)),
        }))
    }
}

impl Ask for Transforming {
    type Answer = Vec<Message>;
    const ROLE: Role = Role::Transform;

    async fn ask(instance: &mut Instance, code: &Code) -> wasmtime::Result<Result<Vec<Message>, outcomes::Failure>> {
        let guest = guest!(instance, code, transforming, Self::ROLE);
        let answer = guest.call_transform(&mut instance.store, current_message()).await?;
        match answer {
            Ok(drafts) => Ok(Ok(messages(instance.store.data_mut(), drafts)?)),
            Err(failure) => Ok(Err(failure)),
        }
    }
}

impl Ask for Routing {
    type Answer = Vec<Destination>;
    const ROLE: Role = Role::Route;

    async fn ask(
        instance: &mut Instance,
        code: &Code,
    ) -> wasmtime::Result<Result<Vec<Destination>, outcomes::Failure>> {
        let guest = guest!(instance, code, routing, Self::ROLE);
        let answer = guest.call_route(&mut instance.store, current_message()).await?;
        match answer {
            Ok(answered) => Ok(Ok(destinations(instance.store.data_mut(), answered)?)),
            Err(failure) => Ok(Err(failure)),
        }
    }
}

/// A single draft is the message, changed, and keeps its id; several are its parts, and each gets an id of its own that
/// is the same on every try.
fn messages(state: &mut State, drafts: Vec<Resource<Draft>>) -> wasmtime::Result<Vec<Message>> {
    if drafts.len() > MAX_DRAFTS {
        return Err(Stop::Breach(format!("returned {} drafts, more than {MAX_DRAFTS}", drafts.len())).into());
    }
    let Some(original) = state.call.message.take() else { return Ok(Vec::new()) };
    let id = Arc::clone(&original);
    drop(original);
    let several = drafts.len() > 1;
    let mut messages = Vec::with_capacity(drafts.len());
    for (number, draft) in drafts.into_iter().enumerate() {
        let draft = state.take_draft(draft)?;
        if draft.call() != state.call.number {
            return Err(Stop::Breach("returned a draft of an earlier message".to_owned()).into());
        }
        messages.push(draft.into_message(several.then(|| format!("{}#{number}", id.id))));
    }
    Ok(messages)
}

fn destinations(state: &mut State, answered: Vec<outcomes::Destination>) -> wasmtime::Result<Vec<Destination>> {
    if answered.len() > MAX_DESTINATIONS {
        let text = format!("returned {} destinations, more than {MAX_DESTINATIONS}", answered.len());
        return Err(Stop::Breach(text).into());
    }
    let mut destinations = Vec::with_capacity(answered.len());
    for outcomes::Destination { target, key, delay_ms } in answered {
        state.call.output.add(target.len() + key.as_ref().map_or(0, String::len))?;
        destinations.push(Destination { target, key, delay_ms });
    }
    Ok(destinations)
}
