//! Hints that something on the disk has changed: inotify where it works, polling where it does not.
//!
//! A hint is never believed: whoever gets one looks. Missing all of them costs time and nothing else, as every folder is
//! looked at every `rescan_s` anyway. Not here: looking (`scan`, `link`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use model::{Entry, Priority, TaskClass, TaskId, WorkerId};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::UnboundedSender;

use crate::layout::{Layout, task_of_file};

/// Without inotify, folders are looked at this often.
const POLL: Duration = Duration::from_millis(250);

/// Something may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Something in this queue folder: list it (`Dirty`).
    Queue(TaskClass, Priority),
    /// This file was made and may still be growing: `Scanner::notice`, then `Intake::read` with `closed` false.
    Created(Entry),
    /// This file was closed by its writer or moved here: `Scanner::notice`, then `Intake::read` with `closed` true.
    Closed(Entry),
    /// This file is gone; `Scanner::vanished` knows whether it was us.
    Gone(Entry),
    /// A worker's folder came or went.
    Workers,
    /// A worker has reported (told to the brain), or its orders have come (told to the worker).
    Worker(WorkerId),
    /// Somebody asks something.
    Requests,
    /// A manifest came.
    Batches,
    /// A task has ended ([`Watch::endings`]).
    Ended(TaskId),
    /// The brain has answered ([`Watch::endings`]).
    Answers,
    /// There are no events here: scan with nothing marked dirty, so that only folders whose time moved are listed.
    Poll,
    /// Events were lost, or a watched folder was replaced: [`Watch::renew`], then scan everything.
    Rescan,
}

/// What a watched folder is for.
#[derive(Clone, Debug)]
enum Room {
    Queue(TaskClass, Priority),
    QueueParent,
    Workers,
    /// A worker's folder, of which its reports matter.
    Worker(WorkerId),
    Requests,
    Batches,
    Endings,
    Answers,
}

type Rooms = Arc<Mutex<BTreeMap<PathBuf, Room>>>;

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    layout: Layout,
    rooms: Rooms,
    hints: UnboundedSender<Hint>,
    watcher: Option<RecommendedWatcher>,
    /// Dropped, it ends the polling thread.
    polling: Option<Sender<()>>,
    warning: Option<String>,
}

impl Watch {
    /// The brain's: queues, workers, requests, batches. It never fails: where there are no events it polls
    /// ([`Watch::warning`] tells). Start it *before* the first scan.
    #[must_use]
    pub fn start(layout: &Layout, hints: UnboundedSender<Hint>) -> Self {
        let mut rooms: Vec<(PathBuf, Room)> = Vec::new();
        for class in TaskClass::ALL {
            rooms.push((layout.class_queue(class), Room::QueueParent));
        }
        for (class, priority) in layout.queues() {
            rooms.push((layout.queue(class, priority), Room::Queue(class, priority)));
        }
        rooms.push((layout.workers(), Room::Workers));
        rooms.push((layout.requests(), Room::Requests));
        rooms.push((layout.batches(), Room::Batches));
        Self::of(layout, hints, rooms)
    }

    /// A waiting command's: ends of tasks, and answers.
    #[must_use]
    pub fn endings(layout: &Layout, hints: UnboundedSender<Hint>) -> Self {
        let rooms = vec![
            (layout.complete(), Room::Endings),
            (layout.failed(), Room::Endings),
            (layout.answers(), Room::Answers),
        ];
        Self::of(layout, hints, rooms)
    }

