//! A spool, a brain and workers that do not exist: actions are answered at virtual times, laws are checked after each fact.

use std::collections::{BTreeMap, VecDeque};

use model::gpu::{GpuFacts, Inventory};
use model::learned::Learned;
use model::link::{
    AttemptOrder, AttemptReport, AttemptState, Can, EngineReport, EngineState, GpuIdentity, HostReport,
    HostState, Line, Orders, OrdersLine, Outcome, Phase, Reports, StopWhy, Wish, WorkerIdentity,
};
use model::picture::Picture;
use model::task::PastAttempt;
use model::{
    AttemptKey, BatchId, Config, Entry, FailureClass, GpuMode, GpuState, GpuUuid, InventorySource, Millis,
    Reason, Task, TaskClass, TaskError, TaskId, Timestamp, WorkerId,
};

use super::make::{self, Drop};
use crate::action::Action;
use crate::event::{BatchFacts, Event};
use crate::picture::{PictureFrame, picture};
use crate::queue::HostKey;
use crate::{World, breaches, place, plan, why};

/// What happens by itself at some time.
#[derive(Clone, Debug)]
enum Happening {
    Born { launch: String, gpu: Option<GpuUuid> },
    EngineReady { worker: WorkerId, generation: u64 },
    EngineGone { worker: WorkerId, generation: u64 },
    HostLoaded { worker: WorkerId, key: AttemptKey },
    HostGone { worker: WorkerId },
    Begin { worker: WorkerId, key: AttemptKey },
    End { worker: WorkerId, key: AttemptKey },
    Stopped { worker: WorkerId, key: AttemptKey },
    Left { worker: WorkerId },
}

#[derive(Clone, Debug)]
struct VirtualWorker {
    orders: Orders,
    reports: Reports,
    loads: BTreeMap<(String, Option<String>), u32>,
    dead: bool,
}

pub(super) struct Rig {
    pub world: World,
    pub now: Millis,
    pub config: Config,
    /// Every action, with its time.
    pub log: Vec<(Millis, Action)>,
    /// How tasks ended.
    pub ended: BTreeMap<TaskId, Vec<Ended>>,
    /// What workers can boot.
    pub can: Can,
    /// Outcomes to come, by the name a task was dropped with; complete when there are none left.
    pub outcomes: BTreeMap<String, VecDeque<Option<FailureClass>>>,
    /// How long a thing takes, in milliseconds.
    pub times: Times,
    /// Engines to fail at their next boots.
    pub boots_to_fail: u32,
    /// Attempts that never end by themselves.
    pub hang: Vec<String>,
    /// Workers killed without a word.
    pub lenient: bool,
    workers: BTreeMap<WorkerId, VirtualWorker>,
    files: BTreeMap<Entry, (Task, Option<Millis>)>,
    gpus: Vec<GpuFacts>,
    source: InventorySource,
    agenda: BTreeMap<(Millis, u64), Happening>,
    batches: BTreeMap<BatchId, BatchFacts>,
    born: u32,
    count: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub complete: bool,
    pub error: Option<TaskError>,
    pub attempt: u32,
    pub gpu: Option<String>,
    pub at: Millis,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub boot: i64,
    pub unload: i64,
    pub host_load: i64,
    pub llm: i64,
    pub script: i64,
}

