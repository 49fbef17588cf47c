//! What both test binaries need: a host, the built guests, and messages.
#![allow(dead_code, reason = "each binary uses its part")]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sluicegate_engine::failure::{GuestFailure, StepFailure};
use sluicegate_engine::message::Message;
use sluicegate_plugin_host::{ConfiguredPlugin, HostConfig, Isolation, Plugin, PluginHost, Settings};

/// One host for all tests of a binary, as in a gateway: what one guest does must not be felt by the others. Its cache
/// spares the next run the compiler.
pub static HOST: LazyLock<PluginHost> = LazyLock::new(|| {
    let cache_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    PluginHost::new(HostConfig { cache_dir: Some(cache_dir), ..HostConfig::default() }).expect("a host")
});

/// A component built by `plugins/build`.
pub fn component(path: &str) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run plugins/build", path.display()));
    Bytes::from(bytes)
}

pub fn guest(name: &str) -> Bytes {
    component(&format!("tests/guests/components/{name}.wasm"))
}

pub fn bundled(name: &str) -> Bytes {
    component(&format!("plugins/components/{name}.wasm"))
}

pub async fn load(name: &str, component: Bytes) -> Plugin {
    HOST.load(name, component).await.unwrap_or_else(|error| panic!("{error}"))
}

pub fn settings(isolation: Isolation) -> Settings {
    Settings { isolation, ..Settings::default() }
}

/// The hostile guest, told what to do.
pub async fn hostile(config: Value, settings: Settings) -> ConfiguredPlugin {
    let plugin = load("hostile", guest("hostile")).await;
    plugin.configure(&config, settings).await.unwrap_or_else(|error| panic!("{error}"))
}

pub fn message(body: impl Into<Bytes>) -> Arc<Message> {
    Arc::new(Message::new("test", "test.kind", body.into()))
}

pub fn message_of_kind(kind: &str) -> Arc<Message> {
    Arc::new(Message::new("test", kind, "{}"))
}

/// What became of the message, or a failure to be found: no guest may hold up a test for long.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("ended in time")
}

pub fn guest_failure(failure: StepFailure) -> GuestFailure {
    match failure {
        StepFailure::Guest { failure, .. } => failure,
        other => panic!("not the guest's: {other}"),
    }
}
