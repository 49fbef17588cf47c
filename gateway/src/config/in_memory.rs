//! Files and variables in memory, for tests.

use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};

use super::{Diagnostics, Loaded, Surroundings, load};

/// Files of the folder `/folder`; no variables.
pub(crate) struct InMemory<'t>(pub(crate) &'t [(&'t str, &'t str)]);

impl Surroundings for InMemory<'_> {
    fn variable(&self, _: &str) -> Result<String, VarError> {
        Err(VarError::NotPresent)
    }

    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        let found = self.0.iter().find(|(name, _)| path == Path::new("/folder").join(name));
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        Ok(None)
    }
}

/// Loads `text` as `/folder/c.yaml`.
pub(crate) fn load_text(text: &str) -> Result<Loaded, Diagnostics> {
    load(&["/folder/c.yaml".into()], &InMemory(&[("c.yaml", text)]))
}
