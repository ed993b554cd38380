//! Facts in: the only way the world changes. It is total: an impossible event is a counted anomaly, never a panic.
//!
//! Not here: choices. `apply` records, `plan` chooses.

mod hands;
mod issued;
mod queue;
mod request;
mod senses;
mod undone;
mod worker;

use model::{GpuUuid, Millis, WorkerId};

pub(crate) use undone::AGAIN_AFTER;

use crate::event::Event;
use crate::gpu::Scene;
use crate::unit::Phase;
use crate::worker::{Llm, Worker};
use crate::world::World;

impl World {
    /// Takes a fact in. A time before the last event's counts as that.
    pub fn apply(&mut self, at: Millis, event: Event) {
        self.now = self.now.max(at);
        let at = self.now;
        self.pass_time(at);
        self.demand.watch(at);
        match event {
            Event::Issued(action) => self.issued(at, *action),
            Event::Undone { action, .. } => self.undone(at, *action),
            Event::Inventory(inventory) => self.inventory(at, inventory),
            Event::Read(reading) => self.read(at, reading),
            Event::Ram(ram) => self.ram(ram),
            Event::Hour { hour, left } => self.hour(at, hour, left),
            Event::Queued { entry, task, order, not_before } => {
                self.queued(at, entry, task, order, not_before);
            }
            Event::Unqueued(entry) => {
                self.queue.remove(&entry);
            }
            Event::Counted(counts) => self.queue.count(&counts),
            Event::Launched { launch, gpu } => self.launched(at, launch, gpu),
            Event::LaunchEnded { launch, status, message } => self.launch_ended(at, &launch, status, message),
            Event::WorkerBorn { worker, reports, orders } => self.worker_born(at, &worker, *reports, orders),
            Event::Reported { worker, reports } => self.reported(at, &worker, *reports),
            Event::WorkerDied { worker, with_machine } => self.worker_died(at, &worker, with_machine),
            Event::Started { entry, task_id, worker, attempt } => {
                self.started(at, &entry, task_id, &worker, attempt);
            }
            Event::Claimed { entry, task_id } => self.claimed(&entry, task_id),
            Event::StartLost { entry, .. } => self.start_lost(at, &entry),
            Event::Finished { task_id, complete } => self.finished(at, &task_id, complete),
            Event::Requeued { task_id } => self.requeued(at, &task_id),
            Event::Batch(facts) => self.batch(at, facts),
            Event::CancelAsked { task_id } => self.cancel_asked(&task_id),
            Event::DownAsked { deadline, now } => self.down_asked(at, deadline, now),
        }
        self.demand.look_at_scripts(at, self.queue.has_scripts_for_gpus());
        self.mind_the_mode(at);
    }

    /// The mode is a level; what belongs to it goes with it.
    fn mind_the_mode(&mut self, at: Millis) {
        let before = self.exclusive_since;
        self.exclusive_since = self.exclusive(at).map(|_| before.unwrap_or(at));
        let lent = self.lent.as_ref().and_then(|uuid| self.gpus.get(uuid));
        if self.exclusive_since.is_none() || !lent.is_some_and(crate::gpu::Gpu::is_usable) {
            self.lent = None;
        }
        if before.is_some() && self.exclusive_since.is_none() {
            self.left.clear();
            // An LLM that came for a chatbot stays in place of the one that had made room.
            let workers = &self.workers;
            let has_llm = |gpu: &crate::gpu::Gpu| {
                gpu.worker
                    .as_ref()
                    .and_then(|id| workers.get(id))
                    .is_some_and(|worker| worker.engine.is_some())
            };
            for gpu in self.gpus.values_mut().filter(|gpu| gpu.reload.is_some()) {
                if has_llm(gpu) {
                    gpu.reload = None;
                }
            }
        }
    }

    fn pass_time(&mut self, at: Millis) {
        self.queue.pass_time(at);
        self.memory.pass_time(at);
        let cooling: Vec<GpuUuid> = self.cooling.iter().cloned().collect();
        for uuid in cooling {
            if let Some(gpu) = self.gpus.get_mut(&uuid) {
                gpu.pass_time(at);
            }
            self.note_cooling(&uuid);
        }
    }

    /// Keeps the list of GPUs that cool true after one has changed its state.
    fn note_cooling(&mut self, uuid: &GpuUuid) {
        if self.gpus.get(uuid).is_some_and(|gpu| gpu.state == model::GpuState::Cooling) {
            self.cooling.insert(uuid.clone());
        } else {
            self.cooling.remove(uuid);
        }
    }

    /// Lets the GPU of a worker follow what is now known of it.
    fn refresh_worker(&mut self, at: Millis, worker: &WorkerId) {
        let Some(worker) = self.workers.get(worker) else { return };
        let id = worker.id.clone();
        let units = worker.units.iter().filter_map(|key| self.units.get(key));
        let beside: Vec<GpuUuid> = units.flat_map(|unit| unit.beside.iter().cloned()).collect();
        if let Some(gpu) = worker.gpu.clone() {
            self.refresh(at, &gpu);
        }
        beside.iter().for_each(|gpu| self.refresh(at, gpu));
        self.respan(at, &id);
    }

    pub(crate) fn refresh(&mut self, at: Millis, uuid: &GpuUuid) {
        let Some(gpu) = self.gpus.get(uuid) else { return };
        let scene = self.scene(gpu);
        if let Some(gpu) = self.gpus.get_mut(uuid)
            && gpu.follow(scene, at).is_err()
        {
            gpu.adopt(scene, at);
            self.anomaly("illegal_state");
        }
        self.note_cooling(uuid);
    }

    /// What is loaded and what runs on a GPU.
    pub(crate) fn scene(&self, gpu: &crate::gpu::Gpu) -> Scene {
        let Some(worker) = self.llm_worker(gpu) else { return Scene::default() };
        let own = self.worker_on(gpu);
        let mut scene = Scene::default();
        match worker.llm() {
            None => scene.unloading = own.is_some_and(Worker::sheds_hosts),
            Some(Llm::Booting { .. }) => scene.llm_boots = true,
            Some(Llm::Ready { .. }) => scene.llm_ready = true,
            Some(Llm::Failed { .. } | Llm::Unloading) => scene.unloading = true,
        }
        for unit in self.units_on(own.unwrap_or(worker)).filter(|unit| unit.is_live()) {
            match (unit.shape.host(), &unit.phase) {
                (None, _) => scene.requests = true,
                (Some(_), Phase::Running { .. }) => scene.script_runs = true,
                (Some(_), _) if unit.warm => scene.script_runs = true,
                (Some(_), _) => scene.script_loads = true,
            }
        }
        // A script that runs needs what is loaded: hosts that are on their way out leave beside it.
        if scene.script_runs || scene.script_loads {
            scene.unloading = false;
        }
        scene
    }
}
