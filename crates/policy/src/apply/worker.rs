//! Facts about workers: births, adoptions, reports, deaths.

use std::collections::BTreeSet;

use model::gpu::GpuFacts;
use model::link::{AttemptState, HostState, Orders, Reports, Wish};
use model::{AttemptKey, FailureClass, GpuUuid, Health, Millis, TaskClass, WorkerId};

use crate::gpu::{BootFailure, Gpu};
use crate::launch::LIVED;
use crate::learn::run_name;
use crate::shape::Shape;
use crate::unit::{Pace, Phase, Unit};
use crate::worker::{Llm, Worker};
use crate::world::World;

impl World {
    pub(super) fn launched(&mut self, at: Millis, launch: String, gpu: Option<GpuUuid>) {
        let launching = self.launching.entry(gpu).or_default();
        let since = launching.pending.as_ref().map_or(at, |(since, _)| *since);
        launching.pending = Some((since, Some(launch)));
    }

    pub(super) fn launch_ended(
        &mut self,
        at: Millis,
        launch: &str,
        status: Option<i32>,
        message: Option<String>,
    ) {
        let is_it = |pending: &Option<(Millis, Option<String>)>| {
            pending.as_ref().is_some_and(|(_, id)| id.as_deref() == Some(launch))
        };
        // A launch whose worker was born is no longer pending: its end is told by `WorkerDied`.
        if let Some(launching) = self.launching.values_mut().find(|launching| is_it(&launching.pending)) {
            launching.failed(at, status, message);
        }
    }

    pub(super) fn worker_born(
        &mut self,
        at: Millis,
        id: &WorkerId,
        reports: Reports,
        orders: Option<Box<Orders>>,
    ) {
        if self.workers.contains_key(id) {
            self.anomaly("born_twice");
            return self.reported(at, id, reports);
        }
        let gpu = reports.gpu.as_ref().map(|gpu| gpu.uuid.clone());
        if let Some(identity) = &reports.gpu
            && !self.gpus.contains_key(&identity.uuid)
        {
            // A worker that a person started for a GPU that the senses have not told of.
            let facts = GpuFacts {
                uuid: identity.uuid.clone(),
                index: identity.index,
                name: identity.name.clone(),
                total_mib: identity.vram_mib,
                compute_capability: None,
            };
            let cooling = Millis::from_secs_f64(self.config.timing.cooling_s);
            self.gpus.insert(identity.uuid.clone(), Gpu::new(facts, cooling, at));
        }
        self.launching.entry(gpu.clone()).or_default().arrived();
        let orders = orders.map(|orders| *orders).unwrap_or_default();
        let engine_at = reports
            .engine
            .as_ref()
            .map_or(at, |engine| engine.since.clamp(Millis::ZERO, at.max(Millis::ZERO)));
        let known = reports.engine.as_ref().map_or(0, |engine| engine.generation);
        let ordered = orders.engine.as_ref().map_or(0, |engine| engine.generation);
        let worker = Worker {
            id: id.clone(),
            gpu: gpu.clone(),
            // What was ready when it was adopted was learned by the brain that booted it.
            judged: if orders.engine.is_some() { known } else { 0 },
            generation: known.max(ordered),
            engine: orders.engine,
            before: None,
            engine_at,
            hosts_before: Vec::new(),
            hosts: orders.hosts,
            hosts_at: at,
            leave: orders.leave,
            since: at,
            dead: false,
            units: BTreeSet::new(),
            claims: BTreeSet::new(),
            closed: BTreeSet::new(),
            again_at: None,
            reports,
        };
        let adopted = worker.engine.is_some() || !orders.attempts.is_empty() || !worker.hosts.is_empty();
        self.workers.insert(id.clone(), worker);
        self.take_seat(id, gpu.as_ref());
        for order in orders.attempts.into_values() {
            let stop = (order.wish == Wish::Stop).then_some(order.why).flatten();
            self.adopt_unit(at, id, order.key(), order.task, order.gpus, stop);
        }
        self.hear(at, id);
        if let Some(uuid) = gpu.filter(|_| adopted) {
            let scene = self.gpus.get(&uuid).map(|gpu| self.scene(gpu));
            if let (Some(gpu), Some(scene)) = (self.gpus.get_mut(&uuid), scene) {
                // A boot, and a wait for requests, began when the worker says.
                let since =
                    if scene.llm_boots || (scene.llm_ready && !scene.requests) { engine_at } else { at };
                gpu.adopt(scene, since);
            }
        }
        self.refresh_worker(at, id);
    }

