//! Exclusive batch mode: a level, derived from the facts whenever it is asked for, so that it cannot be left on.
//!
//! While a batch that wants the GPUs for itself has unfinished items, LLM tasks of the spool are not started, and LLMs
//! make room as far as items wait for it. Not here: unloading and giving back (`plan::exclusive`, `plan::reload`).

use model::config::{GpuRole, ScriptGpu};
use model::{BatchId, Millis, Mode, Task, TaskClass};

use crate::batch::{Batch, UNSEEN_ITEMS_GRACE};
use crate::gpu::Gpu;
use crate::world::World;

/// The mode as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Exclusive<'w> {
    /// The first batch that wants it.
    pub batch: &'w Batch,
    /// All that want it.
    pub batches: Vec<&'w BatchId>,
}

impl Exclusive<'_> {
    /// Whether this is one of its batches.
    pub(crate) fn has(&self, batch: Option<&BatchId>) -> bool {
        batch.is_some_and(|batch| self.batches.contains(&batch))
    }
}

impl World {
    /// The exclusive mode; none while no batch wants it, or none that does could run anywhere.
    pub(crate) fn exclusive(&self, now: Millis) -> Option<Exclusive<'_>> {
        let exclusive = self.batches_exclusive.values().filter_map(|id| self.batches.get(id));
        let wanting: Vec<&Batch> = exclusive.filter(|batch| self.wants_all_gpus(batch, now)).collect();
        let batch = *wanting.first()?;
        Some(Exclusive { batch, batches: wanting.into_iter().map(|batch| &batch.facts.batch_id).collect() })
    }

    fn wants_all_gpus(&self, batch: &Batch, now: Millis) -> bool {
        batch.facts.remaining() > 0
            && !batch.facts.paused
            && (now < batch.heard_at + UNSEEN_ITEMS_GRACE || self.knows_items(&batch.facts.batch_id))
            && self.gpus.values().any(|gpu| self.is_eligible(gpu, batch))
    }

    /// How many GPUs a batch may have for itself.
    pub(crate) fn gpus_for(&self, batch: &Batch) -> u64 {
        self.gpus.values().filter(|gpu| self.is_eligible(gpu, batch)).count() as u64
    }

    /// Whether a batch may have this GPU for itself.
    pub(crate) fn is_eligible(&self, gpu: &Gpu, batch: &Batch) -> bool {
        let entry = self.config.scripts.get(&batch.facts.script);
        let needs_gpu = entry.is_none_or(|entry| entry.gpu != ScriptGpu::None);
        let fits = match (entry.and_then(|entry| entry.vram_mib), gpu.facts.total_mib) {
            (Some(need), Some(total)) => need <= total,
            _ => true,
        };
        needs_gpu && fits && gpu.is_usable() && self.takes_scripts(gpu)
    }

    /// Whether scripts may run on this GPU at all: those of the orchestrating LLM are pinned.
    pub(crate) fn takes_scripts(&self, gpu: &Gpu) -> bool {
        !self.is_pinned(gpu)
    }

    /// Whether the LLM of this GPU never leaves it, neither for scripts nor for another LLM: its own, or one of such a GPU
    /// that is spread to it.
    pub(crate) fn is_pinned(&self, gpu: &Gpu) -> bool {
        let lead = || self.lead_over(&gpu.facts.uuid).and_then(|lead| self.gpus.get(lead.gpu.as_ref()?));
        self.has_pinned_role(gpu) || lead().is_some_and(|lead| self.has_pinned_role(lead))
    }

    /// Whether its role pins its LLM.
    pub(crate) fn has_pinned_role(&self, gpu: &Gpu) -> bool {
        self.has_brain_role(gpu) && self.config.resource_manager.eviction_policy.never_evict_brain
    }

    /// Whether this GPU is for the orchestrating LLM.
    pub(crate) fn has_brain_role(&self, gpu: &Gpu) -> bool {
        matches!(self.config.role(&gpu.key()), Some(GpuRole::BrainPrimary | GpuRole::BrainSecondary))
    }

    /// Whether a task may start inside an exclusive batch although it is for an LLM.
    pub(crate) fn is_admitted_chat(&self, task: &Task) -> bool {
        self.config.resource_manager.batch_settings.exclusive_admits_chat
            && task.class() == TaskClass::Llm
            && task.is_chatbot()
    }

    /// Whether an exclusive batch has lent this GPU to chatbots.
    pub(crate) fn is_lent(&self, gpu: &Gpu) -> bool {
        self.lent.as_ref() == Some(&gpu.facts.uuid)
    }

    /// Whether this GPU has left an exclusive batch before its end.
    pub(crate) fn has_left(&self, gpu: &Gpu) -> bool {
        self.left.contains(&gpu.facts.uuid)
    }

    /// LLM tasks that run on GPUs that an exclusive batch waits for.
    pub(crate) fn llm_tasks_in_the_way(&self) -> u64 {
        let in_the_way = |gpu: Option<&Gpu>| {
            gpu.is_some_and(|gpu| self.takes_scripts(gpu) && !self.is_lent(gpu) && !self.has_left(gpu))
        };
        let running = self.units.values().filter(|unit| {
            unit.class() == TaskClass::Llm && unit.is_live() && in_the_way(self.gpu_of(&unit.worker))
        });
        running.count() as u64
    }

    /// What the machine as a whole is doing.
    pub(crate) fn mode(&self, now: Millis) -> Mode {
        if self.is_being_freed() {
            return Mode::Draining;
        }
        match self.exclusive(now) {
            None => Mode::Normal,
            Some(_) if self.llm_tasks_in_the_way() > 0 => Mode::Draining,
            Some(_) => Mode::Exclusive,
        }
    }
}
