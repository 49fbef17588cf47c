//! Grants: what is not granted is refused by name, what is granted is bounded, and whatever goes wrong behind a grant is an
//! answer that the guest sees, never a trap.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use sluicegate_engine::failure::GuestFailure;
use sluicegate_plugin_host::{
    Capability, ConfigureError, ConfiguredPlugin, Grants, HostCallLimits, HttpAccess, HttpError, HttpRequest,
    HttpResponse, Isolation, Limits, MetricValue, MetricsAccess, Outcome, Role, SecretsAccess, Settings, StateAccess,
    StateChange, StateChanged, StateError,
};
use support::{guest, guest_failure, in_time, load, message};

const ISOLATIONS: [Isolation; 3] = [Isolation::Message, Isolation::Batch, Isolation::Reuse];

/// Values of one plugin, and how long each call takes.
#[derive(Default)]
struct Values {
    values: Mutex<HashMap<String, Bytes>>,
    delay: Duration,
    calls: AtomicUsize,
}

impl Values {
    async fn called(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
    }
}

#[async_trait]
impl StateAccess for Values {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StateError> {
        self.called().await;
        match key {
            "away" => Err(StateError::Unavailable("the store is\naway".to_owned())),
            _ => Ok(self.values.lock().expect("no panic").get(key).cloned()),
        }
    }

    async fn change(&self, key: &str, change: StateChange) -> Result<StateChanged, StateError> {
        self.called().await;
        let mut values = self.values.lock().expect("no panic");
        match change {
            StateChange::Set(value, _) if value.len() > 60_000 => drop(value),
            StateChange::Set(value, _) => drop(values.insert(key.to_owned(), value)),
            StateChange::Delete => {
                return Ok(if values.remove(key).is_some() { StateChanged::Done } else { StateChanged::Not });
            }
            StateChange::CompareAndSet { .. } => return Err(StateError::Full),
            StateChange::Increment(by, _) if key == "text" => {
                return if by == 0 { Ok(StateChanged::Done) } else { Err(StateError::NotANumber) };
            }
            StateChange::Increment(by, _) => return Ok(StateChanged::Number(by)),
        }
        Ok(StateChanged::Done)
    }
}

/// Answers its own URL, or is silent.
#[derive(Default)]
struct Web {
    requests: Mutex<Vec<HttpRequest>>,
}

#[async_trait]
impl HttpAccess for Web {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.requests.lock().expect("no panic").push(request.clone());
        match request.url.as_str() {
            "https://silent/" => std::future::pending().await,
            "https://other/" => Err(HttpError::Refused("`other` is not listed".to_owned())),
            "https://busy/" => Err(HttpError::Rate(Duration::from_micros(1))),
            "https://large/" => Ok(HttpResponse { status: 200, headers: Vec::new(), body: vec![b'x'; 1 << 20].into() }),
            _ => Ok(HttpResponse { status: 200, headers: vec![("a".to_owned(), "b".into())], body: "hello".into() }),
        }
    }
}

struct OneSecret;

impl SecretsAccess for OneSecret {
    fn get(&self, name: &str) -> Option<String> {
        (name == "api").then(|| "s3cret".to_owned())
    }
}

#[derive(Default)]
struct Recorded(Mutex<Vec<(String, MetricValue)>>);

impl MetricsAccess for Recorded {
    fn record(&self, name: &str, _: &[(String, String)], value: MetricValue) -> Result<(), String> {
        if name == "unknown" {
            return Err("no metric `unknown` is declared".to_owned());
        }
        self.0.lock().expect("no panic").push((name.to_owned(), value));
        Ok(())
    }
}

fn all() -> Grants {
    Grants {
        state: Some(Arc::new(Values::default())),
        http: Some(Arc::new(Web::default())),
        secrets: Some(Arc::new(OneSecret)),
        metrics: Some(Arc::new(Recorded::default())),
        ..Grants::default()
    }
}

