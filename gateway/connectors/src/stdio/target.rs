//! The target: standard output.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;
use sluicegate_engine::target::{Batching, Outlet, Target};

use super::TargetConfig;
use crate::json_lines::{self, Format};
use crate::registry::BuildContext;

/// Writes a line a message and flushes a batch before confirming it.
pub struct StdioTarget {
    format: Format,
}

impl StdioTarget {
    /// Not yet connected.
    pub fn new(config: &TargetConfig, _: &BuildContext) -> Self {
        Self { format: config.format }
    }
}

#[async_trait]
impl Target for StdioTarget {
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        Ok(Arc::new(StdioOutlet { format: self.format, output: Arc::new(Mutex::new(std::io::stdout())) }))
    }

    fn batching(&self) -> Batching {
        Batching { max_messages: 256, max_concurrent: 1 }
    }
}

struct StdioOutlet<W> {
    format: Format,
    output: Arc<Mutex<W>>,
}

#[async_trait]
impl<W: Write + Send + 'static> Outlet for StdioOutlet<W> {
    async fn publish(&self, batch: &[Arc<Message>]) -> Vec<Result<(), Failure>> {
        let mut text = Vec::new();
        for message in batch {
            text.extend(json_lines::encode(message, self.format));
        }
        let output = Arc::clone(&self.output);
        // Whoever reads may be slow, so the write must not hold up the runtime. The lock is free: one batch at a time.
        let write = tokio::task::spawn_blocking(move || {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.write_all(&text)?;
            output.flush()
        });
        let result = match write.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::permanent(format!(
                "writing to standard output: {error}; whoever read it is gone, start the gateway anew"
            ))),
            Ok(Err(error)) => {
                Err(Failure::transient(format!("writing to standard output: {error}; trying again may help")))
            }
            Err(error) => Err(Failure::transient(format!("writing to standard output was cut off: {error}"))),
        };
        vec![result; batch.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sluicegate_engine::failure::FailureKind;

    use super::*;

    /// Keeps what was flushed, or fails.
    #[derive(Default)]
    struct Output {
        written: Vec<u8>,
        flushed: usize,
        error: Option<io::ErrorKind>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = self.error {
                return Err(kind.into());
            }
            self.written.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushed = self.written.len();
            Ok(())
        }
    }

    fn messages() -> Vec<Arc<Message>> {
        ["{\"a\": 1}", "text"].map(|body| Arc::new(Message::new("s", "t", body))).to_vec()
    }

    #[tokio::test]
    async fn a_batch_is_flushed_before_it_is_confirmed() {
        let output = Arc::new(Mutex::new(Output::default()));
        let outlet = StdioOutlet { format: Format::Body, output: Arc::clone(&output) };
        assert_eq!(outlet.publish(&messages()).await, [Ok(()), Ok(())]);
        let output = output.lock().expect("unpoisoned");
        assert_eq!(output.written, b"{\"a\":1}\n\"text\"\n");
        assert_eq!(output.flushed, output.written.len());
    }

    #[tokio::test]
    async fn a_broken_pipe_is_for_good_and_other_errors_are_not() {
        for (error, expected) in [
            (io::ErrorKind::BrokenPipe, FailureKind::Permanent),
            (io::ErrorKind::StorageFull, FailureKind::Transient { retry_after: None }),
        ] {
            let output = Output { error: Some(error), ..Output::default() };
            let outlet = StdioOutlet { format: Format::Body, output: Arc::new(Mutex::new(output)) };
            for result in outlet.publish(&messages()).await {
                assert_eq!(result.expect_err("an error").kind, expected);
            }
        }
    }
}
