//! Uploaded plugins: new versions, what is known of them, their end.

use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sluicegate_plugin_host::check_bounds;
use sluicegate_store::plugin::{NewVersion, Retired, Rollout, Uploaded, Version};
use sluicegate_store::tenant::is_name;

use super::{Answer, Api, ApiCode, ApiError, Query, Segments};
use crate::compiling::BUSY;
use crate::identity::{Caller, Scope};

/// Longest component that is taken.
pub const MAX_COMPONENT_BYTES: usize = 10 << 20;
/// Under which name an upload is tried: names become labels of metrics, and clients must not make those up.
const UPLOAD: &str = "upload";
/// What a client is asked to wait while others' components are compiled, in seconds.
const RETRY_AFTER_COMPILING_SECS: u64 = 10;

pub(super) fn routes() -> Router<Api> {
    let versions = post(push).get(versions).layer(axum::extract::DefaultBodyLimit::max(MAX_COMPONENT_BYTES));
    Router::new()
        .route("/plugins", get(list))
        .route("/plugins/{name}/versions", versions)
        .route("/plugins/{name}/versions/{version}", get(show))
        .route("/plugins/{name}/versions/{version}/component", get(download))
        .route("/plugins/{name}/versions/{version}/retire", post(retire))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PushQuery {
    sha256: Option<String>,
}

/// 201 for a new version, 200 for one that is there already.
async fn push(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
    Query(query): Query<PushQuery>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    caller.require(Scope::Plugin)?;
    if !is_name(&name) {
        let text = format!("a plugin cannot be called `{name}`: 1 to 64 of a-z, 0-9, `-` and `_`");
        return Err(ApiError::new(ApiCode::InvalidRequest, text));
    }
    let component = received(request).await?;
    let full = caller.realm.full(&name).into_owned();
    let digest = checked(&full, component.clone(), claimed(&query, &headers)?).await?;
    let compiler = std::sync::Arc::new(api.compiler.clone());
    let plugin = api.host.load_foreign(UPLOAD, component.clone(), compiler).await.map_err(|error| {
        let text = error.to_string();
        match text.contains(BUSY) {
            true => ApiError::new(ApiCode::CompilerBusy, "other components are being compiled; push this one again")
                .with_retry_after(RETRY_AFTER_COMPILING_SECS),
            false => ApiError::new(ApiCode::PluginRefused, text),
        }
    })?;
    let new = NewVersion {
        plugin: full,
        digest,
        component,
        roles: plugin.roles().iter().map(|role| role.name().to_owned()).collect(),
        imports: plugin.imports().to_vec(),
        config_schema: plugin.config_schema().clone(),
        by: caller.credential.to_string(),
    };
    match api.store.add_plugin_version(new).await? {
        Uploaded::New(version) => Ok(Answer(shown(&caller, &version)).created()),
        Uploaded::Known(version) => Ok(Answer(shown(&caller, &version)).into_response()),
        Uploaded::TooMany => {
            let text = format!("the plugin `{name}` has as many versions as it may; retire some");
            Err(ApiError::new(ApiCode::Conflict, text))
        }
    }
}

/// The whole body. One that says it is too long is not read.
async fn received(request: Request) -> Result<Bytes, ApiError> {
    let too_large = || {
        let text = format!("the component has more than {MAX_COMPONENT_BYTES} bytes; build it optimised for size");
        ApiError::new(ApiCode::MessageTooLarge, text)
    };
    let length = request.headers().get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > MAX_COMPONENT_BYTES as u64) {
        return Err(too_large());
    }
    Bytes::from_request(request, &()).await.map_err(|refusal| match refusal.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiError::new(ApiCode::InvalidRequest, format!("reading the component failed: {}", refusal.body_text())),
    })
}

