//! Compiling what strangers upload: bounds that are cheap to check come first, and the compiler itself runs wherever a
//! [`Compiler`] puts it, which for a gateway is a process of its own with limits on time and memory.
//!
//! **What is trusted.** A compiler is given one component and gives back code. It has neither the cache's key nor any
//! other component, and does not choose what its answer is kept for: the host authenticates the answer as the code of
//! exactly the component that it sent (or of a snapshot that it made of it). So a compiler that a component has taken over
//! through a defect could give bad code for that component, which is what the same defect would do to the same compiler
//! within the gateway; it cannot pass code off as another's, keep it for later, or read what others have uploaded. Guests
//! never run in it, so nothing they do at run time reaches it.

use wasmparser::{Parser, Payload};

use crate::component::inspect;
use crate::engine::engine;
use crate::host::HostConfig;

/// Compiles components somewhere else. Called off the runtime's workers; blocks, for a bounded time.
pub trait Compiler: Send + Sync {
    /// The machine code of `component`, as [`compile`] makes it, in this build of the program and on this machine.
    ///
    /// # Errors
    /// Why there is none, in words for whoever has uploaded it.
    fn compile(&self, component: &[u8]) -> Result<Vec<u8>, String>;
}

/// Functions of a component, over all its modules. The largest bundled plugin has some 4,000.
pub const MAX_FUNCTIONS: u64 = 50_000;
/// Types of a component, over all its modules and nested components.
pub const MAX_TYPES: u64 = 20_000;
/// Sections of a component, nested ones counted.
pub const MAX_SECTIONS: u64 = 10_000;
/// Core modules and components within a component.
pub const MAX_PARTS: u64 = 100;
/// How deep modules and components may be nested.
pub const MAX_NESTING: u64 = 8;
/// The body of one function, in bytes: compiling takes time and memory out of proportion to it.
pub const MAX_FUNCTION_BYTES: u64 = 512 * 1_024;

/// Compiles a component that is to be run by a host of this configuration. Takes seconds and hundreds of megabytes for
/// a component that is made for it, so call it in a process that may be killed.
///
/// # Errors
/// What is wrong with the component.
pub fn compile(config: &HostConfig, component: &[u8]) -> Result<Vec<u8>, String> {
    let max_memory_bytes = usize::try_from(config.max_memory_bytes).unwrap_or(usize::MAX);
    // The size of the pool is no part of the code's compatibility.
    let engine = engine(1, max_memory_bytes).map_err(|error| format!("the compiler does not start: {error:#}"))?;
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}

/// Refuses what is no component of ours or beyond the bounds, in time proportional to its length and without recursion.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn check_bounds(plugin: &str, component: &[u8], max_bytes: u64) -> Result<(), String> {
    inspect(plugin, component, max_bytes).map_err(|error| error.to_string())?;
    let mut seen = Seen::default();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|error| format!("the component is malformed: {error}; rebuild it"))?;
        seen.count(&payload)?;
    }
    Ok(())
}

/// What was counted so far.
#[derive(Default)]
struct Seen {
    functions: u64,
    types: u64,
    sections: u64,
    parts: u64,
    nesting: u64,
}

impl Seen {
    fn count(&mut self, payload: &Payload<'_>) -> Result<(), String> {
        let limit = |what: &str, count: u64, most: u64| {
            if count <= most {
                return Ok(());
            }
            Err(format!("the component has more than {most} {what}; build it optimised for size, or split it up"))
        };
        self.sections += u64::from(payload.as_section().is_some());
        limit("sections", self.sections, MAX_SECTIONS)?;
        match payload {
            Payload::FunctionSection(functions) => {
                self.functions += u64::from(functions.count());
                limit("functions", self.functions, MAX_FUNCTIONS)
            }
            Payload::TypeSection(types) => self.types(types.count()),
            Payload::CoreTypeSection(types) => self.types(types.count()),
            Payload::ComponentTypeSection(types) => self.types(types.count()),
            Payload::CodeSectionEntry(body) => {
                let bytes = body.range().len() as u64;
                limit("bytes in one function", bytes, MAX_FUNCTION_BYTES)
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                self.parts += 1;
                self.nesting += 1;
                limit("modules and components in it", self.parts, MAX_PARTS)?;
                limit("levels of nesting", self.nesting, MAX_NESTING)
            }
            Payload::End(_) => {
                self.nesting = self.nesting.saturating_sub(1);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn types(&mut self, count: u32) -> Result<(), String> {
        self.types += u64::from(count);
        if self.types <= MAX_TYPES {
            return Ok(());
        }
        Err(format!("the component has more than {MAX_TYPES} types; build it optimised for size, or split it up"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BYTES: u64 = 10 << 20;

    fn plugin(inner: &str) -> Vec<u8> {
        let text = format!(
            "(component {inner} (instance $i) (export \"sluicegate:plugin/lifecycle@0.1.0\" (instance $i)) \
             (export \"sluicegate:plugin/filtering@0.1.0\" (instance $i)))"
        );
        wat::parse_str(text).expect("valid text")
    }

    fn refusal(inner: &str) -> String {
        check_bounds("p", &plugin(inner), MAX_BYTES).expect_err("refused")
    }

    #[test]
    fn an_ordinary_component_is_within_all_bounds() {
        check_bounds("p", &plugin("(core module (func))"), MAX_BYTES).expect("accepted");
    }

    #[test]
    fn too_many_functions_types_parts_levels_and_bytes_are_refused() {
        let functions = format!("(core module {})", "(func)".repeat(MAX_FUNCTIONS as usize + 1));
        assert!(refusal(&functions).contains("more than 50000 functions"));
        let types = format!("(core module {})", "(type (func))".repeat(MAX_TYPES as usize + 1));
        assert!(refusal(&types).contains("more than 20000 types"));
        assert!(refusal(&"(core module)".repeat(101)).contains("more than 100 modules and components"));
        let deep = format!("{}{}", "(component ".repeat(9), ")".repeat(9));
        assert!(refusal(&deep).contains("more than 8 levels of nesting"));
        let long = format!("(core module (func {}))", "(drop (i32.const 1))".repeat(200_000));
        assert!(refusal(&long).contains("bytes in one function"));
    }

    #[test]
    fn custom_sections_without_end_are_refused() {
        let mut bytes = plugin("");
        for _ in 0..=MAX_SECTIONS {
            bytes.extend_from_slice(&[0, 2, 1, b'x']);
        }
        assert!(check_bounds("p", &bytes, MAX_BYTES).expect_err("refused").contains("more than 10000 sections"));
    }
}
