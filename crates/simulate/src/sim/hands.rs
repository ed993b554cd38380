//! What the mind wants done, done on folders and logs that do not exist.

use model::link::{AttemptOrder, StopWhy, Wish};
use model::task::PastAttempt;
use model::{AttemptKey, Entry, GpuUuid, Millis, Task, TaskError, WorkerId};
use policy::action::Action;
use policy::event::Event;

use super::{Ended, Sim, number_of};
use crate::agenda::{ArmNumber, Happening};
use crate::arm::Stage;

impl Sim {
    /// Carries out one action; false where the disk is full.
    pub(super) fn carry_out(&mut self, action: Action) -> bool {
        let told = matches!(
            action,
            Action::Say(_) | Action::Reserve { .. } | Action::Keep { .. } | Action::ReadAhead { .. }
        );
        let writes = !told && !matches!(action, Action::ShowRunning { .. } | Action::Launch { .. });
        if self.disk_is_full && writes && self.dice.chance(0.7) {
            self.undone(action, "no space left on device");
            return false;
        }
        match self.attempt(&action) {
            Ok(()) => true,
            Err(why) => {
                self.undone(action, &why);
                false
            }
        }
    }

    fn undone(&mut self, action: Action, why: &str) {
        let written = action.worker().and_then(|worker| self.arms.get(&number_of(worker)));
        let engine = written.and_then(|held| held.arm.written.engine.clone());
        self.checks.undone(self.now, &action, engine);
        self.tell(Event::Undone { action: Box::new(action), why: why.to_owned() });
    }

