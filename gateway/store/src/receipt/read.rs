//! Questions about receipts.

use async_trait::async_trait;
use bytes::Bytes;

use super::kept::{self, COLUMNS};
use super::{Ending, Filter, MAX_PAGE_RECEIPTS, MAX_STRETCHES, Page, Stretch, Summary, Tally, Trail};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::reader::{Question, Reader};

/// What is indexed of ids and keys, see the migration.
const INDEXED_CHARS: usize = 200;

impl Reader {
    /// What happened to the messages of this id: every stretch that is kept, in order.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn trail(&self, message_id: &str) -> Result<Trail, StoreError> {
        self.ask(Find(message_id.to_owned())).await
    }

    /// One page of the receipts that match, newest first. `limit` is cut to 1 through [`MAX_PAGE_RECEIPTS`]; `after` is
    /// the [`Page::next`] of the page before. Receipts that come in meanwhile do not shift later pages.
    ///
    /// # Errors
    /// `PageToken` when `after` is not one, else what is wrong with the database. Cancel safe.
    pub async fn receipts(&self, filter: &Filter, limit: usize, after: Option<&str>) -> Result<Page, StoreError> {
        let after = after.map(Position::parse).transpose()?;
        self.ask(Search { filter: filter.clone(), limit: limit.clamp(1, MAX_PAGE_RECEIPTS), after }).await
    }

    /// How many receipts that match ended how, by pipeline.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn tally_receipts(&self, filter: &Filter) -> Result<Vec<Tally>, StoreError> {
        self.ask(Count(filter.clone())).await
    }
}

struct Find(String);

#[async_trait]
impl Question for Find {
    type Output = Trail;

    fn doing(&self) -> &'static str {
        "trace a message"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Trail, StoreError> {
        let mut conditions = Conditions::new();
        conditions.is_text("message_id", &self.0);
        let limit = conditions.value((MAX_STRETCHES + 1) as u64);
        let sql = format!(
            "SELECT {} FROM receipts WHERE {} ORDER BY began_at_ms DESC, seq DESC LIMIT {limit}",
            COLUMNS.join(", "),
            conditions.sql
        );
        let rows = connection.query(&sql, &conditions.values).await?;
        let mut stretches: Vec<Stretch> = Vec::with_capacity(rows.len());
        for row in rows.iter().take(MAX_STRETCHES).rev() {
            let stretch = stretch(row)?;
            // A batch is written twice if the connection to PostgreSQL breaks while it is committed.
            let mut begun_then =
                stretches.iter().rev().take_while(|seen| seen.summary.began_at_ms == stretch.summary.began_at_ms);
            if !begun_then.any(|seen| *seen == stretch) {
                stretches.push(stretch);
            }
        }
        Ok(Trail { stretches, is_cut: rows.len() > MAX_STRETCHES })
    }
}

struct Search {
    filter: Filter,
    limit: usize,
    after: Option<Position>,
}

#[async_trait]
impl Question for Search {
    type Output = Page;

    fn doing(&self) -> &'static str {
        "search the receipts"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Page, StoreError> {
        let mut conditions = Conditions::of(&self.filter);
        if let Some(Position { began_at_ms, seq }) = self.after {
            let (began_at_ms, seq) = (conditions.value(began_at_ms), conditions.value(seq));
            conditions.and(&format!("(began_at_ms, seq) < ({began_at_ms}, {seq})"));
        }
        // One more than wanted tells whether there is a next page.
        let limit = conditions.value((self.limit + 1) as u64);
        let sql = format!(
            "SELECT {}, seq FROM receipts WHERE {} ORDER BY began_at_ms DESC, seq DESC LIMIT {limit}",
            COLUMNS[..SUMMARY_COLUMNS].join(", "),
            conditions.sql
        );
        let rows = connection.query(&sql, &conditions.values).await?;
        let shown = &rows[..rows.len().min(self.limit)];
        let receipts = shown.iter().map(summary).collect::<Result<_, _>>()?;
        let next = match shown.last().filter(|_| rows.len() > self.limit) {
            None => None,
            Some(last) => {
                Some(Position { began_at_ms: last.integer(12)?, seq: last.integer(SUMMARY_COLUMNS)? }.token())
            }
        };
        Ok(Page { receipts, next })
    }
}

struct Count(Filter);