async fn grantee(grants: Grants, isolation: Isolation, limits: Limits) -> ConfiguredPlugin {
    let plugin = load("grantee", guest("grantee")).await;
    let settings = Settings { isolation, limits, grants };
    plugin.configure(&json!({}), settings).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn outcome(plugin: &ConfiguredPlugin, work: Value) -> Result<Value, GuestFailure> {
    let measured = in_time(plugin.measure(Role::Transform, &message(work.to_string()))).await.expect("a transform");
    match measured.outcome.map_err(guest_failure)? {
        Outcome::Messages(messages) => Ok(serde_json::from_slice(messages[0].body.bytes()).expect("a list")),
        other => panic!("{other:?}"),
    }
}

async fn answers(grants: Grants, work: Value) -> Value {
    outcome(&grantee(grants, Isolation::Message, Limits::default()).await, work).await.expect("no failure")
}

fn errors(answers: &Value) -> Vec<&str> {
    answers.as_array().expect("a list").iter().filter_map(|answer| answer["error"].as_str()).collect()
}

#[tokio::test]
async fn an_import_without_grant_is_refused_by_name_with_what_would_grant_it() {
    let plugin = load("grantee", guest("grantee")).await;
    assert_eq!(plugin.capabilities().len(), 4, "{:?}", plugin.imports());
    for isolation in ISOLATIONS {
        for missing in Capability::ALL {
            let mut grants = all();
            match missing {
                Capability::State => grants.state = None,
                Capability::Http => grants.http = None,
                Capability::Secrets => grants.secrets = None,
                Capability::Metrics => grants.metrics = None,
            }
            let settings = Settings { isolation, grants, ..Settings::default() };
            let Err(error) = plugin.configure(&json!({}), settings).await else { panic!("{missing} is not granted") };
            let ConfigureError::Ungranted { capabilities, .. } = &error else { panic!("{error}") };
            assert_eq!(*capabilities, [missing]);
            let text = error.to_string();
            assert!(text.contains(missing.import()) && text.contains(missing.example()), "{text}");
        }
    }
    let Err(error) = plugin.configure(&json!({}), Settings::default()).await else { panic!("nothing is granted") };
    assert!(matches!(error, ConfigureError::Ungranted { capabilities, .. } if capabilities.len() == 4));
}

#[tokio::test]
async fn a_plugin_without_capabilities_imports_none() {
    let plugin = load("clock", guest("clock")).await;
    assert!(plugin.capabilities().is_empty());
    assert!(plugin.imports().iter().all(|import| !import.starts_with("sluicegate:state")), "{:?}", plugin.imports());
}

#[tokio::test]
async fn what_is_granted_works_in_every_isolation_and_outlives_the_instance() {
    for isolation in ISOLATIONS {
        let recorded = Arc::new(Recorded::default());
        let plugin = grantee(Grants { metrics: Some(recorded.clone()), ..all() }, isolation, Limits::default()).await;
        let work = json!([{"set": ["k", "v", 1000]}, {"increment": ["n", 2, null]}, {"secret": "api"},
            {"fetch": ["https://a/", null]}, {"count": ["seen", [["a", "b"]], 3]}, {"gauge": ["level", 0.5]}]);
        let done = outcome(&plugin, work).await.expect("no failure");
        assert_eq!(
            done,
            json!([{"ok": null}, {"ok": 2}, {"ok": "s3cret"}, {"ok": [200, "hello"]}, {"ok": null}, {"ok": null}]),
            "{isolation:?}"
        );
        let later = outcome(&plugin, json!([{"get": "k"}, {"delete": "k"}, {"delete": "k"}, {"get": "k"}])).await;
        assert_eq!(later.expect("no failure"), json!([{"ok": "v"}, {"ok": true}, {"ok": false}, {"ok": null}]));
        let recorded = recorded.0.lock().expect("no panic").clone();
        assert_eq!(
            recorded,
            [("seen".to_owned(), MetricValue::Counter(3)), ("level".to_owned(), MetricValue::Gauge(0.5))]
        );
    }
}

#[tokio::test]
async fn two_sets_of_grants_share_nothing() {
    let one = grantee(all(), Isolation::Reuse, Limits::default()).await;
    let other = grantee(all(), Isolation::Reuse, Limits::default()).await;
    outcome(&one, json!([{"set": ["k", "mine", null]}])).await.expect("no failure");
    assert_eq!(outcome(&other, json!([{"get": "k"}])).await.expect("no failure"), json!([{"ok": null}]));
    assert_eq!(outcome(&one, json!([{"get": "k"}])).await.expect("no failure"), json!([{"ok": "mine"}]));
}

#[tokio::test]
async fn nothing_can_be_called_while_it_is_configured() {
    let plugin = load("grantee", guest("grantee")).await;
    let config = json!({ "in_configure": [{"get": "k"}, {"set": ["k", "v", null]}, {"fetch": ["https://a/", null]},
        {"secret": "api"}, {"count": ["n", [], 1]}] });
    for isolation in ISOLATIONS {
        let (state, web) = (Arc::new(Values::default()), Arc::new(Web::default()));
        let grants = Grants { state: Some(state.clone()), http: Some(web.clone()), ..all() };
        let refused = plugin.configure(&config, Settings { isolation, grants, ..Settings::default() }).await;
        let Err(ConfigureError::Refused { reasons, .. }) = refused else { panic!("it refuses with its answers") };
        assert_eq!(reasons.len(), 5);
        assert!(
            reasons.iter().all(|reason| reason.text.contains("TooEarly") || reason.text.contains("too-early")),
            "{reasons:?}"
        );
        assert_eq!(state.calls.load(Ordering::SeqCst), 0);
        assert!(web.requests.lock().expect("no panic").is_empty());
    }
}

#[tokio::test]
async fn sizes_are_checked_before_anybody_is_asked() {
    let (state, web) = (Arc::new(Values::default()), Arc::new(Web::default()));
    let grants = Grants { state: Some(state.clone()), http: Some(web.clone()), ..all() };
    let many: Vec<Value> = (0..65).map(|n| json!([format!("h{n}"), "v"])).collect();
    let work = json!([
        {"get": ""}, {"get": "k".repeat(257)}, {"set_bytes": ["k", 65537]}, {"set": ["k", "v", 0]},
        {"set": ["k", "v", u64::MAX]}, {"increment": ["k".repeat(257), 1, null]},
        {"compare_and_set": ["k", "x".repeat(65537), null]},
        {"fetch": [format!("https://a/{}", "x".repeat(8192)), null]}, {"post": ["https://a/", 262145, []]},
        {"post": ["https://a/", 1, many]}, {"post": ["https://a/", 1, [["h", "v".repeat(16385)]]]},
    ]);
    let answered = answers(grants, work).await;
    let errors = errors(&answered);
    assert_eq!(errors.len(), 11, "{answered}");
    assert!(errors.iter().all(|error| error.starts_with("Error::Invalid")), "{errors:?}");
    assert_eq!(state.calls.load(Ordering::SeqCst), 0);
    assert!(web.requests.lock().expect("no panic").is_empty());
    let within = json!([{"set_bytes": ["k".repeat(256), 65536]}, {"post": ["https://a/", 262144, []]}]);
    assert!(self::errors(&answers(all(), within).await).is_empty());
}

#[tokio::test]
async fn whatever_goes_wrong_behind_a_grant_is_an_answer() {
    let work = json!([
        {"get": "away"}, {"compare_and_set": ["k", null, "v"]}, {"increment": ["text", 1, null]},
        {"increment": ["text", 0, null]}, {"fetch": ["https://other/", null]}, {"fetch": ["https://busy/", null]},
        {"secret": "other"}, {"count": ["unknown", [], 1]}, {"gauge": ["level", 1.0]},
    ]);
    let answered = answers(all(), work).await;
    let errors = errors(&answered);
    let expected = [
        "Error::Unavailable",
        "Error::Full",
        "Error::NotANumber",
        "Error::Unavailable",
        "Error::Refused",
        "Error::Rate(1)",
        "Error { code: 1, name: \"unknown\"",
        "Error::Invalid",
    ];
    assert_eq!(errors.len(), expected.len(), "{answered}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error} is not {expected}");
    }
    assert!(errors[0].contains("is\\\\naway"), "control characters are escaped: {}", errors[0]);
}

