//! The truth about the queues: which names lie in the ten folders. Names only; no body is opened here.
//!
//! Events are hints and may be lost, so every [`Scanner::scan`] looks at each folder's mtime, and lists the folder
//! again where that has moved. Not here: what is in the files (`intake`), and events (`watch`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CStr;
use std::io;
use std::path::PathBuf;

use model::{Entry, Priority, TaskClass, TaskId};
use rustix::fs::{Dir, FileType};

use crate::atomic::Folder;
use crate::clock;
use crate::layout::{JSON, Layout, priority_of_folder, task_of_file};

/// A folder changed this recently may change again within the same tick of its clock, unseen.
const YOUNG_MS: i64 = 50;
/// Longest name of a task file, without `.json`.
const STEM_BYTES_MAX: usize = 128;

/// The index of names in the queue folders.
#[derive(Debug)]
pub struct Scanner {
    layout: Layout,
    queues: BTreeMap<(TaskClass, Priority), Known>,
    parents: BTreeMap<TaskClass, Known>,
    /// The next place in the one order of arrival.
    next_order: u64,
}

/// What is known of one folder.
#[derive(Debug, Default)]
struct Known {
    /// Place in the order, and the listing that saw it last.
    names: HashMap<Box<str>, (u64, u64)>,
    held: Vec<HeldFile>,
    listing: u64,
    /// The folder's identity and mtime when it was listed; none if it must be listed again.
    at: Option<Moment>,
}

type Moment = (u64, i64, u64);

/// Which folders must be listed even if nothing seems to have moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// All of them.
    pub all: bool,
    /// These.
    pub queues: BTreeSet<(TaskClass, Priority)>,
}

impl Dirty {
    /// All folders.
    #[must_use]
    pub const fn everything() -> Self {
        Self { all: true, queues: BTreeSet::new() }
    }

    /// Whether a hint asked for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.queues.is_empty()
    }
}

/// A file that stays where it is, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldFile {
    /// Which, for display: what cannot be shown of its name is escaped.
    pub path: PathBuf,
    /// Machine-readable: `not_json`, `bad_name`, `unknown_queue_dir`, `not_regular`, `not_a_folder`, `foreign_file`,
    /// `unreadable`.
    pub code: &'static str,
    /// One sentence, with the next step.
    pub detail: String,
}

/// What has changed since the last scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// New files with their place in the one order of arrival.
    pub appeared: Vec<(Entry, u64)>,
    /// Files that are gone, and it was not us.
    pub vanished: Vec<Entry>,
    /// How many files each folder holds.
    pub counts: BTreeMap<(TaskClass, Priority), u64>,
    /// Everything that is held now, said anew by each scan.
    pub held: Vec<HeldFile>,
}

/// What a name is.
#[derive(Debug, PartialEq, Eq)]
enum Sort {
    Task,
    Ignored,
    Held(&'static str, &'static str),
}

impl Scanner {
    /// Knows nothing yet: the first scan lists everything, in the order of the names.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, queues: BTreeMap::new(), parents: BTreeMap::new(), next_order: 1 }
    }

    /// Looks at all folders and lists those that are dirty or have changed. A folder that is missing is made again.
    pub fn scan(&mut self, dirty: &Dirty) -> Scan {
        let mut scan = Scan::default();
        for class in TaskClass::ALL {
            let known = self.parents.entry(class).or_default();
            look_beside_queues(&self.layout, class, known, dirty.all);
            scan.held.extend(known.held.iter().cloned());
        }
        for key in self.layout.queues() {
            let known = self.queues.entry(key).or_default();
            let listed = dirty.all || dirty.queues.contains(&key);
            if let Err(error) =
                look_at_queue(&self.layout, key, known, listed, &mut self.next_order, &mut scan)
            {
                known.held = vec![cannot_look(self.layout.queue(key.0, key.1), &error)];
                known.at = None;
                let gone = known.names.drain().map(|(name, _)| entry(key, &name));
                scan.vanished.extend(gone);
            }
            scan.held.extend(known.held.iter().cloned());
        }
        scan.counts = self.counts();
        scan
    }

    /// A hint named this file: its place in the order, if it is there and may be a task.
    pub fn notice(&mut self, entry: &Entry) -> Option<u64> {
        let key = (entry.class, entry.priority);
        let there = rustix::fs::lstat(self.layout.entry(entry));
        let kind = there.as_ref().ok().map(|stat| FileType::from_raw_mode(stat.st_mode));
        match (kind, sort_of(entry.name.as_bytes(), kind.unwrap_or(FileType::Unknown))) {
            (Some(_), Sort::Task) => Some(self.remember(entry)),
            (Some(_), Sort::Held(..)) => {
                // Only a listing says what is held.
                self.queues.entry(key).or_default().at = None;
                None
            }
            _ => None,
        }
    }

    /// A hint said that this file is gone: whether it was known and really is (else we moved it ourselves, or it came
    /// back).
    pub fn vanished(&mut self, entry: &Entry) -> bool {
        let gone = rustix::fs::lstat(self.layout.entry(entry)).is_err();
        gone && self.forget(entry)
    }

    /// We moved it out of its folder; whether it was known.
    pub fn forget(&mut self, entry: &Entry) -> bool {
        let known = self.queues.get_mut(&(entry.class, entry.priority));
        known.is_some_and(|known| known.names.remove(entry.name.as_str()).is_some())
    }

    /// We put it there; its place in the order, which it keeps if it was known.
    pub fn remember(&mut self, entry: &Entry) -> u64 {
        let known = self.queues.entry((entry.class, entry.priority)).or_default();
        if let Some((order, _)) = known.names.get(entry.name.as_str()) {
            return *order;
        }
        let order = self.next_order;
        self.next_order += 1;
        known.names.insert(entry.name.as_str().into(), (order, known.listing));
        order
    }

    /// How many files each folder holds.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(TaskClass, Priority), u64> {
        self.layout
            .queues()
            .into_iter()
            .map(|key| (key, self.queues.get(&key).map_or(0, |known| known.names.len() as u64)))
            .collect()
    }
}