#[async_trait]
impl Question for Count {
    type Output = Vec<Tally>;

    fn doing(&self) -> &'static str {
        "count the receipts"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Tally>, StoreError> {
        let conditions = Conditions::of(&self.0);
        let sql = format!(
            "SELECT pipeline, settlement, count(*), CAST(sum(failures) AS BIGINT) FROM receipts WHERE {} \
             GROUP BY pipeline, settlement ORDER BY pipeline, settlement",
            conditions.sql
        );
        let tally = |row: &Row| {
            Ok(Tally {
                pipeline: row.text(0)?,
                ending: ending(row, 1)?,
                receipts: row.unsigned(2)?,
                failures: row.unsigned(3)?,
            })
        };
        connection.query(&sql, &conditions.values).await?.iter().map(tally).collect()
    }
}

/// What follows WHERE, and its values.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn new() -> Self {
        Self { sql: "1 = 1".to_owned(), values: Vec::new() }
    }

    fn of(filter: &Filter) -> Self {
        let mut conditions = Self::new();
        let Filter { correlation_id, key, pipeline, ending, failed, since_ms, until_ms } = filter;
        if let Some(correlation_id) = correlation_id {
            conditions.is_text("correlation_id", correlation_id);
        }
        if let Some(key) = key {
            let beginning = conditions.value(key.slice(..key.len().min(INDEXED_CHARS)));
            let whole = conditions.value(Bytes::clone(key));
            conditions.and(&format!("substr(message_key, 1, {INDEXED_CHARS}) = {beginning} AND message_key = {whole}"));
        }
        conditions.compare("pipeline =", pipeline.as_deref());
        conditions.compare("settlement =", ending.map(Ending::name));
        conditions.compare("began_at_ms >=", *since_ms);
        conditions.compare("began_at_ms <", *until_ms);
        if *failed {
            let dead_lettered = conditions.value(Ending::DeadLettered.name());
            conditions.and(&format!("(failures > 0 OR settlement = {dead_lettered})"));
        }
        conditions
    }

    /// Finds it by the index of the text's beginning. The database cuts, so that it cuts what it has stored.
    fn is_text(&mut self, column: &str, text: &str) {
        let text = self.value(text);
        self.and(&format!(
            "substr({column}, 1, {INDEXED_CHARS}) = substr(CAST({text} AS TEXT), 1, {INDEXED_CHARS}) AND {column} = {text}"
        ));
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

/// How many of the first [`COLUMNS`] [`summary`] reads: all but the events.
const SUMMARY_COLUMNS: usize = 14;

fn summary(row: &Row) -> Result<Summary, StoreError> {
    Ok(Summary {
        message_id: row.text(0)?,
        source: row.text(1)?,
        kind: row.text(2)?,
        correlation_id: row.optional_text(3)?,
        key: row.optional_bytes(4)?,
        trace_id: row.optional_text(5)?,
        body_bytes: row.unsigned(6)?,
        pipeline: row.text(7)?,
        config_version: row.text(8)?,
        ending: ending(row, 9)?,
        failures: row.unsigned(10)?,
        received_at_ms: row.unsigned(11)?,
        began_at_ms: row.unsigned(12)?,
        ended_at_ms: row.unsigned(13)?,
    })
}

fn stretch(row: &Row) -> Result<Stretch, StoreError> {
    let events = kept::decode(&row.text(14)?).map_err(|error| row.damaged(format!("column events: {error}")))?;
    Ok(Stretch { summary: summary(row)?, events, events_left_out: row.unsigned(15)? })
}

fn ending(row: &Row, column: usize) -> Result<Ending, StoreError> {
    let name = row.text(column)?;
    Ending::from_name(&name).ok_or_else(|| row.damaged(format!("`{name}` is not a settlement")))
}

/// Where a page ended.
struct Position {
    began_at_ms: i64,
    seq: i64,
}

impl Position {
    fn parse(token: &str) -> Result<Self, StoreError> {
        let parts = token.split_once('.');
        let position =
            parts.and_then(|(time, seq)| Some(Self { began_at_ms: time.parse().ok()?, seq: seq.parse().ok()? }));
        position.ok_or_else(|| StoreError::PageToken { token: token.to_owned() })
    }

    fn token(&self) -> String {
        format!("{}.{}", self.began_at_ms, self.seq)
    }
}
