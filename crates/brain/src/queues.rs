//! From files in queue folders to facts: which names there are, and what the bodies near the head say.
//!
//! Names alone are indexed; a bounded number of bodies per folder is parsed and known to the mind. Not here: what is
//! claimed next.

use std::collections::{BTreeMap, BTreeSet};

use model::validate::Folder;
use model::{Code, Config, Entry, Fault, Millis, Priority, Task, TaskClass, TaskRecord};
use policy::event::Event;
use spool::clock;
use spool::intake::{Intake, Verdict};
use spool::layout::Layout;
use spool::ledger::{Ledger, fresh_id};
use spool::scan::{Dirty, HeldFile, Scanner};

/// Parsed bodies the mind chooses among, per folder: enough for any fair order, and memory stays bounded.
const PARSED_MAX: usize = 4_096;
/// Bodies read in one turn, so that a flood of files never holds up the loop for long.
const READ_PER_TURN: usize = 512;
/// How long a file that is held (unreadable, not regular) is left alone.
const HELD_AGAIN: Millis = Millis(5_000);

type FolderKey = (TaskClass, Priority);

/// The queue folders as this brain knows them.
#[derive(Debug)]
pub(crate) struct Queues {
    layout: Layout,
    scanner: Scanner,
    intake: Intake,
    /// Names whose bodies have not been read, by order of arrival.
    unread: BTreeMap<FolderKey, BTreeMap<u64, Entry>>,
    /// Names the mind knows.
    parsed: BTreeMap<Entry, u64>,
    parsed_in: BTreeMap<FolderKey, usize>,
    /// Names to look at again, and when.
    later: BTreeMap<Entry, (Millis, u64)>,
    /// Why names wait outside the mind.
    settling: BTreeMap<Entry, String>,
    held: BTreeMap<Entry, String>,
    /// Files that are no tasks, and stay.
    left_alone: Vec<HeldFile>,
    /// Whether folders are to be looked at; `dirty` are those to be listed even if their time stands.
    glance: bool,
    dirty: Dirty,
    closed: BTreeSet<Entry>,
    counts_changed: bool,
}

impl Queues {
    pub(crate) fn new(layout: Layout, config: &Config, config_owner: Option<u32>) -> Self {
        Self {
            scanner: Scanner::new(layout.clone()),
            intake: Intake::new(config).config_owner(config_owner),
            layout,
            unread: BTreeMap::new(),
            parsed: BTreeMap::new(),
            parsed_in: BTreeMap::new(),
            later: BTreeMap::new(),
            settling: BTreeMap::new(),
            held: BTreeMap::new(),
            left_alone: Vec::new(),
            glance: true,
            dirty: everything(),
            closed: BTreeSet::new(),
            counts_changed: true,
        }
    }

    /// A folder may have changed.
    pub(crate) fn folder_touched(&mut self, class: TaskClass, priority: Priority) {
        self.dirty.queues.insert((class, priority));
        self.glance = true;
    }

    /// Events were lost: all folders are to be listed.
    pub(crate) fn all_touched(&mut self) {
        self.dirty = everything();
        self.glance = true;
    }

    /// Time has passed: folders whose own time has moved are to be listed.
    pub(crate) const fn glance(&mut self) {
        self.glance = true;
    }

    /// A file was made (`closed`: its writer is done with it, so it need not settle).
    pub(crate) fn appeared(&mut self, entry: Entry, closed: bool) {
        if closed {
            if let Some((at, _)) = self.later.get_mut(&entry) {
                *at = Millis::ZERO;
            }
            self.closed.insert(entry.clone());
        }
        if let Some(order) = self.scanner.notice(&entry) {
            self.counts_changed = true;
            self.unread.entry((entry.class, entry.priority)).or_default().insert(order, entry);
        }
    }

    /// A file is gone; a fact, if it was known and not moved by us.
    pub(crate) fn gone(&mut self, entry: &Entry) -> Option<Event> {
        if !self.scanner.vanished(entry) {
            return None;
        }
        let known = self.parsed.contains_key(entry);
        self.drop_known(entry);
        known.then(|| Event::Unqueued(entry.clone()))
    }

