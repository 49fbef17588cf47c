//! Guests that misbehave in every way there is: each fails its own message with the right class and evidence, and the
//! messages before, beside and after it go on.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use sluicegate_engine::failure::{FailureClass, FailureKind, GuestFailure};
use sluicegate_engine::message::Message;
use sluicegate_engine::step::{Destination, Verdict};
use sluicegate_plugin_host::{
    ConfigureError, ConfiguredPlugin, HostConfig, Isolation, Limits, LoadError, MAX_DESTINATIONS, MAX_DRAFTS,
    PluginHost, Role, Settings,
};
use support::{HOST, guest, guest_failure, hostile, in_time, load, message, message_of_kind, settings};

const ISOLATIONS: [Isolation; 3] = [Isolation::Message, Isolation::Batch, Isolation::Reuse];

/// Tries the behaviour on one bad message between good ones, in every role and isolation, and hands the failures out.
async fn failures(config: Value) -> Vec<GuestFailure> {
    let mut config = config;
    config["only_kind"] = json!("bad");
    let mut failures = Vec::new();
    for isolation in ISOLATIONS {
        let plugin = hostile(config.clone(), settings(isolation)).await;
        for role in Role::ALL {
            failures.push(failure_between(&plugin, role, role).await);
        }
    }
    failures
}

/// The same for what the guest does in a transform only, to every message: its other roles go on.
async fn transform_failures(config: Value, limits: Limits) -> Vec<GuestFailure> {
    let mut failures = Vec::new();
    for isolation in ISOLATIONS {
        let plugin =
            hostile(config.clone(), Settings { isolation, limits: limits.clone(), ..Settings::default() }).await;
        failures.push(failure_between(&plugin, Role::Transform, Role::Filter).await);
    }
    failures
}

/// How `role` fails on a bad message, while before and after it a good one passes through `other`.
async fn failure_between(plugin: &ConfiguredPlugin, role: Role, other: Role) -> GuestFailure {
    let good = in_time(plugin.measure(other, &message_of_kind("good"))).await.expect("has the role");
    assert!(good.outcome.is_ok(), "{other} before {role}: {:?}", good.outcome);
    let bad = in_time(plugin.measure(role, &message_of_kind("bad"))).await.expect("has the role");
    let failure = bad.outcome.expect_err("the bad message fails");
    assert!(failure.to_string().starts_with("plugin `hostile`: "), "{failure}");
    let good = in_time(plugin.measure(other, &message_of_kind("good"))).await.expect("has the role");
    assert!(good.outcome.is_ok(), "{other} after {role}: {:?}", good.outcome);
    guest_failure(failure)
}

fn names(backtrace: &[String], function: &str) -> bool {
    backtrace.iter().any(|frame| frame.contains(function))
}

