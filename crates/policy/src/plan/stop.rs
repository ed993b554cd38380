//! What runs and should not: cancelled, past its time limit, superfluous, or in the way of going down.

use model::link::StopWhy;
use model::{GpuUuid, Millis, TaskClass};

use super::draft::Draft;
use crate::unit::{Phase, Unit};
use crate::world::{Down, World};

/// How long the mind waits beyond a limit that the worker itself keeps, before it believes that the worker does not.
pub(crate) const GRACE: Millis = Millis::from_secs(30);

pub(super) fn stop(draft: &mut Draft<'_>) {
    let world = draft.world;
    for unit in world.units.values().filter(|unit| unit.is_live()) {
        if let Some(time) = unit.again_at
            && !draft.is_time(time)
        {
            continue;
        }
        if let Some(why) = reason_to_stop(draft, unit).filter(|why| outranks(*why, unit.stop)) {
            draft.stop(&unit.worker, &unit.key, why);
        }
    }
}

/// A person's word replaces a softer stop that is already under way; nothing else is repeated.
fn outranks(why: StopWhy, before: Option<StopWhy>) -> bool {
    match before {
        None => true,
        Some(StopWhy::TakenBack) => why == StopWhy::Cancel,
        Some(StopWhy::Yield) => why != StopWhy::Yield,
        Some(StopWhy::Cancel | StopWhy::Timeout | StopWhy::Superfluous) => false,
    }
}

fn reason_to_stop(draft: &mut Draft<'_>, unit: &Unit) -> Option<StopWhy> {
    let world = draft.world;
    if unit.cancelled {
        return Some(StopWhy::Cancel);
    }
    if is_superfluous(world, unit) {
        return Some(StopWhy::Superfluous);
    }
    if let Some(limit) = ends_by(world, unit)
        && draft.is_time(limit)
    {
        return Some(StopWhy::Timeout);
    }
    if waits_for_nothing(world, unit) || has_lost_a_gpu(world, unit) {
        return Some(StopWhy::TakenBack);
    }
    if let Some(down) = world.down
        && draft.is_time(units_stop_at(world, down))
    {
        return Some(StopWhy::TakenBack);
    }
    None
}

/// Whether it was ordered of an LLM that died, or was unloaded, before it could begin there. While it stays no other
/// LLM is booted for it: nobody but a queue asks for one.
fn waits_for_nothing(world: &World, unit: &Unit) -> bool {
    let has_engine = world.workers.get(&unit.worker).is_none_or(|worker| worker.engine.is_some());
    unit.phase == Phase::Ordered && unit.class() == TaskClass::Llm && !has_engine
}

/// Whether one of several GPUs that it has, or that its LLM has, is not to be used any more.
fn has_lost_a_gpu(world: &World, unit: &Unit) -> bool {
    let is_lost = |uuid: &GpuUuid| world.gpus.get(uuid).is_some_and(|gpu| !gpu.is_usable());
    let of_llm = || {
        let lead = world.workers.get(&unit.worker).filter(|_| unit.class() == TaskClass::Llm);
        lead.is_some_and(|lead| {
            let beside = lead.beside();
            !beside.is_empty() && lead.gpu.iter().chain(&beside).any(is_lost)
        })
    };
    unit.beside.iter().any(is_lost) || of_llm()
}

/// When units are stopped that still run while the machine is being freed.
fn units_stop_at(world: &World, down: Down) -> Millis {
    if down.now {
        return down.asked_at;
    }
    let time = (down.deadline - down.asked_at).as_secs_f64().max(0.0);
    down.asked_at + Millis::from_secs_f64(time * world.config.shutdown.running_share)
}

/// Whether a later attempt of the same task is under way: at most one may live.
fn is_superfluous(world: &World, unit: &Unit) -> bool {
    world.attempts_of(&unit.key.task_id).any(|key| key.attempt > unit.key.attempt)
}

/// When its time is up.
fn ends_by(world: &World, unit: &Unit) -> Option<Millis> {
    let timing = &world.config.timing;
    match unit.phase {
        Phase::Running { since } => {
            let of_scripts = Some(timing.script_timeout_s).filter(|s| *s > 0.0);
            let of_scripts = of_scripts.filter(|_| unit.class() == TaskClass::Script);
            unit.task.timeout_s.or(of_scripts).map(|s| since + Millis::from_secs_f64(s))
        }
        // The worker limits the load of a host; this is for one that does not come to it.
        Phase::Ordered if unit.class() == TaskClass::Script && world.gpu_of(&unit.worker).is_some() => {
            Some(unit.ordered_at + Millis::from_secs_f64(timing.host_boot_timeout_s) + GRACE)
        }
        _ => None,
    }
}
