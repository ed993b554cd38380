//! The world: every fact the mind has. It changes in `apply` alone.
//!
//! Not here: choices (`plan`), views (`picture`, `why`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::gpu::Ram;
use model::learned::{Grants, Learned};
use model::link::AttemptReport;
use model::picture::EndedPicture;
use model::{
    AttemptKey, BatchId, Config, Entry, GpuUuid, InventorySource, Millis, Saying, Task, TaskClass, TaskError,
    TaskId, WorkerId,
};

use crate::batch::Batch;
use crate::demand::Demand;
use crate::ended::EndedLately;
use crate::gpu::Gpu;
use crate::launch::Launching;
use crate::learn::Memory;
use crate::order::Ageing;
use crate::queue::{Line, Queue, Queued};
use crate::ram::RamWait;
use crate::rate::Rate;
use crate::shape::{Shape, What};
use crate::turn::Turns;
use crate::unit::{Claim, Unit};
use crate::wide::Kept;
use crate::worker::{Llm, Worker};
use crate::yields::Yields;

/// How many of the latest sentences are kept: more than are shown at once, so that each GPU finds some of its own.
pub(crate) const SAID_KEPT: usize = 64;

/// Every fact.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) config: Config,
    pub(crate) turns: Turns,
    /// Whether it was said that a job type waits for another one to start: on the GPUs, and in the CPU lane.
    pub(crate) said_in_a_row: [bool; 2],
    /// Whether it was said how many slots there are, since that last changed.
    pub(crate) slots_told: bool,
    /// Hosts that were seen to use more than they are counted with: said and not yet said.
    pub(crate) over_their_need: BTreeMap<String, OverItsNeed>,
    /// What a task needs that ran out of memory where it had a GPU for itself, in MiB.
    pub(crate) ran_out: BTreeMap<TaskId, u64>,
    pub(crate) memory: Memory,
    /// How often LLM requests come.
    pub(crate) demand: Demand,
    pub(crate) now: Millis,
    pub(crate) inventory: Option<(InventorySource, Option<String>)>,
    /// The last reading of the machine's memory.
    pub(crate) ram: Option<Ram>,
    /// The start that waits for memory; none while there is enough.
    pub(crate) ram_wait: Option<RamWait>,
    pub(crate) gpus: BTreeMap<GpuUuid, Gpu>,
    /// Those of them that cool: what time alone changes, so that no event looks at all GPUs.
    pub(crate) cooling: BTreeSet<GpuUuid>,
    pub(crate) queue: Queue,
    pub(crate) claims: BTreeMap<Entry, Claim>,
    pub(crate) failing: BTreeMap<Entry, Queued>,
    pub(crate) units: BTreeMap<AttemptKey, Unit>,
    /// GPUs that a unit has besides that of its worker.
    pub(crate) covered: BTreeMap<GpuUuid, AttemptKey>,
    /// GPUs that an LLM of another GPU's worker has as well, and that worker.
    pub(crate) spans: BTreeMap<GpuUuid, WorkerId>,
    /// What is kept for a task that needs several GPUs at once.
    pub(crate) kept_gpus: Option<Kept>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) launching: BTreeMap<Option<GpuUuid>, Launching>,
    pub(crate) batches: BTreeMap<BatchId, Batch>,
    /// Those of them that want the GPUs for themselves, in their order.
    pub(crate) batches_exclusive: BTreeMap<u64, BatchId>,
    pub(crate) batches_seen: u64,
    pub(crate) exclusive_since: Option<Millis>,
    /// The GPU that an exclusive batch has lent to chatbots.
    pub(crate) lent: Option<GpuUuid>,
    /// GPUs that left an exclusive batch before its end, so that their LLMs load in turn.
    pub(crate) left: BTreeSet<GpuUuid>,
    pub(crate) cancel_on_return: BTreeSet<TaskId>,
    pub(crate) returning: BTreeMap<TaskId, Returning>,
    pub(crate) yields: Yields,
    pub(crate) down: Option<Down>,
    pub(crate) ended: EndedPicture,
    pub(crate) ended_lately: EndedLately,
    pub(crate) anomalies: BTreeMap<&'static str, u64>,
    /// What was said of decisions lately, the latest last; not what is said of every task.
    pub(crate) said: VecDeque<Said>,
}

