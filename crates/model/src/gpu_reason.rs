//! What a GPU does and why it does nothing else: data, and one short paragraph.
//!
//! Not here: why a task waits (`reason`), and finding it out (`policy`).

use std::fmt::{self, Display, Formatter};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::GpuRole;
use crate::id::{GpuUuid, TaskId};
use crate::kind::{GpuState, Health, TaskClass};
use crate::picture::{Resident, SlotPicture, VramPicture};
use crate::time::span;

/// A GPU, explained. `Display` is the paragraph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpuReason {
    /// Its key in the picture.
    pub gpu: String,
    /// The driver's name for it.
    pub uuid: GpuUuid,
    /// Product name.
    pub name: String,
    /// Its state.
    pub state: GpuState,
    /// Since how many seconds.
    pub for_s: f64,
    /// Its LLM, loading or loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Seconds until the boot in progress, or the cooling, is expected to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_in_s: Option<f64>,
    /// Whether it may be used.
    pub health: Health,
    /// Its role, where one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<GpuRole>,
    /// Its memory.
    pub vram: VramPicture,
    /// What is loaded.
    pub residents: Vec<Resident>,
    /// What runs.
    pub running: Vec<SlotPicture>,
    /// What it would take now.
    pub accepts: Vec<TaskClass>,
    /// Why it does nothing else, the strongest reason first.
    pub why_not: Vec<WhyNot>,
    /// What is expected to come next here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextHere>,
    /// What was decided about it lately, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lately: Vec<String>,
}

/// What comes next on a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NextHere {
    /// The task.
    pub task_id: TaskId,
    /// In how many seconds it is expected to start.
    pub starts_in_s: f64,
}

/// Why a GPU does not do something else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "code")]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum WhyNot {
    #[error("it is not used: its health is `{health}`")]
    Unusable { health: Health },
    #[error("no worker serves it yet")]
    NoWorker,
    #[error("the machine is being freed, so nothing new starts")]
    ShuttingDown,
    #[error("its LLM leaves for the exclusive batch `{batch}`")]
    LeavesForBatch { batch: String },
    #[error("the exclusive batch `{batch}` holds LLM tasks back ({remaining} items left)")]
    HeldForBatch { batch: String, remaining: u64 },
    #[error("its room is kept for {task} for another {} at most", span(*for_s))]
    KeptFor { task: TaskId, for_s: f64 },
    #[error("it is one of the {count} GPUs that {task} has for itself, whose worker is that of GPU {lead}")]
    PartOf { task: TaskId, count: u32, lead: String },
    #[error(
        "it is kept for {task}, which needs {count} GPUs at once in about {soon}: only what ends before, or goes before that task, starts here",
        soon = span(*.in_s)
    )]
    KeptForWide { task: TaskId, count: u32, in_s: f64 },
    #[error("its role `{role}` pins the LLM: no scripts run here while `never_evict_brain` is set")]
    Pinned { role: GpuRole },
    #[error("{waiting} for its room, and no rule of `eviction_policy` makes its LLM leave yet{due}", waiting = wait(*.scripts, "script"), due = in_about(.leaves_in_s))]
    LlmKept { scripts: u64, leaves_in_s: Option<f64> },
    #[error("its LLM stays, because no script waits for its room")]
    LlmUnchallenged,
    #[error("{what}, and its slots ({slots}) are taken{free}", what = wait(*.waiting, "task"), free = a_slot_in(.free_in_s))]
    Full { waiting: u64, slots: u64, free_in_s: Option<f64> },
    #[error("{what}, and none can run here", what = wait(*.waiting, "task"))]
    NoneFits { waiting: u64 },
    #[error("`{model}` failed to load here (failures in a row: {count}): {error}")]
    BootFailed { model: String, count: u64, error: String },
    #[error("nothing waits that it could run")]
    NothingWaits,
}

/// `1 task waits`, `3 tasks wait`.
fn wait(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what} waits") } else { format!("{count} {what}s wait") }
}

#[expect(clippy::ref_option, reason = "the sentences hand their fields over as they are")]
fn in_about(seconds: &Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!("; it leaves in {} at the latest", span(seconds)))
}

#[expect(clippy::ref_option, reason = "the sentences hand their fields over as they are")]
fn a_slot_in(seconds: &Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!("; one is expected free in {}", span(seconds)))
}

impl GpuReason {
    fn does(&self) -> String {
        let model = self.model.as_deref().unwrap_or("an LLM");
        let ready = match self.ready_in_s {
            Some(seconds) if seconds > 0.0 => format!(", expected done in {}", span(seconds)),
            _ => String::new(),
        };
        let running: Vec<&str> = self.running.iter().map(|slot| slot.task_id.as_str()).collect();
        match self.state {
            GpuState::Idle => "is idle".into(),
            GpuState::BootingLlm => format!("loads {model}{ready}"),
            GpuState::BootingScript => format!("loads what {} needs{ready}", running.join(", ")),
            GpuState::LlmReady => format!("has {model} loaded, and nothing runs"),
            GpuState::LlmBusy => format!("answers with {model}: {}", running.join(", ")),
            GpuState::ScriptBusy => format!("runs {}", running.join(", ")),
            GpuState::Cooling => format!("is being freed, its memory is watched{ready}"),
        }
    }
}

impl Display for GpuReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "GPU {} ({}) {} (since {}).", self.gpu, self.name, self.does(), span(self.for_s))?;
        for why in &self.why_not {
            let sentence = why.to_string();
            let mut letters = sentence.chars();
            let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
            write!(f, " {first}{}.", letters.as_str())?;
        }
        let takes = |class: &TaskClass| match class {
            TaskClass::Llm => "LLM tasks",
            TaskClass::Script => "scripts",
        };
        let takes: Vec<&str> = self.accepts.iter().map(takes).collect();
        match takes.as_slice() {
            [] => write!(f, " It takes nothing now.")?,
            takes => write!(f, " It takes {}.", takes.join(" and "))?,
        }
        if let Some(next) = &self.next {
            write!(f, " Next here: {} in {}.", next.task_id, span(next.starts_in_s))?;
        }
        Ok(())
    }
}