    fn of(layout: &Layout, hints: UnboundedSender<Hint>, rooms: Vec<(PathBuf, Room)>) -> Self {
        let known: Rooms = Arc::new(Mutex::new(rooms.into_iter().collect()));
        let (for_handler, sender) = (Arc::clone(&known), hints.clone());
        let handler = move |event: notify::Result<Event>| {
            let told = match event {
                Ok(event) => hints_of(&event, &lock(&for_handler)),
                Err(_) => vec![Hint::Rescan],
            };
            for hint in told {
                // Nobody listens any more: the watch is about to be dropped.
                drop(sender.send(hint));
            }
        };
        let mut watch =
            Self { layout: layout.clone(), rooms: known, hints, watcher: None, polling: None, warning: None };
        match RecommendedWatcher::new(handler, notify::Config::default()) {
            Ok(watcher) => {
                watch.watcher = Some(watcher);
                watch.renew();
            }
            Err(error) => watch.poll(&error),
        }
        watch
    }

    /// Watches a worker's reports from now on.
    pub fn add_worker(&mut self, worker: &WorkerId) {
        let folder = self.layout.worker(worker);
        lock(&self.rooms).insert(folder.clone(), Room::Worker(worker.clone()));
        self.watch(&folder);
    }

    /// No longer watches it.
    pub fn remove_worker(&mut self, worker: &WorkerId) {
        let folder = self.layout.worker(worker);
        lock(&self.rooms).remove(&folder);
        if let Some(watcher) = &mut self.watcher {
            // The folder may be gone, and its watch with it.
            drop(watcher.unwatch(&folder));
        }
    }

    /// Watches all folders anew, also those that were replaced; after a [`Hint::Rescan`].
    pub fn renew(&mut self) {
        let folders: Vec<PathBuf> = lock(&self.rooms).keys().cloned().collect();
        for folder in folders {
            if let Some(watcher) = &mut self.watcher {
                drop(watcher.unwatch(&folder));
            }
            self.watch(&folder);
        }
    }

    /// Why it polls, if it does.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn watch(&mut self, folder: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            // It will be made again by the next scan, which the parent's event asks for.
            Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) || !folder.exists() => {}
            Err(error) => self.poll(&error),
        }
    }

    fn poll(&mut self, error: &notify::Error) {
        if self.polling.is_some() {
            return;
        }
        self.warning = Some(format!(
            "folders are polled every {} ms, as they cannot be watched: {error}; see fs.inotify.max_user_watches",
            POLL.as_millis()
        ));
        let (stop, stopped) = channel::<()>();
        let (rooms, hints) = (Arc::clone(&self.rooms), self.hints.clone());
        let round = move || {
            while stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                for hint in polled(&lock(&rooms)) {
                    if hints.send(hint).is_err() {
                        return;
                    }
                }
            }
        };
        if thread::Builder::new().name("watch-poll".into()).spawn(round).is_ok() {
            self.polling = Some(stop);
        }
    }
}

fn lock(rooms: &Rooms) -> MutexGuard<'_, BTreeMap<PathBuf, Room>> {
    // Nothing that holds it can panic half way through a change.
    rooms.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to look at when nothing tells: every kind of room once.
fn polled(rooms: &BTreeMap<PathBuf, Room>) -> Vec<Hint> {
    let mut hints = Vec::new();
    for room in rooms.values() {
        let hint = match room {
            Room::Queue(..) | Room::QueueParent | Room::Endings => Hint::Poll,
            Room::Workers => Hint::Workers,
            Room::Worker(worker) => Hint::Worker(worker.clone()),
            Room::Requests => Hint::Requests,
            Room::Batches => Hint::Batches,
            Room::Answers => Hint::Answers,
        };
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
}

/// What kind of change an event is, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Made,
    Written,
    Whole,
    Gone,
}

fn change_of(kind: EventKind) -> Option<Change> {
    Some(match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Change::Whole,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Change::Whole,
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => Change::Gone,
        EventKind::Create(_) => Change::Made,
        EventKind::Modify(ModifyKind::Data(_)) => Change::Written,
        // Reads (our own, too), changes of times and modes, and the repeated `Both` of a rename say nothing.
        _ => return None,
    })
}

