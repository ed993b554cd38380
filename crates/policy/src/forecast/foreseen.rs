//! How one waiting task comes to run: when, where, why there, and what makes room for it.
//!
//! Not here: the walk itself, and what the plan would do for it now (`explain`).

use model::explained::Here;
use model::{Entry, Millis};

use super::place::Loaded;
use super::walk::Walk;
use super::{Expected, Pace, joined};
use crate::gpu::Gpu;
use crate::worker::Worker;
use crate::world::World;

/// How a task comes to run.
#[derive(Clone, Debug)]
pub(crate) struct Foreseen<'w> {
    /// When and where.
    pub expected: Expected,
    /// All GPUs that it, or its LLM, has; none in the CPU lane.
    pub gpus: Vec<&'w Gpu>,
    /// Why there; none in the CPU lane.
    pub here: Option<Here>,
    /// The LLM that serves it.
    pub model: Option<String>,
    /// The LLM that leaves for it: key of the GPU, which, and when.
    pub leaves: Option<(String, String, Millis)>,
}

/// How a waiting task comes to run; none where nobody can say.
pub(crate) fn foreseen<'w>(world: &'w World, now: Millis, entry: &Entry) -> Option<Foreseen<'w>> {
    let usual = Walk::new(world, now, Pace::Usual).course(entry)?;
    let slow = Walk::new(world, now, Pace::Slow).course(entry);
    let leaves = usual.leaves.and_then(|at| match usual.found {
        Loaded::Llm(model) => Some((usual.gpu?.key(), model.to_owned(), at)),
        Loaded::Nothing | Loaded::Script(_) => None,
    });
    let here = usual.gpu.map(|gpu| match (usual.found, usual.serves) {
        _ if usual.others == 0 => Here::NoOther,
        (Loaded::Llm(before), Loaded::Llm(model)) if before == model && world.boot_on(gpu).is_some() => {
            Here::LlmLoads { model: model.to_owned() }
        }
        (Loaded::Llm(before), Loaded::Llm(model)) if before == model => {
            Here::LlmLoaded { model: model.to_owned() }
        }
        (Loaded::Script(before), Loaded::Script(host)) if before == host => {
            Here::HostLoaded { script: host.name() }
        }
        (Loaded::Nothing, _) if !usual.was_busy => Here::Idle,
        _ => Here::FreeFirst,
    });
    let model = match usual.serves {
        Loaded::Llm(model) => Some(model.to_owned()),
        Loaded::Nothing | Loaded::Script(_) => None,
    };
    let loaded = match (usual.found, usual.serves) {
        (Loaded::Llm(before), Loaded::Llm(model)) if before == model => Some(model),
        _ => None,
    };
    let lead = usual.gpu.and_then(|gpu| world.llm_worker(gpu));
    let serves = |lead: &&Worker| lead.engine.as_ref().is_some_and(|order| Some(&*order.model) == loaded);
    let gpus = match lead.filter(serves) {
        Some(lead) => world.gpus_of_llm(lead).collect(),
        None => usual.gpu.into_iter().chain(usual.beside).collect(),
    };
    let expected = joined(Some(usual.span), slow.map(|course| course.span))?;
    Some(Foreseen { expected, gpus, here, model, leaves })
}

impl Foreseen<'_> {
    /// Requests that run on a GPU's LLM.
    pub(crate) fn running(world: &World, gpu: &Gpu) -> u64 {
        let worker = world.worker_on(gpu);
        worker.map_or(0, |worker| world.units_on(worker).filter(|unit| unit.is_live()).count() as u64)
    }
}
