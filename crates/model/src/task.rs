//! The task on disk (`TaskRecord`) and the task as the mind knows it (`Task`).
//!
//! A person drops a file; `validate` makes a [`Task`] of it or says why not; what is written back is a [`TaskRecord`]
//! again, the one shape every task file has at every moment of its life.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::id::{BatchId, GpuUuid, TaskId, WorkerId};
use crate::kind::{FailureClass, Priority, Status, TaskClass, TaskType};
use crate::time::Timestamp;

/// Schema version of task files written by this program.
pub const TASK_SCHEMA_VERSION: u32 = 2;

/// The job type of somebody who waits for an answer: it goes before everything else.
pub const CHATBOT: &str = "chatbot";

/// A task file, whole: what a person drops and what is written back. Every field but the payload is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskRecord {
    /// Version of this shape: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<u32>,
    /// A stated id is a demand: a second task of the same id is a duplicate. Without it the file's name is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// `llm` or `script`; the folder says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_class: Option<TaskClass>,
    /// What it does; must belong to the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<TaskType>,
    /// The kind of job for fair shares: `chatbot`, `transcription`, `summarization`, or any other word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_type: Option<String>,

    /// LLM tasks: the text prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// LLM tasks: a whole conversation instead of a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
    /// LLM tasks: request options of the OpenAI API, such as `max_tokens` and `temperature`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
    /// Script tasks: a registered name, or a path inside a directory of `script_dirs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Script tasks: what the script gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_args: Option<Map<String, Value>>,
    /// The model to use: a name of `models` for LLM tasks, the script's own for scripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A file: the media of a script task, or the text of an LLM task's prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Where a script puts its files; beside the input if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_dir: Option<String>,

    /// 1 (low) to 5 (urgent); the folder wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// `any`, `none` (the CPU lane), a key of `gpus`, or a GPU's uuid.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_or_number")]
    #[schemars(with = "Option<String>")]
    pub gpu_requirement: Option<String>,
    /// Memory it needs on the GPU, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_mib: Option<u64>,
    /// Least compute capability, such as `7.5`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_or_number")]
    #[schemars(with = "Option<String>")]
    pub min_compute_capability: Option<String>,
    /// How many GPUs a script needs at once, all of them for itself; 1 if absent. Needs of memory are for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Expected run time in seconds, used until it has been learned; never a time limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_duration_sec: Option<f64>,
    /// Length of the media in seconds, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_s: Option<f64>,
    /// Time limit of one attempt in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f64>,
    /// How many charged attempts it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Not to be started before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The batch it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<BatchId>,
    /// A registered command or a URL, called once with the record at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_complete: Option<String>,
    /// Never allowed: what a script may see of the environment is set in `config.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Map<String, Value>>,

    /// Where the task is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Key of the GPU in `gpu_state.json`; null in the CPU lane.
    #[serde(default)]
    pub assigned_gpu: Option<String>,
    /// The same GPU's uuid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_gpu_uuid: Option<GpuUuid>,
    /// The number of its latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How many attempts count against `max_attempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<u32>,
    /// When it was made.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// When its latest attempt began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// Where its script goes on, after an attempt that gave way or was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Value>,
    /// Earlier attempts, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastAttempt>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What was odd about the file, said once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One turn of a conversation, as in the OpenAI API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said: a text, or the API's list of parts.
    pub content: Value,
}

/// An attempt that is over while the task went on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PastAttempt {
    /// Its number.
    pub attempt: u32,
    /// The worker that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The GPU's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// When it began, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Whether it counted against `max_attempts`.
    pub charged: bool,
    /// Why it did not end the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// `complete` or `failed` where a person asked for another run of an ended task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Status>,
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskResult {
    /// The task.
    pub task_id: TaskId,
    /// The LLM's text, or the object the script gave.
    pub output: Value,
    /// Run time in seconds.
    pub duration: f64,
    /// Which model answered, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which engine preset ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Token counts as the engine gave them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Value>,
    /// Why the engine stopped: `stop`, `length`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Where the log of the attempt lies, relative to the spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message} ({}: {code})", class.name())]
pub struct TaskError {
    /// Decides what happens next.
    pub class: FailureClass,
    /// Machine-readable reason, such as `no_result` or `model_not_found`.
    pub code: String,
    /// One sentence for people, with the next step where there is one.
    pub message: String,
    /// The last lines of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
}

impl TaskError {
    /// An error without a log tail.
    #[must_use]
    pub fn new(class: FailureClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into(), tail: None }
    }

    /// Whether an engine has refused to begin with a request (status 503), which says nothing of the request.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.class == FailureClass::Crash && self.code == "http_503"
    }
}

/// A queue folder's file: how a task is called before it has been claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Class of the queue.
    pub class: TaskClass,
    /// Priority of the folder.
    pub priority: Priority,
    /// The file's name, `.json` included.
    pub name: String,
}

