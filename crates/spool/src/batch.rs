//! Batches on disk: an immutable list of items, and a record that is derived from where the items lie.
//!
//! Not here: when a batch has the GPUs (`policy`), and what its items' tasks do (`ledger`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use model::batch::{BatchItem, BatchRecord, Manifest};
use model::id::BadId;
use model::{BatchId, Durability, Status, TaskId, TaskRecord};
use serde_json::{Map, Value};

use crate::atomic::{Folder, move_new, replace, stage};
use crate::crash;
use crate::layout::{Layout, MANIFEST, PAUSED, manifest_file, pause_file, task_file};
use crate::ledger::Submission;
use crate::sync::sync_folder;

/// So many batches of one name and day are told apart by letters.
const SAME_NAME_MAX: u32 = 10_000;

/// The batches of a spool.
#[derive(Clone, Debug)]
pub struct Batches {
    layout: Layout,
    durability: Durability,
}

/// Why a batch was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// It has nothing to do.
    #[error("batch `{0}` has no items, so there is nothing to submit (empty_batch)")]
    Empty(BatchId),
    /// A batch of this name exists.
    #[error("batch `{0}` exists already; take a fresh name")]
    Exists(BatchId),
    /// The disk refused; nothing was accepted.
    #[error("failed to accept batch `{id}`: {source}")]
    Io {
        /// The batch.
        id: BatchId,
        /// Why.
        source: io::Error,
    },
}

impl Batches {
    /// Of this spool.
    #[must_use]
    pub const fn new(layout: Layout, durability: Durability) -> Self {
        Self { layout, durability }
    }