pub(super) fn millis(ms: i64) -> Millis {
    Millis(ms)
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(make::config())
    }

    pub(super) fn with(config: Config) -> Self {
        Self {
            world: World::new(config.clone(), Learned::default()),
            now: Millis(1_000),
            config,
            log: Vec::new(),
            ended: BTreeMap::new(),
            can: make::can(&[make::QWEN_14B, make::QWEN_7B]),
            outcomes: BTreeMap::new(),
            times: Times { boot: 5_000, unload: 500, host_load: 1_000, llm: 1_000, script: 2_000 },
            boots_to_fail: 0,
            hang: Vec::new(),
            lenient: false,
            workers: BTreeMap::new(),
            files: BTreeMap::new(),
            gpus: Vec::new(),
            source: InventorySource::Simulated,
            agenda: BTreeMap::new(),
            batches: BTreeMap::new(),
            born: 0,
            count: 0,
        }
    }

    /// Finds these GPUs, by their memory in MiB.
    pub(super) fn gpus<const N: usize>(mut self, sizes: [u64; N]) -> Self {
        let facts = sizes.iter().enumerate().map(|(index, mib)| GpuFacts {
            uuid: GpuUuid::new(format!("SIM-{index}")).expect("legal"),
            index: u32::try_from(index).expect("few"),
            name: format!("SIMULATED {mib} MiB"),
            total_mib: Some(*mib),
            compute_capability: None,
        });
        self.gpus = facts.collect();
        let inventory = self.inventory();
        self.tell(Event::Inventory(inventory));
        self
    }

    pub(super) fn inventory(&self) -> Inventory {
        Inventory { source: self.source, why: Some("for a test".into()), gpus: self.gpus.clone() }
    }

    /// One fact, and the laws.
    pub(super) fn tell(&mut self, event: Event) {
        self.world.apply(self.now, event.clone());
        let broken = breaches(&self.world);
        assert!(broken.is_empty(), "{broken:?} after {event:?}");
        if !self.lenient {
            assert!(self.world.anomalies().is_empty(), "{:?} after {event:?}", self.world.anomalies());
        }
    }

    pub(super) fn drop_task(&mut self, drop: Drop) -> &mut Self {
        self.count += 1;
        let order = drop.order.unwrap_or(self.count);
        let name = format!("{}.json", drop.task.task_id);
        let entry = Entry { class: drop.task.class(), priority: drop.task.priority, name };
        self.files.insert(entry.clone(), (drop.task.clone(), None));
        self.tell(Event::Queued { entry, task: Box::new(drop.task), order, not_before: None });
        self
    }

    pub(super) fn drop_tasks(&mut self, drops: impl IntoIterator<Item = Drop>) -> &mut Self {
        for drop in drops {
            self.drop_task(drop);
        }
        self
    }

    /// Accepts a batch of transcriptions of these media lengths.
    pub(super) fn drop_batch(&mut self, name: &str, mode: GpuMode, media: &[f64]) -> &mut Self {
        let batch_id = BatchId::new(name).expect("legal");
        let total = media.len() as u64;
        let facts = BatchFacts {
            batch_id: batch_id.clone(),
            script: "whisper".into(),
            gpu_mode: mode,
            total,
            completed: 0,
            failed: 0,
        };
        self.batches.insert(batch_id, facts.clone());
        self.tell(Event::Batch(facts));
        for (index, seconds) in media.iter().enumerate() {
            self.drop_task(make::whisper(&format!("{name}.{index}")).of_batch(name).media(*seconds));
        }
        self
    }

    /// Lets the brain decide until it has nothing more to say.
    pub(super) fn think(&mut self) -> Option<Millis> {
        for _ in 0..200 {
            let plan = plan(&self.world, self.now);
            if plan.actions.is_empty() {
                return plan.wake_at;
            }
            for action in plan.actions {
                self.tell(Event::Issued(Box::new(action.clone())));
                self.log.push((self.now, action.clone()));
                self.carry_out(action);
            }
        }
        panic!("the plan never comes to rest: {:?}", &self.log[self.log.len() - 10..]);
    }

    /// Thinks and lets time pass until `done`; panics after two virtual hours.
    pub(super) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> &mut Self {
        let end = self.now + Millis::from_secs(7_200);
        loop {
            let wake = self.think();
            if done(self) {
                return self;
            }
            let happening = self.agenda.keys().next().map(|(at, _)| *at);
            let Some(next) = [wake, happening].into_iter().flatten().min().filter(|next| *next <= end) else {
                panic!("never came: {what}; at {}: {}", self.now, self.describe());
            };
            assert!(next > self.now || happening.is_some_and(|at| at <= self.now), "wakes at once again");
            self.now = next.max(self.now);
            self.happen();
        }
    }

    /// Runs until nothing waits, runs or is on its way.
    pub(super) fn run_until_rest(&mut self) -> &mut Self {
        self.run_until("rest", |rig| rig.world.rest() != crate::Rest::Busy)
    }

    pub(super) fn run_until_ended(&mut self, name: &str) -> &mut Self {
        let task_id = id(name);
        self.run_until(&format!("the end of {name}"), |rig| rig.ended.contains_key(&task_id))
    }

    /// Lets this much time pass, deciding meanwhile.
    pub(super) fn run_for(&mut self, ms: i64) -> &mut Self {
        let end = self.now + Millis(ms);
        loop {
            let wake = self.think();
            let happening = self.agenda.keys().next().map(|(at, _)| *at);
            let next = [wake, happening].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            self.happen();
        }
        self.now = end;
        self
    }

    fn happen(&mut self) {
        while let Some((at, number)) = self.agenda.keys().next().copied().filter(|(at, _)| *at <= self.now) {
            if let Some(happening) = self.agenda.remove(&(at, number)) {
                self.let_happen(happening);
            }
        }
    }

    fn later(&mut self, ms: i64, happening: Happening) {
        self.count += 1;
        self.agenda.insert((self.now + Millis(ms), self.count), happening);
    }

    // -------------------------------------------------------------------------------------------- the hands

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Launch { gpu } => {
                let launch = format!("launch-{}", self.log.len());
                self.tell(Event::Launched { launch: launch.clone(), gpu: gpu.clone() });
                self.later(50, Happening::Born { launch, gpu });
            }
            Action::Start { entry, worker, task } => self.carry_out_start(entry, worker, *task),
            Action::Engine { worker, engine } => {
                let Some(found) = self.workers.get_mut(&worker) else { return };
                found.orders.engine.clone_from(&engine);
                let since = self.now;
                match engine {
                    Some(order) => {
                        found.reports.engine = Some(EngineReport {
                            generation: order.generation,
                            state: EngineState::Booting,
                            preset: order.preset,
                            model: order.model,
                            parallel: order.parallel,
                            pid: Some(4_711),
                            port: Some(18_100),
                            since,
                            boot_ms: None,
                            error: None,
                        });
                        self.later(
                            self.times.boot,
                            Happening::EngineReady { worker: worker.clone(), generation: order.generation },
                        );
                    }
                    None => {
                        if let Some(engine) = &mut found.reports.engine {
                            engine.state = EngineState::Unloading;
                            let generation = engine.generation;
                            self.later(
                                self.times.unload,
                                Happening::EngineGone { worker: worker.clone(), generation },
                            );
                        }
                    }
                }
                self.report(&worker);
            }
            Action::Hosts { worker, hosts } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.orders.hosts = hosts;
                    self.later(200, Happening::HostGone { worker });
                }
            }
            Action::Stop { worker, key, why } => self.carry_out_stop(worker, key, why),
            Action::Finish { worker, key } => self.carry_out_finish(worker, key),
            Action::Requeue { worker, key, task, error, charged, back_off } => {
                self.carry_out_requeue(worker, key, *task, error, charged, back_off);
            }
            Action::Fail { worker, key, error, .. } => {
                self.end(&key, Some(error), &worker);
                self.drop_key(&worker, &key);
            }
            Action::FailQueued { entry, task, error } => {
                self.files.remove(&entry).expect("failed from its queue");
                let key = AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
                self.tell(Event::Claimed { entry, task_id: key.task_id.clone() });
                self.note_end(&key, Some(error), None);
                self.count_batch(task.batch_id.as_ref(), false);
            }
            Action::ShowRunning { .. } => {}
            Action::Leave { worker } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.orders.leave = true;
                    found.reports.phase = Phase::Leaving;
                    let wait = if found.reports.engine.is_some() { self.times.unload } else { 10 };
                    self.report(&worker);
                    self.later(wait, Happening::Left { worker });
                }
            }
        }
    }

    fn carry_out_start(&mut self, entry: Entry, worker: WorkerId, mut task: Task) {
        let there = self.files.remove(&entry);
        let Some(found) = self.workers.get_mut(&worker).filter(|_| there.is_some()) else {
            if let Some(file) = there {
                self.files.insert(entry.clone(), file);
            }
            return self.tell(Event::StartLost { entry, why: "not there".into() });
        };
        let wish = task.task_id.clone();
        let taken = |id: &TaskId| self.ended.contains_key(id) && task.attempt == 1;
        let numbered = (1..).map(|turn| wish.candidate(turn).expect("short")).find(|id| !taken(id));
        task.task_id = numbered.expect("endless");
        let key = AttemptKey { task_id: task.task_id.clone(), attempt: task.attempt };
        let order = AttemptOrder {
            task_id: key.task_id.clone(),
            attempt: key.attempt,
            wish: Wish::Run,
            why: None,
            task: Box::new(task.clone()),
        };
        found.orders.attempts.insert(key.clone(), order);
        self.tell(Event::Started {
            entry,
            task_id: key.task_id.clone(),
            worker: worker.clone(),
            attempt: key.attempt,
        });
        self.begin_later(worker, key, &task);
    }

    fn begin_later(&mut self, worker: WorkerId, key: AttemptKey, task: &Task) {
        let Some(found) = self.workers.get_mut(&worker) else { return };
        let model::task::Work::Script(work) = &task.work else {
            return self.later(2, Happening::Begin { worker, key });
        };
        let host = place::host_key(&self.config, work);
        let is_loaded =
            found.reports.hosts.iter().any(|report| host.is(&report.script, report.model.as_deref()));
        if host.warm && !is_loaded {
            self.later(self.times.host_load, Happening::HostLoaded { worker, key });
        } else {
            self.later(if host.warm { 1 } else { 300 }, Happening::Begin { worker, key });
        }
    }

    fn carry_out_stop(&mut self, worker: WorkerId, key: AttemptKey, why: StopWhy) {
        if let Some(order) =
            self.workers.get_mut(&worker).and_then(|found| found.orders.attempts.get_mut(&key))
        {
            (order.wish, order.why) = (Wish::Stop, Some(why));
            self.later(100, Happening::Stopped { worker, key });
        }
    }

    fn carry_out_finish(&mut self, worker: WorkerId, key: AttemptKey) {
        let report = self.workers.get(&worker).and_then(|found| found.reports.attempts.get(&key)).cloned();
        let outcome = report.and_then(|report| report.outcome).expect("a record in the outbox");
        let error = outcome.failure.map(|class| TaskError::new(class, class.name(), "as its record says"));
        self.end(&key, error, &worker);
        self.drop_key(&worker, &key);
    }

    fn carry_out_requeue(
        &mut self,
        worker: WorkerId,
        key: AttemptKey,
        mut task: Task,
        error: Option<TaskError>,
        charged: bool,
        back_off: Millis,
    ) {
        task.history.push(PastAttempt {
            attempt: key.attempt,
            worker: Some(worker.clone()),
            gpu: self.gpu_key(&worker),
            started_at: None,
            ended_at: None,
            charged,
            error,
            was: None,
        });
        self.tell(Event::Requeued { task_id: key.task_id.clone() });
        self.drop_key(&worker, &key);
        self.count += 1;
        let entry =
            Entry { class: task.class(), priority: task.priority, name: format!("{}.json", key.task_id) };
        let not_before = (back_off > Millis::ZERO).then(|| self.now + back_off);
        self.files.insert(entry.clone(), (task.clone(), not_before));
        self.tell(Event::Queued { entry, task: Box::new(task), order: self.count, not_before });
    }

    fn gpu_key(&self, worker: &WorkerId) -> Option<String> {
        self.workers.get(worker)?.reports.gpu.as_ref().map(|gpu| gpu.index.to_string())
    }

    fn end(&mut self, key: &AttemptKey, error: Option<TaskError>, worker: &WorkerId) {
        let complete = error.is_none();
        let found = self.workers.get(worker).and_then(|found| found.orders.attempts.get(key));
        let batch = found.and_then(|order| order.task.batch_id.clone());
        self.note_end(key, error, Some(worker));
        self.count_batch(batch.as_ref(), complete);
    }

    fn note_end(&mut self, key: &AttemptKey, error: Option<TaskError>, worker: Option<&WorkerId>) {
        let complete = error.is_none();
        let gpu = worker.and_then(|worker| self.gpu_key(worker));
        let ended = Ended { complete, error, attempt: key.attempt, gpu, at: self.now };
        self.ended.entry(key.task_id.clone()).or_default().push(ended);
        self.tell(Event::Finished { task_id: key.task_id.clone(), complete });
    }

    fn count_batch(&mut self, batch: Option<&BatchId>, complete: bool) {
        let Some(facts) = batch.and_then(|batch| self.batches.get_mut(batch)) else { return };
        if complete {
            facts.completed += 1;
        } else {
            facts.failed += 1;
        }
        let facts = facts.clone();
        self.tell(Event::Batch(facts));
    }

    fn drop_key(&mut self, worker: &WorkerId, key: &AttemptKey) {
        if let Some(found) = self.workers.get_mut(worker) {
            found.orders.attempts.remove(key);
            found.reports.attempts.remove(key);
            self.report(worker);
        }
    }

    // -------------------------------------------------------------------------------------------- the workers

    fn report(&mut self, worker: &WorkerId) {
        if let Some(found) = self.workers.get(worker).filter(|found| !found.dead) {
            let reports = Box::new(found.reports.clone());
            self.tell(Event::Reported { worker: worker.clone(), reports });
        }
    }

    fn let_happen(&mut self, happening: Happening) {
        match happening {
            Happening::Born { launch, gpu } => drop(self.bear(Some(launch), gpu)),
            Happening::EngineReady { worker, generation } => {
                let boot = self.times.boot;
                let fails = self.boots_to_fail > 0;
                let now = self.now;
                let Some(engine) = self.engine_mut(&worker, generation, EngineState::Booting) else { return };
                engine.since = now;
                if fails {
                    engine.state = EngineState::Failed;
                    engine.error = Some("the model file is broken".into());
                    self.boots_to_fail -= 1;
                } else {
                    engine.state = EngineState::Ready;
                    engine.boot_ms = u64::try_from(boot).ok();
                }
                self.report(&worker);
            }
            Happening::EngineGone { worker, generation } => {
                if self.engine_mut(&worker, generation, EngineState::Unloading).is_some() {
                    if let Some(found) = self.workers.get_mut(&worker) {
                        found.reports.engine = None;
                    }
                    self.report(&worker);
                }
            }
            Happening::HostLoaded { worker, key } => self.host_loaded(worker, key),
            Happening::HostGone { worker } => {
                let Some(found) = self.workers.get_mut(&worker) else { return };
                let orders = &found.orders.hosts;
                found.reports.hosts.retain(|host| {
                    let stays =
                        orders.iter().any(|order| order.script == host.script && order.model == host.model);
                    stays || host.state == HostState::Busy
                });
                self.report(&worker);
            }
            Happening::Begin { worker, key } => self.begin(worker, key),
            Happening::End { worker, key } => self.end_attempt(&worker, &key, None),
            Happening::Stopped { worker, key } => {
                let class = match self.order(&worker, &key).and_then(|order| order.why) {
                    Some(StopWhy::Timeout) => FailureClass::Timeout,
                    _ => FailureClass::Cancelled,
                };
                self.end_attempt(&worker, &key, Some(class));
            }
            Happening::Left { worker } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.reports.engine = None;
                    found.reports.hosts.clear();
                    found.reports.phase = Phase::Left;
                    self.report(&worker);
                    self.workers.remove(&worker);
                    self.tell(Event::WorkerDied { worker, with_machine: false });
                }
            }
        }
    }

    fn order(&self, worker: &WorkerId, key: &AttemptKey) -> Option<&AttemptOrder> {
        self.workers.get(worker)?.orders.attempts.get(key)
    }

    fn engine_mut(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        state: EngineState,
    ) -> Option<&mut EngineReport> {
        let engine = self.workers.get_mut(worker)?.reports.engine.as_mut()?;
        (engine.generation == generation && engine.state == state).then_some(engine)
    }

    /// A worker is born; by hand where no launch is named.
    pub(super) fn bear(&mut self, launch: Option<String>, gpu: Option<GpuUuid>) -> WorkerId {
        self.born += 1;
        let worker = WorkerId::new(format!("worker-{}", self.born)).expect("legal");
        let identity = gpu.as_ref().and_then(|uuid| self.gpus.iter().find(|facts| facts.uuid == *uuid));
        let reports = Reports {
            worker: Some(WorkerIdentity {
                uuid: worker.clone(),
                launch,
                pid: 100 + self.born,
                starttime: 1,
                boot_id: "boot".into(),
                exe: "worker".into(),
            }),
            gpu: identity.map(|facts| GpuIdentity {
                uuid: facts.uuid.clone(),
                index: facts.index,
                name: facts.name.clone(),
                vram_mib: facts.total_mib,
            }),
            can: if gpu.is_some() { self.can.clone() } else { Can::default() },
            ..Reports::default()
        };
        let virtual_worker = VirtualWorker {
            orders: Orders::default(),
            reports: reports.clone(),
            loads: BTreeMap::new(),
            dead: false,
        };
        self.workers.insert(worker.clone(), virtual_worker);
        self.tell(Event::WorkerBorn { worker: worker.clone(), reports: Box::new(reports), orders: None });
        worker
    }

    fn host_loaded(&mut self, worker: WorkerId, key: AttemptKey) {
        let Some(order) = self.order(&worker, &key) else { return };
        let model::task::Work::Script(work) = &order.task.work else { return };
        let HostKey { script, model, .. } = place::host_key(&self.config, work);
        let boot_ms = u64::try_from(self.times.host_load).ok();
        if let Some(found) = self.workers.get_mut(&worker) {
            let loads = found.loads.entry((script.to_string(), model.clone())).or_default();
            *loads += 1;
            let host = HostReport {
                script: script.to_string(),
                model,
                state: HostState::Idle,
                pid: Some(9_000),
                loads: *loads,
                boot_ms,
            };
            found.reports.hosts.push(host);
        }
        self.report(&worker);
        self.begin(worker, key);
    }

    fn begin(&mut self, worker: WorkerId, key: AttemptKey) {
        let now = self.now;
        let Some(task) =
            self.order(&worker, &key).filter(|order| order.wish == Wish::Run).map(|o| o.task.clone())
        else {
            return;
        };
        let Some(found) = self.workers.get_mut(&worker) else { return };
        // One task at a time on a host, as a real one works off what it was given ahead.
        let serial = task.class() == TaskClass::Script && found.reports.gpu.is_some();
        if serial && found.reports.attempts.values().any(|report| report.state == AttemptState::Running) {
            return self.later(1, Happening::Begin { worker, key });
        }
        let report = AttemptReport {
            task_id: key.task_id.clone(),
            attempt: key.attempt,
            state: AttemptState::Running,
            since: Some(now),
            progress: Some(0.0),
            media_s: None,
            outcome: None,
        };
        found.reports.attempts.insert(key.clone(), report);
        self.report(&worker);
        let takes = match (task.class(), task.media_s) {
            (TaskClass::Llm, _) => self.times.llm,
            (TaskClass::Script, Some(media_s)) => Millis::from_secs_f64(media_s / 10.0).0,
            (TaskClass::Script, None) => self.times.script,
        };
        if !self.hang.iter().any(|name| key.task_id.as_str() == name) {
            self.later(takes, Happening::End { worker, key });
        }
    }

    fn end_attempt(&mut self, worker: &WorkerId, key: &AttemptKey, stopped: Option<FailureClass>) {
        let now = self.now;
        let planned = match stopped {
            None => self.outcomes.get_mut(key.task_id.as_str()).and_then(VecDeque::pop_front).flatten(),
            stopped => stopped,
        };
        let Some(found) = self.workers.get_mut(worker) else { return };
        let Some(order) = found.orders.attempts.get(key) else { return };
        let media_s = order.task.media_s;
        let report = found.reports.attempts.entry(key.clone()).or_insert_with(|| AttemptReport {
            task_id: key.task_id.clone(),
            attempt: key.attempt,
            state: AttemptState::NeverStarted,
            since: None,
            progress: None,
            media_s: None,
            outcome: None,
        });
        if report.state == AttemptState::Running {
            report.state = AttemptState::Ended;
            let since = report.since.unwrap_or(now);
            report.outcome = Some(Outcome {
                failure: planned,
                code: None,
                message: None,
                run_ms: u64::try_from((now - since).0).expect("time goes on"),
                media_s,
                stopped: stopped.is_some(),
            });
        }
        self.report(worker);
    }

    // -------------------------------------------------------------------------------------------- what goes wrong

    /// Kills the worker of a GPU, and what it ran.
    pub(super) fn kill_worker(&mut self, gpu: u32, with_machine: bool) -> &mut Self {
        let found = self
            .workers
            .iter()
            .find(|(_, worker)| worker.reports.gpu.as_ref().is_some_and(|identity| identity.index == gpu));
        if let Some(id) = found.map(|(id, _)| id.clone()) {
            if !with_machine {
                self.report(&id);
            }
            if let Some(found) = self.workers.get_mut(&id) {
                found.dead = true;
            }
            self.tell(Event::WorkerDied { worker: id.clone(), with_machine });
            self.think();
            self.workers.remove(&id);
        }
        self
    }

    /// What the worker of a GPU runs has ended, its record lies there, and then it dies.
    pub(super) fn kill_worker_after_end(&mut self, gpu: u32) -> &mut Self {
        let found = self
            .workers
            .iter()
            .find(|(_, worker)| worker.reports.gpu.as_ref().is_some_and(|identity| identity.index == gpu));
        let (id, worker) = found.map(|(id, worker)| (id.clone(), worker.clone())).expect("a worker");
        for key in worker.orders.attempts.keys() {
            self.end_attempt(&id, key, None);
        }
        self.kill_worker(gpu, false)
    }

    /// The engine of a GPU dies.
    pub(super) fn kill_engine(&mut self, gpu: u32) -> &mut Self {
        let found = self
            .workers
            .iter_mut()
            .find(|(_, worker)| worker.reports.gpu.as_ref().is_some_and(|identity| identity.index == gpu));
        let (id, worker) = found.expect("a worker");
        let engine = worker.reports.engine.as_mut().expect("an engine");
        engine.state = EngineState::Failed;
        engine.error = Some("killed by signal 9".into());
        let id = id.clone();
        let keys: Vec<AttemptKey> = worker.reports.attempts.keys().cloned().collect();
        self.report(&id);
        for key in keys {
            self.outcomes.entry(key.task_id.to_string()).or_default().push_front(Some(FailureClass::Crash));
            self.end_attempt(&id, &key, None);
        }
        self
    }

    /// The brain dies and another one adopts what is there.
    pub(super) fn restart_brain(&mut self) -> &mut Self {
        self.world = World::new(self.config.clone(), self.world.learned().clone());
        self.agenda.retain(|_, happening| !matches!(happening, Happening::Born { .. }));
        let inventory = self.inventory();
        self.tell(Event::Inventory(inventory));
        for (worker, found) in self.workers.clone() {
            // What it reads is the fold of the lines that lie there.
            let mut orders = Orders::default();
            OrdersLine::whole_of(&found.orders).fold_into(&mut orders);
            let (reports, orders) = (Box::new(found.reports), Some(Box::new(orders)));
            self.tell(Event::WorkerBorn { worker, reports, orders });
        }
        for facts in self.batches.clone().into_values() {
            self.tell(Event::Batch(facts));
        }
        for (order, (entry, (task, not_before))) in self.files.clone().into_iter().enumerate() {
            self.tell(Event::Queued { entry, task: Box::new(task), order: order as u64, not_before });
        }
        self
    }

    // -------------------------------------------------------------------------------------------- what is seen

    pub(super) fn picture(&self) -> Picture {
        let frame = PictureFrame { seq: 7, epoch: 3, boot_id: Some("boot".into()), brain_pid: 1 };
        picture(&self.world, self.now, Timestamp::UNIX_EPOCH + chrono_of(self.now), frame)
    }

    pub(super) fn state(&self, gpu: u32) -> GpuState {
        self.picture().gpus[&gpu.to_string()].state
    }

    /// The states a GPU has been in.
    pub(super) fn states(&self, gpu: u32) -> Vec<GpuState> {
        self.picture().gpus[&gpu.to_string()].transitions.iter().map(|(state, _)| *state).collect()
    }

    pub(super) fn why(&self, name: &str) -> Reason {
        why(&self.world, self.now, &id(name)).unwrap_or_else(|| panic!("{name} is not known")).0
    }

    pub(super) fn ended(&self, name: &str) -> &Ended {
        let ends = self.ended.get(&id(name)).unwrap_or_else(|| panic!("{name} has not ended"));
        assert_eq!(ends.len(), 1, "{name} ended more than once");
        &ends[0]
    }

    pub(super) fn is_complete(&self, name: &str) -> bool {
        self.ended.get(&id(name)).is_some_and(|ends| ends.len() == 1 && ends[0].complete)
    }

    pub(super) fn count(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|(_, action)| wanted(action)).count()
    }

    pub(super) fn boots(&self) -> usize {
        self.count(|action| matches!(action, Action::Engine { engine: Some(_), .. }))
    }

    pub(super) fn unloads(&self) -> usize {
        self.count(|action| matches!(action, Action::Engine { engine: None, .. }))
    }

    /// Names of the tasks in the order of their starts.
    pub(super) fn starts(&self) -> Vec<String> {
        let starts = self.log.iter().filter_map(|(_, action)| match action {
            Action::Start { task, .. } => Some(task.task_id.to_string()),
            _ => None,
        });
        starts.collect()
    }

    pub(super) fn workers_alive(&self) -> usize {
        self.workers.len()
    }

    fn describe(&self) -> String {
        let gpus: Vec<String> =
            self.picture().gpus.iter().map(|(key, gpu)| format!("{key}:{}", gpu.state)).collect();
        let heads: Vec<String> =
            plan(&self.world, self.now).heads.iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
        format!(
            "gpus {gpus:?}, heads {heads:?}, ended {}, last actions {:?}",
            self.ended.len(),
            self.log.last()
        )
    }
}

pub(super) fn id(name: &str) -> TaskId {
    TaskId::new(name).expect("a legal name")
}

/// A span on the wall clock.
fn chrono_of(time: Millis) -> std::time::Duration {
    std::time::Duration::from_millis(time.0.unsigned_abs())
}
