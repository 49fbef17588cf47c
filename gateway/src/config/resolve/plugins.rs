//! Plugins: where their components come from, pins, limits.

use std::sync::Arc;

use super::{Resolver, absolute};
use crate::config::resolved::{BUILTIN_PLUGINS, ComponentConfig, GrantsConfig, Isolation, PluginConfig, PluginLimits};
use crate::config::tree::join;
use crate::config::written::{LimitsSection, PluginSection};

/// Least and most memory of an instance, in bytes: one page of WebAssembly, and 1 GiB.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=1 << 30;

/// Least and most output of a call, in bytes.
const OUTPUT_BYTES: std::ops::RangeInclusive<u64> = 1..=64 << 20;

impl Resolver<'_> {
    pub(super) fn plugins(&mut self) {
        for (name, section) in self.written.plugins.iter() {
            let pointer = join("/plugins", name);
            let component = self.component(&pointer, name, section);
            let limits = self.limits(&join(&pointer, "limits"), &section.limits);
            let grants = self.grants(&join(&pointer, "grants"), &section.grants);
            let Some(component) = component else { continue };
            let builtin = matches!(component, ComponentConfig::Builtin(_));
            let isolation = section.isolation.unwrap_or(if builtin { Isolation::Reuse } else { Isolation::Message });
            let pinned_sha256 = section.sha256.as_deref().map(pin);
            self.pinned(&pointer, pinned_sha256.as_deref(), &component);
            self.plugins.push(Arc::new(PluginConfig {
                name: name.into(),
                component,
                pinned_sha256,
                isolation,
                limits,
                grants,
            }));
        }
    }

    fn component(&mut self, pointer: &str, name: &str, section: &PluginSection) -> Option<ComponentConfig> {
        match (&section.file, &section.builtin) {
            // An upload has its own diagnostic.
            (None, None) if section.upload.is_some() => None,
            (None, None) => {
                self.wrong(pointer, format!("the plugin `{name}` has no component")).hint =
                    Some("name a component by `file`, or a built-in plugin by `builtin`".to_owned());
                None
            }
            (Some(_), Some(_)) => {
                self.wrong(pointer, format!("the plugin `{name}` has two components, a `file` and a `builtin`")).hint =
                    Some("keep one of them".to_owned());
                None
            }
            (None, Some(builtin)) => {
                let known = BUILTIN_PLUGINS.into_iter().find(|known| known == builtin);
                if known.is_none() {
                    let pointer = join(pointer, "builtin");
                    self.unknown(&pointer, "built-in plugin", builtin, &BUILTIN_PLUGINS, "name a component by `file`");
                }
                known.map(ComponentConfig::Builtin)
            }
            (Some(_), None) => self.attachments.components.get(name).map(|file| ComponentConfig::File {
                path: absolute(&file.path, "".as_ref()),
                bytes: file.bytes.clone(),
                sha256: Arc::clone(&file.sha256),
            }),
        }
    }

    fn pinned(&mut self, pointer: &str, pinned: Option<&str>, component: &ComponentConfig) {
        if let (Some(pinned), ComponentConfig::File { path, sha256, .. }) = (pinned, component)
            && pinned != &**sha256
        {
            let text = format!("`{}` is not the component that is pinned: its sha256 is {sha256}", path.display());
            self.wrong(&join(pointer, "sha256"), text).hint =
                Some("if the file is the one you want, pin this digest; else restore the file".to_owned());
        }
    }

    fn limits(&mut self, pointer: &str, limits: &LimitsSection) -> PluginLimits {
        let cpu = self.span(&join(pointer, "cpu"), limits.cpu, ("1ms", "10s"));
        for (key, bytes, range, hint) in [
            ("memory", limits.memory.0, MEMORY_BYTES, "64KiB to 1GiB"),
            ("output", limits.output.0, OUTPUT_BYTES, "1B to 64MiB"),
        ] {
            if !range.contains(&bytes) {
                self.wrong(&join(pointer, key), "this size is outside its limits").hint = Some(hint.to_owned());
            }
        }
        PluginLimits { cpu, memory_bytes: limits.memory.0, output_bytes: limits.output.0 }
    }

    /// A plugin that a step names: a declared one, else a built-in one.
    pub(super) fn plugin(&mut self, pointer: &str, name: &str) -> Option<Arc<PluginConfig>> {
        if let Some(found) = self.plugins.iter().find(|plugin| &*plugin.name == name) {
            return Some(Arc::clone(found));
        }
        let declared = self.defined("plugins");
        if declared.iter().any(|plugin| plugin == name) {
            // Declared with a mistake, which has been said.
            return None;
        }
        let Some(builtin) = BUILTIN_PLUGINS.into_iter().find(|builtin| *builtin == name) else {
            let known: Vec<&str> = declared.iter().map(String::as_str).chain(BUILTIN_PLUGINS).collect();
            self.unknown(pointer, "plugin", name, &known, "declare it under `plugins:`");
            return None;
        };
        let limits = LimitsSection::default();
        let plugin = Arc::new(PluginConfig {
            name: name.into(),
            component: ComponentConfig::Builtin(builtin),
            pinned_sha256: None,
            isolation: Isolation::Reuse,
            limits: PluginLimits { cpu: limits.cpu.0, memory_bytes: limits.memory.0, output_bytes: limits.output.0 },
            grants: GrantsConfig::default(),
        });
        self.plugins.push(Arc::clone(&plugin));
        Some(plugin)
    }
}

fn pin(written: &str) -> Arc<str> {
    written.strip_prefix("sha256:").unwrap_or(written).to_ascii_lowercase().into()
}
