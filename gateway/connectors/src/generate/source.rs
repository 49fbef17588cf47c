//! The source: made-up messages.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluicegate_engine::delivery::{Received, Settled, Token};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;
use sluicegate_engine::source::{Connection, Inlet, Settler, Source};

use super::config::SourceConfig;
use super::pace::Pace;
use super::template::Template;
use crate::redelivery::Redelivery;
use crate::registry::BuildContext;

/// Makes up messages at a steady rate: one that is late does not delay those after it. Requeued ones are delivered
/// again; the end of input, if there is one, is told when nothing is in flight any more.
pub struct GenerateSource {
    recipe: Result<Arc<Recipe>, String>,
    rate: f64,
    /// Since the first connection.
    pace: Option<Pace>,
    progress: Arc<Progress>,
}

/// How a message is made.
#[derive(Debug)]
struct Recipe {
    source: String,
    kind: String,
    body: BodyRecipe,
    key: Option<Template>,
    headers: Vec<(String, Template)>,
    count: u64,
}

#[derive(Debug)]
enum BodyRecipe {
    Template(Template),
    SizeBytes(usize),
}

/// Kept from one connection to the next.
#[derive(Debug, Default)]
struct Progress {
    made: std::sync::atomic::AtomicU64,
    redelivery: Redelivery,
}

impl GenerateSource {
    /// Not yet connected.
    pub fn new(config: &SourceConfig, context: &BuildContext) -> Self {
        let recipe = Recipe::new(config, context).map(Arc::new);
        Self { recipe, rate: config.rate, pace: None, progress: Arc::default() }
    }
}

#[async_trait]
impl Source for GenerateSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let recipe = self.recipe.clone().map_err(|text| {
            Failure::permanent(format!("making up messages: {text}; correct the settings of `generate`"))
        })?;
        let pace = *self.pace.get_or_insert_with(|| Pace::new(self.rate));
        let inlet = GenerateInlet { recipe, pace, progress: Arc::clone(&self.progress) };
        let settler = GenerateSettler { progress: Arc::clone(&self.progress) };
        Ok(Connection { inlet: Box::new(inlet), settler: Box::new(settler), resumes: true, postpones: false })
    }
}

impl Recipe {
    fn new(config: &SourceConfig, context: &BuildContext) -> Result<Self, String> {
        let body = match (&config.body, config.size) {
            (Some(body), _) => BodyRecipe::Template(Template::json(body)?),
            (None, Some(size)) => BodyRecipe::SizeBytes(size.0 as usize),
            (None, None) => BodyRecipe::Template(Template::text(r#"{"n":{{n}}}"#)?),
        };
        let headers = config.headers.iter().map(|(name, value)| Ok((name.clone(), Template::text(value)?)));
        Ok(Self {
            source: format!("generate:{}", context.pipeline),
            kind: config.kind.clone(),
            body,
            key: config.key.as_deref().map(Template::text).transpose()?,
            headers: headers.collect::<Result<_, String>>()?,
            count: config.count.unwrap_or(u64::MAX),
        })
    }

    fn make(&self, n: u64) -> Message {
        let body = match &self.body {
            BodyRecipe::Template(template) => template.fill(n),
            BodyRecipe::SizeBytes(size_bytes) => Template::of_size(n, *size_bytes),
        };
        let mut message = Message::new(self.source.clone(), self.kind.clone(), body);
        message.content_type = Some("application/json".to_owned());
        message.key = self.key.as_ref().map(|key| Bytes::from(key.fill(n)));
        for (name, value) in &self.headers {
            message.headers.append(name.clone(), value.fill(n));
        }
        message
    }
}

struct GenerateInlet {
    recipe: Arc<Recipe>,
    pace: Pace,
    progress: Arc<Progress>,
}

impl GenerateInlet {
    /// Makes those that are due, at most `max`.
    fn make(&self, max: usize) -> Vec<Received> {
        use std::sync::atomic::Ordering::Relaxed;
        // Only the inlet writes the number, and there is one inlet at a time.
        let made = self.progress.made.load(Relaxed);
        let last = self.pace.due().min(self.recipe.count).min(made.saturating_add(max as u64));
        let received: Vec<Received> =
            (made + 1..=last).map(|n| Received::new(self.recipe.make(n), Token(u128::from(n)))).collect();
        self.progress.made.store(last.max(made), Relaxed);
        self.progress.redelivery.handed_over(received.len());
        received
    }
}

#[async_trait]
impl Inlet for GenerateInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        // Making messages never waits by itself, so that other tasks get their turn here.
        tokio::task::yield_now().await;
        loop {
            let redelivery = &self.progress.redelivery;
            let again = redelivery.take(max);
            if !again.is_empty() {
                return Ok(again);
            }
            let made = self.progress.made.load(std::sync::atomic::Ordering::Relaxed);
            if made < self.recipe.count {
                let received = self.make(max);
                if !received.is_empty() {
                    return Ok(received);
                }
                tokio::select! {
                    () = redelivery.changed() => {}
                    () = self.pace.wait_for(made + 1) => {}
                }
            } else if redelivery.is_idle() {
                return Err(Failure::end_of_input());
            } else {
                redelivery.changed().await;
            }
        }
    }
}

