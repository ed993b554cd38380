//! Tasks that need several GPUs: which GPUs they have besides that of their worker, and which are kept for the one that
//! waits.
//!
//! Such a unit runs on the worker of one of its GPUs, its *lead*, and is known by the others as well: nothing else starts
//! there while it lives ([`World::units_on`]). Not here: which GPUs are kept or taken, and what may start on them
//! meanwhile (`plan::wide`).

use model::{AttemptKey, GpuUuid, Millis, Reason, TaskClass, TaskId};

use crate::evict::cost_benefit::AGED;
use crate::gpu::Gpu;
use crate::place;
use crate::queue::Queued;
use crate::shape::{Shape, What};
use crate::unit::Unit;
use crate::world::World;

/// GPUs that are kept for a task which needs several at once, until it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The task.
    pub task_id: TaskId,
    /// Which.
    pub gpus: Vec<GpuUuid>,
    /// Since when it has any: what was ordered later is not waited for beyond `until`.
    pub since: Millis,
    /// When all of them were expected to be free.
    pub until: Millis,
}

impl Shape {
    /// Whether it has several whole GPUs for itself.
    pub(crate) const fn is_wide(&self) -> bool {
        matches!(self.what, What::Script(_)) && self.needs.gpus > 1 && !self.in_cpu_lane()
    }

    /// Whether several GPUs have to be empty at once for it: for itself, or for its LLM.
    pub(crate) fn needs_several(&self) -> bool {
        self.gpus() > 1
    }

    /// How many.
    pub(crate) fn gpus(&self) -> usize {
        match self.what {
            _ if self.in_cpu_lane() => 1,
            What::Script(_) => self.needs.gpus.max(1) as usize,
            What::Llm(_) => self.llm_gpus.max(1) as usize,
        }
    }
}

impl World {
    /// What is kept, and for which task; none where that does not wait any more.
    pub(crate) fn kept_gpus(&self) -> Option<(&Kept, &Queued)> {
        let kept = self.kept_gpus.as_ref()?;
        let entry = self.queue.by_id(&kept.task_id).next()?;
        let item = self.queue.get(entry)?;
        let waits = item.shape.needs_several() && !item.cancelled && !self.queue.is_paused(&item.shape);
        (waits && item.not_before.is_none_or(|time| time <= self.now)).then_some((kept, item))
    }

    /// From when on nothing that comes later goes before a task that GPUs are kept for, chatbots included.
    pub(crate) fn firm_at(&self, item: &Queued) -> Millis {
        item.since + AGED
    }

    /// The unit of another GPU's worker that has this one as well.
    pub(crate) fn unit_over(&self, gpu: &GpuUuid) -> Option<&Unit> {
        self.units.get(self.covered.get(gpu)?)
    }

    /// A unit has these GPUs besides that of its worker.
    pub(crate) fn cover(&mut self, at: Millis, key: &AttemptKey) {
        let beside = self.units.get(key).map(|unit| unit.beside.clone()).unwrap_or_default();
        for gpu in beside {
            self.covered.insert(gpu.clone(), key.clone());
            self.refresh(at, &gpu);
        }
    }

    /// A unit that is no more has no GPUs.
    pub(crate) fn uncover(&mut self, at: Millis, unit: &Unit) {
        for gpu in &unit.beside {
            if self.covered.get(gpu) == Some(&unit.key) {
                self.covered.remove(gpu);
            }
            self.refresh(at, gpu);
        }
    }

    /// Why there are too few GPUs for a task that needs several; none where there are enough.
    pub(crate) fn too_few_gpus(&self, shape: &Shape) -> Option<Reason> {
        let asked = shape.needs.gpus;
        if shape.class() == TaskClass::Llm && asked as usize > shape.gpus() && !shape.in_cpu_lane() {
            let has = shape.llm_gpus;
            let detail = format!(
                "it asks for {asked} GPUs, and an LLM that is loaded for it has {has}; leave `gpus` out to take it, or see \
                 `models.<name>.gpus` in config.json"
            );
            return Some(Reason::NoEngine { detail });
        }
        if !shape.needs_several() {
            return None;
        }
        let model = self.spanning_model(shape);
        let usable = || self.gpus.values().filter(|gpu| gpu.is_usable());
        let able = |gpu: &&Gpu| match model {
            Some(_) => self.could_be_one_for(gpu, shape),
            None => self.takes_scripts(gpu) && place::can_hold(shape, &gpu.facts),
        };
        let fit = usable().filter(able).count();
        let leads = usable().filter(able).any(|gpu| place::is_wanted(shape, &gpu.facts));
        (fit < shape.gpus() || !leads).then(|| Reason::TooFewGpus {
            count: u32::try_from(shape.gpus()).unwrap_or(u32::MAX),
            mib: model.map_or(shape.needs.vram_mib, |(_, entry)| entry.share_mib()),
            fit,
            here: self.gpus.len(),
            pinned: usable().filter(|gpu| !self.takes_scripts(gpu)).count(),
        })
    }

    /// Keys of these GPUs as part of a sentence.
    pub(crate) fn keys_of<'g>(&self, gpus: impl IntoIterator<Item = &'g GpuUuid>) -> String {
        let mut found: Vec<&Gpu> = gpus.into_iter().filter_map(|uuid| self.gpus.get(uuid)).collect();
        found.sort_by_key(|gpu| gpu.facts.index);
        let keys: Vec<String> = found.into_iter().map(Gpu::key).collect();
        match keys.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => keys.concat(),
        }
    }
}
