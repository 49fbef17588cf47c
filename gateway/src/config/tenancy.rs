//! A tenant's configuration: the documents it has made through the API, read as if an operator had written them in a file,
//! so that a mistake in them is told in the same words, with line, column and hint. Before that each document is
//! translated, value by value and every value keeping its place: what a tenant may not name is refused, and what the
//! operator has granted it by name is put in.
//!
//! Inside the gateway everything a tenant has bears its name, `TENANT/NAME` ([`Realm::full`]); in its own documents it
//! does not.

use std::path::PathBuf;
use std::sync::Arc;

use sluicegate_connectors::registry::{SourceConfig, TargetConfig};
use sluicegate_store::tenant::{Realm, TenantName};

use super::diagnostic::{Diagnostic, Diagnostics, did_you_mean, listing};
use super::loading::{Loaded, Loading};
use super::location::{Location, Sources};
use super::resolve::Whose;
use super::resolved::{Config, PipelineConfig, PluginConfig, StepConfig};
use super::surroundings::Surroundings;
use super::tree::{Entry, Node, NodeValue};
use super::yaml;

/// Systems a tenant may read from and write to by itself.
const SYSTEMS: [&str; 2] = ["http", "queue"];
/// What the operator has granted, by name.
const GRANTED: &str = "granted";
/// Settings of a webhook that a tenant may make. The others name files, or loosen what protects the gateway's network.
const WEBHOOK_SETTINGS: [&str; 8] =
    ["url", "method", "format", "headers", "signing_secret", "timeout", "connect_timeout", "max_concurrent"];
/// Settings of a pipeline that are the operator's.
const OPERATORS_SETTINGS: [(&str, &str); 1] =
    [("dead_letter", "dead letters are kept in the gateway; see /api/v1/dead-letters")];

/// A document of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub kind: DocumentKind,
    /// Its name, which its tenant chose.
    pub name: String,
    /// YAML or JSON.
    pub text: Arc<str>,
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// What stands under `pipelines: NAME:` in a file.
    Pipeline,
    /// A JSON Schema.
    Schema,
}

impl Document {
    /// What diagnostics call it instead of a file, for example `pipeline orders`.
    pub fn title(&self) -> String {
        match self.kind {
            DocumentKind::Pipeline => format!("pipeline {}", self.name),
            DocumentKind::Schema => format!("schema {}", self.name),
        }
    }
}

/// What a tenant has, and may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// Who it is.
    pub tenant: TenantName,
    /// All its documents.
    pub documents: Vec<Document>,
    /// Its queues, by the names it knows them by.
    pub queues: Vec<String>,
    /// Plugins it has uploaded, by the names it knows them by.
    pub plugins: Vec<String>,
    /// Names of the operator's sources that it may read.
    pub sources: Vec<String>,
    /// Names of the operator's targets that it may write to.
    pub targets: Vec<String>,
    /// Most messages that one of its pipelines may have between being read and being settled.
    pub max_in_flight: u64,
}

/// A document as JSON, without its places; none if it is neither YAML nor JSON.
pub fn document_json(text: &str) -> Option<serde_json::Value> {
    let file = Sources::default().add("document", "");
    yaml::parse(file, text).ok().map(|node| node.to_json())
}

/// Resolves a tenant's documents. What is not theirs (server, data folder, store) is the operator's, and so are the
/// defaults.
///
/// # Errors
/// Every mistake in any of the documents; their files are the documents' [titles](Document::title).
pub fn load_tenant(operator: &Config, holdings: &Holdings) -> Result<Loaded, Diagnostics> {
    let mut loading = Loading::new(&Nothing);
    let root = {
        let mut translation = Translation { operator, holdings, loading: &mut loading };
        translation.root()
    };
    let outcome = loading.settle(root, true, Whose::Tenant);
    let mut loaded = loading.finish(outcome)?;
    let Config { schemas, plugins, mut pipelines, version, .. } = loaded.config;
    let realm = Realm::Tenant(holdings.tenant.clone());
    for pipeline in &mut pipelines {
        own(&realm, pipeline);
    }
    // A tenant's queues are made through the API and are as they were made there.
    loaded.config =
        Config { schemas, plugins, pipelines, version, queues: Arc::default(), tests: Vec::new(), ..operator.clone() };
    Ok(loaded)
}

/// Gives a pipeline, its queues and its plugins the names they have inside the gateway.
fn own(realm: &Realm, pipeline: &mut PipelineConfig) {
    let group = pipeline.name.to_string();
    pipeline.name = realm.full(&pipeline.name).into();
    if let SourceConfig::Queue(queue) = &mut pipeline.source {
        queue.name = realm.full(&queue.name).into_owned();
        queue.group.get_or_insert(group);
    }
    for (_, target) in &mut pipeline.targets {
        if let TargetConfig::Queue(queue) = target {
            queue.name = realm.full(&queue.name).into_owned();
        }
    }
    for step in &mut pipeline.steps {
        match step {
            StepConfig::Validate { .. } => {}
            StepConfig::Filter { plugin, .. }
            | StepConfig::Transform { plugin, .. }
            | StepConfig::Route { plugin, .. } => {
                *plugin =
                    Arc::new(PluginConfig { name: realm.full(&plugin.name).into(), ..PluginConfig::clone(plugin) });
            }
        }
    }
}

