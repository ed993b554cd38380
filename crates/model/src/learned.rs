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
    /// Boot times in milliseconds, by `<preset>/<model>` or `script:<script>/<model>`; the latest samples.
    pub boot_ms: BTreeMap<String, Vec<u64>>,
    /// Run times in milliseconds by `<script>/<model>` or `llm/<model>`; the latest samples.
    pub run_ms: BTreeMap<String, Vec<u64>>,
    /// Media seconds worked off in a second, by `<script>/<model>/<gpu name>`; the latest samples.
    pub speed: BTreeMap<String, Vec<f64>>,
    /// Tasks completed, by GPU.
    pub tasks_completed: BTreeMap<GpuUuid, u64>,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            schema_version: LEARNED_SCHEMA_VERSION,
            boot_ms: BTreeMap::new(),
            run_ms: BTreeMap::new(),
            speed: BTreeMap::new(),
            tasks_completed: BTreeMap::new(),
        }
    }
}
