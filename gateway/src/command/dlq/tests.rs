use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};
use sluicegate_engine::dead_letter::{Attempt, DeadLetter, DeadLetters};
use sluicegate_engine::failure::SchemaError;
use sluicegate_engine::message::{Body, Message};
use sluicegate_store::{Location, Store};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: DlqCommand,
}

fn parse(line: &str) -> Result<DlqCommand, clap::Error> {
    Line::try_parse_from(["dlq"].into_iter().chain(line.split_whitespace())).map(|line| line.command)
}

fn embedded(data_dir: &Path) -> Place {
    Place { options: Location::embedded(data_dir).into(), config: None }
}

async fn answer(data_dir: &Path, line: &str) -> anyhow::Result<String> {
    let command = parse(&format!("{line} --data-dir {}", data_dir.display()))?;
    assert_eq!(command.store().data_dir.as_deref(), Some(data_dir));
    let mut out = Vec::new();
    run(&command, &embedded(data_dir), &mut out).await?;
    Ok(String::from_utf8(out)?)
}

/// A guest trapped on a message that a transform had changed.
fn trapped() -> DeadLetter {
    let mut original = Message::new("/orders", "order.created", &br#"{ "id": 7 }"#[..]);
    original.id = "m-1".to_owned();
    original.time_ms = 1_763_654_398_000;
    original.content_type = Some("application/json".to_owned());
    original.headers.append("x-note", "first\u{1b}[2J");
    original.headers.append("x-note", "second");
    original.headers.append("x-raw", vec![0xff_u8, 0xfe]);
    let mut failing = original.clone();
    failing.body = Body::from(&br#"{"id":7,"seen":true}"#[..]);
    DeadLetter {
        id: "0193-a".to_owned(),
        failed_at_ms: 1_763_654_400_123,
        pipeline: "orders".into(),
        config_version: "0123456789ab".into(),
        original: Arc::new(original),
        at_failure: Arc::new(failing),
        step: Some("route region".into()),
        target: None,
        class: FailureClass::Trap,
        error: "plugin `region`: trapped: unreachable".to_owned(),
        schema_errors: Vec::new(),
        plugin: Some("region".to_owned()),
        plugin_digest: Some("sha256:9f2c".to_owned()),
        backtrace: vec!["region::pick".to_owned(), "region::route".to_owned()],
        attempts: vec![Attempt { number: 1, at_ms: 1_763_654_400_000, error: "trapped".to_owned() }],
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        redrive_count: 2,
    }
}

/// A body that does not satisfy its schema and is not even text.
fn violating() -> DeadLetter {
    let mut message = Message::new("/events", "event", vec![0x00_u8, 0xff]);
    message.id = "m-2".to_owned();
    let message = Arc::new(message);
    DeadLetter {
        id: "0193-b".to_owned(),
        failed_at_ms: 1_763_654_401_000,
        pipeline: "events".into(),
        at_failure: Arc::clone(&message),
        original: message,
        step: Some("validate event".into()),
        class: FailureClass::Schema,
        error: "the body does not satisfy schema `event`".to_owned(),
        schema_errors: vec![
            SchemaError { pointer: "/customer/email".to_owned(), text: "is not an email".to_owned() },
            SchemaError { pointer: String::new(), text: "lacks `id`".to_owned() },
        ],
        plugin: None,
        plugin_digest: None,
        backtrace: Vec::new(),
        attempts: Vec::new(),
        trace_id: None,
        redrive_count: 0,
        ..trapped()
    }
}

/// The store stays open: every test reads beside a writer.
async fn filled(data_dir: &Path) -> Store {
    let store = Store::open(&Location::embedded(data_dir)).await.expect("a store");
    for letter in [trapped(), violating()] {
        store.record(&Arc::new(letter)).await.expect("recorded");
    }
    store
}

#[tokio::test]
async fn the_list_is_a_table_newest_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let table = answer(folder.path(), "list").await.expect("an answer");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "ID      FAILED AT             PIPELINE  AT              CLASS   TRIES  MESSAGE  ERROR",
            "0193-b  2025-11-20T16:00:01Z  events    validate event  schema  0      m-2      the body does not satisfy schema `event`",
            "0193-a  2025-11-20T16:00:00Z  orders    route region    trap    1      m-1      plugin `region`: trapped: unreachable",
        ]
    );
    assert_eq!(lines[3], "2 dead letters; `sluicegate dlq show ID` explains one");
    store.close().await;
    let after = answer(folder.path(), "list --limit 1").await.expect("an answer after the gateway has stopped");
    assert!(after.ends_with("1 of 2 dead letters; --limit shows more\n"), "{after}");
}

