//! Reaches for what a plugin must not have, and rejects with what it got: a file, a folder, the environment, arguments,
//! standard input. Also writes to standard output and error, where nothing must come out.

use std::io::Read;

use serde::Deserialize;
use sluicegate_plugin::{Failure, Filter, Message, Plugin, Reason, Verdict};

#[derive(Deserialize)]
struct Config {}

struct Files;

impl Plugin for Files {
    type Config = Config;

    fn config_schema() -> String {
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false}"#.to_owned()
    }

    fn configure(Config {}: Config) -> Result<Self, Vec<Reason>> {
        Ok(Self)
    }
}

impl Filter for Files {
    fn filter(&self, _: &Message) -> Result<Verdict, Failure> {
        println!("hostile guest on standard output");
        eprintln!("hostile guest on standard error");
        let file = std::fs::read_to_string("/etc/passwd").map_err(|error| error.to_string());
        let folder = std::fs::read_dir("/").map(Iterator::count).map_err(|error| error.to_string());
        let written = std::fs::write("/tmp/hostile", "x").map_err(|error| error.to_string());
        let environment = std::env::vars_os().count();
        let arguments = std::env::args_os().count();
        let mut input = String::new();
        let read = std::io::stdin().read_to_string(&mut input).map_err(|error| error.to_string());
        Err(Failure::reject(
            "files",
            format!(
                "file={file:?} folder={folder:?} written={written:?} environment={environment} arguments={arguments} \
                 input={read:?}"
            ),
        ))
    }
}

sluicegate_plugin::export!(Files: Filter);
