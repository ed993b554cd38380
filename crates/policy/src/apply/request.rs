//! What people ask for.

use model::{AttemptKey, Millis, TaskId};

use crate::world::{Down, World};

impl World {
    pub(super) fn cancel_asked(&mut self, task_id: &TaskId) {
        self.queue.cancel(task_id);
        for claim in self.claims.values_mut().filter(|claim| claim.task.task_id == *task_id) {
            claim.cancelled = true;
        }
        let keys: Vec<AttemptKey> = self.attempts_of(task_id).cloned().collect();
        for key in keys {
            if let Some(unit) = self.units.get_mut(&key) {
                unit.cancelled = true;
            }
        }
    }

    pub(super) fn down_asked(&mut self, at: Millis, deadline: Millis, now: bool) {
        let before = self.down;
        self.down = Some(Down {
            asked_at: before.map_or(at, |down| down.asked_at),
            deadline: before.map_or(deadline, |down| down.deadline.min(deadline)),
            now: now || before.is_some_and(|down| down.now),
        });
    }
}
