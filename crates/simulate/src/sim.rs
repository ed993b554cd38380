//! The run: virtual time jumps from one happening to the next, or to the instant the mind named.
//!
//! ```text
//!            ┌──────────── agenda ◄──── arms, people, faults, disk ◄─┐
//!            ▼                                                        │
//!  now = min(next happening, wake_at) ─► facts ─► World ─► plan ─► hands
//!                                          │                 │
//!                                          └──► checks ◄─────┘
//! ```
//! Not here: what the mind decides (`policy`), and what must hold (`check`).

mod brain;
mod fit;
mod hands;
mod queues;
mod trouble;
mod workers;

use std::collections::BTreeMap;

use model::gpu::GpuFacts;
use model::learned::Learned;
use model::{BatchId, Config, Entry, GpuUuid, Millis, Task, TaskId, WorkerId};
use policy::World;
use policy::event::{BatchFacts, Event};

use crate::agenda::{Agenda, ArmNumber, Happening};
use crate::arm::Arm;
use crate::check::Checks;
use crate::dice::Dice;
use crate::disk::ModelFiles;
use crate::faults::Fault;
use crate::mind::Mind;
use crate::nature::Nature;
use crate::outcome::{Outcome, Record};
use crate::people::{Arrival, Job, arrivals};
use crate::scenario::{Scenario, ScenarioError, TASKS_MAX};
use crate::trace::Trace;

/// What the uuid of a virtual GPU begins with; its number follows.
pub(crate) const GPU_PREFIX: &str = "SIM-";
/// The instant at which every scenario begins: not zero, as no machine is asked at its first millisecond.
pub(crate) const BEGIN: Millis = Millis(10_000);
/// How many plans in a row may want something before that counts as never coming to rest.
const PLANS_MAX: u32 = 500;

/// A worker and what the brain has to do with it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub arm: Arm,
    /// A read of its orders is on the agenda.
    pub reads: bool,
    /// A read of its reports is on the agenda.
    pub says: bool,
    /// The present brain has been told of its birth.
    pub known: bool,
    /// The present brain has been told of its death.
    pub pronounced: bool,
    /// What it held at the last reading.
    pub held_mib: u64,
}

/// So much happens in one instant, should all tasks come at once; more is a loop without end.
const HAPPENINGS_MAX: u32 = 4 * TASKS_MAX;

/// A file in a queue folder.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub task: Task,
    pub order: u64,
    pub not_before: Option<Millis>,
}

/// A record in `complete/` or `failed/`.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub batch: Option<BatchId>,
}

/// A simulated machine with everything around it.
pub struct Sim {
    pub(crate) scenario: Scenario,
    pub(crate) config: Config,
    pub(crate) mind: Mind,
    pub(crate) world: World,
    pub(crate) now: Millis,
    pub(crate) agenda: Agenda,
    pub(crate) dice: Dice,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) jobs: BTreeMap<TaskId, Job>,
    pub(crate) files: BTreeMap<Entry, File>,
    pub(crate) ended: BTreeMap<TaskId, Ended>,
    pub(crate) batches: BTreeMap<BatchId, BatchFacts>,
    pub(crate) arms: BTreeMap<ArmNumber, Held>,
    pub(crate) disk: ModelFiles,
    pub(crate) facts: Vec<GpuFacts>,
    pub(crate) lost: BTreeMap<usize, Millis>,
    pub(crate) foreign: Vec<u64>,
    pub(crate) ram_is_low: bool,
    pub(crate) disk_is_full: bool,
    pub(crate) brain_is_up: bool,
    pub(crate) going_down: bool,
    /// The next reading of everything is on the agenda.
    pub(crate) reads_noted: bool,
    /// The end of this hour is on the agenda.
    pub(crate) hour_noted: bool,
    pub(crate) stalled_until: Option<Millis>,
    pub(crate) paused_until: Millis,
    pub(crate) backlog: Vec<Event>,
    pub(crate) born: u32,
    pub(crate) launches: u32,
    pub(crate) count: u64,
    pub(crate) faults_until: Millis,
    pub(crate) checks: Checks,
    pub(crate) record: Record,
    pub(crate) trace: Trace,
}

