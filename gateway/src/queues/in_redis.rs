//! One queue that a Redis Stream keeps.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use sluicegate_connectors::queue::{Declaration, Stream};
use sluicegate_connectors::redis::EntryId;
use sluicegate_connectors::redis::Start as RedisStart;
use sluicegate_connectors::redis::stream::{
    AddOnce, Added, GroupInfo, GroupPosition, MAX_SEARCHED_ENTRIES, StoredEntry, StreamInfo,
};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_store::queue::{
    MAX_BATCH_MESSAGES, MAX_PAGE_ITEMS, Once, Progress, Publication, QueueError, Settings, Start, is_name,
};

use super::error::QueuesError;
use super::kept::{
    Backend, KeptBatch, KeptGroup, KeptMessage, KeptPending, KeptPosition, KeptPublished, KeptQueue, KeptState, Page,
    Place, WhichKept,
};
use super::store_backend::settings;

/// See the module.
#[derive(Debug)]
pub(super) struct RedisQueue {
    name: Arc<str>,
    pub(super) declaration: Declaration,
    stream: Stream,
}

impl RedisQueue {
    /// `None` for a queue that is not kept in Redis. Connects when it is first asked.
    pub fn new(name: &str, declaration: &Declaration) -> Option<Self> {
        let stream = declaration.managed_stream(name)?;
        Some(Self { name: name.into(), declaration: declaration.clone(), stream })
    }

    fn failed(&self, failure: Failure) -> QueuesError {
        QueuesError::Redis { queue: self.name.to_string(), failure }
    }

    pub(super) fn unsupported(&self, what: &'static str, hint: &'static str) -> QueuesError {
        QueuesError::Unsupported { queue: self.name.to_string(), what, hint }
    }

    fn invalid(what: &str, text: impl Into<String>) -> QueuesError {
        QueueError::Invalid { what: what.to_owned(), text: text.into() }.into()
    }

    fn no_group(&self, group: &str) -> QueuesError {
        QueueError::GroupNotFound { queue: self.name.to_string(), group: group.to_owned() }.into()
    }

    fn missing(&self, which: WhichKept<'_>) -> QueuesError {
        let message = match which {
            WhichKept::Id(id) => format!("`{id}` among its newest {MAX_SEARCHED_ENTRIES}"),
            WhichKept::Place(place) => format!("at {place}"),
        };
        QueueError::MessageNotFound { queue: self.name.to_string(), message }.into()
    }

    fn entry_id(what: &str, place: Place) -> Result<EntryId, QueuesError> {
        match place {
            Place::Entry(id) => Ok(id),
            Place::Offset(_) => {
                Err(Self::invalid(what, "a queue kept in Redis counts by entry ids such as `1700000000000-0`"))
            }
        }
    }

    pub fn settings(&self) -> Settings {
        settings(&self.declaration)
    }

    /// How it is. One whose Redis cannot be asked says so in [`KeptQueue::unavailable`].
    pub async fn look(&self) -> KeptQueue {
        match self.stream.info().await {
            Ok(info) => self.kept(&info, None),
            Err(failure) => self.kept(&StreamInfo::default(), Some(failure.text)),
        }
    }

    pub async fn get(&self) -> Result<KeptQueue, QueuesError> {
        let info = self.stream.info().await.map_err(|failure| self.failed(failure))?;
        Ok(self.kept(&info, None))
    }

    fn kept(&self, info: &StreamInfo, unavailable: Option<String>) -> KeptQueue {
        KeptQueue {
            name: self.name.to_string(),
            backend: Backend::Redis,
            settings: self.settings(),
            revision: None,
            created_at_ms: None,
            updated_at_ms: None,
            messages: info.entries,
            bytes: info.bytes,
            scheduled: 0,
            groups: info.groups,
            last_place: info.last_id.map(Place::Entry),
            unavailable,
        }
    }