#[tokio::test]
async fn a_guest_that_hammers_runs_out_of_calls() {
    let (state, web) = (Arc::new(Values::default()), Arc::new(Web::default()));
    let grants = || Grants { state: Some(state.clone()), http: Some(web.clone()), ..all() };
    let answered = answers(grants(), json!({ "do": [{"increment": ["n", 1, null]}], "repeat": 1000 })).await;
    assert_eq!(state.calls.load(Ordering::SeqCst), 64);
    let told = errors(&answered);
    assert_eq!(told.len(), 936);
    assert!(told.iter().all(|error| error.starts_with("Error::Limit")), "{}", told[0]);
    answers(grants(), json!({ "do": [{"fetch": ["https://a/", null]}], "repeat": 200 })).await;
    assert_eq!(web.requests.lock().expect("no panic").len(), 64);
    let secrets = answers(grants(), json!({ "do": [{"secret": "api"}], "repeat": 100 })).await;
    assert_eq!(errors(&secrets).len(), 36);
    let recorded = Arc::new(Recorded::default());
    let metrics = Grants { metrics: Some(recorded.clone()), ..all() };
    answers(metrics, json!({ "do": [{"count": ["n", [], 1]}], "repeat": 1000 })).await;
    assert_eq!(recorded.0.lock().expect("no panic").len(), 256);
    // Each message has its own.
    assert!(errors(&answers(grants(), json!([{"increment": ["n", 1, null]}])).await).is_empty());
}

