//! Laws of a choice: where something starts, and what it finds there.

use model::config::RamWaitOver;
use model::link::HostOrder;
use model::{GpuUuid, Millis};

use super::{Found, Step};
use crate::action::Action;
use crate::gpu::Gpu;
use crate::place;
use crate::room::Room;
use crate::shape::{Shape, What};
use crate::worker::{Llm, Worker};
use crate::world::World;

/// P2: capability, the wish of the task, roles, health; the worker lives and obeys.
pub(super) fn can_run(step: &Step<'_>, found: &mut Found) {
    let world = step.world;
    let Some(action) = step.issued() else { return };
    if let Action::Start { worker, .. } | Action::Engine { worker, .. } | Action::Hosts { worker, .. } =
        action
    {
        let Some(to) = world.workers.get(worker) else { return };
        if !to.serves() {
            found.push(format!("{action:?}, and that worker obeys no more"));
        }
        if let Some(gpu) = world.gpu_of(worker) {
            // Its other GPUs are freed by it.
            let frees_others =
                matches!(action, Action::Engine { engine: None, .. }) && !to.beside().is_empty();
            if !gpu.is_usable() && !frees_others {
                found.push(format!("{action:?}, and GPU {} is {:?}", gpu.key(), gpu.health));
            }
            if gpu.worker.as_ref() != Some(worker) {
                found.push(format!("{action:?}, and GPU {} has another worker", gpu.key()));
            }
        }
    }
    let Some(start) = step.start() else { return };
    let shape = &start.queued.shape;
    if let Action::Start { gpus, .. } = action {
        let usable = gpus.iter().filter(|uuid| world.gpus.get(*uuid).is_some_and(Gpu::is_usable)).count();
        if usable < gpus.len() || (shape.is_wide() && gpus.len() != shape.gpus()) {
            found.push(format!("{} starts on {usable} usable GPUs of {gpus:?}", start.task.task_id));
        }
    }
    match world.gpu_of(start.worker) {
        None if !shape.in_cpu_lane() => found.push(format!("{} starts in the CPU lane", start.task.task_id)),
        Some(gpu) if shape.in_cpu_lane() || !fits_on(world, shape, gpu) => {
            found.push(format!("{} starts on GPU {}, where it does not fit", start.task.task_id, gpu.key()));
        }
        Some(gpu) if shape.host().is_some() && is_pinned(world, gpu) => {
            found.push(format!("{} starts on GPU {}, which takes no scripts", start.task.task_id, gpu.key()));
        }
        _ => {}
    }
}

/// Whether it may run there: by the LLM of that GPU, which may have others as well, or on the GPU itself.
fn fits_on(world: &World, shape: &Shape, gpu: &Gpu) -> bool {
    match shape.what {
        What::Llm(_) => world.llm_is_for(shape, gpu),
        What::Script(_) => place::fits(shape, &gpu.facts),
    }
}

/// Whether a GPU is the orchestrating LLM's alone, as the settings say it.
fn is_pinned(world: &World, gpu: &Gpu) -> bool {
    world.has_brain_role(gpu) && world.config.resource_manager.eviction_policy.never_evict_brain
}

/// P3: the LLM of that worker is ready, the right one, and has room for one more request.
pub(super) fn free_slot(step: &Step<'_>, found: &mut Found) {
    let world = step.world;
    let Some(start) = step.start() else { return };
    let What::Llm(wanted) = &start.queued.shape.what else { return };
    let (id, worker) = (&start.task.task_id, world.workers.get(start.worker));
    let Some(Llm::Ready { report }) = worker.and_then(Worker::llm) else {
        return found.push(format!("{id} starts on {}, whose LLM is not ready", start.worker));
    };
    if wanted.as_ref().is_some_and(|wanted| *wanted != report.model) {
        found.push(format!("{id} wants {wanted:?} and gets {}", report.model));
    }
    let requests = worker.map_or(0, |worker| requests_on(world, worker));
    if requests >= report.parallel.max(1) as usize {
        found.push(format!("{id} is one too many beside {requests} on {}", start.worker));
    }
}

/// LLM requests that run on a worker, or are about to.
fn requests_on(world: &World, worker: &Worker) -> usize {
    let live = world.units_on(worker).filter(|unit| unit.is_live() && unit.shape.host().is_none()).count();
    let claims = worker.claims.iter().filter_map(|entry| world.claims.get(entry));
    live + claims.filter(|claim| claim.queued.shape.host().is_none()).count()
}

