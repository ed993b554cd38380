//! Queue folders and batches: what people drop, and when the brain sees it.

use model::{BatchId, Entry, Millis, TaskId};
use policy::event::{BatchFacts, Event};

use super::{File, Sim};
use crate::agenda::Happening;
use crate::people::{Job, Wish};

impl Sim {
    pub(super) fn arrives(&mut self, number: usize) {
        self.record.arrivals_left = self.record.arrivals_left.saturating_sub(1);
        let Some(arrival) = self.arrivals.get(number) else { return };
        match arrival.what.clone() {
            Wish::Task(job) => self.drop_job(*job),
            Wish::Batch { batch_id, script, mode, items } => {
                let facts = BatchFacts {
                    batch_id: batch_id.clone(),
                    script,
                    gpu_mode: mode,
                    total: items.len() as u64,
                    completed: 0,
                    failed: 0,
                    paused: false,
                };
                self.batches.insert(batch_id, facts.clone());
                self.checks.batch_accepted(&facts);
                for job in &items {
                    self.accept(job);
                }
                self.tell(Event::Batch(facts));
                let delay = Millis(self.dice.between(1, 40));
                self.later(delay, Happening::Expands(number));
            }
        }
    }

    /// The brain puts a batch's items into its queue; one that is away does so when it is back.
    pub(super) fn expands(&mut self, number: usize) {
        if !self.brain_is_up {
            return self.later(Millis(1_000), Happening::Expands(number));
        }
        let Some(Wish::Batch { items, .. }) = self.arrivals.get(number).map(|arrival| arrival.what.clone())
        else {
            return;
        };
        for job in items {
            self.put(job.task, None, Millis(1));
        }
    }

    fn drop_job(&mut self, job: Job) {
        self.accept(&job);
        self.put(job.task, None, Millis(1));
    }

    fn accept(&mut self, job: &Job) {
        self.checks.accepted_one(&job.task);
        self.record.arrived(&job.task, self.now);
        self.jobs.insert(job.task.task_id.clone(), job.clone());
    }

    /// A file appears in a queue folder.
    pub(super) fn put(&mut self, task: model::Task, not_before: Option<Millis>, delay: Millis) {
        self.count += 1;
        let entry = entry_of(&task);
        self.files.insert(entry.clone(), File { task, order: self.count, not_before });
        self.later(delay, Happening::Seen(entry));
    }

    pub(super) fn seen(&mut self, entry: &Entry) {
        let Some(file) = self.files.get(entry) else { return };
        let (task, order, not_before) = (Box::new(file.task.clone()), file.order, file.not_before);
        self.tell(Event::Queued { entry: entry.clone(), task, order, not_before });
    }

    pub(super) fn unseen(&mut self, entry: Entry) {
        if !self.files.contains_key(&entry) {
            self.tell(Event::Unqueued(entry));
        }
    }

    /// A task has ended: what its batch's record says.
    pub(super) fn count_in_batch(&mut self, batch: Option<&BatchId>) {
        let Some(facts) = batch.and_then(|batch| self.recounted(batch)) else { return };
        self.batches.insert(facts.batch_id.clone(), facts.clone());
        self.tell(Event::Batch(facts));
    }

    /// A batch's record, counted anew from the folders.
    pub(super) fn recounted(&self, batch: &BatchId) -> Option<BatchFacts> {
        let mut facts = self.batches.get(batch)?.clone();
        let (completed, failed) = self.record.batch_ends(batch);
        (facts.completed, facts.failed) = (completed, failed);
        Some(facts)
    }

    /// A person deletes a queued file.
    pub(super) fn delete(&mut self, task_id: &TaskId) -> bool {
        let mine = |file: &File| file.task.task_id == *task_id && file.task.batch_id.is_none();
        let found = self.files.iter().find(|(_, file)| mine(file));
        let Some(entry) = found.map(|(entry, _)| entry.clone()) else { return false };
        self.files.remove(&entry);
        self.checks.deleted(task_id);
        self.record.deleted(task_id);
        let delay = Millis(self.dice.between(1, 2_000));
        self.later(delay, Happening::Unseen(entry));
        true
    }
}

/// Where a task lies.
pub(super) fn entry_of(task: &model::Task) -> Entry {
    Entry { class: task.class(), priority: task.priority, name: format!("{}.json", task.task_id) }
}
