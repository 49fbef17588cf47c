//! `sluicegate keys`, `backup` and `restore` as an operator uses them: beside an encrypted gateway under load.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::{Gateway, new_folder, run_binary};
use sluicegate_tests::webhook::Webhook;
use tempfile::TempDir;

use crate::clients::ARRIVAL_LIMIT;
use crate::posting::{Posting, await_all, number, numbers};

const CONFIG: &str = "sluicegate.yaml";
const KEY_FILE: &str = "master.key";
/// In every body, and in no file of the store.
const SECRET: &str = "nobody-may-read-this";

/// What is posted goes to a webhook; one message in ten is refused by it.
fn orders(hook: &str) -> String {
    format!(
        "encryption: {{ master_key: '${{file:{KEY_FILE}}}' }}
pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders, respond: accepted }} }}
    targets: {{ hook: {{ http: {{ url: '{hook}' }} }} }}
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
    max_in_flight: 64
"
    )
}

fn compose(request: RequestBuilder, number: usize) -> RequestBuilder {
    request.body(json!({ "number": number, "note": SECRET }).to_string())
}

fn is_refused(number: usize) -> bool {
    number % 10 == 3
}

async fn a_webhook() -> Result<Webhook> {
    let hook = Webhook::start().await?;
    hook.answer_by(|body, _| is_refused(number(body).ok()?).then_some((400, None)));
    Ok(hook)
}

fn folder_with_key(key: &str) -> Result<TempDir> {
    let folder = new_folder()?;
    std::fs::write(folder.path().join(KEY_FILE), key)?;
    Ok(folder)
}

fn new_key() -> String {
    let bytes: Vec<u8> = (0..32).map(|_| fastrand::u8(..)).collect();
    STANDARD.encode(bytes) + "\n"
}

async fn json_of(folder: &Path, arguments: &[&str]) -> Result<Value> {
    let text = run_binary(folder, arguments).await?;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
}

