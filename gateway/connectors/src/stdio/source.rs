//! The source: standard input.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sluicegate_engine::delivery::{Received, Settled, Token};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::{Connection, Inlet, Settler, Source};
use tokio::sync::mpsc;

use super::SourceConfig;
use crate::json_lines::{self, Format, Line, Lines, Origin};
use crate::redelivery::Redelivery;
use crate::registry::BuildContext;

/// Lines read ahead while the engine is busy.
const MAX_LINES_AHEAD: usize = 64;

type Reading = mpsc::Receiver<Result<Line, String>>;

/// Reads standard input to its end. A requeued line is delivered again from memory; the end of input is told when
/// nothing is in flight any more.
pub struct StdioSource {
    format: Format,
    origin: Origin,
    max_line_bytes: usize,
    redelivery: Arc<Redelivery>,
    /// Where to open the input; taken by the first connection.
    open: Option<Box<dyn FnOnce() -> Box<dyn Read> + Send>>,
    /// With the inlet while there is one.
    reading: Arc<Mutex<Option<Reading>>>,
}

impl StdioSource {
    /// Not yet connected.
    pub fn new(config: &SourceConfig, _: &BuildContext) -> Self {
        Self::reading(config, || Box::new(std::io::stdin()))
    }

    fn reading(config: &SourceConfig, open: impl FnOnce() -> Box<dyn Read> + Send + 'static) -> Self {
        Self {
            format: config.format,
            origin: Origin { source: "stdin".to_owned(), kind: config.kind.clone() },
            max_line_bytes: config.max_line.0 as usize,
            redelivery: Arc::default(),
            open: Some(Box::new(open)),
            reading: Arc::default(),
        }
    }
}

#[async_trait]
impl Source for StdioSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let reading = match self.open.take() {
            Some(open) => start(open, self.max_line_bytes)?,
            None => {
                let kept = self.reading.lock().unwrap_or_else(PoisonError::into_inner).take();
                kept.ok_or_else(|| Failure::permanent("reading standard input: it is being read already"))?
            }
        };
        let inlet = StdioInlet {
            format: self.format,
            origin: self.origin.clone(),
            redelivery: Arc::clone(&self.redelivery),
            reading: Some(reading),
            give_back_to: Arc::clone(&self.reading),
        };
        let settler = StdioSettler { redelivery: Arc::clone(&self.redelivery) };
        Ok(Connection { inlet: Box::new(inlet), settler: Box::new(settler), resumes: true, postpones: false })
    }
}

/// Reads on a thread of its own. A read of a terminal or a pipe cannot be interrupted, and one on the runtime's threads
/// would keep the gateway from stopping; this one ends with the input, with the next line after nobody wants it any
/// more, or with the process.
fn start(open: impl FnOnce() -> Box<dyn Read> + Send + 'static, max_line_bytes: usize) -> Result<Reading, Failure> {
    let (send, reading) = mpsc::channel(MAX_LINES_AHEAD);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut lines = Lines::new(open(), 0, max_line_bytes);
            loop {
                let (some, at_end) = match lines.read(MAX_LINES_AHEAD) {
                    Ok(read) => read,
                    Err(error) => {
                        // Nobody listens any more if this fails, and then nobody cares.
                        send.blocking_send(Err(error.to_string())).ok();
                        return;
                    }
                };
                let last = if at_end { lines.take_unterminated() } else { None };
                for line in some.into_iter().chain(last) {
                    if send.blocking_send(Ok(line)).is_err() {
                        return;
                    }
                }
                if at_end {
                    return;
                }
            }
        })
        .map_err(|error| Failure::transient(format!("starting to read standard input: {error}; too many threads?")))?;
    Ok(reading)
}

struct StdioInlet {
    format: Format,
    origin: Origin,
    redelivery: Arc<Redelivery>,
    /// `None` only while it is dropped.
    reading: Option<Reading>,
    give_back_to: Arc<Mutex<Option<Reading>>>,
}

