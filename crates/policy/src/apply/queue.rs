//! Facts about queue folders and batches.

use model::{Entry, GpuMode, Millis, Task, TaskClass, TaskId};

use crate::batch::Batch;
use crate::event::BatchFacts;
use crate::queue::{Admission, Queued};
use crate::shape::Shape;
use crate::unit::{Closing, Unit};
use crate::world::World;

impl World {
    pub(super) fn queued(
        &mut self,
        at: Millis,
        entry: Entry,
        task: Box<Task>,
        order: u64,
        not_before: Option<Millis>,
    ) {
        let mut shape = Shape::of(&task, &self.config);
        shape.needs.vram_mib = shape.needs.vram_mib.max(self.ran_out.get(&task.task_id).copied());
        // Another attempt, or another look at the same file, is no new request.
        let is_new = task.attempt == 0 && task.history.is_empty() && self.queue.get(&entry).is_none();
        if is_new && shape.class() == TaskClass::Llm {
            self.demand.came(at, &task.job_type);
        }
        let returning = self.returning.remove(&task.task_id);
        let known = self.queue.get(&entry).filter(|known| known.task.task_id == task.task_id);
        let waits_since = returning.map(|returning| returning.since).or(known.map(|known| known.since));
        // Its file may be back before that is told.
        let waits_since = waits_since.or_else(|| self.going_back(&task.task_id).map(|unit| unit.since));
        let since = waits_since.unwrap_or_else(|| not_before.unwrap_or(at).max(at));
        let not_before = not_before.max(returning.and_then(|it| it.not_before)).filter(|time| *time > at);
        let cancelled = self.cancel_on_return.remove(&task.task_id)
            || self.queue.get(&entry).is_some_and(|known| known.cancelled);
        let not_before = not_before.filter(|_| !cancelled);
        // A record that a person moved back into a queue may end once more.
        self.ended_lately.forget(&task.task_id);
        if let Some(batch) = task.batch_id.as_ref().and_then(|id| self.batches.get_mut(id)) {
            batch.heard_at = at;
        }
        self.queue.insert(
            entry,
            Queued {
                task,
                order,
                not_before,
                since,
                cancelled,
                shape,
                seen_at: at,
                told: false,
                said_busy: false,
                told_kept: false,
            },
            at,
        );
    }

    /// The attempt of a task that is being put back into its queue.
    fn going_back(&self, task_id: &TaskId) -> Option<&Unit> {
        let mut units = self.attempts_of(task_id).filter_map(|key| self.units.get(key));
        units.find(|unit| matches!(unit.closing, Some(Closing::Requeue { .. })))
    }

    pub(super) fn batch(&mut self, at: Millis, facts: BatchFacts) {
        if facts.completed.saturating_add(facts.failed) > facts.total {
            self.anomaly("batch_has_more_ends_than_items");
        }
        let threshold = self.config.resource_manager.batch_settings.auto_exclusive_threshold;
        let exclusive = facts.mode(threshold) == GpuMode::Exclusive;
        let admission = match facts.remaining() {
            0 => Admission::Shared,
            _ if facts.paused => Admission::Paused,
            _ if exclusive => Admission::Exclusive,
            _ => Admission::Shared,
        };
        self.queue.admit(&facts.batch_id, admission);
        if facts.remaining() == 0 {
            if let Some(batch) = self.batches.remove(&facts.batch_id) {
                self.batches_exclusive.remove(&batch.order);
            }
            return;
        }
        let batch_id = facts.batch_id.clone();
        let order = match self.batches.get_mut(&batch_id) {
            Some(batch) => {
                batch.facts = facts;
                batch.heard_at = at;
                batch.order
            }
            None => {
                self.batches_seen += 1;
                if exclusive {
                    // There is new work for those that had left.
                    self.left.clear();
                }
                let order = self.batches_seen;
                let batch = Batch { since: at, heard_at: at, order, said_paused: false, facts };
                self.batches.insert(batch_id.clone(), batch);
                order
            }
        };
        if exclusive {
            self.batches_exclusive.insert(order, batch_id);
        } else {
            self.batches_exclusive.remove(&order);
        }
    }
}
