//! LLMs that are broken, or do not come up: the order is taken back, and somebody else decides what comes next.

use model::{Millis, Saying};

use super::draft::Draft;
use super::span::mind_lost_gpus;
use super::stop::GRACE;
use crate::worker::{Llm, Worker};
use crate::world::World;

pub(super) fn tidy(draft: &mut Draft<'_>) {
    let world = draft.world;
    for desk in 0..draft.desks.len() {
        let worker = draft.desks[desk].worker;
        match worker.llm() {
            Some(Llm::Failed { report }) => {
                let gpu = draft.desks[desk].gpu;
                if let Some(failure) = gpu.boot_failures.get(&report.model) {
                    draft.say(Saying::Fails {
                        gpu: gpu.key(),
                        model: report.model.clone(),
                        error: failure.error.clone(),
                        again_in_s: (failure.again_at - draft.now).as_secs_f64().max(0.0),
                    });
                }
            }
            Some(Llm::Booting { order })
                if boots_until(world, worker).is_some_and(|limit| draft.is_time(limit)) =>
            {
                draft.say(Saying::GivesUpBoot {
                    gpu: draft.desks[desk].gpu.key(),
                    model: order.model.clone(),
                    after_s: (draft.now - worker.engine_at).as_secs_f64(),
                });
            }
            _ => continue,
        }
        draft.order_engine(desk, None);
    }
    mind_lost_gpus(draft);
}

/// When a boot that the worker has not called failed by itself is given up.
pub(crate) fn boots_until(world: &World, worker: &Worker) -> Option<Millis> {
    let order = worker.engine.as_ref()?;
    let preset = world.config.preset(&order.preset).unwrap_or_default();
    Some(worker.engine_at + Millis::from_secs_f64(preset.boot_timeout_s) + GRACE)
}
