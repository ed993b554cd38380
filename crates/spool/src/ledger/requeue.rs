//! REQUEUE: an attempt is over, its task is not.

use std::io;

use model::{AttemptKey, Entry, Priority, Status, TaskClass, TaskId, TaskRecord, WorkerId};

use super::end::read_if_there;
use super::{Ledger, LedgerError, about, bytes_of, record_of};
use crate::atomic::{Folder, move_new, move_over, stage};
use crate::crash;
use crate::layout::{record_file, task_file};

impl Ledger {
    /// Puts a task back into a queue with `record` as its content (status queued, `key`'s attempt in its history), and
    /// removes that attempt's record from the worker's outbox. Blocks for one fsync; it may be repeated after any crash.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn requeue(
        &mut self,
        worker: &WorkerId,
        key: &AttemptKey,
        record: &TaskRecord,
        class: TaskClass,
        priority: Priority,
    ) -> Result<Entry, LedgerError> {
        let mut record = record.clone();
        record.task_id = Some(key.task_id.clone());
        record.status = Some(Status::Queued);
        if !lists(&record, key) {
            let path = self.layout.processing().join(task_file(&key.task_id));
            return Err(LedgerError::Stale { key: key.clone(), path });
        }
        let entry = match self.back_already(key, class, priority).map_err(about(key))? {
            Some(entry) => entry,
            None => self.put_back(key, &record, class, priority).map_err(about(key))?,
        };
        match Folder::open(self.layout.outbox(worker)) {
            Ok(outbox) => {
                if outbox.remove(&record_file(key)).map_err(about(key))? {
                    self.pending.folder(outbox.path());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(about(key)(error)),
        }
        crash::point("requeue.R6");
        Ok(entry)
    }

    /// Where an earlier try has put it.
    fn back_already(
        &self,
        key: &AttemptKey,
        class: TaskClass,
        priority: Priority,
    ) -> io::Result<Option<Entry>> {
        let queue = self.open(self.layout.queue(class, priority))?;
        for name in names(&key.task_id, key.attempt) {
            let there = read_if_there(&queue, &name)?.and_then(|bytes| record_of(&bytes));
            if there.is_some_and(|there| there.task_id.as_ref() == Some(&key.task_id) && lists(&there, key)) {
                return Ok(Some(Entry { class, priority, name }));
            }
        }
        Ok(None)
    }

    fn put_back(
        &mut self,
        key: &AttemptKey,
        record: &TaskRecord,
        class: TaskClass,
        priority: Priority,
    ) -> io::Result<Entry> {
        let name = task_file(&key.task_id);
        let processing = self.open(self.layout.processing())?;
        self.bring_home(&key.task_id, record, &processing)?;
        let rewritten = read_if_there(&processing, &name)?
            .and_then(|bytes| record_of(&bytes))
            .is_some_and(|there| there.status == Some(Status::Queued) && lists(&there, key));
        if !rewritten {
            let staged =
                stage(&self.layout, &bytes_of(record)?, self.durability, ["requeue.R1", "requeue.R2"])?;
            let staging = self.open(self.layout.stage())?;
            move_over(&staging, &staged.name, &processing, &name)?;
            crash::point("requeue.R3");
        }
        let queue = self.open(self.layout.queue(class, priority))?;
        self.pending.folder(processing.path());
        self.pending.folder(queue.path());
        for back in names(&key.task_id, key.attempt) {
            match move_new(&processing, &name, &queue, &back) {
                Ok(()) => {
                    crash::point("requeue.R4");
                    return Ok(Entry { class, priority, name: back });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }
}

/// The attempt is applied: it stands in the history.
fn lists(record: &TaskRecord, key: &AttemptKey) -> bool {
    record.history.iter().any(|past| past.attempt == key.attempt)
}

/// The names a task may have in a queue when it comes back: its own, and another where a new drop has that one now.
/// The content states the id, so the name does not matter.
pub(crate) fn names(task: &TaskId, attempt: u32) -> [String; 2] {
    let own = task_file(task);
    let other = TaskId::new(format!("{task}.again-{attempt}"));
    let other = other.or_else(|_| TaskId::new(format!("again-{attempt}.{}", short(task))));
    [own.clone(), other.map_or(own, |other| task_file(&other))]
}

fn short(task: &TaskId) -> &str {
    task.as_str().get(..100).unwrap_or(task.as_str()).trim_end_matches('.')
}