#[tokio::test]
async fn the_list_is_json_lines_that_obey_the_filter() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let lines = answer(folder.path(), "list --json --pipeline orders --class trap").await.expect("an answer");
    let letter: Value = serde_json::from_str(lines.trim_end()).expect("one line of JSON");
    assert_eq!(
        letter,
        json!({
            "id": "0193-a", "failed_at": "2025-11-20T16:00:00.123Z", "pipeline": "orders", "step": "route region",
            "target": null, "class": "trap", "error": "plugin `region`: trapped: unreachable", "plugin": "region",
            "attempts": 1, "redrive_count": 2, "message_id": "m-1", "message_type": "order.created",
            "body_bytes": 11, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        })
    );
    for nothing in ["--since 1h", "--until 2020-01-01T00:00:00Z", "--target eu", "--text nowhere"] {
        assert_eq!(answer(folder.path(), &format!("list --json {nothing}")).await.expect("an answer"), "", "{nothing}");
    }
    let none = answer(folder.path(), "list --target eu").await.expect("an answer");
    assert_eq!(none, "no dead letters match\n");
    store.close().await;
}

#[tokio::test]
async fn a_long_list_goes_on_past_one_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.expect("a store"));
    let mut recording = tokio::task::JoinSet::new();
    for index in 0..1_500 {
        let store = Arc::clone(&store);
        let letter = Arc::new(DeadLetter { id: format!("{index:04}"), ..trapped() });
        recording.spawn(async move { store.record(&letter).await });
    }
    while let Some(recorded) = recording.join_next().await {
        recorded.expect("no panic").expect("recorded");
    }
    let lines = answer(folder.path(), "list --json --limit 1200").await.expect("an answer");
    let ids: Vec<String> = lines.lines().map(|line| line[7..11].to_owned()).collect();
    let expected: Vec<String> = (300..1_500).rev().map(|index| format!("{index:04}")).collect();
    assert_eq!(ids, expected);
    store.close().await;
}

#[tokio::test]
async fn show_explains_everything_and_steers_no_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let shown = answer(folder.path(), "show 0193-a").await.expect("an answer");
    let expected = r#"Dead letter 0193-a
  failed at       2025-11-20T16:00:00.123Z
  pipeline        orders
  configuration   0123456789ab
  step            route region
  class           trap
  plugin          region
  plugin digest   sha256:9f2c
  trace           4bf92f3577b34da6a3ce929d0e0e4736
  redriven        2 times

Error
  plugin `region`: trapped: unreachable

Guest backtrace, innermost first
    0  region::pick
    1  region::route

Attempts
    1  2025-11-20T16:00:00.000Z  trapped

Message as received
  id              m-1
  source          /orders
  type            order.created
  time            2025-11-20T15:59:58.000Z
  content type    application/json
  attempt         1
  headers
    x-note: first\u{1b}[2J
    x-note: second
    x-raw: //4= (base64 of 2 bytes that are not UTF-8)
  body (11 bytes, JSON laid out for reading)
    {
      "id": 7
    }

Message when it failed
"#;
    assert!(shown.starts_with(expected), "{shown}");
    assert!(shown.ends_with("      \"seen\": true\n    }\n"), "{shown}");
    let shown = answer(folder.path(), "show 0193-b").await.expect("an answer");
    assert!(
        shown.contains("\nSchema errors\n  /customer/email  is not an email\n  (the whole body)  lacks `id`\n"),
        "{shown}"
    );
    assert!(shown.contains("  body (2 bytes, not UTF-8, as base64)\n    AP8=\n"), "{shown}");
    assert!(shown.ends_with("\nMessage when it failed: as received\n"), "{shown}");
    store.close().await;
}

