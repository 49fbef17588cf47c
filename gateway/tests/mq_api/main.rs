//! The API of managed queues, over HTTP, on a real store.

mod bad_requests;
mod dead_letters;
mod messages;
mod monitoring;
mod publish;
mod queues;
mod redis_queues;
mod server;
mod subscriptions;
