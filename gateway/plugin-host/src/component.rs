//! Looking into a component without running or compiling it.

use std::fmt;

use wasmparser::{Parser, Payload};

use crate::error::LoadError;
use crate::grants::Capability;
use crate::text::tame;
use crate::wasi;

/// The package of the contract.
const PACKAGE: &str = "sluicegate:plugin/";
/// The version this gateway speaks.
const VERSION: &str = "0.1.0";
/// Interfaces of the contract that a component may import.
const CONTRACT: [&str; 3] = ["log", "messages", "outcomes"];

/// What a plugin does to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Keeps or drops.
    Filter,
    /// Makes messages of a message.
    Transform,
    /// Names targets.
    Route,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Filter, Self::Transform, Self::Route];

    /// As it stands in configuration and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Transform => "transform",
            Self::Route => "route",
        }
    }

    fn interface(self) -> &'static str {
        match self {
            Self::Filter => "filtering",
            Self::Transform => "transforming",
            Self::Route => "routing",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a component asks for and offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Every import, as the component names it.
    pub imports: Vec<String>,
    /// Never empty.
    pub roles: Vec<Role>,
    /// Those that it imports and has to be granted.
    pub capabilities: Vec<Capability>,
}

/// Checks that `bytes` are a component that may be compiled. Takes time in proportion to their length.
pub(crate) fn inspect(plugin: &str, bytes: &[u8], limit_bytes: u64) -> Result<Shape, LoadError> {
    if bytes.len() as u64 > limit_bytes {
        return Err(LoadError::TooLarge { plugin: plugin.to_owned(), size_bytes: bytes.len() as u64, limit_bytes });
    }
    if let Some(what) = not_a_component(bytes) {
        return Err(LoadError::NotAComponent { plugin: plugin.to_owned(), what: what.to_owned() });
    }
    let names = names(bytes).map_err(|error| LoadError::NotAComponent {
        plugin: plugin.to_owned(),
        what: match error.message().contains("unexpected end") {
            true => format!("the component ends too early, after {} bytes; copy or upload it again", bytes.len()),
            false => format!("the component is malformed: {error}; rebuild it"),
        },
    })?;
    let refused: Vec<_> = names.imports.iter().filter(|name| !is_offered(name)).map(|name| tame(name, 256)).collect();
    if !refused.is_empty() {
        return Err(LoadError::Imports { plugin: plugin.to_owned(), imports: refused });
    }
    let roles = roles(&names.exports).map_err(|text| LoadError::Contract { plugin: plugin.to_owned(), text })?;
    let capabilities = names.imports.iter().filter_map(|import| Capability::of_import(import)).collect();
    Ok(Shape { imports: names.imports, roles, capabilities })
}

/// What the bytes are, if it can be told from their start that they are no component.
fn not_a_component(bytes: &[u8]) -> Option<&'static str> {
    if Parser::is_component(bytes) {
        None
    } else if bytes.is_empty() {
        Some("the file is empty; was it copied while it was being built?")
    } else if Parser::is_core_wasm(bytes) {
        Some("it is a core module, not a component; build it for the target wasm32-wasip2")
    } else if bytes.starts_with(b"\x7fELF") {
        Some(
            "it is compiled machine code (such as a precompiled .cwasm file), which is never accepted from outside; \
             give the .wasm component, the gateway compiles it itself",
        )
    } else if bytes.starts_with(b"\0asm") || b"\0asm".starts_with(bytes) {
        Some("the component ends within its first bytes; copy or upload it again")
    } else if bytes.trim_ascii_start().starts_with(b"(") {
        Some("it looks like WebAssembly text; give the binary component (wasm-tools parse makes one of it)")
    } else {
        Some("it is no WebAssembly; give a component built for the target wasm32-wasip2")
    }
}

