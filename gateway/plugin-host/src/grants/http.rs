//! The capability `http`.

use std::time::Duration;

use bytes::Bytes;

use super::bindings::sluicegate::http::outgoing::{Error, Host, Method, Request, Response};
use super::call::{Refusal, TOLD_BYTES};
use super::{Capability, HttpError, HttpRequest, HttpResponse};
use crate::state::State;
use crate::text::tame;

/// Longest URL.
const MAX_URL_BYTES: usize = 8 * 1_024;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// All names and values of a request's headers.
const MAX_HEADER_BYTES: usize = 16 * 1_024;
/// Longest body of a request.
const MAX_BODY_BYTES: usize = 256 * 1_024;

impl Host for State {
    async fn send(&mut self, request: Request) -> wasmtime::Result<Result<Response, Error>> {
        let answer = self.exchange(request).await;
        self.count_call(Capability::Http, outcome(&answer));
        Ok(answer)
    }
}

impl State {
    async fn exchange(&mut self, request: Request) -> Result<Response, Error> {
        let size = checked_size(&request)?;
        let grants = self.admit(Capability::Http, size)?;
        let http = grants.http.as_ref().ok_or(Error::TooEarly)?;
        let response = self.wait(http.send(converted(request))).await.ok_or(Error::Timeout)??;
        let headers: usize = response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.take_bytes(headers + response.body.len())?;
        Ok(answered(response))
    }
}

fn checked_size(request: &Request) -> Result<usize, Error> {
    let headers: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let sizes = [
        ("the URL", request.url.len(), MAX_URL_BYTES, "bytes"),
        ("the request", request.headers.len(), MAX_HEADERS, "headers"),
        ("the request", headers, MAX_HEADER_BYTES, "bytes of headers"),
        ("the body", request.body.len(), MAX_BODY_BYTES, "bytes"),
    ];
    match sizes.into_iter().find(|(_, size, limit, _)| size > limit) {
        Some((what, size, limit, unit)) => {
            Err(Error::Invalid(format!("{what} has {size} {unit}, more than the limit of {limit}")))
        }
        None => Ok(request.url.len() + headers + request.body.len()),
    }
}

fn converted(request: Request) -> HttpRequest {
    HttpRequest {
        method: match request.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        },
        url: request.url,
        headers: request.headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        body: request.body.into(),
        timeout: request.timeout_ms.map(|ms| Duration::from_millis(ms.into())),
    }
}

fn answered(response: HttpResponse) -> Response {
    Response {
        status: response.status,
        headers: response.headers.into_iter().map(|(name, value)| (name, value.to_vec())).collect(),
        body: response.body.to_vec(),
    }
}

fn outcome(answer: &Result<Response, Error>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(Error::TooEarly) => "too_early",
        Err(Error::Invalid(_)) => "invalid",
        Err(Error::Refused(_)) => "refused",
        Err(Error::Limit(_)) => "limit",
        Err(Error::Rate(_)) => "rate",
        Err(Error::Timeout) => "timeout",
        Err(Error::TooLarge) => "too_large",
        Err(Error::Unavailable(_)) => "unavailable",
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooEarly => Self::TooEarly,
            Refusal::Limit(text) => Self::Limit(text),
        }
    }
}

impl From<HttpError> for Error {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Invalid(text) => Self::Invalid(tame(&text, TOLD_BYTES)),
            HttpError::Refused(text) => Self::Refused(tame(&text, TOLD_BYTES)),
            HttpError::Rate(after) => Self::Rate(u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1)),
            HttpError::Timeout => Self::Timeout,
            HttpError::TooLarge => Self::TooLarge,
            HttpError::Unavailable(text) => Self::Unavailable(tame(&text, TOLD_BYTES)),
        }
    }
}
