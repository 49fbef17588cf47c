//! Refusals of the API: RFC 9457 problem documents with the members that requirement B9 asks for.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};
use sluicegate_connectors::http::PROBLEM_JSON;
use sluicegate_store::StoreError;

/// What kind of refusal it is. Programs decide by its name; it never changes once published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiCode {
    /// The request's JSON, path or query is not what is asked for.
    InvalidRequest,
    /// No credential, or none that is known.
    Unauthorized,
    /// The credential does not allow it.
    Forbidden,
    /// No such path in the API.
    PathNotFound,
    /// No such queue.
    QueueNotFound,
    /// A queue of that name exists with other properties.
    QueueExists,
    /// The queue takes no more messages now.
    QueueFull,
    /// No such message.
    MessageNotFound,
    /// The message cannot be cancelled any more.
    MessageClaimed,
    /// Larger than the queue or the API takes.
    MessageTooLarge,
    /// The message violates the queue's schema.
    SchemaViolation,
    /// No such consumer group.
    ConsumerNotFound,
    /// The group cannot do that.
    ConsumerError,
    /// No such subscription.
    SubscriptionNotFound,
    /// Publishing failed.
    PublishFailed,
    /// No such dead letter.
    DeadLetterNotFound,
    /// No such redrive job.
    RedriveNotFound,
    /// An idempotency key came again with another request.
    KeyReused,
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// No such tenant.
    TenantNotFound,
    /// A tenant of that name exists.
    TenantExists,
    /// No such key.
    KeyNotFound,
    /// No such resource of this tenant.
    ResourceNotFound,
    /// A resource of that name exists.
    ResourceExists,
    /// A document with mistakes.
    DocumentInvalid,
    /// A quota is used up.
    QuotaExceeded,
    /// The thing was changed meanwhile, or is not in a state for that.
    Conflict,
    /// What keeps the queue has no such thing.
    NotSupported,
    /// What keeps the queue cannot answer now.
    BackendUnavailable,
    /// What keeps the queue is not set up so that it can be used.
    BackendRefused,
    /// The store cannot answer now.
    StoreUnavailable,
    /// A defect of the gateway.
    Internal,
}

