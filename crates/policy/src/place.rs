//! Where a task can run at all: capability, not the present moment.

use model::config::{HostKind, ScriptEntry};
use model::gpu::GpuFacts;
use model::task::{GpuRequirement, Script, ScriptWork};
use model::{Config, Reason};

use crate::gpu::Gpu;
use crate::shape::{HostKey, Shape, What};
use crate::world::World;

/// The configuration's entry of a script; none for a file that is not registered.
pub(crate) fn script_entry<'c>(config: &'c Config, script: &Script) -> Option<&'c ScriptEntry> {
    match script {
        Script::Registered(name) => config.scripts.get(name),
        Script::File(_) => None,
    }
}

/// The host that runs a script task.
pub(crate) fn host_key(config: &Config, work: &ScriptWork) -> HostKey {
    let entry = script_entry(config, &work.script);
    let keyed = entry.is_some_and(|entry| entry.key.iter().any(|field| field == "model"));
    let model = if keyed { work.model.clone().or(entry.and_then(|entry| entry.model.clone())) } else { None };
    let warm = entry.is_some_and(|entry| entry.host == HostKind::Warm);
    HostKey { script: work.script.clone(), model, warm }
}

/// Whether the task may run on this GPU by its stated wish.
pub(crate) fn is_wanted(shape: &Shape, gpu: &GpuFacts) -> bool {
    match &shape.gpu {
        GpuRequirement::Any => true,
        GpuRequirement::None => false,
        GpuRequirement::Key(key) => *key == gpu.index.to_string(),
        GpuRequirement::Uuid(uuid) => *uuid == gpu.uuid,
    }
}

/// Whether this GPU has what the task needs.
pub(crate) fn can_hold(shape: &Shape, gpu: &GpuFacts) -> bool {
    let memory = match (shape.needs.vram_mib, gpu.total_mib) {
        (None, _) => true,
        (Some(need), Some(total)) => need <= total,
        (Some(_), None) => !shape.vram_stated,
    };
    let compute = match (shape.needs.min_compute_capability, gpu.compute_capability) {
        (None, _) => true,
        (Some(need), Some(has)) => need <= has,
        (Some(_), None) => false,
    };
    memory && compute
}

/// Whether the task could run on this GPU.
pub(crate) fn fits(shape: &Shape, gpu: &GpuFacts) -> bool {
    is_wanted(shape, gpu) && can_hold(shape, gpu)
}

/// Why no GPU is what the task needs; none where one is, or where it needs none.
fn unfit<'g>(shape: &Shape, gpus: impl Iterator<Item = &'g GpuFacts> + Clone) -> Option<Reason> {
    if shape.in_cpu_lane() || gpus.clone().any(|gpu| fits(shape, gpu)) {
        return None;
    }
    if !gpus.clone().any(|gpu| is_wanted(shape, gpu)) {
        let wanted = match &shape.gpu {
            GpuRequirement::Key(key) => format!("number {key}"),
            GpuRequirement::Uuid(uuid) => format!("`{uuid}`"),
            GpuRequirement::Any | GpuRequirement::None => "usable".into(),
        };
        return Some(Reason::NoSuchGpu { wanted });
    }
    let wanted = || gpus.clone().filter(|gpu| is_wanted(shape, gpu));
    if let Some(need) = shape.needs.vram_mib
        && !wanted().any(|gpu| gpu.total_mib.is_some_and(|total| need <= total))
    {
        let largest = match wanted().filter_map(|gpu| gpu.total_mib).max() {
            Some(total) => format!("{total} MiB"),
            None => "memory that nobody could measure".into(),
        };
        return Some(Reason::DoesNotFit { needs: format!("{need} MiB"), largest });
    }
    let needs = match shape.needs.min_compute_capability {
        Some(need) => format!("compute capability {need}"),
        None => "more".into(),
    };
    let largest = match wanted().filter_map(|gpu| gpu.compute_capability).max() {
        Some(has) => format!("{has}"),
        None => "one that nobody could read".into(),
    };
    Some(Reason::DoesNotFit { needs, largest })
}

impl World {
    /// Why no GPU could ever run a task of this shape; none where one could, or while nobody has looked.
    pub(crate) fn misfit(&self, shape: &Shape) -> Option<Reason> {
        self.inventory.as_ref()?;
        let usable = || self.gpus.values().filter(|gpu| gpu.is_usable());
        if let Some(misfit) = unfit(shape, usable().map(|gpu| &gpu.facts)) {
            return Some(misfit);
        }
        let too_few = self.too_few_gpus(shape);
        if too_few.is_some() || shape.needs_several() {
            return too_few;
        }
        let mut able = usable().filter(|gpu| fits(shape, &gpu.facts)).peekable();
        able.peek()?;
        match &shape.what {
            _ if shape.in_cpu_lane() => None,
            What::Script(_) => able.all(|gpu| self.is_pinned(gpu)).then(|| {
                let detail = "every GPU that could run it is pinned for the LLM of a `brain_*` role; see \
                              `gpu_roles` and `never_evict_brain` in config.json";
                Reason::Held { detail: detail.into() }
            }),
            What::Llm(Some(model)) => self.misfit_of_model(model, &able.collect::<Vec<_>>()),
            What::Llm(None) => None,
        }
    }

    /// Why none of these GPUs could ever load a model.
    fn misfit_of_model(&self, model: &str, able: &[&Gpu]) -> Option<Reason> {
        let need = self.config.models.get(model)?.mib;
        let holds = |gpu: &&&Gpu| match (need, gpu.facts.total_mib) {
            (Some(need), Some(total)) => need <= total,
            _ => true,
        };
        let large: Vec<&Gpu> = able.iter().filter(holds).copied().collect();
        if let (Some(need), true) = (need, large.is_empty()) {
            let largest = able.iter().filter_map(|gpu| gpu.facts.total_mib).max();
            let largest = largest.map_or_else(|| "no memory".to_owned(), |total| format!("{total} MiB"));
            return Some(Reason::DoesNotFit { needs: format!("{need} MiB for `{model}`"), largest });
        }
        let others = large.iter().map(|gpu| Some((gpu, self.pinned_model(gpu)?)));
        let others: Option<Vec<_>> = others.collect();
        let (gpu, own) = others?.into_iter().find(|(_, own)| own != model)?;
        let detail = format!(
            "`{model}` would fit on GPU {} alone, which is pinned for `{own}`; see `gpu_roles` and \
             `never_evict_brain` in config.json",
            gpu.key()
        );
        Some(Reason::Held { detail })
    }
}
