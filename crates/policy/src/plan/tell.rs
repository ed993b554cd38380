//! What is said of slots: how many there are, and who takes and leaves one. Each is said once.
//!
//! Tasks that take no time are not told of: two lines for a few milliseconds of work would be most of the work.

use std::collections::BTreeMap;

use model::{GpuUuid, Saying};

use super::draft::Draft;
use super::scripts::AHEAD;
use crate::gpu::Gpu;
use crate::unit::{Phase, Told, Unit};
use crate::world::World;

pub(super) fn tell(draft: &mut Draft<'_>) {
    slots(draft);
    let world = draft.world;
    for (script, over) in world.over_their_need.iter().filter(|(_, over)| !over.said) {
        let (script, gpu) = (script.clone(), over.gpu.clone());
        let (used_mib, counted_mib) = (over.used_mib, over.counted_mib);
        draft.say(Saying::OverItsNeed { gpu, script, used_mib, counted_mib });
    }
    let mut used: BTreeMap<&GpuUuid, u32> = BTreeMap::new();
    let on_a_gpu = |unit: &&Unit| unit.shape.host().is_some() && world.gpu_of(&unit.worker).is_some();
    for unit in world.units.values().filter(|unit| unit.told == Told::Assigned && unit.is_live()) {
        if let Some(gpu) = world.gpu_of(&unit.worker) {
            *used.entry(&gpu.facts.uuid).or_default() += 1;
        }
    }
    let over = world.units.values().filter(|unit| unit.told == Told::Assigned && !unit.is_live());
    let over: Vec<(&Unit, &Gpu)> =
        over.filter(on_a_gpu).filter_map(|unit| Some((unit, world.gpu_of(&unit.worker)?))).collect();
    for (_, gpu) in &over {
        *used.entry(&gpu.facts.uuid).or_default() += 1;
    }
    for (unit, gpu) in over {
        let count = used.entry(&gpu.facts.uuid).or_default();
        *count -= 1;
        let left = *count;
        draft.say(released(world, unit, gpu, left));
    }
    let mut new: Vec<&Unit> =
        world.units.values().filter(|unit| unit.told == Told::Nothing && unit.is_live()).collect();
    new.retain(|unit| on_a_gpu(unit) && !is_short(world, unit));
    new.sort_by_key(|unit| (unit.ordered_at, &unit.key));
    for unit in new {
        let Some(gpu) = world.gpu_of(&unit.worker) else { continue };
        let count = used.entry(&gpu.facts.uuid).or_default();
        *count += 1;
        let (used, slots) = (*count, slots_of(world, unit, gpu).max(*count));
        draft.say(Saying::Assigned { task: unit.key.task_id.clone(), gpu: gpu.key(), used, slots });
    }
}

fn is_short(world: &World, unit: &Unit) -> bool {
    let name = crate::learn::run_name(&world.config, &unit.task, None);
    world.memory.run_by_name(&name).is_some_and(|run| run.p50 <= AHEAD)
}

fn slots_of(world: &World, unit: &Unit, gpu: &Gpu) -> u32 {
    if unit.shape.is_wide() {
        return 1;
    }
    world.slots_max(gpu, world.worker_on(gpu), Some(&unit.shape)).unwrap_or(1)
}

fn released(world: &World, unit: &Unit, gpu: &Gpu, used: u32) -> Saying {
    let (task, gpu_key, slots) = (unit.key.task_id.clone(), gpu.key(), slots_of(world, unit, gpu).max(used));
    let how = match &unit.phase {
        Phase::Over { outcome, .. } => match outcome.failure {
            None => return Saying::Released { task, gpu: gpu_key, used, slots },
            Some(_) if outcome.stopped && !unit.cancelled => "stopped".to_owned(),
            Some(class) => format!("failed ({})", class.name()),
        },
        Phase::Lost { .. } => "lost with its worker".into(),
        Phase::NeverStarted | Phase::Ordered | Phase::Running { .. } => "taken back before it began".into(),
    };
    Saying::Freed { task, how, gpu: gpu_key, used, slots }
}

/// How many slots there are, when that is first known and when it changes: of `vram_per_job_mb` each.
fn slots(draft: &mut Draft<'_>) {
    let world = draft.world;
    if world.slots_told || world.inventory.is_none() || world.down.is_some() {
        return;
    }
    let mut gpus: Vec<&Gpu> = world.gpus.values().filter(|gpu| gpu.is_usable()).collect();
    gpus.sort_by_key(|gpu| gpu.facts.index);
    let mut all = 0;
    for gpu in &gpus {
        let (key, name, slots) = (gpu.key(), gpu.facts.name.clone(), world.slots_declared(gpu));
        all += slots;
        draft.say(match gpu.facts.total_mib {
            Some(total_mib) => Saying::Slots { gpu: key, name, total_mib, slots },
            None => Saying::OneSlot { gpu: key, name },
        });
    }
    draft.say(Saying::AllSlots { slots: all, gpus: gpus.len() });
}
