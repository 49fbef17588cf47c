//! **jq** – a jq program as a step: `{ plugin: jq, config: { program: '.total > 100' } }`.
//!
//! The program sees the body as `.` and the rest of the message as `$message`: `id`, `source`, `kind`, `subject`, `time`
//! (milliseconds since the Unix epoch), `key`, `content_type`, `attempt` and `headers` (an object of the first value of
//! each name; like the key, only where it is UTF-8). It is compiled once, when the pipeline is built.
//!
//! - As a **filter** the message is kept if any output is true as jq sees it, that is neither `false` nor `null`; the
//!   same messages would pass jq's own `select`. No output at all drops.
//! - As a **transform** each output becomes a message with that body, in order; headers and the rest are shared.
//! - As a **router** each output must be a string, the name of a target; no output is unroutable.
//!
//! An error of the program rejects the message with jq's own text, also if it comes after some outputs, and so does a
//! body that is not JSON. The dialect is [jaq](https://github.com/01mf02/jaq)'s: numbers keep all their digits; outputs
//! that JSON cannot express (`nan`, `infinite`, byte strings) are errors. `debug` writes to the gateway's log, `now` is
//! the message's own time, `env` is empty, `input` and modules do not exist, `halt` is an error.

mod document;
mod program;

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{
    Destination, Draft, Failure, Filter, Message, Plugin, Reason, Router, Transform, Verdict, schema_of,
};

use program::Program;

/// Runs a jq program on every message.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "jq")]
pub struct Config {
    /// The jq program, such as `.customer.tier == "gold"`. The body is `.`, the rest of the message `$message`.
    #[schemars(length(min = 1, max = 65_536))]
    program: String,
}

/// A compiled program.
pub struct Jq(Program);

impl Plugin for Jq {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        program::log_to_gateway();
        Program::compile(&config.program).map(Self)
    }
}

impl Filter for Jq {
    fn filter(&self, message: &Message) -> Result<Verdict, Failure> {
        let mut outputs = 0;
        let mut kept = false;
        self.0.run(message, |output| {
            outputs += 1;
            kept |= document::is_true(&output);
            Ok(())
        })?;
        Ok(match (kept, outputs) {
            (true, _) => Verdict::Keep,
            (false, 0) => Verdict::Drop(Reason::new("no_output", "the program had no output")),
            (false, _) => Verdict::Drop(Reason::new("not_true", "no output of the program was true")),
        })
    }
}

impl Transform for Jq {
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> {
        let is_json = message.content_type().is_some_and(|media_type| media_type.contains("json"));
        let mut drafts = Vec::new();
        self.0.run(message, |output| {
            let draft = message.draft();
            draft.set_body(&document::write(&output)?);
            if !is_json {
                draft.set_content_type(Some("application/json"));
            }
            drafts.push(draft);
            Ok(())
        })?;
        Ok(drafts)
    }
}

impl Router for Jq {
    fn route(&self, message: &Message) -> Result<Vec<Destination>, Failure> {
        let mut destinations = Vec::new();
        self.0.run(message, |output| {
            destinations.push(Destination::to(document::target(&output)?));
            Ok(())
        })?;
        Ok(destinations)
    }
}

sluicegate_plugin::export!(Jq: Filter + Transform + Router);

#[cfg(test)]
mod tests;
