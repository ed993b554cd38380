//! After a second of running, people see it in `processing/`; short tasks do not pay for that.

use model::Millis;

use super::draft::Draft;
use crate::action::Action;

const SHOWN_AFTER: Millis = Millis::from_secs(1);

pub(super) fn show(draft: &mut Draft<'_>) {
    let world = draft.world;
    for unit in world.units.values().filter(|unit| !unit.shown) {
        let Some(since) = unit.running_since() else { continue };
        if draft.is_time(since + SHOWN_AFTER) {
            let gpu = world.gpu_of(&unit.worker);
            draft.act(Action::ShowRunning {
                task: unit.task.clone(),
                gpu: gpu.map(crate::gpu::Gpu::key),
                gpu_uuid: gpu.map(|gpu| gpu.facts.uuid.clone()),
                since,
            });
        }
    }
}