fn hints_of(event: &Event, rooms: &BTreeMap<PathBuf, Room>) -> Vec<Hint> {
    // An overflow names no path, so it is asked for first.
    if event.need_rescan() {
        return vec![Hint::Rescan];
    }
    let Some(change) = change_of(event.kind) else { return Vec::new() };
    event.paths.iter().filter_map(|path| hint_of(path, change, event.kind, rooms)).collect()
}

fn hint_of(path: &Path, change: Change, kind: EventKind, rooms: &BTreeMap<PathBuf, Room>) -> Option<Hint> {
    if rooms.contains_key(path) && change == Change::Gone {
        // A watched folder itself; its watch would go on telling about the old one. Workers go for good.
        return match rooms.get(path) {
            Some(Room::Worker(_)) => Some(Hint::Workers),
            _ => Some(Hint::Rescan),
        };
    }
    let room = rooms.get(path.parent()?)?;
    let name = path.file_name()?;
    match room {
        // A write in the middle of a file says nothing that its closing will not say.
        Room::Queue(..) if change == Change::Written => None,
        Room::Queue(class, priority) => Some(hint_of_queue(*class, *priority, name, change, kind)),
        // A queue folder was made again, or something else appeared beside the queues.
        Room::QueueParent => Some(Hint::Rescan),
        Room::Workers => (!starts(name, ".")).then_some(Hint::Workers),
        Room::Worker(worker) => {
            let matters = starts(name, "reports") && change != Change::Gone;
            matters.then(|| Hint::Worker(worker.clone()))
        }
        Room::Requests => (change == Change::Whole && !starts(name, ".")).then_some(Hint::Requests),
        Room::Batches => (change == Change::Whole && !starts(name, ".")).then_some(Hint::Batches),
        Room::Answers => (change == Change::Whole && !starts(name, ".")).then_some(Hint::Answers),
        Room::Endings if change == Change::Whole => task_of_file(name.to_str()?).map(Hint::Ended),
        Room::Endings => None,
    }
}

fn hint_of_queue(
    class: TaskClass,
    priority: Priority,
    name: &OsStr,
    change: Change,
    kind: EventKind,
) -> Hint {
    let folder = kind == EventKind::Create(CreateKind::Folder);
    let Some(name) = name.to_str().filter(|_| !folder) else { return Hint::Queue(class, priority) };
    let entry = Entry { class, priority, name: name.to_owned() };
    match change {
        Change::Whole => Hint::Closed(entry),
        Change::Gone => Hint::Gone(entry),
        Change::Made | Change::Written => Hint::Created(entry),
    }
}

