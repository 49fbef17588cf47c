//! `sluicegate run`: the gateway until a signal ends it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use sluicegate_plugin_host::{HostConfig, PluginHost};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::config::{self, ComponentConfig, Config, Diagnostics, Loaded, Process};
use crate::gateway::Gateway;
use crate::trial::{Bench, BlockingBench};
use crate::workshop::LoadedPlugins;

/// Runs the pipelines of a configuration.
///
/// SIGTERM and SIGINT stop it after what is in flight has been finished, a second one at once. SIGHUP reads the
/// configuration again.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RunArgs {
    /// Configuration files, or folders of them.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Read the configuration again whenever it, one of its schemas or one of its plugins changes.
    #[arg(long)]
    pub watch: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything in flight was finished.
    Drained,
    /// Some messages were given back to their sources.
    GaveBack,
    /// The configuration has mistakes, which were printed.
    Misconfigured,
}

/// Files that change together, as editors and deployments write them, are read once.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// Runs the gateway until a signal, or until every source has come to its end.
///
/// # Errors
/// The gateway cannot start; nothing was read then.
pub async fn run(args: RunArgs, metrics: Option<PrometheusHandle>) -> anyhow::Result<Ended> {
    let loaded = match load(args.files.clone()).await? {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            eprint!("{diagnostics}");
            return Ok(Ended::Misconfigured);
        }
    };
    let cache_dir = Some(loaded.config.data_dir.join("compiled"));
    let host = PluginHost::new(HostConfig { cache_dir, ..HostConfig::default() })?;
    let plugins = match check_plugins(&loaded, &host) {
        Ok(plugins) => plugins,
        Err(diagnostics) => {
            eprint!("{diagnostics}");
            return Ok(Ended::Misconfigured);
        }
    };
    let config = loaded.config;
    let mut signals = Signals::new()?;
    let (changes, mut changed) = mpsc::channel(1);
    let mut watching = if args.watch { Some(watch(&args.files, &config, changes.clone())?) } else { None };
    let mut gateway = Gateway::start(config, host, plugins, metrics).await?;
    let mut tenants = gateway.tenant_news();
    loop {
        let why = tokio::select! {
            () = tenants.changed() => {
                gateway.follow_tenants().await;
                continue;
            }
            () = gateway.finished() => {
                info!("every source has come to its end");
                break;
            }
            asked = signals.next() => match asked {
                Asked::ToStop => break,
                Asked::ToReload => "SIGHUP",
            },
            Some(()) = changed.recv() => {
                // More changes within this time belong to this one.
                while timeout(SETTLE_TIME, changed.recv()).await.is_ok() {}
                "a file changed"
            }
        };
        reload(&mut gateway, &args.files, why).await;
        if args.watch {
            // What is watched follows what is named. A folder that is gone for now is no reason to stop.
            match watch(&args.files, gateway.config(), changes.clone()) {
                Ok(watcher) => watching = Some(watcher),
                Err(error) => warn!(error = format!("{error:#}"), "still watching what was watched before"),
            }
        }
    }
    drop(watching);
    let stopping = gateway.stop();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            given_back = &mut stopping => return Ok(if given_back == 0 { Ended::Drained } else { Ended::GaveBack }),
            asked = signals.next() => if asked == Asked::ToStop {
                warn!("asked to stop again: not waiting for messages in flight; their sources deliver them again");
                return Ok(Ended::GaveBack);
            }
        }
    }
}

async fn reload(gateway: &mut Gateway, files: &[PathBuf], why: &str) {
    info!(why, "reading the configuration again");
    let loaded = match load(files.to_vec()).await {
        Ok(loaded) => {
            loaded.and_then(|loaded| check_plugins(&loaded, gateway.host()).map(|plugins| (loaded.config, plugins)))
        }
        Err(error) => {
            error!(error = format!("{error:#}"), "the new configuration cannot be read; the old one stays in force");
            return;
        }
    };
    let (config, plugins) = match loaded {
        Ok(checked) => checked,
        Err(diagnostics) => {
            error!("the new configuration has mistakes; the old one stays in force\n{diagnostics}");
            return;
        }
    };
    if config.version == gateway.config().version {
        info!("nothing in the configuration has changed");
        return;
    }
    if let Err(error) = gateway.reload(config, plugins).await {
        error!(error = format!("{error:#}"), "the new configuration cannot be built; the old one stays in force");
    }
}

