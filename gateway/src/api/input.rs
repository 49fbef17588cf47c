//! What requests bring along: JSON bodies and queries, with every refusal an [`ApiError`].

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluicegate_engine::message::parse_json;

use super::error::{ApiCode, ApiError};

/// A JSON body; an empty one counts as `{}`.
#[derive(Debug)]
pub struct Input<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        TextInput::from_request(request, state).await.map(|input| Self(input.form))
    }
}

/// A JSON body and its text, for whoever keeps parts of it byte for byte.
#[derive(Debug)]
pub struct TextInput<T> {
    /// What it says.
    pub form: T,
    /// As it came.
    pub text: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for TextInput<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Bytes::from_request(request, state).await.map_err(|refusal| {
            let code = match refusal.status() {
                http::StatusCode::PAYLOAD_TOO_LARGE => ApiCode::MessageTooLarge,
                _ => ApiCode::InvalidRequest,
            };
            ApiError::new(code, format!("reading the request's body failed: {}", refusal.body_text()))
        })?;
        let text = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
        let invalid = |why: String| ApiError::new(ApiCode::InvalidRequest, why);
        // Nesting is limited before anything is built of it.
        let value = parse_json(&text).map_err(|error| invalid(error.to_string()))?;
        // serde would take a list for an object, member by member.
        if !value.is_object() {
            return Err(invalid("the request's body is not a JSON object".to_owned()));
        }
        let form = serde_path_to_error::deserialize(value).map_err(|error| {
            invalid(format!("the request's body does not fit at `{}`: {}", error.path(), error.inner()))
        })?;
        Ok(Self { form, text })
    }
}

/// The variable segments of the URL's path.
#[derive(Debug)]
pub struct Segments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Path(segments) =
            axum::extract::Path::from_request_parts(parts, state).await.map_err(|refusal| {
                ApiError::new(ApiCode::InvalidRequest, format!("the URL's path does not fit: {}", refusal.body_text()))
            })?;
        Ok(Self(segments))
    }
}

/// The query part of the URL.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        serde_urlencoded::from_str(query).map(Self).map_err(|error| {
            ApiError::new(ApiCode::InvalidRequest, format!("the URL's query `?{query}` does not fit: {error}"))
        })
    }
}

/// A JSON answer.
#[derive(Debug)]
pub struct Answer<T>(pub T);

impl<T: Serialize> Answer<T> {
    /// With 201.
    pub fn created(self) -> Response {
        let mut response = self.into_response();
        if response.status() == http::StatusCode::OK {
            *response.status_mut() = http::StatusCode::CREATED;
        }
        response
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string(&self.0) {
            Ok(text) => ([(http::header::CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => {
                ApiError::new(ApiCode::Internal, format!("writing the answer failed: {error}")).into_response()
            }
        }
    }
}
