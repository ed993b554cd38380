//! A place of a forecast: a GPU or the CPU lane, when its slots are free, and what is loaded there by then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::{GpuState, Millis};

use super::{Pace, expected_end, of_claim};
use crate::gpu::Gpu;
use crate::plan::TO_A_BOUNDARY;
use crate::shape::{HostKey, Shape};
use crate::worker::{Llm, Worker};
use crate::world::World;

/// What the CPU lane is called where a GPU has its key.
pub(super) const CPU: &str = "cpu";

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loaded<'w> {
    Nothing,
    Llm(&'w str),
    Script(&'w HostKey),
}

/// A GPU or the CPU lane, as the walk has left it.
#[derive(Debug)]
pub(super) struct Place<'w> {
    /// None is the CPU lane.
    pub gpu: Option<&'w Gpu>,
    pub worker: Option<&'w Worker>,
    pub loaded: Loaded<'w>,
    /// When each slot is free.
    slots: BinaryHeap<Reverse<Millis>>,
    /// When all of them are.
    all_free: Millis,
}

impl<'w> Place<'w> {
    /// A usable GPU, by what runs, loads or cools there now.
    pub(super) fn of_gpu(world: &'w World, now: Millis, gpu: &'w Gpu, pace: Pace) -> Self {
        let worker = world.worker_on(gpu);
        let (state, _) = gpu.state_at(now);
        let mut place = Self::empty(Some(gpu), worker, now);
        let Some(at) = worker else { return place };
        place.busy_with(world, now, at, pace);
        // What is spread to it serves on its first GPU; here nothing else does.
        let lead = world.llm_worker(gpu).unwrap_or(at);
        let slots = |parallel: u32| if lead.id == at.id { parallel } else { 1 };
        match lead.llm() {
            Some(Llm::Ready { report }) => {
                place.loaded = Loaded::Llm(&report.model);
                place.widen(slots(report.parallel), now);
            }
            Some(Llm::Booting { order }) => {
                let boot = pace.of(world.memory.llm_boot(&world.config, &order.preset, &order.model));
                let ready = (lead.engine_at + boot).max(now);
                place.load(Loaded::Llm(&order.model), slots(order.parallel), ready);
            }
            Some(Llm::Failed { .. } | Llm::Unloading) => place.load(Loaded::Nothing, 1, now + gpu.cooling),
            None => {
                if let Some((shape, host)) = running_host(world, at) {
                    place.run_scripts(world, now, shape, host, pace);
                }
                if state == GpuState::Cooling {
                    let free = gpu.cooled_at().unwrap_or(now + gpu.cooling).max(now);
                    place.load(Loaded::Nothing, 1, free);
                }
                place.widen(1, now);
            }
        }
        place
    }

    /// The CPU lane.
    pub(super) fn of_cpu(world: &'w World, now: Millis, pace: Pace) -> Self {
        let worker = world.cpu_worker();
        let mut place = Self::empty(None, worker, now);
        if let Some(at) = worker {
            place.busy_with(world, now, at, pace);
        }
        place.widen(world.cpu_slots(), now);
        place
    }

    fn empty(gpu: Option<&'w Gpu>, worker: Option<&'w Worker>, now: Millis) -> Self {
        Self { gpu, worker, loaded: Loaded::Nothing, slots: BinaryHeap::new(), all_free: now }
    }

    /// Scripts of this kind run there: so many more fit, by hosts that are loaded, then by such as load first.
    fn run_scripts(&mut self, world: &'w World, now: Millis, shape: &Shape, host: &'w HostKey, pace: Pace) {
        self.loaded = Loaded::Script(host);
        let (Some(gpu), Some(worker)) = (self.gpu, self.worker) else { return };
        let slots = world.slots_max(gpu, Some(worker), Some(shape)).unwrap_or(1);
        let loaded = worker.residents().filter(|it| host.is(&it.script, it.model.as_deref())).count();
        let load = match host.warm {
            true => pace.of(world.memory.host_boot(&world.config, host)),
            false => Millis::ZERO,
        };
        self.widen(u32::try_from(loaded).unwrap_or(u32::MAX).min(slots), now);
        self.widen(slots, now + load);
    }

    fn busy_with(&mut self, world: &World, now: Millis, worker: &Worker, pace: Pace) {
        let ends = world.units_on(worker).filter(|unit| unit.is_live());
        let ends = ends.map(|unit| {
            let end = expected_end(world, now, worker, unit, pace);
            // Who was asked to give way does so at his next boundary.
            unit.yield_asked_at
                .filter(|_| unit.yields_until().is_some_and(|until| until > now))
                .map_or(end, |asked_at| end.min((asked_at + TO_A_BOUNDARY).max(now)))
        });
        let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
        let claims = claims.filter_map(|claim| of_claim(world, now, claim, pace)).map(|span| span.end);
        for end in ends.chain(claims) {
            self.slots.push(Reverse(end));
            self.all_free = self.all_free.max(end);
        }
    }

    /// At least this many slots, and no more than have been taken: the rest is free now.
    fn widen(&mut self, slots: u32, now: Millis) {
        while self.slots.len() < slots.max(1) as usize {
            self.slots.push(Reverse(now));
        }
    }

    /// Loads something that is usable from `ready` on.
    pub(super) fn load(&mut self, what: Loaded<'w>, slots: u32, ready: Millis) {
        self.loaded = what;
        self.slots.clear();
        self.widen(slots, ready);
        self.all_free = self.all_free.max(ready);
    }

    /// When the first slot is free.
    pub(super) fn free_at(&self) -> Millis {
        self.slots.peek().map_or(self.all_free, |Reverse(at)| *at)
    }

    /// When nothing runs there any more.
    pub(super) const fn all_free_at(&self) -> Millis {
        self.all_free
    }

    /// How many things run there at once.
    pub(super) fn width(&self) -> u64 {
        self.slots.len().max(1) as u64
    }

    /// How many things still run there then.
    pub(super) fn in_use(&self, at: Millis) -> usize {
        self.slots.iter().filter(|Reverse(free)| *free > at).count()
    }

    /// Takes the first free slot until `end`.
    pub(super) fn take(&mut self, end: Millis) {
        self.slots.pop();
        self.slots.push(Reverse(end));
        self.all_free = self.all_free.max(end);
    }

    /// What the picture calls it.
    pub(super) fn key(&self) -> String {
        self.gpu.map_or_else(|| CPU.to_owned(), Gpu::key)
    }
}

/// The kind of script that runs there, or is about to.
fn running_host<'w>(world: &'w World, worker: &'w Worker) -> Option<(&'w Shape, &'w HostKey)> {
    let units = world.units_on(worker).filter(|unit| unit.is_live()).map(|unit| &unit.shape);
    let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    let mut shapes = units.chain(claims.map(|claim| &claim.queued.shape));
    shapes.find_map(|shape| Some((shape, shape.host()?)))
}