#[tokio::test]
async fn an_endless_loop_is_stopped_at_its_limit() {
    for failure in failures(json!({ "do": "loop" })).await {
        let GuestFailure::Deadline { limit, backtrace } = failure else { panic!("{failure}") };
        assert_eq!(limit, Duration::from_millis(50));
        assert!(names(&backtrace, "spin_forever"), "{backtrace:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_slow_but_within_its_limit_passes() {
    let limits = Limits { cpu: Duration::from_secs(20), ..Limits::default() };
    let plugin =
        hostile(json!({ "do": "slow", "turns": 20_000_000 }), Settings { limits, ..Settings::default() }).await;
    let filter = plugin.filter().expect("a filter");
    assert_eq!(in_time(filter.filter(&message("{}"))).await, Ok(Verdict::Keep));
}

#[tokio::test]
async fn memory_without_end_is_refused() {
    for failure in failures(json!({ "do": "grow" })).await {
        let GuestFailure::Memory { limit_bytes, backtrace } = failure else { panic!("{failure}") };
        assert_eq!(limit_bytes, 16 * 1_024 * 1_024);
        assert!(names(&backtrace, "grow_forever"), "{backtrace:?}");
    }
}

#[tokio::test]
async fn a_panic_says_where_and_why() {
    for failure in failures(json!({ "do": "panic" })).await {
        let GuestFailure::Trap { text, backtrace } = failure else { panic!("{failure}") };
        assert!(text.contains("hostile panic as configured"), "{text}");
        assert!(names(&backtrace, "recognisable_panic"), "{backtrace:?}");
    }
}

#[tokio::test]
async fn a_trap_says_where() {
    for failure in failures(json!({ "do": "unreachable" })).await {
        let GuestFailure::Trap { text, backtrace } = failure else { panic!("{failure}") };
        assert!(text.contains("unreachable"), "{text}");
        assert!(names(&backtrace, "recognisable_trap"), "{backtrace:?}");
        assert!(names(&backtrace, "::act"), "the caller too, demangled: {backtrace:?}");
    }
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    for failure in failures(json!({ "do": "overflow" })).await {
        let GuestFailure::Trap { backtrace, .. } = failure else { panic!("{failure}") };
        assert!(names(&backtrace, "recognisable_recursion"), "{backtrace:?}");
        assert!(backtrace.len() <= 30, "{} frames", backtrace.len());
    }
}

#[tokio::test]
async fn huge_output_is_refused_with_its_size() {
    let expected = GuestFailure::OutputLimit { size_bytes: 2 * 1_024 * 1_024, limit_bytes: 1_024 * 1_024 };
    for failure in transform_failures(json!({ "do": "huge" }), Limits::default()).await {
        assert_eq!(failure, expected);
    }
    let exact = json!({ "do": "huge", "bytes": 1_024 * 1_024 });
    let plugin = hostile(exact, Settings::default()).await;
    let messages = plugin.transform().expect("a transform").transform(&message("{}")).await.expect("the limit itself");
    assert_eq!(messages[0].body.len(), 1_024 * 1_024);
}

#[tokio::test]
async fn what_exceeds_even_the_transfer_limit_is_an_output_failure_too() {
    let limits = Limits { memory_bytes: 64 * 1_024 * 1_024, ..Limits::default() };
    for failure in transform_failures(json!({ "do": "huge", "bytes": 8 * 1_024 * 1_024 }), limits).await {
        let GuestFailure::OutputLimit { size_bytes, limit_bytes } = failure else { panic!("{failure}") };
        assert!(size_bytes > limit_bytes);
    }
}

#[tokio::test]
async fn too_many_drafts_break_the_contract() {
    for failure in transform_failures(json!({ "do": "drafts", "count": MAX_DRAFTS + 1 }), Limits::default()).await {
        assert!(matches!(&failure, GuestFailure::ContractViolation(text) if text.contains("1000 drafts")), "{failure}");
    }
    // The guest holds one more than it returns.
    let plugin = hostile(json!({ "do": "drafts", "count": MAX_DRAFTS - 1 }), Settings::default()).await;
    let original = message("{}");
    let messages = plugin.transform().expect("a transform").transform(&original).await.expect("the limit itself");
    assert_eq!(messages.len(), MAX_DRAFTS - 1);
    assert_eq!(messages[7].id, format!("{}#7", original.id));
    assert_eq!(messages[7].body.bytes().as_ptr(), original.body.bytes().as_ptr(), "bodies are shared");
}

#[tokio::test]
async fn forgotten_drafts_cost_nothing() {
    let plugin = hostile(json!({ "do": "abandon", "count": 10_000 }), settings(Isolation::Reuse)).await;
    let transform = plugin.transform().expect("a transform");
    for _ in 0..3 {
        let messages = in_time(transform.transform(&message("{}"))).await.expect("passes");
        assert_eq!(messages.len(), 1);
    }
}

#[tokio::test]
async fn too_many_destinations_break_the_contract() {
    let to: Vec<_> = (0..=MAX_DESTINATIONS).map(|number| format!("t{number}")).collect();
    let plugin = hostile(json!({ "do": "pass", "to": to }), Settings::default()).await;
    let failure = plugin.route().expect("a router").route(&message("{}")).await.expect_err("one too many");
    let failure = guest_failure(failure);
    assert!(
        matches!(&failure, GuestFailure::ContractViolation(text) if text.contains("1001 destinations")),
        "{failure}"
    );

    let long = json!({ "do": "pass", "to": ["x".repeat(60_000), "y".repeat(60_000)] });
    let limits = Limits { output_bytes: 100_000, ..Limits::default() };
    let plugin = hostile(long, Settings { limits, ..Settings::default() }).await;
    let failure = plugin.route().expect("a router").route(&message("{}")).await.expect_err("too long");
    assert_eq!(failure.class(), FailureClass::OutputLimit);
}

/// Names of targets are the pipeline's to check; the host passes on whatever the guest says.
#[tokio::test]
async fn a_bad_target_name_reaches_the_pipeline_as_it_is() {
    let plugin =
        hostile(json!({ "do": "pass", "to": ["nope\u{1b}"], "key": "k", "delay_ms": 7 }), Settings::default()).await;
    let destinations = plugin.route().expect("a router").route(&message("{}")).await.expect("an answer");
    let expected = Destination { target: "nope\u{1b}".to_owned(), key: Some("k".to_owned()), delay_ms: Some(7) };
    assert_eq!(destinations, [expected]);
    let (name, digest) = plugin.route().expect("a router").identity();
    assert_eq!((name.as_str(), digest.as_str()), ("hostile", plugin.digest()));
}

#[tokio::test]
async fn a_log_flood_is_cut_and_counted() {
    let limits = Limits { cpu: Duration::from_secs(5), ..Limits::default() };
    let plugin = hostile(json!({ "do": "log_flood", "count": 100 }), Settings { limits, ..Settings::default() }).await;
    for role in Role::ALL {
        let measured = in_time(plugin.measure(role, &message("{}"))).await.expect("has the role");
        assert!(measured.outcome.is_ok(), "{:?}", measured.outcome);
        assert_eq!(measured.log_lines_dropped, 100 - 32);
    }
}

/// The lines themselves: as many and as long as allowed, and none of them able to pass for another.
#[test]
fn log_lines_are_cut_and_cannot_be_forged() {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(written.clone()).finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let limits = Limits { cpu: Duration::from_secs(5), log_lines: 3, log_line_bytes: 100, ..Limits::default() };
            let config = json!({ "do": "log_flood", "count": 10 });
            let plugin = hostile(config, Settings { isolation: Isolation::Reuse, limits, ..Settings::default() }).await;
            let mut message = Message::new("test", "test", "{}");
            message.id = "id\n2026 INFO forged".to_owned();
            plugin.filter().expect("a filter").filter(&Arc::new(message)).await.expect("passes");
        });
    });
    let text = written.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("sluicegate::plugin")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines.iter().all(|line| line.len() < 300 && line.contains("flood") && line.contains("plugin=\"hostile\"")));
    assert!(text.lines().all(|line| !line.starts_with("2026 INFO forged")), "{text}");
}

