//! A lane: one pipeline from one source to one kind of target, with an oracle of its own.

use std::fmt::Write;
use std::sync::Arc;

use sluicegate_tests::unique;

use crate::hook::{Hook, Manners};
use crate::oracle::{Oracle, Terms};

/// Where a lane's messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    HttpAccepted,
    HttpDelivered,
    RabbitMq,
    Redis,
    Queue,
    File,
}

/// Where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Http,
    RabbitMq,
    Redis,
    Queue,
    File,
}

/// All sources, in the order in which short runs take turns.
pub const SOURCES: [Source; 6] =
    [Source::HttpAccepted, Source::HttpDelivered, Source::RabbitMq, Source::Redis, Source::Queue, Source::File];
/// All targets.
pub const TARGETS: [Target; 5] = [Target::Http, Target::RabbitMq, Target::Redis, Target::Queue, Target::File];

/// What the systems of a run are called by: the gateway by one URL, perhaps through a proxy, the test by another.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pub rabbitmq: String,
    pub redis: String,
    pub rabbitmq_for_gateway: String,
    pub redis_for_gateway: String,
}

#[derive(Debug)]
pub struct Lane {
    pub from: Source,
    pub to: Target,
    pub oracle: Arc<Oracle>,
    pub addresses: Addresses,
    /// Queue, stream, file or path on the source's side.
    pub input: String,
    /// Queue, stream or file on the target's side.
    pub output: String,
    /// Endpoints of the webhook, one a target, where messages come out of HTTP or a queue.
    hooks: Vec<String>,
    pub manners: Vec<Arc<Manners>>,
}

impl Lane {
    pub fn new(from: Source, to: Target, mut terms: Terms, addresses: &Addresses, hook: &Hook) -> Self {
        terms.sealed = from != Source::File;
        let oracle = Arc::new(Oracle::new(terms));
        let (mut hooks, mut manners) = (Vec::new(), Vec::new());
        if matches!(to, Target::Http | Target::Queue) {
            for target in 0..terms.targets {
                let (url, manner) = hook.open(Arc::clone(&oracle), target);
                hooks.push(url);
                manners.push(manner);
            }
        }
        let name = |end: &str| unique(&format!("fault-{end}"));
        Self { from, to, oracle, addresses: addresses.clone(), input: name("in"), output: name("out"), hooks, manners }
    }

    pub fn name(&self) -> String {
        format!("{:?} -> {:?}", self.from, self.to)
    }

    fn number(&self) -> usize {
        self.oracle.terms().lane
    }

    /// The path at which HTTP sources take messages.
    pub fn path(&self) -> String {
        format!("/ingest/lane-{}", self.number())
    }

    /// The lane's pipeline and, where its target is a queue, the one that empties it.
    pub fn pipelines(&self, max_in_flight: u32) -> String {
        let (number, terms) = (self.number(), self.oracle.terms());
        let mut text = format!("  lane-{number}:\n    source: {{ {} }}\n", self.source());
        if terms.poison_every > 0 {
            text.push_str("    steps: [{ validate: { schema: sound } }]\n");
        }
        text.push_str("    targets:\n");
        for (target, settings) in self.targets().iter().enumerate() {
            writeln!(text, "      t{target}: {{ {settings} }}").expect("a string takes all");
        }
        self.finish(&mut text, max_in_flight);
        if self.to == Target::Queue {
            write!(
                text,
                "  out-{number}:\n    source: {{ queue: {} }}\n    targets: {{ hook: {{ http: {{ url: '{}', timeout: 5s }} }} }}\n",
                self.output, self.hooks[0]
            )
            .expect("a string takes all");
            self.finish(&mut text, max_in_flight);
        }
        text
    }

    fn finish(&self, text: &mut String, max_in_flight: u32) {
        let order = if self.oracle.terms().ordered { "    order_by: key\n" } else { "" };
        write!(
            text,
            "{order}    max_in_flight: {max_in_flight}\n    retry: {{ initial_delay: 100ms, max_delay: 1s, max_attempts: 1000 }}\n"
        )
        .expect("a string takes all");
    }

    /// The lane's lines in the section `queues`.
    pub fn queues(&self) -> String {
        let kind = if self.oracle.terms().ordered { "ordered" } else { "normal" };
        let mut text = String::new();
        for queue in self.own_queues() {
            writeln!(text, "  {queue}: {{ kind: {kind} }}").expect("a string takes all");
        }
        text
    }

    /// The gateway's own queues of this lane.
    pub fn own_queues(&self) -> Vec<&str> {
        let input = (self.from == Source::Queue).then_some(self.input.as_str());
        input.into_iter().chain((self.to == Target::Queue).then_some(self.output.as_str())).collect()
    }

    fn source(&self) -> String {
        let Addresses { rabbitmq_for_gateway: rabbitmq, redis_for_gateway: redis, .. } = &self.addresses;
        let (input, path) = (&self.input, self.path());
        match self.from {
            Source::HttpAccepted => format!("http: {{ path: {path}, respond: accepted }}"),
            Source::HttpDelivered => format!("http: {{ path: {path}, timeout: 8s }}"),
            Source::RabbitMq => format!("rabbitmq: {{ url: '{rabbitmq}', queue: {input}, heartbeat: 2s }}"),
            // In order, what an earlier process left is read before what is new only under its own name.
            Source::Redis if self.oracle.terms().ordered => format!(
                "redis: {{ url: '{redis}', stream: {input}, consumer: fault, claim_after: 2s, block: 500ms, timeout: 3s }}"
            ),
            Source::Redis => {
                format!("redis: {{ url: '{redis}', stream: {input}, claim_after: 2s, block: 500ms, timeout: 3s }}")
            }
            Source::Queue => format!("queue: {input}"),
            Source::File => format!("file: {{ path: {input}, follow: true, poll: 50ms }}"),
        }
    }

    fn targets(&self) -> Vec<String> {
        let Addresses { rabbitmq_for_gateway: rabbitmq, redis_for_gateway: redis, .. } = &self.addresses;
        let output = &self.output;
        match self.to {
            Target::Http => self.hooks.iter().map(|url| format!("http: {{ url: '{url}', timeout: 2s }}")).collect(),
            Target::RabbitMq => {
                vec![format!("rabbitmq: {{ url: '{rabbitmq}', queue: {output}, heartbeat: 2s, publish_timeout: 5s }}")]
            }
            Target::Redis => vec![format!("redis: {{ url: '{redis}', stream: {output}, timeout: 3s }}")],
            Target::Queue => vec![format!("queue: {output}")],
            Target::File => vec![format!("file: {{ path: {output} }}")],
        }
    }
}