#[tokio::test]
async fn show_as_json_leaves_nothing_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let shown = answer(folder.path(), "show 0193-a --json").await.expect("an answer");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["plugin_digest"], "sha256:9f2c");
    assert_eq!(shown["backtrace"], json!(["region::pick", "region::route"]));
    assert_eq!(shown["attempts"], json!([{ "number": 1, "at": "2025-11-20T16:00:00.000Z", "error": "trapped" }]));
    assert_eq!(shown["original"]["body"], json!({ "text": "{ \"id\": 7 }" }), "JSON with blanks is kept as it came");
    assert_eq!(shown["at_failure"]["body"], json!({ "json": { "id": 7, "seen": true } }));
    let headers = json!([
        { "name": "x-note", "value": { "text": "first\u{1b}[2J" } },
        { "name": "x-note", "value": { "text": "second" } },
        { "name": "x-raw", "value": { "base64": "//4=" } },
    ]);
    assert_eq!(shown["original"]["headers"], headers);
    let shown = answer(folder.path(), "show 0193-b --json").await.expect("an answer");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["schema_errors"][0], json!({ "pointer": "/customer/email", "error": "is not an email" }));
    assert_eq!(shown["at_failure"], Value::Null);
    store.close().await;
}

#[tokio::test]
async fn a_large_body_is_cut_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&Location::embedded(folder.path())).await.expect("a store");
    let mut letter = violating();
    letter.original = Arc::new(Message::new("/s", "k", "ä".repeat(20_000)));
    letter.at_failure = Arc::clone(&letter.original);
    store.record(&Arc::new(letter)).await.expect("recorded");
    let shown = answer(folder.path(), "show 0193-b").await.expect("an answer");
    assert!(shown.contains("  body (40000 bytes)\n"), "{shown}");
    assert!(shown.contains("    … 23616 more bytes of it; --json prints all\n"), "{shown}");
    store.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = answer(folder.path(), "list").await.expect_err("no store");
    assert!(format!("{missing:#}").contains("no gateway has run with this data folder yet"), "{missing:#}");
    let store = filled(folder.path()).await;
    let unknown = answer(folder.path(), "show 77").await.expect_err("no such letter");
    assert!(unknown.to_string().contains("`sluicegate dlq list` shows those there are"), "{unknown}");
    let ambiguous = answer(folder.path(), "show 0193").await.expect_err("two such letters");
    assert!(ambiguous.to_string().contains("0193-a, 0193-b; give more of it"), "{ambiguous}");
    store.close().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    for line in ["list", "list --json", "show 0193-a", "show 0193-a --json"] {
        let command = parse(&format!("{line} --data-dir .")).expect("a command");
        run(&command, &embedded(folder.path()), &mut Gone).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    store.close().await;
}

#[test]
fn the_data_folder_is_given_or_the_configurations() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sluicegate.yaml");
    let store = StoreArgs { config: Some(file.clone()), ..StoreArgs::default() };
    let refused = store.find(None).expect_err("no such file");
    assert!(refused.to_string().contains("--data-dir DIR or --store URL names it without one"), "{refused}");
    let text = "data_dir: kept\npipelines: { p: { source: { stdio: {} }, targets: { t: { stdio: {} } } } }\n";
    std::fs::write(&file, text).expect("written");
    assert_eq!(store.find(None).expect("a folder").options.location, Location::embedded(folder.path().join("kept")));
    let store = StoreArgs { data_dir: Some("elsewhere".into()), ..StoreArgs::default() };
    assert_eq!(store.find(None).expect("a folder").options.location, Location::embedded("elsewhere"));
}

#[test]
fn the_command_line_is_checked_before_anything_is_read() {
    for (line, complaint) in [
        ("list --store postgres://h/d --data-dir a", "cannot be used with"),
        ("redrive --data-dir a --all --rate 0/s", "not a rate"),
        ("redrive --data-dir a --all --patch {", "not JSON"),
        ("redrive --data-dir a --all --id x", "cannot be used with"),
        ("list --data-dir a --config b", "cannot be used with"),
        ("list --data-dir a --class explosion", "there are schema, rejected"),
        ("list --data-dir a --since yesterday", "how long ago it was"),
        ("redrive --data-dir a --all --limit 5", "--dry-run"),
        ("list --data-dir a --limit 0", "not in 1..=1000000"),
        ("show --data-dir a", "required"),
    ] {
        let refused = parse(line).expect_err(line).to_string();
        assert!(refused.contains(complaint), "{line}: {refused}");
    }
    let DlqCommand::List(args) =
        parse("list --config c.yaml --since 7d --until 2026-11-20T16:00:00+01:00").expect("valid")
    else {
        panic!("a list")
    };
    let since = args.filter.since.expect("given");
    let week = Timestamp::now().duration_since(since).as_hours();
    assert_eq!(week, 7 * 24);
    assert_eq!(args.filter.until.expect("given").to_string(), "2026-11-20T15:00:00Z");
}

