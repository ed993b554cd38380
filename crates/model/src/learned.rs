//! `brain/learned.json`: what was measured and must outlive the picture.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::GpuUuid;

/// Schema version of what is learned.
pub const LEARNED_SCHEMA_VERSION: u32 = 1;

/// How many of the latest samples are kept of each thing.
pub const SAMPLES_KEPT: usize = 32;

/// `brain/learned.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Learned {
    /// Version of this shape: 1.
    pub schema_version: u32,
    /// Boot times in milliseconds, by `<preset>/<model>|<requests at once>|cold` (or `warm`: its file was in memory) or
    /// `script:<script>/<model>`; the latest samples. Names of earlier versions end with the model.
    pub boot_ms: BTreeMap<String, Vec<u64>>,
    /// Run times in milliseconds by `<script>/<model>` or `llm/<model>`; the latest samples.
    pub run_ms: BTreeMap<String, Vec<u64>>,
    /// Media seconds worked off in a second, by `<script>/<model>/<gpu name>`, with `*<n>` where n slots of the GPU were in
    /// use; the latest samples.
    pub speed: BTreeMap<String, Vec<f64>>,
    /// Memory in MiB measured on a GPU, by `<script>/<model>` or `llm/<model>`; the latest peaks.
    pub vram_mib: BTreeMap<String, Vec<u64>>,
    /// LLM requests an hour by job type, for each hour of the day, in local time; a day counts as much as all before it.
    /// `null` is an hour that was never seen.
    pub arrivals: BTreeMap<String, Vec<Option<f64>>>,
    /// What each job type was granted on GPUs, for fair shares.
    pub grants: Grants,
    /// What each job type was granted in the CPU lane.
    pub grants_cpu: Grants,
    /// Tasks completed, by GPU.
    pub tasks_completed: BTreeMap<GpuUuid, u64>,
}

/// What each job type was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Grants {
    /// Starts by job type, since the spool was made.
    pub total: BTreeMap<String, u64>,
    /// The credit account of each job type: how far it has run, in units that its weight divides; smaller goes first.
    pub pass: BTreeMap<String, u64>,
    /// The type of the last start, chatbots left out.
    pub last: Option<String>,
    /// How many of it started in a row.
    pub in_a_row: u32,
    /// The runs before that, the latest last; a few.
    pub earlier: Vec<Run>,
}

/// Starts of one job type in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Run {
    /// The type.
    pub job_type: String,
    /// How many.
    pub starts: u32,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            schema_version: LEARNED_SCHEMA_VERSION,
            boot_ms: BTreeMap::new(),
            run_ms: BTreeMap::new(),
            speed: BTreeMap::new(),
            vram_mib: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            grants: Grants::default(),
            grants_cpu: Grants::default(),
            tasks_completed: BTreeMap::new(),
        }
    }
}
