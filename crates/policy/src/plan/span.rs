//! Loads LLMs that are spread over several GPUs: one order for the worker of the first, and nothing else on the others.
//!
//! A task that waits for one has GPUs kept for it like a task that needs several for itself (`wide`); what roles and
//! batches bring back is loaded when as many GPUs are idle as it takes. Not here: one that is loaded (`crate::span`).

use std::collections::BTreeSet;

use model::{GpuUuid, Millis, Saying, WorkerId};

use super::draft::{Desk, Draft};
use super::evict::reserve;
use super::fill::boot_on;
use super::wide::emptiness;
use crate::action::Action;
use crate::model_choice::{Choice, choose};
use crate::queue::Queued;
use crate::shape::Shape;
use crate::unit::Unit;
use crate::worker::Worker;

impl Draft<'_> {
    /// Nothing new is placed on a desk, nor on the others of its LLM.
    pub(super) fn take(&mut self, at: usize) {
        self.on_all_of_its_llm(at, |desk| desk.taken = true);
    }

    /// What runs on one GPU of an LLM keeps all of it from being idle.
    pub(super) fn share_loads(&mut self) {
        let world = self.world;
        let load_of = |worker: &Worker| {
            let own = worker.units.iter().filter_map(|key| world.units.get(key));
            own.filter(|unit| unit.is_live()).count() + worker.claims.len()
        };
        let leads: BTreeSet<&WorkerId> = world.spans.values().collect();
        for lead in leads.into_iter().filter_map(|id| world.workers.get(id)) {
            let beside = self.desks.iter().filter(|desk| desk.has_llm_of(&lead.id)).map(|desk| desk.worker);
            let beside: usize = beside.filter(|worker| worker.id != lead.id).map(load_of).sum();
            let load = load_of(lead) + beside;
            self.on_all_of(&lead.id, |desk| desk.load = load);
        }
    }

    /// One more unit on a desk.
    pub(super) fn add_load(&mut self, at: usize) {
        self.on_all_of_its_llm(at, |desk| desk.load += 1);
    }

    /// One more request of the LLM of a desk.
    pub(super) fn add_request(&mut self, at: usize) {
        self.add_load(at);
        if let Some(llm) = &mut self.desks[at].llm {
            llm.free -= 1;
        }
    }

    fn on_all_of_its_llm(&mut self, at: usize, change: impl Fn(&mut Desk<'_>)) {
        match self.desks[at].llm.as_ref().map(|llm| llm.worker) {
            None => change(&mut self.desks[at]),
            Some(lead) => self.on_all_of(&lead.id, change),
        }
    }

    fn on_all_of(&mut self, lead: &WorkerId, change: impl Fn(&mut Desk<'_>)) {
        self.desks.iter_mut().filter(|desk| desk.has_llm_of(lead)).for_each(change);
    }
}

/// Loads what was chosen for an idle desk, there and on as many others as it takes; false where those are not idle.
pub(super) fn load(draft: &mut Draft<'_>, at: usize, choice: &Choice) -> bool {
    let Some(others) = others(draft, at, choice) else { return false };
    if choice.gpus == 1 {
        let order = choice.order(draft.desks[at].worker, Vec::new());
        boot_on(draft, at, Some(order));
        return true;
    }
    let desks: Vec<usize> = std::iter::once(at).chain(others).collect();
    if desks.iter().any(|at| draft.desks[*at].has_resident()) {
        for at in desks {
            if draft.desks[at].has_resident() {
                draft.clear_hosts(at);
            }
            draft.desks[at].taken = true;
        }
        return true;
    }
    order(draft, &desks, choice);
    true
}

/// The desks that it is spread to besides this one: those meant for it by their role first.
pub(super) fn others(draft: &Draft<'_>, at: usize, choice: &Choice) -> Option<Vec<usize>> {
    let world = draft.world;
    let entry = world.config.models.get(&choice.model);
    let mut able: Vec<usize> = (0..draft.desks.len())
        .filter(|other| {
            let desk = &draft.desks[*other];
            let is_free = desk.is_idle() && !desk.is_kept_from(None) && !desk.reserved;
            *other != at
                && is_free
                && entry.is_some_and(|entry| world.spreads_to(desk.gpu, &choice.model, entry))
        })
        .collect();
    able.sort_by_key(|other| (!world.has_brain_role(draft.desks[*other].gpu), *other));
    able.truncate(choice.gpus - 1);
    (able.len() == choice.gpus - 1).then_some(able)
}

/// Loads the LLM of a task on these empty desks.
pub(super) fn start(draft: &mut Draft<'_>, item: &Queued, desks: &[usize]) {
    let Some(choice) = choice_on(draft, desks[0], &item.shape) else { return };
    order(draft, desks, &choice);
    let lead = &mut draft.desks[desks[0]];
    lead.cover = u64::from(choice.parallel).saturating_sub(1);
    lead.promised = Some(choice);
}

fn order(draft: &mut Draft<'_>, desks: &[usize], choice: &Choice) {
    let beside: Vec<GpuUuid> = desks[1..].iter().map(|at| draft.desks[*at].gpu.facts.uuid.clone()).collect();
    let order = choice.order(draft.desks[desks[0]].worker, beside);
    draft.order_engine(desks[0], Some(order));
    for at in desks {
        draft.desks[*at].taken = true;
    }
}

/// What a task of this shape has loaded with this desk as the first.
pub(super) fn choice_on(draft: &Draft<'_>, at: usize, shape: &Shape) -> Option<Choice> {
    let (name, _) = draft.world.spanning_model(shape)?;
    choose(draft.world, draft.desks[at].gpu, draft.desks[at].worker, Some(name))
}

/// Whether its LLM may be tried with this desk as the first: none that has failed there lately.
pub(super) fn may_lead(draft: &Draft<'_>, at: usize, shape: &Shape) -> bool {
    let failures = &draft.desks[at].gpu.boot_failures;
    let rests =
        |choice: &Choice| failures.get(&choice.model).is_some_and(|failure| failure.again_at > draft.now);
    choice_on(draft, at, shape).is_some_and(|choice| !rests(&choice))
}

/// Wakes when its LLM may be tried again with one of these desks as the first.
pub(super) fn mind_failures(draft: &mut Draft<'_>, able: &[usize], shape: &Shape) {
    let Some((name, _)) = draft.world.spanning_model(shape) else { return };
    for at in able {
        if let Some(failure) = draft.desks[*at].gpu.boot_failures.get(name) {
            draft.wake(failure.again_at);
        }
    }
}

/// Other LLMs on desks that are kept for a task's LLM make room for it once nothing else is missing there: no request is
/// cut, and none goes before its time.
pub(super) fn make_room(draft: &mut Draft<'_>, item: &Queued) {
    let Some((wanted, _)) = draft.world.spanning_model(&item.shape) else { return };
    let kept: Vec<usize> = (0..draft.desks.len()).filter(|at| draft.desks[*at].reserved).collect();
    let (loaded, others): (Vec<usize>, Vec<usize>) =
        kept.into_iter().partition(|at| draft.desks[*at].llm.is_some());
    if !draft.is_kept_for(item) || !others.iter().all(|at| emptiness(&draft.desks[*at]).is_some()) {
        return;
    }
    for at in loaded {
        let desk = &draft.desks[at];
        let Some(llm) = desk.llm.as_ref().filter(|llm| llm.ready && !desk.taken) else { continue };
        let (gpu, model) = (desk.gpu.key(), llm.model.to_owned());
        if !draft.is_time(draft.settled_at(at)) {
            continue;
        }
        if draft.desks[at].load > 0 {
            draft.take(at);
            continue;
        }
        draft.say(Saying::Swaps {
            gpu,
            model,
            wanted: wanted.to_owned(),
            task: item.task.task_id.clone(),
            waited_s: (draft.now - item.since).max(Millis::ZERO).as_secs_f64(),
        });
        reserve(draft, at, &item.task.task_id);
        draft.order_engine(at, None);
    }
}

/// An LLM one of whose GPUs cannot be used any more goes, as soon as what it runs has been taken back (`stop`): its other
/// GPUs are of use without it.
pub(super) fn mind_lost_gpus(draft: &mut Draft<'_>) {
    let world = draft.world;
    let leads: BTreeSet<&WorkerId> = world.spans.values().collect();
    for lead in leads.into_iter().filter_map(|id| world.workers.get(id)) {
        let lost: Vec<&GpuUuid> =
            world.gpus_of_llm(lead).filter(|gpu| !gpu.is_usable()).map(|gpu| &gpu.facts.uuid).collect();
        let Some(order) = lead.engine.as_ref().filter(|_| !lost.is_empty() && lead.serves()) else {
            continue;
        };
        draft.on_all_of(&lead.id, |desk| desk.taken = true);
        let rests = lead.again_at.is_some_and(|time| !draft.is_time(time));
        if rests || world.units_on(lead).any(Unit::is_live) || !lead.claims.is_empty() {
            continue;
        }
        if let Some(gpu) = world.gpu_of(&lead.id) {
            let (model, lost) = (order.model.clone(), world.keys_of(lost));
            draft.say(Saying::LosesGpu { gpu: gpu.key(), model, lost });
        }
        draft.act(Action::Engine { worker: lead.id.clone(), engine: None });
    }
}
