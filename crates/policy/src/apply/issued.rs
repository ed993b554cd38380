//! Actions that are about to be carried out: from here on no plan issues them again.

use model::link::{EngineOrder, HostOrder, StopWhy};
use model::task::GpuRequirement;
use model::{AttemptKey, Entry, GpuUuid, Millis, Saying, Task, TaskId, WorkerId};

use crate::action::Action;
use crate::gpu::{BootFailure, KeptFor};
use crate::plan::boots_until;
use crate::ram::RamWait;
use crate::unit::{Claim, Closing, Told};
use crate::wide::Kept;
use crate::worker::{Before, Llm};
use crate::world::World;

impl World {
    pub(super) fn issued(&mut self, at: Millis, action: Action) {
        match action {
            Action::Launch { gpu } => self.launching.entry(gpu).or_default().pending = Some((at, None)),
            Action::Start { entry, worker, task, gpus } => self.start_issued(at, entry, worker, task, gpus),
            Action::Engine { worker, engine } => self.engine_issued(at, &worker, engine),
            Action::Hosts { worker, hosts } => self.hosts_issued(at, &worker, hosts),
            Action::Stop { key, why, .. } => self.stop_issued(at, &key, why),
            Action::Finish { key, .. } => self.closing(&key, Closing::Finish),
            Action::Requeue { key, task, back_off, charged, .. } => {
                self.closing(&key, Closing::Requeue { back_off, charged });
                if let Some(unit) = self.units.get_mut(&key) {
                    unit.task = task;
                }
            }
            Action::Fail { key, .. } => self.closing(&key, Closing::Fail),
            Action::FailQueued { entry, .. } => match self.queue.remove(&entry) {
                Some(item) => {
                    self.failing.insert(entry, item);
                }
                None => self.anomaly("issued_for_unknown_entry"),
            },
            Action::ShowRunning { task, .. } => {
                let key = AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
                if let Some(unit) = self.units.get_mut(&key) {
                    unit.shown = true;
                }
            }
            Action::Reserve { gpu, task_id, until } => {
                if let Some(gpu) = self.gpus.get_mut(&gpu) {
                    gpu.kept_for = Some(KeptFor { task_id, until });
                }
            }
            Action::Keep { task_id, gpus, until } => self.keep_issued(at, task_id, gpus, until),
            Action::ReadAhead { model } => self.demand.read_ahead(at, model),
            Action::Say(saying) => {
                self.said(at, &saying);
                self.note_said(at, saying);
            }
            Action::Leave { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.leave = true;
                }
            }
        }
    }

    /// What was said is not said again.
    fn said(&mut self, at: Millis, saying: &Saying) {
        if let Saying::TooManyInARow { in_cpu_lane, .. } = saying {
            self.said_in_a_row[usize::from(*in_cpu_lane)] = true;
        }
        if let Saying::BatchPaused { batch, .. } | Saying::BatchResumed { batch, .. } = saying
            && let Some(batch) = self.batches.get_mut(batch)
        {
            batch.said_paused = matches!(saying, Saying::BatchPaused { .. });
        }
        match saying {
            Saying::LentToChat { gpu, .. } => {
                let of_key = self.gpus.values().find(|known| known.key() == *gpu);
                self.lent = of_key.map(|gpu| gpu.facts.uuid.clone());
            }
            Saying::BackFromChat { .. } => self.lent = None,
            Saying::AllSlots { .. } => self.slots_told = true,
            Saying::Assigned { task, .. } => self.told_of_slot(task, Told::Assigned),
            Saying::Released { task, .. } | Saying::Freed { task, .. } => {
                self.told_of_slot(task, Told::Released);
            }
            Saying::AllBusy { task } => self.queue.said_busy(task),
            Saying::KeepsGpus { task, .. } => self.queue.said_kept(task),
            Saying::RamLow { .. } | Saying::RamWaitOver { .. } => {
                self.ram_wait = Some(RamWait { since: at });
            }
            Saying::OverItsNeed { script, .. } => {
                if let Some(over) = self.over_their_need.get_mut(script) {
                    over.said = true;
                }
            }
            Saying::Prewarms { .. } => self.demand.prewarms(at),
            Saying::LeavesBatch { gpu, .. } => {
                let of_key = self.gpus.values().find(|known| known.key() == *gpu);
                self.left.extend(of_key.map(|gpu| gpu.facts.uuid.clone()));
            }
            _ => {}
        }
    }

    fn told_of_slot(&mut self, task: &TaskId, told: Told) {
        let keys: Vec<AttemptKey> = self.attempts_of(task).cloned().collect();
        for key in keys {
            if let Some(unit) = self.units.get_mut(&key)
                && unit.is_live() == (told == Told::Assigned)
            {
                unit.told = told;
            }
        }
    }

    fn keep_issued(&mut self, at: Millis, task_id: TaskId, gpus: Vec<GpuUuid>, until: Millis) {
        let before = self.kept_gpus.take().filter(|before| before.task_id == task_id);
        let since = before.map_or(at, |before| before.since);
        self.kept_gpus = Some(Kept { task_id, gpus, since, until });
    }

    fn start_issued(
        &mut self,
        at: Millis,
        entry: Entry,
        worker: WorkerId,
        task: Box<Task>,
        gpus: Vec<GpuUuid>,
    ) {
        let Some(to) = self.workers.get_mut(&worker) else {
            return self.anomaly("issued_for_unknown_worker");
        };
        let Some(queued) = self.queue.remove(&entry) else { return self.anomaly("issued_for_unknown_entry") };
        to.claims.insert(entry.clone());
        let own = to.gpu.clone();
        let warm = queued.shape.host().is_some_and(|host| to.has_host(host));
        let cancelled = queued.cancelled;
        let in_cpu_lane = queued.shape.in_cpu_lane();
        if !task.is_chatbot() {
            self.said_in_a_row[usize::from(in_cpu_lane)] = false;
        }
        self.turns.grant(self.memory.grants_mut(in_cpu_lane), &task.job_type);
        let beside: Vec<GpuUuid> = gpus.into_iter().filter(|gpu| Some(gpu) != own.as_ref()).collect();
        for gpu in &beside {
            let seated = self.gpus.get(gpu).and_then(|gpu| gpu.worker.clone());
            if let Some(other) = seated.and_then(|id| self.workers.get_mut(&id)) {
                other.claims.insert(entry.clone());
            }
        }
        if self.kept_gpus.as_ref().is_some_and(|kept| kept.task_id == queued.task.task_id) {
            self.kept_gpus = None;
        }
        self.claims.insert(entry, Claim { queued, task, worker, beside, at, warm, cancelled });
    }

    /// A start is no longer under way: its workers are free of it.
    pub(super) fn take_claim(&mut self, entry: &Entry) -> Option<Claim> {
        let claim = self.claims.remove(entry)?;
        if let Some(worker) = self.workers.get_mut(&claim.worker) {
            worker.claims.remove(entry);
        }
        if !claim.beside.is_empty() {
            // Who sat there then may have died since.
            for worker in self.workers.values_mut() {
                worker.claims.remove(entry);
            }
            let dead = self.workers.values().filter(|worker| worker.dead && worker.id != claim.worker);
            let dead: Vec<WorkerId> = dead.map(|worker| worker.id.clone()).collect();
            dead.iter().for_each(|id| self.bury(id));
        }
        Some(claim)
    }

    /// A start came to nothing: its job type has its turn again.
    pub(super) fn take_turn_back(&mut self, task: &Task) {
        let in_cpu_lane = task.gpu == GpuRequirement::None;
        self.turns.give_back(self.memory.grants_mut(in_cpu_lane), &task.job_type);
    }

    fn engine_issued(&mut self, at: Millis, id: &WorkerId, engine: Option<EngineOrder>) {
        let exclusive = self.exclusive(at).is_some();
        let Some(before) = self.before_order(id) else { return self.anomaly("issued_for_unknown_worker") };
        if engine.is_none() {
            self.note_endless_boot(at, id);
        }
        let ready = self.workers.get(id).filter(|worker| matches!(worker.llm(), Some(Llm::Ready { .. })));
        if let Some(uuid) =
            ready.and_then(|worker| worker.gpu.clone()).filter(|_| engine.is_none() && !exclusive)
        {
            self.collect_rent(&uuid);
        }
        let Some(worker) = self.workers.get_mut(id) else { return };
        let made_room = match worker.llm() {
            Some(Llm::Booting { .. } | Llm::Ready { .. }) if exclusive && engine.is_none() => {
                worker.engine.as_ref().map(|order| order.model.clone())
            }
            _ => None,
        };
        worker.before = Some(before);
        worker.engine = engine;
        worker.engine_at = at;
        worker.generation = worker.generation.max(worker.engine.as_ref().map_or(0, |order| order.generation));
        let boots = worker.engine.is_some();
        // A boot that nobody reported yet is over with the order; what may have begun is waited for all the same.
        let gpu = worker.gpu.clone();
        let lent = gpu.is_some() && gpu == self.lent;
        let over = worker.engine.as_ref().is_some_and(|order| !order.beside.is_empty());
        if let (true, Some(own)) = (over, &gpu) {
            self.kept_gpus.take_if(|kept| kept.gpus.contains(own));
        }
        if let Some(gpu) = gpu.and_then(|uuid| self.gpus.get_mut(&uuid)) {
            if boots {
                gpu.tenure.boots(at);
            }
            if boots && !lent {
                gpu.reload = None;
            } else if made_room.is_some() && gpu.reload.is_none() {
                gpu.reload = made_room;
            }
        }
        self.refresh_worker(at, id);
    }

    /// What an LLM order to this worker replaces.
    fn before_order(&self, id: &WorkerId) -> Option<Before> {
        let worker = self.workers.get(id)?;
        let gpu = worker.gpu.as_ref().and_then(|uuid| self.gpus.get(uuid));
        let kept =
            self.kept_gpus.as_ref().filter(|kept| gpu.is_some_and(|gpu| kept.gpus.contains(&gpu.facts.uuid)));
        Some(Before {
            engine: worker.engine.clone(),
            engine_at: worker.engine_at,
            tenure: gpu.map(|gpu| gpu.tenure.clone()).unwrap_or_default(),
            reload: gpu.and_then(|gpu| gpu.reload.clone()),
            kept: kept.cloned(),
        })
    }

    /// A boot that is given up because it took too long counts as one that failed.
    fn note_endless_boot(&mut self, at: Millis, id: &WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let Some(Llm::Booting { order }) = worker.llm() else { return };
        if boots_until(self, worker).is_none_or(|limit| limit > at) {
            return;
        }
        let model = order.model.clone();
        let uuid = worker.gpu.clone();
        if let Some(gpu) = uuid.and_then(|uuid| self.gpus.get_mut(&uuid)) {
            let error = "it was not ready within its time limit".to_owned();
            let failure = BootFailure::after(gpu.boot_failures.get(&model), at, error);
            gpu.boot_failures.insert(model, failure);
        }
    }

    fn hosts_issued(&mut self, at: Millis, id: &WorkerId, hosts: Vec<HostOrder>) {
        let Some(worker) = self.workers.get_mut(id) else { return self.anomaly("issued_for_unknown_worker") };
        worker.hosts_before = std::mem::replace(&mut worker.hosts, hosts);
        worker.hosts_at = at;
        self.refresh_worker(at, id);
    }

    fn stop_issued(&mut self, at: Millis, key: &AttemptKey, why: StopWhy) {
        match self.units.get_mut(key) {
            Some(unit) => {
                unit.stop = Some(why);
                unit.yield_asked_at = (why == StopWhy::Yield).then_some(at);
            }
            None => self.anomaly("issued_for_unknown_attempt"),
        }
    }

    fn closing(&mut self, key: &AttemptKey, closing: Closing) {
        match self.units.get_mut(key) {
            Some(unit) => unit.closing = Some(closing),
            None => self.anomaly("issued_for_unknown_attempt"),
        }
    }
}
