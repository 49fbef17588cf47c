//! How SQLite answers the statements that a large backlog must not slow down.

use async_trait::async_trait;

use super::{ORDERED, aside, backlog, outlook, rows, stored, walk};
use crate::database::{Backend, Connection, Value};
use crate::error::StoreError;
use crate::place::Location;
use crate::reader::Question;
use crate::store::Store;

struct Plan(String);

#[async_trait]
impl Question for Plan {
    type Output = Vec<String>;

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<String>, StoreError> {
        let arguments = vec![Value::Null; 16];
        let rows = connection.query(&format!("EXPLAIN QUERY PLAN {}", self.0), &arguments).await?;
        rows.iter().map(|row| row.text(3)).collect()
    }
}

#[tokio::test]
async fn an_index_answers_each_and_nothing_is_scanned_or_sorted() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&Location::embedded(folder.path())).await.expect("a store");
    let in_list = rows::in_list(Backend::Sqlite);
    let statements = [
        walk::WALK.to_owned(),
        outlook::NEXT[0].to_owned(),
        outlook::NEXT_LANE[0].to_owned(),
        outlook::ANY.to_owned(),
        aside::ANY_ASIDE.to_owned(),
        backlog::COUNT[0].to_owned(),
        ORDERED.to_owned(),
        rows::PROMOTE.to_owned(),
        rows::REPLACE[0].clone(),
        rows::INSERT[1].clone(),
        format!("DELETE FROM inbox WHERE {in_list}"),
        format!("SELECT {} FROM inbox WHERE {in_list}", stored::CLAIM_COLUMNS),
        "SELECT 1 FROM inbox WHERE redrive_letter = $1 LIMIT 1".to_owned(),
        crate::deduplication::FIND[0].to_owned(),
    ];
    for statement in statements {
        for step in store.ask(Plan(statement.clone())).await.expect("a plan") {
            let scans_list = step.starts_with("SCAN json_each") || step == "SCAN CONSTANT ROW";
            assert!(!step.starts_with("SCAN") || scans_list, "{statement}: {step}");
            assert!(!step.contains("TEMP B-TREE"), "{statement}: {step}");
        }
    }
    let walked = store.ask(Plan(walk::WALK.to_owned())).await.expect("a plan").join("; ");
    assert!(walked.contains("COVERING INDEX inbox_ready") && walked.contains("ready_at_ms>?"), "{walked}");
    store.close().await;
}
