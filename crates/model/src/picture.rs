//! `gpu_state.json`: the picture everybody looks at. It is derived; deleting it loses nothing.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{BatchId, GpuUuid, TaskId};
use crate::kind::{GpuMode, GpuState, Health, InventorySource, Mode, Priority, TaskClass};
use crate::reason::ReasonTold;
use crate::time::Timestamp;

/// Schema version of the picture.
pub const PICTURE_SCHEMA_VERSION: u32 = 1;

/// How many past states of a GPU are shown.
pub const TRANSITIONS_SHOWN: usize = 16;

/// How many of the latest decisions are shown.
pub const SAID_SHOWN: usize = 16;

/// `gpu_state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Picture {
    /// Version of this shape: 1.
    pub schema_version: u32,
    /// Counts up with every writing, within an epoch.
    pub seq: u64,
    /// The brain's life.
    pub epoch: u64,
    /// Which boot of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// When it was drawn.
    pub written_at: Timestamp,
    /// The brain's process id.
    pub brain_pid: u32,
    /// How the GPU readings came about.
    pub inventory: InventorySource,
    /// Why, where it is not `measured`.
    pub inventory_why: Option<String>,
    /// What the machine as a whole is doing.
    pub mode: Mode,
    /// Whether the machine is being freed.
    pub shutting_down: bool,
    /// The GPUs by key.
    pub gpus: BTreeMap<String, GpuPicture>,
    /// The CPU lane.
    pub cpu: CpuPicture,
    /// Boot times in seconds: learned p50, else the configured prior.
    pub boot_times: BTreeMap<String, f64>,
    /// The two queues.
    pub queues: BTreeMap<TaskClass, QueuePicture>,
    /// Live batches.
    pub batches: BTreeMap<BatchId, BatchPicture>,
    /// Leases (none can be held yet).
    pub leases: BTreeMap<String, LeasePicture>,
    /// Memory of the machine in MiB; null where it is not known.
    #[serde(default)]
    pub system_ram_mb: Option<u64>,
    /// What of it could be had without swapping.
    #[serde(default)]
    pub system_ram_available_mb: Option<u64>,
    /// Tasks that ended since this brain started, and how.
    pub ended: EndedPicture,
    /// Impossible things that were seen, by name; normally empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub anomalies: BTreeMap<String, u64>,
    /// What was decided lately, the latest last: at most 16 sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<SaidPicture>,
    /// Things a person should look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// One sentence about a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SaidPicture {
    /// When it was said.
    pub at: Timestamp,
    /// Key of the GPU it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The sentence.
    pub text: String,
    /// Whether somebody should look at it.
    #[serde(default)]
    pub warning: bool,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpuPicture {
    /// One of the seven states.
    pub state: GpuState,
    /// Its LLM, loading or loaded.
    pub model: Option<String>,
    /// The other GPUs that this LLM is spread over, by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paired_with: Vec<String>,
    /// Script of its oldest running unit, or of the one that loads.
    pub script: Option<String>,
    /// Process id of the LLM engine, else of the worker.
    pub pid: Option<u32>,
    /// The LLM engine's port.
    pub port: Option<u16>,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// When the boot in progress began.
    pub started_boot: Option<Timestamp>,
    /// When it is expected to end.
    pub expected_ready: Option<Timestamp>,
    /// Tasks it has completed.
    pub tasks_completed: u64,
    /// Oldest running task.
    pub task_id: Option<TaskId>,
    /// Progress of that task, 0 to 1.
    pub progress: Option<f64>,
    /// The driver's name for it.
    pub uuid: GpuUuid,
    /// Product name.
    pub name: String,
    /// Its role, where one is set.
    pub role: Option<crate::config::GpuRole>,
    /// Its memory.
    pub vram: VramPicture,
    /// Whether it may be used.
    pub health: Health,
    /// Whether it is being emptied.
    pub draining: bool,
    /// What it would take now.
    pub accepts: Vec<TaskClass>,
    /// What is loaded.
    pub residents: Vec<Resident>,
    /// What runs.
    pub slots: Vec<SlotPicture>,
    /// Scripts that run on it.
    #[serde(default)]
    pub slots_used: u32,
    /// Scripts that its memory has room for at once: of the first that waits, else of one that needs
    /// `vram_per_job_mb`; null where nobody can say.
    #[serde(default)]
    pub slots_max: Option<u32>,
    /// Its lease.
    pub lease: Option<String>,
    /// The last states and when they began, the oldest first.
    pub transitions: Vec<(GpuState, Timestamp)>,
    /// Its worker's process id.
    pub worker_pid: Option<u32>,
}

/// Memory of a GPU in MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VramPicture {
    /// All of it; null where it is not known.
    pub total_mib: Option<u64>,
    /// In use; null where it is not known.
    pub used_mib: Option<u64>,
    /// In use by processes that are not ours; null where it is not known.
    pub foreign_mib: Option<u64>,
}

/// Something loaded on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resident {
    /// `llm` or `script`.
    pub kind: TaskClass,
    /// Model, or script with its model.
    pub model: String,
    /// Declared memory in MiB, where it is known.
    pub mib: Option<u64>,
    /// How often this worker has loaded it.
    pub loads: u32,
}

/// A running task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SlotPicture {
    /// The task.
    pub task_id: TaskId,
    /// Its attempt.
    pub attempt: u32,
    /// Its class.
    pub class: TaskClass,
    /// Its priority.
    pub priority: Priority,
    /// Since when.
    pub since: Option<Timestamp>,
    /// 0 to 1.
    pub progress: Option<f64>,
    /// Expected seconds to its end.
    pub eta_s: Option<f64>,
}

/// The CPU lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CpuPicture {
    /// How many tasks may run at once.
    pub capacity: u32,
    /// What runs.
    pub slots: Vec<SlotPicture>,
    /// Its worker's process id.
    pub worker_pid: Option<u32>,
}

/// One queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QueuePicture {
    /// Tasks in its folders.
    pub waiting: u64,
    /// The same, by priority.
    pub by_priority: BTreeMap<String, u64>,
    /// The first in line.
    pub head: Option<HeadPicture>,
}

/// The first in line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeadPicture {
    /// The task, or the name its file wishes for.
    pub task_id: TaskId,
    /// Why it waits.
    pub reason: ReasonTold,
    /// When it is expected to start; null where nobody can say.
    pub eta: Option<Timestamp>,
}

/// A live batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchPicture {
    /// Its script.
    pub script: String,
    /// How it has the GPUs.
    pub gpu_mode: GpuMode,
    /// All items.
    pub total_items: u64,
    /// Ended well.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Whether its waiting items are kept from starting.
    #[serde(default)]
    pub paused: bool,
    /// Keys of the GPUs that run its items now.
    #[serde(default)]
    pub gpus: Vec<String>,
    /// Expected end; null where nobody can say, and while it is paused.
    pub eta: Option<Timestamp>,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeasePicture {
    /// The GPU's key.
    pub gpu: String,
}

/// Tasks that ended since the brain started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndedPicture {
    /// Well.
    pub complete: u64,
    /// Failed, cancelled ones included.
    pub failed: u64,
}