    fn attempt(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Say(_)
            | Action::Reserve { .. }
            | Action::Keep { .. }
            | Action::ReadAhead { .. }
            | Action::ShowRunning { .. } => {}
            Action::Launch { gpu } => {
                let number =
                    gpu.as_ref().and_then(|uuid| self.facts.iter().position(|facts| facts.uuid == *uuid));
                self.launch(number);
            }
            Action::Start { entry, worker, task, gpus } => return self.start(entry, worker, task, gpus),
            Action::Engine { worker, engine } => {
                self.orders(worker)?.engine.clone_from(engine);
                self.wrote(number_of(worker));
            }
            Action::Hosts { worker, hosts } => {
                self.orders(worker)?.hosts.clone_from(hosts);
                self.wrote(number_of(worker));
            }
            Action::Leave { worker } => {
                self.orders(worker)?.leave = true;
                self.wrote(number_of(worker));
            }
            Action::Stop { worker, key, why } => return self.stop(worker, key, *why),
            Action::Finish { worker, key } => return self.finish_task(worker, key),
            Action::Requeue { worker, key, task, error, charged, back_off } => {
                self.requeue(worker, key, task, error.as_ref(), *charged, *back_off);
            }
            Action::Fail { worker, key, task, .. } => {
                self.end_task(task, false);
                self.flush(&key.task_id, false, Some((number_of(worker), key.clone())));
            }
            Action::FailQueued { entry, task, .. } => self.fail_queued(entry, task),
        }
        Ok(())
    }

    /// A living worker's orders, to be amended.
    fn orders(&mut self, worker: &WorkerId) -> Result<&mut model::link::Orders, String> {
        let held = self.arms.get_mut(&number_of(worker)).filter(|held| !held.pronounced);
        held.map(|held| &mut held.arm.written).ok_or_else(|| format!("worker {worker} is gone"))
    }

    fn start(
        &mut self,
        entry: &Entry,
        worker: &WorkerId,
        task: &Task,
        gpus: &[GpuUuid],
    ) -> Result<(), String> {
        let Some(file) = self.files.remove(entry) else {
            self.tell(Event::StartLost { entry: entry.clone(), why: "it is not there any more".into() });
            return Ok(());
        };
        let order = AttemptOrder {
            task_id: task.task_id.clone(),
            attempt: task.attempt,
            wish: Wish::Run,
            why: None,
            gpus: gpus.to_vec(),
            task: Box::new(task.clone()),
        };
        match self.orders(worker) {
            Ok(orders) => drop(orders.attempts.insert(order.key(), order)),
            Err(why) => {
                self.files.insert(entry.clone(), file);
                return Err(why);
            }
        }
        self.wrote(number_of(worker));
        let (task_id, attempt) = (task.task_id.clone(), task.attempt);
        self.tell(Event::Started { entry: entry.clone(), task_id, worker: worker.clone(), attempt });
        Ok(())
    }

    fn stop(&mut self, worker: &WorkerId, key: &AttemptKey, why: StopWhy) -> Result<(), String> {
        let orders = self.orders(worker)?;
        let Some(order) = orders.attempts.get_mut(key) else {
            return Err(format!("worker {worker} has no attempt {key}"));
        };
        (order.wish, order.why) = (Wish::Stop, Some(why));
        self.wrote(number_of(worker));
        Ok(())
    }

    fn finish_task(&mut self, worker: &WorkerId, key: &AttemptKey) -> Result<(), String> {
        let number = number_of(worker);
        let attempt = self.arms.get(&number).and_then(|held| held.arm.attempts.get(key));
        let Some(attempt) = attempt else { return Err(format!("worker {worker} has no record of {key}")) };
        let Stage::Ended { outcome, .. } = &attempt.stage else {
            return Err(format!("worker {worker} has not ended {key}"));
        };
        let (complete, task) = (outcome.failure.is_none(), attempt.order.task.clone());
        self.end_task(&task, complete);
        self.flush(&key.task_id, complete, Some((number, key.clone())));
        Ok(())
    }

    /// A record lies in `complete/` or `failed/`; the first end stands.
    fn end_task(&mut self, task: &Task, complete: bool) {
        self.checks.ended(self.now, task);
        if self.ended.contains_key(&task.task_id) {
            return;
        }
        self.record.ended(&task.task_id, self.now, complete);
        self.ended.insert(task.task_id.clone(), Ended { batch: task.batch_id.clone() });
    }

    fn flush(&mut self, task_id: &model::TaskId, complete: bool, at: Option<(ArmNumber, AttemptKey)>) {
        let delay = Millis(self.dice.between(1, 20));
        self.later(delay, Happening::Flushed { task_id: task_id.clone(), complete, at });
    }

    /// A group is durable: its end is told, and only then is the attempt dropped from the orders.
    pub(super) fn flushed(
        &mut self,
        task_id: model::TaskId,
        complete: bool,
        at: Option<(ArmNumber, AttemptKey)>,
    ) {
        if !self.brain_is_up {
            return;
        }
        let still_ours = match &at {
            // A brain that came between has put this right by itself.
            Some((number, key)) => {
                self.arms.get(number).is_some_and(|held| held.arm.written.attempts.contains_key(key))
            }
            None => self.record.is_new_end(&task_id),
        };
        if !still_ours {
            return;
        }
        self.record.end_is_told(&task_id);
        let batch = self.ended.get(&task_id).and_then(|ended| ended.batch.clone());
        self.tell(Event::Finished { task_id, complete });
        self.count_in_batch(batch.as_ref());
        if let Some((number, key)) = at {
            self.drop_key(number, &key);
        }
    }

    fn drop_key(&mut self, number: ArmNumber, key: &AttemptKey) {
        let Some(held) = self.arms.get_mut(&number) else { return };
        held.arm.written.attempts.remove(key);
        self.wrote(number);
        self.forget(number);
    }

    fn requeue(
        &mut self,
        worker: &WorkerId,
        key: &AttemptKey,
        task: &Task,
        error: Option<&TaskError>,
        charged: bool,
        back_off: Millis,
    ) {
        let number = number_of(worker);
        let gpu = self.arms.get(&number).and_then(|held| held.arm.gpu).map(|gpu| gpu.to_string());
        let mut task = task.clone();
        task.history.push(PastAttempt {
            attempt: key.attempt,
            worker: Some(worker.clone()),
            gpu,
            started_at: None,
            ended_at: None,
            charged,
            error: error.cloned(),
            was: None,
        });
        self.checks.requeued(self.now, key, charged);
        self.tell(Event::Requeued { task_id: key.task_id.clone() });
        self.drop_key(number, key);
        let not_before = (back_off > Millis::ZERO).then(|| self.now + back_off);
        let delay = Millis(self.dice.between(0, 5));
        self.put(task, not_before, delay);
    }

    fn fail_queued(&mut self, entry: &Entry, task: &Task) {
        if self.files.remove(entry).is_none() {
            return self
                .tell(Event::StartLost { entry: entry.clone(), why: "it is not there any more".into() });
        }
        self.end_task(task, false);
        self.tell(Event::Claimed { entry: entry.clone(), task_id: task.task_id.clone() });
        self.flush(&task.task_id, false, None);
    }
}
