//! Dead letters kept in RabbitMQ.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use lapin::BasicProperties;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::parse_time;
use sluicegate_connectors::rabbitmq::{DeadLetterConfig, RabbitmqDeadLetters, SourceConfig};
use sluicegate_engine::dead_letter::{Attempt, DeadLetter, DeadLetters};
use sluicegate_engine::failure::{FailureClass, FailureKind};
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_tests::unique;

use super::{channel, consume, context, on_shared, publish, ready, receive, take};

fn letter(original: Message) -> Arc<DeadLetter> {
    let original = Arc::new(original);
    Arc::new(DeadLetter {
        id: unique("letter"),
        failed_at_ms: now_ms(),
        pipeline: Arc::from("orders"),
        config_version: Arc::from("0123456789ab"),
        original: Arc::clone(&original),
        at_failure: original,
        step: Some(Arc::from("transform jq")),
        target: None,
        class: FailureClass::Trap,
        error: "plugin `jq`: trapped: unreachable".to_owned(),
        schema_errors: Vec::new(),
        plugin: Some("jq".to_owned()),
        plugin_digest: Some("sha256:abc".to_owned()),
        backtrace: Vec::new(),
        attempts: (1..=5).map(|number| Attempt { number, at_ms: now_ms(), error: "trapped".to_owned() }).collect(),
        trace_id: None,
        redrive_count: 0,
    })
}

async fn letters(settings: Value) -> Result<RabbitmqDeadLetters> {
    let source: SourceConfig = serde_json::from_value(on_shared(json!({ "queue": "unused" })).await?)?;
    let config: DeadLetterConfig = serde_json::from_value(settings)?;
    anyhow::ensure!(config.problems(Some(&source)).is_empty(), "{:?}", config.problems(Some(&source)));
    Ok(RabbitmqDeadLetters::new(&config, Some(&source), &context()))
}

