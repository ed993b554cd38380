//! Who may be asked to give way to a chatbot, and how often: what is remembered of it.
//!
//! Not here: whether anybody is asked (`plan::yields`), and what becomes of one that gave way (`retry`).

use std::collections::{BTreeMap, VecDeque};

use model::link::StopWhy;
use model::{Millis, TaskClass, TaskId};

use crate::gpu::Gpu;
use crate::place;
use crate::queue::Queued;
use crate::unit::Unit;
use crate::world::World;

/// A task that has given way this often within [`MEMORY`] is left in peace: it has to come to its end some day.
const YIELDS_MAX: usize = 20;
/// How long a task is remembered to have given way.
const MEMORY: Millis = Millis::from_secs(3_600);
/// How long somebody who was asked counts as about to give way. He stays asked; but another may be asked as well.
const PATIENCE: Millis = Millis::from_secs(60);

/// When tasks gave way, lately. A brain that starts anew has forgotten it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Yields {
    lately: BTreeMap<TaskId, VecDeque<Millis>>,
}

impl Yields {
    /// A task has given way.
    pub(crate) fn note(&mut self, task_id: &TaskId, at: Millis) {
        self.lately.retain(|_, times| times.back().is_some_and(|last| *last + MEMORY > at));
        let times = self.lately.entry(task_id.clone()).or_default();
        times.push_back(at);
        if times.len() > YIELDS_MAX {
            times.pop_front();
        }
    }

    /// A task has ended.
    pub(crate) fn forget(&mut self, task_id: &TaskId) {
        self.lately.remove(task_id);
    }

    /// When a task may be asked again, if it has given way too often to be asked now.
    pub(crate) fn in_peace_until(&self, task_id: &TaskId, now: Millis) -> Option<Millis> {
        let times = self.lately.get(task_id).filter(|times| times.len() >= YIELDS_MAX)?;
        times.front().map(|first| *first + MEMORY).filter(|until| *until > now)
    }
}

impl World {
    /// Whether this unit gives way if it is asked: its job type does, it has boundaries, and nobody has asked it for
    /// anything yet.
    pub(crate) fn can_yield(&self, unit: &Unit) -> bool {
        let job_types = &self.config.fairness.job_types;
        let may = job_types.get(&unit.task.job_type).is_none_or(|job_type| job_type.yields);
        let has_boundary = unit.class() == TaskClass::Llm
            || self.report_of(&unit.worker, &unit.key).is_some_and(|report| report.yields);
        let is_free = unit.is_live() && unit.stop.is_none() && !unit.cancelled;
        may && has_boundary && is_free && !unit.task.is_chatbot()
    }
}

impl Unit {
    /// Until when it counts as about to give way.
    pub(crate) fn yields_until(&self) -> Option<Millis> {
        let asked = self.is_live() && self.stop == Some(StopWhy::Yield);
        self.yield_asked_at.filter(|_| asked).map(|at| at + PATIENCE)
    }
}

/// Who is about to give way to this task, and where.
pub(crate) fn makes_way_for<'w>(world: &'w World, item: &Queued) -> Option<(&'w Unit, Option<&'w Gpu>)> {
    if !item.task.is_chatbot() {
        return None;
    }
    let yielding = world.units.values().filter(|unit| unit.yields_until().is_some());
    let mut places = yielding.map(|unit| (unit, world.gpu_of(&unit.worker)));
    places.find(|(_, gpu)| match gpu {
        Some(gpu) => place::fits(&item.shape, &gpu.facts),
        None => item.shape.in_cpu_lane(),
    })
}
