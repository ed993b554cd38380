//! One worker for each usable GPU and one for the CPU lane; and those that should go.

use model::GpuUuid;
use model::config::Launcher;

use super::draft::Draft;
use crate::action::Action;
use crate::worker::Worker;
use crate::world::World;

pub(super) fn launch(draft: &mut Draft<'_>) {
    let world = draft.world;
    for worker in world.workers.values().filter(|worker| worker.is_here() && !worker.leave) {
        let waits = worker.again_at.is_some_and(|time| !draft.is_time(time));
        if should_leave(world, worker) && !waits {
            draft.act(Action::Leave { worker: worker.id.clone() });
        }
    }
    if world.down.is_some() || world.config.launcher == Launcher::None || world.inventory.is_none() {
        return;
    }
    // Who has a seat needs no look at all the workers.
    let seatless = world.gpus.values().filter(|gpu| gpu.is_usable() && world.worker_on(gpu).is_none());
    let bare = seatless.filter(|gpu| is_bare(world, Some(&gpu.facts.uuid)));
    let mut lanes: Vec<Option<GpuUuid>> = bare.map(|gpu| Some(gpu.facts.uuid.clone())).collect();
    if is_bare(world, None) {
        lanes.push(None);
    }
    for gpu in lanes {
        let launching = world.launching.get(&gpu);
        for time in launching.into_iter().flat_map(|launching| launching.due_at()) {
            draft.wake(time);
        }
        if launching.is_none_or(|launching| launching.is_due(draft.now)) {
            draft.act(Action::Launch { gpu });
        }
    }
}

/// Whether a GPU, or the CPU lane, has no living worker.
fn is_bare(world: &World, gpu: Option<&GpuUuid>) -> bool {
    !world.workers.values().any(|worker| !worker.dead && worker.gpu.as_ref() == gpu)
}

/// A worker goes when the machine is being freed and it runs nothing.
fn should_leave(world: &World, worker: &Worker) -> bool {
    let live = world.units_on(worker).any(|unit| unit.is_live()) || !worker.claims.is_empty();
    world.down.is_some() && !live
}