fn entry(key: (TaskClass, Priority), name: &str) -> Entry {
    Entry { class: key.0, priority: key.1, name: name.to_owned() }
}

fn cannot_look(path: PathBuf, error: &io::Error) -> HeldFile {
    let (code, detail) = if error.kind() == io::ErrorKind::NotADirectory {
        (
            "not_a_folder",
            "a queue must be a folder, not a link or a file; move it away, and it is made again".to_owned(),
        )
    } else {
        ("unreadable", format!("it cannot be listed: {error}"))
    };
    HeldFile { path, code, detail }
}

fn look_at_queue(
    layout: &Layout,
    key: (TaskClass, Priority),
    known: &mut Known,
    dirty: bool,
    next_order: &mut u64,
    scan: &mut Scan,
) -> io::Result<()> {
    let folder = Folder::open_or_make(layout.queue(key.0, key.1))?;
    let Some(moment) = to_list(&folder, known, dirty)? else { return Ok(()) };
    known.listing += 1;
    known.held.clear();
    let mut new = Vec::new();
    each_name(&folder, |name, kind| match sort_of(name.to_bytes(), kind) {
        Sort::Task => {
            // A task's name is ASCII: `sort_of` has seen to that.
            let name = name.to_str().unwrap_or_default();
            match known.names.get_mut(name) {
                Some((_, listing)) => *listing = known.listing,
                None => new.push(Box::<str>::from(name)),
            }
        }
        Sort::Ignored => {}
        Sort::Held(code, detail) => {
            let path = folder.path().join(name.to_bytes().escape_ascii().to_string());
            known.held.push(HeldFile { path, code, detail: detail.to_owned() });
        }
    })?;
    let listing = known.listing;
    known.names.retain(|name, (_, seen)| {
        let stays = *seen == listing;
        if !stays {
            scan.vanished.push(entry(key, name));
        }
        stays
    });
    new.sort_unstable();
    for name in new {
        scan.appeared.push((entry(key, &name), *next_order));
        known.names.insert(name, (*next_order, listing));
        *next_order += 1;
    }
    known.held.sort();
    known.at = moment;
    Ok(())
}

/// What lies beside the five folders of a class is held: nobody would look there.
fn look_beside_queues(layout: &Layout, class: TaskClass, known: &mut Known, dirty: bool) {
    let path = layout.class_queue(class);
    let look = |known: &mut Known| -> io::Result<()> {
        let folder = Folder::open_or_make(&path)?;
        let Some(moment) = to_list(&folder, known, dirty)? else { return Ok(()) };
        known.held.clear();
        each_name(&folder, |name, kind| {
            let known_queue = name.to_str().ok().and_then(priority_of_folder).is_some();
            if known_queue || is_noise(name.to_bytes()) {
                return;
            }
            let (code, detail) = if kind == FileType::Directory {
                (
                    "unknown_queue_dir",
                    "there are five queues, `priority_1` (low) to `priority_5` (urgent); move its tasks to one of them",
                )
            } else {
                (
                    "foreign_file",
                    "tasks are dropped into `priority_1` to `priority_5`; move it to one of them",
                )
            };
            let path = path.join(name.to_bytes().escape_ascii().to_string());
            known.held.push(HeldFile { path, code, detail: detail.to_owned() });
        })?;
        known.held.sort();
        known.at = moment;
        Ok(())
    };
    if let Err(error) = look(known) {
        known.held = vec![cannot_look(path.clone(), &error)];
        known.at = None;
    }
}

