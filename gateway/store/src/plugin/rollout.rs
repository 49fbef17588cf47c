//! Which versions run: starting a rollout, going back, quarantine.

use async_trait::async_trait;
use serde_json::json;
use sluicegate_engine::message::now_ms;

use super::read::{ROLLOUT_COLUMNS, find_version, rollout};
use super::{MAX_EARLIER, MAX_EVENTS, Mode, Rollout, TOPIC, VersionState};
use crate::change::{Change, Transaction};
use crate::database::{Backend, Value};
use crate::error::StoreError;
use crate::store::Store;

/// What is asked of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutChange {
    /// Runs `version` for all messages, or as the candidate. In place of an earlier candidate.
    Start {
        /// Which.
        version: u32,
        /// For whom.
        mode: Mode,
    },
    /// Gives up the candidate; without one, goes back to the version that ran before.
    Back {
        /// Only if `version` still is the candidate, or without a candidate the current one: whoever goes back by what it
        /// has measured means that version and no other.
        from: Option<u32>,
        /// Why.
        reason: String,
    },
    /// Takes a version out of use. If it is the current one, the last that ran before and still may takes its place;
    /// without one it stays current and runs no more.
    Quarantine {
        /// Which.
        version: u32,
        /// Why.
        reason: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutChanged {
    /// This is in force.
    Done(Rollout),
    /// There is no such plugin or version.
    NotFound,
    /// The version's state forbids it.
    Unusable(VersionState),
    /// There is no current version that a candidate could run beside.
    NoCurrent,
    /// There is no earlier version to go back to.
    NothingBefore,
    /// It is so already, or the version that was meant does not run any more.
    Unchanged(Rollout),
}

impl Store {
    /// Changes which versions of a plugin run.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn change_rollout(
        &self,
        plugin: &str,
        change: RolloutChange,
        by: &str,
    ) -> Result<RolloutChanged, StoreError> {
        self.change(ChangeRollout { plugin: plugin.to_owned(), change, by: by.to_owned() }).await
    }
}

struct ChangeRollout {
    plugin: String,
    change: RolloutChange,
    by: String,
}

#[async_trait]
impl Change for ChangeRollout {
    type Output = RolloutChanged;

    fn size_bytes(&self) -> usize {
        1_024
    }

    fn doing(&self) -> &'static str {
        "change a plugin's rollout"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<RolloutChanged, StoreError> {
        let Some(before) = lock(transaction, &self.plugin).await? else { return Ok(RolloutChanged::NotFound) };
        let mut after = before.clone();
        let what = match &self.change {
            RolloutChange::Start { version, mode } => {
                let Some(found) = find_version(transaction, &self.plugin, *version).await? else {
                    return Ok(RolloutChanged::NotFound);
                };
                if !found.state.may_run() {
                    return Ok(RolloutChanged::Unusable(found.state));
                }
                if *mode != Mode::All && before.current.is_none() {
                    return Ok(RolloutChanged::NoCurrent);
                }
                start(&mut after, *version, *mode)
            }
            RolloutChange::Back { from, reason } => {
                let meant = before.candidate.or(before.current);
                if from.is_some() && *from != meant {
                    return Ok(RolloutChanged::Unchanged(before));
                }
                if before.candidate.is_none() && !self.step_back(transaction, &mut after).await? {
                    return Ok(RolloutChanged::NothingBefore);
                }
                (after.candidate, after.mode) = (None, Mode::All);
                format!("rolled back from version {}: {reason}", meant.unwrap_or_default())
            }
            RolloutChange::Quarantine { version, reason } => {
                let sql = "UPDATE plugin_versions SET state = 'quarantined', reason = $3 WHERE plugin = $1 \
                    AND version = $2 AND state IN ('uploaded', 'certified')";
                let arguments = [self.plugin.as_str().into(), (*version).into(), reason.as_str().into()];
                if transaction.execute(sql, &arguments).await? == 0 {
                    return Ok(RolloutChanged::Unchanged(before));
                }
                if before.candidate == Some(*version) {
                    (after.candidate, after.mode) = (None, Mode::All);
                }
                // Without an earlier one it stays, so that what runs no more is seen and named.
                if before.current == Some(*version) && self.step_back(transaction, &mut after).await? {
                    (after.candidate, after.mode) = (None, Mode::All);
                }
                format!("version {version} quarantined: {reason}")
            }
        };
        let is_quarantine = matches!(self.change, RolloutChange::Quarantine { .. });
        if after == before && !is_quarantine {
            return Ok(RolloutChanged::Unchanged(before));
        }
        write(transaction, &mut after).await?;
        write_event(transaction, &after, &self.by, &what).await?;
        after.revision += 1;
        transaction.announce(TOPIC);
        Ok(RolloutChanged::Done(after))
    }
}

