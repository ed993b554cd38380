//! What came of actions.

use model::{AttemptKey, Entry, Millis, TaskId, WorkerId};

use crate::unit::{Closing, Pace, Phase, Unit};
use crate::world::{Returning, World};

impl World {
    pub(super) fn started(
        &mut self,
        at: Millis,
        entry: &Entry,
        task_id: TaskId,
        worker: &WorkerId,
        attempt: u32,
    ) {
        let Some(claim) = self.take_claim(entry) else { return self.anomaly("started_unknown_entry") };
        let mut task = claim.task;
        task.task_id = task_id.clone();
        task.attempt = attempt;
        let key = AttemptKey { task_id, attempt };
        let Some(found) = self.workers.get_mut(worker) else {
            return self.anomaly("started_on_unknown_worker");
        };
        found.units.insert(key.clone());
        let lost = found.dead;
        let unit = Unit {
            key: key.clone(),
            worker: worker.clone(),
            beside: claim.beside,
            shape: claim.queued.shape,
            task,
            // The orders of a dead worker were never read: what was given to it in its last moment did not begin.
            phase: if lost { Phase::Lost { charge: false } } else { Phase::Ordered },
            ordered_at: claim.at,
            since: claim.queued.since,
            adopted: false,
            warm: claim.warm,
            stop: None,
            yield_asked_at: None,
            cancelled: claim.cancelled,
            shown: false,
            told: crate::unit::Told::Nothing,
            progress: None,
            pace: Pace::default(),
            media_s: None,
            closing: None,
            again_at: None,
        };
        if self.units.insert(key.clone(), unit).is_some() {
            self.anomaly("attempt_number_used_twice");
        }
        self.cover(at, &key);
        self.hear_attempt(at, &key);
        self.refresh_worker(at, worker);
    }

    pub(super) fn start_lost(&mut self, at: Millis, entry: &Entry) {
        if let Some(claim) = self.take_claim(entry) {
            self.take_turn_back(&claim.task);
            self.refresh_worker(at, &claim.worker);
            self.bury(&claim.worker);
        } else if self.failing.remove(entry).is_none() {
            self.anomaly("start_lost_of_unknown_entry");
        }
    }

    pub(super) fn finished(&mut self, at: Millis, task_id: &TaskId, complete: bool) {
        let closing = |unit: &Unit| matches!(unit.closing, Some(Closing::Finish | Closing::Fail));
        let keys: Vec<AttemptKey> = self.attempts_of(task_id).cloned().collect();
        let key = keys.into_iter().find(|key| self.units.get(key).is_some_and(closing));
        if let Some(key) = key {
            let gpu = self.units.get(&key).and_then(|unit| self.gpu_of(&unit.worker));
            if let Some(uuid) = gpu.filter(|_| complete).map(|gpu| gpu.facts.uuid.clone()) {
                self.memory.completed(&uuid);
            }
            self.put_away(at, &key);
        } else if let Some(entry) = self.failing_entry(task_id) {
            self.failing.remove(&entry);
        } else {
            return self.anomaly("finished_unknown_task");
        }
        self.yields.forget(task_id);
        self.note_end(task_id.clone(), complete);
    }

    /// The queued task that was to be failed and now is.
    fn failing_entry(&self, task_id: &TaskId) -> Option<Entry> {
        self.failing.iter().find(|(_, item)| item.task.task_id == *task_id).map(|(entry, _)| entry.clone())
    }

    /// The claim of a task that is to be failed settled its id.
    pub(super) fn claimed(&mut self, entry: &Entry, task_id: TaskId) {
        match self.failing.get_mut(entry) {
            Some(item) => item.task.task_id = task_id,
            None => self.anomaly("claimed_unknown_entry"),
        }
    }

    pub(super) fn requeued(&mut self, at: Millis, task_id: &TaskId) {
        let keys: Vec<AttemptKey> = self.attempts_of(task_id).cloned().collect();
        let found = keys.into_iter().find_map(|key| match self.units.get(&key)?.closing {
            Some(Closing::Requeue { back_off, charged }) => Some((key, back_off, charged)),
            _ => None,
        });
        let Some((key, back_off, charged)) = found else { return self.anomaly("requeued_unknown_task") };
        if self.units.get(&key).is_some_and(Unit::gave_way) {
            self.yields.note(task_id, at);
        }
        // What does not count as an attempt does not count as a turn.
        if !charged && let Some(task) = self.units.get(&key).map(|unit| unit.task.clone()) {
            self.take_turn_back(&task);
        }
        if self.units.get(&key).is_some_and(|unit| unit.cancelled) {
            self.cancel_on_return.insert(task_id.clone());
            self.queue.cancel(task_id);
        }
        if let Some(since) = self.units.get(&key).map(|unit| unit.since)
            && !self.is_queued(task_id)
        {
            let not_before = Some(at + back_off).filter(|time| *time > at);
            self.returning.insert(task_id.clone(), Returning { not_before, since });
        }
        if let Some(batch) = self.units.get(&key).and_then(|unit| unit.task.batch_id.clone())
            && let Some(batch) = self.batches.get_mut(&batch)
        {
            batch.heard_at = at;
        }
        self.put_away(at, &key);
    }

    /// Forgets an attempt whose record lies in a folder.
    fn put_away(&mut self, at: Millis, key: &AttemptKey) {
        let Some(unit) = self.units.remove(key) else { return };
        self.uncover(at, &unit);
        if let Some(batch) = unit.task.batch_id.as_ref().and_then(|id| self.batches.get_mut(id)) {
            batch.heard_at = at;
        }
        if let Some(worker) = self.workers.get_mut(&unit.worker) {
            worker.units.remove(key);
            if worker.reports.attempts.contains_key(key) {
                worker.closed.insert(key.clone());
            }
        }
        self.refresh_worker(at, &unit.worker);
        self.bury(&unit.worker);
    }

    /// Forgets a dead worker once nothing of it is left to be put away.
    pub(super) fn bury(&mut self, id: &WorkerId) {
        if self.workers.get(id).is_some_and(|worker| worker.dead && worker.load() == 0) {
            self.workers.remove(id);
            for gpu in self.gpus.values_mut().filter(|gpu| gpu.worker.as_ref() == Some(id)) {
                gpu.worker = None;
            }
        }
    }
}
