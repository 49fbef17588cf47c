//! Refusals: RFC 9457 problem documents with the codes of requirement B9.

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

/// Media type of a [`ProblemDetails`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What kind of problem it is. Programs decide by this; it never changes once published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemCode {
    /// The connection ended or broke before the body was complete.
    BodyIncomplete,
    /// The body is not what its `Content-Encoding` says.
    BodyUndecodable,
    /// A header that has a meaning here has an impossible value.
    InvalidHeader,
    /// The address has a parameter with an impossible value.
    InvalidQuery,
    /// Not a valid CloudEvent.
    InvalidEvent,
    /// Not a valid JSON envelope.
    InvalidEnvelope,
    /// No pipeline listens at this path.
    PathNotFound,
    /// Only POST is accepted.
    MethodNotAllowed,
    /// The body did not arrive in time.
    BodyTimeout,
    /// A request with the same idempotency key has not been answered yet.
    IdempotencyInProgress,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The batch has more messages than allowed.
    BatchTooLarge,
    /// A `Content-Encoding` that is not understood.
    UnsupportedEncoding,
    /// A `Content-Type` that is not accepted at this path.
    UnsupportedMediaType,
    /// More or larger headers than allowed.
    HeadersTooLarge,
    /// The idempotency key belongs to a request with another body.
    IdempotencyKeyReused,
    /// The body violates the pipeline's schema.
    SchemaViolation,
    /// A step or target refused the message for good.
    MessageRejected,
    /// The pipeline takes no more messages for now.
    TooManyRequests,
    /// As many accepted messages wait for the pipeline as may.
    BacklogFull,
    /// The gateway as a whole takes no more for now.
    Overloaded,
    /// The store cannot take anything now, or there is none.
    StoreUnavailable,
    /// The pipeline is being reloaded or is stopping.
    PipelineUnavailable,
    /// The message could not be delivered and was kept as a dead letter.
    PublishFailed,
    /// Nothing was decided about the message.
    NotDelivered,
    /// The answer was due before the message was through.
    OutcomeUnknown,
    /// Not every message of a batch was delivered.
    BatchIncomplete,
}

impl ProblemCode {
    /// Every code.
    pub const ALL: [Self; 27] = [
        Self::BodyIncomplete,
        Self::BodyUndecodable,
        Self::InvalidHeader,
        Self::InvalidQuery,
        Self::InvalidEvent,
        Self::InvalidEnvelope,
        Self::PathNotFound,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::IdempotencyInProgress,
        Self::BodyTooLarge,
        Self::BatchTooLarge,
        Self::UnsupportedEncoding,
        Self::UnsupportedMediaType,
        Self::HeadersTooLarge,
        Self::IdempotencyKeyReused,
        Self::SchemaViolation,
        Self::MessageRejected,
        Self::TooManyRequests,
        Self::BacklogFull,
        Self::Overloaded,
        Self::StoreUnavailable,
        Self::PipelineUnavailable,
        Self::PublishFailed,
        Self::NotDelivered,
        Self::OutcomeUnknown,
        Self::BatchIncomplete,
    ];