fn texts(properties: &BasicProperties) -> BTreeMap<String, String> {
    let table = properties.headers().clone().unwrap_or_default();
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    table.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

#[tokio::test]
async fn a_dead_letter_has_the_original_and_tells_why() -> Result<()> {
    let (exchange, dead, queue, channel) = (unique("e"), unique("dead"), unique("q"), channel().await?);
    let settings = json!({ "queue": queue, "exchange": { "name": exchange, "kind": "topic" }, "bindings": ["#"] });
    let mut connection = consume(settings).await?;
    let mut headers = FieldTable::default();
    headers.insert("binary".into(), AMQPValue::LongString(vec![0xff, 0x00].into()));
    let properties = BasicProperties::default().with_headers(headers).with_message_id("m-1".into());
    publish(&channel, &exchange, "market.open", properties, b"\xffbody").await?;
    let original = receive(&mut *connection.inlet, 1).await?.remove(0).message;
    let letters = letters(json!({ "exchange": dead })).await?;
    let letter = letter(original);
    letters.record(&letter).await?;
    let taken = take(&channel, &dead).await?;
    assert_eq!(taken.data, b"\xffbody");
    assert_eq!(taken.exchange.as_str(), dead);
    assert_eq!(taken.routing_key.as_str(), "market.open");
    assert_eq!(*taken.properties.delivery_mode(), Some(2));
    assert_eq!(taken.properties.message_id().as_ref().map(|id| id.as_str()), Some("m-1"));
    let table = taken.properties.headers().clone().context("headers")?;
    assert_eq!(table.inner().get("binary"), Some(&AMQPValue::LongString(vec![0xff, 0x00].into())));
    let texts = texts(&taken.properties);
    let expected = [
        ("x-error", "plugin `jq`: trapped: unreachable"),
        ("x-original-exchange", exchange.as_str()),
        ("x-original-routing-key", "market.open"),
        ("x-retry-count", "4"),
        ("x-sluicegate-id", letter.id.as_str()),
        ("x-sluicegate-pipeline", "orders"),
        ("x-sluicegate-step", "transform jq"),
        ("x-sluicegate-class", "trap"),
        ("x-sluicegate-plugin-digest", "sha256:abc"),
    ];
    for (name, value) in expected {
        assert_eq!(texts.get(name).map(String::as_str), Some(value), "{name}");
    }
    let failed_at = texts.get("x-failed-at").context("x-failed-at")?;
    assert_eq!(parse_time(failed_at), Ok(letter.failed_at_ms));
    Ok(())
}

#[tokio::test]
async fn a_message_of_another_system_and_a_huge_error_fit() -> Result<()> {
    let (dead, channel) = (unique("dead"), channel().await?);
    let letters = letters(json!({ "exchange": dead, "retry_header": "x-tries" })).await?;
    let mut original = Message::new("web", "order.created", "{}");
    original.headers.append("large", vec![b'x'; 131_000]);
    let mut letter = Arc::unwrap_or_clone(letter(original));
    letter.error = "ä".repeat(100_000);
    letters.record(&Arc::new(letter)).await?;
    let taken = take(&channel, &dead).await?;
    let texts = texts(&taken.properties);
    assert_eq!(texts.get("x-error").map(String::len), Some(4_096));
    assert_eq!(texts.get("x-original-exchange").map(String::as_str), Some(""));
    assert_eq!(texts.get("x-tries").map(String::as_str), Some("4"));
    assert_eq!(texts.get("large"), None, "more headers than a frame holds are left out");
    assert_eq!(taken.data, b"{}");
    Ok(())
}

#[tokio::test]
async fn exchange_and_queue_deleted_under_way_come_back() -> Result<()> {
    let (dead, kept, channel) = (unique("dead"), unique("kept"), channel().await?);
    let exchange = json!({ "name": dead, "kind": "direct" });
    let letters = letters(json!({ "exchange": exchange, "queue": kept, "routing_key": "all" })).await?;
    letters.record(&letter(Message::new("web", "k", "1"))).await?;
    assert_eq!(take(&channel, &kept).await?.routing_key.as_str(), "all");
    channel.queue_delete(kept.as_str().into(), QueueDeleteOptions::default()).await?;
    let failure = letters.record(&letter(Message::new("web", "k", "2"))).await.expect_err("no queue");
    assert!(matches!(failure.kind, FailureKind::Transient { .. }), "{failure:?}");
    letters.record(&letter(Message::new("web", "k", "2"))).await?;
    assert_eq!(take(&channel, &kept).await?.data, b"2");
    channel.exchange_delete(dead.as_str().into(), ExchangeDeleteOptions::default()).await?;
    assert!(letters.record(&letter(Message::new("web", "k", "3"))).await.is_err());
    letters.record(&letter(Message::new("web", "k", "3"))).await?;
    assert_eq!(take(&channel, &kept).await?.data, b"3");
    Ok(())
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_named() -> Result<()> {
    let (dead, channel) = (unique("dead"), channel().await?);
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(dead.as_str().into(), lapin::ExchangeKind::Fanout, options, FieldTable::default()).await?;
    let wrong = letters(json!({ "exchange": dead })).await?;
    let failure = wrong.record(&letter(Message::new("web", "k", "1"))).await.expect_err("it is a fanout exchange");
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert!(failure.text.contains("fanout") && failure.text.contains(&dead), "{failure}");
    let right = letters(json!({ "exchange": { "name": dead, "kind": "fanout" } })).await?;
    right.record(&letter(Message::new("web", "k", "1"))).await?;
    assert_eq!(ready(&channel, &dead).await?, 1);
    Ok(())
}

#[tokio::test]
async fn many_at_once_share_one_connection() -> Result<()> {
    let (dead, channel) = (unique("dead"), channel().await?);
    let letters = letters(json!({ "exchange": dead })).await?;
    let batch: Vec<_> = (0..100).map(|n: u32| letter(Message::new("web", "k", n.to_string()))).collect();
    let results = futures_util::future::join_all(batch.iter().map(|letter| letters.record(letter))).await;
    for result in results {
        result?;
    }
    assert_eq!(ready(&channel, &dead).await?, 100);
    Ok(())
}
