//! Questions about dead letters.

use async_trait::async_trait;
use sluicegate_engine::dead_letter::DeadLetter;

use super::{Filter, MAX_PAGE_LETTERS, MAX_SUMMARY_ERROR_CHARS, Page, ShownLetter, Summary, stored};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::reader::{Question, Reader};

/// How many candidates an ambiguous id is answered with.
const MAX_CANDIDATES: usize = 5;

impl Reader {
    /// One page of the dead letters that match, newest first. `limit` is cut to 1 through [`MAX_PAGE_LETTERS`]; `after`
    /// is the [`Page::next`] of the page before. Letters that come in meanwhile do not shift later pages.
    ///
    /// # Errors
    /// `PageToken` when `after` is not one, else what is wrong with the database. Cancel safe.
    pub async fn list(&self, filter: &Filter, limit: usize, after: Option<&str>) -> Result<Page, StoreError> {
        let after = after.map(Position::parse).transpose()?;
        self.ask(List { filter: filter.clone(), limit: limit.clamp(1, MAX_PAGE_LETTERS), after }).await
    }

    /// How many dead letters match.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn count(&self, filter: &Filter) -> Result<u64, StoreError> {
        self.ask(Count(filter.clone())).await
    }

    /// The whole record of the dead letter with this id, or with the only id that begins so.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`, else what is wrong with the database. Cancel safe.
    /// `Encrypted` and the like when a body cannot be opened.
    pub async fn show(&self, id: &str) -> Result<DeadLetter, StoreError> {
        let ShownLetter { letter, hidden, .. } = self.show_readable(id).await?;
        hidden.map_or(Ok(letter), Err)
    }

    /// The same, without the bodies when they cannot be opened.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`, else what is wrong with the database. Cancel safe.
    pub async fn show_readable(&self, id: &str) -> Result<ShownLetter, StoreError> {
        match self.ask(Show { id: id.to_owned(), without_bodies: false }).await {
            Err(
                hidden @ (StoreError::Encrypted { .. } | StoreError::UnknownKey { .. } | StoreError::Damaged { .. }),
            ) => {
                let shown = self.ask(Show { id: id.to_owned(), without_bodies: true }).await?;
                Ok(ShownLetter { hidden: Some(hidden), ..shown })
            }
            shown => shown,
        }
    }
}

struct List {
    filter: Filter,
    limit: usize,
    after: Option<Position>,
}

#[async_trait]
impl Question for List {
    type Output = Page;

    fn doing(&self) -> &'static str {
        "list the dead letters"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Page, StoreError> {
        let mut conditions = Conditions::of(&self.filter);
        if let Some(position) = &self.after {
            let failed_at_ms = conditions.value(position.failed_at_ms);
            let id = conditions.value(position.id.as_str());
            conditions.and(&format!("(failed_at_ms, id) < ({failed_at_ms}, {id})"));
        }
        // One more than wanted tells whether there is a next page.
        let limit = conditions.value((self.limit + 1) as u64);
        let sql = format!(
            "SELECT {SUMMARY_COLUMNS}, substr(error, 1, {MAX_SUMMARY_ERROR_CHARS}) FROM dead_letters WHERE {} \
             ORDER BY failed_at_ms DESC, id DESC LIMIT {limit}",
            conditions.sql
        );
        let rows = connection.query(&sql, &conditions.values).await?;
        let letters: Vec<Summary> = rows.iter().take(self.limit).map(summary).collect::<Result<_, _>>()?;
        let next = letters.last().filter(|_| rows.len() > self.limit).map(Position::token);
        Ok(Page { letters, next })
    }
}

struct Count(Filter);

#[async_trait]
impl Question for Count {
    type Output = u64;

    fn doing(&self) -> &'static str {
        "count the dead letters"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<u64, StoreError> {
        let conditions = Conditions::of(&self.0);
        let sql = format!("SELECT count(*) FROM dead_letters WHERE {}", conditions.sql);
        connection.query_first(&sql, &conditions.values).await?.map_or(Ok(0), |row| row.unsigned(0))
    }
}

