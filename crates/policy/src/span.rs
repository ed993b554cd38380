//! LLMs that are spread over several GPUs: which GPUs those are, and which models need it.
//!
//! Such an LLM is one engine of one worker, whose GPU is its *lead*. The others belong to it as long as it is there, from
//! the order that boots it to the report that it has gone: they show its state, nothing else is loaded on them, and what
//! sends it away frees all of them. Its requests are the lead's. Not here: when it is loaded and where (`plan::span`), and
//! tasks that have several GPUs for themselves (`wide`).

use std::collections::BTreeSet;

use model::config::{GpuRole, ModelEntry};
use model::{GpuUuid, Millis, WorkerId};

use crate::gpu::Gpu;
use crate::model_choice::preset_of;
use crate::place;
use crate::shape::{Shape, What};
use crate::worker::Worker;
use crate::world::World;

impl Worker {
    /// GPUs that its LLM has besides its own, that of its orders and one that is still there.
    pub(crate) fn beside(&self) -> BTreeSet<GpuUuid> {
        if self.llm().is_none() {
            return BTreeSet::new();
        }
        let ordered = self.engine.iter().flat_map(|order| &order.beside);
        let there = self.reports.engine.iter().flat_map(|report| &report.beside);
        let all = ordered.chain(there).filter(|gpu| Some(*gpu) != self.gpu.as_ref());
        all.cloned().collect()
    }
}

impl World {
    /// Keeps what is known of the LLM's GPUs true after something about its worker has changed.
    pub(crate) fn respan(&mut self, at: Millis, id: &WorkerId) {
        let now = self.workers.get(id).map(Worker::beside).unwrap_or_default();
        let before = self.spans.iter().filter(|(_, lead)| *lead == id).map(|(gpu, _)| gpu.clone());
        let before: BTreeSet<GpuUuid> = before.collect();
        for gone in before.difference(&now) {
            self.spans.remove(gone);
        }
        for gpu in &now {
            if self.spans.entry(gpu.clone()).or_insert_with(|| id.clone()) != id {
                self.anomaly("gpu_of_two_llms");
            }
        }
        for gpu in before.union(&now) {
            self.refresh(at, gpu);
        }
    }

    /// The worker of another GPU whose LLM has this one as well.
    pub(crate) fn lead_over(&self, gpu: &GpuUuid) -> Option<&Worker> {
        self.workers.get(self.spans.get(gpu)?).filter(|lead| lead.gpu.as_ref() != Some(gpu))
    }

    /// The worker whose LLM a GPU has, or would have: its own, or its lead's.
    pub(crate) fn llm_worker(&self, gpu: &Gpu) -> Option<&Worker> {
        self.lead_over(&gpu.facts.uuid).or_else(|| self.worker_on(gpu))
    }

    /// All GPUs of the LLM of a worker.
    pub(crate) fn gpus_of_llm<'w>(&'w self, worker: &'w Worker) -> impl Iterator<Item = &'w Gpu> {
        let all = worker.beside().into_iter().chain(worker.gpu.clone());
        all.filter_map(|uuid| self.gpus.get(&uuid))
    }

    /// The model that a shape has to be loaded on several GPUs at once, if it has none of one GPU: its own, or, for a
    /// task that names none where all models are so, the first that a worker can load.
    pub(crate) fn spanning_model(&self, shape: &Shape) -> Option<(&str, &ModelEntry)> {
        let What::Llm(wanted) = &shape.what else { return None };
        let can = |(name, entry): &(&str, &ModelEntry)| {
            let mut workers = self.workers.values().filter(|worker| !worker.dead && worker.gpu.is_some());
            workers.any(|worker| preset_of(self, worker, name, entry).is_some())
        };
        let of_shape = |entry: &ModelEntry| entry.spread() as usize == shape.gpus() && shape.gpus() > 1;
        let mut models = self.config.models_in_order().filter(|(_, entry)| of_shape(entry));
        match wanted {
            Some(wanted) => models.find(|(name, _)| name == wanted),
            None => models.find(can),
        }
    }

    /// Whether a GPU could have a share of this model. One of `brain_*` roles that suffice for it keeps to those, also
    /// while one of them is lost: else it would take another GPU away from scripts, and never give it back.
    pub(crate) fn spreads_to(&self, gpu: &Gpu, name: &str, entry: &ModelEntry) -> bool {
        let fits = |gpu: &Gpu| match (entry.share_mib(), gpu.facts.total_mib) {
            (Some(need), Some(total)) => need <= total,
            _ => true,
        };
        if !fits(gpu) {
            return false;
        }
        if self.has_pinned_role(gpu) {
            return self.pinned_model(gpu).is_none_or(|own| own == name);
        }
        let pinned = || self.gpus.values().filter(|gpu| self.has_pinned_role(gpu) && fits(gpu));
        let is_for_brains = matches!(entry.role, Some(GpuRole::BrainPrimary | GpuRole::BrainSecondary))
            || pinned().any(|gpu| self.pinned_model(gpu).as_deref() == Some(name));
        !is_for_brains || pinned().count() < entry.spread() as usize
    }

    /// Whether a GPU could be one of those that a task needs: as one of its own, or for a share of its LLM.
    pub(crate) fn could_be_one_for(&self, gpu: &Gpu, shape: &Shape) -> bool {
        match self.spanning_model(shape) {
            Some((name, entry)) => self.spreads_to(gpu, name, entry) && place::can_hold(shape, &gpu.facts),
            None => self.takes_scripts(gpu) && gpu.could_be_one_for(shape),
        }
    }

    /// Whether a task may be served by the LLM of this GPU as far as its wish and its needs go: one of several GPUs has to
    /// be the one that it names.
    pub(crate) fn llm_is_for(&self, shape: &Shape, gpu: &Gpu) -> bool {
        let lead = self.llm_worker(gpu).filter(|lead| !lead.beside().is_empty());
        let Some(lead) = lead else { return place::fits(shape, &gpu.facts) };
        let mut all = self.gpus_of_llm(lead);
        let holds = self.gpus_of_llm(lead).all(|gpu| place::can_hold(shape, &gpu.facts));
        holds && all.any(|gpu| place::is_wanted(shape, &gpu.facts))
    }
}
