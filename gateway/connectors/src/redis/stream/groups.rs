//! Who reads a stream, and how far they are.

use redis::{Value, cmd};
use sluicegate_engine::failure::Failure;

use super::reading::is_no_such_key;
use super::{PendingEntry, Stream, member, number, paused_key, text};
use crate::redis::config::Start;
use crate::redis::reply::{self, EntryId};

/// A group, as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// Whether pipelines are asked to read nothing.
    pub is_paused: bool,
    /// Entries it has not been given yet; `None` where Redis cannot tell: before version 7, and after entries were
    /// deleted or the group was moved to a place in the middle.
    pub lag: Option<u64>,
    /// Entries it has been given and has not settled.
    pub pending: u64,
    /// Consumers that have joined and not left.
    pub consumers: u64,
    /// The last entry it was given; before the first of all if there is none.
    pub last_id: EntryId,
}

/// Where a group is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPosition {
    /// With the oldest entry.
    Earliest,
    /// With what is added from now on.
    Latest,
    /// With this entry, or the next one there is.
    Entry(EntryId),
}

impl GroupPosition {
    /// The last entry the group counts as given, and how many it was given, where that is known.
    fn last_id(self) -> String {
        match self {
            Self::Earliest => "0".to_owned(),
            Self::Latest => "$".to_owned(),
            Self::Entry(EntryId { millis: 0, sequence: 0 }) => "0".to_owned(),
            Self::Entry(EntryId { millis, sequence: 0 }) => {
                EntryId { millis: millis - 1, sequence: u64::MAX }.to_string()
            }
            Self::Entry(EntryId { millis, sequence }) => EntryId { millis, sequence: sequence - 1 }.to_string(),
        }
    }
}

impl Stream {
    /// All groups, by name. None for a stream that does not exist.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn groups(&self) -> Result<Vec<GroupInfo>, Failure> {
        const DOING: &str = "listing the groups of";
        let mut info = cmd("XINFO");
        info.arg("GROUPS").arg(&*self.key);
        let rows = match self.ask_raw::<Vec<Value>>(&info).await? {
            Ok(rows) => rows,
            Err(error) if is_no_such_key(&error) => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(DOING, &error)),
        };
        let mut paused = cmd("SMEMBERS");
        paused.arg(paused_key(&self.key));
        let paused: Vec<String> = self.ask(DOING, &paused).await?;
        let group = |row: &Value| {
            let name = text(member(row, "name")?)?;
            Some(GroupInfo {
                is_paused: paused.contains(&name),
                lag: member(row, "lag").and_then(number),
                pending: number(member(row, "pending")?)?,
                consumers: number(member(row, "consumers")?)?,
                last_id: text(member(row, "last-delivered-id")?)?.parse().ok()?,
                name,
            })
        };
        let mut groups: Vec<GroupInfo> =
            rows.iter().map(group).collect::<Option<_>>().ok_or_else(|| self.nonsense(DOING))?;
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(groups)
    }

    /// Makes a group, and the stream with it; `false` if it exists, which stays where it is.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn create_group(&self, group: &str, start: Start) -> Result<bool, Failure> {
        let start = match start {
            Start::Earliest => "0",
            Start::Latest => "$",
        };
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&*self.key).arg(group).arg(start).arg("MKSTREAM");
        match self.ask_raw::<()>(&create).await? {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(false),
            Err(error) => Err(self.failed("creating a group of", &error)),
        }
    }

    /// Removes a group; `false` if there is none. A pipeline that reads makes it again.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn delete_group(&self, group: &str) -> Result<bool, Failure> {
        self.ask("deleting a group of", self.script(DELETE_GROUP, &[&*paused_key(&self.key)]).arg(group)).await
    }

    /// Asks pipelines to read nothing for the group, or to go on; they look about four times a second.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn set_paused(&self, group: &str, is_paused: bool) -> Result<(), Failure> {
        let mut change = cmd(if is_paused { "SADD" } else { "SREM" });
        change.arg(paused_key(&self.key)).arg(group);
        self.ask::<u64>("pausing a group of", &change).await.map(drop)
    }

    /// Lets a group go on from another place. What it holds counts as settled.
    ///
    /// # Errors
    /// The server cannot be asked, or there is no such group.
    pub async fn move_group(&self, group: &str, to: GroupPosition) -> Result<(), Failure> {
        self.ask::<u64>("moving a group of", self.script(MOVE_GROUP, &[]).arg(group).arg(to.last_id())).await.map(drop)
    }

    /// At most `limit` entries after this one that the group has been given and has not settled, oldest first.
    ///
    /// # Errors
    /// The server cannot be asked, or there is no such group.
    pub async fn pending(
        &self,
        group: &str,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<PendingEntry>, Failure> {
        let from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        self.pending_between(group, &from, "+", limit).await
    }

    /// How often the group has been given an entry that it has not settled.
    ///
    /// # Errors
    /// As [`pending`](Self::pending).
    pub async fn attempt(&self, group: &str, id: EntryId) -> Result<Option<u32>, Failure> {
        let id = id.to_string();
        Ok(self.pending_between(group, &id, &id, 1).await?.first().map(|pending| pending.attempt))
    }

    async fn pending_between(
        &self,
        group: &str,
        from: &str,
        to: &str,
        limit: usize,
    ) -> Result<Vec<PendingEntry>, Failure> {
        const DOING: &str = "listing what is pending of";
        let mut pending = self.command("XPENDING");
        pending.arg(group).arg(from).arg(to).arg(limit);
        let rows = reply::pending(self.ask(DOING, &pending).await?).ok_or_else(|| self.nonsense(DOING))?;
        Ok(rows.into_iter().map(|(id, attempt)| PendingEntry { id, attempt }).collect())
    }
}

/// With its pause: a group of that name that is made later shall read.
const DELETE_GROUP: &str = r"
redis.call('SREM', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
";

const MOVE_GROUP: &str = r"
local settled = 0
repeat
  local rows = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 500)
  local ids = {}
  for n, row in ipairs(rows) do ids[n] = row[1] end
  if #ids > 0 then settled = settled + redis.call('XACK', KEYS[1], ARGV[1], unpack(ids)) end
until #rows < 500
redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], ARGV[2])
return settled
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_told_by_the_entry_before_it() {
        let at = |millis, sequence| GroupPosition::Entry(EntryId { millis, sequence }).last_id();
        assert_eq!((GroupPosition::Earliest.last_id(), GroupPosition::Latest.last_id()), ("0".into(), "$".into()));
        assert_eq!((at(0, 0), at(5, 3)), ("0".to_owned(), "5-2".to_owned()));
        assert_eq!(at(5, 0), format!("4-{}", u64::MAX));
    }
}