/// The digest that the client says the component has, as 64 hexadecimal digits: `?sha256=` or RFC 9530's `Repr-Digest`.
fn claimed(query: &PushQuery, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let invalid = |text: &str| ApiError::new(ApiCode::InvalidRequest, text);
    if let Some(sha256) = &query.sha256 {
        let digits = sha256.strip_prefix("sha256:").unwrap_or(sha256).to_ascii_lowercase();
        let is_digest = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        return is_digest.then_some(Some(digits)).ok_or_else(|| invalid("`sha256` is not 64 hexadecimal digits"));
    }
    let Some(header) = headers.get("repr-digest") else { return Ok(None) };
    let text = header.to_str().map_err(|_| invalid("`Repr-Digest` is not text"))?;
    let member = text.split(',').find_map(|member| member.trim().strip_prefix("sha-256=:")?.strip_suffix(':'));
    let Some(encoded) = member else { return Ok(None) };
    use base64::Engine as _;
    let digest = base64::engine::general_purpose::STANDARD.decode(encoded);
    let digest = digest.map_err(|_| invalid("`Repr-Digest` has no base64 in `sha-256`"))?;
    Ok(Some(hex(&digest)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it is worth compiling. Takes milliseconds for each megabyte, so on a thread of its own.
async fn checked(plugin: &str, component: Bytes, claimed: Option<String>) -> Result<String, ApiError> {
    let plugin = plugin.to_owned();
    let checking = tokio::task::spawn_blocking(move || {
        let sha256 = hex(&Sha256::digest(&component));
        if let Some(claimed) = claimed.filter(|claimed| *claimed != sha256) {
            let text = format!("the component that came has the sha256 {sha256}, not {claimed}; push it again");
            return Err(ApiError::new(ApiCode::PluginRefused, text));
        }
        match check_bounds(&plugin, &component, MAX_COMPONENT_BYTES as u64) {
            Ok(()) => Ok(format!("sha256:{sha256}")),
            Err(text) => Err(ApiError::new(ApiCode::PluginRefused, text)),
        }
    });
    checking.await.unwrap_or_else(|error| {
        Err(ApiError::new(ApiCode::Internal, format!("looking into the component failed: {error}")))
    })
}

async fn list(State(api): State<Api>, caller: Caller) -> Result<Answer<Value>, ApiError> {
    caller.require(Scope::Read)?;
    let plugins = api.store.reader().plugins(caller.realm.prefix().as_deref(), None).await?;
    let plugins: Vec<Value> = plugins.iter().map(|plugin| rollout(&caller, plugin)).collect();
    Ok(Answer(json!({ "plugins": plugins })))
}

async fn versions(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    caller.require(Scope::Read)?;
    let found = api.store.reader().plugin_versions(&caller.realm.full(&name)).await?;
    if found.is_empty() {
        return Err(unknown(&name));
    }
    Ok(Answer(json!({ "versions": found.iter().map(|version| shown(&caller, version)).collect::<Vec<_>>() })))
}

async fn show(
    State(api): State<Api>,
    caller: Caller,
    Segments((name, version)): Segments<(String, u32)>,
) -> Result<Answer<Value>, ApiError> {
    caller.require(Scope::Read)?;
    let version = find(&api, &caller, &name, version).await?;
    let mut document = shown(&caller, &version);
    document["configSchema"] = version.config_schema;
    Ok(Answer(document))
}

async fn download(
    State(api): State<Api>,
    caller: Caller,
    Segments((name, version)): Segments<(String, u32)>,
) -> Result<Response, ApiError> {
    caller.require(Scope::Plugin)?;
    let version = find(&api, &caller, &name, version).await?;
    match api.store.reader().plugin_component(&version.digest).await? {
        Some(component) => Ok(([(http::header::CONTENT_TYPE, "application/wasm")], component).into_response()),
        None => {
            let text = format!("version {} of `{name}` is retired, and its component is gone", version.version);
            Err(ApiError::new(ApiCode::PluginNotFound, text))
        }
    }
}

async fn retire(
    State(api): State<Api>,
    caller: Caller,
    Segments((name, version)): Segments<(String, u32)>,
) -> Result<Answer<Value>, ApiError> {
    caller.require(Scope::Plugin)?;
    let full = caller.realm.full(&name);
    match api.store.retire_plugin_version(&full, version, &caller.credential.to_string()).await? {
        Retired::Done => Ok(Answer(shown(&caller, &find(&api, &caller, &name, version).await?))),
        Retired::NotFound => Err(unknown(&name)),
        Retired::InUse => {
            let text = format!("version {version} of `{name}` runs; roll another one out first");
            Err(ApiError::new(ApiCode::Conflict, text))
        }
    }
}

async fn find(api: &Api, caller: &Caller, name: &str, version: u32) -> Result<Version, ApiError> {
    let found = api.store.reader().plugin_version(&caller.realm.full(name), version).await?;
    found.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(ApiCode::PluginNotFound, format!("there is no plugin `{name}` with such a version"))
}

fn shown(caller: &Caller, version: &Version) -> Value {
    json!({
        "plugin": caller.realm.short(&version.plugin),
        "version": version.version,
        "digest": version.digest,
        "sizeBytes": version.size_bytes,
        "roles": version.roles,
        "imports": version.imports,
        "state": version.state.name(),
        "reason": version.reason,
        "report": version.report,
        "createdAtMs": version.created_at_ms,
        "createdBy": version.created_by,
    })
}

fn rollout(caller: &Caller, rollout: &Rollout) -> Value {
    json!({
        "plugin": caller.realm.short(&rollout.plugin),
        "current": rollout.current,
        "candidate": rollout.candidate,
        "mode": rollout.mode.name(),
        "revision": rollout.revision,
    })
}
