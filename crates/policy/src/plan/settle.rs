//! What is over is put away: finished, requeued or failed.

use super::draft::Draft;
use crate::action::Action;
use crate::retry::{Verdict, verdict};

pub(super) fn settle(draft: &mut Draft<'_>) {
    let world = draft.world;
    for unit in world.units.values().filter(|unit| unit.closing.is_none()) {
        let Some(verdict) = verdict(world, unit) else { continue };
        if let Some(time) = unit.again_at
            && !draft.is_time(time)
        {
            continue;
        }
        let (worker, key) = (unit.worker.clone(), unit.key.clone());
        draft.act(match verdict {
            Verdict::Finish => Action::Finish { worker, key },
            Verdict::Requeue { task, error, charged, back_off } => {
                Action::Requeue { worker, key, task, error, charged, back_off }
            }
            Verdict::Fail(error) => Action::Fail { worker, key, task: unit.task.clone(), error },
        });
    }
}
