//! LLMs that are loaded without a task asking: those of `brain_*` roles, and those that made room for a batch.

use super::draft::Draft;
use super::fill::boot_on;
use crate::batch::UNSEEN_ITEMS_GRACE;
use crate::model_choice::choose;

pub(super) fn reload(draft: &mut Draft<'_>) {
    let world = draft.world;
    let wanted = world.config.resource_manager.batch_settings.reload_llms_after_batch;
    for at in 0..draft.desks.len() {
        let desk = &draft.desks[at];
        if !desk.is_idle() {
            continue;
        }
        let (gpu, worker) = (desk.gpu, desk.worker);
        let model = match &gpu.reload {
            _ if world.has_brain_role(gpu) => None,
            Some(model) if wanted => Some(model.as_str()),
            _ => continue,
        };
        if items_may_still_come(draft) && !world.has_brain_role(gpu) {
            continue;
        }
        // The demonstration model cannot be asked for by name; it is what a worker loads that has nothing else.
        let Some(choice) = choose(world, gpu, worker, model).or_else(|| choose(world, gpu, worker, None))
        else {
            continue;
        };
        let again_at = gpu.boot_failures.get(&choice.model).map(|failure| failure.again_at);
        if again_at.is_none_or(|time| draft.is_time(time)) {
            boot_on(draft, at, Some(choice.order(worker)));
        }
    }
}

/// Whether an exclusive batch expects items that nobody has seen: then an idle GPU is about to be needed.
fn items_may_still_come(draft: &mut Draft<'_>) -> bool {
    let world = draft.world;
    let Some(exclusive) = &draft.exclusive else { return false };
    let due: Vec<_> = exclusive
        .batches
        .iter()
        .filter_map(|id| world.batches.get(*id))
        .filter(|batch| world.batch_is_unseen(batch, draft.now))
        .map(|batch| batch.heard_at + UNSEEN_ITEMS_GRACE)
        .collect();
    for time in &due {
        draft.wake(*time);
    }
    !due.is_empty()
}
