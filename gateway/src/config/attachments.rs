//! Reads the files that a configuration names: schemas and plugin components. All I/O of resolving is here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::diagnostic::Diagnostic;
use super::location::{Location, Sources};
use super::surroundings::Surroundings;
use super::tree::{Node, join};
use super::written::{ConfigFile, SchemaSection};
use super::yaml;

/// Largest file of a JSON Schema.
pub const MAX_SCHEMA_BYTES: u64 = 1024 * 1024;

/// Largest component of a plugin.
pub const MAX_COMPONENT_BYTES: u64 = 10 * 1024 * 1024;

/// What the named files hold. What could not be read is missing here and has its diagnostic.
#[derive(Default)]
pub(crate) struct Attachments {
    pub(crate) schemas: HashMap<String, SchemaFile>,
    pub(crate) components: HashMap<String, ComponentFile>,
}

/// A schema's file.
pub(crate) struct SchemaFile {
    pub(crate) path: PathBuf,
    pub(crate) document: Arc<Value>,
    /// With places, where the file could be read as YAML, too (JSON nearly always can).
    pub(crate) tree: Option<Node>,
}

/// A plugin's file.
pub(crate) struct ComponentFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
    pub(crate) sha256: Arc<str>,
}

/// Reads them all. `base_of` gives the folder for the relative paths of a place.
pub(crate) fn read(
    written: &ConfigFile,
    root: &Node,
    base_of: &dyn Fn(Location) -> PathBuf,
    surroundings: &dyn Surroundings,
    sources: &mut Sources,
) -> (Attachments, Vec<(String, Diagnostic)>) {
    let mut attachments = Attachments::default();
    let mut wrong = Vec::new();
    for (name, section) in written.schemas.iter() {
        let SchemaSection::File(path) = section else { continue };
        let pointer = join(&join("/schemas", name), "file");
        let path = base_of(root.place(&pointer)).join(path);
        match read_schema(&path, surroundings, sources) {
            Ok(file) => drop(attachments.schemas.insert(name.to_owned(), file)),
            Err(mistakes) => wrong.extend(mistakes.into_iter().map(|m| (pointer.clone(), placed(m, root, &pointer)))),
        }
    }
    for (name, section) in written.plugins.iter() {
        let Some(path) = &section.file else { continue };
        let pointer = join(&join("/plugins", name), "file");
        let path = base_of(root.place(&pointer)).join(path);
        match read_component(&path, surroundings) {
            Ok(file) => drop(attachments.components.insert(name.to_owned(), file)),
            Err(mistake) => wrong.push((pointer.clone(), placed(mistake, root, &pointer))),
        }
    }
    (attachments, wrong)
}

/// A mistake without a place of its own stands where the file is named.
fn placed(mut mistake: Diagnostic, root: &Node, pointer: &str) -> Diagnostic {
    if mistake.location.is_none() {
        mistake.location = Some(root.place(pointer));
    }
    if mistake.path.is_empty() {
        mistake.path = root.path(pointer);
    }
    mistake
}

fn read_schema(
    path: &Path,
    surroundings: &dyn Surroundings,
    sources: &mut Sources,
) -> Result<SchemaFile, Vec<Diagnostic>> {
    let name = path.display();
    let bytes = surroundings.read(path, MAX_SCHEMA_BYTES).map_err(|error| {
        vec![Diagnostic::new(None, "", format!("cannot read the schema `{name}`: {error}")).hint(hint_for("schema"))]
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| vec![Diagnostic::new(None, "", format!("the schema `{name}` is not valid UTF-8"))])?;
    let file = sources.add(path, text.as_str());
    let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let (document, tree) = if yaml {
        let tree = yaml::parse(file, &text)?;
        (tree.to_json(), Some(tree))
    } else {
        let document = serde_json::from_str(&text).map_err(|error| {
            let at = Location::point(file, (error.line() as u32).max(1), (error.column() as u32).max(1));
            vec![Diagnostic::new(at, "", format!("the schema is not JSON: {error}"))]
        })?;
        (document, yaml::parse(file, &text).ok())
    };
    Ok(SchemaFile { path: path.to_owned(), document: Arc::new(document), tree })
}

fn read_component(path: &Path, surroundings: &dyn Surroundings) -> Result<ComponentFile, Diagnostic> {
    let name = path.display();
    let bytes = surroundings.read(path, MAX_COMPONENT_BYTES).map_err(|error| {
        Diagnostic::new(None, "", format!("cannot read the plugin `{name}`: {error}")).hint(hint_for("component"))
    })?;
    let sha256 = hex(&Sha256::digest(&bytes)).into();
    Ok(ComponentFile { path: path.to_owned(), bytes: bytes.into(), sha256 })
}

fn hint_for(what: &str) -> String {
    format!("relative paths start at the folder of the file that names them; a {what} must be readable by the gateway")
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
