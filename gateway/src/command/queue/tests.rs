use std::path::Path;

use clap::Parser;
use serde_json::{Value, json};
use sluicegate_store::Location;
use sluicegate_store::queue::{Publication, Settings};
use tempfile::TempDir;

use super::*;
use crate::config::{self, Process};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: QueueCommand,
}

fn parse(words: &[&str]) -> Result<QueueCommand, clap::Error> {
    Line::try_parse_from(["queue"].into_iter().chain(words.iter().copied())).map(|line| line.command)
}

/// A gateway's store that stays open: every command runs beside it.
struct Beside {
    folder: TempDir,
    store: Arc<Store>,
    queues: Queues,
}

impl Beside {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.expect("a store"));
        Self { folder, queues: Queues::new(Arc::clone(&store)), store }
    }

    fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command; who is asked says no.
    async fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        self.run_asked(words, false).await
    }

    async fn run_asked(&self, words: &[&str], answer: bool) -> anyhow::Result<String> {
        let data_dir = self.data_dir().display().to_string();
        let words: Vec<&str> = words.iter().copied().chain(["--data-dir", &data_dir]).collect();
        let command = parse(&words)?;
        let mut out = Vec::new();
        let place = command.place().find()?;
        run(&command, &place, &mut |_| Ok(answer), &mut out).await?;
        Ok(String::from_utf8(out)?)
    }

    async fn says(&self, words: &[&str]) -> String {
        self.run(words).await.unwrap_or_else(|error| panic!("{words:?}: {error:#}"))
    }

    async fn refuses(&self, words: &[&str], part: &str) {
        let refused = self.run(words).await.expect_err("it is refused");
        assert!(format!("{refused:#}").contains(part), "{words:?}: {refused:#}");
    }

    async fn json(&self, words: &[&str]) -> Vec<Value> {
        let text = self.says(&[words, &["--json"]].concat()).await;
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[tokio::test]
async fn a_queue_is_made_listed_shown_changed_and_removed() {
    let beside = Beside::start().await;
    assert_eq!(beside.says(&["list"]).await, "no queues; `sluicegate queue create NAME` makes one\n");
    let said = beside.says(&["create", "orders", "--ttl", "1h", "--max-messages", "10", "--compression", "zstd"]).await;
    assert_eq!(said, "queue orders is there, at revision 1\n");
    assert_eq!(beside.says(&["update", "orders", "--max-age", "2d"]).await, "queue orders is updated, at revision 2\n");
    let queue = &beside.json(&["show", "orders"]).await[0];
    for (member, value) in [("ttlMs", json!(3_600_000)), ("compression", json!("zstd")), ("revision", json!(2))] {
        assert_eq!(queue[member], value, "{queue}");
    }
    assert_eq!(queue["retention"]["maxAgeMs"], 172_800_000);
    beside.says(&["create", "mail", "--kind", "delay", "--delay", "5m"]).await;
    let table = beside.says(&["list"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0].split_whitespace().next(), Some("QUEUE"));
    assert!(lines[1].starts_with("mail    delay   store    0"), "{table}");
    assert_eq!(lines[3], "2 queues; `sluicegate queue show NAME` shows one");
    assert!(
        beside.says(&["list", "--limit", "1"]).await.ends_with("1 queues, and there are more; --limit shows them\n")
    );
    let shown = beside.says(&["show", "orders"]).await;
    assert!(shown.contains("retention.maxMessages   10\n") && !shown.contains("delayMs"), "{shown}");

    assert_eq!(beside.says(&["delete", "mail"]).await, "nothing was deleted\n");
    assert_eq!(beside.run_asked(&["delete", "mail"], true).await.expect("deleted"), "queue mail is deleted\n");
    assert_eq!(beside.says(&["delete", "orders", "--yes"]).await, "queue orders is deleted\n");
    beside.refuses(&["show", "orders"], "no queue `orders`").await;
    beside.store.close().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_option_to_change() {
    let beside = Beside::start().await;
    beside.refuses(&["create", "a b"], "1 to 128").await;
    beside.refuses(&["create", "q", "--ttl", "1ms"], "--ttl: choose 1s to 3650d").await;
    beside.refuses(&["create", "q", "--delay", "5m"], "--delay").await;
    beside.refuses(&["create", "q", "--max-message", "1GiB"], "--max-message").await;
    beside.refuses(&["create", "q", "--max-messages", "0"], "or unlimited").await;
    beside.refuses(&["create", "q", "--kind", "fifo"], "normal, ordered and delay").await;
    beside.refuses(&["create", "q", "--ttl", "soon"], "length of time").await;
    for command in ["show", "groups", "messages", "update", "delete", "purge", "tail"] {
        beside.refuses(&[command, "nobody"], "no queue `nobody`").await;
    }
    beside.refuses(&["publish", "nobody", "1"], "no queue `nobody`").await;
    beside.says(&["create", "q"]).await;
    beside.refuses(&["create", "q", "--ttl", "5s"], "other properties").await;
    beside.refuses(&["cancel", "q", "nobody"], "no message `nobody`").await;
    for command in ["pause", "resume"] {
        beside.refuses(&[command, "q", "nobody"], "no group `nobody`").await;
    }
    beside.refuses(&["reset", "q", "g", "--to", "0"], "from 1").await;
    beside.refuses(&["publish", "q", "1", "--priority", "10"], "10 is not in 0..=9").await;
    beside.refuses(&["publish", "q", "1", "--delay", "31d"], "30 days").await;
    beside
        .refuses(&["publish", "q", "1", "--delay", "1s", "--at", "2026-11-20T16:00:00Z"], "cannot be used with")
        .await;
    assert!(parse(&["list", "--data-dir", "a", "--config", "b"]).is_err(), "the store is said once");
    beside.store.close().await;
}

#[tokio::test]
async fn messages_are_published_listed_taken_back_and_removed() {
    let beside = Beside::start().await;
    beside.says(&["create", "q"]).await;
    let words = [
        "publish",
        "q",
        r#"{"a":1}"#,
        "--id",
        "m-1",
        "--type",
        "t",
        "--key",
        "k",
        "--header",
        "h=v=w",
        "--priority",
        "9",
    ];
    assert_eq!(beside.says(&words).await, "m-1 at offset 1\n");
    let said = beside.says(&["publish", "q", "text", "--id", "m-2", "--delay", "1h"]).await;
    assert!(said.starts_with("m-2 scheduled for 20"), "{said}");
    let (_, message) = beside.queues.message("q", sluicegate_store::queue::Which::Id("m-1")).await.expect("a message");
    assert_eq!((message.kind.as_str(), message.content_type.as_deref()), ("t", Some("application/json")));
    assert_eq!((message.headers.text("h"), message.key.as_deref()), (Some("v=w"), Some(&b"k"[..])));

    let file = beside.data_dir().join("lines");
    std::fs::write(&file, "1\n\n 2 \r\n3").expect("written");
    let published = beside.json(&["publish", "q", "--lines", "--file", &file.display().to_string()]).await;
    assert_eq!(published.iter().map(|one| one["offset"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(3), Some(4)]);
    beside.refuses(&["publish", "q", "--file", "/nowhere"], "cannot open /nowhere").await;

    let table = beside.says(&["messages", "q"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("OFFSET  TIME") && lines[1].contains("ready  m-1"), "{table}");
    assert_eq!(lines[5], "4 messages");
    assert!(
        beside
            .says(&["messages", "q", "--limit", "2"])
            .await
            .ends_with("2 messages, and there are more; --limit shows them\n")
    );
    let scheduled = beside.json(&["messages", "q", "--state", "scheduled"]).await;
    assert_eq!((scheduled.len(), &scheduled[0]["id"]), (1, &json!("m-2")));
    let consumer = beside.queues.join("q", "g", Start::Earliest).await.expect("joined");
    consumer.claim(1, 1 << 20).await.expect("claimed");
    let claimed = beside.json(&["messages", "q", "--state", "claimed"]).await;
    assert_eq!(
        (&claimed[0]["id"], &claimed[0]["state"], &claimed[0]["group"]),
        (&json!("m-1"), &json!("claimed"), &json!("g"))
    );

    assert_eq!(beside.says(&["cancel", "q", "m-2"]).await, "message m-2 of the queue q is cancelled\n");
    beside.refuses(&["cancel", "q", "m-1"], "has been claimed").await;
    assert_eq!(beside.says(&["purge", "q"]).await, "nothing was removed\n");
    assert_eq!(beside.says(&["purge", "q", "--yes"]).await, "4 messages of the queue q are removed\n");
    beside.store.close().await;
}

#[tokio::test]
async fn groups_are_listed_paused_and_moved() {
    let beside = Beside::start().await;
    beside.says(&["create", "q"]).await;
    for body in ["1", "2", "3"] {
        beside.says(&["publish", "q", body]).await;
    }
    assert!(beside.says(&["groups", "q"]).await.starts_with("no groups"));
    beside.refuses(&["reset", "q", "g", "--to", "earliest", "--yes"], "no group `g`").await;
    let said = beside.says(&["reset", "q", "g", "--to", "earliest", "--create", "--yes"]).await;
    assert_eq!(said, "group g of the queue q has 3 messages before it\n");
    assert_eq!(beside.says(&["reset", "q", "g", "--to", "latest"]).await, "nothing was moved\n");
    let said = beside.says(&["reset", "q", "g", "--to", "3", "--yes"]).await;
    assert_eq!(said, "group g of the queue q has 1 messages before it\n");
    assert_eq!(beside.says(&["pause", "q", "g"]).await, "group g of the queue q is paused\n");
    let groups = beside.json(&["groups", "q"]).await;
    assert_eq!((&groups[0]["paused"], &groups[0]["lag"]), (&json!(true), &json!(1)));
    assert!(beside.says(&["show", "q"]).await.contains("\ng      paused  1    0"));
    assert_eq!(beside.says(&["resume", "q", "g"]).await, "group g of the queue q goes on\n");
    beside.store.close().await;
}

#[tokio::test]
async fn tail_shows_what_comes_and_takes_nothing_from_groups() {
    let beside = Beside::start().await;
    beside.queues.create("q", &Settings::default()).await.expect("a queue");
    let publish = async |id: &str, body: &str| {
        let mut message = sluicegate_engine::message::Message::new("s", "t", body.to_owned());
        message.id = id.to_owned();
        beside.queues.publish("q", vec![Publication::new(message)]).await.expect("published");
    };
    publish("old", "1").await;
    beside.queues.create_group("q", "g", Start::Earliest).await.expect("a group");
    let from_group = beside.says(&["tail", "q", "--group", "g", "--limit", "1"]).await;
    assert!(from_group.contains("  t  old  1\n"), "{from_group}");
    let publisher = async {
        // Until it has been seen: the tail may begin later than the first of them.
        for n in 0.. {
            publish(&format!("new-{n}"), "\u{1b}[2J").await;
        }
    };
    let seen = tokio::select! {
        seen = beside.json(&["tail", "q", "--limit", "2"]) => seen,
        () = publisher => unreachable!("it publishes for ever"),
    };
    assert!(seen.iter().all(|message| message["id"].as_str().is_some_and(|id| id.starts_with("new-"))), "{seen:?}");
    assert_eq!(beside.queues.group("q", "g").await.expect("a group").pending, 0);
    let terminal = beside.says(&["tail", "q", "--group", "g", "--limit", "2"]).await;
    assert!(!terminal.contains('\u{1b}') && terminal.contains("\\u{1b}[2J"), "{terminal}");
    beside.store.close().await;
}

#[tokio::test]
async fn with_the_configuration_declared_queues_and_schemas_are_known() {
    let beside = Beside::start().await;
    let file = beside.data_dir().join("sluicegate.yaml");
    let text = "data_dir: .
schemas: { order: { inline: { required: [id] } } }
queues: { declared: { schema: order } }
pipelines: { p: { source: { queue: declared }, targets: { out: { stdio: {} } } } }
";
    std::fs::write(&file, text).expect("written");
    let config = config::load(std::slice::from_ref(&file), &Process).unwrap_or_else(|wrong| panic!("{wrong}")).config;
    crate::queues::StoreQueues::new(&beside.queues).declare_all(&config.queues).await.expect("declared");
    let with_config = async |words: &[&str]| {
        let file = file.display().to_string();
        let command = parse(&[words, &["--config", &file]].concat())?;
        let mut out = Vec::new();
        let place = command.place().find()?;
        run(&command, &place, &mut |_| Ok(false), &mut out).await?;
        anyhow::Ok(String::from_utf8(out)?)
    };
    let refused = |answer: anyhow::Result<String>| format!("{:#}", answer.expect_err("refused"));
    assert!(refused(with_config(&["update", "declared", "--ttl", "5s"]).await).contains("change it there"));
    assert!(refused(with_config(&["create", "declared"]).await).contains("change it there"));
    assert!(refused(with_config(&["create", "q", "--schema", "nobody"]).await).contains("no schema `nobody`"));
    assert!(refused(with_config(&["publish", "declared", "{}"]).await).contains("message 1 was not published"));
    with_config(&["publish", "declared", r#"{"id":1}"#]).await.expect("published");
    beside.refuses(&["publish", "declared", r#"{"id":1}"#], "--config").await;
    beside.says(&["publish", "declared", "{}", "--unchecked"]).await;
    assert_eq!(beside.queues.get("declared").await.expect("a queue").messages, 2);
    beside.store.close().await;
}

#[tokio::test]
async fn a_queue_has_the_products_length_or_the_configurations_or_none() {
    let beside = Beside::start().await;
    let length = async |words: &[&str]| beside.json(words).await[0]["retention"]["maxMessages"].clone();
    assert_eq!(length(&["create", "plain"]).await, 10_000);
    assert_eq!(length(&["create", "long", "--max-messages", "unlimited"]).await, json!(null));
    assert_eq!(length(&["update", "long", "--ttl", "1h"]).await, json!(null), "what is left out stays");
    let file = beside.data_dir().join("sluicegate.yaml");
    let text = "data_dir: .\nqueue_defaults: { max_messages: 7 }\n\
        pipelines: { p: { source: { stdio: {} }, targets: { out: { stdio: {} } } } }\n";
    std::fs::write(&file, text).expect("written");
    let command =
        parse(&["create", "configured", "--json", "--config", &file.display().to_string()]).expect("a command");
    let mut out = Vec::new();
    let place = command.place().find().expect("a place");
    run(&command, &place, &mut |_| Ok(false), &mut out).await.expect("made");
    let made: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(made["retention"]["maxMessages"], 7);
    beside.store.close().await;
}
