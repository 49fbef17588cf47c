//! What calls of plugins cost, and what the same work costs natively: `cargo bench -p sluicegate-plugin-host`.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use sluicegate_engine::message::{Body, Message};
use sluicegate_plugin_host::{ConfiguredPlugin, HostConfig, Isolation, PluginHost, Settings};
use tokio::runtime::Runtime;

fn component(path: &str) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    Bytes::from(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run plugins/build", path.display())))
}

struct Bench {
    runtime: Runtime,
    host: PluginHost,
}

impl Bench {
    fn new() -> Self {
        let cache_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
        let host = PluginHost::new(HostConfig { cache_dir: Some(cache_dir), ..HostConfig::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { runtime: runtime.expect("a runtime"), host: host.expect("a host") }
    }

    fn plugin(&self, path: &str, config: &Value, isolation: Isolation) -> ConfiguredPlugin {
        self.runtime.block_on(async {
            let plugin = self.host.load("bench", component(path)).await.unwrap_or_else(|error| panic!("{error}"));
            let settings = Settings { isolation, ..Settings::default() };
            plugin.configure(config, settings).await.unwrap_or_else(|error| panic!("{error}"))
        })
    }

    /// Keeps what has kind `order.placed`, which is all.
    fn keep(&self, isolation: Isolation) -> ConfiguredPlugin {
        let config = json!({ "do": "reject", "only_kind": "another" });
        self.plugin("tests/guests/components/hostile.wasm", &config, isolation)
    }

    fn mask_email(&self, isolation: Isolation) -> ConfiguredPlugin {
        self.plugin("plugins/components/redact.wasm", &json!({ "mask": ["/customer/email"] }), isolation)
    }

    fn route_by(&self, condition: &Value, isolation: Isolation) -> ConfiguredPlugin {
        let config = json!({ "rules": [{ "when": condition, "to": ["eu"] }], "otherwise": ["us"] });
        self.plugin("plugins/components/content-router.wasm", &config, isolation)
    }
}

/// 1 KiB of JSON and a header.
fn order() -> Message {
    let mut body = json!({ "id": "o-1", "customer": { "tier": "gold", "email": "a@b.c" }, "note": "" });
    let missing = 1_024 - body.to_string().len();
    body["note"] = Value::String("x".repeat(missing));
    let mut message = Message::new("bench", "order.placed", body.to_string());
    message.headers.append("region", "eu");
    message
}

/// The same message as if it had just come in: its body is not parsed yet.
fn unparsed(message: &Message) -> Arc<Message> {
    Arc::new(Message { body: Body::from(message.body.bytes().clone()), ..message.clone() })
}

fn calls(criterion: &mut Criterion) {
    let bench = Bench::new();
    let order = Arc::new(order());
    for isolation in [Isolation::Message, Isolation::Reuse] {
        let mut group = criterion.benchmark_group(isolation.name());
        let filter = bench.keep(isolation).filter().expect("a filter");
        group.bench_function("filter by kind", |bencher| {
            bencher.to_async(&bench.runtime).iter(|| async { filter.filter(&order).await.expect("kept") });
        });
        let route =
            bench.route_by(&json!({ "header": "region", "equals": "eu" }), isolation).route().expect("a router");
        group.bench_function("route by header", |bencher| {
            bencher.to_async(&bench.runtime).iter(|| async { route.route(&order).await.expect("routed") });
        });
        let route = bench.route_by(&json!({ "pointer": "/customer/tier", "equals": "gold" }), isolation);
        let route = route.route().expect("a router");
        group.bench_function("route by pointer", |bencher| {
            bencher.to_async(&bench.runtime).iter(|| async { route.route(&order).await.expect("routed") });
        });
        let redact = bench.mask_email(isolation).transform().expect("a transform");
        group.bench_function("rewrite 1 KiB of JSON", |bencher| {
            bencher.to_async(&bench.runtime).iter(|| async { redact.transform(&order).await.expect("redacted") });
        });
        group.finish();
    }
}

/// Filter, JSON transform and router, in plugins and natively; each message is parsed once.
fn chain(criterion: &mut Criterion) {
    let bench = Bench::new();
    let order = order();
    let mut group = criterion.benchmark_group("chain");
    for isolation in [Isolation::Message, Isolation::Reuse] {
        let filter = bench.keep(isolation).filter().expect("a filter");
        let redact = bench.mask_email(isolation).transform().expect("a transform");
        let route = bench.route_by(&json!({ "pointer": "/customer/tier", "equals": "gold" }), isolation);
        let route = route.route().expect("a router");
        group.bench_function(format!("plugins, {}", isolation.name()), |bencher| {
            bencher.to_async(&bench.runtime).iter(|| async {
                let message = unparsed(&order);
                filter.filter(&message).await.expect("kept");
                for message in redact.transform(&message).await.expect("redacted") {
                    black_box(route.route(&Arc::new(message)).await.expect("routed"));
                }
            });
        });
    }
    group.bench_function("native", |bencher| {
        bencher.iter(|| {
            let message = unparsed(&order);
            if black_box(&message).kind != "another" {
                let message = native_redact(&message);
                black_box(native_route(&message));
            }
        });
    });
    group.finish();
}

fn native_redact(message: &Message) -> Message {
    let mut body = Value::clone(message.body.json().expect("JSON"));
    if let Some(email) = body.pointer_mut("/customer/email") {
        *email = Value::String("***".to_owned());
    }
    let mut redacted = message.clone();
    redacted.body = Body::with_json(Bytes::from(body.to_string()), Arc::new(body));
    redacted
}

fn native_route(message: &Message) -> Vec<&'static str> {
    let tier = message.body.json().expect("JSON").pointer("/customer/tier");
    if tier.and_then(Value::as_str) == Some("gold") { vec!["eu"] } else { vec!["us"] }
}

criterion_group!(benches, calls, chain);
criterion_main!(benches);
