//! A spool, a brain and workers that do not exist: actions are answered at virtual times, laws are checked after each
//! fact.

mod cards;
mod hands;
mod seen;
mod trouble;
mod workers;

use std::collections::{BTreeMap, VecDeque};

use model::gpu::{GpuFacts, Inventory};
use model::learned::Learned;
use model::link::{
    AttemptOrder, AttemptReport, AttemptState, Can, EngineReport, EngineState, GpuIdentity, HostOrder,
    HostReport, HostState, Line, Orders, OrdersLine, Outcome, Phase, Reports, StopWhy, Wish, WorkerIdentity,
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
use crate::shape::HostKey;
use crate::{Pause, World, breaches_at_rest, place, plan, why};

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
    /// Attempts that wait for a host that is busy, or loads for another one, the first one first.
    line: Vec<AttemptKey>,
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
    /// Crashes are refusals of the engine.
    pub refuses: bool,
    /// How long a thing takes, in milliseconds.
    pub times: Times,
    /// Engines to fail at their next boots.
    pub boots_to_fail: u32,
    /// Scripts have a boundary every so many milliseconds, where they give way if they are asked.
    pub boundary: Option<i64>,
    /// Attempts that never end by themselves.
    pub hang: Vec<String>,
    /// Workers killed without a word.
    pub lenient: bool,
    /// So many of the next actions cannot be carried out.
    pub full: u32,
    /// How many rows of a kind a plan looks at, where that is not what it always is.
    pub width: Option<usize>,
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
    /// Media seconds that a script works off in a second.
    pub speed: f64,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(make::config())
    }

    pub(super) fn with(config: Config) -> Self {
        Self::knowing(config, Learned::default())
    }

    /// A mind that has learned this.
    pub(super) fn knowing(config: Config, learned: Learned) -> Self {
        Self {
            world: World::new(config.clone(), learned),
            now: Millis(1_000),
            config,
            log: Vec::new(),
            ended: BTreeMap::new(),
            can: make::can(&[make::QWEN_14B, make::QWEN_7B]),
            outcomes: BTreeMap::new(),
            refuses: false,
            times: Times {
                boot: 5_000,
                unload: 500,
                host_load: 1_000,
                llm: 1_000,
                script: 2_000,
                speed: 10.0,
            },
            boots_to_fail: 0,
            boundary: None,
            hang: Vec::new(),
            lenient: false,
            full: 0,
            width: None,
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

    /// A mind that looks at so few rows of each kind.
    pub(super) fn looking_at(mut self, width: usize) -> Self {
        self.width = Some(width);
        self.world.queue.narrow(width);
        self
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
        let broken: Vec<String> =
            self.world.apply_by_law(self.now, event.clone()).iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{broken:#?} at {event:?}, after {:#?}", self.latest());
        if !self.lenient {
            assert!(self.world.anomalies().is_empty(), "{:?} after {event:?}", self.world.anomalies());
        }
    }

    /// The latest actions, cut short.
    fn latest(&self) -> Vec<String> {
        let latest = self.log[self.log.len().saturating_sub(12)..].iter();
        latest.map(|(at, action)| format!("{at} {action:?}").chars().take(240).collect()).collect()
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
            paused: false,
        };
        self.accept(facts);
        for (index, seconds) in media.iter().enumerate() {
            self.drop_task(make::whisper(&format!("{name}.{index}")).of_batch(name).media(*seconds));
        }
        self
    }

    /// Accepts a batch.
    pub(super) fn accept(&mut self, facts: BatchFacts) {
        self.batches.insert(facts.batch_id.clone(), facts.clone());
        self.tell(Event::Batch(facts));
    }

    /// Lets the brain decide until it has nothing more to say.
    pub(super) fn think(&mut self) -> Option<Millis> {
        for _ in 0..200 {
            let plan = plan(&self.world, self.now);
            if plan.actions.is_empty() {
                let pause = Pause { world: &self.world, now: self.now, plan: &plan };
                let broken: Vec<String> = breaches_at_rest(&pause).iter().map(ToString::to_string).collect();
                assert!(broken.is_empty(), "{broken:#?} at {}", self.now);
                return plan.wake_at;
            }
            for action in plan.actions {
                self.check_eviction(&action);
                self.tell(Event::Issued(Box::new(action.clone())));
                self.log.push((self.now, action.clone()));
                if self.full > 0 && writes(&action) {
                    self.full -= 1;
                    self.tell(Event::Undone { action: Box::new(action), why: "no space".into() });
                } else {
                    self.carry_out(action);
                }
            }
        }
        panic!("the plan never comes to rest: {:?}", &self.log[self.log.len() - 10..]);
    }

    /// No LLM makes room that is busy, pinned or loaded moments ago, nor for a task that would not fit then.
    fn check_eviction(&self, action: &Action) {
        let Action::Reserve { gpu, task_id, until } = action else { return };
        let gpu = &self.world.gpus[gpu];
        let worker = self.world.worker_on(gpu).expect("a worker");
        assert_eq!(gpu.state, GpuState::LlmReady, "it runs nothing");
        assert_eq!(self.world.units_on(worker).filter(|unit| unit.is_live()).count(), 0);
        let entry = self.world.queue.by_id(task_id).next().expect("it waits");
        let shape = &self.world.queue.get(entry).expect("known").shape;
        assert!(shape.host().is_none() || self.world.takes_scripts(gpu), "it is pinned");
        assert!(!self.world.has_brain_role(gpu) || self.world.takes_scripts(gpu), "it is pinned");
        assert!(self.world.settled_at(gpu, worker, self.now) <= self.now, "it was loaded moments ago");
        assert!(gpu.has_room_for(shape), "it would not fit");
        assert!(*until > self.now);
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
        self.call_next();
    }

    fn later(&mut self, ms: i64, happening: Happening) {
        self.count += 1;
        self.agenda.insert((self.now + Millis(ms), self.count), happening);
    }
}

/// Whether an action writes something that a full disk does not take.
fn writes(action: &Action) -> bool {
    let told = matches!(action, Action::Say(_) | Action::Reserve { .. } | Action::ReadAhead { .. });
    !told && !matches!(action, Action::ShowRunning { .. } | Action::Launch { .. })
}

pub(super) fn id(name: &str) -> TaskId {
    TaskId::new(name).expect("a legal name")
}

/// A span on the wall clock.
fn chrono_of(time: Millis) -> std::time::Duration {
    std::time::Duration::from_millis(time.0.unsigned_abs())
}
