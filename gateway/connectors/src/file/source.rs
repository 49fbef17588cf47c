//! The source: a file, line by line, with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::delivery::{Received, Settled, Settlement};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::{Connection, Inlet, Settler, Source};

use super::checkpoint::{self, FileId};
use super::config::SourceConfig;
use super::ledger::{self, Ledger};
use super::tail::{Look, Tail};
use super::target::blocking;
use crate::json_lines::{self, Format, Line, Origin};
use crate::redelivery::Redelivery;
use crate::registry::BuildContext;

/// Reads a file of JSON Lines, from where the checkpoint says.
///
/// - **Checkpoint**: passes a line only when that line and all before it are settled; written with every batch of
///   settlements (temporary file, fsync, rename, fsync of the folder). After a crash, lines past it are read again.
/// - **Requeued** lines are delivered again from memory while the gateway runs, and are past the checkpoint if it stops.
/// - **Rotation and truncation**: see [`Tail`].
/// - **A last line without line break** is delivered when nothing more can follow: at the end of a file that is not
///   followed, and before a rotated file is left.
/// - **Ids** are made of the file's generation and the line's offset, so that a line has the same id when it is read
///   again. The CloudEvents `source` is `file:` and the path as configured.
pub struct FileSource {
    reader: Reader,
    checkpoint: Arc<PathBuf>,
    ledger: Arc<Ledger>,
    redelivery: Arc<Redelivery>,
}

/// The settings the inlet needs.
#[derive(Debug, Clone)]
struct Reader {
    path: PathBuf,
    follow: bool,
    poll: Duration,
    format: Format,
    max_line_bytes: usize,
    origin: Origin,
}

impl FileSource {
    /// Not yet connected.
    pub fn new(config: &SourceConfig, context: &BuildContext) -> Self {
        let path = context.base_dir.join(&config.path);
        let checkpoint = match &config.checkpoint {
            Some(checkpoint) => context.base_dir.join(checkpoint),
            None => checkpoint::default_path(&context.data_dir, &context.pipeline, &path),
        };
        let reader = Reader {
            path,
            follow: config.follow,
            poll: config.poll.0,
            format: config.format,
            max_line_bytes: config.max_line.0 as usize,
            origin: Origin { source: format!("file:{}", config.path.display()), kind: config.kind.clone() },
        };
        Self { reader, checkpoint: Arc::new(checkpoint), ledger: Arc::default(), redelivery: Arc::default() }
    }
}

#[async_trait]
impl Source for FileSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let (reader, checkpoint, read_to) = (self.reader.clone(), Arc::clone(&self.checkpoint), self.ledger.read_to());
        let tail = blocking(move || {
            let position = match read_to {
                Some(position) => Some(position),
                None => checkpoint::load(&checkpoint)?,
            };
            Tail::open(&reader.path, position.as_ref(), reader.max_line_bytes, reader.follow)
                .map_err(|error| failure(&reader.path, reader.follow, &error))
        })
        .await?;
        let inlet = FileInlet {
            reader: self.reader.clone(),
            tail: Some(tail),
            ledger: Arc::clone(&self.ledger),
            redelivery: Arc::clone(&self.redelivery),
        };
        let settler = FileSettler {
            checkpoint: Arc::clone(&self.checkpoint),
            ledger: Arc::clone(&self.ledger),
            redelivery: Arc::clone(&self.redelivery),
        };
        Ok(Connection { inlet: Box::new(inlet), settler: Box::new(settler), resumes: true, postpones: false })
    }
}

struct FileInlet {
    reader: Reader,
    /// Away only while it is looking.
    tail: Option<Tail>,
    ledger: Arc<Ledger>,
    redelivery: Arc<Redelivery>,
}

impl FileInlet {
    async fn look(&mut self, max: usize) -> Result<Look, Failure> {
        let Some(mut tail) = self.tail.take() else {
            return Err(Failure::disconnected(format!("reading {} was cut off", self.reader.path.display())));
        };
        let (path, follow) = (self.reader.path.clone(), self.reader.follow);
        let (tail, look) = blocking(move || {
            let look = tail.look(max);
            Ok((tail, look))
        })
        .await?;
        self.tail = Some(tail);
        look.map_err(|error| failure(&path, follow, &error))
    }

    fn hand_over(&self, generation: u64, file: FileId, lines: Vec<Line>) -> Vec<Received> {
        self.ledger.hand_over(generation, file, &lines);
        self.redelivery.handed_over(lines.len());
        let received = lines.into_iter().map(|line| {
            let token = ledger::token(generation, &line);
            let id = format!("{generation}-{}", line.start);
            Received::new(json_lines::decode(line, self.reader.format, &self.reader.origin, id), token)
        });
        received.collect()
    }
}

#[async_trait]
impl Inlet for FileInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        loop {
            let again = self.redelivery.take(max);
            if !again.is_empty() {
                return Ok(again);
            }
            if self.ledger.is_full() {
                self.redelivery.changed().await;
                continue;
            }
            match self.look(max).await? {
                Look::Lines { generation, file, lines } => return Ok(self.hand_over(generation, file, lines)),
                Look::Nothing => tokio::select! {
                    () = self.redelivery.changed() => {}
                    () = tokio::time::sleep(self.reader.poll) => {}
                },
                // What is in flight may yet be requeued.
                Look::End if self.redelivery.is_idle() => return Err(Failure::end_of_input()),
                Look::End => self.redelivery.changed().await,
            }
        }
    }
}

struct FileSettler {
    checkpoint: Arc<PathBuf>,
    ledger: Arc<Ledger>,
    redelivery: Arc<Redelivery>,
}

#[async_trait]
impl Settler for FileSettler {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        let done = batch.iter().filter(|settled| match settled.outcome.settlement {
            Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => true,
            Settlement::Postponed { .. } | Settlement::Requeued => false,
        });
        self.ledger.settle(done.map(|settled| settled.token));
        if let Some(position) = self.ledger.unsaved() {
            let path = Arc::clone(&self.checkpoint);
            let position = blocking(move || checkpoint::save(&path, &position).map(|()| position)).await?;
            self.ledger.saved(&position);
        }
        // Last, since a batch that fails is settled again and must not be requeued twice.
        self.redelivery.settle(batch);
        Ok(())
    }
}

fn failure(path: &Path, follow: bool, error: &io::Error) -> Failure {
    let text = |advice: &str| format!("reading {}: {error}; {advice}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound if follow => Failure::transient(text("waiting for it to be made")),
        io::ErrorKind::NotFound => {
            Failure::permanent(text("name a file that exists, or set `follow: true` to wait for it"))
        }
        io::ErrorKind::PermissionDenied => Failure::permanent(text("give the gateway's user the right to read it")),
        io::ErrorKind::IsADirectory => Failure::permanent(text("name a file in it")),
        _ => Failure::disconnected(text("the file is opened anew")),
    }
}

#[cfg(test)]
mod tests;