fn starts(name: &OsStr, with: &str) -> bool {
    name.as_encoded_bytes().starts_with(with.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, DataChange, Flag};
    use std::fs;
    use std::time::Instant;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn house() -> (tempfile::TempDir, Layout, UnboundedSender<Hint>, UnboundedReceiver<Hint>) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        let (sender, receiver) = unbounded_channel();
        (dir, layout, sender, receiver)
    }

    /// Everything told until `wanted` has been.
    fn until(hints: &mut UnboundedReceiver<Hint>, wanted: &Hint) -> Vec<Hint> {
        let (begun, mut told) = (Instant::now(), Vec::new());
        while begun.elapsed() < Duration::from_secs(10) {
            match hints.try_recv() {
                Ok(hint) => {
                    told.push(hint);
                    if told.last() == Some(wanted) {
                        return told;
                    }
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("{wanted:?} was not told; {told:?} was");
    }

    fn entry(name: &str) -> Entry {
        Entry { class: TaskClass::Llm, priority: Priority::NORMAL, name: name.to_owned() }
    }

    #[test]
    fn a_copied_file_is_told_when_it_is_closed_and_a_moved_one_at_once() {
        let (_dir, layout, sender, mut hints) = house();
        let watch = Watch::start(&layout, sender);
        assert_eq!(watch.warning(), None);
        fs::write(layout.entry(&entry("copied.json")), "{}").unwrap();
        let told = until(&mut hints, &Hint::Closed(entry("copied.json")));
        assert_eq!(told[0], Hint::Created(entry("copied.json")));
        fs::write(layout.stage().join("x"), "{}").unwrap();
        fs::rename(layout.stage().join("x"), layout.entry(&entry("moved.json"))).unwrap();
        until(&mut hints, &Hint::Closed(entry("moved.json")));
        drop(fs::read(layout.entry(&entry("moved.json"))).unwrap());
        fs::remove_file(layout.entry(&entry("moved.json"))).unwrap();
        let told = until(&mut hints, &Hint::Gone(entry("moved.json")));
        assert_eq!(told.len(), 1, "our own reading is no news: {told:?}");
    }

    #[test]
    fn a_queue_that_is_replaced_is_watched_again() {
        let (_dir, layout, sender, mut hints) = house();
        let mut watch = Watch::start(&layout, sender);
        let queue = layout.queue(TaskClass::Llm, Priority::NORMAL);
        fs::rename(&queue, layout.stage().join("old")).unwrap();
        fs::create_dir(&queue).unwrap();
        until(&mut hints, &Hint::Rescan);
        watch.renew();
        fs::write(layout.entry(&entry("x.json")), "{}").unwrap();
        until(&mut hints, &Hint::Closed(entry("x.json")));
    }

    #[test]
    fn a_worker_is_heard_and_what_we_write_to_it_is_not() {
        let (_dir, layout, sender, mut hints) = house();
        let mut watch = Watch::start(&layout, sender);
        let worker = WorkerId::new("w1").unwrap();
        fs::create_dir(layout.newborn(&worker)).unwrap();
        fs::rename(layout.newborn(&worker), layout.worker(&worker)).unwrap();
        assert_eq!(until(&mut hints, &Hint::Workers).len(), 1);
        watch.add_worker(&worker);
        fs::write(layout.worker(&worker).join("orders.jsonl"), "x").unwrap();
        fs::write(layout.worker(&worker).join("log"), "x").unwrap();
        fs::write(layout.worker(&worker).join("reports.jsonl"), "x").unwrap();
        assert_eq!(until(&mut hints, &Hint::Worker(worker.clone())).len(), 1);
        watch.remove_worker(&worker);
    }

    #[test]
    fn who_waits_for_an_end_is_told_of_it() {
        let (_dir, layout, sender, mut hints) = house();
        let _watch = Watch::endings(&layout, sender);
        fs::write(layout.processing().join("t.json"), "{}").unwrap();
        fs::rename(layout.processing().join("t.json"), layout.complete().join("t.json")).unwrap();
        until(&mut hints, &Hint::Ended(TaskId::new("t").unwrap()));
        fs::write(layout.stage().join("a"), "{}").unwrap();
        fs::rename(layout.stage().join("a"), layout.answers().join("a.json")).unwrap();
        until(&mut hints, &Hint::Answers);
    }

    #[test]
    fn a_lost_event_means_that_anything_may_have_happened() {
        let rooms = BTreeMap::new();
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(hints_of(&overflow, &rooms), [Hint::Rescan]);
        let opened = Event::new(EventKind::Access(AccessKind::Open(AccessMode::Any)));
        assert_eq!(hints_of(&opened, &rooms), []);
        let elsewhere =
            Event::new(EventKind::Modify(ModifyKind::Data(DataChange::Any))).add_path("/elsewhere/x".into());
        assert_eq!(hints_of(&elsewhere, &rooms), []);
    }

    #[test]
    fn where_nothing_can_be_watched_everything_is_looked_at_in_turn() {
        let (_dir, layout, sender, mut hints) = house();
        let mut watch = Watch::start(&layout, sender);
        watch.poll(&notify::Error::generic("no more watches"));
        assert!(watch.warning().unwrap().contains("no more watches"));
        for wanted in [Hint::Poll, Hint::Workers] {
            until(&mut hints, &wanted);
        }
    }
}
