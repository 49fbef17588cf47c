//! What shows in the settings without a broker: mistakes, risks, and what they promise.

use super::checks::{
    check_bindings, check_connection, check_exchange, check_header, check_name, check_queue_options, check_timeout,
    check_ttl, fleeting, problem,
};
use super::config::{DeadLetterConfig, RetryConfig, SourceConfig, TargetConfig};
use super::declaration::{BindingConfig, Declare, ExchangeConfig};
use super::routing_key::RoutingKey;
use crate::registry::{Problem, Promise};

/// Most workers of a source; brokers allow 2,047 channels a connection by default.
const MAX_CONCURRENCY: u16 = 1_024;
/// Above this many unsettled messages a source holds more than a gateway should have to redeliver after a crash.
const MANY_UNSETTLED: u32 = 10_000;
/// Longest queue name that leaves room for the endings of delay queues, such as `.delay.quorum.4000000000ms`.
const MAX_QUEUE_NAME_BYTES: usize = 229;

impl SourceConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        check_connection(&mut found, Some(&self.url), self.tls.as_deref(), self.heartbeat, self.connection_timeout);
        check_name(&mut found, "/queue", &self.queue, MAX_QUEUE_NAME_BYTES);
        check_queue_options(&mut found, &self.queue_options, self.message_ttl);
        if let Some(exchange) = &self.exchange {
            check_exchange(&mut found, exchange);
        }
        if self.prefetch == 0 {
            found.push(problem("/prefetch", "0 would mean without limit", "give 1 to 65535 messages"));
        }
        if !(1..=MAX_CONCURRENCY).contains(&self.concurrency) {
            let text = format!("{} workers, between 1 and {MAX_CONCURRENCY} are possible", self.concurrency);
            found.push(problem("/concurrency", text, "each worker is a channel and a consumer"));
        }
        check_ttl(&mut found, self.message_ttl);
        check_bindings(&mut found, self);
        check_header(&mut found, "/retry/header", &self.retry.header);
        if let Some(prefix) = &self.retry.queue_prefix {
            check_name(&mut found, "/retry/queue_prefix", prefix, MAX_QUEUE_NAME_BYTES);
        }
        found
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        let mut warnings = Vec::new();
        let owned = self.declare == Declare::Create;
        let fleeting = owned.then(|| fleeting(&self.queue_options)).flatten();
        if let Some((pointer, why)) = fleeting {
            warnings.push(problem(pointer, why, "leave the queue durable, neither exclusive nor auto_delete"));
        }
        let unsettled = u32::from(self.prefetch) * u32::from(self.concurrency);
        if unsettled > MANY_UNSETTLED {
            let text =
                format!("prefetch times concurrency is {unsettled}: that many messages are redelivered after a crash");
            warnings.push(problem("/prefetch", text, "a worker needs no more than what it settles in a second"));
        }
        if let Some(exchange) = &self.exchange
            && exchange.properties.as_ref().is_some_and(|properties| !properties.durable)
        {
            let text = "the exchange does not survive a restart of the broker: what is published before the gateway is back is \
                        lost to its publisher";
            warnings.push(problem("/exchange/durable", text, "leave it durable"));
        }
        if self.declare == Declare::Never && !self.bindings.is_empty() {
            warnings.push(problem("/bindings", "they are not made, since `declare` is false", "remove one of the two"));
        }
        let because = match fleeting {
            None => "the broker keeps a message until it is acknowledged, and delivers it again after a crash",
            Some(_) => "the queue and its messages can vanish with the broker's or the gateway's restart",
        };
        Promise { at_least_once: fleeting.is_none(), because: because.to_owned(), warnings }
    }

    /// The bindings to make: as written, or the only sensible one of a fanout exchange.
    pub(super) fn effective_bindings(&self) -> Vec<BindingConfig> {
        let fanout = self.exchange.as_ref().and_then(|e| e.properties.as_ref()).is_some_and(|p| p.kind == "fanout");
        if self.bindings.is_empty() && fanout { vec![BindingConfig::default()] } else { self.bindings.clone() }
    }

    /// Start of the delay queues' names.
    pub(super) fn delay_prefix(&self) -> String {
        let RetryConfig { queue_prefix, .. } = &self.retry;
        queue_prefix.clone().unwrap_or_else(|| format!("{}.delay", self.queue))
    }
}

