//! `sluicegate bench` on real servers: every side carries its load, and nothing of it stays in the brokers.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluicegate_tests::gateway::binary;
use sluicegate_tests::servers;
use tokio::process::Command;

/// Two systems, three sides, a trial, a round and a second of latency each, with an unoptimised gateway.
const LIMIT: Duration = Duration::from_secs(300);

async fn bench(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.arg("bench").args(arguments).env_remove("AMQP_URL").env_remove("REDIS_URL").kill_on_drop(true);
    let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    Ok(tokio::time::timeout(LIMIT, output).await.context("bench takes too long")??)
}

#[tokio::test]
async fn both_systems_are_measured_and_nothing_is_left_in_them() -> Result<()> {
    let (rabbitmq, redis) = (servers::rabbitmq().await?, servers::redis().await?);
    let load = ["--seconds", "1", "--rounds", "1", "--latency-rate", "50", "--without-steps", "--json"];
    let urls = ["--amqp-url", rabbitmq.url(), "--redis-url", redis.url()];
    let output = bench(&[&urls[..], &load[..]].concat()).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");

    let report: Value = serde_json::from_slice(&output.stdout)?;
    let systems = report["systems"].as_array().context("systems")?;
    assert_eq!(systems.iter().map(|system| &system["system"]).collect::<Vec<_>>(), ["rabbitmq", "redis"]);
    for system in systems {
        let sides = system["sides"].as_array().context("sides")?;
        let names: Vec<&Value> = sides.iter().map(|side| &side["side"]).collect();
        assert_eq!(names, ["bare", "gateway_without_steps", "gateway"]);
        for side in sides {
            let positive = |pointer: &str| side.pointer(pointer).and_then(Value::as_f64).is_some_and(|n| n > 0.0);
            for pointer in ["/messages_per_second/median", "/ratio", "/cpu_us_per_message/median", "/peak_bytes"] {
                assert!(positive(pointer), "{pointer} of {side}");
            }
            assert_eq!(side["rounds"].as_array().map(Vec::len), Some(1));
            assert_eq!(side["latency"]["messages"], 50);
            assert!(positive("/latency/p50_us"), "{side}");
        }
    }

    ensure_ingestion(&report["ingestion"])?;

    let mut client = redis.connect().await?;
    let streams: Vec<String> = redis::cmd("KEYS").arg("sluicegate-bench-*").query_async(&mut client).await?;
    assert_eq!(streams, Vec::<String>::new());
    Ok(())
}

/// Both sides have taken requests, and every message that the gateway accepted has reached its target, once.
fn ensure_ingestion(report: &Value) -> Result<()> {
    let sides = report["sides"].as_array().with_context(|| format!("no sides in {report}"))?;
    let names: Vec<&Value> = sides.iter().map(|side| &side["side"]).collect();
    ensure!(names == ["bare", "gateway"] && report["connections"] == 64, "{report}");
    for side in sides {
        let positive = |pointer: &str| side.pointer(pointer).and_then(Value::as_f64).is_some_and(|n| n > 0.0);
        for pointer in ["/requests_per_second/median", "/ratio", "/cpu_us_per_request/median", "/peak_bytes"] {
            ensure!(positive(pointer), "{pointer} of {side}");
        }
        let rounds = side["rounds"].as_array().context("rounds")?;
        ensure!(rounds.len() == 1 && rounds[0]["accepted"].as_u64() > Some(0), "{side}");
    }
    let round = &sides[1]["rounds"][0];
    ensure!(round["delivered"] == round["accepted"], "{round}");
    Ok(())
}

#[tokio::test]
async fn ingestion_alone_needs_no_broker_and_prints_its_ratio() -> Result<()> {
    let output = bench(&["--only", "http", "--seconds", "1", "--rounds", "1"]).await?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{errors}");
    ensure!(text.contains("HTTP ingestion, 202 once on disk, from 64 connections"), "{text}");
    let row = text.lines().find(|line| line.trim_start().starts_with("gateway")).context("no row of the gateway")?;
    ensure!(row.contains(" of ") && row.contains("MiB"), "{row}");
    let ratio =
        text.split_once("the gateway at ").and_then(|(_, rest)| rest.split_once(" of the bare server; goal 0.70"));
    let (ratio, _) = ratio.with_context(|| format!("no ratio in {text}"))?;
    ensure!(ratio.parse::<f64>().is_ok_and(|ratio| ratio > 0.0), "{ratio}");
    Ok(())
}

#[tokio::test]
async fn a_side_that_fails_is_quoted_and_a_broker_that_is_not_there_named() -> Result<()> {
    let redis = servers::redis().await?;
    let wrong = ["--only", "redis", "--redis-url", redis.url(), "--filter", "{ plugin: no-such-plugin }"];
    let output = bench(&wrong).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("the gateway ended") && errors.contains("no-such-plugin"), "{errors}");

    // Port 1 is reserved and nobody listens there.
    let nobody = ["--only", "rabbitmq", "--amqp-url", "amqp://guest:sec-ret@127.0.0.1:1"];
    let output = bench(&nobody).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("cannot connect to RabbitMQ; check --amqp-url"), "{errors}");
    assert!(!errors.contains("sec-ret"), "{errors}");
    Ok(())
}
