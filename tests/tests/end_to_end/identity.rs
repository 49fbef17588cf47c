//! The real gateway with keys: the first one, those of commands beside it, ingestion, the access log, a webhook that may
//! not reach inside.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::{Gateway, http_client};

const CONFIG: &str = "
auth: {}
pipelines:
  orders:
    source: { http: { path: /ingest/orders } }
    targets: { out: { file: { path: orders.jsonl } } }
";

/// The key that the gateway printed.
fn first_key(gateway: &Gateway) -> Result<String> {
    let output = gateway.output();
    let key = output.split_whitespace().find(|word| word.starts_with("sgk_"));
    Ok(key.with_context(|| format!("there is no key in {output}"))?.to_owned())
}

async fn whoami(gateway: &Gateway, key: &str) -> Result<u16> {
    let request = http_client()?.get(gateway.url("/api/v1/whoami")).bearer_auth(key);
    Ok(request.send().await?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_opens_the_gateway_and_commands_make_others() -> Result<()> {
    let mut gateway = Gateway::start(CONFIG).await?;
    let first = first_key(&gateway)?;
    let client = http_client()?;
    let url = gateway.url("/ingest/orders");
    assert_eq!(client.post(&url).body("{}").send().await?.status(), 401, "without a key");
    assert_eq!(client.post(&url).header("x-api-key", &first).body("{\"n\":1}").send().await?.status(), 200);

    let location = ["--config", "sluicegate.yaml"];
    let run = async |arguments: &[&str]| gateway.command(&[arguments, &location].concat()).await;
    run(&["tenant", "create", "acme", "--quota", "plugins=2"]).await?;
    let shown: Value = serde_json::from_str(&run(&["tenant", "show", "acme", "--json"]).await?)?;
    assert_eq!(shown["quotas"]["plugins"], 2);
    let created =
        run(&["key", "create", "--tenant", "acme", "--name", "ci", "--scopes", "ingest,read", "--json"]).await?;
    let created: Value = serde_json::from_str(&created)?;
    let (key, prefix) = (created["key"].as_str().context("a key")?, created["prefix"].as_str().context("a prefix")?);
    assert_eq!(whoami(&gateway, key).await?, 200);
    // What is the operator's is none of a tenant's.
    assert_eq!(client.post(&url).header("x-api-key", key).body("{\"n\":2}").send().await?.status(), 404);
    let listed = run(&["key", "list", "--tenant", "acme"]).await?;
    assert!(listed.contains(prefix) && !listed.contains(&key[17..]), "{listed}");

    run(&["key", "revoke", prefix, "--tenant", "acme"]).await?;
    eventually("the revoked key is refused", Duration::from_secs(1), async || {
        let status = whoami(&gateway, key).await?;
        ensure!(status == 401, "{status}");
        Ok(())
    })
    .await;
    let audit = client.get(gateway.url("/api/v1/audit?action=key.")).bearer_auth(&first).send().await?;
    let audit: Value = serde_json::from_str(&audit.text().await?)?;
    let actions: Vec<&Value> = audit["entries"].as_array().context("entries")?.iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, [&json!("key.revoke"), &json!("key.create")]);

    // The first key is made once, and nothing else of keys is ever printed.
    ensure!(gateway.stop().await?.success(), "it stops");
    gateway.restart().await?;
    assert_eq!(whoami(&gateway, &first).await?, 200);
    let output = gateway.output();
    assert!(output.matches("sgk_").count() <= 1, "{output}");
    assert!(!output.contains(&key[17..]), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_says_who_did_what() -> Result<()> {
    let config = CONFIG.replace("auth: {}", "auth: { service_token: a-token-of-at-least-32-characters }");
    let folder = sluicegate_tests::gateway::new_folder()?;
    let port = sluicegate_tests::port::Port::reserve()?;
    let server = format!("server: {{ listen: '{}', access_log: true }}\ndata_dir: ./data\n", port.address());
    std::fs::write(folder.path().join("sluicegate.yaml"), format!("{server}{config}"))?;
    let gateway = Gateway::start_file(folder, "sluicegate.yaml", port, &[]).await?;
    let token = "a-token-of-at-least-32-characters";
    let request = http_client()?.get(gateway.url("/internal/mq/queues/none?token=hunter2"));
    assert_eq!(request.header("x-service-token", token).send().await?.status(), 404);
    gateway.await_output("/internal/mq/queues/{name}", Duration::from_secs(10)).await;
    let output = gateway.output();
    let line = output.lines().find(|line| line.contains("/internal/mq/queues/{name}")).context("a line")?;
    for part in ["GET", "404", "127.0.0.1", "service", "operator", "latency_ms"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!output.contains(token) && !output.contains("hunter2"), "{output}");
    Ok(())
}
