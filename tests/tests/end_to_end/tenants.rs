//! Tenants at work: their pipelines through the API, live at once, over a restart and after kill -9, and nothing of others.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluicegate_tests::gateway::{Gateway, http_client};

const CONFIG: &str = "
auth: {}
tenants:
  targets:
    log: { file: { path: out.jsonl } }
    other: { file: { path: other.jsonl } }
";

struct Tenant {
    base: String,
    key: String,
    client: reqwest::Client,
}

impl Tenant {
    async fn new(gateway: &Gateway, name: &str) -> Result<Self> {
        let config = ["--config", "sluicegate.yaml"];
        gateway.command(&[&["tenant", "create", name, "--grant", "target=log"][..], &config].concat()).await?;
        let create = ["key", "create", "--tenant", name, "--name", "app", "--scopes", "ingest,read,admin", "--json"];
        let created: Value = serde_json::from_str(&gateway.command(&[&create[..], &config].concat()).await?)?;
        let key = created["key"].as_str().context("a key")?.to_owned();
        Ok(Self { base: gateway.url(""), key, client: http_client()? })
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Result<(u16, Value)> {
        let request = self.client.request(method.parse()?, format!("{}{path}", self.base)).bearer_auth(&self.key);
        let request = request.header("content-type", "application/json");
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.send().await?;
        let (status, text) = (answer.status().as_u16(), answer.text().await?);
        Ok((status, serde_json::from_str(&text).with_context(|| text.clone())?))
    }
}

fn pipeline(program: &str) -> Value {
    json!({
        "source": { "http": {} },
        "steps": [{ "filter": { "plugin": "jq", "config": { "program": program } } }],
        "targets": { "log": { "granted": "log" } },
    })
}

fn bodies(gateway: &Gateway) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(gateway.folder().join("out.jsonl"))?;
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_pipeline_is_live_when_it_is_answered_and_survives_kill_9() -> Result<()> {
    let mut gateway = Gateway::start(CONFIG).await?;
    let acme = Tenant::new(&gateway, "acme").await?;
    let form = json!({ "name": "orders", "document": pipeline(".n > 1") });
    let (status, made) = acme.call("POST", "/api/v1/pipelines", form.clone()).await?;
    assert_eq!((status, &made["state"]), (201, &json!("running")), "{made}");
    assert_eq!(acme.call("POST", "/api/v1/pipelines", form).await?.0, 409);
    assert_eq!(acme.call("POST", "/ingest/acme/orders", json!({ "n": 2 })).await?.0, 200);

    let dry = json!({ "message": { "data": { "n": 1 } } });
    let (status, dropped) = acme.call("POST", "/api/v1/pipelines/orders/dry-run", dry).await?;
    assert_eq!((status, dropped["dropped"].as_array().map(Vec::len)), (200, Some(1)), "{dropped}");
    let dry = json!({ "message": { "data": { "n": 9 } }, "document": pipeline(".n == 9") });
    let (_, published) = acme.call("POST", "/api/v1/pipelines/orders/dry-run", dry).await?;
    assert_eq!(published["published"][0]["message"]["data"], json!({ "n": 9 }), "{published}");

    let update = json!({ "document": pipeline(".n > 5"), "revision": 1 });
    assert_eq!(acme.call("PUT", "/api/v1/pipelines/orders", update.clone()).await?.0, 200);
    assert_eq!(acme.call("PUT", "/api/v1/pipelines/orders", update).await?.0, 409, "it was based on revision 1");
    for n in [3, 6] {
        assert_eq!(acme.call("POST", "/ingest/acme/orders", json!({ "n": n })).await?.0, 200);
    }
    assert_eq!(bodies(&gateway)?, [r#"{"n":2}"#, r#"{"n":6}"#], "3 was filtered by the new version");

    gateway.kill()?;
    gateway.restart().await?;
    assert_eq!(acme.call("POST", "/ingest/acme/orders", json!({ "n": 7 })).await?.0, 200);
    assert_eq!(bodies(&gateway)?.len(), 3);
    let (_, history) = acme.call("GET", "/api/v1/pipelines/orders/history", Value::Null).await?;
    assert_eq!(history["history"].as_array().map(Vec::len), Some(2));

    assert_eq!(acme.call("POST", "/api/v1/pipelines/orders/pause", json!({})).await?.1["state"], "paused");
    let resumed = acme.call("POST", "/api/v1/pipelines/orders/resume", json!({})).await?;
    assert_eq!(resumed.1["state"], "running");
    assert_eq!(acme.call("POST", "/ingest/acme/orders", json!({ "n": 8 })).await?.0, 200);
    assert_eq!(acme.call("DELETE", "/api/v1/pipelines/orders", Value::Null).await?.0, 200);
    assert_eq!(acme.call("GET", "/api/v1/pipelines/orders", Value::Null).await?.0, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_and_reaches_nothing_of_another() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let (acme, zeta) = (Tenant::new(&gateway, "acme").await?, Tenant::new(&gateway, "zeta").await?);
    let form = json!({ "name": "orders", "document": pipeline("true") });
    assert_eq!(acme.call("POST", "/api/v1/pipelines", form).await?.0, 201);
    assert_eq!(zeta.call("POST", "/ingest/acme/orders", json!({})).await?.0, 404);
    for (method, path) in [
        ("GET", "/api/v1/pipelines/orders"),
        ("PUT", "/api/v1/pipelines/orders"),
        ("DELETE", "/api/v1/pipelines/orders"),
        ("POST", "/api/v1/pipelines/orders/pause"),
        ("GET", "/api/v1/pipelines/orders/history"),
        ("POST", "/api/v1/pipelines/orders/dry-run"),
        ("GET", "/api/v1/mq/queues"),
        ("GET", "/api/v1/dead-letters"),
        ("GET", "/api/v1/messages"),
        ("GET", "/api/v1/tenants/acme"),
    ] {
        let body = match (method, path.ends_with("dry-run")) {
            ("PUT", _) => json!({ "document": pipeline("true") }),
            (_, true) => json!({ "message": { "data": 1 } }),
            _ => Value::Null,
        };
        let (status, answer) = zeta.call(method, path, body).await?;
        assert_eq!(status, 404, "{method} {path}: {answer}");
    }
    assert_eq!(zeta.call("GET", "/api/v1/pipelines", Value::Null).await?.1["pipelines"], json!([]));
    let form =
        json!({ "name": "p", "document": { "source": { "http": {} }, "targets": { "o": { "granted": "other" } } } });
    let (status, refused) = zeta.call("POST", "/api/v1/pipelines", form).await?;
    assert_eq!((status, refused["code"].as_str()), (422, Some("MQ_DOCUMENT_INVALID")), "{refused}");
    assert_eq!(refused["details"]["diagnostics"][0]["hint"], "you are granted log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_document_is_told_with_its_places_and_changes_nothing() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let acme = Tenant::new(&gateway, "acme").await?;
    let document = "source: { http: {} }\nsteps:\n  - filter: { plugin: jq, config: { programm: '.' } }\ntargets: { f: { file: { path: x } } }\n";
    let (status, answer) = acme.call("POST", "/api/v1/pipelines/validate", json!({ "document": document })).await?;
    assert_eq!((status, &answer["valid"]), (200, &json!(false)));
    let first = &answer["diagnostics"][0];
    assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(4), Some(17)), "{answer}");
    let form = json!({ "name": "p", "document": document });
    assert_eq!(acme.call("POST", "/api/v1/pipelines", form).await?.0, 422);
    assert_eq!(acme.call("GET", "/api/v1/pipelines", Value::Null).await?.1["pipelines"], json!([]));

    // What only the plugin knows has its place, too.
    let document = "source: { http: {} }\nsteps:\n  - filter: { plugin: jq, config: { programm: '.' } }\ntargets: { log: { granted: log } }\n";
    let (status, answer) = acme.call("POST", "/api/v1/pipelines", json!({ "name": "p", "document": document })).await?;
    assert_eq!(status, 422, "{answer}");
    let lines: Vec<_> =
        answer["details"]["diagnostics"].as_array().context("a list")?.iter().map(|d| &d["line"]).collect();
    assert_eq!(lines, [&json!(3), &json!(3)], "{answer}");

    let schema = json!({ "name": "order", "document": { "type": "object", "required": ["id"] } });
    assert_eq!(acme.call("POST", "/api/v1/schemas", schema).await?.0, 201);
    let tighter = json!({ "document": { "type": "object", "required": ["id", "at"] } });
    let (status, refused) = acme.call("PUT", "/api/v1/schemas/order", tighter.clone()).await?;
    assert_eq!((status, refused["details"]["incompatibilities"][0]["pointer"].as_str()), (422, Some("/required")));
    let mut tighter = tighter;
    tighter["compatibility"] = json!("none");
    assert_eq!(acme.call("PUT", "/api/v1/schemas/order", tighter).await?.0, 200);
    ensure!(gateway.status("/ready").await? == 200, "a tenant's mistakes are its own");
    Ok(())
}