#[tokio::test]
async fn causes_are_shown_with_an_example() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let text = answer(folder.path(), "groups").await.expect("an answer");
    assert!(text.contains("orders at route region  trap") && text.ends_with("lists the letters of one\n"), "{text}");
    let json = answer(folder.path(), "groups --json --class schema").await.expect("an answer");
    let group: Value = serde_json::from_str(&json).expect("one line");
    assert_eq!((&group["count"], &group["sample"]), (&json!(1), &json!("0193-b")));
    store.close().await;
}

#[tokio::test]
async fn what_destroys_must_be_confirmed_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    for (line, complaint) in [
        ("delete 0193-a", "Give --yes"),
        ("purge --class trap", "Give --yes"),
        ("purge --yes", "say which dead letters"),
        ("purge --all --class trap --yes", "leave it or the filters out"),
        ("redrive", "say which dead letters"),
        ("redrive --id 0193-a --class trap", "leave the filters out"),
        ("redrive --all --dry-run", "give --config FILE"),
        ("redrive --pipeline none", "there is nothing to redrive"),
        ("edit 0193-a", "say what to change"),
        ("pause nobody", "`sluicegate dlq jobs` shows those there are"),
    ] {
        let refused = format!("{:#}", answer(folder.path(), line).await.expect_err(line));
        assert!(refused.contains(complaint), "{line}: {refused}");
    }
    assert_eq!(answer(folder.path(), "purge --class trap --yes").await.expect("purged"), "1 dead letters deleted\n");
    assert_eq!(answer(folder.path(), "delete 0193-b --yes").await.expect("deleted"), "0193-b is deleted\n");
    assert_eq!(answer(folder.path(), "list").await.expect("an answer"), "no dead letters match\n");
    store.close().await;
}

#[tokio::test]
async fn an_edit_is_shown_beside_what_was_received_and_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let edited = answer(folder.path(), "edit 0193-a --body new --header x-a:1 --by me").await.expect("edited");
    assert!(edited.contains("--dry-run"), "{edited}");
    let shown = answer(folder.path(), "show 0193-a").await.expect("an answer");
    assert!(shown.contains("To be redriven with, edited by me at ") && shown.contains("x-a: 1"), "{shown}");
    let lines = answer(folder.path(), "export").await.expect("exported");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["edit"]["body"], json!({ "text": "new" }));
    assert_eq!(lines[1]["original"]["body"], json!({ "text": "{ \"id\": 7 }" }), "as it came");
    answer(folder.path(), "edit 0193-a --undo").await.expect("undone");
    let shown = answer(folder.path(), "show 0193-a --json").await.expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON")["edit"], Value::Null);
    store.close().await;
}

#[tokio::test]
async fn a_job_is_created_without_a_gateway_and_controlled() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let job = answer(folder.path(), "redrive --all --detach --json --rate 5/s --by me").await.expect("created");
    let job: Value = serde_json::from_str(&job).expect("JSON");
    assert_eq!((&job["state"], &job["total"], &job["rate_per_second"]), (&json!("running"), &json!(2), &json!(5)));
    let id = job["id"].as_str().expect("an id");
    let listed = answer(folder.path(), "jobs").await.expect("an answer");
    assert!(listed.contains(id) && listed.contains("2 letters at 5/s: 2 pending"), "{listed}");
    assert!(answer(folder.path(), &format!("pause {id}")).await.expect("paused").contains("paused"));
    assert!(answer(folder.path(), &format!("resume {id}")).await.expect("resumed").contains("running"));
    assert!(answer(folder.path(), &format!("cancel {id}")).await.expect("cancelled").contains("2 skipped"));
    let refused = answer(folder.path(), &format!("resume {id}")).await.expect_err("it has ended");
    assert!(refused.to_string().contains("cancelled already"), "{refused}");
    let shown = answer(folder.path(), &format!("jobs {id}")).await.expect("an answer");
    assert!(shown.contains("0193-a  skipped        the job was cancelled"), "{shown}");
    store.close().await;
}
