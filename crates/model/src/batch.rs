//! Batches: the immutable manifest that a submission writes, and the record that people read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{BatchId, TaskId};
use crate::kind::{GpuMode, Priority, Status, TaskClass, TaskType};
use crate::time::Timestamp;

/// Schema version of manifests and batch records.
pub const BATCH_SCHEMA_VERSION: u32 = 1;

/// Above this many items the record names a file instead of listing them.
pub const LISTED_ITEMS_MAX: usize = 1_000;

/// One line of `<batch_id>.manifest.jsonl`: first the batch, then its items, last the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManifestLine {
    /// The first line.
    Batch(BatchHeader),
    /// One item.
    Item(BatchItem),
    /// The last line; without it the batch was never accepted.
    End(BatchEnd),
}

/// What all items share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchHeader {
    /// Version of this shape: 1.
    pub schema_version: u32,
    /// Name of the batch.
    pub batch_id: BatchId,
    /// Always `script` for now.
    pub task_class: TaskClass,
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
    /// When it was submitted.
    pub created_at: Timestamp,
    /// Formats of the outputs.
    #[serde(default)]
    pub formats: Vec<String>,
    /// Where outputs go; beside the media if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_dir: Option<String>,
    /// Arguments every item gets.
    #[serde(default)]
    pub script_args: Map<String, Value>,
    /// The folder or file the items came from.
    pub source: String,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchItem {
    /// The media file, absolute.
    pub video_path: String,
    /// Its length in seconds, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_s: Option<f64>,
    /// Files to write, by format.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
}

/// The last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchEnd {
    /// How many items stand before it.
    pub n: usize,
}

/// A manifest, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What all items share.
    pub header: BatchHeader,
    /// The items, in the order of submission; an item's index is its place here.
    pub items: Vec<BatchItem>,
}

impl Manifest {
    /// Reads a manifest; none if its end line is missing or a line cannot be read, which means it was never accepted.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let ManifestLine::Batch(header) = serde_json::from_str(lines.next()?).ok()? else { return None };
        let mut items = Vec::new();
        let mut ended = false;
        for line in lines {
            match serde_json::from_str(line).ok()? {
                ManifestLine::Item(item) if !ended => items.push(item),
                ManifestLine::End(end) if !ended && end.n == items.len() => ended = true,
                _ => return None,
            }
        }
        ended.then_some(Self { header, items })
    }

    /// The manifest as text.
    ///
    /// # Errors
    /// Only where a value cannot be written as JSON.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(&ManifestLine::Batch(self.header.clone()))?;
        text.push('\n');
        for item in &self.items {
            text.push_str(&serde_json::to_string(&ManifestLine::Item(item.clone()))?);
            text.push('\n');
        }
        text.push_str(&serde_json::to_string(&ManifestLine::End(BatchEnd { n: self.items.len() }))?);
        text.push('\n');
        Ok(text)
    }

    /// The task id of the item at `index` (from 0).
    #[must_use]
    pub fn task_id(&self, index: usize) -> Option<TaskId> {
        TaskId::new(format!("{}.{index}", self.header.batch_id)).ok()
    }

    /// Media of all items in seconds, and how many items have none.
    #[must_use]
    pub fn media_s(&self) -> (f64, usize) {
        let known: f64 = self.items.iter().filter_map(|item| item.media_s).sum();
        (known, self.items.iter().filter(|item| item.media_s.is_none()).count())
    }
}

/// `batches/<batch_id>.json`: derived from the item files, rewritten at most once a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchRecord {
    /// Version of this shape: 1.
    pub schema_version: u32,
    /// Name of the batch.
    pub batch_id: BatchId,
    /// Class of the items.
    pub task_class: TaskClass,
    /// Their script.
    pub script: String,
    /// How many items.
    pub total_items: usize,
    /// How many ended well.
    pub completed: usize,
    /// How many failed, cancelled ones included.
    pub failed: usize,
    /// As decided: never `auto` once the brain has read it.
    pub gpu_mode: GpuMode,
    /// Where it is.
    pub status: BatchStatus,
    /// Whether its waiting items are kept from starting.
    #[serde(default)]
    pub paused: bool,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its last item ended.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// Media of the ended items in seconds.
    pub media_s_done: f64,
    /// Media of all items in seconds, where known.
    pub media_s_total: f64,
    /// The items, up to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<BatchItemState>>,
    /// The manifest's file name, where there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_file: Option<String>,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum BatchStatus {
    Accepted,
    Running,
    Complete,
    CompleteWithFailures,
}

/// One item in the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchItemState {
    /// The media file.
    pub video_path: String,
    /// Where it is.
    pub status: Status,
    /// Its task.
    pub task_id: TaskId,
}
