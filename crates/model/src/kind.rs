//! The small closed vocabularies: classes, types, priorities, states, failure classes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Which queue a task stands in, and what runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskClass {
    /// A request to a language model that a worker keeps loaded.
    Llm,
    /// A program: transcription, embedding, any executable.
    Script,
}

impl TaskClass {
    /// Both classes, in the order they are shown.
    pub const ALL: [Self; 2] = [Self::Llm, Self::Script];

    /// The name used in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Script => "script",
        }
    }
}

impl fmt::Display for TaskClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a task does, within its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the field's own words")]
pub enum TaskType {
    Parse,
    Transform,
    Generate,
    Execute,
    Decide,
    Transcribe,
    Embed,
    Process,
}

impl TaskType {
    /// All types, in the order of the task schema.
    pub const ALL: [Self; 8] = [
        Self::Parse,
        Self::Transform,
        Self::Generate,
        Self::Execute,
        Self::Decide,
        Self::Transcribe,
        Self::Embed,
        Self::Process,
    ];

    /// The class this type belongs to.
    #[must_use]
    pub const fn class(self) -> TaskClass {
        match self {
            Self::Parse | Self::Transform | Self::Generate | Self::Execute | Self::Decide => TaskClass::Llm,
            Self::Transcribe | Self::Embed | Self::Process => TaskClass::Script,
        }
    }

    /// The name used in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Transform => "transform",
            Self::Generate => "generate",
            Self::Execute => "execute",
            Self::Decide => "decide",
            Self::Transcribe => "transcribe",
            Self::Embed => "embed",
            Self::Process => "process",
        }
    }

    /// The job type of a task that names none.
    #[must_use]
    pub const fn default_job_type(self) -> &'static str {
        match self {
            Self::Transcribe => "transcription",
            Self::Parse | Self::Transform | Self::Generate | Self::Execute | Self::Decide => "summarization",
            Self::Embed => "embed",
            Self::Process => "process",
        }
    }

    /// The type of a task that names none.
    #[must_use]
    pub const fn default_of(class: TaskClass) -> Self {
        match class {
            TaskClass::Llm => Self::Generate,
            TaskClass::Script => Self::Process,
        }
    }
}

/// Urgency, 1 to 5; 5 is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Priority(#[schemars(range(min = 1, max = 5))] u8);

impl Priority {
    /// What a task without a priority gets.
    pub const NORMAL: Self = Self(3);
    /// The most urgent.
    pub const URGENT: Self = Self(5);
    /// All of them, the most urgent first.
    pub const ALL: [Self; 5] = [Self(5), Self(4), Self(3), Self(2), Self(1)];

    /// A priority, if `level` is one.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level >= 1 && level <= 5 { Some(Self(level)) } else { None }
    }

    /// 1 to 5.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let level = u8::deserialize(deserializer)?;
        Self::new(level)
            .ok_or_else(|| serde::de::Error::custom(format!("priority {level} is not within 1 to 5")))
    }
}

/// Where a task is in its life; the five values of the task schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the schema's own words")]
pub enum Status {
    Queued,
    Assigned,
    Running,
    Complete,
    Failed,
}

/// A GPU's state: exactly seven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GpuState {
    /// No engine that matters is loaded.
    Idle,
    /// An LLM is loading.
    BootingLlm,
    /// A script's process or model is loading.
    BootingScript,
    /// An LLM is loaded and nothing runs.
    LlmReady,
    /// An LLM answers at least one request.
    LlmBusy,
    /// A script runs.
    ScriptBusy,
    /// Something was unloaded; the memory is being watched until it is free.
    Cooling,
}

impl GpuState {
    /// All seven, in the order of the design's table.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::BootingLlm,
        Self::BootingScript,
        Self::LlmReady,
        Self::LlmBusy,
        Self::ScriptBusy,
        Self::Cooling,
    ];

    /// The name used in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::BootingLlm => "booting_llm",
            Self::BootingScript => "booting_script",
            Self::LlmReady => "llm_ready",
            Self::LlmBusy => "llm_busy",
            Self::ScriptBusy => "script_busy",
            Self::Cooling => "cooling",
        }
    }
}

impl fmt::Display for GpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an attempt ended badly; decides what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The task can never work as it is: fails now.
    BadInput,
    /// Memory ran out: a fresh process and more room.
    Oom,
    /// The program broke: back off and try again.
    Crash,
    /// The GPU broke: charged to the GPU, not to the task.
    GpuFault,
    /// It ran past its time limit.
    Timeout,
    /// It took its worker or the machine down too often.
    Poison,
    /// Somebody asked for its end.
    Cancelled,
}

impl FailureClass {
    /// The name used in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadInput => "bad_input",
            Self::Oom => "oom",
            Self::Crash => "crash",
            Self::GpuFault => "gpu_fault",
            Self::Timeout => "timeout",
            Self::Poison => "poison",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a batch wants the GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GpuMode {
    /// All eligible GPUs, LLMs unloaded, until it is done.
    Exclusive,
    /// Beside everything else.
    Shared,
    /// Exclusive from `auto_exclusive_threshold` items on.
    #[default]
    Auto,
}

/// What the machine as a whole is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything runs by the one order.
    #[default]
    Normal,
    /// An exclusive batch waits for running LLM tasks to end, or the machine is being freed.
    Draining,
    /// An exclusive batch has the GPUs.
    Exclusive,
}

/// How the GPU readings came about; shown wherever they are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InventorySource {
    /// NVML or nvidia-smi answered.
    Measured,
    /// Nobody asked a driver: the GPUs are invented.
    Simulated,
    /// Nothing could be asked; one GPU with one slot is assumed.
    #[default]
    Unmeasured,
}

/// Whether a GPU may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing is known against it.
    #[default]
    Ok,
    /// It failed lately; used with care.
    Suspect,
    /// Not used until a person or a probe clears it.
    Quarantined,
    /// Its driver no longer sees it.
    Lost,
}

impl Health {
    /// Its name in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Suspect => "suspect",
            Self::Quarantined => "quarantined",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How durable an accepted task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Survives a power cut: file and folder are synced before the id is given.
    #[default]
    Power,
    /// Survives the death of any process, not of the machine.
    Process,
}
