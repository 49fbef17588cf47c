//! The single checks that the `diagnosis` of settings is made of. Each adds what it finds.

use super::config::SourceConfig;
use super::declaration::{Declare, ExchangeConfig, ExchangeProperties, QueueOptions};
use super::endpoint::{TlsConfig, parse_url};
use crate::quantity::{Secret, Span};
use crate::registry::Problem;

pub(super) fn problem(pointer: &str, text: impl Into<String>, hint: &str) -> Problem {
    Problem { pointer: pointer.to_owned(), text: text.into(), hint: Some(hint.to_owned()) }
}

pub(super) fn check_connection(
    found: &mut Vec<Problem>,
    url: Option<&Secret>,
    tls: Option<&TlsConfig>,
    heartbeat: Span,
    timeout: Span,
) {
    let parsed = url.map(parse_url);
    if let Some(Err(why)) = &parsed {
        found.push(problem("/url", why, "write amqp://user:password@host:5672/vhost; / in a name is %2f"));
    }
    if let Some(tls) = tls {
        if matches!(&parsed, Some(Ok(uri)) if uri.scheme == lapin::uri::AMQPScheme::AMQP) {
            found.push(problem("/tls", "the url is amqp://, which is not encrypted", "write amqps://"));
        }
        if tls.certificate_file.is_some() != tls.key_file.is_some() {
            let text = "a client certificate needs both certificate_file and key_file";
            found.push(problem("/tls", text, "give both or none"));
        }
    }
    if !(1..=65_535).contains(&heartbeat.0.as_secs()) {
        found.push(problem("/heartbeat", "AMQP counts heartbeats in whole seconds, 1 to 65535", "for example 10s"));
    }
    check_timeout(found, "/connection_timeout", timeout);
}

pub(super) fn check_timeout(found: &mut Vec<Problem>, pointer: &str, timeout: Span) {
    if timeout.0.is_zero() {
        found.push(problem(pointer, "no time at all", "for example 10s"));
    }
}

pub(super) fn check_name(found: &mut Vec<Problem>, pointer: &str, name: &str, max_bytes: usize) {
    if name.is_empty() {
        found.push(problem(pointer, "the name is empty", "give a name"));
    } else if name.len() > max_bytes {
        found.push(problem(
            pointer,
            format!("the name has {} bytes, at most {max_bytes} are possible", name.len()),
            "shorten it",
        ));
    } else if name.starts_with("amq.") {
        found.push(problem(pointer, "names that begin with amq. are the broker's own", "choose another name"));
    }
}

pub(super) fn check_header(found: &mut Vec<Problem>, pointer: &str, name: &str) {
    if name.is_empty() || name.len() > 255 {
        found.push(problem(pointer, "a header's name has 1 to 255 bytes", "for example x-retry-count"));
    }
}

pub(super) fn check_ttl(found: &mut Vec<Problem>, ttl: Option<Span>) {
    if ttl.is_some_and(|ttl| u32::try_from(ttl.0.as_millis()).is_err()) {
        found.push(problem("/message_ttl", "RabbitMQ takes at most 49 days", "shorten it, or leave it out"));
    }
}

pub(super) fn check_queue_options(found: &mut Vec<Problem>, options: &QueueOptions, ttl: Option<Span>) {
    if ttl.is_some() && options.arguments.contains_key("x-message-ttl") {
        let text = "both `message_ttl` and the argument x-message-ttl are given";
        found.push(problem("/message_ttl", text, "remove one of them"));
    }
    if options.arguments.get("x-queue-type").is_some_and(|kind| kind == "quorum")
        && (!options.durable || options.exclusive || options.auto_delete)
    {
        let text = "a quorum queue is durable, never exclusive and never deleted by itself";
        found.push(problem("/queue_options", text, "leave out durable, exclusive and auto_delete"));
    }
}

pub(super) fn check_exchange(found: &mut Vec<Problem>, exchange: &ExchangeConfig) {
    if exchange.name.is_empty() || exchange.name.len() > 255 {
        found.push(problem(
            "/exchange",
            "an exchange's name has 1 to 255 bytes",
            "to publish to a queue, give `queue`",
        ));
    }
    let Some(ExchangeProperties { kind, arguments, .. }) = &exchange.properties else { return };
    if exchange.name.starts_with("amq.") {
        let text = "exchanges that begin with amq. are the broker's own and cannot be declared";
        found.push(problem("/exchange", text, "give its name alone"));
    }
    match kind.as_str() {
        "topic" | "direct" | "fanout" | "headers" => {}
        "x-delayed-message" if !arguments.contains_key("x-delayed-type") => {
            let text = "a delayed-message exchange needs to know how it routes";
            found.push(problem("/exchange/arguments", text, "add `x-delayed-type: topic`, or another kind"));
        }
        plugin if plugin.starts_with("x-") => {}
        other => {
            let text = format!(
                "`{other}` is none of topic, direct, fanout, headers, and no plugin's kind (those begin with x-)"
            );
            found.push(problem("/exchange/kind", text, "most often it is topic"));
        }
    }
}

pub(super) fn check_bindings(found: &mut Vec<Problem>, source: &SourceConfig) {
    for (index, binding) in source.bindings.iter().enumerate() {
        let pointer = format!("/bindings/{index}");
        if binding.pattern.len() > 255 {
            found.push(problem(&pointer, "the pattern is longer than the 255 bytes AMQP allows", "shorten it"));
        }
        if binding.exchange.is_none() && source.exchange.is_none() {
            found.push(problem(&pointer, "there is no exchange to bind the queue to", "give `exchange`"));
        }
    }
    let kind = source.exchange.as_ref().and_then(|e| e.properties.as_ref()).map(|p| p.kind.as_str());
    if source.declare == Declare::Create && source.exchange.is_some() && source.effective_bindings().is_empty() {
        let hint = match kind {
            Some("headers") => "for example bindings: [{ arguments: { x-match: all, region: eu } }]",
            Some("direct") => "for example bindings: [orders.create]",
            _ => "for example bindings: ['#'] for everything",
        };
        found.push(problem("/bindings", "without bindings the exchange passes nothing to the queue", hint));
    }
}

/// Why messages in such a queue can get lost.
pub(super) fn fleeting(options: &QueueOptions) -> Option<(&'static str, &'static str)> {
    if !options.durable {
        Some(("/queue_options/durable", "the queue does not survive a restart of the broker"))
    } else if options.exclusive {
        Some(("/queue_options/exclusive", "the queue is deleted, with its messages, when the gateway disconnects"))
    } else if options.auto_delete {
        Some((
            "/queue_options/auto_delete",
            "the queue is deleted, with its messages, when its last consumer disconnects",
        ))
    } else {
        None
    }
}
