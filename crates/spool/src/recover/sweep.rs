//! What dead processes left unfinished: half-born folders, staged files, temporary names; and old buried folders.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Note;
use crate::layout::{LOCK, Layout};
use crate::lock::open_lock;

/// Anything unfinished that has not changed for so long belongs to nobody any more.
const UNFINISHED: Duration = Duration::from_secs(3_600);
/// A buried folder holds logs that help to find out why its worker died; after a week nobody asks.
const BURIED: Duration = Duration::from_secs(7 * 24 * 3_600);

/// X3.
pub(super) fn sweep(layout: &Layout) -> io::Result<Vec<Note>> {
    let mut notes = Vec::new();
    each(&layout.workers(), |entry, name| {
        let path = entry.path();
        let gone = if name.starts_with(".new-") {
            is_older(&entry, UNFINISHED) && is_nobodys(&path) && fs::remove_dir_all(&path).is_ok()
        } else {
            name.starts_with(".dead-") && is_older(&entry, BURIED) && fs::remove_dir_all(&path).is_ok()
        };
        if gone {
            notes.push(Note::Swept(path));
        }
    })?;
    each(&layout.stage(), |entry, _| {
        if is_older(&entry, UNFINISHED) && fs::remove_file(entry.path()).is_ok() {
            notes.push(Note::Swept(entry.path()));
        }
    })?;
    for folder in [layout.root(), &layout.brain(), &layout.batches()] {
        each(folder, |entry, name| {
            let temporary = name.starts_with('.') && name.ends_with(".tmp");
            if temporary && is_older(&entry, UNFINISHED) && fs::remove_file(entry.path()).is_ok() {
                notes.push(Note::Swept(entry.path()));
            }
        })?;
    }
    Ok(notes)
}

fn each(folder: &Path, mut work: impl FnMut(DirEntry, &str)) -> io::Result<()> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in listing {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str() {
            work(entry, name);
        }
    }
    Ok(())
}

/// A file from the future is young.
fn is_older(entry: &DirEntry, age: Duration) -> bool {
    let modified = entry.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|old| old > age))
}

/// A birth in progress holds the lock.
fn is_nobodys(newborn: &Path) -> bool {
    open_lock(&newborn.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}