impl TargetConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        check_connection(&mut found, Some(&self.url), self.tls.as_deref(), self.heartbeat, self.connection_timeout);
        match (&self.exchange, &self.queue) {
            (Some(exchange), None) => check_exchange(&mut found, exchange),
            (None, Some(queue)) => {
                check_name(&mut found, "/queue", queue, 255);
                check_queue_options(&mut found, &self.queue_options, None);
                if self.routing_key.is_some() {
                    found.push(problem("/routing_key", "a queue is published to by its name alone", "remove it"));
                }
            }
            (None, None) => found.push(problem("", "neither `exchange` nor `queue` is given", "give one of them")),
            (Some(_), Some(_)) => {
                found.push(problem("/queue", "both `exchange` and `queue` are given", "remove one of them"));
            }
        }
        if let Err(why) = self.routing_key_template() {
            found.push(problem("/routing_key", why, "for example orders.{kind}"));
        }
        check_ttl(&mut found, self.message_ttl);
        check_timeout(&mut found, "/publish_timeout", self.publish_timeout);
        found
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        let mut warnings = Vec::new();
        let mut safe = true;
        if !self.mandatory {
            safe = false;
            warnings.push(problem("/mandatory", "messages that no queue takes vanish", "leave it true"));
        }
        if !self.persistent {
            safe = false;
            warnings.push(problem("/persistent", "messages do not survive a restart of the broker", "leave it true"));
        }
        if self.queue.is_some()
            && self.declare == Declare::Create
            && let Some((pointer, why)) = fleeting(&self.queue_options)
        {
            safe = false;
            warnings.push(problem(pointer, why, "leave the queue durable, neither exclusive nor auto_delete"));
        }
        if self.mandatory && self.kind() == Some("x-delayed-message") {
            let text = "the delayed-message plugin returns every delayed message as unroutable";
            warnings.push(problem("/mandatory", text, "set `mandatory: false` for this exchange"));
        }
        let because = if safe {
            "the broker confirms each message once its queues have it, durable queues on disk"
        } else {
            "the broker confirms messages that it may drop"
        };
        Promise { at_least_once: safe, because: because.to_owned(), warnings }
    }

    /// The routing key: as written, the queue's name, or the message's kind.
    pub(super) fn routing_key_template(&self) -> Result<RoutingKey, String> {
        match (&self.routing_key, &self.queue) {
            (Some(template), _) => RoutingKey::parse(template),
            (None, Some(queue)) => Ok(RoutingKey::verbatim(queue)),
            (None, None) => RoutingKey::parse("{kind}"),
        }
    }

    fn kind(&self) -> Option<&str> {
        Some(self.exchange.as_ref()?.properties.as_ref()?.kind.as_str())
    }
}

impl DeadLetterConfig {
    /// All mistakes that show without I/O; `source` is the pipeline's source, if it is RabbitMQ.
    pub fn problems(&self, source: Option<&SourceConfig>) -> Vec<Problem> {
        let mut found = Vec::new();
        if self.url.is_none() && source.is_none() {
            let text = "no url, and the pipeline's source is not RabbitMQ";
            found.push(problem("/url", text, "give the broker's url"));
        }
        check_connection(&mut found, self.url.as_ref(), self.tls.as_deref(), self.heartbeat, self.connection_timeout);
        check_exchange(&mut found, &self.exchange);
        check_name(&mut found, "/queue", self.queue_name(), 255);
        check_queue_options(&mut found, &self.queue_options, None);
        check_header(&mut found, "/retry_header", &self.retry_header);
        check_timeout(&mut found, "/publish_timeout", self.publish_timeout);
        if let Some(key) = &self.routing_key
            && key.len() > 255
        {
            found.push(problem("/routing_key", "longer than the 255 bytes AMQP allows", "shorten it"));
        }
        if self.kind() == "direct" && self.routing_key.is_none() {
            let text = "a direct exchange passes a message on by its exact routing key";
            found.push(problem(
                "/routing_key",
                text,
                "give the routing key of the dead letters, or use a topic exchange",
            ));
        }
        if source.is_some_and(|source| source.queue == self.queue_name()) {
            let text = "the dead letters would go back to the queue they come from";
            found.push(problem("/queue", text, "give another queue"));
        }
        found
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        let fleeting = if self.declare == Declare::Create { fleeting(&self.queue_options) } else { None };
        let hint = "leave the queue durable, neither exclusive nor auto_delete";
        let warnings = fleeting.into_iter().map(|(pointer, why)| problem(pointer, why, hint)).collect();
        let because = "the broker confirms each dead letter before its message is settled";
        Promise { at_least_once: fleeting.is_none(), because: because.to_owned(), warnings }
    }

    /// The exchange with its properties: given by its name alone it is a durable topic exchange.
    pub(super) fn declared_exchange(&self) -> ExchangeConfig {
        let properties = self.exchange.properties.clone().unwrap_or_default();
        ExchangeConfig { name: self.exchange.name.clone(), properties: Some(properties) }
    }

