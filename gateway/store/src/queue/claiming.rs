//! The transaction of a claim: first what is to come again, then what the group has not been given yet, the highest
//! priority first, then the oldest.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::given_out::GivenOut;
use super::sql::{GroupRow, Lock, PRIORITIES, execute_for, group_numbered, insert_all, lane, query_for, unblock};
use crate::change::{Change, Transaction};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;

/// Most messages of a group that are given out, or wait for another of their key. A key that does not come through holds
/// up the others once so many of its own wait.
pub(super) const MAX_UNSETTLED: u64 = 10_000;

/// So many new messages of an ordered queue are looked at in one claim, however few are wanted: most may be blocked.
const LEAST_LOOKED_AT: usize = 500;

/// Claims messages for a consumer.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub queue: Arc<str>,
    pub queue_id: u64,
    pub group_id: u64,
    pub is_ordered: bool,
    pub consumer: Arc<str>,
    pub max: usize,
    pub max_bytes: u64,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Claiming {
    /// These are the consumer's, and nobody has opened them yet.
    Got(Vec<GivenOut>),
    /// There is nothing to be had before this time, if nothing is published or given back.
    Nothing { until_ms: Option<u64> },
    /// Another gateway claims for the group at this moment.
    Contended,
    /// The group was deleted, maybe with its queue.
    Gone,
}

/// A message that may be claimed.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    offset: u64,
    priority: u64,
    standing: Standing,
    /// How often it has been given out.
    attempt: u64,
    lane: Option<i64>,
    size_bytes: u64,
}

/// How a message stands to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Looked at before: it is in the group's rows.
    Known,
    /// Not looked at before, and free.
    New,
    /// Not looked at before; another of its lane is before it.
    Blocked,
    /// Not looked at before, and of no use any more.
    Expired,
}

/// What a claim does to the group's rows.
#[derive(Debug, Default)]
struct Plan {
    taken: Vec<Candidate>,
    /// Passed, and kept for when they are free.
    blocked: Vec<Candidate>,
    /// Known ones that are settled without being given out.
    dropped: Vec<u64>,
    lost: u64,
    expired: u64,
}

#[async_trait]
impl Change for Claim {
    type Output = Claiming;

    fn size_bytes(&self) -> usize {
        // Its answer is read within the transaction.
        usize::try_from(self.max_bytes).unwrap_or(usize::MAX).min(4 << 20)
    }

    fn doing(&self) -> &'static str {
        "claim messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Claiming, StoreError> {
        let Some(mut group) = group_numbered(transaction, self.group_id, Lock::Skip).await? else {
            let exists = group_numbered(transaction, self.group_id, Lock::No).await?.is_some();
            return Ok(if exists { Claiming::Contended } else { Claiming::Gone });
        };
        if group.is_paused {
            return Ok(Claiming::Nothing { until_ms: None });
        }
        let (before, now) = (group.cursors, transaction.now_ms());
        let mut plan = Plan::default();
        let mut candidates = self.known(transaction, now, &mut plan).await?;
        candidates.extend(self.unseen(transaction, &group, now, candidates.len()).await?);
        candidates.sort_by_key(|one| (std::cmp::Reverse(one.priority), one.offset));
        self.choose(&candidates, &mut group, &mut plan);

        let has_changed = group.cursors != before || !plan.dropped.is_empty() || !plan.taken.is_empty();
        if has_changed {
            self.write(transaction, &group, &plan, now).await?;
        }
        if plan.taken.is_empty() {
            if has_changed {
                // There may be more behind what was only looked at.
                return Ok(Claiming::Nothing { until_ms: Some(now) });
            }
            let sql = "SELECT min(not_before_ms) FROM queue_claims \
                       WHERE group_id = $1 AND consumer IS NULL AND is_blocked = 0";
            let row = transaction.query_first(sql, &[self.group_id.into()]).await?;
            let until_ms = row.map(|row| row.optional_unsigned(0)).transpose()?.flatten();
            return Ok(Claiming::Nothing { until_ms });
        }
        let claimed = self.read(transaction, &group, &plan.taken).await?;
        Ok(if claimed.is_empty() { Claiming::Nothing { until_ms: Some(now) } } else { Claiming::Got(claimed) })
    }
}

