//! FINISH, and the end of a task without a record of its own; what people see while it runs.

use std::io;
use std::path::PathBuf;

use model::{AttemptKey, Durability, Status, TaskId, TaskRecord, WorkerId};

use super::essence::Essence;
use super::{Ledger, LedgerError, RECORD_BYTES_MAX, about, bytes_of, record_of};
use crate::atomic::{Folder, Staged, move_new, move_over, stage};
use crate::crash;
use crate::layout::{Layout, record_file, task_file};

impl Ledger {
    /// Moves a finished record from a worker's outbox to `complete` or `failed`, as it says itself. Renames only, so it
    /// works on a full disk; it may be repeated after any crash, and then goes on where it stopped.
    ///
    /// The end may be told once what is [`Ledger::pending`] is synced.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn finish(&mut self, worker: &WorkerId, key: &AttemptKey) -> Result<TaskRecord, LedgerError> {
        let processing = self.open(self.layout.processing()).map_err(about(key))?;
        let outbox = match Folder::open(self.layout.outbox(worker)) {
            Ok(outbox) => Some(outbox),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(about(key)(error)),
        };
        if let Some(outbox) = outbox
            && let Some(bytes) = read_if_there(&outbox, &record_file(key)).map_err(about(key))?
        {
            let record = whole_end(&bytes, key, outbox.path().join(record_file(key)))?;
            self.bring_home(&key.task_id, &record, &processing).map_err(about(key))?;
            move_over(&outbox, &record_file(key), &processing, &task_file(&key.task_id))
                .map_err(about(key))?;
            self.pending.folder(outbox.path());
            crash::point("finish.F5");
            return self.close(&key.task_id, record, &bytes, &processing);
        }
        self.finish_again(key, &processing)
    }

    /// The outbox has nothing: an earlier try may have come further.
    fn finish_again(&mut self, key: &AttemptKey, processing: &Folder) -> Result<TaskRecord, LedgerError> {
        let name = task_file(&key.task_id);
        if let Some(bytes) = read_if_there(processing, &name).map_err(about(key))?
            && let Ok(record) = whole_end(&bytes, key, processing.path().join(&name))
        {
            return self.close(&key.task_id, record, &bytes, processing);
        }
        // An end of the task is an end of this attempt, also where another record made it: a conflict is told once.
        for folder in [self.layout.complete(), self.layout.failed()] {
            let folder = self.open(folder).map_err(about(key))?;
            let there = read_if_there(&folder, &name).map_err(about(key))?;
            if let Some(record) = there.and_then(|bytes| record_of(&bytes)).filter(has_ended) {
                self.pending.folder(folder.path());
                self.pending.folder(processing.path());
                return Ok(record);
            }
        }
        Err(LedgerError::NoRecord(key.clone()))
    }

    /// F6: terminal content leaves `processing`. The first end of a task stands, whatever comes after it.
    pub(super) fn close(
        &mut self,
        task: &TaskId,
        record: TaskRecord,
        bytes: &[u8],
        processing: &Folder,
    ) -> Result<TaskRecord, LedgerError> {
        let name = task_file(task);
        let target = match record.status {
            Some(Status::Complete) => self.layout.complete(),
            _ => self.layout.failed(),
        };
        let target = self.open(target).map_err(about(task))?;
        self.pending.folder(processing.path());
        self.pending.folder(target.path());
        let before = self.ended(task).map_err(about(task))?;
        let Some(kept) = before else {
            return match move_new(processing, &name, &target, &name) {
                Ok(()) => {
                    crash::point("finish.F6");
                    Ok(record)
                }
                Err(error) => Err(about(task)(error)),
            };
        };
        if std::fs::read(&kept).map_err(about(task))? == bytes {
            processing.remove(&name).map_err(about(task))?;
            return Ok(record);
        }
        let failed = self.open(self.layout.failed()).map_err(about(task))?;
        let aside = self.set_aside(task, "conflict", processing, &failed).map_err(about(task))?;
        Err(LedgerError::Conflict { task_id: task.clone(), kept, aside, record: Box::new(record) })
    }

    fn set_aside(
        &mut self,
        task: &TaskId,
        what: &str,
        from: &Folder,
        failed: &Folder,
    ) -> io::Result<PathBuf> {
        let mut name = format!("{task}.{what}.{}", self.epoch);
        for turn in 2..1_000 {
            match move_new(from, &task_file(task), failed, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    name = format!("{task}.{what}.{}.{turn}", self.epoch);
                }
                done => return done.map(|()| failed.path().join(&name)),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// A power cut may have forgotten a claim: then the same task lies in a queue, and is taken out of it again, so that
    /// there are never two entries of it.
    pub(super) fn bring_home(
        &mut self,
        task: &TaskId,
        record: &TaskRecord,
        processing: &Folder,
    ) -> io::Result<()> {
        let name = task_file(task);
        if processing.has(&name)? {
            return Ok(());
        }
        for (class, priority) in self.layout.queues() {
            let queue = match Folder::open(self.layout.queue(class, priority)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let there = read_if_there(&queue, &name)?.and_then(|bytes| record_of(&bytes));
            if there.is_some_and(|there| Essence::of(&there, class) == Essence::of(record, class)) {
                move_new(&queue, &name, processing, &name)?;
                self.pending.folder(queue.path());
                return Ok(());
            }
        }
        Ok(())
    }

    /// K2 to K4: ends a claimed task with a record of the brain's own. Blocks for one fsync.
    ///
    /// # Errors
    /// [`LedgerError::Io`]; repeated, it goes on where it stopped.
    pub fn fail(&mut self, task: &TaskId, record: &TaskRecord) -> Result<(), LedgerError> {
        if self.ended(task).map_err(about(task))?.is_some() {
            return Ok(());
        }
        let mut record = record.clone();
        record.task_id = Some(task.clone());
        record.status = Some(Status::Failed);
        let bytes = bytes_of(&record).map_err(about(task))?;
        let processing = self.open(self.layout.processing()).map_err(about(task))?;
        self.bring_home(task, &record, &processing).map_err(about(task))?;
        let staged =
            stage(&self.layout, &bytes, self.durability, ["cancel.K2", "cancel.K2"]).map_err(about(task))?;
        let staging = self.open(self.layout.stage()).map_err(about(task))?;
        move_over(&staging, &staged.name, &processing, &task_file(task)).map_err(about(task))?;
        crash::point("cancel.K3");
        self.close(task, record, &bytes, &processing).map(drop)
    }

    /// T5: writes what people shall see of a running task. Blocks for one fsync; it needs nothing of a ledger, so that
    /// another thread can do it.
    ///
    /// # Errors
    /// As the system says; then people see the task as it was dropped.
    pub fn stage_running(layout: &Layout, durability: Durability, record: &TaskRecord) -> io::Result<Staged> {
        stage(layout, &bytes_of(record)?, durability, ["start.T5", "start.T5"])
    }

    /// T6: puts it in place; only while the attempt still runs. Whether there was an entry to replace.
    ///
    /// # Errors
    /// As the system says.
    pub fn place_running(&mut self, task: &TaskId, staged: &Staged) -> io::Result<bool> {
        let staging = self.open(self.layout.stage())?;
        let processing = self.open(self.layout.processing())?;
        let there = processing.has(&task_file(task))?;
        if there {
            move_over(&staging, &staged.name, &processing, &task_file(task))?;
            crash::point("start.T6");
        } else {
            staging.remove(&staged.name)?;
        }
        Ok(there)
    }

    /// T5 and T6 at once, for callers that may block.
    ///
    /// # Errors
    /// [`LedgerError::Io`]; nothing depends on it.
    pub fn show_running(&mut self, record: &TaskRecord) -> Result<bool, LedgerError> {
        let Some(task) = record.task_id.clone() else {
            return Err(about("a record without an id")(io::Error::from(io::ErrorKind::InvalidInput)));
        };
        Self::stage_running(&self.layout, self.durability, record)
            .and_then(|staged| self.place_running(&task, &staged))
            .map_err(about(&task))
    }
}

/// The content of a file, if there is one.
pub(super) fn read_if_there(folder: &Folder, name: &str) -> io::Result<Option<Vec<u8>>> {
    match folder.read(name, RECORD_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A record that is whole, ended, and of this attempt. A torn one does not exist.
fn whole_end(bytes: &[u8], key: &AttemptKey, path: PathBuf) -> Result<TaskRecord, LedgerError> {
    let Some(record) = record_of(bytes) else { return Err(LedgerError::NoRecord(key.clone())) };
    if has_ended(&record)
        && record.task_id.as_ref() == Some(&key.task_id)
        && record.attempt == Some(key.attempt)
    {
        Ok(record)
    } else {
        Err(LedgerError::Stale { key: key.clone(), path })
    }
}

const fn has_ended(record: &TaskRecord) -> bool {
    matches!(record.status, Some(Status::Complete | Status::Failed))
}