/// A sentence about a decision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    /// When.
    pub at: Millis,
    /// What.
    pub saying: Saying,
}

/// A task on its way back into its queue: what its file does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Returning {
    /// Not to be started before.
    pub not_before: Option<Millis>,
    /// Since when it waits: its age stays with it.
    pub since: Millis,
}

/// A host that was seen to use more than it is counted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverItsNeed {
    /// Where, by key.
    pub gpu: String,
    /// What it used, in MiB.
    pub used_mib: u64,
    /// What it was counted with.
    pub counted_mib: u64,
    /// Whether that was said.
    pub said: bool,
}

/// Somebody wants the machine freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Down {
    /// Since when.
    pub asked_at: Millis,
    /// By when.
    pub deadline: Millis,
    /// Whether running units are stopped at once.
    pub now: bool,
}

/// Whether there is anything left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Something runs, or will start, back-off included.
    Busy,
    /// Nothing waits and nothing runs.
    Idle,
    /// Nothing runs, and these can never start here as things are, or are items of paused batches.
    Held(Vec<TaskId>),
}

/// A running or ended attempt, for those who answer people.
#[derive(Clone, Debug)]
pub struct AttemptView<'w> {
    /// The worker that has it.
    pub worker: &'w WorkerId,
    /// The task as it was ordered.
    pub task: &'w Task,
    /// Since when it runs.
    pub running_since: Option<Millis>,
    /// Key and uuid of its GPU; none in the CPU lane.
    pub gpu: Option<(String, GpuUuid)>,
}

impl World {
    /// An empty world. `cpu_slots` of the configuration should be settled by the caller, who can count cores.
    #[must_use]
    pub fn new(config: Config, learned: Learned) -> Self {
        let ageing = Ageing::of_seconds(config.fairness.ageing_s);
        Self {
            memory: Memory::new(learned),
            demand: Demand::default(),
            turns: Turns::new(&config.fairness),
            said_in_a_row: [false; 2],
            slots_told: false,
            over_their_need: BTreeMap::new(),
            ran_out: BTreeMap::new(),
            config,
            now: Millis::ZERO,
            inventory: None,
            ram: None,
            ram_wait: None,
            gpus: BTreeMap::new(),
            cooling: BTreeSet::new(),
            queue: Queue::new(ageing),
            claims: BTreeMap::new(),
            failing: BTreeMap::new(),
            units: BTreeMap::new(),
            covered: BTreeMap::new(),
            spans: BTreeMap::new(),
            kept_gpus: None,
            workers: BTreeMap::new(),
            launching: BTreeMap::new(),
            batches: BTreeMap::new(),
            batches_exclusive: BTreeMap::new(),
            batches_seen: 0,
            exclusive_since: None,
            lent: None,
            left: BTreeSet::new(),
            cancel_on_return: BTreeSet::new(),
            returning: BTreeMap::new(),
            yields: Yields::default(),
            down: None,
            ended: EndedPicture::default(),
            ended_lately: EndedLately::default(),
            anomalies: BTreeMap::new(),
            said: VecDeque::new(),
        }
    }

    /// What was learned, to be kept over the brain's life.
    #[must_use]
    pub const fn learned(&self) -> &Learned {
        self.memory.learned()
    }

    /// How waiting raises a task.
    pub(crate) fn ageing(&self) -> Ageing {
        Ageing::of_seconds(self.config.fairness.ageing_s)
    }

    /// What the job types were granted, on the GPUs or in the CPU lane.
    pub(crate) const fn grants(&self, in_cpu_lane: bool) -> &Grants {
        let learned = self.memory.learned();
        if in_cpu_lane { &learned.grants_cpu } else { &learned.grants }
    }

