//! Batches: manifests are expanded into task files, a bounded number at a time, and counted by what became of them.
//!
//! The manifest is the truth; counters are recomputed from item files at start and kept by the ends of tasks. Not
//! here: when a batch gets the GPUs.

use std::collections::{BTreeMap, BTreeSet};

use model::batch::{
    BATCH_SCHEMA_VERSION, BatchItemState, BatchRecord, BatchStatus, LISTED_ITEMS_MAX, Manifest,
};
use model::{BatchId, Config, Entry, Millis, Status, TaskId, TaskRecord};
use policy::event::{BatchFacts, Event};
use spool::batch::{self, Batches as Shelf};
use spool::clock;
use spool::layout::Layout;
use spool::ledger::{Ledger, SubmitError};

/// Items of one batch that lie in queue folders at once; the rest waits in the manifest.
const OUTSTANDING_MAX: usize = 1_000;
/// Items put into queues in one turn: one group of durable submits, so that a large batch never holds up the loop.
const EXPANDED_PER_TURN: usize = 64;
/// How long a batch waits after an item could not be put into its queue.
const EXPAND_AGAIN: Millis = Millis(1_000);
/// A batch record is written at most this often.
const RECORD_EVERY: Millis = Millis(1_000);

/// A batch that is not over.
#[derive(Debug)]
struct Live {
    manifest: Manifest,
    /// Item indices that have no file yet, the longest expected first.
    unexpanded: Vec<usize>,
    states: Vec<Status>,
    completed: usize,
    failed: usize,
    media_s_done: f64,
    /// From how many items on the mode `auto` is exclusive.
    threshold: u32,
    cancelled: bool,
    /// Whether its mark says that it is paused.
    paused: bool,
    /// Not to be expanded before.
    expand_at: Millis,
    written: Millis,
    changed: bool,
}

/// All batches that are not over.
#[derive(Debug)]
pub(crate) struct Batches {
    shelf: Shelf,
    threshold: u32,
    live: BTreeMap<BatchId, Live>,
    over: BTreeSet<BatchId>,
}

impl Live {
    fn remaining(&self) -> usize {
        self.manifest.items.len() - self.completed - self.failed
    }

    fn outstanding(&self) -> usize {
        self.remaining() - self.unexpanded.len()
    }

    /// How many more items may lie in queue folders.
    fn room(&self) -> usize {
        let bound = if self.cancelled { usize::MAX } else { OUTSTANDING_MAX };
        bound.saturating_sub(self.outstanding()).min(self.unexpanded.len())
    }

    fn facts(&self) -> BatchFacts {
        BatchFacts {
            batch_id: self.manifest.header.batch_id.clone(),
            script: self.manifest.header.script.clone(),
            gpu_mode: self.manifest.header.gpu_mode,
            total: self.manifest.items.len() as u64,
            completed: self.completed as u64,
            failed: self.failed as u64,
            paused: self.paused,
        }
    }

    fn record(&self) -> BatchRecord {
        let header = &self.manifest.header;
        let listed = self.manifest.items.len() <= LISTED_ITEMS_MAX;
        let over = self.remaining() == 0;
        BatchRecord {
            schema_version: BATCH_SCHEMA_VERSION,
            batch_id: header.batch_id.clone(),
            task_class: header.task_class,
            script: header.script.clone(),
            total_items: self.manifest.items.len(),
            completed: self.completed,
            failed: self.failed,
            gpu_mode: self.facts().mode(self.threshold),
            status: match (over, self.failed, self.completed + self.failed) {
                (true, 0, _) => BatchStatus::Complete,
                (true, _, _) => BatchStatus::CompleteWithFailures,
                (false, _, 0) => BatchStatus::Accepted,
                (false, _, _) => BatchStatus::Running,
            },
            paused: self.paused && !over,
            created_at: header.created_at,
            completed_at: over.then(clock::wall),
            media_s_done: self.media_s_done,
            media_s_total: self.manifest.media_s().0,
            items: listed.then(|| self.item_states()),
            items_file: (!listed).then(|| spool::layout::manifest_file(&header.batch_id)),
        }
    }

    fn item_states(&self) -> Vec<BatchItemState> {
        let items = self.manifest.items.iter().zip(&self.states).enumerate();
        items
            .filter_map(|(index, (item, status))| {
                let task_id = self.manifest.task_id(index)?;
                Some(BatchItemState { video_path: item.video_path.clone(), status: *status, task_id })
            })
            .collect()
    }

    /// Notes the end of an item; false if it had ended before.
    fn end(&mut self, index: usize, status: Status) -> bool {
        let Some(state) = self.states.get_mut(index) else { return false };
        if matches!(state, Status::Complete | Status::Failed) {
            return false;
        }
        *state = status;
        self.unexpanded.retain(|left| *left != index);
        if status == Status::Complete {
            self.completed += 1;
        } else {
            self.failed += 1;
        }
        self.media_s_done += self.manifest.items.get(index).and_then(|item| item.media_s).unwrap_or_default();
        self.changed = true;
        true
    }
}

