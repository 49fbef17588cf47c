//! Adding to a stream all at once, and once for each idempotency key.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;

use super::Stream;
use crate::redis::mapping;
use crate::redis::reply::EntryId;

/// Makes repetitions of a request known.
#[derive(Debug, Clone, Copy)]
pub struct AddOnce<'a> {
    /// Names the request: its key's sha256, since keys may be secret.
    pub key_digest: [u8; 32],
    /// sha256 of what makes two requests the same.
    pub fingerprint: [u8; 32],
    /// How long from now the key is known.
    pub ttl: Duration,
    /// What a repetition is answered with, besides the entries.
    pub answer: &'a str,
}

/// What became of messages to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// They are in the stream, at these places.
    Now(Vec<EntryId>),
    /// They were added before, with the same key.
    Before(OnceTaken),
    /// The key was another request's.
    KeyReused,
}

/// What a request with the same key was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceTaken {
    /// Where its messages stand.
    pub entries: Vec<EntryId>,
    /// [`AddOnce::answer`] of then.
    pub answer: String,
}

impl Stream {
    /// Adds all messages, or none, and drops about what is beyond `max_len`; Redis has them when it returns.
    ///
    /// If the call is dropped, all or none may have been added.
    ///
    /// # Errors
    /// Nothing was added, or it is not known whether.
    pub async fn add(
        &self,
        messages: &[Arc<Message>],
        max_len: Option<u64>,
        once: Option<AddOnce<'_>>,
    ) -> Result<Added, Failure> {
        const DOING: &str = "adding to";
        let digest = once.map(|once| hex(&once.key_digest)).unwrap_or_default();
        let mut add = self.script(ADD, &[&*format!("{}:once:{digest}", self.key)]);
        let fingerprint = once.map(|once| hex(&once.fingerprint)).unwrap_or_default();
        add.arg(&fingerprint).arg(once.map_or(1, |once| once.ttl.as_millis().max(1) as u64));
        add.arg(once.map_or("", |once| once.answer));
        add.arg(max_len.map_or_else(String::new, |max_len| max_len.to_string())).arg(messages.len());
        for message in messages {
            let mut arguments = 0_usize;
            mapping::encode(message, |_, _| arguments += 2);
            add.arg(arguments);
            mapping::encode(message, |name, value| {
                add.arg(name).arg(value);
            });
        }
        let (is_new, text): (bool, String) = self.ask(DOING, &add).await?;
        let entries = |text: &str| text.split(',').map(|id| id.parse().ok()).collect::<Option<Vec<EntryId>>>();
        if is_new {
            return entries(&text).map(Added::Now).ok_or_else(|| self.nonsense(DOING));
        }
        let mut parts = text.splitn(3, ' ');
        match (parts.next(), parts.next().and_then(entries), parts.next()) {
            (Some(found), _, _) if found != fingerprint => Ok(Added::KeyReused),
            (Some(_), Some(entries), Some(answer)) => {
                Ok(Added::Before(OnceTaken { entries, answer: answer.to_owned() }))
            }
            (_, _, _) => Err(self.nonsense(DOING)),
        }
    }
}

/// A script is carried out whole. Redis checks its memory before the first write, so that none of the others can fail.
const ADD: &str = r"
if ARGV[1] ~= '' then
  local known = redis.call('GET', KEYS[2])
  if known then return {0, known} end
end
local ids, at = {}, 6
for n = 1, tonumber(ARGV[5]) do
  local entry = {'XADD', KEYS[1]}
  if ARGV[4] ~= '' then entry = {'XADD', KEYS[1], 'MAXLEN', '~', ARGV[4]} end
  entry[#entry + 1] = '*'
  local count = tonumber(ARGV[at])
  for i = at + 1, at + count do entry[#entry + 1] = ARGV[i] end
  at = at + count + 1
  ids[n] = redis.call(unpack(entry))
end
local all = table.concat(ids, ',')
if ARGV[1] ~= '' then redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. all .. ' ' .. ARGV[3], 'PX', ARGV[2]) end
return {1, all}
";

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
