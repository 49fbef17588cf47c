//! Creating a job.

use async_trait::async_trait;
use serde_json::{Map, Value as Json, json};

use super::{Created, JobState, MAX_JOB_IDS, MAX_RATE_PER_SECOND, NewJob, Selection, TOPIC};
use crate::change::{Change, Transaction};
use crate::database::{Connection, Value};
use crate::dead_letter::{Changed, Conditions, Filter, state};
use crate::error::StoreError;
use crate::store::Store;

impl Store {
    /// Creates a redrive job and selects its letters, oldest first; it runs once a gateway finds it. With a filter all of
    /// them are selected by the database in one change: 100,000 take about a second, in which nothing else is written.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn create_redrive(&self, job: NewJob) -> Result<Created, StoreError> {
        if let Selection::Ids(ids) = &job.selection
            && ids.len() > MAX_JOB_IDS
        {
            return Ok(Created::TooMany(ids.len()));
        }
        let id = uuid::Uuid::now_v7().to_string();
        self.change(CreateJob { id, job }).await
    }
}

struct CreateJob {
    id: String,
    job: NewJob,
}

#[async_trait]
impl Change for CreateJob {
    type Output = Created;

    fn size_bytes(&self) -> usize {
        // Selecting may take long: nothing else should be in its transaction.
        16 << 20
    }

    fn doing(&self) -> &'static str {
        "create a redrive job"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Created, StoreError> {
        if let Selection::Ids(ids) = &self.job.selection {
            for id in ids {
                match state(transaction, id).await? {
                    Changed::Done => {}
                    Changed::NotFound => return Ok(Created::NotFound(id.clone())),
                    Changed::BeingRedriven => return Ok(Created::BeingRedriven(id.clone())),
                }
            }
        }
        let letters = self.select(transaction).await?;
        if letters == 0 {
            return Ok(Created::NothingMatches);
        }
        self.insert(transaction).await?;
        transaction.announce(TOPIC);
        Ok(Created::Job { id: self.id.clone(), letters })
    }
}

impl CreateJob {
    async fn insert(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let job = &self.job;
        let arguments: [Value; 9] = [
            self.id.as_str().into(),
            describe(&job.selection).to_string().into(),
            job.from.name().into(),
            job.rate_per_second.clamp(1, MAX_RATE_PER_SECOND).into(),
            job.patch.as_ref().map(Json::to_string).into(),
            job.max_redrives.into(),
            job.by.as_str().into(),
            connection.now_ms().into(),
            JobState::Running.name().into(),
        ];
        let sql = "INSERT INTO redrive_jobs (id, selection, origin, rate_per_second, patch, max_redrives, created_by, \
            created_at_ms, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        connection.execute(sql, &arguments).await.map(drop)
    }

    async fn select(&self, connection: &mut Connection) -> Result<u64, StoreError> {
        match &self.job.selection {
            Selection::Filter(filter) => self.select_where(connection, Conditions::of(filter), 0).await,
            Selection::Ids(ids) => {
                let mut letters = 0;
                for id in ids {
                    let mut conditions = Conditions::of(&Filter::default());
                    let id = conditions.value(id.as_str());
                    conditions.and(&format!("id = {id}"));
                    letters += self.select_where(connection, conditions, letters).await?;
                }
                Ok(letters)
            }
        }
    }

    /// Those that match become items, with numbers after `before`.
    async fn select_where(
        &self,
        connection: &mut Connection,
        mut conditions: Conditions,
        before: u64,
    ) -> Result<u64, StoreError> {
        let matching = conditions.sql.clone();
        let job = conditions.value(self.id.as_str());
        let most = conditions.value(self.job.max_redrives);
        let (before, now) = (conditions.value(before), conditions.value(connection.now_ms()));
        let too_often = format!("redrive_count >= CAST({most} AS BIGINT)");
        let on_its_way = "EXISTS (SELECT 1 FROM inbox WHERE redrive_letter = dead_letters.id)";
        let skipped = format!("({too_often} OR {on_its_way})");
        let sql = format!(
            "INSERT INTO redrive_items (job, number, letter, state, outcome, at_ms) \
             SELECT CAST({job} AS TEXT), CAST({before} AS BIGINT) + row_number() OVER (ORDER BY failed_at_ms, id), id, \
             CASE WHEN {skipped} THEN 'skipped' ELSE 'pending' END, \
             CASE WHEN {too_often} THEN 'redriven ' || redrive_count || ' times already' \
             WHEN {on_its_way} THEN 'on its way again already' ELSE NULL END, \
             CASE WHEN {skipped} THEN CAST({now} AS BIGINT) ELSE NULL END \
             FROM dead_letters WHERE {matching}"
        );
        connection.execute(&sql, &conditions.values).await
    }
}

/// What was asked for, as it is shown later.
fn describe(selection: &Selection) -> Json {
    let filter = match selection {
        Selection::Ids(ids) => return json!({ "ids": ids }),
        Selection::Filter(filter) => filter,
    };
    let Filter { pipeline, class, step, target, plugin_digest, message_id, cause, since_ms, until_ms, text } =
        &**filter;
    let texts = [
        ("pipeline", pipeline.as_deref()),
        ("class", class.map(|class| class.name())),
        ("step", step.as_deref()),
        ("target", target.as_deref()),
        ("pluginDigest", plugin_digest.as_deref()),
        ("messageId", message_id.as_deref()),
        ("cause", cause.as_deref()),
        ("text", text.as_deref()),
    ];
    let mut members: Map<String, Json> =
        texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))).collect();
    let times = [("sinceMs", since_ms), ("untilMs", until_ms)];
    members.extend(times.into_iter().filter_map(|(name, time)| Some((name.to_owned(), (*time)?.into()))));
    json!({ "filter": members })
}
