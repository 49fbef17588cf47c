//! From written to resolved: names, limits and rules across the whole configuration. Pure; every mistake is collected, and
//! what is wrong in one part keeps no other from being checked.

mod auth;
mod cases;
mod pipelines;
mod plugins;
mod queues;
mod schemas;
mod state;
mod tenants;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sluicegate_connectors::quantity::Span;
use sluicegate_store::tenant::{MAX_NAME_CHARS, is_name};

use super::attachments::{Attachments, hex};
use super::diagnostic::{Diagnostic, did_you_mean, listing};
use super::location::Location;
use super::resolved::{Config, PluginConfig, SchemaConfig, ServerConfig};
use super::tree::{Node, join};
use super::written::{ConfigFile, Written};

/// What resolving works on.
pub(crate) struct Resolver<'c> {
    written: &'c ConfigFile,
    root: &'c Node,
    attachments: &'c Attachments,
    base_of: &'c dyn Fn(Location) -> PathBuf,
    whose: Whose,
    schemas: Vec<Arc<SchemaConfig>>,
    plugins: Vec<Arc<PluginConfig>>,
    wrong: Vec<(String, Diagnostic)>,
}

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The operator's: it has pipelines.
    Operator,
    /// A tenant's: it may have none yet.
    Tenant,
}

/// Resolves a configuration. Parts of `root` that did not fit their shape may be missing from `written`; names in
/// `root` count as defined all the same. The result is a whole only if there is no diagnostic, also not from before.
pub(crate) fn resolve(
    written: &Written,
    root: &Node,
    attachments: &Attachments,
    base_of: &dyn Fn(Location) -> PathBuf,
    whose: Whose,
) -> (Config, Vec<(String, Diagnostic)>) {
    let mut resolver = Resolver {
        written: &written.file,
        root,
        attachments,
        base_of,
        whose,
        schemas: Vec::new(),
        plugins: Vec::new(),
        wrong: Vec::new(),
    };
    resolver.names();
    let server = resolver.server();
    resolver.schemas();
    resolver.plugins();
    let queues = Arc::new(resolver.queues());
    let offers = resolver.offers();
    let pipelines = resolver.pipelines();
    let tests = resolver.cases(&written.tests);
    let (store, receipts, encryption) = resolver.state();
    let dead_letters = resolver.dead_letters();
    let auth = resolver.auth(server.listen);
    let audit = resolver.audit();
    let data_dir = absolute(&base_of(root.place("/data_dir")), &written.file.data_dir);
    let version = resolver.version().into();
    let Resolver { schemas, plugins, wrong, .. } = resolver;
    let config = Config {
        server,
        data_dir,
        store,
        receipts,
        dead_letters,
        encryption,
        auth,
        audit,
        schemas,
        plugins,
        queue_defaults: written.file.queue_defaults,
        queues,
        offers,
        pipelines,
        tests,
        version,
    };
    (config, wrong)
}

impl Resolver<'_> {
    /// Notes a mistake and returns it for its hint.
    fn wrong(&mut self, pointer: &str, text: impl Into<String>) -> &mut Diagnostic {
        let diagnostic = Diagnostic::new(self.root.place(pointer), self.root.path(pointer), text);
        self.wrong.push((pointer.to_owned(), diagnostic));
        let last = self.wrong.len() - 1;
        &mut self.wrong[last].1
    }

    /// Names end up in metrics, paths and logs, so they are plain.
    fn names(&mut self) {
        let mut pointers = Vec::new();
        for section in ["schemas", "plugins", "pipelines"] {
            let top = join("", section);
            for entry in self.root.get(section).map(Node::entries).unwrap_or_default() {
                let pointer = join(&top, &entry.key);
                if section == "pipelines" {
                    let targets = join(&pointer, "targets");
                    let names = entry.value.get("targets").map(Node::entries).unwrap_or_default();
                    pointers.extend(names.iter().map(|target| (join(&targets, &target.key), target.key.as_str())));
                }
                pointers.push((pointer, entry.key.as_str()));
            }
        }
        for (pointer, name) in pointers {
            if !is_name(name) {
                let place = self.root.key_place(&pointer);
                let mistake = self.wrong(&pointer, format!("`{name}` cannot be a name"));
                mistake.location = Some(place);
                mistake.hint = Some(format!(
                    "a name has at most {MAX_NAME_CHARS} of a-z, 0-9, `-` and `_`, and begins with a letter or digit"
                ));
            }
        }
    }

    fn server(&mut self) -> ServerConfig {
        let server = &self.written.server;
        let listen = server.listen.parse().unwrap_or_else(|_| {
            self.wrong("/server/listen", format!("`{}` is not an address to listen on", server.listen)).hint =
                Some("an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080".to_owned());
            SocketAddr::from(([127, 0, 0, 1], 0))
        });
        ServerConfig {
            listen,
            max_connections: server.max_connections as usize,
            header_read_timeout: self.span("/server/header_read_timeout", server.header_read_timeout, ("100ms", "5m")),
            body_read_timeout: self.span("/server/body_read_timeout", server.body_read_timeout, ("100ms", "10m")),
            drain_timeout: self.span("/server/drain_timeout", server.drain_timeout, ("0s", "1h")),
            access_log: server.access_log,
        }
    }

    /// A span within its limits, both written as people write them.
    fn span(&mut self, pointer: &str, span: Span, (least, most): (&str, &str)) -> Duration {
        let bound = |text| Span::parse(text).unwrap_or(span);
        if span < bound(least) || span > bound(most) {
            self.wrong(pointer, "this length of time is outside its limits").hint = Some(format!("{least} to {most}"));
        }
        span.0
    }

    /// A name that is not defined, with what it could have been.
    fn unknown(&mut self, pointer: &str, what: &str, name: &str, known: &[&str], define: &str) {
        let hint = match did_you_mean(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => define.to_owned(),
            None => format!("{define}; known: {}", listing(known.iter().copied())),
        };
        self.wrong(pointer, format!("there is no {what} `{name}`")).hint = Some(hint);
    }

    /// All names of a section, also of entries that did not fit their shape.
    fn defined(&self, section: &str) -> Vec<String> {
        let entries = self.root.get(section).map(Node::entries).unwrap_or_default();
        entries.iter().map(|entry| entry.key.clone()).collect()
    }

    fn version(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.root.to_json().to_string());
        for schema in &self.schemas {
            digest.update([0]);
            digest.update(schema.document.to_string());
        }
        let mut files: Vec<_> = self.attachments.components.iter().map(|(name, file)| (name, &file.sha256)).collect();
        files.sort();
        for (name, sha256) in files {
            digest.update(format!("\0{name}\0{sha256}"));
        }
        let mut version = hex(&digest.finalize());
        version.truncate(12);
        version
    }
}

/// `path` below `base` if it is relative, without `.` components.
fn absolute(base: &Path, path: &Path) -> PathBuf {
    base.join(path).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        for name in ["a", "0", "orders-eu_1", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "_a", "A", "a.b", "a b", "é", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
