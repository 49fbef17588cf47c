//! A guest that misbehaves as its configuration says: `{"do": "loop"}`. It has all three roles; what a behaviour does not
//! decide, it passes: a filter keeps, a transform passes the message on, a router answers the names in `to`.

mod behaviour;
mod echo;
mod edit;

use std::cell::Cell;

use sluicegate_plugin::{Destination, Draft, Failure, Filter, Message, Plugin, Reason, Router, Transform, Verdict};

use behaviour::{Behaviour, Config};

struct Hostile {
    config: Config,
    calls: Cell<u64>,
}

impl Plugin for Hostile {
    type Config = Config;

    fn config_schema() -> String {
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["do"]}"#.to_owned()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        match config.behaviour {
            Behaviour::ConfigureFail => {
                return Err(vec![
                    Reason::new("first", "the first mistake"),
                    Reason::new("second", "the second mistake"),
                ]);
            }
            Behaviour::ConfigurePanic => behaviour::recognisable_panic(),
            Behaviour::ConfigureLoop => behaviour::spin_forever(),
            _ => {}
        }
        Ok(Self { config, calls: Cell::new(0) })
    }
}

impl Filter for Hostile {
    fn filter(&self, message: &Message) -> Result<Verdict, Failure> {
        self.act(message)?;
        Ok(match self.config.behaviour {
            Behaviour::Drop => Verdict::Drop(Reason::new("hostile", "dropped as configured")),
            _ => Verdict::Keep,
        })
    }
}

impl Transform for Hostile {
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> {
        self.act(message)?;
        let draft = message.draft();
        match self.config.behaviour {
            Behaviour::Drop => return Ok(Vec::new()),
            Behaviour::Huge => draft.set_body(&vec![b'x'; self.config.bytes]),
            Behaviour::Drafts => return Ok((0..self.config.count).map(|_| message.draft()).collect()),
            Behaviour::Abandon => (0..self.config.count).for_each(|_| drop(message.draft())),
            Behaviour::Count => draft.set_header("calls", self.calls.get().to_string().as_bytes()),
            Behaviour::Echo => draft.set_body(echo::describe(message, &self.config).to_string().as_bytes()),
            Behaviour::Edit => {
                edit::apply(&draft, &self.config.edits).map_err(|text| Failure::reject("edit_failed", text))?;
            }
            _ => {}
        }
        Ok(vec![draft])
    }
}

impl Router for Hostile {
    fn route(&self, message: &Message) -> Result<Vec<Destination>, Failure> {
        self.act(message)?;
        Ok(match self.config.behaviour {
            Behaviour::Drop => Vec::new(),
            _ => self.config.destinations(),
        })
    }
}

impl Hostile {
    /// What a behaviour does in every role. A frame of its own, so that backtraces have a caller to show.
    #[inline(never)]
    fn act(&self, message: &Message) -> Result<(), Failure> {
        self.calls.set(self.calls.get() + 1);
        if self.config.only_kind.as_ref().is_some_and(|kind| *kind != message.kind()) {
            return Ok(());
        }
        behaviour::act(&self.config)
    }
}

sluicegate_plugin::export!(Hostile: Filter + Transform + Router);
