//! What waits: every queued task by entry, and by *shape*, so that a plan looks at heads and never at all tasks.
//!
//! Tasks of one shape differ only in their turn: they stand in one *line*. The tasks of one shape, job type and priority
//! are a *row*: they age together, so their order is that of their arrival for ever, and nothing is sorted again as time
//! passes. Not here: any choice, and how rows are ranked (`order`, `turn`).

mod front;
mod line;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use model::{BatchId, Entry, Millis, Priority, Task, TaskClass, TaskId};

use crate::order::{Ageing, Arrival};
use crate::parked::Parked;
use crate::shape::{HostKey, Shape};
pub(crate) use front::Admission;
use front::Front;
#[cfg(test)]
pub(crate) use front::WIDTH;
pub(crate) use line::{Line, Row, RowKey};

/// Longest first within one priority.
type Length = (Reverse<Priority>, Reverse<u64>, Arrival);

/// A queued task.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    /// When its file was last seen.
    pub seen_at: Millis,
    /// Whether it was said that it waits for a slot.
    pub said_busy: bool,
    /// Whether it was said that GPUs are kept for it.
    pub told_kept: bool,
    /// What it says.
    pub task: Box<Task>,
    /// Arrival.
    pub order: u64,
    /// Not before.
    pub not_before: Option<Millis>,
    /// Since when it waits: when it was first seen, or may start.
    pub since: Millis,
    /// Whether somebody wants it to end.
    pub cancelled: bool,
    /// Its shape.
    pub shape: Shape,
    /// Whether was said that it cannot start here as things are.
    pub told: bool,
}

impl Queued {
    fn row(&self) -> RowKey {
        RowKey { job_type: self.task.job_type.clone(), priority: self.task.priority }
    }

    fn length(&self) -> Length {
        (Reverse(self.task.priority), Reverse(stated_ms(&self.task).unwrap_or(u64::MAX)), self.arrival())
    }
}

/// What a task's length is known by, in milliseconds: its media, else its author's estimate; none where it has neither.
fn stated_ms(task: &Task) -> Option<u64> {
    let seconds = task.media_s.or(task.estimated_duration_sec)?;
    Some(u64::try_from(Millis::from_secs_f64(seconds.max(0.0)).0).unwrap_or_default())
}

/// The same, where nothing counts as nothing.
fn expected_ms(task: &Task) -> u64 {
    stated_ms(task).unwrap_or_default()
}

/// What waits of a batch, added up, so that nobody has to look at every item.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatchTally {
    /// How many items.
    pub count: u64,
    /// How many of them say how long their media is, and how long that is together.
    pub with_media: u64,
    /// Their media together, in milliseconds.
    pub media_ms: u64,
    /// How many of the others have an estimate of their author.
    pub estimated: u64,
    /// Their estimates together, in milliseconds.
    pub estimated_ms: u64,
    /// What runs them.
    pub host: Option<HostKey>,
}

impl BatchTally {
    fn add(&mut self, item: &Queued) {
        self.count += 1;
        if self.host.is_none() {
            self.host = item.shape.host().cloned();
        }
        if item.task.media_s.is_some() {
            self.with_media += 1;
            self.media_ms = self.media_ms.saturating_add(expected_ms(&item.task));
        } else if item.task.estimated_duration_sec.is_some() {
            self.estimated += 1;
            self.estimated_ms = self.estimated_ms.saturating_add(expected_ms(&item.task));
        }
    }

    fn take(&mut self, item: &Queued) {
        self.count = self.count.saturating_sub(1);
        if item.task.media_s.is_some() {
            self.with_media = self.with_media.saturating_sub(1);
            self.media_ms = self.media_ms.saturating_sub(expected_ms(&item.task));
        } else if item.task.estimated_duration_sec.is_some() {
            self.estimated = self.estimated.saturating_sub(1);
            self.estimated_ms = self.estimated_ms.saturating_sub(expected_ms(&item.task));
        }
    }
}

/// Everything that waits.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    items: BTreeMap<Entry, Queued>,
    lines: BTreeMap<Shape, Line>,
    front: Front,
    parked: Parked,
    by_id: BTreeMap<TaskId, BTreeSet<Entry>>,
    by_batch: BTreeMap<BatchId, BatchTally>,
    cancelled: BTreeSet<Entry>,
    /// Startable chatbots, by priority and arrival.
    chatbots: BTreeMap<(Reverse<Priority>, u64), Entry>,
    known: BTreeMap<(TaskClass, Priority), u64>,
    unparsed: BTreeMap<(TaskClass, Priority), u64>,
    now: Millis,
}

impl Queue {
    /// An empty one, where tasks age like this.
    pub(crate) const fn new(ageing: Ageing) -> Self {
        Self {
            items: BTreeMap::new(),
            lines: BTreeMap::new(),
            front: Front::new(ageing),
            parked: Parked::new(),
            by_id: BTreeMap::new(),
            by_batch: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            chatbots: BTreeMap::new(),
            known: BTreeMap::new(),
            unparsed: BTreeMap::new(),
            now: Millis::ZERO,
        }
    }

