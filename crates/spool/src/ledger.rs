//! Where every task is: moves between the folders, each one rename, each content one replace.
//!
//! ```text
//! submit ─► queue/priority_N ─claim─► processing ─finish─► complete | failed
//!                 ▲  └─reject─► failed/<name>.rejected        ▲
//!                 └────────── requeue ──┴──── fail ───────────┘
//! ```
//! Renames need no fsync of their own: the folders they touched are noted in [`Ledger::pending`], and somebody who may
//! block syncs them together before anybody is told. Not here: choosing (`policy`), and what happened (`link`).

mod claim;
mod end;
pub(crate) mod essence;
mod reject;
pub(crate) mod requeue;
mod submit;

use std::io;
use std::path::{Path, PathBuf};

use model::{AttemptKey, Durability, Fault, TaskId, TaskRecord};

pub use claim::fresh as fresh_id;
pub use reject::{REJECTION_SCHEMA_VERSION, Rejection, rejection_of};
pub use submit::{Submission, SubmitError};

use crate::atomic::Folder;
use crate::layout::{Layout, task_file};
use crate::sync::Pending;

/// Largest record that is read back: a result may be much larger than a task.
pub(crate) const RECORD_BYTES_MAX: u64 = 64 << 20;

/// Moves tasks between the folders. Many processes may submit; the brain's ledger is the only one that does the rest.
#[derive(Debug)]
pub struct Ledger {
    layout: Layout,
    durability: Durability,
    epoch: u64,
    pending: Pending,
    wishes: claim::Wishes,
}

/// Why an entry was not claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is no longer there.
    #[error("its file is gone")]
    Gone,
    /// A task of this id exists. The entry has been answered: dropped if it is the same task, else rejected.
    #[error("it is a duplicate of `{of}`: {fault}")]
    Duplicate {
        /// The id.
        of: TaskId,
        /// Whether it was the same task, and so was dropped without a trace.
        dropped: bool,
        /// What is said of it.
        fault: Box<Fault>,
    },
    /// The disk refused; the entry is where it was.
    #[error("failed to claim it: {0}")]
    Io(#[from] io::Error),
}

/// Why a record could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no whole record of this attempt anywhere.
    #[error("no whole record of attempt {0} was found, neither in the outbox nor in `processing`")]
    NoRecord(AttemptKey),
    /// The record is not of that attempt, or says nothing about an end.
    #[error("the record in {} is not the end of attempt {key}", path.display())]
    Stale {
        /// As asked for.
        key: AttemptKey,
        /// The record.
        path: PathBuf,
    },
    /// The task had ended before, otherwise: the first end stands, the second is kept aside. This breaks a promise
    /// and must be shown; for the attempt it is the end all the same.
    #[error("task `{task_id}` had ended before: {} stands, the second record lies at {}", kept.display(), aside.display())]
    Conflict {
        /// The task.
        task_id: TaskId,
        /// The end that stands.
        kept: PathBuf,
        /// Where the second one lies.
        aside: PathBuf,
        /// What the second one says.
        record: Box<TaskRecord>,
    },
    /// The disk refused, and everything is whole; it may be tried again.
    #[error("failed to move {about}: {source}")]
    Io {
        /// The attempt, task or file.
        about: String,
        /// Why.
        source: io::Error,
    },
}

impl LedgerError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// Makes an [`LedgerError::Io`] about something.
fn about<T: ToString + ?Sized>(what: &T) -> impl FnOnce(io::Error) -> LedgerError + use<'_, T> {
    move |source| LedgerError::Io { about: what.to_string(), source }
}

impl Ledger {
    /// A ledger of this spool.
    #[must_use]
    pub fn new(layout: Layout, durability: Durability) -> Self {
        Self {
            pending: Pending::new(durability),
            layout,
            durability,
            epoch: 0,
            wishes: claim::Wishes::default(),
        }
    }

    /// The epoch of the brain that holds this ledger: it names what is set aside.
    pub const fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// The spool's layout.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What waits to be synced. Nobody is told of an end before it is.
    pub const fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }

    /// The first of complete and failed that has this task.
    fn ended(&self, task: &TaskId) -> io::Result<Option<PathBuf>> {
        let name = task_file(task);
        for folder in [self.layout.complete(), self.layout.failed()] {
            if has(&folder, &name)? {
                return Ok(Some(folder.join(name)));
            }
        }
        Ok(None)
    }

    fn open(&self, folder: PathBuf) -> io::Result<Folder> {
        Folder::open_or_make(folder)
    }
}

/// Whether `folder` has anything of this name; a folder that is missing has nothing.
fn has(folder: &Path, name: &str) -> io::Result<bool> {
    match rustix::fs::lstat(folder.join(name)) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A record, if these bytes are one, whole.
pub(crate) fn record_of(bytes: &[u8]) -> Option<TaskRecord> {
    serde_json::from_slice(bytes).ok()
}

/// A record as it is written: for people, too.
pub(crate) fn bytes_of(record: &TaskRecord) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(record)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests;