impl Sim {
    /// A scenario, ready to run under this mind.
    ///
    /// # Errors
    /// When its settings are no configuration.
    pub fn new(scenario: Scenario, mind: Mind) -> Result<Self, ScenarioError> {
        let people = arrivals(&scenario);
        Self::with_arrivals(scenario, people, mind)
    }

    /// A scenario with these arrivals instead of those its people would make.
    ///
    /// # Errors
    /// When its settings are no configuration.
    pub fn with_arrivals(
        scenario: Scenario,
        arrivals: Vec<Arrival>,
        mind: Mind,
    ) -> Result<Self, ScenarioError> {
        let mut config = scenario.settings()?;
        mind.set(&mut config);
        let facts = gpu_facts(&scenario);
        let arrivals = mind.see(arrivals);
        let mut sim = Self {
            dice: Dice::of(scenario.seed, "nature"),
            world: World::new(config.clone(), Learned::default()),
            now: BEGIN,
            agenda: Agenda::default(),
            jobs: BTreeMap::new(),
            files: BTreeMap::new(),
            ended: BTreeMap::new(),
            batches: BTreeMap::new(),
            arms: BTreeMap::new(),
            disk: ModelFiles::new(scenario.engines.disk),
            lost: BTreeMap::new(),
            foreign: vec![0; facts.len()],
            facts,
            ram_is_low: false,
            disk_is_full: false,
            brain_is_up: false,
            going_down: false,
            reads_noted: false,
            hour_noted: false,
            stalled_until: None,
            paused_until: Millis::ZERO,
            backlog: Vec::new(),
            born: 0,
            launches: 0,
            count: 0,
            faults_until: BEGIN + Millis::from_secs_f64(scenario.duration_s),
            checks: Checks::new(&config, &scenario),
            record: Record::new(&arrivals),
            trace: Trace::default(),
            arrivals,
            config,
            mind,
            scenario,
        };
        for (number, arrival) in sim.arrivals.iter().enumerate() {
            sim.agenda.note(BEGIN + arrival.at, Happening::Arrives(number));
        }
        for fault in Fault::ALL {
            let end = Millis::from_secs_f64(sim.scenario.duration_s);
            for at in fault.times(&sim.scenario.faults, sim.scenario.seed, end) {
                sim.agenda.note(BEGIN + at, Happening::Goes(fault));
            }
        }
        Ok(sim)
    }

    /// Keeps the whole story as text, for people.
    #[must_use]
    pub fn tracing(mut self) -> Self {
        self.trace = Trace::whole();
        self
    }

    /// Lets some estimates be known from the beginning, as on a machine that has run for a while.
    #[must_use]
    pub fn knowing(mut self, learned: Learned) -> Self {
        self.world = World::new(self.config.clone(), learned);
        self
    }

