//! Questions about jobs.

use async_trait::async_trait;

use super::{Counts, From, Item, ItemPage, ItemState, Job, JobPage, JobState, MAX_PAGE_ITEMS};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::reader::{Question, Reader};

impl Reader {
    /// One page of the redrive jobs, newest first. `limit` is cut to 1 through [`MAX_PAGE_ITEMS`]; `after` is the
    /// [`JobPage::next`] of the page before.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn redrives(&self, limit: usize, after: Option<&str>) -> Result<JobPage, StoreError> {
        self.ask(Jobs { limit: limit.clamp(1, MAX_PAGE_ITEMS), after: after.map(str::to_owned) }).await
    }

    /// The redrive job of this id.
    ///
    /// # Errors
    /// `NoJob`, else what is wrong with the database. Cancel safe.
    pub async fn redrive(&self, id: &str) -> Result<Job, StoreError> {
        self.ask(OneJob(id.to_owned())).await
    }

    /// One page of the letters of a job, in its order, of all states or one. `limit` is cut to 1 through
    /// [`MAX_PAGE_ITEMS`]; `after` is the [`ItemPage::next`] of the page before.
    ///
    /// # Errors
    /// `NoJob`; `PageToken` when `after` is not one; else what is wrong with the database. Cancel safe.
    pub async fn redrive_items(
        &self,
        id: &str,
        state: Option<ItemState>,
        limit: usize,
        after: Option<&str>,
    ) -> Result<ItemPage, StoreError> {
        let number = |token: &str| token.parse().map_err(|_| StoreError::PageToken { token: token.to_owned() });
        let after: u64 = after.map(number).transpose()?.unwrap_or(0);
        self.ask(Items { id: id.to_owned(), state, limit: limit.clamp(1, MAX_PAGE_ITEMS), after }).await
    }
}

/// Those [`job`] reads.
const JOB_COLUMNS: &str = "id, selection, origin, rate_per_second, patch, max_redrives, created_by, created_at_ms, \
    ended_at_ms, state, owner";

struct Jobs {
    limit: usize,
    after: Option<String>,
}

#[async_trait]
impl Question for Jobs {
    type Output = JobPage;

    fn doing(&self) -> &'static str {
        "list the redrive jobs"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<JobPage, StoreError> {
        // Ids are in the order in which they were given out.
        let mut arguments = vec![Value::from(self.limit as u64 + 1)];
        let condition = match &self.after {
            None => "",
            Some(after) => {
                arguments.push(after.into());
                "WHERE id < $2"
            }
        };
        let sql = format!("SELECT {JOB_COLUMNS} FROM redrive_jobs {condition} ORDER BY id DESC LIMIT $1");
        let rows = connection.query(&sql, &arguments).await?;
        let mut jobs = Vec::with_capacity(rows.len().min(self.limit));
        for row in rows.iter().take(self.limit) {
            jobs.push(job(row, connection).await?);
        }
        let next = jobs.last().filter(|_| rows.len() > self.limit).map(|last: &Job| last.id.clone());
        Ok(JobPage { jobs, next })
    }
}

struct OneJob(String);

#[async_trait]
impl Question for OneJob {
    type Output = Job;

    fn doing(&self) -> &'static str {
        "read a redrive job"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Job, StoreError> {
        find_job(connection, &self.0).await?.ok_or_else(|| StoreError::NoJob { id: self.0.clone() })
    }
}

pub(super) async fn find_job(connection: &mut Connection, id: &str) -> Result<Option<Job>, StoreError> {
    let sql = format!("SELECT {JOB_COLUMNS} FROM redrive_jobs WHERE id = $1");
    match connection.query_first(&sql, &[id.into()]).await? {
        Some(row) => job(&row, connection).await.map(Some),
        None => Ok(None),
    }
}

async fn job(row: &Row, connection: &mut Connection) -> Result<Job, StoreError> {
    let json = |column: usize, text: String| {
        serde_json::from_str(&text).map_err(|error| row.damaged(format!("column {column} is no JSON: {error}")))
    };
    let from = row.text(2)?;
    let small = |column: usize| -> Result<u32, StoreError> {
        u32::try_from(row.integer(column)?).map_err(|_| row.damaged(format!("column {column} is out of bounds")))
    };
    let id = row.text(0)?;
    Ok(Job {
        selection: json(1, row.text(1)?)?,
        from: From::from_name(&from).ok_or_else(|| row.damaged(format!("`{from}` is no place to go on")))?,
        rate_per_second: small(3)?,
        patch: row.optional_text(4)?.map(|text| json(4, text)).transpose()?,
        max_redrives: small(5)?,
        by: row.text(6)?,
        created_at_ms: row.unsigned(7)?,
        ended_at_ms: row.optional_unsigned(8)?,
        state: job_state(row, 9)?,
        is_owned: row.optional_text(10)?.is_some(),
        counts: counts(connection, &id).await?,
        id,
    })
}

async fn counts(connection: &mut Connection, job: &str) -> Result<Counts, StoreError> {
    let sql = "SELECT state, count(*) FROM redrive_items WHERE job = $1 GROUP BY state";
    let mut counts = Counts::default();
    for row in connection.query(sql, &[job.into()]).await? {
        counts.0[item_state(&row, 0)? as usize] = row.unsigned(1)?;
    }
    Ok(counts)
}

pub(super) fn job_state(row: &Row, column: usize) -> Result<JobState, StoreError> {
    let name = row.text(column)?;
    JobState::from_name(&name).ok_or_else(|| row.damaged(format!("`{name}` is no state of a job")))
}

fn item_state(row: &Row, column: usize) -> Result<ItemState, StoreError> {
    let name = row.text(column)?;
    ItemState::from_name(&name).ok_or_else(|| row.damaged(format!("`{name}` is no state of a letter in a job")))
}

struct Items {
    id: String,
    state: Option<ItemState>,
    limit: usize,
    after: u64,
}

#[async_trait]
impl Question for Items {
    type Output = ItemPage;

    fn doing(&self) -> &'static str {
        "list the letters of a redrive job"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<ItemPage, StoreError> {
        let id = [Value::from(self.id.as_str())];
        if connection.query_first("SELECT 1 FROM redrive_jobs WHERE id = $1", &id).await?.is_none() {
            return Err(StoreError::NoJob { id: self.id.clone() });
        }
        let mut arguments: Vec<Value> =
            vec![self.id.as_str().into(), self.after.into(), (self.limit as u64 + 1).into()];
        let condition = match self.state {
            None => "",
            Some(state) => {
                arguments.push(state.name().into());
                "AND state = $4"
            }
        };
        let sql = format!(
            "SELECT number, letter, state, outcome, at_ms FROM redrive_items WHERE job = $1 AND number > $2 {condition} \
             ORDER BY number LIMIT $3"
        );
        let rows = connection.query(&sql, &arguments).await?;
        let items: Vec<Item> = rows.iter().take(self.limit).map(item).collect::<Result<_, _>>()?;
        let next = items.last().filter(|_| rows.len() > self.limit).map(|last| last.number.to_string());
        Ok(ItemPage { items, next })
    }
}

fn item(row: &Row) -> Result<Item, StoreError> {
    Ok(Item {
        number: row.unsigned(0)?,
        letter: row.text(1)?,
        state: item_state(row, 2)?,
        outcome: row.optional_text(3)?,
        at_ms: row.optional_unsigned(4)?,
    })
}
