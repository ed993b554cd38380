//! Finding a task by its id, for people: it may be in any folder, and may move while one looks.
//!
//! Not here: anything that moves a file.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::fault::did_you_mean;
use model::{Entry, TaskId, TaskRecord};

use crate::layout::{Layout, task_file, task_of_file};
use crate::ledger::{record_of, rejection_of};

/// A task that moves from folder to folder is looked for so often.
const ROUNDS: usize = 3;
/// So many ids are compared with one that was not found.
const COMPARED_MAX: usize = 200_000;
/// So many are offered.
const OFFERED_MAX: usize = 5;
/// So many queue files are opened to look for one whose name is not its id.
const OPENED_MAX: usize = 20_000;

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Waiting in a queue folder.
    Queue(Entry),
    /// Claimed.
    Processing,
    /// Ended well.
    Complete,
    /// Failed.
    Failed,
    /// Never was a task: its bytes and the reason lie in `failed/`.
    Rejected,
}

/// A task that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// Where.
    pub place: Place,
    /// Its file.
    pub path: PathBuf,
    /// What the file says; none where that is no task.
    pub record: Option<Box<TaskRecord>>,
}

/// Finds a task by its id, also one that waits in a file of another name.
///
/// # Errors
/// As the system says.
pub fn locate(layout: &Layout, task: &TaskId) -> io::Result<Option<Located>> {
    for _ in 0..ROUNDS {
        for (place, path) in places(layout, task) {
            match fs::read(&path) {
                Ok(bytes) => {
                    return Ok(Some(Located { place, path, record: record_of(&bytes).map(Box::new) }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                Err(error) => return Err(error),
            }
        }
    }
    if let Some(found) = under_another_name(layout, task)? {
        return Ok(Some(found));
    }
    let rejected = rejection_of(layout, &task_file(task))?;
    Ok(rejected.map(|(path, _)| Located { place: Place::Rejected, path, record: None }))
}

/// In the order in which a task goes, so that one that moves on is met further on.
fn places(layout: &Layout, task: &TaskId) -> Vec<(Place, PathBuf)> {
    let name = task_file(task);
    let queued = layout.queues().into_iter().map(|(class, priority)| {
        let entry = Entry { class, priority, name: name.clone() };
        let path = layout.entry(&entry);
        (Place::Queue(entry), path)
    });
    let ended = [
        (Place::Processing, layout.processing()),
        (Place::Complete, layout.complete()),
        (Place::Failed, layout.failed()),
    ];
    queued.chain(ended.map(|(place, folder)| (place, folder.join(&name)))).collect()
}

fn under_another_name(layout: &Layout, task: &TaskId) -> io::Result<Option<Located>> {
    let mut opened = 0;
    for (class, priority) in layout.queues() {
        for name in names(&layout.queue(class, priority))? {
            opened += 1;
            if opened > OPENED_MAX {
                return Ok(None);
            }
            let entry = Entry { class, priority, name };
            let path = layout.entry(&entry);
            let regular = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
            let record =
                if regular { fs::read(&path).ok().and_then(|bytes| record_of(&bytes)) } else { None };
            if let Some(record) = record.filter(|record| record.task_id.as_ref() == Some(task)) {
                return Ok(Some(Located {
                    place: Place::Queue(entry),
                    path,
                    record: Some(Box::new(record)),
                }));
            }
        }
    }
    Ok(None)
}

/// Ids like this text: those that begin with it, else those spelled alike; at most five.
///
/// # Errors
/// As the system says.
pub fn nearest(layout: &Layout, text: &str) -> io::Result<Vec<TaskId>> {
    let mut begin = BTreeSet::new();
    let mut known = BTreeSet::new();
    for folder in folders(layout).into_iter().map(|(_, folder)| folder) {
        for task in names(&folder)?.iter().filter_map(|name| task_of_file(name)) {
            if !text.is_empty() && task.as_str().starts_with(text) {
                begin.insert(task);
            } else if known.len() < COMPARED_MAX {
                known.insert(task);
            }
        }
    }
    if !begin.is_empty() {
        return Ok(begin.into_iter().take(OFFERED_MAX).collect());
    }
    let mut alike = Vec::new();
    while alike.len() < OFFERED_MAX
        && let Some(id) =
            did_you_mean(text, known.iter().map(TaskId::as_str)).and_then(|id| TaskId::new(id).ok())
    {
        known.remove(&id);
        alike.push(id);
    }
    Ok(alike)
}

/// All tasks by place, in the order in which a task goes. Queued ones are named by their files.
///
/// # Errors
/// As the system says.
pub fn list(layout: &Layout) -> io::Result<Vec<(TaskId, Place)>> {
    let mut tasks = Vec::new();
    for (place, folder) in folders(layout) {
        let mut names = names(&folder)?;
        names.sort_unstable();
        for name in names {
            let Some(task) = task_of_file(&name) else { continue };
            let place = match &place {
                Place::Queue(entry) => Place::Queue(Entry { name, ..entry.clone() }),
                other => other.clone(),
            };
            tasks.push((task, place));
        }
    }
    Ok(tasks)
}

fn folders(layout: &Layout) -> Vec<(Place, PathBuf)> {
    let queue = |(class, priority)| {
        let place = Place::Queue(Entry { class, priority, name: String::new() });
        (place, layout.queue(class, priority))
    };
    let ended = [
        (Place::Processing, layout.processing()),
        (Place::Complete, layout.complete()),
        (Place::Failed, layout.failed()),
    ];
    layout.queues().into_iter().map(queue).chain(ended).collect()
}

/// Names of task files in a folder; a folder that is missing has none.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok().filter(|name| task_of_file(name).is_some()));
    }
    // What lies in `failed` under `<name>.rejected.reason.json` is no task.
    names.retain(|name| !(name.ends_with(".reason.json") && name.contains(".rejected")));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Priority, TaskClass};

    fn house() -> (tempfile::TempDir, Layout) {
        let dir = crate::rig::folder();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        (dir, layout)
    }

    fn id(text: &str) -> TaskId {
        TaskId::new(text).unwrap()
    }

    fn entry(name: &str) -> Entry {
        Entry { class: TaskClass::Llm, priority: Priority::NORMAL, name: name.into() }
    }

    #[test]
    fn a_task_is_found_wherever_it_lies() {
        let (_dir, layout) = house();
        fs::write(layout.entry(&entry("waits.json")), r#"{"prompt": "a"}"#).unwrap();
        fs::write(layout.entry(&entry("other-name.json")), r#"{"task_id": "demanded", "prompt": "b"}"#)
            .unwrap();
        fs::write(layout.processing().join("runs.json"), r#"{"prompt": "c"}"#).unwrap();
        fs::write(layout.failed().join("failed.json"), "{").unwrap();
        let place = |task| locate(&layout, &id(task)).unwrap().map(|found| found.place);
        assert_eq!(place("waits"), Some(Place::Queue(entry("waits.json"))));
        assert_eq!(place("demanded"), Some(Place::Queue(entry("other-name.json"))));
        assert_eq!(place("runs"), Some(Place::Processing));
        assert_eq!(locate(&layout, &id("failed")).unwrap().unwrap().record, None);
        assert_eq!(place("nowhere"), None);
        let listed: Vec<_> = list(&layout).unwrap().into_iter().map(|(task, _)| task.to_string()).collect();
        assert_eq!(listed, ["other-name", "waits", "runs", "failed"]);
    }

    #[test]
    fn an_id_that_is_not_found_is_answered_with_those_like_it() {
        let (_dir, layout) = house();
        for name in ["talk-1", "talk-2", "lecture"] {
            fs::write(layout.complete().join(format!("{name}.json")), "{}").unwrap();
        }
        assert_eq!(nearest(&layout, "talk").unwrap(), [id("talk-1"), id("talk-2")]);
        assert_eq!(nearest(&layout, "lectrue").unwrap(), [id("lecture")]);
        assert_eq!(nearest(&layout, "zzzzzzzzzzzz").unwrap(), []);
    }
}