    /// Runs until everything has ended, a law is broken, or the time that it may take is up.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        self.brain_starts(false);
        let deadline = self.faults_until + Millis::from_secs_f64(self.scenario.settle_s);
        let mut in_this_instant = 0_u32;
        loop {
            let wake = self.think();
            if self.checks.is_broken() || self.is_over() {
                break;
            }
            let next = [wake, self.agenda.next_at()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= deadline) else {
                self.never_ends();
                break;
            };
            if next > self.now {
                self.now = next;
                in_this_instant = 0;
            }
            while let Some(happening) = self.agenda.pop(self.now) {
                in_this_instant += 1;
                if in_this_instant > HAPPENINGS_MAX {
                    self.checks.broken(self.now, "time goes on", format!("{happening} for ever"));
                    break;
                }
                self.happen(happening);
            }
        }
        self.finish()
    }

    fn happen(&mut self, happening: Happening) {
        if !matches!(happening, Happening::Reads(_) | Happening::ReadsAll | Happening::HourIsOver) {
            self.trace.line(self.now, || happening.to_string());
        }
        match happening {
            Happening::Arrives(number) => self.arrives(number),
            Happening::Expands(number) => self.expands(number),
            Happening::Seen(entry) => self.seen(&entry),
            Happening::Unseen(entry) => self.unseen(entry),
            Happening::WorkerReads(arm) => self.worker_reads(arm),
            Happening::BrainReads(arm) => self.brain_reads(arm),
            Happening::Rings(arm, timer) => self.rings(arm, &timer),
            Happening::Born { launch, gpu } => self.born(launch, gpu),
            Happening::Buried(arm) => self.buried(arm),
            Happening::Flushed { task_id, complete, at } => self.flushed(task_id, complete, at),
            Happening::Reads(gpu) => self.reads(gpu),
            Happening::ReadsAll => {
                self.reads_noted = false;
                self.reads_all();
            }
            Happening::HourIsOver => {
                self.hour_noted = false;
                self.turns_hour();
            }
            Happening::Looks => self.looks(),
            Happening::DiskReady(version) => self.disk_ready(version),
            Happening::Goes(fault) => self.goes(fault),
            Happening::Over(fault, number) => self.over(fault, number),
            Happening::BrainBack => self.brain_starts(true),
            Happening::Wakes => self.wakes(),
        }
    }

    pub(crate) fn later(&mut self, delay: Millis, happening: Happening) {
        self.agenda.note(self.now + delay, happening);
    }

    /// Whether nothing more can come: all people have come, faults are off, and all accepted work has ended.
    fn is_over(&self) -> bool {
        self.brain_is_up
            && self.stalled_until.is_none()
            && self.now >= self.record.last_arrival
            && self.record.arrivals_left == 0
            && (!self.has_faults() || self.now >= self.faults_until)
            && self.files.is_empty()
            && self.checks.all_have_ended()
            && self.is_restored()
    }

    /// Whether what was loaded again after the last batch is there: only then is the machine as it should be.
    fn is_restored(&self) -> bool {
        self.arms.values().all(|held| {
            let booting = held.arm.seat.as_ref().is_some_and(|seat| {
                matches!(seat.state, model::link::EngineState::Booting | model::link::EngineState::Unloading)
            });
            !booting && held.arm.written.attempts.is_empty()
        })
    }

    pub(crate) fn has_faults(&self) -> bool {
        self.scenario.faults != crate::scenario::Faults::default()
    }

    /// What goes wrong now; none once faults are off.
    pub(crate) fn faults_on(&self) -> bool {
        self.now < self.faults_until
    }

    /// The costs of things, and one worker to pay them.
    pub(crate) fn with_arm<T>(
        &mut self,
        number: ArmNumber,
        act: impl FnOnce(&mut Arm, &mut Nature<'_>) -> T,
    ) -> Option<T> {
        let on = self.faults_on();
        let held = self.arms.get_mut(&number)?;
        let mut nature = Nature {
            scenario: &self.scenario,
            config: &self.config,
            jobs: &self.jobs,
            dice: &mut self.dice,
            foreign: &self.foreign,
            faults: Some(&self.scenario.faults).filter(|_| on),
        };
        Some(act(&mut held.arm, &mut nature))
    }

    fn never_ends(&mut self) {
        let left = self.checks.left();
        let plan = self.mind.plan(&self.world, self.now);
        let heads: Vec<String> = plan.heads.iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
        let why = format!(
            "{} of {} tasks have not ended, the first: {}; heads {heads:?}, wake at {:?}",
            left.len(),
            self.checks.accepted(),
            left.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", "),
            plan.wake_at,
        );
        self.checks.broken(self.now, "everything ends", why);
    }

    fn finish(mut self) -> Outcome {
        self.checks.at_the_end(self.now, &self.batches);
        self.record.close(self.now);
        Outcome::of(self)
    }
}

fn gpu_facts(scenario: &Scenario) -> Vec<GpuFacts> {
    let gpus = scenario.gpus.iter().enumerate();
    let facts = gpus.filter_map(|(number, spec)| {
        Some(GpuFacts {
            uuid: GpuUuid::new(format!("{GPU_PREFIX}{number}")).ok()?,
            index: u32::try_from(number).ok()?,
            name: format!("SIMULATED {} MiB x{}", spec.mib, spec.speed),
            total_mib: Some(spec.mib),
            compute_capability: scenario.capability(number),
        })
    });
    facts.collect()
}

/// The number in a worker's name.
pub(crate) fn number_of(worker: &WorkerId) -> ArmNumber {
    worker.as_str().trim_start_matches("worker-").parse().unwrap_or(0)
}