    /// We moved this file out of its folder.
    pub(crate) fn forget(&mut self, entry: &Entry) {
        self.scanner.forget(entry);
        self.drop_known(entry);
    }

    /// We put this file into its folder.
    pub(crate) fn remember(&mut self, entry: Entry) {
        let order = self.scanner.remember(&entry);
        self.closed.insert(entry.clone());
        self.unread.entry((entry.class, entry.priority)).or_default().insert(order, entry);
        self.counts_changed = true;
    }

    /// We put a file back that the mind still knows.
    pub(crate) fn restore(&mut self, entry: Entry) {
        let order = self.scanner.remember(&entry);
        *self.parsed_in.entry((entry.class, entry.priority)).or_default() += 1;
        self.parsed.insert(entry, order);
        self.counts_changed = true;
    }

    /// Whether names wait to be read or to settle.
    pub(crate) fn is_settled(&self) -> bool {
        self.unread.values().all(BTreeMap::is_empty)
            && self.settling.is_empty()
            && self.dirty == Dirty::default()
    }

    /// Whether there is more to do without waiting.
    pub(crate) fn has_more(&self) -> bool {
        self.glance || self.readable_folder().is_some()
    }

    /// When a file should be looked at again.
    pub(crate) fn look_again(&self) -> Option<Millis> {
        self.later.values().map(|(at, _)| *at).min()
    }

    /// What would be made of this task as a file in its queue, and until when it would be parked.
    pub(crate) fn judged(&self, record: &TaskRecord, now: Millis) -> Result<(Task, Option<Millis>), Fault> {
        let class = record.task_class.unwrap_or(TaskClass::Script);
        let priority = record.priority.unwrap_or_default();
        let fresh = fresh_id();
        let bytes =
            serde_json::to_vec(record).map_err(|error| Fault::new(Code::InvalidJson, error.to_string()))?;
        let place = Folder { class, priority, stem: fresh.as_str(), fresh: &fresh };
        let task = self.intake.judged(&bytes, &place)?;
        let not_before = not_before(&task, now);
        Ok((task, not_before))
    }

    /// Why a file waits outside the mind, by its name's stem.
    pub(crate) fn waiting_outside(&self, stem: &str) -> Option<model::Reason> {
        let named = |entry: &&Entry| entry.name.strip_suffix(".json") == Some(stem);
        if let Some((_, detail)) = self.settling.iter().find(|(entry, _)| named(entry)) {
            return Some(model::Reason::Settling { detail: detail.clone() });
        }
        self.held
            .iter()
            .find(|(entry, _)| named(entry))
            .map(|(_, detail)| model::Reason::Held { detail: detail.clone() })
    }

    /// Sentences about files that stay where they are.
    pub(crate) fn notices(&self) -> impl Iterator<Item = String> {
        let held = self.held.iter().map(|(entry, detail)| {
            format!(
                "{}_queue/priority_{}/{}: {detail}",
                entry.class,
                entry.priority,
                entry.name.escape_debug()
            )
        });
        held.chain(self.left_alone.iter().map(|file| format!("{}: {}", file.path.display(), file.detail)))
    }

    /// Looks at what may have changed; the answer is facts.
    pub(crate) fn look(&mut self, ledger: &mut Ledger) -> Vec<Event> {
        let mut events = Vec::new();
        self.scan(&mut events);
        let now = clock::now();
        let due: Vec<Entry> =
            self.later.iter().filter(|(_, (at, _))| *at <= now).map(|(entry, _)| entry.clone()).collect();
        for entry in due {
            if let Some((_, order)) = self.later.remove(&entry) {
                self.read(entry, order, ledger, now, &mut events);
            }
        }
        for _ in 0..READ_PER_TURN {
            let Some(folder) = self.readable_folder() else { break };
            let Some((order, entry)) = self.unread.get_mut(&folder).and_then(BTreeMap::pop_first) else {
                break;
            };
            self.read(entry, order, ledger, now, &mut events);
        }
        if std::mem::take(&mut self.counts_changed) {
            events.push(Event::Counted(self.scanner.counts()));
        }
        events
    }

