//! What queues refuse, in the words of the API.

use serde_json::json;
use sluicegate_store::queue::QueueError;

use super::error::{ApiCode, ApiError};

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        let text = error.to_string();
        match error {
            QueueError::NotFound { queue } => {
                Self::new(ApiCode::QueueNotFound, text).with_details(json!({ "queue": queue }))
            }
            QueueError::GroupNotFound { queue, group } => {
                Self::new(ApiCode::SubscriptionNotFound, text).with_details(json!({ "queue": queue, "group": group }))
            }
            QueueError::MessageNotFound { queue, message } => Self::new(ApiCode::MessageNotFound, text)
                .with_details(json!({ "queue": queue, "message": message.trim_matches('`') })),
            QueueError::Exists { queue } => {
                Self::new(ApiCode::QueueExists, text).with_details(json!({ "queue": queue }))
            }
            QueueError::Conflict { queue, revision } => {
                Self::new(ApiCode::Conflict, text).with_details(json!({ "queue": queue, "revision": revision }))
            }
            QueueError::Full { queue, limit, retry_after } => Self::new(ApiCode::QueueFull, text)
                .with_details(json!({ "queue": queue, "limit": limit }))
                .with_retry_after(retry_after.as_secs().max(1)),
            QueueError::TooLarge { queue, bytes, limit_bytes } => Self::new(ApiCode::MessageTooLarge, text)
                .with_details(json!({ "queue": queue, "bytes": bytes, "limitBytes": limit_bytes })),
            QueueError::Claimed { queue, message } => Self::new(ApiCode::MessageClaimed, text)
                .with_details(json!({ "queue": queue, "message": message.trim_matches('`') })),
            QueueError::Invalid { what, text: _ } => {
                Self::new(ApiCode::InvalidRequest, text).with_details(json!({ "what": what }))
            }
            QueueError::TooMany { what, limit } => {
                Self::new(ApiCode::Conflict, text).with_details(json!({ "what": what, "limit": limit }))
            }
            QueueError::KeyReused { queue } => {
                Self::new(ApiCode::KeyReused, text).with_details(json!({ "queue": queue }))
            }
            QueueError::InBatch { index, error } => {
                Self::from(*error).within(format_args!("messages[{index}]")).with_detail("index", index.into())
            }
            QueueError::Store(error) => Self::from(error),
        }
    }
}

/// The same, of a request to publish: what is wrong with the store is that nothing was published.
pub(super) fn publishing(error: QueueError) -> ApiError {
    match error {
        QueueError::Store(error) => ApiError::from(error).as_code(ApiCode::PublishFailed),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluicegate_store::StoreError;

    use super::*;

    #[test]
    fn every_refusal_has_its_code_and_status() {
        let (queue, message) = ("q".to_owned(), "m".to_owned());
        let invalid = QueueError::Invalid { what: "ttl".to_owned(), text: "choose more".to_owned() };
        let in_batch = QueueError::InBatch { index: 3, error: Box::new(invalid.clone()) };
        let closed = QueueError::Store(StoreError::Closed { doing: "write" });
        let cases = [
            (QueueError::NotFound { queue: queue.clone() }, "MQ_QUEUE_NOT_FOUND", 404),
            (
                QueueError::GroupNotFound { queue: queue.clone(), group: "g".to_owned() },
                "MQ_SUBSCRIPTION_NOT_FOUND",
                404,
            ),
            (
                QueueError::MessageNotFound { queue: queue.clone(), message: message.clone() },
                "MQ_MESSAGE_NOT_FOUND",
                404,
            ),
            (QueueError::Exists { queue: queue.clone() }, "MQ_QUEUE_EXISTS", 409),
            (QueueError::Conflict { queue: queue.clone(), revision: 2 }, "MQ_CONFLICT", 409),
            (
                QueueError::Full { queue: queue.clone(), limit: "1 message".to_owned(), retry_after: Duration::ZERO },
                "MQ_QUEUE_FULL",
                429,
            ),
            (QueueError::TooLarge { queue: queue.clone(), bytes: 2, limit_bytes: 1 }, "MQ_MESSAGE_TOO_LARGE", 413),
            (QueueError::Claimed { queue: queue.clone(), message }, "MQ_MESSAGE_CLAIMED", 409),
            (invalid, "MQ_INVALID_REQUEST", 400),
            (in_batch, "MQ_INVALID_REQUEST", 400),
            (QueueError::TooMany { what: "queues", limit: 1 }, "MQ_CONFLICT", 409),
            (QueueError::KeyReused { queue }, "MQ_IDEMPOTENCY_KEY_REUSED", 422),
            (closed.clone(), "MQ_STORE_UNAVAILABLE", 503),
        ];
        for (error, name, status) in cases {
            let code = ApiError::from(error).code();
            assert_eq!((code.name(), code.status().as_u16()), (name, status));
        }
        assert_eq!(publishing(closed).code().name(), "MQ_PUBLISH_FAILED");
    }
}
