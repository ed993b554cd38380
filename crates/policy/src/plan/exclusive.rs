//! Makes room for an exclusive batch: as many LLMs go as items wait that could run in their place.

use std::cmp::Reverse;

use model::link::StopWhy;
use model::{GpuState, Millis};

use super::draft::Draft;
use crate::queue::Shape;

pub(super) fn make_room(draft: &mut Draft<'_>) {
    let world = draft.world;
    let Some(exclusive) = &draft.exclusive else { return };
    let batch = exclusive.batch;
    let waiting: Vec<(&Shape, u64)> = world
        .queue
        .lines()
        .filter(|(shape, _)| !shape.in_cpu_lane() && exclusive.has(shape.batch.as_ref()))
        .filter(|(shape, _)| world.misfit(shape).is_none())
        .map(|(shape, line)| (shape, line.len()))
        .collect();
    let drained_at =
        batch.since + Millis::from_secs_f64(world.config.resource_manager.batch_settings.drain_s);
    let mut need: u64 = waiting.iter().map(|(_, count)| count).sum();
    let free = |state: GpuState| matches!(state, GpuState::Idle | GpuState::Cooling);
    let coming = draft.desks.iter().filter(|desk| {
        free(desk.state)
            && desk.load == 0
            && !desk.taken
            && desk.llm.is_none()
            && world.takes_scripts(desk.gpu)
    });
    need = need.saturating_sub(coming.count() as u64);

    let mut loaded: Vec<usize> = (0..draft.desks.len())
        .filter(|at| {
            let desk = &draft.desks[*at];
            let serves = waiting.iter().any(|(shape, _)| desk.gpu.has_room_for(shape));
            desk.llm.is_some() && !desk.taken && serves && world.takes_scripts(desk.gpu)
        })
        .collect();
    // Those that run nothing go first; among the rest, those that run least.
    loaded.sort_by_key(|at| (draft.desks[*at].load, Reverse(draft.desks[*at].gpu.idle_since)));
    for at in loaded {
        if need == 0 {
            return;
        }
        need -= 1;
        if draft.desks[at].load == 0 {
            draft.order_engine(at, None);
        } else if draft.is_time(drained_at) {
            let worker = draft.desks[at].worker;
            for unit in world.units_on(worker).filter(|unit| unit.is_live() && unit.stop.is_none()) {
                draft.stop(&worker.id, &unit.key, StopWhy::TakenBack);
            }
        }
    }
}
