//! What a worker says: `reports.jsonl` and its fold.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Head, LINK_SCHEMA, Line, ProcessIdentity, Seen, is_false, present, set};
use crate::id::{AttemptKey, GpuUuid, TaskId, WorkerId};
use crate::kind::FailureClass;
use crate::time::Millis;

/// What a worker says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reports {
    /// How far the worker has read the orders.
    pub seen: Seen,
    /// The worker.
    pub worker: Option<WorkerIdentity>,
    /// Its GPU; none in the CPU lane.
    pub gpu: Option<GpuIdentity>,
    /// Which schemas of orders it can read.
    pub protocol: Protocol,
    /// What it can boot.
    pub can: Can,
    /// Its LLM.
    pub engine: Option<EngineReport>,
    /// Its script hosts.
    pub hosts: Vec<HostReport>,
    /// Attempts it knows of.
    pub attempts: BTreeMap<AttemptKey, AttemptReport>,
    /// What it is doing.
    pub phase: Phase,
}

/// Who a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerIdentity {
    /// Its name.
    pub uuid: WorkerId,
    /// The launch it came from; none if a person started it.
    pub launch: Option<String>,
    /// Process id.
    pub pid: u32,
    /// Start time of the process, in clock ticks since boot.
    pub starttime: u64,
    /// Which boot of the machine.
    pub boot_id: String,
    /// Its program file.
    pub exe: String,
}

impl WorkerIdentity {
    /// The process part.
    #[must_use]
    pub fn process(&self) -> ProcessIdentity {
        ProcessIdentity { pid: self.pid, starttime: self.starttime, boot_id: self.boot_id.clone() }
    }
}

/// Which GPU a worker serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuIdentity {
    /// The driver's name for it.
    pub uuid: GpuUuid,
    /// Its key in `gpu_state.json`.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// Memory in MiB, where it is known.
    pub vram_mib: Option<u64>,
}

/// Which schemas can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Protocol {
    pub min: u32,
    pub max: u32,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { min: LINK_SCHEMA, max: LINK_SCHEMA }
    }
}

/// What a worker can boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Can {
    /// Engines that are there, with the models each can load.
    pub engines: Vec<CanEngine>,
    /// Why an engine is missing, one sentence each with the next step.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// An engine that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CanEngine {
    /// Name of the preset.
    pub preset: String,
    /// Names of `models`, and `demo-model` where that is all there is.
    pub models: Vec<String>,
}

/// State of an LLM engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// Started, not yet usable.
    Booting,
    /// Health, canary and GPU check passed.
    Ready,
    /// The boot failed, or it died.
    Failed,
    /// Being stopped; gone once the report has no engine and the memory is free.
    Unloading,
}

/// A worker's LLM engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineReport {
    /// The order it answers.
    pub generation: u64,
    /// Where it is.
    pub state: EngineState,
    /// Preset in use; never `auto`.
    pub preset: String,
    /// Model loaded.
    pub model: String,
    /// Requests it serves at once.
    pub parallel: u32,
    /// GPUs it has besides its worker's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<GpuUuid>,
    /// Process id of the engine.
    pub pid: Option<u32>,
    /// Its port on the loopback address.
    pub port: Option<u16>,
    /// When it came into this state.
    pub since: Millis,
    /// How long the boot took.
    pub boot_ms: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// State of a script host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Loading its model.
    Booting,
    /// Loaded, no task.
    Idle,
    /// Runs a task.
    Busy,
    /// Being stopped.
    Unloading,
}

/// A script host of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostReport {
    /// Registered name, or path.
    pub script: String,
    /// Model that keys it.
    pub model: Option<String>,
    /// Where it is.
    pub state: HostState,
    /// Process id.
    pub pid: Option<u32>,
    /// How often this worker has loaded this script and model.
    pub loads: u32,
    /// How long the last load took.
    pub boot_ms: Option<u64>,
}

/// State of an attempt at a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// It runs.
    Running,
    /// It is over; its record lies in the outbox.
    Ended,
    /// It was stopped before it began; there is no record.
    NeverStarted,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// None if it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureClass>,
    /// Machine-readable reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// One sentence of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Run time, boot not included.
    pub run_ms: u64,
    /// Media worked off, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_s: Option<f64>,
    /// The last state its script said it could go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Value>,
    /// Whether the worker stopped it because orders said so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stopped: bool,
}

/// One attempt in the reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptReport {
    /// The task.
    pub task_id: TaskId,
    /// Its attempt.
    pub attempt: u32,
    /// Where it is.
    pub state: AttemptState,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
    /// 0 to 1, only rising.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Media seconds worked off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_s: Option<f64>,
    /// Whether it has boundaries at which it can give way and go on later.
    #[serde(default, skip_serializing_if = "is_false")]
    pub yields: bool,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl AttemptReport {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> AttemptKey {
        AttemptKey { task_id: self.task_id.clone(), attempt: self.attempt }
    }
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Obeying orders.
    #[default]
    Serving,
    /// Orders are of a schema it does not know.
    CannotRead,
    /// A line is missing: it waits for a `whole`.
    Gap,
    /// Ending what runs.
    Leaving,
    /// Gone with an empty outbox.
    Left,
}

/// One line of `reports.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `Head` and `Reports`")]
pub struct ReportsLine {
    pub epoch: u64,
    pub n: u64,
    pub schema: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub whole: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can: Option<Can>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub engine: Option<Option<EngineReport>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<HostReport>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptReport>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<AttemptKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
}

impl Line for ReportsLine {
    type State = Reports;

    fn head(&self) -> Head {
        Head { epoch: self.epoch, n: self.n, schema: self.schema, whole: self.whole }
    }

    fn set_head(&mut self, head: Head) {
        (self.epoch, self.n, self.schema, self.whole) = (head.epoch, head.n, head.schema, head.whole);
    }

    fn fold_into(&self, state: &mut Reports) {
        if self.whole {
            *state = Reports::default();
        }
        set(&mut state.seen, self.seen.as_ref());
        if self.worker.is_some() {
            state.worker.clone_from(&self.worker);
        }
        if self.gpu.is_some() {
            state.gpu.clone_from(&self.gpu);
        }
        set(&mut state.protocol, self.protocol.as_ref());
        set(&mut state.can, self.can.as_ref());
        set(&mut state.engine, self.engine.as_ref());
        set(&mut state.hosts, self.hosts.as_ref());
        for report in &self.attempts {
            state.attempts.insert(report.key(), report.clone());
        }
        for key in &self.drop {
            state.attempts.remove(key);
        }
        set(&mut state.phase, self.phase.as_ref());
    }

    fn whole_of(state: &Reports) -> Self {
        Self {
            whole: true,
            seen: Some(state.seen),
            worker: state.worker.clone(),
            gpu: state.gpu.clone(),
            protocol: Some(state.protocol),
            can: Some(state.can.clone()),
            engine: Some(state.engine.clone()),
            hosts: Some(state.hosts.clone()),
            attempts: state.attempts.values().cloned().collect(),
            phase: Some(state.phase),
            ..Self::default()
        }
    }
}
