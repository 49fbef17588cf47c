//! Wrong credentials: the gateway stays, says so without the password, is not ready, and serves what it can.

use anyhow::Result;
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::{servers, unique};

use crate::clients::RECOVERY_LIMIT;

const PASSWORD: &str = "correct-horse-battery-staple";

/// A pipeline that cannot connect, beside one that can.
fn beside_a_good_one(source: &str) -> String {
    format!(
        "pipelines:
  locked-out:
    source: {{ {source} }}
    targets: {{ out: {{ file: {{ path: locked-out.jsonl }} }} }}
  good:
    source: {{ http: {{ path: /ingest/good }} }}
    targets: {{ out: {{ file: {{ path: good.jsonl }} }} }}
"
    )
}

async fn assert_up_but_not_ready(gateway: &mut Gateway) -> Result<()> {
    gateway.await_status("/ready", 503, RECOVERY_LIMIT).await?;
    assert_eq!(gateway.status("/health").await?, 200);
    let answer = http_client()?.post(gateway.url("/ingest/good")).body("{}").send().await?;
    assert_eq!(answer.status(), 200, "the other pipeline");
    // It has tried, and tried again.
    gateway.await_output("locked-out", RECOVERY_LIMIT).await;
    assert_eq!(gateway.status("/ready").await?, 503);
    Ok(())
}

fn assert_no_password(gateway: &Gateway, texts: &[&str]) {
    assert!(!gateway.output().contains(PASSWORD), "the password is in the log");
    for text in texts {
        assert!(!text.contains(PASSWORD), "the password is in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_refuses_the_password() -> Result<()> {
    let broker = servers::rabbitmq().await?;
    let url = format!("amqp://guest:{PASSWORD}@{}/%2f", broker.host_and_port());
    let config = beside_a_good_one(&format!("rabbitmq: {{ url: '{url}', queue: {} }}", unique("in")));
    let mut gateway = Gateway::start_unready(&config).await?;
    assert_up_but_not_ready(&mut gateway).await?;
    gateway.await_output("ACCESS_REFUSED", RECOVERY_LIMIT).await;
    let ready = http_client()?.get(gateway.url("/ready")).send().await?.text().await?;
    assert_no_password(&gateway, &[&ready, &gateway.text("/metrics").await?]);
    assert!(ready.contains("locked-out"), "/ready does not say which pipeline: {ready}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_refuses_the_password_until_it_is_set() -> Result<()> {
    let redis = servers::redis().await?;
    let user = unique("user");
    let url = redis.url().replace("redis://", &format!("redis://{user}:{PASSWORD}@"));
    let config = beside_a_good_one(&format!("redis: {{ url: '{url}', stream: {} }}", unique("in")));
    let mut gateway = Gateway::start_unready(&config).await?;
    assert_up_but_not_ready(&mut gateway).await?;
    gateway.await_output("refused the user or password", RECOVERY_LIMIT).await;
    assert_no_password(&gateway, &[]);
    // A change on the other side is enough.
    let mut client = redis.connect().await?;
    let rule = format!(">{PASSWORD}");
    redis::cmd("ACL").arg(&["SETUSER", &user, "on", &rule, "~*", "&*", "+@all"]).exec_async(&mut client).await?;
    gateway.await_status("/ready", 200, RECOVERY_LIMIT * 3).await?;
    assert_no_password(&gateway, &[]);
    Ok(())
}
