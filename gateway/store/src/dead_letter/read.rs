//! Questions about dead letters.

use async_trait::async_trait;
use sluicegate_engine::dead_letter::DeadLetter;

use super::{
    Conditions, Filter, KeptLetter, MAX_PAGE_LETTERS, MAX_SUMMARY_ERROR_CHARS, Page, ShownLetter, Summary, stored,
};
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
    /// `NotFound`, `Ambiguous`; `Encrypted`, `UnknownKey` or `Damaged` when a body cannot be opened; else what is wrong
    /// with the database. Cancel safe.
    pub async fn show(&self, id: &str) -> Result<DeadLetter, StoreError> {
        Ok(self.find(id).await?.letter)
    }

    /// As [`show`](Self::show), with what the store knows of it beside its record.
    ///
    /// # Errors
    /// As [`show`](Self::show).
    pub async fn find(&self, id: &str) -> Result<KeptLetter, StoreError> {
        Ok(self.ask(Show { id: id.to_owned(), without_bodies: false }).await?.kept)
    }

    /// As [`find`](Self::find), without the bodies when they cannot be opened.
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

    /// One page of whole dead letters that match, newest first: at most `limit` of them, cut to 1 through
    /// [`MAX_PAGE_LETTERS`], and no further one once they have [`MAX_PAGE_BYTES`] of bodies. `after` is the
    /// [`LetterPage::next`] of the page before. What is deleted meanwhile is left out.
    ///
    /// # Errors
    /// `PageToken` when `after` is not one, else what is wrong with the database. Cancel safe.
    pub async fn letters(&self, filter: &Filter, limit: usize, after: Option<&str>) -> Result<LetterPage, StoreError> {
        let after = after.map(Position::parse).transpose()?;
        let list = List { filter: filter.clone(), limit: limit.clamp(1, MAX_PAGE_LETTERS), after };
        self.ask(Whole(list)).await
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

/// A page of whole letters is full once their bodies have this many bytes.
pub const MAX_PAGE_BYTES: u64 = 8 << 20;

/// Some whole dead letters, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterPage {
    /// They.
    pub letters: Vec<KeptLetter>,
    /// Gets the next page, when there is more.
    pub next: Option<String>,
}

struct Whole(List);

#[async_trait]
impl Question for Whole {
    type Output = LetterPage;

    fn doing(&self) -> &'static str {
        "read the dead letters"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<LetterPage, StoreError> {
        let page = self.0.ask(connection).await?;
        let (mut letters, mut next, mut bytes) = (Vec::new(), page.next, 0_u64);
        let mut listed = page.letters.iter().peekable();
        while let Some(summary) = listed.next() {
            if let Some(letter) = read_letter(connection, &summary.id).await? {
                bytes = bytes.saturating_add(summary.body_bytes);
                letters.push(letter);
            }
            if bytes >= MAX_PAGE_BYTES && listed.peek().is_some() {
                next = Some(Position::token(summary));
                break;
            }
        }
        Ok(LetterPage { letters, next })
    }
}

/// The same for who reads one after the other: one that cannot be opened keeps no other back, and the inner error says why.
/// Takes up keys first that another gateway has just made, if that is what is missing.
///
/// # Errors
/// `Encrypted`, `MasterKey`: this gateway can open none of them. What is wrong with the database.
pub(crate) async fn try_read_letter(
    connection: &mut Connection,
    id: &str,
) -> Result<Option<Result<KeptLetter, StoreError>>, StoreError> {
    let Some(row) = read_row(connection, id).await? else { return Ok(None) };
    let mut letter = stored::decode(&row);
    if let Err(StoreError::UnknownKey { .. }) = letter {
        row.renew_keys(connection).await?;
        letter = stored::decode(&row);
    }
    match letter {
        Err(error) if !error.is_of_one_record() => Err(error),
        letter => Ok(Some(letter)),
    }
}

/// The dead letter with exactly this id.
pub(crate) async fn read_letter(connection: &mut Connection, id: &str) -> Result<Option<KeptLetter>, StoreError> {
    read_row(connection, id).await?.map(|row| stored::decode(&row)).transpose()
}

async fn read_row(connection: &mut Connection, id: &str) -> Result<Option<Row>, StoreError> {
    let sql = format!("SELECT {} FROM dead_letters WHERE id = $1", stored::ALL_COLUMNS);
    connection.query_first(&sql, &[id.into()]).await
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
                let Some(row) = read_row(connection, only).await? else {
                    return Err(StoreError::NotFound { id: id.clone() });
                };
                let decode = if self.without_bodies { stored::decode_head } else { stored::decode };
                Ok(ShownLetter { kept: decode(&row)?, hidden: None, body_bytes: stored::body_bytes(&row)? })
            }
            several => Err(StoreError::Ambiguous {
                id: id.clone(),
                candidates: several.iter().take(MAX_CANDIDATES).cloned().collect(),
                more: several.len() > MAX_CANDIDATES,
            }),
        }
    }
}

/// Those [`summary`] reads, before the error.
pub(super) const SUMMARY_COLUMNS: &str = "id, failed_at_ms, pipeline, step, target, class, plugin, attempt_count, redrive_count, \
    message_id, message_kind, body_bytes, trace_id, plugin_digest, cause, edited_at_ms";

pub(super) fn summary(row: &Row) -> Result<Summary, StoreError> {
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
        plugin_digest: row.optional_text(13)?,
        cause: row.text(14)?,
        is_edited: row.optional_integer(15)?.is_some(),
        error: row.text(16)?,
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
