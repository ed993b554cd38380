//! Carries out what the mind chose, and says what came of it. It chooses nothing itself.

use model::link::{AttemptOrder, OrdersLine, Wish};
use model::task::PastAttempt;
use model::{
    AttemptKey, Durability, Entry, GpuUuid, Millis, Status, Task, TaskError, TaskId, TaskRecord, Timestamp,
    WorkerId,
};
use policy::action::Action;
use policy::event::Event;
use spool::atomic::Staged;
use spool::clock;
use spool::layout::Layout;
use spool::ledger::{ClaimError, Ledger, LedgerError};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use crate::arms::Arms;
use crate::flush::{Ended, Flush};
use crate::inbox::Note;
use crate::launch::Launcher;
use crate::queues::Queues;
use crate::read_ahead::ModelFiles;
use crate::tell::Tell;

/// Everything that can be moved.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) ledger: Ledger,
    pub(crate) arms: Arms,
    pub(crate) queues: Queues,
    pub(crate) flush: Flush,
    pub(crate) launcher: Launcher,
    pub(crate) tell: Tell,
    pub(crate) layout: Layout,
    pub(crate) model_files: ModelFiles,
    pub(crate) durability: Durability,
    pub(crate) notes: UnboundedSender<Note>,
}

impl Hands {
    /// Carries out one action; the answer is facts, in order.
    pub(crate) fn perform(&mut self, action: Action) -> Vec<Event> {
        match self.attempt(&action) {
            Ok(events) => events,
            Err(why) => {
                tracing::warn!(?action, why, "an action could not be carried out now");
                vec![Event::Undone { action: Box::new(action), why }]
            }
        }
    }

    fn attempt(&mut self, action: &Action) -> Result<Vec<Event>, String> {
        match action {
            Action::Say(saying) => {
                if saying.is_warning() {
                    tracing::warn!("{saying}");
                } else {
                    tracing::info!("{saying}");
                }
                Ok(Vec::new())
            }
            // What the mind keeps for a task is in the mind alone.
            Action::Reserve { .. } | Action::Keep { .. } => Ok(Vec::new()),
            Action::ReadAhead { model } => {
                self.model_files.read_ahead(model);
                Ok(Vec::new())
            }
            Action::Launch { gpu } => {
                let launch = Uuid::now_v7().to_string();
                let launched = Event::Launched { launch: launch.clone(), gpu: gpu.clone() };
                Ok(match self.launcher.launch(gpu.as_ref(), &launch) {
                    Ok(()) => vec![launched],
                    Err(error) => {
                        tracing::error!(%error, "failed to start a worker");
                        vec![
                            launched,
                            Event::LaunchEnded { launch, status: None, message: Some(error.to_string()) },
                        ]
                    }
                })
            }
            Action::Start { entry, worker, task, gpus } => self.start(entry, worker, task, gpus),
            Action::Engine { worker, engine } => {
                self.order(worker, OrdersLine { engine: Some(engine.clone()), ..OrdersLine::default() })
            }
            Action::Hosts { worker, hosts } => {
                self.order(worker, OrdersLine { hosts: Some(hosts.clone()), ..OrdersLine::default() })
            }
            Action::Stop { worker, key, why } => self.stop(worker, key, *why),
            Action::Leave { worker } => {
                self.order(worker, OrdersLine { leave: Some(true), ..OrdersLine::default() })
            }
            Action::Finish { worker, key } => self.finish(worker, key),
            Action::Requeue { worker, key, task, error, charged, back_off } => {
                self.requeue(worker, key, task, error.as_ref(), *charged, *back_off)
            }
            Action::Fail { worker, key, task, error } => {
                let at = Some((worker.clone(), key.clone()));
                self.fail(&task.task_id, failed(task, error), at)
            }
            Action::FailQueued { entry, task, error } => self.fail_queued(entry, task, error),
            Action::ShowRunning { task, gpu, gpu_uuid, since } => {
                self.stage_running(TaskRecord {
                    status: Some(Status::Running),
                    assigned_gpu: gpu.clone(),
                    assigned_gpu_uuid: gpu_uuid.clone(),
                    started_at: Some(since.on_the_wall(clock::now(), clock::wall())),
                    ..task.record()
                });
                Ok(Vec::new())
            }
        }
    }

    /// T5, off the loop: only people read it, so nobody waits for it.
    fn stage_running(&self, record: TaskRecord) {
        let (Some(task_id), Some(attempt)) = (record.task_id.clone(), record.attempt) else { return };
        let (layout, durability, notes) = (self.layout.clone(), self.durability, self.notes.clone());
        tokio::task::spawn_blocking(move || match Ledger::stage_running(&layout, durability, &record) {
            Ok(staged) => drop(notes.send(Note::Staged(AttemptKey { task_id, attempt }, staged))),
            Err(error) => tracing::warn!(%task_id, %error, "failed to write that a task runs"),
        });
    }

    /// T6: only while the attempt still runs, so that a finished record is never written over.
    pub(crate) fn place_running(&mut self, key: &AttemptKey, staged: &Staged) {
        if !self.arms.runs(key) {
            return;
        }
        if let Err(error) = self.ledger.place_running(&key.task_id, staged) {
            tracing::warn!(%key, %error, "failed to show that a task runs");
        }
    }

    fn order(&mut self, worker: &WorkerId, line: OrdersLine) -> Result<Vec<Event>, String> {
        self.arms.amend(worker, line).map(|()| Vec::new()).map_err(|error| error.to_string())
    }

