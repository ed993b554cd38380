//! `gpu_lock: "single"`: at most one unit on all GPUs together, in the one order. An LLM that boots is not a unit.
//!
//! Not here: who is next (`order`, `turn`). The CPU lane is outside the lock.

use model::config::GpuLock;
use model::{TaskId, WorkerId};

use crate::world::World;

/// What runs while everything else waits.
pub(crate) struct Holder<'w> {
    /// The task.
    pub task: &'w TaskId,
    /// Its worker.
    pub worker: &'w WorkerId,
}

impl World {
    /// Whether one lock is all there is.
    pub(crate) fn has_single_lock(&self) -> bool {
        self.config.gpu_lock == GpuLock::Single
    }

    /// What holds the single lock: a unit on a GPU, or a start under way. None while it is free, or there is none.
    pub(crate) fn lock_holder(&self) -> Option<Holder<'_>> {
        if !self.has_single_lock() {
            return None;
        }
        let on_a_gpu =
            |worker: &WorkerId| self.workers.get(worker).is_some_and(|worker| worker.gpu.is_some());
        let units = self.units.values().filter(|unit| unit.is_live() && on_a_gpu(&unit.worker));
        let claims = self.claims.values().filter(|claim| on_a_gpu(&claim.worker));
        let units = units.map(|unit| Holder { task: &unit.key.task_id, worker: &unit.worker });
        let claims = claims.map(|claim| Holder { task: &claim.task.task_id, worker: &claim.worker });
        units.chain(claims).next()
    }
}
