use std::path::Path;

use clap::Parser;
use serde_json::{Value, json};
use sluicegate_store::Location;

use super::*;
use crate::trace::tests::filled;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: TraceArgs,
}

fn parse(line: &str) -> Result<TraceArgs, clap::Error> {
    Line::try_parse_from(["trace"].into_iter().chain(line.split_whitespace())).map(|line| line.args)
}

async fn answer(data_dir: &Path, line: &str) -> anyhow::Result<String> {
    let args = parse(&format!("{line} --data-dir {}", data_dir.display()))?;
    let mut out = Vec::new();
    run(&args, &args.store.find(None)?, &mut out).await?;
    Ok(String::from_utf8(out)?)
}

#[tokio::test]
async fn a_timeline_tells_every_event_and_nothing_of_the_body() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let text = answer(folder.path(), "m-1").await.expect("an answer");
    let expected = "\
Message m-1
  status          dead_lettered
  source          /orders
  type            order.created
  correlation id  c-1
  key             customer/7
  trace           4bf92f3577b34da6a3ce929d0e0e4736
  configuration   0123456789ab
  body            12 bytes

2025-11-20T16:00:00.000Z  orders  accepted
2025-11-20T16:00:00.010Z  orders  filter known (sha256:9f2c64d1b2a3…): passed
2025-11-20T16:00:00.011Z  orders  transform split (sha256:9f2c64d1b2a3…): made 2 messages of it
2025-11-20T16:00:00.012Z  orders  route region (sha256:9f2c64d1b2a3…): routed to eu, us
2025-11-20T16:00:00.020Z  orders  delivered to us
2025-11-20T16:00:00.050Z  orders  attempt 1 at eu failed: connection refused\\u{1b}[2J; again in 5s
2025-11-20T16:00:00.060Z  orders  parked at target `eu` until 2025-11-20T16:00:05.060Z: refused
2025-11-20T16:00:05.060Z  orders  goes on at target `eu`, attempt 2
2025-11-20T16:00:05.090Z  orders  attempt 2 at eu failed: connection refused\\u{1b}[2J; it was the last
2025-11-20T16:00:05.100Z  orders  dead letter 0193-a (target_failed): connection refused

Dead letters, kept until they are redriven or deleted
  0193-a  2025-11-20T16:00:05.100Z  target_failed  connection refused
";
    assert_eq!(text, expected);
    let waiting = answer(folder.path(), "m-2").await.expect("an answer");
    let line =
        "  waits at target `eu` until its target takes messages or its turn comes: target `eu` is not connected\n";
    assert!(waiting.contains("  status          parked\n") && waiting.contains(line), "{waiting}");
    store.close().await;
    let dropped = answer(folder.path(), "m/3").await.expect("an answer after the gateway has stopped");
    assert!(dropped.contains("filter known (sha256:9f2c64d1b2a3…): dropped: unknown: not a customer"), "{dropped}");
}

#[tokio::test]
async fn a_search_is_a_table_newest_first_or_json_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let table = answer(folder.path(), "--correlation-id c-1").await.expect("an answer");
    assert_eq!(
        table,
        "\
MESSAGE  BEGAN AT                  PIPELINE  SETTLEMENT     FAILURES  CORRELATION  KEY
m-1      2025-11-20T16:00:05.060Z  orders    dead_lettered  1         c-1          customer/7
m-2      2025-11-20T16:00:01.000Z  orders    parked         0         c-1          customer/7
m-1      2025-11-20T16:00:00.002Z  orders    parked         1         c-1          customer/7
3 receipts; `sluicegate trace ID` tells a message's whole way
"
    );
    for (line, ids) in [
        ("--key customer/7 --settlement parked", vec!["m-2", "m-1"]),
        ("--failed", vec!["m-1", "m-1"]),
        ("--pipeline orders --since 2025-11-20T16:00:01Z --until 2025-11-20T16:00:02.001Z", vec!["m/3", "m-2"]),
        ("--limit 1", vec!["m-1"]),
        ("--key other", vec![]),
    ] {
        let lines = answer(folder.path(), &format!("{line} --json")).await.expect("an answer");
        let found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(found.iter().map(|receipt| &receipt["id"]).collect::<Vec<_>>(), ids, "{line}");
    }
    let more = answer(folder.path(), "--limit 1").await.expect("an answer");
    assert!(more.ends_with("1 receipts, and there are more; --limit shows them\n"), "{more}");
    let none = answer(folder.path(), "--pipeline none").await.expect("an answer");
    assert!(none.starts_with("no receipts match; of messages without trouble only a share"), "{none}");
    store.close().await;
}

#[tokio::test]
async fn receipts_are_counted_by_pipeline_and_settlement() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let table = answer(folder.path(), "--counts").await.expect("an answer");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "PIPELINE  SETTLEMENT     RECEIPTS  FAILURES",
            "orders    dead_lettered  1         1",
            "orders    dropped        1         0",
            "orders    parked         2         1",
        ]
    );
    let json = answer(folder.path(), "--counts --failed --json").await.expect("an answer");
    let first: Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first, json!({ "pipeline": "orders", "settlement": "dead_lettered", "receipts": 1, "failures": 1 }));
    store.close().await;
}

#[tokio::test]
async fn what_is_not_known_is_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = answer(folder.path(), "m-1").await.expect_err("no store");
    assert!(format!("{missing:#}").contains("cannot read the receipts: no store at"), "{missing:#}");
    let store = filled(folder.path()).await;
    let unknown = answer(folder.path(), "m-77").await.expect_err("no such message").to_string();
    assert!(unknown.contains("`m-77`") && unknown.contains("1 % unless configured"), "{unknown}");

    let file = folder.path().join("sluicegate.yaml");
    let text = "data_dir: .\nreceipts: { sample: 0.5, keep: 3h }\n\
        pipelines: { p: { source: { stdio: {} }, targets: { t: { stdio: {} } } } }\n";
    std::fs::write(&file, text).expect("written");
    let args = parse(&format!("m-77 --config {}", file.display())).expect("a command");
    let unknown = run(&args, &args.store.find(None).expect("a place"), &mut Vec::new()).await.expect_err("no message");
    assert!(unknown.to_string().contains("50 % of them") && unknown.to_string().contains("is 3h"), "{unknown}");
    store.close().await;
}

#[test]
fn the_command_line_is_checked_before_anything_is_read() {
    for (line, complaint) in [
        ("m-1 --data-dir a --store postgres://h/d", "cannot be used with"),
        ("m-1 --data-dir a --config b", "cannot be used with"),
        ("m-1 --data-dir a --key k", "cannot be used with"),
        ("--data-dir a --settlement lost", "there are delivered, dropped"),
        ("--data-dir a --since yesterday", "how long ago it was"),
        ("--data-dir a --limit 0", "not in 1..=1000000"),
    ] {
        let refused = parse(line).expect_err(line).to_string();
        assert!(refused.contains(complaint), "{line}: {refused}");
    }
    let args = parse("m-1 --store postgres://u:secret@db/x").expect("valid");
    assert_eq!(args.store.find(None).expect("a place").options.location, Location::shared("postgres://u:secret@db/x"));
}
