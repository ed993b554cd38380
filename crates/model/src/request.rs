//! What the command line asks of the brain, and what it answers; one file each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::explained::{BatchAsked, BatchExplained, Explained};
use crate::gpu_reason::GpuReason;
use crate::id::{BatchId, TaskId};
use crate::kind::TaskClass;
use crate::reason::ReasonTold;
use crate::task::TaskRecord;

/// `brain/requests/<uuid>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// What is asked.
    #[serde(rename = "verb")]
    pub verb: Verb,
    /// Tasks or batches it is about.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Who asks, for the journal.
    pub by: String,
    /// `down`: how long it may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f64>,
    /// `down`: stop running units at once.
    #[serde(default)]
    pub now: bool,
    /// `explain`: a task, without its prompt and whatever else may be long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Box<TaskRecord>>,
    /// `explain`: a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchAsked>,
}

impl Request {
    /// About these.
    #[must_use]
    pub fn new(verb: Verb, ids: &[String], by: String) -> Self {
        Self { verb, ids: ids.to_vec(), by, timeout_s: None, now: false, task: None, batch: None }
    }
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// End tasks, or all items of batches.
    Cancel,
    /// Start no further items of batches; those that run end.
    Pause,
    /// Let paused batches go on.
    Resume,
    /// Free the machine.
    Down,
    /// Say why tasks wait, and why GPUs do what they do.
    Why,
    /// Say when tasks and batches start and end; without ids, when the queues and all batches do.
    Eta,
    /// Say what would happen to a task or a batch that is not submitted.
    Explain,
}

/// `brain/answers/<uuid>.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// Whether all of it was done.
    pub ok: bool,
    /// What came of each id.
    #[serde(default)]
    pub about: Vec<AboutTask>,
    /// `eta` without ids: the queues.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<AboutQueue>,
    /// `eta` without ids: live batches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<AboutBatch>,
    /// `explain` of a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained: Option<Box<Explained>>,
    /// `explain` of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_explained: Option<Box<BatchExplained>>,
    /// One sentence.
    pub message: String,
}

/// What came of one id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AboutTask {
    /// The id as asked.
    pub id: String,
    /// The task, where one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// What was done: `cancelled`, `stopping`, `already_ended`, `unknown`, `waiting`, `running`, `gpu`, `paused`, `resumed`,
    /// `already_paused`, `not_paused`, `not_a_batch`, `failed`.
    pub outcome: String,
    /// `cancel`: whether it ran when that was asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ran: bool,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonTold>,
    /// Expected start in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_in_s: Option<f64>,
    /// `eta`: start and end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedIn>,
    /// `why` of a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuReason>,
}

/// When something is expected to start and to end, in seconds from now; what has begun starts below zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExpectedIn {
    /// Half of the time it has started by then.
    pub starts_in_s: f64,
    /// Half of the time it has ended by then.
    pub ends_in_s: f64,
    /// If everything takes as long as nine times of ten it does not exceed, it starts then.
    pub starts_in_p90_s: f64,
    /// And ends then.
    pub ends_in_p90_s: f64,
    /// Key of the GPU, or `cpu`, where one is foreseen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// A queue, and when it is expected to be empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AboutQueue {
    /// Which.
    pub class: TaskClass,
    /// Tasks in its folders.
    pub waiting: u64,
    /// Of those, tasks of which nobody can say when they start.
    pub held: u64,
    /// Its first start and its last end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedIn>,
}

/// A live batch, and when it is expected to be over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AboutBatch {
    /// Which.
    pub batch_id: BatchId,
    /// Items that have not ended.
    pub remaining: u64,
    /// Its first start from now on and its last end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedIn>,
}