    /// B1 to B3: when this returns, the batch is durable and accepted, whole; before, there is nothing of it.
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn accept(&self, manifest: &Manifest) -> Result<(), BatchError> {
        let id = &manifest.header.batch_id;
        if manifest.items.is_empty() {
            return Err(BatchError::Empty(id.clone()));
        }
        self.put(manifest).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => BatchError::Exists(id.clone()),
            _ => BatchError::Io { id: id.clone(), source },
        })
    }

    fn put(&self, manifest: &Manifest) -> io::Result<()> {
        let text = manifest.text()?;
        let folder = Folder::open_or_make(self.layout.batches())?;
        let staging = Folder::open_or_make(self.layout.stage())?;
        let staged = stage(&self.layout, text.as_bytes(), self.durability, ["batch.B1", "batch.B2"])?;
        move_new(&staging, &staged.name, &folder, &manifest_file(&manifest.header.batch_id))
            .inspect_err(|_| drop(staging.remove(&staged.name)))?;
        if self.durability == Durability::Power {
            sync_folder(folder.path())?;
        }
        crash::point("batch.B3");
        Ok(())
    }

    /// `wanted`, or `<wanted>.b`, `<wanted>.c`, … where there is such a batch already.
    ///
    /// # Errors
    /// [`BadId`] when the name cannot be one.
    pub fn fresh_id(&self, wanted: &str) -> Result<BatchId, BadId> {
        for turn in 0..SAME_NAME_MAX {
            let id = BatchId::new(match turn {
                0 => wanted.to_owned(),
                turn => format!("{wanted}.{}", letters(turn)),
            })?;
            if !self.layout.manifest(&id).exists() {
                return Ok(id);
            }
        }
        BatchId::new(format!("{wanted}.{}", uuid::Uuid::now_v7()))
    }

    /// All accepted batches, by name.
    ///
    /// # Errors
    /// As the system says.
    pub fn list(&self) -> io::Result<Vec<BatchId>> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(self.layout.batches())? {
            if let Some(id) = entry?.file_name().to_str().and_then(|name| name.strip_suffix(MANIFEST)) {
                ids.extend(BatchId::new(id));
            }
        }
        Ok(ids.into_iter().collect())
    }

    /// Pauses a batch, or lets it go on: the mark is the truth, so it outlives whoever asked and whoever runs the
    /// batch. False where it was so already.
    ///
    /// # Errors
    /// As the system says; it is then as it was before.
    pub fn pause(&self, batch: &BatchId, paused: bool) -> io::Result<bool> {
        let folder = Folder::open_or_make(self.layout.batches())?;
        let name = pause_file(batch);
        if paused {
            let staging = Folder::open_or_make(self.layout.stage())?;
            let staged = stage(&self.layout, b"", self.durability, ["batch.P1", "batch.P2"])?;
            match move_new(&staging, &staged.name, &folder, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    staging.remove(&staged.name)?;
                    return Ok(false);
                }
                moved => moved?,
            }
        } else if !folder.remove(&name)? {
            return Ok(false);
        }
        if self.durability == Durability::Power {
            sync_folder(folder.path())?;
        }
        Ok(true)
    }

    /// Which batches are paused.
    ///
    /// # Errors
    /// As the system says.
    pub fn paused(&self) -> io::Result<BTreeSet<BatchId>> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(self.layout.batches())? {
            if let Some(id) = entry?.file_name().to_str().and_then(|name| name.strip_suffix(PAUSED)) {
                ids.extend(BatchId::new(id));
            }
        }
        Ok(ids)
    }

    /// A batch's items; none if it was never accepted, or only in part.
    ///
    /// # Errors
    /// As the system says.
    pub fn manifest(&self, batch: &BatchId) -> io::Result<Option<Manifest>> {
        match fs::read_to_string(self.layout.manifest(batch)) {
            Ok(text) => Ok(Manifest::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The record as last written; none if there is none or it cannot be read, as it can always be derived anew.
    ///
    /// # Errors
    /// As the system says.
    pub fn record(&self, batch: &BatchId) -> io::Result<Option<BatchRecord>> {
        match fs::read(self.layout.batch_record(batch)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// B4 and B6: replaces the record.
    ///
    /// # Errors
    /// As the system says; the old one stands then.
    pub fn write_record(&self, record: &BatchRecord) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(record)?;
        bytes.push(b'\n');
        replace(&self.layout.batch_record(&record.batch_id), &bytes, false)
    }

    /// Where each item is, by where its file lies; none: it is in no folder, so it has not been expanded yet.
    ///
    /// # Errors
    /// As the system says.
    pub fn states(&self, manifest: &Manifest) -> io::Result<Vec<Option<Status>>> {
        let mut queues = self.layout.queues();
        let own = (manifest.header.task_class, manifest.header.priority);
        // Nearly all that wait do so in the batch's own queue, so that is looked at first.
        queues.sort_by_key(|key| *key != own);
        let mut places: Vec<(Status, PathBuf)> = vec![
            (Status::Complete, self.layout.complete()),
            (Status::Failed, self.layout.failed()),
            (Status::Running, self.layout.processing()),
        ];
        places.extend(
            queues.into_iter().map(|(class, priority)| (Status::Queued, self.layout.queue(class, priority))),
        );
        let folders: Vec<(Status, Folder)> = places
            .into_iter()
            .map(|(status, path)| Ok((status, Folder::open_or_make(path)?)))
            .collect::<io::Result<_>>()?;
        (0..manifest.items.len()).map(|index| state(&folders, manifest.task_id(index))).collect()
    }
}

fn state(folders: &[(Status, Folder)], task: Option<TaskId>) -> io::Result<Option<Status>> {
    let Some(name) = task.as_ref().map(task_file) else { return Ok(None) };
    // Tasks move while we look: what was seen nowhere is looked for once more.
    for _ in 0..2 {
        for (status, folder) in folders {
            if folder.has(&name)? {
                return Ok(Some(*status));
            }
        }
    }
    Ok(None)
}

/// `b`, `c`, …, `z`, `aa`, `ab`, … for 1, 2, …
fn letters(turn: u32) -> String {
    let (mut rest, mut text) = (turn + 1, String::new());
    while rest > 0 {
        rest -= 1;
        text.insert(0, char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    text
}

/// Item indices in the order in which they should start: those of unknown length first, as they may be the longest,
/// then the longest; among equals as they were submitted.
#[must_use]
pub fn longest_first(manifest: &Manifest) -> Vec<usize> {
    let length = |index: &usize| manifest.items[*index].media_s.unwrap_or(f64::INFINITY);
    let mut order: Vec<usize> = (0..manifest.items.len()).collect();
    order.sort_by(|a, b| length(b).total_cmp(&length(a)));
    order
}

/// The tasks of these items, with the ids that repeat for ever: to submit them twice is to submit them once.
#[must_use]
pub fn submissions(manifest: &Manifest, indices: &[usize]) -> Vec<Submission> {
    let header = &manifest.header;
    let of = |index: usize| {
        let item = manifest.items.get(index)?;
        let body = TaskRecord {
            schema_version: Some(model::task::TASK_SCHEMA_VERSION),
            task_class: Some(header.task_class),
            task_type: Some(header.task_type),
            script: Some(header.script.clone()),
            script_args: Some(args(manifest, item)),
            model: header.model.clone(),
            input: Some(item.video_path.clone()),
            output_dir: header.output_dir.clone(),
            priority: Some(header.priority),
            media_s: item.media_s,
            batch_id: Some(header.batch_id.clone()),
            created_at: Some(header.created_at),
            ..TaskRecord::default()
        };
        Some(Submission {
            class: header.task_class,
            priority: header.priority,
            stem: manifest.task_id(index)?,
            demand: true,
            body: Box::new(body),
        })
    };
    indices.iter().filter_map(|index| of(*index)).collect()
}

fn args(manifest: &Manifest, item: &BatchItem) -> Map<String, Value> {
    let mut args = manifest.header.script_args.clone();
    if !manifest.header.formats.is_empty() {
        args.insert("formats".into(), manifest.header.formats.clone().into());
    }
    if !item.outputs.is_empty() {
        let outputs = item.outputs.iter().map(|(format, path)| (format.clone(), Value::String(path.clone())));
        args.insert("outputs".into(), Value::Object(outputs.collect()));
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, SubmitError};
    use model::batch::{BatchHeader, BatchStatus};
    use model::{GpuMode, Priority, TaskClass, TaskType};

    fn house() -> (tempfile::TempDir, Layout, Batches) {
        let dir = crate::rig::folder();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        (dir, layout.clone(), Batches::new(layout, Durability::Power))
    }

    fn manifest(name: &str, lengths: &[Option<f64>]) -> Manifest {
        let header = BatchHeader {
            schema_version: 1,
            batch_id: BatchId::new(name).unwrap(),
            task_class: TaskClass::Script,
            task_type: TaskType::Transcribe,
            script: "whisper".into(),
            model: Some("small.en".into()),
            gpu_mode: GpuMode::Auto,
            priority: Priority::NORMAL,
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            formats: vec!["txt".into()],
            output_dir: None,
            script_args: Map::new(),
            source: "talks".into(),
        };
        let item = |(index, media_s): (usize, &Option<f64>)| BatchItem {
            video_path: format!("/talks/{index}.webm"),
            media_s: *media_s,
            outputs: [("txt".to_owned(), format!("/talks/{index}.txt"))].into(),
        };
        Manifest { header, items: lengths.iter().enumerate().map(item).collect() }
    }

    #[test]
    fn a_batch_is_accepted_whole_or_not_at_all_wherever_its_author_dies() {
        let (_dir, _layout, batches) = house();
        for (point, accepted) in [("batch.B1", false), ("batch.B2", false), ("batch.B3", true)] {
            let manifest = manifest(&format!("talks-{accepted}-{point}"), &[None]);
            crash::at(point, 1, || batches.accept(&manifest)).unwrap_err();
            let found = batches.manifest(&manifest.header.batch_id).unwrap();
            assert_eq!(found.is_some(), accepted, "{point}");
        }
        assert_eq!(batches.list().unwrap().len(), 1);
        let passed = crash::passed(|| batches.accept(&manifest("durable", &[None])).unwrap());
        assert_eq!(passed, ["batch.B1", "sync.files", "batch.B2", "sync.folder", "batch.B3"]);
    }

    #[test]
    fn a_second_batch_of_the_day_gets_a_letter() {
        let (_dir, _layout, batches) = house();
        for wanted in ["talks", "talks.b", "talks.c"] {
            let id = batches.fresh_id("talks").unwrap();
            assert_eq!(id.as_str(), wanted);
            batches.accept(&manifest(wanted, &[None])).unwrap();
        }
        assert!(matches!(batches.accept(&manifest("talks", &[None])), Err(BatchError::Exists(_))));
        assert!(matches!(batches.accept(&manifest("none", &[])), Err(BatchError::Empty(_))));
        assert_eq!([letters(1), letters(25), letters(26), letters(27)], ["b", "z", "aa", "ab"]);
    }

    #[test]
    fn items_are_submitted_once_however_often_a_brain_begins_anew() {
        let (_dir, layout, batches) = house();
        let manifest = manifest("talks", &[Some(10.0), None, Some(99.0)]);
        batches.accept(&manifest).unwrap();
        assert_eq!(longest_first(&manifest), [1, 2, 0]);
        let tasks = submissions(&manifest, &longest_first(&manifest)[..2]);
        let mut ledger = Ledger::new(layout.clone(), Durability::Process);
        crash::at("submit.S5", 1, || ledger.submit(&tasks)).unwrap_err();
        let ids: Vec<_> = ledger.submit(&tasks).into_iter().map(Result::unwrap).collect();
        assert_eq!(ids.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["talks.1", "talks.2"]);
        assert_eq!(batches.states(&manifest).unwrap(), [None, Some(Status::Queued), Some(Status::Queued)]);
        let name = "talks.2.json";
        fs::rename(
            layout.queue(TaskClass::Script, Priority::NORMAL).join(name),
            layout.complete().join(name),
        )
        .unwrap();
        assert_eq!(batches.states(&manifest).unwrap()[2], Some(Status::Complete));
        let again = ledger.submit(&tasks);
        assert!(matches!(&again[..], [Ok(_), Err(SubmitError::Exists { same: true, .. })]), "{again:?}");
    }

    #[test]
    fn a_record_is_replaced_and_can_be_lost() {
        let (_dir, layout, batches) = house();
        let id = BatchId::new("talks").unwrap();
        assert_eq!(batches.record(&id).unwrap(), None);
        let record = BatchRecord {
            schema_version: 1,
            batch_id: id.clone(),
            task_class: TaskClass::Script,
            script: "whisper".into(),
            total_items: 3,
            completed: 1,
            failed: 0,
            gpu_mode: GpuMode::Shared,
            status: BatchStatus::Running,
            paused: false,
            created_at: crate::clock::wall(),
            completed_at: None,
            media_s_done: 10.0,
            media_s_total: 109.0,
            items: None,
            items_file: None,
        };
        batches.write_record(&record).unwrap();
        assert_eq!(batches.record(&id).unwrap(), Some(record));
        fs::write(layout.batch_record(&id), "{torn").unwrap();
        assert_eq!(batches.record(&id).unwrap(), None);
    }
}