impl Claim {
    /// What nobody has and nothing blocks.
    async fn known(
        &self,
        connection: &mut Connection,
        now: u64,
        plan: &mut Plan,
    ) -> Result<Vec<Candidate>, StoreError> {
        let sql = "SELECT c.msg_offset, c.priority, c.attempt, c.lane, m.size_bytes, m.expires_at_ms \
                   FROM queue_claims AS c LEFT JOIN queue_messages AS m \
                   ON m.queue_id = $2 AND m.msg_offset = c.msg_offset \
                   WHERE c.group_id = $1 AND c.consumer IS NULL AND c.is_blocked = 0 AND c.not_before_ms <= $3 \
                   ORDER BY c.priority DESC, c.msg_offset LIMIT $4";
        let values = [self.group_id, self.queue_id, now, self.max as u64].map(Value::from);
        let mut found = Vec::new();
        for row in connection.query(sql, &values).await? {
            let offset = row.unsigned(0)?;
            let Some(size_bytes) = row.optional_unsigned(4)? else {
                plan.dropped.push(offset);
                plan.lost += 1;
                continue;
            };
            if row.optional_unsigned(5)?.is_some_and(|at| at <= now) {
                plan.dropped.push(offset);
                plan.expired += 1;
                continue;
            }
            found.push(Candidate {
                offset,
                priority: row.unsigned(1)?,
                standing: Standing::Known,
                attempt: row.unsigned(2)?,
                lane: row.optional_integer(3)?,
                size_bytes,
            });
        }
        Ok(found)
    }

    /// What the group has not looked at.
    async fn unseen(
        &self,
        connection: &mut Connection,
        group: &GroupRow,
        now: u64,
        known: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        let (mut lanes, mut limit) = (HashSet::new(), self.max);
        if self.is_ordered {
            limit = limit.max(LEAST_LOOKED_AT);
            // What is set aside holds up nobody.
            let sql = "SELECT lane, count(*) FROM queue_claims WHERE group_id = $1 AND is_blocked < 2 GROUP BY lane";
            let mut unsettled = 0;
            for row in connection.query(sql, &[self.group_id.into()]).await? {
                lanes.extend(row.optional_integer(0)?);
                unsettled += row.unsigned(1)?;
            }
            if unsettled >= MAX_UNSETTLED || known >= self.max {
                return Ok(Vec::new());
            }
        }
        let mut values = vec![Value::from(self.queue_id), (limit as u64).into()];
        let arms: Vec<String> = (0..PRIORITIES)
            .map(|priority| {
                values.push(group.cursors.0[priority].into());
                format!(
                    "SELECT * FROM (SELECT msg_offset, priority, size_bytes, expires_at_ms, message_key FROM queue_messages \
                     WHERE queue_id = $1 AND priority = {priority} AND msg_offset > ${} ORDER BY msg_offset LIMIT $2) AS p{priority}",
                    values.len()
                )
            })
            .collect();
        let sql = format!("{} ORDER BY 2 DESC, 1 LIMIT $2", arms.join(" UNION ALL "));
        let mut found = Vec::new();
        for row in connection.query(&sql, &values).await? {
            let (offset, priority) = (row.unsigned(0)?, row.unsigned(1)?);
            let lane = if self.is_ordered { row.optional_bytes(4)?.as_ref().map(lane) } else { None };
            let standing = if row.optional_unsigned(3)?.is_some_and(|at| at <= now) {
                Standing::Expired
            } else if lane.is_some_and(|lane| !lanes.insert(lane)) {
                Standing::Blocked
            } else {
                Standing::New
            };
            found.push(Candidate { offset, priority, standing, attempt: 0, lane, size_bytes: row.unsigned(2)? });
        }
        Ok(found)
    }

    /// Goes through them in their order until no more fits. The cursors pass what was gone through.
    fn choose(&self, candidates: &[Candidate], group: &mut GroupRow, plan: &mut Plan) {
        let mut bytes = 0_u64;
        for one in candidates {
            match one.standing {
                Standing::Known | Standing::New => {
                    bytes = bytes.saturating_add(one.size_bytes);
                    if plan.taken.len() >= self.max || (!plan.taken.is_empty() && bytes > self.max_bytes) {
                        break;
                    }
                    plan.taken.push(*one);
                }
                Standing::Blocked => plan.blocked.push(*one),
                Standing::Expired => plan.expired += 1,
            }
            if one.standing != Standing::Known {
                advance(group, one.priority, one.offset);
            }
        }
    }

