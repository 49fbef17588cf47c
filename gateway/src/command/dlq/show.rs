//! `dlq show`.

use std::io::Write;

use sluicegate_engine::dead_letter::DeadLetter;
use sluicegate_engine::message::{Body, Message};
use sluicegate_store::Reader;
use sluicegate_store::dead_letter::{KeptEdit, ShownLetter};

use super::ShowArgs;
use super::record::{Content, LetterRecord};
use super::text::{block, indented, inline, time};

/// A longer body is cut here, in bytes of what is printed; `--json` prints all of it.
const MAX_SHOWN_BODY_BYTES: usize = 16 << 10;

pub(super) async fn show(args: &ShowArgs, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    let ShownLetter { kept, hidden, body_bytes } = reader.show_readable(&args.id).await?;
    let letter = &kept.letter;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &LetterRecord::new(&kept, hidden.as_ref(), body_bytes))?;
        writeln!(out)?;
    } else {
        write_cause(letter, out)?;
        write_evidence(letter, out)?;
        writeln!(out, "\nMessage as received")?;
        let hidden = hidden.map(|why| (why.to_string(), body_bytes));
        write_message(&letter.original, hidden.as_ref(), out)?;
        if letter.at_failure == letter.original {
            writeln!(out, "\nMessage when it failed: as received")?;
        } else {
            writeln!(out, "\nMessage when it failed")?;
            write_message(&letter.at_failure, hidden.as_ref(), out)?;
        }
        if let Some(edit) = &kept.edit {
            write_edit(edit, hidden.as_ref(), out)?;
        }
        if kept.is_being_redriven {
            writeln!(out, "\nIt is being redriven.")?;
        }
    }
    out.flush()?;
    Ok(())
}

fn write_edit(kept: &KeptEdit, hidden: Option<&(String, u64)>, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "\nTo be redriven with, edited by {} at {}", inline(&kept.by), time(kept.at_ms, 0))?;
    if let Some(headers) = &kept.edit.headers {
        writeln!(out, "  headers")?;
        for (name, value) in headers.iter() {
            writeln!(out, "    {}: {}", inline(name), inline(&octets(value)))?;
        }
    }
    match (&kept.edit.body, hidden) {
        (Some(_), Some((why, _))) => writeln!(out, "  another body (not shown): {}", inline(why)),
        (Some(body), None) => write_body(&Body::from(body.clone()), out),
        (None, _) => writeln!(out, "  the body as it was"),
    }
}

/// Names and values under each other; absent values are left out.
fn write_fields(fields: &[(&str, Option<String>)], out: &mut impl Write) -> std::io::Result<()> {
    for (name, value) in fields {
        if let Some(value) = value {
            writeln!(out, "  {name:<14}  {}", inline(value))?;
        }
    }
    Ok(())
}

fn write_cause(letter: &DeadLetter, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "Dead letter {}", inline(&letter.id))?;
    let fields = [
        ("failed at", Some(time(letter.failed_at_ms, 3))),
        ("pipeline", Some(letter.pipeline.to_string())),
        ("configuration", Some(letter.config_version.to_string())),
        ("step", letter.step.as_deref().map(str::to_owned)),
        ("target", letter.target.as_deref().map(str::to_owned)),
        ("class", Some(letter.class.to_string())),
        ("plugin", letter.plugin.clone()),
        ("plugin digest", letter.plugin_digest.clone()),
        ("trace", letter.trace_id.clone()),
        ("redriven", (letter.redrive_count > 0).then(|| format!("{} times", letter.redrive_count))),
    ];
    write_fields(&fields, out)?;
    write!(out, "\nError\n{}", indented(&block(&letter.error).to_string(), "  "))
}

fn write_evidence(letter: &DeadLetter, out: &mut impl Write) -> std::io::Result<()> {
    if !letter.schema_errors.is_empty() {
        writeln!(out, "\nSchema errors")?;
        for error in &letter.schema_errors {
            let pointer = if error.pointer.is_empty() { "(the whole body)" } else { &error.pointer };
            writeln!(out, "  {}  {}", inline(pointer), inline(&error.text))?;
        }
    }
    if !letter.backtrace.is_empty() {
        writeln!(out, "\nGuest backtrace, innermost first")?;
        for (index, frame) in letter.backtrace.iter().enumerate() {
            writeln!(out, "  {index:>3}  {}", inline(frame))?;
        }
    }
    if !letter.attempts.is_empty() {
        writeln!(out, "\nAttempts")?;
        for attempt in &letter.attempts {
            writeln!(out, "  {:>3}  {}  {}", attempt.number, time(attempt.at_ms, 3), inline(&attempt.error))?;
        }
    }
    Ok(())
}

fn write_message(message: &Message, hidden: Option<&(String, u64)>, out: &mut impl Write) -> std::io::Result<()> {
    let fields = [
        ("id", Some(message.id.clone())),
        ("source", Some(message.source.clone())),
        ("type", Some(message.kind.clone())),
        ("subject", message.subject.clone()),
        ("time", Some(time(message.time_ms, 3))),
        ("content type", message.content_type.clone()),
        ("key", message.key.as_deref().map(octets)),
        ("attempt", Some(message.attempt.to_string())),
        ("expires at", message.expires_at_ms.map(|ms| time(ms, 3))),
        ("deliver at", message.deliver_at_ms.map(|ms| time(ms, 3))),
        ("traceparent", message.trace_parent.clone()),
        ("tracestate", message.trace_state.clone()),
        ("correlation id", message.correlation_id.clone()),
    ];
    write_fields(&fields, out)?;
    if !message.headers.is_empty() {
        writeln!(out, "  headers")?;
        for (name, value) in message.headers.iter() {
            writeln!(out, "    {}: {}", inline(name), inline(&octets(value)))?;
        }
    }
    match hidden {
        Some((why, bytes)) => writeln!(out, "  body (not shown; {bytes} bytes as received): {}", inline(why)),
        None => write_body(&message.body, out),
    }
}

fn octets(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{} (base64 of {} bytes that are not UTF-8)", base64(bytes), bytes.len()),
    }
}

fn base64(bytes: &[u8]) -> String {
    match Content::from(bytes) {
        Content::Base64(text) => text,
        Content::Text(text) => text.to_owned(),
        Content::Json(value) => value.to_string(),
    }
}

fn write_body(body: &Body, out: &mut impl Write) -> std::io::Result<()> {
    let bytes = &body.bytes()[..];
    let (form, shown) = match (body.json(), std::str::from_utf8(bytes)) {
        // Cannot fail: the value was text a moment ago.
        (Ok(value), _) => (", JSON laid out for reading", format!("{value:#}")),
        (Err(_), Ok(text)) => ("", text.to_owned()),
        (Err(_), Err(_)) => (", not UTF-8, as base64", base64(bytes)),
    };
    if body.is_empty() {
        return writeln!(out, "  body (empty)");
    }
    writeln!(out, "  body ({} bytes{form})", body.len())?;
    let cut = shown.floor_char_boundary(MAX_SHOWN_BODY_BYTES);
    write!(out, "{}", indented(&block(&shown[..cut]).to_string(), "    "))?;
    if cut < shown.len() {
        writeln!(out, "    … {} more bytes of it; --json prints all", shown.len() - cut)?;
    }
    Ok(())
}
