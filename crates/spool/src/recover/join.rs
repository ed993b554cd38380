//! Reading one worker's logs, and asking the task folders which of its attempts are settled already.

use std::collections::BTreeSet;
use std::io;

use model::json::read_object;
use model::link::{
    AttemptReport, AttemptState, Orders, OrdersLine, Reports, ReportsLine, StopWhy, WorkerIdentity,
};
use model::link::{Line, Wish};
use model::validate::TASK_KEYS;
use model::{AttemptKey, Entry, Priority, Status, TaskClass, TaskId, TaskRecord, WorkerId};

use super::{FoundWorker, outbox};
use crate::atomic::Folder;
use crate::layout::{Layout, ORDERS, OUTBOX, REPORTS, task_file};
use crate::ledger::{RECORD_BYTES_MAX, requeue};
use crate::link::Reader;

/// A worker's logs folded, its outbox folded into them. None if its folder is gone.
pub(super) fn read_logs(layout: &Layout, id: &WorkerId) -> io::Result<Option<FoundWorker>> {
    let folder = layout.worker(id);
    if !folder.is_dir() {
        return Ok(None);
    }
    let (mut reports, _) = fold::<ReportsLine>(&folder, REPORTS)?;
    let (orders, orders_epoch) = fold::<OrdersLine>(&folder, ORDERS)?;
    let records = match Folder::open(folder.join(OUTBOX)) {
        Ok(folder) => outbox::read(&folder)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => outbox::Outbox::default(),
        Err(error) => return Err(error),
    };
    for (key, record) in &records.whole {
        fold_in(&mut reports, &orders, key, record);
    }
    let process = reports.worker.as_ref().map(WorkerIdentity::process);
    Ok(Some(FoundWorker {
        id: id.clone(),
        alive: false,
        reports,
        orders,
        orders_epoch,
        lock: None,
        process,
        other_boot: false,
        torn: records.torn,
    }))
}

fn fold<L: Line>(folder: &std::path::Path, log: &str) -> io::Result<(L::State, u64)> {
    match Reader::<L>::open(folder, log) {
        Ok(mut reader) => {
            reader.read()?;
            Ok((reader.state().clone(), reader.seen().epoch))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((L::State::default(), 0)),
        Err(error) => Err(error),
    }
}

/// A whole record is an ended attempt, reported or not.
fn fold_in(reports: &mut Reports, orders: &Orders, key: &AttemptKey, record: &TaskRecord) {
    let stopped = orders.attempts.get(key).is_some_and(|order| order.wish == Wish::Stop);
    let known = reports.attempts.entry(key.clone()).or_insert_with(|| AttemptReport {
        task_id: key.task_id.clone(),
        attempt: key.attempt,
        state: AttemptState::Ended,
        since: None,
        progress: None,
        media_s: None,
        yields: false,
        outcome: None,
    });
    known.state = AttemptState::Ended;
    // What the worker reported itself knows more than its record does.
    known.outcome.get_or_insert_with(|| outbox::outcome_of(record, stopped));
}

/// Whether a dead worker died with the machine. A worker whose first report is lost did: reports are never synced.
pub(super) fn died_with_machine(found: &FoundWorker, boot: &str) -> bool {
    let stated = found.process.as_ref().or(found.orders.brain.as_ref());
    stated.is_none_or(|process| process.boot_id != boot)
}

/// The folders in which a claimed task's file may lie.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) processing: Folder,
    pub(super) complete: Folder,
    pub(super) failed: Folder,
    pub(super) queues: Vec<(TaskClass, Priority, Folder)>,
}

/// What is known of an attempt from where its task lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing was decided: its reports and its record are news.
    Open,
    /// Its task has ended for good.
    Ended,
    /// Its record was applied: the task goes on without it, or is on its way to its last folder.
    Applied,
}

