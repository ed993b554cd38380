//! A machine that does not exist: every action is answered at once, every call into the mind is timed.
//!
//! In its steady state a task ends, what is free is filled, and a new task arrives: the queue stays as deep as it was.

use std::collections::{BTreeMap, VecDeque};

use model::gpu::{GpuFacts, Inventory};
use model::learned::Learned;
use model::link::{
    AttemptReport, AttemptState, Can, CanEngine, EngineReport, EngineState, GpuIdentity, HostReport,
    HostState, Outcome, Reports, WorkerIdentity,
};
use model::task::Work;
use model::{AttemptKey, Config, Entry, GpuUuid, InventorySource, Millis, Task, WorkerId};
use policy::{Action, BatchFacts, Event, World, plan};

use crate::clock::Clock;
use crate::workload::{MODELS, Workload};

/// How long a task runs.
const RUN: Millis = Millis::from_secs(40);

/// Calls into the mind and the CPU time they took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    pub(crate) events: u64,
    pub(crate) events_ns: u64,
    pub(crate) plans: u64,
    pub(crate) plans_ns: u64,
}

pub(crate) struct Machine {
    pub(crate) world: World,
    pub(crate) meter: Meter,
    now: Millis,
    clock: Clock,
    workload: Workload,
    reports: BTreeMap<WorkerId, Reports>,
    running: VecDeque<(WorkerId, AttemptKey)>,
    dropped: u64,
}

impl Machine {
    /// `gpus` GPUs with their workers, nothing queued.
    pub(crate) fn new(gpus: usize, config: Config, workload: Workload) -> Self {
        let mut machine = Self {
            world: World::new(config, Learned::default()),
            meter: Meter::default(),
            now: Millis(1_000),
            clock: Clock,
            workload,
            reports: BTreeMap::new(),
            running: VecDeque::new(),
            dropped: 0,
        };
        let facts = (0..gpus).map(|index| GpuFacts {
            uuid: GpuUuid::new(format!("SIM-{index:04}")).expect("a legal name"),
            index: u32::try_from(index).expect("few"),
            name: "SIMULATED 24576 MiB".into(),
            total_mib: Some(24_576),
            compute_capability: None,
        });
        let inventory = Inventory { source: InventorySource::Simulated, why: None, gpus: facts.collect() };
        machine.tell(Event::Inventory(inventory));
        machine.think();
        machine
    }

    /// Lets tasks wait, without deciding about them.
    pub(crate) fn fill(&mut self, depth: usize) {
        for facts in self.workload.batches(depth) {
            self.tell(Event::Batch(facts));
        }
        for _ in 0..depth {
            self.drop_task();
        }
    }

    /// Decides until there is nothing more to say, and forgets what that cost.
    pub(crate) fn settle(&mut self) {
        self.think();
        self.meter = Meter::default();
    }

    /// A task ends, a task arrives.
    pub(crate) fn turn(&mut self) {
        self.now = self.now + Millis((RUN.0 / i64::try_from(self.running.len().max(1)).expect("few")).max(1));
        if let Some((worker, key)) = self.running.pop_front() {
            self.end(&worker, &key);
            self.think();
        }
        self.drop_task();
        self.think();
    }

    /// A task arrives.
    pub(crate) fn drop_task(&mut self) {
        self.dropped += 1;
        let (task, not_before) = self.workload.task(self.dropped);
        let entry =
            Entry { class: task.class(), priority: task.priority, name: format!("{}.json", task.task_id) };
        self.tell(Event::Queued { entry, task: Box::new(task), order: self.dropped, not_before });
    }

    fn tell(&mut self, event: Event) {
        let began = self.clock.ns();
        self.world.apply(self.now, event);
        self.meter.events_ns += self.clock.ns() - began;
        self.meter.events += 1;
    }

    fn think(&mut self) {
        loop {
            let began = self.clock.ns();
            let plan = plan(&self.world, self.now);
            self.meter.plans_ns += self.clock.ns() - began;
            self.meter.plans += 1;
            if plan.actions.is_empty() {
                return;
            }
            for action in plan.actions {
                self.tell(Event::Issued(Box::new(action.clone())));
                self.carry_out(action);
            }
        }
    }

    fn report(&mut self, worker: &WorkerId) {
        if let Some(reports) = self.reports.get(worker) {
            let reports = Box::new(reports.clone());
            self.tell(Event::Reported { worker: worker.clone(), reports });
        }
    }