    fn start(
        &mut self,
        entry: &Entry,
        worker: &WorkerId,
        task: &Task,
        gpus: &[GpuUuid],
    ) -> Result<Vec<Event>, String> {
        let lost = |why: String| Ok(vec![Event::StartLost { entry: entry.clone(), why }]);
        let task_id = match self.ledger.claim(entry, task) {
            Ok(task_id) => task_id,
            Err(ClaimError::Io(error)) => return Err(error.to_string()),
            Err(other) => {
                self.queues.forget(entry);
                return lost(other.to_string());
            }
        };
        self.queues.forget(entry);
        let attempt = task.attempt;
        if task.on_complete.is_some() {
            self.tell.owe(&task_id);
        }
        let task = Box::new(Task { task_id: task_id.clone(), ..task.clone() });
        let (gpus, wish) = (gpus.to_vec(), Wish::Run);
        let order = AttemptOrder { task_id: task_id.clone(), attempt, wish, why: None, gpus, task };
        if let Err(error) =
            self.arms.amend(worker, OrdersLine { attempts: vec![order], ..OrdersLine::default() })
        {
            self.put_back(&task_id, entry);
            return Err(error.to_string());
        }
        Ok(vec![Event::Started { entry: entry.clone(), task_id, worker: worker.clone(), attempt }])
    }

    /// A claim that led to nothing is taken back; the mind still knows the entry by its name.
    fn put_back(&mut self, task_id: &TaskId, entry: &Entry) {
        match self.ledger.unclaim(task_id, entry) {
            Ok(entry) => self.queues.restore(entry),
            Err(error) => tracing::error!(%task_id, %error, "a claimed task could not be put back yet"),
        }
    }

    fn stop(
        &mut self,
        worker: &WorkerId,
        key: &AttemptKey,
        why: model::link::StopWhy,
    ) -> Result<Vec<Event>, String> {
        let Some(order) = self.arms.order_of(worker, key) else {
            return Err(format!("worker {worker} has no attempt {key}"));
        };
        let order = AttemptOrder { wish: Wish::Stop, why: Some(why), ..order };
        self.order(worker, OrdersLine { attempts: vec![order], ..OrdersLine::default() })
    }

    fn finish(&mut self, worker: &WorkerId, key: &AttemptKey) -> Result<Vec<Event>, String> {
        let record = match self.ledger.finish(worker, key) {
            // The first end stands; asked again, the ledger gives it.
            Err(conflict @ LedgerError::Conflict { .. }) => {
                tracing::error!(%key, "{conflict}");
                self.ledger.finish(worker, key)
            }
            other => other,
        };
        let record = record.map_err(|error| error.to_string())?;
        let at = Some((worker.clone(), key.clone()));
        self.flush.add(Ended { task_id: key.task_id.clone(), at, record: Box::new(record) });
        Ok(Vec::new())
    }

    fn fail(
        &mut self,
        task_id: &TaskId,
        record: TaskRecord,
        at: Option<(WorkerId, AttemptKey)>,
    ) -> Result<Vec<Event>, String> {
        self.ledger.fail(task_id, &record).map_err(|error| error.to_string())?;
        self.flush.add(Ended { task_id: task_id.clone(), at, record: Box::new(record) });
        Ok(Vec::new())
    }

    fn fail_queued(&mut self, entry: &Entry, task: &Task, error: &TaskError) -> Result<Vec<Event>, String> {
        let task_id = match self.ledger.claim(entry, task) {
            Ok(task_id) => task_id,
            Err(ClaimError::Io(error)) => return Err(error.to_string()),
            Err(other) => {
                self.queues.forget(entry);
                return Ok(vec![Event::StartLost { entry: entry.clone(), why: other.to_string() }]);
            }
        };
        self.queues.forget(entry);
        let task = Task { task_id: task_id.clone(), ..task.clone() };
        let record = failed(&task, error);
        let claimed = task_id.clone();
        if let Err(why) = self.fail(&claimed, record, None) {
            self.put_back(&claimed, entry);
            return Err(why);
        }
        Ok(vec![Event::Claimed { entry: entry.clone(), task_id }])
    }

    fn requeue(
        &mut self,
        worker: &WorkerId,
        key: &AttemptKey,
        task: &Task,
        error: Option<&TaskError>,
        charged: bool,
        back_off: Millis,
    ) -> Result<Vec<Event>, String> {
        let wall = clock::wall();
        let mut record = task.record();
        record.status = Some(Status::Queued);
        record.not_before =
            (back_off > Millis::ZERO).then(|| wall + chrono::Duration::milliseconds(back_off.0));
        record.history.push(PastAttempt {
            attempt: key.attempt,
            worker: Some(worker.clone()),
            gpu: None,
            started_at: None,
            ended_at: Some(wall),
            charged,
            error: error.cloned(),
            was: None,
        });
        let entry = self
            .ledger
            .requeue(worker, key, &record, task.class(), task.priority)
            .map_err(|error| error.to_string())?;
        self.arms.drop_key(worker, key);
        self.queues.remember(entry);
        Ok(vec![Event::Requeued { task_id: key.task_id.clone() }])
    }
}

/// The record of a task that ends as failed without one of its worker's.
fn failed(task: &Task, error: &TaskError) -> TaskRecord {
    let wall: Timestamp = clock::wall();
    TaskRecord {
        status: Some(Status::Failed),
        completed_at: Some(wall),
        error: Some(error.clone()),
        ..task.record()
    }
}
