//! `sluicegate schema`: the JSON Schema of the configuration, for editors and for people.

use std::io::{self, Write};

use super::Exit;
use crate::config;

/// Writes the JSON Schema (draft 2020-12) of a configuration file.
///
/// # Errors
/// Writing fails.
pub fn schema(out: &mut dyn Write) -> io::Result<Exit> {
    writeln!(out, "{:#}", config::schema())?;
    Ok(Exit::Clean)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_written_is_the_schema() {
        let mut out = Vec::new();
        assert_eq!(schema(&mut out).expect("write"), Exit::Clean);
        let written: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(&written, config::schema());
        assert_eq!(written["properties"]["pipelines"]["type"], "object");
    }
}
