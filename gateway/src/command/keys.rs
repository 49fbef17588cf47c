//! `sluicegate keys list` and `sluicegate keys rotate`: the keys that bodies are encrypted with, without showing any.

use std::io::Write;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use sluicegate_store::vault::{DEFAULT_TENANT, KeyVersion, Keys};
use sluicegate_store::{Reader, Store};

use super::location::StoreArgs;
use crate::store_options::MasterKeyArgs;

/// Lists and rotates keys.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum KeysCommand {
    /// List the versions of all keys and their ages; needs no master key and shows none.
    List(ListArgs),
    /// Make a new version of a tenant's key: running gateways encrypt with it within seconds, and what older versions
    /// have encrypted stays readable.
    Rotate(RotateArgs),
}

/// `keys list`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ListArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `keys rotate`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RotateArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Wraps the new key.
    #[command(flatten)]
    pub master_key: MasterKeyArgs,
    /// Whose key.
    #[arg(long, value_name = "TENANT", default_value = DEFAULT_TENANT)]
    pub tenant: String,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command and writes the answer to `out`.
///
/// # Errors
/// No store there, one without encryption, or not the right master key; each says what to try.
pub async fn run(command: &KeysCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        KeysCommand::List(args) => list(args, out).await?,
        KeysCommand::Rotate(args) => rotate(args, out).await?,
    }
    out.flush()?;
    Ok(())
}

async fn list(args: &ListArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let mut options = args.store.find(None)?.options;
    // Nothing is opened, so it does not matter whether the key would be the right one.
    options.encryption = None;
    let reader = Reader::open(options).await.context("cannot read the keys")?;
    let keys = reader.keys().await;
    reader.close().await;
    let keys = keys?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &Listed::from(&keys))?;
        writeln!(out)?;
        return Ok(());
    }
    let Some(master_key) = &keys.master_key else {
        writeln!(out, "bodies are not encrypted; `encryption.master_key` in the configuration turns it on")?;
        return Ok(());
    };
    writeln!(
        out,
        "master key (fingerprint)  {master_key}\n\nTENANT            VERSION  CREATED                   STATE"
    )?;
    for key in &keys.versions {
        let state = match key.retired_at_ms {
            None => "encrypts".to_owned(),
            Some(ms) => format!("only decrypts, since {}", time(ms)),
        };
        writeln!(out, "{:<16}  {:>7}  {:<24}  {state}", key.tenant, key.version, time(key.created_at_ms))?;
    }
    Ok(())
}

async fn rotate(args: &RotateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let options = args.store.find(Some(&args.master_key))?.options;
    let store = Store::open_beside(options).await.context("cannot open the store")?;
    let rotated = store.rotate_key(&args.tenant).await;
    store.close().await;
    let version = rotated.with_context(|| format!("cannot rotate the key of tenant `{}`", args.tenant))?;
    if args.json {
        serde_json::to_writer(&mut *out, &serde_json::json!({ "tenant": args.tenant, "version": version }))?;
        writeln!(out)?;
    } else {
        writeln!(
            out,
            "tenant `{}` has key version {version}; running gateways encrypt with it within seconds",
            args.tenant
        )?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Listed<'a> {
    /// Its fingerprint; null where bodies are not encrypted.
    master_key: Option<&'a str>,
    keys: Vec<ListedKey<'a>>,
}

#[derive(Serialize)]
struct ListedKey<'a> {
    tenant: &'a str,
    version: u32,
    created_at: String,
    retired_at: Option<String>,
}

impl<'a> From<&'a Keys> for Listed<'a> {
    fn from(keys: &'a Keys) -> Self {
        let listed = |key: &'a KeyVersion| ListedKey {
            tenant: &key.tenant,
            version: key.version,
            created_at: time(key.created_at_ms),
            retired_at: key.retired_at_ms.map(time),
        };
        Self { master_key: keys.master_key.as_deref(), keys: keys.versions.iter().map(listed).collect() }
    }
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| format!("{time:.3}"))
}
