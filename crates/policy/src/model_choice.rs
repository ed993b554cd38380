//! Which model an LLM task gets on a GPU, and which engine loads it.
//!
//! The task's own, else (in `plan::fill`) the LLM that is ready, else the role's, else the first that fits and that the
//! worker can boot, else the demonstration model. Not here: whether anything is booted.

use model::GpuUuid;
use model::config::{DEMO_MODEL, GpuRole, ModelEntry};
use model::link::EngineOrder;

use crate::gpu::Gpu;
use crate::worker::Worker;
use crate::world::World;

/// A model and what loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The engine.
    pub preset: String,
    /// The model.
    pub model: String,
    /// Requests it serves at once.
    pub parallel: u32,
    /// GPUs it is spread over.
    pub gpus: usize,
}

impl Choice {
    /// The order that boots it on this worker, and on these GPUs besides its own.
    pub(crate) fn order(&self, worker: &Worker, beside: Vec<GpuUuid>) -> EngineOrder {
        EngineOrder {
            beside,
            generation: worker.generation + 1,
            preset: self.preset.clone(),
            model: self.model.clone(),
            parallel: self.parallel,
        }
    }
}

/// The model a task gets on this GPU if it has to be booted; `wanted` is the one it insists on.
pub(crate) fn choose(world: &World, gpu: &Gpu, worker: &Worker, wanted: Option<&str>) -> Option<Choice> {
    let Some(name) = wanted else { return own(world, gpu, worker) };
    // What is pinned is its own LLM, whoever asks first.
    if world.has_pinned_role(gpu) && own(world, gpu, worker).is_none_or(|own| own.model != name) {
        return None;
    }
    world.config.models.get(name).and_then(|entry| usable(world, gpu, worker, name, entry))
}

/// The model of a GPU by its role, or that it is paired for by its role; else the first that fits, rather one that needs
/// no other GPU.
fn own(world: &World, gpu: &Gpu, worker: &Worker) -> Option<Choice> {
    let config = &world.config;
    let role = config.role(&gpu.key());
    let of_role = config.models_in_order().filter(|(_, entry)| role.is_some() && entry.role == role);
    let of_pair = config.models_in_order().filter(|(_, entry)| {
        let is_pair =
            entry.spread() > 1 && matches!(entry.role, Some(GpuRole::BrainPrimary | GpuRole::BrainSecondary));
        is_pair && world.has_brain_role(gpu)
    });
    let alone = config.models_in_order().filter(|(_, entry)| entry.spread() == 1);
    let mut models = of_role.chain(of_pair).chain(alone).chain(config.models_in_order());
    models.find_map(|(name, entry)| usable(world, gpu, worker, name, entry)).or_else(|| {
        let can = worker.reports.can.engines.iter().find(|can| can.models.iter().any(|m| m == DEMO_MODEL))?;
        Some(Choice { preset: can.preset.clone(), model: DEMO_MODEL.into(), parallel: 1, gpus: 1 })
    })
}

impl World {
    /// The model that a pinned GPU is for; none where it is not pinned, or nobody can say yet.
    pub(crate) fn pinned_model(&self, gpu: &Gpu) -> Option<String> {
        if !self.has_pinned_role(gpu) {
            return None;
        }
        own(self, gpu, self.worker_on(gpu)?).map(|own| own.model)
    }
}

/// Whether some worker could boot a model that a task insists on; `None` while not all have said what they can.
pub(crate) fn exists_somewhere(world: &World, name: &str) -> Option<bool> {
    let mut workers = world.workers.values().filter(|worker| !worker.dead && worker.gpu.is_some());
    let found = world
        .config
        .models
        .get(name)
        .is_some_and(|entry| workers.any(|worker| preset_of(world, worker, name, entry).is_some()));
    if found {
        return Some(true);
    }
    (world.all_can_is_known() && world.no_engine().is_none()).then_some(false)
}

fn usable(world: &World, gpu: &Gpu, worker: &Worker, name: &str, entry: &ModelEntry) -> Option<Choice> {
    let fits = match (entry.share_mib(), gpu.facts.total_mib) {
        (Some(need), Some(total)) => need <= total,
        _ => true,
    };
    let preset = preset_of(world, worker, name, entry).filter(|_| fits)?;
    let (parallel, gpus) = (entry.parallel.unwrap_or(1).max(1), entry.spread() as usize);
    Some(Choice { preset, model: name.to_owned(), parallel, gpus })
}

/// The engine by which this worker would load the model: the model's own, else the configuration's, else the first.
pub(crate) fn preset_of(world: &World, worker: &Worker, name: &str, entry: &ModelEntry) -> Option<String> {
    let stated = entry.engine.as_deref().filter(|engine| *engine != "auto");
    let stated = stated.or(Some(world.config.engine.as_str()).filter(|engine| *engine != "auto"));
    let mut able =
        worker.reports.can.engines.iter().filter(|can| can.models.iter().any(|model| model == name));
    match stated {
        Some(engine) => able.find(|can| can.preset == engine),
        None => able.next(),
    }
    .map(|can| can.preset.clone())
}
