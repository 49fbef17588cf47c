//! Pausing, resuming and cancelling a job, and forgetting old ones.

use async_trait::async_trait;

use super::{Controlled, JobState, TOPIC};
use crate::change::{Change, Transaction};
use crate::database::Backend;
use crate::error::StoreError;
use crate::store::Store;

impl Store {
    /// Sends no more letters of a job until it is resumed.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn pause_redrive(&self, id: &str) -> Result<Controlled, StoreError> {
        self.control(id, JobState::Paused).await
    }

    /// Lets a paused job go on.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn resume_redrive(&self, id: &str) -> Result<Controlled, StoreError> {
        self.control(id, JobState::Running).await
    }

    /// Ends a job: what is not sent is skipped, what is sent goes on and still gets its outcome.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn cancel_redrive(&self, id: &str) -> Result<Controlled, StoreError> {
        self.control(id, JobState::Cancelled).await
    }

    async fn control(&self, id: &str, wanted: JobState) -> Result<Controlled, StoreError> {
        self.change(Control { id: id.to_owned(), wanted }).await
    }

    /// Forgets jobs that ended more than `keep_ms` milliseconds ago. Returns how many.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn forget_redrives(&self, keep_ms: u64) -> Result<u64, StoreError> {
        let until_ms = self.now_ms().saturating_sub(keep_ms);
        let mut forgotten = 0;
        loop {
            match self.change(Forget { until_ms }).await? {
                Forgot::Nothing => return Ok(forgotten),
                Forgot::Items => {}
                Forgot::Job => forgotten += 1,
            }
        }
    }
}

struct Control {
    id: String,
    wanted: JobState,
}

#[async_trait]
impl Change for Control {
    type Output = Controlled;

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "control a redrive job"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Controlled, StoreError> {
        let sql = match transaction.backend() {
            Backend::Sqlite => "SELECT state FROM redrive_jobs WHERE id = $1",
            Backend::Postgres => "SELECT state FROM redrive_jobs WHERE id = $1 FOR UPDATE",
        };
        let Some(row) = transaction.query_first(sql, &[self.id.as_str().into()]).await? else {
            return Ok(Controlled::NotFound);
        };
        let state = super::read::job_state(&row, 0)?;
        match state {
            state if state == self.wanted => return Ok(Controlled::Done),
            JobState::Cancelled | JobState::Done => return Ok(Controlled::Ended(state)),
            JobState::Running | JobState::Paused => {}
        }
        let now = transaction.now_ms();
        let ended = (self.wanted == JobState::Cancelled).then_some(now);
        let sql = "UPDATE redrive_jobs SET state = $2, ended_at_ms = $3, owner = NULL WHERE id = $1";
        transaction.execute(sql, &[self.id.as_str().into(), self.wanted.name().into(), ended.into()]).await?;
        if self.wanted == JobState::Cancelled {
            let sql = "UPDATE redrive_items SET state = 'skipped', outcome = 'the job was cancelled', at_ms = $2 \
                WHERE job = $1 AND state = 'pending'";
            transaction.execute(sql, &[self.id.as_str().into(), now.into()]).await?;
        }
        transaction.announce(TOPIC);
        Ok(Controlled::Done)
    }
}

/// Items forgotten in one transaction.
const STEP: u64 = 1_000;

struct Forget {
    until_ms: u64,
}

enum Forgot {
    Nothing,
    Items,
    Job,
}

#[async_trait]
impl Change for Forget {
    type Output = Forgot;

    fn size_bytes(&self) -> usize {
        1 << 16
    }

    fn doing(&self) -> &'static str {
        "forget old redrive jobs"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Forgot, StoreError> {
        // What is still on its way has its outcome told.
        let sql = "SELECT id FROM redrive_jobs WHERE state IN ('done', 'cancelled') AND ended_at_ms < $1 AND NOT EXISTS \
            (SELECT 1 FROM redrive_items WHERE job = redrive_jobs.id AND redrive_items.state = 'sent') LIMIT 1";
        let Some(row) = transaction.query_first(sql, &[self.until_ms.into()]).await? else {
            return Ok(Forgot::Nothing);
        };
        let id = row.text(0)?;
        let sql = "DELETE FROM redrive_items WHERE job = $1 AND number IN \
            (SELECT number FROM redrive_items WHERE job = $1 LIMIT $2)";
        if transaction.execute(sql, &[id.as_str().into(), STEP.into()]).await? == STEP {
            return Ok(Forgot::Items);
        }
        transaction.execute("DELETE FROM redrive_jobs WHERE id = $1", &[id.into()]).await?;
        Ok(Forgot::Job)
    }
}