    /// The configuration it decides by.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Impossible things that were seen, by name.
    #[must_use]
    pub const fn anomalies(&self) -> &BTreeMap<&'static str, u64> {
        &self.anomalies
    }

    /// An attempt, from its start to the moment its record lies in a folder.
    #[must_use]
    pub fn attempt(&self, key: &AttemptKey) -> Option<AttemptView<'_>> {
        let unit = self.units.get(key)?;
        let gpu = self.gpu_of(&unit.worker).map(|gpu| (gpu.key(), gpu.facts.uuid.clone()));
        Some(AttemptView { worker: &unit.worker, task: &unit.task, running_since: unit.running_since(), gpu })
    }

    /// Attempts of a task that have not been put away.
    pub fn attempts_of(&self, task_id: &TaskId) -> impl Iterator<Item = &AttemptKey> {
        let first = AttemptKey { task_id: task_id.clone(), attempt: 0 };
        let last = AttemptKey { task_id: task_id.clone(), attempt: u32::MAX };
        self.units.range(first..=last).map(|(key, _)| key)
    }

    /// Whether a queued task wishes for or demands this id.
    #[must_use]
    pub fn is_queued(&self, task_id: &TaskId) -> bool {
        self.queue.by_id(task_id).next().is_some()
            || self.claims.values().any(|claim| claim.task.task_id == *task_id)
    }

    /// What a worker says of an attempt.
    #[must_use]
    pub fn report_of(&self, worker: &WorkerId, key: &AttemptKey) -> Option<&AttemptReport> {
        self.workers.get(worker)?.reports.attempts.get(key)
    }

    /// Workers that are alive.
    pub fn living_workers(&self) -> impl Iterator<Item = &WorkerId> {
        self.workers.values().filter(|worker| !worker.dead).map(|worker| &worker.id)
    }

    /// Whether somebody wants the machine freed.
    #[must_use]
    pub const fn is_going_down(&self) -> bool {
        self.down.is_some()
    }

    /// Whether the machine has been freed: `DownAsked`, and every worker is gone.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.is_some()
            && self.workers.values().all(|worker| !worker.is_here())
            && self.units.is_empty()
            && self.claims.is_empty()
            && self.failing.is_empty()
            && self.launching.values().all(|launching| launching.pending.is_none())
    }

    /// Whether somebody wants the machine freed, and it is not yet.
    pub(crate) fn is_being_freed(&self) -> bool {
        self.down.is_some() && !self.is_down()
    }

    /// Whether there is anything left to do. Batches that are not expanded into the queue yet count as something.
    #[must_use]
    pub fn rest(&self) -> Rest {
        if !self.units.is_empty() || !self.claims.is_empty() || !self.failing.is_empty() {
            return Rest::Busy;
        }
        if TaskClass::ALL.iter().any(|class| self.queue.unparsed(*class) > 0)
            || self.batches.values().any(|batch| self.batch_is_unseen(batch, self.now))
        {
            return Rest::Busy;
        }
        if self.queue.is_empty() {
            return Rest::Idle;
        }
        let all_in_line =
            self.queue.cancelled().next().is_none() && self.queue.next_due(Millis(i64::MIN)).is_none();
        if !all_in_line
            || self.queue.lines().any(|(shape, line)| !self.is_held(shape) && self.has_turn(shape, line))
        {
            return Rest::Busy;
        }
        let mut held: Vec<TaskId> = self.queue.items().map(|(_, item)| item.task.task_id.clone()).collect();
        held.sort();
        Rest::Held(held)
    }

    /// Whether any of these is not held back by `strict_consecutive`.
    fn has_turn(&self, shape: &Shape, line: &Line) -> bool {
        let grants = self.grants(shape.in_cpu_lane());
        line.rows().any(|(key, _)| !self.turns.must_wait(grants, &key.job_type))
    }

    /// Whether a batch still expects items that nobody has seen yet.
    pub(crate) fn batch_is_unseen(&self, batch: &Batch, now: Millis) -> bool {
        let remaining = batch.facts.remaining();
        now < batch.heard_at + crate::batch::UNSEEN_ITEMS_GRACE
            && remaining > 0
            && !batch.facts.paused
            && self.items_known(&batch.facts.batch_id) < remaining
    }

    /// Whether an item of a batch waits, runs, or is about to.
    pub(crate) fn knows_items(&self, batch: &BatchId) -> bool {
        let of = |task: &Task| task.batch_id.as_ref() == Some(batch);
        self.queue.of_batch(batch) > 0
            || self.claims.values().any(|claim| of(&claim.task))
            || self.failing.values().any(|item| of(&item.task))
            || self.units.values().any(|unit| of(&unit.task))
    }

    /// Items of a batch that wait, run, or are about to.
    pub(crate) fn items_known(&self, batch: &BatchId) -> u64 {
        let of = |task: &Task| task.batch_id.as_ref() == Some(batch);
        let in_hand = self.claims.values().filter(|claim| of(&claim.task)).count()
            + self.failing.values().filter(|item| of(&item.task)).count()
            + self.units.values().filter(|unit| of(&unit.task)).count();
        self.queue.of_batch(batch) + in_hand as u64
    }

    /// Whether no task of this shape can ever start as things are.
    pub(crate) fn is_held(&self, shape: &Shape) -> bool {
        if self.inventory.is_none() || shape.in_cpu_lane() {
            return false;
        }
        if self.misfit(shape).is_some() {
            return true;
        }
        matches!(shape.what, What::Llm(_)) && self.no_engine().is_some()
    }

    /// Whether every usable GPU has a worker that has said what it can boot.
    pub(crate) fn all_can_is_known(&self) -> bool {
        let mut gpus = self.gpus.values().filter(|gpu| gpu.is_usable()).peekable();
        gpus.peek().is_some() && gpus.all(|gpu| self.worker_on(gpu).is_some())
    }

    /// What is missing, where no worker can boot any LLM engine; none while one can or not all have spoken.
    pub(crate) fn no_engine(&self) -> Option<String> {
        if !self.all_can_is_known() {
            return None;
        }
        let mut workers = self.workers.values().filter(|worker| !worker.dead && worker.gpu.is_some());
        if workers.clone().any(|worker| worker.reports.can.engines.iter().any(|can| !can.models.is_empty())) {
            return None;
        }
        let missing = workers.find_map(|worker| {
            let sentences = &worker.reports.can.missing;
            (!sentences.is_empty()).then(|| sentences.join("; "))
        });
        Some(missing.unwrap_or_else(|| {
            "no engine was found; build the one that comes with it by `scripts/embedded`".into()
        }))
    }

    /// The living worker of a GPU.
    pub(crate) fn worker_on(&self, gpu: &Gpu) -> Option<&Worker> {
        gpu.worker.as_ref().and_then(|id| self.workers.get(id)).filter(|worker| !worker.dead)
    }

    /// The GPU of a worker.
    pub(crate) fn gpu_of(&self, worker: &WorkerId) -> Option<&Gpu> {
        self.gpus.get(self.workers.get(worker)?.gpu.as_ref()?)
    }

    /// The living worker of the CPU lane.
    pub(crate) fn cpu_worker(&self) -> Option<&Worker> {
        let mut lane = self.workers.values().filter(|worker| !worker.dead && worker.gpu.is_none());
        lane.clone().find(|worker| worker.is_here()).or_else(|| lane.next())
    }

    /// How many tasks the CPU lane runs at once.
    pub(crate) fn cpu_slots(&self) -> u32 {
        self.config.cpu_slots.set().copied().unwrap_or(1).max(1)
    }

    /// Units of a worker, the one of another worker that has its GPU as well, and requests of an LLM that is spread to it.
    pub(crate) fn units_on<'w>(&'w self, worker: &'w Worker) -> impl Iterator<Item = &'w Unit> {
        let own = worker.units.iter().filter_map(|key| self.units.get(key));
        let lead = worker.gpu.as_ref().and_then(|gpu| self.lead_over(gpu)).into_iter();
        let of_lead = lead.flat_map(|lead| &lead.units).filter_map(|key| self.units.get(key));
        let of_lead = of_lead.filter(|unit| unit.class() == TaskClass::Llm);
        own.chain(worker.gpu.as_ref().and_then(|gpu| self.unit_over(gpu))).chain(of_lead)
    }

    /// GPUs whose LLM is loading: the GPU, the model, and when it is expected to be ready.
    pub(crate) fn booting(&self) -> impl Iterator<Item = (&Gpu, &str, Millis)> {
        self.gpus.values().filter_map(|gpu| self.boot_on(gpu).map(|(model, at)| (gpu, model, at)))
    }

    /// The LLM that loads on a GPU, and when it is expected to be ready.
    pub(crate) fn boot_on(&self, gpu: &Gpu) -> Option<(&str, Millis)> {
        let worker = self.llm_worker(gpu)?;
        let Llm::Booting { order } = worker.llm()? else { return None };
        let estimate = self.memory.llm_boot(&self.config, &order.preset, &order.model);
        Some((order.model.as_str(), worker.engine_at + estimate.p50))
    }

    /// Models that are being loaded: those of one name are read from the disk once.
    pub(crate) fn loading_models(&self) -> BTreeSet<&str> {
        self.booting().map(|(_, model, _)| model).collect()
    }

    /// How many different models may be loaded again at a time.
    pub(crate) fn loads_at_a_time(&self) -> usize {
        self.config.resource_manager.batch_settings.cold_loads_per_disk.max(1) as usize
    }

    /// GPUs that nobody uses and whose LLM comes back once the disk is free, and that LLM.
    pub(crate) fn waiting_for_the_disk(&self) -> impl Iterator<Item = (&Gpu, &str)> {
        let loading = self.loading_models();
        let full = loading.len() >= self.loads_at_a_time();
        let idle = self.gpus.values().filter(move |gpu| {
            full && gpu.state == model::GpuState::Idle
                && self.worker_on(gpu).is_some_and(|worker| worker.serves() && worker.load() == 0)
        });
        idle.filter_map(|gpu| Some((gpu, gpu.reload.as_deref()?)))
            .filter(move |(_, model)| !loading.contains(model))
    }

    /// LLM requests a second, as of late; as is usual at this hour where nobody has watched for long enough.
    pub(crate) fn requests(&self, now: Millis) -> Rate {
        let usual = self.demand.hour(now).and_then(|hour| self.memory.requests_per_hour(hour.hour));
        self.demand.rate(now, usual.map(|per_hour| per_hour / 3_600.0))
    }

    /// Keeps a sentence, for those who ask later.
    pub(crate) fn note_said(&mut self, at: Millis, saying: Saying) {
        if let Saying::CannotStart { task, .. } = &saying {
            self.queue.note_told(task);
        }
        if saying.is_routine() {
            return;
        }
        if self.said.len() >= SAID_KEPT {
            self.said.pop_front();
        }
        self.said.push_back(Said { at, saying });
    }

    pub(crate) fn anomaly(&mut self, name: &'static str) {
        *self.anomalies.entry(name).or_default() += 1;
    }

    pub(crate) fn note_end(&mut self, task_id: TaskId, complete: bool) {
        self.ran_out.remove(&task_id);
        if complete {
            self.ended.complete += 1;
        } else {
            self.ended.failed += 1;
        }
        if !self.ended_lately.note(task_id) {
            self.anomaly("ended_twice");
        }
    }
}

/// The error of a task that somebody wanted to end.
pub(crate) fn cancelled() -> TaskError {
    TaskError::new(model::FailureClass::Cancelled, "cancelled", "somebody asked for its end")
}
