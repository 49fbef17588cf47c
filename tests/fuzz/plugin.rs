//! Plugin loading: components from strangers.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sluicegate_engine::message::Message;
use sluicegate_plugin_host::{HostConfig, Isolation, Limits, Plugin, PluginHost, Settings};
use tokio::runtime::Runtime;

/// Parts of components: the preamble and its layers, section ids, and lengths that lie.
pub const WORDS: &[&[u8]] = &[
    b"\0asm",
    b"\x01\0\0\0",
    b"\x0d\0\x01\0",
    b"\x7fELF",
    b"\x00",
    b"\x01",
    b"\x02",
    b"\x03",
    b"\x04",
    b"\x06",
    b"\x07",
    b"\x08",
    b"\x0a",
    b"\x0b",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x08",
    b"wasi:sockets/tcp@0.2.0",
    b"sluicegate:plugin/filtering@0.1.0",
    b"configure",
    b"cabi_realloc",
];

/// Real components, small ones: what breaks a loader hides behind a valid beginning.
pub const SEEDS: &[&str] = &["guests/components/clock.wasm", "guests/components/sockets.wasm"];

/// One for all inputs, as in a gateway: what one component does to it shows with the next.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
pub static HOST: LazyLock<PluginHost> = LazyLock::new(|| {
    let config = HostConfig { max_instances: 8, ..HostConfig::default() };
    PluginHost::new(config).expect("a plugin host")
});

/// It is refused with a reason, or it is a plugin that can be configured and called within its limits; the host never
/// panics, neither here nor on its compiler's threads.
pub fn fuzz(data: &[u8]) {
    RUNTIME.block_on(async {
        match HOST.load("fuzzed", Bytes::copy_from_slice(data)).await {
            Ok(plugin) => call(&plugin).await,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("fuzzed") && !text.contains("panicked"), "{text}");
            }
        }
    });
}

async fn call(plugin: &Plugin) {
    let limits = Limits { cpu: Duration::from_millis(20), ..Limits::default() };
    let settings = Settings { isolation: Isolation::Reuse, limits, ..Settings::default() };
    let configured = match plugin.configure(&json!({}), settings).await {
        Ok(configured) => configured,
        Err(error) => {
            assert!(!error.to_string().contains("panicked"), "{error}");
            return;
        }
    };
    let message = Arc::new(Message::new("fuzz", "fuzz.message", br#"{"a":1}"#.as_slice()));
    // The outcome is the guest's own affair; that there is one is the host's.
    if let Some(filter) = configured.filter() {
        drop(filter.filter(&message).await);
    }
    if let Some(transform) = configured.transform() {
        drop(transform.transform(&message).await);
    }
    if let Some(route) = configured.route() {
        drop(route.route(&message).await);
    }
}