    /// Takes a task in, or replaces what was known of its entry.
    pub(crate) fn insert(&mut self, entry: Entry, item: Queued, now: Millis) {
        if self.remove(&entry).is_none() {
            let unparsed = self.unparsed.entry((entry.class, entry.priority)).or_default();
            *unparsed = unparsed.saturating_sub(1);
        }
        *self.known.entry((entry.class, entry.priority)).or_default() += 1;
        self.by_id.entry(item.task.task_id.clone()).or_default().insert(entry.clone());
        if let Some(batch) = &item.task.batch_id {
            self.by_batch.entry(batch.clone()).or_default().add(&item);
        }
        if item.cancelled {
            self.cancelled.insert(entry.clone());
        } else if let Some(time) = item.not_before.filter(|time| *time > now) {
            self.parked.insert(time, entry.clone());
        } else {
            self.line_up(&entry, &item);
        }
        self.items.insert(entry, item);
    }

    /// Takes a task out.
    pub(crate) fn remove(&mut self, entry: &Entry) -> Option<Queued> {
        let item = self.items.remove(entry)?;
        if let Some(known) = self.known.get_mut(&(entry.class, entry.priority)) {
            *known = known.saturating_sub(1);
        }
        if let Some(same) = self.by_id.get_mut(&item.task.task_id) {
            same.remove(entry);
            if same.is_empty() {
                self.by_id.remove(&item.task.task_id);
            }
        }
        if let Some(batch) = &item.task.batch_id
            && let Some(tally) = self.by_batch.get_mut(batch)
        {
            tally.take(&item);
            if tally.count == 0 {
                self.by_batch.remove(batch);
            }
        }
        self.cancelled.remove(entry);
        if let Some(time) = item.not_before {
            self.parked.remove(time, entry);
        }
        self.step_out(&item);
        Some(item)
    }

    fn line_up(&mut self, entry: &Entry, item: &Queued) {
        if item.task.is_chatbot() && item.shape.class() == TaskClass::Llm {
            self.chatbots.insert((Reverse(item.task.priority), item.order), entry.clone());
        }
        let row = item.row();
        let line = self.lines.entry(item.shape.clone()).or_default();
        let before = line.first_of(&row);
        line.insert(entry, item, self.now);
        self.front.moves(&item.shape, &row, before, line.first_of(&row));
    }

    fn step_out(&mut self, item: &Queued) {
        if item.task.is_chatbot() {
            self.chatbots.remove(&(Reverse(item.task.priority), item.order));
        }
        if let Some(line) = self.lines.get_mut(&item.shape) {
            let row = item.row();
            let before = line.first_of(&row);
            line.remove(item, self.now);
            self.front.moves(&item.shape, &row, before, line.first_of(&row));
            if line.len() == 0 {
                self.lines.remove(&item.shape);
            }
        }
    }

    /// Lets those whose time has come stand in line.
    pub(crate) fn pass_time(&mut self, now: Millis) {
        self.now = now;
        while let Some(entry) = self.parked.pop(now) {
            if let Some(mut item) = self.items.remove(&entry) {
                item.not_before = None;
                self.line_up(&entry, &item);
                self.items.insert(entry, item);
            }
        }
    }

    /// Marks every task of this id; says whether there was one.
    pub(crate) fn cancel(&mut self, task_id: &TaskId) -> bool {
        let entries: Vec<Entry> = self.by_id.get(task_id).into_iter().flatten().cloned().collect();
        for entry in &entries {
            if let Some(mut item) = self.items.remove(entry) {
                self.step_out(&item);
                if let Some(time) = item.not_before {
                    self.parked.remove(time, entry);
                }
                item.cancelled = true;
                item.not_before = None;
                self.cancelled.insert(entry.clone());
                self.items.insert(entry.clone(), item);
            }
        }
        !entries.is_empty()
    }

    /// Notes of a task that was said why it cannot start.
    pub(crate) fn note_told(&mut self, task_id: &TaskId) {
        for entry in self.by_id.get(task_id).into_iter().flatten() {
            if let Some(item) = self.items.get_mut(entry) {
                item.told = true;
            }
        }
    }

    /// It was said that this task waits for a slot.
    pub(crate) fn said_busy(&mut self, task_id: &TaskId) {
        let entries: Vec<Entry> = self.by_id.get(task_id).into_iter().flatten().cloned().collect();
        for entry in entries {
            if let Some(item) = self.items.get_mut(&entry) {
                item.said_busy = true;
            }
        }
    }

    /// It was said that GPUs are kept for this task.
    pub(crate) fn said_kept(&mut self, task_id: &TaskId) {
        for entry in self.by_id.get(task_id).into_iter().flatten() {
            if let Some(item) = self.items.get_mut(entry) {
                item.told_kept = true;
            }
        }
    }

    /// Replaces the folder counts.
    pub(crate) fn count(&mut self, counts: &BTreeMap<(TaskClass, Priority), u64>) {
        self.unparsed = counts
            .iter()
            .map(|(folder, count)| {
                (*folder, count.saturating_sub(self.known.get(folder).copied().unwrap_or_default()))
            })
            .collect();
    }