/// What a subscriber wrote.
#[derive(Clone, Default)]
struct Written(Arc<std::sync::Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
    }
}

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn what_a_guest_answers_is_no_evidence_of_the_host() {
    let retry = json!({ "do": "retry", "after_ms": 1_500, "text": "come back" });
    for failure in failures(retry).await {
        let GuestFailure::Retry { reason, after } = failure else { panic!("{failure}") };
        assert_eq!((reason.to_string().as_str(), after), ("busy: come back", Some(Duration::from_millis(1_500))));
    }
    for failure in failures(json!({ "do": "reject" })).await {
        let GuestFailure::Reject(reason) = failure else { panic!("{failure}") };
        assert_eq!(reason.to_string(), "refused: as configured");
    }
    for failure in failures(json!({ "do": "long_reason", "bytes": 100_000 })).await {
        let GuestFailure::Reject(reason) = failure else { panic!("{failure}") };
        assert_eq!((reason.code.len(), reason.text.len()), (64, 1_024));
    }
}

#[tokio::test]
async fn a_failure_names_the_plugin_and_its_digest() {
    let plugin = hostile(json!({ "do": "panic" }), Settings::default()).await;
    let failure = plugin.filter().expect("a filter").filter(&message("{}")).await.expect_err("fails");
    assert_eq!(failure.class(), FailureClass::Trap);
    assert_eq!(failure.kind(), FailureKind::Permanent);
    let sluicegate_engine::failure::StepFailure::Guest { plugin: name, digest, .. } = failure else {
        panic!("{failure}")
    };
    assert_eq!((name.as_str(), digest.as_str()), ("hostile", plugin.digest()));
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
}