    /// The name, the usual status and the title that go together.
    fn meaning(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::BodyIncomplete => ("MQ_BODY_INCOMPLETE", StatusCode::BAD_REQUEST, "The body is incomplete"),
            Self::BodyUndecodable => ("MQ_BODY_UNDECODABLE", StatusCode::BAD_REQUEST, "The body cannot be decoded"),
            Self::InvalidHeader => ("MQ_INVALID_HEADER", StatusCode::BAD_REQUEST, "A header is invalid"),
            Self::InvalidQuery => {
                ("MQ_INVALID_QUERY", StatusCode::BAD_REQUEST, "A parameter of the address is invalid")
            }
            Self::InvalidEvent => ("MQ_INVALID_EVENT", StatusCode::BAD_REQUEST, "Not a valid CloudEvent"),
            Self::InvalidEnvelope => ("MQ_INVALID_ENVELOPE", StatusCode::BAD_REQUEST, "Not a valid envelope"),
            Self::PathNotFound => ("MQ_PATH_NOT_FOUND", StatusCode::NOT_FOUND, "No pipeline listens here"),
            Self::MethodNotAllowed => {
                ("MQ_METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED, "Only POST is accepted here")
            }
            Self::BodyTimeout => ("MQ_BODY_TIMEOUT", StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
            Self::IdempotencyInProgress => (
                "MQ_IDEMPOTENCY_IN_PROGRESS",
                StatusCode::CONFLICT,
                "A request with this idempotency key is in progress",
            ),
            Self::BodyTooLarge => ("MQ_BODY_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::BatchTooLarge => ("MQ_BATCH_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE, "The batch is too large"),
            Self::UnsupportedEncoding => {
                ("MQ_UNSUPPORTED_ENCODING", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The content encoding is not supported")
            }
            Self::UnsupportedMediaType => {
                ("MQ_UNSUPPORTED_MEDIA_TYPE", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The content type is not supported")
            }
            Self::HeadersTooLarge => (
                "MQ_HEADERS_TOO_LARGE",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "There are too many or too large headers",
            ),
            Self::IdempotencyKeyReused => (
                "MQ_IDEMPOTENCY_KEY_REUSED",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key belongs to another request",
            ),
            Self::SchemaViolation => {
                ("MQ_SCHEMA_VIOLATION", StatusCode::UNPROCESSABLE_ENTITY, "The message violates its schema")
            }
            Self::MessageRejected => {
                ("MQ_MESSAGE_REJECTED", StatusCode::UNPROCESSABLE_ENTITY, "The message was rejected")
            }
            Self::TooManyRequests => {
                ("MQ_TOO_MANY_REQUESTS", StatusCode::TOO_MANY_REQUESTS, "The pipeline takes no more for now")
            }
            Self::BacklogFull => ("MQ_BACKLOG_FULL", StatusCode::TOO_MANY_REQUESTS, "The pipeline's backlog is full"),
            Self::Overloaded => ("MQ_OVERLOADED", StatusCode::SERVICE_UNAVAILABLE, "The gateway takes no more for now"),
            Self::StoreUnavailable => {
                ("MQ_STORE_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE, "The store takes nothing now")
            }
            Self::PipelineUnavailable => {
                ("MQ_PIPELINE_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE, "The pipeline is not running now")
            }
            Self::PublishFailed => {
                ("MQ_PUBLISH_FAILED", StatusCode::SERVICE_UNAVAILABLE, "The message could not be delivered")
            }
            Self::NotDelivered => {
                ("MQ_NOT_DELIVERED", StatusCode::SERVICE_UNAVAILABLE, "The message was not delivered")
            }
            Self::OutcomeUnknown => {
                ("MQ_OUTCOME_UNKNOWN", StatusCode::SERVICE_UNAVAILABLE, "The outcome is not known yet")
            }
            Self::BatchIncomplete => {
                ("MQ_BATCH_INCOMPLETE", StatusCode::UNPROCESSABLE_ENTITY, "Not all messages were delivered")
            }
        }
    }

    /// For example `MQ_BODY_TOO_LARGE`.
    pub fn name(self) -> &'static str {
        self.meaning().0
    }

    /// The HTTP status that goes with it unless [`ProblemDetails::status`] says otherwise.
    pub fn status(self) -> StatusCode {
        self.meaning().1
    }

    /// The same for every occurrence.
    pub fn title(self) -> &'static str {
        self.meaning().2
    }
}

/// One mistake within what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointedError {
    /// Where it is.
    pub place: Place,
    /// What is wrong there.
    pub detail: String,
}

/// Where a mistake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// JSON pointer (RFC 6901) into the body; empty for the whole body. The member `pointer` of the document.
    Body(String),
    /// Name of a header. The member `header` of the document.
    Header(String),
}

/// Mistakes that one document lists; of more it only says how many there are.
pub const MAX_LISTED_ERRORS: usize = 100;

impl PointedError {
    /// A mistake in the body.
    pub fn in_body(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Place::Body(pointer.into()), detail: detail.into() }
    }