struct Show {
    id: String,
    without_bodies: bool,
}

#[async_trait]
impl Question for Show {
    type Output = ShownLetter;

    fn doing(&self) -> &'static str {
        "read a dead letter"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<ShownLetter, StoreError> {
        let id = &self.id;
        let beginning = [Value::from(id), format!("{id}{}", char::MAX).into(), (MAX_CANDIDATES as u64 + 1).into()];
        let sql = "SELECT id FROM dead_letters WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3";
        let rows = connection.query(sql, &beginning).await?;
        let mut ids: Vec<String> = rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?;
        // An id that is complete is the first of those that begin with it.
        if ids.first().is_some_and(|first| first == id) {
            ids.truncate(1);
        }
        match &ids[..] {
            [] => Err(StoreError::NotFound { id: id.clone() }),
            [only] => {
                let sql = format!("SELECT {}, body_bytes FROM dead_letters WHERE id = $1", stored::ALL_COLUMNS);
                match connection.query_first(&sql, &[only.into()]).await? {
                    Some(row) => {
                        let decode = if self.without_bodies { stored::decode_head } else { stored::decode };
                        Ok(ShownLetter { letter: decode(&row)?, hidden: None, body_bytes: row.unsigned(18)? })
                    }
                    None => Err(StoreError::NotFound { id: id.clone() }),
                }
            }
            several => Err(StoreError::Ambiguous {
                id: id.clone(),
                candidates: several.iter().take(MAX_CANDIDATES).cloned().collect(),
                more: several.len() > MAX_CANDIDATES,
            }),
        }
    }
}

/// What follows WHERE, and its values.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn of(filter: &Filter) -> Self {
        let mut conditions = Self { sql: "1 = 1".to_owned(), values: Vec::new() };
        let Filter { pipeline, class, target, since_ms, until_ms, text } = filter;
        conditions.compare("pipeline =", pipeline.as_deref());
        conditions.compare("class =", class.map(|class| class.name()));
        conditions.compare("target =", target.as_deref());
        conditions.compare("failed_at_ms >=", *since_ms);
        conditions.compare("failed_at_ms <", *until_ms);
        if let Some(text) = text {
            let pattern = conditions.value(like_pattern(text));
            let columns = ["error", "message_id", "message_kind", "step", "plugin"];
            let anywhere = columns.map(|column| format!(r"lower({column}) LIKE {pattern} ESCAPE '\'"));
            conditions.and(&format!("({})", anywhere.join(" OR ")));
        }
        conditions
    }

    fn compare(&mut self, comparison: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            let value = self.value(value);
            self.and(&format!("{comparison} {value}"));
        }
    }

    fn and(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }

    /// Binds a value and returns its `$n`.
    fn value(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }
}

/// A pattern that finds `text` literally, anywhere, in what `lower` makes of a column: both databases' `lower` changes
/// ASCII letters alone (PostgreSQL's because the columns are COLLATE "C").
fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character.to_ascii_lowercase());
    }
    pattern.push('%');
    pattern
}

/// Those [`summary`] reads, before the error.
const SUMMARY_COLUMNS: &str = "id, failed_at_ms, pipeline, step, target, class, plugin, attempt_count, redrive_count, \
    message_id, message_kind, body_bytes, trace_id";

fn summary(row: &Row) -> Result<Summary, StoreError> {
    Ok(Summary {
        id: row.text(0)?,
        failed_at_ms: row.integer(1)?.cast_unsigned(),
        pipeline: row.text(2)?,
        step: row.optional_text(3)?,
        target: row.optional_text(4)?,
        class: stored::class(row, 5)?,
        plugin: row.optional_text(6)?,
        attempts: stored::small(row, 7)?,
        redrive_count: stored::small(row, 8)?,
        message_id: row.text(9)?,
        message_kind: row.text(10)?,
        body_bytes: row.unsigned(11)?,
        trace_id: row.optional_text(12)?,
        error: row.text(13)?,
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
