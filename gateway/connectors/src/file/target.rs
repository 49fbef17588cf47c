//! The target: appends lines to a file.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;
use sluicegate_engine::target::{Batching, Outlet, Target};

use super::config::TargetConfig;
use super::writer::Writer;
use crate::json_lines::{self, Format};
use crate::registry::BuildContext;

/// Appends a line a message: one write and one fsync a batch, before any of it is confirmed. A batch is kept as a whole
/// or not at all.
pub struct FileTarget {
    path: PathBuf,
    format: Format,
}

impl FileTarget {
    /// Not yet connected.
    pub fn new(config: &TargetConfig, context: &BuildContext) -> Self {
        Self { path: context.base_dir.join(&config.path), format: config.format }
    }
}

#[async_trait]
impl Target for FileTarget {
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        let path = self.path.clone();
        let writer = blocking(move || Writer::open(&path)).await?;
        Ok(Arc::new(FileOutlet { format: self.format, writer: Arc::new(Mutex::new(writer)) }))
    }

    fn batching(&self) -> Batching {
        Batching { max_messages: 256, max_concurrent: 1 }
    }
}

struct FileOutlet {
    format: Format,
    writer: Arc<Mutex<Writer>>,
}

#[async_trait]
impl Outlet for FileOutlet {
    async fn publish(&self, batch: &[Arc<Message>]) -> Vec<Result<(), Failure>> {
        let mut lines = Vec::new();
        for message in batch {
            lines.extend(json_lines::encode(message, self.format));
        }
        let writer = Arc::clone(&self.writer);
        // The lock is free, unless a batch that was given up is still being written.
        let result = blocking(move || writer.lock().unwrap_or_else(PoisonError::into_inner).append(&lines)).await;
        vec![result; batch.len()]
    }
}

/// Runs file I/O where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::disconnected(format!("file I/O was cut off: {error}; it is tried again"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::http::Ingress;

    fn target(base_dir: &Path, format: Format) -> FileTarget {
        let context = BuildContext {
            pipeline: "orders".into(),
            base_dir: base_dir.to_owned(),
            data_dir: base_dir.join("data"),
            ingress: Ingress::default(),
            spool: None,
            ordered: false,
            queues: Default::default(),
        };
        FileTarget::new(&TargetConfig { path: "out/x.jsonl".into(), format }, &context)
    }

    #[tokio::test]
    async fn every_message_is_one_line_of_the_file_beside_the_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let outlet = target(folder.path(), Format::Body).connect().await.expect("connected");
        let batch: Vec<_> =
            ["{\"a\": 1.0}", "text"].into_iter().map(|body| Arc::new(Message::new("s", "t", body))).collect();
        assert_eq!(outlet.publish(&batch).await, [Ok(()), Ok(())]);
        let text = std::fs::read_to_string(folder.path().join("out/x.jsonl")).expect("read");
        assert_eq!(text, "{\"a\":1.0}\n\"text\"\n");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("out"), "a file").expect("written");
        let failure = target(folder.path(), Format::Event).connect().await.err().expect("a failure");
        assert!(failure.text.contains("out/x.jsonl"), "{}", failure.text);
    }
}
