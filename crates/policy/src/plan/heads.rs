//! The first in line of each class that does not start now, and why.

use model::TaskClass;

use super::draft::Draft;
use crate::queue::{Queued, Rank};
use crate::why::reason_of;

pub(super) fn heads(draft: &mut Draft<'_>) {
    let world = draft.world;
    for class in TaskClass::ALL {
        let mut first: Option<(Rank, &Queued)> = None;
        for (_, line) in world.queue.lines().filter(|(shape, _)| shape.class() == class) {
            let waits = line.in_order().find(|(_, entry)| !draft.spoken_for.contains(*entry));
            if let Some((rank, entry)) = waits
                && first.is_none_or(|(best, _)| rank < best)
                && let Some(item) = world.queue.get(entry)
            {
                first = Some((rank, item));
            }
        }
        let parked = || world.queue.first_parked(class).filter(|entry| !draft.spoken_for.contains(*entry));
        let item = first.map(|(_, item)| item).or_else(|| world.queue.get(parked()?));
        if let Some(item) = item {
            let (reason, _) = reason_of(world, draft.now, item);
            draft.head(item.task.task_id.clone(), reason);
        }
    }
    if let Some(exclusive) = &draft.exclusive {
        let over = exclusive.batch.heard_at + crate::batch::UNSEEN_ITEMS_GRACE;
        draft.wake(over);
    }
}