#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Names at the outermost level; what nested components import of each other is their own affair.
fn names(bytes: &[u8]) -> wasmparser::Result<Names> {
    let mut names = Names::default();
    let mut nesting = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => nesting += 1,
            Payload::End(_) => nesting = nesting.saturating_sub(1),
            Payload::ComponentImportSection(imports) if nesting == 0 => {
                for import in imports {
                    names.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if nesting == 0 => {
                for export in exports {
                    names.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

fn is_offered(import: &str) -> bool {
    if Capability::of_import(import).is_some() {
        return true;
    }
    let Some((interface, version)) = import.split_once('@') else { return false };
    match interface.strip_prefix(PACKAGE) {
        Some(name) => version == VERSION && CONTRACT.contains(&name),
        None => wasi::INTERFACES.contains(&interface) && version.starts_with("0.2."),
    }
}

fn roles(exports: &[String]) -> Result<Vec<Role>, String> {
    let exported = |interface: &str| exports.iter().any(|name| *name == format!("{PACKAGE}{interface}@{VERSION}"));
    let roles: Vec<_> = Role::ALL.into_iter().filter(|role| exported(role.interface())).collect();
    if !roles.is_empty() && exported("lifecycle") {
        return Ok(roles);
    }
    let other = exports.iter().find(|name| name.starts_with(PACKAGE) && !name.ends_with(&format!("@{VERSION}")));
    Err(match other {
        Some(other) => format!(
            "it was made for another version of the contract (it exports `{}`, this gateway speaks {VERSION}); rebuild it \
             with the matching version of sluicegate-plugin",
            tame(other, 256)
        ),
        None if roles.is_empty() => format!(
            "it has no role: it exports none of `{PACKAGE}filtering`, `transforming` and `routing`; make it with \
             `sluicegate plugin new`"
        ),
        None => format!("it does not export `{PACKAGE}lifecycle@{VERSION}`; make it with `sluicegate plugin new`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_BYTES: u64 = 1_000_000;

    fn refusal(bytes: &[u8]) -> String {
        inspect("p", bytes, LIMIT_BYTES).expect_err("refused").to_string()
    }

    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("valid text")
    }

    // Without names, so that there is no custom section at the end that a cut could spare.
    const FILTER: &str = r#"(component
        (instance)
        (export "sluicegate:plugin/lifecycle@0.1.0" (instance 0))
        (export "sluicegate:plugin/filtering@0.1.0" (instance 0)))"#;

    #[test]
    fn tells_what_is_no_component() {
        assert!(refusal(b"").contains("the file is empty"));
        assert!(refusal(b"\x7fELF\x02\x01").contains("never accepted from outside"));
        assert!(refusal(b"\0as").contains("ends within its first bytes"));
        assert!(refusal(b" (component)").contains("WebAssembly text"));
        assert!(refusal(b"#!/bin/sh").contains("no WebAssembly"));
        let module = component("(module)");
        assert!(refusal(&module).contains("a core module, not a component; build it for the target wasm32-wasip2"));
    }

    #[test]
    fn any_cut_is_refused() {
        let whole = component(FILTER);
        assert_eq!(inspect("p", &whole, LIMIT_BYTES).expect("fine").roles, [Role::Filter]);
        for length in 0..whole.len() {
            assert!(inspect("p", &whole[..length], LIMIT_BYTES).is_err(), "{length} of {} bytes", whole.len());
        }
        assert!(refusal(&whole[..whole.len() - 1]).contains("ends too early"));
    }

    #[test]
    fn too_long_is_refused_before_anything_else() {
        let error = inspect("p", &[0; 11], 10).expect_err("too long");
        assert!(matches!(error, LoadError::TooLarge { size_bytes: 11, limit_bytes: 10, .. }), "{error}");
    }

    #[test]
    fn every_refused_import_is_named() {
        let text = r#"(component
            (import "wasi:sockets/tcp@0.2.0" (instance))
            (import "wasi:cli/stdout@0.2.0" (instance))
            (import "wasi:cli/stdout@0.3.0" (instance))
            (import "sluicegate:plugin/log@0.2.0" (instance))
            (import "sluicegate:state/key-value@0.2.0" (instance))
            (import "sluicegate:state/key-value@0.1.0" (instance))
            (import "log" (func)))"#;
        let LoadError::Imports { imports, .. } = inspect("p", &component(text), LIMIT_BYTES).expect_err("refused")
        else {
            panic!("another error");
        };
        let expected = [
            "wasi:sockets/tcp@0.2.0",
            "wasi:cli/stdout@0.3.0",
            "sluicegate:plugin/log@0.2.0",
            "sluicegate:state/key-value@0.2.0",
            "log",
        ];
        assert_eq!(imports, expected);
    }

    #[test]
    fn roles_are_found_by_the_exports() {
        assert!(refusal(&component("(component)")).contains("it has no role"));
        let later = FILTER.replace("0.1.0", "0.9.0");
        assert!(refusal(&component(&later)).contains("another version of the contract"));
        let lifeless = FILTER.replace("lifecycle", "life");
        assert!(refusal(&component(&lifeless)).contains("does not export `sluicegate:plugin/lifecycle@0.1.0`"));
    }
}