struct GenerateSettler {
    progress: Arc<Progress>,
}

#[async_trait]
impl Settler for GenerateSettler {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        self.progress.redelivery.settle(batch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use sluicegate_engine::delivery::Outcome;
    use sluicegate_engine::failure::FailureKind;
    use tokio::time::Instant;

    use super::*;
    use crate::http::Ingress;

    fn source(settings: Value) -> GenerateSource {
        let context = BuildContext {
            pipeline: "trial".into(),
            base_dir: "/".into(),
            data_dir: "/".into(),
            ingress: Ingress::default(),
            spool: None,
            ordered: false,
            queues: Default::default(),
        };
        GenerateSource::new(&serde_json::from_value(settings).expect("settings"), &context)
    }

    async fn settle(connection: &mut Connection, received: Vec<Received>, outcome: Outcome) {
        let batch: Vec<Settled> =
            received.into_iter().map(|r| Settled::new(r.token, Arc::new(r.message), outcome.clone())).collect();
        connection.settler.settle(&batch).await.expect("settled");
    }

    #[tokio::test]
    async fn messages_follow_the_templates_until_the_count_is_reached() {
        let settings = json!({
            "count": 3, "kind": "order.created", "key": "k{{n % 2}}", "headers": { "n": "{{n}}" },
            "body": { "id": "o-{{n}}", "n": "{{n}}" },
        });
        let mut connection = source(settings).connect().await.expect("connected");
        let mut all = connection.inlet.receive(2).await.expect("messages");
        all.extend(connection.inlet.receive(2).await.expect("messages"));
        let third = &all[2].message;
        assert_eq!(all.len(), 3);
        assert_eq!(third.body.bytes(), &br#"{"id":"o-3","n":3}"#[..]);
        assert_eq!((third.key.as_deref(), third.headers.text("n")), (Some(&b"k1"[..]), Some("3")));
        assert_eq!((&*third.kind, &*third.source), ("order.created", "generate:trial"));
        settle(&mut connection, all, Outcome::default()).await;
        let end = connection.inlet.receive(2).await.expect_err("the end");
        assert_eq!(end.kind, FailureKind::EndOfInput);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept() {
        let mut connection = source(json!({ "rate": 100, "count": 500 })).connect().await.expect("connected");
        let (start, mut count) = (Instant::now(), 0);
        while count < 500 {
            let received = connection.inlet.receive(256).await.expect("messages");
            count += received.len();
            settle(&mut connection, received, Outcome::default()).await;
        }
        assert!((Duration::from_millis(4_990)..Duration::from_millis(5_000)).contains(&start.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn requeued_messages_come_again_before_the_end() {
        let mut connection = source(json!({ "count": 1, "size": "1KiB" })).connect().await.expect("connected");
        let received = connection.inlet.receive(9).await.expect("a message");
        assert_eq!(received[0].message.body.len(), 1_024);
        settle(&mut connection, received, Outcome::requeued("no room")).await;
        let again = connection.inlet.receive(9).await.expect("again");
        assert_eq!((again.len(), again[0].message.attempt), (1, 2));
    }

    #[tokio::test]
    async fn settings_that_cannot_be_used_fail_for_good() {
        let failure = source(json!({ "key": "{{m}}" })).connect().await.err().expect("a failure");
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(failure.text.contains("{{m}}"));
    }
}