impl ApiCode {
    /// The name and the status that go together.
    fn meaning(self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidRequest => ("MQ_INVALID_REQUEST", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("MQ_UNAUTHORIZED", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("MQ_FORBIDDEN", StatusCode::FORBIDDEN),
            Self::PathNotFound => ("MQ_PATH_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::QueueNotFound => ("MQ_QUEUE_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::QueueExists => ("MQ_QUEUE_EXISTS", StatusCode::CONFLICT),
            Self::QueueFull => ("MQ_QUEUE_FULL", StatusCode::TOO_MANY_REQUESTS),
            Self::MessageNotFound => ("MQ_MESSAGE_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::MessageClaimed => ("MQ_MESSAGE_CLAIMED", StatusCode::CONFLICT),
            Self::MessageTooLarge => ("MQ_MESSAGE_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
            Self::SchemaViolation => ("MQ_SCHEMA_VIOLATION", StatusCode::UNPROCESSABLE_ENTITY),
            Self::ConsumerNotFound => ("MQ_CONSUMER_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::ConsumerError => ("MQ_CONSUMER_ERROR", StatusCode::CONFLICT),
            Self::SubscriptionNotFound => ("MQ_SUBSCRIPTION_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::PublishFailed => ("MQ_PUBLISH_FAILED", StatusCode::SERVICE_UNAVAILABLE),
            Self::DeadLetterNotFound => ("MQ_DEAD_LETTER_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::RedriveNotFound => ("MQ_REDRIVE_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::KeyReused => ("MQ_IDEMPOTENCY_KEY_REUSED", StatusCode::UNPROCESSABLE_ENTITY),
            Self::MethodNotAllowed => ("MQ_METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED),
            Self::TenantNotFound => ("MQ_TENANT_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::TenantExists => ("MQ_TENANT_EXISTS", StatusCode::CONFLICT),
            Self::KeyNotFound => ("MQ_KEY_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::ResourceNotFound => ("MQ_RESOURCE_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::ResourceExists => ("MQ_RESOURCE_EXISTS", StatusCode::CONFLICT),
            Self::DocumentInvalid => ("MQ_DOCUMENT_INVALID", StatusCode::UNPROCESSABLE_ENTITY),
            Self::QuotaExceeded => ("MQ_QUOTA_EXCEEDED", StatusCode::FORBIDDEN),
            Self::Conflict => ("MQ_CONFLICT", StatusCode::CONFLICT),
            Self::NotSupported => ("MQ_NOT_SUPPORTED", StatusCode::UNPROCESSABLE_ENTITY),
            Self::BackendUnavailable => ("MQ_BACKEND_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
            Self::BackendRefused => ("MQ_BACKEND_REFUSED", StatusCode::BAD_GATEWAY),
            Self::StoreUnavailable => ("MQ_STORE_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
            Self::Internal => ("MQ_INTERNAL", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// For example `MQ_QUEUE_NOT_FOUND`.
    pub fn name(self) -> &'static str {
        self.meaning().0
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> StatusCode {
        self.meaning().1
    }
}

/// A refusal on its way to the client.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: ApiCode,
    message: String,
    details: Option<Value>,
    retry_after_secs: Option<u64>,
}

impl ApiError {
    /// `message` says what was asked, what is wrong with it and what to do; never a secret.
    pub fn new(code: ApiCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None, retry_after_secs: None }
    }

    /// Adds what programs may want to know.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Takes away what [`within`](Self::within) or the store said about where it happened.
    #[must_use]
    pub(super) fn without_place(mut self, place: &str) -> Self {
        if self.message.starts_with(place) {
            self.message.drain(..place.len());
            if let Some(Value::Object(details)) = &mut self.details {
                details.shift_remove("index");
            }
        }
        self
    }

    /// Adds what to try.
    #[must_use]
    pub fn with_hint(mut self, hint: &str) -> Self {
        self.message.push_str("; ");
        self.message.push_str(hint);
        self
    }

    /// Adds one member to the details.
    #[must_use]
    pub fn with_detail(mut self, name: &str, value: Value) -> Self {
        let details = self.details.get_or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(members) = details {
            members.insert(name.to_owned(), value);
        }
        self
    }

    /// The same under another code.
    #[must_use]
    pub fn as_code(mut self, code: ApiCode) -> Self {
        self.code = code;
        self
    }

    /// Asks the client to try again, not before that many seconds.
    #[must_use]
    pub fn with_retry_after(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// Says where it happened, before what happened.
    #[must_use]
    pub fn within(mut self, place: impl std::fmt::Display) -> Self {
        self.message.insert_str(0, &format!("{place}: "));
        self
    }

    /// What kind it is.
    pub fn code(&self) -> ApiCode {
        self.code
    }
}

/// What a client is asked to wait before it asks a store again that cannot answer, in seconds.
pub(super) const RETRY_AFTER_STORE_SECS: u64 = 5;

impl From<StoreError> for ApiError {
    /// A store that cannot answer now; resources turn what they know better (not found) into their own codes before.
    fn from(error: StoreError) -> Self {
        Self::new(ApiCode::StoreUnavailable, error.to_string()).with_retry_after(RETRY_AFTER_STORE_SECS)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let mut document = Map::new();
        document.insert("type".to_owned(), "about:blank".into());
        document.insert("title".to_owned(), status.canonical_reason().unwrap_or_default().into());
        document.insert("status".to_owned(), status.as_u16().into());
        document.insert("code".to_owned(), self.code.name().into());
        // RFC 9457 calls it `detail`, requirement B9 `message`.
        document.insert("detail".to_owned(), self.message.clone().into());
        document.insert("message".to_owned(), self.message.into());
        if let Some(details) = self.details {
            document.insert("details".to_owned(), details);
        }
        if let Some(secs) = self.retry_after_secs {
            document.insert("retryAfter".to_owned(), secs.into());
        }
        let text = Value::Object(document).to_string();
        let mut response = (status, [(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))], text).into_response();
        if self.code == ApiCode::Unauthorized {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sluicegate\""));
        }
        if let Some(secs) = self.retry_after_secs {
            response.headers_mut().insert(RETRY_AFTER, secs.into());
        }
        response
    }
}