    fn change(&mut self, worker: &WorkerId, change: impl FnOnce(&mut Reports)) {
        self.reports.get_mut(worker).map(change).expect("a worker that was born");
        self.report(worker);
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Launch { gpu } => self.launch(gpu),
            Action::Start { entry, worker, task, .. } => self.start(entry, worker, &task),
            Action::Engine { worker, engine } => {
                let since = self.now;
                self.change(&worker, |reports| {
                    reports.engine = engine.map(|order| EngineReport {
                        generation: order.generation,
                        state: EngineState::Ready,
                        preset: order.preset,
                        model: order.model,
                        parallel: order.parallel,
                        beside: order.beside,
                        pid: Some(4_711),
                        port: Some(18_100),
                        since,
                        boot_ms: Some(5_000),
                        error: None,
                    });
                });
            }
            Action::Hosts { worker, hosts } => self.change(&worker, |reports| {
                let stays = |host: &HostReport| hosts.iter().any(|order| order.script == host.script);
                reports.hosts.retain(stays);
            }),
            Action::Stop { worker, key, .. } => {
                self.running.retain(|(_, running)| *running != key);
                self.end(&worker, &key);
            }
            Action::Finish { worker, key } => {
                self.tell(Event::Finished { task_id: key.task_id.clone(), complete: true });
                self.change(&worker, |reports| drop(reports.attempts.remove(&key)));
            }
            Action::FailQueued { entry, task, .. } => {
                self.tell(Event::Claimed { entry, task_id: task.task_id.clone() });
                self.tell(Event::Finished { task_id: task.task_id, complete: false });
            }
            Action::ShowRunning { .. }
            | Action::Say(_)
            | Action::Reserve { .. }
            | Action::Keep { .. }
            | Action::ReadAhead { .. } => {}
            other => panic!("nothing fails and nobody leaves here: {other:?}"),
        }
    }

    fn launch(&mut self, gpu: Option<GpuUuid>) {
        let launch = format!("launch-{}", self.reports.len());
        let worker = WorkerId::new(format!("worker-{}", self.reports.len())).expect("a legal name");
        self.tell(Event::Launched { launch: launch.clone(), gpu: gpu.clone() });
        let index = gpu.as_ref().and_then(|uuid| uuid.as_str().trim_start_matches("SIM-").parse().ok());
        let models = MODELS.iter().map(|model| (*model).to_owned()).collect();
        let reports = Reports {
            worker: Some(WorkerIdentity {
                uuid: worker.clone(),
                launch: Some(launch),
                pid: 100,
                starttime: 1,
                boot_id: "boot".into(),
                exe: "worker".into(),
            }),
            gpu: gpu.map(|uuid| GpuIdentity {
                uuid,
                index: index.unwrap_or_default(),
                name: "SIMULATED 24576 MiB".into(),
                vram_mib: Some(24_576),
            }),
            can: Can { engines: vec![CanEngine { preset: "ollama".into(), models }], missing: Vec::new() },
            ..Reports::default()
        };
        self.reports.insert(worker.clone(), reports.clone());
        self.tell(Event::WorkerBorn { worker, reports: Box::new(reports), orders: None });
    }

    fn start(&mut self, entry: Entry, worker: WorkerId, task: &Task) {
        let key = AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
        let task_id = key.task_id.clone();
        self.tell(Event::Started { entry, task_id, worker: worker.clone(), attempt: key.attempt });
        let since = Some(self.now);
        let host = match &task.work {
            Work::Script(work) => Some(work.script.to_string()),
            Work::Llm(_) => None,
        };
        self.change(&worker, |reports| {
            if let Some(script) = host
                && !reports.hosts.iter().any(|host| host.script == script)
            {
                let state = HostState::Idle;
                let host =
                    HostReport { script, model: None, state, pid: Some(9), loads: 1, boot_ms: Some(900) };
                reports.hosts.push(host);
            }
            let (task_id, attempt) = (key.task_id.clone(), key.attempt);
            let state = AttemptState::Running;
            let attempt = AttemptReport {
                task_id,
                attempt,
                state,
                since,
                progress: None,
                media_s: None,
                yields: false,
                outcome: None,
            };
            reports.attempts.insert(key.clone(), attempt);
        });
        self.running.push_back((worker, key));
    }

    fn end(&mut self, worker: &WorkerId, key: &AttemptKey) {
        self.change(worker, |reports| {
            if let Some(report) = reports.attempts.get_mut(key) {
                report.state = AttemptState::Ended;
                report.outcome = Some(Outcome {
                    failure: None,
                    code: None,
                    message: None,
                    run_ms: RUN.0.unsigned_abs(),
                    media_s: None,
                    checkpoint: None,
                    stopped: false,
                });
            }
        });
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// The machine's time.
    pub(crate) const fn now(&self) -> Millis {
        self.now
    }
}

/// Facts of a batch of which nothing has ended.
pub(crate) fn batch_facts(name: String, script: &str, mode: model::GpuMode, total: u64) -> BatchFacts {
    BatchFacts {
        batch_id: model::BatchId::new(name).expect("a legal name"),
        script: script.into(),
        gpu_mode: mode,
        total,
        completed: 0,
        failed: 0,
        paused: false,
    }
}
