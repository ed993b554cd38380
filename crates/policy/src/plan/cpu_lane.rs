//! The CPU lane: tasks that need no GPU, with their own cap, never behind GPU slots.

use std::collections::BTreeMap;

use model::link::HostOrder;
use model::{Entry, Millis};

use super::draft::Draft;
use super::fill::Placed;
use super::ram;
use super::scripts::{AHEAD, is_short};
use crate::queue::Queued;
use crate::shape::HostKey;
use crate::worker::Worker;
use crate::world::World;

/// Kinds of warm hosts that may stay loaded at once in the CPU lane; memory is the bound, and nobody measures it yet.
const KINDS_KEPT: usize = 4;

/// What this plan has left of the CPU lane.
pub(super) struct CpuLane<'w> {
    worker: Option<&'w Worker>,
    free: u32,
    hosts: Vec<HostOrder>,
    /// What was given of each warm kind.
    given: BTreeMap<HostKey, u32>,
    /// Expected length of what was given ahead.
    ahead: Millis,
    /// Whether somebody before found no slot: then nothing is given ahead, or the lane would never come free for it.
    somebody_waits: bool,
}

impl<'w> CpuLane<'w> {
    pub(super) fn new(draft: &mut Draft<'w>) -> Self {
        let world = draft.world;
        let worker = world.cpu_worker().filter(|worker| worker.serves());
        let worker = worker.filter(|worker| worker.again_at.is_none_or(|time| draft.is_time(time)));
        let slots = world.cpu_slots();
        let load = worker.map_or(0, |worker| {
            world.units_on(worker).filter(|unit| unit.is_live()).count() + worker.claims.len()
        });
        let load = u32::try_from(load).unwrap_or(u32::MAX);
        let over = Millis(i64::from(load.saturating_sub(slots)));
        Self {
            worker,
            free: slots.saturating_sub(load),
            given: worker.map(|worker| given(world, worker)).unwrap_or_default(),
            hosts: worker.map(|worker| worker.hosts.clone()).unwrap_or_default(),
            ahead: over,
            somebody_waits: false,
        }
    }

    pub(super) fn place(&mut self, draft: &mut Draft<'w>, entry: &'w Entry, item: &'w Queued) -> Placed {
        let (Some(worker), Some(host)) = (self.worker, item.shape.host()) else { return Placed::No };
        if self.free > 0 {
            let given = self.given.get(host).copied().unwrap_or_default();
            let mine = self.hosts.iter().filter(|order| host.is(&order.script, order.model.as_deref()));
            let kept: u32 = mine.map(|order| order.count).sum();
            if !ram::allows(draft, item, given >= kept) {
                return Placed::Covered;
            }
            self.free -= 1;
            if host.warm {
                let given = self.given.entry(host.clone()).or_default();
                *given += 1;
                let wanted = *given;
                self.keep(draft, worker, host, wanted);
            }
        } else {
            let kept = self.hosts.iter().any(|order| host.is(&order.script, order.model.as_deref()));
            let expected = is_short(draft, item, None).filter(|_| kept && !self.somebody_waits);
            let Some(expected) = expected.filter(|expected| self.ahead + *expected <= AHEAD) else {
                self.somebody_waits = true;
                return Placed::No;
            };
            self.ahead = self.ahead + expected;
        }
        draft.start(entry, &worker.id, &item.task);
        Placed::Yes
    }

    /// Lets as many hosts of this kind stay as have run at once: a worker loads what may stay, and no more is needed.
    /// The kind that was let in first and runs nothing goes when there are too many.
    fn keep(&mut self, draft: &mut Draft<'w>, worker: &'w Worker, host: &HostKey, wanted: u32) {
        if let Some(order) =
            self.hosts.iter_mut().find(|order| host.is(&order.script, order.model.as_deref()))
        {
            if order.count < wanted {
                order.count = wanted;
                self.order(draft, worker);
            }
            return;
        }
        if self.hosts.len() >= KINDS_KEPT {
            let world = draft.world;
            let runs = |order: &HostOrder| {
                let is_it = |key: &HostKey| key.is(&order.script, order.model.as_deref());
                world.units_on(worker).any(|unit| unit.is_live() && unit.shape.host().is_some_and(is_it))
            };
            if let Some(at) = self.hosts.iter().position(|order| !runs(order)) {
                self.hosts.remove(at);
            }
        }
        self.hosts.push(HostOrder { script: host.name(), model: host.model.clone(), count: wanted });
        self.order(draft, worker);
    }

    fn order(&self, draft: &mut Draft<'w>, worker: &'w Worker) {
        draft.act(crate::action::Action::Hosts { worker: worker.id.clone(), hosts: self.hosts.clone() });
    }
}

/// How many live units and starts under way a worker has of each warm kind.
fn given(world: &World, worker: &Worker) -> BTreeMap<HostKey, u32> {
    let units = world.units_on(worker).filter(|unit| unit.is_live()).map(|unit| &unit.shape);
    let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    let mut given = BTreeMap::new();
    for shape in units.chain(claims.map(|claim| &claim.queued.shape)) {
        if let Some(host) = shape.host().filter(|host| host.warm) {
            *given.entry(host.clone()).or_default() += 1;
        }
    }
    given
}
