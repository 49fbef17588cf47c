//! `sluicegate tenant …`: the tenants, on the store, beside a gateway that runs or without one.

use std::io::Write;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use sluicegate_store::Store;
use sluicegate_store::audit::{AuditEntry, AuditOutcome};
use sluicegate_store::tenant::{Grants, Quotas, Realm, Tenant, TenantName, TenantUpdate};

use super::location::StoreArgs;
use crate::api::shown_tenant;

/// Manages tenants.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum TenantCommand {
    /// List all tenants.
    List(ListArgs),
    /// Show a tenant with its quotas and grants.
    Show(NameArgs),
    /// Make a tenant; `sluicegate key create --tenant NAME` makes its first key.
    Create(ChangeArgs),
    /// Change a tenant's quotas, grants or display name; what is not given stays.
    Update(ChangeArgs),
    /// Refuse a tenant's credentials from now on.
    Suspend(NameArgs),
    /// Accept a suspended tenant's credentials again.
    Resume(NameArgs),
    /// Delete a suspended tenant that owns nothing any more, and its keys.
    Delete(NameArgs),
}

/// `tenant list`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ListArgs {
    /// Where the store is.
    #[command(flatten)]
    pub location: StoreArgs,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Of commands about one tenant.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct NameArgs {
    /// Where the store is.
    #[command(flatten)]
    pub location: StoreArgs,
    /// The tenant.
    pub name: String,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `tenant create`, `tenant update`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ChangeArgs {
    /// Where the store is.
    #[command(flatten)]
    pub location: StoreArgs,
    /// The tenant: 1 to 64 of a-z, 0-9, `-` and `_`.
    pub name: String,
    /// Its name for people.
    #[arg(long, value_name = "TEXT")]
    pub display: Option<String>,
    /// A quota, such as messagesPerSecond=100 (`tenant show` lists them all); may be given several times.
    #[arg(long, value_name = "NAME=NUMBER", value_parser = parse_quota)]
    pub quota: Vec<(String, u64)>,
    /// What it may use: target=NAME, source=NAME, host=HOST or secret=NAME; may be given several times.
    #[arg(long, value_name = "KIND=NAME", value_parser = parse_grant)]
    pub grant: Vec<(String, String)>,
    /// What it may use no longer, as for --grant.
    #[arg(long, value_name = "KIND=NAME", value_parser = parse_grant)]
    pub ungrant: Vec<(String, String)>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

fn parse_quota(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("`{text}` is not NAME=NUMBER");
    let (name, number) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), number.parse().map_err(|_| wrong())?))
}

fn parse_grant(text: &str) -> Result<(String, String), String> {
    let (kind, name) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KIND=NAME"))?;
    match kind {
        "target" | "source" | "host" | "secret" => Ok((kind.to_owned(), name.to_owned())),
        _ => Err(format!("`{kind}` is none of target, source, host and secret")),
    }
}

/// Runs the command and writes the answer to `out`.
///
/// # Errors
/// No store there, no such tenant, or something that cannot be; each says what to try.
pub async fn run(command: &TenantCommand, out: &mut impl Write) -> anyhow::Result<()> {
    let location = match command {
        TenantCommand::List(args) => &args.location,
        TenantCommand::Show(args)
        | TenantCommand::Suspend(args)
        | TenantCommand::Resume(args)
        | TenantCommand::Delete(args) => &args.location,
        TenantCommand::Create(args) | TenantCommand::Update(args) => &args.location,
    };
    let store = open(location).await?;
    let done = act(&store, command, out).await;
    store.close().await;
    done?;
    out.flush()?;
    Ok(())
}

/// The store, to write beside gateways.
pub(super) async fn open(location: &StoreArgs) -> anyhow::Result<Store> {
    let options = location.find(None)?.options;
    Store::open_beside(options).await.context("cannot open the store")
}

/// Writes to the audit what a command has done.
pub(super) async fn audit(
    store: &Store,
    action: &str,
    realm: Realm,
    resource: String,
    (before, after): (Option<Value>, Option<Value>),
) -> anyhow::Result<()> {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned());
    let entry = AuditEntry {
        at_ms: sluicegate_engine::message::now_ms(),
        actor: format!("cli:{user}"),
        realm,
        action: action.to_owned(),
        resource,
        before,
        after,
        outcome: AuditOutcome::Done,
        address: None,
        repeats: 0,
    };
    store.append_audit(vec![entry]).await.context("it is done, but could not be written to the audit")
}

pub(super) fn name(text: &str) -> anyhow::Result<TenantName> {
    TenantName::parse(text)
        .with_context(|| format!("`{text}` is not the name of a tenant: 1 to 64 of a-z, 0-9, `-` and `_`"))
}

async fn find(store: &Store, text: &str) -> anyhow::Result<Tenant> {
    let found = store.reader().tenant(&name(text)?).await?;
    found.with_context(|| format!("there is no tenant `{text}`; `sluicegate tenant list` shows them all"))
}

