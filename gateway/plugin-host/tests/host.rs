//! What honest plugins can rely on: isolation, exact replays, messages byte for byte, the bundled plugins, the cache.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sluicegate_engine::message::Message;
use sluicegate_engine::step::{Destination, Transform, Verdict};
use sluicegate_plugin_host::{
    BATCH_CALLS, ConfiguredPlugin, HostConfig, Isolation, Outcome, PluginHost, Role, Settings,
};
use support::{bundled, guest, hostile, in_time, load, message, settings};

async fn calls_counted(plugin: &ConfiguredPlugin, count: usize) -> Vec<u32> {
    let transform = plugin.transform().expect("a transform");
    let mut counted = Vec::new();
    for _ in 0..count {
        let messages = transform.transform(&message("{}")).await.expect("passes");
        counted.push(messages[0].headers.text("calls").expect("counted").parse().expect("a number"));
    }
    counted
}

#[tokio::test]
async fn by_default_every_message_meets_a_fresh_instance() {
    let plugin = hostile(json!({ "do": "count" }), Settings::default()).await;
    assert_eq!(plugin.isolation().isolation, Isolation::Message);
    assert_eq!(plugin.isolation().fallback_reason, None);
    assert_eq!(calls_counted(&plugin, 4).await, [1, 1, 1, 1]);
}