    fn scan(&mut self, events: &mut Vec<Event>) {
        if !std::mem::take(&mut self.glance) {
            return;
        }
        let scan = self.scanner.scan(&std::mem::take(&mut self.dirty));
        for (entry, order) in scan.appeared {
            self.counts_changed = true;
            self.unread.entry((entry.class, entry.priority)).or_default().insert(order, entry);
        }
        for entry in scan.vanished {
            self.counts_changed = true;
            if self.parsed.contains_key(&entry) {
                events.push(Event::Unqueued(entry.clone()));
            }
            self.drop_known(&entry);
        }
        self.left_alone = scan.held;
    }

    /// The most urgent folder with unread names and room for their bodies.
    fn readable_folder(&self) -> Option<FolderKey> {
        let room = |folder: &FolderKey| self.parsed_in.get(folder).is_none_or(|count| *count < PARSED_MAX);
        self.unread
            .iter()
            .filter(|(folder, names)| !names.is_empty() && room(folder))
            .map(|(folder, _)| *folder)
            .max_by_key(|(_, priority)| *priority)
    }

    fn read(&mut self, entry: Entry, order: u64, ledger: &mut Ledger, now: Millis, events: &mut Vec<Event>) {
        let closed = self.closed.remove(&entry);
        self.settling.remove(&entry);
        self.held.remove(&entry);
        match self.intake.read(&self.layout, &entry, now, closed) {
            Verdict::Ready(mut task) => {
                // A person need not say when: it is when the file was first understood.
                task.created_at.get_or_insert_with(spool::clock::wall);
                self.parsed.insert(entry.clone(), order);
                *self.parsed_in.entry((entry.class, entry.priority)).or_default() += 1;
                let not_before = not_before(&task, now);
                events.push(Event::Queued { entry, task, order, not_before });
            }
            Verdict::Settling { look_again, detail } => {
                self.settling.insert(entry.clone(), detail);
                self.later.insert(entry, (look_again, order));
            }
            Verdict::Held { code, detail } => {
                tracing::warn!(file = %entry.name.escape_debug(), code, "a file stays in its queue: {detail}");
                self.held.insert(entry.clone(), detail);
                self.later.insert(entry, (now + HELD_AGAIN, order));
            }
            Verdict::Rejected(fault) => {
                tracing::warn!(file = %entry.name.escape_debug(), "rejected: {fault}");
                match ledger.reject(&entry, &fault) {
                    Ok(_) => self.forget(&entry),
                    Err(error) => {
                        tracing::warn!(file = %entry.name.escape_debug(), %error, "failed to move a rejected file aside");
                        self.later.insert(entry, (now + HELD_AGAIN, order));
                    }
                }
                self.counts_changed = true;
            }
            Verdict::Gone => {
                self.scanner.vanished(&entry);
                self.drop_known(&entry);
            }
        }
    }

    fn drop_known(&mut self, entry: &Entry) {
        if self.parsed.remove(entry).is_some()
            && let Some(count) = self.parsed_in.get_mut(&(entry.class, entry.priority))
        {
            *count = count.saturating_sub(1);
        }
        if let Some(names) = self.unread.get_mut(&(entry.class, entry.priority)) {
            names.retain(|_, name| name != entry);
        }
        self.later.remove(entry);
        self.settling.remove(entry);
        self.held.remove(entry);
        self.closed.remove(entry);
        self.intake.forget(entry);
        self.counts_changed = true;
    }
}

fn everything() -> Dirty {
    Dirty { all: true, ..Dirty::default() }
}

/// The task's wall-clock `not_before` on the machine's own time line.
fn not_before(task: &Task, now: Millis) -> Option<Millis> {
    let wait = task.not_before?.signed_duration_since(clock::wall()).num_milliseconds();
    (wait > 0).then(|| now + Millis(wait))
}
