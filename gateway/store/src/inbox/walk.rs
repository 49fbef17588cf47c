//! Claiming on SQLite: one gateway has the file, so claims are kept in memory, and nothing is written to claim.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::ledger::{Ledger, Position};
use super::rows::{in_list, list};
use super::stored::{CLAIM_COLUMNS, ClaimedEntry};
use super::{LaneWanted, MAX_CLAIM_BYTES};
use crate::database::{Backend, Connection};
use crate::error::StoreError;
use crate::reader::Question;

/// Index entries read at a time.
const WINDOW: usize = 512;

/// See [`Reader`](crate::Reader)'s plans in the tests: this reads nothing but the index, in its order.
pub(super) const WALK: &str = "SELECT ready_at_ms, seq, bytes FROM inbox WHERE pipeline = $1 AND leads = 1 AND lane = $2 \
    AND timed = $3 AND (ready_at_ms, seq) > ($4, $5) AND ready_at_ms <= $6 ORDER BY ready_at_ms, seq LIMIT $7";

/// Looks for entries to claim.
pub(super) struct LookForReady {
    pub ledger: Arc<Ledger>,
    pub lanes: Vec<LaneWanted>,
    pub max_messages: usize,
    pub now_ms: u64,
}

/// What there is to claim.
pub(super) struct Found {
    pub entries: Vec<ClaimedEntry>,
    /// How far it has looked: all entries up to there are claimed, these included.
    pub cursors: Vec<((Arc<str>, bool), Position)>,
}

/// An entry in the index that nobody carries.
#[derive(Clone, Copy)]
struct Candidate {
    at: Position,
    /// How far everything is claimed if this is not.
    before: Position,
    bytes: u64,
}

/// One lane's candidates of one kind, in order.
struct Stream {
    lane: Arc<str>,
    timed: bool,
    candidates: Vec<Candidate>,
    end: Position,
    picked: usize,
}

#[async_trait]
impl Question for LookForReady {
    type Output = Found;

    fn doing(&self) -> &'static str {
        "look for messages that are ready"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Found, StoreError> {
        let mut lanes = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            let limit = lane.max_messages.min(self.max_messages);
            let at_once = self.stream(connection, lane, false, limit).await?;
            lanes.push((limit, [at_once, self.stream(connection, lane, true, limit).await?]));
        }
        let picks = self.pick(&mut lanes);
        let mut cursors = Vec::with_capacity(2 * lanes.len());
        for stream in lanes.into_iter().flat_map(|(_, streams)| streams) {
            let cursor = stream.candidates.get(stream.picked).map_or(stream.end, |first| first.before);
            cursors.push(((stream.lane, stream.timed), cursor));
        }
        Ok(Found { entries: self.read(connection, &picks).await?, cursors })
    }
}

impl LookForReady {
    async fn stream(
        &self,
        connection: &mut Connection,
        lane: &LaneWanted,
        timed: bool,
        limit: usize,
    ) -> Result<Stream, StoreError> {
        let mut cursor = self.ledger.books().cursor(&lane.name, timed);
        let mut candidates = Vec::new();
        let latest = if timed { self.now_ms } else { u64::MAX };
        while candidates.len() < limit {
            let window = WINDOW.min(limit.max(64));
            let arguments = [
                Arc::clone(&self.ledger.pipeline).into(),
                Arc::clone(&lane.name).into(),
                timed.into(),
                cursor.ready_at_ms.into(),
                cursor.seq.into(),
                latest.into(),
                (window as u64).into(),
            ];
            let rows = connection.query(WALK, &arguments).await?;
            let is_end = rows.len() < window;
            for row in rows {
                if candidates.len() == limit {
                    break;
                }
                let at = Position { ready_at_ms: row.integer(0)?, seq: row.integer(1)? };
                if !self.ledger.books().is_claimed(at.seq) {
                    candidates.push(Candidate { at, before: cursor, bytes: row.unsigned(2)? });
                }
                cursor = at;
            }
            if is_end {
                break;
            }
        }
        Ok(Stream { lane: Arc::clone(&lane.name), timed, candidates, end: cursor, picked: 0 })
    }

    /// The oldest of each lane in turn, so that no lane's backlog keeps the others waiting.
    fn pick(&self, lanes: &mut [(usize, [Stream; 2])]) -> Vec<i64> {
        let (mut picks, mut bytes) = (Vec::with_capacity(self.max_messages), 0_u64);
        loop {
            let before = picks.len();
            for (limit, streams) in &mut *lanes {
                if picks.len() == self.max_messages || *limit == 0 {
                    continue;
                }
                let oldest = streams.iter_mut().filter(|stream| stream.picked < stream.candidates.len());
                let Some(stream) = oldest.min_by_key(|stream| stream.candidates[stream.picked].at) else { continue };
                let candidate = stream.candidates[stream.picked];
                if bytes > 0 && bytes.saturating_add(candidate.bytes) > MAX_CLAIM_BYTES {
                    return picks;
                }
                bytes = bytes.saturating_add(candidate.bytes.max(1));
                stream.picked += 1;
                *limit -= 1;
                picks.push(candidate.at.seq);
            }
            if picks.len() == before {
                return picks;
            }
        }
    }

    /// Reads whole entries, in this order; those that have gone meanwhile are left out.
    async fn read(&self, connection: &mut Connection, seqs: &[i64]) -> Result<Vec<ClaimedEntry>, StoreError> {
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT {CLAIM_COLUMNS} FROM inbox WHERE {}", in_list(Backend::Sqlite));
        let rows = connection.query(&sql, &[list(seqs.iter().copied())]).await?;
        let mut by_seq = HashMap::with_capacity(rows.len());
        for row in rows {
            let entry = ClaimedEntry::read(row, &self.ledger.pipeline)?;
            by_seq.insert(entry.seq, entry);
        }
        Ok(seqs.iter().filter_map(|seq| by_seq.remove(seq)).collect())
    }
}
