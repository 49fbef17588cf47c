//! What queues refuse, in the words of the API.

use serde_json::json;
use sluicegate_engine::failure::FailureKind;
use sluicegate_store::queue::QueueError;

use super::error::{ApiCode, ApiError, RETRY_AFTER_STORE_SECS};
use crate::queues::QueuesError;

impl From<QueuesError> for ApiError {
    fn from(error: QueuesError) -> Self {
        let text = error.to_string();
        match error {
            QueuesError::Queue(error) => error.into(),
            QueuesError::Unsupported { queue, what, hint: _ } => {
                Self::new(ApiCode::NotSupported, text).with_details(json!({ "queue": queue, "missing": what }))
            }
            QueuesError::Redis { queue, failure } => {
                let details = json!({ "queue": queue });
                match failure.kind {
                    // Nobody's waiting helps; an operator has to change something.
                    FailureKind::Permanent => Self::new(ApiCode::BackendRefused, text).with_details(details),
                    FailureKind::Transient { .. } | FailureKind::Disconnected | FailureKind::EndOfInput => {
                        Self::new(ApiCode::BackendUnavailable, text)
                            .with_details(details)
                            .with_retry_after(RETRY_AFTER_STORE_SECS)
                    }
                }
            }
        }
    }
}

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

/// The same, of a request to publish: what is wrong with a backend is that nothing was published, as far as is known.
pub(super) fn publishing(error: QueuesError) -> ApiError {
    let nothing_published = match &error {
        QueuesError::Queue(QueueError::Store(_)) => true,
        QueuesError::Redis { failure, .. } => failure.kind != FailureKind::Permanent,
        QueuesError::Queue(_) | QueuesError::Unsupported { .. } => false,
    };
    let error = ApiError::from(error);
    if nothing_published { error.as_code(ApiCode::PublishFailed) } else { error }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluicegate_engine::failure::Failure;
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
        assert_eq!(publishing(closed.into()).code().name(), "MQ_PUBLISH_FAILED");
    }

    #[test]
    fn what_redis_has_not_and_a_redis_that_is_away_are_told_apart() {
        let queue = || "q".to_owned();
        let redis = |failure| QueuesError::Redis { queue: queue(), failure };
        let unsupported = QueuesError::Unsupported { queue: queue(), what: "priorities", hint: "leave it out" };
        for (error, name, publishing_name, status) in [
            (unsupported, "MQ_NOT_SUPPORTED", "MQ_NOT_SUPPORTED", 422),
            (redis(Failure::disconnected("away")), "MQ_BACKEND_UNAVAILABLE", "MQ_PUBLISH_FAILED", 503),
            (redis(Failure::transient("loading")), "MQ_BACKEND_UNAVAILABLE", "MQ_PUBLISH_FAILED", 503),
            (redis(Failure::permanent("password")), "MQ_BACKEND_REFUSED", "MQ_BACKEND_REFUSED", 502),
        ] {
            assert_eq!(publishing(error.clone()).code().name(), publishing_name);
            let code = ApiError::from(error).code();
            assert_eq!((code.name(), code.status().as_u16()), (name, status));
        }
    }
}
