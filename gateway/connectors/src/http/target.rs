//! The webhook target: every message is one HTTP request, delivered when it is answered 2xx.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::{Client, Response, Url};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::target::{Batching, Outlet, Target};

use super::client::Settings;
use super::reach::{OutOfReach, Reach};
use super::retry_after::parse_retry_after;
use super::signature::{sign, signing_key, webhook_id};
use super::target_config::{TargetConfig, WebhookFormat, WebhookMethod, WebhookUrl};
use super::{attribute_headers, client, message_headers};
use crate::cloudevents;
use crate::quantity::Secret;
use crate::registry::BuildContext;

/// So much of a refusal's body stands in the error.
const MAX_EXCERPT_BYTES: usize = 512;

/// So much of an answer is read: enough to hide secrets that would straddle the end of the excerpt.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// How long the rest of an answer is waited for once its status is known.
const ANSWER_BODY_WAIT: Duration = Duration::from_secs(1);

/// Values shorter than this are not searched for in answers: hiding every `a` would tell more than it hides.
const MIN_HIDDEN_BYTES: usize = 4;

/// A webhook as a target. It has no connection of its own: connecting prepares the client and its pool.
pub struct HttpTarget {
    config: TargetConfig,
    base_dir: PathBuf,
    reach: Reach,
}

impl HttpTarget {
    /// Not yet connected.
    pub fn new(config: &TargetConfig, context: &BuildContext) -> Self {
        let reach = config.reach(context.is_tenants());
        Self { config: config.clone(), base_dir: context.base_dir.clone(), reach }
    }
}

#[async_trait]
impl Target for HttpTarget {
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        let config = &self.config;
        let ca_file = config.tls.ca_file.as_ref().map(|file| self.base_dir.join(file));
        let settings = Settings {
            ca_file: ca_file.as_deref(),
            reach: self.reach.clone(),
            ..Settings::new(config.connect_timeout.0, config.max_concurrent)
        };
        let client = client::build(settings).await?;
        let webhook = Webhook::new(config, client)?;
        self.reach
            .check(&webhook.url)
            .map_err(|error| Failure::permanent(format!("preparing the webhook {}: {error}", config.url)))?;
        Ok(Arc::new(webhook))
    }

    fn batching(&self) -> Batching {
        // One request a call: a slow one must not hold back the confirmations of others.
        Batching { max_messages: 1, max_concurrent: self.config.max_concurrent }
    }
}

struct Webhook {
    client: Client,
    url: Url,
    /// The address as it may be shown.
    shown: WebhookUrl,
    method: Method,
    format: WebhookFormat,
    headers: HeaderMap,
    signing_key: Option<Vec<u8>>,
    timeout: Duration,
    max_concurrent: usize,
    /// What an answer must not bring into an error by echoing the request.
    hidden: Vec<String>,
}

impl Webhook {
    fn new(config: &TargetConfig, client: Client) -> Result<Self, Failure> {
        let url = config.url.parse().ok_or_else(|| {
            Failure::permanent("preparing a webhook: its `url` is no address that begins with http:// or https://")
        })?;
        let signing_key =
            config.signing_secret.as_ref().map(|secret| signing_key(secret.expose())).transpose().map_err(|error| {
                Failure::permanent(format!("preparing the webhook {}: `signing_secret`: {error}", config.url))
            })?;
        Ok(Self {
            client,
            hidden: hidden(config, &url),
            url,
            shown: config.url.clone(),
            method: match config.method {
                WebhookMethod::Post => Method::POST,
                WebhookMethod::Put => Method::PUT,
            },
            format: config.format,
            headers: configured_headers(&config.headers, &config.url)?,
            signing_key,
            timeout: config.timeout.0,
            max_concurrent: config.max_concurrent.max(1),
        })
    }

    async fn send(&self, message: &Message) -> Result<(), Failure> {
        let (headers, body) = self.request(message);
        let sent = self
            .client
            .request(self.method.clone(), self.url.clone())
            .headers(headers)
            .body(body)
            .timeout(self.timeout)
            .send()
            .await;
        match sent {
            Ok(response) => self.judge(response).await,
            Err(error) => Err(self.unanswered(error)),
        }
    }

    /// The headers and body that carry `message`.
    fn request(&self, message: &Message) -> (HeaderMap, bytes::Bytes) {
        let mut headers = HeaderMap::new();
        let body = match self.format {
            WebhookFormat::Binary => {
                attribute_headers::write(message, &mut headers);
                message.body.bytes().clone()
            }
            WebhookFormat::Structured => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json; charset=utf-8"));
                cloudevents::encode(message).into()
            }
            WebhookFormat::Raw => {
                message_headers::to_request(&message.headers, &mut headers);
                insert(&mut headers, "content-type", message.content_type.as_deref());
                message.body.bytes().clone()
            }
        };
        insert(&mut headers, "traceparent", message.trace_parent.as_deref());
        insert(&mut headers, "tracestate", message.trace_state.as_deref());
        insert(&mut headers, "x-correlation-id", message.correlation_id.as_deref());
        let id = webhook_id(message);
        insert(&mut headers, "webhook-id", Some(&id));
        if let Some(key) = &self.signing_key {
            let timestamp_secs = now_ms() / 1_000;
            insert(&mut headers, "webhook-timestamp", Some(&timestamp_secs.to_string()));
            insert(&mut headers, "webhook-signature", Some(&sign(key, &id, timestamp_secs, &body)));
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        (headers, body)
    }

