//! What would happen to a task, or to a batch, if it were submitted now: data, and one sentence for each part of it.
//!
//! Not here: finding it out (`policy`), and how times are said to people (the command lines).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{BatchId, TaskId};
use crate::kind::{GpuMode, Priority, TaskClass, TaskType};
use crate::reason::ReasonTold;
use crate::request::ExpectedIn;
use crate::time::span;

/// What would become of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    /// Its class.
    pub class: TaskClass,
    /// Its job type.
    pub job_type: String,
    /// Its priority.
    pub priority: Priority,
    /// In one word.
    pub fate: Fate,
    /// What it would wait for, or why it could not run; none where it would start at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonTold>,
    /// When it would start and end, and where; none where nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedIn>,
    /// Keys of all GPUs that it, or its LLM, would have, where those are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// Why there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<Here>,
    /// The LLM that would serve it, for an LLM task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How many of its class would go first.
    pub ahead: u64,
    /// The exclusive batch that would hold it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
    /// Who would make room for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
}

impl Explained {
    /// The GPU or GPUs it would run on, as part of a sentence; none where nobody can say, or in the CPU lane.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        match self.gpus.split_last() {
            Some((last, rest)) if !rest.is_empty() => Some(format!("GPU {} and {last}", rest.join(", "))),
            _ => {
                let place = self.expected.as_ref()?.place.as_deref().filter(|place| *place != "cpu")?;
                Some(format!("GPU {place}"))
            }
        }
    }
}

/// What would become of a task, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It would start at once.
    Starts,
    /// It would wait.
    Waits,
    /// It would wait, and cannot run here as things are.
    CannotRun,
    /// It would fail at once.
    Refused,
}

/// Why a task would go where it goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "code")]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Here {
    #[error("no other GPU could run it")]
    NoOther,
    #[error("{model} is loaded there")]
    LlmLoaded { model: String },
    #[error("{model} loads there")]
    LlmLoads { model: String },
    #[error("{script} is loaded there")]
    HostLoaded { script: String },
    #[error("nothing runs there")]
    Idle,
    #[error("what is loaded there leaves room for it")]
    Shares,
    #[error("it is expected to be free for it first")]
    FreeFirst,
}

/// The exclusive batch that holds LLM tasks back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeldBy {
    /// Which.
    pub batch: BatchId,
    /// Its items that have not ended.
    pub remaining: u64,
    /// When it is expected to be over, in seconds; none where nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_in_s: Option<f64>,
}

/// Somebody makes room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "code")]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Effect {
    #[error("{model} leaves GPU {gpu}{}{}", when(*in_s), drained(*running))]
    LlmLeaves { gpu: String, model: String, running: u64, in_s: f64 },
    #[error("{task} (`{job_type}`{}) on GPU {gpu} gives way to it at its next boundary and goes on later", of_batch(batch.as_ref()))]
    GivesWay { task: TaskId, job_type: String, batch: Option<BatchId>, gpu: String },
    #[error("exclusive batch `{batch}` lends GPU {gpu} to chatbots")]
    Lent { gpu: String, batch: BatchId },
}

fn when(in_s: f64) -> String {
    if in_s < 1.0 { " at once".into() } else { format!(" in about {}", span(in_s)) }
}

fn drained(running: u64) -> String {
    match running {
        0 => String::new(),
        1 => ", when the request that runs on it has ended".into(),
        n => format!(", when the {n} requests that run on it have ended"),
    }
}

fn of_batch(batch: Option<&BatchId>) -> String {
    batch.map(|batch| format!(" of batch `{batch}`")).unwrap_or_default()
}

/// A batch that is asked about, without its items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchAsked {
    /// The name it would get.
    pub batch_id: BatchId,
    /// Type of every item.
    pub task_type: TaskType,
    /// Registered script.
    pub script: String,
    /// Its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// As asked for.
    pub gpu_mode: GpuMode,
    /// Priority of every item.
    pub priority: Priority,
    /// How many items.
    pub items: u64,
    /// How many of them its largest part has: `--batch-size` cuts it into batches of their own.
    pub items_of_a_part: u64,
    /// How many say how long their media is.
    pub with_media: u64,
    /// How long that is together, in seconds.
    pub media_s: f64,
    /// And the longest of them.
    pub media_s_max: f64,
}

/// What would become of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchExplained {
    /// Whether it would have the GPUs for itself.
    pub exclusive: bool,
    /// From how many items on a batch of mode `auto` has.
    pub exclusive_from: u32,
    /// Keys of the GPUs that could run its items.
    pub gpus: Vec<String>,
    /// Why its first item would wait; none where one would start at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonTold>,
    /// First start and last end, with everything that waits already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedIn>,
    /// The same if one GPU did all of it and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_one: Option<ExpectedIn>,
    /// The same if all GPUs that could did it and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_all: Option<ExpectedIn>,
    /// Whether the times rest on a guess: nothing of the kind was measured yet.
    pub is_a_guess: bool,
    /// LLMs that would make room.
    pub leaves: Vec<LlmLeaves>,
    /// What chatbots would find meanwhile.
    pub chat: ChatMeanwhile,
    /// How many seconds ago the last LLM task came; none where none ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_asked_s_ago: Option<f64>,
    /// LLM tasks that wait or run.
    pub llm_tasks: u64,
    /// Whether somebody would miss an LLM: one leaves or LLM tasks are held back, and LLMs are in use.
    pub takes_llms_in_use: bool,
}

/// An LLM that makes room for a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LlmLeaves {
    /// Key of its GPU.
    pub gpu: String,
    /// Which.
    pub model: String,
    /// In how many seconds it goes.
    pub leaves_in_s: f64,
    /// In how many it is back; none where that is not before something asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_in_s: Option<f64>,
}

/// What a chatbot finds while a batch runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum ChatMeanwhile {
    /// What it would find anyway.
    AsBefore,
    /// An LLM that stays.
    Served {
        /// Key of its GPU.
        gpu: String,
        /// Which.
        model: String,
    },
    /// A GPU of its own, after so many seconds at most.
    Within {
        /// Until the end of an item, and the load of an LLM.
        within_s: f64,
    },
    /// The end of the batch: chatbots are not admitted.
    Waits,
    /// The end of the batch: it lends one GPU, and every LLM needs several.
    WaitsForSeveral,
}
