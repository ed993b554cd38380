//! When things are expected to start and to end: one walk over what waits, in the one order, onto the places there are.
//!
//! ```text
//! running units' ends, boots, cooling ─► places ─► each waiting task goes where it starts first ─► Expected
//! ```
//! It is a forecast and decides nothing: nobody calls it on the way to a start, only those who answer people. At most
//! [`WALKED_MAX`] tasks are walked; beyond that it is arithmetic with the rate of the places. Not here: reasons (`why`).

mod foreseen;
mod order;
mod place;
mod uses;
mod walk;

use std::collections::BTreeMap;

use model::request::ExpectedIn;
use model::{BatchId, Entry, Millis, TaskClass, TaskId};

use crate::gpu::Gpu;
use crate::learn::Estimate;
use crate::unit::{Claim, Unit};
use crate::worker::Worker;
use crate::world::World;
pub(crate) use foreseen::{Foreseen, foreseen};
use place::Place;
pub(crate) use walk::Departure;
use walk::Walk;

/// Most tasks that are walked one by one: with every GPU looked at for each, a forecast stays within milliseconds.
pub(crate) const WALKED_MAX: usize = 4_096;
/// Most tasks that are walked for the picture, which is drawn many times a second.
const WALKED_FOR_PICTURE: usize = 64;

/// When something is expected to start and to end, on the machine's time line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Half of the time it has started by then.
    pub start: Millis,
    /// Half of the time it has ended by then.
    pub end: Millis,
    /// If everything takes as long as nine times of ten it does not exceed, it starts then.
    pub start_p90: Millis,
    /// And ends then.
    pub end_p90: Millis,
    /// Key of the GPU in the picture, or `cpu`; none where only the rate is known.
    pub place: Option<String>,
}

impl Expected {
    /// In seconds from now, as people are told.
    #[must_use]
    pub fn from_now(&self, now: Millis) -> ExpectedIn {
        let seconds = |at: Millis| (at - now).as_secs_f64();
        ExpectedIn {
            starts_in_s: seconds(self.start),
            ends_in_s: seconds(self.end).max(0.0),
            starts_in_p90_s: seconds(self.start_p90),
            ends_in_p90_s: seconds(self.end_p90).max(0.0),
            place: self.place.clone(),
        }
    }
}

/// Which estimate a forecast takes for each thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The usual.
    Usual,
    /// Nine of ten are faster.
    Slow,
}

impl Pace {
    /// The one of two numbers.
    pub(crate) const fn of(self, estimate: Estimate) -> Millis {
        match self {
            Self::Usual => estimate.p50,
            Self::Slow => estimate.p90,
        }
    }
}

/// When a queue, or what is known of it, is expected to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueForecast {
    /// Which.
    pub class: TaskClass,
    /// Tasks in its folders.
    pub waiting: u64,
    /// Of those, tasks of which nobody can say when they start.
    pub held: u64,
    /// First start and last end.
    pub expected: Option<Expected>,
}

/// When a live batch is expected to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchForecast {
    /// Which.
    pub batch_id: BatchId,
    /// Items that have not ended.
    pub remaining: u64,
    /// Its first start from now on and its last end.
    pub expected: Option<Expected>,
}

/// One pace's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: Millis,
    pub end: Millis,
    pub place: Option<String>,
}

impl Span {
    fn join(self, other: &Self) -> Self {
        let place = self.place.filter(|place| other.place.as_ref() == Some(place));
        Self { start: self.start.min(other.start), end: self.end.max(other.end), place }
    }
}

/// When a waiting or running task is expected to start and end; none where nobody can say.
#[must_use]
pub fn eta(world: &World, now: Millis, task_id: &TaskId) -> Option<Expected> {
    let now = now.max(world.now);
    if let Some((worker, unit)) = live_unit(world, task_id) {
        return both(|pace| {
            let start = unit.running_since().unwrap_or(now);
            Some(Span {
                start,
                end: expected_end(world, now, worker, unit, pace),
                place: Some(key(world, worker)),
            })
        });
    }
    if let Some(claim) = world.claims.values().find(|claim| claim.task.task_id == *task_id) {
        return claim_eta(world, now, claim);
    }
    let entry = world.queue.by_id(task_id).next()?;
    both(|pace| Walk::new(world, now, pace).until(entry, WALKED_MAX))
}

/// When a batch is expected to end; none where nobody can say, or where it is not live.
#[must_use]
pub fn batch_eta(world: &World, now: Millis, batch_id: &BatchId) -> Option<Expected> {
    let now = now.max(world.now);
    both(|pace| Walk::new(world, now, pace).whole().of_batch(batch_id))
}

/// When a batch would end if only these GPUs did it, nothing else waited and no LLM were in its way.
pub(crate) fn batch_alone(
    world: &World,
    now: Millis,
    batch_id: &BatchId,
    wanted: &dyn Fn(&Gpu) -> bool,
) -> Option<Expected> {
    both(|pace| Walk::new(world, now, pace).only(batch_id, wanted).whole().of_batch(batch_id))
}

/// The LLMs that make room for a batch.
pub(crate) fn departures<'w>(world: &'w World, now: Millis, batch_id: &BatchId) -> Vec<Departure<'w>> {
    Walk::new(world, now, Pace::Usual).whole().departures(batch_id)
}