    async fn judge(&self, response: Response) -> Result<(), Failure> {
        let status = response.status();
        let wish = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wish = wish.and_then(|value| parse_retry_after(value, jiff::Timestamp::now()));
        // Read in any case: a connection whose answer is left unread cannot be used again.
        let answer = read_answer(response).await;
        if status.is_success() {
            return Ok(());
        }
        let said = match self.excerpt(&answer) {
            said if said.is_empty() => String::new(),
            said => format!(", saying `{said}`"),
        };
        let what = format!("{} {} was answered {status}{said}", self.method, self.shown);
        Err(match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                transient(wish, format!("{what}; the receiver asks for another try"))
            }
            _ if status.is_server_error() => transient(wish, format!("{what}; look at the receiver's log")),
            _ if status.is_redirection() => {
                Failure::permanent(format!("{what}; redirects are not followed: put the final address into `url`"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::permanent(format!("{what}; check `headers` and `signing_secret` of the target"))
            }
            _ => Failure::permanent(format!("{what}; check the target's `url`, `method` and `format`")),
        })
    }

    /// No answer at all: the receiver may or may not have the message, so that it is tried again with the same id.
    fn unanswered(&self, error: reqwest::Error) -> Failure {
        if OutOfReach::caused(&error) {
            return Failure::permanent(format!(
                "{} {}: {}; let its host have a public address, or let the operator grant a target",
                self.method,
                self.shown,
                client::causes(&error.without_url())
            ));
        }
        let problem = if error.is_timeout() {
            format!("no answer came within {:?}", self.timeout)
        } else if error.is_connect() {
            format!("no connection could be made: {}", client::causes(&error.without_url()))
        } else {
            format!("the connection failed: {}", client::causes(&error.without_url()))
        };
        Failure::transient(format!(
            "{} {}: {problem}; check that the receiver is running and can be reached from here",
            self.method, self.shown
        ))
    }

    /// The beginning of an answer as one line without secrets.
    fn excerpt(&self, answer: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(answer).into_owned();
        for secret in &self.hidden {
            text = text.replace(secret.as_str(), "***");
        }
        let mut end = text.len().min(MAX_EXCERPT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        line.trim().to_owned()
    }
}

#[async_trait]
impl Outlet for Webhook {
    async fn publish(&self, batch: &[Arc<Message>]) -> Vec<Result<(), Failure>> {
        let requests: Vec<_> = batch.iter().map(|message| self.send(message)).collect();
        stream::iter(requests).buffered(self.max_concurrent).collect().await
    }
}

fn transient(wish: Option<Duration>, text: String) -> Failure {
    match wish {
        Some(delay) => Failure::retry_after(delay, text),
        None => Failure::transient(text),
    }
}

/// Sets a header if there is a value and HTTP can carry it.
fn insert(headers: &mut HeaderMap, name: &'static str, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok()) {
        headers.insert(name, value);
    }
}

fn configured_headers(configured: &BTreeMap<String, Secret>, shown: &WebhookUrl) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        let known = HeaderName::from_bytes(name.as_bytes()).ok();
        let (Some(known), Ok(mut value)) = (known, HeaderValue::from_str(value.expose())) else {
            return Err(Failure::permanent(format!(
                "preparing the webhook {shown}: the configured header `{name}` is not a possible header"
            )));
        };
        value.set_sensitive(true);
        headers.insert(known, value);
    }
    Ok(headers)
}

fn hidden(config: &TargetConfig, url: &Url) -> Vec<String> {
    let mut hidden: Vec<String> = config.headers.values().map(|value| value.expose().to_owned()).collect();
    // `Bearer x`: the token alone is the secret.
    hidden.extend(config.headers.values().filter_map(|value| Some(value.expose().split_once(' ')?.1.to_owned())));
    hidden.extend(config.signing_secret.iter().map(|secret| secret.expose().to_owned()));
    hidden.extend(url.password().map(str::to_owned));
    hidden.extend(url.query().map(str::to_owned));
    hidden.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    hidden.retain(|secret| secret.len() >= MIN_HIDDEN_BYTES);
    hidden
}

/// What comes of the body, within limits of size and time.
async fn read_answer(mut response: Response) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = async {
        while answer.len() < MAX_ANSWER_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            answer.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER_BYTES - answer.len())]);
        }
    };
    if tokio::time::timeout(ANSWER_BODY_WAIT, read).await.is_err() {
        tracing::debug!("a webhook's answer was still coming; its status is enough");
    }
    answer
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