/// A tenant's documents take nothing from outside.
struct Nothing;

impl Surroundings for Nothing {
    fn variable(&self, _: &str) -> Result<String, std::env::VarError> {
        Err(std::env::VarError::NotPresent)
    }

    fn read(&self, _: &std::path::Path, _: u64) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }

    fn list(&self, _: &std::path::Path) -> std::io::Result<Option<Vec<PathBuf>>> {
        Ok(None)
    }
}

struct Translation<'t> {
    operator: &'t Config,
    holdings: &'t Holdings,
    loading: &'t mut Loading<'static>,
}

impl Translation<'_> {
    /// One configuration of all documents.
    fn root(&mut self) -> Node {
        let holdings = self.holdings;
        let here = Location::point(self.loading.sources.add("tenant", ""), 1, 1);
        let entry = |key: &str, value: Node| Entry { key: key.to_owned(), key_at: value.at, value };
        let text = |text: String| Node::new(here, NodeValue::Text(text));
        let map = |entries: Vec<Entry>| Node::new(here, NodeValue::Map(entries));
        let (mut schemas, mut pipelines) = (Vec::new(), Vec::new());
        for document in &holdings.documents {
            let Some(node) = self.parse(document) else { continue };
            match document.kind {
                DocumentKind::Schema => {
                    let inline = Node::new(node.at, NodeValue::Map(vec![entry("inline", node)]));
                    schemas.push(entry(&document.name, inline));
                }
                DocumentKind::Pipeline => pipelines.push(entry(&document.name, self.pipeline(&document.name, node))),
            }
        }
        let full = |name: &String| text(format!("{}/{name}", holdings.tenant));
        let plugins = holdings.plugins.iter().map(|name| entry(name, map(vec![entry("upload", full(name))])));
        let queues = holdings.queues.iter().map(|name| entry(name, map(Vec::new())));
        map(vec![
            entry("data_dir", text(self.operator.data_dir.display().to_string())),
            entry("schemas", map(schemas)),
            entry("plugins", map(plugins.collect())),
            entry("queues", map(queues.collect())),
            entry("pipelines", map(pipelines)),
        ])
    }

    fn parse(&mut self, document: &Document) -> Option<Node> {
        let file = self.loading.sources.add(document.title(), Arc::clone(&document.text));
        self.loading.bases.insert(file, self.operator.offers.base_dir.clone());
        match yaml::parse(file, &document.text) {
            Ok(node) => Some(node),
            Err(mistakes) => {
                self.loading.wrong.extend(mistakes);
                None
            }
        }
    }

    fn wrong(&mut self, at: Location, path: String, text: String, hint: impl Into<String>) {
        self.loading.wrong.push(Diagnostic::new(at, path, text).hint(hint));
    }

    fn pipeline(&mut self, name: &str, mut node: Node) -> Node {
        let NodeValue::Map(entries) = &mut node.value else { return node };
        let path = |key: &str| format!("pipelines.{name}.{key}");
        let is_operators = |entry: &Entry| OPERATORS_SETTINGS.iter().find(|(key, _)| *key == entry.key);
        for (entry, hint) in entries.iter().filter_map(|entry| is_operators(entry).map(|(_, hint)| (entry, *hint))) {
            self.wrong(entry.key_at, path(&entry.key), format!("`{}` is the operator's to set", entry.key), hint);
        }
        entries.retain(|entry| is_operators(entry).is_none());
        let mut has_limit = false;
        for entry in &mut *entries {
            match entry.key.as_str() {
                "source" => self.source(name, &path("source"), &mut entry.value),
                "targets" => {
                    let NodeValue::Map(targets) = &mut entry.value.value else { continue };
                    for target in targets {
                        self.target(&path(&format!("targets.{}", target.key)), &mut target.value);
                    }
                }
                "max_in_flight" => {
                    has_limit = true;
                    self.in_flight(path("max_in_flight"), &entry.value);
                }
                _other => {}
            }
        }
        if !has_limit {
            let at = node.at;
            let limit = Node::new(at, NodeValue::Number(self.holdings.max_in_flight.min(DEFAULT_IN_FLIGHT).into()));
            entries.push(Entry { key: "max_in_flight".to_owned(), key_at: at, value: limit });
        }
        node
    }

    fn in_flight(&mut self, path: String, node: &Node) {
        let most = self.holdings.max_in_flight;
        if let NodeValue::Number(number) = &node.value
            && number.as_u64().is_some_and(|wanted| wanted > most)
        {
            self.wrong(
                node.at,
                path,
                format!("{number} is more than your quota of messages in flight"),
                format!("at most {most}"),
            );
        }
    }

    fn source(&mut self, pipeline: &str, path: &str, node: &mut Node) {
        let offers: Vec<_> = self.operator.offers.sources.iter().collect();
        let granted = (self.holdings.sources.as_slice(), offers.as_slice());
        if self.system(path, "read from", node, granted) == Some("http") {
            self.ingestion(pipeline, node);
        }
    }

    /// Ingestion paths of a tenant are below its own.
    fn ingestion(&mut self, pipeline: &str, node: &mut Node) {
        let base = format!("/ingest/{}", self.holdings.tenant);
        let NodeValue::Map(systems) = &mut node.value else { return };
        let Some(http) = systems.iter_mut().find(|entry| entry.key == "http") else { return };
        let at = http.key_at;
        if http.value.value == NodeValue::Null {
            http.value.value = NodeValue::Map(Vec::new());
        }
        let NodeValue::Map(settings) = &mut http.value.value else { return };
        match settings.iter_mut().find(|entry| entry.key == "path") {
            Some(path) => {
                if let NodeValue::Text(text) = &mut path.value.value {
                    // What is wrong with the path is said by the connector.
                    *text = if text.starts_with('/') { format!("{base}{text}") } else { format!("{base}/{text}") };
                }
            }
            None => {
                let value = Node::new(at, NodeValue::Text(format!("{base}/{pipeline}")));
                settings.push(Entry { key: "path".to_owned(), key_at: at, value });
            }
        }
    }

    fn target(&mut self, path: &str, node: &mut Node) {
        let offers: Vec<_> = self.operator.offers.targets.iter().collect();
        let granted = (self.holdings.targets.as_slice(), offers.as_slice());
        if self.system(path, "write to", node, granted) == Some("http") {
            self.webhook(path, node);
        }
    }

    fn webhook(&mut self, path: &str, node: &Node) {
        let settings: Vec<_> = node.get("http").map(Node::entries).unwrap_or_default().to_vec();
        for setting in settings.iter().filter(|setting| !WEBHOOK_SETTINGS.contains(&setting.key.as_str())) {
            let text = format!("`{}` is not a setting of a tenant's webhook", setting.key);
            let hint = format!("these are: {}", listing(WEBHOOK_SETTINGS));
            self.wrong(setting.key_at, format!("{path}.http.{}", setting.key), text, hint);
        }
    }

    /// Which system an end names: one that is a tenant's own to use, or what the name of a grant stands for, which is put
    /// in its place. What is refused becomes a harmless end, so that nothing more is said of it.
    fn system(
        &mut self,
        path: &str,
        doing: &str,
        node: &mut Node,
        (granted, offered): (&[String], &[&(String, Node)]),
    ) -> Option<&'static str> {
        let [entry] = node.entries() else { return None };
        let (key, key_at, value) = (entry.key.clone(), entry.key_at, entry.value.clone());
        if let Some(own) = SYSTEMS.into_iter().find(|own| *own == key) {
            return Some(own);
        }
        let usable = |name: &&str| offered.iter().any(|(offer, _)| offer == name);
        let names: Vec<&str> = granted.iter().map(String::as_str).filter(usable).collect();
        let available = match names.as_slice() {
            [] => "the operator has granted you none".to_owned(),
            names => format!("you are granted {}", listing(names.iter().copied())),
        };
        let found = match (key.as_str(), value.text()) {
            (GRANTED, Some(name)) => {
                let found = offered.iter().find(|(offer, _)| offer == name && names.contains(&name));
                if found.is_none() {
                    let near = did_you_mean(name, names.iter().copied());
                    let hint = near.map_or(available, |near| format!("did you mean `{near}`?"));
                    self.wrong(
                        value.at,
                        format!("{path}.{GRANTED}"),
                        format!("nothing called `{name}` is granted to you"),
                        hint,
                    );
                }
                found.map(|(_, offer)| offer.clone())
            }
            (GRANTED, None) => {
                self.wrong(value.at, format!("{path}.{GRANTED}"), "this is no name".to_owned(), available);
                None
            }
            (other, _) => {
                let text = format!("a tenant's pipeline cannot {doing} `{other}`");
                self.wrong(
                    key_at,
                    format!("{path}.{other}"),
                    text,
                    format!("use {} or {GRANTED}; {available}", SYSTEMS.join(", ")),
                );
                None
            }
        };
        let mut replacement = found.unwrap_or_else(|| {
            let nothing = Node::new(key_at, NodeValue::Map(Vec::new()));
            Node::new(key_at, NodeValue::Map(vec![Entry { key: "stdio".to_owned(), key_at, value: nothing }]))
        });
        relocate(&mut replacement, value.at);
        *node = replacement;
        None
    }
}

/// Messages in flight of a pipeline that does not say.
const DEFAULT_IN_FLIGHT: u64 = 256;

/// Makes everything below stand at one place: what is wrong with a granted end is shown where it is named, and never the
/// operator's lines.
fn relocate(node: &mut Node, at: Location) {
    node.at = at;
    match &mut node.value {
        NodeValue::Null | NodeValue::Bool(_) | NodeValue::Number(_) | NodeValue::Text(_) => {}
        NodeValue::List(items) => items.iter_mut().for_each(|item| relocate(item, at)),
        NodeValue::Map(entries) => {
            for entry in entries {
                entry.key_at = at;
                relocate(&mut entry.value, at);
            }
        }
    }
}

#[cfg(test)]
mod tests;
