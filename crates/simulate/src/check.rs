//! What must hold, checked from outside: these share no code with the mind and see only what goes in and comes out.
//!
//! | law | when it is looked at |
//! |---|---|
//! | every accepted task ends exactly once | each end, and the end of the run |
//! | one live attempt a task; numbers never reused; charges bounded; back-off kept | each start |
//! | no request to an LLM that is not ready, nor beyond its slots | each start |
//! | an exclusive batch holds back LLM tasks, but chatbots that it admits | each start |
//! | a chatbot goes before everything that could have waited for it | when the mind has come to rest |
//! | no LLM is unloaded under a request | each change of an LLM order |
//! | no GPU holds more than it has | each load |
//! | a task of several GPUs gets so many, and has them for itself | each start |
//! | nothing is wanted twice; `wake_at` names every instant that matters | plans and sleeps, by samples |
//! | the mind counts nothing that should be impossible | each fact |
//! | the mind's own laws | each fact, and when it rests (`policy::LAWS`) |
//!
//! Not here: what is measured (`outcome`).

mod brain;
mod starts;

use std::collections::{BTreeMap, BTreeSet};

use model::link::{EngineOrder, EngineState, StopWhy};
use model::{AttemptKey, BatchId, Config, GpuMode, GpuUuid, Millis, Task, TaskClass, TaskId, WorkerId};
use policy::event::BatchFacts;

use crate::dice::Dice;
use crate::scenario::Scenario;

/// The job type that goes before all others.
const CHATBOT: &str = "chatbot";
/// What a mind may count of what is strange, and why; everything else it counts should be impossible.
const MAY_BE_COUNTED: [&str; 0] = [];
/// How long a task waits at most for a start, whatever goes wrong meanwhile: twice the longest wait that was seen in
/// thousands of days.
const WAITS_AT_MOST: Millis = Millis::from_secs(6 * 3_600);
/// After this many broken laws a run has said enough.
const BROKEN_MAX: usize = 5;

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// When.
    pub at: Millis,
    /// Which law.
    pub law: String,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.law, self.at.as_secs_f64(), self.what)
    }
}

/// A task as the checks know it.
#[derive(Clone, Debug)]
struct Known {
    class: TaskClass,
    chatbot: bool,
    model: Option<String>,
    batch: Option<BatchId>,
    most: u32,
    charged: u32,
    /// Since when the brain knows that it waits, and not before when it may start.
    waits: Option<(Millis, Option<Millis>)>,
    ends: u32,
}

/// An attempt between its start and the move of its record.
#[derive(Clone, Debug)]
struct Live {
    class: TaskClass,
    stopped: Option<StopWhy>,
    over: bool,
    /// GPUs that it has for itself, where it needs several.
    gpus: Vec<GpuUuid>,
}

/// A worker as the checks know it.
#[derive(Clone, Debug, Default)]
struct Seen {
    gpu: Option<GpuUuid>,
    ordered: Option<EngineOrder>,
    /// Whether it was told to leave: what its orders still name is loaded no more.
    leaves: bool,
    /// Generation and state of its LLM as the brain was told.
    told: Option<(u64, EngineState)>,
    live: BTreeMap<AttemptKey, Live>,
}

/// The bookkeeping of all checks.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    threshold: u32,
    never_evict_brain: bool,
    admits_chat: bool,
    colocates: bool,
    /// The longest that a task has waited for its start.
    longest_wait: Millis,
    bound: Millis,
    dice: Dice,
    tasks: BTreeMap<TaskId, Known>,
    open: BTreeSet<TaskId>,
    chats: BTreeSet<TaskId>,
    used: BTreeSet<AttemptKey>,
    workers: BTreeMap<WorkerId, Seen>,
    batches: BTreeMap<BatchId, (BatchFacts, Millis)>,
    batch_ends: BTreeMap<BatchId, u64>,
    waiting_items: BTreeMap<BatchId, u64>,
    /// Memory of the GPUs that the brain was told of.
    gpus: BTreeMap<model::GpuUuid, (Option<u64>, bool)>,
    has_brain_roles: bool,
    started_now: Vec<(WorkerId, TaskId)>,
    started_at: Millis,
    broken: Vec<Broken>,
}

