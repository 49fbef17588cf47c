//! The ingress: which pipeline listens at which path, now. Sources come and go while requests arrive.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use std::future::Future;

use axum::Router;
use sluicegate_engine::delivery::Outcome;
use sluicegate_engine::message::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::body::{Budget, Claim};
use super::config::{Format, KeyFrom, Respond, SourceConfig};
use super::idempotency::KeysInProgress;
use super::receive;
use super::spool::{Backlog, Spool};

/// What the ingress takes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressLimits {
    /// Messages of one path that wait to be taken by their pipeline; a request that does not fit is answered 429. Never
    /// less than `max_batch_messages`.
    pub max_queued_messages: usize,
    /// Messages in one batch; more are answered 413.
    pub max_batch_messages: usize,
    /// A batch's body, decompressed, in bytes; more is answered 413.
    pub max_batch_bytes: usize,
    /// Bytes of all bodies together, from arrival to settlement; beyond it requests are answered 503.
    pub max_body_memory_bytes: usize,
    /// Headers of a request; more are answered 431.
    pub max_headers: usize,
    /// Bytes of all header names and values of a request; more are answered 431.
    pub max_header_bytes: usize,
    /// Requests with an `Idempotency-Key` in progress at the same time; one more is answered 503.
    pub max_keys_in_progress: usize,
    /// How long a request waits for a pipeline that is being replaced before it is answered 503.
    pub successor_wait: Duration,
    /// How long a path without a pipeline is answered 503 before it is forgotten and answered 404.
    pub forget_path_after: Duration,
}

impl Default for IngressLimits {
    fn default() -> Self {
        Self {
            max_queued_messages: 1_024,
            max_batch_messages: 1_000,
            max_batch_bytes: 4 << 20,
            max_body_memory_bytes: 256 << 20,
            max_headers: 100,
            max_header_bytes: 32 << 10,
            max_keys_in_progress: 16_384,
            successor_wait: Duration::from_secs(3),
            forget_path_after: Duration::from_secs(60),
        }
    }
}

/// How long a path without a pipeline is taken to be between two of them. Shorter than the grace of a server's shutdown,
/// so that who waits for an outcome is answered.
const DESERTED_AFTER: Duration = Duration::from_secs(1);

/// Where HTTP sources announce their paths. Cheap to clone; all clones are the same ingress.
#[derive(Clone)]
pub struct Ingress(Arc<Shared>);

struct Shared {
    limits: IngressLimits,
    budget: Budget,
    keys: KeysInProgress,
    /// Requests that are seen to their end without their clients.
    requests: TaskTracker,
    next_id: AtomicU64,
    paths: RwLock<HashMap<Arc<str>, Place>>,
}

/// A path: the pipeline that listens there now, if one does.
struct Place {
    live: watch::Sender<Option<Arc<Live>>>,
    /// The name of the last one.
    pipeline: Arc<str>,
    /// Since when none does.
    empty_since: Option<Instant>,
}

/// A pipeline that listens.
pub(super) struct Live {
    id: u64,
    pub(super) settings: Arc<PathSettings>,
    pub(super) queue: mpsc::Sender<Queued>,
}

/// A source's settings as requests need them.
pub(super) struct PathSettings {
    pub(super) path: Arc<str>,
    pub(super) format: Format,
    pub(super) kind: String,
    pub(super) key: Option<KeyFrom>,
    pub(super) timeout: Duration,
    pub(super) max_body_bytes: usize,
    /// Its name is the CloudEvents `source` of raw bodies.
    pub(super) pipeline: Arc<str>,
    pub(super) respond: Respond,
    pub(super) spool: Option<Arc<dyn Spool>>,
    pub(super) ordered: bool,
    pub(super) backlog: Backlog,
    pub(super) idempotency_ttl: Duration,
}

impl PathSettings {
    /// Without a spool.
    pub(super) fn new(config: &SourceConfig, pipeline: impl Into<Arc<str>>) -> Self {
        Self {
            path: Arc::from(config.path.as_str()),
            format: config.format,
            kind: config.kind.clone(),
            key: config.key.clone(),
            timeout: config.timeout.0,
            max_body_bytes: usize::try_from(config.max_body.0).unwrap_or(usize::MAX),
            pipeline: pipeline.into(),
            respond: config.respond,
            spool: None,
            ordered: false,
            backlog: Backlog { max_messages: config.max_backlog, max_bytes: config.max_backlog_bytes.0 },
            idempotency_ttl: config.idempotency_ttl.0,
        }
    }

