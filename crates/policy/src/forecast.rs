//! When things are expected to start and to end: one walk over what waits, in the one order, onto the places there are.
//!
//! ```text
//! running units' ends, boots, cooling ─► places ─► each waiting task goes where it starts first ─► Expected
//! ```
//! It is a forecast and decides nothing: nobody calls it on the way to a start, only those who answer people. At most
//! [`WALKED_MAX`] tasks are walked; beyond that it is arithmetic with the rate of the places. Not here: reasons (`why`).

mod order;
mod place;
mod walk;

use std::collections::BTreeMap;

use model::{BatchId, Entry, Millis, TaskClass, TaskId};

use crate::gpu::Gpu;
use crate::learn::Estimate;
use crate::unit::Unit;
use crate::worker::Worker;
use crate::world::World;
use place::Place;
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
    let entry = world.queue.by_id(task_id).next()?;
    both(|pace| Walk::new(world, now, pace).until(entry, WALKED_MAX))
}

/// When a batch is expected to end; none where nobody can say, or where it is not live.
#[must_use]
pub fn batch_eta(world: &World, now: Millis, batch_id: &BatchId) -> Option<Expected> {
    let now = now.max(world.now);
    both(|pace| Walk::new(world, now, pace).whole().of_batch(batch_id))
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
    Walk::new(world, now, Pace::Usual).llm_of_leaves_at(gpu)
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
