//! What tasks of one shape can do with a place, and what it costs to get going there.
//!
//! Not here: when (`walk`).

use model::Millis;

use super::Pace;
use super::place::{Loaded, Place};
use crate::model_choice::choose;
use crate::place::fits;
use crate::shape::{Shape, What};
use crate::world::World;

/// What a shape can do with a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use<'w> {
    /// Nothing.
    No,
    /// Run as a script.
    Script,
    /// Run by an LLM: the model that would be booted, its slots, its boot, and not before when.
    Llm { model: &'w str, parallel: u32, boot: Millis, again_at: Millis },
}

impl<'w> Use<'w> {
    pub(super) fn of(world: &'w World, now: Millis, pace: Pace, shape: &Shape, place: &Place<'w>) -> Self {
        let Some(gpu) = place.gpu else {
            return if shape.in_cpu_lane() && place.worker.is_some() { Self::Script } else { Self::No };
        };
        // One of several GPUs need not be the one that it asks for.
        let fits =
            if shape.needs_several() { world.could_be_one_for(gpu, shape) } else { fits(shape, &gpu.facts) };
        let Some(worker) = place.worker.filter(|_| fits && !shape.in_cpu_lane()) else {
            return Self::No;
        };
        let What::Llm(wanted) = &shape.what else {
            let may = world.takes_scripts(gpu) && (shape.is_wide() || gpu.has_room_for(shape));
            return if may { Self::Script } else { Self::No };
        };
        let loaded = match place.loaded {
            Loaded::Llm(model) => Some(model),
            _ => None,
        };
        let wanted = world.spanning_model(shape).map(|(name, _)| name).or(wanted.as_deref());
        let alone = |choice: &crate::model_choice::Choice| choice.gpus == shape.gpus();
        let Some(choice) = choose(world, gpu, worker, wanted).filter(alone) else {
            // Nothing more could be booted, but what is loaded serves.
            let serves = |model| Self::Llm { model, parallel: 1, boot: Millis::ZERO, again_at: now };
            return loaded.map_or(Self::No, serves);
        };
        let failure = gpu.boot_failures.get(&choice.model);
        let named = world.config.models.get_key_value(&choice.model).map(|(name, _)| name.as_str());
        Self::Llm {
            model: named.unwrap_or(model::config::DEMO_MODEL),
            parallel: choice.parallel,
            boot: pace.of(world.memory.llm_boot(&world.config, &choice.preset, &choice.model)),
            again_at: failure.map_or(now, |failure| failure.again_at),
        }
    }
}
