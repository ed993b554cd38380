//! Laws of a choice: what is unloaded, what is loaded, and who is asked to give way.

use model::link::{EngineOrder, StopWhy};
use model::{Saying, TaskClass};

use super::{Found, Step};
use crate::action::Action;
use crate::gpu::Gpu;
use crate::worker::{Llm, Worker};

impl<'w> Step<'w> {
    /// The ready LLM that is told to go, and its GPU.
    fn eviction(&self) -> Option<(&'w Worker, &'w Gpu)> {
        let Action::Engine { worker, engine } = self.issued()? else { return None };
        let worker = self.world.workers.get(worker)?;
        let Some(Llm::Ready { report }) = worker.llm() else { return None };
        let stays = |order: &EngineOrder| order.generation == report.generation;
        if engine.as_ref().is_some_and(stays) {
            return None;
        }
        Some((worker, self.world.gpu_of(&worker.id)?))
    }
}

/// E1: what runs has ended, or was told to stop, before its LLM goes.
pub(super) fn no_cut(step: &Step<'_>, found: &mut Found) {
    let Some((worker, gpu)) = step.eviction() else { return };
    let world = step.world;
    let cut = world.units_on(worker).find(|unit| unit.is_live() && unit.class() == TaskClass::Llm);
    let coming = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    let coming = coming.filter(|claim| claim.task.class() == TaskClass::Llm).count();
    if let Some(unit) = cut {
        found.push(format!("the LLM of GPU {} is to go under {}", gpu.key(), unit.key));
    } else if coming > 0 {
        found.push(format!("the LLM of GPU {} is to go under a request that just starts", gpu.key()));
    }
}

/// E2: `never_evict_brain`.
pub(super) fn pinned(step: &Step<'_>, found: &mut Found) {
    let Some((worker, gpu)) = step.eviction() else { return };
    let has_role = step.world.has_brain_role(gpu) && !has_lost_a_gpu(step, worker);
    if has_role && step.world.config.resource_manager.eviction_policy.never_evict_brain {
        found.push(format!("the LLM of GPU {} is pinned and is to go", gpu.key()));
    }
}

/// Whether an LLM goes because a GPU that it is spread to is lost: that is nobody's choice.
fn has_lost_a_gpu(step: &Step<'_>, worker: &Worker) -> bool {
    step.world.gpus_of_llm(worker).any(|gpu| !gpu.is_usable())
}

/// E3: outside exclusive mode.
pub(super) fn residency(step: &Step<'_>, found: &mut Found) {
    let Some((worker, gpu)) = step.eviction() else { return };
    if has_lost_a_gpu(step, worker) {
        return;
    }
    let until = step.world.settled_at(gpu, worker, step.at);
    if until > step.at && step.world.exclusive(step.at).is_none() {
        found.push(format!("the LLM of GPU {} is to go at {} and stays until {until}", gpu.key(), step.at));
    }
}

/// E4: outside exclusive mode, room is made for somebody.
pub(super) fn feasible(step: &Step<'_>, found: &mut Found) {
    let Some((worker, lead)) = step.eviction() else { return };
    let world = step.world;
    if world.exclusive(step.at).is_some() || has_lost_a_gpu(step, worker) {
        return;
    }
    let room = world.gpus_of_llm(worker).find_map(|gpu| {
        let kept = gpu.kept_for.as_ref().filter(|kept| kept.until > step.at)?;
        Some((gpu, world.queue.by_id(&kept.task_id).next()?))
    });
    let Some((gpu, entry)) = room else {
        let key = lead.key();
        return found.push(format!("the LLM of GPU {key} is to go and nobody is named who gets its room"));
    };
    let Some(item) = world.queue.get(entry) else { return };
    if !gpu.has_room_for(&item.shape) || (item.shape.host().is_some() && !world.takes_scripts(gpu)) {
        found.push(format!("GPU {} is freed for {}, which would not fit", gpu.key(), item.task.task_id));
    }
}

/// E5: the waits after failed boots.
pub(super) fn no_boot_too_soon(step: &Step<'_>, found: &mut Found) {
    let Some(Action::Engine { worker, engine: Some(order) }) = step.issued() else { return };
    let Some(gpu) = step.world.gpu_of(worker) else { return };
    if let Some(failure) = gpu.boot_failures.get(&order.model).filter(|failure| failure.again_at > step.at) {
        found.push(format!("{} is to load on GPU {} before {}", order.model, gpu.key(), failure.again_at));
    }
    let held = gpu.facts.total_mib.zip(step.world.llm_mib(&order.model));
    if held.is_some_and(|(total, need)| need > total) {
        found.push(format!("{} is to load on GPU {}, which cannot hold it", order.model, gpu.key()));
    }
}

/// E6: the journal tells why. The sentence stands right before the order.
pub(super) fn said(step: &Step<'_>, found: &mut Found) {
    let Some((worker, lead)) = step.eviction() else { return };
    let last = step.world.said.back().map(|said| &said.saying);
    let why = last.filter(|saying| {
        matches!(
            saying,
            Saying::Evicts { .. }
                | Saying::Swaps { .. }
                | Saying::MakesRoomForBatch { .. }
                | Saying::LosesGpu { .. }
        )
    });
    let about = why.and_then(Saying::gpu);
    let is_told = step.world.gpus_of_llm(worker).any(|gpu| about == Some(gpu.key().as_str()));
    if !is_told {
        found.push(format!("the LLM of GPU {} is to go and nothing says why", lead.key()));
    }
}

/// Y2: only for a chatbot that waits, and only where the job type, the unit and its past allow it.
pub(super) fn yields(step: &Step<'_>, found: &mut Found) {
    let Some(Action::Stop { key, why: StopWhy::Yield, .. }) = step.issued() else { return };
    let world = step.world;
    let Some(unit) = world.units.get(key) else { return };
    if !world.can_yield(unit) {
        found.push(format!("{key} is asked to give way and does not"));
    }
    if let Some(until) = world.yields.in_peace_until(&key.task_id, step.at) {
        found.push(format!("{key} is asked to give way and is left in peace until {until}"));
    }
    let waits = |job_type: &str| job_type == model::task::CHATBOT;
    if !world.queue.lines().any(|(_, line)| line.rows().any(|(row, _)| waits(&row.job_type)))
        && !world.queue.matured(step.at).any(|entry| is_chatbot(step, entry))
    {
        found.push(format!("{key} is asked to give way and no chatbot waits"));
    }
}

fn is_chatbot(step: &Step<'_>, entry: &model::Entry) -> bool {
    step.world.queue.get(entry).is_some_and(|item| item.task.is_chatbot())
}