fn start(after: &mut Rollout, version: u32, mode: Mode) -> String {
    if mode == Mode::All {
        if let Some(current) = after.current.filter(|current| *current != version) {
            after.earlier.push(current);
            let surplus = after.earlier.len().saturating_sub(MAX_EARLIER);
            after.earlier.drain(..surplus);
        }
        (after.current, after.candidate, after.mode) = (Some(version), None, Mode::All);
        return format!("version {version} rolled out for all messages");
    }
    (after.candidate, after.mode) = (Some(version), mode);
    match mode {
        Mode::Percent(percent) => format!("version {version} tried with {percent} % of the messages"),
        Mode::Shadow | Mode::All => format!("version {version} runs in the shadow"),
    }
}

impl ChangeRollout {
    /// Makes the last version that ran before and still may the current one.
    async fn step_back(&self, transaction: &mut Transaction<'_>, after: &mut Rollout) -> Result<bool, StoreError> {
        let mut earlier = after.earlier.clone();
        while let Some(version) = earlier.pop() {
            let found = find_version(transaction, &self.plugin, version).await?;
            if after.current != Some(version) && found.is_some_and(|found| found.state.may_run()) {
                after.current = Some(version);
                after.earlier = earlier;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The plugin's row, so that nobody else changes it within this transaction's time.
pub(super) async fn lock(transaction: &mut Transaction<'_>, plugin: &str) -> Result<Option<Rollout>, StoreError> {
    let lock = match transaction.backend() {
        Backend::Sqlite => "",
        Backend::Postgres => " FOR UPDATE",
    };
    let sql = format!("SELECT {ROLLOUT_COLUMNS} FROM plugins WHERE name = $1{lock}");
    transaction.query_first(&sql, &[plugin.into()]).await?.as_ref().map(rollout).transpose()
}

/// All but the revision, which [`write_event`] counts.
async fn write(transaction: &mut Transaction<'_>, after: &mut Rollout) -> Result<(), StoreError> {
    after.changed_at_ms = now_ms();
    let percent = match after.mode {
        Mode::Percent(percent) => percent,
        Mode::All | Mode::Shadow => 0,
    };
    let sql = "UPDATE plugins SET current = $2, candidate = $3, mode = $4, percent = $5, earlier = $6, \
        changed_at_ms = $7 WHERE name = $1";
    let arguments: [Value; 7] = [
        after.plugin.as_str().into(),
        after.current.into(),
        after.candidate.into(),
        after.mode.name().into(),
        u32::from(percent).into(),
        json!(after.earlier).to_string().into(),
        after.changed_at_ms.into(),
    ];
    transaction.execute(sql, &arguments).await.map(drop)
}

/// Notes what happened under a new revision, and forgets what is oldest.
pub(super) async fn write_event(
    transaction: &mut Transaction<'_>,
    rollout: &Rollout,
    by: &str,
    what: &str,
) -> Result<(), StoreError> {
    let (plugin, revision) = (rollout.plugin.as_str(), rollout.revision + 1);
    transaction.execute("UPDATE plugins SET revision = $2 WHERE name = $1", &[plugin.into(), revision.into()]).await?;
    let sql = "INSERT INTO plugin_events (plugin, revision, at_ms, by_whom, what) VALUES ($1, $2, $3, $4, $5)";
    let arguments = [plugin.into(), revision.into(), now_ms().into(), by.into(), what.into()];
    transaction.execute(sql, &arguments).await?;
    let sql = "DELETE FROM plugin_events WHERE plugin = $1 AND revision <= $2";
    let oldest = revision.saturating_sub(MAX_EVENTS);
    transaction.execute(sql, &[plugin.into(), oldest.into()]).await.map(drop)
}
