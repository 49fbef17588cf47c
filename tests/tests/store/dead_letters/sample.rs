//! Dead letters to try with.

use std::sync::Arc;

use sluicegate_engine::dead_letter::{Attempt, DeadLetter};
use sluicegate_engine::failure::FailureClass;
use sluicegate_engine::message::Message;

/// A letter with an id of its own.
pub fn letter() -> DeadLetter {
    let message = Arc::new(Message::new("/orders", "order.created", &b"{\"id\":1}"[..]));
    DeadLetter {
        id: uuid::Uuid::now_v7().to_string(),
        failed_at_ms: 1_763_654_400_000,
        pipeline: "orders".into(),
        config_version: "0123456789ab".into(),
        at_failure: Arc::clone(&message),
        original: message,
        step: None,
        target: Some("eu".into()),
        class: FailureClass::TargetFailed,
        error: "cannot publish to exchange `orders`: connection refused".to_owned(),
        schema_errors: Vec::new(),
        plugin: None,
        plugin_digest: None,
        backtrace: Vec::new(),
        attempts: vec![Attempt { number: 1, at_ms: 1_763_654_399_000, error: "connection refused".to_owned() }],
        trace_id: None,
        redrive_count: 0,
    }
}
