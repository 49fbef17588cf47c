//! Dead letters as an operator meets them: a target refuses, its letters have one cause, a dry run tells what would
//! happen, and a job delivers them, however often the gateway dies meanwhile.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::webhook::Webhook;

use crate::clients::{ARRIVAL_LIMIT, body};

fn orders(hook: &str) -> String {
    format!(
        "pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders, respond: accepted }} }}
    targets: {{ hook: {{ http: {{ url: '{hook}' }} }} }}
    retry: {{ initial_delay: 50ms, max_delay: 200ms, max_attempts: 50 }}
"
    )
}

async fn get(gateway: &Gateway, path: &str) -> Result<Value> {
    let answer = http_client()?.get(gateway.url(path)).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "GET {path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

async fn post(gateway: &Gateway, path: &str, form: &Value) -> Result<(u16, Value)> {
    let answer = http_client()?.post(gateway.url(path)).body(form.to_string()).send().await?;
    let (status, text) = (answer.status().as_u16(), answer.text().await?);
    Ok((status, serde_json::from_str(&text).with_context(|| format!("POST {path}: {status} {text}"))?))
}

/// Posts numbered orders to a gateway whose webhook refuses them for good, until each is a dead letter.
async fn fail(gateway: &Gateway, webhook: &Webhook, count: usize) -> Result<()> {
    webhook.answer(400);
    let client = http_client()?;
    for number in 0..count {
        let answer = client.post(gateway.url("/ingest/orders")).body(body(number)).send().await?;
        ensure!(answer.status() == 202, "order {number}: {}", answer.status());
    }
    eventually("all are dead letters", ARRIVAL_LIMIT, async || {
        let groups = get(gateway, "/api/v1/dead-letters/groups").await?;
        ensure!(groups["groups"][0]["count"] == count, "{groups}");
        Ok(())
    })
    .await;
    Ok(())
}

/// Bodies of requests that were answered with a success.
fn delivered(webhook: &Webhook) -> BTreeSet<String> {
    let accepted = webhook.received().into_iter().filter(|request| request.status.is_success());
    accepted.map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_refused_is_understood_tried_and_delivered() -> Result<()> {
    let webhook = Webhook::start().await?;
    let gateway = Gateway::start(&orders(&webhook.url())).await?;
    fail(&gateway, &webhook, 30).await?;

    let groups = get(&gateway, "/api/v1/dead-letters/groups").await?;
    ensure!(groups["groups"].as_array().map(Vec::len) == Some(1), "one cause: {groups}");
    let cause = groups["groups"][0]["cause"].clone();
    let form = json!({ "filter": { "cause": cause }, "dryRun": true, "limit": 5, "from": "start", "patch": { "fixed": true } });
    let (status, forecast) = post(&gateway, "/api/v1/dead-letters/redrive", &form).await?;
    ensure!(status == 200 && forecast["forecasts"].as_array().map(Vec::len) == Some(5), "{status} {forecast}");
    let first = &forecast["forecasts"][0];
    ensure!(first["expected"] == json!({ "outcome": "delivered", "targets": ["hook"] }), "{first}");
    ensure!(first["bodyChanges"] == json!([{ "pointer": "/fixed", "old": null, "new": true }]), "{first}");
    let text = gateway.command(&["dlq", "redrive", "--config", "sluicegate.yaml", "--all", "--dry-run"]).await?;
    ensure!(text.contains("+ delivered to hook") && text.contains("20 dead letters tried"), "{text}");
    ensure!(delivered(&webhook).is_empty(), "a dry run sends nothing");

    // The webhook still refuses: they fail again, and stay.
    let arguments = ["dlq", "redrive", "--config", "sluicegate.yaml", "--all", "--json", "--rate", "1000/s"];
    let job: Value = serde_json::from_str(&gateway.command(&arguments).await?)?;
    ensure!(job["state"] == "done" && job["counts"]["dead_lettered"] == 30, "{job}");
    let letters = get(&gateway, "/api/v1/dead-letters?limit=100").await?;
    let letters = letters["deadLetters"].as_array().context("letters")?;
    ensure!(letters.len() == 30 && letters.iter().all(|letter| letter["redriveCount"] == 1), "{letters:?}");

    webhook.answer(204);
    let began = std::time::Instant::now();
    let form = json!({ "filter": {}, "from": "start", "patch": { "fixed": true }, "ratePerSecond": 20, "by": "me" });
    let (status, job) = post(&gateway, "/api/v1/dead-letters/redrive", &form).await?;
    ensure!(status == 201, "{status} {job}");
    let path = format!("/api/v1/redrives/{}", job["id"].as_str().context("an id")?);
    let job = eventually("the job is done", ARRIVAL_LIMIT, async || {
        let job = get(&gateway, &path).await?;
        ensure!(job["state"] == "done", "{job}");
        Ok(job)
    })
    .await;
    ensure!(
        began.elapsed().as_secs_f64() > 0.9,
        "30 at 20 a second, after the first half second's: {:?}",
        began.elapsed()
    );
    ensure!(job["counts"]["delivered"] == 30 && job["by"] == "me", "{job}");
    ensure!(get(&gateway, "/api/v1/dead-letters").await?["deadLetters"] == json!([]), "they are gone");
    let expected: BTreeSet<String> = (0..30).map(|number| format!(r#"{{"number":{number},"fixed":true}}"#)).collect();
    ensure!(delivered(&webhook) == expected, "{:?}", delivered(&webhook));
    let items = get(&gateway, &format!("{path}/items?state=delivered&limit=1000")).await?;
    ensure!(items["items"].as_array().map(Vec::len) == Some(30), "{items}");
    ensure!(items["items"][0]["outcome"] == "delivered to hook", "{items}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_while_it_redrives_goes_on_and_loses_nothing() -> Result<()> {
    const LETTERS: usize = 500;
    let webhook = Webhook::start().await?;
    let mut gateway = Gateway::start(&orders(&webhook.url())).await?;
    fail(&gateway, &webhook, LETTERS).await?;
    webhook.answer(204);
    let form = json!({ "filter": {}, "ratePerSecond": 250 });
    let (status, job) = post(&gateway, "/api/v1/dead-letters/redrive", &form).await?;
    ensure!(status == 201, "{status} {job}");
    let path = format!("/api/v1/redrives/{}", job["id"].as_str().context("an id")?);
    for goal in [50, 200, 350] {
        eventually("some are delivered", ARRIVAL_LIMIT, async || {
            ensure!(delivered(&webhook).len() >= goal, "{}", delivered(&webhook).len());
            Ok(())
        })
        .await;
        gateway.kill()?;
        gateway.restart().await?;
    }
    let job = eventually("the job is done", ARRIVAL_LIMIT, async || {
        let job = get(&gateway, &path).await?;
        ensure!(job["state"] == "done", "{job}");
        Ok(job)
    })
    .await;
    ensure!(job["counts"]["delivered"] == LETTERS, "{job}");
    ensure!(delivered(&webhook) == (0..LETTERS).map(body).collect(), "every message is delivered");
    ensure!(get(&gateway, "/api/v1/dead-letters").await?["deadLetters"] == json!([]), "no letter is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_repaired_over_http() -> Result<()> {
    let webhook = Webhook::start().await?;
    let gateway = Gateway::start(&orders(&webhook.url())).await?;
    fail(&gateway, &webhook, 3).await?;
    let list = get(&gateway, "/api/v1/dead-letters?pipeline=orders&limit=1").await?;
    let id = list["deadLetters"][0]["id"].as_str().context("an id")?.to_owned();
    ensure!(list["next"].is_string(), "{list}");
    let client = http_client()?;
    let url = gateway.url(&format!("/api/v1/dead-letters/{id}"));

    let edit = client.patch(&url).body(json!({ "body": { "number": 7 }, "by": "me" }).to_string()).send().await?;
    let edited: Value = serde_json::from_str(&edit.error_for_status()?.text().await?)?;
    ensure!(edited["edit"]["body"] == json!({ "json": { "number": 7 } }) && edited["edit"]["by"] == "me", "{edited}");
    ensure!(edited["original"]["body"] != edited["edit"]["body"], "the record stays: {edited}");
    webhook.answer(204);
    let (status, _) = post(&gateway, "/api/v1/dead-letters/redrive", &json!({ "ids": [id] })).await?;
    ensure!(status == 201, "{status}");
    eventually("the edited one is delivered", ARRIVAL_LIMIT, async || {
        ensure!(delivered(&webhook).contains(r#"{"number":7}"#), "{:?}", delivered(&webhook));
        Ok(())
    })
    .await;
    eventually("its letter is gone", ARRIVAL_LIMIT, async || {
        ensure!(client.get(&url).send().await?.status() == 404, "it is there");
        Ok(())
    })
    .await;

    let export =
        client.get(gateway.url("/api/v1/dead-letters/export")).send().await?.error_for_status()?.text().await?;
    let lines: Vec<Value> = export.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 2 && lines.iter().all(|line| line["attempts"].is_array()), "{export}");
    let (status, purged) =
        post(&gateway, "/api/v1/dead-letters/purge", &json!({ "filter": { "class": "target_refused" } })).await?;
    ensure!(status == 200 && purged == json!({ "deleted": 2 }), "{status} {purged}");
    for (form, code) in [
        (json!({}), "MQ_INVALID_REQUEST"),
        (json!({ "filter": { "colour": "red" } }), "MQ_INVALID_REQUEST"),
        (json!({ "filter": {}, "ratePerSecond": 0 }), "MQ_INVALID_REQUEST"),
        (json!({ "filter": {} }), "MQ_DEAD_LETTER_NOT_FOUND"),
        (json!({ "ids": ["none"] }), "MQ_DEAD_LETTER_NOT_FOUND"),
    ] {
        let (_, refused) = post(&gateway, "/api/v1/dead-letters/redrive", &form).await?;
        ensure!(refused["code"] == code, "{form}: {refused}");
    }
    let (status, refused) = post(&gateway, "/api/v1/redrives/none/pause", &json!({})).await?;
    ensure!(status == 404 && refused["code"] == "MQ_REDRIVE_NOT_FOUND", "{refused}");
    Ok(())
}