#[tokio::test]
async fn bytes_have_an_end_either_way() {
    let state = Arc::new(Values::default());
    let grants = Grants { state: Some(state.clone()), ..all() };
    let limits = HostCallLimits { bytes: 200_000, ..HostCallLimits::default() };
    let answered = answers(
        Grants { limits: limits.clone(), ..grants },
        json!({ "do": [{"set_bytes": ["k", 50000]}], "repeat": 10 }),
    )
    .await;
    assert_eq!(errors(&answered).len(), 7);
    assert_eq!(state.calls.load(Ordering::SeqCst), 3);
    let large = answers(Grants { limits, ..all() }, json!([{"fetch": ["https://large/", null]}, {"get": "k"}])).await;
    assert!(errors(&large)[0].starts_with("Error::Limit"), "{large}");
}

#[tokio::test]
async fn waiting_costs_no_cpu_time_and_has_a_limit_of_its_own() {
    let slow = || Arc::new(Values { delay: Duration::from_millis(20), ..Values::default() });
    let cpu = Limits { cpu: Duration::from_millis(20), ..Limits::default() };
    let plugin = grantee(Grants { state: Some(slow()), ..all() }, Isolation::Message, cpu.clone()).await;
    // 600 ms of waiting under a limit of 20 ms of CPU.
    let waited = outcome(&plugin, json!({ "do": [{"get": "k"}], "repeat": 30 })).await.expect("not a deadline");
    assert!(errors(&waited).is_empty(), "{waited}");
    // What it computes still counts, before and after.
    let work = json!([{"get": "k"}, {"spin": 100_000_000_000_u64}]);
    assert!(matches!(outcome(&plugin, work).await, Err(GuestFailure::Deadline { .. })));

    let limits = HostCallLimits { wait: Duration::from_millis(50), ..HostCallLimits::default() };
    let plugin =
        grantee(Grants { state: Some(slow()), limits: limits.clone(), ..all() }, Isolation::Message, cpu).await;
    let waited = outcome(&plugin, json!({ "do": [{"get": "k"}], "repeat": 10 })).await.expect("not a deadline");
    assert!(errors(&waited).len() >= 7, "{waited}");
    assert!(errors(&waited).iter().all(|error| error.starts_with("Error::Unavailable")), "{waited}");
    let started = Instant::now();
    let silent = answers(Grants { limits, ..all() }, json!([{"fetch": ["https://silent/", null]}, {"get": "k"}])).await;
    assert_eq!(errors(&silent)[0], "Error::Timeout");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn host_calls_are_no_way_around_the_cpu_limit() {
    let limits = Limits { cpu: Duration::from_millis(50), ..Limits::default() };
    let plugin = grantee(all(), Isolation::Message, limits).await;
    let work = json!({ "do": [{"get": "k"}, {"spin": 2_000_000_000_u64}], "repeat": 64 });
    assert!(matches!(outcome(&plugin, work).await, Err(GuestFailure::Deadline { .. })));
}

#[tokio::test]
async fn an_abandoned_call_abandons_its_host_call() {
    let plugin = grantee(all(), Isolation::Reuse, Limits::default()).await;
    let work = message(json!([{"fetch": ["https://silent/", null]}]).to_string());
    let abandoned = tokio::time::timeout(Duration::from_millis(100), plugin.measure(Role::Transform, &work)).await;
    assert!(abandoned.is_err(), "it waits");
    assert_eq!(outcome(&plugin, json!([{"get": "k"}])).await.expect("the next is served"), json!([{"ok": null}]));
}