    /// With a spool, if there is one; `ordered` is said to it.
    pub(super) fn with_spool(self, spool: Option<Arc<dyn Spool>>, ordered: bool) -> Self {
        Self { spool, ordered, ..self }
    }
}

/// A message on its way to its pipeline, with the client that waits for its outcome.
pub(super) struct Queued {
    pub(super) message: Message,
    pub(super) answer: oneshot::Sender<Answer>,
    /// The memory of the request's body, held until the last of its messages is settled.
    pub(super) claim: Arc<Claim>,
}

/// What a client that waits is told. It learns from a closed channel that its pipeline died over its message.
pub(super) enum Answer {
    /// How the message ended.
    Settled(Outcome),
    /// The pipeline stopped before it took the message: it may go to the successor.
    Returned(Message),
}

/// Whether a pipeline listens at a path.
pub(super) enum Listening {
    /// None, and none did lately.
    No,
    /// This one.
    Yes(Arc<Live>),
    /// None now, but one did a moment ago.
    Soon(watch::Receiver<Option<Arc<Live>>>),
}

impl Ingress {
    /// An ingress where nobody listens yet.
    pub fn new(limits: IngressLimits) -> Self {
        Self(Arc::new(Shared {
            budget: Budget::new(limits.max_body_memory_bytes),
            keys: KeysInProgress::new(limits.max_keys_in_progress),
            limits,
            requests: TaskTracker::new(),
            next_id: AtomicU64::new(0),
            paths: RwLock::default(),
        }))
    }

    /// Answers every path no other route of the server has: `POST` at the registered ones, problem documents elsewhere.
    /// It is a fallback, so merge it into a router that has none.
    pub fn router(&self) -> Router {
        Router::new().fallback(receive::answer_request).with_state(self.clone())
    }

    /// The limits.
    pub fn limits(&self) -> &IngressLimits {
        &self.0.limits
    }

    /// Waits until no request is in progress whose client may have gone: before that, answers of idempotency keys are
    /// still to be recorded. To be called once the pipelines and the server have stopped and before the store does. Cancel
    /// safe.
    pub async fn finished(&self) {
        self.0.requests.close();
        self.0.requests.wait().await;
    }

    /// Sees a request to its end even if its client goes away. Their number is limited, as each has a key in progress.
    pub(super) fn spawn<T: Send + 'static>(&self, request: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.requests.spawn(request)
    }

    /// The idempotency keys in progress.
    pub(super) fn keys(&self) -> &KeysInProgress {
        &self.0.keys
    }

    /// A claim on the memory for bodies.
    pub(super) fn claim(&self) -> Claim {
        self.0.budget.claim()
    }

    /// Makes a pipeline the one that listens at its path, in place of any other from this moment on.
    pub(super) fn register(&self, settings: Arc<PathSettings>) -> Registration {
        let limits = &self.0.limits;
        let (queue, queued) = mpsc::channel(limits.max_queued_messages.max(limits.max_batch_messages).max(1));
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let (path, pipeline) = (Arc::clone(&settings.path), Arc::clone(&settings.pipeline));
        let live = Arc::new(Live { id, settings, queue });
        let mut paths = self.0.paths.write().unwrap_or_else(PoisonError::into_inner);
        paths.retain(|_, place| !place.is_forgotten(limits));
        match paths.get_mut(&path) {
            Some(place) => {
                place.empty_since = None;
                place.pipeline = pipeline;
                place.live.send_replace(Some(live));
            }
            None => {
                let live = watch::Sender::new(Some(live));
                paths.insert(Arc::clone(&path), Place { live, pipeline, empty_since: None });
            }
        }
        Registration { ingress: self.clone(), path, id, queued }
    }

    /// The name of the pipeline that listens at `path`, now or a moment ago.
    pub fn pipeline_at(&self, path: &str) -> Option<Arc<str>> {
        let paths = self.0.paths.read().unwrap_or_else(PoisonError::into_inner);
        let place = paths.get(path).filter(|place| !place.is_forgotten(&self.0.limits))?;
        Some(Arc::clone(&place.pipeline))
    }

    /// Who listens at `path`.
    pub(super) fn listening(&self, path: &str) -> Listening {
        let paths = self.0.paths.read().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = paths.get(path) else { return Listening::No };
        if place.is_forgotten(&self.0.limits) {
            return Listening::No;
        }
        let live = place.live.borrow().clone();
        live.map_or_else(|| Listening::Soon(place.live.subscribe()), Listening::Yes)
    }

    /// Waits until no pipeline has listened at `path` for [`DESERTED_AFTER`]: it was stopped, not replaced. Cancel safe.
    pub(super) async fn deserted(&self, path: &str) {
        let live = {
            let paths = self.0.paths.read().unwrap_or_else(PoisonError::into_inner);
            paths.get(path).map(|place| place.live.subscribe())
        };
        let Some(mut live) = live else { return };
        loop {
            if live.wait_for(Option::is_none).await.is_err() {
                return;
            }
            let replaced = matches!(timeout(DESERTED_AFTER, live.wait_for(Option::is_some)).await, Ok(Ok(_)));
            if !replaced {
                return;
            }
        }
    }

    fn unregister(&self, path: &str, id: u64) {
        let mut paths = self.0.paths.write().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = paths.get_mut(path) else { return };
        // A successor that has taken the place already keeps it.
        let was_ours = place.live.send_if_modified(|live| {
            let ours = live.as_ref().is_some_and(|live| live.id == id);
            if ours {
                *live = None;
            }
            ours
        });
        if was_ours {
            place.empty_since = Some(Instant::now());
        }
    }
}

