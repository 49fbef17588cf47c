//! Dead letters grouped by cause.

use async_trait::async_trait;
use sluicegate_engine::failure::FailureClass;

use super::{Conditions, Filter, MAX_SUMMARY_ERROR_CHARS, stored};
use crate::database::{Connection, Row};
use crate::error::StoreError;
use crate::reader::{Question, Reader};

/// Most groups on one page.
pub const MAX_PAGE_GROUPS: usize = 1_000;

/// Dead letters that failed for the same reason: at the same place, with the same class, in the same plugin, with the same
/// error but for numbers and ids in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// A fingerprint of the reason, the same on every store and in every version.
    pub cause: String,
    /// The pipeline.
    pub pipeline: String,
    /// The failing step, if a step failed.
    pub step: Option<String>,
    /// The failing target, if a target failed.
    pub target: Option<String>,
    /// The class of the failure.
    pub class: FailureClass,
    /// The plugin, when a plugin failed.
    pub plugin: Option<String>,
    /// The plugin's digest, `sha256:…`.
    pub plugin_digest: Option<String>,
    /// The newest one's error, cut after [`MAX_SUMMARY_ERROR_CHARS`].
    pub error: String,
    /// How many they are.
    pub count: u64,
    /// When the first of them failed, milliseconds since the Unix epoch.
    pub first_at_ms: u64,
    /// When the last of them failed.
    pub last_at_ms: u64,
    /// The id of one of them, the newest.
    pub sample: String,
}

/// Some groups, the largest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPage {
    /// At most as many as were asked for.
    pub groups: Vec<Group>,
    /// Gets the next page, when there is more.
    pub next: Option<String>,
}

impl Reader {
    /// One page of the causes of dead letters that match, the most frequent first. `limit` is cut to 1 through
    /// [`MAX_PAGE_GROUPS`]; `after` is the [`GroupPage::next`] of the page before. A group that grows meanwhile may be
    /// missed by later pages.
    ///
    /// # Errors
    /// `PageToken` when `after` is not one, else what is wrong with the database. Cancel safe.
    pub async fn groups(&self, filter: &Filter, limit: usize, after: Option<&str>) -> Result<GroupPage, StoreError> {
        let after = after.map(position).transpose()?;
        self.ask(Groups { filter: filter.clone(), limit: limit.clamp(1, MAX_PAGE_GROUPS), after }).await
    }
}

struct Groups {
    filter: Filter,
    limit: usize,
    after: Option<(u64, String)>,
}

#[async_trait]
impl Question for Groups {
    type Output = GroupPage;

    fn doing(&self) -> &'static str {
        "group the dead letters"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<GroupPage, StoreError> {
        let mut conditions = Conditions::of(&self.filter);
        let having = match &self.after {
            None => String::new(),
            Some((count, cause)) => {
                let (count, cause) = (conditions.value(*count), conditions.value(cause.as_str()));
                format!("HAVING (count(*), cause) < (CAST({count} AS BIGINT), {cause})")
            }
        };
        // One more than wanted tells whether there is a next page.
        let limit = conditions.value((self.limit + 1) as u64);
        let sql = format!(
            "SELECT grouped.cause, grouped.letters, grouped.first_at_ms, grouped.last_at_ms, grouped.sample, pipeline, \
             step, target, class, plugin, plugin_digest, substr(error, 1, {MAX_SUMMARY_ERROR_CHARS}) \
             FROM (SELECT cause, count(*) AS letters, min(failed_at_ms) AS first_at_ms, max(failed_at_ms) AS last_at_ms, \
             max(id) AS sample FROM dead_letters WHERE {} GROUP BY cause {having} \
             ORDER BY count(*) DESC, cause DESC LIMIT {limit}) AS grouped \
             JOIN dead_letters ON dead_letters.id = grouped.sample ORDER BY grouped.letters DESC, grouped.cause DESC",
            conditions.sql
        );
        let rows = connection.query(&sql, &conditions.values).await?;
        let groups: Vec<Group> = rows.iter().take(self.limit).map(group).collect::<Result<_, _>>()?;
        let next = groups.last().filter(|_| rows.len() > self.limit);
        let next = next.map(|last| format!("{}.{}", last.count, last.cause));
        Ok(GroupPage { groups, next })
    }
}

fn group(row: &Row) -> Result<Group, StoreError> {
    Ok(Group {
        cause: row.text(0)?,
        count: row.unsigned(1)?,
        first_at_ms: row.integer(2)?.cast_unsigned(),
        last_at_ms: row.integer(3)?.cast_unsigned(),
        sample: row.text(4)?,
        pipeline: row.text(5)?,
        step: row.optional_text(6)?,
        target: row.optional_text(7)?,
        class: stored::class(row, 8)?,
        plugin: row.optional_text(9)?,
        plugin_digest: row.optional_text(10)?,
        error: row.text(11)?,
    })
}

fn position(token: &str) -> Result<(u64, String), StoreError> {
    let parts = token.split_once('.');
    let position = parts.and_then(|(count, cause)| Some((count.parse().ok()?, cause.to_owned())));
    position.ok_or_else(|| StoreError::PageToken { token: token.to_owned() })
}