/// P4: hosts that come fit beside what stays; a script that finds no host that may stay fits beside what is there.
pub(super) fn memory(step: &Step<'_>, found: &mut Found) {
    let world = step.world;
    let Some(Action::Hosts { worker, hosts }) = step.issued() else { return };
    let (Some(worker), Some(gpu)) = (world.workers.get(worker), world.gpu_of(worker)) else { return };
    let grows = hosts.iter().any(|order| order.count > kept(worker, order));
    let room = Room::of(world, gpu, Some(worker)).with_hosts(world, hosts);
    if grows && room.is_overdrawn() {
        let lines = &room.lines;
        found.push(format!(
            "GPU {} is to keep {hosts:?}, which its memory does not hold: {lines:?}",
            gpu.key()
        ));
    }
}

fn kept(worker: &Worker, order: &HostOrder) -> u32 {
    let same = |before: &&HostOrder| before.script == order.script && before.model == order.model;
    worker.hosts.iter().filter(same).map(|before| before.count).sum()
}

/// For whom an LLM made room on a GPU, if that waits for one alone: of those that are kept for a task of several others
/// know more. Who came back at this very instant may have done so by the same plan, which did not know of it.
fn beneficiary<'w>(world: &'w World, gpu: &Gpu, at: Millis) -> Option<&'w Shape> {
    let kept = gpu.kept_for.as_ref().filter(|kept| at < kept.until)?;
    let entry = world.queue.by_id(&kept.task_id).next()?;
    world
        .queue
        .get(entry)
        .filter(|item| item.seen_at < at && !item.shape.needs_several())
        .map(|item| &item.shape)
}

/// P5: while it waits, at most until the time that was said. Exclusive mode lends a GPU to a chatbot whoever waits for it.
pub(super) fn kept_room(step: &Step<'_>, found: &mut Found) {
    let world = step.world;
    let Some(action) = step.issued().filter(|_| world.exclusive(step.at).is_none()) else { return };
    let (Action::Start { worker, .. } | Action::Engine { worker, engine: Some(_) }) = action else { return };
    let Some(gpu) = world.gpu_of(worker) else { return };
    let Some(shape) = beneficiary(world, gpu, step.at) else { return };
    let mine = match action {
        Action::Engine { engine: Some(order), .. } => {
            matches!(&shape.what, What::Llm(wanted) if wanted.as_ref().is_none_or(|model| *model == order.model))
        }
        _ => step.start().is_none_or(|start| start.queued.shape == *shape || is_ready(world, worker)),
    };
    if !mine {
        let what = match action {
            Action::Start { task, .. } => task.task_id.to_string(),
            _ => "an LLM".to_owned(),
        };
        found.push(format!("{what} is given GPU {}, which is kept for {shape:?}", gpu.key()));
    }
}

/// Whether an LLM serves there: room that was made for a request is used once that is loaded.
fn is_ready(world: &World, worker: &model::WorkerId) -> bool {
    world.workers.get(worker).is_some_and(|worker| matches!(worker.llm(), Some(Llm::Ready { .. })))
}

/// P6: the wait of `ram_wait_s` begins anew with the start that ends it, which is therefore the first at its instant.
pub(super) fn ram_guard(step: &Step<'_>, found: &mut Found) {
    let world = step.world;
    let (Some(start), Some(free)) = (step.start(), world.low_ram()) else { return };
    if start.queued.shape.host().is_none() {
        return;
    }
    let id = &start.task.task_id;
    if world.ram_wait.is_none_or(|wait| wait.since < step.at) {
        return found.push(format!("{id} starts with {free} MiB of memory, and its wait is not over"));
    }
    let guarded = world.config.resource_manager.ram_wait_over == RamWaitOver::Guarded;
    let runs = world.units.values().any(|unit| unit.is_live())
        || world.claims.values().any(|claim| claim.at < step.at);
    if guarded && runs {
        found
            .push(format!("{id} starts with {free} MiB of memory while something runs that could free some"));
    }
    let scripts =
        world.claims.values().filter(|claim| claim.at == step.at && claim.queued.shape.host().is_some());
    if scripts.count() > 0 {
        found.push(format!("{id} is the second to start with {free} MiB of memory"));
    }
}

/// I7: no worker lives there, no launch is under way, and the last one is long enough ago.
pub(super) fn one_launch(step: &Step<'_>, found: &mut Found) {
    let world = step.world;
    let Some(Action::Launch { gpu }) = step.issued() else { return };
    let name =
        |gpu: &Option<GpuUuid>| gpu.as_ref().map_or("the CPU lane".to_owned(), |uuid| format!("GPU {uuid}"));
    if let Some(worker) = world.workers.values().find(|worker| !worker.dead && worker.gpu == *gpu) {
        found.push(format!("{} is launched for and has worker {}", name(gpu), worker.id));
    }
    if world.launching.get(gpu).is_some_and(|launching| !launching.is_due(step.at)) {
        found.push(format!("{} is launched for too soon", name(gpu)));
    }
    if gpu.as_ref().is_some_and(|uuid| !world.gpus.get(uuid).is_some_and(Gpu::is_usable)) {
        found.push(format!("{} is launched for and cannot be used", name(gpu)));
    }
}