#[tokio::test]
async fn a_configuration_is_refused_with_every_reason() {
    let plugin = load("hostile", guest("hostile")).await;
    for isolation in [Isolation::Message, Isolation::Reuse] {
        let refused = plugin.configure(&json!({ "do": "configure_fail" }), settings(isolation)).await;
        let Err(ConfigureError::Refused { reasons, .. }) = refused else { panic!("accepted") };
        let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        assert_eq!(reasons, ["first: the first mistake", "second: the second mistake"]);

        let unreadable = plugin.configure(&json!({ "do": "nothing known" }), settings(isolation)).await;
        assert!(matches!(unreadable, Err(ConfigureError::Refused { .. })));
    }
}

#[tokio::test]
async fn a_configure_that_fails_is_evidence() {
    let plugin = load("hostile", guest("hostile")).await;
    for isolation in [Isolation::Message, Isolation::Reuse] {
        let failed = plugin.configure(&json!({ "do": "configure_panic" }), settings(isolation)).await;
        let Err(ConfigureError::Failed { failure: GuestFailure::Trap { text, backtrace }, .. }) = failed else {
            panic!("accepted")
        };
        assert!(text.contains("hostile panic as configured"), "{text}");
        assert!(names(&backtrace, "recognisable_panic"), "{backtrace:?}");

        let failed = in_time(plugin.configure(&json!({ "do": "configure_loop" }), settings(isolation))).await;
        assert!(matches!(
            failed,
            Err(ConfigureError::Failed { failure: GuestFailure::Deadline { limit, .. }, .. }) if limit.as_secs() == 2
        ));
    }
}

#[tokio::test]
async fn limits_beyond_the_host_are_refused() {
    let plugin = load("hostile", guest("hostile")).await;
    let limits = Limits { memory_bytes: u64::MAX, ..Limits::default() };
    let refused = plugin.configure(&json!({ "do": "pass" }), Settings { limits, ..Settings::default() }).await;
    assert!(matches!(refused, Err(ConfigureError::Limits { .. })));
}

#[tokio::test]
async fn too_little_memory_to_start_is_a_memory_failure() {
    let plugin = load("hostile", guest("hostile")).await;
    let limits = Limits { memory_bytes: 65_536, ..Limits::default() };
    for isolation in [Isolation::Message, Isolation::Reuse] {
        let failed = plugin
            .configure(&json!({ "do": "pass" }), Settings { isolation, limits: limits.clone(), ..Settings::default() })
            .await;
        let Err(ConfigureError::Failed { failure: GuestFailure::Memory { limit_bytes, .. }, .. }) = failed else {
            panic!("started")
        };
        assert_eq!(limit_bytes, 65_536);
    }
}

#[tokio::test]
async fn components_that_want_sockets_are_refused_at_load() {
    for name in ["sockets", "std-files"] {
        let Err(LoadError::Imports { imports, .. }) = HOST.load(name, guest(name)).await else { panic!("loaded") };
        assert!(imports.iter().any(|import| import.starts_with("wasi:sockets/tcp@0.2.")), "{imports:?}");
        assert!(imports.iter().all(|import| import.starts_with("wasi:sockets/")), "{imports:?}");
    }
}

#[tokio::test]
async fn a_guest_that_looks_for_files_finds_none() {
    let plugin = load("files", guest("files")).await;
    for isolation in [Isolation::Message, Isolation::Reuse] {
        let configured = plugin.configure(&json!({}), settings(isolation)).await.expect("configures");
        assert_eq!(configured.isolation().isolation, isolation);
        let failure = configured.filter().expect("a filter").filter(&message("{}")).await.expect_err("rejects");
        let GuestFailure::Reject(reason) = guest_failure(failure) else { panic!("not rejected") };
        assert!(
            reason.text.starts_with("folders=[] environment=[] arguments=[] input=Err("),
            "it got something: {}",
            reason.text
        );
    }
}