/// Why the command fails.
async fn failure(folder: &Path, arguments: &[&str]) -> Result<String> {
    match tokio::time::timeout(ARRIVAL_LIMIT, run_binary(folder, arguments)).await? {
        Ok(printed) => anyhow::bail!("{arguments:?} did not fail and printed {printed}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Files below `folder` that contain `text`.
fn files_with(folder: &Path, text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, text)?);
        } else if std::fs::read(&path)?.windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// Numbers of the dead letters that `dlq export` prints with their bodies.
async fn exported(gateway: &Gateway) -> Result<BTreeSet<usize>> {
    let text = gateway.command(&["dlq", "export", "--config", CONFIG]).await?;
    ensure!(text.lines().all(|line| line.contains(SECRET)), "a body cannot be read: {text}");
    let number = |line: &str| {
        let letter: Value = serde_json::from_str(line)?;
        number(letter["original"]["body"]["json"].to_string().as_bytes()).with_context(|| line.to_owned())
    };
    text.lines().map(number).collect()
}

/// Rotates the key beside the running gateway; what was written before and after is read.
async fn rotate(gateway: &Gateway, posting: &Posting) -> Result<()> {
    let folder = gateway.folder();
    let keys = json_of(folder, &["keys", "list", "--config", CONFIG, "--json"]).await?;
    ensure!(keys["keys"].as_array().map(Vec::len) == Some(1), "{keys}");
    let rotated = json_of(folder, &["keys", "rotate", "--config", CONFIG, "--json"]).await?;
    ensure!(rotated["version"] == 2, "{rotated}");
    posting.await_more(300).await;
    let listed = json_of(folder, &["keys", "list", "--data-dir", "data", "--json"]).await?;
    let versions: Vec<_> = listed["keys"].as_array().context("keys")?.iter().map(|key| &key["version"]).collect();
    ensure!(versions.len() == 2 && listed["master_key"] == keys["master_key"], "{listed}");
    ensure!(
        listed["keys"]
            .as_array()
            .is_some_and(|keys| keys.iter().filter(|key| key["retired_at"].is_null()).count() == 1),
        "{listed}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_gateway_is_rotated_and_backed_up_under_load_and_restored_elsewhere() -> Result<()> {
    let (key, mut hook) = (new_key(), a_webhook().await?);
    let mut gateway = Gateway::start_in(folder_with_key(&key)?, &orders(&hook.url())).await?;
    let posting = Posting::start_with(vec![gateway.url("/ingest/orders")], 8, Arc::new(compose))?;
    posting.await_more(300).await;
    rotate(&gateway, &posting).await?;

    // From here on nothing is delivered any more: the backup has all of it.
    hook.kill().await;
    posting.await_more(200).await;
    let before = posting.numbers();
    let backups = tempfile::tempdir()?;
    let backup = backups.path().join("backup");
    let place = backup.to_str().context("a path")?;
    let manifest = json_of(gateway.folder(), &["backup", "--config", CONFIG, place, "--json"]).await?;
    let keys = json_of(gateway.folder(), &["keys", "list", "--config", CONFIG, "--json"]).await?;
    ensure!(manifest["master_key"].is_string() && manifest["master_key"] == keys["master_key"], "{manifest}");
    posting.await_more(50).await;
    posting.stop().await;
    gateway.kill()?;
    let delivered: BTreeSet<usize> = numbers(&hook)?.into_iter().collect();
    let missing: BTreeSet<usize> =
        before.difference(&delivered).copied().filter(|number| !is_refused(*number)).collect();
    ensure!(missing.len() >= 100, "only {} wait in the backup", missing.len());
    ensure!(files_with(&backup, SECRET)?.is_empty() && files_with(&gateway.folder().join("data"), SECRET)?.is_empty());

    let folder = folder_with_key(&new_key())?;
    let restored = json_of(folder.path(), &["restore", "--data-dir", "data", place, "--json"]).await?;
    ensure!(restored["manifest"] == manifest && restored["aside"].is_null(), "{restored}");
    let refused = failure(folder.path(), &["restore", "--data-dir", "data", place]).await?;
    ensure!(refused.contains("is not empty") && refused.contains("--force"), "{refused}");
    refuses_other_keys(folder.path(), &hook, &keys).await?;

    std::fs::write(folder.path().join(KEY_FILE), &key)?;
    hook.restart().await?;
    let restored = Gateway::start_in(folder, &orders(&hook.url())).await?;
    await_all(&hook, &missing, ARRIVAL_LIMIT).await;
    let refusable: BTreeSet<usize> = before.into_iter().filter(|number| is_refused(*number)).collect();
    eventually("its dead letters can be read", ARRIVAL_LIMIT, async || {
        let missing = refusable.difference(&exported(&restored).await?).count();
        ensure!(missing == 0, "{missing} of {} are missing", refusable.len());
        Ok(())
    })
    .await;
    Ok(())
}

/// With a wrong key, none or what is no key, the gateway does not start and commands show no body; each says what to do.
async fn refuses_other_keys(folder: &Path, hook: &Webhook, keys: &Value) -> Result<()> {
    let listen = "server: { listen: '127.0.0.1:0' }\ndata_dir: ./data\n";
    let wanted = keys["master_key"].as_str().context("a fingerprint")?;
    let wrong = std::fs::read_to_string(folder.join(KEY_FILE))?;
    std::fs::write(folder.join(CONFIG), format!("{listen}{}", orders(&hook.url())))?;
    let said = failure(folder, &["run", CONFIG]).await?;
    ensure!(said.contains("the master key given (fingerprint") && said.contains(wanted), "{said}");
    ensure!(said.contains("encryption.previous_master_keys") && !said.contains(wrong.trim()), "{said}");
    let said = failure(folder, &["keys", "rotate", "--config", CONFIG]).await?;
    ensure!(said.contains("the master key given (fingerprint"), "{said}");
    let said = failure(folder, &["dlq", "export", "--data-dir", "data", "--master-key-file", KEY_FILE]).await?;
    ensure!(said.contains("the master key given (fingerprint"), "{said}");
    let said = failure(folder, &["dlq", "export", "--data-dir", "data"]).await?;
    ensure!(said.contains("are encrypted and no master key was given"), "{said}");
    // What is not encrypted can be read without any key.
    run_binary(folder, &["dlq", "list", "--data-dir", "data", "--json"]).await?;
    ensure!(json_of(folder, &["keys", "list", "--data-dir", "data", "--json"]).await?["master_key"] == wanted);

    let plain = orders(&hook.url()).lines().skip(1).collect::<Vec<_>>().join("\n");
    std::fs::write(folder.join(CONFIG), format!("{listen}{plain}\n"))?;
    let said = failure(folder, &["run", CONFIG]).await?;
    ensure!(said.contains("are encrypted and no master key was given"), "{said}");

    std::fs::write(folder.join(KEY_FILE), "c2hvcnQ=\n")?;
    std::fs::write(folder.join(CONFIG), format!("{listen}{}", orders(&hook.url())))?;
    let said = failure(folder, &["run", CONFIG]).await?;
    ensure!(said.contains("32 bytes as base64") && !said.contains("c2hvcnQ"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_is_never_overwritten_and_a_damaged_backup_never_restored() -> Result<()> {
    let hook = a_webhook().await?;
    let gateway = Gateway::start_in(folder_with_key(&new_key())?, &orders(&hook.url())).await?;
    let backups = tempfile::tempdir()?;
    let backup = backups.path().join("backup");
    let place = backup.to_str().context("a path")?;
    let folder = gateway.folder();
    run_binary(folder, &["backup", "--config", CONFIG, place]).await?;
    let said = failure(folder, &["backup", "--config", CONFIG, place]).await?;
    ensure!(said.contains("is there already"), "{said}");
    let said = failure(folder, &["restore", "--config", CONFIG, place, "--force"]).await?;
    ensure!(said.contains("in use by another gateway"), "{said}");
    ensure!(gateway.status("/health").await? == 200);

    let store = backup.join("sluicegate.sqlite");
    let mut bytes = std::fs::read(&store)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&store, bytes)?;
    let other = new_folder()?;
    let said = failure(other.path(), &["restore", "--data-dir", "data", place]).await?;
    ensure!(said.contains("is damaged") && said.contains("use another backup"), "{said}");
    ensure!(!other.path().join("data/sluicegate.sqlite").exists(), "it was restored all the same");
    Ok(())
}
