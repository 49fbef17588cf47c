//! Every example runs as its README says: the commands are taken from there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluicegate_tests::gateway::{Gateway, http_client, new_folder, run_binary};
use sluicegate_tests::process::run;
use sluicegate_tests::servers::{RabbitMq, Redis};
use sluicegate_tests::webhook::Webhook;
use sluicegate_tests::{eventually, port::Port};

use crate::clients::ARRIVAL_LIMIT;

/// How every README runs the gateway; the tests have it built already.
const CARGO_RUN: &str = "cargo run --release -- ";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An example in a checkout of its own, running, with its README's other commands ready to be run.
struct Example {
    gateway: Gateway,
    commands: String,
    environment: Vec<(&'static str, String)>,
}

impl Example {
    /// Copies the example, takes the commands from its README, and runs the one that runs the gateway.
    async fn start(name: &str, environment: Vec<(&'static str, String)>) -> Result<Self> {
        let readme = std::fs::read_to_string(repository().join("examples").join(name).join("README.md"));
        Self::start_as_told(name, &readme.context("every example has a README.md")?, environment).await
    }

    async fn start_as_told(name: &str, readme: &str, mut environment: Vec<(&'static str, String)>) -> Result<Self> {
        let checkout = new_folder()?;
        let folder = checkout.path().join("examples").join(name);
        std::fs::create_dir(checkout.path().join("examples"))?;
        run("cp", |command| {
            command.arg("-r").arg(repository().join("examples").join(name)).arg(checkout.path().join("examples"));
        })?;
        for made in ["data", "out"] {
            if folder.join(made).exists() {
                std::fs::remove_dir_all(folder.join(made))?; // by somebody who tried the example
            }
        }
        let commands = commands(readme);
        let port = Port::reserve()?;
        environment.push(("SLUICEGATE_LISTEN", port.address().to_string()));
        let run_line = format!("{CARGO_RUN}run examples/{name}/sluicegate.yaml");
        ensure!(commands.lines().any(|line| line == run_line), "the README of {name} does not say: {run_line}");
        let config = format!("examples/{name}/sluicegate.yaml");
        let gateway = Gateway::start_file(checkout, &config, port, &environment).await?;
        // What the README's reader types, but for the port, which is taken on this machine.
        let rest = commands.lines().filter(|line| *line != run_line && !line.starts_with("cargo test "));
        let commands = rest.collect::<Vec<_>>().join("\n");
        let commands = commands.replace("127.0.0.1:8080", &gateway.address().to_string());
        Ok(Self { gateway, commands, environment })
    }

    /// Runs the README's commands like a shell session and returns all they print.
    async fn session(&self) -> Result<String> {
        let (folder, environment) = (self.gateway.folder().to_owned(), self.environment.clone());
        let binary = sluicegate_tests::gateway::binary()?.display().to_string();
        let script = self.commands.replace(CARGO_RUN, &format!("'{binary}' "));
        let session = tokio::task::spawn_blocking(move || {
            run("bash", |command| {
                command.args(["-euo", "pipefail", "-c", &script]).current_dir(folder).envs(environment);
            })
        });
        session.await?
    }

    fn lines(&self, file: &str) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.gateway.folder().join(file)).with_context(|| file.to_owned())?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// The contents of a README's `sh` blocks.
fn commands(readme: &str) -> String {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside => commands.push(command),
            _prose => {}
        }
    }
    commands.join("\n")
}

/// The statuses of the answers that `curl -i` printed.
fn statuses(session: &str) -> Vec<&str> {
    // The bodies before them do not end their lines.
    session.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.split(' ').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn quickstart() -> Result<()> {
    let example = Example::start("quickstart", Vec::new()).await?;
    let session = example.session().await?;
    assert_eq!(statuses(&session), ["200", "200", "422"], "{session}");
    for told in ["MQ_SCHEMA_VIOLATION", "/customer/email", "1 dead letters"] {
        assert!(session.contains(told), "{told:?} is not in {session}"); // the refusal, its pointer, `dlq list`
    }
    let delivered = example.lines("examples/quickstart/out/eu.jsonl")?;
    assert_eq!(delivered.len(), 1);
    assert_eq!((&delivered[0]["id"], &delivered[0]["customer"]["email"]), (&"o-1".into(), &"***".into()));
    assert!(example.lines("examples/quickstart/out/us.jsonl").unwrap_or_default().is_empty());
    let letters = example.gateway.command(&["dlq", "list", "--json", "--data-dir", "examples/quickstart/data"]).await?;
    let letters: Vec<Value> = letters.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["class"], "schema");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_s_first_commands() -> Result<()> {
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let (start, _) = readme.split_once("## A pipeline").context("the README's parts have other names")?;
    let example = Example::start_as_told("quickstart", start, Vec::new()).await?;
    let session = example.session().await?;
    assert_eq!(statuses(&session), ["200", "422"], "{session}");
    for told in [r#""email":"***""#, "MQ_SCHEMA_VIOLATION", "1 dead letters"] {
        assert!(session.contains(told), "{told:?} is not in {session}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn event_bus() -> Result<()> {
    let broker = RabbitMq::start().await?;
    let example = Example::start("event-bus", vec![("AMQP_URL", broker.url().to_owned())]).await?;
    // The file is read as soon as the answer is there; the command is still on its way through two queues.
    let (cat, post) = example.commands.lines().partition::<Vec<_>, _>(|line| line.starts_with("cat "));
    assert_eq!(cat, ["cat examples/event-bus/out/commands.jsonl"]);
    let example = Example { commands: post.join("\n"), ..example };
    let session = example.session().await?;
    assert_eq!(statuses(&session), ["200"], "{session}");
    let commands = eventually("the command arrives", ARRIVAL_LIMIT, async || {
        let lines = example.lines("examples/event-bus/out/commands.jsonl")?;
        ensure!(!lines.is_empty(), "the file is empty");
        Ok(lines)
    })
    .await;
    assert_eq!(commands.len(), 1);
    assert_eq!((&commands[0]["id"], &commands[0]["type"]), (&"e-1".into(), &"agent.task.requested".into()));
    assert_eq!(commands[0]["correlationid"], "c-1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_fanout() -> Result<()> {
    let (redis, webhook) = tokio::try_join!(Redis::start(), Webhook::start())?;
    let environment = vec![("REDIS_URL", redis.url().to_owned()), ("HOOK_URL", webhook.url())];
    let example = Example::start("stream-fanout", environment).await?;
    let commands = example.commands.replace("redis-cli ", &format!("redis-cli -u {} ", redis.url()));
    let example = Example { commands, ..example };
    example.session().await?;
    let mut client = redis.connect().await?;
    let large = r#"{"id":"o-2","region":"us","amount":5000}"#;
    redis::cmd("XADD").arg(&["orders", "*", "data", large]).exec_async(&mut client).await?;
    let elsewhere = r#"{"id":"o-3","region":"jp","amount":1}"#;
    redis::cmd("XADD").arg(&["orders", "*", "data", elsewhere]).exec_async(&mut client).await?;
    eventually("each is where it belongs, and acknowledged", ARRIVAL_LIMIT, async || {
        for (stream, count) in [("orders-eu", 1), ("orders-us", 1), ("orders-rest", 1)] {
            let length: usize = redis::cmd("XLEN").arg(stream).query_async(&mut client).await?;
            ensure!(length == count, "{stream} has {length}");
        }
        let (pending, ..): (usize, redis::Value, redis::Value, redis::Value) =
            redis::cmd("XPENDING").arg(&["orders", "sluicegate"]).query_async(&mut client).await?;
        ensure!(pending == 0, "{pending} are pending");
        Ok(())
    })
    .await;
    let received = webhook.received();
    assert_eq!(received.len(), 1, "only the large one");
    assert_eq!(received[0].body, large);
    assert!(received[0].headers.contains_key("webhook-signature"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tenant_router() -> Result<()> {
    let example = Example::start("tenant-router", Vec::new()).await?;
    let session = example.session().await?;
    assert_eq!(statuses(&session), ["200"], "{session}");
    assert!(session.contains("roles:   route\n"), "plugin inspect shows the role: {session}");
    let review = example.lines("examples/tenant-router/out/review.jsonl")?;
    assert_eq!(review.len(), 1);
    assert_eq!(review[0]["amount"], 5000);
    Ok(())
}

/// State outlives the message, and the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn deduplicate() -> Result<()> {
    let example = Example::start("deduplicate", Vec::new()).await?;
    let session = example.session().await?;
    assert_eq!(statuses(&session), ["200", "200"], "{session}");
    assert!(session.contains("grants:  state, metrics"), "plugin inspect shows what it needs: {session}");
    for counted in ["first", "repeated"] {
        let series = format!("sluicegate_plugin_counter_seen_total{{plugin=\"deduplicate\",outcome=\"{counted}\"}} 1");
        assert!(session.contains(&series), "{series} is not in {session}");
    }
    assert_eq!(example.lines("examples/deduplicate/out/once.jsonl")?.len(), 1);
    let Example { mut gateway, .. } = example;
    gateway.kill()?;
    gateway.restart().await?;
    let answer = http_client()?
        .post(gateway.url("/ingest/orders"))
        .header("content-type", "application/json")
        .body(r#"{"id":"o-1"}"#)
        .send()
        .await?;
    assert_eq!(answer.status(), 200);
    let once = std::fs::read_to_string(gateway.folder().join("examples/deduplicate/out/once.jsonl"))?;
    assert_eq!(once.lines().count(), 1, "it is known after a restart: {once}");
    Ok(())
}

/// A service that is asked over HTTP, with the secret.
#[tokio::test(flavor = "multi_thread")]
async fn enrich() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let customers = format!("http://{}", listener.local_addr()?);
    let service = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut connection, _) = listener.accept().await?;
        let mut asked = vec![0; 4_096];
        let length = connection.read(&mut asked).await?;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{\"tier\":\"gold\"}";
        connection.write_all(answer.as_bytes()).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&asked[..length]).into_owned())
    });
    let environment = vec![("CUSTOMERS", customers), ("CUSTOMERS_TOKEN", "t0ken".to_owned())];
    let example = Example::start("enrich", environment).await?;
    let session = example.session().await?;
    assert_eq!(statuses(&session), ["200"], "{session}");
    let asked = service.await??;
    assert!(asked.starts_with("GET /customers/c-7 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer t0ken\r\n"), "{asked}");
    let enriched = example.lines("examples/enrich/out/enriched.jsonl")?;
    assert_eq!(enriched[0]["customer"]["known"]["tier"], "gold");
    assert!(!session.contains("t0ken"), "the secret is nowhere in what is printed: {session}");
    Ok(())
}

/// No example without a test here, and none that `check` or its own `tests:` complain about.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_checked_and_run() -> Result<()> {
    let folders = std::fs::read_dir(repository().join("examples"))?;
    let found: BTreeSet<String> = folders
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| repository().join("examples").join(name).is_dir())
        .collect();
    let tested = ["deduplicate", "enrich", "event-bus", "quickstart", "stream-fanout", "tenant-router"];
    assert_eq!(found.iter().collect::<Vec<_>>(), tested);
    for name in found {
        let config = repository().join("examples").join(name).join("sluicegate.yaml").display().to_string();
        for command in ["check", "test"] {
            run_binary(Path::new("."), &[command, &config]).await?;
        }
    }
    Ok(())
}
