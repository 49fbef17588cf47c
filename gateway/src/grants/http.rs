//! Outgoing HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_connectors::http::outgoing::{Outgoing, OutgoingError, OutgoingRequest};
use sluicegate_plugin_host::{HttpAccess, HttpError, HttpRequest, HttpResponse};

/// A plugin's client.
pub(super) struct OutgoingHttp(pub Arc<Outgoing>);

#[async_trait]
impl HttpAccess for OutgoingHttp {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let HttpRequest { method, url, headers, body, timeout } = request;
        match self.0.send(OutgoingRequest { method, url, headers, body, timeout }).await {
            Ok(response) => {
                Ok(HttpResponse { status: response.status, headers: response.headers, body: response.body })
            }
            Err(OutgoingError::Invalid(text)) => Err(HttpError::Invalid(text)),
            Err(OutgoingError::Refused(text)) => Err(HttpError::Refused(text)),
            Err(OutgoingError::Rate(after)) => Err(HttpError::Rate(after)),
            Err(OutgoingError::Timeout) => Err(HttpError::Timeout),
            Err(OutgoingError::TooLarge) => Err(HttpError::TooLarge),
            Err(OutgoingError::Unavailable(text)) => Err(HttpError::Unavailable(text)),
        }
    }
}
