//! The configuration: YAML, its shape, and all it refers to.

use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};

use sluicegate::config::{Surroundings, load};

/// Parts of configurations.
pub const WORDS: &[&[u8]] = &[
    b"pipelines:\n",
    b"plugins:\n",
    b"schemas:\n",
    b"tests:\n",
    b"  a:\n",
    b"    source: ",
    b"    targets: ",
    b"{ http: { path: /a } }",
    b"{ file: { path: a } }",
    b"rabbitmq",
    b"redis",
    b"stdio",
    b"generate",
    b"route",
    b"filter",
    b"transform",
    b"validate",
    b"plugin: jq",
    b"${VAR}",
    b"${VAR:-1}",
    b"${file:/secret}",
    b"${",
    b"$${",
    b"}",
    b"&a",
    b"*a",
    b"<<: *a",
    b"!!str",
    b"---\n",
    b"? ",
    b"| \n",
    b"\t",
    b"64",
    b"1s",
    b"1MiB",
    b"-1",
    b"1e999",
    b".nan",
    b"0x10",
    b"true",
    b"null",
    b"~",
    b"'",
    b"\"",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
];

/// Secrets a diagnostic must not repeat.
const SECRET: &str = "hunter2-correct-horse";

/// A file with the input under every name, and one variable and one secret.
struct OnlyThis<'d>(&'d [u8]);

impl Surroundings for OnlyThis<'_> {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        if name == "VAR" { Ok("7".to_owned()) } else { Err(VarError::NotPresent) }
    }

    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let bytes = if path.ends_with("secret") { SECRET.as_bytes() } else { self.0 };
        if bytes.len() as u64 > limit_bytes {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        Ok(bytes.to_vec())
    }

    fn list(&self, _: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        Ok(None)
    }
}

/// It loads, always to the same version, or is refused with at least one diagnostic that shows no secret.
pub fn fuzz(data: &[u8]) {
    let files = [PathBuf::from("/fuzz/sluicegate.yaml")];
    let surroundings = OnlyThis(data);
    match load(&files, &surroundings) {
        Ok(loaded) => {
            let again = load(&files, &surroundings).expect("it loaded before");
            assert_eq!(loaded.config, again.config);
        }
        Err(diagnostics) => {
            let shown = diagnostics.to_string();
            assert!(!shown.trim().is_empty(), "refused without a word");
            assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
        }
    }
}