#[tokio::test]
async fn what_is_no_component_is_refused_with_advice() {
    let whole = guest("hostile");
    let module = wat::parse_str(r#"(module (func (export "filter")))"#).expect("valid");
    let precompiled = {
        let engine = wasmtime::Engine::default();
        engine.precompile_component(&wat::parse_str("(component)").expect("valid")).expect("compiles")
    };
    let cases: [(Bytes, &str); 7] = [
        (Bytes::from(module), "a core module, not a component; build it for the target wasm32-wasip2"),
        (Bytes::from(precompiled), "compiled machine code"),
        (whole.slice(..whole.len() / 2), "ends too early"),
        (whole.slice(..6), "ends within its first bytes"),
        (Bytes::new(), "the file is empty"),
        (Bytes::from_static(b"(component)"), "WebAssembly text"),
        (Bytes::from_static(b"PK\x03\x04"), "no WebAssembly"),
    ];
    for (bytes, advice) in cases {
        let error = HOST.load("upload", bytes).await.err().expect("refused");
        assert!(error.to_string().contains(advice), "{error}");
        assert!(error.to_string().contains("`upload`"), "{error}");
    }
}

#[tokio::test]
async fn damaged_components_never_get_through() {
    let whole = guest("hostile");
    for at in (8..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.to_vec();
        damaged[at] = !damaged[at];
        // Some damage is in names or data and harmless; what counts is that the answer is orderly.
        if let Err(error) = in_time(HOST.load("damaged", Bytes::from(damaged))).await {
            assert!(!error.to_string().contains("panicked"), "at {at}: {error}");
        }
    }
}

#[tokio::test]
async fn a_component_that_is_too_long_is_refused() {
    let host = PluginHost::new(HostConfig { max_component_bytes: 1_000, max_instances: 10, ..HostConfig::default() })
        .expect("a host");
    let error = host.load("long", guest("hostile")).await.err().expect("refused");
    assert!(matches!(error, LoadError::TooLarge { limit_bytes: 1_000, .. }), "{error}");
}

/// Two endless loops on a runtime with one worker: everything else on it goes on meanwhile.
#[tokio::test(flavor = "current_thread")]
async fn endless_loops_do_not_starve_the_runtime() {
    let limits = Limits { cpu: Duration::from_secs(1), ..Limits::default() };
    let looping = hostile(json!({ "do": "loop" }), Settings { limits, ..Settings::default() }).await;
    let passing = hostile(json!({ "do": "pass" }), settings(Isolation::Reuse)).await;
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let filter = looping.filter().expect("a filter");
        tasks.push(tokio::spawn(async move { filter.filter(&message("{}")).await }));
    }
    let filter = passing.filter().expect("a filter");
    let mut passed = 0;
    let mut longest = Duration::ZERO;
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        let started = Instant::now();
        filter.filter(&message("{}")).await.expect("passes");
        tokio::task::yield_now().await;
        longest = longest.max(started.elapsed());
        passed += 1;
    }
    for task in tasks {
        let failure = task.await.expect("no panic").expect_err("stopped");
        assert_eq!(failure.class(), FailureClass::Deadline);
    }
    assert!(passed > 50, "only {passed} messages passed beside the loops");
    assert!(longest < Duration::from_millis(500), "a message waited {longest:?}");
}

/// A dropped call leaves nothing behind, and its instance is not used again.
#[tokio::test]
async fn a_cancelled_call_frees_its_instance() {
    let host = PluginHost::new(HostConfig {
        max_instances: 1,
        max_instance_wait: Duration::from_secs(30),
        ..HostConfig::default()
    })
    .expect("a host");
    let plugin = host.load("hostile", guest("hostile")).await.expect("loads");
    let limits = Limits { cpu: Duration::from_secs(3_600), ..Limits::default() };
    let config = json!({ "do": "loop", "only_kind": "bad" });
    let plugin = plugin
        .configure(&config, Settings { isolation: Isolation::Reuse, limits, ..Settings::default() })
        .await
        .expect("configures");
    let filter = plugin.filter().expect("a filter");
    let bad = message_of_kind("bad");
    let cancelled = tokio::time::timeout(Duration::from_millis(50), filter.filter(&bad)).await;
    assert!(cancelled.is_err(), "it loops for an hour");
    assert_eq!(in_time(filter.filter(&message_of_kind("good"))).await, Ok(Verdict::Keep));
}

