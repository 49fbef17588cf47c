//! The ingestion source: its inlet takes what was posted at its path, its settler answers the clients that wait.
//!
//! With `respond: accepted` what is posted goes into the spool and comes from the pipeline's inbox. The inlet then stays
//! silent, but for what a predecessor with `respond: delivered` at the same path did not take any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sluicegate_engine::delivery::{Received, Settled, Token};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::{Connection, Inlet, Settler, Source};
use tokio::sync::oneshot;

use super::body::Claim;
use super::config::SourceConfig;
use super::ingress::{Answer, Ingress, PathSettings, Queued, Registration};
use crate::registry::BuildContext;

/// HTTP ingestion as a source. "Connecting" is to take the path in the [`Ingress`].
pub struct HttpSource {
    ingress: Ingress,
    settings: Arc<PathSettings>,
    waiting: Arc<Waiting>,
}

impl HttpSource {
    /// Not yet connected.
    pub fn new(config: &SourceConfig, context: &BuildContext) -> Self {
        Self {
            ingress: context.ingress.clone(),
            settings: Arc::new(
                PathSettings::new(config, Arc::clone(&context.pipeline))
                    .with_spool(context.spool.clone(), context.ordered),
            ),
            waiting: Arc::default(),
        }
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let registration = self.ingress.register(Arc::clone(&self.settings));
        tracing::info!(path = &*self.settings.path, "HTTP ingestion listens");
        Ok(Connection {
            inlet: Box::new(HttpInlet { registration, waiting: Arc::clone(&self.waiting) }),
            settler: Box::new(HttpSettler { waiting: Arc::clone(&self.waiting) }),
            // Clients wait whatever becomes of the inlet.
            resumes: true,
            postpones: false,
        })
    }
}

/// The clients whose messages are in flight. Their number is limited by the pipeline's `max_in_flight`.
#[derive(Default)]
struct Waiting(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u128,
    clients: HashMap<u128, Client>,
}

struct Client {
    answer: oneshot::Sender<Answer>,
    _claim: Arc<Claim>,
}

impl Waiting {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct HttpInlet {
    registration: Registration,
    waiting: Arc<Waiting>,
}

#[async_trait]
impl Inlet for HttpInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        let mut queued = Vec::new();
        if self.registration.queued.recv_many(&mut queued, max.max(1)).await == 0 {
            // A successor has the path and with it all that is posted. Failing would make the driver connect anew and
            // take the path back; this source is to be drained instead.
            tracing::info!(path = self.registration.path(), "another pipeline listens at this path now");
            return std::future::pending().await;
        }
        let mut table = self.waiting.table();
        let received = queued
            .into_iter()
            .map(|Queued { message, answer, claim }| {
                let token = table.next;
                table.next += 1;
                table.clients.insert(token, Client { answer, _claim: claim });
                Received::new(message, Token(token))
            })
            .collect();
        Ok(received)
    }
}

struct HttpSettler {
    waiting: Arc<Waiting>,
}

#[async_trait]
impl Settler for HttpSettler {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        let mut table = self.waiting.table();
        for settled in batch {
            let Some(client) = table.clients.remove(&settled.token.0) else {
                tracing::debug!(message.id = %settled.message.id, "a message was settled twice; its client has its answer");
                continue;
            };
            if client.answer.send(Answer::Settled(settled.outcome.clone())).is_err() {
                tracing::debug!(message.id = %settled.message.id, "the client did not wait for the outcome");
            }
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Failure> {
        // Whoever still waits learns from the closed channel that the outcome is unknown.
        self.waiting.table().clients.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_engine::delivery::Outcome;
    use sluicegate_engine::message::Message;

    use super::super::ingress::Listening;
    use super::*;

    fn source(ingress: &Ingress) -> HttpSource {
        let config: SourceConfig = serde_json::from_value(serde_json::json!({ "path": "/a" })).unwrap();
        let context = BuildContext {
            pipeline: Arc::from("orders"),
            base_dir: ".".into(),
            data_dir: ".".into(),
            ingress: ingress.clone(),
            spool: None,
            ordered: false,
            queues: Default::default(),
        };
        HttpSource::new(&config, &context)
    }

    fn post(ingress: &Ingress, id: &str) -> oneshot::Receiver<Answer> {
        let Listening::Yes(live) = ingress.listening("/a") else { panic!("it listens") };
        let (answer, waiting) = oneshot::channel();
        let mut message = Message::new("s", "k", "body");
        message.id = id.to_owned();
        live.queue.try_send(Queued { message, answer, claim: Arc::new(ingress.claim()) }).expect("room");
        waiting
    }

    fn settled(received: Received, outcome: Outcome) -> Settled {
        Settled::new(received.token, Arc::new(received.message), outcome)
    }

    #[tokio::test]
    async fn each_client_gets_its_own_outcome_in_whatever_order() {
        let ingress = Ingress::default();
        let mut source = source(&ingress);
        let mut connection = source.connect().await.unwrap();
        let (first, second) = (post(&ingress, "1"), post(&ingress, "2"));
        assert_eq!(connection.inlet.receive(1).await.unwrap().len(), 1, "no more than asked for");
        let third = post(&ingress, "3");
        let mut received = connection.inlet.receive(10).await.unwrap();
        assert_eq!(received.iter().map(|r| r.message.id.as_str()).collect::<Vec<_>>(), ["2", "3"]);
        let last = received.pop().unwrap();
        connection.settler.settle(&[settled(last, Outcome::requeued("three"))]).await.unwrap();
        let Ok(Answer::Settled(outcome)) = third.await else { panic!("answered") };
        assert_eq!(outcome.undecided.as_deref(), Some("three"));
        drop(second);
        let gone = received.pop().unwrap();
        connection.settler.settle(&[settled(gone, Outcome::default())]).await.unwrap();
        connection.settler.close().await.unwrap();
        assert!(first.await.is_err(), "nobody settled it");
    }

    #[tokio::test]
    async fn a_message_taken_by_an_earlier_connection_settles_on_the_next() {
        let ingress = Ingress::default();
        let mut source = source(&ingress);
        let mut before = source.connect().await.unwrap();
        let waiting = post(&ingress, "1");
        let received = before.inlet.receive(1).await.unwrap().remove(0);
        drop(before);
        let mut after = source.connect().await.unwrap();
        assert!(after.resumes && !after.postpones);
        after.settler.settle(&[settled(received, Outcome::default())]).await.unwrap();
        assert!(matches!(waiting.await, Ok(Answer::Settled(_))));
    }
}