/// A validated task: what the mind weighs and what a worker runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id; before the claim, the one it demands or wishes for.
    pub task_id: TaskId,
    /// Whether the id must be this one.
    pub id_is: IdClaim,
    /// What is to be done.
    pub work: Work,
    /// The seed schema's type.
    pub task_type: TaskType,
    /// For fair shares.
    pub job_type: String,
    /// From the folder.
    pub priority: Priority,
    /// Where it may run.
    pub gpu: GpuRequirement,
    /// What it needs there.
    pub needs: Needs,
    /// Expected run time in seconds, as its author says.
    pub estimated_duration_sec: Option<f64>,
    /// Length of its media in seconds.
    pub media_s: Option<f64>,
    /// Time limit of one attempt, in seconds.
    pub timeout_s: Option<f64>,
    /// How many charged attempts it may have.
    pub max_attempts: u32,
    /// Not before this wall-clock time.
    pub not_before: Option<Timestamp>,
    /// The batch it belongs to.
    pub batch_id: Option<BatchId>,
    /// Called once at the end.
    pub on_complete: Option<String>,
    /// Number of the latest attempt; 0 before the first.
    pub attempt: u32,
    /// Attempts that count.
    pub charged: u32,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Where its script goes on.
    #[serde(default)]
    pub checkpoint: Option<Value>,
    /// Earlier attempts.
    pub history: Vec<PastAttempt>,
    /// What was odd about the file.
    pub warnings: Vec<String>,
}

/// Where a task's id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdClaim {
    /// Its body states it: it gets this one or none.
    Demand,
    /// Its file's name suggests it: `<id>-2`, `-3`, … will do.
    Wish,
}

/// What a task asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A request to a language model.
    Llm(LlmWork),
    /// A program.
    Script(ScriptWork),
}

/// A request to a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LlmWork {
    /// A single question.
    pub prompt: Option<String>,
    /// A conversation; the prompt, if any, follows it.
    pub messages: Vec<Message>,
    /// A text file whose content follows the prompt.
    pub input: Option<String>,
    /// Options of the OpenAI API.
    pub options: Map<String, Value>,
    /// The model it insists on.
    pub model: Option<String>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptWork {
    /// Which.
    pub script: Script,
    /// What it gets, with `input`, `output_dir` and `model` put in.
    pub args: Map<String, Value>,
    /// The model that keys a warm host, where the script has one.
    pub model: Option<String>,
    /// The media, if the task names one.
    pub input: Option<String>,
    /// Where files go.
    pub output_dir: Option<String>,
}

/// Which program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Script {
    /// A name of `scripts` in `config.json`.
    Registered(String),
    /// A file inside a directory of `script_dirs`, relative until it has been found there; one process a task.
    File(PathBuf),
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Where a task may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuRequirement {
    /// On any GPU.
    #[default]
    Any,
    /// In the CPU lane.
    None,
    /// On the GPU with this key in `gpu_state.json`.
    Key(String),
    /// On the GPU with this uuid.
    Uuid(GpuUuid),
}

/// What a task needs of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Needs {
    /// Memory in MiB.
    pub vram_mib: Option<u64>,
    /// Least compute capability.
    pub min_compute_capability: Option<ComputeCapability>,
    /// How many GPUs at once; at least 1.
    pub gpus: u32,
}

/// A CUDA compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ComputeCapability {
    /// The part before the point.
    pub major: u32,
    /// The part after it.
    pub minor: u32,
}

impl ComputeCapability {
    /// Reads `8.6`, or `9` for 9.0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Task {
    /// Its class.
    #[must_use]
    pub const fn class(&self) -> TaskClass {
        match self.work {
            Work::Llm(_) => TaskClass::Llm,
            Work::Script(_) => TaskClass::Script,
        }
    }

    /// Whether somebody waits for its answer.
    #[must_use]
    pub fn is_chatbot(&self) -> bool {
        self.job_type == CHATBOT
    }

    /// The record of this task in its present state; status, GPU and outcome are the caller's to add.
    #[must_use]
    pub fn record(&self) -> TaskRecord {
        let mut record = TaskRecord {
            schema_version: Some(TASK_SCHEMA_VERSION),
            task_id: Some(self.task_id.clone()),
            task_class: Some(self.class()),
            task_type: Some(self.task_type),
            job_type: Some(self.job_type.clone()),
            priority: Some(self.priority),
            gpu_requirement: Some(match &self.gpu {
                GpuRequirement::Any => "any".into(),
                GpuRequirement::None => "none".into(),
                GpuRequirement::Key(key) => key.clone(),
                GpuRequirement::Uuid(uuid) => uuid.to_string(),
            }),
            vram_mib: self.needs.vram_mib,
            min_compute_capability: self.needs.min_compute_capability.map(|wanted| wanted.to_string()),
            gpus: (self.needs.gpus > 1).then_some(self.needs.gpus),
            estimated_duration_sec: self.estimated_duration_sec,
            media_s: self.media_s,
            timeout_s: self.timeout_s,
            max_attempts: Some(self.max_attempts),
            not_before: self.not_before,
            batch_id: self.batch_id.clone(),
            on_complete: self.on_complete.clone(),
            attempt: Some(self.attempt),
            charged: Some(self.charged),
            created_at: self.created_at,
            checkpoint: self.checkpoint.clone(),
            history: self.history.clone(),
            warnings: self.warnings.clone(),
            ..TaskRecord::default()
        };
        match &self.work {
            Work::Llm(llm) => {
                record.prompt.clone_from(&llm.prompt);
                record.messages = (!llm.messages.is_empty()).then(|| llm.messages.clone());
                record.input.clone_from(&llm.input);
                record.options = (!llm.options.is_empty()).then(|| llm.options.clone());
                record.model.clone_from(&llm.model);
            }
            Work::Script(script) => {
                record.script = Some(script.script.to_string());
                record.script_args = Some(script.args.clone());
                record.model.clone_from(&script.model);
                record.input.clone_from(&script.input);
                record.output_dir.clone_from(&script.output_dir);
            }
        }
        record
    }
}

/// People write `"gpu_requirement": 0` as often as `"0"`.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(serde::de::Error::custom("expected a text or a number")),
    }
}
