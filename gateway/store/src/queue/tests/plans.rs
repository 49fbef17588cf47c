//! The statements of the hot paths use indexes, however full the tables are.

use async_trait::async_trait;

use super::*;
use crate::database::{Connection, Value};
use crate::error::StoreError;
use crate::reader::Question;

struct Plan(&'static str);

#[async_trait]
impl Question for Plan {
    type Output = Vec<String>;

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let values = [1_u64, 1, 1, 1].map(Value::from);
        let rows = connection.query(&format!("EXPLAIN QUERY PLAN {}", self.0), &values).await?;
        rows.iter().map(|row| row.text(3)).collect()
    }
}

#[tokio::test]
async fn hot_statements_walk_indexes_and_sort_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let queues = open(&folder).await;
    for (sql, index) in [
        (
            "SELECT msg_offset, size_bytes FROM queue_messages WHERE queue_id = $1 AND priority = 4 AND msg_offset > $2 \
             ORDER BY msg_offset LIMIT $3",
            "queue_messages_by_priority",
        ),
        (
            "SELECT c.msg_offset, m.size_bytes FROM queue_claims AS c LEFT JOIN queue_messages AS m \
             ON m.queue_id = $2 AND m.msg_offset = c.msg_offset WHERE c.group_id = $1 AND c.consumer IS NULL \
             AND c.is_blocked = 0 AND c.not_before_ms <= $3 ORDER BY c.priority DESC, c.msg_offset LIMIT $4",
            "queue_claims_ready",
        ),
        ("SELECT min(msg_offset) FROM queue_claims WHERE group_id = $1 AND lane = $2", "queue_claims_lanes"),
        (
            "SELECT msg_offset FROM queue_messages WHERE expires_at_ms IS NOT NULL AND expires_at_ms <= $1 \
             ORDER BY expires_at_ms LIMIT $2",
            "queue_messages_expiring",
        ),
        (
            "SELECT scheduled_id FROM queue_scheduled WHERE deliver_at_ms <= $1 ORDER BY deliver_at_ms, scheduled_id LIMIT $2",
            "queue_scheduled_due",
        ),
        (
            "SELECT msg_offset FROM queue_messages WHERE queue_id = $1 AND substr(message_id, 1, 200) = \
             substr(CAST($2 AS TEXT), 1, 200) AND message_id = $2",
            "queue_messages_by_id",
        ),
        (
            "SELECT msg_offset FROM queue_messages WHERE queue_id = $1 ORDER BY msg_offset LIMIT $2",
            "sqlite_autoindex_queue_messages",
        ),
    ] {
        let plan = queues.store.ask(Plan(sql)).await.expect("a plan");
        assert!(plan.iter().any(|step| step.contains(index)), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|step| step.starts_with("SCAN") || step.contains("TEMP B-TREE")), "{sql}: {plan:?}");
    }
}
