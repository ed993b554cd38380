//! What the brain wants of a worker: `orders.jsonl` and its fold.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Head, Line, ProcessIdentity, Seen, is_false, present, set};
use crate::id::{AttemptKey, GpuUuid, TaskId};
use crate::task::Task;

/// What the brain wants of a worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// How far the brain has read the reports.
    pub seen: Seen,
    /// The brain.
    pub brain: Option<ProcessIdentity>,
    /// The LLM that should be loaded.
    pub engine: Option<EngineOrder>,
    /// The script hosts that may stay loaded.
    pub hosts: Vec<HostOrder>,
    /// Attempts to run or to stop.
    pub attempts: BTreeMap<AttemptKey, AttemptOrder>,
    /// Whether the worker should end what runs, unload and go.
    pub leave: bool,
}

/// An LLM that should be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineOrder {
    /// Counts boots on this worker; a new number is a new boot.
    pub generation: u64,
    /// Name of the engine preset.
    pub preset: String,
    /// Name of the model.
    pub model: String,
    /// Requests it should serve at once.
    pub parallel: u32,
    /// GPUs it has besides its worker's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<GpuUuid>,
}

/// Script hosts that may stay loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostOrder {
    /// Registered name.
    pub script: String,
    /// Model that keys the host.
    #[serde(default)]
    pub model: Option<String>,
    /// How many.
    pub count: u32,
}

/// What should become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Start it and let it end.
    Run,
    /// End it.
    Stop,
}

/// Why an attempt should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopWhy {
    /// A person cancelled the task.
    Cancel,
    /// It ran past its time limit.
    Timeout,
    /// The machine is being freed, or an exclusive batch waits no longer: requeued, not charged.
    TakenBack,
    /// Its task has already ended elsewhere.
    Superfluous,
    /// A chatbot waits: it ends at its next boundary, is requeued, not charged, and goes on from there.
    Yield,
}

/// One attempt in the orders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptOrder {
    /// The task.
    pub task_id: TaskId,
    /// Its attempt.
    pub attempt: u32,
    /// Run or stop.
    pub wish: Wish,
    /// Why stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<StopWhy>,
    /// All GPUs it has for itself, the worker's first; none where it runs on the worker's alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuUuid>,
    /// The whole validated task: the brain's own copy.
    pub task: Box<Task>,
}

impl AttemptOrder {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> AttemptKey {
        AttemptKey { task_id: self.task_id.clone(), attempt: self.attempt }
    }
}

/// One line of `orders.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `Head` and `Orders`")]
pub struct OrdersLine {
    pub epoch: u64,
    pub n: u64,
    pub schema: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub whole: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brain: Option<ProcessIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub engine: Option<Option<EngineOrder>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<HostOrder>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptOrder>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<AttemptKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<bool>,
}

impl Line for OrdersLine {
    type State = Orders;

    fn head(&self) -> Head {
        Head { epoch: self.epoch, n: self.n, schema: self.schema, whole: self.whole }
    }

    fn set_head(&mut self, head: Head) {
        (self.epoch, self.n, self.schema, self.whole) = (head.epoch, head.n, head.schema, head.whole);
    }

    fn fold_into(&self, state: &mut Orders) {
        if self.whole {
            *state = Orders::default();
        }
        set(&mut state.seen, self.seen.as_ref());
        if let Some(brain) = &self.brain {
            state.brain = Some(brain.clone());
        }
        set(&mut state.engine, self.engine.as_ref());
        set(&mut state.hosts, self.hosts.as_ref());
        for order in &self.attempts {
            state.attempts.insert(order.key(), order.clone());
        }
        for key in &self.drop {
            state.attempts.remove(key);
        }
        set(&mut state.leave, self.leave.as_ref());
    }

    fn whole_of(state: &Orders) -> Self {
        Self {
            whole: true,
            seen: Some(state.seen),
            brain: state.brain.clone(),
            engine: Some(state.engine.clone()),
            hosts: Some(state.hosts.clone()),
            attempts: state.attempts.values().cloned().collect(),
            leave: Some(state.leave),
            ..Self::default()
        }
    }
}
