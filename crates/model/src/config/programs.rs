//! What workers run: engines and their models, scripts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GpuRole;

/// How an engine is started, probed, and stopped.
///
/// In `command` and `env`, `{model}`, `{file}`, `{tag}`, `{host}`, `{port}`, `{parallel}`, `{threads}`, `{gpu}` and `{gpus}`
/// (how many) are filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EnginePreset {
    /// Program and arguments; nothing passes through a shell.
    pub command: Vec<String>,
    /// Environment variables to set.
    pub env: BTreeMap<String, String>,
    /// Environment variables to pass on from the worker's own.
    pub pass_env: Vec<String>,
    /// Path that answers 200 once the model is loaded.
    pub ready_path: String,
    /// The name the engine knows the model by; `{model}`, `{tag}`, `{file}`.
    pub served_model: String,
    /// Whether readiness also needs an answer of one token.
    pub canary: bool,
    /// Longest boot in seconds.
    pub boot_timeout_s: f64,
    /// Longest wait for one answer in seconds, where a task sets none.
    pub request_timeout_s: f64,
    /// From SIGTERM to SIGKILL, in seconds.
    pub stop_grace_s: f64,
}

/// One LLM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelEntry {
    /// Name of an engine; the configuration's `engine` if absent.
    pub engine: Option<String>,
    /// The model file, such as a GGUF; relative to this file.
    pub file: Option<PathBuf>,
    /// The name under which a model store knows it; the entry's own name if absent.
    pub tag: Option<String>,
    /// Memory it takes once loaded, in MiB; on all its GPUs together.
    pub mib: Option<u64>,
    /// GPUs it is spread over, each with an equal share; one if absent.
    pub gpus: Option<u32>,
    /// Requests it serves at once.
    pub parallel: Option<u32>,
    /// The role whose GPUs load it at start.
    pub role: Option<GpuRole>,
}

/// One script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ScriptEntry {
    /// The file; relative to this file, or to a directory of `script_dirs`.
    pub path: PathBuf,
    /// Whether one process serves many tasks.
    pub host: HostKind,
    /// What tells one warm host from another: `["model"]` or nothing.
    pub key: Vec<String>,
    /// The model of tasks that name none.
    pub model: Option<String>,
    /// Memory it needs on the GPU, in MiB.
    pub vram_mib: Option<u64>,
    /// Whether it needs a GPU.
    pub gpu: ScriptGpu,
    /// Environment variables it may see.
    pub env: Vec<String>,
    /// A file whose content it gets as `GPUSPOOL_API_KEY`.
    pub api_key_file: Option<PathBuf>,
    /// Media seconds it works off in a second, until that has been learned.
    pub speed: Option<f64>,
}

/// Whether a script's process lives longer than a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostKind {
    /// One process serves many tasks and keeps its model loaded.
    Warm,
    /// One process a task.
    #[default]
    Once,
}

/// Whether a script needs a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScriptGpu {
    /// Any GPU.
    #[default]
    Any,
    /// The CPU lane.
    None,
}

impl ScriptGpu {
    /// Whether it needs one.
    #[must_use]
    pub const fn needs_gpu(self) -> bool {
        matches!(self, Self::Any)
    }
}

impl ModelEntry {
    /// GPUs it is spread over.
    #[must_use]
    pub fn spread(&self) -> u32 {
        self.gpus.unwrap_or(1).max(1)
    }

    /// Memory it takes on each of them, in MiB.
    #[must_use]
    pub fn share_mib(&self) -> Option<u64> {
        self.mib.map(|mib| mib.div_ceil(u64::from(self.spread())))
    }
}
