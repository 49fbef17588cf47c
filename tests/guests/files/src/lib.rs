//! Reaches for what a plugin must not have, and rejects with what it got: folders and files, environment, arguments,
//! standard input. Also writes to standard output and error, where nothing must come out. It asks WASI itself for files,
//! since the standard library would import sockets too (see `std-files`).

use serde::Deserialize;
use sluicegate_plugin::{Failure, Filter, Message, Plugin, Reason, Verdict};
use wasip2::cli::stdin::get_stdin;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};

#[derive(Deserialize)]
struct Config {}

struct Files;

impl Plugin for Files {
    type Config = Config;

    fn config_schema() -> String {
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false}"#
            .to_owned()
    }

    fn configure(Config {}: Config) -> Result<Self, Vec<Reason>> {
        Ok(Self)
    }
}

impl Filter for Files {
    fn filter(&self, _: &Message) -> Result<Verdict, Failure> {
        println!("hostile guest on standard output");
        eprintln!("hostile guest on standard error");
        let folders = get_directories();
        let got: Vec<_> = folders.iter().map(|(folder, name)| (name, read(folder))).collect();
        let environment: Vec<_> = std::env::vars_os().collect();
        let arguments: Vec<_> = std::env::args_os().collect();
        let input = get_stdin().blocking_read(1_024).map_err(|error| error.to_string());
        Err(Failure::reject(
            "files",
            format!("folders={got:?} environment={environment:?} arguments={arguments:?} input={input:?}"),
        ))
    }
}

fn read(folder: &Descriptor) -> Result<Vec<u8>, String> {
    folder
        .open_at(PathFlags::SYMLINK_FOLLOW, "etc/passwd", OpenFlags::empty(), DescriptorFlags::READ)
        .and_then(|file| file.read(65_536, 0))
        .map(|(bytes, _)| bytes)
        .map_err(|error| error.to_string())
}

sluicegate_plugin::export!(Files: Filter);
