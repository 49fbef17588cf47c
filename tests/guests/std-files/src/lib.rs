//! Reads a file with the standard library and rejects with what it got. The C library behind it closes files and sockets
//! alike, so that the component imports sockets as well and is to be refused when it is loaded.

use serde::Deserialize;
use sluicegate_plugin::{Failure, Filter, Message, Plugin, Reason, Verdict};

#[derive(Deserialize)]
struct Config {}

struct StdFiles;

impl Plugin for StdFiles {
    type Config = Config;

    fn config_schema() -> String {
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false}"#
            .to_owned()
    }

    fn configure(Config {}: Config) -> Result<Self, Vec<Reason>> {
        Ok(Self)
    }
}

impl Filter for StdFiles {
    fn filter(&self, _: &Message) -> Result<Verdict, Failure> {
        Err(Failure::reject("files", format!("{:?}", std::fs::read_to_string("/etc/passwd"))))
    }
}

sluicegate_plugin::export!(StdFiles: Filter);
