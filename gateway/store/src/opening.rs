//! Opening what was read: bodies are decrypted, unpacked and parsed once a claim is committed, by who asked for it, never
//! in the change: all other changes would wait for it.
//!
//! One that cannot be opened (its key is not there, it was changed, it is damaged) keeps no other back: whoever claimed it
//! sets it aside.

use std::sync::Arc;
use std::time::Duration;

use crate::error::StoreError;
use crate::store::Store;
use crate::vault::Look;

/// How long what cannot be opened waits until that is tried again: keys come back from backups.
pub(crate) const SET_ASIDE_PAUSE: Duration = Duration::from_secs(600);

/// Beyond this, it is done on a thread that may block.
const MAX_INLINE_BYTES: usize = 64 << 10;

/// Something as it was read.
pub(crate) trait Sealed: Sized + Send + 'static {
    type Opened: Send + 'static;

    /// Of heads and bodies as they are stored.
    fn size_bytes(&self) -> usize;

    /// # Errors
    /// `Damaged`, `UnknownKey`: it cannot be opened. `Encrypted`: nothing can be opened here.
    fn open(&self) -> Result<Self::Opened, StoreError>;
}

/// Something that cannot be opened, and why.
#[derive(Debug)]
pub(crate) struct Unreadable<S> {
    pub sealed: S,
    pub error: StoreError,
}

pub(crate) type Opening<S> = Result<<S as Sealed>::Opened, Unreadable<S>>;

/// What has been opened, or is to be.
enum Step<S: Sealed> {
    Done(Opening<S>),
    ToDo(S),
}

impl Store {
    /// Opens all of them, in order. Takes up keys first that another gateway has just made, if that is what is missing.
    ///
    /// # Errors
    /// `Encrypted`, `MasterKey`: this gateway can open none of them, another one may. What is wrong with the store.
    pub(crate) async fn open_all<S: Sealed>(&self, sealed: Vec<S>) -> Result<Vec<Opening<S>>, StoreError> {
        let opened = open_each(sealed.into_iter().map(Step::ToDo).collect()).await?;
        let lacks_key = |one: &Opening<S>| matches!(one, Err(Unreadable { error: StoreError::UnknownKey { .. }, .. }));
        if !opened.iter().any(lacks_key) {
            return Ok(opened);
        }
        self.ask(Look(Arc::clone(self.vault()))).await?;
        let again = opened.into_iter().map(|one| match one {
            Err(Unreadable { sealed, error: StoreError::UnknownKey { .. } }) => Step::ToDo(sealed),
            done => Step::Done(done),
        });
        open_each(again.collect()).await
    }
}

async fn open_each<S: Sealed>(steps: Vec<Step<S>>) -> Result<Vec<Opening<S>>, StoreError> {
    let size_bytes: usize = steps.iter().map(Step::size_bytes).sum();
    let all = move || steps.into_iter().map(Step::finish).collect();
    if size_bytes <= MAX_INLINE_BYTES {
        return all();
    }
    let doing = "open messages";
    tokio::task::spawn_blocking(all).await.map_err(|_| StoreError::Closed { doing })?
}

impl<S: Sealed> Step<S> {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Done(_) => 0,
            Self::ToDo(sealed) => sealed.size_bytes(),
        }
    }

    fn finish(self) -> Result<Opening<S>, StoreError> {
        let sealed = match self {
            Self::Done(done) => return Ok(done),
            Self::ToDo(sealed) => sealed,
        };
        match sealed.open() {
            Ok(opened) => Ok(Ok(opened)),
            Err(error) if error.is_of_one_record() => Ok(Err(Unreadable { sealed, error })),
            Err(error) => Err(error),
        }
    }
}