    /// A mistake in a header.
    pub fn in_header(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Place::Header(name.into()), detail: detail.into() }
    }

    fn to_json(&self) -> Value {
        match &self.place {
            Place::Body(pointer) => json!({ "pointer": pointer, "detail": self.detail }),
            Place::Header(name) => json!({ "header": name, "detail": self.detail }),
        }
    }
}

/// A refusal on its way to the client. Boxed inside so that results stay small.
#[derive(Debug, Clone, PartialEq)]
pub struct ProblemDetails(Box<Fields>);

#[derive(Debug, Clone, PartialEq)]
struct Fields {
    code: ProblemCode,
    status: StatusCode,
    detail: String,
    errors: Vec<PointedError>,
    retry_after_secs: Option<u64>,
    extensions: Map<String, Value>,
    closes_connection: bool,
}

impl ProblemDetails {
    /// `detail` says what was being done, what went wrong and what to try; never a secret.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Fields {
            code,
            status: code.status(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_secs: None,
            extensions: Map::new(),
            closes_connection: false,
        }))
    }

    /// Another status than the code's own.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// All the single mistakes.
    #[must_use]
    pub fn with_errors(mut self, errors: impl IntoIterator<Item = PointedError>) -> Self {
        self.0.errors.extend(errors);
        self
    }

    /// Asks the client to try again, not before that many seconds.
    #[must_use]
    pub fn with_retry_after(mut self, secs: u64) -> Self {
        self.0.retry_after_secs = Some(secs);
        self
    }

    /// Adds an extension member; the standard members keep their meaning whatever its name is.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.extensions.insert(member.to_owned(), value.into());
        self
    }

    /// Closes the connection after the answer, because the rest of the request will not be read.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.0.closes_connection = true;
        self
    }

    /// The kind.
    pub fn code(&self) -> ProblemCode {
        self.0.code
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The text for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The single mistakes.
    pub fn errors(&self) -> &[PointedError] {
        &self.0.errors
    }

    /// What is sent, members in the order a person reads them.
    pub fn to_json(&self) -> Value {
        let fields = &*self.0;
        let code = fields.code.name();
        let slug = code.trim_start_matches("MQ_").to_ascii_lowercase().replace('_', "-");
        let mut document = Map::new();
        document.insert("type".to_owned(), format!("urn:sluicegate:problem:{slug}").into());
        document.insert("title".to_owned(), fields.code.title().into());
        document.insert("status".to_owned(), fields.status.as_u16().into());
        document.insert("detail".to_owned(), fields.detail.as_str().into());
        document.insert("code".to_owned(), code.into());
        if !fields.errors.is_empty() {
            let listed = fields.errors.iter().take(MAX_LISTED_ERRORS).map(PointedError::to_json);
            document.insert("errors".to_owned(), listed.collect());
            if let Some(omitted @ 1..) = fields.errors.len().checked_sub(MAX_LISTED_ERRORS) {
                document.insert("errorsOmitted".to_owned(), omitted.into());
            }
        }
        if let Some(secs) = fields.retry_after_secs {
            document.insert("retryAfter".to_owned(), secs.into());
        }
        for (member, value) in &fields.extensions {
            document.entry(member.clone()).or_insert_with(|| value.clone());
        }
        Value::Object(document)
    }
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.to_json().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(secs) = self.0.retry_after_secs {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.0.code == ProblemCode::MethodNotAllowed {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if self.0.code == ProblemCode::UnsupportedEncoding {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if self.0.closes_connection {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;