impl Batches {
    pub(crate) fn new(layout: &Layout, config: &Config) -> Self {
        let threshold = config.resource_manager.batch_settings.auto_exclusive_threshold;
        let shelf = Shelf::new(layout.clone(), config.durability);
        Self { shelf, threshold, live: BTreeMap::new(), over: BTreeSet::new() }
    }

    /// Whether any item has not ended that will start by itself: those of paused batches will not.
    pub(crate) fn any_under_way(&self) -> bool {
        self.live.values().any(|live| !live.paused || live.cancelled)
    }

    /// Whether `id` names a batch that is not over.
    pub(crate) fn is_live(&self, id: &BatchId) -> bool {
        self.live.contains_key(id)
    }

    /// Whether a batch that is not over is paused.
    pub(crate) fn is_paused(&self, id: &BatchId) -> bool {
        self.live.get(id).is_some_and(|live| live.paused)
    }

    /// Takes up manifests that are new here; the answer is facts.
    pub(crate) fn look(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let ids = match self.shelf.list() {
            Ok(ids) => ids,
            Err(error) => {
                tracing::warn!(%error, "failed to list the batches");
                return events;
            }
        };
        for id in ids {
            if self.live.contains_key(&id) || self.over.contains(&id) {
                continue;
            }
            match self.shelf.manifest(&id) {
                Ok(Some(manifest)) => self.take_up(id, manifest, &mut events),
                Ok(None) => {}
                Err(error) => tracing::warn!(batch = %id, %error, "failed to read a manifest"),
            }
        }
        events.extend(self.look_for_marks());
        events
    }

    /// Which batches are paused is what their marks say; the answer is what changed.
    fn look_for_marks(&mut self) -> Vec<Event> {
        let marked = match self.shelf.paused() {
            Ok(marked) => marked,
            Err(error) => {
                tracing::warn!(%error, "failed to see which batches are paused");
                return Vec::new();
            }
        };
        let mut events = Vec::new();
        for (id, live) in &mut self.live {
            let paused = marked.contains(id);
            if live.paused != paused {
                live.paused = paused;
                live.changed = true;
                events.push(Event::Batch(live.facts()));
            }
        }
        events
    }

    /// Pauses a batch, or lets it go on, durably; what came of it as a word, and the facts that follow.
    pub(crate) fn pause(&mut self, id: &BatchId, paused: bool) -> (&'static str, Vec<Event>) {
        let outcome = match self.shelf.pause(id, paused) {
            Ok(true) if paused => "paused",
            Ok(true) => "resumed",
            Ok(false) if paused => "already_paused",
            Ok(false) => "not_paused",
            Err(error) => {
                tracing::warn!(batch = %id, %error, "failed to write a batch's mark");
                "failed"
            }
        };
        (outcome, self.look_for_marks())
    }

    fn take_up(&mut self, id: BatchId, manifest: Manifest, events: &mut Vec<Event>) {
        let states = match self.shelf.states(&manifest) {
            Ok(states) => states,
            Err(error) => {
                tracing::warn!(batch = %id, %error, "failed to see where a batch's items are");
                return;
            }
        };
        // Taken from the end, so the one that should start first stands last.
        let mut unexpanded = batch::longest_first(&manifest);
        unexpanded.retain(|index| states.get(*index).is_some_and(Option::is_none));
        unexpanded.reverse();
        let mut live = Live {
            unexpanded,
            states: vec![Status::Queued; manifest.items.len()],
            completed: 0,
            failed: 0,
            media_s_done: 0.0,
            threshold: self.threshold,
            cancelled: false,
            paused: false,
            expand_at: Millis::ZERO,
            written: Millis::ZERO,
            changed: true,
            manifest,
        };
        for (index, state) in states.into_iter().enumerate() {
            match state {
                Some(ended @ (Status::Complete | Status::Failed)) => drop(live.end(index, ended)),
                Some(other) => live.states[index] = other,
                None => {}
            }
        }
        if live.remaining() == 0 && self.is_recorded_over(&id) {
            self.over.insert(id);
            return;
        }
        tracing::info!(batch = %id, items = live.manifest.items.len(), mode = ?live.facts().mode(live.threshold), "batch accepted");
        // Its mark is looked for at the end of this look, before anything of it starts.
        events.push(Event::Batch(live.facts()));
        self.live.insert(id, live);
    }

    fn is_recorded_over(&self, id: &BatchId) -> bool {
        let record = self.shelf.record(id).ok().flatten();
        record.is_some_and(|record| {
            matches!(record.status, BatchStatus::Complete | BatchStatus::CompleteWithFailures)
        })
    }