async fn act(store: &Store, command: &TenantCommand, out: &mut impl Write) -> anyhow::Result<()> {
    let (action, before, after, json) = match command {
        TenantCommand::List(args) => return list(store, args, out).await,
        TenantCommand::Show(args) => return show(&find(store, &args.name).await?, args.json, out),
        TenantCommand::Create(args) => {
            let quotas = quotas(&Quotas::default(), &args.quota)?;
            let grants = grants(Grants::default(), args);
            let display = args.display.as_deref().unwrap_or_default();
            let made = store.create_tenant(&name(&args.name)?, display, quotas, grants).await?;
            ("tenant.create", None, Some(made), args.json)
        }
        TenantCommand::Update(args) => {
            let before = find(store, &args.name).await?;
            let update = TenantUpdate {
                display: args.display.clone(),
                suspended: None,
                quotas: Some(quotas(&before.quotas, &args.quota)?),
                grants: Some(grants(before.grants.clone(), args)),
            };
            let after = store.update_tenant(&before.name, Some(before.revision), update).await?;
            ("tenant.update", Some(before), Some(after), args.json)
        }
        TenantCommand::Suspend(args) | TenantCommand::Resume(args) => {
            let suspended = matches!(command, TenantCommand::Suspend(_));
            let before = find(store, &args.name).await?;
            let update = TenantUpdate { suspended: Some(suspended), ..TenantUpdate::default() };
            let after = store.update_tenant(&before.name, None, update).await?;
            (if suspended { "tenant.suspend" } else { "tenant.resume" }, Some(before), Some(after), args.json)
        }
        TenantCommand::Delete(args) => {
            let deleted = store.delete_tenant(&name(&args.name)?).await?;
            ("tenant.delete", Some(deleted), None, args.json)
        }
    };
    let documents = (before.as_ref().map(shown_tenant), after.as_ref().map(shown_tenant));
    let Some(subject) = after.as_ref().or(before.as_ref()) else { bail!("nothing was done") };
    audit(store, action, Realm::Operator, format!("/tenants/{}", subject.name), documents).await?;
    match (&after, json) {
        (Some(after), _) => show(after, json, out),
        (None, true) => Ok(writeln!(out, "{}", json!({ "deleted": subject.name.as_str() }))?),
        (None, false) => Ok(writeln!(out, "tenant `{}` is deleted, with its keys", subject.name)?),
    }
}

async fn list(store: &Store, args: &ListArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let tenants = store.reader().all_tenants().await?;
    if !args.json {
        writeln!(out, "{:<24}  {:<10}  {:>8}  DISPLAY", "TENANT", "STATE", "REVISION")?;
    }
    for tenant in &tenants {
        if args.json {
            writeln!(out, "{}", shown_tenant(tenant))?;
            continue;
        }
        let state = if tenant.suspended { "suspended" } else { "active" };
        writeln!(out, "{:<24}  {state:<10}  {:>8}  {}", tenant.name.as_str(), tenant.revision, tenant.display)?;
    }
    Ok(())
}

fn show(tenant: &Tenant, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let document = shown_tenant(tenant);
    if json {
        writeln!(out, "{document}")?;
        return Ok(());
    }
    let state = if tenant.suspended { "suspended" } else { "active" };
    writeln!(out, "tenant    {} ({state}, revision {})", tenant.name, tenant.revision)?;
    writeln!(out, "display   {}\nquotas", tenant.display)?;
    for (quota, number) in document["quotas"].as_object().into_iter().flatten() {
        writeln!(out, "  {quota:<24}  {number}")?;
    }
    writeln!(out, "grants")?;
    for (kind, names) in document["grants"].as_object().into_iter().flatten() {
        let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        writeln!(out, "  {kind:<24}  {}", if names.is_empty() { "-".to_owned() } else { names.join(", ") })?;
    }
    Ok(())
}

fn quotas(base: &Quotas, given: &[(String, u64)]) -> anyhow::Result<Quotas> {
    let Value::Object(mut whole) = serde_json::to_value(base)? else { bail!("quotas are no object") };
    for (name, number) in given {
        if !whole.contains_key(name) {
            bail!("there is no quota `{name}`; there are {}", names_of(&whole));
        }
        whole.insert(name.clone(), (*number).into());
    }
    Ok(serde_json::from_value(Value::Object(whole))?)
}

fn names_of(whole: &Map<String, Value>) -> String {
    whole.keys().cloned().collect::<Vec<_>>().join(", ")
}

fn grants(mut grants: Grants, args: &ChangeArgs) -> Grants {
    let granted = args.grant.iter().map(|grant| (grant, true)).chain(args.ungrant.iter().map(|grant| (grant, false)));
    for ((kind, name), give) in granted {
        let names = match kind.as_str() {
            "target" => &mut grants.targets,
            "source" => &mut grants.sources,
            "host" => &mut grants.hosts,
            _ => &mut grants.secrets,
        };
        if give {
            names.insert(name.clone());
        } else {
            names.remove(name);
        }
    }
    grants
}