    /// The queue that keeps the dead letters.
    pub(super) fn queue_name(&self) -> &str {
        self.queue.as_deref().unwrap_or(&self.exchange.name)
    }

    /// The pattern that brings every dead letter to the queue.
    pub(super) fn binding_pattern(&self) -> String {
        match self.kind() {
            "topic" => "#".to_owned(),
            _ => self.routing_key.clone().unwrap_or_default(),
        }
    }

    fn kind(&self) -> &str {
        self.exchange.properties.as_ref().map_or("topic", |properties| properties.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn source(value: Value) -> SourceConfig {
        serde_json::from_value(value).expect("source settings")
    }

    fn target(value: Value) -> TargetConfig {
        serde_json::from_value(value).expect("target settings")
    }

    fn pointers(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|problem| problem.pointer.as_str()).collect()
    }

    #[test]
    fn the_settings_of_the_design_are_clean_and_safe() {
        let source = source(json!({
            "url": "amqp://localhost:5672", "queue": "signal-service.events",
            "exchange": { "name": "market.events", "kind": "topic" },
            "bindings": ["market.#", "agent.#"], "prefetch": 64, "concurrency": 4,
        }));
        assert_eq!(source.problems(), []);
        assert!(source.promise().at_least_once);
        assert_eq!(source.promise().warnings, []);
        let target = target(json!({ "url": "amqp://localhost:5672", "exchange": "orders", "routing_key": "eu" }));
        assert_eq!(target.problems(), []);
        assert!(target.promise().at_least_once);
        let letters: DeadLetterConfig = serde_json::from_value(json!({ "exchange": "dead.letter" })).expect("settings");
        assert_eq!(letters.problems(Some(&source)), []);
        assert_eq!(pointers(&letters.problems(None)), ["/url"]);
    }

    #[test]
    fn all_mistakes_of_a_source_are_reported_at_once() {
        let source = source(json!({
            "url": "http://u:hunter2@host", "queue": "", "exchange": { "name": "e", "kind": "tpic" }, "prefetch": 0,
            "concurrency": 0, "heartbeat": "0s", "connection_timeout": "0s", "message_ttl": "60d",
            "retry": { "header": "" }, "tls": { "key_file": "key.pem" },
            "queue_options": { "durable": false, "arguments": { "x-queue-type": "quorum", "x-message-ttl": 1 } },
        }));
        let problems = source.problems();
        let expected = [
            "/url",
            "/tls",
            "/heartbeat",
            "/connection_timeout",
            "/queue",
            "/message_ttl",
            "/queue_options",
            "/exchange/kind",
            "/prefetch",
            "/concurrency",
            "/message_ttl",
            "/bindings",
            "/retry/header",
        ];
        assert_eq!(pointers(&problems), expected);
        assert!(!format!("{problems:?}").contains("hunter2"));
        assert!(!format!("{source:?}").contains("hunter2"));
    }

    #[test]
    fn a_target_is_an_exchange_or_a_queue() {
        assert_eq!(pointers(&target(json!({ "url": "amqp://h" })).problems()), [""]);
        let both = target(json!({ "url": "amqp://h", "exchange": "e", "queue": "q" }));
        assert_eq!(pointers(&both.problems()), ["/queue"]);
        let keyed = target(json!({ "url": "amqp://h", "exchange": "e", "routing_key": "{knd}" }));
        assert_eq!(pointers(&keyed.problems()), ["/routing_key"]);
    }

    #[test]
    fn unsafe_settings_are_legal_and_warned_of() {
        let unsafe_target =
            target(json!({ "url": "amqp://h", "exchange": "e", "mandatory": false, "persistent": false }));
        assert_eq!(unsafe_target.problems(), []);
        assert!(!unsafe_target.promise().at_least_once);
        assert_eq!(pointers(&unsafe_target.promise().warnings), ["/mandatory", "/persistent"]);
        for option in ["exclusive", "auto_delete"] {
            let source = source(json!({
                "url": "amqp://h", "queue": "q", "prefetch": 60_000, "queue_options": { option: true },
            }));
            let promise = source.promise();
            assert!(!promise.at_least_once);
            assert_eq!(pointers(&promise.warnings), [format!("/queue_options/{option}").as_str(), "/prefetch"]);
        }
    }

    #[test]
    fn a_dead_letter_queue_is_not_the_source_queue() {
        let source = source(json!({ "url": "amqp://h", "queue": "q" }));
        let letters: DeadLetterConfig =
            serde_json::from_value(json!({ "exchange": { "name": "dlx", "kind": "direct" }, "queue": "q" }))
                .expect("settings");
        assert_eq!(pointers(&letters.problems(Some(&source))), ["/routing_key", "/queue"]);
    }
}
