//! Group commit: what has been renamed or appended becomes durable together, off the loop, and only then are the
//! ends of tasks told.
//!
//! One group is in flight at a time; whatever comes meanwhile is the next group. So a lone task waits for one sync,
//! and a thousand tasks share one.

use model::{AttemptKey, TaskId, TaskRecord, WorkerId};
use spool::sync::SyncJob;
use tokio::sync::mpsc::UnboundedSender;

use crate::inbox::Note;

/// A task whose record lies in `complete/` or `failed/`.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// The task.
    pub(crate) task_id: TaskId,
    /// The attempt to drop from orders, where there was one.
    pub(crate) at: Option<(WorkerId, AttemptKey)>,
    /// What is written there.
    pub(crate) record: Box<TaskRecord>,
}

/// A group that has been synced, or could not be.
#[derive(Debug)]
pub(crate) struct Flushed {
    /// Tasks that ended with it.
    pub(crate) ended: Vec<Ended>,
    /// Why it is not durable, where it is not.
    pub(crate) error: Option<String>,
}

/// The group that is being collected.
#[derive(Debug)]
pub(crate) struct Flush {
    ended: Vec<Ended>,
    in_flight: bool,
    notes: UnboundedSender<Note>,
}

impl Flush {
    pub(crate) const fn new(notes: UnboundedSender<Note>) -> Self {
        Self { ended: Vec::new(), in_flight: false, notes }
    }

    /// Notes the end of a task; it is told once its group is durable.
    pub(crate) fn add(&mut self, ended: Ended) {
        self.ended.push(ended);
    }

    /// Whether a group is collected or in flight.
    pub(crate) fn is_idle(&self) -> bool {
        !self.in_flight && self.ended.is_empty()
    }

    /// Whether another group may start.
    pub(crate) const fn may_start(&self) -> bool {
        !self.in_flight
    }

    /// Starts syncing `jobs`; the group's ends come back as a note.
    pub(crate) fn start(&mut self, jobs: Vec<SyncJob>) {
        if jobs.is_empty() && self.ended.is_empty() {
            return;
        }
        self.in_flight = true;
        let (ended, notes) = (std::mem::take(&mut self.ended), self.notes.clone());
        tokio::task::spawn_blocking(move || {
            let error = jobs.into_iter().find_map(|job| job.run().err()).map(|error| error.to_string());
            // Nobody listens once the loop has ended; the next brain finds the records where they lie.
            drop(notes.send(Note::Flushed(Flushed { ended, error })));
        });
    }

    /// The group in flight has come back.
    pub(crate) const fn landed(&mut self) {
        self.in_flight = false;
    }
}
