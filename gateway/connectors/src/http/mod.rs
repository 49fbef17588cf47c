//! The `http` connector: ingestion on the gateway's own server, and webhooks.
//!
//! # Ingestion
//! A source takes a path of the [`Ingress`]; what is posted there is understood by the path's `format`:
//!
//! | format | request | message |
//! |---|---|---|
//! | `auto`, `cloudevents` | `content-type: application/cloudevents+json` | the CloudEvent (structured mode) |
//! | `auto`, `cloudevents` | `content-type: application/cloudevents-batch+json` | each of the CloudEvents |
//! | `auto`, `cloudevents` | any of `ce-specversion`, `ce-id`, `ce-source`, `ce-type` | the CloudEvent (binary mode) |
//! | `auto` | anything else | raw |
//! | `raw` | anything | raw |
//! | `envelope` | a JSON content type or none | the JSON envelope of requirement A2 |
//!
//! **Raw** means: the body byte for byte, whatever it is; its content type with all parameters; a new id; the
//! configured `kind`; the pipeline's name as source; and as headers those of the request, in order, repeats and bytes
//! kept, but for: `connection` and what it names, `keep-alive`, `proxy-…`, `te`, `trailer`, `transfer-encoding`,
//! `upgrade`, `http2-settings`, `via`, `max-forwards`, `host`, `expect`, `content-length`, `content-encoding`
//! (undone), `accept`, `accept-encoding`, `authorization`, `cookie`, `idempotency-key`, `set-cookie`, `x-api-key`,
//! `x-service-token`.
//! Events and envelopes say all of their message themselves, so that none of the request's headers is added to theirs.
//! In every format `traceparent`, `tracestate` and `x-correlation-id` fill the message's fields unless the event has
//! them, and `key` says where a missing key comes from.
//!
//! With `respond: delivered` the answer is the outcome: `200 {id, status: delivered | filtered, targets, reason?}`; `202`
//! with the status `parked` when the gateway keeps the message for a later attempt; or a problem document
//! ([`ProblemDetails`]): 422 when the message is at fault and was kept as a dead letter, 503 with `Retry-After` when
//! it is not at fault. A **batch** is accepted whole or not at all; its answer is 200 `{results}` when all is well, 202
//! when some of it is parked, and otherwise a problem with the worst status of its messages and the same `results`, one
//! for each event in order.
//!
//! With `respond: accepted` the answer is `202 {id, status: accepted}`, given once the message (all messages of a batch)
//! is on disk in the [`Spool`], from which the pipeline reads it. `?wait=delivered` then waits for the outcome and answers
//! as above, except that what the gateway keeps anyway is never a failure: a message that is not through when the path's
//! `timeout` passes or its pipeline stops is `202 accepted`, one that is given back `202 parked`. What the spool refuses
//! is answered 429 (the backlog is full) or 503 (the disk is, for example) with `Retry-After`; then nothing is on disk.
//!
//! A request with an **`Idempotency-Key`** (1 to 255 bytes of printable ASCII, quoted or not) is taken once: within
//! `idempotency_ttl` the same key with the same path, content type and decompressed body gets the same status and body
//! again, marked `idempotency-replayed: true`; with another body 422; while the first is in progress 409. Only what is
//! final is remembered, 2xx and 422: after any other answer the request may be sent anew. With `respond: delivered` a key
//! stays in progress until its outcome is known, even if its client has gone or was told that the outcome is unknown.
//! With `respond: accepted` the acceptance is remembered with the message, in one transaction, and an outcome that was
//! waited for replaces it. Keys are told apart by pipeline.
//!
//! A path whose pipeline has as many messages waiting as may is answered 429, a gateway out of body memory or a
//! pipeline being reloaded 503, both at once and with `Retry-After`. Requests that wait for a pipeline that is reloaded
//! go to its successor. Malformed request lines and headers beyond [`ServerLimits`] are answered by the HTTP
//! library itself, 400 or 431 without a document.
//!
//! # Webhooks
//! Each message is one request, delivered when it is answered 2xx. By `format`: `binary` (default), the body as it is
//! and the CloudEvents attributes as percent-encoded `ce-` headers; `structured`, one JSON event; `raw`, the body and
//! those of the message's headers that HTTP can carry, except the ones listed above, `webhook-…` and `ce-…`. Every
//! request has `webhook-id`, the same on each attempt; with a `signing_secret` it is signed as Standard Webhooks say
//! ([`signature`]). Redirects are not followed. A tenant's webhook reaches addresses of the public internet only, one in the
//! operator's files any address unless `allow_private: false` ([`reach`]). 408, 425, 429, 5xx and no answer at all are transient (`Retry-After` is
//! respected up to an hour), all else is permanent.

mod admission;
mod answer;
mod attribute_headers;
mod binding;
mod body;
mod client;
mod config;
mod fetch;
mod handover;
mod idempotency;
mod ingress;
mod message_headers;
mod problem;
pub mod reach;
mod receive;
mod retry_after;
mod server;
pub mod signature;
mod source;
mod spool;
mod stall;
mod target;
mod target_config;

pub use config::{Format, KeyFrom, LARGEST_MAX_BODY_BYTES, LONGEST_TIMEOUT, Respond, SourceConfig};
pub use fetch::fetch;
pub use idempotency::MAX_KEY_BYTES;
pub use ingress::{Ingress, IngressLimits};
pub use problem::{MAX_LISTED_ERRORS, PROBLEM_JSON, Place, PointedError, ProblemCode, ProblemDetails};
pub use retry_after::{MAX_RETRY_AFTER, parse_retry_after};
pub use server::{BodyReadTimeout, PeerAddress, ServerLimits, serve};
pub use source::HttpSource;
pub use spool::{Admission, Admitted, Backlog, Fingerprint, Idempotency, Recalled, Refusal, Spool, StoredAnswer};
pub use target::HttpTarget;
pub use target_config::{TargetConfig, TlsConfig, WebhookFormat, WebhookMethod, WebhookUrl};
