//! `sluicegate plugin new`: a crate of its own, with the SDK inside, so that it builds wherever it is put.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use include_dir::{Dir, include_dir};

use crate::command::Exit;

/// The SDK's sources as of this gateway.
static SDK_SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugin-sdk/src");
static SDK_WORLDS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugin-sdk/wit");
static CONTRACT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit");
const SDK_MANIFEST: &str = include_str!("../../../templates/sdk-Cargo.toml");
const MANIFEST: &str = include_str!("../../../templates/plugin-Cargo.toml");

/// `plugin new`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct NewArgs {
    /// The plugin's name: lower-case letters, digits and hyphens.
    pub name: String,
    /// What it does.
    #[arg(long, value_enum)]
    pub role: Role,
    /// Where its folder is made.
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
}

/// What a new plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Keeps or drops messages.
    Filter,
    /// Makes messages of messages.
    Transform,
    /// Chooses targets.
    Router,
}

impl Role {
    fn source(self) -> &'static str {
        match self {
            Self::Filter => include_str!("../../../templates/filter.rs"),
            Self::Transform => include_str!("../../../templates/transform.rs"),
            Self::Router => include_str!("../../../templates/router.rs"),
        }
    }

    /// A step that uses the plugin, and a configuration it takes.
    fn step(self) -> (&'static str, &'static str) {
        match self {
            Self::Filter => ("filter", r#"{"pointer": "/amount", "minimum": 10}"#),
            Self::Transform => ("transform", r#"{"pointer": "/by", "text": "sluicegate"}"#),
            Self::Router => ("route", r#"{"pointer": "/region", "otherwise": "rest"}"#),
        }
    }
}

/// Makes the folder `NAME`.
pub(super) fn new(args: &NewArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let name = &args.name;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(plain)
        || name.ends_with('-')
        || name.len() > 64
    {
        bail!(
            "`{name}` cannot name a plugin: use up to 64 lower-case letters, digits and hyphens, beginning with a letter"
        );
    }
    if name == "sluicegate-plugin" {
        bail!("`{name}` is the name of the SDK; choose another");
    }
    let folder = super::folder(args.path.as_ref()).join(name);
    if folder.exists() {
        bail!("{} exists already; choose another name, or remove it first", folder.display());
    }
    let (step, config) = args.role.step();
    let write = |path: &str, text: &str| write_file(&folder.join(path), text);
    write("Cargo.toml", &MANIFEST.replace("{name}", name))?;
    write("src/lib.rs", &args.role.source().replace("{type}", &type_name(name)))?;
    write("config.json", &format!("{config}\n"))?;
    write("message.json", "{ \"id\": \"o-1\", \"region\": \"eu\", \"amount\": 12.5 }\n")?;
    write(".gitignore", "/target\n*.wasm\n")?;
    write("README.md", &readme(name, step, config))?;
    write("sdk/plugin-sdk/Cargo.toml", SDK_MANIFEST)?;
    extract(&SDK_SOURCES, &folder.join("sdk/plugin-sdk/src"))?;
    extract(&SDK_WORLDS, &folder.join("sdk/plugin-sdk/wit"))?;
    extract(&CONTRACT, &folder.join("sdk/wit"))?;
    writeln!(
        out,
        "made {folder}\n\n  cd {folder}\n  cargo test                    # native, no wasm needed\n  sluicegate plugin build       # makes {name}.wasm\n  \
         sluicegate plugin test {name}.wasm --config config.json --message message.json",
        folder = folder.display()
    )?;
    Ok(Exit::Clean)
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn extract(files: &Dir<'_>, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make the folder {}", to.display()))?;
    files.extract(to).with_context(|| format!("cannot write the SDK to {}", to.display()))
}

/// `region-router` becomes `RegionRouter`.
fn type_name(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

fn readme(name: &str, step: &str, config: &str) -> String {
    format!(
        "# {name}\n\nA Sluicegate plugin. The code is in `src/lib.rs`; `sdk/` is the SDK it is written with.\n\n\
         ```\ncargo test                # native, no wasm needed\n\
         sluicegate plugin build   # makes {name}.wasm\n\
         sluicegate plugin test {name}.wasm --config config.json --message message.json\n```\n\n\
         In a pipeline:\n\n```yaml\nplugins:\n  {name}: {{ file: {name}.wasm }}\n\npipelines:\n  orders:\n    # …\n    steps:\n      \
         - {step}: {{ plugin: {name}, config: {config} }}\n```\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_types() {
        assert_eq!(type_name("region-router"), "RegionRouter");
        assert_eq!(type_name("r2"), "R2");
    }

    #[test]
    fn a_folder_that_exists_and_names_that_are_none_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let args = |name: &str| NewArgs { name: name.into(), role: Role::Router, path: Some(folder.path().into()) };
        assert!(new(&args("mine"), &mut Vec::new()).is_ok());
        assert!(new(&args("mine"), &mut Vec::new()).unwrap_err().to_string().contains("exists already"));
        for bad in ["", "../up", "Big", "1st", "a b", "end-", "sluicegate-plugin"] {
            assert!(new(&args(bad), &mut Vec::new()).is_err(), "{bad}");
        }
    }
}