/// When each queue and each batch is expected to be done.
#[must_use]
pub fn forecast(world: &World, now: Millis) -> (Vec<QueueForecast>, Vec<BatchForecast>) {
    let now = now.max(world.now);
    let usual = Walk::new(world, now, Pace::Usual).whole();
    let slow = Walk::new(world, now, Pace::Slow).whole();
    let queues = TaskClass::ALL.into_iter().map(|class| QueueForecast {
        class,
        waiting: model::Priority::ALL
            .into_iter()
            .map(|priority| world.queue.in_folder((class, priority)))
            .sum(),
        held: usual.held(class),
        expected: joined(usual.of_class(class), slow.of_class(class)),
    });
    let batches = world.batches.values().map(|batch| {
        let batch_id = batch.facts.batch_id.clone();
        let expected = joined(usual.of_batch(&batch_id), slow.of_batch(&batch_id));
        BatchForecast { remaining: batch.facts.remaining(), batch_id, expected }
    });
    (queues.collect(), batches.collect())
}

/// What comes next on a GPU, and when.
pub(crate) fn next_on(world: &World, now: Millis, gpu: &Gpu) -> Option<(Entry, Millis)> {
    Walk::new(world, now, Pace::Usual).next_on(&gpu.key(), WALKED_FOR_PICTURE * 4)
}

/// When the LLM of a GPU makes room, at the latest, for the first script that could run in its place.
pub(crate) fn llm_leaves_at(world: &World, now: Millis, gpu: &Gpu) -> Option<Millis> {
    Walk::new(world, now, Pace::Slow).llm_of_leaves_at(gpu)
}

/// How many things a GPU runs at once as it is loaded, and when the first of them is done.
pub(crate) fn slots_of(world: &World, now: Millis, gpu: &Gpu) -> (u64, Millis) {
    let place = Place::of_gpu(world, now, gpu, Pace::Usual);
    (place.width(), place.free_at())
}

/// The starts of these tasks as far as a short walk tells: for the picture.
pub(crate) fn starts(world: &World, now: Millis, wanted: &[&Entry]) -> BTreeMap<Entry, Millis> {
    Walk::new(world, now, Pace::Usual).starts_of(wanted, WALKED_FOR_PICTURE)
}

/// When a unit is expected to end: by its progress where it tells one, else by what its kind takes.
pub(crate) fn expected_end(world: &World, now: Millis, worker: &Worker, unit: &Unit, pace: Pace) -> Millis {
    let since = unit.running_since().unwrap_or(now);
    if let Some(end) = unit.ends_at_its_pace() {
        return end.max(now);
    }
    let llm = worker.reports.engine.as_ref().map(|engine| engine.model.as_str());
    let gpu = world.gpu_of(&worker.id).map(|gpu| gpu.facts.name.as_str());
    let slots = world.units_on(worker).filter(|unit| unit.is_live()).count();
    (since + pace.of(world.memory.run_beside(&world.config, &unit.task, llm, gpu, slots))).max(now)
}

/// A start that is being carried out: at once, or when its host is loaded.
pub(crate) fn of_claim(world: &World, now: Millis, claim: &Claim, pace: Pace) -> Option<Span> {
    let worker = world.workers.get(&claim.worker)?;
    let load = match claim.queued.shape.host() {
        Some(host) if host.warm && !claim.warm => pace.of(world.memory.host_boot(&world.config, host)),
        _ => Millis::ZERO,
    };
    let llm = worker.reports.engine.as_ref().map(|engine| engine.model.as_str());
    let gpu = world.gpu_of(&worker.id).map(|gpu| gpu.facts.name.as_str());
    let run = pace.of(world.memory.run_beside(&world.config, &claim.task, llm, gpu, worker.load().max(1)));
    let start = now + load;
    Some(Span { start, end: start + run.max(Millis(1)), place: Some(key(world, worker)) })
}

/// When a start that is being carried out begins and ends.
pub(crate) fn claim_eta(world: &World, now: Millis, claim: &Claim) -> Option<Expected> {
    both(|pace| of_claim(world, now, claim, pace))
}

fn live_unit<'w>(world: &'w World, task_id: &TaskId) -> Option<(&'w Worker, &'w Unit)> {
    let unit =
        world.attempts_of(task_id).filter_map(|key| world.units.get(key)).find(|unit| unit.is_live())?;
    Some((world.workers.get(&unit.worker)?, unit))
}

fn key(world: &World, worker: &Worker) -> String {
    world.gpu_of(&worker.id).map_or_else(|| place::CPU.to_owned(), Gpu::key)
}

fn both(span: impl Fn(Pace) -> Option<Span>) -> Option<Expected> {
    joined(span(Pace::Usual), span(Pace::Slow))
}

fn joined(usual: Option<Span>, slow: Option<Span>) -> Option<Expected> {
    let usual = usual?;
    let slow = slow.unwrap_or_else(|| usual.clone());
    Some(Expected {
        start_p90: slow.start.max(usual.start),
        end_p90: slow.end.max(usual.end),
        start: usual.start,
        end: usual.end,
        place: usual.place,
    })
}
