//! Questions about dead letters.

use sluicegate_engine::dead_letter::DeadLetter;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{Filter, MAX_PAGE_LETTERS, MAX_SUMMARY_ERROR_CHARS, Page, Summary, stored};
use crate::error::{Doing, StoreError};
use crate::reader::Reader;

/// How many candidates an ambiguous id is answered with.
const MAX_CANDIDATES: usize = 5;

const SUMMARY_COLUMNS: &str = "id, failed_at_ms, pipeline, step, target, class, plugin, attempt_count, redrive_count, \
    message_id, message_kind, body_bytes, trace_id";

impl Reader {
    /// One page of the dead letters that match, newest first. `limit` is cut to 1 through [`MAX_PAGE_LETTERS`]; `after`
    /// is the [`Page::next`] of the page before. Letters that come in meanwhile do not shift later pages.
    ///
    /// # Errors
    /// `PageToken` when `after` is not one, else what is wrong with the database. Cancel safe.
    pub async fn list(&self, filter: &Filter, limit: usize, after: Option<&str>) -> Result<Page, StoreError> {
        let doing = self.doing("list the dead letters");
        let limit = limit.clamp(1, MAX_PAGE_LETTERS);
        let after = after.map(Position::parse).transpose()?;

        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(SUMMARY_COLUMNS).push(", substr(error, 1, ").push(MAX_SUMMARY_ERROR_CHARS);
        query.push(") AS error FROM dead_letters WHERE 1");
        restrict(&mut query, filter);
        if let Some(position) = after {
            query.push(" AND (failed_at_ms, id) < (").push_bind(position.failed_at_ms);
            query.push(", ").push_bind(position.id).push(")");
        }
        // One more than wanted tells whether there is a next page.
        query.push(" ORDER BY failed_at_ms DESC, id DESC LIMIT ").push(limit + 1);

        let rows = query.build().fetch_all(self.pool()).await.map_err(|error| doing.failed(&error))?;
        let letters: Vec<Summary> =
            rows.iter().take(limit).map(|row| summary(row, &doing)).collect::<Result<_, _>>()?;
        let next = letters.last().filter(|_| rows.len() > limit).map(Position::token);
        Ok(Page { letters, next })
    }

    /// How many dead letters match.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn count(&self, filter: &Filter) -> Result<u64, StoreError> {
        let doing = self.doing("count the dead letters");
        let mut query = QueryBuilder::<Sqlite>::new("SELECT count(*) FROM dead_letters WHERE 1");
        restrict(&mut query, filter);
        let count: i64 =
            query.build_query_scalar().fetch_one(self.pool()).await.map_err(|error| doing.failed(&error))?;
        Ok(count.cast_unsigned())
    }

    /// The whole record of the dead letter with this id, or with the only id that begins so.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`, else what is wrong with the database. Cancel safe.
    pub async fn show(&self, id: &str) -> Result<DeadLetter, StoreError> {
        let doing = self.doing("read a dead letter");
        let mut ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM dead_letters WHERE id >= ? AND id < ? ORDER BY id LIMIT ?")
                .bind(id)
                .bind(format!("{id}{}", char::MAX))
                .bind(MAX_CANDIDATES as i64 + 1)
                .fetch_all(self.pool())
                .await
                .map_err(|error| doing.failed(&error))?;
        // An id that is complete is the first of those that begin with it.
        if ids.first().is_some_and(|first| first == id) {
            ids.truncate(1);
        }
        match &ids[..] {
            [] => Err(StoreError::NotFound { id: id.to_owned() }),
            [only] => {
                let select = format!("SELECT {} FROM dead_letters WHERE id = ?", stored::ALL_COLUMNS);
                let row =
                    sqlx::query(sqlx::AssertSqlSafe(select)).bind(only.as_str()).fetch_optional(self.pool()).await;
                match row.map_err(|error| doing.failed(&error))? {
                    Some(row) => stored::decode(&row, &doing),
                    None => Err(StoreError::NotFound { id: id.to_owned() }),
                }
            }
            several => Err(StoreError::Ambiguous {
                id: id.to_owned(),
                candidates: several.iter().take(MAX_CANDIDATES).cloned().collect(),
                more: several.len() > MAX_CANDIDATES,
            }),
        }
    }
}

/// Adds the filter's conditions, each value bound.
fn restrict(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    if let Some(pipeline) = &filter.pipeline {
        query.push(" AND pipeline = ").push_bind(pipeline.as_str());
    }
    if let Some(class) = filter.class {
        query.push(" AND class = ").push_bind(class.name());
    }
    if let Some(target) = &filter.target {
        query.push(" AND target = ").push_bind(target.as_str());
    }
    if let Some(since_ms) = filter.since_ms {
        query.push(" AND failed_at_ms >= ").push_bind(i64::try_from(since_ms).unwrap_or(i64::MAX));
    }
    if let Some(until_ms) = filter.until_ms {
        query.push(" AND failed_at_ms < ").push_bind(i64::try_from(until_ms).unwrap_or(i64::MAX));
    }
    if let Some(text) = &filter.text {
        query.push(" AND (");
        for (index, column) in ["error", "message_id", "message_kind", "step", "plugin"].into_iter().enumerate() {
            query.push(if index == 0 { "" } else { " OR " }).push(column);
            query.push(" LIKE ").push_bind(like_pattern(text)).push(r" ESCAPE '\'");
        }
        query.push(")");
    }
}

/// A pattern that finds `text` literally, anywhere.
fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

fn summary(row: &SqliteRow, doing: &Doing<'_>) -> Result<Summary, StoreError> {
    let failed = |error: sqlx::Error| doing.failed(&error);
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column).map_err(failed);
    Ok(Summary {
        id: text("id")?,
        failed_at_ms: row.try_get::<i64, _>("failed_at_ms").map_err(failed)?.cast_unsigned(),
        pipeline: text("pipeline")?,
        step: optional("step")?,
        target: optional("target")?,
        class: stored::class(&text("class")?, doing)?,
        error: text("error")?,
        plugin: optional("plugin")?,
        attempts: row.try_get("attempt_count").map_err(failed)?,
        redrive_count: row.try_get("redrive_count").map_err(failed)?,
        message_id: text("message_id")?,
        message_kind: text("message_kind")?,
        body_bytes: row.try_get::<i64, _>("body_bytes").map_err(failed)?.cast_unsigned(),
        trace_id: optional("trace_id")?,
    })
}

/// Where a page ended.
struct Position {
    failed_at_ms: i64,
    id: String,
}

impl Position {
    fn parse(token: &str) -> Result<Self, StoreError> {
        let parts = token.split_once('.');
        let position = parts.and_then(|(time, id)| Some(Self { failed_at_ms: time.parse().ok()?, id: id.to_owned() }));
        position.ok_or_else(|| StoreError::PageToken { token: token.to_owned() })
    }

    fn token(last: &Summary) -> String {
        format!("{}.{}", last.failed_at_ms.cast_signed(), last.id)
    }
}
