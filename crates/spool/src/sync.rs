//! What must reach the disk: collected by the one loop, written back together by somebody who may block.
//!
//! A serial loop of fsyncs makes about a hundred tasks a second durable, the same fsyncs at the same time some
//! thousands, as the file system commits them together. So nobody syncs by himself: everybody notes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::Durability;

use crate::crash;

/// More threads than this do not make a group commit faster.
const THREADS_MAX: usize = 16;

/// What has been changed since the last [`Pending::take`].
#[derive(Debug, Default)]
pub struct Pending {
    durability: Durability,
    folders: BTreeSet<PathBuf>,
    files: Vec<Arc<File>>,
}

/// Work to be done where blocking is allowed; it is `Send`.
#[derive(Debug, Default)]
#[must_use = "nothing is durable before it has run"]
pub struct SyncJob {
    folders: Vec<PathBuf>,
    files: Vec<Arc<File>>,
}

impl Pending {
    /// Nothing yet. At [`Durability::Process`] nothing ever is: the kernel keeps what a dead process has written.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self { durability, ..Self::default() }
    }

    /// An entry of this folder has come, gone or been renamed.
    pub fn folder(&mut self, folder: &Path) {
        if self.durability == Durability::Power && !self.folders.contains(folder) {
            self.folders.insert(folder.to_owned());
        }
    }

    /// The content of this file has changed.
    pub fn file(&mut self, file: &Arc<File>) {
        if self.durability == Durability::Power && !self.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            self.files.push(Arc::clone(file));
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.files.is_empty()
    }

    /// All of it as one job; the set is empty afterwards. What is noted from now on belongs to the next job.
    pub fn take(&mut self) -> SyncJob {
        SyncJob {
            folders: std::mem::take(&mut self.folders).into_iter().collect(),
            files: std::mem::take(&mut self.files),
        }
    }
}

impl SyncJob {
    /// Adds another job to this one.
    pub fn join(&mut self, other: Self) {
        self.folders.extend(other.folders);
        self.folders.sort();
        self.folders.dedup();
        self.files.extend(other.files);
    }

    /// Waits until all of it is on the disk. A folder that no longer exists needs nothing.
    ///
    /// # Errors
    /// The first failure, with the path; everything else was tried all the same.
    pub fn run(self) -> io::Result<()> {
        let folders = self.folders.len();
        let all = folders + self.files.len();
        at_once(all, |index| match self.folders.get(index) {
            Some(folder) => sync_names(folder),
            None => self.files[index - folders].sync_data(),
        })?;
        if all > 0 {
            crash::point("sync.job");
        }
        Ok(())
    }
}

/// Syncs these files, all at the same time; one answer for each.
#[must_use]
pub fn sync_files(files: &[File]) -> Vec<io::Result<()>> {
    let done: Vec<_> = files.iter().map(|_| std::sync::Mutex::new(Ok(()))).collect();
    let each = at_once(files.len(), |index| {
        let synced = files[index].sync_all();
        *done[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = synced;
        Ok(())
    });
    debug_assert!(each.is_ok(), "the closure above does not fail");
    crash::point("sync.files");
    done.into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
        .collect()
}

/// Waits until the names in `folder` are on the disk.
///
/// # Errors
/// When they may not be. A folder that does not exist is no error: its names went with it.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    sync_names(folder)?;
    crash::point("sync.folder");
    Ok(())
}

fn sync_names(folder: &Path) -> io::Result<()> {
    let sync = || File::open(folder)?.sync_all();
    match sync() {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Some file systems cannot sync a folder and need not.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Ok(()),
        Err(_) => sync().map_err(|error| {
            io::Error::new(error.kind(), format!("failed to sync {}: {error}", folder.display()))
        }),
    }
}

/// Does `work(0)`, …, `work(count - 1)` on as many threads as help, and gives the first error.
fn at_once(count: usize, work: impl Fn(usize) -> io::Result<()> + Sync) -> io::Result<()> {
    if count <= 1 {
        return (0..count).try_for_each(work);
    }
    let next = AtomicUsize::new(0);
    let share = || {
        let mut first = Ok(());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return first;
            }
            if let (Err(error), true) = (work(index), first.is_ok()) {
                first = Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count.min(THREADS_MAX)).map(|_| scope.spawn(share)).collect();
        let done: Vec<io::Result<()>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        done.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_noted_often_is_synced_once_and_a_vanished_one_needs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut pending = Pending::new(Durability::Power);
        for _ in 0..100 {
            pending.folder(dir.path());
        }
        pending.folder(&dir.path().join("gone"));
        let file = Arc::new(tempfile::tempfile().unwrap());
        pending.file(&file);
        pending.file(&file);
        let job = pending.take();
        assert_eq!((job.folders.len(), job.files.len()), (2, 1));
        assert!(pending.is_empty());
        job.run().unwrap();
    }

    #[test]
    fn against_the_death_of_processes_nothing_is_synced() {
        let mut pending = Pending::new(Durability::Process);
        pending.folder(Path::new("/"));
        assert!(pending.is_empty());
    }

    #[test]
    fn one_failure_does_not_hide_the_others() {
        let tried = AtomicUsize::new(0);
        let done = at_once(40, |index| {
            tried.fetch_add(1, Ordering::Relaxed);
            if index == 7 { Err(io::Error::other("no")) } else { Ok(()) }
        });
        assert!(done.is_err());
        assert_eq!(tried.load(Ordering::Relaxed), 40);
    }
}
