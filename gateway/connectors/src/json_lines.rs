//! JSON Lines: a message a line, shared by files and standard input and output.
//!
//! | `format` | a line is |
//! |---|---|
//! | `body` (default) | the body. Written: JSON compacted, its numbers as they were; other text as a JSON string; other bytes as `{"data_base64": "…"}`. Read: the line as it is, whatever it is |
//! | `event` | a CloudEvent in JSON, the whole message |
//!
//! Reading never refuses a line: one that is not an event where one was expected, or longer than allowed, becomes a
//! message with the raw bytes as body and the header [`PROBLEM_HEADER`], for validation to dead-letter.

use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_engine::message::Message;

use crate::quantity::Size;
use crate::registry::Problem;
use crate::{cloudevents, json_text};

/// Says what is wrong with a line that was not what it should have been.
pub const PROBLEM_HEADER: &str = "sluicegate-problem";
/// The least and the most that the limit of a line may be.
pub const LINE_BYTES: std::ops::RangeInclusive<u64> = 64..=(64 << 20);

const READ_BYTES: usize = 64 << 10;
/// A batch of lines ends after about so many bytes.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The body alone.
    #[default]
    Body,
    /// The whole message as a CloudEvent.
    Event,
}

/// The line of a message, its line break included. There is never another one in it.
pub fn encode(message: &Message, format: Format) -> Vec<u8> {
    let mut line = match format {
        Format::Event => cloudevents::encode(message),
        Format::Body => {
            let bytes = message.body.bytes();
            if message.body.json().is_ok() {
                json_text::compact(bytes)
            } else {
                match std::str::from_utf8(bytes) {
                    Ok(text) => json_text::string(text).into_bytes(),
                    Err(_) => format!(r#"{{"data_base64":"{}"}}"#, BASE64.encode(bytes)).into_bytes(),
                }
            }
        }
    };
    line.push(b'\n');
    line
}

/// Mistakes in the settings that all line readers share.
pub(crate) fn problems(kind: &str, max_line: Size) -> Vec<Problem> {
    let mut problems = Vec::new();
    if kind.is_empty() {
        problems.push(Problem {
            pointer: "/kind".to_owned(),
            text: "`kind` is empty".to_owned(),
            hint: Some("Leave it out, or name the messages, for example order.created.".to_owned()),
        });
    }
    if !LINE_BYTES.contains(&max_line.0) {
        problems.push(Problem {
            pointer: "/max_line".to_owned(),
            text: format!("`max_line` is {} bytes", max_line.0),
            hint: Some("Choose 64B to 64MiB.".to_owned()),
        });
    }
    problems
}

/// What lines do not say about their messages.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// CloudEvents `source`.
    pub(crate) source: String,
    /// CloudEvents `type`.
    pub(crate) kind: String,
}

/// The message of a line. `id` is used unless the line is an event.
pub(crate) fn decode(line: Line, format: Format, origin: &Origin, id: String) -> Message {
    let mut problem = line.whole_bytes.map(|whole_bytes| {
        format!("the line has {whole_bytes} bytes, more than `max_line` allows; only its beginning was kept")
    });
    if format == Format::Event && problem.is_none() {
        match cloudevents::decode(&line.bytes) {
            Ok(message) => return message,
            Err(error) => problem = Some(format!("the line is no CloudEvent: {error}")),
        }
    }
    let mut message = Message::new(origin.source.clone(), origin.kind.clone(), line.bytes);
    message.id = id;
    match problem {
        None => message.content_type = Some("application/json".to_owned()),
        Some(problem) => {
            message.content_type = Some("application/octet-stream".to_owned());
            message.headers.append(PROBLEM_HEADER, problem);
        }
    }
    message
}

/// One line without its line break.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it begins, in bytes from the beginning of the input.
    pub(crate) start: u64,
    /// Where the next one begins.
    pub(crate) end: u64,
    /// The line, or the beginning of one that is too long.
    pub(crate) bytes: Bytes,
    /// The length of a line that is too long.
    pub(crate) whole_bytes: Option<u64>,
}