impl StdioInlet {
    fn receive_lines(&self, lines: Vec<Result<Line, String>>) -> Result<Vec<Received>, Failure> {
        let mut received = Vec::with_capacity(lines.len());
        for line in lines {
            match line {
                Ok(line) => {
                    let token = Token(u128::from(line.start));
                    let id = uuid::Uuid::now_v7().to_string();
                    let message = json_lines::decode(line, self.format, &self.origin, id);
                    received.push(Received::new(message, token));
                }
                // The thread has ended with it, so the end of input follows.
                Err(error) if received.is_empty() => {
                    return Err(Failure::disconnected(format!("reading standard input: {error}; it ends here")));
                }
                Err(error) => tracing::error!("reading standard input: {error}; it ends here"),
            }
        }
        self.redelivery.handed_over(received.len());
        Ok(received)
    }
}

#[async_trait]
impl Inlet for StdioInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        loop {
            let again = self.redelivery.take(max);
            if !again.is_empty() {
                return Ok(again);
            }
            let Some(reading) = self.reading.as_mut() else { return Err(Failure::end_of_input()) };
            let mut lines = Vec::new();
            tokio::select! {
                biased;
                () = self.redelivery.changed() => continue,
                count = reading.recv_many(&mut lines, max) => {
                    if count > 0 {
                        return self.receive_lines(lines);
                    }
                }
            }
            if self.redelivery.is_idle() {
                return Err(Failure::end_of_input());
            }
            self.redelivery.changed().await;
        }
    }
}

impl Drop for StdioInlet {
    fn drop(&mut self) {
        *self.give_back_to.lock().unwrap_or_else(PoisonError::into_inner) = self.reading.take();
    }
}

struct StdioSettler {
    redelivery: Arc<Redelivery>,
}

#[async_trait]
impl Settler for StdioSettler {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        self.redelivery.settle(batch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_engine::delivery::Outcome;
    use sluicegate_engine::failure::FailureKind;

    use super::*;

    fn source(input: &'static [u8]) -> StdioSource {
        let config = serde_json::from_str("{}").expect("settings");
        StdioSource::reading(&config, move || Box::new(input))
    }

    async fn receive(connection: &mut Connection, count: usize) -> Vec<Received> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(connection.inlet.receive(10).await.expect("lines"));
        }
        all
    }

    fn settled(received: Received, outcome: Outcome) -> Settled {
        Settled::new(received.token, Arc::new(received.message), outcome)
    }

    #[tokio::test]
    async fn lines_come_in_order_and_then_the_end_once_all_is_settled() {
        let mut connection = source(b"1\n2\n3").connect().await.expect("connected");
        let received = receive(&mut connection, 3).await;
        let bodies: Vec<_> = received.iter().map(|received| received.message.body.bytes().clone()).collect();
        assert_eq!(bodies, ["1", "2", "3"]);
        let batch: Vec<Settled> = received.into_iter().map(|received| settled(received, Outcome::default())).collect();
        let Connection { mut inlet, mut settler, .. } = connection;
        let (end, ()) = tokio::join!(inlet.receive(10), async { settler.settle(&batch).await.expect("settled") });
        assert_eq!(end.expect_err("the end").kind, FailureKind::EndOfInput);
    }

    #[tokio::test]
    async fn a_requeued_line_comes_again_before_the_end() {
        let mut connection = source(b"1\n").connect().await.expect("connected");
        let first = receive(&mut connection, 1).await.remove(0);
        connection.settler.settle(&[settled(first, Outcome::requeued("no room"))]).await.expect("settled");
        let again = receive(&mut connection, 1).await.remove(0);
        assert_eq!((again.message.body.bytes().as_ref(), again.message.attempt), (&b"1"[..], 2));
    }

    #[tokio::test]
    async fn a_new_connection_goes_on_where_the_old_one_stopped() {
        let mut source = source(b"1\n2\n");
        let mut connection = source.connect().await.expect("connected");
        let first = connection.inlet.receive(1).await.expect("a line");
        assert_eq!(first.len(), 1);
        drop(connection);
        let second = receive(&mut source.connect().await.expect("connected"), 1).await;
        assert_eq!(second[0].message.body.bytes(), &b"2"[..]);
    }
}
