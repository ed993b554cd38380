//! How units share GPUs, memory and turns.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the memory of GPUs is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VramAccounting {
    /// By what tasks and scripts state, or what was measured if that is more; one unit a GPU while nothing is known.
    #[default]
    Measured,
    /// By `vram_per_job_mb`, or what a task itself states if that is more; nothing is read: the seed's fixed slots.
    Declared,
}

/// What happens when a start has waited `ram_wait_s` for system memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RamWaitOver {
    /// It goes on with a warning, one task at a time, once nothing of ours runs that could give memory back.
    #[default]
    Guarded,
    /// It goes on with a warning: the seed's literal rule.
    Proceed,
}

/// How jobs of different types share what they compete for. A chatbot always goes first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Fairness {
    /// Job types by name; one that is not named has `default_weight` and no limit.
    pub job_types: BTreeMap<String, JobType>,
    /// Weight of a job type that is not named.
    pub default_weight: u32,
    /// Seconds of waiting that raise a task by one priority; 0 switches ageing off.
    pub ageing_s: f64,
    /// Whether a job type at its `max_consecutive` waits although nothing else does: the seed's literal rule.
    pub strict_consecutive: bool,
}

/// One job type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobType {
    /// Its share, relative to the others that wait.
    pub weight: u32,
    /// How many of it may start in a row while another type waits; no limit if absent.
    pub max_consecutive: Option<u32>,
    /// Whether what runs of it gives way to a chatbot at a safe boundary.
    pub yields: bool,
}

/// Whether several units may run at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GpuLock {
    /// As many as the memory of each GPU allows.
    #[default]
    Slots,
    /// One on the whole machine.
    Single,
}

/// What the mind does ahead of demand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Prediction {
    /// Whether an LLM is loaded before the hour in which requests are usually made, and model files are read ahead.
    pub prewarm: bool,
    /// Whether the number of GPUs that hold an LLM follows the requests.
    pub scale: bool,
}
