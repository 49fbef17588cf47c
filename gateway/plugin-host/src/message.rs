//! The contract's `messages` interface: the message a guest reads and the drafts it makes.

use std::sync::Arc;

use sluicegate_engine::message::Message;
use wasmtime::component::Resource;

use crate::bindings::sluicegate::plugin::messages::{Host, HostDraft, HostMessage};
use crate::draft::Draft;
use crate::limits::{MAX_DRAFTS, MAX_HEADERS};
use crate::meter::Stop;
use crate::state::State;

/// The message of the call. A guest only ever borrows it, and only during the call, so the handle needs no number: it
/// always stands for the one message there is.
pub enum CurrentMessage {}

impl Host for State {}

impl State {
    /// The message, cheaply held so that the rest of the state can be used beside it.
    fn message(&self) -> wasmtime::Result<&Arc<Message>> {
        self.call.message.as_ref().ok_or_else(|| Stop::Breach("used a message outside a call".to_owned()).into())
    }

    fn draft(&mut self, draft: &Resource<Draft>) -> wasmtime::Result<&mut Draft> {
        Ok(self.table.get_mut(draft)?)
    }

    /// Takes the draft out of the guest's hands.
    pub fn take_draft(&mut self, draft: Resource<Draft>) -> wasmtime::Result<Draft> {
        self.call.drafts = self.call.drafts.saturating_sub(1);
        Ok(self.table.delete(draft)?)
    }
}

impl HostMessage for State {
    fn id(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<String> {
        Ok(self.message()?.id.clone())
    }

    fn source(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<String> {
        Ok(self.message()?.source.clone())
    }

    fn kind(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<String> {
        Ok(self.message()?.kind.clone())
    }

    fn subject(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<Option<String>> {
        Ok(self.message()?.subject.clone())
    }

    fn time(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<u64> {
        Ok(self.message()?.time_ms)
    }

    fn key(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.message()?.key.as_ref().map(|key| key.to_vec()))
    }

    fn content_type(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<Option<String>> {
        Ok(self.message()?.content_type.clone())
    }

    fn attempt(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<u32> {
        Ok(self.message()?.attempt)
    }

    fn header(&mut self, _: Resource<CurrentMessage>, name: String) -> wasmtime::Result<Option<String>> {
        let first = self.message()?.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
        Ok(first.and_then(|(_, value)| std::str::from_utf8(value).ok()).map(str::to_owned))
    }

    fn headers(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<Vec<(String, Vec<u8>)>> {
        Ok(self.message()?.headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect())
    }

    fn size(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<u64> {
        Ok(self.message()?.body.len() as u64)
    }

    fn body(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.message()?.body.bytes().to_vec())
    }

    fn json(&mut self, _: Resource<CurrentMessage>, pointer: String) -> wasmtime::Result<Option<String>> {
        let value = self.message()?.body.json().ok().and_then(|body| body.pointer(&pointer));
        Ok(value.map(ToString::to_string))
    }

    fn drop(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<()> {
        // Only borrows are ever handed out, and dropping one is no concern of the host.
        Ok(())
    }
}

impl HostDraft for State {
    fn new(&mut self, _: Resource<CurrentMessage>) -> wasmtime::Result<Resource<Draft>> {
        if self.call.drafts >= MAX_DRAFTS {
            return Err(Stop::Breach(format!("held more than {MAX_DRAFTS} drafts at once")).into());
        }
        let draft = Draft::new(Arc::clone(self.message()?), self.call.number);
        let handle = self.table.push(draft)?;
        self.call.drafts += 1;
        Ok(handle)
    }

    fn set_kind(&mut self, draft: Resource<Draft>, kind: String) -> wasmtime::Result<()> {
        self.call.output.add(kind.len())?;
        self.draft(&draft)?.set_kind(kind);
        Ok(())
    }

    fn set_subject(&mut self, draft: Resource<Draft>, subject: Option<String>) -> wasmtime::Result<()> {
        self.call.output.add(subject.as_ref().map_or(0, String::len))?;
        self.draft(&draft)?.set_subject(subject);
        Ok(())
    }

    fn set_key(&mut self, draft: Resource<Draft>, key: Option<Vec<u8>>) -> wasmtime::Result<()> {
        self.call.output.add(key.as_ref().map_or(0, Vec::len))?;
        self.draft(&draft)?.set_key(key);
        Ok(())
    }

    fn set_content_type(&mut self, draft: Resource<Draft>, content_type: Option<String>) -> wasmtime::Result<()> {
        self.call.output.add(content_type.as_ref().map_or(0, String::len))?;
        self.draft(&draft)?.set_content_type(content_type);
        Ok(())
    }

    fn set_header(&mut self, draft: Resource<Draft>, name: String, value: Vec<u8>) -> wasmtime::Result<()> {
        self.call.output.add(name.len() + value.len())?;
        let count = self.draft(&draft)?.set_header(&name, value);
        if count > MAX_HEADERS && count > self.message()?.headers.len() {
            return Err(Stop::Breach(format!("gave a draft more than {MAX_HEADERS} headers")).into());
        }
        Ok(())
    }

    fn remove_header(&mut self, draft: Resource<Draft>, name: String) -> wasmtime::Result<()> {
        self.draft(&draft)?.remove_header(&name);
        Ok(())
    }

    fn set_body(&mut self, draft: Resource<Draft>, body: Vec<u8>) -> wasmtime::Result<()> {
        self.call.output.add(body.len())?;
        self.draft(&draft)?.set_body(body);
        Ok(())
    }

    fn set_json(
        &mut self,
        draft: Resource<Draft>,
        pointer: String,
        value: String,
    ) -> wasmtime::Result<Result<(), String>> {
        self.call.output.add(pointer.len() + value.len())?;
        self.pay_for_edit(&draft)?;
        Ok(self.draft(&draft)?.set_json(&pointer, &value))
    }

    fn remove_json(&mut self, draft: Resource<Draft>, pointer: String) -> wasmtime::Result<Result<(), String>> {
        self.pay_for_edit(&draft)?;
        Ok(self.draft(&draft)?.remove_json(&pointer))
    }

    fn drop(&mut self, draft: Resource<Draft>) -> wasmtime::Result<()> {
        self.take_draft(draft)?;
        Ok(())
    }
}

impl State {
    /// The first edit of a draft's body as JSON makes a copy of it, which the host holds on the guest's behalf.
    fn pay_for_edit(&mut self, draft: &Resource<Draft>) -> wasmtime::Result<()> {
        if let Some(bytes) = self.draft(draft)?.body_to_copy() {
            self.call.output.add_copy_of_body(bytes)?;
        }
        Ok(())
    }
}
