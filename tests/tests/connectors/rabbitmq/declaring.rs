//! Exchanges, queues and bindings: declared again and again, of every kind, and refused in words that help.

use anyhow::Result;
use lapin::BasicProperties;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::source::Source;
use sluicegate_engine::target::Target;
use sluicegate_tests::{servers, unique};

use super::{bodies, channel, consume, declare, nothing_comes, publish, receive, source, target};

#[tokio::test]
async fn declaring_again_changes_nothing() -> Result<()> {
    let (exchange, queue) = (unique("events"), unique("q"));
    let settings = json!({
        "queue": queue, "exchange": { "name": exchange, "kind": "topic" }, "bindings": ["market.#", "agent.*.done"],
        "queue_options": { "arguments": { "x-max-length": 1_000 } }, "message_ttl": "1h",
    });
    let mut source = source(settings).await?;
    let first = source.connect().await?;
    let mut again = source.connect().await?;
    drop(first);
    let channel = channel().await?;
    for key in ["market.eu.open", "market", "agent.7.done"] {
        publish(&channel, &exchange, key, BasicProperties::default(), key.as_bytes()).await?;
    }
    let unbound = publish(&channel, &exchange, "agent.7.began", BasicProperties::default(), b"").await;
    assert!(unbound.is_err(), "no binding takes this");
    let mut received = bodies(&receive(&mut *again.inlet, 3).await?);
    received.sort();
    assert_eq!(received, ["agent.7.done", "market", "market.eu.open"]);
    Ok(())
}

#[tokio::test]
async fn exchanges_of_every_kind_bring_their_messages() -> Result<()> {
    let bindings = [
        ("topic", json!(["a.#"])),
        ("direct", json!(["a.b"])),
        ("fanout", json!([])),
        ("headers", json!([{ "arguments": { "x-match": "all", "region": "eu", "tier": 1 } }])),
    ];
    let channel = channel().await?;
    for (kind, bindings) in bindings {
        let (exchange, queue) = (unique(kind), unique("q"));
        let exchange_settings = json!({ "name": exchange, "kind": kind, "durable": false, "auto_delete": true });
        let settings = json!({ "queue": queue, "exchange": exchange_settings, "bindings": bindings });
        let mut connection = consume(settings).await?;
        let mut headers = FieldTable::default();
        headers.insert("region".into(), AMQPValue::LongString("eu".into()));
        headers.insert("tier".into(), AMQPValue::LongInt(1));
        publish(&channel, &exchange, "a.b", BasicProperties::default().with_headers(headers), kind.as_bytes()).await?;
        assert_eq!(bodies(&receive(&mut *connection.inlet, 1).await?), [kind]);
        nothing_comes(&mut *connection.inlet).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_queue_hears_several_exchanges() -> Result<()> {
    let (queue, commands, events) = (unique("q"), unique("commands"), unique("events"));
    let channel = channel().await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(events.as_str().into(), lapin::ExchangeKind::Topic, options, FieldTable::default())
        .await?;
    let mut connection = consume(json!({
        "queue": queue, "exchange": { "name": commands, "kind": "direct" },
        "bindings": ["run", { "exchange": events, "pattern": "#" }],
    }))
    .await?;
    publish(&channel, &commands, "run", BasicProperties::default(), b"command").await?;
    publish(&channel, &events, "any", BasicProperties::default(), b"event").await?;
    let mut received = bodies(&receive(&mut *connection.inlet, 2).await?);
    received.sort();
    assert_eq!(received, ["command", "event"]);
    Ok(())
}

async fn refused(settings: serde_json::Value) -> Result<Failure> {
    match source(settings).await?.connect().await {
        Err(failure) => Ok(failure),
        Ok(_) => anyhow::bail!("connected"),
    }
}

#[tokio::test]
async fn other_properties_than_the_brokers_are_permanent_and_named() -> Result<()> {
    let queue = unique("q");
    let channel = channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(5));
    channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), arguments).await?;
    let failure = refused(json!({ "queue": queue })).await?;
    assert_eq!(failure.kind, FailureKind::Permanent);
    for part in ["PRECONDITION_FAILED", "x-max-length", &queue, "declare: passive"] {
        assert!(failure.text.contains(part), "{part} in {failure}");
    }
    // Taken as it is, it works.
    let mut connection = consume(json!({ "queue": queue, "declare": "passive" })).await?;
    publish(&channel, "", &queue, BasicProperties::default(), b"x").await?;
    receive(&mut *connection.inlet, 1).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_missing_is_permanent_and_named() -> Result<()> {
    let missing = unique("missing");
    for declare in [json!("passive"), json!(false)] {
        let failure = refused(json!({ "queue": missing, "declare": declare })).await?;
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(failure.text.contains("NOT_FOUND") && failure.text.contains(&missing), "{failure}");
    }
    let failure = refused(json!({ "queue": unique("q"), "exchange": missing, "bindings": ["#"] })).await?;
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert!(failure.text.contains(&missing) && failure.text.contains("kind"), "{failure}");
    let failure = target(json!({ "queue": missing, "declare": "passive" })).await?.connect().await.err();
    assert_eq!(failure.map(|failure| failure.kind), Some(FailureKind::Permanent));
    Ok(())
}