    /// Whether `id` names a batch that is over.
    pub(crate) fn is_over(&self, id: &BatchId) -> bool {
        self.over.contains(id)
    }

    /// Expands what has room, writes records that are due; true if there is more to expand right away.
    pub(crate) fn work(&mut self, ledger: &mut Ledger, now: Millis) -> Vec<Entry> {
        let mut queued = Vec::new();
        for live in self.live.values_mut() {
            let room = live.room().min(EXPANDED_PER_TURN);
            if room > 0 && now >= live.expand_at {
                let first = live.unexpanded.split_off(live.unexpanded.len() - room);
                let indices: Vec<usize> = first.into_iter().rev().collect();
                queued.extend(expand(live, &indices, ledger, now));
            }
        }
        self.write_records(now);
        queued
    }

    fn write_records(&mut self, now: Millis) {
        let mut over = Vec::new();
        for (id, live) in &mut self.live {
            let ended = live.remaining() == 0;
            if !live.changed || (!ended && now - live.written < RECORD_EVERY) {
                continue;
            }
            match self.shelf.write_record(&live.record()) {
                Ok(()) => {
                    live.changed = false;
                    live.written = now;
                    if ended {
                        over.push(id.clone());
                    }
                }
                Err(error) => tracing::warn!(batch = %id, %error, "failed to write a batch record"),
            }
        }
        for id in over {
            tracing::info!(batch = %id, "batch over");
            if let Err(error) = self.shelf.pause(&id, false) {
                tracing::warn!(batch = %id, %error, "failed to remove the mark of a batch that is over");
            }
            self.live.remove(&id);
            self.over.insert(id);
        }
    }

    /// When more items can be put into queues.
    pub(crate) fn expand_due(&self) -> Option<Millis> {
        self.live.values().filter(|live| live.room() > 0).map(|live| live.expand_at).min()
    }

    /// When a record is due.
    pub(crate) fn record_due(&self) -> Option<Millis> {
        self.live.values().filter(|live| live.changed).map(|live| live.written + RECORD_EVERY).min()
    }

    /// Counts the end of a task, if it is an item; the answer is a fact.
    pub(crate) fn ended(&mut self, task_id: &TaskId, record: &TaskRecord) -> Option<Event> {
        let (batch, index) = record.batch_id.as_ref().zip(task_id.as_str().rsplit_once('.'))?;
        let index: usize = index.1.parse().ok()?;
        let live = self.live.get_mut(batch)?;
        let status = if record.status == Some(Status::Complete) { Status::Complete } else { Status::Failed };
        live.end(index, status).then(|| Event::Batch(live.facts()))
    }

    /// Notes that an item runs, for its record.
    pub(crate) fn started(&mut self, task_id: &TaskId) {
        let Some((batch, index)) = task_id.as_str().rsplit_once('.') else { return };
        let live = BatchId::new(batch).ok().and_then(|id| self.live.get_mut(&id));
        if let (Some(live), Ok(index)) = (live, index.parse::<usize>())
            && let Some(state) = live.states.get_mut(index)
            && *state == Status::Queued
        {
            *state = Status::Running;
            live.changed = true;
        }
    }

    /// Marks a batch for its end: the rest is expanded and each item cancelled as it is seen.
    pub(crate) fn cancel(&mut self, id: &BatchId) -> Vec<TaskId> {
        let Some(live) = self.live.get_mut(id) else { return Vec::new() };
        live.cancelled = true;
        (0..live.manifest.items.len())
            .filter(|index| !matches!(live.states[*index], Status::Complete | Status::Failed))
            .filter_map(|index| live.manifest.task_id(index))
            .collect()
    }

    /// Whether items of this batch are to be cancelled as they are seen.
    pub(crate) fn is_cancelled(&self, id: &BatchId) -> bool {
        self.live.get(id).is_some_and(|live| live.cancelled)
    }
}

/// Puts items into their queue; those that could not be put there stay unexpanded and are tried again.
fn expand(live: &mut Live, indices: &[usize], ledger: &mut Ledger, now: Millis) -> Vec<Entry> {
    let tasks = batch::submissions(&live.manifest, indices);
    let outcomes = ledger.submit(&tasks);
    let mut queued = Vec::new();
    for ((index, task), outcome) in indices.iter().zip(&tasks).zip(outcomes) {
        match outcome {
            Ok(id) => {
                let name = spool::layout::task_file(&id);
                queued.push(Entry { class: task.class, priority: task.priority, name });
            }
            // It was put there before; the scan finds it.
            Err(SubmitError::Exists { .. }) => {}
            Err(error) => {
                tracing::warn!(task = %task.stem, %error, "a batch's item could not be put into its queue yet");
                live.unexpanded.push(*index);
                live.expand_at = now + EXPAND_AGAIN;
            }
        }
    }
    queued
}