/// Hostile and honest calls side by side, more than there are instances: all get their own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_in_a_crowd() {
    let host = PluginHost::new(HostConfig {
        max_instances: 4,
        max_instance_wait: Duration::from_secs(60),
        ..HostConfig::default()
    })
    .expect("a host");
    let plugin = host.load("hostile", guest("hostile")).await.expect("loads");
    let mut tasks = Vec::new();
    for (behaviour, class) in [
        ("loop", FailureClass::Deadline),
        ("grow", FailureClass::Memory),
        ("panic", FailureClass::Trap),
        ("overflow", FailureClass::Trap),
        ("reject", FailureClass::Rejected),
    ] {
        let config = json!({ "do": behaviour, "only_kind": "bad" });
        let plugin = plugin.configure(&config, settings(Isolation::Reuse)).await.expect("configures");
        for number in 0..12 {
            let filter = plugin.filter().expect("a filter");
            tasks.push(tokio::spawn(async move {
                let kind = if number % 3 == 0 { "bad" } else { "good" };
                let answer = filter.filter(&message_of_kind(kind)).await;
                match answer {
                    Ok(verdict) => assert_eq!((kind, verdict), ("good", Verdict::Keep)),
                    Err(failure) => assert_eq!((kind, failure.class()), ("bad", class), "{failure}"),
                }
            }));
        }
    }
    for task in tasks {
        in_time(task).await.expect("as expected");
    }
}

/// Edits that pile up nesting or copies of the body stay within bounds on the host's side.
#[tokio::test]
async fn edits_cannot_exhaust_the_host() {
    let mut edits = Vec::new();
    let mut pointer = String::new();
    for _ in 0..200 {
        pointer.push_str("/a");
        edits.push(json!({ "set_json": [pointer, "{}"] }));
    }
    let plugin = hostile(json!({ "do": "edit", "edits": edits }), Settings::default()).await;
    let failure = plugin.transform().expect("a transform").transform(&message("{}")).await.expect_err("too deep");
    let GuestFailure::Reject(reason) = guest_failure(failure) else { panic!("not by the guest") };
    assert!(reason.text.contains("nested deeper than 64 levels"), "{reason}");

    let many: Vec<_> = (0..60).map(|_| json!({ "set_header": ["x", vec![65; 2_048]] })).collect();
    let limits = Limits { output_bytes: 100_000, ..Limits::default() };
    let plugin = hostile(json!({ "do": "edit", "edits": many }), Settings { limits, ..Settings::default() }).await;
    let failure = plugin.transform().expect("a transform").transform(&message("{}")).await.expect_err("too much");
    assert_eq!(failure.class(), FailureClass::OutputLimit, "what is overwritten counts too: {failure}");

    let headers: Vec<_> = (0..1_001).map(|number| json!({ "set_header": [format!("h{number}"), [65]] })).collect();
    let plugin = hostile(json!({ "do": "edit", "edits": headers }), Settings::default()).await;
    let failure = plugin.transform().expect("a transform").transform(&message("{}")).await.expect_err("too many");
    assert_eq!(failure.class(), FailureClass::Contract, "{failure}");
}

/// Deeply nested bodies are no JSON to guests, and harm nobody.
#[tokio::test]
async fn a_body_nested_too_deep_is_no_json() {
    let deep = "[".repeat(100_000);
    let plugin = hostile(json!({ "do": "echo", "pointers": ["", "/0"] }), Settings::default()).await;
    let mut message = Message::clone(&message(""));
    message.body = deep.into();
    let messages = plugin.transform().expect("a transform").transform(&Arc::new(message)).await.expect("passes");
    let told = messages[0].body.json().expect("JSON");
    assert_eq!((&told["json"][""], &told["json"]["/0"], &told["size"]), (&Value::Null, &Value::Null, &json!(100_000)));
}