#[tokio::test]
async fn a_reused_instance_remembers() {
    let plugin = hostile(json!({ "do": "count" }), settings(Isolation::Reuse)).await;
    assert_eq!(calls_counted(&plugin, 4).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_batch_ends_in_time() {
    let plugin = hostile(json!({ "do": "count" }), settings(Isolation::Batch)).await;
    let expected: Vec<_> = (1..=BATCH_CALLS).chain(1..=3).collect();
    assert_eq!(calls_counted(&plugin, expected.len()).await, expected);
}

#[tokio::test]
async fn two_configurations_share_no_instance() {
    let first = hostile(json!({ "do": "count" }), settings(Isolation::Reuse)).await;
    let second = hostile(json!({ "do": "count" }), settings(Isolation::Reuse)).await;
    assert_eq!(calls_counted(&first, 2).await, [1, 2]);
    assert_eq!(calls_counted(&second, 2).await, [1, 2]);
}

#[tokio::test]
async fn an_instance_that_failed_is_not_used_again() {
    let plugin = load("hostile", guest("hostile")).await;
    let config = json!({ "do": "reject", "only_kind": "bad", "count": 1 });
    let rejecting = plugin.configure(&config, settings(Isolation::Reuse)).await.expect("configures");
    let measured = |kind: &'static str| {
        let rejecting = rejecting.clone();
        async move {
            let message = Arc::new(Message::new("test", kind, "{}"));
            rejecting.measure(Role::Filter, &message).await.expect("a filter").outcome.is_ok()
        }
    };
    assert!(measured("good").await && !measured("bad").await && measured("good").await);
}

#[tokio::test]
async fn clocks_and_randomness_are_the_message_s_own() {
    let plugin = load("clock", guest("clock")).await;
    let mut first = Message::clone(&message("{}"));
    first.time_ms = 1_700_000_000_123;
    let mut other = first.clone();
    other.id.push('x');
    let mut told = Vec::new();
    for isolation in [Isolation::Message, Isolation::Reuse] {
        let configured = plugin.configure(&json!({}), settings(isolation)).await.expect("configures");
        let transform = configured.transform().expect("a transform");
        for message in [&first, &other, &first] {
            let messages = transform.transform(&Arc::new(message.clone())).await.expect("passes");
            told.push(messages.into_iter().next().expect("one").headers);
        }
    }
    let random: Vec<_> = told.iter().map(|headers| headers.get("random").expect("read").clone()).collect();
    assert_eq!(told[0], told[2], "a replay is exact");
    assert_ne!(random[0], random[1], "another message has another");
    assert_eq!(random[0], random[3], "whatever the isolation");
    assert_eq!(told[0].text("now-ns"), Some("1700000000123000000"));
    assert_eq!(told[3].text("now-ns"), Some("1700000000123000000"));
}

fn awkward_message() -> Message {
    let mut message = Message::new("urn:x", "kind.ä", Bytes::from_static(b"\0\xff\xfe{binary"));
    message.subject = Some("s/1".to_owned());
    message.key = Some(Bytes::from_static(b"\xc3\x28"));
    message.content_type = Some("application/octet-stream".to_owned());
    message.attempt = 3;
    message.headers = [("X-A", &b"1"[..]), ("x-b", b"\xff\0"), ("X-A", b"2"), ("", b"")]
        .into_iter()
        .map(|(name, value)| (name, Bytes::from_static(value)))
        .collect();
    message.expires_at_ms = Some(9);
    message.trace_parent = Some("00-1-2-00".to_owned());
    message.correlation_id = Some("c".to_owned());
    message
}

#[tokio::test]
async fn a_message_passes_unchanged_whatever_it_holds() {
    let plugin = hostile(json!({ "do": "pass" }), Settings::default()).await;
    let original = Arc::new(awkward_message());
    let messages = plugin.transform().expect("a transform").transform(&original).await.expect("passes");
    assert_eq!(messages, [Message::clone(&original)]);
}

#[tokio::test]
async fn a_guest_reads_exactly_what_is_there() {
    let config = json!({ "do": "echo", "headers": ["x-a", "X-B", "none"], "pointers": [""] });
    let plugin = hostile(config, Settings::default()).await;
    let original = awkward_message();
    let messages =
        plugin.transform().expect("a transform").transform(&Arc::new(original.clone())).await.expect("passes");
    let expected = json!({
        "id": original.id, "source": "urn:x", "kind": "kind.ä", "subject": "s/1", "time": original.time_ms,
        "key": "c328", "content_type": "application/octet-stream", "attempt": 3,
        "header": { "x-a": "1", "X-B": null, "none": null },
        "headers": [["X-A", "31"], ["x-b", "ff00"], ["X-A", "32"], ["", ""]],
        "size": 10, "body": "00fffe7b62696e617279", "json": { "": null },
    });
    assert_eq!(**messages[0].body.json().expect("JSON"), expected);
}

#[tokio::test]
async fn a_guest_reads_json_by_pointer() {
    let config = json!({ "do": "echo", "pointers": ["/a/0", "/b~1c", "/none", "", "a"] });
    let plugin = hostile(config, Settings::default()).await;
    let original = message(r#"{"a":[{"x":1}],"b/c":null}"#);
    let messages = plugin.transform().expect("a transform").transform(&original).await.expect("passes");
    let told = messages[0].body.json().expect("JSON");
    let expected = json!({
        "/a/0": r#"{"x":1}"#, "/b~1c": "null", "/none": null, "": r#"{"a":[{"x":1}],"b/c":null}"#, "a": null,
    });
    assert_eq!(told["json"], expected);
}

#[tokio::test]
async fn a_draft_changes_what_it_is_told_and_nothing_else() {
    let edits = json!([
        { "set_kind": "new" }, { "set_subject": null }, { "set_key": [1, 255] }, { "set_content_type": "text/x" },
        { "set_header": ["x-a", [57]] }, { "remove_header": "X-B" }, { "set_header": ["new", [0]] },
        { "set_body": b"{\"a\":[1,2]}".to_vec() }, { "set_json": ["/a/-", "3"] }, { "remove_json": "/a/0" },
    ]);
    let plugin = hostile(json!({ "do": "edit", "edits": edits }), Settings::default()).await;
    let original = awkward_message();
    let mut expected = original.clone();
    expected.kind = "new".to_owned();
    expected.subject = None;
    expected.key = Some(Bytes::from_static(b"\x01\xff"));
    expected.content_type = Some("text/x".to_owned());
    expected.headers = [("X-A", &b"9"[..]), ("", b""), ("new", b"\0")]
        .into_iter()
        .map(|(name, value)| (name, Bytes::from_static(value)))
        .collect();
    expected.body = r#"{"a":[2,3]}"#.into();
    let messages = plugin.transform().expect("a transform").transform(&Arc::new(original)).await.expect("passes");
    assert_eq!(messages, [expected]);
}

#[tokio::test]
async fn a_bad_edit_is_told_to_the_guest() {
    let edits = json!([{ "set_json": ["/a/b", "1"] }]);
    let plugin = hostile(json!({ "do": "edit", "edits": edits }), Settings::default()).await;
    let failure = plugin.transform().expect("a transform").transform(&message("{}")).await.expect_err("rejected");
    assert!(failure.to_string().contains("edit_failed: there is no value at `/a`"), "{failure}");
}

/// A 1 MiB body can be edited: what is copied from the original does not count, what is added does.
#[tokio::test]
async fn a_large_body_can_be_edited() {
    let body = json!({ "email": "a@b.c", "rest": "x".repeat(1_024 * 1_024 - 30) }).to_string();
    let plugin = load("redact", bundled("redact")).await;
    let plugin =
        plugin.configure(&json!({ "mask": ["/email"] }), settings(Isolation::Reuse)).await.expect("configures");
    let messages = in_time(plugin.transform().expect("a transform").transform(&message(body))).await.expect("passes");
    assert_eq!(messages[0].body.json().expect("JSON")["email"], "***");
}

#[tokio::test]
async fn no_draft_drops_and_several_split() {
    let plugin = hostile(json!({ "do": "drop" }), Settings::default()).await;
    assert_eq!(plugin.transform().expect("a transform").transform(&message("{}")).await, Ok(Vec::new()));
    let verdict = plugin.filter().expect("a filter").filter(&message("{}")).await.expect("a verdict");
    assert!(matches!(verdict, Verdict::Drop(reason) if reason.to_string() == "hostile: dropped as configured"));
    assert_eq!(plugin.route().expect("a router").route(&message("{}")).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_plugin_tells_what_it_is() {
    let plugin = load("hostile", guest("hostile")).await;
    assert_eq!(plugin.roles(), Role::ALL);
    assert_eq!(plugin.config_schema()["required"], json!(["do"]));
    assert_eq!(plugin.size_bytes(), guest("hostile").len() as u64);
    assert!(plugin.imports().iter().any(|import| import == "sluicegate:plugin/messages@0.1.0"));
    let filter_only =
        load("files", guest("files")).await.configure(&json!({}), Settings::default()).await.expect("fine");
    assert!(filter_only.filter().is_some() && filter_only.transform().is_none() && filter_only.route().is_none());
    assert_eq!(filter_only.measure(Role::Route, &message("{}")).await, None);
}

#[tokio::test]
async fn a_measurement_tells_outcome_time_and_memory() {
    let plugin = hostile(json!({ "do": "slow", "turns": 100_000 }), Settings::default()).await;
    let measured = plugin.measure(Role::Filter, &message("{}")).await.expect("a filter");
    assert_eq!(measured.outcome, Ok(Outcome::Verdict(Verdict::Keep)));
    assert!(measured.wall > Duration::ZERO);
    assert!((65_536..16 * 1_024 * 1_024).contains(&measured.peak_memory_bytes), "{}", measured.peak_memory_bytes);
}

/// All that are bundled, configured both ways: a snapshot behaves like the plugin itself.
async fn bundled_plugin(name: &str, config: Value) -> [ConfiguredPlugin; 2] {
    let plugin = load(name, bundled(name)).await;
    let snapshot =
        plugin.configure(&config, settings(Isolation::Message)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(snapshot.isolation().fallback_reason, None, "{name} can be snapshotted");
    [snapshot, plugin.configure(&config, settings(Isolation::Reuse)).await.expect("configures")]
}

fn targets(destinations: &[Destination]) -> Vec<&str> {
    destinations.iter().map(|destination| destination.target.as_str()).collect()
}

#[tokio::test]
async fn jq_filters_transforms_and_routes() {
    for jq in bundled_plugin("jq", json!({ "program": ".total > 100" })).await {
        let filter = jq.filter().expect("a filter");
        for _ in 0..3 {
            assert_eq!(filter.filter(&message(r#"{"total":101}"#)).await, Ok(Verdict::Keep));
            assert!(matches!(filter.filter(&message(r#"{"total":1}"#)).await, Ok(Verdict::Drop(_))));
            filter.filter(&message("no json")).await.expect_err("rejected");
        }
    }
    for jq in bundled_plugin("jq", json!({ "program": ".items[] | { n: .n, big: 12345678901234567890123 }" })).await {
        let original = message(r#"{"items":[{"n":1},{"n":2}]}"#);
        let messages = jq.transform().expect("a transform").transform(&original).await.expect("splits");
        let bodies: Vec<_> = messages.iter().map(|message| message.body.bytes().clone()).collect();
        assert_eq!(
            bodies,
            [&br#"{"n":1,"big":12345678901234567890123}"#[..], br#"{"n":2,"big":12345678901234567890123}"#]
        );
        assert_eq!(messages[1].id, format!("{}#1", original.id));
    }
    for jq in bundled_plugin("jq", json!({ "program": ".to[]" })).await {
        let destinations =
            jq.route().expect("a router").route(&message(r#"{"to":["eu","us"]}"#)).await.expect("routes");
        assert_eq!(targets(&destinations), ["eu", "us"]);
    }
}

#[tokio::test]
async fn jq_refuses_a_bad_program() {
    let plugin = load("jq", bundled("jq")).await;
    for isolation in [Isolation::Message, Isolation::Reuse] {
        let error = plugin.configure(&json!({ "program": ".a |" }), settings(isolation)).await.err().expect("refused");
        assert!(error.to_string().contains("refuses its configuration"), "{error}");
    }
}

#[tokio::test]
async fn redact_masks() {
    let config =
        json!({ "mask": ["/customer/email"], "remove": ["/secret"], "headers": { "remove": ["authorization"] } });
    for redact in bundled_plugin("redact", config).await {
        let mut original = Message::clone(&message(r#"{"customer":{"email":"a@b.c","tier":"gold"},"secret":1}"#));
        original.headers.append("Authorization", "Bearer x");
        let messages =
            redact.transform().expect("a transform").transform(&Arc::new(original.clone())).await.expect("passes");
        assert_eq!(messages[0].body.bytes().as_ref(), br#"{"customer":{"email":"***","tier":"gold"}}"#);
        assert!(messages[0].headers.is_empty());
        assert_eq!(messages[0].id, original.id);
    }
}

#[tokio::test]
async fn split_splits() {
    for split in bundled_plugin("split", json!({ "pointer": "/items", "index_header": "index" })).await {
        let original = message(r#"{"items":[{"a":1},"b"]}"#);
        let messages = split.transform().expect("a transform").transform(&original).await.expect("splits");
        assert_eq!(
            messages.iter().map(|m| m.body.bytes().as_ref()).collect::<Vec<_>>(),
            [&br#"{"a":1}"#[..], br#""b""#]
        );
        assert_eq!(messages[1].headers.text("index"), Some("1"));
        assert_eq!(messages[0].id, format!("{}#0", original.id));
    }
}

#[tokio::test]
async fn topic_router_routes_by_pattern() {
    let config =
        json!({ "patterns": [{ "pattern": "order.*", "to": ["orders"] }, { "pattern": "#.placed", "to": ["all"] }] });
    for router in bundled_plugin("topic-router", config).await {
        let route = router.route().expect("a router");
        let placed = Arc::new(Message::new("test", "order.placed", "{}"));
        assert_eq!(targets(&route.route(&placed).await.expect("routes")), ["orders", "all"]);
        let other = Arc::new(Message::new("test", "other", "{}"));
        assert_eq!(targets(&route.route(&other).await.expect("routes")), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn content_router_routes_by_content() {
    let config = json!({
        "rules": [{ "when": { "pointer": "/customer/tier", "equals": "gold" }, "to": ["eu"] }], "otherwise": ["us"]
    });
    for router in bundled_plugin("content-router", config).await {
        let route = router.route().expect("a router");
        let gold = message(r#"{"customer":{"tier":"gold"}}"#);
        assert_eq!(targets(&route.route(&gold).await.expect("routes")), ["eu"]);
        assert_eq!(targets(&route.route(&message("{}")).await.expect("routes")), ["us"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_keep_to_their_own_message() {
    let plugin = hostile(json!({ "do": "echo" }), settings(Isolation::Reuse)).await;
    let fresh = hostile(json!({ "do": "echo" }), Settings::default()).await;
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let transform: Arc<dyn Transform> =
                if number % 2 == 0 { &plugin } else { &fresh }.transform().expect("one");
            tokio::spawn(async move {
                let message = message(number.to_string());
                let messages = transform.transform(&message).await.expect("passes");
                let told = messages[0].body.json().expect("JSON")["id"].clone();
                assert_eq!(told, json!(message.id));
            })
        })
        .collect();
    for task in tasks {
        in_time(task).await.expect("its own");
    }
}

/// More configurations than instances: the idle ones of some give way to others, again and again.
#[tokio::test]
async fn idle_instances_give_way() {
    let host = PluginHost::new(HostConfig { max_instances: 2, ..HostConfig::default() }).expect("a host");
    let plugin = host.load("hostile", guest("hostile")).await.expect("loads");
    let mut configured = Vec::new();
    for _ in 0..5 {
        configured.push(plugin.configure(&json!({ "do": "count" }), settings(Isolation::Reuse)).await.expect("fits"));
    }
    for _ in 0..3 {
        for plugin in &configured {
            calls_counted(plugin, 1).await;
        }
    }
}

/// Counters and gauges by name and labels.
#[derive(Default)]
struct Recorded(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Recorded {
    fn cell(&self, key: &metrics::Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().expect("no panic").entry(name).or_default())
    }

    fn count(&self, name: &str) -> u64 {
        self.0.lock().expect("no panic").get(name).map_or(0, |cell| cell.load(Ordering::SeqCst))
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.count(name))
    }
}

impl metrics::Recorder for Recorded {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        self.cell(key);
        metrics::Histogram::noop()
    }
}

#[test]
fn calls_failures_and_instances_are_counted() {
    let recorded = Recorded::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    metrics::with_local_recorder(&recorded, || {
        runtime.block_on(async {
            let plugin = load("counted", guest("hostile")).await;
            let config = json!({ "do": "reject", "only_kind": "bad" });
            let configured = plugin.configure(&config, settings(Isolation::Reuse)).await.expect("configures");
            assert_eq!(recorded.gauge("sluicegate_plugin_instances{plugin=counted}"), 1.0, "the idle one");
            let filter = configured.filter().expect("a filter");
            filter.filter(&message("{}")).await.expect("passes");
            let bad = Arc::new(Message::new("test", "bad", "{}"));
            filter.filter(&bad).await.expect_err("rejected");
        });
    });
    assert_eq!(recorded.count("sluicegate_plugin_calls_total{plugin=counted,role=filter}"), 2);
    assert_eq!(recorded.count("sluicegate_plugin_failures_total{plugin=counted,class=rejected}"), 1);
    assert_eq!(recorded.gauge("sluicegate_plugin_instances{plugin=counted}"), 0.0, "none leaked");
    let names = recorded.0.lock().expect("no panic");
    assert!(names.contains_key("sluicegate_plugin_call_duration_seconds{plugin=counted,role=filter}"));
    assert!(names.contains_key("sluicegate_plugin_log_lines_dropped_total{plugin=counted}"));
}

fn entries(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    files.filter(|path| path.extension().is_some_and(|suffix| suffix == "code")).collect()
}

#[tokio::test]
async fn compiled_code_is_kept_and_what_was_tampered_with_is_not_run() {
    let folder = tempfile::tempdir().expect("folder");
    let config = HostConfig { cache_dir: Some(folder.path().to_owned()), max_instances: 10, ..HostConfig::default() };
    let run = || async {
        let host = PluginHost::new(config.clone()).expect("a host");
        let plugin = host.load("hostile", guest("hostile")).await.expect("loads");
        let plugin = plugin.configure(&json!({ "do": "count" }), Settings::default()).await.expect("configures");
        assert_eq!(calls_counted(&plugin, 2).await, [1, 1]);
    };
    run().await;
    let written = entries(folder.path());
    assert_eq!(written.len(), 3, "the component, the one made readable, the snapshot");
    let times = || written.iter().map(|path| fs::metadata(path).expect("entry").len()).collect::<Vec<_>>();
    let before = times();
    run().await;
    assert_eq!((entries(folder.path()).len(), times()), (3, before.clone()), "nothing was compiled again");

    for path in &written {
        let mut code = fs::read(path).expect("entry");
        let middle = code.len() / 2;
        code[middle] ^= 0xff;
        fs::write(path, code).expect("written");
    }
    run().await;
    assert_eq!(times(), before, "replaced by what was compiled anew");
}

#[tokio::test]
async fn a_cache_that_cannot_be_made_is_an_error_with_its_path() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    fs::write(&file, b"").expect("written");
    let error =
        PluginHost::new(HostConfig { cache_dir: Some(file.join("cache")), max_instances: 2, ..HostConfig::default() })
            .err()
            .expect("no folder can be made in a file");
    assert!(error.to_string().contains("file/cache"), "{error}");
}
