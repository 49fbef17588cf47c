//! `sluicegate plugin push|versions|retire`: plugins of a gateway that runs, over its API.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, Method, Url, redirect};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::read;
use crate::command::Exit;

/// A whole exchange: the gateway answers an upload within 10 s, on a slow line it takes a minute to arrive.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(120);
/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Which gateway, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct GatewayArgs {
    /// Where the gateway listens.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "SLUICEGATE_SERVER")]
    pub server: String,
    /// Environment variable with the API key; a gateway on this machine may need none.
    #[arg(long, value_name = "VARIABLE")]
    pub key_env: Option<String>,
    /// As the API answers.
    #[arg(long)]
    pub json: bool,
}

/// `plugin push`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct PushArgs {
    /// A component file.
    #[arg(value_name = "FILE")]
    pub component: PathBuf,
    /// The plugin that it becomes a version of.
    #[arg(long)]
    pub name: String,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// `plugin versions`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct VersionsArgs {
    /// The plugin.
    pub name: String,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// `plugin retire`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RetireArgs {
    /// The plugin.
    pub name: String,
    /// The version's number.
    pub version: u32,
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(super) async fn push(args: &PushArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let component = read(&args.component)?;
    let digest: String = Sha256::digest(&component).iter().map(|byte| format!("{byte:02x}")).collect();
    // Hidden where standard error is no terminal.
    let progress = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    progress.set_message(format!("pushing {} bytes; the gateway checks and compiles them", component.len()));
    progress.enable_steady_tick(Duration::from_millis(100));
    let path = format!("plugins/{}/versions?sha256={digest}", args.name);
    let pushed = args.gateway.call(Method::POST, &path, component.into()).await;
    progress.finish_and_clear();
    let version = pushed?;
    if args.gateway.json {
        writeln!(out, "{version:#}")?;
    } else {
        writeln!(out, "{}", line(&version))?;
    }
    Ok(Exit::Clean)
}

pub(super) async fn versions(args: &VersionsArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let answer = args.gateway.call(Method::GET, &format!("plugins/{}/versions", args.name), Vec::new().into()).await?;
    if args.gateway.json {
        writeln!(out, "{answer:#}")?;
        return Ok(Exit::Clean);
    }
    for version in answer["versions"].as_array().into_iter().flatten() {
        writeln!(out, "{}", line(version))?;
    }
    Ok(Exit::Clean)
}

pub(super) async fn retire(args: &RetireArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let path = format!("plugins/{}/versions/{}/retire", args.name, args.version);
    let version = args.gateway.call(Method::POST, &path, Vec::new().into()).await?;
    if args.gateway.json {
        writeln!(out, "{version:#}")?;
    } else {
        writeln!(out, "{}", line(&version))?;
    }
    Ok(Exit::Clean)
}

/// A version for people.
fn line(version: &Value) -> String {
    let text = |member: &str| version[member].as_str().unwrap_or("-").to_owned();
    let roles: Vec<&str> = version["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "{} version {}  {}  {}  {} bytes  {}",
        text("plugin"),
        version["version"],
        text("state"),
        roles.join(","),
        version["sizeBytes"],
        text("digest")
    )
}

impl GatewayArgs {
    async fn call(&self, method: Method, path: &str, body: reqwest::Body) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/{path}", self.server.trim_end_matches('/'));
        let url = Url::parse(&url).with_context(|| format!("`{}` is no URL of a gateway", self.server))?;
        let mut request = client()?.request(method, url).body(body);
        if let Some(variable) = &self.key_env {
            let key = std::env::var(variable).with_context(|| format!("cannot read the API key from ${variable}"))?;
            request = request.bearer_auth(key);
        }
        let unreachable =
            || format!("cannot reach the gateway at {}; does it run? `--server` names another", self.server);
        let mut answer = request.send().await.with_context(unreachable)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.with_context(unreachable)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER_BYTES {
                bail!("the answer of {} has more than {MAX_ANSWER_BYTES} bytes", self.server);
            }
        }
        let document: Value = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} answered {status} and no JSON; is it a Sluicegate?", self.server))?;
        if !status.is_success() {
            bail!("refused ({status}): {}", document["message"].as_str().unwrap_or("without a reason"));
        }
        Ok(document)
    }
}

fn client() -> anyhow::Result<Client> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(EXCHANGE_LIMIT)
        .user_agent(concat!("sluicegate/", env!("CARGO_PKG_VERSION")));
    Ok(client.build()?)
}