impl Place {
    fn is_forgotten(&self, limits: &IngressLimits) -> bool {
        self.empty_since.is_some_and(|since| since.elapsed() >= limits.forget_path_after)
    }
}

impl Default for Ingress {
    fn default() -> Self {
        Self::new(IngressLimits::default())
    }
}

impl fmt::Debug for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.0.paths.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Ingress").field("paths", &paths.keys()).field("limits", &self.0.limits).finish()
    }
}

/// A pipeline's place at its path, and what is posted there. Dropping it frees the place and hands back what was not
/// taken, for the successor.
pub(super) struct Registration {
    ingress: Ingress,
    path: Arc<str>,
    id: u64,
    pub(super) queued: mpsc::Receiver<Queued>,
}

impl Registration {
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The place first: a request that finds the queue closed must not find the same queue again.
        self.ingress.unregister(&self.path, self.id);
        self.queued.close();
        while let Ok(Queued { message, answer, claim }) = self.queued.try_recv() {
            if answer.send(Answer::Returned(message)).is_err() {
                tracing::debug!(path = &*self.path, "a client went away while its message waited; it was not accepted");
            }
            drop(claim);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(path: &str) -> Arc<PathSettings> {
        let config: SourceConfig = serde_json::from_value(serde_json::json!({ "path": path })).unwrap();
        Arc::new(PathSettings::new(&config, "orders"))
    }

    fn id(ingress: &Ingress, path: &str) -> Option<u64> {
        match ingress.listening(path) {
            Listening::Yes(live) => Some(live.id),
            Listening::No | Listening::Soon(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_is_replaced_then_empty_then_forgotten() {
        let ingress = Ingress::default();
        assert!(matches!(ingress.listening("/a"), Listening::No));
        let first = ingress.register(settings("/a"));
        assert_eq!(id(&ingress, "/a"), Some(first.id));
        let second = ingress.register(settings("/a"));
        assert_eq!(id(&ingress, "/a"), Some(second.id));
        drop(first);
        assert_eq!(id(&ingress, "/a"), Some(second.id), "the older one's end leaves the newer one alone");
        drop(second);
        assert!(matches!(ingress.listening("/a"), Listening::Soon(_)));
        tokio::time::advance(ingress.limits().forget_path_after).await;
        assert!(matches!(ingress.listening("/a"), Listening::No));
        let third = ingress.register(settings("/a"));
        assert_eq!(id(&ingress, "/a"), Some(third.id));
    }

    #[tokio::test]
    async fn what_was_not_taken_is_handed_back() {
        let ingress = Ingress::default();
        let registration = ingress.register(settings("/a"));
        let Listening::Yes(live) = ingress.listening("/a") else { panic!("it listens") };
        let (answer, waiting) = oneshot::channel();
        let message = Message::new("s", "k", "body");
        let claim = Arc::new(ingress.claim());
        live.queue.try_send(Queued { message: message.clone(), answer, claim }).expect("there is room");
        drop(registration);
        let Ok(Answer::Returned(returned)) = waiting.await else { panic!("handed back") };
        assert_eq!(returned, message);
        assert!(live.queue.is_closed());
    }
}