    async fn write(
        &self,
        transaction: &mut Transaction<'_>,
        group: &GroupRow,
        plan: &Plan,
        now: u64,
    ) -> Result<(), StoreError> {
        let owner = Value::from(transaction.owner());
        let (group_id, consumer) = (Value::from(self.group_id), Value::from(&*self.consumer));
        if !plan.dropped.is_empty() {
            let sql = "DELETE FROM queue_claims WHERE group_id = $1 AND msg_offset IN (";
            execute_for(transaction, sql, std::slice::from_ref(&group_id), &plan.dropped).await?;
            if self.is_ordered {
                unblock(transaction, self.group_id).await?;
            }
        }
        let known: Vec<u64> =
            plan.taken.iter().filter(|one| one.standing == Standing::Known).map(|one| one.offset).collect();
        let sql = "UPDATE queue_claims SET consumer = $2, owner = $3, attempt = attempt + 1 \
                   WHERE group_id = $1 AND msg_offset IN (";
        execute_for(transaction, sql, &[group_id.clone(), consumer.clone(), owner.clone()], &known).await?;

        let row = |one: &Candidate, is_blocked: bool| {
            let (by, of) = if is_blocked { (Value::Null, Value::Null) } else { (consumer.clone(), owner.clone()) };
            vec![
                group_id.clone(),
                one.offset.into(),
                group.generation.into(),
                one.priority.into(),
                u64::from(!is_blocked).into(),
                0_u64.into(),
                is_blocked.into(),
                one.lane.into(),
                by,
                of,
            ]
        };
        let taken = plan.taken.iter().filter(|one| one.standing == Standing::New).map(|one| row(one, false));
        let rows: Vec<Vec<Value>> = taken.chain(plan.blocked.iter().map(|one| row(one, true))).collect();
        insert_all(transaction, "queue_claims", &CLAIM_COLUMNS, &rows).await?;

        let sql = "UPDATE queue_groups SET cursors = $2, lost = lost + $3, expired = expired + $4, last_activity_ms = $5 \
                   WHERE group_id = $1";
        let values = [group_id, group.cursors.text().into(), plan.lost.into(), plan.expired.into(), now.into()];
        transaction.execute(sql, &values).await?;
        let count = |name: &'static str, number: u64| {
            if number > 0 {
                metrics::counter!(name, "queue" => self.queue.to_string()).increment(number);
            }
        };
        count("sluicegate_queue_messages_lost_total", plan.lost);
        count("sluicegate_queue_messages_expired_total", plan.expired);
        Ok(())
    }

    async fn read(
        &self,
        connection: &mut Connection,
        group: &GroupRow,
        taken: &[Candidate],
    ) -> Result<Vec<GivenOut>, StoreError> {
        let offsets: Vec<u64> = taken.iter().map(|one| one.offset).collect();
        let sql = "SELECT msg_offset, head, body FROM queue_messages WHERE queue_id = $1 AND msg_offset IN (";
        let rows = query_for(connection, sql, &[self.queue_id.into()], &offsets).await?;
        let mut by_offset: HashMap<u64, Row> =
            rows.into_iter().map(|row| Ok((row.unsigned(0)?, row))).collect::<Result<_, StoreError>>()?;
        let (mut claimed, mut missing) = (Vec::with_capacity(taken.len()), Vec::new());
        for one in taken {
            let Some(row) = by_offset.remove(&one.offset) else {
                // Removed by another gateway since the candidates were read.
                missing.push(one.offset);
                continue;
            };
            let attempt = u32::try_from(one.attempt.saturating_add(1)).unwrap_or(u32::MAX);
            let (queue_id, generation, offset) = (self.queue_id, group.generation, one.offset);
            claimed.push(GivenOut { queue_id, generation, offset, attempt, row });
        }
        let sql = "DELETE FROM queue_claims WHERE group_id = $1 AND msg_offset IN (";
        execute_for(connection, sql, &[self.group_id.into()], &missing).await?;
        Ok(claimed)
    }
}

const CLAIM_COLUMNS: [&str; 10] = [
    "group_id",
    "msg_offset",
    "generation",
    "priority",
    "attempt",
    "not_before_ms",
    "is_blocked",
    "lane",
    "consumer",
    "owner",
];

fn advance(group: &mut GroupRow, priority: u64, offset: u64) {
    let cursor = usize::try_from(priority).ok().and_then(|priority| group.cursors.0.get_mut(priority));
    if let Some(cursor) = cursor {
        *cursor = offset.max(*cursor);
    }
}