    /// One task.
    pub(crate) fn get(&self, entry: &Entry) -> Option<&Queued> {
        self.items.get(entry)
    }

    /// All of them, by entry.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&Entry, &Queued)> {
        self.items.iter()
    }

    /// Those that wish for, or demand, this id.
    pub(crate) fn by_id(&self, task_id: &TaskId) -> impl Iterator<Item = &Entry> {
        self.by_id.get(task_id).into_iter().flatten()
    }

    /// Startable tasks by shape, all of them; items of paused batches are not among them. For views: a plan looks at the
    /// front.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&Shape, &Line)> {
        self.lines.iter().filter(|(shape, _)| !self.is_paused(shape))
    }

    /// The lines that a plan looks at; items of paused batches are not among them.
    pub(crate) fn front(&self) -> impl Iterator<Item = (&Shape, &Line)> {
        self.front.shapes(false).into_iter().filter_map(|shape| self.lines.get_key_value(shape))
    }

    /// LLM tasks of chatbots that may start, the most urgent first, then by arrival.
    pub(crate) fn chatbots(&self) -> impl Iterator<Item = &Entry> {
        self.chatbots.values()
    }

    /// Whether it is the first of a row that a plan looks at.
    pub(crate) fn is_at_front(&self, item: &Queued) -> bool {
        self.front.has(&item.shape, &item.row(), item.arrival())
    }

    /// Items of paused batches by shape: those that are looked at.
    pub(crate) fn paused_front(&self) -> impl Iterator<Item = (&Shape, &Line)> {
        self.front.shapes(true).into_iter().filter_map(|shape| self.lines.get_key_value(shape))
    }

    /// Items of paused batches by shape, all of them.
    pub(crate) fn paused_lines(&self) -> impl Iterator<Item = (&Shape, &Line)> {
        self.lines.iter().filter(|(shape, _)| self.is_paused(shape))
    }

    /// What a batch asks for from now on.
    pub(crate) fn admit(&mut self, batch: &BatchId, admission: Admission) {
        self.front.admit(batch, admission);
    }

    /// Whether tasks of this shape are items of a paused batch.
    pub(crate) fn is_paused(&self, shape: &Shape) -> bool {
        self.front.admission(shape.batch.as_ref()) == Admission::Paused
    }

    /// Whether scripts wait for a GPU.
    pub(crate) fn has_scripts_for_gpus(&self) -> bool {
        self.front.any_kind(|shape| shape.class() == TaskClass::Script && !shape.in_cpu_lane())
    }

    /// The startable tasks of this shape.
    pub(crate) fn line(&self, shape: &Shape) -> Option<&Line> {
        self.lines.get(shape)
    }

    /// Those that somebody wants to end.
    pub(crate) fn cancelled(&self) -> impl Iterator<Item = &Entry> {
        self.cancelled.iter()
    }

    /// Parked tasks whose time has come since the last event, by time.
    pub(crate) fn matured(&self, now: Millis) -> impl Iterator<Item = &Entry> {
        self.parked.due(now)
    }

    /// When the next parked task after `now` may start.
    pub(crate) fn next_due(&self, now: Millis) -> Option<Millis> {
        self.parked.next_after(now)
    }

    /// Tasks that are not to start yet: class by class, by time.
    pub(crate) fn parked(&self) -> impl Iterator<Item = &Entry> {
        self.parked.iter()
    }

    /// The first parked task of a class, by time.
    pub(crate) fn first_parked(&self, class: TaskClass) -> Option<&Entry> {
        self.parked.first_of(class)
    }

    /// Tasks of a batch that wait, parked ones included.
    pub(crate) fn of_batch(&self, batch: &BatchId) -> u64 {
        self.by_batch.get(batch).map_or(0, |tally| tally.count)
    }

    /// What is waiting of a batch, added up.
    pub(crate) fn tally(&self, batch: &BatchId) -> Option<&BatchTally> {
        self.by_batch.get(batch)
    }

    /// Files in a queue folder: parsed, and counted only.
    pub(crate) fn in_folder(&self, folder: (TaskClass, Priority)) -> u64 {
        let known = self.known.get(&folder).copied().unwrap_or_default();
        known + self.unparsed.get(&folder).copied().unwrap_or_default()
    }

    /// Files that were counted and not yet read.
    pub(crate) fn unparsed(&self, class: TaskClass) -> u64 {
        self.unparsed.iter().filter(|((of, _), _)| *of == class).map(|(_, count)| count).sum()
    }

    /// Lets a plan look at fewer lines.
    #[cfg(test)]
    pub(crate) const fn narrow(&mut self, width: usize) {
        self.front.narrow(width);
    }

    /// Takes one out of line that still waits, which nobody else does.
    #[cfg(test)]
    pub(crate) fn misplace(&mut self, task_id: &TaskId) {
        let entries: Vec<Entry> = self.by_id(task_id).cloned().collect();
        for entry in entries {
            if let Some(item) = self.items.remove(&entry) {
                self.step_out(&item);
                self.items.insert(entry, item);
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
