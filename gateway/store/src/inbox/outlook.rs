//! What an inbox's source asks when there is nothing to claim.

use std::sync::Arc;

use async_trait::async_trait;

use crate::database::{Backend, Connection};
use crate::error::StoreError;
use crate::reader::Question;

/// Asks for the time of the next message of these lanes.
pub(super) struct LookAhead {
    pub pipeline: Arc<str>,
    pub lanes: Vec<Arc<str>>,
    pub now_ms: u64,
}

pub(super) struct Outlook {
    /// When the next is due, after `now_ms`.
    pub next_ms: Option<u64>,
    /// Whether nothing of the pipeline is left, in any lane, but for what is set aside.
    pub is_empty: bool,
}

pub(super) const NEXT: [&str; 2] = [
    "SELECT ready_at_ms FROM inbox WHERE pipeline = $1 AND leads = 1 AND lane = $2 AND timed = 1 AND ready_at_ms > $3 \
     ORDER BY ready_at_ms LIMIT 1",
    "SELECT ready_at_ms FROM inbox WHERE pipeline = $1 AND leads = 1 AND lane = $2 AND timed = 1 AND ready_at_ms > $3 \
     AND claimed_by IS NULL ORDER BY ready_at_ms LIMIT 1",
];

pub(super) const ANY: &str = "SELECT 1 FROM inbox WHERE pipeline = $1 AND leads IN (0, 1) LIMIT 1";

#[async_trait]
impl Question for LookAhead {
    type Output = Outlook;

    fn doing(&self) -> &'static str {
        "look for the next message"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Outlook, StoreError> {
        let mut next_ms: Option<u64> = None;
        let sql = NEXT[usize::from(connection.backend() == Backend::Postgres)];
        for lane in &self.lanes {
            let arguments = [Arc::clone(&self.pipeline).into(), Arc::clone(lane).into(), self.now_ms.into()];
            if let Some(row) = connection.query_first(sql, &arguments).await? {
                let at = row.unsigned(0)?;
                next_ms = Some(next_ms.map_or(at, |next| next.min(at)));
            }
        }
        let is_empty = connection.query_first(ANY, &[Arc::clone(&self.pipeline).into()]).await?.is_none();
        Ok(Outlook { next_ms, is_empty })
    }
}

/// Asks which lanes have messages.
pub(super) struct KeptLanes {
    pub pipeline: Arc<str>,
}

/// From one lane to the next through the index, however much is in each.
pub(super) const NEXT_LANE: [&str; 2] = [
    "SELECT lane FROM inbox WHERE pipeline = $1 AND leads = 1 AND lane > $2 ORDER BY lane LIMIT 1",
    "SELECT lane FROM inbox WHERE pipeline = $1 AND lane > $2 ORDER BY lane LIMIT 1",
];

#[async_trait]
impl Question for KeptLanes {
    type Output = Vec<Arc<str>>;

    fn doing(&self) -> &'static str {
        "look for lanes"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<Arc<str>>, StoreError> {
        let sql = NEXT_LANE[usize::from(connection.backend() == Backend::Postgres)];
        let (mut lanes, mut last) = (Vec::new(), Arc::<str>::from(""));
        while let Some(row) =
            connection.query_first(sql, &[Arc::clone(&self.pipeline).into(), Arc::clone(&last).into()]).await?
        {
            last = row.text(0)?.into();
            lanes.push(Arc::clone(&last));
        }
        Ok(lanes)
    }
}
