//! The CPU lane: tasks that need no GPU, with their own cap, never behind GPU slots.

use model::link::HostOrder;
use model::{Entry, Millis};

use super::draft::Draft;
use super::fill::Placed;
use super::scripts::{AHEAD, is_short};
use crate::queue::{HostKey, Queued};
use crate::worker::Worker;

/// Kinds of warm hosts that may stay loaded at once in the CPU lane; memory is the bound, and nobody measures it yet.
const KINDS_KEPT: usize = 4;

/// What this plan has left of the CPU lane.
pub(super) struct CpuLane<'w> {
    worker: Option<&'w Worker>,
    free: u32,
    slots: u32,
    hosts: Vec<HostOrder>,
    /// Expected length of what was given ahead.
    ahead: Millis,
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
            slots,
            hosts: worker.map(|worker| worker.hosts.clone()).unwrap_or_default(),
            ahead: over,
        }
    }

    pub(super) fn place(&mut self, draft: &mut Draft<'w>, entry: &'w Entry, item: &'w Queued) -> Placed {
        let (Some(worker), Some(host)) = (self.worker, item.shape.host()) else { return Placed::No };
        if self.free > 0 {
            self.free -= 1;
        } else {
            let expected = is_short(draft, item, None).filter(|_| host.warm && self.is_kept(host));
            let Some(expected) = expected.filter(|expected| self.ahead + *expected <= AHEAD) else {
                return Placed::No;
            };
            self.ahead = self.ahead + expected;
        }
        if host.warm && !self.is_kept(host) {
            self.keep(draft, worker, host);
        }
        draft.start(entry, &worker.id, &item.task);
        Placed::Yes
    }

    fn is_kept(&self, host: &HostKey) -> bool {
        self.hosts.iter().any(|order| host.is(&order.script, order.model.as_deref()))
    }

    /// Lets this host stay, as often as there are slots; the kind that was let in first and runs nothing goes.
    fn keep(&mut self, draft: &mut Draft<'w>, worker: &'w Worker, host: &HostKey) {
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
        self.hosts.push(HostOrder { script: host.name(), model: host.model.clone(), count: self.slots });
        draft.act(crate::action::Action::Hosts { worker: worker.id.clone(), hosts: self.hosts.clone() });
    }
}
