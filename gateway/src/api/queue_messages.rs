//! `/api/v1/mq/queues/{name}/messages`: what a queue holds, and how far groups are with it.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_store::queue::{Progress, QueueError};

use super::message_form::{ShownListed, shown};
use super::queues::page_items;
use super::{Answer, Api, ApiCode, ApiError, Query, Segments};
use crate::queues::{KeptMessage, KeptPending, KeptState, Page, QueuesError, WhichKept};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/mq/queues/{name}/messages", get(list))
        .route("/mq/queues/{name}/messages/{id}", get(show).delete(remove))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default)]
    state: ListedState,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ListedState {
    /// All that have their place, settled or not.
    #[default]
    Ready,
    Scheduled,
    /// Given to a group and not settled.
    Claimed,
}

async fn list(
    State(api): State<Api>,
    Segments(queue): Segments<String>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Value>, ApiError> {
    let (limit, after) = (page_items(query.limit)?, query.after.as_deref());
    let page = match query.state {
        ListedState::Ready => listed(&api.queues.messages(&queue, limit, after).await?),
        ListedState::Scheduled => listed(&api.queues.scheduled(&queue, limit, after).await?),
        ListedState::Claimed => {
            let page = api.queues.pending(&queue, limit, after).await?;
            let claimed = |pending: &KeptPending| {
                let mut shown = json!(ShownListed::from(&pending.message));
                merge(&mut shown, progress(pending.progress));
                shown["group"] = json!(pending.group);
                shown
            };
            json!({ "messages": page.items.iter().map(claimed).collect::<Vec<_>>(), "next": page.next })
        }
    };
    Ok(Answer(page))
}

fn listed(page: &Page<KeptMessage>) -> Value {
    json!({ "messages": page.items.iter().map(ShownListed::from).collect::<Vec<_>>(), "next": page.next })
}

fn merge(shown: &mut Value, more: Value) {
    if let (Value::Object(members), Value::Object(more)) = (shown, more) {
        members.extend(more);
    }
}

/// Which message, and whether to remove it whatever groups do with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageQuery {
    #[serde(default)]
    by: By,
    #[serde(default)]
    force: bool,
}

/// What the URL's last segment is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    Id,
    Offset,
}

impl By {
    fn which(self, text: &str) -> Result<WhichKept<'_>, ApiError> {
        match self {
            Self::Id => Ok(WhichKept::Id(text)),
            Self::Offset => text.parse().map(WhichKept::Place).map_err(|()| {
                let text = format!("`{text}` is no offset, which is a number from 1 (in Redis: the id of an entry)");
                ApiError::new(ApiCode::InvalidRequest, text)
            }),
        }
    }
}

async fn show(
    State(api): State<Api>,
    Segments((queue, id)): Segments<(String, String)>,
    Query(query): Query<MessageQuery>,
) -> Result<Answer<Value>, ApiError> {
    if query.force {
        return Err(ApiError::new(ApiCode::InvalidRequest, "`force` is for DELETE"));
    }
    let which = query.by.which(&id)?;
    let (listed, message) = api.queues.message(&queue, which).await?;
    let mut document = shown(&listed, &message);
    document["groups"] = groups(&api, &queue, which).await?;
    Ok(Answer(document))
}

async fn groups(api: &Api, queue: &str, which: WhichKept<'_>) -> Result<Value, ApiError> {
    let groups = api.queues.progress(queue, which).await?;
    let group = |(name, at): (String, Progress)| {
        let mut shown = json!({ "group": name });
        merge(&mut shown, progress(at));
        shown
    };
    Ok(groups.into_iter().map(group).collect())
}

fn progress(progress: Progress) -> Value {
    match progress {
        Progress::Waiting => json!({ "state": "waiting" }),
        Progress::Claimed { attempt } => json!({ "state": "claimed", "attempt": attempt }),
        Progress::Retrying { attempt, not_before_ms } => {
            json!({ "state": "retrying", "attempt": attempt, "notBefore": print_time(not_before_ms) })
        }
        Progress::Done => json!({ "state": "done" }),
    }
}

/// Takes a message back as long as no group has claimed it; with `force` removes it anyway.
async fn remove(
    State(api): State<Api>,
    Segments((queue, id)): Segments<(String, String)>,
    Query(query): Query<MessageQuery>,
) -> Result<Answer<Value>, ApiError> {
    let which = query.by.which(&id)?;
    match (query.force, which) {
        (true, which) => api.queues.delete_message(&queue, which).await?,
        (false, WhichKept::Id(id)) => api.queues.cancel(&queue, id).await.map_err(uncancelled)?,
        (false, WhichKept::Place(_)) => {
            return Err(ApiError::new(
                ApiCode::InvalidRequest,
                "a message is cancelled by its id; to remove the one at an offset, read or not, add `force=true`",
            ));
        }
    }
    Ok(Answer(json!({ "queue": queue, "removed": id })))
}

fn uncancelled(error: QueuesError) -> ApiError {
    let claimed = matches!(error, QueuesError::Queue(QueueError::Claimed { .. }));
    let error = ApiError::from(error);
    if claimed { error.with_hint("`?force=true` removes it from the queue all the same") } else { error }
}

/// `GET /api/v1/mq/queues/{name}/tasks/{id}`: how far a task is.
pub(super) async fn task(
    State(api): State<Api>,
    Segments((queue, id)): Segments<(String, String)>,
) -> Result<Answer<Value>, ApiError> {
    let (listed, _) = api.queues.message(&queue, WhichKept::Id(&id)).await?;
    let groups = api.queues.progress(&queue, WhichKept::Id(&id)).await?;
    let state = match listed.state {
        KeptState::Scheduled { .. } => "scheduled",
        KeptState::Stored { .. } => overall(groups.iter().map(|(_, progress)| *progress)),
    };
    let mut shown = json!({ "taskId": id, "queue": queue, "state": state });
    merge(&mut shown, json!({ "message": ShownListed::from(&listed) }));
    let group = |(name, at): &(String, Progress)| {
        let mut shown = json!({ "group": name });
        merge(&mut shown, progress(*at));
        shown
    };
    shown["groups"] = groups.iter().map(group).collect();
    Ok(Answer(shown))
}

/// Done when every group is; running when one has begun.
fn overall(groups: impl Iterator<Item = Progress>) -> &'static str {
    let (mut any, mut done, mut begun, mut retrying) = (false, true, false, false);
    for progress in groups {
        any = true;
        match progress {
            Progress::Waiting => done = false,
            Progress::Claimed { .. } => (done, begun) = (false, true),
            Progress::Retrying { .. } => (done, retrying) = (false, true),
            Progress::Done => {}
        }
    }
    match (any && done, begun, retrying) {
        (true, _, _) => "done",
        (false, true, _) => "running",
        (false, false, true) => "retrying",
        (false, false, false) => "queued",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_done_once_every_group_is() {
        let retrying = Progress::Retrying { attempt: 1, not_before_ms: 0 };
        for (groups, expected) in [
            (&[][..], "queued"),
            (&[Progress::Waiting, Progress::Done], "queued"),
            (&[Progress::Done, Progress::Done], "done"),
            (&[Progress::Claimed { attempt: 1 }, Progress::Done, retrying], "running"),
            (&[retrying, Progress::Waiting], "retrying"),
        ] {
            assert_eq!(overall(groups.iter().copied()), expected, "{groups:?}");
        }
    }
}