impl Checks {
    pub(crate) fn new(config: &Config, scenario: &Scenario) -> Self {
        let manager = &config.resource_manager;
        Self {
            threshold: manager.batch_settings.auto_exclusive_threshold,
            never_evict_brain: manager.eviction_policy.never_evict_brain,
            admits_chat: manager.batch_settings.exclusive_admits_chat,
            colocates: manager.colocate_scripts,
            longest_wait: Millis::ZERO,
            bound: Millis::from_secs_f64(scenario.settle_s).min(WAITS_AT_MOST),
            dice: Dice::of(scenario.seed, "checks"),
            tasks: BTreeMap::new(),
            open: BTreeSet::new(),
            chats: BTreeSet::new(),
            used: BTreeSet::new(),
            workers: BTreeMap::new(),
            batches: BTreeMap::new(),
            batch_ends: BTreeMap::new(),
            waiting_items: BTreeMap::new(),
            gpus: BTreeMap::new(),
            has_brain_roles: manager.gpu_roles.set().is_some_and(|roles| !roles.is_empty()),
            started_now: Vec::new(),
            started_at: Millis::ZERO,
            broken: Vec::new(),
        }
    }

    /// A law does not hold.
    pub(crate) fn broken(&mut self, at: Millis, law: &str, what: String) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(Broken { at, law: law.to_owned(), what });
        }
    }

    /// The mind counts what it takes for impossible.
    pub(crate) fn counted(&mut self, at: Millis, anomalies: &BTreeMap<&'static str, u64>) {
        let strange = anomalies.iter().find(|(name, _)| !MAY_BE_COUNTED.contains(name));
        if let Some((name, count)) = strange {
            self.broken(
                at,
                "the impossible does not happen",
                format!("the mind counted {count} of `{name}`"),
            );
        }
    }

    /// The longest that a task has waited for its start, as far as a brain knew.
    pub(crate) const fn longest_wait(&self) -> Millis {
        self.longest_wait
    }

    pub(crate) const fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    pub(crate) fn into_broken(self) -> Vec<Broken> {
        self.broken
    }

    // ------------------------------------------------------------------------------------------ tasks

    pub(crate) fn accepted_one(&mut self, task: &Task) {
        let model = match &task.work {
            model::task::Work::Llm(work) => work.model.clone(),
            model::task::Work::Script(_) => None,
        };
        let known = Known {
            class: task.class(),
            chatbot: task.job_type == CHATBOT,
            model,
            batch: task.batch_id.clone(),
            most: task.max_attempts,
            charged: 0,
            waits: None,
            ends: 0,
        };
        self.open.insert(task.task_id.clone());
        self.tasks.insert(task.task_id.clone(), known);
    }

    /// A person took it away before it was claimed: nothing is owed any more.
    pub(crate) fn deleted(&mut self, task_id: &TaskId) {
        self.waits_no_more(task_id);
        self.open.remove(task_id);
        self.tasks.remove(task_id);
    }

    /// A record lies in `complete/` or `failed/`.
    pub(crate) fn ended(&mut self, at: Millis, task: &Task) {
        self.waits_no_more(&task.task_id);
        let Some(known) = self.tasks.get_mut(&task.task_id) else {
            return self.broken(
                at,
                "only accepted tasks end",
                format!("{} was never accepted", task.task_id),
            );
        };
        known.ends += 1;
        let ends = known.ends;
        if ends > 1 {
            self.broken(at, "every task ends once", format!("{} ended {ends} times", task.task_id));
        }
        self.open.remove(&task.task_id);
        self.live_no_more(&task.task_id);
        if let Some(batch) = &task.batch_id {
            *self.batch_ends.entry(batch.clone()).or_default() += 1;
        }
    }

    pub(crate) fn requeued(&mut self, at: Millis, key: &AttemptKey, charged: bool) {
        self.live_no_more(&key.task_id);
        let Some(known) = self.tasks.get_mut(&key.task_id) else { return };
        known.charged += u32::from(charged);
        let (ends, charged, most) = (known.ends, known.charged, known.most);
        if ends > 0 {
            self.broken(at, "every task ends once", format!("{key} was requeued after its end"));
        }
        if charged >= most {
            self.broken(
                at,
                "charges are bounded",
                format!("{key} goes on after {charged} of {most} charges"),
            );
        }
    }

    fn live_no_more(&mut self, task_id: &TaskId) {
        for seen in self.workers.values_mut() {
            seen.live.retain(|key, _| key.task_id != *task_id);
        }
    }

    fn waits_no_more(&mut self, task_id: &TaskId) {
        self.chats.remove(task_id);
        let Some(known) = self.tasks.get_mut(task_id) else { return };
        if known.waits.take().is_some()
            && let Some(batch) = &known.batch
            && let Some(count) = self.waiting_items.get_mut(batch)
        {
            *count = count.saturating_sub(1);
        }
    }

    pub(crate) fn all_have_ended(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn left(&self) -> Vec<&TaskId> {
        self.open.iter().collect()
    }

    pub(crate) fn accepted(&self) -> usize {
        self.tasks.len()
    }

    /// Some tasks that have not ended.
    pub(crate) fn open_tasks(&self, most: usize) -> Vec<TaskId> {
        self.open.iter().take(most).cloned().collect()
    }

    // ------------------------------------------------------------------------------------------ batches

    /// Whether a batch certainly has the GPUs: it was told before now, and items of it wait that could run.
    fn exclusive(&self, now: Millis) -> Option<&BatchId> {
        let eligible = self.gpus.values().filter(|(_, lost)| !*lost).count() > 0
            && !(self.has_brain_roles && self.never_evict_brain);
        let wants = |(facts, told): &&(BatchFacts, Millis)| {
            let exclusive = match facts.gpu_mode {
                GpuMode::Auto => facts.total >= u64::from(self.threshold),
                mode => mode == GpuMode::Exclusive,
            };
            exclusive && *told < now && facts.completed + facts.failed < facts.total
        };
        let waits = |batch: &BatchId| self.waiting_items.get(batch).copied().unwrap_or(0) > 0;
        let batch = self.batches.values().filter(wants).find(|(facts, _)| waits(&facts.batch_id))?;
        eligible.then_some(&batch.0.batch_id)
    }

    // ------------------------------------------------------------------------------------------ the rest

    /// What the workers of a GPU hold of it.
    pub(crate) fn memory(&mut self, at: Millis, gpu: usize, mib: u64, total: Option<u64>) {
        if let Some(total) = total.filter(|total| mib > *total) {
            self.broken(at, "no GPU holds more than it has", format!("{mib} of {total} MiB on GPU {gpu}"));
        }
    }

    /// The machine was called free.
    pub(crate) fn freed(&mut self, at: Millis, alive: usize) {
        if alive > 0 {
            self.broken(at, "down frees the machine", format!("{alive} workers live"));
        }
    }

    pub(crate) fn at_the_end(&mut self, at: Millis, batches: &BTreeMap<BatchId, BatchFacts>) {
        if self.is_broken() {
            return;
        }
        for (batch, facts) in batches {
            let ends = self.batch_ends.get(batch).copied().unwrap_or(0);
            let (completed, failed, total) = (facts.completed, facts.failed, facts.total);
            if ends != total || completed + failed != total {
                let what =
                    format!("{batch} of {total} items has {ends} ends and says {completed} + {failed}");
                self.broken(at, "a batch ends with as many ends as items", what);
            }
        }
        let strange = self.tasks.iter().find(|(_, known)| known.ends != 1);
        if let Some((task_id, ends)) = strange.map(|(id, known)| (id.clone(), known.ends)) {
            self.broken(at, "every task ends once", format!("{task_id} ended {ends} times"));
        }
    }
}