impl Places {
    pub(super) fn open(layout: &Layout) -> io::Result<Self> {
        let mut queues = Vec::new();
        for (class, priority) in layout.queues() {
            match Folder::open(layout.queue(class, priority)) {
                Ok(folder) => queues.push((class, priority, folder)),
                // A person removed it: nothing lies in it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            processing: Folder::open_or_make(layout.processing())?,
            complete: Folder::open_or_make(layout.complete())?,
            failed: Folder::open_or_make(layout.failed())?,
            queues,
        })
    }

    /// The files of this name in the queue folders.
    pub(super) fn queued(&self, name: &str) -> io::Result<Vec<(Entry, &Folder)>> {
        let mut found = Vec::new();
        for (class, priority, folder) in &self.queues {
            if folder.has(name)? {
                found.push((Entry { class: *class, priority: *priority, name: name.to_owned() }, folder));
            }
        }
        Ok(found)
    }

    /// What has become of an attempt.
    pub(super) fn fate(&self, key: &AttemptKey) -> io::Result<Fate> {
        let name = task_file(&key.task_id);
        if self.complete.has(&name)? || self.failed.has(&name)? {
            return Ok(Fate::Ended);
        }
        if let Some(body) = record(&self.processing, &name)? {
            return Ok(if is_past(&body, key.attempt) { Fate::Applied } else { Fate::Open });
        }
        // Requeued; or it ended and a person has put the record into a queue, to have it run again.
        for name in requeue::names(&key.task_id, key.attempt) {
            for (_, folder) in self.queued(&name)? {
                let body = record(folder, &name)?.filter(|body| is_about(body, &key.task_id));
                if body.is_some_and(|body| is_past(&body, key.attempt)) {
                    return Ok(Fate::Applied);
                }
            }
        }
        Ok(Fate::Open)
    }
}

/// Whether a file's content speaks of this task, or names none.
pub(super) fn is_about(body: &TaskRecord, task: &TaskId) -> bool {
    body.task_id.as_ref().is_none_or(|id| id == task)
}

/// Whether the content of a task's file already has this attempt behind it.
pub(super) fn is_past(body: &TaskRecord, attempt: u32) -> bool {
    let ended = has_ended(body) && body.attempt.is_some_and(|last| last >= attempt);
    ended || body.history.iter().any(|past| past.attempt == attempt)
}

/// Whether a content is that of an ended task.
pub(super) fn has_ended(body: &TaskRecord) -> bool {
    matches!(body.status, Some(Status::Complete | Status::Failed))
}

/// A task file's content; none if there is no such file, or none that could be read as a task.
pub(super) fn record(folder: &Folder, name: &str) -> io::Result<Option<TaskRecord>> {
    let bytes = match folder.read(name, RECORD_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A link, a pipe, a folder: nothing of ours.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(code) if is_no_file(code)) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(read_object::<TaskRecord>(&bytes, TASK_KEYS).ok().map(|read| read.value))
}

fn is_no_file(code: i32) -> bool {
    use rustix::io::Errno;
    [Errno::LOOP, Errno::NXIO, Errno::ISDIR].iter().any(|errno| errno.raw_os_error() == code)
}

/// Takes out of a worker's logs what needs no decision any more. A living worker that still works for an ended task
/// is asked to stop.
pub(super) fn drop_settled(places: &Places, found: &mut FoundWorker) -> io::Result<()> {
    let keys: BTreeSet<AttemptKey> =
        found.orders.attempts.keys().chain(found.reports.attempts.keys()).cloned().collect();
    for key in keys {
        let fate = places.fate(&key)?;
        let works = found.alive
            && found.reports.attempts.get(&key).is_none_or(|report| report.state == AttemptState::Running);
        match fate {
            Fate::Open => {}
            Fate::Ended | Fate::Applied if works => {
                if let Some(order) = found.orders.attempts.get_mut(&key)
                    && order.wish == Wish::Run
                {
                    (order.wish, order.why) = (Wish::Stop, Some(StopWhy::Superfluous));
                }
            }
            Fate::Ended | Fate::Applied => {
                found.orders.attempts.remove(&key);
                found.reports.attempts.remove(&key);
            }
        }
    }
    Ok(())
}