/// Whether a folder must be listed; if so, the moment to be remembered afterwards, unless it is too recent to trust.
fn to_list(folder: &Folder, known: &Known, dirty: bool) -> io::Result<Option<Option<Moment>>> {
    let stat = folder.own_stat()?;
    #[expect(clippy::unnecessary_cast, reason = "the fields' widths differ between machines")]
    let moment = (stat.st_ino as u64, stat.st_mtime as i64, stat.st_mtime_nsec as u64);
    if !dirty && known.at == Some(moment) {
        return Ok(None);
    }
    let mtime_ms =
        moment.1.saturating_mul(1_000).saturating_add(i64::try_from(moment.2 / 1_000_000).unwrap_or(0));
    let age_ms = clock::wall().timestamp_millis().saturating_sub(mtime_ms);
    Ok(Some((age_ms.abs() >= YOUNG_MS).then_some(moment)))
}

fn each_name(folder: &Folder, mut found: impl FnMut(&CStr, FileType)) -> io::Result<()> {
    for item in Dir::read_from(folder.fd())? {
        let item = item?;
        let name = item.file_name();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            found(name, item.file_type());
        }
    }
    Ok(())
}

/// What a file in a queue folder is, by its name and kind.
fn sort_of(name: &[u8], kind: FileType) -> Sort {
    if is_noise(name) {
        return Sort::Ignored;
    }
    let printable = std::str::from_utf8(name).is_ok_and(|name| !name.chars().any(char::is_control));
    if !printable {
        return Sort::Held(
            "bad_name",
            "its name cannot be shown; rename it to letters, digits, `.`, `_` or `-`",
        );
    }
    match kind {
        FileType::RegularFile | FileType::Unknown => {}
        FileType::Symlink => {
            return Sort::Held("not_regular", "links are not followed; copy the file itself here");
        }
        FileType::Directory => {
            return Sort::Held("not_regular", "folders in a queue are not looked into; move its files up");
        }
        _ => return Sort::Held("not_regular", "it is no regular file; remove it"),
    }
    let Some(stem) = name.strip_suffix(JSON.as_bytes()) else {
        return Sort::Held("not_json", "only files whose name ends in `.json` are tasks; rename it");
    };
    let legal = (1..=STEM_BYTES_MAX).contains(&stem.len())
        && stem[0].is_ascii_alphanumeric()
        && stem.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if legal {
        Sort::Task
    } else {
        Sort::Held(
            "bad_name",
            "name it with up to 128 letters, digits, `.`, `_` or `-`, a letter or digit first",
        )
    }
}

/// What editors, browsers and network file systems leave for a moment.
fn is_noise(name: &[u8]) -> bool {
    const ENDS: [&[u8]; 8] =
        [b"~", b".tmp", b".part", b".filepart", b".swp", b".swx", b".crdownload", b".partial"];
    name.starts_with(b".")
        || ENDS.iter().any(|end| name.ends_with(end))
        || (name.len() > 1 && name.starts_with(b"#") && name.ends_with(b"#"))
        || name == b"4913"
}

/// Files in `processing/` that are no task of ours; `known` says which are. They are never run and never deleted.
///
/// # Errors
/// As the system says.
pub fn foreign(layout: &Layout, known: &dyn Fn(&TaskId) -> bool) -> io::Result<Vec<HeldFile>> {
    let folder = Folder::open_or_make(layout.processing())?;
    let mut held = Vec::new();
    each_name(&folder, |name, _| {
        let ours = name.to_str().ok().and_then(task_of_file).is_some_and(|task| known(&task));
        if !ours && !is_noise(name.to_bytes()) {
            held.push(HeldFile {
                path: folder.path().join(name.to_bytes().escape_ascii().to_string()),
                code: "foreign_file",
                detail: "only the brain puts files here; move it into a queue folder to run it".into(),
            });
        }
    })?;
    held.sort();
    Ok(held)
}

#[cfg(test)]
mod tests;
