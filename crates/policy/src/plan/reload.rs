//! LLMs that are loaded without a task asking: those of `brain_*` roles, and those that made room for a batch. What has
//! to be read from the disk at the same time is bounded: each end of a load is an event, and the next one follows.

use std::collections::BTreeSet;

use super::draft::Draft;
use super::span::load;
use crate::batch::UNSEEN_ITEMS_GRACE;
use crate::model_choice::choose;

pub(super) fn reload(draft: &mut Draft<'_>) {
    let world = draft.world;
    let wanted = world.config.resource_manager.batch_settings.reload_llms_after_batch;
    let mut loading: BTreeSet<String> = world.loading_models().into_iter().map(str::to_owned).collect();
    loading.extend(draft.desks.iter().filter_map(|desk| Some(desk.promised.as_ref()?.model.clone())));
    for at in 0..draft.desks.len() {
        let desk = &draft.desks[at];
        if !desk.is_idle() || desk.is_kept_from(None) || desk.reserved {
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
        // Loads of one model are one reading of the disk; of different ones only so many go on at a time.
        let has_turn = loading.contains(&choice.model) || loading.len() < world.loads_at_a_time();
        let may = has_turn && again_at.is_none_or(|time| draft.is_time(time));
        if may && load(draft, at, &choice) {
            loading.insert(choice.model);
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