    pub async fn publish_all(
        &self,
        publications: &[Publication],
        once: Option<Once>,
    ) -> Result<KeptBatch, QueuesError> {
        let count = publications.len();
        if !(1..=MAX_BATCH_MESSAGES).contains(&count) {
            return Err(Self::invalid("messages", format!("there are {count}; publish 1 to {MAX_BATCH_MESSAGES}")));
        }
        let messages = publications.iter().map(|one| self.message(one)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
        let answer = serde_json::to_string(&ids).unwrap_or_default();
        let once = once.as_ref().map(|once| AddOnce {
            key_digest: Sha256::digest(once.key.as_bytes()).into(),
            fingerprint: once.fingerprint,
            ttl: once.ttl,
            answer: &answer,
        });
        let max_len = self.declaration.retention.max_messages.and_then(|length| length.messages());
        match self.stream.add(&messages, max_len, once).await.map_err(|failure| self.failed(failure))? {
            Added::Now(entries) => Ok(batch(ids.into_iter().map(str::to_owned), entries, false)),
            Added::Before(before) => {
                let ids: Vec<String> = serde_json::from_str(&before.answer).unwrap_or_default();
                Ok(batch(ids.into_iter(), before.entries, true))
            }
            Added::KeyReused => Err(QueueError::KeyReused { queue: self.name.to_string() }.into()),
        }
    }

    /// The message as it is added; what Redis has not is refused, not ignored.
    fn message(&self, publication: &Publication) -> Result<Arc<Message>, QueuesError> {
        let message = &publication.message;
        if publication.priority.is_some() {
            return Err(self.unsupported("priorities", "leave `priority` out, or keep the queue in the store"));
        }
        if message.deliver_at_ms.is_some_and(|at| at > now_ms()) {
            let hint = "publish it when it is due, or keep the queue in the store";
            return Err(self.unsupported("delayed or scheduled messages", hint));
        }
        let until = publication.ttl.map(|ttl| now_ms().saturating_add(ttl.as_millis() as u64));
        let expires_at_ms = [until, message.expires_at_ms].into_iter().flatten().min();
        if message.deliver_at_ms.is_none() && expires_at_ms == message.expires_at_ms {
            return Ok(Arc::clone(message));
        }
        Ok(Arc::new(Message { deliver_at_ms: None, expires_at_ms, ..Message::clone(message) }))
    }

    pub async fn purge(&self) -> Result<u64, QueuesError> {
        self.stream.purge().await.map_err(|failure| self.failed(failure))
    }

    pub async fn messages(&self, limit: usize, after: Option<&str>) -> Result<Page<KeptMessage>, QueuesError> {
        let after = after.map(|token| token.parse().map_err(|()| page_token())).transpose()?;
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        let entries = self.stream.entries(after, limit + 1).await.map_err(|failure| self.failed(failure))?;
        let is_more = entries.len() > limit;
        let items: Vec<KeptMessage> = entries.iter().take(limit).map(listed).collect();
        let next = entries.get(limit - 1).filter(|_| is_more).map(|entry| entry.id.to_string());
        Ok(Page { items, next })
    }

    async fn find(&self, which: WhichKept<'_>) -> Result<StoredEntry, QueuesError> {
        let found = match which {
            WhichKept::Id(id) => self.stream.find(id).await,
            WhichKept::Place(place) => self.stream.entry(Self::entry_id("offset", place)?).await,
        };
        found.map_err(|failure| self.failed(failure))?.ok_or_else(|| self.missing(which))
    }

    pub async fn message_of(&self, which: WhichKept<'_>) -> Result<(KeptMessage, Message), QueuesError> {
        let entry = self.find(which).await?;
        Ok((listed(&entry), entry.message))
    }

    pub async fn progress(&self, which: WhichKept<'_>) -> Result<Vec<(String, Progress)>, QueuesError> {
        let id = self.find(which).await?.id;
        let mut all = Vec::new();
        for group in self.group_infos().await? {
            let progress = match self.stream.attempt(&group.name, id).await.map_err(|failure| self.failed(failure))? {
                Some(attempt) => Progress::Claimed { attempt },
                None if id <= group.last_id => Progress::Done,
                None => Progress::Waiting,
            };
            all.push((group.name, progress));
        }
        Ok(all)
    }

    /// By group, then by place. The page token is the last one's: its place, a colon and its group.
    pub async fn pending(&self, limit: usize, after: Option<&str>) -> Result<Page<KeptPending>, QueuesError> {
        let after = match after {
            None => None,
            Some(token) => {
                let parts = token.split_once(':').and_then(|(id, group)| Some((id.parse().ok()?, group)));
                Some(parts.ok_or_else(page_token)?)
            }
        };
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        let mut items: Vec<KeptPending> = Vec::new();
        for group in self.group_infos().await? {
            let from: Option<EntryId> = match after {
                Some((_, reached)) if group.name.as_str() < reached => continue,
                Some((id, reached)) if group.name == reached => Some(id),
                Some(_) | None => None,
            };
            let wanted = limit + 1 - items.len();
            let pending =
                self.stream.pending(&group.name, from, wanted).await.map_err(|failure| self.failed(failure))?;
            for one in pending {
                let message = match self.stream.entry(one.id).await.map_err(|failure| self.failed(failure))? {
                    Some(entry) => listed(&entry),
                    None => removed(one.id),
                };
                let progress = Progress::Claimed { attempt: one.attempt };
                items.push(KeptPending { group: group.name.clone(), progress, message });
            }
            if items.len() > limit {
                break;
            }
        }
        let is_more = items.len() > limit;
        items.truncate(limit);
        let token = |last: &KeptPending| match last.message.state {
            KeptState::Stored { place, .. } => Some(format!("{place}:{}", last.group)),
            KeptState::Scheduled { .. } => None,
        };
        let next = if is_more { items.last().and_then(token) } else { None };
        Ok(Page { items, next })
    }

    pub async fn delete_message(&self, which: WhichKept<'_>) -> Result<(), QueuesError> {
        let id = match which {
            WhichKept::Place(place) => Self::entry_id("offset", place)?,
            WhichKept::Id(_) => self.find(which).await?.id,
        };
        match self.stream.delete(id).await.map_err(|failure| self.failed(failure))? {
            true => Ok(()),
            false => Err(self.missing(which)),
        }
    }

    async fn group_infos(&self) -> Result<Vec<GroupInfo>, QueuesError> {
        self.stream.groups().await.map_err(|failure| self.failed(failure))
    }

    async fn group_info(&self, group: &str) -> Result<GroupInfo, QueuesError> {
        let found = self.group_infos().await?.into_iter().find(|info| info.name == group);
        found.ok_or_else(|| self.no_group(group))
    }

    pub async fn groups(&self) -> Result<Vec<KeptGroup>, QueuesError> {
        Ok(self.group_infos().await?.into_iter().map(|info| self.kept_group(info)).collect())
    }

    pub async fn group(&self, group: &str) -> Result<KeptGroup, QueuesError> {
        Ok(self.kept_group(self.group_info(group).await?))
    }

    fn kept_group(&self, info: GroupInfo) -> KeptGroup {
        KeptGroup {
            queue: self.name.to_string(),
            backend: Backend::Redis,
            name: info.name,
            paused: info.is_paused,
            lag: info.lag,
            pending: info.pending,
            consumers: info.consumers,
            lost: None,
            expired: None,
            created_at_ms: None,
            last_activity_ms: None,
        }
    }

    pub async fn create_group(&self, group: &str, start: Start) -> Result<bool, QueuesError> {
        if !is_name(group) {
            let text = "a group has 1 to 128 of A-Z, a-z, 0-9, `.`, `_` and `-`";
            return Err(Self::invalid("name of the group", text));
        }
        let start = match start {
            Start::Earliest => RedisStart::Earliest,
            Start::Latest => RedisStart::Latest,
        };
        self.stream.create_group(group, start).await.map_err(|failure| self.failed(failure))
    }

    pub async fn delete_group(&self, group: &str) -> Result<(), QueuesError> {
        match self.stream.delete_group(group).await.map_err(|failure| self.failed(failure))? {
            true => Ok(()),
            false => Err(self.no_group(group)),
        }
    }

    pub async fn set_paused(&self, group: &str, is_paused: bool) -> Result<(), QueuesError> {
        self.group_info(group).await?;
        self.stream.set_paused(group, is_paused).await.map_err(|failure| self.failed(failure))
    }

    pub async fn reset(&self, group: &str, position: KeptPosition) -> Result<(), QueuesError> {
        let to = match position {
            KeptPosition::Earliest => GroupPosition::Earliest,
            KeptPosition::Latest => GroupPosition::Latest,
            KeptPosition::Place(place) => GroupPosition::Entry(Self::entry_id("position", place)?),
            KeptPosition::Time(millis) => GroupPosition::Entry(EntryId { millis, sequence: 0 }),
        };
        self.group_info(group).await?;
        self.stream.move_group(group, to).await.map_err(|failure| self.failed(failure))
    }

    /// The place of the last message the group was given.
    pub async fn reached(&self, group: &str) -> Result<Place, QueuesError> {
        Ok(Place::Entry(self.group_info(group).await?.last_id))
    }
}

fn batch(ids: impl Iterator<Item = String>, entries: Vec<EntryId>, repeated: bool) -> KeptBatch {
    let published = |(id, entry)| KeptPublished { id, place: Some(Place::Entry(entry)), deliver_at_ms: None };
    KeptBatch { published: ids.zip(entries).map(published).collect(), repeated }
}

fn listed(entry: &StoredEntry) -> KeptMessage {
    KeptMessage {
        id: entry.message.id.clone(),
        state: KeptState::Stored { place: Place::Entry(entry.id), published_at_ms: entry.id.millis },
        priority: None,
        key: entry.message.key.clone(),
        expires_at_ms: entry.message.expires_at_ms,
        size_bytes: entry.size_bytes,
    }
}

/// A pending entry that is in the stream no more: its consumer still has it.
fn removed(id: EntryId) -> KeptMessage {
    KeptMessage {
        id: id.to_string(),
        state: KeptState::Stored { place: Place::Entry(id), published_at_ms: id.millis },
        priority: None,
        key: None,
        expires_at_ms: None,
        size_bytes: 0,
    }
}

fn page_token() -> QueuesError {
    RedisQueue::invalid("after", "it is no page token; give the `next` of the page before, as it is")
}
