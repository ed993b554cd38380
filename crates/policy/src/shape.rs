//! What decides where a task can run, and nothing else of it: two tasks of one shape can run in exactly the same places.
//!
//! Not here: where that is (`place`), and who of a shape is first (`queue`).

use model::config::ModelEntry;
use model::task::{GpuRequirement, Needs, Script};
use model::{BatchId, Config, Task, TaskClass};

use crate::place;

/// What decides where a task can run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    /// What runs it.
    pub what: What,
    /// Where it may run.
    pub gpu: GpuRequirement,
    /// What it needs there; for a script, what the script is known to need is put in.
    pub needs: Needs,
    /// GPUs that its LLM is spread over, where it can have no other: its own model, or whichever, if all are so.
    pub llm_gpus: u32,
    /// Whether `needs.vram_mib` is the task's own word. An unmeasured GPU takes only tasks that say nothing.
    pub vram_stated: bool,
    /// Its batch.
    pub batch: Option<BatchId>,
}

/// What runs a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// An LLM: a certain one, or any.
    Llm(Option<String>),
    /// A script.
    Script(HostKey),
}

/// What tells one script host from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostKey {
    /// The script.
    pub script: Script,
    /// The model that keys its host.
    pub model: Option<String>,
    /// Whether its process stays loaded between tasks.
    pub warm: bool,
}

impl HostKey {
    /// The script's name as it stands in orders and reports.
    pub(crate) fn name(&self) -> String {
        self.script.to_string()
    }

    /// Whether a host by this name and model is this one.
    pub(crate) fn is(&self, script: &str, model: Option<&str>) -> bool {
        let same = match &self.script {
            Script::Registered(name) => name == script,
            Script::File(path) => path.to_str() == Some(script),
        };
        same && self.warm && self.model.as_deref() == model
    }
}

impl Shape {
    /// The shape of a task.
    pub(crate) fn of(task: &Task, config: &Config) -> Self {
        let mut needs = task.needs.clone();
        let vram_stated = needs.vram_mib.is_some();
        let mut llm_gpus = 1;
        let what = match &task.work {
            model::task::Work::Llm(llm) => {
                llm_gpus = spread_of(config, llm.model.as_deref());
                What::Llm(llm.model.clone())
            }
            model::task::Work::Script(script) => {
                let entry = place::script_entry(config, &script.script);
                needs.vram_mib = needs.vram_mib.or(entry.and_then(|entry| entry.vram_mib));
                What::Script(place::host_key(config, script))
            }
        };
        Self { what, gpu: task.gpu.clone(), needs, llm_gpus, vram_stated, batch: task.batch_id.clone() }
    }

    /// Its class.
    pub(crate) const fn class(&self) -> TaskClass {
        match self.what {
            What::Llm(_) => TaskClass::Llm,
            What::Script(_) => TaskClass::Script,
        }
    }

    /// Whether it runs in the CPU lane.
    pub(crate) const fn in_cpu_lane(&self) -> bool {
        matches!(self.gpu, GpuRequirement::None)
    }

    /// The host that runs it, for a script.
    pub(crate) const fn host(&self) -> Option<&HostKey> {
        match &self.what {
            What::Script(host) => Some(host),
            What::Llm(_) => None,
        }
    }
}

/// GPUs that this model is spread over; for any, as many as it takes at least.
fn spread_of(config: &Config, model: Option<&str>) -> u32 {
    match model {
        Some(name) => config.models.get(name).map_or(1, ModelEntry::spread),
        None => config.models.values().map(ModelEntry::spread).min().unwrap_or(1),
    }
}
