//! What a loaded LLM has earned: how long it stays at least, and how cheap it is to let go.
//!
//! Which one goes is the *Landlord* rule for files of different size and cost: each has a credit for its reload, full
//! again with each use; the one with the least credit for its memory goes, and the others pay as much for theirs. Not
//! here: whether one goes (`evict`).

use std::collections::VecDeque;

use model::config::ModelEntry;
use model::{GpuUuid, Millis};

use crate::gpu::Gpu;
use crate::worker::{Llm, Worker};
use crate::world::World;

/// What an LLM holds where its configuration does not say, in MiB.
const MIB_PRIOR: u64 = 8_192;
/// An LLM that was evicted and loaded again more often than this within ten reload times stays longer.
const RELOADS: usize = 3;
/// By how much at most: 2³ times.
const DOUBLINGS: usize = 3;

/// What is remembered of the LLMs of a GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenure {
    /// What its LLM has paid of its credit while others went, in the unit of [`World::credit`].
    pub paid: u64,
    /// Whether the last LLM made room for something else.
    pub evicted: bool,
    /// When LLMs were loaded after they had made room.
    reloads: VecDeque<Millis>,
}

impl Tenure {
    /// An LLM is loaded.
    pub(crate) fn boots(&mut self, at: Millis) {
        self.paid = 0;
        if std::mem::take(&mut self.evicted) {
            self.reloads.push_back(at);
            if self.reloads.len() > RELOADS + DOUBLINGS {
                self.reloads.pop_front();
            }
        }
    }

    /// How often the least stay of an LLM is doubled that was ready at this moment.
    fn doublings(&self, since: Millis, reload_time: Millis) -> usize {
        let window = Millis(reload_time.0.saturating_mul(10));
        let late = self.reloads.iter().filter(|at| **at + window > since).count();
        late.saturating_sub(RELOADS).min(DOUBLINGS)
    }
}

impl World {
    /// Until when the LLM of a GPU stays at least: `min_residency_s`, or twice what its load took if that is longer, from
    /// the moment it was ready; longer still where LLMs came and went too often.
    pub(crate) fn settled_at(&self, gpu: &Gpu, worker: &Worker, now: Millis) -> Millis {
        let Some(Llm::Ready { report }) = worker.llm() else { return now };
        let boot = report.boot_ms.map_or(Millis::ZERO, |ms| Millis(i64::try_from(ms).unwrap_or(i64::MAX)));
        let least = Millis::from_secs_f64(self.config.resource_manager.eviction_policy.min_residency_s);
        let stay = least.max(boot + boot);
        let reload_time = self.memory.llm_boot(&self.config, &report.preset, &report.model).p50;
        let since = report.since.clamp(Millis::ZERO, now.max(Millis::ZERO));
        let doublings = gpu.tenure.doublings(since, reload_time);
        since + Millis(stay.0.saturating_mul(1 << doublings))
    }

    /// What is left of the credit of a GPU's LLM for its memory: its reload time in milliseconds for each GiB it holds,
    /// less what it has paid. None where no LLM is ready.
    pub(crate) fn credit(&self, gpu: &Gpu) -> Option<u64> {
        let Some(Llm::Ready { report }) = self.llm_worker(gpu)?.llm() else { return None };
        let reload = self.memory.llm_boot(&self.config, &report.preset, &report.model).p50;
        let mib =
            self.config.models.get(&report.model).and_then(ModelEntry::share_mib).unwrap_or(MIB_PRIOR).max(1);
        let full = reload.0.unsigned_abs().saturating_mul(1_024) / mib;
        Some(full.saturating_sub(gpu.tenure.paid))
    }

    /// An LLM makes room: all others that run nothing pay the credit it had left.
    pub(crate) fn collect_rent(&mut self, uuid: &GpuUuid) {
        let Some(rent) = self.gpus.get(uuid).and_then(|gpu| self.credit(gpu)) else { return };
        let idle = self.gpus.values().filter(|gpu| gpu.state == model::GpuState::LlmReady);
        let idle: Vec<GpuUuid> =
            idle.map(|gpu| gpu.facts.uuid.clone()).filter(|other| other != uuid).collect();
        for other in idle {
            if let Some(gpu) = self.gpus.get_mut(&other) {
                gpu.tenure.paid = gpu.tenure.paid.saturating_add(rent);
            }
        }
        if let Some(gpu) = self.gpus.get_mut(uuid) {
            gpu.tenure.evicted = true;
        }
    }
}