    /// One GPU has one living worker, by its lock. A second birth is that of one whose death is not told yet, or of
    /// its successor: it waits, and takes the seat when it is free.
    fn take_seat(&mut self, id: &WorkerId, gpu: Option<&GpuUuid>) {
        let is_here = self.workers.get(id).is_some_and(Worker::is_here);
        let Some(gpu) = gpu.and_then(|uuid| self.gpus.get(uuid)) else { return };
        let taken = self.worker_on(gpu).is_some_and(|seated| seated.is_here() || !is_here);
        if taken {
            return;
        }
        let uuid = gpu.facts.uuid.clone();
        if let Some(gpu) = self.gpus.get_mut(&uuid) {
            gpu.worker = Some(id.clone());
        }
    }

    fn adopt_unit(
        &mut self,
        at: Millis,
        worker: &WorkerId,
        key: AttemptKey,
        task: Box<model::Task>,
        gpus: Vec<GpuUuid>,
        stop: Option<model::link::StopWhy>,
    ) {
        let shape = Shape::of(&task, &self.config);
        let own = self.workers.get(worker).and_then(|worker| worker.gpu.clone());
        let beside = gpus.into_iter().filter(|gpu| Some(gpu) != own.as_ref()).collect();
        let unit = Unit {
            key: key.clone(),
            worker: worker.clone(),
            beside,
            shape,
            task,
            phase: Phase::Ordered,
            ordered_at: at,
            since: at,
            adopted: true,
            warm: true,
            stop,
            yield_asked_at: (stop == Some(model::link::StopWhy::Yield)).then_some(at),
            cancelled: stop == Some(model::link::StopWhy::Cancel),
            shown: false,
            // The brain that ordered it has said so.
            told: crate::unit::Told::Assigned,
            progress: None,
            pace: Pace::default(),
            media_s: None,
            closing: None,
            again_at: None,
        };
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.units.insert(key.clone());
        }
        if self.units.insert(key.clone(), unit).is_some() {
            self.anomaly("attempt_number_used_twice");
        }
        self.cover(at, &key);
    }

    pub(super) fn reported(&mut self, at: Millis, id: &WorkerId, reports: Reports) {
        let Some(worker) = self.workers.get_mut(id) else { return self.anomaly("report_of_unknown_worker") };
        if worker.dead {
            // Whole records of a dead worker's outbox are told so; nothing else of it counts any more.
            worker.reports.attempts = reports.attempts;
        } else {
            let known: Vec<(String, Option<String>, u32)> = loads(&worker.reports);
            let before = (worker.reports.engine.is_some(), worker.reports.hosts.len());
            worker.reports = reports;
            let shrunk =
                before.1 > worker.reports.hosts.len() || (before.0 && worker.reports.engine.is_none());
            let gpu = worker.gpu.clone().filter(|_| shrunk);
            if let Some(gpu) = gpu.and_then(|uuid| self.gpus.get_mut(&uuid)) {
                gpu.shrunk_at = at;
            }
            self.learn_hosts(id, &known);
        }
        self.hear(at, id);
        self.refresh_worker(at, id);
    }

    /// Takes what a worker says about its LLM and its attempts.
    fn hear(&mut self, at: Millis, id: &WorkerId) {
        self.hear_engine(at, id);
        if let Some(Llm::Ready { report }) = self.workers.get(id).and_then(Worker::llm) {
            self.memory.uses(&self.config, &report.model);
        }
        let Some(worker) = self.workers.get_mut(id) else { return };
        let Worker { closed, reports, units, .. } = worker;
        closed.retain(|key| reports.attempts.contains_key(key));
        let strange = reports.attempts.keys().filter(|key| !units.contains(*key) && !closed.contains(*key));
        let strange: Vec<AttemptKey> = strange.cloned().collect();
        let mut keys: Vec<AttemptKey> = units.iter().cloned().collect();
        // A claim that is under way explains an attempt that no unit answers to yet.
        if !strange.is_empty() && worker.claims.is_empty() {
            worker.closed.extend(strange);
        }
        keys.retain(|key| self.units.contains_key(key));
        for key in keys {
            self.hear_attempt(at, &key);
        }
    }

    /// Takes what a worker says about one attempt.
    pub(super) fn hear_attempt(&mut self, at: Millis, key: &AttemptKey) {
        self.show_a_run_that_is_over(at, key);
        let Some(unit) = self.units.get_mut(key) else { return };
        let Some(report) = self.workers.get(&unit.worker).and_then(|worker| worker.reports.attempts.get(key))
        else {
            return;
        };
        if let Some(progress) = report.progress.filter(|progress| progress.is_finite()) {
            unit.proceed(progress.clamp(0.0, 1.0), at);
        }
        unit.media_s = report.media_s.or(unit.media_s);
        let since = report.since.map(|since| since.clamp(Millis::ZERO, at.max(Millis::ZERO)));
        match (&unit.phase, report.state) {
            (Phase::Ordered, AttemptState::Running) => {
                unit.phase = Phase::Running { since: since.unwrap_or(at) };
            }
            (Phase::Ordered | Phase::Running { .. } | Phase::Lost { .. }, AttemptState::Ended) => {
                let Some(outcome) = report.outcome.clone() else {
                    return self.anomaly("ended_without_outcome");
                };
                unit.phase = Phase::Over { since: since.or(unit.running_since()), outcome };
                self.learn_run(key);
            }
            (Phase::Ordered | Phase::Running { .. } | Phase::Lost { .. }, AttemptState::NeverStarted) => {
                unit.phase = Phase::NeverStarted;
            }
            _ => {}
        }
    }

    /// A script that began and ended between two reports was running all the same: its GPU shows that.
    fn show_a_run_that_is_over(&mut self, at: Millis, key: &AttemptKey) {
        let Some(unit) = self.units.get_mut(key).filter(|unit| unit.phase == Phase::Ordered) else { return };
        let report = self.workers.get(&unit.worker).and_then(|worker| worker.reports.attempts.get(key));
        let over = report.filter(|report| report.state == AttemptState::Ended);
        if let Some(since) = over.and_then(|report| report.since) {
            unit.phase = Phase::Running { since: since.clamp(Millis::ZERO, at.max(Millis::ZERO)) };
            let worker = unit.worker.clone();
            self.refresh_worker(at, &worker);
        }
    }

    fn learn_run(&mut self, key: &AttemptKey) {
        let Some(unit) = self.units.get(key) else { return };
        let Phase::Over { outcome, .. } = &unit.phase else { return };
        let (failure, run_ms, media_s) = (outcome.failure, outcome.run_ms, outcome.media_s);
        let llm = self.workers.get(&unit.worker).and_then(|worker| worker.reports.engine.as_ref());
        let name = run_name(&self.config, &unit.task, llm.map(|engine| engine.model.as_str()));
        let class = unit.class();
        let others = self.workers.get(&unit.worker).into_iter().flat_map(|worker| self.units_on(worker));
        let slots = others.filter(|other| other.is_live()).count() + 1;
        let beside = unit.beside.clone();
        let gpu = self.gpu_of(&unit.worker).map(|gpu| (gpu.facts.uuid.clone(), gpu.facts.name.clone()));
        // One that went on from a checkpoint ran for a part only.
        let is_whole = unit.task.checkpoint.is_none();
        match failure {
            None => {
                self.learn_peak(key);
                if is_whole {
                    let gpu_name = gpu.as_ref().map(|(_, name)| name.as_str());
                    self.memory.ran(name, run_ms, media_s, gpu_name, slots);
                }
                if let Some(gpu) = gpu.and_then(|(uuid, _)| self.gpus.get_mut(&uuid)) {
                    if class == TaskClass::Llm {
                        gpu.boot_failures.clear();
                    }
                    if gpu.health == Health::Suspect {
                        gpu.health = Health::Ok;
                    }
                }
            }
            Some(FailureClass::GpuFault) => {
                // Which of several it was, nobody can say.
                for uuid in gpu.into_iter().map(|(uuid, _)| uuid).chain(beside) {
                    if let Some(gpu) = self.gpus.get_mut(&uuid).filter(|gpu| gpu.health == Health::Ok) {
                        gpu.health = Health::Suspect;
                    }
                }
            }
            Some(FailureClass::Oom) => self.ran_out(key),
            Some(_) => {}
        }
    }

    fn hear_engine(&mut self, at: Millis, id: &WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let parallel = worker.engine.as_ref().map_or(1, |order| order.parallel.max(1));
        let (preset, model, boot_ms, failed) = match worker.llm() {
            Some(Llm::Ready { report }) if report.generation > worker.judged => {
                (report.preset.clone(), report.model.clone(), report.boot_ms, None)
            }
            Some(Llm::Failed { report }) => {
                let error = report.error.clone().unwrap_or_else(|| "it ended without a word".into());
                (report.preset.clone(), report.model.clone(), None, Some(error))
            }
            _ => return,
        };
        let generation = worker.engine.as_ref().map_or(0, |order| order.generation);
        worker.judged = generation;
        let gpu = worker.gpu.clone();
        if let Some(ms) = boot_ms {
            self.memory.llm_booted(&preset, &model, parallel, ms);
        }
        if let (Some(error), Some(gpu)) = (failed, gpu.and_then(|uuid| self.gpus.get_mut(&uuid))) {
            let before = gpu.boot_failures.get(&model);
            // One failure is told once: until the order is taken back, its reports say nothing new.
            if gpu.state != model::GpuState::Cooling || before.is_none() {
                let failure = BootFailure::after(before, at, error);
                gpu.boot_failures.insert(model, failure);
            }
        }
    }

    fn learn_hosts(&mut self, id: &WorkerId, known: &[(String, Option<String>, u32)]) {
        let Some(worker) = self.workers.get(id) else { return };
        let loaded = worker.reports.hosts.iter().filter(|host| host.state != HostState::Booting);
        let fresh = loaded.filter(|host| {
            let same = known.iter().find(|(script, model, _)| *script == host.script && *model == host.model);
            same.is_none_or(|(_, _, loads)| host.loads > *loads)
        });
        let fresh: Vec<_> =
            fresh.filter_map(|host| Some((host.script.clone(), host.model.clone(), host.boot_ms?))).collect();
        for (script, model, ms) in fresh {
            self.memory.host_booted(&script, model.as_deref(), ms);
        }
    }

    pub(super) fn worker_died(&mut self, at: Millis, id: &WorkerId, with_machine: bool) {
        let Some(worker) = self.workers.get_mut(id) else { return self.anomaly("death_of_unknown_worker") };
        if worker.dead {
            return;
        }
        let slots = if worker.gpu.is_none() { None } else { Some(worker.at_once()) };
        worker.dead = true;
        let meant_to = worker.leave || worker.reports.phase == model::link::Phase::Left;
        let lived = at - worker.since;
        let lane = worker.gpu.clone();
        let keys: Vec<AttemptKey> = worker.units.iter().cloned().collect();
        self.lose_units(&keys, slots.unwrap_or(self.cpu_slots() as usize), with_machine);
        let seated = lane
            .as_ref()
            .is_none_or(|uuid| self.gpus.get(uuid).is_some_and(|gpu| gpu.worker.as_ref() == Some(id)));
        if seated && !meant_to {
            let launching = self.launching.entry(lane.clone()).or_default();
            if lived >= LIVED {
                launching.failures = 0;
            }
            let pending = launching.pending.take();
            launching.failed(at, None, Some("its worker died".into()));
            launching.pending = pending;
        }
        let heir =
            self.workers.values().find(|worker| lane.is_some() && worker.gpu == lane && worker.is_here());
        if let Some(heir) = heir.map(|worker| worker.id.clone()) {
            self.take_seat(&heir, lane.as_ref());
            self.launching.entry(lane).or_default().arrived();
        }
        self.refresh_worker(at, id);
        self.bury(id);
    }

    /// Attempts without a record are lost. Those that may have run are charged: the first `slots` by order, and, where
    /// the reports outlived the worker, all that were seen running.
    fn lose_units(&mut self, keys: &[AttemptKey], slots: usize, with_machine: bool) {
        let mut live: Vec<(Millis, AttemptKey)> = Vec::new();
        for key in keys {
            if let Some(unit) = self.units.get(key).filter(|unit| unit.is_live()) {
                live.push((unit.ordered_at, key.clone()));
            }
        }
        live.sort();
        for (place, (_, key)) in live.into_iter().enumerate() {
            if let Some(unit) = self.units.get_mut(&key) {
                let seen_running = !with_machine && unit.running_since().is_some();
                unit.phase = Phase::Lost { charge: place < slots || seen_running };
            }
        }
    }
}

fn loads(reports: &Reports) -> Vec<(String, Option<String>, u32)> {
    let loaded = reports.hosts.iter().filter(|host| host.state != HostState::Booting);
    loaded.map(|host| (host.script.clone(), host.model.clone(), host.loads)).collect()
}