/// Reads files, so not on a runtime worker.
async fn load(files: Vec<PathBuf>) -> anyhow::Result<Result<Loaded, Diagnostics>> {
    tokio::task::spawn_blocking(move || config::load(&files, &Process))
        .await
        .context("reading the configuration failed")
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    ToStop,
    ToReload,
}

/// Every plugin's configuration against its schema, so that all mistakes are told at once, with their places. Compiles
/// what is not in the cache, beside the runtime's workers. Returns what it loaded.
fn check_plugins(loaded: &Loaded, host: &PluginHost) -> Result<LoadedPlugins, Diagnostics> {
    let bench = Bench::new(host.clone());
    let runtime = Handle::current();
    block_in_place(|| config::check_plugins(loaded, &BlockingBench { bench: &bench, runtime }))?;
    Ok(bench.into_plugins())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::ToStop,
            _ = self.interrupt.recv() => Asked::ToStop,
            _ = self.hangup.recv() => Asked::ToReload,
        }
    }
}

/// Watches the folders of all files the configuration is made of; folders, since editors replace files.
fn watch(files: &[PathBuf], config: &Config, changes: mpsc::Sender<()>) -> anyhow::Result<RecommendedWatcher> {
    let watched = Watched::of(files, config);
    let folders = watched.folders();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
        Ok(event) if !event.kind.is_access() && event.paths.iter().any(|path| watched.concerns(path)) => {
            // A full channel holds a change that has not been seen yet: this one is seen with it.
            if let Err(mpsc::error::TrySendError::Closed(())) = changes.try_send(()) {
                tracing::debug!("a file changed while the gateway stops");
            }
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "watching the configuration's files failed"),
    })?;
    for folder in &folders {
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .with_context(|| format!("cannot watch {} for changes", folder.display()))?;
    }
    Ok(watcher)
}

/// What a configuration is made of.
struct Watched {
    /// Configuration files, schemas and plugins.
    files: BTreeSet<PathBuf>,
    /// Folders of configuration files: whatever is in them.
    config_folders: BTreeSet<PathBuf>,
}

impl Watched {
    fn of(given: &[PathBuf], config: &Config) -> Self {
        let absolute = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let (folders, files): (Vec<&PathBuf>, Vec<&PathBuf>) = given.iter().partition(|path| path.is_dir());
        let schemas = config.schemas.iter().filter_map(|schema| schema.file.as_ref());
        let plugins = config.plugins.iter().filter_map(|plugin| match &plugin.component {
            ComponentConfig::File { path, .. } => Some(path),
            ComponentConfig::Builtin(_) => None,
        });
        Self {
            files: files.into_iter().chain(schemas).chain(plugins).map(absolute).collect(),
            config_folders: folders.into_iter().map(absolute).collect(),
        }
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        let of_files = self.files.iter().filter_map(|file| file.parent()).map(Path::to_path_buf);
        of_files.chain(self.config_folders.iter().cloned()).collect()
    }

    fn concerns(&self, path: &Path) -> bool {
        self.files.contains(path) || path.parent().is_some_and(|folder| self.config_folders.contains(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_configuration_files_is_watched_itself_and_a_file_by_its_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("its path");
        let (folder, file) = (root.join("pipelines"), root.join("one/more.yaml"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::create_dir(root.join("one")).expect("a folder");
        let pipeline = |name: &str| {
            format!("pipelines: {{ {name}: {{ source: {{ stdio: {{}} }}, targets: {{ out: {{ stdio: {{}} }} }} }} }}")
        };
        std::fs::write(folder.join("a.yaml"), "{}").expect("a file");
        std::fs::write(&file, pipeline("b")).expect("a file");
        let given = [folder.clone(), file.clone()];
        let loaded = config::load(&given[1..], &Process).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let watched = Watched::of(&given, &loaded.config);
        assert_eq!(watched.folders(), BTreeSet::from([folder.clone(), root.join("one")]));
        assert!(watched.concerns(&folder.join("new.yaml")) && watched.concerns(&file));
        assert!(!watched.concerns(&root.join("one/out.jsonl")) && !watched.concerns(&folder));
    }
}
