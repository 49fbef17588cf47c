//! `sluicegate key …`: API keys, on the store, beside a gateway that runs or without one.

use std::io::Write;

use anyhow::Context as _;
use serde_json::Value;
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_connectors::quantity::Span;
use sluicegate_engine::message::now_ms;
use sluicegate_store::Store;
use sluicegate_store::api_key::{ApiKey, KeyText, NewKey};
use sluicegate_store::queue::MAX_PAGE_ITEMS;
use sluicegate_store::tenant::Realm;

use super::location::StoreArgs;
use super::tenant::{audit, name, open};
use crate::api::{shown_key, shown_key_once};
use crate::identity::Scope;

/// Manages API keys.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum KeyCommand {
    /// List the operator's keys or a tenant's; nothing of their secrets.
    List(ListArgs),
    /// Make a key and print it, this once.
    Create(CreateArgs),
    /// Give a key a new secret and print it, this once; the one of before is good for a while longer.
    Rotate(RotateArgs),
    /// Make a key good no more; running gateways refuse it within a second.
    Revoke(RevokeArgs),
    /// Print a new key that is in no store, for SLUICEGATE_BOOTSTRAP_KEY.
    Generate,
}

/// Whose keys.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RealmArgs {
    /// Where the store is.
    #[command(flatten)]
    pub location: StoreArgs,
    /// The tenant whose keys are meant; the operator's without it.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `key list`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ListArgs {
    /// Whose.
    #[command(flatten)]
    pub realm: RealmArgs,
}

/// `key create`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct CreateArgs {
    /// Whose.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// What it is for, for people.
    #[arg(long, value_name = "TEXT")]
    pub name: String,
    /// What it allows: ingest, read, redrive, plugin, admin; with commas between.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true, value_parser = parse_scope)]
    pub scopes: Vec<Scope>,
    /// For how long it is good, such as 90d; for ever without it.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub expires_in: Option<Span>,
}

/// `key rotate`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RotateArgs {
    /// Whose.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The key, by its prefix.
    pub prefix: String,
    /// For how long the secret of before is good as well; 0s ends it at once.
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_span)]
    pub grace: Span,
}

/// `key revoke`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RevokeArgs {
    /// Whose.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The key, by its prefix.
    pub prefix: String,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text.trim()).ok_or_else(|| format!("there are {}", Scope::ALL.map(Scope::name).join(", ")))
}

fn parse_span(text: &str) -> Result<Span, String> {
    Span::parse(text).ok_or_else(|| "a length of time is written 90d, 1h, 30s".to_owned())
}

impl RealmArgs {
    fn realm(&self) -> anyhow::Result<Realm> {
        self.tenant.as_deref().map_or(Ok(Realm::Operator), |tenant| name(tenant).map(Realm::Tenant))
    }
}

/// Runs the command and writes the answer to `out`.
///
/// # Errors
/// No store there, no such key or tenant, or something that cannot be; each says what to try.
pub async fn run(command: &KeyCommand, out: &mut impl Write) -> anyhow::Result<()> {
    let args = match command {
        KeyCommand::Generate => {
            writeln!(out, "{}", KeyText::random()?.expose())?;
            return Ok(());
        }
        KeyCommand::List(args) => &args.realm,
        KeyCommand::Create(args) => &args.realm,
        KeyCommand::Rotate(args) => &args.realm,
        KeyCommand::Revoke(args) => &args.realm,
    };
    let realm = args.realm()?;
    let store = open(&args.location).await?;
    let done = act(&store, command, realm, args.json, out).await;
    store.close().await;
    done?;
    out.flush()?;
    Ok(())
}

async fn act(
    store: &Store,
    command: &KeyCommand,
    realm: Realm,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (action, key, text) = match command {
        KeyCommand::Generate => return Ok(()),
        KeyCommand::List(_) => return list(store, &realm, json, out).await,
        KeyCommand::Create(args) => {
            let lifetime_ms = args.expires_in.map(|span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX));
            let new = NewKey {
                realm: realm.clone(),
                name: args.name.clone(),
                scopes: args.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
                expires_at_ms: lifetime_ms.map(|ms| now_ms().saturating_add(ms)),
            };
            let (key, text) = store.create_api_key(new).await.context("cannot make the key")?;
            ("key.create", key, Some(text))
        }
        KeyCommand::Rotate(args) => {
            let (key, text) =
                store.rotate_api_key(&realm, &args.prefix, args.grace.0).await.context("cannot rotate the key")?;
            ("key.rotate", key, Some(text))
        }
        KeyCommand::Revoke(args) => {
            let key = store.revoke_api_key(&realm, &args.prefix).await.context("cannot revoke the key")?;
            ("key.revoke", key, None)
        }
    };
    // First what only this process knows, whatever becomes of the audit.
    match (&text, json) {
        (Some(text), true) => writeln!(out, "{}", shown_key_once(&key, text))?,
        (Some(text), false) => writeln!(out, "{}", text.expose())?,
        (None, true) => writeln!(out, "{}", shown_key(&key))?,
        (None, false) => writeln!(out, "key {} is revoked", key.prefix)?,
    }
    out.flush()?;
    audit(store, action, realm, format!("/keys/{}", key.prefix), (None, Some(shown_key(&key)))).await
}

async fn list(store: &Store, realm: &Realm, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if !json {
        writeln!(out, "{:<12}  {:<32}  {:<24}  {:<24}  NAME", "PREFIX", "SCOPES", "LAST USED", "STATE")?;
    }
    let mut after: Option<String> = None;
    loop {
        let page = store.reader().api_keys(realm, MAX_PAGE_ITEMS, after.as_deref()).await?;
        for key in &page.items {
            if json {
                let document: Value = shown_key(key);
                writeln!(out, "{document}")?;
                continue;
            }
            let used = key.last_used_ms.map_or_else(|| "never".to_owned(), print_time);
            let scopes = key.scopes.join(",");
            writeln!(out, "{:<12}  {scopes:<32}  {used:<24}  {:<24}  {}", key.prefix, state(key), key.name)?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn state(key: &ApiKey) -> String {
    match (key.revoked_at_ms, key.expires_at_ms) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) if at <= now_ms() => "expired".to_owned(),
        (None, Some(at)) => format!("until {}", print_time(at)),
        (None, None) => "good".to_owned(),
    }
}
