//! The first in line of each class that does not start now, and why.

use model::{Reason, Saying, TaskClass};

use super::draft::Draft;
use crate::order::{Arrival, Urgency};
use crate::queue::Queued;
use crate::turn::TurnKey;
use crate::unit::Told;
use crate::why::reason_of;

/// A place in the one order, turns included.
type Place = (Urgency, TurnKey, Arrival);

pub(super) fn heads(draft: &mut Draft<'_>) {
    let world = draft.world;
    for class in TaskClass::ALL {
        let mut first: Option<(Place, &Queued)> = None;
        let mut paused_item = None;
        for (shape, line) in draft.front.iter().filter(|(shape, _)| shape.class() == class) {
            let grants = draft.grants(shape.in_cpu_lane());
            for (key, row) in line.rows() {
                let waits = row.values().find(|entry| !draft.spoken_for.contains(*entry));
                let Some(item) = waits.and_then(|entry| world.queue.get(entry)) else { continue };
                let rank = item.rank(world.ageing(), draft.now);
                let place = (rank.urgency, world.turns.key(grants, &key.job_type), rank.arrival);
                if first.as_ref().is_none_or(|(best, _)| place < *best) {
                    first = Some((place, item));
                }
            }
        }
        if first.is_none() {
            let paused = world.queue.paused_front().filter(|(shape, _)| shape.class() == class);
            let rows = paused.flat_map(|(_, line)| line.rows());
            let waits = rows.filter_map(|(_, row)| row.iter().next()).min();
            paused_item = waits.and_then(|(_, entry)| world.queue.get(entry));
        }
        let parked = || world.queue.first_parked(class).filter(|entry| !draft.spoken_for.contains(*entry));
        let item = first.map(|(_, item)| item).or(paused_item).or_else(|| world.queue.get(parked()?));
        if let Some(item) = item {
            let reason = reason_of(world, draft.now, item);
            let waits = class == TaskClass::Script && matches!(reason, Reason::WaitingForGpu { .. });
            let slots_are_used =
                || world.units.values().any(|unit| unit.is_live() && unit.told == Told::Assigned);
            if waits && !item.said_busy && world.down.is_none() && slots_are_used() {
                draft.say(Saying::AllBusy { task: item.task.task_id.clone() });
            }
            draft.head(item.task.task_id.clone(), reason);
        }
    }
    if let Some(exclusive) = &draft.exclusive {
        let over = exclusive.batch.heard_at + crate::batch::UNSEEN_ITEMS_GRACE;
        draft.wake(over);
    }
}