/// Cuts an input into lines, a line never taking more memory than its limit.
pub(crate) struct Lines<R> {
    input: R,
    max_line_bytes: usize,
    buffer: Vec<u8>,
    /// Where the line that is being read begins in `buffer`.
    begin: usize,
    /// Up to where `buffer` is known to hold no line break.
    scanned: usize,
    /// Where that line begins in the input.
    start: u64,
    /// Bytes of that line, which is too long, that were left out of `buffer`.
    left_out: u64,
}

impl<R: Read> Lines<R> {
    /// `input` stands at `start`.
    pub(crate) fn new(input: R, start: u64, max_line_bytes: usize) -> Self {
        Self { input, max_line_bytes, buffer: Vec::new(), begin: 0, scanned: 0, start, left_out: 0 }
    }

    /// The input.
    pub(crate) fn input(&self) -> &R {
        &self.input
    }

    /// How far the input has been read.
    pub(crate) fn position(&self) -> u64 {
        self.start + (self.buffer.len() - self.begin) as u64 + self.left_out
    }

    /// Reads until there are `max` lines, enough bytes, or no more input for now; blank lines are skipped. Ends with
    /// nothing only if there is nothing. The second value says whether the input is at its end.
    ///
    /// # Errors
    /// Those of the input; lines before the error are returned first.
    pub(crate) fn read(&mut self, max: usize) -> io::Result<(Vec<Line>, bool)> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        loop {
            while let Some(line) = self.next_buffered() {
                if line.bytes.trim_ascii().is_empty() {
                    continue;
                }
                bytes += line.bytes.len();
                lines.push(line);
                if lines.len() >= max || bytes >= MAX_BATCH_BYTES {
                    return Ok((lines, false));
                }
            }
            match self.fill() {
                Ok(0) => return Ok((lines, true)),
                // A slow input (a pipe) hands over what there is.
                Ok(count) if count < READ_BYTES && !lines.is_empty() => return Ok((lines, false)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if !lines.is_empty() => return Ok((lines, false)),
                Err(error) => return Err(error),
            }
        }
    }

    /// What follows the last line break, at the end of an input that will not grow any more.
    pub(crate) fn take_unterminated(&mut self) -> Option<Line> {
        let rest = self.buffer.len() - self.begin;
        let line = self.cut(rest, 0);
        (!line.bytes.trim_ascii().is_empty()).then_some(line)
    }

    fn next_buffered(&mut self) -> Option<Line> {
        match self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                let length = self.scanned + at - self.begin;
                Some(self.cut(length, 1))
            }
            None => {
                self.scanned = self.buffer.len();
                let kept = self.scanned - self.begin;
                // One byte more than the limit, for the \r of a line that is just as long.
                if kept > self.max_line_bytes + 1 {
                    self.left_out += (kept - self.max_line_bytes - 1) as u64;
                    self.buffer.truncate(self.begin + self.max_line_bytes + 1);
                    self.scanned = self.buffer.len();
                }
                None
            }
        }
    }

    /// Ends the line after `length` bytes of the buffer and skips its line break.
    fn cut(&mut self, length: usize, line_break: usize) -> Line {
        let raw = &self.buffer[self.begin..self.begin + length];
        let whole_bytes = length as u64 + self.left_out;
        let bytes = if self.left_out == 0 { raw.strip_suffix(b"\r").unwrap_or(raw) } else { raw };
        let is_too_long = self.left_out > 0 || bytes.len() > self.max_line_bytes;
        let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(self.max_line_bytes)]);
        let end = self.start + whole_bytes + line_break as u64;
        let line = Line { start: self.start, end, bytes, whole_bytes: is_too_long.then_some(whole_bytes) };
        self.begin += length + line_break;
        self.scanned = self.begin;
        self.start = end;
        self.left_out = 0;
        line
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.begin);
        self.scanned -= self.begin;
        self.begin = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let read = self.input.read(&mut self.buffer[filled..]);
        self.buffer.truncate(filled + read.as_ref().map_or(0, |count| *count));
        read
    }
}

#[cfg(test)]
mod tests;
