//! `sluicegate plugin inspect`: what a component is, without running more of it than its `config-schema`.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;
use sluicegate_plugin_host::Plugin;

use super::load;
use crate::command::Exit;

/// `plugin inspect`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct InspectArgs {
    /// A component file, or the name of a built-in plugin.
    #[arg(value_name = "FILE")]
    pub component: PathBuf,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn inspect(args: &InspectArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let plugin = load(&args.component).await?;
    if args.json {
        let roles: Vec<&str> = plugin.roles().iter().map(|role| role.name()).collect();
        let object = json!({
            "name": plugin.name(),
            "digest": plugin.digest(),
            "sizeBytes": plugin.size_bytes(),
            "roles": roles,
            "imports": plugin.imports(),
            "grants": needed(&plugin),
            "configSchema": plugin.config_schema(),
        });
        writeln!(out, "{object:#}")?;
    } else {
        describe(&plugin, out)?;
        writeln!(out, "config schema:\n{:#}", plugin.config_schema())?;
    }
    Ok(Exit::Clean)
}

/// For people, without the schema.
pub(super) fn describe(plugin: &Plugin, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let roles: Vec<&str> = plugin.roles().iter().map(|role| role.name()).collect();
    writeln!(out, "roles:   {}", roles.join(", "))?;
    writeln!(out, "size:    {} bytes", plugin.size_bytes())?;
    writeln!(out, "digest:  {}", plugin.digest())?;
    if !plugin.capabilities().is_empty() {
        writeln!(out, "grants:  {} (it has to be granted them)", needed(plugin).join(", "))?;
    }
    writeln!(out, "imports: {}", plugin.imports().join("\n         "))?;
    Ok(())
}

/// Names of the capabilities that it has to be granted.
pub(super) fn needed(plugin: &Plugin) -> Vec<&'static str> {
    plugin.capabilities().iter().map(|capability| capability.name()).collect()
}
