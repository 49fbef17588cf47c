//! What the options' values mean.

use sluicegate_connectors::cloudevents::parse_time;
use sluicegate_connectors::quantity::{Size, Span};
use sluicegate_connectors::queue::Length;
use sluicegate_store::queue::{AtLimit, Compression, Kind};

use crate::queues::{KeptPosition, Place};

pub(super) fn parse_span(text: &str) -> Result<Span, String> {
    Span::parse(text).ok_or_else(|| "not a length of time; write 500ms, 10s, 5m, 2h or 7d".to_owned())
}

pub(super) fn parse_size(text: &str) -> Result<Size, String> {
    Size::parse(text).ok_or_else(|| "not a size; write 500B, 64KiB, 1MiB or 10GiB".to_owned())
}

pub(super) fn parse_length(text: &str) -> Result<Length, String> {
    Length::parse(text).ok_or_else(|| "write a number of messages from 1, or unlimited".to_owned())
}

pub(super) fn parse_kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| "there are normal, ordered and delay".to_owned())
}

pub(super) fn parse_at_limit(name: &str) -> Result<AtLimit, String> {
    AtLimit::from_name(name).ok_or_else(|| "there are refuse and drop_oldest".to_owned())
}

pub(super) fn parse_compression(name: &str) -> Result<Compression, String> {
    Compression::from_name(name).ok_or_else(|| "there are none and zstd".to_owned())
}

pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "write NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn parse_position(text: &str) -> Result<KeptPosition, String> {
    match (text, text.parse()) {
        ("earliest", _) => Ok(KeptPosition::Earliest),
        ("latest", _) => Ok(KeptPosition::Latest),
        (_, Ok(Place::Offset(0))) => Err("offsets count from 1".to_owned()),
        (_, Ok(place)) => Ok(KeptPosition::Place(place)),
        (_, Err(())) => parse_time(text).map(KeptPosition::Time).map_err(|_| {
            "write earliest, latest, an offset (in Redis: the id of an entry), or a time (2026-11-20T16:00:00Z)"
                .to_owned()
        }),
    }
}
