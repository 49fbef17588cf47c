//! What a stream holds.

use redis::Value;
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;

use super::{Stream, member, number, text};
use crate::redis::mapping;
use crate::redis::reply::{self, Entry, EntryId};

/// How many of the newest entries are searched for the id of a message.
pub const MAX_SEARCHED_ENTRIES: usize = 10_000;
/// Entries come with their bodies: only so many at once.
const MAX_READ_ENTRIES: usize = 100;

/// A stream, as it was when it was asked for. One that does not exist is empty: it comes with its first entry or group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamInfo {
    /// Entries it holds.
    pub entries: u64,
    /// What it takes of the server's memory, about; `None` if the server does not tell.
    pub bytes: Option<u64>,
    /// How many groups read it.
    pub groups: u64,
    /// Id of the newest entry there ever was.
    pub last_id: Option<EntryId>,
}

/// An entry and its message.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEntry {
    /// Its place in the stream.
    pub id: EntryId,
    /// Names and values of all fields together.
    pub size_bytes: u64,
    /// The message.
    pub message: Message,
}

/// An entry that was given to a consumer and is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEntry {
    /// Its place in the stream.
    pub id: EntryId,
    /// How often it has been given out.
    pub attempt: u32,
}

impl Stream {
    /// How it is.
    ///
    /// # Errors
    /// The server cannot be asked, or the key holds something else.
    pub async fn info(&self) -> Result<StreamInfo, Failure> {
        const DOING: &str = "looking at";
        let mut info = redis::cmd("XINFO");
        info.arg("STREAM").arg(&*self.key);
        let found: Value = match self.ask_raw(&info).await? {
            Ok(found) => found,
            // The one error without a code of its own that means a missing key.
            Err(error) if is_no_such_key(&error) => return Ok(StreamInfo::default()),
            Err(error) => return Err(self.failed(DOING, &error)),
        };
        let of = |name| member(&found, name);
        let (Some(entries), Some(groups)) = (of("length").and_then(number), of("groups").and_then(number)) else {
            return Err(self.nonsense(DOING));
        };
        let last_id = of("last-generated-id").and_then(text).and_then(|id| id.parse().ok());
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(&*self.key);
        // Some hosted servers do not allow it.
        let bytes = self.ask_raw::<Option<u64>>(&usage).await?.ok().flatten();
        Ok(StreamInfo {
            entries,
            bytes,
            groups,
            last_id: last_id.filter(|id| *id != EntryId { millis: 0, sequence: 0 }),
        })
    }

    /// At most `limit` entries after this one, oldest first.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn entries(&self, after: Option<EntryId>, limit: usize) -> Result<Vec<StoredEntry>, Failure> {
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() < limit {
            let from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
            let count = (limit - found.len()).min(MAX_READ_ENTRIES);
            let mut range = self.command("XRANGE");
            range.arg(from).arg("+").arg("COUNT").arg(count);
            let page = self.page(&range).await?;
            let is_last = page.len() < count;
            after = page.last().map(|entry| entry.id).or(after);
            found.extend(page);
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// The entry at this place.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn entry(&self, id: EntryId) -> Result<Option<StoredEntry>, Failure> {
        let mut range = self.command("XRANGE");
        range.arg(id.to_string()).arg(id.to_string());
        Ok(self.page(&range).await?.into_iter().next())
    }

    /// The newest entry whose message has this id, among the newest [`MAX_SEARCHED_ENTRIES`].
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn find(&self, message_id: &str) -> Result<Option<StoredEntry>, Failure> {
        let (mut before, mut searched) = ("+".to_owned(), 0);
        while searched < MAX_SEARCHED_ENTRIES {
            let mut range = self.command("XREVRANGE");
            range.arg(&before).arg("-").arg("COUNT").arg(MAX_READ_ENTRIES);
            let page = self.page(&range).await?;
            searched += page.len();
            let last = page.last().map(|entry| entry.id);
            let is_last = page.len() < MAX_READ_ENTRIES;
            if let Some(found) = page.into_iter().find(|entry| entry.message.id == message_id) {
                return Ok(Some(found));
            }
            match last.filter(|_| !is_last) {
                Some(id) => before = format!("({id}"),
                None => break,
            }
        }
        Ok(None)
    }

    async fn page(&self, range: &redis::Cmd) -> Result<Vec<StoredEntry>, Failure> {
        const DOING: &str = "reading";
        let answer: Value = self.ask(DOING, range).await?;
        let entries = reply::entries(answer).ok_or_else(|| self.nonsense(DOING))?;
        Ok(entries.into_iter().filter_map(|entry| self.stored(entry)).collect())
    }

    fn stored(&self, entry: Entry) -> Option<StoredEntry> {
        let Entry { id, fields } = entry;
        let fields = fields?;
        let size_bytes = fields.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum();
        Some(StoredEntry { id, size_bytes, message: mapping::decode(&self.key, id, fields, 1) })
    }

    /// Removes an entry, whoever has it; `false` if there is none.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn delete(&self, id: EntryId) -> Result<bool, Failure> {
        let mut delete = self.command("XDEL");
        delete.arg(id.to_string());
        Ok(self.ask::<u64>("deleting from", &delete).await? > 0)
    }

    /// Removes all entries and says how many; groups stay, with nothing before them. What is claimed is carried to its
    /// end.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn purge(&self) -> Result<u64, Failure> {
        self.ask("purging", &self.script(PURGE, &[])).await
    }
}

/// In one step, so that what is added meanwhile stays. The groups are moved, since they count the entries before them.
const PURGE: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function member(pairs, name)
  for i = 1, #pairs, 2 do if pairs[i] == name then return pairs[i + 1] end end
end
local removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
local added = member(redis.call('XINFO', 'STREAM', KEYS[1]), 'entries-added')
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if added then
    redis.call('XGROUP', 'SETID', KEYS[1], member(group, 'name'), '$', 'ENTRIESREAD', added)
  else
    redis.call('XGROUP', 'SETID', KEYS[1], member(group, 'name'), '$')
  end
end
return removed
";

/// What XINFO answers for a key that does not exist.
pub(super) fn is_no_such_key(error: &redis::RedisError) -> bool {
    error.to_string().contains("no such key")
}
