//! What the command line asks of the brain, and what it answers; one file each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::reason::ReasonTold;

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
    /// Say why tasks wait.
    Why,
}

/// `brain/answers/<uuid>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// Whether all of it was done.
    pub ok: bool,
    /// What came of each id.
    #[serde(default)]
    pub about: Vec<AboutTask>,
    /// One sentence.
    pub message: String,
}

/// What came of one id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AboutTask {
    /// The id as asked.
    pub id: String,
    /// The task, where one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// What was done: `cancelled`, `stopping`, `already_ended`, `unknown`, `waiting`, `running`, `paused`, `resumed`,
    /// `already_paused`, `not_paused`, `not_a_batch`, `failed`.
    pub outcome: String,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonTold>,
    /// Expected start in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_in_s: Option<f64>,
}