#[tokio::test]
async fn an_exchange_kind_without_its_plugin_is_permanent_and_named() -> Result<()> {
    let failure = refused(json!({
        "queue": unique("q"), "bindings": ["#"],
        "exchange": { "name": unique("e"), "kind": "x-delayed-message", "arguments": { "x-delayed-type": "topic" } },
    }))
    .await?;
    assert_eq!(failure.kind, FailureKind::Permanent, "{failure}");
    assert!(failure.text.contains("x-delayed-message") && failure.text.contains("plugin"), "{failure}");
    Ok(())
}

#[tokio::test]
async fn credentials_are_refused_without_being_shown() -> Result<()> {
    let broker = servers::rabbitmq().await?;
    for (url, part) in [
        (format!("amqp://guest:hunter2@{}/%2f", broker.host_and_port()), "user and password"),
        (format!("amqp://guest:guest@{}/nowhere", broker.host_and_port()), "virtual host"),
    ] {
        let config = serde_json::from_value(json!({ "url": url, "queue": unique("q") }))?;
        let failure = super::RabbitmqSource::new(&config, &super::context()).connect().await.err();
        let Some(failure) = failure else { anyhow::bail!("connected to {url}") };
        assert_eq!(failure.kind, FailureKind::Permanent, "{failure}");
        assert!(failure.text.contains(part) && failure.text.contains(broker.host_and_port()), "{failure}");
        assert!(!failure.text.contains("hunter2"), "{failure}");
    }
    Ok(())
}

#[tokio::test]
async fn no_broker_is_a_lost_connection() -> Result<()> {
    let port = sluicegate_tests::port::Port::reserve()?;
    let url = format!("amqp://guest:hunter2@127.0.0.1:{}", port.number());
    let config = serde_json::from_value(json!({ "url": url, "queue": "q" }))?;
    let failure = super::RabbitmqTarget::new(&config, &super::context()).connect().await.err();
    let Some(failure) = failure else { anyhow::bail!("connected") };
    assert_eq!(failure.kind, FailureKind::Disconnected, "{failure}");
    assert!(failure.text.contains("is the broker running"), "{failure}");
    assert!(!failure.text.contains("hunter2"), "{failure}");
    Ok(())
}

#[tokio::test]
async fn an_exclusive_queue_of_another_is_tried_again() -> Result<()> {
    let queue = unique("q");
    let channel = channel().await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await?;
    let failure = refused(json!({ "queue": queue, "declare": false })).await?;
    assert!(matches!(failure.kind, FailureKind::Transient { .. }), "{failure:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_declared_where_that_is_off() -> Result<()> {
    let queue = unique("q");
    let channel = channel().await?;
    declare(&channel, &queue).await?;
    let exchange = json!({ "name": unique("never"), "kind": "topic" });
    let settings = json!({ "queue": queue, "exchange": exchange, "bindings": ["#"], "declare": false });
    let mut connection = consume(settings).await?;
    publish(&channel, "", &queue, BasicProperties::default(), b"x").await?;
    receive(&mut *connection.inlet, 1).await?;
    Ok(())
}
