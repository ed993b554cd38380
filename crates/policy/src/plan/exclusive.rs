//! Makes room for an exclusive batch: as many LLMs go as items wait that could run in their place.

use std::cmp::Reverse;

use model::link::StopWhy;
use model::{GpuState, Millis, Saying};

use super::draft::{Desk, Draft};
use crate::exclusive::Exclusive;
use crate::shape::Shape;

/// Items of exclusive batches that wait for a GPU; one that needs several counts as so many.
pub(super) fn items_waiting<'w>(draft: &Draft<'w>, exclusive: &Exclusive<'_>) -> Vec<(&'w Shape, u64)> {
    let world = draft.world;
    let lines = draft.front.iter().copied();
    let of_batch = lines.filter(|(shape, _)| !shape.in_cpu_lane() && exclusive.has(shape.batch.as_ref()));
    let fitting = of_batch.filter(|(shape, _)| world.misfit(shape).is_none());
    fitting.map(|(shape, line)| (shape, line.len() * shape.gpus() as u64)).collect()
}

pub(super) fn make_room(draft: &mut Draft<'_>) {
    let world = draft.world;
    let Some(exclusive) = &draft.exclusive else { return };
    let batch = exclusive.batch;
    let waiting = items_waiting(draft, exclusive);
    // Counted anew where the mode begins anew, as after a pause.
    let began = world.exclusive_since.map_or(batch.since, |since| since.max(batch.since));
    let drained_at = began + Millis::from_secs_f64(world.config.resource_manager.batch_settings.drain_s);
    let items: u64 = waiting.iter().map(|(_, count)| count).sum();
    let batch = batch.facts.batch_id.clone();
    let mut need = items;
    let free = |state: GpuState| matches!(state, GpuState::Idle | GpuState::Cooling);
    let coming = draft.desks.iter().filter(|desk| {
        free(desk.state)
            && desk.load == 0
            && !desk.taken
            && desk.llm.is_none()
            && world.takes_scripts(desk.gpu)
    });
    need = need.saturating_sub(coming.count() as u64);

    // A GPU that left stays away, unless something came back that no other could run.
    let stays = |desk: &Desk<'_>| world.takes_scripts(desk.gpu) && !world.has_left(desk.gpu);
    let runs = |shape: &Shape| draft.desks.iter().any(|desk| stays(desk) && desk.gpu.has_room_for(shape));
    let all_can_run = waiting.iter().all(|(shape, _)| runs(shape));
    let mut loaded: Vec<usize> = (0..draft.desks.len())
        .filter(|at| {
            let desk = &draft.desks[*at];
            let serves = waiting.iter().any(|(shape, _)| desk.gpu.has_room_for(shape));
            let may_go = stays(desk) || (!all_can_run && world.takes_scripts(desk.gpu));
            desk.llm.is_some() && !desk.taken && serves && may_go
        })
        .collect();
    // Those that run nothing go first; among the rest, those that run least.
    loaded.sort_by_key(|at| (draft.desks[*at].load, Reverse(draft.desks[*at].gpu.idle_since)));
    for at in loaded {
        if need == 0 {
            return;
        }
        need -= 1;
        if draft.desks[at].taken {
            // It goes with another GPU of its LLM.
            continue;
        }
        let desk = &draft.desks[at];
        let Some(model) = desk.llm.as_ref().map(|llm| llm.model.to_owned()) else { continue };
        let gpu = desk.gpu.key();
        if desk.load == 0 {
            draft.say(Saying::MakesRoomForBatch { gpu, model, batch: batch.clone(), items });
            draft.order_engine(at, None);
        } else if draft.is_time(drained_at) {
            let waited_s = (draft.now - began).as_secs_f64();
            let batch = batch.clone();
            take_back(draft, at, |tasks| Saying::TakesBack { gpu, model, batch, tasks, waited_s });
        }
    }
}

/// Takes back what runs on a desk and was not told to stop yet, and says so of so many.
fn take_back(draft: &mut Draft<'_>, at: usize, saying: impl FnOnce(u64) -> Saying) {
    let worker = draft.desks[at].worker;
    let units = draft.world.units_on(worker).filter(|unit| unit.is_live() && unit.stop.is_none());
    let units: Vec<_> = units.filter(|unit| !draft.is_stopping(&unit.key)).collect();
    if units.is_empty() {
        return;
    }
    draft.say(saying(units.len() as u64));
    for unit in units {
        draft.stop(&unit.worker, &unit.key, StopWhy::TakenBack);
    }
}
